"""Sending one request to a server that changes passwords, once, as steps for `drive` of io/.

Servers are tried in turn until one has got the request. From then on, only its reply counts: if it
is lost, the password may be changed, and a second request would fail or change it again.
Source: RFC 3244 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from purekrb.errors import (
    ConfigError,
    DecodeError,
    OutcomeUnknownError,
    TransportError,
    TransportTimeoutError,
)
from purekrb.io.dial import Dial, dialed
from purekrb.io.steps import Steps, Wait, look_up
from purekrb.kdc.attempt import Attempt, AttemptError, Candidate, Place
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import SocketAddress
from purekrb.kdc.tcp import TcpAttempt
from purekrb.kdc.transport import Begin, begin
from purekrb.kdc.udp import UdpAttempt
from purekrb.krb5conf.config import Config, KdcAddress
from purekrb.log import Log
from purekrb.messages.kpasswd import decode_frame

__all__ = ["ask_once"]

_log = Log("purekrb.kdc")
#: Seconds until another server is tried, if a connection is neither made nor refused.
_CONNECT = 3.0
_KRB_ERROR = 0x7E


def ask_once(
    locator: Locator,
    realm: str,
    message: bytes,
    deadline: float,
    *,
    clock: Callable[[], float],
    dial: Dial | None = None,
) -> Steps[bytes]:
    """Return the answer of a server of `realm` that changes passwords.

    With `dial`, it opens all connections, and UDP is not used.
    Raises OutcomeUnknownError if the request was sent and its answer is lost, ConfigError if no
    server is known, and TransportError if none could be reached: then nothing was sent.
    """
    servers: Sequence[KdcAddress] = locator.changing_passwords(realm)
    if not servers and locator.config.dns_lookup_kdc:
        servers = yield from look_up(
            lambda: locator.by_dns(realm, "kpasswd"), deadline, clock, f"the servers of {realm}"
        )
    if not servers:
        raise ConfigError(
            f"no server that changes passwords of realm {realm} is known: "
            "add kpasswd_server = host to it under [realms] in krb5.conf"
        )
    # One datagram: a second one would be a second request.
    config = replace(locator.config, max_retries=1)
    failures: list[str] = []
    for server in servers:
        addresses: Sequence[SocketAddress | None] = [None]
        try:
            if dial is None:
                addresses = yield from _addresses(locator, server, deadline, clock)
        except TransportTimeoutError:
            raise
        except TransportError as error:
            failures.append(f"{server}: {error}")
            continue
        for transport in (server.transport,) if server.transport else ("tcp", "udp"):
            kind = _TRANSPORTS.get(transport)
            if kind is None:
                failures.append(f"{server}: purekrb has no {transport} transport")
                continue
            if dial is not None and transport == "udp":
                if server.transport:
                    failures.append(f"{server}: open_connection makes no UDP")
                continue
            for address in addresses:
                candidate = Candidate(server, transport, realm, address)
                try:
                    place = yield from _place(candidate, dial, deadline, clock)
                    attempt = begin(kind, candidate, place, message, config, clock())
                except (OSError, AttemptError, TransportError) as error:
                    why = getattr(error, "strerror", None) or str(error)
                    failures.append(f"{candidate}: {why}")
                    continue
                try:
                    answer = yield from _wait(attempt, deadline, clock)
                except _NothingSentError as error:
                    failures.append(f"{candidate}: {error}")
                    continue
                finally:
                    attempt.close()
                _log.debug("%s: answered with %d bytes", candidate, len(answer))
                return answer
    late = clock() >= deadline
    raise (TransportTimeoutError if late else TransportError)(
        f"no server that changes passwords of realm {realm} could be reached: "
        f"{'; '.join(failures)}. Nothing was changed. Check that one runs there"
    )


class _NothingSentError(Exception):
    """The server has not got the request; the text says why."""


def _is_reply(message: bytes) -> bool:
    """Return whether `message` looks like the answer of a server that changes passwords."""
    if message[:1] == bytes([_KRB_ERROR]):
        return True
    try:
        decode_frame(message)
    except DecodeError:
        return False
    return True


class _Tcp(TcpAttempt):
    is_reply = staticmethod(_is_reply)


class _Udp(UdpAttempt):
    is_reply = staticmethod(_is_reply)


def _https(
    candidate: Candidate, place: Place, message: bytes, config: Config, now: float
) -> Attempt:
    from purekrb.kdc.https import HttpsAttempt  # only who has a KDC proxy pays for it

    attempt = HttpsAttempt(candidate, place, message, config, now)
    attempt.is_reply = _is_reply
    return attempt


_TRANSPORTS: dict[str, Begin] = {"tcp": _Tcp, "udp": _Udp, "https": _https}


def _place(
    candidate: Candidate, dial: Dial | None, deadline: float, clock: Callable[[], float]
) -> Steps[Place]:
    """Return the candidate's address, or a socket that `dial` has connected to it."""
    if candidate.address is not None:
        return candidate.address
    if dial is None:
        raise AttemptError("it has no address")
    host, port = candidate.kdc.host, candidate.kdc.port
    return (yield from dialed(dial, host, port, min(deadline, clock() + _CONNECT), clock))


def _addresses(
    locator: Locator, server: KdcAddress, deadline: float, clock: Callable[[], float]
) -> Steps[list[SocketAddress]]:
    try:
        return locator.addresses(server.host, server.port, numeric=True)
    except TransportError:
        what = f"the addresses of {server.host}"
        return (
            yield from look_up(
                lambda: locator.addresses(server.host, server.port), deadline, clock, what
            )
        )


def _wait(attempt: Attempt, deadline: float, clock: Callable[[], float]) -> Steps[bytes]:
    """Return the reply. Raises _NothingSentError, or OutcomeUnknownError once something was sent."""
    connect_until = min(deadline, attempt.started + _CONNECT)
    while True:
        until = deadline if attempt.has_sent else connect_until
        writing = [attempt.socket] if attempt.writing else []
        ready = yield Wait([] if writing else [attempt.socket], writing, until)
        why = ""
        if attempt.socket in ready:
            try:
                reply = attempt.receive()
            except ConnectionRefusedError as error:  # by UDP: no program has the port
                raise _NothingSentError(error.strerror or str(error)) from None
            except (OSError, AttemptError, DecodeError) as error:
                why = getattr(error, "strerror", None) or str(error)
            else:
                if isinstance(reply, bytes):
                    return reply
                continue
        elif clock() < until:
            continue
        if not attempt.has_sent:
            raise _NothingSentError(why or "no answer to the connection")
        raise OutcomeUnknownError(
            f"{attempt.candidate} got the request, but its answer is lost "
            f"({why or 'no answer before the deadline'}): the password was changed, or it was not. "
            "Try both passwords, the new one first, before you change it again"
        )
