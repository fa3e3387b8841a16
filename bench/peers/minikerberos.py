"""Worker: minikerberos. It has no acceptor, so one is made here of its own parts, with the checks that it allows."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
from typing import Any

from minikerberos.protocol.asn1_structs import (
    AP_REP,
    AP_REQ,
    Authenticator,
    EncAPRepPart,
    EncryptedData,
    EncryptionKey,
    EncTicketPart,
)
from minikerberos.protocol.encryption import Enctype, Key, _enctype_table
from minikerberos.protocol.ticketutils import construct_apreq_from_ticket

from bench.timing import Batch, repeat
from bench.worker import serve

SKEW = datetime.timedelta(minutes=5)
FLAGS = 0x3E  # mutual, replay, sequence, conf, integ
AES256 = _enctype_table[Enctype.AES256]


def initiate(setup: dict[str, Any], session_key: Key) -> bytes:
    return construct_apreq_from_ticket(
        bytes.fromhex(setup["ticket"]),
        session_key,
        setup["realm"],
        setup["client"],
        flags=FLAGS,
        seq_number=int.from_bytes(os.urandom(4), "big"),
        ap_opts=["mutual-required"],
    )


def accept(message: bytes, service_key: Key, seen: set[bytes]) -> bytes:
    request = AP_REQ.load(message).native
    part = request["ticket"]["enc-part"]
    ticket = EncTicketPart.load(AES256.decrypt(service_key, 2, part["cipher"])).native
    session_key = Key(ticket["key"]["keytype"], ticket["key"]["keyvalue"])
    cipher = request["authenticator"]["cipher"]
    authenticator = Authenticator.load(AES256.decrypt(session_key, 11, cipher)).native
    now = datetime.datetime.now(datetime.timezone.utc)
    if authenticator["crealm"] != ticket["crealm"] or authenticator["cname"] != ticket["cname"]:
        raise ValueError("other client")
    if abs(now - authenticator["ctime"]) > SKEW or ticket["endtime"] < now or cipher in seen:
        raise ValueError("time or replay")
    seen.add(cipher)
    reply = EncAPRepPart(
        {
            "ctime": authenticator["ctime"],
            "cusec": authenticator["cusec"],
            "subkey": EncryptionKey({"keytype": 18, "keyvalue": os.urandom(32)}),
            "seq-number": int.from_bytes(os.urandom(4), "big"),
        }
    )
    encrypted = AES256.encrypt(session_key, 12, reply.dump(), None)
    return AP_REP(
        {"pvno": 5, "msg-type": 15, "enc-part": EncryptedData({"etype": 18, "cipher": encrypted})}
    ).dump()


def finish(message: bytes, session_key: Key) -> None:
    reply = AP_REP.load(message).native
    part = EncAPRepPart.load(AES256.decrypt(session_key, 12, reply["enc-part"]["cipher"])).native
    # It does not keep the authenticator that it sent, so ctime and cusec cannot be compared, only read.
    if part["ctime"] is None or part["cusec"] is None:
        raise ValueError("no proof")


def start(setup: dict[str, Any]) -> tuple[str, Any]:
    session_key = Key(Enctype.AES256, bytes.fromhex(setup["session_key"]))
    service_key = Key(Enctype.AES256, bytes.fromhex(setup["service_key"]))
    seen: set[bytes] = set()

    def pair() -> None:
        finish(accept(initiate(setup, session_key), service_key, seen), session_key)

    cases: dict[str, Batch] = {
        "context pair": repeat(pair),
        "string-to-key": repeat(AES256.string_to_key, b"password", b"EXAMPLE.TESTalice", None),
    }
    return importlib.metadata.version("minikerberos"), cases.__getitem__


serve(start)
