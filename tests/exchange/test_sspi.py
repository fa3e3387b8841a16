"""purekrb.sspi: its numbers, handles, contexts, attributes and buffers, between two handles in one process."""

from __future__ import annotations

import inspect
import os
import struct
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import Acceptor, Credential, KdcClient, Keytab, Principal, crypto, sspi
from purekrb.constants import NTLM_OID, NegState
from purekrb.gss.tokens import MicToken, WrapToken
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm
from support.pac import USER_SID, assemble, buffers, element, now, sign
from support.spnego import NTLM_TOKEN, PreferringNtlm, init, read
from support.sspi import (
    ASC,
    DATA,
    ISC,
    PADDING,
    STREAM,
    TARGET,
    TOKEN,
    Credentials,
    credentials,
    desc,
    first_leg,
    pair,
    refused,
    room,
)
from support.tickets import ALICE, issue

AES = (17, 18, 19, 20)
#: Signature, TOKEN of a sealed message, TOKEN of a signed one.
SIZES = {17: (28, 60, 28), 18: (28, 60, 28), 19: (32, 64, 32), 20: (40, 72, 40)}


# --- numbers


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "SEC_E_OK": 0,
        "SEC_I_CONTINUE_NEEDED": 0x90312,
        "SEC_I_COMPLETE_NEEDED": 0x90313,
        "SEC_I_COMPLETE_AND_CONTINUE": 0x90314,
        "SEC_E_INVALID_HANDLE": 0x80090301,
        "SEC_E_UNSUPPORTED_FUNCTION": 0x80090302,
        "SEC_E_TARGET_UNKNOWN": 0x80090303,
        "SEC_E_INVALID_TOKEN": 0x80090308,
        "SEC_E_NO_CREDENTIALS": 0x8009030E,
        "SEC_E_MESSAGE_ALTERED": 0x8009030F,
        "SEC_E_OUT_OF_SEQUENCE": 0x80090310,
        "SEC_E_NO_AUTHENTICATING_AUTHORITY": 0x80090311,
        "SEC_E_CONTEXT_EXPIRED": 0x80090317,
        "SEC_E_BUFFER_TOO_SMALL": 0x80090321,
        "SEC_E_WRONG_PRINCIPAL": 0x80090322,
        "SEC_E_TIME_SKEW": 0x80090324,
        "SEC_E_BAD_BINDINGS": 0x80090346,
        "SEC_I_CONTEXT_EXPIRED": 0x90317,
        "SECQOP_WRAP_NO_ENCRYPT": 0x80000001,
        "SECBUFFER_READONLY": 0x80000000,
        "SECBUFFER_READONLY_WITH_CHECKSUM": 0x10000000,
    }.items(),
)
def test_numbers_are_those_of_windows(name: str, value: int) -> None:
    assert getattr(sspi, name) & 0xFFFFFFFF == value
    assert (getattr(sspi, name) < 0) is (
        name.startswith("SEC_E_") and value > 0
    )  # as SECURITY_STATUS in C


def test_isc_and_asc_flags_of_one_name_may_differ() -> None:
    for name, isc, asc in (
        ("EXTENDED_ERROR", 0x4000, 0x8000),
        ("STREAM", 0x8000, 0x10000),
        ("INTEGRITY", 0x10000, 0x20000),
        ("IDENTIFY", 0x20000, 0x80000),
        ("FRAGMENT_TO_FIT", 0x200000, 0x800000),
        ("DELEGATE", 1, 1),
        ("MUTUAL_AUTH", 2, 2),
        ("CONFIDENTIALITY", 0x10, 0x10),
        ("ALLOCATE_MEMORY", 0x100, 0x100),
    ):
        assert (getattr(sspi, f"ISC_REQ_{name}"), getattr(sspi, f"ASC_REQ_{name}")) == (isc, asc)


def test_names_of_win32security_stand_for_the_same_classes() -> None:
    assert sspi.error is purekrb.SspiError
    assert sspi.PyCtxtHandleType is sspi.CtxtHandle
    assert sspi.PyCredHandleType is sspi.CredHandle
    assert sspi.PySecBufferType(3, 1).Buffer == bytes(3)
    assert len(sspi.PySecBufferDescType()) == 0


# --- packages and credentials


@pytest.mark.parametrize(
    ("asked", "name", "rpc"),
    [("Kerberos", "Kerberos", 16), ("kerberos", "Kerberos", 16), ("NEGOTIATE", "Negotiate", 9)],
)
def test_a_package_tells_what_it_is(asked: str, name: str, rpc: int) -> None:
    info = sspi.QuerySecurityPackageInfo(asked)
    assert (info["Name"], info["MaxToken"], info["RPCID"], info["Version"]) == (
        name,
        48_000,
        rpc,
        1,
    )
    assert info["Capabilities"] & sspi.SECPKG_FLAG_MUTUAL_AUTH
    info["Name"] = "changed"
    assert sspi.QuerySecurityPackageInfo(asked)["Name"] == name


