"""Kerberos for `ldap3.Connection`: SASL GSSAPI or GSS-SPNEGO with signed and sealed connections, in pure Python."""

from __future__ import annotations

from typing import Any

from purekrb.credentials.credential import Credential
from purekrb.directory import ldap
from purekrb.directory.connect import DEFAULT_TIMEOUT, bind_starter, default_targets
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
) -> None:
    """Bind the `ldap3.Connection` as `credential`; from then on all that it sends and receives is protected.

    It is opened first if it is not open. Without TLS it is `sealed`, or else signed; over TLS (`use_ssl`, or after
    `start_tls()`) the context is tied to the channel instead. `target` is the server's SPN where the host of the
    connection's server is not its DNS name. `timeout` (seconds) is for the KDCs; ldap3's own count for the directory.
    Later calls of the connection's `bind` and `rebind` do the same again, each with a new connection and
    context. Raises DirectoryError where the directory refuses, UnsupportedError for a client strategy other than
    SYNC, SAFE_SYNC, RESTARTABLE and SAFE_RESTARTABLE.
    """
    client = KdcClient(config, timeout=timeout)
    targets = [target] if target is not None else default_targets(client.config, credential, connection.server.host)
    ldap.bind(connection, bind_starter(client, credential, targets, mechanism=mechanism, sealed=sealed))
