"""Bad AP-REQs, each beside its genuine twin (K069 to K098, K410, K411, K420). Source: RFC 4120 3.2.3."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    CredentialError,
    DecodeError,
    Flag,
    Initiator,
    KerberosError,
    Keytab,
    KeytabEntry,
    Principal,
    ProtocolError,
    ServiceTicket,
    crypto,
)
from purekrb.constants import (
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    AddressType,
    AuthDataType,
    ErrorCode,
    KeyUsage,
    TicketFlags,
)
from purekrb.exchanges.service_keys import MAX_TRIES
from purekrb.gss.framing import TOK_AP_REQ, frame, unframe
from purekrb.messages.ap import (
    ApReq,
    AuthorizationData,
    AuthorizationDataEntry,
    EncryptedData,
    EncTicketPart,
    EtypeList,
    HostAddress,
    Ticket,
    TransitedEncoding,
)
from purekrb.messages.der import read_header, tlv
from purekrb.names import PrincipalName
from support.contexts import (
    FixedClock,
    acceptor,
    ap_req,
    authenticator,
    error_of,
    flipped,
    gss_checksum,
    if_relevant,
    request_of,
    with_ticket,
)
from support.tickets import ALICE, SERVICE, Entry, issue
from support.values import replace

SECOND = timedelta(seconds=1)
HOST = Principal.parse("host/web.example.test@EXAMPLE.TEST")
NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=timezone.utc)
CLOCK = FixedClock(NOW)


def take(keys: Any, token: bytes | None, **options: Any) -> Acceptor:
    """Return the established acceptor that took the token."""
    context = acceptor(keys, **options)
    context.step(token)
    assert context.established
    return context


def refusal(keys: Any, token: bytes | None, **options: Any) -> ApError:
    """Return the ApError of an acceptor that refuses the token, once its KRB-ERROR was checked (K098)."""
    context = acceptor(keys, **options)
    with pytest.raises(ApError) as caught:
        context.step(token)
    assert not context.established
    error = caught.value
    answer = error_of(error.response)
    assert answer.error_code == error.code
    return error


def later(**changes: timedelta) -> dict[str, Any]:
    """Return times of an EncTicketPart, given as distances from now."""
    return {name: NOW + distance for name, distance in changes.items()}


# --- K069, K070: message types and versions


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


@pytest.mark.parametrize("tag", [0x61, 0x6A, 0x6B, 0x6C, 0x6F, 0x74, 0x76, 0x7E, 0x30], ids=hex)
def test_k069_another_message_than_an_ap_req(tag: int) -> None:
    ticket, keys = issue()
    _, message = unframe(ap_req(ticket))
    other = frame(TOK_AP_REQ, bytes([tag]) + message[1:])
    assert refusal(keys, other).code == ErrorCode.KRB_AP_ERR_MSG_TYPE
    take(keys, frame(TOK_AP_REQ, message))


@pytest.mark.parametrize("msg_type", [10, 13, 15, 30, 0, -14])
def test_k069_the_wrong_msg_type_inside(msg_type: int) -> None:
    ticket, keys = issue()
    assert refusal(keys, ap_req(ticket, msg_type=msg_type)).code == ErrorCode.KRB_AP_ERR_MSG_TYPE
    take(keys, ap_req(ticket, msg_type=14))


@pytest.mark.parametrize("version", [0, 4, 6, -5])
@pytest.mark.parametrize("where", ["AP-REQ", "ticket", "authenticator"])
def test_k070_another_version(where: str, version: int) -> None:
    ticket, keys = issue()

    def made(version: int) -> bytes:
        if where == "AP-REQ":
            return ap_req(ticket, pvno=version)
        if where == "ticket":
            return with_ticket(ap_req(ticket), tkt_vno=version)
        return ap_req(ticket, authenticator(ticket, authenticator_vno=version))

    assert refusal(keys, made(version)).code == ErrorCode.KRB_AP_ERR_BADVERSION
    take(keys, made(5))


# --- K071 to K076: keys


def entry(principal: Principal, kvno: int, etype: int = 18) -> Entry:
    return Entry(principal, kvno, crypto.random_key(etype))


@pytest.mark.parametrize(
    ("held", "used", "advice"),
    [
        pytest.param((4, 5), 3, "ticket is older: renew", id="K071-older"),
        pytest.param((1, 2), 3, "keytab is older: export", id="K071-newer"),
        pytest.param((255,), 511 + 1, "keytab is older: export", id="K071-wrapped"),
    ],
)
def test_k071_a_kvno_that_the_keytab_does_not_have(
    held: tuple[int, ...], used: int, advice: str
) -> None:
    ticket, keys = issue(kvno=used)
    error = refusal([entry(SERVICE, kvno) for kvno in held], ap_req(ticket))
    assert error.code == ErrorCode.KRB_AP_ERR_BADKEYVER
    assert advice in str(error)
    assert f"kvno {used}" in str(error)
    take(keys, ap_req(ticket))


def test_k071_older_and_newer_keys_are_tried_and_a_truncated_kvno_fits() -> None:
    ticket, keys = issue(kvno=3)
    take([entry(SERVICE, 3), entry(SERVICE, 4), Entry(SERVICE, 2, keys[0].key)], ap_req(ticket))
    ticket, keys = issue(kvno=259)
    take([Entry(SERVICE, 3, keys[0].key)], ap_req(ticket))
    ticket, keys = issue(kvno=None)
    take([Entry(SERVICE, 77, keys[0].key), entry(SERVICE, 78)], ap_req(ticket))


@pytest.mark.parametrize("service", [None, str(SERVICE), "HTTP/web.example.test"])
def test_k072_no_key_for_the_service(service: str | None) -> None:
    ticket, keys = issue()
    others = "export the keys of the account that has this name again"
    for held, remedy in (([], "export one with that name"), ([entry(HOST, 3)], others)):
        error = refusal(held, ap_req(ticket), service=service)
        assert error.code == ErrorCode.KRB_AP_ERR_NOKEY
        assert ("export one" if service else remedy) in str(error)
    take(keys, ap_req(ticket), service=service)


def test_k072_a_keytab_that_cannot_be_read(tmp_path: Path) -> None:
    ticket, keys = issue()
    path = tmp_path / "keytab"
    with pytest.raises(CredentialError):
        take(Keytab.load(path), ap_req(ticket))
    path.write_bytes(b"")
    path.chmod(0o600)
    with pytest.raises(DecodeError):
        take(Keytab.load(path), ap_req(ticket))
    Keytab([KeytabEntry(keys[0].principal, keys[0].kvno, keys[0].key)]).save(path)
    take(Keytab.load(path), ap_req(ticket))


@pytest.mark.parametrize("service", [str(HOST), "host/web.example.test"])
def test_k073_a_ticket_for_another_service_of_the_same_keytab(service: str) -> None:
    ticket, keys = issue()
    keys.append(entry(HOST, 3))
    error = refusal(keys, ap_req(ticket), service=service)
    assert error.code == ErrorCode.KRB_AP_ERR_NOT_US
    assert str(SERVICE) in str(error)
    assert str(service) in str(error)
    take(keys, ap_req(ticket))
    take(keys, ap_req(ticket), service=str(SERVICE))


def test_k073_a_ticket_for_a_service_that_is_in_no_keytab() -> None:
    ticket, keys = issue()
    error = refusal([entry(HOST, 3)], ap_req(ticket), service=str(HOST))
    assert error.code == ErrorCode.KRB_AP_ERR_NOT_US
    assert f"the ticket is for {SERVICE}, but this acceptor is {HOST}" in str(error)
    take(keys, ap_req(ticket), service=str(SERVICE))


def test_k074_an_etype_that_the_keytab_does_not_have() -> None:
    ticket, keys = issue(18)
    error = refusal([entry(SERVICE, 3, 17), entry(SERVICE, 3, 20)], ap_req(ticket))
    assert error.code == ErrorCode.KRB_AP_ERR_BADKEYVER
    assert "aes256-cts-hmac-sha1-96" in str(error)
    take([entry(SERVICE, 3, 17), *keys], ap_req(ticket))


def test_k075_another_key_of_the_same_kvno() -> None:
    ticket, keys = issue()
    error = refusal([entry(SERVICE, 3)], ap_req(ticket))
    assert error.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    assert "another account" in str(error)
    take(keys, ap_req(ticket))


@pytest.mark.parametrize(
    "cleartext",
    [
        {"sname": PrincipalName(("HTTP", "alias.example.test"))},
        {"sname": PrincipalName(("web$",))},
        {"realm": "OTHER.TEST"},
        {"sname": HOST.name},
    ],
)
def test_k076_an_alias_is_accepted_under_the_name_of_the_key(cleartext: dict[str, Any]) -> None:
    ticket, keys = issue(cleartext=cleartext)
    keys.append(entry(HOST, 3))
    assert take(keys, ap_req(ticket)).acceptor == SERVICE
    assert take(keys, ap_req(ticket), service=str(SERVICE)).acceptor == SERVICE
    with pytest.raises(ApError):
        take(keys, ap_req(ticket), service=str(HOST))


# --- K411: names that share a key

OTHER_HOST = Principal.parse("host/other.example.test@EXAMPLE.TEST")


def sharing(
    *names: Principal, target: bool = True, service: Principal = SERVICE
) -> tuple[bytes, list[Entry]]:
    """Return an AP-REQ for `service`, and keys that `names` share, as those of one account do."""
    ticket, (key,) = issue(service=service)
    token = Initiator(ticket, send_client_target=target).step()
    assert token is not None
    return token, [Entry(name, 3, key.key) for name in names]


def rewritten(token: bytes) -> Iterator[bytes]:
    """Yield the token, and as it is with other names in the ticket's cleartext, which anybody can rewrite."""
    yield token
    for name in (HOST, SERVICE, OTHER_HOST, Principal.parse("evil@EVIL.TEST")):
        yield with_ticket(token, sname=name.name, realm=name.realm)


