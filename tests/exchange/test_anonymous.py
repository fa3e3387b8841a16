"""Anonymous tickets (RFC 8062), and as the armor of FAST: both clients, the cache, the command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ArmorRequiredError,
    CertificateError,
    Config,
    Credential,
    Initiator,
    KdcClient,
    PreauthFailedError,
    PreauthUnsupportedError,
)
from purekrb.constants import PaDataType, TicketFlags
from purekrb.kdc.client import AsyncKdcClient
from purekrb.messages.kdc import AsReq
from purekrb.names import ANONYMOUS_REALM
from purekrb.testing import Realm
from purekrb.testing.kdc_pkinit import KdcPkinit
from support.values import replace

R, OTHER = "EXAMPLE.TEST", "OTHER.TEST"
NOBODY = f"WELLKNOWN/ANONYMOUS@{ANONYMOUS_REALM}"
Call = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """call(client options, method, ...) with a client of either kind."""

    def call(options: dict[str, Any], method: str, *args: Any, **more: Any) -> Any:
        if request.param == "blocking":
            return getattr(KdcClient(**options), method)(*args, **more)
        return asyncio.run(getattr(AsyncKdcClient(**options), method)(*args, **more))

    return call


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm(R, pkinit=True) as realm:
        realm.add_user("alice", "pw")
        realm.add_service("HTTP/web.example.test")
        yield realm


def test_nobody_gets_tickets(call: Call, realm: Realm) -> None:
    options = {"config": realm.config}
    nobody = Credential.anonymous(R)
    tgt = call(options, "get_tgt", nobody, require="strong")
    assert (str(tgt.client), tgt.is_tgt) == (NOBODY, True)
    assert tgt.flags & TicketFlags.ANONYMOUS
    ticket = call(options, "get_ticket", nobody, "HTTP/web.example.test")
    keytab = realm.keytab("HTTP/web.example.test")
    acceptor = Acceptor(keytab, accept_anonymous=True)
    acceptor.step(Initiator(ticket).step())
    assert str(acceptor.initiator) == NOBODY
    with pytest.raises(ApError, match="the client is anonymous"):
        Acceptor(keytab).step(Initiator(ticket).step())


def test_the_cache_keeps_the_realm_that_gave_the_ticket(realm: Realm, tmp_path: Path) -> None:
    nobody = Credential.anonymous(R)
    client = KdcClient(realm.config)
    client.get_tgt(nobody)
    nobody.save(tmp_path / "cc")
    loaded = Credential.from_ccache(tmp_path / "cc")
    assert str(loaded.ccache.principal) == NOBODY
    assert (loaded.ccache.realm, loaded.has_ticket()) == (R, True)
    assert loaded.ccache.get_config("start_realm") == R.encode()
    assert str(client.get_ticket(loaded, "HTTP/web.example.test").client) == NOBODY
    named = Credential.from_password(f"alice@{R}", "pw")
    client.get_tgt(named)
    assert (named.ccache.realm, named.ccache.get_config("start_realm")) == (R, None)
    named.ccache.begin_with(nobody.ccache.find(next(iter(nobody.ccache)).service))  # type: ignore[arg-type]
    assert named.ccache.realm == R


def test_a_renewed_anonymous_ticket_stays_anonymous(realm: Realm) -> None:
    nobody = Credential.anonymous(R)
    client = KdcClient(realm.config)
    client.get_tgt(nobody, renewable=86400.0)
    renewed = client.renew(nobody)
    assert (str(renewed.client), bool(renewed.flags & TicketFlags.ANONYMOUS)) == (NOBODY, True)


def test_an_anonymous_ticket_is_the_armor(call: Call, realm: Realm) -> None:
    seen: list[list[int]] = []
    handle = realm._kdc.handle

    def handled(request: bytes) -> bytes:
        seen.append([p.padata_type for p in AsReq.decode(request).padata or ()])
        return handle(request)

    realm._kdc.handle = handled  # type: ignore[method-assign]
    try:
        alice = Credential.from_password(f"alice@{R}", "pw")
        options = {"config": realm.config, "armor": "anonymous"}
        assert call(options, "get_tgt", alice, require="fast").is_tgt
        assert [types for types in seen if PaDataType.FX_FAST in types] == seen[2:]
        assert len(seen) == 4
        options = {"config": realm.config}
        assert call(options, "get_tgt", alice, require="fast", armor="anonymous").is_tgt
        wrong = Credential.from_password(f"alice@{R}", "wrong")
        with pytest.raises(PreauthFailedError):
            call(options, "get_tgt", wrong, armor="anonymous")
        with pytest.raises(ArmorRequiredError):
            call(options, "get_tgt", alice, require="fast")
    finally:
        realm._kdc.handle = handle  # type: ignore[method-assign]


def test_a_client_makes_one_armor_for_all_its_calls(realm: Realm) -> None:
    client = KdcClient(realm.config, armor="anonymous")
    alice = Credential.from_password(f"alice@{R}", "pw")
    client.get_tgt(alice)
    first = client._anonymous[R].ccache.find(next(iter(client._anonymous[R].ccache)).service)
    client.get_tgt(alice)
    assert client._anonymous[R].ccache.find(first.service) is first  # type: ignore[union-attr]


def test_a_floor_of_fast_does_not_stop_the_armor(realm: Realm) -> None:
    config = replace(realm.config, preauth_floor="fast")
    alice = Credential.from_password(f"alice@{R}", "pw")
    assert KdcClient(config, armor="anonymous").get_tgt(alice).is_tgt
    with pytest.raises(ArmorRequiredError):
        KdcClient(config).get_tgt(alice)


def test_a_referral_gets_an_armor_of_the_other_realm() -> None:
    with Realm(R, pkinit=True) as here, Realm(OTHER, pkinit=True) as there:
        here.trust(there)
        there.add_user("bob", "pw")
        client = KdcClient(here.config, armor="anonymous")
        bob = Credential.from_password(f"bob@{OTHER}", "pw", enterprise=True)
        bob.principal = replace(bob.principal, realm=R)
        tgt = client.get_tgt(bob, require="fast")
        assert str(tgt.client) == f"bob@{OTHER}"
        assert set(client._anonymous) == {R, OTHER}


def test_a_kdc_that_serves_nobody_is_told(call: Call) -> None:
    with Realm(R, pkinit=KdcPkinit(R, anonymous=False)) as realm:
        realm.add_user("alice", "pw")
        options = {"config": realm.config}
        with pytest.raises(PreauthUnsupportedError, match="to anonymous clients"):
            call(options, "get_tgt", Credential.anonymous(R))
        assert call(options, "get_tgt", realm.issue_certificate("alice")).is_tgt


def test_the_armor_of_an_impostor_is_refused_before_a_password_is_sent(realm: Realm) -> None:
    """Without the anchors, anyone could be the KDC; then the armor would protect nothing."""
    with Realm(R, pkinit=True) as impostor:
        impostor.add_user("alice", "pw")
        seen: list[bytes] = []
        handle = impostor._kdc.handle
        impostor._kdc.handle = lambda data: seen.append(data) or handle(data)  # type: ignore[method-assign,func-returns-value]
        servers = replace(impostor._servers, options=realm._servers.options)
        config = replace(impostor.config, realms={R: servers})
        alice = Credential.from_password(f"alice@{R}", "pw")
        with pytest.raises(CertificateError, match="does not lead to an anchor"):
            KdcClient(config, armor="anonymous").get_tgt(alice)
        assert all(AsReq.decode(data).req_body.cname.anonymous for data in seen)  # type: ignore[union-attr]
        config = impostor.config
        assert KdcClient(config, armor="anonymous").get_tgt(alice).is_tgt


def test_a_credential_of_nobody_has_its_own_anchors(realm: Realm) -> None:
    bare = replace(realm.config, realms={R: replace(realm._servers, options={})})
    alice = Credential.from_password(f"alice@{R}", "pw")
    armor = Credential.anonymous(R, anchors=realm.anchors.encode())
    assert KdcClient(bare, armor=armor).get_tgt(alice, require="fast").is_tgt
    with pytest.raises(CertificateError, match="no anchor is given"):
        KdcClient(bare, armor="anonymous").get_tgt(alice)
    assert repr(armor) == f"Credential(WELLKNOWN/ANONYMOUS@{R})"
    assert isinstance(bare, Config)
