"""Security contexts: `Initiator` and `Acceptor`, two small objects that their caller drives with `step`.

    initiator                                    acceptor
    NEW --step()--------> AP-REQ --------------> NEW --step(AP-REQ)--> ESTABLISHED
    WAITING --step(AP-REP)--> ESTABLISHED <----- AP-REP

Without MUTUAL the initiator is ESTABLISHED at once. In DCE style the acceptor is WAITING after its AP-REP, and the
initiator's last step returns an AP-REP of its own, which establishes the acceptor. Any failure leads to FAILED, `close`
to CLOSED, both for good. The tokens of each side come from one generator, its handshake: `_kerberos`, or that of
negotiate.py around it. Source: RFC 4121 4.1, RFC 2743 2.2, MS-KILE 3.4.5.1.
"""

from __future__ import annotations

import enum
import hmac
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeVar

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    KERB_AP_OPTIONS_CBT,
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    SPNEGO_OID,
    AuthDataType,
    ChecksumType,
    EncryptionType,
    ErrorCode,
    Flag,
    PrfKey,
    TicketFlags,
    error_name,
    flag_names,
)
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ApError,
    ChannelBindingsError,
    ContextError,
    ContextExpiredError,
    CredentialError,
    DecodeError,
    MutualAuthenticationError,
    PacError,
    PolicyError,
    ProtocolError,
    UnsupportedError,
)
from purekrb.exchanges.ap_exchange import (
    AcceptedApReq,
    SentApReq,
    ServiceKeys,
    accept_ap_req,
    build_ap_rep,
    build_ap_req,
    build_third_leg,
    remember_authenticator,
    verify_ap_rep,
    verify_third_leg,
)
from purekrb.exchanges.krb_cred import build_krb_cred, read_krb_cred
from purekrb.exchanges.timestamps import unique_now
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.checksum import NO_BINDINGS, GssChecksum
from purekrb.gss.framing import TOK_AP_REP, TOK_AP_REQ, TOK_KRB_ERROR, frame, is_framed_for, unframe, unframe_any
from purekrb.gss.iov import DceProtection, IovBuffer, IovProtection
from purekrb.gss.negotiate import Handshake, accept, initiate
from purekrb.gss.rc4_tokens import Rc4Protection
from purekrb.gss.refusal import peer_refused
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages.ap import AuthorizationDataEntry, Checksum, HostAddress, KrbError
from purekrb.names import Principal
from purekrb.replay import ReplayCache, default_replay_cache
from purekrb.secrecy import forget_frames
from purekrb.system import Clock, RandomBytes, now, random_bytes

if TYPE_CHECKING:
    from purekrb.exchanges.identity import ClientIdentity
    from purekrb.gss.transfer import ContextState

__all__ = ["SecurityContext", "Initiator", "Acceptor", "MAX_TOKEN", "check_mechanism"]

log = logging.getLogger("purekrb.gss")
_T = TypeVar("_T")
_C = TypeVar("_C", bound="SecurityContext")

#: The flags as plain numbers: enum arithmetic costs a microsecond each time.
_DELEG, _MUTUAL, _REPLAY, _SEQUENCE, _CONF, _INTEG, _DCE_STYLE = map(
    int, (Flag.DELEG, Flag.MUTUAL, Flag.REPLAY, Flag.SEQUENCE, Flag.CONF, Flag.INTEG, Flag.DCE_STYLE)
)
_OK_AS_DELEGATE = int(TicketFlags.OK_AS_DELEGATE)

#: The largest token that `step` looks at, in bytes; Windows' default maximum. Source: MS-KILE 3.1.1.
MAX_TOKEN = 48_000
#: KERB-ERROR-DATA with data-type 2, KERB_AP_ERR_TYPE_SKEW_RECOVERY: "try again with my time". Source: MS-KILE 2.2.2.
_SKEW_RECOVERY = bytes.fromhex("3005a103020102")


class _State(enum.Enum):
    NEW = "not established: call step() first"
    WAITING = "not established: it waits for the peer's next token"
    ESTABLISHED = "established"
    FAILED = "dead: its establishment failed; start a new one"
    CLOSED = "closed: start a new one"
    EXPORTED = "exported: it goes on where it was imported"


class _Protection(Protocol):
    def wrap(self, data: bytes, sealed: bool) -> bytes: ...
    def unwrap(self, token: bytes, sealed: bool) -> bytes: ...
    def unwrap_into(self, token: bytes, sealed: bool, out: memoryview) -> int: ...
    def get_mic(self, data: bytes) -> bytes: ...
    def verify_mic(self, data: bytes, mic: bytes) -> None: ...
    def wrap_size_limit(self, output_size: int, sealed: bool) -> int: ...
    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]: ...
    def unwrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]: ...
    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[int]: ...
    def sequences(self) -> tuple[int, int, int]: ...


def _by_etype(*protections: type[IovProtection | Rc4Protection]) -> dict[int, Callable[..., _Protection]]:
    return {etype: protection for protection in protections for etype in protection.etypes}


