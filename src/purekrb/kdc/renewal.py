"""Credentials that are kept fresh: at half the life of the TGT, a new one is got, or it is renewed.

`renewals` is the schedule, one source for a thread and for asyncio: it yields how long to pause, or
the exchange to make. A failure never costs the ticket that is there: it is tried again.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from purekrb.constants import TicketFlags
from purekrb.credentials.credential import Credential
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, KerberosError, PreauthFailedError, TransportError
from purekrb.exchanges.runner import Exchange
from purekrb.io.blocking import wait_ready
from purekrb.io.steps import Steps, Wait
from purekrb.kdc.addresses import local_addresses
from purekrb.kdc.client import AsyncKdcClient, KdcClient, _Exchanges
from purekrb.krb5conf.config import Config
from purekrb.log import Log
from purekrb.system import now, random_bytes

__all__ = ["AsyncRenewal", "Renewal", "keep_fresh", "keep_fresh_async"]

_log = Log("purekrb.kdc")

T = TypeVar("T")

#: The part of a ticket's life after which it is replaced, and how much later, at random: processes
#: that started together, and share a ccache, do not all ask at once. The first that does serves all.
HALF, JITTER = 0.5, 0.1
#: Seconds after which the ccache, the keytab and the clock are looked at again at the latest.
LOOK = 60.0
#: The shortest and the longest time in seconds between two attempts.
SOON, LATE = 1.0, 300.0
#: The ccache's configuration entry that says when MIT's programs get a new TGT with a client keytab.
REFRESH_TIME = "refresh_time"


class Pause(NamedTuple):
    """Wait for so many seconds."""

    seconds: float


#: Makes the exchange that brings a ticket.
Ask = Callable[[], Exchange[ServiceTicket]]
#: Yields pauses, and exchanges to make, whose errors are thrown in; returns why it has ended.
Schedule = Generator[Pause | Ask, None, KerberosError]


class _Fresh:
    """What both handles have.

    `problem` is the error of the last attempt, or None after a good one. `ended` says why nothing is
    renewed any more: the last ticket has ended, and cannot be replaced. It is None until then.
    """

    def __init__(self, credential: Credential) -> None:
        self.credential = credential
        self.problem: KerberosError | None = None
        self.ended: KerberosError | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.credential.principal}>"


def renewals(client: _Exchanges[Any], credential: Credential, handle: _Fresh) -> Schedule:
    """Keep the TGT of `credential` fresh; see the module."""
    refused = told = False  # the key by the KDC; the user of a last ticket
    plan: tuple[ServiceTicket, datetime] | None = None
    failures = 0
    while True:
        try:
            if credential.look_again():
                refused = False
        except KerberosError as error:
            _failed(handle, credential, error)
        tgt = credential.tgt()
        ask = _way_on(client, credential, tgt, refused)
        if ask is None:
            if tgt is not None:
                if not told:
                    told = True
                    _log.warning(
                        "the ticket of %s ends at %s and cannot be renewed any more: get a new one "
                        "before (kinit)",
                        credential.principal,
                        f"{tgt.endtime:%Y-%m-%d %H:%M:%SZ}",
                    )
                yield Pause(min(max(_left(tgt), 0) + 0.1, LOOK))
            elif refused and credential.kvno is not None:  # the keytab may get another key
                yield Pause(LOOK)
            else:
                problem = handle.problem if refused else None
                return problem or CredentialError(credential.why_no_ticket())
            continue
        if tgt is not None:
            if plan is None or plan[0] != tgt:
                plan, failures = (tgt, _due(tgt)), 0
            early = (plan[1] - now()).total_seconds()
            if early > 0 and not failures:
                yield Pause(min(early, LOOK))
                continue
        told = False
        try:
            yield ask
        except KerberosError as error:
            failures += 1
            refused = refused or isinstance(error, PreauthFailedError)
            _failed(handle, credential, error)
            yield Pause(_patience(failures, 0 if tgt is None else _left(tgt)))
        else:
            failures, handle.problem = 0, None
            fresh = credential.tgt()
            if fresh is not None:
                plan = fresh, _due(fresh)
                credential.ccache.set_config(REFRESH_TIME, str(int(plan[1].timestamp())).encode())
                _log.debug("%s is fresh until %s", credential.principal, fresh.endtime)
            credential.keep(credential.origin)
            yield Pause(SOON)


def _way_on(
    client: _Exchanges[Any], credential: Credential, tgt: ServiceTicket | None, refused: bool
) -> Ask | None:
    """Return how to get the next TGT: with a key, or by renewing this one; None: not at all."""
    renewable = (
        tgt is not None
        and tgt.flags & TicketFlags.RENEWABLE
        and tgt.renew_till is not None
        and tgt.renew_till > tgt.endtime
    )
    if not renewable and not credential.can_get_tgt:
        credential.take_client_keytab()
    if renewable and (refused or not credential.has_key):  # one-time passwords cost somebody's time
        return lambda: client._renew(credential)
    if credential.can_get_tgt and not refused:
        return lambda: _like(client, credential, tgt)
    return None


def _like(
    client: _Exchanges[Any], credential: Credential, tgt: ServiceTicket | None
) -> Exchange[ServiceTicket]:
    """Get a new TGT that is like the one before."""
    if tgt is None:
        return client._get_tgt(credential, client._as_options(credential))
    start = _start(tgt)
    renewable = None if tgt.renew_till is None else (tgt.renew_till - start).total_seconds()
    options = client._as_options(
        credential,
        (tgt.endtime - start).total_seconds(),
        renewable if tgt.flags & TicketFlags.RENEWABLE else 0,
        bool(tgt.flags & TicketFlags.FORWARDABLE),
        proxiable=bool(tgt.flags & TicketFlags.PROXIABLE),
        addresses=local_addresses(client.config.extra_addresses) if tgt.caddr else (),
    )
    return client._get_tgt(credential, options)


def _start(tgt: ServiceTicket) -> datetime:
    return tgt.starttime or tgt.authtime


def _due(tgt: ServiceTicket) -> datetime:
    """Return when to replace a ticket, by our clock."""
    part = HALF + JITTER * int.from_bytes(random_bytes(4), "big") / (1 << 32)
    start = _start(tgt)
    return start + part * (tgt.endtime - start) - tgt.time_offset


def _left(tgt: ServiceTicket) -> float:
    """Return the seconds that a ticket still lasts."""
    return (tgt.endtime - tgt.time_offset - now()).total_seconds()


def _patience(failures: int, left: float) -> float:
    """Return the seconds until the next attempt, by the seconds that the ticket still lasts."""
    if left <= 0:
        return float(min(SOON * 2 ** min(failures, 9), LATE))
    return min(max(left / 8, SOON), LATE)


def _failed(handle: _Fresh, credential: Credential, error: KerberosError) -> None:
    """Note a failure; the log tells of it if it is another one than the last."""
    level = _log.debug if str(handle.problem) == str(error) else _log.warning
    handle.problem = error
    level("the tickets of %s stay as they are for now: %s", credential.principal, error)


class _ClosedError(Exception):
    """The handle was closed."""


class Renewal(_Fresh):
    """A thread that keeps a credential fresh until `close()`, or the end of a `with` block.

    It ends by itself at the end of the program. After a fork, only the parent has it.
    """

    def __init__(self, credential: Credential, client: KdcClient) -> None:
        super().__init__(credential)
        self._client = client
        self._pid = os.getpid()
        try:
            self._wake, self._waker = socket.socketpair()
        except OSError as error:
            raise TransportError(
                f"cannot create a socket to wait for a thread: {error.strerror}"
            ) from error
        self._thread = threading.Thread(target=self._work, name="purekrb-keep-fresh", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._close_sockets()
            raise TransportError(
                f"no thread could be started ({error}): raise the limit of threads"
            ) from error
        atexit.register(self.close)

    @property
    def running(self) -> bool:
        """Whether the credential is still kept fresh."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread, also while a KDC is silent. The tickets stay. May be called again."""
        atexit.unregister(self.close)
        if self._pid == os.getpid():
            with suppress(OSError):  # closed already
                self._waker.shutdown(socket.SHUT_RDWR)
            if self._thread is not threading.current_thread():
                self._thread.join()
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._wake.close()
        self._waker.close()

    def __enter__(self) -> Renewal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        schedule = renewals(self._client, self.credential, self)
        try:
            action = next(schedule)
            while True:
                try:
                    self._do(action)
                except _ClosedError:
                    return
                except Exception as error:
                    action = schedule.throw(_as_failure(error))
                else:
                    action = next(schedule)
        except StopIteration as done:
            _end(self, done.value)

    def _do(self, action: Pause | Ask) -> None:
        if isinstance(action, Pause):
            self._wait(Wait([], [], time.monotonic() + action.seconds))
            return
        self._client._run(action, self._drive)

    def _drive(self, steps: Steps[T]) -> T:
        """Run `steps` as `blocking.drive` does, until `close`."""
        try:
            wait = next(steps)
            while True:
                wait = steps.send(self._wait(wait))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def _wait(self, wait: Wait) -> list[socket.socket]:
        ready = wait_ready(wait._replace(reading=[*wait.reading, self._wake]))
        if self._wake in ready:
            raise _ClosedError
        return list(ready)


