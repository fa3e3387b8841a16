"""The embedded KDC: what it issues, what it refuses and how, and that nothing that arrives stops it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from impacket.krb5.pac import VALIDATION_INFO

from purekrb import Acceptor, ClientIdentity, Credential, Initiator, KdcClient, Keytab, crypto
from purekrb.constants import (
    AddressType,
    AuthDataType,
    ErrorCode,
    KdcOptions,
    KeyUsage,
    PaDataType,
    TicketFlags,
)
from purekrb.errors import TransportError
from purekrb.exchanges.authorization_data import relevant_entries
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import (
    ApReq,
    Authenticator,
    AuthorizationData,
    AuthorizationDataEntry,
    Checksum,
    EncryptedData,
    EncTicketPart,
    HostAddress,
    Ticket,
)
from purekrb.messages.kdc import EtypeInfo2, MethodData, PaData, TgsReq
from purekrb.messages.pac import Pac, PacBuffer
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm
from support.kdc_requests import (
    NONCE,
    Reply,
    as_req,
    ask_as,
    ask_tgs,
    enc_timestamp,
    enterprise,
    error_of,
    name,
    now,
    opened,
    tgs_req,
)
from support.values import replace

R = "EXAMPLE.TEST"
WEB = "HTTP/web.example.test"
SOAK = os.environ.get("PUREKRB_SOAK") == "1"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def realm() -> Realm:
    """A realm that runs nowhere: its KDC is asked in memory."""
    realm = Realm(R)
    realm.add_user("alice", "pw")
    realm.add_service(WEB)
    return realm


def user_key(etype: int = 18, password: str = "pw", salt: str = R + "alice") -> EncryptionKey:
    return crypto.string_to_key(etype, password, salt)


def tgt_of(realm: Realm, **fields: object) -> Reply:
    return ask_as(realm.handle, realm.name, "alice", user_key(salt=realm.name + "alice"), **fields)


def inside_of(reply: Reply, realm: Realm, service: str) -> EncTicketPart:
    """Return the ticket's encrypted part, opened with the service's key as the service would."""
    ticket = Ticket.decode(reply.message.ticket)
    (key,) = [
        entry.key
        for entry in realm.keytab(service)
        if (entry.kvno, entry.key.etype) == (ticket.enc_part.kvno, ticket.enc_part.etype)
    ]
    return EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, ticket.enc_part.cipher))


def code_of(reply: bytes) -> int:
    return error_of(reply).error_code


# -- the AS exchange ---------------------------------------------------------------------------------------------------


def test_a_preauthenticated_request_gets_a_tgt_whose_reply_and_ticket_agree(realm: Realm) -> None:
    reply = tgt_of(realm)
    part, inside = reply.part, inside_of(reply, realm, f"krbtgt/{R}")
    assert (part.nonce, part.srealm, part.sname) == (NONCE, R, name(f"krbtgt/{R}"))
    assert (reply.message.crealm, reply.message.cname) == (R, name("alice"))
    assert (inside.crealm, inside.cname) == (R, name("alice"))
    assert inside.key == part.key
    assert (inside.flags, inside.authtime, inside.starttime, inside.endtime) == (
        part.flags,
        part.authtime,
        part.starttime,
        part.endtime,
    )
    assert (
        part.flags
        == TicketFlags.INITIAL | TicketFlags.PRE_AUTHENT | TicketFlags.TRANSITED_POLICY_CHECKED
    )


def test_a_request_without_preauthentication_is_told_how_to_preauthenticate(realm: Realm) -> None:
    error = error_of(realm.handle(as_req(R, "alice", etype=(17, 18, 23))))
    assert error.error_code == ErrorCode.KDC_ERR_PREAUTH_REQUIRED
    assert (error.crealm, error.cname, error.sname) == (R, name("alice"), name(f"krbtgt/{R}"))
    assert error.e_data is not None
    hints = {pa.padata_type: pa.padata_value for pa in MethodData.decode(error.e_data).entries}
    assert hints[PaDataType.ENC_TIMESTAMP] == b""
    entries = EtypeInfo2.decode(hints[PaDataType.ETYPE_INFO2]).entries
    assert [(e.etype, e.salt, e.s2kparams) for e in entries] == [
        (17, b"EXAMPLE.TESTalice", None),
        (18, b"EXAMPLE.TESTalice", None),
    ]


def test_salt_and_iterations_of_a_user_are_told_and_used(realm: Realm) -> None:
    realm.add_user("alice", "pw", salt="pepper", iterations=77)
    error = error_of(realm.handle(as_req(R, "alice", etype=(18,))))
    assert error.e_data is not None
    (info,) = [
        pa
        for pa in MethodData.decode(error.e_data).entries
        if pa.padata_type == PaDataType.ETYPE_INFO2
    ]
    (entry,) = EtypeInfo2.decode(info.padata_value).entries
    assert (entry.salt, entry.s2kparams) == (b"pepper", (77).to_bytes(4, "big"))
    key = crypto.string_to_key(18, "pw", "pepper", entry.s2kparams)
    assert ask_as(realm.handle, R, "alice", key).part.nonce == NONCE
    assert code_of(realm.handle(as_req(R, "alice", padata=[enc_timestamp(user_key())]))) == (
        ErrorCode.KDC_ERR_PREAUTH_FAILED
    )


def test_a_user_without_preauth_needs_none_and_gets_no_pre_authent_flag(realm: Realm) -> None:
    realm.add_user("alice", "pw", preauth=False)
    reply = opened(realm.handle(as_req(R, "alice")), user_key(), KeyUsage.AS_REP_ENC_PART)
    assert not reply.part.flags & TicketFlags.PRE_AUTHENT
    (info,) = [pa for pa in reply.message.padata if pa.padata_type == PaDataType.ETYPE_INFO2]
    assert [e.etype for e in EtypeInfo2.decode(info.padata_value).entries] == [18]


def test_a_wrong_password_fails_preauthentication_and_repeats_the_hints(realm: Realm) -> None:
    error = error_of(
        realm.handle(as_req(R, "alice", padata=[enc_timestamp(user_key(password="wrong"))]))
    )
    assert error.error_code == ErrorCode.KDC_ERR_PREAUTH_FAILED
    assert error.e_data is not None
    assert PaDataType.ETYPE_INFO2 in [
        pa.padata_type for pa in MethodData.decode(error.e_data).entries
    ]


@pytest.mark.parametrize("offset", [-3600, 3600])
def test_a_timestamp_outside_the_skew_is_refused_with_the_kdcs_time(
    realm: Realm, offset: int
) -> None:
    stamped = as_req(R, "alice", padata=[enc_timestamp(user_key())])
    realm.clock_offset = offset
    error = error_of(realm.handle(stamped))
    assert error.error_code == ErrorCode.KRB_AP_ERR_SKEW
    assert abs((error.stime - now()).total_seconds() - offset) < 5
    realm.clock_offset = 0
    assert opened(realm.handle(stamped), user_key(), KeyUsage.AS_REP_ENC_PART)


@pytest.mark.parametrize(
    ("client", "fields", "code"),
    [
        pytest.param("nobody", {}, ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN, id="unknown-client"),
        pytest.param("ALICE", {}, ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN, id="case-counts"),
        pytest.param(None, {}, ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN, id="no-client"),
        pytest.param(
            "alice",
            {"realm": "OTHER.TEST"},
            ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN,
            id="other-realm",
        ),
        pytest.param(
            "alice",
            {"sname": name("x/y")},
            ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN,
            id="unknown-service",
        ),
        pytest.param(
            "alice", {"sname": None}, ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN, id="no-service"
        ),
        pytest.param(
            "alice",
            {"sname": name("off/x")},
            ErrorCode.KDC_ERR_SERVICE_REVOKED,
            id="disabled-service",
        ),
        pytest.param("gone", {}, ErrorCode.KDC_ERR_CLIENT_REVOKED, id="disabled-client"),
        pytest.param("stale", {}, ErrorCode.KDC_ERR_KEY_EXPIRED, id="expired-password"),
        pytest.param(
            "alice", {"etype": (23, 1, 3)}, ErrorCode.KDC_ERR_ETYPE_NOSUPP, id="no-common-etype"
        ),
        pytest.param("alice", {"etype": ()}, ErrorCode.KDC_ERR_ETYPE_NOSUPP, id="no-etype"),
        pytest.param(
            "alice",
            {"till": now() - timedelta(days=1)},
            ErrorCode.KDC_ERR_NEVER_VALID,
            id="till-passed",
        ),
        pytest.param(
            "alice",
            {"kdc_options": KdcOptions.POSTDATED},
            ErrorCode.KDC_ERR_CANNOT_POSTDATE,
            id="postdated",
        ),
        pytest.param(
            "alice",
            {"from_": now() + timedelta(hours=2)},
            ErrorCode.KDC_ERR_CANNOT_POSTDATE,
            id="from-later",
        ),
    ],
)
def test_as_requests_are_refused_with_the_code_that_says_why(
    realm: Realm, client: str | None, fields: dict[str, object], code: ErrorCode
) -> None:
    realm.add_user("gone", "pw", disabled=True)
    realm.add_user("stale", "pw", password_expired=True)
    realm.add_service("off/x", disabled=True)
    request = as_req(**({"realm": R} | fields), client=client, padata=[enc_timestamp(user_key())])
    assert code_of(realm.handle(request)) == code
    assert tgt_of(realm).part.nonce == NONCE


@pytest.mark.parametrize("etype", [17, 18, 19, 20, 23])
def test_each_encryption_type_serves_for_reply_session_and_ticket(etype: int) -> None:
    realm = Realm(R, etypes=(etype,))
    realm.add_user("alice", "pw")
    realm.add_service(WEB)
    tgt = ask_as(realm.handle, R, "alice", user_key(etype), etype=(18, 17, 20, 19, 23))
    assert tgt.message.enc_part.etype == etype
    ticket = ask_tgs(realm.handle, tgt, R, WEB, etype=(18, 17, 20, 19, 23))
    assert ticket.key.etype == etype
    assert Ticket.decode(ticket.message.ticket).enc_part.etype == etype
    assert inside_of(ticket, realm, WEB).key == ticket.key


def test_rc4_is_there_only_for_who_asks_for_it(realm: Realm) -> None:
    assert all(entry.key.etype != 23 for entry in realm.keytab(WEB))
    assert not realm._uses_rc4
    realm.add_service("old/x", etypes=(23,))
    assert realm._uses_rc4
    ticket = ask_tgs(realm.handle, tgt_of(realm), R, "old/x", etype=(18, 23))
    assert (ticket.key.etype, Ticket.decode(ticket.message.ticket).enc_part.etype) == (23, 23)


def test_the_first_etype_of_the_client_that_each_key_has_is_taken(realm: Realm) -> None:
    realm.add_user("alice", "pw", etypes=(18, 17))
    realm.add_service("multi/x", etypes=(20, 17))
    tgt = ask_as(realm.handle, R, "alice", user_key(17), etype=(19, 17, 18))
    assert (tgt.message.enc_part.etype, tgt.key.etype) == (17, 19)  # the TGS has 19, alice does not
    ticket = ask_tgs(realm.handle, tgt, R, "multi/x", etype=(18, 17, 20))
    assert ticket.key.etype == 17  # the client's order, of what the service supports
    assert Ticket.decode(ticket.message.ticket).enc_part.etype == 20  # the service's order alone


def test_enc_pa_rep_proves_the_request_and_sets_the_flag(realm: Realm) -> None:
    request = as_req(
        R, "alice", padata=[enc_timestamp(user_key()), PaData(PaDataType.ENC_PA_REP, b"")]
    )
    part = opened(realm.handle(request), user_key(), KeyUsage.AS_REP_ENC_PART).part
    assert part.flags & TicketFlags.ENC_PA_REP
    assert part.encrypted_pa_data is not None
    (proof,) = [pa for pa in part.encrypted_pa_data if pa.padata_type == PaDataType.ENC_PA_REP]
    checksum = Checksum.decode(proof.padata_value)
    assert checksum.cksumtype == 16
    crypto.verify_checksum(user_key(), KeyUsage.AS_REQ_ENC_PA_REP, request, checksum.checksum)
    assert tgt_of(realm).part.encrypted_pa_data is None


def test_an_expired_password_still_gets_a_ticket_to_change_it(realm: Realm) -> None:
    realm.add_user("alice", "pw", password_expired=True)
    realm.add_service("kadmin/changepw")
    padata = [enc_timestamp(user_key())]
    assert code_of(realm.handle(as_req(R, "alice", padata=padata))) == ErrorCode.KDC_ERR_KEY_EXPIRED
    reply = realm.handle(as_req(R, "alice", service="kadmin/changepw", padata=padata))
    assert opened(reply, user_key(), KeyUsage.AS_REP_ENC_PART).part.sname == name("kadmin/changepw")


def test_aliases_and_enterprise_names_become_the_real_name_only_with_canonicalize(
    realm: Realm,
) -> None:
    realm.add_alias("al", "alice")
    realm.add_alias("HTTP/www.example.test", WEB)
    canonicalize = {"kdc_options": KdcOptions.CANONICALIZE}
    for cname in (name("al"), enterprise("alice@example.test"), enterprise(f"alice@{R}")):
        request = as_req(
            R, "alice", padata=[enc_timestamp(user_key())], cname=cname, **canonicalize
        )
        assert opened(
            realm.handle(request), user_key(), KeyUsage.AS_REP_ENC_PART
        ).message.cname == name("alice")
        request = as_req(R, "alice", padata=[enc_timestamp(user_key())], cname=cname)
        assert code_of(realm.handle(request)) == ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN
    tgt = tgt_of(realm)
    assert ask_tgs(realm.handle, tgt, R, "HTTP/www.example.test").part.sname == name(
        "HTTP/www.example.test"
    )
    assert ask_tgs(
        realm.handle, tgt, R, "HTTP/www.example.test", **canonicalize
    ).part.sname == name(WEB)


# -- times -------------------------------------------------------------------------------------------------------------


def test_lifetimes_are_the_least_of_request_realm_user_service_and_tgt() -> None:
    realm = Realm(R, lifetime=8000)
    realm.add_user("alice", "pw", lifetime=6000)
    realm.add_service("short/x", lifetime=1000)
    realm.add_service(WEB)

    def life(reply: Reply) -> float:
        assert reply.part.starttime is not None
        return (reply.part.endtime - reply.part.starttime).total_seconds()

    assert life(tgt_of(realm, till=EPOCH)) == 6000  # the epoch asks for the most there is
    assert life(tgt_of(realm, till=now() + timedelta(seconds=500))) == pytest.approx(500, abs=3)
    tgt = tgt_of(realm, till=EPOCH)
    assert life(ask_tgs(realm.handle, tgt, R, "short/x", till=EPOCH)) == 1000
    assert ask_tgs(realm.handle, tgt, R, WEB, till=EPOCH).part.endtime == tgt.part.endtime
    realm.add_user("alice", "pw")
    assert life(tgt_of(realm, till=EPOCH)) == 8000


def test_renewable_tickets_are_renewed_until_renew_till_and_no_longer() -> None:
    realm = Realm(R, lifetime=3600, renewable_lifetime=7200)
    realm.add_user("alice", "pw")
    tgt = tgt_of(
        realm, kdc_options=KdcOptions.RENEWABLE, till=EPOCH, rtime=now() + timedelta(days=30)
    )
    assert tgt.part.flags & TicketFlags.RENEWABLE
    assert tgt.part.renew_till is not None
    assert tgt.part.renew_till - tgt.part.authtime == timedelta(seconds=7200)
    realm.clock_offset = 3000
    later = {
        "authenticator": lambda a: replace(a, ctime=a.ctime + timedelta(seconds=realm.clock_offset))
    }
    krbtgt = f"krbtgt/{R}"
    renew = {"kdc_options": KdcOptions.RENEW, "till": EPOCH}
    reply = realm.handle(tgs_req(tgt, R, krbtgt, **renew, **later))
    renewed = opened(reply, tgt.key, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY)
    assert renewed.part.endtime > tgt.part.endtime
    assert renewed.part.endtime - renewed.part.starttime == timedelta(seconds=3600)
    assert (renewed.part.authtime, renewed.part.renew_till) == (
        tgt.part.authtime,
        tgt.part.renew_till,
    )
    assert not renewed.part.flags & TicketFlags.INITIAL
    assert renewed.key != tgt.key
    realm.clock_offset = 6000
    reply = realm.handle(tgs_req(renewed, R, krbtgt, **renew, **later))
    assert (
        opened(reply, renewed.key, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY).part.endtime
        == tgt.part.renew_till
    )
    realm.clock_offset = 7100
    assert (
        code_of(realm.handle(tgs_req(renewed, R, WEB, **renew, **later)))
        == ErrorCode.KRB_AP_ERR_TKT_EXPIRED
    )


def test_renewing_asks_for_a_renewable_ticket_and_the_same_service(realm: Realm) -> None:
    krbtgt = f"krbtgt/{R}"
    renew = {"kdc_options": KdcOptions.RENEW}
    assert (
        code_of(realm.handle(tgs_req(tgt_of(realm), R, krbtgt, **renew)))
        == ErrorCode.KDC_ERR_BADOPTION
    )
    tgt = tgt_of(realm, kdc_options=KdcOptions.RENEWABLE)
    assert code_of(realm.handle(tgs_req(tgt, R, WEB, **renew))) == ErrorCode.KDC_ERR_SERVER_NOMATCH
    assert ask_tgs(realm.handle, tgt, R, krbtgt, **renew).part.flags & TicketFlags.RENEWABLE


def test_a_service_ticket_too_is_renewed_but_serves_for_nothing_else(realm: Realm) -> None:
    realm.add_service("other/x")
    tgt = tgt_of(realm, kdc_options=KdcOptions.RENEWABLE)
    ticket = ask_tgs(realm.handle, tgt, R, WEB, kdc_options=KdcOptions.RENEWABLE)
    renewed = ask_tgs(realm.handle, ticket, R, WEB, kdc_options=KdcOptions.RENEW)
    assert inside_of(renewed, realm, WEB).key == renewed.key
    for service in (WEB, "other/x"):
        assert code_of(realm.handle(tgs_req(ticket, R, service))) == ErrorCode.KRB_AP_ERR_NOT_US
    refused = realm.handle(tgs_req(ticket, R, "other/x", kdc_options=KdcOptions.RENEW))
    assert code_of(refused) == ErrorCode.KDC_ERR_SERVER_NOMATCH


def test_renewable_ok_makes_a_ticket_renewable_only_where_it_would_be_too_short(
    realm: Realm,
) -> None:
    short = tgt_of(realm, kdc_options=KdcOptions.RENEWABLE_OK, till=now() + timedelta(hours=1))
    assert not short.part.flags & TicketFlags.RENEWABLE
    long = tgt_of(realm, kdc_options=KdcOptions.RENEWABLE_OK, till=now() + timedelta(hours=24))
    assert long.part.flags & TicketFlags.RENEWABLE


# -- the TGS exchange --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_subkey", [False, True])
def test_a_tgt_gets_a_service_ticket_under_session_key_or_subkey(
    realm: Realm, with_subkey: bool
) -> None:
    subkey = crypto.random_key(20) if with_subkey else None
    tgt = tgt_of(realm)
    reply = ask_tgs(realm.handle, tgt, R, WEB, subkey=subkey)
    assert (reply.part.sname, reply.part.srealm, reply.part.nonce) == (name(WEB), R, NONCE)
    inside = inside_of(reply, realm, WEB)
    assert (inside.cname, inside.crealm, inside.key) == (name("alice"), R, reply.key)
    assert inside.authtime == tgt.part.authtime
    assert reply.part.flags & TicketFlags.PRE_AUTHENT
    assert not reply.part.flags & TicketFlags.INITIAL


def _other_type(authenticator: Authenticator) -> Authenticator:
    assert authenticator.cksum is not None
    return replace(authenticator, cksum=replace(authenticator.cksum, cksumtype=7))


def _flipped(message: ApReq) -> ApReq:
    sealed = bytearray(message.authenticator.cipher)
    sealed[20] ^= 1
    return replace(message, authenticator=replace(message.authenticator, cipher=bytes(sealed)))


def _ticket(change: object) -> object:
    def changed(message: ApReq) -> ApReq:
        ticket = Ticket.decode(message.ticket)
        return replace(message, ticket=change(ticket).encode())  # type: ignore[operator]

    return changed


def _enc_part(**fields: object) -> object:
    return _ticket(lambda ticket: replace(ticket, enc_part=replace(ticket.enc_part, **fields)))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param(
            {"signed_body": b"another"}, ErrorCode.KRB_AP_ERR_MODIFIED, id="body-modified"
        ),
        pytest.param(
            {"authenticator": lambda a: replace(a, cksum=None)},
            ErrorCode.KRB_AP_ERR_INAPP_CKSUM,
            id="no-checksum",
        ),
        pytest.param(
            {"authenticator": _other_type},
            ErrorCode.KRB_AP_ERR_INAPP_CKSUM,
            id="checksum-not-keyed",
        ),
        pytest.param(
            {"authenticator": lambda a: replace(a, cname=name("bob"))},
            ErrorCode.KRB_AP_ERR_BADMATCH,
            id="other-cname",
        ),
        pytest.param(
            {"authenticator": lambda a: replace(a, crealm="B.TEST")},
            ErrorCode.KRB_AP_ERR_BADMATCH,
            id="other-crealm",
        ),
        pytest.param(
            {"authenticator": lambda a: replace(a, ctime=a.ctime - timedelta(hours=1))},
            ErrorCode.KRB_AP_ERR_SKEW,
            id="authenticator-too-old",
        ),
        pytest.param(
            {"authenticator": lambda a: replace(a, ctime=a.ctime + timedelta(hours=1))},
            ErrorCode.KRB_AP_ERR_SKEW,
            id="authenticator-from-the-future",
        ),
        pytest.param(
            {"ap_req": _flipped}, ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, id="authenticator-flipped"
        ),
        pytest.param(
            {"session_key": crypto.random_key(18)},
            ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
            id="other-session-key",
        ),
        pytest.param(
            {"ap_req": _enc_part(cipher=bytes(200))},
            ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
            id="forged-ticket",
        ),
        pytest.param(
            {"ap_req": _enc_part(kvno=9)}, ErrorCode.KRB_AP_ERR_BADKEYVER, id="unknown-kvno"
        ),
        pytest.param(
            {"ap_req": _enc_part(etype=23)}, ErrorCode.KRB_AP_ERR_BADKEYVER, id="unknown-etype"
        ),
        pytest.param(
            {"ap_req": _ticket(lambda t: replace(t, realm="B.TEST"))},
            ErrorCode.KRB_AP_ERR_NOT_US,
            id="other-issuer",
        ),
        pytest.param(
            {"ap_req": _ticket(lambda t: replace(t, sname=name(WEB)))},
            ErrorCode.KRB_AP_ERR_NOT_US,
            id="not-a-tgt",
        ),
        pytest.param(
            {"ap_req": _ticket(lambda t: replace(t, tkt_vno=4))},
            ErrorCode.KRB_AP_ERR_BADVERSION,
            id="ticket-version",
        ),
        pytest.param(
            {"ap_req": lambda m: replace(m, msg_type=12)},
            ErrorCode.KRB_AP_ERR_MSG_TYPE,
            id="message-type",
        ),
        pytest.param(
            {"service": "x/y"}, ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN, id="unknown-service"
        ),
        pytest.param(
            {"service": "krbtgt/B.TEST"}, ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN, id="unknown-realm"
        ),
        pytest.param(
            {"realm": "B.TEST"},
            ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN,
            id="service-of-another-realm",
        ),
        pytest.param({"service": None}, ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN, id="no-service"),
        pytest.param(
            {"service": "off/x"}, ErrorCode.KDC_ERR_SERVICE_REVOKED, id="disabled-service"
        ),
        pytest.param({"etype": (23,)}, ErrorCode.KDC_ERR_ETYPE_NOSUPP, id="no-common-etype"),
        pytest.param(
            {"subkey": EncryptionKey(16, bytes(24))},
            ErrorCode.KDC_ERR_ETYPE_NOSUPP,
            id="subkey-of-des3",
        ),
        pytest.param(
            {"kdc_options": KdcOptions.FORWARDED}, ErrorCode.KDC_ERR_BADOPTION, id="not-forwardable"
        ),
        pytest.param({"kdc_options": KdcOptions.PROXY}, ErrorCode.KDC_ERR_BADOPTION, id="proxy"),
        pytest.param(
            {"kdc_options": KdcOptions.VALIDATE}, ErrorCode.KDC_ERR_BADOPTION, id="validate"
        ),
        pytest.param(
            {"kdc_options": KdcOptions.ENC_TKT_IN_SKEY},
            ErrorCode.KDC_ERR_BADOPTION,
            id="user-to-user",
        ),
        pytest.param(
            {"till": now() - timedelta(days=1)}, ErrorCode.KDC_ERR_NEVER_VALID, id="till-passed"
        ),
    ],
)
def test_tgs_requests_are_refused_with_the_code_that_says_why(
    realm: Realm, changes: dict[str, object], code: ErrorCode
) -> None:
    realm.add_service("off/x", disabled=True)
    tgt = tgt_of(realm)
    request = {"realm": R, "service": WEB}
    assert ask_tgs(realm.handle, tgt, R, WEB).part.nonce == NONCE
    assert code_of(realm.handle(tgs_req(tgt, **(request | changes)))) == code  # type: ignore[arg-type]


def test_a_tgs_request_without_a_ticket_is_refused(realm: Realm) -> None:
    request = TgsReq.decode(tgs_req(tgt_of(realm), R, WEB))
    assert realm.handle(request.encode())[:1] == b"\x6d"
    for padata in ((), (PaData(PaDataType.PAC_REQUEST, b""),)):
        without = replace(request, padata=padata).encode()
        assert code_of(realm.handle(without)) == ErrorCode.KDC_ERR_PADATA_TYPE_NOSUPP


def test_tickets_expire_and_are_not_valid_before_their_time(realm: Realm) -> None:
    tgt = tgt_of(realm, till=now() + timedelta(minutes=10))

    def asked(offset: float) -> bytes:
        realm.clock_offset = offset
        shift = timedelta(seconds=offset)
        return realm.handle(
            tgs_req(
                tgt, R, WEB, authenticator=lambda a: replace(a, ctime=a.ctime + shift), till=EPOCH
            )
        )

    assert opened(asked(0), tgt.key, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY)
    assert (
        code_of(asked(700)) == ErrorCode.KDC_ERR_NEVER_VALID
    )  # expired, though not by more than the skew
    assert code_of(asked(1200)) == ErrorCode.KRB_AP_ERR_TKT_EXPIRED
    assert code_of(asked(-1200)) == ErrorCode.KRB_AP_ERR_TKT_NYV


def test_forwarded_tickets_come_of_forwardable_ones_and_take_the_new_addresses(
    realm: Realm,
) -> None:
    here, there = (
        HostAddress(AddressType.IPV4, b"\x7f\0\0\1"),
        HostAddress(AddressType.IPV4, b"\x0a\0\0\1"),
    )
    tgt = tgt_of(realm, kdc_options=KdcOptions.FORWARDABLE, addresses=(here,))
    assert (tgt.part.flags & TicketFlags.FORWARDABLE, tgt.part.caddr) == (
        TicketFlags.FORWARDABLE,
        (here,),
    )
    assert ask_tgs(realm.handle, tgt, R, WEB, addresses=(there,)).part.caddr == (here,)
    assert (
        not ask_tgs(realm.handle, tgt, R, WEB).part.flags & TicketFlags.FORWARDABLE
    )  # not asked for this time
    options = KdcOptions.FORWARDED | KdcOptions.FORWARDABLE
    forwarded = ask_tgs(
        realm.handle, tgt, R, f"krbtgt/{R}", kdc_options=options, addresses=(there,)
    )
    assert forwarded.part.flags & TicketFlags.FORWARDED
    assert forwarded.part.flags & TicketFlags.FORWARDABLE
    assert forwarded.part.caddr == (there,)
    with_it = ask_tgs(realm.handle, forwarded, R, WEB)
    assert with_it.part.flags & TicketFlags.FORWARDED


def test_ok_as_delegate_is_a_flag_of_services_that_have_it(realm: Realm) -> None:
    realm.add_service("deleg/x", ok_as_delegate=True)
    tgt = tgt_of(realm)
    assert ask_tgs(realm.handle, tgt, R, "deleg/x").part.flags & TicketFlags.OK_AS_DELEGATE
    assert not ask_tgs(realm.handle, tgt, R, WEB).part.flags & TicketFlags.OK_AS_DELEGATE


@pytest.mark.parametrize("with_subkey", [False, True])
def test_authorization_data_of_the_client_end_up_in_the_ticket(
    realm: Realm, with_subkey: bool
) -> None:
    entry = AuthorizationDataEntry(AuthDataType.IF_RELEVANT, b"\x30\0")
    tgt = tgt_of(realm)
    subkey = crypto.random_key(18) if with_subkey else None
    key, usage = (subkey, 5) if subkey else (tgt.key, 4)
    sealed = EncryptedData(
        key.etype, None, crypto.encrypt(key, usage, AuthorizationData((entry,)).encode())
    )
    reply = ask_tgs(realm.handle, tgt, R, WEB, subkey=subkey, enc_authorization_data=sealed)
    assert inside_of(reply, realm, WEB).authorization_data == (entry,)
    broken = replace(sealed, cipher=bytes(64))
    request = tgs_req(tgt, R, WEB, subkey=subkey, enc_authorization_data=broken)
    assert code_of(realm.handle(request)) == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY


# -- keys change -------------------------------------------------------------------------------------------------------


def test_a_changed_key_gets_the_next_kvno_and_new_tickets_use_it(realm: Realm) -> None:
    old = realm.keytab(WEB)
    tgt = tgt_of(realm)
    new = realm.change_key(WEB)
    assert ({e.kvno for e in old}, {e.kvno for e in new}) == ({1}, {2})
    assert all(a.key != b.key for a, b in zip(old, new, strict=True))
    reply = ask_tgs(realm.handle, tgt, R, WEB)
    assert Ticket.decode(reply.message.ticket).enc_part.kvno == 2
    assert inside_of(reply, realm, WEB).key == reply.key


def test_a_tgt_under_the_former_key_of_the_tgs_still_serves(realm: Realm) -> None:
    before = tgt_of(realm)
    realm.change_key(f"krbtgt/{R}")
    after = tgt_of(realm)
    kvnos = [Ticket.decode(t.message.ticket).enc_part.kvno for t in (before, after)]
    assert kvnos == [1, 2]
    for tgt in (before, after):
        assert ask_tgs(realm.handle, tgt, R, WEB).part.sname == name(WEB)


def test_kvnos_are_those_asked_for_even_beyond_one_byte(realm: Realm) -> None:
    keytab = realm.add_service("big/x", kvno=70000)
    assert {entry.kvno for entry in keytab} == {70000}
    realm.add_user("alice", "pw", kvno=300)
    tgt = tgt_of(realm)
    assert tgt.message.enc_part.kvno == 300
    reply = ask_tgs(realm.handle, tgt, R, "big/x")
    assert Ticket.decode(reply.message.ticket).enc_part.kvno == 70000


def test_the_keytab_of_a_user_holds_the_keys_of_the_password(realm: Realm) -> None:
    keys = {entry.key.etype: entry.key for entry in realm.keytab("alice")}
    assert sorted(keys) == [17, 18, 19, 20]
    assert all(key == user_key(etype) for etype, key in keys.items())


# -- other realms ------------------------------------------------------------------------------------------------------


def chain(*names: str) -> list[Realm]:
    """Return realms of which each trusts the next."""
    realms = [Realm(name) for name in names]
    for one, following in itertools.pairwise(realms):
        one.trust(following)
    realms[0].add_user("alice", "pw")
    realms[-1].add_service("host/far.c.test")
    return realms


def test_a_referral_leads_through_trusted_realms_to_the_service() -> None:
    a, b, c = chain("A.TEST", "B.TEST", "C.TEST")
    tgt = tgt_of(a)
    referral = ask_tgs(
        a.handle, tgt, "A.TEST", "host/far.c.test", kdc_options=KdcOptions.CANONICALIZE
    )
    assert (referral.part.sname, referral.part.srealm) == (name("krbtgt/B.TEST"), "A.TEST")
    further = ask_tgs(
        b.handle, referral, "B.TEST", "host/far.c.test", kdc_options=KdcOptions.CANONICALIZE
    )
    assert (further.part.sname, further.part.srealm) == (name("krbtgt/C.TEST"), "B.TEST")
    reply = ask_tgs(c.handle, further, "C.TEST", "host/far.c.test")
    inside = inside_of(reply, c, "host/far.c.test")
    assert (inside.crealm, inside.cname) == ("A.TEST", name("alice"))
    assert inside.transited.contents == b"B.TEST"
    assert not inside.flags & TicketFlags.INITIAL


def test_without_canonicalize_there_is_no_referral_but_the_next_tgt_on_the_way() -> None:
    a, _, _ = chain("A.TEST", "B.TEST", "C.TEST")
    tgt = tgt_of(a)
    assert (
        code_of(a.handle(tgs_req(tgt, "A.TEST", "host/far.c.test")))
        == ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN
    )
    assert ask_tgs(a.handle, tgt, "A.TEST", "krbtgt/C.TEST").part.sname == name("krbtgt/B.TEST")


def test_four_realms_leave_two_in_transited() -> None:
    realms = chain("A.TEST", "B.TEST", "C.TEST", "D.TEST")
    ticket = tgt_of(realms[0])
    for realm in realms:
        ticket = ask_tgs(
            realm.handle, ticket, realm.name, "host/far.c.test", kdc_options=KdcOptions.CANONICALIZE
        )
    assert inside_of(ticket, realms[-1], "host/far.c.test").transited.contents == b"B.TEST,C.TEST"


def test_a_trusted_realm_cannot_speak_for_clients_of_this_one() -> None:
    a, b = chain("A.TEST", "B.TEST")
    # B forges: a ticket for krbtgt/A.TEST, under the key both have, that names a client of A.
    cross = ask_tgs(a.handle, tgt_of(a), "A.TEST", "krbtgt/B.TEST")
    b.add_user("mallory", "pw")
    own = ask_as(b.handle, "B.TEST", "mallory", user_key(salt="B.TESTmallory"))
    back = ask_tgs(b.handle, own, "B.TEST", "krbtgt/A.TEST")
    a.add_service("host/here.a.test")
    assert ask_tgs(a.handle, back, "A.TEST", "host/here.a.test").message.crealm == "B.TEST"
    inside = inside_of(back, b, "krbtgt/A.TEST")
    (key,) = [e.key for e in b.keytab("krbtgt/A.TEST") if e.key.etype == 18]
    forged = replace(inside, crealm="A.TEST", cname=name("alice"))
    ticket = Ticket.decode(back.message.ticket)
    sealed = replace(ticket.enc_part, cipher=crypto.encrypt(key, KeyUsage.TICKET, forged.encode()))
    message = replace(
        back.message,
        crealm="A.TEST",
        cname=name("alice"),
        ticket=replace(ticket, enc_part=sealed).encode(),
    )
    request = tgs_req(Reply(message, back.part), "A.TEST", "host/here.a.test")
    assert code_of(a.handle(request)) == ErrorCode.KDC_ERR_POLICY
    assert cross.part.sname == name("krbtgt/B.TEST")


def test_an_enterprise_name_of_a_trusted_realm_is_sent_there() -> None:
    a, _ = chain("A.TEST", "B.TEST")
    request = as_req(
        "A.TEST", "x", cname=enterprise("bob@b.test"), kdc_options=KdcOptions.CANONICALIZE
    )
    error = error_of(a.handle(request))
    assert (error.error_code, error.crealm) == (ErrorCode.KDC_ERR_WRONG_REALM, "B.TEST")


def test_realms_without_a_common_etype_cannot_trust_each_other() -> None:
    with pytest.raises(ValueError, match="encryption type in common"):
        Realm("A.TEST", etypes=(18,)).trust(Realm("B.TEST", etypes=(20,)))
    Realm("A.TEST", etypes=(18, 20)).trust(Realm("B.TEST", etypes=(20,)))


# -- hostile bytes -----------------------------------------------------------------------------------------------------


def test_every_truncation_of_a_request_gets_an_error(realm: Realm) -> None:
    for request in (
        as_req(R, "alice", padata=[enc_timestamp(user_key())]),
        tgs_req(tgt_of(realm), R, WEB),
    ):
        assert realm.handle(request)[:1] in (b"\x6b", b"\x6d")
        for size in range(len(request)):
            assert error_of(realm.handle(request[:size])).error_code in (40, 60)


def test_flipped_bytes_of_a_request_get_an_answer_and_no_internal_error(
    realm: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "purekrb")
    for request in (
        as_req(R, "alice", padata=[enc_timestamp(user_key())]),
        tgs_req(tgt_of(realm), R, WEB),
    ):
        for at in range(0, len(request), 1 if SOAK else 3):
            for flip in (0x01, 0x80, 0xFF):
                altered = bytearray(request)
                altered[at] ^= flip
                assert realm.handle(bytes(altered))[:1] in (b"\x6b", b"\x6d", b"\x7e")
    assert caplog.records == []
    assert tgt_of(realm).part.nonce == NONCE


def test_random_bytes_get_errors(realm: Realm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "purekrb")
    numbers = random.Random(4120)
    for first in (b"", b"\x6a", b"\x6c", b"\x7e", b"\0"):
        for _ in range(200):
            error_of(realm.handle(first + numbers.randbytes(numbers.randrange(300))))
    assert caplog.records == []


@pytest.mark.parametrize(
    "components", [(), ("",), ("krbtgt", ""), ("krbtgt",), ("a",) * 200, ("\u00e4\u00f6/@\\",)]
)
def test_odd_names_get_errors_and_no_internal_error(
    realm: Realm, components: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "purekrb")
    odd = replace(name("x"), components=components)
    for cname in (odd, replace(odd, name_type=10)):
        request = as_req(R, "x", cname=cname, kdc_options=KdcOptions.CANONICALIZE)
        assert code_of(realm.handle(request)) == ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN
    request = tgs_req(tgt_of(realm), R, WEB, sname=odd, kdc_options=KdcOptions.CANONICALIZE)
    assert code_of(realm.handle(request)) == ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN
    assert caplog.records == []


# -- sockets -----------------------------------------------------------------------------------------------------------


def over_tcp(port: int, request: bytes, *, timeout: float = 5.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(len(request).to_bytes(4, "big") + request)
        return read_frame(connection)


def read_frame(connection: socket.socket) -> bytes:
    header = connection.recv(4, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)


def over_udp(port: int, request: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.settimeout(5.0)
        endpoint.sendto(request, ("127.0.0.1", port))
        return endpoint.recv(65536)


def preauth_required(reply: bytes) -> bool:
    return code_of(reply) == ErrorCode.KDC_ERR_PREAUTH_REQUIRED


@pytest.fixture
def running(realm: Realm) -> Iterator[Realm]:
    with realm:
        yield realm


def test_udp_and_tcp_answer_on_the_same_port(running: Realm) -> None:
    request = as_req(R, "alice")
    assert preauth_required(over_udp(running.port, request))
    assert preauth_required(over_tcp(running.port, request))


def test_many_requests_go_over_one_connection_even_in_one_segment(running: Realm) -> None:
    request = as_req(R, "alice")
    frame = len(request).to_bytes(4, "big") + request
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(frame * 3 + frame[:7])
        assert all(preauth_required(read_frame(connection)) for _ in range(3))
        connection.sendall(frame[7:])
        assert preauth_required(read_frame(connection))


def test_a_reply_too_long_for_udp_is_said_to_be_so_and_comes_over_tcp(running: Realm) -> None:
    request = as_req(R, "alice", padata=[enc_timestamp(user_key())])
    assert over_udp(running.port, request)[:1] == b"\x6b"
    running.udp_limit = 400
    assert code_of(over_udp(running.port, request)) == ErrorCode.KRB_ERR_RESPONSE_TOO_BIG
    assert over_tcp(running.port, request)[:1] == b"\x6b"


def test_starting_takes_less_than_100_ms() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        with Realm(R) as realm:
            realm.add_user("alice", "pw")
            realm.add_service(WEB)
            return time.perf_counter() - started

    assert any(seconds() < 0.1 for _ in range(20)), (
        "other load makes it slower, and nothing makes it faster"
    )


def test_an_oversized_frame_is_refused_before_its_bytes_come(running: Realm) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(b"\x7f\xff\xff\xff")
        assert code_of(read_frame(connection)) == ErrorCode.KRB_ERR_FIELD_TOOLONG
        assert connection.recv(1) == b""
    assert preauth_required(over_tcp(running.port, as_req(R, "alice")))


@pytest.mark.parametrize(
    "sent",
    [b"\0", b"\0\0\0\0", b"\0\0\0\x05hello", b"GET / HTTP/1.0\r\n\r\n", bytes(3000)],
    ids=range(5),
)
def test_garbage_and_hangups_do_not_stop_the_kdc(running: Realm, sent: bytes) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
            connection.sendall(sent)
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )  # close by reset
        error_of(over_udp(running.port, sent))
    assert preauth_required(over_tcp(running.port, as_req(R, "alice")))
    assert preauth_required(over_udp(running.port, as_req(R, "alice")))


def test_slow_and_silent_clients_do_not_keep_others_waiting(running: Realm) -> None:
    request = as_req(R, "alice")
    frame = len(request).to_bytes(4, "big") + request
    with contextlib.ExitStack() as stack:
        silent, half, deaf = (
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=5))
            for _ in range(3)
        )
        half.sendall(frame[:20])
        deaf.setblocking(False)
        assert deaf.send(frame * 10_000) > 100 * len(
            frame
        )  # asks hundreds of times at once and never reads
        started = time.perf_counter()
        assert preauth_required(over_tcp(running.port, request))
        assert preauth_required(over_udp(running.port, request))
        assert time.perf_counter() - started < 4
        half.sendall(frame[20:])
        assert preauth_required(read_frame(half))
        silent.sendall(frame)
        assert preauth_required(read_frame(silent))


def test_an_idle_connection_is_closed(running: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purekrb.testing.realm._IDLE", 0.05)
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(b"\0\0")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert preauth_required(over_tcp(running.port, as_req(R, "alice")))


def test_threads_ask_at_the_same_time(running: Realm) -> None:
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(5):
                tgt = ask_as(
                    lambda request: over_tcp(running.port, request), R, "alice", user_key()
                )
                ask_tgs(lambda request: over_udp(running.port, request), tgt, R, WEB)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_stopped_kdc_is_gone_and_comes_back_on_the_same_port(realm: Realm) -> None:
    with pytest.raises(TransportError, match="has no port yet"):
        _ = realm.port
    realm.start()
    port = realm.port
    open_connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    with open_connection:
        open_connection.sendall(b"\0")
        preauth_required(over_tcp(port, as_req(R, "alice")))
        realm.stop()
        realm.stop()
        with contextlib.suppress(ConnectionResetError):
            assert open_connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        over_tcp(port, as_req(R, "alice"))
    with realm:
        assert realm.port == port
        assert preauth_required(over_tcp(port, as_req(R, "alice")))
        with pytest.raises(TransportError, match="already running"):
            realm.start()
        with pytest.raises(TransportError, match="is taken"):
            Realm("B.TEST", port=port).start()


def test_config_and_krb5_conf_name_every_realm_that_trusts_lead_to(tmp_path: object) -> None:
    a, b, c = chain("A.TEST", "B.TEST", "C.TEST")
    with a, b, c:
        assert a.config.default_realm == "A.TEST"
        assert {name: [str(kdc) for kdc in r.kdc] for name, r in a.config.realms.items()} == {
            realm.name: [f"127.0.0.1:{realm.port}"] for realm in (a, b, c)
        }
        path = tmp_path / "krb5.conf"  # type: ignore[operator]
        a.write_krb5_conf(path, udp_preference_limit=1, forwardable=True)
        text = path.read_text()
        assert "forwardable = true" in text
        assert "udp_preference_limit = 1" in text
        assert all(f"kdc = 127.0.0.1:{realm.port}" in text for realm in (a, b, c))
        assert "allow_rc4" not in text
        c.add_service("old/x", etypes=(23,))
        a.write_krb5_conf(path)
        assert "allow_rc4 = true" in path.read_text()
        assert a.config.allow_rc4


# -- PACs

SID = "S-1-5-21-1111-2222-3333"


def pac_of(
    realm: Realm, keys: Keytab, user: Credential, service: str = "HTTP/web.example.test"
) -> Acceptor:
    """Return an acceptor that requires a PAC, and has got one."""
    ticket = KdcClient(realm.config).get_ticket(user, service)
    acceptor = Acceptor(keys, require_pac=True, replay_cache=MemoryReplayCache())
    acceptor.step(Initiator(ticket).step())
    return acceptor


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
@pytest.mark.parametrize("rodc", [None, 1, 0x1234, 0xFFFF])
def test_k428_a_realm_with_a_domain_issues_pacs_also_as_a_read_only_domain_controller(
    etype: int, rodc: int | None
) -> None:
    with Realm(R, domain_sid=SID, rodc_identifier=rodc, etypes=(etype,)) as realm:
        alice, bob = realm.add_user("alice", "pw"), realm.add_user("bob", "pw")
        keys = realm.add_service("HTTP/web.example.test")
        for user, number in ((alice, 1104), (bob, 1105), (alice, 1104)):
            acceptor = pac_of(realm, keys, user)
            name = user.principal.components[0]
            assert acceptor.identity == ClientIdentity(
                user.principal,
                has_pac=True,
                user_sid=f"{SID}-{number}",
                group_sids=(f"{SID}-513",),
                domain=R.partition(".")[0],
                name=name,
                full_name=name,
                upn=f"{name}@{R.lower()}",
                dns_domain=R,
            )
        entry = next(
            e
            for e in relevant_entries(acceptor.authorization_data)
            if e.ad_type == AuthDataType.WIN2K_PAC
        )
        pac = Pac.decode(entry.ad_data)
        kdc = realm.keytab(f"krbtgt/{R}").entries[0].key
        for kind in (6, 7, 16, 19):
            found = pac.signature(PacBuffer(kind))
            assert found is not None
            assert found.rodc_identifier == rodc
        server, counter = (
            pac.signature(PacBuffer.SERVER_CHECKSUM),
            pac.signature(PacBuffer.KDC_CHECKSUM),
        )
        assert server is not None
        assert counter is not None
        crypto.verify_checksum(
            kdc, KeyUsage.KERB_NON_KERB_CKSUM_SALT, server.signature, counter.signature
        )
        read = VALIDATION_INFO()  # by another decoder of NDR
        read.fromString(pac.buffer(PacBuffer.LOGON_INFO))
        read.fromStringReferents(pac.buffer(PacBuffer.LOGON_INFO)[len(read.getData()) :])
        assert str(read["Data"]["EffectiveName"]) == "alice"


def test_a_pac_crosses_realms_signed_anew_and_what_it_names_stays_foreign() -> None:
    with (
        Realm("A.TEST", domain_sid=SID) as a,
        Realm("B.TEST", domain_sid="S-1-5-21-4-5-6", rodc_identifier=7) as b,
    ):
        a.trust(b)
        keys = b.add_service("HTTP/web.b.test")
        theirs = pac_of(a, keys, a.add_user("alice", "pw"), "HTTP/web.b.test@B.TEST")
        assert theirs.identity.user_sid == f"{SID}-1104"
        assert str(theirs.identity) == "alice@A.TEST"
        assert str(pac_of(b, keys, b.add_user("bob", "pw"), "HTTP/web.b.test").identity) == "B\\bob"


def test_a_client_gets_no_pac_where_it_wants_none_or_the_realm_is_no_domain() -> None:
    for options, wanted in (({}, None), ({"domain_sid": SID}, False), ({"domain_sid": SID}, None)):
        with Realm(R, **options) as realm:  # type: ignore[arg-type]
            alice, keys = realm.add_user("alice", "pw"), realm.add_service("HTTP/web.example.test")
            client = KdcClient(realm.config)
            client.get_tgt(alice, pac_request=wanted)
            acceptor = Acceptor(keys)
            acceptor.step(Initiator(client.get_ticket(alice, "HTTP/web.example.test")).step())
            assert acceptor.identity.has_pac is (bool(options) and wanted is None)


def test_the_identifier_of_a_read_only_domain_controller_has_16_bits_and_a_domain() -> None:
    for options in ({"rodc_identifier": 1}, {"domain_sid": SID, "rodc_identifier": 0}):
        with pytest.raises(ValueError, match="1 to 65535"):
            Realm(R, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 to 65535"):
        Realm(R, domain_sid=SID, rodc_identifier=65536)


def test_the_plugin_gives_a_running_realm(krb_realm: Realm) -> None:
    krb_realm.add_user("alice", "pw")
    assert krb_realm.name == R
    assert preauth_required(over_tcp(krb_realm.port, as_req(R, "alice")))


def test_loading_the_plugin_loads_neither_impacket_nor_asyncio_nor_cryptography() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import purekrb.testing.pytest_plugin; "
        "new = {name for name in set(sys.modules) - before if not name.startswith('_')}; "
        "assert new <= {'purekrb', 'purekrb.testing', 'purekrb.testing.pytest_plugin'}, new"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("etypes", [(), (1,), (18, 99)])
def test_etypes_that_purekrb_does_not_have_are_refused(etypes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="etypes must be some of"):
        Realm(R, etypes=etypes)


def test_names_of_other_realms_and_of_nobody_are_refused(realm: Realm) -> None:
    realm.add_user(f"bob@{R}", "pw")
    with pytest.raises(ValueError, match="does not belong to the realm"):
        realm.add_user("bob@OTHER.TEST", "pw")
    with pytest.raises(ValueError, match="add it first"):
        realm.change_key("HTTP/nobody")
    with pytest.raises(ValueError, match="call add_user"):
        realm.change_key("bob")


def test_passwords_and_keys_do_not_show(realm: Realm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "purekrb")
    realm.add_user("alice", "open sesame")
    ask_as(realm.handle, R, "alice", user_key(password="open sesame"))
    shown = repr(realm) + repr(realm._kdc.accounts) + caplog.text
    assert "sesame" not in shown
    assert user_key(password="open sesame").contents.hex() not in shown
    assert "AS-REQ of alice" in caplog.text
