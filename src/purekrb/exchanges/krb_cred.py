"""KRB-CRED: tickets and their keys, forwarded to a service.

Source: RFC 4120 3.6, 5.8; RFC 4121 4.1.1.
"""

from __future__ import annotations

from datetime import datetime

from purekrb import crypto
from purekrb.constants import KeyUsage
from purekrb.credentials import krb_cred
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import IntegrityError, ProtocolError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import EncKrbCredPart, EncryptedData
from purekrb.system import RandomBytes

__all__ = ["build_krb_cred", "read_krb_cred"]


def build_krb_cred(
    ticket: ServiceTicket, key: EncryptionKey, *, now: datetime, random: RandomBytes
) -> bytes:
    """Return a KRB-CRED that hands over `ticket`, encrypted with `key`. Source: RFC 4120 3.6.1."""
    part = EncKrbCredPart(
        ticket_info=(krb_cred.info_of(ticket),),
        nonce=None,
        timestamp=now.replace(microsecond=0),
        usec=now.microsecond,
        s_address=None,
        r_address=None,
    )
    confounder = random(crypto.profile_of(key.etype).confounder_size)
    cipher = crypto.encrypt(key, KeyUsage.KRB_CRED_ENC_PART, part.encode(), confounder)
    return krb_cred.message(
        [ticket], EncryptedData(etype=key.etype, kvno=None, cipher=cipher)
    ).encode()


def read_krb_cred(data: bytes, keys: tuple[EncryptionKey, ...]) -> list[ServiceTicket]:
    """Return the tickets of a KRB-CRED that is encrypted with one of `keys`.

    The keys are tried in order. Raises DecodeError or ProtocolError for a message that is malformed
    or not encrypted, and IntegrityError if no key fits. Source: RFC 4120 3.6.2.
    """
    message = krb_cred.decode(data)
    part = EncKrbCredPart.decode(_decrypt(message.enc_part, keys))
    return krb_cred.tickets_of(message, part)


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
