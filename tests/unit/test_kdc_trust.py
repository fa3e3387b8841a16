"""Which KDCs are trusted by their certificates: chain, purpose, names, revocation, signature."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from purekrb import CertificateError, Config, ConfigError, KdcTrust, UnsupportedError
from purekrb.credentials.kdc_trust import _issued_below
from purekrb.errors import DecodeError, IntegrityError, PolicyError
from purekrb.krb5conf.pkinit import pkinit_options
from purekrb.messages.der import tlv
from support.pki import (
    CLIENT_AUTH,
    DAY,
    KP_KDC,
    NOW,
    SERVER_AUTH,
    Issued,
    authority,
    key_usage,
    make,
    rsa_key,
    san_of,
)

REALM = "X.TEST"
TGS = f"krbtgt/{REALM}@{REALM}"
CA = authority()
KDC = CA.issue("kdc", san_of(TGS))
NOW_SECONDS = int(NOW.timestamp())


def verify(
    *certificates: Issued,
    trust: KdcTrust | None = None,
    realm: str = REALM,
    hosts: tuple[str, ...] = (),
    now: int = NOW_SECONDS,
) -> object:
    trust = KdcTrust(CA.pem) if trust is None else trust
    return trust.verify([found.der for found in certificates], realm=realm, hosts=hosts, now=now)


def test_the_key_of_a_kdc_with_a_good_certificate_is_returned() -> None:
    assert verify(KDC) == KDC.key.public_key()


def test_authorities_between_the_kdc_and_the_anchor_come_from_the_kdc_or_from_the_pool() -> None:
    between = CA.issue("between", authority=True, purposes=None)
    kdc = between.issue("kdc", san_of(TGS))
    assert verify(kdc, between)
    assert verify(kdc, trust=KdcTrust(CA.pem, pool=between.pem))
    with pytest.raises(CertificateError, match="was issued by between, which is none of the anch"):
        verify(kdc)


def test_a_kdc_that_is_its_own_authority_is_trusted_if_it_is_an_anchor() -> None:
    own = make("own", names=[san_of(TGS)], purposes=["1.3.6.1.5.2.3.5"])
    assert verify(own, trust=KdcTrust(own.pem))
    with pytest.raises(CertificateError, match="is its own authority, and is none of the anchors"):
        verify(own)


def _intermediate(**options: object) -> list[Issued]:
    options = {"authority": True, "purposes": None, **options}
    between = CA.issue("between", **options)  # type: ignore[arg-type]
    return [between.issue("kdc", san_of(TGS)), between]


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

#: What is wrong -> the certificates of the KDC, and what the error says.
BAD_CHAINS: dict[str, tuple[Callable[[], list[Issued]], str]] = {
    "K550-foreign authority of another name": (
        lambda: [authority("other CA").issue("kdc", san_of(TGS))],
        "was issued by other CA, which is none of the anchors",
    ),
    "K550-foreign authority of the same name": (
        lambda: [authority().issue("kdc", san_of(TGS))],
        "does not lead to an anchor, though it names the CA",
    ),
    "K551-expired at the KDC's time": (
        lambda: [CA.issue("kdc", san_of(TGS), begins=NOW - 3 * DAY, ends=NOW - DAY)],
        "expired at 2026-05-31 00:00:00 UTC, and the KDC's clock shows 2026-06-01",
    ),
    "K551-not valid yet": (
        lambda: [CA.issue("kdc", san_of(TGS), begins=NOW + DAY / 2)],
        "is not valid before 2026-06-01 12:00:00 UTC",
    ),
    "K551-authority between has expired": (
        lambda: _intermediate(begins=NOW - 3 * DAY, ends=NOW - DAY),
        "was issued by between, whose certificate expired at",
    ),
    "K552-issued by who is no authority": (
        lambda: _intermediate(authority=False),
        "basicConstraints.cA must be asserted",
    ),
    "K552-issued by a key that may not sign certificates": (
        lambda: _intermediate(extensions=[(key_usage("crl_sign"), True)]),
        "does not lead to an anchor",
    ),
    "K553-an unknown critical extension": (
        lambda: [CA.issue("kdc", san_of(TGS), extensions=[(UNKNOWN, True)])],
        "unaccounted-for critical extensions",
    ),
    "K557-a key that may not sign data": (
        lambda: [CA.issue("kdc", san_of(TGS), extensions=[(key_usage("key_agreement"), True)])],
        "has a key that may not sign data",
    ),
    "K554-no purpose": (
        lambda: [CA.issue("kdc", san_of(TGS), purposes=None)],
        r"says of no purpose, expected that of a KDC \(extended key usage 1.3.6.1.5.2.3.5\)",
    ),
    "K554-purpose of a TLS server": (
        lambda: [CA.issue("kdc", san_of(TGS), purposes=[SERVER_AUTH])],
        "is for TLS servers only, expected .* set pkinit_eku_checking = kpServerAuth",
    ),
    "K554-any purpose": (
        lambda: [CA.issue("kdc", san_of(TGS), purposes=["2.5.29.37.0"])],
        "is for 2.5.29.37.0 only",
    ),
    "K554-purpose of a client": (
        lambda: [CA.issue("kdc", san_of(TGS), purposes=["1.3.6.1.5.2.3.4", CLIENT_AUTH])],
        "is for id-pkinit-KPClientAuth, TLS clients only",
    ),
    "K686-purpose of a KDC by an authority for clients": (
        lambda: _intermediate(purposes=[CLIENT_AUTH]),
        "was issued by way of between, whose certificates are for TLS clients only",
    ),
    "K555-another realm": (
        lambda: [CA.issue("kdc", san_of("krbtgt/Y.TEST@Y.TEST"))],
        f"is for krbtgt/Y.TEST@Y.TEST, and does not name krbtgt/{REALM}@{REALM}: give",
    ),
    "K555-the same realm in small letters": (
        lambda: [CA.issue("kdc", san_of("krbtgt/x.test@x.test"))],
        "does not name krbtgt/X.TEST@X.TEST",
    ),
    "K555-a cross-realm krbtgt": (
        lambda: [CA.issue("kdc", san_of("krbtgt/X.TEST@Y.TEST"))],
        "does not name",
    ),
    "K555-a user": (
        lambda: [CA.issue("kdc", san_of("user@X.TEST"))],
        "is for user@X.TEST, and does",
    ),
    "K555-no name": (lambda: [CA.issue("kdc")], "is for no principal and no host"),
    "K568-a damaged principal": (
        lambda: [
            CA.issue("kdc", x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.2.2"), b"\x30\x00"))
        ],
        "is for no principal and no host",
    ),
    "K556-the name of a host that is not expected": (
        lambda: [CA.issue("kdc", x509.DNSName("dc1.x.test"))],
        "if dc1.x.test is a KDC of X.TEST that you trust, .* set pkinit_kdc_hostname",
    ),
}


@pytest.mark.parametrize("case", BAD_CHAINS)
def test_a_kdc_is_refused_with(case: str) -> None:
    certificates, said = BAD_CHAINS[case]
    assert verify(KDC)  # the control
    with pytest.raises(CertificateError, match=said):
        verify(*certificates())


@pytest.mark.parametrize("purpose", [KP_KDC, "2.5.29.37.0"])
def test_k686_an_authority_may_be_for_kdcs_or_for_all_purposes(purpose: str) -> None:
    assert verify(*_intermediate(purposes=[CLIENT_AUTH, purpose]))


def _in_a_ring(count: int) -> list[Issued]:
    """Return authorities of one name and one key, of which each has issued all others."""
    key = ec.generate_private_key(ec.SECP256R1())
    return [make("ring", authority=True, key=key) for _ in range(count)]


def test_k685_certificates_that_sign_each_other_are_not_followed() -> None:
    """The oldest validator that is permitted needs a minute for four, and ten times that for five."""
    ring = _in_a_ring(31)
    forged = ring[0].issue("kdc", san_of(TGS))
    begun = time.monotonic()
    with pytest.raises(CertificateError, match="does not lead to an anchor"):
        verify(forged, *ring)
    assert time.monotonic() - begun < 2
    genuine = _intermediate()
    assert verify(*genuine, *ring[2:])


def test_k685_only_what_an_anchor_has_issued_reaches_the_validator() -> None:
    between = CA.issue("between", authority=True, purposes=None)
    below = between.issue("below", authority=True, purposes=None)
    foreign = authority().issue("between", authority=True, purposes=None)
    pool = [found.certificate for found in (below, *_in_a_ring(3), foreign, between, between)]
    found = _issued_below([CA.certificate], pool)
    assert found == [between.certificate, between.certificate, below.certificate]
    assert verify(below.issue("kdc", san_of(TGS)), below, foreign, between)


def test_k551_the_date_is_judged_at_the_time_that_is_given() -> None:
    assert verify(KDC)
    with pytest.raises(CertificateError, match="expired at"):
        verify(KDC, now=NOW_SECONDS + 2 * 86400)
    with pytest.raises(CertificateError, match="is not valid before"):
        verify(KDC, now=NOW_SECONDS - 2 * 86400)


def test_k565_no_setting_turns_all_checks_off() -> None:
    lenient = KdcTrust(CA.pem, eku_checking="none", hosts=("dc1.x.test",))
    assert verify(CA.issue("kdc", san_of(TGS), purposes=None), trust=lenient)
    with pytest.raises(CertificateError, match="does not name"):
        verify(CA.issue("kdc", x509.DNSName("dc2.x.test"), purposes=None), trust=lenient)
    with pytest.raises(CertificateError, match="does not lead to an anchor"):
        verify(authority().issue("kdc", san_of(TGS)), trust=lenient)
    with pytest.raises(CertificateError, match="no anchor is given"):
        verify(KDC, trust=replace(lenient, anchors=None))
    with pytest.raises(CertificateError, match="none of the anchors is a certificate"):
        verify(KDC, trust=replace(lenient, anchors=b"nothing"))


def test_k556_a_certificate_of_a_host_is_taken_if_that_host_is_expected() -> None:
    found = CA.issue("kdc", x509.DNSName("DC1.x.test"), purposes=[SERVER_AUTH])
    servers = KdcTrust(CA.pem, eku_checking="kpServerAuth")
    assert verify(found, trust=replace(servers, hosts=("dc1.X.test.",)))
    assert verify(found, trust=servers, hosts=("dc1.x.test",))
    for other in ("dc2.x.test", "x.test", "a.dc1.x.test"):
        with pytest.raises(CertificateError, match=f"does not name .* or {other}"):
            verify(found, trust=servers, hosts=(other,))


def test_k556_a_wildcard_is_no_name_of_a_kdc() -> None:
    found = CA.issue("kdc", x509.DNSName("*.x.test"))
    with pytest.raises(CertificateError, match="does not name"):
        verify(found, hosts=("dc1.x.test",))


@pytest.mark.parametrize("certificates", [[], [b"\x30\x00"], [b""], [KDC.der] * 33, [b"x" * 10**6]])
def test_k562_certificates_that_are_none_are_refused(certificates: list[bytes]) -> None:
    with pytest.raises(CertificateError, match="certificate"):
        KdcTrust(CA.pem).verify(certificates, realm=REALM, now=NOW_SECONDS)


def test_k558_a_revoked_certificate_is_refused() -> None:
    ca = authority()
    between = ca.issue("between", authority=True, purposes=None)
    good, bad = ca.issue("good", san_of(TGS)), ca.issue("bad", san_of(TGS))
    ca.revoke(bad, between)
    trust = KdcTrust(ca.pem, revoke=ca.crl())
    assert verify(good, trust=trust)
    with pytest.raises(CertificateError, match=r"\(bad\) is revoked by the CA"):
        verify(bad, trust=trust)
    with pytest.raises(CertificateError, match="is revoked, by way of between by the CA"):
        verify(between.issue("kdc", san_of(TGS)), between, trust=trust)
    assert verify(bad, trust=replace(trust, revoke=None))  # the control


def test_k559_a_revocation_list_that_does_not_count_revokes_nothing_and_spares_nothing() -> None:
    ca = authority()
    bad = ca.issue("bad", san_of(TGS))
    ca.revoke(bad)
    partial = (x509.DeltaCRLIndicator(1), True)
    for revocations in (
        ca.crl(signer=ec.generate_private_key(ec.SECP256R1())),
        ca.crl(extensions=[partial]),
        authority("other").crl(),
    ):
        trust = KdcTrust(ca.pem, revoke=revocations)
        assert verify(bad, trust=trust)
        with pytest.raises(CertificateError, match="there is no revocation list of the CA"):
            verify(bad, trust=replace(trust, require_crl_checking=True))
    no_list_keys = authority(extensions=[(key_usage("key_cert_sign"), True)])
    kdc = no_list_keys.issue("kdc", san_of(TGS))
    trust = KdcTrust(no_list_keys.pem, revoke=no_list_keys.crl(), require_crl_checking=True)
    with pytest.raises(CertificateError, match="there is no revocation list"):
        verify(kdc, trust=trust)


def test_k559_a_revocation_list_must_be_current_and_readable() -> None:
    with pytest.raises(CertificateError, match="the revocation list of the CA ended at 2026-05-31"):
        verify(KDC, trust=KdcTrust(CA.pem, revoke=CA.crl(ends=NOW - DAY / 2)))
    ca = authority()
    kdc = ca.issue("kdc", san_of(TGS))
    ca.revoke(kdc)
    with pytest.raises(CertificateError, match="is revoked"):  # what it says still counts
        verify(kdc, trust=KdcTrust(ca.pem, revoke=ca.crl(ends=NOW - DAY / 2)))
    damaged = CA.crl().replace(b"MI", b"NJ", 1)
    with pytest.raises(CertificateError, match="cannot be read as a certificate revocation list"):
        verify(KDC, trust=KdcTrust(CA.pem, revoke=damaged))


def test_a_list_can_be_demanded_of_each_authority() -> None:
    with pytest.raises(CertificateError, match="pkinit_require_crl_checking asks for one"):
        verify(KDC, trust=KdcTrust(CA.pem, require_crl_checking=True))
    assert verify(KDC, trust=KdcTrust(CA.pem, require_crl_checking=True, revoke=CA.crl()))


# -- where anchors come from -------------------------------------------------------------------------


def test_anchors_are_files_directories_variables_and_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority("other").pem + CA.pem)
    (tmp_path / "ca.der").write_bytes(CA.der)
    directory = tmp_path / "anchors"
    (directory / "below").mkdir(parents=True)
    (directory / "a.crt").write_bytes(CA.pem)
    (directory / "README").write_text("no certificate")
    monkeypatch.setenv("ANCHOR", f"FILE:{file}")
    for anchors in (
        file,
        str(file),
        f"FILE:{file}",
        f"DIR:{directory}",
        directory,
        "ENV:ANCHOR",
        CA.pem,
        CA.pem.decode(),
        CA.der,
        tmp_path / "ca.der",
        [authority("other").pem, file],
    ):
        assert verify(KDC, trust=KdcTrust.of(anchors)), anchors


def test_what_is_no_anchor_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOP", "ENV:LOOP")
    big = tmp_path / "big.pem"
    big.write_bytes(bytes(5 << 20))
    for anchors, said in (
        (tmp_path / "missing", "there is no such file"),
        ("DIR:" + str(tmp_path / "missing"), "none of the anchors is a certificate"),
        ("ENV:NO_SUCH_VARIABLE", "set the variable NO_SUCH_VARIABLE"),
        ("ENV:LOOP", "set the variable LOOP"),
        ("PKCS11:/usr/lib/x.so", "is of a kind that cannot be read"),
        (big, "larger than"),
        ("", "no such file|cannot"),
    ):
        with pytest.raises(CertificateError, match=said):
            verify(KDC, trust=KdcTrust(anchors))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this platform has no modes")
def test_k563_anchors_that_others_can_write_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(CA.pem)
    file.chmod(0o644)
    assert verify(KDC, trust=KdcTrust(file))
    file.chmod(0o666)
    with pytest.raises(CertificateError, match="lets others write it, and so choose whom to trust"):
        verify(KDC, trust=KdcTrust(file))


def test_a_damaged_certificate_among_the_anchors_is_passed_over() -> None:
    damaged = CA.pem.replace(b"MI", b"NJ", 1)
    assert verify(KDC, trust=KdcTrust(damaged + CA.pem))


# -- krb5.conf ----------------------------------------------------------------------------------------


def config_of(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "krb5.conf"
    path.write_text(text)
    return Config.from_file(path)


def test_krb5_conf_says_what_the_caller_does_not(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    config = config_of(
        tmp_path,
        f"""[libdefaults]
 pkinit_anchors = FILE:{tmp_path}/ca.pem
 pkinit_anchors = FILE:{tmp_path}/more.pem
 pkinit_dh_min_bits = 4096
 Z.TEST = {{
  pkinit_kdc_hostname = z.first
 }}
