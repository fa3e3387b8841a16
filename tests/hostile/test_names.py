"""K421: names that steer a terminal or forge a line of a log, and names of nobody."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from purekrb import (
    CCache,
    Credential,
    DecodeError,
    KerberosError,
    Keytab,
    KeytabEntry,
    Principal,
    ProtocolError,
    crypto,
)
from purekrb.cli.output import Output
from purekrb.errors import DirectoryError
from purekrb.exchanges.identity import ClientIdentity
from purekrb.exchanges.kdc_reply import ExchangeLabel, kdc_error
from purekrb.exchanges.krb_cred import read_krb_cred
from purekrb.log import Log
from purekrb.messages.ap import EncKrbCredPart, EncryptedData, KrbCred, KrbCredInfo, KrbError
from purekrb.names import PrincipalName
from purekrb.text import visible
from support.contexts import acceptor, ap_req, authenticator
from support.credential_files import CCacheWriter, keytab_file, keytab_record
from support.tickets import ALICE, SERVICE, issue
from support.values import replace

#: Line ends, escape sequences (7 and 8 bits wide), overrides of the direction of writing, blanks without width, tags,
#: fillers, and what is no character at all.
CONTROLS = (
    "\r\n\t\b\x01\x1b\x7f\x85\x9b\xa0\xad\u034f\u061c\u115f\u180e\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e"
    "\u2060\u2066\u2069\u3164\ufe0f\ufeff\uffa0\ud800\U000e0001\U000e0101\U000f0000"
)
ATTACK = "root\r\nAP-REQ verified: client \x1b[2J\u202egro.elpmaxe\u2066"


def is_safe(text: str) -> bool:
    """No control, format control, surrogate, private or unassigned character, no separator but the blank."""
    return all(
        unicodedata.category(c)[0] != "C" and (c == " " or unicodedata.category(c)[0] != "Z")
        for c in text
    )


@pytest.mark.parametrize("character", CONTROLS, ids=lambda c: f"K421-U+{ord(c):04X}")
def test_what_a_terminal_would_obey_is_spelled_out_and_read_back(character: str) -> None:
    for principal in (
        Principal((f"a{character}b", character), f"R{character}"),
        Principal((f"\\x{character}u{character}",), "R"),
        Principal((f"{character}41", f"{character}\\"), "R"),
    ):
        text = str(principal)
        assert is_safe(text)
        assert character not in text
        assert Principal.parse(text) == principal
        assert str(Principal.parse(text)) == text
        assert str(principal.name) == text.rpartition("@")[0]
    assert is_safe(visible(character))
    assert visible(visible(character)) == visible(character)


def test_k421_every_character_is_read_back_as_it_was_and_none_passes_that_is_not_shown() -> None:
    for start in range(1, 0x3000, 64):
        name = "".join(map(chr, range(start, start + 64)))
        principal = Principal(("x" + name, name[::-1] + "41"), name)
        assert is_safe(str(principal))
        assert Principal.parse(str(principal)) == principal
    assert (
        str(Principal(("Jürgen Müller", "日本"), "R")) == "Jürgen Müller/日本@R"
    )  # what is shown stays


@pytest.mark.parametrize(
    ("text", "components"),
    [
        pytest.param(r"a\x1b@R", ("a\x1b",), id="K421-x"),
        pytest.param(r"a\u202Eb@R", ("a\u202eb",), id="K421-u"),
        pytest.param(r"a\U000e0001@R", ("a\U000e0001",), id="K421-U"),
        pytest.param(r"a\\x1b@R", ("a\\x1b",), id="K421-a-quoted-backslash"),
        pytest.param(r"a\x1@R", ("ax1",), id="K421-too-few-digits-are-what-MIT-reads"),
        pytest.param(r"a\xyz@R", ("axyz",), id="K421-no-digits-are-what-MIT-reads"),
        pytest.param(
            r"a\x2fb\x40c@R", ("a/b@c",), id="K421-a-separator-by-its-number-does-not-separate"
        ),
    ],
)
def test_a_character_is_read_by_its_number(text: str, components: tuple[str, ...]) -> None:
    assert Principal.parse(text) == Principal(components, "R")


@pytest.mark.parametrize("text", [r"a\x00@R", r"a\u0000@R", r"a\U00110000@R", r"a\Uffffffff@R"])
def test_k421_a_number_of_no_character_and_nul_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        Principal.parse(text)


# -- logs, errors, the output of commands


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: found.append(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("purekrb")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("tell", ["debug", "warning", "error"])
def test_k421_no_argument_of_a_log_line_begins_another_line(tell: str, lines: list[str]) -> None:
    getattr(Log("purekrb.test"), tell)(
        "%s and %s, %d of %s", ATTACK, ValueError(ATTACK), 5, [ATTACK]
    )
    (line,) = lines
    assert is_safe(line)
    assert line.startswith(r"root\r\nAP-REQ")
    assert "5 of" in line


def test_k421_the_log_of_a_handshake_with_such_a_client_is_safe(lines: list[str]) -> None:
    ticket, keys = issue(client=Principal((ATTACK,), "R\x1b"))
    side = acceptor(keys)
    side.step(ap_req(ticket))
    assert side.initiator == Principal((ATTACK,), "R\x1b"), "the name itself is as it came"
    assert any(r"\x0d\nAP-REQ verified" in line for line in lines)
    assert all(map(is_safe, lines))


def test_k421_the_words_of_a_kdc_in_an_error_are_safe() -> None:
    now = ticket_time()
    error = KrbError(
        5, 30, None, None, now, 0, 6, None, None, "R\n", PrincipalName((ATTACK,)), ATTACK, None
    )
    failure = kdc_error(
        error, ExchangeLabel("AS", Principal((ATTACK,), "R\r"), Principal(("krbtgt", "R\n"), "R"))
    )
    assert is_safe(str(failure))
    assert "root" in str(failure)


@pytest.mark.parametrize("kind", [DecodeError, ProtocolError, DirectoryError])
def test_k421_an_error_is_one_safe_line_whatever_was_put_into_it(kind: type[KerberosError]) -> None:
    error = kind(f"the host {ATTACK} says {ATTACK}")
    assert is_safe(str(error))
    assert is_safe(f"{error}")
    assert ATTACK in error.args[0]


def test_k421_the_identity_of_a_client_is_safe_to_print() -> None:
    assert is_safe(str(ClientIdentity(ALICE, domain="EXAMPLE\r", name="root\u202e")))
    assert str(ClientIdentity(ALICE, domain="EXAMPLE", name="alice")) == r"EXAMPLE\alice"


@pytest.mark.parametrize("as_json", [False, True])
def test_k421_no_value_that_a_command_prints_begins_another_line(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Output(as_json=as_json)
    output.result({"dn": ATTACK}, f"dn {ATTACK}", "second")
    output.table({"dn": ATTACK}, ("DN", "SPN"), [(ATTACK, ATTACK)], title=f"of {ATTACK}")
    output.warning(ATTACK)
    output.error(ATTACK, "KerberosError")
    with output.log():
        Log("purekrb.test").warning("%s", ATTACK)
        logging.getLogger("purekrb.testing").warning("the realm says %s", ATTACK)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == (2 if as_json else 6)
    assert len(err.splitlines()) == 4
    assert all(is_safe(line) for line in [*out.splitlines(), *err.splitlines()])


# -- names of nobody


def ticket_time() -> Any:
    return issue()[0].authtime


NOBODY = Principal((), "R.TEST")
NOWHERE = Principal(("alice",), "")


@pytest.mark.parametrize(
    "name",
    [pytest.param(NOBODY, id="K421-no-components"), pytest.param(NOWHERE, id="K421-no-realm")],
)
@pytest.mark.parametrize(
    "use",
    [
        Principal.of,
        CCache,
        lambda name: Credential.from_password(name, "pw"),
        lambda name: Credential.from_key(name, crypto.random_key(18)),
        lambda name: Keytab.from_password(name, "pw", etypes=(23,)),
        lambda name: Keytab([KeytabEntry(name, 1, crypto.random_key(18))]).encode(),
    ],
)
def test_nobody_is_no_client_and_has_no_key(
    name: Principal, use: Callable[[Principal], object]
) -> None:
    use(ALICE)
    with pytest.raises(KerberosError):
        use(name)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(keytab_file(keytab_record(realm=b"")), id="K421-keytab-without-a-realm"),
        pytest.param(keytab_file(keytab_record(components=())), id="K421-keytab-without-a-name"),
    ],
)
def test_a_key_of_nobody_is_refused(data: bytes) -> None:
    assert len(Keytab.decode(keytab_file(keytab_record()))) == 1
    with pytest.raises(DecodeError, match="byte 8"):
        Keytab.decode(data)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_k421_a_ticket_of_nobody_is_refused_but_one_under_a_name_without_realm_is_read(
    version: int,
) -> None:
    """MIT's library keeps a ticket that a referral led to under the name that was asked for, without a realm, too."""
    write = CCacheWriter(version)
    (ticket,) = CCache.decode(
        write.file(write.credential(write.principal(b"HTTP", b"web", realm=b"")))
    )
    assert ticket.service == Principal(("HTTP", "web"), "")
    nobody = write.principal(), write.principal(b"alice", realm=b"")
    for bad in nobody:
        with pytest.raises(DecodeError):
            CCache.decode(write.file(principal=bad))
        with pytest.raises(DecodeError):
            CCache.decode(write.file(write.credential(client=bad)))


