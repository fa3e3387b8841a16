"""The programs of the pages on HTTP run, and their configuration files are what they are for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import requests

from purekrb import Credential
from purekrb.integrations.requests import Negotiate
from support.http_servers import auth_request, nginx
from support.mit import MitRealm
from support.peers import Daemon, on_free_port, run

DOCS = Path(__file__).parents[2] / "docs"
USER = "user@MIT.TEST"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page that are in a language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def write_programs(page: str, directory: Path) -> None:
    """Write the programs of a page under the names in their first lines."""
    programs = blocks(page, "python")
    assert programs
    for program in programs:
        name = re.match(r"# (\w+\.py):", program)
        assert name, "a program begins with its name"
        (directory / name[1]).write_text(program)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("programs")
    for page in ("http-clients", "http-services", "http-deployment", "from-requests-kerberos"):
        write_programs(f"{page}.md", directory)
    return directory


@pytest.fixture(scope="module")
def environment(mit_realm: MitRealm, programs: Path) -> dict[str, str]:
    return {
        **mit_realm.env,
        "KRB5_KTNAME": str(mit_realm.keytab("HTTP/localhost")),
        "KRB5CCNAME": str(mit_realm.kinit("user")),
        "NO_PROXY": "*",
    }


def serve(programs: Path, environment: dict[str, str], server: str, app: str) -> tuple[str, Daemon]:
    options = {
        "gunicorn": ["-b", "127.0.0.1:{}", "-w", "2", "--no-control-socket", "--chdir"],
        "uvicorn": ["--port", "{}", "--app-dir"],
    }[server]

    def start(port: int) -> tuple[str, Daemon]:
        filled = [option.format(port) for option in options]
        argv = [sys.executable, "-m", server, *filled, str(programs), app]
        daemon = Daemon(argv, env=environment, log=programs / f"{app}.log", port=port)
        return f"http://localhost:{port}/", daemon

    return on_free_port(start)


@pytest.fixture(scope="module")
def app(programs: Path, environment: dict[str, str]) -> Iterator[str]:
    url, daemon = serve(programs, environment, "gunicorn", "app:app")
    yield url
    daemon.stop()


@pytest.fixture
def auth(mit_realm: MitRealm) -> Negotiate:
    return Negotiate(Credential.from_password(USER, "userpw"), config=mit_realm.config)


@pytest.mark.parametrize("name", ["get.py", "get_httpx.py", "get_aiohttp.py", "moved.py"])
def test_a_client_gets_its_page(
    app: str, programs: Path, environment: dict[str, str], name: str
) -> None:
    printed = run([sys.executable, str(programs / name), app], env=environment)
    assert f"Hello {USER}" in printed


def test_a_job_calls_the_service_with_its_keytab(
    app: str, mit_realm: MitRealm, programs: Path, environment: dict[str, str]
) -> None:
    mit_realm.addprinc("batch")
    keytab = mit_realm.keytab("batch")
    argv = [sys.executable, str(programs / "nightly.py"), "batch@MIT.TEST", str(keytab), app]
    assert run(argv, env=environment) == "Hello batch@MIT.TEST\n"
    assert requests.get(f"{app}healthz", timeout=10).text == "Hello probe\n"


@pytest.mark.parametrize(
    ("server", "name", "said"),
    [
        ("gunicorn", "flask_app:app", f"You are signed in as {USER}."),
        ("uvicorn", "fastapi_app:app", f'"user":"{USER}"'),
        ("gunicorn", "django_app:application", f"You are signed in as {USER}."),
    ],
)
def test_a_service_signs_its_users_in(
    programs: Path,
    environment: dict[str, str],
    auth: Negotiate,
    server: str,
    name: str,
    said: str,
) -> None:
    url, daemon = serve(programs, environment, server, name)
    try:
        assert said in requests.get(url, auth=auth, timeout=10).text
        assert requests.get(url, timeout=10).status_code == 401
        if "django" not in name:
            assert "well" in requests.get(f"{url}healthz", timeout=10).text
    finally:
        daemon.stop()


def test_a_service_lets_one_group_in(
    programs: Path, environment: dict[str, str], auth: Negotiate
) -> None:
    url, daemon = serve(programs, environment, "gunicorn", "groups_app:app")
    try:
        response = requests.get(url, auth=auth, timeout=10)
        assert response.status_code == 403
        assert f"signed in as {USER}" in response.text
    finally:
        daemon.stop()


def test_nginxs_configuration_is_one(mit_realm: MitRealm, app: str, auth: Negotiate) -> None:
    (text,) = blocks("http-services.md", "nginx")
    asked = auth_request(mit_realm)
    behind = app.rstrip("/").rpartition(":")[2]
    http = text.replace(":8088", f":{asked.port}").replace(":9000", f":{behind}")
    front = nginx(mit_realm, http.replace("127.0.0.1:8080", "127.0.0.1:@PORT@"))
    try:
        # The application behind asks for a token of its own, which nginx keeps: it is public here.
        response = requests.get(f"{front.url}/healthz", auth=auth, timeout=10)
        assert response.text == "Hello probe\n"
        assert requests.get(f"{front.url}/healthz", timeout=10).status_code == 401
    finally:
        front.daemon.stop()
        asked.daemon.stop()


def test_the_units_of_systemd_and_the_objects_of_kubernetes_name_what_there_is() -> None:
    import yaml

    units = blocks("http-deployment.md", "ini")
    assert len(units) == 2
    for unit in units:
        parser = ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[method-assign,assignment]
        parser.read_string(unit)
        assert {"Unit", "Service"} <= set(parser.sections())
        assert parser["Service"]["LoadCredential"].startswith("keytab:/")
    (text,) = blocks("http-deployment.md", "yaml")
    config, deployment = yaml.safe_load_all(text)
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["KRB5_KTNAME"].startswith(mounts["keytab"])
    assert environment["KRB5_CONFIG"].startswith(mounts["krb5"])
    assert environment["KRB5RCACHEDIR"] == mounts["state"]
    assert config["kind"] == "ConfigMap"
