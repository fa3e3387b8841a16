"""Kerberos messages, tokens and files as trees of dicts, lists and text, for people to read.

Keys are redacted unless they are asked for, and so are data that may hold a key: unencrypted data
(a KRB-CRED of etype 0), and data that should be a message but cannot be decoded. Application data
are shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from enum import IntFlag
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from purekrb import crypto
from purekrb.constants import (
    IAKERB_OID,
    KERB_AP_OPTIONS_CBT,
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    NEGOEX_OID,
    NTLM_OID,
    SPNEGO_OID,
    AddressType,
    ApOptions,
    AuthDataType,
    ChecksumType,
    ErrorCode,
    FastOptions,
    Flag,
    KdcOptions,
    KeyUsage,
    MessageType,
    NameType,
    NegState,
    PaDataType,
    TicketFlags,
    asn1_flags,
    flag_names,
    number_name,
)
from purekrb.credentials.ccache import CCache
from purekrb.credentials.keytab import Keytab
from purekrb.errors import DecodeError, IntegrityError, KerberosError
from purekrb.gss.checksum import NO_BINDINGS, GssChecksum
from purekrb.gss.framing import unframe_mechanism
from purekrb.gss.tokens import (
    ACCEPTOR_SUBKEY,
    HEADER_SIZE,
    SEALED,
    SENT_BY_ACCEPTOR,
    MicToken,
    WrapToken,
    rotated,
)
from purekrb.inspection import capture, negoex, ntlm, pac, shapes
from purekrb.keys import EncryptionKey, etype_name
from purekrb.messages import ap, cldap, fast, kdc, pkinit, spnego
from purekrb.messages.der import read_header
from purekrb.names import Principal, PrincipalName
from purekrb.nt_status import LOGON_STATUS
from purekrb.oids import oid_name
from purekrb.records import field_names
from purekrb.sid import Sid

__all__ = ["describe", "lines", "Inspector"]

#: The most bytes that are shown of data without a structure.
MAX_SHOWN = 64
#: The most levels of AD-IF-RELEVANT, or of tokens inside tokens, that are decoded.
MAX_DEPTH = 8

#: The types of data that errors about PKINIT have. Source: RFC 4556 3.1.3, RFC 8636 3.
_TYPED_DATA = frozenset(
    (
        PaDataType.TD_TRUSTED_CERTIFIERS,
        PaDataType.TD_CERTIFICATE_INDEX,
        PaDataType.TD_DH_PARAMETERS,
        PaDataType.TD_CMS_DIGEST_ALGORITHMS,
        PaDataType.TD_CERT_DIGEST_ALGORITHMS,
    )
)
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
    fast.FxFastRequest: ("enc_fast_req", (KeyUsage.FAST_REQ,), fast.FastReq),
    fast.FxFastReply: ("enc_fast_rep", (KeyUsage.FAST_REP,), fast.FastResponse),
}
#: The "cipher" of such EncryptedData is the plaintext. Some programs write tickets to files in this
#: way. Source: RFC 6448.
_NO_ENCRYPTION = 0
#: The token ids of RFC 4757 7.
_RC4_TOKENS = {b"\x01\x01": "MIC token (RFC 4757)", b"\x02\x01": "Wrap token (RFC 4757)"}
_IAKERB_PROXY = b"\x05\x01"
_USER_TO_USER_OID = KRB5_MECH_OID + b"\x03"
#: The mechanisms whose tokens begin with a token id of two bytes.
_KERBEROS_MECHANISMS = {KRB5_MECH_OID, MS_KRB5_MECH_OID, _USER_TO_USER_OID, IAKERB_OID}
#: kpasswd: a change of one's own password or an answer, and the setting of any (RFC 3244 2).
_KPASSWD_VERSIONS = {1, 0xFF80}
#: A KERB-EXT-ERROR in the place of a salt: NTSTATUS, reserved, flags. Source: MS-KILE 2.2.1.
_EXTENDED_ERROR_SIZE = 12


def describe(
    data: bytes, keys: Iterable[EncryptionKey] = (), *, show_keys: bool = False
) -> dict[str, Any]:
    """Return the contents of `data` as a tree of dicts, lists and text.

    `keys` are tried on what is encrypted. Raises DecodeError if the format is unknown or the data
    are damaged.
    """
    return Inspector(list(keys), show_keys).anything(data)


class Inspector:
    """Turns messages into trees. A session key that it finds is tried on later encrypted parts."""

    def __init__(self, keys: list[EncryptionKey], show_keys: bool) -> None:
        self._keys = keys
        self._show_keys = show_keys
        self._depth = 0

    def anything(self, data: bytes) -> dict[str, Any]:
        """Return the tree of data of any kind. Raises DecodeError."""
        for fits, read in _RECOGNISED:
            if fits(data):
                return read(self, data)
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
        tree = {
            **_token_header(token),
            "EC": token.ec,
            "RRC": token.rrc,
            **layout,
            "data": "<sealed>"
            if plaintext is None
            else self.octets(plaintext[: max(0, len(plaintext) - trailer)]),
        }
        return {"Wrap token (RFC 4121)": tree}

    def _mic(self, data: bytes) -> dict[str, Any]:
        token = MicToken.decode(data)
        return {**_token_header(token), "checksum": self.octets(token.data)}

    def _mic_token(self, data: bytes) -> dict[str, Any]:
        return {"MIC token (RFC 4121)": self._mic(data)}

    def _framed_token(self, data: bytes) -> dict[str, Any]:
        oid = _mechanism(data)
        inner = unframe_mechanism(data, oid)
        tree = {"mechanism": oid_name(oid)}
        if oid in _KERBEROS_MECHANISMS:
            tok_id, inner = inner[:2], inner[2:]
            if len(tok_id) < 2:
                raise DecodeError("the GSS-API token ends before its token id")
            if tok_id in _RC4_TOKENS:
                return {_RC4_TOKENS[tok_id]: self._rc4_token(tok_id, inner)}
            tree["TOK_ID"] = tok_id.hex()
            tree |= self._mechanism_token(tok_id, inner)
        elif oid == SPNEGO_OID:
            tree |= self._negotiation(inner)
        elif oid in (NTLM_OID, NEGOEX_OID):
            tree |= self.anything(inner)
        else:
            tree["token"] = self.secret(inner)
        return {"GSS-API token": tree}

    def _rc4_token(self, tok_id: bytes, inner: bytes) -> dict[str, Any]:
        seal_alg = {"SEAL_ALG": inner[2:4].hex()} if tok_id == b"\x02\x01" else {}
        return {
            "SGN_ALG": inner[:2].hex(),
            **seal_alg,
            "encrypted SND_SEQ": inner[6:14].hex(),
            "SGN_CKSUM": inner[14:22].hex(),
            **({"confounder and data": self.octets(inner[22:])} if seal_alg else {}),
        }

    def _mechanism_token(self, tok_id: bytes, inner: bytes) -> dict[str, Any]:
        """Return the tree of what follows a token id of a Kerberos mechanism."""
        if tok_id in shapes.TGT_TOKENS:
            kind = shapes.TGT_TOKENS[tok_id]
            return {kind.name: shapes.read(self, kind, inner)}
        if tok_id == _IAKERB_PROXY:
            return self._iakerb(inner)
        return self._message(inner)

    def _bare_mechanism_token(self, data: bytes) -> dict[str, Any]:
        return {"TOK_ID": data[:2].hex(), **self._mechanism_token(data[:2], data[2:])}

    def _iakerb(self, inner: bytes) -> dict[str, Any]:
        """Return the tree of IAKERB-HEADER and the message behind it, which may be missing."""
        _, _, end = read_header(inner, 0, len(inner))
        tree = shapes.named(self, shapes.IAKERB_HEADERS, inner[:end])
        return {**tree, **(self._message(inner[end:]) if inner[end:] else {})}

    def _negotiation(self, inner: bytes) -> dict[str, Any]:
        try:
            return self._message(inner)
        except DecodeError:
            # The acceptor's form differs in two fields.
            message = spnego.NegTokenInit2.decode(inner)
        return {"NegTokenInit2": self.value(message)}

    # -- files and messages

    def _file(self, data: bytes) -> dict[str, Any]:
        if data[:3] == _IAKERB_PROXY + b"\x30":  # a keytab of 800 MB begins in this way, too
            try:
                return self._bare_mechanism_token(data)
            except DecodeError:
                pass
        try:
            return {"keytab": [self.value(entry) for entry in Keytab.decode(data)]}
        except DecodeError as error:
            no_keytab = error
        try:
            ccache = CCache.decode(data)
        except DecodeError as error:
            raise DecodeError(
                f"neither a keytab ({no_keytab}) nor a credential cache ({error})"
            ) from None
        tickets = [self.value(ticket) for ticket in ccache]
        return {"credential cache": {"principal": str(ccache.principal), "tickets": tickets}}

    def _capture(self, data: bytes) -> dict[str, Any]:
        found = []
        for packet in capture.messages(data):
            tree: dict[str, Any] = {
                name: getattr(packet, name)
                for name in ("time", "source", "destination")
                if getattr(packet, name) is not None
            }
            try:
                tree |= self.anything(packet.message)
            except KerberosError as error:
                tree["error"] = str(error)
            found.append(tree)
        return {"captured messages": found}

    def _packet(self, data: bytes) -> dict[str, Any]:
        packet = capture.packet(data)
        if packet is None:
            raise DecodeError("the packet holds neither TCP nor UDP data")
        ends = {"source": packet.source, "destination": packet.destination}
        return {"packet": {**ends, **self.anything(packet.message)}}

    def _with_length(self, data: bytes) -> dict[str, Any]:
        """Return the tree of messages behind their lengths. Source: RFC 4120 7.2.2."""
        trees = [{"TCP length": len(each), **self.anything(each)} for each in capture.framed(data)]
        return trees[0] if len(trees) == 1 else {"messages": trees}

    def _kpasswd(self, data: bytes) -> dict[str, Any]:
        """Return the tree of a request or reply that changes a password. Source: RFC 3244 2."""
        size = int.from_bytes(data[4:6], "big")
        parts = {"ApReq or ApRep": data[6 : 6 + size], "KRB-PRIV": data[6 + size :]}
        trees = [self._message(part) for part in parts.values() if part]
        version = f"0x{int.from_bytes(data[2:4], 'big'):04x}"
        return {
            "kpasswd": {"version": version, **{k: v for tree in trees for k, v in tree.items()}}
        }

    def _netlogon(self, data: bytes) -> dict[str, Any]:
        """Return the tree of a domain controller's answer to a ping. Source: MS-ADTS 6.3.1.9."""
        number, answer = cldap.decode_answer(data)
        fields = {name: getattr(answer, name) for name in field_names(cldap.Netlogon)}
        fields["flags"] = flag_names(cldap.NetlogonFlags, answer.flags)
        fields["domain_guid"] = str(UUID(bytes_le=answer.domain_guid))
        return {"Netlogon": {"message_id": number, **fields}}

    def _ntlm(self, data: bytes) -> dict[str, Any]:
        return ntlm.describe(data, self.secret)

    def _negoex(self, data: bytes) -> dict[str, Any]:
        return negoex.describe(data)

    def _message(self, data: bytes) -> dict[str, Any]:
        if not data:
            raise DecodeError(_UNKNOWN.format("is empty"))
        tag = data[0]
        if tag in shapes.APPLICATIONS:
            kind = shapes.APPLICATIONS[tag]
            return {kind.name: shapes.read(self, kind, data)}
        if tag == 0x30:
            read_header(data, 0, len(data))
            return shapes.named(self, shapes.SEQUENCES, data)
        message = _MESSAGES.get(tag)
        if message is None and not shapes.may_be(shapes.CONTEXTS, data):
            raise DecodeError(
                _UNKNOWN.format("does not begin with the tag or version of any of these")
            )
        try:
            if message is not None:
                return {message.__name__: self.value(message.decode(data))}
        except DecodeError as error:
            failure = error
        else:
            return shapes.named(self, shapes.CONTEXTS, data)
        try:  # the CHOICEs of PKINIT, FAST and SPAKE have the tags of SPNEGO
            return shapes.named(self, shapes.CONTEXTS, data)
        except DecodeError:
            raise failure from None

    def value(self, value: Any, name: str = "") -> Any:
        """Return the tree of a field's value; `name` is the field's."""
        if isinstance(value, EncryptionKey):
            contents = value.contents.hex() if self._show_keys else "<redacted>"
            return {"etype": etype_name(value.etype), "contents": contents}
        if isinstance(value, bytes):
            if name == "salt":
                return value.decode(errors="backslashreplace")
            if name in ("mech_types", "supported_mech"):
                return oid_name(value)
            if name in ("mech_token", "response_token"):
                return self.nested(value)
            if name == "armor_value":
                return self.inside(self.nested, value)
            if name == "mech_list_mic":
                return self.inside(self._mic, value)
            return (
                self.ticket(value)
                if name in ("ticket", "tickets", "additional_tickets")
                else self.octets(value)
            )
        if isinstance(value, Principal | PrincipalName):
            kind = number_name(NameType, value.name_type)
            return f"{value} ({kind})" if isinstance(value, PrincipalName) else str(value)
        if isinstance(value, Sid):
            return str(value)
        if fields := field_names(type(value)):
            return self._record(value, fields, name)
        if dataclasses.is_dataclass(value):
            return self._record(value, [field.name for field in dataclasses.fields(value)], name)
        if isinstance(value, tuple):
            return [self.value(item, name) for item in value]
        if value is not None and name in _FORMATS:
            return _FORMATS[name](value)
        return value if isinstance(value, int | str | datetime | None) else str(value)

    def _record(self, value: Any, names: Iterable[str], place: str) -> dict[str, Any]:
        """Return the tree of a record that is the value of the field `place`."""
        tree = {
            name.rstrip("_"): self.value(getattr(value, name), name)
            for name in names
            if not name.startswith("_")
            and getattr(value, name) not in (None, (), b"", timedelta(0))
        }
        if type(value) in _ENCRYPTED:
            field, usages, part = _ENCRYPTED[type(value)]
            self._open(tree[field], getattr(value, field), usages, part.__name__, self._part(part))
        elif isinstance(value, ap.Checksum) and value.cksumtype == ChecksumType.GSSAPI:
            tree["checksum"] = self.inside(self._gss_checksum, value.checksum)
        elif isinstance(value, ap.HostAddress):
            tree["address"] = self.inside(_address, value.addr_type, value.address)
        elif isinstance(value, ap.EncryptedData):  # if it is damaged, it may not be encrypted
            tree["cipher"] = self.secret(value.cipher)
        elif isinstance(value, kdc.PaData) and value.padata_value:
            # A KDC can send keys in this field: KERB-KEY-LIST-REP, MS-KILE 2.2.12.
            show = self.secret if place == "encrypted_pa_data" else self.octets
            tree["padata_value"] = self.inside(
                self._padata, show, value.padata_type, value.padata_value
            )
        elif isinstance(value, ap.AuthorizationDataEntry):
            tree["ad_data"] = self.inside(self._authorization_data, value.ad_type, value.ad_data)
        elif isinstance(value, ap.KrbError) and value.e_data:
            tree["e_data"] = self.inside(self._error_data, value.e_data)
        return tree

    # -- messages inside other messages, as bytes

    def inside(self, read: Callable[..., Any], *args: Any) -> Any:
        """Return the result of `read` for bytes inside a message; if it fails, their number."""
        try:
            return read(*args)
        except KerberosError:
            return self.secret(args[-1])

    def octets(self, data: bytes) -> str:
        """Return the text to show for bytes without a structure."""
        return (
            data.hex()
            if len(data) <= MAX_SHOWN
            else f"{data[: MAX_SHOWN // 2].hex()}... ({len(data)} bytes)"
        )

    def secret(self, data: bytes) -> str:
        """Return the text to show for bytes that may be, or hold, a key."""
        return self.octets(data) if self._show_keys else f"<{len(data)} bytes>"

    def ticket(self, data: bytes) -> Any:
        """Return the tree of a Ticket; if it is none, the number of its bytes."""
        return self.inside(lambda data: self.value(ap.Ticket.decode(data)), data)

    def _gss_checksum(self, data: bytes) -> Any:
        checksum = GssChecksum.decode(data)
        bindings = "none" if checksum.bindings == NO_BINDINGS else checksum.bindings.hex()
        tree = {"flags": flag_names(Flag, checksum.flags), "bindings": bindings}
        if checksum.delegation is not None:
            tree["delegation"] = self.value(ap.KrbCred.decode(checksum.delegation))
        return tree

    def _padata(self, show: Callable[[bytes], str], kind: int, data: bytes) -> Any:
        if kind == PaDataType.TGS_REQ:
            return self.value(ap.ApReq.decode(data))
        if kind == PaDataType.ETYPE_INFO2:
            return self.value(kdc.EtypeInfo2.decode(data).entries)
        if kind == PaDataType.PAC_REQUEST:
            return self.value(kdc.PaPacRequest.decode(data))
        if kind == PaDataType.PW_SALT:
            return _salt_or_status(data)
        if kind == PaDataType.ENC_TIMESTAMP:
            encrypted = ap.EncryptedData.decode(data)
            tree = self.value(encrypted)
            part = kdc.PaEncTsEnc
            usages = (KeyUsage.AS_REQ_PA_ENC_TIMESTAMP,)
            self._open(tree, encrypted, usages, part.__name__, self._part(part))
            return tree
        if kind in shapes.PADATA and self._depth < MAX_DEPTH:
            return self._deeper(shapes.PADATA[kind], self, data)
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
        if kind == AuthDataType.WIN2K_PAC:
            return pac.describe(data, self.value, self.secret)
        if self._depth == MAX_DEPTH:
            return self.octets(data)
        if kind in (AuthDataType.IF_RELEVANT, AuthDataType.MANDATORY_FOR_KDC):
            return self._deeper(
                lambda data: self.value(ap.AuthorizationData.decode(data).entries), data
            )
        if kind in shapes.AUTHORIZATION_DATA:
            return self._deeper(shapes.AUTHORIZATION_DATA[kind], self, data)
        return self.octets(data)

    def _deeper(self, read: Callable[..., Any], *args: Any) -> Any:
        self._depth += 1
        try:
            return read(*args)
        finally:
            self._depth -= 1

    def nested(self, data: bytes) -> Any:
        """Return the tree of a token inside another token. It may hold a further token."""
        if self._depth == MAX_DEPTH:
            return self.secret(data)
        return self._deeper(self.inside, self.anything, data)

    def _error_data(self, data: bytes) -> Any:
        """Return the tree of a KRB-ERROR's e-data, whatever its sender puts there."""
        try:
            return self.value(kdc.MethodData.decode(data).entries)
        except DecodeError:
            pass
        try:  # Windows leaves out the list around the element: MS-KILE 2.2.1
            return self.value(kdc.PaData.decode(data))
        except DecodeError:
            pass
        try:
            return self._typed_data(data)
        except DecodeError:
            pass
        try:
            return self.nested(data) if data[:1] == b"\x30" else _printable(data)
        except UnicodeDecodeError:
            return self.octets(data)

    def _typed_data(self, data: bytes) -> list[dict[str, Any]]:
        """Return the tree of TYPED-DATA, which PKINIT puts into errors. Source: RFC 4556 3.1.3."""
        entries = pkinit.TypedData.decode(data).entries
        if not all(entry.data_type in _TYPED_DATA for entry in entries):
            raise DecodeError("the list holds other data than PKINIT's")
        return [
            {
                "data_type": number_name(PaDataType, entry.data_type),
                "data_value": self.inside(
                    shapes.PADATA[entry.data_type], self, entry.data_value or b""
                ),
            }
            for entry in entries
        ]

    # -- encrypted parts

    def encrypted(
        self, data: ap.EncryptedData, usages: Iterable[int], part: shapes.Kind | None, name: str
    ) -> dict[str, Any]:
        """Return the tree of EncryptedData whose plaintext is a `part`, called `name`."""
        tree: dict[str, Any] = self.value(data)

        def make(plaintext: bytes) -> Any:
            return shapes.read(self, part, plaintext) if part else self.secret(plaintext)

        self._open(tree, data, usages, name, make)
        return tree

    def _part(self, part: Any) -> Callable[[bytes], Any]:
        """Return how the plaintext that is a message of the class `part` becomes a tree."""

        def make(plaintext: bytes) -> Any:
            message = part.decode(plaintext)
            self._keys += [
                key
                for key in (getattr(message, "key", None), getattr(message, "subkey", None))
                if key
            ]
            return self.value(message)

        return make

    def _open(
        self,
        tree: dict[str, Any],
        encrypted: ap.EncryptedData,
        usages: Iterable[int],
        name: str,
        make: Callable[[bytes], Any],
    ) -> None:
        """Add the content of `encrypted` to its tree, if a key fits or none is needed."""
        clear = encrypted.etype == _NO_ENCRYPTION
        plaintext = (
            encrypted.cipher if clear else self._decrypt(usages, encrypted.etype, encrypted.cipher)
        )
        if plaintext is None:
            return
        try:
            tree["decrypted"] = {name: make(plaintext)}
        except DecodeError as error:
            tree["decrypted"] = f"<not a valid {name}: {error}>"

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


