"""One-time passwords at the embedded KDC. FOR TESTS AND DEMOS ONLY. Source: RFC 6560."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.errors import IntegrityError
from purekrb.keys import EncryptionKey
from purekrb.messages.otp import OtpChallenge, OtpEncRequest, OtpRequest, OtpTokenInfo
from purekrb.testing.kdc_accounts import RefusedError
from purekrb.testing.kdc_preauth import PreauthRequest

__all__ = ["KdcOtp"]

_NONCE_SIZE = 16
_MAX_OPEN = 1000


class KdcOtp:
    """The mechanism, offered in FAST to the clients in `codes`, by name, each with its values.

    A value serves once. `tokens` is what the challenge says of the tokens; a PIN, if it wants a
    separate one, is `pin`.
    """

    type: int = PaDataType.OTP_REQUEST
    offer_type: int = PaDataType.OTP_CHALLENGE

    def __init__(
        self,
        codes: Mapping[str, tuple[str, ...]],
        *,
        tokens: tuple[OtpTokenInfo, ...] = (OtpTokenInfo(),),
        service: str | None = None,
        pin: str | None = None,
    ) -> None:
        self._left = {name: list(values) for name, values in codes.items()}
        self.tokens, self.service, self._pin = tokens, service, pin
        self._open: set[bytes] = set()

    def hint(self, request: PreauthRequest) -> bytes | None:
        """Return a challenge."""
        if request.armor_key is None or str(request.client.name) not in self._left:
            return None
        nonce = request.random(_NONCE_SIZE)
        if len(self._open) >= _MAX_OPEN:
            self._open.clear()
        self._open.add(nonce)
        return OtpChallenge(nonce, self.service, self.tokens).encode()

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey:
        """Return the armor key; refuse a value that is wrong or was used."""
        key, message = request.armor_key, OtpRequest.decode(value)
        left = self._left.get(str(request.client.name), [])
        if key is None:
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "a one-time password without FAST")
        try:
            plain = crypto.decrypt(key, KeyUsage.PA_OTP_REQUEST, message.enc_data.cipher)
        except IntegrityError:
            raise RefusedError(
                ErrorCode.KDC_ERR_PREAUTH_FAILED, "the nonce is not encrypted"
            ) from None
        nonce = OtpEncRequest.decode(plain).nonce
        given = message.value or b""
        fits = [code for code in left if hmac.compare_digest(code.encode(), given)]
        pin_fits = hmac.compare_digest((self._pin or "").encode(), (message.pin or "").encode())
        if nonce not in self._open or not fits or not pin_fits:
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "the one-time password is wrong")
        self._open.discard(nonce)
        left.remove(fits[0])
        return key
