"""The service's side of HTTP Negotiate: who a request comes from, or how to refuse it.

A `Gate` judges each request by its own token. Nothing that a connection, a cookie or a header of a
proxy says makes one client another. Source: RFC 4559.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from purekrb.authorization import is_allowed
from purekrb.constants import ErrorCode, Flag
from purekrb.errors import (
    ApError,
    ChannelBindingsError,
    CredentialError,
    DecodeError,
    KerberosError,
    ReplayError,
)
from purekrb.exchanges.ap_exchange import ServiceKeys
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.integrations.http import pages
from purekrb.integrations.http.headers import read_credentials, write_field
from purekrb.integrations.http.rounds import Rounds
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.refusals import Refusals
from purekrb.replay import ReplayCache
from purekrb.replay.default import may_wait
from purekrb.system import cached_property

if TYPE_CHECKING:
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.files import FilePath
    from purekrb.credentials.keytab import Keytab
    from purekrb.exchanges.identity import ClientIdentity
    from purekrb.integrations.http.certificates import Certificates

__all__ = ["MAX_DRAINED", "Admitted", "Gate", "GateOptions", "Refused", "User"]

log = Log("purekrb.http")
#: The first byte of a NegTokenResp, which continues a negotiation. Source: RFC 4178 4.2.
_CONTINUES = b"\xa1"
_NTLM = b"NTLMSSP\0"
#: The pages of refusals whose cause the client can mend, by error code.
_PAGES = {
    ErrorCode.KRB_AP_ERR_SKEW: pages.CLOCK,
    ErrorCode.KRB_AP_ERR_TKT_EXPIRED: pages.EXPIRED,
    ErrorCode.KRB_AP_ERR_TKT_NYV: pages.CLOCK,
}
#: The most bytes that adapters read of the body of a refused request.
MAX_DRAINED = 1 << 20


class User:
    """The client of one request, as its token proved it."""

    is_authenticated = True

    def __init__(self, context: Acceptor) -> None:
        self._context = context

    @property
    def principal(self) -> Principal:
        """The client's principal."""
        return self._context.initiator

    @property
    def identity(self) -> ClientIdentity:
        """The principal, and SIDs and names from the ticket's PAC. Raises PacError."""
        return self._context.identity

    @property
    def delegated_credential(self) -> Credential | None:
        """The client's credential, or None if the service cannot act for it: see `Acceptor`."""
        return self._context.delegated_credential

    @property
    def channel_bound(self) -> bool:
        """Whether the token is bound to the TLS certificate of this service."""
        return self._context.channel_bound

    @cached_property
    def display_name(self) -> str:
        """The principal as text."""
        return str(self.principal)

    def has_sid(self, sid: object) -> bool:
        """Return whether the PAC says that this is the client's SID or that of one of its groups.

        `sid` is a Sid or its text. Raises PacError.
        """
        return str(sid) in self.identity.sids

    def __str__(self) -> str:
        return self.display_name

    def __repr__(self) -> str:
        return f"<User {self.display_name}>"


class Admitted(NamedTuple):
    """A request of `user`. `answer` is the value of WWW-Authenticate for the response."""

    user: User
    answer: str


