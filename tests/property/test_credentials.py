"""Any keytab and any ccache survives encoding; any cut or noise is refused or told by a typed error."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from purekrb.credentials.ccache import CCache
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import DecodeError
from purekrb.keys import KEY_SIZES, EncryptionKey
from purekrb.messages.ap import AuthorizationDataEntry, HostAddress
from purekrb.names import Principal
from support.values import replace

INT16 = st.integers(-0x8000, 0x7FFF)
INT32 = st.integers(-0x80000000, 0x7FFFFFFF)
UINT16 = st.integers(0, 0xFFFF)
UINT32 = st.integers(0, 0xFFFFFFFF)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
DATA = st.binary(max_size=40)

known_keys = st.sampled_from(sorted(KEY_SIZES)).flatmap(
    lambda etype: st.binary(min_size=KEY_SIZES[etype], max_size=KEY_SIZES[etype]).map(
        lambda contents: EncryptionKey(etype, contents)
    )
)
other_keys = st.builds(EncryptionKey, INT16.filter(lambda etype: etype not in KEY_SIZES), DATA)
keys = known_keys | other_keys
principals = st.builds(
    Principal,
    st.lists(TEXT, min_size=1, max_size=4).map(tuple),
    TEXT.filter(lambda realm: realm and realm[0] != "X"),
    INT32,
)
times = UINT32.map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc))
later = st.integers(1, 0xFFFFFFFF).map(
    lambda seconds: datetime.fromtimestamp(seconds, timezone.utc)
)

entries = st.builds(KeytabEntry, principals, UINT32, keys, times)
keytabs = st.lists(entries, max_size=5).map(Keytab)

tickets = st.builds(
    ServiceTicket,
    client=principals,
    service=principals,
    ticket=DATA,
    session_key=keys,
    flags=UINT32,
    authtime=times,
    starttime=st.none() | later,
    endtime=later,
    renew_till=st.none() | later,
    caddr=st.lists(st.builds(HostAddress, UINT16, DATA), max_size=3).map(tuple),
    authorization_data=st.lists(st.builds(AuthorizationDataEntry, INT16, DATA), max_size=3).map(
        tuple
    ),
    second_ticket=DATA,
    is_skey=st.booleans(),
)


@st.composite
def ccaches(draw: st.DrawFn) -> CCache:
    ccache = CCache(draw(principals), draw(st.lists(tickets, max_size=4)))
    ccache.set_time_offset(timedelta(microseconds=draw(st.integers(-(10**15), 10**15))))
    for name, value in draw(st.dictionaries(TEXT, DATA, max_size=3)).items():
        ccache.set_config(name, value, draw(st.none() | principals))
    return ccache


@settings(deadline=None)
@given(keytabs)
def test_a_keytab_survives_encoding(keytab: Keytab) -> None:
    decoded = Keytab.decode(keytab.encode())
    assert decoded == keytab
    assert [e.principal.name_type for e in decoded] == [e.principal.name_type for e in keytab]


@settings(deadline=None)
@given(keytabs, st.data())
def test_a_prefix_of_a_keytab_is_refused_or_shorter(keytab: Keytab, data: st.DataObject) -> None:
    encoded = keytab.encode()
    size = data.draw(st.integers(0, len(encoded) - 1))
    try:
        found = Keytab.decode(encoded[:size]).entries
    except DecodeError:
        return
    assert found == keytab.entries[: len(found)]
    assert len(found) < len(keytab)


@settings(deadline=None)
@given(st.sampled_from([b"\5\1", b"\5\2", b""]), st.binary(max_size=200))
def test_noise_is_no_keytab_or_one_that_survives_encoding(version: bytes, noise: bytes) -> None:
    try:
        keytab = Keytab.decode(version + noise)
    except DecodeError:
        return
    assert Keytab.decode(keytab.encode()) == keytab


@settings(deadline=None)
@given(ccaches())
def test_a_ccache_survives_encoding(ccache: CCache) -> None:
    decoded = CCache.decode(ccache.encode())
    offset = ccache.time_offset()
    assert (decoded.principal, decoded.time_offset()) == (ccache.principal, offset)
    # Files keep neither of these two of a ticket.
    kept = [replace(ticket, time_offset=offset, by_s4u2self=False) for ticket in ccache]
    assert list(decoded) == kept
    assert decoded.encode() == ccache.encode()


@settings(deadline=None)
@given(ccaches(), st.data())
def test_a_prefix_of_a_ccache_is_refused_or_shorter(ccache: CCache, data: st.DataObject) -> None:
    encoded = ccache.encode()
    whole = list(CCache.decode(encoded))
    size = data.draw(st.integers(0, len(encoded) - 1))
    try:
        found = CCache.decode(encoded[:size])
    except DecodeError:
        return
    assert found.principal == ccache.principal
    assert list(found) == whole[: len(found)]


@settings(deadline=None)
@given(st.sampled_from([b"\5\1", b"\5\2", b"\5\3", b"\5\4\0\0", b""]), st.binary(max_size=200))
def test_noise_is_no_ccache_or_one_that_survives_encoding(version: bytes, noise: bytes) -> None:
    try:
        ccache = CCache.decode(version + noise)
    except DecodeError:
        return
    assert CCache.decode(ccache.encode()).encode() == ccache.encode()
