"""Kerberos for requests: `requests.get(url, auth=Negotiate())`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from purekrb.credentials.credential import Credential
from purekrb.errors import CredentialError
from purekrb.integrations.extras import extra
from purekrb.integrations.http.client import (
    Dialogue,
    Fields,
    Reply,
    Settings,
    tunnel_fields,
)

with extra("requests"):
    import requests
    from requests.adapters import HTTPAdapter
    from requests.auth import AuthBase
    from requests.cookies import extract_cookies_to_jar
    from requests.utils import rewind_body, select_proxy
    from urllib3.connection import HTTPSConnection
    from urllib3.connectionpool import HTTPSConnectionPool

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.integrations.http.client import ClientOptions

__all__ = ["Negotiate", "ProxyAdapter"]


class Negotiate(AuthBase):
    """Authenticates requests to services, and to proxies that requests talk to in cleartext.

    `credential` is by default that of the environment. `target` is the service's SPN, by default
    HTTP/host of the URL; `proxy_target` is the proxy's. With `mutual` "required", every response
    with a status below 400 must prove the service's identity, or MutualAuthenticationError is
    raised; "optional" verifies a proof that comes; "disabled" asks for none. With `preemptive`, the
    first request has a token (over https, once the certificate is known). `delegate` hands over a
    TGT to services that the KDC marks OK-AS-DELEGATE, or with "always" to any. `channel_bindings` ties tokens to the
    certificate of the TLS server. `timeout` (seconds) is for the KDCs. Threads may share it.

    Redirects to another scheme, host or port never carry a token. Raises the errors of `initiate`,
    MutualAuthenticationError and ChannelBindingsError.
    """

    def __init__(
        self,
        credential: Credential | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._settings = Settings(credential, **options)

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Prepare a request, as requests asks for."""
        if r.url is None:
            raise ValueError("the request has no URL")
        dialogue = Dialogue(self._settings, r.url)
        r.headers.update(self._settings.run(dialogue.open()))
        start = _position(r.body)

        def respond(response: requests.Response, **options: Any) -> requests.Response:
            return self._respond(dialogue, response, start, options)

        r.register_hook("response", respond)
        return r

    def _respond(
        self,
        dialogue: Dialogue,
        response: requests.Response,
        start: int | None,
        options: dict[str, Any],
    ) -> requests.Response:
        """Send the request again as long as the dialogue says so; return the last response."""
        original = response.request
        while True:
            # A token serves once: a redirect must not repeat it.
            for field in ("Authorization", "Proxy-Authorization"):
                if str(original.headers.get(field)).startswith("Negotiate "):
                    del original.headers[field]
            try:
                reply = _reply(response, options.get("proxies"))
                fields = self._settings.run(dialogue.answer(reply))
                if fields is None:
                    return response
                following = _send_again(response, fields, start, options)
            except BaseException:
                response.close()
                raise
            response = following


def _send_again(
    response: requests.Response, fields: Fields, start: int | None, options: dict[str, Any]
) -> requests.Response:
    """Send the request of `response` with `fields`, over the same connection if it is kept."""
    _ = response.content  # read, so that the connection can serve again
    response.close()
    request = response.request.copy()
    if request.body is not None and not isinstance(request.body, str | bytes):
        if start is None:
            raise CredentialError(
                "the body of the request cannot be sent a second time: pass a file or bytes, or "
                "preemptive=True"
            )
        request._body_position = start
        rewind_body(request)
    jar: Any = request._cookies
    extract_cookies_to_jar(jar, response.request, response.raw)
    request.headers.pop("Cookie", None)
    request.prepare_cookies(jar)
    request.headers.update(fields)
    following: requests.Response = response.connection.send(request, **options)
    following.history.append(response)
    following.request = request
    return following


def _position(body: Any) -> int | None:
    """Return where a body that is a file begins; None if it cannot be read twice."""
    if body is None or not hasattr(body, "tell"):
        return None
    try:
        return int(body.tell())
    except OSError:
        return None


def _reply(response: requests.Response, proxies: Mapping[str, str] | None) -> Reply:
    url = str(response.request.url)
    proxy, proxy_challenges = None, []
    if response.status_code == 407 and url.lower().startswith("http:"):
        proxy = select_proxy(url, dict(proxies or {}))
        proxy_challenges = _values(response, "Proxy-Authenticate")
    return Reply(
        status=response.status_code,
        url=url,
        challenges=_values(response, "WWW-Authenticate"),
        proxy_challenges=proxy_challenges,
        proxy=proxy,
        location=response.headers.get("Location"),
        certificate=_certificate(response),
    )


def _values(response: requests.Response, name: str) -> list[str]:
    value = response.headers.get(name)  # several fields are joined by commas
    return [] if value is None else [value]


def _certificate(response: requests.Response) -> bytes | None:
    """Return the certificate (DER) of the TLS server that the response came from, or None."""
    held = getattr(response.raw, "connection", None)
    sock = getattr(held, "sock", None)
    if sock is None:
        # http.client has let go of a connection that will be closed, but the response reads it.
        original = getattr(response.raw, "_original_response", None)
        sock = getattr(getattr(getattr(original, "fp", None), "raw", None), "_sock", None)
    return sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None


class ProxyAdapter(HTTPAdapter):
    """A transport whose CONNECT requests have a token for the proxy.

    `auth` is the Negotiate with the credential. Use: `session.mount("https://", ProxyAdapter(auth))`.
    """

    def __init__(self, auth: Negotiate, **options: Any) -> None:
        self._settings = auth._settings
        super().__init__(**options)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools of a proxy, as HTTPAdapter does."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        settings = self._settings

        class Connection(HTTPSConnection):
            def set_tunnel(
                self,
                host: str,
                port: int | None = None,
                headers: Mapping[str, str] | None = None,
                scheme: str = "http",
            ) -> None:
                fields = {**(headers or {}), **settings.run(tunnel_fields(settings, proxy))}
                super().set_tunnel(host, port, fields, scheme)

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": Pool}
        return manager
