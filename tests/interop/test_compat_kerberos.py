"""`purekrb.compat.kerberos`: pykerberos's functions against each other, and other libraries' code over them."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb.compat import kerberos
from purekrb.testing import Realm

PROGRAMS = Path(__file__).parents[1] / "support" / "kerberos_programs.py"
SERVICE = "hive@localhost"


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as running:
        running.add_user("alice", "secret")
        running.add_user("bob", "pw: of%bob")
        running.add_service("hive/localhost", ok_as_delegate=True)
        yield running


@pytest.fixture(autouse=True)
def environment(realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    realm.write_krb5_conf(tmp_path / "krb5.conf")
    alice = purekrb.Credential.from_password("alice@EXAMPLE.TEST", "secret")
    purekrb.KdcClient(realm.config).get_tgt(alice, forwardable=True)
    alice.save(tmp_path / "ccache")
    realm.keytab("hive/localhost").save(tmp_path / "keytab")
    files = {
        "KRB5_CONFIG": str(tmp_path / "krb5.conf"),
        "KRB5CCNAME": f"FILE:{tmp_path}/ccache",
        "KRB5_KTNAME": f"FILE:{tmp_path}/keytab",
        "KRB5RCACHENAME": f"file2:{tmp_path}/rcache",
    }
    for name, value in files.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **files, "PASSWORD": "secret"}


def contexts(server_name: str = SERVICE, **options: Any) -> tuple[Any, Any]:
    """Return a client's and a server's complete contexts."""
    result, client = kerberos.authGSSClientInit(SERVICE, **options)
    assert result == kerberos.AUTH_GSS_COMPLETE
    result, server = kerberos.authGSSServerInit(server_name)
    assert result == kerberos.AUTH_GSS_COMPLETE
    assert kerberos.authGSSClientStep(client, "") == kerberos.AUTH_GSS_CONTINUE
    token = kerberos.authGSSClientResponse(client)
    assert isinstance(token, str)
    assert kerberos.authGSSServerStep(server, token) == kerberos.AUTH_GSS_COMPLETE
    answer = kerberos.authGSSServerResponse(server)
    assert kerberos.authGSSClientStep(client, answer) == kerberos.AUTH_GSS_COMPLETE
    return client, server


@pytest.mark.parametrize("mech", [None, kerberos.GSS_MECH_OID_KRB5, kerberos.GSS_MECH_OID_SPNEGO])
@pytest.mark.parametrize("server_name", [SERVICE, "", "hive/localhost"])
def test_both_sides_complete_and_name_each_other(mech: Any, server_name: str) -> None:
    client, server = contexts(server_name, mech_oid=mech)
    assert kerberos.authGSSClientUserName(client) == "alice@EXAMPLE.TEST"
    assert kerberos.authGSSServerUserName(server) == "alice@EXAMPLE.TEST"
    assert kerberos.authGSSServerTargetName(server) == "hive/localhost@EXAMPLE.TEST"
    assert kerberos.authGSSClientClean(client) == kerberos.AUTH_GSS_COMPLETE
    assert kerberos.authGSSServerClean(server) == kerberos.AUTH_GSS_COMPLETE
    with pytest.raises(kerberos.GSSError):
        kerberos.authGSSClientWrap(client, "")


@pytest.mark.parametrize(
    ("options", "principal"),
    [
        ({"principal": "alice@EXAMPLE.TEST"}, "alice@EXAMPLE.TEST"),
        ({"principal": "bob%40EXAMPLE.TEST:pw%3A%20of%25bob"}, "bob@EXAMPLE.TEST"),
        ({"user": "bob", "domain": "example.test", "password": "pw: of%bob"}, "bob@EXAMPLE.TEST"),
        ({"user": "bob", "password": "pw: of%bob"}, "bob@EXAMPLE.TEST"),
    ],
    ids=["cache", "principal-with-password", "domain", "default-realm"],
)
def test_a_client_is_who_the_arguments_say(options: dict[str, Any], principal: str) -> None:
    assert kerberos.authGSSServerUserName(contexts(**options)[1]) == principal


def test_data_are_wrapped_and_unwrapped_both_ways() -> None:
    client, server = contexts()
    data = base64.b64encode(b"some data").decode()
    for protect in (0, 1):
        for one, other in ((client, server), (server, client)):
            assert kerberos.authGSSClientWrap(one, data, None, protect) == 1
            token = kerberos.authGSSClientResponse(one)
            assert token is not None
            assert (b"some data" in base64.b64decode(token)) == (not protect)
            assert kerberos.authGSSClientUnwrap(other, token) == 1
            assert kerberos.authGSSClientResponse(other) == data
            assert kerberos.authGSSClientResponseConf(other) == protect
    kerberos.authGSSClientWrapIov(client, data, 1)
    kerberos.authGSSClientUnwrapIov(server, kerberos.authGSSClientResponse(client) or "")
    assert kerberos.authGSSClientResponse(server) == data


def test_messages_of_winrm_go_in_two_parts() -> None:
    client, server = contexts()
    for message in (b"<xml/>", b"", bytes(range(256)) * 100):
        encrypted, header = kerberos.authGSSWinRMEncryptMessage(client, message)
        assert len(encrypted) == len(message)
        assert kerberos.authGSSWinRMDecryptMessage(server, encrypted, header) == message
    encrypted, header = kerberos.authGSSWinRMEncryptMessage(client, "text")
    with pytest.raises(kerberos.GSSError):
        kerberos.authGSSWinRMDecryptMessage(server, encrypted[::-1], header)
    assert kerberos.authGSSWinRMDecryptMessage(server, encrypted, header) == b"text"
    kerberos.authGSSClientWrap(client, base64.b64encode(b"signed").decode())
    signed = base64.b64decode(kerberos.authGSSClientResponse(client) or "")
    with pytest.raises(kerberos.GSSError, match="only signed"):
        kerberos.authGSSWinRMDecryptMessage(server, signed[16:], signed[:16])


def test_channel_bindings_reach_the_server() -> None:
    from purekrb import Acceptor, ChannelBindings, ChannelBindingsError, Keytab

    keytab = Keytab.load(os.environ["KRB5_KTNAME"])
    ours = ChannelBindings(application_data=b"tls-server-end-point:x")
    for data, right in ((b"tls-server-end-point:x", True), (b"tls-server-end-point:y", False)):
        _, client = kerberos.authGSSClientInit(SERVICE)
        bindings = kerberos.channelBindings(application_data=data)
        kerberos.authGSSClientStep(client, "", channel_bindings=bindings)
        token = base64.b64decode(kerberos.authGSSClientResponse(client) or "")
        acceptor = Acceptor(keytab, channel_bindings=ours)
        if right:
            acceptor.step(token)
            assert acceptor.channel_bound
        else:
            with pytest.raises(ChannelBindingsError):
                acceptor.step(token)


def test_a_delegated_tgt_serves_the_next_client(realm: Realm) -> None:
    flags = kerberos.GSS_C_MUTUAL_FLAG | kerberos.GSS_C_DELEG_FLAG
    _, server = contexts(gssflags=flags)
    assert kerberos.authGSSServerHasDelegated(server)
    assert kerberos.authGSSServerStoreDelegate(server) == 1
    name = kerberos.authGSSServerCacheName(server)
    assert name is not None
    path = Path(name.removeprefix("FILE:"))
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        kept = purekrb.Credential.from_ccache(purekrb.CCache.load(name))
        assert str(kept.principal) == "alice@EXAMPLE.TEST"
    finally:
        path.unlink()
    _, second = contexts(delegated=server)
    assert kerberos.authGSSServerUserName(second) == "alice@EXAMPLE.TEST"
    assert not kerberos.authGSSServerHasDelegated(contexts()[1])


def test_passwords_are_checked_with_the_services_key() -> None:
    assert kerberos.checkPassword("alice", "secret", "hive/localhost", "EXAMPLE.TEST")
    assert kerberos.checkPassword("alice@EXAMPLE.TEST", "secret", SERVICE, "", verify=False)
    with pytest.raises(kerberos.BasicAuthError) as refused:
        kerberos.checkPassword("alice", "wrong", "hive/localhost", "EXAMPLE.TEST")
    assert refused.value.args[1] == -1765328360  # KRB5KDC_ERR_PREAUTH_FAILED
    assert "wrong" not in str(refused.value).lower().replace("wrong password", "")
    with pytest.raises(kerberos.BasicAuthError):
        kerberos.checkPassword("alice", "secret", "other/localhost", "EXAMPLE.TEST")


def test_a_password_is_changed(realm: Realm) -> None:
    realm.add_user("carol", "first")
    with pytest.raises(kerberos.PwdChangeError):
        kerberos.changePassword("carol", "wrong", "second")
    assert kerberos.changePassword("carol@EXAMPLE.TEST", "first", "second")
    assert kerberos.checkPassword("carol", "second", SERVICE, "")
    with pytest.raises(kerberos.BasicAuthError):
        kerberos.checkPassword("carol", "first", SERVICE, "")


def test_the_keytab_is_asked_for_a_service() -> None:
    found = kerberos.getServerPrincipalDetails("hive", "LOCALHOST")
    assert found == "hive/localhost@EXAMPLE.TEST"
    with pytest.raises(kerberos.KrbError):
        kerberos.getServerPrincipalDetails("hive", "elsewhere")


def test_errors_hold_the_words_and_numbers_of_gss_api(monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = kerberos.authGSSClientInit("nobody@localhost")
    with pytest.raises(kerberos.GSSError) as refused:
        kerberos.authGSSClientStep(client, "")
    (major_text, major), (minor_text, minor) = refused.value.args
    assert (major, minor) == (13 << 16, -1765328377)  # KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN
    assert "Unspecified GSS failure" in major_text
    assert "Server not found in Kerberos database" in minor_text
    _, server = kerberos.authGSSServerInit(SERVICE)
    for token in ("!!", base64.b64encode(b"no token").decode()):
        with pytest.raises(kerberos.GSSError):
            kerberos.authGSSServerStep(server, token)
    with pytest.raises(TypeError, match="context object"):
        kerberos.authGSSClientStep(None, "")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="of a client"):
        kerberos.authGSSClientStep(server, "")
    monkeypatch.setenv("KRB5CCNAME", "FILE:/nonexistent/ccache")
    with pytest.raises(kerberos.GSSError) as refused:
        kerberos.authGSSClientInit(SERVICE, principal="alice@EXAMPLE.TEST")
    assert refused.value.args[0][1] == 7 << 16  # GSS_S_NO_CRED


def run(program: str, module: str, env: dict[str, str]) -> str:
    argv = [sys.executable, str(PROGRAMS), program, module]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pure_sasl_agrees_on_each_quality_of_protection(environment: dict[str, str]) -> None:
    alice = "alice@EXAMPLE.TEST alice@EXAMPLE.TEST"
    said = run("pure-sasl", "kerberos", environment)
    assert said == f"auth {alice}\nauth-int {alice} True\nauth-conf {alice} False\n"


@pytest.mark.parametrize("module", ["kerberos", "winkerberos"])
def test_pymongo_authenticates(module: str, environment: dict[str, str]) -> None:
    assert run("pymongo", module, environment) == "alice@EXAMPLE.TEST alice@EXAMPLE.TEST\n" * 2
