"""SPAKE at the embedded KDC. FOR TESTS AND DEMOS ONLY. Source: RFC 9588 4."""

from __future__ import annotations

from dataclasses import dataclass

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.crypto.spake_groups import available_groups, group, w_of
from purekrb.errors import IntegrityError, ProtocolError
from purekrb.exchanges.preauth.spake import derived_keys, transcript_hash
from purekrb.keys import EncryptionKey
from purekrb.messages.kdc import EtypeInfo2, EtypeInfo2Entry, MethodData, PaData
from purekrb.messages.spake import (
    SF_NONE,
    SpakeChallenge,
    SpakeResponse,
    SpakeSecondFactor,
    SpakeSupport,
    decode_pa_spake,
)
from purekrb.testing.kdc_accounts import RefusedError
from purekrb.testing.kdc_preauth import PreauthRequest

__all__ = ["KdcSpake"]

_MAX_OPEN = 1000


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the KDC remembers between its challenge and the response, by the cookie."""

    key: EncryptionKey
    scalar: bytes
    support: bytes
    challenge: bytes


class KdcSpake:
    """The mechanism, with `groups` (by default all that can be used here).

    With `challenge`, the first error carries a challenge in the first group; without it, the client
    first says what it supports.
    """

    type: int = PaDataType.SPAKE

    def __init__(self, groups: tuple[int, ...] | None = None, *, challenge: bool = False) -> None:
        self.groups = available_groups() if groups is None else groups
        self.challenge = challenge
        self._opened: dict[bytes, _Opened] = {}

    def hint(self, request: PreauthRequest) -> bytes:
        """Return nothing, or a challenge."""
        if not self.challenge:
            return b""
        cookie, value = self._open(request, b"", self.groups[0])
        request.cookie = cookie
        return value

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey | None:
        """Return the reply key for a response; refuse support with a challenge."""
        message = decode_pa_spake(value)
        if isinstance(message, SpakeSupport):
            number = next((n for n in self.groups if n in message.groups), None)
            if number is None:
                raise RefusedError(
                    ErrorCode.KDC_ERR_PREAUTH_FAILED, "no SPAKE group in common with the client"
                )
            cookie, challenge = self._open(request, value, number)
            raise self._more(request, cookie, challenge)
        cookies = [
            p.padata_value
            for p in request.message.padata or ()
            if p.padata_type == PaDataType.FX_COOKIE
        ]
        opened = self._opened.pop(cookies[0], None) if cookies else None
        if opened is None or not isinstance(message, SpakeResponse):
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_EXPIRED, "no SPAKE challenge is open")
        return self._reply_key(request, opened, message)

    def _reply_key(
        self, request: PreauthRequest, opened: _Opened, message: SpakeResponse
    ) -> EncryptionKey:
        challenge = SpakeChallenge.decode(opened.challenge)
        found = group(challenge.group)
        w = w_of(found, opened.key)
        try:
            shared = found.shared(opened.scalar, w, message.pubkey, kdc=False)
            transcript = transcript_hash(found, opened.support + opened.challenge, message.pubkey)
            body = request.message.req_body.encode()
            keys = derived_keys(found, opened.key, w, shared, transcript, body)
            reply_key = next(keys)
            plain = crypto.decrypt(next(keys), KeyUsage.SPAKE, message.factor.cipher)
        except (IntegrityError, ProtocolError):
            raise RefusedError(
                ErrorCode.KDC_ERR_PREAUTH_FAILED, "preauthentication failed"
            ) from None
        if SpakeSecondFactor.decode(plain).type != SF_NONE:
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "no such second factor")
        return reply_key

    def _open(self, request: PreauthRequest, support: bytes, number: int) -> tuple[bytes, bytes]:
        """Return a cookie and a challenge in the group `number`."""
        client, found = request.client, group(number)
        etype = next(e for e in request.message.req_body.etype if e in client.etypes)
        key = client.key(etype)
        if key is None:
            raise RefusedError(ErrorCode.KDC_ERR_NULL_KEY, "the client has no key")
        scalar, cookie = found.new_scalar(request.random), request.random(16)
        element = found.element(scalar, w_of(found, key), kdc=True)
        factors = (SpakeSecondFactor(SF_NONE, None),)
        challenge = SpakeChallenge(number, element, factors).encode()
        if len(self._opened) >= _MAX_OPEN:
            self._opened.clear()
        self._opened[cookie] = _Opened(key, scalar, support, challenge)
        return cookie, challenge

    def _more(self, request: PreauthRequest, cookie: bytes, challenge: bytes) -> RefusedError:
        client = request.client
        etypes = [e for e in request.message.req_body.etype if e in client.etypes]
        info = EtypeInfo2(
            tuple(EtypeInfo2Entry(e, client.salt, client.s2kparams) for e in etypes[:1])
        )
        methods = (
            PaData(PaDataType.ETYPE_INFO2, info.encode()),
            PaData(PaDataType.FX_COOKIE, cookie),
            PaData(PaDataType.SPAKE, challenge),
        )
        return RefusedError(
            ErrorCode.KDC_ERR_MORE_PREAUTH_DATA_REQUIRED,
            "more is needed",
            e_data=MethodData(methods).encode(),
        )