@pytest.mark.parametrize(
    "names", [(SERVICE, HOST), (HOST, SERVICE)], ids=["asked-first", "asked-last"]
)
def test_k411_the_cleartext_name_does_not_decide_between_names_of_one_key(
    names: tuple[Principal, ...],
) -> None:
    token, keys = sharing(*names)
    keys += [entry(OTHER_HOST, 3), entry(SERVICE, 2), entry(HOST, 2)]  # of other accounts, or older
    for altered in rewritten(token):
        context = take(keys, altered)
        assert (context.acceptor, context.acceptor_names) == (names[0], names)
        for name in names:  # says which keys count, not which name was asked for
            limited = take(keys, altered, service=name)
            assert (limited.acceptor, limited.acceptor_names) == (name, names)
        with pytest.raises(ApError):
            take(keys, altered, service=OTHER_HOST)
    alone, own = sharing(SERVICE)
    assert take([*own, entry(HOST, 3)], alone).acceptor_names == (SERVICE,)


def test_k411_where_it_is_required_the_clients_word_decides_between_names_of_one_key() -> None:
    for asked, other in ((SERVICE, HOST), (HOST, SERVICE)):
        token, keys = sharing(HOST, SERVICE, service=asked)
        for altered in rewritten(token):
            for service in (None, asked, "/".join(asked.components)):
                context = take(keys, altered, service=service, require_client_target=True)
                assert (context.acceptor, context.client_target) == (asked, str(asked))
            error = refusal(keys, altered, service=other, require_client_target=True)
            assert error.code == ErrorCode.KRB_AP_ERR_NOT_US
            assert str(asked) in str(error)
            assert str(other) in str(error)
    token, keys = sharing(
        HOST, SERVICE, service=OTHER_HOST
    )  # a name of the account that the keytab has not
    assert refusal(keys, token, require_client_target=True).code == ErrorCode.KRB_AP_ERR_NOT_US
    assert take(keys, token).acceptor == HOST


def test_k411_a_client_that_does_not_say_whom_it_asked_for_is_refused_where_it_must() -> None:
    token, keys = sharing(SERVICE, target=False)
    error = refusal(keys, token, require_client_target=True)
    assert error.code == ErrorCode.KDC_ERR_POLICY
    assert "does not say which service" in str(error)
    assert take(keys, token).client_target is None


def naming(*targets: bytes) -> tuple[bytes, list[Entry]]:
    """Return an AP-REQ whose authenticator names targets."""
    ticket, keys = issue()
    entries = [AuthorizationDataEntry(AuthDataType.CLIENT_TARGET, target) for target in targets]
    return ap_req(ticket, authenticator(ticket, authorization_data=(if_relevant(*entries),))), keys


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


@pytest.mark.parametrize(
    "target", [str(SERVICE), "HTTP/web.example.test", "http/WEB.Example.Test@example.test"]
)
def test_k411_a_target_is_compared_as_a_directory_would(target: str) -> None:
    token, keys = naming(utf16(target))
    assert take(keys, token, require_client_target=True).acceptor == SERVICE


