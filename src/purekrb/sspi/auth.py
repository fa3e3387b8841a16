"""ClientAuth and ServerAuth, shaped like those of pywin32's module sspi."""

from __future__ import annotations

from datetime import datetime
from typing import Any

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
)
from purekrb.sspi.status import Phase, RefusedError, sspi_function
from purekrb.tracebacks import forget_frames

__all__ = ["ClientAuth", "ServerAuth"]

Token = bytes | SecBufferDesc | None


class _Auth:
    """What both sides have in common: the context, once it is complete, and its messages."""

    pkg_info: SecPkgInfo
    credentials: CredHandle
    credentials_expiry: datetime

    def __init__(self, pkg_name: str) -> None:
        self.pkg_info = QuerySecurityPackageInfo(pkg_name)
        self.reset()

    def reset(self) -> None:
        """Forget the context: the next `authorize` begins anew, with the same credentials."""
        self.ctxt: CtxtHandle | None = None
        self.authenticated = False
        self.initiator_name: str | None = None
        self.service_name: str | None = None
        self.ctxt_attr = 0
        self.ctxt_expiry: datetime | None = None
        #: Counts messages as pywin32 does. Kerberos does not look at it.
        self.next_seq_num = 0

    def encrypt(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (encrypted data, trailer), the arguments of the peer's `decrypt`."""
        trailer = self._sizes()["SecurityTrailer"]
        message = _message(_filled(data, SECBUFFER_DATA), SecBuffer(trailer, SECBUFFER_TOKEN))
        self._handle().EncryptMessage(0, message, self._next_number())
        return message[0].Buffer, message[1].Buffer

    def decrypt(self, data: bytes, trailer: bytes) -> bytes:
        """Return the data that the peer's `encrypt` was given. Takes what was only signed as well."""
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
        """Return an RFC 4121 Wrap token that carries `msg`: signed, and encrypted where it is asked for."""
        sizes = self._sizes()
        # Where there is no confidentiality there is no trailer; a signed message needs as much as a signature.
        token = SecBuffer(sizes["SecurityTrailer"] or sizes["MaxSignature"], SECBUFFER_TOKEN)
        data, padding = (
            _filled(msg, SECBUFFER_DATA),
            SecBuffer(sizes["BlockSize"], SECBUFFER_PADDING),
        )
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

    def _legs(self) -> tuple[CtxtHandle | None, CtxtHandle, SecBufferDesc]:
        """Return what a leg is called with: the context, None at first, the handle for it, the buffer to send."""
        before = self.ctxt
        if self.ctxt is None:
            self.ctxt = CtxtHandle()
        return before, self.ctxt, _message(SecBuffer(self.pkg_info["MaxToken"], SECBUFFER_TOKEN))

    def _take(self, leg: tuple[int, int, Any], output: SecBufferDesc) -> tuple[int, SecBufferDesc]:
        status, self.ctxt_attr, self.ctxt_expiry = leg
        self.authenticated = status == SEC_E_OK
        if self.authenticated:
            names = self._handle().QueryContextAttributes(SECPKG_ATTR_NATIVE_NAMES)
            self.initiator_name, self.service_name = names
        return status, output


class ClientAuth(_Auth):
    """The client's side of a handshake, and of the messages after it.

    `client_name` and `auth_info` are as for AcquireCredentialsHandle, `targetspn` is the service's SPN, `scflags` are
    ISC_REQ_ flags. Without them the context has integrity, confidentiality and sequence detection, but, as with
    pywin32, NO MUTUAL AUTHENTICATION: add ISC_REQ_MUTUAL_AUTH to know whom you talk to.
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
    ) -> None:
        super().__init__(pkg_name)
        if scflags is None:
            scflags = (
                ISC_REQ_INTEGRITY
                | ISC_REQ_SEQUENCE_DETECT
                | ISC_REQ_REPLAY_DETECT
                | ISC_REQ_CONFIDENTIALITY
            )
        self.scflags = scflags
        self.datarep = datarep
        self.targetspn = targetspn
        self.credentials, self.credentials_expiry = AcquireCredentialsHandle(
            client_name, self.pkg_info["Name"], SECPKG_CRED_OUTBOUND, None, auth_info
        )

    def authorize(self, sec_buffer_in: Token) -> tuple[int, SecBufferDesc]:
        """Return (status, buffers) of one leg: `buffers[0].Buffer` is to be sent unless it is empty.

        Pass None at first, then what the service sends, until the status is 0.
        """
        before, handle, output = self._legs()
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
        return self._take(leg, output)


class ServerAuth(_Auth):
    """The service's side of a handshake, and of the messages after it.

    `spn` limits it to this name of those in the default keytab; `scflags` are ASC_REQ_ flags. Add ASC_REQ_MUTUAL_AUTH
    to refuse clients that do not ask for the service's proof.
    """

    def __init__(
        self,
        pkg_name: str,
        spn: str | None = None,
        scflags: int | None = None,
        datarep: int = SECURITY_NETWORK_DREP,
    ) -> None:
        super().__init__(pkg_name)
        if scflags is None:
            scflags = (
                ASC_REQ_INTEGRITY
                | ASC_REQ_SEQUENCE_DETECT
                | ASC_REQ_REPLAY_DETECT
                | ASC_REQ_CONFIDENTIALITY
            )
        self.spn = spn
        self.scflags = scflags
        self.datarep = datarep
        self.credentials, self.credentials_expiry = AcquireCredentialsHandle(
            spn, self.pkg_info["Name"], SECPKG_CRED_INBOUND, None, None
        )

    def authorize(self, sec_buffer_in: Token) -> tuple[int, SecBufferDesc]:
        """Return (status, buffers) of one leg, begun with the client's first token; see `ClientAuth.authorize`."""
        before, handle, output = self._legs()
        leg = AcceptSecurityContext(
            self.credentials,
            before,
            _input(sec_buffer_in),
            self.scflags,
            self.datarep,
            handle,
            output,
        )
        return self._take(leg, output)


def _filled(content: bytes, kind: int) -> SecBuffer:
    buffer = SecBuffer(len(content), kind)
    buffer.Buffer = content
    return buffer


def _message(*buffers: SecBuffer) -> SecBufferDesc:
    return SecBufferDesc(buffers=buffers)


def _input(token: Token) -> SecBufferDesc | None:
    if token is None or isinstance(token, SecBufferDesc):
        return token
    return _message(_filled(token, SECBUFFER_TOKEN))
