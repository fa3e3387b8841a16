"""Reading authorization data: the contents of AD-IF-RELEVANT, and critical elements.

Source: RFC 4120 5.2.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from purekrb.constants import KERB_AP_OPTIONS_CBT, AuthDataType
from purekrb.errors import DecodeError, ProtocolError
from purekrb.messages.ap import AuthorizationData, AuthorizationDataEntry, EtypeList

__all__ = [
    "check_critical",
    "is_bindings_aware",
    "read_client_target",
    "read_relevant",
    "relevant_entries",
    "wrap_if_relevant",
]

#: Elements outside AD-IF-RELEVANT for which an application server need not refuse the ticket.
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
    """Raise ProtocolError for a critical element that purekrb does not understand.

    Source: RFC 4120 5.2.6.
    """
    for entry in entries or ():
        if entry.ad_type not in _KNOWN:
            raise ProtocolError(
                "the authorization data hold a critical restriction "
                "that purekrb does not understand",
                got=f"ad-type {entry.ad_type}",
            )


@lru_cache(maxsize=64)  # each program sends the same elements again and again
def read_relevant(
    entries: tuple[AuthorizationDataEntry, ...] | None,
) -> tuple[tuple[AuthorizationDataEntry, ...], tuple[int, ...]]:
    """Return an authenticator's elements, and the etypes of its EtypeList or ().

    An AD-IF-RELEVANT is replaced by its contents. Raises DecodeError for malformed or deeply nested
    elements. Source: RFC 4537 3.
    """
    relevant = tuple(relevant_entries(entries))
    for entry in relevant:
        if entry.ad_type == AuthDataType.ETYPE_NEGOTIATION:
            return relevant, EtypeList.decode(entry.ad_data).entries
    return relevant, ()


@lru_cache(maxsize=64)
def is_bindings_aware(relevant: tuple[AuthorizationDataEntry, ...]) -> bool:
    """Return whether the elements of `read_relevant` say that the client knows channel bindings.

    Raises ProtocolError for a malformed or repeated element. Source: MS-KILE 3.2.5.8.
    """
    options = [entry.ad_data for entry in relevant if entry.ad_type == AuthDataType.AP_OPTIONS]
    if not options:
        return False
    if len(options) > 1 or len(options[0]) != 4:
        raise ProtocolError(
            "AD-AP-OPTIONS must occur once and have 4 bytes", got=[len(data) for data in options]
        )
    return bool(int.from_bytes(options[0], "little") & KERB_AP_OPTIONS_CBT)


def read_client_target(relevant: tuple[AuthorizationDataEntry, ...]) -> str | None:
    """Return the name of the service that the client says it asked for, or None.

    Raises ProtocolError for a malformed or repeated element. Source: MS-KILE 3.2.5.8.
    """
    names = [entry.ad_data for entry in relevant if entry.ad_type == AuthDataType.CLIENT_TARGET]
    if not names:
        return None
    try:
        (name,) = names
        return name.decode("utf-16-le")
    except ValueError:  # there are several, or the bytes are not UTF-16
        raise ProtocolError(
            "the client's target must occur once and be UTF-16", got=[len(name) for name in names]
        ) from None


def relevant_entries(
    entries: tuple[AuthorizationDataEntry, ...] | None, depth: int = 0
) -> Iterator[AuthorizationDataEntry]:
    """Yield all elements; an AD-IF-RELEVANT is replaced by its contents.

    Raises DecodeError for malformed or deeply nested elements. Source: RFC 4120 5.2.6.1.
    """
    if depth > _MAX_DEPTH:
        raise DecodeError(f"AD-IF-RELEVANT is nested deeper than {_MAX_DEPTH} levels")
    for entry in entries or ():
        if entry.ad_type == AuthDataType.IF_RELEVANT:
            yield from relevant_entries(AuthorizationData.decode(entry.ad_data).entries, depth + 1)
        else:
            yield entry


def wrap_if_relevant(*entries: AuthorizationDataEntry) -> AuthorizationDataEntry:
    """Return `entries` inside one AD-IF-RELEVANT."""
    return AuthorizationDataEntry(AuthDataType.IF_RELEVANT, AuthorizationData(entries).encode())
