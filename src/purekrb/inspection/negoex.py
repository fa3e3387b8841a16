"""NEGOEX messages as trees. purekrb refuses NEGOEX; this names what a peer sent.

Source: MS-NEGOEX 2.2.6.
"""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

from purekrb.errors import DecodeError

__all__ = ["SIGNATURE", "describe"]

SIGNATURE = b"NEGOEXTS"
_TYPES = (
    "INITIATOR_NEGO",
    "ACCEPTOR_NEGO",
    "INITIATOR_META_DATA",
    "ACCEPTOR_META_DATA",
    "CHALLENGE",
    "AP_REQUEST",
    "VERIFY",
    "ALERT",
)
#: The schemes of PKU2U and of Microsoft's accounts.
_SCHEMES = {
    UUID("235f69ad-73fb-4dbc-8203-0629e739339b"): "PKU2U",
    UUID("0d53335c-f9ea-4d0d-b2ec-4ae3786ec308"): "PKU2U (Windows)",
    UUID("7bb65d38-d6a5-4b6e-8b53-0e2a6e1ad0f7"): "LiveSSP",
}
_HEADER = struct.Struct("<8sIIII16s")


def describe(data: bytes) -> dict[str, Any]:
    """Return the tree of the messages in a NEGOEX token. Raises DecodeError."""
    found = []
    while data:
        if len(data) < _HEADER.size or not data.startswith(SIGNATURE):
            raise DecodeError("the NEGOEX message is cut off, or something else follows it")
        _, kind, number, _, size, conversation = _HEADER.unpack_from(data)
        if not _HEADER.size <= size <= len(data):
            raise DecodeError("the NEGOEX message is cut off")
        message: dict[str, Any] = {
            "type": _TYPES[kind] if kind < len(_TYPES) else kind,
            "sequence_number": number,
            "conversation": str(UUID(bytes_le=conversation)),
        }
        if kind > 1 and size >= _HEADER.size + 16:
            scheme = UUID(bytes_le=data[_HEADER.size : _HEADER.size + 16])
            message["scheme"] = _SCHEMES.get(scheme, str(scheme))
        found.append(message)
        data = data[size:]
    return {"NEGOEX messages": found}
