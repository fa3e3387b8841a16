"""The applications that real HTTP servers serve in the tests: each answers with who asks, as JSON.

Servers import them by name: `support.web_apps:wsgi()`. The environment holds the keytab (KRB5_KTNAME) and, as JSON in
APP_OPTIONS, further arguments of the middleware.
"""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["asgi", "wsgi"]


def _options() -> dict[str, Any]:
    return json.loads(os.environ.get("APP_OPTIONS", "{}"))


def _told(user: Any, **others: Any) -> dict[str, Any]:
    if user is None:
        return {"user": None, **others}
    return {
        "user": str(user.principal),
        "bound": user.channel_bound,
        "pac": user.identity.has_pac,
        "pid": os.getpid(),
        **others,
    }


def _location(query: str) -> str | None:
    """The target of the redirect that a query asks for."""
    return query.partition("to=")[2] or None


def wsgi() -> Any:
    """Return the WSGI application."""
    from purekrb.integrations.wsgi import KerberosMiddleware

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        size = 0
        while piece := environ["wsgi.input"].read(65536):
            size += len(piece)
        location = _location(environ["QUERY_STRING"])
        told = _told(
            environ.get("purekrb.user"),
            remote=environ.get("REMOTE_USER"),
            kind=environ.get("AUTH_TYPE"),
            size=size,
            path=environ["PATH_INFO"],
        )
        headers = [("Content-Type", "application/json")]
        if location:
            headers.append(("Location", location))
        start_response("307 Temporary Redirect" if location else "200 OK", headers)
        return [json.dumps(told).encode()]

    return KerberosMiddleware(app, **_options())


def asgi() -> Any:
    """Return the ASGI application."""
    from purekrb.integrations.asgi import KerberosMiddleware

    return KerberosMiddleware(_asgi_app, **_options())


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    location = _location(scope["query_string"].decode())
    headers = [(b"content-type", b"application/json")]
    if location:
        headers.append((b"location", location.encode()))
    told = _told(scope.get("user"), size=size, path=scope["path"])
    await send(
        {"type": "http.response.start", "status": 307 if location else 200, "headers": headers}
    )
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
