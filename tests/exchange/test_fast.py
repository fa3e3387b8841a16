"""FAST and the encrypted challenge with the embedded KDC, blocking and asyncio; and what is loaded without them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from purekrb import (
    ArmorRequiredError,
    CCache,
    ConfigError,
    Credential,
    CredentialError,
    KdcClient,
    PolicyError,
    PreauthFailedError,
    ServiceUnknownError,
)
from purekrb.constants import PaDataType
from purekrb.kdc.client import AsyncKdcClient
from purekrb.messages.kdc import AsReq, TgsReq
from purekrb.testing import Realm
from support.values import replace

WEB = "HTTP/web.example.test"
Call = Callable[..., Any]


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.add_user("host", "hostpw")
        realm.add_service(WEB)
        yield realm


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """call(method, *arguments, of=(config,), ...) with a client of either kind."""

    def call(config: Any, method: str, *args: Any, client: Any = None, **options: Any) -> Any:
        if request.param == "blocking":
            return getattr(KdcClient(config, **(client or {})), method)(*args, **options)
        made = AsyncKdcClient(config, **(client or {}))
        return asyncio.run(getattr(made, method)(*args, **options))

    return call


@pytest.fixture
def seen(realm: Realm) -> list[AsReq | TgsReq]:
    """The requests that reach the KDC."""
    found: list[AsReq | TgsReq] = []
    handle = realm._kdc.handle

    def watch(request: bytes) -> bytes:
        kind = AsReq if request[:1] == b"\x6a" else TgsReq
        found.append(kind.decode(request))
        return handle(request)

    realm._kdc.handle = watch  # type: ignore[method-assign]
    return found


def alice() -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", "pw")


def host() -> Credential:
    return Credential.from_password("host@EXAMPLE.TEST", "hostpw")


def kinds(request: AsReq | TgsReq) -> list[int]:
    return [entry.padata_type for entry in request.padata or ()]


def test_nothing_but_the_armor_is_outside_of_it(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    armor = host()
    call(realm.config, "get_tgt", armor)
    del seen[:]
    user = alice()
    assert call(realm.config, "get_tgt", user, armor=armor, require="fast").is_tgt
    assert [kinds(request) for request in seen] == [[PaDataType.FX_FAST]] * 2
    del seen[:]
    ticket = call(realm.config, "get_ticket", user, WEB, client={"armor": armor})
    assert str(ticket.service) == f"{WEB}@EXAMPLE.TEST"
    assert [kinds(request) for request in seen] == [[PaDataType.TGS_REQ, PaDataType.FX_FAST]]


def test_without_an_armor_messages_are_as_ever(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    call(realm.config, "get_ticket", alice(), WEB)
    assert not any(PaDataType.FX_FAST in kinds(request) for request in seen)


def test_an_armor_of_tickets_gets_no_ticket_of_its_own(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    armor = host()
    call(realm.config, "get_tgt", armor)
    tickets = CCache.decode(armor.ccache.encode())
    del seen[:]
    assert call(realm.config, "get_tgt", alice(), armor=tickets).is_tgt
    assert len(seen) == 2
    with pytest.raises(Exception, match=r"host@EXAMPLE\.TEST has neither a valid ticket nor a key"):
        call(realm.config, "get_tgt", alice(), armor=CCache("host@EXAMPLE.TEST"))


def test_a_client_with_an_armor_gets_the_armors_ticket_once(
    realm: Realm, seen: list[AsReq | TgsReq]
) -> None:
    client = KdcClient(realm.config, armor=host())
    for _ in range(3):
        client.get_tgt(alice())
    assert [kinds(request) == [PaDataType.FX_FAST] for request in seen] == [False] * 2 + [True] * 6


def test_a_key_proves_itself_with_the_first_request(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    armor = host()
    call(realm.config, "get_tgt", armor)
    web = Credential.from_keytab(f"{WEB}@EXAMPLE.TEST", realm.keytab(WEB))
    del seen[:]
    assert call(realm.config, "get_tgt", web, armor=armor).is_tgt
    assert len(seen) == 1


def test_the_kdcs_words_come_out_of_the_armor(realm: Realm, call: Call) -> None:
    client = {"armor": host()}
    with pytest.raises(PreauthFailedError):
        call(
            realm.config,
            "get_tgt",
            Credential.from_password("alice@EXAMPLE.TEST", "no"),
            client=client,
        )
    with pytest.raises(ServiceUnknownError):
        call(realm.config, "get_ticket", alice(), "HTTP/nowhere", client=client)
    assert call(realm.config, "get_ticket", alice(), WEB, client=client)


# -- the floor


def test_an_error_says_that_it_is_about_the_armor(realm: Realm, call: Call) -> None:
    wrong = Credential.from_password("host@EXAMPLE.TEST", "nope")
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    with pytest.raises(PreauthFailedError, match=r"^there is no armor for FAST: wrong password"):
        call(realm.config, "get_tgt", alice, client={"armor": wrong})
    empty = CCache(wrong.principal)
    with pytest.raises(CredentialError, match=r"^there is no armor for FAST: "):
        call(realm.config, "get_tgt", alice, client={"armor": empty})
    right = Credential.from_password("host@EXAMPLE.TEST", "hostpw")
    assert call(realm.config, "get_tgt", alice, client={"armor": right}).client == alice.principal


def test_a_floor_that_does_not_exist_is_refused(realm: Realm, call: Call) -> None:
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    with pytest.raises(ValueError, match='require is "fast", "strong" or None, not'):
        call(realm.config, "get_tgt", alice, require="spake")
    assert call(realm.config, "get_tgt", alice).client == alice.principal


def test_the_strictest_floor_counts(realm: Realm, call: Call) -> None:
    config = realm.config
    options = {"preauth_floor": ("strong",)}
    of_realm = replace(
        config, realms={"EXAMPLE.TEST": replace(config.realm("EXAMPLE.TEST"), options=options)}
    )
    strong = alice()
    strong.require = "strong"
    for settings, credential, require, error in (
        (config, alice(), "fast", ArmorRequiredError),
        (replace(config, preauth_floor="fast"), alice(), None, ArmorRequiredError),
        (replace(config, preauth_floor="fast"), strong, "strong", ArmorRequiredError),
        (config, strong, None, PolicyError),
        (config, alice(), "strong", PolicyError),
        (of_realm, alice(), None, PolicyError),
    ):
        with pytest.raises(PolicyError) as caught:
            call(settings, "get_tgt", credential, require=require)
        assert type(caught.value) is error
        armored = call(settings, "get_tgt", credential, require=require, armor=_armor(config))
        assert armored.is_tgt
    assert call(config, "get_tgt", alice()).is_tgt


def _armor(config: Any) -> CCache:
    """Return tickets for an armor, got without a floor."""
    credential = host()
    KdcClient(config).get_tgt(credential)
    return credential.ccache


def test_krb5_conf_sets_the_floor(realm: Realm, tmp_path: Any) -> None:
    path = tmp_path / "krb5.conf"
    realm.write_krb5_conf(path)
    plain = path.read_text()
    for text, floor in (
        (plain, None),
        (plain.replace("[libdefaults]", "[libdefaults]\n preauth_floor = strong"), "strong"),
        (plain.replace("EXAMPLE.TEST = {", "EXAMPLE.TEST = {\n preauth_floor = fast"), "fast"),
        (
            plain.replace("EXAMPLE.TEST = {", "EXAMPLE.TEST = {\n disable_encrypted_timestamp = 1"),
            "strong",
        ),
    ):
        path.write_text(text)
        assert type(realm.config).from_file(path).requirement("EXAMPLE.TEST") == floor
    path.write_text(
        plain.replace("EXAMPLE.TEST = {", "EXAMPLE.TEST = {\n preauth_floor = stronger")
    )
    with pytest.raises(ConfigError, match="write fast or strong"):
        KdcClient(type(realm.config).from_file(path)).get_tgt(alice())


def test_an_account_without_preauthentication_is_not_taken_below_the_floor(
    realm: Realm, call: Call
) -> None:
    realm.add_user("open", "pw", preauth=False)
    user = Credential.from_password("open@EXAMPLE.TEST", "pw")
    with pytest.raises(PolicyError, match="without pre-authentication"):
        call(realm.config, "get_tgt", user, require="strong")
    assert call(realm.config, "get_tgt", user).is_tgt


def test_the_floor_of_a_service_ticket_is_that_of_its_tgt(realm: Realm, call: Call) -> None:
    user = alice()
    user.require = "strong"
    with pytest.raises(PolicyError):
        call(realm.config, "get_ticket", user, WEB)
    assert call(realm.config, "get_ticket", user, WEB, client={"armor": host()})


# -- what is loaded


def test_a_client_without_an_armor_loads_nothing_of_fast(realm: Realm, tmp_path: Any) -> None:
    realm.write_krb5_conf(tmp_path / "krb5.conf")
    code = """
import sys
from purekrb import Config, Credential, KdcClient
config = Config.from_file(sys.argv[1])
client = KdcClient(config)
user = Credential.from_password("alice@EXAMPLE.TEST", "pw")
client.get_ticket(user, "HTTP/web.example.test")
fast = {name for name in sys.modules if "fast" in name or "challenge" in name}
print(sorted(name for name in fast if name.startswith("purekrb")))
client.get_tgt(user, armor=user.ccache)
print("purekrb.exchanges.fast" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "krb5.conf")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "True"]
