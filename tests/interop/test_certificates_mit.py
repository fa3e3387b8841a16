"""Certificates of clients and of KDCs, with MIT's KDC: where they come from, and which are refused."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from purekrb import (
    CCache,
    CertificateError,
    Credential,
    KdcClient,
    KdcTrust,
    aio,
    initiate,
)
from purekrb.cli import main
from support.mit_pkinit import PkinitRealm
from support.pki import (
    CLIENT_AUTH,
    DAY,
    KP_CLIENT,
    KP_KDC,
    SERVER_AUTH,
    Issued,
    authority,
    key_usage,
    rsa_key,
    san_of,
)
from support.softhsm import PIN, SoftHsm

PASSWORD = "p12 password"
TGS = "krbtgt/MIT.TEST@MIT.TEST"
NOW = datetime.now(timezone.utc)
SPAN = {"begins": NOW - DAY, "ends": NOW + DAY}
SIGNS = [(key_usage("digital_signature"), True)]


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PkinitRealm]:
    realm = PkinitRealm(tmp_path_factory.mktemp("pkinit"))
    try:
        yield realm
    finally:
        realm.stop()


class Users:
    """Where the certificate of pre@MIT.TEST is, with an RSA key and with one on a curve."""

    def __init__(self, realm: PkinitRealm, directory: Path) -> None:
        self.hsm = SoftHsm(directory)
        self.directory = directory
        self.issued = {}
        for kind, key in (("rsa", rsa_key(7)), ("ec", ec.generate_private_key(ec.SECP256R1()))):
            self.issued[kind] = realm.files.authority.issue(
                f"pre with {kind}",
                san_of("pre@MIT.TEST"),
                purposes=[KP_CLIENT],
                key=key,
                extensions=SIGNS,
                **SPAN,
            )
            self.hsm.new_token(kind)

    def fill(self) -> None:
        for kind, issued in self.issued.items():
            self.hsm.put(kind, issued, label="pre", id_=b"\x01")
            for ending, data in (
                ("crt", issued.pem),
                ("key", issued.key_pem()),
                ("p12", issued.p12(PASSWORD.encode())),
            ):
                path = self.directory / f"{kind}.{ending}"
                path.write_bytes(data)
                path.chmod(0o600)

    def identity(self, place: str, kind: str) -> str:
        """Return the certificate's name in MIT's words."""
        base = self.directory / kind
        return {
            "FILE": f"FILE:{base}.crt,{base}.key",
            "PKCS12": f"PKCS12:{base}.p12",
            "PKCS11": f"PKCS11:{self.hsm.module}:token={kind}",
        }[place]


@pytest.fixture(scope="module")
def users(realm: PkinitRealm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    users = Users(realm, tmp_path_factory.mktemp("users"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in users.hsm.environment.items():
            patch.setenv(name, value)
        users.fill()
        yield users
        users.hsm.close()


def secret(prompt: str) -> str:
    return PIN if prompt.startswith("PIN") else PASSWORD


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("place", ["FILE", "PKCS12", "PKCS11"])
def test_a_certificate_logs_in_wherever_it_is(
    realm: PkinitRealm, users: Users, place: str, kind: str
) -> None:
    credential = Credential.from_identity(users.identity(place, kind), ask=secret)
    client = KdcClient(realm.config)
    assert str(client.get_tgt(credential, require="strong").client) == "pre@MIT.TEST"
    assert client.get_ticket(credential, "host/localhost")
    credential.wipe()


def test_the_public_calls_take_the_same_places(realm: PkinitRealm, users: Users) -> None:
    base = users.directory / "ec"
    anchors = realm.files.anchors
    for credential in (
        Credential.from_certificate(
            "pre@MIT.TEST", base.with_suffix(".crt"), base.with_suffix(".key"), anchors=anchors
        ),
        Credential.from_pkcs12(base.with_suffix(".p12"), PASSWORD, anchors=anchors.read_bytes()),
        Credential.from_pkcs11(None, users.hsm.module, "ec", pin=secret, anchors=f"FILE:{anchors}"),
    ):
        # The anchors are the caller's: krb5.conf need not have any.
        assert KdcClient(realm.config_with("pkinit_anchors = FILE:/missing")).get_tgt(credential)
        credential.wipe()


def test_asyncio_signs_on_a_card_as_well(realm: PkinitRealm, users: Users) -> None:
    credential = Credential.from_identity(users.identity("PKCS11", "ec"), ask=secret)

    async def get() -> None:
        client = aio.KdcClient(realm.config)
        assert (await client.get_tgt(credential)).is_tgt

    asyncio.run(get())
    credential.wipe()


def test_the_default_credential_is_that_of_krb5_conf_and_its_tickets_are_kept(
    realm: PkinitRealm, users: Users, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/ccache")
    config = realm.config_with(f"pkinit_identities = {users.identity('FILE', 'rsa')}")
    credential = Credential.default(config)
    assert KdcClient(config).get_ticket(credential, "host/localhost")
    assert initiate("host@localhost", config=config).step(None)
    assert len(CCache.load(tmp_path / "ccache")) == 2


# -- kinit ---------------------------------------------------------------------------------------------


@pytest.fixture
def kinit(
    realm: PkinitRealm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/ccache")

    def run(*argv: str, stdin: str = "") -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return main(["kinit", *argv])

    return run


@pytest.mark.parametrize(
    ("place", "kind", "typed"),
    [
        ("FILE", "rsa", ""),
        ("PKCS12", "ec", PASSWORD),
        ("PKCS11", "rsa", PIN),
        ("PKCS11", "ec", PIN),
    ],
)
def test_kinit_takes_the_certificate_that_is_named(
    kinit: Callable[..., int],
    users: Users,
    tmp_path: Path,
    place: str,
    kind: str,
    typed: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    identity = f"X509_user_identity={users.identity(place, kind)}"
    assert kinit("-X", identity, "-X", "disable_freshness=yes", stdin=f"{typed}\n") == 0
    assert "pre@MIT.TEST: ticket until" in capsys.readouterr().out
    cache = CCache.load(tmp_path / "ccache")
    assert {key: value for key, _, value in cache.config_entries()}["pa_type"] == b"16"


def test_kinit_takes_the_configured_certificate_and_else_the_password(
    kinit: Callable[..., int],
    realm: PkinitRealm,
    users: Users,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pa_type() -> object:
        cache = CCache.load(tmp_path / "ccache")
        return {key: value for key, _, value in cache.config_entries()}.get("pa_type")

    def configure(*relations: str) -> None:
        realm.config_with(*relations)
        newest = max(realm.directory.glob("*krb5.conf*"), key=lambda path: path.stat().st_mtime_ns)
        monkeypatch.setenv("KRB5_CONFIG", str(newest))

    configure(f"pkinit_identities = {users.identity('FILE', 'ec')}")
    assert kinit("pre") == 0
    assert pa_type() == b"16"
    (tmp_path / "ccache").unlink()
    # Without a card, and with a card whose PIN nobody can type: the password is asked for.
    for identity in ("PKCS11:/missing.so", users.identity("PKCS11", "ec")):
        configure(f"pkinit_identities = {identity}")
        assert kinit("pre", stdin="prepw\n") == 0
        assert pa_type() != b"16"
    assert "Traceback" not in capsys.readouterr().err


# -- the KDC's certificate -------------------------------------------------------------------------------


def kdc_of(issuer: Issued, *names: x509.GeneralName, **options: object) -> Issued:
    options = {"purposes": [KP_KDC], "extensions": SIGNS, "key": rsa_key(8), **SPAN, **options}
    return issuer.issue("the KDC", *names, **options)  # type: ignore[arg-type]


OTHER = authority("other CA", **SPAN)
#: What is wrong with the KDC's certificate -> the certificate, and what the error says.
BAD_KDCS: dict[str, tuple[Callable[[Issued], Issued], str]] = {
    "foreign authority": (
        lambda _ca: kdc_of(OTHER, san_of(TGS)),
        "was issued by other CA, which is none of the anchors",
    ),
    "purpose of a TLS server": (
        lambda ca: kdc_of(ca, san_of(TGS), purposes=[SERVER_AUTH]),
        "set pkinit_eku_checking = kpServerAuth",
    ),
    "purpose of a client": (
        lambda ca: kdc_of(ca, san_of(TGS), purposes=[KP_CLIENT, CLIENT_AUTH]),
        "expected that of a KDC",
    ),
    "another realm": (
        lambda ca: kdc_of(ca, san_of("krbtgt/OTHER.TEST@OTHER.TEST")),
        "is for krbtgt/OTHER.TEST@OTHER.TEST, and does not name krbtgt/MIT.TEST@MIT.TEST",
    ),
    "another host": (
        lambda ca: kdc_of(ca, x509.DNSName("kdc2.mit.test")),
        "is for kdc2.mit.test, and does not name .* or kdc1.mit.test",
    ),
    "a user": (lambda ca: kdc_of(ca, san_of("pre@MIT.TEST")), "is for pre@MIT.TEST"),
}


@pytest.fixture
def with_certificate(realm: PkinitRealm) -> Iterator[Callable[[Issued], None]]:
    """with_certificate(issued) gives the KDC that certificate."""
    files = [realm.directory / "kdc.pem", realm.directory / "kdc.key"]
    own = [path.read_bytes() for path in files]

    def put(*contents: bytes) -> None:
        for path, data in zip(files, contents, strict=True):
            path.write_bytes(data)
        # The KDC looks at its own certificate, too, and so uses none that has expired.
        others = realm.path("others.pem")
        others.write_bytes(OTHER.pem)
        realm.restart(f"pkinit_anchors = FILE:{others}")

    yield lambda issued: put(issued.pem, issued.key_pem())
    put(*own)


@pytest.mark.parametrize("case", BAD_KDCS)
def test_a_kdc_is_refused_with_the_certificate_of(
    realm: PkinitRealm,
    users: Users,
    with_certificate: Callable[[Issued], None],
    case: str,
) -> None:
    make, said = BAD_KDCS[case]
    trust = KdcTrust(realm.files.anchors, hosts=("kdc1.mit.test",))
    with_certificate(make(realm.files.authority))
    credential = Credential.from_identity(users.identity("FILE", "ec"), anchors=trust)
    with pytest.raises(CertificateError, match=said):
        KdcClient(realm.config).get_tgt(credential)
    assert not len(credential.ccache)


def test_a_kdc_is_taken_by_the_name_of_its_host_and_as_a_tls_server(
    realm: PkinitRealm, users: Users, with_certificate: Callable[[Issued], None]
) -> None:
    host = x509.DNSName("KDC1.mit.test")
    with_certificate(kdc_of(realm.files.authority, host, purposes=[SERVER_AUTH]))
    credential = Credential.from_identity(users.identity("FILE", "ec"))
    configured = realm.config_with(
        "pkinit_kdc_hostname = kdc1.mit.test", "pkinit_eku_checking = kpServerAuth"
    )
    assert KdcClient(configured).get_tgt(credential)
    for relation in ("pkinit_kdc_hostname = kdc1.mit.test", "pkinit_eku_checking = kpServerAuth"):
        with pytest.raises(CertificateError):
            KdcClient(realm.config_with(relation)).get_tgt(
                Credential.from_identity(users.identity("FILE", "ec"))
            )


def test_a_kdc_whose_certificate_was_revoked_is_refused(
    realm: PkinitRealm, users: Users, tmp_path: Path
) -> None:
    own = Issued(
        x509.load_pem_x509_certificate((realm.directory / "kdc.pem").read_bytes()), rsa_key()
    )
    ca = Issued(realm.files.authority.certificate, realm.files.authority.key)
    trust = KdcTrust(realm.files.anchors, require_crl_checking=True)
    lists = tmp_path / "crls"
    lists.mkdir()
    ends = NOW + DAY

    def log_in(trust: KdcTrust) -> object:
        credential = Credential.from_identity(users.identity("FILE", "ec"), anchors=trust)
        return KdcClient(realm.config).get_tgt(credential)

    with pytest.raises(CertificateError, match="there is no revocation list of CA"):
        log_in(trust)
    (lists / "ca.crl").write_bytes(ca.crl(ends=ends))
    trust = replace(trust, revoke=f"DIR:{lists}")
    assert log_in(trust)
    ca.revoke(own)
    (lists / "ca.crl").write_bytes(ca.crl(ends=ends))
    with pytest.raises(CertificateError, match="is revoked by CA"):
        log_in(trust)


def test_a_client_whose_certificate_has_expired_sends_nothing(
    realm: PkinitRealm, caplog: pytest.LogCaptureFixture
) -> None:
    old = realm.files.authority.issue(
        "old",
        san_of("pre@MIT.TEST"),
        purposes=[KP_CLIENT],
        begins=NOW - 2 * DAY,
        ends=NOW - DAY,
    )
    credential = Credential.from_certificate(None, old.pem, old.key_pem())
    with (
        caplog.at_level("DEBUG", "purekrb.kdc"),
        pytest.raises(CertificateError, match=r"old expired at .*: get a new one"),
    ):
        KdcClient(realm.config).get_tgt(credential)
    assert caplog.text.count("AS-REQ to MIT.TEST") <= 1  # which asked what the KDC has
