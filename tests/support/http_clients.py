"""Foreign HTTP clients with Negotiate by MIT's GSS-API, as programs: `python http_clients.py NAME CA URL...`.

Each prints one line of JSON for a URL: the status and the body. `CA` is the authority of https.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["CLIENTS"]


def requests_gssapi(ca: str, secure: bool) -> Callable[[str], Any]:
    """requests-gssapi with mutual authentication required and with channel bindings."""
    import requests
    from requests_gssapi import REQUIRED, HTTPSPNEGOAuth

    bindings = "tls-server-end-point" if secure else None
    auth = HTTPSPNEGOAuth(mutual_authentication=REQUIRED, channel_bindings=bindings)
    return _requests(requests.Session(), auth, ca)


def requests_gssapi_by_default(ca: str, secure: bool) -> Callable[[str], Any]:
    """requests-gssapi as it comes: it does not ask for mutual authentication."""
    import requests
    from requests_gssapi import HTTPSPNEGOAuth

    return _requests(requests.Session(), HTTPSPNEGOAuth(), ca)


def requests_kerberos(ca: str, secure: bool) -> Callable[[str], Any]:
    """requests-kerberos, which requires mutual authentication and sends channel bindings."""
    import requests
    from requests_kerberos import HTTPKerberosAuth

    return _requests(requests.Session(), HTTPKerberosAuth(), ca)


def httpx_gssapi(ca: str, secure: bool) -> Callable[[str], Any]:
    """httpx-gssapi as it comes."""
    import ssl

    import httpx
    from httpx_gssapi import HTTPSPNEGOAuth

    context = ssl.create_default_context(cafile=ca)
    return httpx.Client(auth=HTTPSPNEGOAuth(), verify=context, trust_env=False).get


def _requests(session: Any, auth: Any, ca: str) -> Callable[[str], Any]:
    session.trust_env, session.verify, session.auth = False, ca, auth
    return session.get  # type: ignore[no-any-return]


CLIENTS = {
    client.__name__: client
    for client in (requests_gssapi, requests_gssapi_by_default, requests_kerberos, httpx_gssapi)
}

if __name__ == "__main__":
    del sys.path[0]  # this folder has a spnego.py
    name, authority, *urls = sys.argv[1:]
    gets: dict[str, Callable[[str], Any]] = {}
    for url in urls:
        server = url.rpartition("/")[0]
        if server not in gets:
            gets[server] = CLIENTS[name](authority, url.startswith("https"))
        response = gets[server](url)
        print(json.dumps([response.status_code, response.text]))
