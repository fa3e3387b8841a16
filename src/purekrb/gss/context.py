"""The common part of both sides of a security context, which its caller drives with `step`.

`Initiator` (initiator.py) and `Acceptor` (acceptor.py) add the handshake of their side.

    initiator                                    acceptor
    NEW --step()--------> AP-REQ --------------> NEW --step(AP-REQ)--> ESTABLISHED
    WAITING --step(AP-REP)--> ESTABLISHED <----- AP-REP

Without MUTUAL, the initiator is ESTABLISHED at once. In DCE style, the acceptor is WAITING after
its AP-REP, and the initiator's last step returns an AP-REP of its own, which establishes the
acceptor. Any failure leads to FAILED, and `close` to CLOSED; both are final. The tokens of each
side come from one generator, its handshake: `_kerberos`, or the one of negotiate.py around it.
Source: RFC 4121 4.1, RFC 2743 2.2, MS-KILE 3.4.5.1.
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
from purekrb.errors import (
    ApError,
    ContextError,
    ContextExpiredError,
    DecodeError,
    KerberosError,
    UnsupportedError,
)
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.iov import DceProtection, IovBuffer, IovProtection
from purekrb.gss.tokens import as_bytes
from purekrb.keys import EncryptionKey, etype_name
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.system import Clock, RandomBytes, now, random_bytes, seconds_of
from purekrb.tracebacks import forget_frames

if TYPE_CHECKING:
    from purekrb.gss.export import ContextState
    from purekrb.gss.negotiate import Handshake

__all__ = [
    "SecurityContext",
    "Agreement",
    "MessageProtection",
    "MAX_TOKEN",
    "INITIATORS",
    "check_mechanism",
]

log = Log("purekrb.gss")

#: `&` of an IntFlag is slow: see constants.py.
_MUTUAL, _DCE_STYLE = int(Flag.MUTUAL), int(Flag.DCE_STYLE)

#: The largest token that `step` accepts by default, in bytes: as Windows. Source: MS-KILE 3.1.1.
MAX_TOKEN = 48_000


#: The mechanisms of contexts, and those that `initiate` has besides.
MECHANISMS = ("kerberos", "negotiate")
INITIATORS = (*MECHANISMS, "iakerb", "user-to-user", "negotiate-user-to-user")


class _State(enum.Enum):
    NEW = "not established: call step() first"
    WAITING = "not established: it waits for the peer's next token"
    ESTABLISHED = "established"
    FAILED = "dead: its establishment failed; start a new one"
    CLOSED = "closed: start a new one"
    EXPORTED = "exported: it goes on where it was imported"


_STEPPING = (_State.NEW, _State.WAITING)


class MessageProtection(Protocol):
    """The tokens of an etype, as a context uses them; the methods are those of SecurityContext."""

    def wrap(self, data: bytes, sealed: bool) -> bytes: ...
    def unwrap(self, token: bytes, sealed: bool) -> bytes: ...
    def unwrap_into(self, token: bytes, sealed: bool, out: memoryview) -> int: ...
    def get_mic(self, data: bytes) -> bytes: ...
    def verify_mic(self, data: bytes, mic: bytes) -> None: ...
    def wrap_size_limit(self, output_size: int, sealed: bool) -> int: ...
    def is_sealed(self, token: bytes) -> bool: ...
    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]: ...
    def unwrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]: ...
    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[int]: ...
    def sequences(self) -> tuple[int, int, int]: ...


def _rc4_protection(*key: EncryptionKey, **options: Any) -> MessageProtection:
    from purekrb.gss.rc4_tokens import Rc4Protection  # only RC4 contexts pay for the import

    return Rc4Protection(*key, **options)


#: The makers of message protection, by encryption type.
_Protections = dict[int, Callable[..., MessageProtection]]
_DCE_PROTECTIONS: _Protections = dict.fromkeys(DceProtection.etypes, DceProtection)
_PROTECTIONS: _Protections = {
    **dict.fromkeys(IovProtection.etypes, IovProtection),
    23: _rc4_protection,
}


class Agreement:
    """The facts of an established context. Both sides agreed on them, or the KDC vouches for them.

    `expires` is the end of the ticket by our clock; it is None if expiry is not enforced.
    `deadline` is the same moment as a number, which is compared with the clock for each message.
    `_agree` adds `protection`; after that, no field changes. It has slots because each message
    reads two of them.
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
    """The common part of both sides: the established context and its per-message calls.

    One thread calls `step`. After that, one thread may seal while another one unseals.
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
        max_token: int = MAX_TOKEN,
    ) -> None:
        check_mechanism(mechanism)
        if max_token < 1:
            raise ValueError(f"max_token is a number of bytes, not {max_token}")
        #: The largest token in bytes that `step` takes.
        self.max_token = max_token
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
        self._secrets: list[EncryptionKey] = []  # the keys that end with this context
        self._turn = [True]  # empty while a thread is in `step`

    def step(self, in_token: bytes | None = None) -> bytes | None:
        """Take the peer's token (None for an initiator's first step); return the next one, or None.

        Call until `established`. Any error is final. If it has a `response`, send that to the peer.
        Raises ContextError if the context is already established, failed or closed. Also raises it
        if another thread is in `step`, or was when this process was forked.
        """
        try:
            self._turn.pop()  # atomic, and cheaper than a lock that survives a fork
        except IndexError:
            raise ContextError(
                "another thread is in step(): let one thread make a context"
            ) from None
        try:
            if self._state not in _STEPPING:
                raise ContextError(f"this context takes no token: it is {self._state.value}")
            try:
                if in_token is not None:
                    in_token = _context_token(in_token, self.max_token)
                return self._advance(in_token)
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
            elif not in_token and (error := self._unanswered(in_token)) is not None:
                raise error
            else:
                token = self._handshake.send(in_token or b"")
        except StopIteration as end:
            self._complete()
            last: bytes | None = end.value
            return last
        self._state = _State.WAITING
        return token

    def _unanswered(self, in_token: bytes | None) -> KerberosError | None:
        """Return the error for None or an empty token as the peer's answer; None: decode it."""
        if in_token is None:
            return ContextError("the context waits for the peer's answer: pass it to step()")
        return None

    def _begin(self, in_token: bytes | None) -> Handshake:
        raise NotImplementedError

    @property
    def established(self) -> bool:
        """Whether the handshake is complete; with MUTUAL, the service has then proved itself."""
        return self._in_force is not None

    @property
    def flags(self) -> Flag:
        """The flags in force. Raises ContextError before the context is established."""
        return Flag(self._established().flags)

    @property
    def mutual(self) -> bool:
        """Whether the service has proved itself (initiator), or has sent its proof (acceptor)."""
        agreement = self._in_force
        return agreement is not None and bool(agreement.flags & _MUTUAL)

    @property
    def initiator(self) -> Principal:
        """The client's principal, for which the KDC vouches."""
        return self._established().initiator

    @property
    def acceptor(self) -> Principal:
        """The service's principal; for an acceptor, one with the key that decrypted the ticket."""
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
        """The key of the per-message tokens. Source: RFC 4121 2.

        This is the acceptor's subkey, else the initiator's subkey, else the ticket's session key.
        """
        return self._established().key

    @property
    def initiator_key(self) -> EncryptionKey:
        """The key that the initiator chose: its subkey, else the ticket's session key."""
        return self._established().initiator_key

    @property
    def has_acceptor_subkey(self) -> bool:
        """Whether `session_key` is the acceptor's subkey."""
        return self._established().acceptor_subkey

    @property
    def sequence_numbers(self) -> tuple[int, int]:
        """The numbers of the next token to send, and of the next one to receive."""
        send_seq, receive_seq, _ = self._established().protection.sequences()
        return send_seq, receive_seq

    @property
    def etype(self) -> int:
        """The encryption type of `session_key`."""
        return self.session_key.etype

    def wrap(self, data: bytes, sealed: bool = True) -> bytes:
        """Return a token with `data`, encrypted and signed (`sealed`), or only signed.

        Raises ContextExpiredError after `endtime`, and ContextError before the context is
        established. Source: RFC 4121 4.2.4.
        """
        return self._sender().wrap(data if type(data) is bytes else as_bytes(data), sealed)

    def unwrap(self, token: bytes, sealed: bool = True) -> bytes:
        """Return the data of the peer's `token`.

        If `sealed` is true, a token that is only signed raises PolicyError. A token that is not
        genuine raises DecodeError, ProtocolError or IntegrityError, and changes nothing. A genuine
        token that came twice or out of order raises SequenceError. Source: RFC 4121 4.2.4.
        """
        protection = (self._in_force or self._established()).protection
        return protection.unwrap(token if type(token) is bytes else as_bytes(token), sealed)

    def is_sealed(self, token: bytes) -> bool:
        """Return whether the header of a Wrap token says that its data are encrypted.

        The token's checksum covers this. So the answer counts once `unwrap` has returned its data.
        """
        return self._established().protection.is_sealed(token)

    def unwrap_into(self, token: bytes, buffer: bytearray | memoryview, sealed: bool = True) -> int:
        """Write the data of the peer's `token` into `buffer`, and return its size in bytes.

        Use it for large messages: a new object would cost as much as the decryption. `buffer` must
        be writable, and have room for `wrap_size_limit(len(token), sealed)` bytes (ValueError).
        Errors are those of `unwrap`; after an error, `buffer` holds nothing of the message. With
        etypes 17 and 18, whose MAC covers the plaintext, do not let another thread read `buffer`
        before this returns.
        """
        protection = self._established().protection
        token = token if type(token) is bytes else as_bytes(token)
        with memoryview(buffer) as given, given.cast("B") as out:
            room = protection.wrap_size_limit(len(token), sealed)
            if out.readonly or len(out) < room:
                raise ValueError(
                    f"the buffer must be writable and have room for {room} bytes, got {len(out)}"
                )
            return protection.unwrap_into(token, sealed, out)

    def get_mic(self, data: bytes) -> bytes:
        """Return the MIC token that signs `data`. Source: RFC 4121 4.2.6.1."""
        return self._sender().get_mic(data if type(data) is bytes else as_bytes(data))

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        """Raise unless `mic` is the peer's MIC token over `data`. Raises the errors of `unwrap`."""
        protection = (self._in_force or self._established()).protection
        protection.verify_mic(
            data if type(data) is bytes else as_bytes(data),
            mic if type(mic) is bytes else as_bytes(mic),
        )

    def wrap_size_limit(self, output_size: int, sealed: bool = True) -> int:
        """Return how many bytes of data fit into a token of `output_size` bytes. RFC 2743 2.4.6."""
        return self._established().protection.wrap_size_limit(output_size, sealed)

    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[IovBuffer]:
        """Return `buffers` with a Wrap token in them: HEADER and TRAILER filled, DATA encrypted.

        DATA is encrypted only if `sealed` is true. Pass one HEADER, at most one TRAILER and one
        PADDING (which stays empty), and any number of DATA and SIGN_ONLY. SIGN_ONLY is signed in
        its place and stays unchanged. Without DATA, nothing is sealed. Raises ValueError for other
        sets of buffers, UnsupportedError in an RC4 context, and the errors of `wrap`.
        """
        return self._sender().wrap_iov(buffers, sealed)

    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[int]:
        """Return the length of each buffer after `wrap_iov`."""
        return self._established().protection.wrap_iov_length(buffers, sealed)

    def unwrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool = True) -> list[IovBuffer]:
        """Return the buffers of the peer's `wrap_iov` with the message in DATA.

        The other buffers stay unchanged. Pass a token in one piece as STREAM, with one empty DATA
        buffer, which receives the message. If `sealed` is true, DATA that is only signed is
        refused. Raises the errors of `unwrap`, and ValueError for other sets of buffers.
        """
        return self._established().protection.unwrap_iov(buffers, sealed)

    @forget_frames
    def prf(self, key_use: PrfKey, data: bytes, length: int) -> bytes:
        """Return `length` bytes that only the two sides can derive from `data`.

        Use `key_use` FULL; PARTIAL uses the key that the initiator alone has chosen.
        Source: RFC 4401, RFC 4402.
        """
        agreement = self._established()
        key = agreement.key if PrfKey(key_use) is PrfKey.FULL else agreement.initiator_key
        if length < 0:
            raise ValueError(f"{length} bytes cannot be made")
        seed, out, number = as_bytes(data), bytearray(), 0
        while len(out) < length:
            out += crypto.prf(key, number.to_bytes(4, "big") + seed)
            number += 1
        return bytes(out[:length])

    @forget_frames
    def export_context(self, key: bytes) -> bytes:
        """End this context, and return it encrypted with `key` for `import_context`.

        `key` has 16, 24 or 32 bytes. The importing process must be on this machine and run the same
        purekrb. Import it only once: two contexts that continue with the same sequence numbers are
        not safe. Raises ContextError unless the context is established.
        """
        from purekrb.gss import export  # only exports pay for the import

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
        # The keys are wiped first. So a thread that still seals either gets a number before the
        # exported one, or makes no token.
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
        """Return the established context in `blob`, which `export_context` encrypted with `key`.

        Raises DecodeError if `blob` is not an exported context, IntegrityError for another key and
        for altered bytes, UnsupportedError if another version exported it, ContextError for a
        context of the other side, and ContextExpiredError if the context has expired.
        """
        from purekrb.gss import export

        state = export.open_state(as_bytes(blob), key)
        if state.role != cls._role:
            raise ContextError(
                f"this is the context of an {state.role}: "
                f"use {state.role.capitalize()}.import_context"
            )
        if state.expires is not None and clock() > state.expires:
            for expired in (state.key, state.initiator_key):
                expired.wipe()
            raise ContextExpiredError(
                f"the exported context expired at {state.expires:%Y-%m-%d %H:%M:%SZ}: "
                "authenticate again"
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
        """Return the fields of ContextState that only this side has."""
        return {}

    def _restore(self, state: ContextState) -> None:
        """Establish this new context from `state`."""
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
        raise TypeError("a security context holds keys: it cannot be pickled or copied")

    def _established(self) -> Agreement:
        agreement = self._in_force
        if agreement is None:
            raise ContextError(f"this context is {self._state.value}")
        return agreement

    def _sender(self) -> MessageProtection:
        """Return the protection for a message to send; raise if the context expired or ended."""
        agreement = self._in_force or self._established()
        if self._seconds() > agreement.deadline:
            raise ContextExpiredError(
                f"the ticket of {agreement.initiator} expired at "
                f"{agreement.endtime:%Y-%m-%d %H:%M:%SZ}: authenticate again"
            )
        return agreement.protection

    def _messages(self) -> MessageProtection:
        """Return the protection that signs mechListMICs, before the context is established."""
        if self._agreed is None:
            raise ContextError(f"this context is {self._state.value}")
        return self._agreed.protection

    def _complete(self) -> None:
        """Establish the context: the handshake is over, here or in the exporting process."""
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
        """Take `agreement`, and make the protection of messages with its key.

        `send_seq` and `receive_seq` are the initial numbers of this side and of the peer; `seen` is
        the window before `receive_seq`.
        """
        key, flags = agreement.key, agreement.flags
        protect = (_DCE_PROTECTIONS if flags & _DCE_STYLE else _PROTECTIONS).get(key.etype)
        if protect is None:
            raise UnsupportedError(
                f"DCE style needs AES keys, not {etype_name(key.etype)}: give the service such keys"
            )
        # A key that outlives the context is copied, so that close() does not wipe the ticket's key.
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


# The bound is the class, not its name: `typing` would compile a name at import.
_C = TypeVar("_C", bound=SecurityContext)


def check_mechanism(mechanism: str, known: tuple[str, ...] = MECHANISMS) -> None:
    """Raise UnsupportedError unless `mechanism` is one of the `known` ones."""
    if mechanism not in known:
        names = " or ".join(f'"{name}"' for name in known)
        raise UnsupportedError(f"unknown mechanism {mechanism!r}: pass {names}")


@lru_cache(maxsize=16)
def _usable(permitted_etypes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(etype for etype in permitted_etypes if etype in _PROTECTIONS)


def _copy(key: EncryptionKey) -> EncryptionKey:
    return EncryptionKey(key.etype, key.contents)


def _context_token(token: bytes, max_token: int) -> bytes:
    if len(token) > max_token:
        raise DecodeError(
            f"the peer's token of {len(token)} bytes is larger than the {max_token} that this "
            "context takes: if tickets here are that large (many groups in a PAC), pass max_token="
        )
    return token if type(token) is bytes else as_bytes(token)
