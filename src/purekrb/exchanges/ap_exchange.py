"""The AP exchange: the client proves itself with an AP-REQ, the service with an AP-REP.

Four functions follow the handshake: `build_ap_req`, `accept_ap_req`, `build_ap_rep` and
`verify_ap_rep`. DCE style adds `build_third_leg` and `verify_third_leg`. Clock and randomness are
arguments. Source: RFC 4120 3.2, 5.5.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    AddressType,
    ApOptions,
    AuthDataType,
    ErrorCode,
    KeyUsage,
    MessageType,
    TicketFlags,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ApError,
    IntegrityError,
    MutualAuthenticationError,
    PolicyError,
    ProtocolError,
)
from purekrb.exchanges.authorization_data import (
    check_critical,
    read_client_target,
    read_relevant,
    wrap_if_relevant,
)
from purekrb.exchanges.opened_tickets import OpenedTicket, open_ticket, read_ticket
from purekrb.exchanges.service_keys import (
    ServiceKey,
    ServiceKeys,
    answered_for,
    is_for,
    likeliest,
    names_of,
)
from purekrb.exchanges.unique_time import MICROSECOND
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.log import Log
from purekrb.messages.ap import (
    PVNO,
    ApRep,
    ApReq,
    Authenticator,
    AuthorizationDataEntry,
    Checksum,
    EncApRepPart,
    EncryptedData,
    EncTicketPart,
    EtypeList,
    HostAddress,
    Ticket,
)
from purekrb.names import Principal
from purekrb.records import record
from purekrb.replay import ReplayCache, remember_in
from purekrb.system import RandomBytes, unpredictable

__all__ = [
    "ServiceKey",
    "ServiceKeys",
    "AcceptedApReq",
    "SentApReq",
    "build_ap_req",
    "accept_ap_req",
    "remember_authenticator",
    "build_ap_rep",
    "find_service_key",
    "verify_ap_rep",
    "build_third_leg",
    "verify_third_leg",
]

log = Log("purekrb.ap")
#: `&` of an IntFlag is slow: see constants.py.
_USE_SESSION_KEY, _MUTUAL_REQUIRED = int(ApOptions.USE_SESSION_KEY), int(ApOptions.MUTUAL_REQUIRED)
_NETBIOS = int(AddressType.NETBIOS)
_INVALID = int(TicketFlags.INVALID)
_TRANSITED_CHECKED = int(TicketFlags.TRANSITED_POLICY_CHECKED)


@record
class SentApReq:
    """An AP-REQ, and the time in its authenticator, which the AP-REP must return.

    `ctime` is in whole seconds, `cusec` in microseconds.
    """

    message: bytes
    ctime: datetime
    cusec: int


@record
class AcceptedApReq:
    """A verified AP-REQ: its client, its service, and the contents of ticket and authenticator.

    `names` are all principals of `key`, which decrypted the ticket. `service` is one of them; the
    ticket's cleartext name does not decide which. `sent` is the authenticator's time, with
    microseconds. `etypes` is the initiator's EtypeList (RFC 4537), or (). `relevant` holds the
    authenticator's authorization data. `anonymous` tells whether the KDC hides the client's name.
    `account` is the client's name in replay caches. `presented` is the DER of the Ticket.
    """

    client: Principal
    service: Principal
    key: EncryptionKey
    ticket: EncTicketPart
    authenticator: Authenticator
    sent: datetime
    ap_options: int
    etypes: tuple[int, ...]
    relevant: tuple[AuthorizationDataEntry, ...]
    replay_tag: bytes
    names: tuple[Principal, ...]
    anonymous: bool
    account: str
    presented: bytes


def build_ap_req(
    ticket: ServiceTicket,
    *,
    cksum: Checksum | None,
    subkey: EncryptionKey | None,
    seq_number: int,
    mutual: bool,
    etypes: tuple[int, ...],
    client_target: bool,
    now: datetime,
    random: RandomBytes,
) -> SentApReq:
    """Return an AP-REQ that presents `ticket`. Source: RFC 4120 3.2.2, RFC 4537, MS-KILE 3.2.5.8.

    `now` is the KDC's time (aware UTC, with microseconds), unique to this authenticator. `etypes`
    are the etypes from which the acceptor may choose its subkey. With `client_target`, the
    authenticator names the service.
    """
    cusec = now.microsecond
    ctime = now - cusec * MICROSECOND  # four times as fast as `replace`
    client, service = ticket.client, ticket.service
    # Without the escapes of `str(service)`.
    target = f"{'/'.join(service.components)}@{service.realm}" if client_target else None
    authorization_data = _authorization_data(etypes if mutual else None, target)
    authenticator = Authenticator(
        authenticator_vno=PVNO,
        crealm=client.realm,
        cname=client.name,
        cksum=cksum,
        cusec=cusec,
        ctime=ctime,
        subkey=subkey,
        seq_number=seq_number,
        authorization_data=authorization_data,
    )
    cipher = _encrypt(
        ticket.session_key, KeyUsage.AP_REQ_AUTHENTICATOR, authenticator.encode(), random
    )
    options = _MUTUAL_REQUIRED if mutual else 0
    if ticket.is_skey:
        options |= _USE_SESSION_KEY
    encrypted = EncryptedData(ticket.session_key.etype, None, cipher)
    message = ApReq(PVNO, MessageType.AP_REQ, options, ticket.ticket, encrypted).encode()
    if log.on():
        log.debug(
            "AP-REQ: %s presents a ticket for %s, session key %s, %s",
            ticket.client,
            ticket.service,
            etype_name(ticket.session_key.etype),
            "mutual authentication required" if mutual else "no mutual authentication",
        )
    return SentApReq(message, ctime, cusec)


def accept_ap_req(
    message: bytes,
    keys: ServiceKeys,
    *,
    service: Principal | None,
    permitted_etypes: tuple[int, ...],
    clock_skew: timedelta,
    now: datetime,
    peer_address: HostAddress | None = None,
    accept_anonymous: bool = False,
    require_client_target: bool = False,
    tgt: Callable[[], ServiceTicket | None] = lambda: None,
    user_to_user: bool = False,
) -> AcceptedApReq:
    """Return the contents of a genuine AP-REQ. Source: RFC 4120 3.2.3, RFC 8062, MS-KILE 3.2.5.8.

    `service` limits the keys to those of that name (an empty realm matches any); None takes all
    keys. If a key has several names, the service is the first of them in `keys`. With
    `require_client_target`, it is the name that the client asked for, which the authenticator
    tells. `tgt` returns the service's own TGT: a user-to-user ticket is opened with its session
    key, and no other (RFC 4120 3.7); with `user_to_user`, there must be such a ticket. This makes
    all checks of the section except that of the replay cache: call `remember_authenticator` when
    nothing else can fail. Raises ApError with the fitting KRB-ERROR code, DecodeError for a
    malformed message, and ProtocolError for a malformed client target.
    """
    request = _decode_ap_req(message)
    ticket = read_ticket(request.ticket)
    _check_readable(request, ticket, user_to_user)
    if request.ap_options & _USE_SESSION_KEY:
        from purekrb.exchanges.user_to_user import open_under_tgt  # only who needs it pays for it

        entry, opened, names = open_under_tgt(ticket, tgt(), service, permitted_etypes)
    else:
        entry, opened, names = _decrypt_ticket(ticket, keys, service, permitted_etypes)
    enc_ticket = opened.part
    session_key = enc_ticket.key
    _check_ticket(enc_ticket, clock_skew, now, peer_address)
    _check_permitted(session_key.etype, permitted_etypes, "the session key")
    authenticator = _decrypt_authenticator(request, session_key)
    _check_client(authenticator, enc_ticket)
    sent = authenticator.ctime + authenticator.cusec * MICROSECOND
    _check_skew(sent, now, clock_skew)
    if authenticator.subkey is not None:
        _check_permitted(authenticator.subkey.etype, permitted_etypes, "the initiator's subkey")
    _check_authorization(enc_ticket, authenticator)
    if not accept_anonymous:
        _check_named(opened)
    relevant, etypes = read_relevant(authenticator.authorization_data)
    ours = names
    if service is not None and not request.ap_options & _USE_SESSION_KEY:
        ours = tuple([name for name in names if is_for(service, name)])
    chosen = _targeted(ours, read_client_target(relevant)) if require_client_target else ours[0]
    if log.on():
        log.debug(
            "AP-REQ verified: client %s, ticket for %s kvno %d %s, session key %s",
            opened.client,
            chosen,
            entry.kvno,
            etype_name(entry.key.etype),
            etype_name(session_key.etype),
        )
    return AcceptedApReq(
        client=opened.client,
        service=chosen,
        key=entry.key,
        ticket=enc_ticket,
        authenticator=authenticator,
        sent=sent,
        ap_options=request.ap_options,
        etypes=etypes,
        relevant=relevant,
        replay_tag=_replay_tag(session_key.etype, request.authenticator.cipher),
        names=names,
        anonymous=opened.anonymous,
        account=opened.account,
        presented=request.ticket,
    )


def _replay_tag(etype: int, cipher: bytes) -> bytes:
    """Return 16 bytes that identify an authenticator: zeros, and the 12 bytes that MIT keeps of it.

    Those are the first of the checksum at the end of the ciphertext. It depends on the confounder,
    and nobody without the key can change it. MIT also takes the end of an RC4 ciphertext, whose
    checksum is at its beginning. The name of the service does not count, as one key may have
    several.
    """
    size = crypto.profile_of(etype).checksum_size
    return cipher[-size:][:12].rjust(16, b"\0")


def remember_authenticator(accepted: AcceptedApReq, cache: ReplayCache, now: datetime) -> None:
    """Store the authenticator in `cache`, as the last step of accepting. Raises ReplayError.

    Source: RFC 4120 3.2.3.
    """
    remember_in(cache, accepted.replay_tag, accepted.sent, now, accepted.account)
    log.debug("the authenticator is new to the replay cache")


def build_ap_rep(
    accepted: AcceptedApReq, *, subkey: EncryptionKey | None, seq_number: int, random: RandomBytes
) -> bytes:
    """Return the AP-REP, which proves that the service read the authenticator. RFC 4120 3.2.4."""
    authenticator = accepted.authenticator
    part = EncApRepPart(authenticator.ctime, authenticator.cusec, subkey, seq_number)
    if log.on():
        log.debug(
            "AP-REP for %s: ctime and cusec of its authenticator, acceptor subkey %s",
            accepted.client,
            etype_name(subkey.etype) if subkey else "none",
        )
    return _encode_ap_rep(part, accepted.ticket.key, random)


def verify_ap_rep(
    message: bytes,
    sent: SentApReq,
    session_key: EncryptionKey,
    *,
    permitted_etypes: tuple[int, ...],
) -> EncApRepPart:
    """Return the AP-REP's content, once it proves the service. Source: RFC 4120 3.2.5.

    Only the holder of the service's key can read our authenticator, and so return its ctime and
    cusec. Raises MutualAuthenticationError if they differ, and IntegrityError if another key
    encrypted the reply.
    """
    part = _decode_ap_rep(message, session_key)
    # RFC 4120 3.2.5: ctime and cusec must be those of the authenticator.
    if part.ctime != sent.ctime or part.cusec != sent.cusec:
        raise MutualAuthenticationError(
            "the service did not return the time of our authenticator: "
            "an impostor, or a replayed AP-REP"
        )
    # RFC 4537 3: the acceptor chooses one of the etypes that the initiator offered.
    if part.subkey is not None and part.subkey.etype not in permitted_etypes:
        raise PolicyError(
            f"the acceptor chose a subkey of {etype_name(part.subkey.etype)}, "
            "which is not permitted here"
        )
    log.debug(
        "AP-REP verified: its ctime and cusec are those of our authenticator, "
        "so the service has its key"
    )
    return part


def build_third_leg(
    sent: SentApReq, session_key: EncryptionKey, *, service_seq_number: int, random: RandomBytes
) -> bytes:
    """Return the client's AP-REP of DCE style, with the service's sequence number.

    Source: MS-KILE 3.4.5.1.
    """
    log.debug("AP-REP for the service: the sequence number of its AP-REP")
    return _encode_ap_rep(
        EncApRepPart(sent.ctime, sent.cusec, None, service_seq_number), session_key, random
    )


def verify_third_leg(
    message: bytes, session_key: EncryptionKey, *, service_seq_number: int
) -> None:
    """Raise unless the client's AP-REP proves that the client read ours. Source: MS-KILE 3.4.5.1.

    Raises MutualAuthenticationError, or IntegrityError if another key encrypted it. Its ctime does
    not count: some clients send that of their authenticator, others the current time.
    """
    part = _decode_ap_rep(message, session_key)
    # MS-KILE 3.4.5.1: our sequence number. With a subkey, it would be our own AP-REP sent back.
    if part.seq_number != service_seq_number or part.subkey is not None:
        raise MutualAuthenticationError(
            "the client did not return the sequence number of our AP-REP: "
            "an impostor, or a replayed AP-REP"
        )
    log.debug("the client's AP-REP verified: it returns our sequence number, so it is not a replay")


@lru_cache(maxsize=64)
def _authorization_data(
    etypes: tuple[int, ...] | None, target: str | None
) -> tuple[AuthorizationDataEntry, ...] | None:
    """Return an authenticator's authorization data, in one AD-IF-RELEVANT, or None."""
    entries = []
    if etypes is not None:
        entries.append(
            AuthorizationDataEntry(AuthDataType.ETYPE_NEGOTIATION, EtypeList(etypes).encode())
        )
    if target is not None:
        name = target.encode("utf-16-le", "surrogatepass")
        entries.append(AuthorizationDataEntry(AuthDataType.CLIENT_TARGET, name))
    return (wrap_if_relevant(*entries),) if entries else None