class AsyncRenewal(_Fresh):
    """`Renewal` for asyncio: a task of the running event loop, until `await close()`."""

    def __init__(self, credential: Credential, client: AsyncKdcClient) -> None:
        super().__init__(credential)
        self._client = client
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._work(), name="purekrb-keep-fresh")

    @property
    def running(self) -> bool:
        """Whether the credential is still kept fresh."""
        return not self._task.done()

    async def close(self) -> None:
        """End the task. The tickets stay. May be called again."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def __aenter__(self) -> AsyncRenewal:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _work(self) -> None:
        schedule = renewals(self._client, self.credential, self)
        try:
            action = next(schedule)
            while True:
                try:
                    if isinstance(action, Pause):
                        await asyncio.sleep(action.seconds)
                    else:
                        await self._client._run(action)
                except Exception as error:
                    action = schedule.throw(_as_failure(error))
                else:
                    action = next(schedule)
        except StopIteration as done:
            _end(self, done.value)


def _as_failure(error: Exception) -> KerberosError:
    """Return what the attempt failed of. A caller's function (`otp`, a dialer) may raise anything."""
    if isinstance(error, KerberosError):
        return error
    return CredentialError(
        f"a function of this program failed while a ticket was got ({type(error).__name__}): see "
        "what it raises"
    )


def _end(handle: _Fresh, reason: KerberosError) -> None:
    handle.ended = reason
    _log.warning("%s is not kept fresh any more: %s", handle.credential.principal, reason)


def keep_fresh(
    credential: Credential, config: Config | None = None, *, client: KdcClient | None = None
) -> Renewal:
    """Keep `credential` fresh from a thread: see `Credential.keep_fresh`."""
    client = KdcClient(config) if client is None else client
    client._prepare(credential, "keep_fresh({})")
    return Renewal(credential, client)


def keep_fresh_async(
    credential: Credential, config: Config | None = None, *, client: AsyncKdcClient | None = None
) -> AsyncRenewal:
    """Keep `credential` fresh from a task of the running event loop: see `Credential.keep_fresh`."""
    client = AsyncKdcClient(config) if client is None else client
    client._prepare(credential, "keep_fresh({})")
    return AsyncRenewal(credential, client)
