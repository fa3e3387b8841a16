"""IAKERB: a client that reaches no KDC gets its tickets through the service.

    initiator                                             acceptor                      KDC
    05 01 | realm | AS-REQ ------------------------------> passes it on --------------->
        <------------------------------ 05 01 | realm | AS-REP <------------------------
    ... AS-REQs and TGS-REQs, until the client has its ticket ...
    01 00 | AP-REQ, with a checksum over all tokens so far ->
        <---------------------------------------- 02 00 | AP-REP

The service sees the client's name and the KDC's answers, as anyone on the network does; it opens
and changes none of them unnoticed. Two drafts differ in the type of the realm, in the frames of
later tokens, and in the checksum. Each side follows what it has seen from the peer, and an
initiator begins as MIT's. Source: draft-ietf-kitten-iakerb-03, draft-zhu-ws-kerb.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    IAKERB_OID,
    ErrorCode,
    Flag,
    KeyUsage,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ApError,
    ContextError,
    DecodeError,
    IntegrityError,
    KerberosError,
    PolicyError,
    ProtocolError,
    TransportError,
)
from purekrb.exchanges.runner import Exchange, KdcRequest
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.context import MAX_TOKEN, SecurityContext
from purekrb.gss.framing import TOK_AP_REQ, TOK_KRB_ERROR, frame, is_framed_for, unframe
from purekrb.gss.initiator import Delegate, Initiator
from purekrb.gss.krb_error import peer_refused
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import Checksum, KrbError
from purekrb.messages.iakerb import IakerbFinished, Proxied
from purekrb.messages.kdc import AsReq, TgsReq
from purekrb.names import Principal
from purekrb.records import replace
from purekrb.system import Clock, RandomBytes, now, random_bytes

if TYPE_CHECKING:
    from purekrb.gss.negotiate import Handshake

__all__ = ["Conversation", "IakerbInitiator", "Relay", "accept"]

log = Log("purekrb.gss")

TOK_IAKERB_PROXY = b"\x05\x01"
#: The most requests of one client that a service passes on.
MAX_REQUESTS = 26
#: The largest request in bytes that a service passes on; one with a large PAC has some ten kilobytes.
MAX_REQUEST = 32_768
#: Type and length, big-endian, of an extension of the authenticator's checksum.
_EXTENSION = struct.Struct(">II")
#: Whether the peer follows MIT -> the extension's type, and the key usage of the checksum in it.
_FINISHED = {True: (1, KeyUsage.IAKERB_FINISHED), False: (2, KeyUsage.FINISHED)}
_REQUESTS: dict[bytes, type[AsReq] | type[TgsReq]] = {b"\x6a": AsReq, b"\x6c": TgsReq}

#: Passes a request on to a KDC of a realm, and returns the answer: `KdcClient.relay`.
Relay = Callable[[str, bytes], bytes]


class Conversation:
    """The tokens of one context before its AP-REQ, and the peer's form of them."""

    def __init__(self) -> None:
        self.as_mit = True
        self._tokens = bytearray()
        self._framed = True  # the first one always is: RFC 2743 3.1

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, token: bytes) -> Proxied:
        """Return the message in the peer's token, and follow its form."""
        framed = is_framed_for(token, IAKERB_OID)
        tok_id, inner = unframe(token, IAKERB_OID) if framed else (token[:2], token[2:])
        if tok_id == TOK_KRB_ERROR:
            raise peer_refused(inner)
        if tok_id != TOK_IAKERB_PROXY:
            raise DecodeError("the token holds no Kerberos message for, or from, a KDC")
        proxied = Proxied.decode(inner)
        self.as_mit = proxied.octets
        self._tokens += token
        return proxied

    def write(self, realm: str, cookie: bytes | None, message: bytes, *, framed: bool) -> bytes:
        """Return the token with `message`. In MIT's form, only the first token has a frame."""
        inner = Proxied(realm, cookie, message, self.as_mit).encode()
        token = (
            frame(TOK_IAKERB_PROXY, inner, IAKERB_OID)
            if framed or not self.as_mit
            else TOK_IAKERB_PROXY + inner
        )
        self._tokens += token
        return token

    def finished(self, key: EncryptionKey) -> bytes:
        """Return the extension that proves to the service which tokens the client has seen."""
        number, usage = _FINISHED[self.as_mit]
        mac = crypto.checksum(key, usage, bytes(self._tokens))
        checksum = Checksum(crypto.profile_of(key.etype).checksum_type, mac)
        value = IakerbFinished(checksum).encode()
        return _EXTENSION.pack(number, len(value)) + value

    def verify(self, key: EncryptionKey | None, extensions: bytes) -> None:
        """Raise ApError unless `extensions` hold the checksum over these tokens, under `key`."""
        for number, usage in _FINISHED.values():
            value = _extension(extensions, number)
            if value is None or key is None:
                continue
            mic = IakerbFinished.decode(value).gss_mic
            if mic.cksumtype != crypto.profile_of(key.etype).checksum_type:
                break
            try:
                crypto.verify_checksum(key, usage, bytes(self._tokens), mic.checksum)
            except IntegrityError:
                break
            return
        raise ApError(
            "the client did not confirm the messages that went through this service: someone "
            "between us changed them, or the client is not the one that began",
            code=ErrorCode.KRB_AP_ERR_MODIFIED,
        )


