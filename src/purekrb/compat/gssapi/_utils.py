"""The encoding of text in names and stores."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["set_encoding"]

_encoding = "UTF-8"


def set_encoding(enc: str) -> None:
    """Set the encoding of text in names and stores; it is UTF-8 by default."""
    global _encoding
    _encoding = enc


def encoding() -> str:
    """Return the encoding."""
    return _encoding


_get_encoding = encoding  # the name that python-gssapi's own programs use


def encoded(text: str | bytes) -> bytes:
    """Return text as bytes."""
    return text.encode(_encoding) if isinstance(text, str) else text


def decoded_store(store: Mapping[str | bytes, str | bytes] | None) -> dict[str, str]:
    """Return a credential store with keys and values as text."""
    return {_text(key): _text(value) for key, value in (store or {}).items()}


def _text(value: str | bytes) -> str:
    return value.decode(_encoding) if isinstance(value, bytes) else str(value)