_UNKNOWN = "this is not a Kerberos message, token, keytab or credential cache: it {}"

#: How each kind of data is recognised, and read; what fits none is a message. The first counts.
_RECOGNISED: tuple[
    tuple[Callable[[bytes], bool], Callable[[Inspector, bytes], dict[str, Any]]], ...
] = (
    (
        lambda data: data[:2] == b"\x05\x04" and data[3:4] == b"\xff",
        Inspector._wrap_token,
    ),
    (lambda data: data[:2] == b"\x04\x04", Inspector._mic_token),
    (lambda data: data[:4] in capture.MAGICS, Inspector._capture),
    (lambda data: data.startswith(ntlm.SIGNATURE), Inspector._ntlm),
    (lambda data: data.startswith(negoex.SIGNATURE), Inspector._negoex),
    (lambda data: data[:1] == b"\x60" and not capture.is_packet(data), Inspector._framed_token),
    (capture.is_packet, Inspector._packet),
    (
        lambda data: data[:2] in shapes.TGT_TOKENS and data[2:3] == b"\x30",
        Inspector._bare_mechanism_token,
    ),
    (lambda data: data[:1] == b"\x05", Inspector._file),
    (cldap.is_answer, Inspector._netlogon),
    (capture.is_framed, Inspector._with_length),
    (
        lambda data: (
            int.from_bytes(data[:2], "big") == len(data) > 6
            and int.from_bytes(data[2:4], "big") in _KPASSWD_VERSIONS
        ),
        Inspector._kpasswd,
    ),
)


