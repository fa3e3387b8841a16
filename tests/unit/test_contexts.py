"""Initiator against Acceptor in memory: what a caller of contexts sees."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ContextError,
    ContextExpiredError,
    CredentialError,
    DecodeError,
    Flag,
    Initiator,
    Keytab,
    KeytabEntry,
    PolicyError,
    Principal,
    ReplayError,
    SequenceError,
    UnsupportedError,
    crypto,
)
from purekrb.constants import AuthDataType, TicketFlags
from purekrb.exchanges.authorization_data import wrap_if_relevant
from purekrb.gss.iov import IovBuffer, IovType
from purekrb.messages.ap import AuthorizationDataEntry
from purekrb.system import now, seconds_of
from support.contexts import (
    AES,
    ALL,
    FixedClock,
    acceptor,
    ap_req,
    authenticator,
    authenticator_of,
    pair,
)
from support.processes import soak
from support.tickets import ALICE, SERVICE, issue
from support.values import replace

TGS = Principal.parse("krbtgt/EXAMPLE.TEST@EXAMPLE.TEST")
#: Overhead of MIC, sealed and signed tokens.
SIZES = {17: (28, 60, 28), 18: (28, 60, 28), 19: (32, 64, 32), 20: (40, 72, 40)}


def exchange(ours: Initiator, theirs: Acceptor, data: bytes = b"data") -> None:
    """Send `data` both ways in every form that the context has."""
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        for sealed in (True, False):
            assert receiver.unwrap(sender.wrap(data, sealed), sealed) == data
        if sender.etype != 23:
            receiver.verify_mic(data, sender.get_mic(data))


# --- establishment


@pytest.mark.parametrize("etype", ALL)
def test_both_ends_agree_on_who_they_are_and_talk(etype: int) -> None:
    ours, theirs = pair(etype)
    for context in (ours, theirs):
        assert context.established
        assert context.mutual
        assert (context.initiator, context.acceptor) == (ALICE, SERVICE)
        assert context.etype == etype
        assert context.flags == Flag.DEFAULT
        assert context.endtime == ours.endtime
    assert ours.session_key == theirs.session_key
    for length in (0, 1, 15, 16, 17, 1024, 65_536):
        exchange(ours, theirs, bytes(length))


@pytest.mark.parametrize("session_etype", AES)
@pytest.mark.parametrize("etype", AES)
def test_the_tickets_etype_and_the_session_keys_may_differ(etype: int, session_etype: int) -> None:
    ours, theirs = pair(etype, session_etype=session_etype)
    assert ours.etype == theirs.etype == session_etype
    exchange(ours, theirs)


@pytest.mark.parametrize("etype", AES)
def test_sizes_are_those_of_the_etype(etype: int) -> None:
    for context in pair(etype):
        mic, sealed, signed = SIZES[etype]
        assert len(context.get_mic(b"data")) == mic
        assert len(context.wrap(b"data")) == sealed + 4
        assert len(context.wrap(b"data", sealed=False)) == signed + 4
        assert context.wrap_size_limit(1000) == 1000 - sealed
        assert context.wrap_size_limit(1000, sealed=False) == 1000 - signed
        assert context.wrap_size_limit(sealed - 1) == context.wrap_size_limit(0) == 0


@pytest.mark.parametrize("etype", AES)
def test_sealed_tokens_have_the_layout_that_windows_sends(etype: int) -> None:
    ours, _ = pair(etype)
    token = ours.wrap(b"data")
    overhead = SIZES[etype][1]
    assert token[:2] == b"\5\4"
    assert int.from_bytes(token[6:8], "big") == overhead - 32  # RRC 28 for AES-SHA1
    assert len(token[overhead:]) == 4
    signed = ours.wrap(b"data", sealed=False)
    assert signed[6:8] == bytes(2)  # RRC 0: signed tokens are sent as they are, as MIT's
    assert signed[16:20] == b"data"


@pytest.mark.parametrize("etype", ALL)
@pytest.mark.parametrize(
    "flags",
    [
        Flag(0),
        Flag.INTEG,
        Flag.CONF | Flag.INTEG,
        Flag.MUTUAL,
        Flag.MUTUAL | Flag.REPLAY | Flag.INTEG,
        Flag.MUTUAL | Flag.SEQUENCE | Flag.INTEG,
        Flag.DEFAULT | Flag.IDENTIFY,
        Flag.DEFAULT | Flag.EXTENDED_ERROR,
    ],
    ids=repr,
)
def test_both_ends_have_the_flags_that_were_asked_for(etype: int, flags: Flag) -> None:
    ours, theirs = pair(etype, flags=flags)
    assert ours.flags == theirs.flags == flags
    assert ours.mutual == theirs.mutual == bool(flags & Flag.MUTUAL)
    exchange(ours, theirs)


@pytest.mark.parametrize("asked", [Flag.REPLAY, Flag.SEQUENCE, Flag.CONF], ids=str)
def test_what_needs_integrity_brings_it_along(asked: Flag) -> None:
    ours, theirs = pair(flags=Flag.MUTUAL | asked)
    assert ours.flags == theirs.flags == Flag.MUTUAL | asked | Flag.INTEG


@pytest.mark.parametrize("etype", ALL)
def test_without_mutual_the_initiator_is_established_at_once_and_gets_no_reply(etype: int) -> None:
    ticket, keys = issue(etype)
    permitted = {"permitted_etypes": (etype,)}
    ours = Initiator(
        ticket, flags=Flag.CONF | Flag.INTEG | Flag.SEQUENCE | Flag.REPLAY, **permitted
    )
    token = ours.step()
    assert ours.established
    assert not ours.mutual
    early = ours.wrap(b"sent along with the token")
    theirs = acceptor(keys, require=Flag(0), **permitted)
    assert theirs.step(token) is None
    assert not theirs.mutual
    assert theirs.unwrap(early) == b"sent along with the token"
    exchange(ours, theirs)


def test_a_step_takes_any_bytes() -> None:
    ticket, keys = issue()
    ours, theirs = Initiator(ticket), acceptor(keys)
    reply = theirs.step(bytearray(ours.step() or b""))
    assert ours.step(memoryview(reply or b"")) is None
    exchange(ours, theirs)
    for wrong in (5, "text", [96]):
        with pytest.raises(TypeError):
            acceptor(keys).step(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("etype", AES)
def test_the_first_subkey_is_fresh_and_of_the_session_keys_etype(etype: int) -> None:
    ticket, _ = issue(etype)
    sent = [authenticator_of(Initiator(ticket).step() or b"", ticket) for _ in range(50)]
    assert {a.subkey.etype for a in sent if a.subkey} == {etype}
    assert len({a.subkey.contents for a in sent if a.subkey}) == 50
    assert len({a.seq_number for a in sent}) == 50
    assert len({(a.ctime, a.cusec) for a in sent}) == 50


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((18, 17), (18, 17), 18),
        ((18, 17), (17, 18), 18),
        ((18, 20), (18, 19, 20), 18),
        ((18, 17, 20, 19), (18,), 18),
    ],
)
def test_the_session_keys_own_etype_comes_first(
    ours: tuple[int, ...], theirs: tuple[int, ...], agreed: int
) -> None:
    ends = pair(18, initiator={"permitted_etypes": ours}, accept={"permitted_etypes": theirs})
    assert [end.etype for end in ends] == [agreed, agreed]
    exchange(*ends)


def test_an_rc4_session_key_gives_way_to_aes_where_both_permit_it() -> None:
    """RFC 4537: the ticket's session key may be of RC4, and the context of AES all the same."""
    ticket, keys = issue(18, session_etype=23)
    both = {"permitted_etypes": (18, 17, 23)}
    ours, theirs = Initiator(ticket, **both), acceptor(keys, **both)
    ours.step(theirs.step(ours.step()))
    assert ours.etype == theirs.etype == 18
    exchange(ours, theirs)
    theirs = acceptor(keys, permitted_etypes=(18, 23))
    ours = Initiator(ticket, permitted_etypes=(23,))
    ours.step(theirs.step(ours.step()))
    assert ours.etype == theirs.etype == 23
    exchange(ours, theirs)


