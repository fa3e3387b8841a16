"""Names. Source: RFC 2743 2.4, 3.2; RFC 1964 2.1; RFC 6680."""

from __future__ import annotations

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw.misc import check_mech
from purekrb.compat.gssapi.raw.named_tuples import DisplayNameResult
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import MechType, NameType
from purekrb.constants import NameType as PrincipalType
from purekrb.errors import KerberosError
from purekrb.names import ANONYMOUS, ANONYMOUS_REALM, Principal
from purekrb.system import local_fqdn

__all__ = [
    "Name",
    "import_name",
    "display_name",
    "compare_name",
    "export_name",
    "canonicalize_name",
    "duplicate_name",
    "release_name",
]

_TOKEN, _COMPOSITE_TOKEN = b"\x04\x01", b"\x04\x02"
_KERBEROS_OID = b"\x06\x09" + bytes(MechType.kerberos)
_ANONYMOUS = ANONYMOUS.principal(ANONYMOUS_REALM)


class Name:
    """A name: text of a type, or (`_principal`) the name of a Kerberos principal."""

    def __new__(cls, cpy: Name | None = None) -> Name:
        name = super().__new__(cls)
        name._text = b"" if cpy is None else cpy._text
        name._type = None if cpy is None else cpy._type
        name._principal = None if cpy is None else cpy._principal
        return name

    _text: bytes
    _type: OID | None
    #: Only if it is a mechanism name. Its realm is "" if it is not known yet.
    _principal: Principal | None
    #: The principal that it stands for, in a configuration.
    _meaning: tuple[object, Principal] | None = None


def mech_name(principal: Principal) -> Name:
    """Return the mechanism name of a principal."""
    name = Name()
    text = str(principal)
    name._text = (text if principal.realm else f"{text}@").encode()
    name._type = NameType.kerberos_principal
    name._principal = principal
    return name


def principal_of(name: Name) -> Principal:
    """Return the principal that `name` stands for; its realm is "" if it is not known yet."""
    return principal_in(_stores.current(), name)


def principal_in(current: object, name: Name) -> Principal:
    """Return the principal that `name` stands for in the `current` configuration.

    It knows the realms of hosts, and the default realm.
    """
    if name._principal is not None:
        return name._principal
    if name._meaning is None or name._meaning[0] is not current:
        name._meaning = current, _principal_of(name._text, name._type)
    return name._meaning[1]


def _principal_of(text: bytes, kind: OID | None) -> Principal:
    try:
        decoded = text.decode()
        if kind == NameType.hostbased_service:
            service, _, host = decoded.partition("@")
            if service:
                # RFC 4120 6.2.1: the host of a host-based service is in lower case.
                host = (host or local_fqdn()).lower().rstrip(".")
                realm = _stores.config().realm_of(host) or ""
                return Principal((service, host), realm, PrincipalType.SRV_HST)
        elif kind == NameType.anonymous:
            return _ANONYMOUS
        elif decoded:
            if kind in (NameType.machine_uid, NameType.string_uid):
                decoded = _user_of(text, kind == NameType.machine_uid)
            return Principal.parse(decoded, _stores.default_realm())
    except (KerberosError, UnicodeDecodeError, LookupError) as error:
        raise _status.status(codes.BAD_NAME, codes.MALFORMED_NAME, str(error)) from error
    raise _status.status(codes.BAD_NAME, codes.MALFORMED_NAME, "the name is empty")


def _user_of(text: bytes, machine: bool) -> str:
    """Return the name of a user by its number, in the machine's byte order or as text."""
    import pwd
    import sys

    try:
        uid = int.from_bytes(text, sys.byteorder) if machine else int(text)
    except ValueError:
        raise LookupError(f"{text!r} is not the number of a user") from None
    return pwd.getpwuid(uid).pw_name


def import_name(name: bytes, name_type: OID | None = None) -> Name:
    """Return the name with this text (or token) and type.

    Raises BadNameTypeError for an unknown type and BadNameError for a token that is not one.
    """
    if not isinstance(name, bytes):
        raise TypeError(f"Expected bytes, got {type(name).__name__}")
    if name_type in (NameType.export, NameType.composite_export):
        return _import_token(name)
    if name_type is not None and name_type not in _IMPORTED:
        raise _status.status(
            codes.BAD_NAMETYPE, 0, f"purekrb has no names of type {name_type.dotted_form}"
        )
    if not name and name_type != NameType.anonymous:
        raise _status.status(codes.BAD_NAME, 0, "the name is empty")
    imported = Name()
    imported._text, imported._type = name, name_type
    return imported


_IMPORTED = frozenset(
    (
        NameType.hostbased_service,
        NameType.user,
        NameType.kerberos_principal,
        NameType.machine_uid,
        NameType.string_uid,
        NameType.anonymous,
        OID.from_int_seq("1.2.840.113554.1.2.2.2"),  # a krb5_principal, which is text here
        OID.from_int_seq("1.3.6.1.5.6.2"),  # host-based, by its older OID
    )
)


def _import_token(token: bytes) -> Name:
    """Return the mechanism name in an exported one. Source: RFC 2743 3.2."""
    start = 4 + len(_KERBEROS_OID)
    size = int.from_bytes(token[start : start + 4], "big")
    end = start + 4 + size
    if (
        token[:2] not in (_TOKEN, _COMPOSITE_TOKEN)
        or token[2:start] != len(_KERBEROS_OID).to_bytes(2, "big") + _KERBEROS_OID
        or len(token) < end
        or (len(token) > end and token[:2] == _TOKEN)
    ):
        raise _status.status(codes.BAD_NAME, 0, "this is not the exported name of a principal")
    text = token[start + 4 : end]
    try:
        decoded = text.decode()
        principal = Principal.parse(decoded[:-1] if decoded.endswith("@") else decoded)
    except (KerberosError, UnicodeDecodeError) as error:
        raise _status.status(codes.BAD_NAME, codes.MALFORMED_NAME, str(error)) from error
    return mech_name(principal)


def display_name(name: Name, name_type: bool = True) -> DisplayNameResult:
    """Return the text of a name, and its type if `name_type` is true."""
    return DisplayNameResult(name._text, name._type if name_type else None)


def compare_name(name1: Name, name2: Name) -> bool:
    """Return whether two names are the same: equal text and type, or one principal."""
    if name1._principal is None and name2._principal is None:
        return name1._text == name2._text and name1._type == name2._type
    return principal_of(name1) == principal_of(name2)


def export_name(name: Name) -> bytes:
    """Return the token of a mechanism name. Raises MechanismNameRequiredError for other names."""
    return _exported(name, _TOKEN)


def export_composite(name: Name) -> bytes:
    """Return the token of a mechanism name with its attributes, of which there are none."""
    return _exported(name, _COMPOSITE_TOKEN) + bytes(4)


def _exported(name: Name, kind: bytes) -> bytes:
    if name._principal is None:
        raise _status.status(
            codes.NAME_NOT_MN, 0, "canonicalize the name for a mechanism before it is exported"
        )
    size, length = len(_KERBEROS_OID).to_bytes(2, "big"), len(name._text).to_bytes(4, "big")
    return b"".join((kind, size, _KERBEROS_OID, length, name._text))


def canonicalize_name(name: Name, mech: OID) -> Name:
    """Return the mechanism name of `name`."""
    check_mech(mech)
    return mech_name(principal_of(name))


def duplicate_name(name: Name) -> Name:
    """Return a copy."""
    return Name(name)


def release_name(name: Name) -> None:
    """Do nothing: Python frees names."""
