"""Web servers and clients that import gssapi, unmodified on purekrb: curl logs in to the servers, and the clients to a
server on MIT's library.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mit import MitRealm
from support.pages import on_purekrb, run_on_purekrb
from support.peers import Daemon, on_free_port
from support.web import curl

FLASK = """
import sys
from flask import Flask
from flask_gssapi import GSSAPI

app = Flask(__name__)
app.config["GSSAPI_HOSTNAME"] = "localhost"
gssapi_ext = GSSAPI(app)

@app.route("/")
@gssapi_ext.require_auth()
def who(username=None):
    return f"{sys.modules['gssapi'].__name__} {username}"

app.run("127.0.0.1", int(sys.argv[1]))
"""

ASGI = """
import sys
import uvicorn
from asgi_gssapi import SPNEGOAuthMiddleware

async def who(scope, receive, send):
    body = f"{sys.modules['gssapi'].__name__} {scope['gssapi']['principal']}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

app = SPNEGOAuthMiddleware(who, hostname="localhost")
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), lifespan="off", log_level="error")
"""

FASTAPI = """
import sys
import uvicorn
from fastapi import Depends, FastAPI
from fastapi_spnego import SpnegoAuth, SpnegoConfig, SpnegoIdentity

app = FastAPI()
auth = SpnegoAuth(config=SpnegoConfig(hostname="localhost"))

@app.get("/")
async def who(user: SpnegoIdentity = Depends(auth)):
    return f"{sys.modules['gssapi'].__name__} {user.principal}"

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), lifespan="off", log_level="error")
"""

DJANGO = """
import sys
from wsgiref.simple_server import make_server
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for this test",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    AUTHENTICATION_BACKENDS=["django_auth_spnego.backends.SpnegoModelBackend"],
    AUTH_KERBEROS_SPN="HTTP@localhost",
)
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from django_auth_spnego.decorators import login_required_spnego

call_command("migrate", verbosity=0)
User.objects.create_user("user")

@login_required_spnego
def who(request):
    return HttpResponse(f"{sys.modules['gssapi'].__name__} {request.user.username}@MIT.TEST")

urlpatterns = [path("", who)]
make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()).serve_forever()
"""

SERVERS = {"Flask": FLASK, "ASGI": ASGI, "FastAPI": FASTAPI, "Django": DJANGO}

REQUESTS = """
import sys
import requests
from requests_gssapi import HTTPSPNEGOAuth, REQUIRED

session = requests.Session()
session.trust_env = False
print(session.get(sys.argv[1], auth=HTTPSPNEGOAuth(mutual_authentication=REQUIRED)).text)
print(session.get(sys.argv[1], auth=HTTPSPNEGOAuth(opportunistic_auth=True)).text)
print(session.get(sys.argv[1]).status_code)
"""

HTTPX = """
import sys
import httpx
from httpx_gssapi import HTTPSPNEGOAuth, REQUIRED

with httpx.Client(trust_env=False) as client:
    print(client.get(sys.argv[1], auth=HTTPSPNEGOAuth(mutual_authentication=REQUIRED)).text)
    print(client.get(sys.argv[1], auth=HTTPSPNEGOAuth(opportunistic_auth=True)).text)
    print(client.get(sys.argv[1]).status_code)
"""

CLIENTS = {"requests": REQUESTS, "httpx": HTTPX}


@contextlib.contextmanager
def served(
    text: str, realm: MitRealm, directory: Path, *, real: bool = False, path: str = ""
) -> Iterator[str]:
    """Have a server run, on MIT's library if `real`, otherwise on purekrb; return its URL."""
    program = directory / "server.py"
    program.write_text(text)
    env = {**realm.env, "KRB5_KTNAME": str(realm.service_keytab), "PYTHONPATH": path}

    def start(port: int) -> tuple[str, Daemon]:
        argv = [sys.executable, str(program), str(port)] if real else on_purekrb(program, str(port))
        daemon = Daemon(argv, env=env, log=directory / "server.log", port=port)
        return f"http://localhost:{port}/", daemon

    url, daemon = on_free_port(start)
    try:
        yield url
    finally:
        daemon.stop()


@pytest.fixture(scope="module")
def spnego2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory with django-auth-spnego2, which cannot be installed beside a newer gssapi than it names."""
    directory = tmp_path_factory.mktemp("spnego2")
    argv = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(directory)]
    subprocess.run([*argv, "django-auth-spnego2"], check=True, timeout=120)
    return str(directory)


@pytest.mark.parametrize("framework", SERVERS)
def test_curl_logs_in_to_an_unmodified_server(
    framework: str, mit_realm: MitRealm, spnego2: str, tmp_path: Path
) -> None:
    with served(SERVERS[framework], mit_realm, tmp_path, path=spnego2) as url:
        shown = curl(mit_realm, url, "--negotiate", "-u", ":")
        assert shown.replace('"', "") == "purekrb.compat.gssapi user@MIT.TEST 200"
        assert curl(mit_realm, url).endswith(" 401")


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unmodified_client_logs_in_to_a_server_on_the_real_library(
    client: str, mit_realm: MitRealm, tmp_path: Path
) -> None:
    env = {**mit_realm.env, "KRB5CCNAME": str(mit_realm.kinit("user"))}
    with served(FLASK, mit_realm, tmp_path, real=True) as url:
        shown = run_on_purekrb(CLIENTS[client], tmp_path, url, env=env)
    assert shown == "gssapi user@MIT.TEST\ngssapi user@MIT.TEST\n401\n"
