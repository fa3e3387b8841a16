"""RC4 contexts: off unless permitted, and what of RFC 4757 is refused even then (K157 to K161)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    DecodeError,
    EncryptionKey,
    Flag,
    Initiator,
    IntegrityError,
    KerberosError,
    PolicyError,
    ProtocolError,
    SequenceError,
)
from purekrb.constants import KRB5_MECH_OID, ErrorCode
from purekrb.crypto.rc4 import hmac_md5, rc4
from purekrb.gss.framing import frame, unframe
from purekrb.gss.rc4_tokens import Rc4Protection
from purekrb.messages.der import tlv
from support.contexts import acceptor, ap_req, flipped, pair
from support.tickets import issue
from support.values import replace
from support.vectors import load

VECTORS = {v["name"]: v for v in load("gss_rc4.json")}
OID = tlv(6, KRB5_MECH_OID)
#: Where the fields of a Wrap token of fewer than 80 bytes of data begin: frame, OID, token id, algorithms, filler ...
SND_SEQ, CHECKSUM, CONFOUNDER, DATA = 21, 29, 37, 45


def protection(
    key: bytes,
    *,
    initiator: bool = True,
    seq: int = 0,
    flags: int = 0,
    confounder: bytes = bytes(8),
) -> Rc4Protection:
    return Rc4Protection(
        EncryptionKey(23, key),
        initiator=initiator,
        acceptor_subkey=False,
        send_seq=seq,
        receive_seq=seq,
        flags=flags,
        random=lambda size: confounder[:size],
    )


def seq_of(key: bytes, token: bytes) -> tuple[int, bytes]:
    """Return the sequence number and the direction bytes of a Wrap token, decrypted apart from the code under test."""
    plain = rc4(
        hmac_md5(hmac_md5(key, bytes(4)), token[CHECKSUM:CONFOUNDER]), token[SND_SEQ:CHECKSUM]
    )
    return int.from_bytes(plain[:4], "big"), plain[4:]


def receiver_of(vector: dict[str, Any]) -> Rc4Protection:
    """Return the protection of the end that receives the vector's token next."""
    seq, direction = seq_of(vector["key"], vector["token"])
    assert direction in (bytes(4), b"\xff" * 4)
    return protection(
        vector["key"], initiator=direction != bytes(4), seq=seq, flags=int(Flag.DEFAULT)
    )


# --- the controls: what others made


@pytest.mark.parametrize("name", ["rc4-sealed", "rc4-signed", "rc4-sealed-by-initiator"])
def test_tokens_of_mit_and_windows_open(name: str) -> None:
    vector = VECTORS[name]
    receiver = receiver_of(vector)
    assert receiver.unwrap(vector["token"], sealed=name != "rc4-signed") == vector["data"]
    with pytest.raises(SequenceError):
        receiver.unwrap(vector["token"], sealed=False)


def test_the_token_of_ms_kile_is_made_bit_for_bit() -> None:
    vector = VECTORS["rc4-sealed-by-initiator"]
    sender = protection(vector["key"], seq=vector["seq"], confounder=vector["confounder"])
    assert sender.wrap(vector["data"], True) == vector["token"]


# --- K157, K158


def test_k157_a_wrong_pad_is_no_oracle() -> None:
    vector = VECTORS["rc4-padded-by-100"]
    with pytest.raises(IntegrityError) as padded:
        receiver_of(vector).unwrap(vector["token"], sealed=True)
    genuine = VECTORS["rc4-sealed"]
    with pytest.raises(IntegrityError) as altered:
        receiver_of(genuine).unwrap(
            flipped(genuine["token"], 8 * len(genuine["token"]) - 1), sealed=True
        )
    assert (type(padded.value), str(padded.value)) == (type(altered.value), str(altered.value))
    assert receiver_of(genuine).unwrap(genuine["token"], sealed=True) == b"message"


@pytest.mark.parametrize("pad", [b"", b"\0", b"\2", b"\2\2", b"\x64", b"\x08" * 8, b"\xff"])
@pytest.mark.parametrize("sealed", [True, False])
def test_k157_any_pad_but_one_byte_of_one(pad: bytes, sealed: bool) -> None:
    key = bytes(range(16))

    def made(pad: bytes) -> bytes:
        header = b"\x11\x00" + (b"\x10\x00" if sealed else b"\xff\xff") + b"\xff\xff"
        body = bytes(8) + b"message" + pad
        digest = hashlib.md5((13).to_bytes(4, "little") + b"\x02\x01" + header + body).digest()
        checksum = hmac_md5(hmac_md5(key, b"signaturekey\0"), digest)[:8]
        snd_seq = rc4(hmac_md5(hmac_md5(key, bytes(4)), checksum), bytes(8))
        if sealed:
            body = rc4(hmac_md5(hmac_md5(bytes(b ^ 0xF0 for b in key), bytes(4)), bytes(4)), body)
        return frame(b"\x02\x01", header + snd_seq + checksum + body)

    with pytest.raises(IntegrityError):
        protection(key, initiator=False).unwrap(made(pad), sealed=sealed)
    assert protection(key, initiator=False).unwrap(made(b"\1"), sealed=sealed) == b"message"


