"""RFC 4121 per-message tokens that are altered, forged, repeated or cut off (K133 to K156)."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    DecodeError,
    Flag,
    Initiator,
    IntegrityError,
    KerberosError,
    PolicyError,
    ProtocolError,
    SequenceError,
    crypto,
)
from support.cfx import SEAL, SIGN, Forger, header
from support.contexts import AES, flipped, pair
from support.processes import soak
from support.vectors import load

Context = Initiator | Acceptor
NO_ORDER = Flag.MUTUAL | Flag.CONF | Flag.INTEG
REPLAY_ONLY = NO_ORDER | Flag.REPLAY


@pytest.fixture(params=AES, ids=[f"etype-{etype}" for etype in AES])
def etype(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(params=["to-acceptor", "to-initiator"])
def ends(etype: int, request: pytest.FixtureRequest) -> tuple[Context, Context]:
    """(sender, receiver) of a context."""
    ours, theirs = pair(etype)
    return (ours, theirs) if request.param == "to-acceptor" else (theirs, ours)


def refuses(receiver: Context, token: bytes, *, sealed: bool = True) -> KerberosError:
    """Assert that the receiver gives no plaintext for the token; returns its error."""
    with pytest.raises(KerberosError) as caught:
        receiver.unwrap(token, sealed=sealed)
    assert not isinstance(caught.value, SequenceError)
    return caught.value


def send(sender: Context, data: bytes, kind: str) -> bytes:
    return sender.get_mic(data) if kind == "mic" else sender.wrap(data, sealed=kind == "sealed")


def take(receiver: Context, data: bytes, token: bytes, kind: str) -> None:
    """Assert that the receiver takes a token of `kind` for `data`."""
    if kind == "mic":
        receiver.verify_mic(data, token)
    else:
        assert receiver.unwrap(token, sealed=kind == "sealed") == data


def forged_for(receiver: Context) -> Forger:
    """Return a forger of the next token for `receiver` (of a context that does not care for order)."""
    return Forger.peer_of(receiver, 0)


@pytest.fixture
def receiver(etype: int) -> Context:
    """An acceptor that does not care for order."""
    return pair(etype, flags=NO_ORDER)[1]


# --- K133: MIC


def test_k133_every_altered_byte_of_a_mic_and_of_its_message(ends: tuple[Context, Context]) -> None:
    sender, receiver = ends
    message = b"message"
    size = 16 + Forger.peer_of(receiver, 0).mac_size
    for place in range(size + len(message)):
        mic = sender.get_mic(message)
        assert len(mic) == size
        if place < len(mic):
            pairs = [(message, mic[:place] + bytes([mic[place] + 1 & 0xFF]) + mic[place + 1 :])]
            pairs += [(message, flipped(mic, 8 * place + bit)) for bit in range(8)]
        else:
            at = place - len(mic)
            pairs = [(message[:at] + bytes([message[at] + 1 & 0xFF]) + message[at + 1 :], mic)]
            pairs += [(flipped(message, 8 * at + bit), mic) for bit in range(8)]
        for data, token in pairs:
            with pytest.raises((DecodeError, ProtocolError, IntegrityError)):
                receiver.verify_mic(data, token)
        receiver.verify_mic(message, mic)


@pytest.mark.parametrize("data", [b"", b"messag", b"message\0", b"Message"])
def test_k133_a_mic_of_another_message(ends: tuple[Context, Context], data: bytes) -> None:
    sender, receiver = ends
    mic = sender.get_mic(b"message")
    with pytest.raises(IntegrityError):
        receiver.verify_mic(data, mic)
    receiver.verify_mic(b"message", mic)


def test_k133_the_mic_of_another_context(etype: int) -> None:
    (ours, theirs), (others, _) = pair(etype), pair(etype)
    with pytest.raises(IntegrityError):
        theirs.verify_mic(b"message", others.get_mic(b"message"))
    theirs.verify_mic(b"message", ours.get_mic(b"message"))


# --- K134: every bit


def flips(token: bytes) -> Iterator[tuple[int, bytes]]:
    for bit in range(8 * len(token)):
        yield bit, flipped(token, bit)


def same_rotation(token: bytes, altered: bytes) -> bool:
    """Whether both differ in RRC alone, by a multiple of the body's length, which RFC 4121 4.2.5 makes the same."""
    one, two = (struct.unpack_from(">H", t, 6)[0] for t in (token, altered))
    return (
        token[:6] + token[8:] == altered[:6] + altered[8:] and (one - two) % (len(token) - 16) == 0
    )


