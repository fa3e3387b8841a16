"""Code of other libraries over `purekrb.compat.kerberos`, against purekrb's server, in a process of its own.

    python kerberos_programs.py pure-sasl|pymongo REALM...

Each function prints what it found. The environment names krb5.conf, the client's cache and the service's keytab.
"""

from __future__ import annotations

import base64
import os
import sys

import purekrb.compat

__all__ = ["main"]


def _server(layers):  # type: ignore[no-untyped-def]
    from purekrb.integrations.sasl import GssapiServer

    keytab = purekrb.Keytab.load(os.environ["KRB5_KTNAME"])
    acceptor = purekrb.Acceptor(keytab, require=purekrb.Flag(0))
    return GssapiServer(acceptor, layers=layers)


def pure_sasl() -> None:
    """pure-sasl's GSSAPI mechanism, with each quality of protection."""
    from puresasl import QOP
    from puresasl.client import SASLClient

    from purekrb.integrations.sasl import Layer

    layers = {
        QOP.AUTH: Layer.NONE,
        QOP.AUTH_INT: Layer.INTEGRITY,
        QOP.AUTH_CONF: Layer.CONFIDENTIALITY,
    }
    for qop, layer in layers.items():
        client = SASLClient("localhost", "hive", mechanism="GSSAPI", qops=[qop])
        server = _server(Layer.NONE | Layer.INTEGRITY | Layer.CONFIDENTIALITY)
        challenge = server.step(client.process())
        while not server.complete:
            challenge = server.step(client.process(challenge))
        assert client.complete
        sealed = ""
        if layer is not Layer.NONE:
            security = server.security
            token = client.wrap(b"SELECT 1")
            sealed = f" {b'SELECT' in token}"
            # pure-sasl leaves the length of a buffer to its caller.
            assert security.unwrap(len(token).to_bytes(4, "big") + token) == b"SELECT 1"
            assert client.unwrap(security.wrap(b"a row")[4:]) == b"a row"
        print(qop.decode(), server.context.initiator, server.authzid + sealed)
        client.dispose()


def pymongo() -> None:
    """pymongo's own conversation with a server, by a password and by the credential cache."""
    import pymongo.auth_shared
    from pymongo.synchronous import auth

    from purekrb.integrations.sasl import GssapiServer, Layer

    assert auth.HAVE_KERBEROS
    assert auth.kerberos.__name__.startswith("purekrb.compat.")

    class Connection:
        """What pymongo asks of a connection: its address, and to run a command."""

        address = ("localhost", 27017)

        def __init__(self) -> None:
            keytab = purekrb.Keytab.load(os.environ["KRB5_KTNAME"])
            acceptor = purekrb.Acceptor(keytab)
            # mongod decides by itself whether the user may be the principal.
            may = lambda principal, user: str(principal) == user  # noqa: E731
            self.server = GssapiServer(acceptor, layers=Layer.NONE, authorize=may)

        def command(self, database: str, command: dict[str, object]) -> dict[str, object]:
            assert database == "$external"
            challenge = self.server.step(base64.b64decode(str(command["payload"])))
            payload = base64.b64encode(challenge or b"").decode()
            return {"conversationId": 1, "payload": payload, "done": self.server.complete}

    for password in (os.environ["PASSWORD"], None):
        credentials = pymongo.auth_shared._build_credentials_tuple(
            "GSSAPI", "$external", "alice@EXAMPLE.TEST", password,
            {"authmechanismproperties": {"SERVICE_NAME": "hive"}}, None,
        )  # fmt: skip
        connection = Connection()
        auth._authenticate_gssapi(credentials, connection)
        assert connection.server.complete
        print(connection.server.context.initiator, connection.server.authzid)


def main(program: str, module: str) -> None:
    """Run one of the programs with one of the modules."""
    purekrb.compat.install(module)
    {"pure-sasl": pure_sasl, "pymongo": pymongo}[program]()


if __name__ == "__main__":
    main(*sys.argv[1:])
