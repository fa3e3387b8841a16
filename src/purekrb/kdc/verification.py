"""A password or key verified by a KDC that proves itself with a keytab. Source: RFC 4120 3.1.5, 10."""

from __future__ import annotations

from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath
from purekrb.credentials.keytab import Keytab
from purekrb.errors import CredentialError, KerberosError
from purekrb.exchanges.as_exchange import as_exchange
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.initiator import Initiator
from purekrb.io.dial import OpenConnection
from purekrb.kdc.client import DEFAULT_TIMEOUT, KdcClient, Target, _check_credential
from purekrb.krb5conf.config import Config
from purekrb.names import Principal, folded
from purekrb.replay import MemoryReplayCache

__all__ = ["verify_credentials"]

#: The most principals of a keytab that are tried.
MAX_SERVICES = 8


def verify_credentials(
    credential: Credential,
    keytab: Keytab | FilePath | None = None,
    *,
    service: Target | None = None,
    config: Config | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    accept_canonical: bool = False,
    open_connection: OpenConnection | None = None,
) -> Principal:
    """Verify a password or key with a KDC that knows a key of `keytab`; return the client's name.

    Use the result: it is the principal that has logged in, as the KDC spells it. It is the
    credential's principal, except that with `canonicalize` (or an enterprise name) ASCII letters
    may differ in case (RFC 6806 6). With `accept_canonical`, it may be any other name that the KDC
    declares to be the canonical one.

    A TGT alone is not proof: an impostor of the KDC can answer for any password. So the new TGT is
    used to get a ticket for a service of this machine, and the ticket must decrypt with the key in
    `keytab`. The service is `service`, or by default one of those in `keytab`, which is a Keytab, a
    file or None: see `Keytab.load`. `open_connection` is that of KdcClient.

    Raises CredentialError if the keytab has no usable key, or if the KDC vouches for another
    client; and otherwise the error that prevented the check. Source: RFC 4120 3.1.5, 10.
    """
    _check_credential(credential, "verify_credentials({})")
    keytab = keytab if isinstance(keytab, Keytab) else Keytab.load(keytab)
    services: list[Target] = [service] if service is not None else []
    if service is None:
        services += dict.fromkeys(entry.principal for entry in keytab)
    if not services:
        raise CredentialError(
            "the keytab is empty, so it cannot be proved that the KDC is genuine: "
            "export a host key into it"
        )
    client = KdcClient(config, timeout=timeout, open_connection=open_connection)
    client._prepare(credential, "verify_credentials({})")
    options = client._as_options(credential)
    fresh = client._run(
        lambda: as_exchange(
            credential, options, offsets=client._offsets, fast_realms=client._fast_realms
        )
    )
    if not accept_canonical and folded(fresh.client) != folded(credential.principal):
        # The owner of another account could act as the KDC and return its own, genuine ticket.
        # RFC 4120 3.1.5: the client name in the reply must be the one in the request.
        raise CredentialError(
            f"the KDC vouches for {fresh.client}, not for {credential.principal}: "
            "do not trust this login; if these are two names of one account, "
            "pass accept_canonical=True and use the name that is returned"
        )
    refused: KerberosError | None = None
    for candidate in services[:MAX_SERVICES]:
        proof = Credential(fresh.client, ccache=CCache(fresh.client, [fresh]))
        try:
            ticket = client.get_ticket(proof, candidate)
            permitted = client.config.permitted_etypes
            acceptor = Acceptor(
                keytab, replay_cache=MemoryReplayCache(), permitted_etypes=permitted
            )
            acceptor.step(Initiator(ticket, permitted_etypes=permitted).step())
        except KerberosError as error:
            refused = refused or error
            continue
        if acceptor.initiator != fresh.client:
            raise CredentialError(
                f"the KDC's ticket for {ticket.service} belongs to {acceptor.initiator}, "
                f"not to {fresh.client}: do not trust this login"
            )
        credential.ccache.begin_with(fresh)
        return fresh.client
    raise refused or CredentialError("no service was tried")
