"""The PAC as a tree: each buffer by its name. Source: MS-PAC 2."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from purekrb.constants import ChecksumType, flag_names, number_name
from purekrb.errors import KerberosError, PacError, UnsupportedError
from purekrb.keys import etype_name
from purekrb.messages.ndr import Group, sid_of
from purekrb.messages.pac import SIGNATURE_SIZES, ClientInfo, LogonInfo, Pac, PacBuffer, UpnDnsInfo
from purekrb.messages.pac_buffers import (
    Claims,
    DelegationInfo,
    DeviceInfo,
    PacAttributes,
    pac_attributes,
)

__all__ = ["describe"]


def describe(
    data: bytes, value: Callable[[Any], Any], secret: Callable[[bytes], str]
) -> dict[str, Any]:
    """Return the tree of a PAC. Nothing is verified. Raises PacError if its table is malformed.

    `value` makes a tree of a record, `secret` a text of bytes that may hold a key.
    """
    pac = Pac.decode(data)
    tree: dict[str, Any] = {}
    for kind, (offset, size) in pac.buffers.items():
        name = number_name(PacBuffer, kind)
        content = data[offset : offset + size]
        try:
            read = _BUFFERS.get(kind)
            tree[name] = read(content, value) if read else secret(content)
        except KerberosError as error:
            tree[name] = f"<{size} bytes: {error}>"
    return tree


def _record(kind: Any) -> Callable[[bytes, Callable[[Any], Any]], Any]:
    return lambda data, value: value(kind.decode(data))


def _logon(data: bytes, _: Callable[[Any], Any]) -> dict[str, Any]:
    info = LogonInfo.decode(data)
    return {
        "effective_name": info.effective_name,
        "full_name": info.full_name,
        "domain": info.domain,
        "user_sid": str(info.user_sid),
        "primary_group": str(info.primary_group),
        "groups": _groups(info.groups),
    }


def _device(data: bytes, _: Callable[[Any], Any]) -> dict[str, Any]:
    info = DeviceInfo.decode(data)
    return {"device": str(info.device), "groups": _groups(info.groups)}


def _groups(groups: tuple[Group, ...]) -> list[str]:
    return [str(group.sid) for group in groups]


def _signature(data: bytes, _: Callable[[Any], Any]) -> dict[str, Any]:
    if len(data) < 4:
        raise PacError("the signature is cut off")
    kind = int.from_bytes(data[:4], "little", signed=True)
    size = SIGNATURE_SIZES.get(kind, 64)  # type: ignore[call-overload]
    tree: dict[str, Any] = {
        "cksumtype": number_name(ChecksumType, kind),
        "signature": data[4 : 4 + size].hex(),
    }
    if len(data) == 4 + size + 2:  # a read-only domain controller's
        tree["rodc_identifier"] = int.from_bytes(data[-2:], "little")
    return tree


def _claims(data: bytes, _: Callable[[Any], Any]) -> Any:
    info = Claims.decode(data)
    try:
        return {claim.id: list(claim.values) for claim in info.claims()}
    except UnsupportedError as error:
        return f"<{info.size} bytes of claims, compressed by {info.compressed_by}: {error}>"


def _credentials(data: bytes, _: Callable[[Any], Any]) -> dict[str, Any]:
    # PAC_CREDENTIAL_INFO, MS-PAC 2.6.1; encrypted under the key of the AS-REP, it holds NT hashes
    if len(data) < 8:
        raise PacError("the PAC's credentials are cut off")
    version, etype = struct.unpack_from("<II", data)
    return {"version": version, "etype": etype_name(etype), "cipher": f"<{len(data) - 8} bytes>"}


_BUFFERS: dict[int, Callable[[bytes, Callable[[Any], Any]], Any]] = {
    PacBuffer.LOGON_INFO: _logon,
    PacBuffer.CREDENTIALS_INFO: _credentials,
    PacBuffer.SERVER_CHECKSUM: _signature,
    PacBuffer.KDC_CHECKSUM: _signature,
    PacBuffer.TICKET_CHECKSUM: _signature,
    PacBuffer.FULL_CHECKSUM: _signature,
    PacBuffer.CLIENT_INFO: _record(ClientInfo),
    PacBuffer.DELEGATION_INFO: _record(DelegationInfo),
    PacBuffer.UPN_DNS_INFO: _record(UpnDnsInfo),
    PacBuffer.CLIENT_CLAIMS_INFO: _claims,
    PacBuffer.DEVICE_CLAIMS_INFO: _claims,
    PacBuffer.DEVICE_INFO: _device,
    PacBuffer.ATTRIBUTES_INFO: lambda data, _: flag_names(PacAttributes, pac_attributes(data)),
    PacBuffer.REQUESTER_SID: lambda data, _: str(sid_of(data)),
}
