"""Kerberos for nginx's auth_request: a WSGI application that says who a request comes from.

`purekrb serve-http-auth` serves it; so does any WSGI server. docs/http-services.md has nginx's
configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from purekrb.integrations.http import pages
from purekrb.integrations.wsgi import USER, Environment, KerberosMiddleware

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.credentials.files import FilePath
    from purekrb.credentials.keytab import Keytab
    from purekrb.exchanges.ap_exchange import ServiceKeys
    from purekrb.integrations.http.gate import GateOptions

__all__ = ["SIGN_IN", "AuthRequest"]

#: The path of the page that tells people how to sign in, for nginx's error_page 401.
SIGN_IN = "/sign-in"


class AuthRequest:
    """Answers a subrequest with 200 and X-Remote-User, or with 401 or 403.

    With `with_sids`, X-Remote-Sids has the SIDs of the client and its groups, separated by commas.
    The other arguments are those of `purekrb.integrations.wsgi.KerberosMiddleware`.
    """

    def __init__(
        self,
        keytab: Keytab | ServiceKeys | FilePath | None = None,
        *,
        with_sids: bool = False,
        connection_header: str | None = None,
        **options: Unpack[GateOptions],
    ) -> None:
        self._with_sids = with_sids
        options["public"] = [SIGN_IN]
        self._app = KerberosMiddleware(
            self._tell, keytab, connection_header=connection_header, **options
        )

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one subrequest."""
        return self._app(environ, start_response)

    def _tell(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        user = environ.get(USER)
        if user is None:
            content_type, body = pages.render(pages.NO_TOKEN, as_html=True)
            start_response("200 OK", [("Content-Type", content_type)])
            return [body]
        headers = [("X-Remote-User", _field(user.display_name)), ("Content-Length", "0")]
        if self._with_sids:
            identity = user.identity
            sids = [sid for sid in (identity.user_sid, *identity.group_sids) if sid]
            headers.append(("X-Remote-Sids", ",".join(sids)))
        start_response("200 OK", headers)
        return []


def _field(text: str) -> str:
    """Return `text` as WSGI wants header fields: its UTF-8 bytes as characters."""
    return text.encode().decode("latin-1")
