"""Security contexts, as objects."""

from __future__ import annotations

from typing import Any, ClassVar

from purekrb.compat.gssapi import exceptions
from purekrb.compat.gssapi.creds import Credentials
from purekrb.compat.gssapi.names import Name
from purekrb.compat.gssapi.raw import creds as raw_creds
from purekrb.compat.gssapi.raw import message as raw_message
from purekrb.compat.gssapi.raw import names as raw_names
from purekrb.compat.gssapi.raw import sec_contexts as raw
from purekrb.compat.gssapi.raw.chan_bindings import ChannelBindings
from purekrb.compat.gssapi.raw.misc import GSSError
from purekrb.compat.gssapi.raw.named_tuples import InquireContextResult, UnwrapResult, WrapResult
from purekrb.compat.gssapi.raw.oids import OID

__all__ = ["SecurityContext"]

_USAGES = ("initiate", "accept")


class SecurityContext(raw.SecurityContext):
    """A context: new, imported, or a raw one.

    `usage` is "initiate" or "accept". By default, it follows from `creds`, or else from `name`,
    which an initiator needs.
    """

    #: Whether `step` returns the token of an error, which is raised at the next use.
    __DEFER_STEP_ERRORS__: ClassVar[bool] = True

    _error: GSSError | None = None

    def __new__(
        cls,
        base: raw.SecurityContext | None = None,
        token: bytes | None = None,
        name: raw_names.Name | None = None,
        creds: raw_creds.Creds | None = None,
        lifetime: int | None = None,
        flags: raw.Flags = None,
        mech: OID | None = None,
        channel_bindings: ChannelBindings | None = None,
        usage: str | None = None,
    ) -> SecurityContext:
        if token is not None:
            base = raw.import_sec_context(token)
        return super().__new__(cls, base)  # type: ignore[return-value]

    def __init__(
        self,
        base: raw.SecurityContext | None = None,
        token: bytes | None = None,
        name: raw_names.Name | None = None,
        creds: raw_creds.Creds | None = None,
        lifetime: int | None = None,
        flags: raw.Flags = None,
        mech: OID | None = None,
        channel_bindings: ChannelBindings | None = None,
        usage: str | None = None,
    ) -> None:
        self._creds, self._name = creds, name
        self._asked_lifetime, self._flags, self._mech = lifetime, flags, mech
        self._channel_bindings = channel_bindings
        if usage is not None and usage not in _USAGES:
            raise exceptions.UnknownUsageError(
                "Usage must be either 'initiate' or 'accept'.", obj="security context"
            )
        if base is not None or token is not None:
            self.usage = _USAGES[not self._is_initiator]
            return
        if usage is None and creds is not None and creds._usage in _USAGES:
            usage = creds._usage
        self.usage = usage or _USAGES[name is None]
        if self.usage == "accept":
            given = {"name": name, "flags": flags, "mech": mech, "lifetime": lifetime}
            wrong = [key for key, value in given.items() if value is not None]
            if wrong:
                raise TypeError(f"An accepting security context takes no {', '.join(wrong)}")
        elif name is None:
            raise TypeError(
                "You must pass the 'name' argument when creating an initiating security context"
            )

    def step(self, token: bytes | None = None) -> bytes | None:
        """Take the peer's token (None: none yet); return the next one for the peer, or None.

        Call it until `complete`. If an error has a token, that is returned, and the error is raised
        at the next use, unless `__DEFER_STEP_ERRORS__` is false.
        """
        self._raise_error()
        try:
            if self.usage == "accept":
                return raw.acceptor_step(
                    self, self._creds, self._channel_bindings, token if token is not None else b""
                )
            return raw.initiator_step(
                self,
                self._name,
                self._creds,
                self._mech,
                self._flags,
                self._asked_lifetime,
                self._channel_bindings,
                token,
            )
        except GSSError as error:
            if error.token is None or not self.__DEFER_STEP_ERRORS__:
                raise
            self._error = error
            return error.token

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def get_signature(self, message: bytes) -> bytes:
        """Return the MIC of a message."""
        self._raise_error()
        return raw_message.get_mic(self, message)

    def verify_signature(self, message: bytes, mic: bytes) -> raw_message.QoP:
        """Raise unless `mic` is the peer's MIC of a message; return 0."""
        self._raise_error()
        return raw_message.verify_mic(self, message, mic)

    def wrap(self, message: bytes, encrypt: bool) -> WrapResult:
        """Return a message as a token, and whether it is encrypted."""
        if self._error is not None:
            self._raise_error()
        return raw_message.wrap(self, message, encrypt)

    def unwrap(self, message: bytes) -> UnwrapResult:
        """Return the message in a token, and whether it was encrypted."""
        if self._error is not None:
            self._raise_error()
        return raw_message.unwrap(self, message)

    def encrypt(self, message: bytes) -> bytes:
        """Return a message as an encrypted token."""
        return self.wrap(message, True).message

    def decrypt(self, message: bytes) -> bytes:
        """Return the message in a token. Raises EncryptionNotUsed if it is only signed."""
        result = self.unwrap(message)
        if not result.encrypted:
            raise exceptions.EncryptionNotUsed(
                "The context was established with encryption, but the message is only signed",
                unwrapped_message=result.message,
            )
        return result.message

    def get_wrap_size_limit(self, desired_output_size: int, encrypted: bool = True) -> int:
        """Return the size of the largest message whose token has at most so many bytes."""
        self._raise_error()
        return raw_message.wrap_size_limit(self, desired_output_size, encrypted)

    def process_token(self, token: bytes) -> None:
        """Raise OperationUnavailableError."""
        self._raise_error()
        raw.process_context_token(self, token)

    def export(self) -> bytes:
        """End this context, and return it as a token for another process of this machine."""
        self._raise_error()
        return raw.export_sec_context(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (None, self.export())

    def _inquire(self, **kwargs: bool) -> InquireContextResult:
        """Return what was asked for, or all if nothing was named."""
        self._raise_error()
        wanted = kwargs if any(kwargs.values()) else dict.fromkeys(_INQUIRED, True)
        result = raw.inquire_context(self, *(wanted.get(name, False) for name in _INQUIRED))
        return result._replace(
            initiator_name=_as_object(result.initiator_name),
            target_name=_as_object(result.target_name),
        )

    def _inquired(self, name: str) -> Any:
        self._raise_error()
        if not self._started:
            raise AttributeError(
                f"Cannot read {name} from a security context whose establishment has not yet been "
                "started."
            )
        return getattr(self._inquire(**{name: True}), name)

    @property
    def lifetime(self) -> int:
        """The remaining seconds. Raises ExpiredContextError if there are none."""
        self._raise_error()
        return raw.context_time(self)

    @property
    def delegated_creds(self) -> Credentials | None:
        """The credential that the initiator has delegated, or None."""
        self._raise_error()
        found = raw.delegated_of(self)
        return None if found is None else Credentials(found)

    @property
    def initiator_name(self) -> Name | None:
        """The initiator; for an acceptor, once the context is complete."""
        return self._inquired("initiator_name")  # type: ignore[no-any-return]

    @property
    def target_name(self) -> Name | None:
        """The acceptor; for an initiator, the one it asked for."""
        return self._inquired("target_name")  # type: ignore[no-any-return]

    @property
    def mech(self) -> OID:
        """The mechanism: Kerberos, also if SPNEGO has agreed on it."""
        return self._inquired("mech")  # type: ignore[no-any-return]

    @property
    def actual_flags(self) -> Any:
        """The flags of the context."""
        return self._inquired("flags")

    @property
    def locally_initiated(self) -> bool:
        """Whether this is the initiator."""
        return self._inquired("locally_init")  # type: ignore[no-any-return]

    @property
    def complete(self) -> bool:
        """Whether the handshake is complete."""
        self._raise_error()
        return self._context is not None and self._context.established


_INQUIRED = (
    "initiator_name",
    "target_name",
    "lifetime",
    "mech",
    "flags",
    "locally_init",
    "complete",
)


def _as_object(name: raw_names.Name | None) -> Name | None:
    return None if name is None else Name(name)
