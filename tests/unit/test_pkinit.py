"""PKINIT's messages, groups and reply keys: the published values, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from purekrb import DecodeError, ProtocolError, UnsupportedError, crypto, keys
from purekrb.crypto.dh import DH_GROUPS, Field
from purekrb.crypto.pkinit_kdf import KDF_HASHES, kdf_key, octetstring2key
from purekrb.exchanges.preauth.pkinit import key_by_sha1
from purekrb.messages import cms, pkinit
from purekrb.messages.ap import EncryptedData
from purekrb.messages.certificate_names import Krb5PrincipalName
from purekrb.messages.der import Message, read_header, tlv
from purekrb.names import PrincipalName
from purekrb.oids import contents_of, dotted
from purekrb.system import random_bytes
from support.vectors import load

VECTORS = load("pkinit.json")
SIGNED_DATA = contents_of("1.2.840.113549.1.7.2")
REFERENCES: dict[str, type[Message]] = {
    "pa_pk_as_rep(dhInfo)": pkinit.DhRepInfo,
    "kdc_dh_key_info": pkinit.KdcDhKeyInfo,
    "sp80056a_other_info": pkinit.OtherInfo,
    "pkinit_supp_pub_info": pkinit.SuppPubInfo,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_mits_references_are_read_and_written_byte_for_byte(name: str) -> None:
    (entry,) = [entry for entry in load("asn1_other.json") if entry["name"] == name]
    message = REFERENCES[name].decode(entry["der"])
    assert message.encode() == entry["der"]
    with pytest.raises(DecodeError):
        REFERENCES[name].decode(entry["der"][:-1])


def test_the_request_of_mits_reference_is_read() -> None:
    (entry,) = [entry for entry in load("asn1_other.json") if entry["name"] == "pa_pk_as_req"]
    request = pkinit.PaPkAsReq.decode(entry["der"])
    assert (request.signed_auth_pack, request.kdc_pk_id) == (b"krb5data", b"krb5data")
    (certifier,) = request.trusted_certifiers or ()
    assert certifier == pkinit.ExternalPrincipalIdentifier(b"krb5data", b"krb5data", b"krb5data")
    assert request.encode() == entry["der"]


def test_the_auth_pack_of_mits_reference_is_read_and_written_byte_for_byte() -> None:
    (entry,) = [entry for entry in load("asn1_other.json") if entry["name"] == "auth_pack"]
    no_key = bytes.fromhex("a108") + tlv(4, b"pvalue")  # in place of a SubjectPublicKeyInfo
    _, begin, _ = read_header(entry["der"], 0, len(entry["der"]))
    data = tlv(0x30, entry["der"][begin:].replace(no_key, b""))
    pack = pkinit.AuthPack.decode(data)
    assert pack.encode() == data
    assert (pack.client_dh_nonce, pack.supported_kdfs) == (b"krb5data", (b"krb5data",))
    checksum = pack.pk_authenticator.pa_checksum2
    assert checksum is not None
    assert checksum.checksum == b"krb5data"
    assert len(pack.supported_cms_types or ()) == 2


def test_rsa_key_transport_is_refused_by_name() -> None:
    (entry,) = [e for e in load("asn1_other.json") if e["name"] == "pa_pk_as_rep(encKeyPack)"]
    with pytest.raises(UnsupportedError, match="RSA key transport"):
        pkinit.decode_pa_pk_as_rep(entry["der"])


# -- keys


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["kind"] == "octetstring2key"], ids=lambda v: len(v["secret"])
)
def test_octetstring2key_gives_the_published_keys(vector: dict[str, Any]) -> None:
    assert octetstring2key(18, vector["secret"]).contents == vector["key"]
    assert octetstring2key(17, vector["secret"]).contents == vector["key"][:16]


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["kind"] in KDF_HASHES], ids=lambda v: v["kind"]
)
def test_the_key_derivation_functions_give_the_published_keys(vector: dict[str, Any]) -> None:
    names = [
        Krb5PrincipalName("SU.SE", PrincipalName(components)).encode()
        for components in (("lha",), ("krbtgt", "SU.SE"))
    ]
    supp = pkinit.SuppPubInfo(vector["etype"], vector["as_req"], vector["pk_as_rep"]).encode()
    algorithm = cms.AlgorithmIdentifier(contents_of(vector["kind"]), b"")
    info = pkinit.OtherInfo(algorithm, *names, supp).encode()
    assert info == vector["other_info"]
    if vector["key"] is not None:
        key = kdf_key(vector["kind"], vector["etype"], vector["secret"], info)
        assert key.contents == vector["key"]


def test_no_key_is_made_of_an_encryption_type_that_is_not_had() -> None:
    assert octetstring2key(20, b"x").etype == 20
    with pytest.raises(UnsupportedError, match=keys.etype_name(16)):
        octetstring2key(16, b"x")


# -- groups


@pytest.mark.parametrize("name", DH_GROUPS)
def test_both_sides_share_a_secret_of_the_groups_size_once(name: str) -> None:
    group = DH_GROUPS[name]
    ours, theirs = group.new_secret(random_bytes), group.new_secret(random_bytes)
    shared = ours.shared(theirs.public)
    assert theirs.shared(ours.public) == shared
    assert len(shared) == {"2048": 256, "4096": 512, "P-256": 32, "P-384": 48, "P-521": 66}[name]
    with pytest.raises(ValueError, match="used once"):
        ours.shared(theirs.public)
    assert repr(ours) == f"<a secret of {name}>"


def test_the_secret_keeps_its_leading_zeros() -> None:
    """It is of the size of the prime: else one handshake in 256 would fail."""
    group = DH_GROUPS["2048"]
    assert isinstance(group, Field)

    def ones(size: int) -> bytes:
        return bytes(size - 1) + b"\1"

    # 2 to the 10th inverse: with the exponent 2^255 + 1, the shared secret is small.
    exponent = 1 << 255 | 1
    order = (group.prime - 1) // 2
    root = pow(4, pow(exponent, -1, order), group.prime)
    shared = group.new_secret(ones).shared(root.to_bytes(256, "big"))
    assert shared == (4).to_bytes(256, "big")


@pytest.mark.parametrize("name", ["2048", "4096"])
def test_the_primes_are_those_of_rfc_3526(name: str) -> None:
    """2^n - 2^(n - 64) - 1 + 2^64 * (floor(2^(n - 130) * pi) + offset)"""
    bits, offset = int(name), {"2048": 124476, "4096": 240904}[name]

    def arctan_of_inverse(x: int, one: int) -> int:
        term = total = one // x
        n, sign = 1, 1
        while term:
            term, n, sign = term // (x * x), n + 2, -sign
            total += sign * (term // n)
        return total

    one = 1 << bits - 130 + 64
    pi = 4 * (4 * arctan_of_inverse(5, one) - arctan_of_inverse(239, one)) >> 64
    group = DH_GROUPS[name]
    assert isinstance(group, Field)
    assert group.prime == 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi + offset)


@pytest.mark.parametrize("name", DH_GROUPS)
def test_what_is_no_value_of_the_group_is_refused(name: str) -> None:
    group = DH_GROUPS[name]
    good = group.new_secret(random_bytes).public
    if isinstance(group, Field):
        p = group.prime
        numbers = (0, 1, p - 1, p, p + 1, p + 2, (1 << 8 * group.size) - 1, 1 << 8 * group.size)
        bad = [b"", *(n.to_bytes(group.size + 1, "big").removeprefix(b"\0") for n in numbers)]
    else:
        flipped = good[:-1] + bytes((good[-1] ^ 1,))
        bad = [b"", b"\0", good[:-1], good + b"\0", flipped, b"\4" + bytes(len(good) - 1)]
        bad.append(
            DH_GROUPS["P-256" if name != "P-256" else "P-384"].new_secret(random_bytes).public
        )
    for value in bad:
        with pytest.raises(ProtocolError, match="not one of the group"):
            group.new_secret(random_bytes).shared(value)
    assert group.new_secret(random_bytes).shared(good)


def test_dh_numbers_are_read_and_written_as_integers() -> None:
    for number in (b"\0", b"\1", b"\x7f", b"\x80", b"\xff" * 256, b"\0" + b"\x80" * 256):
        data = pkinit.encode_dh_number(number)
        assert int.from_bytes(pkinit.dh_number(data), "big") == int.from_bytes(number, "big")
    for bad in (
        b"",
        b"\2\0",
        b"\2\1\x80",
        b"\2\2\0\1",
        b"\2\1\1\0",
        b"\4\1\1",
        tlv(2, b"\1" * 1026),
    ):
        with pytest.raises(DecodeError):
            pkinit.dh_number(bad)


# -- signed data


def test_oids_are_written_as_they_are_read() -> None:
    for text in (
        *KDF_HASHES,
        "1.2.840.113549.1.7.2",
        "2.16.840.1.101.3.4.2.1",
        "0.9.2342",
        "2.999.3",
    ):
        assert dotted(contents_of(text)) == text


def test_signed_data_beyond_the_bound_is_not_read() -> None:
    content = cms.EncapsulatedContent(b"\x2a\x03", b"x")
    data = cms.SignedData(3, (), content, None, None, ())
    assert cms.ContentInfo.decode(cms.ContentInfo(data).encode()).content == data
    large = data._replace(encap_content_info=cms.EncapsulatedContent(b"\x2a\x03", bytes(1 << 20)))
    with pytest.raises(DecodeError, match="larger than"):
        cms.ContentInfo.decode(cms.ContentInfo(large).encode())
    other = contents_of("1.2.840.113549.1.7.3")
    with pytest.raises(DecodeError, match="no signed data"):
        cms.ContentInfo.decode(cms.ContentInfo(data).encode().replace(SIGNED_DATA, other))


def test_the_key_of_a_shared_value_that_begins_with_zeros_is_that_of_the_reply() -> None:
    """Heimdal's KDC then loses as many bytes at the end; RFC 4556 3.2.3.1 does not."""
    for shared, used in (
        (b"\0\0" + bytes(range(1, 255)), b"\0\0" + bytes(range(1, 253))),
        (b"\0\0" + bytes(range(1, 255)), b"\0\0" + bytes(range(1, 255))),
        (bytes(range(1, 255)), bytes(range(1, 255))),
    ):
        key = octetstring2key(18, used)
        sealed = EncryptedData(18, None, crypto.encrypt(key, 3, b"the reply"))
        assert key_by_sha1(shared, sealed) == key
    strange = EncryptedData(18, None, crypto.encrypt(octetstring2key(18, b"x"), 3, b"the reply"))
    assert key_by_sha1(b"\0\1", strange) == octetstring2key(18, b"\0\1")
