"""One source for blocking and asyncio: an exchange is a generator, and a runner carries its requests to the KDC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Literal, TypeVar

from purekrb.keys import EncryptionKey
from purekrb.records import record

__all__ = ["Server", "KdcRequest", "KeyDerivation", "Exchange", "run", "run_async"]

T = TypeVar("T")


#: A realm's KDCs, or the servers that change passwords (RFC 3244).
Server = Literal["kdc", "kpasswd"]


@record
class KdcRequest:
    """One message for a server of `realm`; the runner answers with the bytes of the reply."""

    realm: str
    message: bytes
    server: Server = "kdc"


class KeyDerivation:
    """A key that takes long to derive from a password; the runner calls `run`, or has it called, and answers with b"".

    `iterations` is the count of PBKDF2. `key` is None before `run`, and where there is no such key.
    """

    def __init__(self, derive: Callable[[], EncryptionKey | None], iterations: int) -> None:
        self._derive = derive
        self.iterations = iterations
        self.key: EncryptionKey | None = None

    def run(self) -> None:
        """Derive the key. Any thread may do it."""
        self.key = self._derive()


#: A generator that yields requests and derivations, is sent replies and returns a T.
Exchange = Generator[KdcRequest | KeyDerivation, bytes, T]


def run(
    exchange: Exchange[T],
    send: Callable[[KdcRequest], bytes],
    derive: Callable[[KeyDerivation], None] = KeyDerivation.run,
) -> T:
    """Drive `exchange` to its result over a blocking `send`; `derive` has keys derived within the caller's deadline."""
    reply: bytes | None = None
    while True:
        try:
            step = next(exchange) if reply is None else exchange.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        reply = b""
        if isinstance(
            step, KeyDerivation
        ):  # outside the try: a StopIteration of its own is not the result
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
    """Drive `exchange` to its result over an asyncio `send`; `derive` has keys derived off the loop."""
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
