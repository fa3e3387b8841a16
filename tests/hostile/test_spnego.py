"""K162 to K178: negotiations that somebody in between, or the peer itself, has tampered with."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    DecodeError,
    Flag,
    Initiator,
    IntegrityError,
    KerberosError,
    ProtocolError,
)
from purekrb.constants import (
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    NEGOEX_OID,
    NTLM_OID,
    SPNEGO_OID,
    ErrorCode,
    NegState,
)
from purekrb.errors import MutualAuthenticationError, PolicyError, SequenceError, UnsupportedError
from purekrb.gss.framing import TOK_AP_REP, frame, frame_mechanism, unframe, unframe_mechanism
from purekrb.messages.der import tlv
from purekrb.messages.spnego import (
    MAX_MECHANISMS,
    NegTokenInit,
    NegTokenInit2,
    NegTokenResp,
    encode_mech_types,
)
from support.cfx import Forger
from support.contexts import acceptor, error_of, flipped, pair
from support.spnego import (
    NTLM_TOKEN,
    PreferringNtlm,
    ScriptedAcceptor,
    init,
    negotiate,
    opened,
    read,
    resp,
)
from support.tickets import ALICE, SERVICE, issue
from support.values import replace

MS, STANDARD = MS_KRB5_MECH_OID, KRB5_MECH_OID
OFFER = (MS, STANDARD)
COMPLETED, INCOMPLETE, REJECT, REQUEST_MIC = NegState
NOT_MUTUAL = Flag.DEFAULT & ~Flag.MUTUAL
UNKNOWN = bytes.fromhex("2a0304")


def initiator(ticket: Any, **options: Any) -> Initiator:
    return Initiator(ticket, mechanism="negotiate", **options)


def refuses(
    context: Initiator | Acceptor, token: bytes, kind: type[KerberosError], match: str | None = None
) -> Any:
    """Assert that `context` refuses `token` for good; an acceptor tells its peer so."""
    with pytest.raises(kind, match=match) as caught:
        context.step(token)
    assert not context.established
    with pytest.raises(KerberosError):
        context.wrap(b"secret")
    if isinstance(context, Acceptor):
        assert read(caught.value.response).neg_state == REJECT
    return caught.value


class Required:
    """A negotiation in which the mechListMICs are required, up to where our acceptor waits for the initiator's."""

    def __init__(self, **options: Any) -> None:
        ticket, keys = issue()
        self.ours = acceptor(keys, **options)
        self.peer = PreferringNtlm(ticket)
        self.answer = read(self.ours.step(self.peer.step(self.ours.step(self.peer.step(None)))))
        self.last = read(self.peer.step(self.answer.encode()))

    def control(self) -> None:
        assert self.ours.step(self.last.encode()) is None
        assert self.ours.established


class Volunteered:
    """A negotiation up to where our initiator is about to hear an acceptor's AP-REP and mechListMIC."""

    def __init__(self, state: int = INCOMPLETE, **options: Any) -> None:
        ticket, keys = issue()
        self.ours = initiator(ticket)
        self.peer = ScriptedAcceptor(keys, state, mic=True, **options)
        self.answer = read(self.peer.step(self.ours.step()))

    def control(self) -> None:
        assert read(self.ours.step(self.answer.encode())).neg_state == COMPLETED
        assert self.ours.established


# --- K162 to K165: the mechListMIC


def test_k162_every_bit_of_the_initiators_mech_list_mic_counts() -> None:
    for bit in range(len(Required().last.mech_list_mic or b"") * 8):
        case = Required()
        bad = replace(case.last, mech_list_mic=flipped(case.last.mech_list_mic or b"", bit))
        refuses(case.ours, bad.encode(), KerberosError)
    Required().control()


def test_k162_every_bit_of_the_acceptors_mech_list_mic_counts() -> None:
    for bit in range(len(Volunteered().answer.mech_list_mic or b"") * 8):
        case = Volunteered()
        bad = replace(case.answer, mech_list_mic=flipped(case.answer.mech_list_mic or b"", bit))
        error = refuses(case.ours, bad.encode(), KerberosError)
        assert read(error.response) == NegTokenResp(REJECT)  # the acceptor waits, and hears it
    Volunteered().control()


@pytest.mark.parametrize("case", [Required, Volunteered])
def test_k162_another_length_is_no_mic(case: Callable[[], Any]) -> None:
    for cut in (
        lambda mic: b"",
        lambda mic: mic[:16],
        lambda mic: mic[:-1],
        lambda mic: mic + b"\0",
    ):
        one = case()
        message = one.last if isinstance(one, Required) else one.answer
        refuses(
            one.ours,
            replace(message, mech_list_mic=cut(message.mech_list_mic)).encode(),
            KerberosError,
        )
    case().control()


def counting_from(number: int) -> Callable[[int], bytes]:
    """Return a source of random bytes whose sequence numbers are `number`."""
    return lambda size: number.to_bytes(4, "big") if size == 4 else os.urandom(size)


