"""Two ends of a context in memory, and AP-REQs, AP-REPs and checksums built field by field, genuine unless altered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from purekrb import Acceptor, EncryptionKey, Flag, Initiator, ServiceTicket, crypto
from purekrb.constants import ChecksumType, KeyUsage, MessageType
from purekrb.gss.checksum import GssChecksum
from purekrb.gss.framing import TOK_AP_REP, TOK_AP_REQ, frame, unframe
from purekrb.messages.ap import (
    ApRep,
    ApReq,
    Authenticator,
    AuthorizationDataEntry,
    Checksum,
    EncApRepPart,
    EncryptedData,
    KrbError,
    Ticket,
)
from purekrb.replay import MemoryReplayCache
from support.tickets import Entry, issue
from support.values import replace

AES = (17, 18, 19, 20)
ALL = (17, 18, 19, 20, 23)


class FixedClock:
    """A clock that stands where it is put."""

    def __init__(self, moment: datetime | None = None) -> None:
        self.moment = moment or datetime.now(timezone.utc)

    def __call__(self) -> datetime:
        return self.moment


class Elapsed:
    """A monotonic clock for replay caches: time passes when a test says so."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def acceptor(keys: Iterable[Entry], **options: Any) -> Acceptor:
    """Return an acceptor with a replay cache of its own."""
    options.setdefault("replay_cache", MemoryReplayCache())
    return Acceptor(keys, **options)


def pair(
    etype: int = 18,
    *,
    flags: Flag = Flag.DEFAULT,
    initiator: dict[str, Any] | None = None,
    accept: dict[str, Any] | None = None,
    **ticket: Any,
) -> tuple[Initiator, Acceptor]:
    """Return both ends of an established context; `ticket` goes to `issue`."""
    service_ticket, keys = issue(etype, **ticket)
    permitted = {"permitted_etypes": (etype,)} if etype == 23 else {}
    ours = Initiator(service_ticket, flags=flags, **permitted, **(initiator or {}))
    theirs = acceptor(keys, **{"require": flags & Flag.MUTUAL, **permitted, **(accept or {})})
    sender, receiver, token = ours, theirs, ours.step()
    while token is not None:
        sender, receiver, token = receiver, sender, receiver.step(token)
    assert ours.established
    assert theirs.established
    return ours, theirs


def authenticator(ticket: ServiceTicket, **changes: Any) -> Authenticator:
    """Return an authenticator for `ticket`, genuine but for `changes`."""
    now = changes.pop("now", None) or datetime.now(timezone.utc)
    genuine = Authenticator(
        authenticator_vno=5,
        crealm=ticket.client.realm,
        cname=ticket.client.name,
        cksum=gss_checksum(),
        cusec=now.microsecond,
        ctime=now.replace(microsecond=0),
        subkey=None,
        seq_number=7,
        authorization_data=None,
    )
    return replace(genuine, **changes)


def gss_checksum(
    flags: int = int(Flag.DEFAULT), bindings: bytes = bytes(16), tail: bytes = b""
) -> Checksum:
    """Return a 0x8003 checksum; `tail` is what follows the flags."""
    return Checksum(ChecksumType.GSSAPI, GssChecksum(flags, bindings).encode() + tail)


def ap_req(
    ticket: ServiceTicket,
    made: Authenticator | bytes | None = None,
    *,
    usage: int = KeyUsage.AP_REQ_AUTHENTICATOR,
    key: EncryptionKey | None = None,
    **changes: Any,
) -> bytes:
    """Return a framed AP-REQ for `ticket` with the authenticator `made`; `changes` replace fields of the AP-REQ.

    `made` as bytes is encrypted as it is.
    """
    made = authenticator(ticket) if made is None else made
    key = key or ticket.session_key
    plaintext = made if isinstance(made, bytes) else made.encode()
    genuine = ApReq(
        pvno=5,
        msg_type=MessageType.AP_REQ,
        ap_options=1 << 29,
        ticket=ticket.ticket,
        authenticator=EncryptedData(key.etype, None, crypto.encrypt(key, usage, plaintext)),
    )
    return frame(TOK_AP_REQ, replace(genuine, **changes).encode())


def request_of(token: bytes) -> ApReq:
    """Return the AP-REQ in a token."""
    return ApReq.decode(unframe(token)[1])


def with_ticket(token: bytes, **changes: Any) -> bytes:
    """Return an AP-REQ token with cleartext fields of its ticket replaced."""
    request = request_of(token)
    ticket = replace(Ticket.decode(request.ticket), **changes)
    return frame(TOK_AP_REQ, replace(request, ticket=ticket.encode()).encode())


def authenticator_of(token: bytes, ticket: ServiceTicket) -> Authenticator:
    """Return the decrypted authenticator of an AP-REQ token."""
    cipher = request_of(token).authenticator.cipher
    return Authenticator.decode(
        crypto.decrypt(ticket.session_key, KeyUsage.AP_REQ_AUTHENTICATOR, cipher)
    )


def ap_rep(
    sent: Authenticator,
    key: EncryptionKey,
    *,
    usage: int = KeyUsage.AP_REP_ENC_PART,
    **changes: Any,
) -> bytes:
    """Return a framed AP-REP that answers `sent`; `changes` replace fields of its encrypted part."""
    part = replace(EncApRepPart(sent.ctime, sent.cusec, None, 9), **changes)
    enc_part = EncryptedData(key.etype, None, crypto.encrypt(key, usage, part.encode()))
    return frame(TOK_AP_REP, ApRep(pvno=5, msg_type=MessageType.AP_REP, enc_part=enc_part).encode())


def error_of(token: bytes | None) -> KrbError:
    """Return the KRB-ERROR in a token."""
    assert token is not None
    tok_id, message = unframe(token)
    assert tok_id == b"\x03\x00"
    return KrbError.decode(message)


def flipped(data: bytes, bit: int) -> bytes:
    """Return a copy of `data` with one bit flipped, counted from the first byte's highest."""
    copy = bytearray(data)
    copy[bit // 8] ^= 0x80 >> bit % 8
    return bytes(copy)


def if_relevant(*entries: AuthorizationDataEntry) -> AuthorizationDataEntry:
    """Return `entries` inside an AD-IF-RELEVANT."""
    from purekrb.exchanges.authorization_data import wrap_if_relevant

    return wrap_if_relevant(*entries)
