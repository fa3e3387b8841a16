"""MIT's GSS-API, through python-gssapi, as a peer of the tests: obeys the commands that gss_peer.py describes."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import gssapi
from gssapi.raw import IOV, ChannelBindings, IOVBufferType, set_neg_mechs

KRB5 = gssapi.MechType.kerberos
IAKERB = gssapi.OID.from_int_seq("1.3.6.1.5.2.5")
SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
NTLM = gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")
# An error's token is to be seen together with the error, not at the next call.
gssapi.SecurityContext.__DEFER_STEP_ERRORS__ = False

contexts: dict[bytes, gssapi.SecurityContext] = {}


def bindings_of(application_data: bytes) -> ChannelBindings | None:
    return ChannelBindings(application_data=application_data) if application_data else None


def initiate(
    number: bytes, target: bytes, ccache: bytes, flags: bytes, bindings: bytes, mechanism: bytes
) -> list[bytes]:
    mech = KRB5 if mechanism == b"kerberos" else SPNEGO
    if mechanism == b"ntlm-first":  # whose mechanism knows no ccaches
        os.environ["KRB5CCNAME"] = ccache.decode()
        creds = gssapi.Credentials(usage="initiate", mechs=[mech])
        set_neg_mechs(creds, [NTLM, KRB5])
    else:
        creds = gssapi.Credentials(
            usage="initiate", mechs=[mech], store={b"ccache": b"FILE:" + ccache}
        )
    contexts[number] = gssapi.SecurityContext(
        name=gssapi.Name(target.decode(), gssapi.NameType.hostbased_service),
        creds=creds,
        mech=mech,
        flags=gssapi.IntEnumFlagSet(gssapi.RequirementFlag, int(flags)),
        channel_bindings=bindings_of(bindings),
        usage="initiate",
    )
    return []


def accept(number: bytes, keytab: bytes, bindings: bytes, mechanism: bytes) -> list[bytes]:
    mech = {b"kerberos": KRB5, b"iakerb": IAKERB}.get(mechanism, SPNEGO)
    contexts[number] = gssapi.SecurityContext(
        creds=gssapi.Credentials(
            usage="accept", mechs=[mech], store={b"keytab": b"FILE:" + keytab}
        ),
        channel_bindings=bindings_of(bindings),
        usage="accept",
    )
    return []


def step(number: bytes, token: bytes) -> list[bytes]:
    context = contexts[number]
    answer = context.step(token or None)
    return [answer or b"", b"1" if context.complete else b"0"]


def wrap(number: bytes, data: bytes, sealed: bytes) -> list[bytes]:
    return [contexts[number].wrap(data, sealed == b"1").message]


def unwrap(number: bytes, token: bytes) -> list[bytes]:
    result = contexts[number].unwrap(token)
    return [result.message, b"1" if result.encrypted else b"0"]


def mic(number: bytes, data: bytes) -> list[bytes]:
    return [contexts[number].get_signature(data)]


def verify(number: bytes, data: bytes, token: bytes) -> list[bytes]:
    contexts[number].verify_signature(data, token)
    return []


def limit(number: bytes, size: bytes, sealed: bytes) -> list[bytes]:
    return [str(contexts[number].get_wrap_size_limit(int(size), sealed == b"1")).encode()]


def wrap_iov(number: bytes, sealed: bytes, *fields: bytes) -> list[bytes]:
    iov = buffers(fields, allocate=True)
    gssapi.raw.wrap_iov(contexts[number], iov, sealed == b"1")
    return [buffer.value or b"" for buffer in iov]


def unwrap_iov(number: bytes, *fields: bytes) -> list[bytes]:
    iov = buffers(fields, allocate=False)
    result = gssapi.raw.unwrap_iov(contexts[number], iov)
    return [b"1" if result.encrypted else b"0", *[buffer.value or b"" for buffer in iov]]


def iov_length(number: bytes, sealed: bytes, *fields: bytes) -> list[bytes]:
    iov = buffers(fields, allocate=False)
    gssapi.raw.wrap_iov_length(contexts[number], iov, sealed == b"1")
    return [str(len(buffer.value or b"")).encode() for buffer in iov]


def buffers(fields: Sequence[bytes], allocate: bool) -> IOV:
    """Return the buffers of pairs (type, data); MIT makes the memory of what receives data from it."""
    pairs = [
        (IOVBufferType(int(kind)), data)
        for kind, data in zip(fields[::2], fields[1::2], strict=True)
    ]
    received = (
        [IOVBufferType.header, IOVBufferType.trailer, IOVBufferType.padding] if allocate else []
    )
    if any(kind == IOVBufferType.stream for kind, _ in pairs):
        received = [IOVBufferType.data]
    items = [
        (kind, True, None) if kind in received else (kind, False, data) for kind, data in pairs
    ]
    return IOV(*items, std_layout=False)


def prf(number: bytes, key_use: bytes, data: bytes, size: bytes) -> list[bytes]:
    """python-gssapi has no such call: the context goes to the C library and comes back."""
    library = ctypes.CDLL("libgssapi_krb5.so.2")
    minor, context, made = ctypes.c_uint32(), ctypes.c_void_p(), Buffer()

    def call(name: str, *arguments: object) -> None:
        if getattr(library, name)(ctypes.byref(minor), *arguments):
            raise RuntimeError(f"{name} failed with {minor.value}")

    token = contexts[number].export()
    given = [Buffer(len(item), ctypes.cast(item, ctypes.c_void_p)) for item in (token, data)]
    result = ctypes.byref(made)
    call("gss_import_sec_context", ctypes.byref(given[0]), ctypes.byref(context))
    call(
        "gss_pseudo_random",
        context,
        int(key_use),
        ctypes.byref(given[1]),
        ctypes.c_ssize_t(int(size)),
        result,
    )
    answer = ctypes.string_at(made.value, made.length) if made.length else b""
    call("gss_release_buffer", result)
    call("gss_export_sec_context", ctypes.byref(context), result)
    contexts[number] = gssapi.SecurityContext(token=ctypes.string_at(made.value, made.length))
    call("gss_release_buffer", result)
    return [answer]


class Buffer(ctypes.Structure):
    """gss_buffer_desc."""

    _fields_: ClassVar = [("length", ctypes.c_size_t), ("value", ctypes.c_void_p)]


def info(number: bytes) -> list[bytes]:
    context = contexts[number]
    return [
        str(int(context.actual_flags) & 0x3F).encode(),
        str(context.initiator_name).encode(),
        str(context.target_name).encode(),
    ]


def delegated(number: bytes, ccache: bytes) -> list[bytes]:
    credentials = contexts[number].delegated_creds
    credentials.store({b"ccache": b"FILE:" + ccache}, usage="initiate", overwrite=True)
    return [str(credentials.name).encode()]


def close(number: bytes) -> list[bytes]:
    del contexts[number]
    return []


COMMANDS: dict[bytes, Any] = {
    function.__name__.encode(): function
    for function in (
        *(
            initiate,
            accept,
            step,
            wrap,
            unwrap,
            mic,
            verify,
            limit,
            wrap_iov,
            unwrap_iov,
            iov_length,
        ),
        *(prf, info, delegated, close),
    )
}


def answer_to(command: bytes, *fields: bytes) -> list[bytes]:
    try:
        return [b"ok", *COMMANDS[command](*fields)]
    except gssapi.exceptions.GSSError as error:
        return [b"error", str(error).encode(), error.token or b""]


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer

    def number() -> int:
        return int.from_bytes(source.read(4), "big")

    while count := number():
        answer = answer_to(*[source.read(number()) for _ in range(count)])
        sink.write(
            struct.pack(">I", len(answer))
            + b"".join(struct.pack(">I", len(item)) + item for item in answer)
        )
        sink.flush()


if __name__ == "__main__":
    main()