@pytest.mark.parametrize("number", [1, 64, 2**31, 2**32 - 1], ids=hex)
def test_k162_the_mic_may_be_numbered_0_as_windows_does(number: int) -> None:
    """Also where the messages' numbers begin close to it; they begin where they would without the MIC."""
    ticket, keys = issue()
    ours, theirs = (
        initiator(ticket),
        acceptor(keys, mechanism="kerberos", random=counting_from(number)),
    )
    reply = theirs.step(opened(ours.step()).mech_token or b"")
    mic = Forger(theirs.session_key, "acceptor").mic(encode_mech_types(OFFER), seq=0)
    last = read(ours.step(resp(INCOMPLETE, MS, reply, mic)))
    theirs.verify_mic(encode_mech_types(OFFER), last.mech_list_mic or b"")
    for message in (b"first", b"second"):
        assert ours.unwrap(theirs.wrap(message)) == message
        assert theirs.unwrap(ours.wrap(message)) == message
    with pytest.raises(SequenceError):
        ours.verify_mic(encode_mech_types(OFFER), mic)  # and is no message


def test_k162_a_mic_has_its_place_in_the_order_of_messages() -> None:
    case = Required()
    case.control()
    with pytest.raises(SequenceError) as caught:
        case.ours.verify_mic(encode_mech_types(case.peer.offered), case.last.mech_list_mic or b"")
    assert caught.value.reason == "duplicate"
    assert case.ours.unwrap(case.peer.kerberos.wrap(b"next")) == b"next"
    assert case.peer.kerberos.unwrap(case.ours.wrap(b"next")) == b"next"


def test_k162_a_mic_from_the_future_is_refused() -> None:
    case = Required()
    case.peer.kerberos.get_mic(b"a message that never arrives")
    mic = case.peer.kerberos.get_mic(encode_mech_types(case.peer.offered))
    refuses(case.ours, replace(case.last, mech_list_mic=mic).encode(), SequenceError)
    Required().control()


def test_k162_a_mic_of_another_context_is_refused() -> None:
    other = Required().last.mech_list_mic
    case = Required()
    refuses(case.ours, replace(case.last, mech_list_mic=other).encode(), KerberosError)
    reflected = Required()
    refuses(
        reflected.ours, resp(COMPLETED, None, None, reflected.answer.mech_list_mic), ProtocolError
    )
    Required().control()


def test_k162_an_rc4_context_has_no_mics_so_it_is_refused_where_they_are_required() -> None:
    ticket, keys = issue(23)
    rc4 = {"permitted_etypes": (23,)}
    peer, ours = PreferringNtlm(ticket, **rc4), acceptor(keys, **rc4)
    refuses(ours, peer.step(ours.step(peer.step(None))) or b"", PolicyError, "RC4")
    pair(23, initiator={"mechanism": "negotiate"})


@pytest.mark.parametrize("state", [None, COMPLETED, INCOMPLETE])
def test_k163_a_required_mic_that_was_stripped(state: int | None) -> None:
    case = Required()
    refuses(case.ours, resp(state), ProtocolError, "without a mechListMIC")
    Required().control()


@pytest.mark.parametrize("state", [None, COMPLETED, INCOMPLETE, REQUEST_MIC])
def test_k163_an_acceptor_that_requires_mics_and_sends_none(state: int | None) -> None:
    for answered in (True, False):
        ticket, keys = issue()
        ours, theirs = initiator(ticket), acceptor(keys, mechanism="kerberos")
        token = opened(ours.step()).mech_token
        if answered:  # it made us begin again
            token = read(ours.step(resp(REQUEST_MIC, STANDARD))).response_token
            refuses(ours, resp(state, None, theirs.step(token)), ProtocolError)
        elif state == REQUEST_MIC:
            refuses(ours, resp(state, MS, theirs.step(token)), ProtocolError)
    Volunteered(REQUEST_MIC).control()


def test_k163_a_one_way_client_that_sends_its_last_token_without_the_mic() -> None:
    for stripped in (True, False):
        ticket, keys = issue()
        peer, ours = PreferringNtlm(ticket, flags=NOT_MUTUAL), acceptor(keys, require=Flag(0))
        last = peer.step(ours.step(peer.step(None)))
        if stripped:
            refuses(
                ours,
                replace(read(last), mech_list_mic=None).encode(),
                ProtocolError,
                "without a mechListMIC",
            )
        else:
            assert read(ours.step(last)).neg_state == COMPLETED
            assert ours.established


EDITS: dict[str, Callable[[tuple[bytes, ...]], tuple[bytes, ...]]] = {
    "reversed": lambda offered: offered[::-1],
    "all-but-the-first-removed": lambda offered: offered[:1],
    "first-removed": lambda offered: offered[1:],
    "one-added-before": lambda offered: (UNKNOWN, *offered),
    "one-added-behind": lambda offered: (*offered, UNKNOWN),
    "one-twice": lambda offered: (*offered, offered[-1]),
    "one-replaced": lambda offered: (*offered[:-1], UNKNOWN),
}


