"""Services that do not prove themselves (K121 to K131).

K126 with SPNEGO is in test_spnego.py; its Kerberos side is here: without an AP-REP there is no context. K132 belongs to
HTTP, which purekrb does not speak.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from purekrb import (
    ApError,
    ContextError,
    CredentialError,
    DecodeError,
    EncryptionKey,
    Flag,
    Initiator,
    IntegrityError,
    KerberosError,
    MutualAuthenticationError,
    PolicyError,
    ProtocolError,
    ServiceTicket,
    crypto,
)
from purekrb.constants import ErrorCode, KeyUsage
from purekrb.gss.framing import TOK_AP_REP, TOK_AP_REQ, TOK_KRB_ERROR, frame, unframe
from purekrb.messages.ap import ApRep, Authenticator, EncApRepPart, EncryptedData, KrbError
from purekrb.messages.der import tlv
from purekrb.names import PrincipalName
from purekrb.system import now
from support.contexts import FixedClock, ap_rep, authenticator_of, error_of, flipped
from support.contexts import acceptor as accepting
from support.tickets import Entry, issue
from support.values import replace


class Handshake:
    """An initiator that waits, and what the genuine service knows."""

    def __init__(
        self,
        etype: int = 18,
        *,
        ticket: tuple[ServiceTicket, list[Entry]] | None = None,
        **how: Any,
    ) -> None:
        self.ticket, self.keys = ticket or issue(etype)
        self.initiator = Initiator(self.ticket, **how)
        token = self.initiator.step()
        assert token is not None
        self.token: bytes = token

    @functools.cached_property
    def sent(self) -> Authenticator:
        return authenticator_of(self.token, self.ticket)

    def reply(self, **changes: Any) -> bytes:
        """Return an AP-REP, genuine but for `changes`."""
        key = changes.pop("key", self.ticket.session_key)
        return ap_rep(self.sent, key, **changes)

    def refuses(
        self,
        reply: bytes | None,
        kind: type[KerberosError] = KerberosError,
        match: str | None = None,
    ) -> KerberosError:
        with pytest.raises(kind, match=match) as caught:
            self.initiator.step(reply)
        assert not self.initiator.established
        assert not self.initiator.mutual
        with pytest.raises(ContextError):
            self.initiator.wrap(b"secret")
        with pytest.raises(ContextError, match="dead"):
            self.initiator.step(reply)
        return caught.value

    def takes(self, reply: bytes | None) -> None:
        assert self.initiator.step(reply) is None
        assert self.initiator.established
        assert self.initiator.mutual


def test_the_genuine_service_is_believed() -> None:
    handshake = Handshake()
    handshake.takes(accepting(handshake.keys).step(handshake.token))
    handshake = Handshake()
    handshake.takes(handshake.reply())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(lambda s: {"ctime": s.ctime + timedelta(seconds=1)}, id="K121-a-second-later"),
        pytest.param(
            lambda s: {"ctime": s.ctime - timedelta(seconds=1)}, id="K121-a-second-earlier"
        ),
        pytest.param(lambda s: {"cusec": s.cusec ^ 1}, id="K121-another-microsecond"),
        pytest.param(lambda s: {"cusec": 0 if s.cusec else 1}, id="K121-no-microseconds"),
        pytest.param(lambda s: {"ctime": s.ctime.replace(year=1970)}, id="K121-another-year"),
        pytest.param(lambda s: {"ctime": s.ctime.replace(year=9999)}, id="K121-the-last-year"),
        pytest.param(
            lambda s: {"ctime": now().replace(microsecond=0) + timedelta(minutes=5)},
            id="K121-its-own-time",
        ),
    ],
)
def test_k121_an_ap_rep_with_another_time_is_no_proof(
    changes: Callable[[Authenticator], dict[str, Any]],
) -> None:
    handshake = Handshake()
    handshake.refuses(
        handshake.reply(**changes(handshake.sent)), MutualAuthenticationError, "impostor"
    )
    control = Handshake()
    control.takes(control.reply(ctime=control.sent.ctime, cusec=control.sent.cusec))


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda h: h.sent.subkey, id="K122-the-subkey"),
        pytest.param(lambda h: h.keys[0].key, id="K122-the-services-key"),
        pytest.param(
            lambda h: crypto.random_key(h.ticket.session_key.etype), id="K122-a-random-key"
        ),
    ],
)
def test_k122_an_ap_rep_under_another_key(
    key: Callable[[Handshake], EncryptionKey], etype: int
) -> None:
    handshake = Handshake(etype)
    handshake.refuses(handshake.reply(key=key(handshake)), IntegrityError)
    handshake = Handshake(etype)
    handshake.takes(handshake.reply(key=handshake.ticket.session_key))


def test_k122_an_ap_rep_under_a_key_of_another_etype() -> None:
    for etype in (17, 19, 20, 23):
        handshake = Handshake()
        handshake.refuses(
            handshake.reply(key=crypto.random_key(etype)), ProtocolError, "session key"
        )
    for etype in (0, 3, 16, -1, 999):
        handshake = Handshake()
        message = ApRep(5, 15, EncryptedData(etype, None, bytes(80))).encode()
        handshake.refuses(frame(TOK_AP_REP, message), ProtocolError)
    control = Handshake()
    control.takes(control.reply())


@pytest.mark.parametrize("usage", [u for u in range(30) if u != KeyUsage.AP_REP_ENC_PART])
def test_k123_an_ap_rep_of_another_usage(usage: int) -> None:
    handshake = Handshake()
    handshake.refuses(handshake.reply(usage=usage), IntegrityError)
    control = Handshake()
    control.takes(control.reply(usage=KeyUsage.AP_REP_ENC_PART))


@pytest.mark.parametrize("same_ticket", [True, False])
def test_k124_the_ap_rep_of_another_connection(same_ticket: bool) -> None:
    ticket = issue()
    victim, other = Handshake(ticket=ticket), Handshake(ticket=ticket if same_ticket else issue())
    recorded = accepting(other.keys).step(other.token)
    kind = MutualAuthenticationError if same_ticket else IntegrityError
    victim.refuses(recorded, kind)
    other.takes(recorded)


def test_k124_the_ap_rep_of_an_earlier_connection_of_the_same_second() -> None:
    """ctime counts whole seconds; it is cusec that tells them apart."""
    ticket = issue()
    handshakes = [Handshake(ticket=ticket) for _ in range(20)]
    assert len({(h.sent.ctime, h.sent.cusec) for h in handshakes}) == 20
    replies = [accepting(h.keys).step(h.token) for h in handshakes]
    for handshake, other in zip(handshakes[1:], replies, strict=False):
        handshake.refuses(other, MutualAuthenticationError)
    handshakes[0].takes(replies[0])


def test_k125_our_own_token_reflected() -> None:
    handshake = Handshake()
    handshake.refuses(handshake.token, MutualAuthenticationError)
    _, message = unframe(handshake.token)
    for tok_id in (TOK_AP_REP, TOK_KRB_ERROR):
        handshake = Handshake()
        handshake.refuses(frame(tok_id, message), DecodeError)
    control = Handshake()
    control.takes(control.reply())


@pytest.mark.parametrize("tok_id", ["0100", "0001", "0404", "0504", "0000", "0201", "0102"])
def test_k125_an_ap_rep_with_another_token_id(tok_id: str) -> None:
    handshake = Handshake()
    _, message = unframe(handshake.reply())
    handshake.refuses(
        frame(bytes.fromhex(tok_id), message), MutualAuthenticationError, "not an AP-REP"
    )
    control = Handshake()
    control.takes(frame(TOK_AP_REP, unframe(control.reply())[1]))


@pytest.mark.parametrize("reply", [None, b"", b"\x60\x00"])
def test_k126_no_ap_rep_means_no_context(reply: bytes | None) -> None:
    handshake = Handshake()
    assert not handshake.initiator.established
    with pytest.raises(ContextError, match="waits for the peer's next token"):
        handshake.initiator.wrap(b"secret")
    handshake.refuses(reply)
    control = Handshake()
    control.takes(control.reply())


def test_k127_an_acceptor_that_needs_mutual_authentication_refuses_who_does_not_ask() -> None:
    handshake = Handshake(flags=Flag.INTEG)
    assert handshake.initiator.established
    assert not handshake.initiator.mutual
    with pytest.raises(ApError) as caught:
        accepting(handshake.keys).step(handshake.token)
    assert caught.value.code == ErrorCode.KRB_AP_ERR_MUT_FAIL
    assert error_of(caught.value.response).error_code == ErrorCode.KRB_AP_ERR_MUT_FAIL
    assert accepting(handshake.keys, require=Flag(0)).step(handshake.token) is None


def test_k127_mutual_is_asked_for_unless_one_says_otherwise() -> None:
    assert Flag.DEFAULT & Flag.MUTUAL
    handshake = Handshake()
    assert not handshake.initiator.established
    handshake.takes(handshake.reply())


@pytest.mark.parametrize("etype", [23, 16, 3, 24, -128, 0])
def test_k128_an_acceptors_subkey_that_is_not_permitted(etype: int) -> None:
    handshake = Handshake()
    handshake.refuses(
        handshake.reply(subkey=EncryptionKey(etype, bytes(16))), PolicyError, "not permitted"
    )
    for good in (17, 18, 19, 20):
        control = Handshake()
        subkey = crypto.random_key(good)
        control.takes(control.reply(subkey=subkey))
        assert control.initiator.session_key == subkey


def test_k128_to_permit_an_etype_that_purekrb_does_not_have_changes_nothing() -> None:
    handshake = Handshake(permitted_etypes=(18, 16))
    handshake.refuses(
        handshake.reply(subkey=EncryptionKey(16, bytes(24))), PolicyError, "not permitted"
    )
    control = Handshake(permitted_etypes=(18, 16))
    control.takes(accepting(control.keys, permitted_etypes=(16, 18)).step(control.token))
    assert control.initiator.etype == 18


CODES = [*range(80), 90, 91, 93, -1, 127, 1 << 30, -(1 << 31)]


def krb_error(code: int, **changes: Any) -> bytes:
    genuine = KrbError(
        pvno=5,
        msg_type=30,
        ctime=None,
        cusec=None,
        stime=now().replace(microsecond=0),
        susec=1,
        error_code=code,
        crealm=None,
        cname=None,
        realm="EXAMPLE.TEST",
        sname=PrincipalName(("HTTP", "web.example.test")),
        e_text=None,
        e_data=None,
    )
    return frame(TOK_KRB_ERROR, replace(genuine, **changes).encode())


@pytest.mark.parametrize("code", CODES)
def test_k129_a_krb_error_ends_the_handshake_whatever_it_says(code: int) -> None:
    handshake = Handshake()
    error = handshake.refuses(krb_error(code), ApError, "refused us")
    assert isinstance(error, ApError)
    assert (error.code, error.response) == (code, None)
    control = Handshake()
    control.takes(control.reply())


@pytest.mark.parametrize(
    "changes",
    [
        {"e_text": "retry without mutual authentication\r\nuse etype 23"},
        {"e_data": b"\x30\x05\xa1\x03\x02\x01\x02"},
        {"stime": now().replace(year=9999, microsecond=0)},
        {"e_data": bytes(40_000)},
        {"sname": PrincipalName(())},
    ],
    ids=lambda c: next(iter(c)),
)
def test_k129_what_a_krb_error_suggests_changes_nothing(changes: dict[str, Any]) -> None:
    handshake = Handshake()
    error = handshake.refuses(krb_error(ErrorCode.KRB_AP_ERR_SKEW, **changes), ApError)
    assert "retry" not in str(error)
    assert len(str(error)) < 200
    again = Handshake(ticket=(handshake.ticket, handshake.keys))
    assert abs(again.sent.ctime - now()) < timedelta(minutes=1)
    assert again.sent.subkey is not None
    assert again.sent.subkey.etype == 18
    again.takes(again.reply())


def test_k129_a_krb_error_after_the_handshake_is_no_message() -> None:
    handshake = Handshake()
    handshake.takes(handshake.reply())
    with pytest.raises(KerberosError):
        handshake.initiator.unwrap(krb_error(41))
    with pytest.raises(ContextError):
        handshake.initiator.step(krb_error(41))
    assert handshake.initiator.established


class ThirdLeg:
    """An acceptor of DCE style that waits for the client's AP-REP, and what the client knows."""

    def __init__(self, etype: int = 18) -> None:
        self.ticket, keys = issue(etype)
        self.initiator = Initiator(self.ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE)
        token = self.initiator.step()
        assert token is not None
        self.sent = authenticator_of(frame(TOK_AP_REQ, token), self.ticket)
        self.acceptor = accepting(keys)
        reply = self.acceptor.step(token)
        assert reply is not None
        self.reply: bytes = reply
        cipher = ApRep.decode(reply).enc_part.cipher
        part = EncApRepPart.decode(
            crypto.decrypt(self.ticket.session_key, KeyUsage.AP_REP_ENC_PART, cipher)
        )
        self.seq_number: int = part.seq_number or 0

    def token(self, **changes: Any) -> bytes:
        """Return the client's AP-REP, genuine but for `changes`."""
        key = changes.pop("key", self.ticket.session_key)
        return unframe(ap_rep(self.sent, key, **{"seq_number": self.seq_number, **changes}))[1]

    def refuses(self, token: bytes | None, kind: type[KerberosError]) -> None:
        assert not self.acceptor.established
        for call in (self.acceptor.wrap, self.acceptor.unwrap, self.acceptor.get_mic):
            with pytest.raises(ContextError):
                call(b"")
        with pytest.raises(kind):
            self.acceptor.step(token)
        assert not self.acceptor.established
        with pytest.raises(ContextError, match="dead"):
            self.acceptor.step(self.token())


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_k130_a_third_leg_with_the_services_number_establishes(etype: int) -> None:
    leg = ThirdLeg(etype)
    assert leg.acceptor.step(leg.token()) is None
    assert leg.acceptor.established
    assert leg.acceptor.mutual
    leg = ThirdLeg(etype)
    anytime = datetime(2000, 1, 1, tzinfo=timezone.utc)  # some clients put the current time there
    assert leg.acceptor.step(leg.token(ctime=anytime, cusec=1)) is None
    leg = ThirdLeg(etype)
    ours = leg.initiator.step(leg.reply)
    assert ours is not None
    assert leg.initiator.established
    assert leg.acceptor.step(ours) is None
    assert leg.acceptor.unwrap(leg.initiator.wrap(b"data")) == b"data"


