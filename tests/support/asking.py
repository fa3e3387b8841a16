"""One message to some KDC of a realm, blocking and on asyncio's loop."""

from __future__ import annotations

import time

from purekrb.io import asyncio, blocking
from purekrb.io.dial import Dial
from purekrb.kdc.locate import Locator
from purekrb.kdc.transport import ask

__all__ = ["send", "send_async"]


def send(
    locator: Locator, realm: str, message: bytes, deadline: float, dial: Dial | None = None
) -> bytes:
    """Return the reply; `deadline` is `time.monotonic`'s."""
    steps = ask(locator, realm, message, deadline, clock=time.monotonic, dial=dial)
    return blocking.drive(steps).reply


async def send_async(
    locator: Locator, realm: str, message: bytes, deadline: float, dial: Dial | None = None
) -> bytes:
    """As `send`."""
    steps = ask(locator, realm, message, deadline, clock=time.monotonic, dial=dial)
    return (await asyncio.drive(steps)).reply
