"""S4U at the embedded KDC: whose name a service may act in, and where. FOR TESTS AND DEMOS ONLY.

`purekrb.exchanges.s4u` is the client's side. Source: MS-SFU 3.2.5.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from purekrb import crypto
from purekrb.constants import ErrorCode, KdcOptions, KeyUsage, PaDataType, TicketFlags
from purekrb.crypto.rc4 import hmac_md5_checksum
from purekrb.errors import IntegrityError
from purekrb.messages.ap import (
    Authenticator,
    AuthorizationDataEntry,
    Checksum,
    EncTicketPart,
    Ticket,
)
from purekrb.messages.kdc import MethodData, PaData, TgsReq
from purekrb.messages.s4u import (
    RESOURCE_BASED,
    USE_REPLY_KEY_USAGE,
    PaForUser,
    PaPacOptions,
    PaS4uX509User,
    S4uUserId,
)
from purekrb.names import Principal, PrincipalName
from purekrb.testing.kdc_accounts import KdcAccount, RefusedError
from purekrb.testing.pac import pac_in

if TYPE_CHECKING:
    from purekrb.testing.kdc import Kdc

__all__ = ["S4uRequest", "Subject"]

_STATUS_ACCOUNT_RESTRICTION, _STATUS_NOT_FOUND = 0xC000006E, 0xC0000225


@dataclass(frozen=True, slots=True)
class Subject:
    """In whose name a ticket is, if not in that of the TGT's client."""

    crealm: str
    cname: PrincipalName
    forwardable: bool
    authtime: datetime
    endtime: datetime
    authorization_data: tuple[AuthorizationDataEntry, ...] | None
    pac: Mapping[int, bytes] | None
    answers: tuple[PaData, ...] = ()


