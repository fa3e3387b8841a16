"""The TGS exchange step by step: what is asked for, the way across realms, renewing, forwarding, and stored tickets."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

from purekrb.constants import KdcOptions, NameType, PaDataType, TicketFlags
from purekrb.credentials.ccache import CCache
from purekrb.errors import (
    ClockSkewError,
    CredentialError,
    IntegrityError,
    KdcError,
    KdcEtypeError,
    ProtocolError,
    ServiceUnknownError,
)
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.runner import KdcRequest, run
from purekrb.exchanges.tgs_exchange import (
    TgsOptions,
    forward_tgt,
    get_service_ticket,
    renew,
    tgs_exchange,
)
from purekrb.exchanges.tgs_request import TgsRequest, request_ticket
from purekrb.messages.ap import ApReq, HostAddress
from purekrb.messages.kdc import PaData, TgsReq
from purekrb.names import Principal, PrincipalName
from purekrb.system import random_bytes
from purekrb.testing import Realm
from support.scripted_kdc import ALICE, NOW, REALM, WEB, Password, ScriptedKdc, clock, issue_tgt
from support.values import replace

HERE = HostAddress(2, bytes([127, 0, 0, 1]))
ANYWHERE = Principal(WEB.components, "", NameType.SRV_HST)
FAR = WEB.name.principal("FAR.TEST")
RENEWABLE = TicketFlags.RENEWABLE | TicketFlags.FORWARDABLE


def get(
    kdc: ScriptedKdc,
    service: Principal = WEB,
    options: TgsOptions | None = None,
    *,
    tgt: Any = None,
    **more: Any,
) -> Any:
    return run(tgs_exchange(tgt or issue_tgt(), service, options, clock=clock, **more), kdc)


def test_the_request_carries_the_tgt_unchanged_and_a_fresh_subkey() -> None:
    kdc, tgt = ScriptedKdc(), issue_tgt()
    get(kdc, tgt=tgt)
    get(kdc, tgt=tgt)
    for request in kdc.seen:
        (pa,) = request.padata
        assert pa.padata_type == PaDataType.TGS_REQ
        assert ApReq.decode(pa.padata_value).ticket == tgt.ticket
        assert request.req_body.cname is None
    first, second = (a.subkey for a in kdc.authenticators)
    assert first is not None
    assert first != second
    assert first != tgt.session_key


def test_what_is_asked_for_follows_from_the_tgt_and_the_options() -> None:
    kdc = ScriptedKdc()
    tgt = issue_tgt(flags=RENEWABLE, renew_till=NOW + timedelta(days=5))
    get(kdc, tgt=tgt)
    body = kdc.seen[0].req_body
    assert (
        body.kdc_options == KdcOptions.CANONICALIZE | KdcOptions.RENEWABLE | KdcOptions.FORWARDABLE
    )
    assert (body.till, body.rtime) == (tgt.endtime, tgt.renew_till)
    assert (body.realm, body.sname, body.etype, body.addresses) == (
        REALM,
        WEB.name,
        (18, 17, 20, 19),
        None,
    )
    get(kdc, options=TgsOptions(canonicalize=False, lifetime=60.0, etypes=(20,)))
    body = kdc.seen[1].req_body
    assert body.kdc_options == KdcOptions.FORWARDABLE
    assert (body.till, body.etype) == (NOW + timedelta(seconds=60), (20,))


def test_a_lifetime_longer_than_the_tgts_is_cut_to_it() -> None:
    kdc, tgt = ScriptedKdc(), issue_tgt()
    assert get(kdc, options=TgsOptions(lifetime=1e6), tgt=tgt).endtime == tgt.endtime


@pytest.mark.parametrize("etype", [17, 18, 19, 20, 23])
def test_session_keys_of_every_etype_can_be_chosen(etype: int) -> None:
    got = get(ScriptedKdc(etypes=(etype,)), options=TgsOptions(etypes=(18, etype)))
    assert got.session_key.etype == etype


def test_rc4_is_not_asked_for_unless_permitted() -> None:
    kdc = ScriptedKdc(etypes=(23,))
    with pytest.raises(KdcEtypeError, match="RC4"):
        get(kdc)
    assert len(kdc.seen) == 1


def test_the_offset_of_the_kdc_counts_and_is_handed_on() -> None:
    ahead = timedelta(hours=2)
    kdc = ScriptedKdc(clock=lambda: NOW + ahead)
    tgt = issue_tgt(time_offset=ahead)
    got = get(kdc, tgt=tgt)
    assert got.time_offset == ahead
    assert kdc.authenticators[0].ctime == NOW + ahead
    with pytest.raises(AssertionError):  # the KDC of the test refuses the time
        get(kdc, tgt=replace(tgt, time_offset=timedelta(0)))


def test_a_ticket_without_a_starttime_is_accepted() -> None:
    assert get(ScriptedKdc(part=lambda p: replace(p, starttime=None))).starttime is None


def test_the_addresses_of_the_tgt_are_inherited() -> None:
    tgt = issue_tgt(caddr=(HERE,))
    assert get(ScriptedKdc(), tgt=tgt).caddr == (HERE,)
    assert get(ScriptedKdc(part=lambda p: replace(p, caddr=(HERE,))), tgt=tgt).caddr == (HERE,)


@pytest.mark.parametrize(
    ("code", "cls", "advice"),
    [
        (7, ServiceUnknownError, "SPN is registered"),
        (14, KdcEtypeError, "msDS-SupportedEncryptionTypes to 24"),
        (32, KdcError, "valid from .* to .*; get a new TGT"),
        (33, KdcError, "valid from .* to .*; check this machine's clock"),
        (37, ClockSkewError, "set this machine's clock"),
        (31, KdcError, "get a new TGT"),
    ],
)
def test_an_error_of_the_kdc_says_for_what_and_what_to_do(
    code: int, cls: type[KdcError], advice: str
) -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(code)
    with pytest.raises(cls, match=advice) as caught:
        get(kdc)
    assert caught.value.code == code
    assert str(WEB) in str(caught.value)
    assert len(kdc.seen) == 1


def test_a_ticket_that_is_no_tgt_is_the_callers_mistake() -> None:
    service_ticket = get(ScriptedKdc())
    with pytest.raises(CredentialError, match="pass a TGT"):
        get(ScriptedKdc(), tgt=service_ticket)
    with pytest.raises(CredentialError, match="pass a TGT"):
        run(forward_tgt(service_ticket, clock=clock), ScriptedKdc())


def test_an_as_rep_is_no_answer() -> None:
    with pytest.raises(ProtocolError, match="AS-REP"):
        get(
            ScriptedKdc(
                message=lambda b: b"\x6b" + b[1:].replace(b"\xa1\3\2\1\x0d", b"\xa1\3\2\1\x0b", 1)
            )
        )


# -- across realms


def test_a_service_without_a_realm_is_found_by_referrals() -> None:
    kdc = ScriptedKdc(refer={(REALM, str(WEB.name)): "B.TEST", ("B.TEST", str(WEB.name)): "C.TEST"})
    got = get(kdc, ANYWHERE)
    assert got.service == WEB.name.principal("C.TEST")
    assert got.client == ALICE
    assert kdc.realms == [REALM, "B.TEST", "C.TEST"]
    assert all(request.req_body.kdc_options & KdcOptions.CANONICALIZE for request in kdc.seen)


def test_a_service_in_another_realm_is_reached_by_a_cross_realm_tgt() -> None:
    kdc = ScriptedKdc()
    assert get(kdc, FAR).service == FAR
    assert kdc.realms == [REALM, "FAR.TEST"]
    assert [r.req_body.sname for r in kdc.seen] == [PrincipalName(("krbtgt", "FAR.TEST")), WEB.name]


def test_a_kdc_may_send_to_a_closer_realm_first() -> None:
    kdc = ScriptedKdc(refer={(REALM, "krbtgt/FAR.TEST"): "MID.TEST"})
    assert get(kdc, FAR).service == FAR
    assert kdc.realms == [REALM, "MID.TEST", "FAR.TEST"]


def test_a_configured_path_is_walked_realm_by_realm() -> None:
    asked: list[tuple[str, str]] = []

    def capath(client: str, server: str) -> list[str]:
        asked.append((client, server))
        return ["A.TEST", "B.TEST"]

    kdc = ScriptedKdc()
    assert get(kdc, FAR, capath=capath).service == FAR
    assert asked == [(REALM, "FAR.TEST")]
    assert kdc.realms == [REALM, "A.TEST", "B.TEST", "FAR.TEST"]


def test_a_kdc_may_skip_realms_of_the_path_but_leave_none() -> None:
    kdc = ScriptedKdc(refer={(REALM, "krbtgt/A.TEST"): "B.TEST"})
    assert get(kdc, FAR, capath=lambda client, server: ["A.TEST", "B.TEST"]).service == FAR
    assert kdc.realms == [REALM, "B.TEST", "FAR.TEST"]


def test_an_empty_path_is_direct_trust() -> None:
    kdc = ScriptedKdc(refer={(REALM, "krbtgt/FAR.TEST"): "MID.TEST"})
    with pytest.raises(ProtocolError, match="capaths"):
        get(kdc, FAR, capath=lambda client, server: [])
    assert get(ScriptedKdc(), FAR, capath=lambda client, server: []).service == FAR


def test_a_cross_realm_tgt_can_be_the_start() -> None:
    kdc = ScriptedKdc()
    tgt = issue_tgt(realm="FAR.TEST", at=REALM)
    assert get(kdc, FAR, tgt=tgt).service == FAR
    assert get(kdc, ANYWHERE, tgt=tgt).service == FAR
    assert kdc.realms == ["FAR.TEST", "FAR.TEST"]


def test_a_cross_realm_tgt_itself_can_be_asked_for() -> None:
    cross = Principal(("krbtgt", "FAR.TEST"), REALM, NameType.SRV_INST)
    assert get(ScriptedKdc(), cross).service == cross


def test_without_a_trust_the_error_names_the_realm() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(7)
    with pytest.raises(ServiceUnknownError, match=r"krbtgt/FAR\.TEST@EXAMPLE\.TEST.*trust"):
        get(kdc, FAR)


# -- renewing and forwarding


def test_a_renewable_tgt_is_renewed() -> None:
    kdc = ScriptedKdc()
    tgt = issue_tgt(flags=RENEWABLE, renew_till=NOW + timedelta(days=5))
    got = run(renew(tgt, clock=clock), kdc)
    body = kdc.seen[0].req_body
    assert body.kdc_options == KdcOptions.RENEW | KdcOptions.RENEWABLE | KdcOptions.FORWARDABLE
    assert (body.sname, body.till, body.rtime) == (tgt.service.name, tgt.renew_till, tgt.renew_till)
    assert got.service == tgt.service
    assert got.endtime - NOW == tgt.endtime - tgt.authtime
    assert got.renew_till == tgt.renew_till


def test_a_tgt_that_is_not_renewable_is_told_so_without_asking() -> None:
    kdc = ScriptedKdc()
    with pytest.raises(CredentialError, match="renewable lifetime"):
        run(renew(issue_tgt(), clock=clock), kdc)
    assert kdc.seen == []


@pytest.mark.parametrize("addresses", [(), (HERE,)])
def test_a_forwardable_tgt_is_forwarded(addresses: tuple[HostAddress, ...]) -> None:
    kdc = ScriptedKdc()
    got = run(forward_tgt(issue_tgt(caddr=(HERE, HERE)), addresses, clock=clock), kdc)
    assert kdc.seen[0].req_body.kdc_options == KdcOptions.FORWARDED | KdcOptions.FORWARDABLE
    assert got.flags & TicketFlags.FORWARDED
    assert got.is_tgt
    assert got.caddr == addresses


def test_a_tgt_that_is_not_forwardable_is_told_so_without_asking() -> None:
    kdc = ScriptedKdc()
    with pytest.raises(CredentialError, match="forwardable=True"):
        run(forward_tgt(issue_tgt(flags=TicketFlags.INITIAL), clock=clock), kdc)
    assert kdc.seen == []


# -- one request


def get_one(kdc: Any, request: TgsRequest) -> Any:
    return run(request_ticket(request, clock, random_bytes), kdc)


def test_a_request_carries_padata_and_additional_tickets() -> None:
    kdc, tgt, theirs = ScriptedKdc(), issue_tgt(), issue_tgt()
    made_of = []

    def padata(body: Any, subkey: Any) -> tuple[PaData, ...]:
        made_of.append((body.nonce, subkey))
        return (PaData(PaDataType.PAC_OPTIONS, b"options"), PaData(129, b"for a user"))

    options = KdcOptions.ENC_TKT_IN_SKEY
    request = TgsRequest(
        tgt, WEB, kdc_options=options, padata=padata, additional_tickets=(theirs.ticket, tgt.ticket)
    )
    assert (
        get_one(kdc, request).service == WEB
    )  # the KDC of the test has verified the checksum over the body
    sent = kdc.seen[0]
    assert [p.padata_type for p in sent.padata or ()] == [
        PaDataType.TGS_REQ,
        PaDataType.PAC_OPTIONS,
        129,
    ]
    assert sent.req_body.additional_tickets == (theirs.ticket, tgt.ticket)
    assert sent.req_body.kdc_options & options
    assert made_of == [(sent.req_body.nonce, kdc.authenticators[0].subkey)]
    assert str(request) == f"{ALICE} asks for {WEB} (ENC_TKT_IN_SKEY)"


def test_the_embedded_kdc_gets_both() -> None:
    realm = Realm(REALM, clock=clock)
    realm.add_service("HTTP/web.example.test")
    tgt = run(
        as_exchange(realm.add_user("alice", "pw"), clock=clock),
        lambda request: realm.handle(request.message),
    )
    seen: list[TgsReq] = []

    def send(request: Any) -> bytes:
        seen.append(TgsReq.decode(request.message))
        return realm.handle(request.message)

    marker = PaData(-1, b"marker")
    assert get_one(send, TgsRequest(tgt, WEB, padata=lambda body, subkey: (marker,))).service == WEB
    assert (seen[-1].padata or ())[1:] == (marker,)
    with pytest.raises(KdcError, match="is not that of the service") as caught:  # user-to-user
        get_one(
            send,
            TgsRequest(
                tgt, WEB, kdc_options=KdcOptions.ENC_TKT_IN_SKEY, additional_tickets=(tgt.ticket,)
            ),
        )
    assert caught.value.code == 26
    assert seen[-1].req_body.additional_tickets == (tgt.ticket,)


def test_a_request_by_itself_carries_neither() -> None:
    kdc = ScriptedKdc()
    get_one(kdc, TgsRequest(issue_tgt(), WEB))
    assert [p.padata_type for p in kdc.seen[0].padata or ()] == [PaDataType.TGS_REQ]
    assert kdc.seen[0].req_body.additional_tickets is None


def test_an_exact_name_takes_no_other_service() -> None:
    elsewhere = ScriptedKdc(refer={(REALM, str(WEB.name)): "B.TEST"})
    with pytest.raises(ProtocolError, match="another service"):
        get_one(elsewhere, TgsRequest(issue_tgt(), WEB, exact_name=True))
    assert not elsewhere.seen[0].req_body.kdc_options & KdcOptions.CANONICALIZE
    assert get_one(elsewhere, TgsRequest(issue_tgt(), WEB)).service == Principal(
        ("krbtgt", "B.TEST"), REALM
    )
    assert get_one(ScriptedKdc(), TgsRequest(issue_tgt(), WEB, exact_name=True)).service == WEB


def test_a_request_is_built_and_its_answer_opened_apart() -> None:
    kdc = ScriptedKdc()
    first, second = (TgsRequest(issue_tgt(), WEB).build(clock, random_bytes) for _ in range(2))
    answer = kdc(KdcRequest(REALM, first.message))
    assert first.open(answer, clock).service == WEB
    with pytest.raises(IntegrityError):  # it was for another subkey
        second.open(answer, clock)


# -- with a store


def kinds(kdc: ScriptedKdc) -> list[str]:
    return ["TGS" if isinstance(request, TgsReq) else "AS" for request in kdc.seen]


def fetch(
    kdc: ScriptedKdc, store: CCache, service: Principal = WEB, at: datetime = NOW, **more: Any
) -> Any:
    def later() -> datetime:
        return at

    return run(get_service_ticket(Password(), service, store=store, clock=later, **more), kdc)


def test_what_is_missing_is_fetched_and_kept() -> None:
    kdc, store = ScriptedKdc(), CCache(ALICE)
    got = fetch(kdc, store)
    assert kinds(kdc) == ["AS", "AS", "TGS"]
    assert {str(t.service) for t in store} == {f"krbtgt/{REALM}@{REALM}", str(WEB)}
    assert fetch(kdc, store) is got
    assert fetch(kdc, store, ANYWHERE) is got
    other = Principal.parse(f"ldap/dc.example.test@{REALM}")
    assert fetch(kdc, store, other).service == other
    assert kinds(kdc) == ["AS", "AS", "TGS", "TGS"]


def test_a_ticket_about_to_expire_is_fetched_anew() -> None:
    kdc, store = ScriptedKdc(), CCache(ALICE)
    end = fetch(kdc, store).endtime
    kdc.clock = lambda: end - timedelta(seconds=61)
    fetch(kdc, store, at=end - timedelta(seconds=61))
    assert kinds(kdc) == ["AS", "AS", "TGS"]
    kdc.clock = lambda: end - timedelta(seconds=59)
    got = fetch(kdc, store, at=end - timedelta(seconds=59))
    assert kinds(kdc) == ["AS", "AS", "TGS", "AS", "AS", "TGS"]
    assert got.endtime > end
    fetch(kdc, store, at=got.endtime - timedelta(seconds=59), margin=0.0)
    assert len(kdc.seen) == 6


def test_options_and_offsets_reach_both_exchanges() -> None:
    ahead = timedelta(hours=1)
    kdc, store, offsets = ScriptedKdc(clock=lambda: NOW + ahead), CCache(ALICE), {REALM: ahead}
    got = fetch(
        kdc,
        store,
        as_options=AsOptions(etypes=(20,)),
        tgs_options=TgsOptions(etypes=(17,)),
        offsets=offsets,
    )
    assert [request.req_body.etype for request in kdc.seen] == [(20,), (20,), (17,)]
    assert got.time_offset == ahead


def test_a_canonical_client_name_is_what_the_store_goes_by() -> None:
    canonical = Principal.parse(f"Alice.Real@{REALM}")
    kdc, store = ScriptedKdc(canonical=canonical), CCache(ALICE)
    got = fetch(kdc, store, as_options=AsOptions(canonicalize=True))
    assert got.client == store.principal == canonical
    assert fetch(kdc, store) is got
    assert kinds(kdc) == ["AS", "AS", "TGS"]


def test_a_refused_ticket_is_not_kept() -> None:
    kdc, store = ScriptedKdc(), CCache(ALICE)
    fetch(kdc, store)
    kdc.part = lambda p: replace(p, nonce=p.nonce ^ 1)
    with pytest.raises(ProtocolError):
        fetch(kdc, store, Principal.parse(f"ldap/dc.example.test@{REALM}"))
    assert len(store) == 2


def test_the_log_tells_each_step_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "purekrb")
    kdc = ScriptedKdc(refer={(REALM, str(WEB.name)): "B.TEST"})
    tgt = issue_tgt()
    got = get(kdc, ANYWHERE, tgt=tgt)
    told = caplog.text
    for word in (
        "TGS-REQ to EXAMPLE.TEST",
        "EXAMPLE.TEST refers to B.TEST",
        "TGS-REQ to B.TEST",
        "TGS-REP",
    ):
        assert word in told
    for key in (tgt.session_key, got.session_key, *(a.subkey for a in kdc.authenticators)):
        assert key is not None
        assert key.contents.hex() not in told
        assert repr(key.contents) not in told
