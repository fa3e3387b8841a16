"""Tokens in pieces, DCE style and the pseudo-random function with MIT's GSS-API, in both roles."""

from __future__ import annotations

import pytest

from purekrb import Flag, IovBuffer, IovType, PolicyError, PrfKey
from support.context_checks import Connect, Lab, Pair, peer_refuses, refuses
from support.gss_peer import GssPeer
from support.iov import LAYOUTS, layout, message_of
from support.mit import MitRealm

AES = (17, 18, 19, 20)
DCE = Flag.DEFAULT | Flag.DCE_STYLE
SIZES = (0, 1, 15, 16, 17, 1000, 70_000)


@pytest.fixture(scope="module")
def lab(mit_realm: MitRealm, mit_gss: GssPeer) -> Lab:
    return Lab(mit_realm, mit_gss)


@pytest.fixture(params=AES, ids=[f"etype-{etype}" for etype in AES])
def etype(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(params=["we_initiate", "they_initiate"])
def connect(lab: Lab, request: pytest.FixtureRequest) -> Connect:
    value: Connect = getattr(lab, request.param)
    return value


@pytest.fixture(params=[Flag.DEFAULT, DCE], ids=["standard", "dce-style"])
def pair(connect: Connect, etype: int, request: pytest.FixtureRequest) -> Pair:
    return connect(f"svc-{etype}", etype, flags=request.param)


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "signed"])
def test_every_layout_passes_each_way(pair: Pair, sealed: bool) -> None:
    for letters in LAYOUTS:
        for size in SIZES:
            buffers = layout(letters, size)
            ours = pair.ours.wrap_iov(buffers, sealed)
            assert list(map(len, (data for _, data in ours))) == pair.ours.wrap_iov_length(
                buffers, sealed
            )
            received, was_sealed = pair.theirs.unwrap_iov(ours)
            assert message_of(received) == message_of(buffers)
            assert was_sealed == (sealed and "D" in letters)
            theirs = pair.theirs.wrap_iov(buffers, sealed=sealed)
            assert message_of(pair.ours.unwrap_iov(theirs, sealed)) == message_of(buffers)
            assert list(map(len, (data for _, data in theirs))) == list(
                map(len, (data for _, data in ours))
            )


def test_one_piece_is_taken_as_stream_and_pieces_as_one(connect: Connect, etype: int) -> None:
    pair = connect(f"svc-{etype}", etype)
    for size in SIZES:
        for sealed in (True, False):
            header, data = layout("HD", size)
            token = pair.theirs.wrap(data.data, sealed=sealed)
            assert (
                pair.ours.unwrap_iov(
                    [IovBuffer(IovType.STREAM, token), IovBuffer(IovType.DATA)], sealed
                )[1]
                == data
            )
            stream = IovBuffer(IovType.STREAM, pair.ours.wrap(data.data, sealed))
            received, was_sealed = pair.theirs.unwrap_iov([stream, IovBuffer(IovType.DATA)])
            assert (received[1], was_sealed) == (data, sealed)
            joined = b"".join(piece.data for piece in pair.ours.wrap_iov([header, data], sealed))
            assert pair.theirs.unwrap(joined) == (data.data, sealed)
            joined = b"".join(
                piece.data for piece in pair.theirs.wrap_iov([header, data], sealed=sealed)
            )
            assert pair.ours.unwrap(joined, sealed) == data.data


def test_a_stream_goes_with_what_is_signed_beside_it(pair: Pair) -> None:
    """MIT knows no STREAM in DCE style; there it is ours alone that reads it."""
    dce_style = bool(pair.ours.flags & Flag.DCE_STYLE)
    before, _, data, behind = layout("SHDS", 33)
    header = IovBuffer(IovType.HEADER)
    for sealed in (True, False):
        pieces = pair.theirs.wrap_iov([before, header, data, behind], sealed=sealed)
        stream = IovBuffer(IovType.STREAM, pieces[1].data + pieces[2].data)
        parts = [stream, before, IovBuffer(IovType.DATA), behind]
        assert pair.ours.unwrap_iov(parts, sealed) == [stream, before, data, behind]
        pieces = pair.ours.wrap_iov([before, header, data, behind], sealed)
        stream = IovBuffer(IovType.STREAM, pieces[1].data + pieces[2].data)
        parts = [stream, before, IovBuffer(IovType.DATA), behind]
        if dce_style:
            peer_refuses(lambda parts=parts: pair.theirs.unwrap_iov(parts))
            pair.theirs.unwrap_iov(pieces)
        else:
            received, was_sealed = pair.theirs.unwrap_iov(parts)
            assert (received[2], was_sealed) == (data, sealed)


def test_lengths_are_the_same(pair: Pair) -> None:
    for letters in LAYOUTS:
        for sealed in (True, False):
            buffers = layout(letters, 100)
            assert pair.ours.wrap_iov_length(buffers, sealed) == pair.theirs.wrap_iov_length(
                buffers, sealed=sealed
            )


