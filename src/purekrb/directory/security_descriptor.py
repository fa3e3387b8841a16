"""Security descriptors, as far as needed to let a service account update its SCP. Pure data.

A descriptor is read completely, changed in one place, and written back; all other parts stay as
they were. ACEs of any type are kept as bytes. Numbers are little-endian. Source: MS-DTYP 2.4.4
(ACE), 2.4.5 (ACL), 2.4.6 (SECURITY_DESCRIPTOR); the order of ACEs in MS-ADTS 6.1.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from purekrb.errors import DecodeError, DirectoryError
from purekrb.sid import Sid

__all__ = ["Ace", "Acl", "SecurityDescriptor", "grant", "property_ace", "revoke"]

_HEADER = struct.Struct("<BBHIIII")
_ACL_HEADER = struct.Struct("<BBHHH")
_ACE_HEADER = struct.Struct("<BBH")
_DACL_PRESENT, _SACL_PRESENT, _SELF_RELATIVE = 0x0004, 0x0010, 0x8000
#: The revision of an ACL with ACEs for single properties; other ACLs have 2.
_ACL_REVISION_DS = 4
_ACCESS_ALLOWED_OBJECT = 5
_INHERITED = 0x10
_READ_PROPERTY, _WRITE_PROPERTY = 0x10, 0x20
_OBJECT_TYPE_PRESENT = 1
_MAX_ACL = 0xFFFF


@dataclass(frozen=True, slots=True)
class Ace:
    """An access control entry: type, flags, and a body whose layout depends on the type."""

    type: int
    flags: int
    body: bytes

    def encode(self) -> bytes:
        """Return the ACE as bytes."""
        return (
            _ACE_HEADER.pack(self.type, self.flags, _ACE_HEADER.size + len(self.body)) + self.body
        )


@dataclass(frozen=True, slots=True)
class Acl:
    """An access control list. The first ACE that matches decides, so the order matters."""

    revision: int
    aces: tuple[Ace, ...]

    @classmethod
    def decode(cls, data: bytes) -> Acl:
        """Return the ACL at the start of `data`. Raises DecodeError."""
        if len(data) < _ACL_HEADER.size:
            raise _damaged(f"an ACL has {len(data)} bytes, its header alone {_ACL_HEADER.size}")
        revision, zero, size, count, zeros = _ACL_HEADER.unpack_from(data)
        if revision not in (2, _ACL_REVISION_DS) or zero or zeros:
            raise _damaged(
                f"the header of an ACL is {data[:8].hex()}, "
                "expected revision 2 or 4 and zeros as padding"
            )
        if not _ACL_HEADER.size <= size <= len(data):
            raise _damaged(f"an ACL claims {size} bytes of {len(data)}")
        aces: list[Ace] = []
        at = _ACL_HEADER.size
        for _ in range(count):
            if size - at < _ACE_HEADER.size:
                raise _damaged(f"an ACL announces {count} ACEs, but ends after {len(aces)}")
            ace_type, flags, length = _ACE_HEADER.unpack_from(data, at)
            if not _ACE_HEADER.size <= length <= size - at:
                raise _damaged(f"an ACE claims {length} bytes of {size - at}")
            aces.append(Ace(ace_type, flags, data[at + _ACE_HEADER.size : at + length]))
            at += length
        return cls(revision, tuple(aces))

    def encode(self) -> bytes:
        """Return the ACL as bytes. Raises DirectoryError if there are more than 65535."""
        aces = b"".join(ace.encode() for ace in self.aces)
        size = _ACL_HEADER.size + len(aces)
        if size > _MAX_ACL:
            raise DirectoryError(
                f"the access control list would have {size} bytes, but at most {_MAX_ACL} are "
                "possible: shorten it"
            )
        return _ACL_HEADER.pack(self.revision, 0, size, len(self.aces), 0) + aces


@dataclass(frozen=True, slots=True)
class SecurityDescriptor:
    """A self-relative security descriptor: the owner of an object, and everybody's rights (`dacl`).

    A part that the request did not ask for, usually the SACL, is None. `reserved` is the byte for
    resource managers.
    """

    control: int
    owner: Sid | None = None
    group: Sid | None = None
    sacl: Acl | None = None
    dacl: Acl | None = None
    reserved: int = 0

    @classmethod
    def decode(cls, data: bytes) -> SecurityDescriptor:
        """Return the descriptor in `data`; its parts may be in any order. Raises DecodeError."""
        if len(data) < _HEADER.size:
            raise _damaged(f"it has {len(data)} bytes, its header alone {_HEADER.size}")
        revision, reserved, control, *offsets = _HEADER.unpack_from(data)
        if revision != 1 or not control & _SELF_RELATIVE:
            raise _damaged(
                f"it has revision {revision} and control {control:#06x}, "
                "expected revision 1, self-relative"
            )
        for offset in offsets:
            if offset and not _HEADER.size <= offset < len(data):
                raise _damaged(f"a part begins at byte {offset} of {len(data)}")
        owner, group, sacl, dacl = (data[offset:] if offset else b"" for offset in offsets)
        for name, bit, part in (("SACL", _SACL_PRESENT, sacl), ("DACL", _DACL_PRESENT, dacl)):
            if part and not control & bit:
                raise _damaged(f"there is a {name}, although control {control:#06x} denies it")
        return cls(
            control,
            Sid.decode(owner) if owner else None,
            Sid.decode(group) if group else None,
            Acl.decode(sacl) if sacl else None,
            Acl.decode(dacl) if dacl else None,
            reserved,
        )

    def encode(self) -> bytes:
        """Return the descriptor as bytes: header, owner, group, SACL, DACL."""
        body = b""
        offsets = []
        for part in (self.owner, self.group, self.sacl, self.dacl):
            offsets.append(_HEADER.size + len(body) if part else 0)
            body += part.encode() if part else b""
        return _HEADER.pack(1, self.reserved, self.control, *offsets) + body


def property_ace(attribute: UUID, trustee: Sid) -> Ace:
    """Return the ACE by which `trustee` may read and write one attribute of an object.

    In SDDL it is `(OA;;RPWP;<attribute>;;<trustee>)`. `attribute` is the schemaIDGUID.
    """
    mask_and_flags = struct.pack("<II", _READ_PROPERTY | _WRITE_PROPERTY, _OBJECT_TYPE_PRESENT)
    return Ace(_ACCESS_ALLOWED_OBJECT, 0, mask_and_flags + attribute.bytes_le + trustee.encode())


def grant(descriptor: bytes, trustee: Sid, attributes: Iterable[UUID]) -> bytes:
    """Return `descriptor` with a `property_ace` for each of `attributes`.

    If all of them exist already, `descriptor` itself is returned. New ACEs take their place in the
    canonical order: after the other ACEs of the object itself, and before the inherited ones.
    Raises DecodeError if it is malformed, and DirectoryError if it has no DACL.
    """
    decoded, dacl = _with_dacl(descriptor)
    missing = [
        ace for ace in (property_ace(a, trustee) for a in attributes) if ace not in dacl.aces
    ]
    if not missing:
        return descriptor
    inherited = (at for at, ace in enumerate(dacl.aces) if ace.flags & _INHERITED)
    place = next(inherited, len(dacl.aces))
    aces = (*dacl.aces[:place], *missing, *dacl.aces[place:])
    return replace(decoded, dacl=Acl(_ACL_REVISION_DS, aces)).encode()


def revoke(descriptor: bytes, trustee: Sid, attributes: Iterable[UUID]) -> bytes:
    """Return `descriptor` without the ACEs that `grant` adds for the same arguments.

    If it has none of them, `descriptor` itself is returned.
    """
    decoded, dacl = _with_dacl(descriptor)
    unwanted = {property_ace(attribute, trustee) for attribute in attributes}
    kept = tuple(ace for ace in dacl.aces if ace not in unwanted)
    if kept == dacl.aces:
        return descriptor
    return replace(decoded, dacl=replace(dacl, aces=kept)).encode()


def _with_dacl(descriptor: bytes) -> tuple[SecurityDescriptor, Acl]:
    decoded = SecurityDescriptor.decode(descriptor)
    if decoded.dacl is None:
        # Without a DACL everybody has all rights; a first ACE would revoke those of everybody else.
        # Source: MS-DTYP 2.5.3.2.
        raise DirectoryError(
            "the object's security descriptor shows no DACL: "
            "it protects nothing, or you may not read it; "
            "run this as an administrator of the object, or have its permissions set first"
        )
    return decoded, decoded.dacl


def _damaged(why: str) -> DecodeError:
    return DecodeError(f"a security descriptor cannot be read: {why}")
