"""`purekrb.compat.install("spnego")`: pyspnego with purekrb's Kerberos inside, loaded before or after."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import purekrb
from purekrb.testing import Realm
from support.pages import program
from support.web import web_server

#: Without the C bindings, whatever is installed here.
PURE = "import sys; sys.modules['gssapi'] = sys.modules['krb5'] = None\n"
INSTALL = "import purekrb.compat; purekrb.compat.install('spnego')\n"
PAIR = """
import spnego
from spnego import ContextReq as Req
def pair(username=None, password=None, req=Req.default, **options):
    client = spnego.client(username, password, "localhost", "HTTP", context_req=req, **options)
    server = spnego.server("localhost", "HTTP", **options)
    token = client.step()
    while token:
        token = server.step(token)
        token = client.step(token) if token else None
    return client, server
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    directory = tmp_path_factory.mktemp("spnego")
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "secret")
        realm.add_service("HTTP/localhost").save(directory / "keytab")
        realm.write_krb5_conf(directory / "krb5.conf")
        purekrb.KdcClient(realm.config).get_tgt(alice, forwardable=True)
        alice.save(directory / "ccache")
        yield {
            **os.environ,
            "KRB5_CONFIG": f"{directory}/krb5.conf",
            "KRB5CCNAME": f"FILE:{directory}/ccache",
            "KRB5_KTNAME": f"FILE:{directory}/keytab",
            "KRB5RCACHENAME": f"file2:{directory}/rcache",
        }


def run(code: str, env: dict[str, str], *arguments: str) -> str:
    argv = [sys.executable, *(arguments or ("-c", code))]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_provider_is_there_whichever_is_loaded_first(order: str, env: dict[str, str]) -> None:
    first = (INSTALL, "import spnego\n") if order == "before" else ("import spnego\n", INSTALL)
    report = "client, server = pair(protocol='kerberos')\n" + (
        "print(type(client).__module__, client.complete, server.client_principal)"
    )
    said = run(PURE + "".join(first) + INSTALL + PAIR + report, env)
    assert said == "purekrb.compat.spnego True alice@EXAMPLE.TEST\n"


def test_without_the_provider_pyspnego_has_no_kerberos_here(env: dict[str, str]) -> None:
    code = PURE + PAIR + "try: pair(protocol='kerberos')\nexcept ImportError: print('none')"
    assert run(code, env) == "none\n"


def test_messages_pass_both_ways_in_each_form(env: dict[str, str]) -> None:
    code = """
for protocol in ("kerberos", "negotiate"):
    client, server = pair(protocol=protocol)
    for one, other in ((client, server), (server, client)):
        for encrypt in (True, False):
            wrapped = one.wrap(b"data", encrypt=encrypt)
            assert wrapped.encrypted is encrypt
            assert (b"data" in wrapped.data) is not encrypt
            assert other.unwrap(wrapped.data) == (b"data", encrypt, 0)
        other.verify(b"signed", one.sign(b"signed"))
        sealed = one.wrap_winrm(b"<xml/>")
        assert len(sealed.data) == 6 and sealed.padding_length == 0
        assert other.unwrap_winrm(sealed.header, sealed.data) == b"<xml/>"
        signed = one.wrap(b"only signed", encrypt=False).data
        try: other.unwrap_winrm(signed[:16], signed[16:])
        except spnego.exceptions.SpnegoError as error: assert "only signed" in str(error)
        else: raise SystemExit("taken")
        B = spnego.iov.BufferType
        iov = one.wrap_iov([B.header, (B.sign_only, b"head"), b"body", B.trailer])
        back = other.unwrap_iov(iov.buffers)
        assert back.buffers[2].data == b"body" and back.encrypted
    assert client.session_key == server.session_key and len(client.session_key) == 32
    print(protocol, client.negotiated_protocol, client.query_message_sizes().header)
"""
    said = run(PURE + INSTALL + PAIR + code, env)
    assert said == "kerberos kerberos 60\nnegotiate kerberos 60\n"


def test_each_kind_of_credential_serves(env: dict[str, str]) -> None:
    code = f"""
for given in (
    ("alice@EXAMPLE.TEST", "secret"), ("alice", "secret"), (r"EXAMPLE\\alice", "secret"),
    (r"example.test\\alice", "secret"), ("alice@EXAMPLE.TEST", None), (None, None),
    (spnego.KerberosCCache({env["KRB5CCNAME"]!r}), None),
):
    print(pair(*given, protocol="kerberos")[1].client_principal)
for wrong in (("alice", "wrong"), ("nobody", "x")):
    try: spnego.client(*wrong, "localhost", protocol="kerberos")
    except spnego.exceptions.SpnegoError as error:
        assert "wrong " not in str(error).replace("wrong password", "")
        print(type(error).__name__)
"""
    said = run(PURE + INSTALL + PAIR + code, env)
    assert said == "alice@EXAMPLE.TEST\n" * 7 + "SpnegoError\n" * 2


def test_the_flags_are_those_that_were_asked_for(env: dict[str, str]) -> None:
    code = """
wanted = Req.mutual_auth | Req.sequence_detect | Req.no_integrity
for req in (Req.default, wanted, Req.default | Req.delegate, Req.default | Req.delegate_policy):
    client, _ = pair(req=req, protocol="kerberos")
    print(int(client.context_attr))
"""
    # The KDC does not mark the service OK-AS-DELEGATE: delegate does not ask, delegate_policy does.
    assert run(PURE + INSTALL + PAIR + code, env) == "62\n10\n63\n62\n"


def test_unmodified_programs_get_the_provider_by_the_runner(
    env: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        PURE.replace("'gssapi'", "'none'")
        + PAIR
        + "print(type(pair(protocol='kerberos')[0]).__module__)"
    )
    assert run("", env, "-m", "purekrb.compat", str(program)) == "purekrb.compat.spnego\n"


def test_the_program_of_the_page_signs_in_by_requests_kerberos(env: dict[str, str]) -> None:
    keytab = purekrb.Keytab.load(env["KRB5_KTNAME"])
    code = PURE + program("pyspnego.md")
    with web_server(lambda: purekrb.Acceptor(keytab)) as url:
        assert "alice@EXAMPLE.TEST" in run("", env, "-c", code, url)
    with Realm("OTHER.TEST") as other:
        foreign = other.add_service("HTTP/localhost")
    with web_server(lambda: purekrb.Acceptor(foreign)) as url, pytest.raises(AssertionError):
        run("", env, "-c", code, url)


def test_a_missing_pyspnego_is_told_with_the_extra(env: dict[str, str]) -> None:
    hidden = (
        "import sys, importlib.util, purekrb.compat\npurekrb.compat.find_spec = lambda name: None\n"
    )
    code = hidden + (
        "try: purekrb.compat.install('spnego')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print('spnego' in purekrb.compat.available())"
    )
    assert run(code, env) == (
        "UnsupportedError the package spnego is not installed: "
        "run `pip install purekrb[spnego]`\nFalse\n"
    )
