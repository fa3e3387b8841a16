"""Our messages through impacket's ASN.1 spec and pyasn1's DER codec, to compare the two implementations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from impacket.krb5 import asn1
from pyasn1.codec.der import decoder, encoder
from pyasn1.type import univ, useful

from purekrb.messages import ap, kdc

#: Our message -> impacket's spec of it.
SPECS: dict[type, Any] = {
    ap.EncryptedData: asn1.EncryptedData,
    ap.Checksum: asn1.Checksum,
    ap.HostAddress: asn1.HostAddress,
    ap.AuthorizationData: asn1.AuthorizationData,
    ap.Ticket: asn1.Ticket,
    ap.TransitedEncoding: asn1.TransitedEncoding,
    ap.EncTicketPart: asn1.EncTicketPart,
    ap.ApReq: asn1.AP_REQ,
    ap.Authenticator: asn1.Authenticator,
    ap.ApRep: asn1.AP_REP,
    ap.EncApRepPart: asn1.EncAPRepPart,
    ap.KrbCred: asn1.KRB_CRED,
    ap.KrbCredInfo: asn1.KrbCredInfo,
    ap.EncKrbCredPart: asn1.EncKrbCredPart,
    ap.KrbError: asn1.KRB_ERROR,
    kdc.PaData: asn1.PA_DATA,
    kdc.MethodData: asn1.METHOD_DATA,
    kdc.EtypeInfo2Entry: asn1.ETYPE_INFO2_ENTRY,
    kdc.EtypeInfo2: asn1.ETYPE_INFO2,
    kdc.PaEncTsEnc: asn1.PA_ENC_TS_ENC,
    kdc.PaPacRequest: asn1.KERB_PA_PAC_REQUEST,
    kdc.KdcReqBody: asn1.KDC_REQ_BODY,
    kdc.AsReq: asn1.AS_REQ,
    kdc.TgsReq: asn1.TGS_REQ,
    kdc.AsRep: asn1.AS_REP,
    kdc.TgsRep: asn1.TGS_REP,
    kdc.EncKdcRepPart: asn1.EncASRepPart,
}
#: Field names of the ASN.1 that our attributes do not repeat.
_RENAMED = {
    "from": "from_",
    "keytype": "etype",
    "keyvalue": "contents",
    "name-string": "components",
}


def _fill(component: Any, value: Any) -> Any:
    """Set `component` from our `value`; return it or a replacement."""
    if isinstance(component, asn1.Ticket) and isinstance(value, bytes):
        value = ap.Ticket.decode(value)
    if isinstance(component, univ.SequenceOf):
        component.clear()
        for n, item in enumerate(value.entries if hasattr(value, "entries") else value):
            component.setComponentByPosition(n, _fill(component.componentType.clone(), item))
        return component
    if isinstance(component, univ.Sequence):
        for named in component.componentType.namedTypes:
            item = getattr(value, _RENAMED.get(named.name, named.name.replace("-", "_")))
            if item is not None:
                component.setComponentByName(named.name, _fill(named.asn1Object.clone(), item))
        return component
    if isinstance(component, useful.GeneralizedTime):
        time: datetime = value
        return component.clone(f"{time.year:04}{time:%m%d%H%M%S}Z")
    if isinstance(component, univ.BitString):
        return component.clone(f"'{value:032b}'B")
    return component.clone(value)


def encode(message: Any) -> bytes:
    """Return the DER that impacket's spec gives for `message`."""
    return bytes(encoder.encode(_fill(SPECS[type(message)](), message)))


def reencode(kind: type, data: bytes) -> bytes:
    """Return `data` as pyasn1 reads and writes it under impacket's spec of `kind`. Fails on trailing bytes."""
    value, rest = decoder.decode(data, asn1Spec=SPECS[kind]())
    if rest:
        raise ValueError("pyasn1 left bytes over")
    return bytes(encoder.encode(value))