@pytest.mark.parametrize("name", ["rc4-sealed", "rc4-signed"])
def test_k158_a_token_cut_off_inside_its_header_or_checksum(name: str) -> None:
    vector = VECTORS[name]
    token = vector["token"]
    sealed = name == "rc4-sealed"
    for length in range(len(token)):
        with pytest.raises(KerberosError):
            receiver_of(vector).unwrap(token[:length], sealed=sealed)
    tok_id, inner = unframe(token)
    for length in range(len(inner)):  # with a frame that fits
        with pytest.raises((DecodeError, IntegrityError, ProtocolError)):
            receiver_of(vector).unwrap(frame(tok_id, inner[:length]), sealed=sealed)
        if length < 31:
            with pytest.raises(DecodeError):
                receiver_of(vector).unwrap(frame(tok_id, inner[:length]), sealed=sealed)
    assert receiver_of(vector).unwrap(frame(tok_id, inner), sealed=sealed) == b"message"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (13, 1),
        (14, 0),
        (15, 0x04),
        (15, 0x00),
        (16, 0x11),
        (17, 0x02),
        (17, 0x00),
        (18, 0xFF),
        (19, 0),
        (20, 0),
    ],
)
def test_k158_another_algorithm_or_filler(place: int, value: int) -> None:
    vector = VECTORS["rc4-sealed"]
    token = bytearray(vector["token"])
    assert token[place] != value
    token[place] = value
    with pytest.raises((DecodeError, IntegrityError)):
        receiver_of(vector).unwrap(bytes(token), sealed=True)
    assert receiver_of(vector).unwrap(vector["token"], sealed=True) == b"message"


@pytest.mark.parametrize("name", [name for name in VECTORS if name.startswith("des3")])
def test_k158_tokens_of_des3_are_none_of_ours(name: str) -> None:
    receiver = protection(bytes(16), initiator=False)
    for sealed in (True, False):
        with pytest.raises((DecodeError, IntegrityError, ProtocolError)):
            receiver.unwrap(VECTORS[name]["token"], sealed=sealed)


# --- flips, K159


