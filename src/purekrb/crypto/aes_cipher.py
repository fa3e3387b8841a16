"""The cipher of one AES key usage: CTS and an HMAC, in the order of the etype.

Source: RFC 3961 5.3 (etypes 17, 18), RFC 8009 5 (etypes 19, 20).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Protocol

from cryptography.hazmat.primitives.hmac import HMAC

from purekrb.crypto.aes_cts import BLOCK, LARGE, AesCts
from purekrb.crypto.profile import WIPED
from purekrb.errors import IntegrityError
from purekrb.tracebacks import forget_locals

__all__ = ["AesUsageCipher", "SpecificKeys"]

#: The parts of a token's plaintext after the confounder. Source: RFC 4121 4.2.4.
_DATA, _HEADER_COPY = slice(BLOCK, -BLOCK), slice(-BLOCK, None)
_LARGE_BODY = LARGE + BLOCK  # with the confounder


class SpecificKeys(Protocol):
    """The specific keys of an AES profile. `derive` is the result of its `schedule`."""

    checksum_size: int
    #: Whether the MAC covers the ciphertext (RFC 8009), or confounder and plaintext (RFC 3962).
    encrypt_then_mac: bool

    def encryption(self, derive: Any, usage: int) -> tuple[bytes, HMAC]:
        """Return Ke, and the HMAC keyed with Ki."""

    def checksum(self, derive: Any, usage: int) -> HMAC:
        """Return the HMAC keyed with Kc."""


class AesUsageCipher:
    """The cipher of one key usage. Each specific key is derived at its first use. Thread-safe.

    `seal` and `open` are `encrypt` and `decrypt` in the layout of RFC 4121 tokens.
    """

    confounder_size = BLOCK

    __slots__ = (
        "_checksum",
        "_cts",
        "_derive",
        "_encrypt_then_mac",
        "_integrity",
        "_keys",
        "_sent_part",
        "_usage",
    )

    def __init__(self, keys: SpecificKeys, derive: Any, usage: int) -> None:
        self._keys = keys
        self._derive = derive
        self._usage = usage
        self._sent_part = slice(keys.checksum_size)  # the part of an HMAC that is sent
        self._encrypt_then_mac = keys.encrypt_then_mac
        self._cts: AesCts | None = None
        self._integrity: HMAC | None = None
        self._checksum: HMAC | None = None

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        """Return the ciphertext and its MAC."""
        return b"".join(self.encrypt_mixed(plaintext, confounder, ()))

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return the plaintext. Raises IntegrityError."""
        end = len(ciphertext) - self._keys.checksum_size
        start = end - BLOCK
        if start < 0:
            raise IntegrityError
        return self.open(ciphertext[:start], ciphertext[start:end], ciphertext[end:])

    def checksum(self, data: bytes, suffix: bytes = b"") -> bytes:
        """Return the checksum over data | suffix."""
        checksum = self._checksum
        if checksum is None:
            try:
                checksum = self._checksum = self._keys.checksum(self._derive, self._usage)
            except BaseException as error:
                forget_locals(error)
                raise
        state = checksum.copy()
        if suffix and len(data) < LARGE:  # a copy costs less than a call
            state.update(data + suffix)
        else:
            state.update(data)
            state.update(suffix)
        return state.finalize()[self._sent_part]

    def seal(self, header: bytes, data: bytes, suffix: bytes, confounder: bytes) -> bytes:
        """Encrypt data | suffix; return header | last 16 bytes | MAC | rest of the ciphertext.

        This is the ciphertext and MAC rotated right by these 16 bytes and the MAC, made without
        moving them. `suffix` has 16 bytes if `data` is large.
        """
        cts, integrity = self._cts, self._integrity
        if cts is None or integrity is None:
            cts, integrity = self._ready()
        state = integrity.copy()
        if len(data) < LARGE:
            message = b"".join((confounder, data, suffix))
            start, swapped, last = cts.encrypt(message)
            state.update(b"".join((start, swapped, last)) if self._encrypt_then_mac else message)
            return b"".join((header, last, state.finalize()[self._sent_part], start, swapped))
        head = len(header) + BLOCK + self._keys.checksum_size
        # BytesIO offers a writable buffer, and then the same memory as bytes.
        buffer = BytesIO(bytes(head + BLOCK + len(data)))
        with buffer.getbuffer() as token, memoryview(data).cast("B") as view:
            plain, cipher = (None, state.update) if self._encrypt_then_mac else (state.update, None)
            last = cts.encrypt_into(token[head:], confounder, view, suffix, plain, cipher)
            token[:head] = b"".join((header, last, state.finalize()[self._sent_part]))
        return buffer.getvalue()

    def open(self, body: bytes | memoryview, last: bytes, mac: bytes, suffix: bytes = b"") -> bytes:
        """Return the data that `seal` encrypted with `suffix`. Raises IntegrityError.

        The ciphertext is body | last. `last` has 16 bytes, `suffix` has 16 or none. Another suffix
        raises IntegrityError, too. It is not compared in constant time, because it is not secret
        once the MAC is verified.
        """
        if len(body) >= _LARGE_BODY and suffix:
            buffer = BytesIO(bytes(len(body) - BLOCK))
            with buffer.getbuffer() as out:
                self.open_into(out, body, last, mac, suffix)
            return buffer.getvalue()
        cts, integrity = self._cts, self._integrity
        if cts is None or integrity is None:
            cts, integrity = self._ready()
        state = integrity.copy()
        # RFC 8009 5: the MAC is verified before decryption. RFC 3961 5.3: after it.
        if self._encrypt_then_mac:
            state.update(b"".join((body, last)))
            if not hmac.compare_digest(state.finalize()[self._sent_part], mac):
                raise IntegrityError
            message = cts.decrypt(body, last)
        else:
            message = cts.decrypt(body, last)
            state.update(message)
            if not hmac.compare_digest(state.finalize()[self._sent_part], mac):
                del message  # most of it may be genuine: a traceback with locals must not show it
                raise IntegrityError
        if not suffix:
            return message[BLOCK:]
        # RFC 4121 4.2.4: the encrypted copy of the header.
        if message[_HEADER_COPY] != suffix:
            raise IntegrityError
        return message[_DATA]

    def open_into(
        self, out: memoryview, body: bytes | memoryview, last: bytes, mac: bytes, suffix: bytes
    ) -> None:
        """Write the data that `seal` encrypted into `out`, which is 16 bytes shorter than `body`.

        Raises the errors of `open`; `out` then holds nothing of the message. With RFC 3962, whose
        MAC covers the plaintext, it holds the message until the MAC is verified.
        """
        if len(body) < _LARGE_BODY:
            out[:] = self.open(body, last, mac, suffix)
            return
        cts, integrity = self._ready()
        state = integrity.copy()
        with memoryview(body) as view:
            if self._encrypt_then_mac:
                state.update(view)
                state.update(last)
                if not hmac.compare_digest(state.finalize()[self._sent_part], mac):
                    raise IntegrityError
                found = cts.decrypt_into(out, view, last, None)
                genuine = True
            else:
                found = cts.decrypt_into(out, view, last, state.update)
                genuine = hmac.compare_digest(state.finalize()[self._sent_part], mac)
        if not genuine or found != suffix:
            out[:] = bytes(len(out))
            raise IntegrityError

    def encrypt_mixed(
        self, plaintext: bytes, confounder: bytes, signed: Sequence[tuple[int, bytes]]
    ) -> tuple[bytes, bytes, bytes]:
        """Return (ciphertext without its last 16 bytes, these 16 bytes, MAC).

        The MAC covers `signed`, too: pairs of an offset in the plaintext, and bytes that only the
        MAC covers there. They are in order; no offset is in the last 16 bytes of the plaintext.
        """
        if not signed and len(plaintext) >= LARGE:
            return self._encrypt_large(plaintext, confounder)
        cts, integrity = self._ready()
        state = integrity.copy()
        message = confounder + plaintext
        start, swapped, last = cts.encrypt(message)
        covered = b"".join((start, swapped, last)) if self._encrypt_then_mac else message
        if signed:
            _update_mixed(state, covered, signed)
        else:
            state.update(covered)
        return start + swapped, last, state.finalize()[self._sent_part]

    def decrypt_mixed(
        self, ciphertext: bytes, mac: bytes, signed: Sequence[tuple[int, bytes]]
    ) -> bytes:
        """Return the plaintext that `encrypt_mixed` encrypted. Raises IntegrityError."""
        start, last = ciphertext[:-BLOCK], ciphertext[-BLOCK:]
        if len(last) != BLOCK:
            raise IntegrityError
        if not signed:
            return self.open(start, last, mac)
        cts, integrity = self._ready()
        state = integrity.copy()
        message = b""
        if self._encrypt_then_mac:
            _update_mixed(state, ciphertext, signed)
        else:
            message = cts.decrypt(start, last)
            _update_mixed(state, message, signed)
        if not hmac.compare_digest(state.finalize()[self._sent_part], mac):
            del message  # as in `open`
            raise IntegrityError
        return (message or cts.decrypt(start, last))[BLOCK:]

    def wipe(self) -> None:
        """Drop the derived keys; every later call raises CredentialError."""
        self._cts = self._integrity = self._checksum = self._derive = WIPED

    def _ready(self) -> tuple[AesCts, HMAC]:
        cts, integrity = self._cts, self._integrity
        if cts is None or integrity is None:
            try:
                key, integrity = self._keys.encryption(self._derive, self._usage)
                self._integrity = integrity
                cts = self._cts = AesCts(key)
            except BaseException as error:
                key = b""
                forget_locals(error)  # the effect of `forget_frames`, without the cost of a wrapper
                raise
        return cts, integrity

    def _encrypt_large(self, plaintext: bytes, confounder: bytes) -> tuple[bytes, bytes, bytes]:
        """Return the result of `encrypt_mixed`, made chunk by chunk."""
        sealed = self.seal(b"", plaintext[:-BLOCK], plaintext[-BLOCK:], confounder)
        end = BLOCK + self._keys.checksum_size
        return sealed[end:], sealed[:BLOCK], sealed[BLOCK:end]


def _update_mixed(state: HMAC, data: bytes, signed: Sequence[tuple[int, bytes]]) -> None:
    """Add `data` to the MAC, and each of `signed` at its offset after the confounder's block."""
    view = memoryview(data)
    at = 0
    for offset, contents in signed:
        state.update(view[at : BLOCK + offset])
        state.update(contents)
        at = BLOCK + offset
    state.update(view[at:])
