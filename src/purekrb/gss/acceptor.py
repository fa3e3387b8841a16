"""The acceptor: the service's side of a security context.

Source: RFC 4121 4.1, RFC 2743 2.2.2, MS-KILE 3.4.5.1.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    IAKERB_OID,
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    SPNEGO_OID,
    USER_TO_USER_OID,
    ApOptions,
    ChecksumType,
    EncryptionType,
    ErrorCode,
    Flag,
    error_name,
    flag_names,
)
from purekrb.errors import (
    ApError,
    ChannelBindingsError,
    ContextError,
    DecodeError,
    KerberosError,
    PacError,
)
from purekrb.exchanges.ap_exchange import (
    AcceptedApReq,
    ServiceKeys,
    accept_ap_req,
    build_ap_rep,
    remember_authenticator,
    verify_third_leg,
)
from purekrb.exchanges.authorization_data import is_bindings_aware, read_client_target
from purekrb.exchanges.opened_tickets import read_ticket
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.checksum import NO_BINDINGS, GssChecksum
from purekrb.gss.context import MAX_TOKEN, Agreement, SecurityContext
from purekrb.gss.framing import (
    TOK_AP_REP,
    TOK_AP_REQ,
    TOK_KRB_ERROR,
    frame,
    is_framed_for,
    unframe_any,
)
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import (
    ApReq,
    AuthorizationDataEntry,
    EncTicketPart,
    HostAddress,
    KrbError,
)
from purekrb.names import Principal
from purekrb.records import record, replace
from purekrb.replay import ReplayCache, default_replay_cache
from purekrb.system import Clock, RandomBytes, now, random_bytes, unpredictable

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.ticket import ServiceTicket
    from purekrb.exchanges.identity import ClientIdentity
    from purekrb.gss.export import ContextState
    from purekrb.gss.iakerb import Conversation, Relay
    from purekrb.gss.negotiate import Handshake

__all__ = ["Acceptor"]

log = Log("purekrb.gss")
#: `&` of an IntFlag is slow: see constants.py.
_USE_SESSION_KEY = int(ApOptions.USE_SESSION_KEY)
_DELEG, _MUTUAL, _DCE_STYLE = int(Flag.DELEG), int(Flag.MUTUAL), int(Flag.DCE_STYLE)
_SECOND = timedelta(seconds=1)
#: Who does not ask for MUTUAL, and what to do.
_HTTP_HINT = ": browsers and many other HTTP clients do not; pass require=Flag(0) to accept these"
#: The size in bytes of a checksum without delegation. Many clients send the same one.
_MAX_KNOWN_CHECKSUM = len(GssChecksum(0).encode())
#: KERB-ERROR-DATA with data-type 2, KERB_AP_ERR_TYPE_SKEW_RECOVERY: "try again with my time".
#: Source: MS-KILE 2.2.2.
_SKEW_RECOVERY = bytes.fromhex("3005a103020102")


@record
class _Client:
    """The facts about the client besides its name, from the AP-REQ or from an exported context."""

    acceptor_names: tuple[Principal, ...]
    anonymous: bool
    channel_bound: bool
    relevant: tuple[AuthorizationDataEntry, ...]
    authorization_data: tuple[AuthorizationDataEntry, ...]
    delegated: Credential | None


class Acceptor(SecurityContext):
    """The service's side of one context. `keytab` is a Keytab or any iterable of its entries.

    A Keytab from `Keytab.load` counts as its file is when the Acceptor is made (`Keytab.current`).

    `service` (a principal, or its text) limits the context to the keys of that name; without it,
    every key counts. The acceptor is the principal of the key that decrypted the ticket. Several
    names may share that key, as the names of one account do. Then `acceptor` is the first of them
    in the keytab that fits `service`, whichever name the client asked for. With
    `require_client_target`, the client must tell, encrypted, which of these names it asked for.

    `require` are the flags that the client must ask for. `clock_skew` is in seconds. `replay_cache`
    is by default that of `purekrb.replay.default_replay_cache`: MIT's file of this user. Anonymous
    clients (RFC 8062) are refused unless `accept_anonymous` is true. `channel_bindings` are
    compared if the client sends some; with `require_channel_bindings`, it must. `peer_address` is
    compared with the ticket's addresses. With `require_pac`, the ticket must have a PAC that is
    signed by both the service's key and the KDC. If `accept_delegation` is false, a delegated
    credential is neither read nor reported. `tgt` is a Credential of the service's own account, such
    as one from the same keytab, with which `delegated_credential` acts for clients. If it holds a
    TGT, clients also authenticate by that, user to user (RFC 4120 3.7); then `keytab` may be missing.
    `mechanism` "negotiate" accepts SPNEGO and Kerberos tokens, "kerberos" only the latter. SPNEGO
    agrees on Kerberos or on nothing. A token of more than `max_token` bytes is refused unread.
    With `relay`, which is `KdcClient.relay` or a function like it, clients that reach no KDC get
    their tickets through this service (IAKERB); `step` then waits for KDCs.
    """

    _role = "acceptor"

    def __init__(
        self,
        keytab: ServiceKeys | None = None,
        *,
        mechanism: str = "negotiate",
        replay_cache: ReplayCache | None = None,
        channel_bindings: ChannelBindings | None = None,
        require_channel_bindings: bool = False,
        service: str | Principal | None = None,
        clock_skew: float = 300,
        require: Flag = Flag.MUTUAL,
        permitted_etypes: tuple[int, ...] = DEFAULT_ETYPES,
        peer_address: HostAddress | None = None,
        require_pac: bool = False,
        accept_delegation: bool = True,
        accept_anonymous: bool = False,
        require_client_target: bool = False,
        tgt: Credential | None = None,
        enforce_expiry: bool = True,
        relay: Relay | None = None,
        max_token: int = MAX_TOKEN,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> None:
        super().__init__(
            mechanism, channel_bindings, permitted_etypes, enforce_expiry, clock, random, max_token
        )
        if require_channel_bindings and channel_bindings is None:
            raise ValueError("require_channel_bindings needs the channel_bindings to compare with")
        self._keys = () if keytab is None and tgt is not None else _checked_keys(keytab)
        self._replay_cache = default_replay_cache() if replay_cache is None else replay_cache
        self._require_bindings = require_channel_bindings
        self._service = Principal.parse(service) if isinstance(service, str) else service
        self._clock_skew = clock_skew * _SECOND
        self._require = int(require)
        self._peer_address = peer_address
        self._require_pac = require_pac
        self._accept_delegation = accept_delegation
        self._accept_anonymous = accept_anonymous
        self._require_target = require_client_target
        self._relay = relay
        self._conversation: Conversation | None = None  # before the AP-REQ, in IAKERB
        self._own = tgt
        self._shown: ServiceTicket | None = None  # the TGT that the client was sent
        self._accepted: AcceptedApReq | None = None  # stays None if the context is imported
        self._client: _Client | None = None
        self._identity: ClientIdentity | PacError | None = None
        # None in DCE style, whose messages have no frame.
        self._mechanism: bytes | None = KRB5_MECH_OID

    @property
    def identity(self) -> ClientIdentity:
        """The client's principal, and its SIDs and names from the ticket's PAC.

        The PAC is verified at the first call. Without a PAC, only the principal is known (`has_pac`
        is false). Raises PacError if the PAC is malformed, about another client, or not signed with
        the service's key. Source: MS-PAC 2, MS-KILE 3.4.5.3.
        """
        self._established()
        if self._identity is None and self._accepted is not None:
            self._identity = _identify(self._accepted, required=False)
        if isinstance(self._identity, PacError):  # found by the exporting process
            raise self._identity.with_traceback(None)
        return cast("ClientIdentity", self._identity)

    @property
    def delegated_credential(self) -> Credential | None:
        """The client's credential, or None if the service cannot act for the client.

        It holds the TGT that the client forwarded (RFC 4121 4.1.1). If the client forwarded none,
        and the acceptor has its `tgt`, the credential gets tickets by constrained delegation, with
        the client's ticket as evidence (MS-SFU 3.1.5.2): see `Credential.on_behalf_of`. Whether
        the KDC permits that, only the first ticket tells. Without `tgt`, None may also mean that
        constrained delegation is not used.
        """
        client = self._peer()
        if client.delegated is None and self._own is not None and self._accepted is not None:
            delegated = self._act_with(self._own, self._accepted)
            self._client = client = replace(client, delegated=delegated)
        return client.delegated

    def _act_with(self, own: Credential, accepted: AcceptedApReq) -> Credential | None:
        """Return the credential of constrained delegation; None if this ticket is no evidence."""
        under_tgt = accepted.ap_options & _USE_SESSION_KEY  # of which the KDC can make no evidence
        if not self._accept_delegation or accepted.anonymous or under_tgt:
            return None
        from purekrb.credentials.credential import Credential  # only delegation pays for these
        from purekrb.credentials.ticket import ServiceTicket

        part = accepted.ticket
        evidence = ServiceTicket(
            client=accepted.client,
            service=accepted.service,
            ticket=accepted.presented,
            session_key=EncryptionKey(part.key.etype, part.key.contents),  # ours ends with us
            flags=part.flags,
            authtime=part.authtime,
            starttime=part.starttime,
            endtime=part.endtime,
            renew_till=part.renew_till,
            caddr=part.caddr or (),
        )
        return Credential.on_behalf_of(own, evidence)

    @property
    def channel_bound(self) -> bool:
        """Whether the client sent channel bindings that equal those of this acceptor."""
        return self._peer().channel_bound

    @property
    def acceptor_names(self) -> tuple[Principal, ...]:
        """The principals of the key that decrypted the ticket, in the keytab's order.

        `acceptor` is one of them. The key proves only that the client asked for one of them, or for
        another name of the same account.
        """
        return self._peer().acceptor_names

    @property
    def anonymous(self) -> bool:
        """Whether the client is anonymous; only with `accept_anonymous`. Source: RFC 8062."""
        return self._peer().anonymous

    @property
    def user_to_user(self) -> bool:
        """Whether the client's ticket was under `tgt`. False for an imported context."""
        self._established()
        return self._accepted is not None and bool(self._accepted.ap_options & _USE_SESSION_KEY)

    @property
    def client_target(self) -> str | None:
        """The service that the client asked for, such as HTTP/web.ad.test@AD.TEST, or None.

        It comes from the client, not from the KDC. Nobody on the network can change it, because it
        is in the encrypted authenticator (ad-type 144). Raises ProtocolError if it is not UTF-16,
        or there twice. Source: MS-KILE 3.2.5.8.
        """
        return read_client_target(self._peer().relevant)

    @property
    def authtime(self) -> datetime:
        """When the client logged in; aware, UTC. Raises ContextError for an imported context."""
        return self._ticket().authtime

    @property
    def ticket_flags(self) -> int:
        """The ticket's flags. Raises ContextError for an imported context."""
        return self._ticket().flags

    def _ticket(self) -> EncTicketPart:
        self._established()
        if self._accepted is None:
            raise ContextError("an imported context does not have its ticket any more")
        return self._accepted.ticket

    @property
    def authorization_data(self) -> tuple[AuthorizationDataEntry, ...]:
        """The ticket's authorization data from the KDC, or (). Source: RFC 4120 5.3."""
        return self._peer().authorization_data

    def _peer(self) -> _Client:
        self._established()
        return cast(_Client, self._client)  # an established context has one

    def _also_exported(self) -> dict[str, Any]:
        client, delegated = self._peer(), self.delegated_credential
        identity: ClientIdentity | PacError
        try:
            identity = self.identity
        except PacError as error:
            identity = error
        return {
            "acceptor_names": client.acceptor_names,
            "anonymous": client.anonymous,
            "channel_bound": client.channel_bound,
            "relevant": client.relevant,
            "authorization_data": client.authorization_data,
            "identity": identity,
            "delegated": None if delegated is None else delegated.with_impersonator(),
        }

    def _restore(self, state: ContextState) -> None:
        if state.identity is None:
            raise DecodeError(
                "the exported context does not name the client: purekrb did not make it"
            )
        if not state.acceptor_names:
            raise DecodeError(
                "the exported context does not name the service: purekrb did not make it"
            )
        self._accepted, self._identity, self._own = None, state.identity, None
        self._client = _Client(
            acceptor_names=state.acceptor_names,
            anonymous=state.anonymous,
            channel_bound=state.channel_bound,
            relevant=state.relevant,
            authorization_data=state.authorization_data,
            delegated=None if state.delegated is None else _credential(state.delegated),
        )
        super()._restore(state)

    def _begin(self, in_token: bytes | None) -> Handshake:
        if in_token is None:
            raise ContextError("an acceptor needs the initiator's token: pass it to step()")
        if self._negotiate and (not in_token or is_framed_for(in_token, SPNEGO_OID)):
            from purekrb.gss.negotiate import accept  # only negotiations pay for the import

            if self._own is None:
                return accept(self._kerberos, self._messages, in_token)
            others = {USER_TO_USER_OID: self._user_to_user}
            return accept(self._kerberos, self._messages, in_token, others)
        if self._own is not None and is_framed_for(in_token, USER_TO_USER_OID):
            return self._user_to_user(in_token)
        if self._relay is not None:
            from purekrb.gss import iakerb  # only who passes requests on pays for the import

            if is_framed_for(in_token, IAKERB_OID):
                return iakerb.accept(
                    self._relay, self._realm(), self._after_iakerb, in_token, self._clock
                )
        return self._kerberos(in_token)

    def _user_to_user(self, in_token: bytes) -> Handshake:
        """Send our TGT, and take the AP-REQ that presents a ticket under it."""
        from purekrb.gss.user_to_user import show_tgt  # only who needs it pays for the import

        moment = self._clock()
        self._mechanism = USER_TO_USER_OID
        try:
            in_token, self._shown = yield from show_tgt(
                cast("Credential", self._own), self._names, in_token
            )
        except ApError as error:
            error.response = self._krb_error(error.code, moment, b"")
            raise
        return (yield from self._kerberos(in_token, USER_TO_USER_OID))

    def _names(self) -> list[Principal]:
        """Return the names that this acceptor answers to."""
        named = [] if self._service is None else [self._service]
        return [*named, *dict.fromkeys(entry.principal for entry in self._keys)]

    def _tgt_at_hand(self) -> ServiceTicket | None:
        """Return the TGT that the client has been shown: here, or by the application."""
        if self._shown is not None or self._own is None:
            return self._shown
        from purekrb.gss.user_to_user import tgt_of

        return tgt_of(self._own)

    def _realm(self) -> str:
        """Return the realm of this service; "" if the keys tell none."""
        named = self._service or next((entry.principal for entry in self._keys), None)
        return "" if named is None else named.realm

    def _after_iakerb(self, in_token: bytes, conversation: Conversation) -> Handshake:
        self._conversation = conversation
        return self._kerberos(in_token, IAKERB_OID)

    def _kerberos(self, in_token: bytes, mechanism: bytes | None = None) -> Handshake:
        """Take the AP-REQ; with MUTUAL, return the AP-REP.

        In DCE style, yield the AP-REP, and take the client's. `mechanism` is that of the frame.
        """
        moment = self._clock()
        if mechanism is None:
            # A client that calls Kerberos by Microsoft's OID expects that OID in the answer.
            ms_krb5 = is_framed_for(in_token, MS_KRB5_MECH_OID)
            mechanism = MS_KRB5_MECH_OID if ms_krb5 else KRB5_MECH_OID
        tok_id, message = unframe_any(in_token, mechanism)
        self._mechanism = None if message is in_token else mechanism
        try:
            if tok_id != TOK_AP_REQ:
                # RFC 4121 4.1: the token id of an AP-REQ.
                raise ApError(
                    "the initiator's first token is not an AP-REQ",
                    code=ErrorCode.KRB_AP_ERR_MSG_TYPE,
                )
            accepted, flags = self._accept(message, moment)
            reply, seq_number = self._answer(accepted, flags)
        except ApError as error:
            if error.response is None:
                error.response = self._krb_error(error.code, moment, message)
                log.debug("KRB-ERROR for the initiator: %s", error_name(error.code))
            raise
        if not flags & _DCE_STYLE or reply is None:
            return reply
        verify_third_leg((yield reply), accepted.ticket.key, service_seq_number=seq_number)
        return None

    def _accept(self, message: bytes, moment: datetime) -> tuple[AcceptedApReq, int]:
        """Return a genuine AP-REQ and the context's flags; set `_client`."""
        accepted = accept_ap_req(
            message,
            self._keys,
            service=self._service,
            permitted_etypes=self._permitted_etypes,
            clock_skew=self._clock_skew,
            now=moment,
            peer_address=self._peer_address,
            accept_anonymous=self._accept_anonymous,
            require_client_target=self._require_target,
            tgt=self._tgt_at_hand,
            user_to_user=self._shown is not None,
        )
        subkey = accepted.authenticator.subkey
        if subkey is not None:
            self._secrets.append(subkey)  # the session key is kept with the service's key
        if self._require_pac:
            self._identity = _identify(accepted, required=True)
        checksum = self._checksum(accepted)
        if self._conversation:  # messages that went through this service: the client confirms them
            self._conversation.verify(subkey, checksum.extensions)
        # MS-KILE 3.4.5.1: DCE style has no frames.
        if (self._mechanism is None) != bool(checksum.flags & _DCE_STYLE):
            raise DecodeError(
                "the client sent a bare AP-REQ without the GSS-API frame, as only DCE style does"
                if self._mechanism is None
                else "the client asks for DCE style, but sent its AP-REQ in a GSS-API frame"
            )
        bound = self._check_bindings(checksum.bindings, accepted)
        flags = self._agreed_flags(checksum.flags)
        delegated = self._read_delegation(checksum, accepted)
        # RFC 4120 3.2.3: the authenticator counts as seen once all other checks have passed.
        remember_authenticator(accepted, self._replay_cache, moment)
        self._accepted = accepted
        self._client = _Client(
            acceptor_names=accepted.names,
            anonymous=accepted.anonymous,
            channel_bound=bound,
            relevant=accepted.relevant,
            authorization_data=accepted.ticket.authorization_data or (),
            delegated=delegated,
        )
        return accepted, flags

    def _read_delegation(self, checksum: GssChecksum, accepted: AcceptedApReq) -> Credential | None:
        """Return the credential in the checksum's KRB-CRED, or None. Source: RFC 4121 4.1.1."""
        if checksum.delegation is None or not self._accept_delegation:
            return None
        from purekrb.exchanges.krb_cred import read_krb_cred  # only delegation pays for the import

        subkey = accepted.authenticator.subkey
        keys = (accepted.ticket.key,) if subkey is None else (accepted.ticket.key, subkey)
        tickets = read_krb_cred(checksum.delegation, keys)
        log.debug("KRB-CRED: %s delegated its TGT, until %s", tickets[0].client, tickets[0].endtime)
        return _credential(tickets)

    def _answer(self, accepted: AcceptedApReq, flags: int) -> tuple[bytes | None, int]:
        """Agree on key and numbers; return the AP-REP's token (or None) and our initial number."""
        ticket, authenticator = accepted.ticket, accepted.authenticator
        initiator_key = authenticator.subkey or ticket.key
        initiator_seq = seq_number = authenticator.seq_number or 0
        subkey: EncryptionKey | None = None
        token: bytes | None = None
        if flags & _MUTUAL:
            subkey = self._subkey(accepted, initiator_key.etype)
            seq_number = int.from_bytes(unpredictable(self._random, 4), "big")
            reply = build_ap_rep(
                accepted, subkey=subkey, seq_number=seq_number, random=self._random
            )
            token = self._framed(TOK_AP_REP, reply)
        agreement = Agreement(
            flags=flags,
            key=subkey or initiator_key,
            initiator_key=initiator_key,
            acceptor_subkey=subkey is not None,
            initiator=accepted.client,
            acceptor=accepted.service,
            starttime=ticket.starttime or ticket.authtime,
            endtime=ticket.endtime,
            expires=ticket.endtime if self._enforce_expiry else None,
        )
        self._agree(agreement, seq_number, initiator_seq)
        return token, seq_number

    def _framed(self, tok_id: bytes, message: bytes) -> bytes:
        return message if self._mechanism is None else frame(tok_id, message, self._mechanism)

    def _subkey(self, accepted: AcceptedApReq, default: int) -> EncryptionKey | None:
        """Return a new key of the initiator's first etype that is permitted here. RFC 4537 3."""
        etype = next(
            (etype for etype in accepted.etypes if etype in self._permitted_etypes), default
        )
        if etype == default == EncryptionType.RC4_HMAC:
            # In an RC4 context MIT's initiator keeps its own subkey, whatever the acceptor sends.
            return None
        subkey = crypto.random_key(etype, self._random)
        self._secrets.append(subkey)
        return subkey

    def _checksum(self, accepted: AcceptedApReq) -> GssChecksum:
        cksum = accepted.authenticator.cksum
        # MS-KILE 3.4.5.1: no checksum means no flags and no bindings. `require` decides on that.
        if cksum is None:
            return GssChecksum(0)
        # RFC 4121 4.1.1: the checksum type of GSS-API is 0x8003.
        if cksum.cksumtype != ChecksumType.GSSAPI:
            raise ApError(
                f"the authenticator has a checksum of type {cksum.cksumtype} instead of 0x8003: "
                "it was made for a protocol other than GSS-API",
                code=ErrorCode.KRB_AP_ERR_INAPP_CKSUM,
            )
        data = cksum.checksum
        return (
            _read_checksum(data) if len(data) <= _MAX_KNOWN_CHECKSUM else GssChecksum.decode(data)
        )

    def _agreed_flags(self, flags: int) -> int:
        if flags & _DCE_STYLE:
            flags |= _MUTUAL
        missing = self._require & ~flags
        if missing:
            raise ApError(
                f"the initiator did not ask for {', '.join(flag_names(Flag, missing))}, "
                f"which this acceptor requires{_HTTP_HINT if missing == _MUTUAL else ''}",
                code=ErrorCode.KRB_AP_ERR_MUT_FAIL
                if missing & _MUTUAL
                else ErrorCode.KDC_ERR_POLICY,
            )
        return flags if self._accept_delegation else flags & ~_DELEG

    def _check_bindings(self, received: bytes, accepted: AcceptedApReq) -> bool:
        """Compare channel bindings; return whether the client sent ours.

        Source: RFC 4121 4.1.1.2, MS-KILE 3.4.5.1.
        """
        aware = is_bindings_aware(accepted.relevant)
        if self._channel_bindings is None:
            return False
        if received == NO_BINDINGS:
            if aware or self._require_bindings:
                raise ChannelBindingsError(
                    "the client sent no channel bindings: "
                    "it did not see our TLS, so something stands between us",
                    code=ErrorCode.KRB_AP_ERR_MODIFIED,
                )
            return False
        # RFC 4121 4.1.1.2: Bnd is the digest of the bindings.
        if not hmac.compare_digest(received, self._channel_bindings.digest()):
            raise ChannelBindingsError(
                "the client's channel bindings are those of another channel: "
                "something stands between us",
                code=ErrorCode.KRB_AP_ERR_MODIFIED,
            )
        log.debug("channel bindings: the initiator's are equal to ours")
        return True

    def _krb_error(self, code: int, moment: datetime, message: bytes) -> bytes:
        """Return the token with a KRB-ERROR for the peer: code, time and our name, nothing else.

        Our name is `service`, or the name in the client's ticket. Source: RFC 4120 5.9.1.
        """
        name = self._service or _called(message)
        if name is None:
            own = Principal((), "") if self._own is None else self._own.principal
            name = next((entry.principal for entry in self._keys), own)
        data = _SKEW_RECOVERY if code == ErrorCode.KRB_AP_ERR_SKEW else None
        error = KrbError.of(code, moment, name, data)
        return self._framed(TOK_KRB_ERROR, error.encode())


