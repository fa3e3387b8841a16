"""A Kerberos provider for pyspnego, in pure Python.

    import purekrb.compat
    purekrb.compat.install("spnego")
    context = spnego.client(hostname="web.example.test", service="HTTP", protocol="kerberos")

It takes the place of pyspnego's GSSAPIProxy, which needs the C bindings gssapi and krb5: for
"kerberos", and for the Kerberos inside of pyspnego's own "negotiate". Programs that use pyspnego
(requests-kerberos, pypsrp, smbprotocol) run unchanged. Credentials, caches and keytabs are those of
`purekrb.compat.gssapi`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import spnego._gss
import spnego._negotiate
import spnego.auth
from spnego import (
    ContextProxy,
    ContextReq,
    CredentialCache,
    IOVUnwrapResult,
    IOVWrapResult,
    KerberosCCache,
    KerberosKeytab,
    NegotiateOptions,
    Password,
    UnwrapResult,
    WinRMWrapResult,
    WrapResult,
)
from spnego._context import SecPkgContextSizes
from spnego._credential import unify_credentials
from spnego.exceptions import InvalidCredentialError, NoContextError, SpnegoError
from spnego.iov import BufferType, IOVBuffer, IOVResBuffer

from purekrb.compat import gssapi
from purekrb.compat._winrm import split
from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status, _stores, raw
from purekrb.compat.gssapi.raw.creds import from_credential
from purekrb.compat.gssapi.raw.message import QoP
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab
from purekrb.errors import CredentialError, KerberosError
from purekrb.names import Principal
from purekrb.tracebacks import forget_frames

__all__ = ["KerberosProxy", "provide"]

F = TypeVar("F", bound=Callable[..., Any])

_KERBEROS = gssapi.MechType.kerberos
#: GSS_C_INQ_SSPI_SESSION_KEY and GSS_KRB5_CRED_NO_CI_FLAGS_X, from MIT's gssapi_ext.h.
_SESSION_KEY = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2.5.5")
_NO_CI_FLAGS = gssapi.OID.from_int_seq("1.2.752.43.13.29")

#: pyspnego's requirements that are flags of GSS-API, and these flags.
_FLAGS = tuple(
    (requirement, getattr(gssapi.RequirementFlag, name))
    for requirement, name in (
        (ContextReq.delegate, "delegate_to_peer"),
        (ContextReq.mutual_auth, "mutual_authentication"),
        (ContextReq.replay_detect, "replay_detection"),
        (ContextReq.sequence_detect, "out_of_sequence_detection"),
        (ContextReq.confidentiality, "confidentiality"),
        (ContextReq.integrity, "integrity"),
        (ContextReq.dce_style, "dce_style"),
        (ContextReq.identify, "identify"),
        (ContextReq.delegate_policy, "ok_as_delegate"),
    )
)
#: The types of buffers that a call fills if they come without data.
_FILLED = (BufferType.header, BufferType.padding, BufferType.trailer)


def _told(doing: str) -> Callable[[F], F]:
    """Return a decorator: errors become SpnegoErrors that say what was being done."""

    def decorate(function: F) -> F:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except raw.GSSError as error:
                raise SpnegoError(base_error=error, context_msg=doing) from error
            except KerberosError as error:
                native = _status.gss_error(error)
                raise SpnegoError(base_error=native, context_msg=doing) from error

        return wrapper  # type: ignore[return-value]

    return decorate


class KerberosProxy(ContextProxy):
    """One context of pyspnego: a client's (`usage` "initiate") or a server's ("accept").

    The arguments are those of `spnego.client` and `spnego.server`.
    """

    @forget_frames
    def __init__(
        self,
        username: Any = None,
        password: str | None = None,
        hostname: str | None = None,
        service: str | None = None,
        channel_bindings: Any = None,
        context_req: ContextReq = ContextReq.default,
        usage: str = "initiate",
        protocol: str = "kerberos",
        options: NegotiateOptions = NegotiateOptions.none,
        **kwargs: Any,
    ) -> None:
        if not spnego._gss.HAS_GSSAPI:
            # Only someone who wants to be without it has set this: see `provide`.
            raise ImportError("GSSAPIProxy requires the Python gssapi library: it is switched off")
        credentials = unify_credentials(username, password)
        super().__init__(
            credentials, hostname, service, channel_bindings, context_req, usage, protocol, options
        )
        creds = kwargs.get("_gssapi_credential") or _acquire(self.usage, credentials, context_req)
        if self.usage == "initiate" and context_req & ContextReq.no_integrity:
            creds = creds or gssapi.Credentials(usage="initiate", mechs=[_KERBEROS])
            raw.set_cred_option(_NO_CI_FLAGS, creds)
        self._credential = creds
        self._context: gssapi.SecurityContext | None = None

    @classmethod
    def available_protocols(cls, options: NegotiateOptions | None = None) -> list[str]:
        """Return what this provider has: Kerberos."""
        return ["kerberos"]

    @classmethod
    def iov_available(cls) -> bool:
        """Return True: `wrap_iov` and `unwrap_iov` work."""
        return True

    @property
    def client_principal(self) -> str | None:
        """The client's principal, at a server whose context is complete."""
        if self.usage == "initiate" or self._context is None or not self._context.complete:
            return None
        return str(self._context.initiator_name)

    @property
    def complete(self) -> bool:
        """Whether the context is established."""
        return self._context is not None and self._context.complete

    @property
    def negotiated_protocol(self) -> str:
        """ "kerberos"."""
        return "kerberos"

    @property
    @_told("Retrieving session key")
    def session_key(self) -> bytes:
        """The key of the context."""
        context = self._begun("Retrieving session key failed as no context was initialized")
        key: bytes = raw.inquire_sec_context_by_oid(context, _SESSION_KEY)[0]
        return key

    def new_context(self) -> KerberosProxy:
        """Return a new context with the same credential and options."""
        return type(self)(
            hostname=self._hostname,
            service=self._service,
            channel_bindings=self.channel_bindings,
            context_req=self.context_req,
            usage=self.usage,
            protocol=self.protocol,
            options=self.options,
            _gssapi_credential=self._credential,
        )

    @_told("Processing security token")
    def step(self, in_token: bytes | None = None, *, channel_bindings: Any = None) -> bytes | None:
        """Take the peer's token and return the next one, or None."""
        if self._context is None:
            self._context = self._begin(channel_bindings or self.channel_bindings)
        out_token: bytes | None = self._context.step(in_token)
        self._context_attr = int(self._context.actual_flags)
        return out_token

    def _begin(self, bindings: Any) -> gssapi.SecurityContext:
        options: dict[str, Any] = {}
        if bindings:
            options["channel_bindings"] = raw.ChannelBindings(
                bindings.initiator_addrtype,
                bindings.initiator_address,
                bindings.acceptor_addrtype,
                bindings.acceptor_address,
                bindings.application_data,
            )
        if self.usage == "initiate":
            target = f"{self._service or 'host'}@{self._hostname or 'unspecified'}"
            options["name"] = gssapi.Name(target, gssapi.NameType.hostbased_service)
            options["mech"] = _KERBEROS
            options["flags"] = self._context_req
        return gssapi.SecurityContext(creds=self._credential, usage=self.usage, **options)

    def _begun(self, refusal: str) -> gssapi.SecurityContext:
        if self._context is None:
            raise NoContextError(context_msg=refusal)
        return self._context

    @_told("Getting context sizes")
    def query_message_sizes(self) -> SecPkgContextSizes:
        """Return the size of the header of a sealed message."""
        context = self._begun("Cannot get message sizes until context has been established")
        iov = raw.IOV(raw.IOVBufferType.header, b"", std_layout=False)
        raw.wrap_iov_length(context, iov)
        return SecPkgContextSizes(header=len(iov[0].value or b""))

    @_told("Wrapping data")
    def wrap(self, data: bytes, encrypt: bool = True, qop: int | None = None) -> WrapResult:
        """Return a token with `data`."""
        result = raw.wrap(self._begun(_NO_WRAP), data, encrypt, qop)
        return WrapResult(result.message, result.encrypted)

    @_told("Wrapping IOV buffer")
    def wrap_iov(
        self, iov: Iterable[Any], encrypt: bool = True, qop: int | None = None
    ) -> IOVWrapResult:
        """Return the buffers with a token in them."""
        context = self._begun(_NO_WRAP)
        message = self._message(iov)
        encrypted = raw.wrap_iov(context, message, encrypt, qop)
        return IOVWrapResult(_buffers(message), encrypted)

    @_told("Wrapping data")
    def wrap_winrm(self, data: bytes) -> WinRMWrapResult:
        """Return a sealed message in two parts."""
        token = raw.wrap(self._begun(_NO_WRAP), data, True, None).message
        return WinRMWrapResult(*split(token, len(data)))

    @_told("Unwrapping data")
    def unwrap(self, data: bytes) -> UnwrapResult:
        """Return the data of a token, and whether they were encrypted."""
        result = raw.unwrap(self._begun(_NO_UNWRAP), data)
        return UnwrapResult(result.message, result.encrypted, result.qop)

    @_told("Unwrapping IOV buffer")
    def unwrap_iov(self, iov: Iterable[Any]) -> IOVUnwrapResult:
        """Return the buffers with the data in clear."""
        context = self._begun(_NO_UNWRAP)
        message = self._message(iov)
        result = raw.unwrap_iov(context, message)
        return IOVUnwrapResult(_buffers(message), result.encrypted, result.qop)

    def unwrap_winrm(self, header: bytes, data: bytes) -> bytes:
        """Return the data of a sealed message in two parts. One that is only signed is refused."""
        result = self.unwrap(header + data)
        if not result.encrypted:
            refusal = _status.status(codes.FAILURE, 0, "the message is only signed, not encrypted")
            raise SpnegoError(base_error=refusal, context_msg="Unwrapping data")
        return bytes(result.data)

    @_told("Signing message")
    def sign(self, data: bytes, qop: int | None = None) -> bytes:
        """Return the signature of `data`."""
        context = self._begun("Cannot sign until context has been established")
        return raw.get_mic(context, data, qop)

    @_told("Verifying message")
    def verify(self, data: bytes, mic: bytes) -> QoP:
        """Raise unless `mic` is the peer's signature of `data`; return its QoP, 0."""
        context = self._begun("Cannot verify until context has been established")
        return raw.verify_mic(context, data, mic)

    @property
    def _context_attr_map(self) -> list[tuple[ContextReq, int]]:
        return list(_FLAGS)

    def _message(self, iov: Iterable[Any]) -> raw.IOV:
        return raw.IOV(*self._build_iov_list(iov, self._convert_iov_buffer), std_layout=False)

    def _convert_iov_buffer(self, buffer: IOVBuffer) -> raw.IOVBuffer:
        kind, content = buffer
        fills, value = False, None
        if isinstance(content, bool):
            fills = content
        elif isinstance(content, int):
            value = bytes(content)
        elif content is not None:
            value = content
        else:
            fills = kind in _FILLED
        if kind == BufferType.data_readonly:  # on Windows alone: neither sealed nor signed
            kind = BufferType.empty
        return raw.IOVBuffer(raw.IOVBufferType(kind), fills, value)


