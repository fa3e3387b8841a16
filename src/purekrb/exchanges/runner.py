"""Exchanges are generators, and a runner carries their requests to KDCs.

So one source serves blocking code (`run`) and asyncio (`run_async`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Literal, TypeVar

from purekrb.keys import EncryptionKey
from purekrb.records import record

__all__ = ["Server", "KdcRequest", "KeyDerivation", "Exchange", "run", "run_async"]

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


#: A generator that yields requests and derivations, is sent replies, and returns a T.
Exchange = Generator[KdcRequest | KeyDerivation, bytes, T]


def run(
    exchange: Exchange[T],
    send: Callable[[KdcRequest], bytes],
    derive: Callable[[KeyDerivation], None] = KeyDerivation.run,
) -> T:
    """Run `exchange` with a blocking `send` and return its result.

    `derive` runs a key derivation within the caller's deadline.
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
        else:
            reply = send(step)


async def _derive_here(derivation: KeyDerivation) -> None:
    derivation.run()


async def run_async(
    exchange: Exchange[T],
    send: Callable[[KdcRequest], Awaitable[bytes]],
    derive: Callable[[KeyDerivation], Awaitable[None]] = _derive_here,
) -> T:
    """Run `exchange` with an asyncio `send` and return its result.

    `derive` runs a key derivation outside the event loop.
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
        else:
            reply = await send(step)
