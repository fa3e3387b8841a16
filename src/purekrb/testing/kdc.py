"""The embedded KDC without sockets: request bytes in, reply bytes out. FOR TESTS AND DEMOS ONLY.

It has no database, no policies, no rate limit and no replay cache, so it does not keep attackers
out. It does check and answer requests as RFC 4120 3.1 and 3.3 demand, so that clients can be tested
against it.
"""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from purekrb import crypto, records
from purekrb.constants import (
    ErrorCode,
    KdcOptions,
    KeyUsage,
    MessageType,
    NameType,
    PaDataType,
    TicketFlags,
)
from purekrb.errors import DecodeError, IntegrityError, KerberosError, UnsupportedError
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages.ap import (
    ApReq,
    Authenticator,
    AuthorizationData,
    AuthorizationDataEntry,
    Checksum,
    EncryptedData,
    EncTicketPart,
    HostAddress,
    KrbError,
    Ticket,
    TransitedEncoding,
)
from purekrb.messages.kdc import (
    AsRep,
    AsReq,
    EncKdcRepPart,
    EtypeInfo2,
    EtypeInfo2Entry,
    KdcReqBody,
    LastReqEntry,
    MethodData,
    PaData,
    PaPacRequest,
    TgsRep,
    TgsReq,
)
from purekrb.messages.kpasswd import PasswordPolicy, Result, encode_result
from purekrb.messages.pkinit import encode_key
from purekrb.names import ANONYMOUS_REALM, PrincipalName
from purekrb.system import Clock, RandomBytes
from purekrb.testing.kdc_accounts import CLOCK_SKEW, KdcAccount, RefusedError
from purekrb.testing.kdc_fast import KdcFast, open_request
from purekrb.testing.kdc_kpasswd import CHANGEPW, answer, is_request
from purekrb.testing.kdc_preauth import KDC_MECHANISMS, KdcMechanism, PreauthRequest
from purekrb.testing.kdc_s4u import S4uRequest
from purekrb.testing.pac import Domain, pac_in, with_pac

__all__ = ["Kdc"]

logger = logging.getLogger("purekrb.testing")

#: The first byte of each request: [APPLICATION 10] and [APPLICATION 12].
_AS_REQ, _TGS_REQ = b"\x6a", b"\x6c"
#: No transited realm. The encoding is DOMAIN-X500-COMPRESS, without compression.
#: Source: RFC 4120 3.3.3.2.
_NOT_TRANSITED = TransitedEncoding(1, b"")

#: Options that this KDC does not have, whatever the ticket allows.
_FORWARDABLE = int(TicketFlags.FORWARDABLE)
_REFUSED_OPTIONS = KdcOptions.VALIDATE
#: Flags that a ticket gets if the client asks for them, by the option with the same bit, and if its
#: TGT (if any) has them.
_ON_REQUEST = TicketFlags.FORWARDABLE | TicketFlags.PROXIABLE
#: Flags that a ticket inherits from the TGT.
_INHERITED = (
    TicketFlags.PRE_AUTHENT | TicketFlags.HW_AUTHENT | TicketFlags.FORWARDED | TicketFlags.ANONYMOUS
)


@dataclass(frozen=True, slots=True)
class _Grant:
    """The content of a ticket and its reply, as decided by the KDC, without the keys."""

    sname: PrincipalName
    crealm: str
    cname: PrincipalName
    flags: int
    authtime: datetime
    starttime: datetime
    endtime: datetime
    renew_till: datetime | None
    caddr: tuple[HostAddress, ...] | None
    transited: TransitedEncoding = _NOT_TRANSITED
    authorization_data: tuple[AuthorizationDataEntry, ...] | None = None
    pac: Mapping[int, bytes] | None = None


