"""Kerberos for aiohttp's client: `aiohttp.ClientSession(middlewares=(negotiate(),))`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from purekrb.credentials.credential import Credential
from purekrb.errors import CredentialError, UnsupportedError
from purekrb.integrations.extras import extra
from purekrb.integrations.http.client import (
    Dialogue,
    Reply,
    Settings,
    tunnel_fields,
)

with extra("aiohttp"):
    import aiohttp
    from multidict import CIMultiDict

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.integrations.http.client import ClientOptions

__all__ = ["negotiate"]


def negotiate(
    credential: Credential | None = None,
    **options: Unpack[ClientOptions],
) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that authenticates requests to services and to proxies.

    The arguments are those of `purekrb.integrations.requests.Negotiate`. Tunnels through proxies
    (CONNECT) are authenticated as well, once the proxy has asked for it.
    """
    settings = Settings(credential, **options)
    #: A redirect comes here as another request. All requests of one call share its timer.
    calls: WeakKeyDictionary[Any, Dialogue] = WeakKeyDictionary()

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        timer = getattr(request, "_timer", None)
        if timer is None:
            raise UnsupportedError(
                "this version of aiohttp does not tell redirects from other requests, so a token "
                "might go to another origin: install a version that purekrb knows"
            )
        fields: dict[str, str] = {}
        dialogue = calls.get(timer)
        if dialogue is None:
            dialogue = calls[timer] = Dialogue(settings, str(request.url))
            fields = await settings.run_async(dialogue.open())
        certificate = _watch(request, dialogue)
        while True:
            request.headers.update(fields)
            response = await _through_proxy(settings, request, handler)
            reply = _reply(request, response, certificate())
            try:
                answer = await settings.run_async(dialogue.answer(reply))
                if answer is None:
                    return response
                await response.read()  # so that the connection can serve again
                if getattr(request.body, "consumed", False):
                    raise CredentialError(
                        "the body of the request cannot be sent a second time: pass a file or "
                        "bytes, or preemptive=True"
                    )
            except BaseException:
                response.close()
                raise
            response.release()
            fields = answer

    return middleware


async def _through_proxy(
    settings: Settings, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request; if a proxy wants a token for the tunnel, open the tunnel with one."""
    try:
        return await handler(request)
    except aiohttp.ClientHttpProxyError as error:
        if error.status != 407 or request.proxy is None:
            raise
    fields = await settings.run_async(tunnel_fields(settings, str(request.proxy)))
    request.proxy_headers = CIMultiDict({**(request.proxy_headers or {}), **fields})
    return await handler(request)


def _watch(request: aiohttp.ClientRequest, dialogue: Dialogue) -> Callable[[], bytes | None]:
    """Return a function that returns the certificate (DER) of the TLS server that is asked, or None.

    It is taken before the request is sent, so that no token goes to another server than the one
    that it is bound to; and since a response without a body lets go of its connection at once.
    """
    certificate: bytes | None = None
    send = request.send

    async def sending(conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        nonlocal certificate
        transport = conn.transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert(True)
        if "Authorization" in request.headers:
            dialogue.check_channel(certificate)
        return await send(conn)

    request.send = sending  # type: ignore[method-assign]
    return lambda: certificate


def _reply(
    request: aiohttp.ClientRequest, response: aiohttp.ClientResponse, certificate: bytes | None
) -> Reply:
    plain = request.url.scheme == "http"
    return Reply(
        status=response.status,
        url=str(request.url),
        challenges=response.headers.getall("WWW-Authenticate", ()),
        proxy_challenges=response.headers.getall("Proxy-Authenticate", ()),
        proxy=str(request.proxy) if plain and request.proxy else None,
        location=response.headers.get("Location"),
        certificate=certificate,
    )