[realms]
 Y.TEST = {{
  pkinit_kdc_hostname = dc1.y.test
  pkinit_eku_checking = KpServerAuth
  pkinit_require_crl_checking = yes
  pkinit_allow_sha1 = true
  pkinit_anchors = FILE:{tmp_path}/y.pem
  pkinit_dh_min_bits = P-256
 }}
 Z.TEST = {{
  pkinit_kdc_hostname = z.second
 }}
""",
    )
    plain, own = pkinit_options(config, "X.TEST"), pkinit_options(config, "Y.TEST")
    assert plain.anchors == (f"FILE:{tmp_path}/ca.pem", f"FILE:{tmp_path}/more.pem")
    assert (plain.eku_checking, plain.allow_sha1, plain.dh_min_bits) == ("kpKDC", False, 4096)
    assert own.anchors == (f"FILE:{tmp_path}/y.pem",)
    assert own.kdc_hostname == ("dc1.y.test",)
    assert (own.eku_checking, own.require_crl_checking) == ("kpServerAuth", True)
    assert (own.allow_sha1, own.dh_min_bits) == (True, 3072)
    assert pkinit_options(config, "Z.TEST").kdc_hostname == ("z.first",)

    trust = KdcTrust(config=config).for_realm("Y.TEST")
    assert (trust.hosts, trust.allow_sha1) == (("dc1.y.test",), True)
    given = KdcTrust(CA.pem, hosts=(), allow_sha1=False, config=config).for_realm("Y.TEST")
    assert (given.anchors, given.hosts, given.allow_sha1) == (CA.pem, (), False)
    python = Config(pkinit={"pkinit_anchors": [str(tmp_path / "ca.pem")]})
    assert verify(KDC, trust=KdcTrust(config=python))


@pytest.mark.parametrize(
    "line",
    [
        "pkinit_eku_checking = kpKdcs",
        "pkinit_require_crl_checking = perhaps",
        "pkinit_dh_min_bits = 512",
        "pkinit_dh_min_bits = many",
        "pkinit_allow_sha1 = maybe",
    ],
)
def test_k564_a_value_that_cannot_be_read_weakens_nothing(line: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, f"[libdefaults]\n {line}\n")
    with pytest.raises(ConfigError, match=f"{line.split()[0]} of .*krb5.conf"):
        verify(KDC, trust=KdcTrust(CA.pem, config=config))


# -- the signature of the answer -----------------------------------------------------------------------

SHA256_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")
SHA1_RSA = bytes.fromhex("300d06092a864886f70d0101050500")
RSA = bytes.fromhex("300d06092a864886f70d0101010500")
SHA256 = bytes.fromhex("300d06096086480165030402010500")
SHA1 = bytes.fromhex("300906052b0e03021a0500")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
PSS = bytes.fromhex("300b06092a864886f70d01010a")


def test_k561_a_signature_of_other_data_or_by_another_key_is_refused() -> None:
    trust, key = KdcTrust(), rsa_key()
    signature = key.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    curve = ec.generate_private_key(ec.SECP256R1())
    for public, algorithm, signed, digest in (
        (key.public_key(), SHA256_RSA, signature, None),
        (key.public_key(), RSA, signature, SHA256),
        (curve.public_key(), ECDSA_SHA256, curve.sign(b"data", ec.ECDSA(hashes.SHA256())), None),
    ):
        trust.verify_signature(public, algorithm, b"data", signed, digest=digest)
        with pytest.raises(IntegrityError, match="forged or damaged"):
            trust.verify_signature(public, algorithm, b"other", signed, digest=digest)
        with pytest.raises(IntegrityError):
            trust.verify_signature(public, algorithm, b"data", signed[:-1], digest=digest)
        other = curve if digest or algorithm == SHA256_RSA else key
        with pytest.raises(IntegrityError):  # the key of another kind
            trust.verify_signature(other.public_key(), algorithm, b"dat", signed, digest=digest)


def test_k560_a_sha1_signature_needs_the_named_consent() -> None:
    key = rsa_key()
    signature = key.sign(b"data", padding.PKCS1v15(), hashes.SHA1())
    for algorithm, digest in ((SHA1_RSA, None), (RSA, SHA1)):
        with pytest.raises(PolicyError, match="pkinit_allow_sha1 = true"):
            KdcTrust().verify_signature(
                key.public_key(), algorithm, b"data", signature, digest=digest
            )
        KdcTrust(allow_sha1=True).verify_signature(
            key.public_key(), algorithm, b"data", signature, digest=digest
        )


@pytest.mark.parametrize("algorithm", [PSS, RSA, tlv(0x30, tlv(6, b"\x2a\x03"))])
def test_k561_an_unknown_algorithm_is_named(algorithm: bytes) -> None:
    with pytest.raises(UnsupportedError, match="which purekrb does not have"):
        KdcTrust().verify_signature(rsa_key().public_key(), algorithm, b"", b"")


@pytest.mark.parametrize("algorithm", [b"", b"\x30\x00", SHA256_RSA + b"\x00", SHA256_RSA[:9]])
def test_k561_a_damaged_algorithm_is_refused(algorithm: bytes) -> None:
    with pytest.raises(DecodeError):
        KdcTrust().verify_signature(rsa_key().public_key(), algorithm, b"", b"")
