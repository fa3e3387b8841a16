"""Contexts that are exported from one process and imported in another."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from purekrb import (
    Acceptor,
    ChannelBindings,
    ContextError,
    ContextExpiredError,
    DecodeError,
    Flag,
    Initiator,
    IntegrityError,
    IovBuffer,
    IovType,
    KerberosError,
    PacError,
    PrfKey,
    Principal,
    SequenceError,
    UnsupportedError,
    crypto,
)
from purekrb.constants import TicketFlags
from purekrb.messages.ap import AuthorizationDataEntry
from support.contexts import ALL, FixedClock, acceptor, flipped, pair
from support.pac import assemble, buffers, element, established, now, sign
from support.tickets import ALICE, issue
from support.values import replace

KEY = bytes(range(32))
NOTHING = AuthorizationDataEntry(1, b"0\0")  # an empty AD-IF-RELEVANT
Context = Initiator | Acceptor


def moved(context: Any, **options: Any) -> Any:
    """Return the same context after a journey."""
    return type(context).import_context(context.export_context(KEY), KEY, **options)


def facts(context: Context) -> list[Any]:
    """Return what a context tells of itself, and of its keys."""
    names = ("initiator", "acceptor", "flags", "mutual", "starttime", "endtime", "etype")
    told = [getattr(context, name) for name in names]
    return [
        *told,
        context.session_key.contents,
        *(context.prf(key_use, b"", 9) for key_use in PrfKey),
    ]


@pytest.mark.parametrize("flags", [Flag.DEFAULT, Flag.DEFAULT | Flag.DCE_STYLE, Flag.CONF], ids=str)
@pytest.mark.parametrize("etype", ALL)
def test_an_imported_context_goes_on_where_the_exported_one_ended(etype: int, flags: Flag) -> None:
    if etype == 23 and flags & Flag.DCE_STYLE:
        return
    ours, theirs = pair(etype, flags=flags)
    for number in range(4):
        if number:
            before = [facts(ours), facts(theirs)]
            if number & 1:
                ours = moved(ours)
            if number & 2:
                theirs = moved(theirs)
            assert [facts(ours), facts(theirs)] == before
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            assert receiver.unwrap(sender.wrap(b"sealed")) == b"sealed"
            assert receiver.unwrap(sender.wrap(b"signed", sealed=False), sealed=False) == b"signed"
            if etype != 23:
                receiver.verify_mic(b"data", sender.get_mic(b"data"))
                pieces = sender.wrap_iov(
                    [IovBuffer(IovType.HEADER), IovBuffer(IovType.DATA, b"data")]
                )
                assert receiver.unwrap_iov(pieces)[1].data == b"data"


@pytest.mark.parametrize("etype", ALL)
def test_no_sequence_number_is_used_twice_and_no_token_taken_twice(etype: int) -> None:
    ours, theirs = pair(etype)
    tokens = [ours.wrap(bytes([n])) for n in range(3)]
    assert theirs.unwrap(tokens[0]) == b"\0"
    ours, theirs = moved(ours), moved(theirs)
    with pytest.raises(SequenceError) as caught:
        theirs.unwrap(tokens[0])
    assert caught.value.reason == "duplicate"
    assert theirs.unwrap(tokens[1]) == b"\1"
    theirs = moved(theirs)
    assert theirs.unwrap(tokens[2]) == b"\2"
    assert theirs.unwrap(ours.wrap(b"\3")) == b"\3"
    for token in tokens:
        with pytest.raises(SequenceError):
            theirs.unwrap(token)


def test_the_window_behind_the_newest_message_comes_along() -> None:
    ours, theirs = pair(flags=Flag.MUTUAL | Flag.REPLAY)
    tokens = [ours.wrap(bytes([n])) for n in range(100)]
    for number in (0, 1, 40, 99, 97):
        theirs.unwrap(tokens[number])
    theirs = moved(theirs)
    reasons = {}
    for number, token in enumerate(tokens):
        try:
            assert theirs.unwrap(token) == bytes([number])
        except SequenceError as error:
            reasons[number] = error.reason
    assert reasons == {
        **dict.fromkeys(range(36), "old"),
        40: "duplicate",
        97: "duplicate",
        99: "duplicate",
    }


@pytest.mark.parametrize("end", [0, 1], ids=["initiator", "acceptor"])
def test_the_exported_context_ends(end: int) -> None:
    context = pair()[end]
    key = context.session_key
    blob = context.export_context(KEY)
    assert not context.established
    assert not context.mutual
    calls: list[Any] = [
        lambda: context.wrap(b""),
        lambda: context.unwrap(bytes(60)),
        lambda: context.get_mic(b""),
        lambda: context.prf(PrfKey.FULL, b"", 1),
        lambda: context.session_key,
        lambda: context.flags,
        lambda: context.export_context(KEY),
        lambda: context.step(b""),
    ]
    for call in calls:
        with pytest.raises(ContextError, match="exported"):
            call()
    with pytest.raises(KerberosError, match="wiped"):
        _ = key.contents
    assert type(context).import_context(blob, KEY).established


def test_k114_only_established_contexts_are_exported() -> None:
    ticket, keys = issue()
    waiting = Initiator(ticket)
    waiting.step()
    closed = pair()[0]
    closed.close()
    for context in (Initiator(ticket), waiting, acceptor(keys), closed):
        with pytest.raises(ContextError):
            context.export_context(KEY)


def test_an_imported_context_takes_no_handshake_and_can_be_closed() -> None:
    for context in pair():
        imported = moved(context)
        with pytest.raises(ContextError):
            imported.step(b"")
        assert "established" in repr(imported)
        imported.close()
        with pytest.raises(ContextError, match="closed"):
            imported.wrap(b"")


# --- what acceptors know


def test_the_delegated_credential_and_what_the_ticket_says_come_along() -> None:
    ticket, keys = issue(flags=TicketFlags.OK_AS_DELEGATE, authorization_data=(NOTHING,))
    tgt, _ = issue()
    bindings = ChannelBindings(b"the channel")
    flags = Flag.DEFAULT | Flag.DELEG
    ours = Initiator(ticket, flags=flags, forwarded_tgt=tgt, channel_bindings=bindings)
    theirs = acceptor(keys, channel_bindings=bindings)
    ours.step(theirs.step(ours.step()))
    assert theirs.delegated_credential is not None
    for _ in range(2):
        theirs = moved(theirs)
        delegated = theirs.delegated_credential
        assert delegated is not None
        assert delegated.principal == ALICE
        assert [kept.ticket for kept in delegated.ccache] == [tgt.ticket]
        assert theirs.channel_bound
        assert theirs.authorization_data == (NOTHING,)
        assert theirs.client_target is None
        assert theirs.identity.principal == ALICE
        assert not theirs.identity.has_pac
    plain = moved(pair()[1])
    assert (plain.delegated_credential, plain.channel_bound, plain.authorization_data) == (
        None,
        False,
        (),
    )


@pytest.mark.parametrize("asked_before", [True, False])
def test_what_the_pac_says_comes_along_and_the_services_key_does_not(asked_before: bool) -> None:
    key, authtime = crypto.random_key(18), now()
    pac = element(sign(assemble(buffers(key, authtime)), key))
    known = established((pac,), key, authtime).identity
    theirs = established((pac,), key, authtime)
    if asked_before:
        assert theirs.identity == known
    blob = theirs.export_context(KEY)
    imported = Acceptor.import_context(blob, KEY)
    assert imported.identity == known
    assert imported.identity.user_sid
    assert imported.authorization_data == (pac,)
    assert key.contents.hex() not in json.dumps(contents_of(blob))


def test_a_pac_that_was_not_believed_is_not_believed_after_the_journey() -> None:
    key, authtime = crypto.random_key(18), now()
    pac = element(sign(assemble(buffers(key, authtime)), crypto.random_key(18)))
    theirs = established((pac,), key, authtime)
    for _ in range(2):
        theirs = moved(theirs)
        with pytest.raises(PacError, match="signature is wrong"):
            _ = theirs.identity


def test_k411_all_names_of_the_key_come_along() -> None:
    ticket, keys = issue()
    other = Principal.parse("host/web.example.test@EXAMPLE.TEST")
    keys.append(replace(keys[0], principal=other))
    theirs = acceptor(keys)
    theirs.step(Initiator(ticket, send_client_target=True).step())
    names, target = theirs.acceptor_names, theirs.client_target
    assert names == (keys[0].principal, other)
    theirs = moved(theirs)
    assert (theirs.acceptor, theirs.acceptor_names, theirs.client_target) == (
        names[0],
        names,
        target,
    )
    blob = theirs.export_context(KEY)
    with pytest.raises(DecodeError, match="does not name the service"):
        Acceptor.import_context(altered(blob, acceptor_names=[]), KEY)


@pytest.mark.parametrize("flags", [0, TicketFlags.ANONYMOUS], ids=["named", "anonymous"])
def test_k410_whether_the_client_is_anonymous_comes_along(flags: int) -> None:
    ticket, keys = issue(flags=flags)
    theirs = acceptor(keys, accept_anonymous=True)
    theirs.step(Initiator(ticket).step())
    for _ in range(2):
        theirs = moved(theirs)
        assert theirs.anonymous is bool(flags)


def test_k418_whether_the_client_is_of_another_realm_comes_along() -> None:
    theirs = pair(client=Principal.parse("Administrator@OTHER.TEST"))[1]
    assert moved(theirs).identity.foreign
    assert not moved(pair()[1]).identity.foreign


# --- time


def test_expiry_is_enforced_after_the_journey_too() -> None:
    clock = FixedClock()
    later = FixedClock(clock.moment + timedelta(hours=11))
    for context in pair(initiator={"clock": clock}, accept={"clock": clock}):
        with pytest.raises(ContextExpiredError):
            moved(context, clock=later).wrap(b"")
    options = {"enforce_expiry": False}
    for context in pair(initiator=options, accept=options):
        assert moved(context, clock=later).wrap(b"")


def test_k424_an_exported_context_is_not_imported_after_it_has_expired() -> None:
    clock = FixedClock()
    expired = FixedClock(clock.moment + timedelta(hours=10, seconds=1))
    options = {"clock": clock}
    for context in pair(initiator=options, accept=options):
        end, blob = context.endtime, context.export_context(KEY)
        with pytest.raises(ContextExpiredError, match="authenticate again"):
            type(context).import_context(blob, KEY, clock=expired)
        assert type(context).import_context(blob, KEY, clock=FixedClock(end)).established
    # Whoever does not have expiry enforced says so where the context is made, and takes care of it.
    unlimited = {"enforce_expiry": False}
    for context in pair(initiator=unlimited, accept=unlimited):
        assert moved(context, clock=expired).established


def test_k424_a_context_whose_ticket_has_a_time_offset_expires_by_our_clock() -> None:
    ticket, _ = issue()
    ahead = replace(ticket, time_offset=timedelta(hours=1))
    clock = FixedClock(ticket.starttime)
    ours = Initiator(ahead, clock=clock, flags=Flag.CONF)
    ours.step()
    blob = ours.export_context(KEY)
    with pytest.raises(ContextExpiredError):
        Initiator.import_context(
            blob, KEY, clock=FixedClock(ticket.endtime - timedelta(minutes=59))
        )
    assert Initiator.import_context(
        blob, KEY, clock=FixedClock(ticket.endtime - timedelta(minutes=61))
    ).established


def test_a_ticket_without_end_comes_along() -> None:
    forever = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    for context in pair(endtime=forever):
        assert moved(context).endtime == forever


# --- bad blobs


@pytest.fixture(params=[0, 1], ids=["initiator", "acceptor"])
def exported(request: pytest.FixtureRequest) -> tuple[type[Context], bytes]:
    context = pair()[request.param]
    return type(context), context.export_context(KEY)


def test_k309_every_flipped_bit_is_refused(exported: tuple[type[Context], bytes]) -> None:
    kind, blob = exported
    for bit in range(8 * len(blob)):
        with pytest.raises((IntegrityError, DecodeError, UnsupportedError)):
            kind.import_context(flipped(blob, bit), KEY)
    assert kind.import_context(blob, KEY).established


def test_k309_what_is_cut_off_or_lengthened_is_refused(
    exported: tuple[type[Context], bytes],
) -> None:
    kind, blob = exported
    for size in range(len(blob)):
        with pytest.raises((IntegrityError, DecodeError)):
            kind.import_context(blob[:size], KEY)
    for bad in (blob + b"\0", b"\0" + blob, blob + blob, bytes(len(blob)), b""):
        with pytest.raises((IntegrityError, DecodeError)):
            kind.import_context(bad, KEY)


def test_k309_another_key_another_version_and_the_other_side_are_refused_by_name(
    exported: tuple[type[Context], bytes],
) -> None:
    kind, blob = exported
    other = {Initiator: Acceptor, Acceptor: Initiator}[kind]
    with pytest.raises(IntegrityError):
        kind.import_context(blob, bytes(32))
    with pytest.raises(IntegrityError):
        kind.import_context(blob, KEY[:16])
    with pytest.raises(UnsupportedError, match="another version"):
        kind.import_context(blob[:15] + b"\2" + blob[16:], KEY)
    with pytest.raises(DecodeError, match="not an exported context"):
        kind.import_context(b"another program's bytes, long enough to be one", KEY)
    with pytest.raises(ContextError, match="import_context"):
        other.import_context(blob, KEY)


def contents_of(blob: bytes) -> dict[str, Any]:
    """Return the fields inside `blob`."""
    state: dict[str, Any] = json.loads(AESGCM(KEY).decrypt(blob[16:28], blob[28:], blob[:16]))
    return state


def altered(blob: bytes, **changes: Any) -> bytes:
    """Return `blob` as somebody with the key would make it: fields replaced, or left out where None."""
    fields = {**contents_of(blob), **changes}
    state = {
        name: value for name, value in fields.items() if name not in changes or value is not None
    }
    return blob[:28] + AESGCM(KEY).encrypt(blob[16:28], json.dumps(state).encode(), blob[:16])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"key": None}, id="no-key"),
        pytest.param({"key": [18, "00" * 31]}, id="key-too-short"),
        pytest.param({"key": [18, "zz"]}, id="key-no-hex"),
        pytest.param({"key": "text"}, id="key-text"),
        pytest.param({"initiator": [["alice"]]}, id="no-realm"),
        pytest.param({"endtime": "tomorrow"}, id="endtime-no-time"),
        pytest.param({"endtime": 5}, id="endtime-a-number"),
        pytest.param({"delegated": "05040000"}, id="ccache-cut-off"),
        pytest.param({"authorization_data": [[1]]}, id="entry-cut-off"),
        pytest.param({"identity": {"principal": 5}}, id="identity-without-names"),
        pytest.param({"endtime": "2026-11-22T12:00:00"}, id="endtime-of-no-zone"),
        pytest.param({"unknown": 5}, id="unknown-field"),
    ],
)
def test_k309_hostile_contents_under_the_right_key_are_refused(changes: dict[str, Any]) -> None:
    blob = pair()[1].export_context(KEY)
    with pytest.raises(DecodeError):
        Acceptor.import_context(altered(blob, **changes), KEY)
    assert Acceptor.import_context(altered(blob), KEY).established


#: Values of every type that JSON has. Each field is of one type, or of one and null.
ANYTHING = (None, True, -1, 5, 1.5, 2**64, "text", [], [5], [["alice"], 5, 1], {}, {"principal": 5})
#: What fields may be, of these: a number, a truth, text (why a PAC was not believed), an empty list, nothing.
FITTING: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("flags", "send_seq", "receive_seq", "seen"), (5,)),
    **dict.fromkeys(("acceptor_subkey", "anonymous", "channel_bound"), (True,)),
    **dict.fromkeys(("relevant", "authorization_data"), ([],)),
    **dict.fromkeys(("expires", "delegated"), (None,)),
    "identity": ("text",),
}


def with_field(blob: bytes, name: str, value: Any) -> bytes:
    """Return `blob` as somebody with the key would make it, with a field of that value, also null."""
    state = {**contents_of(blob), name: value}
    return blob[:28] + AESGCM(KEY).encrypt(blob[16:28], json.dumps(state).encode(), blob[:16])


def test_k309_a_field_of_another_type_under_the_right_key_is_a_typed_error() -> None:
    blob = pair()[1].export_context(KEY)
    fields = contents_of(blob)
    assert FITTING.keys() <= fields.keys()
    for name in fields:
        for value in ANYTHING:
            hostile = with_field(blob, name, value)
            if any(type(value) is type(fit) and value == fit for fit in FITTING.get(name, ())):
                assert Acceptor.import_context(hostile, KEY).established
                continue
            with pytest.raises(
                ContextError if (name, type(value)) == ("role", str) else DecodeError
            ):
                Acceptor.import_context(hostile, KEY)
    for name in fields["identity"]:
        with pytest.raises(DecodeError):
            Acceptor.import_context(
                with_field(blob, "identity", {**fields["identity"], name: 5}), KEY
            )


@pytest.mark.parametrize("size", [0, 15, 17, 31, 33, 64])
def test_a_key_of_another_size_is_a_mistake_of_the_caller_and_ends_nothing(size: int) -> None:
    ours, _ = pair()
    with pytest.raises(ValueError, match="16, 24 or 32 bytes"):
        ours.export_context(bytes(size))
    with pytest.raises(ValueError, match="16, 24 or 32 bytes"):
        Initiator.import_context(bytes(100), bytes(size))
    assert ours.established
    for good in (16, 24, 32):
        ours = Initiator.import_context(ours.export_context(bytes(good)), bytes(good))


def test_neither_the_blob_nor_an_error_shows_a_key() -> None:
    ours, _ = pair()
    secret = ours.session_key.contents
    blob = ours.export_context(KEY)
    for form in (secret, secret.hex().encode()):
        assert form not in blob
    with pytest.raises(ContextError) as caught:
        Acceptor.import_context(blob, KEY)
    frames = caught.traceback
    assert not any("state" in frame.locals for frame in frames[1:])


def test_two_exports_of_equal_contexts_differ() -> None:
    """The nonce is fresh, so that a key may be used for many contexts."""
    ours, _ = pair()
    one = ours.export_context(KEY)
    two = Initiator.import_context(one, KEY).export_context(KEY)
    assert one[16:28] != two[16:28]


# --- processes and threads


def test_a_thread_that_still_seals_shares_no_number_with_the_imported_context() -> None:
    for _ in range(20):
        ours, theirs = pair(flags=Flag.MUTUAL | Flag.REPLAY)
        tokens: list[bytes] = []
        begun = threading.Event()

        def seal(
            context: Initiator = ours, out: list[bytes] = tokens, begun: threading.Event = begun
        ) -> None:
            try:
                while True:
                    out.append(context.wrap(b"data"))
                    begun.set()
            except KerberosError:
                pass

        thread = threading.Thread(target=seal)
        thread.start()
        begun.wait()
        imported = moved(ours)
        tokens += [imported.wrap(b"data") for _ in range(5)]
        thread.join()
        numbers = [token[8:16] for token in tokens]
        assert len(set(numbers)) == len(numbers)
        assert theirs.unwrap(tokens[-1]) == b"data"
