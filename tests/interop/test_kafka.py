"""kafka-python with purekrb's mechanism, as the page on Kafka shows it, against a broker that speaks SASL."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import purekrb
from purekrb import Acceptor, Config, Credential, Keytab, Principal
from purekrb.integrations.sasl import GssapiServer, Layer
from purekrb.testing import Realm
from support.kafka_broker import kafka_broker
from support.pages import program, run_on_purekrb, run_program
from support.tls import Authority

#: kafka-python itself warns on recent Pythons.
kafka_warns = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Lab(NamedTuple):
    keytab: Keytab
    alice: Credential
    config: Config
    env: dict[str, str]
    directory: Path

    def program(self, *arguments: str) -> str:
        return run_program(
            "kafka.md",
            *arguments,
            directory=self.directory,
            env=self.env,
            containing="purekrb.integrations.kafka",
        )

    def server(self, layers: Layer = Layer.NONE) -> GssapiServer:
        return GssapiServer(Acceptor(self.keytab), layers=layers)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("kafka")
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        keytab = realm.add_service("kafka/localhost")
        realm.write_krb5_conf(directory / "krb5.conf")
        purekrb.KdcClient(realm.config).get_tgt(alice)
        alice.save(directory / "ccache")
        files = {"KRB5_CONFIG": f"{directory}/krb5.conf", "KRB5CCNAME": f"FILE:{directory}/ccache"}
        yield Lab(keytab, alice, realm.config, {**os.environ, **files}, directory)


def test_the_program_of_the_page_lists_the_topics_of_a_broker(lab: Lab) -> None:
    Authority(lab.directory).issue(["localhost"], stem="broker")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(lab.directory / "broker.pem", lab.directory / "broker.key")
    with kafka_broker(lab.server, tls) as broker:
        address = f"localhost:{broker.port}"
        assert lab.program(address, "SASL_SSL", f"{lab.directory}/ca.pem") == "orders\nprices\n"
        assert set(broker.clients) == {"alice@EXAMPLE.TEST"}
        assert not broker.refused


#: kafka-python's own mechanism.
OWN_MECHANISM = """
import sys
from kafka import KafkaConsumer

consumer = KafkaConsumer(
    bootstrap_servers=sys.argv[1], security_protocol=sys.argv[2], sasl_mechanism="GSSAPI",
    sasl_kerberos_service_name="kafka",
)
print(*sorted(consumer.topics()), sep="\\n")
"""


@pytest.mark.parametrize("client", ["kafka-python", "aiokafka"])
def test_a_client_that_imports_gssapi_lists_the_topics_of_a_broker(client: str, lab: Lab) -> None:
    text = OWN_MECHANISM if client == "kafka-python" else program("kafka.md", "aiokafka")
    sent = []

    def authorize(principal: Principal, authzid: str) -> bool:
        sent.append(authzid)
        return authzid.startswith("kafka@localhost")  # as brokers do: it names the service

    def new_server() -> GssapiServer:
        return GssapiServer(Acceptor(lab.keytab), layers=Layer.NONE, authorize=authorize)

    with kafka_broker(new_server) as broker:
        arguments = [f"localhost:{broker.port}", "SASL_PLAINTEXT"]
        shown = run_on_purekrb(text, lab.directory, *arguments, env=lab.env)
        assert shown == "orders\nprices\n"
        assert set(broker.clients) == {"alice@EXAMPLE.TEST"}
        assert sent


@kafka_warns
def test_a_broker_without_the_key_of_its_name_gets_nothing(lab: Lab) -> None:
    from purekrb.integrations.kafka import mechanism

    with Realm("OTHER.TEST") as other:
        foreign = other.add_service("kafka/localhost")
    new_client = mechanism(lab.alice, lab.config, 10.0)
    client = new_client(host="localhost")
    with pytest.raises(purekrb.KerberosError):
        GssapiServer(Acceptor(foreign), layers=Layer.NONE).step(client.auth_bytes())
    for answer in (b"", b"any token"):
        client = new_client(host="localhost")
        client.auth_bytes()
        with pytest.raises(purekrb.KerberosError):
            client.receive(answer)
        assert not client.is_authenticated()


@kafka_warns
def test_each_name_that_kafka_python_takes_leads_to_its_spn() -> None:
    from purekrb.integrations.kafka import _target

    for options, spn in (
        ({}, "kafka/b1.test"),
        ({"sasl_kerberos_service_name": "mq"}, "mq/b1.test"),
        ({"sasl_kerberos_domain_name": "all.test"}, "kafka/all.test"),
        ({"sasl_kerberos_name": "kafka@b2.test"}, "kafka/b2.test"),
        ({"sasl_kerberos_name": "kafka/b2.test@R.TEST"}, "kafka/b2.test@R.TEST"),
    ):
        assert _target({"host": "b1.test", "sasl_kerberos_name": None, **options}) == spn


@kafka_warns
def test_a_credential_may_be_given_in_place_of_the_environments(lab: Lab) -> None:
    from purekrb.integrations.kafka import mechanism

    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    client = mechanism(alice, lab.config, 10.0)(host="localhost")
    server = lab.server()
    while not client.is_done():
        challenge = server.step(client.auth_bytes())
        if not client.is_done():
            client.receive(challenge)
    assert server.complete
    assert client.is_authenticated()
    assert "alice@EXAMPLE.TEST to kafka/localhost@EXAMPLE.TEST" in client.auth_details()
    client.receive(b"")  # the broker's empty success
    with pytest.raises(purekrb.KerberosError):
        client.receive(b"more")


@kafka_warns
def test_kafka_pythons_own_class_for_windows_runs_on_purekrbs_sspi(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kafka.net.sasl.sspi as theirs

    from purekrb import sspi

    for name in ("sspi", "sspicon", "win32security"):
        monkeypatch.setattr(theirs, name, sspi, raising=False)
    sspi.set_default_credential(lab.alice, config=lab.config)
    try:
        client = theirs.SaslMechanismSSPI(sasl_kerberos_service_name="kafka", host="localhost")
        server = lab.server()
        challenge = server.step(client.auth_bytes())
        client.receive(challenge)
        offer = server.step(client.auth_bytes())
        assert client._client_ctx.authenticated
        assert "alice@EXAMPLE.TEST to kafka/localhost@EXAMPLE.TEST" in client.auth_details()
        assert client._client_ctx.unwrap(offer) == (b"\x01\0\0\0", False)
    finally:
        sspi.set_default_credential()