@pytest.mark.parametrize("kind", ["sealed", "signed"])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 33])
def test_k134_every_flipped_bit_and_then_the_genuine_token(
    ends: tuple[Context, Context], kind: str, length: int
) -> None:
    sender, receiver = ends
    data = bytes(range(length))
    body = length + forged_for(receiver).mac_size + (32 if kind == "sealed" else 0)
    tolerated = 0
    for bit in range(8 * (16 + body)):
        token = send(sender, data, kind)
        assert len(token) == 16 + body
        altered = flipped(token, bit)
        if same_rotation(token, altered):
            tolerated += 1
            take(receiver, data, altered, kind)
            with pytest.raises(SequenceError):
                take(receiver, data, token, kind)
        else:
            refuses(receiver, altered, sealed=kind == "sealed")
            take(receiver, data, token, kind)
    assert tolerated == sum((1 << n) % body == 0 for n in range(16))


def test_k134_every_flipped_bit_of_every_length(etype: int) -> None:
    ours, theirs = pair(etype, flags=NO_ORDER)
    lengths = range(65) if soak(0, 1) else range(etype % 4, 65, 4)
    for length in lengths:
        data = bytes(length)
        for sealed in (True, False):
            token = ours.wrap(data, sealed)
            for _, altered in flips(token):
                if same_rotation(token, altered):
                    assert theirs.unwrap(altered, sealed=sealed) == data
                else:
                    refuses(theirs, altered, sealed=sealed)
            assert theirs.unwrap(token, sealed=sealed) == data


def test_a_large_token_is_checked_as_a_small_one(etype: int) -> None:
    """Large messages take a way of their own through the cipher."""
    ours, theirs = pair(etype)
    data = bytes(range(256)) * 400
    for sealed in (True, False):
        for place in (
            2,
            4,
            5,
            6,
            7,
            8,
            15,
            16,
            31,
            32,
            43,
            44,
            60,
            1000,
            65_536,
            65_600,
            -60,
            -17,
            -16,
            -1,
        ):
            token = ours.wrap(data, sealed)
            altered = bytearray(token)
            altered[place] ^= 0x40
            refuses(theirs, bytes(altered), sealed=sealed)
            assert theirs.unwrap(token, sealed=sealed) == data
        token = ours.wrap(data, sealed)
        for cut in (token[:-1], token[:-16], token[:50_000], token + b"\0"):
            refuses(theirs, cut, sealed=sealed)
        assert theirs.unwrap(token, sealed=sealed) == data


# --- K135 to K139: EC, lengths and the header's copy


@pytest.mark.parametrize("outer", [1, 3, 12, 16, 23, 24, 255, 65535])
def test_k135_an_ec_that_is_not_the_encrypted_one(receiver: Context, outer: int) -> None:
    peer = forged_for(receiver)
    data = b"transfer 100000 to bob"
    copy = header(peer.flags | 2, 0, 0, 0)
    assert isinstance(
        refuses(receiver, peer.sealed(data, outer=header(peer.flags | 2, outer, 0, 0))),
        IntegrityError,
    )
    for rrc in (1, 28):
        refuses(
            receiver,
            peer.sealed(data, rrc=rrc, outer=header(peer.flags | 2, outer, rrc, 0), copy=copy),
        )
    assert receiver.unwrap(peer.sealed(data)) == data


