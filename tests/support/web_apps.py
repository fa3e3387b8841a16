"""The applications that real HTTP servers serve in the tests: each answers with who asks, as JSON.

Servers import them by name: `support.web_apps:wsgi()`. The environment holds the keytab (KRB5_KTNAME) and, as JSON in
APP_OPTIONS, further arguments of the middleware.
"""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["asgi", "django_asgi", "django_wsgi", "fastapi", "flask", "starlette", "wsgi"]


def _options() -> dict[str, Any]:
    return json.loads(os.environ.get("APP_OPTIONS", "{}"))


def _told(user: Any, **others: Any) -> dict[str, Any]:
    if user is None:
        return {"user": None, **others}
    return {
        "user": str(user.principal),
        "bound": user.channel_bound,
        "pac": user.identity.has_pac,
        "delegated": user.delegated_credential is not None,
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
        if "text/html" in environ.get("HTTP_ACCEPT", ""):
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [f"<h1>Hello</h1><p>You are signed in as {told['user']}.</p>".encode()]
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


def flask() -> Any:
    """Return a Flask application."""
    from flask import Flask, jsonify, request

    from purekrb.integrations.flask import Kerberos, current_user

    app = Flask("app")
    Kerberos(app, **_options())

    @app.get("/<path:path>")
    def page(path: str) -> Any:
        return jsonify(_told(current_user(), remote=request.remote_user, path=f"/{path}"))

    return app


def starlette() -> Any:
    """Return a Starlette application with one page that needs authentication, and one that does not."""
    from starlette.applications import Starlette
    from starlette.authentication import requires
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from purekrb.integrations.starlette import authentication

    @requires("authenticated", status_code=401)
    async def page(request: Request) -> JSONResponse:
        return JSONResponse(_told(request.user, path=request.url.path))

    async def public(request: Request) -> JSONResponse:
        return JSONResponse({"user": None, "known": request.user.is_authenticated})

    routes = [Route("/public", public), Route("/{path:path}", page)]
    return Starlette(routes=routes, middleware=authentication(**_options()))


def fastapi() -> Any:
    """Return a FastAPI application with one page that needs authentication, and one that does not."""
    import fastapi

    from purekrb.integrations.fastapi import Kerberos
    from purekrb.integrations.http.gate import User

    app = fastapi.FastAPI()
    kerberos = Kerberos(app, **_options())

    @app.get("/public")
    async def public() -> Any:
        return {"user": None}

    depends = fastapi.Depends(kerberos)

    def page(path: str, user: Any = depends) -> Any:
        assert isinstance(user, User)
        # A response of the route's own is what FastAPI adds no fields to.
        return fastapi.responses.JSONResponse(_told(user, path=f"/{path}"))

    app.get("/{path:path}")(page)
    return app


def django_wsgi() -> Any:
    """Return Django by WSGI."""
    from django.core.wsgi import get_wsgi_application

    _django()
    return get_wsgi_application()


def django_asgi() -> Any:
    """Return Django by ASGI."""
    from django.core.asgi import get_asgi_application

    _django()
    return get_asgi_application()


def _django() -> None:
    import django
    from django.conf import settings
    from django.http import JsonResponse
    from django.urls import re_path

    def page(request: Any) -> JsonResponse:
        told = _told(request.kerberos, remote=request.META.get("REMOTE_USER"), path=request.path)
        return JsonResponse(told)

    async def coroutine(request: Any) -> JsonResponse:
        return page(request)

    settings.configure(
        PUREKRB=_options(),
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF=(re_path("^async", coroutine), re_path("", page)),
        MIDDLEWARE=["purekrb.integrations.django.KerberosMiddleware"],
    )
    django.setup()
