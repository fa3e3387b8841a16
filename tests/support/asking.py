"""One message to some KDC of a realm, blocking and on asyncio's loop."""

from __future__ import annotations

import time

from purekrb.io import asyncio, blocking
from purekrb.kdc.locate import Locator
from purekrb.kdc.transport import ask

__all__ = ["send", "send_async"]


def send(locator: Locator, realm: str, message: bytes, deadline: float) -> bytes:
    """Return the reply; `deadline` is `time.monotonic`'s."""
    return blocking.drive(ask(locator, realm, message, deadline, clock=time.monotonic)).reply


async def send_async(locator: Locator, realm: str, message: bytes, deadline: float) -> bytes:
    """As `send`."""
    return (await asyncio.drive(ask(locator, realm, message, deadline, clock=time.monotonic))).reply
