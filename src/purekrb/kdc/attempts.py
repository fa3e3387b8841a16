"""How a message gets to some KDC of a realm and the reply back: one source for the blocking and the asyncio transport.

`ask` is a generator that works on non-blocking sockets; whenever nothing can go on it yields a `Wait`, and its runner
(transport.py, aio_transport.py) sends it the sockets that became ready. Attempts overlap: the next one starts when the
last one failed or has been silent for a while, and the first answer wins. Nothing waits beyond the deadline.
Source: RFC 4120 7.2.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Generic, NamedTuple, TypeVar

from purekrb.constants import ErrorCode, MessageType
from purekrb.errors import ConfigError, DecodeError, TransportError, TransportTimeoutError, UnsupportedError
from purekrb.kdc.config import KdcAddress
from purekrb.kdc.locate import Locator, SocketAddress
from purekrb.messages import der
from purekrb.messages.ap import KrbError
from purekrb.records import record, replace
from purekrb.trace import Log

__all__ = ["Answer", "FrameReader", "Steps", "Wait", "aside", "ask", "in_thread"]

_log = Log("purekrb.kdc")

T = TypeVar("T")

#: The largest reply over TCP, as in other implementations.
MAX_REPLY = 1 << 20
#: Seconds of silence after which the next KDC is asked as well.
STAGGER = 0.8
#: Seconds until a datagram is sent again: doubled each time.
RESEND = 1.0
#: Attempts of one call, whatever the configuration and DNS name.
MAX_ATTEMPTS = 64

_UDP_SIZE = 65535
_KRB_ERROR = 0x60 | MessageType.KRB_ERROR
#: The field error-code [6] of what leads to another attempt: there is one way to write it.
_OTHER_ATTEMPT = [
    bytes((0xA6, 3, 0x02, 1, code)) for code in (ErrorCode.KDC_ERR_SVC_UNAVAILABLE, ErrorCode.KRB_ERR_RESPONSE_TOO_BIG)
]
_REPLY_TAGS = {0x60 | number for number in (MessageType.AS_REP, MessageType.TGS_REP, MessageType.KRB_ERROR)}
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
#: What sending says before the connection stands, by the platform.
_NOT_YET = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOTCONN)


class Wait(NamedTuple):
    """Go on when a socket of `reading` or `writing` is ready, or at `until` (`time.monotonic`)."""

    reading: list[socket.socket]
    writing: list[socket.socket]
    until: float


#: Yields what to wait for, is sent the ready sockets, returns a T.
Steps = Generator[Wait, Collection[socket.socket], T]


class Answer(NamedTuple):
    """A reply, and the KDC that gave it."""

    reply: bytes
    kdc: KdcAddress


class _AttemptError(Exception):
    """This attempt is over; the text says why. Never leaves this module."""


def ask(
    locator: Locator,
    realm: str,
    message: bytes,
    deadline: float,
    *,
    clock: Callable[[], float],
    primary: bool = False,
) -> Steps[Answer]:
    """Return the answer of some KDC of `realm` to `message`; `primary`: of a primary KDC only.

    `deadline` and `clock` are `time.monotonic`'s. Raises ConfigError if no KDC is known, UnsupportedError if none can
    be used, TransportError if none answers, TransportTimeoutError at the deadline. Closes every socket when it ends or
    is closed.
    """
    kdcs: Iterable[KdcAddress] = locator.configured(realm, primary=primary)
    if not kdcs and not primary and locator.config.dns_lookup_kdc:
        kdcs = yield from aside(lambda: locator.by_dns(realm), deadline, clock, f"the KDCs of {realm}")
    if not kdcs:
        raise ConfigError(f"no KDC of realm {realm} is known: add kdc = host:port to it under [realms] in krb5.conf")
    race = _Race(locator, realm, message, kdcs)
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


def aside(function: Callable[[], T], deadline: float, clock: Callable[[], float], what: str) -> Steps[T]:
    """Return what `function`, which asks DNS for `what`, returns; it runs in a thread of its own."""
    return in_thread(function, deadline, clock, f"DNS did not name {what} before the deadline: check the resolver")


def in_thread(function: Callable[[], T], deadline: float, clock: Callable[[], float], late: str) -> Steps[T]:
    """Return what the blocking `function` returns, which runs in a thread of its own.

    Raises TransportTimeoutError, with the text `late`, at the deadline. After it, `function` is not started.
    """
    if clock() >= deadline:
        raise TransportTimeoutError(late)
    call = _ThreadCall(function)
    try:
        while call.socket not in (yield Wait([call.socket], [], deadline)):
            if clock() >= deadline:
                raise TransportTimeoutError(late)
        return call.result()
    finally:
        call.close()


class _ThreadCall(Generic[T]):
    """A blocking call in a daemon thread; `socket` becomes readable when it is done.

    Neither the system's resolver nor PBKDF2 can be stopped, so that a late call is left behind: it ends by itself.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        try:
            self.socket, self._signal = socket.socketpair()
        except OSError as error:
            raise TransportError(f"no socket to wait for a thread: {error.strerror}") from error
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        try:
            threading.Thread(target=self._run, name="purekrb-aside", daemon=True).start()
        except RuntimeError as error:
            self.socket.close()
            self._signal.close()
            raise TransportError(f"no thread could be started ({error}): raise the limit of threads") from error

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self._signal.close()

    def result(self) -> T:
        """Return or raise what the call did, once `socket` is readable."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set, as there was no error

    def close(self) -> None:
        self.socket.close()


class FrameReader:
    """Puts a reply over TCP together: 4 bytes of length, big-endian, and as many bytes of message.

    Source: RFC 4120 7.2.2.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return the message once it is whole. Raises DecodeError for a length that no reply has."""
        self._buffer += data
        if len(self._buffer) < 4:
            return None
        size = int.from_bytes(self._buffer[:4], "big")
        if not 0 < size <= MAX_REPLY:
            raise DecodeError(f"its reply starts with 0x{size:08x} where the length belongs (1 to {MAX_REPLY})")
        return bytes(self._buffer[4 : 4 + size]) if len(self._buffer) >= 4 + size else None

    def __str__(self) -> str:
        return f"{len(self._buffer)} bytes"


@record
class _Candidate:
    """What may be tried: a KDC over one transport, at one address (None: all of them, not looked up yet)."""

    kdc: KdcAddress
    transport: str
    address: SocketAddress | None = None

    def __str__(self) -> str:
        text = f"{self.transport} {self.kdc.host} port {self.kdc.port}"
        if self.address is not None and self.address.sockaddr[0] != self.kdc.host:
            text += f" ({self.address.sockaddr[0]})"
        return text


class _Attempt:
    """A candidate under way. `started` and `resend_at` are monotonic times."""

    writing = False
    resend_at = float("inf")

    def __init__(self, candidate: _Candidate, sock: socket.socket, now: float) -> None:
        self.candidate = candidate
        self.socket = sock
        self.started = now

    def receive(self) -> bytes | list[SocketAddress] | None:
        """Take what came; return a whole reply, or looked-up addresses.

        Raises OSError, DecodeError or _AttemptError when this attempt is over.
        """
        raise NotImplementedError

    def resend(self, now: float) -> None:
        """Send again, at `resend_at`."""

    def close(self) -> None:
        self.socket.close()


class _Lookup(_Attempt):
    """The addresses of a KDC's name, on their way from the system's resolver."""

    def __init__(self, candidate: _Candidate, locator: Locator, now: float) -> None:
        kdc = candidate.kdc
        self._call = _ThreadCall(lambda: locator.addresses(kdc.host, kdc.port))
        super().__init__(candidate, self._call.socket, now)

    def receive(self) -> list[SocketAddress]:
        return self._call.result()


def _open(address: SocketAddress, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket that is connected, or about to be, to `address`."""
    sock = socket.socket(address.family, kind)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address.sockaddr)
        if code not in _IN_PROGRESS:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


