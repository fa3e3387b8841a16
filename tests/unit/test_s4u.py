"""The messages of S4U: the published bytes and checksums."""

from __future__ import annotations

from typing import Any

import pytest

from purekrb import EncryptionKey, crypto
from purekrb.crypto.rc4 import hmac_md5_checksum
from purekrb.messages.ap import Checksum
from purekrb.messages.s4u import PaForUser, PaPacOptions, PaS4uX509User, S4uUserId
from purekrb.names import PrincipalName
from support.vectors import load

VECTORS = {
    kind: [v for v in load("s4u.json") if v["kind"] == kind]
    for kind in ("PA-FOR-USER", "PA-S4U-X509-USER")
}


@pytest.mark.parametrize("vector", VECTORS["PA-FOR-USER"], ids=lambda v: str(v["etype"]))
def test_the_checksum_of_pa_for_user_is_hmac_md5_with_any_key(vector: dict[str, Any]) -> None:
    key = EncryptionKey(vector["etype"], vector["key"])
    name = PrincipalName((vector["name"],))
    realm = vector["realm"].decode()
    data = PaForUser.checked(name, realm)
    assert data == vector["data"]
    assert hmac_md5_checksum(key, vector["usage"], data) == vector["checksum"]
    padata = PaForUser(name, realm, Checksum(vector["cksumtype"], vector["checksum"]))
    assert PaForUser.decode(padata.encode()) == padata


@pytest.mark.parametrize("vector", VECTORS["PA-S4U-X509-USER"], ids=lambda v: str(v["etype"]))
def test_the_checksum_of_pa_s4u_x509_user_covers_the_user_id(vector: dict[str, Any]) -> None:
    key = EncryptionKey(vector["etype"], vector["key"])
    user_id = S4uUserId.decode(vector["data"])
    assert user_id == S4uUserId(
        vector["nonce"],
        PrincipalName((vector["name"],)),
        vector["realm"].decode(),
        None,
        vector["options"],
    )
    assert user_id.encode() == vector["data"]
    assert crypto.checksum(key, vector["usage"], vector["data"]) == vector["checksum"]
    assert crypto.profile_of(key.etype).checksum_type == vector["cksumtype"]


@pytest.mark.parametrize(
    ("name", "kind"), [("pa_for_user", PaForUser), ("pa_s4u_x509_user", PaS4uX509User)]
)
def test_mits_references_are_read_and_written(name: str, kind: Any) -> None:
    (der,) = [entry["der"] for entry in load("asn1_other.json") if entry["name"] == name]
    message = kind.decode(der)
    assert message.encode() == der
    if kind is PaS4uX509User:
        user_id = S4uUserId.decode(message.user_id)
        assert (user_id.encode(), user_id.subject_certificate) == (
            message.user_id,
            b"pa_s4u_x509_user",
        )


def test_the_bit_of_resource_based_delegation() -> None:
    assert PaPacOptions(0x10000000).encode().hex() == "3009a00703050010000000"
    assert PaPacOptions.decode(bytes.fromhex("3009a00703050010000000")).flags == 0x10000000
