"""Channel bindings that are equal, other, missing or malformed (K115 to K120)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

from purekrb import (
    Acceptor,
    ChannelBindings,
    ChannelBindingsError,
    DecodeError,
    Initiator,
    ProtocolError,
    UnsupportedError,
)
from purekrb.constants import AuthDataType, ErrorCode
from purekrb.messages.ap import AuthorizationDataEntry
from purekrb.messages.der import read_header, tlv
from support.contexts import acceptor, ap_req, authenticator, error_of, gss_checksum, if_relevant
from support.tickets import issue
from support.tls import self_signed
from support.vectors import load

A = ChannelBindings(b"tls-unique:a")
X = ChannelBindings(b"tls-unique:x")
#: What an initiator without channel bindings sends.
NONE = bytes(16)
AWARE = (0x4000).to_bytes(4, "little")

#: acceptor's bindings, initiator's, whether the client says that it knows of them -> bound, unbound or refused (None).
MATRIX = [
    pytest.param(ours, theirs, aware, outcome, id=f"K115-{name}{'-aware' if aware else ''}")
    for name, ours, theirs, outcomes in (
        ("none-none", None, None, (False, False)),
        ("none-a", None, A, (False, False)),
        ("a-none", A, None, (False, None)),
        ("a-a", A, A, (True, True)),
        ("a-x", A, X, (None, None)),
        ("x-a", X, A, (None, None)),
        ("x-x", X, X, (True, True)),
        ("a-empty", A, ChannelBindings(), (None, None)),
        ("empty-empty", ChannelBindings(), ChannelBindings(), (True, True)),
        ("empty-none", ChannelBindings(), None, (False, None)),
        (
            "a-same-data-other-address",
            A,
            ChannelBindings(A.application_data, initiator_address=b"\1"),
            (None, None),
        ),
        (
            "a-same-data-other-addrtype",
            A,
            ChannelBindings(A.application_data, initiator_addrtype=255),
            (None, None),
        ),
    )
    for aware, outcome in ((False, outcomes[0]), (True, outcomes[1]))
]


def token(
    bindings: ChannelBindings | bytes | None, *options: AuthorizationDataEntry
) -> tuple[bytes, Any]:
    """Return an AP-REQ with `bindings` (or a Bnd) and AD-AP-OPTIONS, and the service's keys."""
    ticket, keys = issue()
    bnd = (
        bindings if isinstance(bindings, bytes) else NONE if bindings is None else bindings.digest()
    )
    data = (if_relevant(*options),) if options else None
    return ap_req(
        ticket, authenticator(ticket, cksum=gss_checksum(bindings=bnd), authorization_data=data)
    ), keys


def options(data: bytes) -> AuthorizationDataEntry:
    return AuthorizationDataEntry(AuthDataType.AP_OPTIONS, data)


def take(made: tuple[bytes, Any], **how: Any) -> Acceptor:
    context = acceptor(made[1], **how)
    context.step(made[0])
    assert context.established
    return context


def refusal(made: tuple[bytes, Any], **how: Any) -> ChannelBindingsError:
    context = acceptor(made[1], **how)
    with pytest.raises(ChannelBindingsError) as caught:
        context.step(made[0])
    assert not context.established
    assert error_of(caught.value.response).error_code == ErrorCode.KRB_AP_ERR_MODIFIED
    return caught.value


@pytest.mark.parametrize(("ours", "theirs", "aware", "bound"), MATRIX)
def test_k115_the_matrix_of_channel_bindings(
    ours: ChannelBindings | None, theirs: ChannelBindings | None, aware: bool, bound: bool | None
) -> None:
    made = token(theirs, *([options(AWARE)] if aware else []))
    if bound is None:
        refusal(made, channel_bindings=ours)
    else:
        assert take(made, channel_bindings=ours).channel_bound is bound


@pytest.mark.parametrize(
    ("ours", "theirs", "bound"), [(A, A, True), (None, A, False), (A, None, False), (A, X, None)]
)
def test_k115_initiator_and_acceptor_agree(
    ours: ChannelBindings | None, theirs: ChannelBindings | None, bound: bool | None
) -> None:
    ticket, keys = issue()
    initiator = Initiator(ticket, channel_bindings=theirs)
    made = initiator.step(), keys
    if bound is None:
        refusal(made, channel_bindings=ours)  # type: ignore[arg-type]
    else:
        assert take(made, channel_bindings=ours).channel_bound is bound  # type: ignore[arg-type]


