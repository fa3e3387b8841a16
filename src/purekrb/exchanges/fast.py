"""FAST: requests and replies inside an armor that whoever is on the path cannot open or change.

The armor is a ticket that the client has already: that of a host, or of another user. Who records
the exchange can then not guess at the password, and who changes it is noticed. Once there is an
armor, nothing outside of it is taken for authentic. Source: RFC 6113 5.4.
"""

from __future__ import annotations

from typing import TypeVar

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, MessageType, PaDataType, error_name
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ArmorRequiredError,
    DecodeError,
    IntegrityError,
    KdcError,
    KerberosError,
    ProtocolError,
)
from purekrb.exchanges.kdc_reply import ExchangeLabel, kdc_error
from purekrb.exchanges.unique_time import unique_now
from purekrb.exchanges.wire import Plain
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import (
    PVNO,
    ApReq,
    Authenticator,
    Checksum,
    EncryptedData,
    KrbError,
)
from purekrb.messages.fast import (
    ARMOR_AP_REQUEST,
    FastArmor,
    FastFinished,
    FastReq,
    FastResponse,
    FxFastReply,
    FxFastRequest,
)
from purekrb.messages.kdc import AsRep, KdcReqBody, MethodData, PaData, TgsRep
from purekrb.records import record, replace
from purekrb.system import Clock, RandomBytes

__all__ = ["Armor", "Fast", "armor_with", "implicit_armor"]

log = Log("purekrb.kdc")

R = TypeVar("R", AsRep, TgsRep)

#: What a KDC says of the AP-REQ in an armor that it cannot open. Source: RFC 4120 3.2.3.
_ABOUT_THE_ARMOR = frozenset(
    (
        ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
        ErrorCode.KRB_AP_ERR_TKT_EXPIRED,
        ErrorCode.KRB_AP_ERR_TKT_NYV,
        ErrorCode.KRB_AP_ERR_NOT_US,
        ErrorCode.KRB_AP_ERR_MODIFIED,
        ErrorCode.KRB_AP_ERR_BADKEYVER,
        ErrorCode.KRB_AP_ERR_NOKEY,
    )
)


@record
class Armor:
    """An armor key, and what tells it to the KDC; `value` is None for that of a TGS-REQ."""

    key: EncryptionKey
    value: FastArmor | None


def armor_with(tgt: ServiceTicket, clock: Clock, random: RandomBytes) -> Armor:
    """Return an armor made of `tgt`, with a subkey of its own. Source: RFC 6113 5.4.1.1."""
    key = tgt.session_key
    subkey = crypto.random_key(key.etype, random)
    time = unique_now(clock) + tgt.time_offset
    authenticator = Authenticator(
        authenticator_vno=PVNO,
        crealm=tgt.client.realm,
        cname=tgt.client.name,
        cksum=None,
        cusec=time.microsecond,
        ctime=time.replace(microsecond=0),
        subkey=subkey,
        seq_number=None,
        authorization_data=None,
    ).encode()
    encrypted = _encrypt(key, KeyUsage.AP_REQ_AUTHENTICATOR, authenticator, random)
    ap_req = ApReq(PVNO, MessageType.AP_REQ, 0, tgt.ticket, encrypted).encode()
    return Armor(_armor_key(subkey, key), FastArmor(ARMOR_AP_REQUEST, ap_req))


def implicit_armor(subkey: EncryptionKey, session_key: EncryptionKey) -> Armor:
    """Return the armor of a TGS-REQ: that of its own PA-TGS-REQ. Source: RFC 6113 5.4.2."""
    return Armor(_armor_key(subkey, session_key), None)


def _armor_key(subkey: EncryptionKey, session_key: EncryptionKey) -> EncryptionKey:
    return crypto.cf2(subkey, session_key, b"subkeyarmor", b"ticketarmor")  # RFC 6113 5.4.1.1


