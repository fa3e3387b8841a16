"""The client's side of HTTP Negotiate: what to send for one request, and whether to trust answers.

    client                                      service
    request ---------------------------------->
        <------------------ 401, WWW-Authenticate: Negotiate
    request, Authorization: Negotiate AP-REQ -->
        <------------------ 200, WWW-Authenticate: Negotiate AP-REP

An adapter makes one `Dialogue` for a request. It sends the fields that `open` and `answer` return,
and gives each response to `answer`, until that returns None: the response is for the caller. Both
are generators, since a context needs tickets: they yield a `Start` and are sent its Initiator.
`Settings.run` and `Settings.run_async` drive them. Source: RFC 4559.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Generator, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar, get_args

from purekrb.constants import Flag, NegState
from purekrb.credentials.credential import Credential
from purekrb.errors import (
    ChannelBindingsError,
    ContextExpiredError,
    CredentialError,
    KerberosError,
    MutualAuthenticationError,
)
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.initiator import Delegate, Initiator
from purekrb.integrations.http.headers import find_challenge, write_field
from purekrb.integrations.http.origins import Origin, leads_elsewhere, origin_of, service_of
from purekrb.kdc.client import DEFAULT_TIMEOUT, Target, initiate, initiate_async
from purekrb.krb5conf.config import Config
from purekrb.log import Log
from purekrb.messages.spnego import NegTokenResp
from purekrb.system import fork_safe

__all__ = [
    "ClientOptions",
    "Dialogue",
    "Exchange",
    "Fields",
    "Mutual",
    "Reply",
    "Settings",
    "Start",
    "tunnel_fields",
]

log = Log("purekrb.http")
T = TypeVar("T")

#: "required": no answer counts without an AP-REP. "optional": one that comes is verified.
#: "disabled": none is asked for.
Mutual = Literal["required", "optional", "disabled"]
#: The header fields to set on the next request.
Fields = dict[str, str]

#: The most requests for one: a handshake has at most three rounds, and may begin again once.
_MAX_ROUNDS = 8
#: The most origins whose certificates are remembered.
_MAX_KNOWN = 256
_COMPLETED = int(NegState.ACCEPT_COMPLETED)
_BINDINGS_CODE = 41  # KRB_AP_ERR_MODIFIED, as for the acceptor


class Start(NamedTuple):
    """Begin a context with `target`: tickets are needed, so a KDC may be asked."""

    target: Target
    channel_bindings: ChannelBindings | None


#: Yields what to begin, is sent the Initiator, and returns a T.
Exchange = Generator[Start, Initiator, T]


class Reply(NamedTuple):
    """What counts of a response. `url` is that of the request it answers.

    `challenges` are the values of WWW-Authenticate, `proxy_challenges` those of Proxy-Authenticate.
    `proxy` is the URL of the proxy that got the request in cleartext, or None.
    `certificate` is that of the connection's TLS server (DER), or None.
    """

    status: int
    url: str
    challenges: Sequence[str] = ()
    proxy_challenges: Sequence[str] = ()
    proxy: str | None = None
    location: str | None = None
    certificate: bytes | None = None


class ClientOptions(TypedDict, total=False):
    """The arguments of `Settings` that adapters pass on."""

    target: Target | None
    mutual: Mutual
    preemptive: bool
    delegate: Delegate
    channel_bindings: bool
    proxy_target: Target | None
    config: Config | None
    timeout: float


class Settings:
    """What all requests with one authentication object have in common. Threads may share it.

    The arguments are those of the adapters; `purekrb.integrations.requests.Negotiate` says what they mean.
    """

    def __init__(
        self,
        credential: Credential | None = None,
        *,
        target: Target | None = None,
        mutual: Mutual = "required",
        preemptive: bool = False,
        delegate: Delegate = False,
        channel_bindings: bool = True,
        proxy_target: Target | None = None,
        config: Config | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if mutual not in get_args(Mutual):
            raise ValueError(f"mutual is one of {', '.join(get_args(Mutual))}, not {mutual!r}")
        if delegate and mutual == "disabled":
            raise ValueError("delegate hands over a TGT: it needs mutual authentication")
        if credential is not None and not isinstance(credential, Credential):
            raise TypeError(
                f"the credential is of type {type(credential).__name__}: pass a Credential, or "
                "None for that of the environment"
            )
        self.target = target
        self.proxy_target = proxy_target
        self.mutual = mutual
        self.preemptive = preemptive
        self.channel_bindings = channel_bindings
        self._flags = Flag.DEFAULT
        if mutual == "disabled":
            self._flags &= ~Flag.MUTUAL
        self._delegate: Delegate = delegate
        self._given = credential
        #: The default credential for each target: a collection has one for each realm.
        self._found: dict[object, Credential] = {}
        self._config = config
        self._timeout = timeout
        self._lock = fork_safe(threading.Lock())
        self._known: dict[Origin, ChannelBindings] = {}

    def bindings_of(self, origin: Origin) -> ChannelBindings | None:
        """Return the channel bindings of an origin that has answered before, or None."""
        return self._known.get(origin)

    def remember(self, origin: Origin, bindings: ChannelBindings) -> None:
        """Remember the channel bindings of an origin, for requests with `preemptive`."""
        with self._lock:
            while len(self._known) >= _MAX_KNOWN and origin not in self._known:
                del self._known[next(iter(self._known))]
            self._known[origin] = bindings

    def run(self, exchange: Exchange[T]) -> T:
        """Drive an exchange; block while KDCs are asked."""
        try:
            step = next(exchange)
            while True:
                step = exchange.send(self._start(step))
        except StopIteration as done:
            return done.value

    async def run_async(self, exchange: Exchange[T]) -> T:
        """Drive an exchange on an asyncio event loop."""
        try:
            step = next(exchange)
            while True:
                step = exchange.send(await self._start_async(step))
        except StopIteration as done:
            return done.value

    def _start(self, step: Start) -> Initiator:
        credential = self._credential(step.target)
        try:
            return initiate(step.target, credential, **self._options(step))
        except (CredentialError, ContextExpiredError):
            if self._given is not None:
                raise
        # Another program may have renewed the tickets since they were read.
        return initiate(
            step.target, self._credential(step.target, anew=True), **self._options(step)
        )

    async def _start_async(self, step: Start) -> Initiator:
        credential = self._credential(step.target)
        try:
            return await initiate_async(step.target, credential, **self._options(step))
        except (CredentialError, ContextExpiredError):
            if self._given is not None:
                raise
        credential = self._credential(step.target, anew=True)
        return await initiate_async(step.target, credential, **self._options(step))

    def _credential(self, target: Target, *, anew: bool = False) -> Credential:
        if self._given is not None:
            return self._given
        with self._lock:
            found = None if anew else self._found.get(target)
            if found is None:
                if len(self._found) >= _MAX_KNOWN:
                    self._found.clear()
                found = Credential.default(self._config, service=target)
                self._found[target] = found
            return found

    def _options(self, step: Start) -> dict[str, Any]:
        if self._config is None:
            self._config = Config.from_file()
        return {
            "config": self._config,
            "flags": self._flags,
            "delegate": self._delegate,
            "mechanism": "negotiate",
            "channel_bindings": step.channel_bindings,
            "timeout": self._timeout,
        }


class _Party(NamedTuple):
    """Who asks for authentication: by which status, and in which field it is sent."""

    name: str
    status: int
    field: str


_SERVICE = _Party("service", 401, "Authorization")
_PROXY = _Party("proxy", 407, "Proxy-Authorization")


class _Login:
    """One context with a service or a proxy, and how far it is."""

    def __init__(self, party: _Party, target: Target) -> None:
        self.party = party
        self.target = target
        self.context: Initiator | None = None
        self.bindings: ChannelBindings | None = None
        #: Whether the token that was sent may have been refused for no fault of the client.
        self.may_restart = True

    def start(self, bindings: ChannelBindings | None, *, may_restart: bool) -> Exchange[Fields]:
        """Begin a context; return the field with its first token."""
        self.context = yield Start(self.target, bindings)
        self.bindings, self.may_restart = bindings, may_restart
        return {self.party.field: write_field(self.context.step())}


class Dialogue:
    """One request for `url`, and the responses to it and to redirects within its origin."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._origin = origin_of(url)
        self._service = _Login(_SERVICE, settings.target or service_of(self._origin))
        self._proxy: _Login | None = None
        self._rounds = 0
        self._left = False

    def open(self) -> Exchange[Fields]:
        """Return the fields of the first request: with `preemptive`, a token."""
        settings = self._settings
        if not settings.preemptive:
            return {}
        bindings = None
        if self._binds:
            # The certificate is known once the origin has answered.
            bindings = settings.bindings_of(self._origin)
            if bindings is None:
                return {}
        return (yield from self._service.start(bindings, may_restart=True))

    def answer(self, reply: Reply) -> Exchange[Fields | None]:
        """Return the fields to send the request with again, or None if `reply` is for the caller.

        Raises MutualAuthenticationError if the service has not proved its identity, and
        ChannelBindingsError if the response came over another TLS server than the one that the
        token was made for.
        """
        if self._left or origin_of(reply.url) != self._origin:
            self._left = True
            if reply.status == _SERVICE.status and _challenge(reply.challenges) is not None:
                log.warning(
                    "%s asks for a token, but a redirect led there from %s: none is sent. "
                    "Request that URL directly",
                    reply.url,
                    f"{self._origin.scheme}://{self._origin.host}:{self._origin.port}",
                )
            return None
        bindings = self._bindings(reply)
        if reply.status == _PROXY.status and reply.proxy is not None:
            if self._proxy is None:
                self._proxy = _proxy_login(self._settings, reply.proxy)
            return (yield from self._respond(self._proxy, reply.proxy_challenges, None, reply))
        if reply.status == _SERVICE.status:
            fields = yield from self._respond(self._service, reply.challenges, bindings, reply)
            if fields is not None and self._proxy is not None:
                fields |= yield from self._proxy.start(
                    None, may_restart=False
                )  # a token serves once
            return fields
        self._check(reply)
        return None

    def check_channel(self, certificate: bytes | None) -> None:
        """Raise ChannelBindingsError if the token that was made is bound to another TLS server.

        Adapters that see the connection before they send call this; `answer` looks at responses.
        """
        bound = self._service.bindings
        if bound is None:
            return
        found = certificate and ChannelBindings.tls_server_end_point(certificate)
        if not found or not hmac.compare_digest(bound.application_data, found.application_data):
            raise ChannelBindingsError(
                "the TLS server has another certificate than the one that the token is bound to: "
                "something may stand between you and the service. Pass channel_bindings=False if "
                "its servers have different certificates",
                code=_BINDINGS_CODE,
            )

    @property
    def _binds(self) -> bool:
        return self._settings.channel_bindings and self._origin.secure

    def _bindings(self, reply: Reply) -> ChannelBindings | None:
        """Return the channel bindings of the response's connection."""
        if not self._binds or reply.status == _PROXY.status:
            return None
        if reply.certificate is None:
            if reply.status != _SERVICE.status or _challenge(reply.challenges) is None:
                return None
            raise ChannelBindingsError(
                "the server's certificate cannot be known, so no token can be bound to it: pass "
                "channel_bindings=False if you rely on TLS alone",
                code=_BINDINGS_CODE,
            )
        if reply.status != _SERVICE.status:
            self.check_channel(reply.certificate)
        bindings = ChannelBindings.tls_server_end_point(reply.certificate)
        self._settings.remember(self._origin, bindings)
        return bindings

    def _respond(
        self,
        login: _Login,
        challenges: Sequence[str],
        bindings: ChannelBindings | None,
        reply: Reply,
    ) -> Exchange[Fields | None]:
        """Return the field for the next round; None if the request is refused for good."""
        token = _challenge(challenges)
        self._rounds += 1
        if token is None or self._rounds > _MAX_ROUNDS:
            return None
        context = login.context
        if context is not None and token:
            try:
                following = context.step(token)
            except KerberosError as error:
                if not login.may_restart:
                    log.warning(
                        "the %s at %s refused the token: %s", login.party.name, reply.url, error
                    )
                    return None
            else:
                if following is not None:
                    return {login.party.field: write_field(following)}
                return None  # authenticated, and refused all the same
        elif context is not None and not login.may_restart:
            log.debug("the %s at %s refused the token", login.party.name, reply.url)
            return None
        return (yield from login.start(bindings, may_restart=False))

    def _check(self, reply: Reply) -> None:
        """Verify the service's proof in a response that is for the caller."""
        mutual, context = self._settings.mutual, self._service.context
        # The next response, after a redirect, answers another request.
        self._service.context = self._service.bindings = self._proxy = None
        self._rounds = 0
        if mutual == "disabled":
            return
        problem, cause = self._problem(reply, context)
        if problem is None:
            return
        redirect = 300 <= reply.status < 400 and reply.location is not None
        # An error says nothing that could be trusted or not. After a redirect within the origin,
        # the next response has to bring the proof.
        must = reply.status < 400 and not (
            redirect and not leads_elsewhere(reply.url, reply.location or "")
        )
        if mutual == "required" and must:
            if redirect:
                problem += (
                    f". It redirects to {reply.location}, to which no token goes: request that URL "
                    "directly, if it is the service's"
                )
            raise MutualAuthenticationError(
                f"the service has not proved its identity: its response with status {reply.status} "
                f"{problem}"
            ) from cause
        if cause is not None and not _is_bare_acceptance(_challenge(reply.challenges)):
            raise MutualAuthenticationError(
                f"the service has not proved its identity: its response {problem}"
            ) from cause
        log.debug("%s has not proved its identity: its response %s", reply.url, problem)

    def _problem(
        self, reply: Reply, context: Initiator | None
    ) -> tuple[str | None, KerberosError | None]:
        """Return why the response proves nothing, and the error that says so; (None, None) if it does."""
        if context is not None and context.established:
            return None, None
        if context is None:
            return (
                "came without a request for authentication, so no token was sent. Pass "
                'preemptive=True to send one unasked, or mutual="optional" if TLS is proof enough'
            ), None
        try:
            token = find_challenge(reply.challenges)
            if not token:
                found = (
                    "has no WWW-Authenticate: Negotiate"
                    if token is None
                    else ("has the word Negotiate without a token")
                )
                return (
                    f"{found}. A proxy may have removed it. Pass "
                    'mutual="optional" if TLS is proof enough'
                ), None
            following = context.step(token)
        except KerberosError as error:
            return f"has a token that is no proof: {error}", error
        if following is not None or not context.established:
            return "has a token that leaves the handshake incomplete", None
        return None, None


def tunnel_fields(settings: Settings, proxy: str) -> Exchange[Fields]:
    """Return the fields of a CONNECT to `proxy`, with a token sent unasked.

    What a proxy says of its own identity is not seen by callers of CONNECT, and TLS with the
    service behind it does not depend on it.
    """
    return (yield from _proxy_login(settings, proxy).start(None, may_restart=False))


def _proxy_login(settings: Settings, proxy: str) -> _Login:
    return _Login(_PROXY, settings.proxy_target or service_of(origin_of(proxy)))


def _challenge(challenges: Sequence[str]) -> bytes | None:
    """Return the challenge's token; b"" also for one that cannot be read."""
    try:
        return find_challenge(challenges)
    except KerberosError:
        return b""


def _is_bare_acceptance(token: bytes | None) -> bool:
    """Whether a token says that the client is accepted, and nothing else."""
    try:
        message = NegTokenResp.decode(token or b"")
    except KerberosError:
        return False
    return message.neg_state == _COMPLETED and not message.response_token
