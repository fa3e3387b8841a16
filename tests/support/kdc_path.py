"""The way to an embedded KDC without sockets, on which a test changes what goes either way."""

from __future__ import annotations

from collections.abc import Callable

from purekrb.exchanges.runner import KdcRequest
from purekrb.testing import Realm

__all__ = ["Mangle", "Path", "same"]

Mangle = Callable[[bytes], bytes]


def same(data: bytes) -> bytes:
    """Change nothing."""
    return data


class Path:
    """The way to the KDC: `up` and `down` change what goes each way; `seen` is what was sent."""

    def __init__(self, realm: Realm, *, up: Mangle = same, down: Mangle = same) -> None:
        self._realm, self._up, self._down = realm, up, down
        self.seen: list[bytes] = []

    def __call__(self, request: KdcRequest) -> bytes:
        self.seen.append(request.message)
        return self._down(self._realm._kdc.handle(self._up(request.message)))