@pytest.mark.parametrize(
    ("client", "cleartext"),
    [
        pytest.param(NOBODY, {}, id="K421-ticket-of-nobody"),
        pytest.param(NOWHERE, {}, id="K421-ticket-of-no-realm"),
        pytest.param(ALICE, {"realm": ""}, id="K421-ticket-for-no-realm"),
        pytest.param(ALICE, {"sname": PrincipalName(())}, id="K421-ticket-for-nobody"),
    ],
)
def test_a_ticket_without_a_client_or_a_service_is_refused(
    client: Principal, cleartext: dict[str, Any]
) -> None:
    good, keys = issue()
    acceptor(keys).step(ap_req(good))
    ticket, keys = issue(client=client, cleartext=cleartext)
    with pytest.raises(DecodeError, match="names no"):
        acceptor(keys).step(ap_req(ticket, authenticator(ticket)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"prealm": ""}, id="K421-delegation-of-no-realm"),
        pytest.param({"srealm": ""}, id="K421-delegation-for-no-realm"),
        pytest.param({"pname": PrincipalName(())}, id="K421-delegation-of-nobody"),
        pytest.param({"sname": PrincipalName(())}, id="K421-delegation-for-nobody"),
    ],
)
def test_a_delegated_ticket_of_nobody_is_refused(change: dict[str, Any]) -> None:
    ticket, _ = issue()
    key = crypto.random_key(18)
    info = KrbCredInfo(
        ticket.session_key,
        "R",
        ALICE.name,
        0,
        None,
        None,
        ticket.endtime,
        None,
        "R",
        SERVICE.name,
        None,
    )

    def message(info: KrbCredInfo) -> bytes:
        part = EncKrbCredPart((info,), None, None, None, None, None).encode()
        return KrbCred(
            5, 22, (ticket.ticket,), EncryptedData(18, None, crypto.encrypt(key, 14, part))
        ).encode()

    assert len(read_krb_cred(message(info), (key,))) == 1
    with pytest.raises(DecodeError):
        read_krb_cred(message(replace(info, **change)), (key,))
