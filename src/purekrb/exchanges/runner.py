"""Exchanges are generators, and a runner carries their requests to KDCs.

So one source serves blocking code (`run`) and asyncio (`run_async`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, TypeVar

from purekrb.records import record

__all__ = ["Server", "KdcRequest", "Computation", "Question", "Exchange", "run", "run_async"]

T = TypeVar("T")


#: The servers of a realm: its KDCs, or those that change passwords (RFC 3244).
Server = Literal["kdc", "kpasswd"]


@record
class KdcRequest:
    """One message for a server of `realm`; the runner answers with the bytes of the reply."""

    realm: str
    message: bytes
    server: Server = "kdc"


class Computation:
    """Something that takes long: a key derived from a password, a signature by a card.

    The runner calls `run`, in any thread, and answers with b"". `result` is then what `compute`
    returned. `late` is the error's text if the deadline passes before.
    """

    def __init__(self, compute: Callable[[], Any], late: str) -> None:
        self._compute = compute
        self.late = late
        self.result: Any = None

    def run(self) -> None:
        """Compute the result. Any thread may call this."""
        self.result = self._compute()


class Question:
    """Something that only a person, or another device, can answer: `ask(about)`.

    The runner calls it, and answers with b"". `answer` is what it returned.
    """

    def __init__(self, ask: Callable[[Any], Any], about: object) -> None:
        self.ask, self.about = ask, about
        self.answer: Any = None

    def run(self) -> None:
        """Ask, and wait for the answer."""
        self.answer = self.ask(self.about)


#: A generator that yields requests, computations and questions, is sent replies, and returns a T.
Exchange = Generator[KdcRequest | Computation | Question, bytes, T]


def run(
    exchange: Exchange[T],
    send: Callable[[KdcRequest], bytes],
    compute: Callable[[Computation], None] = Computation.run,
    ask: Callable[[Question], None] = Question.run,
) -> T:
    """Run `exchange` with a blocking `send` and return its result.

    `compute` runs a computation within the caller's deadline, `ask` a question, which has none.
    """
    reply: bytes | None = None
    while True:
        try:
            step = next(exchange) if reply is None else exchange.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        reply = b""
        # This is outside the try: a StopIteration of `compute` or `send` is not the result.
        if isinstance(step, Computation):
            compute(step)
        elif isinstance(step, Question):
            ask(step)
        else:
            reply = send(step)


async def _compute_here(computation: Computation) -> None:
    computation.run()


async def _ask_here(question: Question) -> None:
    question.run()


async def run_async(
    exchange: Exchange[T],
    send: Callable[[KdcRequest], Awaitable[bytes]],
    compute: Callable[[Computation], Awaitable[None]] = _compute_here,
    ask: Callable[[Question], Awaitable[None]] = _ask_here,
) -> T:
    """Run `exchange` with an asyncio `send` and return its result.

    `compute` runs a computation outside the event loop, `ask` a question.
    """
    reply: bytes | None = None
    while True:
        try:
            step = next(exchange) if reply is None else exchange.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        reply = b""
        if isinstance(step, Computation):
            await compute(step)
        elif isinstance(step, Question):
            await ask(step)
        else:
            reply = await send(step)