class _UdpAttempt(_Attempt):
    """One datagram there, sent again a few times, and one back. A connected socket hears nobody else."""

    def __init__(self, candidate: _Candidate, address: SocketAddress, message: bytes, sends: int, now: float) -> None:
        super().__init__(candidate, _open(address, socket.SOCK_DGRAM), now)
        self._message = message
        self._left = max(sends, 1)
        self._pause = RESEND
        try:
            self.resend(now)
        except BaseException:
            self.close()
            raise

    def resend(self, now: float) -> None:
        self._left -= 1
        self.resend_at = now + self._pause if self._left else float("inf")
        self._pause *= 2
        try:
            self.socket.send(self._message)
        except BlockingIOError:
            _log.debug("%s: the datagram found the socket full and is lost", self.candidate)

    def receive(self) -> bytes | None:
        try:
            reply = self.socket.recv(_UDP_SIZE)
        except BlockingIOError:
            return None
        if not _is_reply(reply):
            _log.debug("%s: ignored a datagram of %d bytes that is no reply", self.candidate, len(reply))
            return None
        return reply


class _TcpAttempt(_Attempt):
    """A connection of its own: length and message there, length and message back."""

    def __init__(self, candidate: _Candidate, address: SocketAddress, message: bytes, now: float) -> None:
        super().__init__(candidate, _open(address, socket.SOCK_STREAM), now)
        self._unsent = memoryview(len(message).to_bytes(4, "big") + message)
        self._frame = FrameReader()
        try:
            self._send()  # the connection to a KDC on this machine stands by now
        except OSError as error:
            self.writing = True
            if error.errno not in _NOT_YET:
                self.close()
                raise

    def receive(self) -> bytes | None:
        try:
            if self.writing:
                code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                self._send()
                return None
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        if not data:
            raise _AttemptError(f"it closed the connection after {self._frame}")
        reply = self._frame.feed(data)
        if reply is not None and not _is_reply(reply):
            raise _AttemptError("its reply is not Kerberos")
        return reply

    def _send(self) -> None:
        self._unsent = self._unsent[self.socket.send(self._unsent) :]
        self.writing = bool(self._unsent)


