"""Kirbi files: tickets with their session keys, as tools that export them from Windows write them.

A kirbi is a KRB-CRED whose part with the keys is not encrypted (etype 0). Source: RFC 4120 5.8.1.
The file is the message itself, or its base64. Windows writes lengths in the long form where the
short one would do. DER forbids this (X.690 10.1), but here it is read; it is never written.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator

from purekrb import records
from purekrb.credentials import files, krb_cred
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, DecodeError, UnsupportedError
from purekrb.messages.ap import EncKrbCredPart, EncryptedData
from purekrb.messages.der import tlv
from purekrb.tracebacks import forget_frames

__all__ = ["Kirbi"]

_WHAT = "kirbi"
_KRB_CRED_TAG = b"\x76"
#: The constructed elements around a name's string in a KRB-CRED are fewer than this.
_MAX_DEPTH = 32
#: Bit 0 of TicketFlags is reserved. Source: RFC 4120 5.3.
_RESERVED = 1 << 31


class Kirbi:
    """An immutable list of tickets: those of a kirbi file, or those that one is made of.

    Iteration yields the tickets. `CCache(client, kirbi)` is a ccache of them, and `Kirbi(ccache)`
    the way back. A kirbi holds no configuration, no authorization data and no time offset.
    """

    __slots__ = ("tickets",)

    def __init__(self, tickets: Iterable[ServiceTicket]) -> None:
        self.tickets = tuple(tickets)

    @classmethod
    @forget_frames
    def load(cls, path: files.FilePath) -> Kirbi:
        """Return the tickets in a file.

        Raises CredentialError if the file cannot be read or trusted (see `files.read_private`),
        and as `decode` if it holds no kirbi.
        """
        data = files.read_private(path, what=_WHAT)
        try:
            return cls.decode(data)
        except DecodeError as error:
            raise DecodeError(f"{files.text_of(path)}: {error}") from error

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> Kirbi:
        """Return the tickets in `data`: a KRB-CRED with etype 0, or the base64 of one.

        Raises DecodeError or ProtocolError if it is none, and UnsupportedError if its keys are
        encrypted.
        """
        if not data.startswith(_KRB_CRED_TAG):
            data = _from_base64(data)
        message = krb_cred.decode(_in_shortest_form(data))
        # RFC 4120 5.8.1 and what Windows does: etype 0 marks the part that is not encrypted.
        if message.enc_part.etype != 0:
            raise UnsupportedError(
                "the keys in this KRB-CRED are encrypted with "
                f"etype {message.enc_part.etype}: export the tickets without encryption"
            )
        part = EncKrbCredPart.decode(_in_shortest_form(message.enc_part.cipher))
        return cls(
            records.replace(ticket, flags=_flags(ticket.flags))
            for ticket in krb_cred.tickets_of(message, part)
        )

    @forget_frames
    def encode(self) -> bytes:
        """Return the file of these tickets.

        Raises CredentialError if there are none, or if one of them is not a Ticket of RFC 4120.
        """
        if not self.tickets:
            raise CredentialError("there is no ticket to write: a kirbi holds at least one")
        part = EncKrbCredPart(
            ticket_info=tuple(map(krb_cred.info_of, self.tickets)),
            nonce=None,
            timestamp=None,
            usec=None,
            s_address=None,
            r_address=None,
        )
        clear = EncryptedData(etype=0, kvno=None, cipher=part.encode())
        message = krb_cred.message(self.tickets, clear)
        try:
            return message.encode()
        except ValueError:  # the codec takes each ticket as it is, but for its tag and length
            raise CredentialError("a ticket to be written is damaged: it is no Ticket") from None

    def save(self, path: files.FilePath) -> None:
        """Replace the file by these tickets, atomically and with mode 0600.

        Raises CredentialError as `encode`, or if the file cannot be written; the old file is then
        unchanged.
        """
        files.write_private(path, self.encode(), what=_WHAT)

    def __iter__(self) -> Iterator[ServiceTicket]:
        return iter(self.tickets)

    def __len__(self) -> int:
        return len(self.tickets)

    def __repr__(self) -> str:
        return f"Kirbi({len(self)} tickets)"


def _from_base64(data: bytes) -> bytes:
    """Return the bytes that `data` writes as base64, with blanks and line ends anywhere."""
    try:
        found = base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        found = b""
    if not found.startswith(_KRB_CRED_TAG):
        # Outside of the `except`: the other error could hold the data.
        raise DecodeError("this is not a kirbi: neither a KRB-CRED nor the base64 of one")
    return found


def _in_shortest_form(data: bytes) -> bytes:
    """Return the one BER element in `data` with each length in its shortest form."""
    elements = list(_shortened(data, 0))
    if len(elements) != 1:
        raise DecodeError("data follow the KRB-CRED in the kirbi")
    return elements[0]


def _shortened(data: bytes, depth: int) -> Iterator[bytes]:
    """Yield the elements in `data`, one after the other, in their shortest form."""
    if depth > _MAX_DEPTH:
        raise DecodeError("the kirbi is damaged: its elements are nested too deeply")
    at = 0
    while at < len(data):
        tag, start, end = _read_header(data, at)
        contents = data[start:end]
        if tag & 0x20:  # X.690 8.1.2.5: constructed
            contents = b"".join(_shortened(contents, depth + 1))
        yield tlv(tag, contents)
        at = end


def _read_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return (tag, start, end) as `der.read_header`, also of a length in the long form."""
    if at + 2 > len(data):
        raise DecodeError("the kirbi ends inside a header")
    tag, length, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DecodeError("the kirbi holds a multi-byte tag, which Kerberos does not use")
    if length >= 0x80:  # X.690 8.1.3.5, the long form: so many octets hold the length
        size = length & 0x7F
        if not 1 <= size <= 8:
            raise DecodeError("the kirbi holds an indefinite or oversized length")
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise DecodeError("a length in the kirbi reaches past the end of the data")
    return tag, start, start + length


def _flags(flags: int) -> int:
    """Return TicketFlags, moved back where a writer has moved them by one bit.

    Some versions of a widespread tool wrote the flags of a forwardable ticket one bit too high, so
    that they begin with the reserved bit, which no KDC sets.
    """
    return flags >> 1 if flags & _RESERVED else flags
