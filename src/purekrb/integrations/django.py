"""Kerberos for Django: the middleware `purekrb.integrations.django.KerberosMiddleware`.

The setting PUREKRB is a dict of the arguments of `purekrb.integrations.http.gate.Gate`, such as
`{"keytab": "/etc/web.keytab", "public": ["/healthz"]}`. Behind it,
`django.contrib.auth.middleware.RemoteUserMiddleware` makes the client a user of Django.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from purekrb.integrations.extras import extra
from purekrb.integrations.http.gate import Admitted, Gate, Refused

with extra("django"):
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse

__all__ = ["KerberosMiddleware"]

_Response = Any  # of either kind of view


class KerberosMiddleware:
    """Lets only authenticated requests through, and tells views who they come from.

    `request.kerberos` is the `User`, or None on a public path; META has REMOTE_USER and AUTH_TYPE.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], _Response]) -> None:
        self._get_response = get_response
        self._gate = Gate(**getattr(settings, "PUREKRB", {}))
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> _Response:
        """Serve one request."""
        if iscoroutinefunction(self._get_response):
            return self._respond_async(request)
        verdict = self._verdict(request)
        if isinstance(verdict, Refused):
            return _refusal(verdict)
        return _answered(self._get_response(request), verdict)

    async def _respond_async(self, request: HttpRequest) -> _Response:
        if self._gate.may_wait:
            from asyncio import to_thread

            verdict = await to_thread(self._verdict, request)
        else:
            verdict = self._verdict(request)
        if isinstance(verdict, Refused):
            return _refusal(verdict)
        response: Awaitable[HttpResponse] = self._get_response(request)
        return _answered(await response, verdict)

    def _verdict(self, request: HttpRequest) -> Admitted | Refused | None:
        """Return who the request comes from, a refusal, or None on a public path."""
        for name in ("REMOTE_USER", "AUTH_TYPE"):  # what comes in by these names is not from here
            request.META.pop(name, None)
        request.kerberos = None
        if self._gate.is_public(request.path_info):
            return None
        wants_html = "text/html" in request.headers.get("Accept", "")
        verdict = self._gate.judge(
            request.headers.get("Authorization"),
            connection=(request.META.get("REMOTE_ADDR"), request.META.get("REMOTE_PORT")),
            wants_html=wants_html,
            peer=request.META.get("REMOTE_ADDR") or "a client",
        )
        if isinstance(verdict, Refused):
            return verdict
        if not self._gate.allows(verdict.user):
            return self._gate.forbid(verdict, wants_html=wants_html)
        request.kerberos = verdict.user
        request.META.update(REMOTE_USER=verdict.user.display_name, AUTH_TYPE="Negotiate")
        return verdict


def _refusal(verdict: Refused) -> HttpResponse:
    return HttpResponse(verdict.body, status=verdict.status, headers=dict(verdict.headers))


def _answered(response: HttpResponse, verdict: Admitted | None) -> HttpResponse:
    if verdict is not None:
        response["WWW-Authenticate"] = verdict.answer
    return response
