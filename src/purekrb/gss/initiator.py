"""The initiator: the client's side of a security context.

Source: RFC 4121 4.1, RFC 2743 2.2.1, MS-KILE 3.4.5.1.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    KRB5_MECH_OID,
    ChecksumType,
    EncryptionType,
    Flag,
    TicketFlags,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ContextError,
    ContextExpiredError,
    CredentialError,
    KerberosError,
    MutualAuthenticationError,
    PolicyError,
    ProtocolError,
)
from purekrb.exchanges.ap_exchange import SentApReq, build_ap_req, build_third_leg, verify_ap_rep
from purekrb.exchanges.unique_time import unique_now
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.checksum import NO_BINDINGS, GssChecksum
from purekrb.gss.context import MAX_TOKEN, Agreement, SecurityContext
from purekrb.gss.framing import TOK_AP_REP, TOK_AP_REQ, TOK_KRB_ERROR, frame, unframe, unframe_any
from purekrb.gss.krb_error import peer_refused
from purekrb.keys import EncryptionKey, etype_name
from purekrb.log import Log
from purekrb.messages.ap import Checksum, EncApRepPart
from purekrb.system import Clock, RandomBytes, now, random_bytes, unpredictable

__all__ = ["Delegate", "Initiator", "check_delegation", "with_delegation"]

if TYPE_CHECKING:
    from purekrb.gss.negotiate import Handshake

log = Log("purekrb.gss")
#: Whether to delegate: no, if the KDC says that the service may have the TGT, or in any case.
Delegate = bool | Literal["always"]
#: `&` of an IntFlag is slow: see constants.py.
_DELEG, _MUTUAL, _REPLAY, _SEQUENCE, _CONF, _INTEG, _DCE_STYLE = map(
    int,
    (Flag.DELEG, Flag.MUTUAL, Flag.REPLAY, Flag.SEQUENCE, Flag.CONF, Flag.INTEG, Flag.DCE_STYLE),
)
#: The first byte of a NegTokenResp, which has no GSS-API frame. Source: RFC 4178 4.2.
_NEG_TOKEN_RESP = b"\xa1"
_OK_AS_DELEGATE = int(TicketFlags.OK_AS_DELEGATE)


class Initiator(SecurityContext):
    """The client's side of one context. It needs only `service_ticket`: no KDC is asked.

    `flags` are the services that the context must offer. MUTUAL fails closed: the context is
    established only after the AP-REP was decrypted, and its ctime and cusec equal those that were
    sent. DCE_STYLE implies MUTUAL. DELEG hands `forwarded_tgt` to the service, but only if the KDC
    marked the service OK-AS-DELEGATE; otherwise the flag is dropped, with a warning in the log.
    `delegate` true adds DELEG; "always" does so whatever the KDC has marked. `mechanism`
    "negotiate" wraps Kerberos in SPNEGO; its first step also takes the hints of a service that
    speaks first. With `send_client_target`, the authenticator tells the service, encrypted, which
    name the client asked for, as Windows does. REPLAY, SEQUENCE and CONF add INTEG to the flags;
    `no_integrity` leaves it out, for a service that would take it as a request. A token of more
    than `max_token` bytes is refused unread. `clock` and `random` are for replaying recordings; a
    clock passed here must not return the same time twice.
    """

    _role = "initiator"
    #: Whether `step` may wait for a KDC.
    may_wait = False
    #: The mechanism in the frames of the tokens.
    _mechanism = KRB5_MECH_OID

    def __init__(
        self,
        service_ticket: ServiceTicket,
        *,
        flags: Flag = Flag.DEFAULT,
        delegate: Delegate = False,
        mechanism: str = "kerberos",
        channel_bindings: ChannelBindings | None = None,
        forwarded_tgt: ServiceTicket | None = None,
        permitted_etypes: tuple[int, ...] = DEFAULT_ETYPES,
        enforce_expiry: bool = True,
        send_client_target: bool = False,
        no_integrity: bool = False,
        max_token: int = MAX_TOKEN,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> None:
        super().__init__(
            mechanism, channel_bindings, permitted_etypes, enforce_expiry, clock, random, max_token
        )
        if not isinstance(service_ticket, ServiceTicket):
            raise TypeError(
                f"Initiator takes a ServiceTicket, not {type(service_ticket).__name__}: "
                "initiate(target, credential) gets the ticket for a name"
            )
        self._send_target = send_client_target
        self._no_integrity = no_integrity
        self._take(service_ticket, forwarded_tgt, flags, delegate)

    def _take(
        self,
        ticket: ServiceTicket,
        forwarded_tgt: ServiceTicket | None,
        flags: Flag,
        delegate: Delegate,
    ) -> None:
        self._ticket = ticket
        self._forwarded_tgt = forwarded_tgt
        self._flags = self._agreed_flags(int(with_delegation(flags, delegate)), delegate)

    def _agreed_flags(self, flags: int, delegate: Delegate) -> int:
        if flags & _DCE_STYLE:
            flags |= _MUTUAL
        if flags & (_REPLAY | _SEQUENCE | _CONF) and not self._no_integrity:
            flags |= _INTEG
        if flags & _DELEG:
            trusted = self._ticket.flags & _OK_AS_DELEGATE
            if not trusted and delegate != "always":
                log.warning(
                    "%s does not get the TGT of %s that was to be delegated: the KDC did not mark "
                    "the service OK-AS-DELEGATE. Let an administrator trust its account for "
                    'delegation, or pass delegate="always"',
                    self._ticket.service,
                    self._ticket.client,
                )
                return flags & ~_DELEG
            check_delegation(flags)
            if self._forwarded_tgt is None:
                raise CredentialError(
                    "DELEG needs a forwarded TGT: pass forwarded_tgt=KdcClient.forward_tgt(...)"
                )
            if not trusted:
                log.info(
                    "%s gets the TGT of %s by the caller's word, delegate=%s: the KDC did not mark "
                    "the service OK-AS-DELEGATE",
                    self._ticket.service,
                    self._ticket.client,
                    delegate,
                )
        return flags

    @property
    def user_to_user(self) -> bool:
        """Whether the service proves itself by its TGT (RFC 4120 3.7)."""
        self._established()
        return self._ticket.is_skey

    def _unanswered(self, in_token: bytes | None) -> KerberosError:
        """Fail closed: a service that answers without a token has not proved itself."""
        if not self._flags & _MUTUAL:
            return ProtocolError("the service answered without a token, and left us waiting")
        return MutualAuthenticationError(
            "the service did not prove itself: it answered without a token (in HTTP: success "
            "without WWW-Authenticate: Negotiate and a token); it, or a proxy before it, drops the "
            "token. Whoever is content with TLS for that has to ask without MUTUAL (flags=)"
        )

    def _begin(self, in_token: bytes | None) -> Handshake:
        if self._negotiate:
            from purekrb.gss.negotiate import initiate  # only negotiations pay for the import

            return initiate(self._kerberos, self._messages, in_token)
        if in_token is not None:
            raise ContextError("an initiator's first step takes no token")
        return self._kerberos()

    def _kerberos(self) -> Handshake:
        """Yield the AP-REQ; with MUTUAL, take the AP-REP; in DCE style, return an AP-REP."""
        flags = self._flags
        sent, subkey, seq_number = self._ap_req()
        token = (
            sent.message if flags & _DCE_STYLE else frame(TOK_AP_REQ, sent.message, self._mechanism)
        )
        if not flags & _MUTUAL:
            self._finish(subkey, None, seq_number, seq_number)
            return token
        part = self._read_reply((yield token), sent)
        service_seq = 0 if part.seq_number is None else part.seq_number
        self._finish(subkey, part.subkey, seq_number, service_seq)
        if not flags & _DCE_STYLE:
            return None
        return build_third_leg(
            sent, self._ticket.session_key, service_seq_number=service_seq, random=self._random
        )

    def _ap_req(self) -> tuple[SentApReq, EncryptionKey, int]:
        """Return the AP-REQ, our subkey and our initial sequence number."""
        ticket = self._ticket
        session_key = ticket.session_key
        etype = session_key.etype
        if etype not in self._permitted_etypes:
            raise PolicyError(
                f"the session key is of {etype_name(etype)}, which is not permitted here: "
                "give the service AES keys, or pass permitted_etypes"
            )
        moment = unique_now(self._clock) + ticket.time_offset
        if self._enforce_expiry and moment > ticket.endtime:
            raise ContextExpiredError(
                f"the ticket for {ticket.service} expired at "
                f"{ticket.endtime:%Y-%m-%d %H:%M:%SZ}: get a new one"
            )
        flags, random = self._flags, self._random
        subkey = crypto.random_key(etype, random)
        self._secrets.append(subkey)
        seq_number = int.from_bytes(unpredictable(random, 4), "big")
        bindings = (
            NO_BINDINGS if self._channel_bindings is None else self._channel_bindings.digest()
        )
        sent = build_ap_req(
            ticket,
            cksum=self._checksum(flags, bindings, subkey, moment),
            subkey=subkey,
            seq_number=seq_number,
            mutual=bool(flags & _MUTUAL),
            etypes=_own_first(etype, self._permitted_etypes),
            client_target=self._send_target,
            now=moment,
            random=random,
        )
        return sent, subkey, seq_number

    def _checksum(
        self, flags: int, bindings: bytes, subkey: EncryptionKey, moment: datetime
    ) -> Checksum:
        """Return the checksum of the authenticator, whose key is `subkey`. RFC 4121 4.1.1."""
        if not flags & _DELEG or self._forwarded_tgt is None:
            return _without_delegation(flags, bindings)
        from purekrb.exchanges.krb_cred import build_krb_cred  # only delegation pays for it

        ticket = self._ticket
        delegation = build_krb_cred(
            self._forwarded_tgt, ticket.session_key, now=moment, random=self._random
        )
        log.debug("KRB-CRED: %s delegates its TGT to %s", ticket.client, ticket.service)
        return Checksum(ChecksumType.GSSAPI, GssChecksum(flags, bindings, delegation).encode())

    def _read_reply(self, token: bytes, sent: SentApReq) -> EncApRepPart:
        """Return the AP-REP in the service's token, once it proves the service. RFC 4120 3.2.5."""
        dce_style = bool(self._flags & _DCE_STYLE)
        if token[:1] == _NEG_TOKEN_RESP and not self._negotiate:
            from purekrb.gss.negotiate import answered_by_negotiation  # only this error pays for it

            raise answered_by_negotiation(token)
        tok_id, message = unframe_any(token) if dce_style else unframe(token, self._mechanism)
        if tok_id == TOK_KRB_ERROR:
            raise peer_refused(message)
        # RFC 4121 4.1: the token id of an AP-REP, and no frame in DCE style only.
        if tok_id != TOK_AP_REP or dce_style != (message is token):
            raise MutualAuthenticationError(
                "the service answered with a token that is not an AP-REP", got=tok_id.hex()
            )
        part = verify_ap_rep(
            message, sent, self._ticket.session_key, permitted_etypes=self._permitted_etypes
        )
        if part.subkey is not None:
            self._secrets.append(part.subkey)
        return part

    def _finish(
        self,
        subkey: EncryptionKey,
        acceptor_subkey: EncryptionKey | None,
        send_seq: int,
        receive_seq: int,
    ) -> None:
        ticket = self._ticket
        expires = ticket.endtime if self._enforce_expiry else None
        if expires is not None and ticket.time_offset:
            with suppress(OverflowError):  # the year 9999 may mean "never"
                expires -= ticket.time_offset
        agreement = Agreement(
            flags=self._flags,
            key=acceptor_subkey or subkey,
            initiator_key=subkey,
            acceptor_subkey=acceptor_subkey is not None,
            initiator=ticket.client,
            acceptor=ticket.service,
            starttime=ticket.starttime or ticket.authtime,
            endtime=ticket.endtime,
            expires=expires,
        )
        self._agree(agreement, send_seq, receive_seq)


def with_delegation(flags: Flag, delegate: Delegate) -> Flag:
    """Return `flags` with DELEG if `delegate` asks for it. Raises ValueError for other values."""
    if delegate not in (False, True, "always"):
        raise ValueError(f'delegate is False, True or "always", not {delegate!r}')
    return flags | Flag.DELEG if delegate else flags


def check_delegation(flags: int) -> None:
    """Raise PolicyError unless `flags` with DELEG make sure of who gets the TGT."""
    if not flags & (_MUTUAL | _DCE_STYLE):
        raise PolicyError(
            "DELEG hands over a TGT: it needs MUTUAL, so that no impostor gets the TGT"
        )


@lru_cache(maxsize=16)
def _without_delegation(flags: int, bindings: bytes) -> Checksum:
    return Checksum(ChecksumType.GSSAPI, GssChecksum(flags, bindings).encode())


@lru_cache(maxsize=16)
def _own_first(own: int, permitted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the etypes for the acceptor to choose from: `own` first, but RC4 last. RFC 4537 3."""
    others = tuple(etype for etype in permitted if etype != own)
    return (*others, own) if own == EncryptionType.RC4_HMAC else (own, *others)
