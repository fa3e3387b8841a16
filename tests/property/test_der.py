"""Every message against impacket's spec, both ways, on instances that hypothesis makes up."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from purekrb.errors import DecodeError
from purekrb.keys import KEY_SIZES, EncryptionKey
from purekrb.messages import (
    ap,
    certificate_names,
    cms,
    fast,
    iakerb,
    kdc,
    kkdcp,
    kpasswd,
    otp,
    pkinit,
    s4u,
    spake,
    spnego,
    user2user,
)
from purekrb.messages.der import Message, tlv
from purekrb.names import PrincipalName
from support.der_tree import Node, parse
from support.der_tree import encode as encode_tree
from support.impacket_twin import SPECS, encode, reencode
from support.plain_schema import plain
from support.values import field_names, replace
from support.vectors import load

#: pyasn1 0.6 writes these four with a needless leading octet: no DER, and no comparison.
WRONG_IN_PYASN1 = {-(1 << 7), -(1 << 15), -(1 << 23), -(1 << 31)}
INT32 = st.integers(-(1 << 31), (1 << 31) - 1).filter(lambda value: value not in WRONG_IN_PYASN1)
UINT32 = st.integers(0, (1 << 32) - 1)
MICROSECONDS = st.integers(0, 999_999)
OCTETS = st.binary(max_size=300)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
TIMES = st.datetimes(timezones=st.just(timezone.utc)).map(lambda t: t.replace(microsecond=0))
KEYS = st.one_of(
    st.sampled_from(sorted(KEY_SIZES)).flatmap(
        lambda etype: st.binary(min_size=KEY_SIZES[etype], max_size=KEY_SIZES[etype]).map(
            lambda contents: EncryptionKey(etype, contents)
        )
    ),
    st.builds(EncryptionKey, INT32.filter(lambda etype: etype not in KEY_SIZES), OCTETS),
)


def tuples(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=4).map(tuple)


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Not empty, because pyasn1 leaves an empty optional SEQUENCE OF out."""
    return st.lists(strategy, min_size=1, max_size=4).map(tuple)


