"""What is fuzzed: every parser of a peer's or a file's data is one row of TARGETS.

A row has a name, a function that takes the bytes, and seeds: data that the parser accepts, made by
the project's own code or taken from vectors/. Where a signature or a cipher stands before a parser,
the function puts the bytes inside a genuine one. Only KerberosError may leave it; a row names other
errors where a parser documents them.
"""

from __future__ import annotations

import base64
import socket
import struct
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import dns.exception
import dns.message
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from purekrb import (
    Acceptor,
    CCache,
    ChannelBindings,
    Credential,
    Flag,
    Initiator,
    IovBuffer,
    IovType,
    KdcTrust,
    KerberosError,
    Keytab,
    Kirbi,
    Principal,
    crypto,
    sspi,
)
from purekrb.channel.framing import encode_frame, frame_reader
from purekrb.channel.stream import SealedStream
from purekrb.compat import gssapi
from purekrb.compat.gssapi import raw
from purekrb.compat.gssapi.raw import GSSError
from purekrb.compat.gssapi.raw.creds import from_credential
from purekrb.constants import KRB5_MECH_OID, NTLM_OID, SPNEGO_OID, USER_TO_USER_OID, KeyUsage
from purekrb.credentials.caches import kcm, keyring
from purekrb.credentials.cert_match import parse_rule
from purekrb.credentials.certificate import ClientCertificate
from purekrb.directory import ldap, scp, security_descriptor, state
from purekrb.directory.connect import Url
from purekrb.directory.managed_accounts import ManagedPassword
from purekrb.directory.stream import MessageReader, MessageSocket
from purekrb.dn import dn_key, domain_of, escape_rdn_value, is_at_or_below, parent_of
from purekrb.exchanges import as_exchange, runner, tgs_exchange
from purekrb.exchanges.kdc_reply import nt_status
from purekrb.exchanges.krb_cred import build_krb_cred, read_krb_cred
from purekrb.exchanges.preauth import signed_data
from purekrb.gss import export, framing
from purekrb.gss.checksum import GssChecksum
from purekrb.gss.iakerb import Conversation
from purekrb.gss.tokens import MicToken, WrapToken
from purekrb.gss.user_to_user import UserToUserInitiator
from purekrb.inspection import describe, pasted
from purekrb.inspection import pac as described_pac
from purekrb.kdc import https, records, tcp
from purekrb.kdc.attempt import AttemptError
from purekrb.krb5conf.config import (
    Config,
    KdcAddress,
    RealmConfig,
    parse_boolean,
    parse_duration,
    parse_etypes,
)
from purekrb.messages import (
    ap,
    cldap,
    cms,
    iakerb,
    kdc,
    kkdcp,
    kpasswd,
    otp,
    pac,
    pkinit,
    s4u,
    spnego,
    user2user,
)
from purekrb.messages.der import Message
from purekrb.messages.pac_buffers import Claims
from purekrb.names import PrincipalName, as_written
from purekrb.replay.sqlite import SqliteReplayCache
from purekrb.sasl import CLIENTS, GssapiClient, GssapiServer, Layer, SecurityLayer, context_flags
from purekrb.sid import Sid
from purekrb.spn import ServicePrincipalName, crack_spn, map_spn, target_principal
from purekrb.testing import Realm
from support import cldap_stub, contexts, https_stub, ldap_stub, pki, scripted_kdc
from support import credential_files as files
from support import pac as pacs
from support import spnego as negotiation
from support import sspi as windows
from support.der_tree import encode, parse
from support.kdc_requests import as_req
from support.pac_buffers import claims_set, compressed, delegation, device, metadata, pac_of
from support.tickets import issue
from support.values import replace
from support.vectors import load

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """One parser. `refuses`: no seed can be accepted, since the run draws secrets of its own."""

    name: str
    call: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    errors: tuple[type[Exception], ...] = (KerberosError,)
    refuses: bool = False

    def __call__(self, data: bytes) -> bool:
        """Return whether the data were accepted; raise what no caller expects."""
        try:
            self.call(data)
        except self.errors:
            return False
        return True


