"""Kirbi files: read as Windows and other tools write them, written in DER."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from impacket.krb5 import ccache as impacket_ccache

from purekrb import (
    CCache,
    CredentialError,
    DecodeError,
    KerberosError,
    Kirbi,
    Principal,
    ProtocolError,
    ServiceTicket,
    UnsupportedError,
    crypto,
)
from purekrb.constants import TicketFlags
from purekrb.exchanges.krb_cred import build_krb_cred
from purekrb.messages.ap import EncKrbCredPart, EncryptedData, HostAddress, KrbCred
from purekrb.messages.der import read_header
from purekrb.system import random_bytes
from support.canaries import leaks
from support.contexts import ALL
from support.tickets import issue
from support.values import replace

TGS = Principal.parse("krbtgt/EXAMPLE.TEST@EXAMPLE.TEST")
NOW = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
FLAGS = TicketFlags.FORWARDABLE | TicketFlags.RENEWABLE | TicketFlags.PRE_AUTHENT


def ticket(etype: int = 18, service: Principal = TGS, **changes: object) -> ServiceTicket:
    made = issue(etype, service=service, flags=FLAGS, now=NOW)[0]
    return replace(made, renew_till=NOW + timedelta(days=7), **changes)


TWO = (ticket(), ticket(17, Principal.parse("cifs/fs.example.test@EXAMPLE.TEST")))


def with_part(data: bytes, change: Callable[[EncKrbCredPart], EncKrbCredPart]) -> bytes:
    """Return the kirbi `data` with another description of its tickets."""
    message = KrbCred.decode(data)
    part = change(EncKrbCredPart.decode(message.enc_part.cipher))
    return replace(message, enc_part=EncryptedData(0, None, part.encode())).encode()


def long_form(data: bytes, size: int, keys: bytes | None = None) -> bytes:
    """Return the DER `data` with every length in `size` octets; also inside the one that holds the keys."""
    keys = KrbCred.decode(data).enc_part.cipher if keys is None else keys
    out, at = b"", 0
    while at < len(data):
        tag, start, at = read_header(data, at, len(data))
        contents = data[start:at]
        if tag & 0x20 or contents == keys:
            contents = long_form(contents, size, keys)
        out += bytes((tag, 0x80 | size)) + len(contents).to_bytes(size, "big") + contents
    return out


@pytest.mark.parametrize("etype", ALL)
def test_what_is_written_is_read(etype: int, tmp_path: Path) -> None:
    for tickets in (
        (ticket(etype),),
        (ticket(etype), *TWO),
        (ticket(etype, starttime=None, caddr=(HostAddress(2, b"\x7f\0\0\1"),)),),
    ):
        Kirbi(tickets).save(tmp_path / "tickets.kirbi")
        assert tuple(Kirbi.load(tmp_path / "tickets.kirbi")) == tickets
    assert (tmp_path / "tickets.kirbi").stat().st_mode & 0o777 == 0o600


def test_a_ccache_becomes_a_kirbi_and_comes_back() -> None:
    ccache = CCache(TWO[0].client, TWO)
    back = CCache(ccache.principal, Kirbi.decode(Kirbi(ccache).encode()))
    assert list(back) == list(ccache)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_lengths_in_the_long_form_are_read_as_windows_writes_them(size: int) -> None:
    data = Kirbi(TWO).encode()
    exported = long_form(data, size)
    with pytest.raises(DecodeError):
        KrbCred.decode(exported)  # elsewhere, DER stays strict
    assert Kirbi.decode(exported).tickets == TWO
    assert Kirbi.decode(exported).encode() == data


def test_base64_is_read_with_its_line_ends() -> None:
    for data in (Kirbi(TWO).encode(), long_form(Kirbi(TWO).encode(), 4)):
        assert Kirbi.decode(base64.b64encode(data)).tickets == TWO
        assert (
            Kirbi.decode(b"  " + base64.encodebytes(data).replace(b"\n", b"\r\n  ")).tickets == TWO
        )


def test_flags_that_a_tool_wrote_one_bit_too_high_are_moved_back() -> None:
    def moved(part: EncKrbCredPart) -> EncKrbCredPart:
        (info,) = part.ticket_info
        return replace(part, ticket_info=(replace(info, flags=0xA1400000),))

    (found,) = Kirbi.decode(with_part(Kirbi(TWO[:1]).encode(), moved))
    assert found.flags == 0x50A00000


def test_a_kirbi_without_authtime_takes_the_start() -> None:
    def without(part: EncKrbCredPart) -> EncKrbCredPart:
        (info,) = part.ticket_info
        return replace(part, ticket_info=(replace(info, authtime=None),))

    (found,) = Kirbi.decode(with_part(Kirbi(TWO[:1]).encode(), without))
    assert found.authtime == TWO[0].starttime


def test_tickets_and_descriptions_of_different_number_are_refused() -> None:
    for count in (0, 1, 3):

        def other(part: EncKrbCredPart, count: int = count) -> EncKrbCredPart:
            return replace(part, ticket_info=(part.ticket_info * 2)[:count])

        with pytest.raises(ProtocolError, match="describe each of its tickets once"):
            Kirbi.decode(with_part(Kirbi(TWO).encode(), other))
    assert Kirbi.decode(with_part(Kirbi(TWO).encode(), lambda part: part)).tickets == TWO


def test_encrypted_keys_are_named_and_refused() -> None:
    message = build_krb_cred(TWO[0], crypto.random_key(18), now=NOW, random=random_bytes)
    with pytest.raises(UnsupportedError, match="etype 18"):
        Kirbi.decode(message)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "this is not a kirbi"),
        (b"\5\4\0\0", "this is not a kirbi"),
        (base64.b64encode(b"something else"), "this is not a kirbi"),
        (Kirbi(TWO).encode() + b"\0\0", "data follow"),
        (b"\x76\x80\x30\x00\x00\x00", "indefinite"),
        (b"\x76\x84\xff\xff\xff\xff", "past the end"),
        (b"\x76\x89" + bytes(9), "oversized"),
        (b"\x76\x03\x3f\x81\x00", "multi-byte tag"),
        (b"\x76\x82", "ends inside a header|past the end"),
        (b"\x76" + b"\x7e\x30" * 60, "past the end|damaged"),
    ],
)
def test_what_is_no_kirbi_is_refused_in_words(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=words):
        Kirbi.decode(data)
    (tmp_path / "x").touch(0o600)
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DecodeError, match=f"^{tmp_path / 'x'}: "):
        Kirbi.load(tmp_path / "x")


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(5000):
        data = b"\x76\x84" + len(data).to_bytes(4, "big") + data
    with pytest.raises(DecodeError, match="nested too deeply"):
        Kirbi.decode(data)


def test_every_cut_and_every_flipped_bit_is_refused_in_a_typed_error_or_read() -> None:
    data = long_form(Kirbi(TWO[:1]).encode(), 3)
    for at in range(len(data)):
        with pytest.raises(KerberosError):
            Kirbi.decode(data[:at])
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            assert leaks(outcome(bytes(changed)), [TWO[0].session_key.contents]) == []


def outcome(data: bytes) -> str:
    """Return the repr of the kirbi in `data`, or the words of its refusal."""
    try:
        return repr(Kirbi.decode(data))
    except KerberosError as error:
        return str(error)


def test_an_empty_kirbi_is_not_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "tickets.kirbi"
    Kirbi(TWO).save(path)
    with pytest.raises(CredentialError, match="at least one"):
        Kirbi([]).save(path)
    with pytest.raises(CredentialError, match="is damaged"):
        Kirbi([TWO[0], replace(TWO[1], ticket=b"noise")]).save(path)
    assert Kirbi.load(path).tickets == TWO


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tickets.kirbi"
    Kirbi(TWO).save(path)
    path.chmod(0o644)
    with pytest.raises(CredentialError, match="chmod 600"):
        Kirbi.load(path)


def test_no_secret_is_in_a_repr() -> None:
    kirbi = Kirbi(TWO)
    assert repr(kirbi) == "Kirbi(2 tickets)"
    assert leaks(repr(kirbi) + repr(kirbi.tickets), [t.session_key.contents for t in TWO]) == []


# -- impacket writes and reads the same files


def test_impacket_reads_what_is_written(tmp_path: Path) -> None:
    Kirbi(TWO).save(tmp_path / "tickets.kirbi")
    found = impacket_ccache.CCache.loadKirbiFile(str(tmp_path / "tickets.kirbi"))
    assert [bytes(c["key"]["keyvalue"]) for c in found.credentials] == [
        t.session_key.contents for t in TWO
    ]
    assert [int(c["tktflags"]) for c in found.credentials] == [int(FLAGS)] * 2
    assert [c.ticket["data"] for c in found.credentials] == [t.ticket for t in TWO]


def test_what_impacket_writes_is_read(tmp_path: Path) -> None:
    CCache(TWO[0].client, TWO).save(tmp_path / "ccache")
    found = impacket_ccache.CCache.loadFile(str(tmp_path / "ccache"))
    kirbi = Kirbi.decode(found.toKRBCRED())
    assert kirbi.tickets == TWO
