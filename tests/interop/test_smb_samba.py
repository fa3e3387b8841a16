"""smbprotocol over purekrb's provider for pyspnego, against Samba's smbd: sysvol listed and read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from purekrb import Credential, KdcClient
from support.pages import program
from support.samba import SambaDc

#: Without the C bindings, whatever is installed here.
PURE = "import sys; sys.modules['gssapi'] = sys.modules['krb5'] = None\n"


@pytest.fixture(scope="module")
def env(samba_dc: SambaDc, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    ccache = tmp_path_factory.mktemp("smb") / "ccache"
    credential = Credential.from_password(f"Administrator@{samba_dc.realm}", samba_dc.password)
    KdcClient(samba_dc.config).get_tgt(credential)
    credential.save(ccache)
    return {**samba_dc.env, "KRB5CCNAME": f"FILE:{ccache}"}


def run(code: str, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", PURE + code, *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("encrypt", "protection"), [(True, "encrypted"), (False, "signed")], ids=["encrypt", "sign"]
)
def test_sysvol_is_listed_and_read(
    samba_dc: SambaDc, env: dict[str, str], encrypt: bool, protection: str
) -> None:
    code = program("smb.md").replace("encrypt=True", f"encrypt={encrypt}")
    done = run(code, env, samba_dc.host, "sysvol")
    assert done.returncode == 0, done.stderr
    found = dict(line.split("\t") for line in done.stdout.splitlines())
    policies = rf"\\{samba_dc.host}\sysvol\{samba_dc.dns_domain}\Policies"
    name = rf"{policies}\{{31B2F340-016D-11D2-945F-00C04FB984F9}}\GPT.INI"
    local = samba_dc.directory / "state" / "sysvol" / samba_dc.dns_domain / "Policies"
    [file] = local.glob("{31B2F340*/GPT.INI")
    assert int(found[name]) == file.stat().st_size
    assert done.stderr.splitlines()[-1] == protection


def test_a_name_and_a_password_serve_and_a_wrong_one_does_not(
    samba_dc: SambaDc, env: dict[str, str], tmp_path: Path
) -> None:
    without = {**env, "KRB5CCNAME": f"FILE:{tmp_path}/none"}
    code = program("smb.md").replace(
        'auth_protocol="kerberos"',
        'auth_protocol="kerberos", username=r"ADTEST\\Administrator", password=sys.stdin.read()',
    )
    for password, works in ((samba_dc.password, True), ("wrong", False)):
        argv = [sys.executable, "-c", PURE + code, samba_dc.host, "sysvol"]
        done = subprocess.run(
            argv,
            env=without,
            input=password,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode == 0) is works, done.stderr
        assert ("GPT.INI" in done.stdout) is works
    assert "SpnegoError" in done.stderr