def _called(message: bytes) -> Principal | None:
    """Return the service in the cleartext of an AP-REQ's ticket; None if it cannot be read."""
    try:
        ticket = read_ticket(ApReq.decode(message).ticket)
    except KerberosError:
        return None
    return ticket.sname.principal(ticket.realm)


_read_checksum = lru_cache(maxsize=64)(GssChecksum.decode)


def _checked_keys(keys: ServiceKeys | None) -> ServiceKeys:
    if (
        keys is None or isinstance(keys, (str, bytes)) or not hasattr(keys, "__iter__")
    ):  # text is iterable, too
        raise TypeError(
            f"Acceptor takes keys, not {type(keys).__name__}: "
            'to read them from a file, pass Keytab.load("FILE")'
        )
    # A keytab from a file is taken as the file is now. To import its class here would cost too much.
    current = getattr(keys, "current", None)
    return keys if current is None else cast("ServiceKeys", current())


def _credential(tickets: CCache | list[ServiceTicket]) -> Credential:
    from purekrb.credentials.ccache import CCache  # only delegation pays for these imports
    from purekrb.credentials.credential import Credential

    return Credential.from_ccache(
        tickets if isinstance(tickets, CCache) else CCache(tickets[0].client, tickets)
    )


def _identify(accepted: AcceptedApReq, *, required: bool) -> ClientIdentity:
    from purekrb.exchanges.identity import client_identity  # only use of the PAC pays for it

    return client_identity(
        accepted.ticket, accepted.key, required=required, realm=accepted.service.realm
    )