class Fast(Plain):
    """Messages in `armor`. `label` names the exchange in errors."""

    def __init__(self, armor: Armor, label: ExchangeLabel, random: RandomBytes) -> None:
        self.armor_key = armor.key
        self._armor = armor
        self._label = label
        self._random = random
        self._strengthen_key: EncryptionKey | None = None

    def __str__(self) -> str:
        return " in FAST"

    def seal(
        self, padata: tuple[PaData, ...], body: KdcReqBody, checked: bytes
    ) -> tuple[PaData, ...]:
        """Return the one padata of the armored request. Source: RFC 6113 5.4.2."""
        key = self._armor.key
        inner = FastReq(0, padata, body.encode()).encode()
        mac = crypto.checksum(key, KeyUsage.FAST_REQ_CHECKSUM, checked)
        request = FxFastRequest(
            armor=self._armor.value,
            req_checksum=Checksum(crypto.profile_of(key.etype).checksum_type, mac),
            enc_fast_req=_encrypt(key, KeyUsage.FAST_REQ, inner, self._random),
        )
        return (PaData(PaDataType.FX_FAST, request.encode()),)

    def open_error(self, error: KrbError, nonce: int) -> KrbError:
        """Return the KRB-ERROR in the armor, with the METHOD-DATA beside it.

        Raises the error of `error` itself if it is outside of the armor: anyone can send that.
        Source: RFC 6113 5.4.4.
        """
        value = _fx_fast(_method_data(error))
        if value is None:
            raise self._unprotected(error)
        padata = self._response(value, nonce).padata
        inner = next((p for p in padata if p.padata_type == PaDataType.FX_ERROR), None)
        if inner is None:
            raise ProtocolError(
                f"{self._label}: the KDC's protected answer does not say what went wrong: "
                "PA-FX-ERROR is missing"
            )
        authentic = KrbError.decode(inner.padata_value)
        if authentic.e_data:
            return authentic
        methods = tuple(p for p in padata if p.padata_type != PaDataType.FX_ERROR)
        return replace(authentic, e_data=MethodData(methods).encode())

    def open(self, reply: R, nonce: int) -> R:
        """Return the reply with the padata and the client's name in the armor.

        A TGS-REP may be outside of the armor, as Heimdal before 8 sends it: its encrypted part is
        under the subkey, which was only sent in the request. Raises ArmorRequiredError for such an
        AS-REP, and ProtocolError or IntegrityError if the armor does not fit the request or the
        ticket. Source: RFC 6113 5.4.3.
        """
        value = _fx_fast(reply.padata or ())
        if value is None and self._armor.value is None:
            return reply
        if value is None:
            raise ArmorRequiredError(
                f"{self._label}: the KDC answered outside of FAST, although the request was "
                "armored: the answer is forged, or the KDC does not have FAST; it was refused"
            )
        response = self._response(value, nonce)
        finished = response.finished
        if finished is None:  # RFC 6113 5.4.3: MUST be there in the final message
            raise ProtocolError(
                f"{self._label}: the KDC's protected answer does not confirm the ticket: "
                "KrbFastFinished is missing"
            )
        self._check_ticket(finished, reply.ticket)
        self._strengthen_key = response.strengthen_key
        return replace(reply, padata=response.padata, crealm=finished.crealm, cname=finished.cname)

    def reply_key(self, key: EncryptionKey) -> EncryptionKey:
        """Return the strengthened key. Heimdal before 8 sends no strengthen-key.

        Source: RFC 6113 5.4.3.
        """
        if self._strengthen_key is None:
            return key
        return crypto.cf2(self._strengthen_key, key, b"strengthenkey", b"replykey")

    def _response(self, value: bytes, nonce: int) -> FastResponse:
        """Return the KrbFastResponse in a padata-value. Raises IntegrityError, ProtocolError."""
        enc = FxFastReply.decode(value).enc_fast_rep
        key = self._armor.key
        if enc.etype != key.etype:
            raise ProtocolError(
                f"{self._label}: the KDC's armor is of another encryption type than the key",
                expected=int(key.etype),
                got=enc.etype,
            )
        try:
            plain = crypto.decrypt(key, KeyUsage.FAST_REP, enc.cipher)
        except IntegrityError:
            raise IntegrityError(
                f"{self._label}: the KDC's protected answer does not open with the armor key: "
                "it was made or changed by someone else"
            ) from None
        response = FastResponse.decode(plain)
        if response.nonce != nonce:  # RFC 6113 5.4.3
            raise ProtocolError(
                f"{self._label}: the KDC's protected answer is for another request: "
                "its nonce differs"
            )
        return response

    def _check_ticket(self, finished: FastFinished, ticket: bytes) -> None:
        """Refuse another ticket than the KDC has sealed. Source: RFC 6113 5.4.3."""
        key, found = self._armor.key, finished.ticket_checksum
        if found.cksumtype != crypto.profile_of(key.etype).checksum_type:
            raise ProtocolError(
                f"{self._label}: the checksum of the ticket is of type {found.cksumtype}, "
                "which is not that of the armor key"
            )
        try:
            crypto.verify_checksum(key, KeyUsage.FAST_FINISHED, ticket, found.checksum)
        except IntegrityError:
            raise ProtocolError(
                f"{self._label}: the ticket is not the one that the KDC sealed: someone on the "
                "path exchanged it; try again over another network"
            ) from None

    def _unprotected(self, error: KrbError) -> KerberosError:
        """Return the exception for an error outside of the armor, which ends the exchange."""
        if error.error_code == ErrorCode.KDC_ERR_PREAUTH_REQUIRED:
            return ArmorRequiredError(
                f"{self._label}: the KDC answered outside of FAST, although the request was "
                "armored: it does not have FAST, or someone on the path removed it; nothing was "
                "sent without the armor. If this KDC has no FAST, log in without an armor"
            )
        name = error_name(error.error_code)
        log.debug(
            "the KDC answered outside of FAST: %s; whoever is on the path can send this", name
        )
        refusal = kdc_error(error, self._label)
        if error.error_code not in _ABOUT_THE_ARMOR or self._armor.value is None:
            return refusal
        # The KDC opens the armor before it looks at the client's proof. Source: RFC 6113 5.4.2.
        return KdcError(
            f"the KDC refused the armor, not the password or key ({self._label}, {name}); get a new "
            "ticket for the armor: of this realm, or of one that it trusts",
            code=error.error_code,
            krb_error=error,
        )


def _fx_fast(padata: tuple[PaData, ...]) -> bytes | None:
    found = (p.padata_value for p in padata if p.padata_type == PaDataType.FX_FAST)
    return next(found, None) or None  # an empty one only announces FAST


def _method_data(error: KrbError) -> tuple[PaData, ...]:
    """Return the METHOD-DATA of an error; nothing if its data are of another kind."""
    if not error.e_data:
        return ()
    try:
        data: MethodData = MethodData.decode(error.e_data)
    except DecodeError:
        return ()
    return data.entries


def _encrypt(
    key: EncryptionKey, usage: int, plaintext: bytes, random: RandomBytes
) -> EncryptedData:
    confounder = random(crypto.profile_of(key.etype).confounder_size)
    return EncryptedData(key.etype, None, crypto.encrypt(key, usage, plaintext, confounder))
