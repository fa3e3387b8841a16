"""Who the client is: what a verified PAC says of it, and what a ticket without one leaves unknown."""

from __future__ import annotations

from typing import Any

import pytest

from purekrb import ClientIdentity, ContextError, EncryptionKey, PacError, Principal, crypto
from purekrb.constants import EncryptionType, KeyUsage
from purekrb.exchanges.identity import client_identity
from purekrb.messages.ap import EncTicketPart, Ticket
from purekrb.messages.pac import PacBuffer
from purekrb.sid import Sid
from support.contexts import pair
from support.pac import (
    DOMAIN,
    RESOURCES,
    USER_SID,
    assemble,
    buffers,
    client_info,
    element,
    established,
    now,
    sign,
)
from support.vectors import params

AES = (17, 18, 19, 20)


@pytest.mark.parametrize("etype", AES)
def test_identity_holds_what_the_pac_says(etype: int) -> None:
    key, authtime = crypto.random_key(etype), now()
    context = established((element(sign(assemble(buffers(key, authtime)), key)),), key, authtime)
    assert context.identity == ClientIdentity(
        principal=Principal.parse("alice@EXAMPLE.TEST"),
        has_pac=True,
        user_sid=USER_SID,
        group_sids=(f"{DOMAIN}-513", f"{DOMAIN}-1105", "S-1-18-1", f"{RESOURCES}-1200"),
        domain="EXAMPLE",
        name="alice",
        full_name="Alice Liddell",
        upn="alice@example.test",
        dns_domain="EXAMPLE.TEST",
    )
    assert str(context.identity) == "EXAMPLE\\alice"
    assert context.identity is context.identity


@pytest.mark.parametrize("vector", params("pac.json", "{etype}"))
def test_recorded_pacs_are_verified_and_read(vector: dict[str, Any]) -> None:
    key = EncryptionKey(vector["etype"], vector["service_key"])
    cipher = Ticket.decode(vector["ticket"]).enc_part.cipher
    ticket = EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, cipher))
    expected = vector["identity"]
    known = {
        "principal": Principal.parse(expected["principal"]),
        "group_sids": tuple(expected["group_sids"]),
    }
    assert client_identity(ticket, key) == ClientIdentity(**{**expected, **known})
    with pytest.raises(PacError, match="server signature is wrong"):
        client_identity(ticket, crypto.random_key(key.etype))


def test_identity_under_an_rc4_key_is_signed_with_hmac_md5() -> None:
    key, authtime = crypto.random_key(EncryptionType.RC4_HMAC), now()
    pac = sign(assemble(buffers(key, authtime)), key)
    context = established((element(pac),), key, authtime, permitted_etypes=(18, 23))
    assert context.identity.user_sid == USER_SID


def test_without_a_pac_only_the_principal_is_known() -> None:
    _, theirs = pair()
    assert theirs.identity == ClientIdentity(Principal.parse("alice@EXAMPLE.TEST"))
    assert not theirs.identity.has_pac
    assert str(theirs.identity) == "alice@EXAMPLE.TEST"


def test_a_pac_without_logon_information_gives_no_sids() -> None:
    # What MIT's KDC issues where its database knows no directory.
    key, authtime = crypto.random_key(18), now()
    parts = buffers(key, authtime)
    for kind in (
        PacBuffer.LOGON_INFO,
        PacBuffer.UPN_DNS_INFO,
        PacBuffer.REQUESTER_SID,
        PacBuffer.FULL_CHECKSUM,
    ):
        del parts[kind]
    identity = established((element(sign(assemble(parts), key)),), key, authtime).identity
    assert identity == ClientIdentity(Principal.parse("alice@EXAMPLE.TEST"), has_pac=True)


@pytest.mark.parametrize(
    ("user_flags", "groups"),
    [
        (0, ()),
        (0x20, ("S-1-18-1",)),
        (0x200, (f"{RESOURCES}-1200",)),
        (0x220, ("S-1-18-1", f"{RESOURCES}-1200")),
    ],
)
def test_groups_count_only_where_the_flags_say_that_they_are_in_use(
    user_flags: int, groups: tuple[str, ...]
) -> None:
    key, authtime = crypto.random_key(18), now()
    parts = buffers(key, authtime, groups=(), user_flags=user_flags)
    identity = established((element(sign(assemble(parts), key)),), key, authtime).identity
    assert identity.group_sids == (f"{DOMAIN}-513", *groups)


def test_an_account_without_a_rid_has_the_first_of_the_extra_sids() -> None:
    key, authtime = crypto.random_key(18), now()
    foreign = Sid.parse("S-1-5-21-4-5-6-77")
    parts = buffers(
        key,
        authtime,
        user_id=0,
        groups=(),
        extra=((foreign, 7), (Sid.parse("S-1-18-1"), 7)),
        resource=(),
    )
    del parts[PacBuffer.UPN_DNS_INFO], parts[PacBuffer.REQUESTER_SID]
    identity = established((element(sign(assemble(parts), key)),), key, authtime).identity
    assert identity.user_sid == str(foreign)
    assert identity.group_sids == (f"{DOMAIN}-513", "S-1-18-1")


def test_a_signature_may_name_the_read_only_dc_that_made_it() -> None:
    key, authtime = crypto.random_key(18), now()
    parts = buffers(key, authtime)
    for kind in (PacBuffer.SERVER_CHECKSUM, PacBuffer.KDC_CHECKSUM):
        parts[kind] += b"\x12\x34"
    assert (
        established((element(sign(assemble(parts), key)),), key, authtime).identity.user_sid
        == USER_SID
    )


def test_a_client_name_of_two_parts_is_compared_as_one_text() -> None:
    key, authtime = crypto.random_key(18), now()
    parts = buffers(key, authtime)
    parts[PacBuffer.CLIENT_INFO] = client_info("host/web", authtime)
    client = Principal.parse("host/web@EXAMPLE.TEST")
    pac = sign(assemble(parts), key)
    assert established((element(pac),), key, authtime, client=client).identity.principal == client


def test_identity_is_gone_with_the_context() -> None:
    _, theirs = pair()
    assert theirs.identity.principal == theirs.initiator
    theirs.close()
    with pytest.raises(ContextError, match="closed"):
        _ = theirs.identity
