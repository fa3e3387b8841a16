"""Sending a message to some KDC of a realm and getting the reply, as steps for `drive` of io/.

Attempts overlap: the next one starts when the last one has failed or been silent for a while. The
first answer wins, and nothing waits beyond the deadline. Source: RFC 4120 7.2.
"""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from purekrb.constants import ErrorCode, MessageType
from purekrb.errors import (
    ConfigError,
    DecodeError,
    TransportError,
    TransportTimeoutError,
    UnsupportedError,
)
from purekrb.io.dial import Dial, Dialing
from purekrb.io.steps import Steps, ThreadCall, Wait, look_up
from purekrb.kdc.attempt import Attempt, AttemptError, Candidate, Place
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import SocketAddress
from purekrb.kdc.tcp import TcpAttempt
from purekrb.kdc.udp import UdpAttempt
from purekrb.krb5conf.config import Config, KdcAddress
from purekrb.krb5conf.spelling import one_line_hint, similar_realms, unknown_realm, upn_hint
from purekrb.log import Log
from purekrb.messages.ap import KrbError
from purekrb.records import replace

__all__ = ["TRANSPORTS", "Answer", "Begin", "ask", "begin"]

_log = Log("purekrb.kdc")

#: A transport begins an attempt; the arguments are the candidate, where it is, the message, the
#: configuration and the time.
Begin = Callable[[Candidate, Place, bytes, Config, float], Attempt]


def _https(
    candidate: Candidate, place: Place, message: bytes, config: Config, now: float
) -> Attempt:
    from purekrb.kdc.https import HttpsAttempt  # only who has a KDC proxy pays for it

    return HttpsAttempt(candidate, place, message, config, now)


def begin(
    transport: Begin, candidate: Candidate, place: Place, message: bytes, config: Config, now: float
) -> Attempt:
    """Return the attempt that `transport` begins. If it fails, a socket that was given is closed."""
    try:
        return transport(candidate, place, message, config, now)
    except BaseException:
        if isinstance(place, socket.socket):
            place.close()
        raise


#: The transports by name, as in `kdc = udp/host`.
TRANSPORTS: dict[str, Begin] = {"udp": UdpAttempt, "tcp": TcpAttempt, "https": _https}
#: Seconds of silence after which the next KDC is asked, too.
STAGGER = 0.8
#: The most attempts of one call, however many KDCs the configuration and DNS name.
MAX_ATTEMPTS = 64

_AS_REQ = 0x60 | MessageType.AS_REQ
_KRB_ERROR = 0x60 | MessageType.KRB_ERROR
#: The encoded fields error-code [6] that cause another attempt.
_OTHER_ATTEMPT = [
    bytes((0xA6, 3, 0x02, 1, code))
    for code in (ErrorCode.KDC_ERR_SVC_UNAVAILABLE, ErrorCode.KRB_ERR_RESPONSE_TOO_BIG)
]


class Answer(NamedTuple):
    """A reply, and the KDC that sent it."""

    reply: bytes
    kdc: KdcAddress


def ask(
    locator: Locator,
    realm: str,
    message: bytes,
    deadline: float,
    *,
    clock: Callable[[], float],
    among: Sequence[KdcAddress] = (),
    dial: Dial | None = None,
) -> Steps[Answer]:
    """Return the answer of some KDC of `realm` to `message`: one of `among` if there are any.

    With `dial`, it opens all connections, and UDP is not used.
    `deadline` and `clock` are `time.monotonic`'s. Raises ConfigError if no KDC is known,
    UnsupportedError if none has a usable transport, TransportError if none answers, and
    TransportTimeoutError at the deadline. All sockets are closed when it ends or is closed.
    """
    kdcs: Iterable[KdcAddress] = among or locator.configured(realm)
    if not kdcs and locator.config.dns_lookup_kdc:
        try:
            kdcs = yield from look_up(
                lambda: locator.by_dns(realm, udp=dial is None),
                deadline,
                clock,
                f"the KDCs of {realm}",
            )
        except (ConfigError, TransportError) as error:
            if not similar_realms(realm, locator.config):
                hint = one_line_hint(realm, locator.config)
                if message[0] == _AS_REQ:
                    hint += upn_hint(realm, locator.config)
                raise type(error)(f"{error}{hint}") from error
    if not kdcs:
        raise unknown_realm(realm, locator.config, of_client=message[0] == _AS_REQ)
    race = _Race(locator, realm, message, kdcs, deadline, dial)
    ready: Collection[socket.socket] = ()
    try:
        while True:
            now = clock()
            answer = race.step(ready, now)
            if answer is not None:
                return answer
            if now >= deadline:
                raise TransportTimeoutError(race.summary("answered before the deadline"))
            ready = yield race.waits(deadline)
    finally:
        race.close()