@pytest.mark.parametrize("name", ["NTLM", "Schannel", "CredSSP", ""])
def test_a_package_that_is_not_there_is_told(name: str) -> None:
    for call in (
        lambda: sspi.QuerySecurityPackageInfo(name),
        lambda: sspi.AcquireCredentialsHandle(None, name, sspi.SECPKG_CRED_OUTBOUND),
        lambda: sspi.ClientAuth(name),
        lambda: sspi.ServerAuth(name),
    ):
        with refused(sspi.SEC_E_SECPKG_NOT_FOUND):
            call()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A realm with alice and a service, and an environment that names files which are not there yet."""
    for variable, name in (
        ("KRB5CCNAME", "ccache"),
        ("KRB5_KTNAME", "keytab"),
        ("KRB5_CONFIG", "krb5.conf"),
    ):
        monkeypatch.setenv(variable, str(tmp_path / name))
    with Realm() as realm:
        realm.write_krb5_conf(tmp_path / "krb5.conf")
        realm.add_user("alice", "pw")
        realm.add_service(TARGET)
        yield realm
    sspi.set_default_credential()


def acquire(use: int, principal: str | None = None, auth_data: Any = None) -> sspi.CredHandle:
    handle, expiry = sspi.AcquireCredentialsHandle(principal, "Kerberos", use, None, auth_data)
    assert expiry.tzinfo is timezone.utc
    return handle


def name_of(handle: sspi.CredHandle) -> str:
    return handle.QueryCredentialsAttributes(sspi.SECPKG_CRED_ATTR_NAMES)


def accepts(client: sspi.CredHandle, service: sspi.CredHandle) -> str:
    """Return whom `service` takes the client for."""
    _, _, token = first_leg(client)
    handle = sspi.CtxtHandle()
    sspi.AcceptSecurityContext(service, None, desc((TOKEN, token)), ASC, 0, handle, room())
    name = handle.QueryContextAttributes(sspi.SECPKG_ATTR_NAMES)
    assert isinstance(name, str)
    return name


def test_the_environment_names_the_default_credentials(lab: Realm, tmp_path: Path) -> None:
    for use in (sspi.SECPKG_CRED_OUTBOUND, sspi.SECPKG_CRED_INBOUND, sspi.SECPKG_CRED_BOTH):
        with refused(sspi.SEC_E_NO_CREDENTIALS, "AcquireCredentialsHandle"):
            acquire(use)
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    tgt = KdcClient().get_tgt(alice)
    alice.save(tmp_path / "ccache")
    handle, expiry = sspi.AcquireCredentialsHandle(None, "Kerberos", sspi.SECPKG_CRED_OUTBOUND)
    assert (name_of(handle), expiry) == ("alice@EXAMPLE.TEST", tgt.endtime)
    with refused(sspi.SEC_E_NO_CREDENTIALS):
        acquire(sspi.SECPKG_CRED_INBOUND)
    lab.keytab(TARGET).save(tmp_path / "keytab")
    assert name_of(acquire(sspi.SECPKG_CRED_INBOUND)) == f"{TARGET}@EXAMPLE.TEST"
    assert accepts(handle, acquire(sspi.SECPKG_CRED_INBOUND)) == "alice@EXAMPLE.TEST"


def test_both_takes_what_there_is(lab: Realm, tmp_path: Path) -> None:
    lab.keytab(TARGET).save(tmp_path / "keytab")
    service = acquire(sspi.SECPKG_CRED_BOTH)
    with refused(sspi.SEC_E_NO_CREDENTIALS, "InitializeSecurityContext"):
        first_leg(service)
    sspi.set_default_credential(lab.add_user("alice", "pw"))
    both = acquire(sspi.SECPKG_CRED_BOTH)
    assert accepts(both, both) == "alice@EXAMPLE.TEST"


@pytest.mark.parametrize(
    "logon",
    [
        ("alice", "EXAMPLE.TEST", "pw"),
        ("alice", "example.test", "pw"),
        ("alice", "EXAMPLE", "pw"),
        ("alice", "", "pw"),
        ("alice", None, "pw"),
        ("alice@example.test", None, "pw"),
        ("EXAMPLE\\alice", None, "pw"),
        ("example.test\\alice", "", "pw"),
        ["alice", "example.test", "pw"],
    ],
    ids=[
        "realm",
        "DNS domain",
        "NetBIOS domain",
        "default realm",
        "none",
        "UPN",
        "down-level",
        "down-level by DNS",
        "list",
    ],
)
def test_a_user_logs_on_with_a_password(lab: Realm, logon: Any) -> None:
    client = acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=logon)
    assert name_of(client) == "alice@EXAMPLE.TEST"
    assert (
        accepts(client, acquire(sspi.SECPKG_CRED_INBOUND, auth_data=lab.keytab(TARGET)))
        == "alice@EXAMPLE.TEST"
    )


@pytest.mark.parametrize(
    "logon",
    [
        ("", "EXAMPLE.TEST", "pw"),
        ("alice", "pw"),
        ("@example.test", None, "pw"),
        ("alice", "EXAMPLE.TEST", None),
    ],
)
def test_authentication_data_without_a_user_are_refused(lab: Realm, logon: Any) -> None:
    with refused(sspi.SEC_E_UNKNOWN_CREDENTIALS, "AcquireCredentialsHandle") as caught:
        acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=logon)
    assert "pw" not in str(caught.value)


def test_credentials_of_the_other_side_are_refused(lab: Realm) -> None:
    sspi.set_default_credential(
        lab.add_user("alice", "pw"), keytab=lab.keytab(TARGET)
    )  # not taken in their place
    for use, unfit in (
        (sspi.SECPKG_CRED_INBOUND, lab.add_user("bob", "pw")),
        (sspi.SECPKG_CRED_OUTBOUND, Keytab()),
    ):
        with refused(sspi.SEC_E_UNKNOWN_CREDENTIALS):
            acquire(use, auth_data=unfit)
        assert acquire(use)


def test_a_name_is_told_as_an_spn_not_as_a_quoted_principal() -> None:
    name = Principal(
        ("OrderSvc", "web.example.test", "CN=Orders\\, EU,DC=example,DC=test"), "EXAMPLE.TEST"
    )
    ours = credentials(service=name)
    spn = "/".join(name.components)
    assert (
        ours.service.QueryCredentialsAttributes(sspi.SECPKG_CRED_ATTR_NAMES)
        == f"{spn}@EXAMPLE.TEST"
    )
    _, _, token = first_leg(ours.client, target=spn)
    service = sspi.CtxtHandle()
    sspi.AcceptSecurityContext(ours.service, None, desc((TOKEN, token)), ASC, 0, service, room())
    for attribute in (
        sspi.SECPKG_ATTR_TARGET_INFORMATION,
        sspi.SECPKG_ATTR_CLIENT_SPECIFIED_TARGET,
    ):
        assert service.QueryContextAttributes(attribute) == spn


def test_a_service_account_accepts_with_its_password(lab: Realm) -> None:
    account = lab.add_user("websvc", "service password")
    lab.add_alias("HTTP/alias.example.test", "websvc")
    client = acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=lab.add_user("alice", "pw"))
    for principal in (None, "HTTP/alias.example.test"):
        logon = ("websvc", "EXAMPLE.TEST", "service password")
        service = acquire(sspi.SECPKG_CRED_INBOUND, principal, logon)
        _, _, token = first_leg(client, target="HTTP/alias.example.test")
        handle = sspi.CtxtHandle()
        sspi.AcceptSecurityContext(service, None, desc((TOKEN, token)), ASC, 0, handle, room())
        assert handle.QueryContextAttributes(sspi.SECPKG_ATTR_NAMES) == "alice@EXAMPLE.TEST"
    assert account.principal.realm == "EXAMPLE.TEST"


def test_a_client_may_be_named_and_its_keys_be_in_the_keytab(lab: Realm, tmp_path: Path) -> None:
    sspi.set_default_credential(lab.add_user("bob", "pw"), config=lab.config)
    assert name_of(acquire(sspi.SECPKG_CRED_OUTBOUND, "bob")) == "bob@EXAMPLE.TEST"
    assert name_of(acquire(sspi.SECPKG_CRED_OUTBOUND, "bob@EXAMPLE.TEST")) == "bob@EXAMPLE.TEST"
    with refused(sspi.SEC_E_NO_CREDENTIALS):
        acquire(sspi.SECPKG_CRED_OUTBOUND, "alice")
    lab.keytab("alice").save(tmp_path / "keytab")
    alice = acquire(sspi.SECPKG_CRED_OUTBOUND, "alice")
    assert (
        accepts(alice, acquire(sspi.SECPKG_CRED_INBOUND, auth_data=lab.keytab(TARGET)))
        == "alice@EXAMPLE.TEST"
    )


def test_a_service_may_limit_itself_to_one_name_of_its_keytab(lab: Realm) -> None:
    keytab = lab.keytab(TARGET).merge(lab.add_service("host/web.example.test"))
    client = acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=("alice", "EXAMPLE.TEST", "pw"))
    for principal in (None, TARGET, f"{TARGET}@EXAMPLE.TEST"):
        assert (
            accepts(client, acquire(sspi.SECPKG_CRED_INBOUND, principal, keytab))
            == "alice@EXAMPLE.TEST"
        )
    with refused(sspi.SEC_E_WRONG_PRINCIPAL, "AcceptSecurityContext"):
        accepts(client, acquire(sspi.SECPKG_CRED_INBOUND, "host/web.example.test", keytab))
    for other in ("host/other.example.test", f"{TARGET}@OTHER.TEST", "websvc"):
        with refused(sspi.SEC_E_NO_CREDENTIALS):
            acquire(sspi.SECPKG_CRED_INBOUND, other, keytab)


def test_uses_and_logon_sessions_that_do_not_exist_are_refused(lab: Realm) -> None:
    keytab = lab.keytab(TARGET)
    for use in (0, 4, 7):
        with refused(sspi.SEC_E_UNKNOWN_CREDENTIALS):
            acquire(use, auth_data=keytab)
    with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION):
        sspi.AcquireCredentialsHandle(None, "Kerberos", sspi.SECPKG_CRED_INBOUND, 999, keytab)  # type: ignore[arg-type]
    with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION, "QueryCredentialsAttributes"):
        acquire(sspi.SECPKG_CRED_INBOUND, auth_data=keytab).QueryCredentialsAttributes(2)


def test_credentials_are_freed_once_and_a_password_with_them(lab: Realm) -> None:
    client = acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=("alice", "EXAMPLE.TEST", "pw"))
    handle, _, token = first_leg(client)
    credential = client._credential
    client.FreeCredentialsHandle()
    assert credential is not None and not credential.can_get_tgt  # noqa: PT018
    for call in (
        client.FreeCredentialsHandle,
        lambda: name_of(client),
        lambda: first_leg(client),
        lambda: sspi.FreeCredentialsHandle(sspi.CredHandle()),
        lambda: sspi.FreeCredentialsHandle(None),  # type: ignore[arg-type]
        lambda: sspi.InitializeSecurityContext(
            None, None, TARGET, ISC, 0, None, sspi.CtxtHandle(), room()
        ),  # type: ignore[arg-type]
    ):
        with refused(sspi.SEC_E_INVALID_HANDLE):
            call()
    # A context goes on without them.
    service, reply = sspi.CtxtHandle(), room()
    inbound = acquire(sspi.SECPKG_CRED_INBOUND, auth_data=lab.keytab(TARGET))
    sspi.AcceptSecurityContext(inbound, None, desc((TOKEN, token)), ASC, 0, service, reply)
    inbound.FreeCredentialsHandle()
    status, _, _ = sspi.InitializeSecurityContext(
        client, handle, TARGET, ISC, 0, reply, handle, room()
    )
    assert status == sspi.SEC_E_OK
    assert service.QueryContextAttributes(sspi.SECPKG_ATTR_NAMES) == "alice@EXAMPLE.TEST"


def test_a_given_credential_is_not_wiped_with_its_handle(lab: Realm) -> None:
    alice = lab.add_user("alice", "pw")
    acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=alice).FreeCredentialsHandle()
    assert alice.can_get_tgt


def test_no_handle_tells_a_secret(lab: Realm) -> None:
    client = acquire(sspi.SECPKG_CRED_BOTH, auth_data=("alice", "EXAMPLE.TEST", "correct horse"))
    assert "horse" not in repr(client)
    assert repr(client) == "<CredHandle Kerberos: alice@EXAMPLE.TEST, 2 keys>"
    both = pair()
    assert (
        repr(both.client)
        == f"<CtxtHandle <Initiator established, {ALICE} -> {TARGET}@EXAMPLE.TEST>>"
    )
    buffer = sspi.SecBuffer(6, DATA)
    buffer.Buffer = b"secret"
    assert "secret" not in repr(sspi.SecBufferDesc(0, [buffer]))


# --- contexts


def test_the_legs_of_a_handshake_return_what_windows_does() -> None:
    ours = credentials()
    client, (status, flags, expiry), token = first_leg(ours.client)
    assert (status, flags, expiry) == (sspi.SEC_I_CONTINUE_NEEDED, 0, None)  # nothing to trust yet
    service, reply = sspi.CtxtHandle(), room()
    status, flags, expiry = sspi.AcceptSecurityContext(
        ours.service, None, desc((TOKEN, token)), ASC, 0, service, reply
    )
    assert status == sspi.SEC_E_OK
    assert flags & sspi.ASC_RET_MUTUAL_AUTH
    status, flags, ours_expiry = sspi.InitializeSecurityContext(
        ours.client, client, TARGET, ISC, 0, reply, client, out := room()
    )
    assert (status, out[0].Buffer) == (sspi.SEC_E_OK, b"")
    assert flags & sspi.ISC_RET_MUTUAL_AUTH
    assert expiry == ours_expiry == service.QueryContextAttributes(sspi.SECPKG_ATTR_LIFESPAN)[1]


def test_without_mutual_authentication_one_leg_is_enough() -> None:
    ours = credentials()
    client, (status, flags, _), token = first_leg(ours.client, sspi.ISC_REQ_INTEGRITY)
    assert (status, flags) == (sspi.SEC_E_OK, sspi.ISC_RET_INTEGRITY)
    service, reply = sspi.CtxtHandle(), room()
    status, flags, _ = sspi.AcceptSecurityContext(
        ours.service, None, desc((TOKEN, token)), 0, 0, service, reply
    )
    assert (status, flags, reply[0].Buffer) == (sspi.SEC_E_OK, sspi.ASC_RET_INTEGRITY, b"")
    del client


#: What is asked for, and what both sides have then.
FLAGS = [
    (sspi.ISC_REQ_MUTUAL_AUTH, 0x2, 0x2),
    (sspi.ISC_REQ_CONFIDENTIALITY, 0x10010, 0x20010),
    (sspi.ISC_REQ_REPLAY_DETECT, 0x10004, 0x20004),
    (sspi.ISC_REQ_SEQUENCE_DETECT, 0x10008, 0x20008),
    (sspi.ISC_REQ_SEQUENCE_DETECT | sspi.ISC_REQ_NO_INTEGRITY, 0x10008, 0x20008),
    (sspi.ISC_REQ_INTEGRITY, 0x10000, 0x20000),
    (sspi.ISC_REQ_INTEGRITY | sspi.ISC_REQ_NO_INTEGRITY, 0, 0),
    (
        sspi.ISC_REQ_MUTUAL_AUTH | sspi.ISC_REQ_DELEGATE,
        0x2,
        0x2,
    ),  # the service is not trusted for it
    (sspi.ISC_REQ_IDENTIFY | sspi.ISC_REQ_EXTENDED_ERROR, 0x24000, 0x88000),
    (sspi.ISC_REQ_ALLOCATE_MEMORY | sspi.ISC_REQ_CONNECTION | sspi.ISC_REQ_STREAM, 0x100, 0),
    (ISC, 0x1001E, 0x2001E),
]


@pytest.mark.parametrize(("asked", "isc", "asc"), FLAGS, ids=[hex(row[0]) for row in FLAGS])
def test_flags_are_returned_under_the_values_of_each_side(asked: int, isc: int, asc: int) -> None:
    both = pair(isc=asked)
    assert (both.client_flags, both.service_flags) == (isc, asc)
    assert (
        both.client.QueryContextAttributes(sspi.SECPKG_ATTR_FLAGS)
        == isc & ~sspi.ISC_RET_ALLOCATED_MEMORY
    )
    assert both.service.QueryContextAttributes(sspi.SECPKG_ATTR_FLAGS) == asc


@pytest.mark.parametrize("flag", [sspi.ISC_REQ_DATAGRAM, sspi.ISC_REQ_NULL_SESSION])
def test_contexts_of_another_kind_are_refused(flag: int) -> None:
    ours = credentials()
    with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION, "InitializeSecurityContext"):
        first_leg(ours.client, ISC | flag)
    assert first_leg(ours.client, ISC)[1][0] == sspi.SEC_I_CONTINUE_NEEDED


def test_delegation_needs_mutual_authentication() -> None:
    with refused(sspi.SEC_E_SECURITY_QOS_FAILED):
        first_leg(credentials().client, sspi.ISC_REQ_DELEGATE)


def test_a_buffer_may_be_allocated_by_the_function() -> None:
    ours = credentials()
    handle, out = sspi.CtxtHandle(), room(0)
    flags = ISC | sspi.ISC_REQ_ALLOCATE_MEMORY
    _, returned, _ = sspi.InitializeSecurityContext(
        ours.client, None, TARGET, flags, 0, None, handle, out
    )
    assert returned == sspi.ISC_RET_ALLOCATED_MEMORY
    service, reply = sspi.CtxtHandle(), room(0)
    _, returned, _ = sspi.AcceptSecurityContext(
        ours.service, None, out, ASC | sspi.ASC_REQ_ALLOCATE_MEMORY, 0, service, reply
    )
    assert returned & sspi.ASC_RET_ALLOCATED_MEMORY
    assert reply[0].BufferSize > 100


def bindings(application_data: bytes, initiator: bytes = b"", acceptor: bytes = b"") -> bytes:
    """Return a SEC_CHANNEL_BINDINGS."""
    at = (32, 32 + len(initiator), 32 + len(initiator) + len(acceptor))
    return (
        struct.pack(
            "<8L", 2, len(initiator), at[0], 2, len(acceptor), at[1], len(application_data), at[2]
        )
        + initiator
        + acceptor
        + application_data
    )


CHANNEL = sspi.SECBUFFER_CHANNEL_BINDINGS
OURS = bindings(b"tls-unique:ours", b"\x7f\0\0\1", b"\x7f\0\0\2")


@pytest.mark.parametrize(
    ("sent", "demanded", "flags", "accepted"),
    [
        (OURS, OURS, 0, True),
        (OURS, None, 0, True),
        (None, OURS, sspi.ASC_REQ_ALLOW_MISSING_BINDINGS, True),
        (None, OURS, 0, False),
        (bindings(b"tls-unique:others"), OURS, 0, False),
        (bindings(b"tls-unique:others"), OURS, sspi.ASC_REQ_ALLOW_MISSING_BINDINGS, False),
    ],
    ids=[
        "same",
        "not demanded",
        "missing but allowed",
        "missing",
        "others",
        "others though missing is allowed",
    ],
)
def test_channel_bindings_come_in_a_buffer(
    sent: bytes | None, demanded: bytes | None, flags: int, accepted: bool
) -> None:
    ours = credentials()
    _, _, token = first_leg(ours.client, inputs=desc((CHANNEL, sent)) if sent else None)
    inputs = desc((TOKEN, token), *([(CHANNEL, demanded)] if demanded else []))

    def accept() -> int:
        return sspi.AcceptSecurityContext(
            ours.service, None, inputs, ASC | flags, 0, sspi.CtxtHandle(), room()
        )[0]

    if accepted:
        assert accept() == sspi.SEC_E_OK
    else:
        with refused(sspi.SEC_E_BAD_BINDINGS, "AcceptSecurityContext"):
            accept()


@pytest.mark.parametrize(
    "wide",
    [
        # What struct.pack("LLLLLLLL...") of a script for Windows gives on Linux and macOS.
        struct.pack("<8Q", 0, 0, 0, 0, 0, 0, 15, 32) + b"tls-unique:ours",
        struct.pack("<8Q", 0, 0, 0, 0, 0, 0, 15, 64) + b"tls-unique:ours",
    ],
    ids=["an offset of 32", "an offset of 64"],
)
def test_channel_bindings_with_64_bit_fields_are_the_same_bindings(wide: bytes) -> None:
    ours = credentials()
    narrow = struct.Struct("<8L")
    same = narrow.pack(0, 0, 0, 0, 0, 0, 15, 32) + b"tls-unique:ours"
    others = narrow.pack(0, 0, 0, 0, 0, 0, 6, 32) + b"others"
    for demanded, right in ((same, True), (others, False)):
        for sent, expected in ((wide, demanded), (demanded, wide)):
            _, _, token = first_leg(ours.client, inputs=desc((CHANNEL, sent)))
            inputs = desc((TOKEN, token), (CHANNEL, expected))
            call = (ours.service, None, inputs, ASC, 0, sspi.CtxtHandle(), room())
            if right:
                assert sspi.AcceptSecurityContext(*call)[0] == sspi.SEC_E_OK
            else:
                with refused(sspi.SEC_E_BAD_BINDINGS, "AcceptSecurityContext"):
                    sspi.AcceptSecurityContext(*call)
    addresses = struct.pack("<8Q", 2, 4, 64, 2, 4, 68, 15, 72) + OURS[32:]
    _, _, token = first_leg(ours.client, inputs=desc((CHANNEL, addresses)))
    inputs = desc((TOKEN, token), (CHANNEL, OURS))
    call = (ours.service, None, inputs, ASC, 0, sspi.CtxtHandle(), room())
    assert sspi.AcceptSecurityContext(*call)[0] == sspi.SEC_E_OK


def test_a_refused_client_hears_why_where_extended_errors_are_asked_for() -> None:
    ours = credentials()
    for flag, answered in ((sspi.ASC_REQ_EXTENDED_ERROR, True), (0, False)):
        client, _, token = first_leg(ours.client)
        # A service with another key cannot read the ticket.
        other = credentials().service
        service, out = sspi.CtxtHandle(), room()
        with refused(sspi.SEC_E_INVALID_TOKEN, "AcceptSecurityContext") as caught:
            sspi.AcceptSecurityContext(
                other, None, desc((TOKEN, token)), ASC | flag, 0, service, out
            )
        assert caught.value.krb_code == 31
        assert bool(out[0].Buffer) is answered
        service.DeleteSecurityContext()
        if answered:
            with refused(sspi.SEC_E_WRONG_PRINCIPAL, "InitializeSecurityContext"):
                sspi.InitializeSecurityContext(
                    ours.client, client, TARGET, ISC, 0, out, client, room()
                )
            client.DeleteSecurityContext()


def test_a_service_demands_mutual_authentication_where_it_says_so() -> None:
    ours = credentials()
    _, _, token = first_leg(ours.client, sspi.ISC_REQ_INTEGRITY)
    with refused(sspi.SEC_E_SECURITY_QOS_FAILED, "AcceptSecurityContext"):
        sspi.AcceptSecurityContext(
            ours.service,
            None,
            desc((TOKEN, token)),
            sspi.ASC_REQ_MUTUAL_AUTH,
            0,
            sspi.CtxtHandle(),
            room(),
        )


# --- attributes


@pytest.mark.parametrize("package", ["Kerberos", "Negotiate"])
@pytest.mark.parametrize("etype", AES)
def test_attributes_of_a_context(etype: int, package: str) -> None:
    both = pair(etype, package=package)
    for handle in (both.client, both.service):
        ask = handle.QueryContextAttributes
        signature, trailer, _ = SIZES[etype]
        assert ask(sspi.SECPKG_ATTR_SIZES) == {
            "MaxToken": 48_000,
            "MaxSignature": signature,
            "BlockSize": 1,
            "SecurityTrailer": trailer,
        }
        assert ask(sspi.SECPKG_ATTR_NAMES) == "alice@EXAMPLE.TEST"
        start, end = ask(sspi.SECPKG_ATTR_LIFESPAN)
        assert end - start == timedelta(hours=10)
        assert start.tzinfo is timezone.utc
        key = ask(sspi.SECPKG_ATTR_KEY_INFO)
        checksum = {17: 15, 18: 16, 19: 19, 20: 20}[etype]
        assert (key["SignatureAlgorithm"], key["EncryptAlgorithm"]) == (checksum, etype)
        assert key["KeySize"] == (128 if etype in (17, 19) else 256)
        assert key["EncryptAlgorithmName"].startswith("aes")
        assert key["SignatureAlgorithmName"].startswith("hmac-sha")
        for attribute in (sspi.SECPKG_ATTR_PACKAGE_INFO, sspi.SECPKG_ATTR_NEGOTIATION_INFO):
            info = ask(attribute)
            if attribute == sspi.SECPKG_ATTR_NEGOTIATION_INFO:
                state, info = info
                assert state == sspi.SECPKG_NEGOTIATION_COMPLETE
            assert info["Name"] == "Kerberos"
        assert ask(sspi.SECPKG_ATTR_NATIVE_NAMES) == (
            "alice@EXAMPLE.TEST",
            f"{TARGET}@EXAMPLE.TEST",
        )
        assert ask(sspi.SECPKG_ATTR_TARGET_INFORMATION) == TARGET
        assert str(ask(sspi.SECPKG_ATTR_ACCESS_TOKEN)) == "alice@EXAMPLE.TEST"
        assert handle.QuerySecurityContextToken() == ask(sspi.SECPKG_ATTR_ACCESS_TOKEN)
        assert ask(sspi.SECPKG_ATTR_LAST_CLIENT_TOKEN_STATUS) == sspi.SecPkgAttrLastClientTokenYes
        for attribute in (sspi.SECPKG_ATTR_STREAM_SIZES, sspi.SECPKG_ATTR_REMOTE_CERT_CONTEXT, 999):
            with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION, "QueryContextAttributes"):
                ask(attribute)
    keys = [
        handle.QueryContextAttributes(sspi.SECPKG_ATTR_SESSION_KEY)
        for handle in (both.client, both.service)
    ]
    assert keys[0] == keys[1]
    assert len(keys[0]) == (16 if etype in (17, 19) else 32)


def test_the_target_that_the_client_named_is_for_the_service_to_ask() -> None:
    both = pair()
    assert both.service.QueryContextAttributes(sspi.SECPKG_ATTR_CLIENT_SPECIFIED_TARGET) == TARGET
    with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION):
        both.client.QueryContextAttributes(sspi.SECPKG_ATTR_CLIENT_SPECIFIED_TARGET)


def test_k411_a_target_that_the_client_did_not_name_is_not_made_up() -> None:
    ticket, (key,) = issue()
    ours = credentials(key=key.key)
    for said in (True, False):
        service, token = (
            sspi.CtxtHandle(),
            purekrb.Initiator(ticket, send_client_target=said).step(),
        )
        sspi.AcceptSecurityContext(
            ours.service, None, desc((TOKEN, token)), ASC, 0, service, room()
        )
        if said:
            assert (
                service.QueryContextAttributes(sspi.SECPKG_ATTR_CLIENT_SPECIFIED_TARGET) == TARGET
            )
            continue
        with refused(sspi.SEC_E_TARGET_UNKNOWN):
            service.QueryContextAttributes(sspi.SECPKG_ATTR_CLIENT_SPECIFIED_TARGET)


def test_k410_an_anonymous_client_is_let_in_as_a_null_session_or_not_at_all() -> None:
    ticket, (key,) = issue(client=Principal.parse("WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"))
    named, _ = issue(key=key.key)
    ours = credentials(key=key.key)

    def accept(token: bytes | None, flags: int) -> int:
        out = room()
        legs = sspi.AcceptSecurityContext(
            ours.service, None, desc((TOKEN, token or b"")), flags, 0, sspi.CtxtHandle(), out
        )
        return legs[1] & sspi.ASC_RET_NULL_SESSION

    with refused(sspi.SEC_E_LOGON_DENIED):
        accept(purekrb.Initiator(ticket).step(), ASC)
    assert accept(purekrb.Initiator(ticket).step(), ASC | sspi.ASC_REQ_ALLOW_NULL_SESSION)
    for flags in (ASC, ASC | sspi.ASC_REQ_ALLOW_NULL_SESSION):
        assert not accept(purekrb.Initiator(named).step(), flags)


def test_sizes_are_zero_for_what_was_not_asked_for() -> None:
    for asked, signature, trailer in (
        (sspi.ISC_REQ_MUTUAL_AUTH, 0, 0),
        (sspi.ISC_REQ_INTEGRITY, 28, 0),
        (sspi.ISC_REQ_CONFIDENTIALITY, 28, 60),
    ):
        sizes = pair(isc=asked).service.QueryContextAttributes(sspi.SECPKG_ATTR_SIZES)
        assert (sizes["MaxSignature"], sizes["SecurityTrailer"]) == (signature, trailer)


@pytest.mark.parametrize("package", ["Kerberos", "Negotiate"])
def test_a_service_knows_its_client_by_the_names_of_windows_where_the_ticket_has_a_pac(
    package: str,
) -> None:
    key, authtime = crypto.random_key(18), now()
    pac = element(sign(assemble(buffers(key, authtime)), key))
    both = pair(package=package, key=key, now=authtime, authorization_data=(pac,))
    ask = both.service.QueryContextAttributes
    assert ask(sspi.SECPKG_ATTR_NAMES) == "EXAMPLE\\alice"
    assert ask(sspi.SECPKG_ATTR_NATIVE_NAMES)[0] == "alice@EXAMPLE.TEST"
    assert ask(sspi.SECPKG_ATTR_ACCESS_TOKEN).user_sid == USER_SID
    assert (
        both.client.QueryContextAttributes(sspi.SECPKG_ATTR_NAMES) == "alice@EXAMPLE.TEST"
    )  # has not seen it


def test_a_client_whose_pac_is_not_genuine_is_refused() -> None:
    key, authtime = crypto.random_key(18), now()
    pac = element(sign(assemble(buffers(key, authtime)), crypto.random_key(18)))
    ours = credentials(key=key, now=authtime, authorization_data=(pac,))
    _, _, token = first_leg(ours.client)
    service, out = sspi.CtxtHandle(), room()
    with refused(sspi.SEC_E_LOGON_DENIED, "AcceptSecurityContext"):
        sspi.AcceptSecurityContext(ours.service, None, desc((TOKEN, token)), ASC, 0, service, out)
    assert out[0].Buffer == b""
    with refused(sspi.SEC_E_INVALID_HANDLE):
        service.QueryContextAttributes(sspi.SECPKG_ATTR_NATIVE_NAMES)


# --- Negotiate


def accept(
    ours: Credentials,
    token: bytes | None,
    handle: sspi.CtxtHandle,
    before: sspi.CtxtHandle | None = None,
    asc: int = 0,
) -> tuple[int, bytes]:
    """Return the status and the token of one leg of the service."""
    out = room()
    inputs = None if token is None else desc((TOKEN, token))
    status, _, _ = sspi.AcceptSecurityContext(ours.service, before, inputs, asc, 0, handle, out)
    return status, out[0].Buffer


def test_negotiate_also_takes_kerberos_and_kerberos_takes_nothing_else() -> None:
    for package, offered, taken in (
        ("Negotiate", "Negotiate", True),
        ("Negotiate", "Kerberos", True),
        ("Kerberos", "Kerberos", True),
        ("Kerberos", "Negotiate", False),
    ):
        ours = credentials(package=package)
        ours.client.package = offered
        _, _, token = first_leg(ours.client)
        if taken:
            assert accept(ours, token, sspi.CtxtHandle())[0] == sspi.SEC_E_OK
        else:
            with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION):
                accept(ours, token, sspi.CtxtHandle())


@pytest.mark.parametrize("first", [None, b""])
def test_a_service_that_speaks_first_gives_hints(first: bytes | None) -> None:
    ours = credentials(package="Negotiate")
    service, client = sspi.CtxtHandle(), sspi.CtxtHandle()
    status, hints = accept(ours, first, service)
    assert status == sspi.SEC_I_CONTINUE_NEEDED
    assert b"not_defined_in_RFC4178@please_ignore" in hints
    out = room()
    sspi.InitializeSecurityContext(
        ours.client, None, TARGET, ISC, 0, desc((TOKEN, hints)), client, out
    )
    status, reply = accept(ours, out[0].Buffer, service, service, ASC)
    assert status == sspi.SEC_E_OK
    status, flags, _ = sspi.InitializeSecurityContext(
        ours.client, client, TARGET, ISC, 0, desc((TOKEN, reply)), client, room()
    )
    assert (status, flags & sspi.ISC_RET_MUTUAL_AUTH) == (sspi.SEC_E_OK, sspi.ISC_RET_MUTUAL_AUTH)
    with refused(sspi.SEC_E_INVALID_TOKEN):  # Kerberos has no hints
        accept(credentials(), first, sspi.CtxtHandle())


def test_who_prefers_ntlm_comes_to_kerberos_with_signed_lists() -> None:
    key = crypto.random_key(18)
    ours, (ticket, _) = credentials(package="Negotiate", key=key), issue(key=key)
    client, service, before = PreferringNtlm(ticket), sspi.CtxtHandle(), None
    token, statuses = client.step(None), []
    while token is not None:
        status, answer = accept(ours, token, service, before)
        statuses.append(status)
        before, token = service, client.step(answer) if answer else None
    assert statuses == [sspi.SEC_I_CONTINUE_NEEDED, sspi.SEC_I_CONTINUE_NEEDED, sspi.SEC_E_OK]
    assert (
        service.QueryContextAttributes(sspi.SECPKG_ATTR_NEGOTIATION_INFO)[1]["Name"] == "Kerberos"
    )


@pytest.mark.parametrize("flag", [sspi.ASC_REQ_EXTENDED_ERROR, 0])
def test_who_has_nothing_but_ntlm_is_refused(flag: int) -> None:
    ours, out = credentials(package="Negotiate"), room()
    token = init((NTLM_OID,), NTLM_TOKEN)
    with refused(sspi.SEC_E_UNSUPPORTED_FUNCTION, "AcceptSecurityContext") as caught:
        sspi.AcceptSecurityContext(
            ours.service, None, desc((TOKEN, token)), flag, 0, sspi.CtxtHandle(), out
        )
    assert "NTLM" in str(caught.value)
    assert bool(out[0].Buffer) is bool(flag)
    if flag:
        assert read(out[0].Buffer).neg_state == NegState.REJECT


# --- impersonation


def delegating(lab: Realm, flag: int = sspi.ASC_REQ_DELEGATE) -> sspi.CtxtHandle:
    """Return the service's end of a context in which alice has delegated her TGT."""
    keytab = lab.add_service(TARGET, ok_as_delegate=True)
    client = acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=("alice", "EXAMPLE.TEST", "pw"))
    _, _, token = first_leg(client, ISC | sspi.ISC_REQ_DELEGATE)
    service = sspi.CtxtHandle()
    inbound = acquire(sspi.SECPKG_CRED_INBOUND, auth_data=keytab)
    _, flags, _ = sspi.AcceptSecurityContext(
        inbound, None, desc((TOKEN, token)), ASC | flag, 0, service, room()
    )
    assert bool(flags & sspi.ASC_RET_DELEGATE) is bool(flag)
    return service


