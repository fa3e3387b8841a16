"""The wheel, built and installed as a user does it."""

from __future__ import annotations

import email.message
import email.parser
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from purekrb.cli.completion import SCRIPTS

#: Where tools/command_files.py puts the man page.
MAN_PAGE = "share/man/man1/purekrb.1"
PROJECT = Path(__file__).parents[2]
#: What a bare `import purekrb` must not load: each is somebody's dependency that most programs never touch.
HEAVY = (
    "ldap3",
    "impacket",
    "flask",
    "pyasn1",
    "cryptography",
    "dns",
    "rich",
    "OpenSSL",
    "asyncio",
    "ssl",
)


def run(*argv: str | Path) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environment, cwd="/", timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", directory, PROJECT)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of an empty virtual environment into which pip has installed the wheel."""
    directory = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", directory)
    python = directory / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
    return python


def modules_after(python: Path, statements: str) -> list[str]:
    return run(python, "-c", f"{statements}; import sys; print(*sys.modules)").split()


def test_one_wheel_serves_every_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_the_package_its_types_and_its_licence_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = metadata_of(wheel)
    tops = {name.split("/")[0].split("-")[0] for name in names}
    assert tops == {"purekrb"}
    assert "purekrb/py.typed" in names
    sources = {str(path.relative_to(PROJECT / "src")) for path in (PROJECT / "src").rglob("*.py")}
    assert sources <= names
    assert any(name.endswith("/LICENSE") for name in names)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    data = {name.partition(".data/data/")[2] for name in names if ".data/" in name}
    assert data == {MAN_PAGE, *SCRIPTS.values()}


def test_the_page_on_pypi_has_no_link_that_leads_nowhere(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert metadata["Description-Content-Type"] == "text/markdown"
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL", []))
    assert {"Source", "Documentation", "Changelog", "Issues"} <= set(urls)
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert len(links) > 20
    for link in links:
        file = re.sub(rf"^{re.escape(urls['Source'])}/(blob|tree)/main/", "", link).split("#")[0]
        assert link.startswith("https://"), link
        assert file == link or (PROJECT / file).exists(), link
    assert f"{urls['Source']}/blob/main/docs/cli.md" in links


def test_import_purekrb_loads_no_dependency(python: Path) -> None:
    loaded = modules_after(python, "import purekrb")
    assert "purekrb" in loaded
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_a_context_loads_neither_ldap3_nor_impacket_nor_flask(python: Path) -> None:
    loaded = modules_after(python, "import purekrb; purekrb.Initiator, purekrb.Acceptor")
    names = {name.split(".")[0] for name in loaded}
    assert "cryptography" in names
    assert not names & {"ldap3", "impacket", "flask", "pyasn1", "OpenSSL"}


def test_the_kdc_client_loads_of_impacket_only_the_asn1_part(python: Path) -> None:
    loaded = modules_after(python, "import purekrb; purekrb.KdcClient")
    assert "purekrb.kdc.client" in loaded
    for unwanted in (
        "flask",
        "ldap3",
        "impacket.smb",
        "impacket.smbconnection",
        "impacket.ntlm",
        "impacket.nmb",
    ):
        assert unwanted not in loaded


def test_every_public_name_and_the_command_work_when_installed(python: Path) -> None:
    assert (
        run(
            python, "-c", "import purekrb; print(all(hasattr(purekrb, n) for n in purekrb.__all__))"
        )
        == "True\n"
    )
    assert "kinit" in run(python.parent / "purekrb", "--help")
    assert "kinit" in run(python, "-m", "purekrb", "--help")


def test_the_man_page_and_the_completion_scripts_are_installed(python: Path) -> None:
    prefix = python.parents[1]
    assert ".SS purekrb kinit" in (prefix / MAN_PAGE).read_text()
    for shell, path in SCRIPTS.items():
        script = (prefix / path).read_text()
        assert run(python, "-m", "purekrb", "completion", shell).split() == script.split()
        assert "kinit" in script


def test_nothing_in_the_environment_contradicts_the_dependencies(python: Path) -> None:
    assert "No broken requirements" in run(python, "-m", "pip", "check")
