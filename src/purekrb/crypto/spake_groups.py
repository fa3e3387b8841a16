"""The groups of SPAKE, and the two steps of either side in them. Source: RFC 9588 4, 12.2.

A side makes its public element from a fresh scalar, blinded with the password (`w`), and from the
other side's element and the same scalar the shared element. edwards25519 needs PyNaCl, the extra
`spake`; the NIST curves need `cryptography` alone. OpenSSL multiplies there; the additions, of
which the password shifts the result, are Python's and take a time that depends on the numbers
(docs/security.md). Scalars are used once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from purekrb import crypto
from purekrb.constants import SPAKE_GROUPS
from purekrb.errors import ProtocolError, UnsupportedError
from purekrb.keys import EncryptionKey
from purekrb.system import RandomBytes

__all__ = ["EDWARDS25519", "SpakeGroup", "available_groups", "group", "w_of"]

EDWARDS25519 = 1

_BAD_ELEMENT = "the peer's SPAKE element is not one of the group: the answer is forged or damaged"


class SpakeGroup(Protocol):
    """A group. Elements are bytes as on the wire; `w` has `mult_len` bytes, and so has a scalar."""

    @property
    def number(self) -> int:
        """The number of the registry."""

    @property
    def mult_len(self) -> int:
        """The size of a scalar in bytes."""

    def hash(self, data: bytes) -> bytes:
        """Return the group's hash of `data`."""

    def new_scalar(self, random: RandomBytes) -> bytes:
        """Return a fresh scalar."""

    def element(self, scalar: bytes, w: bytes, *, kdc: bool) -> bytes:
        """Return the element to send: that of the KDC (blinded with M), or the client's (N)."""

    def shared(self, scalar: bytes, w: bytes, received: bytes, *, kdc: bool) -> bytes:
        """Return the shared element; `received` is that of the KDC (`kdc`), or the client's.

        Raises ProtocolError if it is not an element of the group, or a trivial one.
        """


def w_of(found: SpakeGroup, key: EncryptionKey) -> bytes:
    """Return w, made of the initial reply key. Source: RFC 9588 4.2."""
    return crypto.prf_plus(key, b"SPAKEsecret" + found.number.to_bytes(4, "big"), found.mult_len)


class _Edwards25519:
    number = EDWARDS25519
    mult_len = 32
    _M = bytes.fromhex("d048032c6ea0b6d697ddc2e86bda85a33adac920f1bf18e1b0c6d166a5cecdaf")
    _N = bytes.fromhex("d3bfb518f44f3430f29d0c92af503865a1ed3281dc69b35dd868ba85f886c4ab")

    def __init__(self, sodium: ModuleType) -> None:
        self._sodium = sodium

    def hash(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    def new_scalar(self, random: RandomBytes) -> bytes:
        return self._reduced(random(64))

    def element(self, scalar: bytes, w: bytes, *, kdc: bool) -> bytes:
        s = self._sodium
        base = s.crypto_scalarmult_ed25519_base_noclamp(scalar)
        return bytes(s.crypto_core_ed25519_add(base, self._blinding(w, kdc=kdc)))

    def shared(self, scalar: bytes, w: bytes, received: bytes, *, kdc: bool) -> bytes:
        s = self._sodium
        # Checks that it is canonical, on the curve, of the main subgroup and not of small order.
        if len(received) != 32 or not s.crypto_core_ed25519_is_valid_point(received):
            raise ProtocolError(_BAD_ELEMENT)
        try:
            unblinded = s.crypto_core_ed25519_sub(received, self._blinding(w, kdc=kdc))
            return bytes(s.crypto_scalarmult_ed25519_noclamp(scalar, unblinded))
        except Exception:  # PyNaCl's own; the result would be the neutral element
            raise ProtocolError(_BAD_ELEMENT) from None

    def _blinding(self, w: bytes, *, kdc: bool) -> bytes:
        point = self._M if kdc else self._N
        multiply = self._sodium.crypto_scalarmult_ed25519_noclamp
        return bytes(multiply(self._reduced(w.ljust(64, b"\0")), point))

    def _reduced(self, data: bytes) -> bytes:
        return bytes(self._sodium.crypto_core_ed25519_scalar_reduce(data))


_Point = tuple[int, int]


class _NistCurve:
    """A curve y^2 = x^3 - 3x + b over a field of p elements, p = 3 mod 4; elements compressed.

    `cryptography` gives the x-coordinate of a product (ECDH). The sign of y follows from a second
    product, with the point plus the generator.
    """

    def __init__(
        self,
        number: int,
        curve: ec.EllipticCurve,
        p: int,
        order: int,
        b: int,
        points: tuple[str, str],
        digest: Callable[[bytes], object],
    ) -> None:
        self.number = number
        self.mult_len = (p.bit_length() + 7) // 8
        self._curve, self._p, self._order, self._b = curve, p, order, b
        self._digest = digest
        self._m, self._n = (self._point(bytes.fromhex(point)) for point in points)
        self._generator = self._product_of_generator(1)

    def hash(self, data: bytes) -> bytes:
        return self._digest(data).digest()  # type: ignore[attr-defined,no-any-return]

    def new_scalar(self, random: RandomBytes) -> bytes:
        # 16 bytes more than needed, so that the remainder is as good as uniform.
        number = int.from_bytes(random(self.mult_len + 16), "big") % (self._order - 1) + 1
        return number.to_bytes(self.mult_len, "big")

    def element(self, scalar: bytes, w: bytes, *, kdc: bool) -> bytes:
        base = self._product_of_generator(int.from_bytes(scalar, "big"))
        return self._encode(self._sum(base, self._blinding(w, kdc=kdc)))

    def shared(self, scalar: bytes, w: bytes, received: bytes, *, kdc: bool) -> bytes:
        if len(received) != 1 + self.mult_len or received[0] not in (2, 3):
            raise ProtocolError(_BAD_ELEMENT)
        x, y = self._blinding(w, kdc=kdc)
        unblinded = self._sum(self._point(received), (x, self._p - y))
        return self._encode(self._product(int.from_bytes(scalar, "big"), unblinded))

    def _blinding(self, w: bytes, *, kdc: bool) -> _Point:
        return self._product(int.from_bytes(w, "big") % self._order, self._m if kdc else self._n)

    def _point(self, data: bytes) -> _Point:
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, data)
        except ValueError:
            raise ProtocolError(_BAD_ELEMENT) from None
        numbers = key.public_numbers()
        return numbers.x, numbers.y

    def _encode(self, point: _Point) -> bytes:
        x, y = point
        return bytes((2 + (y & 1),)) + x.to_bytes(self.mult_len, "big")

    def _private(self, scalar: int) -> ec.EllipticCurvePrivateKey:
        if scalar == 0:
            raise ProtocolError(_BAD_ELEMENT)
        return ec.derive_private_key(scalar, self._curve)

    def _product_of_generator(self, scalar: int) -> _Point:
        numbers = self._private(scalar).public_key().public_numbers()
        return numbers.x, numbers.y

    def _product(self, scalar: int, point: _Point) -> _Point:
        """Return scalar * point, with both coordinates."""
        key = self._private(scalar)
        if point == self._generator:
            return self._product_of_generator(scalar)
        x = self._exchange(key, point)
        y = pow(pow(x, 3, self._p) - 3 * x + self._b, (self._p + 1) // 4, self._p)
        # scalar * (point + G) = scalar * point + scalar * G tells which root is y.
        beside = self._exchange(key, self._sum(point, self._generator))
        numbers = key.public_key().public_numbers()
        try:
            sign = self._sum((x, y), (numbers.x, numbers.y))[0] == beside
        except ProtocolError:  # scalar * point = -scalar * G for this root
            sign = False
        return x, y if sign else self._p - y

    def _exchange(self, key: ec.EllipticCurvePrivateKey, point: _Point) -> int:
        peer = ec.EllipticCurvePublicNumbers(*point, self._curve).public_key()
        return int.from_bytes(key.exchange(ec.ECDH(), peer), "big")

    def _sum(self, one: _Point, other: _Point) -> _Point:
        (x1, y1), (x2, y2), p = one, other, self._p
        if x1 == x2:
            if (y1 + y2) % p == 0:
                raise ProtocolError(_BAD_ELEMENT)  # the neutral element
            slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, p) % p
        else:
            slope = (y2 - y1) * pow(x2 - x1, -1, p) % p
        x = (slope * slope - x1 - x2) % p
        return x, (slope * (x1 - x) - y1) % p