@pytest.mark.parametrize(
    ("alter", "kind"),
    [
        pytest.param(
            lambda leg: {"seq_number": leg.seq_number ^ 1},
            MutualAuthenticationError,
            id="other-number",
        ),
        pytest.param(lambda _: {"seq_number": None}, MutualAuthenticationError, id="no-number"),
        pytest.param(
            lambda leg: {"seq_number": leg.sent.seq_number},
            MutualAuthenticationError,
            id="own-number",
        ),
        pytest.param(
            lambda leg: {"subkey": leg.ticket.session_key}, MutualAuthenticationError, id="a-subkey"
        ),
        pytest.param(lambda _: {"key": crypto.random_key(18)}, IntegrityError, id="other-key"),
        pytest.param(lambda _: {"key": crypto.random_key(17)}, ProtocolError, id="other-etype"),
        pytest.param(lambda leg: {"key": leg.sent.subkey}, IntegrityError, id="key-is-the-subkey"),
        pytest.param(
            lambda _: {"usage": KeyUsage.AP_REQ_AUTHENTICATOR}, IntegrityError, id="other-usage"
        ),
    ],
)
def test_k130_a_third_leg_that_proves_nothing(
    alter: Callable[[ThirdLeg], dict[str, Any]], kind: type[KerberosError]
) -> None:
    leg = ThirdLeg()
    leg.refuses(leg.token(**alter(leg)), kind)