@pytest.mark.parametrize("sealed", [True, False])
def test_every_flipped_bit_is_refused_and_the_genuine_token_passes(sealed: bool) -> None:
    ours, theirs = pair(23, flags=Flag.MUTUAL | Flag.CONF | Flag.INTEG)
    token = ours.wrap(b"message", sealed=sealed)
    accepted = set()
    for bit in range(8 * len(token)):
        try:
            theirs.unwrap(flipped(token, bit), sealed=sealed)
        except KerberosError:
            continue
        accepted.add(bit // 8)
    # No MAC of RFC 4757 covers the number of a signed token: it is the sequence window that must judge it (K159).
    assert accepted == (set() if sealed else {SND_SEQ, SND_SEQ + 1, SND_SEQ + 2, SND_SEQ + 3})
    assert theirs.unwrap(token, sealed=sealed) == b"message"


@pytest.mark.parametrize("sealed", [True, False])
def test_k159_an_altered_sequence_number_is_refused_by_the_sequence(sealed: bool) -> None:
    for bit in range(8 * SND_SEQ, 8 * CHECKSUM):
        ours, theirs = pair(23)
        token = ours.wrap(b"message", sealed=sealed)
        with pytest.raises((SequenceError, IntegrityError, ProtocolError)):
            theirs.unwrap(flipped(token, bit), sealed=sealed)
    ours, theirs = pair(23)
    assert theirs.unwrap(ours.wrap(b"message", sealed=sealed), sealed=sealed) == b"message"


def test_k159_what_rfc_4757_leaves_open_a_signed_message_repeated_under_the_next_number() -> None:
    """Known and documented: nothing signs the number of a signed token. Of a sealed one it is part of the key."""
    ours, theirs = pair(23)
    signed = ours.wrap(b"message", sealed=False)
    number, _ = seq_of(ours.session_key.contents, signed)
    change = (number ^ (number + 1 & 0xFFFFFFFF)).to_bytes(4, "big")
    again = bytearray(signed)
    for place, bits in enumerate(change, SND_SEQ):
        again[place] ^= bits
    assert theirs.unwrap(signed, sealed=False) == b"message"
    assert theirs.unwrap(bytes(again), sealed=False) == b"message"
    ours, theirs = pair(23)
    sealed = ours.wrap(b"message")
    number, _ = seq_of(ours.session_key.contents, sealed)
    change = (number ^ (number + 1 & 0xFFFFFFFF)).to_bytes(4, "big")
    again = bytearray(sealed)
    for place, bits in enumerate(change, SND_SEQ):
        again[place] ^= bits
    assert theirs.unwrap(sealed) == b"message"
    with pytest.raises(IntegrityError):
        theirs.unwrap(bytes(again))


def test_k159_the_direction_is_told_by_four_bytes() -> None:
    ours, theirs = pair(23)
    for sealed in (True, False):
        token = ours.wrap(b"message", sealed=sealed)
        with pytest.raises(ProtocolError, match="other direction"):
            ours.unwrap(token, sealed=sealed)
        turned = bytearray(token)
        for place in range(SND_SEQ + 4, CHECKSUM):
            turned[place] ^= 0xFF
        with pytest.raises(ProtocolError, match="other direction"):
            theirs.unwrap(bytes(turned), sealed=sealed)
        assert theirs.unwrap(token, sealed=sealed) == b"message"


def test_a_forged_token_does_not_move_the_window() -> None:
    ours, theirs = pair(23)
    for place in range(CHECKSUM, DATA + 8):
        token = ours.wrap(b"message")
        with pytest.raises((IntegrityError, ProtocolError)):
            theirs.unwrap(flipped(token, 8 * place))
        assert theirs.unwrap(token) == b"message"


# --- K160: off


def test_k160_rc4_is_off_unless_it_is_permitted() -> None:
    ticket, keys = issue(23)
    with pytest.raises(PolicyError, match="rc4-hmac"):
        Initiator(ticket).step()
    token = ap_req(ticket)
    with pytest.raises(ApError, match="rc4-hmac") as caught:
        acceptor(keys).step(token)
    assert caught.value.code == ErrorCode.KDC_ERR_ETYPE_NOSUPP
    ours, theirs = pair(23)
    assert ours.etype == theirs.etype == 23


@pytest.mark.parametrize("etype", [1, 2, 3, 5, 7, 16, 24])
def test_k160_des_and_its_like_are_off_whatever_is_permitted(etype: int) -> None:
    ticket, keys = issue(18)
    weak = replace(ticket, session_key=EncryptionKey(etype, bytes(24)))
    for permitted in ((18, 17), (18, etype)):
        with pytest.raises(PolicyError, match="not permitted"):
            Initiator(weak, permitted_etypes=permitted).step()
        token = Initiator(ticket, permitted_etypes=permitted).step()
        assert acceptor(keys, permitted_etypes=permitted).step(token)


@pytest.mark.parametrize(("ticket_etype", "session"), [(18, 23), (23, 18), (23, 23)])
def test_k160_neither_as_a_tickets_key_nor_as_its_session_key(
    ticket_etype: int, session: int
) -> None:
    ticket, keys = issue(ticket_etype, session_etype=session)
    with pytest.raises(ApError) as caught:
        Acceptor(keys).step(ap_req(ticket))
    assert caught.value.code == ErrorCode.KDC_ERR_ETYPE_NOSUPP
    assert acceptor(keys, permitted_etypes=(18, 23)).step(ap_req(ticket))


# --- K161


def test_k161_rc4_contexts_have_no_mics() -> None:
    ours, theirs = pair(23)
    with pytest.raises(PolicyError, match="MD5"):
        ours.get_mic(b"message")
    mit = VECTORS["rc4-mic"]
    for mic in (mit["token"], b"", bytes(37)):
        with pytest.raises(PolicyError, match="MD5"):
            theirs.verify_mic(b"message", mic)
    assert theirs.unwrap(ours.wrap(b"message", sealed=False), sealed=False) == b"message"


def test_a_signed_token_is_not_taken_for_a_sealed_one() -> None:
    ours, theirs = pair(23)
    token = ours.wrap(b"message", sealed=False)
    with pytest.raises(PolicyError, match="only signed"):
        theirs.unwrap(token)
    assert theirs.unwrap(token, sealed=False) == b"message"


def test_a_token_of_rfc_4121_is_none_of_rc4() -> None:
    aes, _ = pair(18)
    _, theirs = pair(23)
    for token in (
        aes.wrap(b"message"),
        aes.wrap(b"message", sealed=False),
        aes.get_mic(b"message"),
    ):
        with pytest.raises(DecodeError):
            theirs.unwrap(token, sealed=False)
