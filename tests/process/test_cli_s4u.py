"""`kvno -U`, `-I`, `-F` and `-P`: tickets in the name of a user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from purekrb import CCache, Principal
from purekrb.system import now
from purekrb.testing import Realm
from support.commands import Commands

FRONT, BACK, OTHER = (f"HTTP/{name}.example.test" for name in ("web", "back", "other"))
ALICE = Principal(("alice",), "EXAMPLE.TEST")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.add_service(FRONT, delegate_to=[BACK], trusted_to_auth=True)
        realm.add_service(BACK)
        realm.add_service(OTHER)
        yield realm


@pytest.fixture
def run(run: Commands) -> Commands:
    """With the service's TGT in the cache."""
    assert run("kinit", "-f", "-k", "-t", "keytab", FRONT).code == 0
    return run


def test_a_service_gets_tickets_in_the_name_of_a_user(run: Commands) -> None:
    for user in (("-U", "alice"), ("-I", "alice@example.test")):
        done = run("kvno", *user, "-k", "keytab", FRONT)
        assert (done.code, done.err) == (0, "")
        assert done.out == (
            f"{FRONT}@EXAMPLE.TEST: kvno = 1 (aes256-cts-hmac-sha1-96), keytab entry valid\n"
        )
    shown = json.loads(run("kvno", "--json", "-U", "alice", FRONT).out)
    assert (shown["client"], shown["service"]) == (str(ALICE), f"{FRONT}@EXAMPLE.TEST")
    assert [ticket.is_tgt for ticket in CCache.load(run.directory / "ccache")] == [True]


def test_a_service_acts_for_a_user_and_keeps_the_tickets_apart(run: Commands) -> None:
    done = run("kvno", "-U", "alice", "-P", "--out-cache", "FILE:acting", BACK)
    assert (done.code, done.err) == (0, "")
    acting = CCache.load(run.directory / "acting")
    assert (acting.principal, acting.get_config("proxy_impersonator")) == (
        ALICE,
        f"{FRONT}@EXAMPLE.TEST".encode(),
    )
    assert {str(ticket.service) for ticket in acting if ticket.client == ALICE} == {
        f"{FRONT}@EXAMPLE.TEST",
        f"{BACK}@EXAMPLE.TEST",
    }
    assert run("kvno", "-c", "FILE:acting", BACK).code == 0  # it serves for more
    refused = run("kvno", "-c", "FILE:acting", OTHER)
    assert refused.code == 6
    assert f"{FRONT}@EXAMPLE.TEST may not act for {ALICE} at {OTHER}@EXAMPLE.TEST" in refused.err


def test_a_refusal_ends_with_an_exit_code(run: Commands) -> None:
    refused = run("kvno", "-U", "alice", "-P", OTHER)
    assert (refused.code, refused.out) == (6, "")
    assert "may not act for" in refused.err
    assert run("kvno", "-U", "alice", "-P", BACK).code == 0


def test_a_certificate_names_the_user(run: Commands, realm: Realm) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now(), now() + timedelta(days=1)
    )
    certificate = made.sign(key, hashes.SHA256())
    realm._kdc.certificates[certificate.public_bytes(Encoding.DER)] = ALICE.name
    pem = run.directory / "alice.pem"
    pem.write_bytes(b"a text before it\n" + certificate.public_bytes(Encoding.PEM))
    shown = json.loads(run("kvno", "--json", "-F", str(pem), FRONT).out)
    assert shown["client"] == str(ALICE)
    pem.write_text("nothing")
    unreadable = run("kvno", "-F", str(pem), FRONT)
    assert unreadable.code == 7
    assert "cannot be read as a certificate" in unreadable.err
    assert run("kvno", "-F", "nothing.pem", FRONT).code == 7


def test_who_to_act_for_must_be_named(run: Commands) -> None:
    done = run("kvno", "-P", BACK)
    assert (done.code, done.out) == (2, "")
    assert "-P needs the user to act for: -U, -I or -F" in done.err
