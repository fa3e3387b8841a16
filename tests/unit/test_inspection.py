"""`purekrb.inspection`: every form in which people paste, every kind of message, and no secret."""

from __future__ import annotations

import base64
import json
import struct
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest

from purekrb import DecodeError, EncryptionKey, Initiator, KerberosError
from purekrb.constants import (
    KRB5_MECH_OID,
    NEGOEX_OID,
    AuthDataType,
    ErrorCode,
    KeyUsage,
    NameType,
    PaDataType,
)
from purekrb.crypto import encrypt, random_key
from purekrb.errors import PacError
from purekrb.gss.framing import frame, frame_mechanism
from purekrb.inspection.capture import messages
from purekrb.inspection.describe import describe, lines
from purekrb.inspection.pasted import describe_pasted, from_text
from purekrb.keys import etype_name
from purekrb.messages.ap import AuthorizationDataEntry, EncryptedData, HostAddress, KrbError
from purekrb.messages.der import tlv
from purekrb.messages.kdc import EtypeInfo2, EtypeInfo2Entry, MethodData, PaData, PaEncTsEnc
from purekrb.messages.ndr import Ndr
from purekrb.messages.pac_buffers import Claims, DelegationInfo, DeviceInfo
from purekrb.messages.spnego import NegTokenInit
from purekrb.names import PrincipalName
from purekrb.oids import OID_NAMES, dotted, oid_name, oid_text
from support import cldap_stub
from support.contexts import if_relevant
from support.pac_buffers import CLAIMS, claims_set, compressed, delegation, device, metadata, pac_of
from support.tickets import issue
from support.vectors import load

NTLM_NEGOTIATE = base64.b64decode("TlRMTVNTUAABAAAAl4II4gAAAAAAAAAAAAAAAAAAAAAKAGFKAAAADw==")
#: Made after MS-NLMP 4.2.4.3: user "User" of "Domain" at COMPUTER.
NTLM_AUTHENTICATE = bytes.fromhex(
    "4e544c4d5353500003000000180018006c00000054005400840000000c000c0048000000080008005400000010001000"
    "5c00000000000000d8000000358288e20501280a0000000f44006f006d00610069006e00550073006500720043004f00"
    "4d005000550054004500520086c35097ac9cec102554764a57cccc19aaaaaaaaaaaaaaaa68cd0ab851e51c96aabc927b"
    "ebef6a1c01010000000000000000000000000000aaaaaaaaaaaaaaaa0000000002000c0044006f006d00610069006e00"
    "01000c005300650072007600650072000000000000000000"
)


def at(tree: Any, *path: str | int) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def token() -> bytes:
    return bytes(Initiator(issue(18)[0]).step() or b"")


def error(code: int, e_data: bytes | None = None) -> bytes:
    name = PrincipalName(("krbtgt", "AD.TEST"), NameType.SRV_INST)
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return KrbError(
        5, 30, None, None, now, 0, code, None, None, "AD.TEST", name, None, e_data
    ).encode()


def text(tree: Any) -> str:
    return json.dumps(tree, default=str)


# -- MIT's references

#: What MIT's encoder writes and nothing on a wire holds: keys of its database, its own cookie,
#: SAM (an abandoned draft), the input of a key derivation, an AuthPack without a public key.
UNKNOWN = {
    "sam_challenge_2",
    "sam_challenge_2_body",
    "sam_response_2",
    "secure_cookie",
    "auth_pack",
    "sp80056a_other_info",
    "ldap_seqof_key_data",
}
#: The field names that each reference shows, beside the values that MIT set.
NAMED = {
    "safe": "KRB-SAFE",
    "priv": "KRB-PRIV",
    "enc_priv_part": "EncKrbPrivPart",
    "pa_for_user": "PA-FOR-USER",
    "pa_s4u_x509_user": "PA-S4U-X509-USER",
    "ad_kdcissued": "AD-KDCIssued",
    "iakerb_header": "IAKERB-HEADER",
    "iakerb_finished": "IAKERB-FINISHED",
    "fast_response": "KrbFastResponse",
    "pa_fx_fast_reply": "PA-FX-FAST-REPLY",
    "otp_tokeninfo": "OTP-TOKENINFO",
    "pa_otp_challenge": "PA-OTP-CHALLENGE",
    "pa_otp_req": "PA-OTP-REQUEST",
    "kkdcp_message": "KDC-PROXY-MESSAGE",
    "cammac": "AD-CAMMAC",
    "pa_spake(support)": "SPAKE",
    "pa_spake(challenge)": "SPAKE",
    "pa_spake(response)": "SPAKE",
    "pa_spake(encdata)": "SPAKE",
    "pa_pk_as_req": "PA-PK-AS-REQ",
    "pa_pk_as_rep(dhInfo)": "PA-PK-AS-REP",
    "pa_pk_as_rep(encKeyPack)": "PA-PK-AS-REP",
    "kdc_dh_key_info": "KDCDHKeyInfo",
    "reply_key_pack": "ReplyKeyPack",
}
REFERENCES = [
    pytest.param(entry, id=f"{file}-{entry['name']}")
    for file in ("asn1", "asn1_other")
    for entry in load(f"{file}.json")
]