@pytest.mark.parametrize(
    "target",
    [
        "",
        "HTTP/web",
        "HTTP/web.example.test@EVIL.TEST",
        "HTTP/web.example.test@",
        "HTTP/web.example.test\0",
        "HTTP/web.example.test/EXAMPLE.TEST",
        "HTTP",
        "web.example.test",
        "x\x1b[2J\u202e",
    ],
)
def test_k411_another_target_is_refused_and_told_without_control_characters(target: str) -> None:
    token, keys = naming(utf16(target))
    error = refusal(keys, token, require_client_target=True)
    assert error.code == ErrorCode.KRB_AP_ERR_NOT_US
    assert str(error).isprintable()
    assert take(keys, token).client_target == target


@pytest.mark.parametrize(
    "targets",
    [(utf16(str(SERVICE)), utf16(str(SERVICE))), (utf16(str(SERVICE))[:-1],), (b"\x00\xd8",)],
    ids=["twice", "cut", "surrogate"],
)
def test_k411_a_malformed_or_repeated_target_counts_nowhere(targets: tuple[bytes, ...]) -> None:
    token, keys = naming(*targets)
    with pytest.raises(ProtocolError):
        take(keys, token, require_client_target=True)
    context = take(keys, token)
    with pytest.raises(ProtocolError):
        _ = context.client_target


# --- K420: junk costs a bounded number of decryptions


