"""The canonical name of a host, for callers who accept that nobody signs it.

No exchange uses this: whoever answers the DNS query would choose which service a client trusts.
Source: RFC 4120 1.3.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from purekrb.errors import TransportError
from purekrb.io import blocking
from purekrb.io.steps import Steps, look_up

__all__ = ["canonicalize_host", "canonicalize_host_async"]

DEFAULT_TIMEOUT = 10.0


def canonicalize_host(name: str, *, timeout: float = DEFAULT_TIMEOUT) -> str:
    """Return the host that the alias `name` (a CNAME) stands for, as DNS or /etc/hosts says.

    It is in small letters and without a trailing dot; a name that is no alias is returned in that
    form. Addresses are not looked up in reverse. **The answer is not signed:** who can forge it
    chooses which service the client authenticates to, so that mutual authentication proves another
    host. purekrb never calls this by itself. `timeout` is in seconds. Raises TransportError if the
    name is not found, and TransportTimeoutError.
    """
    return blocking.drive(_canonical(name, timeout))


async def canonicalize_host_async(name: str, *, timeout: float = DEFAULT_TIMEOUT) -> str:
    """Like `canonicalize_host`, for asyncio."""
    from purekrb.io import asyncio  # imported here: a blocking caller does not need it

    return await asyncio.drive(_canonical(name, timeout))


def _canonical(name: str, timeout: float) -> Steps[str]:
    def resolve() -> list[Any]:
        return socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)

    try:
        found = yield from look_up(
            resolve, time.monotonic() + timeout, time.monotonic, f"the host {name!r}"
        )
    except TransportError:
        raise
    except (OSError, UnicodeError) as error:  # UnicodeError: not a host name at all
        raise TransportError(
            f"the host name {name!r} cannot be resolved ({error}): check its spelling"
        ) from None
    canonical = next((entry[3] for entry in found if entry[3]), name)
    return str(canonical).lower().removesuffix(".")