@pytest.mark.parametrize("entry", REFERENCES)
def test_each_reference_of_mits_encoder_is_named(entry: dict[str, Any]) -> None:
    if entry["name"] in UNKNOWN:
        with pytest.raises(DecodeError, match="neither a Kerberos message nor a part of one"):
            describe(entry["der"])
        return
    tree = describe(entry["der"])
    (name,) = tree
    assert NAMED.get(entry["name"].partition("(opt")[0], name) == name
    assert text(tree[name]) not in ("null", '""')
    assert list(lines(tree))


@pytest.mark.parametrize("entry", REFERENCES)
def test_no_cut_or_changed_reference_fails_untyped(entry: dict[str, Any]) -> None:
    data = entry["der"]
    for index in range(0, len(data), 1 + len(data) // 40):
        for damaged in (
            data[:index],
            data[:index] + bytes([data[index] ^ 0x41]) + data[index + 1 :],
        ):
            try:
                text(describe(damaged))
            except KerberosError:
                continue


def test_keys_in_mits_references_are_not_shown() -> None:
    for entry in load("asn1_other.json"):
        if entry["name"] in ("reply_key_pack", "fast_response"):
            # MIT's key is "12345678"; its checksum, "1234", is a part of it.
            assert b"12345678".hex() not in text(describe(entry["der"]))
            assert b"12345678".hex() in text(describe(entry["der"], show_keys=True))


def test_one_time_passwords_are_not_shown() -> None:
    (entry,) = [e for e in load("asn1_other.json") if e["name"] == "pa_otp_req"]
    tree = describe(entry["der"])["PA-OTP-REQUEST"]
    assert tree["hashAlg"] == "sha256 (2.16.840.1.101.3.4.2.1)"
    assert (tree["otp_value"], tree["otp_pin"]) == ("<5 bytes>", "<10 bytes>")


# -- names


def test_every_etype_of_windows_has_a_name() -> None:
    assert etype_name(-133) == "rc4-hmac-old"
    assert etype_name(-128) == "rc4-md4"
    assert etype_name(-149) == "aes256-cts-hmac-sha1-96-plain"
    assert etype_name(-999) == "etype -999"


def test_an_oid_is_shown_by_name_and_number() -> None:
    assert oid_text(KRB5_MECH_OID) == "Kerberos V5 (1.2.840.113554.1.2.2)"
    assert oid_name(bytes.fromhex("2b0601050502")) == "SPNEGO (Negotiate)"
    assert oid_text(bytes.fromhex("608648016503040201")) == "sha256 (2.16.840.1.101.3.4.2.1)"
    assert oid_text(bytes.fromhex("2a0304")) == oid_name(bytes.fromhex("2a0304")) == "OID 1.2.3.4"
    assert dotted(b"\x88\x37") == "2.999"
    assert oid_text(b"\x80") == "OID 80"
    with pytest.raises(DecodeError):
        dotted(b"")
    assert all(name == name.strip() for name in OID_NAMES.values())


@pytest.mark.parametrize(
    ("kind", "data", "shown"),
    [
        (2, bytes([192, 0, 2, 1]), "192.0.2.1"),
        (24, bytes.fromhex("20010db8000000000000000000000001"), "2001:db8::1"),
        (20, b"CLIENT          ", "CLIENT"),
        (3, b"\0\0\0\1", "of the acceptor"),
        (2, b"\1\2\3", "<3 bytes>"),
        (7, b"\1\2", "0102"),
    ],
)
def test_a_host_address_is_readable(kind: int, data: bytes, shown: str) -> None:
    ticket, (entry,) = issue(18, caddr=(HostAddress(kind, data),))
    part = at(
        describe(ticket.ticket, [entry.key]), "Ticket", "enc_part", "decrypted", "EncTicketPart"
    )
    assert part["caddr"][0]["address"] == shown


# -- how it is pasted


def hexdump(data: bytes, form: str, tail: bool = True) -> str:
    rows = []
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        plain = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in row)
        first, second = row[:8].hex(" "), row[8:].hex(" ")
        spelled = {
            "{:04x}   {}": row.hex(" "),
            "{:08x}  {}": f"{first}  {second}",
            "{:08x}: {}": row.hex(" ", -2),
            "\t0x{:04x}:  {}": row.hex(" ", -2),
            "{:07o} {}": row.hex(" "),
        }[form]
        end = f"  |{plain}|" if "08x}  " in form else f"  {plain}"
        rows.append(form.format(offset, spelled.ljust(49)) + (end if tail else ""))
    return "\n".join(rows)


