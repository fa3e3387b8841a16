"""Wrap tokens in pieces: layouts, sizes and what callers may pass. MIT has its say in interop/test_iov_mit.py."""

from __future__ import annotations

from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ContextError,
    DecodeError,
    Flag,
    Initiator,
    IntegrityError,
    IovBuffer,
    IovType,
    PolicyError,
    ProtocolError,
    SequenceError,
    UnsupportedError,
    crypto,
)
from support.cfx import Forger, header
from support.contexts import AES, pair
from support.iov import LAYOUTS, layout, message_of

H, D, S, P, T = layout("HDSPT", 0)
DCE = Flag.DEFAULT | Flag.DCE_STYLE
MAC = {17: 12, 18: 12, 19: 16, 20: 24}
Context = Initiator | Acceptor


@pytest.fixture(params=AES, ids=[f"etype-{etype}" for etype in AES])
def etype(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(params=[Flag.DEFAULT, DCE], ids=["standard", "dce-style"])
def ends(etype: int, request: pytest.FixtureRequest) -> tuple[Context, Context]:
    return pair(etype, flags=request.param)


def data(contents: bytes) -> IovBuffer:
    return IovBuffer(IovType.DATA, contents)


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "signed"])
def test_every_layout_goes_there_and_back(ends: tuple[Context, Context], sealed: bool) -> None:
    for sender, receiver in (ends, ends[::-1]):
        for letters in LAYOUTS:
            for size in (0, 1, 15, 16, 17, 33, 40_000):
                buffers = layout(letters, size)
                sent = sender.wrap_iov(buffers, sealed)
                assert [buffer.type for buffer in sent] == [buffer.type for buffer in buffers]
                assert [len(buffer.data) for buffer in sent] == sender.wrap_iov_length(
                    buffers, sealed
                )
                for before, after in zip(buffers, sent, strict=True):
                    if before.type is IovType.SIGN_ONLY or (
                        before.type is IovType.DATA and not sealed
                    ):
                        assert after == before
                    elif before.type is IovType.DATA and size > 15:
                        assert after != before
                received = receiver.unwrap_iov(sent, sealed)
                assert message_of(received) == message_of(buffers)
                assert [buffer.data for buffer in received if buffer.type is IovType.HEADER] == [
                    buffer.data for buffer in sent if buffer.type is IovType.HEADER
                ]


def test_the_sizes_of_each_piece(etype: int) -> None:
    """Sealed: 60 bytes before the data with AES-SHA1, in DCE style 76; only signed 28 in both."""
    mac = MAC[etype]
    for flags, ec in ((Flag.DEFAULT, 0), (DCE, 16)):
        ours, _ = pair(etype, flags=flags)
        assert ours.wrap_iov_length([H, data(b"12345"), P]) == [16 + ec + 16 + mac + 16, 5, 0]
        assert ours.wrap_iov_length([H, data(b"12345"), T]) == [32, 5, ec + 16 + mac]
        assert ours.wrap_iov_length([H, data(b"12345")], sealed=False) == [16 + mac, 5]
        assert ours.wrap_iov_length([H, data(b"12345"), T], sealed=False) == [16, 5, mac]
        assert ours.wrap_iov_length([H, S]) == [16 + mac, 0]


def test_the_standard_layout_is_that_of_wrap(etype: int) -> None:
    for size in (0, 1, 100, 30_000):
        contents = layout("D", size)[0].data
        ours, theirs = pair(etype)
        for sealed in (True, False):
            pieces = ours.wrap_iov([H, data(contents)], sealed)
            assert theirs.unwrap(pieces[0].data + pieces[1].data, sealed) == contents
            pieces = ours.wrap_iov([H, data(contents[:1]), data(contents[1:]), T], sealed)
            assert theirs.unwrap(b"".join(piece.data for piece in pieces), sealed) == contents
            token = ours.wrap(contents, sealed)
            start = len(token) - size if sealed else 16  # what is only signed is not rotated
            pieces = [IovBuffer(IovType.HEADER, token[:start]), data(token[start : start + size])]
            if not sealed:
                pieces.append(IovBuffer(IovType.TRAILER, token[start + size :]))
            assert theirs.unwrap_iov(pieces, sealed)[1].data == contents


