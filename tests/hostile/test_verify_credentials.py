"""A KDC that agrees with whatever password is guessed (K066 to K068, K401), against `verify_credentials`.

Who answers in the KDC's place can make a TGT for any password. Only a key that both the real KDC and this machine's
keytab hold tells them apart. Source: RFC 4120 3.1.5, 10.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    ApError,
    CCache,
    Config,
    Credential,
    CredentialError,
    DecodeError,
    KdcClient,
    KdcError,
    KerberosError,
    Keytab,
    PreauthFailedError,
    Principal,
    ProtocolError,
    ServiceUnknownError,
    verify_credentials,
)
from purekrb.constants import ErrorCode, NameType
from purekrb.exchanges.runner import KdcRequest
from purekrb.messages.ap import Ticket
from purekrb.system import now
from purekrb.testing import Realm
from support.kdc_stubs import TcpStub, frame, read_frame
from support.scripted_kdc import PASSWORD, REALM, ScriptedKdc
from support.values import replace

ALICE = Principal.parse("alice@R.TEST")
HOST = "host/here.r.test"


@pytest.fixture(scope="module")
def genuine() -> Iterator[Realm]:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "secret")
        realm.add_service(HOST)
        yield realm


@pytest.fixture(scope="module")
def fake(genuine: Realm) -> Iterator[Realm]:
    """A KDC of the same realm that knows what the attacker types, and services by the same names with its own keys."""
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "guess")
        realm.add_service(HOST)
        yield realm


def alice(password: str) -> Credential:
    return Credential.from_password(str(ALICE), password)


@pytest.fixture
def keytab(genuine: Realm, tmp_path: Path) -> Path:
    path = tmp_path / "keytab"
    genuine.keytab(HOST).save(path)
    return path


def login(
    realm: Realm, password: str, keytab: Keytab | Path | None, service: str | None = None
) -> Principal:
    return verify_credentials(alice(password), keytab, service=service, config=realm.config)


def refused(
    realm: Realm, password: str, keytab: Keytab | Path | None, service: str | None = None
) -> KerberosError:
    with pytest.raises(KerberosError) as caught:
        login(realm, password, keytab, service)
    return caught.value


# --- K066


def test_k066_a_spoofed_kdc_that_answers_with_the_guessed_password(
    genuine: Realm, fake: Realm, keytab: Path
) -> None:
    tgt = KdcClient(fake.config).get_tgt(alice("guess"))
    assert tgt.client == ALICE, "a TGT alone is no proof: the fake KDC gives one"
    for service in (None, HOST, f"{HOST}@R.TEST"):
        error = refused(fake, "guess", keytab, service)
        assert isinstance(error, ApError)
        assert error.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
        assert login(genuine, "secret", keytab, service) == ALICE


def test_k066_a_spoofed_kdc_that_knows_another_kvno_or_no_such_service(
    genuine: Realm, fake: Realm, keytab: Path
) -> None:
    fake.add_service("host/newer.r.test", kvno=2)
    fake.add_alias("host/alias.r.test", HOST)
    for service in ("host/newer.r.test", "host/alias.r.test"):
        assert isinstance(refused(fake, "guess", keytab, service), ApError)
    assert isinstance(refused(fake, "guess", keytab, "host/unknown.r.test"), ServiceUnknownError)
    assert login(genuine, "secret", keytab) == ALICE


def test_k066_a_wrong_password_at_the_genuine_kdc(genuine: Realm, keytab: Path) -> None:
    assert isinstance(refused(genuine, "guess", keytab), PreauthFailedError)
    assert login(genuine, "secret", keytab) == ALICE


def test_k066_a_tgt_that_the_client_brings_along_proves_nothing(
    genuine: Realm, fake: Realm, keytab: Path
) -> None:
    """A ticket for the host that a genuine KDC once gave does not vouch for a password that it was not asked for."""
    known = alice("secret")
    assert KdcClient(genuine.config).get_ticket(known, HOST)
    planted = Credential.from_password(str(ALICE), "guess")
    for ticket in known.ccache:
        planted.ccache.store(ticket)
    with pytest.raises(KerberosError):
        verify_credentials(planted, keytab, config=fake.config)
    with pytest.raises(KerberosError):
        verify_credentials(planted, keytab, config=genuine.config)
    assert verify_credentials(known, keytab, config=genuine.config) == ALICE


def test_k066_tickets_without_a_key_verify_nobody(genuine: Realm, keytab: Path) -> None:
    known = alice("secret")
    tgt = KdcClient(genuine.config).get_tgt(known)
    with pytest.raises(KerberosError):
        verify_credentials(
            Credential(ALICE, ccache=CCache(ALICE, [tgt])), keytab, config=genuine.config
        )
    assert verify_credentials(known, keytab, config=genuine.config) == ALICE


# --- K067


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user that file modes bind, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("password", ["secret", "guess"])
def test_k067_a_keytab_that_is_missing(
    genuine: Realm, fake: Realm, keytab: Path, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = keytab.with_name("missing")
    realm = genuine if password == "secret" else fake
    assert isinstance(refused(realm, password, missing), CredentialError)
    monkeypatch.setenv("KRB5_KTNAME", str(missing))
    assert isinstance(refused(realm, password, None), CredentialError)
    monkeypatch.setenv("KRB5_KTNAME", str(keytab))
    assert login(genuine, "secret", None) == ALICE


def test_k067_a_keytab_that_is_empty(genuine: Realm, fake: Realm, keytab: Path) -> None:
    empty = keytab.with_name("empty")
    empty.touch(0o600)
    for realm, password in ((genuine, "secret"), (fake, "guess")):
        assert isinstance(refused(realm, password, empty), DecodeError)
        error = refused(realm, password, Keytab())
        assert isinstance(error, CredentialError)
        assert "empty" in str(error)
        assert isinstance(refused(realm, password, Keytab(), HOST), KerberosError)
    assert login(genuine, "secret", keytab) == ALICE


def test_k067_a_keytab_that_cannot_be_read(genuine: Realm) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        keytab = Path(directory) / "keytab"
        genuine.keytab(HOST).save(keytab)
        if os.geteuid() == 0:
            os.chown(keytab, 65534, 65534)
        keytab.chmod(0)
        with as_nobody():
            assert isinstance(refused(genuine, "secret", keytab), CredentialError)
            keytab.chmod(0o600)
            assert login(genuine, "secret", keytab) == ALICE


@pytest.mark.parametrize("content", [b"\5\2", b"\5\2\0\0\0\0", b"text", b"\5\2\0\0\0\7"])
def test_k067_a_keytab_that_holds_nothing_or_is_damaged(
    genuine: Realm, keytab: Path, content: bytes
) -> None:
    bad = keytab.with_name("bad")
    bad.write_bytes(content)
    bad.chmod(0o600)
    assert isinstance(refused(genuine, "secret", bad), (CredentialError, DecodeError))
    assert login(genuine, "secret", keytab) == ALICE


# --- K068


def test_k068_a_keytab_of_an_old_kvno() -> None:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "secret")
        old = realm.add_service(HOST)
        new = realm.change_key(HOST)
        error = refused(realm, "secret", old)
        assert isinstance(error, ApError)
        assert error.code == ErrorCode.KRB_AP_ERR_BADKEYVER
        assert "export it again" in str(error)
        assert login(realm, "secret", new) == ALICE
        assert login(realm, "secret", old.merge(new)) == ALICE


def test_k068_a_keytab_with_another_key_of_the_same_kvno(genuine: Realm, fake: Realm) -> None:
    error = refused(genuine, "secret", fake.keytab(HOST))
    assert isinstance(error, ApError)
    assert error.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    assert login(genuine, "secret", genuine.keytab(HOST)) == ALICE


def test_k068_a_keytab_of_another_host(genuine: Realm) -> None:
    with Realm("R.TEST") as other:
        elsewhere = other.add_service("host/elsewhere.r.test")
        assert isinstance(refused(genuine, "secret", elsewhere), ServiceUnknownError)
        assert isinstance(refused(genuine, "secret", elsewhere, HOST), ApError)
    assert login(genuine, "secret", genuine.keytab(HOST)) == ALICE


def test_k068_a_keytab_with_an_nfs_key_alone() -> None:
    """Any key that the KDC shares proves it; one that it does not know proves nothing."""
    with Realm("R.TEST") as realm, Realm("R.TEST") as other:
        realm.add_user("alice", "secret")
        stranger = other.add_service("nfs/here.r.test")
        assert isinstance(refused(realm, "secret", stranger), ServiceUnknownError)
        realm.add_service("nfs/here.r.test")
        assert isinstance(refused(realm, "secret", stranger), ApError)
        assert isinstance(
            refused(realm, "secret", realm.keytab("nfs/here.r.test"), HOST), ServiceUnknownError
        )
        assert login(realm, "secret", realm.keytab("nfs/here.r.test")) == ALICE


def test_k068_one_usable_key_among_stale_ones_is_enough(genuine: Realm, fake: Realm) -> None:
    with Realm("R.TEST") as other:
        stale = Keytab()
        for number in range(4):
            stale = stale.merge(other.add_service(f"host/gone{number}.r.test"))
    mixed = stale.merge(genuine.keytab(HOST))
    assert login(genuine, "secret", mixed) == ALICE
    assert isinstance(refused(fake, "guess", mixed), (KdcError, ApError))


# --- K401

CLIENTS = [
    pytest.param(Principal.parse(f"root@{REALM}"), id="canonicalize"),
    pytest.param(Principal((f"root@{REALM}",), REALM, NameType.ENTERPRISE), id="enterprise"),
]


@pytest.fixture(scope="module")
def ours() -> Iterator[Realm]:
    with Realm(REALM) as realm:
        realm.add_user("root", "secret")
        realm.add_user("mallory", "mine")
        realm.add_service(HOST)
        yield realm


@pytest.fixture(scope="module")
def taken_over(ours: Realm) -> Iterator[Config]:
    """mallory, an ordinary account, in the KDC's place.

    It knows the password that is tried, as it typed it, says that the client is mallory, and hands out a genuine ticket
    of its own for the host.
    """
    mallory = Credential.from_password(f"mallory@{REALM}", "mine")
    own = KdcClient(ours.config).get_ticket(mallory, HOST)

    def part(genuine: Any) -> Any:
        return (
            replace(genuine, key=own.session_key) if genuine.sname == own.service.name else genuine
        )

    def ticket(genuine: Any) -> Any:
        return Ticket.decode(own.ticket) if genuine.sname == own.service.name else genuine

    kdc = ScriptedKdc(clock=now, canonical=mallory.principal, part=part, ticket=ticket)

    def answer(_stub: TcpStub, connection: Any) -> None:
        connection.sendall(frame(kdc(KdcRequest(REALM, read_frame(connection)))))

    with TcpStub(answer) as stub:
        yield Config(realms={REALM: [stub.url]}, dns_lookup_kdc=False, canonicalize=True)


@pytest.mark.parametrize("client", CLIENTS)
def test_k401_an_account_in_the_kdcs_place_does_not_pass_for_the_client(
    ours: Realm, taken_over: Config, client: Principal
) -> None:
    keytab = ours.keytab(HOST)
    guess = Credential.from_password(client, PASSWORD)
    with pytest.raises(CredentialError, match=f"vouches for mallory@{REALM}, not for root"):
        verify_credentials(guess, keytab, config=taken_over)
    assert not list(guess.ccache), "a login that is refused leaves no ticket of somebody else"
    assert guess.ccache.principal == client
    # Who permits any name is told whose ticket it was, and so does not take it for root's.
    assert (
        str(verify_credentials(guess, keytab, config=taken_over, accept_canonical=True))
        == f"mallory@{REALM}"
    )

    canonicalize = dataclasses.replace(ours.config, canonicalize=True)
    genuine = Credential.from_password(client, "secret")
    permitted = client.name_type == NameType.ENTERPRISE
    got = verify_credentials(genuine, keytab, config=canonicalize, accept_canonical=permitted)
    assert str(got) == f"root@{REALM}"
    assert genuine.ccache.principal == got


def test_k401_without_canonicalize_another_clients_reply_is_no_reply(
    ours: Realm, taken_over: Config
) -> None:
    config = dataclasses.replace(taken_over, canonicalize=False)
    for accept_canonical in (False, True):
        with pytest.raises(ProtocolError, match="another client"):
            verify_credentials(
                Credential.from_password(f"root@{REALM}", PASSWORD),
                ours.keytab(HOST),
                config=config,
                accept_canonical=accept_canonical,
            )


@pytest.mark.parametrize(
    ("typed", "account", "same"),
    [
        ("ALICE", "alice", True),
        ("Alice/Admin", "alice/admin", True),
        ("al", "alice", False),
        ("alice", "alice/admin", False),
        ("alice/admin", "alice", False),
        ("straße", "strasse", False),
        ("\u212aelvin", "kelvin", False),
        ("ÄRGER", "ärger", False),
    ],
)
def test_k401_of_canonical_names_the_case_of_ascii_letters_alone_may_differ(
    typed: str, account: str, same: bool
) -> None:
    with Realm("R.TEST") as realm:
        realm.add_user(account, "secret")
        realm.add_alias(typed, account)
        keytab = realm.add_service(HOST)
        config = dataclasses.replace(realm.config, canonicalize=True)

        def check(accept_canonical: bool) -> str:
            credential = Credential.from_password(f"{typed}@R.TEST", "secret")
            return str(
                verify_credentials(
                    credential, keytab, config=config, accept_canonical=accept_canonical
                )
            )

        assert check(True) == f"{account}@R.TEST"
        if same:
            assert check(False) == f"{account}@R.TEST"
        else:
            with pytest.raises(CredentialError, match="accept_canonical"):
                check(False)