SPELLINGS: dict[str, Any] = {
    "hex": bytes.hex,
    "HEX": lambda data: data.hex().upper(),
    "blanks": lambda data: data.hex(" "),
    "colons": lambda data: data.hex(":"),
    "dashes": lambda data: data.hex("-"),
    "lines": lambda data: "\n".join(data.hex()[n : n + 63] for n in range(0, 2 * len(data), 63)),
    "0x": lambda data: ", ".join(f"0x{octet:02x}" for octet in data),
    "array": lambda data: "{ " + ", ".join(f"0x{octet:02X}" for octet in data) + " };",
    "c": lambda data: '"' + "".join(f"\\x{octet:02x}" for octet in data) + '"',
    "c in lines": lambda data: "\n".join(
        '"' + "".join(f"\\x{octet:02x}" for octet in data[n : n + 16]) + '"'
        for n in range(0, len(data), 16)
    ),
    "python": repr,
    "base64": lambda data: base64.b64encode(data).decode(),
    "base64 in lines": lambda data: base64.encodebytes(data).decode(),
    "base64 with blanks": lambda data: "  " + base64.b64encode(data).decode()[:20] + " \r\n "
    + base64.b64encode(data).decode()[20:],
    "base64url": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "quoted": lambda data: f'"{base64.b64encode(data).decode()}",',
    "percent": lambda data: base64.b64encode(data).decode().replace("+", "%2B").replace("=", "%3D"),
    "pem": lambda data: "-----BEGIN TOKEN-----\n" + base64.encodebytes(data).decode() + "-----END TOKEN-----",
    "wireshark": lambda data: hexdump(data, "{:04x}   {}"),
    "wireshark without text": lambda data: hexdump(data, "{:04x}   {}", tail=False),
    "hexdump -C": lambda data: hexdump(data, "{:08x}  {}"),
    "xxd": lambda data: hexdump(data, "{:08x}: {}"),
    "tcpdump -x": lambda data: hexdump(data, "\t0x{:04x}:  {}", tail=False),
    "od": lambda data: hexdump(data, "{:07o} {}", tail=False),
}  # fmt: skip


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=list(SPELLINGS))
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15])
def test_bytes_are_read_in_every_spelling(spell: Any, size: int) -> None:
    # The last row of a dump has any size; what it stands for may look like hexadecimal.
    for data in (
        error(25) + b"abcdef01234567 "[:size],
        bytes(range(33)) + b"ab cd  ef|12  "[:size],
    ):
        assert from_text(spell(data).encode()) == data


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Negotiate {}",
        "authorization: negotiate {}\r\n",
        "WWW-Authenticate: Negotiate {}",
        "Proxy-Authorization: Negotiate {}",
        "Proxy-Authenticate: Kerberos {}",
        "< WWW-Authenticate: Negotiate {}",
        "> Authorization: Negotiate {}\n> Accept: */*",
        "'Authorization': 'Negotiate {}',",
        '"Authorization": "Negotiate {}"',
        "-H 'Authorization: Negotiate {}'",
        "GET / HTTP/1.1\r\nHost: web\r\nAuthorization: Negotiate {}\r\nAccept: */*\r\n\r\n",
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate {}\r\nServer: x\r\n\r\n<html>no</html>",
        "Negotiate {}",
        "AUTH GSSAPI {}",
        "A1 AUTHENTICATE GSSAPI {}",
    ],
)
def test_a_whole_header_line_is_read(line: str) -> None:
    written = base64.b64encode(token()).decode()
    tree = describe_pasted(line.format(written).encode())
    (field,) = tree.values()
    assert at(field, "GSS-API token", "mechanism") == "Kerberos V5"
    assert "ApReq" in field["GSS-API token"]


def test_a_header_line_may_be_broken_into_several() -> None:
    written = base64.b64encode(token()).decode()
    broken = "\n".join(written[n : n + 60] for n in range(0, len(written), 60))
    for start in ("Authorization: Negotiate ", "Negotiate "):
        (field,) = describe_pasted(f"{start}{broken}\n".encode()).values()
        assert "ApReq" in field["GSS-API token"]


