"""The RFC 3961 framework against published values, and its behaviour at the edges."""

from __future__ import annotations

import os
from typing import Any

import pytest

from purekrb import crypto
from purekrb.constants import ChecksumType, EncryptionType
from purekrb.crypto import profile
from purekrb.crypto.aes_cts import AesCts
from purekrb.crypto.derivation import (
    CHECKSUM,
    ENCRYPT,
    INTEGRITY,
    dk,
    kdf_hmac_sha2,
    usage_constant,
)
from purekrb.crypto.profile import MAX_ITERATIONS, QUICK_ITERATIONS, iterations, pbkdf2
from purekrb.errors import (
    CredentialError,
    DecodeError,
    IntegrityError,
    KerberosError,
    PolicyError,
    UnsupportedError,
)
from purekrb.keys import KEY_SIZES, EncryptionKey
from support.reference_cts import cts_decrypt
from support.vectors import load, params

ETYPES = (17, 18, 19, 20, 23)
Vector = dict[str, Any]


def key_of(vector: Vector) -> EncryptionKey:
    return EncryptionKey(vector["etype"], vector["key"])


# Published values


@pytest.mark.parametrize("vector", params("n_fold.json", "{size}"))
def test_n_fold_gives_the_published_value(vector: Vector) -> None:
    assert crypto.n_fold(vector["input"], vector["size"]) == vector["output"]


@pytest.mark.parametrize("vector", params("string_to_key.json", "etype{etype}"))
def test_string_to_key_gives_the_published_key(vector: Vector) -> None:
    key = crypto.string_to_key(
        vector["etype"], vector["password"], vector["salt"], vector["params"]
    )
    assert key == key_of(vector)


@pytest.mark.parametrize("vector", params("derive_key.json", "etype{etype}-{kind}"))
def test_specific_keys_have_the_published_values(vector: Vector) -> None:
    kinds = {"encrypt": ENCRYPT, "checksum": CHECKSUM, "integrity": INTEGRITY}
    constant = usage_constant(vector["usage"], kinds[vector["kind"]])
    if vector["etype"] in (17, 18):
        assert dk(vector["key"], constant) == vector["derived"]
    else:
        name = {19: "sha256", 20: "sha384"}[vector["etype"]]
        assert (
            kdf_hmac_sha2(name, vector["key"], constant, len(vector["derived"]))
            == vector["derived"]
        )


@pytest.mark.parametrize("vector", params("aes_cts.json", "cts"))
def test_ciphertext_stealing_gives_the_published_bytes(vector: Vector) -> None:
    plaintext, ciphertext = vector["plaintext"], vector["ciphertext"]
    cts = AesCts(vector["key"])
    for _ in range(3):  # the second and third time on a running cipher object
        assert b"".join(cts.encrypt(plaintext)) == ciphertext
        assert cts.decrypt(ciphertext[:-16], ciphertext[-16:]) == plaintext


def confounder_of(vector: Vector) -> bytes:
    """The confounder that a published ciphertext has, by other means than the code under test."""
    etype, usage, ciphertext = vector["etype"], vector["usage"], vector["ciphertext"]
    if etype == 23:
        from Cryptodome.Cipher import ARC4

        from purekrb.crypto.rc4 import hmac_md5

        salt = {3: 8, 23: 13}.get(usage, usage).to_bytes(4, "little")
        stream_key = hmac_md5(hmac_md5(vector["key"], salt), ciphertext[:16])
        return ARC4.new(stream_key).decrypt(ciphertext[16:])[:8]
    constant = usage_constant(usage, ENCRYPT)
    if etype in (17, 18):
        return cts_decrypt(dk(vector["key"], constant), ciphertext[:-12])[:16]
    name, size, mac = {19: ("sha256", 16, 16), 20: ("sha384", 32, 24)}[etype]
    return cts_decrypt(kdf_hmac_sha2(name, vector["key"], constant, size), ciphertext[:-mac])[:16]


