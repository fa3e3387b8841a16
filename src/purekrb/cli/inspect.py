"""Decode a token, message, ticket, keytab or credential cache into a tree.

The input is a file, or hexadecimal or base64 text, as an argument or from standard input (-).
With --keytab (the keys of a service or client) or --key (a file with lines ETYPE:HEX, such as a
session key), encrypted parts are decrypted if a key fits. Unless --show-keys is given, keys are
redacted, and so are data that may hold a key: unencrypted data (a KRB-CRED of etype 0), and data
that should be a message but cannot be decoded. Application data are shown.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

from purekrb import crypto
from purekrb.cli.klist import asn1_flags
from purekrb.cli.output import Output
from purekrb.constants import (
    KERB_AP_OPTIONS_CBT,
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    SPNEGO_OID,
    AddressType,
    ApOptions,
    AuthDataType,
    ChecksumType,
    ErrorCode,
    Flag,
    KdcOptions,
    KeyUsage,
    NameType,
    NegState,
    PaDataType,
    TicketFlags,
    flag_names,
)
from purekrb.credentials.ccache import CCache
from purekrb.credentials.files import read_private
from purekrb.credentials.keytab import Keytab
from purekrb.errors import DecodeError, IntegrityError, KerberosError
from purekrb.gss.checksum import NO_BINDINGS, GssChecksum
from purekrb.gss.framing import is_framed_for, mechanism_names, unframe, unframe_mechanism
from purekrb.gss.tokens import (
    ACCEPTOR_SUBKEY,
    HEADER_SIZE,
    SEALED,
    SENT_BY_ACCEPTOR,
    MicToken,
    WrapToken,
    rotated,
)
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages import ap, kdc, spnego
from purekrb.names import Principal, PrincipalName
from purekrb.records import field_names
from purekrb.tracebacks import forget_frames

__all__ = ["add_arguments", "run", "describe"]

MAX_INPUT = 16 << 20
#: The most bytes that are shown of data without a structure.
MAX_SHOWN = 64
#: The most levels of AD-IF-RELEVANT, or of tokens inside tokens, that are decoded.
MAX_DEPTH = 8

_MESSAGES: dict[int, Any] = {
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
    0xA0: spnego.NegTokenInit,
    0xA1: spnego.NegTokenResp,
}
#: The EncryptedData of each message: its field, the possible key usages, and its content.
_ENCRYPTED: dict[type, tuple[str, tuple[int, ...], Any]] = {
    ap.Ticket: ("enc_part", (KeyUsage.TICKET,), ap.EncTicketPart),
    ap.ApReq: (
        "authenticator",
        (KeyUsage.AP_REQ_AUTHENTICATOR, KeyUsage.TGS_REQ_AUTHENTICATOR),
        ap.Authenticator,
    ),
    ap.ApRep: ("enc_part", (KeyUsage.AP_REP_ENC_PART,), ap.EncApRepPart),
    ap.KrbCred: ("enc_part", (KeyUsage.KRB_CRED_ENC_PART,), ap.EncKrbCredPart),
    kdc.AsRep: ("enc_part", (KeyUsage.AS_REP_ENC_PART,), kdc.EncKdcRepPart),
    kdc.TgsRep: (
        "enc_part",
        (KeyUsage.TGS_REP_ENC_PART_SUBKEY, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY),
        kdc.EncKdcRepPart,
    ),
}
_NTLM = b"NTLMSSP\0"
#: The "cipher" of such EncryptedData is the plaintext. Some programs write tickets to files in this
#: way. Source: RFC 6448.
_NO_ENCRYPTION = 0
#: The token ids of RFC 4757 7.
_RC4_TOKENS = {b"\x01\x01": "MIC token (RFC 4757)", b"\x02\x01": "Wrap token (RFC 4757)"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "input", nargs="?", default="-", help="file, hex, base64, or - for standard input (default)"
    )
    parser.add_argument(
        "-k", "--keytab", metavar="FILE", help="decrypt with the keys in this keytab"
    )
    parser.add_argument(
        "--key", metavar="FILE", help="decrypt with the keys in this file: lines of ETYPE:HEX"
    )
    parser.add_argument(
        "--show-keys", action="store_true", help="print keys instead of redacting them"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    keys = [entry.key for entry in Keytab.load(args.keytab)] if args.keytab else []
    if args.key:
        keys += _load_keys(args.key)
    tree = describe(_read(args.input), keys, show_keys=args.show_keys)
    output.result(tree, *_lines(tree))
    return 0


def describe(
    data: bytes, keys: Iterable[EncryptionKey] = (), *, show_keys: bool = False
) -> dict[str, Any]:
    """Return the contents of `data` as a tree of dicts, lists and text.

    Raises DecodeError if the format is unknown or the data are damaged.
    """
    return _Inspector(list(keys), show_keys).anything(data)


class _Inspector:
    """Turns messages into trees. A session key that it finds is tried on later encrypted parts."""

    def __init__(self, keys: list[EncryptionKey], show_keys: bool) -> None:
        self._keys = keys
        self._show_keys = show_keys
        self._depth = 0

    def anything(self, data: bytes) -> dict[str, Any]:
        if data[:2] == b"\x05\x04" and data[3:4] == b"\xff":
            return {"Wrap token (RFC 4121)": self._wrap_token(data)}
        if data[:2] == b"\x04\x04":
            return {"MIC token (RFC 4121)": self._mic_token(data)}
        if data[:1] == b"\x60":
            return self._framed_token(data)
        if data[:1] == b"\x05":
            return self._file(data)
        return self._message(data)

    # -- tokens

    def _wrap_token(self, data: bytes) -> dict[str, Any]:
        token = WrapToken.decode(data)
        plaintext = None
        layout = {}
        if token.flags & SEALED:
            usage = (
                KeyUsage.ACCEPTOR_SEAL
                if token.flags & SENT_BY_ACCEPTOR
                else KeyUsage.INITIATOR_SEAL
            )
            plaintext = self._decrypt((usage,), None, token.data)
            if plaintext is None and token.ec:
                plaintext = self._decrypt((usage,), None, rotated(token.data, -token.ec))
                layout = {} if plaintext is None else {"layout": "DCE style: rotated by EC + RRC"}
            trailer = token.ec + HEADER_SIZE
        else:
            plaintext, trailer = token.data, token.ec
        return {
            **_token_header(token),
            "EC": token.ec,
            "RRC": token.rrc,
            **layout,
            "data": "<sealed>"
            if plaintext is None
            else _bytes(plaintext[: max(0, len(plaintext) - trailer)]),
        }

    def _mic_token(self, data: bytes) -> dict[str, Any]:
        token = MicToken.decode(data)
        return {**_token_header(token), "checksum": _bytes(token.data)}

    def _framed_token(self, data: bytes) -> dict[str, Any]:
        if is_framed_for(data, SPNEGO_OID):
            return {
                "GSS-API token": {
                    "mechanism": mechanism_names([SPNEGO_OID]),
                    **self._negotiation(data),
                }
            }
        mechanism = MS_KRB5_MECH_OID if is_framed_for(data, MS_KRB5_MECH_OID) else KRB5_MECH_OID
        tok_id, inner = unframe(data, mechanism)
        if tok_id in _RC4_TOKENS:
            seal_alg = {"SEAL_ALG": inner[2:4].hex()} if tok_id == b"\x02\x01" else {}
            return {
                _RC4_TOKENS[tok_id]: {
                    "SGN_ALG": inner[:2].hex(),
                    **seal_alg,
                    "encrypted SND_SEQ": inner[6:14].hex(),
                    "SGN_CKSUM": inner[14:22].hex(),
                    **({"confounder and data": _bytes(inner[22:])} if seal_alg else {}),
                }
            }
        return {
            "GSS-API token": {
                "mechanism": mechanism_names([mechanism]),
                "TOK_ID": tok_id.hex(),
                **self._message(inner),
            }
        }

    def _negotiation(self, data: bytes) -> dict[str, Any]:
        inner = unframe_mechanism(data, SPNEGO_OID)
        try:
            return self._message(inner)
        except DecodeError:
            # The acceptor's form differs in two fields.
            message = spnego.NegTokenInit2.decode(inner)
        return {"NegTokenInit2": self._value(message)}

    # -- files and messages

    def _file(self, data: bytes) -> dict[str, Any]:
        try:
            return {"keytab": [self._value(entry) for entry in Keytab.decode(data)]}
        except DecodeError as error:
            no_keytab = error
        try:
            ccache = CCache.decode(data)
        except DecodeError as error:
            raise DecodeError(
                f"neither a keytab ({no_keytab}) nor a credential cache ({error})"
            ) from None
        tickets = [self._value(ticket) for ticket in ccache]
        return {"credential cache": {"principal": str(ccache.principal), "tickets": tickets}}

    def _message(self, data: bytes) -> dict[str, Any]:
        message = _MESSAGES.get(data[0]) if data else None
        if message is None:
            raise DecodeError(
                "this is not a Kerberos message, token, keytab or credential cache: it "
                + ("does not begin with the tag or version of any of these" if data else "is empty")
            )
        return {message.__name__: self._value(message.decode(data))}

    def _value(self, value: Any, name: str = "") -> Any:
        """Return the tree of a field's value; `name` is the field's."""
        if isinstance(value, EncryptionKey):
            contents = value.contents.hex() if self._show_keys else "<redacted>"
            return {"etype": etype_name(value.etype), "contents": contents}
        if isinstance(value, bytes):
            if name == "salt":
                return value.decode(errors="backslashreplace")
            if name in ("mech_types", "supported_mech"):
                return mechanism_names([value])
            if name in ("mech_token", "response_token"):
                return self._nested(value)
            if name == "mech_list_mic":
                return self._inside(self._mic_token, value)
            return (
                self._ticket(value)
                if name in ("ticket", "tickets", "additional_tickets")
                else _bytes(value)
            )
        if isinstance(value, Principal | PrincipalName):
            kind = _enum_name(NameType, value.name_type)
            return f"{value} ({kind})" if isinstance(value, PrincipalName) else str(value)
        if fields := field_names(type(value)):
            return self._record(value, fields, name)
        if dataclasses.is_dataclass(value):
            return self._record(value, [field.name for field in dataclasses.fields(value)], name)
        if isinstance(value, tuple):
            return [self._value(item, name) for item in value]
        if value is not None and name in _FORMATS:
            return _FORMATS[name](value)
        return value if isinstance(value, int | str | datetime | None) else str(value)

    def _record(self, value: Any, names: Iterable[str], place: str) -> dict[str, Any]:
        """Return the tree of a record that is the value of the field `place`."""
        tree = {
            name.rstrip("_"): self._value(getattr(value, name), name)
            for name in names
            if not name.startswith("_")
            and getattr(value, name) not in (None, (), b"", timedelta(0))
        }
        if type(value) in _ENCRYPTED:
            field, usages, part = _ENCRYPTED[type(value)]
            self._open(tree[field], getattr(value, field), usages, part)
        elif isinstance(value, ap.Checksum) and value.cksumtype == ChecksumType.GSSAPI:
            tree["checksum"] = self._inside(self._gss_checksum, value.checksum)
        elif isinstance(value, ap.EncryptedData):  # if it is damaged, it may not be encrypted
            tree["cipher"] = self._secret(value.cipher)
        elif isinstance(value, kdc.PaData):
            # A KDC can send keys in this field: KERB-KEY-LIST-REP, MS-KILE 2.2.12.
            show = self._secret if place == "encrypted_pa_data" else _bytes
            tree["padata_value"] = self._inside(
                self._padata, show, value.padata_type, value.padata_value
            )
        elif isinstance(value, ap.AuthorizationDataEntry):
            tree["ad_data"] = self._inside(self._authorization_data, value.ad_type, value.ad_data)
        elif isinstance(value, ap.KrbError) and value.e_data:
            tree["e_data"] = self._inside(self._error_data, value.error_code, value.e_data)
        return tree

    # -- messages inside other messages, as bytes

    def _inside(self, read: Callable[..., Any], *args: Any) -> Any:
        """Return the result of `read` for bytes inside a message; if it fails, their number."""
        try:
            return read(*args)
        except KerberosError:
            return self._secret(args[-1])

    def _secret(self, data: bytes) -> str:
        """Return the text to show for bytes that may be, or hold, a key."""
        return _bytes(data) if self._show_keys else f"<{len(data)} bytes>"

    def _ticket(self, data: bytes) -> Any:
        return self._inside(lambda data: self._value(ap.Ticket.decode(data)), data)

    def _gss_checksum(self, data: bytes) -> Any:
        checksum = GssChecksum.decode(data)
        bindings = "none" if checksum.bindings == NO_BINDINGS else checksum.bindings.hex()
        tree = {"flags": flag_names(Flag, checksum.flags), "bindings": bindings}
        if checksum.delegation is not None:
            tree["delegation"] = self._value(ap.KrbCred.decode(checksum.delegation))
        return tree

    def _padata(self, show: Callable[[bytes], str], kind: int, data: bytes) -> Any:
        if kind == PaDataType.TGS_REQ:
            return self._value(ap.ApReq.decode(data))
        if kind == PaDataType.ETYPE_INFO2:
            return self._value(kdc.EtypeInfo2.decode(data).entries)
        if kind == PaDataType.PAC_REQUEST:
            return self._value(kdc.PaPacRequest.decode(data))
        if kind == PaDataType.ENC_TIMESTAMP:
            encrypted = ap.EncryptedData.decode(data)
            tree = self._value(encrypted)
            self._open(tree, encrypted, (KeyUsage.AS_REQ_PA_ENC_TIMESTAMP,), kdc.PaEncTsEnc)
            return tree
        return show(data)

    def _authorization_data(self, kind: int, data: bytes) -> Any:
        if kind == AuthDataType.ETYPE_NEGOTIATION:
            return [etype_name(etype) for etype in ap.EtypeList.decode(data).entries]
        if (
            kind == AuthDataType.AP_OPTIONS
            and int.from_bytes(data, "little") == KERB_AP_OPTIONS_CBT
        ):
            return "the client knows channel bindings"
        if kind == AuthDataType.CLIENT_TARGET:
            return data.decode("utf-16-le", errors="backslashreplace")
        if kind != AuthDataType.IF_RELEVANT or self._depth == MAX_DEPTH:
            return _bytes(data)
        self._depth += 1
        try:
            return self._value(ap.AuthorizationData.decode(data).entries)
        finally:
            self._depth -= 1

    def _nested(self, data: bytes) -> Any:
        """Return the tree of a token inside another token. It may hold a further token."""
        if data.startswith(_NTLM):  # it holds no Kerberos key
            return _bytes(data)
        if self._depth == MAX_DEPTH:
            return self._secret(data)
        self._depth += 1
        try:
            return self._inside(self.anything, data)
        finally:
            self._depth -= 1

    def _error_data(self, code: int, data: bytes) -> Any:
        if code == ErrorCode.KDC_ERR_PREAUTH_REQUIRED:
            return self._value(kdc.MethodData.decode(data).entries)
        return _bytes(data)

    # -- encrypted parts

    def _open(
        self, tree: dict[str, Any], encrypted: ap.EncryptedData, usages: Iterable[int], part: Any
    ) -> None:
        """Add the content of `encrypted` to its tree, if a key fits or none is needed."""
        clear = encrypted.etype == _NO_ENCRYPTION
        plaintext = (
            encrypted.cipher if clear else self._decrypt(usages, encrypted.etype, encrypted.cipher)
        )
        if plaintext is None:
            return
        try:
            message = part.decode(plaintext)
        except DecodeError as error:
            tree["decrypted"] = f"<not a valid {part.__name__}: {error}>"
            return
        self._keys += [
            key for key in (getattr(message, "key", None), getattr(message, "subkey", None)) if key
        ]
        tree["decrypted"] = {part.__name__: self._value(message)}

    def _decrypt(self, usages: Iterable[int], etype: int | None, cipher: bytes) -> bytes | None:
        for key in self._keys:
            for usage in usages if etype in (None, key.etype) else ():
                try:
                    return crypto.decrypt(key, usage, cipher)
                except IntegrityError:
                    continue
                except KerberosError:  # purekrb does not have the encryption type of this key
                    break
        return None


def _token_header(token: WrapToken | MicToken) -> dict[str, Any]:
    names = {
        SENT_BY_ACCEPTOR: "sent-by-acceptor",
        SEALED: "sealed",
        ACCEPTOR_SUBKEY: "acceptor-subkey",
    }
    return {
        "flags": [name for bit, name in names.items() if token.flags & bit],
        "SND_SEQ": token.snd_seq,
    }


def _enum_name(kind: type[IntEnum], value: int) -> str:
    try:
        return f"{kind(value).name} {int(value)}"
    except ValueError:
        return str(value)


#: Functions by the names of fields: each returns the form in which the value is shown.
_FORMATS: dict[str, Callable[[int], Any]] = {
    "etype": etype_name,
    "flags": lambda value: asn1_flags(TicketFlags, value),
    "ap_options": lambda value: asn1_flags(ApOptions, value),
    "kdc_options": lambda value: asn1_flags(KdcOptions, value),
    "neg_state": lambda value: _enum_name(NegState, value),
    "error_code": lambda value: _enum_name(ErrorCode, value),
    "padata_type": lambda value: _enum_name(PaDataType, value),
    "ad_type": lambda value: _enum_name(AuthDataType, value),
    "addr_type": lambda value: _enum_name(AddressType, value),
    "cksumtype": lambda value: _enum_name(ChecksumType, value),
}


def _bytes(data: bytes) -> str:
    return (
        data.hex()
        if len(data) <= MAX_SHOWN
        else f"{data[: MAX_SHOWN // 2].hex()}... ({len(data)} bytes)"
    )


def _read(text: str) -> bytes:
    """Return the bytes of the file that the argument names, or of its hexadecimal or base64 text.

    DecodeError does not quote the input.
    """
    if text == "-":
        data = sys.stdin.buffer.read(MAX_INPUT + 1) if sys.stdin else b""
    elif os.path.lexists(text):
        with Path(text).open("rb") as file:
            data = file.read(MAX_INPUT + 1)
    else:
        data = _from_text(text.encode())
        if data is None:
            raise DecodeError("the input is neither an existing file nor hexadecimal nor base64")
        return data
    if len(data) > MAX_INPUT:
        raise DecodeError(
            f"the input is larger than {MAX_INPUT} bytes, more than any ticket, keytab or cache has"
        )
    decoded = _from_text(data)
    return data if decoded is None else decoded


def _from_text(data: bytes) -> bytes | None:
    """Return the bytes of hexadecimal or base64 text, or None.

    The base64 alphabet of URLs is accepted, and so is missing padding.
    """
    compact = b"".join(data.split())
    with suppress(ValueError):
        return bytes.fromhex(compact.decode("ascii"))
    digits = compact.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    with suppress(ValueError):
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    return None


@forget_frames
def _load_keys(path: str) -> list[EncryptionKey]:
    """Return the keys in a file with lines ETYPE:HEX. DecodeError does not quote them."""
    keys = []
    for number, line in enumerate(read_private(path, what="key file", shared=True).split(b"\n"), 1):
        if line.strip():
            key = None
            # DecodeError is a ValueError, too. The error of int() would quote its argument.
            with suppress(ValueError):
                etype, contents = line.decode("ascii").split(":")
                key = EncryptionKey(int(etype), bytes.fromhex(contents))
            if key is None:
                raise DecodeError(
                    f"{path}:{number}: this is not a key: write the etype's number, a colon and "
                    "the key in hexadecimal"
                )
            keys.append(key)
    return keys


def _lines(tree: dict[str, Any] | list[Any], depth: int = 0) -> Iterator[str]:
    indent = "  " * depth
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
            value = ", ".join(map(str, value)) or "-"
        if isinstance(value, dict | list):
            yield f"{indent}{name}"
            yield from _lines(value, depth + 1)
        else:
            yield f"{indent}{name}: {value}"