@pytest.mark.parametrize("edit", EDITS)
def test_k164_an_initiator_refuses_the_mic_over_an_edited_list(edit: str) -> None:
    case = Volunteered(signed=encode_mech_types(EDITS[edit](OFFER)))
    refuses(case.ours, case.answer.encode(), IntegrityError)
    Volunteered().control()


@pytest.mark.parametrize("edit", EDITS)
def test_k164_an_acceptor_refuses_a_client_whose_list_was_edited(edit: str) -> None:
    """The client would refuse the acceptor's MIC as well; here it goes on."""

    def accepts(mech_types: tuple[bytes, ...]) -> bool:
        peer.step(None)
        answer = read(ours.step(peer.step(ours.step(init(mech_types, NTLM_TOKEN))) or b""))
        peer.kerberos.step(answer.response_token)
        ours.step(resp(COMPLETED, None, None, peer.kerberos.get_mic(peer.signed)))
        return ours.established

    ticket, keys = issue()
    for offered in ((NTLM_OID, STANDARD), (NEGOEX_OID, NTLM_OID, STANDARD, MS)):
        peer, ours = PreferringNtlm(ticket, offered), acceptor(keys)
        with pytest.raises(KerberosError):
            accepts(EDITS[edit](offered))
        assert not ours.established
        peer, ours = PreferringNtlm(ticket, offered), acceptor(keys)
        assert accepts(offered)


@pytest.mark.parametrize("edit", ["reversed", "one-added-before", "one-replaced"])
def test_k164_between_our_own_ends_an_edit_fails_or_changes_nothing(edit: str) -> None:
    """Which of Kerberos' two names comes first means nothing; another mechanism before them makes MICs required."""
    ticket, keys = issue()
    ours, theirs = initiator(ticket), acceptor(keys)
    first = replace(opened(ours.step()), mech_types=EDITS[edit](OFFER))
    answer = theirs.step(frame_mechanism(SPNEGO_OID, first.encode()))
    if edit == "one-added-before":
        assert read(answer) == NegTokenResp(REQUEST_MIC, MS)
        refuses(ours, answer or b"", ProtocolError)
        assert not theirs.established
    else:
        ours.step(answer)
        assert theirs.unwrap(ours.wrap(b"still Kerberos")) == b"still Kerberos"


@pytest.mark.parametrize("wrong", ["with-the-field's-tag", "contents-alone", "the-whole-message"])
def test_k165_a_mic_over_something_else_than_the_list(wrong: str) -> None:
    for offered in ((NTLM_OID, STANDARD), OFFER):
        genuine = encode_mech_types(offered)
        signed = {
            "with-the-field's-tag": tlv(0xA0, genuine),
            "contents-alone": genuine[2:],
            "the-whole-message": NegTokenInit(offered).encode(),
        }[wrong]
        if offered == OFFER:
            case = Volunteered(signed=signed)
            refuses(case.ours, case.answer.encode(), IntegrityError)
        else:
            ticket, keys = issue()
            peer, ours = PreferringNtlm(ticket, offered, signed=signed), acceptor(keys)
            answer = ours.step(peer.step(ours.step(peer.step(None))))
            refuses(ours, peer.step(answer) or b"", IntegrityError)
    Volunteered().control()
    Required().control()


# --- K166 to K168: the mechanism


@pytest.mark.parametrize(
    ("oid", "words"),
    [
        pytest.param(NTLM_OID, "the service chose NTLM.*keytab", id="K166-K168-ntlm"),
        pytest.param(NEGOEX_OID, "the service chose NegoEx", id="K166-negoex"),
        pytest.param(SPNEGO_OID, "the service chose SPNEGO", id="K166-spnego"),
        pytest.param(UNKNOWN, "the service chose OID 2a0304", id="K166-unknown"),
        pytest.param(STANDARD + b"\x03", "user-to-user", id="K166-user-to-user"),
    ],
)
@pytest.mark.parametrize("state", [COMPLETED, INCOMPLETE, REQUEST_MIC])
def test_a_service_that_chooses_what_was_not_offered(oid: bytes, words: str, state: int) -> None:
    for token in (None, NTLM_TOKEN):
        ticket, _ = issue()
        ours = initiator(ticket)
        ours.step()
        refuses(ours, resp(state, oid, token), UnsupportedError, words)
    ticket, keys = issue()
    ours = initiator(ticket)
    negotiate(ours, ScriptedAcceptor(keys))
    assert ours.established


@pytest.mark.parametrize("state", [None, INCOMPLETE, COMPLETED])
def test_k167_a_reselection_has_to_request_mics(state: int | None) -> None:
    ticket, keys = issue()
    ours = initiator(ticket)
    ours.step()
    refuses(ours, resp(state, STANDARD), ProtocolError)
    control, theirs = initiator(ticket), acceptor(keys, mechanism="kerberos")
    control.step()
    again = read(control.step(resp(REQUEST_MIC, STANDARD)))
    reply = theirs.step(again.response_token or b"")
    assert control.step(resp(INCOMPLETE, None, reply, theirs.get_mic(encode_mech_types(OFFER))))
    assert control.established


