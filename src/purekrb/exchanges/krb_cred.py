"""KRB-CRED: tickets and their keys, forwarded to a service.

Source: RFC 4120 3.6, 5.8; RFC 4121 4.1.1.
"""

from __future__ import annotations

from datetime import datetime

from purekrb import crypto
from purekrb.constants import KeyUsage, MessageType
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import DecodeError, IntegrityError, ProtocolError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import PVNO, EncKrbCredPart, EncryptedData, KrbCred, KrbCredInfo
from purekrb.system import RandomBytes

__all__ = ["build_krb_cred", "read_krb_cred"]


def build_krb_cred(
    ticket: ServiceTicket, key: EncryptionKey, *, now: datetime, random: RandomBytes
) -> bytes:
    """Return a KRB-CRED that hands over `ticket`, encrypted with `key`. Source: RFC 4120 3.6.1."""
    info = KrbCredInfo(
        key=ticket.session_key,
        prealm=ticket.client.realm,
        pname=ticket.client.name,
        flags=ticket.flags,
        authtime=ticket.authtime,
        starttime=ticket.starttime,
        endtime=ticket.endtime,
        renew_till=ticket.renew_till,
        srealm=ticket.service.realm,
        sname=ticket.service.name,
        caddr=ticket.caddr or None,
    )
    part = EncKrbCredPart(
        ticket_info=(info,),
        nonce=None,
        timestamp=now.replace(microsecond=0),
        usec=now.microsecond,
        s_address=None,
        r_address=None,
    )
    confounder = random(crypto.profile_of(key.etype).confounder_size)
    cipher = crypto.encrypt(key, KeyUsage.KRB_CRED_ENC_PART, part.encode(), confounder)
    return KrbCred(
        pvno=PVNO,
        msg_type=MessageType.KRB_CRED,
        tickets=(ticket.ticket,),
        enc_part=EncryptedData(etype=key.etype, kvno=None, cipher=cipher),
    ).encode()


def read_krb_cred(data: bytes, keys: tuple[EncryptionKey, ...]) -> list[ServiceTicket]:
    """Return the tickets of a KRB-CRED that is encrypted with one of `keys`.

    The keys are tried in order. Raises DecodeError or ProtocolError for a message that is malformed
    or not encrypted, and IntegrityError if no key fits. Source: RFC 4120 3.6.2.
    """
    message = KrbCred.decode(data)
    # RFC 4120 3.6.2, 5.8.1: pvno and msg-type.
    if message.pvno != PVNO or message.msg_type != MessageType.KRB_CRED:
        raise ProtocolError(
            "this is not a KRB-CRED of Kerberos 5",
            expected=(5, 22),
            got=(message.pvno, message.msg_type),
        )
    part = EncKrbCredPart.decode(_decrypt(message.enc_part, keys))
    # RFC 4120 5.8.1: one KrbCredInfo for each ticket.
    if not message.tickets or len(message.tickets) != len(part.ticket_info):
        raise ProtocolError(
            "a KRB-CRED must describe each of its tickets once",
            expected=len(message.tickets),
            got=len(part.ticket_info),
        )
    return [_ticket(*pair) for pair in zip(message.tickets, part.ticket_info, strict=True)]


def _decrypt(enc_part: EncryptedData, keys: tuple[EncryptionKey, ...]) -> bytes:
    fitting = [key for key in keys if key.etype == enc_part.etype]
    # RFC 4121 4.1.1: the KRB-CRED is encrypted; etype 0, in clear text, fits no key.
    if not fitting:
        raise ProtocolError(
            "the KRB-CRED is not encrypted with a key of this context",
            expected=sorted({int(key.etype) for key in keys}),
            got=enc_part.etype,
        )
    for key in fitting[:-1]:
        try:
            return crypto.decrypt(key, KeyUsage.KRB_CRED_ENC_PART, enc_part.cipher)
        except IntegrityError:
            continue
    return crypto.decrypt(fitting[-1], KeyUsage.KRB_CRED_ENC_PART, enc_part.cipher)


def _ticket(ticket: bytes, info: KrbCredInfo) -> ServiceTicket:
    if info.pname is None or info.sname is None or not info.prealm or not info.srealm:
        raise DecodeError("a KRB-CRED does not name the client or the service of its ticket")
    if not info.pname.components or not info.sname.components:
        raise DecodeError(
            "a KRB-CRED hands over a ticket whose client or service has an empty name"
        )
    if info.endtime is None:
        raise DecodeError("a KRB-CRED does not say when its ticket ends")
    return ServiceTicket(
        client=info.pname.principal(info.prealm),
        service=info.sname.principal(info.srealm),
        ticket=ticket,
        session_key=info.key,
        flags=info.flags or 0,
        authtime=info.authtime or info.starttime or info.endtime,
        starttime=info.starttime,
        endtime=info.endtime,
        renew_till=info.renew_till,
        caddr=info.caddr or (),
    )
