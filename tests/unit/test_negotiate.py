"""SPNEGO between our own two ends, and its tokens byte by byte."""

from __future__ import annotations

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ContextError,
    Flag,
    Initiator,
    KerberosError,
    UnsupportedError,
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
from purekrb.gss.framing import TOK_AP_REP, frame, frame_mechanism, unframe
from purekrb.messages.spnego import (
    NegHints,
    NegTokenInit,
    NegTokenInit2,
    NegTokenResp,
    encode_mech_types,
)
from support.contexts import acceptor, flipped, pair
from support.spnego import PreferringNtlm, ScriptedAcceptor, init, negotiate, opened, read, resp
from support.tickets import issue
from support.values import replace

MS, STANDARD = MS_KRB5_MECH_OID, KRB5_MECH_OID
NOT_MUTUAL = Flag.DEFAULT & ~Flag.MUTUAL


def exchange(one: Initiator | Acceptor, other: Initiator | Acceptor) -> None:
    """Send signed and sealed messages both ways."""
    for sender, receiver in ((one, other), (other, one), (one, other)):
        assert receiver.unwrap(sender.wrap(b"sealed")) == b"sealed"
        receiver.verify_mic(b"signed", sender.get_mic(b"signed"))


# -- the tokens

#: By hand from the ASN.1 of RFC 4178 4.2 and MS-SPNG 2.2.1.
TOKENS = {
    "init": (
        NegTokenInit((STANDARD, NTLM_OID), None, b"token", b"mic"),
        "a02d302b a0193017 06092a864886f712010202 060a2b06010401823702020a a2070405746f6b656e a30504036d6963",
    ),
    "hints": (
        NegTokenInit2((STANDARD,), neg_hints=NegHints("name", b"host")),
        "a0253023 a00d300b06092a864886f712010202 a3123010 a0061b046e616d65 a1060404686f7374",
    ),
    "resp": (
        NegTokenResp(NegState.REQUEST_MIC, STANDARD, b"token", b"mic"),
        "a1243022 a0030a0103 a10b06092a864886f712010202 a2070405746f6b656e a30504036d6963",
    ),
    "empty": (NegTokenResp(), "a1023000"),
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_are_the_bytes_that_the_asn1_says(name: str) -> None:
    message, encoded = TOKENS[name]
    assert message.encode() == bytes.fromhex(encoded)
    assert type(message).decode(bytes.fromhex(encoded)) == message


def test_flags_of_any_length_are_read_and_ignored() -> None:
    decoded = NegTokenInit.decode(
        bytes.fromhex("a0173015 a00d300b06092a864886f712010202 a10403020560")
    )
    assert decoded == NegTokenInit((STANDARD,), 0x60000000)
    ticket, keys = issue()
    first = opened(Initiator(ticket, mechanism="negotiate").step())
    for flags in (0, 0xFE000000):
        token = frame_mechanism(SPNEGO_OID, replace(first, req_flags=flags).encode())
        context = acceptor(keys)
        context.step(token)
        assert context.flags == Flag.DEFAULT


def test_the_mech_list_mic_signs_the_list_without_the_tag_of_its_field() -> None:
    assert encode_mech_types((STANDARD,)) == bytes.fromhex("300b06092a864886f712010202")


# -- what is said


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
@pytest.mark.parametrize("flags", [Flag.DEFAULT, NOT_MUTUAL], ids=["mutual", "one-way"])
def test_two_tokens_are_enough_where_kerberos_is_the_first_choice(etype: int, flags: Flag) -> None:
    ours, theirs = pair(etype, flags=flags, initiator={"mechanism": "negotiate"})
    assert ours.mutual == theirs.mutual == bool(flags & Flag.MUTUAL)
    assert ours.flags == theirs.flags == flags
    exchange(ours, theirs)


def test_the_three_legs_of_dce_style_fit_into_a_negotiation() -> None:
    ticket, keys = issue()
    ours, theirs = (
        Initiator(ticket, mechanism="negotiate", flags=Flag.DEFAULT | Flag.DCE_STYLE),
        acceptor(keys),
    )
    answer = read(theirs.step(ours.step()))
    assert (answer.neg_state, answer.supported_mech) == (NegState.ACCEPT_INCOMPLETE, MS)
    last = read(ours.step(answer.encode()))
    assert last.response_token
    assert not ours.established
    assert read(theirs.step(last.encode())) == NegTokenResp(NegState.ACCEPT_COMPLETED)
    assert theirs.established
    assert ours.step(resp(NegState.ACCEPT_COMPLETED)) is None
    assert theirs.flags & Flag.DCE_STYLE
    ours.verify_mic(b"signed", theirs.get_mic(b"signed"))


def test_mics_go_with_the_third_leg_of_dce_style_where_they_are_required() -> None:
    """RFC 4178 5 c: the initiator sends the last Kerberos token, and its MIC with it."""
    ticket, keys = issue()
    ours, kerberos = acceptor(keys), Initiator(ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE)
    offered = (NTLM_OID, STANDARD)
    assert read(ours.step(init(offered))).neg_state == NegState.REQUEST_MIC
    answer = read(ours.step(resp(None, None, kerberos.step())))
    assert (answer.neg_state, answer.mech_list_mic) == (NegState.ACCEPT_INCOMPLETE, None)
    third = kerberos.step(answer.response_token)
    answer = read(ours.step(resp(None, None, third, kerberos.get_mic(encode_mech_types(offered)))))
    assert (answer.neg_state, answer.response_token) == (NegState.ACCEPT_COMPLETED, None)
    kerberos.verify_mic(encode_mech_types(offered), answer.mech_list_mic or b"")
    assert ours.established
    # and our initiator, with an acceptor that begins again
    initiator, service = (
        Initiator(ticket, mechanism="negotiate", flags=Flag.DEFAULT | Flag.DCE_STYLE),
        acceptor(keys, mechanism="kerberos"),
    )
    signed = encode_mech_types(opened(initiator.step()).mech_types)
    request = read(initiator.step(resp(NegState.REQUEST_MIC, STANDARD)))
    reply = service.step(request.response_token or b"")
    last = read(initiator.step(resp(NegState.ACCEPT_INCOMPLETE, None, reply)))
    assert service.step(last.response_token or b"") is None
    service.verify_mic(signed, last.mech_list_mic or b"")
    # It has signed, but waits for the service's MIC: nothing of the user's is protected before that is verified.
    for call in (
        lambda: initiator.wrap(b""),
        lambda: initiator.get_mic(b""),
        lambda: initiator.unwrap(b"early"),
    ):
        with pytest.raises(ContextError, match="not established"):
            call()
    assert (
        initiator.step(resp(NegState.ACCEPT_COMPLETED, None, None, service.get_mic(signed))) is None
    )
    assert initiator.established
    service.unwrap(initiator.wrap(b"now"))


def test_the_initiator_offers_kerberos_by_both_names_as_windows_does() -> None:
    ticket, keys = issue()
    ours, theirs = Initiator(ticket, mechanism="negotiate"), acceptor(keys)
    first = opened(ours.step())
    assert (first.mech_types, first.req_flags, first.mech_list_mic) == ((MS, STANDARD), None, None)
    answer = read(theirs.step(init((MS, STANDARD), first.mech_token)))
    assert (answer.neg_state, answer.supported_mech, answer.mech_list_mic) == (
        NegState.ACCEPT_COMPLETED,
        MS,
        None,
    )
    assert unframe(answer.response_token or b"")[0] == TOK_AP_REP
    assert theirs.established
    assert not ours.established
    ours.step(answer.encode())
    exchange(ours, theirs)


def test_a_one_way_negotiation_is_over_when_the_acceptor_has_spoken() -> None:
    ticket, keys = issue()
    ours = Initiator(ticket, mechanism="negotiate", flags=NOT_MUTUAL)
    theirs = acceptor(keys, require=Flag(0))
    token = ours.step()
    assert not ours.established
    with pytest.raises(ContextError):
        ours.wrap(b"too early")
    answer = theirs.step(token)
    assert read(answer) == NegTokenResp(NegState.ACCEPT_COMPLETED, MS)
    assert ours.step(answer) is None
    exchange(ours, theirs)


@pytest.mark.parametrize("flags", [Flag.DEFAULT, NOT_MUTUAL], ids=["mutual", "one-way"])
@pytest.mark.parametrize(
    "offered", [(NTLM_OID, STANDARD), (NEGOEX_OID, NTLM_OID, MS, STANDARD)], ids=len
)
def test_who_prefers_another_mechanism_gets_kerberos_and_mics(
    offered: tuple[bytes, ...], flags: Flag
) -> None:
    ticket, keys = issue()
    theirs, ours = (
        PreferringNtlm(ticket, offered, flags=flags),
        acceptor(keys, require=flags & Flag.MUTUAL),
    )
    assert negotiate(theirs, ours) == (5 if flags & Flag.MUTUAL else 4)
    first, last = theirs.received
    chosen = next(oid for oid in offered if oid in (MS, STANDARD))
    assert first == NegTokenResp(NegState.REQUEST_MIC, chosen)
    assert last.supported_mech is None
    assert last.mech_list_mic
    assert ours.established
    exchange(theirs.kerberos, ours)


@pytest.mark.parametrize("flags", [Flag.DEFAULT, NOT_MUTUAL], ids=["mutual", "one-way"])
def test_an_acceptor_that_knows_kerberos_by_its_other_name_alone_gets_a_second_ap_req_and_mics(
    flags: Flag,
) -> None:
    """As one that compares OIDs would: it takes our token for that of an unknown mechanism."""
    ticket, keys = issue()
    ours = Initiator(ticket, mechanism="negotiate", flags=flags)
    theirs = acceptor(keys, mechanism="kerberos", require=flags & Flag.MUTUAL)
    optimistic = opened(ours.step())
    answer = read(ours.step(resp(NegState.REQUEST_MIC, STANDARD)))
    assert answer.response_token not in (None, optimistic.mech_token)
    out = theirs.step(answer.response_token)
    signed = encode_mech_types(optimistic.mech_types)
    if flags & Flag.MUTUAL:
        assert answer.mech_list_mic is None
        last = read(ours.step(resp(NegState.ACCEPT_INCOMPLETE, None, out, theirs.get_mic(signed))))
        assert (last.neg_state, last.response_token) == (NegState.ACCEPT_COMPLETED, None)
        theirs.verify_mic(signed, last.mech_list_mic or b"")
    else:
        theirs.verify_mic(signed, answer.mech_list_mic or b"")
        assert ours.step(resp(NegState.ACCEPT_COMPLETED, None, out, theirs.get_mic(signed))) is None
    exchange(ours, theirs)


@pytest.mark.parametrize(
    "state", [NegState.ACCEPT_INCOMPLETE, NegState.REQUEST_MIC, NegState.ACCEPT_COMPLETED]
)
def test_a_mic_that_the_acceptor_sends_is_verified_and_answered_unless_that_was_all(
    state: NegState,
) -> None:
    ticket, keys = issue()
    ours, theirs = Initiator(ticket, mechanism="negotiate"), ScriptedAcceptor(keys, state, mic=True)
    assert negotiate(ours, theirs) == (2 if state == NegState.ACCEPT_COMPLETED else 3)
    for message in theirs.heard:
        assert message.neg_state == NegState.ACCEPT_COMPLETED
        theirs.kerberos.verify_mic(encode_mech_types((MS, STANDARD)), message.mech_list_mic or b"")
    exchange(ours, theirs.kerberos)


def test_a_mic_that_comes_with_the_only_token_is_verified_and_answered() -> None:
    """RFC 4178 5 c: the initiator's only Kerberos token may bring a MIC along."""
    ticket, keys = issue()
    kerberos, ours = Initiator(ticket, flags=NOT_MUTUAL), acceptor(keys, require=Flag(0))
    token = kerberos.step()
    answer = read(
        ours.step(init((STANDARD,), token, kerberos.get_mic(encode_mech_types((STANDARD,)))))
    )
    assert answer.neg_state == NegState.ACCEPT_COMPLETED
    kerberos.verify_mic(encode_mech_types((STANDARD,)), answer.mech_list_mic or b"")
    exchange(kerberos, ours)


def test_an_initiator_without_an_optimistic_token_is_asked_for_one() -> None:
    ticket, keys = issue()
    kerberos, ours = Initiator(ticket), acceptor(keys)
    assert read(ours.step(init((STANDARD,)))) == NegTokenResp(NegState.ACCEPT_INCOMPLETE, STANDARD)
    answer = read(ours.step(resp(None, None, kerberos.step())))
    assert (answer.neg_state, answer.supported_mech) == (NegState.ACCEPT_COMPLETED, None)
    kerberos.step(answer.response_token)
    exchange(kerberos, ours)


def test_an_initiator_takes_the_hints_of_a_service_that_speaks_first() -> None:
    ticket, keys = issue()
    ours, theirs = Initiator(ticket, mechanism="negotiate"), acceptor(keys)
    hints = theirs.step(b"")
    assert theirs.step(ours.step(hints)) is not None
    other = Initiator(ticket, mechanism="negotiate")
    with pytest.raises(UnsupportedError, match="offers NTLM, but not Kerberos"):
        other.step(frame_mechanism(SPNEGO_OID, NegTokenInit2((NTLM_OID,)).encode()))


def test_negotiation_errors_say_what_the_service_said() -> None:
    ticket, _ = issue()
    _, strangers = issue()
    for mechanism in ("negotiate", "kerberos"):
        ours = Initiator(ticket, mechanism=mechanism)
        with pytest.raises(ApError) as refused:
            acceptor(strangers).step(ours.step())
        with pytest.raises(ApError, match="another account's key") as told:
            ours.step(refused.value.response)
        assert told.value.code == refused.value.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY


def test_a_kerberos_acceptor_and_a_negotiating_client_name_each_others_mechanism() -> None:
    ticket, keys = issue()
    with pytest.raises(UnsupportedError, match=r'SPNEGO .*mechanism="negotiate"'):
        acceptor(keys, mechanism="kerberos").step(Initiator(ticket, mechanism="negotiate").step())
    assert acceptor(keys).step(Initiator(ticket).step())


@pytest.mark.parametrize("mechanism", [STANDARD, MS], ids=["standard", "microsofts"])
@pytest.mark.parametrize("accepting", ["kerberos", "negotiate"])
def test_raw_kerberos_tokens_are_answered_under_the_name_they_came_with(
    mechanism: bytes, accepting: str
) -> None:
    ticket, keys = issue()
    ours = Initiator(ticket)
    reply = acceptor(keys, mechanism=accepting).step(frame(*unframe(ours.step() or b""), mechanism))
    tok_id, message = unframe(reply or b"", mechanism)
    assert tok_id == TOK_AP_REP
    ours.step(frame(tok_id, message))
    assert ours.established


# -- an acceptor that leaves SPNEGO out of its answer


def bare_answer(flags: Flag = Flag.DEFAULT) -> tuple[Initiator, Acceptor, bytes]:
    """Return an initiator that negotiates, and the bare AP-REP that an acceptor answers with."""
    ticket, keys = issue()
    initiator, service = Initiator(ticket, flags=flags, mechanism="negotiate"), acceptor(keys)
    answer = service.step(opened(initiator.step()).mech_token)
    assert answer is not None
    return initiator, service, answer


def test_a_bare_ap_rep_in_answer_to_a_negotiation_is_taken_where_it_verifies() -> None:
    initiator, service, answer = bare_answer()
    assert initiator.step(answer) is None
    assert initiator.mutual
    exchange(initiator, service)


def test_a_bare_ap_rep_that_does_not_verify_is_refused() -> None:
    _, _, foreign = bare_answer()
    for answer in (foreign, flipped(bare_answer()[2], 400)):
        initiator, _, _ = bare_answer()
        with pytest.raises(KerberosError):
            initiator.step(answer)
        assert not initiator.established


def test_a_bare_krb_error_in_answer_to_a_negotiation_tells_the_cause() -> None:
    ticket, keys = issue()
    initiator = Initiator(ticket, mechanism="negotiate")
    token = opened(initiator.step()).mech_token
    service = acceptor(keys, require=Flag.DCE_STYLE)
    with pytest.raises(ApError) as refused:
        service.step(token)
    with pytest.raises(ApError) as told:
        initiator.step(refused.value.response)
    assert told.value.code == refused.value.code == ErrorCode.KDC_ERR_POLICY
