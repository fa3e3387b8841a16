"""ClientAuth and ServerAuth, shaped like those of pywin32's module sspi."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from purekrb.sspi.buffers import SecBuffer, SecBufferDesc
from purekrb.sspi.constants import (
    ASC_REQ_CONFIDENTIALITY,
    ASC_REQ_INTEGRITY,
    ASC_REQ_REPLAY_DETECT,
    ASC_REQ_SEQUENCE_DETECT,
    ISC_REQ_CONFIDENTIALITY,
    ISC_REQ_INTEGRITY,
    ISC_REQ_REPLAY_DETECT,
    ISC_REQ_SEQUENCE_DETECT,
    SEC_E_INVALID_HANDLE,
    SEC_E_OK,
    SECBUFFER_DATA,
    SECBUFFER_PADDING,
    SECBUFFER_STREAM,
    SECBUFFER_TOKEN,
    SECPKG_ATTR_NATIVE_NAMES,
    SECPKG_ATTR_SIZES,
    SECPKG_CRED_INBOUND,
    SECPKG_CRED_OUTBOUND,
    SECQOP_WRAP_NO_ENCRYPT,
    SECURITY_NETWORK_DREP,
)
from purekrb.sspi.contexts import AcceptSecurityContext, CtxtHandle, InitializeSecurityContext
from purekrb.sspi.credentials import (
    AcquireCredentialsHandle,
    AuthData,
    CredHandle,
    QuerySecurityPackageInfo,
    SecPkgInfo,
    ServiceOptions,
)
from purekrb.sspi.status import Phase, RefusedError, sspi_function
from purekrb.tracebacks import forget_frames

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from purekrb.krb5conf.config import Config

__all__ = ["ClientAuth", "ServerAuth"]

Token = bytes | SecBufferDesc | None

#: The flags of a context if the caller names none, as in pywin32.
_DEFAULT_ISC_REQ = (
    ISC_REQ_INTEGRITY | ISC_REQ_SEQUENCE_DETECT | ISC_REQ_REPLAY_DETECT | ISC_REQ_CONFIDENTIALITY
)
_DEFAULT_ASC_REQ = (
    ASC_REQ_INTEGRITY | ASC_REQ_SEQUENCE_DETECT | ASC_REQ_REPLAY_DETECT | ASC_REQ_CONFIDENTIALITY
)


class _Auth:
    """The common part of both sides: the context, and its messages once it is complete."""

    pkg_info: SecPkgInfo
    credentials: CredHandle
    credentials_expiry: datetime

    def __init__(self, pkg_name: str) -> None:
        self.pkg_info = QuerySecurityPackageInfo(pkg_name)
        self.reset()

    def authorize(self, sec_buffer_in: Token) -> tuple[int, SecBufferDesc]:
        """Do one leg and return (status, buffers)."""
        raise NotImplementedError

    def step(self, sec_buffer_in: Token = None) -> bytes | None:
        """Do one leg and return the token to send, or None; `authenticated` tells of the end.

        This is `authorize` with tokens as bytes.
        """
        _, buffers = self.authorize(sec_buffer_in)
        return buffers[0].Buffer or None

    def reset(self) -> None:
        """Forget the context: the next `authorize` starts again, with the same credentials."""
        self.ctxt: CtxtHandle | None = None
        self.authenticated = False
        self.initiator_name: str | None = None
        self.service_name: str | None = None
        self.ctxt_attr = 0
        self.ctxt_expiry: datetime | None = None
        #: Counts messages like pywin32. Kerberos does not use it.
        self.next_seq_num = 0

    def encrypt(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (encrypted data, trailer), the arguments of the peer's `decrypt`."""
        trailer = self._sizes()["SecurityTrailer"]
        message = _message(_filled(data, SECBUFFER_DATA), SecBuffer(trailer, SECBUFFER_TOKEN))
        self._handle().EncryptMessage(0, message, self._next_number())
        return message[0].Buffer, message[1].Buffer

    def decrypt(self, data: bytes, trailer: bytes) -> bytes:
        """Return the data of the peer's `encrypt`. Also accepts data that were only signed."""
        message = _message(_filled(data, SECBUFFER_DATA), _filled(trailer, SECBUFFER_TOKEN))
        self._handle().DecryptMessage(message, self._next_number())
        return message[0].Buffer

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`: an RFC 4121 MIC token."""
        signature = SecBuffer(self._sizes()["MaxSignature"], SECBUFFER_TOKEN)
        self._handle().MakeSignature(
            0, _message(_filled(data, SECBUFFER_DATA), signature), self._next_number()
        )
        return signature.Buffer

    def verify(self, data: bytes, sig: bytes) -> None:
        """Raise unless `sig` is the peer's signature of `data`."""
        message = _message(_filled(data, SECBUFFER_DATA), _filled(sig, SECBUFFER_TOKEN))
        self._handle().VerifySignature(message, self._next_number())

    def wrap(self, msg: bytes, encrypt: bool = False) -> bytes:
        """Return an RFC 4121 Wrap token that carries `msg`: signed, and encrypted if `encrypt`."""
        sizes = self._sizes()
        # Without confidentiality, the size of the trailer is 0. A signed message needs as much
        # space as a signature.
        token = SecBuffer(sizes["SecurityTrailer"] or sizes["MaxSignature"], SECBUFFER_TOKEN)
        data = _filled(msg, SECBUFFER_DATA)
        padding = SecBuffer(sizes["BlockSize"], SECBUFFER_PADDING)
        qop = 0 if encrypt else SECQOP_WRAP_NO_ENCRYPT
        self._handle().EncryptMessage(qop, _message(token, data, padding), self._next_number())
        return token.Buffer + data.Buffer + padding.Buffer

    def unwrap(self, token: bytes) -> tuple[bytes, bool]:
        """Return (message, whether it was encrypted) of the peer's Wrap token."""
        data = SecBuffer(0, SECBUFFER_DATA)
        qop = self._handle().DecryptMessage(
            _message(_filled(token, SECBUFFER_STREAM), data), self._next_number()
        )
        return data.Buffer, qop != SECQOP_WRAP_NO_ENCRYPT

    @sspi_function(Phase.MESSAGE)
    def _handle(self) -> CtxtHandle:
        if self.ctxt is None:
            raise RefusedError(
                SEC_E_INVALID_HANDLE, "there is no context yet: call authorize() until it returns 0"
            )
        return self.ctxt

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = self._handle().QueryContextAttributes(SECPKG_ATTR_SIZES)
        return sizes

    def _next_number(self) -> int:
        number = self.next_seq_num
        self.next_seq_num += 1
        return number

    def _begin_leg(self) -> tuple[CtxtHandle | None, CtxtHandle, SecBufferDesc]:
        """Return arguments of a leg: the context (None at first), its handle, output buffers."""
        before = self.ctxt
        if self.ctxt is None:
            self.ctxt = CtxtHandle()
        return before, self.ctxt, _message(SecBuffer(self.pkg_info["MaxToken"], SECBUFFER_TOKEN))

    def _end_leg(
        self, leg: tuple[int, int, Any], output: SecBufferDesc
    ) -> tuple[int, SecBufferDesc]:
        """Keep the result of a leg; return (status, buffers)."""
        status, self.ctxt_attr, self.ctxt_expiry = leg
        self.authenticated = status == SEC_E_OK
        if self.authenticated:
            names = self._handle().QueryContextAttributes(SECPKG_ATTR_NATIVE_NAMES)
            self.initiator_name, self.service_name = names
        return status, output


class ClientAuth(_Auth):
    """The client's side of a handshake, and of the messages after it.

    `client_name`, `auth_info` and `config` are those of AcquireCredentialsHandle. `targetspn` is the
    service's SPN, and `scflags` are ISC_REQ_ flags. By default, the context has integrity,
    confidentiality and sequence detection, but, like pywin32, NO MUTUAL AUTHENTICATION: add
    ISC_REQ_MUTUAL_AUTH to verify the service's identity.
    """

    @forget_frames
    def __init__(
        self,
        pkg_name: str,
        client_name: str | None = None,
        auth_info: AuthData | None = None,
        targetspn: str | None = None,
        scflags: int | None = None,
        datarep: int = SECURITY_NETWORK_DREP,
        *,
        config: Config | None = None,
    ) -> None:
        super().__init__(pkg_name)
        self.scflags = _DEFAULT_ISC_REQ if scflags is None else scflags
        self.datarep = datarep
        self.targetspn = targetspn
        self.credentials, self.credentials_expiry = AcquireCredentialsHandle(
            client_name,
            self.pkg_info["Name"],
            SECPKG_CRED_OUTBOUND,
            None,
            auth_info,
            config=config,
        )

    def authorize(self, sec_buffer_in: Token) -> tuple[int, SecBufferDesc]:
        """Do one leg and return (status, buffers); send `buffers[0].Buffer` unless it is empty.

        Pass None at first, and then the tokens from the service, until the status is 0.
        """
        before, handle, output = self._begin_leg()
        leg = InitializeSecurityContext(
            self.credentials,
            before,
            self.targetspn,
            self.scflags,
            self.datarep,
            _input(sec_buffer_in),
            handle,
            output,
        )
        return self._end_leg(leg, output)


class ServerAuth(_Auth):
    """The service's side of a handshake, and of the messages after it.

    `spn` limits the service to one of the names in the default keytab. `scflags` are ASC_REQ_
    flags; add ASC_REQ_MUTUAL_AUTH to refuse clients that do not ask for mutual authentication.
    `auth_info` (such as a Keytab), `config` and `options` (such as `replay_cache`) are those of
    AcquireCredentialsHandle; without them, the defaults of the process count.
    """

    def __init__(
        self,
        pkg_name: str,
        spn: str | None = None,
        scflags: int | None = None,
        datarep: int = SECURITY_NETWORK_DREP,
        *,
        auth_info: AuthData | None = None,
        config: Config | None = None,
        **options: Unpack[ServiceOptions],
    ) -> None:
        super().__init__(pkg_name)
        self.spn = spn
        self.scflags = _DEFAULT_ASC_REQ if scflags is None else scflags
        self.datarep = datarep
        self.credentials, self.credentials_expiry = AcquireCredentialsHandle(
            spn,
            self.pkg_info["Name"],
            SECPKG_CRED_INBOUND,
            None,
            auth_info,
            config=config,
            **options,
        )

    def authorize(self, sec_buffer_in: Token) -> tuple[int, SecBufferDesc]:
        """Do one leg, beginning with the client's first token; see `ClientAuth.authorize`."""
        before, handle, output = self._begin_leg()
        leg = AcceptSecurityContext(
            self.credentials,
            before,
            _input(sec_buffer_in),
            self.scflags,
            self.datarep,
            handle,
            output,
        )
        return self._end_leg(leg, output)


def _filled(content: bytes, buffer_type: int) -> SecBuffer:
    buffer = SecBuffer(len(content), buffer_type)
    buffer.Buffer = content
    return buffer


def _message(*buffers: SecBuffer) -> SecBufferDesc:
    return SecBufferDesc(buffers=buffers)


def _input(token: Token) -> SecBufferDesc | None:
    if token is None or isinstance(token, SecBufferDesc):
        return token
    return _message(_filled(token, SECBUFFER_TOKEN))
