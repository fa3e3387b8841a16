"""What a directory answers, made up by hypothesis and damaged: calls end, and with errors of ours alone (K429)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purekrb import DecodeError, KerberosError, Keytab
from purekrb.directory import accounts, scps, spns
from purekrb.directory.account_state import read_state
from purekrb.directory.answers import Entry, count_elements, header_of, read_entry, spelled
from purekrb.directory.ldap import LdapSession, Scope
from purekrb.directory.security_descriptor import Acl, SecurityDescriptor
from purekrb.directory.service_checks import Checks
from purekrb.directory.transaction import Undo
from purekrb.messages.der import tlv
from purekrb.sid import Sid
from support.ldap_stub import (
    ANSWERS,
    ROOT_DSE,
    SEARCH,
    SEARCH_DONE,
    PlainStub,
    Question,
    entry,
    message,
    octets,
    reference,
    result,
    session_without_bind,
)

BASE = "DC=example,DC=test"
DN = f"CN=one,{BASE}"
SID = Sid.parse("S-1-5-21-1-2-3-1104")
GUID = UUID("12345678-1234-5678-1234-567812345678")
#: What a good directory says: of itself, of an account that is also an SCP.
ROOT = {
    **ROOT_DSE,
    "configurationNamingContext": [f"CN=Configuration,{BASE}".encode()],
    "tokenGroups": [SID.encode()],
}
OBJECT: dict[str, list[bytes]] = {
    "cn": [b"one"],
    "sAMAccountName": [b"WEB$"],
    "servicePrincipalName": [b"HTTP/web.example.test", b"HTTP/web"],
    "objectGUID": [GUID.bytes_le],
    "objectSid": [SID.encode()],
    "serviceClassName": [b"orders"],
    "serviceDNSName": [b"web.example.test"],
    "serviceDNSNameType": [b"A"],
    "serviceBindingInformation": [b"2000"],
    "keywords": [b"Orders"],
    "dNSHostName": [b"web.example.test"],
    "sPNMappings": [b"host=http,cifs"],
    "msDS-KeyVersionNumber": [b"3"],
    "msDS-SupportedEncryptionTypes": [b"28"],
    "member": [b"CN=two"],
    "nTSecurityDescriptor": [SecurityDescriptor(0x8004, SID, SID, dacl=Acl(2, ())).encode()],
}
NAMES = [*OBJECT, *ROOT]

CALLS: list[Callable[[LdapSession], object]] = [
    lambda session: session.root_dse,
    lambda session: session.domain,
    lambda session: session.search(DN, "(objectClass=*)", ["member", "cn"], scope=Scope.BASE),
    lambda session: accounts.find_account(session, "alice@example.test"),
    lambda session: accounts.find_account(session, "EXAMPLE\\alice"),
    lambda session: accounts.find_account(session, DN),
    lambda session: accounts.account_by_guid(session, GUID),
    accounts.find_caller,
    lambda session: accounts.find_computer(session, "web.example.test"),
    lambda session: spns.find(session, "HTTP/web"),
    spns.duplicates,
    lambda session: spns.change(session, session, DN, add=["HTTP/other"], delete=["HTTP/web"]),
    lambda session: spns.reset_host(session, session, "web.example.test"),
    lambda session: scps.find(session, session, ["Orders"], lambda dn: session),
    lambda session: scps.read(session, GUID, DN).spns(),
    lambda session: scps.allow_updates(session, DN, SID, Undo()),
    lambda session: list(
        Checks(Keytab([])).findings(
            read_state(session, accounts.account_by_guid(session, GUID)), ()
        )
    ),  # type: ignore[arg-type]
]

DIGITS = st.sampled_from(["", "0", "1", "*", "9" * 5000, "-1", "\u0663", "x"])
ATTRIBUTE_NAMES = st.sampled_from(NAMES) | st.builds(
    "{}{}{}-{}".format,
    st.sampled_from(NAMES),
    st.sampled_from([";range=", ";Range=", ";binary"]),
    DIGITS,
    DIGITS,
)
VALUES = st.sampled_from(
    [*(value for values in OBJECT.values() for value in values), b"9" * 5000, b"\xff", b""]
) | st.binary(max_size=60)
CHANGES = st.dictionaries(ATTRIBUTE_NAMES, st.none() | st.lists(VALUES, max_size=3), max_size=4)
DNS = st.sampled_from(
    [DN, "", BASE, "CN=x", "DC=" + "x" * 300, "CN=\u202ex,DC=a", "no dn"]
) | st.text(max_size=20)


def changed(
    attributes: Mapping[str, list[bytes]], changes: Mapping[str, list[bytes] | None]
) -> dict[str, list[bytes]]:
    merged = {**attributes, **changes}
    return {name: values for name, values in merged.items() if values is not None}


def encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


#: The entries of an answer: that of the root DSE or of the object, changed.
ENTRIES = st.lists(st.tuples(DNS.map(encodable), CHANGES), max_size=3)
#: Where octets of an answer are replaced, and by which.
DAMAGE = st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=4)), max_size=3)


@pytest.fixture(scope="module")
def stub() -> Iterator[PlainStub]:
    with PlainStub(lambda question: b"", once=True) as running:
        yield running


def answer_to(question: Question, entries: Any, code: int) -> bytes:
    if question.operation != SEARCH:
        return message(question.number, result(ANSWERS["modifyRequest"], code))
    good = OBJECT if question.base else ROOT
    found = [entry(dn, changed(good, changes)) for dn, changes in entries]
    parts = [*found, reference("ldap://x"), result(SEARCH_DONE, code)]
    return b"".join(message(question.number, part) for part in parts)


def damaged(data: bytes, damage: list[tuple[int, bytes]]) -> bytes:
    for where, octets_ in damage:
        at = where % (len(data) + 1)
        data = data[:at] + octets_ + data[at + max(1, len(octets_)) :]
    return data


@settings(
    max_examples=6000 if os.environ.get("PUREKRB_SOAK") == "1" else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(CALLS), ENTRIES, st.sampled_from([0, 0, 0, 32, 10, 80]), DAMAGE)
def test_k429_whatever_a_directory_answers_a_call_returns_or_raises_an_error_of_ours(
    stub: PlainStub, call: Callable[[LdapSession], object], entries: Any, code: int, damage: Any
) -> None:
    stub.answer = lambda question: damaged(answer_to(question, entries, code), damage)
    session = session_without_bind(stub, timeout=2)
    try:
        call(session)
    except KerberosError as error:
        assert str(error).isprintable()  # noqa: PT017
    finally:
        session.close()


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_k429_control_the_answers_of_a_good_directory_are_taken(
    stub: PlainStub, number: int
) -> None:
    stub.answer = lambda question: answer_to(question, [("" if not question.base else DN, {})], 0)
    session = session_without_bind(stub, timeout=2)
    CALLS[number](session)
    session.close()


@settings(max_examples=20_000 if os.environ.get("PUREKRB_SOAK") == "1" else 200, deadline=None)
@given(DNS.map(encodable), CHANGES, DAMAGE)
def test_k429_a_damaged_entry_is_read_or_refused(dn: str, changes: Any, damage: Any) -> None:
    attributes = changed(OBJECT, changes)
    whole = message(7, entry(dn, attributes))
    wanted = {name.casefold(): name for name in OBJECT}
    header = header_of(whole)
    assert count_elements(whole, header, 10_000, int) < 10_000
    assert read_entry(whole, header, wanted, int) == Entry(dn, spelled(attributes.items(), wanted))
    cut = damaged(whole, damage)
    try:
        header = header_of(cut)
        count_elements(cut, header, 10_000, int)
        read_entry(cut, header, wanted, int)
    except DecodeError:
        pass


@settings(max_examples=20_000 if os.environ.get("PUREKRB_SOAK") == "1" else 200, deadline=None)
@given(
    st.recursive(
        st.builds(
            tlv, st.sampled_from([2, 4, 10, 1, 0x87, 0x80, 0x41, 0x1F, 0x83]), st.binary(max_size=9)
        ),
        lambda inner: st.builds(
            lambda tag, parts: tlv(tag, b"".join(parts)),
            st.sampled_from([0x30, 0x31, 0xA0, 0xA3, 0x64, 0x65, 0x61, 0x10]),
            st.lists(inner, max_size=4),
        ),
    ),
    st.integers(0x60, 0x7E),
)
def test_k429_what_is_admitted_ldap3_reads_without_more_elements_than_were_counted(
    inner: bytes, tag: int
) -> None:
    from ldap3.utils.asn1 import decode_message_fast

    whole = message(7, tlv(tag, inner), octets("1.2") if tag % 2 else b"")
    try:
        count = count_elements(whole, header_of(whole), 1000, int)
    except DecodeError:
        return
    try:
        decoded = decode_message_fast(whole)
    except (KeyError, IndexError, TypeError):
        return  # refused by ldap3, and told as DecodeError
    assert 3 + elements(decoded["payload"]) + elements(decoded["controls"] or []) <= count


def elements(decoded: Any) -> int:
    """Return how many elements `decoded` consists of: ldap3 makes a tuple of four of each."""
    if not isinstance(decoded, list):
        return 0
    return sum(1 + elements(value) for _, _, _, value in decoded)
