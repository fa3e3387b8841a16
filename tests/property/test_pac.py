"""PACs: whatever bytes a signed buffer has, it is read or refused, in time and memory that its length bounds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purekrb import PacError, crypto
from purekrb.messages.pac import ClientInfo, LogonInfo, Pac, PacBuffer, UpnDnsInfo
from support.pac import assemble, buffers, now

KEY = crypto.random_key(18)
GENUINE = buffers(KEY, now())
DECODERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "table": (Pac.decode, bytes(assemble(GENUINE))),
    "logon-info": (LogonInfo.decode, GENUINE[PacBuffer.LOGON_INFO]),
    "upn-dns-info": (UpnDnsInfo.decode, GENUINE[PacBuffer.UPN_DNS_INFO]),
    "client-info": (ClientInfo.decode, GENUINE[PacBuffer.CLIENT_INFO]),
}
#: Numbers at which counts, lengths and offsets turn over.
EDGES = st.sampled_from(
    [0, 1, 2, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
) | st.integers(0, 0xFFFFFFFF)


@pytest.mark.parametrize("name", DECODERS)
def test_the_genuine_bytes_are_read(name: str) -> None:
    decode, data = DECODERS[name]
    assert decode(data)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    decode, genuine = DECODERS[name]
    altered = bytearray(genuine)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(altered) // 4 - 1)) * 4
        altered[at : at + 4] = data.draw(EDGES).to_bytes(4, "little")
    cut = altered[: data.draw(st.integers(0, len(altered)))]
    for candidate in (bytes(altered), bytes(cut), data.draw(st.binary(max_size=400))):
        try:
            decode(candidate)
        except PacError:
            continue


@pytest.mark.parametrize("name", DECODERS)
def test_k208_no_number_in_a_buffer_makes_it_take_memory_beyond_its_length(name: str) -> None:
    decode, genuine = DECODERS[name]
    tracemalloc.start()
    try:
        for at in range(0, len(genuine) - 3, 4):
            for number in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
                try:
                    decode(genuine[:at] + number.to_bytes(4, "little") + genuine[at + 4 :])
                except PacError:
                    continue
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
