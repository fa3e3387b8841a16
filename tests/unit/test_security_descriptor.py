"""Security descriptors: what Samba makes of a grant, whatever else they hold, and what is none."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purekrb.directory.security_descriptor import (
    Ace,
    Acl,
    SecurityDescriptor,
    grant,
    property_ace,
    revoke,
)
from purekrb.errors import DecodeError, DirectoryError, KerberosError
from purekrb.sid import Sid
from support.vectors import load, params

DNS_NAME = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")
BINDING = UUID("b7b1311c-b82e-11d0-afee-0000f80367c1")
BOTH = (DNS_NAME, BINDING)
TRUSTEE = Sid.parse("S-1-5-21-1004336348-1177238915-682003330-1104")
OTHER = Sid.parse("S-1-5-21-1004336348-1177238915-682003330-1105")
FILE = "security_descriptors.json"
FULL: bytes = load(FILE)[0]["before"]


@pytest.mark.parametrize("vector", params(FILE, "{name}"))
def test_a_grant_makes_what_samba_makes_and_a_revocation_undoes_it(vector: dict[str, Any]) -> None:
    trustee = Sid.decode(vector["trustee"])
    assert grant(vector["before"], trustee, BOTH) == vector["after"]
    assert grant(vector["after"], trustee, BOTH) == vector["after"]
    assert revoke(vector["after"], trustee, BOTH) == vector["before"]
    assert revoke(vector["before"], trustee, BOTH) == vector["before"]


@pytest.mark.parametrize("vector", params(FILE, "{name}"))
def test_a_descriptor_of_samba_is_encoded_as_it_was(vector: dict[str, Any]) -> None:
    for data in (vector["before"], vector["after"]):
        assert SecurityDescriptor.decode(data).encode() == data


def test_a_grant_that_is_there_in_part_is_completed() -> None:
    half = grant(FULL, TRUSTEE, [BINDING])
    whole = grant(half, TRUSTEE, BOTH)
    assert len(whole) - len(half) == len(half) - len(FULL) == 56
    assert sorted(map(repr, aces(whole))) == sorted(map(repr, aces(grant(FULL, TRUSTEE, BOTH))))


def test_the_grants_of_two_accounts_do_not_touch_each_other() -> None:
    both = grant(grant(FULL, TRUSTEE, BOTH), OTHER, BOTH)
    assert revoke(both, TRUSTEE, BOTH) == grant(FULL, OTHER, BOTH)
    assert revoke(both, OTHER, BOTH) == grant(FULL, TRUSTEE, BOTH)


def aces(descriptor: bytes) -> tuple[Ace, ...]:
    dacl = SecurityDescriptor.decode(descriptor).dacl
    assert dacl
    return dacl.aces


def test_parts_in_the_order_of_windows_are_read_too() -> None:
    decoded = SecurityDescriptor.decode(FULL)
    parts = [
        part.encode() for part in (decoded.sacl, decoded.dacl, decoded.owner, decoded.group) if part
    ]
    assert len(parts) == 4
    sacl, dacl, owner, group = (20 + sum(map(len, parts[:n])) for n in range(4))
    header = struct.pack("<BBHIIII", 1, 0, decoded.control, owner, group, sacl, dacl)
    assert SecurityDescriptor.decode(header + b"".join(parts)) == decoded


def changed(data: bytes, at: int, *values: int) -> bytes:
    return data[:at] + bytes(values) + data[at + len(values) :]


#: FULL: header to 20, owner to 48, group to 76, SACL at 76, its ACE at 84, DACL at 104, its first ACE at 112.
DAMAGED = {
    "empty": b"",
    "shorter than its header": FULL[:19],
    "revision 2": changed(FULL, 0, 2),
    "absolute": changed(FULL, 3, FULL[3] & 0x7F),
    "owner inside the header": changed(FULL, 4, 19),
    "owner at the end": changed(FULL, 4, *struct.pack("<I", len(FULL))),
    "DACL far behind the end": changed(FULL, 16, 255, 255, 255, 255),
    "owner of revision 0": changed(FULL, 20, 0),
    "owner with 255 parts": changed(FULL, 21, 255),
    "group without parts": changed(FULL, 49, 0),
    "a DACL that control denies": changed(FULL, 2, FULL[2] & ~0x04),
    "a SACL that control denies": changed(FULL, 2, FULL[2] & ~0x10),
    "ACL of revision 3": changed(FULL, 104, 3),
    "ACL with other bytes as padding": changed(FULL, 105, 1),
    "ACL smaller than its header": changed(FULL, 106, 7, 0),
    "ACL larger than the rest": changed(FULL, 106, 255, 255),
    "more ACEs than there are": changed(FULL, 108, 255, 255),
    "ACE of no size": changed(FULL, 114, 0, 0),
    "ACE smaller than its header": changed(FULL, 114, 3, 0),
    "ACE larger than its ACL": changed(FULL, 114, 255, 255),
    "cut within the DACL": FULL[:-1],
    "cut within the DACL's header": FULL[:110],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_descriptor_is_refused(data: bytes) -> None:
    for change in (grant, revoke):
        with pytest.raises(DecodeError, match=r"descriptor|SID"):
            change(data, TRUSTEE, BOTH)
    assert aces(FULL)


@pytest.mark.parametrize("control", [0x8000, 0x8004])
def test_an_object_without_a_dacl_is_left_as_it_is(control: int) -> None:
    open_to_all = SecurityDescriptor(control, owner=OTHER).encode()
    assert SecurityDescriptor.decode(open_to_all).dacl is None
    for change in (grant, revoke):
        with pytest.raises(DirectoryError, match="administrator"):
            change(open_to_all, TRUSTEE, BOTH)
    assert aces(grant(SecurityDescriptor(0x8004, dacl=Acl(2, ())).encode(), TRUSTEE, BOTH))


def test_a_dacl_that_is_full_takes_no_more() -> None:
    crowd = Acl(4, (property_ace(DNS_NAME, OTHER),) * 1169)
    nearly = SecurityDescriptor(0x8004, dacl=crowd).encode()
    assert len(crowd.encode()) + 56 <= 0xFFFF
    assert grant(nearly, TRUSTEE, [DNS_NAME])
    with pytest.raises(DirectoryError, match="65535"):
        grant(nearly, TRUSTEE, BOTH)


SIDS = st.builds(
    Sid,
    st.integers(0, 2**48 - 1),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=15).map(tuple),
)
ACES = st.builds(Ace, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80))
ACLS = st.builds(Acl, st.sampled_from([2, 4]), st.lists(ACES, max_size=6).map(tuple))


@given(
    st.integers(0, 0xFFFF),
    st.none() | SIDS,
    st.none() | SIDS,
    st.none() | ACLS,
    ACLS,
    st.integers(0, 255),
    SIDS,
)
def test_a_grant_changes_nothing_but_the_place_where_it_stands(
    control: int, owner: Sid, group: Sid, sacl: Acl, dacl: Acl, reserved: int, trustee: Sid
) -> None:
    descriptor = SecurityDescriptor(control | 0x8014, owner, group, sacl, dacl, reserved)
    data = descriptor.encode()
    assert SecurityDescriptor.decode(data) == descriptor
    granted = SecurityDescriptor.decode(grant(data, trustee, BOTH))
    assert granted.dacl
    place = next((at for at, ace in enumerate(dacl.aces) if ace.flags & 0x10), len(dacl.aces))
    added = tuple(property_ace(attribute, trustee) for attribute in BOTH)
    assert granted.dacl.aces == dacl.aces[:place] + added + dacl.aces[place:]
    assert (granted.control, granted.owner, granted.group) == (descriptor.control, owner, group)
    assert (granted.sacl, granted.reserved) == (sacl, reserved)


@given(st.data())
def test_any_bytes_are_a_descriptor_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(FULL)
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for candidate in (bytes(damaged), cut, data.draw(st.binary(max_size=200))):
        try:
            decoded = SecurityDescriptor.decode(candidate)
        except KerberosError:
            continue
        assert SecurityDescriptor.decode(decoded.encode()) == decoded