def test_k167_one_reselection_is_all() -> None:
    ticket, _ = issue()
    ours = initiator(ticket)
    ours.step()
    ours.step(resp(REQUEST_MIC, STANDARD))
    refuses(ours, resp(REQUEST_MIC, STANDARD), ProtocolError, "no Kerberos token")


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        ((NTLM_OID,), "offers NTLM. Only Kerberos"),
        ((NEGOEX_OID, NTLM_OID), "offers NegoEx, NTLM. Only Kerberos"),
        ((UNKNOWN,), "offers OID 2a0304."),
        ((), "offers nothing."),
        ((STANDARD + b"\x03",), "user-to-user"),
    ],
    ids=["ntlm", "negoex-and-ntlm", "unknown", "empty", "user-to-user"],
)
def test_k168_a_client_without_kerberos_hears_what_to_configure(
    offered: tuple[bytes, ...], words: str
) -> None:
    _, keys = issue()
    error = refuses(acceptor(keys), init(offered, NTLM_TOKEN), UnsupportedError, words)
    assert "SPN" in str(error)
    assert read(error.response) == NegTokenResp(REJECT)
    Required().control()


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_k168_ntlm_without_a_frame_is_named(mechanism: str) -> None:
    ticket, keys = issue()
    with pytest.raises(UnsupportedError, match=r"NTLM.*falls back.*SPN"):
        acceptor(keys, mechanism=mechanism).step(NTLM_TOKEN)
    assert acceptor(keys, mechanism=mechanism).step(Initiator(ticket).step())


def test_k168_ntlm_inside_a_token_for_kerberos() -> None:
    ticket, keys = issue()
    refuses(acceptor(keys), init(OFFER, NTLM_TOKEN), UnsupportedError, "NTLM")
    ours = initiator(ticket)
    ours.step()
    refuses(ours, resp(INCOMPLETE, MS, NTLM_TOKEN), UnsupportedError, "NTLM")
    refuses(
        acceptor(keys), init(OFFER, frame_mechanism(NTLM_OID, NTLM_TOKEN)), UnsupportedError, "NTLM"
    )
    pair(initiator={"mechanism": "negotiate"})


# --- K169 to K171: order and states


def test_k169_a_mic_before_the_context_is_complete() -> None:
    ticket, keys = issue()
    kerberos = Initiator(ticket)
    token = kerberos.step()
    mic = pair()[0].get_mic(encode_mech_types(OFFER))
    refuses(acceptor(keys), init(OFFER, token, mic), KerberosError)
    ours = acceptor(keys)
    ours.step(init((NTLM_OID, STANDARD), NTLM_TOKEN))
    refuses(ours, resp(None, None, None, mic), ProtocolError)
    waiting = initiator(ticket)
    waiting.step()
    refuses(waiting, resp(INCOMPLETE, MS, None, mic), ProtocolError)
    dce_style = Initiator(ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE).step()
    refuses(
        acceptor(keys),
        init(OFFER, dce_style, mic),
        ProtocolError,
        "before the Kerberos context was complete",
    )
    assert acceptor(keys).step(init(OFFER, token))


def test_k169_a_service_that_goes_on_after_both_mics() -> None:
    ticket, keys = issue()
    for state in (INCOMPLETE, COMPLETED):
        ours, theirs = initiator(ticket, flags=NOT_MUTUAL), acceptor(keys, require=Flag(0))
        ours.step()
        request = read(ours.step(resp(REQUEST_MIC, STANDARD)))
        theirs.step(request.response_token or b"")
        theirs.verify_mic(encode_mech_types(OFFER), request.mech_list_mic or b"")
        last = resp(state, None, None, theirs.get_mic(encode_mech_types(OFFER)))
        if state == INCOMPLETE:
            refuses(ours, last, ProtocolError, "after both mechListMICs")
        else:
            assert ours.step(last) is None
            assert ours.established


def test_k169_a_second_mic() -> None:
    ticket, keys = issue()
    ours, theirs = initiator(ticket), acceptor(keys, mechanism="kerberos")
    token = read((ours.step(), ours.step(resp(REQUEST_MIC, STANDARD)))[1]).response_token or b""
    reply = theirs.step(token)
    first = resp(INCOMPLETE, None, reply, theirs.get_mic(encode_mech_types(OFFER)))
    assert ours.step(first)
    with pytest.raises(KerberosError, match="takes no token"):  # it was complete, with the first
        ours.step(resp(COMPLETED, None, None, theirs.get_mic(encode_mech_types(OFFER))))
    case = Required()
    case.control()
    with pytest.raises(KerberosError, match="takes no token"):
        case.ours.step(case.last.encode())


