"""Kerberos for Flask: `Kerberos(app)`, and `current_user()` in a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purekrb.integrations.extras import extra
from purekrb.integrations.http.gate import User
from purekrb.integrations.wsgi import USER, KerberosMiddleware

with extra("flask"):
    import flask

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.credentials.files import FilePath
    from purekrb.credentials.keytab import Keytab
    from purekrb.exchanges.ap_exchange import ServiceKeys
    from purekrb.integrations.http.gate import GateOptions

__all__ = ["Kerberos", "current_user"]


class Kerberos:
    """Lets only authenticated requests through to a Flask application.

    The arguments are those of `purekrb.integrations.wsgi.KerberosMiddleware`.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        keytab: Keytab | ServiceKeys | FilePath | None = None,
        *,
        connection_header: str | None = None,
        **options: Unpack[GateOptions],
    ) -> None:
        self._keytab, self._options = keytab, options
        self._connection_header = connection_header
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Protect `app`, as extensions of Flask do."""
        protected = KerberosMiddleware(
            app.wsgi_app, self._keytab, connection_header=self._connection_header, **self._options
        )
        app.wsgi_app = protected  # type: ignore[method-assign]


def current_user() -> User | None:
    """Return who the current request comes from; None on a public path."""
    user: User | None = flask.request.environ.get(USER)
    return user
