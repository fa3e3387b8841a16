"""Contexts, tokens, windows and caches under arbitrary input."""

from __future__ import annotations

import functools
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purekrb import (
    Acceptor,
    ApError,
    ChannelBindings,
    ChannelBindingsError,
    Flag,
    Initiator,
    KerberosError,
    ReplayError,
    SequenceError,
)
from purekrb.constants import KRB5_MECH_OID, MS_KRB5_MECH_OID, NTLM_OID, SPNEGO_OID, NegState
from purekrb.gss.checksum import GssChecksum
from purekrb.gss.framing import frame, frame_mechanism, unframe
from purekrb.gss.sequence import SequenceWindow
from purekrb.gss.tokens import MicToken, WrapToken
from purekrb.messages.spnego import NegTokenInit, NegTokenResp
from purekrb.replay import KEEP, MemoryReplayCache
from support.cfx import Forger
from support.contexts import ALL, acceptor, pair
from support.spnego import NTLM_TOKEN
from support.tickets import issue

ETYPES = st.sampled_from(ALL)
NO_ORDER = Flag.MUTUAL | Flag.CONF | Flag.INTEG
DATA = st.one_of(
    st.binary(max_size=300),
    st.integers(20_000, 70_000).map(lambda n: bytes(range(256)) * (n // 256)),
)


@functools.cache
def ends(etype: int) -> tuple[Initiator, Acceptor]:
    """A context that does not care for order, so that examples do not depend on one another."""
    return pair(etype, flags=NO_ORDER)


@functools.cache
def service() -> Any:
    return issue(endtime=datetime(2100, 1, 1, tzinfo=timezone.utc))


@given(ETYPES, DATA, st.booleans(), st.booleans())
def test_what_is_wrapped_is_unwrapped(etype: int, data: bytes, sealed: bool, back: bool) -> None:
    ours, theirs = ends(etype)
    sender, receiver = (theirs, ours) if back else (ours, theirs)
    token = sender.wrap(data, sealed)
    assert receiver.unwrap(token, sealed) == data
    assert receiver.unwrap(token, sealed=False) == data
    assert sender.wrap_size_limit(len(token), sealed) == len(data)


@given(ETYPES, st.binary(max_size=200), st.booleans(), st.data())
def test_an_altered_token_is_refused_or_the_same_message(
    etype: int, data: bytes, sealed: bool, choice: st.DataObject
) -> None:
    ours, theirs = ends(etype)
    token = bytearray(ours.wrap(data, sealed))
    place = choice.draw(st.integers(0, len(token) - 1))
    token[place] ^= choice.draw(st.integers(1, 255))
    try:
        found = theirs.unwrap(bytes(token), sealed)
    except KerberosError:
        return
    # RRC of AES, turned by whole rounds, and the unsigned number of a signed RC4 token.
    assert found == data
    assert place in (6, 7) if etype != 23 else not sealed


@given(ETYPES, st.binary(max_size=200), st.data())
def test_a_token_that_is_cut_or_spliced_is_refused(
    etype: int, data: bytes, choice: st.DataObject
) -> None:
    ours, theirs = ends(etype)
    one, two = ours.wrap(data), ours.wrap(data + b"!")
    cut = choice.draw(st.integers(1, len(one) - 1))
    for bad in (one[:cut], one[:cut] + two[cut:], two[:cut] + one[cut:], one + two, one[cut:]):
        if bad in (one, two):
            continue
        with pytest.raises(KerberosError):
            theirs.unwrap(bad)
    assert theirs.unwrap(one) == data


@given(
    st.sampled_from((17, 18, 19, 20)),
    st.binary(max_size=200),
    st.integers(0, 65535),
    st.integers(0, 60),
)
def test_any_rotation_and_any_filler_give_the_message(
    etype: int, data: bytes, rrc: int, ec: int
) -> None:
    _, theirs = ends(etype)
    peer = Forger.peer_of(theirs, 0)
    assert theirs.unwrap(peer.sealed(data, rrc=rrc, ec=ec)) == data
    assert theirs.unwrap(peer.signed(data, rrc=rrc), sealed=False) == data
    assert WrapToken.decode(peer.sealed(data, rrc=rrc)).rrc == rrc


@given(ETYPES, st.binary(max_size=400))
def test_noise_is_no_token(etype: int, noise: bytes) -> None:
    for context in ends(etype):
        for sealed in (True, False):
            with pytest.raises(KerberosError):
                context.unwrap(noise, sealed)
        with pytest.raises(KerberosError):
            context.verify_mic(b"", noise)
    for decode in (WrapToken.decode, MicToken.decode, unframe, GssChecksum.decode):
        try:
            decode(noise)  # type: ignore[operator]
        except KerberosError:
            continue


@given(st.sampled_from((17, 18, 19, 20)), st.binary(max_size=100), st.binary(max_size=100))
def test_a_mic_signs_its_message_alone(etype: int, one: bytes, two: bytes) -> None:
    ours, theirs = ends(etype)
    mic = ours.get_mic(one)
    theirs.verify_mic(one, mic)
    if one != two:
        with pytest.raises(KerberosError):
            theirs.verify_mic(two, mic)


@given(st.binary(min_size=1, max_size=2000))  # b"" asks an acceptor for its offer of mechanisms
def test_noise_is_no_handshake(noise: bytes) -> None:
    ticket, keys = service()
    ours = Initiator(ticket)
    ours.step()
    for token in (
        noise,
        frame(b"\x01\x00", noise),
        frame(b"\x02\x00", noise),
        frame(b"\x03\x00", noise),
    ):
        with pytest.raises(KerberosError):
            acceptor(keys).step(token)
        waiting = Initiator(ticket)
        waiting.step()
        with pytest.raises(KerberosError):
            waiting.step(token)
        assert not waiting.established


@settings(max_examples=60)
@given(st.data())
def test_an_altered_handshake_ends_in_an_error_or_with_the_right_names(
    choice: st.DataObject,
) -> None:
    ticket, keys = service()
    ours = Initiator(ticket)
    token = bytearray(ours.step() or b"")
    for _ in range(choice.draw(st.integers(1, 3))):
        token[choice.draw(st.integers(0, 10_000)) % len(token)] ^= choice.draw(st.integers(1, 255))
    theirs = acceptor(keys)
    refusal: KerberosError | None = None
    try:
        reply = theirs.step(bytes(token))
    except KerberosError as error:
        refusal = error
    if refusal is not None:
        assert refusal.response if isinstance(refusal, ApError) else not theirs.established
        return
    assert (theirs.initiator, theirs.acceptor) == (ticket.client, ticket.service)
    ours.step(reply)
    assert theirs.unwrap(ours.wrap(b"data")) == b"data"


_TOKENS = st.one_of(st.none(), st.binary(max_size=60), st.just(NTLM_TOKEN))
_MECHANISMS = st.lists(
    st.sampled_from([MS_KRB5_MECH_OID, KRB5_MECH_OID, NTLM_OID, SPNEGO_OID]), max_size=4
)


@given(st.binary(max_size=300), _MECHANISMS, st.sampled_from([None, *NegState]), _TOKENS, _TOKENS)
def test_noise_in_the_fields_of_a_negotiation_is_no_handshake(
    noise: bytes, offered: list[bytes], state: int | None, token: bytes | None, mic: bytes | None
) -> None:
    ticket, keys = service()
    init = NegTokenInit(tuple(offered), None, token, mic).encode()
    resp = NegTokenResp(state, offered[0] if offered else None, token, mic).encode()
    for message in (
        frame_mechanism(SPNEGO_OID, noise),
        frame_mechanism(SPNEGO_OID, init),
        noise or b"0",
        resp,
    ):
        theirs = acceptor(keys)
        waiting = Initiator(ticket, mechanism="negotiate")
        waiting.step()
        for context in (theirs, waiting):
            try:
                answer = context.step(message)
            except KerberosError:
                answer = None
            else:
                assert answer is not None  # it asks for more, and by no other mechanism
                assert NegTokenResp.decode(answer).supported_mech in (
                    None,
                    MS_KRB5_MECH_OID,
                    KRB5_MECH_OID,
                )
                with pytest.raises(KerberosError):
                    context.step(message)
            assert not context.established


@settings(max_examples=60)
@given(st.data())
def test_an_altered_negotiation_ends_in_an_error_or_with_the_right_names(
    choice: st.DataObject,
) -> None:
    ticket, keys = service()
    ours, theirs = Initiator(ticket, mechanism="negotiate"), acceptor(keys)

    def altered(token: bytes) -> bytes:
        changed = bytearray(token)
        for _ in range(choice.draw(st.integers(0, 2))):
            changed[choice.draw(st.integers(0, 10_000)) % len(changed)] ^= choice.draw(
                st.integers(1, 255)
            )
        return bytes(changed)

    ends, token, turn = (ours, theirs), ours.step(), 0
    with suppress(KerberosError):
        while token is not None:
            turn += 1
            token = ends[turn % 2].step(altered(token))
    for context in ends:
        if context.established:
            assert (context.initiator, context.acceptor) == (ticket.client, ticket.service)
    if ours.established:
        assert theirs.unwrap(ours.wrap(b"data")) == b"data"


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 0xFFFFFFFF),
    st.one_of(st.none(), st.binary(max_size=500)),
)
def test_a_gss_checksum_is_read_as_it_was_written(
    bindings: bytes, flags: int, delegation: bytes | None
) -> None:
    known = flags & int(sum(Flag)) & ~int(Flag.DELEG)
    if delegation is not None:
        known |= int(Flag.DELEG)
    for extensions in (b"", b"extensions"):
        written = GssChecksum(known, bindings, delegation, extensions)
        assert GssChecksum.decode(written.encode()) == written


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_other_bindings_are_another_channel(one: bytes, two: bytes) -> None:
    ticket, keys = service()
    token = Initiator(ticket, channel_bindings=ChannelBindings(one)).step()
    theirs = acceptor(keys, channel_bindings=ChannelBindings(two))
    if one == two:
        theirs.step(token)
        assert theirs.channel_bound
    else:
        with pytest.raises(ChannelBindingsError):
            theirs.step(token)


