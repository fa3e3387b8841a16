"""Recorded exchanges with MIT Kerberos: how our side takes part in one, now with MIT and later with the recording.

The recorder (tests/record) and the replay (tests/exchange/test_recorded.py) drive our side by the same functions. Only
where time, random bytes and the peer's messages come from differs. An entry is a dict; vectors/README.md says what is
in it. In memory byte strings are bytes and times are datetimes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from purekrb import (
    Acceptor,
    Credential,
    EncryptionKey,
    Flag,
    Initiator,
    IovBuffer,
    IovType,
    KeytabEntry,
    Principal,
    ServiceTicket,
    crypto,
)
from purekrb.constants import KeyUsage, PaDataType
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.kdc_reply import open_reply
from purekrb.exchanges.runner import KdcRequest, run
from purekrb.exchanges.tgs_exchange import TgsOptions, tgs_exchange
from purekrb.gss.framing import unframe
from purekrb.messages.ap import ApRep, ApReq, Authenticator, EncApRepPart, EncTicketPart, Ticket
from purekrb.messages.kdc import AsRep, AsReq, TgsRep, TgsReq
from purekrb.replay import MemoryReplayCache

__all__ = [
    "RECORDED",
    "Entry",
    "LiveTape",
    "Tape",
    "accept",
    "encrypted_with",
    "get_service_ticket",
    "get_tgt",
    "initiate",
    "load",
    "opened",
    "pieces_of",
    "read_message",
    "save",
    "send_message",
    "ticket_of",
    "ticket_to_entry",
]

RECORDED = Path(__file__).parents[2] / "vectors" / "recorded"

Entry = dict[str, Any]
Send = Callable[[KdcRequest], bytes]

_WORDS = {"source", "kind", "mechanism", "client", "service", "password", "by", "protection"}
_TIMES = {"time", "authtime", "starttime", "endtime", "renew_till", "ctime"}


class Tape:
    """The time and the random bytes of our side in one exchange, played from a recording. The time stands still."""

    def __init__(self, time: datetime, random: list[bytes]) -> None:
        self.time = time
        self.left = list(random)

    def clock(self) -> datetime:
        return self.time

    def random(self, size: int) -> bytes:
        recorded = self.left.pop(0) if self.left else b""
        if len(recorded) != size:
            raise AssertionError(
                f"{size} random bytes are asked for where the recording has {len(recorded)}: if purekrb is meant to "
                "draw them in another order now, record anew with `make record`"
            )
        return recorded


class LiveTape(Tape):
    """A tape that is being recorded: `drawn` holds the random bytes of the system that it gave."""

    def __init__(self, time: datetime) -> None:
        super().__init__(time, [])
        self.drawn: list[bytes] = []

    def random(self, size: int) -> bytes:
        self.drawn.append(os.urandom(size))
        return self.drawn[-1]


# -- our side

#: A credential keeps the keys of its password, which take long to derive.
_credential = lru_cache(Credential.from_password)


def get_tgt(entry: Entry, tape: Tape, send: Send) -> ServiceTicket:
    """Get the TGT of `client` by its `password`."""
    credential = _credential(entry["client"], entry["password"])
    options = AsOptions(etypes=(entry["etype"],))
    return run(as_exchange(credential, options, clock=tape.clock, random=tape.random), send)


def get_service_ticket(entry: Entry, tape: Tape, send: Send) -> ServiceTicket:
    """Get the ticket for `service` by means of `tgt`."""
    tgt, service = ticket_of(entry["tgt"], entry["etype"]), Principal.parse(entry["service"])
    options = TgsOptions(etypes=(entry["etype"],))
    return run(tgs_exchange(tgt, service, options, clock=tape.clock, random=tape.random), send)


def initiate(entry: Entry, tape: Tape) -> Initiator:
    """Return the initiator with the recorded ticket."""
    ticket, mechanism = (
        ticket_of(entry["ticket"], entry["etype"]),
        entry.get("mechanism", "kerberos"),
    )
    return Initiator(
        ticket,
        flags=Flag(entry.get("flags", Flag.DEFAULT)),
        mechanism=mechanism,
        permitted_etypes=(entry["etype"],),
        clock=tape.clock,
        random=tape.random,
    )


def accept(entry: Entry, tape: Tape) -> Acceptor:
    """Return an acceptor with the recorded key of the service, which has seen no authenticator yet."""
    key = entry["service_key"]
    return Acceptor(
        [
            KeytabEntry(
                Principal.parse(entry["service"]),
                key["kvno"],
                EncryptionKey(key["etype"], key["key"]),
            )
        ],
        permitted_etypes=(entry["etype"],),
        replay_cache=MemoryReplayCache(),
        clock=tape.clock,
        random=tape.random,
    )


def send_message(context: Initiator | Acceptor, message: Entry) -> bytes:
    """Return our token for the data of `message`."""
    if message["protection"] == "mic":
        return context.get_mic(message["data"])
    return context.wrap(message["data"], sealed=message["protection"] == "sealed")


def read_message(context: Initiator | Acceptor, message: Entry) -> None:
    """Take the peer's token of `message`; fail unless it carries the data, protected as it says."""
    if message["protection"] == "mic":
        context.verify_mic(message["data"], message["token"])
    else:
        data = context.unwrap(message["token"], sealed=message["protection"] == "sealed")
        assert data == message["data"]