def test_a_service_acts_with_what_its_client_delegated(lab: Realm) -> None:
    backend = lab.add_service("ldap/dc.example.test")
    sspi.set_default_credential(lab.add_user("websvc", "pw"), config=lab.config)
    service = delegating(lab)
    with service.impersonate() as credential:
        assert credential is not None
        assert credential.principal == Principal.parse("alice@EXAMPLE.TEST")
        onward = acquire(sspi.SECPKG_CRED_OUTBOUND)
        assert name_of(onward) == "alice@EXAMPLE.TEST"
        _, _, token = first_leg(onward, target="ldap/dc.example.test")
        handle = sspi.CtxtHandle()
        inbound = acquire(sspi.SECPKG_CRED_INBOUND, auth_data=backend)
        sspi.AcceptSecurityContext(inbound, None, desc((TOKEN, token)), ASC, 0, handle, room())
        assert handle.QueryContextAttributes(sspi.SECPKG_ATTR_NAMES) == "alice@EXAMPLE.TEST"
    assert name_of(acquire(sspi.SECPKG_CRED_OUTBOUND)) == "websvc@EXAMPLE.TEST"
    sspi.ImpersonateSecurityContext(service)
    assert name_of(acquire(sspi.SECPKG_CRED_OUTBOUND)) == "alice@EXAMPLE.TEST"
    sspi.RevertSecurityContext(service)
    assert name_of(acquire(sspi.SECPKG_CRED_OUTBOUND)) == "websvc@EXAMPLE.TEST"


