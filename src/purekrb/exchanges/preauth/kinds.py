"""The kinds of pre-authentication by name, for people. Source: IANA's registry, RFC 6113 7.1."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["HINTS", "PLUGINS", "PREAUTH_NAMES", "preauth_kinds"]

#: padata-type -> the name that the field uses.
PREAUTH_NAMES: dict[int, str] = {
    2: "encrypted timestamp",
    12: "SAM",
    13: "SAM",
    14: "PKINIT (draft)",
    15: "PKINIT (draft)",
    16: "PKINIT",
    17: "PKINIT",
    30: "SAM",
    31: "SAM",
    136: "FAST",
    138: "encrypted challenge",
    141: "OTP",
    142: "OTP",
    143: "OTP",
    144: "OTP",
    147: "PKINIT",
    151: "SPAKE",
    152: "an external identity provider",
    153: "a passkey",
}
#: MIT's name of each kind in [plugins] clpreauth -> its padata-types.
PLUGINS: dict[str, tuple[int, ...]] = {
    "pkinit": (16, 17),
    "encrypted_challenge": (138,),
    "spake": (151,),
    "encrypted_timestamp": (2,),
    "otp": (141, 142),
}
#: padata-types in METHOD-DATA that are no pre-authentication: salts, encryption types, cookies.
HINTS = frozenset((3, 11, 19, 133, 137, 149, 150))


def preauth_kinds(types: Iterable[int]) -> list[str]:
    """Return the kinds of pre-authentication among padata-types, each once; hints left out."""
    return list(
        dict.fromkeys(
            PREAUTH_NAMES.get(number) or f"type {number}" for number in types if number not in HINTS
        )
    )
