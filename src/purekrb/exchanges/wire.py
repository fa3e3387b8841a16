"""How the messages of an exchange go to the KDC: as they are, or in FAST (`fast.py`).

An exchange passes every request and every answer through its wire, and does not know which it is.
`fast.py` is only loaded where there is an armor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from purekrb.credentials.ticket import ServiceTicket
from purekrb.exchanges.runner import Exchange
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsRep, KdcReqBody, PaData, TgsRep

__all__ = ["ArmorSource", "Plain"]

#: Returns a TGT for the KDCs of a realm, to make an armor of.
ArmorSource = Callable[[str], Exchange[ServiceTicket]]

R = TypeVar("R", AsRep, TgsRep)


class Plain:
    """Messages as they are. Its text goes after a message's name in the log."""

    #: The key of the armor; mechanisms that need one are only used where there is one.
    armor_key: EncryptionKey | None = None

    def __str__(self) -> str:
        return ""

    def seal(
        self, padata: tuple[PaData, ...], body: KdcReqBody, checked: bytes
    ) -> tuple[PaData, ...]:
        """Return the padata of the request that goes out in place of `padata` and `body`.

        `checked` is what the request's checksum covers: the body of an AS-REQ, the PA-TGS-REQ of a
        TGS-REQ.
        """
        return padata

    def open_error(self, error: KrbError, nonce: int) -> KrbError:
        """Return the KRB-ERROR to act on; `nonce` is that of the request."""
        return error

    def open(self, reply: R, nonce: int) -> R:
        """Return the reply with the padata and the client's name that are authentic."""
        return reply

    def reply_key(self, key: EncryptionKey) -> EncryptionKey:
        """Return the key of the reply that was opened last, made of the one that FAST knows not."""
        return key