def text(function: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return `function` for the text that bytes stand for, of any characters."""
    return lambda data: function(data.decode(errors="surrogateescape"))


def lines(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [line.encode() for line in texts]


def each(*functions: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return what gives its argument to all functions, and then raises their first error."""

    def call(data: Any) -> None:
        first = None
        for function in functions:
            try:
                function(data)
            except KerberosError as error:
                first = first or error
        if first is not None:
            raise first

    return call


def any_of(*functions: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return what gives its argument to all functions, and raises an error if all of them do."""

    def call(data: Any) -> None:
        refusals = []
        for function in functions:
            try:
                function(data)
            except KerberosError as error:
                refusals.append(error)
        if len(refusals) == len(functions):
            raise refusals[0]

    return call


# DER


def kinds(module: Any) -> list[type[Message]]:
    """Return the messages of a module of purekrb.messages."""
    members = vars(module).values()
    return [
        kind
        for kind in members
        if isinstance(kind, type)
        and issubclass(kind, Message)
        and hasattr(kind, "schema")
        and kind.__module__ == module.__name__
    ]


def der(module: Any) -> Callable[[bytes], object]:
    """Return what reads the data as each message of the module, and writes back what was read."""
    own = kinds(module)

    def call(data: bytes) -> None:
        accepted = 0
        for kind in own:
            with suppress(KerberosError):
                message = kind.decode(data)
                accepted += 1
                repr(message)
                if kind.decode(message.encode()) != message:
                    raise AssertionError(f"{kind.__name__} is not what it was written as")
        if not accepted:
            raise KerberosError("no message")

    return call


@cache
def elements() -> list[bytes]:
    """Return the references of MIT's library and all that is in them."""
    references = (reference["der"] for reference in load("asn1.json"))
    return list(dict.fromkeys(encode(node) for data in references for node in parse(data)))


def accepted_by(module: Any) -> list[bytes]:
    """Return a few elements for each message of the module."""
    found: list[bytes] = []
    for kind in kinds(module):
        mine = []
        for element in elements():
            with suppress(KerberosError):
                kind.decode(element)
                mine.append(element)
        found += sorted(mine, key=len)[-3:]
    return list(dict.fromkeys(found))


def password_messages() -> list[bytes]:
    here = ap.HostAddress(2, bytes(4))
    encrypted = ap.EncryptedData(18, None, b"cipher")
    return [
        kpasswd.KrbPriv(5, 21, encrypted).encode(),
        kpasswd.EncKrbPrivPart(b"data", None, None, 7, here, None).encode(),
        kpasswd.ChangePasswdData(b"new", PrincipalName(("alice",)), "R.TEST").encode(),
    ]


def otp_messages() -> list[bytes]:
    return [e["der"] for e in load("asn1_other.json") if "otp" in e["name"]]


def pkinit_messages(*names: str) -> list[bytes]:
    """Return the references of MIT's library whose name begins with one of `names`."""
    return [entry["der"] for entry in load("asn1_other.json") if entry["name"].startswith(names)]


def signed_messages() -> list[bytes]:
    algorithm = cms.AlgorithmIdentifier(KRB5_MECH_OID, b"\x05\0")
    attributes = cms.SignedAttributes.of(cms.Attribute(NTLM_OID, b"\x31\2\4\0")).encode()
    signer = cms.SignerInfo(
        1, b"\x30\0", None, None, algorithm, attributes, algorithm, b"signature", None
    )
    content = cms.EncapsulatedContent(KRB5_MECH_OID, b"content")
    signed = cms.SignedData(3, (algorithm,), content, (b"\x30\0",), None, (signer,))
    return [cms.ContentInfo(signed).encode(), cms.Algorithms((algorithm,)).encode()]


def iakerb_messages() -> list[bytes]:
    return [e["der"] for e in load("asn1_other.json") if "iakerb" in e["name"]]


def proxied_messages() -> list[bytes]:
    return [iakerb.Proxied("R.TEST", b"c", b"message", octets).encode() for octets in (True, False)]


def s4u_messages() -> list[bytes]:
    checksum = ap.Checksum(-138, bytes(16))
    user_id = s4u.S4uUserId(7, PrincipalName(("alice",)), "R.TEST", b"certificate", 1 << 29)
    return [
        s4u.PaForUser(PrincipalName(("alice",)), "R.TEST", checksum).encode(),
        user_id.encode(),
        s4u.PaS4uX509User(user_id.encode(), checksum).encode(),
        s4u.PaPacOptions(s4u.RESOURCE_BASED).encode(),
    ]


def proxy_exchange() -> https.HttpExchange:
    return https.HttpExchange(KdcAddress("proxy.test", 443, "https", "/KdcProxy"), b"body")


@cache
def user_to_user() -> tuple[Credential, list[bytes]]:
    """Return a credential with a TGT, and tokens of both sides that go with it."""
    realm = Realm("R.TEST")
    own = realm.add_user("bob", "pw")
    exchange = as_exchange.as_exchange(own)
    own.ccache.store(runner.run(exchange, lambda asked: realm.handle(asked.message)))
    (tgt,) = own.ccache
    tokens = [
        framing.frame(b"\x04\x00", user2user.TgtRequest(name, None).encode(), USER_TO_USER_OID)
        for name in (None, PrincipalName(("bob",)))
    ]
    return own, [
        *tokens,
        framing.frame(b"\x04\x01", user2user.TgtReply(tgt.ticket).encode(), USER_TO_USER_OID),
    ]


def ask_for_tgt(token: bytes) -> None:
    """Let each side of a user-to-user context take the token."""
    own, _ = user_to_user()
    with suppress(KerberosError):
        contexts.acceptor((), tgt=own).step(token)
        return
    initiator = UserToUserInitiator(own.principal, lambda tgt: TICKET)
    initiator.step()
    initiator.step(token)


def data_to_open() -> bytes:
    """Return signed data whose signature nobody has checked yet."""
    attributes = signed_data.to_sign(KRB5_MECH_OID, b"content", "sha256")
    algorithm = cms.AlgorithmIdentifier(KRB5_MECH_OID, b"\x05\0").encode()
    certificate = bytes.fromhex("3009300702010130003000")
    return signed_data.signed_data(
        KRB5_MECH_OID, b"content", attributes, "sha256", (algorithm, b"value"), (certificate,)
    )


def opened_data(data: bytes) -> object:
    """Open signed data as a client does, of the type that the seed has."""
    return signed_data.open_signed_data(data, KRB5_MECH_OID)


def spnego_tokens() -> list[bytes]:
    offered = KRB5_MECH_OID, NTLM_OID
    hints = spnego.NegHints("not_defined_in_RFC4178@please_ignore")
    return [
        spnego.NegTokenInit(offered, 0x40000000, b"token", b"mic").encode(),
        spnego.NegTokenInit2(offered, None, b"token", hints, b"mic").encode(),
        hints.encode(),
        negotiation.resp(1, KRB5_MECH_OID, b"token", b"mic"),
    ]


# Handshakes


TICKET, KEYS = issue()
TICKET_RC4, KEYS_RC4 = issue(23)
RC4 = {"permitted_etypes": (23,)}


def initiator_token(mechanism: str = "kerberos", flags: Flag = Flag.DEFAULT) -> bytes:
    return Initiator(TICKET, mechanism=mechanism, flags=flags).step() or b""


def accept(token: bytes, **options: Any) -> None:
    context = contexts.acceptor(KEYS, **options)
    context.step(token)
    if context.established:
        _ = context.identity


def accept_rc4(token: bytes) -> None:
    contexts.acceptor(KEYS_RC4, **RC4).step(token)


def initiate(mechanism: str, token: bytes) -> None:
    context = Initiator(TICKET, mechanism=mechanism)
    context.step()
    context.step(token)


def replies(mechanism: str) -> Callable[[], list[bytes]]:
    """Return tokens that answer a handshake of their own; the first one starts it."""

    def seeds() -> list[bytes]:
        token = initiator_token(mechanism)
        answer = contexts.acceptor(KEYS, mechanism=mechanism).step(token) or b""
        refusals = []
        for wrong in (contexts.flipped(token, 8 * len(token) - 1), b"\x60\x00"):
            try:
                contexts.acceptor(KEYS, mechanism=mechanism).step(wrong)
            except KerberosError as error:
                refusals += [error.response] if error.response else []
        return [answer, *refusals]

    return seeds


def in_ticket(plaintext: bytes) -> None:
    """Accept a ticket that holds `plaintext`."""
    cipher = crypto.encrypt(KEYS[0].key, KeyUsage.TICKET, plaintext)
    outer = ap.Ticket.decode(TICKET.ticket)
    enc_part = replace(outer.enc_part, cipher=cipher)
    accept(contexts.ap_req(replace(TICKET, ticket=replace(outer, enc_part=enc_part).encode())))


def ticket_parts() -> list[bytes]:
    bare = crypto.decrypt(
        KEYS[0].key, KeyUsage.TICKET, ap.Ticket.decode(TICKET.ticket).enc_part.cipher
    )
    part = ap.EncTicketPart.decode(bare)
    signed_pac = pacs.sign(pacs.assemble(pacs.buffers(KEYS[0].key, part.authtime)), KEYS[0].key)
    return [bare, replace(part, authorization_data=(pacs.element(signed_pac),)).encode()]


def authenticators() -> list[bytes]:
    made = contexts.authenticator(TICKET)
    etypes = ap.AuthorizationDataEntry(129, ap.EtypeList((18, 17)).encode())
    full = replace(
        made,
        subkey=crypto.random_key(18),
        authorization_data=(contexts.if_relevant(etypes),),
        ctime=made.ctime - timedelta(seconds=1),
    )
    return [made.encode(), full.encode()]


def in_ap_rep(plaintext: bytes) -> None:
    """Answer a request with an AP-REP that holds `plaintext`."""
    context = Initiator(TICKET)
    context.step()
    cipher = crypto.encrypt(TICKET.session_key, KeyUsage.AP_REP_ENC_PART, plaintext)
    enc_part = ap.EncryptedData(TICKET.session_key.etype, None, cipher)
    context.step(framing.frame(framing.TOK_AP_REP, ap.ApRep(5, 15, enc_part).encode()))


def in_gss_checksum(value: bytes) -> None:
    made = contexts.authenticator(TICKET, cksum=ap.Checksum(0x8003, value))
    accept(contexts.ap_req(TICKET, made), accept_delegation=True)


def gss_checksums() -> list[bytes]:
    flags = int(Flag.DEFAULT)
    cred = build_krb_cred(TICKET, TICKET.session_key, now=TICKET.endtime, random=bytes)
    delegation = (1).to_bytes(2, "little") + len(cred).to_bytes(2, "little") + cred
    return [
        GssChecksum(flags, bytes(16)).encode(),
        GssChecksum(flags | 1, bytes(16)).encode() + delegation,
    ]


def in_krb_cred(plaintext: bytes) -> None:
    key = TICKET.session_key
    cipher = crypto.encrypt(key, KeyUsage.KRB_CRED_ENC_PART, plaintext)
    cred = ap.KrbCred(5, 22, (TICKET.ticket,), ap.EncryptedData(key.etype, None, cipher))
    read_krb_cred(cred.encode(), (key,))


def krb_cred_parts() -> list[bytes]:
    cred = build_krb_cred(TICKET, TICKET.session_key, now=TICKET.endtime, random=bytes)
    cipher = ap.KrbCred.decode(cred).enc_part.cipher
    return [crypto.decrypt(TICKET.session_key, KeyUsage.KRB_CRED_ENC_PART, cipher)]


def genuine_pac() -> bytes:
    key = KEYS[0].key
    return pacs.sign(pacs.assemble(pacs.buffers(key, TICKET.endtime)), key)


# Messages of a context


#: A receiver that takes the same message again and again.
REPEATABLE = Flag.MUTUAL | Flag.CONF | Flag.INTEG
DCE = REPEATABLE | Flag.DCE_STYLE
DATA = b"the data that every MIC is of"


@cache
def pair(etype: int, flags: Flag = REPEATABLE) -> tuple[Initiator, Acceptor]:
    return contexts.pair(etype, flags=flags)


def received(
    etype: int, use: Callable[[Acceptor, bytes], object], flags: Flag = REPEATABLE
) -> Callable[[bytes], object]:
    return lambda data: use(pair(etype, flags)[1], data)


def sent(
    etype: int, *make: Callable[[Initiator], bytes], flags: Flag = REPEATABLE
) -> Callable[[], list[bytes]]:
    return lambda: [one(pair(etype, flags)[0]) for one in make]


def unwrap(context: Acceptor, token: bytes) -> None:
    context.unwrap(token)


def unwrap_signed(context: Acceptor, token: bytes) -> None:
    context.unwrap(token, sealed=False)


def unwrap_into(context: Acceptor, token: bytes) -> None:
    context.unwrap_into(token, bytearray(len(token) + 64))


def verify(context: Acceptor, mic: bytes) -> None:
    context.verify_mic(DATA, mic)


def mic(context: Initiator) -> bytes:
    return context.get_mic(DATA)


def sealed(context: Initiator) -> bytes:
    return context.wrap(DATA)


def signed(context: Initiator) -> bytes:
    return context.wrap(DATA, sealed=False)


def unwrap_pieces(context: Acceptor, data: bytes) -> None:
    context.unwrap_iov([IovBuffer(IovType.STREAM, data), IovBuffer(IovType.DATA)])


def unwrap_header(context: Acceptor, data: bytes) -> None:
    context.unwrap_iov([IovBuffer(IovType.HEADER, data[:60]), IovBuffer(IovType.DATA, data[60:])])


def in_pieces(context: Initiator) -> bytes:
    made = context.wrap_iov([IovBuffer(IovType.HEADER), IovBuffer(IovType.DATA, DATA)])
    return b"".join(bytes(buffer.data) for buffer in made)


EXPORT_KEY = bytes(range(32))


@cache
def exported() -> bytes:
    return contexts.pair()[1].export_context(EXPORT_KEY)


def import_state(plaintext: bytes) -> None:
    """Import a context whose state, properly encrypted, is `plaintext`."""
    head = exported()[: -len(exported_state()) - export._TAG]
    nonce = head[len(export._HEAD) :]
    body = AESGCM(EXPORT_KEY).encrypt(nonce, plaintext, export._HEAD)
    Acceptor.import_context(head + body, EXPORT_KEY)


@cache
def gssapi_context() -> bytes:
    context = raw.SecurityContext()
    context._context = contexts.pair()[1]
    return raw.export_sec_context(context)


def gssapi_credential() -> bytes:
    return raw.export_cred(from_credential(Credential.from_ccache(CCache(TICKET.client, [TICKET]))))


def exported_state() -> bytes:
    start = len(export._HEAD)
    blob = exported()
    nonce = blob[start : start + export._NONCE]
    return AESGCM(EXPORT_KEY).decrypt(nonce, blob[start + export._NONCE :], export._HEAD)


# Channels, SASL, LDAP


def frames(data: bytes) -> None:
    reader = frame_reader(1000)
    reader.feed(data)
    while reader.next_frame() is not None:
        pass


def channel_handshake(data: bytes) -> None:
    SealedStream(contexts.acceptor(KEYS), max_frame=1 << 16).handshake(data or b"\0")


def channel_messages(data: bytes) -> None:
    stream = SealedStream(pair(18)[1], max_frame=1 << 16)
    stream.abort = lambda: None  # type: ignore[method-assign]  # the context serves all runs
    stream._reader.max_frame = 1 << 16
    stream.established = True
    stream.feed(data or b"\0")
    while stream.next_message() is not None:
        pass


def sasl_layer(data: bytes) -> None:
    SecurityLayer(pair(18)[1], sealed=True, max_send=1 << 16).unwrap(data)


def sasl_buffers() -> list[bytes]:
    token = sealed(pair(18)[0])
    buffer = len(token).to_bytes(4, "big") + token
    return [buffer, buffer * 2]


def sasl_bind(data: bytes, mechanism: str = "GSSAPI") -> None:
    """The server's first answer is `data`."""
    client = Initiator(TICKET, flags=context_flags(Layer.CONFIDENTIALITY))
    exchange = CLIENTS[mechanism](client)
    exchange.step()
    exchange.step(data)


def sasl_offer(data: bytes) -> None:
    """The server's offer of security layers is `data`."""
    client = Initiator(TICKET, flags=context_flags(Layer.CONFIDENTIALITY))
    server = contexts.acceptor(KEYS)
    exchange = GssapiClient(client)
    exchange.step(server.step(exchange.step()))
    exchange.step(server.wrap(data, sealed=False))


def sasl_choice(data: bytes) -> None:
    """The client's choice of a security layer is `data`."""
    client = Initiator(TICKET)
    server = GssapiServer(contexts.acceptor(KEYS))
    client.step(server.step(client.step()))
    client.unwrap(server.step() or b"", sealed=False)
    server.step(client.wrap(data, sealed=False))


def ldap_stream(data: bytes) -> None:
    reader = MessageReader()
    reader.feed(data)
    while reader.next_message() is not None:
        pass


def ldap_answer(data: bytes) -> None:
    """Search, and read what a server answered before it closed the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = ldap.ldap3.Server("127.0.0.1", get_info=ldap.ldap3.NONE)
        connection = ldap.ldap3.Connection(
            server,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
            return_empty_attributes=False,
        )
        connection.socket = MessageSocket(ours)
        connection.closed, connection.bound, connection.listening = False, True, True
        ldap.ldap3.Server._message_counter = 1  # the search has number 2
        connection.strategy._outstanding = {}  # what `open` would do besides dialling
        theirs.sendall(data[:65536])
        theirs.shutdown(socket.SHUT_WR)
        session = ldap.LdapSession(connection, "DC=example,DC=test", timeout=1.0)
        for entry in session.search("", "(objectClass=*)", ("*",)):
            entry.texts("cn")


def ldap_answers() -> list[bytes]:
    entry = ldap_stub.entry("CN=a,DC=example,DC=test", {"cn": [b"a"], "keywords": [b"b", b"c"]})
    reference = ldap_stub.reference("ldap://other.example.test/DC=example,DC=test")
    done = ldap_stub.result(ldap_stub.SEARCH_DONE)
    refused = ldap_stub.result(
        ldap_stub.SEARCH_DONE, 50, "00002098: SecErr: DSID-1", referrals=["ldap://a"]
    )
    return [
        b"".join(ldap_stub.message(2, part) for part in parts)
        for parts in ((entry, reference, done), (done,), (refused,))
    ]


# KDC


@dataclass
class Fixed:
    """Random bytes that are the same for each exchange, so that its nonce and its keys are."""

    drawn: int = 0

    def __call__(self, size: int) -> bytes:
        self.drawn += 1
        return bytes([self.drawn % 250 + 1]) * size


def ask_as(**hooks: Any) -> None:
    script = scripted_kdc.ScriptedKdc(**hooks)
    credential = scripted_kdc.Keys()
    runner.run(
        as_exchange.as_exchange(credential, clock=scripted_kdc.clock, random=Fixed()), script
    )


@cache
def tgt() -> Any:
    return scripted_kdc.issue_tgt()


def ask_tgs(**hooks: Any) -> None:
    script = scripted_kdc.ScriptedKdc(**hooks)
    exchange = tgs_exchange.tgs_exchange(
        tgt(), scripted_kdc.WEB, clock=scripted_kdc.clock, random=Fixed()
    )
    runner.run(exchange, script)


def overheard(ask: Callable[..., None], hook: str) -> list[bytes]:
    """Return what passes the hook of a scripted KDC."""
    seen: list[bytes] = []

    def listen(data: bytes) -> bytes:
        seen.append(data)
        return data

    ask(**{hook: listen})
    return seen


def altered(ask: Callable[..., None], hook: str) -> Callable[[bytes], object]:
    return lambda data: ask(**{hook: lambda _: data})


def status_of_error(e_data: bytes) -> int | None:
    """Read the NTSTATUS in the e-data of a KRB-ERROR."""
    return nt_status(scripted_kdc.ScriptedKdc().error(18, e_data=e_data))


def status_data() -> list[bytes]:
    """A KERB-ERROR-DATA with an NTSTATUS, bare and in a METHOD-DATA."""
    data = kdc.PaData(3, bytes.fromhex("720000c00000000001000000"))
    return [data.encode(), kdc.MethodData((data,)).encode()]


def error_data(data: bytes) -> None:
    """The KDC asks for pre-authentication with `data` for METHOD-DATA."""
    first = [scripted_kdc.ScriptedKdc().error(25, e_data=data).encode()]
    ask_as(answer=lambda request, realm: first.pop() if first else None)


def method_data() -> list[bytes]:
    script = scripted_kdc.ScriptedKdc()
    return [script.preauth_required().e_data or b""]


def kdc_stream(data: bytes) -> None:
    reader = tcp.reply_reader()
    reader.feed(data)
    reader.next_frame()


def embedded_kdc(data: bytes) -> None:
    reply = realm().handle(data)
    kdc.decode_kdc_reply(reply)


def request_seeds() -> list[bytes]:
    requests = [element for element in elements() if element[:1] in (b"\x6a", b"\x6c")]
    return [as_req(scripted_kdc.REALM, "alice"), *requests]


@cache
def realm() -> Realm:
    made = Realm(scripted_kdc.REALM)
    made.add_user("alice", "pw")
    made.add_service("HTTP/web.example.test")
    return made


def dns_answer(wire: bytes) -> None:
    """Look up SRV records; the answer is `wire`."""

    def resolve(*_: object, **__: object) -> list[Any]:
        try:
            answer = dns.message.from_wire(wire).answer
        except (
            Exception
        ) as error:  # what dnspython's resolver makes of an answer that it cannot read
            raise dns.resolver.NoNameservers from error
        key = dns.rdataclass.IN, dns.rdatatype.SRV
        return [
            record for rrset in answer if (rrset.rdclass, rrset.rdtype) == key for record in rrset
        ]

    resolver: Any = SimpleNamespace(resolve=resolve, lifetime=1.0)
    found = records.lookup_srv(resolver, "_kerberos._tcp.example.test", "tcp")
    for address in records.order_by_rfc2782(found):
        str(address)


def dns_answers() -> list[bytes]:
    query = dns.message.make_query("_kerberos._tcp.example.test", "SRV")
    answer = dns.message.make_response(query)
    name = query.question[0].name
    for text_ in ("0 100 88 kdc1.example.test.", "10 0 88 kdc2.example.test.", "0 0 0 ."):
        rrset = answer.find_rrset(
            answer.answer, name, dns.rdataclass.IN, dns.rdatatype.SRV, create=True
        )
        rrset.add(dns.rdata.from_text("IN", "SRV", text_), 300)
    return [answer.to_wire()]


# Files and text


def krb5_conf(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "krb5.conf"
        path.write_bytes(data.replace(b"include", b"exclude"))  # of files of this machine
        config = Config.from_file(path)
    config.realm("EXAMPLE.TEST")
    config.realm_of("web.example.test")
    _ = config.permitted_etypes, config.tkt_etypes, config.tgs_etypes
    config.local_name("alice@EXAMPLE.TEST")


def local_name(data: bytes) -> None:
    """Translate a name by a rule; a NUL stands between the two."""
    rule, _, name = data.decode("utf-8", "replace").partition("\0")
    realm = RealmConfig(auth_to_local=(rule,))
    Config({"R.TEST": realm}, default_realm="R.TEST").local_name(Principal.of(name or "a@R.TEST"))


KRB5_CONF = """
[libdefaults]
    default_realm = EXAMPLE.TEST
    ticket_lifetime = 1d 2h
    permitted_enctypes = aes256-cts aes128-cts -rc4
    default_ccache_name = FILE:/tmp/krb5cc_%{uid}
    dns_lookup_kdc = false
[realms]
    EXAMPLE.TEST = {
        kdc = kdc.example.test:88
        kdc = [2001:db8::1]:750
        admin_server = "kdc.example.test"
        auth_to_local = RULE:[1:$1](.*e)s/li|ic/x/g
        auth_to_local_names = {
            bob = robert
        }
    }
[domain_realm]
    .example.test = EXAMPLE.TEST
[capaths]
    A = {
        B = .
    }
"""


def replay_file(data: bytes) -> None:
    """Open a replay cache that holds `data`, and remember one more authenticator."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "replay"
        path.write_bytes(data)
        path.chmod(0o600)
        cache_ = SqliteReplayCache(path)
        try:
            cache_.remember(b"another tag", LATER, LATER)
        finally:
            cache_.close()


def replay_files() -> list[bytes]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "replay"
        cache_ = SqliteReplayCache(path)
        for number in range(3):
            cache_.remember(bytes([number]) * 16, LATER, LATER)
        cache_.close()
        return [path.read_bytes()]


#: An authenticator that is not older than a cache that is made now.
LATER = datetime.now(timezone.utc) + timedelta(days=1)


def scp_attributes(data: bytes) -> None:
    """Attributes as lines, `name=value`."""
    attributes: dict[str, list[bytes]] = {}
    for line in data.split(b"\n"):
        name, _, value = line.partition(b"=")
        attributes.setdefault(name.decode("latin-1"), []).append(value)
    found = scp.ServiceConnectionPoint.from_attributes("CN=a,DC=test", attributes, UUID(int=1))
    _ = found.port, found.spns("host.test")


SCP = b"""cn=Service
serviceClassName=ADSockAuth
serviceDNSName=web.ad.test
serviceDNSNameType=A
serviceBindingInformation=389
keywords=1ea21f14-aa44-11d2-81f1-00c04fb9624e
keywords=Sockets"""
STATE = state.ServiceState(
    object_guid=UUID("a762885a-aa44-11d2-81f1-00c04fb9624e"),
    scp_dn="CN=SockAuthAD,CN=WEB,CN=Computers,DC=ad,DC=test",
    domain="ad.test",
    spns=("ADSockAuth/web.ad.test/a762885a-aa44-11d2-81f1-00c04fb9624e",),
    account=state.StateAccount("CN=svc,DC=ad,DC=test", "svc", UUID(int=1), Sid.parse("S-1-5-21-1")),
)


def written(name: str) -> Callable[[], list[bytes]]:
    """Return the data in a field of the known answers of vectors/."""
    file, _, field = name.partition(":")
    return lambda: [v[field] for v in load(file) if isinstance(v.get(field), bytes)]


def descriptor(data: bytes) -> None:
    trustee = Sid.parse("S-1-5-21-1-2-3-1104")
    found = security_descriptor.SecurityDescriptor.decode(data)
    security_descriptor.SecurityDescriptor.decode(found.encode())
    security_descriptor.revoke(
        security_descriptor.grant(data, trustee, [UUID(int=1)]), trustee, [UUID(int=1)]
    )


def sid_bytes(data: bytes) -> None:
    if not data.startswith(Sid.parse(str(Sid.decode(data))).encode()):
        raise AssertionError("the SID is not what it was written as")


def principal_text(name: str) -> None:
    found = Principal.parse(name)
    if Principal.parse(str(found)) != found:
        raise AssertionError("the principal is not what it was written as")


def spn_text(name: str) -> None:
    each(
        lambda spn: str(ServicePrincipalName.parse(spn)),
        lambda spn: ServicePrincipalName.parse(spn, strict=False).components,
        crack_spn,
        lambda spn: map_spn(spn, ("host=cifs,http", spn)),
        target_principal,
    )(name)


def dn_text(name: str) -> None:
    dn_key(name)
    is_at_or_below(name, "DC=example,DC=test")
    parent_of(name)
    domain_of(name)
    escape_rdn_value(name)


def filter_text(value: str) -> None:
    each(partial(ldap.equals, "cn"), partial(ldap.like, "cn"))(value)


def inspected(data: bytes) -> None:
    """`purekrb inspect`: describe anything, and print it."""
    tree = describe.describe(data, [KEYS[0].key, TICKET.session_key])
    for line in describe.lines(tree):
        line.encode("utf-8", "backslashreplace")


def pasted_input(data: bytes) -> None:
    """`purekrb inspect`: what the text spells, as a header field or in any other way."""
    pasted.describe_pasted(data, [KEYS[0].key])


def pasted_seeds() -> list[bytes]:
    message = initiator_token()
    base64_text = base64.b64encode(message)
    return [
        b"WWW-Authenticate: Negotiate " + base64_text + b', Basic realm="a"',
        b"0000   " + message[:16].hex(" ").encode() + b"   text\n",
        b'b"' + b"".join(b"\\x%02x" % octet for octet in message) + b'"',
        base64_text,
    ]


def inspect_seeds() -> list[bytes]:
    return [
        initiator_token(),
        initiator_token("negotiate"),
        sealed(pair(18)[0]),
        TICKET.ticket,
        files.good_keytab().encode(),
        files.good_ccache().encode(),
        *(element for element in elements() if element[:1] in (b"\x7b", b"\x79", b"\x7e")),
        *(entry["der"] for entry in load("asn1_other.json")),
        base64.b64decode("TlRMTVNTUAABAAAAl4II4gAAAAAAAAAAAAAAAAAAAAAKAGFKAAAADw=="),
        b"NEGOEXTS" + bytes((2, 0, 0, 0)) + bytes(4) + bytes((56, 0, 0, 0)) * 2 + bytes(32),
        captured(initiator_token()),
    ]


def captured(message: bytes) -> bytes:
    """Return a pcap file of raw IP with the message in one UDP datagram."""
    udp = struct.pack(">HHHH", 88, 4000, 8 + len(message), 0) + message
    packet = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, 1, 2) + udp
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    return header + struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet


# SSPI


@cache
def handles() -> Any:
    return windows.pair(
        isc=sspi.ISC_REQ_MUTUAL_AUTH | sspi.ISC_REQ_INTEGRITY | sspi.ISC_REQ_CONFIDENTIALITY
    )


@cache
def credential_handles() -> Any:
    return windows.credentials()


def sspi_accept(data: bytes) -> None:
    sspi.AcceptSecurityContext(
        credential_handles().service,
        None,
        windows.desc((windows.TOKEN, data)),
        windows.ASC,
        0,
        sspi.CtxtHandle(),
        windows.room(),
    )


def sspi_stream(data: bytes) -> None:
    handles().service.DecryptMessage(windows.desc((windows.STREAM, data), (windows.DATA, b"")))


def sspi_signature(data: bytes) -> None:
    handles().service.VerifySignature(
        windows.desc((windows.DATA, DATA), (windows.TOKEN, data or b"\0"))
    )


def sspi_streams() -> list[bytes]:
    message = windows.desc((windows.TOKEN, 76), (windows.DATA, DATA), (windows.PADDING, 16))
    handles().client.EncryptMessage(0, message)
    return [b"".join(buffer.Buffer for buffer in message)]


def sspi_signatures() -> list[bytes]:
    message = windows.desc((windows.DATA, DATA), (windows.TOKEN, 64))
    handles().client.MakeSignature(0, message)
    return [message[1].Buffer]


@cache
def certificate() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dc1.example.test")])
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(30))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


