"""Security packages, and handles to the credentials of clients and services."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypedDict

from purekrb.constants import NameType
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab
from purekrb.errors import CredentialError
from purekrb.gss.context import MAX_TOKEN
from purekrb.krb5conf.config import Config
from purekrb.krb5conf.spelling import fitting_realm
from purekrb.names import Principal
from purekrb.spn import target_principal
from purekrb.sspi.constants import (
    RPC_C_AUTHN_GSS_KERBEROS,
    RPC_C_AUTHN_GSS_NEGOTIATE,
    SEC_E_INVALID_HANDLE,
    SEC_E_NO_CREDENTIALS,
    SEC_E_SECPKG_NOT_FOUND,
    SEC_E_UNKNOWN_CREDENTIALS,
    SEC_E_UNSUPPORTED_FUNCTION,
    SECPKG_CRED_ATTR_NAMES,
    SECPKG_CRED_BOTH,
    SECPKG_CRED_INBOUND,
    SECPKG_CRED_OUTBOUND,
    SECPKG_FLAG_CONNECTION,
    SECPKG_FLAG_DELEGATION,
    SECPKG_FLAG_EXTENDED_ERROR,
    SECPKG_FLAG_GSS_COMPATIBLE,
    SECPKG_FLAG_IMPERSONATION,
    SECPKG_FLAG_INTEGRITY,
    SECPKG_FLAG_MUTUAL_AUTH,
    SECPKG_FLAG_NEGOTIABLE,
    SECPKG_FLAG_PRIVACY,
    SECPKG_FLAG_READONLY_WITH_CHECKSUM,
)
from purekrb.sspi.status import Phase, RefusedError, sspi_function
from purekrb.tracebacks import forget_frames

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.replay import ReplayCache

__all__ = [
    "AcquireCredentialsHandle",
    "CredHandle",
    "FreeCredentialsHandle",
    "Impersonation",
    "QueryCredentialsAttributes",
    "QuerySecurityPackageInfo",
    "SecPkgInfo",
    "ServiceOptions",
    "client_credential",
    "has_keys",
    "impersonation",
    "mechanism",
    "own_credential",
    "package_info",
    "service_keytab",
    "set_default_credential",
]

#: The expiry of credentials whose real expiry is unknown.
_NEVER = datetime.max.replace(tzinfo=timezone.utc)

#: (user, domain, password), or purekrb's own types.
AuthData = Sequence[str | None] | Credential | Keytab


class ServiceOptions(TypedDict, total=False):
    """What a service may add: those arguments of `purekrb.Acceptor` that no flag of SSPI stands for.

    `replay_cache` is by default the file that all processes of the user share.
    """

    replay_cache: ReplayCache | None
    clock_skew: float
    permitted_etypes: tuple[int, ...]
    require_pac: bool
    require_client_target: bool
    enforce_expiry: bool
    max_token: int


class SecPkgInfo(TypedDict):
    """The description of a security package."""

    Capabilities: int
    Version: int
    RPCID: int
    MaxToken: int
    Name: str
    Comment: str


_CAPABILITIES = (
    SECPKG_FLAG_INTEGRITY
    | SECPKG_FLAG_PRIVACY
    | SECPKG_FLAG_CONNECTION
    | SECPKG_FLAG_EXTENDED_ERROR
    | SECPKG_FLAG_IMPERSONATION
    | SECPKG_FLAG_GSS_COMPATIBLE
    | SECPKG_FLAG_MUTUAL_AUTH
    | SECPKG_FLAG_DELEGATION
    | SECPKG_FLAG_READONLY_WITH_CHECKSUM
)
#: The packages by their names in lower case, which are also the mechanisms of contexts.
_PACKAGES = {
    "kerberos": SecPkgInfo(
        Capabilities=_CAPABILITIES | SECPKG_FLAG_NEGOTIABLE,
        Version=1,
        RPCID=RPC_C_AUTHN_GSS_KERBEROS,
        MaxToken=MAX_TOKEN,
        Name="Kerberos",
        Comment="Kerberos V5: RFC 4120, RFC 4121",
    ),
    "negotiate": SecPkgInfo(
        Capabilities=_CAPABILITIES,
        Version=1,
        RPCID=RPC_C_AUTHN_GSS_NEGOTIATE,
        MaxToken=MAX_TOKEN,
        Name="Negotiate",
        Comment="SPNEGO, RFC 4178: Kerberos is all that it chooses",
    ),
}


@dataclass(frozen=True)
class _Defaults:
    """The defaults for programs that name no credentials. None stands for the environment's."""

    credential: Credential | None = None
    keytab: Keytab | None = None
    config: Config | None = None
    options: ServiceOptions = field(default_factory=lambda: ServiceOptions())