_NO_WRAP = "Cannot wrap until context has been established"
_NO_UNWRAP = "Cannot unwrap until context has been established"


def _buffers(message: raw.IOV) -> tuple[IOVResBuffer, ...]:
    return tuple(IOVResBuffer(BufferType(kind), value) for kind, _, value in message)


@_told("Getting Kerberos credential")
def _acquire(usage: str, credentials: list[Any], requirements: ContextReq) -> Any:
    """Return the first of pyspnego's credentials that serves; None for the default one.

    A password or a keytab asks the KDC now, as pyspnego expects: if it fails, "negotiate" goes on
    with the next mechanism. Raises InvalidCredentialError if none serves.
    """
    forwardable = bool(requirements & (ContextReq.delegate | ContextReq.delegate_policy)) or None
    for given in credentials:
        if isinstance(given, CredentialCache):
            if not given.username:
                # At the first step, the target helps to find the credential.
                return None if usage == "initiate" else gssapi.Credentials(usage=usage)
            kind = "user" if usage == "initiate" else "hostbased_service"
            name = gssapi.Name(given.username, getattr(gssapi.NameType, kind))
            creds = gssapi.Credentials(name=name, usage=usage, mechs=[_KERBEROS])
            _ = creds.lifetime  # raises for an expired one
            return creds
        make = _MAKERS.get(type(given))
        if make is not None and usage == "initiate":
            return make(given, forwardable)
    raise InvalidCredentialError(context_msg="No applicable credentials available")


