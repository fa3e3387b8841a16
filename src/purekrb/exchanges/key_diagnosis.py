"""Why none of a service's keys decrypts a ticket, in words that help the service's administrator.

Nothing here decides: the ticket is already refused. The cleartext of the ticket comes from the
client, which is good enough to guess the cause. Source: RFC 4120 3.2.3.
"""

from __future__ import annotations

from collections.abc import Callable

from purekrb.constants import EncryptionType, ErrorCode
from purekrb.errors import ApError
from purekrb.exchanges.service_keys import (
    MAX_TRIES,
    ServiceKey,
    answered_for,
    is_for,
    same_kvno,
)
from purekrb.findings import split_remedy
from purekrb.keys import etype_name, etype_names
from purekrb.messages.ap import Ticket
from purekrb.names import Principal
from purekrb.text import first_of

__all__ = ["diagnose", "why_no_key", "why_not_permitted"]

_SALT = (
    "made from the password with another salt (purekrb keytab from-password --ask-kdc takes the "
    "KDC's)"
)
_OLD_KEYTAB = f"the keytab is older: export it again; or it was {_SALT}"
_OLD_TICKET = "the client's ticket is older: renew it"
#: The most entries of a keytab that a message names.
_MAX_SHOWN = 5
#: The most characters of a salt that a message shows.
_MAX_SALT = 200
#: Encryption types that a directory gives an account whose AES keys it was not told to use.
_WEAK = (EncryptionType.RC4_HMAC, 1, 3)


def why_no_key(ticket: Ticket, keys: list[ServiceKey], service: Principal | None) -> ApError:
    """Return the error for a ticket that none of `keys` decrypts; `service` is the acceptor's."""
    name = ticket.sname.principal(ticket.realm)
    ours = answered_for(keys, service)
    named = [entry for entry in ours if is_for(name, entry.principal)]
    if named:
        return _no_such_version(ticket, name, named) or ApError(
            f"the key of {name} in the keytab does not decrypt the ticket: it is another "
            f"account's, or was {_SALT}, or the ticket was altered",
            code=ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
        )
    if service is not None and any(is_for(name, entry.principal) for entry in keys):
        return _not_us(name, service)
    if not ours:
        held = f"; it has {_shown(keys)}: name one of these as service=, or" if keys else ":"
        return ApError(
            f"the keytab has no key for {service or name}{held} export one with that name",
            code=ErrorCode.KRB_AP_ERR_NOKEY,
        )
    # The ticket's name is in no entry, so `ours` may be those of its account, or not.
    if ticket.enc_part.kvno is not None:
        refused = _no_such_version(ticket, name, ours)
        if refused is not None:
            return refused
    return _another_account(ticket, name, ours, service)


def why_not_permitted(
    ticket: Ticket, keys: list[ServiceKey], service: Principal | None, permitted: tuple[int, ...]
) -> ApError:
    """Return the error for a ticket whose etype the acceptor does not permit."""
    name, etype, kvno = (
        ticket.sname.principal(ticket.realm),
        ticket.enc_part.etype,
        ticket.enc_part.kvno,
    )
    text = (
        f"the ticket is of {etype_name(etype)}, which is not permitted here: "
        f"permitted are {etype_names(permitted)}"
    )
    if etype in _WEAK:
        fit = [
            entry
            for entry in answered_for(keys, service)
            if entry.key.etype in permitted and (kvno is None or same_kvno(kvno, entry.kvno))
        ]
        text += f"; the KDC made the ticket for {name} with that key. "
        if fit:
            text += (
                f"The keytab has {_shown(fit)}, so the account only lacks "
                "msDS-SupportedEncryptionTypes = 24 (0x18): set it, and have the client get a new "
                "ticket (kdestroy and kinit; on Windows klist purge)"
            )
        else:
            text += (
                "Set msDS-SupportedEncryptionTypes of its account to 24 (0x18), set its password "
                "again, and export the keytab again"
            )
    return ApError(text, code=ErrorCode.KDC_ERR_ETYPE_NOSUPP)


