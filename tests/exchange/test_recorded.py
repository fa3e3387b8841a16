"""Exchanges recorded with MIT Kerberos, replayed offline: the same time and random bytes make the very same messages.

tests/record says how they came about, vectors/README.md what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

from purekrb import (
    Acceptor,
    ApError,
    Flag,
    Initiator,
    IovBuffer,
    KerberosError,
    Principal,
    ServiceTicket,
)
from purekrb.constants import NTLM_OID, ErrorCode
from purekrb.exchanges.runner import KdcRequest
from support import recordings
from support.iov import message_of
from support.recordings import Entry, Tape

RECORDED = recordings.load("mit")
NEGOTIATED = recordings.load("negotiate")
PIECES = recordings.load("pieces")
KDC, CONTEXT = ("AS", "TGS"), ("initiator", "acceptor")


def each(*kinds: str) -> pytest.MarkDecorator:
    entries = [entry for entry in RECORDED if entry["kind"] in kinds]
    return pytest.mark.parametrize(
        "entry", entries, ids=[f"{entry['kind']}-{entry['etype']}" for entry in entries]
    )


class Replay:
    """Our side of a recorded exchange; `sent` holds what it has sent so far, and stays when a check fails."""

    def __init__(self, entry: Entry, tape: Tape | None = None) -> None:
        self.entry = entry
        self.tape = tape or Tape(entry["time"], entry["random"])
        self.sent: list[bytes] = []

    def run(self) -> ServiceTicket | Initiator | Acceptor:
        """Return the ticket or the context that the exchange comes to."""
        kind = self.entry["kind"]
        if kind == "AS":
            return recordings.get_tgt(self.entry, self.tape, self._kdc())
        if kind == "TGS":
            return recordings.get_service_ticket(self.entry, self.tape, self._kdc())
        context = (recordings.initiate if kind == "initiator" else recordings.accept)(
            self.entry, self.tape
        )
        self._shake_hands(context)
        for message in self.entry["messages"]:
            if message["by"] == kind:
                self.sent.append(recordings.send_message(context, message))
            else:
                recordings.read_message(context, message)
        return context

    def _kdc(self) -> recordings.Send:
        replies: Iterator[bytes] = iter(self.entry["received"])

        def send(request: KdcRequest) -> bytes:
            self.sent.append(request.message)
            return next(replies)

        return send

    def _shake_hands(self, context: Initiator | Acceptor) -> None:
        received: list[bytes | None] = [
            *([None] if isinstance(context, Initiator) else []),
            *self.entry["received"],
        ]
        for token in received:
            reply = context.step(token)
            if reply is not None:
                self.sent.append(reply)


def recorded_sent(entry: Entry) -> list[bytes]:
    """Return all that our side sent when `entry` was recorded, in order."""
    handshake: list[bytes] = entry["sent"]
    return handshake + [m["token"] for m in entry.get("messages", ()) if m["by"] == entry["kind"]]


def test_every_etype_is_recorded_with_its_provenance() -> None:
    assert {(entry["kind"], entry["etype"]) for entry in RECORDED} == {
        (kind, etype) for kind in (*KDC, *CONTEXT) for etype in (17, 18, 19, 20, 23)
    }
    for entry in RECORDED:
        assert re.fullmatch(r"recorded from MIT krb5 1\.\d+.* on 20\d\d-\d\d-\d\d", entry["source"])


@each(*KDC, *CONTEXT)
def test_the_replay_sends_the_very_bytes_of_the_recording(entry: Entry) -> None:
    replay = Replay(entry)
    replay.run()
    assert replay.sent == recorded_sent(entry)
    assert replay.tape.left == [], "fewer random bytes are drawn than were recorded"


@each(*KDC)
def test_the_kdcs_reply_comes_to_the_recorded_ticket(entry: Entry) -> None:
    assert Replay(entry).run() == recordings.ticket_of(entry["ticket"], entry["etype"])


@each(*CONTEXT)
def test_the_handshake_comes_to_the_recorded_keys_and_names(entry: Entry) -> None:
    context = Replay(entry).run()
    assert isinstance(context, Initiator | Acceptor)
    assert context.mutual
    assert context.session_key.contents == (entry["acceptor_subkey"] or entry["initiator_subkey"])
    names = entry.get("ticket", entry)
    assert (context.initiator, context.acceptor) == (
        Principal.parse(names["client"]),
        Principal.parse(names["service"]),
    )


@each("AS")
def test_the_recording_has_the_demand_for_preauthentication_and_what_followed(entry: Entry) -> None:
    assert [reply[:1] for reply in entry["received"]] == [b"\x7e", b"\x6b"]  # KRB-ERROR, AS-REP
    assert len(set(entry["nonces"])) == 2


@each(*CONTEXT)
def test_the_recording_has_tokens_of_every_kind_both_ways(entry: Entry) -> None:
    kinds = {"sealed", "signed"} if entry["etype"] == 23 else {"sealed", "signed", "mic"}
    found = {(message["by"], message["protection"]) for message in entry["messages"]}
    assert found == {(by, kind) for by in CONTEXT for kind in kinds}


@each(*KDC, *CONTEXT)
def test_the_recorded_keys_open_the_recorded_messages(entry: Entry) -> None:
    inside = recordings.opened(entry)
    assert inside == {name: entry[name] for name in inside}


# -- the replay is driven by nothing but the recording


def sends_something_else(entry: Entry, tape: Tape | None = None) -> bool:
    """Whether a message differs from the recorded one in its place; that MIT's replies then do not fit is no matter."""
    replay = Replay(entry, tape)
    with suppress(KerberosError):
        replay.run()
    assert replay.sent
    return replay.sent != recorded_sent(entry)[: len(replay.sent)]