def _mechanism(data: bytes) -> bytes:
    """Return the contents of the OID of a framed token. Raises DecodeError."""
    _, start, end = read_header(data, 0, len(data))
    tag, oid_start, oid_end = read_header(data, start, end)
    if tag != 0x06:
        raise DecodeError("the GSS-API token names no mechanism")
    return data[oid_start:oid_end]


def _address(kind: int, data: bytes) -> str:
    """Return the text of a host address. Raises DecodeError. Source: RFC 4120 7.5.3."""
    sizes = {AddressType.IPV4: 4, AddressType.IPV6: 16}
    if kind in sizes:
        if len(data) != sizes[AddressType(kind)]:
            raise DecodeError("an address has a wrong length")
        return str(ip_address(data))
    if kind == AddressType.NETBIOS:
        return data.decode("latin-1").rstrip(" \0")
    if kind == AddressType.DIRECTIONAL:
        return {0: "of the initiator", 1: "of the acceptor"}.get(
            int.from_bytes(data, "big"), data.hex()
        )
    return data[:MAX_SHOWN].hex()


def _salt_or_status(data: bytes) -> Any:
    """Return the tree of padata type 3: a salt, or in a KRB-ERROR of a domain an NTSTATUS."""
    if len(data) == _EXTENDED_ERROR_SIZE and int.from_bytes(data[8:], "little") & 1:
        status = int.from_bytes(data[:4], "little")
        known = LOGON_STATUS.get(status)
        return {"NTSTATUS": f"0x{status:08X}" + (f" ({known[0]})" if known else "")}
    return data.decode(errors="backslashreplace")