TEXT_ERRORS = (KerberosError, ValueError)

PKI = pki.authority()
KDC_CERTIFICATE = PKI.issue(
    "kdc", pki.san_of("krbtgt/X.TEST@X.TEST"), pki.upn("a@b.c"), pki.x509.DNSName("kdc.x.test")
)
#: ecdsa-with-SHA256
SIGNATURE_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
SIGNATURE = KDC_CERTIFICATE.key.sign(b"data", ec.ECDSA(hashes.SHA256()))


def verify_kdc(trust: KdcTrust, certificate: bytes) -> None:
    trust.verify([certificate], realm="X.TEST", now=int(pki.NOW.timestamp()))


def kdc_certificate(data: bytes) -> None:
    # As an anchor, it need not have the signature of one.
    verify_kdc(KdcTrust(data, hosts=("kdc.x.test",)), data)


def kdc_signature(data: bytes) -> None:
    KdcTrust().verify_signature(
        KDC_CERTIFICATE.key.public_key(), data, b"data", SIGNATURE, digest=data
    )


def certificate_rule(rule: str) -> None:
    parse_rule(rule).holds(KDC_CERTIFICATE.certificate)


def revocation_list(data: bytes) -> None:
    verify_kdc(KdcTrust(PKI.pem, revoke=data), KDC_CERTIFICATE.der)


