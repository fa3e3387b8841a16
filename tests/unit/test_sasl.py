"""SASL over contexts in memory: the offer of layers, our choice, buffers of limited size (RFC 4752)."""

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
    KerberosError,
    PolicyError,
    ProtocolError,
)
from purekrb.constants import KRB5_MECH_OID, NegState
from purekrb.messages.spnego import encode_mech_types
from purekrb.sasl import (
    CLIENTS,
    MAX_BUFFER,
    GssapiClient,
    GssapiServer,
    GssSpnegoClient,
    GssSpnegoServer,
    Layer,
    SaslClient,
    SecurityLayer,
    context_flags,
)
from support.contexts import acceptor, flipped, pair
from support.spnego import opened, read, resp
from support.tickets import issue

LAYERS = (Layer.NONE, Layer.INTEGRITY, Layer.CONFIDENTIALITY)


def begin(
    layer: Layer, mechanism: str = "GSSAPI", authzid: str = ""
) -> tuple[SaslClient, Initiator, Acceptor]:
    ticket, keys = issue()
    initiator = Initiator(ticket, flags=context_flags(layer))
    client = CLIENTS[mechanism](initiator, layer=layer, authzid=authzid)
    return client, initiator, acceptor(keys)


def up_to_offer(layer: Layer, offer: bytes) -> tuple[SaslClient, Acceptor, bytes]:
    """Return a client that has taken the server's token, the server, and the wrapped offer."""
    client, _, server = begin(layer)
    assert client.step(server.step(client.step())) == b""
    return client, server, server.wrap(offer, sealed=False)


def layers(sealed: bool = True, **sizes: int) -> tuple[SecurityLayer, SecurityLayer]:
    """Return the two ends of a layer; `max_send` and `max_receive` are the client's."""
    initiator, server = pair()
    ours = SecurityLayer(initiator, sealed=sealed, **{"max_send": 65536, **sizes})
    return ours, SecurityLayer(server, sealed=sealed, max_send=sizes.get("max_receive", 65536))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_the_layer_that_was_asked_for_is_chosen_from_an_offer_of_all(layer: Layer) -> None:
    client, server, offer = up_to_offer(layer, b"\7\1\0\0")
    answer = server.unwrap(client.step(offer), sealed=False)
    assert answer == bytes((layer,)) + (bytes(3) if layer is Layer.NONE else b"\xff\xff\xff")
    agreed = client.succeed()
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
    client, _, offer = up_to_offer(layer, bytes((mask, 1, 0, 0)))
    with pytest.raises(PolicyError, match="does not offer"):
        client.step(offer)


def test_unknown_bits_of_an_offer_are_ignored() -> None:
    client, server, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\xff\1\0\0")
    assert server.unwrap(client.step(offer), sealed=False)[0] == Layer.CONFIDENTIALITY


@pytest.mark.parametrize("size", [0, 1, 60, 255])
def test_k272_a_buffer_into_which_nothing_fits_is_refused(size: int) -> None:
    client, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7" + size.to_bytes(3, "big"))
    with pytest.raises(ProtocolError, match="too small for a message"):
        client.step(offer)


@pytest.mark.parametrize("size", [256, 65536, 0xFFFFFF])
def test_k272_control_buffers_of_any_useful_size_are_kept_to(size: int) -> None:
    client, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7" + size.to_bytes(3, "big"))
    client.step(offer)
    agreed = client.succeed()
    assert agreed is not None
    sent = agreed.wrap(bytes(200_000))
    largest = 0
    while sent:
        length = int.from_bytes(sent[:4], "big")
        largest, sent = max(largest, length), sent[4 + length :]
    assert largest == min(size, 65536)


@pytest.mark.parametrize("offer", [b"", b"\7", b"\7\1\0", b"\7\1\0\0\0"], ids=bytes.hex)
def test_an_offer_has_four_octets(offer: bytes) -> None:
    client, _, token = up_to_offer(Layer.CONFIDENTIALITY, offer)
    with pytest.raises(ProtocolError, match="4 octets"):
        client.step(token)


def test_k272_an_offer_that_was_altered_anywhere_is_refused() -> None:
    _, _, genuine = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
    rrc = range(48, 64)  # how the token is rotated is not protected, and changes nothing
    for bit in set(range(0, 8 * len(genuine), 7)).difference(rrc):
        client, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
        with pytest.raises(KerberosError):
            client.step(flipped(offer, bit))


@pytest.mark.parametrize("token", [b"", b"\7\1\0\0"], ids=["empty", "not-wrapped"])
def test_k272_an_offer_without_a_token_around_it_is_refused(token: bytes) -> None:
    client, _, _ = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
    with pytest.raises(DecodeError):
        client.step(token)


