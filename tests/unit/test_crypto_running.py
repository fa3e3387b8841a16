"""Cipher objects that live as long as their key give what fresh ones give, whatever happens in between."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from purekrb import crypto
from purekrb.crypto.aes_cipher import AesUsageCipher
from purekrb.crypto.aes_cts import CHUNK, LARGE, AesCts
from purekrb.errors import IntegrityError
from purekrb.keys import EncryptionKey
from support.reference_cts import cts_decrypt, cts_encrypt

AES = (17, 18, 19, 20)
SIZES = (*range(16, 70), 96, 100, 1024, 1039)


def fresh(key: EncryptionKey) -> EncryptionKey:
    """The same key with nothing derived yet."""
    return EncryptionKey(key.etype, key.contents)


@pytest.mark.parametrize("size", [16, 32], ids=["aes128", "aes256"])
def test_interleaved_messages_equal_the_block_by_block_reference(size: int) -> None:
    key = os.urandom(size)
    cts = AesCts(key)
    order = random.Random(1)
    for _ in range(600):
        data = os.urandom(order.choice(SIZES))
        if order.random() < 0.5:
            assert b"".join(cts.encrypt(data)) == cts_encrypt(key, data)
        else:
            assert cts.decrypt(data[:-16], data[-16:]) == cts_decrypt(key, data)


@pytest.mark.parametrize("size", [16, 32], ids=["aes128", "aes256"])
def test_large_messages_follow_small_ones_and_small_ones_large_ones(size: int) -> None:
    key = os.urandom(size)
    cts = AesCts(key)
    for length in (LARGE, 5, LARGE + 7, 0, LARGE + 15, 32):
        message, suffix = os.urandom(16 + length), os.urandom(16)
        expected = cts_encrypt(key, message + suffix)
        if length < LARGE:
            assert b"".join(cts.encrypt(message + suffix)) == expected
            assert cts.decrypt(expected[:-16], expected[-16:]) == message + suffix
            continue
        out, data = bytearray(length + 16), bytearray(length)
        last = cts.encrypt_into(
            memoryview(out), message[:16], memoryview(message)[16:], suffix, None, None
        )
        assert bytes(out) + last == expected
        assert cts.decrypt_into(memoryview(data), memoryview(out), last, None) == suffix
        assert data == message[16:]
    assert len(cts._encryptors) == len(cts._decryptors) == 1


@pytest.mark.parametrize("etype", AES)
def test_forgeries_between_genuine_messages_do_not_spoil_what_follows(etype: int) -> None:
    key = crypto.random_key(etype)
    order = random.Random(2)
    for n in range(300):
        plaintext = os.urandom(order.choice(SIZES))
        genuine = crypto.encrypt(fresh(key), 9, plaintext)
        assert crypto.decrypt(key, 9, genuine) == plaintext, n
        forged = bytearray(genuine)
        forged[order.randrange(len(forged))] ^= 1 << order.randrange(8)
        for bad in (bytes(forged), genuine[:-1], genuine[:20], os.urandom(64), b""):
            with pytest.raises(IntegrityError):
                crypto.decrypt(key, 9, bad)
        assert crypto.encrypt(key, 9, plaintext, bytes(16)) == crypto.encrypt(
            fresh(key), 9, plaintext, bytes(16)
        )


@pytest.mark.parametrize("etype", AES)
def test_an_exception_inside_a_call_costs_that_call_only(etype: int) -> None:
    key = crypto.random_key(etype)
    cipher = crypto.usage_cipher(key, 9)
    assert cipher.decrypt(cipher.encrypt(b"before", bytes(16))) == b"before"
    for bad in (None, "text", 5):
        with pytest.raises((TypeError, AttributeError)):
            cipher.encrypt(bad, bytes(16))  # type: ignore[arg-type]
        with pytest.raises((TypeError, AttributeError)):
            cipher._cts.encrypt(bad)  # type: ignore[attr-defined]
        with pytest.raises((TypeError, AttributeError)):
            cipher._cts.decrypt(bad, bytes(16))  # type: ignore[attr-defined]
        expected = crypto.encrypt(fresh(key), 9, b"after", bytes(16))
        assert cipher.encrypt(b"after", bytes(16)) == expected
        assert cipher.decrypt(expected) == b"after"


def test_an_interrupt_between_cipher_and_state_drops_the_state() -> None:
    key = os.urandom(32)
    cts = AesCts(key)
    data = os.urandom(48)
    cts.encrypt(data)

    class Interrupted:
        """Runs the real cipher, then is interrupted as by Ctrl-C, so that nobody learns its last block."""

        def __init__(self, inner: object) -> None:
            self.inner = inner

        def update(self, chunk: bytes) -> bytes:
            self.inner.update(chunk)  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    for direction in ("_encryptors", "_decryptors"):
        cts.decrypt(data[:-16], data[-16:])
        (kept,) = getattr(cts, direction)
        spoiled = (
            Interrupted(kept) if direction == "_decryptors" else (Interrupted(kept[0]), kept[1])
        )
        getattr(cts, direction)[:] = [spoiled]
        with pytest.raises(KeyboardInterrupt):
            _ = (
                cts.encrypt(data)
                if direction == "_encryptors"
                else cts.decrypt(data[:-16], data[-16:])
            )
        assert getattr(cts, direction) == []
        assert b"".join(cts.encrypt(data)) == cts_encrypt(key, data)
        assert cts.decrypt(data[:-16], data[-16:]) == cts_decrypt(key, data)


@pytest.mark.parametrize("etype", [*AES, 23])
def test_many_threads_share_one_key(etype: int) -> None:
    key = crypto.random_key(etype)
    size = crypto.profile_of(etype).confounder_size

    def work(seed: int) -> int:
        order = random.Random(seed)
        for _ in range(150):
            usage = order.randrange(
                40
            )  # more than a key keeps: entries come and go under the threads' feet
            plaintext, confounder = order.randbytes(order.randrange(300)), order.randbytes(size)
            ciphertext = crypto.encrypt(key, usage, plaintext, confounder)
            if crypto.decrypt(key, usage, ciphertext) != plaintext:
                return seed
        sample = crypto.encrypt(key, 1, b"sample", bytes(size))
        return -1 if sample == crypto.encrypt(fresh(key), 1, b"sample", bytes(size)) else seed

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(16))) == {-1}


LARGE_SIZES = (
    LARGE - 1,
    LARGE,
    LARGE + 1,
    CHUNK,
    CHUNK + 14,
    CHUNK + 15,
    CHUNK + 16,
    CHUNK + 17,
    3 * CHUNK + 5,
)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100, *LARGE_SIZES])
@pytest.mark.parametrize("etype", AES)
def test_seal_is_encrypt_with_the_trailer_first_and_open_undoes_it(etype: int, size: int) -> None:
    key = crypto.random_key(etype)
    cipher = crypto.usage_cipher(key, 24)
    assert isinstance(cipher, AesUsageCipher)
    trailer = 16 + crypto.profile_of(etype).checksum_size
    for _ in range(2):  # the second time on running cipher objects
        data, suffix, confounder = os.urandom(size), os.urandom(16), os.urandom(16)
        expected = crypto.encrypt(fresh(key), 24, data + suffix, confounder)
        sealed = cipher.seal(b"header", data, suffix, confounder)
        assert type(sealed) is bytes
        assert sealed == b"header" + expected[-trailer:] + expected[:-trailer]
        body, last, mac = sealed[6 + trailer :], sealed[6:22], sealed[22 : 6 + trailer]
        assert cipher.open(body, last, mac, suffix) == data


@pytest.mark.parametrize("size", [100, LARGE + 7, 2 * CHUNK + 3])
@pytest.mark.parametrize("etype", AES)
def test_open_refuses_every_kind_of_forgery_and_takes_the_next_genuine_message(
    etype: int, size: int
) -> None:
    key = crypto.random_key(etype)
    cipher = crypto.usage_cipher(key, 24)
    assert isinstance(cipher, AesUsageCipher)
    trailer = 16 + crypto.profile_of(etype).checksum_size
    data = os.urandom(size)
    sealed = crypto.encrypt(fresh(key), 24, data + bytes(16))
    body, last, mac = sealed[:-trailer], sealed[-trailer : 16 - trailer], sealed[16 - trailer :]
    forgeries = [
        *(
            (flipped(body, at), last, mac)
            for at in (0, 15, 16, len(body) // 2, len(body) - 17, len(body) - 1)
        ),
        *((body, flipped(last, at), mac) for at in (0, 15)),
        *((body, last, flipped(mac, at)) for at in (0, len(mac) - 1)),
        (body[:-1], last, mac),
        (body[1:], last, mac),
        (body, last, mac[:-1]),
        (body, last, b""),
    ]
    for forgery in forgeries:
        with pytest.raises(IntegrityError):
            cipher.open(*forgery, bytes(16))
        with pytest.raises(IntegrityError):
            cipher.open(body, last, mac, bytes(15) + b"x")
        out = bytearray(b"\xaa" * size)
        with memoryview(out) as view, pytest.raises(IntegrityError):
            cipher.open_into(view, body, last, mac, bytes(15) + b"x")
        assert out == (bytes(size) if size >= LARGE else b"\xaa" * size)
        assert cipher.open(body, last, mac, bytes(16)) == data


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
