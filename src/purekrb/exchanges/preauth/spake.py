"""SPAKE: a proof of the password by which nobody can guess at it, whether on the path or as the KDC.

The KDC's reply is under a key that needs the password's key, too. Three openings: the KDC sends a
challenge with its first error, or it asks what the client supports, or the client is told of
another group and says what it supports. Source: RFC 9588 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from purekrb import crypto
from purekrb.constants import SPAKE_GROUPS, KeyUsage, PaDataType
from purekrb.crypto.spake_groups import SpakeGroup, group, w_of
from purekrb.errors import PolicyError, ProtocolError, UnsupportedError
from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.preauth.mechanism import Next
from purekrb.exchanges.runner import Exchange
from purekrb.keys import KEY_SIZES, EncryptionKey
from purekrb.messages.ap import EncryptedData, KrbError
from purekrb.messages.kdc import AsRep, KdcReqBody, PaData
from purekrb.messages.spake import (
    SF_NONE,
    SpakeChallenge,
    SpakeResponse,
    SpakeSecondFactor,
    SpakeSupport,
    decode_pa_spake,
)
from purekrb.system import RandomBytes

__all__ = ["SpakeProof", "derived_keys", "transcript_hash"]


def transcript_hash(found: SpakeGroup, *messages: bytes) -> bytes:
    """Return the hash over the messages of one opening, one after the other. RFC 9588 4.3.

    The first is support (if sent) and challenge together, the second the client's public element.
    """
    digest = bytes(len(found.hash(b"")))
    for message in messages:
        digest = found.hash(digest + message)
    return digest


def derived_keys(
    found: SpakeGroup,
    key: EncryptionKey,
    w: bytes,
    shared: bytes,
    transcript: bytes,
    body: bytes,
) -> Iterator[EncryptionKey]:
    """Yield K'[0], K'[1] ...: the reply key, the one of the factor. Source: RFC 9588 4.4.

    `key` is the initial reply key, `body` the KDC-REQ-BODY of the request with the response.
    """
    size = KEY_SIZES[key.etype]
    for n in range(1 << 32):
        seed = b""
        for block in range(1, 256):
            seed += found.hash(
                b"SPAKEkey"
                + found.number.to_bytes(4, "big")
                + int(key.etype).to_bytes(4, "big", signed=True)
                + w
                + shared
                + transcript
                + body
                + n.to_bytes(4, "big")
                + bytes((block,))
            )
            if len(seed) >= size:
                break
        made = EncryptionKey(key.etype, seed[:size])
        yield crypto.cf2(key, made, b"SPAKE", b"keyderiv")


class SpakeProof:
    """One use of SPAKE with `groups`, the preferred one first."""

    def __init__(self, keys: ClientKeys, random: RandomBytes, groups: tuple[int, ...]) -> None:
        self._keys = keys
        self._random = random
        self._groups = groups
        self._support = b""
        self._challenge: tuple[bytes, SpakeChallenge] | None = None
        self._key: EncryptionKey | None = None
        self._reply_key: EncryptionKey | None = None

    def __str__(self) -> str:
        if self._challenge is None:
            return "PA-SPAKE"
        return f"PA-SPAKE in {SPAKE_GROUPS[self._challenge[1].group]}"

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Like `Proof.asked`: take the KDC's challenge, or get ready to say what is supported."""
        value = next(m.padata_value for m in methods if m.padata_type == PaDataType.SPAKE)
        # RFC 9588 4.2: the encryption type is that of the ETYPE-INFO2 beside the challenge.
        self._key = yield from self._keys.for_proof(methods, error)
        challenge = decode_pa_spake(value) if value else None
        if challenge is not None and not isinstance(challenge, SpakeChallenge):
            raise ProtocolError("the KDC's PA-SPAKE holds no challenge")
        if challenge is not None and challenge.group in self._groups:
            if not any(factor.type == SF_NONE for factor in challenge.factors):
                raise UnsupportedError(
                    "the KDC wants a second factor, which purekrb does not have for SPAKE"
                )
            self._challenge = value, challenge
        elif self._support:  # RFC 9588 4.1: the KDC chooses among the groups of the client
            wanted = "none" if challenge is None else str(challenge.group)
            raise ProtocolError(
                "the KDC does not take one of the SPAKE groups that were offered",
                expected=self._groups,
                got=wanted,
            )

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        """Like `Proof.padata`: the response to the challenge, or what is supported."""
        if self._challenge is None or self._key is None:
            self._support = SpakeSupport(self._groups).encode()
            return (PaData(PaDataType.SPAKE, self._support),)
        value, challenge = self._challenge
        found, key = group(challenge.group), self._key
        w, scalar = w_of(found, key), found.new_scalar(self._random)
        shared = found.shared(scalar, w, challenge.pubkey, kdc=True)
        pubkey = found.element(scalar, w, kdc=False)
        transcript = transcript_hash(found, self._support + value, pubkey)
        keys = derived_keys(found, key, w, shared, transcript, body.encode())
        self._reply_key, factor_key = next(keys), next(keys)
        factor = SpakeSecondFactor(SF_NONE, None).encode()
        confounder = self._random(crypto.profile_of(key.etype).confounder_size)
        cipher = crypto.encrypt(factor_key, KeyUsage.SPAKE, factor, confounder)
        response = SpakeResponse(pubkey, EncryptedData(key.etype, None, cipher))
        return (PaData(PaDataType.SPAKE, response.encode()),)
        yield  # a generator, as the interface says

    def refused(self, error: KrbError) -> Next:
        """Like `Proof.refused`. A failure is final: there is nothing weaker to go on with."""
        return Next.FAILURE

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Like `Proof.reply_key`: K'[0], which the KDC only has if it knows the client's key."""
        if self._reply_key is None:
            raise PolicyError(
                "the KDC gave a ticket without pre-authentication, before SPAKE was complete: "
                "anyone can get such a reply and guess at the password offline; have the account "
                "require pre-authentication"
            )
        return self._reply_key
        yield  # a generator, as the interface says
