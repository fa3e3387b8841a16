"""pyspnego as a peer: its own SPNEGO around MIT's Kerberos, in this process, with the verbs of PeerContext."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from support.mit import MitRealm
from support.peers import missing_peer

__all__ = ["PyspnegoContext", "pyspnego_peer"]


class PyspnegoContext:
    """One context of pyspnego; `established` and `negotiated` tell how far it is and what it chose."""

    def __init__(self, context: Any) -> None:
        self._context = context

    @property
    def established(self) -> bool:
        return bool(self._context.complete)

    @property
    def negotiated(self) -> str:
        return str(self._context.negotiated_protocol)

    def step(self, token: bytes | None = None) -> bytes | None:
        answer: bytes | None = self._context.step(token)
        return answer or None

    def wrap(self, data: bytes, *, sealed: bool = True) -> bytes:
        return bytes(self._context.wrap(data, encrypt=sealed).data)

    def unwrap(self, token: bytes) -> tuple[bytes, bool]:
        """Return the data and whether it was sealed."""
        result = self._context.unwrap(bytes(bytearray(token)))  # a copy, since it decrypts in place
        return result.data, result.encrypted

    def get_mic(self, data: bytes) -> bytes:
        return bytes(self._context.sign(data))

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        self._context.verify(data, mic)


@contextmanager
def pyspnego_peer(realm: MitRealm, *, initiates: bool, service: str) -> Iterator[PyspnegoContext]:
    """Have a context of pyspnego with or as the `service` on localhost."""
    try:
        import spnego
    except ImportError:
        missing_peer("PyPI's pyspnego", "libkrb5-dev")
    files = {"KRB5CCNAME": str(realm.kinit("user")), "KRB5_KTNAME": str(realm.service_keytab)}
    with mock.patch.dict(os.environ, {**realm.env, **files}):
        make = spnego.client if initiates else spnego.server
        options = spnego.NegotiateOptions.use_negotiate
        yield PyspnegoContext(make(hostname="localhost", service=service, options=options))
