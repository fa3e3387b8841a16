"""CtxtHandle, and the functions that establish it: Initialize- and AcceptSecurityContext."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

from purekrb.constants import DEFAULT_ETYPES, Flag
from purekrb.credentials.credential import Credential
from purekrb.errors import ContextError, KerberosError
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.context import SecurityContext
from purekrb.gss.initiator import Initiator
from purekrb.sspi import messages
from purekrb.sspi.attributes import FLAGS, query, returned_flags
from purekrb.sspi.buffers import (
    SecBuffer,
    SecBufferDesc,
    buffers_of,
    channel_bindings,
    fill,
    the_only,
)
from purekrb.sspi.constants import (
    ASC_REQ_ALLOCATE_MEMORY,
    ASC_REQ_ALLOW_MISSING_BINDINGS,
    ASC_REQ_ALLOW_NULL_SESSION,
    ASC_REQ_DELEGATE,
    ASC_REQ_EXTENDED_ERROR,
    ASC_REQ_MUTUAL_AUTH,
    ASC_REQ_USE_SESSION_KEY,
    ISC_REQ_ALLOCATE_MEMORY,
    ISC_REQ_DATAGRAM,
    ISC_REQ_DELEGATE,
    ISC_REQ_EXTENDED_ERROR,
    ISC_REQ_INTEGRITY,
    ISC_REQ_MUTUAL_AUTH,
    ISC_REQ_NO_INTEGRITY,
    ISC_REQ_NULL_SESSION,
    ISC_REQ_USE_SESSION_KEY,
    ISC_RET_ALLOCATED_MEMORY,
    SEC_E_INVALID_HANDLE,
    SEC_E_INVALID_TOKEN,
    SEC_E_NO_CREDENTIALS,
    SEC_E_NO_IMPERSONATION,
    SEC_E_OK,
    SEC_E_SECURITY_QOS_FAILED,
    SEC_E_TARGET_UNKNOWN,
    SEC_E_UNSUPPORTED_FUNCTION,
    SEC_I_CONTINUE_NEEDED,
    SECBUFFER_TOKEN,
    SECPKG_ATTR_ACCESS_TOKEN,
    SECURITY_NETWORK_DREP,
)
from purekrb.sspi.credentials import (
    CredHandle,
    Impersonation,
    ServiceOptions,
    client_credential,
    has_keys,
    impersonation,
    mechanism,
    own_credential,
    service_keytab,
)
from purekrb.sspi.status import Phase, RefusedError, sspi_function

__all__ = [
    "AcceptSecurityContext",
    "CompleteAuthToken",
    "CtxtHandle",
    "DecryptMessage",
    "DeleteSecurityContext",
    "EncryptMessage",
    "ImpersonateSecurityContext",
    "InitializeSecurityContext",
    "MakeSignature",
    "QueryContextAttributes",
    "QuerySecurityContextToken",
    "RevertSecurityContext",
    "VerifySignature",
]

#: Flags that ask for another kind of context. Other unknown flags are ignored.
_REFUSED_ISC = (
    (ISC_REQ_DATAGRAM, "a datagram context"),
    (ISC_REQ_NULL_SESSION, "a null session"),
)


class CtxtHandle:
    """A handle to a security context; empty until Initialize- or AcceptSecurityContext fills it.

    Its methods are the functions of the same names, without their first argument. Kerberos ignores
    MessageSeqNo, because its messages contain their own numbers: pass 0 or any other number.
    """

    __slots__ = ("_begun", "_context", "_target")

    def __init__(self) -> None:
        self._begun = False  # whether there is something to delete
        self._context: SecurityContext | None = None
        self._target = ""

    # -- protecting messages

    @sspi_function(Phase.MESSAGE)
    def MakeSignature(self, qop: int, message: SecBufferDesc, sequence_number: int = 0) -> None:
        """Sign the DATA buffers of `message`; its TOKEN receives the signature. `qop` is 0."""
        messages.make_signature(_context(self), qop, message)

    @sspi_function(Phase.MESSAGE)
    def VerifySignature(self, message: SecBufferDesc, sequence_number: int = 0) -> int:
        """Verify the peer's signature in TOKEN; return its quality of protection, 0."""
        messages.verify_signature(_context(self), message)
        return 0

    @sspi_function(Phase.MESSAGE)
    def EncryptMessage(self, qop: int, message: SecBufferDesc, sequence_number: int = 0) -> None:
        """Encrypt the DATA buffers in place; with SECQOP_WRAP_NO_ENCRYPT, only sign them.

        TOKEN, DATA and PADDING (if any), in this order, are an RFC 4121 Wrap token.
        """
        messages.encrypt_message(_context(self), qop, message)

    @sspi_function(Phase.MESSAGE)
    def DecryptMessage(self, message: SecBufferDesc, sequence_number: int = 0) -> int:
        """Put the message into the DATA buffers; return its quality of protection.

        It is 0, or SECQOP_WRAP_NO_ENCRYPT for a message that was only signed. Check it if you
        expect secrecy.
        """
        return messages.decrypt_message(_context(self), message)

    # -- asking

    @sspi_function(Phase.MESSAGE)
    def QueryContextAttributes(self, attribute: int) -> Any:
        """Return an attribute (SECPKG_ATTR_...) of a complete context; see docs/sspi.md."""
        return query(_complete(self), attribute, self._target)

    @sspi_function(Phase.MESSAGE)
    def QuerySecurityContextToken(self) -> Any:
        """Return the client's identity, like SECPKG_ATTR_ACCESS_TOKEN."""
        return query(_complete(self), SECPKG_ATTR_ACCESS_TOKEN, self._target)

    # -- acting for the client

    @sspi_function(Phase.SERVICE)
    def ImpersonateSecurityContext(self) -> None:
        """Act for the client in this thread or task from now on, with its delegated credential.

        AcquireCredentialsHandle then returns the delegated credential in place of the process's
        own, or SEC_E_NO_CREDENTIALS if the client has delegated none. The user of the process does
        not change.
        """
        context = _complete(self)
        if not isinstance(context, Acceptor):
            raise RefusedError(
                SEC_E_NO_IMPERSONATION,
                "only a service impersonates, and this is the client's context",
            )
        impersonation.set(Impersonation(self, context.delegated_credential))

    @sspi_function(Phase.SERVICE)
    def RevertSecurityContext(self) -> None:
        """End the impersonation, even if the context has been deleted."""
        current = impersonation.get()
        if current is None or current.handle is not self:
            raise RefusedError(
                SEC_E_NO_IMPERSONATION, "the client of this context is not being impersonated here"
            )
        impersonation.set(None)

    @contextmanager
    def impersonate(self) -> Iterator[Credential | None]:
        """Act for the client in a `with` block; yield its delegated credential, or None.

        The end of the block restores the previous impersonation, even after an error.
        """
        before = impersonation.get()
        self.ImpersonateSecurityContext()
        current = impersonation.get()
        try:
            yield current.credential if current else None
        finally:
            impersonation.set(before)

    # -- beginning and ending

    @sspi_function(Phase.MESSAGE)
    def CompleteAuthToken(self, token: SecBufferDesc) -> None:
        """Do nothing: Kerberos tokens are complete. Exists for code with other packages."""
        _context(self)

    @sspi_function(Phase.MESSAGE)
    def DeleteSecurityContext(self) -> None:
        """End the context and wipe its keys. Also call it for a context that failed."""
        if not isinstance(self, CtxtHandle) or not self._begun:
            raise _no_context()
        self._begun = False
        if self._context is not None:
            self._context.close()
            self._context = None

    def __repr__(self) -> str:
        return (
            f"<CtxtHandle {self._context!r}>" if self._context else "<CtxtHandle without context>"
        )


