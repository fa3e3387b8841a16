"""NTLM messages as trees. purekrb refuses NTLM; this names what a peer sent. Source: MS-NLMP 2.2."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from enum import IntFlag
from typing import Any

from purekrb.constants import flag_names
from purekrb.errors import DecodeError
from purekrb.messages.pac import FILETIME_EPOCH

__all__ = ["SIGNATURE", "describe"]

SIGNATURE = b"NTLMSSP\0"
#: The most AV_PAIRs of a target info that are shown.
_MAX_PAIRS = 32


class _NegotiateFlags(IntFlag):
    """NEGOTIATE. Source: MS-NLMP 2.2.2.5."""

    UNICODE = 1 << 0
    OEM = 1 << 1
    REQUEST_TARGET = 1 << 2
    SIGN = 1 << 4
    SEAL = 1 << 5
    DATAGRAM = 1 << 6
    LM_KEY = 1 << 7
    NTLM = 1 << 9
    ANONYMOUS = 1 << 11
    OEM_DOMAIN_SUPPLIED = 1 << 12
    OEM_WORKSTATION_SUPPLIED = 1 << 13
    ALWAYS_SIGN = 1 << 15
    TARGET_TYPE_DOMAIN = 1 << 16
    TARGET_TYPE_SERVER = 1 << 17
    EXTENDED_SESSIONSECURITY = 1 << 19
    IDENTIFY = 1 << 20
    REQUEST_NON_NT_SESSION_KEY = 1 << 22
    TARGET_INFO = 1 << 23
    VERSION = 1 << 25
    KEY_128 = 1 << 29
    KEY_EXCH = 1 << 30
    KEY_56 = 1 << 31


#: AvId of MS-NLMP 2.2.2.1.
_PAIRS = {
    1: "NbComputerName",
    2: "NbDomainName",
    3: "DnsComputerName",
    4: "DnsDomainName",
    5: "DnsTreeName",
    6: "Flags",
    7: "Timestamp",
    8: "SingleHost",
    9: "TargetName",
    10: "ChannelBindings",
}


def describe(data: bytes, secret: Callable[[bytes], str]) -> dict[str, Any]:
    """Return the tree of an NTLM message. Raises DecodeError if it is cut off.

    `secret` makes the text of responses and keys: a password can be guessed from a response.
    """
    if len(data) < 12:
        raise DecodeError("the NTLM message is cut off")
    kind = int.from_bytes(data[8:12], "little")
    if kind not in _MESSAGES:
        raise DecodeError(f"the NTLM message has the unknown type {kind}")
    name, read = _MESSAGES[kind]
    try:
        return {f"NTLM {name}": read(data, secret)}
    except struct.error:
        raise DecodeError(f"the NTLM {name} message is cut off") from None


def _negotiate(data: bytes, _: Callable[[bytes], str]) -> dict[str, Any]:
    (flags,) = struct.unpack_from("<I", data, 12)
    tree: dict[str, Any] = {"flags": flag_names(_NegotiateFlags, flags)}
    if flags & _NegotiateFlags.OEM_DOMAIN_SUPPLIED:
        tree["domain"] = _piece(data, 16).decode("latin-1")
    if flags & _NegotiateFlags.OEM_WORKSTATION_SUPPLIED:
        tree["workstation"] = _piece(data, 24).decode("latin-1")
    return tree | _version(data, 32, flags)


def _challenge(data: bytes, _: Callable[[bytes], str]) -> dict[str, Any]:
    (flags,) = struct.unpack_from("<I", data, 20)
    tree: dict[str, Any] = {
        "target": _text(_piece(data, 12), flags),
        "flags": flag_names(_NegotiateFlags, flags),
        "server_challenge": data[24:32].hex(),
    }
    if flags & _NegotiateFlags.TARGET_INFO:
        tree["target_info"] = _target_info(_piece(data, 40))
    return tree | _version(data, 48, flags)


def _authenticate(data: bytes, secret: Callable[[bytes], str]) -> dict[str, Any]:
    (flags,) = struct.unpack_from("<I", data, 60)
    nt = _piece(data, 20)
    tree: dict[str, Any] = {
        "domain": _text(_piece(data, 28), flags),
        "user": _text(_piece(data, 36), flags),
        "workstation": _text(_piece(data, 44), flags),
        "flags": flag_names(_NegotiateFlags, flags),
        "lm_response": secret(_piece(data, 12)),
        "nt_response": secret(nt),
        "version of the response": _response_version(nt),
        "encrypted_session_key": secret(_piece(data, 52)),
    }
    if len(nt) > 44:  # NTLMv2: proof (16), then a blob that repeats the target info at 28
        tree["target_info"] = _target_info(nt[44:])
    return tree | _version(data, 64, flags)


def _response_version(nt: bytes) -> str:
    return "none (anonymous)" if not nt else "NTLMv1" if len(nt) == 24 else "NTLMv2"


_MESSAGES: dict[int, tuple[str, Callable[[bytes, Callable[[bytes], str]], dict[str, Any]]]] = {
    1: ("NEGOTIATE", _negotiate),
    2: ("CHALLENGE", _challenge),
    3: ("AUTHENTICATE", _authenticate),
}


def _piece(data: bytes, at: int) -> bytes:
    """Return the payload that the fields at `at` point to: length, maximum, offset."""
    size, _, offset = struct.unpack_from("<HHI", data, at)
    if offset + size > len(data):
        raise DecodeError("a field of the NTLM message points past its end")
    return data[offset : offset + size]


def _text(data: bytes, flags: int) -> str:
    encoding = "utf-16-le" if flags & _NegotiateFlags.UNICODE else "latin-1"
    return data.decode(encoding, "backslashreplace")


def _version(data: bytes, at: int, flags: int) -> dict[str, str]:
    if not flags & _NegotiateFlags.VERSION or len(data) < at + 4:
        return {}
    major, minor, build = struct.unpack_from("<BBH", data, at)
    return {"version": f"{major}.{minor} (build {build})"}


def _target_info(data: bytes) -> dict[str, Any]:
    """Return the AV_PAIRs, up to the end mark or the end of the data."""
    found: dict[str, Any] = {}
    at = 0
    while at + 4 <= len(data) and len(found) < _MAX_PAIRS:
        kind, size = struct.unpack_from("<HH", data, at)
        value = data[at + 4 : at + 4 + size]
        if not kind or len(value) < size:
            break
        at += 4 + size
        found[_PAIRS.get(kind, f"AV_PAIR {kind}")] = _pair(kind, value)
    return found


def _pair(kind: int, value: bytes) -> Any:
    name = _PAIRS.get(kind)
    if name == "Flags":
        return f"0x{int.from_bytes(value, 'little'):x}"
    if name == "Timestamp":
        seconds = int.from_bytes(value, "little") // 10_000_000
        try:
            return FILETIME_EPOCH + timedelta(seconds=seconds)
        except OverflowError:
            return value.hex()
    if name in ("SingleHost", "ChannelBindings") or name is None:
        return value[:64].hex()
    return value.decode("utf-16-le", "backslashreplace")