def test_a_keytab_or_any_iterable_of_its_entries_will_do() -> None:
    ticket, keys = issue()
    entries = [KeytabEntry(key.principal, key.kvno, key.key) for key in keys]
    for table in (
        Keytab(entries),
        entries,
        tuple(entries),
        iter(entries),
        (entry for entry in entries),
    ):
        assert acceptor(table).step(Initiator(ticket).step())  # type: ignore[arg-type]


def test_mechanisms_that_do_not_exist_are_told() -> None:
    with pytest.raises(UnsupportedError, match="spnego"):
        Acceptor([], mechanism="spnego")
    with pytest.raises(UnsupportedError, match="ntlm"):
        Initiator(issue()[0], mechanism="ntlm")
    for mechanism in ("kerberos", "negotiate"):
        Acceptor([], mechanism=mechanism)


def test_the_tickets_authorization_data_are_at_the_acceptors_disposal() -> None:
    pac = (AuthorizationDataEntry(1, b"0\0"), AuthorizationDataEntry(128, b"pac"))
    assert pair(authorization_data=pac)[1].authorization_data == pac
    assert pair()[1].authorization_data == ()


# --- wrong order


@pytest.mark.parametrize("starttime", [None, now().replace(microsecond=0) - timedelta(minutes=3)])
def test_both_ends_know_when_the_ticket_became_valid(starttime: Any) -> None:
    authtime = now().replace(microsecond=0) - timedelta(minutes=5)
    for context in pair(authtime=authtime, starttime=starttime):
        assert context.starttime == (starttime or authtime)
        assert context.endtime > context.starttime