def _encode_ap_rep(part: EncApRepPart, key: EncryptionKey, random: RandomBytes) -> bytes:
    cipher = _encrypt(key, KeyUsage.AP_REP_ENC_PART, part.encode(), random)
    return ApRep(PVNO, MessageType.AP_REP, EncryptedData(key.etype, None, cipher)).encode()


def _decode_ap_rep(message: bytes, session_key: EncryptionKey) -> EncApRepPart:
    reply = ApRep.decode(message)
    # RFC 4120 5.5.2: pvno and msg-type.
    if reply.pvno != PVNO or reply.msg_type != MessageType.AP_REP:
        raise ProtocolError(
            "this is not an AP-REP of Kerberos 5",
            expected=(5, 15),
            got=(reply.pvno, reply.msg_type),
        )
    # RFC 4120 3.2.5: the AP-REP is encrypted with the session key.
    if reply.enc_part.etype != session_key.etype:
        raise ProtocolError(
            "the AP-REP is not encrypted with the session key's etype",
            expected=etype_name(session_key.etype),
            got=etype_name(reply.enc_part.etype),
        )
    return EncApRepPart.decode(
        crypto.decrypt(session_key, KeyUsage.AP_REP_ENC_PART, reply.enc_part.cipher)
    )


def _encrypt(key: EncryptionKey, usage: int, plaintext: bytes, random: RandomBytes) -> bytes:
    cipher = crypto.usage_cipher(key, usage)
    return cipher.encrypt(plaintext, unpredictable(random, cipher.confounder_size))


