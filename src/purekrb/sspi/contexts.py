"""CtxtHandle, and the functions that make a context: InitializeSecurityContext and AcceptSecurityContext."""

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
    client_credential,
    impersonation,
    mechanism,
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

#: Flags that ask for another kind of context. What else purekrb does not know is ignored.
_REFUSED_ISC = (
    (ISC_REQ_USE_SESSION_KEY, "user-to-user authentication"),
    (ISC_REQ_DATAGRAM, "a datagram context"),
    (ISC_REQ_NULL_SESSION, "a null session"),
)


class CtxtHandle:
    """A handle to a security context: empty until it is passed to Initialize- or AcceptSecurityContext.

    Its methods are the functions of the same names, without their first argument. MessageSeqNo means nothing to
    Kerberos, whose messages bring their own numbers: pass 0 or any other.
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
        """Return the quality of protection, 0, of the signature in TOKEN. Raises unless it is the peer's."""
        messages.verify_signature(_context(self), message)
        return 0

    @sspi_function(Phase.MESSAGE)
    def EncryptMessage(self, qop: int, message: SecBufferDesc, sequence_number: int = 0) -> None:
        """Encrypt the DATA buffers in place, or with SECQOP_WRAP_NO_ENCRYPT only sign them.

        TOKEN, then DATA, then PADDING, if any, is an RFC 4121 Wrap token.
        """
        messages.encrypt_message(_context(self), qop, message)

    @sspi_function(Phase.MESSAGE)
    def DecryptMessage(self, message: SecBufferDesc, sequence_number: int = 0) -> int:
        """Return the quality of protection of the message, which the DATA buffers hold then.

        It is 0, or SECQOP_WRAP_NO_ENCRYPT for a message that was only signed: who expects secrecy checks it.
        """
        return messages.decrypt_message(_context(self), message)

    # -- asking

    @sspi_function(Phase.MESSAGE)
    def QueryContextAttributes(self, attribute: int) -> Any:
        """Return an attribute (SECPKG_ATTR_...) of a complete context; docs/sspi.md lists their shapes."""
        return query(_complete(self), attribute, self._target)

    @sspi_function(Phase.MESSAGE)
    def QuerySecurityContextToken(self) -> Any:
        """Return who the client is: SECPKG_ATTR_ACCESS_TOKEN."""
        return query(_complete(self), SECPKG_ATTR_ACCESS_TOKEN, self._target)

    # -- acting for the client

    @sspi_function(Phase.SERVICE)
    def ImpersonateSecurityContext(self) -> None:
        """Act for the client from now on, in this thread or task: with what it has delegated, or with nothing.

        AcquireCredentialsHandle then gives the client's delegated credential in place of the process's own, and
        SEC_E_NO_CREDENTIALS where there is none. The process's user stays what it is.
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
        """End what ImpersonateSecurityContext has begun; also when the context is deleted already."""
        current = impersonation.get()
        if current is None or current.handle is not self:
            raise RefusedError(
                SEC_E_NO_IMPERSONATION, "the client of this context is not being impersonated here"
            )
        impersonation.set(None)

    @contextmanager
    def impersonate(self) -> Iterator[Credential | None]:
        """Act for the client in a `with` block, which gets the credential that it has delegated, or None.

        What was before comes back at the end of the block, whatever happens in it.
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
        """Do nothing: no token of Kerberos needs completing. It is there for loops that call it for others."""
        _context(self)

    @sspi_function(Phase.MESSAGE)
    def DeleteSecurityContext(self) -> None:
        """End the context and wipe its keys. To be called also for one that never came about."""
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
    """Return (status, ISC_RET_ flags, expiry) of one leg of the client's handshake.

    The first call has no `context`, an empty handle as `new_context`, and in `inputs` perhaps channel bindings, or with
    Negotiate the hints of a service that spoke first; it asks the KDC for a ticket for `target_name`, an SPN. Later
    calls have that handle as `context` and the service's token in `inputs`. `outputs` receives the token to send.
    SEC_I_CONTINUE_NEEDED: send it, and call again with the answer. SEC_E_OK: send it unless it is empty; the flags are
    final, and zero until then. Any failure raises SspiError and is final; with ISC_REQ_EXTENDED_ERROR `outputs` may
    then hold a token that tells the service. `target_data_rep` means nothing to Kerberos.
    """
    token_out = the_only(outputs, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    token_in = _token(inputs)
    if context is None:
        client = client_credential(credential)
        if token_in is not None and mechanism(credential) != "negotiate":
            raise RefusedError(
                SEC_E_INVALID_TOKEN, "the client speaks first: the first call has no token as input"
            )
        if not target_name:
            raise RefusedError(
                SEC_E_TARGET_UNKNOWN, "the target is missing: pass the service's SPN"
            )
        flags, bindings = _requested(context_req), channel_bindings(inputs)
        handle = _new(new_context)
        from purekrb.kdc.client import initiate  # the KDC client, which services do without

        handle._target = target_name
        handle._context = initiate(
            target_name,
            client,
            credential.config,
            flags=flags,
            mechanism=mechanism(credential),
            channel_bindings=bindings,
        )
    else:
        handle = _begun(context, new_context, Initiator)
        _check_token(token_in, "service's")
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
    """Return (status, ASC_RET_ flags, expiry) of one leg of the service's handshake.

    As `InitializeSecurityContext`, but the client's token is in `inputs` from the first call on; without one, Negotiate
    says what it has. ASC_REQ_MUTUAL_AUTH refuses clients that do not ask for the service's proof; ASC_REQ_DELEGATE
    takes what they delegate; with channel bindings in `inputs` the client must have the same, unless
    ASC_REQ_ALLOW_MISSING_BINDINGS lets it have none; clients without a name are refused unless
    ASC_REQ_ALLOW_NULL_SESSION lets them in. Other flags are wishes: what came of them is in what is returned.
    A PAC in the client's ticket has to be genuine. With ASC_REQ_EXTENDED_ERROR `outputs` may hold, after a failure, a
    token that tells the client why: a KRB-ERROR, or the rejection of a negotiation.
    """
    token_out = the_only(outputs, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    token_in = _token(inputs)
    if context is None:
        keytab, bindings = service_keytab(credential), channel_bindings(inputs)
        if token_in is None and mechanism(credential) == "negotiate":
            token_in = b""  # asks for hints
        if context_req & ASC_REQ_USE_SESSION_KEY:
            raise RefusedError(
                SEC_E_UNSUPPORTED_FUNCTION, "user-to-user authentication is not available"
            )
        _check_token(token_in, "client's")
        config = credential.config
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
            accept_anonymous=bool(context_req & ASC_REQ_ALLOW_NULL_SESSION),
            permitted_etypes=DEFAULT_ETYPES if config is None else config.permitted_etypes,
        )
    else:
        handle = _begun(context, new_context, Acceptor)
        _check_token(token_in, "client's")
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

    Until the context is complete, there are no flags but that of the memory, so that nobody trusts them too early.
    """
    context = _context(handle)
    put = output.resize if allocate else partial(fill, output)
    memory = ISC_RET_ALLOCATED_MEMORY if allocate else 0
    put(b"")
    try:
        reply = context.step(token)
        if context.established and isinstance(context, Acceptor):
            _ = (
                context.identity
            )  # as on Windows, no context comes about with a PAC that is not genuine
        put(reply or b"")
    except ContextError:  # not for this state, which stays what it is
        raise
    except KerberosError as error:
        context.close()
        if error.response is not None and extended_error:
            with suppress(RefusedError):  # a buffer that is too small is not what failed
                put(error.response)
        raise
    if not context.established:
        return SEC_I_CONTINUE_NEEDED, memory, None
    return SEC_E_OK, returned_flags(context) | memory, context.endtime


def _no_context() -> RefusedError:
    return RefusedError(
        SEC_E_INVALID_HANDLE, "there is no context behind this handle: never begun, or deleted"
    )


def _context(handle: CtxtHandle) -> SecurityContext:
    """Return the context behind a handle. Refuses one without, and None, which C calls a null handle."""
    if not isinstance(handle, CtxtHandle) or handle._context is None:
        raise _no_context()
    return handle._context


def _complete(handle: CtxtHandle) -> SecurityContext:
    context = _context(handle)
    if not context.established:
        raise RefusedError(
            SEC_E_INVALID_HANDLE, "the context is not complete: go on with its handshake first"
        )
    return context


def _token(inputs: SecBufferDesc | None) -> bytes | None:
    """Return the token in `inputs`, None where it has none, or an empty one."""
    tokens = buffers_of(inputs, SECBUFFER_TOKEN)
    if len(tokens) > 1:
        raise RefusedError(SEC_E_INVALID_TOKEN, f"one token is needed, {len(tokens)} were passed")
    return tokens[0].Buffer or None if tokens else None


def _check_token(token: bytes | None, whose: str) -> None:
    if token is None:
        raise RefusedError(SEC_E_INVALID_TOKEN, f"the {whose} token is missing: pass it as input")


def _new(handle: CtxtHandle | None) -> CtxtHandle:
    if handle is None:
        raise RefusedError(
            SEC_E_INVALID_HANDLE, "the first call needs an empty CtxtHandle for the new context"
        )
    if handle._context is not None:  # its keys would be lost without being wiped
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
            "after the first call, the new context's handle is the context's own",
        )
    return context


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