MakeSignature = CtxtHandle.MakeSignature
VerifySignature = CtxtHandle.VerifySignature
EncryptMessage = CtxtHandle.EncryptMessage
DecryptMessage = CtxtHandle.DecryptMessage
QueryContextAttributes = CtxtHandle.QueryContextAttributes
QuerySecurityContextToken = CtxtHandle.QuerySecurityContextToken
ImpersonateSecurityContext = CtxtHandle.ImpersonateSecurityContext
RevertSecurityContext = CtxtHandle.RevertSecurityContext
CompleteAuthToken = CtxtHandle.CompleteAuthToken
DeleteSecurityContext = CtxtHandle.DeleteSecurityContext


@sspi_function(Phase.CLIENT)
def InitializeSecurityContext(
    credential: CredHandle,
    context: CtxtHandle | None,
    target_name: str | None,
    context_req: int,
    target_data_rep: int = SECURITY_NETWORK_DREP,
    inputs: SecBufferDesc | None = None,
    new_context: CtxtHandle | None = None,
    outputs: SecBufferDesc | None = None,
) -> tuple[int, int, datetime | None]:
    """Do one leg of the client's handshake; return (status, ISC_RET_ flags, expiry).

    In the first call, `context` is None, `new_context` is an empty handle, and `target_name` is an
    SPN, for which a ticket is requested from the KDC. `inputs` may contain channel bindings, or
    with Negotiate the hints of a service that spoke first. In later calls, `context` is that
    handle, and `inputs` contain the service's token.

    `outputs` receive the token to send. If the status is SEC_I_CONTINUE_NEEDED, send it and call
    again with the answer. If it is SEC_E_OK, send the token unless it is empty; the flags, which
    were zero until now, are final. Any failure raises SspiError and is final. With
    ISC_REQ_EXTENDED_ERROR, `outputs` may then contain a token that tells the service. Kerberos
    ignores `target_data_rep`.
    """
    token_out = the_only(outputs, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    token_in = _token(inputs)
    if context is None:
        client = client_credential(credential)
        if token_in is not None and mechanism(credential) != "negotiate":
            raise RefusedError(
                SEC_E_INVALID_TOKEN,
                "the client speaks first: do not pass a token to the first call",
            )
        if not target_name:
            raise RefusedError(
                SEC_E_TARGET_UNKNOWN, "the target is missing: pass the service's SPN"
            )
        flags, bindings = _requested(context_req), channel_bindings(inputs)
        handle = _new(new_context)
        from purekrb.kdc.client import initiate  # imported here: services do not need it

        handle._target = target_name
        handle._context = initiate(
            target_name,
            client,
            credential.config,
            flags=flags,
            mechanism=_user_to_user(mechanism(credential), context_req),
            channel_bindings=bindings,
        )
    else:
        # A service that answers without a token has not proved itself: the context says so.
        handle = _begun(context, new_context, Initiator)
    return _step(
        handle,
        token_in,
        token_out,
        allocate=bool(context_req & ISC_REQ_ALLOCATE_MEMORY),
        extended_error=bool(context_req & ISC_REQ_EXTENDED_ERROR),
    )


@sspi_function(Phase.SERVICE)
def AcceptSecurityContext(
    credential: CredHandle,
    context: CtxtHandle | None,
    inputs: SecBufferDesc | None,
    context_req: int,
    target_data_rep: int = SECURITY_NETWORK_DREP,
    new_context: CtxtHandle | None = None,
    outputs: SecBufferDesc | None = None,
) -> tuple[int, int, datetime | None]:
    """Do one leg of the service's handshake; return (status, ASC_RET_ flags, expiry).

    This is like `InitializeSecurityContext`, but `inputs` contain the client's token from the first
    call on; without a token, Negotiate offers its mechanisms. The flags:

    - ASC_REQ_MUTUAL_AUTH refuses clients that do not ask for mutual authentication.
    - ASC_REQ_USE_SESSION_KEY: clients may authenticate by the TGT of these credentials, user to
      user; the service then needs no keys.
    - ASC_REQ_DELEGATE accepts delegated credentials. Credentials for BOTH uses also act for clients
      by constrained delegation.
    - ASC_REQ_ALLOW_MISSING_BINDINGS accepts clients without channel bindings. Otherwise, if
    `inputs`
      contain channel bindings, the client must have the same.
    - ASC_REQ_ALLOW_NULL_SESSION accepts anonymous clients, which are refused otherwise.
    - ASC_REQ_EXTENDED_ERROR: after a failure, `outputs` may contain a token that tells the client
      why, a KRB-ERROR or the rejection of a negotiation.

    Other flags are only wishes; the returned flags tell the outcome. A PAC in the client's ticket
    must be genuine.
    """
    token_out = the_only(outputs, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    token_in = _token(inputs)
    if context is None:
        own, bindings = own_credential(credential), channel_bindings(inputs)
        if context_req & ASC_REQ_USE_SESSION_KEY and own is None:
            raise RefusedError(
                SEC_E_NO_CREDENTIALS,
                "user-to-user authentication takes a TGT: acquire credentials for BOTH uses, or for "
                "OUTBOUND use alone",
            )
        by_tgt_alone = context_req & ASC_REQ_USE_SESSION_KEY and not has_keys(credential)
        keytab = None if by_tgt_alone else service_keytab(credential)
        if token_in is None and mechanism(credential) == "negotiate":
            token_in = b""  # a request for hints
        _check_token(token_in)
        config = credential.config
        options: ServiceOptions = {
            "permitted_etypes": DEFAULT_ETYPES if config is None else config.permitted_etypes,
            **credential.options,
        }
        handle = _new(new_context)
        handle._context = Acceptor(
            keytab,
            mechanism=mechanism(credential),
            service=credential.service,
            require=Flag.MUTUAL if context_req & ASC_REQ_MUTUAL_AUTH else Flag(0),
            channel_bindings=bindings,
            require_channel_bindings=bindings is not None
            and not context_req & ASC_REQ_ALLOW_MISSING_BINDINGS,
            accept_delegation=bool(context_req & ASC_REQ_DELEGATE),
            tgt=own,
            accept_anonymous=bool(context_req & ASC_REQ_ALLOW_NULL_SESSION),
            **options,
        )
    else:
        handle = _begun(context, new_context, Acceptor)
        _check_token(token_in)
    return _step(
        handle,
        token_in,
        token_out,
        allocate=bool(context_req & ASC_REQ_ALLOCATE_MEMORY),
        extended_error=bool(context_req & ASC_REQ_EXTENDED_ERROR),
    )


def _step(
    handle: CtxtHandle,
    token: bytes | None,
    output: SecBuffer,
    *,
    allocate: bool,
    extended_error: bool,
) -> tuple[int, int, datetime | None]:
    """Take a token, put the next one into `output`; return (status, flags, expiry).

    Until the context is complete, the only flag is the one for allocated memory, so that nobody
    relies on the others too early.
    """
    context = _context(handle)
    put = output.resize if allocate else partial(fill, output)
    memory = ISC_RET_ALLOCATED_MEMORY if allocate else 0
    put(b"")
    try:
        reply = context.step(token)
        if context.established and isinstance(context, Acceptor):
            # As on Windows, a context with a PAC that is not genuine is refused.
            _ = context.identity
        put(reply or b"")
    except ContextError:  # a wrong call; the context stays as it is
        raise
    except KerberosError as error:
        context.close()
        if error.response is not None and extended_error:
            with suppress(RefusedError):  # a small buffer must not hide the actual failure
                put(error.response)
        raise
    if not context.established:
        return SEC_I_CONTINUE_NEEDED, memory, None
    return SEC_E_OK, returned_flags(context) | memory, context.endtime


def _no_context() -> RefusedError:
    return RefusedError(
        SEC_E_INVALID_HANDLE, "this handle has no context: it was never begun, or it is deleted"
    )


def _context(handle: CtxtHandle) -> SecurityContext:
    """Return the context of a handle. Refuses a handle without one, and None (C's null handle)."""
    if not isinstance(handle, CtxtHandle) or handle._context is None:
        raise _no_context()
    return handle._context


def _complete(handle: CtxtHandle) -> SecurityContext:
    context = _context(handle)
    if not context.established:
        raise RefusedError(
            SEC_E_INVALID_HANDLE, "the context is not complete: finish its handshake first"
        )
    return context


def _token(inputs: SecBufferDesc | None) -> bytes | None:
    """Return the token in `inputs`; None if it is missing or empty."""
    tokens = buffers_of(inputs, SECBUFFER_TOKEN)
    if len(tokens) > 1:
        raise RefusedError(
            SEC_E_INVALID_TOKEN, f"one token is needed, but {len(tokens)} were passed"
        )
    if not tokens:
        return None
    return tokens[0].Buffer or None


def _check_token(token: bytes | None) -> None:
    if token is None:
        raise RefusedError(SEC_E_INVALID_TOKEN, "the client's token is missing: pass it as input")


def _new(handle: CtxtHandle | None) -> CtxtHandle:
    if handle is None:
        raise RefusedError(
            SEC_E_INVALID_HANDLE, "the first call needs an empty CtxtHandle for the new context"
        )
    if handle._context is not None:  # its keys would not be wiped
        raise RefusedError(
            SEC_E_INVALID_HANDLE, "the new context's handle has a context: delete that first"
        )
    handle._begun = True
    return handle


def _begun(
    context: CtxtHandle, new_context: CtxtHandle | None, role: type[SecurityContext]
) -> CtxtHandle:
    if not isinstance(_context(context), role):
        raise RefusedError(
            SEC_E_INVALID_HANDLE, f"this is not the context of an {role.__name__.lower()}"
        )
    if new_context is not None and new_context is not context:
        raise RefusedError(
            SEC_E_INVALID_HANDLE,
            "after the first call, the new context's handle must be that of the context",
        )
    return context


def _user_to_user(mechanism: str, context_req: int) -> str:
    """Return the mechanism for a client; ISC_REQ_USE_SESSION_KEY asks for user-to-user."""
    if not context_req & ISC_REQ_USE_SESSION_KEY:
        return mechanism
    return "user-to-user" if mechanism == "kerberos" else f"{mechanism}-user-to-user"


def _requested(context_req: int) -> Flag:
    for flag, what in _REFUSED_ISC:
        if context_req & flag:
            raise RefusedError(SEC_E_UNSUPPORTED_FUNCTION, f"{what} is not available")
    if context_req & ISC_REQ_DELEGATE and not context_req & ISC_REQ_MUTUAL_AUTH:
        raise RefusedError(
            SEC_E_SECURITY_QOS_FAILED, "DELEGATE hands over a TGT: it needs MUTUAL_AUTH"
        )
    if context_req & ISC_REQ_NO_INTEGRITY:
        context_req &= ~ISC_REQ_INTEGRITY
    return Flag(sum(flag for flag, isc, _ in FLAGS if context_req & isc))