def test_k170_a_kerberos_token_after_the_last_one() -> None:
    case = Required()
    again = Initiator(issue()[0]).step()
    refuses(
        case.ours,
        replace(case.last, response_token=again).encode(),
        ProtocolError,
        "after the last one",
    )
    Required().control()
    ticket, keys = issue()
    ours, theirs = initiator(ticket, flags=NOT_MUTUAL), acceptor(keys, require=Flag(0))
    answer = read(theirs.step(ours.step()))
    spurious = frame(TOK_AP_REP, b"\x6f\x00")
    control = initiator(ticket, flags=NOT_MUTUAL)
    control.step()
    refuses(
        ours, replace(answer, response_token=spurious).encode(), ProtocolError, "after the last one"
    )
    assert control.step(answer.encode()) is None
    assert control.established


@pytest.mark.parametrize("token", [None, b""], ids=["absent", "empty"])
def test_k170_a_kerberos_token_that_is_missing(token: bytes | None) -> None:
    ticket, keys = issue()
    for state in (COMPLETED, INCOMPLETE, REQUEST_MIC):
        ours = initiator(ticket)
        ours.step()
        kind = MutualAuthenticationError if state == COMPLETED else ProtocolError
        refuses(ours, resp(state, MS, token), kind)
    for first in (init((NTLM_OID, STANDARD), NTLM_TOKEN), init((STANDARD,))):
        for said in (None, COMPLETED, INCOMPLETE):
            theirs = acceptor(keys)
            theirs.step(first)
            refuses(theirs, resp(said, None, token), ProtocolError, "no Kerberos token")
    pair(initiator={"mechanism": "negotiate"})


def test_k126_k170_complete_without_the_services_proof_is_no_mutual_authentication() -> None:
    ticket, keys = issue()
    for mech in (None, MS, STANDARD):
        ours = initiator(ticket)
        ours.step()
        refuses(ours, resp(COMPLETED, mech), MutualAuthenticationError, "not proved its identity")
        assert not ours.mutual
    ours = initiator(ticket)
    assert ours.step(acceptor(keys).step(ours.step())) is None
    assert ours.mutual


def test_k170_complete_before_the_third_leg_of_dce_style_is_too_early() -> None:
    ticket, keys = issue()
    for early in (True, False):
        ours = initiator(ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE)
        answer = read(acceptor(keys).step(ours.step()))
        if early:
            refuses(
                ours,
                replace(answer, neg_state=COMPLETED).encode(),
                ProtocolError,
                "but Kerberos is not",
            )
        else:
            assert ours.step(answer.encode())
            assert ours.step(resp(COMPLETED)) is None
            assert ours.established


def test_k170_a_service_that_wants_more_than_there_is() -> None:
    ticket, keys = issue()
    for state in (INCOMPLETE, REQUEST_MIC):
        ours = initiator(ticket)
        answer = read(acceptor(keys).step(ours.step()))
        refuses(
            ours,
            replace(answer, neg_state=state).encode(),
            ProtocolError,
            "waits for something more",
        )
    Volunteered().control()


def test_k171_a_rejection_is_final_whatever_it_holds() -> None:
    ticket, keys = issue()
    for token in (None, b"", b"junk", NTLM_TOKEN, "AP-REP"):
        ours = initiator(ticket)
        reply = acceptor(keys, mechanism="kerberos").step(opened(ours.step()).mech_token)
        inner = reply if isinstance(token, str) else token
        error = refuses(ours, resp(REJECT, MS, inner), ApError, "rejected the negotiation")
        assert (error.code, error.response) == (ErrorCode.KRB_ERR_GENERIC, None)
    for case in (Required(), Volunteered()):
        message = case.last if isinstance(case, Required) else case.answer
        with pytest.raises(ApError, match="rejected"):
            case.ours.step(replace(message, neg_state=REJECT).encode())
        assert not case.ours.established
    Required().control()


def test_k171_a_rejection_with_a_krb_error_says_why() -> None:
    ticket, keys = issue()
    for flags in (Flag.DEFAULT, NOT_MUTUAL):
        ours = initiator(ticket, flags=flags)
        with pytest.raises(ApError) as caught:
            acceptor(keys, service="HTTP/other.example.test@EXAMPLE.TEST").step(ours.step())
        answer = read(caught.value.response)
        assert (answer.neg_state, answer.supported_mech) == (REJECT, None)
        assert error_of(answer.response_token).error_code == caught.value.code
        assert refuses(ours, answer.encode(), ApError).code == caught.value.code
    accepted = initiator(ticket)
    accepted.step(acceptor(keys, service=SERVICE).step(accepted.step()))
    assert accepted.established


def test_k171_a_krb_error_without_a_rejection_counts_as_well() -> None:
    ticket, keys = issue()
    ours = initiator(ticket)
    with pytest.raises(ApError) as caught:
        acceptor(issue()[1], mechanism="kerberos").step(opened(ours.step()).mech_token)
    for state in (COMPLETED, INCOMPLETE):
        waiting = initiator(ticket)
        waiting.step()
        assert (
            refuses(waiting, resp(state, MS, caught.value.response), ApError).code
            == caught.value.code
        )
    ours = initiator(ticket)
    ours.step(acceptor(keys).step(ours.step()))
    assert ours.established