@pytest.mark.parametrize("mechanism", sorted(CLIENTS))
def test_success_before_the_server_has_proved_itself_is_refused(mechanism: str) -> None:
    client, _, _ = begin(Layer.CONFIDENTIALITY, mechanism)
    client.step()
    with pytest.raises((ProtocolError, DecodeError)):
        client.succeed()


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_negotiation_by_spnego_leads_to_the_layer_without_an_offer(layer: Layer) -> None:
    ticket, keys = issue()
    context = Initiator(ticket, flags=context_flags(layer), mechanism="negotiate")
    client, server = GssSpnegoClient(context, layer=layer), acceptor(keys, mechanism="negotiate")
    agreed = client.succeed(server.step(client.step()) or b"")
    assert (agreed is None) == (layer is Layer.NONE)
    if agreed is not None:
        assert server.unwrap(agreed.wrap(b"x")[4:], sealed=layer is Layer.CONFIDENTIALITY) == b"x"


@pytest.mark.parametrize("final", [True, False])
def test_success_while_spnego_still_waits_for_our_mic_is_refused(final: bool) -> None:
    ticket, keys = issue()
    context = Initiator(ticket, mechanism="negotiate")
    client, server = GssSpnegoClient(context), acceptor(keys)
    offer = opened(client.step())
    token = server.step(offer.mech_token or b"")
    mic = server.get_mic(encode_mech_types(offer.mech_types))
    reply = resp(NegState.REQUEST_MIC, KRB5_MECH_OID, token, mic)
    if final:
        with pytest.raises(ProtocolError, match="impostor"):
            client.succeed(reply)
    else:
        assert read(client.step(reply)).neg_state == NegState.ACCEPT_COMPLETED
        assert client.succeed() is not None


def test_success_before_the_layer_is_chosen_is_refused() -> None:
    client, _, server = begin(Layer.CONFIDENTIALITY)
    token = server.step(client.step())
    with pytest.raises(ProtocolError, match="impostor"):
        client.succeed(token)


@pytest.mark.parametrize(
    ("final", "token"), [(False, b""), (True, b"more"), (False, b"more")], ids=str
)
def test_nothing_follows_the_choice_of_a_layer(final: bool, token: bytes) -> None:
    client, _, offer = up_to_offer(Layer.CONFIDENTIALITY, b"\7\1\0\0")
    client.step(offer)
    with pytest.raises(ProtocolError, match="continues to negotiate"):
        (client.succeed if final else client.step)(token)


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


# -- the server's side


def meet(client: SaslClient, server: GssapiServer | GssSpnegoServer) -> None:
    """Carry the tokens of both sides until the server is content, and tell the client."""
    challenge = server.step(client.step())
    while not server.complete:
        assert challenge is not None
        challenge = server.step(client.step(challenge))
    client.succeed(challenge or b"")


def sides(
    layer: Layer, layers: Layer, authzid: str = "", **options: Any
) -> tuple[SaslClient, GssapiServer]:
    client, _, context = begin(layer, authzid=authzid)
    return client, GssapiServer(context, layers=layers, **options)


def exchanged(client: SaslClient, server: GssapiServer | GssSpnegoServer) -> bool:
    """Send data both ways through the layers; return whether they were sealed."""
    ours, theirs = client.security, server.security
    assert ours is not None
    assert theirs is not None
    sent = ours.wrap(b"a plain text")
    assert theirs.unwrap(sent) == b"a plain text"
    assert ours.unwrap(theirs.wrap(b"another")) == b"another"
    return b"plain" not in sent


ALL = Layer.NONE | Layer.INTEGRITY | Layer.CONFIDENTIALITY


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_client_and_server_agree_on_the_layer_that_the_client_wants(layer: Layer) -> None:
    client, server = sides(layer, ALL)
    meet(client, server)
    assert str(server.context.initiator) == "alice@EXAMPLE.TEST"
    if layer is Layer.NONE:
        assert client.security is server.security is None
    else:
        assert exchanged(client, server) == (layer is Layer.CONFIDENTIALITY)


def test_a_client_that_takes_several_layers_gets_the_strongest_that_is_offered() -> None:
    client, server = sides(ALL, Layer.NONE | Layer.INTEGRITY)
    meet(client, server)
    assert not exchanged(client, server)


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [(Layer.NONE, Layer.CONFIDENTIALITY), (Layer.INTEGRITY, Layer.CONFIDENTIALITY)],
)
def test_a_server_is_not_talked_down_to_a_weaker_layer(wanted: Layer, offered: Layer) -> None:
    client, server = sides(wanted, offered)
    with pytest.raises(PolicyError, match="must ask for CONFIDENTIALITY"):
        meet(client, server)
    assert not server.complete