@cache
def group(number: int) -> SpakeGroup:
    """Return a group. Raises UnsupportedError for an unknown one, or without PyNaCl."""
    if number == EDWARDS25519:
        try:
            from nacl import bindings
        except ImportError:
            raise UnsupportedError(
                "the SPAKE group edwards25519 needs PyNaCl: run `pip install purekrb[spake]`"
            ) from None
        return _Edwards25519(bindings)
    if number not in _NIST:
        raise UnsupportedError(f"the SPAKE group {number} is not known here")
    return _NistCurve(number, *_NIST[number])


def available_groups() -> tuple[int, ...]:
    """Return the groups that can be used here, the preferred one first."""
    from importlib.util import find_spec

    return tuple(n for n in SPAKE_GROUPS if n != EDWARDS25519 or find_spec("nacl") is not None)


#: Curve, field, order, b (SP 800-186 3.2.1), M and N (RFC 9588 12.2), hash.
_NIST: dict[
    int,
    tuple[ec.EllipticCurve, int, int, int, tuple[str, str], Callable[[bytes], object]],
] = {
    2: (
        ec.SECP256R1(),
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        (
            "02886e2f97ace46e55ba9dd7242579f2993b64e16ef3dcab95afd497333d8fa12f",
            "03d8bbd6c639c62937b04d997f38c3770719c629d7014d49a24b4f98baa1292b49",
        ),
        hashlib.sha256,
    ),
    3: (
        ec.SECP384R1(),
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        int(
            "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
            "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
            16,
        ),
        int(
            "B3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875A"
            "C656398D8A2ED19D2A85C8EDD3EC2AEF",
            16,
        ),
        (
            "030ff0895ae5ebf6187080a82d82b42e2765e3b2f8749c7e05eba366434b363d3dc36f15"
            "314739074d2eb8613fceec2853",
            "02c72cf2e390853a1c1c4ad816a62fd15824f56078918f43f922ca21518f9c543bb252c5"
            "490214cf9aa3f0baab4b665c10",
        ),
        hashlib.sha384,
    ),
    4: (
        ec.SECP521R1(),
        2**521 - 1,
        int(
            "01" + 32 * "FF" + "FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
            16,
        ),
        int(
            "0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1"
            "56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00",
            16,
        ),
        (
            "02003f06f38131b2ba2600791e82488e8d20ab889af753a41806c5db18d37d85608cfae0"
            "6b82e4a72cd744c719193562a653ea1f119eef9356907edc9b56979962d7aa",
            "0200c7924b9ec017f3094562894336a53c50167ba8c5963876880542bc669e494b2532d7"
            "6c5b53dfb349fdf69154b9e0048c58a42e8ed04cef052a3bc349d95575cd25",
        ),
        hashlib.sha512,
    ),
}