NAMES = st.builds(PrincipalName, tuples(TEXT), INT32)
ENTRY = st.builds(ap.AuthorizationDataEntry, INT32, OCTETS)
ENCRYPTED = st.builds(ap.EncryptedData, INT32, st.none() | UINT32, OCTETS)
ADDRESS = st.builds(ap.HostAddress, INT32, OCTETS)
CHECKSUM = st.builds(ap.Checksum, INT32, OCTETS)
TRANSITED = st.builds(ap.TransitedEncoding, INT32, OCTETS)
TICKETS = st.builds(ap.Ticket, st.just(5), TEXT, NAMES, ENCRYPTED)
TICKET_BYTES = TICKETS.map(lambda ticket: ticket.encode())
CRED_INFO = st.builds(
    ap.KrbCredInfo,
    KEYS,
    *(
        st.none() | s
        for s in (TEXT, NAMES, UINT32, TIMES, TIMES, TIMES, TIMES, TEXT, NAMES, some(ADDRESS))
    ),
)
PADATA = st.builds(kdc.PaData, INT32, OCTETS)
ETYPE_INFO = st.builds(
    kdc.EtypeInfo2Entry, INT32, st.none() | TEXT.map(str.encode), st.none() | OCTETS
)
BODY = st.builds(
    kdc.KdcReqBody,
    UINT32,
    st.none() | NAMES,
    TEXT,
    st.none() | NAMES,
    st.none() | TIMES,
    TIMES,
    st.none() | TIMES,
    UINT32,
    tuples(INT32),
    st.none() | some(ADDRESS),
    st.none() | ENCRYPTED,
    st.none() | some(TICKET_BYTES),
)
REQUEST = (st.none() | some(PADATA), BODY)
REPLY = (st.none() | some(PADATA), TEXT, NAMES, TICKET_BYTES, ENCRYPTED)
FIVE = st.just(5)  # impacket's spec refuses other versions and message types by itself
MESSAGES: dict[type, st.SearchStrategy[Any]] = {
    ap.EncryptedData: ENCRYPTED,
    ap.Checksum: CHECKSUM,
    ap.HostAddress: ADDRESS,
    ap.AuthorizationData: st.builds(ap.AuthorizationData, tuples(ENTRY)),
    ap.Ticket: TICKETS,
    ap.TransitedEncoding: TRANSITED,
    ap.EncTicketPart: st.builds(
        ap.EncTicketPart,
        UINT32,
        KEYS,
        TEXT,
        NAMES,
        TRANSITED,
        TIMES,
        st.none() | TIMES,
        TIMES,
        st.none() | TIMES,
        st.none() | some(ADDRESS),
        st.none() | some(ENTRY),
    ),
    ap.ApReq: st.builds(ap.ApReq, FIVE, st.just(14), UINT32, TICKET_BYTES, ENCRYPTED),
    ap.Authenticator: st.builds(
        ap.Authenticator,
        FIVE,
        TEXT,
        NAMES,
        st.none() | CHECKSUM,
        MICROSECONDS,
        TIMES,
        st.none() | KEYS,
        st.none() | UINT32,
        st.none() | some(ENTRY),
    ),
    ap.ApRep: st.builds(ap.ApRep, FIVE, st.just(15), ENCRYPTED),
    ap.EncApRepPart: st.builds(
        ap.EncApRepPart, TIMES, MICROSECONDS, st.none() | KEYS, st.none() | UINT32
    ),
    ap.KrbCred: st.builds(ap.KrbCred, FIVE, st.just(22), some(TICKET_BYTES), ENCRYPTED),
    ap.KrbCredInfo: CRED_INFO,
    ap.EncKrbCredPart: st.builds(
        ap.EncKrbCredPart,
        tuples(CRED_INFO),
        *(st.none() | s for s in (UINT32, TIMES, MICROSECONDS, ADDRESS, ADDRESS)),
    ),
    ap.KrbError: st.builds(
        ap.KrbError,
        FIVE,
        st.just(30),
        st.none() | TIMES,
        st.none() | MICROSECONDS,
        TIMES,
        MICROSECONDS,
        INT32,
        st.none() | TEXT,
        st.none() | NAMES,
        TEXT,
        NAMES,
        st.none() | TEXT,
        st.none() | OCTETS,
    ),
    kdc.PaData: PADATA,
    kdc.MethodData: st.builds(kdc.MethodData, tuples(PADATA)),
    kdc.EtypeInfo2Entry: ETYPE_INFO,
    kdc.EtypeInfo2: st.builds(kdc.EtypeInfo2, tuples(ETYPE_INFO)),
    kdc.PaEncTsEnc: st.builds(kdc.PaEncTsEnc, TIMES, st.none() | MICROSECONDS),
    kdc.PaPacRequest: st.builds(kdc.PaPacRequest, st.booleans()),
    kdc.KdcReqBody: BODY,
    kdc.AsReq: st.builds(kdc.AsReq, *REQUEST),
    kdc.TgsReq: st.builds(kdc.TgsReq, *REQUEST),
    kdc.AsRep: st.builds(kdc.AsRep, *REPLY),
    kdc.TgsRep: st.builds(kdc.TgsRep, *REPLY),
    kdc.EncKdcRepPart: st.builds(
        kdc.EncKdcRepPart,
        KEYS,
        tuples(st.builds(kdc.LastReqEntry, INT32, TIMES)),
        UINT32,
        st.none() | TIMES,
        UINT32,
        TIMES,
        st.none() | TIMES,
        TIMES,
        st.none() | TIMES,
        TEXT,
        NAMES,
        st.none() | some(ADDRESS),
        st.none() | some(PADATA),
    ),
}
MECHANISMS = st.lists(
    st.binary(min_size=1, max_size=12).filter(lambda oid: oid[-1] < 0x80), max_size=4
).map(tuple)
HINTS = st.builds(spnego.NegHints, st.none() | TEXT, st.none() | OCTETS)
NEGOTIATION = (MECHANISMS, st.none() | UINT32, st.none() | OCTETS)
FINISHED = st.builds(fast.FastFinished, TIMES, MICROSECONDS, TEXT, NAMES, CHECKSUM)
FACTOR = st.builds(spake.SpakeSecondFactor, INT32, st.none() | OCTETS)
ARMOR = st.builds(fast.FastArmor, INT32, OCTETS)
ELEMENT = OCTETS.map(lambda data: tlv(0x30, tlv(0x04, data)))
OPTIONAL_TEXT, OPTIONAL_OCTETS = st.none() | TEXT, st.none() | OCTETS
TOKEN = st.builds(
    otp.OtpTokenInfo,
    UINT32,
    OPTIONAL_TEXT,
    OPTIONAL_OCTETS,
    st.none() | INT32,
    st.none() | INT32,
    OPTIONAL_OCTETS,
    OPTIONAL_TEXT,
    st.none() | tuples(ELEMENT),
    st.none() | INT32,
)
OIDS = st.binary(min_size=1, max_size=12).filter(lambda oid: oid[-1] < 0x80)
ALGORITHM = st.builds(
    cms.AlgorithmIdentifier, OIDS, st.just(b"") | OCTETS.map(lambda data: tlv(0x04, data))
)
PUBLIC_KEY = st.builds(cms.SubjectPublicKeyInfo, ALGORITHM, OCTETS)
SET = OCTETS.map(lambda data: tlv(0x31, tlv(0x04, data)))
ATTRIBUTE = st.builds(cms.Attribute, OIDS, SET)
CONTENT = st.builds(cms.EncapsulatedContent, OIDS, st.none() | OCTETS)
SIGNER = st.builds(
    cms.SignerInfo,
    st.integers(0, 5),
    ELEMENT,
    st.none() | OCTETS,
    st.none() | OCTETS,
    ALGORITHM,
    st.none() | SET,
    ALGORITHM,
    OCTETS,
    st.none() | SET,
)
SIGNED = st.builds(
    cms.SignedData,
    st.integers(0, 5),
    tuples(ALGORITHM),
    CONTENT,
    st.none() | tuples(ELEMENT),
    st.none() | SET,
    tuples(SIGNER),
)
CHECKSUM2 = st.builds(pkinit.PaChecksum2, OCTETS, ALGORITHM)
PK_AUTHENTICATOR = st.builds(
    pkinit.PkAuthenticator,
    MICROSECONDS,
    TIMES,
    UINT32,
    st.none() | OCTETS,
    st.none() | OCTETS,
    st.none() | CHECKSUM2,
)
CERTIFIER = st.builds(pkinit.ExternalPrincipalIdentifier, *[st.none() | OCTETS] * 3)
TYPED = st.builds(pkinit.TypedDataEntry, INT32, st.none() | OCTETS)
#: Messages that impacket has no spec for.
OTHERS: dict[type, st.SearchStrategy[Any]] = {
    certificate_names.Krb5PrincipalName: st.builds(
        certificate_names.Krb5PrincipalName, TEXT, NAMES
    ),
    cms.AlgorithmIdentifier: ALGORITHM,
    cms.Algorithms: st.builds(cms.Algorithms, tuples(ALGORITHM)),
    cms.SubjectPublicKeyInfo: PUBLIC_KEY,
    cms.Attribute: ATTRIBUTE,
    cms.SignedAttributes: st.builds(cms.SignedAttributes, tuples(ATTRIBUTE)),
    cms.EncapsulatedContent: CONTENT,
    cms.SignerInfo: SIGNER,
    cms.SignedData: SIGNED,
    cms.ContentInfo: st.builds(cms.ContentInfo, SIGNED),
    pkinit.PaChecksum2: CHECKSUM2,
    pkinit.PkAuthenticator: PK_AUTHENTICATOR,
    pkinit.AuthPack: st.builds(
        pkinit.AuthPack,
        PK_AUTHENTICATOR,
        st.none() | PUBLIC_KEY,
        st.none() | tuples(ALGORITHM),
        st.none() | OCTETS,
        st.none() | tuples(OIDS),
    ),
    pkinit.ExternalPrincipalIdentifier: CERTIFIER,
    pkinit.PaPkAsReq: st.builds(
        pkinit.PaPkAsReq, OCTETS, st.none() | tuples(CERTIFIER), st.none() | OCTETS
    ),
    pkinit.DhRepInfo: st.builds(pkinit.DhRepInfo, OCTETS, st.none() | OCTETS, st.none() | OIDS),
    pkinit.KdcDhKeyInfo: st.builds(pkinit.KdcDhKeyInfo, OCTETS, UINT32, st.none() | TIMES),
    pkinit.SuppPubInfo: st.builds(pkinit.SuppPubInfo, INT32, OCTETS, OCTETS),
    pkinit.OtherInfo: st.builds(pkinit.OtherInfo, ALGORITHM, OCTETS, OCTETS, st.none() | OCTETS),
    pkinit.TypedDataEntry: TYPED,
    pkinit.TypedData: st.builds(pkinit.TypedData, tuples(TYPED)),
    ap.AuthorizationDataEntry: ENTRY,
    ap.EtypeList: st.builds(ap.EtypeList, tuples(INT32)),
    kdc.LastReqEntry: st.builds(kdc.LastReqEntry, INT32, TIMES),
    kkdcp.KdcProxyMessage: st.builds(
        kkdcp.KdcProxyMessage, OCTETS, st.none() | TEXT, st.none() | INT32
    ),
    kpasswd.KrbPriv: st.builds(kpasswd.KrbPriv, INT32, INT32, ENCRYPTED),
    kpasswd.EncKrbPrivPart: st.builds(
        kpasswd.EncKrbPrivPart,
        OCTETS,
        st.none() | TIMES,
        st.none() | MICROSECONDS,
        st.none() | UINT32,
        ADDRESS,
        st.none() | ADDRESS,
    ),
    kpasswd.ChangePasswdData: st.builds(
        kpasswd.ChangePasswdData, OCTETS, st.none() | NAMES, st.none() | TEXT
    ),
    fast.FastArmor: ARMOR,
    fast.FastReq: st.builds(
        fast.FastReq, UINT32, tuples(PADATA), BODY.map(lambda body: body.encode())
    ),
    fast.FxFastRequest: st.builds(fast.FxFastRequest, st.none() | ARMOR, CHECKSUM, ENCRYPTED),
    fast.FxFastReply: st.builds(fast.FxFastReply, ENCRYPTED),
    fast.FastFinished: FINISHED,
    fast.FastResponse: st.builds(
        fast.FastResponse, tuples(PADATA), st.none() | KEYS, st.none() | FINISHED, UINT32
    ),
    iakerb.IakerbHeader: st.builds(iakerb.IakerbHeader, TEXT, OPTIONAL_OCTETS),
    iakerb.OctetIakerbHeader: st.builds(iakerb.OctetIakerbHeader, TEXT, OPTIONAL_OCTETS),
    iakerb.IakerbFinished: st.builds(iakerb.IakerbFinished, CHECKSUM),
    otp.OtpTokenInfo: TOKEN,
    otp.OtpChallenge: st.builds(
        otp.OtpChallenge, OCTETS, OPTIONAL_TEXT, tuples(TOKEN), OPTIONAL_TEXT, OPTIONAL_OCTETS
    ),
    otp.OtpEncRequest: st.builds(otp.OtpEncRequest, OCTETS),
    otp.OtpRequest: st.builds(
        otp.OtpRequest,
        UINT32,
        OPTIONAL_OCTETS,
        ENCRYPTED,
        st.none() | ELEMENT,
        st.none() | INT32,
        OPTIONAL_OCTETS,
        OPTIONAL_TEXT,
        OPTIONAL_OCTETS,
        st.none() | TIMES,
        OPTIONAL_OCTETS,
        st.none() | INT32,
        OPTIONAL_OCTETS,
        OPTIONAL_TEXT,
        OPTIONAL_TEXT,
    ),
    s4u.PaForUser: st.builds(s4u.PaForUser, NAMES, TEXT, CHECKSUM, TEXT),
    s4u.S4uUserId: st.builds(
        s4u.S4uUserId, UINT32, st.none() | NAMES, TEXT, st.none() | OCTETS, st.none() | UINT32
    ),
    s4u.PaS4uX509User: st.builds(s4u.PaS4uX509User, st.just(b"\x30\x00"), CHECKSUM),
    s4u.PaPacOptions: st.builds(s4u.PaPacOptions, UINT32),
    user2user.TgtRequest: st.builds(user2user.TgtRequest, st.none() | NAMES, st.none() | TEXT),
    user2user.TgtReply: st.builds(user2user.TgtReply, TICKET_BYTES),
    spake.SpakeSupport: st.builds(spake.SpakeSupport, tuples(INT32)),
    spake.SpakeSecondFactor: FACTOR,
    spake.SpakeChallenge: st.builds(spake.SpakeChallenge, INT32, OCTETS, tuples(FACTOR)),
    spake.SpakeResponse: st.builds(spake.SpakeResponse, OCTETS, ENCRYPTED),
    spnego.NegTokenInit: st.builds(spnego.NegTokenInit, *NEGOTIATION, st.none() | OCTETS),
    spnego.NegHints: HINTS,
    spnego.NegTokenInit2: st.builds(
        spnego.NegTokenInit2, *NEGOTIATION, st.none() | HINTS, st.none() | OCTETS
    ),
    spnego.NegTokenResp: st.builds(
        spnego.NegTokenResp,
        st.none() | st.integers(0, 3),
        st.none() | st.just(b"\x2a\x03"),
        st.none() | OCTETS,
        st.none() | OCTETS,
    ),
}
EVERY_KIND = {**MESSAGES, **OTHERS}
KINDS = [pytest.param(kind, id=kind.__name__) for kind in MESSAGES]


