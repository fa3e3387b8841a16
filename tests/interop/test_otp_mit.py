"""One-time passwords with MIT's KDC, which asks a RADIUS server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb import Credential, KdcClient, PreauthFailedError
from purekrb.kdc.client import AsyncKdcClient
from purekrb.messages.otp import OtpChallenge
from purekrb.testing import Realm
from support.commands import Commands
from support.mit import MitRealm
from support.peers import missing_peer
from support.radius import RadiusServer

SECRET = b"testing123"


class OtpRealm(MitRealm):
    """A realm whose user `token` has a one-time password and no other; RADIUS at `radius_port`."""

    radius_port = 0

    def _listen_on(self, port: int) -> None:
        super()._listen_on(port)
        secret = self.directory / "radius.secret"
        secret.write_bytes(SECRET + b"\n")
        text = self._kdc_conf.read_text()
        self._kdc_conf.write_text(
            f"{text}[otp]\n DEFAULT = {{\n  server = 127.0.0.1:{self.radius_port}\n"
            f"  secret = {secret}\n  timeout = 5\n  retries = 1\n  strip_realm = true\n }}\n"
        )

    def _create(self) -> None:
        super()._create()
        self.kadmin("addprinc -randkey +requires_preauth token", "setstr token otp [{}]")


@pytest.fixture(scope="module")
def radius() -> Iterator[RadiusServer]:
    with RadiusServer(SECRET, {"token": ["111111", "222222", "333333", "444444"]}) as server:
        yield server


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory, radius: RadiusServer) -> Iterator[OtpRealm]:
    if not list(Path("/usr/lib").glob("*/krb5/plugins/preauth/otp.so")):
        missing_peer("the one-time passwords of MIT's KDC", "krb5-otp")
    OtpRealm.radius_port = radius.port
    realm = OtpRealm(tmp_path_factory.mktemp("otp"))
    try:
        yield realm
    finally:
        realm.stop()


def armor(realm: OtpRealm) -> Credential:
    return Credential.from_keytab(
        "host/localhost@MIT.TEST", realm.keytab("host/localhost@MIT.TEST")
    )


def test_a_value_gives_a_ticket_once(realm: OtpRealm, radius: RadiusServer) -> None:
    challenges: list[OtpChallenge] = []

    def otp(challenge: OtpChallenge) -> str:
        challenges.append(challenge)
        return "111111"

    client = KdcClient(realm.config, armor=armor(realm))
    token = Credential.from_otp("token@MIT.TEST", otp)
    tgt = client.get_tgt(token, require="fast")
    assert tgt.is_tgt
    assert str(client.get_ticket(token, "gsvc/localhost").client) == "token@MIT.TEST"
    assert len(challenges) == 1
    assert radius.seen[-1] == "token"
    with pytest.raises(PreauthFailedError, match="refused the one-time password"):
        client.get_tgt(token)


def test_asyncio(realm: OtpRealm) -> None:
    async def otp(challenge: OtpChallenge) -> str:
        return "222222"

    client = AsyncKdcClient(realm.config, armor=armor(realm))
    assert asyncio.run(client.get_tgt(Credential.from_otp("token@MIT.TEST", otp))).is_tgt


def test_kinit_asks_for_what_the_account_wants(
    realm: OtpRealm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    armor = realm.kinit("user")
    with Realm("EXAMPLE.TEST") as other:
        run = Commands(tmp_path, monkeypatch, capsys, other)
    monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
    done = run("kinit", "-T", f"FILE:{armor}", "token@MIT.TEST", stdin="333333")
    assert (done.code, done.err) == (0, "")
    wrong = run("kinit", "-T", f"FILE:{armor}", "token@MIT.TEST", stdin="000000")
    assert wrong.code == 3
    assert "refused the one-time password" in wrong.err
    password = run("kinit", "-T", f"FILE:{armor}", "pre@MIT.TEST", stdin="prepw")
    assert (password.code, password.err) == (0, "")
    open_ = run("kinit", "-T", f"FILE:{armor}", "user@MIT.TEST", stdin="userpw")
    assert (open_.code, open_.err) == (0, "")
