"""K187 to K200: bytes that are no DER, or DER that is no Kerberos, for every message that is decoded."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Any

import pytest

from purekrb.errors import DecodeError, KerberosError, UnsupportedError
from purekrb.gss.framing import TOK_AP_REQ, frame, unframe
from purekrb.messages import ap, kdc
from purekrb.messages.der import tlv
from purekrb.names import Principal, PrincipalName
from support.der_tree import Node, claimed, encode, indefinite, long_form, parse, retagged
from support.vectors import load


def with_tickets(decode: Callable[[bytes], Any], *fields: str) -> Callable[[bytes], Any]:
    """A decoder that also decodes the tickets that a message passes on as they came."""

    def run(data: bytes) -> Any:
        message = decode(data)
        for field in fields:
            value = attrgetter(field)(message) or ()
            for ticket in (value,) if isinstance(value, bytes) else value:
                ap.Ticket.decode(ticket)
        return message

    return run


#: Message -> its decoder.
DECODERS: dict[str, Callable[[bytes], Any]] = {
    **{name: getattr(ap, name).decode for name in ap.__all__ if name != "MAX_ENTRIES"},
    "ApReq": with_tickets(ap.ApReq.decode, "ticket"),
    "KrbCred": with_tickets(ap.KrbCred.decode, "tickets"),
    "AsReq": with_tickets(kdc.AsReq.decode, "req_body.additional_tickets"),
    "TgsReq": with_tickets(kdc.TgsReq.decode, "req_body.additional_tickets"),
    "AsRep": with_tickets(kdc.AsRep.decode, "ticket"),
    "TgsRep": with_tickets(kdc.TgsRep.decode, "ticket"),
    "KdcReqBody": with_tickets(kdc.KdcReqBody.decode, "additional_tickets"),
    "EncKdcRepPart": kdc.EncKdcRepPart.decode,
    "PaEncTsEnc": kdc.PaEncTsEnc.decode,
    "MethodData": kdc.MethodData.decode,
    "EtypeInfo2": kdc.EtypeInfo2.decode,
    "KdcReply": kdc.decode_kdc_reply,
}
#: Genuine messages: (name, decoder, DER). A negative kvno is read, but stands for another number than it looks.
GENUINE = [
    (v["name"], DECODERS[v["message"]], v["der"])
    for v in load("asn1.json")
    if v["message"] in DECODERS and "kvno" not in v["name"]
]
MESSAGES = pytest.mark.parametrize(
    ("decode", "data"), [pytest.param(decode, data, id=name) for name, decode, data in GENUINE]
)
EVERY_DECODER = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())


@contextmanager
def within(seconds: float, megabytes: float = 2) -> Iterator[None]:
    """Fail where the block takes much longer or more memory.

    Five times `seconds`, as a busy machine may stand still for a while; an attack that works takes 100 times more.
    """
    tracemalloc.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        taken = time.perf_counter() - start
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken < 5 * seconds, f"{taken:.3f} s"
    assert peak < megabytes * 1e6, f"{peak / 1e6:.1f} MB"


def refused(decode: Callable[[bytes], Any], data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


@MESSAGES
def test_every_genuine_message_is_accepted(decode: Callable[[bytes], Any], data: bytes) -> None:
    """The positive control of all that follows; the tree of a message encodes to the message."""
    decode(data)
    assert encode(parse(data)) == data


# K187: nesting


@EVERY_DECODER
@pytest.mark.parametrize("depth", [10, 100, 1000, 50_000], ids=lambda depth: f"K187-{depth}-deep")
def test_k187_nesting_is_refused_at_once(decode: Callable[[bytes], Any], depth: int) -> None:
    nested = b""
    for _ in range(min(depth, 1000)):
        nested = tlv(0x30, nested)
    definite = nested if depth <= 1000 else b"\x30\x83\x0f\xff\xff" * depth
    for data in (definite, b"\x30\x80" * depth, b"\x30\x80" * depth + b"\0\0" * depth):
        for tag in (0x30, 0x61, 0x6B, 0x6E, 0x7E):
            with within(0.5, 5):
                refused(decode, bytes([tag]) + data[1:])


# K188, K189, K194: lengths and integers


@MESSAGES
def test_k188_an_indefinite_length_anywhere_is_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    for node in tree:
        if node.children is not None:
            refused(decode, encode(tree, node, indefinite))


@MESSAGES
def test_k189_a_length_beyond_the_data_is_refused_before_anything_is_allocated(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    huge = [
        "84ffffffff",
        "847fffffff",
        "89010000000000000000",
        "888000000000000000",
        "83ffffff",
        "ff",
        "80",
    ]
    for node in tree:
        for header in huge:
            with within(0.2):
                refused(decode, encode(tree, node, claimed(bytes.fromhex(header))))


@MESSAGES
def test_k194_a_length_that_is_not_minimal_is_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    for node in tree:
        for octets in (1, 2, 3, 4, 8):
            bad = encode(tree, node, long_form(octets))
            if bad != data:
                refused(decode, bad)


def wide_integers(contents: bytes) -> list[bytes]:
    sign = b"\xff" if contents and contents[0] & 0x80 else b"\0"
    return [b"", sign + contents, sign * 4096 + contents, b"\x01" * 4096, b"\x80" + bytes(4095)]


@MESSAGES
def test_k194_an_integer_that_is_not_minimal_or_does_not_fit_is_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    for node in tree:
        if node.tag == 0x02:
            for wrong in wide_integers(node.contents):
                refused(decode, encode(tree, node, lambda tag, _, wrong=wrong: tlv(tag, wrong)))


# K190 to K193: types that have hurt other decoders


ACCIDENTS = [
    pytest.param(tlv(0x06, b"\x2a" + b"\x86\x48" * 25_000), id="K190-oid-of-many-arcs"),
    pytest.param(tlv(0x06, b"\x2a" + b"\xff" * 1_000_000 + b"\x01"), id="K191-endless-oid-arc"),
    pytest.param(b"\x1f" + b"\xff" * 1_000_000 + b"\x01\x01\x00", id="K192-endless-tag"),
    pytest.param(tlv(0x09, b"\x03" + b"1.E999999999"), id="K193-real-base-10"),
    pytest.param(tlv(0x09, b"\x83\x04\x7f\xff\xff\xff\x01"), id="K193-real-base-2"),
    pytest.param(tlv(0x1E, b"\0a" * 10), id="bmp-string"),
    pytest.param(tlv(0x2D, b""), id="relative-oid-constructed"),
]


@EVERY_DECODER
@pytest.mark.parametrize("element", ACCIDENTS)
def test_foreign_types_are_refused_undecoded(
    decode: Callable[[bytes], Any], element: bytes
) -> None:
    with within(0.1, 10):
        refused(decode, element)
        for tag in (0x30, 0x61, 0x6B, 0x7E):
            refused(decode, tlv(tag, tlv(0x30, tlv(0xA0, element))))


#: A REAL, an OID, and strings in BER's constructed form.
FOREIGN = [
    b"\x09\x0d\x031.E999999999",
    b"\x06\x03\x2a\xff\x7f",
    b"\x24\x03\x04\x01a",
    b"\x3b\x03\x1b\x01a",
]


@MESSAGES
def test_k193_such_a_type_in_the_place_of_any_element_is_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    for node in tree:
        if node.children is None:
            for bad in FOREIGN:
                refused(decode, encode(tree, node, lambda _tag, _contents, bad=bad: bad))


@pytest.mark.parametrize(
    "oid",
    [
        pytest.param(b"\x2a" + b"\x86\x48" * 25_000, id="K190-oid-of-many-arcs"),
        pytest.param(b"\x2a" + b"\xff" * 1_000_000 + b"\x01", id="K191-endless-oid-arc"),
        pytest.param(b"", id="K190-no-oid"),
    ],
)
def test_an_outlandish_mechanism_is_compared_and_not_decoded(oid: bytes) -> None:
    assert unframe(frame(TOK_AP_REQ, b"inner")) == (TOK_AP_REQ, b"inner")
    token = tlv(0x60, tlv(0x06, oid) + TOK_AP_REQ + b"inner")
    with within(0.1, 5), pytest.raises(UnsupportedError) as caught:
        unframe(token)
    assert len(str(caught.value)) < 300


# K195: names


@pytest.mark.parametrize(
    ("text", "good"),
    [
        pytest.param("j\u00fcrgen", True, id="K195-not-ascii"),
        pytest.param("new\nline", True, id="K195-newline"),
        pytest.param("x" * 8192, True, id="K195-long"),
        pytest.param("a\0b", False, id="K195-nul"),
        pytest.param("x" * 8193, False, id="K195-too-long"),
        pytest.param("x" * 1_000_000, False, id="K195-one-megabyte"),
    ],
)
def test_k195_names_are_bounded_and_hold_no_nul(text: str, good: bool) -> None:
    component = tlv(0x1B, text.encode())
    name = tlv(0x30, tlv(0xA0, b"\x02\x01\x01") + tlv(0xA1, tlv(0x30, component)))
    cipher = tlv(0x30, tlv(0xA0, b"\x02\x01\x12") + tlv(0xA2, b"\x04\x01x"))
    for realm, sname in ((component, name), (tlv(0x1B, b"R"), name)):
        fields = (
            tlv(0xA0, b"\x02\x01\x05") + tlv(0xA1, realm) + tlv(0xA2, sname) + tlv(0xA3, cipher)
        )
        ticket = tlv(0x61, tlv(0x30, fields))
        with within(0.2, 10):
            if good:
                decoded = ap.Ticket.decode(ticket)
                assert decoded.sname == PrincipalName((text,))
                assert "\n" not in str(decoded.sname), (
                    "a line break in a name would forge lines of a log"
                )
            else:
                refused(ap.Ticket.decode, ticket)


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80"], ids=lambda raw: f"K195-{raw.hex()}"
)
def test_k195_bytes_that_are_no_utf8_are_refused(raw: bytes) -> None:
    """Also the two-byte NUL of modified UTF-8."""
    (data,) = (data for name, _, data in GENUINE if name == "Ticket")
    tree = parse(data)
    for node in tree:
        if node.tag == 0x1B:
            refused(ap.Ticket.decode, encode(tree, node, lambda tag, _: tlv(tag, raw)))


def test_k195_a_principal_with_nul_cannot_be_made() -> None:
    assert Principal(("a",), "R")
    for components, realm in ((("a\0",), "R"), (("a",), "R\0evil")):
        with pytest.raises(KerberosError):
            Principal(components, realm)


# K196: fields


def fields_of(tree: Node) -> Iterator[Node]:
    """The SEQUENCEs of a tree whose elements are tagged fields."""
    for node in tree:
        if (
            node.children
            and all(child.tag & 0xE0 == 0xA0 for child in node.children)
            and node.tag == 0x30
        ):
            yield node


@MESSAGES
def test_k196_fields_that_are_repeated_misplaced_or_unknown_are_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    for sequence in fields_of(tree):
        genuine = list(sequence.children or ())
        last = genuine[-1].tag & 0x1F
        wrong = [[*genuine[:n], genuine[n], *genuine[n:]] for n in range(len(genuine))]
        wrong += [
            [*genuine[:n], genuine[n + 1], genuine[n], *genuine[n + 2 :]]
            for n in range(len(genuine) - 1)
        ]
        wrong += [
            [Node(0xBE, b"", [Node(0x02, b"\x01", None)]), *genuine],
            [*genuine, Node(0x02, b"\x01", None)],
        ]
        # The last of these numbers may be that of a field which is absent here; but no field is a BOOLEAN.
        wrong += [
            [*genuine, Node(0xA0 | number, b"", [Node(0x01, b"\xff", None)])]
            for number in (30, last + 1)
        ]
        for children in wrong:
            sequence.children = children
            refused(decode, encode(tree))
        sequence.children = genuine
    assert encode(tree) == data


@MESSAGES
def test_k196_a_missing_field_is_refused_unless_it_is_optional(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    required = 0
    for sequence in fields_of(tree):
        genuine = list(sequence.children or ())
        for n in range(len(genuine)):
            sequence.children = genuine[:n] + genuine[n + 1 :]
            changed = encode(tree)
            try:
                message = decode(changed)
            except DecodeError:
                required += 1
            else:
                assert message != decode(data), "leaving out a field made no difference"
        sequence.children = genuine
    assert required or not list(fields_of(tree))


# K197: counts


def entry(contents: bytes) -> bytes:
    return tlv(0x30, tlv(0xA0, b"\x02\x01\x01") + tlv(0xA1, contents))


COUNTS = [
    pytest.param("AuthorizationData", entry(b"\x04\x01x"), id="K197-authorization-data"),
    pytest.param("EtypeList", b"\x02\x01\x12", id="K197-etypes"),
    pytest.param(
        "MethodData",
        tlv(0x30, tlv(0xA1, b"\x02\x01\x13") + tlv(0xA2, b"\x04\x00")),
        id="K197-padata",
    ),
    pytest.param("EtypeInfo2", tlv(0x30, tlv(0xA0, b"\x02\x01\x12")), id="K197-etype-info2"),
]


@pytest.mark.parametrize(("message", "item"), COUNTS)
def test_k197_a_list_of_very_many_is_refused(message: str, item: bytes) -> None:
    decode = DECODERS[message]
    for few in (1, 16):
        decode(tlv(0x30, item * few))
    for many in (100_000, 10_000):
        data = tlv(0x30, item * many)
        with within(0.5, 10):
            refused(decode, data)


@MESSAGES
def test_k197_a_list_inside_a_message_of_very_many_is_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    """Addresses, authorization data, tickets, padata, name components, last-req: whatever is a SEQUENCE OF."""
    tree = parse(data)
    for node in tree:
        genuine = node.children
        if genuine and node.tag == 0x30 and not all(child.tag & 0xE0 == 0xA0 for child in genuine):
            item = encode(genuine[0])
            many = encode(tree, node, lambda tag, _, item=item: tlv(tag, item * 100_000))
            with within(1, 20):
                refused(decode, many)


# K198: flags


@pytest.mark.parametrize(
    ("bits", "contents"),
    [
        pytest.param(0, "00", id="K198-0-bits"),
        pytest.param(8, "0060", id="K198-8-bits"),
        pytest.param(31, "0160000000", id="K198-31-bits"),
        pytest.param(32, "0060000000", id="K198-32-bits"),
        pytest.param(33, "076000000080", id="K198-33-bits"),
        pytest.param(64, "0060000000ffffffff", id="K198-64-bits"),
        pytest.param(256, "0060000000" + "ff" * 28, id="K198-256-bits"),
    ],
)
def test_k198_flags_of_any_number_of_bits_have_the_same_meaning(bits: int, contents: str) -> None:
    for name, attribute in (("EncTicketPart", "flags"), ("ApReq", "ap_options")):
        decode, data = next((decode, data) for n, decode, data in GENUINE if n == name)
        tree = parse(data)
        (node,) = (n for n in tree if n.tag == 0x03)
        changed = encode(tree, node, lambda tag, _: tlv(tag, bytes.fromhex(contents)))
        assert getattr(decode(changed), attribute) == (0x60000000 if bits else 0)


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param("", id="K198-no-octet"),
        pytest.param("07", id="K198-unused-bits-of-nothing"),
        pytest.param("0860000000", id="K198-eight-unused-bits"),
        pytest.param("ff60000000", id="K198-255-unused-bits"),
        pytest.param("0160000001", id="K198-unused-bit-set"),
    ],
)
def test_k198_flags_that_are_no_bit_string_are_refused(contents: str) -> None:
    for _, decode, data in GENUINE:
        tree = parse(data)
        for node in tree:
            if node.tag == 0x03:
                refused(
                    decode, encode(tree, node, lambda tag, _: tlv(tag, bytes.fromhex(contents)))
                )


@MESSAGES
def test_k198_a_megabyte_of_flags_is_no_burden(decode: Callable[[bytes], Any], data: bytes) -> None:
    tree = parse(data)
    for node in tree:
        if node.tag == 0x03:
            many = encode(tree, node, lambda tag, contents: tlv(tag, contents + bytes(1_000_000)))
            with within(0.5, 20), suppress(DecodeError):
                decode(many)


# K199, K200: other types


@pytest.mark.parametrize("tag", range(256), ids=lambda tag: f"K199-{tag:02x}")
def test_k199_what_is_none_of_the_alternatives_of_a_reply_is_refused(tag: int) -> None:
    """The one choice there is: a KDC answers with AS-REP, TGS-REP or KRB-ERROR."""
    replies = {
        data[0]: data for name, _, data in GENUINE if name in ("AsRep", "TgsRep", "KrbError")
    }
    assert set(replies) == {0x6B, 0x6D, 0x7E}
    if tag in replies:
        assert kdc.decode_kdc_reply(replies[tag])
    for other, data in replies.items():
        if tag != other:
            refused(kdc.decode_kdc_reply, bytes([tag]) + data[1:])


@MESSAGES
def test_k200_another_application_tag_is_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    if tree.tag & 0xE0 != 0x60:
        return  # a type without such a tag
    # Some KDCs tag the encrypted part of an AS-REP as that of a TGS-REP; both are read.
    same = {25, 26} if tree.tag in (0x79, 0x7A) else {tree.tag & 0x1F}
    for number in range(31):
        changed = encode(tree, tree, retagged(number))
        if number in same:
            decode(changed)
        else:
            refused(decode, changed)


@MESSAGES
def test_k200_another_tag_on_any_element_is_refused(
    decode: Callable[[bytes], Any], data: bytes
) -> None:
    tree = parse(data)
    for node in list(tree)[1:]:
        for number in (*range(13), 16, 17, 24, 27, 30, 31):
            if number == node.tag & 0x1F:
                continue
            changed = encode(tree, node, retagged(number))
            if (
                node.tag & 0xC0 == 0x80
            ):  # a field's number: another field of the message may have it
                try:
                    message = decode(changed)
                except DecodeError:
                    continue
                assert message != decode(data)
            else:
                refused(decode, changed)


@EVERY_DECODER
def test_k200_a_message_is_not_taken_for_another(decode: Callable[[bytes], Any]) -> None:
    taken = {name for name, _, data in GENUINE if not fails(decode, data)}
    own = next(message for message, d in DECODERS.items() if d is decode or d == decode)
    kin = {
        "KdcReply": {"AsRep", "TgsRep", "KrbError"},
        # SEQUENCE { [0] Int32, [1] OCTET STRING } has many names; what it is follows from where it stands.
        "Checksum": set(),
    }.get(own, {own})
    assert {name.split()[0] for name in taken} <= kin | {
        "AuthorizationData",
        "MethodData",
        "EtypeInfo2",
    }


def fails(decode: Callable[[bytes], Any], data: bytes) -> bool:
    try:
        decode(data)
    except DecodeError:
        return True
    return False