def test_a_service_acts_for_its_client_where_the_kdc_lets_it(lab: Realm) -> None:
    keytab = lab.add_service(TARGET, delegate_to=["ldap/dc.example.test"])
    backend = lab.add_service("ldap/dc.example.test")
    own = Credential.from_keytab(f"{TARGET}@EXAMPLE.TEST", keytab)
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    purekrb.KdcClient(lab.config).get_tgt(alice, forwardable=True)
    _, _, token = first_leg(acquire(sspi.SECPKG_CRED_OUTBOUND, auth_data=alice))
    sspi.set_default_credential(own, keytab=keytab, config=lab.config)
    both, service = acquire(sspi.SECPKG_CRED_BOTH), sspi.CtxtHandle()
    asked = ASC | sspi.ASC_REQ_DELEGATE
    sspi.AcceptSecurityContext(both, None, desc((TOKEN, token)), asked, 0, service, room())
    with service.impersonate() as credential:
        assert credential is not None
        assert credential.impersonation is not None
        _, _, onward = first_leg(acquire(sspi.SECPKG_CRED_OUTBOUND), target="ldap/dc.example.test")
        handle, inbound = sspi.CtxtHandle(), acquire(sspi.SECPKG_CRED_INBOUND, auth_data=backend)
        sspi.AcceptSecurityContext(inbound, None, desc((TOKEN, onward)), ASC, 0, handle, room())
        assert handle.QueryContextAttributes(sspi.SECPKG_ATTR_NAMES) == "alice@EXAMPLE.TEST"


