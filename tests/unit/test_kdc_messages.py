"""The messages of the KDC: what their fields mean, how strictly they are read, and that pyasn1 stays inside.

`property/test_der.py` compares them with impacket's spec.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.messages import der
from purekrb.messages.ap import EncryptedData, HostAddress, KrbError
from purekrb.messages.kdc import (
    AsRep,
    AsReq,
    EncKdcRepPart,
    EtypeInfo2,
    EtypeInfo2Entry,
    KdcReqBody,
    LastReqEntry,
    MethodData,
    PaData,
    PaEncTsEnc,
    PaPacRequest,
    TgsRep,
    TgsReq,
    decode_kdc_reply,
)
from purekrb.names import PrincipalName
from support.values import replace
from support.vectors import load

DER = {vector["name"]: vector["der"] for vector in load("asn1.json")}
TIME = datetime(1994, 6, 10, 6, 3, 17, tzinfo=timezone.utc)
NAME = PrincipalName(("hftsai", "extra"))
REALM = "ATHENA.MIT.EDU"
CIPHER = EncryptedData(0, 5, b"krbASN.1 test message")
PADATA = (PaData(13, b"pa-data"),) * 2
ADDRESS = HostAddress(2, bytes([18, 208, 0, 35]))

BODY = KdcReqBody(
    kdc_options=0xFEDCBA90,
    cname=NAME,
    realm=REALM,
    sname=NAME,
    from_=TIME,
    till=TIME,
    rtime=TIME,
    nonce=42,
    etype=(0, 1),
    addresses=(ADDRESS, ADDRESS),
    enc_authorization_data=CIPHER,
    additional_tickets=(DER["Ticket"], DER["Ticket"]),
)
REPLY = AsRep(PADATA, REALM, NAME, DER["Ticket"], CIPHER)
PART = EncKdcRepPart(
    key=EncryptionKey(1, b"12345678"),
    last_req=(LastReqEntry(-5, TIME),) * 2,
    nonce=42,
    key_expiration=TIME,
    flags=0xFEDCBA98,
    authtime=TIME,
    starttime=TIME,
    endtime=TIME,
    renew_till=TIME,
    srealm=REALM,
    sname=NAME,
    caddr=(ADDRESS, ADDRESS),
)

EVERY = {
    "AsReq": AsReq.decode,
    "TgsReq": TgsReq.decode,
    "AsRep": AsRep.decode,
    "TgsRep": TgsRep.decode,
    "KdcReqBody": KdcReqBody.decode,
    "EncKdcRepPart": EncKdcRepPart.decode,
    "KrbError": decode_kdc_reply,
    "PaEncTsEnc": PaEncTsEnc.decode,
    "MethodData": MethodData.decode,
    "EtypeInfo2": EtypeInfo2.decode,
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("KdcReqBody", BODY),
        ("AsReq", AsReq(PADATA, BODY)),
        ("TgsReq", TgsReq(PADATA, BODY)),
        ("AsRep", REPLY),
        ("TgsRep", TgsRep(PADATA, REALM, NAME, DER["Ticket"], CIPHER)),
        ("PaEncTsEnc", PaEncTsEnc(TIME, 123456)),
    ],
)
def test_the_fields_of_a_reference_are_what_mit_put_in(name: str, message: Any) -> None:
    assert type(message).decode(DER[name]) == message
    assert message.encode() == DER[name]


def test_the_fields_of_the_reference_of_an_encrypted_part_are_what_mit_put_in() -> None:
    assert EncKdcRepPart.decode(DER["EncKdcRepPart"]) == PART
    assert PART.encode(13) == DER["EncKdcRepPart"]


def test_absent_fields_are_none() -> None:
    body = AsReq.decode(DER["AsReq optionals NULL except server"]).req_body
    assert (body.cname, body.from_, body.rtime, body.addresses, body.additional_tickets) == (
        None,
    ) * 5
    assert AsRep.decode(DER["AsRep optionals NULL"]).padata is None
    part = EncKdcRepPart.decode(DER["EncKdcRepPart optionals NULL"])
    assert (
        part.key_expiration,
        part.starttime,
        part.renew_till,
        part.caddr,
        part.encrypted_pa_data,
    ) == (None,) * 5


def test_the_encrypted_part_is_read_and_written_with_either_tag() -> None:
    part = replace(PART, encrypted_pa_data=(PaData(149, b"checksum"),))
    for msg_type, tag in ((11, 0x79), (13, 0x7A)):
        encoded = part.encode(msg_type)
        assert encoded[0] == tag
        assert EncKdcRepPart.decode(encoded) == part


def test_a_pac_request_is_that_of_ms_kile() -> None:
    assert PaPacRequest(True).encode() == bytes.fromhex("3005a0030101ff")
    assert PaPacRequest(False).encode() == bytes.fromhex("3005a003010100")
    assert PaPacRequest.decode(bytes.fromhex("3005a0030101ff")) == PaPacRequest(True)
    with pytest.raises(DecodeError):
        PaPacRequest.decode(bytes.fromhex("3005a003010101"))  # TRUE is FF in DER


@pytest.mark.parametrize(
    ("contents", "nonce"),
    [
        ("00", 0),
        ("2a", 42),
        ("7fffffff", 0x7FFFFFFF),
        ("0080000000", 0x80000000),
        ("00ffffffff", 0xFFFFFFFF),
        ("ff", 0xFFFFFFFF),
        ("80", 0xFFFFFF80),
        ("80000000", 0x80000000),
    ],
)
def test_a_nonce_is_an_unsigned_number_however_it_is_written(contents: str, nonce: int) -> None:
    encoded = replace(BODY, nonce=42).encode()
    value = bytes.fromhex(contents)
    fields, _, _ = encoded.partition(b"\xa7\3\2\1\x2a")
    rest = encoded[len(fields) + 5 :]
    _, start, _ = der.read_header(encoded, 0, len(encoded))
    altered = der.tlv(0x30, fields[start:] + der.tlv(0xA7, der.tlv(2, value)) + rest)
    assert KdcReqBody.decode(altered).nonce == nonce


@pytest.mark.parametrize(
    "value", [-129, -128, -127, -1, 0, 127, 128, 255, 256, -32768, -(1 << 31), (1 << 31) - 1]
)
def test_every_integer_is_written_in_its_shortest_form(value: int) -> None:
    body = replace(BODY, etype=(value,))
    assert KdcReqBody.decode(body.encode()) == body


def test_a_body_encodes_to_the_bytes_that_came() -> None:
    """A checksum is over the bytes on the wire, also where the same values can be written otherwise."""
    canonical = TgsReq((), replace(BODY, nonce=0xFFFFFFFF)).encode()
    written = b"\xa7\7\2\5\0\xff\xff\xff\xff"
    body = canonical[canonical.index(b"\xa4") :]
    _, start, _ = der.read_header(body, 0, len(body))
    _, inner, _ = der.read_header(body, start, len(body))
    signed = der.tlv(0x30, body[inner:].replace(written, b"\xa7\3\2\1\xff"))
    request = der.tlv(0x30, b"\xa1\3\2\1\5\xa2\3\2\1\x0c" + der.tlv(0xA4, signed))
    decoded = TgsReq.decode(der.tlv(0x6C, request))
    assert decoded.req_body.encode() == signed
    assert decoded.encode() == der.tlv(0x6C, request)
    assert decoded.req_body.nonce == 0xFFFFFFFF
    altered = replace(decoded.req_body, nonce=7)
    assert KdcReqBody.decode(altered.encode()).nonce == 7  # a changed copy is encoded anew


def test_a_ticket_is_passed_on_as_it_came() -> None:
    ticket = DER["Ticket"]
    assert AsRep.decode(DER["AsRep"]).ticket == ticket
    assert AsReq.decode(DER["AsReq"]).req_body.additional_tickets == (ticket, ticket)


@pytest.mark.parametrize("flags", [0, 1, 1 << 31, 0x50010010, 0xFFFFFFFF])
def test_flags_are_32_bits_with_bit_0_highest(flags: int) -> None:
    assert KdcReqBody.decode(replace(BODY, kdc_options=flags).encode()).kdc_options == flags


@pytest.mark.parametrize(
    ("bits", "flags"),
    [
        ("0000000000", 0),
        ("0040", 1 << 30),
        ("0780", 1 << 31),
        ("004081001000", 0x40810010),
        ("00", 0),
    ],
)
def test_shorter_and_longer_flags_are_cut_to_32_bits(bits: str, flags: int) -> None:
    encoded = der.tlv(3, bytes.fromhex(bits))
    altered = DER["KdcReqBody"].replace(bytes.fromhex("a007030500fedcba90"), der.tlv(0xA0, encoded))
    _, start, _ = der.read_header(DER["KdcReqBody"], 0, len(DER["KdcReqBody"]))
    assert KdcReqBody.decode(der.tlv(0x30, altered[start:])).kdc_options == flags


# -- replies


def test_a_reply_of_a_kdc_is_one_of_three_messages() -> None:
    assert isinstance(decode_kdc_reply(DER["AsRep"]), AsRep)
    assert isinstance(decode_kdc_reply(DER["TgsRep"]), TgsRep)
    error = decode_kdc_reply(DER["KrbError"])
    assert error == KrbError.decode(DER["KrbError"])
    assert isinstance(error, KrbError)
    assert (error.error_code, error.e_text, error.cusec, error.stime) == (
        60,
        "krb5data",
        123456,
        TIME,
    )


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", DER["ApRep"], DER["AsReq"], b"\x6b"]
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_kdc_reply(data)


def test_a_reply_is_read_as_fast_as_its_size_allows() -> None:
    many = der.tlv(0x30, PaData(1, b"").encode() * 100_000)
    begun = time.process_time()
    with pytest.raises(DecodeError, match="elements"):
        MethodData.decode(many)
    assert time.process_time() - begun < 1
    large = MethodData((PaData(1, bytes(1 << 20)),)).encode()
    assert len(MethodData.decode(large).entries[0].padata_value) == 1 << 20


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(10_000):
        data = der.tlv(0x30, data)
    with pytest.raises(DecodeError):
        MethodData.decode(data)


# -- strictness


def variants(data: bytes) -> dict[str, bytes]:
    """Return other spellings of the same message, each of them BER but not DER."""
    tag, start, end = der.read_header(data, 0, len(data))
    contents = data[start:end]
    return {
        "length in long form": bytes([tag, 0x85, 0]) + len(contents).to_bytes(4, "big") + contents,
        "indefinite length": bytes([tag, 0x80]) + contents + b"\0\0",
        "a byte after the end": data + b"\0",
        "a second message": data + data,
        "a byte short": data[:-1],
    }


@pytest.mark.parametrize("spelling", variants(b"\x30\0"))
@pytest.mark.parametrize("name", EVERY)
def test_other_spellings_of_a_message_are_refused(name: str, spelling: str) -> None:
    EVERY[name](DER[name])
    with pytest.raises(DecodeError):
        EVERY[name](variants(DER[name])[spelling])


@pytest.mark.parametrize(
    "moment",
    [
        b"199406100603Z",
        b"19940610060317.5Z",
        b"19940610060317+0100",
        b"19940610060317",
        b"19941310060317Z",
        b"19940610250317Z",
        b"1994061006031\xffZ",
    ],
)
def test_a_time_in_another_form_is_refused(moment: bytes) -> None:
    def stamp(value: bytes) -> bytes:
        return der.tlv(0x30, der.tlv(0xA0, der.tlv(0x18, value)))

    assert PaEncTsEnc.decode(stamp(b"19940610060317Z")).patimestamp == TIME
    with pytest.raises(DecodeError):
        PaEncTsEnc.decode(stamp(moment))


@pytest.mark.parametrize("name", EVERY)
def test_whatever_byte_is_changed_only_decode_errors_come_out(name: str) -> None:
    genuine = DER[name]
    contexts = set()
    for at in range(len(genuine)):
        altered = bytearray(genuine)
        altered[at] ^= (0x01, 0x20, 0x80, 0xFF)[at % 4]
        try:
            EVERY[name](bytes(altered))
        except DecodeError as error:
            contexts.add(type(error.__context__))
    assert contexts <= {
        type(None),
        ValueError,
        UnicodeDecodeError,
    }  # none of pyasn1's, which may quote the data


@pytest.mark.parametrize("name", EVERY)
def test_every_prefix_of_a_message_is_refused(name: str) -> None:
    for size in range(len(DER[name])):
        with pytest.raises(DecodeError):
            EVERY[name](DER[name][:size])


def test_an_error_about_a_decrypted_part_says_nothing_of_its_contents() -> None:
    secret = bytes(range(0x41, 0x61))
    genuine = replace(PART, key=EncryptionKey(18, secret)).encode()
    reached = 0
    for at in range(len(genuine)):
        altered = bytearray(genuine)
        altered[at] ^= 0x40
        try:
            EncKdcRepPart.decode(bytes(altered))
        except DecodeError as error:
            told = f"{error!r} {error.__context__!r} {error.__context__ and error.__context__.args}"
            assert "ABCDEFGH" not in told
            assert secret.hex()[:16] not in told
            reached += 1
    assert reached > 50


def test_values_that_a_field_cannot_hold_are_the_callers_mistake() -> None:
    for wrong in (
        replace(BODY, nonce=1 << 32),
        replace(BODY, etype=(1 << 31,)),
        replace(BODY, kdc_options=1 << 32),
    ):
        with pytest.raises(ValueError):
            wrong.encode()
    with pytest.raises(ValueError):
        replace(BODY, additional_tickets=(b"no ticket",)).encode()
    for microseconds in (1_000_000, -1):
        with pytest.raises(ValueError):
            PaEncTsEnc(TIME, microseconds).encode()
    assert PaEncTsEnc(TIME, 999_999).encode()
    with pytest.raises(ValueError, match="till is required"):
        replace(BODY, till=None).encode()
    assert replace(BODY, sname=None).encode()


def test_names_that_are_equal_are_each_written_with_their_own_type() -> None:
    """What comes again is remembered, and the type of a name does not count in comparisons."""
    for name_type in (1, 2, 10, 1):
        name = PrincipalName(NAME.components, name_type)
        got = KdcReqBody.decode(replace(BODY, cname=name, sname=NAME).encode())
        assert got.cname is not None
        assert got.cname.name_type == name_type
        assert got.sname is not None
        assert got.sname.name_type == NAME.name_type


def test_a_body_is_encoded_once_and_a_changed_one_anew() -> None:
    assert BODY.encode() is BODY.encode()
    changed = replace(BODY, nonce=43)
    assert KdcReqBody.decode(changed.encode()).nonce == 43
    assert AsReq(PADATA, changed).encode().endswith(changed.encode())


# -- round trips

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
int32s = st.integers(-(1 << 31), (1 << 31) - 1)
octets = st.binary(max_size=200)
names = st.builds(PrincipalName, st.lists(texts, max_size=4).map(tuple), int32s)
times = st.datetimes(
    datetime(1900, 1, 1), datetime(9999, 1, 1), timezones=st.just(timezone.utc)
).map(lambda t: t.replace(microsecond=0))
addresses = st.none() | st.lists(st.builds(HostAddress, int32s, octets), max_size=3).map(tuple)
padata = st.lists(st.builds(PaData, int32s, octets), max_size=4).map(tuple)
encrypted = st.builds(EncryptedData, int32s, st.none() | st.integers(0, (1 << 32) - 1), octets)
bodies = st.builds(
    KdcReqBody,
    kdc_options=st.integers(0, (1 << 32) - 1),
    cname=st.none() | names,
    realm=texts,
    sname=st.none() | names,
    from_=st.none() | times,
    till=times,
    rtime=st.none() | times,
    nonce=st.integers(0, (1 << 32) - 1),
    etype=st.lists(int32s, max_size=6).map(tuple),
    addresses=addresses,
    enc_authorization_data=st.none() | encrypted,
)
messages = st.one_of(
    bodies,
    st.builds(AsReq, padata, bodies),
    st.builds(TgsReq, padata, bodies),
    st.builds(AsRep, padata, texts, names, st.just(DER["Ticket"]), encrypted),
    st.builds(TgsRep, padata, texts, names, st.just(DER["Ticket"]), encrypted),
    st.builds(
        EncKdcRepPart,
        key=st.builds(EncryptionKey, st.integers(100, 1000), octets),
        last_req=st.lists(st.builds(LastReqEntry, int32s, times), max_size=3).map(tuple),
        nonce=st.integers(0, (1 << 32) - 1),
        key_expiration=st.none() | times,
        flags=st.integers(0, (1 << 32) - 1),
        authtime=times,
        starttime=st.none() | times,
        endtime=times,
        renew_till=st.none() | times,
        srealm=texts,
        sname=names,
        caddr=addresses,
        encrypted_pa_data=st.none() | padata,
    ),
)


@settings(max_examples=40, deadline=None)
@given(messages)
def test_what_is_written_is_read_back(message: Any) -> None:
    encoded = message.encode()
    assert type(message).decode(encoded) == message


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(EtypeInfo2Entry, int32s, st.none() | texts.map(str.encode), st.none() | octets),
        max_size=5,
    ).map(tuple)
)
def test_etype_info2_is_read_back(entries: tuple[EtypeInfo2Entry, ...]) -> None:
    assert EtypeInfo2.decode(EtypeInfo2(entries).encode()) == EtypeInfo2(entries)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_give_decode_errors_only(data: bytes) -> None:
    for tag in (b"\x6b", b"\x6d", b"\x7e"):
        with pytest.raises(DecodeError):
            decode_kdc_reply(tag + data)
