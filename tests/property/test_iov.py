"""Tokens in pieces under arbitrary layouts and alterations."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purekrb import Acceptor, Flag, Initiator, IovBuffer, IovType, KerberosError
from support.contexts import AES, flipped, pair
from support.iov import message_of

NO_ORDER = Flag.MUTUAL | Flag.CONF | Flag.INTEG
STYLES = st.tuples(st.sampled_from(AES), st.sampled_from([NO_ORDER, NO_ORDER | Flag.DCE_STYLE]))
MESSAGE = st.lists(
    st.builds(
        IovBuffer, st.sampled_from([IovType.DATA, IovType.SIGN_ONLY]), st.binary(max_size=80)
    ),
    max_size=6,
)
FRAME = st.sampled_from(
    [(IovType.HEADER,), (IovType.HEADER, IovType.TRAILER), (IovType.PADDING, IovType.HEADER)]
)


@functools.cache
def ends(etype: int, flags: Flag) -> tuple[Initiator, Acceptor]:
    """A context that does not care for order, so that examples do not depend on one another."""
    return pair(etype, flags=flags)


def framed(
    message: list[IovBuffer], frame: tuple[IovType, ...], choice: st.DataObject
) -> list[IovBuffer]:
    """Return `message` with the buffers of the token at any places among it."""
    buffers = [*message]
    for kind in frame:
        buffers.insert(choice.draw(st.integers(0, len(buffers))), IovBuffer(kind))
    return buffers


@given(STYLES, MESSAGE, FRAME, st.booleans(), st.booleans(), st.data())
def test_any_split_goes_there_and_back(
    style: tuple[int, Flag],
    message: list[IovBuffer],
    frame: tuple[IovType, ...],
    sealed: bool,
    back: bool,
    choice: st.DataObject,
) -> None:
    sender, receiver = ends(*style)[::-1] if back else ends(*style)
    buffers = framed(message, frame, choice)
    sent = sender.wrap_iov(buffers, sealed)
    assert [len(buffer.data) for buffer in sent] == sender.wrap_iov_length(buffers, sealed)
    assert message_of(receiver.unwrap_iov(sent, sealed)) == message


@given(STYLES, st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=4), st.booleans())
def test_another_split_of_the_same_data_is_the_same_message(
    style: tuple[int, Flag], data: bytes, cuts: list[int], sealed: bool
) -> None:
    sender, receiver = ends(*style)
    header, body = sender.wrap_iov(
        [IovBuffer(IovType.HEADER), IovBuffer(IovType.DATA, data)], sealed
    )
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [
        IovBuffer(IovType.DATA, body.data[start:end]) for start, end in itertools.pairwise(edges)
    ]
    assert (
        b"".join(piece.data for piece in receiver.unwrap_iov([header, *pieces], sealed)[1:]) == data
    )
    stream = IovBuffer(IovType.STREAM, header.data + body.data)
    assert receiver.unwrap_iov([stream, IovBuffer(IovType.DATA)], sealed)[1].data == data


@pytest.mark.parametrize(
    "flags", [NO_ORDER, NO_ORDER | Flag.DCE_STYLE], ids=["standard", "dce-style"]
)
@pytest.mark.parametrize("etype", AES)
@pytest.mark.parametrize("letters", ["HSDS", "HDST"])
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "signed"])
def test_every_flipped_bit_is_refused_and_then_the_genuine_token_is_taken(
    etype: int, flags: Flag, letters: str, sealed: bool
) -> None:
    from support.iov import layout

    sender, receiver = ends(etype, flags)
    buffers = layout(letters, 9)
    sent = sender.wrap_iov(buffers, sealed)
    for number, (kind, data) in enumerate(sent):
        for bit in range(8 * len(data)):
            altered = [*sent[:number], IovBuffer(kind, flipped(data, bit)), *sent[number + 1 :]]
            with pytest.raises(KerberosError):
                receiver.unwrap_iov(altered, sealed)
    assert message_of(receiver.unwrap_iov(sent, sealed)) == message_of(buffers)


@given(STYLES, MESSAGE.filter(lambda message: len({*message}) > 1), st.booleans(), st.data())
@settings(max_examples=50)
def test_buffers_in_another_order_or_of_another_type_are_another_message(
    style: tuple[int, Flag], message: list[IovBuffer], sealed: bool, choice: st.DataObject
) -> None:
    sender, receiver = ends(*style)
    header, *sent = sender.wrap_iov([IovBuffer(IovType.HEADER), *message], sealed)
    order = choice.draw(st.permutations(range(len(sent))))
    # What is authenticated is the plaintext of all buffers, one after another.
    if b"".join(message[number].data for number in order) != b"".join(data for _, data in message):
        with pytest.raises(KerberosError):
            receiver.unwrap_iov([header, *(sent[number] for number in order)], sealed)
    assert message_of(receiver.unwrap_iov([header, *sent], sealed)) == message


@given(
    STYLES,
    st.lists(st.builds(IovBuffer, st.sampled_from(IovType), st.binary(max_size=100)), max_size=5),
)
def test_noise_is_no_token(style: tuple[int, Flag], buffers: list[IovBuffer]) -> None:
    for context in ends(*style):
        for sealed in (True, False):
            with pytest.raises((KerberosError, ValueError)):
                context.unwrap_iov(buffers, sealed)
