"""Binds inside of TLS that nobody verified, or that nothing can tie to it (K403, K412)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from purekrb import (
    ChannelBindings,
    Credential,
    DecodeError,
    KerberosError,
    Keytab,
    PolicyError,
    UnsupportedError,
)
from purekrb.directory import Directory
from purekrb.directory.ldap import ldap3
from purekrb.integrations import ldap3_sasl
from purekrb.testing import Realm
from support.contexts import flipped
from support.ldap_stub import LdapStub
from support.tls import Authority, self_signed

DC = "dc1.example.test"
TARGET = f"ldap/{DC}"
BASE = "DC=example,DC=test"
ONE = [(f"CN=one,{BASE}", {"cn": [b"one"]})]

Realms = tuple[Realm, Keytab, Credential]

# ldap3 calls what Python 3.10 and 3.11 deprecate.
pytestmark = pytest.mark.filterwarnings("ignore:ssl.match_hostname")


@pytest.fixture(scope="module")
def lab() -> Iterator[Realms]:
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        yield realm, realm.add_service(TARGET), alice


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def bind(
    lab: Realms, stub: LdapStub, tls: Any, start_tls: bool, strategy: str = "SYNC", **options: Any
) -> Any:
    """Return an ldap3 connection inside of TLS that `ldap3_sasl` has bound."""
    server = ldap3.Server(stub.host, stub.port, use_ssl=not start_tls, tls=tls, get_info=ldap3.NONE)
    connection = ldap3.Connection(server, client_strategy=strategy)
    if start_tls:
        connection.open(read_server_info=False)
        connection.start_tls(read_server_info=False)
    ldap3_sasl.bind(connection, lab[2], lab[0].config, **{"target": TARGET, **options})
    return connection


def names(stub: LdapStub) -> list[str]:
    return [request.name for request in stub.requests]


def verifying(authority: Authority, **options: Any) -> Any:
    return ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(authority.ca), **options)


#: ldap3's Tls, and the name in the server's certificate: nobody has verified that it is the directory's.
UNVERIFIED = [
    pytest.param(lambda authority: None, DC, id="K403-ldap3-default"),
    pytest.param(lambda authority: ldap3.Tls(), DC, id="K403-tls-default"),
    pytest.param(
        lambda authority: ldap3.Tls(validate=ssl.CERT_NONE, valid_names=[DC]),
        DC,
        id="K403-names-alone",
    ),
    pytest.param(
        lambda authority: verifying(authority, valid_names="*"),
        "evil.example.test",
        id="K403-any-name",
    ),
    pytest.param(
        lambda authority: verifying(authority, valid_names=["*"]),
        "evil.example.test",
        id="K403-any-names",
    ),
]


@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "starttls"])
@pytest.mark.parametrize(("tls", "name"), UNVERIFIED)
def test_a_bind_inside_of_tls_that_nobody_verified_is_refused(
    lab: Realms, authority: Authority, tls: Callable[[Authority], Any], name: str, start_tls: bool
) -> None:
    server = authority.server(name)
    with LdapStub(lab[1], tls=server.context, ldaps=not start_tls) as stub:
        with pytest.raises(PolicyError, match="nobody verified"):
            bind(lab, stub, tls(authority), start_tls)
        assert "bindRequest" not in names(stub)
        # The caller may say that it knows.
        connection = bind(lab, stub, tls(authority), start_tls, allow_unverified_tls=True)
        assert connection.bound
        connection.unbind()


@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "starttls"])
@pytest.mark.parametrize("strategy", ["SYNC", "RESTARTABLE"])
@pytest.mark.parametrize("validate", [ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL])
def test_k403_control_a_bind_inside_of_verified_tls_is_accepted_again_and_again(
    lab: Realms, authority: Authority, start_tls: bool, strategy: str, validate: ssl.VerifyMode
) -> None:
    server = authority.server(DC)
    options = {"tls": server.context, "ldaps": not start_tls, "certificate": server.der}
    tls = ldap3.Tls(validate=validate, ca_certs_file=str(authority.ca), valid_names=[DC])
    with LdapStub(lab[1], ONE, **options) as stub:
        connection = bind(lab, stub, tls, start_tls, strategy)
        assert connection.search(BASE, "(objectClass=*)", attributes=["cn"])
        assert connection.rebind()
        assert connection.search(BASE, "(objectClass=*)", attributes=["cn"])
        assert all(context.channel_bound for context in stub.contexts)
        connection.unbind()


def test_k403_the_name_of_the_target_counts_and_another_hosts_does_not(
    lab: Realms, authority: Authority
) -> None:
    for name, refused in (
        (DC, False),
        ("*.example.test", False),
        (f"{DC}.evil.test", True),
        ("*.test", True),
    ):
        server = authority.server(name)
        with LdapStub(lab[1], tls=server.context, ldaps=True) as stub:
            if refused:
                with pytest.raises(PolicyError, match="nobody verified"):
                    bind(lab, stub, verifying(authority, valid_names="*"), False)
            else:
                assert bind(lab, stub, verifying(authority, valid_names="*"), False).unbind()


def test_k403_a_later_bind_is_refused_where_tls_is_not_verified_any_more(
    lab: Realms, authority: Authority
) -> None:
    server = authority.server(DC)
    with LdapStub(lab[1], tls=server.context, ldaps=True) as stub:
        connection = bind(lab, stub, verifying(authority, valid_names=[DC]), False)
        connection.unbind()
        connection.server.tls.validate = ssl.CERT_NONE
        before = names(stub).count("bindRequest")
        with pytest.raises(PolicyError, match="nobody verified"):
            connection.bind()
        assert names(stub).count("bindRequest") == before


def blind() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def nameless(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca)
    context.check_hostname = False
    return context


@pytest.mark.parametrize("ldaps", [True, False], ids=["ldaps", "starttls"])
@pytest.mark.parametrize(
    ("context", "name", "refused"),
    [
        pytest.param(lambda authority: blind(), DC, True, id="K403-context-without-verification"),
        pytest.param(nameless, "evil.example.test", True, id="K403-context-without-names"),
        pytest.param(nameless, DC, False, id="K403-control-the-name-is-right-all-the-same"),
        pytest.param(
            lambda authority: ssl.create_default_context(cafile=authority.ca),
            DC,
            False,
            id="K403-control-default",
        ),
    ],
)
def test_a_context_of_the_callers_that_verifies_nothing_is_refused_unless_the_caller_says_so(
    lab: Realms, authority: Authority, context: Any, name: str, refused: bool, ldaps: bool
) -> None:
    server = authority.server(name)
    options = {"target": TARGET, "start_tls": not ldaps, "tls_context": context(authority)}
    with LdapStub(lab[1], tls=server.context, ldaps=ldaps) as stub:
        if refused:
            with pytest.raises(PolicyError, match="nobody verified"):
                Directory.connect(stub.url, lab[2], lab[0].config, **options)
            assert "bindRequest" not in names(stub)
            options["allow_unverified_tls"] = True
        Directory.connect(stub.url, lab[2], lab[0].config, **options).close()
        assert "bindRequest" in names(stub)


# K412 -------------------------------------------------------------------------------------------------------------


UNHASHED = [
    pytest.param(ed25519.Ed25519PrivateKey.generate, id="K412-ed25519"),
    pytest.param(ed448.Ed448PrivateKey.generate, id="K412-ed448"),
]


@pytest.mark.parametrize("ldaps", [True, False], ids=["ldaps", "starttls"])
@pytest.mark.parametrize("generate", UNHASHED)
def test_a_certificate_that_bindings_cannot_name_is_refused_and_never_bound_without(
    lab: Realms, tmp_path: Path, generate: Callable[[], Any], ldaps: bool
) -> None:
    authority = Authority(tmp_path, key=generate())
    server = authority.server(DC)
    with LdapStub(lab[1], tls=server.context, ldaps=ldaps) as stub:
        with pytest.raises(PolicyError, match="the bind cannot be tied to TLS"):
            Directory.connect(
                stub.url,
                lab[2],
                lab[0].config,
                target=TARGET,
                start_tls=not ldaps,
                ca_file=authority.ca,
            )
        for options in ({}, {"allow_unverified_tls": True}):
            with pytest.raises(PolicyError, match="the bind cannot be tied to TLS"):
                bind(lab, stub, verifying(authority, valid_names=[DC]), not ldaps, **options)
        assert "bindRequest" not in names(stub)


def test_k412_control_a_certificate_with_a_hash_is_bound(lab: Realms, authority: Authority) -> None:
    server = authority.server(DC)
    with LdapStub(lab[1], tls=server.context, ldaps=True, certificate=server.der) as stub:
        Directory.connect(
            stub.url, lab[2], lab[0].config, target=TARGET, ca_file=authority.ca
        ).close()
        assert stub.contexts[0].channel_bound


def pss(message_hash: Any, mask_hash: Any) -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return self_signed(key, message_hash, padding.PSS(padding.MGF1(mask_hash), 32))


#: How a certificate is made, and the hash of its bindings; None: RFC 5929 4.1 defines none.
CERTIFICATES = [
    pytest.param(
        lambda: self_signed(ed25519.Ed25519PrivateKey.generate(), None), None, id="K412-ed25519"
    ),
    pytest.param(
        lambda: self_signed(ed448.Ed448PrivateKey.generate(), None), None, id="K412-ed448"
    ),
    pytest.param(
        lambda: pss(hashes.SHA512(), hashes.SHA256()), None, id="K412-pss-with-two-hashes"
    ),
    pytest.param(
        lambda: pss(hashes.SHA384(), hashes.SHA384()), hashes.SHA384(), id="K412-control-pss"
    ),
    pytest.param(
        lambda: self_signed(ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        hashes.SHA384(),
        id="K412-control-ecdsa",
    ),
    pytest.param(
        lambda: self_signed(ec.generate_private_key(ec.SECP256R1()), hashes.SHA3_256()),
        hashes.SHA3_256(),
        id="K412-control-sha3",
    ),
]


@pytest.mark.parametrize(("make", "hash_function"), CERTIFICATES)
def test_the_bindings_of_a_certificate_have_its_hash_or_there_are_none(
    make: Callable[[], bytes], hash_function: hashes.HashAlgorithm | None
) -> None:
    der = make()
    if hash_function is None:
        with pytest.raises(UnsupportedError, match="no single hash"):
            ChannelBindings.tls_server_end_point(der)
        return
    digest = hashes.Hash(hash_function)
    digest.update(der)
    expected = b"tls-server-end-point:" + digest.finalize()
    assert ChannelBindings.tls_server_end_point(der).application_data == expected


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize(
    "make", [CERTIFICATES[n].values[0] for n in (0, 2, 4)], ids=["ed25519", "pss", "ec"]
)
def test_k412_a_damaged_certificate_has_bindings_or_a_typed_error(
    make: Callable[[], bytes],
) -> None:
    der = make()
    outcomes = set()
    for bit in range(0, 8 * len(der), 5):
        try:
            outcomes.add(
                len(ChannelBindings.tls_server_end_point(flipped(der, bit)).application_data) > 30
            )
        except KerberosError as error:
            outcomes.add(type(error))
    assert outcomes <= {True, DecodeError, UnsupportedError}
    assert len(outcomes) > 1
