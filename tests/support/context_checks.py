"""What purekrb's contexts must do with any foreign GSS-API implementation, in both roles.

`ContextInterop` is the base of one test class per peer; its module brings the fixture `lab`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ChannelBindings,
    ChannelBindingsError,
    Config,
    Credential,
    Flag,
    Initiator,
    KdcClient,
    KerberosError,
    Keytab,
    PolicyError,
    ReplayError,
    SequenceError,
    ServiceTicket,
)
from support.gss_peer import GssPeer, PeerContext, PeerError
from support.mit import ETYPES, MitRealm

__all__ = ["ContextInterop", "Lab", "Pair", "exchange", "peer_refuses"]

RC4 = 23
SIZES = (0, 1, 15, 16, 17, 1024, 64 * 1024, 1024 * 1024)
#: Messages of each kind and direction that follow one another in one context.
MESSAGES = 100
#: Sealed or signed, its tokens have a body of prime (or odd) length, so that no altered RRC rotates to the same place.
ODD = b"twenty-three bytes long"


_Bindings = tuple[bytes, bytes]


@dataclass
class Pair:
    """Two ends of one context."""

    ours: Initiator | Acceptor
    theirs: PeerContext


class Lab:
    """Tickets for both sides, fetched once, and contexts on top of them."""

    def __init__(self, realm: MitRealm, peer: GssPeer, *, no_address: int = 0) -> None:
        """`no_address`: the address type that the peer puts into channel bindings without addresses."""
        self.realm = realm
        self.peer = peer
        self._no_address = no_address
        self.keytab = Keytab.load(realm.service_keytab)
        self.client = KdcClient(Config.from_file(realm.krb5_conf))
        self.credential = Credential.from_password("user@MIT.TEST", "userpw")
        self._ccache: Path | None = None

    def ticket(self, service: str) -> ServiceTicket:
        return self.client.get_ticket(self.credential, service)

    @property
    def ccache(self) -> Path:
        """The ccache of the foreign initiator."""
        if self._ccache is None:
            self._ccache = self.realm.kinit("user")
        return self._ccache

    def initiator(self, service: str, etype: int | None, **options: object) -> Initiator:
        if etype is not None:
            options["permitted_etypes"] = (etype,)
        options.setdefault("send_client_target", True)  # no peer may stumble over it
        return Initiator(self.ticket(f"{service}/localhost"), **options)  # type: ignore[arg-type]

    def acceptor(self, etype: int | None, **options: object) -> Acceptor:
        if etype is not None:
            options["permitted_etypes"] = (etype,)
        return Acceptor(self.keytab, **options)  # type: ignore[arg-type]

    def _bindings(self, application_data: bytes) -> ChannelBindings | None:
        if not application_data:
            return None
        return ChannelBindings(
            application_data,
            initiator_addrtype=self._no_address,
            acceptor_addrtype=self._no_address,
        )

    def we_initiate(
        self,
        service: str,
        etype: int | None,
        *,
        flags: Flag = Flag.DEFAULT,
        bindings: _Bindings = (b"", b""),
    ) -> Pair:
        """`bindings`: the application data of the initiator's and of the acceptor's channel bindings."""
        ours = self.initiator(
            service, etype, flags=flags, channel_bindings=self._bindings(bindings[0])
        )
        theirs = self.peer.accept(self.realm.service_keytab, bindings=bindings[1])
        reply = theirs.step(ours.step())
        if flags & Flag.MUTUAL:
            assert not ours.established, "established without the service's proof"
            third_leg = ours.step(reply)
            assert (third_leg is not None) == bool(flags & Flag.DCE_STYLE)
            if third_leg is not None:
                assert not theirs.established
                assert theirs.step(third_leg) is None
        else:
            assert reply is None
        return Pair(ours, theirs)

    def they_initiate(
        self,
        service: str,
        etype: int | None,
        *,
        flags: Flag = Flag.DEFAULT,
        bindings: _Bindings = (b"", b""),
    ) -> Pair:
        theirs = self.peer.initiate(
            f"{service}@localhost", self.ccache, flags=flags, bindings=bindings[0]
        )
        ours = self.acceptor(
            etype, channel_bindings=self._bindings(bindings[1]), require=flags & Flag.MUTUAL
        )
        token = theirs.step()
        assert token is not None
        reply = ours.step(token)
        assert theirs.established == (not flags & Flag.MUTUAL)
        if reply is not None:
            third_leg = theirs.step(reply)
            assert ours.established == (third_leg is None) == (not flags & Flag.DCE_STYLE)
            if third_leg is not None:
                assert ours.step(third_leg) is None
        return Pair(ours, theirs)

    def negotiate(
        self,
        we_initiate: bool,
        *,
        etype: int = 18,
        flags: Flag = Flag.DEFAULT,
        bindings: _Bindings = (b"", b""),
        mechanism: str = "negotiate",
    ) -> tuple[Pair, list[bytes]]:
        """Return both ends of a context by SPNEGO and the tokens that made it; `mechanism` is the peer's."""
        service = f"svc-{etype}"
        ours: Initiator | Acceptor
        if we_initiate:
            bound = self._bindings(bindings[0])
            ours = self.initiator(
                service, etype, mechanism="negotiate", flags=flags, channel_bindings=bound
            )
            theirs = self.peer.accept(
                self.realm.service_keytab, bindings=bindings[1], mechanism=mechanism
            )
        else:
            bound = self._bindings(bindings[1])
            ours = self.acceptor(etype, channel_bindings=bound, require=flags & Flag.MUTUAL)
            theirs = self.peer.initiate(
                f"{service}@localhost",
                self.ccache,
                flags=flags,
                bindings=bindings[0],
                mechanism=mechanism,
            )
        ends = (ours, theirs) if we_initiate else (theirs, ours)
        tokens: list[bytes] = []
        token = ends[0].step()
        while token is not None:
            tokens.append(token)
            token = ends[len(tokens) % 2].step(token)
        return Pair(ours, theirs), tokens


