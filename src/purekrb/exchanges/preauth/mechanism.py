"""The interface of a pre-authentication mechanism. Source: RFC 4120 5.2.7, RFC 6113 2.

An AS exchange only knows this interface. A mechanism only knows messages and cryptography, not how
requests get to a KDC. A new mechanism is a file here and a row in the table of `choice.py`.
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

__all__ = ["Next", "Strength", "Proof", "Mechanism"]


class Strength(enum.IntEnum):
    """The strength of a mechanism against an eavesdropper."""

    GUESSABLE = 1  # an eavesdropper can try passwords offline
    STRONG = 2  # an eavesdropper learns nothing


class Next(enum.Enum):
    """How an exchange goes on after the KDC has refused a proof."""

    FAILURE = enum.auto()  # the KDC's error is final
    WITHOUT = enum.auto()  # without this proof: the KDC will say what it wants
    AGAIN = enum.auto()  # with the proof made anew


class Proof(Protocol):
    """One use of a mechanism with the KDCs of one realm. Only it knows and changes its secrets.

    Its text describes the proof in the log.
    """

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        """Return the padata of the request `body` at `time`, which is by the KDC's clock."""

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Prepare what `methods`, the METHOD-DATA of `error`, asks for.

        Called when the KDC first asks, and for each further step. It derives keys, and raises a
        KerberosError if it cannot do what the KDC asks for.
        """

    def refused(self, error: KrbError) -> Next:
        """Return how the exchange goes on after `error`."""

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Return the key of the reply to `request`, which is the encoded AS-REQ."""


class Mechanism(Protocol):
    """A kind of pre-authentication. `name` is that of the RFC."""

    @property
    def type(self) -> int:
        """The padata-type by which a KDC offers it."""

    @property
    def name(self) -> str:
        """The name for users."""

    @property
    def strength(self) -> Strength:
        """Its strength against an eavesdropper."""

    @property
    def awaited(self) -> bool:
        """Whether a client with a key at hand waits for it, rather than begin with a weaker one."""

    @property
    def announced(self) -> bool:
        """Whether the first request says that it is here, without any proof of the identity."""

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> Proof | None:
        """Return the proof for the client of `keys`; None if its credential does not support it.

        If `asked` is true, the KDC offers this mechanism, and `Proof.asked` is called next. If it
        is false, the KDC has not said anything yet: return None unless the first request can carry
        the proof.
        """