@dataclass(frozen=True)
class Impersonation:
    """The client that the service acts for: its context handle, and the delegated credential."""

    handle: object
    credential: Credential | None


_defaults = _Defaults()
#: The impersonation in the current thread or task.
impersonation: ContextVar[Impersonation | None] = ContextVar("impersonation", default=None)


def set_default_credential(
    credential: Credential | None = None,
    *,
    keytab: Keytab | None = None,
    config: Config | None = None,
    **options: Unpack[ServiceOptions],
) -> None:
    """Set the default credentials of `AcquireCredentialsHandle`, like a logon of this process.

    `credential` is for clients, `keytab` and `options` for services, and `config` for both. None
    stands for the file in KRB5CCNAME, KRB5_KTNAME or KRB5_CONFIG, as for the commands. Without
    arguments, the initial state is restored.
    """
    global _defaults
    _check_options(options)
    _defaults = _Defaults(credential, keytab, config, options)


class CredHandle:
    """A handle to credentials, from `AcquireCredentialsHandle`, for any number of contexts."""

    __slots__ = (
        "_credential",
        "_keytab",
        "_password_given",
        "config",
        "options",
        "package",
        "service",
    )

    def __init__(
        self,
        package: str | None = None,
        *,
        credential: Credential | None = None,
        keytab: Keytab | None = None,
        service: Principal | None = None,
        config: Config | None = None,
        options: ServiceOptions | None = None,
        password_given: bool = False,
    ) -> None:
        self.options = options or ServiceOptions()
        self.package = package
        self.service = service
        self.config = config
        self._credential = credential
        self._keytab = keytab
        self._password_given = password_given

    @property
    def expiry(self) -> datetime:
        """The expiry of the credentials: the end of the TGT, or the year 9999 if unknown."""
        if self._credential is None or self._credential.can_get_tgt:
            return _NEVER
        return max((ticket.endtime for ticket in self._credential.ccache), default=_NEVER)

    @sspi_function(Phase.CLIENT)
    def QueryCredentialsAttributes(self, attribute: int) -> str:
        """Return the name of the credentials; the only attribute is SECPKG_CRED_ATTR_NAMES.

        For a client, it is the principal. For a service, it is the name to which it is limited, or
        the first name in its keytab.
        """
        mechanism(self)
        if attribute != SECPKG_CRED_ATTR_NAMES:
            raise RefusedError(
                SEC_E_UNSUPPORTED_FUNCTION, f"credentials have no attribute {attribute}"
            )
        if self._credential is not None:
            return str(self._credential.principal)
        name = self.service or service_keytab(self).principals[0]
        spn = "/".join(name.components)  # nothing is quoted in an SPN
        return f"{spn}@{name.realm}" if name.realm else spn

    @sspi_function(Phase.CLIENT)
    def FreeCredentialsHandle(self) -> None:
        """Release the credentials, and wipe a password that was passed for them. Contexts stay."""
        mechanism(self)
        if self._credential is not None and self._password_given:
            self._credential.wipe()
        self.package = self._credential = self._keytab = None

    def __repr__(self) -> str:
        if self.package is None:
            return "<CredHandle without credentials>"
        names = [str(self._credential.principal)] if self._credential else []
        names += [f"{len(self._keytab)} keys"] if self._keytab is not None else []
        return f"<CredHandle {self.package}: {', '.join(names)}>"


def client_credential(handle: CredHandle) -> Credential:
    """Return the client's credential. Refuses a handle without a credential."""
    mechanism(handle)
    if handle._credential is None:
        raise RefusedError(
            SEC_E_NO_CREDENTIALS,
            "these credentials are for services: acquire some for OUTBOUND use",
        )
    return handle._credential


