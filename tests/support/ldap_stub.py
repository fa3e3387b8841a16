"""An LDAP server on loopback that does what a test says: our own acceptor, real sockets, one thread per connection."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyasn1.codec.ber import decoder

from purekrb import Acceptor, ChannelBindings, Flag, KerberosError, Keytab
from purekrb.directory.ldap import LdapSession, ldap3  # without the warnings of ldap3's own import
from purekrb.directory.stream import MessageReader, MessageSocket
from purekrb.messages.der import tlv
from purekrb.replay import MemoryReplayCache
from purekrb.sasl import SecurityLayer
from support.der_tree import parse
from support.kdc_stubs import TcpStub

__all__ = [
    "ROOT_DSE",
    "Entries",
    "LdapPeer",
    "LdapStub",
    "PlainStub",
    "Question",
    "Request",
    "next_number",
    "entry",
    "message",
    "reference",
    "result",
    "session_without_bind",
]

Entries = Sequence[tuple[str, Mapping[str, Sequence[bytes]]]]

ROOT_DSE: dict[str, Sequence[bytes]] = {
    "defaultNamingContext": [b"DC=example,DC=test"],
    "rootDomainNamingContext": [b"DC=example,DC=test"],
    "dnsHostName": [b"dc1.example.test"],
}
PAGED = b"1.2.840.113556.1.4.319"
SEARCH, UNBIND = 0x63, 0x42
BIND, SEARCH_ENTRY, SEARCH_DONE, SEARCH_REFERENCE, EXTENDED = 0x61, 0x64, 0x65, 0x73, 0x78
#: The tags of what answers requests that change something.
ANSWERS = {"modifyRequest": 0x67, "addRequest": 0x69, "delRequest": 0x6B, "modDNRequest": 0x6D}


def octets(data: bytes | str, tag: int = 0x04) -> bytes:
    return tlv(tag, data.encode() if isinstance(data, str) else data)


def integer(value: int, tag: int = 0x02) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def message(number: int, operation: bytes, controls: bytes = b"") -> bytes:
    """Return an LDAPMessage. Source: RFC 4511 4.1.1."""
    return tlv(0x30, integer(number) + operation + (tlv(0xA0, controls) if controls else b""))


def result(
    tag: int, code: int = 0, text: str = "", *, referrals: Sequence[str] = (), more: bytes = b""
) -> bytes:
    """Return an LDAPResult."""
    urls = tlv(0xA3, b"".join(map(octets, referrals))) if referrals else b""
    return tlv(tag, integer(code, 0x0A) + octets("") + octets(text) + urls + more)


def entry(dn: str, attributes: Mapping[str, Iterable[bytes]]) -> bytes:
    """Return a SearchResultEntry."""
    pairs = (
        tlv(0x30, octets(name) + tlv(0x31, b"".join(map(octets, values))))
        for name, values in attributes.items()
    )
    return tlv(SEARCH_ENTRY, octets(dn) + tlv(0x30, b"".join(pairs)))


def reference(*urls: str) -> bytes:
    """Return a SearchResultReference."""
    return tlv(SEARCH_REFERENCE, b"".join(map(octets, urls)))


@dataclass
class Request:
    """A request: its number, its name in RFC 4511, its fields (pyasn1), and the values of its controls by OID."""

    number: int
    name: str
    body: Any
    controls: dict[bytes, bytes] = field(default_factory=dict)


class LdapPeer:
    """The server's end of one connection. `bound` counts binds; `requests` are the names of what was asked."""

    def __init__(self, stub: LdapStub, sock: socket.socket) -> None:
        self.stub = stub
        self.socket = sock
        self.layer: SecurityLayer | None = None
        self.context: Acceptor | None = None
        self._reader = MessageReader()

    def receive(self) -> Request | None:
        """Return the next request, None at the end."""
        while (data := self._reader.next_message()) is None:
            received = self.socket.recv(65536)
            if not received:
                return None
            self._reader.feed(self.layer.unwrap(received) if self.layer else received)
        decoded, _ = decoder.decode(data, asn1Spec=ldap3.protocol.rfc4511.LDAPMessage())
        name = decoded["protocolOp"].getName()
        controls = decoded["controls"] if decoded["controls"].hasValue() else ()
        return Request(
            int(decoded["messageID"]),
            name,
            decoded["protocolOp"].getComponent(),
            {bytes(control["controlType"]): bytes(control["controlValue"]) for control in controls},
        )

    def send(self, *messages: bytes) -> None:
        """Send whole messages, through the layer where there is one."""
        data = b"".join(messages)
        self.socket.sendall(self.layer.wrap(data) if self.layer else data)