def test_k115_every_flipped_bit_of_the_bindings_is_another_channel() -> None:
    digest = A.digest()
    for bit in range(128):
        other = bytearray(digest)
        other[bit // 8] ^= 1 << bit % 8
        refusal(token(bytes(other)), channel_bindings=A)
    assert take(token(digest), channel_bindings=A).channel_bound


# --- K116, K117: what TLS gives

CERTIFICATES = [v for v in load("channel_bindings.json") if v["kind"] == "certificate"]


@pytest.mark.parametrize("vector", [pytest.param(v, id=f"K116-{v['name']}") for v in CERTIFICATES])
def test_k116_tls_server_end_point_of_certificates(vector: dict[str, Any]) -> None:
    if vector["hash"] is None:
        with pytest.raises(UnsupportedError, match="RFC 5929"):
            ChannelBindings.tls_server_end_point(vector["certificate"])
    else:
        bindings = ChannelBindings.tls_server_end_point(vector["certificate"])
        assert bindings == ChannelBindings(b"tls-server-end-point:" + vector["hash"])
        assert bindings.digest() == vector["bnd"]


def test_k116_pss_counts_by_its_hash_and_ed25519_has_none() -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    for algorithm, name in (
        (hashes.SHA256(), "sha256"),
        (hashes.SHA384(), "sha384"),
        (hashes.SHA512(), "sha512"),
    ):
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
        der = self_signed(rsa_key, algorithm, rsa_padding=pss)
        expected = b"tls-server-end-point:" + hashlib.new(name, der).digest()
        assert ChannelBindings.tls_server_end_point(der).application_data == expected
    der = self_signed(ec.generate_private_key(ec.SECP256R1()), hashes.SHA3_256())
    assert (
        ChannelBindings.tls_server_end_point(der).application_data[21:]
        == hashlib.sha3_256(der).digest()
    )
    with pytest.raises(UnsupportedError, match="no single hash"):
        ChannelBindings.tls_server_end_point(
            self_signed(ed25519.Ed25519PrivateKey.generate(), None)
        )


@pytest.mark.parametrize(
    "serial", ["0201ff", "020100", "02020080"], ids=["negative", "zero", "padded"]
)
def test_a_serial_number_that_no_certificate_should_have_is_no_obstacle(serial: str) -> None:
    """Samba's own certificates have negative ones."""
    der = self_signed(ec.generate_private_key(ec.SECP256R1()), hashes.SHA384())
    assert (
        ChannelBindings.tls_server_end_point(der).application_data[21:]
        == hashlib.sha384(der).digest()
    )
    _, tbs_at, end = read_header(der, 0, len(der))
    _, start, tbs_end = read_header(der, tbs_at, end)
    version, one = bytes.fromhex("a003020102"), bytes.fromhex("020101")
    assert der.startswith(version + one, start)
    tbs = version + bytes.fromhex(serial) + der[start + len(version + one) : tbs_end]
    odd = tlv(0x30, tlv(0x30, tbs) + der[tbs_end:])
    assert (
        ChannelBindings.tls_server_end_point(odd).application_data[21:]
        == hashlib.sha384(odd).digest()
    )
    for broken in (odd[:-1], odd + b"\0", odd[: start + 3]):
        with pytest.raises(DecodeError, match="DER"):
            ChannelBindings.tls_server_end_point(broken)


def test_every_certificate_that_cryptography_reads_has_the_same_hash() -> None:
    rsa_key, ec_key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())
    dsa_key = dsa.generate_private_key(2048)
    sha3 = (hashes.SHA3_224(), hashes.SHA3_256(), hashes.SHA3_384(), hashes.SHA3_512())
    sha2: tuple[hashes.HashAlgorithm, ...] = (
        hashes.SHA224(),
        hashes.SHA256(),
        hashes.SHA384(),
        hashes.SHA512(),
    )
    pss = padding.PSS(padding.MGF1(hashes.SHA224()), padding.PSS.DIGEST_LENGTH)
    made = [
        self_signed(key, algorithm) for key in (rsa_key, ec_key) for algorithm in (*sha2, *sha3)
    ]
    made += [self_signed(dsa_key, algorithm) for algorithm in sha2[:2]]
    made.append(self_signed(rsa_key, hashes.SHA224(), rsa_padding=pss))
    for der in made:
        algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
        assert algorithm is not None
        expected = hashlib.new(algorithm.name.replace("-", "_"), der).digest()
        assert ChannelBindings.tls_server_end_point(der).application_data[21:] == expected


@pytest.mark.parametrize(
    "data", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE-----\n", bytes(1000)], ids=repr
)
def test_k116_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(DecodeError, match="DER"):
        ChannelBindings.tls_server_end_point(data)


def test_k116_a_certificate_of_an_unknown_version() -> None:
    der = CERTIFICATES[2]["certificate"]
    version = bytes.fromhex("a003020102")
    assert der.count(version) == 1
    with pytest.raises(DecodeError):
        ChannelBindings.tls_server_end_point(der.replace(version, bytes.fromhex("a003020109")))