def _from_ccache(given: KerberosCCache, _forwardable: bool | None) -> raw.Creds:
    name = gssapi.Name(given.principal, gssapi.NameType.user) if given.principal else None
    store: dict[str | bytes, str | bytes] = {"ccache": given.ccache}
    found = raw.acquire_cred_from(store, name=name, mechs=[_KERBEROS], usage="initiate")
    creds: raw.Creds = found.creds
    return creds


def _from_keytab(given: KerberosKeytab, forwardable: bool | None) -> raw.Creds:
    keytab = Keytab.load(given.keytab)
    if given.principal:
        principal = _principal(given.principal)
    elif keytab.principals:
        principal = keytab.principals[0]
    else:
        raise CredentialError(f"the keytab {given.keytab} is empty")
    return _with_tgt(Credential.from_keytab(principal, keytab), forwardable)


def _from_password(given: Password, forwardable: bool | None) -> raw.Creds:
    # pyspnego keeps what is no text in a machine's password as surrogates, which count as U+FFFD.
    password = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in given.password)
    return _with_tgt(Credential.from_password(_principal(given.username), password), forwardable)


_MAKERS: dict[type, Callable[[Any, bool | None], raw.Creds]] = {
    KerberosCCache: _from_ccache,
    KerberosKeytab: _from_keytab,
    Password: _from_password,
}


def _with_tgt(credential: Credential, forwardable: bool | None) -> raw.Creds:
    _stores.client().get_tgt(credential, forwardable=forwardable)
    return from_credential(credential)


def _principal(name: str) -> Principal:
    r"""Return the principal of alice@REALM, alice, or DOMAIN\alice."""
    domain, backslash, user = name.rpartition("\\")
    default = _stores.default_realm()
    if not backslash:
        principal = Principal.parse(name)
        return principal if principal.realm else Principal.parse(name, default)
    realm = domain.upper()
    if "." not in realm and realm not in _stores.config().realms:
        realm = default  # a NetBIOS name, which says nothing of the realm's
    return Principal((user,), realm)


def provide() -> None:
    """Put `KerberosProxy` in the place of pyspnego's GSSAPIProxy."""
    for module in (spnego._gss, spnego._negotiate, spnego.auth):
        vars(module)["GSSAPIProxy"] = KerberosProxy
    spnego._gss.HAS_GSSAPI = True