def _refuse(code: ErrorCode, message: str) -> ApError:
    return ApError(message, code=code)


def _decode_ap_req(message: bytes) -> ApReq:
    # RFC 4120 3.2.3: the message type, KRB_AP_ERR_MSG_TYPE. An AP-REQ is [APPLICATION 14].
    if message[:1] != b"\x6e":
        raise _refuse(
            ErrorCode.KRB_AP_ERR_MSG_TYPE, "the token holds a message that is not an AP-REQ"
        )
    request = ApReq.decode(message)
    # RFC 4120 5.5.1: pvno and msg-type, which repeat the tag.
    if request.pvno != PVNO:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_BADVERSION, f"the AP-REQ has version {request.pvno}, not 5"
        )
    if request.msg_type != MessageType.AP_REQ:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_MSG_TYPE, f"the AP-REQ has msg-type {request.msg_type}, not 14"
        )
    return request


def _check_readable(request: ApReq, ticket: Ticket, user_to_user: bool) -> None:
    # RFC 4120 5.3: tkt-vno.
    if ticket.tkt_vno != PVNO:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_BADVERSION, f"the ticket has version {ticket.tkt_vno}, not 5"
        )
    # RFC 4120 3.2.3: with USE-SESSION-KEY, the session key of the server's TGT encrypts the ticket.
    if user_to_user and not request.ap_options & _USE_SESSION_KEY:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_USER_TO_USER_REQUIRED,
            "the client was sent our TGT, and came with another ticket than one under it",
        )