class Kdc:
    """A KDC of one realm.

    `accounts` maps names to accounts; changes take effect with the next request. With a `domain`,
    tickets contain PACs like those of a domain controller. `clock` and `random` are the only
    sources of time and randomness; `clock_offset` is added to the time.
    """

    def __init__(
        self,
        realm: str,
        *,
        etypes: Iterable[int],
        lifetime: timedelta,
        renewable_lifetime: timedelta,
        clock: Clock,
        random: RandomBytes,
        preauth_mechanisms: Iterable[KdcMechanism] = KDC_MECHANISMS,
    ) -> None:
        self.realm = realm
        self.preauth_mechanisms = tuple(preauth_mechanisms)
        self.lifetime = lifetime
        self.renewable_lifetime = renewable_lifetime
        self.clock_offset = timedelta(0)
        self.accounts: dict[PrincipalName, KdcAccount] = {}
        self.aliases: dict[PrincipalName, PrincipalName] = {}
        self.domain: Domain | None = None
        #: Whether this KDC has FAST, and announces it.
        self.fast = True
        #: Realms that this one trusts, by name.
        self.trusted: dict[str, Kdc] = {}
        self._clock = clock
        self.random = random
        self.password_policy: PasswordPolicy | None = None
        #: The padata for S4U2Self that this KDC knows.
        self.s4u_padata = frozenset((PaDataType.FOR_USER, PaDataType.S4U_X509_USER))
        #: Who has which certificate (DER).
        self.certificates: dict[bytes, PrincipalName] = {}
        self.tgs = PrincipalName(("krbtgt", realm), NameType.SRV_INST)
        for name in (self.tgs, CHANGEPW):
            self.accounts[name] = KdcAccount(name, tuple(etypes), 1).with_random_keys(1, random)

    def now(self) -> datetime:
        """Return the time by the clock of this KDC."""
        return self._clock() + self.clock_offset

    def handle(self, request: bytes) -> bytes:
        """Return the reply to `request`: an AS-REP, a TGS-REP or a KRB-ERROR. Never raises."""
        body: KdcReqBody | None = None
        try:
            if request[:1] == _AS_REQ:
                as_req = AsReq.decode(request)
                body = as_req.req_body
                return self._answer_as_req(as_req, request)
            if request[:1] == _TGS_REQ:
                tgs_req = TgsReq.decode(request)
                body = tgs_req.req_body
                return self._answer_tgs_req(tgs_req)
            if is_request(request):
                return answer(self, request) or self.error(
                    ErrorCode.KRB_AP_ERR_MODIFIED,
                    "the request is not genuine",
                    e_data=encode_result(Result.AUTHERROR, b"authentication failed"),
                )
            return self.error(ErrorCode.KRB_AP_ERR_MSG_TYPE, "neither an AS-REQ nor a TGS-REQ")
        except RefusedError as refused:
            return self._krb_error(refused, body).encode()
        except DecodeError as error:
            return self.error(ErrorCode.KRB_ERR_GENERIC, f"malformed request: {error}", body)
        except KerberosError as error:
            return self.error(ErrorCode.KRB_ERR_GENERIC, str(error), body)
        except Exception as error:
            # The KDC must survive its own faults. The log omits the message, which might quote
            # keys.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("the embedded KDC failed with %s at\n%s", type(error).__name__, where)
            return self.error(ErrorCode.KRB_ERR_GENERIC, "internal error", body)

    def error(
        self,
        code: ErrorCode,
        text: str,
        body: KdcReqBody | None = None,
        *,
        e_data: bytes | None = None,
        crealm: str | None = None,
    ) -> bytes:
        """Return a KRB-ERROR, with the names in the request, if any. Source: RFC 4120 5.9.1."""
        refused = RefusedError(code, text, e_data=e_data, crealm=crealm)
        return self._krb_error(refused, body).encode()

    def _krb_error(self, refused: RefusedError, body: KdcReqBody | None) -> KrbError:
        cname = body.cname if body else None
        now = self.now()
        code, text = refused.code, refused.text
        logger.debug("KRB-ERROR %d %s: %s", code, code.name, text)
        return KrbError(
            pvno=5,
            msg_type=MessageType.KRB_ERROR,
            ctime=None,
            cusec=None,
            stime=now.replace(microsecond=0),
            susec=now.microsecond,
            error_code=code,
            crealm=refused.crealm or (self.realm if cname else None),
            cname=cname,
            realm=self.realm,
            sname=body.sname if body and body.sname else self.tgs,
            e_text=text,
            e_data=refused.e_data,
        )

    def _key_exchange(self, reply_key: EncryptionKey, etype: int) -> tuple[EncryptionKey, PaData]:
        """Return a session key to which both keys contribute, and the proof. RFC 8062 7."""
        contribution = crypto.random_key(etype, self.random)
        session_key = crypto.cf2(contribution, reply_key, b"PKINIT", b"KEYEXCHANGE")
        encrypted = self._encrypt(reply_key, KeyUsage.PA_PKINIT_KX, encode_key(contribution), None)
        return session_key, PaData(PaDataType.PKINIT_KX, encrypted.encode())

    # -- FAST --------------------------------------------------------------------------------------

    def _in_fast(self, fast: KdcFast, answer: Callable[[], bytes]) -> bytes:
        """Return the answer to a request in FAST; a refusal goes into the armor, too."""
        try:
            return answer()
        except RefusedError as refused:
            return fast.error(self._krb_error(refused, fast.body)).encode()

    def _open_armor(self, ap_req: ApReq) -> tuple[EncryptionKey, EncryptionKey]:
        """Return the session key and the subkey of the armor's AP-REQ. RFC 6113 5.4.1.1."""
        _, ticket, authenticator = self._open_ap_req(ap_req, KeyUsage.AP_REQ_AUTHENTICATOR, 0)
        if authenticator.subkey is None:
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "the armor has no subkey")
        return ticket.key, authenticator.subkey

    # -- the AS exchange ---------------------------------------------------------------------------

    def _answer_as_req(self, req: AsReq, request: bytes) -> bytes:
        """Return the AS-REP, in FAST if the request is."""
        value = _find(req.padata, PaDataType.FX_FAST) if self.fast else None
        if value is None:
            return self._as_rep(req, request, None)
        checked = req.req_body.encode()
        fast = open_request(value.padata_value, self._open_armor, self.random, checked=checked)
        inner = AsReq(fast.padata, fast.body)
        return self._in_fast(fast, lambda: self._as_rep(inner, request, fast))

    def _as_rep(self, req: AsReq, request: bytes, fast: KdcFast | None) -> bytes:
        """Return the AS-REP. Source: RFC 4120 3.1.3."""
        body = req.req_body
        logger.debug("AS-REQ of %s for %s, etypes %s", body.cname, body.sname, body.etype)
        client = self._client(body)
        service, sname = self._service(body)
        if client.disabled:
            raise RefusedError(ErrorCode.KDC_ERR_CLIENT_REVOKED, "the client is disabled")
        if client.password_expired and service.name != CHANGEPW:  # RFC 3244 2
            raise RefusedError(ErrorCode.KDC_ERR_KEY_EXPIRED, "the client's password has expired")
        etype = next((e for e in body.etype if e in client.etypes), None)
        if etype is None:
            raise RefusedError(
                ErrorCode.KDC_ERR_ETYPE_NOSUPP, "the client has no key of any etype in the request"
            )
        flags = TicketFlags.INITIAL | TicketFlags(body.kdc_options & _ON_REQUEST)
        armor_key = fast.armor_key if fast else None
        proof = PreauthRequest(client, req, request, self.now(), self.random, armor_key)
        proven_key, proven_flag = self._verify_proof(proof)
        flags |= proven_flag
        if client.name.anonymous:
            flags |= TicketFlags.ANONYMOUS
        cname = body.cname or client.name
        if body.kdc_options & KdcOptions.CANONICALIZE:
            cname = client.name
        grant = self._grant(
            body,
            sname,
            flags,
            ANONYMOUS_REALM if cname.anonymous else self.realm,
            cname,
            lifetimes=(client.lifetime, service.lifetime),
        )
        if self.domain is not None and _wants_pac(req.padata):
            grant = replace(grant, pac=self.domain.buffers(grant.cname, grant.authtime))
        reply_key = proven_key or _key_of(client, etype)
        session_key = None
        if proof.key_exchange:
            session_key, contribution = self._key_exchange(reply_key, _session_etype(body, service))
            proof.answers.append(contribution)
        if fast is not None:
            reply_key = fast.reply_key(reply_key)
        encrypted_padata: tuple[PaData, ...] | None = None
        if _find(req.padata, PaDataType.ENC_PA_REP) is not None:
            # Proves that the request, including its pre-authentication, arrived unchanged.
            # RFC 6806 11.
            mac = crypto.checksum(reply_key, KeyUsage.AS_REQ_ENC_PA_REP, request)
            made = Checksum(crypto.profile_of(reply_key.etype).checksum_type, mac).encode()
            encrypted_padata = (PaData(PaDataType.ENC_PA_REP, made), *self._announcement())
            grant = replace(grant, flags=grant.flags | TicketFlags.ENC_PA_REP)
        ticket, enc_part = self._issue(grant, service, body, encrypted_padata, session_key)
        info = EtypeInfo2(_etype_info(client, (etype,))).encode()
        padata: tuple[PaData, ...] = (PaData(PaDataType.ETYPE_INFO2, info), *proof.answers)
        if fast is not None:
            padata = fast.reply(padata, grant.crealm, grant.cname, ticket, self.now())
        return AsRep(
            padata=padata,
            crealm=grant.crealm,
            cname=grant.cname,
            ticket=ticket,
            enc_part=self._encrypt(
                reply_key,
                KeyUsage.AS_REP_ENC_PART,
                enc_part.encode(MessageType.AS_REP),
                client.kvno,
            ),
        ).encode()

    def _client(self, body: KdcReqBody) -> KdcAccount:
        """Return the account of the client. Source: RFC 4120 3.1.3, RFC 6806 5 to 7."""
        canonicalize = bool(body.kdc_options & KdcOptions.CANONICALIZE)
        return self.client(body.cname, body.realm, canonicalize=canonicalize)

    def client(self, cname: PrincipalName | None, realm: str, *, canonicalize: bool) -> KdcAccount:
        """Return the account of a client by its name; only `canonicalize` knows other names."""
        if cname is None:
            raise RefusedError(ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN, "the request names no client")
        if canonicalize:
            if cname.name_type == NameType.ENTERPRISE:
                local, at, suffix = "/".join(cname.components).rpartition("@")
                if at and suffix.upper() in self.trusted:
                    raise RefusedError(
                        ErrorCode.KDC_ERR_WRONG_REALM, "ask that realm", crealm=suffix.upper()
                    )
                if at and suffix.upper() == self.realm:
                    cname = PrincipalName((local,))
            cname = self.aliases.get(cname, cname)
        account = self.accounts.get(cname)
        if account is None or realm != self.realm:
            raise RefusedError(
                ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN, "client not found in this realm"
            )
        return account

    def _verify_proof(self, request: PreauthRequest) -> tuple[EncryptionKey | None, int]:
        """Return the key for the reply (None: the client's own), and the flag for the proof.

        Refuses a wrong proof, and a missing proof if the account requires one.
        Source: RFC 4120 3.1.3.
        """
        for mechanism in self.preauth_mechanisms:
            proof = _find(request.message.padata, mechanism.type)
            if proof is None:
                continue
            try:
                return mechanism.verify(request, proof.padata_value), TicketFlags.PRE_AUTHENT
            except RefusedError as refused:
                if refused.code == ErrorCode.KDC_ERR_PREAUTH_FAILED:
                    refused.e_data = self._method_data(request)
                raise
        if request.client.preauth:
            raise RefusedError(
                ErrorCode.KDC_ERR_PREAUTH_REQUIRED,
                "preauthentication is required",
                e_data=self._method_data(request),
            )
        return None, 0

    def _method_data(self, request: PreauthRequest) -> bytes:
        """Return the METHOD-DATA, which tells the client how to pre-authenticate.

        Source: RFC 4120 5.2.7.5, 5.9.1.
        """
        client = request.client
        etypes = [e for e in request.message.req_body.etype if e in client.etypes]
        methods = [
            PaData(PaDataType.ETYPE_INFO2, EtypeInfo2(_etype_info(client, etypes)).encode()),
            *self._announcement(),
        ]
        for mechanism in self.preauth_mechanisms:
            hint = mechanism.hint(request)
            if hint is not None:
                methods.append(PaData(getattr(mechanism, "offer_type", mechanism.type), hint))
        methods += request.offers
        if request.cookie is not None:
            methods.append(PaData(PaDataType.FX_COOKIE, request.cookie))
        return MethodData(tuple(methods)).encode()

    def _announcement(self) -> tuple[PaData, ...]:
        """Return the padata by which this KDC says that it has FAST. Source: RFC 6113 5.4, 6806 11."""
        return (PaData(PaDataType.FX_FAST, b""),) if self.fast else ()

    # -- the TGS exchange --------------------------------------------------------------------------

    def _answer_tgs_req(self, req: TgsReq) -> bytes:
        """Return the TGS-REP, in FAST if the request is."""
        pa_tgs_req = _find(req.padata, PaDataType.TGS_REQ)
        if pa_tgs_req is None:
            raise RefusedError(ErrorCode.KDC_ERR_PADATA_TYPE_NOSUPP, "a TGS-REQ without PA-TGS-REQ")
        header, tgt, authenticator = self._verify_pa_tgs_req(
            ApReq.decode(pa_tgs_req.padata_value), req.req_body
        )
        value = _find(req.padata, PaDataType.FX_FAST) if self.fast else None
        if value is None or authenticator.subkey is None:
            return self._tgs_rep(req, header, tgt, authenticator, None)
        fast = open_request(
            value.padata_value,
            self._open_armor,
            self.random,
            checked=pa_tgs_req.padata_value,
            implicit=(tgt.key, authenticator.subkey),
        )
        inner = TgsReq(fast.padata, fast.body)
        return self._in_fast(fast, lambda: self._tgs_rep(inner, header, tgt, authenticator, fast))

    def _tgs_rep(
        self,
        req: TgsReq,
        header: Ticket,
        tgt: EncTicketPart,
        authenticator: Authenticator,
        fast: KdcFast | None,
    ) -> bytes:
        """Return the TGS-REP. Source: RFC 4120 3.3.3."""
        body = req.req_body
        logger.debug(
            "TGS-REQ of %s@%s for %s, etypes %s", tgt.cname, tgt.crealm, body.sname, body.etype
        )
        options = KdcOptions(body.kdc_options)
        _check_options(options, tgt, header, body)
        service, sname = self._service(body)
        reply_key, usage = tgt.key, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY
        if authenticator.subkey is not None:
            reply_key, usage = authenticator.subkey, KeyUsage.TGS_REP_ENC_PART_SUBKEY
        if fast is not None:
            reply_key = fast.reply_key(reply_key)
        grant = self._grant(
            body,
            sname,
            tgt.flags & (_INHERITED | (options & _ON_REQUEST)),
            tgt.crealm,
            tgt.cname,
            lifetimes=(service.lifetime,),
            tgt=tgt,
        )
        grant = replace(
            grant,
            transited=self._transited(tgt, header),
            authorization_data=_authorization_data(tgt, authenticator, body),
            pac=pac_in(tgt.authorization_data),
        )
        if options & KdcOptions.RENEW:
            # The new ticket has the same lifetime as the old one. RFC 4120 3.3.3.
            life = tgt.endtime - (tgt.starttime or tgt.authtime)
            endtime = min(grant.starttime + life, tgt.renew_till or tgt.endtime)
            grant = replace(
                grant,
                flags=tgt.flags & ~TicketFlags.INITIAL,
                endtime=endtime,
                renew_till=tgt.renew_till,
            )
        if options & KdcOptions.FORWARDED:
            grant = replace(grant, flags=grant.flags | TicketFlags.FORWARDED, caddr=body.addresses)
        if options & KdcOptions.PROXY:
            grant = replace(grant, flags=grant.flags | TicketFlags.PROXY, caddr=body.addresses)
        answers: tuple[PaData, ...] = ()
        asked = S4uRequest(self, req, header, tgt, authenticator, service)
        subject = asked.subject()
        if subject is None and header.realm != self.realm and tgt.crealm == self.realm:
            raise RefusedError(
                ErrorCode.KDC_ERR_POLICY, "another realm cannot speak for clients of this one"
            )
        if subject is not None:  # the service asks in the name of a user
            answers = subject.answers
            grant = replace(
                grant,
                crealm=subject.crealm,
                cname=subject.cname,
                flags=grant.flags if subject.forwardable else grant.flags & ~_FORWARDABLE,
                authtime=subject.authtime,
                endtime=min(grant.endtime, subject.endtime),
                authorization_data=subject.authorization_data,
                pac=subject.pac,
            )
        under = self._session_key_of(service, body)
        ticket, enc_part = self._issue(grant, service, body, under=under)
        padata = answers
        if fast is not None:
            padata = fast.reply(answers, grant.crealm, grant.cname, ticket, self.now())
        return TgsRep(
            padata=padata or None,
            crealm=grant.crealm,
            cname=grant.cname,
            ticket=ticket,
            enc_part=self._encrypt(reply_key, usage, enc_part.encode(MessageType.TGS_REP), None),
        ).encode()

    def _session_key_of(self, service: KdcAccount, body: KdcReqBody) -> EncryptionKey | None:
        """Return the session key of the TGT in a user-to-user request, or None. RFC 4120 3.3.3."""
        if not body.kdc_options & KdcOptions.ENC_TKT_IN_SKEY:
            if service.user_to_user:
                raise RefusedError(
                    ErrorCode.KDC_ERR_MUST_USE_USER2USER, "tickets for it are user-to-user only"
                )
            return None
        second = Ticket.decode((body.additional_tickets or (b"",))[0])
        tgs = self.accounts[self.tgs]
        key = tgs.key(second.enc_part.etype, second.enc_part.kvno)
        if (second.realm, second.sname) != (self.realm, self.tgs) or key is None:
            raise RefusedError(
                ErrorCode.KDC_ERR_POLICY, "the second ticket is no TGT of this realm"
            )
        try:
            theirs = EncTicketPart.decode(
                crypto.decrypt(key, KeyUsage.TICKET, second.enc_part.cipher)
            )
        except IntegrityError:
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_MODIFIED, "the second ticket does not decrypt"
            ) from None
        owner = self.aliases.get(theirs.cname, theirs.cname)
        if (theirs.crealm, owner) != (self.realm, service.name):
            raise RefusedError(
                ErrorCode.KDC_ERR_SERVER_NOMATCH, "the second ticket is not that of the service"
            )
        if theirs.endtime < self.now():
            raise RefusedError(ErrorCode.KRB_AP_ERR_TKT_EXPIRED, "the second ticket has expired")
        return theirs.key

    def _verify_pa_tgs_req(
        self, ap_req: ApReq, body: KdcReqBody
    ) -> tuple[Ticket, EncTicketPart, Authenticator]:
        """Return the ticket in the request, its decrypted part, and the authenticator.

        Source: RFC 4120 3.3.2.
        """
        header, tgt, authenticator = self._open_ap_req(
            ap_req, KeyUsage.TGS_REQ_AUTHENTICATOR, body.kdc_options
        )
        cksum = authenticator.cksum
        if cksum is None or cksum.cksumtype != crypto.profile_of(tgt.key.etype).checksum_type:
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_INAPP_CKSUM,
                "the request body has no checksum with the session key",
            )
        try:
            crypto.verify_checksum(
                tgt.key, KeyUsage.TGS_REQ_AUTHENTICATOR_CHECKSUM, body.encode(), cksum.checksum
            )
        except IntegrityError:
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_MODIFIED, "the request body was modified"
            ) from None
        return header, tgt, authenticator

    def _open_ap_req(
        self, ap_req: ApReq, usage: int, options: int
    ) -> tuple[Ticket, EncTicketPart, Authenticator]:
        """Return the ticket of an AP-REQ to this KDC, its decrypted part, and the authenticator."""
        header = Ticket.decode(ap_req.ticket)
        if (ap_req.pvno, header.tkt_vno) != (5, 5):
            raise RefusedError(ErrorCode.KRB_AP_ERR_BADVERSION, "not Kerberos 5")
        if ap_req.msg_type != MessageType.AP_REQ:
            raise RefusedError(ErrorCode.KRB_AP_ERR_MSG_TYPE, "there is no AP-REQ")
        key = self._header_key(header, options)
        try:
            tgt = EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, header.enc_part.cipher))
            authenticator = Authenticator.decode(
                crypto.decrypt(tgt.key, usage, ap_req.authenticator.cipher)
            )
        except IntegrityError:
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
                "the ticket or the authenticator does not decrypt",
            ) from None
        if (authenticator.crealm, authenticator.cname) != (tgt.crealm, tgt.cname):
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_BADMATCH,
                "the authenticator names another client than the ticket",
            )
        now = self.now()
        client_time = authenticator.ctime + timedelta(microseconds=authenticator.cusec)
        if abs(client_time - now) > CLOCK_SKEW:
            raise RefusedError(ErrorCode.KRB_AP_ERR_SKEW, "the clock of the client is too far off")
        if tgt.endtime < now - CLOCK_SKEW:
            raise RefusedError(ErrorCode.KRB_AP_ERR_TKT_EXPIRED, "the ticket has expired")
        if (tgt.starttime or tgt.authtime) > now + CLOCK_SKEW or tgt.flags & TicketFlags.INVALID:
            raise RefusedError(ErrorCode.KRB_AP_ERR_TKT_NYV, "the ticket is not yet valid")
        return header, tgt, authenticator

    def _header_key(self, header: Ticket, options: int) -> EncryptionKey:
        """Return the key with which the ticket of a TGS-REQ is encrypted.

        The ticket is a TGT from this realm or from a trusted one; or any ticket from this realm, to
        be renewed.
        """
        issuer = self if header.realm == self.realm else self.trusted.get(header.realm)
        account = issuer.accounts.get(header.sname) if issuer else None
        to_renew = issuer is self and options & KdcOptions.RENEW
        if account is None or (header.sname != self.tgs and not to_renew):
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_NOT_US, "the ticket is not for this ticket-granting service"
            )
        key = account.key(header.enc_part.etype, header.enc_part.kvno)
        if key is None:
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_BADKEYVER, "no key of the ticket's kvno and etype"
            )
        return key

    def _service(self, body: KdcReqBody) -> tuple[KdcAccount, PrincipalName]:
        """Return the account of the service to make a ticket for, and the name in the ticket.

        It is the requested service; or, if that is in another realm, the ticket-granting service on
        the way there. Source: RFC 4120 3.3.1, RFC 6806 8.
        """
        sname = body.sname
        if sname is None or body.realm != self.realm:
            raise RefusedError(
                ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN, "service not found in this realm"
            )
        if sname.name_type == NameType.ENTERPRISE:  # as S4U2Self asks for: MS-SFU 3.1.5.1.1.1
            text, _, realm = "/".join(sname.components).rpartition("@")
            here = realm.upper() == self.realm
            sname = PrincipalName(tuple(text.split("/")) if here else ("krbtgt", realm))
        canonical = self.aliases.get(sname, sname)
        account = self.accounts.get(canonical)
        if account is None:
            canonical = sname = self._referral(
                sname, bool(body.kdc_options & KdcOptions.CANONICALIZE)
            )
            account = self.accounts[sname]
            logger.debug("referral to %s", sname)
        if account.disabled:
            raise RefusedError(ErrorCode.KDC_ERR_SERVICE_REVOKED, "the service is disabled")
        return account, (canonical if body.kdc_options & KdcOptions.CANONICALIZE else sname)

    def _referral(self, sname: PrincipalName, canonicalize: bool) -> PrincipalName:
        """Return the ticket-granting service on the way to a service in another realm."""
        way: tuple[str, Kdc] | None = None
        if len(sname.components) == 2 and sname.components[0] == "krbtgt":
            way = self.way_to(lambda kdc: kdc.realm == sname.components[1])
        elif canonicalize:
            way = self.way_to(lambda kdc: sname in kdc.accounts or sname in kdc.aliases)
        if way is None:
            raise RefusedError(
                ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN, "service not found in this realm"
            )
        return PrincipalName(("krbtgt", way[0]), NameType.SRV_INST)

    def way_to(self, wanted: Callable[[Kdc], bool]) -> tuple[str, Kdc] | None:
        """Return the first realm on the shortest way to a `wanted` KDC, and that KDC, or None."""
        seen = {self.realm}
        queue = deque((name, kdc) for name, kdc in self.trusted.items())
        while queue:
            first, kdc = queue.popleft()
            if wanted(kdc):
                return first, kdc
            seen.add(kdc.realm)
            queue.extend(
                (first, further) for further in kdc.trusted.values() if further.realm not in seen
            )
        return None

    def _transited(self, tgt: EncTicketPart, header: Ticket) -> TransitedEncoding:
        """Return the realms between the client and this one, including the issuer of this TGT.

        Source: RFC 4120 3.3.3.2.
        """
        if header.realm in (self.realm, tgt.crealm):
            return tgt.transited
        realms = [part for part in (tgt.transited.contents, header.realm.encode()) if part]
        return records.replace(_NOT_TRANSITED, contents=b",".join(realms))

    # -- both exchanges ----------------------------------------------------------------------------

    def _grant(
        self,
        body: KdcReqBody,
        sname: PrincipalName,
        flags: int,
        crealm: str,
        cname: PrincipalName,
        *,
        lifetimes: tuple[timedelta | None, ...],
        tgt: EncTicketPart | None = None,
    ) -> _Grant:
        """Return the ticket's content, with times and flags. Source: RFC 4120 3.1.3, 3.3.3."""
        options = body.kdc_options
        now = self.now().replace(microsecond=0)
        starts_later = body.from_ is not None and body.from_ > now + CLOCK_SKEW
        if options & KdcOptions.POSTDATED or starts_later:
            raise RefusedError(ErrorCode.KDC_ERR_CANNOT_POSTDATE, "tickets are not postdated here")
        endtime = min([now + life for life in (self.lifetime, *lifetimes) if life is not None])
        if tgt is not None:
            endtime = min(endtime, tgt.endtime)
        # The epoch stands for "as long as possible". RFC 4120 3.1.3.
        till = body.till if body.till.timestamp() > 0 else None
        renewable = options & KdcOptions.RENEWABLE
        rtime = body.rtime
        if options & KdcOptions.RENEWABLE_OK and not renewable and (till is None or till > endtime):
            renewable, rtime = KdcOptions.RENEWABLE, till
        renew_till: datetime | None = None
        if renewable and (tgt is None or tgt.flags & TicketFlags.RENEWABLE):
            renew_till = now + self.renewable_lifetime
            if rtime is not None and rtime.timestamp() > 0:
                renew_till = min(renew_till, rtime)
            if tgt is not None and tgt.renew_till is not None:
                renew_till = min(renew_till, tgt.renew_till)
            flags |= TicketFlags.RENEWABLE
        return _Grant(
            sname=sname,
            crealm=crealm,
            cname=cname,
            flags=flags,
            authtime=tgt.authtime if tgt else now,
            starttime=now,
            endtime=endtime if till is None else min(endtime, till),
            renew_till=renew_till,
            caddr=tgt.caddr if tgt else body.addresses,
        )

    def _issue(
        self,
        grant: _Grant,
        service: KdcAccount,
        body: KdcReqBody,
        encrypted_padata: tuple[PaData, ...] | None = None,
        session_key: EncryptionKey | None = None,
        under: EncryptionKey | None = None,
    ) -> tuple[bytes, EncKdcRepPart]:
        """Return the ticket and the encrypted part of its reply, with a fresh session key.

        The ticket is under the key of the service, or another one.
        """
        if grant.endtime <= grant.starttime:
            raise RefusedError(
                ErrorCode.KDC_ERR_NEVER_VALID, "the ticket would end before it starts"
            )
        if session_key is None:
            session_key = crypto.random_key(_session_etype(body, service), self.random)
        flags = grant.flags | TicketFlags.TRANSITED_POLICY_CHECKED
        if service.ok_as_delegate:
            flags |= TicketFlags.OK_AS_DELEGATE
        ticket_key = under or _key_of(service, service.etypes[0])
        kvno = service.kvno if under is None else None
        inside = EncTicketPart(
            flags=flags,
            key=session_key,
            crealm=grant.crealm,
            cname=grant.cname,
            transited=grant.transited,
            authtime=grant.authtime,
            starttime=grant.starttime,
            endtime=grant.endtime,
            renew_till=grant.renew_till,
            caddr=grant.caddr,
            authorization_data=grant.authorization_data,
        )
        if grant.pac is not None:
            kdc = self.accounts[self.tgs]
            inside = with_pac(
                inside,
                grant.pac,
                ticket_key,
                _key_of(kdc, kdc.etypes[0]),
                rodc=self.domain.rodc if self.domain else None,
                signs_ticket=service.name.components[0] != self.tgs.components[0],
            )
        enc_part = self._encrypt(ticket_key, KeyUsage.TICKET, inside.encode(), kvno)
        logger.debug(
            "ticket for %s to %s@%s: %s kvno %s, session key %s, until %s",
            grant.sname,
            grant.cname,
            grant.crealm,
            etype_name(ticket_key.etype),
            kvno,
            etype_name(session_key.etype),
            grant.endtime,
        )
        return Ticket(5, self.realm, grant.sname, enc_part).encode(), EncKdcRepPart(
            key=session_key,
            last_req=(LastReqEntry(0, grant.starttime),),
            nonce=body.nonce,
            key_expiration=None,
            flags=flags,
            authtime=grant.authtime,
            starttime=grant.starttime,
            endtime=grant.endtime,
            renew_till=grant.renew_till,
            srealm=self.realm,
            sname=grant.sname,
            caddr=grant.caddr,
            encrypted_pa_data=encrypted_padata,
        )

    def _encrypt(
        self, key: EncryptionKey, usage: int, plaintext: bytes, kvno: int | None
    ) -> EncryptedData:
        try:
            confounder = self.random(crypto.profile_of(key.etype).confounder_size)
        except UnsupportedError:  # the key is a subkey, which the client has chosen
            raise RefusedError(
                ErrorCode.KDC_ERR_ETYPE_NOSUPP, "the subkey has an unknown etype"
            ) from None
        return EncryptedData(key.etype, kvno, crypto.encrypt(key, usage, plaintext, confounder))


