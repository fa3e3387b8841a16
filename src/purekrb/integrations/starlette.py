"""Kerberos for Starlette, where some routes need it: a backend of AuthenticationMiddleware.

If all routes need it, `purekrb.integrations.asgi.KerberosMiddleware` is simpler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purekrb.integrations.asgi import App, Receive, Scope, Send, field, judge, with_answer
from purekrb.integrations.extras import extra
from purekrb.integrations.http.gate import Gate, Refused, User
from purekrb.integrations.http.headers import SCHEME

with extra("starlette"):
    from starlette.authentication import (
        AuthCredentials,
        AuthenticationBackend,
        AuthenticationError,
    )
    from starlette.middleware import Middleware
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.requests import HTTPConnection
    from starlette.responses import Response

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.credentials.files import FilePath
    from purekrb.credentials.keytab import Keytab
    from purekrb.exchanges.ap_exchange import ServiceKeys
    from purekrb.integrations.http.gate import GateOptions

__all__ = ["AnswerMiddleware", "KerberosBackend", "admit", "authentication"]

_ANSWER = "purekrb.answer"


class AnswerMiddleware:
    """Adds to responses the service's proof, or to those with status 401 the request for a token.

    What authenticates inside, a backend or a dependency, cannot add it to each response itself.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope[_ANSWER] = None

        async def answering(message: Any) -> None:
            answer = scope[_ANSWER]
            if answer is None and message.get("status") == 401:
                named = any(k.lower() == b"www-authenticate" for k, _ in message["headers"])
                answer = None if named else SCHEME
            await (send if answer is None else with_answer(send, answer))(message)

        await self._app(scope, receive, answering)


class _RefusedError(AuthenticationError):
    def __init__(self, verdict: Refused) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class KerberosBackend(AuthenticationBackend):
    """Authenticates requests that have a token; others are anonymous.

    The arguments are those of `purekrb.integrations.http.gate.Gate`. It needs `AnswerMiddleware`
    around it: `authentication` returns both.
    """

    def __init__(
        self, keytab: Keytab | ServiceKeys | FilePath | None = None, **options: Unpack[GateOptions]
    ) -> None:
        self._gate = Gate(keytab, **options)

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Any] | None:
        """Return the scope "authenticated" and the user, or None without a token."""
        if field(conn.scope, b"authorization") is None:
            return None
        verdict = await admit(self._gate, conn)
        if isinstance(verdict, Refused):
            raise _RefusedError(verdict)
        return AuthCredentials(["authenticated"]), verdict


def authentication(
    keytab: Keytab | ServiceKeys | FilePath | None = None, **options: Unpack[GateOptions]
) -> list[Middleware]:
    """Return the middleware of an application whose routes use `requires("authenticated", 401)`."""
    backend = KerberosBackend(keytab, **options)
    return [
        Middleware(AnswerMiddleware),
        Middleware(AuthenticationMiddleware, backend=backend, on_error=_on_error),
    ]


async def admit(gate: Gate, conn: HTTPConnection) -> User | Refused:
    """Return who a request comes from, and have its response answer; or the refusal."""
    if _ANSWER not in conn.scope:
        raise RuntimeError("the application needs purekrb.integrations.starlette.AnswerMiddleware")
    verdict = await judge(gate, conn.scope)
    if isinstance(verdict, Refused):
        return verdict
    conn.scope[_ANSWER] = verdict.answer
    return verdict.user


def _on_error(_conn: HTTPConnection, error: AuthenticationError) -> Response:
    if not isinstance(error, _RefusedError):
        return Response(status_code=400)
    verdict = error.verdict
    return Response(verdict.body, verdict.status, dict(verdict.headers))
