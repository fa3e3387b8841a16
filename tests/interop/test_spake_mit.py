"""SPAKE with MIT's KDC: three openings, every group, and in FAST."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from purekrb import Config, Credential, KdcClient, PreauthFailedError
from purekrb.constants import SPAKE_GROUPS
from purekrb.kdc.client import AsyncKdcClient
from support.mit import MitRealm
from support.values import replace


class SpakeRealm(MitRealm):
    """A realm whose KDC has SPAKE; `challenge` is the group of its first challenge, or empty."""

    challenge = ""

    def _listen_on(self, port: int) -> None:
        super()._listen_on(port)
        groups = " ".join(SPAKE_GROUPS.values())
        text = self.krb5_conf.read_text()
        self.krb5_conf.write_text(
            text.replace("[libdefaults]", f"[libdefaults]\n spake_preauth_groups = {groups}", 1)
        )
        if self.challenge:
            text = self._kdc_conf.read_text()
            self._kdc_conf.write_text(
                f"[kdcdefaults]\n spake_preauth_kdc_challenge = {self.challenge}\n{text}"
            )

    def restart(self, challenge: str) -> None:
        self.stop()
        self.challenge = challenge
        self._listen_on(self.port)
        self.start()


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpakeRealm]:
    realm = SpakeRealm(tmp_path_factory.mktemp("spake"))
    try:
        yield realm
    finally:
        realm.stop()


def user(password: str = "prepw") -> Credential:
    return Credential.from_password("pre@MIT.TEST", password)


def with_group(config: Config, number: int) -> Config:
    return replace(config, spake_preauth_groups=(number,))


@pytest.mark.parametrize("number", SPAKE_GROUPS, ids=SPAKE_GROUPS.get)
def test_support_then_challenge_then_response(
    realm: SpakeRealm, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = KdcClient(with_group(realm.config, number))
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        assert client.get_tgt(user()).is_tgt
    assert caplog.text.count("AS-REQ to MIT.TEST") == 3
    assert f"PA-SPAKE in {SPAKE_GROUPS[number]}" in caplog.text
    with pytest.raises(PreauthFailedError):
        client.get_tgt(user("wrong"))


def test_support_unasked(realm: SpakeRealm, caplog: pytest.LogCaptureFixture) -> None:
    async def get() -> None:
        assert (await AsyncKdcClient(realm.config).get_tgt(user(), require="strong")).is_tgt

    with caplog.at_level("DEBUG", "purekrb.kdc"):
        asyncio.run(get())
    assert caplog.text.count("AS-REQ to MIT.TEST") == 2
    host = Credential.from_keytab(
        "host/localhost@MIT.TEST", realm.keytab("host/localhost@MIT.TEST")
    )
    assert KdcClient(realm.config).get_tgt(host, require="strong").is_tgt


def test_in_fast(realm: SpakeRealm, caplog: pytest.LogCaptureFixture) -> None:
    armor = Credential.from_password("user@MIT.TEST", "userpw")
    client = KdcClient(realm.config, armor=armor)
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        assert client.get_tgt(user(), require="fast").is_tgt
    assert "AS-REQ in FAST to MIT.TEST" in caplog.text


@pytest.mark.parametrize("name", SPAKE_GROUPS.values())
def test_the_kdcs_challenge_first(
    realm: SpakeRealm, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    realm.restart(name)
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        assert KdcClient(realm.config).get_tgt(user()).is_tgt
    assert caplog.text.count("AS-REQ to MIT.TEST") == 2
    other = next(number for number in SPAKE_GROUPS if SPAKE_GROUPS[number] != name)
    assert KdcClient(with_group(realm.config, other)).get_tgt(user()).is_tgt
