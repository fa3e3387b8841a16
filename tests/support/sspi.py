"""Handshakes between handles of purekrb.sspi, with tickets made without a KDC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from purekrb import CCache, Config, Credential, Keytab, KeytabEntry, SspiError, sspi
from support.tickets import ALICE, issue

TARGET = "HTTP/web.example.test"
#: What pywin32 asks for by default, and the proof of the service.
ISC = (
    sspi.ISC_REQ_MUTUAL_AUTH
    | sspi.ISC_REQ_INTEGRITY
    | sspi.ISC_REQ_CONFIDENTIALITY
    | sspi.ISC_REQ_SEQUENCE_DETECT
    | sspi.ISC_REQ_REPLAY_DETECT
)
ASC = sspi.ASC_REQ_MUTUAL_AUTH
DATA, TOKEN, PADDING, STREAM = (
    sspi.SECBUFFER_DATA,
    sspi.SECBUFFER_TOKEN,
    sspi.SECBUFFER_PADDING,
    sspi.SECBUFFER_STREAM,
)


class Credentials(NamedTuple):
    """Handles of a client that has a ticket for TARGET, and of the service."""

    client: sspi.CredHandle
    service: sspi.CredHandle


class Pair(NamedTuple):
    """Both ends of a complete handshake, and what its last calls returned."""

    client: sspi.CtxtHandle
    service: sspi.CtxtHandle
    client_flags: int
    service_flags: int


def credentials(etype: int = 18, package: str = "Kerberos", **ticket: Any) -> Credentials:
    """Return the credentials of both sides; `ticket` goes to `issue`."""
    service_ticket, entries = issue(etype, **ticket)
    alice = Credential(ALICE, ccache=CCache(ALICE, [service_ticket]))
    keytab = Keytab(KeytabEntry(entry.principal, entry.kvno, entry.key) for entry in entries)
    client, _ = sspi.AcquireCredentialsHandle(None, package, sspi.SECPKG_CRED_OUTBOUND, None, alice)
    service, _ = sspi.AcquireCredentialsHandle(
        None, package, sspi.SECPKG_CRED_INBOUND, None, keytab
    )
    client.config = service.config = Config(
        default_realm=ALICE.realm,
        dns_lookup_kdc=False,
        permitted_enctypes=[etype],
        allow_rc4=etype == 23,
    )
    return Credentials(client, service)


def desc(*buffers: tuple[int, bytes | int]) -> sspi.SecBufferDesc:
    """Return buffers of (type, contents), or (type, size) for an empty one of that size."""
    made = sspi.SecBufferDesc()
    for kind, contents in buffers:
        size = contents if isinstance(contents, int) else len(contents)
        buffer = sspi.SecBuffer(size, kind)
        if not isinstance(contents, int):
            buffer.Buffer = contents
        made.append(buffer)
    return made


def room(size: int = 48_000) -> sspi.SecBufferDesc:
    """Return the buffer for a token to send."""
    return desc((TOKEN, size))


def first_leg(
    credential: sspi.CredHandle,
    flags: int = ISC,
    target: str | None = TARGET,
    inputs: sspi.SecBufferDesc | None = None,
) -> tuple[sspi.CtxtHandle, tuple[int, int, Any], bytes]:
    """Return the client's new handle, what InitializeSecurityContext returned, and the token."""
    handle, out = sspi.CtxtHandle(), room()
    result = sspi.InitializeSecurityContext(credential, None, target, flags, 0, inputs, handle, out)
    return handle, result, out[0].Buffer


def pair(
    etype: int = 18,
    *,
    isc: int = ISC,
    asc: int | None = None,
    package: str = "Kerberos",
    **ticket: Any,
) -> Pair:
    """Return both ends of a complete context."""
    ours = credentials(etype, package, **ticket)
    if asc is None:
        asc = ASC if isc & sspi.ISC_REQ_MUTUAL_AUTH else 0
    client, (status, client_flags, _), token = first_leg(ours.client, isc)
    service = sspi.CtxtHandle()
    service_status, service_flags, before = sspi.SEC_I_CONTINUE_NEEDED, 0, None
    for _ in range(10):
        if token:
            out = room()
            service_status, service_flags, _ = sspi.AcceptSecurityContext(
                ours.service, before, desc((TOKEN, token)), asc, 0, service, out
            )
            before, token = service, out[0].Buffer
        if status == service_status == sspi.SEC_E_OK and not token:
            return Pair(client, service, client_flags, service_flags)
        out = room()
        status, client_flags, _ = sspi.InitializeSecurityContext(
            ours.client, client, TARGET, isc, 0, desc((TOKEN, token)), client, out
        )
        token = out[0].Buffer
    raise AssertionError("the handshake does not end")


@contextmanager
def refused(status: int, function: str | None = None) -> Iterator[pytest.ExceptionInfo[SspiError]]:
    """Expect an SspiError with that status, and of that function."""
    with pytest.raises(SspiError) as caught:
        yield caught
    assert (caught.value.winerror & 0xFFFFFFFF, caught.value.args[1]) == (
        status & 0xFFFFFFFF,
        function or caught.value.funcname,
    ), caught.value