def test_k130_another_token_than_a_third_leg() -> None:
    request = ThirdLeg().initiator
    assert not request.established
    for make, kind in (
        (lambda leg: leg.reply, MutualAuthenticationError),  # our own AP-REP, sent back
        (lambda leg: frame(TOK_AP_REP, leg.token()), DecodeError),
        (lambda leg: leg.token()[:-1], DecodeError),
        (lambda leg: flipped(leg.token(), 8 * len(leg.token()) - 1), IntegrityError),
        (
            lambda leg: Initiator(leg.ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE).step(),
            DecodeError,
        ),
        (lambda _: unframe(krb_error(41))[1], DecodeError),
        (lambda _: b"", DecodeError),
        (lambda _: None, ContextError),
        (lambda _: ThirdLeg().token(), IntegrityError),
    ):
        leg = ThirdLeg()
        leg.refuses(make(leg), kind)


def test_k130_an_initiator_of_dce_style_takes_no_framed_ap_rep() -> None:
    leg = ThirdLeg()
    with pytest.raises(MutualAuthenticationError):
        leg.initiator.step(frame(TOK_AP_REP, leg.reply))
    assert not leg.initiator.established


def test_k130_there_is_no_third_leg_without_dce_style() -> None:
    """An AP-REP without its frame, as the legs of DCE style have, is no token."""
    handshake = Handshake()
    _, message = unframe(handshake.reply())
    handshake.refuses(message, DecodeError)
    control = Handshake()
    control.takes(frame(TOK_AP_REP, message) if control is handshake else control.reply())
    with pytest.raises(ContextError):
        control.initiator.step(control.reply())


