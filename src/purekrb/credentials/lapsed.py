"""Why the tickets of a ccache are of no use now: which ticket, and since when. Words only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from purekrb.constants import TicketFlags
from purekrb.credentials.ticket import ServiceTicket
from purekrb.names import Principal

__all__ = ["why_no_ticket"]

_INVALID = int(TicketFlags.INVALID)


def why_no_ticket(
    client: Principal, tickets: Iterable[ServiceTicket], now: datetime, cache: str | None = None
) -> str:
    """Return why none of the `tickets` serves `client` at `now` (our clock), and what to do.

    `cache` is the name of the ccache that they come from.
    """
    held = list(tickets)
    where = f" in {cache}" if cache else ""
    tgts = [t for t in held if t.is_tgt and t.service.components[1] == t.service.realm]
    if not held:
        return f"{client} has neither a valid ticket{where} nor a key: run kinit first"
    if not tgts:
        others = ", ".join(str(ticket.service) for ticket in held[:5])
        return (
            f"there is no ticket-granting ticket of {client}{where}, only tickets for {others}: "
            "run kinit"
        )
    last = max(tgts, key=lambda ticket: ticket.endtime)
    what = f"the ticket-granting ticket of {last.client}{where}"
    instant = now + last.time_offset
    start = last.starttime or last.authtime
    if last.endtime <= instant:
        return (
            f"{what} expired at {_moment(last.endtime)}, {_span(instant - last.endtime)} ago: "
            "run kinit"
        )
    if start > instant:
        return (
            f"{what} is not valid before {_moment(start)}, in {_span(start - instant)}: wait until "
            "then, or check this machine's clock; kinit gets one that is valid now"
        )
    if last.flags & _INVALID:
        return f"{what} is postdated and not validated yet: run kinit -v, or kinit for a new one"
    return f"{what} expires in {_span(last.endtime - instant)}: renew it (kinit -R), or run kinit"


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%SZ}"


def _span(span: timedelta) -> str:
    """Return a length of time in the two largest units that it has."""
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    named = [f"{count} {unit}" for count, unit in units if count]
    return " ".join(named[:2]) or "0 s"
