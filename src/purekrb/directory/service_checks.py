"""What clients of a service really get: the KDC's tickets, opened with the keys of the service.

Each check is one finding. `Directory.verify_service`, `Directory.install_service` and the doctor
show them, each in its own way.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from purekrb.constants import DEFAULT_ETYPES, EncryptionType
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.credentials.ticket import ServiceTicket
from purekrb.directory.account_state import (
    ETYPE_BITS,
    AccountState,
    account_findings,
    etype_finding,
    suspects_rc4,
)
from purekrb.directory.tickets import Answer, TicketSource
from purekrb.dn import domain_of
from purekrb.errors import (
    ApError,
    KdcError,
    KdcEtypeError,
    KerberosError,
    ServiceUnknownError,
    SpnError,
)
from purekrb.exchanges.ap_exchange import find_service_key
from purekrb.exchanges.key_diagnosis import diagnose
from purekrb.exchanges.opened_tickets import read_ticket
from purekrb.exchanges.service_keys import same_kvno
from purekrb.findings import Finding, split_remedy
from purekrb.kdc.client import DEFAULT_TIMEOUT
from purekrb.keys import etype_name, etype_names
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.system import now
from purekrb.text import first_of

__all__ = ["NO_RC4", "Checks", "key_finding", "ticket_finding", "warnings_of", "why_refused"]

_log = Log("purekrb.directory")

NO_RC4 = "set msDS-SupportedEncryptionTypes of the account to 24 (AES), and set its password again"
_AGAIN = "export the keytab again, or make it with purekrb keytab from-password --ask-kdc"
#: What helps if nobody knows the password.
_NEW_KEYS = "or give the account new keys: purekrb account rotate {} --reset, with this keytab"
#: The most names that a finding has.
_MAX_SHOWN = 5
#: Returns the salt that the KDC names for the account of a principal, if it names one.
SaltOf = Callable[[Principal], str | None]


@dataclass(frozen=True, slots=True)
class Checks:
    """What the checks of a service have besides the directory.

    `keytab` holds the service's keys, if they are at hand. `tickets` asks the KDC, for `timeout`
    seconds in all; None: it is not asked, and the directory alone tells what the keys should be.
    """

    keytab: Keytab | None = None
    tickets: TicketSource | None = None
    timeout: float = DEFAULT_TIMEOUT

    def findings(self, state: AccountState, spns: Sequence[str]) -> list[Finding]:
        """Return what is found about a service whose `spns` are those of the account.

        Without SPNs, no client can ask for a ticket, and so no KDC is asked.
        """
        found = list(account_findings(state, now()))
        source = self.tickets
        if source is None or not spns:
            return found + list(_by_directory(state, self.keytab))
        domain = domain_of(state.account.dn)
        deadline = time.monotonic() + self.timeout
        answers = source.ask(spns, domain, deadline)
        for answer in answers:
            if answer.error is not None and not isinstance(answer.error, (KdcError, SpnError)):
                return [*found, _not_asked(answer.error), *_by_directory(state, self.keytab)]

        def salt_of(_: Principal) -> str | None:
            # The account alone has a salt: a KDC does not know its SPNs as clients.
            name = Principal((state.account.name,), source.realm_of(domain))
            return source.salt(name, deadline)

        permitted = source.config.permitted_etypes
        return found + list(_by_tickets(state, answers, self.keytab, salt_of, permitted))


def warnings_of(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return the findings that are not "ok", in words."""
    return tuple(str(finding) for finding in findings if finding.status != "ok")


def ticket_finding(ticket: ServiceTicket, permitted: Sequence[int]) -> Finding:
    """Return what a client has got, and whether acceptors take it."""
    part = read_ticket(ticket.ticket).enc_part
    text = (
        f"{ticket.service}: kvno {part.kvno}, encrypted with {etype_name(part.etype)}, session key "
        f"{etype_name(ticket.session_key.etype)}, until {ticket.endtime:%Y-%m-%d %H:%M:%SZ}"
    )
    if part.etype in permitted:
        return Finding("ticket", "ok", text)
    return Finding(
        "ticket",
        "failed",
        f"{text}: a service that permits AES alone refuses this ticket",
        NO_RC4.replace(", and set", ", have clients get new tickets; without AES keys, set"),
    )