@pytest.mark.parametrize("package", ["Kerberos", "Negotiate"])
def test_a_user_is_met_by_its_tgt(lab: Realm, package: str) -> None:
    bob = lab.add_user("bob", "pw")
    purekrb.KdcClient(lab.config).get_tgt(bob)
    sspi.set_default_credential(bob, config=lab.config)
    theirs, _ = sspi.AcquireCredentialsHandle(None, package, sspi.SECPKG_CRED_OUTBOUND)
    sspi.set_default_credential(
        Credential.from_password("alice@EXAMPLE.TEST", "pw"), config=lab.config
    )
    ours, _ = sspi.AcquireCredentialsHandle(None, package, sspi.SECPKG_CRED_OUTBOUND)
    client, service, token, flags = sspi.CtxtHandle(), sspi.CtxtHandle(), b"", 0
    for leg in range(3):
        out, answer = room(), room()
        sspi.InitializeSecurityContext(
            ours,
            client if leg else None,
            "bob",
            ISC | sspi.ISC_REQ_USE_SESSION_KEY,
            0,
            desc((TOKEN, token)) if leg else None,
            client,
            out,
        )
        if leg < 2:
            asked = ASC | sspi.ASC_REQ_USE_SESSION_KEY
            _, flags, _ = sspi.AcceptSecurityContext(
                theirs,
                service if leg else None,
                desc((TOKEN, out[0].Buffer)),
                asked,
                0,
                service,
                answer,
            )
        token = answer[0].Buffer
    assert flags & sspi.ASC_RET_USE_SESSION_KEY
    assert service.QueryContextAttributes(sspi.SECPKG_ATTR_NAMES) == "alice@EXAMPLE.TEST"
    assert client.QueryContextAttributes(sspi.SECPKG_ATTR_FLAGS) & sspi.ISC_RET_USE_SESSION_KEY
    inbound = acquire(sspi.SECPKG_CRED_INBOUND, auth_data=lab.add_service(TARGET))
    with refused(sspi.SEC_E_NO_CREDENTIALS, "AcceptSecurityContext"):
        asked = sspi.ASC_REQ_USE_SESSION_KEY
        sspi.AcceptSecurityContext(
            inbound, None, desc((TOKEN, b"x")), asked, 0, sspi.CtxtHandle(), room()
        )


