"""Changing one's own password, and setting that of others. Source: RFC 3244.

The exchange has one request. It is never repeated: a lost reply leaves open what the server did.
"""

from __future__ import annotations

import hmac

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    AddressType,
    KeyUsage,
    MessageType,
    error_name,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    DecodeError,
    KdcError,
    PasswordPolicyError,
    ProtocolError,
)
from purekrb.exchanges.ap_exchange import build_ap_req, verify_ap_rep
from purekrb.exchanges.runner import Exchange, KdcRequest
from purekrb.exchanges.unique_time import unique_now
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import PVNO, EncryptedData, HostAddress, KrbError
from purekrb.messages.kpasswd import (
    CHANGE,
    SET,
    ChangePasswdData,
    EncKrbPrivPart,
    KrbPriv,
    PasswordPolicy,
    Result,
    decode_frame,
    decode_result,
    encode_frame,
)
from purekrb.names import Principal
from purekrb.system import Clock, RandomBytes, now, random_bytes
from purekrb.text import visible
from purekrb.tracebacks import forget_frames

__all__ = ["change_password"]

log = Log("purekrb.kdc")

_KRB_ERROR = b"\x7e"
_MAX_TEXT = 400
#: The address of the sender, which no server compares with that of the datagram: behind an address
#: translation they differ. It is in the message since RFC 4120 5.7.1 demands one.
_SOMEWHERE = HostAddress(AddressType.IPV4, bytes(4))
_MEANINGS = {
    Result.MALFORMED: ("the server could not read the request", "see its log"),
    Result.HARDERROR: ("the server failed", "see its log, or try again later"),
    Result.AUTHERROR: (
        "the server did not accept the authentication",
        "check the clocks and the password",
    ),
    Result.SOFTERROR: ("the server refused the new password", "choose another one"),
    Result.ACCESSDENIED: (
        "this client must not do that",
        "ask the realm's administrator to do it, or for the right to",
    ),
    Result.BAD_VERSION: (
        "the server does not have this kind of request",
        "change the password elsewhere",
    ),
    Result.INITIAL_FLAG_NEEDED: (
        "the server wants a ticket that was got with the password itself",
        "pass a credential with the password",
    ),
}


def change_password(
    ticket: ServiceTicket,
    new: bytes,
    target: Principal | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[None]:
    """Change the password of the client of `ticket`, or set that of `target`, to `new` (UTF-8).

    `ticket` is for kadmin/changepw. Raises PasswordPolicyError if the new password is refused,
    KdcError if the server refuses for another reason, and ProtocolError, DecodeError,
    MutualAuthenticationError or IntegrityError for a reply that is not the server's.
    """
    subkey = crypto.random_key(ticket.session_key.etype, random)
    seq_number = int.from_bytes(random(4), "big") & 0x3FFFFFFF
    sent = build_ap_req(
        ticket,
        cksum=None,
        subkey=subkey,
        seq_number=seq_number,
        mutual=True,
        etypes=(),
        client_target=False,
        now=unique_now(clock) + ticket.time_offset,
        random=random,
    )
    data = new
    if target is not None:
        # With a name and a realm always: MIT's server cannot read the message without them.
        data = ChangePasswdData(new, target.name, target.realm).encode()
    private = _seal(data, subkey, seq_number, random)
    log.debug("%s asks to change the password of %s", ticket.client, target or "its own")
    version = CHANGE if target is None else SET
    request = KdcRequest(
        ticket.service.realm, encode_frame(version, sent.message, private.encode()), "kpasswd"
    )
    del data, new
    reply = yield request
    whose = target or ticket.client
    if reply[:1] == _KRB_ERROR:
        raise _error(KrbError.decode(reply), whose)
    _, ap_rep, rest = decode_frame(reply)
    if not ap_rep:
        raise _error(KrbError.decode(rest), whose)
    part = verify_ap_rep(ap_rep, sent, ticket.session_key, permitted_etypes=DEFAULT_ETYPES)
    answer: KrbPriv = KrbPriv.decode(rest)
    if hmac.compare_digest(answer.enc_part.cipher, private.enc_part.cipher):
        # RFC 4120 3.5.2. Some servers answer under our subkey, so this would decrypt.
        raise ProtocolError("the reply is our own request, sent back")
    code, text, policy = _open(answer, part.subkey or subkey)
    if code != Result.SUCCESS:
        raise _refusal(code, text, policy, whose)
    log.debug("the password of %s was changed", whose)


def _seal(data: bytes, key: EncryptionKey, seq_number: int, random: RandomBytes) -> KrbPriv:
    part = EncKrbPrivPart(data, None, None, seq_number, _SOMEWHERE, None)
    size = crypto.profile_of(key.etype).confounder_size
    cipher = crypto.encrypt(key, KeyUsage.KRB_PRIV_ENC_PART, part.encode(), random(size))
    return KrbPriv(PVNO, MessageType.KRB_PRIV, EncryptedData(key.etype, None, cipher))


@forget_frames
def _open(private: KrbPriv, key: EncryptionKey) -> tuple[int, str, PasswordPolicy | None]:
    part: EncKrbPrivPart = EncKrbPrivPart.decode(
        crypto.decrypt(key, KeyUsage.KRB_PRIV_ENC_PART, private.enc_part.cipher)
    )
    return decode_result(part.user_data)


def _error(error: KrbError, whose: Principal) -> KdcError:
    """Return the error for a KRB-ERROR in place of a reply. Anyone can forge one."""
    text = error.e_text or ""
    code = None
    if error.e_data:
        try:
            code, said, _ = decode_result(error.e_data)
            text = said or text
        except DecodeError:
            pass
    what, advice = _MEANINGS.get(code, ("the server refused the request", "see its log"))  # type: ignore[call-overload]
    return KdcError(
        f"the password of {whose} was not changed, says an answer that proves nothing: {what} "
        f"({error_name(error.error_code)}{_quoted(text)}); {advice}",
        code=error.error_code,
        krb_error=error,
    )


def _refusal(code: int, text: str, policy: PasswordPolicy | None, whose: Principal) -> KdcError:
    """Return the error for a result other than success."""
    what, advice = _MEANINGS.get(code, (f"the server gave the result {code}", "see its log"))  # type: ignore[call-overload]
    rules = f" Its rules: {policy}." if policy is not None else ""
    message = f"the password of {whose} was not changed: {what}{_quoted(text)}; {advice}.{rules}"
    if code == Result.SOFTERROR or policy is not None:
        return PasswordPolicyError(message, code=code, policy=policy)
    return KdcError(message, code=code)


def _quoted(text: str) -> str:
    """Return the server's words on one line; MIT's server writes several."""
    words = visible(" ".join(text[:_MAX_TEXT].split()))
    return f", it says '{words}'" if words else ""