@pytest.mark.parametrize("ec", [0, 1, 3, 16, 28, 100])
def test_k135_filler_of_any_length_and_content_is_stripped(receiver: Context, ec: int) -> None:
    peer = forged_for(receiver)
    for fill in (bytes(ec), b"\xff" * ec, bytes(range(ec))):
        for data in (b"", b"data"):
            assert receiver.unwrap(peer.sealed(data, ec=ec, fill=fill)) == data


@pytest.mark.parametrize("length", range(16))
def test_k136_a_plaintext_that_is_too_short_for_a_header(receiver: Context, length: int) -> None:
    peer = forged_for(receiver)
    assert isinstance(refuses(receiver, peer.sealed(b"", plaintext=bytes(length))), DecodeError)
    copy = header(peer.flags | 2, 0, 0, 0)
    refuses(receiver, peer.sealed(b"", plaintext=copy[-length:] if length else b""))
    assert receiver.unwrap(peer.sealed(b"", plaintext=copy)) == b""


@pytest.mark.parametrize(("ec", "length"), [(5, 4), (1, 0), (17, 16), (65535, 100)])
def test_k137_more_filler_than_there_is_data(receiver: Context, ec: int, length: int) -> None:
    peer = forged_for(receiver)
    assert isinstance(
        refuses(receiver, peer.sealed(bytes(length), ec=ec, fill=b"")), IntegrityError
    )
    assert receiver.unwrap(peer.sealed(b"", ec=length, fill=bytes(length))) == b""


@pytest.mark.parametrize("ec", [0, 1, 11, 13, 15, 17, 23, 25, 28, 65535])
def test_k138_an_ec_that_is_not_the_length_of_the_checksum(receiver: Context, ec: int) -> None:
    peer = forged_for(receiver)
    assert ec != peer.mac_size
    assert isinstance(
        refuses(receiver, peer.signed(b"data" * 20, ec=ec), sealed=False), DecodeError
    )
    for rrc in (1, 12, 28):
        refuses(receiver, peer.signed(b"data" * 20, ec=ec, rrc=rrc), sealed=False)
    assert receiver.unwrap(peer.signed(b"data" * 20), sealed=False) == b"data" * 20


COPIES = [
    pytest.param({"tok_id": 0x0404}, id="K139-tok-id"),
    pytest.param({"tok_id": 0x0505}, id="K139-tok-id-lowest-bit"),
    pytest.param({"flags": 0}, id="K139-no-flags"),
    pytest.param({"flags": 7}, id="K139-sent-by-acceptor"),
    pytest.param({"flags": 4}, id="K139-not-sealed"),
    pytest.param({"flags": 0x86}, id="K139-unknown-flag"),
    pytest.param({"filler": 0}, id="K139-filler"),
    pytest.param({"filler": 0xFE}, id="K139-filler-lowest-bit"),
    pytest.param({"ec": 1}, id="K139-ec"),
    pytest.param({"rrc": 28}, id="K139-rrc-as-sent"),
    pytest.param({"seq": 1}, id="K139-seq"),
    pytest.param({"seq": 1 << 63}, id="K139-seq-highest-bit"),
]


@pytest.mark.parametrize("altered", COPIES)
def test_k139_each_field_of_the_encrypted_header_is_compared(
    receiver: Context, altered: dict[str, int]
) -> None:
    peer = forged_for(receiver)
    fields: dict[str, int] = {"flags": peer.flags | 2, "ec": 0, "rrc": 0, "seq": 0}
    copy = header(**(fields | altered))  # type: ignore[arg-type]
    assert isinstance(refuses(receiver, peer.sealed(b"data", rrc=28, copy=copy)), IntegrityError)
    assert receiver.unwrap(peer.sealed(b"data", rrc=28, copy=header(**fields))) == b"data"  # type: ignore[arg-type]


# --- K140 to K142: rotation


