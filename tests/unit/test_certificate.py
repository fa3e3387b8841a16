"""A client's certificate and key: read from files, signing, and what bad files are told."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from purekrb import CertificateError, Config, Credential, KdcClient, KdcTrust, Principal
from purekrb.constants import NameType
from purekrb.credentials.certificate import ClientCertificate
from purekrb.errors import ConfigError, DecodeError, KerberosError
from support.canaries import printed, search, shown
from support.pki import CLIENT_AUTH, DAY, KP_CLIENT, NOW, Issued, authority, rsa_key, san_of, upn

CA = authority()
ALICE = "alice@X.TEST"
PASSWORD = "p12-canary-1f6e"


def client(name: str = "alice", *names: object, key: object = None, **options: object) -> Issued:
    options = {"purposes": [KP_CLIENT], **options}
    return CA.issue(name, *(names or (san_of(ALICE),)), key=key, **options)  # type: ignore[arg-type]


EC = client()
RSA = client(key=rsa_key())


def test_it_signs_with_sha2_by_the_kind_of_its_key() -> None:
    algorithm, signature = ClientCertificate.from_files(RSA.pem, RSA.key_pem()).sign(b"data")
    assert algorithm == bytes.fromhex("300d06092a864886f70d01010b0500")
    RSA.key.public_key().verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())
    for curve, arc, hash_ in (
        (ec.SECP256R1(), 2, hashes.SHA256()),
        (ec.SECP384R1(), 3, hashes.SHA384()),
        (ec.SECP521R1(), 4, hashes.SHA512()),
    ):
        found = client(key=ec.generate_private_key(curve))
        algorithm, signature = ClientCertificate.from_files(found.pem, found.key_pem()).sign(b"x")
        assert algorithm == bytes.fromhex("300a06082a8648ce3d0403") + bytes([arc])
        found.key.public_key().verify(signature, b"x", ec.ECDSA(hash_))


def test_certificate_and_key_are_read_from_files_or_contents_in_pem_or_der(tmp_path: Path) -> None:
    der_key = EC.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    files = {
        "cert.pem": EC.pem,
        "key.pem": EC.key_pem(),
        "both.pem": EC.key_pem() + CA.pem + EC.pem,
        "cert.der": EC.der,
        "key.der": der_key,
        "name with: a colon.pem": EC.pem + EC.key_pem(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    for certificate, key in (
        (tmp_path / "cert.pem", tmp_path / "key.pem"),
        (f"FILE:{tmp_path}/cert.pem", f"FILE:{tmp_path}/key.pem"),
        (str(tmp_path / "cert.der"), str(tmp_path / "key.der")),
        (tmp_path / "both.pem", None),
        (tmp_path / "name with: a colon.pem", None),
        (EC.pem, EC.key_pem()),
        (EC.der, der_key),
        (EC.pem.decode(), EC.key_pem().decode()),
        (EC.pem + EC.key_pem(), None),
    ):
        found = ClientCertificate.from_files(certificate, key)
        assert found.certificate == EC.certificate
        assert found.chain[0] == EC.der
        assert found.principal_name == Principal.parse(ALICE)
    both = ClientCertificate.from_files(tmp_path / "both.pem")
    assert both.chain == (EC.der, CA.der)  # its own first, whatever the order in the file
    assert both.identity == f"FILE:{tmp_path}/both.pem"


def test_an_encrypted_key_needs_its_password() -> None:
    key = EC.key_pem(PASSWORD.encode())
    for password in (PASSWORD, PASSWORD.encode()):
        assert ClientCertificate.from_files(EC.pem, key, password=password).sign(b"")
    with pytest.raises(CertificateError, match="is encrypted: give its password"):
        ClientCertificate.from_files(EC.pem, key)
    with pytest.raises(CertificateError, match=r"the password of the private key .* is wrong"):
        ClientCertificate.from_files(EC.pem, key, password="other")
    # A password that is not needed does not harm.
    assert ClientCertificate.from_files(EC.pem, EC.key_pem(), password="other").sign(b"")


def test_an_old_encrypted_key_needs_its_password() -> None:
    key = RSA.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )
    assert ClientCertificate.from_files(RSA.pem, key, password=PASSWORD).sign(b"")
    with pytest.raises(CertificateError, match="is encrypted: give its password"):
        ClientCertificate.from_files(RSA.pem, key)


def test_a_key_in_der_may_be_encrypted_as_well() -> None:
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    key = EC.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, encryption
    )
    assert ClientCertificate.from_files(EC.der, key, password=PASSWORD).sign(b"")
    with pytest.raises(CertificateError, match="is encrypted: give its password"):
        ClientCertificate.from_files(EC.der, key)
    with pytest.raises(CertificateError, match=r"the password of the private key .* is wrong"):
        ClientCertificate.from_files(EC.der, key, password="other")


def test_a_pkcs12_file_needs_its_password(tmp_path: Path) -> None:
    path = tmp_path / "alice.p12"
    path.write_bytes(EC.p12(PASSWORD.encode(), CA))
    path.chmod(0o600)
    for source in (path, str(path), f"PKCS12:{path}", path.read_bytes()):
        found = ClientCertificate.from_pkcs12(source, PASSWORD)
        assert found.chain == (EC.der, CA.der)
        assert found.sign(b"data")
    assert ClientCertificate.from_pkcs12(path, PASSWORD).identity == f"PKCS12:{path}"
    with pytest.raises(CertificateError, match=r"the password of .*alice.p12 is wrong"):
        ClientCertificate.from_pkcs12(path, "other")
    with pytest.raises(CertificateError, match="give its password"):
        ClientCertificate.from_pkcs12(path)
    assert ClientCertificate.from_pkcs12(EC.p12(None)).sign(b"data")  # it has no password


def _ed25519() -> tuple[bytes, bytes]:
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return EC.pem, pem


def _other_curve() -> tuple[bytes, bytes]:
    found = client(key=ec.generate_private_key(ec.SECP256K1()))
    return found.pem, found.key_pem()


#: What is wrong -> certificate and key, and what the error says.
BAD_FILES: dict[str, tuple[Callable[[], tuple[bytes, bytes | None]], str]] = {
    "the key of another certificate": (
        lambda: (EC.pem, RSA.key_pem()),
        "is not that of the certificate of alice",
    ),
    "a key alone": (lambda: (EC.key_pem(), None), "holds a private key alone; name the file of th"),
    "a key in place of the certificate": (
        lambda: (EC.key_pem(), EC.key_pem()),
        "it holds a private key alone",
    ),
    "a certificate alone": (lambda: (EC.pem, None), "holds no private key: name the file of the"),
    "a certificate in place of the key": (lambda: (EC.pem, EC.pem), "holds no private key"),
    "PKCS#12": (lambda: (EC.p12(b"x"), None), "it is PKCS#12: use from_pkcs12"),
    "nothing": (lambda: (b"", None), "it is empty"),
    "text": (lambda: (b"hello", None), "it is neither PEM nor DER"),
    "PEM that is cut off": (lambda: (EC.pem[:200], None), "its PEM is cut off"),
    "a damaged certificate": (
        lambda: (EC.pem.replace(b"MI", b"NJ", 1) + EC.key_pem(), None),
        "the certificate in it is damaged|holds a private key alone",
    ),
    "a damaged key": (
        lambda: (EC.pem, EC.key_pem().replace(b"MI", b"NJ", 1)),
        "cannot be read: it is damaged",
    ),
    "a megabyte of zeros": (lambda: (bytes(1 << 20), None), "it is neither PEM nor DER"),
    "a key of another kind": (_ed25519, "is of a kind that is not supported: use RSA or EC"),
    "a key on another curve": (_other_curve, "must be RSA, or elliptic-curve on P-256"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_k566_a_bad_file_is_told_in_words(case: str) -> None:
    files, said = BAD_FILES[case]
    with pytest.raises(CertificateError, match=said):
        ClientCertificate.from_files(*files())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (EC.pem, "is PEM, and not PKCS#12: use from_certificate"),
        (EC.der, "is no PKCS#12 file"),
        (b"", "it is empty"),
        (bytes(1 << 20), "is no PKCS#12 file"),
        (EC.p12(b"x")[:-40], "wrong, or the file is damaged"),
    ],
)
def test_k566_what_is_no_pkcs12_is_told_in_words(data: bytes, said: str) -> None:
    with pytest.raises(CertificateError, match=said):
        ClientCertificate.from_pkcs12(data, "x")


def test_k566_files_that_are_missing_or_large_or_open_to_all_are_refused(tmp_path: Path) -> None:
    big, key = tmp_path / "big.pem", tmp_path / "key.pem"
    big.write_bytes(bytes(1 << 20))
    big.chmod(0o600)
    key.write_bytes(EC.pem + EC.key_pem())
    key.chmod(0o622)
    for path, said in (
        (tmp_path / "missing.pem", "there is no such file"),
        (big, "is larger than 262144 bytes"),
        (tmp_path, "a directory"),
        (key, "lets others write it"),
    ):
        with pytest.raises(CertificateError, match=said):
            ClientCertificate.from_files(path)
        with pytest.raises(CertificateError, match=said):
            ClientCertificate.from_pkcs12(path, "x")
    key.chmod(0o600)
    assert ClientCertificate.from_files(key).sign(b"")


def test_its_own_dates_are_checked() -> None:
    found = ClientCertificate.from_files(EC.pem, EC.key_pem())
    found.check_dates(NOW)
    with pytest.raises(CertificateError, match=r"alice expired at 2026-06-02 .*: get a new one"):
        found.check_dates(NOW + 2 * DAY)
    with pytest.raises(CertificateError, match=r"alice is not valid before .*: check the clock"):
        found.check_dates(NOW - 2 * DAY)


# -- whom it names -------------------------------------------------------------------------------------


def credential(*names: object, principal: str | None = None) -> Credential:
    found = client("x", *names) if names else CA.issue("x", purposes=[CLIENT_AUTH])
    return Credential.from_certificate(principal, found.pem, found.key_pem(), anchors=CA.pem)


def test_the_principal_is_the_callers_or_the_certificates() -> None:
    assert credential(san_of(ALICE), upn("a@b.c")).principal == Principal.parse(ALICE)
    assert credential(upn("a@b.c"), san_of(ALICE)).principal == Principal.parse(ALICE)
    assert credential(san_of(ALICE), principal="bob@X.TEST").principal.components == ("bob",)
    named = credential(upn("alice@mail.example")).principal
    assert (named.components, named.realm) == (("alice@mail.example",), "")
    assert named.name_type == NameType.ENTERPRISE
    with pytest.raises(CertificateError, match="names no principal: name the principal as well"):
        credential()
    with pytest.raises(DecodeError):
        credential(san_of(ALICE), principal="@")


def test_a_user_principal_name_is_looked_up_unless_its_suffix_is_a_realm() -> None:
    config = Config(default_realm="AD.TEST", realms={"AD.TEST": ["k"], "B.TEST": ["k"]})
    client = KdcClient(config)
    for text, components, realm, kind in (
        ("alice@ad.test", ("alice",), "AD.TEST", NameType.PRINCIPAL),
        ("alice@B.Test", ("alice",), "B.TEST", NameType.PRINCIPAL),
        ("alice@mail.example", ("alice@mail.example",), "AD.TEST", NameType.ENTERPRISE),
        ("alice", ("alice",), "AD.TEST", NameType.ENTERPRISE),
    ):
        found = credential(upn(text))
        client._prepare(found, "test")
        assert found.principal == Principal(components, realm), text
        assert found.principal.name_type == kind, text
        assert found.kdc_trust is not None
        assert found.kdc_trust.config is config
    given = credential(upn("a@b.c"), principal="bob@AD.TEST")
    client._prepare(given, "test")
    assert given.principal == Principal(("bob",), "AD.TEST")
    with pytest.raises(ConfigError, match="there is no default realm"):
        KdcClient(Config(realms={"Q.TEST": ["k"]}))._prepare(credential(upn("a@b.c")), "test")


def test_the_credential_holds_the_certificate_and_whom_it_trusts() -> None:
    found = credential(san_of(ALICE))
    assert found.certificate is not None
    assert found.can_get_tgt
    assert found.kdc_trust == KdcTrust(CA.pem)
    own = KdcTrust(CA.pem, hosts=("dc1.x.test",))
    same = Credential.from_pkcs12(EC.p12(b"x"), "x", anchors=own)
    assert same.kdc_trust is own
    assert same.principal == Principal.parse(ALICE)
    plain = Credential.from_password(ALICE, "x")
    assert plain.certificate is None
    assert plain.kdc_trust is None


# -- secrets -------------------------------------------------------------------------------------------


def test_k569_neither_key_nor_password_is_shown() -> None:
    found = ClientCertificate.from_pkcs12(EC.p12(PASSWORD.encode()), PASSWORD)
    assert repr(found) == "ClientCertificate(alice, key=<redacted>)"
    assert not hasattr(found, "__dict__")
    for make_copy in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            make_copy(found)
    assert "certificate=<redacted>" in repr(credential(san_of(ALICE)))


def test_k569_errors_and_their_tracebacks_hold_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    leaks_in = search([PASSWORD.encode(), EC.key_pem().split(b"\n")[1]])
    assert leaks_in(f"... {PASSWORD}")  # the control
    for call in (
        lambda: ClientCertificate.from_pkcs12(EC.p12(b"other"), PASSWORD),
        lambda: ClientCertificate.from_pkcs12(EC.key_pem(), PASSWORD),
        lambda: ClientCertificate.from_files(EC.pem, EC.key_pem(b"other"), password=PASSWORD),
        lambda: ClientCertificate.from_files(RSA.pem, EC.key_pem().decode(), password=PASSWORD),
        lambda: ClientCertificate.from_files(EC.key_pem(), password=PASSWORD),
        lambda: Credential.from_certificate("@", EC.pem, EC.key_pem().decode(), password=PASSWORD),
    ):
        with pytest.raises(KerberosError) as caught:
            call()
        assert not leaks_in(shown(caught.value) + printed(caught.value))
    assert not leaks_in(repr(KdcTrust(EC.key_pem())) + caplog.text)


def test_a_wiped_certificate_signs_no_more() -> None:
    found = credential(san_of(ALICE))
    certificate = found.certificate
    assert certificate is not None
    certificate.sign(b"data")
    found.wipe()
    assert not found.can_get_tgt
    with pytest.raises(CertificateError, match="was wiped: make a new credential"):
        certificate.sign(b"data")
