"""SASL over contexts in memory: the offer of layers, our choice, buffers of limited size (RFC 4752)."""

from __future__ import annotations

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
)
from purekrb.constants import KRB5_MECH_OID, NegState
from purekrb.directory.sasl import (
    MAX_BUFFER,
    MECHANISMS,
    Bind,
    Layer,
    Reply,
    SecurityLayer,
    context_flags,
)
from purekrb.messages.spnego import encode_mech_types
from support.contexts import acceptor, flipped, pair
from support.spnego import opened, read, resp
from support.tickets import issue

LAYERS = (Layer.NONE, Layer.INTEGRITY, Layer.CONFIDENTIALITY)


def begin(layer: Layer, mechanism: str = "GSSAPI") -> tuple[Bind, Initiator, Acceptor]:
    ticket, keys = issue()
    initiator = Initiator(ticket, flags=context_flags(layer))
    return MECHANISMS[mechanism](initiator, layer), initiator, acceptor(keys)


def up_to_offer(layer: Layer, offer: bytes) -> tuple[Bind, Acceptor, bytes]:
    """Return a bind that has taken the server's token, the server, and the wrapped offer."""
    bind, _, server = begin(layer)
    assert bind.send(Reply(server.step(next(bind)) or b"", False)) == b""
    return bind, server, server.wrap(offer, sealed=False)


def finish(bind: Bind, reply: Reply) -> SecurityLayer | None:
    with pytest.raises(StopIteration) as done:
        bind.send(reply)
    return done.value.value  # type: ignore[no-any-return]


def layers(sealed: bool = True, **sizes: int) -> tuple[SecurityLayer, SecurityLayer]:
    """Return the two ends of a layer; `max_send` and `max_receive` are the client's."""
    initiator, server = pair()
    ours = SecurityLayer(initiator, sealed=sealed, **{"max_send": 65536, **sizes})
    return ours, SecurityLayer(server, sealed=sealed, max_send=sizes.get("max_receive", 65536))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_the_layer_that_was_asked_for_is_chosen_from_an_offer_of_all(layer: Layer) -> None:
    bind, server, offer = up_to_offer(layer, b"\7\1\0\0")
    answer = server.unwrap(bind.send(Reply(offer, False)), sealed=False)
    assert answer == bytes((layer,)) + (bytes(3) if layer is Layer.NONE else b"\xff\xff\xff")
    agreed = finish(bind, Reply(b"", True))
    assert (agreed is None) == (layer is Layer.NONE)
    if agreed is not None:
        data = server.unwrap(agreed.wrap(b"search")[4:], sealed=layer is Layer.CONFIDENTIALITY)
        assert data == b"search"


def test_a_context_is_asked_for_no_more_than_the_layer_needs() -> None:
    assert context_flags(Layer.NONE) == Flag.MUTUAL
    assert Flag.INTEG in context_flags(Layer.INTEGRITY)
    assert Flag.CONF not in context_flags(Layer.INTEGRITY)
    assert Flag.CONF in context_flags(Layer.CONFIDENTIALITY)


@pytest.mark.parametrize(
    ("layer", "mask"),
    [(layer, mask) for layer in LAYERS for mask in (*range(8), 0xF8) if not mask & layer],
    ids=lambda value: f"{value:d}",
)
def test_what_is_asked_for_is_not_weakened(layer: Layer, mask: int) -> None:
    bind, _, offer = up_to_offer(layer, bytes((mask, 1, 0, 0)))
    with pytest.raises(PolicyError, match="does not offer"):
        bind.send(Reply(offer, False))


def test_unknown_bits_of_an_offer_are_ignored() -> None:
    bind, server, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\xff\1\0\0")
    assert server.unwrap(bind.send(Reply(offer, False)), sealed=False)[0] == Layer.CONFIDENTIALITY


@pytest.mark.parametrize("size", [0, 1, 60, 255])
def test_k272_a_buffer_into_which_nothing_fits_is_refused(size: int) -> None:
    bind, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7" + size.to_bytes(3, "big"))
    with pytest.raises(ProtocolError, match="too small for a message"):
        bind.send(Reply(offer, False))


@pytest.mark.parametrize("size", [256, 65536, 0xFFFFFF])
def test_k272_control_buffers_of_any_useful_size_are_kept_to(size: int) -> None:
    bind, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7" + size.to_bytes(3, "big"))
    bind.send(Reply(offer, False))
    agreed = finish(bind, Reply(b"", True))
    assert agreed is not None
    sent = agreed.wrap(bytes(200_000))
    largest = 0
    while sent:
        length = int.from_bytes(sent[:4], "big")
        largest, sent = max(largest, length), sent[4 + length :]
    assert largest == min(size, 65536)


@pytest.mark.parametrize("offer", [b"", b"\7", b"\7\1\0", b"\7\1\0\0\0"], ids=bytes.hex)
def test_an_offer_has_four_octets(offer: bytes) -> None:
    bind, _, token = up_to_offer(Layer.CONFIDENTIALITY, offer)
    with pytest.raises(ProtocolError, match="4 octets"):
        bind.send(Reply(token, False))


