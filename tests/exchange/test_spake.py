"""SPAKE with the embedded KDC: three openings, every group, both clients; what is loaded without it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Config,
    Credential,
    KdcClient,
    KdcError,
    PolicyError,
    PreauthFailedError,
)
from purekrb.constants import SPAKE_GROUPS, PaDataType
from purekrb.kdc.client import AsyncKdcClient
from purekrb.messages.kdc import AsReq
from purekrb.testing import Realm
from purekrb.testing.kdc_preauth import KDC_MECHANISMS
from purekrb.testing.kdc_spake import KdcSpake
from support.values import replace

Call = Callable[..., Any]
GROUPS = [pytest.param((number,), id=name) for number, name in SPAKE_GROUPS.items()]


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """call(config, method, ...) with a client of either kind."""

    def call(config: Config, method: str, *args: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return getattr(KdcClient(config), method)(*args, **options)
        return asyncio.run(getattr(AsyncKdcClient(config), method)(*args, **options))

    return call


def realm_with(spake: KdcSpake | None) -> Realm:
    realm = Realm("EXAMPLE.TEST", preauth_mechanisms=(*([spake] if spake else []), *KDC_MECHANISMS))
    realm.add_user("alice", "pw")
    return realm


def alice(password: str = "pw") -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", password)


def watch(realm: Realm) -> list[list[int]]:
    """Return a list of the padata-types of each request that comes."""
    found: list[list[int]] = []
    handle = realm._kdc.handle

    def handled(request: bytes) -> bytes:
        found.append([p.padata_type for p in AsReq.decode(request).padata or ()])
        return handle(request)

    realm._kdc.handle = handled  # type: ignore[method-assign]
    return found


SPAKE, COOKIE, REP = PaDataType.SPAKE, PaDataType.FX_COOKIE, PaDataType.ENC_PA_REP


@pytest.mark.parametrize("groups", GROUPS)
def test_the_kdc_may_send_its_challenge_first(call: Call, groups: tuple[int, ...]) -> None:
    with realm_with(KdcSpake(groups, challenge=True)) as realm:
        seen = watch(realm)
        assert call(realm.config, "get_tgt", alice()).is_tgt
        assert seen == [[REP], [COOKIE, SPAKE, REP]]
        with pytest.raises(PreauthFailedError):
            call(realm.config, "get_tgt", alice("wrong"))


@pytest.mark.parametrize("groups", GROUPS)
def test_the_client_may_have_to_say_what_it_supports(call: Call, groups: tuple[int, ...]) -> None:
    with realm_with(KdcSpake(groups)) as realm:
        seen = watch(realm)
        assert call(realm.config, "get_tgt", alice()).is_tgt
        assert seen == [[REP], [SPAKE, REP], [COOKIE, SPAKE, REP]]
        with pytest.raises(PreauthFailedError):
            call(realm.config, "get_tgt", alice("wrong"))


def test_where_nothing_weaker_will_do_the_client_says_so_at_once(call: Call) -> None:
    with realm_with(KdcSpake()) as realm:
        seen = watch(realm)
        assert call(realm.config, "get_tgt", alice(), require="strong").is_tgt
        assert seen == [[SPAKE, REP], [COOKIE, SPAKE, REP]]
    with realm_with(None) as realm:
        seen = watch(realm)
        with pytest.raises(PolicyError, match="PA-ENC-TIMESTAMP"):
            call(realm.config, "get_tgt", alice(), require="strong")
        assert seen == [[SPAKE, REP]]


def test_a_kdc_without_spake_is_told_from_one_that_is_talked_down(call: Call) -> None:
    with realm_with(None) as realm:
        with pytest.raises(PolicyError, match=r"the KDC does not offer PA-SPAKE, but .*kinit -T"):
            call(realm.config, "get_tgt", alice(), require="strong")
        assert call(realm.config, "get_tgt", alice()).is_tgt


def test_a_challenge_in_another_group_is_answered_with_what_is_supported(call: Call) -> None:
    with realm_with(KdcSpake((3, 2), challenge=True)) as realm:
        seen = watch(realm)
        config = replace(realm.config, spake_preauth_groups=(4, 2))
        assert call(config, "get_tgt", alice()).is_tgt
        assert seen == [[REP], [COOKIE, SPAKE, REP], [COOKIE, SPAKE, REP]]
        none_in_common = replace(realm.config, spake_preauth_groups=(4,))
        with pytest.raises(KdcError, match="no SPAKE group in common"):
            call(none_in_common, "get_tgt", alice())


def test_a_key_does_not_wait_for_spake(call: Call) -> None:
    with realm_with(KdcSpake()) as realm:
        keytab = realm.add_service("HTTP/web.example.test")
        web = Credential.from_keytab("HTTP/web.example.test@EXAMPLE.TEST", keytab)
        seen = watch(realm)
        assert call(realm.config, "get_tgt", web).is_tgt
        assert len(seen) == 1
        assert call(realm.config, "get_tgt", web, require="strong").is_tgt
        assert seen[1:] == [[SPAKE, REP], [COOKIE, SPAKE, REP]]


def test_spake_goes_through_fast_as_well(call: Call) -> None:
    spake = KdcSpake()
    with Realm("EXAMPLE.TEST", preauth_mechanisms=(spake,)) as realm:
        realm.add_user("alice", "pw")
        realm.add_user("open", "pw", preauth=False)
        armor = Credential.from_password("open@EXAMPLE.TEST", "pw")
        seen = watch(realm)
        assert call(realm.config, "get_tgt", alice(), armor=armor, require="fast").is_tgt
        assert seen[1:] == [[PaDataType.FX_FAST]] * 3


def test_krb5_conf_names_the_groups(tmp_path: Path) -> None:
    path = tmp_path / "krb5.conf"
    for text, groups in (
        ("", None),
        ("spake_preauth_groups = P-256", (2,)),
        ("spake_preauth_groups = P-521, edwards25519 unknown", (4, 1)),
    ):
        path.write_text(f"[libdefaults]\n {text}\n")
        assert Config.from_file(path).spake_preauth_groups == groups


def test_a_missing_package_is_named_where_it_is_needed() -> None:
    code = """
import sys
sys.modules["nacl"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "nacl" else found(name, *more)
from purekrb import UnsupportedError
from purekrb.crypto.spake_groups import available_groups, group
print(available_groups())
print(group(2).number)
try:
    group(1)
except UnsupportedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "(2, 3, 4)",
        "2",
        "the SPAKE group edwards25519 needs PyNaCl: run `pip install purekrb[spake]`",
    ]


def test_a_client_that_is_offered_no_spake_loads_nothing_of_it(tmp_path: Path) -> None:
    with realm_with(None) as realm:
        realm.write_krb5_conf(tmp_path / "krb5.conf")
        code = """
import sys
from purekrb import Config, Credential, KdcClient
client = KdcClient(Config.from_file(sys.argv[1]))
client.get_tgt(Credential.from_password("alice@EXAMPLE.TEST", "pw"))
print(sorted(name for name in sys.modules if "spake" in name or name == "nacl"))
"""
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "krb5.conf")],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["[]"]