def _check_permitted(etype: int, permitted: tuple[int, ...], what: str) -> None:
    # The acceptor's policy: a weak key proves nothing. The code of RFC 4120 7.5.9 tells the client.
    if etype not in permitted:
        raise _refuse(
            ErrorCode.KDC_ERR_ETYPE_NOSUPP,
            f"{what} is of {etype_name(etype)}, which is not permitted here: "
            f"permitted are {etype_names(permitted)}",
        )


def _decrypt_ticket(
    ticket: Ticket, keys: ServiceKeys, service: Principal | None, permitted: tuple[int, ...]
) -> tuple[ServiceKey, OpenedTicket, tuple[Principal, ...]]:
    """Return the service key that decrypts the ticket, the opened ticket, the key's principals."""
    held = list(keys)
    etype, kvno, cipher = ticket.enc_part.etype, ticket.enc_part.kvno, ticket.enc_part.cipher
    if log.on():
        log.debug(
            "ticket for %s, %s kvno %s; keys to choose from: %d",
            ticket.sname.principal(ticket.realm),
            etype_name(etype),
            kvno,
            len(answered_for(held, service)),
        )
    if etype not in permitted:
        from purekrb.exchanges.key_diagnosis import why_not_permitted

        raise why_not_permitted(ticket, held, service, permitted)
    fitting = [entry for entry in held if entry.key.etype == etype]
    candidates = answered_for(fitting, service)
    for entry in candidates if len(candidates) == 1 else likeliest(ticket, candidates):
        try:
            opened = open_ticket(entry.key, cipher)
        except IntegrityError:
            log.debug(
                "the key of %s kvno %d does not decrypt the ticket", entry.principal, entry.kvno
            )
        else:
            return entry, opened, names_of(entry, fitting)
    from purekrb.exchanges.key_diagnosis import why_no_key  # a context that succeeds needs none

    # RFC 4120 3.2.3: KRB_AP_ERR_BADKEYVER, KRB_AP_ERR_NOKEY or KRB_AP_ERR_BAD_INTEGRITY.
    raise why_no_key(ticket, held, service)


