"""Certificates whose keys a smart card holds: SoftHSM's PKCS#11 module, RSA and elliptic curves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from purekrb import CertificateError, Credential, Principal
from purekrb.credentials.identities import open_identity
from purekrb.credentials.smartcard import from_token
from support.canaries import printed, search, shown
from support.pki import KP_CLIENT, Issued, authority, rsa_key, san_of, upn
from support.softhsm import PIN, SO_PIN, SoftHsm

CA = authority()
ALICE = Principal.parse("alice@X.TEST")


def issue(name: str, *names: object, key: object = None) -> Issued:
    return CA.issue(name, *(names or (san_of("alice@X.TEST"),)), purposes=[KP_CLIENT], key=key)  # type: ignore[arg-type]


RSA = issue("alice with RSA", key=rsa_key())
EC = issue("alice on a curve")
P384 = issue("alice on P-384", key=ec.generate_private_key(ec.SECP384R1()))
BOB = issue("bob", san_of("bob@X.TEST"))
CAROL = issue("carol", upn("carol@mail.example"))


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    made = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        for token in ("rsa", "ec", "p384", "several", "mixed up", "empty", "spoilt", "no key"):
            made.new_token(token)
        made.put("rsa", RSA, label="card", id_=b"\x01")
        made.put("ec", EC, label="card", id_=b"\x02")
        made.put("p384", P384, label="card", id_=b"\x02")
        for number, issued in enumerate((EC, BOB, CAROL)):
            made.put("several", issued, label=f"number {number}", id_=bytes([0xA0 + number]))
        made.put("several", CA, label="CA", id_=b"\xff", key=False)
        made.put("mixed up", EC, label="card", id_=b"\x01", key=BOB.key)
        made.put("spoilt", EC, label="card", id_=b"\x01")
        made.put("no key", EC, label="card", id_=b"\x01", key=False)
        yield made
        made.close()


def ask(_prompt: str) -> str:
    return PIN


def test_a_card_signs_by_rsa(hsm: SoftHsm) -> None:
    found = from_token(hsm.module, token="rsa", pin=ask)
    assert found.certificate == RSA.certificate
    algorithm, signature = found.sign(b"data")
    assert algorithm == bytes.fromhex("300d06092a864886f70d01010b0500")
    RSA.key.public_key().verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())
    assert found.identity == f"PKCS11:module_name={hsm.module}:token=rsa:certid=01"
    found.wipe()
    with pytest.raises(CertificateError, match="was wiped"):
        found.sign(b"data")


def test_a_card_signs_by_ecdsa(hsm: SoftHsm) -> None:
    for token, issued, hash_ in (("ec", EC, hashes.SHA256()), ("p384", P384, hashes.SHA384())):
        found = from_token(hsm.module, token=token, pin=ask)
        _, signature = found.sign(b"data")
        issued.key.public_key().verify(signature, b"data", ec.ECDSA(hash_))
        found.wipe()


def test_a_credential_is_made_from_a_card(hsm: SoftHsm) -> None:
    found = Credential.from_pkcs11(None, hsm.module, "ec", pin=ask, anchors=CA.pem)
    assert found.principal == ALICE
    assert found.certificate is not None
    assert found.kdc_trust is not None
    assert found.certificate.sign(b"data")
    found.wipe()
    named = Credential.from_pkcs11("bob@X.TEST", hsm.module, "several", pin=ask)
    assert named.certificate is not None
    assert named.certificate.certificate == BOB.certificate
    named.wipe()


@pytest.mark.parametrize(
    ("identity", "issued"),
    [
        ("PKCS11:{module}:token=rsa", RSA),
        ("PKCS11:module_name={module}:token=several:certlabel=number 1", BOB),
        ("PKCS11:{module}:token=several:certid=a2", CAROL),
    ],
)
def test_an_identity_string_names_a_card(hsm: SoftHsm, identity: str, issued: Issued) -> None:
    found = open_identity(identity.format(module=hsm.module), ask=ask)
    assert found.certificate == issued.certificate
    found.wipe()


def test_the_principal_or_a_rule_chooses_among_several(hsm: SoftHsm) -> None:
    carol = Principal.parse("carol@MAIL.EXAMPLE")
    for options, issued in (
        ({"principal": ALICE}, EC),
        ({"principal": carol}, CAROL),
        ({"rules": ["<SUBJECT>CN=bob"]}, BOB),
        ({"rules": ["<SUBJECT>nobody", "<SAN>carol@mail.example"]}, CAROL),
        ({"label": "number 1"}, BOB),
        ({"certid": b"\xa2"}, CAROL),
    ):
        found = from_token(hsm.module, token="several", pin=ask, **options)  # type: ignore[arg-type]
        assert found.certificate == issued.certificate
        found.wipe()
    with pytest.raises(
        CertificateError, match=r"several certificates that fit: .*number 0 \(id a0"
    ):
        from_token(hsm.module, token="several", pin=ask)


def test_what_is_not_on_the_card_costs_no_pin(hsm: SoftHsm) -> None:
    def never(_prompt: str) -> str:
        raise AssertionError

    for options, said in (
        ({"token": "nobody's"}, "has no token called nobody's: insert the card"),
        ({"slot": 12345, "token": "ec"}, "has no token called ec in slot 12345"),
        ({}, "has several tokens: name one of"),
        ({"token": "ec", "certid": b"\x77"}, r"no certificate of that label or id: it has card"),
        ({"token": "ec", "label": "other"}, "no certificate of that label or id"),
    ):
        with pytest.raises(CertificateError, match=said):
            from_token(hsm.module, pin=never, **options)  # type: ignore[arg-type]
    with pytest.raises(
        CertificateError, match=r"the PKCS#11 module /no/such.so cannot be loaded: "
    ):
        from_token("/no/such.so", pin=never)
    with pytest.raises(CertificateError, match="needs a PIN: pass pin="):
        from_token(hsm.module, token="ec")


def test_a_card_without_a_usable_pair_is_told(hsm: SoftHsm) -> None:
    with pytest.raises(
        CertificateError, match=r"no certificate with its private key; .* none at al"
    ):
        from_token(hsm.module, token="empty", pin=ask)
    with pytest.raises(CertificateError, match=r"no certificate with its private key; .* card \("):
        from_token(hsm.module, token="no key", pin=ask)
    found = from_token(hsm.module, token="mixed up", pin=ask)
    with pytest.raises(CertificateError, match="signs with another key than that of the certific"):
        found.sign(b"data")
    found.wipe()


def test_a_wrong_pin_is_tried_once_and_told(hsm: SoftHsm) -> None:
    prompts = []

    def wrong(prompt: str) -> str:
        prompts.append(prompt)
        return "canary-wrong-0815"

    with pytest.raises(CertificateError, match="the PIN of the token spoilt is wrong") as caught:
        from_token(hsm.module, token="spoilt", pin=wrong)
    assert prompts == ["PIN of the token spoilt"]
    assert "tries are left" in str(caught.value)  # SoftHSM says that one was wrong
    with pytest.raises(CertificateError, match="no PIN of the token spoilt was given"):
        from_token(hsm.module, token="spoilt", pin=lambda _prompt: "")
    found = from_token(hsm.module, token="spoilt", pin=ask)
    assert found.sign(b"data")
    found.wipe()


def test_several_threads_and_two_credentials_share_a_card(hsm: SoftHsm) -> None:
    first = from_token(hsm.module, token="ec", pin=ask)
    second = from_token(hsm.module, token="ec", pin=ask)
    failures: list[BaseException] = []

    def work(which: int) -> None:
        try:
            for _ in range(5):
                (first, second)[which % 2].sign(b"data")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    first.wipe()
    second.wipe()


def test_no_pin_is_shown(hsm: SoftHsm, caplog: pytest.LogCaptureFixture) -> None:
    leaks_in = search([PIN.encode(), SO_PIN.encode()])
    assert leaks_in(f"... {PIN}")  # the control
    found = from_token(hsm.module, token="mixed up", pin=ask)
    errors = []
    for call in (
        lambda: found.sign(b"data"),
        lambda: from_token(hsm.module, token="empty", pin=ask),
        lambda: from_token(hsm.module, token="spoilt", pin=lambda _prompt: SO_PIN),
        lambda: Credential.from_pkcs11("@", hsm.module, "spoilt", pin=ask),
    ):
        with pytest.raises(Exception) as caught:
            call()
        errors.append(shown(caught.value) + printed(caught.value))
    assert not leaks_in("".join(errors) + repr(found) + caplog.text)
    found.wipe()
    good = from_token(hsm.module, token="spoilt", pin=ask)  # the card stays as it was
    good.wipe()


def test_the_module_may_be_a_path(hsm: SoftHsm) -> None:
    found = Credential.from_pkcs11(ALICE, Path(hsm.module), "rsa", pin=ask)
    assert found.certificate is not None
    found.wipe()