def diagnose(
    ticket: Ticket, keys: list[ServiceKey], salt_of: Callable[[Principal], str | None]
) -> tuple[str, str]:
    """Return why no key opens the ticket, and what to do: for whoever looks after the service.

    It may be the version, the encryption type, or the salt. `salt_of` returns the KDC's salt of the
    owner of a key, if it is known.
    """
    name, part = ticket.sname.principal(ticket.realm), ticket.enc_part
    named = [entry for entry in keys if is_for(name, entry.principal)]
    ours = named or keys
    current = [e for e in ours if part.kvno is None or same_kvno(part.kvno, e.kvno)]
    if any(entry.key.etype == part.etype for entry in current):
        owner = current[0].principal
        text = (
            f"a key of {owner} with the ticket's kvno {part.kvno} and etype "
            f"{etype_name(part.etype)} does not open it: it was made from another password, or "
            "with another salt"
        )
        remedy = "make the keytab again with the KDC's salt"
        if named and owner != name:
            text += "; the case of the name differs"
            remedy = (
                f"make the keytab again with the name as the KDC spells it, {name}, or its salt"
            )
        salt = salt_of(owner)
        if salt is not None:
            remedy += f" (the KDC's salt of {owner} is {salt[:_MAX_SALT]!r})"
        return (
            text,
            f"{remedy}: purekrb keytab from-password --ask-kdc, or export it from the KDC",
        )
    if ours and not current:
        versions = sorted({entry.kvno for entry in ours})
        held = ", ".join(map(str, versions[:_MAX_SHOWN]))
        text = f"the keytab has kvno {held}, the ticket has kvno {part.kvno}: the keytab is stale"
        if part.kvno is not None and part.kvno < versions[0]:
            text = f"the keytab has kvno {held}, the ticket has the older kvno {part.kvno}"
        again = "export the keytab again, and merge it with the old one while old tickets live"
        return text, again
    text, remedy = split_remedy(why_no_key(ticket, keys, None))
    return text, remedy or "export the keytab again, with the keys of this service"


def _not_us(name: Principal, service: Principal) -> ApError:
    return ApError(
        f"the ticket is for {name}, but this acceptor is {service}",
        code=ErrorCode.KRB_AP_ERR_NOT_US,
    )


def _another_account(
    ticket: Ticket, name: Principal, ours: list[ServiceKey], service: Principal | None
) -> ApError:
    """Return the error for a ticket of another name, whose version and etype `ours` have."""
    if service is not None:
        error = _not_us(name, service)
        error.args = (f"{error.args[0]}, whose keys ({_shown(ours)}) do not decrypt it",)
        return error
    etype = ticket.enc_part.etype
    if sum(entry.key.etype == etype for entry in ours) > MAX_TRIES:
        return ApError(
            f"the keytab has no key of {name}, and none of the {MAX_TRIES} likeliest others "
            "decrypts the ticket: export one with that name",
            code=ErrorCode.KRB_AP_ERR_NOKEY,
        )
    kvno = ticket.enc_part.kvno
    old = kvno is not None and not all(same_kvno(kvno, entry.kvno) for entry in ours)
    return ApError(
        f"the keytab has no key that decrypts a ticket for {name} "
        f"({_version(ticket)}); tried: {_shown(ours)}. These are other accounts'"
        f"{', or of another kvno' if old else ''}: export the keys of "
        f"the account that has this name again; or they were {_SALT}",
        code=ErrorCode.KRB_AP_ERR_NOKEY,
    )


def _no_such_version(ticket: Ticket, name: Principal, entries: list[ServiceKey]) -> ApError | None:
    """Return the error if the entries have other versions or etypes than the ticket, else None."""
    kvno, etype = ticket.enc_part.kvno, ticket.enc_part.etype
    held = sorted({entry.kvno for entry in entries})
    if kvno is not None and not any(same_kvno(kvno, number) for number in held):
        stale = _OLD_KEYTAB if kvno > max(held) else _OLD_TICKET
        return ApError(
            f"the keytab holds kvno {', '.join(map(str, held[:_MAX_SHOWN]))} of "
            f"{_owners(entries)} ({etype_names(sorted({e.key.etype for e in entries}))}), "
            f"but the ticket for {name} has {_version(ticket)}: {stale}",
            code=ErrorCode.KRB_AP_ERR_BADKEYVER,
        )
    versions = [entry for entry in entries if kvno is None or same_kvno(kvno, entry.kvno)]
    if not any(entry.key.etype == etype for entry in versions):
        return ApError(
            f"the ticket for {name} was made with a key of {etype_name(etype)}, "
            f"and the keytab holds none of {_owners(versions)}: export it again with all etypes",
            code=ErrorCode.KRB_AP_ERR_BADKEYVER,
        )
    return None


def _version(ticket: Ticket) -> str:
    kvno, etype = ticket.enc_part.kvno, etype_name(ticket.enc_part.etype)
    return etype if kvno is None else f"kvno {kvno} ({etype})"


def _owners(entries: list[ServiceKey]) -> str:
    return _first([str(entry.principal) for entry in entries])


def _shown(entries: list[ServiceKey]) -> str:
    return _first([f"{e.principal} kvno {e.kvno} ({etype_name(e.key.etype)})" for e in entries])


def _first(texts: list[str]) -> str:
    return first_of(dict.fromkeys(texts), _MAX_SHOWN)