class LdapStub(TcpStub):
    """A directory that has `entries` and the keys of `keytab`.

    `offer`: the octets of the layer negotiation, or a function from the acceptor to the whole token. `search` answers
    search requests in place of the default, `write` says the result code of a change; `bind` does a bind in place of
    the default one. `tls`: TLS at once (`ldaps`) or on request. `page` is the largest page.
    """

    def __init__(
        self,
        keytab: Keytab,
        entries: Entries = (),
        *,
        root: Mapping[str, Sequence[bytes]] = ROOT_DSE,
        offer: bytes | Callable[[Acceptor], bytes] = b"\7\1\0\0",
        bind: Callable[[LdapPeer, Request], None] | None = None,
        search: Callable[[LdapPeer, Request], None] | None = None,
        write: Callable[[Request], int] = lambda request: 0,
        tls: ssl.SSLContext | None = None,
        ldaps: bool = False,
        certificate: bytes | None = None,
        require: Flag = Flag.MUTUAL,
        page: int = 1000,
        **options: Any,
    ) -> None:
        self.keytab = keytab
        self.entries = entries
        self.root = root
        self.offer = offer
        self.bind = bind or self.default_bind
        self.search = search or self.default_search
        self.write = write
        self.tls, self.ldaps, self.certificate = tls, ldaps, certificate
        self.require = require
        self.page = page
        self.requests: list[Request] = []
        self.contexts: list[Acceptor] = []
        super().__init__(LdapStub._serve_connection, **options)

    @property
    def url(self) -> str:
        return f"{'ldaps' if self.ldaps else 'ldap'}://{self.host}:{self.port}"

    def names(self) -> list[str]:
        """Return what was asked, without binds and unbinds."""
        return [r.name for r in self.requests if r.name not in ("bindRequest", "unbindRequest")]

    def _serve_connection(self, sock: socket.socket) -> None:
        peer = LdapPeer(self, sock)
        try:
            if self.ldaps:
                peer.socket = self._secured(sock)
            while (request := peer.receive()) is not None and request.name != "unbindRequest":
                self.requests.append(request)
                self._answer(peer, request)
        except KerberosError:
            pass  # a client that we refuse sees the connection end
        finally:
            peer.socket.close()

    def _secured(self, sock: socket.socket) -> ssl.SSLSocket:
        assert self.tls is not None
        return self.tls.wrap_socket(sock, server_side=True)

    def _answer(self, peer: LdapPeer, request: Request) -> None:
        if request.name == "bindRequest":
            self.bind(peer, request)
        elif request.name == "searchRequest":
            self.search(peer, request)
        elif request.name == "extendedReq":
            code = 0 if self.tls is not None else 53
            peer.send(message(request.number, result(EXTENDED, code)))
            if code == 0:
                peer.socket = self._secured(peer.socket)
        else:
            peer.send(message(request.number, result(ANSWERS[request.name], self.write(request))))

    # binds --------------------------------------------------------------------------------------------------------

    def default_bind(self, peer: LdapPeer, request: Request) -> None:
        """Take the initiator's token and make the offer; or take its choice."""
        token = credentials(request)
        if peer.context is None or not token.startswith(b"\5\4"):
            if peer.context is None or token.startswith(
                b"\x60"
            ):  # the first token of a bind, maybe of another one
                peer.context = self.acceptor()
                self.contexts.append(peer.context)
                self.in_progress(peer, request, peer.context.step(token) or b"")
            else:
                offer = (
                    self.offer(peer.context)
                    if callable(self.offer)
                    else peer.context.wrap(self.offer, False)
                )
                self.in_progress(peer, request, offer)
            return
        choice = peer.context.unwrap(token, sealed=False)
        peer.send(message(request.number, result(BIND)))
        self.protect(peer, choice)

    def acceptor(self) -> Acceptor:
        bindings = (
            ChannelBindings.tls_server_end_point(self.certificate) if self.certificate else None
        )
        return Acceptor(
            self.keytab,
            require=self.require,
            channel_bindings=bindings,
            require_channel_bindings=bindings is not None,
            replay_cache=MemoryReplayCache(),
        )

    @staticmethod
    def in_progress(peer: LdapPeer, request: Request, token: bytes) -> None:
        peer.send(message(request.number, result(BIND, 14, more=octets(token, 0x87))))

    @staticmethod
    def protect(peer: LdapPeer, choice: bytes) -> None:
        """Begin the layer that the client has chosen."""
        if choice[0] != 1:
            assert peer.context is not None
            limit = int.from_bytes(choice[1:4], "big")
            peer.layer = SecurityLayer(peer.context, sealed=choice[0] == 4, max_send=limit)

    # searches -----------------------------------------------------------------------------------------------------

    def default_search(self, peer: LdapPeer, request: Request) -> None:
        """Answer with the root DSE, or with a page of the entries."""
        if not str(request.body["baseObject"]) and int(request.body["scope"]) == 0:
            peer.send(
                message(request.number, entry("", self.root)),
                message(request.number, result(SEARCH_DONE)),
            )
            return
        start, size, control = 0, len(self.entries), b""
        if PAGED in request.controls:
            asked, _ = decoder.decode(
                request.controls[PAGED], asn1Spec=ldap3.protocol.rfc2696.RealSearchControlValue()
            )
            start, size = int(bytes(asked["cookie"]) or b"0"), min(int(asked["size"]), self.page)
            cookie = str(start + size).encode() if start + size < len(self.entries) else b""
            value = tlv(0x30, integer(0) + octets(cookie))
            control = tlv(0x30, octets(PAGED) + octets(value))
        found = [message(request.number, entry(*one)) for one in self.entries[start : start + size]]
        peer.send(*found, message(request.number, result(SEARCH_DONE), control))


