"""Object identifiers: from the contents of their DER to dotted text and names."""

from __future__ import annotations

from purekrb.errors import DecodeError

__all__ = ["OID_NAMES", "contents_of", "dotted", "oid_text", "oid_name"]

#: The names of the OIDs that Kerberos, its mechanisms and PKINIT use. Source: RFC 4121 4.1,
#: RFC 4178 4, RFC 4556 3.1, RFC 5280, RFC 5652, RFC 8636 9, MS-SPNG 1.9, MS-PKCA.
OID_NAMES: dict[str, str] = {
    # mechanisms of GSS-API
    "1.2.840.113554.1.2.2": "Kerberos V5",
    "1.2.840.48018.1.2.2": "Microsoft's Kerberos V5",
    "1.2.840.113554.1.2.2.3": "Kerberos user-to-user",
    "1.3.6.1.5.2": "Kerberos V5 (draft)",
    "1.3.5.1.5.2": "Kerberos V5 (old)",
    "1.3.6.1.5.2.5": "IAKERB",
    "1.3.6.1.5.2.7": "PKU2U",
    "1.3.6.1.5.5.2": "SPNEGO (Negotiate)",
    "1.3.6.1.4.1.311.2.2.10": "NTLM",
    "1.3.6.1.4.1.311.2.2.30": "NegoEx",
    "1.3.6.1.5.5.14": "SCRAM-SHA-1",
    "1.3.6.1.5.5.15.1.1.17": "EAP-AES128",
    "1.3.6.1.5.5.15.1.1.18": "EAP-AES256",
    "1.3.6.1.5.5.1.1": "SPKM-1",
    # PKINIT
    "1.3.6.1.5.2.2": "id-pkinit-san",
    "1.3.6.1.5.2.3.1": "id-pkinit-authData",
    "1.3.6.1.5.2.3.2": "id-pkinit-DHKeyData",
    "1.3.6.1.5.2.3.3": "id-pkinit-rkeyData",
    "1.3.6.1.5.2.3.4": "id-pkinit-KPClientAuth",
    "1.3.6.1.5.2.3.5": "id-pkinit-KPKdc",
    "1.3.6.1.5.2.3.6.1": "id-pkinit-kdf-sha1",
    "1.3.6.1.5.2.3.6.2": "id-pkinit-kdf-sha256",
    "1.3.6.1.5.2.3.6.3": "id-pkinit-kdf-sha512",
    "1.3.6.1.5.2.3.6.4": "id-pkinit-kdf-sha384",
    "1.3.6.1.4.1.311.20.2.2": "smart card logon",
    "1.3.6.1.4.1.311.20.2.3": "user principal name",
    "1.3.6.1.4.1.311.25.2": "security identifier of an account",
    # CMS and its algorithms
    "1.2.840.113549.1.7.1": "data",
    "1.2.840.113549.1.7.2": "signedData",
    "1.2.840.113549.1.7.3": "envelopedData",
    "1.2.840.113549.1.1.1": "rsaEncryption",
    "1.2.840.113549.1.1.5": "sha1WithRSAEncryption",
    "1.2.840.113549.1.1.11": "sha256WithRSAEncryption",
    "1.2.840.113549.1.1.12": "sha384WithRSAEncryption",
    "1.2.840.113549.1.1.13": "sha512WithRSAEncryption",
    "1.2.840.10045.4.1": "ecdsa-with-SHA1",
    "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
    "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
    "1.2.840.10045.4.3.4": "ecdsa-with-SHA512",
    "1.2.840.113549.3.7": "des-ede3-cbc",
    "2.16.840.1.101.3.4.1.2": "aes128-cbc",
    "2.16.840.1.101.3.4.1.42": "aes256-cbc",
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    "1.2.840.10046.2.1": "dhpublicnumber",
    "1.2.840.113549.1.3.1": "dhKeyAgreement",
    "1.2.840.10045.2.1": "ecPublicKey",
    "1.2.840.10045.3.1.7": "P-256",
    "1.3.132.0.34": "P-384",
    "1.3.132.0.35": "P-521",
}


def dotted(contents: bytes) -> str:
    """Return the dotted text of an OID's DER contents. Raises DecodeError. Source: X.690 8.19."""
    if not contents or contents[-1] & 0x80:
        raise DecodeError("an OBJECT IDENTIFIER is empty or cut off")
    numbers, number = [], 0
    for octet in contents:
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)  # X.690 8.19.4: the first two arcs are one number
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def contents_of(text: str) -> bytes:
    """Return the DER contents of an OID in dotted text. Source: X.690 8.19."""
    first, second, *more = map(int, text.split("."))
    contents = b""
    for number in (40 * first + second, *more):
        octets = [number & 0x7F]
        while number := number >> 7:
            octets.append(0x80 | number & 0x7F)
        contents += bytes(reversed(octets))
    return contents


def oid_text(contents: bytes) -> str:
    """Return the name and the dotted text of an OID's DER contents, or what there is of them."""
    try:
        text = dotted(contents)
    except DecodeError:
        return f"OID {contents[:32].hex()}"
    return f"{OID_NAMES[text]} ({text})" if text in OID_NAMES else f"OID {text}"


def oid_name(contents: bytes) -> str:
    """Return the name of an OID's DER contents; without a name, the dotted text."""
    text = oid_text(contents)
    return text if text.startswith("OID ") else text.rpartition(" (")[0]