@given(
    st.integers(0, (1 << 64) - 1),
    st.lists(st.integers(-70, 140), max_size=60),
    st.booleans(),
    st.sampled_from((32, 64)),
)
def test_no_number_passes_twice(first: int, offsets: list[int], sequence: bool, bits: int) -> None:
    window = SequenceWindow(first % (1 << bits), replay=True, sequence=sequence, bits=bits)
    passed = []
    for offset in offsets:
        try:
            window.check(((first + offset) % (1 << bits)).to_bytes(bits // 8, "big"))
        except SequenceError:
            continue
        passed.append(offset)
    assert len(set(passed)) == len(passed)
    if sequence:
        assert passed == sorted(passed)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(-300, 300), st.integers(-60, 400)), max_size=80
    )
)
def test_no_authenticator_passes_twice_within_the_skew(events: list[tuple[int, int, int]]) -> None:
    """Clients whose clocks differ by up to the skew, and a clock that goes on, or back by ten minutes at most."""
    cache = MemoryReplayCache()
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    made: dict[int, datetime] = {}
    passed: set[int] = set()
    latest = now
    for number, ahead, step in events:
        now = max(now + timedelta(seconds=step), latest - timedelta(seconds=600))
        latest = max(latest, now)
        ctime = made.setdefault(number, now + timedelta(seconds=ahead))
        if abs(now - ctime) > timedelta(seconds=300):
            continue
        try:
            cache.remember(number.to_bytes(16, "big"), ctime, now)
        except ReplayError:
            assert number in passed
        else:
            assert number not in passed
            passed.add(number)
    assert KEEP >= 600


@given(
    st.sampled_from([Flag.DEFAULT, NO_ORDER, Flag.MUTUAL | Flag.REPLAY]),
    ETYPES,
    st.lists(DATA, max_size=5),
)
@settings(max_examples=30)
def test_a_conversation_arrives(flags: Flag, etype: int, messages: list[bytes]) -> None:
    ours, theirs = pair(etype, flags=flags)
    for number, data in enumerate(messages):
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            assert receiver.unwrap(sender.wrap(data, number % 2 == 0), number % 2 == 0) == data