@each(*KDC, *CONTEXT)
def test_any_other_random_byte_changes_what_is_sent(entry: Entry) -> None:
    for number, drawn in enumerate(entry["random"]):
        for position in range(len(drawn)):
            random = list(entry["random"])
            random[number] = drawn[:position] + bytes([drawn[position] ^ 1]) + drawn[position + 1 :]
            assert sends_something_else(entry, Tape(entry["time"], random)), (
                f"byte {position} of draw {number}"
            )


@each(*KDC, "initiator")
def test_another_microsecond_changes_what_is_sent(entry: Entry) -> None:
    assert sends_something_else(
        entry, Tape(entry["time"] + timedelta(microseconds=1), entry["random"])
    )


@each("acceptor")
def test_an_acceptor_takes_the_recorded_ap_req_at_its_time_only(entry: Entry) -> None:
    def at(seconds: int) -> Replay:
        return Replay(entry, Tape(entry["time"] + timedelta(seconds=seconds), entry["random"]))

    for seconds in (-290, 0, 290):
        replay = at(seconds)
        replay.run()
        assert replay.sent == recorded_sent(entry)
    for seconds, code in ((-310, ErrorCode.KRB_AP_ERR_TKT_NYV), (310, ErrorCode.KRB_AP_ERR_SKEW)):
        replay = at(seconds)
        with pytest.raises(ApError) as caught:
            replay.run()
        assert caught.value.code == code
        assert replay.sent == []


def alterations(entry: Entry) -> Iterator[Entry]:
    """Yield the entry with one message altered of those that are authenticated: MIT's last, and each of its tokens."""
    received = entry["received"]
    yield entry | {"received": [*received[:-1], _altered(received[-1])]}
    messages = entry.get("messages", [])
    for number, message in enumerate(messages):
        if message["by"] != entry["kind"]:
            changed = message | {"token": _altered(message["token"])}
            yield entry | {"messages": [*messages[:number], changed, *messages[number + 1 :]]}


def _altered(message: bytes) -> bytes:
    return message[:-1] + bytes([message[-1] ^ 1])


@each(*KDC, *CONTEXT)
def test_an_altered_message_of_mit_is_refused(entry: Entry) -> None:
    Replay(entry).run()
    for changed in alterations(entry):
        with pytest.raises(KerberosError):
            Replay(changed).run()


@each("TGS", "initiator")
def test_another_session_key_changes_what_is_sent(entry: Entry) -> None:
    field = "tgt" if entry["kind"] == "TGS" else "ticket"
    changed = entry | {field: entry[field] | {"session_key": _altered(entry[field]["session_key"])}}
    assert sends_something_else(changed)


@each("acceptor")
def test_another_service_key_does_not_open_the_recorded_ap_req(entry: Entry) -> None:
    changed = entry | {
        "service_key": entry["service_key"] | {"key": _altered(entry["service_key"]["key"])}
    }
    with pytest.raises(ApError) as caught:
        Replay(changed).run()
    assert caught.value.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY


# -- SPNEGO


