"""Kerberos for httpx, blocking and for asyncio: `httpx.Client(auth=Negotiate())`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING

from purekrb.credentials.credential import Credential
from purekrb.integrations.extras import extra
from purekrb.integrations.http.client import (
    Dialogue,
    Reply,
    Settings,
)

with extra("httpx"):
    import httpx

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.integrations.http.client import ClientOptions

__all__ = ["Negotiate"]


class Negotiate(httpx.Auth):
    """Authenticates requests to services, and to proxies that httpx talks to in cleartext.

    The arguments are those of `purekrb.integrations.requests.Negotiate`. `proxy` is the URL of the
    proxy, if the client has one: httpx does not tell it. Without `preemptive`, a body is read into
    memory, so that it can be sent twice.
    """

    def __init__(
        self,
        credential: Credential | None = None,
        *,
        proxy: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._proxy = proxy
        self._settings = Settings(credential, **options)

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Authenticate one request of an `httpx.Client`."""
        settings = self._settings
        if not settings.preemptive:
            request.read()
        dialogue = Dialogue(settings, str(request.url))
        fields = settings.run(dialogue.open())
        seen = 0
        while True:
            request.headers.update(fields)
            response = yield request
            for reply in self._replies(response, seen):
                answer = settings.run(dialogue.answer(reply))
            if answer is None:
                return
            seen = len(response.history) + 1
            request, fields = _following(response), answer

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Authenticate one request of an `httpx.AsyncClient`."""
        settings = self._settings
        if not settings.preemptive:
            await request.aread()
        dialogue = Dialogue(settings, str(request.url))
        fields = await settings.run_async(dialogue.open())
        seen = 0
        while True:
            request.headers.update(fields)
            response = yield request
            for reply in self._replies(response, seen):
                answer = await settings.run_async(dialogue.answer(reply))
            if answer is None:
                return
            seen = len(response.history) + 1
            request, fields = _following(response), answer

    def _replies(self, response: httpx.Response, seen: int) -> list[Reply]:
        """Return what counts of a response, and before it of the redirects that led there.

        `seen` responses of the history are those to earlier requests of this flow.
        """
        return [self._reply(each) for each in (*response.history[seen:], response)]

    def _reply(self, response: httpx.Response) -> Reply:
        stream = response.extensions.get("network_stream")
        tls = None if stream is None else stream.get_extra_info("ssl_object")
        refused = response.status_code == 407 and response.request.url.scheme == "http"
        return Reply(
            status=response.status_code,
            url=str(response.request.url),
            challenges=response.headers.get_list("WWW-Authenticate"),
            proxy_challenges=response.headers.get_list("Proxy-Authenticate") if refused else (),
            proxy=self._proxy if refused else None,
            location=response.headers.get("Location") if response.has_redirect_location else None,
            certificate=None if tls is None else tls.getpeercert(True),
        )


def _following(response: httpx.Response) -> httpx.Request:
    """Return the request to send again: the one that a redirect led to, without the old token."""
    following = response.request
    for field in ("Authorization", "Proxy-Authorization"):
        if following.headers.get(field, "").startswith("Negotiate "):
            del following.headers[field]
    return following
