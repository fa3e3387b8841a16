"""The checksum of an initiator's authenticator, type 0x8003: flags, channel bindings, delegation.

    Lgth (4, = 16) | Bnd (16) | Flags (4)
    [ | DlgOpt (2, = 1) | Dlgth (2) | Deleg (Dlgth) ] [ | Exts ]

Numbers are little-endian. Source: RFC 4121 4.1.1.
"""

from __future__ import annotations

import struct

from purekrb.constants import Flag
from purekrb.errors import DecodeError, UnsupportedError
from purekrb.records import record
from purekrb.tracebacks import forget_frames

__all__ = ["GssChecksum", "NO_BINDINGS"]

NO_BINDINGS = bytes(16)
_FIXED = struct.Struct("<I16sI")
_DELEGATION = struct.Struct("<HH")
_MAX_DELEGATION = 0xFFFF  # Dlgth has two bytes
_KNOWN_FLAGS = sum(Flag)
_DELEG = int(Flag.DELEG)


@record
class GssChecksum:
    """The 0x8003 checksum taken apart.

    `flags` is an int of `Flag` bits: a handshake tests them often, and enum arithmetic is slow.
    `bindings` is an MD5 digest or zeros. `delegation` is a KRB-CRED or None. `extensions` is what
    follows, which only IAKERB looks into.
    """

    flags: int
    bindings: bytes = NO_BINDINGS
    delegation: bytes | None = None
    extensions: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes of the checksum.

        Raises UnsupportedError for a delegation that is too large for the format.
        """
        fixed = _FIXED.pack(16, self.bindings, self.flags)
        if self.delegation is None:
            return fixed + self.extensions
        if len(self.delegation) > _MAX_DELEGATION:
            raise UnsupportedError(
                f"the delegated ticket is too large: the KRB-CRED has {len(self.delegation)} "
                f"bytes, at most {_MAX_DELEGATION} fit. Connect without DELEG, or put the client "
                "into fewer groups"
            )
        delegation = _DELEGATION.pack(1, len(self.delegation)) + self.delegation
        return fixed + delegation + self.extensions

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> GssChecksum:
        """Return the fields; unknown flags are ignored. Raises DecodeError."""
        # RFC 4121 4.1.1: Lgth, Bnd and Flags are always there.
        if len(data) < _FIXED.size:
            raise DecodeError(
                f"the 0x8003 checksum has {len(data)} bytes, at least {_FIXED.size} are needed"
            )
        size, bindings, flags = _FIXED.unpack_from(data)
        # RFC 4121 4.1.1: Lgth is 16.
        if size != len(bindings):
            raise DecodeError(
                f"the channel bindings of a 0x8003 checksum have 16 bytes, not {size}"
            )
        known = flags & _KNOWN_FLAGS
        if not known & _DELEG:
            return cls(known, bindings, None, data[_FIXED.size :])
        if len(data) < _FIXED.size + _DELEGATION.size:
            raise DecodeError("the 0x8003 checksum ends before the delegation that it announces")
        option, size = _DELEGATION.unpack_from(data, _FIXED.size)
        start = _FIXED.size + _DELEGATION.size
        # RFC 4121 4.1.1: DlgOpt is 1, and Deleg has Dlgth bytes.
        if option != 1 or start + size > len(data):
            raise DecodeError("the delegation in the 0x8003 checksum is malformed or cut off")
        end = start + size
        return cls(known, bindings, data[start:end], data[end:])
