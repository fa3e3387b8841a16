"""pyspnego's own tests pass on purekrb's provider: contexts with Kerberos and Negotiate, and all others."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import purekrb
from purekrb.testing import Realm
from support.peers import run

SUITE = Path(__file__).parents[1] / "support" / "pyspnego_suite.py"
REALM, HOST = "PYSPNEGO.TEST", "host.pyspnego.test"

#: Why a test of pyspnego is skipped, in part of its own words. Everything else passes.
NOT_HAD = {
    "SSPI": "needs Windows",
    "WindowsError": "needs Windows",
    "NTLM to be available through GSSAPI": "needs NTLM as a mechanism of GSS-API: purekrb has none",
    "hashlib does not support md4": "needs MD4 in OpenSSL",
    "ruamel": "needs a package for YAML",
}


def unpacked(directory: Path) -> Path:
    """Return the directory with the source of the pyspnego that is installed here."""
    version = importlib.metadata.version("pyspnego")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    run([*argv, f"--dest={directory}", f"pyspnego=={version}"], env=os.environ)
    with tarfile.open(directory / f"pyspnego-{version}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    return directory / f"pyspnego-{version}"


def test_pyspnegos_own_tests_pass_on_purekrb(tmp_path: Path) -> None:
    source = unpacked(tmp_path)
    with Realm(REALM) as realm:
        user = realm.add_user("user", "pw")
        keytab = realm.add_service(f"host/{HOST}", ok_as_delegate=True)
        realm.write_krb5_conf(tmp_path / "krb5.conf")
        keytab.save(tmp_path / "acceptor.keytab")
        purekrb.Keytab.from_password(f"user@{REALM}", "pw").save(tmp_path / "client.keytab")
        purekrb.KdcClient(realm.config).get_tgt(user, forwardable=True)
        user.save(tmp_path / "ccache")
        described = {
            "realm": REALM,
            "hostname": HOST,
            "service": "host",
            "username": f"user@{REALM}",
            "password": "pw",
            "client_keytab": f"{tmp_path}/client.keytab",
            "acceptor_username": f"host/{HOST}@{REALM}",
            "acceptor_keytab": f"{tmp_path}/acceptor.keytab",
            "ccache": f"FILE:{tmp_path}/ccache",
        }
        env = {
            **os.environ,
            "KRB5_CONFIG": f"{tmp_path}/krb5.conf",
            "KRB5CCNAME": f"FILE:{tmp_path}/ccache",
            "KRB5_KTNAME": f"FILE:{tmp_path}/acceptor.keytab",
            "KRB5RCACHENAME": f"file2:{tmp_path}/rcache",
            "PYSPNEGO_TEST_KERBEROS": json.dumps(described),
        }
        argv = [sys.executable, str(SUITE), "tests"]
        done = subprocess.run(
            argv, cwd=source, env=env, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["provider"] == "purekrb.compat.spnego.KerberosProxy"
    outcomes: dict[str, str] = result["outcomes"]
    others = {name: said for name, said in outcomes.items() if said != "passed"}
    unexplained = {
        name: said
        for name, said in others.items()
        if "failed:" in said or not any(part in said for part in NOT_HAD)
    }
    assert unexplained == {}
    passed = Counter(name.partition("::")[0] for name, said in outcomes.items() if said == "passed")
    with_kerberos = [
        name
        for name in outcomes
        if name.startswith("tests/test_auth") and ("kerberos" in name or "negotiate" in name)
    ]
    assert len(with_kerberos) >= 25
    assert passed["tests/test_gss.py"] >= 20
    assert sum(passed.values()) >= 600
