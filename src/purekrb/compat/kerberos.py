"""pykerberos's and winkerberos's functions over purekrb.

    import purekrb.compat
    purekrb.compat.install("kerberos")  # or "winkerberos": the same functions
    import kerberos

Names, results and errors are those of the modules kerberos 1.3, pykerberos 1.2.4 and winkerberos
0.13. Credentials, caches and keytabs are those of GSS-API: see `purekrb.compat.gssapi`. Tokens and
data are base64 text, as there; WinRM's messages are bytes. A refused argument raises a subclass of
`KrbError`, whose arguments are (text, number) pairs.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote

from purekrb.compat import gssapi
from purekrb.compat._winrm import split
from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw.misc import SPNEGO
from purekrb.compat.gssapi.raw.names import principal_of
from purekrb.credentials.credential import Credential
from purekrb.errors import KerberosError
from purekrb.kdc.verification import verify_credentials
from purekrb.names import Principal
from purekrb.tracebacks import forget_frames

__all__ = [
    "AUTH_GSS_COMPLETE",
    "AUTH_GSS_CONTINUE",
    "BasicAuthError",
    "GSSError",
    "GSS_C_AF_APPLETALK",
    "GSS_C_AF_BSC",
    "GSS_C_AF_CCITT",
    "GSS_C_AF_CHAOS",
    "GSS_C_AF_DATAKIT",
    "GSS_C_AF_DECnet",
    "GSS_C_AF_DLI",
    "GSS_C_AF_DSS",
    "GSS_C_AF_ECMA",
    "GSS_C_AF_HYLINK",
    "GSS_C_AF_IMPLINK",
    "GSS_C_AF_INET",
    "GSS_C_AF_LAT",
    "GSS_C_AF_LOCAL",
    "GSS_C_AF_NBS",
    "GSS_C_AF_NS",
    "GSS_C_AF_NULLADDR",
    "GSS_C_AF_OSI",
    "GSS_C_AF_PUP",
    "GSS_C_AF_SNA",
    "GSS_C_AF_UNSPEC",
    "GSS_C_AF_X25",
    "GSS_C_ANON_FLAG",
    "GSS_C_CONF_FLAG",
    "GSS_C_DELEG_FLAG",
    "GSS_C_INTEG_FLAG",
    "GSS_C_MUTUAL_FLAG",
    "GSS_C_PROT_READY_FLAG",
    "GSS_C_REPLAY_FLAG",
    "GSS_C_SEQUENCE_FLAG",
    "GSS_C_TRANS_FLAG",
    "GSS_MECH_OID_KRB5",
    "GSS_MECH_OID_SPNEGO",
    "KrbError",
    "PwdChangeError",
    "authGSSClientClean",
    "authGSSClientInit",
    "authGSSClientInquireCred",
    "authGSSClientResponse",
    "authGSSClientResponseConf",
    "authGSSClientStep",
    "authGSSClientUnwrap",
    "authGSSClientUnwrapIov",
    "authGSSClientUserName",
    "authGSSClientUsername",
    "authGSSClientWrap",
    "authGSSClientWrapIov",
    "authGSSServerCacheName",
    "authGSSServerClean",
    "authGSSServerHasDelegated",
    "authGSSServerInit",
    "authGSSServerResponse",
    "authGSSServerStep",
    "authGSSServerStoreDelegate",
    "authGSSServerTargetName",
    "authGSSServerUserName",
    "authGSSServerUsername",
    "authGSSWinRMDecryptMessage",
    "authGSSWinRMEncryptMessage",
    "changePassword",
    "channelBindings",
    "checkPassword",
    "getServerPrincipalDetails",
]

#: What pymongo reads of winkerberos: from 0.5 on, a principal may hold a password.
__version__ = "0.13.0"

P = ParamSpec("P")
T = TypeVar("T")

AUTH_GSS_COMPLETE, AUTH_GSS_CONTINUE = 1, 0

GSS_C_DELEG_FLAG, GSS_C_MUTUAL_FLAG, GSS_C_REPLAY_FLAG = 1, 2, 4
GSS_C_SEQUENCE_FLAG, GSS_C_CONF_FLAG, GSS_C_INTEG_FLAG = 8, 16, 32
GSS_C_ANON_FLAG, GSS_C_PROT_READY_FLAG, GSS_C_TRANS_FLAG = 64, 128, 256

GSS_MECH_OID_KRB5 = gssapi.MechType.kerberos
GSS_MECH_OID_SPNEGO = SPNEGO

# Types of addresses. Source: RFC 2744 appendix A.
GSS_C_AF_UNSPEC, GSS_C_AF_LOCAL, GSS_C_AF_INET, GSS_C_AF_IMPLINK, GSS_C_AF_PUP = range(5)
GSS_C_AF_CHAOS, GSS_C_AF_NS, GSS_C_AF_NBS, GSS_C_AF_ECMA, GSS_C_AF_DATAKIT = range(5, 10)
GSS_C_AF_CCITT, GSS_C_AF_SNA, GSS_C_AF_DECnet, GSS_C_AF_DLI, GSS_C_AF_LAT = range(10, 15)
GSS_C_AF_HYLINK, GSS_C_AF_APPLETALK, GSS_C_AF_BSC, GSS_C_AF_DSS, GSS_C_AF_OSI = range(15, 20)
GSS_C_AF_X25, GSS_C_AF_NULLADDR = 21, 255


class KrbError(Exception):
    """The base of the errors."""


class BasicAuthError(KrbError):
    """`checkPassword` failed: (text, number)."""


class PwdChangeError(KrbError):
    """`changePassword` failed: (text, number)."""


class GSSError(KrbError):
    """An error of GSS-API: ((text, major code), (text, minor code))."""


class _Context:
    """What the functions of one context share. Made by the two Init functions alone."""

    def __init__(self, *, initiates: bool) -> None:
        self.initiates = initiates
        self.gss: gssapi.SecurityContext | None = None
        self.response: bytes | None = None
        self.encrypted = False
        self.name: Any = None
        self.creds: Any = None
        self.options: dict[str, Any] = {}
        self.cache: str | None = None

    def established(self) -> gssapi.SecurityContext:
        if self.gss is None or not self.gss.complete:
            raise _error(codes.NO_CONTEXT, 0, "the context is not complete: step until it is")
        return self.gss


def _error(major: int, minor: int, reason: str) -> GSSError:
    words = " -- ".join(codes.major_texts(major))
    return GSSError((words, major), (reason, _signed(minor)))


def _signed(minor: int) -> int:
    """Return a minor code as C's programs show it."""
    return minor - (1 << 32) if minor >> 31 else minor


