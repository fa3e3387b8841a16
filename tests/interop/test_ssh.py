"""asyncssh on purekrb, by the programs of docs/ssh.md, with OpenSSH on the other side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mit import MitRealm
from support.pages import on_purekrb, program, run_on_purekrb
from support.peers import Daemon, find_program, missing_peer, on_free_port, run

SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
PidFile {directory}/pid
PasswordAuthentication no
PubkeyAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
GSSAPIAuthentication yes
GSSAPIKeyExchange yes
GSSAPIStrictAcceptorCheck no
LogLevel VERBOSE
"""


@pytest.fixture(scope="module")
def directory(mit_realm: MitRealm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a host key."""
    directory = tmp_path_factory.mktemp("ssh")
    keygen = find_program("ssh-keygen", "openssh-client")
    run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/host_key"], env=mit_realm.env)
    return directory


@pytest.fixture(scope="module")
def sshd(mit_realm: MitRealm, directory: Path) -> Iterator[tuple[int, Path]]:
    """OpenSSH's server, which lets the realm's user in as root, on loopback alone: its port and its log."""
    program = find_program("sshd", "openssh-server")
    if os.geteuid() != 0:
        missing_peer("OpenSSH's server, which needs root,", "openssh-server, as root")
    Path("/run/sshd").mkdir(exist_ok=True)
    realm = f" {mit_realm.realm} = {{\n"
    mapping = r"  auth_to_local = RULE:[1:$1@$0](user@MIT\.TEST)s/.*/root/"
    conf = mit_realm.krb5_conf.read_text().replace(realm, f"{realm}{mapping}\n", 1)
    (directory / "krb5.conf").write_text(conf)
    log = directory / "log"

    def start(port: int) -> tuple[Daemon, int]:
        config = directory / "sshd_config"
        config.write_text(SSHD_CONFIG.format(port=port, directory=directory))
        env = {
            **mit_realm.env,
            "KRB5_CONFIG": f"{directory}/krb5.conf",
            "KRB5_KTNAME": str(mit_realm.service_keytab),
        }
        return Daemon([program, "-D", "-e", "-f", str(config)], env=env, log=log, port=port), port

    daemon, port = on_free_port(start)
    yield port, log
    daemon.stop()


@pytest.fixture
def tickets(mit_realm: MitRealm) -> dict[str, str]:
    """The environment of the user, who has a forwardable TGT."""
    return {**mit_realm.env, "KRB5CCNAME": str(mit_realm.kinit("user", options=["-f"]))}


def test_the_client_of_the_page_proves_the_server_and_itself_by_key_exchange(
    sshd: tuple[int, Path], tickets: dict[str, str], tmp_path: Path
) -> None:
    port, log = sshd
    client = program("ssh.md", "# client.py")
    arguments = ["localhost", str(port), "root", "echo it runs"]
    assert run_on_purekrb(client, tmp_path, *arguments, env=tickets) == "it runs\n"
    assert "Accepted gssapi-keyex for root" in log.read_text()


def test_the_client_logs_in_with_mic_and_delegates_its_ticket(
    sshd: tuple[int, Path], tickets: dict[str, str], directory: Path, tmp_path: Path
) -> None:
    port, log = sshd
    key = (directory / "host_key.pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"[localhost]:{port} {key}")
    client = program("ssh.md", "# client.py")
    for old, new in (
        ('kex_algs=["gss-curve25519-sha256"],', "gss_kex=False,"),
        ("known_hosts=None", f"known_hosts={str(known)!r}"),
        ("gss_delegate_creds=False", "gss_delegate_creds=True"),
    ):
        assert old in client
        client = client.replace(old, new)
    arguments = ["localhost", str(port), "root", "klist"]
    shown = run_on_purekrb(client, tmp_path, *arguments, env=tickets)
    assert "Default principal: user@MIT.TEST" in shown
    assert "Accepted gssapi-with-mic for root" in log.read_text()


@pytest.mark.parametrize(
    ("key_exchange", "method"), [("yes", "gssapi-keyex"), ("no", "gssapi-with-mic")]
)
def test_openssh_logs_in_to_the_server_of_the_page(
    key_exchange: str,
    method: str,
    mit_realm: MitRealm,
    tickets: dict[str, str],
    directory: Path,
    tmp_path: Path,
) -> None:
    server = tmp_path / "server.py"
    server.write_text(program("ssh.md", "# server.py"))

    host_keys = [] if key_exchange == "yes" else [f"{directory}/host_key"]

    def start(port: int) -> tuple[Daemon, int]:
        return Daemon(
            on_purekrb(server, "localhost", str(port), *host_keys),
            env={**mit_realm.env, "KRB5_KTNAME": str(mit_realm.service_keytab)},
            log=tmp_path / "log",
            port=port,
        ), port

    daemon, port = on_free_port(start)
    known = tmp_path / "known_hosts"
    known.write_text(f"[localhost]:{port} {(directory / 'host_key.pub').read_text()}")
    options = {
        "GSSAPIAuthentication": "yes",
        "GSSAPIKeyExchange": key_exchange,
        "GSSAPIDelegateCredentials": "no",
        "PreferredAuthentications": method,
        "UserKnownHostsFile": str(known),
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
    }
    ssh = [find_program("ssh", "openssh-client"), "-F", "/dev/null", "-p", str(port)]
    ssh += [f"-o{name}={value}" for name, value in options.items()]
    try:
        assert run([*ssh, "user@localhost", "greet"], env=tickets) == "hello user\n"
        with pytest.raises(RuntimeError, match="Permission denied"):
            run([*ssh, "root@localhost", "greet"], env=tickets)
    finally:
        daemon.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()