def test_the_layout_of_dce_style(etype: int) -> None:
    """Header, 16 bytes of filler, copy of the header, MAC, confounder; EC 16 and an RRC that does not count it."""
    mac = MAC[etype]
    ours, theirs = pair(etype, flags=DCE, initiator={"random": lambda n: b"\x11" * n})
    key = ours.session_key
    seq = int.from_bytes(b"\x11" * 4, "big")
    pieces = ours.wrap_iov([H, data(b"first "), data(b"second")])
    copy = header(6, 16, 0, seq)
    body = crypto.encrypt(key, 24, b"first second" + b"\xff" * 16 + copy, b"\x11" * 16)
    assert pieces[0].data == header(6, 16, 16 + mac, seq) + body[28:] + body[:16]
    assert pieces[1].data + pieces[2].data == body[16:28]
    assert message_of(theirs.unwrap_iov(pieces)) == [data(b"first "), data(b"second")]
    token = ours.wrap(b"whole")
    assert len(token) == 76 - 12 + mac + 5
    assert token[:16] == header(6, 16, 16 + mac, seq + 1)
    assert theirs.unwrap(token) == b"whole"
    signed = ours.wrap(b"whole", sealed=False)
    assert signed[:16] == header(4, mac, mac, seq + 2)
    assert theirs.unwrap(signed, sealed=False) == b"whole"
    assert ours.wrap_size_limit(len(token)) == 5
    assert ours.wrap_size_limit(len(signed), sealed=False) == 5
    assert ours.wrap_size_limit(10) == 0


def test_whole_tokens_of_every_size_go_there_and_back_in_dce_style(etype: int) -> None:
    for sender, receiver in (pair(etype, flags=DCE), pair(etype, flags=DCE)[::-1]):
        for size in (0, 1, 16, 20_000, 70_001):
            contents = layout("D", size)[0].data
            for sealed in (True, False):
                assert receiver.unwrap(sender.wrap(contents, sealed), sealed) == contents
                token = sender.wrap(contents, sealed)
                assert sender.wrap_size_limit(len(token), sealed) == size
                room = bytearray(len(token))
                assert receiver.unwrap_into(token, room, sealed) == size
                assert room[:size] == contents


def test_what_is_signed_beside_the_data_is_part_of_no_token(ends: tuple[Context, Context]) -> None:
    sender, _ = ends
    with_, without = sender.wrap_iov(layout("HSDS", 50)), sender.wrap_iov(layout("HD", 50))
    assert len(with_[0].data) == len(without[0].data)


def test_without_data_nothing_is_sealed_and_nothing_need_be(ends: tuple[Context, Context]) -> None:
    sender, receiver = ends
    sent = sender.wrap_iov(layout("HSS", 20), sealed=True)
    assert not sent[0].data[2] & 2
    assert receiver.unwrap_iov(sent, sealed=True) == sent


def test_a_message_that_is_only_signed_is_not_taken_for_a_sealed_one(
    ends: tuple[Context, Context],
) -> None:
    sender, receiver = ends
    for letters in ("HD", "HDT", "HSD"):
        buffers = layout(letters, 30)
        sent = sender.wrap_iov(buffers, sealed=False)
        with pytest.raises(PolicyError):
            receiver.unwrap_iov(sent)
        assert message_of(receiver.unwrap_iov(sent, sealed=False)) == message_of(buffers)