def test_k140_any_rotation_is_undone(receiver: Context) -> None:
    peer = forged_for(receiver)
    for data in (b"", b"data", bytes(100)):
        sealed, signed = len(peer.sealed(data)) - 16, len(peer.signed(data)) - 16
        for kind, body in (("sealed", sealed), ("signed", signed)):
            for rrc in {*range(40), body - 1, body, body + 1, 2 * body, 3 * body + 5, 65535}:
                token = (
                    peer.sealed(data, rrc=rrc) if kind == "sealed" else peer.signed(data, rrc=rrc)
                )
                assert receiver.unwrap(token, sealed=kind == "sealed") == data


@pytest.mark.parametrize("length", [30_000, 100_000])
def test_k140_a_large_token_may_be_rotated_too(receiver: Context, length: int) -> None:
    peer = forged_for(receiver)
    data = bytes(range(256)) * (length // 256)
    for rrc in (0, 1, 16, 28, 44, 20_000, 65535):
        assert receiver.unwrap(peer.sealed(data, rrc=rrc)) == data
        assert receiver.unwrap(peer.sealed(data, rrc=rrc, ec=16)) == data


def test_k141_another_rotation_than_the_one_named(receiver: Context) -> None:
    peer = forged_for(receiver)
    for data in (b"", b"twenty-three bytes long"):
        for sealed in (True, False):
            make = peer.sealed if sealed else peer.signed
            body = len(make(data)) - 16
            for rrc in (0, 12, 28):
                for off in (1, -1, 5, body // 2, 100):
                    token = make(data, rrc=rrc, turn=rrc + off)
                    if off % body:
                        refuses(receiver, token, sealed=sealed)
                assert receiver.unwrap(make(data, rrc=rrc, turn=rrc + body), sealed=sealed) == data


def test_k142_the_rotation_of_dce_style_is_refused_outside_of_it(receiver: Context) -> None:
    peer = forged_for(receiver)
    refuses(receiver, peer.sealed(b"data", ec=16, rrc=28, turn=44))
    assert receiver.unwrap(peer.sealed(b"data", ec=16, rrc=28, turn=28)) == b"data"
    refuses(receiver, peer.signed(b"data", rrc=12, turn=12 + peer.mac_size), sealed=False)
    assert receiver.unwrap(peer.signed(b"data", rrc=12), sealed=False) == b"data"


@pytest.mark.parametrize("etype", AES)
def test_k142_dce_style_rotates_by_ec_and_rrc_where_it_is_sealed(etype: int) -> None:
    for receiver in pair(
        etype, flags=(Flag.DEFAULT | Flag.DCE_STYLE) & ~Flag.SEQUENCE & ~Flag.REPLAY
    ):
        peer = forged_for(receiver)
        for ec, rrc in ((16, 28), (16, 0), (0, 28), (0, 0), (3, 1000)):
            assert receiver.unwrap(peer.sealed(b"data", ec=ec, rrc=rrc, turn=ec + rrc)) == b"data"
            if ec:
                refuses(receiver, peer.sealed(b"data", ec=ec, rrc=rrc, turn=rrc))
        assert receiver.unwrap(peer.signed(b"data", rrc=12), sealed=False) == b"data"
        refuses(receiver, peer.signed(b"data", rrc=12, turn=12 + peer.mac_size), sealed=False)


# --- K143 to K148: flags


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_k143_our_own_token_reflected(ends: tuple[Context, Context], kind: str) -> None:
    sender, receiver = ends
    token = send(sender, b"data", kind)
    with pytest.raises(ProtocolError, match="other direction"):
        take(sender, b"data", token, kind)
    turned = token[:2] + bytes([token[2] ^ 1]) + token[3:]
    with pytest.raises(IntegrityError):
        take(sender, b"data", turned, kind)
    take(receiver, b"data", token, kind)


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_k143_a_token_that_claims_the_wrong_direction(receiver: Context, kind: str) -> None:
    peer = forged_for(receiver)
    flags = (peer.flags ^ 1) | (2 if kind == "sealed" else 0)
    with pytest.raises(ProtocolError, match="other direction"):
        take(receiver, b"data", getattr(peer, kind)(b"data", flags=flags), kind)
    take(receiver, b"data", getattr(peer, kind)(b"data"), kind)


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_k144_a_token_without_the_agreed_subkey(etype: int, kind: str) -> None:
    ours, theirs = pair(etype, flags=NO_ORDER)
    assert ours._agreed is not None
    subkey = ours._agreed.initiator_key
    for key in (subkey, ours.session_key):
        peer = Forger(key, "initiator", acceptor_subkey=False)
        with pytest.raises(ProtocolError, match="agreed on"):
            take(theirs, b"data", getattr(peer, kind)(b"data"), kind)
    flagged = Forger(subkey, "initiator", acceptor_subkey=True)
    with pytest.raises(IntegrityError):
        take(theirs, b"data", getattr(flagged, kind)(b"data"), kind)
    take(theirs, b"data", getattr(Forger(ours.session_key, "initiator"), kind)(b"data"), kind)


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_k145_a_token_with_a_subkey_that_nobody_sent(etype: int, kind: str) -> None:
    ours, theirs = pair(etype, flags=Flag.CONF | Flag.INTEG)
    for receiver, role in ((theirs, "initiator"), (ours, "acceptor")):
        wrong = Forger(ours.session_key, role, acceptor_subkey=True)
        with pytest.raises(ProtocolError, match="agreed on"):
            take(receiver, b"data", getattr(wrong, kind)(b"data"), kind)
        right = Forger(ours.session_key, role, acceptor_subkey=False)
        take(receiver, b"data", getattr(right, kind)(b"data"), kind)


def test_k146_a_mic_that_is_marked_as_sealed(receiver: Context) -> None:
    peer = forged_for(receiver)
    with pytest.raises(ProtocolError, match="marked as sealed"):
        receiver.verify_mic(b"data", peer.mic(b"data", flags=peer.flags | 2))
    receiver.verify_mic(b"data", peer.mic(b"data"))


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
@pytest.mark.parametrize("bit", range(3, 8))
def test_k147_unknown_flags_are_ignored_and_covered(receiver: Context, kind: str, bit: int) -> None:
    peer = forged_for(receiver)
    flags = peer.flags | (2 if kind == "sealed" else 0) | 1 << bit
    token = getattr(peer, kind)(b"data", flags=flags)
    take(receiver, b"data", token, kind)
    without = token[:2] + bytes([flags ^ 1 << bit]) + token[3:]
    with pytest.raises(IntegrityError):
        take(receiver, b"data", without, kind)


def test_k148_a_signed_message_where_a_sealed_one_is_expected(
    ends: tuple[Context, Context],
) -> None:
    sender, receiver = ends
    token = sender.wrap(b"data", sealed=False)
    for _ in range(2):
        with pytest.raises(PolicyError, match="only signed"):
            receiver.unwrap(token)
    assert receiver.unwrap(token, sealed=False) == b"data"
    assert receiver.unwrap(sender.wrap(b"data")) == b"data"
    assert receiver.unwrap(sender.wrap(b"data"), sealed=False) == b"data"


def test_k148_a_sealed_token_whose_flag_is_cleared_gives_nothing(
    ends: tuple[Context, Context],
) -> None:
    sender, receiver = ends
    token = sender.wrap(b"data")
    clear = token[:2] + bytes([token[2] & ~2]) + token[3:]
    for ec in (0, 12, 16, 24):
        for rrc in (0, 12, 28):
            refuses(receiver, clear[:4] + struct.pack(">HH", ec, rrc) + clear[8:], sealed=False)
    signed = sender.wrap(b"data", sealed=False)
    refuses(receiver, signed[:2] + bytes([signed[2] | 2]) + signed[3:])
    assert receiver.unwrap(token) == b"data"
    assert receiver.unwrap(signed, sealed=False) == b"data"


# --- K149 to K151: lengths, other tokens, usages


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_k149_a_token_cut_off_anywhere(ends: tuple[Context, Context], kind: str) -> None:
    sender, receiver = ends
    for data in (b"", b"twenty-three bytes long"):
        token = send(sender, data, kind)
        for length in range(len(token)):
            with pytest.raises((DecodeError, IntegrityError)):
                take(receiver, data, token[:length], kind)
        for tail in (b"\0", bytes(16), token):
            with pytest.raises((DecodeError, IntegrityError)):
                take(receiver, data, token + tail, kind)
        take(receiver, data, token, kind)


def test_k149_a_header_alone(ends: tuple[Context, Context]) -> None:
    sender, receiver = ends
    for kind in ("sealed", "signed", "mic"):
        token = send(sender, b"", kind)
        for length in range(17):
            with pytest.raises((DecodeError, IntegrityError)):
                take(receiver, b"", token[:length], kind)
        take(receiver, b"", token, kind)


def test_k149_sixteen_megabytes(etype: int) -> None:
    ours, theirs = pair(etype)
    data = bytes(16 << 20)
    token = ours.wrap(data)
    refuses(theirs, token[:-1])
    assert theirs.unwrap(token) == data


RFC_1964 = load("gss_rc4.json")


@pytest.mark.parametrize("vector", [pytest.param(v, id=f"K150-{v['name']}") for v in RFC_1964])
def test_k150_a_token_of_rfc_1964_or_4757(receiver: Context, vector: dict[str, Any]) -> None:
    token = vector["token"]
    for sealed in (True, False):
        assert isinstance(refuses(receiver, token, sealed=sealed), DecodeError)
    with pytest.raises(DecodeError):
        receiver.verify_mic(b"message", token)
    peer = forged_for(receiver)
    assert receiver.unwrap(peer.sealed(b"data")) == b"data"


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_k150_one_kind_of_token_for_another(receiver: Context, kind: str) -> None:
    peer = forged_for(receiver)
    token = getattr(peer, kind)(b"data")
    calls: dict[str, Callable[[], object]] = {
        "wrap": lambda: receiver.unwrap(token, sealed=False),
        "mic": lambda: receiver.verify_mic(b"data", token),
    }
    with pytest.raises(DecodeError):
        calls["wrap" if kind == "mic" else "mic"]()
    take(receiver, b"data", token, kind)


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
@pytest.mark.parametrize("role", ["initiator", "acceptor"])
def test_k151_another_key_usage(etype: int, role: str, kind: str) -> None:
    ours, theirs = pair(etype, flags=NO_ORDER)
    receiver = theirs if role == "initiator" else ours
    peer = Forger(ours.session_key, role)
    own = SIGN[role] if kind == "mic" else SEAL[role]
    for usage in (11, 12, 15, 22, 23, 24, 25):
        token = getattr(peer, kind)(b"data", usage=usage)
        if usage == own:
            take(receiver, b"data", token, kind)
        else:
            with pytest.raises(IntegrityError):
                take(receiver, b"data", token, kind)


@pytest.mark.parametrize("name", ["initiator", "acceptor"])
def test_our_tokens_are_those_that_the_rfc_describes(etype: int, name: str) -> None:
    """The control of the forger: it opens what the contexts send."""
    ours, theirs = pair(etype)
    sender = ours if name == "initiator" else theirs
    peer = Forger(ours.session_key, name)
    for data in (b"", b"data", bytes(40_000)):
        for sealed in (True, False):
            assert peer.opens(sender.wrap(data, sealed)) == data
        mic = sender.get_mic(data)
        assert mic == peer.mic(data, seq=int.from_bytes(mic[8:16], "big"))


# --- K152 to K155: order


def reason_of(receiver: Context, token: bytes) -> str:
    try:
        receiver.unwrap(token)
    except SequenceError as error:
        return error.reason
    return "ok"


STEPS = {
    "K152-in-order": [(0, "ok"), (1, "ok"), (2, "ok")],
    "K152-replay": [
        (0, "ok"),
        (0, "duplicate"),
        (1, "ok"),
        (0, "duplicate"),
        (1, "duplicate"),
        (2, "ok"),
    ],
    "K152-gap": [(0, "ok"), (2, "gap"), (3, "ok"), (1, "unsequenced"), (1, "duplicate"), (4, "ok")],
    "K152-old": [
        (0, "ok"),
        (100, "gap"),
        (36, "old"),
        (37, "unsequenced"),
        (0, "old"),
        (101, "ok"),
    ],
    "K152-before-the-first": [
        (-1, "unsequenced"),
        (0, "ok"),
        (-1, "duplicate"),
        (-64, "old"),
        (1, "ok"),
    ],
    "K152-far-ahead": [(0, "ok"), (1 << 40, "gap"), (1, "old"), ((1 << 40) + 1, "ok")],
}


@pytest.mark.parametrize("first", [0, 7, 0x7FFFFFFF, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("steps", list(STEPS.values()), ids=list(STEPS))
def test_k152_replay_gap_old_and_late(first: int, steps: list[tuple[int, str]]) -> None:
    """Past 2^32 the numbers go on: they have 64 bits."""
    ours, theirs = pair(
        initiator={"random": lambda size: first.to_bytes(4, "big") if size == 4 else b"r" * size}
    )
    assert int.from_bytes(ours.get_mic(b"")[8:16], "big") == first
    peer = Forger(ours.session_key, "initiator")
    for offset, expected in steps:
        assert reason_of(theirs, peer.sealed(b"data", seq=(first + offset) % (1 << 64))) == expected


@pytest.mark.parametrize("steps", list(STEPS.values()), ids=list(STEPS))
def test_k152_with_replay_detection_alone_late_is_not_wrong(steps: list[tuple[int, str]]) -> None:
    ours, theirs = pair(
        flags=REPLAY_ONLY, initiator={"random": lambda size: bytes(3) + b"\x50" * (size - 3)}
    )
    first = int.from_bytes(ours.get_mic(b"")[8:16], "big")
    peer = Forger(ours.session_key, "initiator")
    for offset, expected in steps:
        expected = "ok" if expected in ("gap", "unsequenced") else expected
        assert reason_of(theirs, peer.sealed(b"data", seq=(first + offset) % (1 << 64))) == expected


def test_k152_without_both_nothing_is_kept(etype: int) -> None:
    ours, theirs = pair(etype, flags=NO_ORDER)
    token = ours.wrap(b"data")
    later = ours.wrap(b"later")
    for one in (later, token, token, later):
        assert reason_of(theirs, one) == "ok"


def test_k152_wrap_and_mic_share_a_counter(ends: tuple[Context, Context]) -> None:
    sender, receiver = ends
    numbers = [
        int.from_bytes(send(sender, b"", kind)[8:16], "big")
        for kind in ("sealed", "mic", "signed", "mic")
    ]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    with pytest.raises(SequenceError):
        receiver.verify_mic(b"", sender.get_mic(b""))  # the four before it are missing
    mic = sender.get_mic(b"")
    receiver.verify_mic(b"", mic)
    with pytest.raises(SequenceError, match="already received"):
        receiver.verify_mic(b"", mic)


def test_k153_a_forged_token_does_not_move_the_window(ends: tuple[Context, Context]) -> None:
    sender, receiver = ends
    stranger = Forger(
        crypto.random_key(sender.etype),
        "initiator" if isinstance(sender, Initiator) else "acceptor",
    )
    for ahead in (1, 2, 50, 64, 65, 1 << 20, 1 << 62):
        token = sender.wrap(b"data")
        seq = int.from_bytes(token[8:16], "big") + ahead
        for forged in (
            stranger.sealed(b"data", seq=seq),
            token[:8] + seq.to_bytes(8, "big") + token[16:],
        ):
            refuses(receiver, forged)
        refuses(receiver, stranger.signed(b"data", seq=seq), sealed=False)
        with pytest.raises(IntegrityError):
            receiver.verify_mic(b"data", stranger.mic(b"data", seq=seq))
        assert receiver.unwrap(token) == b"data"


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_k153_after_each_altered_byte_the_next_genuine_token_passes(
    ends: tuple[Context, Context], kind: str
) -> None:
    sender, receiver = ends
    data = b"twenty-three bytes long"
    places = (
        16
        + forged_for(receiver).mac_size
        + {"sealed": 32 + len(data), "signed": len(data), "mic": 0}[kind]
    )
    for place in range(places):
        token = send(sender, data, kind)
        assert len(token) == places
        altered = flipped(token, 8 * place + place % 8)
        assert kind == "mic" or not same_rotation(token, altered)
        with pytest.raises((DecodeError, ProtocolError, IntegrityError, PolicyError)):
            take(receiver, data, altered, kind)
        take(receiver, data, token, kind)


def test_k154_a_mic_of_number_0_is_told_from_a_forged_one() -> None:
    """Windows numbers the mechListMIC of SPNEGO 0. Contexts call it old, not forged, so that SPNEGO can let it pass."""
    ours, theirs = pair(accept={"random": lambda size: b"\x12" * size})
    peer = Forger(ours.session_key, "acceptor")
    with pytest.raises(SequenceError) as caught:
        ours.verify_mic(b"mech types", peer.mic(b"mech types", seq=0))
    assert caught.value.reason == "old"
    with pytest.raises(IntegrityError):
        ours.verify_mic(b"other types", peer.mic(b"mech types", seq=0))
    ours.verify_mic(b"data", theirs.get_mic(b"data"))


def test_k155_one_token_in_two_threads_passes_once() -> None:
    ours, theirs = pair(flags=REPLAY_ONLY)
    tokens = [ours.wrap(b"%d" % number) for number in range(soak(200, 5000))]
    barrier = threading.Barrier(4)
    passed: list[bytes] = []

    def receive() -> None:
        for token in tokens:
            barrier.wait()
            try:
                passed.append(theirs.unwrap(token))
            except SequenceError:
                continue

    threads = [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(passed) == sorted(b"%d" % number for number in range(len(tokens)))


RANGES = [range(1041), range(2040, 2081), range(4080, 5001), range(8180, 8293), range(9980, 10011)]


@pytest.mark.parametrize("sealed", [True, False])
def test_k156_the_size_limit_is_monotone_and_exact(
    ends: tuple[Context, Context], sealed: bool
) -> None:
    sender, _ = ends
    overhead = len(sender.wrap(b"", sealed))
    for sizes in RANGES:
        last = 0
        for size in sizes:
            limit = sender.wrap_size_limit(size, sealed)
            assert limit == max(0, size - overhead)
            assert limit >= last
            last = limit
    for size in (overhead, overhead + 1, 1000, 1040, 2060, 4096, 8192, 10_000):
        limit = sender.wrap_size_limit(size, sealed)
        assert (
            len(sender.wrap(bytes(limit), sealed))
            <= size
            < len(sender.wrap(bytes(limit + 1), sealed))
        )


@pytest.mark.parametrize("kind", ["sealed", "signed", "mic"])
def test_messages_of_one_context_do_not_pass_in_another(etype: int, kind: str) -> None:
    (ours, theirs), (others, _) = pair(etype, flags=Flag.DEFAULT), pair(etype)
    with pytest.raises(IntegrityError):
        take(theirs, b"data", send(others, b"data", kind), kind)
    take(theirs, b"data", send(ours, b"data", kind), kind)
