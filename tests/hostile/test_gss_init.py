"""Bad first tokens: framing, the 0x8003 checksum, delegation, and calls out of order (K099 to K114)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ContextError,
    CredentialError,
    DecodeError,
    EncryptionKey,
    Flag,
    Initiator,
    IntegrityError,
    KerberosError,
    MutualAuthenticationError,
    PolicyError,
    Principal,
    ProtocolError,
    ServiceTicket,
    UnsupportedError,
    crypto,
)
from purekrb.constants import KRB5_MECH_OID, ChecksumType, ErrorCode, KeyUsage, TicketFlags
from purekrb.exchanges.krb_cred import build_krb_cred
from purekrb.gss.framing import frame, unframe
from purekrb.messages.ap import (
    Checksum,
    EncKrbCredPart,
    EncryptedData,
    KrbCred,
    KrbCredInfo,
    KrbError,
)
from purekrb.messages.der import tlv
from purekrb.system import now, random_bytes
from support.contexts import acceptor, ap_req, authenticator, error_of, gss_checksum, pair
from support.tickets import ALICE, Entry, issue
from support.values import replace

TGS = Principal.parse("krbtgt/EXAMPLE.TEST@EXAMPLE.TEST")
DELEGATING = int(Flag.DEFAULT | Flag.DELEG)


def take(keys: Any, token: bytes | None, **options: Any) -> Acceptor:
    context = acceptor(keys, **options)
    context.step(token)
    assert context.established
    return context


def refuse(
    keys: Any,
    token: bytes | None,
    kind: type[KerberosError],
    match: str | None = None,
    **options: Any,
) -> KerberosError:
    context = acceptor(keys, **options)
    with pytest.raises(kind, match=match) as caught:
        context.step(token)
    assert not context.established
    with pytest.raises(ContextError):
        context.step(token)
    return caught.value


# --- K099 to K103: the frame

OID = tlv(6, KRB5_MECH_OID)


CUT_OFF = ("", "60", "6084", "604006", "60400609", "6002", "600006", "60820000", "6080", "30020500")


@pytest.mark.parametrize(
    "token", [pytest.param(bytes.fromhex(text), id=f"K099-{text or 'nothing'}") for text in CUT_OFF]
)
def test_k099_a_frame_that_is_cut_off(token: bytes) -> None:
    ticket, keys = issue()
    refuse(keys, token, DecodeError, mechanism="kerberos")
    take(keys, ap_req(ticket))


OTHER_OIDS = [
    pytest.param(tlv(6, b""), id="K100-empty"),
    pytest.param(tlv(6, KRB5_MECH_OID[:-1]), id="K100-shorter"),
    pytest.param(tlv(6, KRB5_MECH_OID + b"\0"), id="K100-longer"),
    pytest.param(tlv(6, KRB5_MECH_OID[:-1] + b"\3"), id="K100-user-to-user"),
    pytest.param(tlv(6, bytes.fromhex("2b0601050502")), id="K100-spnego"),
    pytest.param(tlv(6, b"\x80" * 40_000), id="K100-40-kB"),
]


@pytest.mark.parametrize("oid", OTHER_OIDS)
def test_k100_another_mechanism(oid: bytes) -> None:
    ticket, keys = issue()
    inner = b"\x01\x00" + unframe(ap_req(ticket))[1]
    error = refuse(keys, tlv(0x60, oid + inner), UnsupportedError, mechanism="kerberos")
    assert len(str(error)) < 200
    take(keys, tlv(0x60, OID + inner))


def test_k100_an_oid_of_a_megabyte_or_of_another_type() -> None:
    ticket, keys = issue()
    inner = b"\x01\x00" + unframe(ap_req(ticket))[1]
    refuse(keys, tlv(0x60, tlv(6, bytes(1 << 20)) + inner), DecodeError, "larger than")
    refuse(keys, tlv(0x60, tlv(4, KRB5_MECH_OID) + inner), DecodeError, "no mechanism")
    take(keys, tlv(0x60, OID + inner))


def test_k101_a_length_that_is_not_the_tokens_or_not_minimal() -> None:
    ticket, keys = issue()
    token = ap_req(ticket)
    inside = token[4:]
    assert token == b"\x60\x82" + struct.pack(">H", len(inside)) + inside
    for bad in (
        token + b"\0",
        token[:-1],
        b"\x60\x82" + struct.pack(">H", len(inside) - 1) + inside,
        b"\x60\x82" + struct.pack(">H", len(inside) + 1) + inside,
        b"\x60\x83\0" + struct.pack(">H", len(inside)) + inside,
        b"\x60\x84\0\0" + struct.pack(">H", len(inside)) + inside,
        b"\x60\x84\xff\xff\xff\xff" + inside,
        b"\x60\x88" + struct.pack(">Q", len(inside)) + inside,
        b"\x60\x80" + inside + b"\0\0",
        b"\x61" + token[1:],
        b"\x20" + token[1:],
    ):
        refuse(keys, bad, DecodeError)
    inner = b"\x01\x00" + unframe(token)[1]
    refuse(keys, tlv(0x60, b"\x06\x81\x09" + KRB5_MECH_OID + inner), DecodeError)
    take(keys, token)


def test_k102_another_token_id() -> None:
    ticket, keys = issue()
    _, message = unframe(ap_req(ticket))
    for tok_id in ("0200", "0300", "0001", "0000", "0101", "0404", "0504", "ffff"):
        error = refuse(keys, frame(bytes.fromhex(tok_id), message), ApError)
        assert isinstance(error, ApError)
        assert error.code == ErrorCode.KRB_AP_ERR_MSG_TYPE
        assert error_of(error.response).error_code == ErrorCode.KRB_AP_ERR_MSG_TYPE
    for tok_id in (b"", b"\x01"):
        refuse(keys, tlv(0x60, OID + tok_id), DecodeError)
    take(keys, frame(b"\x01\x00", message))


def test_k103_an_ap_req_without_its_frame() -> None:
    ticket, keys = issue()
    _, message = unframe(ap_req(ticket))
    for naked in (message, b"\x01\x00" + message, OID + b"\x01\x00" + message):
        refuse(keys, naked, DecodeError)
    take(keys, frame(b"\x01\x00", message))


def test_k103_dce_style_with_a_frame() -> None:
    ticket, keys = issue()
    for flags in (Flag.DEFAULT | Flag.DCE_STYLE, Flag.DCE_STYLE):
        made = ap_req(ticket, authenticator(ticket, cksum=gss_checksum(int(flags))))
        refuse(keys, made, DecodeError, "frame")
        theirs = acceptor(keys)
        assert theirs.step(unframe(made)[1])
        assert not theirs.established


def test_k103_what_is_refused_in_dce_style_is_told_without_a_frame() -> None:
    ticket, _ = issue()
    _, keys = issue()
    theirs = acceptor(keys)
    with pytest.raises(ApError) as caught:
        theirs.step(Initiator(ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE).step())
    assert caught.value.response is not None
    assert KrbError.decode(caught.value.response).error_code == caught.value.code
    for response in (caught.value.response, frame(b"\x03\x00", caught.value.response)):
        ours = Initiator(ticket, flags=Flag.DEFAULT | Flag.DCE_STYLE)
        ours.step()
        with pytest.raises(ApError, match="the service refused us") as told:
            ours.step(response)
        assert told.value.code == caught.value.code


# --- K104 to K109: the checksum field


def with_checksum(
    ticket: ServiceTicket, contents: bytes, cksumtype: int = ChecksumType.GSSAPI
) -> bytes:
    return ap_req(ticket, authenticator(ticket, cksum=Checksum(cksumtype, contents)))


FIXED = struct.pack("<I16sI", 16, bytes(16), int(Flag.DEFAULT))


@pytest.mark.parametrize("length", range(24))
def test_k104_a_checksum_field_that_is_too_short(length: int) -> None:
    ticket, keys = issue()
    refuse(keys, with_checksum(ticket, FIXED[:length]), DecodeError, "at least 24")
    take(keys, with_checksum(ticket, FIXED))


@pytest.mark.parametrize("length", [0, 15, 17, 24, 16 << 24, 0x80000010, 0xFFFFFFFF])
def test_k105_channel_bindings_of_another_length(length: int) -> None:
    ticket, keys = issue()
    for tail in (b"", bytes(64)):
        refuse(
            keys,
            with_checksum(ticket, struct.pack("<I", length) + FIXED[4:] + tail),
            DecodeError,
            "16 bytes",
        )
        take(keys, with_checksum(ticket, FIXED + tail))


def test_k106_no_checksum_means_no_flags_so_the_default_policy_refuses() -> None:
    ticket, keys = issue()
    token = ap_req(ticket, authenticator(ticket, cksum=None))
    error = refuse(keys, token, ApError, "MUTUAL")
    assert isinstance(error, ApError)
    assert error.code == ErrorCode.KRB_AP_ERR_MUT_FAIL
    context = take(keys, token, require=Flag(0))
    assert context.flags == Flag(0)
    assert not context.mutual
    take(keys, ap_req(ticket))


@pytest.mark.parametrize(
    "required",
    [Flag.MUTUAL, Flag.CONF, Flag.INTEG, Flag.SEQUENCE, Flag.REPLAY, Flag.DELEG],
    ids=str,
)
def test_k106_each_required_flag_must_be_asked_for(required: Flag) -> None:
    ticket, keys = issue()
    every = Flag(0x3E)
    without = authenticator(ticket, cksum=gss_checksum(int(every & ~required)))
    refuse(keys, ap_req(ticket, without), ApError, required.name or "", require=required)
    if required is not Flag.DELEG:
        take(
            keys,
            ap_req(ticket, authenticator(ticket, cksum=gss_checksum(int(every)))),
            require=required,
        )


def keyed(ticket: ServiceTicket, data: bytes) -> bytes:
    return crypto.checksum(ticket.session_key, KeyUsage.AP_REQ_AUTHENTICATOR_CHECKSUM, data)


@pytest.mark.parametrize(
    ("cksumtype", "contents"),
    [
        pytest.param(
            16, lambda t: keyed(t, b"a request of another protocol"), id="K107-keyed-over-data"
        ),
        pytest.param(16, lambda t: keyed(t, b""), id="K107-keyed-over-nothing"),
        pytest.param(15, lambda t: bytes(12), id="K107-of-another-etype"),
        pytest.param(16, lambda t: FIXED, id="K107-gss-fields-under-another-type"),
        pytest.param(1, lambda t: bytes(4), id="K108-crc32"),
        pytest.param(2, lambda t: bytes(16), id="K108-md4"),
        pytest.param(7, lambda t: bytes(16), id="K108-md5"),
        pytest.param(14, lambda t: bytes(20), id="K108-sha1"),
        pytest.param(-138, lambda t: bytes(16), id="K108-hmac-md5"),
        pytest.param(0, lambda t: b"", id="K108-none"),
        pytest.param(0x8003 - (1 << 16), lambda t: FIXED, id="K108-0x8003-as-a-negative-number"),
    ],
)
def test_k107_k108_a_checksum_of_another_type(
    cksumtype: int, contents: Callable[[ServiceTicket], bytes]
) -> None:
    ticket, keys = issue()
    token = with_checksum(ticket, contents(ticket), cksumtype)
    for options in ({}, {"require": Flag(0)}):
        error = refuse(keys, token, ApError, "protocol other than GSS-API", **options)
        assert isinstance(error, ApError)
        assert error.code == ErrorCode.KRB_AP_ERR_INAPP_CKSUM
    take(keys, with_checksum(ticket, FIXED))


# --- K109 to K112: delegation


def delegable() -> tuple[ServiceTicket, list[Entry], ServiceTicket]:
    """Return a ticket for a service that may have TGTs, its keys, and the TGT."""
    ticket, keys = issue(flags=TicketFlags.OK_AS_DELEGATE)
    return ticket, keys, issue(service=TGS, flags=TicketFlags.FORWARDED)[0]


def with_delegation(ticket: ServiceTicket, tail: bytes, **changes: Any) -> bytes:
    """Return an AP-REQ whose checksum field has `tail` behind the flags, among which is DELEG."""
    return ap_req(
        ticket, authenticator(ticket, cksum=gss_checksum(DELEGATING, tail=tail), **changes)
    )


def dlg(message: bytes, *, option: int = 1, length: int | None = None) -> bytes:
    return struct.pack("<HH", option, len(message) if length is None else length) + message


@pytest.mark.parametrize("length", range(4))
def test_k109_a_delegation_that_is_announced_and_not_there(length: int) -> None:
    ticket, keys, tgt = delegable()
    whole = dlg(build_krb_cred(tgt, ticket.session_key, now=now(), random=random_bytes))
    for accepting in (True, False):
        refuse(
            keys, with_delegation(ticket, whole[:length]), DecodeError, accept_delegation=accepting
        )
    take(keys, with_delegation(ticket, whole))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda m: dlg(m, length=len(m) + 1), id="K109-one-byte-beyond"),
        pytest.param(lambda m: dlg(m, length=0xFFFF), id="K109-far-beyond"),
        pytest.param(lambda m: dlg(m, length=len(m) - 1), id="K109-one-byte-short"),
        pytest.param(lambda m: dlg(m, length=0), id="K109-empty"),
        pytest.param(lambda m: dlg(m, option=0), id="K109-option-0"),
        pytest.param(lambda m: dlg(m, option=2), id="K109-option-2"),
        pytest.param(lambda m: dlg(m, option=256), id="K109-option-big-endian"),
        pytest.param(lambda m: dlg(m[:-1]), id="K109-cut-off"),
        pytest.param(lambda m: dlg(m + b"\0"), id="K109-trailing-byte-in-the-message"),
    ],
)
def test_k109_a_delegation_that_is_malformed(spoil: Callable[[bytes], bytes]) -> None:
    ticket, keys, tgt = delegable()
    message = build_krb_cred(tgt, ticket.session_key, now=now(), random=random_bytes)
    refuse(keys, with_delegation(ticket, spoil(message)), DecodeError)
    for tail in (b"", b"\0\0\0\1extension"):
        context = take(keys, with_delegation(ticket, dlg(message) + tail))
        assert context.delegated_credential is not None


def cred(
    ticket: ServiceTicket,
    tgt: ServiceTicket,
    *,
    tickets: int = 1,
    infos: int = 1,
    key: EncryptionKey | None = None,
    usage: int = KeyUsage.KRB_CRED_ENC_PART,
    info: dict[str, Any] | None = None,
    **changes: Any,
) -> bytes:
    """Return a KRB-CRED, field by field."""
    key = key or ticket.session_key
    genuine = KrbCredInfo(
        key=tgt.session_key,
        prealm=tgt.client.realm,
        pname=tgt.client.name,
        flags=tgt.flags,
        authtime=tgt.authtime,
        starttime=tgt.starttime,
        endtime=tgt.endtime,
        renew_till=None,
        srealm=tgt.service.realm,
        sname=tgt.service.name,
        caddr=None,
    )
    part = EncKrbCredPart((replace(genuine, **(info or {})),) * infos, None, None, None, None, None)
    message = KrbCred(
        pvno=5,
        msg_type=22,
        tickets=(tgt.ticket,) * tickets,
        enc_part=EncryptedData(key.etype, None, crypto.encrypt(key, usage, part.encode())),
    )
    return replace(message, **changes).encode()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        pytest.param({"tickets": 2}, ProtocolError, id="K110-more-tickets-than-infos"),
        pytest.param({"infos": 2}, ProtocolError, id="K110-more-infos-than-tickets"),
        pytest.param({"tickets": 0}, ProtocolError, id="K110-no-ticket"),
        pytest.param({"tickets": 0, "infos": 0}, ProtocolError, id="K110-nothing"),
        pytest.param({"infos": 0}, ProtocolError, id="K110-no-info"),
        pytest.param({"info": {"pname": None}}, DecodeError, id="K110-no-client-name"),
        pytest.param({"info": {"prealm": None}}, DecodeError, id="K110-no-client-realm"),
        pytest.param({"info": {"sname": None}}, DecodeError, id="K110-no-service-name"),
        pytest.param({"info": {"srealm": None}}, DecodeError, id="K110-no-service-realm"),
        pytest.param({"info": {"endtime": None}}, DecodeError, id="K110-no-endtime"),
        pytest.param({"pvno": 4}, ProtocolError, id="K110-version"),
        pytest.param({"msg_type": 14}, ProtocolError, id="K110-msg-type"),
        pytest.param({"usage": KeyUsage.AP_REP_ENC_PART}, IntegrityError, id="K110-usage"),
        pytest.param(
            {"enc_part": EncryptedData(0, None, b"in the clear")},
            ProtocolError,
            id="K111-etype-null",
        ),
        pytest.param(
            {"enc_part": EncryptedData(18, None, bytes(80))}, IntegrityError, id="K111-noise"
        ),
        pytest.param(
            {"enc_part": EncryptedData(23, None, bytes(80))}, ProtocolError, id="K111-rc4"
        ),
    ],
)
def test_k110_k111_a_krb_cred_that_does_not_hold_together(
    changes: dict[str, Any], kind: type[KerberosError]
) -> None:
    ticket, keys, tgt = delegable()
    refuse(keys, with_delegation(ticket, dlg(cred(ticket, tgt, **changes))), kind)
    for good in (
        {},
        {"tickets": 2, "infos": 2},
        {"info": {"flags": None, "authtime": None, "starttime": None}},
    ):
        context = take(keys, with_delegation(ticket, dlg(cred(ticket, tgt, **good))))
        assert context.delegated_credential is not None
        assert context.delegated_credential.principal == ALICE


def test_k111_a_krb_cred_in_the_clear_is_refused_even_if_it_is_well_formed() -> None:
    ticket, keys, tgt = delegable()
    part = EncKrbCredPart((), None, None, None, None, None).encode()
    for etype in (0, 1, 3, 16, -1):
        enc_part = EncryptedData(etype, None, part)
        refuse(
            keys, with_delegation(ticket, dlg(cred(ticket, tgt, enc_part=enc_part))), ProtocolError
        )
    take(keys, with_delegation(ticket, dlg(cred(ticket, tgt))))


def test_k111_a_krb_cred_under_the_subkey_is_read_and_under_another_key_not() -> None:
    ticket, keys, tgt = delegable()
    subkey = crypto.random_key(18)
    context = take(keys, with_delegation(ticket, dlg(cred(ticket, tgt, key=subkey)), subkey=subkey))
    assert context.delegated_credential is not None
    for stranger in (subkey, crypto.random_key(18), tgt.session_key):
        refuse(keys, with_delegation(ticket, dlg(cred(ticket, tgt, key=stranger))), IntegrityError)


def test_k112_an_acceptor_that_does_not_want_a_delegation_neither_reads_nor_reports_it() -> None:
    ticket, keys, tgt = delegable()
    ours = Initiator(ticket, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=tgt)
    theirs = acceptor(keys, accept_delegation=False)
    ours.step(theirs.step(ours.step()))
    assert theirs.delegated_credential is None
    assert not theirs.flags & Flag.DELEG
    garbage = with_delegation(ticket, dlg(b"this is no KRB-CRED"))
    assert take(keys, garbage, accept_delegation=False).delegated_credential is None
    refuse(keys, garbage, DecodeError)
    wanting = take(
        keys, Initiator(ticket, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=tgt).step()
    )
    assert wanting.flags & Flag.DELEG
    assert wanting.delegated_credential is not None


def test_k112_nothing_is_delegated_that_was_not_asked_for() -> None:
    ticket, keys, tgt = delegable()
    context = take(keys, Initiator(ticket, forwarded_tgt=tgt).step())
    assert context.delegated_credential is None
    assert not context.flags & Flag.DELEG
    unmarked, keys = issue()
    context = take(
        keys, Initiator(unmarked, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=tgt).step()
    )
    assert context.delegated_credential is None
    assert not context.flags & Flag.DELEG


def test_k112_a_delegation_needs_a_proof_of_the_service_and_a_tgt() -> None:
    ticket, _, tgt = delegable()
    with pytest.raises(PolicyError, match="MUTUAL"):
        Initiator(ticket, flags=Flag.DELEG, forwarded_tgt=tgt)
    with pytest.raises(CredentialError, match="forwarded_tgt"):
        Initiator(ticket, flags=Flag.DEFAULT | Flag.DELEG)
    Initiator(ticket, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=tgt)


def test_a_ticket_that_is_too_large_to_delegate_is_refused_before_anything_is_sent() -> None:
    ticket, _, tgt = delegable()
    huge = replace(tgt, ticket=tlv(0x61, bytes(65_536)))
    with pytest.raises(UnsupportedError, match="too large"):
        Initiator(ticket, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=huge).step()
    large = replace(tgt, ticket=tlv(0x61, bytes(65_000)))
    assert (
        len(Initiator(ticket, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=large).step() or b"")
        > 65_000
    )


# --- K113, K114: calls out of order


def test_k113_an_established_context_takes_no_other_token_and_stays_what_it_is() -> None:
    ours, theirs = pair()
    ticket, _ = issue()
    for context in (ours, theirs):
        for token in (None, b"", ap_req(ticket), b"\x60\x00"):
            with pytest.raises(ContextError, match="takes no token"):
                context.step(token)
        assert context.established
    assert theirs.unwrap(ours.wrap(b"still")) == b"still"


@pytest.mark.parametrize("bad", [b"token", b"\x60", None, b"\x60\x02\x06\x00"])
def test_k113_a_failed_acceptor_stays_failed(bad: bytes | None) -> None:
    ticket, keys = issue()
    context = acceptor(keys)
    with pytest.raises(KerberosError):
        context.step(bad)
    for token in (ap_req(ticket), None):
        with pytest.raises(ContextError, match="dead"):
            context.step(token)
    assert not context.established
    take(keys, ap_req(ticket))


def test_k113_a_failed_initiator_stays_failed() -> None:
    ticket, keys = issue()
    ours, control = Initiator(ticket), Initiator(ticket)
    reply = acceptor(keys).step(ours.step())
    other = acceptor(keys).step(control.step())
    with pytest.raises(KerberosError):
        ours.step(other)
    with pytest.raises(ContextError, match="dead"):
        ours.step(reply)
    assert not ours.established
    control.step(other)
    assert control.established


def test_k113_steps_that_do_not_fit_the_role() -> None:
    ticket, keys = issue()
    with pytest.raises(ContextError, match="first step takes no token"):
        Initiator(ticket).step(b"\x60\x00")
    waiting = Initiator(ticket)
    waiting.step()
    with pytest.raises(MutualAuthenticationError, match="without a token"):
        waiting.step()
    with pytest.raises(ContextError, match="needs the initiator's token"):
        acceptor(keys).step()
    take(keys, Initiator(ticket).step())


def test_k113_a_closed_context_takes_and_gives_nothing() -> None:
    for context in pair():
        context.close()
        context.close()
        for call in CALLS.values():
            with pytest.raises(ContextError, match="closed"):
                call(context)
        with pytest.raises(ContextError, match="closed"):
            context.step(b"")
        assert not context.established
        assert not context.mutual


CALLS: dict[str, Callable[[Any], object]] = {
    "wrap": lambda c: c.wrap(b"data"),
    "wrap-signed": lambda c: c.wrap(b"data", sealed=False),
    "unwrap": lambda c: c.unwrap(bytes(60)),
    "get_mic": lambda c: c.get_mic(b"data"),
    "verify_mic": lambda c: c.verify_mic(b"data", bytes(28)),
    "wrap_size_limit": lambda c: c.wrap_size_limit(1000),
    "flags": lambda c: c.flags,
    "initiator": lambda c: c.initiator,
    "acceptor": lambda c: c.acceptor,
    "endtime": lambda c: c.endtime,
    "session_key": lambda c: c.session_key,
    "etype": lambda c: c.etype,
}
ACCEPTOR_CALLS: dict[str, Callable[[Any], object]] = {
    "delegated_credential": lambda c: c.delegated_credential,
    "channel_bound": lambda c: c.channel_bound,
    "authorization_data": lambda c: c.authorization_data,
}


@pytest.mark.parametrize("name", [*CALLS, *ACCEPTOR_CALLS])
def test_k114_a_half_open_context_gives_nothing(name: str) -> None:
    ticket, keys = issue()
    new, waiting, failed = Initiator(ticket), Initiator(ticket), Initiator(ticket)
    waiting.step()
    with pytest.raises(ContextError):
        failed.step(b"token")
    fresh, refused = acceptor(keys), acceptor(keys)
    with pytest.raises(DecodeError):
        refused.step(b"token")
    contexts: tuple[Initiator | Acceptor, ...] = (fresh, refused)
    if name in CALLS:
        contexts += (new, waiting, failed)
    call = (CALLS | ACCEPTOR_CALLS)[name]
    for context in contexts:
        assert not context.established
        assert not context.mutual
        with pytest.raises(ContextError):
            call(context)
    for context in pair():
        if name in CALLS or isinstance(context, Acceptor):
            try:
                call(context)
            except KerberosError as error:
                assert not isinstance(error, ContextError)  # noqa: PT017 - the noise that is unwrapped and verified


def test_k114_a_context_is_not_pickled_or_copied() -> None:
    import copy
    import pickle

    for context in (*pair(), Initiator(issue()[0]), acceptor([])):
        for export in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled or copied"):
                export(context)  # type: ignore[operator]


def test_an_expired_ticket_is_not_presented() -> None:
    ticket, _ = issue(now=now() - timedelta(hours=11))
    with pytest.raises(ContextError, match="expired"):
        Initiator(ticket).step()
    assert Initiator(ticket, enforce_expiry=False).step()
