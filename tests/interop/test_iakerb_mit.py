"""IAKERB with MIT on the other side: a client that reaches no KDC, and a service that passes its requests on."""

from __future__ import annotations

from pathlib import Path

import pytest

from purekrb import (
    Acceptor,
    Config,
    Credential,
    KdcClient,
    Keytab,
    PreauthFailedError,
    initiate,
)
from purekrb.gss.iakerb import Relay
from purekrb.replay import MemoryReplayCache
from support.gss_peer import GssPeer
from support.gss_samples import SampleService, run_gss_client
from support.mit import MitRealm

#: A client's configuration that names the realms, and no KDC.
NO_KDC = """\
[libdefaults]
 default_realm = MIT.TEST
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
[domain_realm]
 localhost = MIT.TEST
 .sub.test = SUB.TEST
"""


@pytest.fixture
def no_kdc(tmp_path: Path) -> Path:
    path = tmp_path / "no-kdc.conf"
    path.write_text(NO_KDC)
    return path


@pytest.mark.parametrize("user", ["user", "pre"])
def test_mits_acceptor_passes_our_requests_on(
    mit_realm: MitRealm, mit_gss: GssPeer, no_kdc: Path, user: str
) -> None:
    credential = Credential.from_password(f"{user}@MIT.TEST", mit_realm.passwords[user])
    ours = initiate(
        "gsvc/localhost", credential, Config.from_file(no_kdc), mechanism="iakerb", timeout=1
    )
    theirs = mit_gss.accept(mit_realm.service_keytab, mechanism="iakerb")
    token, rounds = ours.step(), 0
    while token is not None:
        answer = theirs.step(token)
        rounds += 1
        token = ours.step(answer) if answer else None
    assert ours.established
    assert ours.mutual
    assert rounds >= 3
    assert theirs.unwrap(ours.wrap(b"sealed"))[0] == b"sealed"
    assert str(ours.initiator) == f"{user}@MIT.TEST"


def test_a_wrong_password_is_told_as_ever(
    mit_realm: MitRealm, mit_gss: GssPeer, no_kdc: Path
) -> None:
    wrong = Credential.from_password("pre@MIT.TEST", "wrong")
    ours = initiate("gsvc/localhost", wrong, Config.from_file(no_kdc), mechanism="iakerb")
    theirs = mit_gss.accept(mit_realm.service_keytab, mechanism="iakerb")

    def handshake() -> None:
        token = ours.step()
        while token is not None:
            token = ours.step(theirs.step(token))

    with pytest.raises(PreauthFailedError):
        handshake()


def sample(mit_realm: MitRealm, relay: Relay | None) -> SampleService:
    keytab = Keytab.load(mit_realm.service_keytab)
    return SampleService(Acceptor(keytab, relay=relay, replay_cache=MemoryReplayCache()))


def test_we_pass_the_requests_of_mits_client_on(mit_realm: MitRealm, no_kdc: Path) -> None:
    asked: list[str] = []
    client = KdcClient(mit_realm.config)

    def relay(realm: str, message: bytes) -> bytes:
        asked.append(realm)
        return client.relay(realm, message)

    service = sample(mit_realm, relay)
    said = run_gss_client(
        mit_realm,
        service,
        "-mech",
        "{ 1 3 6 1 5 2 5 }",
        "-user",
        "pre@MIT.TEST",
        "-pass",
        "prepw",
        "localhost",
        "gsvc@localhost",
        "hello",
        env={"KRB5_CONFIG": str(no_kdc), "KRB5CCNAME": "MEMORY:none"},
    )
    assert service.received == [b"hello"]
    assert str(service.acceptor.initiator) == "pre@MIT.TEST"
    assert "Signature verified" in said
    assert set(asked) == {"MIT.TEST"}
    assert len(asked) >= 2