def own_credential(handle: CredHandle) -> Credential | None:
    """Return the credential with which a service acts for its clients, if the handle has one."""
    return handle._credential


def has_keys(handle: CredHandle) -> bool:
    """Return whether the handle has the keys of a service."""
    return handle._keytab is not None


def service_keytab(handle: CredHandle) -> Keytab:
    """Return the service's keys. Refuses a handle without keys."""
    mechanism(handle)
    if handle._keytab is None:
        raise RefusedError(
            SEC_E_NO_CREDENTIALS, "these credentials are for clients: acquire some for INBOUND use"
        )
    return handle._keytab


def mechanism(handle: CredHandle) -> str:
    """Return the mechanism of contexts with these credentials: "kerberos" or "negotiate"."""
    if not isinstance(handle, CredHandle) or handle.package is None:
        raise RefusedError(
            SEC_E_INVALID_HANDLE,
            "this handle has no credentials: they were never acquired, or they are freed",
        )
    return handle.package.lower()


def package_info(name: str) -> SecPkgInfo:
    """Return the package of that name, in any case."""
    found = _PACKAGES.get(name.lower())
    if found is None:
        known = " and ".join(f'"{info["Name"]}"' for info in _PACKAGES.values())
        raise RefusedError(
            SEC_E_SECPKG_NOT_FOUND, f"there is no security package {name!r}: purekrb has {known}"
        )
    return found


@sspi_function(Phase.CLIENT)
def QuerySecurityPackageInfo(package: str) -> SecPkgInfo:
    """Return the description of a security package."""
    return package_info(package).copy()


@forget_frames
@sspi_function(Phase.CLIENT)
def AcquireCredentialsHandle(
    principal: str | None,
    package: str,
    credential_use: int,
    logon_id: None = None,
    auth_data: AuthData | None = None,
    *,
    config: Config | None = None,
    **options: Unpack[ServiceOptions],
) -> tuple[CredHandle, datetime]:
    """Return (handle, expiry of the credentials).

    OUTBOUND: `auth_data` is (user, domain, password) or a purekrb.Credential. If it is None, the
    credential is that of the impersonated client, or else the default one. `principal` requires
    that the default credential belongs to this client; if it does not, the client's keys in the
    default keytab are used.

    INBOUND: `auth_data` is a purekrb.Keytab, or (user, domain, password) of the service account. If
    it is None, the keys are those of the default keytab. `principal`, an SPN, limits the service to
    that name.

    BOTH: whatever is available of the two.

    `config` and `options` (for INBOUND use) are for this handle alone. A process may have handles
    of several users and services, each with its own.

    No KDC is asked, so a wrong password is found when a context is initialized. The errors are
    SEC_E_NO_CREDENTIALS if there are no credentials, and SEC_E_UNKNOWN_CREDENTIALS for malformed
    arguments.
    """
    name = package_info(package)["Name"]
    _check_options(options)
    if logon_id is not None:
        raise RefusedError(
            SEC_E_UNSUPPORTED_FUNCTION,
            "there are no logon sessions here: pass None for the logon id",
        )
    if credential_use not in (SECPKG_CRED_INBOUND, SECPKG_CRED_OUTBOUND, SECPKG_CRED_BOTH):
        raise RefusedError(
            SEC_E_UNKNOWN_CREDENTIALS,
            f"the use of credentials must be INBOUND, OUTBOUND or BOTH, not {credential_use}",
        )
    unfit = {SECPKG_CRED_INBOUND: Credential, SECPKG_CRED_OUTBOUND: Keytab}.get(credential_use)
    if unfit is not None and isinstance(auth_data, unfit):
        raise RefusedError(
            SEC_E_UNKNOWN_CREDENTIALS, "a Credential is for OUTBOUND use, a Keytab for INBOUND use"
        )
    logon = None
    if auth_data is not None and not isinstance(auth_data, Credential | Keytab):
        logon = _logon(auth_data)
    credential = keytab = service = problem = None
    if credential_use & SECPKG_CRED_OUTBOUND:
        try:
            credential = _client(principal, auth_data, logon)
        except CredentialError as error:
            problem = error
    if credential_use & SECPKG_CRED_INBOUND:
        try:
            keytab, service = _service(principal, auth_data, logon)
        except CredentialError as error:
            problem = error
    if problem is not None and credential is None and keytab is None:
        raise problem
    handle = CredHandle(
        name,
        credential=credential,
        keytab=keytab,
        service=service,
        config=config or _defaults.config,
        options={**_defaults.options, **options},
        password_given=logon is not None,
    )
    return handle, handle.expiry