def test_k272_an_offer_that_was_altered_anywhere_is_refused() -> None:
    _, _, genuine = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
    rrc = range(48, 64)  # how the token is rotated is not protected, and changes nothing
    for bit in set(range(0, 8 * len(genuine), 7)).difference(rrc):
        bind, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
        with pytest.raises(KerberosError):
            bind.send(Reply(flipped(offer, bit), False))


@pytest.mark.parametrize("token", [b"", b"\7\1\0\0"], ids=["empty", "not-wrapped"])
def test_k272_an_offer_without_a_token_around_it_is_refused(token: bytes) -> None:
    bind, _, _ = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
    with pytest.raises(DecodeError):
        bind.send(Reply(token, False))


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_success_before_the_server_has_proved_itself_is_refused(mechanism: str) -> None:
    bind, _, _ = begin(Layer.CONFIDENTIALITY, mechanism)
    next(bind)
    with pytest.raises((ProtocolError, DecodeError)):
        bind.send(Reply(b"", True))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_negotiation_by_spnego_leads_to_the_layer_without_an_offer(layer: Layer) -> None:
    ticket, keys = issue()
    context = Initiator(ticket, flags=context_flags(layer), mechanism="negotiate")
    bind, server = MECHANISMS["GSS-SPNEGO"](context, layer), acceptor(keys, mechanism="negotiate")
    agreed = finish(bind, Reply(server.step(next(bind)) or b"", True))
    assert (agreed is None) == (layer is Layer.NONE)
    if agreed is not None:
        assert server.unwrap(agreed.wrap(b"x")[4:], sealed=layer is Layer.CONFIDENTIALITY) == b"x"


@pytest.mark.parametrize("final", [True, False])
def test_success_while_spnego_still_waits_for_our_mic_is_refused(final: bool) -> None:
    ticket, keys = issue()
    context = Initiator(ticket, mechanism="negotiate")
    bind, server = MECHANISMS["GSS-SPNEGO"](context, Layer.CONFIDENTIALITY), acceptor(keys)
    offer = opened(next(bind))
    token = server.step(offer.mech_token or b"")
    mic = server.get_mic(encode_mech_types(offer.mech_types))
    reply = Reply(resp(NegState.REQUEST_MIC, KRB5_MECH_OID, token, mic), final)
    if final:
        with pytest.raises(ProtocolError, match="impostor"):
            bind.send(reply)
    else:
        assert read(bind.send(reply)).neg_state == NegState.ACCEPT_COMPLETED
        assert finish(bind, Reply(b"", True)) is not None


def test_success_before_the_layer_is_chosen_is_refused() -> None:
    bind, _, server = begin(Layer.CONFIDENTIALITY)
    token = server.step(next(bind)) or b""
    with pytest.raises(ProtocolError, match="impostor"):
        bind.send(Reply(token, True))


@pytest.mark.parametrize(
    "reply", [Reply(b"", False), Reply(b"more", True), Reply(b"more", False)], ids=str
)
def test_nothing_follows_the_choice_of_a_layer(reply: Reply) -> None:
    bind, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
    bind.send(Reply(offer, False))
    with pytest.raises(ProtocolError, match="continues to negotiate"):
        bind.send(reply)


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "signed"])
@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 1 << 20])
def test_data_of_any_size_passes_through_the_layer_however_it_is_cut(
    sealed: bool, size: int
) -> None:
    ours, theirs = layers(sealed, max_send=4096)
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sent = ours.wrap(data)
    if size >= 1000:
        assert (data[:256] in sent) != sealed
    received = b""
    for start in range(0, len(sent), 1021):
        received += theirs.unwrap(sent[start : start + 1021])
    assert received == data
    assert theirs.pending == 0


def test_a_sealed_layer_takes_no_token_that_is_only_signed() -> None:
    ours, theirs = layers()
    token = theirs.context.wrap(b"x", sealed=False)
    with pytest.raises(PolicyError):
        ours.unwrap(len(token).to_bytes(4, "big") + token)


@pytest.mark.parametrize("length", [0, MAX_BUFFER + 1, 0x1000_0000, 0xFFFF_FFFF])
def test_k272_a_length_that_was_not_agreed_on_is_refused_before_anything_arrives(
    length: int,
) -> None:
    ours, _ = layers()
    with pytest.raises(DecodeError, match="SASL buffer"):
        ours.unwrap(length.to_bytes(4, "big"))


def test_k272_control_the_largest_length_is_waited_for() -> None:
    ours, _ = layers()
    assert ours.unwrap(MAX_BUFFER.to_bytes(4, "big")) == b""
    assert ours.pending == 4


def test_k272_a_forged_buffer_between_genuine_ones_is_refused() -> None:
    ours, theirs = layers()
    first, second = theirs.wrap(b"first"), theirs.wrap(b"second")
    assert ours.unwrap(first) == b"first"
    with pytest.raises(IntegrityError):
        ours.unwrap(flipped(second, 8 * len(second) - 1))


@pytest.mark.parametrize("order", [(1,), (0, 0), (0, 2)], ids=["first-lost", "twice", "one-lost"])
def test_buffers_that_are_lost_or_come_twice_are_refused(order: tuple[int, ...]) -> None:
    ours, theirs = layers()
    sent = [theirs.wrap(bytes((number,))) for number in range(3)]
    with pytest.raises(KerberosError):
        ours.unwrap(b"".join(sent[number] for number in order))
