"""What a KDC's refusal says: the cause in a user's words first, then the facts, then the remedy."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from purekrb.constants import NameType, PaDataType
from purekrb.errors import (
    ClientRevokedError,
    ClientUnknownError,
    KdcError,
    KdcEtypeError,
    KerberosError,
    PasswordExpiredError,
    PreauthFailedError,
    ServiceUnknownError,
    UnsupportedError,
)
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.kdc_reply import ExchangeLabel, kdc_error, nt_status
from purekrb.exchanges.preauth.kinds import preauth_kinds
from purekrb.exchanges.runner import run
from purekrb.messages.kdc import EtypeInfo2, EtypeInfo2Entry, MethodData, PaData
from purekrb.names import Principal
from support.scripted_kdc import ALICE, WEB, Keys, Password, ScriptedKdc, clock

LABEL = ExchangeLabel("AS", ALICE, Principal.parse("krbtgt/EXAMPLE.TEST@EXAMPLE.TEST"))

#: Recorded from a Samba 4.17 domain controller: a METHOD-DATA with ETYPE-INFO2 and an element of type 3.
RECORDED = [
    (
        23,
        "3045302ca103020113a22504233021301fa003020112a1101b0e41442e544553546d757374636867a2060404"
        "000010003015a103020103a20e040c240200c00000000001000000",
        PasswordExpiredError,
        "the password must be changed before the first logon",
    ),
    (
        18,
        "3045302ca103020113a22504233021301fa003020112a1101b0e41442e5445535465787061636374a2060404"
        "000010003015a103020103a20e040c930100c00000000001000000",
        ClientRevokedError,
        "the account has expired",
    ),
    (
        18,
        "3045302ca103020113a22504233021301fa003020112a1101b0e41442e54455354646973616363"
        "74a2060404000010003015a103020103a20e040c720000c00000000001000000",
        ClientRevokedError,
        "the account is disabled",
    ),
    (
        18,
        "302f302da103020113a226042430223020a003020112a1111b0f41442e544553546c6f636b61636374a20604"
        "0400001000",
        ClientRevokedError,
        "disabled, locked or expired",
    ),
]


def status_data(status: int, *, bare: bool) -> bytes:
    """A KERB-EXT-ERROR with `status`: bare as Windows and Samba 4.22 send it, or in a METHOD-DATA."""
    data = PaData(3, struct.pack("<III", status, 0, 1))
    return data.encode() if bare else MethodData((data,)).encode()


def said(code: int, e_data: bytes | None = None, **changes: Any) -> KdcError:
    label = changes.pop("label", LABEL)
    return kdc_error(ScriptedKdc().error(code, e_data=e_data), label, **changes)


@pytest.mark.parametrize(("code", "e_data", "cls", "words"), RECORDED)
def test_the_state_of_an_account_is_told_by_the_status_that_samba_sends(
    code: int, e_data: str, cls: type[KdcError], words: str
) -> None:
    error = said(code, bytes.fromhex(e_data))
    assert type(error) is cls
    assert words in str(error).partition("(AS exchange")[0]


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (18, 0xC0000072, "disabled"),
        (18, 0xC0000193, "the account has expired"),
        (18, 0xC0000234, "locked after wrong passwords"),
        (23, 0xC0000071, "the password has expired"),
        (23, 0xC0000224, "the password must be changed before the first logon"),
        (12, 0xC000006F, "at this hour"),
        (12, 0xC0000070, "from this workstation"),
        (12, 0xC000006E, "restriction"),
        (12, 0xC00002FA, "smart card"),
        (12, 0xC0000413, "allow-list"),
        (18, 0xC0001234, "0xC0001234"),
        (7, 0xC0000408, "user-to-user"),
    ],
)
def test_both_forms_of_the_status_are_read(code: int, status: int, words: str, bare: bool) -> None:
    error = said(code, status_data(status, bare=bare))
    assert words in str(error).partition(" exchange for ")[0]
    assert error.code == code
    # The status is forgeable: it changes words, never the class.
    assert type(error) is type(said(code))


@pytest.mark.parametrize(
    "e_data",
    [
        None,
        b"",
        b"\x30",
        b"\x30\x00",
        b"\xff" * 40,
        MethodData((PaData(3, b"AD.TESTalice"),)).encode(),  # a salt has the same type
        MethodData((PaData(3, bytes.fromhex("720000c0")),)).encode(),
        PaData(2, bytes.fromhex("720000c00000000001000000")).encode(),
        status_data(0x00000072, bare=True),
    ],
)
def test_data_without_a_status_are_passed_over(e_data: bytes | None) -> None:
    error = ScriptedKdc().error(18, e_data=e_data)
    assert nt_status(error) is None
    assert "disabled, locked or expired" in str(kdc_error(error, LABEL))


def test_a_wrong_password_is_the_first_thing_said() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(24) if len(kdc.seen) == 2 else None
    with pytest.raises(PreauthFailedError) as caught:
        run(as_exchange(Password(password="guess"), clock=clock), kdc)
    assert str(caught.value).startswith("wrong password (")


@pytest.mark.parametrize(
    ("client", "salt"),
    [
        ("maxm@AD.TEST", "AD.TESTMaxM"),
        ("web1$@AD.TEST", "AD.TESThostweb1.ad.test"),
        ("newname@MIT.TEST", "MIT.TESToldname"),
        ("user@IPA.TEST", "k&Zq1)3;Lw+e%9.T"),
    ],
)
@pytest.mark.parametrize("asks_first", [True, False])
def test_a_refused_key_of_a_keytab_is_told_with_the_salt_of_the_kdc(
    client: str, salt: str, asks_first: bool
) -> None:
    """The KDC tells the salt once it is asked without a proof, which the exchange does anyway."""
    keys = Keys(Principal.parse(client))
    keys.kvno = 7
    info = EtypeInfo2((EtypeInfo2Entry(18, salt.encode(), None),)).encode()
    methods = (PaData(PaDataType.ETYPE_INFO2, info), PaData(PaDataType.ENC_TIMESTAMP, b""))

    def answer(request: Any, realm: str) -> Any:
        if any(entry.padata_type == PaDataType.ENC_TIMESTAMP for entry in request.padata or ()):
            return kdc.error(24)
        return kdc.error(25, e_data=MethodData(methods).encode())

    kdc = ScriptedKdc()
    kdc.answer = answer
    with pytest.raises(PreauthFailedError) as caught:
        run(as_exchange(keys, AsOptions(require_preauth=asks_first), clock=clock), kdc)
    text = str(caught.value)
    assert text.startswith(f"the keytab's key of {client} (kvno 7, ")
    assert salt in text
    assert "another salt" in text
    assert "--ask-kdc" in text
    assert "wrong password (" not in text


def offer(*types: int) -> bytes:
    info = EtypeInfo2((EtypeInfo2Entry(18, b"EXAMPLE.TESTalice", None),)).encode()
    return MethodData(
        tuple(PaData(number, info if number == 19 else b"") for number in types)
    ).encode()


@pytest.mark.parametrize(
    ("types", "cls", "names"),
    [
        ((136, 19, 133), UnsupportedError, "only within FAST, and this log-in has no armor"),
        ((136, 19, 141, 133), UnsupportedError, "by FAST or OTP,"),
        ((141, 136, 19, 16, 17, 150, 133), UnsupportedError, "by OTP or FAST or PKINIT,"),
        ((16, 147, 133), UnsupportedError, "the account may have no key of aes256"),
        ((136, 133), KdcEtypeError, "no encryption type in common"),
    ],
)
def test_kinds_of_preauthentication_are_told_by_name(
    types: tuple[int, ...], cls: type[KerberosError], names: str
) -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(25, e_data=offer(*types))
    with pytest.raises(cls) as caught:
        run(as_exchange(Password(etypes=(18, 17)), clock=clock), kdc)
    text = str(caught.value)
    assert names in text
    assert "[" not in text
    assert not any(str(number) in text for number in (19, 133, 136, 150))
    run(as_exchange(Password(), clock=clock), ScriptedKdc())


def test_hints_are_no_kinds_of_preauthentication() -> None:
    assert preauth_kinds((2, 3, 11, 19, 133, 137, 150)) == ["encrypted timestamp"]
    assert preauth_kinds((16, 17, 147, 151, 999)) == ["PKINIT", "SPAKE", "type 999"]


@pytest.mark.parametrize(
    "service", ["HTTP/web.example.test", "cifs/nas.example.test", "MSSQLSvc/db.example.test:1433"]
)
def test_a_service_without_aes_keys_is_told_how_to_get_them(service: str) -> None:
    principal = Principal.parse(f"{service}@EXAMPLE.TEST")
    error = said(14, label=ExchangeLabel("TGS", ALICE, principal))
    assert isinstance(error, KdcEtypeError)
    assert str(error).startswith(f"no encryption type in common with {principal}")
    assert "msDS-SupportedEncryptionTypes to 24" in str(error)
    assert "the service's account" not in str(said(14))


@pytest.mark.parametrize("host", ["www.north.test", "intranet", "mail.north.test:8080"])
def test_an_unknown_service_is_told_that_aliases_are_not_resolved(host: str) -> None:
    error = said(7, service=Principal.parse(f"HTTP/{host}@NORTH.TEST"))
    assert isinstance(error, ServiceUnknownError)
    assert "alias" in str(error)
    assert "canonicalize_host" in str(error)
    assert "capital" not in str(error)
    assert "letters" not in str(error)
    assert "alias" not in str(said(7))  # a TGS is no host


def test_an_unknown_service_whose_host_has_capitals_is_told_the_small_name() -> None:
    assert "web.north.test" in str(said(7, service=Principal.parse("HTTP/WEB.north.test@N.TEST")))


@pytest.mark.parametrize(
    ("service", "usual"),
    [("http/web.n.test", "HTTP/web.n.test"), ("HOST/WEB.n.test", "host/web.n.test")],
)
def test_an_unknown_service_whose_class_is_in_other_letters_is_told_the_usual_ones(
    service: str, usual: str
) -> None:
    assert f"try {usual}" in str(said(7, service=Principal.parse(f"{service}@N.TEST")))


@pytest.mark.parametrize(
    ("client", "advice"),
    [
        ("Anna", "compare letters exactly: try anna"),
        ("anna/admin", "if this is a service's name (SPN)"),
        ("WEB1$", "check the name and the realm (case-sensitive)"),
        ("anna", "check the name and the realm (case-sensitive)"),
    ],
)
def test_an_unknown_client_is_told_what_may_be_wrong_with_its_name(
    client: str, advice: str
) -> None:
    label = ExchangeLabel("AS", Principal.parse(f"{client}@N.TEST"), LABEL.service)
    text = str(said(6, label=label))
    assert advice in text
    assert ("letters" in text) == ("letters" in advice)


@pytest.mark.parametrize(
    ("client", "hint"),
    [
        (Principal.parse("HTTP/web.north.test@NORTH.TEST"), "a service's name"),
        (Principal.parse("host/web@NORTH.TEST"), "a service's name"),
        (Principal(("john.doe@mail.example",), "AD.NORTH.TEST"), "kinit -E"),
        (Principal(("jane@north.test",), "AD.NORTH.TEST"), "enterprise"),
    ],
)
def test_an_unknown_client_is_told_what_kind_of_name_it_is(client: Principal, hint: str) -> None:
    error = said(6, label=ExchangeLabel("AS", client, WEB))
    assert isinstance(error, ClientUnknownError)
    assert hint in str(error)
    assert hint not in str(said(6))


def test_an_enterprise_name_is_not_told_to_become_one() -> None:
    name = Principal(("john.doe@mail.example",), "AD.NORTH.TEST", NameType.ENTERPRISE)
    assert "kinit -E" not in str(said(6, label=ExchangeLabel("AS", name, WEB)))


def test_a_computers_refused_password_is_told_who_changes_it() -> None:
    computer = ExchangeLabel("AS", Principal.parse("WEB1$@AD.TEST"), WEB)
    assert "a computer changes the password of its account" in str(said(24, label=computer))
    assert "computer" not in str(said(24))
