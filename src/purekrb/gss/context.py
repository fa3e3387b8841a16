"""Security contexts: small objects that their caller drives with `step`. What both sides have in common.

`Initiator` (initiator.py) and `Acceptor` (acceptor.py) add the handshake of their side.

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
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeVar

from purekrb import crypto
from purekrb.constants import Flag, PrfKey, error_name, flag_names
from purekrb.errors import ApError, ContextError, ContextExpiredError, DecodeError, UnsupportedError
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.iov import DceProtection, IovBuffer, IovProtection
from purekrb.keys import EncryptionKey, etype_name
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.system import Clock, RandomBytes, now, random_bytes, seconds_of
from purekrb.tracebacks import forget_frames

if TYPE_CHECKING:
    from purekrb.gss.export import ContextState
    from purekrb.gss.negotiate import Handshake

__all__ = ["SecurityContext", "Agreement", "MessageProtection", "MAX_TOKEN", "check_mechanism"]

log = Log("purekrb.gss")

#: `&` of an IntFlag is slow: see constants.py.
_MUTUAL, _DCE_STYLE = int(Flag.MUTUAL), int(Flag.DCE_STYLE)

#: The largest token that `step` looks at, in bytes; Windows' default maximum. Source: MS-KILE 3.1.1.
MAX_TOKEN = 48_000


class _State(enum.Enum):
    NEW = "not established: call step() first"
    WAITING = "not established: it waits for the peer's next token"
    ESTABLISHED = "established"
    FAILED = "dead: its establishment failed; start a new one"
    CLOSED = "closed: start a new one"
    EXPORTED = "exported: it goes on where it was imported"


_STEPPING = (_State.NEW, _State.WAITING)


class MessageProtection(Protocol):
    """What a context needs of the tokens of its etype; the methods are those of SecurityContext."""

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


def _rc4_protection(*key: EncryptionKey, **options: Any) -> MessageProtection:
    from purekrb.gss.rc4_tokens import Rc4Protection  # only who opts in pays for it

    return Rc4Protection(*key, **options)


#: What protects messages, by encryption type.
_Protections = dict[int, Callable[..., MessageProtection]]
_DCE_PROTECTIONS: _Protections = dict.fromkeys(DceProtection.etypes, DceProtection)
_PROTECTIONS: _Protections = {
    **dict.fromkeys(IovProtection.etypes, IovProtection),
    23: _rc4_protection,
}


class Agreement:
    """All that an established context holds: both sides have agreed on it, or the KDC vouches for it.

    `expires` is the end of the ticket by our clock, None where expiry is not enforced; `deadline`
    is the same moment as the number that is compared with the clock for each message. `_agree` adds
    `protection`; after that no field changes. Slots, since each message reads two of them.
    """

    __slots__ = (
        "acceptor",
        "acceptor_subkey",
        "deadline",
        "endtime",
        "expires",
        "flags",
        "initiator",
        "initiator_key",
        "key",
        "protection",
        "starttime",
    )

    def __init__(
        self,
        *,
        flags: int,
        key: EncryptionKey,
        initiator_key: EncryptionKey,
        acceptor_subkey: bool,
        initiator: Principal,
        acceptor: Principal,
        starttime: datetime,
        endtime: datetime,
        expires: datetime | None,
    ) -> None:
        self.protection: MessageProtection
        self.flags = flags
        self.key = key
        self.initiator_key = initiator_key
        self.acceptor_subkey = acceptor_subkey
        self.initiator = initiator
        self.acceptor = acceptor
        self.starttime = starttime
        self.endtime = endtime
        self.expires = expires
        self.deadline = math.inf if expires is None else expires.timestamp()


class SecurityContext:
    """What both sides have in common: the established context and its per-message calls.

    `step` is called by one thread; after that, one thread may seal while another unseals.
    """

    _role: ClassVar[str]

    def __init__(
        self,
        mechanism: str,
        channel_bindings: ChannelBindings | None,
        permitted_etypes: tuple[int, ...],
        enforce_expiry: bool,
        clock: Clock,
        random: RandomBytes,
    ) -> None:
        check_mechanism(mechanism)
        self._state = _State.NEW
        self._handshake: Handshake | None = None
        self._agreed: Agreement | None = None  # serves the mechListMICs of a negotiation
        self._in_force: Agreement | None = None  # the same while the context is established
        self._negotiate = mechanism == "negotiate"
        self._channel_bindings = channel_bindings
        self._permitted_etypes = _usable(tuple(permitted_etypes))
        self._enforce_expiry = enforce_expiry
        self._clock = clock
        self._seconds = seconds_of(clock)
        self._random = random
        self._secrets: list[EncryptionKey] = []  # what ends with this context
        self._turn = [True]  # of the thread that is in `step`; empty meanwhile

    def step(self, in_token: bytes | None = None) -> bytes | None:
        """Take the peer's token (None for an initiator's first step) and return the one to send, or None.

        Call until `established`. Any error is final; its `response`, if there is one, is to be sent to the peer.
        Raises ContextError when the context is established, failed or closed already, and where another thread is in
        `step`, or was when this process was forked.
        """
        try:
            self._turn.pop()  # atomic, and cheaper than a lock that a child process finds open
        except IndexError:
            raise ContextError(
                "another thread is in step(): let one thread make a context"
            ) from None
        try:
            if self._state not in _STEPPING:
                raise ContextError(f"this context takes no token: it is {self._state.value}")
            try:
                return self._advance(None if in_token is None else _context_token(in_token))
            except BaseException as error:
                self._end(_State.FAILED)
                code = f"{error_name(error.code)}: " if isinstance(error, ApError) else ""
                log.debug("%s: no context: %s%s", type(self).__name__, code, error)
                raise
        finally:
            self._turn.append(True)

    def _advance(self, in_token: bytes | None) -> bytes | None:
        """Drive the handshake by one token."""
        try:
            if self._handshake is None:
                self._handshake = self._begin(in_token)
                token = next(self._handshake)
            elif in_token is None:
                raise ContextError("the context waits for the peer's answer: pass it to step()")
            else:
                token = self._handshake.send(in_token)
        except StopIteration as end:
            self._complete()
            last: bytes | None = end.value
            return last
        self._state = _State.WAITING
        return token

    def _begin(self, in_token: bytes | None) -> Handshake:
        raise NotImplementedError

    @property
    def established(self) -> bool:
        """Whether the handshake is complete, which with MUTUAL includes the verified proof of the service."""
        return self._in_force is not None

    @property
    def flags(self) -> Flag:
        """The flags in force. Meaningful once established."""
        return Flag(self._established().flags)

    @property
    def mutual(self) -> bool:
        """Whether the service has proved itself (initiator) or was asked to and did (acceptor)."""
        agreement = self._in_force
        return agreement is not None and bool(agreement.flags & _MUTUAL)

    @property
    def initiator(self) -> Principal:
        """The client's principal, as the KDC vouches for it."""
        return self._established().initiator

    @property
    def acceptor(self) -> Principal:
        """The service's principal: at the acceptor, one of the key which decrypted the ticket."""
        return self._established().acceptor

    @property
    def starttime(self) -> datetime:
        """When the ticket of the context became valid; aware, UTC."""
        return self._established().starttime

    @property
    def endtime(self) -> datetime:
        """When the ticket of the context expires; aware, UTC."""
        return self._established().endtime

    @property
    def session_key(self) -> EncryptionKey:
        """The key of the per-message tokens: acceptor's subkey, else initiator's, else the ticket's. RFC 4121 2."""
        return self._established().key

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
        protection = (self._in_force or self._established()).protection
        return protection.unwrap(token if type(token) is bytes else _bytes(token), sealed)

    def unwrap_into(self, token: bytes, buffer: bytearray | memoryview, sealed: bool = True) -> int:
        """Write the data of the peer's `token` into `buffer` and return its size in bytes; for large messages.

        `buffer` is writable and has room for `wrap_size_limit(len(token), sealed)` bytes (ValueError). It spares the
        memory for a new object, which costs as much as decrypting into it. Errors as in `unwrap`; after one, `buffer`
        holds nothing of the message. With etypes 17 and 18, whose MAC covers the plaintext, do not let another thread
        read `buffer` before this returns.
        """
        protection = self._established().protection
        token = token if type(token) is bytes else _bytes(token)
        with memoryview(buffer) as given, given.cast("B") as out:
            room = protection.wrap_size_limit(len(token), sealed)
            if out.readonly or len(out) < room:
                raise ValueError(
                    f"the buffer must be writable and have room for {room} bytes, it has {len(out)}"
                )
            return protection.unwrap_into(token, sealed, out)

    def get_mic(self, data: bytes) -> bytes:
        """Return the MIC token that signs `data`. Source: RFC 4121 4.2.6.1."""
        return self._sender().get_mic(data if type(data) is bytes else _bytes(data))

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        """Raise unless `mic` is the peer's MIC token over `data`; errors as in `unwrap`."""
        protection = (self._in_force or self._established()).protection
        protection.verify_mic(
            data if type(data) is bytes else _bytes(data),
            mic if type(mic) is bytes else _bytes(mic),
        )

    def wrap_size_limit(self, output_size: int, sealed: bool = True) -> int:
        """Return how many bytes of data fit into a token of at most `output_size` bytes. Source: RFC 2743 2.4.6."""
        return self._established().protection.wrap_size_limit(output_size, sealed)

    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[IovBuffer]:
        """Return `buffers` with a Wrap token in them: HEADER (and TRAILER) filled, DATA encrypted where `sealed`.

        There are one HEADER, at most one TRAILER and one PADDING (which stays empty), and any number of DATA and
        SIGN_ONLY. What is in SIGN_ONLY is signed in its place and stays as it is; without DATA nothing is sealed.
        Raises ValueError for other sets of buffers, UnsupportedError in an RC4 context, and what `wrap` raises.
        """
        return self._sender().wrap_iov(buffers, sealed)

    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[int]:
        """Return the length that each buffer will have after `wrap_iov`."""
        return self._established().protection.wrap_iov_length(buffers, sealed)

    def unwrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[IovBuffer]:
        """Return the buffers of the peer's `wrap_iov` with the message in DATA; the others stay as they are.

        A token in one piece is given as STREAM, with one empty DATA buffer, which receives the message. `sealed`
        refuses DATA that is only signed. Errors as in `unwrap`; ValueError for other sets of buffers.
        """
        return self._established().protection.unwrap_iov(buffers, sealed)

    @forget_frames
    def prf(self, key_use: PrfKey, data: bytes, length: int) -> bytes:
        """Return `length` bytes that both sides, and nobody else, can derive from `data`. Source: RFC 4401, RFC 4402.

        `key_use` FULL is what to take; PARTIAL uses the key that the initiator alone has chosen.
        """
        agreement = self._established()
        key = agreement.key if PrfKey(key_use) is PrfKey.FULL else agreement.initiator_key
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
        from purekrb.gss import export  # only who exports pays for it

        export.check_key(key)
        agreement = self._established()
        carry_on = partial(
            export.ContextState,
            role=self._role,
            flags=agreement.flags,
            key=_copy(agreement.key),
            initiator_key=_copy(agreement.initiator_key),
            acceptor_subkey=agreement.acceptor_subkey,
            initiator=agreement.initiator,
            acceptor=agreement.acceptor,
            starttime=agreement.starttime,
            endtime=agreement.endtime,
            expires=agreement.expires,
            **self._also_exported(),
        )
        # The keys go first: a thread that still seals gets either a number before ours, or no token.
        self._end(_State.EXPORTED)
        send_seq, receive_seq, seen = agreement.protection.sequences()
        log.debug("context exported: %s -> %s", agreement.initiator, agreement.acceptor)
        state = carry_on(send_seq=send_seq, receive_seq=receive_seq, seen=seen)
        return export.seal_state(state, key, self._random)

    @classmethod
    @forget_frames
    def import_context(
        cls: type[_C],
        blob: bytes,
        key: bytes,
        *,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> _C:
        """Return the established context that `export_context` returned as `blob`, encrypted with `key`.

        Raises DecodeError for what is no exported context, IntegrityError for another key and altered bytes,
        UnsupportedError for the form of another version, ContextError for a context of the other side,
        ContextExpiredError for one that has expired.
        """
        from purekrb.gss import export

        state = export.open_state(_bytes(blob), key)
        if state.role != cls._role:
            raise ContextError(f"this is the context of an {state.role}: import it as such")
        if state.expires is not None and clock() > state.expires:
            for expired in (state.key, state.initiator_key):
                expired.wipe()
            raise ContextExpiredError(
                f"the exported context expired at {state.expires:%Y-%m-%d %H:%M:%SZ}: authenticate again"
            )
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
        """Establish this new context as `state` says."""
        self._secrets.append(state.initiator_key)
        agreement = Agreement(
            flags=state.flags,
            key=state.key,
            initiator_key=state.initiator_key,
            acceptor_subkey=state.acceptor_subkey,
            initiator=state.initiator,
            acceptor=state.acceptor,
            starttime=state.starttime,
            endtime=state.endtime,
            expires=state.expires,
        )
        self._agree(agreement, state.send_seq, state.receive_seq, state.seen)
        self._complete()

    def close(self) -> None:
        """End the context and wipe its keys. Later calls raise ContextError."""
        self._end(_State.CLOSED)

    def _end(self, state: _State) -> None:
        self._state = state
        self._agreed = self._in_force = self._handshake = None
        for key in self._secrets:
            key.wipe()
        self._secrets.clear()

    def __repr__(self) -> str:
        agreement = self._in_force
        names = "" if agreement is None else f", {agreement.initiator} -> {agreement.acceptor}"
        return f"<{type(self).__name__} {self._state.name.lower()}{names}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a security context holds keys: it is not pickled or copied")

    def _established(self) -> Agreement:
        agreement = self._in_force
        if agreement is None:
            raise ContextError(f"this context is {self._state.value}")
        return agreement

    def _sender(self) -> MessageProtection:
        """Return what protects the message to send. Raises where there is to be none."""
        agreement = self._in_force or self._established()
        if self._seconds() > agreement.deadline:
            raise ContextExpiredError(
                f"the ticket of {agreement.initiator} expired at "
                f"{agreement.endtime:%Y-%m-%d %H:%M:%SZ}: authenticate again"
            )
        return agreement.protection

    def _messages(self) -> MessageProtection:
        """Return what signs the mechListMICs of a negotiation, before the context is established."""
        if self._agreed is None:
            raise ContextError(f"this context is {self._state.value}")
        return self._agreed.protection

    def _complete(self) -> None:
        """Begin with messages: the handshake is over, here or where the context was exported."""
        self._handshake = None
        self._in_force = agreed = self._agreed
        if agreed is None:  # another thread has closed the context
            return
        self._state = _State.ESTABLISHED
        if log.on():
            log.debug(
                "context established: %s -> %s, %s, %s",
                agreed.initiator,
                agreed.acceptor,
                etype_name(agreed.key.etype),
                ", ".join(flag_names(Flag, agreed.flags)),
            )

    def _agree(self, agreement: Agreement, send_seq: int, receive_seq: int, seen: int = 0) -> None:
        """Take what both sides have agreed on, and make what protects messages under its key.

        The initial sequence numbers are ours and the peer's; `seen` is the window before the second.
        """
        key, flags = agreement.key, agreement.flags
        protect = (_DCE_PROTECTIONS if flags & _DCE_STYLE else _PROTECTIONS).get(key.etype)
        if protect is None:
            raise UnsupportedError(
                f"DCE style needs AES keys, not {etype_name(key.etype)}: give the service such keys"
            )
        # A key that does not end with the context is copied, so that close() does not take the ticket's key away.
        if id(key) not in map(id, self._secrets):
            key = agreement.key = _copy(key)
            self._secrets.append(key)
        agreement.protection = protect(
            key,
            initiator=self._role == "initiator",
            acceptor_subkey=agreement.acceptor_subkey,
            send_seq=send_seq,
            receive_seq=receive_seq,
            flags=flags,
            random=self._random,
            seen=seen,
        )
        self._agreed = agreement


_C = TypeVar(
    "_C", bound=SecurityContext
)  # not by its name, which `typing` would compile when it is imported


def check_mechanism(mechanism: str) -> None:
    """Raise UnsupportedError unless contexts have the mechanism of this name."""
    if mechanism not in ("kerberos", "negotiate"):
        raise UnsupportedError(
            f'there is no mechanism {mechanism!r}: pass "kerberos" or "negotiate"'
        )


@lru_cache(maxsize=16)
def _usable(permitted_etypes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(etype for etype in permitted_etypes if etype in _PROTECTIONS)


def _copy(key: EncryptionKey) -> EncryptionKey:
    return EncryptionKey(key.etype, key.contents)


def _bytes(data: bytes) -> bytes:
    """Return any bytes-like object as bytes; TypeError for all else (bytes(5) would be five zeros)."""
    return data if type(data) is bytes else memoryview(data).tobytes()


def _context_token(token: bytes) -> bytes:
    if len(token) > MAX_TOKEN:
        raise DecodeError(f"a context token of {len(token)} bytes is larger than {MAX_TOKEN}")
    return token if type(token) is bytes else _bytes(token)