def find_service_key(
    ticket: bytes,
    keys: ServiceKeys,
    *,
    service: Principal | None = None,
    permitted_etypes: tuple[int, ...] = DEFAULT_ETYPES,
) -> ServiceKey:
    """Return the key with which an acceptor would open `ticket` (DER).

    Raises the ApError that this acceptor would raise, and DecodeError.
    """
    return _decrypt_ticket(read_ticket(ticket), keys, service, permitted_etypes)[0]


def _check_ticket(
    ticket: EncTicketPart, clock_skew: timedelta, now: datetime, peer_address: HostAddress | None
) -> None:
    # RFC 4120 2.2, 3.2.3: a ticket with INVALID is not yet valid, KRB_AP_ERR_TKT_NYV.
    if ticket.flags & _INVALID:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_TKT_NYV,
            "the ticket is marked as invalid: the client must have the KDC validate it first",
        )
    # RFC 4120 5.3: without starttime, authtime is the start. No ticket ends before it starts.
    start = ticket.starttime or ticket.authtime
    if ticket.endtime < start:
        raise _refuse(ErrorCode.KRB_AP_ERR_TKT_NYV, "the ticket ends before it starts")
    # RFC 4120 3.2.3: the start is later than now by more than the skew, KRB_AP_ERR_TKT_NYV.
    if start > now + clock_skew:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_TKT_NYV,
            f"the ticket of {ticket.cname} is not valid before {start:%Y-%m-%d %H:%M:%SZ}: check "
            "the clocks, or have the client wait",
        )
    # RFC 4120 3.2.3: expired by more than the allowable skew, KRB_AP_ERR_TKT_EXPIRED.
    if ticket.endtime < now - clock_skew:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_TKT_EXPIRED,
            f"the ticket of {ticket.cname} expired at {ticket.endtime:%Y-%m-%d %H:%M:%SZ}: "
            "the client must get a new one",
        )
    # RFC 4120 2.7, 3.2.3: the server must check a path that no KDC has checked, or refuse it.
    if ticket.transited.contents and not ticket.flags & _TRANSITED_CHECKED:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_ILL_CR_TKT,
            "the ticket crossed realms, and no KDC has checked its path",
        )
    # RFC 4120 3.2.3: the addresses in the ticket, KRB_AP_ERR_BADADDR.
    if peer_address is not None and ticket.caddr and not _is_listed(peer_address, ticket.caddr):
        raise _refuse(
            ErrorCode.KRB_AP_ERR_BADADDR, "the ticket is not bound to the client's address"
        )