def test_each_message_counts_once(ends: tuple[Context, Context]) -> None:
    sender, receiver = ends
    sent = sender.wrap_iov(layout("HSD", 30))
    receiver.unwrap_iov(sent)
    with pytest.raises(SequenceError) as caught:
        receiver.unwrap_iov(sent)
    assert caught.value.reason == "duplicate"
    assert receiver.unwrap(sender.wrap(b"shares the numbers")) == b"shares the numbers"
    receiver.verify_mic(b"so does", sender.get_mic(b"so does"))
    with pytest.raises(ProtocolError, match="other direction"):
        sender.unwrap_iov(sender.wrap_iov(layout("HD", 1)))


def test_a_stream_is_split_by_its_receiver(ends: tuple[Context, Context]) -> None:
    sender, receiver = ends
    before, behind = layout("SS", 20)
    for sealed in (True, False):
        pieces = sender.wrap_iov([H, before, data(b"message"), behind], sealed)
        stream = IovBuffer(IovType.STREAM, pieces[0].data + pieces[2].data)
        for wrong in (
            [stream, data(b""), before, behind],
            [before, behind, stream, data(b"")],
            [stream, data(b"")],
        ):
            with pytest.raises(IntegrityError):
                receiver.unwrap_iov(wrong, sealed)
        parts = [before, data(b"what stands here is replaced"), stream, behind]
        assert receiver.unwrap_iov(parts, sealed) == [before, data(b"message"), stream, behind]


@pytest.mark.parametrize("ec", [1, 16, 40])
def test_filler_of_the_peer_is_taken_off(etype: int, ec: int) -> None:
    _, theirs = pair(etype, flags=Flag.MUTUAL)
    peer = Forger.peer_of(theirs, 0)
    tail = ec + 16 + peer.mac_size
    token = peer.sealed(b"message", ec=ec, rrc=tail)
    pieces = [IovBuffer(IovType.HEADER, token[:-7]), data(token[-7:])]
    assert theirs.unwrap_iov(pieces)[1] == data(b"message")
    token = peer.sealed(b"message", ec=ec)
    trailer = IovBuffer(IovType.TRAILER, token[-tail:])
    pieces = [IovBuffer(IovType.HEADER, token[:32]), data(token[32:-tail]), trailer]
    assert theirs.unwrap_iov(pieces)[1] == data(b"message")


def test_pieces_that_are_split_elsewhere_are_refused_and_change_nothing(
    ends: tuple[Context, Context],
) -> None:
    sender, receiver = ends
    for letters in ("HD", "HDT"):
        for sealed in (True, False):
            head, body, *rest = sender.wrap_iov(layout(letters, 30), sealed)
            moved = [
                [
                    IovBuffer(IovType.HEADER, head.data[:-1]),
                    data(head.data[-1:] + body.data),
                    *rest,
                ],
                [IovBuffer(IovType.HEADER, head.data + body.data[:1]), data(body.data[1:]), *rest],
                [IovBuffer(IovType.HEADER, head.data + body.data), *rest],
                [head, body, *rest, IovBuffer(IovType.PADDING, b"\0")],
                [IovBuffer(IovType.HEADER, head.data[:15]), body, *rest],
                [IovBuffer(IovType.HEADER), body, *rest],
                [head, body, T] if not rest else [head, body],
            ]
            for buffers in moved:
                with pytest.raises(DecodeError):
                    receiver.unwrap_iov(buffers, sealed)
            assert len(receiver.unwrap_iov([head, body, *rest], sealed)) == 2 + len(rest)


def test_a_stream_that_is_cut_off_is_refused_and_changes_nothing(
    ends: tuple[Context, Context],
) -> None:
    sender, receiver = ends
    for sealed in (True, False):
        token = sender.wrap(b"", sealed)
        for size in range(len(token)):
            with pytest.raises(DecodeError):
                receiver.unwrap_iov([IovBuffer(IovType.STREAM, token[:size]), D], sealed)
        assert receiver.unwrap_iov([IovBuffer(IovType.STREAM, token), D], sealed)[1] == D