_PROTECTIONS = _by_etype(IovProtection, Rc4Protection)
_DCE_PROTECTIONS = _by_etype(DceProtection)


class SecurityContext:
    """What both sides have in common: the established context and its per-message calls.

    `step` is called by one thread; after that, one thread may seal while another unseals.
    """

    _role: ClassVar[str]

    def __init__(
        self,
        *,
        mechanism: str,
        channel_bindings: ChannelBindings | None,
        permitted_etypes: tuple[int, ...],
        enforce_expiry: bool,
        clock: Clock,
        random: RandomBytes,
    ) -> None:
        check_mechanism(mechanism)
        self._negotiate = mechanism == "negotiate"
        self._state = _State.NEW
        self._handshake: Handshake[_Protection] | None = None
        self._channel_bindings = channel_bindings
        self._permitted_etypes = tuple(etype for etype in permitted_etypes if etype in _PROTECTIONS)
        self._enforce_expiry = enforce_expiry
        self._clock = clock
        self._expires: datetime | None = None  # endtime by our clock, where it is enforced
        self._random = random
        self._flags = 0
        self._protection: _Protection | None = None
        self._key: EncryptionKey | None = None
        self._initiator_key: EncryptionKey | None = None
        self._secrets: list[EncryptionKey] = []  # what ends with this context
        self._initiator_name: Principal | None = None
        self._acceptor_name: Principal | None = None
        self._starttime: datetime | None = None
        self._endtime: datetime | None = None
        self._step_lock = Lock()

    def step(self, in_token: bytes | None = None) -> bytes | None:
        """Take the peer's token (None for an initiator's first step) and return the one to send, or None.

        Call until `established`. Any error is final; its `response`, if there is one, is to be sent to the peer.
        Raises ContextError when the context is established, failed or closed already.
        """
        with self._step_lock:
            if self._state not in (_State.NEW, _State.WAITING):
                raise ContextError(f"this context takes no token: it is {self._state.value}")
            try:
                if in_token is not None and len(in_token) > MAX_TOKEN:
                    raise DecodeError(f"a context token of {len(in_token)} bytes is larger than {MAX_TOKEN}")
                return self._advance(None if in_token is None else _bytes(in_token))
            except BaseException as error:
                self._end(_State.FAILED)
                code = f"{error_name(error.code)}: " if isinstance(error, ApError) else ""
                log.debug("%s: no context: %s%s", type(self).__name__, code, error)
                raise

    def _advance(self, in_token: bytes | None) -> bytes | None:
        try:
            if self._handshake is None:
                self._handshake = self._begin(in_token)
                token = next(self._handshake)
            elif in_token is None:
                raise ContextError("the context waits for the peer's answer: pass it to step()")
            else:
                token = self._handshake.send(in_token)
        except StopIteration as end:
            last: bytes | None
            last, self._protection = end.value
            self._handshake = None
            self._state = _State.ESTABLISHED
            if log.isEnabledFor(logging.DEBUG):
                log.debug(
                    "context established: %s -> %s, %s, %s",
                    self._initiator_name,
                    self._acceptor_name,
                    etype_name(self.etype),
                    ", ".join(flag_names(Flag, self._flags)),
                )
            return last
        self._state = _State.WAITING
        return token

    def _begin(self, in_token: bytes | None) -> Handshake[_Protection]:
        raise NotImplementedError

    @property
    def established(self) -> bool:
        """Whether the handshake is complete, which with MUTUAL includes the verified proof of the service."""
        return self._state is _State.ESTABLISHED

    @property
    def flags(self) -> Flag:
        """The flags in force. Meaningful once established."""
        self._established()
        return Flag(self._flags)

    @property
    def mutual(self) -> bool:
        """Whether the service has proved itself (initiator) or was asked to and did (acceptor)."""
        return self.established and bool(self._flags & _MUTUAL)

    @property
    def initiator(self) -> Principal:
        """The client's principal, as the KDC vouches for it."""
        self._established()
        return self._known(self._initiator_name)

    @property
    def acceptor(self) -> Principal:
        """The service's principal: at the acceptor, that of the key which decrypted the ticket."""
        self._established()
        return self._known(self._acceptor_name)

    @property
    def starttime(self) -> datetime:
        """When the ticket behind the context became valid; aware, UTC."""
        self._established()
        return self._known(self._starttime)

    @property
    def endtime(self) -> datetime:
        """When the ticket behind the context expires; aware, UTC."""
        self._established()
        return self._known(self._endtime)

    @property
    def session_key(self) -> EncryptionKey:
        """The key of the per-message tokens: acceptor's subkey, else initiator's, else the ticket's. RFC 4121 2."""
        self._established()
        return self._known(self._key)

    @property
    def etype(self) -> int:
        """The encryption type of `session_key`."""
        return self.session_key.etype

    def wrap(self, data: bytes, sealed: bool = True) -> bytes:
        """Return a token that carries `data`, encrypted and signed (`sealed`) or signed only. RFC 4121 4.2.4.

        Raises ContextExpiredError after `endtime`, ContextError before the context is established.
        """
        return self._sender().wrap(data if type(data) is bytes else _bytes(data), sealed)

    def unwrap(self, token: bytes, sealed: bool = True) -> bytes:
        """Return the data of the peer's `token`; `sealed` refuses one that is only signed (PolicyError).

        Raises DecodeError, ProtocolError or IntegrityError for a token that is not genuine, which changes nothing;
        SequenceError for a genuine one that came twice or out of order.
        """
        return self._established().unwrap(token if type(token) is bytes else _bytes(token), sealed)

    def unwrap_into(self, token: bytes, buffer: bytearray | memoryview, sealed: bool = True) -> int:
        """Write the data of the peer's `token` into `buffer` and return its size in bytes; for large messages.

        `buffer` is writable and has room for `wrap_size_limit(len(token), sealed)` bytes (ValueError). It spares the
        memory for a new object, which costs as much as decrypting into it. Errors as in `unwrap`; after one, `buffer`
        holds nothing of the message. With etypes 17 and 18, whose MAC covers the plaintext, do not let another thread
        read `buffer` before this returns.
        """
        protection = self._established()
        token = token if type(token) is bytes else _bytes(token)
        with memoryview(buffer) as given, given.cast("B") as out:
            room = protection.wrap_size_limit(len(token), sealed)
            if out.readonly or len(out) < room:
                raise ValueError(f"the buffer must be writable and have room for {room} bytes, it has {len(out)}")
            return protection.unwrap_into(token, sealed, out)

    def get_mic(self, data: bytes) -> bytes:
        """Return the MIC token that signs `data`. Source: RFC 4121 4.2.6.1."""
        return self._sender().get_mic(data if type(data) is bytes else _bytes(data))

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        """Raise unless `mic` is the peer's MIC token over `data`; errors as in `unwrap`."""
        self._established().verify_mic(_bytes(data), _bytes(mic))

    def wrap_size_limit(self, output_size: int, sealed: bool = True) -> int:
        """Return how many bytes of data fit into a token of at most `output_size` bytes. Source: RFC 2743 2.4.6."""
        return self._established().wrap_size_limit(output_size, sealed)

    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[IovBuffer]:
        """Return `buffers` with a Wrap token in them: HEADER (and TRAILER) filled, DATA encrypted where `sealed`.

        There are one HEADER, at most one TRAILER and one PADDING (which stays empty), and any number of DATA and
        SIGN_ONLY. What is in SIGN_ONLY is signed in its place and stays as it is; without DATA nothing is sealed.
        Raises ValueError for other sets of buffers, UnsupportedError in an RC4 context, and what `wrap` raises.
        """
        return self._sender().wrap_iov(buffers, sealed)

    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[int]:
        """Return the length that each buffer will have after `wrap_iov`."""
        return self._established().wrap_iov_length(buffers, sealed)

    def unwrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[IovBuffer]:
        """Return the buffers of the peer's `wrap_iov` with the message in DATA; the others stay as they are.

        A token in one piece is given as STREAM, with one empty DATA buffer, which receives the message. `sealed`
        refuses DATA that is only signed. Errors as in `unwrap`; ValueError for other sets of buffers.
        """
        return self._established().unwrap_iov(buffers, sealed)

    def prf(self, key_use: PrfKey, data: bytes, length: int) -> bytes:
        """Return `length` bytes that both sides, and nobody else, can derive from `data`. Source: RFC 4401, RFC 4402.

        `key_use` FULL is what to take; PARTIAL uses the key that the initiator alone has chosen.
        """
        self._established()
        key = self._known(self._key if PrfKey(key_use) is PrfKey.FULL else self._initiator_key)
        if length < 0:
            raise ValueError(f"{length} bytes cannot be made")
        seed, out, number = _bytes(data), bytearray(), 0
        while len(out) < length:
            out += crypto.prf(key, number.to_bytes(4, "big") + seed)
            number += 1
        return bytes(out[:length])

    @forget_frames
    def export_context(self, key: bytes) -> bytes:
        """Return this context, encrypted with `key` of 16, 24 or 32 bytes, for `import_context`; this one ends.

        For another process of this machine that runs the same purekrb. Import it once: two contexts that go on with
        the same sequence numbers are no longer safe. Raises ContextError unless the context is established.
        """
        from purekrb.gss import transfer  # only who exports pays for it

        transfer.check_key(key)
        protection = self._established()
        carry_on = partial(
            transfer.ContextState,
            role=self._role,
            flags=self._flags,
            key=_copy(self._known(self._key)),
            initiator_key=_copy(self._known(self._initiator_key)),
            acceptor_subkey=self._acceptor_subkey,
            initiator=self.initiator,
            acceptor=self.acceptor,
            starttime=self.starttime,
            endtime=self.endtime,
            expires=self._expires,
            **self._also_exported(),
        )
        # The keys go first: a thread that still seals gets either a number before ours, or no token.
        self._end(_State.EXPORTED)
        send_seq, receive_seq, seen = protection.sequences()
        log.debug("context exported: %s -> %s", self._initiator_name, self._acceptor_name)
        state = carry_on(send_seq=send_seq, receive_seq=receive_seq, seen=seen)
        return transfer.seal_state(state, key, self._random)

    @classmethod
    @forget_frames
    def import_context(
        cls: type[_C], blob: bytes, key: bytes, *, clock: Clock = now, random: RandomBytes = random_bytes
    ) -> _C:
        """Return the established context that `export_context` returned as `blob`, encrypted with `key`.

        Raises DecodeError for what is no exported context, IntegrityError for another key and altered bytes,
        UnsupportedError for the form of another version, ContextError for a context of the other side.
        """
        from purekrb.gss import transfer

        state = transfer.open_state(_bytes(blob), key)
        if state.role != cls._role:
            raise ContextError(f"this is the context of an {state.role}: import it as such")
        context = cls.__new__(cls)
        SecurityContext.__init__(
            context,
            mechanism="kerberos",
            channel_bindings=None,
            permitted_etypes=(),
            enforce_expiry=False,
            clock=clock,
            random=random,
        )
        context._restore(state)
        log.debug("context imported: %s -> %s", state.initiator, state.acceptor)
        return context

    def _also_exported(self) -> dict[str, Any]:
        """Return what this side alone knows, by the names of ContextState."""
        return {}

    def _restore(self, state: ContextState) -> None:
        self._flags = state.flags
        self._initiator_name, self._acceptor_name = state.initiator, state.acceptor
        self._starttime, self._endtime = state.starttime, state.endtime
        self._keep_until_end(state.initiator_key)
        self._protection = self._protect(
            state.key,
            initiator=state.role == Initiator._role,
            initiator_key=state.initiator_key,
            acceptor_subkey=state.acceptor_subkey,
            send_seq=state.send_seq,
            receive_seq=state.receive_seq,
            seen=state.seen,
        )
        self._expires = state.expires
        self._state = _State.ESTABLISHED

    def close(self) -> None:
        """End the context and wipe its keys. Later calls raise ContextError."""
        self._end(_State.CLOSED)

    def _end(self, state: _State) -> None:
        self._state = state
        self._protection = self._key = self._initiator_key = self._handshake = None
        for key in self._secrets:
            key.wipe()
        self._secrets.clear()

    def _keep_until_end(self, *keys: EncryptionKey | None) -> None:
        self._secrets += [key for key in keys if key is not None]

    def __repr__(self) -> str:
        names = f", {self._initiator_name} -> {self._acceptor_name}" if self.established else ""
        return f"<{type(self).__name__} {self._state.name.lower()}{names}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a security context holds keys: it is not pickled or copied")

    def _known(self, value: _T | None) -> _T:
        if value is None:
            raise ContextError(f"this context is {self._state.value}")
        return value

    def _established(self) -> _Protection:
        protection = self._protection
        if protection is None:
            raise ContextError(f"this context is {self._state.value}")
        return protection

    def _sender(self) -> _Protection:
        protection = self._protection
        if protection is None:
            return self._established()
        if self._expires is not None and self._clock() > self._expires:
            raise ContextExpiredError(
                f"the ticket of {self._initiator_name} expired at {self.endtime:%Y-%m-%d %H:%M:%SZ}: authenticate again"
            )
        return protection

    def _protect(
        self,
        key: EncryptionKey,
        *,
        initiator: bool,
        initiator_key: EncryptionKey,
        acceptor_subkey: bool,
        send_seq: int,
        receive_seq: int,
        seen: int = 0,
    ) -> _Protection:
        """Return what protects messages with `key`, on which both sides have agreed."""
        # The context has a copy of its own, so that close() wipes it without taking the ticket's key away.
        self._key = _copy(key)
        self._keep_until_end(self._key)
        self._initiator_key = initiator_key
        self._acceptor_subkey = acceptor_subkey
        self._expires = self._endtime if self._enforce_expiry else None
        protections = _DCE_PROTECTIONS if self._flags & _DCE_STYLE else _PROTECTIONS
        if key.etype not in protections:
            raise UnsupportedError(f"DCE style needs AES keys, not {etype_name(key.etype)}: give the service such keys")
        return protections[key.etype](
            self._key,
            initiator=initiator,
            acceptor_subkey=acceptor_subkey,
            send_seq=send_seq,
            receive_seq=receive_seq,
            flags=self._flags,
            random=self._random,
            seen=seen,
        )


