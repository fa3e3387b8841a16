"""Frames: LE32 length, then the body. Limits, split reads and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purekrb import DecodeError
from purekrb.channel.framing import DEFAULT_MAX_FRAME, check_max_frame, encode_frame, frame_reader
from purekrb.io.framing import FrameReader

LIMIT = 64


def read_all(reader: FrameReader) -> list[bytes]:
    return list(iter(reader.next_frame, None))


def test_a_frame_is_the_length_in_little_endian_and_the_body() -> None:
    assert encode_frame(b"abc") == b"\x03\0\0\0abc"
    assert encode_frame(bytes(0x010203))[:4] == b"\x03\x02\x01\0"


def test_a_body_of_zero_bytes_is_not_sent() -> None:
    with pytest.raises(ValueError, match="not sent"):
        encode_frame(b"")


def test_a_frame_of_zero_bytes_is_refused() -> None:
    reader = frame_reader(LIMIT)
    reader.feed(encode_frame(b"x") + b"\0\0\0\0")
    assert reader.next_frame() == b"x"
    with pytest.raises(DecodeError, match="announces 0 bytes"):
        reader.next_frame()


def test_a_frame_of_exactly_the_limit_is_read_and_one_more_byte_is_refused_before_it_arrives() -> (
    None
):
    reader = frame_reader(LIMIT)
    reader.feed(encode_frame(bytes(LIMIT)))
    assert reader.next_frame() == bytes(LIMIT)
    reader.feed((LIMIT + 1).to_bytes(4, "little"))
    with pytest.raises(DecodeError, match=f"announces {LIMIT + 1} bytes, expected 1 to {LIMIT}"):
        reader.next_frame()


@pytest.mark.parametrize(
    "banner",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\0\x01",
        b"\xff" * 8,
        b"220 smtp\r\n",
    ],
    ids=["http", "ssh", "tls", "ones", "smtp"],
)
def test_other_protocols_are_refused_at_their_first_bytes(banner: bytes) -> None:
    reader = frame_reader(DEFAULT_MAX_FRAME)
    reader.feed(banner[:4])
    with pytest.raises(DecodeError, match="another protocol"):
        reader.next_frame()


def test_a_short_frame_is_not_returned_and_counts_as_pending() -> None:
    frame = encode_frame(b"hello")
    reader = frame_reader(LIMIT)
    for size in range(1, len(frame)):
        reader.feed(frame[size - 1 : size])
        assert reader.next_frame() is None
        assert reader.pending == size
    reader.feed(frame[-1:])
    assert reader.next_frame() == b"hello"
    assert reader.pending == 0


def test_the_limit_can_change_between_two_frames_that_arrived_together() -> None:
    reader = frame_reader(LIMIT)
    reader.feed(encode_frame(b"token") + encode_frame(bytes(1000)))
    assert reader.next_frame() == b"token"
    reader.max_frame = 1000
    assert reader.next_frame() == bytes(1000)


@pytest.mark.parametrize(
    ("max_frame", "fits"), [(1024, True), (2**32 - 1, True), (1023, False), (2**32, False)]
)
def test_a_limit_must_leave_room_for_a_token_and_fit_into_the_length(
    max_frame: int, fits: bool
) -> None:
    if fits:
        assert check_max_frame(max_frame) == max_frame
    else:
        with pytest.raises(ValueError, match="max_frame"):
            check_max_frame(max_frame)


@given(bodies=st.lists(st.binary(min_size=1, max_size=LIMIT)), data=st.data())
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    bodies: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(encode_frame, bodies))
    reader, got = frame_reader(LIMIT), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:size])
        stream = stream[size:]
        got += read_all(reader)
    assert got == bodies
    assert reader.pending == 0


@given(body=st.binary(min_size=1, max_size=LIMIT), data=st.data())
def test_no_prefix_of_a_frame_gives_a_body(body: bytes, data: st.DataObject) -> None:
    frame = encode_frame(body)
    reader = frame_reader(LIMIT)
    reader.feed(frame[: data.draw(st.integers(0, len(frame) - 1))])
    assert reader.next_frame() is None


@given(stream=st.binary(max_size=400))
def test_any_bytes_give_frames_within_the_limit_or_a_decode_error(stream: bytes) -> None:
    reader = frame_reader(LIMIT)
    reader.feed(stream)
    try:
        frames = read_all(reader)
    except DecodeError:
        return
    assert all(1 <= len(frame) <= LIMIT for frame in frames)
    assert b"".join(map(encode_frame, frames)) == stream[: len(stream) - reader.pending]