def _find(padata: Iterable[PaData] | None, padata_type: int) -> PaData | None:
    return next((pa for pa in padata or () if pa.padata_type == padata_type), None)


def _wants_pac(padata: Iterable[PaData] | None) -> bool:
    """Return whether to add a PAC: unless the client asks for none. Source: MS-KILE 2.2.3."""
    request = _find(padata, PaDataType.PAC_REQUEST)
    return request is None or PaPacRequest.decode(request.padata_value).include_pac


def _session_etype(body: KdcReqBody, service: KdcAccount) -> int:
    etype = next((e for e in body.etype if e in service.etypes), None)
    if etype is None:
        raise RefusedError(
            ErrorCode.KDC_ERR_ETYPE_NOSUPP, "the service supports no etype in the request"
        )
    return etype


def _key_of(account: KdcAccount, etype: int) -> EncryptionKey:
    key = account.key(etype)
    if key is None:
        raise RefusedError(
            ErrorCode.KDC_ERR_NULL_KEY, f"{account.name} has no key of {etype_name(etype)}"
        )
    return key


def _etype_info(client: KdcAccount, etypes: Iterable[int]) -> tuple[EtypeInfo2Entry, ...]:
    return tuple(EtypeInfo2Entry(e, client.salt, client.s2kparams) for e in etypes)


