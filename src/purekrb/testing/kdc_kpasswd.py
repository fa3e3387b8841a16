"""The embedded KDC's answers to requests that change or set passwords. Source: RFC 3244 2."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import TYPE_CHECKING

from purekrb import crypto
from purekrb.constants import KeyUsage, MessageType, NameType, TicketFlags
from purekrb.credentials.keytab import KeytabEntry
from purekrb.errors import ApError, DecodeError, IntegrityError, KerberosError
from purekrb.exchanges.ap_exchange import AcceptedApReq, accept_ap_req, build_ap_rep
from purekrb.keys import KEY_SIZES
from purekrb.messages.ap import PVNO, EncryptedData, HostAddress
from purekrb.messages.kpasswd import (
    CHANGE,
    SET,
    VERSION,
    ChangePasswdData,
    EncKrbPrivPart,
    KrbPriv,
    PasswordPolicy,
    Result,
    decode_frame,
    encode_frame,
    encode_policy,
    encode_result,
)
from purekrb.names import PrincipalName
from purekrb.testing.kdc_accounts import CLOCK_SKEW, KdcAccount

if TYPE_CHECKING:
    from purekrb.testing.kdc import Kdc

__all__ = ["CHANGEPW", "answer", "is_request"]

#: The service to which the requests go.
CHANGEPW = PrincipalName(("kadmin", "changepw"), NameType.SRV_INST)
_LOOPBACK = HostAddress(2, bytes((127, 0, 0, 1)))


def is_request(message: bytes) -> bool:
    """Return whether `message` is a request to change or set a password, not one to the KDC."""
    try:
        return decode_frame(message)[0] in (CHANGE, SET)
    except DecodeError:
        return False


def answer(kdc: Kdc, message: bytes) -> bytes | None:
    """Return the reply to a request; None: the ticket or authenticator is not genuine."""
    version, ap_req, private = decode_frame(message)
    account = kdc.accounts[CHANGEPW]
    keys = [
        KeytabEntry(CHANGEPW.principal(kdc.realm), account.kvno, key)
        for etype in account.etypes
        if (key := account.key(etype)) is not None
    ]
    try:
        accepted = accept_ap_req(
            ap_req,
            keys,
            service=None,
            permitted_etypes=tuple(KEY_SIZES),
            clock_skew=CLOCK_SKEW,
            now=kdc.now(),
        )
        subkey = accepted.authenticator.subkey
        if subkey is None:
            return None
        opened: EncKrbPrivPart = EncKrbPrivPart.decode(
            crypto.decrypt(
                subkey, KeyUsage.KRB_PRIV_ENC_PART, KrbPriv.decode(private).enc_part.cipher
            )
        )
    except (ApError, DecodeError, IntegrityError):
        return None
    code, text = _change(kdc, version, accepted, opened.user_data)
    sequence = int.from_bytes(kdc.random(4), "big") & 0x3FFFFFFF
    part = EncKrbPrivPart(encode_result(code, text), None, None, sequence, _LOOPBACK, None)
    # Under the subkey of the request: MIT's client takes no other.
    size = crypto.profile_of(subkey.etype).confounder_size
    cipher = crypto.encrypt(subkey, KeyUsage.KRB_PRIV_ENC_PART, part.encode(), kdc.random(size))
    reply = KrbPriv(PVNO, MessageType.KRB_PRIV, EncryptedData(subkey.etype, None, cipher))
    ap_rep = build_ap_rep(accepted, subkey=None, seq_number=sequence, random=kdc.random)
    return encode_frame(VERSION, ap_rep, reply.encode())


def _change(kdc: Kdc, version: int, accepted: AcceptedApReq, data: bytes) -> tuple[int, bytes]:
    """Change the password if that is permitted; return the result."""
    name, new = accepted.client.name, data
    if version == SET:
        try:
            asked: ChangePasswdData = ChangePasswdData.decode(data)
        except KerberosError:
            return Result.MALFORMED, b"ChangePasswdData cannot be read"
        name, new = asked.targname or name, asked.newpasswd
        if asked.targrealm not in (None, kdc.realm):
            return Result.HARDERROR, b"no such realm"
    own = name == accepted.client.name
    administrator = kdc.accounts.get(accepted.client.name)
    if not own and not (administrator and administrator.sets_passwords):
        return Result.ACCESSDENIED, b"not permitted to set the password of others"
    if own and not accepted.ticket.flags & TicketFlags.INITIAL:
        return Result.INITIAL_FLAG_NEEDED, b"expected an initial ticket"
    account = kdc.accounts.get(name)
    if account is None or account.password is None:
        return Result.HARDERROR, b"no such user"
    try:
        password = new.decode()
    except UnicodeDecodeError:
        return Result.MALFORMED, b"the password is not UTF-8"
    policy = kdc.password_policy
    if policy is not None and not _satisfies(policy, account, password):
        return Result.SOFTERROR, encode_policy(policy)
    kdc.accounts[name] = replace(
        account, password=password, kvno=account.kvno + 1, keys={}, password_expired=False
    )
    return Result.SUCCESS, b""


def _satisfies(policy: PasswordPolicy, account: KdcAccount, password: str) -> bool:
    kinds = (str.isupper, str.islower, str.isdigit, lambda c: not c.isalnum())
    old = account.password or ""
    found = sum(any(map(kind, password)) for kind in kinds)
    return (
        len(password) >= policy.min_length
        and (found >= 3 or not policy.complexity)
        and not (policy.history and hmac.compare_digest(password.encode(), old.encode()))
    )