def why_refused(error: KerberosError, spn: str, *, registered: bool = False) -> tuple[str, str]:
    """Return why there is no ticket for `spn`, and what to do.

    `registered`: the directory has the SPN on one account.
    """
    text, remedy = split_remedy(error)
    if isinstance(error, KdcEtypeError):
        remedy = NO_RC4
    elif isinstance(error, ServiceUnknownError) and registered:
        remedy = (
            "wait for the replication if it is new; otherwise look for other accounts of the "
            f"forest that have it, or an SPN that stands for it: purekrb spn query {spn}"
        )
    elif isinstance(error, ServiceUnknownError):
        remedy = (
            f"register the SPN: purekrb spn add {spn} --account ACCOUNT, once and on one account; or "
            "call the service by its registered name, not by an alias"
        )
    return text, remedy


def key_finding(ticket: ServiceTicket, keytab: Keytab, salt_of: SaltOf) -> Finding:
    """Return whether a key of `keytab` opens the ticket, and if none does, why."""
    read = read_ticket(ticket.ticket)
    name, kvno = read.sname.principal(read.realm), read.enc_part.kvno
    try:
        opened = find_service_key(
            ticket.ticket, keytab, permitted_etypes=(*DEFAULT_ETYPES, EncryptionType.RC4_HMAC)
        )
    except ApError:
        return Finding("keytab", "failed", *diagnose(read, list(keytab), salt_of))
    text = f"the key of {opened.principal}, kvno {opened.kvno}, opens the ticket"
    if opened.principal != name:
        text += f" for {name}"
    if kvno not in (None, opened.kvno):
        text += f", whose kvno is {kvno}"
    return Finding("keytab", "ok", text)


def _not_asked(error: KerberosError) -> Finding:
    text, remedy = split_remedy(error)
    return Finding(
        "tickets",
        "skipped",
        f"which tickets clients get is not known, as no KDC has told: {text}",
        remedy or "verify the service again when a KDC answers",
    )


def _by_tickets(
    state: AccountState,
    answers: Sequence[Answer],
    keytab: Keytab | None,
    salt_of: SaltOf,
    permitted: Sequence[int],
) -> Iterator[Finding]:
    """Yield what the KDC's answers show."""
    alike: dict[tuple[int, int | None], dict[str, ServiceTicket]] = {}
    for answer in answers:
        if answer.ticket is not None:
            part = read_ticket(answer.ticket.ticket).enc_part
            alike.setdefault((part.etype, part.kvno), {})[answer.spn] = answer.ticket
    refused = {etype for etype, _ in alike}.difference(permitted)
    if refused.issubset(DEFAULT_ETYPES) and refused:
        yield Finding(
            "encryption types",
            "failed",
            f"tickets for {state.account.dn} are encrypted with {etype_names(sorted(refused))}, "
            f"which is not permitted here: permitted are {etype_names(permitted)}",
            "add it to permitted_enctypes in krb5.conf",
        )
    elif refused or any(isinstance(answer.error, KdcEtypeError) for answer in answers):
        yield etype_finding(state, refused)
    yield from _refusals(answers)
    usable = {key: tickets for key, tickets in alike.items() if key[0] in permitted}
    for (etype, kvno), tickets in usable.items():
        spns = first_of(tickets, _MAX_SHOWN)
        text = f"tickets for {spns}: kvno {kvno}, encrypted with {etype_name(etype)}"
        yield Finding("tickets", "ok", text)
        if keytab is not None:
            first = next(iter(tickets.values()))
            yield _in_hand(state, key_finding(first, keytab, salt_of), keytab)
    if keytab is not None and not usable:
        yield from _stale_keys(state, keytab)


