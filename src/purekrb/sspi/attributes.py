"""The attributes of QueryContextAttributes: one function for each, in the shapes of pywin32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purekrb import crypto
from purekrb.constants import ChecksumType, Flag
from purekrb.exchanges.identity import ClientIdentity
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.context import SecurityContext
from purekrb.gss.initiator import Initiator
from purekrb.keys import etype_name
from purekrb.names import Principal
from purekrb.sspi import constants as c
from purekrb.sspi.credentials import package_info
from purekrb.sspi.messages import sizes
from purekrb.sspi.status import RefusedError

__all__ = ["FLAGS", "query", "returned_flags"]

#: The flags of GSS-API, with their values in ISC_REQ_ and ISC_RET_, and in ASC_REQ_ and ASC_RET_.
FLAGS = (
    (Flag.DELEG, c.ISC_RET_DELEGATE, c.ASC_RET_DELEGATE),
    (Flag.MUTUAL, c.ISC_RET_MUTUAL_AUTH, c.ASC_RET_MUTUAL_AUTH),
    (Flag.REPLAY, c.ISC_RET_REPLAY_DETECT, c.ASC_RET_REPLAY_DETECT),
    (Flag.SEQUENCE, c.ISC_RET_SEQUENCE_DETECT, c.ASC_RET_SEQUENCE_DETECT),
    (Flag.CONF, c.ISC_RET_CONFIDENTIALITY, c.ASC_RET_CONFIDENTIALITY),
    (Flag.INTEG, c.ISC_RET_INTEGRITY, c.ASC_RET_INTEGRITY),
    (Flag.DCE_STYLE, c.ISC_RET_USED_DCE_STYLE, c.ASC_RET_USED_DCE_STYLE),
    (Flag.IDENTIFY, c.ISC_RET_IDENTIFY, c.ASC_RET_IDENTIFY),
    (Flag.EXTENDED_ERROR, c.ISC_RET_EXTENDED_ERROR, c.ASC_RET_EXTENDED_ERROR),
)


def returned_flags(context: SecurityContext) -> int:
    """Return the ISC_RET_ or ASC_RET_ flags of an established context."""
    flags = context.flags
    initiator = isinstance(context, Initiator)
    by_tgt = isinstance(context, Initiator | Acceptor) and context.user_to_user
    # ASC_RET_USE_SESSION_KEY has the same value.
    extra = c.ISC_RET_USE_SESSION_KEY if by_tgt else 0
    anonymous = c.ASC_RET_NULL_SESSION if isinstance(context, Acceptor) and context.anonymous else 0
    return (
        extra
        | anonymous
        | sum(isc if initiator else asc for flag, isc, asc in FLAGS if flags & flag)
    )


def query(context: SecurityContext, attribute: int, target: str) -> Any:
    """Return one attribute of an established context; `target` is the initiator's target name."""
    answer = _ATTRIBUTES.get(attribute)
    if answer is None:
        raise RefusedError(
            c.SEC_E_UNSUPPORTED_FUNCTION, f"Kerberos contexts have no attribute {attribute}"
        )
    return answer(context, target)


def _client(context: SecurityContext, _target: str) -> ClientIdentity | Principal:
    """Return the client's identity; for a service, including the content of the PAC."""
    return context.identity if isinstance(context, Acceptor) else context.initiator


def _lifespan(context: SecurityContext, _target: str) -> tuple[Any, Any]:
    return context.starttime, context.endtime


def _key_info(context: SecurityContext, _target: str) -> dict[str, Any]:
    profile = crypto.profile_of(context.etype)
    signature = ChecksumType(profile.checksum_type).name
    return {
        "SignatureAlgorithmName": signature.lower().replace("_", "-"),
        "EncryptAlgorithmName": etype_name(context.etype),
        "KeySize": 8 * profile.key_size,
        "SignatureAlgorithm": profile.checksum_type,
        "EncryptAlgorithm": int(context.etype),
    }


def _native_names(context: SecurityContext, _target: str) -> tuple[str, str]:
    return str(context.initiator), str(context.acceptor)


def _spn(context: SecurityContext) -> str:
    return "/".join(context.acceptor.components)  # nothing is quoted


def _target_information(context: SecurityContext, target: str) -> str:
    return target or _spn(context)


def _client_specified_target(context: SecurityContext, _target: str) -> str:
    if not isinstance(context, Acceptor):
        raise RefusedError(
            c.SEC_E_UNSUPPORTED_FUNCTION, "CLIENT_SPECIFIED_TARGET is for services to ask"
        )
    said = context.client_target
    if said is None:  # there is no substitute for the client's own statement
        raise RefusedError(
            c.SEC_E_TARGET_UNKNOWN, "the client did not say which service it asked for"
        )
    return said.removesuffix(f"@{context.acceptor.realm}")  # an SPN has no realm


_ATTRIBUTES: dict[int, Callable[[SecurityContext, str], Any]] = {
    c.SECPKG_ATTR_SIZES: lambda context, _: sizes(context),
    c.SECPKG_ATTR_NAMES: lambda *of: str(_client(*of)),
    c.SECPKG_ATTR_LIFESPAN: _lifespan,
    c.SECPKG_ATTR_KEY_INFO: _key_info,
    c.SECPKG_ATTR_SESSION_KEY: lambda context, _: context.session_key.contents,
    c.SECPKG_ATTR_PACKAGE_INFO: lambda context, _: package_info("Kerberos").copy(),
    c.SECPKG_ATTR_NEGOTIATION_INFO: lambda *_: (
        c.SECPKG_NEGOTIATION_COMPLETE,
        package_info("Kerberos").copy(),
    ),
    c.SECPKG_ATTR_NATIVE_NAMES: _native_names,
    c.SECPKG_ATTR_FLAGS: lambda context, _: returned_flags(context),
    c.SECPKG_ATTR_TARGET_INFORMATION: _target_information,
    c.SECPKG_ATTR_ACCESS_TOKEN: _client,
    c.SECPKG_ATTR_CLIENT_SPECIFIED_TARGET: _client_specified_target,
    c.SECPKG_ATTR_LAST_CLIENT_TOKEN_STATUS: lambda *_: c.SecPkgAttrLastClientTokenYes,
}