def _extension(extensions: bytes, wanted: int) -> bytes | None:
    """Return the value of an extension; None if it is not there. Raises DecodeError."""
    at = 0
    while at < len(extensions):
        if at + _EXTENSION.size > len(extensions):
            raise DecodeError("the extensions of the 0x8003 checksum are cut off")
        number, size = _EXTENSION.unpack_from(extensions, at)
        at += _EXTENSION.size
        if at + size > len(extensions):
            raise DecodeError("the extensions of the 0x8003 checksum are cut off")
        if number == wanted:
            return extensions[at : at + size]
        at += size
    return None


class IakerbInitiator(Initiator):
    """An initiator that gets its ticket through the service; `initiate` makes one.

    `tickets` is the exchange that returns the ticket for the service, and the forwarded TGT or
    None. The other arguments are those of `Initiator`.
    """

    _mechanism = IAKERB_OID

    def __init__(
        self,
        tickets: Exchange[tuple[ServiceTicket, ServiceTicket | None]],
        *,
        flags: Flag = Flag.DEFAULT,
        delegate: Delegate = False,
        channel_bindings: ChannelBindings | None = None,
        permitted_etypes: tuple[int, ...] = DEFAULT_ETYPES,
        max_token: int = MAX_TOKEN,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> None:
        SecurityContext.__init__(
            self, "kerberos", channel_bindings, permitted_etypes, True, clock, random, max_token
        )
        self._tickets = tickets
        self._wanted = flags, delegate
        self._flags = int(flags)
        self._send_target, self._no_integrity = True, False
        self._conversation = Conversation()

    def _begin(self, in_token: bytes | None) -> Handshake:
        if in_token is not None:
            raise ContextError("an initiator's first step takes no token")
        return self._handshake_through_the_service()

    def _handshake_through_the_service(self) -> Handshake:
        reply: bytes | None = None
        first = True
        try:
            while True:
                try:
                    step = next(self._tickets) if reply is None else self._tickets.send(reply)
                except StopIteration as done:
                    ticket, forwarded = done.value
                    break
                if not isinstance(step, KdcRequest):
                    step.run()
                    reply = b""
                    continue
                log.debug("IAKERB: a request for %s goes through the service", step.realm)
                token = self._conversation.write(step.realm, None, step.message, framed=first)
                first = False
                reply = self._conversation.read((yield token)).message
        finally:
            self._tickets.close()
        self._take(ticket, forwarded, *self._wanted)
        return (yield from self._kerberos())

    def _checksum(
        self, flags: int, bindings: bytes, subkey: EncryptionKey, moment: datetime
    ) -> Checksum:
        found = super()._checksum(flags, bindings, subkey, moment)
        if not len(self._conversation):
            return found  # the ticket was there already
        return replace(found, checksum=found.checksum + self._conversation.finished(subkey))


def accept(
    relay: Relay,
    realm: str,
    kerberos: Callable[[bytes, Conversation], Handshake],
    token: bytes,
    clock: Clock,
) -> Handshake:
    """The acceptor's side: pass requests on by `relay`, then begin `kerberos` with the AP-REQ.

    `realm` is that of the service, for a client that asks for it.
    """
    conversation = Conversation()
    for _ in range(MAX_REQUESTS):
        if _is_ap_req(token):
            return (yield from kerberos(token, conversation))
        request = conversation.read(token)
        answer = _passed_on(relay, realm, request, clock)
        token = yield conversation.write(
            request.realm or realm, request.cookie, answer, framed=False
        )
    raise ProtocolError(
        f"the client has sent {MAX_REQUESTS} requests for KDCs through this service: no more are "
        "passed on"
    )


def _is_ap_req(token: bytes) -> bool:
    return is_framed_for(token, IAKERB_OID) and unframe(token, IAKERB_OID)[0] == TOK_AP_REQ


def _passed_on(relay: Relay, realm: str, request: Proxied, clock: Clock) -> bytes:
    """Return the KDC's answer; a KRB-ERROR if there is none. Source: kitten-iakerb 3, 7."""
    if not request.message:
        return b""  # the client asks for the realm of this service
    kind = _REQUESTS.get(request.message[:1])
    if kind is None or len(request.message) > MAX_REQUEST:
        raise PolicyError(
            "the client sent something that is no AS-REQ or TGS-REQ, or is too large, to be passed "
            f"on to a KDC ({len(request.message)} bytes): it was not passed on"
        )
    if kind.decode(request.message).req_body.realm != request.realm:
        raise PolicyError(
            "the client's request is for another realm than it says: it was not passed on"
        )
    try:
        answer = relay(request.realm, request.message)
        log.debug("IAKERB: passed a request on to a KDC of %s", request.realm)
        return answer
    except TransportError as error:
        log.warning("IAKERB: %s", error)
        code = ErrorCode.KRB_AP_ERR_IAKERB_KDC_NO_RESPONSE
    except KerberosError as error:
        log.warning("IAKERB: %s", error)
        code = ErrorCode.KRB_AP_ERR_IAKERB_KDC_NOT_FOUND
    kdc = Principal(("krbtgt", request.realm), request.realm)
    return KrbError.of(code, clock(), kdc).encode()
