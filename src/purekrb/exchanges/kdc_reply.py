"""What a KDC's answer means, for the AS and the TGS alike: the checks of a reply, and the errors behind a KRB-ERROR."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import MappingProxyType

from purekrb import crypto
from purekrb.constants import ErrorCode, error_name
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ClientRevokedError,
    ClientUnknownError,
    ClockSkewError,
    KdcError,
    KdcEtypeError,
    PasswordExpiredError,
    PreauthFailedError,
    ProtocolError,
    ServiceUnknownError,
)
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.messages.ap import EncryptedData, HostAddress, KrbError, Ticket
from purekrb.messages.kdc import AsRep, EncKdcRepPart, KdcReqBody, TgsRep
from purekrb.names import Principal
from purekrb.records import record
from purekrb.system import RandomBytes
from purekrb.tracebacks import forget_frames

__all__ = [
    "ExchangeLabel",
    "KDC_ERRORS",
    "kdc_error",
    "open_reply",
    "check_reply",
    "check_clock",
    "new_nonce",
]

#: What each error-code means for the caller: the class, what happened, what to do next. Source: RFC 4120 7.5.9.
KDC_ERRORS: MappingProxyType[int, tuple[type[KdcError], str, str]] = MappingProxyType(
    {
        ErrorCode.KDC_ERR_NAME_EXP: (
            ClientRevokedError, "the client's account has expired", "ask the realm's administrator to renew it"),
        ErrorCode.KDC_ERR_SERVICE_EXP: (
            KdcError, "the service's account has expired", "ask the realm's administrator to renew it"),
        ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN: (
            ClientUnknownError, "the KDC knows no such client", "check the name and the realm (case-sensitive)"),
        ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN: (
            ServiceUnknownError, "the KDC knows no such service",
            "check the service's name and host, and that its SPN is registered (for krbtgt: that there is a trust)"),
        ErrorCode.KDC_ERR_PRINCIPAL_NOT_UNIQUE: (
            KdcError, "more than one account has this name", "remove the duplicate SPN from the directory"),
        ErrorCode.KDC_ERR_NULL_KEY: (
            KdcError, "the account has no key", "set its password"),
        ErrorCode.KDC_ERR_CANNOT_POSTDATE: (
            KdcError, "the KDC issues no postdated ticket", "ask for a ticket that starts now"),
        ErrorCode.KDC_ERR_NEVER_VALID: (
            KdcError, "the ticket would have expired before it starts", "ask for a longer lifetime, check the clock"),
        ErrorCode.KDC_ERR_POLICY: (
            KdcError, "the KDC's policy refuses the request", "ask the realm's administrator what the account may do"),
        ErrorCode.KDC_ERR_BADOPTION: (
            KdcError, "the KDC cannot grant an option",
            "ask without it: forwarding, renewing and addresses depend on the TGT"),
        ErrorCode.KDC_ERR_ETYPE_NOSUPP: (
            KdcEtypeError, "the KDC has no key of the offered encryption types",
            "set the account's password anew so that it gets AES keys; RC4 is tried only if the caller permits it"),
        ErrorCode.KDC_ERR_PADATA_TYPE_NOSUPP: (
            KdcError, "the KDC does not support the pre-authentication", "use another kind of credential"),
        ErrorCode.KDC_ERR_CLIENT_REVOKED: (
            ClientRevokedError, "the client's account is disabled or locked",
            "ask the realm's administrator to unlock it"),
        ErrorCode.KDC_ERR_SERVICE_REVOKED: (
            KdcError, "the service's account is disabled", "ask the realm's administrator to enable it"),
        ErrorCode.KDC_ERR_TGT_REVOKED: (
            KdcError, "the TGT has been revoked", "get a new TGT"),
        ErrorCode.KDC_ERR_CLIENT_NOTYET: (
            ClientRevokedError, "the client's account is not valid yet", "try again later"),
        ErrorCode.KDC_ERR_SERVICE_NOTYET: (
            KdcError, "the service's account is not valid yet", "try again later"),
        ErrorCode.KDC_ERR_KEY_EXPIRED: (
            PasswordExpiredError, "the password has expired", "change it, then try again"),
        ErrorCode.KDC_ERR_PREAUTH_FAILED: (
            PreauthFailedError, "the KDC did not accept the proof of identity",
            "check the password, or export the keytab again"),
        ErrorCode.KDC_ERR_MUST_USE_USER2USER: (
            KdcError, "the service accepts user-to-user tickets only", "ask for a service that has a key of its own"),
        ErrorCode.KRB_AP_ERR_USER_TO_USER_REQUIRED: (
            KdcError, "the service accepts user-to-user tickets only", "ask for a service that has a key of its own"),
        ErrorCode.KDC_ERR_PATH_NOT_ACCEPTED: (
            KdcError, "the KDC does not accept the path between the realms", "check [capaths] in krb5.conf"),
        ErrorCode.KDC_ERR_SVC_UNAVAILABLE: (
            KdcError, "the KDC is not available now", "try again later"),
        ErrorCode.KRB_AP_ERR_BAD_INTEGRITY: (
            KdcError, "the KDC could not decrypt the TGT or what came with it", "get a new TGT"),
        ErrorCode.KRB_AP_ERR_TKT_EXPIRED: (
            KdcError, "the TGT has expired", "get a new TGT"),
        ErrorCode.KRB_AP_ERR_TKT_NYV: (
            KdcError, "the TGT is not valid yet", "check this machine's clock, or wait until the TGT starts"),
        ErrorCode.KRB_AP_ERR_REPEAT: (
            KdcError, "the KDC took the request for a replay", "send a new request"),
        ErrorCode.KRB_AP_ERR_SKEW: (
            ClockSkewError, "the clocks of this machine and of the KDC are too far apart", "set this machine's clock"),
        ErrorCode.KRB_AP_ERR_BADADDR: (
            KdcError, "the TGT is bound to another network address", "get a TGT without addresses"),
        ErrorCode.KRB_AP_ERR_MODIFIED: (
            KdcError, "the KDC found the request altered",
            "get a new TGT; if it persists, something changes messages on the way"),
        ErrorCode.KDC_ERR_WRONG_REALM: (
            KdcError, "the client belongs to another realm", "name that realm, or permit canonicalization"),
    }
)  # fmt: skip
_NO_ADVICE = (KdcError, "the KDC refused the request", "see the KDC's log for the reason")
_MAX_E_TEXT = 200
#: Samba's KDC puts a backslash before these and then looks for that text among the SPNs of the directory.
_QUOTED_BY_SAMBA = frozenset(" \\@")
#: One KerberosTime against microseconds: what rounding to whole seconds may cost.
_ROUNDING = timedelta(seconds=1)


@record
class ExchangeLabel:
    """Names an exchange in errors. Its text is made only where there is one."""

    exchange: str
    client: Principal
    service: Principal

    def __str__(self) -> str:
        return f"{self.exchange} exchange for {self.client} -> {self.service}"


def kdc_error(error: KrbError, label: ExchangeLabel, service: Principal | None = None) -> KdcError:
    """Return the exception for a KRB-ERROR; `service` is given where it is the service that may be unknown.

    A KRB-ERROR is not authenticated: anyone on the path can forge one, so nothing but the error follows from it.
    """
    cls, what, advice = KDC_ERRORS.get(error.error_code, _NO_ADVICE)
    e_text = f", the KDC says {error.e_text[:_MAX_E_TEXT]!r}" if error.e_text else ""
    name = error_name(error.error_code)
    if (
        cls is ServiceUnknownError
        and service
        and not _QUOTED_BY_SAMBA.isdisjoint("".join(service.components))
    ):
        advice += '; Samba finds no SPN that has a blank, "\\" or "@": use the objectGUID in place of a DN'
    return cls(
        f"{label}: {what} ({name}{e_text}); {advice}", code=error.error_code, krb_error=error
    )


def new_nonce(random: RandomBytes) -> int:
    """Return a nonce of 31 random bits; the 32nd is left out because some KDCs read it as a sign."""
    return int.from_bytes(random(4), "big") & 0x7FFFFFFF


@forget_frames
def open_reply(
    key: EncryptionKey, usage: int, enc_part: EncryptedData, nonce: int
) -> EncKdcRepPart:
    """Return the encrypted part of the reply to the request with `nonce`.

    Raises IntegrityError for another key, DecodeError for bad contents, ProtocolError for another nonce.
    """
    part: EncKdcRepPart = EncKdcRepPart.decode(crypto.decrypt(key, usage, enc_part.cipher))
    if part.nonce != nonce:
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
    """Return the ticket of a KDC's reply to the request `body`, if names, key, times and addresses are right.

    Whether client and service are those asked for is left to the exchange, since AS and TGS allow for different
    deviations. `addresses` are what the ticket must be bound to; the reply need not name them where they are
    `inherited` from the TGT (RFC 4120 5.4.2). `offset` is the KDC's clock minus ours. Raises ProtocolError, and
    DecodeError for a malformed ticket. Source: RFC 4120 3.1.5, 3.3.4.
    """
    ticket = Ticket.decode(reply.ticket)
    named = part.sname.principal(part.srealm)
    if (ticket.sname, ticket.realm) != (part.sname, part.srealm):
        # Only the encrypted part is authentic; a ticket that says otherwise was exchanged on the way (CVE-2017-11103).
        raise ProtocolError(
            "the ticket is not for the service that the encrypted part names",
            expected=named,
            got=ticket.sname.principal(ticket.realm),
        )
    if not named.components or not named.realm:
        raise ProtocolError("the ticket is for a service without a name or a realm")
    if not reply.cname.components or not reply.crealm:
        raise ProtocolError("the ticket is that of a client without a name or a realm")
    if part.key.etype not in body.etype:
        raise ProtocolError(
            f"the session key is of the encryption type {etype_name(part.key.etype)}, which was not offered",
            expected=etype_names(body.etype),
            got=etype_name(part.key.etype),
        )
    _check_times(body, part)
    if frozenset(part.caddr or ()) != frozenset(addresses) and not (
        inherited and part.caddr is None
    ):
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
    if body.from_ is not None and part.starttime != body.from_:
        raise ProtocolError(
            "the ticket does not start when it was asked to",
            expected=body.from_,
            got=part.starttime,
        )


def check_clock(time: datetime, now: datetime, clock_skew: float, label: ExchangeLabel) -> None:
    """Raise ClockSkewError unless `time`, of a KDC that answered just now, is within `clock_skew` seconds of `now`."""
    apart = abs(time - now)
    if apart > timedelta(seconds=clock_skew) + _ROUNDING:
        raise ClockSkewError(
            f"{label}: the KDC's clock and this machine's are {apart.total_seconds():.0f} s apart, allowed are "
            f"{clock_skew:.0f} s; set this machine's clock",
            code=ErrorCode.KRB_AP_ERR_SKEW,
        )
