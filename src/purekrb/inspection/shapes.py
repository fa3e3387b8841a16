"""ASN.1 types that inspection reads and nothing else needs as records, as data.

A type here is a `Kind`: its tag, and a function that turns contents into a tree. `Fields` and
`Choice` are tables of field names. What holds a key or a one-time password is marked `SECRET`.
Source: RFC 4120, RFC 4556, RFC 6113, RFC 6560, RFC 7751, RFC 8070, RFC 9588, MS-SFU, MS-KILE,
MS-KKDCP, draft-ietf-kitten-iakerb, draft-swift-win2k-krb-user2user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purekrb.constants import KeyUsage, NameType, asn1_flags, number_name
from purekrb.errors import DecodeError
from purekrb.keys import etype_name
from purekrb.messages import ap, cms, fast, kdc
from purekrb.messages.der import (
    Boolean,
    GeneralString,
    Integer,
    KerberosFlags,
    KerberosTime,
    read_header,
    tlv,
)
from purekrb.oids import oid_name, oid_text

if TYPE_CHECKING:
    from purekrb.inspection.describe import Inspector

__all__ = [
    "Kind",
    "read",
    "named",
    "may_be",
    "APPLICATIONS",
    "CONTEXTS",
    "SEQUENCES",
    "PADATA",
    "AUTHORIZATION_DATA",
    "TGT_TOKENS",
    "IAKERB_HEADERS",
    "supported_etypes",
]

#: The most elements of a list.
MAX_ITEMS = 256


@dataclass(frozen=True)
class Kind:
    """A type: its tag, and how its contents become a tree. `name` is the ASN.1's."""

    tag: int
    tree: Callable[[Inspector, bytes], Any]
    name: str = ""


def read(inspector: Inspector, kind: Kind, data: bytes) -> Any:
    """Return the tree of one element of `kind`, which is all of `data`. Raises DecodeError."""
    tag, start, end = read_header(data, 0, len(data))
    if tag != kind.tag:
        raise DecodeError(
            f"this is not a {kind.name or 'value of this type'}: tag 0x{tag:02x} instead of "
            f"0x{kind.tag:02x}"
        )
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes follow the end of the {kind.name}")
    return kind.tree(inspector, data[start:end])


def named(inspector: Inspector, kinds: Iterable[Kind], data: bytes) -> dict[str, Any]:
    """Return {name: tree} of the first of `kinds` that `data` fit. Raises DecodeError."""
    for kind in kinds:
        if data[:1] == bytes((kind.tag,)):
            try:
                return {kind.name: read(inspector, kind, data)}
            except DecodeError:
                continue
    raise DecodeError(
        "this is ASN.1, but neither a Kerberos message nor a part of one that purekrb knows"
    )


def may_be(kinds: Iterable[Kind], data: bytes) -> bool:
    """Whether `data` begin with the tag of one of `kinds`."""
    return any(data[:1] == bytes((kind.tag,)) for kind in kinds)


# -- plain values ----------------------------------------------------------------------------------

_BIG = Integer(-(1 << 71), 1 << 71)
_INT = Kind(0x02, lambda _, data: _BIG.decode(data))
_BOOL = Kind(0x01, lambda _, data: Boolean().decode(data))
_TIME = Kind(0x18, lambda _, data: KerberosTime().decode(data))
_TEXT = Kind(0x1B, lambda _, data: GeneralString().decode(data))
_UTF8 = Kind(0x0C, lambda _, data: GeneralString().decode(data))
_OID = Kind(0x06, lambda _, data: oid_text(data))
_OCTETS = Kind(0x04, lambda inspector, data: inspector.octets(data))
_TEXT_OCTETS = Kind(0x04, lambda _, data: data.decode(errors="backslashreplace"))
#: What must not be shown: keys, one-time passwords, cleartext.
SECRET = Kind(0x04, lambda inspector, data: inspector.secret(data))
_ETYPE = Kind(0x02, lambda _, data: etype_name(_BIG.decode(data)))
_FLAGS = Kind(0x03, lambda _, data: [f"bit {n}" for n in _bits(KerberosFlags().decode(data))])
_BITS = Kind(0x03, lambda inspector, data: inspector.octets(data[1:]))


