"""The interface of a pre-authentication mechanism. Source: RFC 4120 5.2.7, RFC 6113 2.

An AS exchange knows this interface, and no mechanism. A mechanism knows messages and cryptography,
and nothing of how requests get to a KDC. A new one is a file here and a row in the table of
`choice.py`.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Protocol

from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.runner import Exchange
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsRep, KdcReqBody, PaData
from purekrb.system import RandomBytes

__all__ = ["Strength", "Proof", "Mechanism"]


class Strength(enum.IntEnum):
    """What an eavesdropper can do with an exchange by a mechanism."""

    GUESSABLE = 1  # try passwords offline
    STRONG = 2  # nothing


class Proof(Protocol):
    """One mechanism at work with the KDCs of one realm. It alone knows and changes its secrets.

    Its text says in the log what is sent.
    """

    def padata(self, body: KdcReqBody, time: datetime) -> tuple[PaData, ...]:
        """Return what goes along with the request `body` at `time`, by the KDC's clock."""

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Take what `methods`, the METHOD-DATA of `error`, asks for.

        Called when the KDC first asks, and for each further step. Derives keys, and raises a
        KerberosError where the KDC asks for what cannot be given.
        """

    def refused(self, error: KrbError) -> bool:
        """Return whether the exchange goes on without this proof; False: `error` is final."""

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Return the key of the reply to `request`, which is the encoded AS-REQ."""


class Mechanism(Protocol):
    """A kind of pre-authentication. `name` is that of the RFC."""

    @property
    def type(self) -> int:
        """The padata-type by which a KDC offers it."""

    @property
    def name(self) -> str:
        """What users read."""

    @property
    def strength(self) -> Strength:
        """What it withstands."""

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> Proof | None:
        """Return the proof for the client of `keys`; None where its credential cannot give it.

        `asked`: the KDC offers this mechanism, and `Proof.asked` comes next. If it is False, the
        KDC has not said anything yet: return None unless the first request can carry the proof.
        """
