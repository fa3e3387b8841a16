"""PACs that are cut, forged, contradictory or malformed (K201 to K210, K418, K428): nothing of them is believed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from purekrb import Acceptor, EncryptionKey, PacError, Principal, crypto
from purekrb.constants import AuthDataType, EncryptionType, ErrorCode, KeyUsage
from purekrb.exchanges.authorization_data import wrap_if_relevant
from purekrb.exchanges.identity import verified_pac
from purekrb.gss.framing import unframe
from purekrb.messages.ap import AuthorizationDataEntry, EncTicketPart, KrbError, Ticket
from purekrb.messages.pac import ClientInfo, LogonInfo, Pac, PacBuffer, PacSignature, UpnDnsInfo
from purekrb.sid import Sid
from support.pac import (
    DOMAIN,
    USER_SID,
    Buffers,
    assemble,
    buffers,
    client_info,
    element,
    established,
    logon_info,
    now,
    place,
    sign,
    unsigned,
    upn_info,
)
from support.tickets import issue
from support.values import replace

KEY = crypto.random_key(18)
AUTHTIME = now()


def genuine(**changes: Any) -> Buffers:
    return buffers(KEY, AUTHTIME, **changes)


def context(pac: bytes, **options: Any) -> Acceptor:
    """Return an established context whose ticket holds `pac`: the PAC counts when somebody asks for the identity."""
    return established((element(pac),), KEY, AUTHTIME, **options)


def refused(pac: bytes, match: str) -> None:
    accepted = context(pac)
    with pytest.raises(PacError, match=match) as caught:
        _ = accepted.identity
    assert caught.value.code == ErrorCode.KRB_AP_ERR_MODIFIED
    assert accepted.initiator == Principal.parse(
        "alice@EXAMPLE.TEST"
    )  # the ticket itself is genuine


def test_the_genuine_pac_is_accepted() -> None:
    assert context(sign(assemble(genuine()), KEY)).identity.user_sid == USER_SID
    assert context(sign(assemble(genuine()), KEY), require_pac=True).identity.user_sid == USER_SID


def entry(pac: bytearray, number: int, **fields: int) -> None:
    """Change an entry of the table of buffers."""
    at = 8 + 16 * number
    kind, size, offset = struct.unpack_from("<IIQ", pac, at)
    values = {"kind": kind, "size": size, "offset": offset} | fields
    struct.pack_into("<IIQ", pac, at, values["kind"], values["size"], values["offset"])


def count(pac: bytearray, number: int, version: int = 0) -> None:
    struct.pack_into("<II", pac, 0, number, version)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param(
            lambda pac: count(pac, 0x10000000), "announced", id="K201-cbuffers-0x10000000"
        ),
        pytest.param(
            lambda pac: count(pac, 0xFFFFFFFF), "announced", id="K201-cbuffers-0xffffffff"
        ),
        pytest.param(lambda pac: count(pac, 8, 1), "version 1", id="K201-version"),
        pytest.param(
            lambda pac: entry(pac, 0, offset=2**64 - 8), "outside", id="K201-offset-wraps"
        ),
        pytest.param(
            lambda pac: entry(pac, 0, size=0xFFFFFFFF), "outside", id="K201-size-overflows"
        ),
        pytest.param(
            lambda pac: entry(pac, 1, offset=len(pac) - 8), "outside", id="K201-ends-behind-the-pac"
        ),
        pytest.param(lambda pac: entry(pac, 0, offset=8 * 17 + 4), "outside", id="K201-unaligned"),
        pytest.param(lambda pac: entry(pac, 0, offset=8), "outside", id="K201-inside-the-table"),
        pytest.param(lambda pac: entry(pac, 0, size=480), "overlap", id="K201-overlap"),
        pytest.param(lambda pac: entry(pac, 0, kind=12), "twice", id="K206-duplicated-buffer"),
    ],
)
def test_a_malformed_table_of_buffers_is_refused(
    change: Callable[[bytearray], None], match: str
) -> None:
    pac = assemble(genuine())
    change(pac)
    refused(bytes(pac), match)


@pytest.mark.parametrize(
    "size", [pytest.param(size, id=f"K201-{size}-bytes") for size in (0, 1, 7, 8, 23)]
)
def test_a_pac_of_few_bytes_is_refused(size: int) -> None:
    refused(sign(assemble(genuine()), KEY)[:size], "cut off|announced|not signed|malformed")


def test_k201_an_empty_last_buffer_is_no_reason_to_fail() -> None:
    parts = genuine() | {99: b""}
    assert context(sign(assemble(parts), KEY)).identity.user_sid == USER_SID


@pytest.mark.parametrize(
    "kind", [PacBuffer.LOGON_INFO, PacBuffer.CLIENT_INFO, PacBuffer.UPN_DNS_INFO]
)
def test_k201_an_empty_buffer_of_a_known_type_is_refused(kind: PacBuffer) -> None:
    refused(sign(assemble(genuine() | {kind: b""}), KEY), "cut off|empty")


def test_k202_every_flipped_bit_of_the_pac_but_the_kdc_signature_is_refused() -> None:
    pac = sign(assemble(genuine()), KEY)
    at = place(pac, PacBuffer.KDC_CHECKSUM)
    unprotected = range(at + 4, at + 16)  # zero while the server signs, since the KDC signs last
    ticket, _ = issue(18, key=KEY, now=AUTHTIME)
    part = EncTicketPart.decode(
        crypto.decrypt(KEY, KeyUsage.TICKET, Ticket.decode(ticket.ticket).enc_part.cipher)
    )

    def verify(data: bytes) -> None:
        verified_pac(replace(part, authorization_data=(element(data),)), KEY)

    verify(pac)
    for bit in range(8 * len(pac)):
        if bit // 8 in unprotected:
            continue
        forged = bytearray(pac)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PacError):
            verify(bytes(forged))
    verify(pac)


def test_k202_a_pac_for_another_service_is_refused() -> None:
    other = crypto.random_key(18)
    refused(sign(assemble(genuine()), other), "another service")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(PacBuffer.SERVER_CHECKSUM, id="K203-no-server-checksum"),
        pytest.param(PacBuffer.KDC_CHECKSUM, id="K203-no-kdc-checksum"),
    ],
)
def test_a_pac_without_one_of_the_two_signatures_is_refused(kind: PacBuffer) -> None:
    parts = genuine()
    del parts[kind]
    refused(bytes(assemble(parts)), "not signed")


@pytest.mark.parametrize("fault", ["missing", "of-md5", "cut"])
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(PacBuffer.TICKET_CHECKSUM, id="K203-ticket-checksum"),
        pytest.param(PacBuffer.FULL_CHECKSUM, id="K203-full-checksum"),
    ],
)
def test_where_a_pac_is_required_ticket_and_pac_are_signed_as_a_whole(
    kind: PacBuffer, fault: str
) -> None:
    parts = genuine()
    if fault == "missing":
        del parts[kind]
    else:
        parts[kind] = struct.pack("<i", 7 if fault == "of-md5" else 16) + bytes(
            16 if fault == "of-md5" else 11
        )
    pac = sign(assemble(parts), KEY)
    assert context(pac).identity.user_sid == USER_SID
    with pytest.raises(PacError) as caught:
        context(pac, require_pac=True)
    assert isinstance(caught.value.response, bytes)


@pytest.mark.parametrize("cksumtype", [1, 7, -138, 15, 19, 20, 0x8003])
def test_k204_a_server_signature_of_another_type_than_the_keys_is_refused(cksumtype: int) -> None:
    parts = genuine()
    size = 16 if cksumtype in (-138, 19) else 24 if cksumtype == 20 else 12
    parts[PacBuffer.SERVER_CHECKSUM] = struct.pack("<I", cksumtype & 0xFFFFFFFF) + bytes(size)
    refused(sign(assemble(parts), KEY), "checksum type")


def test_k204_hmac_md5_made_with_the_bytes_of_an_aes_key_is_refused() -> None:
    weak = EncryptionKey(EncryptionType.RC4_HMAC, KEY.contents[:16])
    parts = genuine() | {PacBuffer.SERVER_CHECKSUM: unsigned(-138)}
    refused(sign(assemble(parts), weak), "checksum type -138")


@pytest.mark.parametrize(
    "info",
    [
        pytest.param(client_info("bob", AUTHTIME), id="K205-other-name"),
        pytest.param(client_info("Alice", AUTHTIME), id="K205-other-case"),
        pytest.param(
            client_info("alice", AUTHTIME + timedelta(seconds=1)), id="K205-other-authtime"
        ),
        pytest.param(None, id="K205-none"),
        pytest.param(client_info("alice", AUTHTIME)[:-1], id="K205-cut"),
        pytest.param(b"\xff" * 8 + b"\0\0", id="K205-no-time"),
    ],
)
def test_a_pac_about_another_client_is_refused(info: bytes | None) -> None:
    parts = genuine()
    if info is None:
        del parts[PacBuffer.CLIENT_INFO]
    else:
        parts[PacBuffer.CLIENT_INFO] = info
    refused(sign(assemble(parts), KEY), "client")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param(
            PacBuffer.REQUESTER_SID, Sid.parse(f"{DOMAIN}-500").encode(), id="K206-requester-sid"
        ),
        pytest.param(PacBuffer.UPN_DNS_INFO, upn_info(sid=f"{DOMAIN}-500"), id="K206-upn-sid"),
    ],
)
def test_a_pac_that_names_two_accounts_is_refused(kind: PacBuffer, data: bytes) -> None:
    refused(sign(assemble(genuine() | {kind: data}), KEY), "two accounts")


def test_k206_where_a_pac_is_required_a_ticket_without_one_is_refused() -> None:
    assert not established(None, KEY, AUTHTIME).identity.has_pac
    with pytest.raises(PacError, match="requires a PAC") as caught:
        established(None, KEY, AUTHTIME, require_pac=True)
    assert caught.value.response is not None
    assert KrbError.decode(unframe(caught.value.response)[1]).error_code == ErrorCode.KDC_ERR_POLICY


def test_k207_a_pac_nested_twice_is_refused() -> None:
    accepted = established(
        (wrap_if_relevant(element(sign(assemble(genuine()), KEY))),), KEY, AUTHTIME
    )
    with pytest.raises(PacError, match="no KDC puts it"):
        _ = accepted.identity


@pytest.mark.parametrize("together", [True, False])
def test_k207_two_pacs_are_refused(together: bool) -> None:
    entry = AuthorizationDataEntry(AuthDataType.WIN2K_PAC, sign(assemble(genuine()), KEY))
    data = (
        (wrap_if_relevant(entry, entry),)
        if together
        else (wrap_if_relevant(entry), wrap_if_relevant(entry))
    )
    accepted = established(data, KEY, AUTHTIME)
    with pytest.raises(PacError, match="several PACs"):
        _ = accepted.identity


def test_k207_a_pac_outside_of_if_relevant_is_refused() -> None:
    entry = AuthorizationDataEntry(AuthDataType.WIN2K_PAC, sign(assemble(genuine()), KEY))
    accepted = established((entry,), KEY, AUTHTIME)
    with pytest.raises(PacError, match="no KDC puts it"):
        _ = accepted.identity


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param({"group_count": 0x80000000}, id="K208-group-count-2**31"),
        pytest.param(
            {"group_count": 0x80000000, "group_maximum": 0x80000000}, id="K208-conformance-2**31"
        ),
        pytest.param({"group_maximum": 2}, id="K208-two-counts"),
        pytest.param({"group_pointer": 0}, id="K208-null-pointer-to-groups"),
        pytest.param({"domain_pointer": 0}, id="K208-null-pointer-to-domain"),
        pytest.param({"extra_pointer": 0}, id="K208-null-pointer-to-sid"),
        pytest.param({"sid_count": 0xFFFFFFFF}, id="K208-sid-count"),
        pytest.param({"sid_length": 0xFFFFFFFF}, id="K208-sid-length"),
        pytest.param({"sid_length": 3}, id="K208-sid-two-lengths"),
        pytest.param({"text_actual": 0x80000000, "text_maximum": 0x80000000}, id="K208-text-2**31"),
        pytest.param({"text_actual": 3}, id="K208-text-too-short"),
        pytest.param({"text_maximum": 1}, id="K208-text-longer-than-its-maximum"),
        pytest.param({"text_offset": 1}, id="K208-text-offset"),
        pytest.param({"user_id": 0, "user_flags": 0}, id="K208-no-account"),
    ],
)
def test_malformed_ndr_is_refused(faults: dict[str, int]) -> None:
    refused(sign(assemble(genuine(**faults)), KEY), "PAC")


def test_k208_logon_information_cut_anywhere_is_refused() -> None:
    whole = logon_info()
    assert LogonInfo.decode(whole).effective_name == "alice"
    for size in range(len(whole)):
        with pytest.raises(PacError):
            LogonInfo.decode(whole[:size])
        with pytest.raises(PacError):  # also where the header tells the length that is left
            LogonInfo.decode(whole[:8] + struct.pack("<I", max(0, size - 16)) + whole[12:size])


@pytest.mark.parametrize(
    "kind", [PacBuffer.UPN_DNS_INFO, PacBuffer.CLIENT_INFO, PacBuffer.LOGON_INFO]
)
def test_k208_any_changed_byte_of_a_signed_buffer_gives_a_pac_error_or_a_result(
    kind: PacBuffer,
) -> None:
    decoders = {
        PacBuffer.UPN_DNS_INFO: UpnDnsInfo.decode,
        PacBuffer.CLIENT_INFO: ClientInfo.decode,
        PacBuffer.LOGON_INFO: LogonInfo.decode,
    }
    data = genuine()[kind]
    refusals = 0
    for at in range(len(data)):
        for value in (0, 1, 0x7F, 0x80, 0xD8, 0xFF):
            try:
                decoders[kind](data[:at] + bytes((value,)) + data[at + 1 :])
            except PacError:
                refusals += 1
    assert refusals


def test_k209_nothing_is_decoded_before_the_signature_is_verified() -> None:
    # Logon information that no decoder survives, under a wrong signature: the signature is what is complained about.
    broken = genuine() | {
        PacBuffer.LOGON_INFO: b"junk",
        PacBuffer.CLIENT_INFO: b"",
        PacBuffer.UPN_DNS_INFO: b"",
    }
    refused(sign(assemble(broken), crypto.random_key(18)), "server signature is wrong")
    refused(
        sign(assemble(broken | {PacBuffer.CLIENT_INFO: genuine()[PacBuffer.CLIENT_INFO]}), KEY),
        "NDR",
    )


def test_k210_a_user_dc_and_the_computer_dc_dollar_are_two_identities() -> None:
    seen = {}
    for name, rid in (("dc", 1200), ("DC$", 1000)):
        parts = genuine(name=name, user_id=rid) | {
            PacBuffer.CLIENT_INFO: client_info(name, AUTHTIME)
        }
        parts[PacBuffer.REQUESTER_SID] = Sid.parse(f"{DOMAIN}-{rid}").encode()
        parts[PacBuffer.UPN_DNS_INFO] = upn_info(sam=name, sid=f"{DOMAIN}-{rid}")
        seen[name] = context(
            sign(assemble(parts), KEY), client=Principal.parse(f"{name}@EXAMPLE.TEST")
        ).identity
    assert seen["dc"].name == "dc"
    assert seen["DC$"].name == "DC$"
    assert (seen["dc"].user_sid, seen["DC$"].user_sid) == (f"{DOMAIN}-1200", f"{DOMAIN}-1000")


# --- K418: names of a PAC that another realm's KDC made


def named(client: str, domain: str, dns: str | None) -> Any:
    """Return the identity of `client` at a service of EXAMPLE.TEST, by a genuine PAC that says this of its domain."""
    principal = Principal.parse(client)
    name = principal.components[0]
    parts = genuine(name=name, domain=domain) | {PacBuffer.CLIENT_INFO: client_info(name, AUTHTIME)}
    del parts[PacBuffer.UPN_DNS_INFO]
    if dns is not None:
        parts[PacBuffer.UPN_DNS_INFO] = upn_info(f"{name}@{dns}", dns, name)
    return context(sign(assemble(parts), KEY), client=principal).identity


@pytest.mark.parametrize("dns", ["EXAMPLE.TEST", "OTHER.TEST", "EXAMPLE.EVIL", "", None])
@pytest.mark.parametrize(
    "realm", ["OTHER.TEST", "EXAMPLE.EVIL", "SUB.EXAMPLE.TEST", "example.test"]
)
def test_k418_a_client_of_another_realm_does_not_have_the_text_of_one_of_ours(
    realm: str, dns: str | None
) -> None:
    theirs = named(f"Administrator@{realm}", "EXAMPLE", dns)
    assert theirs.foreign
    assert str(theirs) == f"Administrator@{realm}"
    assert (theirs.domain, theirs.name, theirs.user_sid) == (
        "EXAMPLE",
        "Administrator",
        USER_SID,
    )  # as the PAC says
    ours = named("Administrator@EXAMPLE.TEST", "EXAMPLE", "EXAMPLE.TEST")
    assert str(ours) == "EXAMPLE\\Administrator"
    assert not ours.foreign


@pytest.mark.parametrize(
    ("domain", "dns", "text"),
    [
        ("EXAMPLE", "example.test", "EXAMPLE\\alice"),
        (
            "CORP",
            "EXAMPLE.TEST",
            "CORP\\alice",
        ),  # a NetBIOS name need not be the first part of the DNS name
        ("EXAMPLE", None, "EXAMPLE\\alice"),
        ("Example", "", "Example\\alice"),
        ("EXAMPLE", "OTHER.TEST", "alice@EXAMPLE.TEST"),
        ("OTHER", "OTHER.TEST", "alice@EXAMPLE.TEST"),
        ("OTHER", None, "alice@EXAMPLE.TEST"),
        ("", "EXAMPLE.TEST", "alice@EXAMPLE.TEST"),
    ],
)
def test_k418_the_domain_counts_only_where_it_is_that_of_the_clients_realm(
    domain: str, dns: str | None, text: str
) -> None:
    assert str(named("alice@EXAMPLE.TEST", domain, dns)) == text


# --- K428: PACs of a read-only domain controller


def of_rodc(identifier: bytes = b"\x34\x12", kinds: tuple[int, ...] = (6, 7, 16, 19)) -> Buffers:
    parts = genuine()
    for kind in kinds:
        parts[kind] += identifier
    return parts


@pytest.mark.parametrize("kinds", [(6, 7, 16, 19), (6, 7), (7,), (6,), ()], ids=str)
def test_k428_a_pac_of_a_read_only_domain_controller_is_genuine(kinds: tuple[int, ...]) -> None:
    """MS-PAC 2.8: the identifier behind a signature is zero while the server signs, as the signature is."""
    pac = sign(assemble(of_rodc(kinds=kinds)), KEY)
    assert context(pac, require_pac=True).identity.user_sid == USER_SID
    signatures = {
        kind: Pac.decode(pac).signature(kind) for kind in PacBuffer if kind in (6, 7, 16, 19)
    }
    for kind, found in signatures.items():
        assert isinstance(found, PacSignature)
        assert found.rodc_identifier == (0x1234 if kind in kinds else None)
        assert len(found.signature) == 12


def test_k428_what_stands_behind_a_signature_has_the_length_of_an_identifier() -> None:
    for identifier in (b"\x34", b"\x34\x12\0", b"\x34\x12\0\0"):
        refused(
            sign(assemble(of_rodc(identifier, (PacBuffer.SERVER_CHECKSUM,))), KEY),
            "holds no signature",
        )
        refused(
            sign(assemble(of_rodc(identifier, (PacBuffer.KDC_CHECKSUM,))), KEY),
            "holds no signature",
        )
    assert context(sign(assemble(of_rodc(b"\0\0")), KEY)).identity.user_sid == USER_SID


def test_k428_every_flipped_bit_but_of_the_zeroed_bytes_is_refused() -> None:
    pac = sign(assemble(of_rodc()), KEY)
    kdc = place(pac, PacBuffer.KDC_CHECKSUM)
    server = place(pac, PacBuffer.SERVER_CHECKSUM)
    # The KDC's signature and both identifiers: what a KDC signs afterwards, and what it does not sign at all.
    unprotected = {*range(kdc + 4, kdc + 18), *range(server + 16, server + 18)}
    ticket, _ = issue(18, key=KEY, now=AUTHTIME)
    part = EncTicketPart.decode(
        crypto.decrypt(KEY, KeyUsage.TICKET, Ticket.decode(ticket.ticket).enc_part.cipher)
    )
    for at in range(len(pac)):
        forged = pac[:at] + bytes((pac[at] ^ 1,)) + pac[at + 1 :]
        told = replace(part, authorization_data=(element(forged),))
        if at in unprotected:
            verified_pac(told, KEY)
            continue
        with pytest.raises(PacError):
            verified_pac(told, KEY)
