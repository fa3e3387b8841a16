"""Numbers of the Kerberos standards as enums. Source: RFC 4120 7.5 and the RFCs named beside each class.

Encryption types and context flags are in what contexts return. The other enums are made when they are first asked for
(PEP 562), of the numbers in `purekrb.registry`, with which contexts work: a context needs none of them, and making them
all took a tenth of the time that importing contexts takes.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, ClassVar

from purekrb import registry

if TYPE_CHECKING:
    from purekrb.registry import *  # noqa: F403 - what registry.__all__ names, which stands there alone

__all__ = [
    "EncryptionType",
    "Flag",
    "DEFAULT_ETYPES",
    "KERB_AP_OPTIONS_CBT",
    "KRB5_MECH_OID",
    "MS_KRB5_MECH_OID",
    "SPNEGO_OID",
    "NTLM_OID",
    "NEGOEX_OID",
    "error_name",
    "flag_names",
]
__all__ += registry.__all__


class EncryptionType(IntEnum):
    """Encryption types. Source: RFC 3962, RFC 8009, RFC 4757."""

    AES128_CTS_HMAC_SHA1_96 = 17
    AES256_CTS_HMAC_SHA1_96 = 18
    AES128_CTS_HMAC_SHA256_128 = 19
    AES256_CTS_HMAC_SHA384_192 = 20
    RC4_HMAC = 23


#: What purekrb asks for and accepts unless told otherwise, in order of preference. RC4 is never in it.
DEFAULT_ETYPES: tuple[int, ...] = (18, 17, 20, 19)


class Flag(IntFlag):
    """Context flags, with the values of the 0x8003 checksum. Source: RFC 4121 4.1.1.1, MS-KILE 3.2.5.2."""

    DELEG = 0x0001
    MUTUAL = 0x0002
    REPLAY = 0x0004
    SEQUENCE = 0x0008
    CONF = 0x0010
    INTEG = 0x0020
    DCE_STYLE = 0x1000
    IDENTIFY = 0x2000
    EXTENDED_ERROR = 0x4000

    #: What a context asks for unless told otherwise: several flags, so no member of the enum. Set below.
    DEFAULT: ClassVar[Flag]


Flag.DEFAULT = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE | Flag.CONF | Flag.INTEG


def flag_names(kind: type[IntFlag], value: int) -> list[str]:
    """Return the names of the flags that are set in `value`, in the order of `kind`."""
    return [str(flag.name) for flag in kind if value & flag]


def error_name(code: int) -> str:
    """Return the name and the number of a KRB-ERROR code."""
    for name, number in registry.members(registry.ErrorCode).items():
        if number == code:
            return f"{name} {number}"
    return f"error {code}"


#: In AD-AP-OPTIONS: the client knows channel bindings, so that their absence is meant. Source: MS-KILE 3.2.5.8.
KERB_AP_OPTIONS_CBT = 0x4000

#: DER contents of 1.2.840.113554.1.2.2, the Kerberos V5 mechanism. Source: RFC 4121 4.1.
KRB5_MECH_OID = bytes.fromhex("2a864886f712010202")
#: 1.2.840.48018.1.2.2, the same under the name that Windows gives it first. Source: MS-KILE 3.1.5, MS-SPNG 1.9.
MS_KRB5_MECH_OID = bytes.fromhex("2a864882f712010202")
#: 1.3.6.1.5.5.2. Source: RFC 4178 4.
SPNEGO_OID = bytes.fromhex("2b0601050502")
#: 1.3.6.1.4.1.311.2.2.10 and .30, which are refused, but by their names. Source: MS-SPNG 1.9.
NTLM_OID = bytes.fromhex("2b06010401823702020a")
NEGOEX_OID = bytes.fromhex("2b06010401823702021e")


def __getattr__(name: str) -> Any:
    if name not in registry.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    numbers = getattr(registry, name)
    base: Any = IntFlag if issubclass(numbers, registry.IntFlag) else IntEnum
    made = base(name, registry.members(numbers), module=__name__)
    made.__doc__ = numbers.__doc__
    return globals().setdefault(name, made)  # in one step: all threads get the same one


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