def _decrypt_authenticator(request: ApReq, session_key: EncryptionKey) -> Authenticator:
    enc_part = request.authenticator
    # RFC 4120 3.2.3: decrypted with the session key of the ticket, KRB_AP_ERR_BAD_INTEGRITY.
    failed = "the authenticator does not decrypt with the ticket's session key"
    if enc_part.etype != session_key.etype:
        raise _refuse(ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, failed)
    try:
        authenticator = Authenticator.decode(
            crypto.decrypt(session_key, KeyUsage.AP_REQ_AUTHENTICATOR, enc_part.cipher)
        )
    except IntegrityError:
        raise _refuse(ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, failed) from None
    # RFC 4120 5.5.1: authenticator-vno.
    if authenticator.authenticator_vno != PVNO:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_BADVERSION,
            f"the authenticator has version {authenticator.authenticator_vno}, not 5",
        )
    return authenticator


def _check_client(authenticator: Authenticator, ticket: EncTicketPart) -> None:
    # RFC 4120 3.2.3: ticket and authenticator have the same client, KRB_AP_ERR_BADMATCH.
    if authenticator.cname != ticket.cname or authenticator.crealm != ticket.crealm:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_BADMATCH,
            "the authenticator and the ticket name different clients",
        )


def _check_skew(sent: datetime, now: datetime, clock_skew: timedelta) -> None:
    # RFC 4120 3.2.3: the client's time differs by more than the allowable skew, KRB_AP_ERR_SKEW.
    if abs(now - sent) > clock_skew:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_SKEW,
            f"the client's clock differs by {(now - sent).total_seconds():.0f} s, more than "
            f"{clock_skew.total_seconds():.0f} s: set both clocks (NTP)",
        )


def _check_authorization(ticket: EncTicketPart, authenticator: Authenticator) -> None:
    # RFC 4120 5.2.6: an unknown element outside AD-IF-RELEVANT is critical: the request is refused.
    try:
        check_critical(ticket.authorization_data)
        check_critical(authenticator.authorization_data)
    except ProtocolError as error:
        raise _refuse(ErrorCode.KDC_ERR_POLICY, str(error)) from None


def _check_named(opened: OpenedTicket) -> None:
    # RFC 8062: the service's policy decides about anonymous clients; by default they are refused.
    if opened.anonymous:
        raise _refuse(
            ErrorCode.KDC_ERR_POLICY,
            "the client is anonymous: pass accept_anonymous=True to accept anonymous clients",
        )


def _targeted(names: tuple[Principal, ...], target: str | None) -> Principal:
    """Return the one of `names` that the client asked for.

    As in a directory, the case of letters does not count. The realm may be missing.
    """
    # MS-KILE 3.2.5.8: KERB-AUTH-DATA-CLIENT-TARGET.
    if target is None:
        raise _refuse(
            ErrorCode.KDC_ERR_POLICY,
            "the client does not say which service it asked for, which this acceptor requires",
        )
    wanted = target.casefold()
    for name in names:
        text = "/".join(name.components).casefold()
        if wanted in (text, f"{text}@{name.realm.casefold()}"):
            return name
    raise _refuse(
        ErrorCode.KRB_AP_ERR_NOT_US,
        f"the client asked for {target!r}, but this acceptor is "
        f"{' or '.join(map(str, names[:10]))}",
    )


def _is_listed(address: HostAddress, addresses: tuple[HostAddress, ...]) -> bool:
    """Return whether `addresses` hold `address`, or only NetBIOS names, which have no comparison.

    Windows names its computer (NetBIOS) instead of its addresses, and some KDCs put that name into
    the ticket.
    """
    return address in addresses or all(other.addr_type == _NETBIOS for other in addresses)
