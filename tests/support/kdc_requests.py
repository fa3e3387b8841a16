"""AS-REQ and TGS-REQ put together by hand, so that every field of them can be wrong, and replies taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from purekrb import crypto
from purekrb.constants import DEFAULT_ETYPES, KeyUsage, NameType, PaDataType
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import ApReq, Authenticator, Checksum, EncryptedData, KrbError
from purekrb.messages.kdc import (
    AsRep,
    AsReq,
    EncKdcRepPart,
    KdcReqBody,
    PaData,
    PaEncTsEnc,
    TgsRep,
    TgsReq,
    decode_kdc_reply,
)
from purekrb.names import Principal, PrincipalName
from support.values import replace

__all__ = [
    "NONCE",
    "Reply",
    "as_req",
    "ask_as",
    "ask_tgs",
    "enc_timestamp",
    "enterprise",
    "error_of",
    "name",
    "now",
    "opened",
    "tgs_req",
]

Handle = Callable[[bytes], bytes]
NONCE = 0x12345678


def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def name(text: str) -> PrincipalName:
    return Principal.parse(text).name


@dataclass(frozen=True)
class Reply:
    """A reply of the KDC with its decrypted part: what is needed to ask for the next ticket."""

    message: AsRep | TgsRep
    part: EncKdcRepPart

    @property
    def key(self) -> EncryptionKey:
        return self.part.key


def body_of(realm: str, service: str | None, client: str | None, **fields: Any) -> KdcReqBody:
    body = KdcReqBody(
        kdc_options=0,
        cname=None if client is None else name(client),
        realm=realm,
        sname=None if service is None else name(service),
        from_=None,
        till=now() + timedelta(hours=1),
        rtime=None,
        nonce=NONCE,
        etype=DEFAULT_ETYPES,
    )
    return replace(body, **fields)


def enc_timestamp(key: EncryptionKey, at: datetime | None = None) -> PaData:
    """Return PA-ENC-TIMESTAMP of `at` (now) under `key`."""
    plain = PaEncTsEnc((at or now()).replace(microsecond=0), 0).encode()
    cipher = crypto.encrypt(key, KeyUsage.AS_REQ_PA_ENC_TIMESTAMP, plain)
    return PaData(PaDataType.ENC_TIMESTAMP, EncryptedData(key.etype, None, cipher).encode())


def as_req(
    realm: str,
    client: str | None,
    *,
    service: str | None = "",
    padata: Iterable[PaData] = (),
    **fields: Any,
) -> bytes:
    """Return an AS-REQ of `client` for `service` ("": the TGS); `fields` replace those of the body."""
    service = f"krbtgt/{realm}" if service == "" else service
    return AsReq(tuple(padata) or None, body_of(realm, service, client, **fields)).encode()


def opened(reply: bytes, key: EncryptionKey, usage: int) -> Reply:
    message = decode_kdc_reply(reply)
    if isinstance(message, KrbError):
        raise AssertionError(f"KRB-ERROR {message.error_code}: {message.e_text}")
    return Reply(message, EncKdcRepPart.decode(crypto.decrypt(key, usage, message.enc_part.cipher)))


def ask_as(
    handle: Handle,
    realm: str,
    client: str,
    key: EncryptionKey,
    *,
    padata: Iterable[PaData] = (),
    **fields: Any,
) -> Reply:
    """Return what the KDC answers to an AS-REQ that is pre-authenticated with `key`."""
    request = as_req(realm, client, padata=(enc_timestamp(key), *padata), **fields)
    return opened(handle(request), key, KeyUsage.AS_REP_ENC_PART)


def tgs_req(
    tgt: Reply,
    realm: str,
    service: str | None,
    *,
    subkey: EncryptionKey | None = None,
    authenticator: Callable[[Authenticator], Authenticator] = lambda unchanged: unchanged,
    ap_req: Callable[[ApReq], ApReq] = lambda unchanged: unchanged,
    session_key: EncryptionKey | None = None,
    signed_body: bytes | None = None,
    **fields: Any,
) -> bytes:
    """Return a TGS-REQ of the owner of `tgt` to `realm`; the callables may change the parts before they are sealed."""
    body = body_of(realm, service, None, **fields)
    key = session_key or tgt.key
    mac = crypto.checksum(
        key, KeyUsage.TGS_REQ_AUTHENTICATOR_CHECKSUM, signed_body or body.encode()
    )
    inside = authenticator(
        Authenticator(
            authenticator_vno=5,
            crealm=tgt.message.crealm,
            cname=tgt.message.cname,
            cksum=Checksum(crypto.profile_of(key.etype).checksum_type, mac),
            cusec=0,
            ctime=now(),
            subkey=subkey,
            seq_number=None,
            authorization_data=None,
        )
    )
    sealed = crypto.encrypt(key, KeyUsage.TGS_REQ_AUTHENTICATOR, inside.encode())
    message = ap_req(ApReq(5, 14, 0, tgt.message.ticket, EncryptedData(key.etype, None, sealed)))
    return TgsReq((PaData(PaDataType.TGS_REQ, message.encode()),), body).encode()


def ask_tgs(
    handle: Handle,
    tgt: Reply,
    realm: str,
    service: str,
    *,
    subkey: EncryptionKey | None = None,
    **fields: Any,
) -> Reply:
    """Return what the KDC answers to a TGS-REQ."""
    reply = handle(tgs_req(tgt, realm, service, subkey=subkey, **fields))
    if subkey is not None:
        return opened(reply, subkey, KeyUsage.TGS_REP_ENC_PART_SUBKEY)
    return opened(reply, tgt.key, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY)


def error_of(reply: bytes) -> KrbError:
    """Return the KRB-ERROR that a reply is; fail if it is something else."""
    message = decode_kdc_reply(reply)
    if not isinstance(message, KrbError):
        raise AssertionError(f"a {type(message).__name__} where a KRB-ERROR was expected")
    return message


def enterprise(text: str) -> PrincipalName:
    """Return an NT-ENTERPRISE name, which has one component. Source: RFC 6806 5."""
    return PrincipalName((text,), NameType.ENTERPRISE)