def test_every_message_that_impacket_knows_is_compared() -> None:
    assert set(MESSAGES) == set(SPECS)


@pytest.mark.parametrize("kind", KINDS)
def test_our_bytes_are_those_of_impackets_spec_and_each_reads_the_others(kind: Any) -> None:
    @settings(max_examples=60, deadline=None)
    @given(MESSAGES[kind])
    def run(message: Any) -> None:
        data = message.encode()
        assert data == encode(message)
        assert reencode(kind, data) == data
        assert kind.decode(data) == message

    run()


@pytest.mark.parametrize("kind", KINDS)
def test_name_types_survive_although_they_do_not_count(kind: Any) -> None:
    names = [name for name in field_names(kind) if name in ("sname", "cname", "pname")]

    @settings(max_examples=20, deadline=None)
    @given(MESSAGES[kind])
    def run(message: Any) -> None:
        again = kind.decode(message.encode())
        for name in names:
            if getattr(message, name) is not None:
                assert getattr(again, name).name_type == getattr(message, name).name_type

    run()


@pytest.mark.parametrize("kind", KINDS)
def test_altered_bytes_are_refused_or_mean_something_else(kind: Any) -> None:
    """No two encodings of one message: what is still accepted is written back exactly as it came."""
    flags = not {"flags", "ap_options", "ticket_info"}.isdisjoint(field_names(kind))

    @settings(max_examples=60, deadline=None)
    @given(MESSAGES[kind], st.data())
    def run(message: Any, data: st.DataObject) -> None:
        good = message.encode()
        bad = bytearray(good)
        at = data.draw(st.integers(0, len(good) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "delete", "double"]))
        if how == "flip":
            bad[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del bad[at:]
        elif how == "insert":
            bad.insert(at, data.draw(st.integers(0, 255)))
        elif how == "delete":
            del bad[at]
        else:
            bad[at:at] = bad[at : at + data.draw(st.integers(1, 20))]
        try:
            accepted = kind.decode(bytes(bad))
        except DecodeError:
            return
        again = accepted.encode()
        assert kind.decode(again) == accepted
        if not (
            flags or len(again) != len(bad)
        ):  # flags of any size and negative UInt32s are read, never written
            assert again == bytes(bad)

    run()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_raises_no_error_but_a_decode_error(data: bytes) -> None:
    for kind in MESSAGES:
        for candidate in (data, bytes([kind.schema.tag]) + data):  # type: ignore[attr-defined]
            with contextlib.suppress(DecodeError):
                kind.decode(candidate)  # type: ignore[attr-defined]


def test_an_empty_list_is_not_an_absent_one() -> None:
    part = ap.EncTicketPart.decode(
        next(v["der"] for v in load("asn1.json") if v["message"] == "EncTicketPart")
    )
    for empty in ((), None):
        changed = replace(part, caddr=empty, authorization_data=empty)
        assert ap.EncTicketPart.decode(changed.encode()) == changed


@settings(max_examples=200, deadline=None)
@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_microseconds_are_cut_off_as_kerberos_times_have_none(time: datetime) -> None:
    part = ap.EncApRepPart(time, time.microsecond, None, None)
    again = ap.EncApRepPart.decode(part.encode())
    assert again.ctime.replace(microsecond=again.cusec) == time


# Cold and warm: what is accepted does not depend on what was read before


def messages_of(base: type = Message) -> Iterator[Any]:
    """Yield every class with a schema that the package has."""
    for kind in base.__subclasses__():
        if hasattr(kind, "schema") and kind is getattr(
            sys.modules[kind.__module__], kind.__name__, None
        ):
            yield kind
        yield from messages_of(kind)


def test_k417_every_schema_is_compared_cold_and_warm() -> None:
    found = {kind for kind in messages_of() if kind.__module__.startswith("purekrb.")}
    assert found == set(EVERY_KIND)


def outcome(decode: Any, data: bytes) -> Any:
    """What decoding comes to: the value with its types, which equality does not show, or the error."""
    try:
        value = decode(data)
    except DecodeError as error:
        return type(error), str(error)
    return value, repr(value)


def warm_up(data: bytes) -> None:
    """Read the message and each element in it as every message that there is, twice."""
    for node in parse(data):
        element = encode_tree(node)
        for kind in EVERY_KIND:
            for _ in range(2):
                with contextlib.suppress(DecodeError):
                    kind.decode(element)  # type: ignore[attr-defined]


def with_spoilt_headers(data: bytes) -> Iterator[bytes]:
    """Yield the message with each of its headers flipped, doubled, inserted elsewhere, and the data cut there.

    Lengths around the change stay as they were, and are put right.
    """
    tree = parse(data)
    for node in tree:
        for changed in (
            lambda tag, contents: tlv(tag, tlv(tag, contents)),
            lambda tag, contents: tlv(0x30, tlv(tag, contents)),
            lambda tag, contents: tlv(tag, contents) * 2,
            lambda tag, contents: contents,
            lambda tag, contents: tlv(tag, contents[:-1]),
            lambda tag, contents: tlv(tag, contents + b"\0"),
            lambda tag, contents: tlv(tag ^ 0x01, contents),
            lambda tag, contents: bytes((tag, 0x81)) + tlv(tag, contents)[1:],
        ):
            yield encode_tree(tree, node, changed)
    for start, end in headers(tree):
        for at in range(start, end):
            for bit in range(8):
                yield data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]
        yield data[:start] + data[start:end] * 2 + data[end:]
        yield data[:start] + b"\x30" + data[start:]
        yield data[:start] + data[end:]
        yield from (data[:start], data[:end])