@dataclass(frozen=True, slots=True)
class S4uRequest:
    """A TGS-REQ for `service`: `tgt` is what the ticket `header` holds."""

    kdc: Kdc
    message: TgsReq
    header: Ticket
    tgt: EncTicketPart
    authenticator: Authenticator
    service: KdcAccount

    def subject(self) -> Subject | None:
        """Return in whose name the service asks; None: in its own. Raises RefusedError."""
        if self.message.req_body.kdc_options & KdcOptions.CNAME_IN_ADDL_TKT:
            return self._of_evidence()
        asked = self._asked_user()
        return None if asked is None else self._of_user(*asked)

    @property
    def _is_referral(self) -> bool:
        return self.service.name.components[0] == "krbtgt"

    @property
    def _caller(self) -> Principal:
        return self.tgt.cname.principal(self.tgt.crealm)

    # -- S4U2Self

    def _asked_user(self) -> tuple[PrincipalName | None, str, bytes | None, PaData | None] | None:
        """Return name, realm and certificate of the user in the padata, and the answer to them."""
        kdc = self.kdc
        for found in self.message.padata or ():
            if found.padata_type not in kdc.s4u_padata:
                continue
            if found.padata_type == PaDataType.FOR_USER:
                old = PaForUser.decode(found.padata_value)
                data = PaForUser.checked(old.user_name, old.user_realm, old.auth_package)
                usage = KeyUsage.KERB_NON_KERB_CKSUM_SALT
                mac = hmac_md5_checksum(self.tgt.key, usage, data)
                if not hmac.compare_digest(mac, old.cksum.checksum):
                    raise _modified("PA-FOR-USER")
                return old.user_name, old.user_realm, None, None
            if found.padata_type == PaDataType.S4U_X509_USER:
                return self._x509_user(PaS4uX509User.decode(found.padata_value))
        return None

    def _x509_user(
        self, asked: PaS4uX509User
    ) -> tuple[PrincipalName | None, str, bytes | None, PaData]:
        key = self.authenticator.subkey or self.tgt.key  # as MIT's KDC
        user_id = S4uUserId.decode(asked.user_id)
        usage = KeyUsage.PA_S4U_X509_USER_REQUEST
        try:
            crypto.verify_checksum(key, usage, asked.user_id, asked.checksum.checksum)
        except IntegrityError:
            raise _modified("PA-S4U-X509-USER") from None
        if user_id.nonce != self.message.req_body.nonce:
            raise _modified("PA-S4U-X509-USER")
        if (user_id.options or 0) & USE_REPLY_KEY_USAGE:
            usage = KeyUsage.PA_S4U_X509_USER_REPLY
        kind = crypto.profile_of(key.etype).checksum_type
        mac = crypto.checksum(key, usage, asked.user_id)
        answer = PaS4uX509User(asked.user_id, Checksum(kind, mac)).encode()
        return (
            user_id.cname,
            user_id.crealm,
            user_id.subject_certificate,
            PaData(PaDataType.S4U_X509_USER, answer),
        )

    def _of_user(
        self,
        name: PrincipalName | None,
        realm: str,
        certificate: bytes | None,
        answer: PaData | None,
    ) -> Subject:
        kdc, tgt = self.kdc, self.tgt
        pac = pac_in(tgt.authorization_data)
        forwardable = True
        if realm == kdc.realm:
            if certificate is not None:
                name = kdc.certificates.get(certificate)
            user = kdc.client(name, realm, canonicalize=True)
            if user.disabled:
                raise RefusedError(ErrorCode.KDC_ERR_CLIENT_REVOKED, "the user is disabled")
            name, forwardable = user.name, not user.not_delegated
            if kdc.domain is not None:
                pac = kdc.domain.buffers(name, tgt.authtime)
        else:
            # A domain controller finds the canonical name in the PAC of the referral TGT.
            way = kdc.way_to(lambda other: other.realm == realm)
            if self.header.realm == kdc.realm or way is None:
                raise RefusedError(
                    ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN, "ask the KDC of the user's realm first"
                )
            name = way[1].client(name, realm, canonicalize=True).name
        if self._is_referral:  # the user is in the PAC; the TGT stays that of the service
            crealm, cname = tgt.crealm, tgt.cname
        elif self.service.name.principal(kdc.realm) != self._caller:
            raise RefusedError(
                ErrorCode.KDC_ERR_BADOPTION, "a service asks for tickets for itself only"
            )
        else:
            crealm, cname = realm, name
            forwardable = forwardable and self.service.trusted_to_auth
        return Subject(
            crealm,
            cname,
            forwardable,
            tgt.authtime,
            tgt.endtime,
            None,
            pac,
            () if answer is None else (answer,),
        )

    # -- S4U2Proxy

    def _of_evidence(self) -> Subject:
        kdc = self.kdc
        (ticket,) = (self.message.req_body.additional_tickets or ())[:1]
        evidence = self._opened(Ticket.decode(ticket))
        resource_based = bool(_pac_options(self.message.padata) & RESOURCE_BASED)
        forwardable = bool(evidence.flags & TicketFlags.FORWARDABLE)
        user = kdc.accounts.get(evidence.cname) if evidence.crealm == kdc.realm else None
        caller = kdc.accounts.get(self.tgt.cname) if self.tgt.crealm == kdc.realm else None
        allowed = resource_based and (
            self._is_referral or self._caller in self.service.delegate_from
        )
        listed = () if caller is None else caller.delegate_to
        if not allowed and self.service.name in {kdc.aliases.get(name, name) for name in listed}:
            if not forwardable:
                raise _refused("the evidence is not forwardable", _STATUS_ACCOUNT_RESTRICTION)
            allowed = True
        if not allowed:
            raise _refused("the service may not act for others there", _STATUS_NOT_FOUND)
        if user is not None and user.not_delegated:
            raise _refused("nobody may act for this user", _STATUS_ACCOUNT_RESTRICTION)
        if evidence.endtime < kdc.now():
            raise RefusedError(ErrorCode.KRB_AP_ERR_TKT_EXPIRED, "the evidence has expired")
        return Subject(
            evidence.crealm,
            evidence.cname,
            True,
            evidence.authtime,
            evidence.endtime,
            evidence.authorization_data,
            pac_in(evidence.authorization_data),
        )

    def _opened(self, ticket: Ticket) -> EncTicketPart:
        """Return the content of the evidence: a ticket for the caller, or a referral TGT."""
        kdc = self.kdc
        issuer = kdc if ticket.realm == kdc.realm else kdc.trusted.get(ticket.realm)
        account = None
        if issuer is not None:
            account = issuer.accounts.get(issuer.aliases.get(ticket.sname, ticket.sname))
        ours = ticket.sname == kdc.tgs and issuer is not kdc
        if account is None or not (ours or account.name.principal(ticket.realm) == self._caller):
            raise _refused("the evidence is no ticket for the service", _STATUS_NOT_FOUND)
        key = account.key(ticket.enc_part.etype, ticket.enc_part.kvno)
        try:
            if key is None:
                raise IntegrityError
            return EncTicketPart.decode(
                crypto.decrypt(key, KeyUsage.TICKET, ticket.enc_part.cipher)
            )
        except IntegrityError:
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_MODIFIED, "the evidence does not decrypt"
            ) from None


def _pac_options(padata: Iterable[PaData] | None) -> int:
    for found in padata or ():
        if found.padata_type == PaDataType.PAC_OPTIONS:
            return PaPacOptions.decode(found.padata_value).flags
    return 0


def _modified(what: str) -> RefusedError:
    return RefusedError(ErrorCode.KRB_AP_ERR_MODIFIED, f"the {what} is not genuine")


def _refused(text: str, status: int) -> RefusedError:
    """Return the refusal with its NTSTATUS, as Samba writes it. Source: MS-KILE 2.2.1, 2.2.2."""
    data = PaData(3, struct.pack("<III", status, 0, 1))
    return RefusedError(ErrorCode.KDC_ERR_BADOPTION, text, e_data=MethodData((data,)).encode())