@pytest.mark.parametrize(
    "state",
    ["0a0104", "0a017f", "0a01ff", "0a0200ff", "0a00", "0a050000000000", "020100", "0a020001"],
)
def test_k171_a_state_that_does_not_exist(state: str) -> None:
    ticket, keys = issue()
    ours = initiator(ticket)
    genuine = acceptor(keys).step(ours.step()) or b""
    assert genuine.count(bytes.fromhex("a0030a0100")) == 1
    field = bytes.fromhex(state)
    contents = tlv(0xA0, field) + NegTokenResp(None, MS, read(genuine).response_token).encode()[6:]
    refuses(ours, tlv(0xA1, tlv(0x30, contents)), DecodeError)
    control = initiator(ticket)
    control.step(acceptor(keys).step(control.step()))
    assert control.established


def test_k171_the_first_answer_must_name_its_state() -> None:
    ticket, keys = issue()
    ours = initiator(ticket)
    answer = read(acceptor(keys).step(ours.step()))
    refuses(ours, replace(answer, neg_state=None).encode(), ProtocolError, "negState")
    Volunteered().control()


# --- K172 to K175: what must be survived


@pytest.mark.parametrize(
    "offered", [(MS, STANDARD, NTLM_OID), (STANDARD, MS), (MS,), (STANDARD,)], ids=len
)
def test_k172_the_name_that_the_client_put_first_is_echoed(offered: tuple[bytes, ...]) -> None:
    ticket, keys = issue()
    kerberos, ours = Initiator(ticket), acceptor(keys)
    answer = read(ours.step(init(offered, kerberos.step())))
    assert (answer.neg_state, answer.supported_mech) == (COMPLETED, offered[0])
    kerberos.step(answer.response_token)
    assert kerberos.unwrap(ours.wrap(b"data")) == b"data"


def test_k172_microsofts_name_inside_too_also_in_refusals() -> None:
    ticket, keys = issue()
    for held, accepted in ((keys, True), (issue()[1], False)):
        kerberos = Initiator(ticket)
        token = init((MS, STANDARD), frame(*unframe(kerberos.step() or b""), MS))
        if accepted:
            reply = read(acceptor(held).step(token)).response_token
            kerberos.step(frame(*unframe(reply or b"", MS)))
            assert kerberos.established
        else:
            refused = read(refuses(acceptor(held), token, ApError).response).response_token
            assert unframe(refused or b"", MS)[0] == b"\x03\x00"


def test_k172_the_acceptor_may_answer_by_the_other_name() -> None:
    """As Samba's does. Both are Kerberos, so nothing was lost."""
    ticket, keys = issue()
    ours, theirs = initiator(ticket), ScriptedAcceptor(keys, mech=STANDARD)
    assert negotiate(ours, theirs) == 2
    assert theirs.kerberos.unwrap(ours.wrap(b"data")) == b"data"


def test_k173_an_empty_first_token_gets_hints() -> None:
    ticket, keys = issue()
    ours = acceptor(keys)
    hints = ours.step(b"")
    assert hints is not None
    decoded = NegTokenInit2.decode(unframe_mechanism(hints, SPNEGO_OID))
    assert decoded.mech_types == OFFER
    assert decoded.neg_hints is not None
    assert decoded.neg_hints.hint_name == "not_defined_in_RFC4178@please_ignore"
    peer = initiator(ticket)
    assert peer.step(ours.step(peer.step(hints))) is None
    assert peer.unwrap(ours.wrap(b"data")) == b"data"


def test_k173_hints_are_given_once() -> None:
    _, keys = issue()
    ours = acceptor(keys)
    ours.step(b"")
    refuses(ours, b"", DecodeError)
    raw = acceptor(keys, mechanism="kerberos")
    with pytest.raises(DecodeError):
        raw.step(b"")


@pytest.mark.parametrize("state", [COMPLETED, INCOMPLETE])
def test_k174_a_mic_that_repeats_the_token_is_none(state: int) -> None:
    """Old Windows fills both fields alike. Where MICs are required, it does not count as one."""
    ticket, keys = issue()
    ours = initiator(ticket)
    answer = read(acceptor(keys).step(ours.step()))
    twice = replace(answer, neg_state=state, mech_list_mic=answer.response_token).encode()
    if state == COMPLETED:
        assert ours.step(twice) is None
        assert ours.established
    else:
        refuses(ours, twice, ProtocolError)
    required = initiator(ticket)
    answer = read(acceptor(keys).step(required.step()))
    refuses(
        required, resp(REQUEST_MIC, MS, answer.response_token, answer.response_token), ProtocolError
    )


def test_k175_an_answer_without_supported_mech_means_the_optimistic_one() -> None:
    ticket, keys = issue()
    ours, theirs = initiator(ticket), ScriptedAcceptor(keys, mech=None)
    assert negotiate(ours, theirs) == 2
    assert ours.unwrap(theirs.kerberos.wrap(b"data")) == b"data"


