"""Kerberos for `ldap3.Connection`: SASL GSSAPI or GSS-SPNEGO with signed and sealed connections, in pure Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from purekrb.credentials.credential import Credential
from purekrb.directory import ldap
from purekrb.directory.connect import DEFAULT_TIMEOUT, bind_starter, default_targets, host_of
from purekrb.kdc.client import KdcClient, Target
from purekrb.kdc.config import Config

__all__ = ["bind"]


def bind(
    connection: Any,
    credential: Credential,
    config: Config | None = None,
    target: Target | None = None,
    *,
    mechanism: str = "GSSAPI",
    sealed: bool = True,
    timeout: float = DEFAULT_TIMEOUT,
    allow_unverified_tls: bool = False,
) -> None:
    """Bind the `ldap3.Connection` as `credential`; from then on all that it sends and receives is protected.

    It is opened first if it is not open. Without TLS it is `sealed`, or else signed; over TLS (`use_ssl`, or after
    `start_tls()`) the context is tied to the channel instead. `target` is the server's SPN where the host of the
    connection's server is not its DNS name. `timeout` (seconds) is for the KDCs; ldap3's own count for the directory.
    Later calls of the connection's `bind` and `rebind` do the same again, each with a new connection and
    context.
    TLS must have been verified, which ldap3 does not do by default: with `ldap3.Tls(validate=ssl.CERT_REQUIRED)`, and
    for the host of the connection's server, one of `valid_names`, or the host of `target`. Else PolicyError is raised
    before the KDC is asked; `allow_unverified_tls=True` does without: who stands between reads and changes everything
    then, where the server does not compare channel bindings.
    Raises DirectoryError where the directory refuses, PolicyError for a certificate that channel bindings cannot name,
    UnsupportedError for a client strategy other than SYNC, SAFE_SYNC, RESTARTABLE and SAFE_RESTARTABLE.
    """
    client = KdcClient(config, timeout=timeout)
    server = connection.server
    targets = (
        [target] if target is not None else default_targets(client.config, credential, server.host)
    )
    start_bind = bind_starter(client, credential, targets, mechanism=mechanism, sealed=sealed)
    # "*" is no name: it lets ldap3 take a certificate for any.
    names = {server.host, *_valid_names(server.tls), *map(host_of, targets)} - {"", "*"}
    ldap.bind(connection, start_bind, names=names, allow_unverified_tls=allow_unverified_tls)


def _valid_names(tls: Any) -> Iterable[str]:
    """Return the names besides the host's that the caller has told ldap3 to accept."""
    names = getattr(tls, "valid_names", None) or ()
    return (names,) if isinstance(names, str) else names