def check_mechanism(mechanism: str) -> None:
    """Raise UnsupportedError unless contexts have the mechanism of this name."""
    if mechanism not in ("kerberos", "negotiate"):
        raise UnsupportedError(f'there is no mechanism {mechanism!r}: pass "kerberos" or "negotiate"')


def _identify(accepted: AcceptedApReq, *, required: bool) -> ClientIdentity:
    from purekrb.exchanges.identity import client_identity  # only who asks for the PAC pays for its decoder

    return client_identity(accepted.ticket, accepted.key, required=required)


def _copy(key: EncryptionKey) -> EncryptionKey:
    return EncryptionKey(key.etype, key.contents)


def _bytes(data: bytes) -> bytes:
    """Return any bytes-like object as bytes; TypeError for all else (bytes(5) would be five zeros)."""
    return data if type(data) is bytes else memoryview(data).tobytes()


class Initiator(SecurityContext):
    """The client's side. `service_ticket` is all it needs: no KDC is asked.

    `flags` are what the context must offer. MUTUAL fails closed: the context is established only after the AP-REP
    was decrypted and its ctime and cusec equal what was sent; DCE_STYLE implies it. DELEG hands `forwarded_tgt` to the
    service, and only if the KDC marked the service OK-AS-DELEGATE; otherwise the flag is dropped. `mechanism`
    "negotiate" wraps Kerberos in SPNEGO, and its first step takes the hints of a service that speaks first. `clock` and
    `random` are for replaying recordings; a clock given here must not return the same time twice.
    """

    _role = "initiator"

    def __init__(
        self,
        service_ticket: ServiceTicket,
        *,
        flags: Flag = Flag.DEFAULT,
        mechanism: str = "kerberos",
        channel_bindings: ChannelBindings | None = None,
        forwarded_tgt: ServiceTicket | None = None,
        permitted_etypes: tuple[int, ...] = DEFAULT_ETYPES,
        enforce_expiry: bool = True,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> None:
        super().__init__(
            mechanism=mechanism,
            channel_bindings=channel_bindings,
            permitted_etypes=permitted_etypes,
            enforce_expiry=enforce_expiry,
            clock=clock,
            random=random,
        )
        self._ticket = service_ticket
        self._forwarded_tgt = forwarded_tgt
        self._sent: SentApReq | None = None
        self._subkey: EncryptionKey | None = None
        self._seq_number = 0
        self._initiator_name = service_ticket.client
        self._acceptor_name = service_ticket.service
        self._starttime = service_ticket.starttime or service_ticket.authtime
        self._endtime = service_ticket.endtime
        self._flags = self._agreed_flags(int(flags))

    def _agreed_flags(self, flags: int) -> int:
        if flags & _DCE_STYLE:
            flags |= _MUTUAL
        if flags & (_REPLAY | _SEQUENCE | _CONF):
            flags |= _INTEG
        if flags & _DELEG:
            if not self._ticket.flags & _OK_AS_DELEGATE:
                log.debug("DELEG dropped: the KDC did not mark %s OK-AS-DELEGATE", self._ticket.service)
                return flags & ~_DELEG
            if not flags & _MUTUAL:
                raise PolicyError("DELEG hands over a TGT: it needs MUTUAL, so that an impostor does not get it")
            if self._forwarded_tgt is None:
                raise CredentialError("DELEG needs a forwarded TGT: pass forwarded_tgt=KdcClient.forward_tgt(...)")
        return flags

    def _begin(self, in_token: bytes | None) -> Handshake[_Protection]:
        if self._negotiate:
            return initiate(self._kerberos, in_token)
        if in_token is not None:
            raise ContextError("an initiator's first step takes no token")
        return self._kerberos()

    def _kerberos(self) -> Handshake[_Protection]:
        """Yield the AP-REQ; with MUTUAL, take the AP-REP; in DCE style, return one."""
        token = self._first_token()
        if not self._flags & _MUTUAL:
            return token, self._finish(acceptor_subkey=None, receive_seq=self._seq_number)
        return self._take_reply((yield token))

    def _first_token(self) -> bytes:
        ticket = self._ticket
        self._permit(ticket.session_key.etype)
        if self._enforce_expiry and self._clock() + ticket.time_offset > ticket.endtime:
            raise ContextExpiredError(
                f"the ticket for {ticket.service} expired at {ticket.endtime:%Y-%m-%d %H:%M:%SZ}: get a new one"
            )
        self._subkey = crypto.random_key(ticket.session_key.etype, self._random)
        self._keep_until_end(self._subkey)
        self._seq_number = int.from_bytes(self._random(4), "big")
        moment = unique_now(self._clock) + ticket.time_offset
        delegation = None
        if self._flags & _DELEG and self._forwarded_tgt is not None:
            delegation = build_krb_cred(self._forwarded_tgt, ticket.session_key, now=moment, random=self._random)
            log.debug("KRB-CRED: %s delegates its TGT to %s", ticket.client, ticket.service)
        bindings = NO_BINDINGS if self._channel_bindings is None else self._channel_bindings.digest()
        checksum = GssChecksum(self._flags, bindings, delegation).encode()
        self._sent = build_ap_req(
            ticket,
            cksum=Checksum(ChecksumType.GSSAPI, checksum),
            subkey=self._subkey,
            seq_number=self._seq_number,
            mutual=bool(self._flags & _MUTUAL),
            etypes=self._offered_etypes(),
            now=moment,
            random=self._random,
        )
        return self._sent.message if self._flags & _DCE_STYLE else frame(TOK_AP_REQ, self._sent.message)

    def _offered_etypes(self) -> tuple[int, ...]:
        """Return what the acceptor may choose its subkey from: the own etype first, but RC4 last. RFC 4537 3."""
        own = self._ticket.session_key.etype
        others = tuple(etype for etype in self._permitted_etypes if etype != own)
        return (*others, own) if own == EncryptionType.RC4_HMAC else (own, *others)

    def _take_reply(self, token: bytes) -> tuple[bytes | None, _Protection]:
        dce_style = bool(self._flags & _DCE_STYLE)
        tok_id, message = unframe_any(token) if dce_style else unframe(token)
        if tok_id == TOK_KRB_ERROR:
            raise peer_refused(message)
        if tok_id != TOK_AP_REP or dce_style != (message is token):
            raise MutualAuthenticationError("the service answered with another token than an AP-REP", got=tok_id.hex())
        if self._sent is None:
            raise ContextError("no AP-REQ was sent")
        part = verify_ap_rep(message, self._sent, self._ticket.session_key, permitted_etypes=self._permitted_etypes)
        self._keep_until_end(part.subkey)
        service_seq = 0 if part.seq_number is None else part.seq_number
        protection = self._finish(part.subkey, service_seq)
        third_leg = None
        if dce_style:
            third_leg = build_third_leg(
                self._sent, self._ticket.session_key, service_seq_number=service_seq, random=self._random
            )
        return third_leg, protection

    def _finish(self, acceptor_subkey: EncryptionKey | None, receive_seq: int) -> _Protection:
        initiator_key = self._subkey or self._ticket.session_key
        protection = self._protect(
            acceptor_subkey or initiator_key,
            initiator=True,
            initiator_key=initiator_key,
            acceptor_subkey=acceptor_subkey is not None,
            send_seq=self._seq_number,
            receive_seq=receive_seq,
        )
        if self._expires is not None:
            with suppress(OverflowError):  # the year 9999 may mean "never"
                self._expires -= self._ticket.time_offset
        return protection

    def _permit(self, etype: int) -> None:
        if etype not in self._permitted_etypes:
            raise PolicyError(
                f"the session key is of {etype_name(etype)}, which is not permitted here: give the service AES keys, "
                "or pass permitted_etypes"
            )


class Acceptor(SecurityContext):
    """The service's side of one context. `keytab` is a Keytab or any iterable of its entries.

    `service` (a principal, or its text) limits the context to that name; without it every key counts. The acceptor's
    identity is that of the key which decrypted the ticket. `require` names the flags without which no context comes
    about. `clock_skew` is in seconds. `replay_cache` is the process-wide memory cache unless given.
    `channel_bindings` are compared when the client sends some; with `require_channel_bindings` it must.
    `peer_address` is checked against a ticket's addresses. `require_pac` refuses clients without a PAC that both the
    service's key and the KDC have signed. With `accept_delegation` false a delegated credential is neither read nor
    reported. `mechanism` "negotiate" takes SPNEGO and Kerberos tokens, "kerberos" the latter alone; with SPNEGO too,
    Kerberos is what is agreed on, or nothing.
    """

    _role = "acceptor"

    def __init__(
        self,
        keytab: ServiceKeys,
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
        enforce_expiry: bool = True,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> None:
        super().__init__(
            mechanism=mechanism,
            channel_bindings=channel_bindings,
            permitted_etypes=permitted_etypes,
            enforce_expiry=enforce_expiry,
            clock=clock,
            random=random,
        )
        if require_channel_bindings and channel_bindings is None:
            raise ValueError("require_channel_bindings needs the channel_bindings to compare with")
        self._keys = keytab
        self._replay_cache = default_replay_cache() if replay_cache is None else replay_cache
        self._require_bindings = require_channel_bindings
        self._service = Principal.parse(service) if isinstance(service, str) else service
        self._clock_skew = timedelta(seconds=clock_skew)
        self._require = int(require)
        self._peer_address = peer_address
        self._require_pac = require_pac
        self._accept_delegation = accept_delegation
        self._delegated: Credential | None = None
        self._bound = False
        self._accepted: AcceptedApReq | None = None
        self._relevant: tuple[AuthorizationDataEntry, ...] = ()
        self._authorization_data: tuple[AuthorizationDataEntry, ...] = ()
        self._identity: ClientIdentity | PacError | None = None
        self._mechanism: bytes | None = KRB5_MECH_OID  # None in DCE style, whose messages have no frame
        self._seq_number = 0

    @property
    def identity(self) -> ClientIdentity:
        """Who the client is: its principal, and from the ticket's PAC its SIDs and names. Verified at the first call.

        Without a PAC only the principal is known (`has_pac` is false). Raises PacError where the PAC is not signed with
        the service's key, is malformed or about another client. Source: MS-PAC 2, MS-KILE 3.4.5.3.
        """
        self._established()
        if self._identity is None:
            self._identity = _identify(self._known(self._accepted), required=False)
        if isinstance(self._identity, PacError):  # what the exporting process found
            raise self._identity.with_traceback(None)
        return self._identity

    @property
    def delegated_credential(self) -> Credential | None:
        """The client's credential with the TGT that it forwarded, or None. Source: RFC 4121 4.1.1."""
        self._established()
        return self._delegated

    @property
    def channel_bound(self) -> bool:
        """Whether the client sent channel bindings and they are those given here."""
        self._established()
        return self._bound

    @property
    def client_target(self) -> str | None:
        """The SPN that a Windows client says it asked for (AD-type 144), or None; the client's word, not the KDC's."""
        self._established()
        names = [entry.ad_data for entry in self._relevant if entry.ad_type == AuthDataType.CLIENT_TARGET]
        return names[0].decode("utf-16-le", "replace") if names else None

    @property
    def authorization_data(self) -> tuple[AuthorizationDataEntry, ...]:
        """The ticket's authorization data as the KDC put it there, () where there is none. RFC 4120 5.3."""
        self._established()
        return self._authorization_data

    def _also_exported(self) -> dict[str, Any]:
        identity: ClientIdentity | PacError
        try:
            identity = self.identity
        except PacError as error:
            identity = error
        return {
            "channel_bound": self._bound,
            "relevant": self._relevant,
            "authorization_data": self._authorization_data,
            "identity": identity,
            "delegated": self._delegated and self._delegated.ccache,
        }

    def _restore(self, state: ContextState) -> None:
        if state.identity is None:
            raise DecodeError("the exported context does not say who the client is: purekrb did not make it")
        super()._restore(state)
        self._bound, self._identity = state.channel_bound, state.identity
        self._relevant, self._authorization_data = state.relevant, state.authorization_data
        self._delegated = None if state.delegated is None else Credential.from_ccache(state.delegated)

    def _begin(self, in_token: bytes | None) -> Handshake[_Protection]:
        if in_token is None:
            raise ContextError("an acceptor needs the initiator's token: pass it to step()")
        if self._negotiate and (not in_token or is_framed_for(in_token, SPNEGO_OID)):
            return accept(self._kerberos, in_token)
        return self._kerberos(in_token)

    def _kerberos(self, in_token: bytes) -> Handshake[_Protection]:
        """Take the AP-REQ; with MUTUAL, return the AP-REP; in DCE style, yield it and take one."""
        moment = self._clock()
        # What calls Kerberos by Microsoft's name expects to hear it.
        ms_krb5 = is_framed_for(in_token, MS_KRB5_MECH_OID)
        mechanism = MS_KRB5_MECH_OID if ms_krb5 else KRB5_MECH_OID
        tok_id, message = unframe_any(in_token, mechanism)
        self._mechanism = None if message is in_token else mechanism
        try:
            if tok_id != TOK_AP_REQ:
                raise ApError("the initiator's first token is no AP-REQ", code=ErrorCode.KRB_AP_ERR_MSG_TYPE)
            accepted = self._accept(message, moment)
            reply, protection = self._reply(accepted)
        except ApError as error:
            if error.response is None:
                error.response = self._krb_error(error.code, moment)
                log.debug("KRB-ERROR for the initiator: %s", error_name(error.code))
            raise
        if not self._flags & _DCE_STYLE or reply is None:
            return reply, protection
        verify_third_leg((yield reply), accepted.ticket.key, service_seq_number=self._seq_number)
        return None, protection

    def _accept(self, message: bytes, moment: datetime) -> AcceptedApReq:
        accepted = accept_ap_req(
            message,
            self._keys,
            service=self._service,
            permitted_etypes=self._permitted_etypes,
            clock_skew=self._clock_skew,
            now=moment,
            peer_address=self._peer_address,
        )
        self._keep_until_end(accepted.authenticator.subkey)  # the ticket's key is kept with the service's
        if self._require_pac:
            self._identity = _identify(accepted, required=True)
        checksum = self._checksum(accepted)
        if (self._mechanism is None) != bool(checksum.flags & _DCE_STYLE):
            raise DecodeError(
                "an AP-REQ without GSS-API frame is only for DCE style, and DCE style is only without frame"
            )
        self._check_bindings(checksum.bindings, accepted)
        self._flags = self._agreed_flags(checksum.flags)
        if checksum.delegation is not None and self._accept_delegation:
            keys = (accepted.ticket.key, accepted.authenticator.subkey)
            tickets = read_krb_cred(checksum.delegation, tuple(key for key in keys if key is not None))
            self._delegated = Credential.from_ccache(CCache(tickets[0].client, tickets))
            log.debug("KRB-CRED: %s delegated its TGT, until %s", tickets[0].client, tickets[0].endtime)
        remember_authenticator(accepted, self._replay_cache, moment)
        self._accepted = accepted
        self._relevant, self._authorization_data = accepted.relevant, accepted.ticket.authorization_data or ()
        self._initiator_name, self._acceptor_name = accepted.client, accepted.service
        self._starttime = accepted.ticket.starttime or accepted.ticket.authtime
        self._endtime = accepted.ticket.endtime
        return accepted

    def _reply(self, accepted: AcceptedApReq) -> tuple[bytes | None, _Protection]:
        initiator_seq = accepted.authenticator.seq_number or 0
        initiator_key = accepted.authenticator.subkey or accepted.ticket.key
        if not self._flags & _MUTUAL:
            return None, self._protect(
                initiator_key,
                initiator=False,
                initiator_key=initiator_key,
                acceptor_subkey=False,
                send_seq=initiator_seq,
                receive_seq=initiator_seq,
            )
        etype = self._subkey_etype(accepted, initiator_key.etype)
        # MIT's initiator keeps its own subkey in an RC4 context, whatever the acceptor sends.
        plain_rc4 = etype == initiator_key.etype == EncryptionType.RC4_HMAC
        subkey = None if plain_rc4 else crypto.random_key(etype, self._random)
        self._keep_until_end(subkey)
        self._seq_number = int.from_bytes(self._random(4), "big")
        reply = build_ap_rep(accepted, subkey=subkey, seq_number=self._seq_number, random=self._random)
        return self._framed(TOK_AP_REP, reply), self._protect(
            subkey or initiator_key,
            initiator=False,
            initiator_key=initiator_key,
            acceptor_subkey=subkey is not None,
            send_seq=self._seq_number,
            receive_seq=initiator_seq,
        )

    def _framed(self, tok_id: bytes, message: bytes) -> bytes:
        return message if self._mechanism is None else frame(tok_id, message, self._mechanism)

    def _subkey_etype(self, accepted: AcceptedApReq, default: int) -> int:
        """Choose the initiator's first etype that is permitted here. Source: RFC 4537 3."""
        return next((etype for etype in accepted.etypes if etype in self._permitted_etypes), default)

    def _checksum(self, accepted: AcceptedApReq) -> GssChecksum:
        cksum = accepted.authenticator.cksum
        if cksum is None:  # flags all off, no bindings: `require` decides. Source: MS-KILE 3.4.5.1
            return GssChecksum(0)
        if cksum.cksumtype != ChecksumType.GSSAPI:
            raise ApError(
                f"the authenticator has a checksum of type {cksum.cksumtype} instead of 0x8003: it was made for "
                "another protocol than GSS-API",
                code=ErrorCode.KRB_AP_ERR_INAPP_CKSUM,
            )
        return GssChecksum.decode(cksum.checksum)

    def _agreed_flags(self, flags: int) -> int:
        if flags & _DCE_STYLE:
            flags |= _MUTUAL
        missing = self._require & ~flags
        if missing:
            raise ApError(
                f"the initiator did not ask for {', '.join(flag_names(Flag, missing))}, which this acceptor requires",
                code=ErrorCode.KRB_AP_ERR_MUT_FAIL if missing & _MUTUAL else ErrorCode.KDC_ERR_POLICY,
            )
        return flags if self._accept_delegation else flags & ~_DELEG

    def _check_bindings(self, received: bytes, accepted: AcceptedApReq) -> None:
        """Compare channel bindings. Source: RFC 4121 4.1.1.2, MS-KILE 3.4.5.1."""
        aware = self._client_is_bindings_aware(accepted)
        if self._channel_bindings is None:
            return
        if received == NO_BINDINGS:
            if aware or self._require_bindings:
                raise ChannelBindingsError(
                    "the client sent no channel bindings: it did not see our TLS, so something stands between us",
                    code=ErrorCode.KRB_AP_ERR_MODIFIED,
                )
            return
        if not hmac.compare_digest(received, self._channel_bindings.digest()):
            raise ChannelBindingsError(
                "the client's channel bindings are those of another channel: something stands between us",
                code=ErrorCode.KRB_AP_ERR_MODIFIED,
            )
        self._bound = True
        log.debug("channel bindings: the initiator's are equal to ours")

    @staticmethod
    def _client_is_bindings_aware(accepted: AcceptedApReq) -> bool:
        options = [entry.ad_data for entry in accepted.relevant if entry.ad_type == AuthDataType.AP_OPTIONS]
        if not options:
            return False
        if len(options) > 1 or len(options[0]) != 4:
            raise ProtocolError("AD-AP-OPTIONS occurs once and has 4 bytes", got=[len(data) for data in options])
        return bool(int.from_bytes(options[0], "little") & KERB_AP_OPTIONS_CBT)

    def _krb_error(self, code: int, moment: datetime) -> bytes:
        """Return the token with a KRB-ERROR for the peer: code, time, our name, nothing else. RFC 4120 5.9.1."""
        name = self._service or next((entry.principal for entry in self._keys), Principal((), ""))
        error = KrbError(
            pvno=5,
            msg_type=30,
            ctime=None,
            cusec=None,
            stime=moment.replace(microsecond=0),
            susec=moment.microsecond,
            error_code=code,
            crealm=None,
            cname=None,
            realm=name.realm,
            sname=name.name,
            e_text=None,
            e_data=_SKEW_RECOVERY if code == ErrorCode.KRB_AP_ERR_SKEW else None,
        )
        return self._framed(TOK_KRB_ERROR, error.encode())
