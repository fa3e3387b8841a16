"""Per-message tokens of RFC 4121 and RFC 4757: their layout, sizes and parts."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from purekrb import (
    CredentialError,
    DecodeError,
    EncryptionKey,
    Flag,
    IntegrityError,
    UnsupportedError,
    crypto,
)
from purekrb.gss.rc4_tokens import Rc4Protection
from purekrb.gss.tokens import CfxProtection, MicToken, WrapToken
from support.cfx import Forger, header
from support.contexts import AES

MAC = {17: 12, 18: 12, 19: 16, 20: 24}


def ends(etype: int, **changes: Any) -> tuple[CfxProtection, CfxProtection]:
    """Return both protections of one key, initiator's and acceptor's."""
    key = crypto.random_key(etype)
    common: dict[str, Any] = {
        "acceptor_subkey": True,
        "flags": int(Flag.REPLAY | Flag.SEQUENCE),
        "random": bytes,
    }
    common |= {"send_seq": 5, "receive_seq": 5} | changes
    return CfxProtection(key, initiator=True, **common), CfxProtection(
        key, initiator=False, **common
    )


@pytest.fixture(params=AES, ids=[f"etype-{etype}" for etype in AES])
def etype(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 1024, 24 * 1024 - 1, 24 * 1024, 100_001])
def test_sizes_are_those_of_the_etype(etype: int, length: int) -> None:
    """28, 60 and 28 bytes of overhead for AES-SHA1, 32, 64 and 32 for SHA-256, 40, 72 and 40 for SHA-384."""
    ours, _ = ends(etype)
    data = bytes(length)
    overhead = (
        len(ours.get_mic(data)),
        len(ours.wrap(data, True)) - length,
        len(ours.wrap(data, False)) - length,
    )
    assert (
        overhead == {17: (28, 60, 28), 18: (28, 60, 28), 19: (32, 64, 32), 20: (40, 72, 40)}[etype]
    )


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("acceptor_subkey", [True, False])
def test_the_header_of_a_sealed_token_is_laid_out_as_windows_does(
    etype: int, initiator: bool, acceptor_subkey: bool
) -> None:
    sender = ends(etype, acceptor_subkey=acceptor_subkey, send_seq=0xFFFFFFFF)[
        0 if initiator else 1
    ]
    flags = (0 if initiator else 1) | (4 if acceptor_subkey else 0)
    token = sender.wrap(b"data", True)
    assert token[:16] == header(flags | 2, 0, 16 + MAC[etype], 0xFFFFFFFF)
    if etype in (17, 18):
        assert token[6:8] == b"\0\x1c"  # RRC 28
    token = sender.wrap(b"data", False)
    assert token[:16] == header(flags, MAC[etype], 0, 0x100000000)  # not rotated, as MIT's
    assert token[16 : -MAC[etype]] == b"data"
    assert sender.get_mic(b"data")[:16] == struct.pack(
        ">HB5sQ", 0x0404, flags, b"\xff" * 5, 0x100000001
    )


def test_what_stands_before_the_data_is_as_long_as_the_overhead(etype: int) -> None:
    """Header, then trailer and confounder: so the data lie in one piece at the end, encrypted where they stood."""
    key = crypto.random_key(etype)
    sender = CfxProtection(
        key,
        initiator=True,
        acceptor_subkey=True,
        send_seq=0,
        receive_seq=0,
        flags=0,
        random=lambda n: b"c" * n,
    )
    data = b"thirty-two bytes of data to seal"
    token = sender.wrap(data, True)
    body = crypto.encrypt(key, 24, data + header(6, 0, 0, 0), b"c" * 16)
    trailer = 16 + MAC[etype]
    assert token[16:] == body[-trailer:] + body[:-trailer]
    assert token[16 + trailer + 16 :] == body[16:-trailer]
    assert len(token[16 + trailer + 16 :]) == len(data)


@pytest.mark.parametrize(
    "length", [0, 1, 15, 16, 17, 31, 32, 33, 1000, 24 * 1024 - 17, 24 * 1024 + 1, 200_003]
)
def test_all_sizes_go_there_and_back(etype: int, length: int) -> None:
    ours, theirs = ends(etype, random=lambda n: b"\xa5" * n)
    data = (bytes(range(251)) * (length // 251 + 1))[:length]
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        for sealed in (True, False):
            assert receiver.unwrap(sender.wrap(data, sealed), sealed) == data
        receiver.verify_mic(data, sender.get_mic(data))


def test_a_bytearray_or_memoryview_is_as_good_as_bytes() -> None:
    from support.contexts import pair

    ours, theirs = pair()
    for length in (5, 30_000):
        data = bytes(range(256)) * 120
        data = data[:length]
        for view in (bytearray(data), memoryview(data), memoryview(bytearray(data))):
            assert theirs.unwrap(bytearray(ours.wrap(view))) == data
            assert theirs.unwrap(memoryview(ours.wrap(view, sealed=False)), sealed=False) == data
            theirs.verify_mic(view, memoryview(ours.get_mic(view)))
    for wrong in (5, "text", None, [1]):
        for call in (ours.wrap, ours.unwrap, ours.get_mic):
            with pytest.raises(TypeError):
                call(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            ours.verify_mic(wrong, wrong)  # type: ignore[arg-type]


def test_each_message_has_the_next_number() -> None:
    ours, theirs = ends(18, send_seq=(1 << 64) - 2, receive_seq=(1 << 64) - 2)
    numbers = []
    for _ in range(4):
        token = ours.wrap(b"", True)
        numbers.append(int.from_bytes(token[8:16], "big"))
        assert theirs.unwrap(token, True) == b""
    assert numbers == [(1 << 64) - 2, (1 << 64) - 1, 0, 1]


def test_no_confounder_is_used_twice(etype: int) -> None:
    from support.contexts import pair

    ours, theirs = pair(etype)
    tokens = [ours.wrap(bytes(16)) for _ in range(300)]
    bodies = {token[16:] for token in tokens}
    assert len(bodies) == 300
    assert [theirs.unwrap(token) for token in tokens] == [bytes(16)] * 300


@pytest.mark.parametrize("used", [True, False], ids=["used-before", "first-use"])
def test_after_its_key_was_wiped_nothing_is_made_or_read(etype: int, used: bool) -> None:
    key = crypto.random_key(etype)
    common: dict[str, Any] = {
        "acceptor_subkey": True,
        "send_seq": 5,
        "receive_seq": 5,
        "flags": 0,
        "random": bytes,
    }
    ours = CfxProtection(key, initiator=True, **common)
    peer = Forger(EncryptionKey(etype, key.contents), "acceptor", seq=5)
    sealed, signed, mic = peer.sealed(b"data"), peer.signed(b"data"), peer.mic(b"data")
    calls: list[Callable[[], object]] = [
        lambda: ours.wrap(b"data", True),
        lambda: ours.wrap(b"data", False),
        lambda: ours.wrap(bytes(100_000), True),
        lambda: ours.get_mic(b"data"),
        lambda: ours.unwrap(sealed, True),
        lambda: ours.unwrap(signed, False),
        lambda: ours.verify_mic(b"data", mic),
    ]
    if used:
        for call in calls:
            call()
    key.wipe()
    for call in calls:
        with pytest.raises(CredentialError, match="wiped"):
            call()


@pytest.mark.parametrize("rrc", [0, 28, 32, 40, 1000])
def test_a_token_cut_off_anywhere_is_refused_whatever_rotation_it_names(
    etype: int, rrc: int
) -> None:
    key = crypto.random_key(etype)
    ours = CfxProtection(
        key,
        initiator=True,
        acceptor_subkey=True,
        send_seq=0,
        receive_seq=7,
        flags=int(Flag.REPLAY),
        random=bytes,
    )
    peer = Forger(key, "acceptor", seq=7)
    for token, sealed in (
        (peer.sealed(b"data", rrc=rrc), True),
        (peer.signed(b"data", seq=8, rrc=rrc), False),
    ):
        for length in range(len(token)):
            with pytest.raises((DecodeError, IntegrityError)):
                ours.unwrap(token[:length], sealed)
        assert ours.unwrap(token, sealed) == b"data"


def test_a_context_that_only_signs_makes_no_other_cipher() -> None:
    ours, theirs = ends(18)
    theirs.verify_mic(b"data", ours.get_mic(b"data"))
    assert ours._sign is not None
    assert (ours._seal, ours._unseal, ours._unsign) == (None, None, None)


# --- tokens taken apart


def test_a_wrap_token_is_taken_apart(etype: int) -> None:
    peer = Forger(crypto.random_key(etype), "acceptor", seq=77)
    for rrc in (0, 1, 28, 1000):
        parsed = WrapToken.decode(peer.sealed(b"data", ec=3, rrc=rrc))
        assert (parsed.flags, parsed.ec, parsed.rrc, parsed.snd_seq) == (7, 3, rrc, 77)
        assert crypto.decrypt(peer.key, 22, parsed.data) == b"data\0\0\0" + header(7, 3, 0, 77)
        signed = WrapToken.decode(peer.signed(b"data", rrc=rrc))
        assert (signed.flags, signed.ec, signed.data[:4]) == (5, MAC[etype], b"data")


def test_a_mic_token_is_taken_apart(etype: int) -> None:
    peer = Forger(crypto.random_key(etype), "initiator", acceptor_subkey=False, seq=1 << 40)
    parsed = MicToken.decode(peer.mic(b"data"))
    assert (parsed.flags, parsed.snd_seq, len(parsed.data)) == (0, 1 << 40, MAC[etype])


@pytest.mark.parametrize("length", [0, 1, 8, 15])
def test_less_than_a_header_is_no_token(length: int) -> None:
    peer = Forger(crypto.random_key(18), "initiator")
    with pytest.raises(DecodeError):
        WrapToken.decode(peer.sealed(b"data")[:length])
    with pytest.raises(DecodeError):
        MicToken.decode(peer.mic(b"data")[:length])
    with pytest.raises(DecodeError):
        WrapToken.decode(peer.mic(b"data"))
    with pytest.raises(DecodeError):
        MicToken.decode(peer.sealed(b"data"))


# --- keys of the other family


def test_rfc_4121_tokens_need_an_aes_key() -> None:
    arguments: dict[str, Any] = {
        "initiator": True,
        "acceptor_subkey": False,
        "send_seq": 0,
        "receive_seq": 0,
        "flags": 0,
        "random": bytes,
    }
    with pytest.raises(UnsupportedError, match="AES key"):
        CfxProtection(EncryptionKey(23, bytes(16)), **arguments)
    assert CfxProtection(EncryptionKey(17, bytes(16)), **arguments).get_mic(b"")
    assert 23 not in CfxProtection.etypes


# --- RC4


@pytest.mark.parametrize("length", [0, 1, 70, 77, 78, 79, 127, 128, 200, 208, 209, 65_000, 70_000])
def test_rc4_tokens_go_there_and_back_with_frames_of_every_length(length: int) -> None:
    key = EncryptionKey(23, bytes(range(16)))
    common: dict[str, Any] = {
        "acceptor_subkey": False,
        "flags": 0xC,
        "random": lambda n: b"\x5a" * n,
    }
    ours = Rc4Protection(key, initiator=True, send_seq=0xFFFFFFFF, receive_seq=3, **common)
    theirs = Rc4Protection(key, initiator=False, send_seq=3, receive_seq=0xFFFFFFFF, **common)
    data = bytes(length)
    for _ in range(2):  # past 2^32
        for sealed in (True, False):
            assert theirs.unwrap(ours.wrap(data, sealed), sealed) == data
            assert ours.unwrap(theirs.wrap(data, sealed), sealed) == data


def test_rc4_sizes_and_limits_are_exact() -> None:
    sender = Rc4Protection(
        EncryptionKey(23, bytes(16)),
        initiator=True,
        acceptor_subkey=False,
        send_seq=0,
        receive_seq=0,
        flags=0,
        random=bytes,
    )
    assert len(sender.wrap(b"", True)) == 46  # 45 and one byte of padding
    for sealed in (True, False):
        for size in (*range(40, 400), 65_570, 65_580, 65_590, 70_000):
            limit = sender.wrap_size_limit(size, sealed)
            if size < 46:
                assert limit == 0
                continue
            assert (
                len(sender.wrap(bytes(limit), sealed))
                <= size
                < len(sender.wrap(bytes(limit + 1), sealed))
            )