@pytest.mark.parametrize("nothing", [b"", None])
def test_k117_tls_unique_of_tls_1_3(nothing: bytes | None) -> None:
    with pytest.raises(UnsupportedError, match="tls_exporter"):
        ChannelBindings.tls_unique(nothing)  # type: ignore[arg-type]
    assert ChannelBindings.tls_unique(b"finished").application_data == b"tls-unique:finished"


@pytest.mark.parametrize("length", [0, 12, 31, 33, 64])
def test_k117_tls_exporter_has_32_bytes(length: int) -> None:
    with pytest.raises(DecodeError, match="32 bytes"):
        ChannelBindings.tls_exporter(bytes(length))
    assert ChannelBindings.tls_exporter(bytes(32)).application_data == b"tls-exporter:" + bytes(32)


# --- K118 to K120


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(v, id=f"K118-{v['name']}")
        for v in load("channel_bindings.json")
        if v["kind"] == "packing"
    ],
)
def test_k118_addresses_and_lengths_are_little_endian(vector: dict[str, Any]) -> None:
    bindings = ChannelBindings(
        vector["application_data"],
        vector["initiator"],
        vector["acceptor"],
        vector["initiator_addrtype"],
        vector["acceptor_addrtype"],
    )
    assert bindings.digest() == hashlib.md5(vector["packed"]).digest()


def test_k118_each_field_counts() -> None:
    base = {
        "application_data": b"data",
        "initiator_address": b"\x7f\0\0\1",
        "acceptor_address": b"\x7f\0\0\2",
    }
    base |= {"initiator_addrtype": 2, "acceptor_addrtype": 2}  # type: ignore[dict-item]
    digests = {ChannelBindings(**base).digest()}  # type: ignore[arg-type]
    for name, value in base.items():
        other = value + 1 if isinstance(value, int) else value + b"\0"
        digests.add(ChannelBindings(**{**base, name: other}).digest())  # type: ignore[arg-type]
    # What one field ends with is not what the next begins with.
    digests.add(ChannelBindings(**{**base, "initiator_address": b"\x7f\0\0\1\2\0\0\0"}).digest())  # type: ignore[arg-type]
    assert len(digests) == 7


@pytest.mark.parametrize("aware", [False, True])
def test_k119_an_acceptor_that_requires_bindings_refuses_a_client_without(aware: bool) -> None:
    entries = [options(AWARE)] if aware else []
    assert "no channel bindings" in str(
        refusal(token(None, *entries), channel_bindings=A, require_channel_bindings=True)
    )
    refusal(token(X, *entries), channel_bindings=A, require_channel_bindings=True)
    assert take(token(A, *entries), channel_bindings=A, require_channel_bindings=True).channel_bound


def test_k119_no_checksum_field_is_no_way_around_the_bindings() -> None:
    from purekrb import Flag

    ticket, keys = issue()
    made = ap_req(ticket, authenticator(ticket, cksum=None)), keys
    refusal(made, channel_bindings=A, require_channel_bindings=True, require=Flag(0))
    assert not take(made, channel_bindings=A, require=Flag(0)).channel_bound


def test_k119_to_require_bindings_one_must_have_some() -> None:
    with pytest.raises(ValueError, match="compare with"):
        Acceptor([], require_channel_bindings=True)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param((b"",), id="K120-0-bytes"),
        pytest.param((AWARE[:3],), id="K120-3-bytes"),
        pytest.param((AWARE + b"\0",), id="K120-5-bytes"),
        pytest.param((AWARE, AWARE), id="K120-two"),
        pytest.param((AWARE, b""), id="K120-a-good-and-a-bad-one"),
    ],
)
def test_k120_malformed_ap_options(entries: tuple[bytes, ...]) -> None:
    for ours in (None, A):
        for theirs in (None, A):
            made = token(theirs, *map(options, entries))
            context = acceptor(made[1], channel_bindings=ours)
            with pytest.raises(ProtocolError, match="AD-AP-OPTIONS"):
                context.step(made[0])
            assert not context.established
    assert take(token(A, options(AWARE)), channel_bindings=A).channel_bound


def test_k120_other_bits_of_ap_options_mean_nothing_here() -> None:
    for data in (bytes(4), (0x8000).to_bytes(4, "little"), (0x4000).to_bytes(4, "big")):
        assert not take(token(None, options(data)), channel_bindings=A).channel_bound
    refusal(token(None, options(b"\xff" * 4)), channel_bindings=A)
    critical = AuthorizationDataEntry(AuthDataType.AP_OPTIONS, AWARE)
    ticket, keys = issue()
    made = ap_req(ticket, authenticator(ticket, authorization_data=(critical,))), keys
    refusal(made, channel_bindings=A)
