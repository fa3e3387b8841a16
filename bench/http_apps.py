"""The services that `python -m bench.http` compares: hello world behind purekrb, and behind python-gssapi."""

from __future__ import annotations

from typing import Any

_HELLO = b"Hello, world!\n"
_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"14")]


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _HELLO})


def purekrb_asgi() -> Any:
    from purekrb.integrations.asgi import KerberosMiddleware

    return KerberosMiddleware(_hello)


def gssapi_asgi() -> Any:
    from asgi_gssapi import SPNEGOAuthMiddleware

    return SPNEGOAuthMiddleware(_hello, hostname="localhost")


def bare_asgi() -> Any:
    return _hello


def purekrb_wsgi() -> Any:
    from purekrb.integrations.wsgi import KerberosMiddleware

    def hello(environ: Any, start_response: Any) -> list[bytes]:
        str(environ["REMOTE_USER"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
        return [_HELLO]

    return KerberosMiddleware(hello)


def _flask() -> Any:
    from flask import Flask

    return Flask("bench")


def purekrb_flask() -> Any:
    from purekrb.integrations.flask import Kerberos, current_user

    app = _flask()
    Kerberos(app)

    @app.get("/")
    def hello() -> bytes:
        str(current_user())
        return _HELLO

    return app


def gssapi_flask() -> Any:
    from flask_gssapi import GSSAPI

    app = _flask()
    app.config["GSSAPI_HOSTNAME"] = "localhost"
    protected = GSSAPI(app)

    @app.get("/")
    @protected.require_auth()
    def hello(username: str) -> bytes:
        str(username)
        return _HELLO

    return app


def bare_flask() -> Any:
    app = _flask()
    app.get("/")(lambda: _HELLO)
    return app
