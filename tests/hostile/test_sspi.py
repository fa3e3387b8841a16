"""purekrb.sspi with wrong buffers, in the wrong order, after the end, and with messages that are not genuine."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from purekrb import errors, sspi
from purekrb.constants import ErrorCode
from purekrb.gss.context import MAX_TOKEN
from purekrb.sspi.status import Phase, _status
from support.sspi import (
    ASC,
    DATA,
    ISC,
    PADDING,
    STREAM,
    TARGET,
    TOKEN,
    Pair,
    credentials,
    desc,
    first_leg,
    pair,
    refused,
    room,
)

NO_ENCRYPT = sspi.SECQOP_WRAP_NO_ENCRYPT
INVALID_TOKEN, TOO_SMALL = sspi.SEC_E_INVALID_TOKEN, sspi.SEC_E_BUFFER_TOO_SMALL
QOP, ALTERED, INCOMPLETE = (
    sspi.SEC_E_QOP_NOT_SUPPORTED,
    sspi.SEC_E_MESSAGE_ALTERED,
    sspi.SEC_E_INCOMPLETE_MESSAGE,
)
CHECKSUM = sspi.SECBUFFER_READONLY_WITH_CHECKSUM

BODY, WIDE = (DATA, b"body"), (TOKEN, 60)


@pytest.fixture(scope="module")
def both() -> Pair:
    return pair()


# --- buffers


SIGNING = [
    ("no DATA", 0, [WIDE], INVALID_TOKEN),
    ("no TOKEN", 0, [BODY], INVALID_TOKEN),
    ("no buffer", 0, [], INVALID_TOKEN),
    ("two TOKENs", 0, [BODY, WIDE, WIDE], INVALID_TOKEN),
    ("DATA read only", 0, [(DATA | sspi.SECBUFFER_READONLY, b"body"), WIDE], INVALID_TOKEN),
    ("TOKEN read only", 0, [BODY, (TOKEN | sspi.SECBUFFER_READONLY, 60)], INVALID_TOKEN),
    ("TOKEN too small", 0, [BODY, (TOKEN, 27)], TOO_SMALL),
    ("TOKEN of nothing", 0, [BODY, (TOKEN, 0)], TOO_SMALL),
    ("QOP of wrapping", NO_ENCRYPT, [BODY, WIDE], QOP),
    ("QOP unknown", 1, [BODY, WIDE], QOP),
]


@pytest.mark.parametrize(
    ("qop", "given", "status"), [row[1:] for row in SIGNING], ids=[row[0] for row in SIGNING]
)
def test_signing_needs_its_buffers(both: Pair, qop: int, given: list[Any], status: int) -> None:
    with refused(status, "MakeSignature"):
        both.client.MakeSignature(qop, desc(*given))
    message = desc(BODY, (TOKEN, 28))
    both.client.MakeSignature(0, message)  # and no sequence number was lost
    both.service.VerifySignature(message)


SEALING = [
    ("no DATA", 0, [WIDE], INVALID_TOKEN),
    ("no TOKEN", 0, [BODY], INVALID_TOKEN),
    ("two TOKENs", 0, [WIDE, BODY, WIDE], INVALID_TOKEN),
    ("TOKEN too small", 0, [(TOKEN, 59), BODY], TOO_SMALL),
    ("two PADDINGs", 0, [WIDE, BODY, (PADDING, 1), (PADDING, 1)], INVALID_TOKEN),
    ("TOKEN too small to sign", NO_ENCRYPT, [(TOKEN, 27), BODY], TOO_SMALL),
    ("QOP unknown", 2, [WIDE, BODY], QOP),
    ("QOP unknown, with the high bit", 0x80000002, [WIDE, BODY], QOP),
]


@pytest.mark.parametrize(
    ("qop", "given", "status"), [row[1:] for row in SEALING], ids=[row[0] for row in SEALING]
)
def test_encrypting_needs_its_buffers(both: Pair, qop: int, given: list[Any], status: int) -> None:
    message = desc(*given)
    with refused(status, "EncryptMessage"):
        both.client.EncryptMessage(qop, message)
    assert all(
        buffer.Buffer in (b"body", bytes(buffer.BufferSize)) for buffer in message
    )  # nothing has changed
    message = desc(WIDE, BODY)
    both.client.EncryptMessage(0, message)
    assert both.service.DecryptMessage(message) == 0


def test_buffers_of_another_version_are_refused(both: Pair) -> None:
    message = desc(BODY, WIDE)
    message.Version = 1
    for call in (
        lambda: both.client.MakeSignature(0, message),
        lambda: both.client.VerifySignature(message),
        lambda: both.client.EncryptMessage(0, message),
        lambda: both.client.DecryptMessage(message),
        lambda: first_leg(credentials().client, inputs=message),
    ):
        with refused(INVALID_TOKEN):
            call()
    message.Version = 0
    both.client.MakeSignature(0, message)
    both.service.VerifySignature(message)


def test_what_is_no_buffer_is_the_callers_mistake(both: Pair) -> None:
    for call in (
        lambda: both.client.MakeSignature(0, [b"data"]),  # type: ignore[arg-type]
        lambda: sspi.SecBufferDesc(0, [b"data"]),  # type: ignore[list-item]
    ):
        with pytest.raises(TypeError):
            call()
    with refused(INVALID_TOKEN):
        both.client.MakeSignature(0, None)  # type: ignore[arg-type]


def test_decrypting_needs_its_buffers(both: Pair) -> None:
    message = desc(WIDE, BODY)
    both.client.EncryptMessage(0, message)
    token, data = message[0].Buffer, message[1].Buffer
    whole = token + data
    for given in (
        [],
        [(STREAM, whole)],
        [(DATA, data)],
        [(TOKEN, token)],
        [(STREAM, whole), (DATA, 0), (DATA, 0)],
        [(STREAM, whole), (STREAM, whole), (DATA, 0)],
        [(TOKEN, token), (TOKEN, token), (DATA, data)],
    ):
        with refused(INVALID_TOKEN, "DecryptMessage"):
            both.service.DecryptMessage(desc(*given))
    assert both.service.DecryptMessage(message) == 0


@pytest.mark.parametrize("legs", ["client", "service"])
def test_a_leg_needs_a_buffer_for_the_token_and_room_in_it(legs: str) -> None:
    ours = credentials()
    handle = sspi.CtxtHandle()
    _, _, token = first_leg(ours.client)

    def leg(outputs: sspi.SecBufferDesc | None) -> int:
        if legs == "client":
            return sspi.InitializeSecurityContext(
                ours.client, None, TARGET, ISC, 0, None, handle, outputs
            )[0]
        inputs = desc((TOKEN, token))
        return sspi.AcceptSecurityContext(ours.service, None, inputs, ASC, 0, handle, outputs)[0]

    for outputs in (None, desc(), desc(BODY), desc(WIDE, WIDE)):
        with refused(INVALID_TOKEN):
            leg(outputs)
    assert leg(room()) >= 0  # nothing had begun
    handle.DeleteSecurityContext()
    _, _, token = first_leg(ours.client)
    with refused(TOO_SMALL):
        leg(room(50))
    for use in (
        lambda: handle.MakeSignature(0, desc(BODY, WIDE)),
        lambda: handle.QueryContextAttributes(sspi.SECPKG_ATTR_FLAGS),
    ):
        with refused(sspi.SEC_E_INVALID_HANDLE):
            use()
    handle.DeleteSecurityContext()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(31),
        struct.pack("<8L", 0, 1, 32, 0, 0, 0, 0, 0),
        struct.pack("<8L", 0, 0, 0, 0, 1, 32, 0, 0),
        struct.pack("<8L", 0, 0, 0, 0, 0, 0, 5, 0xFFFFFFFF),
        struct.pack("<8L", 0, 0, 0, 0, 0, 0, 0xFFFFFFFF, 32) + b"tls",
        struct.pack("<8L", 0, 0, 0, 0, 0, 0, 3, 0) + b"tls",
        bytes(32) + b"tls",
        bytes(64) + b"tls",
        struct.pack("<8Q", 0, 0, 0, 0, 0, 0, 4, 32) + b"tls",
        struct.pack("<8Q", 0, 0, 0, 0, 0, 0, 3, 65) + b"tls",
        struct.pack("<8Q", 0, 0, 0, 0, 0, 0, 1 << 40, 64) + b"tls",
        struct.pack(">8L", 0, 0, 0, 0, 0, 0, 3, 32) + b"tls",
    ],
)
def test_channel_bindings_that_point_outside_themselves_are_refused(data: bytes) -> None:
    ours = credentials()
    kind = sspi.SECBUFFER_CHANNEL_BINDINGS
    _, _, token = first_leg(ours.client)
    with refused(sspi.SEC_E_BAD_BINDINGS, "InitializeSecurityContext"):
        first_leg(ours.client, inputs=desc((kind, data)))
    with refused(sspi.SEC_E_BAD_BINDINGS, "AcceptSecurityContext"):
        sspi.AcceptSecurityContext(
            ours.service,
            None,
            desc((TOKEN, token), (kind, data)),
            ASC,
            0,
            sspi.CtxtHandle(),
            room(),
        )
    good = struct.pack("<8L", 0, 0, 0, 0, 0, 0, 3, 32) + b"tls"
    assert first_leg(ours.client, inputs=desc((kind, good)))[1][0] == sspi.SEC_I_CONTINUE_NEEDED


# --- messages that are not genuine


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_chk35_every_altered_byte_of_a_signature_is_noticed(etype: int) -> None:
    both = pair(etype)
    message = desc(BODY, WIDE)
    both.client.MakeSignature(0, message)
    signature = message[1].Buffer
    for at in range(len(signature)):
        altered = bytearray(signature)
        altered[at] ^= 1
        with refused(ALTERED, "VerifySignature"):
            both.service.VerifySignature(desc(BODY, (TOKEN, bytes(altered))))
    for given in ((DATA, b"Body"), (DATA, b"bod"), (DATA, b"body ")):
        with refused(ALTERED):
            both.service.VerifySignature(desc(given, (TOKEN, signature)))
    for cut in (b"", signature[:15], signature[:-1], signature + b"\0"):
        with refused(ALTERED):
            both.service.VerifySignature(desc(BODY, (TOKEN, cut)))
    with refused(ALTERED):  # sent back to its sender
        both.client.VerifySignature(message)
    both.service.VerifySignature(message)


@pytest.mark.parametrize("qop", [0, NO_ENCRYPT])
def test_every_altered_byte_of_a_message_is_noticed_and_gives_nothing(qop: int) -> None:
    both = pair()
    message = desc(WIDE, (DATA, b"hello, service"))
    both.client.EncryptMessage(qop, message)
    token, data = message[0].Buffer, message[1].Buffer
    for at in range(len(token) + len(data)):
        altered = bytearray(token + data)
        altered[at] ^= 1
        if qop == 0 and at in (6, 7):
            continue  # RRC turns the body only; where it is wrong, another test says what happens
        stream = desc((STREAM, bytes(altered)), (DATA, 0))
        with refused(ALTERED, "DecryptMessage"):
            both.service.DecryptMessage(stream)
        assert stream[1].Buffer == b""
        split = desc((TOKEN, bytes(altered[: len(token)])), (DATA, bytes(altered[len(token) :])))
        with refused(ALTERED):
            both.service.DecryptMessage(split)
        assert split[1].Buffer == bytes(altered[len(token) :])
    with refused(ALTERED):
        both.client.DecryptMessage(desc((STREAM, token + data), (DATA, 0)))
    assert both.service.DecryptMessage(message) == qop


@pytest.mark.parametrize("qop", [0, NO_ENCRYPT])
@pytest.mark.parametrize("etype", [18, 20, 23])
def test_a_stream_that_has_only_begun_is_told_and_changes_nothing(etype: int, qop: int) -> None:
    both = pair(etype)
    sizes = both.client.QueryContextAttributes(sspi.SECPKG_ATTR_SIZES)
    message = desc(
        (TOKEN, sizes["SecurityTrailer"]), (DATA, bytes(100)), (PADDING, sizes["BlockSize"])
    )
    both.client.EncryptMessage(qop, message)
    whole = message[0].Buffer + message[1].Buffer + message[2].Buffer
    least = 46 if etype == 23 else len(message[0].Buffer)  # what an empty message has
    for size in range(len(whole)):
        stream = desc((STREAM, whole[:size]), (DATA, 0))
        with refused(INCOMPLETE if size < least else ALTERED, "DecryptMessage"):
            both.service.DecryptMessage(stream)
        assert stream[1].Buffer == b""
    for noise in (b"GET / HTTP/1.1", b"\x05\x05", b"\x04\x04" + bytes(20)):
        with refused(ALTERED):
            both.service.DecryptMessage(desc((STREAM, noise), (DATA, 0)))
    stream = desc((STREAM, whole), (DATA, 0))
    assert both.service.DecryptMessage(stream) == qop
    assert stream[1].Buffer == bytes(100)


def test_chk38_who_demands_secrecy_sees_that_a_message_was_only_signed(both: Pair) -> None:
    message = desc(WIDE, BODY)
    both.client.EncryptMessage(NO_ENCRYPT, message)
    assert both.service.DecryptMessage(message) == 0x80000001
    message = desc(WIDE, BODY)
    both.client.EncryptMessage(0, message)
    assert both.service.DecryptMessage(message) == 0


def test_the_two_families_of_messages_do_not_stand_for_each_other(both: Pair) -> None:
    signed, wrapped = desc(BODY, WIDE), desc(BODY, WIDE)
    both.client.MakeSignature(0, signed)
    both.client.EncryptMessage(NO_ENCRYPT, wrapped)
    with refused(ALTERED):
        both.service.DecryptMessage(signed)
    with refused(ALTERED):
        both.service.VerifySignature(wrapped)
    both.service.VerifySignature(signed)
    both.service.DecryptMessage(wrapped)


def test_repeated_and_reordered_messages_are_out_of_sequence() -> None:
    both = pair()
    first, second, third = (desc(BODY, WIDE) for _ in range(3))
    for message in (first, second, third):
        both.client.MakeSignature(0, message)
    both.service.VerifySignature(first)
    for message, supplementary in ((first, 2), (third, 16), (second, 8)):
        with refused(sspi.SEC_E_OUT_OF_SEQUENCE, "VerifySignature") as caught:
            both.service.VerifySignature(message)
        assert caught.value.gss_major == supplementary
    sealed = desc(BODY, WIDE)
    both.client.EncryptMessage(0, sealed)
    stream = sealed[1].Buffer + sealed[0].Buffer
    assert both.service.DecryptMessage(desc((STREAM, stream), (DATA, 0))) == 0
    again = desc((STREAM, stream), (DATA, 0))
    with refused(sspi.SEC_E_OUT_OF_SEQUENCE, "DecryptMessage"):
        both.service.DecryptMessage(again)
    assert again[1].Buffer == b""


def test_what_was_not_asked_for_is_not_there() -> None:
    integrity, nothing = pair(isc=sspi.ISC_REQ_INTEGRITY), pair(isc=sspi.ISC_REQ_MUTUAL_AUTH)
    full = pair()
    message = desc(BODY, WIDE)
    full.client.EncryptMessage(0, message)
    for both, allowed in ((integrity, True), (nothing, False)):
        with refused(QOP, "EncryptMessage"):
            both.client.EncryptMessage(0, desc(BODY, WIDE))
        calls: list[Callable[[], Any]] = [
            lambda both=both: both.client.MakeSignature(0, desc(BODY, WIDE)),
            lambda both=both: both.client.EncryptMessage(NO_ENCRYPT, desc(BODY, WIDE)),
        ]
        for call in calls:
            if allowed:
                call()
            else:
                with refused(QOP):
                    call()
    with refused(QOP, "VerifySignature"):
        nothing.service.VerifySignature(message)
    with refused(QOP, "DecryptMessage"):
        nothing.service.DecryptMessage(message)
    assert full.service.DecryptMessage(message) == 0


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
@pytest.mark.parametrize("qop", [0, NO_ENCRYPT])
def test_an_altered_header_that_was_only_signed_is_noticed(etype: int, qop: int) -> None:
    both = pair(etype)
    header = (DATA | CHECKSUM, b"header")
    message = desc((TOKEN, 80), header, BODY)
    both.client.EncryptMessage(qop, message)
    token, body = message[0].Buffer, message[2].Buffer
    for given in (
        [(TOKEN, token), (DATA | CHECKSUM, b"Header"), (DATA, body)],
        [(TOKEN, token), (DATA, body), header],  # in another place
        [(TOKEN, token), (DATA, body)],
        [(TOKEN, token), header, header, (DATA, body)],
        [(STREAM, token + body), (DATA | CHECKSUM, b"Header"), (DATA, 0)],
        [(STREAM, token + body), (DATA, 0)],
    ):
        altered = desc(*given)
        before = [buffer.Buffer for buffer in altered]
        with refused(ALTERED, "DecryptMessage"):
            both.service.DecryptMessage(altered)
        assert [buffer.Buffer for buffer in altered] == before
    with refused(INVALID_TOKEN):
        both.service.DecryptMessage(desc((STREAM, token + body), header))
    assert both.service.DecryptMessage(message) == qop
    assert [buffer.Buffer for buffer in message][1:] == [b"header", b"body"]


def test_rc4_has_no_data_that_are_only_signed() -> None:
    both = pair(23)
    with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION, "EncryptMessage"):
        both.client.EncryptMessage(
            0, desc((TOKEN, 100), BODY, (DATA | CHECKSUM, b"header"), (PADDING, 1))
        )
    message = desc((TOKEN, 100), BODY, (PADDING, 1))
    both.client.EncryptMessage(0, message)
    assert both.service.DecryptMessage(message) == 0


# --- order of calls


def every_call(handle: Any) -> dict[str, Callable[[], Any]]:
    """Return every function that takes a context, called with `handle`."""
    message = desc(WIDE, BODY)
    return {
        "MakeSignature": lambda: sspi.MakeSignature(handle, 0, message, 0),
        "VerifySignature": lambda: sspi.VerifySignature(handle, message, 0),
        "EncryptMessage": lambda: sspi.EncryptMessage(handle, 0, message, 0),
        "DecryptMessage": lambda: sspi.DecryptMessage(handle, message, 0),
        "ImpersonateSecurityContext": lambda: sspi.ImpersonateSecurityContext(handle),
        "QuerySecurityContextToken": lambda: sspi.QuerySecurityContextToken(handle),
        **{
            f"QueryContextAttributes {number}": lambda number=number: sspi.QueryContextAttributes(
                handle, number
            )
            for number in (*range(31), 0x53)
        },
    }


@pytest.mark.parametrize("name", list(every_call(None)))
def test_chk41_before_its_context_and_after_it_no_function_takes_a_handle(name: str) -> None:
    ours = credentials()
    waiting, _, token = first_leg(ours.client)
    deleted, failed = pair().client, sspi.CtxtHandle()
    deleted.DeleteSecurityContext()
    with refused(INVALID_TOKEN):
        sspi.AcceptSecurityContext(
            ours.service, None, desc((TOKEN, b"noise")), ASC, 0, failed, room()
        )
    for handle in (None, sspi.CtxtHandle(), waiting, deleted, failed):
        with refused(sspi.SEC_E_INVALID_HANDLE, name.split()[0]) as caught:
            every_call(handle)[name]()
        assert caught.value.gss_major == 8 << 16
    # Those that were waiting go on.
    service, reply = sspi.CtxtHandle(), room()
    sspi.AcceptSecurityContext(ours.service, None, desc((TOKEN, token)), ASC, 0, service, reply)
    assert (
        sspi.InitializeSecurityContext(
            ours.client, waiting, TARGET, ISC, 0, reply, waiting, room()
        )[0]
        == 0
    )


def test_a_context_is_deleted_once() -> None:
    client, never = pair().client, sspi.CtxtHandle()
    key = client._context.session_key  # type: ignore[union-attr]
    sspi.DeleteSecurityContext(client)
    with pytest.raises(errors.CredentialError):  # CHK-42: the key is wiped
        _ = key.contents
    for handle in (client, never, None):
        with refused(sspi.SEC_E_INVALID_HANDLE, "DeleteSecurityContext"):
            sspi.DeleteSecurityContext(handle)  # type: ignore[arg-type]


def test_a_handshake_that_failed_is_deleted_like_any_other() -> None:
    ours = credentials()
    for legs in (
        lambda handle: sspi.InitializeSecurityContext(
            ours.client, None, "HTTP/10.0.0.1", ISC, 0, None, handle, room()
        ),
        lambda handle: sspi.AcceptSecurityContext(
            ours.service, None, desc((TOKEN, b"?")), 0, 0, handle, room()
        ),
    ):
        handle = sspi.CtxtHandle()
        with pytest.raises(sspi.error):
            legs(handle)
        handle.DeleteSecurityContext()
        with refused(sspi.SEC_E_INVALID_HANDLE):
            handle.DeleteSecurityContext()


def test_completing_a_token_does_nothing_but_needs_a_context() -> None:
    client, _, token = first_leg(credentials().client)
    message = desc((TOKEN, token))
    assert sspi.CompleteAuthToken(client, message) is None
    assert message[0].Buffer == token
    for handle in (None, sspi.CtxtHandle()):
        with refused(sspi.SEC_E_INVALID_HANDLE, "CompleteAuthToken"):
            sspi.CompleteAuthToken(handle, message)  # type: ignore[arg-type]


def test_legs_out_of_order_are_refused_and_the_handshake_goes_on() -> None:
    ours = credentials()
    client, _, token = first_leg(ours.client)
    service, reply, spare = sspi.CtxtHandle(), room(), sspi.CtxtHandle()
    initialize, accept = sspi.InitializeSecurityContext, sspi.AcceptSecurityContext
    given = desc((TOKEN, token))
    for status, call in (
        # The first leg of a client has no token, and needs a handle and a target.
        (
            INVALID_TOKEN,
            lambda: initialize(ours.client, None, TARGET, ISC, 0, given, spare, room()),
        ),
        (
            sspi.SEC_E_INVALID_HANDLE,
            lambda: initialize(ours.client, None, TARGET, ISC, 0, None, None, room()),
        ),
        (
            sspi.SEC_E_INVALID_HANDLE,
            lambda: initialize(ours.client, None, TARGET, ISC, 0, None, client, room()),
        ),
        (
            sspi.SEC_E_TARGET_UNKNOWN,
            lambda: initialize(ours.client, None, None, ISC, 0, None, spare, room()),
        ),
        (
            sspi.SEC_E_TARGET_UNKNOWN,
            lambda: initialize(ours.client, None, "", ISC, 0, None, spare, room()),
        ),
        # Later ones need their own handle.
        (
            INVALID_TOKEN,
            lambda: initialize(
                ours.client, client, TARGET, ISC, 0, desc(WIDE, WIDE), client, room()
            ),
        ),
        (
            sspi.SEC_E_INVALID_HANDLE,
            lambda: initialize(ours.client, client, TARGET, ISC, 0, given, spare, room()),
        ),
        (
            sspi.SEC_E_INVALID_HANDLE,
            lambda: initialize(ours.client, spare, TARGET, ISC, 0, given, spare, room()),
        ),
        # A client's handle is not a service's.
        (
            sspi.SEC_E_INVALID_HANDLE,
            lambda: accept(ours.service, client, given, ASC, 0, client, room()),
        ),
        (INVALID_TOKEN, lambda: accept(ours.service, None, None, ASC, 0, spare, room())),
        (
            INVALID_TOKEN,
            lambda: accept(ours.service, None, desc((TOKEN, b"")), ASC, 0, spare, room()),
        ),
        (
            sspi.SEC_E_INVALID_HANDLE,
            lambda: accept(ours.service, None, given, ASC, 0, None, room()),
        ),
        # Nor are its credentials.
        (
            sspi.SEC_E_NO_CREDENTIALS,
            lambda: accept(ours.client, None, given, ASC, 0, spare, room()),
        ),
        (
            sspi.SEC_E_NO_CREDENTIALS,
            lambda: initialize(ours.service, None, TARGET, ISC, 0, None, spare, room()),
        ),
    ):
        with refused(status):
            call()
    assert accept(ours.service, None, given, ASC, 0, service, reply)[0] == sspi.SEC_E_OK
    assert (
        initialize(ours.client, client, TARGET, ISC, 0, reply, client, room())[0] == sspi.SEC_E_OK
    )
    for call in (  # and none after the last
        lambda: initialize(ours.client, client, TARGET, ISC, 0, reply, client, room()),
        lambda: accept(ours.service, service, given, ASC, 0, service, room()),
    ):
        with refused(sspi.SEC_E_INVALID_HANDLE):
            call()
    message = desc(BODY, WIDE)
    client.MakeSignature(0, message)
    service.VerifySignature(message)


def test_a_token_presented_twice_opens_no_second_context() -> None:
    ours = credentials()
    _, _, token = first_leg(ours.client)
    handles = sspi.CtxtHandle(), sspi.CtxtHandle()
    sspi.AcceptSecurityContext(ours.service, None, desc((TOKEN, token)), ASC, 0, handles[0], room())
    with refused(sspi.SEC_E_LOGON_DENIED, "AcceptSecurityContext") as caught:
        sspi.AcceptSecurityContext(
            ours.service, None, desc((TOKEN, token)), ASC, 0, handles[1], room()
        )
    assert caught.value.krb_code == ErrorCode.KRB_AP_ERR_REPEAT


def test_a_token_of_any_size_is_refused_without_being_read() -> None:
    ours = credentials()
    with refused(INVALID_TOKEN):
        sspi.AcceptSecurityContext(
            ours.service,
            None,
            desc((TOKEN, bytes(MAX_TOKEN + 1))),
            ASC,
            0,
            sspi.CtxtHandle(),
            room(),
        )


def test_a_service_that_does_not_prove_itself_has_no_context() -> None:
    ours = credentials()
    client, _, _ = first_leg(ours.client)
    _, _, others = first_leg(ours.client)
    service, reply = sspi.CtxtHandle(), room()
    sspi.AcceptSecurityContext(ours.service, None, desc((TOKEN, others)), ASC, 0, service, reply)
    with refused(sspi.SEC_E_SECURITY_QOS_FAILED, "InitializeSecurityContext"):
        sspi.InitializeSecurityContext(ours.client, client, TARGET, ISC, 0, reply, client, room())
    with refused(sspi.SEC_E_INVALID_HANDLE):
        client.MakeSignature(0, desc(BODY, WIDE))


@pytest.mark.parametrize("answer", [None, desc((TOKEN, b""))], ids=["no buffer", "an empty one"])
def test_a_service_that_answers_without_a_token_has_not_proved_itself(answer: Any) -> None:
    ours = credentials()
    client, _, _ = first_leg(ours.client)
    with refused(sspi.SEC_E_SECURITY_QOS_FAILED, "InitializeSecurityContext"):
        sspi.InitializeSecurityContext(ours.client, client, TARGET, ISC, 0, answer, client, room())
    with refused(sspi.SEC_E_INVALID_HANDLE):
        client.MakeSignature(0, desc(BODY, WIDE))


def test_impersonation_out_of_order_is_refused() -> None:
    both, other = pair(), pair()
    with refused(sspi.SEC_E_NO_IMPERSONATION, "ImpersonateSecurityContext"):
        both.client.ImpersonateSecurityContext()
    for handle in (both.service, both.client, sspi.CtxtHandle(), None):
        with refused(sspi.SEC_E_NO_IMPERSONATION, "RevertSecurityContext"):
            sspi.RevertSecurityContext(handle)  # type: ignore[arg-type]
    with both.service.impersonate():
        with refused(sspi.SEC_E_NO_IMPERSONATION):
            other.service.RevertSecurityContext()
        both.service.RevertSecurityContext()
        with refused(sspi.SEC_E_NO_IMPERSONATION):
            both.service.RevertSecurityContext()


# --- statuses


C, S, M = Phase.CLIENT, Phase.SERVICE, Phase.MESSAGE
KDC, AP = (
    (lambda code: errors.KdcError("", code=code)),
    (lambda code: errors.ApError("", code=code)),
)
STATUSES = [
    (KDC(6), C, "LOGON_DENIED"),
    (KDC(18), C, "LOGON_DENIED"),
    (errors.PreauthFailedError("", code=24), C, "LOGON_DENIED"),
    (errors.PasswordExpiredError("", code=23), C, "LOGON_DENIED"),
    (KDC(12), C, "LOGON_DENIED"),
    (KDC(7), C, "TARGET_UNKNOWN"),
    (KDC(8), C, "TARGET_UNKNOWN"),
    (KDC(14), C, "KDC_UNKNOWN_ETYPE"),
    (KDC(37), C, "TIME_SKEW"),
    (errors.TransportError(""), C, "NO_AUTHENTICATING_AUTHORITY"),
    (errors.TransportTimeoutError(""), C, "NO_AUTHENTICATING_AUTHORITY"),
    (errors.ConfigError(""), C, "NO_AUTHENTICATING_AUTHORITY"),
    (errors.CredentialError(""), C, "NO_CREDENTIALS"),
    (errors.SpnError(""), C, "TARGET_UNKNOWN"),
    (AP(37), C, "TIME_SKEW"),
    (AP(37), S, "TIME_SKEW"),
    (AP(32), C, "CONTEXT_EXPIRED"),
    (AP(32), S, "CONTEXT_EXPIRED"),
    (AP(33), S, "TIME_SKEW"),
    (AP(41), C, "WRONG_PRINCIPAL"),
    (AP(31), C, "WRONG_PRINCIPAL"),
    (AP(41), S, "INVALID_TOKEN"),
    (AP(31), S, "INVALID_TOKEN"),
    (AP(44), C, "WRONG_PRINCIPAL"),
    (AP(44), S, "INVALID_TOKEN"),
    (AP(45), C, "WRONG_PRINCIPAL"),
    (AP(45), S, "NO_KERB_KEY"),
    (AP(35), C, "WRONG_PRINCIPAL"),
    (AP(35), S, "WRONG_PRINCIPAL"),
    (AP(46), C, "SECURITY_QOS_FAILED"),
    (AP(46), S, "SECURITY_QOS_FAILED"),
    (errors.ReplayError("", code=34), S, "LOGON_DENIED"),
    (errors.ChannelBindingsError("", code=41), S, "BAD_BINDINGS"),
    (errors.PacError(""), S, "LOGON_DENIED"),
    (errors.MutualAuthenticationError(""), C, "SECURITY_QOS_FAILED"),
    (errors.IntegrityError(), C, "WRONG_PRINCIPAL"),
    (errors.IntegrityError(), S, "INVALID_TOKEN"),
    (errors.IntegrityError(), M, "MESSAGE_ALTERED"),
    (errors.SequenceError("", reason="gap"), M, "OUT_OF_SEQUENCE"),
    (errors.ContextExpiredError(""), M, "CONTEXT_EXPIRED"),
    (errors.ContextError(""), M, "INVALID_HANDLE"),
    (errors.DecodeError(""), C, "INVALID_TOKEN"),
    (errors.DecodeError(""), M, "MESSAGE_ALTERED"),
    (errors.ProtocolError(""), S, "INVALID_TOKEN"),
    (errors.ProtocolError(""), M, "MESSAGE_ALTERED"),
    (errors.PolicyError(""), C, "CRYPTO_SYSTEM_INVALID"),
    (errors.PolicyError(""), M, "QOP_NOT_SUPPORTED"),
    (errors.UnsupportedError(""), C, "UNSUPPORTED_FUNCTION"),
    (errors.KerberosError(""), C, "INTERNAL_ERROR"),
]


@pytest.mark.parametrize(
    ("error", "phase", "name"),
    STATUSES,
    ids=[f"{type(e).__name__}{getattr(e, 'code', '')}-{p.name}" for e, p, _ in STATUSES],
)
def test_each_error_has_its_status(error: errors.KerberosError, phase: Phase, name: str) -> None:
    assert _status(error, phase) == getattr(sspi, f"SEC_E_{name}")


@pytest.mark.parametrize("name", errors.__all__)
def test_no_error_is_without_a_status(name: str) -> None:
    error = getattr(errors, name).__new__(getattr(errors, name))
    error.code = 0
    for phase in Phase:
        assert _status(error, phase) < 0
