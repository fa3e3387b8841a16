"""Pre-authentication at the embedded KDC: the interface of mechanisms, and their table.

It mirrors `purekrb.exchanges.preauth`. A new mechanism is a class here and a row in
`KDC_MECHANISMS`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.errors import IntegrityError
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages.ap import EncryptedData
from purekrb.messages.kdc import AsReq, PaData, PaEncTsEnc
from purekrb.system import RandomBytes
from purekrb.testing.kdc_accounts import CLOCK_SKEW, KdcAccount, RefusedError

__all__ = ["KDC_MECHANISMS", "KdcMechanism", "PreauthRequest"]

logger = logging.getLogger("purekrb.testing")


@dataclass(slots=True)
class PreauthRequest:
    """An AS-REQ, with its bytes as they came (`encoded`), and the time by the KDC's clock.

    `armor_key` is that of FAST, or None. `answers` is what a mechanism adds to the AS-REP, `offers`
    what it adds to METHOD-DATA, `cookie` what it wants back with the next request. With
    `key_exchange`, the reply proves of whom the session key is made (RFC 8062 7).
    """

    client: KdcAccount
    message: AsReq
    encoded: bytes
    time: datetime
    random: RandomBytes
    armor_key: EncryptionKey | None = None
    answers: list[PaData] = field(default_factory=list)
    offers: list[PaData] = field(default_factory=list)
    cookie: bytes | None = None
    key_exchange: bool = False


class KdcMechanism(Protocol):
    """A kind of pre-authentication, on the KDC's side."""

    @property
    def type(self) -> int:
        """The padata-type of the proof; and of the offer, unless there is an `offer_type`."""

    def hint(self, request: PreauthRequest) -> bytes | None:
        """Return the padata-value of the offer in METHOD-DATA; None if it is not offered."""

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey | None:
        """Return the key to encrypt the reply with; None stands for the client's long-term key.

        `value` is the padata-value that the client sent. Raises RefusedError for a wrong proof. If
        a further step is needed, the RefusedError has the code KDC_ERR_MORE_PREAUTH_DATA_REQUIRED,
        and METHOD-DATA.
        """


class _Timestamp:
    """PA-ENC-TIMESTAMP, offered outside of FAST. Source: RFC 4120 5.2.7.2."""

    type: int = PaDataType.ENC_TIMESTAMP

    def hint(self, request: PreauthRequest) -> bytes | None:
        return b"" if request.armor_key is None else None

    def verify(self, request: PreauthRequest, value: bytes) -> None:
        """Refuse unless the timestamp is current and made with the client's key."""
        encrypted = EncryptedData.decode(value)
        key = _client_key(request, (encrypted.etype,))
        _check_timestamp(request, key, KeyUsage.AS_REQ_PA_ENC_TIMESTAMP, encrypted)


class _EncryptedChallenge:
    """PA-ENCRYPTED-CHALLENGE, offered in FAST. Source: RFC 6113 5.4.6."""

    type: int = PaDataType.ENCRYPTED_CHALLENGE

    def hint(self, request: PreauthRequest) -> bytes | None:
        return None if request.armor_key is None else b""

    def verify(self, request: PreauthRequest, value: bytes) -> None:
        """Refuse unless the challenge is current and made with the client's key; answer it."""
        armor_key = request.armor_key
        if armor_key is None:
            raise RefusedError(
                ErrorCode.KDC_ERR_PREAUTH_FAILED, "an encrypted challenge outside of FAST"
            )
        encrypted = EncryptedData.decode(value)
        # The etype of the challenge is that of the armor key, whatever the client's key.
        client_key = _client_key(request, request.message.req_body.etype)
        pepper = b"challengelongterm"
        key = crypto.cf2(armor_key, client_key, b"clientchallengearmor", pepper)
        _check_timestamp(request, key, KeyUsage.ENC_CHALLENGE_CLIENT, encrypted)
        key = crypto.cf2(armor_key, client_key, b"kdcchallengearmor", pepper)
        stamp = PaEncTsEnc(request.time.replace(microsecond=0), request.time.microsecond)
        confounder = request.random(crypto.profile_of(key.etype).confounder_size)
        cipher = crypto.encrypt(key, KeyUsage.ENC_CHALLENGE_KDC, stamp.encode(), confounder)
        answer = EncryptedData(key.etype, None, cipher).encode()
        request.answers.append(PaData(PaDataType.ENCRYPTED_CHALLENGE, answer))


def _client_key(request: PreauthRequest, etypes: Iterable[int]) -> EncryptionKey:
    """Return the client's key of the first of `etypes` that it has."""
    keys = (request.client.key(etype) for etype in etypes)
    key = next((key for key in keys if key is not None), None)
    if key is None:
        raise RefusedError(
            ErrorCode.KDC_ERR_ETYPE_NOSUPP, "the client has no key of the timestamp's etype"
        )
    return key


def _check_timestamp(
    request: PreauthRequest, key: EncryptionKey, usage: int, encrypted: EncryptedData
) -> None:
    """Refuse unless the time in `encrypted` is current and under `key`."""
    try:
        plain = crypto.decrypt(key, usage, encrypted.cipher)
    except IntegrityError:
        raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "preauthentication failed") from None
    stamp = PaEncTsEnc.decode(plain)
    if abs(stamp.patimestamp - request.time) > CLOCK_SKEW:
        raise RefusedError(ErrorCode.KRB_AP_ERR_SKEW, "the clock of the client is too far off")
    logger.debug(
        "the timestamp of %s verified, %s", request.client.name, etype_name(encrypted.etype)
    )


#: The mechanisms in the order in which they are offered.
KDC_MECHANISMS: tuple[KdcMechanism, ...] = (_EncryptedChallenge(), _Timestamp())
