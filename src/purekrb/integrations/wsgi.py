"""Kerberos for WSGI applications: Flask, Django, and what gunicorn, uWSGI or mod_wsgi serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from purekrb.integrations.http.gate import MAX_DRAINED, Admitted, Gate, Refused

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.credentials.files import FilePath
    from purekrb.credentials.keytab import Keytab
    from purekrb.exchanges.ap_exchange import ServiceKeys
    from purekrb.integrations.http.gate import GateOptions

__all__ = ["KerberosMiddleware", "USER"]

#: The key of the environment with the request's `User`.
USER = "purekrb.user"
Environment = dict[str, Any]
App = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


class KerberosMiddleware:
    """Lets only authenticated requests through to `app`, and tells it who they come from.

    REMOTE_USER is the client's principal, AUTH_TYPE "Negotiate", and "purekrb.user" the `User` with
    the facts of the PAC. `connection_header` names a header field that the reverse proxy sets for
    each connection; it is only needed for clients of several rounds behind a proxy. The other
    arguments are those of `purekrb.integrations.http.gate.Gate`.
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
        self._connection_key = connection_header and _key_of(connection_header)

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        # What comes in by these names is not from here.
        for name in ("REMOTE_USER", "AUTH_TYPE", USER):
            environ.pop(name, None)
        gate = self._gate
        if gate.is_public(environ.get("PATH_INFO", "")):
            return self._app(environ, start_response)
        wants_html = "text/html" in environ.get("HTTP_ACCEPT", "")
        verdict = gate.judge(
            environ.get("HTTP_AUTHORIZATION"),
            connection=self._connection(environ),
            wants_html=wants_html,
            peer=environ.get("REMOTE_ADDR") or "a client",
        )
        if isinstance(verdict, Admitted) and not gate.allows(verdict.user):
            verdict = gate.forbid(verdict, wants_html=wants_html)
        if isinstance(verdict, Refused):
            _drain(environ)
            start_response(f"{verdict.status} {verdict.reason}", list(verdict.headers))
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [verdict.body]
        user, answer = verdict
        environ.update({"REMOTE_USER": user.display_name, "AUTH_TYPE": "Negotiate", USER: user})

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("WWW-Authenticate", answer)], *rest)

        return self._app(environ, start)

    def _connection(self, environ: Environment) -> tuple[Any, ...]:
        if self._connection_key:
            return (environ.get(self._connection_key),)
        return (environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT"))


def _drain(environ: Environment) -> None:
    """Read a request's body, so that the client can send it again over the same connection."""
    try:
        left = min(int(environ.get("CONTENT_LENGTH") or 0), MAX_DRAINED)
    except ValueError:
        return
    body = environ.get("wsgi.input")
    while left > 0 and body is not None:
        piece = body.read(min(left, 65536))
        if not piece:
            return
        left -= len(piece)


def _key_of(field: str) -> str:
    return "HTTP_" + field.upper().replace("-", "_")
