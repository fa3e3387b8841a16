"""Tickets that an acceptor has opened are kept with the service's key; every check is made each time all the same."""

from __future__ import annotations

from datetime import timedelta

import pytest

from purekrb import ApError, CredentialError, Initiator, IntegrityError, Principal, crypto
from purekrb.constants import ErrorCode, TicketFlags
from purekrb.exchanges.opened_tickets import MAX_OPENED, open_ticket
from purekrb.messages.ap import EncryptedData, Ticket
from purekrb.system import now
from support.contexts import FixedClock, acceptor, ap_req
from support.tickets import Entry, issue
from support.values import replace


def opened(keys: list[Entry]) -> dict[bytes, object]:
    return keys[0].key._opened


def test_the_second_use_of_a_ticket_finds_it_open_and_other_keys_do_not() -> None:
    ticket, keys = issue()
    assert acceptor(keys).step(Initiator(ticket).step())
    (part,) = opened(keys).values()
    assert acceptor(keys).step(Initiator(ticket).step())
    assert list(opened(keys).values()) == [part]
    stranger = [replace(keys[0], key=crypto.random_key(18))]
    with pytest.raises(ApError) as refused:
        acceptor(stranger).step(Initiator(ticket).step())
    assert refused.value.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    assert not opened(stranger)


def test_a_closed_context_takes_the_tickets_key_from_nobody() -> None:
    ticket, keys = issue()
    first, second = acceptor(keys), acceptor(keys)
    first.step(Initiator(ticket).step())
    ours = Initiator(ticket)
    reply = second.step(ours.step())
    first.close()
    ours.step(reply)
    assert second.unwrap(ours.wrap(b"data")) == b"data"
    assert acceptor(keys).step(Initiator(ticket).step())


@pytest.mark.parametrize(
    ("code", "accept"),
    [
        (ErrorCode.KRB_AP_ERR_TKT_EXPIRED, {"clock": FixedClock(now() + timedelta(hours=11))}),
        (
            ErrorCode.KRB_AP_ERR_SKEW,
            {"clock": FixedClock(now() + timedelta(hours=2))},
        ),  # now: when tests are collected
        (ErrorCode.KRB_AP_ERR_NOT_US, {"service": Principal.parse("HTTP/other@EXAMPLE.TEST")}),
        (ErrorCode.KDC_ERR_ETYPE_NOSUPP, {"permitted_etypes": (20,)}),
    ],
    ids=["expired", "skew", "other service", "etype no longer permitted"],
)
def test_an_opened_ticket_is_checked_as_any(code: int, accept: dict[str, object]) -> None:
    ticket, keys = issue()
    acceptor(keys).step(Initiator(ticket).step())
    assert opened(keys)
    with pytest.raises(ApError) as refused:
        acceptor(keys, **accept).step(ap_req(ticket))
    assert refused.value.code == code


def test_a_ticket_that_is_refused_is_refused_again() -> None:
    ticket, keys = issue(flags=TicketFlags.INVALID)
    for _ in range(2):
        with pytest.raises(ApError) as refused:
            acceptor(keys).step(Initiator(ticket).step())
        assert refused.value.code == ErrorCode.KRB_AP_ERR_TKT_NYV
    assert opened(keys)


def test_an_altered_ciphertext_is_not_found_among_the_opened() -> None:
    ticket, keys = issue()
    acceptor(keys).step(Initiator(ticket).step())
    outer = Ticket.decode(ticket.ticket)
    cipher = bytes((outer.enc_part.cipher[0] ^ 1,)) + outer.enc_part.cipher[1:]
    altered = replace(
        outer, enc_part=EncryptedData(outer.enc_part.etype, outer.enc_part.kvno, cipher)
    )
    with pytest.raises(ApError):
        acceptor(keys).step(ap_req(replace(ticket, ticket=altered.encode())))
    with pytest.raises(IntegrityError):
        open_ticket(keys[0].key, cipher)
    assert len(opened(keys)) == 1


def test_a_service_key_keeps_a_bounded_number_of_tickets_and_the_oldest_leaves() -> None:
    key = crypto.random_key(17)
    for number in range(MAX_OPENED + 3):
        ticket, keys = issue(17, key=key)
        assert acceptor(keys).step(Initiator(ticket).step())
        if number == 0:
            oldest = next(iter(opened(keys)))
    assert len(opened(keys)) == MAX_OPENED
    assert oldest not in opened(keys)


def test_wiping_the_service_key_wipes_the_keys_of_its_tickets() -> None:
    ticket, keys = issue()
    acceptor(keys).step(Initiator(ticket).step())
    (part,) = opened(keys).values()
    assert part.key == ticket.session_key  # type: ignore[attr-defined]
    keys[0].key.wipe()
    assert not opened(keys)
    with pytest.raises(CredentialError, match="wiped"):
        _ = part.key.contents  # type: ignore[attr-defined]
