"""Why none of a service's keys decrypts a ticket, in words that help the service's administrator.

Nothing here decides: the ticket is already refused. The cleartext of the ticket comes from the
client, which is good enough to guess the cause. Source: RFC 4120 3.2.3.
"""

from __future__ import annotations

from purekrb.constants import ErrorCode
from purekrb.errors import ApError
from purekrb.exchanges.service_keys import MAX_TRIES, ServiceKey, answered_for, same_kvno
from purekrb.keys import etype_name
from purekrb.messages.ap import Ticket
from purekrb.names import Principal

__all__ = ["why_no_key"]

_OLD_KEYTAB = "the keytab is older: export it again"
_OLD_TICKET = "the client's ticket is older: renew it"


def why_no_key(ticket: Ticket, keys: list[ServiceKey], service: Principal | None) -> ApError:
    """Return the error for a ticket that none of `keys` decrypts; `service` is the acceptor's."""
    name = ticket.sname.principal(ticket.realm)
    ours = answered_for(keys, service)
    named = [entry for entry in ours if entry.principal == name]
    if not named:
        return _no_key_of_that_name(ticket, name, keys, ours, service)
    return _no_such_version(ticket, name, named) or ApError(
        f"the key of {name} in the keytab does not decrypt the ticket: it is another account's, "
        "or the ticket was altered",
        code=ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
    )


def _no_key_of_that_name(
    ticket: Ticket,
    name: Principal,
    keys: list[ServiceKey],
    ours: list[ServiceKey],
    service: Principal | None,
) -> ApError:
    etype = ticket.enc_part.etype
    if service is not None and (ours or any(entry.principal == name for entry in keys)):
        return ApError(
            f"the ticket is for {name}, but this acceptor is {service}",
            code=ErrorCode.KRB_AP_ERR_NOT_US,
        )
    if service is not None:
        what = f"no key for {service}"
    elif sum(entry.key.etype == etype for entry in ours) > MAX_TRIES:
        what = f"no key of {name}, and none of the {MAX_TRIES} likeliest others decrypts the ticket"
    else:
        what = f"no key that decrypts a ticket for {name}"
    return ApError(
        f"the keytab has {what}: export one with that name", code=ErrorCode.KRB_AP_ERR_NOKEY
    )


def _no_such_version(ticket: Ticket, name: Principal, named: list[ServiceKey]) -> ApError | None:
    """Return the error if the keys of that name have other versions or etypes, else None."""
    kvno, etype = ticket.enc_part.kvno, ticket.enc_part.etype
    held = sorted({entry.kvno for entry in named})
    if kvno is not None and not any(same_kvno(kvno, number) for number in held):
        stale = _OLD_KEYTAB if kvno > max(held) else _OLD_TICKET
        return ApError(
            f"the keytab holds kvno {', '.join(map(str, held))} of {name}, "
            f"but the ticket has kvno {kvno}: {stale}",
            code=ErrorCode.KRB_AP_ERR_BADKEYVER,
        )
    versions = [entry for entry in named if kvno is None or same_kvno(kvno, entry.kvno)]
    if not any(entry.key.etype == etype for entry in versions):
        return ApError(
            f"the ticket was made with a {etype_name(etype)} key, "
            f"and the keytab holds none of {name}: export it again with all etypes",
            code=ErrorCode.KRB_AP_ERR_BADKEYVER,
        )
    return None
