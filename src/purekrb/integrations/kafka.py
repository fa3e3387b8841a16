"""Kerberos for kafka-python: the SASL mechanism GSSAPI of its clients, in pure Python.

    import purekrb.integrations.kafka

    purekrb.integrations.kafka.register()
    consumer = kafka.KafkaConsumer(..., security_protocol="SASL_SSL", sasl_mechanism="GSSAPI")

Kafka has no security layers, so the data need TLS. Source: RFC 4752, Kafka's protocol guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purekrb.credentials.credential import Credential
from purekrb.integrations.extras import extra
from purekrb.kdc.client import DEFAULT_TIMEOUT, initiate
from purekrb.sasl import GssapiClient, Layer, context_flags

if TYPE_CHECKING:
    from purekrb.krb5conf.config import Config

__all__ = ["mechanism", "register"]


def register(
    credential: Credential | None = None,
    config: Config | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Let all clients of kafka-python in this process authenticate as `credential`.

    It replaces the mechanism GSSAPI of kafka-python, which needs a C library. Without `credential`,
    each connection uses the ccache of the environment. `timeout` (seconds) applies to the KDCs.
    """
    with extra("kafka"):
        from kafka.net.sasl import register_sasl_mechanism
    register_sasl_mechanism("GSSAPI", mechanism(credential, config, timeout), overwrite=True)


def mechanism(credential: Credential | None, config: Config | None, timeout: float) -> type[Any]:
    """Return a class for kafka-python's table of mechanisms."""
    from kafka.net.sasl.abc import SaslMechanism

    class Gssapi(SaslMechanism):
        """One authentication. kafka-python sends `auth_bytes()`, and passes answers to `receive`.

        A broker has proved its identity once it `is_done`: the last token answers its wrapped offer.
        """

        def __init__(self, **options: Any) -> None:
            context = initiate(
                _target(options),
                credential,
                config,
                flags=context_flags(Layer.NONE),
                timeout=timeout,
            )
            self._client = GssapiClient(context, layer=Layer.NONE)
            self._token = self._client.step()
            self._done = False

        def auth_bytes(self) -> bytes:
            self._done = self._client.is_last
            return self._token

        def receive(self, auth_bytes: bytes) -> None:
            if self._done:
                self._client.succeed(auth_bytes)
            else:
                self._token = self._client.step(auth_bytes)

        def is_done(self) -> bool:
            return self._done

        def is_authenticated(self) -> bool:
            return self._done

        def auth_details(self) -> str:
            context = self._client.context
            return f"Authenticated as {context.initiator} to {context.acceptor} by Kerberos"

    return Gssapi


def _target(options: dict[str, Any]) -> str:
    """Return the broker's SPN by kafka-python's own options."""
    name = options.get("sasl_kerberos_name")
    if name is None:
        host = options.get("sasl_kerberos_domain_name") or options["host"]
        return f"{options.get('sasl_kerberos_service_name') or 'kafka'}/{host}"
    # "kafka@broker" is a host-based service of GSS-API, "kafka/broker@REALM" a principal.
    return str(name) if "/" in str(name) else str(name).replace("@", "/", 1)