class _Lookup(Attempt):
    """The lookup of a KDC's addresses by the system's resolver."""

    def __init__(self, candidate: Candidate, locator: Locator, now: float) -> None:
        kdc = candidate.kdc
        self._call = ThreadCall(lambda: locator.addresses(kdc.host, kdc.port))
        super().__init__(candidate, self._call.socket, now)

    def receive(self) -> list[SocketAddress]:
        return self._call.result()


class _Connection(Attempt):
    """A connection that the caller's function opens."""

    def __init__(self, candidate: Candidate, dialing: Dialing, now: float) -> None:
        self._dialing = dialing
        super().__init__(candidate, dialing.socket, now)

    def receive(self) -> socket.socket:
        return self._dialing.result()

    def close(self) -> None:
        self._dialing.close()


def _error_code(reply: bytes) -> int | None:
    """Return the code of a KRB-ERROR that causes another attempt; None for any other reply.

    The search of encoded fields spares decoding most errors: PREAUTH_REQUIRED, which the exchange
    decodes anyway.
    """
    if reply[0] != _KRB_ERROR or not any(field in reply for field in _OTHER_ATTEMPT):
        return None
    try:
        return KrbError.decode(reply).error_code
    except DecodeError:
        return None


class _Race:
    """The attempts of one `ask`: planned, running, and failed (with the reasons)."""

    def __init__(
        self,
        locator: Locator,
        realm: str,
        message: bytes,
        kdcs: Iterable[KdcAddress],
        deadline: float,
        dial: Dial | None,
    ) -> None:
        self._locator = locator
        self._deadline = deadline
        self._dial = dial
        self._config = locator.config
        self._realm = realm
        self._message = message
        self._failures: list[str] = []
        self._timed_out = False
        self._addresses: dict[tuple[str, int], list[SocketAddress]] = {}
        self._live: list[Attempt] = []
        self._next_start = 0.0
        self._attempts_left = MAX_ATTEMPTS
        self._started: set[Candidate] = set()
        self._plan = deque(self._planned(kdcs))
        self._proxies_alone = all(candidate.transport == "https" for candidate in self._plan)

    def _planned(self, kdcs: Iterable[KdcAddress]) -> list[Candidate]:
        """Return the candidates in order: all KDCs over the preferred transport, then the next one.

        A KDC without a transport uses UDP and TCP. KDC proxies have their places in the first
        round. Source: RFC 4120 7.2.1; udp_preference_limit of krb5.conf(5).
        """
        small = len(self._message) <= self._config.udp_preference_limit
        rounds = ["udp", "tcp"] if small else ["tcp", "udp"]
        if self._dial is not None:
            rounds.remove("udp")
        usable = (*rounds, "https")
        unusable = [kdc for kdc in kdcs if kdc.transport and kdc.transport not in usable]
        self._failures += [
            f"{kdc}: open_connection makes no UDP"
            if kdc.transport == "udp"
            else f"{kdc}: purekrb has no {kdc.transport} transport"
            for kdc in unusable
        ]
        plan = [
            Candidate(kdc, kdc.transport or transport, self._realm)
            for transport in rounds
            for kdc in kdcs
            if kdc.transport in ("", transport)
            or (kdc.transport == "https" and transport == rounds[0])
        ]
        if not plan and unusable:
            some = "TCP" if self._dial is not None else "UDP or TCP"
            raise UnsupportedError(
                f"realm {self._realm} has only KDCs that purekrb cannot talk to "
                f"({', '.join(map(str, unusable))}): configure one with {some}, or a KDC proxy "
                "(https)"
            )
        return plan

    def step(self, ready: Collection[socket.socket], now: float) -> Answer | None:
        """Do everything that does not need to wait; return the answer if there is one."""
        for attempt in [attempt for attempt in self._live if attempt.socket in ready]:
            answer = self._receive(attempt, now)
            if answer is not None:
                return answer
        for attempt in list(self._live):
            self._tend(attempt, now)
        while self._plan and (now >= self._next_start or not self._live) and self._attempts_left:
            self._attempts_left -= 1
            self._start(self._plan.popleft(), now)
        if not self._live:
            error_class = TransportTimeoutError if self._timed_out else TransportError
            raise error_class(self.summary("could be reached"))
        return None

    def waits(self, deadline: float) -> Wait:
        """Return the sockets and the time to wait for."""
        until = [deadline, *(attempt.resend_at for attempt in self._live)]
        if self._plan and self._attempts_left:
            until.append(self._next_start)
        if self._config.kdc_timeout is not None:
            until += [attempt.started + self._config.kdc_timeout for attempt in self._live]
        reading = [attempt.socket for attempt in self._live if not attempt.writing]
        writing = [attempt.socket for attempt in self._live if attempt.writing]
        return Wait(reading, writing, min(until))

    def close(self) -> None:
        for attempt in self._live:
            attempt.close()
        self._live.clear()

    def summary(self, what: str) -> str:
        """Return the text that no KDC `what`, with the reason for each KDC."""
        silent = [f"{attempt.candidate}: no answer" for attempt in self._live]
        remedy = "Check that a KDC runs there and that the network lets it through"
        if self._proxies_alone:
            remedy = "Check the URL, the gateway, and the network between"
        why = "; ".join([*self._failures, *silent])
        return f"no KDC of realm {self._realm} {what}: {why}. {remedy}"

    def _start(self, candidate: Candidate, now: float) -> None:
        """Start an attempt with `candidate`. If that fails, the candidate has failed."""
        if candidate.address is None and self._dial is None:
            if not self._expand(candidate):
                self._live.append(_Lookup(candidate, self._locator, now))
                self._next_start = now + STAGGER
        elif candidate not in self._started:
            self._started.add(candidate)
            if candidate.address is not None:
                self._begin(candidate, candidate.address, now)
            elif self._dial is not None:
                most = min(self._deadline - now, self._config.kdc_timeout or math.inf)
                dialing = self._dial(candidate.kdc.host, candidate.kdc.port, most)
                self._live.append(_Connection(candidate, dialing, now))
                self._next_start = now + STAGGER

    def _begin(self, candidate: Candidate, place: Place, now: float) -> None:
        """Send the message to a candidate. If that fails, the candidate has failed."""
        try:
            transport = TRANSPORTS[candidate.transport]
            attempt = begin(transport, candidate, place, self._message, self._config, now)
        except (OSError, AttemptError) as error:
            self._fail(candidate, error, now)
        else:
            _log.debug("%s: sent %d bytes for %s", candidate, len(self._message), self._realm)
            self._live.append(attempt)
            self._next_start = now + STAGGER

    def _expand(self, candidate: Candidate) -> bool:
        """Replace a candidate by one for each address, if these are known without a lookup."""
        kdc = candidate.kdc
        found = self._addresses.get((kdc.host, kdc.port))
        if found is None:
            try:
                found = self._locator.addresses(kdc.host, kdc.port, numeric=True)
            except TransportError:
                return False
            self._addresses[kdc.host, kdc.port] = found
        self._plan.extendleft(replace(candidate, address=address) for address in reversed(found))
        return True

    def _receive(self, attempt: Attempt, now: float) -> Answer | None:
        try:
            got = attempt.receive()
            if got is None:
                return None
            if isinstance(got, socket.socket):
                self._end(attempt)
                self._begin(attempt.candidate, got, now)
                return None
            if isinstance(got, list):
                self._addresses[attempt.candidate.kdc.host, attempt.candidate.kdc.port] = got
                self._end(attempt)
                self._next_start = now
                self._expand(attempt.candidate)
                return None
            code = _error_code(got)
            if code == ErrorCode.KDC_ERR_SVC_UNAVAILABLE:
                raise AttemptError(
                    "it says that its service is unavailable (KDC_ERR_SVC_UNAVAILABLE)"
                )
            if code == ErrorCode.KRB_ERR_RESPONSE_TOO_BIG:
                self._switch_to_tcp(attempt.candidate)
                raise AttemptError(
                    "its reply is too big for this transport (KRB_ERR_RESPONSE_TOO_BIG)"
                )
        except (OSError, DecodeError, AttemptError) as error:
            if attempt.candidate.address is None:
                # The lookup has failed. Do not repeat it for the next transport.
                self._addresses[attempt.candidate.kdc.host, attempt.candidate.kdc.port] = []
            self._end(attempt)
            self._fail(attempt.candidate, error, now)
            return None
        _log.debug("%s: answered with %d bytes", attempt.candidate, len(got))
        return Answer(got, attempt.candidate.kdc)

    def _switch_to_tcp(self, candidate: Candidate) -> None:
        """Do without UDP from now on, beginning with the KDC whose reply is too big for UDP.

        This happens once for each address. Source: RFC 4120 7.2.1.
        """
        if candidate.transport != "udp":
            return
        over_tcp = replace(candidate, transport="tcp")
        rest = [
            planned for planned in self._plan if planned.transport != "udp" and planned != over_tcp
        ]
        self._plan = deque([over_tcp, *rest])

    def _tend(self, attempt: Attempt, now: float) -> None:
        """End an attempt that has had its time, or send its datagram again when that is due."""
        timeout = self._config.kdc_timeout
        try:
            if timeout is not None and now >= attempt.started + timeout:
                self._timed_out = True
                raise AttemptError(f"no answer within {timeout} s")
            if now >= attempt.resend_at:
                attempt.resend(now)
        except (OSError, AttemptError) as error:
            self._end(attempt)
            self._fail(attempt.candidate, error, now)

    def _fail(self, candidate: Candidate, error: Exception, now: float) -> None:
        """Record why `candidate` failed; the next one starts at once."""
        why = getattr(error, "strerror", None) or str(error)
        _log.debug("%s: %s", candidate, why)
        self._failures.append(f"{candidate}: {why}")
        self._next_start = now

    def _end(self, attempt: Attempt) -> None:
        attempt.close()
        self._live.remove(attempt)