# --- K176 to K178: malformed tokens


def test_k176_short_and_cut_off_tokens() -> None:
    ticket, keys = issue()
    whole, answer = initiator(ticket).step() or b"", resp(COMPLETED, MS, b"token", b"mic")
    short = {bytes(size) for size in range(1, 17)} | {b"\x60" * size for size in range(1, 17)}
    short |= {whole[:size] for size in range(1, 30)} | {whole[:-size] for size in range(1, 30)}
    short |= {answer[:size] for size in range(1, len(answer))} | {whole + b"\0", answer + b"\0"}
    for token in sorted(short):
        with pytest.raises(KerberosError):
            acceptor(keys).step(token)
        ours, theirs = initiator(ticket), acceptor(keys)
        ours.step()
        refuses(ours, token, DecodeError)
        theirs.step(init((NTLM_OID, STANDARD)))
        refuses(theirs, token, DecodeError)
    ours = initiator(ticket)
    ours.step()
    refuses(ours, b"", MutualAuthenticationError)
    assert acceptor(keys).step(whole)


BROKEN = {
    "empty-choice": "a000",
    "empty-sequence-as-init": "a0023000",
    "response-as-init": "a1023000",
    "list-of-strings": "a007 3005 a003 0401 00",
    "list-empty-oid": "a008 3006 a004 3002 0600",
    "list-endless-oid": "a009 3007 a005 3003 0601 80",
    "token-as-sequence": "a016 3014 a00d300b06092a864886f712010202 a203 300100",
    "flags-as-integer": "a014 3012 a00d300b06092a864886f712010202 a103 020100",
    "mic-under-a4": "a016 3014 a00d300b06092a864886f712010202 a403 0401 00",
    "hints-for-mic": "a018 3016 a00d300b06092a864886f712010202 a305 3003a00100",
    "two-lists": "a020 301e a00d300b06092a864886f712010202 a00d300b06092a864886f712010202",
    "trailing": "a011 300f a00d300b06092a864886f712010202 0000",
    "indefinite": "a080 3000 0000",
    "choice-2": "a2023000",
}


@pytest.mark.parametrize("name", BROKEN)
def test_k176_malformed_first_tokens(name: str) -> None:
    ticket, keys = issue()
    refuses(acceptor(keys), frame_mechanism(SPNEGO_OID, bytes.fromhex(BROKEN[name])), DecodeError)
    with pytest.raises(DecodeError):  # without the frame that the first token has
        acceptor(keys).step(bytes.fromhex(BROKEN[name]))
    assert acceptor(keys).step(initiator(ticket).step())


def test_k176_a_mic_under_another_tag_is_no_mic() -> None:
    case = Required()
    genuine = case.last.mech_list_mic or b""
    fields = tlv(0xA0, b"\x0a\x01\x00") + tlv(0xA4, tlv(0x04, genuine))
    refuses(case.ours, tlv(0xA1, tlv(0x30, fields)), DecodeError)
    Required().control()


@pytest.mark.parametrize("size", [0, 1, 8, 39, 40, 200])
def test_k177_negoex_messages_are_never_parsed(size: int) -> None:
    """Their lengths and vectors have been the ruin of others. Alone it is refused; before Kerberos, passed over."""
    message = (b"NEGOEXTS" + bytes.fromhex("00000000 00000000 ffffffff ffffffff") + b"\xff" * 200)[
        :size
    ]
    ticket, keys = issue()
    refuses(acceptor(keys), init((NEGOEX_OID,), message), UnsupportedError, "NegoEx")
    if size:
        refuses(acceptor(keys), init((STANDARD, NEGOEX_OID), message), DecodeError)
    peer, ours = PreferringNtlm(ticket, (NEGOEX_OID, STANDARD)), acceptor(keys)
    peer.step(None)
    answer = ours.step(init((NEGOEX_OID, STANDARD), message))
    while answer is not None and not ours.established:
        answer = ours.step(peer.step(answer) or b"")
    assert ours.established


def test_k178_a_list_without_end() -> None:
    ticket, keys = issue()
    token = Initiator(ticket).step()
    for count in (MAX_MECHANISMS + 1, 4000):
        refuses(
            acceptor(keys),
            init((STANDARD,) + (UNKNOWN,) * (count - 1), token),
            DecodeError,
            "more than 64",
        )
    with pytest.raises(DecodeError, match="larger than"):
        acceptor(keys).step(init((STANDARD,) * 10_000, token))
    answer = acceptor(keys).step(init((STANDARD,) + (UNKNOWN,) * (MAX_MECHANISMS - 1), token))
    assert read(answer).neg_state == COMPLETED