@pytest.mark.parametrize("vector", params("encryption.json", "etype{etype}-usage{usage}"))
def test_encryption_gives_the_published_ciphertext_and_back(vector: Vector) -> None:
    key, usage = key_of(vector), vector["usage"]
    assert crypto.decrypt(key, usage, vector["ciphertext"]) == vector["plaintext"]
    confounder = confounder_of(vector)
    assert vector["confounder"] in (None, confounder)
    assert crypto.encrypt(key, usage, vector["plaintext"], confounder) == vector["ciphertext"]


@pytest.mark.parametrize("vector", params("checksum.json", "etype{etype}-type{cksumtype}"))
def test_checksum_has_the_published_value_and_type(vector: Vector) -> None:
    assert crypto.checksum(key_of(vector), vector["usage"], vector["data"]) == vector["checksum"]
    assert crypto.profile_of(vector["etype"]).checksum_type == vector["cksumtype"]


@pytest.mark.parametrize("vector", params("prf.json", "etype{etype}"))
def test_prf_gives_the_published_output(vector: Vector) -> None:
    assert crypto.prf(key_of(vector), vector["input"]) == vector["output"]


@pytest.mark.parametrize("vector", params("cf2.json", "etypes{etype1}-{etype2}"))
def test_cf2_gives_the_published_key(vector: Vector) -> None:
    one, two = (
        crypto.string_to_key(vector[f"etype{n}"], *[vector[f"password{n}"]] * 2) for n in (1, 2)
    )
    size = len(vector["key"])
    if size == KEY_SIZES[one.etype]:
        assert crypto.cf2(one, two, vector["pepper1"], vector["pepper2"]) == EncryptionKey(
            one.etype, vector["key"]
        )
    halves = (
        crypto.prf_plus(one, vector["pepper1"], size),
        crypto.prf_plus(two, vector["pepper2"], size),
    )
    assert bytes(a ^ b for a, b in zip(*halves, strict=True)) == vector["key"]


def test_every_etype_has_published_values_of_every_function() -> None:
    for file, etypes in (
        ("string_to_key.json", {17, 18, 19, 20}),  # 23: by cf2.json
        ("encryption.json", {17, 18, 19, 20, 23}),
        ("checksum.json", {17, 18, 19, 20, 23}),
        ("prf.json", {17, 18, 19, 20}),  # 23: by cf2.json
    ):
        found = {v["etype"] for v in load(file)}
        assert found >= etypes, file
    assert {v["etype1"] for v in load("cf2.json")} == set(ETYPES)


# Keys of passwords


@pytest.mark.parametrize("etype", ETYPES)
def test_a_password_as_text_is_its_utf8(etype: int) -> None:
    password, salt = "gl\u00fcck\U0001d11e", "EXAMPLE.COMj\u00fcrgen"
    params_ = None if etype == 23 else bytes.fromhex("00000010")
    assert crypto.string_to_key(etype, password, salt, params_) == crypto.string_to_key(
        etype, password.encode(), salt.encode(), params_
    )


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
@pytest.mark.parametrize(
    ("s2kparams", "error"),
    [
        pytest.param("00000000", PolicyError, id="zero"),
        pytest.param("ffffffff", PolicyError, id="two-to-the-32-less-1"),
        pytest.param("01000001", PolicyError, id="one-above-the-limit"),
        pytest.param("80000000", PolicyError, id="high-bit"),
        pytest.param("", DecodeError, id="empty"),
        pytest.param("001000", DecodeError, id="three-bytes"),
        pytest.param("0000100000", DecodeError, id="five-bytes"),
    ],
)
def test_bad_string_to_key_params_are_refused(
    etype: int, s2kparams: str, error: type[KerberosError]
) -> None:
    assert crypto.string_to_key(etype, "pw", "salt", bytes.fromhex("00000001")).etype == etype
    with pytest.raises(error):
        crypto.string_to_key(etype, "pw", "salt", bytes.fromhex(s2kparams))


