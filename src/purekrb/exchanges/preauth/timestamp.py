"""PA-ENC-TIMESTAMP: the time under the client's long-term key. Source: RFC 4120 5.2.7.2."""

from __future__ import annotations

from datetime import datetime

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.preauth.mechanism import Next, Strength
from purekrb.exchanges.runner import Exchange
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages.ap import EncryptedData, KrbError
from purekrb.messages.kdc import AsRep, KdcReqBody, PaData, PaEncTsEnc
from purekrb.system import RandomBytes

__all__ = ["Timestamp", "TimestampProof"]

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
    """The mechanism. With a key at hand, the first request already carries the timestamp.

    In FAST, the KDC must first have asked for it: it may have the encrypted challenge.
    """

    type: int = PaDataType.ENC_TIMESTAMP
    name = "PA-ENC-TIMESTAMP"
    strength = Strength.GUESSABLE
    awaited = False
    announced = False

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> TimestampProof | None:
        """Like `Mechanism.begin`."""
        if asked:
            return TimestampProof(keys, random, None)
        key = None if keys.armor_key else keys.at_hand()
        return None if key is None else TimestampProof(keys, random, key)


class TimestampProof:
    """A proof by timestamps, made with `key`, which is None until the KDC has named its kind."""

    name = Timestamp.name

    def __init__(self, keys: ClientKeys, random: RandomBytes, key: EncryptionKey | None) -> None:
        self._keys = keys
        self._random = random
        self._key = key
        self._asked = False

    def __str__(self) -> str:
        etype = etype_name(self._key.etype) if self._key else "a key that the KDC has yet to name"
        return f"{self.name} with {etype}"

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        """Like `Proof.padata`."""
        if self._key is None:
            return ()
        encrypted = self._encrypted(time, self._key, KeyUsage.AS_REQ_PA_ENC_TIMESTAMP)
        return (PaData(PaDataType.ENC_TIMESTAMP, encrypted.encode()),)
        yield  # a generator, as the interface says

    def _encrypted(self, time: datetime, key: EncryptionKey, usage: int) -> EncryptedData:
        stamp = PaEncTsEnc(time.replace(microsecond=0), time.microsecond).encode()
        confounder = self._random(crypto.profile_of(key.etype).confounder_size)
        return EncryptedData(key.etype, None, crypto.encrypt(key, usage, stamp, confounder))

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Like `Proof.asked`."""
        self._key = yield from self._keys.for_proof(methods, error)
        self._asked = True

    def refused(self, error: KrbError) -> Next:
        """Like `Proof.refused`: another key may do, unless the KDC has asked for this one."""
        if self._key is None or self._asked or error.error_code not in _ANOTHER_MAY_DO:
            return Next.FAILURE
        self._keys.refuse(self._key.etype, error)
        return Next.WITHOUT

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Like `Proof.reply_key`: the client's key."""
        if self._key is not None and self._key.etype == reply.enc_part.etype:
            return self._key
        return (yield from self._keys.for_reply(reply))
