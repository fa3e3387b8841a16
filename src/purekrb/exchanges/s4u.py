"""A service that acts for a user: S4U2Self and S4U2Proxy. Source: MS-SFU 3.1.5.

By S4U2Self, a service gets a ticket for itself in the name of any user, who has proved nothing. By
S4U2Proxy (constrained delegation), it turns a user's ticket for itself, the evidence, into one for
another service. A KDC that knows neither answers with a ticket of the service: so each reply's
client is compared with the user, and that alone tells what the ticket is.
"""

from __future__ import annotations

from collections.abc import Collection, MutableSet
from dataclasses import dataclass
from datetime import timedelta

from purekrb import crypto
from purekrb.constants import (
    ChecksumType,
    ErrorCode,
    KdcOptions,
    KeyUsage,
    NameType,
    PaDataType,
    TicketFlags,
    error_name,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.crypto.rc4 import hmac_md5_checksum
from purekrb.errors import (
    CredentialError,
    DelegationRefusedError,
    IntegrityError,
    KdcError,
    PolicyError,
    ProtocolError,
)
from purekrb.exchanges.kdc_reply import ExchangeLabel, kdc_error, new_nonce, nt_status
from purekrb.exchanges.runner import Exchange, KdcRequest
from purekrb.exchanges.tgs_exchange import CaPath, check_hop, no_capath, realm_of, tgs_exchange
from purekrb.exchanges.tgs_request import MakePadata, TgsOptions, TgsRequest, request_ticket
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import Checksum, KrbError
from purekrb.messages.kdc import AsRep, AsReq, KdcReqBody, PaData, TgsRep, decode_kdc_reply
from purekrb.messages.s4u import (
    RESOURCE_BASED,
    USE_REPLY_KEY_USAGE,
    PaForUser,
    PaPacOptions,
    PaS4uX509User,
    S4uUserId,
)
from purekrb.names import Principal, folded
from purekrb.records import replace
from purekrb.system import Clock, RandomBytes, now, random_bytes

__all__ = ["check_evidence", "delegated_ticket", "impersonate", "realm_of_user"]

log = Log("purekrb.kdc")

#: The most client referrals for one user.
_MAX_REFERRALS = 10
#: Seconds of the ticket that is asked for to find a user's realm, and never given.
_LIFETIME = 300
_FORWARDABLE = int(TicketFlags.FORWARDABLE)
#: STATUS_ACCOUNT_RESTRICTION and STATUS_USER2USER_REQUIRED. Source: MS-ERREF 2.3.1.
_ACCOUNT_RESTRICTION, _USER_TO_USER_REQUIRED = 0xC000006E, 0xC0000408
#: The KDC knows the client: it asks for a proof, or lacks a key of our types.
_KNOWN = (ErrorCode.KDC_ERR_PREAUTH_REQUIRED, ErrorCode.KDC_ERR_ETYPE_NOSUPP)
#: How a KDC refuses what an account may not do.
_MAY_NOT = (ErrorCode.KDC_ERR_BADOPTION, ErrorCode.KDC_ERR_POLICY)
_USER_TO_USER_ONLY = (
    ErrorCode.KDC_ERR_MUST_USE_USER2USER,
    ErrorCode.KRB_AP_ERR_USER_TO_USER_REQUIRED,
)


# -- S4U2Self ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _ForUser(TgsRequest):
    """A request for a ticket for the service itself, in the name of `user`.

    The user is None if a certificate alone says who it is. `padata` are those of `_for_user`.
    """

    user: Principal | None

    @property
    def label(self) -> ExchangeLabel:
        return ExchangeLabel("TGS", self.user or self.tgt.client, self.service)

    def check_client(self, ticket: ServiceTicket) -> None:
        """Take a ticket of the user, or one of the service, which the caller must not return."""
        if ticket.client != self.tgt.client and (
            ticket.is_tgt or not _is_user(ticket.client, self.user)
        ):
            raise ProtocolError(
                "the reply is neither for the user nor for the service that acts for the user",
                expected=self.user,
                got=ticket.client,
            )

    def check_padata(self, reply: TgsRep, body: KdcReqBody, subkey: EncryptionKey) -> None:
        """Refuse a PA-S4U-X509-USER that does not answer ours. Source: MS-SFU 2.2.2, 3.1.5.1.1.2."""
        for found in reply.padata or ():
            if found.padata_type != PaDataType.S4U_X509_USER:
                continue
            answer = PaS4uX509User.decode(found.padata_value)
            user_id = S4uUserId.decode(answer.user_id)
            own_usage = (user_id.options or 0) & USE_REPLY_KEY_USAGE
            usage = (
                KeyUsage.PA_S4U_X509_USER_REPLY if own_usage else KeyUsage.PA_S4U_X509_USER_REQUEST
            )
            # MS-SFU names the session key, MIT's KDC takes the subkey; both are secrets of the KDC.
            if not any(_is_genuine(answer, key, usage) for key in (subkey, self.tgt.session_key)):
                raise IntegrityError
            named = None if user_id.cname is None else user_id.cname.principal(user_id.crealm)
            if user_id.nonce != body.nonce or not _is_user(named, self.user):
                raise ProtocolError(
                    "the KDC's PA-S4U-X509-USER answers another request, or names another user",
                    expected=self.user,
                    got=named,
                )

    def refusal(self, error: KrbError) -> KdcError:
        who, user = self.tgt.client, self.user or "the owner of the certificate"
        if error.error_code in _MAY_NOT:
            return _refused(
                error,
                self.label,
                f"the KDC does not let {who} ask for tickets in the name of {user}",
                "see what the account may do; KDCs give such tickets to services only",
            )
        if error.error_code == ErrorCode.KRB_AP_ERR_BADMATCH:  # MIT: of its own check alone
            return _refused(
                error,
                self.label,
                f"{who} cannot get a ticket for {self.service} in the name of {user} by S4U2Self: "
                "such tickets are for the service itself",
                "ask for another service by S4U2Proxy (get_ticket with on_behalf_of=, kvno -P)",
            )
        if error.error_code == ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN:
            return kdc_error(
                error, self.label, self.service,
                f", {who} may have no SPN, without which Active Directory knows it as a client only",
            )  # fmt: skip
        return kdc_error(error, self.label, self.service)


def _is_user(client: Principal | None, user: Principal | None) -> bool:
    """Return whether a KDC may call `user` (None: not known) by the name `client`.

    The case of ASCII letters does not count, as RFC 6806 6 permits. Nobody but the KDC knows the
    canonical name that belongs to an enterprise name.
    """
    if user is None or client is None:
        return user is None or user.name_type == NameType.ENTERPRISE
    if client.realm != user.realm:
        return False
    return user.name_type == NameType.ENTERPRISE or folded(client) == folded(user)


def _is_genuine(answer: PaS4uX509User, key: EncryptionKey, usage: int) -> bool:
    profile = crypto.profile_of(key.etype)
    if answer.checksum.cksumtype != profile.checksum_type:
        return False
    try:
        crypto.verify_checksum(key, usage, answer.user_id, answer.checksum.checksum)
    except IntegrityError:
        return False
    return True


def _for_user(
    user: Principal, certificate: bytes | None, session_key: EncryptionKey, *, old: bool
) -> MakePadata:
    """Return what makes the padata for `user`: PA-S4U-X509-USER, and the `old` PA-FOR-USER after it."""
    name = user.name if user.components else None

    def padata(body: KdcReqBody, subkey: EncryptionKey) -> tuple[PaData, ...]:
        # MIT's KDC and client take the subkey, though MS-SFU 2.2.2 names the session key.
        user_id = S4uUserId(body.nonce, name, user.realm, certificate, USE_REPLY_KEY_USAGE).encode()
        mac = crypto.checksum(subkey, KeyUsage.PA_S4U_X509_USER_REQUEST, user_id)
        checksum = Checksum(crypto.profile_of(subkey.etype).checksum_type, mac)
        made = [PaData(PaDataType.S4U_X509_USER, PaS4uX509User(user_id, checksum).encode())]
        if old:
            data = PaForUser.checked(user.name, user.realm)
            md5 = hmac_md5_checksum(session_key, KeyUsage.KERB_NON_KERB_CKSUM_SALT, data)
            for_user = PaForUser(user.name, user.realm, Checksum(ChecksumType.HMAC_MD5, md5))
            made.append(PaData(PaDataType.FOR_USER, for_user.encode()))
        return tuple(made)

    return padata


def impersonate(
    tgt: ServiceTicket,
    user: Principal | None,
    options: TgsOptions | None = None,
    *,
    service: Principal | None = None,
    certificate: bytes | None = None,
    old_realms: MutableSet[str] | None = None,
    capath: CaPath = no_capath,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a ticket of `user` for the service whose TGT is `tgt` (S4U2Self).

    `service` is the name to ask for, by default that of the TGT's client. The user has a realm, and
    may live in another one than the service. `certificate` (DER) names the user in place of, or
    besides, the name. The ticket is forwardable if the service may act for users elsewhere.
    `old_realms` are those whose KDCs know PA-FOR-USER alone, kept for later exchanges. Raises
    DelegationRefusedError if the KDC does not permit this, ClientUnknownError for an unknown user,
    and ProtocolError for a reply in the name of another, as of a KDC without S4U2Self.
    """
    options = options or TgsOptions()
    home = realm_of(tgt)
    service = service or tgt.client
    named = user or Principal((), home)
    start = tgt
    if named.realm != home:
        far = Principal(("krbtgt", named.realm), "", NameType.SRV_INST)
        start = yield from tgs_exchange(
            tgt, far, options, capath=capath, clock=clock, random=random
        )
    old_realms = set() if old_realms is None else old_realms
    # PA-S4U-X509-USER is signed with a strong key. Who does not know it answers with a ticket of
    # the service; then PA-FOR-USER is sent as well, which cannot hold a certificate.
    attempts = (True,) if home in old_realms else (False, True)
    for old in attempts if certificate is None else (False,):
        ticket = yield from _ask_for_user(
            start, service, home, user, certificate, options, clock, random, old=old
        )
        if ticket.client != tgt.client or (user is not None and ticket.client == user):
            if old:
                old_realms.add(home)
            return replace(ticket, by_s4u2self=True)
        log.debug("the KDC does not know the padata for S4U2Self: it gave a ticket of the service")
    by = "" if certificate is None else " by certificates"
    raise ProtocolError(
        f"the KDC of {home} has no S4U2Self{by}: its ticket is for the service itself, not for the "
        "user",
        expected=user or "the owner of the certificate",
        got=tgt.client,
    )


def _ask_for_user(
    tgt: ServiceTicket,
    service: Principal,
    home: str,
    user: Principal | None,
    certificate: bytes | None,
    options: TgsOptions,
    clock: Clock,
    random: RandomBytes,
    *,
    old: bool,
) -> Exchange[ServiceTicket]:
    """Return the ticket, by the referrals from the user's realm to the service's, `home`."""
    realms = [realm_of(tgt)]
    while True:
        realm = realms[-1]
        wanted = replace(service, realm=realm)
        if realm != home:  # there, the service is known by its realm: MS-SFU 3.1.5.1.1.1
            text = f"{'/'.join(service.components)}@{home}"
            wanted = Principal((text,), realm, NameType.ENTERPRISE)
        request = _ForUser(
            tgt,
            wanted,
            options,
            padata=_for_user(user or Principal((), home), certificate, tgt.session_key, old=old),
            user=user,
        )
        ticket = yield from request_ticket(request, clock, random)
        if not ticket.is_tgt:
            if realm != home:
                raise ProtocolError(
                    f"the KDC of {realm} gave a ticket for {ticket.service}, which is of {home}"
                )
            return ticket
        tgt = ticket
        realms.append(check_hop(realms, realm_of(ticket), None))


def realm_of_user(
    user: Principal,
    realm: str,
    *,
    referral_realms: Collection[str] = (),
    etypes: tuple[int, ...] = TgsOptions().etypes,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[str]:
    """Return the realm of an enterprise name: `realm`, or where its KDC refers the client.

    The KDC is asked by an AS-REQ without a proof, as if the user logged in. Anyone can forge its
    answer, so only `referral_realms` are believed. Raises ClientUnknownError if no KDC knows the
    name. Source: RFC 6806 5, 7.
    """
    realms = [realm]
    while len(realms) <= _MAX_REFERRALS:
        here = realms[-1]
        tgs = Principal(("krbtgt", here), here, NameType.SRV_INST)
        body = KdcReqBody(
            kdc_options=int(KdcOptions.CANONICALIZE),
            cname=user.name,
            realm=here,
            sname=tgs.name,
            from_=None,
            till=clock().replace(microsecond=0) + timedelta(seconds=_LIFETIME),
            rtime=None,
            nonce=new_nonce(random),
            etype=etypes,
        )
        answer = decode_kdc_reply((yield KdcRequest(here, AsReq((), body).encode())))
        if isinstance(answer, AsRep) or (
            isinstance(answer, KrbError) and answer.error_code in _KNOWN
        ):
            return here
        if isinstance(answer, TgsRep):
            raise ProtocolError("the KDC answered an AS-REQ with a TGS-REP")
        referred = answer.crealm
        if answer.error_code != ErrorCode.KDC_ERR_WRONG_REALM or not referred:
            raise kdc_error(answer, ExchangeLabel("AS", replace(user, realm=here), tgs))
        if referred not in referral_realms:
            raise PolicyError(
                f"the KDC of {here} says that {user} is of {referred}, which is not a realm that "
                "it may refer to, because anyone can forge this answer: name the realm in "
                "krb5.conf ([realms]), or in the user's name (name@suffix@REALM)"
            )
        if referred in realms:
            break
        realms.append(referred)
    raise ProtocolError(f"the KDCs refer {user} in a circle: {' -> '.join(realms)}")


# -- S4U2Proxy -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnBehalf(TgsRequest):
    """A request for a ticket for another service, in the name of the evidence's client."""

    evidence: ServiceTicket

    @property
    def user(self) -> Principal:
        return self.evidence.client

    @property
    def label(self) -> ExchangeLabel:
        return ExchangeLabel("TGS", self.user, self.service)

    def check_client(self, ticket: ServiceTicket) -> None:
        if ticket.client != self.user:
            raise ProtocolError(
                "the reply is not for the client of the evidence ticket",
                expected=self.user,
                got=ticket.client,
            )

    def refusal(self, error: KrbError) -> KdcError:
        status = nt_status(error)
        code = error.error_code
        what = f"{self.tgt.client} may not act for {self.user} at {self.service}"
        if code in _USER_TO_USER_ONLY or status == _USER_TO_USER_REQUIRED:
            return _refused(
                error, self.label, f"{what}: it takes user-to-user tickets only",
                "register its SPN for an account with a key",
            )  # fmt: skip
        if code not in _MAY_NOT:
            return kdc_error(error, self.label, self.service)
        if not self.evidence.flags & _FORWARDABLE:
            return _refused(error, self.label, *_not_forwardable(what))
        if status == _ACCOUNT_RESTRICTION:
            return _refused(
                error,
                self.label,
                f"{what}: a restriction of the account of {self.user} forbids it",
                "the account is marked as sensitive, or is a member of Protected Users: the "
                "domain's administrator may change this, or use another account",
            )
        return _refused(error, self.label, f"{what}: the KDC has not been told to allow it", _GRANT)


#: Who may act for users where, in the words of Active Directory.
_GRANT = (
    "in Active Directory, list the SPN in msDS-AllowedToDelegateTo of the account that acts "
    "(samba-tool delegation add-service), or that account in "
    "msDS-AllowedToActOnBehalfOfOtherIdentity of the service's account (Set-ADComputer "
    "-PrincipalsAllowedToDelegateToAccount); MIT's KDC needs a database with such rules (LDAP)"
)


def _not_forwardable(what: str) -> tuple[str, str]:
    return (
        f"{what}: the user's ticket for it is not forwardable",
        "the user must log in for a forwardable ticket (kinit -f), from an account that is not "
        "marked as sensitive; for tickets by S4U2Self, trust the service to authenticate for "
        "delegation (samba-tool delegation for-any-protocol ACCOUNT on)",
    )


def _refused(error: KrbError, label: ExchangeLabel, what: str, advice: str) -> KdcError:
    code = error.error_code
    return DelegationRefusedError(
        f"{what} ({label}, {error_name(code)}); {advice}", code=code, krb_error=error
    )


def check_evidence(service: Principal, evidence: ServiceTicket) -> None:
    """Raise DelegationRefusedError for an evidence ticket that cannot do, before it is sent.

    A ticket by S4U2Self need not be forwardable: Active Directory takes it for resource-based
    constrained delegation, so that the KDC has to decide.
    """
    if evidence.is_skey or evidence.is_tgt:
        kind = "a user-to-user ticket" if evidence.is_skey else "a ticket-granting ticket"
        raise CredentialError(
            f"{kind} of {evidence.client} is no evidence: pass the ticket with which the client "
            "came to the service, or one by KdcClient.impersonate"
        )
    if not evidence.flags & _FORWARDABLE and not evidence.by_s4u2self:
        what, advice = _not_forwardable(f"{service} may not act for {evidence.client}")
        raise DelegationRefusedError(f"{what}; {advice}", code=ErrorCode.KDC_ERR_BADOPTION)


def delegated_ticket(
    tgt: ServiceTicket,
    service: Principal,
    evidence: ServiceTicket,
    options: TgsOptions | None = None,
    *,
    capath: CaPath = no_capath,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a ticket for `service` in the name of the evidence's client (S4U2Proxy).

    `tgt` is that of the service that acts; `evidence` is the user's ticket for it. The service to
    get a ticket for is looked up in the realm of the TGT, whose KDC may refer to another. Raises
    DelegationRefusedError if the ticket is not forwardable (nothing is sent then), or if the KDC
    does not permit this; and ProtocolError for a reply in the name of another. Source: MS-SFU
    3.1.5.2.
    """
    check_evidence(tgt.client, evidence)
    options = options or TgsOptions()
    flags = PaPacOptions(RESOURCE_BASED).encode()
    padata = (PaData(PaDataType.PAC_OPTIONS, flags),)
    own, realms, proof = tgt, [realm_of(tgt)], evidence.ticket
    while True:
        request = _OnBehalf(
            own,
            replace(service, realm=realms[-1]),
            options,
            kdc_options=int(KdcOptions.CNAME_IN_ADDL_TKT),
            additional_tickets=(proof,),
            padata=lambda _body, _subkey: padata,
            evidence=evidence,
        )
        ticket = yield from request_ticket(request, clock, random)
        if not ticket.is_tgt:
            return ticket
        # MS-SFU 3.1.5.2.2: in the next realm, the referral TGT is the evidence.
        realms.append(check_hop(realms, realm_of(ticket), None))
        proof = ticket.ticket
        far = Principal(("krbtgt", realms[-1]), "", NameType.SRV_INST)
        own = yield from tgs_exchange(own, far, options, capath=capath, clock=clock, random=random)
