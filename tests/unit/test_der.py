"""The DER codec: what it takes, what it refuses, and that the refused differs from the taken by the one thing named."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.messages import der
from purekrb.messages.der import (
    INT32,
    MICROSECONDS,
    SEQ_NUMBER,
    UINT32,
    Any_,
    Application,
    Field,
    GeneralString,
    KerberosFlags,
    KerberosTime,
    Message,
    OctetString,
    Sequence,
    SequenceOf,
    read_header,
    tlv,
)
from purekrb.messages.kdc import EtypeInfo2Entry
from purekrb.messages.layouts import Key

UTC = timezone.utc


def decode(kind: der.DerType, contents: bytes) -> Any:
    """Decode `contents`."""
    return kind.decode(contents)


# A message to try the rules on


@dataclass(frozen=True, slots=True)
class Closed(Message):
    number: int
    text: str | None
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Open(Message):
    number: int
    text: str | None
    items: tuple[int, ...]


FIELDS = (
    Field(0, "number", INT32),
    Field(2, "text", GeneralString(), optional=True),
    Field(3, "items", SequenceOf(INT32, 3)),
)
Closed.schema = Application(5, Sequence(Closed, *FIELDS))
Open.schema = Application(5, Sequence(Open, *FIELDS, extensible=True))

NUMBER = bytes.fromhex("a003020107")
TEXT = bytes.fromhex("a2041b026869")
ITEMS = bytes.fromhex("a30830060201010201ff")


def message(*fields: bytes) -> bytes:
    return tlv(0x65, tlv(0x30, b"".join(fields)))


def test_a_message_is_decoded_and_encodes_to_the_same_bytes() -> None:
    data = message(NUMBER, TEXT, ITEMS)
    assert Closed.decode(data) == Closed(7, "hi", (1, -1))
    assert Closed.decode(data).encode() == data
    assert Closed.decode(bytearray(data)) == Closed.decode(memoryview(data)) == Closed.decode(data)


def test_an_absent_optional_field_is_none() -> None:
    data = message(NUMBER, ITEMS)
    assert Closed.decode(data) == Closed(7, None, (1, -1))
    assert Closed(7, None, (1, -1)).encode() == data


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((NUMBER, TEXT), id="required field missing"),
        pytest.param((TEXT, ITEMS), id="first field missing"),
        pytest.param((NUMBER, NUMBER, TEXT, ITEMS), id="field twice"),
        pytest.param((NUMBER, TEXT, TEXT, ITEMS), id="optional field twice"),
        pytest.param((NUMBER, TEXT, ITEMS, ITEMS), id="last field twice"),
        pytest.param((TEXT, NUMBER, ITEMS), id="fields swapped"),
        pytest.param((NUMBER, ITEMS, TEXT), id="optional field at the end"),
        pytest.param(
            (NUMBER, bytes.fromhex("a103020100"), TEXT, ITEMS), id="unknown field in between"
        ),
        pytest.param(
            (NUMBER, TEXT, bytes.fromhex("a308300602010102"), b"\x01"), id="element cut off"
        ),
        pytest.param(
            (NUMBER, TEXT, bytes.fromhex("a20a30080201010201ff0500")),
            id="field under another number",
        ),
        pytest.param((bytes.fromhex("a00304017f"), TEXT, ITEMS), id="octet string for an integer"),
        pytest.param((bytes.fromhex("8001077f"), TEXT, ITEMS), id="implicit tag"),
        pytest.param(
            (bytes.fromhex("a0060201070201ff"), TEXT, ITEMS), id="two values in one field"
        ),
        pytest.param((bytes.fromhex("a000"), TEXT, ITEMS), id="empty field"),
        pytest.param(
            (bytes.fromhex("a0020201"), b"\x07", TEXT, ITEMS), id="value longer than its field"
        ),
        pytest.param(
            (bytes.fromhex("a08003020107"), TEXT, ITEMS), id="indefinite length of a field"
        ),
        pytest.param((bytes.fromhex("a0028000"), TEXT, ITEMS), id="context tag inside"),
    ],
)
def test_fields_that_do_not_follow_the_schema_are_refused(fields: tuple[bytes, ...]) -> None:
    Closed.decode(message(NUMBER, TEXT, ITEMS))
    for kind in (Closed, Open):
        with pytest.raises(DecodeError):
            kind.decode(message(*fields))


def test_a_sequence_of_has_at_most_its_limit() -> None:
    at_limit = tlv(0xA3, tlv(0x30, bytes.fromhex("020101") * 3))
    assert Closed.decode(message(NUMBER, at_limit)).items == (1, 1, 1)
    with pytest.raises(DecodeError, match="more than 3"):
        Closed.decode(message(NUMBER, tlv(0xA3, tlv(0x30, bytes.fromhex("020101") * 4))))
    assert Closed.decode(message(NUMBER, tlv(0xA3, tlv(0x30, b"")))).items == ()
    with pytest.raises(DecodeError, match="wrong type"):
        Closed.decode(message(NUMBER, tlv(0xA3, tlv(0x30, bytes.fromhex("020101040101")))))


EXTENSION = bytes.fromhex("a4020500")


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        pytest.param((EXTENSION,), True, id="one"),
        pytest.param((EXTENSION, bytes.fromhex("a500")), True, id="two in order"),
        pytest.param((bytes.fromhex("a500"), EXTENSION), False, id="two out of order"),
        pytest.param((EXTENSION, EXTENSION), False, id="one twice"),
        pytest.param((b"\x04\x00",), False, id="no context tag"),
        pytest.param((b"\xa4\x05\x00",), False, id="past the end"),
        pytest.param((b"\xa4",), False, id="cut off"),
        pytest.param((b"\xa4\x80\x00\x00",), False, id="indefinite length"),
    ],
)
def test_extension_fields_are_skipped_only_where_the_asn1_has_dots(
    fields: tuple[bytes, ...], taken: bool
) -> None:
    data = message(NUMBER, TEXT, ITEMS, *fields)
    with pytest.raises(DecodeError):
        Closed.decode(data)
    if taken:
        assert Open.decode(data) == Open(7, "hi", (1, -1))
    else:
        with pytest.raises(DecodeError):
            Open.decode(data)


GOOD = message(NUMBER, TEXT, ITEMS)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD + b"\0", id="byte after the message"),
        pytest.param(
            message(NUMBER, TEXT, ITEMS)[:1] + b"\x81" + GOOD[1:], id="long form for a short length"
        ),
        pytest.param(b"\x65\x82\x00" + GOOD[1:], id="leading zero in a length"),
        pytest.param(b"\x65\x80" + GOOD[2:] + b"\0\0", id="indefinite length"),
        pytest.param(b"\x65\x84\xff\xff\xff\xff" + GOOD[2:], id="length of 4 GiB"),
        pytest.param(b"\x65\x85\x00\x00\x00\x00" + GOOD[1:], id="five length octets"),
        pytest.param(b"\x65\xff" + GOOD[2:], id="reserved length octet"),
        pytest.param(b"\x7f\x05" + GOOD[1:], id="multi-byte tag"),
        pytest.param(b"\x66" + GOOD[1:], id="another application tag"),
        pytest.param(b"\x45" + GOOD[1:], id="application tag, primitive"),
        pytest.param(tlv(0x65, tlv(0x31, NUMBER + TEXT + ITEMS)), id="set instead of sequence"),
        pytest.param(tlv(0x65, tlv(0x30, NUMBER + ITEMS) * 2), id="two sequences in the tag"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x65", id="a tag"),
        pytest.param(b"\x65\x00", id="an empty message"),
    ],
)
def test_framing_that_is_not_der_is_refused(data: bytes) -> None:
    assert Closed.decode(GOOD).number == 7
    with pytest.raises(DecodeError):
        Closed.decode(data)


def test_every_prefix_of_a_message_is_refused() -> None:
    for cut in range(len(GOOD)):
        with pytest.raises(DecodeError):
            Closed.decode(GOOD[:cut])


def test_an_error_names_the_field_but_shows_no_data() -> None:
    with pytest.raises(DecodeError, match="field items is missing") as caught:
        Closed.decode(message(NUMBER, TEXT))
    frames = []
    traceback = caught.value.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    assert frames[-1].f_code.co_name == "decode", "the frames below hold the decrypted message"
    assert "data" not in frames[-1].f_locals


def test_encoding_a_message_without_a_required_field_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="items is required"):
        Closed(7, None, None).encode()  # type: ignore[arg-type]


# Types


@pytest.mark.parametrize(
    ("value", "contents"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "0080"),
        (255, "00ff"),
        (256, "0100"),
        (-1, "ff"),
        (-128, "80"),
        (-129, "ff7f"),
        ((1 << 31) - 1, "7fffffff"),
        (-(1 << 31), "80000000"),
    ],
)
def test_an_integer_has_its_shortest_form(value: int, contents: str) -> None:
    raw = bytes.fromhex(contents)
    assert INT32.encode(value) == raw
    assert decode(INT32, raw) == value


@pytest.mark.parametrize(
    "contents", ["", "0000", "007f", "ffff", "ff80", "000080", "00" * 4096, "ff" * 4096]
)
def test_an_integer_in_another_form_is_refused(contents: str) -> None:
    assert decode(INT32, b"\x00") == 0
    with pytest.raises(DecodeError):
        decode(INT32, bytes.fromhex(contents))


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [(INT32, -(1 << 31), (1 << 31) - 1), (UINT32, 0, (1 << 32) - 1), (MICROSECONDS, 0, 999_999)],
    ids=["Int32", "UInt32", "Microseconds"],
)
def test_an_integer_keeps_to_its_range_both_ways(kind: der.Integer, low: int, high: int) -> None:
    wide = der.Integer(-(1 << 62), 1 << 62)
    for value in (low, high):
        assert decode(kind, kind.encode(value)) == value
    for value in (low - 1, high + 1, 1 << 40, -(1 << 40)):
        with pytest.raises(DecodeError, match="outside"):
            decode(kind, wide.encode(value))
        with pytest.raises(ValueError, match="outside"):
            kind.encode(value)
    with pytest.raises(DecodeError, match="larger"):
        decode(kind, b"\x01" * 10)


def test_a_sequence_number_may_come_negative_from_old_senders() -> None:
    assert decode(SEQ_NUMBER, b"\xff") == 0xFFFFFFFF
    assert decode(SEQ_NUMBER, bytes.fromhex("80000000")) == 0x80000000
    assert decode(SEQ_NUMBER, bytes.fromhex("00ffffffff")) == 0xFFFFFFFF
    assert SEQ_NUMBER.encode(0xFFFFFFFF) == bytes.fromhex("00ffffffff")
    for beyond in ("0100000000", "ff7fffffff"):
        with pytest.raises(DecodeError):
            decode(SEQ_NUMBER, bytes.fromhex(beyond))


def test_a_string_is_utf8_without_nul_and_bounded() -> None:
    kind = GeneralString()
    for text in ("", "AD.TEST", "j\u00fcrgen", "\U0001d11e", "new\nline", "x" * 8192):
        assert decode(kind, kind.encode(text)) == text
    for raw in (b"\0", b"a\0b", b"\xff", b"\xc3", b"\xed\xa0\x80", b"x" * 8193):
        with pytest.raises(DecodeError):
            decode(kind, raw)


def test_a_string_that_no_one_could_read_is_not_written() -> None:
    kind = GeneralString()
    assert kind.encode("a") == b"a"
    for text in ("a\0", "\ud800"):
        with pytest.raises(ValueError):
            kind.encode(text)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("19940610060317Z", datetime(1994, 6, 10, 6, 3, 17, tzinfo=UTC)),
        ("19700101000000Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("00010101000000Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("99991231235959Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("21060207062816Z", datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC)),
        ("20240229000000Z", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_in_whole_seconds(text: str, time: datetime) -> None:
    kind = KerberosTime()
    assert decode(kind, text.encode()) == time
    assert decode(kind, text.encode()).tzinfo is UTC
    assert kind.encode(time) == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "19940610060317",
        "19940610060317.5Z",
        "19940610060317+0100",
        "19940610060317z",
        "1994061006031Z",
        "940610060317Z",
        "19940230000000Z",
        "19941301000000Z",
        "19940001000000Z",
        "19940610240000Z",
        "19940610066000Z",
        "19940610060360Z",
        "00000101000000Z",
        " 9940610060317Z",
        "+9940610060317Z",
        "1994_610060317Z",
        "\u0661\u0669\u0669\u0664061006",
        "",
    ],
)
def test_a_time_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode(KerberosTime(), text.encode())


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert KerberosTime().encode(datetime(2024, 1, 1, 1, 30, tzinfo=east)) == b"20231231233000Z"


@pytest.mark.parametrize(
    ("contents", "flags"),
    [
        ("0040800000", 0x40800000),
        ("00", 0),
        ("0080", 0x80000000),
        ("0780", 0x80000000),
        ("0640", 0x40000000),
        ("004080", 0x40800000),
        ("054080000020", 0x40800000),
        ("004080000011", 0x40800000),
        ("00408000001122334455", 0x40800000),
        ("0740800000" + "00", 0x40800000),
    ],
)
def test_flags_of_any_length_are_read_from_the_left(contents: str, flags: int) -> None:
    assert decode(KerberosFlags(), bytes.fromhex(contents)) == flags
    assert KerberosFlags().encode(flags) == b"\0" + flags.to_bytes(4, "big")


@pytest.mark.parametrize(
    "contents", ["", "01", "07", "0840800000", "ff40800000", "0140800001", "0781", "00" * 35]
)
def test_flags_that_are_no_bit_string_are_refused(contents: str) -> None:
    with pytest.raises(DecodeError):
        decode(KerberosFlags(), bytes.fromhex(contents))


def test_a_key_comes_as_an_encryption_key_of_the_right_length() -> None:
    kind = Key()
    key = EncryptionKey(17, bytes(range(16)))
    assert decode(kind, kind.encode(key)) == key
    unknown = EncryptionKey(1, b"12345678")
    assert decode(kind, kind.encode(unknown)) == unknown
    for size in (0, 15, 17, 32):
        contents = tlv(0xA0, tlv(2, b"\x11")) + tlv(0xA1, tlv(4, bytes(size)))
        with pytest.raises(DecodeError, match="16 bytes"):
            decode(kind, contents)


def test_any_keeps_one_element_as_it_came() -> None:
    kind = Any_(0x61)
    element = tlv(0x61, b"inside")
    assert kind.encode(element) == b"inside"
    assert decode(kind, b"inside") == element
    for wrong in (tlv(0x62, b"inside"), element + b"\0"):
        with pytest.raises(ValueError):
            kind.encode(wrong)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536, 1 << 20])
def test_a_length_is_written_in_its_shortest_form_and_read_back(size: int) -> None:
    element = tlv(0x04, bytes(size))
    assert read_header(element, 0, len(element)) == (0x04, len(element) - size, len(element))


@pytest.mark.parametrize("tags", [(0x30,), (0x6E, 0x30), (0xA0, 0x30)])
def test_the_headers_of_a_size_are_those_that_are_written_around_contents(
    tags: tuple[int, ...],
) -> None:
    sizes = [*range(140), *range(240, 270), 65535, 65536]
    totals = {}
    for size in sizes:
        headers = der.headers_around(size, tags)
        totals[size + len(headers)] = headers
        assert der.headers_of(size + len(headers), tags) == headers
    for total in range(2 * len(tags), 140):
        assert der.headers_of(total, tags) == totals.get(total)


def test_what_is_absent_is_written_otherwise_than_what_is_empty() -> None:
    for salt in (None, b"", b"salt"):
        entry = EtypeInfo2Entry(18, salt, None)
        assert EtypeInfo2Entry.decode(entry.encode()) == entry
    assert EtypeInfo2Entry(18, None, None).encode() != EtypeInfo2Entry(18, b"", None).encode()


def test_an_implicit_tag_stands_in_place_of_that_of_the_type() -> None:
    kind = Sequence(
        lambda *values: values,
        Field(0, "text", OctetString(), implicit=True),
        Field(1, "numbers", SequenceOf(INT32, 2), optional=True, implicit=True),
    )

    @dataclass
    class Both:
        text: bytes
        numbers: tuple[int, ...] | None

    assert kind.encode(Both(b"ab", (5,))) == bytes.fromhex("80026162a103020105")
    assert kind.decode(bytes.fromhex("80026162a103020105")) == (b"ab", (5,))
    assert kind.decode(bytes.fromhex("80026162")) == (b"ab", None)
    for wrong in ("a00404026162", "800261628103020105", "800261"):
        with pytest.raises(DecodeError):
            kind.decode(bytes.fromhex(wrong))
