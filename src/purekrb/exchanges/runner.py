"""Exchanges are generators, and a runner carries their requests to KDCs.

So one source serves blocking code (`run`) and asyncio (`run_async`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, TypeVar

from purekrb.keys import EncryptionKey
from purekrb.records import record

__all__ = ["Server", "KdcRequest", "KeyDerivation", "Question", "Exchange", "run", "run_async"]

T = TypeVar("T")


#: The servers of a realm: its KDCs, or those that change passwords (RFC 3244).
Server = Literal["kdc", "kpasswd"]


@record
class KdcRequest:
    """One message for a server of `realm`; the runner answers with the bytes of the reply."""

    realm: str
    message: bytes
    server: Server = "kdc"


class KeyDerivation:
    """A key that takes long to derive from a password.

    The runner calls `run`, in any thread, and answers with b"". `iterations` is the count of
    PBKDF2. `key` is None before `run`, and also after it if there is no such key.
    """

    def __init__(self, derive: Callable[[], EncryptionKey | None], iterations: int) -> None:
        self._derive = derive
        self.iterations = iterations
        self.key: EncryptionKey | None = None

    def run(self) -> None:
        """Derive the key. Any thread may call this."""
        self.key = self._derive()


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


#: A generator that yields requests, derivations and questions, is sent replies, and returns a T.
Exchange = Generator[KdcRequest | KeyDerivation | Question, bytes, T]


def run(
    exchange: Exchange[T],
    send: Callable[[KdcRequest], bytes],
    derive: Callable[[KeyDerivation], None] = KeyDerivation.run,
    ask: Callable[[Question], None] = Question.run,
) -> T:
    """Run `exchange` with a blocking `send` and return its result.

    `derive` runs a key derivation within the caller's deadline, `ask` a question, which has none.
    """
    reply: bytes | None = None
    while True:
        try:
            step = next(exchange) if reply is None else exchange.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        reply = b""
        # This is outside the try: a StopIteration of `derive` or `send` is not the result.
        if isinstance(step, KeyDerivation):
            derive(step)
        elif isinstance(step, Question):
            ask(step)
        else:
            reply = send(step)


async def _derive_here(derivation: KeyDerivation) -> None:
    derivation.run()


async def _ask_here(question: Question) -> None:
    question.run()


async def run_async(
    exchange: Exchange[T],
    send: Callable[[KdcRequest], Awaitable[bytes]],
    derive: Callable[[KeyDerivation], Awaitable[None]] = _derive_here,
    ask: Callable[[Question], Awaitable[None]] = _ask_here,
) -> T:
    """Run `exchange` with an asyncio `send` and return its result.

    `derive` runs a key derivation outside the event loop, `ask` a question.
    """
    reply: bytes | None = None
    while True:
        try:
            step = next(exchange) if reply is None else exchange.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        reply = b""
        if isinstance(step, KeyDerivation):
            await derive(step)
        elif isinstance(step, Question):
            await ask(step)
        else:
            reply = await send(step)
