"""unwrap_into writes what unwrap returns into the caller's buffer, and after an error nothing of it."""

from __future__ import annotations

import os

import pytest

from purekrb import (
    Acceptor,
    Initiator,
    IntegrityError,
    KerberosError,
    PolicyError,
    ProtocolError,
    SequenceError,
)
from purekrb.crypto.aes_cts import CHUNK, LARGE
from support.contexts import AES, ALL, pair

SIZES = (0, 1, 100, LARGE - 1, LARGE, LARGE + 1, CHUNK + 15, 3 * CHUNK + 5)
SECRET = b"secret block 16B"


def room(context: Acceptor, token: bytes, sealed: bool = True) -> bytearray:
    return bytearray(b"\xaa" * context.wrap_size_limit(len(token), sealed))


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("etype", ALL)
def test_the_buffer_gets_what_unwrap_returns(etype: int, sealed: bool) -> None:
    ours, theirs = pair(etype)
    for size in SIZES:
        data = os.urandom(size)
        token = ours.wrap(data, sealed)
        buffer = room(theirs, token, sealed) + b"\xaa" * 5
        assert theirs.unwrap_into(token, buffer, sealed) == size
        assert buffer[:size] == data
        assert buffer[-5:] == b"\xaa" * 5
        assert theirs.unwrap(ours.wrap(data, sealed), sealed) == data


def spoiled(token: bytes, at: int) -> bytes:
    return token[:at] + bytes((token[at] ^ 1,)) + token[at + 1 :]


@pytest.mark.parametrize("size", [160, LARGE, 2 * CHUNK])
@pytest.mark.parametrize("etype", AES)
def test_after_a_refusal_the_buffer_holds_nothing_of_the_message_and_the_next_one_opens(
    etype: int, size: int
) -> None:
    ours, theirs = pair(etype)
    data = SECRET * (size // 16)
    token = ours.wrap(data)
    # flags (an unknown bit), EC, SND_SEQ, last block, MAC, confounder, data, the end
    for at in (2, 5, 15, 16, 33, len(token) - len(data) - 20, len(token) // 2, len(token) - 1):
        forged = (
            spoiled(token, at) if at != 2 else token[:2] + bytes((token[2] | 0x40,)) + token[3:]
        )
        buffer = room(theirs, token)
        with pytest.raises(IntegrityError):
            theirs.unwrap_into(forged, buffer)
        assert SECRET not in buffer
    buffer = room(theirs, token)
    assert theirs.unwrap_into(token, buffer) == len(data)
    assert buffer == data
    buffer = room(theirs, token)
    with pytest.raises(SequenceError) as refused:
        theirs.unwrap_into(token, buffer)
    assert refused.value.reason == "duplicate"
    assert SECRET not in buffer


def test_headers_are_checked_before_anything_is_decrypted() -> None:
    ours, theirs = pair()
    token = ours.wrap(bytes(2 * LARGE))
    signed, reflected = ours.wrap(bytes(2 * LARGE), False), theirs.wrap(bytes(2 * LARGE))
    for bad, error in ((signed, PolicyError), (reflected, ProtocolError)):
        buffer = room(theirs, bad)
        untouched = bytes(buffer)
        with pytest.raises(error):
            theirs.unwrap_into(bad, buffer)
        assert buffer == untouched
    assert theirs.unwrap_into(token, room(theirs, token)) == 2 * LARGE


def test_a_token_of_another_rotation_is_turned_first() -> None:
    ours, theirs = pair()
    data = os.urandom(2 * LARGE)
    token = ours.wrap(data)
    rotation = int.from_bytes(token[6:8], "big")
    body = token[16 + rotation :] + token[16 : 16 + rotation]
    plain = token[:6] + b"\0\0" + token[8:16] + body
    buffer = room(theirs, plain)
    assert theirs.unwrap_into(plain, buffer) == len(data)
    assert buffer == data


def test_the_buffer_must_be_writable_and_large_enough_and_nothing_is_consumed_otherwise() -> None:
    ours, theirs = pair()
    data = os.urandom(2 * LARGE)
    token = ours.wrap(data)
    for buffer in (bytes(len(data)), bytearray(len(data) - 1), bytearray()):
        with pytest.raises(ValueError, match=f"room for {len(data)} bytes"):
            theirs.unwrap_into(token, buffer)  # type: ignore[arg-type]
    buffer = bytearray(4 * LARGE)
    with memoryview(buffer).cast("I") as numbers:
        assert theirs.unwrap_into(bytearray(token), numbers) == len(data)
    assert buffer[: len(data)] == data
    initiator: Initiator = ours
    initiator.close()
    with pytest.raises(KerberosError):
        initiator.unwrap_into(theirs.wrap(b"late"), buffer)
