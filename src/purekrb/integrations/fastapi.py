"""Kerberos for FastAPI, where some routes need it: a dependency.

If all routes need it, `purekrb.integrations.asgi.KerberosMiddleware` is simpler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from purekrb.integrations.extras import extra
from purekrb.integrations.http.gate import Gate, Refused, User

with extra("fastapi"):  # which brings starlette
    import fastapi
    from fastapi.responses import Response
    from fastapi.security.http import HTTPBase

    from purekrb.integrations.starlette import AnswerMiddleware, admit

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.credentials.files import FilePath
    from purekrb.credentials.keytab import Keytab
    from purekrb.exchanges.ap_exchange import ServiceKeys
    from purekrb.integrations.http.gate import GateOptions

__all__ = ["Kerberos"]


class _RefusedError(Exception):
    def __init__(self, verdict: Refused) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class Kerberos(HTTPBase):
    """A dependency whose value is the `User`: `user: Annotated[User, Depends(Kerberos(app))]`.

    It adds what it needs to `app`. The other arguments are those of
    `purekrb.integrations.http.gate.Gate`. The OpenAPI schema names the scheme "negotiate".
    """

    def __init__(
        self,
        app: fastapi.FastAPI,
        keytab: Keytab | ServiceKeys | FilePath | None = None,
        **options: Unpack[GateOptions],
    ) -> None:
        super().__init__(scheme="negotiate", scheme_name="Negotiate")
        self._gate = Gate(keytab, **options)
        app.add_middleware(AnswerMiddleware)
        app.add_exception_handler(_RefusedError, _respond)

    async def __call__(self, request: fastapi.Request) -> User:  # type: ignore[override]
        """Return who the request comes from, or refuse it."""
        verdict = await admit(self._gate, request)
        if isinstance(verdict, Refused):
            raise _RefusedError(verdict)
        return verdict


async def _respond(_request: fastapi.Request, error: Exception) -> Response:
    if not isinstance(error, _RefusedError):
        raise error
    verdict = error.verdict
    return Response(verdict.body, verdict.status, dict(verdict.headers))
