"""One source for blocking and asyncio: an exchange is a generator, and a runner carries its requests to the KDC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

from purekrb.records import record

__all__ = ["KdcRequest", "Exchange", "run", "run_async"]

T = TypeVar("T")


@record
class KdcRequest:
    """One message for a KDC of `realm`; the runner answers with the bytes of the reply."""

    realm: str
    message: bytes


#: A generator that yields requests, is sent replies and returns a T.
Exchange = Generator[KdcRequest, bytes, T]


def run(exchange: Exchange[T], send: Callable[[KdcRequest], bytes]) -> T:
    """Drive `exchange` to its result over a blocking `send`."""
    try:
        request = next(exchange)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    while True:
        reply = send(request)  # outside the try: a StopIteration of its own is not the result
        try:
            request = exchange.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


async def run_async(exchange: Exchange[T], send: Callable[[KdcRequest], Awaitable[bytes]]) -> T:
    """Drive `exchange` to its result over an asyncio `send`."""
    try:
        request = next(exchange)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    while True:
        reply = await send(request)
        try:
            request = exchange.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
