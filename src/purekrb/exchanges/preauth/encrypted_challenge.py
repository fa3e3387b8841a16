"""The encrypted challenge: the time under the client's key and the armor key of FAST.

The KDC answers in kind, which proves that it knows the client's key. Source: RFC 6113 5.4.6.
"""

from __future__ import annotations

from datetime import datetime

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.errors import IntegrityError, PreauthFailedError, ProtocolError
from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.preauth.mechanism import Proof
from purekrb.exchanges.preauth.timestamp import TimestampProof
from purekrb.exchanges.runner import Exchange
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import EncryptedData
from purekrb.messages.kdc import AsRep, KdcReqBody, PaData, PaEncTsEnc
from purekrb.system import RandomBytes

__all__ = ["begin"]

log = Log("purekrb.kdc")


def begin(
    keys: ClientKeys, random: RandomBytes, armor_key: EncryptionKey, *, asked: bool
) -> Proof | None:
    """Return the proof, as `Mechanism.begin`. With a key at hand, it goes with the first request."""
    if asked:
        return _ChallengeProof(keys, random, None, armor_key)
    key = keys.at_hand()
    return None if key is None else _ChallengeProof(keys, random, key, armor_key)


class _ChallengeProof(TimestampProof):
    name = "PA-ENCRYPTED-CHALLENGE"

    def __init__(
        self,
        keys: ClientKeys,
        random: RandomBytes,
        key: EncryptionKey | None,
        armor_key: EncryptionKey,
    ) -> None:
        super().__init__(keys, random, key)
        self._armor_key = armor_key

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        if self._key is None:
            return ()
        key = self._challenge_key(b"clientchallengearmor", self._key)
        encrypted = self._encrypted(time, key, KeyUsage.ENC_CHALLENGE_CLIENT)
        return (PaData(PaDataType.ENCRYPTED_CHALLENGE, encrypted.encode()),)
        yield  # a generator, as the interface says

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Return the client's key, after the check of the KDC's challenge."""
        key = yield from super().reply_key(reply, request)
        answers = [p for p in reply.padata or () if p.padata_type == PaDataType.ENCRYPTED_CHALLENGE]
        if not answers:  # RFC 6113 5.4.6: the KDC includes it in its reply
            raise ProtocolError(
                "the KDC did not answer the encrypted challenge: it has not proved that it knows "
                "the client's key"
            )
        self._verify(EncryptedData.decode(answers[0].padata_value), key)
        return key

    def _verify(self, answer: EncryptedData, key: EncryptionKey) -> None:
        """Refuse an answer that was made without the client's key.

        It cannot be a copy of the request: the usages differ. Nor one of another exchange: so do
        the armor keys.
        """
        peppers = (
            b"kdcchallengearmor",
            b"clientchallengearmor",
        )  # the second is Heimdal's, before 8
        for pepper in peppers:
            try:
                plain = crypto.decrypt(
                    self._challenge_key(pepper, key), KeyUsage.ENC_CHALLENGE_KDC, answer.cipher
                )
            except IntegrityError:
                continue
            PaEncTsEnc.decode(plain)
            if pepper != peppers[0]:
                log.debug("the KDC answers with the client's challenge key, as Heimdal before 8")
            return
        raise PreauthFailedError(
            "the KDC's answer to the encrypted challenge does not open with the client's key: it "
            "does not know the key, or the password is wrong",
            code=ErrorCode.KDC_ERR_PREAUTH_FAILED,
        )

    def _challenge_key(self, pepper: bytes, key: EncryptionKey) -> EncryptionKey:
        """Return the key of a challenge. Source: RFC 6113 5.4.6."""
        return crypto.cf2(self._armor_key, key, pepper, b"challengelongterm")