@pytest.mark.parametrize(
    "said", [None, "HTTP/web.example.test", "OrderSvc/web/CN=Größe,DC=example,DC=test"]
)
def test_the_target_that_the_client_names_is_at_the_acceptors_disposal(said: str | None) -> None:
    ticket, keys = issue()
    target = AuthorizationDataEntry(AuthDataType.CLIENT_TARGET, (said or "").encode("utf-16-le"))
    made = authenticator(ticket, authorization_data=(wrap_if_relevant(target),) if said else None)
    theirs = acceptor(keys)
    theirs.step(ap_req(ticket, made))
    assert theirs.client_target == said


@pytest.mark.parametrize("flags", [Flag.DEFAULT, Flag.DEFAULT | Flag.DCE_STYLE, Flag.CONF], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "HTTP/web.example.test@EXAMPLE.TEST",
        "OrderSvc/web/CN=Gr\u00f6\u00dfe,DC=example,DC=test@EXAMPLE.TEST",
    ],
)
def test_an_initiator_may_name_its_target_inside_the_authenticator(name: str, flags: Flag) -> None:
    components, realm = name.rpartition("@")[::2]
    ticket, keys = issue(service=Principal(tuple(components.split("/")), realm))
    for said in (True, False):
        ours, theirs = (
            Initiator(ticket, flags=flags, send_client_target=said),
            acceptor(keys, require=Flag(0)),
        )
        token = ours.step()
        assert token is not None
        assert name.encode("utf-16-le") not in token
        theirs.step(token)
        assert theirs._accepted is not None
        assert theirs._accepted.etypes == (
            (18, 17, 20, 19) if flags & Flag.MUTUAL else ()
        )  # the offer is still there
        if not flags & Flag.DCE_STYLE:
            assert theirs.client_target == (name if said else None)


