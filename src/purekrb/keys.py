"""EncryptionKey: an encryption type and its key bytes, as RFC 4120 5.2.9 names them.

A container that protects its secret: redacted repr, no pickling, no copying, best-effort wiping.
The operations with keys are in `purekrb.crypto`. A key also holds caches: the keys that
`purekrb.crypto` derived from it, and the tickets that an acceptor opened with it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any, NoReturn

from purekrb.constants import EncryptionType
from purekrb.errors import CredentialError, DecodeError
from purekrb.tracebacks import forget_locals

__all__ = ["EncryptionKey", "KEY_SIZES", "etype_name", "etype_names"]

#: The key size in bytes of each encryption type that purekrb can use. Source: RFC 3962 6,
#: RFC 8009 5, RFC 4757 3.
KEY_SIZES: dict[int, int] = {17: 16, 18: 32, 19: 16, 20: 32, 23: 16}

_KNOWN = {int(etype): (etype, KEY_SIZES[etype]) for etype in EncryptionType}
#: The names of RFC 3961 8, RFC 6803 and RFC 8009, and Microsoft's of the negative numbers, which
#: Windows offers and nothing uses (MS-KILE 3.1.5.2, ntsecapi.h).
_NAMES = {
    1: "des-cbc-crc",
    2: "des-cbc-md4",
    3: "des-cbc-md5",
    5: "des3-cbc-md5",
    7: "des3-cbc-sha1-old",
    9: "dsaWithSHA1-CmsOID",
    10: "md5WithRSAEncryption-CmsOID",
    11: "sha1WithRSAEncryption-CmsOID",
    12: "rc2CBC-EnvOID",
    13: "rsaEncryption-EnvOID",
    14: "rsaES-OAEP-ENV-OID",
    15: "des-ede3-cbc-Env-OID",
    16: "des3-cbc-sha1",
    17: "aes128-cts-hmac-sha1-96",
    18: "aes256-cts-hmac-sha1-96",
    19: "aes128-cts-hmac-sha256-128",
    20: "aes256-cts-hmac-sha384-192",
    23: "rc4-hmac",
    24: "rc4-hmac-exp",
    25: "camellia128-cts-cmac",
    26: "camellia256-cts-cmac",
    -128: "rc4-md4",
    -129: "rc4-plain2",
    -130: "rc4-lm",
    -131: "rc4-sha",
    -132: "des-plain",
    -133: "rc4-hmac-old",
    -134: "rc4-plain-old",
    -135: "rc4-hmac-old-exp",
    -136: "rc4-plain-old-exp",
    -140: "rc4-plain",
    -141: "rc4-plain-exp",
    -148: "aes128-cts-hmac-sha1-96-plain",
    -149: "aes256-cts-hmac-sha1-96-plain",
}


def etype_name(etype: int) -> str:
    """Return the registered name of an encryption type, or its number as text."""
    return _NAMES.get(etype, f"etype {int(etype)}")


def etype_names(etypes: Iterable[int]) -> str:
    """Return the names of encryption types as text, separated by commas."""
    return ", ".join(map(etype_name, etypes))


class EncryptionKey:
    """An encryption key: `etype` (an EncryptionType if purekrb knows it, else int) and `contents`.

    `contents` are the key bytes. Keytabs may contain keys of an etype that purekrb does not know;
    such a key can be stored, but not used. Raises DecodeError if `contents` has the wrong length
    for a known etype. Equality takes constant time. Source: RFC 4120 5.2.9.
    """

    __slots__ = ("_contents", "_derived", "_opened", "_schedule", "etype")

    def __init__(self, etype: int, contents: bytes) -> None:
        try:
            self._contents: bytearray | None = None
            known = _KNOWN.get(etype)
            if known is None:
                self.etype: int = int(etype)
            else:
                self.etype, size = known
                if len(contents) != size:
                    raise DecodeError(
                        f"a key of {etype_name(etype)} has {size} bytes, got {len(contents)}"
                    )
            self._contents = bytearray(contents)
            # purekrb.crypto fills these two, and bounds the second.
            self._schedule: Any = None
            self._derived: dict[int, Any] = {}
            # purekrb.exchanges.opened_tickets fills and bounds this one.
            self._opened: dict[bytes, Any] = {}
        except BaseException as error:
            del contents  # it may be most of a key, and some tools print the locals of a traceback
            forget_locals(error)  # as `forget_frames`, without the cost of a wrapper
            raise

    @property
    def contents(self) -> bytes:
        """The key bytes. Raises CredentialError after `wipe()`."""
        if self._contents is None:
            raise CredentialError("this key was wiped: load or derive it again")
        return bytes(self._contents)

    def wipe(self) -> None:
        """Overwrite the key bytes and drop all data derived from them.

        Best effort: Python may hold copies.
        """
        self.__del__()
        self._contents = None
        for derived in list(self._derived.values()):
            derived.wipe()
        for ticket in list(self._opened.values()):
            ticket.key.wipe()
        self._derived.clear()
        self._opened.clear()
        self._schedule = None

    def __del__(self) -> None:
        if getattr(self, "_contents", None):  # missing if __init__ was interrupted at once
            self._contents[:] = bytes(len(self._contents))  # type: ignore[index, arg-type]

    def __repr__(self) -> str:
        etype = getattr(self, "etype", None)  # missing if __init__ was interrupted at once
        name = "unfinished" if etype is None else etype_name(etype)
        return f"EncryptionKey({name}, contents=<redacted>)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncryptionKey):
            return NotImplemented
        return self.etype == other.etype and hmac.compare_digest(self.contents, other.contents)

    # A hash of the secret would leak into the order of a set.
    __hash__ = None  # type: ignore[assignment]

    def _refuse(self, *_args: object) -> NoReturn:
        raise TypeError(
            "an EncryptionKey is secret and cannot be pickled or copied: pass the object itself"
        )

    __reduce__ = _refuse
    __reduce_ex__ = _refuse
    __copy__ = _refuse
    __deepcopy__ = _refuse