def test_k178_spnego_in_spnego() -> None:
    ticket, keys = issue()
    inside = initiator(ticket).step()
    refuses(acceptor(keys), init((SPNEGO_OID,), inside), UnsupportedError, "offers SPNEGO")
    refuses(acceptor(keys), init(OFFER, inside), UnsupportedError, "SPNEGO")
    ours = initiator(ticket)
    nested = acceptor(keys).step(ours.step())
    refuses(
        ours,
        resp(INCOMPLETE, MS, frame_mechanism(SPNEGO_OID, nested or b"")),
        UnsupportedError,
        "SPNEGO",
    )
    pair(initiator={"mechanism": "negotiate"})


# --- every bit of the outer fields


#: What no MAC covers where none is exchanged, and nobody needs: the one bit between Kerberos' two names, and the names
#: of mechanisms that were not chosen. Where another mechanism seems to come first, MICs are exchanged and fail.
TOLERATED = {
    "init": {"first-name", "second-name"},
    "resp": {"chosen-name"},
}


def survives(bit: int, which: str) -> bool:
    """Flip one bit of one message between our two ends; whether both are established nevertheless."""
    ticket, keys = issue()
    ours, theirs = initiator(ticket), acceptor(keys)
    genuine = ours.step() or b""
    try:
        answer = theirs.step(flipped(genuine, bit) if which == "init" else genuine)
        if which == "resp":
            answer = flipped(answer or b"", bit)
        while answer is not None:
            answer = ours.step(answer)
            if answer is not None:
                answer = theirs.step(answer)
    except KerberosError:
        assert not ours.established
        return False
    assert ours.established
    assert theirs.established
    assert (theirs.initiator, ours.acceptor) == (ALICE, SERVICE)
    return True


def fields_of(token: bytes, which: str) -> dict[str, range]:
    """Return where the OIDs' contents lie."""
    if which == "init":
        at = token.index(MS)
        return {"first-name": range(at, at + 9), "second-name": range(at + 11, at + 20)}
    at = token.index(MS)
    return {"chosen-name": range(at, at + 9)}


@pytest.mark.parametrize("which", ["init", "resp"])
def test_every_flipped_bit_outside_the_kerberos_token_is_refused_but_for_the_reviewed_list(
    which: str,
) -> None:
    ticket, keys = issue()
    ours = initiator(ticket)
    token = ours.step() or b""
    if which == "resp":
        token = acceptor(keys).step(token) or b""
    inner = (opened(token).mech_token if which == "init" else read(token).response_token) or b""
    begin = token.index(inner)
    outside = [*range(begin), *range(begin + len(inner), len(token))]
    fields = fields_of(token, which)
    passed: dict[str, set[int]] = {}
    for bit in (8 * place + n for place in outside for n in range(8)):
        if survives(bit, which):
            name = next(
                (name for name, places in fields.items() if bit // 8 in places), f"byte {bit // 8}"
            )
            passed.setdefault(name, set()).add(bit)
    assert set(passed) == TOLERATED[which]
    between = int.from_bytes(MS, "big") ^ int.from_bytes(STANDARD, "big")
    for name in passed.keys() - {"second-name"}:
        assert {1 << 8 * fields[name].stop - 1 - bit for bit in passed[name]} == {between}


def test_nothing_secret_is_logged_by_a_negotiation(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "purekrb"):
        case = Required()
        case.control()
        Volunteered().control()
    text = caplog.text
    assert "NegTokenInit: the initiator offers NTLM, Kerberos V5" in text
    assert "mechListMIC: verified" in text
    assert case.ours.session_key.contents.hex() not in text


# --- an initiator that speaks Kerberos alone, and a service that answers by SPNEGO


def answered(response: bytes | None, state: int = 2) -> KerberosError:
    context = Initiator(issue()[0], mechanism="kerberos")
    context.step()
    with pytest.raises(KerberosError) as caught:
        context.step(NegTokenResp(state, None, response).encode())
    assert not context.established
    return caught.value


def test_a_kerberos_initiator_says_that_the_service_rejected_it_by_spnego() -> None:
    error = answered(None)
    assert isinstance(error, ApError)
    assert 'mechanism="negotiate"' in str(error)
    assert "rejected" in str(error)
    inside = answered(b"\xff\xff nothing that Kerberos knows")
    assert isinstance(inside, ApError)
    assert str(inside) == str(error)


def test_a_krb_error_in_the_rejection_says_what_is_wrong() -> None:
    ticket, _ = issue()
    other = acceptor(issue()[1], mechanism="kerberos")
    with pytest.raises(ApError) as refused:
        other.step(Initiator(ticket).step())
    assert refused.value.response is not None
    error = answered(refused.value.response)
    assert isinstance(error, ApError)
    assert error.code == refused.value.code == 31
    assert "could not decrypt our ticket" in str(error)


def test_any_other_answer_by_spnego_to_a_kerberos_initiator_proves_nothing() -> None:
    for state in (0, 1, 3):
        error = answered(b"", state)
        assert isinstance(error, MutualAuthenticationError)
        assert 'mechanism="negotiate"' in str(error)
    context = Initiator(issue()[0])
    context.step()
    with pytest.raises(DecodeError):
        context.step(b"\xa1\x02\x30\x01")
