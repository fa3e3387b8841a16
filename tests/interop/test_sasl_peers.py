"""SASL GSSAPI with Cyrus SASL's sample programs over MIT's GSS-API, and delegation by the caller's word with MIT."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import purekrb
from purekrb import Acceptor, CCache, Credential, CredentialError, Flag, Keytab, PolicyError
from purekrb.integrations.sasl import GssapiClient, GssapiServer, Layer
from support.cyrus import cyrus_client, cyrus_server
from support.mit import MitRealm

#: What Cyrus is allowed to negotiate, and the layer that this means.
STRENGTHS = {"max=0": Layer.NONE, "max=1": Layer.INTEGRITY, "max=256": Layer.CONFIDENTIALITY}
ALL = Layer.NONE | Layer.INTEGRITY | Layer.CONFIDENTIALITY


@pytest.fixture(scope="module")
def user(mit_realm: MitRealm) -> Path:
    return mit_realm.kinit("user", options=["-f"])


@pytest.fixture(scope="module")
def env(mit_realm: MitRealm, user: Path) -> Iterator[dict[str, str]]:
    # Cyrus's server has the host's name.
    host = mit_realm.addprinc(f"host/{os.uname().nodename}")
    keytab = mit_realm.keytab(host)
    yield {**mit_realm.env, "KRB5CCNAME": f"FILE:{user}", "KRB5_KTNAME": str(keytab)}
    mit_realm.kadmin(f"delprinc -force {host}")


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_client_of_cyrus_sasl_gets_the_layer_that_it_may_have(
    mit_realm: MitRealm, env: dict[str, str], strength: str
) -> None:
    keytab = Keytab.load(mit_realm.service_keytab)
    server = GssapiServer(Acceptor(keytab, require=Flag(0)), layers=ALL)
    with cyrus_client("GSSAPI", env, "-b", strength) as client:
        mechanism, _, token = client.read().partition(b"\0")
        assert mechanism == b"GSSAPI"
        challenge = server.step(token)
        while not server.complete:
            client.write("S", challenge or b"")
            challenge = server.step(client.read())
        assert str(server.context.initiator) == "user@MIT.TEST"
        layer = server.security
        if STRENGTHS[strength] is Layer.NONE:
            assert layer is None
            return
        assert layer is not None
        client.write("S", layer.wrap(b"srv message 1\0"))
        sent = client.read()
        assert (b"client message" in sent) == (STRENGTHS[strength] is Layer.INTEGRITY)
        assert layer.unwrap(sent) == b"client message 1\0"


@pytest.mark.parametrize("layer", STRENGTHS.values(), ids=lambda layer: layer.name)
def test_a_server_of_cyrus_sasl_takes_our_layer_and_authorization_identity(
    mit_realm: MitRealm, user: Path, env: dict[str, str], layer: Layer
) -> None:
    credential = Credential.from_ccache(CCache.load(user))
    context = purekrb.initiate(f"host/{os.uname().nodename}", credential, mit_realm.config)
    client = GssapiClient(context, layer=layer, authzid="user")
    with cyrus_server("GSSAPI", env) as server:
        server.write("C", b"GSSAPI\0" + client.step())
        for _ in range(2):
            server.write("C", client.step(server.read()))
        security = client.succeed()
        if layer is Layer.NONE:
            assert security is None
            return
        assert security is not None
        sent = server.read()
        assert (b"srv message" in sent) == (layer is Layer.INTEGRITY)
        assert security.unwrap(sent) == b"srv message 1\0"
        server.write("C", security.wrap(b"client message 1\0"))
        assert "decoded message 'client message 1'" in server.rest()


def test_a_tgt_is_delegated_where_mit_marks_no_service_only_by_the_callers_word(
    mit_realm: MitRealm, user: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keytab = Keytab.load(mit_realm.service_keytab)
    credential = Credential.from_ccache(CCache.load(user))

    def delegated(**options: object) -> Credential | None:
        initiator = purekrb.initiate("host/localhost", credential, mit_realm.config, **options)  # type: ignore[arg-type]
        service = Acceptor(keytab)
        initiator.step(service.step(initiator.step()))
        return service.delegated_credential

    assert delegated(flags=Flag.DEFAULT | Flag.DELEG) is None
    [warning] = (record for record in caplog.records if record.levelname == "WARNING")
    assert "host/localhost@MIT.TEST does not get the TGT" in warning.getMessage()
    received = delegated(delegate="always")
    assert received is not None
    assert str(received.principal) == "user@MIT.TEST"
    client = purekrb.KdcClient(mit_realm.config)
    assert str(client.get_ticket(received, "host/localhost").client) == "user@MIT.TEST"
    with pytest.raises(PolicyError, match="needs MUTUAL"):
        delegated(flags=Flag.INTEG, delegate="always")
    fixed = Credential.from_ccache(
        CCache.load(mit_realm.kinit("user", options=["-F"]))
    )  # not forwardable
    with pytest.raises(CredentialError, match="not forwardable"):
        purekrb.initiate("host/localhost", fixed, mit_realm.config, delegate="always")