def negotiated(entry: Entry) -> str:
    peer = re.sub(r"recorded from (.*) on .*", r"\1", entry["source"])
    return f"{entry['kind']}-{peer}".replace(" ", "-")


@pytest.mark.parametrize("entry", NEGOTIATED, ids=negotiated)
def test_a_recorded_negotiation_is_replayed_byte_for_byte(entry: Entry) -> None:
    replay = Replay(entry)
    context = replay.run()
    assert isinstance(context, Initiator | Acceptor)
    assert context.established
    assert replay.sent == recorded_sent(entry)
    assert replay.tape.left == []


@pytest.mark.parametrize("entry", NEGOTIATED, ids=negotiated)
def test_an_altered_token_of_a_recorded_negotiation_is_refused(entry: Entry) -> None:
    for changed in alterations(entry):
        with pytest.raises(KerberosError):
            Replay(changed).run()


@pytest.mark.parametrize("entry", [e for e in NEGOTIATED if "NTLM" in e["source"]], ids=negotiated)
def test_the_mics_of_a_recorded_negotiation_count(entry: Entry) -> None:
    """The client preferred NTLM: every byte of its MIC, and every byte of the list that it is over."""
    first, middle, last = entry["received"]
    assert b"NTLMSSP" in first
    for changed in (
        [first, middle, last[:-1] + bytes([last[-1] ^ 1])],
        [first.replace(NTLM_OID, NTLM_OID[:-1] + b"\x0b"), middle, last],
    ):
        with pytest.raises(KerberosError):
            Replay(entry | {"received": changed}).run()
    Replay(entry).run()


def test_negotiations_are_recorded_with_every_peer() -> None:
    found = {
        (entry["kind"], re.sub(r"recorded from (\S+).*", r"\1", entry["source"]))
        for entry in NEGOTIATED
    }
    programs = {("acceptor", "curl"), ("acceptor", "gss-client"), ("initiator", "gss-server")}
    assert found == programs | {
        (kind, peer) for kind in CONTEXT for peer in ("MIT", "Heimdal", "Java", "pyspnego")
    }


# -- tokens in pieces


def style(entry: Entry) -> str:
    return f"{entry['kind']}-{entry['etype']}-{'dce-style' if entry['flags'] & Flag.DCE_STYLE else 'standard'}"


@pytest.mark.parametrize("entry", PIECES, ids=style)
def test_recorded_tokens_in_pieces_are_made_and_read_byte_for_byte(entry: Entry) -> None:
    messages = entry["messages"]
    replay = Replay(entry | {"messages": []})
    context = replay.run()
    assert isinstance(context, Initiator | Acceptor)
    assert replay.sent == entry["sent"]
    assert len(replay.sent) + len(entry["received"]) == (
        3 if entry["flags"] & Flag.DCE_STYLE else 2
    )
    for message in messages:
        sealed = message["protection"] == "sealed"
        given, pieces = (recordings.pieces_of(message, name) for name in ("given", "pieces"))
        if message["by"] == entry["kind"]:
            assert context.wrap_iov(given, sealed) == pieces
            continue
        for number, (kind, data) in enumerate(pieces):
            if data:
                altered = [*pieces[:number], IovBuffer(kind, _altered(data)), *pieces[number + 1 :]]
                with pytest.raises(KerberosError):
                    context.unwrap_iov(altered, sealed)
        assert message_of(context.unwrap_iov(pieces, sealed)) == message_of(given)
    assert replay.tape.left == []


def test_pieces_are_recorded_in_every_style_both_ways() -> None:
    found = {(entry["kind"], entry["etype"], entry["flags"]) for entry in PIECES}
    flags = {int(Flag.DEFAULT), int(Flag.DEFAULT | Flag.DCE_STYLE)}
    assert found == {
        (kind, etype, style) for kind in CONTEXT for etype in (17, 18, 19, 20) for style in flags
    }
    for entry in PIECES:
        assert {message["by"] for message in entry["messages"]} == set(CONTEXT)


def test_a_tape_refuses_to_give_other_random_bytes_than_it_has() -> None:
    time = RECORDED[0]["time"]
    with pytest.raises(AssertionError, match="make record"):
        Tape(time, [b"four"]).random(3)
    tape = Tape(time, [b"four"])
    assert tape.random(4) == b"four"
    with pytest.raises(AssertionError, match="make record"):
        tape.random(4)
