"""WinRM clients over purekrb: pywinrm (its vendored requests_kerberos) and pypsrp, as the page on WinRM shows them."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import purekrb
from purekrb import Acceptor, ChannelBindings, Keytab
from purekrb.testing import Realm
from support.pages import program
from support.tls import Authority
from support.winrm_server import winrm_server

#: Without the C bindings, whatever is installed here.
PURE = "import sys; sys.modules['gssapi'] = sys.modules['krb5'] = None\n"


class Lab(NamedTuple):
    keytab: Keytab
    foreign: Keytab
    env: dict[str, str]
    directory: Path

    def run(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", PURE + code, *arguments]
        return subprocess.run(
            argv, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )

    def acceptor(self, **options: Any) -> Acceptor:
        return Acceptor(self.keytab, **options)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("winrm")
    with Realm("EXAMPLE.TEST") as realm, Realm("OTHER.TEST") as other:
        alice = realm.add_user("alice", "pw")
        # pywinrm asks for HTTP, pypsrp for host.
        keytab = Keytab(
            [*realm.add_service("HTTP/localhost"), *realm.add_service("host/localhost")]
        )
        realm.write_krb5_conf(directory / "krb5.conf")
        purekrb.KdcClient(realm.config).get_tgt(alice)
        alice.save(directory / "ccache")
        yield Lab(
            keytab,
            other.add_service("HTTP/localhost"),
            {
                **os.environ,
                "KRB5_CONFIG": f"{directory}/krb5.conf",
                "KRB5CCNAME": f"FILE:{directory}/ccache",
                "KRB5RCACHENAME": f"file2:{directory}/rcache",
            },
            directory,
        )


def output_of(line: str) -> str:
    return f"{line} says something\n" * 300


def test_pywinrm_runs_a_command_with_encrypted_messages(lab: Lab) -> None:
    with winrm_server(lab.acceptor, output_of) as server:
        url = f"http://localhost:{server.port}/wsman"
        done = lab.run(program("winrm.md", "import winrm"), url, "ipconfig")
        assert done.returncode == 0, (done.stderr, server.refused)
        assert done.stdout == output_of("ipconfig /all")
        assert set(server.clients) == {"alice@EXAMPLE.TEST"}
        assert server.sealed >= 4
        assert server.plain == 0


@pytest.mark.parametrize("auth", ["kerberos", "negotiate"])
def test_pypsrp_runs_a_command_with_encrypted_messages(lab: Lab, auth: str) -> None:
    code = program("winrm.md", "from pypsrp").replace('auth="kerberos"', f'auth="{auth}"')
    with winrm_server(lab.acceptor, output_of) as server:
        done = lab.run(code, "localhost", str(server.port), "ipconfig")
        assert done.returncode == 0, (done.stderr, server.refused)
        assert done.stdout == output_of("ipconfig")
        assert set(server.clients) == {"alice@EXAMPLE.TEST"}
        assert server.sealed >= 4
        assert server.plain == 0


@pytest.mark.parametrize(
    ("containing", "replaced", "by"),
    [
        (
            "import winrm",
            'message_encryption="always"',
            "server_cert_validation='validate', ca_trust_path=sys.argv.pop()",
        ),
        (
            "from pypsrp",
            'ssl=False, auth="kerberos", encryption="always"',
            'ssl=True, auth="kerberos", cert_validation=sys.argv.pop()',
        ),
    ],
    ids=["pywinrm", "pypsrp"],
)
def test_channel_bindings_are_sent_over_https(
    lab: Lab, containing: str, replaced: str, by: str
) -> None:
    certificate = Authority(lab.directory).issue(["localhost"], stem="winrm")
    bindings = ChannelBindings.tls_server_end_point(certificate.public_bytes(Encoding.DER))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(lab.directory / "winrm.pem", lab.directory / "winrm.key")
    # The program pops the CA's file before it reads its other arguments.
    code = program("winrm.md", containing).replace(replaced, by.replace("sys.argv.pop()", "ca"))
    code = code.replace("import sys\n", "import sys\nca = sys.argv.pop()\n", 1)
    with winrm_server(
        lambda: lab.acceptor(channel_bindings=bindings, require_channel_bindings=True),
        output_of,
        tls,
    ) as server:
        address = (
            (f"https://localhost:{server.port}/wsman",)
            if containing == "import winrm"
            else ("localhost", str(server.port))
        )
        done = lab.run(code, *address, "ipconfig", f"{lab.directory}/ca.pem")
        assert done.returncode == 0, (done.stderr, server.refused)
        assert done.stdout.startswith("ipconfig")
        assert set(server.channel_bound) == {True}
        # pywinrm sends its first token before it has seen the certificate.
        assert len(server.refused) == (containing == "import winrm")
        assert server.plain >= 4


def test_a_server_with_another_key_gets_nothing(lab: Lab) -> None:
    for containing, arguments in (
        ("import winrm", ("http://localhost:{}/wsman", "ipconfig")),
        ("from pypsrp", ("localhost", "{}", "ipconfig")),
    ):
        with winrm_server(lambda: Acceptor(lab.foreign), output_of) as server:
            places = [argument.format(server.port) for argument in arguments]
            done = lab.run(program("winrm.md", containing), *places)
            assert done.returncode != 0
            assert server.refused
            assert server.sealed == server.plain == 0