def test_each_scheme_of_a_challenge_is_named() -> None:
    lines_ = (
        b"WWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\nWWW-Authenticate: Basic realm=x"
    )
    fields = describe_pasted(lines_)["header fields"]
    assert [field["WWW-Authenticate"]["scheme"] for field in fields] == [
        "Negotiate",
        "NTLM",
        "Basic",
    ]
    assert fields[0]["WWW-Authenticate"]["token"] == "none"
    written = base64.b64encode(NTLM_NEGOTIATE).decode()
    tree = describe_pasted(f'WWW-Authenticate: Negotiate {written}, Basic realm="a, b"'.encode())
    first, second = tree["WWW-Authenticate"]["schemes"]
    assert "NTLM NEGOTIATE" in first
    assert second["scheme"] == "Basic"


@pytest.mark.parametrize(
    "value",
    [
        "Basic YWxpY2U6aHVudGVyMg==",
        "Bearer eyJh.hunter2.x",
        'Digest username="a", response="hunter2"',
    ],
)
def test_a_password_in_a_header_is_not_shown(value: str) -> None:
    shown = text(describe_pasted(f"Authorization: {value}".encode()))
    assert "not shown" in shown
    assert not any(secret in shown for secret in ("hunter2", "YWxpY2U6", "eyJh"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n<html>", "HTML"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"Authorization: Negotiate %%%", "names no|base64"),
        (b"alice@EXAMPLE.TEST", "neither an existing file nor hexadecimal"),
    ],
)
def test_what_is_no_token_is_named(data: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        describe_pasted(data)


# -- tokens of other mechanisms


def test_an_ntlm_message_is_named_and_its_fields_are_shown() -> None:
    tree = describe(NTLM_AUTHENTICATE)["NTLM AUTHENTICATE"]
    assert (tree["domain"], tree["user"], tree["workstation"]) == ("Domain", "User", "COMPUTER")
    assert tree["version of the response"] == "NTLMv2"
    assert tree["target_info"] == {"NbDomainName": "Domain", "NbComputerName": "Server"}
    assert tree["nt_response"] == "<84 bytes>"
    assert "68cd0ab8" not in text(tree), "a password can be guessed from the response"
    assert "68cd0ab8" in text(describe(NTLM_AUTHENTICATE, show_keys=True))
    assert "VERSION" in describe(NTLM_NEGOTIATE)["NTLM NEGOTIATE"]["flags"]
    challenge = (
        b"NTLMSSP\0\2\0\0\0" + struct.pack("<HHI", 12, 12, 48) + struct.pack("<I", 0x00800001)
        + b"01234567" + bytes(8) + struct.pack("<HHI", 20, 20, 60)
        + "Domain".encode("utf-16-le")
        + struct.pack("<HHQ", 7, 8, 132_500_000_000_000_000) + struct.pack("<HHI", 6, 4, 2)[:4] + bytes(4)
    )  # fmt: skip
    tree = describe(challenge)["NTLM CHALLENGE"]
    assert tree["target"] == "Domain"
    assert tree["server_challenge"] == b"01234567".hex()
    assert tree["target_info"]["Timestamp"].year == 2020
    for size in range(len(NTLM_AUTHENTICATE)):
        with pytest.raises(DecodeError):
            describe(NTLM_AUTHENTICATE[:size])


def test_negoex_is_named() -> None:
    message = struct.pack("<8sIIII16s", b"NEGOEXTS", 0, 0, 96, 96, bytes(16)) + bytes(56)
    tree = describe(NegTokenInit((NEGOEX_OID,), None, message).encode())
    assert at(tree, "NegTokenInit", "mech_types") == ["NegoEx"]
    assert at(tree, "NegTokenInit", "mech_token", "NEGOEX messages", 0, "type") == "INITIATOR_NEGO"
    with pytest.raises(DecodeError):
        describe(message[:-1])


def test_user_to_user_tokens_are_decoded() -> None:
    oid = KRB5_MECH_OID + b"\x03"
    name = tlv(0xA2, PrincipalNameDer("host", "peer"))
    request = tlv(
        0x30, b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x10" + name + tlv(0xA3, tlv(0x1B, b"R"))
    )
    for data in (frame(b"\x04\x00", request, oid), b"\x04\x00" + request):
        (tree,) = [describe(data).get("GSS-API token", describe(data))]
        assert tree["KERB-TGT-REQUEST"]["server_name"] == "host/peer (SRV_INST 2)"
    assert (
        at(describe(frame(b"\x04\x00", request, oid)), "GSS-API token", "mechanism")
        == "Kerberos user-to-user"
    )
    reply = tlv(0x30, b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x11" + tlv(0xA2, issue(18)[0].ticket))
    tree = at(describe(frame(b"\x04\x01", reply, oid)), "GSS-API token", "KERB-TGT-REPLY")
    assert tree["ticket"]["realm"] == issue(18)[0].service.realm


def PrincipalNameDer(*components: str) -> bytes:
    parts = b"".join(tlv(0x1B, part.encode()) for part in components)
    return tlv(0x30, tlv(0xA0, b"\x02\x01\x02") + tlv(0xA1, tlv(0x30, parts)))


@pytest.mark.parametrize("tag", [0x04, 0x0C], ids=["as MIT writes it", "as the draft has it"])
def test_iakerb_tokens_are_decoded(tag: int) -> None:
    header = tlv(0x30, tlv(0xA1, tlv(tag, b"AD.TEST")))
    inner = b"\x05\x01" + header + error(25)
    framed = frame_mechanism(bytes.fromhex("2b0601050205"), inner)
    for tree in (describe(inner), describe(framed)["GSS-API token"]):
        assert tree["IAKERB-HEADER"] == {"target_realm": "AD.TEST"}
        assert tree["KrbError"]["error_code"] == "KDC_ERR_PREAUTH_REQUIRED 25"
    assert at(describe(framed), "GSS-API token", "mechanism") == "IAKERB"
    assert "IAKERB-HEADER" in describe(b"\x05\x01" + header), "no message asks for the realm"


def test_a_mechanism_that_is_not_kerberos_is_named() -> None:
    data = frame_mechanism(bytes.fromhex("2b06010505" + "0e"), b"n,,n=alice,r=secret")
    assert describe(data)["GSS-API token"] == {"mechanism": "SCRAM-SHA-1", "token": "<19 bytes>"}


# -- KDC messages


def test_a_message_with_its_tcp_length_is_read() -> None:
    message = error(25)
    framed = len(message).to_bytes(4, "big") + message
    tree = describe(framed)
    assert tree["TCP length"] == len(message)
    assert "KrbError" in tree
    assert len(describe(framed * 3)["messages"]) == 3
    with pytest.raises(DecodeError):
        describe(framed[:-1])


def test_what_a_domain_controller_says_of_itself_is_read() -> None:
    tree = describe(cldap_stub.entry(b"\2\1\7", cldap_stub.netlogon("Lyon", flags=0x1A8)))[
        "Netlogon"
    ]
    assert tree["host"] == "dc1.example.test"
    assert (tree["dc_site"], tree["client_site"]) == ("Paris", "Lyon")
    assert tree["flags"] == ["LDAP", "KDC", "CLOSEST", "WRITABLE"]
    assert tree["message_id"] == 7
    with pytest.raises(DecodeError, match="neither a Kerberos message"):
        describe(cldap_stub.entry(b"\2\1\7", b"?" * 40))


def test_a_kpasswd_request_is_read() -> None:
    (priv,) = [e["der"] for e in load("asn1_other.json") if e["name"] == "priv"]
    (ap_req,) = [e["der"] for e in load("asn1.json") if e["name"] == "ApReq"]
    body = struct.pack(">HH", 0xFF80, len(ap_req)) + ap_req + priv
    tree = describe(struct.pack(">H", len(body) + 2) + body)["kpasswd"]
    assert tree["version"] == "0xff80"
    assert {"ApReq", "KRB-PRIV"} <= set(tree)


ACCOUNT_DISABLED = bytes.fromhex("720000c00000000001000000")


def test_the_status_in_e_data_is_shown_in_both_forms() -> None:
    element = PaData(PaDataType.PW_SALT, ACCOUNT_DISABLED)
    salts = PaData(
        PaDataType.ETYPE_INFO2, EtypeInfo2((EtypeInfo2Entry(18, b"AD.TESTa", None),)).encode()
    )
    in_list = at(describe(error(18, MethodData((salts, element)).encode())), "KrbError", "e_data")
    assert in_list[0]["padata_value"][0]["salt"] == "AD.TESTa"
    assert in_list[1]["padata_value"]["NTSTATUS"] == "0xC0000072 (the account is disabled)"
    bare = at(describe(error(18, element.encode())), "KrbError", "e_data")
    assert "0xC0000072" in bare["padata_value"]["NTSTATUS"]
    windows = tlv(0x30, tlv(0xA1, b"\x02\x01\x03") + tlv(0xA2, tlv(4, ACCOUNT_DISABLED)))
    assert at(describe(error(18, windows)), "KrbError", "e_data") == bare
    assert at(describe(error(60, b"some text\0")), "KrbError", "e_data") == "some text"
    assert at(describe(error(60, b"\xff\xfe")), "KrbError", "e_data") == "fffe"


def test_padata_are_named_and_decoded() -> None:
    key = random_key(18)
    stamp = PaEncTsEnc(datetime(2026, 1, 1, tzinfo=timezone.utc), 7).encode()
    challenge = EncryptedData(18, None, encrypt(key, KeyUsage.ENC_CHALLENGE_CLIENT, stamp)).encode()
    (spake,) = [e["der"] for e in load("asn1_other.json") if e["name"] == "pa_spake(challenge)"]
    key_der = tlv(0x30, b"\xa0\x03\x02\x01\x12\xa1\x06\x04\x04\x01\x02\x03\x04")
    padata = (
        PaData(PaDataType.FX_FAST, b""),
        PaData(PaDataType.ENCRYPTED_CHALLENGE, challenge),
        PaData(PaDataType.SPAKE, spake),
        PaData(PaDataType.SUPPORTED_ENCTYPES, (0x1001C).to_bytes(4, "little")),
        PaData(PaDataType.PAC_OPTIONS, tlv(0x30, tlv(0xA0, b"\x03\x05\x00\x10\x00\x00\x00"))),
        PaData(PaDataType.FX_COOKIE, b"MIT"),
        PaData(999, b"\1\2"),
        PaData(PaDataType.KERB_KEY_LIST_REP, tlv(0x30, key_der)),
    )  # fmt: skip
    found = at(describe(error(25, MethodData(padata).encode()), [key]), "KrbError", "e_data")
    by_type = {entry["padata_type"]: entry.get("padata_value") for entry in found}
    assert by_type["FX_FAST 136"] is None
    stamp_tree = at(by_type["ENCRYPTED_CHALLENGE 138"], "decrypted", "PA-ENC-TS-ENC")
    assert stamp_tree["pausec"] == 7
    assert at(by_type["SPAKE 151"], "challenge", "group") == "edwards25519"
    assert by_type["SUPPORTED_ENCTYPES 165"] == [
        "rc4-hmac", "aes128-cts-hmac-sha1-96", "aes256-cts-hmac-sha1-96", "FAST",
    ]  # fmt: skip
    assert by_type["PAC_OPTIONS 167"]["flags"] == ["resource-based-constrained-delegation"]
    assert by_type["999"] == "0102"
    assert by_type["KERB_KEY_LIST_REP 162"][0]["contents"] == "<4 bytes>"


def test_every_number_of_the_tables_has_one_name() -> None:
    for enum in (PaDataType, AuthDataType, ErrorCode):
        assert len({int(member) for member in enum}) == len(enum.__members__)


# -- the PAC


@pytest.mark.parametrize("entry", load("pac.json"), ids=lambda entry: entry["source"][14:])
def test_each_buffer_of_a_recorded_pac_is_named(entry: dict[str, Any]) -> None:
    key = EncryptionKey(entry["etype"], entry["service_key"])
    part = at(describe(entry["ticket"], [key]), "Ticket", "enc_part", "decrypted", "EncTicketPart")
    pac = at(part, "authorization_data", 0, "ad_data", 0, "ad_data")
    assert {"CLIENT_INFO 10", "SERVER_CHECKSUM 6", "KDC_CHECKSUM 7", "TICKET_CHECKSUM 16"} <= set(
        pac
    )
    assert all(isinstance(tree, dict | list) or "bytes" not in tree for tree in pac.values())
    if entry["identity"]["user_sid"]:
        assert pac["LOGON_INFO 1"]["user_sid"] == entry["identity"]["user_sid"]
        assert pac["LOGON_INFO 1"]["groups"] == entry["identity"]["group_sids"]


def shown_pac(buffers: dict[int, bytes], **options: Any) -> dict[str, Any]:
    entry = if_relevant(AuthorizationDataEntry(AuthDataType.WIN2K_PAC, pac_of(buffers)))
    ticket, (keytab,) = issue(18, authorization_data=(entry,))
    tree = describe(ticket.ticket, [keytab.key], **options)
    part = at(tree, "Ticket", "enc_part", "decrypted", "EncTicketPart")
    found: dict[str, Any] = at(part, "authorization_data", 0, "ad_data", 0, "ad_data")
    return found


def test_claims_delegation_device_and_the_other_buffers_are_shown() -> None:
    tree = shown_pac(
        {
            2: struct.pack("<II", 0, 18) + b"secret hashes",
            11: delegation(),
            13: metadata(0, claims_set()),
            14: device(),
            15: metadata(2, b"compressed"),
            17: struct.pack("<II", 2, 1),
            18: bytes.fromhex("010500000000000515000000010000000200000003000000f4010000"),
            99: b"unknown",
        }
    )
    assert tree["CLIENT_CLAIMS_INFO 13"] == CLAIMS
    assert "compressed by LZNT1" in tree["DEVICE_CLAIMS_INFO 15"]
    assert tree["DELEGATION_INFO 11"] == {"target": "HTTP/a@AD1", "transited": ["svc1"]}
    assert tree["DEVICE_INFO 14"]["device"] == "S-1-5-21-1-2-3-1104"
    assert tree["DEVICE_INFO 14"]["groups"] == [
        "S-1-5-21-1-2-3-515",
        "S-1-5-18-1",
        "S-1-5-21-9-9-9-600",
    ]
    assert tree["ATTRIBUTES_INFO 17"] == ["PAC_WAS_REQUESTED"]
    assert tree["REQUESTER_SID 18"] == "S-1-5-21-1-2-3-500"
    assert tree["CREDENTIALS_INFO 2"] == {
        "version": 0,
        "etype": "aes256-cts-hmac-sha1-96",
        "cipher": "<13 bytes>",
    }
    assert tree["99"] == "<7 bytes>"


def test_compressed_claims_and_a_read_only_controllers_signature_are_shown() -> None:
    blob = claims_set()
    tree = shown_pac(
        {
            7: struct.pack("<i", 16) + bytes(12) + b"\x34\x12",
            13: metadata(4, compressed(blob), len(blob)),
            16: struct.pack("<i", 16) + bytes(12),
        }
    )
    assert tree["CLIENT_CLAIMS_INFO 13"] == CLAIMS
    assert tree["KDC_CHECKSUM 7"]["rodc_identifier"] == 0x1234
    assert tree["KDC_CHECKSUM 7"]["signature"] == "00" * 12
    assert "rodc_identifier" not in tree["TICKET_CHECKSUM 16"]


@pytest.mark.parametrize("decode", [Claims.decode, DelegationInfo.decode, DeviceInfo.decode])
@pytest.mark.parametrize("data", [metadata(0, claims_set()), delegation(), device()])
def test_damaged_buffers_are_refused_and_bounded(decode: Any, data: bytes) -> None:
    for index in range(len(data)):
        for damaged in (data[:index], data[:index] + b"\xff" + data[index + 1 :]):
            try:
                decode(damaged)
            except PacError:
                continue
    with pytest.raises(PacError):
        Ndr(b"", "test")
    tree = shown_pac({13: data[: len(data) // 2]})
    assert str(tree["CLIENT_CLAIMS_INFO 13"]).startswith("<")


# -- captures


def ip4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    ends = b"".join(bytes(map(int, end.split("."))) for end in (source, destination))
    return (
        struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + ends + payload
    )


def ip6(protocol: int, payload: bytes) -> bytes:
    return (
        struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
        + bytes(15)
        + b"\1"
        + bytes(15)
        + b"\2"
        + payload
    )


def udp(source: int, destination: int, data: bytes) -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(data), 0) + data


def tcp(source: int, destination: int, sequence: int, data: bytes, flags: int = 0x18) -> bytes:
    return struct.pack(">HHIIBBHHH", source, destination, sequence, 0, 0x50, flags, 9, 0, 0) + data


def pcap(link: int, frames: list[bytes], order: str = "<") -> bytes:
    data = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for number, frame_ in enumerate(frames):
        data += (
            struct.pack(order + "IIII", 1_700_000_000 + number, 5, len(frame_), len(frame_))
            + frame_
        )
    return data


def pcapng(link: int, frames: list[bytes]) -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))

    data = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(1, struct.pack("<HHI", link, 0, 65535) + struct.pack("<HHB3xHH", 9, 1, 9, 0, 0))
    for number, frame_ in enumerate(frames):
        time = (1_700_000_000 + number) * 10**9
        data += block(
            6,
            struct.pack("<IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(frame_), len(frame_))
            + frame_,
        )
    return data


LINKS = {
    0: b"\2\0\0\0",
    1: bytes(12) + b"\x08\x00",
    101: b"",
    113: bytes(14) + b"\x08\x00",
    276: bytes(20),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    "write", [pcap, pcapng, lambda link, frames: pcap(link, frames, ">")], ids=["le", "ng", "be"]
)
def test_the_messages_of_a_capture_are_found(link: int, write: Any) -> None:
    first, second = error(25), error(68)
    stream = b"".join(len(m).to_bytes(4, "big") + m for m in (first, second))
    there = ("10.0.0.1", "10.0.0.2")
    packets = [
        ip4(*there, 17, udp(4000, 88, first)),
        ip4(*there[::-1], 17, udp(88, 4000, second)),
        ip4(*there, 17, udp(53, 53, b"other")),
        ip4(*there, 6, tcp(5000, 88, 99, b"", flags=2)),
        ip4(*there, 6, tcp(5000, 88, 100 + 50, stream[50:])),  # out of order
        ip4(*there, 6, tcp(5000, 88, 100, stream[:60])),  # overlapping
        ip4(*there, 1, b"ping"),
    ]
    tree = describe(write(link, [LINKS[link] + packet for packet in packets]))["captured messages"]
    assert [each["KrbError"]["error_code"] for each in tree].count("KDC_ERR_WRONG_REALM 68") == 2
    assert len(tree) == 4
    assert tree[0]["source"] == "10.0.0.1:4000"
    assert tree[0]["destination"] == "10.0.0.2:88"
    assert tree[0]["time"].year == 2023


def test_vlans_ipv6_and_single_packets_are_read() -> None:
    packet = ip6(17, udp(88, 9, error(25)))
    frame_ = bytes(12) + b"\x81\x00\x00\x01\x86\xdd" + packet
    (found,) = messages(pcap(1, [frame_]))
    assert (found.source, found.destination) == ("[::1]:88", "[::2]:9")
    for data in (packet, frame_, bytes(12) + b"\x86\xdd" + packet):
        assert "KrbError" in describe(data)["packet"]
    message = error(25)
    one = ip4("10.0.0.1", "10.0.0.2", 6, tcp(1, 88, 7, len(message).to_bytes(4, "big") + message))
    assert at(describe_pasted(one.hex(" ").encode()), "packet", "source") == "10.0.0.1:1"


def test_a_damaged_capture_is_read_up_to_the_damage_or_refused() -> None:
    data = pcapng(1, [LINKS[1] + ip4("10.0.0.1", "10.0.0.2", 17, udp(1, 88, error(25)))] * 2)
    assert len(describe(data)["captured messages"]) == 2
    for size in range(4, len(data), 3):
        try:
            describe(data[:size])
        except DecodeError:
            continue
    with pytest.raises(DecodeError, match="no packet with data of the ports 88"):
        describe(pcap(1, []))


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN X-----\n" + b"-----END " * 100_000,
        b"Authorization: Negotiate \n" * 40_000,
        b"\\x41" * 200_000,
        b"\n".join(b"%04x  41" % n for n in range(50_000)),
        b"a " * 400_000,
        b"A1 " * 100_000 + b"AUTH",
        b" " * (1 << 20),
    ],
    ids=lambda data: data[:12].decode(),
)
def test_a_large_text_is_read_in_linear_time(data: bytes) -> None:
    started = time.process_time()
    with suppress(DecodeError):
        describe_pasted(data)
    assert time.process_time() - started < 10


# -- PKINIT


def test_a_login_by_certificate_is_shown_with_its_groups_and_certificates() -> None:
    from purekrb.exchanges.as_exchange import AsOptions, as_exchange
    from purekrb.exchanges.runner import KdcRequest, run
    from purekrb.testing import Realm
    from purekrb.testing.kdc_pkinit import KdcPkinit

    realm = Realm(pkinit=KdcPkinit("EXAMPLE.TEST", groups=("P-384",), key_exchange=True))
    realm.add_user("alice", "pw")
    seen: list[bytes] = []

    def send(request: KdcRequest) -> bytes:
        seen.extend((request.message, realm._kdc.handle(request.message)))
        return seen[-1]

    run(as_exchange(realm.issue_certificate("alice"), AsOptions()), send)
    _, offer, first, refusal, second, reply = map(describe, seen)
    assert "AS_FRESHNESS 150" in text(offer)
    content = first["AsReq"]["padata"][0]["padata_value"]["signed_auth_pack"]["content"]
    (certificate,), (signer,) = content["certificates"], content["signers"]
    assert certificate.startswith("alice, by CA of EXAMPLE.TEST, until ")
    assert signer["signature_algorithm"] == "ecdsa-with-SHA256 (1.2.840.10045.4.3.2)"
    assert "dhpublicnumber (1.2.840.10046.2.1), 2048 bits" in text(first)
    assert "ecPublicKey (1.2.840.10045.2.1), P-384" in text(second)
    (taken,) = refusal["KrbError"]["e_data"]
    assert taken["data_type"] == "TD_DH_PARAMETERS 109"
    assert taken["data_value"] == ["ecPublicKey (1.2.840.10045.2.1), P-384"]
    assert "KDCDHKeyInfo" in text(reply)
    assert "PKINIT_KX 147" in text(reply)