def _bits(value: int) -> list[int]:
    return [n for n in range(32) if value & 1 << 31 - n]


def _named_flags(*names: str) -> Kind:
    """Return KerberosFlags whose first bits have these names; "" is none."""

    def tree(_: Inspector, data: bytes) -> list[str]:
        known = dict(enumerate(names))
        return [known.get(n) or f"bit {n}" for n in _bits(KerberosFlags().decode(data))]

    return Kind(0x03, tree)


def _flags_of(enum: Any) -> Kind:
    return Kind(0x03, lambda _, data: asn1_flags(enum, KerberosFlags().decode(data)))


def _record(message: Any, tag: int = 0x30, name: str = "") -> Kind:
    """Return the kind of a message that has a record; `name` is the ASN.1's, if it is another."""
    return Kind(
        tag,
        lambda inspector, data: inspector.value(message.decode(tlv(tag, data))),
        name or message.__name__,
    )


def _in_octets(name: str) -> Kind:
    """Return an OCTET STRING that holds a message which the inspector recognises."""
    return Kind(0x04, lambda inspector, data: inspector.nested(data), name)


def _holding(kind: Kind) -> Kind:
    """Return an OCTET STRING that holds an element of `kind`."""
    return Kind(0x04, lambda inspector, data: inspector.inside(read, inspector, kind, data))


# -- compound types --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A field of a SEQUENCE, or an alternative of a CHOICE: its name, its type, and how it is tagged."""

    name: str
    kind: Kind
    optional: bool = False
    implicit: bool = False

    @property
    def constructed(self) -> bool:
        """Whether the field's own tag says that it holds elements."""
        return not self.implicit or bool(self.kind.tag & 0x20)

    def tag(self, number: int) -> int:
        """Return the tag of the field as number `number`."""
        return 0x80 | (0x20 if self.constructed else 0) | number

    def tree(self, inspector: Inspector, contents: bytes) -> Any:
        """Return the tree of the field's contents."""
        if self.implicit:
            return self.kind.tree(inspector, contents)
        return read(inspector, self.kind, contents)


def _must(name: str, kind: Kind) -> Field:
    return Field(name, kind)


def _may(name: str, kind: Kind) -> Field:
    return Field(name, kind, optional=True)


def _implicit(name: str, kind: Kind, optional: bool = False) -> Field:
    return Field(name, kind, optional, implicit=True)


