"""One-time passwords, in FAST only. Source: RFC 6560.

The one-time password goes to the KDC in the armor, and the reply is under the armor key: nobody on
the path sees it or can guess at it. It proves the client alone. So the armor must be one whose key
no impostor of the KDC has: that of a ticket, or of anonymous PKINIT with the KDC's certificate.
"""

from __future__ import annotations

from datetime import datetime

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.errors import PolicyError, PreauthFailedError, ProtocolError, UnsupportedError
from purekrb.exchanges.preauth.mechanism import Next
from purekrb.exchanges.runner import Exchange, Question
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import EncryptedData, KrbError
from purekrb.messages.kdc import AsRep, KdcReqBody, PaData
from purekrb.messages.otp import (
    AskOtp,
    OtpAnswer,
    OtpChallenge,
    OtpEncRequest,
    OtpFlags,
    OtpRequest,
    OtpTokenInfo,
)
from purekrb.system import RandomBytes

__all__ = ["OtpProof"]


class OtpProof:
    """One use of a one-time password, which `ask` gets."""

    def __init__(self, ask: AskOtp, armor_key: EncryptionKey, random: RandomBytes) -> None:
        self._ask = ask
        self._armor_key = armor_key
        self._random = random
        self._challenge: OtpChallenge | None = None
        self._answer: OtpAnswer | None = None
        self._sent = False

    def __str__(self) -> str:
        return "PA-OTP"

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Like `Proof.asked`: ask the person."""
        value = next(m.padata_value for m in methods if m.padata_type == PaDataType.OTP_CHALLENGE)
        challenge = OtpChallenge.decode(value)
        if not challenge.tokens:  # RFC 6560 4.1: SIZE (1..MAX)
            raise ProtocolError("the KDC asks for a one-time password of no token")
        if all(token.flags & OtpFlags.MUST_ENCRYPT_NONCE for token in challenge.tokens):
            raise UnsupportedError(
                "the KDC wants a key made of the one-time password (must-encrypt-nonce), which "
                "purekrb does not do; use a token whose value is sent to the KDC"
            )
        question = Question(self._ask, challenge)
        yield question
        answer = question.answer
        if isinstance(answer, str):
            answer = OtpAnswer(answer)
        if not isinstance(answer, OtpAnswer):
            raise TypeError("otp= must return the one-time password as text, or an OtpAnswer")
        if not 0 <= answer.token < len(challenge.tokens):
            raise ValueError(
                f"the challenge has {len(challenge.tokens)} tokens, and no {answer.token}"
            )
        self._challenge, self._answer = challenge, answer

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        """Like `Proof.padata`: the one-time password. It is sent once, and then forgotten."""
        challenge, answer = self._challenge, self._answer
        self._challenge = self._answer = None
        if challenge is None or answer is None:
            return ()
        self._sent = True
        request = self._request(challenge, challenge.tokens[answer.token], answer)
        return (PaData(PaDataType.OTP_REQUEST, request.encode()),)
        yield  # a generator, as the interface says

    def _request(
        self, challenge: OtpChallenge, token: OtpTokenInfo, answer: OtpAnswer
    ) -> OtpRequest:
        """Return the request with the value of `token`, and what tells the token. RFC 6560 4.2."""
        key = self._armor_key
        confounder = self._random(crypto.profile_of(key.etype).confounder_size)
        nonce = OtpEncRequest(challenge.nonce).encode()
        cipher = crypto.encrypt(key, KeyUsage.PA_OTP_REQUEST, nonce, confounder)
        return OtpRequest(
            flags=token.flags & OtpFlags.NEXT_OTP,
            nonce=None,
            enc_data=EncryptedData(key.etype, None, cipher),
            value=answer.value.encode() if isinstance(answer.value, str) else answer.value,
            pin=answer.pin,
            challenge=token.challenge,
            format=token.format,
            token_id=token.token_id,
            algorithm=token.algorithm,
            vendor=token.vendor,
        )

    def refused(self, error: KrbError) -> Next:
        """Like `Proof.refused`. A failure is final: the value cannot serve a second time."""
        if self._sent and error.error_code == ErrorCode.KDC_ERR_PREAUTH_FAILED:
            raise PreauthFailedError(
                "the KDC refused the one-time password: it is wrong, was used already, or the "
                "token's clock is off; try again with the token's next value",
                code=error.error_code,
                krb_error=error,
            )
        return Next.FAILURE

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Like `Proof.reply_key`: the armor key. Source: RFC 6560 3.6."""
        if not self._sent:
            raise PolicyError(
                "the KDC gave a ticket before it had the one-time password; it was refused"
            )
        return self._armor_key
        yield  # a generator, as the interface says