def pieces_of(message: Entry, name: str) -> list[IovBuffer]:
    """Return the buffers that `message` has under that name: "given" to wrap_iov, or "pieces" of the token."""
    return [IovBuffer(IovType(kind), data) for kind, data in message[name]]


# -- tickets


def ticket_of(entry: Entry, etype: int) -> ServiceTicket:
    """Return the ticket that an entry describes, with a session key of `etype`."""
    return ServiceTicket(
        client=Principal.parse(entry["client"]),
        service=Principal.parse(entry["service"]),
        ticket=entry["ticket"],
        session_key=EncryptionKey(etype, entry["session_key"]),
        flags=entry["flags"],
        authtime=entry["authtime"],
        starttime=entry["starttime"],
        endtime=entry["endtime"],
        renew_till=entry["renew_till"],
    )


def encrypted_with(ticket: bytes) -> tuple[int, int | None]:
    """Return etype and kvno of the service's key that a DER Ticket is encrypted with."""
    enc_part = Ticket.decode(ticket).enc_part
    return enc_part.etype, enc_part.kvno


def ticket_to_entry(ticket: ServiceTicket, service_key: Entry) -> Entry:
    """Return what describes `ticket`, together with the key of the service that it is for."""
    return {
        "client": str(ticket.client),
        "service": str(ticket.service),
        "ticket": ticket.ticket,
        "service_key": service_key,
        "session_key": ticket.session_key.contents,
        "flags": int(ticket.flags),
        "authtime": ticket.authtime,
        "starttime": ticket.starttime,
        "endtime": ticket.endtime,
        "renew_till": ticket.renew_till,
    }


# -- what the recorded keys open


def opened(entry: Entry) -> Entry:
    """Return what the messages of `entry` hold inside, as its keys open them: subkeys, numbers, nonces, times."""
    return _OPENED[entry["kind"]](entry)


def _opened_as(entry: Entry) -> Entry:
    nonces = [AsReq.decode(message).req_body.nonce for message in entry["sent"]]
    enc_part = AsRep.decode(entry["received"][-1]).enc_part
    part = open_reply(_key(entry, "reply_key"), KeyUsage.AS_REP_ENC_PART, enc_part, nonces[-1])
    _open_ticket(entry["ticket"], part.key)
    return {"nonces": nonces, "session_key": part.key.contents}