@pytest.mark.parametrize(
    "buffers",
    [
        pytest.param([], id="none"),
        pytest.param([D], id="no-header"),
        pytest.param([H, H, D], id="two-headers"),
        pytest.param([H, D, T, T], id="two-trailers"),
        pytest.param([H, D, P, P], id="two-paddings"),
        pytest.param([H, D, IovBuffer(IovType.STREAM)], id="header-and-stream"),
        pytest.param([IovBuffer(IovType.STREAM, bytes(100))], id="stream-without-data"),
        pytest.param([IovBuffer(IovType.STREAM, bytes(100)), D, D], id="stream-with-two-data"),
        pytest.param([IovBuffer(IovType.STREAM, bytes(100)), D, T], id="stream-and-trailer"),
    ],
)
def test_sets_of_buffers_that_make_no_token_are_a_mistake_of_the_caller(
    buffers: list[IovBuffer],
) -> None:
    ours, theirs = pair()
    with pytest.raises(ValueError, match=r"buffer|HEADER"):
        ours.wrap_iov(buffers)
    with pytest.raises(ValueError, match=r"buffer|HEADER"):
        ours.wrap_iov_length(buffers)
    with pytest.raises(ValueError) as caught:
        theirs.unwrap_iov(buffers)
    assert not isinstance(caught.value, IntegrityError)
    assert message_of(theirs.unwrap_iov(ours.wrap_iov([H, data(b"next")]))) == [data(b"next")]


def test_any_bytes_will_do_and_nothing_else() -> None:
    ours, theirs = pair()
    contents = b"some bytes"
    for make in (bytearray, memoryview):
        sent = ours.wrap_iov([H, IovBuffer(IovType.SIGN_ONLY, make(b"seen")), data(make(contents))])  # type: ignore[arg-type]
        sent = [IovBuffer(kind, make(value)) for kind, value in sent]  # type: ignore[arg-type]
        assert theirs.unwrap_iov(sent)[2].data == contents
    for wrong in (5, "text", None):
        with pytest.raises(TypeError):
            ours.wrap_iov([H, data(wrong)])  # type: ignore[arg-type]


def test_a_buffer_tells_its_type_and_size_and_nothing_of_its_data() -> None:
    assert repr(data(b"secret")) == "IovBuffer(DATA, 6 bytes)"
    assert IovBuffer(IovType.HEADER) == (IovType.HEADER, b"")


def test_rc4_contexts_have_whole_tokens_only() -> None:
    ours, theirs = pair(23)
    calls: list[Any] = [ours.wrap_iov, ours.wrap_iov_length, theirs.unwrap_iov]
    for call in calls:
        with pytest.raises(UnsupportedError, match="AES"):
            call([H, D])
    assert theirs.unwrap(ours.wrap(b"data")) == b"data"
    with pytest.raises(UnsupportedError, match="DCE style needs AES"):
        pair(23, flags=DCE)


def test_calls_before_the_handshake_and_after_the_end_are_refused() -> None:
    ours, theirs = pair()
    sent = ours.wrap_iov([H, D])
    for context in (ours, theirs):
        context.close()
        for call in (context.wrap_iov, context.unwrap_iov, context.wrap_iov_length):
            with pytest.raises(ContextError):
                call(sent)


# --- negotiated


@pytest.mark.parametrize("etype", AES)
def test_dce_style_may_be_negotiated_by_spnego(etype: int) -> None:
    """One leg more inside, and so one more outside; the acceptor is established by the initiator's AP-REP."""
    ours, theirs = pair(
        etype, flags=DCE, initiator={"mechanism": "negotiate"}, accept={"mechanism": "negotiate"}
    )
    assert theirs.flags & DCE == DCE
    buffers = layout("HSDS", 24)
    assert message_of(theirs.unwrap_iov(ours.wrap_iov(buffers))) == message_of(buffers)
    assert len(ours.wrap(b"")) == 64 + MAC[etype]
