"""FAST at the embedded KDC: requests taken out of their armor, replies put into it.

FOR TESTS AND DEMOS ONLY. `purekrb.exchanges.fast` is the client's side. Source: RFC 6113 5.4.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from purekrb import crypto
from purekrb.constants import ErrorCode, FastOptions, KeyUsage, PaDataType
from purekrb.errors import IntegrityError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import ApReq, Checksum, EncryptedData, KrbError
from purekrb.messages.fast import (
    ARMOR_AP_REQUEST,
    FastFinished,
    FastReq,
    FastResponse,
    FxFastReply,
    FxFastRequest,
)
from purekrb.messages.kdc import KdcReqBody, MethodData, PaData
from purekrb.names import PrincipalName
from purekrb.records import replace
from purekrb.system import RandomBytes
from purekrb.testing.kdc_accounts import RefusedError

__all__ = ["KdcFast", "open_request"]

#: Returns the session key of an AP-REQ's ticket, and the subkey of its authenticator.
OpenApReq = Callable[[ApReq], tuple[EncryptionKey, EncryptionKey]]

#: The options that a KDC must know, or refuse the request. Source: RFC 6113 5.4.2.
_CRITICAL = 0xFFFF0000


class KdcFast:
    """One request in FAST: what was inside, and how its answer is armored."""

    def __init__(
        self, padata: tuple[PaData, ...], body: KdcReqBody, key: EncryptionKey, random: RandomBytes
    ) -> None:
        self.padata, self.body, self.armor_key = padata, body, key
        self._random = random
        self._strengthen_key: EncryptionKey | None = None

    def reply_key(self, key: EncryptionKey) -> EncryptionKey:
        """Return the strengthened reply key, of the same etype. Source: RFC 6113 5.4.3."""
        self._strengthen_key = crypto.random_key(key.etype, self._random)
        return crypto.cf2(self._strengthen_key, key, b"strengthenkey", b"replykey")

    def reply(
        self,
        padata: tuple[PaData, ...],
        crealm: str,
        cname: PrincipalName,
        ticket: bytes,
        now: datetime,
    ) -> tuple[PaData, ...]:
        """Return the padata of an AS-REP or TGS-REP."""
        mac = crypto.checksum(self.armor_key, KeyUsage.FAST_FINISHED, ticket)
        finished = FastFinished(
            timestamp=now.replace(microsecond=0),
            usec=now.microsecond,
            crealm=crealm,
            cname=cname,
            ticket_checksum=Checksum(crypto.profile_of(self.armor_key.etype).checksum_type, mac),
        )
        return self._sealed(FastResponse(padata, self._strengthen_key, finished, self.body.nonce))

    def error(self, error: KrbError) -> KrbError:
        """Return the KRB-ERROR that goes out for `error`. Source: RFC 6113 5.4.4."""
        methods = MethodData.decode(error.e_data).entries if error.e_data else ()
        inner = replace(error, e_data=None).encode()
        padata = (*methods, PaData(PaDataType.FX_ERROR, inner))
        sealed = self._sealed(FastResponse(padata, None, None, self.body.nonce))
        return replace(error, e_data=MethodData(sealed).encode())

    def _sealed(self, response: FastResponse) -> tuple[PaData, ...]:
        key = self.armor_key
        confounder = self._random(crypto.profile_of(key.etype).confounder_size)
        cipher = crypto.encrypt(key, KeyUsage.FAST_REP, response.encode(), confounder)
        reply = FxFastReply(EncryptedData(key.etype, None, cipher))
        return (PaData(PaDataType.FX_FAST, reply.encode()),)


def open_request(
    value: bytes,
    open_ap_req: OpenApReq,
    random: RandomBytes,
    *,
    checked: bytes,
    implicit: tuple[EncryptionKey, EncryptionKey] | None = None,
) -> KdcFast:
    """Return the request in a PA-FX-FAST.

    `checked` is what its checksum covers. `implicit` are the session key and the subkey of a
    TGS-REQ. Raises RefusedError. Source: RFC 6113 5.4.2.
    """
    request = FxFastRequest.decode(value)
    if request.armor is not None:
        if request.armor.armor_type != ARMOR_AP_REQUEST:
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "an unknown type of armor")
        session_key, subkey = open_ap_req(ApReq.decode(request.armor.armor_value))
    elif implicit is not None:
        session_key, subkey = implicit
    else:
        raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "the request has no armor")
    key = crypto.cf2(subkey, session_key, b"subkeyarmor", b"ticketarmor")
    try:
        crypto.verify_checksum(
            key, KeyUsage.FAST_REQ_CHECKSUM, checked, request.req_checksum.checksum
        )
        plain = crypto.decrypt(key, KeyUsage.FAST_REQ, request.enc_fast_req.cipher)
    except IntegrityError:
        raise RefusedError(
            ErrorCode.KRB_AP_ERR_MODIFIED, "the armored request was modified"
        ) from None
    inner = FastReq.decode(plain)
    if inner.fast_options & _CRITICAL & ~FastOptions.HIDE_CLIENT_NAMES:
        raise RefusedError(
            ErrorCode.KDC_ERR_UNKNOWN_CRITICAL_FAST_OPTIONS, "an unknown critical option of FAST"
        )
    return KdcFast(inner.padata, KdcReqBody.decode(inner.req_body), key, random)