def _opened_tgs(entry: Entry) -> Entry:
    request = TgsReq.decode(entry["sent"][0])
    value = next(
        p.padata_value for p in request.padata or () if p.padata_type == PaDataType.TGS_REQ
    )
    session_key = EncryptionKey(entry["etype"], entry["tgt"]["session_key"])
    authenticator = _open_authenticator(
        ApReq.decode(value), session_key, KeyUsage.TGS_REQ_AUTHENTICATOR
    )
    assert authenticator.subkey is not None
    nonce = request.req_body.nonce
    enc_part = TgsRep.decode(entry["received"][0]).enc_part
    part = open_reply(authenticator.subkey, KeyUsage.TGS_REP_ENC_PART_SUBKEY, enc_part, nonce)
    _open_ticket(entry["ticket"], part.key)
    return {
        "nonces": [nonce],
        "subkey": authenticator.subkey.contents,
        "session_key": part.key.contents,
        "ctime": authenticator.ctime,
        "cusec": authenticator.cusec,
    }


def _opened_context(entry: Entry) -> Entry:
    handshake = {False: entry["sent"][0], True: entry["received"][0]}
    ours = entry["kind"] == "initiator"
    ap_req = ApReq.decode(unframe(handshake[not ours])[1])
    ap_rep = ApRep.decode(unframe(handshake[ours])[1])
    service_key = entry["ticket"]["service_key"] if ours else entry["service_key"]
    session_key = _session_key(ap_req.ticket, service_key)
    authenticator = _open_authenticator(ap_req, session_key, KeyUsage.AP_REQ_AUTHENTICATOR)
    part = EncApRepPart.decode(
        crypto.decrypt(session_key, KeyUsage.AP_REP_ENC_PART, ap_rep.enc_part.cipher)
    )
    assert (part.ctime, part.cusec) == (authenticator.ctime, authenticator.cusec)
    return {
        "session_key": session_key.contents,
        "initiator_subkey": authenticator.subkey and authenticator.subkey.contents,
        "acceptor_subkey": part.subkey and part.subkey.contents,
        "initiator_seq_number": authenticator.seq_number,
        "acceptor_seq_number": part.seq_number,
        "ctime": authenticator.ctime,
        "cusec": authenticator.cusec,
    }


_OPENED = {
    "AS": _opened_as,
    "TGS": _opened_tgs,
    "initiator": _opened_context,
    "acceptor": _opened_context,
}


def _key(entry: Entry, name: str) -> EncryptionKey:
    return EncryptionKey(entry["etype"], entry[name])


def _session_key(ticket: bytes, service_key: Entry) -> EncryptionKey:
    key = EncryptionKey(service_key["etype"], service_key["key"])
    assert encrypted_with(ticket) == (service_key["etype"], service_key["kvno"])
    return EncTicketPart.decode(
        crypto.decrypt(key, KeyUsage.TICKET, Ticket.decode(ticket).enc_part.cipher)
    ).key


def _open_ticket(ticket: Entry, session_key: EncryptionKey) -> None:
    """Fail unless the service finds in the ticket the session key that the client was told."""
    assert _session_key(ticket["ticket"], ticket["service_key"]) == session_key
    assert ticket["session_key"] == session_key.contents


def _open_authenticator(request: ApReq, session_key: EncryptionKey, usage: int) -> Authenticator:
    return Authenticator.decode(crypto.decrypt(session_key, usage, request.authenticator.cipher))


# -- files


def load(files_of: str) -> list[Entry]:
    """Return the recorded entries of all files whose name begins so."""
    files = sorted(RECORDED.glob(f"{files_of}-*.json"))
    return [_read(entry) for file in files for entry in json.loads(file.read_text())["vectors"]]


def save(file: Path, about: str, entries: list[Entry]) -> None:
    """Write `entries` to `file`."""
    content = {"about": about, "vectors": [_plain(entry) for entry in entries]}
    file.write_text(json.dumps(content, indent=1) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


def _read(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _read(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [_read(member, name) for member in value]
    if not isinstance(value, str) or name in _WORDS:
        return value
    return datetime.fromisoformat(value) if name in _TIMES else bytes.fromhex(value)