def test_messages_before_the_proof_are_refused() -> None:
    ticket, keys = issue()
    ours = Initiator(ticket)
    token = ours.step()
    for call in (lambda: ours.wrap(b"data"), lambda: ours.unwrap(bytes(60)), lambda: ours.flags):
        with pytest.raises(ContextError, match="waits for the peer's next token"):
            call()
    ours.step(acceptor(keys).step(token))
    assert ours.wrap(b"data")


@pytest.mark.parametrize("etype", ALL)
def test_messages_out_of_order_are_told_and_later_ones_pass(etype: int) -> None:
    ours, theirs = pair(etype)
    first, second, third = (ours.wrap(data) for data in (b"1", b"2", b"3"))
    for token, reason in ((second, "gap"), (first, "unsequenced"), (second, "duplicate")):
        with pytest.raises(SequenceError) as caught:
            theirs.unwrap(token)
        assert caught.value.reason == reason
    assert theirs.unwrap(third) == b"3"


def test_a_presented_token_does_not_open_a_second_context() -> None:
    ticket, keys = issue()
    ours = Initiator(ticket)
    token = ours.step()
    first, second = Acceptor(keys), Acceptor(keys)
    reply = first.step(token)
    with pytest.raises(ReplayError):
        second.step(token)
    ours.step(reply)
    exchange(ours, first)


# --- expiry


def test_the_time_of_a_clock_is_read_in_seconds() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    assert seconds_of(lambda: moment)() == moment.timestamp()
    assert seconds_of(lambda: moment)() < (moment + timedelta(microseconds=1)).timestamp()
    assert abs(seconds_of(now)() - now().timestamp()) < 60


def test_an_expired_context_seals_nothing_more_but_still_reads() -> None:
    clocks = FixedClock(now()), FixedClock(now())
    ours, theirs = pair(
        initiator={"clock": clocks[0]}, accept={"clock": clocks[1]}, now=now() - timedelta(hours=9)
    )
    late = ours.wrap(b"sent in time")
    exact = FixedClock(ours.endtime)
    pieces = [IovBuffer(IovType.HEADER), IovBuffer(IovType.DATA, b"data")]
    for context, clock in ((ours, clocks[0]), (theirs, clocks[1])):
        clock.moment = exact.moment
        assert context.get_mic(b"at the last moment")
        assert context.wrap_iov(pieces)
        clock.moment = exact.moment + timedelta(microseconds=1)
        for call in (
            lambda c=context: c.wrap(b"data"),
            lambda c=context: c.get_mic(b"data"),
            lambda c=context: c.wrap_iov(pieces),
        ):
            with pytest.raises(ContextExpiredError, match="authenticate again"):
                call()
        assert context.established
        assert context.initiator == ALICE
    assert theirs.unwrap(late) == b"sent in time"


def test_expiry_need_not_be_enforced() -> None:
    clock = FixedClock(now())
    lax: dict[str, Any] = {"clock": clock, "enforce_expiry": False}
    ours, theirs = pair(initiator=lax, accept=lax)
    clock.moment += timedelta(days=1)
    exchange(ours, theirs)


@pytest.mark.parametrize("offset", [-7200, 0, 7200])
def test_the_kdcs_clock_counts_where_it_differs_from_ours(offset: int) -> None:
    """Two hours off, the client corrects itself by what the KDC's reply told it."""
    real = now()
    ticket, keys = issue(now=real - timedelta(hours=9))
    clock = FixedClock(real - timedelta(seconds=offset))
    ours = Initiator(replace(ticket, time_offset=timedelta(seconds=offset)), clock=clock)
    theirs = acceptor(keys, clock=FixedClock(real))
    ours.step(theirs.step(ours.step()))
    exchange(ours, theirs)
    clock.moment += timedelta(minutes=59)
    assert ours.wrap(b"data")
    clock.moment += timedelta(minutes=2)
    with pytest.raises(ContextExpiredError):
        ours.wrap(b"data")


# --- delegation