def test_without_delegation_the_service_has_nothing_to_act_with_and_never_its_own(
    lab: Realm,
) -> None:
    sspi.set_default_credential(lab.add_user("websvc", "pw"), config=lab.config)
    for service in (pair().service, delegating(lab, 0)):
        with service.impersonate() as credential:
            assert credential is None
            with refused(sspi.SEC_E_NO_CREDENTIALS):
                acquire(sspi.SECPKG_CRED_OUTBOUND)
        assert name_of(acquire(sspi.SECPKG_CRED_OUTBOUND)) == "websvc@EXAMPLE.TEST"


def test_impersonation_ends_with_its_block_whatever_happens(lab: Realm) -> None:
    sspi.set_default_credential(lab.add_user("websvc", "pw"), config=lab.config)
    outer, inner = pair().service, pair().service

    def act() -> None:
        with outer.impersonate():
            with inner.impersonate():
                inner.DeleteSecurityContext()
            with refused(sspi.SEC_E_NO_CREDENTIALS):  # still acting for the outer client
                acquire(sspi.SECPKG_CRED_OUTBOUND)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        act()
    assert name_of(acquire(sspi.SECPKG_CRED_OUTBOUND)) == "websvc@EXAMPLE.TEST"


def test_a_deleted_context_can_be_reverted() -> None:
    service = pair().service
    service.ImpersonateSecurityContext()
    service.DeleteSecurityContext()
    with refused(sspi.SEC_E_NO_CREDENTIALS):
        acquire(sspi.SECPKG_CRED_OUTBOUND)
    service.RevertSecurityContext()


# --- buffers and messages


def test_a_buffer_has_the_size_of_its_content_up_to_a_maximum() -> None:
    buffer = sspi.SecBuffer(BufferSize=4, BufferType=-0x80000000 | DATA)
    assert buffer.BufferType == sspi.SECBUFFER_READONLY | DATA
    assert (buffer.Buffer, buffer.BufferSize, buffer.MaxBufferSize) == (bytes(4), 4, 4)
    buffer.Buffer = bytearray(b"ab")
    assert (buffer.Buffer, buffer.BufferSize, buffer.MaxBufferSize) == (b"ab", 2, 4)
    buffer.BufferSize = 3
    assert buffer.Buffer == b"ab\0"
    buffer.BufferSize = 1
    assert buffer.Buffer == b"a"
    buffer.Clear()
    assert buffer.Buffer == bytes(4)
    for misuse in (
        lambda: setattr(buffer, "Buffer", b"12345"),
        lambda: setattr(buffer, "BufferSize", 5),
    ):
        with pytest.raises(ValueError):
            misuse()
    with pytest.raises(TypeError):
        buffer.Buffer = "text"  # type: ignore[assignment]
    assert buffer.Buffer == bytes(4)


def test_a_description_is_a_sequence_of_buffers() -> None:
    buffers = desc((DATA, b"a"), (TOKEN, 2))
    assert [buffer.BufferType for buffer in buffers] == [DATA, TOKEN]
    buffers[0] = sspi.SecBuffer(3, DATA)
    assert (len(buffers), buffers[0].BufferSize, buffers[-1].BufferSize) == (2, 3, 2)
    for misuse in (lambda: buffers.append(b"a"), lambda: buffers.__setitem__(0, None)):
        with pytest.raises(TypeError):
            misuse()


@pytest.mark.parametrize("etype", AES)
def test_a_signature_is_a_mic_token_over_the_data_in_their_order(etype: int) -> None:
    both = pair(etype)
    size = SIZES[etype][0]
    message = desc((DATA, b"one "), (TOKEN, size + 10), (DATA, b"two"))
    both.client.MakeSignature(0, message, 0)
    assert (message[1].BufferSize, message[1].MaxBufferSize) == (size, size + 10)
    assert (
        MicToken.decode(message[1].Buffer).flags == 4
    )  # of the initiator, under the acceptor's subkey
    assert both.service.VerifySignature(message, 0) == 0
    back = desc((DATA, b"answer"), (TOKEN, size))
    both.service.MakeSignature(0, back, 0)
    assert (
        both.client.VerifySignature(desc((DATA, b"ans"), (DATA, b"wer"), (TOKEN, back[1].Buffer)))
        == 0
    )


@pytest.mark.parametrize("attribute", [0, sspi.SECBUFFER_READONLY_WITH_CHECKSUM])
def test_data_with_the_attribute_checksum_are_signed(attribute: int) -> None:
    both = pair()
    message = desc((DATA, b"body"), (DATA | attribute, b"header"), (TOKEN, 28))
    both.client.MakeSignature(0, message)
    message[1].Buffer = b"HEADER"
    with refused(sspi.SEC_E_MESSAGE_ALTERED):
        both.service.VerifySignature(message)
    message[1].Buffer = b"header"
    both.service.VerifySignature(message)


def test_read_only_data_and_other_buffers_are_ignored() -> None:
    both = pair()
    more = [
        (DATA | sspi.SECBUFFER_READONLY, b"x"),
        (sspi.SECBUFFER_EMPTY, 0),
        (sspi.SECBUFFER_PKG_PARAMS, b"p"),
    ]
    message = desc(*more, (DATA, b"body"), (TOKEN, 60))
    both.client.EncryptMessage(0, message)
    assert message[0].Buffer == b"x"
    message[0].Buffer = b"y"
    assert both.service.DecryptMessage(message) == 0
    assert [buffer.Buffer for buffer in message][:4] == [b"y", b"", b"p", b"body"]


@pytest.mark.parametrize(
    "qop", [0, sspi.SECQOP_WRAP_NO_ENCRYPT, sspi.SECQOP_WRAP_NO_ENCRYPT - (1 << 32)]
)
@pytest.mark.parametrize("etype", AES)
def test_token_data_and_padding_are_a_wrap_token(etype: int, qop: int) -> None:
    both = pair(etype)
    sealed = qop == 0
    size = SIZES[etype][1 if sealed else 2]
    for text in (b"", b"x", b"sixteen bytes...", bytes(1000)):
        message = desc((TOKEN, SIZES[etype][1]), (DATA, text), (PADDING, 1))
        both.client.EncryptMessage(qop, message, 0)
        token, data, padding = (buffer.Buffer for buffer in message)
        assert (len(token), len(data), padding) == (size, len(text), b"")
        if text:
            assert (data == text) is not sealed
        wrapped = WrapToken.decode(token + data + padding)
        assert wrapped.flags == (6 if sealed else 4)
        assert both.service.DecryptMessage(message, 0) == (
            0 if sealed else sspi.SECQOP_WRAP_NO_ENCRYPT
        )
        assert message[1].Buffer == text


@pytest.mark.parametrize("qop", [0, sspi.SECQOP_WRAP_NO_ENCRYPT])
def test_a_stream_gives_its_message_into_an_empty_buffer(qop: int) -> None:
    both = pair()
    for text in (b"", b"hello", bytes(5000)):
        message = desc((DATA, text), (TOKEN, 60))
        both.service.EncryptMessage(qop, message)
        stream = desc((STREAM, message[1].Buffer + message[0].Buffer), (DATA, 0))
        assert both.client.DecryptMessage(stream) == qop
        assert stream[1].Buffer == text


def test_a_message_in_several_buffers_is_encrypted_where_it_stands() -> None:
    both = pair()
    message = desc((DATA, b"one"), (TOKEN, 60), (DATA, b""), (DATA, b"and two"))
    both.client.EncryptMessage(0, message)
    assert [buffer.BufferSize for buffer in message] == [3, 60, 0, 7]
    both.service.DecryptMessage(message)
    assert [message[n].Buffer for n in (0, 2, 3)] == [b"one", b"", b"and two"]


