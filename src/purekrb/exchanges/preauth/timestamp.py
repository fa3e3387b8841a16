"""PA-ENC-TIMESTAMP: the time under the client's long-term key. Source: RFC 4120 5.2.7.2."""

from __future__ import annotations

from datetime import datetime

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.preauth.mechanism import Strength
from purekrb.exchanges.runner import Exchange
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages.ap import EncryptedData, KrbError
from purekrb.messages.kdc import AsRep, KdcReqBody, PaData, PaEncTsEnc
from purekrb.system import RandomBytes

__all__ = ["Timestamp"]

#: The errors by which a KDC refuses an optimistic timestamp, when it wants another one or none. If
#: the account has no key of the etype, MIT's KDC answers PREAUTH_FAILED, and counts that as a
#: failure; Heimdal's and Samba's KDCs answer ETYPE_NOSUPP.
_ANOTHER_MAY_DO = (
    ErrorCode.KDC_ERR_PREAUTH_FAILED,
    ErrorCode.KDC_ERR_ETYPE_NOSUPP,
    ErrorCode.KDC_ERR_PADATA_TYPE_NOSUPP,
    ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
)


class Timestamp:
    """The mechanism. With a key at hand, the first request already carries the timestamp."""

    type: int = PaDataType.ENC_TIMESTAMP
    name = "PA-ENC-TIMESTAMP"
    strength = Strength.GUESSABLE

    def begin(
        self, keys: ClientKeys, random: RandomBytes, *, asked: bool
    ) -> _TimestampProof | None:
        """Like `Mechanism.begin`."""
        if asked:
            return _TimestampProof(keys, random, None)
        key = keys.at_hand()
        return None if key is None else _TimestampProof(keys, random, key)


class _TimestampProof:
    """A proof by timestamps, made with `key`, which is None until the KDC has named its kind."""

    def __init__(self, keys: ClientKeys, random: RandomBytes, key: EncryptionKey | None) -> None:
        self._keys = keys
        self._random = random
        self._key = key
        self._asked = False

    def __str__(self) -> str:
        etype = etype_name(self._key.etype) if self._key else "a key that the KDC has yet to name"
        return f"{Timestamp.name} with {etype}"

    def padata(self, body: KdcReqBody, time: datetime) -> tuple[PaData, ...]:
        if self._key is None:
            return ()
        etype = self._key.etype
        stamp = PaEncTsEnc(time.replace(microsecond=0), time.microsecond).encode()
        confounder = self._random(crypto.profile_of(etype).confounder_size)
        cipher = crypto.encrypt(self._key, KeyUsage.AS_REQ_PA_ENC_TIMESTAMP, stamp, confounder)
        return (PaData(PaDataType.ENC_TIMESTAMP, EncryptedData(etype, None, cipher).encode()),)

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        self._key = yield from self._keys.for_proof(methods, error)
        self._asked = True

    def refused(self, error: KrbError) -> bool:
        if self._key is None or self._asked or error.error_code not in _ANOTHER_MAY_DO:
            return False
        self._keys.refuse(self._key.etype, error)
        return True

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        if self._key is not None and self._key.etype == reply.enc_part.etype:
            return self._key
        return (yield from self._keys.for_reply(reply))
