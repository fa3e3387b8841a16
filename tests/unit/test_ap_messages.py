"""The messages of contexts against MIT's DER references; `property/test_der.py` compares them with impacket's spec."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from purekrb.keys import EncryptionKey
from purekrb.messages import ap, kdc
from purekrb.messages.der import Message, tlv
from purekrb.messages.layouts import Key
from purekrb.names import PrincipalName
from support.impacket_twin import SPECS, encode, reencode
from support.vectors import load

REFERENCES = load("asn1.json")
OURS = [pytest.param(v, id=v["name"]) for v in REFERENCES if v["message"] in ap.__all__]
#: MIT writes a kvno as a signed number; purekrb reads that and writes the UInt32 of RFC 4120.
SIGNED_KVNO = {"EncryptedData MSB-set kvno": 0xFF000000, "EncryptedData kvno=-1": 0xFFFFFFFF}


@pytest.mark.parametrize("vector", OURS)
def test_a_reference_is_read_and_written_back(vector: dict[str, Any]) -> None:
    kind: type[Message] = getattr(ap, vector["message"])
    message = kind.decode(vector["der"])
    if vector["name"] in SIGNED_KVNO:
        assert message.kvno == SIGNED_KVNO[vector["name"]]  # type: ignore[attr-defined]
        assert kind.decode(message.encode()) == message
    else:
        assert message.encode() == vector["der"] == encode(message)


KDC_MESSAGES: dict[str, Callable[[bytes], bytes]] = {
    "AsReq": lambda der: kdc.AsReq.decode(der).encode(),
    "TgsReq": lambda der: kdc.TgsReq.decode(der).encode(),
    "AsRep": lambda der: kdc.AsRep.decode(der).encode(),
    "TgsRep": lambda der: kdc.TgsRep.decode(der).encode(),
    "KdcReqBody": lambda der: kdc.KdcReqBody.decode(der).encode(),
    "EncKdcRepPart": lambda der: kdc.EncKdcRepPart.decode(der).encode(
        (der[0] & 0x1F == 26 and 13) or 11
    ),
    "PaEncTsEnc": lambda der: kdc.PaEncTsEnc.decode(der).encode(),
    "MethodData": lambda der: kdc.MethodData.decode(der).encode(),
    "EtypeInfo2": lambda der: kdc.EtypeInfo2.decode(der).encode(),
}


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["name"]) for v in REFERENCES if v["message"] in KDC_MESSAGES]
)
def test_a_reference_of_the_kdcs_messages_is_read_and_written_back(vector: dict[str, Any]) -> None:
    assert KDC_MESSAGES[vector["message"]](vector["der"]) == vector["der"]


def test_the_reference_of_a_key_is_read_and_written_back() -> None:
    (vector,) = (v for v in REFERENCES if v["message"] == "EncryptionKey")
    data = vector["der"]
    key = Key().decode(data[2:])
    assert key == EncryptionKey(1, b"12345678")
    assert tlv(Key.tag, Key().encode(key)) == data


def test_every_reference_belongs_to_one_of_these_tests() -> None:
    names = {v["message"] for v in REFERENCES}
    assert names == {p.values[0]["message"] for p in OURS} | set(KDC_MESSAGES) | {"EncryptionKey"}


def test_every_message_has_a_reference_or_is_part_of_one() -> None:
    covered = {v["message"] for v in REFERENCES}
    messages = {n for n in ap.__all__ if n != "MAX_ENTRIES"}
    parts = {
        "Checksum",
        "HostAddress",
        "AuthorizationDataEntry",
        "TransitedEncoding",
        "KrbCredInfo",
        "EtypeList",
    }
    assert messages - parts <= covered
    assert {k.__name__ for k in SPECS if k.__module__ == ap.__name__} == messages - {
        "AuthorizationDataEntry",  # in AuthorizationData
        "EtypeList",  # impacket has none; RFC 4537 3 makes it a SEQUENCE OF Int32
    }


def test_an_etype_list_is_a_sequence_of_numbers() -> None:
    data = bytes.fromhex("3009020112020111020180")
    assert ap.EtypeList((18, 17, -128)).encode() == data
    assert ap.EtypeList.decode(data) == ap.EtypeList((18, 17, -128))


def test_the_fields_of_mits_reference_have_the_values_that_mit_set() -> None:
    """MIT's reference objects: realm ATHENA.MIT.EDU, client hftsai/extra, 1994-06-10 06:03:17.123456 UTC."""
    by_name = {v["name"]: v["der"] for v in REFERENCES}
    part = ap.EncTicketPart.decode(by_name["EncTicketPart"])
    assert part.crealm == "ATHENA.MIT.EDU"
    assert part.cname == PrincipalName(("hftsai", "extra"))
    assert part.cname.name_type == 1
    assert part.key == EncryptionKey(1, b"12345678")
    assert part.authtime == part.endtime == datetime(1994, 6, 10, 6, 3, 17, tzinfo=timezone.utc)
    assert part.authorization_data == (ap.AuthorizationDataEntry(1, b"foobar"),) * 2
    assert ap.EncTicketPart.decode(by_name["EncTicketPart optionals NULL"]).caddr is None
    authenticator = ap.Authenticator.decode(by_name["Authenticator"])
    assert authenticator.cksum == ap.Checksum(1, b"1234")
    assert (authenticator.cusec, authenticator.seq_number) == (123456, 17)
    request = ap.ApReq.decode(by_name["ApReq"])
    assert request.ap_options == 0xFEDCBA98
    assert request.ticket == by_name["Ticket"]
    assert ap.Ticket.decode(request.ticket).enc_part == ap.EncryptedData(
        0, 5, b"krbASN.1 test message"
    )
    error = ap.KrbError.decode(by_name["KrbError"])
    assert (error.error_code, error.e_text, error.e_data) == (60, "krb5data", b"krb5data")


@pytest.mark.parametrize("vector", OURS)
def test_a_secret_in_a_message_is_not_in_its_repr(vector: dict[str, Any]) -> None:
    message = getattr(ap, vector["message"]).decode(vector["der"])
    assert "12345678" not in repr(message)


def test_impackets_spec_reads_the_references_too() -> None:
    """The positive control of the comparison: both decoders see the same bytes as good."""
    for vector in REFERENCES:
        if vector["message"] in ap.__all__:
            assert reencode(getattr(ap, vector["message"]), vector["der"]) == vector["der"]
