"""Claims in a PAC: plain and compressed, made by the embedded KDC and by hand."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from purekrb import Acceptor, Initiator, KdcClient, PacError, UnsupportedError
from purekrb.exchanges.identity import ClientIdentity
from purekrb.messages.pac_buffers import Claims
from purekrb.messages.xpress import MAX_SIZE, decompress
from purekrb.testing import Realm
from support import pac_buffers
from support.pac_buffers import compressed

SID = "S-1-5-21-1-2-3"
GIVEN = {
    "ad://ext/department:88d1": ("Engineering", "Päckchen"),
    "ad://ext/level:88d2": (-3, 1 << 40),
    "ad://ext/admin:88d3": (True, False),
    "ad://ext/a-long-one:88d4": ("x" * 3000,),
}


def table(lengths: dict[int, int]) -> bytes:
    """Return the code lengths of all 512 symbols."""
    return bytes(lengths.get(2 * n, 0) | lengths.get(2 * n + 1, 0) << 4 for n in range(256))


#: The examples of MS-XCA 3.2.
ALPHABET = table(
    {**dict.fromkeys(range(97, 119), 5), **dict.fromkeys((*range(119, 123), 256), 4)}
) + bytes.fromhex("d8523ed794115be9195ff9d67cdf8d0400000000")
HUNDRED = table({97: 3, 98: 3, 99: 2, 256: 2, 287: 2}) + bytes.fromhex("a8dc0000ff2601")


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
def test_the_identity_shows_the_claims_of_the_embedded_realm(packed: bool) -> None:
    realm = Realm("R.TEST", domain_sid=SID, compressed_claims=packed)
    with realm:
        alice = realm.add_user("alice", "pw", claims=GIVEN)
        bob = realm.add_user("bob", "pw")
        keytab = realm.add_service("HTTP/web")
        client = KdcClient(realm.config)
        tickets = [client.get_ticket(user, "HTTP/web@R.TEST") for user in (alice, bob)]
    found = []
    for ticket in tickets:
        acceptor = Acceptor(keytab)
        acceptor.step(Initiator(ticket).step())
        found.append(acceptor.identity)
    assert found[0].claims == GIVEN
    assert found[1].claims == found[0].device_claims == {}
    assert "Engineering" not in repr(found[0])


def test_claims_need_a_domain() -> None:
    with pytest.raises(ValueError, match="domain_sid"):
        Realm("R.TEST").add_user("alice", "pw", claims=GIVEN)


def claims_of(buffer: bytes) -> dict[str, tuple[int | str | bool, ...]]:
    identity = ClientIdentity(principal=None, _claims=buffer)  # type: ignore[arg-type]
    return identity.claims


def test_claims_made_by_hand_are_read() -> None:
    plain = pac_buffers.metadata(0, pac_buffers.claims_set())
    expected = {name: tuple(values) for name, values in pac_buffers.CLAIMS.items()}
    assert claims_of(plain) == expected
    blob = pac_buffers.claims_set()
    packed = pac_buffers.metadata(4, compressed(blob), len(blob))
    assert claims_of(packed) == expected


def test_other_compressions_are_named() -> None:
    for compression, name in ((2, "LZNT1"), (3, "XPRESS"), (9, "9")):
        with pytest.raises(UnsupportedError, match=rf"compressed by {name};"):
            claims_of(pac_buffers.metadata(compression, b"12345678"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Claims(4, 3, compressed(b"abc"))
    assert decompress(packed.blob, 3) == b"abc"
    monkeypatch.setitem(sys.modules, "dissect.util.compression", None)
    with pytest.raises(UnsupportedError, match=r"pip install purekrb\[claims\]"):
        packed.claims()
    plain = pac_buffers.metadata(0, pac_buffers.claims_set())
    assert claims_of(plain)  # these need no package


@pytest.mark.parametrize(
    ("data", "text"), [(ALPHABET, bytes(range(97, 123))), (HUNDRED, b"abc" * 100)]
)
def test_the_examples_of_ms_xca_are_decompressed(data: bytes, text: bytes) -> None:
    assert decompress(data, len(text)) == text


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 5000, 53_000])
def test_every_byte_comes_back(size: int) -> None:
    data = bytes(n * 7 % 256 for n in range(size))
    assert decompress(compressed(data), size) == data


# Hostile claims, signed by a KDC


def test_k620_few_bytes_that_stand_for_many_are_refused_at_once() -> None:
    bomb = table({97: 1, 271: 1}) + b"\xff\x7f" * 2 + b"\xff\xff\xff" * 100
    many = (table({97: 1, 271: 1}) + b"\xff\x7f\xff\xff\xff\xff\xff" * 20) * 150
    for data in (bomb, many, many[:50_000]):
        with pytest.raises(PacError):
            decompress(data, MAX_SIZE)
    assert decompress(compressed(b"a" * 50_000), 50_000) == b"a" * 50_000


@pytest.mark.parametrize("size", [MAX_SIZE + 1, 1 << 31])
def test_k621_claims_that_announce_too_much_are_refused_before_they_are_read(size: int) -> None:
    with pytest.raises(PacError, match="at most"):
        decompress(compressed(b"abc"), size)
    with pytest.raises(PacError, match="at most"):
        decompress(bytes(MAX_SIZE + 1), 3)


@pytest.mark.parametrize("cut", [1, 100, 255, 256, 257, 260, 300])
def test_k622_damaged_claims_give_pac_errors_alone(cut: int) -> None:
    good = compressed(pac_buffers.claims_set())
    size = len(pac_buffers.claims_set())
    assert Claims(4, size, good).claims()
    with pytest.raises(PacError):
        Claims(4, size, good[:cut]).claims() or pytest.fail("no claims")
    for at in range(0, len(good), 7):
        damaged = good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :]
        try:
            Claims(4, size, damaged).claims()
        except PacError:
            continue


def test_k623_a_claim_that_is_there_twice_is_refused() -> None:
    blob = pac_buffers.claims_set()
    twice = blob.replace("level".encode("utf-16-le"), "admin".encode("utf-16-le"))
    assert claims_of(pac_buffers.metadata(0, blob))
    with pytest.raises(PacError, match="twice"):
        claims_of(pac_buffers.metadata(0, twice))


def test_the_claims_of_an_identity_do_not_count_as_text() -> None:
    identity = ClientIdentity(principal=None, _claims=b"x")  # type: ignore[arg-type]
    assert replace(identity, domain="AD").domain == "AD"
    with pytest.raises(PacError):
        _ = identity.claims
