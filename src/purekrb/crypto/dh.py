"""Diffie-Hellman for PKINIT: two finite fields and three curves. Source: RFC 4556 3.2.3, RFC 5349.

Every exchange has a fresh secret, which is used once. The multiplications on curves are OpenSSL's.
Those in finite fields are Python's `pow`, which takes a time that depends on the numbers
(docs/security.md): `cryptography` is about to remove its finite fields.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from purekrb.errors import ProtocolError
from purekrb.system import RandomBytes

__all__ = ["DH_GROUPS", "Curve", "DhGroup", "DhSecret", "Field"]

_BAD_VALUE = (
    "the peer's Diffie-Hellman value is not one of the group {}, or a trivial one: the answer is "
    "forged or damaged"
)


class DhSecret(Protocol):
    """A fresh secret, and the public value that belongs to it."""

    @property
    def public(self) -> bytes:
        """The public value: a number (big-endian), or a point (SEC 1, not compressed)."""

    def shared(self, received: bytes) -> bytes:
        """Return the shared secret with the peer's public value, in the size of the group.

        Raises ProtocolError for what is no value of the group, or a trivial one. The secret is then
        gone: a second call raises ValueError.
        """


class DhGroup(Protocol):
    """A group. `strength` compares groups: about the size in bits of a finite field as strong."""

    @property
    def name(self) -> str:
        """The name for users, as in krb5.conf."""

    @property
    def strength(self) -> int:
        """About how many bits a finite field of the same strength has."""

    def new_secret(self, random: RandomBytes) -> DhSecret:
        """Return a fresh secret."""


class Field:
    """The numbers modulo the safe prime `prime`, with the generator 2. Source: RFC 3526.

    `exponent_bits`: more than twice the strength of the field in bits (RFC 3526 8, SP 800-57 5.6.1).
    """

    generator = 2

    def __init__(self, name: str, prime: int, exponent_bits: int) -> None:
        self.name, self.prime, self._exponent_bits = name, prime, exponent_bits
        self.strength = prime.bit_length()
        self.size = (self.strength + 7) // 8

    def new_secret(self, random: RandomBytes) -> DhSecret:
        """Like `DhGroup.new_secret`."""
        return _Exponent(self, random(self._exponent_bits // 8))


class _Exponent:
    def __init__(self, field: Field, secret: bytes) -> None:
        self._field = field
        # The highest bit is set: the exponent is not small, and its size says nothing of it.
        self._secret: int | None = int.from_bytes(secret, "big") | 1 << 8 * len(secret) - 1
        public = pow(field.generator, self._secret, field.prime)
        self.public = public.to_bytes(field.size, "big")

    def __repr__(self) -> str:
        return f"<a secret of {self._field.name}>"

    def shared(self, received: bytes) -> bytes:
        """Like `DhSecret.shared`."""
        secret, self._secret = self._secret, None
        if secret is None:
            raise ValueError("a Diffie-Hellman secret is used once")
        field, value = self._field, int.from_bytes(received, "big")
        # Besides 1 and p - 1, every number has the order q or 2q, where q = (p - 1) / 2 is prime.
        if len(received) > field.size or not 1 < value < field.prime - 1:
            raise ProtocolError(_BAD_VALUE.format(field.name))
        return pow(value, secret, field.prime).to_bytes(field.size, "big")


class Curve:
    """An elliptic curve; the shared secret is an x coordinate. Source: RFC 5349 3, SEC 1."""

    def __init__(self, curve: ec.EllipticCurve, name: str, strength: int) -> None:
        self.name, self.strength, self._curve = name, strength, curve

    def new_secret(self, random: RandomBytes) -> DhSecret:
        """Like `DhGroup.new_secret`."""
        bits = self._curve.key_size - 1  # so that each number is below the order
        number = int.from_bytes(random((bits + 7) // 8), "big") & ((1 << bits) - 1) or 1
        return _Scalar(self._curve, self.name, number)


class _Scalar:
    def __init__(self, curve: ec.EllipticCurve, name: str, secret: int) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._curve, self._name = curve, name
        self._secret: ec.EllipticCurvePrivateKey | None = ec.derive_private_key(secret, curve)
        self.public = self._secret.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )

    def __repr__(self) -> str:
        return f"<a secret of {self._name}>"

    def shared(self, received: bytes) -> bytes:
        """Like `DhSecret.shared`. OpenSSL refuses the point at infinity, and those off the curve."""
        secret, self._secret = self._secret, None
        if secret is None:
            raise ValueError("a Diffie-Hellman secret is used once")
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, received)
            return secret.exchange(ec.ECDH(), point)
        except ValueError:
            raise ProtocolError(_BAD_VALUE.format(self._name)) from None


#: The first words of both primes. Source: RFC 3526 3, 5.
_PRIME_BEGIN = (
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd"
    "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed"
    "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f"
    "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b"
    "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510"
    "15728e5a8aa"
)
_END_14 = "caa68ffffffffffffffff"
_END_16 = (
    "ac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7abf5ae8cdb0"
    "933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200cbbe117577a6"
    "15d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a92108011a723c12a787e6d788719a10bdb"
    "a5b2699c327186af4e23c1a946834b6150bda2583e9ca2ad44ce8dbbbc2db04de8ef92e8efc141fbecaa6287c59474e6"
    "bc05d99b2964fa090c3a2233ba186515be7ed1f612970cee2d7afb81bdd762170481cd0069127d5b05aa993b4ea988d8"
    "fddc186ffb7dc90a6c08f4df435c934063199ffffffffffffffff"
)

#: The groups by name, the weakest first. Those of finite fields have the name of their size, as
#: pkinit_dh_min_bits has them; the strengths of curves are those of SP 800-57 part 1, 5.6.1.1.
DH_GROUPS: dict[str, Field | Curve] = {
    "2048": Field("2048", int(_PRIME_BEGIN + _END_14, 16), 256),
    "P-256": Curve(ec.SECP256R1(), "P-256", 3072),
    "4096": Field("4096", int(_PRIME_BEGIN + _END_16, 16), 384),
    "P-384": Curve(ec.SECP384R1(), "P-384", 7680),
    "P-521": Curve(ec.SECP521R1(), "P-521", 15360),
}