def _fields(name: str, fields: Mapping[int, Field], *leading: Field) -> Kind:
    """Return a SEQUENCE of tagged `fields`, after `leading` fields without tags.

    Fields with numbers beyond the table are left out: many of these types may be extended.
    """

    def tree(inspector: Inspector, data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {}
        at, last = 0, -1
        for field in leading:
            _, _, end = read_header(data, at, len(data))
            found[field.name] = read(inspector, field.kind, data[at:end])
            at = end
        seen = set()
        while at < len(data):
            tag, start, at = read_header(data, at, len(data))
            number = tag & 0x1F
            if tag & 0xC0 != 0x80 or number <= last:
                raise DecodeError(f"a field of the {name} is unknown, repeated or out of order")
            last = number
            field_ = fields.get(number)
            if field_ is None:
                if number < max(fields, default=-1):
                    raise DecodeError(f"the {name} has an unknown field {number}")
                continue
            if tag != field_.tag(number):
                raise DecodeError(f"field {field_.name} of the {name} has another type")
            seen.add(number)
            found[field_.name] = field_.tree(inspector, data[start:at])
        missing = [f.name for n, f in fields.items() if not f.optional and n not in seen]
        if missing:
            raise DecodeError(f"the {name} has no {missing[0]}")
        return found

    return Kind(0x30, tree, name)


def _list(kind: Kind, name: str = "") -> Kind:
    """Return a SEQUENCE OF `kind`."""

    def tree(inspector: Inspector, data: bytes) -> list[Any]:
        found: list[Any] = []
        at = 0
        while at < len(data):
            start = at
            _, _, at = read_header(data, at, len(data))
            if len(found) == MAX_ITEMS:
                raise DecodeError(f"a list has more than {MAX_ITEMS} elements")
            found.append(read(inspector, kind, data[start:at]))
        return found

    return Kind(0x30, tree, name)


def _choice(name: str, number: int, field: Field) -> Kind:
    """Return the alternative `number` of a CHOICE."""
    return Kind(
        field.tag(number), lambda inspector, data: {field.name: field.tree(inspector, data)}, name
    )


def _encrypted(name: str, part: Kind | None, *usages: int) -> Kind:
    """Return EncryptedData whose plaintext is of the kind `part`, if a key opens it."""

    def tree(inspector: Inspector, data: bytes) -> dict[str, Any]:
        return inspector.encrypted(ap.EncryptedData.decode(tlv(0x30, data)), usages, part, name)

    return Kind(0x30, tree, "EncryptedData")


# -- RFC 4120 --------------------------------------------------------------------------------------

_CHECKSUM = _record(ap.Checksum)
_ADDRESS = _record(ap.HostAddress)
_KEY = _fields("EncryptionKey", {0: _must("etype", _ETYPE), 1: _must("contents", SECRET)})
_NAME = Kind(
    0x30,
    lambda inspector, data: _name(inspector, data),
    "PrincipalName",
)
_NAME_FIELDS = _fields(
    "PrincipalName", {0: _must("name_type", _INT), 1: _must("components", _list(_TEXT))}
)


def _name(inspector: Inspector, data: bytes) -> str:
    fields = _NAME_FIELDS.tree(inspector, data)
    return f"{'/'.join(fields['components'])} ({number_name(NameType, fields['name_type'])})"


_TICKET = Kind(0x61, lambda inspector, data: inspector.ticket(tlv(0x61, data)), "Ticket")
_AUTHORIZATION_DATA = Kind(
    0x30,
    lambda inspector, data: inspector.value(
        ap.AuthorizationData.decode(tlv(0x30, data)).entries, "authorization_data"
    ),
    "AuthorizationData",
)
_METHOD_DATA = Kind(
    0x30,
    lambda inspector, data: inspector.value(kdc.MethodData.decode(tlv(0x30, data)).entries),
    "METHOD-DATA",
)
_BODY = Kind(
    0x30,
    lambda inspector, data: inspector.value(kdc.KdcReqBody.schema.decode(data)),  # type: ignore[union-attr]
    "KDC-REQ-BODY",
)
_SAFE_FIELDS = {
    0: _must("user_data", _OCTETS),
    1: _may("timestamp", _TIME),
    2: _may("usec", _INT),
    3: _may("seq_number", _INT),
    4: _must("s_address", _ADDRESS),
    5: _may("r_address", _ADDRESS),
}
_PRIV_PART = _fields("EncKrbPrivPart", {**_SAFE_FIELDS, 0: _must("user_data", SECRET)})
_ENC_PRIV_PART = Kind(
    0x7C, lambda inspector, data: read(inspector, _PRIV_PART, data), "EncKrbPrivPart"
)
_PA_ENC_TS = _record(kdc.PaEncTsEnc)


def _application(number: int, name: str, kind: Kind) -> Kind:
    return Kind(0x60 | number, lambda inspector, data: read(inspector, kind, data), name)


_KRB_SAFE = _application(
    20,
    "KRB-SAFE",
    _fields(
        "KRB-SAFE",
        {
            0: _must("pvno", _INT),
            1: _must("msg_type", _INT),
            2: _must("safe_body", _fields("KRB-SAFE-BODY", _SAFE_FIELDS)),
            3: _must("cksum", _CHECKSUM),
        },
    ),
)
_KRB_PRIV = _application(
    21,
    "KRB-PRIV",
    _fields(
        "KRB-PRIV",
        {
            0: _must("pvno", _INT),
            1: _must("msg_type", _INT),
            3: _must(
                "enc_part", _encrypted("EncKrbPrivPart", _ENC_PRIV_PART, KeyUsage.KRB_PRIV_ENC_PART)
            ),
        },
    ),
)
_ETYPE_INFO = _list(
    _fields("ETYPE-INFO-ENTRY", {0: _must("etype", _ETYPE), 1: _may("salt", _TEXT_OCTETS)}),
    "ETYPE-INFO",
)
_ETYPE_INFO2 = _record(kdc.EtypeInfo2)
_KDC_ISSUED = _fields(
    "AD-KDCIssued",
    {
        0: _must("ad_checksum", _CHECKSUM),
        1: _may("i_realm", _TEXT),
        2: _may("i_sname", _NAME),
        3: _must("elements", _AUTHORIZATION_DATA),
    },
)
_AND_OR = _fields(
    "AD-AND-OR", {0: _must("condition_count", _INT), 1: _must("elements", _AUTHORIZATION_DATA)}
)
_VERIFIER = _fields(
    "Verifier-MAC",
    {
        0: _may("identifier", _NAME),
        1: _may("kvno", _INT),
        2: _may("enctype", _ETYPE),
        3: _must("mac", _CHECKSUM),
    },
)
_CAMMAC = _fields(
    "AD-CAMMAC",
    {
        0: _must("elements", _AUTHORIZATION_DATA),
        1: _may("kdc_verifier", _VERIFIER),
        2: _may("svc_verifier", _VERIFIER),
        3: _may("other_verifiers", _list(_VERIFIER)),
    },
)
_RESTRICTIONS = _list(
    _fields(
        "KERB-AD-RESTRICTION-ENTRY",
        {0: _must("restriction_type", _INT), 1: _must("restriction", _OCTETS)},
    ),
    "KERB-AD-RESTRICTION-ENTRY",
)

# -- FAST, RFC 6113; encrypted challenge -----------------------------------------------------------

_FAST_REQ = _record(fast.FastReq, name="KrbFastReq")
_FINISHED = _record(fast.FastFinished, name="KrbFastFinished")
_FAST_RESPONSE = _record(fast.FastResponse, name="KrbFastResponse")
_FX_FAST_REQUEST = _record(fast.FxFastRequest, 0xA0, "PA-FX-FAST-REQUEST")
_FX_FAST_REPLY = _record(fast.FxFastReply, 0xA0, "PA-FX-FAST-REPLY")

# -- SPAKE, RFC 9588 -------------------------------------------------------------------------------

_SPAKE_GROUPS = {1: "edwards25519", 2: "P-256", 3: "P-384", 4: "P-521"}
_GROUP = Kind(0x02, lambda _, data: _SPAKE_GROUPS.get(n := _BIG.decode(data), f"group {n}"))
_FACTOR = _fields("SPAKESecondFactor", {0: _must("type", _INT), 1: _may("data", _OCTETS)})
_SPAKE = (
    _choice(
        "SPAKE",
        0,
        _must("support", _fields("SPAKESupport", {0: _must("groups", _list(_GROUP))})),
    ),
    _choice(
        "SPAKE",
        1,
        _must(
            "challenge",
            _fields(
                "SPAKEChallenge",
                {
                    0: _must("group", _GROUP),
                    1: _must("pubkey", _OCTETS),
                    2: _must("factors", _list(_FACTOR)),
                },
            ),
        ),
    ),
    _choice(
        "SPAKE",
        2,
        _must(
            "response",
            _fields(
                "SPAKEResponse",
                {
                    0: _must("pubkey", _OCTETS),
                    1: _must("factor", _encrypted("SPAKESecondFactor", _FACTOR, KeyUsage.SPAKE)),
                },
            ),
        ),
    ),
    _choice("SPAKE", 3, _must("encdata", _encrypted("SPAKEData", None, KeyUsage.SPAKE))),
)

# -- OTP, RFC 6560: implicit tags ------------------------------------------------------------------


def _algorithm(inspector: Inspector, data: bytes) -> str:
    """Return the name of an algorithm, and the group if its parameters name one."""
    _, start, end = read_header(data, 0, len(data))
    name = str(_OID.tree(inspector, data[start:end]))
    if end == len(data):
        return name
    tag, start, stop = read_header(data, end, len(data))
    if tag == _OID.tag:
        return f"{name}, {oid_name(data[start:stop])}"
    if tag == 0x30 and data[start:stop]:  # of Diffie-Hellman: the prime comes first
        kind, start, stop = read_header(data, start, stop)
        if kind == _INT.tag:
            return f"{name}, {int.from_bytes(data[start:stop], 'big').bit_length()} bits"
    return name


_ALGORITHM = Kind(0x30, _algorithm, "AlgorithmIdentifier")
_OTP_FLAGS = _named_flags(
    "", "nextOTP", "combine", "collect-pin", "do-not-collect-pin", "must-encrypt-nonce",
    "separate-pin-required", "check-digit",
)  # fmt: skip
_TOKEN_INFO = _fields(
    "OTP-TOKENINFO",
    {
        0: _implicit("flags", _OTP_FLAGS),
        1: _implicit("otp_vendor", _UTF8, True),
        2: _implicit("otp_challenge", _OCTETS, True),
        3: _implicit("otp_length", _INT, True),
        4: _implicit("otp_format", _INT, True),
        5: _implicit("otp_tokenID", _TEXT_OCTETS, True),
        6: _implicit("otp_algID", _UTF8, True),
        7: _implicit("supportedHashAlg", _list(_ALGORITHM), True),
        8: _implicit("iterationCount", _INT, True),
    },
)  # fmt: skip
_OTP_CHALLENGE = _fields(
    "PA-OTP-CHALLENGE",
    {
        0: _implicit("nonce", _OCTETS),
        1: _implicit("otp_service", _UTF8, True),
        2: _implicit("otp_tokenInfo", _list(_TOKEN_INFO)),
        3: _implicit("salt", _TEXT, True),
        4: _implicit("s2kparams", _OCTETS, True),
    },
)
_OTP_ENC_REQUEST = _fields("PA-OTP-ENC-REQUEST", {0: _implicit("nonce", _OCTETS)})
_OTP_REQUEST = _fields(
    "PA-OTP-REQUEST",
    {
        0: _implicit("flags", _FLAGS),
        1: _implicit("nonce", _OCTETS, True),
        2: _implicit(
            "encData", _encrypted("PA-OTP-ENC-REQUEST", _OTP_ENC_REQUEST, KeyUsage.PA_OTP_REQUEST)
        ),
        3: _implicit("hashAlg", _ALGORITHM, True),
        4: _implicit("iterationCount", _INT, True),
        5: _implicit("otp_value", SECRET, True),
        6: _implicit("otp_pin", Kind(0x0C, SECRET.tree), True),
        7: _implicit("otp_challenge", _OCTETS, True),
        8: _implicit("otp_time", _TIME, True),
        9: _implicit("otp_counter", _OCTETS, True),
        10: _implicit("otp_format", _INT, True),
        11: _implicit("otp_tokenID", _TEXT_OCTETS, True),
        12: _implicit("otp_algID", _UTF8, True),
        13: _implicit("otp_vendor", _UTF8, True),
    },
)

# -- PKINIT, RFC 4556, RFC 8070, RFC 8636 ----------------------------------------------------------

_KDF = _fields("KDFAlgorithmId", {0: _must("kdf_id", _OID)})


def _signed(inspector: Inspector, data: bytes) -> Any:
    """Return the tree of a ContentInfo of SignedData."""
    return inspector.inside(read, inspector, _CONTENT_INFO, data)


_SIGNED = Kind(0x04, _signed, "ContentInfo")


def _signed_content(inspector: Inspector, data: bytes) -> Any:
    return named(inspector, (_AUTH_PACK, _KDC_DH_KEY_INFO, _REPLY_KEY_PACK), data)


_CMS_CONTENT = Kind(
    0x04, lambda inspector, data: inspector.inside(_signed_content, inspector, data), "eContent"
)


def _signed_data(inspector: Inspector, data: bytes) -> dict[str, Any]:
    signed: cms.SignedData = cms.SignedData.schema.decode(data)  # type: ignore[union-attr]
    found = signed.encap_content_info
    tree: dict[str, Any] = {
        "digest_algorithms": [oid_text(each.algorithm) for each in signed.digest_algorithms],
        "content_type": oid_text(found.content_type),
    }
    if found.content is not None:
        tree["content"] = _CMS_CONTENT.tree(inspector, found.content)
    if signed.certificates is not None:
        tree["certificates"] = [_certificate(each) for each in signed.certificates]
    tree["signers"] = [
        {
            "digest_algorithm": oid_text(signer.digest_algorithm.algorithm),
            "signature_algorithm": oid_text(signer.signature_algorithm.algorithm),
            "signature": inspector.octets(signer.signature),
        }
        for signer in signed.signer_infos
    ]
    return tree


def _certificate(data: bytes) -> str:
    """Return subject, issuer and end of a certificate, or its size if it cannot be read."""
    from purekrb.credentials import x509
    from purekrb.errors import CertificateError

    try:
        found = x509.load_certificate(data)
        issuer = x509.name_text(found.issuer)
        return f"{x509.described(found)}, by {issuer}, until {x509.utc(found.not_valid_after_utc)}"
    except (CertificateError, ValueError):
        return f"<{len(data)} bytes>"


_SIGNED_DATA = Kind(0x30, _signed_data, "SignedData")
_CONTENT_INFO = _fields(
    "ContentInfo", {0: _must("content", _SIGNED_DATA)}, _must("content_type", _OID)
)
_PUBLIC_KEY = _fields(
    "SubjectPublicKeyInfo", {}, _must("algorithm", _ALGORITHM), _must("subject_public_key", _BITS)
)
_CHECKSUM2 = _fields(
    "PAChecksum2", {0: _must("checksum", _OCTETS), 1: _must("algorithm_identifier", _ALGORITHM)}
)
_PK_AUTHENTICATOR = _fields(
    "PKAuthenticator",
    {
        0: _must("cusec", _INT),
        1: _must("ctime", _TIME),
        2: _must("nonce", _INT),
        3: _may("pa_checksum", _OCTETS),
        4: _may("freshness_token", _OCTETS),
        5: _may("pa_checksum2", _CHECKSUM2),
    },
)
_AUTH_PACK = _fields(
    "AuthPack",
    {
        0: _must("pk_authenticator", _PK_AUTHENTICATOR),
        1: _may("client_public_value", _PUBLIC_KEY),
        2: _may("supported_cms_types", _list(_ALGORITHM)),
        3: _may("client_dh_nonce", _OCTETS),
        4: _may("supported_kdfs", _list(_KDF)),
    },
)
_KDC_DH_KEY_INFO = _fields(
    "KDCDHKeyInfo",
    {
        0: _must("subject_public_key", _BITS),
        1: _must("nonce", _INT),
        2: _may("dh_key_expiration", _TIME),
    },
)
_REPLY_KEY_PACK = _fields(
    "ReplyKeyPack", {0: _must("reply_key", _KEY), 1: _must("as_checksum", _CHECKSUM)}
)
_CERTIFIER = _fields(
    "ExternalPrincipalIdentifier",
    {
        0: _implicit("subject_name", _OCTETS, True),
        1: _implicit("issuer_and_serial_number", _OCTETS, True),
        2: _implicit("subject_key_identifier", _OCTETS, True),
    },
)
_PA_PK_AS_REQ = _fields(
    "PA-PK-AS-REQ",
    {
        0: _implicit("signed_auth_pack", _SIGNED),
        1: _may("trusted_certifiers", _list(_CERTIFIER)),
        2: _implicit("kdc_pk_id", _OCTETS, True),
    },
)
_DH_INFO = _fields(
    "DHRepInfo",
    {
        0: _implicit("dh_signed_data", _SIGNED),
        1: _may("server_dh_nonce", _OCTETS),
        2: _may("kdf", _KDF),
    },
)
_PA_PK_AS_REP = (
    _choice("PA-PK-AS-REP", 0, _must("dh_info", _DH_INFO)),
    _choice("PA-PK-AS-REP", 1, _implicit("enc_key_pack", _OCTETS)),
)

# -- S4U, MS-SFU; Microsoft's padata ---------------------------------------------------------------

_FOR_USER = _fields(
    "PA-FOR-USER",
    {
        0: _must("user_name", _NAME),
        1: _must("user_realm", _TEXT),
        2: _must("cksum", _CHECKSUM),
        3: _must("auth_package", _TEXT),
    },
)
_X509_USER = _fields(
    "PA-S4U-X509-USER",
    {
        0: _must(
            "user_id",
            _fields(
                "S4UUserID",
                {
                    0: _must("nonce", _INT),
                    1: _may("cname", _NAME),
                    2: _must("crealm", _TEXT),
                    3: _may("subject_certificate", _OCTETS),
                    4: _may("options", _FLAGS),
                },
            ),
        ),
        1: _must("checksum", _CHECKSUM),
    },
)
_PAC_OPTIONS = _fields(
    "PA-PAC-OPTIONS",
    {
        0: _must(
            "flags",
            _named_flags(
                "claims", "branch-aware", "forward-to-full-dc",
                "resource-based-constrained-delegation",
            ),
        )
    },
)  # fmt: skip
_KEY_LIST = _list(_ETYPE, "KERB-KEY-LIST-REQ")
#: MS-KILE 2.2.7: the bits of msDS-SupportedEncryptionTypes.
_SUPPORTED = {
    0x01: "des-cbc-crc", 0x02: "des-cbc-md5", 0x04: "rc4-hmac", 0x08: "aes128-cts-hmac-sha1-96",
    0x10: "aes256-cts-hmac-sha1-96", 0x20: "aes256-cts-hmac-sha1-96-sk",
    0x40: "aes128-cts-hmac-sha256-128", 0x80: "aes256-cts-hmac-sha384-192", 0x10000: "FAST",
    0x20000: "compound-identity", 0x40000: "claims", 0x80000: "no-resource-sid-compression",
}  # fmt: skip


def supported_etypes(value: int) -> list[str]:
    """Return the names of the bits of msDS-SupportedEncryptionTypes. Source: MS-KILE 2.2.7."""
    unknown = value & ~sum(_SUPPORTED)
    names = [name for bit, name in _SUPPORTED.items() if value & bit]
    return names + ([f"0x{unknown:x}"] if unknown else [])


_ERROR_DATA = _fields(
    "KERB-ERROR-DATA", {1: _must("data_type", _INT), 2: _may("data_value", _OCTETS)}
)

# -- the proxies: MS-KKDCP, IAKERB; user-to-user ---------------------------------------------------

_PROXY_MESSAGE = _fields(
    "KDC-PROXY-MESSAGE",
    {
        0: _must("kerb_message", _in_octets("message")),
        1: _may("target_domain", _TEXT),
        2: _may("dclocator_hint", _INT),
    },
)


def _realm(tag: int) -> Kind:
    return Kind(tag, lambda _, data: data.decode(errors="backslashreplace"))


#: draft-ietf-kitten-iakerb has a UTF8String as target-realm; MIT writes an OCTET STRING.
IAKERB_HEADERS = tuple(
    _fields("IAKERB-HEADER", {1: _must("target_realm", _realm(tag)), 2: _may("cookie", _OCTETS)})
    for tag in (0x04, 0x0C)
)
_IAKERB_FINISHED = _fields("IAKERB-FINISHED", {1: _must("gss_mic", _CHECKSUM)})
_TGT_REQ = _fields(
    "KERB-TGT-REQUEST",
    {
        0: _must("pvno", _INT),
        1: _must("msg_type", _INT),
        2: _may("server_name", _NAME),
        3: _may("realm", _TEXT),
    },
)
_TGT_REP = _fields(
    "KERB-TGT-REPLY",
    {0: _must("pvno", _INT), 1: _must("msg_type", _INT), 2: _must("ticket", _TICKET)},
)
#: The tokens of user-to-user by their token ids.
TGT_TOKENS = {b"\x04\x00": _TGT_REQ, b"\x04\x01": _TGT_REP}

# -- pairs of a number and bytes that several types share ------------------------------------------


def _pair(inspector: Inspector, data: bytes) -> dict[str, Any]:
    return _PAIR.tree(inspector, data)  # type: ignore[no-any-return]


_PAIR = _fields("pair", {0: _must("type", _INT), 1: _must("value", SECRET)})
_ANY_PAIR = Kind(0x30, _pair, "EncryptionKey, Checksum or HostAddress")
#: A list of keys has this form, too.
_TYPED_DATA = _list(
    _fields("TYPED-DATA", {0: _must("type", _INT), 1: _may("value", SECRET)}),
    "AuthorizationData, TYPED-DATA, ETYPE-INFO or EncryptionKeys",
)
_EMPTY = Kind(0x30, lambda _, data: _nothing(data), "empty list")


def _nothing(data: bytes) -> list[Any]:
    if data:
        raise DecodeError("the list is not empty")
    return []


# -- tables ----------------------------------------------------------------------------------------

#: Messages with an APPLICATION tag that have no record.
APPLICATIONS: dict[int, Kind] = {kind.tag: kind for kind in (_KRB_SAFE, _KRB_PRIV, _ENC_PRIV_PART)}
#: Elements with a context tag, in the order in which they are tried.
CONTEXTS: tuple[Kind, ...] = (
    _FX_FAST_REQUEST,
    _FX_FAST_REPLY,
    *_PA_PK_AS_REP,
    *_SPAKE,
)
#: SEQUENCEs without a name of their own, in the order in which they are tried. The narrow ones are
#: first: what fits two is what the earlier says.
SEQUENCES: tuple[Kind, ...] = (
    _EMPTY,
    _BODY,
    _PROXY_MESSAGE,
    _record(ap.EncryptedData),
    _PA_ENC_TS,
    _METHOD_DATA,
    _AUTH_PACK,
    _TOKEN_INFO,
    _PA_PK_AS_REQ,
    _KDC_DH_KEY_INFO,
    _REPLY_KEY_PACK,
    _CONTENT_INFO,
    _FAST_REQ,
    _FAST_RESPONSE,
    _FINISHED,
    _FOR_USER,
    _X509_USER,
    _KDC_ISSUED,
    _CAMMAC,
    _TGT_REP,
    _TGT_REQ,
    *IAKERB_HEADERS,
    _IAKERB_FINISHED,
    _ERROR_DATA,
    _OTP_CHALLENGE,
    _OTP_REQUEST,
    _OTP_ENC_REQUEST,
    _ETYPE_INFO2,
    _PAC_OPTIONS,
    _record(kdc.PaPacRequest),
    _TYPED_DATA,
    _ETYPE_INFO,
    _ANY_PAIR,
    _FACTOR,
    _NAME,
    _KDF,
)


def _alternatives(kinds: Iterable[Kind]) -> Callable[[Inspector, bytes], Any]:
    found = tuple(kinds)
    return lambda inspector, data: next(iter(named(inspector, found, data).values()))


def _one(kind: Kind) -> Callable[[Inspector, bytes], Any]:
    return lambda inspector, data: read(inspector, kind, data)


def _etype_mask(_: Inspector, data: bytes) -> list[str]:
    if len(data) != 4:
        raise DecodeError("PA-SUPPORTED-ENCTYPES has 4 bytes")
    return supported_etypes(int.from_bytes(data, "little"))


#: How the values of padata are read, by type; those that have a record are in `describe`.
PADATA: dict[int, Callable[[Inspector, bytes], Any]] = {
    11: _one(_ETYPE_INFO),
    16: _one(_PA_PK_AS_REQ),
    17: _alternatives(_PA_PK_AS_REP),
    104: _one(_list(_CERTIFIER)),
    105: _one(_list(_CERTIFIER)),
    109: _one(_list(_ALGORITHM)),
    111: _one(_list(_ALGORITHM)),
    112: _one(_list(_ALGORITHM)),
    129: _one(_FOR_USER),
    130: _one(_X509_USER),
    136: _alternatives((_FX_FAST_REQUEST, _FX_FAST_REPLY)),
    137: lambda inspector, data: inspector.nested(data),
    138: _one(
        _encrypted(
            "PA-ENC-TS-ENC", _PA_ENC_TS, KeyUsage.ENC_CHALLENGE_CLIENT, KeyUsage.ENC_CHALLENGE_KDC
        )
    ),
    141: _one(_OTP_CHALLENGE),
    142: _one(_OTP_REQUEST),
    147: _one(_encrypted("EncryptionKey", _KEY, KeyUsage.PA_PKINIT_KX)),
    149: _one(_CHECKSUM),
    151: _alternatives(_SPAKE),
    161: _one(_KEY_LIST),
    162: _one(_list(_KEY)),
    165: _etype_mask,
    167: _one(_PAC_OPTIONS),
    170: _one(
        _fields("KERB-SUPERSEDED-BY-USER", {0: _must("name", _NAME), 1: _must("realm", _TEXT)})
    ),
}
#: The same for authorization data.
AUTHORIZATION_DATA: dict[int, Callable[[Inspector, bytes], Any]] = {
    4: _one(_KDC_ISSUED),
    5: _one(_AND_OR),
    96: _one(_CAMMAC),
    97: _one(_list(_UTF8)),
    141: _one(_RESTRICTIONS),
}
