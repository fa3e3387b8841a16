"""What rotates keys on a timer: the units in examples/systemd, and the objects in examples/kubernetes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from purekrb.cli import parser

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "examples" / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.iterdir())


def unit(name: str) -> ConfigParser:
    found = ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[method-assign,assignment]
    found.read_string((SYSTEMD / name).read_text())
    return found


def check_command(words: list[str]) -> None:
    """Check that purekrb knows this command with these arguments."""
    assert Path(words[0]).name == "purekrb"
    args = parser().parse_args(words[1:])
    assert (args.action, args.reset) == ("rotate", False)
    assert args.keytab.endswith("/service.keytab")


def test_the_units_run_a_command_that_exists_as_the_services_user() -> None:
    service = unit("purekrb-rotate@.service")
    check_command(shlex.split(service["Service"]["ExecStart"].replace("%i", "svc-web")))
    assert service["Service"]["User"] == service["Service"]["StateDirectory"] == "%i"
    assert f"/var/lib/{service['Service']['StateDirectory']}/" in service["Service"]["ExecStart"]
    timer = unit("purekrb-rotate@.timer")
    assert timer["Timer"]["OnCalendar"]
    assert timer["Install"]["WantedBy"] == "timers.target"


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong_with_the_units(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        assert unit(name).sections()
        return
    purekrb = Path(sys.executable).with_name("purekrb")
    for other in UNITS:
        text = (SYSTEMD / other).read_text().replace("/usr/bin/purekrb", str(purekrb))
        (tmp_path / other.replace("@.", "@daemon.")).write_text(text.replace("%i", "daemon"))
    path = tmp_path / name.replace("@.", "@daemon.")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "purekrb" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_objects_of_kubernetes_belong_together_and_run_a_command_that_exists() -> None:
    import yaml

    text = (ROOT / "examples" / "kubernetes" / "rotate-keys.yaml").read_text()
    objects: dict[str, Any] = {one["kind"]: one for one in yaml.safe_load_all(text)}
    pod = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_command(container["command"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts) == set(volumes)
    claim = volumes["keys"]["persistentVolumeClaim"]["claimName"]
    assert claim == objects["PersistentVolumeClaim"]["metadata"]["name"]
    conf = volumes["krb5-conf"]["configMap"]["name"]
    assert conf == objects["ConfigMap"]["metadata"]["name"]
    (file,) = objects["ConfigMap"]["data"]
    (variable,) = container["env"]
    assert variable == {"name": "KRB5_CONFIG", "value": f"{mounts['krb5-conf']}/{file}"}
    assert objects["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"
    keytab = container["command"][container["command"].index("--keytab") + 1]
    assert keytab.startswith(mounts["keys"])
