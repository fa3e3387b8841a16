"""Reading authorization data: what is inside AD-IF-RELEVANT, and what must be understood. Source: RFC 4120 5.2.6."""

from __future__ import annotations

from collections.abc import Iterator

from purekrb.constants import AuthDataType
from purekrb.errors import DecodeError, ProtocolError
from purekrb.messages.ap import AuthorizationData, AuthorizationDataEntry, EtypeList

__all__ = ["check_critical", "relevant_entries", "etype_list", "wrap_if_relevant"]

#: Elements that an application server may meet outside AD-IF-RELEVANT without having to refuse the ticket.
_KNOWN = frozenset(
    {
        AuthDataType.IF_RELEVANT,
        AuthDataType.KDC_ISSUED,
        AuthDataType.MANDATORY_FOR_KDC,
        AuthDataType.INITIAL_VERIFIED_CAS,
        AuthDataType.CAMMAC,
        AuthDataType.AUTHENTICATION_INDICATOR,
        AuthDataType.WIN2K_PAC,
        AuthDataType.ETYPE_NEGOTIATION,
        AuthDataType.TOKEN_RESTRICTIONS,
        AuthDataType.LOCAL,
        AuthDataType.AP_OPTIONS,
        AuthDataType.CLIENT_TARGET,
    }
)
_MAX_DEPTH = 8


def check_critical(entries: tuple[AuthorizationDataEntry, ...] | None) -> None:
    """Raise ProtocolError for a critical element that purekrb does not understand. Source: RFC 4120 5.2.6."""
    for entry in entries or ():
        if entry.ad_type not in _KNOWN:
            raise ProtocolError(
                "the authorization data hold a critical restriction that purekrb does not understand",
                got=f"ad-type {entry.ad_type}",
            )


def relevant_entries(
    entries: tuple[AuthorizationDataEntry, ...] | None, depth: int = 0
) -> Iterator[AuthorizationDataEntry]:
    """Yield all elements, those inside AD-IF-RELEVANT in place of it. Raises DecodeError for malformed or deep ones."""
    if depth > _MAX_DEPTH:
        raise DecodeError(f"AD-IF-RELEVANT is nested deeper than {_MAX_DEPTH} levels")
    for entry in entries or ():
        if entry.ad_type == AuthDataType.IF_RELEVANT:
            yield from relevant_entries(AuthorizationData.decode(entry.ad_data).entries, depth + 1)
        else:
            yield entry


def etype_list(entries: tuple[AuthorizationDataEntry, ...]) -> tuple[int, ...]:
    """Return the etypes of the initiator's EtypeList, or () where it sent none. Source: RFC 4537 3."""
    for entry in entries:
        if entry.ad_type == AuthDataType.ETYPE_NEGOTIATION:
            return EtypeList.decode(entry.ad_data).entries
    return ()


def wrap_if_relevant(*entries: AuthorizationDataEntry) -> AuthorizationDataEntry:
    """Return `entries` inside one AD-IF-RELEVANT."""
    return AuthorizationDataEntry(AuthDataType.IF_RELEVANT, AuthorizationData(entries).encode())