def tries(
    caplog: pytest.LogCaptureFixture, keys: list[Entry], token: bytes
) -> list[tuple[str, int]]:
    """Return name and kvno of the keys that were tried, all in vain or but for the last."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "purekrb.ap"):
        try:
            take(keys, token)
        except ApError as error:
            assert error.code in (ErrorCode.KRB_AP_ERR_NOKEY, ErrorCode.KRB_AP_ERR_BAD_INTEGRITY)  # noqa: PT017
    return [found.args[:2] for found in caplog.records if "does not decrypt" in found.msg]  # type: ignore[index, misc]


def test_k420_junk_is_tried_with_a_small_number_of_keys(caplog: pytest.LogCaptureFixture) -> None:
    names = [
        Principal(("HTTP", f"web{number}.example.test"), "EXAMPLE.TEST") for number in range(512)
    ]
    accounts = [entry(name, 3) for name in names]
    versions = [entry(SERVICE, kvno) for kvno in range(1, 513)]
    junk = ap_req(issue(kvno=3)[0])
    for keys in (accounts, versions, accounts + versions):
        assert len(tries(caplog, keys, junk)) == MAX_TRIES
    # The named key first, then that name's others, the newest first, then other names' of the same kvno.
    keys = [entry(HOST, 3), entry(HOST, 9), entry(SERVICE, 7), entry(SERVICE, 3), entry(SERVICE, 8)]
    expected = [(SERVICE, 3), (SERVICE, 8), (SERVICE, 7), (HOST, 3), (HOST, 9)]
    assert tries(caplog, keys, junk) == [(str(name), kvno) for name, kvno in expected]
    # A key that many names share is tried once.
    shared = crypto.random_key(18)
    assert len(tries(caplog, [Entry(name, 3, shared) for name in names], junk)) == 1


@pytest.mark.parametrize("kvno", [3, None, 259])
@pytest.mark.parametrize("place", [0, 255, 511])
def test_k420_an_honest_client_is_served_whatever_else_the_keytab_holds(
    kvno: int | None, place: int
) -> None:
    ticket, (own,) = issue(kvno=kvno)
    crowd = [entry(Principal((f"web{number}",), "EXAMPLE.TEST"), 3) for number in range(511)]
    older = [entry(SERVICE, number) for number in range(4, 4 + MAX_TRIES - 1)]
    keys = [*crowd[:place], *older, Entry(SERVICE, 3, own.key), *crowd[place:]]
    assert (
        take(keys, ap_req(ticket)).acceptor == SERVICE
    )  # by another kvno than those that are newer


def test_k420_an_alias_is_served_by_an_account_of_many_names_and_among_several_accounts() -> None:
    alias = {"sname": PrincipalName(("HTTP", "alias.example.test"))}
    ticket, (own,) = issue(cleartext=alias, kvno=3)
    names = [Principal((f"web{number}",), "EXAMPLE.TEST") for number in range(512)]
    assert take([Entry(name, 3, own.key) for name in names], ap_req(ticket)).acceptor == names[0]
    others = [entry(name, 3) for name in names[: MAX_TRIES - 1]]
    assert take([*others, own], ap_req(ticket)).acceptor == SERVICE
    # More accounts than that: its kvno, the limit to one name, or an entry of the alias's name finds the key.
    others = [entry(name, 4) for name in names]
    assert take([*others, own], ap_req(ticket)).acceptor == SERVICE
    others = [entry(name, 3) for name in names]
    error = refusal([*others, own], ap_req(ticket))
    assert error.code == ErrorCode.KRB_AP_ERR_NOKEY
    assert "export one with that name" in str(error)
    assert take([*others, own], ap_req(ticket), service=SERVICE).acceptor == SERVICE
    named = Entry(Principal(("HTTP", "alias.example.test"), "EXAMPLE.TEST"), 3, own.key)
    assert take([*others, own, named], ap_req(ticket)).acceptor_names == (SERVICE, named.principal)


# --- K077 to K079: ciphertext


def cipher_bits(token: bytes, cipher: bytes) -> range:
    """Return the numbers of the bits of a ciphertext in a token."""
    assert token.count(cipher) == 1
    start = token.index(cipher) * 8
    return range(start, start + len(cipher) * 8)


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
@pytest.mark.parametrize("part", ["K077-ticket", "K078-authenticator"])
def test_k077_k078_every_flipped_bit_of_the_ciphertext(part: str, etype: int) -> None:
    ticket, keys = issue(etype)
    token = ap_req(ticket)
    request = request_of(token)
    enc_part = (
        request.authenticator
        if part == "K078-authenticator"
        else Ticket.decode(request.ticket).enc_part
    )
    for bit in cipher_bits(token, enc_part.cipher):
        context = acceptor(keys)
        with pytest.raises(ApError) as caught:
            context.step(flipped(token, bit))
        assert caught.value.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    take(keys, token)


@pytest.mark.parametrize("part", ["ticket", "authenticator"])
def test_k077_k078_a_ciphertext_of_another_length(part: str) -> None:
    ticket, keys = issue()
    request = request_of(ap_req(ticket))
    inner = Ticket.decode(request.ticket)

    def made(cut: Callable[[bytes], bytes]) -> bytes:
        if part == "ticket":
            shorter = replace(
                inner, enc_part=replace(inner.enc_part, cipher=cut(inner.enc_part.cipher))
            )
            return frame(TOK_AP_REQ, replace(request, ticket=shorter.encode()).encode())
        enc_part = replace(request.authenticator, cipher=cut(request.authenticator.cipher))
        return frame(TOK_AP_REQ, replace(request, authenticator=enc_part).encode())

    for length in (0, 1, 15, 16, 27, 28, 29, 44):
        assert (
            refusal(keys, made(lambda c, n=length: c[:n])).code
            == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
        )  # type: ignore[misc]
    for tail in (b"\0", bytes(16)):
        assert (
            refusal(keys, made(lambda c, t=tail: c + t)).code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
        )  # type: ignore[misc]
    take(keys, made(lambda c: c))


@pytest.mark.parametrize("usage", [u for u in range(30) if u != KeyUsage.AP_REQ_AUTHENTICATOR])
def test_k079_the_authenticator_of_another_usage(usage: int) -> None:
    ticket, keys = issue()
    assert refusal(keys, ap_req(ticket, usage=usage)).code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    take(keys, ap_req(ticket, usage=KeyUsage.AP_REQ_AUTHENTICATOR))


def test_k079_an_authenticator_of_another_key_or_etype() -> None:
    ticket, keys = issue()
    for other in (crypto.random_key(18), crypto.random_key(17)):
        assert refusal(keys, ap_req(ticket, key=other)).code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    assert refusal(keys, ap_req(ticket, key=keys[0].key)).code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    take(keys, ap_req(ticket, key=ticket.session_key))


@pytest.mark.parametrize("usage", [u for u in range(20) if u != KeyUsage.TICKET])
def test_k079_a_ticket_of_another_usage(usage: int) -> None:
    ticket, keys = issue()
    key = keys[0].key
    sealed = Ticket.decode(ticket.ticket).enc_part
    plaintext = crypto.decrypt(key, KeyUsage.TICKET, sealed.cipher)

    def made(usage: int) -> bytes:
        return with_ticket(
            ap_req(ticket), enc_part=replace(sealed, cipher=crypto.encrypt(key, usage, plaintext))
        )

    assert refusal(keys, made(usage)).code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    take(keys, made(KeyUsage.TICKET))


# --- K080 to K082: names and addresses


@pytest.mark.parametrize(
    "changes",
    [
        {"cname": PrincipalName(("mallory",))},
        {"cname": PrincipalName(("alice", "admin"))},
        {"cname": PrincipalName(("Alice",))},
        {"cname": PrincipalName(())},
        {"crealm": "EVIL.TEST"},
        {"crealm": "example.test"},
    ],
    ids=str,
)
def test_k080_the_authenticator_of_another_client(changes: dict[str, Any]) -> None:
    ticket, keys = issue()
    assert (
        refusal(keys, ap_req(ticket, authenticator(ticket, **changes))).code
        == ErrorCode.KRB_AP_ERR_BADMATCH
    )
    assert take(keys, ap_req(ticket)).initiator == ALICE


ANONYMOUS = ("WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS", "WELLKNOWN/ANONYMOUS@EXAMPLE.TEST")


@pytest.mark.parametrize(
    ("client", "flags"),
    [
        *(
            (Principal.parse(name), flags)
            for name in ANONYMOUS
            for flags in (0, TicketFlags.ANONYMOUS)
        ),
        (Principal.parse("alice@WELLKNOWN:ANONYMOUS"), 0),
        (ALICE, TicketFlags.ANONYMOUS),
    ],
    ids=str,
)
def test_k410_an_anonymous_client_is_refused_unless_it_is_let_in(
    client: Principal, flags: int
) -> None:
    ticket, keys = issue(client=client, flags=flags)
    error = refusal(keys, ap_req(ticket))
    assert error.code == ErrorCode.KDC_ERR_POLICY
    assert "anonymous" in str(error)
    context = take(keys, ap_req(ticket), accept_anonymous=True)
    assert context.anonymous
    assert context.initiator == client
    for name in (
        "ANONYMOUS",
        "WELLKNOWN",
        "WELLKNOWN/anonymous",
        "WELLKNOWN/ANONYMOUS/x",
        "wellknown/ANONYMOUS",
    ):
        named, keys = issue(client=Principal.parse(f"{name}@EXAMPLE.TEST"))
        for options in ({}, {"accept_anonymous": True}):
            assert not take(keys, ap_req(named), **options).anonymous


@pytest.mark.parametrize("name_type", [0, 1, 2, 3, 10, -1])
def test_k081_a_name_type_alone_makes_no_other_name(name_type: int) -> None:
    ticket, keys = issue()
    other = PrincipalName(ALICE.components, name_type)
    assert take(keys, ap_req(ticket, authenticator(ticket, cname=other))).initiator == ALICE


HERE, THERE = HostAddress(2, bytes([192, 0, 2, 1])), HostAddress(2, bytes([192, 0, 2, 2]))


def test_k082_a_ticket_for_other_addresses() -> None:
    ticket, keys = issue(caddr=(HERE, HostAddress(24, bytes(16))))
    for peer in (THERE, HostAddress(24, HERE.address), HostAddress(2, bytes(16))):
        assert refusal(keys, ap_req(ticket), peer_address=peer).code == ErrorCode.KRB_AP_ERR_BADADDR
    take(keys, ap_req(ticket), peer_address=HERE)
    take(keys, ap_req(ticket), peer_address=None)
    addressless, keys = issue()
    take(keys, ap_req(addressless), peer_address=THERE)


def test_k425_a_ticket_for_computers_names_no_address_to_compare_with() -> None:
    computer = HostAddress(AddressType.NETBIOS, b"WORKSTATION    ")
    for caddr in ((computer, HERE), (HERE, computer)):
        ticket, keys = issue(caddr=caddr)
        assert (
            refusal(keys, ap_req(ticket), peer_address=THERE).code == ErrorCode.KRB_AP_ERR_BADADDR
        )
        take(keys, ap_req(ticket), peer_address=HERE)
    ticket, keys = issue(caddr=(computer,))
    take(keys, ap_req(ticket), peer_address=THERE)


# --- K083 to K089: times


@pytest.mark.parametrize("skew", [300, 60, 1])
@pytest.mark.parametrize("side", [-1, 1])
def test_k083_the_clients_clock_may_differ_by_the_skew_and_no_more(skew: int, side: int) -> None:
    ticket, keys = issue(now=NOW - timedelta(hours=1))
    for distance, good in (
        (skew - 1, True),
        (skew, True),
        (skew + 1, False),
        (skew + 0.000001, False),
        (86400, False),
    ):
        moment = NOW + side * timedelta(seconds=distance)
        token = ap_req(ticket, authenticator(ticket, now=moment))
        if good:
            take(keys, token, clock=CLOCK, clock_skew=skew)
        else:
            error = refusal(keys, token, clock=CLOCK, clock_skew=skew)
            assert error.code == ErrorCode.KRB_AP_ERR_SKEW
            assert "NTP" in str(error)


def test_k083_a_skew_error_tells_the_client_how_to_recover() -> None:
    ticket, keys = issue(now=NOW - timedelta(hours=1))
    token = ap_req(ticket, authenticator(ticket, now=NOW - timedelta(hours=1)))
    answer = error_of(
        refusal(keys, token, clock=FixedClock(NOW + timedelta(microseconds=42))).response
    )
    assert (answer.stime, answer.susec) == (NOW, 42)
    assert answer.e_data == bytes.fromhex("3005a103020102")
    token = ap_req(ticket, authenticator(ticket, now=answer.stime))
    take(keys, token, clock=CLOCK)


TIMES = [
    pytest.param({"starttime": 301 * SECOND}, 33, id="K084-starts-later"),
    pytest.param({"starttime": 300 * SECOND}, 0, id="K084-starts-within-the-skew"),
    pytest.param(
        {"starttime": None, "authtime": 301 * SECOND},
        33,
        id="K084-authtime-counts-without-starttime",
    ),
    pytest.param(
        {"starttime": -SECOND, "authtime": 301 * SECOND},
        0,
        id="K084-starttime-counts-before-authtime",
    ),
    pytest.param({"endtime": -301 * SECOND}, 32, id="K086-expired"),
    pytest.param({"endtime": -300 * SECOND}, 0, id="K086-expired-within-the-skew"),
    pytest.param({"endtime": -SECOND, "starttime": SECOND}, 33, id="K087-ends-before-it-starts"),
]


@pytest.mark.parametrize(("times", "code"), TIMES)
def test_k084_k086_k087_the_times_of_the_ticket(times: dict[str, Any], code: int) -> None:
    base = {
        "authtime": -timedelta(hours=2),
        "starttime": -timedelta(hours=1),
        "endtime": timedelta(hours=8),
    } | times
    changes = {name: None if value is None else NOW + value for name, value in base.items()}
    ticket, keys = issue(now=NOW, **changes)
    token = ap_req(ticket, authenticator(ticket, now=NOW))
    if code:
        assert refusal(keys, token, clock=CLOCK).code == code
    else:
        take(keys, token, clock=CLOCK)


def test_k085_an_invalid_ticket() -> None:
    ticket, keys = issue(flags=TicketFlags.INVALID | TicketFlags.INITIAL)
    error = refusal(keys, ap_req(ticket))
    assert error.code == ErrorCode.KRB_AP_ERR_TKT_NYV
    assert "validate" in str(error)
    for flags in (
        TicketFlags.INITIAL,
        TicketFlags.POSTDATED,
        0,
        0xFFFFFFFF & ~(TicketFlags.INVALID | TicketFlags.ANONYMOUS),
    ):
        good, keys = issue(flags=flags)
        take(keys, ap_req(good))


def at(year: int, month: int = 1, day: int = 1, **more: int) -> datetime:
    return datetime(year, month, day, tzinfo=timezone.utc, **more)


YEARS = [
    at(1),
    at(1969, 12, 31),
    at(1970),
    at(2038, 1, 19),
    at(2038, 1, 20),
    at(2106, 2, 8),
    at(9999, 12, 31, hour=23),
]


@pytest.mark.parametrize("field", ["authtime", "starttime", "endtime", "renew_till"])
@pytest.mark.parametrize("moment", YEARS, ids=str)
def test_k087_times_of_all_centuries_are_judged_and_never_overflow(
    field: str, moment: datetime
) -> None:
    ticket, keys = issue(now=NOW, **{field: moment})
    context = acceptor(keys, clock=CLOCK)
    token = ap_req(ticket, authenticator(ticket, now=NOW))
    good = {
        "authtime": True,  # starttime counts
        "starttime": moment < NOW,
        "endtime": moment > NOW,
        "renew_till": True,
    }
    if good[field]:
        context.step(token)
        assert context.established
    else:
        with pytest.raises(ApError):
            context.step(token)


@pytest.mark.parametrize("moment", YEARS, ids=str)
def test_k087_the_authenticators_time_of_all_centuries(moment: datetime) -> None:
    ticket, keys = issue(now=NOW)
    for cusec in (0, 999_999):
        token = ap_req(ticket, authenticator(ticket, ctime=moment, cusec=cusec))
        assert refusal(keys, token, clock=CLOCK).code == ErrorCode.KRB_AP_ERR_SKEW
    take(keys, ap_req(ticket, authenticator(ticket, now=NOW)), clock=CLOCK)


def test_k087_a_context_may_live_in_2038_and_2106() -> None:
    for moment in (at(2038, 1, 19, hour=4), at(2106, 2, 7, hour=7), at(9000)):
        clock = FixedClock(moment)
        ticket, keys = issue(now=moment)
        ours, theirs = Initiator(ticket, clock=clock), acceptor(keys, clock=clock)
        ours.step(theirs.step(ours.step()))
        assert theirs.unwrap(ours.wrap(b"later")) == b"later"


def edited_authenticator(ticket: ServiceTicket, old: bytes, new: bytes) -> bytes:
    """Return an AP-REQ whose authenticator has `new` in place of the DER element `old`, with its lengths corrected."""
    der = authenticator(ticket, now=NOW.replace(microsecond=5)).encode()
    body = der[read_header(der, 0, len(der))[1] :]
    fields = body[read_header(body, 0, len(body))[1] :]
    return ap_req(ticket, tlv(0x62, tlv(0x30, replaced(fields, old, new))))


CUSEC = tlv(0xA4, tlv(2, b"\5"))
CUSECS = [
    pytest.param(tlv(0xA4, tlv(2, value)), id=f"K088-{value.hex()}")
    for value in (
        b"\xff",
        b"\x0f\x42\x40",
        b"\x7f\xff\xff\xff",
        b"\0\x80\0\0\0",
        b"\x80\0\0\0",
        b"\0\5",
        b"",
    )
]


@pytest.mark.parametrize("bad", CUSECS)
def test_k088_a_cusec_that_is_no_microseconds(bad: bytes) -> None:
    ticket, keys = issue(now=NOW)
    context = acceptor(keys, clock=CLOCK)
    with pytest.raises(DecodeError):
        context.step(edited_authenticator(ticket, CUSEC, bad))
    for good in (b"\5", b"\0", b"\x0f\x42\x3f"):
        take(keys, edited_authenticator(ticket, CUSEC, tlv(0xA4, tlv(2, good))), clock=CLOCK)


CTIME = tlv(0xA5, tlv(0x18, b"20260701120000Z"))


@pytest.mark.parametrize(
    "text",
    [
        "20260701120000.0Z",
        "20260701120000.5Z",
        "20260701120000+0000",
        "20260701120000",
        "202607011200Z",
        "2026070112000Z",
        "20260230120000Z",
        "20261301120000Z",
        "20260701240000Z",
        "20260701126000Z",
        "20260701120060Z",
        "00000701120000Z",
        " 0260701120000Z",
        "-0260701120000Z",
        "2026070112000\u0660Z",
        "20260701120000z",
        "",
    ],
)
def test_k089_a_generalized_time_in_another_form(text: str) -> None:
    ticket, keys = issue(now=NOW)
    bad = tlv(0xA5, tlv(0x18, text.encode()))
    with pytest.raises(DecodeError):
        acceptor(keys, clock=CLOCK).step(edited_authenticator(ticket, CTIME, bad))
    with pytest.raises(DecodeError):
        acceptor(keys, clock=CLOCK).step(
            edited_authenticator(ticket, CTIME, replaced(CTIME, b"\x18", b"\x17"))
        )
    take(keys, edited_authenticator(ticket, CTIME, CTIME), clock=CLOCK)


# --- K090 to K095: options, etypes, numbers


@pytest.mark.parametrize("contents", [b"EDU,MIT.,ATHENA.", b"MIDDLE.TEST", b","])
def test_k090_a_transited_ticket_that_no_kdc_has_checked(contents: bytes) -> None:
    transited = TransitedEncoding(1, contents)
    ticket, keys = issue(transited=transited, flags=TicketFlags.PRE_AUTHENT)
    assert refusal(keys, ap_req(ticket)).code == ErrorCode.KRB_AP_ERR_ILL_CR_TKT
    ticket, keys = issue(transited=transited, flags=TicketFlags.TRANSITED_POLICY_CHECKED)
    take(keys, ap_req(ticket))
    ticket, keys = issue(transited=TransitedEncoding(1, b""), flags=0)
    take(keys, ap_req(ticket))


def test_k091_a_user_to_user_request() -> None:
    ticket, keys = issue()
    for options in (1 << 30, 1 << 30 | 1 << 29):
        error = refusal(keys, ap_req(ticket, ap_options=options))
        assert error.code == ErrorCode.KRB_AP_ERR_NOKEY
        assert "user-to-user" in str(error)
    take(keys, ap_req(ticket, ap_options=1 << 29))


def test_k092_the_flag_under_the_checksum_asks_for_the_ap_rep_and_not_the_bit_beside_it() -> None:
    ticket, keys = issue()
    for options in (0, 1 << 29):
        context = acceptor(keys)
        assert context.step(ap_req(ticket, ap_options=options)) is not None
        assert context.mutual
        context = acceptor(keys, require=Flag(0))
        without = authenticator(ticket, cksum=gss_checksum(int(Flag.INTEG)))
        assert context.step(ap_req(ticket, without, ap_options=options)) is None
        assert not context.mutual


@pytest.mark.parametrize("etype", [23, 16, 3, 24, -128])
def test_k093_a_subkey_that_is_not_permitted(etype: int) -> None:
    from purekrb import EncryptionKey

    ticket, keys = issue()
    weak = authenticator(ticket, subkey=EncryptionKey(etype, bytes(16)))
    error = refusal(keys, ap_req(ticket, weak))
    assert error.code == ErrorCode.KDC_ERR_ETYPE_NOSUPP
    assert "subkey" in str(error)
    for good in (17, 18, 19, 20):
        take(keys, ap_req(ticket, authenticator(ticket, subkey=crypto.random_key(good))))


def test_k093_a_session_key_or_ticket_that_is_not_permitted() -> None:
    ticket, keys = issue(18, session_etype=23)
    error = refusal(keys, ap_req(ticket))
    assert error.code == ErrorCode.KDC_ERR_ETYPE_NOSUPP
    assert "session key" in str(error)
    take(keys, ap_req(ticket), permitted_etypes=(18, 23))
    ticket, keys = issue(23, session_etype=18)
    error = refusal(keys, ap_req(ticket))
    assert error.code == ErrorCode.KDC_ERR_ETYPE_NOSUPP
    assert "the ticket" in str(error)
    take(keys, ap_req(ticket), permitted_etypes=(18, 23))


@pytest.mark.parametrize("etypes", [(17,), (23, 17), (99, 17, 18), (17, 17)])
def test_k093_the_acceptors_subkey_is_of_an_offered_and_permitted_etype(
    etypes: tuple[int, ...],
) -> None:
    ticket, keys = issue()
    offer = if_relevant(
        AuthorizationDataEntry(AuthDataType.ETYPE_NEGOTIATION, EtypeList(etypes).encode())
    )
    token = ap_req(ticket, authenticator(ticket, authorization_data=(offer,)))
    assert take(keys, token).etype == 17
    nothing = if_relevant(
        AuthorizationDataEntry(AuthDataType.ETYPE_NEGOTIATION, EtypeList((23, 99)).encode())
    )
    assert (
        take(keys, ap_req(ticket, authenticator(ticket, authorization_data=(nothing,)))).etype == 18
    )


@pytest.mark.parametrize("length", [0, 1, 15, 31, 33, 64])
def test_k094_a_subkey_of_the_wrong_length(length: int) -> None:
    ticket, keys = issue(now=NOW)
    genuine = authenticator(ticket, now=NOW, subkey=crypto.random_key(18))
    assert genuine.subkey is not None
    der = genuine.encode()
    old = tlv(
        0xA6, tlv(0x30, tlv(0xA0, tlv(2, b"\x12")) + tlv(0xA1, tlv(4, genuine.subkey.contents)))
    )
    new = tlv(0xA6, tlv(0x30, tlv(0xA0, tlv(2, b"\x12")) + tlv(0xA1, tlv(4, bytes(length)))))
    body = der[read_header(der, 0, len(der))[1] :]
    fields = body[read_header(body, 0, len(body))[1] :]
    altered = tlv(0x62, tlv(0x30, replaced(fields, old, new)))
    with pytest.raises(DecodeError, match="32 bytes"):
        acceptor(keys, clock=CLOCK).step(ap_req(ticket, altered))
    take(keys, ap_req(ticket, der), clock=CLOCK)


SEQ = tlv(0xA7, tlv(2, b"\7"))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"\xff", 0xFFFFFFFF),
        (b"\x80\0\0\0", 0x80000000),
        (b"\x80\0\0\1", 0x80000001),
        (b"\0", 0),
        (b"\0\xff\xff\xff\xff", 0xFFFFFFFF),
        (b"\1\0\0\0\0", None),
        (b"\xff\x7f\xff\xff\xff", None),
        (b"\x7f" + b"\xff" * 7, None),
        (b"\1" * 20, None),
    ],
    ids=lambda v: v.hex() if isinstance(v, bytes) else None,
)
def test_k095_sequence_numbers_of_old_senders(value: bytes, number: int | None) -> None:
    ticket, keys = issue(now=NOW)
    token = edited_authenticator(ticket, SEQ, tlv(0xA7, tlv(2, value)))
    if number is None:
        with pytest.raises(DecodeError):
            acceptor(keys, clock=CLOCK).step(token)
    else:
        context = take(keys, token, clock=CLOCK)
        # What comes first from an initiator that counts from there is in sequence.
        from purekrb.gss.tokens import CfxProtection

        sender = CfxProtection(
            context.session_key,
            initiator=True,
            acceptor_subkey=True,
            send_seq=number,
            receive_seq=0,
            flags=0,
            random=bytes,
        )
        assert context.unwrap(sender.wrap(b"first", True)) == b"first"
    take(keys, edited_authenticator(ticket, SEQ, SEQ), clock=CLOCK)


# --- K096, K097: authorization data


UNKNOWN = AuthorizationDataEntry(9999, b"restriction")


@pytest.mark.parametrize("where", ["ticket", "authenticator"])
@pytest.mark.parametrize("ad_type", [9999, 5, -17, 0])
def test_k096_a_critical_restriction_that_nobody_understands(where: str, ad_type: int) -> None:
    def made(entries: tuple[AuthorizationDataEntry, ...]) -> tuple[bytes, list[Entry]]:
        if where == "ticket":
            ticket, keys = issue(authorization_data=entries)
            return ap_req(ticket), keys
        ticket, keys = issue()
        return ap_req(ticket, authenticator(ticket, authorization_data=entries)), keys

    unknown = AuthorizationDataEntry(ad_type, b"restriction")
    for entries in ((unknown,), (if_relevant(unknown), unknown)):
        token, keys = made(entries)
        error = refusal(keys, token)
        assert error.code == ErrorCode.KDC_ERR_POLICY
        assert f"ad-type {ad_type}" in str(error)
    token, keys = made((if_relevant(unknown),))
    take(keys, token)


def nested(depth: int, innermost: AuthorizationDataEntry = UNKNOWN) -> AuthorizationDataEntry:
    data = AuthorizationData((innermost,)).encode()
    for _ in range(depth - 1):
        data = AuthorizationData((AuthorizationDataEntry(AuthDataType.IF_RELEVANT, data),)).encode()
    return AuthorizationDataEntry(AuthDataType.IF_RELEVANT, data)


@pytest.mark.parametrize("depth", [10, 100, 1000])
def test_k097_if_relevant_without_end(depth: int) -> None:
    ticket, keys = issue()
    token = ap_req(ticket, authenticator(ticket, authorization_data=(nested(depth),)))
    with pytest.raises(DecodeError, match="nested deeper"):
        acceptor(keys).step(token)
    take(keys, ap_req(ticket, authenticator(ticket, authorization_data=(nested(4),))))
    # What the ticket holds is not opened by contexts; the KDC vouches for it.
    kept, keys = issue(authorization_data=(nested(depth),))
    assert take(keys, ap_req(kept)).authorization_data == (nested(depth),)


def test_k097_ten_thousand_levels_do_not_fit_into_a_token() -> None:
    ticket, keys = issue()
    token = ap_req(ticket, authenticator(ticket, authorization_data=(nested(10_000),)))
    with pytest.raises(DecodeError):
        acceptor(keys).step(token)


@pytest.mark.parametrize("data", [b"", b"0", b"\x30\x80\0\0", b"\x30\x05\x02\x01\x01", b"text"])
def test_k097_an_if_relevant_that_holds_something_else(data: bytes) -> None:
    ticket, keys = issue()
    broken = AuthorizationDataEntry(AuthDataType.IF_RELEVANT, data)
    with pytest.raises(DecodeError):
        acceptor(keys).step(ap_req(ticket, authenticator(ticket, authorization_data=(broken,))))
    empty = AuthorizationDataEntry(AuthDataType.IF_RELEVANT, AuthorizationData(()).encode())
    take(keys, ap_req(ticket, authenticator(ticket, authorization_data=(empty,))))


# --- K098: what the peer hears


def failures() -> Iterator[Any]:
    """Yield (keys, token, options, code) for one failure of each kind."""
    expired = issue(now=NOW - timedelta(hours=20))
    ticket, keys = issue(now=NOW)

    def token(ticket: ServiceTicket = ticket, **changes: Any) -> bytes:
        return ap_req(ticket, authenticator(ticket, **{"now": NOW, **changes}))

    _, others = issue()
    yield pytest.param(others, token(), {}, 31, id="another-key")
    yield pytest.param(expired[1], token(expired[0]), {}, 32, id="expired")
    yield pytest.param(keys, token(), {"service": "host/x"}, 35, id="another-service")
    yield pytest.param(keys, token(crealm="EVIL.TEST"), {}, 36, id="another-client")
    yield pytest.param(keys, token(now=NOW - timedelta(hours=1)), {}, 37, id="skew")
    yield pytest.param(keys, token(cksum=gss_checksum(0)), {}, 46, id="not-mutual")
    yield pytest.param(keys, token(authorization_data=(UNKNOWN,)), {}, 12, id="restriction")
    yield pytest.param([], token(), {}, 45, id="empty-keytab")


@pytest.mark.parametrize(("keys", "token", "options", "code"), list(failures()))
def test_k098_the_krb_error_holds_the_code_the_time_and_our_name_and_nothing_else(
    keys: list[Entry], token: bytes, options: dict[str, Any], code: int
) -> None:
    clock = FixedClock(NOW + timedelta(microseconds=123456))
    error = refusal(keys, token, clock=clock, **options)
    answer = error_of(error.response)
    assert (answer.error_code, answer.stime, answer.susec) == (code, NOW, 123456)
    assert answer.sname.principal(answer.realm) == Principal.parse(
        options.get("service", str(SERVICE))
    )
    assert (answer.ctime, answer.cusec, answer.crealm, answer.cname, answer.e_text) == (None,) * 5
    assert answer.e_data is None or code == ErrorCode.KRB_AP_ERR_SKEW
    for held in keys:
        assert held.key.contents not in (error.response or b"")
    waiting = Initiator(issue()[0])
    waiting.step()
    with pytest.raises(ApError) as caught:
        waiting.step(error.response)
    assert caught.value.code == code


def test_the_krb_error_names_the_service_of_the_ticket_not_the_first_of_the_keytab() -> None:
    other = Principal.parse("HTTP/first.example.test@EXAMPLE.TEST")
    ticket, keys = issue(now=NOW)
    keytab = [Entry(other, 1, crypto.random_key(18)), *keys]
    late = ap_req(ticket, authenticator(ticket, now=NOW - timedelta(hours=1)))
    assert named_in(refusal(keytab, late, clock=CLOCK)) == SERVICE
    another = with_ticket(late, sname=other.name)
    assert named_in(refusal(keytab, another, clock=CLOCK)) == other  # as the client calls us
    # Where there is no ticket to read, the keytab says who we are.
    no_ap_req = frame(TOK_AP_REQ, b"\x6f" + unframe(late)[1][1:])
    assert named_in(refusal(keytab, no_ap_req, clock=CLOCK)) == other


def named_in(error: ApError) -> Principal:
    answer = error_of(error.response)
    return answer.sname.principal(answer.realm)


# --- every flipped bit


@functools.cache
def layout(token: bytes) -> tuple[str, ...]:
    """Return for each byte of an AP-REQ token the name of the field that it belongs to, tags and lengths included."""
    names = ["frame"] * len(token)
    at = token.index(b"\x01\x00\x6e") + 2

    def walk(start: int, stop: int, path: str, depth: int) -> None:
        while start < stop:
            tag, begin, end = read_header(token, start, stop)
            here = f"{path}.{tag & 0x1F}" if tag & 0xC0 == 0x80 else path
            names[start:begin] = [here + ":header"] * (begin - start)
            if tag & 0x20:
                walk(begin, end, here, depth + 1)
            else:
                names[begin:end] = [here] * (end - begin)
            start = end

    walk(at, len(token), "ap-req", 0)
    return tuple(names)


#: What no MAC covers and nobody needs: the one bit between Kerberos' two OIDs, the other AP options, and the ticket's
#: cleartext, which says whose key to try first (K076, K092). Everything else is compared, decrypted or verified.
TOLERATED = {
    "frame": "the mechanism's OID: the standard one or Microsoft's",
    "ap-req.2": "ap-options, but for use-session-key",
    "ap-req.3.1": "realm of the ticket",
    "ap-req.3.2.0": "name-type of the ticket's sname",
    "ap-req.3.2.1": "components of the ticket's sname",
    "ap-req.3.3.1": "kvno of the ticket",
}


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_every_flipped_bit_of_a_token_is_refused_but_for_the_reviewed_list(etype: int) -> None:
    ticket, keys = issue(etype)
    token = Initiator(ticket).step()
    assert token is not None
    fields = layout(token)
    accepted: dict[str, list[int]] = {}
    for bit in range(len(token) * 8):
        context = acceptor(keys)
        try:
            context.step(flipped(token, bit))
        except KerberosError:
            assert not context.established
            continue
        assert (context.initiator, context.acceptor) == (ALICE, SERVICE)
        accepted.setdefault(fields[bit // 8], []).append(bit)
    assert set(accepted) == set(TOLERATED)
    assert [flipped(token, bit).find(MS_KRB5_MECH_OID) for bit in accepted["frame"]] == [
        token.find(KRB5_MECH_OID)
    ]
    options = [bit - 8 * fields.index("ap-req.2") for bit in accepted["ap-req.2"]]
    # The first octet counts unused bits: to name some of the zeros at the end as such changes nothing.
    assert options == [5, 6, 7, *(8 + bit for bit in range(32) if bit != 1)]
    take(keys, token)


def test_the_realm_and_name_of_a_flipped_token_never_come_from_its_cleartext() -> None:
    ticket, keys = issue()
    token = Initiator(ticket).step()
    assert token is not None
    for name, value in (("realm", "EVIL.TEST"), ("sname", PrincipalName(("evil",)))):
        context = take(keys, with_ticket(token, **{name: value}))
        assert (context.initiator, context.acceptor) == (ALICE, SERVICE)


def test_a_token_cut_off_anywhere_is_refused() -> None:
    ticket, keys = issue()
    token = Initiator(ticket).step()
    assert token is not None
    for length in range(len(token)):
        with pytest.raises(KerberosError):
            acceptor(keys, mechanism="kerberos").step(token[:length])
    with pytest.raises(KerberosError):
        acceptor(keys).step(token + b"\0")
    take(keys, token)


def test_an_encrypted_part_of_another_kind_is_refused() -> None:
    """What decrypts but is no EncTicketPart or Authenticator: one in the place of the other, and noise."""
    ticket, keys = issue()
    key = keys[0].key
    made = authenticator(ticket)
    sealed = Ticket.decode(ticket.ticket).enc_part
    for plaintext in (made.encode(), b"", bytes(40), b"\x63\x02\x30\x00"):
        cipher = crypto.encrypt(key, KeyUsage.TICKET, plaintext)
        with pytest.raises(DecodeError):
            acceptor(keys).step(
                with_ticket(ap_req(ticket), enc_part=replace(sealed, cipher=cipher))
            )
    part = crypto.decrypt(key, KeyUsage.TICKET, sealed.cipher)
    assert EncTicketPart.decode(part).key == ticket.session_key
    for plaintext in (part, b"", bytes(40), b"\x62\x02\x30\x00"):
        with pytest.raises(DecodeError):
            acceptor(keys).step(ap_req(ticket, plaintext))
    take(keys, ap_req(ticket, made))


def test_a_refused_ap_req_leaves_no_key_in_the_frames_of_its_traceback() -> None:
    ticket, keys = issue(now=NOW - timedelta(days=2))
    with pytest.raises(ApError) as caught:
        acceptor(keys).step(ap_req(ticket))
    assert caught.value.code == ErrorCode.KRB_AP_ERR_TKT_EXPIRED
    trace, frames = caught.value.__traceback__, 0
    while trace is not None:
        module = trace.tb_frame.f_globals["__name__"]
        if module.startswith("purekrb"):
            frames += 1
            for value in trace.tb_frame.f_locals.copy().values():
                assert not (
                    isinstance(value, (bytes, bytearray)) and ticket.session_key.contents in value
                )
        trace = trace.tb_next
    assert frames > 3


def test_an_authenticator_may_be_of_any_size_that_a_token_holds() -> None:
    """The positive control of the size limits: 200 entries of authorization data that nobody needs."""
    ticket, keys = issue()
    entries = (if_relevant(*(AuthorizationDataEntry(9000 + n, bytes(100)) for n in range(200))),)
    token = ap_req(ticket, authenticator(ticket, authorization_data=entries))
    assert 20_000 < len(token) < 48_000
    take(keys, token)
    big = EncryptedData(18, None, bytes(48_000))
    with pytest.raises(DecodeError, match="larger than the 48000"):
        acceptor(keys).step(
            frame(TOK_AP_REQ, replace(ApReq.decode(unframe(token)[1]), authenticator=big).encode())
        )