@pytest.mark.parametrize("etype", AES)
def test_a_forwarded_tgt_arrives_where_the_service_may_have_it(etype: int) -> None:
    ticket, keys = issue(etype, flags=TicketFlags.OK_AS_DELEGATE)
    tgt = issue(service=TGS, flags=TicketFlags.FORWARDED)[0]
    ours, theirs = (
        Initiator(ticket, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=tgt),
        acceptor(keys),
    )
    ours.step(theirs.step(ours.step()))
    assert ours.flags & theirs.flags & Flag.DELEG
    delegated = theirs.delegated_credential
    assert delegated is not None
    assert delegated.principal == ALICE
    assert [kept.ticket for kept in delegated.ccache] == [tgt.ticket]
    exchange(ours, theirs)


def test_without_delegation_there_is_no_delegated_credential() -> None:
    assert pair()[1].delegated_credential is None


# --- threads


def test_one_thread_may_seal_while_another_unseals() -> None:
    """Full duplex on both ends: four threads, two contexts, every message in order."""
    for etype in ALL:
        ours, theirs = pair(etype)
        count = soak(300, 20_000)
        lanes: dict[str, list[bytes]] = {"there": [], "back": []}
        failures: list[BaseException] = []
        arrived = {lane: threading.Semaphore(0) for lane in lanes}

        def guarded(
            job: Callable[[Any, str, int], None],
            context: Any,
            lane: str,
            count: int = count,
            failures: Any = failures,
        ) -> None:
            try:
                job(context, lane, count)
            except BaseException as error:
                failures.append(error)

        def seal(
            context: Any, lane: str, count: int, lanes: Any = lanes, arrived: Any = arrived
        ) -> None:
            for number in range(count):
                lanes[lane].append(context.wrap(b"%d" % number * 20))
                arrived[lane].release()

        def unseal(
            context: Any, lane: str, count: int, lanes: Any = lanes, arrived: Any = arrived
        ) -> None:
            for number in range(count):
                assert arrived[lane].acquire(timeout=20)
                assert context.unwrap(lanes[lane][number]) == b"%d" % number * 20

        jobs = [
            (seal, ours, "there"),
            (unseal, theirs, "there"),
            (seal, theirs, "back"),
            (unseal, ours, "back"),
        ]
        threads = [threading.Thread(target=guarded, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def test_threads_that_bring_the_first_messages_count_them_together() -> None:
    """What protects messages is made with the first of them: only one is, however many threads bring one at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(soak(40, 2000)):
            ours, theirs = pair(18)
            start, tokens = threading.Barrier(4), []

            def first(
                ours: Initiator = ours,
                start: threading.Barrier = start,
                tokens: list[bytes] = tokens,
            ) -> None:
                start.wait()
                tokens.append(ours.wrap(b"first"))

            threads = [threading.Thread(target=first) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [
                theirs.unwrap(token) for token in sorted(tokens, key=lambda token: token[8:16])
            ] == [b"first"] * 4
    finally:
        sys.setswitchinterval(interval)


def test_a_context_that_is_closed_before_its_first_message_has_none() -> None:
    ours, theirs = pair(18)
    token = ours.wrap(b"data")
    theirs.close()
    for call in (
        lambda: theirs.unwrap(token),
        lambda: theirs.wrap(b""),
        lambda: theirs.get_mic(b""),
    ):
        with pytest.raises(ContextError, match="closed"):
            call()
    assert pair(18)[1].wrap(b"")


@pytest.mark.parametrize("etype", AES)
def test_many_threads_may_use_one_context(etype: int) -> None:
    """Each token has a number of its own and opens, in whatever order they come."""
    ours, theirs = pair(etype, flags=Flag.DEFAULT & ~Flag.SEQUENCE & ~Flag.REPLAY)
    tokens: list[tuple[bytes, bytes]] = []
    opened: list[bytes] = []

    def work(name: int) -> None:
        for number in range(soak(60, 5000)):
            data = b"%d/%d" % (name, number) * (1 + number % 3 * 5000)
            token = ours.wrap(data, sealed=number % 2 == 0)
            tokens.append((data, token))
            opened.append(theirs.unwrap(token, sealed=False))
            theirs.verify_mic(data, ours.get_mic(data))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(opened) == sorted(data for data, _ in tokens)
    assert len(opened) == 6 * soak(60, 5000)
    numbers = [token[8:16] for _, token in tokens]
    assert len(set(numbers)) == len(numbers)


def test_many_handshakes_at_once_mix_nobody_up() -> None:
    """One keytab and one replay cache for all, a client for each thread."""
    key = crypto.random_key(18)
    failures: list[BaseException] = []

    def connect(name: int) -> None:
        client = Principal.parse(f"user{name}@EXAMPLE.TEST")
        try:
            for _ in range(20):
                ticket, keys = issue(client=client, key=key)
                ours, theirs = Initiator(ticket), Acceptor(keys)
                ours.step(theirs.step(ours.step()))
                assert theirs.initiator == ours.initiator == client
                assert theirs.unwrap(ours.wrap(b"%d" % name)) == b"%d" % name
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=connect, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- fork


# --- what is shown


def test_a_context_tells_its_state_and_names_and_no_key() -> None:
    ticket, _ = issue()
    assert repr(Initiator(ticket)) == "<Initiator new>"
    ours, theirs = pair()
    secrets = [key.contents for key in (ours.session_key, *keys_of(ours), *keys_of(theirs))]  # type: ignore[attr-defined]
    for context in (ours, theirs):
        assert repr(context) == f"<{type(context).__name__} established, {ALICE} -> {SERVICE}>"
        shown = repr(context) + str(context) + repr(vars(context))
        assert not any(secret.hex() in shown or repr(secret)[2:-1] in shown for secret in secrets)
        context.close()
        assert repr(context) == f"<{type(context).__name__} closed>"


def test_the_trace_tells_the_steps_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    with caplog.at_level(logging.DEBUG, logger="purekrb"):
        ours, theirs = pair()
        exchange(ours, theirs)
        with pytest.raises(ApError):
            acceptor([]).step(Initiator(issue()[0]).step())
    for words in (
        "AP-REQ",
        "HTTP/web.example.test@EXAMPLE.TEST",
        "AP-REP verified",
        "context established",
    ):
        assert words in caplog.text
    assert "KRB_AP_ERR_NOKEY" in caplog.text
    for key in (*keys_of(ours), *keys_of(theirs)):
        assert key.contents.hex() not in caplog.text  # type: ignore[attr-defined]


# --- ends


def keys_of(context: Initiator | Acceptor) -> list[object]:
    return list(context._secrets)


def test_close_wipes_every_key_that_belongs_to_the_context() -> None:
    for context in pair():
        secrets = keys_of(context)
        assert context.session_key in secrets
        assert (
            len(secrets) == 2
        )  # a subkey of each side, of which the acceptor's is the session key
        context.close()
        for key in secrets:
            with pytest.raises(CredentialError, match="wiped"):
                key.contents  # type: ignore[attr-defined]  # noqa: B018


def test_close_leaves_the_ticket_and_the_keytab_usable() -> None:
    ticket, keys = issue()
    for _ in range(2):
        ours, theirs = Initiator(ticket), acceptor(keys)
        ours.step(theirs.step(ours.step()))
        assert theirs.unwrap(ours.wrap(b"again")) == b"again"
        ours.close()
        theirs.close()


def test_a_failed_handshake_wipes_the_keys_too() -> None:
    ticket, keys = issue()
    ours = Initiator(ticket)
    token = ours.step()
    secrets = keys_of(ours)
    with pytest.raises(PolicyError):
        Initiator(ticket, permitted_etypes=(17,)).step()
    with pytest.raises(ApError):
        ours.step(refusal_of(token))
    assert secrets
    for key in secrets:
        with pytest.raises(CredentialError, match="wiped"):
            key.contents  # type: ignore[attr-defined]  # noqa: B018
    assert len(ticket.session_key.contents) == 32
    assert acceptor(keys).step(Initiator(ticket).step())


def refusal_of(token: bytes | None) -> bytes:
    _, others = issue()
    with pytest.raises(ApError) as caught:
        acceptor(others).step(token)
    assert caught.value.response is not None
    return caught.value.response


# --- delegation at the caller's word, and large tokens


def test_a_caller_may_delegate_where_the_kdc_marks_no_service(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticket, keys = issue()
    tgt = issue(service=TGS, flags=TicketFlags.FORWARDED)[0]
    caplog.set_level("INFO", "purekrb")
    ours, theirs = Initiator(ticket, delegate="always", forwarded_tgt=tgt), acceptor(keys)
    ours.step(theirs.step(ours.step()))
    assert ours.flags & theirs.flags & Flag.DELEG
    assert theirs.delegated_credential is not None
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert f"{ticket.service} gets the TGT of {ALICE} by the caller's word" in record.getMessage()


@pytest.mark.parametrize("asked", [{"flags": Flag.DEFAULT | Flag.DELEG}, {"delegate": True}])
def test_delegation_that_is_dropped_is_told_with_both_remedies(
    asked: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    ticket, keys = issue()
    tgt = issue(service=TGS, flags=TicketFlags.FORWARDED)[0]
    ours, theirs = Initiator(ticket, forwarded_tgt=tgt, **asked), acceptor(keys)
    ours.step(theirs.step(ours.step()))
    assert not ours.flags & Flag.DELEG
    assert theirs.delegated_credential is None
    [record] = (one for one in caplog.records if one.levelname == "WARNING")
    for part in (str(ticket.service), "OK-AS-DELEGATE", 'delegate="always"', "administrator"):
        assert part in record.getMessage()


def test_nothing_is_told_of_delegation_that_nobody_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair()
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_delegation_needs_a_proved_service_a_tgt_and_a_known_word() -> None:
    ticket, _ = issue()
    tgt = issue(service=TGS, flags=TicketFlags.FORWARDED)[0]
    with pytest.raises(PolicyError, match="needs MUTUAL"):
        Initiator(ticket, flags=Flag.INTEG, delegate="always", forwarded_tgt=tgt)
    with pytest.raises(CredentialError, match="forwarded TGT"):
        Initiator(ticket, delegate="always")
    for word in ("never", "ALWAYS", None):
        with pytest.raises(ValueError, match="delegate"):
            Initiator(ticket, delegate=word, forwarded_tgt=tgt)  # type: ignore[arg-type]


def test_a_token_larger_than_the_limit_is_refused_with_the_name_of_the_limit() -> None:
    large = AuthorizationDataEntry(AuthDataType.IF_RELEVANT, bytes(60_000))
    ticket, keys = issue(authorization_data=(large,))
    token = Initiator(ticket).step() or b""
    with pytest.raises(DecodeError, match=f"{len(token)} bytes is larger.*48000.*max_token="):
        acceptor(keys).step(token)
    ours, theirs = Initiator(ticket), acceptor(keys, max_token=len(token) + 10_000)
    ours.step(theirs.step(ours.step()))
    exchange(ours, theirs)
    with pytest.raises(DecodeError, match="max_token="):
        Initiator(ticket, max_token=10).step(b"x" * 11)
    with pytest.raises(ValueError, match="max_token"):
        acceptor(keys, max_token=0)


def test_a_client_that_does_not_ask_for_mutual_is_refused_with_the_name_of_the_argument() -> None:
    ticket, keys = issue()
    token = Initiator(ticket, flags=Flag.INTEG).step() or b""
    with pytest.raises(ApError, match=r"browsers.*require=Flag"):
        acceptor(keys).step(token)
    assert acceptor(keys, require=Flag(0)).step(token) is None
    with pytest.raises(ApError, match=r"CONF, which this acceptor requires$"):
        acceptor(keys, require=Flag.CONF).step(Initiator(ticket, flags=Flag.MUTUAL).step())