@pytest.mark.parametrize("number", [None, 0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_k131_the_services_sequence_number_is_its_own(number: int | None) -> None:
    handshake = Handshake()
    assert handshake.sent.seq_number != number
    handshake.takes(handshake.reply(seq_number=number))
    peer = accepting_side(handshake, number or 0)
    assert handshake.initiator.unwrap(peer.wrap(b"from there", True)) == b"from there"


def accepting_side(handshake: Handshake, send_seq: int) -> Any:
    from purekrb.gss.tokens import CfxProtection

    assert handshake.sent.subkey is not None
    assert handshake.sent.seq_number is not None
    return CfxProtection(
        handshake.sent.subkey,
        initiator=False,
        acceptor_subkey=False,
        send_seq=send_seq,
        receive_seq=handshake.sent.seq_number,
        flags=int(Flag.DEFAULT),
        random=bytes,
    )


# --- forms


@pytest.mark.parametrize(
    "changes",
    [{"pvno": 4}, {"pvno": 6}, {"msg_type": 14}, {"msg_type": 30}, {"msg_type": -15}],
    ids=str,
)
def test_another_version_or_message_type(changes: dict[str, int]) -> None:
    def altered(reply: bytes, changes: dict[str, int]) -> bytes:
        return frame(TOK_AP_REP, replace(ApRep.decode(unframe(reply)[1]), **changes).encode())

    handshake = Handshake()
    handshake.refuses(altered(handshake.reply(), changes), ProtocolError)
    control = Handshake()
    control.takes(altered(control.reply(), {}))


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_every_flipped_bit_of_an_ap_rep_is_refused(etype: int) -> None:
    ticket = issue(etype)
    clock = FixedClock(now().replace(microsecond=500_000))  # so that each cusec has as many bytes

    def random(size: int) -> bytes:
        return b"A" + os.urandom(size - 1)  # and so has each sequence number

    def begin() -> tuple[Handshake, bytes]:
        handshake = Handshake(ticket=ticket, clock=clock)
        reply = accepting(handshake.keys, clock=clock, random=random).step(handshake.token)
        assert reply is not None
        return handshake, reply

    control, reply = begin()
    for bit in range(len(reply) * 8):
        handshake, genuine = begin()
        assert len(genuine) == len(reply)
        handshake.refuses(flipped(genuine, bit))
    control.takes(reply)


def test_an_ap_rep_cut_off_anywhere_or_with_more_behind_it_is_refused() -> None:
    ticket = issue()
    clock = FixedClock(now().replace(microsecond=500_000))  # so that all replies are of one length

    def begin() -> Handshake:
        return Handshake(ticket=ticket, clock=clock)

    length = len(begin().reply())
    for size in range(length):
        handshake = begin()
        assert len(handshake.reply()) == length
        handshake.refuses(handshake.reply()[:size])
    for tail in (b"\0", b"\x60\x00"):
        handshake = begin()
        handshake.refuses(handshake.reply() + tail, DecodeError)
    control = begin()
    control.takes(control.reply())


@pytest.mark.parametrize(
    "plaintext", [b"", bytes(40), b"\x7b\x02\x30\x00", b"\x7b\x00", b"\x30\x00"]
)
def test_what_decrypts_and_is_no_enc_ap_rep_part(plaintext: bytes) -> None:
    handshake = Handshake()
    key = handshake.ticket.session_key
    cipher = crypto.encrypt(key, KeyUsage.AP_REP_ENC_PART, plaintext)
    handshake.refuses(
        frame(TOK_AP_REP, ApRep(5, 15, EncryptedData(18, None, cipher)).encode()), DecodeError
    )
    handshake = Handshake()
    own = crypto.encrypt(
        handshake.ticket.session_key, KeyUsage.AP_REP_ENC_PART, handshake.sent.encode()
    )
    handshake.refuses(
        frame(TOK_AP_REP, ApRep(5, 15, EncryptedData(18, None, own)).encode()), DecodeError
    )


def test_a_frame_around_nothing_and_a_flood_are_refused() -> None:
    for bad in (
        frame(TOK_AP_REP, b""),
        frame(TOK_KRB_ERROR, b""),
        frame(TOK_AP_REP, bytes(60_000)),
        tlv(0x60, b""),
    ):
        Handshake().refuses(bad, DecodeError)
    handshake = Handshake()
    handshake.refuses(frame(TOK_AP_REQ, b""), MutualAuthenticationError)


def test_a_refused_ap_rep_leaves_no_usable_key() -> None:
    handshake = Handshake()
    secrets = list(handshake.initiator._secrets)
    handshake.refuses(flipped(handshake.reply(), 800))
    assert secrets
    for key in secrets:
        with pytest.raises(CredentialError):
            key.contents  # noqa: B018