TARGETS: tuple[Target, ...] = (
    # DER
    Target("DER of contexts", der(ap), lambda: accepted_by(ap)),
    Target("DER of the KDC", der(kdc), lambda: [*accepted_by(kdc), *request_seeds()]),
    Target("DER of SPNEGO", der(spnego), spnego_tokens),
    Target("DER of password changes", der(kpasswd), password_messages),
    Target("DER of one-time passwords", der(otp), otp_messages),
    Target("DER of PKINIT", der(pkinit), lambda: pkinit_messages("pa_pk", "auth", "kdc_dh")),
    Target("DER of signed data", der(cms), signed_messages),
    Target("signed data of PKINIT", opened_data, lambda: [data_to_open()]),
    Target("a Diffie-Hellman value", pkinit.dh_number, lambda: [b"\2\1\5", b"\2\2\0\x80"]),
    Target("a PKINIT reply", pkinit.decode_pa_pk_as_rep, lambda: pkinit_messages("pa_pk_as_rep(d")),
    Target("DER of IAKERB", der(iakerb), iakerb_messages),
    Target("a message in IAKERB", lambda data: iakerb.Proxied.decode(data), proxied_messages),
    Target(
        "extensions of an authenticator's checksum",
        lambda data: Conversation().verify(TICKET.session_key, data),
        lambda: [Conversation().finished(TICKET.session_key)],
    ),
    Target("DER of S4U", der(s4u), s4u_messages),
    Target("user-to-user tokens", ask_for_tgt, lambda: user_to_user()[1]),
    Target(
        "DER of user-to-user",
        der(user2user),
        lambda: [framing.unframe(token, USER_TO_USER_OID)[1] for token in user_to_user()[1]],
    ),
    Target(
        "password change",
        lambda data: kpasswd.decode_frame(data),
        lambda: [kpasswd.encode_frame(1, b"ap", b"private")],
    ),
    Target(
        "result of a password change",
        lambda data: str(kpasswd.decode_result(data)),
        lambda: [
            kpasswd.encode_result(4, b"Password too short\0"),
            kpasswd.encode_result(
                4, kpasswd.encode_policy(kpasswd.PasswordPolicy(8, 3, True, 9e6, 86400.0))
            ),
        ],
    ),
    Target("DER of KDC proxies", der(kkdcp), lambda: [kkdcp.wrap(b"message", "R.TEST")]),
    Target(
        "message of a KDC proxy",
        lambda data: kkdcp.unwrap(data),
        lambda: [kkdcp.wrap(b"message", "R.TEST")],
    ),
    Target(
        "URI of a KDC",
        lambda data: records.parse_uri(data.decode("latin-1"), 88),
        lambda: [b"krb5srv:m:tcp:kdc.r.test:88", b"krb5srv::kkdcp:https://gateway.test/KdcProxy"],
    ),
    Target("Netlogon", lambda data: cldap.decode_netlogon(data), lambda: [cldap_stub.netlogon()]),
    Target(
        "answer to a ping",
        lambda data: cldap.decode_answer(data),
        lambda: [cldap_stub.entry(b"\2\1\7", cldap_stub.netlogon())],
    ),
    Target(
        "HTTP of a KDC proxy",
        lambda data: proxy_exchange().receive([data, b""]),
        lambda: [
            https_stub.response(b"body"),
            https_stub.response(b"body", version="1.0", length=False),
            b"HTTP/1.1 100 Continue\r\n\r\n" + https_stub.response(b"body"),
            https_stub.response(
                b"4\r\nbody\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False
            ),
        ],
        (AttemptError,),
    ),
    # handshakes
    Target("GSS frame", each(framing.unframe, framing.unframe_any), lambda: [initiator_token()]),
    Target(
        "SPNEGO frame",
        lambda data: framing.unframe_mechanism(data, SPNEGO_OID),
        lambda: [initiator_token("negotiate")],
    ),
    Target("AP-REQ token", accept, lambda: [initiator_token(), contexts.ap_req(TICKET)]),
    Target(
        "AP-REQ token, RC4",
        accept_rc4,
        lambda: [Initiator(TICKET_RC4, **RC4).step() or b""],  # type: ignore[arg-type]
    ),
    Target(
        "SPNEGO token to an acceptor",
        partial(accept, mechanism="negotiate"),
        lambda: [initiator_token("negotiate"), negotiation.init((NTLM_OID, KRB5_MECH_OID))],
    ),
    Target("AP-REP token", partial(initiate, "kerberos"), replies("kerberos"), refuses=True),
    Target(
        "SPNEGO token to an initiator",
        partial(initiate, "negotiate"),
        replies("negotiate"),
        refuses=True,
    ),
    Target("ticket that is decrypted", in_ticket, ticket_parts),
    Target(
        "authenticator that is decrypted",
        lambda data: accept(contexts.ap_req(TICKET, data)),
        authenticators,
    ),
    Target(
        "AP-REP that is decrypted",
        in_ap_rep,
        lambda: [e for e in elements() if e[:1] == b"\x7b"],
        refuses=True,
    ),
    Target("GSS checksum", in_gss_checksum, gss_checksums),
    Target("KRB-CRED that is decrypted", in_krb_cred, krb_cred_parts),
    # messages of contexts
    Target("Wrap header", WrapToken.decode, sent(18, sealed, signed)),
    Target("MIC header", MicToken.decode, sent(18, mic)),
    Target("sealed token", received(18, unwrap), sent(18, sealed)),
    Target("signed token", received(20, unwrap_signed), sent(20, signed)),
    Target("sealed token into a buffer", received(18, unwrap_into), sent(18, sealed)),
    Target("MIC", received(18, verify), sent(18, mic)),
    Target("token as a stream", received(18, unwrap_pieces), sent(18, sealed)),
    Target("token in pieces", received(18, unwrap_header), sent(18, in_pieces)),
    Target("DCE token", received(18, unwrap_into, DCE), sent(18, sealed, flags=DCE)),
    Target("RC4 sealed token", received(23, unwrap), sent(23, sealed)),
    Target("RC4 signed token", received(23, unwrap_signed), sent(23, signed)),
    Target("RC4 sealed token into a buffer", received(23, unwrap_into), sent(23, sealed)),
    Target("RC4 MIC", received(23, verify), written("gss_rc4.json:token"), refuses=True),
    Target(
        "exported context",
        lambda data: Acceptor.import_context(data, EXPORT_KEY),
        lambda: [exported()],
    ),
    Target("exported context that is decrypted", import_state, lambda: [exported_state()]),
    # What compat.gssapi imports
    Target(
        "gssapi name",
        lambda data: gssapi.Name(token=data),
        lambda: [gssapi.Name("a@B.TEST").canonicalize(gssapi.MechType.kerberos).export()],
        (GSSError,),
    ),
    Target("gssapi credential", raw.import_cred, lambda: [gssapi_credential()], (GSSError,)),
    Target("gssapi context", raw.import_sec_context, lambda: [gssapi_context()], (GSSError,)),
    Target("OID", lambda data: gssapi.OID(elements=data).dotted_form, lambda: [KRB5_MECH_OID]),
    # PAC
    Target("PAC", pac.Pac.decode, lambda: [genuine_pac()]),
    Target(
        "PAC client info", pac.ClientInfo.decode, lambda: [pacs.client_info("a", TICKET.endtime)]
    ),
    Target("PAC UPN and DNS info", pac.UpnDnsInfo.decode, lambda: [pacs.upn_info()]),
    Target("PAC logon info", pac.LogonInfo.decode, lambda: [pacs.logon_info()]),
    Target(
        "compressed claims",
        lambda data: Claims(4, 600, data).claims(),
        lambda: [compressed(claims_set().ljust(600, b"\0"))],
    ),
    Target(
        "PAC that is shown",
        lambda data: described_pac.describe(data, repr, lambda _: "secret"),
        lambda: [
            genuine_pac(),
            pac_of({11: delegation(), 13: metadata(0, claims_set()), 14: device()}),
        ],
    ),
    # KDC
    Target(
        "KDC reply",
        kdc.decode_kdc_reply,
        lambda: [e for e in elements() if e[:1] in (b"k", b"m", b"~")],
    ),
    Target("KDC stream", kdc_stream, lambda: [b"\0\0\0\x05reply", b"\0\0"]),
    Target(
        "AS-REP", altered(ask_as, "message"), lambda: overheard(ask_as, "message"), refuses=True
    ),
    Target(
        "AS-REP that is decrypted",
        altered(ask_as, "plaintext"),
        lambda: overheard(ask_as, "plaintext"),
        refuses=True,
    ),
    Target(
        "TGS-REP", altered(ask_tgs, "message"), lambda: overheard(ask_tgs, "message"), refuses=True
    ),
    Target(
        "TGS-REP that is decrypted",
        altered(ask_tgs, "plaintext"),
        lambda: overheard(ask_tgs, "plaintext"),
        refuses=True,
    ),
    Target("pre-authentication data", error_data, method_data),
    Target("NTSTATUS of a KRB-ERROR", status_of_error, status_data),
    Target("request to the embedded KDC", embedded_kdc, lambda: request_seeds()),
    Target("DNS answer", dns_answer, dns_answers),
    # channels, SASL, LDAP
    Target("channel frames", frames, lambda: [encode_frame(b"one") + encode_frame(b"two")]),
    Target("channel handshake", channel_handshake, lambda: [encode_frame(initiator_token())]),
    Target(
        "channel messages",
        channel_messages,
        lambda: [encode_frame(sealed(pair(18)[0])) * 2, encode_frame(pair(18)[0].wrap(b""))],
    ),
    Target("SASL buffers", sasl_layer, sasl_buffers),
    Target("SASL bind", sasl_bind, replies("kerberos"), refuses=True),
    Target(
        "SASL bind by SPNEGO",
        partial(sasl_bind, mechanism="GSS-SPNEGO"),
        replies("negotiate"),
        refuses=True,
    ),
    Target("SASL choice", sasl_choice, lambda: [b"\x04\x00\xff\xff", b"\x04\xff\xff\xffbob"]),
    Target("SASL offer", sasl_offer, lambda: [b"\x07\x00\xff\xff", b"\x04\xff\xff\xff"]),
    Target("LDAP stream", ldap_stream, ldap_answers),
    Target("LDAP answer", ldap_answer, ldap_answers),
    Target("certificate", ChannelBindings.tls_server_end_point, lambda: [certificate()]),
    Target("KDC's certificate", kdc_certificate, lambda: [KDC_CERTIFICATE.der]),
    Target("KDC's signature", kdc_signature, lambda: [SIGNATURE_ALGORITHM]),
    # files
    Target("revocation list", revocation_list, lambda: [PKI.crl()]),
    Target(
        "client's certificate",
        ClientCertificate.from_files,
        lambda: [KDC_CERTIFICATE.pem + KDC_CERTIFICATE.key_pem()],
    ),
    Target("keytab", Keytab.decode, lambda: [files.good_keytab().encode()]),
    Target(
        "ccache",
        CCache.decode,
        lambda: [files.good_ccache().encode(), *written("ccache.json:file")()],
    ),
    Target("kirbi", Kirbi.decode, lambda: [Kirbi([TICKET]).encode()]),
    Target("replay cache", replay_file, replay_files),
    Target("KCM list", kcm.listed, lambda: [b"\0\0\0\2\0\0\0\1a\0\0\0\2bc"]),
    Target("KEYRING primary", keyring.primary_name, lambda: [b"\0\0\0\1\0\0\0\3tkt"]),
    Target("krb5.conf", krb5_conf, lambda: [KRB5_CONF.encode()]),
    Target(
        "rule of auth_to_local",
        local_name,
        lines(
            "RULE:[2:$2.$1](a[[:alnum:]x-z]{1,3}\\..*|b+)s/(a|ab)?c/x/g\0b/a@R",
            "RULE:[1:$1-$0](fred.*)s/-/ /g s/^x$//\0fred@X",
            "DEFAULT\0a@R.TEST",
        ),
    ),
    Target("service connection point", scp_attributes, lambda: [SCP]),
    Target("state file", state.ServiceState.decode, lambda: [STATE.encode()]),
    Target("anything that is inspected", inspected, lambda: inspect_seeds()),
    Target("anything that is pasted", pasted_input, lambda: pasted_seeds()),
    # directory
    Target(
        "password of a managed account",
        ManagedPassword.decode,
        written("managed_password.json:blob"),
    ),
    Target("SID", sid_bytes, lambda: [Sid.parse("S-1-5-21-1-2-3-1104").encode()]),
    Target("security descriptor", descriptor, written("security_descriptors.json:before")),
    # text
    Target("SID text", text(Sid.parse), lines("S-1-5-21-1-2-3-1104", "S-1-0x010000000000-1")),
    Target(
        "principal", text(principal_text), lines("HTTP/web.example.test@R.TEST", r"a\/b\@c\n@R")
    ),
    Target(
        "name as written",
        text(any_of(as_written, partial(as_written, enterprise=True), target_principal)),
        lines("AD\\alice", "john.doe@mail.example@R.TEST", "HTTP@WEB.example.test."),
    ),
    Target("SPN", text(spn_text), lines("HTTP/web.example.test:80/CN=a,DC=b@R", "cifs/host")),
    Target("DN", text(dn_text), lines(r"CN=a\,b\2c\C3\A4,OU=x y,DC=example,DC=test", "")),
    Target(
        "LDAP URL",
        text(Url.parse),
        lines("ldap://dc1.example.test:389", "ldaps://[::1]"),
        TEXT_ERRORS,
    ),
    Target(
        "rule of pkinit_cert_match",
        text(certificate_rule),
        lines("<SUBJECT>^CN=a.*<EKU>clientAuth,pkinit", "||<SAN>b@c$<KU>digitalSignature"),
    ),
    Target("value of a filter", text(filter_text), lines("a*b(c)\\", "ab")),
    Target(
        "KDC address",
        text(KdcAddress.parse),
        lines("kdc.example.test:88", "[::1]:88", "tcp/a"),
        TEXT_ERRORS,
    ),
    Target(
        "words of krb5.conf",
        text(any_of(parse_boolean, parse_duration, parse_etypes)),
        lines("yes", "1d 2h 3m 4s", "10:20", "aes256-cts -rc4"),
        TEXT_ERRORS,
    ),
    # SSPI
    Target("SSPI token", sspi_accept, lambda: [windows.first_leg(credential_handles().client)[2]]),
    Target("SSPI stream", sspi_stream, sspi_streams),
    Target("SSPI signature", sspi_signature, sspi_signatures),
)
