"""Kerberos for `ldap3.Connection`: SASL GSSAPI or GSS-SPNEGO, signed or sealed, in pure Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from purekrb.credentials.credential import Credential
from purekrb.directory import ldap
from purekrb.directory.connect import DEFAULT_TIMEOUT, bind_starter, default_targets, host_of
from purekrb.kdc.client import KdcClient, Target
from purekrb.krb5conf.config import Config

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
    """Bind the `ldap3.Connection` as `credential`; protect all that it transfers from then on.

    The connection is opened if it is closed. Without TLS, messages are encrypted if `sealed` is
    true, and only signed otherwise. With TLS (`use_ssl`, or after `start_tls()`), channel bindings
    tie the context to it. Pass the server's SPN as `target` if the host of the connection's server
    is not its DNS name. `timeout` (seconds) applies to the KDCs; the directory has ldap3's own
    timeouts. Later calls of `bind` and `rebind` do the same, with a new connection and context.

    TLS must be verified, which is not ldap3's default: use `ldap3.Tls(validate=ssl.CERT_REQUIRED)`.
    The certificate must be for the host of the connection's server, for one of `valid_names`, or
    for the host of `target`. Otherwise PolicyError is raised before the KDC is asked.
    `allow_unverified_tls=True` skips this check: unless the server compares channel bindings,
    anyone on the path can then read and change everything.

    Raises DirectoryError if the directory refuses the bind, PolicyError for a certificate that does
    not permit channel bindings, and UnsupportedError for a client strategy other than SYNC,
    SAFE_SYNC, RESTARTABLE and SAFE_RESTARTABLE.
    """
    client = KdcClient(config, timeout=timeout)
    server = connection.server
    targets = (
        [target] if target is not None else default_targets(client.config, credential, server.host)
    )
    start_bind = bind_starter(client, credential, targets, mechanism=mechanism, sealed=sealed)
    # "*" is not a name: it makes ldap3 accept a certificate for any name.
    names = {server.host, *_valid_names(server.tls), *map(host_of, targets)} - {"", "*"}
    ldap.bind(connection, start_bind, names=names, allow_unverified_tls=allow_unverified_tls)


def _valid_names(tls: Any) -> Iterable[str]:
    """Return the other names that the caller has told ldap3 to accept."""
    names = getattr(tls, "valid_names", None) or ()
    return (names,) if isinstance(names, str) else names