def credentials(request: Request) -> bytes:
    """Return the SASL token of a bind request."""
    return bytes(request.body["authentication"]["sasl"]["credentials"])


class Question(NamedTuple):
    """A request: its number, its tag and, of a search, the base and the attributes."""

    number: int
    operation: int
    base: str
    attributes: list[str]


class PlainStub(TcpStub):
    """Answers each request with the octets that `answer` returns, and knows no bind; closes where `once` is set.

    For `session_without_bind`: filters of any kind may be asked for, which pyasn1 cannot read.
    """

    def __init__(self, answer: Callable[[Question], bytes], *, once: bool = False) -> None:
        self.answer = answer
        self.once = once
        self.questions: list[Question] = []
        super().__init__(PlainStub._serve_connection)

    def _serve_connection(self, connection: socket.socket) -> None:
        reader = MessageReader()
        while data := connection.recv(65536):
            reader.feed(data)
            while (request := reader.next_message()) is not None:
                question = question_of(request)
                if question.operation == UNBIND:
                    return
                self.questions.append(question)
                if self.once and hasattr(socket, "TCP_CORK"):
                    # The end arrives with the answer: who asks again finds a closed connection.
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                connection.sendall(self.answer(question))
                if self.once:
                    connection.shutdown(socket.SHUT_WR)
                    return


def question_of(request: bytes) -> Question:
    number, operation, *_ = parse(request).children or ()
    base, attributes = "", []
    if operation.tag == SEARCH:
        assert operation.children is not None
        base = operation.children[0].contents.decode()
        attributes = [node.contents.decode() for node in operation.children[-1].children or ()]
    return Question(int.from_bytes(number.contents, "big"), operation.tag, base, attributes)


def next_number() -> int:
    """Return the number of the next request of this process: ldap3 counts them over all connections."""
    return int(ldap3.Server._message_counter) + 1


def session_without_bind(stub: TcpStub, timeout: float = 5.0) -> LdapSession:
    """Return a session with `stub` that is taken for bound: for what a directory may answer after it."""

    def connection() -> Any:
        server = ldap3.Server(stub.host, stub.port, get_info=ldap3.NONE)
        opened = ldap3.Connection(
            server,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
            return_empty_attributes=False,
        )
        opened.open(read_server_info=False)
        opened.socket = MessageSocket(opened.socket)
        opened.socket.secure(None)
        return opened

    return LdapSession(connection(), reopen=connection, timeout=timeout)