def _check_options(
    options: KdcOptions, tgt: EncTicketPart, header: Ticket, body: KdcReqBody
) -> None:
    """Refuse options that the ticket does not allow, or that this KDC does not have.

    Source: RFC 4120 3.3.3.
    """
    additional = options & (KdcOptions.CNAME_IN_ADDL_TKT | KdcOptions.ENC_TKT_IN_SKEY)
    if options & _REFUSED_OPTIONS or bool(body.additional_tickets) != bool(additional):
        raise RefusedError(ErrorCode.KDC_ERR_BADOPTION, "this KDC does not have that option")
    if options & KdcOptions.FORWARDED and not tgt.flags & TicketFlags.FORWARDABLE:
        raise RefusedError(ErrorCode.KDC_ERR_BADOPTION, "the ticket is not forwardable")
    if options & KdcOptions.PROXY and not tgt.flags & TicketFlags.PROXIABLE:
        raise RefusedError(ErrorCode.KDC_ERR_BADOPTION, "the ticket is not proxiable")
    if options & KdcOptions.RENEW:
        if not tgt.flags & TicketFlags.RENEWABLE or tgt.renew_till is None:
            raise RefusedError(ErrorCode.KDC_ERR_BADOPTION, "the ticket is not renewable")
        if body.sname != header.sname:
            raise RefusedError(
                ErrorCode.KDC_ERR_SERVER_NOMATCH, "a ticket is renewed for the same service"
            )


def _authorization_data(
    tgt: EncTicketPart, authenticator: Authenticator, body: KdcReqBody
) -> tuple[AuthorizationDataEntry, ...] | None:
    """Return the ticket's authorization data: those of the TGT, and those that the client adds.

    Source: RFC 4120 3.3.2, 5.4.1.
    """
    added: tuple[AuthorizationDataEntry, ...] = ()
    if body.enc_authorization_data is not None:
        key, usage = tgt.key, KeyUsage.TGS_REQ_AUTH_DATA_SESSION_KEY
        if authenticator.subkey is not None:
            key, usage = authenticator.subkey, KeyUsage.TGS_REQ_AUTH_DATA_SUBKEY
        try:
            plain = crypto.decrypt(key, usage, body.enc_authorization_data.cipher)
        except IntegrityError:
            raise RefusedError(
                ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, "the authorization data does not decrypt"
            ) from None
        added = AuthorizationData.decode(plain).entries
    return (*added, *(tgt.authorization_data or ())) or None
