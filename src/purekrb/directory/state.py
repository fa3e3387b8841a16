"""The state file: a record of an installed service's registration.

It holds the SCP's objectGUID, because the DN changes when the SCP, or an object above it, is moved
or renamed. Source: the installer of Microsoft's Windows Sockets sample, which keeps
`LDAP://<GUID=...>` in the registry.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from purekrb.credentials import files
from purekrb.directory.patterns import CONTROL_CHARACTERS, GUID
from purekrb.errors import CredentialError, DecodeError, KerberosError, RegistrationError
from purekrb.sid import Sid
from purekrb.spn import ServicePrincipalName
from purekrb.tracebacks import forget_frames

__all__ = ["ServiceState", "StateAccount", "default_path"]

_T = TypeVar("_T")
_FORMAT_VERSION = 1
_MAX_SIZE = 1 << 20
_MAX_TEXT = 4096
_WHAT = "state file"
_BINDING = re.compile(r"LDAP://<GUID=(.*)>")
#: The bytes of an objectGUID in hexadecimal, in the order in which they are stored.
_GUID_BYTES = re.compile(r"[0-9A-Fa-f]{32}")
_NO_PATH = re.compile(r"[^A-Za-z0-9.-]")


@dataclass(frozen=True, slots=True)
class StateAccount:
    """The account that a service was installed for, as it was then. `object_guid` never changes."""

    dn: str
    name: str
    object_guid: UUID
    sid: Sid


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The data by which a service finds its SCP and its SPNs again.

    `scp_dn` is the DN at the time of the installation. If the service runs under an account that is
    local to the machine, `account` is None and `spns` is empty. `containers` are the DNs of the
    containers that were created for the SCP, deepest first. There is no secret in it, but whoever
    can change it misleads the service.
    """

    object_guid: UUID
    scp_dn: str
    domain: str
    spns: tuple[str, ...]
    account: StateAccount | None
    containers: tuple[str, ...] = ()

    @property
    def guid_binding_string(self) -> str:
        """The objectGUID as Windows writes it: `LDAP://<GUID=`, its bytes in hexadecimal, `>`."""
        return f"LDAP://<GUID={self.object_guid.bytes_le.hex()}>"

    @classmethod
    @forget_frames
    def load(cls, path: files.FilePath) -> ServiceState:
        """Return the state in the file.

        The file must be ours or root's, not writable by others, and not a link. Raises
        RegistrationError with the reason NO_STATE if it is missing, damaged or somebody else's.
        """
        try:
            return cls.decode(files.read_private(path, what=_WHAT, shared=True, max_size=_MAX_SIZE))
        except (CredentialError, DecodeError) as error:
            raise RegistrationError(
                f"{error}. Without its state file a service does not know its registration: "
                "name the right file, or have an administrator remove what is there and install "
                "the "
                "service again",
                reason="NO_STATE",
            ) from error

    def save(self, path: files.FilePath) -> None:
        """Replace the file atomically, with mode 0600; create missing directories.

        Raises CredentialError.
        """
        files.make_directories(path, what=_WHAT)
        files.write_private(path, self.encode(), what=_WHAT)

    @staticmethod
    def remove(path: files.FilePath) -> None:
        """Remove the file. Raises CredentialError."""
        files.remove_private(path, what=_WHAT, shared=True)

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> ServiceState:
        """Return the state that `encode` made into `data`. Raises DecodeError for anything else.

        The error tells which field is damaged and does not quote it: the path may have named any file.
        """
        fields: Any = None
        with suppress(ValueError, RecursionError):
            fields = json.loads(data.decode())
        version = fields.get("format_version") if isinstance(fields, dict) else None
        if version is None:
            raise DecodeError(
                "the state file is damaged: it is no JSON object with a format_version"
            )
        if type(version) is not int or version != _FORMAT_VERSION:
            raise DecodeError(
                f"the state file is not of format version {_FORMAT_VERSION}, which this purekrb reads"
            )
        account = fields.get("account")
        return cls(
            object_guid=_field(
                fields,
                "guid_binding_string",
                lambda value: _guid(_BINDING.sub(r"\1", _text(value))),
            ),
            scp_dn=_field(fields, "scp_dn", _text),
            domain=_field(fields, "domain", _text),
            spns=_field(fields, "spns", _spns),
            containers=_field(fields, "containers", _texts),
            account=None
            if account is None and "account" in fields
            else _field(fields, "account", _account),
        )

    def encode(self) -> bytes:
        """Return the state as JSON."""
        fields: dict[str, Any] = {
            "format_version": _FORMAT_VERSION,
            "guid_binding_string": self.guid_binding_string,
            "scp_dn": self.scp_dn,
            "domain": self.domain,
            "spns": list(self.spns),
            "containers": list(self.containers),
            "account": self.account
            and {
                "dn": self.account.dn,
                "name": self.account.name,
                "object_guid": str(self.account.object_guid),
                "sid": str(self.account.sid),
            },
        }
        return json.dumps(fields, indent=1).encode() + b"\n"


def default_path(service_class_name: str, name: str) -> str:
    """Return the default path of the state file for the SCP `name`.

    It is below /var/lib/purekrb for root, else below ~/.local/state/purekrb. XDG_STATE_HOME
    replaces /var/lib and ~/.local/state. Characters other than letters, digits, "." and "-" become
    "_".
    """
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    default = "/var/lib" if root else os.path.expanduser("~/.local/state")
    home = os.environ.get("XDG_STATE_HOME") or default
    directory, file = (
        _NO_PATH.sub("_", part).lstrip(".") or "_" for part in (service_class_name, name)
    )
    return os.path.join(home, "purekrb", directory, f"{file}.json")


def _field(fields: dict[str, Any], name: str, read: Callable[[Any], _T]) -> _T:
    with suppress(LookupError, TypeError, ValueError, KerberosError):
        return read(fields[name])
    raise DecodeError(
        f"the state file is damaged: its {name} is {'not of its form' if name in fields else 'missing'}"
    )


def _account(fields: dict[str, Any]) -> StateAccount:
    return StateAccount(
        dn=_text(fields["dn"]),
        name=_text(fields["name"]),
        object_guid=_guid(_text(fields["object_guid"])),
        sid=Sid.parse(_text(fields["sid"])),
    )


def _text(value: object) -> str:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _MAX_TEXT
        or CONTROL_CHARACTERS.search(value)
    ):
        raise ValueError
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError
    return tuple(map(_text, values))


def _spns(values: object) -> tuple[str, ...]:
    spns = _texts(values)
    for spn in spns:
        ServicePrincipalName.parse(spn)
    return spns


def _guid(text: str) -> UUID:
    if _GUID_BYTES.fullmatch(text):
        return UUID(bytes_le=bytes.fromhex(text))
    if GUID.fullmatch(text):
        return UUID(text)
    raise ValueError
