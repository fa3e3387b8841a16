"""`kinit -n`: an anonymous ticket, and its cache as an armor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from purekrb import Principal
from purekrb.testing import Realm
from support.canaries import PASSWORD
from support.commands import Commands

NOBODY = "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST", pkinit=True) as realm:
        realm.add_user("alice", PASSWORD)
        realm.add_service("HTTP/web.example.test")
        yield realm


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realm: Realm,
) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys, realm)


@pytest.mark.parametrize("principal", [[], ["@EXAMPLE.TEST"]], ids=["default", "named"])
def test_a_ticket_of_nobody(run: Commands, principal: list[str]) -> None:
    done = run("kinit", "-n", *principal)
    assert (done.code, NOBODY in done.out) == (0, True)
    assert run("kvno", "HTTP/web.example.test").code == 0
    listed = run("klist", "-f")
    assert f"Default principal: {NOBODY}" in listed.out
    assert run("klist", "-s").code == 0
    in_fast = run("kinit", "alice", "-T", "FILE:ccache", "-c", "FILE:other", stdin=PASSWORD)
    assert in_fast.code == 0


def test_a_ticket_is_got_as_the_one_in_another_cache(run: Commands, realm: Realm) -> None:
    assert run("kinit", "-n", "-c", "FILE:nobody").code == 0
    again = run("kinit", "-I", "FILE:nobody", "-c", "FILE:again")
    assert (again.code, NOBODY in again.out) == (0, True)
    authority = realm._own_pkinit.authority
    made = authority.issue("alice", Principal.parse("alice@EXAMPLE.TEST"))
    key: Any = made._key
    pem = key._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both = run.directory / "alice.pem"
    both.write_bytes(made.certificate.public_bytes(Encoding.PEM) + pem)
    both.chmod(0o600)
    first = run("kinit", "alice", "-X", f"X509_user_identity=FILE:{both}", "-c", "FILE:first")
    assert first.code == 0
    again = run("kinit", "-I", "FILE:first", "-c", "FILE:again")
    assert (again.code, "alice@EXAMPLE.TEST" in again.out) == (0, True)
    # A cache that says nothing of it leads to the password.
    assert run("kinit", "alice", "-c", "FILE:typed", stdin=PASSWORD).code == 0
    assert run("kinit", "-I", "FILE:typed", "-c", "FILE:again", stdin=PASSWORD).code == 0
    assert run("kinit", "-I", "FILE:missing").code == 7


def test_nobody_has_no_name(run: Commands) -> None:
    for named in ("alice", "alice@EXAMPLE.TEST", "@"):
        refused = run("kinit", "-n", named)
        assert refused.code == 7
        assert "write @REALM" in refused.err