class Refused(NamedTuple):
    """A response instead of the application's."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class GateOptions(TypedDict, total=False):
    """The arguments of `Gate` that adapters pass on."""

    service: str | Principal | None
    authorize: Callable[[User], Any] | None
    public: Iterable[str]
    replay_cache: ReplayCache | None
    certificate: FilePath | Iterable[FilePath] | None
    require_channel_bindings: bool
    require_pac: bool
    accept_delegation: bool
    tgt: Credential | None
    clock_skew: float
    max_waiting: int
    waiting_timeout: float


class Gate:
    """Judges the requests of one service.

    `keytab` is a Keytab, a file, or None: see `Keytab.load`. A file is read again once it has
    changed, so that its keys can be replaced while the service runs. `service` limits it to the keys of
    that SPN. `authorize(user)` returns whether a client may come in. `public` are the paths that
    need no authentication; one that ends in `*` covers all paths that begin so. `replay_cache` is
    by default that of Acceptor. `certificate` is the file, or the files, of the TLS certificate
    that clients see (PEM): channel bindings are then checked if a client sends some;
    `require_channel_bindings` demands them. `require_pac` refuses clients whose ticket has no
    verified PAC. `tgt` is a Credential of the service's own account, with which
    `User.delegated_credential` acts for clients. Half-made contexts, of clients that need several rounds, are kept for
    `waiting_timeout` seconds, and at most `max_waiting` at a time.

    Clients need not ask for mutual authentication, since browsers do not; those that do get their
    answer.
    """

    def __init__(
        self,
        keytab: Keytab | ServiceKeys | FilePath | None = None,
        *,
        service: str | Principal | None = None,
        authorize: Callable[[User], Any] | None = None,
        public: Iterable[str] = (),
        replay_cache: ReplayCache | None = None,
        certificate: FilePath | Iterable[FilePath] | None = None,
        require_channel_bindings: bool = False,
        require_pac: bool = False,
        accept_delegation: bool = True,
        tgt: Credential | None = None,
        clock_skew: float = 300,
        max_waiting: int = 1000,
        waiting_timeout: float = 30.0,
    ) -> None:
        keys: Any = keytab
        if keytab is None or isinstance(keytab, str | os.PathLike):
            from purekrb.credentials.keytab import Keytab  # only files pay for it

            keys = Keytab.load(keytab)
        self.authorize = authorize
        self._public = _paths(public)
        self._certificates = None if certificate is None else _certificates(certificate)
        self._require_bindings = require_channel_bindings
        self._keys = keys
        self._options: dict[str, Any] = {
            "service": service,
            "replay_cache": replay_cache,
            "require_pac": require_pac,
            "accept_delegation": accept_delegation,
            "tgt": tgt,
            "clock_skew": clock_skew,
            "require": Flag(0),
        }
        #: Whether to judge a request in a thread, where there is an event loop.
        self.may_wait = may_wait(replay_cache)
        self._rounds = Rounds(max_waiting, waiting_timeout)
        self._refusals = Refusals(log)
        Acceptor(keys, **self._options).close()  # wrong options fail at once

    def is_public(self, path: str) -> bool:
        """Return whether a path needs no authentication."""
        exact, beginnings = self._public
        if path in exact:
            return True
        # An application may read such a path as another one.
        plain = "//" not in path and "\\" not in path and "%" not in path
        # Some drop what follows a ";" in a part of the path.
        plain = plain and not {".", ".."} & {part.partition(";")[0] for part in path.split("/")}
        return plain and path.startswith(beginnings)

    def judge(
        self,
        authorization: str | None,
        *,
        connection: Hashable = None,
        wants_html: bool = False,
        tls_certificate: str | None = None,
        peer: object = "a client",
    ) -> Admitted | Refused:
        """Return who a request comes from, or the response that refuses it.

        `authorization` is the value of the request's header field, `connection` whatever tells one
        connection from others, `tls_certificate` the server's in PEM if the server tells it, and
        `peer` the client's address, for the log.
        """
        try:
            token = None if authorization is None else read_credentials(authorization)
        except DecodeError as error:
            return self._refused(error, b"", wants_html, peer)
        if not token:
            return _refusal(401, pages.NO_TOKEN, write_field(None), wants_html)
        waiting = self._rounds.take(connection) if token[:1] == _CONTINUES else None
        try:
            context, answer = self._step(waiting, token, tls_certificate)
        except KerberosError as error:
            return self._refused(error, token, wants_html, peer)
        if context.established:
            return Admitted(User(context), write_field(answer))
        self._rounds.put(connection, context)
        return _refusal(401, pages.NO_TOKEN, write_field(answer), wants_html)

    def allows(self, user: User) -> bool:
        """Return whether `authorize` lets a client in. Raises TypeError for a coroutine function."""
        return self.authorize is None or is_allowed(self.authorize(user))

    def forbid(self, admitted: Admitted, *, wants_html: bool = False) -> Refused:
        """Return the response for a client that is known, and may not come in."""
        user = admitted.user.display_name
        log.debug("%s is not authorized", user)
        return _refusal(403, pages.FORBIDDEN, admitted.answer, wants_html, user)

    def _step(
        self, waiting: Acceptor | None, token: bytes, tls_certificate: str | None
    ) -> tuple[Acceptor, bytes | None]:
        """Give the token to a context; return both the context and its answer."""
        if waiting is not None:
            return waiting, waiting.step(token)
        refusal: ChannelBindingsError | None = None
        for bindings in self._bindings(tls_certificate):
            context = Acceptor(
                self._keys,
                channel_bindings=bindings,
                require_channel_bindings=self._require_bindings,
                **self._options,
            )
            try:
                return context, context.step(token)
            except ChannelBindingsError as error:
                refusal = refusal or error  # the token may be bound to another of our certificates
        raise refusal or ValueError("no bindings were tried")

    def _bindings(self, tls_certificate: str | None) -> tuple[ChannelBindings | None, ...]:
        if tls_certificate is not None:
            from purekrb.integrations.http.certificates import bindings_of_pem

            return (bindings_of_pem(tls_certificate),)
        if self._certificates is not None:
            return self._certificates.bindings()
        if self._require_bindings:
            raise CredentialError(
                "channel bindings are required, but the certificate that clients see is unknown: "
                "pass certificate="
            )
        return (None,)

    def _refused(
        self, error: KerberosError, token: bytes, wants_html: bool, peer: object
    ) -> Refused:
        self._refusals.report(peer, error)
        code = error.code if isinstance(error, ApError) else None
        if token.startswith(_NTLM) or "NTLM" in str(error):
            page = pages.NTLM
        elif isinstance(error, ReplayError):
            page = pages.REPLAYED
        elif isinstance(error, ChannelBindingsError):
            page = pages.BINDINGS
        else:
            page = _PAGES.get(ErrorCode(code), pages.OTHER) if code in _PAGES else pages.OTHER
        # A browser that gets a token with a refusal shows an error of its own instead of the page.
        answer = None if wants_html else error.response
        return _refusal(401, page, write_field(answer), wants_html)


def _refusal(
    status: int, page: pages.Page, answer: str, wants_html: bool, user: str = ""
) -> Refused:
    content_type, body = pages.render(page, as_html=wants_html, user=user)
    headers = (
        ("WWW-Authenticate", answer),
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    )
    return Refused(status, {401: "Unauthorized", 403: "Forbidden"}[status], headers, body)


def _certificates(files: FilePath | Iterable[FilePath]) -> Certificates:
    from purekrb.integrations.http.certificates import Certificates  # only they pay for the import

    return Certificates([files] if isinstance(files, str | os.PathLike) else files)


def _paths(public: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the exact paths, and the beginnings of others."""
    if isinstance(public, str):
        raise TypeError("public is a list of paths, not one text")
    listed = tuple(public)
    for path in listed:
        if not path.startswith("/") or "*" in path[:-1]:
            raise ValueError(f'a public path begins with "/" and may end in "*", unlike {path!r}')
    exact = frozenset(path for path in listed if not path.endswith("*"))
    return exact, tuple(path[:-1] for path in listed if path.endswith("*"))