def _refusals(answers: Sequence[Answer]) -> Iterator[Finding]:
    """Yield the SPNs that clients get no ticket for. Those of encryption types are told elsewhere."""
    served = {_host_of(answer.spn) for answer in answers if answer.ticket is not None}
    alike: dict[tuple[type, int | None], list[Answer]] = {}
    for answer in answers:
        error = answer.error
        if error is None or isinstance(error, KdcEtypeError):
            continue
        if isinstance(error, ServiceUnknownError) and _host_of(answer.spn) in served:
            # A KDC may not find a DN with blanks; clients then ask with the objectGUID.
            _log.debug("the KDC does not know %s, but another SPN of that host", answer.spn)
            continue
        alike.setdefault((type(error), getattr(error, "code", None)), []).append(answer)
    for first, *others in alike.values():
        if first.error is not None:
            text, remedy = why_refused(first.error, first.spn, registered=True)
            if others:
                spns = first_of((answer.spn for answer in others), _MAX_SHOWN)
                text += f"; the same for {spns}"
            yield Finding("tickets", "failed", text, remedy)


def _host_of(spn: str) -> str:
    """Return an SPN of three parts without the last, which names the SCP."""
    return "/".join(spn.split("/")[:2]).casefold()


def _in_hand(state: AccountState, finding: Finding, keytab: Keytab) -> Finding:
    """Return the finding about the keys; if the keytab has none of the account, this says so."""
    if finding.status == "ok":
        return finding
    new_keys = _NEW_KEYS.format(state.account.name)
    if _keys_of(state, keytab):
        return dataclasses.replace(finding, remedy=f"{finding.remedy}; {new_keys}")
    held = dict.fromkeys(str(entry.principal) for entry in keytab)
    return Finding(
        "keytab",
        "failed",
        f"the keytab has no key of {state.account.name} or of its SPNs, and none of the others "
        f"opens a ticket: it has keys of {first_of(held, _MAX_SHOWN) or 'nobody'}",
        f"{_AGAIN}; {new_keys}",
    )


def _keys_of(state: AccountState, keytab: Keytab) -> list[KeytabEntry]:
    names = {name.casefold() for name in (state.account.name, *state.account.spns)}
    return [entry for entry in keytab if "/".join(entry.principal.components).casefold() in names]


def _by_directory(state: AccountState, keytab: Keytab | None) -> Iterator[Finding]:
    """Yield what the directory alone lets suspect."""
    if suspects_rc4(state):
        yield etype_finding(state)
    if keytab is not None:
        yield from _stale_keys(state, keytab)


def _stale_keys(state: AccountState, keytab: Keytab) -> Iterator[Finding]:
    """Yield why the keys may not be the account's, by version and encryption type alone."""
    kvno, dn = state.kvno, state.account.dn
    if kvno is None:
        return
    keys = _keys_of(state, keytab)
    current = {entry.key.etype for entry in keys if same_kvno(kvno, entry.kvno)}
    if not current:
        held = ", ".join(map(str, sorted({entry.kvno for entry in keys}))) or "none"
        yield Finding(
            "keytab",
            "warning",
            f"the keytab has no key of version {kvno}, the current one, for {dn}; it has {held}. "
            "Unless the key itself is the current one, which the directory does not tell, it opens "
            "no ticket of a client",
            f"{_AGAIN}; {_NEW_KEYS.format(state.account.name)}",
        )
        return
    wanted = {etype for bit, etype in ETYPE_BITS.items() if (state.etypes or 0) & bit}
    if state.has_aes and not wanted & current:
        yield Finding(
            "keytab",
            "warning",
            f"the keytab only has keys of {etype_names(sorted(current))}, but tickets for {dn} are "
            f"encrypted with keys of {etype_names(sorted(wanted))}",
            _AGAIN,
        )
