"""Decode a token, message, ticket, keytab or credential cache into a tree.

The input is a file, or hexadecimal or base64 text, as an argument or from standard input (-). With --keytab (the keys
of a service) or --key (a file with lines `etype:hex`, such as a session key) what is encrypted is shown too, where a
key fits. Keys are redacted unless --show-keys.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import dataclasses
import enum
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from purekrb.cli.klist import flag_names
from purekrb.cli.output import Output
from purekrb.constants import ApOptions, ChecksumType, ErrorCode, Flag, KdcOptions, KeyUsage
from purekrb.errors import DecodeError, IntegrityError, KerberosError
from purekrb.keys import EncryptionKey, etype_name

__all__ = ["add_arguments", "run", "describe"]

MAX_INPUT = 16 << 20
#: What an EncryptedData in each message may be encrypted for, and what is then inside.
_USAGES: dict[str, tuple[tuple[int, ...], str]] = {
    "Ticket": ((KeyUsage.TICKET,), "EncTicketPart"),
    "ApReq": ((KeyUsage.AP_REQ_AUTHENTICATOR, KeyUsage.TGS_REQ_AUTHENTICATOR), "Authenticator"),
    "ApRep": ((KeyUsage.AP_REP_ENC_PART,), "EncApRepPart"),
    "KrbCred": ((KeyUsage.KRB_CRED_ENC_PART,), "EncKrbCredPart"),
    "AsRep": ((KeyUsage.AS_REP_ENC_PART,), "EncKdcRepPart"),
    "TgsRep": ((KeyUsage.TGS_REP_ENC_PART_SUBKEY, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY), "EncKdcRepPart"),
}
_SEALS = (KeyUsage.INITIATOR_SEAL, KeyUsage.ACCEPTOR_SEAL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("input", nargs="?", default="-", help="file, hex, base64, or - for standard input")
    parser.add_argument("-k", "--keytab", metavar="FILE", help="decrypt with these service keys")
    parser.add_argument("--key", metavar="FILE", help="decrypt with the keys in this file: lines of ETYPE:HEX")
    parser.add_argument("--show-keys", action="store_true", help="print keys instead of redacting them")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    keys = []
    if args.keytab:
        from purekrb.credentials.keytab import Keytab

        keys += [entry.key for entry in Keytab.load(args.keytab)]
    if args.key:
        keys += _load_keys(args.key)
    tree = describe(_read(args.input), keys, show_keys=args.show_keys)
    output.result(tree, "\n".join(_lines(tree)))
    return 0


def describe(data: bytes, keys: Iterable[EncryptionKey] = (), *, show_keys: bool = False) -> dict[str, Any]:
    """Return what `data` is as a tree of dicts, lists and text. Raises DecodeError for what nothing can read."""
    return _Inspector(list(keys), show_keys).anything(data)


class _Inspector:
    """Turns messages into trees; a session key found inside is tried on what comes after it."""

    def __init__(self, keys: list[EncryptionKey], show_keys: bool) -> None:
        self._keys = keys
        self._show_keys = show_keys

    def anything(self, data: bytes) -> dict[str, Any]:
        if data[:2] == b"\x05\x04" and data[3:4] == b"\xff":
            return self._wrap(data)
        if data[:2] == b"\x04\x04":
            return self._mic(data)
        if data[:1] == b"\x60":
            return self._framed(data)
        if data[:1] == b"\x05":
            return self._file(data)
        return self._message(data)

    def _message(self, data: bytes) -> dict[str, Any]:
        from purekrb.messages import ap, kdc

        classes: dict[int, Any] = {
            0x61: ap.Ticket,
            0x62: ap.Authenticator,
            0x63: ap.EncTicketPart,
            0x6A: kdc.AsReq,
            0x6B: kdc.AsRep,
            0x6C: kdc.TgsReq,
            0x6D: kdc.TgsRep,
            0x6E: ap.ApReq,
            0x6F: ap.ApRep,
            0x76: ap.KrbCred,
            0x79: kdc.EncKdcRepPart,
            0x7A: kdc.EncKdcRepPart,
            0x7B: ap.EncApRepPart,
            0x7D: ap.EncKrbCredPart,
            0x7E: ap.KrbError,
        }
        message = classes.get(data[0] if data else 0)
        if message is None:
            raise DecodeError(
                "this is no Kerberos message, token, keytab or credential cache: it begins with "
                f"{data[:4].hex() or 'nothing'}"
            )
        return {message.__name__: self._value(message.decode(data))}

    def _framed(self, data: bytes) -> dict[str, Any]:
        from purekrb.gss.framing import unframe

        tok_id, inner = unframe(data)
        if inner[:1] and inner[0] & 0xE0 == 0x60:
            return {"GSS-API token": {"mechanism": "Kerberos V5", "TOK_ID": tok_id.hex(), **self._message(inner)}}
        return {"RFC 4757 token": {"TOK_ID": tok_id.hex(), "body": _bytes(inner)}}

    def _wrap(self, data: bytes) -> dict[str, Any]:
        from purekrb.gss.tokens import SEALED, WrapToken

        token = WrapToken.decode(data)
        tree = {**self._token(token.flags, token.snd_seq), "EC": token.ec, "RRC": token.rrc}
        if not token.flags & SEALED:
            tree["data"] = _bytes(token.data[: len(token.data) - token.ec])
        else:
            plaintext = self._decrypt(_SEALS, None, token.data)
            tree["data"] = "<sealed>" if plaintext is None else _bytes(plaintext[: -16 - token.ec])
        return {"Wrap token (RFC 4121)": tree}

    def _mic(self, data: bytes) -> dict[str, Any]:
        from purekrb.gss.tokens import MicToken

        token = MicToken.decode(data)
        return {"MIC token (RFC 4121)": {**self._token(token.flags, token.snd_seq), "checksum": _bytes(token.data)}}

    @staticmethod
    def _token(flags: int, snd_seq: int) -> dict[str, Any]:
        names = {1: "sent by acceptor", 2: "sealed", 4: "acceptor subkey"}
        return {"flags": [name for bit, name in names.items() if flags & bit], "SND_SEQ": snd_seq}

    def _file(self, data: bytes) -> dict[str, Any]:
        from purekrb.credentials.ccache import CCache
        from purekrb.credentials.keytab import Keytab

        try:
            return {"keytab": [self._value(entry) for entry in Keytab.decode(data)]}
        except DecodeError:
            ccache = CCache.decode(data)
        tickets = [self._value(ticket) for ticket in ccache]
        return {"credential cache": {"principal": str(ccache.principal), "tickets": tickets}}

    def _value(self, value: Any, name: str = "") -> Any:
        if isinstance(value, EncryptionKey):
            return {
                "etype": etype_name(value.etype),
                "contents": value.contents.hex() if self._show_keys else "<redacted>",
            }
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "components"):
            return self._dataclass(value)
        if isinstance(value, (tuple, list)):
            return [self._value(item, name) for item in value]
        if isinstance(value, bytes):
            return self._nested(name, value)
        formatter = _FORMATS.get(name)
        if formatter is not None and value is not None:
            return formatter(value)
        return value if value is None or isinstance(value, (bool, int, str, datetime)) else str(value)

    def _dataclass(self, value: Any) -> dict[str, Any]:
        kind = type(value).__name__
        tree = {
            field.name.rstrip("_"): self._value(getattr(value, field.name), field.name)
            for field in dataclasses.fields(value)
            if getattr(value, field.name) not in (None, (), timedelta(0)) and field.repr
        }
        for field in ("enc_part", "authenticator"):
            encrypted = getattr(value, field, None)
            if encrypted is not None and kind in _USAGES:
                inside = self._open(kind, encrypted.etype, encrypted.cipher)
                if inside is not None:
                    tree[field] = inside
        if kind == "Checksum" and value.cksumtype == ChecksumType.GSSAPI:
            tree["checksum"] = self._gss_checksum(value.checksum)
        return tree

    def _gss_checksum(self, data: bytes) -> Any:
        from purekrb.gss.checksum import GssChecksum

        try:
            checksum = GssChecksum.decode(data)
        except DecodeError:
            return _bytes(data)
        return {
            "flags": [flag.name for flag in Flag if checksum.flags & flag],
            "bindings": checksum.bindings.hex(),
            "delegation": None if checksum.delegation is None else self._message(checksum.delegation),
        }

    def _nested(self, name: str, data: bytes) -> Any:
        """Return the tree of a message that another one holds as bytes, or the bytes."""
        if name in ("ticket", "tickets", "additional_tickets", "padata_value") and data[:1] in (b"\x61", b"\x6e"):
            try:
                return self._message(data)
            except KerberosError:
                pass
        return _bytes(data)

    def _open(self, kind: str, etype: int, cipher: bytes) -> Any:
        from purekrb.messages import ap, kdc

        usages, part = _USAGES[kind]
        plaintext = self._decrypt(usages, etype, cipher)
        if plaintext is None:
            return None
        message = getattr(ap, part, None) or getattr(kdc, part)
        decoded = message.decode(plaintext)
        self._keys += [key for key in (getattr(decoded, "key", None), getattr(decoded, "subkey", None)) if key]
        return {"decrypted": {part: self._value(decoded)}}

    def _decrypt(self, usages: Iterable[int], etype: int | None, cipher: bytes) -> bytes | None:
        from purekrb import crypto

        for key in self._keys:
            for usage in usages if etype in (None, key.etype) else ():
                try:
                    return crypto.decrypt(key, usage, cipher)
                except IntegrityError:
                    continue
                except KerberosError:  # a key of an encryption type that purekrb does not have
                    break
        return None


def _flags(kind: type[enum.IntFlag]) -> Callable[[int], list[str]]:
    return lambda value: [str(flag.name).lower().replace("_", "-") for flag in kind if value & flag]


def _error_code(value: int) -> str:
    try:
        return f"{ErrorCode(value).name} ({int(value)})"
    except ValueError:
        return str(value)


_FORMATS: dict[str, Callable[[Any], Any]] = {
    "etype": lambda value: value if isinstance(value, list) else etype_name(value),
    "flags": flag_names,
    "ap_options": _flags(ApOptions),
    "kdc_options": _flags(KdcOptions),
    "error_code": _error_code,
}


def _bytes(data: bytes) -> str:
    return data.hex() if len(data) <= 64 else f"{data[:32].hex()}... ({len(data)} bytes)"


def _read(text: str) -> bytes:
    if text == "-":
        data = sys.stdin.buffer.read(MAX_INPUT + 1)
    elif os.path.lexists(text):
        with Path(text).open("rb") as file:
            data = file.read(MAX_INPUT + 1)
    else:
        data = text.encode()
    if len(data) > MAX_INPUT:
        raise DecodeError(f"the input is larger than {MAX_INPUT} bytes")
    compact = b"".join(data.split())
    for decode in (bytes.fromhex, _base64):
        try:
            return decode(compact.decode("ascii"))
        except (ValueError, binascii.Error):
            continue
    if text != "-" and not os.path.lexists(text):
        raise DecodeError(f"{text[:60]!r} is neither a file nor hexadecimal nor base64")
    return data


def _base64(text: str) -> bytes:
    return base64.b64decode(text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4), validate=True)


def _load_keys(path: str) -> Iterator[EncryptionKey]:
    from purekrb.credentials.files import read_private

    for number, line in enumerate(
        read_private(path, what="key file", shared=True).decode("ascii", "replace").split(), 1
    ):
        etype, _, contents = line.partition(":")
        failed = not (etype.isdigit() and contents)
        try:
            key = None if failed else EncryptionKey(int(etype), bytes.fromhex(contents))
        except ValueError:
            key = None
        if key is None:
            raise DecodeError(f"{path}:{number}: this is no key: write the etype's number, a colon and the key in hex")
        yield key


def _lines(tree: Any, depth: int = 0) -> Iterator[str]:
    indent = "  " * depth
    for name, value in tree.items() if isinstance(tree, dict) else ((f"[{i}]", item) for i, item in enumerate(tree)):
        if (
            isinstance(value, (dict, list)) and value and not all(isinstance(item, (str, int)) for item in value)
        ) or isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _lines(value, depth + 1)
        elif isinstance(value, list):
            yield f"{indent}{name}: {', '.join(map(str, value)) or '-'}"
        else:
            yield f"{indent}{name}: {value}"