Connect = Callable[..., Pair]


def refuses(action: Callable[[], object]) -> None:
    """Assert that purekrb refuses with one of its own errors."""
    with pytest.raises(KerberosError):
        action()


def peer_refuses(action: Callable[[], object]) -> PeerError:
    """Assert that the peer refuses, and return its words."""
    with pytest.raises(PeerError) as caught:
        action()
    return caught.value


class ContextInterop:
    """The checks; a subclass names what its peer cannot do."""

    #: Whether the peer's acceptor refuses an AP-REQ that it has seen before.
    detects_replayed_ap_req = True
    #: Flags that the peer reports together where the initiator asked for one of them.
    flags_that_go_together = 0
    #: Whether the peer's initiator, without an AP-REP, counts the acceptor's messages from its own initial number.
    counts_without_ap_rep = True
    #: Whether the peer's acceptor answers a bad AP-REQ with a KRB-ERROR token.
    sends_krb_error = True

    @pytest.fixture(params=ETYPES, ids=[f"etype-{etype}" for etype in ETYPES])
    def etype(self, request: pytest.FixtureRequest) -> int:
        etype: int = request.param
        return etype

    @pytest.fixture(params=["we_initiate", "they_initiate"])
    def connect(self, lab: Lab, request: pytest.FixtureRequest) -> Connect:
        connect: Connect = getattr(lab, request.param)
        return connect

    @pytest.fixture
    def pair(self, connect: Connect, etype: int) -> Pair:
        return connect(f"svc-{etype}", etype)

    # --- establishment

    def test_both_sides_are_sure_of_each_other(self, pair: Pair, etype: int) -> None:
        ours, theirs = pair.ours, pair.theirs
        assert ours.established
        assert theirs.established
        assert ours.mutual
        assert str(ours.initiator) == theirs.initiator == "user@MIT.TEST"
        assert str(ours.acceptor) == f"svc-{etype}/localhost@MIT.TEST"
        assert theirs.acceptor.replace("/", "@").startswith(f"svc-{etype}@localhost")
        assert ours.etype == etype
        assert ours.endtime > datetime.now(timezone.utc)
        assert ours.flags & Flag.DEFAULT == Flag.DEFAULT
        assert int(ours.flags) & 0x3F == theirs.flags

    @pytest.mark.parametrize(
        "flags",
        [
            Flag.MUTUAL,
            Flag.MUTUAL | Flag.INTEG,
            Flag.MUTUAL | Flag.CONF | Flag.INTEG,
            Flag.MUTUAL | Flag.REPLAY | Flag.INTEG,
            Flag.MUTUAL | Flag.SEQUENCE | Flag.INTEG,
            Flag.CONF | Flag.INTEG,
            Flag.REPLAY | Flag.SEQUENCE | Flag.CONF | Flag.INTEG,
        ],
        ids=str,
    )
    def test_both_sides_report_the_flags_that_were_asked_for(
        self, connect: Connect, flags: Flag
    ) -> None:
        pair = connect("svc-18", 18, flags=flags)
        assert pair.ours.established
        assert pair.theirs.established
        assert pair.ours.flags & flags == flags
        assert bool(pair.ours.flags & Flag.MUTUAL) == bool(flags & Flag.MUTUAL)
        extra = pair.theirs.flags & ~int(pair.ours.flags)
        assert int(pair.ours.flags) & 0x3F == pair.theirs.flags - extra
        assert not extra & ~self.flags_that_go_together
        kinds = (True, False) if flags & Flag.CONF else (False,)
        unproved = isinstance(pair.ours, Acceptor) and not flags & Flag.MUTUAL
        if unproved and flags & Flag.SEQUENCE and not self.counts_without_ap_rep:
            peer_refuses(
                lambda: pair.theirs.unwrap(
                    pair.ours.wrap(b"counted from the initiator's number", kinds[0])
                )
            )
            assert (
                pair.ours.unwrap(pair.theirs.wrap(b"one way works", sealed=kinds[0]), kinds[0])
                == b"one way works"
            )
        else:
            exchange(pair, b"after any handshake", kinds)

    def test_a_service_with_many_key_types_and_default_etypes_works(self, connect: Connect) -> None:
        pair = connect("gsvc", None)
        assert pair.ours.etype in (17, 18, 19, 20)
        exchange(pair, b"default")

    def test_an_acceptor_with_another_services_key_proves_nothing(
        self, lab: Lab, etype: int
    ) -> None:
        ours = lab.initiator(f"svc-{etype}", etype)
        impostor = lab.peer.accept(lab.realm.keytab("host/localhost"))
        token = ours.step()
        refusal = peer_refuses(lambda: impostor.step(token))
        assert bool(refusal.token) == self.sends_krb_error
        if refusal.token:
            with pytest.raises(ApError):
                ours.step(refusal.token)
        assert not ours.established
        assert lab.we_initiate(f"svc-{etype}", etype).ours.established

    def test_our_acceptor_refuses_a_ticket_for_another_key(self, lab: Lab, etype: int) -> None:
        theirs = lab.peer.initiate(f"svc-{etype}@localhost", lab.ccache)
        token = theirs.step()
        other = Keytab.load(lab.realm.keytab("host/localhost"))
        with pytest.raises(ApError) as caught:
            Acceptor(other, permitted_etypes=(etype,)).step(token)
        assert caught.value.response
        peer_refuses(lambda: theirs.step(caught.value.response))
        assert lab.they_initiate(f"svc-{etype}", etype).ours.established

    # --- messages

    def test_a_hundred_messages_of_each_kind_each_way(self, pair: Pair) -> None:
        for number in range(MESSAGES):
            exchange(pair, b"message %d" % number)

    def test_every_size_passes_each_way(self, pair: Pair) -> None:
        for size in SIZES:
            exchange(pair, bytes(range(256)) * (size // 256) + bytes(range(size % 256)))

    def test_a_message_of_the_limit_fits_and_one_more_byte_does_not(self, pair: Pair) -> None:
        for sealed in (True, False):
            for size in (200, 1000, 4096):
                limit = pair.ours.wrap_size_limit(size, sealed=sealed)
                token = pair.ours.wrap(bytes(limit), sealed=sealed)
                assert len(token) <= size < len(pair.ours.wrap(bytes(limit + 8), sealed=sealed))
                # Some peers are more cautious: what they allow must fit into our tokens as well.
                assert pair.theirs.wrap_size_limit(size, sealed=sealed) <= limit

    def test_a_signed_message_is_not_taken_for_a_sealed_one(self, pair: Pair) -> None:
        token = pair.theirs.wrap(b"in the clear", sealed=False)
        with pytest.raises(PolicyError):
            pair.ours.unwrap(token)
        assert pair.ours.unwrap(token, sealed=False) == b"in the clear"

    def test_rc4_contexts_have_no_mics(self, connect: Connect) -> None:
        pair = connect("svc-23", 23)
        with pytest.raises(PolicyError):
            pair.ours.get_mic(b"data")
        mic = pair.theirs.get_mic(b"data")
        with pytest.raises(PolicyError):
            pair.ours.verify_mic(b"data", mic)

    # --- bad messages

    def test_every_altered_byte_of_their_tokens_is_refused(self, pair: Pair) -> None:
        ours, theirs = pair.ours, pair.theirs
        for sealed in (True, False):
            token = theirs.wrap(ODD, sealed=sealed)
            alterations = _alterations(token)
            if ours.etype == RC4 and not sealed:
                # Nothing signs RC4's sequence number: the altered token is refused, but takes the genuine one's place.
                del alterations[-len(ODD) - 27 : -len(ODD) - 19]
            for altered in alterations:
                refuses(lambda altered=altered, sealed=sealed: ours.unwrap(altered, sealed=sealed))
            assert ours.unwrap(token, sealed=sealed) == ODD
        if ours.etype == RC4:
            return
        mic = theirs.get_mic(ODD)
        for altered in _alterations(mic):
            refuses(lambda altered=altered: ours.verify_mic(ODD, altered))
        for altered in _alterations(ODD):
            refuses(lambda altered=altered: ours.verify_mic(altered, mic))
        ours.verify_mic(ODD, mic)

    def test_they_refuse_our_tokens_when_altered(self, pair: Pair) -> None:
        # The genuine token comes first: some peers let a forged one move their window.
        ours, theirs = pair.ours, pair.theirs
        exchange(pair, ODD)
        if ours.etype != RC4:
            mic = ours.get_mic(ODD)
            peer_refuses(lambda: theirs.verify_mic(ODD + b"!", mic))
        token = ours.wrap(ODD)
        peer_refuses(lambda: theirs.unwrap(token[:-1] + bytes([token[-1] ^ 1])))

    def test_a_token_that_comes_twice_is_refused_by_both(self, pair: Pair) -> None:
        ours, theirs = pair.ours, pair.theirs
        token = theirs.wrap(b"once")
        assert ours.unwrap(token) == b"once"
        with pytest.raises(SequenceError) as caught:
            ours.unwrap(token)
        assert caught.value.reason == "duplicate"
        token = ours.wrap(b"once")
        assert theirs.unwrap(token) == (b"once", True)
        peer_refuses(lambda: theirs.unwrap(token))

    def test_a_token_that_overtakes_another_is_refused_by_both(self, pair: Pair) -> None:
        ours, theirs = pair.ours, pair.theirs
        theirs.wrap(b"lost")
        with pytest.raises(SequenceError) as caught:
            ours.unwrap(theirs.wrap(b"early"))
        assert caught.value.reason == "gap"
        ours.wrap(b"lost")
        early = ours.wrap(b"early")
        peer_refuses(lambda: theirs.unwrap(early))

    def test_a_token_sent_back_to_its_sender_is_refused_by_both(self, pair: Pair) -> None:
        ours, theirs = pair.ours, pair.theirs
        mine, yours = ours.wrap(b"mine"), theirs.wrap(b"yours")
        assert theirs.unwrap(mine) == (b"mine", True)
        refuses(lambda: ours.unwrap(mine))
        assert ours.unwrap(yours) == b"yours"
        peer_refuses(lambda: theirs.unwrap(yours))

    def test_a_mic_sent_back_to_its_sender_is_refused_by_both(self, connect: Connect) -> None:
        pair = connect("svc-18", 18)
        ours, theirs = pair.ours, pair.theirs
        mine, yours = ours.get_mic(b"mine"), theirs.get_mic(b"yours")
        theirs.verify_mic(b"mine", mine)
        refuses(lambda: ours.verify_mic(b"mine", mine))
        ours.verify_mic(b"yours", yours)
        peer_refuses(lambda: theirs.verify_mic(b"yours", yours))

    def test_a_token_of_another_context_is_refused_by_both(
        self, connect: Connect, etype: int
    ) -> None:
        one, two = connect(f"svc-{etype}", etype), connect(f"svc-{etype}", etype)
        exchange(two, b"for two")
        refuses(lambda: two.ours.unwrap(one.theirs.wrap(b"for one")))
        peer_refuses(lambda: two.theirs.unwrap(one.ours.wrap(b"for one")))

    # --- replayed and altered handshakes

    def test_a_replayed_ap_req_is_refused_by_our_acceptor(self, lab: Lab, etype: int) -> None:
        token = lab.peer.initiate(f"svc-{etype}@localhost", lab.ccache).step()
        first = lab.acceptor(etype)
        first.step(token)
        assert first.established
        with pytest.raises(ReplayError):
            lab.acceptor(etype).step(token)

    def test_a_replayed_ap_req_is_refused_by_their_acceptor(self, lab: Lab, etype: int) -> None:
        token = lab.initiator(f"svc-{etype}", etype).step()
        first, second = (lab.peer.accept(lab.realm.service_keytab) for _ in range(2))
        first.step(token)
        assert first.established
        if self.detects_replayed_ap_req:
            peer_refuses(lambda: second.step(token))
        else:
            second.step(token)

    def test_an_ap_rep_of_another_handshake_proves_nothing(self, lab: Lab, etype: int) -> None:
        one, two = (lab.initiator(f"svc-{etype}", etype) for _ in range(2))
        replies = [
            lab.peer.accept(lab.realm.service_keytab).step(ours.step()) for ours in (one, two)
        ]
        refuses(lambda: one.step(replies[1]))
        assert not one.established
        two.step(replies[1])
        assert two.established

    def test_an_altered_ap_rep_proves_nothing(self, lab: Lab, etype: int) -> None:
        for place in (0, 1, 20, -30, -1):
            ours = lab.initiator(f"svc-{etype}", etype)
            reply = bytearray(lab.peer.accept(lab.realm.service_keytab).step(ours.step()) or b"")
            reply[place] ^= 1
            refuses(lambda ours=ours, reply=reply: ours.step(bytes(reply)))
            assert not ours.established

    def test_an_altered_ap_req_is_refused_by_our_acceptor(self, lab: Lab, etype: int) -> None:
        token = lab.peer.initiate(f"svc-{etype}@localhost", lab.ccache).step()
        assert token is not None
        for place in (0, 1, 20, len(token) // 2, -30, -1):
            altered = bytearray(token)
            altered[place] ^= 1
            refuses(lambda altered=altered: lab.acceptor(etype).step(bytes(altered)))
        ours = lab.acceptor(etype)
        ours.step(token)
        assert ours.established

    # --- channel bindings

    def test_equal_channel_bindings_bind(self, connect: Connect, etype: int) -> None:
        pair = connect(f"svc-{etype}", etype, bindings=(b"tls-unique:same", b"tls-unique:same"))
        assert pair.ours.established
        if isinstance(pair.ours, Acceptor):
            assert pair.ours.channel_bound
        exchange(pair, b"bound")

    def test_unequal_channel_bindings_are_refused_by_our_acceptor(
        self, lab: Lab, etype: int
    ) -> None:
        one, two = b"tls-unique:one", b"tls-unique:two"
        with pytest.raises(ChannelBindingsError):
            lab.they_initiate(f"svc-{etype}", etype, bindings=(one, two))
        assert lab.they_initiate(f"svc-{etype}", etype, bindings=(one, one)).ours.established

    def test_unequal_channel_bindings_are_refused_by_their_acceptor(
        self, lab: Lab, etype: int
    ) -> None:
        one, two = b"tls-unique:one", b"tls-unique:two"
        peer_refuses(lambda: lab.we_initiate(f"svc-{etype}", etype, bindings=(one, two)))
        assert lab.we_initiate(f"svc-{etype}", etype, bindings=(one, one)).ours.established

    def test_an_acceptor_without_channel_bindings_takes_an_initiator_with_them(
        self, connect: Connect
    ) -> None:
        exchange(connect("svc-18", 18, bindings=(b"tls-unique:one", b"")), b"unbound")

    # --- delegation

    def test_their_delegated_ticket_works_in_our_hands(self, lab: Lab) -> None:
        pair = lab.they_initiate("deleg", None, flags=Flag.DEFAULT | Flag.DELEG)
        assert isinstance(pair.ours, Acceptor)
        assert pair.ours.flags & Flag.DELEG
        delegated = pair.ours.delegated_credential
        assert delegated is not None
        ticket = lab.client.get_ticket(delegated, "host/localhost")
        assert str(ticket.client) == "user@MIT.TEST"

    def test_our_delegated_ticket_works_in_their_hands(self, lab: Lab) -> None:
        forwarded = lab.client.forward_tgt(lab.credential)
        ours = Initiator(
            lab.ticket("deleg/localhost"), flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=forwarded
        )
        theirs = lab.peer.accept(lab.realm.service_keytab)
        ours.step(theirs.step(ours.step()))
        assert ours.flags & Flag.DELEG
        assert theirs.flags & Flag.DELEG
        self.check_delegated(lab, theirs)

    def check_delegated(self, lab: Lab, theirs: PeerContext) -> None:
        """Use the ticket that `theirs` was given."""
        ccache = lab.realm.path("delegated")
        assert theirs.use_delegated(str(ccache)) == "user@MIT.TEST"
        assert "host/localhost@MIT.TEST: kvno" in lab.realm.kvno(ccache, "host/localhost@MIT.TEST")

    def test_nothing_is_delegated_to_a_service_without_ok_as_delegate(self, lab: Lab) -> None:
        pair = lab.we_initiate("gsvc", None, flags=Flag.DEFAULT | Flag.DELEG)
        assert not pair.ours.flags & Flag.DELEG
        assert not pair.theirs.flags & Flag.DELEG


def exchange(pair: Pair, data: bytes, kinds: tuple[bool, ...] = (True, False)) -> None:
    """Send `data` both ways, sealed, signed and beside a MIC (which purekrb's RC4 contexts do not offer)."""
    ours, theirs = pair.ours, pair.theirs
    for sealed in kinds:
        assert theirs.unwrap(ours.wrap(data, sealed=sealed)) == (data, sealed)
        assert ours.unwrap(theirs.wrap(data, sealed=sealed), sealed=sealed) == data
    if ours.etype != RC4:
        theirs.verify_mic(data, ours.get_mic(data))
        ours.verify_mic(data, theirs.get_mic(data))


def _alterations(data: bytes) -> list[bytes]:
    """Return `data` with one bit flipped, once for each byte, and shortened and lengthened by a byte."""
    flipped = [data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :] for i in range(len(data))]
    return [*flipped, data[:-1], data + b"\0"]