def _printable(data: bytes) -> str:
    """Return the text in e-data that is none of the standard's forms. Raises UnicodeDecodeError."""
    return data[:1024].rstrip(b"\0").decode()


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


class _ContextFlags(IntFlag):
    """ContextFlags of SPNEGO; bit 0 is the highest. Source: RFC 4178 4.2.1."""

    DELEG = 1 << 31
    MUTUAL = 1 << 30
    REPLAY = 1 << 29
    SEQUENCE = 1 << 28
    ANON = 1 << 27
    CONF = 1 << 26
    INTEG = 1 << 25


#: Functions by the names of fields: each returns the form in which the value is shown.
_FORMATS: dict[str, Callable[[int], Any]] = {
    "etype": etype_name,
    "flags": lambda value: asn1_flags(TicketFlags, value),
    "ap_options": lambda value: asn1_flags(ApOptions, value),
    "kdc_options": lambda value: asn1_flags(KdcOptions, value),
    "fast_options": lambda value: asn1_flags(FastOptions, value),
    "req_flags": lambda value: asn1_flags(_ContextFlags, value),
    "msg_type": lambda value: number_name(MessageType, value),
    "neg_state": lambda value: number_name(NegState, value),
    "error_code": lambda value: number_name(ErrorCode, value),
    "padata_type": lambda value: number_name(PaDataType, value),
    "ad_type": lambda value: number_name(AuthDataType, value),
    "addr_type": lambda value: number_name(AddressType, value),
    "cksumtype": lambda value: number_name(ChecksumType, value),
}


def lines(tree: dict[str, Any] | list[Any], depth: int = 0) -> Iterator[str]:
    """Yield the lines of a tree, indented by two columns for each level."""
    indent = "  " * depth
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
            value = ", ".join(map(str, value)) or "-"
        if isinstance(value, dict | list):
            yield f"{indent}{name}"
            yield from lines(value, depth + 1)
        else:
            yield f"{indent}{name}: {value}"