@pytest.mark.parametrize(
    ("name", "size"), [("sha1", 16), ("sha1", 32), ("sha256", 16), ("sha384", 32)]
)
def test_long_derivations_give_the_same_key_by_either_library(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = set()
    for lets_others_run in (False, True):
        monkeypatch.setattr(profile, "_LETS_OTHERS_RUN", lets_others_run)
        keys.add(pbkdf2(name, "pässword".encode(), b"", QUICK_ITERATIONS + 1, size))
    assert len(keys) == 1
    assert len(keys.pop()) == size
    published = "4b007901b765489abead49d926f721d065a429c1"  # RFC 6070 2
    assert pbkdf2("sha1", b"password", b"salt", 4096, 20).hex() == published


def test_iteration_counts_up_to_the_limit_are_taken() -> None:
    assert iterations(None, 4096) == 4096
    assert iterations(bytes.fromhex("00000001"), 4096) == 1
    assert iterations(MAX_ITERATIONS.to_bytes(4, "big"), 4096) == 0x1000000


@pytest.mark.parametrize(
    "password", ["pw\ud800", b"\xff\xfe"], ids=["lone surrogate", "bytes that are no UTF-8"]
)
def test_a_password_that_is_no_unicode_is_a_plain_value_error(password: str | bytes) -> None:
    with pytest.raises(ValueError, match="Unicode") as caught:
        crypto.string_to_key(23, password, "")
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None


# Encryption


@pytest.mark.parametrize("etype", ETYPES)
def test_every_length_comes_back_and_has_the_documented_size(etype: int) -> None:
    key = crypto.random_key(etype)
    overhead = {17: 28, 18: 28, 19: 32, 20: 40, 23: 24}[etype]
    for size in (*range(71), 1024, 65536):
        plaintext = os.urandom(size)
        ciphertext = crypto.encrypt(key, 7, plaintext)
        assert len(ciphertext) == size + overhead
        assert crypto.decrypt(key, 7, ciphertext) == plaintext


@pytest.mark.parametrize("etype", ETYPES)
def test_two_encryptions_of_one_plaintext_differ(etype: int) -> None:
    key = crypto.random_key(etype)
    assert crypto.encrypt(key, 1, b"same") != crypto.encrypt(key, 1, b"same")


@pytest.mark.parametrize("etype", ETYPES)
def test_buffers_of_every_kind_are_taken(etype: int) -> None:
    key = crypto.random_key(etype)
    plain = bytes(range(50))
    confounder = os.urandom(crypto.profile_of(etype).confounder_size)
    expected = crypto.encrypt(key, 3, plain, confounder)
    for kind in (bytearray, memoryview):
        assert crypto.encrypt(key, 3, kind(plain), confounder) == expected
        assert crypto.decrypt(key, 3, kind(expected)) == plain
        assert crypto.checksum(key, 3, kind(plain)) == crypto.checksum(key, 3, plain)


@pytest.mark.parametrize("etype", ETYPES)
def test_every_flipped_bit_of_a_ciphertext_is_refused(etype: int) -> None:
    key = crypto.random_key(etype)
    for size in (0, 1, 16, 20):
        ciphertext = crypto.encrypt(key, 3, bytes(size))
        for bit in range(len(ciphertext) * 8):
            forged = bytearray(ciphertext)
            forged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(IntegrityError):
                crypto.decrypt(key, 3, bytes(forged))
        assert crypto.decrypt(key, 3, ciphertext) == bytes(size)


@pytest.mark.parametrize("etype", ETYPES)
def test_another_key_is_refused_with_the_same_words_as_altered_data(etype: int) -> None:
    key, other = crypto.random_key(etype), crypto.random_key(etype)
    ciphertext = crypto.encrypt(key, 3, b"data")
    assert crypto.decrypt(key, 3, ciphertext) == b"data"
    texts = set()
    for wrong_key, wrong_text in ((other, ciphertext), (key, ciphertext[:-1]), (key, b"")):
        with pytest.raises(IntegrityError) as caught:
            crypto.decrypt(wrong_key, 3, wrong_text)
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_a_confounder_of_another_size_is_the_callers_mistake() -> None:
    key = crypto.random_key(18)
    with pytest.raises(ValueError, match="16 bytes"):
        crypto.encrypt(key, 3, b"", bytes(8))
    with pytest.raises(ValueError, match="8 bytes"):
        crypto.encrypt(crypto.random_key(23), 3, b"", bytes(16))


@pytest.mark.parametrize("usage", [-1, 1 << 32])
def test_a_key_usage_beyond_32_bits_is_the_callers_mistake(usage: int) -> None:
    key = crypto.random_key(18)
    assert crypto.checksum(key, (1 << 32) - 1, b"")
    with pytest.raises(ValueError, match="32-bit"):
        crypto.checksum(key, usage, b"")


# Checksums, PRF+, CF2


@pytest.mark.parametrize("etype", ETYPES)
def test_verify_checksum_takes_the_right_one_and_returns_nothing(etype: int) -> None:
    key = crypto.random_key(etype)
    mac = crypto.checksum(key, 25, b"data")
    assert crypto.verify_checksum(key, 25, b"data", mac) is None
    for wrong in (
        crypto.checksum(key, 23, b"data"),
        crypto.checksum(key, 25, b"datA"),
        bytes(len(mac)),
        b"",
    ):
        with pytest.raises(IntegrityError):
            crypto.verify_checksum(key, 25, b"data", wrong)


def test_profiles_name_their_checksum_types() -> None:
    assert {e: crypto.profile_of(e).checksum_type for e in ETYPES} == {
        17: ChecksumType.HMAC_SHA1_96_AES128,
        18: ChecksumType.HMAC_SHA1_96_AES256,
        19: ChecksumType.HMAC_SHA256_128_AES128,
        20: ChecksumType.HMAC_SHA384_192_AES256,
        23: ChecksumType.HMAC_MD5,
    }
    key = {e: crypto.random_key(e) for e in ETYPES}
    assert all(
        len(crypto.checksum(key[e], 1, b"")) == crypto.profile_of(e).checksum_size for e in ETYPES
    )


@pytest.mark.parametrize("etype", ETYPES)
def test_prf_plus_is_the_prf_over_counted_inputs(etype: int) -> None:
    key = crypto.random_key(etype)
    blocks = b"".join(crypto.prf(key, bytes([n]) + b"seed") for n in (1, 2, 3))
    for size in (0, 1, len(blocks) // 3, len(blocks) // 3 + 1, len(blocks)):
        assert crypto.prf_plus(key, b"seed", size) == blocks[:size]
    with pytest.raises(ValueError, match="255"):
        crypto.prf_plus(key, b"seed", 255 * len(blocks) // 3 + 1)


@pytest.mark.parametrize(("data", "size"), [(b"", 8), (b"a", 0), (b"a", -1)])
def test_n_fold_of_nothing_is_the_callers_mistake(data: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        crypto.n_fold(data, size)


# Keys


def test_only_the_five_etypes_are_supported_and_others_are_named() -> None:
    assert {EncryptionType(e) for e in ETYPES} == set(EncryptionType)
    for etype in (-1, 0, 1, 3, 16, 24, 25, 26, 1 << 31):
        with pytest.raises(UnsupportedError, match="supported"):
            crypto.random_key(etype)
        unknown = EncryptionKey(etype, b"12345678")  # a keytab may hold such a key
        with pytest.raises(UnsupportedError):
            crypto.encrypt(unknown, 1, b"")


@pytest.mark.parametrize("etype", ETYPES)
def test_a_wiped_key_works_no_more_nor_do_ciphers_made_of_it(etype: int) -> None:
    key = crypto.random_key(etype)
    ciphertext = crypto.encrypt(key, 5, b"data")
    held = crypto.usage_cipher(key, 5)
    assert held.decrypt(ciphertext) == b"data"
    key.wipe()
    confounder = bytes(crypto.profile_of(etype).confounder_size)
    for call in (
        lambda: key.contents,
        lambda: crypto.encrypt(key, 5, b"data"),
        lambda: crypto.checksum(key, 5, b"data"),
        lambda: crypto.prf(key, b"data"),
        lambda: held.encrypt(b"data", confounder),
        lambda: held.decrypt(ciphertext),
        lambda: held.checksum(b"data"),
    ):
        with pytest.raises(CredentialError, match="wiped"):
            call()


def test_a_key_keeps_few_derived_ciphers_however_many_usages_it_sees() -> None:
    key = crypto.random_key(18)
    first = {usage: crypto.checksum(key, usage, b"") for usage in range(100)}
    assert len(key._derived) <= 16
    assert {usage: crypto.checksum(key, usage, b"") for usage in range(100)} == first
