"""Kerberos for ASGI applications: Starlette, FastAPI, and what uvicorn or hypercorn serve."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

from purekrb.authorization import is_allowed
from purekrb.integrations.http.gate import MAX_DRAINED, Admitted, Gate, Refused

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.credentials.files import FilePath
    from purekrb.credentials.keytab import Keytab
    from purekrb.exchanges.ap_exchange import ServiceKeys
    from purekrb.integrations.http.gate import GateOptions

__all__ = [
    "App",
    "KerberosMiddleware",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "field",
    "judge",
    "with_answer",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: RFC 6455 7.4.1: "policy violation".
_POLICY_VIOLATION = 1008


class KerberosMiddleware:
    """Lets only authenticated requests and WebSockets through to `app`.

    `scope["user"]` is the `User` with the client's principal and the facts of the PAC. `authorize`
    may be a coroutine function. `connection_header` names a header field that the reverse proxy
    sets for each connection; it is only needed for clients of several rounds behind a proxy. The
    other arguments are those of `purekrb.integrations.http.gate.Gate`.
    """

    def __init__(
        self,
        app: App,
        keytab: Keytab | ServiceKeys | FilePath | None = None,
        *,
        connection_header: str | None = None,
        **options: Unpack[GateOptions],
    ) -> None:
        self._app = app
        self._gate = Gate(keytab, **options)
        self._connection_header = connection_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            raise ValueError(f"scopes of type {scope['type']} cannot be authenticated")
        scope.pop("user", None)  # what comes in by this name is not from here
        if self._gate.is_public(_path(scope)):
            await self._app(scope, receive, send)
            return
        verdict = await judge(self._gate, scope, self._connection_header)
        if isinstance(verdict, Refused):
            await _refuse(verdict, scope, receive, send)
            return
        scope["user"] = verdict.user
        await self._app(scope, receive, with_answer(send, verdict.answer))


async def judge(
    gate: Gate, scope: Scope, connection_header: str | None = None
) -> Admitted | Refused:
    """Return who a request comes from, or the response that refuses it."""
    wants_html = "text/html" in (field(scope, b"accept") or "")
    client: Any = tuple(scope.get("client") or ())  # host and port
    if connection_header is None:
        connection: Any = client
    else:
        connection = field(scope, connection_header.lower().encode())
    tls = (scope.get("extensions") or {}).get("tls") or {}
    judging = partial(
        gate.judge,
        field(scope, b"authorization"),
        connection=connection,
        wants_html=wants_html,
        tls_certificate=tls.get("server_cert"),
        peer=client[0] if client else "a client",
    )
    if gate.may_wait:
        from asyncio import to_thread

        verdict = await to_thread(judging)
    else:
        verdict = judging()
    if isinstance(verdict, Admitted) and gate.authorize is not None:
        allowed = gate.authorize(verdict.user)
        if hasattr(allowed, "__await__"):
            allowed = await allowed
        if not is_allowed(allowed):
            return gate.forbid(verdict, wants_html=wants_html)
    return verdict


def with_answer(send: Send, answer: str) -> Send:
    """Return `send` that adds WWW-Authenticate to the response."""
    header = (b"www-authenticate", answer.encode())

    async def answering(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)

    return answering


def field(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header field, joined by commas if it is there more than once."""
    values: list[bytes] = [value for key, value in scope["headers"] if key.lower() == name]
    return b",".join(values).decode("latin-1") if values else None


def _path(scope: Scope) -> str:
    """Return the path below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    inside = root and (path == root or path.startswith(f"{root}/"))
    return path[len(root) :] if inside else path


async def _refuse(verdict: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        kind = "websocket.http.response"
    else:
        await _drain(receive)
    headers = [(key.lower().encode(), value.encode()) for key, value in verdict.headers]
    body = b"" if scope.get("method") == "HEAD" else verdict.body
    await send({"type": f"{kind}.start", "status": verdict.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


async def _drain(receive: Receive) -> None:
    """Read a request's body, so that the client can send it again over the same connection."""
    left = MAX_DRAINED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body", False):  # also when the client has gone
            return
