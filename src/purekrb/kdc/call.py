"""One call of a KDC client: its deadline, its requests, and the KDC that answered last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from purekrb.errors import ConfigError, PreauthFailedError, TransportError
from purekrb.exchanges.runner import Computation, Exchange, KdcRequest, Question
from purekrb.io.dial import Dial
from purekrb.io.steps import Steps, in_thread
from purekrb.kdc.locate import Locator
from purekrb.kdc.transport import ask
from purekrb.krb5conf.config import KdcAddress
from purekrb.log import Log

_log = Log("purekrb.kdc")

__all__ = ["Call"]

T = TypeVar("T")


class Call:
    """One call of a client: its deadline, and the KDC that answered last."""

    def __init__(self, locator: Locator, deadline: float, dial: Dial | None = None) -> None:
        self._locator = locator
        self._deadline = deadline
        self._dial = dial
        self._realm = ""
        self._answered: KdcAddress | None = None
        #: Of this realm, only these KDCs are asked.
        self._primary_of: str | None = None
        self._primaries: Sequence[KdcAddress] = ()
        self._refused_by_replica: PreauthFailedError | None = None

    def ask(self, request: KdcRequest) -> Steps[bytes]:
        """Return the reply to one request."""
        if request.server == "kpasswd":
            from purekrb.kdc.kpasswd import ask_once  # only who changes a password pays for it

            return (
                yield from ask_once(
                    self._locator,
                    request.realm,
                    request.message,
                    self._deadline,
                    clock=time.monotonic,
                    dial=self._dial,
                )
            )
        primary = request.realm == self._primary_of
        try:
            answer = yield from ask(
                self._locator,
                request.realm,
                request.message,
                self._deadline,
                clock=time.monotonic,
                among=self._primaries if primary else (),
                dial=self._dial,
            )
        except TransportError:
            if primary and self._refused_by_replica is not None:
                raise self._refused_by_replica from None
            raise
        self._realm, self._answered = request.realm, answer.kdc
        return answer.reply

    def compute(self, computation: Computation) -> Steps[None]:
        """Compute in a thread of its own, so that the wait can end at the deadline."""
        try:
            yield from in_thread(computation.run, self._deadline, time.monotonic, computation.late)
        except TransportError:
            if self._refused_by_replica is not None:
                raise self._refused_by_replica from None
            raise

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Give back the time that a person takes to answer."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._deadline += time.monotonic() - begun

    def question(self, question: Question) -> None:
        """Ask a person."""
        with self.paused():
            question.run()

    async def question_async(self, question: Question) -> None:
        """Like `question`, for asyncio."""
        from purekrb.io.asyncio import call

        with self.paused():
            question.answer = await call(question.ask, question.about)

    def exchange(self, make: Callable[[], Exchange[T]]) -> Exchange[T]:
        """Return the result of the exchange; if a replica refuses the password, ask a primary KDC.

        A replica may not know a new password yet. This is tried once: each failure counts against
        the account, so the answer of a primary KDC, or another failure, is final.
        """
        try:
            return (yield from make())
        except PreauthFailedError as error:
            self._refused_by_replica = error
            primaries = yield from self._primary_kdcs(self._realm)
            if not primaries or self._answered is None or _is_among(self._answered, primaries):
                raise
            _log.debug(
                "%s refused the password: asking a primary KDC of %s",
                self._answered,
                self._realm,
            )
            self._primary_of, self._primaries = self._realm, primaries
        return (yield from make())

    def _primary_kdcs(self, realm: str) -> Exchange[Sequence[KdcAddress]]:
        """Return the primary KDCs, from where the KDCs of `realm` are known; possibly none."""
        locator = self._locator
        configured = locator.configured(realm, primary=True)
        if configured or locator.configured(realm) or not locator.config.dns_lookup_kdc:
            return configured

        def look_up() -> Sequence[KdcAddress]:
            try:
                return locator.by_dns(realm, "primary")
            except (ConfigError, TransportError) as error:
                _log.debug("no primary KDC of %s is known: %s", realm, error)
                return ()

        lookup = Computation(look_up, f"DNS did not name the primary KDCs of {realm} in time")
        yield lookup
        found: Sequence[KdcAddress] = lookup.result
        return found


def _is_among(kdc: KdcAddress, others: Iterable[KdcAddress]) -> bool:
    return any((kdc.host, kdc.port) == (other.host, other.port) for other in others)