def headers(node: Node, at: int = 0) -> Iterator[tuple[int, int]]:
    """Yield where each header of the tree begins and ends."""
    contents = (
        b"".join(map(encode_tree, node.children)) if node.children is not None else node.contents
    )
    end = at + len(tlv(node.tag, contents)) - len(contents)
    yield at, end
    for child in node.children or ():
        yield from headers(child, end)
        end += len(encode_tree(child))


def check_cold_and_warm(kind: Any, data: bytes) -> None:
    cold = plain(kind)
    genuine = cold(data)
    warm_up(data)
    assert outcome(kind.decode, data) == outcome(cold, data) == (genuine, repr(genuine))
    refused = 0
    for spoilt in with_spoilt_headers(data):
        found = outcome(cold, spoilt)
        assert outcome(kind.decode, spoilt) == found
        refused += isinstance(found[0], type)
    assert refused


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in EVERY_KIND])
def test_k417_the_same_is_accepted_cold_and_warm(kind: Any) -> None:
    for reference in load("asn1.json"):
        if reference["message"] == kind.__name__:
            check_cold_and_warm(kind, reference["der"])

    @settings(max_examples=2, deadline=None, phases=[Phase.generate], derandomize=True)
    @given(EVERY_KIND[kind])
    def run(message: Any) -> None:
        check_cold_and_warm(kind, message.encode())

    run()
