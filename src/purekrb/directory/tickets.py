"""What the KDC gives a client that asks for a service: asked with the directory's own credential."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from purekrb.constants import TicketFlags
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, KdcError, KerberosError, SpnError
from purekrb.exchanges.opened_tickets import read_ticket
from purekrb.kdc.client import FAST_AVAIL, KEYTAB_ETYPES, KdcClient
from purekrb.krb5conf.config import Config
from purekrb.names import Principal
from purekrb.spn import target_principal
from purekrb.system import now

__all__ = ["Answer", "TicketSource", "with_tgts_alone"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking for one SPN: a ticket, or the error."""

    spn: str
    ticket: ServiceTicket | None
    error: KerberosError | None = None


class TicketSource:
    """Asks for new tickets. They are forgotten: nothing is stored in the credential's ccache."""

    def __init__(self, client: KdcClient, credential: Credential) -> None:
        self._client = client
        self._credential = credential

    @property
    def config(self) -> Config:
        """The configuration: which encryption types clients take."""
        return self._client.config

    def realm_of(self, domain: str) -> str:
        """Return the realm of a domain: as the credential spells it, or in capitals."""
        own = self._credential.principal.realm
        return own if own.casefold() == domain.casefold() else domain.upper()

    def ask(self, spns: Iterable[str], domain: str, deadline: float) -> list[Answer]:
        """Return the answers for `spns` of `domain`, in this order, until `deadline` (monotonic).

        An error that is neither the KDC's nor the name's ends it, as the next would be the same: then
        it is the last answer.
        """
        realm = self.realm_of(domain)
        answers: list[Answer] = []
        credential: Credential | None = None
        for spn in spns:
            try:
                client = self._client_until(deadline)
                credential = credential or with_tgts_alone(self._credential, client)
                name = target_principal(spn)
                service = Principal(name.components, realm, name.name_type)
                ticket = client.get_ticket(credential, service)
                read_ticket(ticket.ticket)
                answers.append(Answer(spn, ticket))
            except KerberosError as error:
                answers.append(Answer(spn, None, error))
                if not isinstance(error, (KdcError, SpnError)):
                    break
        return answers

    def salt(self, account: Principal, deadline: float) -> str | None:
        """Return the salt that a KDC names for `account`; None if none does. Nothing is proved."""
        client = self._client_until(deadline)
        try:
            salts = client._run(lambda: client._account_salts(account, KEYTAB_ETYPES))
        except KerberosError:
            return None
        return salts[0].decode(errors="replace") if salts else None

    def _client_until(self, deadline: float) -> KdcClient:
        remaining = max(deadline - time.monotonic(), 0.001)
        return KdcClient(
            self.config,
            timeout=remaining,
            locator=self._client._locator,
            open_connection=self._client.open_connection,
        )


def with_tgts_alone(credential: Credential, client: KdcClient) -> Credential:
    """Return a copy of `credential` without its other tickets, so that they are asked for anew.

    If it has no valid TGT, it gets one first. Raises CredentialError if it cannot.
    """
    at = now()
    tgts = [
        ticket
        for ticket in credential.ccache
        if ticket.is_tgt
        and ticket.endtime > at + ticket.time_offset
        and not ticket.flags & TicketFlags.INVALID
    ]
    if not tgts:
        if not credential.can_get_tgt:
            raise CredentialError(f"{credential.principal} has no valid TGT: get one with kinit")
        tgts = [client.get_tgt(credential)]
    owner = credential.ccache.principal
    copy = Credential.from_ccache(CCache(owner, tgts))
    copy.require = credential.require
    tgs = Principal(("krbtgt", owner.realm), owner.realm)
    announced = credential.ccache.get_config(FAST_AVAIL, tgs)
    if announced is not None:
        copy.ccache.set_config(FAST_AVAIL, announced, tgs)
    return copy