@pytest.mark.parametrize("dce", [0, sspi.ISC_REQ_USE_DCE_STYLE])
@pytest.mark.parametrize("etype", AES)
def test_a_header_is_signed_and_travels_in_clear(etype: int, dce: int) -> None:
    both = pair(etype, isc=ISC | dce)
    trailer = both.client.QueryContextAttributes(sspi.SECPKG_ATTR_SIZES)["SecurityTrailer"]
    signed = DATA | sspi.SECBUFFER_READONLY_WITH_CHECKSUM
    message = desc(
        (signed, b"RPC header"), (DATA, b"stub data"), (signed, b"RPC trailer"), (TOKEN, trailer)
    )
    both.client.EncryptMessage(0, message)
    assert [message[n].Buffer for n in (0, 2)] == [b"RPC header", b"RPC trailer"]
    assert message[1].Buffer != b"stub data"
    assert (message[1].BufferSize, message[3].BufferSize) == (9, trailer)
    assert both.service.DecryptMessage(message) == 0
    assert message[1].Buffer == b"stub data"


@pytest.mark.parametrize("package", ["Kerberos", "Negotiate"])
@pytest.mark.parametrize("etype", AES)
def test_dce_style_takes_three_legs_and_larger_tokens(etype: int, package: str) -> None:
    both = pair(etype, isc=ISC | sspi.ISC_REQ_USE_DCE_STYLE, package=package)
    assert both.client_flags & sspi.ISC_RET_USED_DCE_STYLE
    assert both.service_flags & sspi.ASC_RET_USED_DCE_STYLE
    signature, trailer, _ = SIZES[etype]
    sizes = both.service.QueryContextAttributes(sspi.SECPKG_ATTR_SIZES)
    assert (sizes["SecurityTrailer"], sizes["MaxSignature"]) == (
        trailer + 16,
        signature,
    )  # 76 with AES-SHA1
    for qop in (0, sspi.SECQOP_WRAP_NO_ENCRYPT):
        message = desc((TOKEN, trailer + 16), (DATA, b"stub"), (PADDING, 1))
        both.service.EncryptMessage(qop, message)
        assert both.client.DecryptMessage(message) == qop
        assert message[1].Buffer == b"stub"
        both.service.EncryptMessage(qop, message := desc((TOKEN, trailer + 16), (DATA, b"stub")))
        stream = desc((STREAM, message[0].Buffer + message[1].Buffer), (DATA, 0))
        assert both.client.DecryptMessage(stream) == qop
        assert stream[1].Buffer == b"stub"


def test_in_dce_style_the_service_waits_for_the_third_leg() -> None:
    ours = credentials()
    client, (status, _, _), token = first_leg(ours.client, ISC | sspi.ISC_REQ_USE_DCE_STYLE)
    service = sspi.CtxtHandle()
    status, reply = accept(ours, token, service, None, ASC)
    assert status == sspi.SEC_I_CONTINUE_NEEDED
    with refused(sspi.SEC_E_INVALID_HANDLE):
        service.MakeSignature(0, desc((DATA, b"x"), (TOKEN, 28)))
    third = room()
    status, _, _ = sspi.InitializeSecurityContext(
        ours.client, client, TARGET, ISC, 0, desc((TOKEN, reply)), client, third
    )
    assert status == sspi.SEC_E_OK
    assert third[0].Buffer
    assert accept(ours, third[0].Buffer, service, service, ASC) == (sspi.SEC_E_OK, b"")


def test_tokens_of_other_layouts_are_split_anywhere() -> None:
    both = pair()
    message = desc((TOKEN, 60), (DATA, b"hello, service"))
    both.client.EncryptMessage(0, message)
    whole = message[0].Buffer + message[1].Buffer
    elsewhere = desc((TOKEN, whole[:16]), (DATA, whole[16:]))
    assert both.service.DecryptMessage(elsewhere) == 0
    assert elsewhere[1].Buffer == b"hello, service"
    both.client.EncryptMessage(0, message)
    whole = message[0].Buffer + message[1].Buffer
    with refused(sspi.SEC_E_BUFFER_TOO_SMALL):  # nothing of a message is dropped
        both.service.DecryptMessage(desc((TOKEN, whole[:62]), (DATA, whole[62:])))


def test_rc4_contexts_seal_and_have_no_signatures() -> None:
    both = pair(23)
    sizes = both.client.QueryContextAttributes(sspi.SECPKG_ATTR_SIZES)
    assert sizes["MaxSignature"] == 0
    for qop in (0, sspi.SECQOP_WRAP_NO_ENCRYPT):
        message = desc(
            (TOKEN, sizes["SecurityTrailer"]), (DATA, b"hello"), (PADDING, sizes["BlockSize"])
        )
        both.client.EncryptMessage(qop, message)
        assert (message[1].BufferSize, message[2].BufferSize) == (5, 1)
        assert both.service.DecryptMessage(message) == qop
        assert message[1].Buffer == b"hello"
    with refused(sspi.SEC_E_QOP_NOT_SUPPORTED):
        both.client.MakeSignature(0, desc((DATA, b"x"), (TOKEN, 100)))
    with refused(sspi.SEC_E_INVALID_TOKEN):
        both.client.EncryptMessage(0, desc((TOKEN, 100), (DATA, b"x")))


# --- expiry


def test_chk42_after_the_end_of_the_ticket_nothing_more_is_protected_but_what_came_is_read(
    lab: Realm,
) -> None:
    keytab = lab.add_service("HTTP/short.example.test", lifetime=3)
    sspi.set_default_credential(lab.add_user("alice", "pw"), keytab=keytab)
    client, server = talk(ISC, target="HTTP/short.example.test")
    assert client.ctxt is not None
    assert server.ctxt is not None
    end = client.ctxt.QueryContextAttributes(sspi.SECPKG_ATTR_LIFESPAN)[1]
    message = desc((TOKEN, 60), (DATA, b"in time"))
    client.ctxt.EncryptMessage(0, message)
    for handle in (client.ctxt, server.ctxt):
        handle.MakeSignature(0, desc((DATA, b"in time"), (TOKEN, 28)))
    time.sleep((end - datetime.now(timezone.utc)).total_seconds() + 0.01)
    for handle in (client.ctxt, server.ctxt):
        with refused(sspi.SEC_E_CONTEXT_EXPIRED, "MakeSignature"):
            handle.MakeSignature(0, desc((DATA, b"late"), (TOKEN, 28)))
        with refused(sspi.SEC_E_CONTEXT_EXPIRED, "EncryptMessage"):
            handle.EncryptMessage(0, desc((DATA, b"late"), (TOKEN, 60)))
    assert server.ctxt.DecryptMessage(message) == 0
    assert message[1].Buffer == b"in time"


# --- ClientAuth and ServerAuth


@pytest.fixture
def logged_on(lab: Realm) -> Realm:
    """The realm of `lab`; alice is the default client, and the service has the default keytab."""
    sspi.set_default_credential(lab.add_user("alice", "pw"), keytab=lab.keytab(TARGET))
    return lab


def test_a_script_for_pywin32_runs(logged_on: Realm) -> None:
    win32security = sspicon = sspi

    sspiclient = sspi.ClientAuth("Kerberos", targetspn=TARGET)
    sspiserver = sspi.ServerAuth("Kerberos", spn=TARGET)
    sec_buffer = None
    while True:
        err, sec_buffer = sspiclient.authorize(sec_buffer)
        err, sec_buffer = sspiserver.authorize(sec_buffer)
        if err == 0:
            break
    assert sspiclient.authenticated
    assert sspiserver.authenticated
    sspiserver.ctxt.ImpersonateSecurityContext()
    sspiserver.ctxt.RevertSecurityContext()

    pkg_size_info = sspiclient.ctxt.QueryContextAttributes(sspicon.SECPKG_ATTR_SIZES)
    msg = b"some data to be encrypted ......"
    sigbuf = win32security.PySecBufferDescType()
    sigbuf.append(win32security.PySecBufferType(len(msg), sspicon.SECBUFFER_DATA))
    sigbuf.append(
        win32security.PySecBufferType(pkg_size_info["MaxSignature"], sspicon.SECBUFFER_TOKEN)
    )
    sigbuf[0].Buffer = msg
    sspiclient.ctxt.MakeSignature(0, sigbuf, 1)
    sspiserver.ctxt.VerifySignature(sigbuf, 1)

    encbuf = win32security.PySecBufferDescType()
    encbuf.append(win32security.PySecBufferType(len(msg), sspicon.SECBUFFER_DATA))
    encbuf.append(
        win32security.PySecBufferType(pkg_size_info["SecurityTrailer"], sspicon.SECBUFFER_TOKEN)
    )
    encbuf[0].Buffer = msg
    sspiclient.ctxt.EncryptMessage(0, encbuf, 1)
    sspiserver.ctxt.DecryptMessage(encbuf, 1)
    assert encbuf[0].Buffer == msg

    sspiserver.verify(b"hello", sspiclient.sign(b"hello"))
    with pytest.raises(win32security.error) as caught:
        sspiserver.verify(b"hello" * 2, sspiclient.sign(b"hello"))
    exc = caught.value
    assert exc.winerror == sspicon.SEC_E_MESSAGE_ALTERED
    assert exc.args == (exc.winerror, "VerifySignature", exc.strerror)
    assert sspiserver.initiator_name == "alice@EXAMPLE.TEST"
    assert sspiclient.service_name == f"{TARGET}@EXAMPLE.TEST"


