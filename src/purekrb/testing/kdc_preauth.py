"""Pre-authentication at the embedded KDC: the interface of mechanisms, and their table.

It mirrors `purekrb.exchanges.preauth`. A new mechanism is a class here and a row in
`KDC_MECHANISMS`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.errors import IntegrityError
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages.ap import EncryptedData
from purekrb.messages.kdc import AsReq, PaEncTsEnc
from purekrb.testing.kdc_accounts import CLOCK_SKEW, KdcAccount, RefusedError

__all__ = ["KDC_MECHANISMS", "KdcMechanism", "PreauthRequest"]

logger = logging.getLogger("purekrb.testing")


@dataclass(frozen=True, slots=True)
class PreauthRequest:
    """An AS-REQ, with its bytes as they came (`encoded`), and the time by the KDC's clock."""

    client: KdcAccount
    message: AsReq
    encoded: bytes
    time: datetime


class KdcMechanism(Protocol):
    """A kind of pre-authentication, on the KDC's side."""

    @property
    def type(self) -> int:
        """The padata-type of the offer and of the proof."""

    def hint(self, request: PreauthRequest) -> bytes | None:
        """Return the padata-value of the offer in METHOD-DATA; None if it is not offered."""

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey | None:
        """Return the key to encrypt the reply with; None stands for the client's long-term key.

        `value` is the padata-value that the client sent. Raises RefusedError for a wrong proof. If
        a further step is needed, the RefusedError has the code KDC_ERR_MORE_PREAUTH_DATA_REQUIRED,
        and METHOD-DATA.
        """


class _Timestamp:
    """PA-ENC-TIMESTAMP. Source: RFC 4120 5.2.7.2."""

    type: int = PaDataType.ENC_TIMESTAMP

    def hint(self, request: PreauthRequest) -> bytes:
        return b""

    def verify(self, request: PreauthRequest, value: bytes) -> None:
        """Refuse unless the timestamp is current and made with the client's key."""
        client = request.client
        encrypted = EncryptedData.decode(value)
        key = client.key(encrypted.etype)
        if key is None:
            raise RefusedError(
                ErrorCode.KDC_ERR_ETYPE_NOSUPP, "the client has no key of the timestamp's etype"
            )
        try:
            plain = crypto.decrypt(key, KeyUsage.AS_REQ_PA_ENC_TIMESTAMP, encrypted.cipher)
        except IntegrityError:
            raise RefusedError(
                ErrorCode.KDC_ERR_PREAUTH_FAILED, "preauthentication failed"
            ) from None
        stamp = PaEncTsEnc.decode(plain)
        if abs(stamp.patimestamp - request.time) > CLOCK_SKEW:
            raise RefusedError(ErrorCode.KRB_AP_ERR_SKEW, "the clock of the client is too far off")
        logger.debug(
            "PA-ENC-TIMESTAMP of %s verified, %s", client.name, etype_name(encrypted.etype)
        )


#: The mechanisms in the order in which they are offered.
KDC_MECHANISMS: tuple[KdcMechanism, ...] = (_Timestamp(),)