def _gss_function(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` with every error of GSS-API and of purekrb as a GSSError."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except KerberosError as error:
            failed = _status.gss_error(error)
        except gssapi.raw.GSSError as error:
            failed = error
        minor = " -- ".join(failed.get_all_statuses(failed.min_code, False))
        raise _error(failed.maj_code, failed.min_code, minor) from failed

    return wrapper


def _of(context: object, *, initiates: bool | None = None) -> _Context:
    if not isinstance(context, _Context):
        raise TypeError("Expected a context object")
    if initiates is not None and context.initiates is not initiates:
        raise TypeError(f"Expected the context of a {'client' if initiates else 'server'}")
    return context


def _decoded(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _error(codes.DEFECTIVE_TOKEN, 0, "the token is not base64") from None


def _encoded(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode() if data is not None else None


def _service_name(service: str) -> gssapi.Name:
    """Return the name of HTTP@host, HTTP@host@REALM or HTTP/host."""
    kind, at, host = service.partition("@")
    if "/" in kind or not at:
        return gssapi.Name(service, gssapi.NameType.kerberos_principal)
    host, at, realm = host.partition("@")
    if at:
        return gssapi.Name(f"{kind}/{host}@{realm}", gssapi.NameType.kerberos_principal)
    return gssapi.Name(service, gssapi.NameType.hostbased_service)


# -- clients


@forget_frames
@_gss_function
def authGSSClientInit(
    service: str,
    principal: str | None = None,
    gssflags: int = GSS_C_MUTUAL_FLAG | GSS_C_SEQUENCE_FLAG,
    user: str | None = None,
    domain: str | None = None,
    password: str | None = None,
    mech_oid: Any = None,
    delegated: object = None,
) -> tuple[int, _Context]:
    """Return (AUTH_GSS_COMPLETE, a new context with `service`, such as HTTP@web.example.test).

    The client is `principal`, else the one of the default credential cache. As with winkerberos, a
    password may follow it after a colon (both percent-encoded), or be in (`user`, `domain`,
    `password`). `delegated` is a server's context, whose delegated credential is used.
    `mech_oid` is GSS_MECH_OID_KRB5 (the default) or GSS_MECH_OID_SPNEGO.
    """
    context = _Context(initiates=True)
    context.name = _service_name(service)
    if user is None and principal and ":" in principal:
        encoded, _, secret = principal.partition(":")
        user, password = unquote(encoded), unquote(secret)
    if user is not None:
        user, domain = user if not domain else f"{user}@{domain.upper()}", None
        name = gssapi.Name(user, gssapi.NameType.user)
        if password is None:
            context.creds = gssapi.Credentials(name=name, usage="initiate")
        else:
            context.creds = gssapi.raw.acquire_cred_with_password(name, password.encode()).creds
    elif delegated is not None:
        context.creds = _of(delegated, initiates=False).established().delegated_creds
    elif principal:
        name = gssapi.Name(principal, gssapi.NameType.user)
        context.creds = gssapi.Credentials(name=name, usage="initiate")
    context.options = {"flags": int(gssflags), "mech": mech_oid or None}
    return AUTH_GSS_COMPLETE, context


@_gss_function
def authGSSClientStep(
    context: _Context, challenge: str | bytes, channel_bindings: Any = None
) -> int:
    """Take the server's token ("" at first); return AUTH_GSS_COMPLETE or AUTH_GSS_CONTINUE."""
    state = _of(context, initiates=True)
    if state.gss is None:
        state.gss = gssapi.SecurityContext(
            name=state.name,
            creds=state.creds,
            usage="initiate",
            channel_bindings=channel_bindings,
            **state.options,
        )
    return _step(state, challenge)


def _step(state: _Context, challenge: str | bytes) -> int:
    gss, state.response = state.gss, None
    if gss is None or gss.complete:
        raise _error(codes.NO_CONTEXT, 0, "the context is complete: it takes no more tokens")
    state.response = gss.step(_decoded(challenge) if challenge else None)
    return AUTH_GSS_COMPLETE if gss.complete else AUTH_GSS_CONTINUE


def authGSSClientResponse(context: _Context) -> str | None:
    """Return what the last function made: a token to send, or data."""
    return _encoded(_of(context).response)


def authGSSClientResponseConf(context: _Context) -> int:
    """Return 1 if the data that `authGSSClientUnwrap` took last were encrypted, else 0."""
    return int(_of(context).encrypted)


@_gss_function
def authGSSClientUserName(context: _Context) -> str | None:
    """Return the client's principal once the context is complete; until then None."""
    return _agreed_name(_of(context, initiates=True), "initiator_name")


@_gss_function
def authGSSClientInquireCred(context: _Context) -> int:
    """Find out who the client is, before the first step; return AUTH_GSS_COMPLETE."""
    state = _of(context, initiates=True)
    if state.creds is None:
        state.creds = gssapi.Credentials(usage="initiate")
    return AUTH_GSS_COMPLETE


@_gss_function
def authGSSClientUnwrap(context: _Context, challenge: str | bytes) -> int:
    """Take a token with data, for `authGSSClientResponse`; return AUTH_GSS_COMPLETE."""
    state = _of(context)
    state.response, state.encrypted = None, False
    result = state.established().unwrap(_decoded(challenge))
    state.response, state.encrypted = result.message, bool(result.encrypted)
    return AUTH_GSS_COMPLETE


@_gss_function
def authGSSClientWrap(
    context: _Context, data: str | bytes, user: str | None = None, protect: int = 0
) -> int:
    """Make a token of `data`, encrypted if `protect`; return AUTH_GSS_COMPLETE.

    With `user`, `data` are a SASL server's offer, and the token answers it: no security layer, and
    this authorization identity. Source: RFC 4752 3.1.
    """
    state = _of(context)
    state.response = None
    plain = _decoded(data)
    if user is not None:
        if len(plain) < 4:
            raise _error(codes.DEFECTIVE_TOKEN, 0, "a SASL server's offer has 4 octets")
        plain = b"\x01" + plain[1:4] + user.encode()
    state.response = state.established().wrap(plain, bool(protect)).message
    return AUTH_GSS_COMPLETE


@_gss_function
def authGSSClientWrapIov(context: _Context, data: str | bytes, protect: int = 1) -> int:
    """Make a message in parts: a length of 4 bytes, little-endian, the header, the rest."""
    state = _of(context)
    state.response = None
    if not protect:
        raise _status.unavailable("authGSSClientWrapIov", "it has no messages without encryption")
    header, rest = _sealed(state, _decoded(data))
    state.response = len(header).to_bytes(4, "little") + header + rest
    return AUTH_GSS_COMPLETE


@_gss_function
def authGSSClientUnwrapIov(context: _Context, data: str | bytes) -> int:
    """Take a message of `authGSSClientWrapIov`; return AUTH_GSS_COMPLETE."""
    state = _of(context)
    state.response, state.encrypted = None, False
    result = state.established().unwrap(_decoded(data)[4:])
    state.response, state.encrypted = result.message, bool(result.encrypted)
    return AUTH_GSS_COMPLETE


def _agreed_name(state: _Context, name: str) -> str | None:
    gss = state.gss
    return str(getattr(gss, name)) if gss is not None and gss.complete else None


def _sealed(state: _Context, message: bytes) -> tuple[bytes, bytes]:
    header, rest, _ = split(state.established().wrap(message, True).message, len(message))
    return header, rest


@_gss_function
def authGSSWinRMEncryptMessage(context: _Context, message: str | bytes) -> tuple[bytes, bytes]:
    """Return (encrypted message, header) of a message for WinRM. Source: MS-WSMV 2.2.9.1."""
    data = message.encode() if isinstance(message, str) else bytes(message)
    header, rest = _sealed(_of(context), data)
    return rest, header


@_gss_function
def authGSSWinRMDecryptMessage(context: _Context, encrypted_data: bytes, header: bytes) -> bytes:
    """Return the message of WinRM in its two parts. One that is only signed is refused."""
    result = _of(context).established().unwrap(bytes(header) + bytes(encrypted_data))
    if not result.encrypted:
        raise _error(codes.FAILURE, 0, "the message is only signed, not encrypted")
    return result.message


@_gss_function
def authGSSClientClean(context: _Context) -> int:
    """Forget the context, and wipe its keys; return AUTH_GSS_COMPLETE."""
    return _clean(_of(context, initiates=True))


def _clean(state: _Context) -> int:
    if state.gss is not None:
        gssapi.raw.delete_sec_context(state.gss)
    state.gss = state.creds = state.response = None
    return AUTH_GSS_COMPLETE


def channelBindings(
    *,
    initiator_addrtype: int = GSS_C_AF_UNSPEC,
    initiator_address: bytes | None = None,
    acceptor_addrtype: int = GSS_C_AF_UNSPEC,
    acceptor_address: bytes | None = None,
    application_data: bytes | None = None,
) -> Any:
    """Return channel bindings for `authGSSClientStep`."""
    return gssapi.raw.ChannelBindings(
        initiator_address_type=initiator_addrtype,
        initiator_address=initiator_address,
        acceptor_address_type=acceptor_addrtype,
        acceptor_address=acceptor_address,
        application_data=application_data,
    )


# -- servers


@_gss_function
def authGSSServerInit(service: str) -> tuple[int, _Context]:
    """Return (AUTH_GSS_COMPLETE, a new context of `service`); "" is any name in the keytab.

    It accepts Kerberos and SPNEGO, and clients that do not ask for mutual authentication.
    """
    context = _Context(initiates=False)
    name = _service_name(service) if service else None
    context.creds = gssapi.Credentials(name=name, usage="accept")
    return AUTH_GSS_COMPLETE, context


@_gss_function
def authGSSServerStep(context: _Context, challenge: str | bytes) -> int:
    """Take the client's token; return AUTH_GSS_COMPLETE or AUTH_GSS_CONTINUE."""
    state = _of(context, initiates=False)
    if state.gss is None:
        state.gss = gssapi.SecurityContext(creds=state.creds, usage="accept")
    return _step(state, challenge)


authGSSServerResponse = authGSSClientResponse


@_gss_function
def authGSSServerUserName(context: _Context) -> str | None:
    """Return the client's principal once the context is complete; until then None."""
    return _agreed_name(_of(context, initiates=False), "initiator_name")


@_gss_function
def authGSSServerTargetName(context: _Context) -> str | None:
    """Return the service's principal once the context is complete; until then None."""
    return _agreed_name(_of(context, initiates=False), "target_name")


@_gss_function
def authGSSServerHasDelegated(context: _Context) -> bool:
    """Return whether the client has delegated its TGT."""
    return _of(context, initiates=False).established().delegated_creds is not None


@_gss_function
def authGSSServerStoreDelegate(context: _Context) -> int:
    """Write the delegated TGT to a new credential cache, which `authGSSServerCacheName` names.

    The file is in the directory for temporary files, and the caller's to remove.
    """
    state = _of(context, initiates=False)
    creds = state.established().delegated_creds
    if creds is None:
        raise _error(codes.NO_CRED, 0, "the client has delegated no credential")
    descriptor, path = tempfile.mkstemp(prefix="krb5cc_pyserv_")
    os.close(descriptor)
    os.unlink(path)  # the cache is written as a new file of mode 0600
    gssapi.raw.store_cred_into({"ccache": f"FILE:{path}"}, creds, usage="initiate", overwrite=True)
    state.cache = f"FILE:{path}"
    return AUTH_GSS_COMPLETE


def authGSSServerCacheName(context: _Context) -> str | None:
    """Return the name of the cache that `authGSSServerStoreDelegate` has written, or None."""
    return _of(context, initiates=False).cache


@_gss_function
def authGSSServerClean(context: _Context) -> int:
    """Forget the context, and wipe its keys; return AUTH_GSS_COMPLETE."""
    return _clean(_of(context, initiates=False))


#: winkerberos's spelling.
authGSSClientUsername = authGSSClientUserName
authGSSServerUsername = authGSSServerUserName


# -- passwords and names


def _user(user: str, realm: str) -> Principal:
    principal = Principal.parse(user)
    if principal.realm:
        return principal
    return Principal.parse(user, realm or _stores.default_realm())


def _pair(error: KerberosError) -> tuple[str, int]:
    return str(error), _signed(_status.gss_error(error).min_code)


@forget_frames
def checkPassword(
    user: str, pswd: str, service: str, default_realm: str, verify: bool = True
) -> bool:
    """Return True if the KDC confirms the password. Raises BasicAuthError.

    With `verify`, the KDC has to know the key of `service` in the default keytab as well: an
    impostor of the KDC would confirm any password.
    """
    try:
        credential = Credential.from_password(_user(user, default_realm), pswd)
        if verify:
            keytab = _stores.keytab_in(_stores.default_keytab_name())
            target = principal_of(_service_name(service)) if service else None
            verify_credentials(credential, keytab, service=target, config=_stores.config())
        else:
            _stores.client().get_tgt(credential)
    except KerberosError as error:
        raise BasicAuthError(*_pair(error)) from error
    return True


@forget_frames
def changePassword(user: str, oldpswd: str, newpswd: str) -> bool:
    """Change a password at the KDC; return True. Raises PwdChangeError."""
    try:
        credential = Credential.from_password(_user(user, ""), oldpswd)
        _stores.client().change_password(credential, newpswd)
    except KerberosError as error:
        raise PwdChangeError(*_pair(error)) from error
    return True


def getServerPrincipalDetails(service: str, hostname: str) -> str:
    """Return the principal of the service on the host in the default keytab. Raises KrbError."""
    try:
        keytab = _stores.keytab_in(_stores.default_keytab_name())
    except KerberosError as error:
        raise KrbError(_pair(error)) from error
    for principal in keytab.principals:
        name, *host = principal.components
        if name == service and [part.lower() for part in host] == [hostname.lower()]:
            return str(principal)
    raise KrbError((f"the keytab has no key of {service}/{hostname}", -1))
