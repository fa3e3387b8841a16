"""FAST and the encrypted challenge with the KDCs of MIT, Heimdal and Samba."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from purekrb import (
    ArmorRequiredError,
    CCache,
    ClientUnknownError,
    Config,
    Credential,
    KdcClient,
    KdcError,
    PolicyError,
    PreauthFailedError,
    ServiceUnknownError,
)
from purekrb.constants import TicketFlags
from purekrb.kdc.client import AsyncKdcClient
from support.heimdal import HeimdalRealm
from support.mit import MitRealm
from support.samba import SambaDc
from support.values import replace


@dataclass(frozen=True)
class Peer:
    """A KDC, a user that must pre-authenticate, another one for the armor, and a service."""

    config: Config
    user: Callable[[], Credential]
    wrong: Callable[[], Credential]
    armor: Callable[[], Credential]
    service: str


@pytest.fixture(params=["mit", "heimdal", "samba"])
def peer(request: pytest.FixtureRequest) -> Peer:
    if request.param == "mit":
        mit: MitRealm = request.getfixturevalue("mit_realm")
        return Peer(
            mit.config,
            lambda: Credential.from_password("pre@MIT.TEST", "prepw"),
            lambda: Credential.from_password("pre@MIT.TEST", "wrong"),
            lambda: Credential.from_keytab(
                "host/localhost@MIT.TEST", mit.keytab("host/localhost@MIT.TEST")
            ),
            "gsvc/localhost",
        )
    if request.param == "heimdal":
        heimdal: HeimdalRealm = request.getfixturevalue("heimdal_realm")
        return Peer(
            Config.from_file(heimdal.krb5_conf),
            lambda: Credential.from_password("pre@HEIM.TEST", "prepw"),
            lambda: Credential.from_password("pre@HEIM.TEST", "wrong"),
            lambda: Credential.from_password("user@HEIM.TEST", "userpw"),
            "gsvc/localhost",
        )
    samba: SambaDc = request.getfixturevalue("samba_dc")
    for name in ("fast-user", "fast-armor"):
        samba.add_user(name)
    samba.add_computer("FASTWEB", servicePrincipalName=["HTTP/fastweb.ad.test"])
    return Peer(
        samba.config,
        lambda: Credential.from_password(f"fast-user@{samba.realm}", samba.password),
        lambda: Credential.from_password(f"fast-user@{samba.realm}", "wrong"),
        lambda: Credential.from_password(f"fast-armor@{samba.realm}", samba.password),
        "HTTP/fastweb.ad.test",
    )


def test_an_armor_protects_the_way_to_a_service(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    user = peer.user()
    client = KdcClient(peer.config, armor=peer.armor())
    with caplog.at_level("DEBUG", "purekrb"):
        tgt = client.get_tgt(user, require="fast")
        ticket = client.get_ticket(user, peer.service)
    assert tgt.client == ticket.client == user.principal
    assert tgt.flags & TicketFlags.PRE_AUTHENT
    assert f"asks for {tgt.service}, PA-ENCRYPTED-CHALLENGE" in caplog.text.replace("in FAST, ", "")
    assert f"TGS-REQ in FAST to {tgt.service.realm}" in caplog.text
    assert user.ccache.get_config("fast_avail", tgt.service) == b"yes"


def test_asyncio_does_the_same(peer: Peer) -> None:
    async def both() -> None:
        user = peer.user()
        client = AsyncKdcClient(peer.config, armor=peer.armor())
        assert (await client.get_tgt(user, require="strong")).client == user.principal
        assert (await client.get_ticket(user, peer.service)).client == user.principal

    asyncio.run(both())


def test_errors_in_the_armor_are_those_of_the_kdc(peer: Peer) -> None:
    armor = peer.armor()
    client = KdcClient(peer.config, armor=armor)
    with pytest.raises(PreauthFailedError):
        client.get_tgt(peer.wrong())
    unknown = Credential.from_password(f"nobody@{armor.principal.realm}", "pw")
    with pytest.raises(ClientUnknownError):
        client.get_tgt(unknown)
    user = peer.user()
    with pytest.raises(ServiceUnknownError):
        client.get_ticket(user, "HTTP/nowhere.example")
    assert client.get_ticket(user, peer.service).client == user.principal


def test_the_armor_may_be_a_ccache_of_tickets_alone(peer: Peer) -> None:
    armor = peer.armor()
    KdcClient(peer.config).get_tgt(armor)
    tickets = CCache.decode(armor.ccache.encode())
    user = peer.user()
    assert KdcClient(peer.config).get_tgt(user, armor=tickets, require="fast").is_tgt


def test_a_floor_without_an_armor_is_not_gone_below(peer: Peer) -> None:
    client = KdcClient(peer.config)
    with pytest.raises(ArmorRequiredError, match="nothing was sent"):
        client.get_tgt(peer.user(), require="fast")
    with pytest.raises(PolicyError, match="PA-ENC-TIMESTAMP"):
        client.get_tgt(peer.user(), require="strong")
    user = peer.user()
    user.require = "strong"
    with pytest.raises(PolicyError, match="PA-ENC-TIMESTAMP"):
        client.get_ticket(user, peer.service)
    assert client.get_tgt(peer.user()).is_tgt


def test_a_keys_challenge_goes_with_the_first_request(
    mit_realm: MitRealm, caplog: pytest.LogCaptureFixture
) -> None:
    host = Credential.from_keytab(
        "host/localhost@MIT.TEST", mit_realm.keytab("host/localhost@MIT.TEST")
    )
    armor = Credential.from_password("pre@MIT.TEST", "prepw")
    client = KdcClient(mit_realm.config)
    client.get_tgt(armor)
    with caplog.at_level("DEBUG", "purekrb"):
        assert client.get_tgt(host, armor=armor, require="fast").is_tgt
    assert caplog.text.count("AS-REQ in FAST to MIT.TEST: host/localhost") == 1


def test_the_armor_of_another_realm_crosses_to_the_clients(mit_realm: MitRealm) -> None:
    other = "armor@SUB.TEST"
    mit_realm.addprinc(other, realm="SUB.TEST", password="armorpw")
    armor = Credential.from_password(other, "armorpw")
    user = Credential.from_password("pre@MIT.TEST", "prepw")
    client = KdcClient(mit_realm.config, armor=armor)
    assert client.get_tgt(user, require="fast").client == user.principal
    used = [str(ticket.service) for ticket in armor.ccache]
    assert used == ["krbtgt/SUB.TEST@SUB.TEST", "krbtgt/MIT.TEST@SUB.TEST"]


def test_a_realm_that_switched_timestamps_off_is_entered_in_fast_alone(mit_realm: MitRealm) -> None:
    options = {"disable_encrypted_timestamp": ("true",)}
    realms = dict(mit_realm.config.realms)
    realms["MIT.TEST"] = replace(realms["MIT.TEST"], options=options)
    config = replace(mit_realm.config, realms=realms)
    user = Credential.from_password("pre@MIT.TEST", "prepw")
    with pytest.raises(PolicyError):
        KdcClient(config).get_tgt(user)
    armor = Credential.from_keytab(
        "host/localhost@MIT.TEST", mit_realm.keytab("host/localhost@MIT.TEST")
    )
    KdcClient(mit_realm.config).get_tgt(armor)
    assert KdcClient(config, armor=armor).get_tgt(user).is_tgt


def test_an_armor_that_the_kdc_cannot_open_is_not_called_a_wrong_password(
    mit_realm: MitRealm,
) -> None:
    host = Credential.from_keytab(
        "host/localhost@MIT.TEST", mit_realm.keytab("host/localhost@MIT.TEST")
    )
    armor_tgt = KdcClient(mit_realm.config).get_tgt(host)
    user = Credential.from_password("pre@MIT.TEST", "prepw")
    assert KdcClient(mit_realm.config, armor=host).get_tgt(user).is_tgt
    broken = replace(armor_tgt, ticket=armor_tgt.ticket[:-4] + bytes(4))
    armor = Credential.from_ccache(CCache(broken.client, [broken]))
    with pytest.raises(KdcError, match=r"^the KDC refused the armor, not") as caught:
        KdcClient(mit_realm.config, armor=armor).get_tgt(user)
    assert not isinstance(caught.value, PreauthFailedError)


def test_mits_programs_know_from_our_cache_that_the_kdc_has_fast(
    mit_realm: MitRealm, tmp_path: object
) -> None:
    user = Credential.from_password("pre@MIT.TEST", "prepw")
    KdcClient(mit_realm.config).get_tgt(user)
    path = mit_realm.path(".cc")
    user.save(path)
    assert "fast_avail(krbtgt/MIT.TEST@MIT.TEST) = yes" in mit_realm.klist(path, "-C")
