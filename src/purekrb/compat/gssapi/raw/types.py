"""Types of names, mechanisms and addresses, and flags. Source: RFC 2744 3.11, Appendix A; RFC 4121."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from enum import IntEnum
from typing import Any

from purekrb.compat.gssapi.raw.oids import OID

__all__ = [
    "NameType",
    "RequirementFlag",
    "AddressType",
    "MechType",
    "GenericFlagSet",
    "IntEnumFlagSet",
]

_oid = OID.from_int_seq


class NameType:
    """The types of names. Source: RFC 2743 4, RFC 1964 2.1, RFC 6680 6."""

    anonymous = _oid("1.3.6.1.5.6.3")
    export = _oid("1.3.6.1.5.6.4")
    composite_export = _oid("1.3.6.1.5.6.6")
    hostbased_service = _oid("1.2.840.113554.1.2.1.4")
    user = _oid("1.2.840.113554.1.2.1.1")
    machine_uid = _oid("1.2.840.113554.1.2.1.2")
    string_uid = _oid("1.2.840.113554.1.2.1.3")
    kerberos_principal = _oid("1.2.840.113554.1.2.2.1")
    krb5_nt_principal_name = kerberos_principal


class MechType:
    """The mechanisms that have a name here; SPNEGO is `OID.from_int_seq("1.3.6.1.5.5.2")`."""

    kerberos = _oid("1.2.840.113554.1.2.2")


class RequirementFlag(IntEnum):
    """The flags of contexts. Source: RFC 2744 Appendix A, RFC 5896."""

    delegate_to_peer = 1
    mutual_authentication = 2
    replay_detection = 4
    out_of_sequence_detection = 8
    confidentiality = 16
    integrity = 32
    anonymity = 64
    protection_ready = 128
    transferable = 256
    ok_as_delegate = 32768
    channel_bound = 2048
    dce_style = 4096
    identify = 8192
    extended_error = 16384


class AddressType(IntEnum):
    """The types of addresses in channel bindings. Source: RFC 2744 3.11."""

    local = 1
    ip = 2
    arpanet = 3
    pup = 4
    chaos = 5
    xerox_ns = 6
    nbs = 7
    ecma = 8
    datakit = 9
    ccitt = 10
    ibm_sna = 11
    decnet = 12
    dli = 13
    lat = 14
    hyperchannel = 15
    appletalk = 16
    bisync = 17
    dss = 18
    osi_tp4 = 19
    x25 = 21
    null = 255


class GenericFlagSet(MutableSet[int]):
    """A set of flags, which is also their sum: `&`, `|` and `^` take sets, flags and numbers."""

    MAX_VAL = 1 << 31

    __slots__ = ("_value",)

    def __init__(self, flags: Iterable[int] | int | None = None) -> None:
        self._value = 0
        if isinstance(flags, GenericFlagSet):
            self._value = flags._value
        elif isinstance(flags, int):
            self._value = int(flags)
        else:
            for flag in flags or ():
                self.add(flag)

    def _like(self, value: int) -> GenericFlagSet:
        return type(self)(value)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return set(it)

    def __contains__(self, flag: object) -> bool:
        return isinstance(flag, int) and flag != 0 and self._value & flag == flag

    def __iter__(self) -> Iterator[int]:
        flag = 1
        while flag <= self.MAX_VAL:
            if self._value & flag:
                yield flag
            flag <<= 1

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, flag: int) -> None:
        """Add a flag."""
        self._value |= int(flag)

    def discard(self, flag: int) -> None:
        """Remove a flag, if it is there."""
        self._value &= ~int(flag)

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def _combined(self, other: object, value: int) -> Any:
        """Return the result of an operator: a number if `other` is one, otherwise a set."""
        plain = isinstance(other, int) and not self._is_flag(other)
        return value if plain else self._like(value)

    def _is_flag(self, other: int) -> bool:
        return False

    def __and__(self, other: Any) -> Any:
        return self._combined(other, self._value & _number(other))

    def __or__(self, other: Any) -> Any:
        return self._combined(other, self._value | _number(other))

    def __xor__(self, other: Any) -> Any:
        return self._combined(other, self._value ^ _number(other))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GenericFlagSet):
            return self._value == other._value
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # it can change

    def __repr__(self) -> str:
        return f"{type(self).__name__}({[hex(flag) for flag in self]})"


class IntEnumFlagSet(GenericFlagSet):
    """A set of the flags of one enum."""

    __slots__ = ("_enum",)

    def __init__(self, enum: type[IntEnum], flags: Iterable[int] | int | None = None) -> None:
        self._enum = enum
        super().__init__(flags)

    def _like(self, value: int) -> IntEnumFlagSet:
        return IntEnumFlagSet(self._enum, value)

    def _is_flag(self, other: int) -> bool:
        return isinstance(other, self._enum)

    def __iter__(self) -> Iterator[IntEnum]:
        # Bits that the enum does not name cannot be shown, and stay in the number.
        return (flag for flag in self._enum if self._value & flag)

    def __repr__(self) -> str:
        return f"IntEnumFlagSet({self._enum.__name__}, [{', '.join(flag.name for flag in self)}])"


def _number(other: Any) -> int:
    return int(other) if isinstance(other, (int, GenericFlagSet)) else sum(set(other))