def _is_reply(message: bytes) -> bool:
    """Whether `message` looks like something a KDC says: AS-REP, TGS-REP or KRB-ERROR of just this size."""
    try:
        tag, _, end = der.read_header(message, 0, len(message))
    except DecodeError:
        return False
    return tag in _REPLY_TAGS and end == len(message)


def _error_code(reply: bytes) -> int | None:
    """Return the code of a KRB-ERROR that leads to another attempt, None for what the exchange has to judge."""
    if reply[0] != _KRB_ERROR or not any(field in reply for field in _OTHER_ATTEMPT):
        return None  # most are PREAUTH_REQUIRED, which the exchange reads anyway
    try:
        return KrbError.decode(reply).error_code
    except DecodeError:
        return None


class _Race:
    """The attempts of one `ask`: those planned, those under way, and why the others failed."""

    def __init__(self, locator: Locator, realm: str, message: bytes, kdcs: Iterable[KdcAddress]) -> None:
        self._locator = locator
        self._config = locator.config
        self._realm = realm
        self._message = message
        self._failures: list[str] = []
        self._timed_out = False
        self._addresses: dict[tuple[str, int], list[SocketAddress]] = {}
        self._live: list[_Attempt] = []
        self._next_start = 0.0
        self._attempts_left = MAX_ATTEMPTS
        self._started: set[_Candidate] = set()
        self._plan = deque(self._planned(kdcs))

    def _planned(self, kdcs: Iterable[KdcAddress]) -> list[_Candidate]:
        """Return the candidates in order: all KDCs over the preferred transport, then over the other one.

        Source: RFC 4120 7.2.1; udp_preference_limit of krb5.conf(5).
        """
        transports = ["udp", "tcp"] if len(self._message) <= self._config.udp_preference_limit else ["tcp", "udp"]
        unsupported = [kdc for kdc in kdcs if kdc.transport not in ("", "udp", "tcp")]
        self._failures += [f"{kdc}: purekrb has no {kdc.transport} transport" for kdc in unsupported]
        plan = [
            _Candidate(kdc, transport) for transport in transports for kdc in kdcs if kdc.transport in ("", transport)
        ]
        if not plan and unsupported:
            raise UnsupportedError(
                f"realm {self._realm} has only KDCs that purekrb cannot talk to "
                f"({', '.join(map(str, unsupported))}): configure one with UDP or TCP"
            )
        return plan

    def step(self, ready: Collection[socket.socket], now: float) -> Answer | None:
        """Do all that can be done without waiting; return the answer if there is one."""
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
            kind = TransportTimeoutError if self._timed_out else TransportError
            raise kind(self.summary("could be reached"))
        return None

    def waits(self, deadline: float) -> Wait:
        """Return what to wait for."""
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
        """Return that no KDC did `what`, with each KDC and why."""
        silent = [f"{attempt.candidate}: no answer" for attempt in self._live]
        return (
            f"no KDC of realm {self._realm} {what}: {'; '.join([*self._failures, *silent])}. "
            "Check that a KDC runs there and that the network lets it through"
        )

    def _start(self, candidate: _Candidate, now: float) -> None:
        """Set `candidate` going; count it as failed if it does not go at once."""
        try:
            if candidate.address is None:
                if not self._expand(candidate):
                    self._live.append(_Lookup(candidate, self._locator, now))
                    self._next_start = now + STAGGER
                return
            if candidate in self._started:
                return
            self._started.add(candidate)
            if candidate.transport == "udp":
                sends = self._config.max_retries
                attempt: _Attempt = _UdpAttempt(candidate, candidate.address, self._message, sends, now)
            else:
                attempt = _TcpAttempt(candidate, candidate.address, self._message, now)
        except (OSError, _AttemptError) as error:
            self._fail(candidate, error, now)
        else:
            _log.debug("%s: sent %d bytes for %s", candidate, len(self._message), self._realm)
            self._live.append(attempt)
            self._next_start = now + STAGGER

    def _expand(self, candidate: _Candidate) -> bool:
        """Replace a candidate by one for each address, if these are known without asking anyone."""
        kdc = candidate.kdc
        found = self._addresses.get((kdc.host, kdc.port))
        if found is None:
            try:
                found = self._locator.addresses(kdc.host, kdc.port, numeric=True)
            except TransportError:
                return False
            self._addresses[kdc.host, kdc.port] = found
        self._plan.extendleft(_Candidate(kdc, candidate.transport, address) for address in reversed(found))
        return True

    def _receive(self, attempt: _Attempt, now: float) -> Answer | None:
        try:
            got = attempt.receive()
            if got is None:
                return None
            if isinstance(got, list):
                self._addresses[attempt.candidate.kdc.host, attempt.candidate.kdc.port] = got
                self._end(attempt)
                self._next_start = now
                self._expand(attempt.candidate)
                return None
            code = _error_code(got)
            if code == ErrorCode.KDC_ERR_SVC_UNAVAILABLE:
                raise _AttemptError("it says that its service is unavailable (KDC_ERR_SVC_UNAVAILABLE)")
            if code == ErrorCode.KRB_ERR_RESPONSE_TOO_BIG:
                self._switch_to_tcp(attempt.candidate)
                raise _AttemptError("its reply is too big for this transport (KRB_ERR_RESPONSE_TOO_BIG)")
        except (OSError, DecodeError, _AttemptError) as error:
            if attempt.candidate.address is None:
                self._addresses[attempt.candidate.kdc.host, attempt.candidate.kdc.port] = []  # do not ask again
            self._end(attempt)
            self._fail(attempt.candidate, error, now)
            return None
        _log.debug("%s: answered with %d bytes", attempt.candidate, len(got))
        return Answer(got, attempt.candidate.kdc)

    def _switch_to_tcp(self, candidate: _Candidate) -> None:
        """Plan TCP alone from now on, first to who said that its reply is too big; once for each address."""
        if candidate.transport == "tcp":
            return
        over_tcp = replace(candidate, transport="tcp")
        rest = [planned for planned in self._plan if planned.transport == "tcp" and planned != over_tcp]
        self._plan = deque([over_tcp, *rest])

    def _tend(self, attempt: _Attempt, now: float) -> None:
        """Give up an attempt that had its time, or send its datagram again when that is due."""
        timeout = self._config.kdc_timeout
        try:
            if timeout is not None and now >= attempt.started + timeout:
                self._timed_out = True
                raise _AttemptError(f"no answer within {timeout} s")
            if now >= attempt.resend_at:
                attempt.resend(now)
        except (OSError, _AttemptError) as error:
            self._end(attempt)
            self._fail(attempt.candidate, error, now)

    def _fail(self, candidate: _Candidate, error: Exception, now: float) -> None:
        """Keep why `candidate` did not help; the next one need not wait."""
        why = getattr(error, "strerror", None) or str(error)
        _log.debug("%s: %s", candidate, why)
        self._failures.append(f"{candidate}: {why}")
        self._next_start = now

    def _end(self, attempt: _Attempt) -> None:
        attempt.close()
        self._live.remove(attempt)
