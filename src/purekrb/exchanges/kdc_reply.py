"""The answers of KDCs to both AS-REQs and TGS-REQs: the checks of a reply, and the errors."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import MappingProxyType

from purekrb import crypto
from purekrb.constants import ErrorCode, NameType, error_name
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ClientRevokedError,
    ClientUnknownError,
    ClockSkewError,
    DecodeError,
    KdcError,
    KdcEtypeError,
    PasswordExpiredError,
    PreauthFailedError,
    ProtocolError,
    ServiceUnknownError,
)
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.messages.ap import EncryptedData, HostAddress, KrbError, Ticket
from purekrb.messages.kdc import AsRep, EncKdcRepPart, KdcReqBody, MethodData, PaData, TgsRep
from purekrb.names import Principal
from purekrb.nt_status import CHANGE_IT, describe
from purekrb.records import record
from purekrb.system import RandomBytes
from purekrb.tracebacks import forget_frames

__all__ = [
    "ExchangeLabel",
    "KDC_ERRORS",
    "kdc_error",
    "nt_status",
    "open_reply",
    "check_reply",
    "check_clock",
    "new_nonce",
]

_USER_TO_USER = (
    KdcError,
    "the service accepts user-to-user tickets only",
    "ask with the TGT of the service (get_ticket(..., user_to_user=), kvno --u2u), or for a service "
    "that has a key of its own",
)
#: How an account gets AES keys, and how RC4 is permitted. Source: MS-KILE 2.2.7.
AES_FOR_CLIENT = (
    "set the account's password anew so that it gets AES keys (in Active Directory, also set "
    "msDS-SupportedEncryptionTypes to 24); RC4 is tried only if the caller permits it"
)
AES_FOR_SERVICE = (
    "the service's account gets RC4 tickets: set msDS-SupportedEncryptionTypes to 24 and set its "
    "password again; RC4 is tried only if the caller permits it"
)
#: error-code -> the class of the error, its cause, and the advice. Source: RFC 4120 7.5.9.
KDC_ERRORS: MappingProxyType[int, tuple[type[KdcError], str, str]] = MappingProxyType(
    {
        ErrorCode.KDC_ERR_NAME_EXP: (
            ClientRevokedError,
            "the client's account has expired",
            "ask the realm's administrator to renew it"),
        ErrorCode.KDC_ERR_SERVICE_EXP: (
            KdcError,
            "the service's account has expired",
            "ask the realm's administrator to renew it"),
        ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN: (
            ClientUnknownError,
            "the KDC does not know the client",
            "check the name and the realm (case-sensitive)"),
        ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN: (
            ServiceUnknownError,
            "the KDC does not know the service",
            "check the service's name and host, and that its SPN is registered"),
        ErrorCode.KDC_ERR_PRINCIPAL_NOT_UNIQUE: (
            KdcError,
            "more than one account has this name",
            "remove the duplicate SPN from the directory"),
        ErrorCode.KDC_ERR_NULL_KEY: (
            KdcError, "the account has no key", "set its password"),
        ErrorCode.KDC_ERR_CANNOT_POSTDATE: (
            KdcError,
            "the KDC does not issue postdated tickets",
            "ask for a ticket that starts now"),
        ErrorCode.KDC_ERR_NEVER_VALID: (
            KdcError,
            "the ticket would expire before it starts",
            "ask for a longer lifetime, check the clock"),
        ErrorCode.KDC_ERR_POLICY: (
            KdcError,
            "the KDC's policy refuses the request",
            "ask the realm's administrator what the account may do"),
        ErrorCode.KDC_ERR_BADOPTION: (
            KdcError,
            "the KDC cannot grant an option",
            "ask without it: forwarding, renewing and addresses depend on the TGT"),
        ErrorCode.KDC_ERR_ETYPE_NOSUPP: (
            KdcEtypeError,
            "the KDC has no key of the offered encryption types",
            AES_FOR_CLIENT),
        ErrorCode.KDC_ERR_PADATA_TYPE_NOSUPP: (
            KdcError,
            "the KDC does not support the pre-authentication",
            "use another kind of credential"),
        ErrorCode.KDC_ERR_CLIENT_REVOKED: (
            ClientRevokedError,
            "the client's account is disabled, locked or expired",
            "ask the realm's administrator which of these it is"),
        ErrorCode.KDC_ERR_SERVICE_REVOKED: (
            KdcError,
            "the service's account is disabled or locked",
            "ask the realm's administrator to enable it"),
        ErrorCode.KDC_ERR_TGT_REVOKED: (
            KdcError, "the TGT has been revoked", "get a new TGT"),
        ErrorCode.KDC_ERR_CLIENT_NOTYET: (
            ClientRevokedError, "the client's account is not valid yet", "try again later"),
        ErrorCode.KDC_ERR_SERVICE_NOTYET: (
            KdcError, "the service's account is not valid yet", "try again later"),
        ErrorCode.KDC_ERR_KEY_EXPIRED: (
            PasswordExpiredError,
            "the password has expired, or must be changed before the first logon",
            CHANGE_IT),
        ErrorCode.KDC_ERR_PREAUTH_FAILED: (
            PreauthFailedError,
            "wrong password",
            "check the password and the keyboard's layout; too many tries may lock the account"),
        ErrorCode.KDC_ERR_SERVER_NOMATCH: (
            KdcError,
            "the ticket in the request belongs to another account than the service",
            "pass the service's own TGT, a new one if its account has changed"),
        ErrorCode.KDC_ERR_MUST_USE_USER2USER: _USER_TO_USER,
        ErrorCode.KRB_AP_ERR_USER_TO_USER_REQUIRED: _USER_TO_USER,
        ErrorCode.KDC_ERR_PATH_NOT_ACCEPTED: (
            KdcError,
            "the KDC does not accept the path between the realms",
            "check [capaths] in krb5.conf"),
        ErrorCode.KDC_ERR_SVC_UNAVAILABLE: (
            KdcError, "the KDC is not available now", "try again later"),
        ErrorCode.KRB_AP_ERR_BAD_INTEGRITY: (
            KdcError,
            "the KDC could not decrypt the TGT or the data that came with it",
            "get a new TGT"),
        ErrorCode.KRB_AP_ERR_TKT_EXPIRED: (
            KdcError, "the TGT has expired", "get a new TGT"),
        ErrorCode.KRB_AP_ERR_TKT_NYV: (
            KdcError,
            "the TGT is not valid yet",
            "check this machine's clock, or wait until the TGT starts"),
        ErrorCode.KRB_AP_ERR_REPEAT: (
            KdcError, "the KDC took the request for a replay", "send a new request"),
        ErrorCode.KRB_AP_ERR_SKEW: (
            ClockSkewError,
            "the clocks of this machine and of the KDC are too far apart",
            "set this machine's clock"),
        ErrorCode.KRB_AP_ERR_BADADDR: (
            KdcError, "the TGT is bound to another network address", "get a TGT without addresses"),
        ErrorCode.KRB_AP_ERR_MODIFIED: (
            KdcError,
            "the KDC found the request altered",
            "get a new TGT; if it persists, something changes messages on the way"),
        ErrorCode.KDC_ERR_WRONG_REALM: (
            KdcError,
            "the client belongs to another realm",
            "name that realm, or permit canonicalization"),
        ErrorCode.KRB_AP_ERR_IAKERB_KDC_NOT_FOUND: (
            KdcError,
            "the service passes no requests on to this realm",
            "use an account of the service's realm, or have its administrator name this one"),
        ErrorCode.KRB_AP_ERR_IAKERB_KDC_NO_RESPONSE: (
            KdcError,
            "no KDC answered the service that passes our requests on",
            "try again later, or ask its administrator"),
    }
)  # fmt: skip
_NO_ADVICE = (KdcError, "the KDC refused the request", "see the KDC's log for the reason")
_MAX_E_TEXT = 200
#: The data-type of a KERB-ERROR-DATA with a KERB-EXT-ERROR. Source: MS-KILE 2.2.2.
_KERB_ERR_TYPE_EXTENDED = 3
#: Codes that cover several reasons, one of which the NTSTATUS names.
_REASON_TELLS_ALL = frozenset(
    (
        ErrorCode.KDC_ERR_NAME_EXP,
        ErrorCode.KDC_ERR_POLICY,
        ErrorCode.KDC_ERR_CLIENT_REVOKED,
        ErrorCode.KDC_ERR_CLIENT_NOTYET,
        ErrorCode.KDC_ERR_KEY_EXPIRED,
        ErrorCode.KRB_ERR_GENERIC,
    )
)
#: STATUS_WRONG_PASSWORD and STATUS_LOGON_FAILURE.
_WRONG_PASSWORD = (0xC000006A, 0xC000006D)
#: Samba's KDC puts a backslash before these characters, and searches for the result among the SPNs.
_QUOTED_BY_SAMBA = frozenset(" \\@")
#: How the names of service classes are written, by their small letters.
_USUAL_CLASSES = {name.lower(): name for name in ("HTTP", "host", "ldap", "cifs", "nfs", "imap")}
#: The rounding error of a KerberosTime, which has whole seconds.
_ROUNDING = timedelta(seconds=1)


@record
class ExchangeLabel:
    """The name of an exchange in errors. Its text is only made if there is an error."""

    exchange: str
    client: Principal
    service: Principal

    def __str__(self) -> str:
        return f"{self.exchange} exchange for {self.client} -> {self.service}"


def nt_status(error: KrbError) -> int | None:
    """Return the NTSTATUS in the e-data of an Active Directory's KRB-ERROR, or None.

    It is the first word of a KERB-EXT-ERROR, in a KERB-ERROR-DATA of type 3. Windows and Samba 4.22
    send that element bare, Samba 4.17 in a METHOD-DATA. Anyone can forge it, so it is only for
    words. Source: MS-KILE 2.2.1, 2.2.2.
    """
    for entry in _error_data(error.e_data or b""):
        if entry.padata_type == _KERB_ERR_TYPE_EXTENDED and len(entry.padata_value) >= 12:
            status = int.from_bytes(entry.padata_value[:4], "little")
            if status >> 30 == 3:  # an error; a PA-PW-SALT, which has the same type, is text
                return status
    return None


def _error_data(e_data: bytes) -> tuple[PaData, ...]:
    for schema in (MethodData, PaData):
        try:
            found = schema.decode(e_data)
        except DecodeError:
            continue
        return found.entries if isinstance(found, MethodData) else (found,)
    return ()


def kdc_error(
    error: KrbError,
    label: ExchangeLabel,
    service: Principal | None = None,
    facts: str = "",
    *,
    words: tuple[type[KdcError], str, str] | None = None,
) -> KdcError:
    """Return the exception for a KRB-ERROR; pass `service` if that may be the unknown principal.

    `facts` are known here and belong to the error; `words` are better than those of `KDC_ERRORS`.
    A KRB-ERROR is not authenticated: anyone on the path can forge one. So it has no other effect
    than the error.
    """
    code = error.error_code
    if label.exchange == "AS" and code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY:
        code = ErrorCode.KDC_ERR_PREAUTH_FAILED  # so Heimdal says that the proof does not decrypt
    cls, what, advice = words or KDC_ERRORS.get(code, _NO_ADVICE)
    status = nt_status(error)
    if status is not None:
        what, advice = _by_status(error.error_code, status, what, advice)
    if cls is ServiceUnknownError:
        advice += _about_service(service or label.service)
    elif cls is ClientUnknownError:
        advice += _about_client(label.client)
    elif cls is KdcEtypeError and label.exchange == "TGS":
        what, advice = f"no encryption type in common with {label.service}", AES_FOR_SERVICE
    elif cls is PreauthFailedError and label.client.components[0].endswith("$"):
        advice += "; a computer changes the password of its account by itself"
    e_text = f", the KDC says {error.e_text[:_MAX_E_TEXT]!r}" if error.e_text else ""
    name = error_name(error.error_code)
    return cls(
        f"{what} ({label}, {name}{facts}{e_text}); {advice}", code=error.error_code, krb_error=error
    )


def _by_status(code: int, status: int, what: str, advice: str) -> tuple[str, str]:
    """Return cause and advice, with the reason that the NTSTATUS adds to them."""
    reason, better = describe(status)
    if code in _REASON_TELLS_ALL and better:
        return reason, better
    if code == ErrorCode.KDC_ERR_PREAUTH_FAILED and status in _WRONG_PASSWORD:
        return what, advice
    return f"{what}: {reason}", better or advice


def _about_service(service: Principal) -> str:
    """Return more advice about a service that the KDC does not know."""
    components = service.components
    if components[:1] == ("krbtgt",) or len(components) < 2:
        return "; for krbtgt: check that there is a trust" if components[:1] == ("krbtgt",) else ""
    service_class, host = components[:2]
    advice = (
        "; if the host is an alias (CNAME): aliases are not resolved, so name the host itself "
        "(purekrb.canonicalize_host tells it), or register an SPN for the alias"
    )
    usual = _USUAL_CLASSES.get(service_class.lower(), service_class), host.lower()
    if usual != (service_class, host):
        advice += f"; KDCs of MIT and Heimdal compare letters exactly: try {'/'.join(usual)}"
    if not _QUOTED_BY_SAMBA.isdisjoint("".join(components)):
        advice += (
            '; Samba does not find an SPN with a blank, "\\" or "@": '
            "use the objectGUID in place of a DN"
        )
    return advice


def _about_client(client: Principal) -> str:
    """Return more advice about a client that the KDC does not know."""
    if len(client.components) > 1:
        return (
            "; if this is a service's name (SPN): Active Directory only gives tickets to accounts, so "
            "name the account that has it (as in svc-web, or WEB$ for a computer)"
        )
    if "@" in client.components[0] and client.name_type != NameType.ENTERPRISE:
        return (
            "; if this is a user principal name, ask for it as an enterprise name: kinit -E, or "
            "Credential.from_password(..., enterprise=True)"
        )
    name = client.components[0]
    if name != name.lower() and not name.endswith("$") and client.name_type != NameType.ENTERPRISE:
        return f"; KDCs of MIT and Heimdal compare letters exactly: try {name.lower()}"
    return ""


def new_nonce(random: RandomBytes) -> int:
    """Return a nonce of 31 random bits; some KDCs would read the 32nd bit as a sign."""
    return int.from_bytes(random(4), "big") & 0x7FFFFFFF


@forget_frames
def open_reply(
    key: EncryptionKey, usage: int, enc_part: EncryptedData, nonce: int
) -> EncKdcRepPart:
    """Return the encrypted part of the reply to the request with `nonce`.

    Raises IntegrityError for another key, DecodeError for malformed content, and ProtocolError for
    another nonce.
    """
    part: EncKdcRepPart = EncKdcRepPart.decode(crypto.decrypt(key, usage, enc_part.cipher))
    if part.nonce != nonce:  # RFC 4120 3.1.5, 3.3.4: it ties the reply to the request
        raise ProtocolError(
            "the reply answers another request: its nonce differs (a replayed reply?)"
        )
    return part


def check_reply(
    body: KdcReqBody,
    reply: AsRep | TgsRep,
    part: EncKdcRepPart,
    *,
    addresses: tuple[HostAddress, ...],
    inherited: bool = False,
    offset: timedelta,
) -> ServiceTicket:
    """Check names, key, times and addresses of a reply to the request `body`; return the ticket.

    The exchange itself checks that client and service are those of the request, because AS and TGS
    permit different deviations. The ticket must be bound to `addresses`. If they are `inherited`
    from the TGT, the reply may omit them (RFC 4120 5.4.2). `offset` is the KDC's clock minus ours.
    Raises ProtocolError, and DecodeError for a malformed ticket. Source: RFC 4120 3.1.5, 3.3.4.
    """
    ticket = Ticket.decode(reply.ticket)
    named = part.sname.principal(part.srealm)
    if (ticket.sname, ticket.realm) != (part.sname, part.srealm):
        # Only the encrypted part is authenticated. A ticket that says otherwise was replaced on the
        # way (CVE-2017-11103). RFC 4120 3.1.5.
        raise ProtocolError(
            "the ticket is not for the service that the encrypted part names",
            expected=named,
            got=ticket.sname.principal(ticket.realm),
        )
    if not named.components or not named.realm:
        raise ProtocolError("the ticket is for a service without a name or a realm")
    if not reply.cname.components or not reply.crealm:
        raise ProtocolError("the ticket is that of a client without a name or a realm")
    if part.key.etype not in body.etype:  # RFC 4120 3.1.3: from the list in the request
        raise ProtocolError(
            f"the session key is of the encryption type {etype_name(part.key.etype)}, "
            "which was not offered",
            expected=etype_names(body.etype),
            got=etype_name(part.key.etype),
        )
    _check_times(body, part)
    omitted = inherited and part.caddr is None  # RFC 4120 5.4.2
    if frozenset(part.caddr or ()) != frozenset(addresses) and not omitted:  # RFC 4120 3.1.5
        raise ProtocolError("the ticket is bound to other addresses than were asked for")
    return ServiceTicket(
        client=reply.cname.principal(reply.crealm),
        service=named,
        ticket=reply.ticket,
        session_key=part.key,
        flags=part.flags,
        authtime=part.authtime,
        starttime=part.starttime,
        endtime=part.endtime,
        renew_till=part.renew_till,
        caddr=addresses,
        time_offset=offset,
    )


def _check_times(body: KdcReqBody, part: EncKdcRepPart) -> None:
    """Refuse times that the request did not ask for. Source: RFC 4120 3.1.3."""
    if part.endtime > body.till:
        raise ProtocolError(
            "the ticket lasts longer than was asked for", expected=body.till, got=part.endtime
        )
    if body.rtime is not None and part.renew_till is not None and part.renew_till > body.rtime:
        raise ProtocolError(
            "the ticket is renewable longer than was asked for",
            expected=body.rtime,
            got=part.renew_till,
        )
    # A KDC gives a usual ticket if the time has come meanwhile (RFC 4120 3.1.3). MIT's leaves out
    # a start time that equals the authtime.
    come = body.from_ is not None and body.from_ <= part.authtime
    if body.from_ is not None and part.starttime != body.from_ and not come:
        raise ProtocolError(
            "the ticket does not start when it was asked to",
            expected=body.from_,
            got=part.starttime,
        )


def check_clock(time: datetime, now: datetime, clock_skew: float, label: ExchangeLabel) -> None:
    """Raise ClockSkewError unless `time` is within `clock_skew` seconds of `now`.

    `time` comes from the current reply of a KDC. Source: RFC 4120 1.6.
    """
    apart = abs(time - now)
    if apart > timedelta(seconds=clock_skew) + _ROUNDING:
        raise ClockSkewError(
            f"{label}: the KDC's clock and this machine's are {apart.total_seconds():.0f} s apart, "
            f"but at most {clock_skew:.0f} s are allowed; set this machine's clock",
            code=ErrorCode.KRB_AP_ERR_SKEW,
        )