def test_altered_pieces_are_refused_by_both(pair: Pair) -> None:
    for sealed in (True, False):
        buffers = layout("SHDS", 20)
        theirs = pair.theirs.wrap_iov(buffers, sealed=sealed)
        for number, (kind, data) in enumerate(theirs):
            altered = [*theirs]
            altered[number] = IovBuffer(kind, data[:-1] + bytes([data[-1] ^ 1]))
            refuses(lambda altered=altered, sealed=sealed: pair.ours.unwrap_iov(altered, sealed))
        assert message_of(pair.ours.unwrap_iov(theirs, sealed)) == message_of(buffers)
        for number in range(len(buffers)):
            ours = pair.ours.wrap_iov(buffers, sealed)
            kind, data = ours[number]
            altered = [
                *ours[:number],
                IovBuffer(kind, data[:-1] + bytes([data[-1] ^ 1])),
                *ours[number + 1 :],
            ]
            peer_refuses(lambda altered=altered: pair.theirs.unwrap_iov(altered))
            pair.theirs.unwrap_iov(ours)


def test_what_is_only_signed_is_not_taken_for_sealed(pair: Pair) -> None:
    buffers = layout("HSD", 10)
    signed = pair.theirs.wrap_iov(buffers, sealed=False)
    with pytest.raises(PolicyError):
        pair.ours.unwrap_iov(signed)
    assert message_of(pair.ours.unwrap_iov(signed, sealed=False)) == message_of(buffers)


# --- DCE style


def test_dce_style_implies_mutual_authentication(connect: Connect, etype: int) -> None:
    pair = connect(f"svc-{etype}", etype, flags=(DCE & ~Flag.MUTUAL) | Flag.MUTUAL)
    assert pair.ours.established
    assert pair.theirs.established
    assert pair.ours.mutual
    assert pair.ours.flags & DCE == DCE
    assert pair.theirs.flags & Flag.MUTUAL


def test_mics_and_whole_tokens_pass_in_dce_style(connect: Connect, etype: int) -> None:
    """A whole token of ours is HEADER and DATA; MIT's gss_wrap makes one without rotation."""
    pair = connect(f"svc-{etype}", etype, flags=DCE)
    for size in SIZES:
        data = layout("D", size)[0].data
        pair.theirs.verify_mic(data, pair.ours.get_mic(data))
        pair.ours.verify_mic(data, pair.theirs.get_mic(data))
        for sealed in (True, False):
            assert pair.ours.unwrap(pair.theirs.wrap(data, sealed=sealed), sealed) == data
            token = pair.ours.wrap(data, sealed)
            split = len(token) - size
            pieces = [
                IovBuffer(IovType.HEADER, token[:split]),
                IovBuffer(IovType.DATA, token[split:]),
            ]
            received, was_sealed = pair.theirs.unwrap_iov(pieces)
            assert (received[1].data, was_sealed) == (data, sealed)


def test_a_third_leg_that_is_altered_or_another_contexts_is_refused_by_both(
    lab: Lab, etype: int
) -> None:
    def ours_waiting() -> tuple[bytes, object]:
        theirs = lab.peer.initiate(f"svc-{etype}@localhost", lab.ccache, flags=DCE)
        ours = lab.acceptor(etype)
        third_leg = theirs.step(ours.step(theirs.step()))
        assert third_leg is not None
        return third_leg, ours

    def theirs_waiting() -> tuple[bytes, object]:
        ours = lab.initiator(f"svc-{etype}", etype, flags=DCE)
        theirs = lab.peer.accept(lab.realm.service_keytab)
        third_leg = ours.step(theirs.step(ours.step()))
        assert third_leg is not None
        return third_leg, theirs

    for waiting, refused in ((ours_waiting, refuses), (theirs_waiting, peer_refuses)):
        third_leg, acceptor = waiting()
        refused(
            lambda acceptor=acceptor, token=third_leg: acceptor.step(
                token[:-1] + bytes([token[-1] ^ 1])
            )
        )
        _, acceptor = waiting()
        refused(lambda acceptor=acceptor, token=third_leg: acceptor.step(token))
        third_leg, acceptor = waiting()
        assert acceptor.step(third_leg) is None
        assert acceptor.established


def test_an_impostor_of_dce_style_proves_nothing(lab: Lab, etype: int) -> None:
    ours = lab.initiator(f"svc-{etype}", etype, flags=DCE)
    impostor = lab.peer.accept(lab.realm.keytab("host/localhost"))
    refusal = peer_refuses(lambda: impostor.step(ours.step()))
    refuses(lambda: ours.step(refusal.token))
    assert not ours.established


# --- the pseudo-random function


@pytest.mark.parametrize(
    "flags", [Flag.DEFAULT, DCE, Flag.CONF], ids=["standard", "dce-style", "not-mutual"]
)
def test_both_derive_the_same_bytes(connect: Connect, etype: int, flags: Flag) -> None:
    pair = connect(f"svc-{etype}", etype, flags=flags)
    made = set()
    for key_use in PrfKey:
        for data in (b"", b"label", bytes(1000)):
            for length in (0, 1, 44, 1000):
                ours = pair.ours.prf(key_use, data, length)
                assert ours == pair.theirs.prf(key_use, data, length)
                assert len(ours) == length
                made.add(ours[:44])
    assert len([value for value in made if len(value) == 44]) == (3 if flags is Flag.CONF else 6)
    pair.theirs.verify_mic(b"goes on", pair.ours.get_mic(b"goes on"))


def test_rc4_contexts_derive_the_same_bytes(connect: Connect) -> None:
    pair = connect("svc-23", 23)
    assert pair.ours.prf(PrfKey.FULL, b"label", 44) == pair.theirs.prf(PrfKey.FULL, b"label", 44)
