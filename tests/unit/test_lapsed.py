"""Which ticket of a cache has lapsed, and since when."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from purekrb import CCache, Config, Credential, CredentialError, KdcClient, Principal
from purekrb.constants import TicketFlags
from purekrb.credentials.lapsed import why_no_ticket
from purekrb.credentials.ticket import ServiceTicket
from support.tickets import ALICE, issue
from support.values import replace

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
TGS = Principal.parse("krbtgt/EXAMPLE.TEST@EXAMPLE.TEST")
HOUR = timedelta(hours=1)


def tgt(start: timedelta, end: timedelta, flags: int = 0, now: datetime = NOW) -> ServiceTicket:
    ticket, _ = issue(service=TGS)
    return replace(
        ticket, authtime=now + start, starttime=now + start, endtime=now + end, flags=flags
    )


@pytest.mark.parametrize(
    ("tickets", "words"),
    [
        ([], "neither a valid ticket nor a key: run kinit"),
        ([issue()[0]], "only tickets for HTTP/web.example.test@EXAMPLE.TEST: run kinit"),
        ([tgt(-10 * HOUR, -2 * HOUR)], "expired at 2026-03-01 10:00:00Z, 2 h ago: run kinit"),
        (
            [tgt(-90 * HOUR, -80 * HOUR), tgt(-9 * HOUR, -timedelta(minutes=3, seconds=5))],
            "expired at 2026-03-01 11:56:55Z, 3 min 5 s ago",
        ),
        ([tgt(-99 * HOUR, -73 * HOUR)], "3 d 1 h ago"),
        ([tgt(26 * HOUR, 30 * HOUR)], "not valid before 2026-03-02 14:00:00Z, in 1 d 2 h"),
        ([tgt(-HOUR, HOUR, TicketFlags.INVALID)], "kinit -v"),
        ([tgt(-HOUR, timedelta(seconds=40))], "expires in 40 s"),
    ],
)
def test_the_ticket_and_the_time_are_named(tickets: list[ServiceTicket], words: str) -> None:
    text = why_no_ticket(ALICE, tickets, NOW)
    assert words in text
    assert "alice@EXAMPLE.TEST" in text


@pytest.mark.parametrize("tickets", [[], [issue()[0]], [tgt(-10 * HOUR, -2 * HOUR)]])
def test_the_cache_is_named_if_it_is_known(tickets: list[ServiceTicket]) -> None:
    assert " in FILE:/tmp/cc" in why_no_ticket(ALICE, tickets, NOW, "FILE:/tmp/cc")
    assert " in " not in why_no_ticket(ALICE, tickets, NOW).partition(", only")[0]


def test_a_cache_whose_clock_differs_is_judged_by_that_clock() -> None:
    ahead = replace(tgt(-HOUR, HOUR), time_offset=2 * HOUR)
    assert "expired" in why_no_ticket(ALICE, [ahead], NOW)


@pytest.mark.parametrize("call", ["get_ticket", "get_tgt", "renew", "forward_tgt"])
def test_every_call_with_a_lapsed_ticket_says_since_when(call: str) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    lapsed = tgt(-10 * HOUR, -2 * HOUR, now=now)
    credential = Credential.from_ccache(CCache(ALICE, [lapsed]))
    client = KdcClient(Config({"EXAMPLE.TEST": ["127.0.0.1:9"]}, dns_lookup_kdc=False))
    arguments = ("HTTP/web.example.test",) if call == "get_ticket" else ()
    with pytest.raises(CredentialError, match=r"alice@EXAMPLE.TEST expired at .*, 2 h .*ago"):
        getattr(client, call)(credential, *arguments)


def test_a_valid_service_ticket_needs_no_tgt() -> None:
    ticket, _ = issue()
    credential = Credential.from_ccache(CCache(ALICE, [ticket]))
    client = KdcClient(Config({"EXAMPLE.TEST": ["127.0.0.1:9"]}, dns_lookup_kdc=False))
    assert client.get_ticket(credential, "HTTP/web.example.test@EXAMPLE.TEST") == ticket