QueryCredentialsAttributes = CredHandle.QueryCredentialsAttributes
FreeCredentialsHandle = CredHandle.FreeCredentialsHandle


def _logon(auth_data: Sequence[str | None]) -> tuple[Principal, str]:
    r"""Return the principal and the password of (user, domain, password).

    The domain is a DNS or NetBIOS name. It may also be part of the user, as in alice@example.test
    or EXAMPLE\alice; by default, it is the default realm.
    """
    user, domain, password = auth_data if len(auth_data) == 3 else (None, None, None)
    if user and not domain and "@" in user:
        user, _, domain = user.rpartition("@")
    elif user and not domain and "\\" in user:
        domain, _, user = user.partition("\\")
    realm = (domain or "").upper()  # as the realms of Active Directory are
    if "." not in realm:
        config = _config()
        realm = fitting_realm(realm, config) or config.default_realm or ""
    if not user or not realm or password is None:
        raise RefusedError(
            SEC_E_UNKNOWN_CREDENTIALS,
            "authentication data must be (user, domain, password); "
            "without a domain, a default realm must be configured",
        )
    return Principal((user,), realm), password


def _check_options(options: ServiceOptions) -> None:
    unknown = sorted(set(options) - set(ServiceOptions.__annotations__))
    if unknown:
        raise TypeError(
            f"a service has no option {unknown[0]!r} here: it has "
            f"{', '.join(ServiceOptions.__annotations__)}, and the flags ASC_REQ_..."
        )


def _config() -> Config:
    return _defaults.config or Config.from_file()


def _client(
    principal: str | None, auth_data: AuthData | None, logon: tuple[Principal, str] | None
) -> Credential:
    if logon is not None:
        return Credential.from_password(*logon)
    if isinstance(auth_data, Credential):
        return auth_data
    current = impersonation.get()
    if current is not None:
        if current.credential is None:  # never fall back on the service's own credential
            raise CredentialError("the impersonated client has not delegated a credential")
        return current.credential
    if principal is None:
        return _defaults.credential or Credential.default()
    wanted = Principal.parse(principal)
    if not wanted.realm:
        wanted = Principal.parse(principal, _config().default_realm or "")
    try:
        default = _defaults.credential or Credential.default()
        if default.principal == wanted:
            return default
        problem = CredentialError(
            f"the default credential is that of {default.principal}, not of {wanted}"
        )
    except CredentialError as error:
        problem = error
    try:
        return Credential.from_keytab(wanted, _defaults.keytab)
    except CredentialError as error:
        raise CredentialError(f"{problem}; and {error}") from None


def _service(
    principal: str | None, auth_data: AuthData | None, logon: tuple[Principal, str] | None
) -> tuple[Keytab, Principal | None]:
    name = None
    if principal is not None:  # an SPN is never quoted; the name of an account may be
        name = target_principal(principal) if "/" in principal else Principal.parse(principal)
    if logon is not None:
        account, password = logon
        owner = account
        if name is not None:
            owner = Principal(name.components, name.realm or account.realm, NameType.SRV_INST)
        return Keytab.from_password(owner, password, salt=account.default_salt), name
    keytab = auth_data if isinstance(auth_data, Keytab) else _defaults.keytab
    if keytab is None:
        keytab = Keytab.load()
    wanted = [
        known
        for known in keytab.principals
        if name is None or (known.components == name.components and name.realm in ("", known.realm))
    ]
    if not wanted:
        raise CredentialError(
            f"the keytab has no key for {name or 'any service'}; it has {keytab.summary()}"
        )
    return keytab, name
