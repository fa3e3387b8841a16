"""A KDC in memory that gives genuine replies, each part of which a test can alter before it is encrypted or sent.

It checks what it is sent as strictly as a real KDC (PA-ENC-TIMESTAMP, the AP-REQ of a TGS-REQ, its checksum and
subkey), so that a positive control proves the request as well as the reply. One object serves all realms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    ErrorCode,
    KdcOptions,
    KeyUsage,
    MessageType,
    NameType,
    PaDataType,
    TicketFlags,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import IntegrityError
from purekrb.exchanges.runner import KdcRequest
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import (
    ApReq,
    Authenticator,
    Checksum,
    EncryptedData,
    EncTicketPart,
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
    LastReqEntry,
    MethodData,
    PaData,
    PaEncTsEnc,
    TgsRep,
    TgsReq,
)
from purekrb.names import Principal
from support.values import replace

__all__ = [
    "ALICE",
    "NOW",
    "PASSWORD",
    "REALM",
    "WEB",
    "Keys",
    "Password",
    "ScriptedKdc",
    "clock",
    "issue_tgt",
    "key_of",
    "stamps",
]

REALM = "EXAMPLE.TEST"
ALICE = Principal.parse(f"alice@{REALM}")
WEB = Principal.parse(f"HTTP/web.example.test@{REALM}")
PASSWORD = "correct horse"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
SKEW = timedelta(minutes=5)


def clock() -> datetime:
    """Stand still at NOW."""
    return NOW


@lru_cache(maxsize=256)
def string_to_key(etype: int, password: str, salt: bytes, params: bytes | None) -> EncryptionKey:
    return crypto.string_to_key(etype, password, salt, params)


def key_of(principal: Principal, etype: int = 18) -> EncryptionKey:
    """Return the long-term key of a service: the same in every realm, so that cross-realm tickets work."""
    size = crypto.profile_of(etype).key_size
    return EncryptionKey(etype, hashlib.sha512(f"{principal} {etype}".encode()).digest()[:size])


class Password:
    """A client with a password; counts the string-to-key calls in `asked`."""

    needs_salt = True
    certificate = kdc_trust = None
    freshness = True
    kvno: int | None = None

    def __init__(
        self,
        principal: Principal = ALICE,
        password: str = PASSWORD,
        etypes: tuple[int, ...] = (*DEFAULT_ETYPES, 23),
    ) -> None:
        self.principal = principal
        self.password = password
        self.etypes = etypes
        self.asked: list[tuple[int, bytes, bytes | None]] = []

    def key_for(self, etype: int, salt: bytes, params: bytes | None) -> EncryptionKey | None:
        self.asked.append((etype, salt, params))
        return string_to_key(etype, self.password, salt, params)

    def turn_to_other_keys(self, refused: list[int]) -> bool:
        return False


class Keys(Password):
    """A client with the keys of that password, as a keytab has them: it needs no salt."""

    needs_salt = False

    def key_for(self, etype: int, salt: bytes, params: bytes | None) -> EncryptionKey | None:
        return string_to_key(etype, self.password, f"{REALM}alice".encode(), None)


def _same(value: Any) -> Any:
    return value


@dataclass
class ScriptedKdc:
    """Give it to `run` as `send`. What a test may change:

    part, ticket, reply alter the EncKdcRepPart, the Ticket and the whole reply; plaintext and message their bytes.
    answer sees each request first and may return a KrbError or bytes of its own. refer maps a service's name in a realm
    to the realm to refer to. canonical is the client's real name. `seen` holds all requests, `realms` where they went,
    `authenticators` those of the TGS-REQs.
    """

    preauth: bool = True
    etypes: tuple[int, ...] = (18, 17, 20, 19)
    salt: bytes | None = f"{REALM}alice".encode()
    s2kparams: bytes | None = None
    canonical: Principal | None = None
    enc_pa_rep: bool = True
    clock: Callable[[], datetime] = clock
    session_etype: int | None = None
    application: int | None = None
    flags: int = TicketFlags(0)
    part: Callable[[EncKdcRepPart], EncKdcRepPart] = _same
    ticket: Callable[[Ticket], Ticket] = _same
    reply: Callable[[Any], Any] = _same
    plaintext: Callable[[bytes], bytes] = _same
    message: Callable[[bytes], bytes] = _same
    reply_key: Callable[[EncryptionKey, int], tuple[EncryptionKey, int]] = lambda key, usage: (
        key,
        usage,
    )
    answer: Callable[[AsReq | TgsReq, str], KrbError | bytes | None] = lambda request, realm: None
    refer: dict[tuple[str, str], str] = field(default_factory=dict)
    seen: list[AsReq | TgsReq] = field(default_factory=list)
    authenticators: list[Authenticator] = field(default_factory=list)
    realms: list[str] = field(default_factory=list)

    def __call__(self, request: KdcRequest) -> bytes:
        kind = AsReq if request.message[:1] == b"\x6a" else TgsReq
        decoded: AsReq | TgsReq = kind.decode(request.message)
        self.seen.append(decoded)
        self.realms.append(request.realm)
        scripted = self.answer(decoded, request.realm)
        if scripted is not None:
            return scripted if isinstance(scripted, bytes) else scripted.encode()
        if isinstance(decoded, AsReq):
            return self._as(decoded, request)
        return self._tgs(decoded, request.realm)

    # -- errors

    def error(
        self, code: int, *, e_data: bytes | None = None, realm: str = REALM, **changes: Any
    ) -> KrbError:
        now = self.clock()
        error = KrbError(
            pvno=5,
            msg_type=30,
            ctime=None,
            cusec=None,
            stime=now.replace(microsecond=0),
            susec=now.microsecond,
            error_code=code,
            crealm=None,
            cname=None,
            realm=realm,
            sname=Principal.parse(f"krbtgt/{realm}").name,
            e_text=None,
            e_data=e_data,
        )
        return replace(error, **changes)

    def etype_info2(self, *etypes: int) -> PaData:
        entries = tuple(
            EtypeInfo2Entry(e, self.salt, self.s2kparams) for e in etypes or self.etypes
        )
        return PaData(PaDataType.ETYPE_INFO2, EtypeInfo2(entries).encode())

    def preauth_required(
        self, *methods: PaData, code: int = ErrorCode.KDC_ERR_PREAUTH_REQUIRED
    ) -> KrbError:
        methods = methods or (self.etype_info2(), PaData(PaDataType.ENC_TIMESTAMP, b""))
        return self.error(code, e_data=MethodData(methods).encode())

    # -- AS

    def client_key(self, etype: int, client: Principal) -> EncryptionKey:
        salt = (
            self.salt
            if self.salt is not None
            else (client.realm + "".join(client.components)).encode()
        )
        return string_to_key(etype, PASSWORD, salt, self.s2kparams if etype != 23 else None)

    def _as(self, request: AsReq, sent: KdcRequest) -> bytes:
        body = request.req_body
        assert body.cname is not None
        assert body.sname is not None
        assert body.realm == sent.realm
        client = body.cname.principal(body.realm)
        offered = [e for e in body.etype if e in self.etypes]
        if not offered:
            return self.error(ErrorCode.KDC_ERR_ETYPE_NOSUPP).encode()
        stamps = [p for p in request.padata or () if p.padata_type == PaDataType.ENC_TIMESTAMP]
        etype = offered[0]
        if stamps:
            encrypted = EncryptedData.decode(stamps[0].padata_value)
            etype = encrypted.etype
            usage = KeyUsage.AS_REQ_PA_ENC_TIMESTAMP
            try:
                plain = crypto.decrypt(self.client_key(etype, client), usage, encrypted.cipher)
            except IntegrityError:
                return self.error(ErrorCode.KDC_ERR_PREAUTH_FAILED).encode()
            stamp = PaEncTsEnc.decode(plain)
            if abs(stamp.patimestamp - self.clock()) > SKEW:
                return self.error(ErrorCode.KRB_AP_ERR_SKEW).encode()
        elif self.preauth:
            return self.preauth_required().encode()
        key = self.client_key(etype, client)
        flags = self.flags | TicketFlags.INITIAL | (TicketFlags.PRE_AUTHENT if stamps else 0)
        padata: tuple[PaData, ...] | None = None
        if self.enc_pa_rep:
            flags |= TicketFlags.ENC_PA_REP
            mac = crypto.checksum(key, KeyUsage.AS_REQ_ENC_PA_REP, sent.message)
            checksum = Checksum(crypto.profile_of(etype).checksum_type, mac)
            padata = (PaData(PaDataType.ENC_PA_REP, checksum.encode()),)
        client = self.canonical or client
        service = body.sname.principal(body.realm)
        session_key = crypto.random_key(self.session_etype or offered[0])
        part, ticket = self._issue(request, client, service, session_key, flags, padata)
        return self._finish(
            AsRep(
                (self.etype_info2(etype),),
                client.realm,
                client.name,
                ticket.encode(),
                EncryptedData(etype, 1, b""),
            ),
            part,
            key,
            KeyUsage.AS_REP_ENC_PART,
            MessageType.AS_REP,
        )

    # -- TGS

    def _tgs(self, request: TgsReq, realm: str) -> bytes:
        body = request.req_body
        assert body.sname is not None
        assert body.realm == realm
        (pa,) = [p for p in request.padata or () if p.padata_type == PaDataType.TGS_REQ]
        ap_req = ApReq.decode(pa.padata_value)
        tgt = Ticket.decode(ap_req.ticket)
        assert tgt.sname.components == ("krbtgt", realm)
        tgs_key = key_of(tgt.sname.principal(tgt.realm), tgt.enc_part.etype)
        held = EncTicketPart.decode(crypto.decrypt(tgs_key, KeyUsage.TICKET, tgt.enc_part.cipher))
        usage = KeyUsage.TGS_REQ_AUTHENTICATOR
        authenticator = Authenticator.decode(
            crypto.decrypt(held.key, usage, ap_req.authenticator.cipher)
        )
        self.authenticators.append(authenticator)
        assert (authenticator.crealm, authenticator.cname) == (held.crealm, held.cname)
        assert abs(authenticator.ctime - self.clock()) <= SKEW
        assert authenticator.cksum is not None
        assert authenticator.cksum.cksumtype == crypto.profile_of(held.key.etype).checksum_type
        usage = KeyUsage.TGS_REQ_AUTHENTICATOR_CHECKSUM
        crypto.verify_checksum(held.key, usage, body.encode(), authenticator.cksum.checksum)
        assert authenticator.subkey is not None
        offered = [e for e in body.etype if e in self.etypes]
        if not offered:
            return self.error(ErrorCode.KDC_ERR_ETYPE_NOSUPP, realm=realm).encode()
        client = held.cname.principal(held.crealm)
        service = body.sname.principal(realm)
        referral = self.refer.get((realm, str(body.sname)))
        if referral is not None:
            service = Principal(("krbtgt", referral), realm, NameType.SRV_INST)
        session_key = crypto.random_key(self.session_etype or offered[0])
        flags = self.flags | held.flags & ~TicketFlags.INITIAL
        if body.kdc_options & KdcOptions.FORWARDED:
            flags |= TicketFlags.FORWARDED
        part, ticket = self._issue(request, client, service, session_key, flags, None, held)
        key, usage_ = self.reply_key(authenticator.subkey, KeyUsage.TGS_REP_ENC_PART_SUBKEY)
        return self._finish(
            TgsRep(
                (), client.realm, client.name, ticket.encode(), EncryptedData(key.etype, None, b"")
            ),
            part,
            key,
            usage_,
            MessageType.TGS_REP,
        )

    # -- both

    def _issue(
        self,
        request: AsReq | TgsReq,
        client: Principal,
        service: Principal,
        session_key: EncryptionKey,
        flags: int,
        padata: tuple[PaData, ...] | None,
        held: EncTicketPart | None = None,
    ) -> tuple[EncKdcRepPart, Ticket]:
        body = request.req_body
        now = self.clock().replace(microsecond=0)
        renewable = bool(body.kdc_options & KdcOptions.RENEWABLE)
        flags |= TicketFlags.RENEWABLE if renewable else 0
        flags |= body.kdc_options & (
            KdcOptions.FORWARDABLE | KdcOptions.PROXIABLE | KdcOptions.POSTDATED
        )
        endtime = body.till
        if body.kdc_options & KdcOptions.RENEW and held is not None and held.renew_till is not None:
            endtime = min(now + (held.endtime - (held.starttime or held.authtime)), held.renew_till)
        part = EncKdcRepPart(
            key=session_key,
            last_req=(LastReqEntry(0, now),),
            nonce=body.nonce,
            key_expiration=None,
            flags=int(flags),
            authtime=now if held is None else held.authtime,
            starttime=body.from_ or now,
            endtime=endtime,
            renew_till=body.rtime if renewable else None,
            srealm=service.realm,
            sname=service.name,
            caddr=body.addresses,
            encrypted_pa_data=padata,
        )
        sealed = EncTicketPart(
            flags=part.flags,
            key=session_key,
            crealm=client.realm,
            cname=client.name,
            transited=TransitedEncoding(1, b""),
            authtime=part.authtime,
            starttime=part.starttime,
            endtime=part.endtime,
            renew_till=part.renew_till,
            caddr=body.addresses,
            authorization_data=None,
        )
        cipher = crypto.encrypt(key_of(service), KeyUsage.TICKET, sealed.encode())
        ticket = Ticket(5, service.realm, service.name, EncryptedData(18, 1, cipher))
        return self.part(part), self.ticket(ticket)

    def _finish(
        self,
        reply: Any,
        part: EncKdcRepPart,
        key: EncryptionKey,
        usage: int,
        application: MessageType,
    ) -> bytes:
        plaintext = self.plaintext(part.encode(self.application or application))
        cipher = crypto.encrypt(key, usage, plaintext)
        sealed = replace(reply, enc_part=replace(reply.enc_part, cipher=cipher))
        return self.message(self.reply(sealed).encode())


def stamps(kdc: ScriptedKdc) -> list[int | None]:
    """Return the etype of the PA-ENC-TIMESTAMP in each AS-REQ, None where there is none."""
    found = [
        [p for p in request.padata or () if p.padata_type == PaDataType.ENC_TIMESTAMP]
        for request in kdc.seen
    ]
    return [
        EncryptedData.decode(padata[0].padata_value).etype if padata else None for padata in found
    ]


def issue_tgt(
    *,
    client: Principal = ALICE,
    realm: str = REALM,
    at: str | None = None,
    etype: int = 18,
    **changes: Any,
) -> ServiceTicket:
    """Return a TGT for the KDC of `realm`, issued by the realm `at` (its own); `changes` replace fields."""
    service = Principal(("krbtgt", realm), at or realm, NameType.SRV_INST)
    session_key = crypto.random_key(etype)
    flags = changes.pop("flags", TicketFlags.INITIAL | TicketFlags.FORWARDABLE)
    ticket = ServiceTicket(
        client=client,
        service=service,
        ticket=b"",
        session_key=session_key,
        flags=int(flags),
        authtime=NOW - timedelta(hours=1),
        starttime=NOW - timedelta(hours=1),
        endtime=NOW + timedelta(hours=9),
    )
    ticket = replace(ticket, **changes)
    sealed = EncTicketPart(
        flags=ticket.flags,
        key=session_key,
        crealm=client.realm,
        cname=client.name,
        transited=TransitedEncoding(1, b""),
        authtime=ticket.authtime,
        starttime=ticket.starttime,
        endtime=ticket.endtime,
        renew_till=ticket.renew_till,
        caddr=ticket.caddr or None,
        authorization_data=None,
    )
    cipher = crypto.encrypt(key_of(service), KeyUsage.TICKET, sealed.encode())
    return replace(
        ticket, ticket=Ticket(5, service.realm, service.name, EncryptedData(18, 1, cipher)).encode()
    )