def test_a_layer_that_was_not_offered_is_refused() -> None:
    client, initiator, context = begin(Layer.CONFIDENTIALITY)
    server = GssapiServer(context, layers=Layer.CONFIDENTIALITY)
    client.step(server.step(client.step()))
    offer = server.step(b"")
    assert initiator.unwrap(offer or b"", sealed=False) == b"\4\xff\xff\xff"
    with pytest.raises(PolicyError, match="0x01"):
        server.step(initiator.wrap(b"\1\0\0\0", sealed=False))


@pytest.mark.parametrize(
    "answer", [b"", b"\4", b"\4\0\0\x10", b"\6\1\0\0", b"\0\1\0\0", b"\4\1\0\0\xff"]
)
def test_a_malformed_choice_is_refused(answer: bytes) -> None:
    client, initiator, context = begin(Layer.CONFIDENTIALITY)
    server = GssapiServer(context)
    client.step(server.step(client.step()))
    initiator.unwrap(server.step(b"") or b"", sealed=False)
    with pytest.raises((ProtocolError, PolicyError)):
        server.step(initiator.wrap(answer, sealed=False))
    assert not server.complete
    with pytest.raises(ContextError, match="over"):
        server.step(initiator.wrap(b"\4\1\0\0", sealed=False))


def test_a_client_acts_as_itself_and_as_others_only_where_the_server_permits() -> None:
    for authzid, permitted in (("", True), ("alice@EXAMPLE.TEST", True), ("bob", False)):
        client, server = sides(Layer.CONFIDENTIALITY, ALL, authzid)
        if permitted:
            meet(client, server)
            assert server.authzid == authzid
        else:
            with pytest.raises(PolicyError, match="may not act as 'bob'"):
                meet(client, server)
    asked = []
    client, server = sides(
        Layer.CONFIDENTIALITY, ALL, "bob", authorize=lambda *who: asked.append(who) or True
    )
    meet(client, server)
    assert server.authzid == "bob"
    assert [(str(client), authzid) for client, authzid in asked] == [("alice@EXAMPLE.TEST", "bob")]


def test_a_coroutine_that_nothing_awaits_permits_nothing() -> None:
    async def nobody(*_who: object) -> bool:
        return False

    client, server = sides(Layer.CONFIDENTIALITY, ALL, "bob", authorize=nobody)
    with pytest.raises(TypeError, match="coroutine"):
        meet(client, server)
    assert not server.complete


def test_a_server_waits_for_a_client_without_an_initial_response() -> None:
    client, server = sides(Layer.CONFIDENTIALITY, ALL)
    assert server.step(None) == b""
    meet(client, server)
    assert exchanged(client, server)


def test_a_client_without_mutual_authentication_gets_the_offer_at_once() -> None:
    ticket, keys = issue()
    client = GssapiClient(Initiator(ticket, flags=Flag.INTEG), layer=Layer.INTEGRITY)
    server = GssapiServer(acceptor(keys, require=Flag(0)), layers=Layer.INTEGRITY)
    meet(client, server)
    assert not exchanged(client, server)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_both_sides_of_gss_spnego_have_the_layer_of_the_flags(layer: Layer) -> None:
    ticket, keys = issue()
    context = Initiator(ticket, flags=context_flags(layer), mechanism="negotiate")
    client = GssSpnegoClient(context, layer=layer)
    server = GssSpnegoServer(acceptor(keys, mechanism="negotiate"), layers=ALL)
    meet(client, server)
    if layer is Layer.NONE:
        assert client.security is server.security is None
    else:
        assert exchanged(client, server) == (layer is Layer.CONFIDENTIALITY)


def test_success_before_the_first_response_is_refused() -> None:
    for mechanism in CLIENTS:
        client, _, _ = begin(Layer.CONFIDENTIALITY, mechanism)
        with pytest.raises(ProtocolError, match="impostor"):
            client.succeed()
        with pytest.raises(ContextError):
            client.step()


def test_a_server_that_speaks_before_the_client_is_refused() -> None:
    client, _, _ = begin(Layer.CONFIDENTIALITY)
    with pytest.raises(ProtocolError, match="before the client's first"):
        client.step(b"\1")


@pytest.mark.parametrize(
    "options", [{"layer": Layer(0)}, {"layer": Layer(8)}, {"max_buffer": 1 << 24}]
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GssapiClient(pair()[0], **options)
