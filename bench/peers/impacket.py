"""Worker: impacket. It has no acceptor, so one is made here of its own parts, with the checks that it allows."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
from typing import Any

from impacket.krb5 import asn1, constants, kerberosv5
from impacket.krb5.crypto import Key, _checksum_table, _enctype_table
from impacket.krb5.gssapi import CheckSumField
from impacket.krb5.types import KerberosTime, Principal
from pyasn1.codec.der import decoder, encoder
from pyasn1.type.univ import noValue

from bench.timing import Batch, repeat
from bench.worker import serve

SKEW = datetime.timedelta(minutes=5)
FLAGS = 0x3E  # mutual, replay, sequence, conf, integ
AES256 = _enctype_table[18]


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def initiate(
    ticket: bytes, session_key: Key, client: str, realm: str
) -> tuple[bytes, tuple[str, int]]:
    moment = now()
    authenticator = asn1.Authenticator()
    authenticator["authenticator-vno"] = 5
    authenticator["crealm"] = realm
    name = Principal(client, type=constants.PrincipalNameType.NT_PRINCIPAL.value)
    asn1.seq_set(authenticator, "cname", name.components_to_asn1)
    authenticator["cusec"] = moment.microsecond
    authenticator["ctime"] = KerberosTime.to_asn1(moment)
    authenticator["cksum"] = noValue
    authenticator["cksum"]["cksumtype"] = 0x8003
    checksum = CheckSumField()
    checksum["Lgth"] = 16
    checksum["Flags"] = FLAGS
    authenticator["cksum"]["checksum"] = checksum.getData()
    authenticator["seq-number"] = int.from_bytes(os.urandom(4), "big")
    request = asn1.AP_REQ()
    request["pvno"] = 5
    request["msg-type"] = 14
    request["ap-options"] = constants.encodeFlags([constants.APOptions.mutual_required.value])
    # impacket passes a ticket on by taking it apart and putting it together.
    request["ticket"] = noValue
    parsed = decoder.decode(ticket, asn1Spec=asn1.Ticket())[0]
    for field in ("tkt-vno", "realm", "sname", "enc-part"):
        request["ticket"][field] = parsed[field]
    request["authenticator"] = noValue
    request["authenticator"]["etype"] = 18
    request["authenticator"]["cipher"] = AES256.encrypt(
        session_key, 11, encoder.encode(authenticator), None
    )
    return encoder.encode(request), (str(authenticator["ctime"]), moment.microsecond)


def accept(message: bytes, service_key: Key, seen: set[bytes]) -> bytes:
    request = decoder.decode(message, asn1Spec=asn1.AP_REQ())[0]
    opened = AES256.decrypt(service_key, 2, request["ticket"]["enc-part"]["cipher"].asOctets())
    ticket = decoder.decode(opened, asn1Spec=asn1.EncTicketPart())[0]
    session_key = Key(int(ticket["key"]["keytype"]), ticket["key"]["keyvalue"].asOctets())
    cipher = request["authenticator"]["cipher"].asOctets()
    authenticator = decoder.decode(
        AES256.decrypt(session_key, 11, cipher), asn1Spec=asn1.Authenticator()
    )[0]
    ctime, endtime = (
        datetime.datetime.strptime(str(value), "%Y%m%d%H%M%SZ").replace(
            tzinfo=datetime.timezone.utc
        )
        for value in (authenticator["ctime"], ticket["endtime"])
    )
    if authenticator["crealm"] != ticket["crealm"] or authenticator["cname"] != ticket["cname"]:
        raise ValueError("other client")
    moment = now()
    if abs(moment - ctime) > SKEW or endtime < moment or cipher in seen:
        raise ValueError("time or replay")
    seen.add(cipher)
    part = asn1.EncAPRepPart()
    part["ctime"] = str(authenticator["ctime"])
    part["cusec"] = int(authenticator["cusec"])
    part["subkey"] = noValue
    part["subkey"]["keytype"] = 18
    part["subkey"]["keyvalue"] = os.urandom(32)
    part["seq-number"] = int.from_bytes(os.urandom(4), "big")
    reply = asn1.AP_REP()
    reply["pvno"] = 5
    reply["msg-type"] = 15
    reply["enc-part"] = noValue
    reply["enc-part"]["etype"] = 18
    reply["enc-part"]["cipher"] = AES256.encrypt(session_key, 12, encoder.encode(part), None)
    return encoder.encode(reply)


def finish(message: bytes, session_key: Key, sent: tuple[str, int]) -> None:
    reply = decoder.decode(message, asn1Spec=asn1.AP_REP())[0]
    opened = AES256.decrypt(session_key, 12, reply["enc-part"]["cipher"].asOctets())
    part = decoder.decode(opened, asn1Spec=asn1.EncAPRepPart())[0]
    if (str(part["ctime"]), int(part["cusec"])) != sent:
        raise ValueError("no proof")


def talk_to_mit(port: int) -> list[Key]:
    """Teach impacket what MIT's KDC demands, in this process alone; return where the TGT's session key is put.

    MIT tags the encrypted part of an AS-REP as APPLICATION 26, and wants a checksum over the body of a TGS-REQ; ours
    does not listen at port 88 either.
    """
    kerberosv5.EncASRepPart = asn1.EncTGSRepPart
    send = kerberosv5.sendReceive
    keys: list[Key] = []

    def send_with_checksum(data: bytes, host: str, kdc: str) -> bytes:
        if data[:1] == b"\x6c":
            message = decoder.decode(data, asn1Spec=asn1.TGS_REQ())[0]
            padata = message["padata"][0]
            request = decoder.decode(padata["padata-value"].asOctets(), asn1Spec=asn1.AP_REQ())[0]
            opened = AES256.decrypt(keys[-1], 7, request["authenticator"]["cipher"].asOctets())
            authenticator = decoder.decode(opened, asn1Spec=asn1.Authenticator())[0]
            body = encoder.encode(
                message["req-body"].clone(tagSet=asn1.KDC_REQ_BODY.tagSet, cloneValueFlag=True)
            )
            authenticator["cksum"] = noValue
            authenticator["cksum"]["cksumtype"] = 16
            authenticator["cksum"]["checksum"] = _checksum_table[16].checksum(keys[-1], 6, body)
            request["authenticator"]["cipher"] = AES256.encrypt(
                keys[-1], 7, encoder.encode(authenticator), None
            )
            padata["padata-value"] = encoder.encode(request)
            data = encoder.encode(message)
        return send(data, host, kdc, port)

    kerberosv5.sendReceive = send_with_checksum
    return keys


def start(setup: dict[str, Any]) -> tuple[str, Any]:
    session_key = Key(18, bytes.fromhex(setup["session_key"]))
    service_key = Key(18, bytes.fromhex(setup["service_key"]))
    ticket = bytes.fromhex(setup["ticket"])
    seen: set[bytes] = set()
    keys = talk_to_mit(setup["port"])
    user = Principal(setup["user"], type=constants.PrincipalNameType.NT_PRINCIPAL.value)
    service = Principal(setup["service"], type=constants.PrincipalNameType.NT_SRV_INST.value)
    realm, kdc = setup["realm"], "127.0.0.1"

    def pair() -> None:
        message, sent = initiate(ticket, session_key, setup["client"], realm)
        finish(accept(message, service_key, seen), session_key, sent)

    def tickets(password: str, key: bytes) -> None:
        tgt, cipher, _, tgt_key = kerberosv5.getKerberosTGT(
            user, password, realm, b"", b"", key, kdc, requestPAC=False
        )
        keys[:] = [tgt_key]
        kerberosv5.getKerberosTGS(service, realm, kdc, tgt, cipher, tgt_key)

    cases: dict[str, Batch] = {
        "context pair": repeat(pair),
        "string-to-key": repeat(AES256.string_to_key, b"password", b"EXAMPLE.TESTalice", None),
        "tickets by password": repeat(tickets, setup["password"], b""),
        "tickets by key": repeat(tickets, "", bytes.fromhex(setup["user_key"])),
    }
    return importlib.metadata.version("impacket"), cases.__getitem__


serve(start)