def talk(
    flags: int | None, package: str = "Kerberos", target: str = TARGET
) -> tuple[sspi.ClientAuth, sspi.ServerAuth]:
    """Return both sides, having talked raw tokens as over a socket."""
    client = sspi.ClientAuth(package, targetspn=target, scflags=flags)
    server = sspi.ServerAuth(package)
    answer: bytes | None = None
    while not (client.authenticated and server.authenticated):
        if not client.authenticated:
            _, buffers = client.authorize(answer)
            answer = buffers[0].Buffer
        if not server.authenticated:
            _, buffers = server.authorize(answer)
            answer = buffers[0].Buffer
    return client, server


@pytest.mark.parametrize("package", ["Kerberos", "Negotiate"])
@pytest.mark.parametrize("flags", [None, ISC])
def test_both_classes_protect_messages_in_every_way(
    logged_on: Realm, flags: int | None, package: str
) -> None:
    client, server = talk(flags, package)
    mutual = bool(flags)
    assert (
        bool(client.ctxt_attr & sspi.ISC_RET_MUTUAL_AUTH)
        is bool(server.ctxt_attr & sspi.ASC_RET_MUTUAL_AUTH)
        is mutual
    )
    assert client.ctxt_expiry == server.ctxt_expiry
    for sender, receiver in ((client, server), (server, client)):
        data, trailer = sender.encrypt(b"secret")
        assert (len(data), len(trailer)) == (6, 60)
        assert receiver.decrypt(data, trailer) == b"secret"
        receiver.verify(b"signed", sender.sign(b"signed"))
        for encrypt in (False, True):
            token = sender.wrap(b"wrapped", encrypt)
            assert (b"wrapped" in token) is not encrypt
            assert receiver.unwrap(token) == (b"wrapped", encrypt)
    assert client.next_seq_num == server.next_seq_num == 8
    client.reset()
    assert (client.ctxt, client.authenticated, client.service_name, client.next_seq_num) == (
        None,
        False,
        None,
        0,
    )
    status, _ = client.authorize(None)
    one_leg = package == "Kerberos" and not mutual
    assert status == (sspi.SEC_E_OK if one_leg else sspi.SEC_I_CONTINUE_NEEDED)


def test_signed_messages_do_without_confidentiality(logged_on: Realm) -> None:
    client, server = talk(sspi.ISC_REQ_INTEGRITY)
    assert server.unwrap(client.wrap(b"signed")) == (b"signed", False)
    with refused(sspi.SEC_E_QOP_NOT_SUPPORTED, "EncryptMessage"):
        client.encrypt(b"secret")


def test_the_classes_take_credentials_as_arguments(lab: Realm) -> None:
    sspi.set_default_credential(keytab=lab.keytab(TARGET))
    client = sspi.ClientAuth("Kerberos", None, ("alice", "EXAMPLE.TEST", "pw"), TARGET, ISC)
    server = sspi.ServerAuth("Kerberos", TARGET, sspi.ASC_REQ_MUTUAL_AUTH)
    _, buffers = client.authorize(None)
    _, buffers = server.authorize(buffers)
    status, _ = client.authorize(buffers)
    assert (status, server.initiator_name) == (0, "alice@EXAMPLE.TEST")
    assert client.pkg_info == sspi.QuerySecurityPackageInfo("kerberos")
    client.credentials.FreeCredentialsHandle()


@pytest.mark.parametrize("call", ["encrypt", "sign", "wrap", "unwrap"])
def test_messages_before_the_context_are_refused(logged_on: Realm, call: str) -> None:
    for side in (
        sspi.ClientAuth("Kerberos", targetspn=TARGET, scflags=ISC),
        sspi.ServerAuth("Kerberos"),
    ):
        with refused(sspi.SEC_E_INVALID_HANDLE):
            getattr(side, call)(b"data")
    client = sspi.ClientAuth("Kerberos", targetspn=TARGET, scflags=ISC)
    client.authorize(None)
    with refused(sspi.SEC_E_INVALID_HANDLE):
        getattr(client, call)(b"data")


# --- errors


def test_a_password_is_in_no_traceback(lab: Realm) -> None:
    logon = ("", "EXAMPLE.TEST", "correct horse")
    for call in (
        lambda: sspi.AcquireCredentialsHandle(
            None, "Kerberos", sspi.SECPKG_CRED_OUTBOUND, None, logon
        ),
        lambda: sspi.ClientAuth("Kerberos", None, logon),
    ):
        with pytest.raises(sspi.error) as caught:
            call()
        trace = caught.tb
        while trace is not None:
            if (
                "purekrb" in trace.tb_frame.f_code.co_filename
                and "tests" not in trace.tb_frame.f_code.co_filename
            ):
                assert "horse" not in repr(trace.tb_frame.f_locals)
            trace = trace.tb_next  # type: ignore[assignment]


def test_step_is_authorize_with_bytes(logged_on: Realm) -> None:
    client = sspi.ClientAuth("Kerberos", targetspn=TARGET, scflags=ISC)
    service = sspi.ServerAuth("Kerberos")
    token = client.step(None)
    assert isinstance(token, bytes)
    assert not client.authenticated
    answer = service.step(token)
    assert service.authenticated
    assert client.step(answer) is None
    assert client.authenticated
    assert client.initiator_name == service.initiator_name == "alice@EXAMPLE.TEST"
    assert client.service_name == f"{TARGET}@EXAMPLE.TEST"


def test_a_process_has_several_users_and_services_at_a_time(lab: Realm) -> None:
    bob, other = lab.add_user("bob", "pw"), "HTTP/other.example.test"
    keytab = lab.add_service(other)
    with Realm("OTHER.TEST") as second:
        carol = second.add_user("carol", "pw")
        third = second.add_service("HTTP/third.other.test")
        pairs = [
            (lab.add_user("alice", "pw"), lab.config, TARGET, lab.keytab(TARGET)),
            (bob, lab.config, other, keytab),
            (carol, second.config, "HTTP/third.other.test", third),
        ]
        made = [
            (
                sspi.ClientAuth(
                    "Kerberos", auth_info=user, targetspn=spn, scflags=ISC, config=config
                ),
                sspi.ServerAuth("Kerberos", auth_info=keys),
            )
            for user, config, spn, keys in pairs
        ]
        for client, service in made:
            client.step(service.step(client.step()))
    assert [service.initiator_name for _, service in made] == [
        "alice@EXAMPLE.TEST",
        "bob@EXAMPLE.TEST",
        "carol@OTHER.TEST",
    ]


def test_a_services_options_are_those_of_an_acceptor(logged_on: Realm) -> None:
    cache = MemoryReplayCache()
    client = sspi.ClientAuth("Kerberos", targetspn=TARGET, scflags=ISC)
    token = client.step()
    assert sspi.ServerAuth("Kerberos", replay_cache=cache).step(token)
    with refused(sspi.SEC_E_LOGON_DENIED, "AcceptSecurityContext"):
        sspi.ServerAuth("Kerberos", replay_cache=cache).step(token)
    assert sspi.ServerAuth("Kerberos", replay_cache=MemoryReplayCache()).step(token)
    with refused(sspi.SEC_E_INVALID_TOKEN, "AcceptSecurityContext"):
        sspi.ServerAuth("Kerberos", max_token=100).step(token)
    sspi.set_default_credential(keytab=logged_on.keytab(TARGET), max_token=100)
    with refused(sspi.SEC_E_INVALID_TOKEN, "AcceptSecurityContext"):
        sspi.ServerAuth("Kerberos").step(token)
    for call in (
        lambda: sspi.ServerAuth("Kerberos", require=0),
        lambda: sspi.set_default_credential(no_such_option=1),
    ):
        with pytest.raises(TypeError, match="it has replay_cache"):
            call()


@pytest.mark.parametrize("name", sorted(sspi.credentials.ServiceOptions.__annotations__))
def test_each_option_of_a_service_reaches_the_acceptor(name: str, lab: Realm) -> None:
    assert name in inspect.signature(Acceptor.__init__).parameters
    handle, _ = sspi.AcquireCredentialsHandle(
        None, "Kerberos", sspi.SECPKG_CRED_INBOUND, None, lab.keytab(TARGET), **{name: None}
    )
    assert handle.options == {name: None}


def test_four_processes_accept_a_token_once(logged_on: Realm) -> None:
    token = sspi.ClientAuth("Kerberos", targetspn=TARGET, scflags=ISC).step()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if sspi.ServerAuth("Kerberos").step(token) else 1)
            except sspi.error as error:
                os._exit(2 if error.winerror == sspi.SEC_E_LOGON_DENIED else 3)
            except BaseException:
                os._exit(4)
        children.append(child)
    ends = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert ends == [0, 2, 2, 2]
