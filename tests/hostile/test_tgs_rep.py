"""TGS-REPs that a client must refuse or survive (K050 to K065). Each case alters one thing of a genuine reply."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from purekrb import crypto
from purekrb.constants import TicketFlags
from purekrb.errors import ClockSkewError, DecodeError, IntegrityError, KerberosError, ProtocolError
from purekrb.exchanges.runner import run
from purekrb.exchanges.tgs_exchange import MAX_HOPS, TgsOptions, forward_tgt, renew, tgs_exchange
from purekrb.exchanges.unique_time import unique_now
from purekrb.messages.ap import HostAddress
from purekrb.messages.kdc import EncKdcRepPart
from purekrb.names import Principal, PrincipalName
from support.scripted_kdc import ALICE, NOW, REALM, WEB, ScriptedKdc, clock, issue_tgt
from support.values import replace

HERE = HostAddress(2, bytes([127, 0, 0, 1]))
THERE = HostAddress(2, bytes([192, 0, 2, 1]))
EVIL = PrincipalName(("HTTP", "evil.example.test"))
ALIAS = PrincipalName(("HTTP", "alias.example.test"))
PLAIN = TgsOptions(canonicalize=False)
REFERRED = Principal(WEB.components, "")
LATER = NOW + timedelta(hours=9)


def get(
    kdc: ScriptedKdc,
    options: TgsOptions | None = None,
    *,
    tgt: Any = None,
    service: Principal = WEB,
    **more: Any,
) -> Any:
    return run(tgs_exchange(tgt or issue_tgt(), service, options, clock=clock, **more), kdc)


def part(**changes: Any) -> dict[str, Callable[[EncKdcRepPart], EncKdcRepPart]]:
    return {"part": lambda genuine: replace(genuine, **changes)}


def reply(**changes: Any) -> dict[str, Callable[[Any], Any]]:
    return {"reply": lambda genuine: replace(genuine, **changes)}


def ticket(**changes: Any) -> dict[str, Callable[[Any], Any]]:
    return {"ticket": lambda genuine: replace(genuine, **changes)}


def named(name: PrincipalName) -> dict[str, Any]:
    return {**part(sname=name), **ticket(sname=name)}


RENEWABLE_TGT = {"flags": TicketFlags.RENEWABLE, "renew_till": NOW + timedelta(days=5)}


@pytest.mark.parametrize(
    "options", [TgsOptions(), PLAIN, TgsOptions(lifetime=600), TgsOptions(etypes=(20, 17))]
)
@pytest.mark.parametrize("etype", [17, 18, 19, 20, 23])
def test_the_unaltered_reply_is_accepted(options: TgsOptions, etype: int) -> None:
    tgt = issue_tgt(etype=etype)
    got = get(ScriptedKdc(), options, tgt=tgt)
    assert (got.client, got.service, got.authtime) == (ALICE, WEB, tgt.authtime)
    assert got.session_key.etype == options.etypes[0]
    assert got.endtime == (
        tgt.endtime if options.lifetime is None else NOW + timedelta(seconds=600)
    )


REFUSED = [
    pytest.param(
        {},
        None,
        {"part": lambda p: replace(p, nonce=p.nonce ^ 1)},
        ProtocolError,
        id="K050-nonce-differs",
    ),
    pytest.param(
        {}, None, reply(cname=PrincipalName(("mallory",))), ProtocolError, id="K051-cname-differs"
    ),
    pytest.param({}, None, reply(crealm="OTHER.TEST"), ProtocolError, id="K051-crealm-differs"),
    pytest.param(
        {}, None, ticket(sname=EVIL), ProtocolError, id="K052-only-the-ticket-names-another-service"
    ),
    pytest.param(
        {},
        None,
        ticket(realm="OTHER.TEST"),
        ProtocolError,
        id="K052-only-the-ticket-names-another-realm",
    ),
    pytest.param(
        {},
        None,
        part(sname=EVIL),
        ProtocolError,
        id="K052-only-the-encrypted-part-names-another-service",
    ),
    pytest.param(
        {}, PLAIN, named(EVIL), ProtocolError, id="K053-service-differs-without-canonicalize"
    ),
    pytest.param(
        {},
        None,
        {**part(srealm="OTHER.TEST"), **ticket(realm="OTHER.TEST")},
        ProtocolError,
        id="K054-realm-differs",
    ),
    pytest.param(
        {},
        None,
        named(PrincipalName(("krbtgt",))),
        ProtocolError,
        id="K056-referral-without-a-realm",
    ),
    pytest.param(
        {},
        None,
        named(PrincipalName(("krbtgt", "A", "B"))),
        ProtocolError,
        id="K056-referral-of-three-components",
    ),
    pytest.param(
        {}, None, named(PrincipalName(())), KerberosError, id="K056-name-without-components"
    ),
    pytest.param(
        {},
        None,
        {**part(srealm=""), **ticket(realm="")},
        ProtocolError,
        id="K421-service-without-a-realm",
    ),
    pytest.param({}, None, reply(crealm=""), ProtocolError, id="K421-client-without-a-realm"),
    pytest.param(
        {}, None, reply(cname=PrincipalName(())), ProtocolError, id="K421-client-without-a-name"
    ),
    pytest.param(
        {},
        None,
        named(PrincipalName(("krbtgt", ""))),
        ProtocolError,
        id="K421-referral-to-an-empty-realm",
    ),
    pytest.param(
        {},
        None,
        {"session_etype": 23, "etypes": (18, 23)},
        ProtocolError,
        id="K060-session-key-rc4",
    ),
    pytest.param(
        {},
        TgsOptions(etypes=(17,)),
        {"session_etype": 18},
        ProtocolError,
        id="K060-session-key-aes256-not-requested",
    ),
    pytest.param(
        {},
        None,
        part(endtime=LATER + timedelta(seconds=1)),
        ProtocolError,
        id="K061-endtime-after-the-tgt",
    ),
    pytest.param(
        {},
        TgsOptions(lifetime=600),
        part(endtime=NOW + timedelta(seconds=601)),
        ProtocolError,
        id="K061-endtime-after-the-requested",
    ),
    pytest.param(
        RENEWABLE_TGT,
        None,
        part(renew_till=NOW + timedelta(days=6)),
        ProtocolError,
        id="K061-renew-till-after-rtime",
    ),
    pytest.param(
        {},
        None,
        part(starttime=NOW + timedelta(minutes=6)),
        ClockSkewError,
        id="K062-starts-in-the-future",
    ),
    pytest.param(
        {},
        None,
        part(starttime=NOW - timedelta(minutes=6)),
        ClockSkewError,
        id="K062-starts-in-the-past",
    ),
    pytest.param({}, None, part(caddr=(THERE,)), ProtocolError, id="K051-address-added"),
    pytest.param(
        {"caddr": (HERE,)},
        None,
        part(caddr=(THERE,)),
        ProtocolError,
        id="K051-address-differs-from-the-tgt",
    ),
    pytest.param(
        {},
        None,
        {"plaintext": lambda b: b + b"\0"},
        DecodeError,
        id="K059-byte-after-the-encrypted-part",
    ),
    pytest.param(
        {}, None, {"message": lambda b: b + b"\0"}, DecodeError, id="K059-byte-after-the-message"
    ),
    pytest.param(
        {},
        None,
        {"message": lambda b: b.replace(b"\xa1\3\2\1\x0d", b"\xa1\3\2\1\x0b", 1)},
        DecodeError,
        id="K051-msg-type-of-an-as-rep",
    ),
]


@pytest.mark.parametrize(("tgt", "options", "changes", "error"), REFUSED)
def test_an_altered_reply_is_refused(
    tgt: dict[str, Any],
    options: TgsOptions | None,
    changes: dict[str, Any],
    error: type[KerberosError],
) -> None:
    with pytest.raises(error):
        get(ScriptedKdc(**changes), options, tgt=issue_tgt(**tgt))
    got = get(
        ScriptedKdc(), options, tgt=issue_tgt(**tgt)
    )  # the same exchange with an unaltered reply
    assert got.caddr == tgt.get("caddr", ())


def test_k054_an_alias_is_accepted_with_canonicalize_under_the_name_of_the_encrypted_part() -> None:
    got = get(ScriptedKdc(**named(ALIAS)))
    assert got.service == ALIAS.principal(REALM)


def chain(*realms: str) -> dict[tuple[str, str], str]:
    """Return referrals for WEB from each realm to the next."""
    return {(here, str(WEB.name)): there for here, there in pairwise(realms)}


LONG = [REALM, *(f"R{n}.TEST" for n in range(1, 13))]


@pytest.mark.parametrize("hops", [1, 2, MAX_HOPS])
def test_k055_referrals_with_an_end_are_followed(hops: int) -> None:
    kdc = ScriptedKdc(refer=chain(*LONG[: hops + 1]))
    got = get(kdc, service=REFERRED)
    assert got.service == WEB.name.principal(LONG[hops])
    assert kdc.realms == LONG[: hops + 1]


@pytest.mark.parametrize(
    ("realms", "requests"),
    [
        pytest.param(LONG, 11, id="K055-eleven-hops"),
        pytest.param([REALM, "B.TEST", REALM], 2, id="K055-cycle-of-two"),
        pytest.param(
            [REALM, "B.TEST", "C.TEST", "B.TEST"], 3, id="K055-cycle-of-two-that-starts-later"
        ),
        pytest.param([REALM, REALM], 1, id="K055-referral-to-itself"),
    ],
)
def test_referrals_without_end_are_refused(realms: list[str], requests: int) -> None:
    kdc = ScriptedKdc(refer=chain(*realms))
    with pytest.raises(ProtocolError, match=r"circle|referrals"):
        get(kdc, service=REFERRED)
    assert len(kdc.seen) == requests


def test_k055_a_referral_off_the_configured_path_is_refused() -> None:
    far = WEB.name.principal("FAR.TEST")
    away = {(REALM, "krbtgt/MID.TEST"): "EVIL.TEST"}
    with pytest.raises(ProtocolError, match="capaths"):
        get(ScriptedKdc(refer=away), service=far, capath=lambda client, server: ["MID.TEST"])
    kdc = ScriptedKdc()
    assert get(kdc, service=far, capath=lambda client, server: ["MID.TEST"]).service == far
    assert kdc.realms == [REALM, "MID.TEST", "FAR.TEST"]


def test_k055_a_referral_away_from_the_realm_that_was_named_is_refused() -> None:
    kdc = ScriptedKdc(refer=chain(REALM, "EVIL.TEST"))
    with pytest.raises(ProtocolError, match="without a realm"):
        get(kdc, service=WEB)
    assert kdc.realms == [REALM]


@pytest.mark.parametrize(
    ("marked", "kept"),
    [
        pytest.param(TicketFlags(0), False, id="K057-the-cross-realm-tgt-lacks-it"),
        pytest.param(TicketFlags.OK_AS_DELEGATE, True, id="K057-the-cross-realm-tgt-has-it"),
    ],
)
def test_ok_as_delegate_of_a_foreign_realm_counts_only_if_our_realm_marks_the_trust(
    marked: TicketFlags, kept: bool
) -> None:
    tgt = issue_tgt(realm="B.TEST", at=REALM, flags=marked)
    got = get(ScriptedKdc(flags=TicketFlags.OK_AS_DELEGATE), tgt=tgt, service=REFERRED)
    assert bool(got.flags & TicketFlags.OK_AS_DELEGATE) == kept


def test_k057_ok_as_delegate_of_our_own_realm_counts() -> None:
    assert get(ScriptedKdc(flags=TicketFlags.OK_AS_DELEGATE)).flags & TicketFlags.OK_AS_DELEGATE


def test_k057_ok_as_delegate_is_cleared_along_the_whole_way() -> None:
    """The foreign KDC marks its own referral, then the service: neither is ours to believe."""

    def part(genuine: EncKdcRepPart) -> EncKdcRepPart:
        marked = genuine.flags | TicketFlags.OK_AS_DELEGATE
        return genuine if genuine.srealm == REALM else replace(genuine, flags=int(marked))

    got = get(ScriptedKdc(refer=chain(REALM, "B.TEST", "C.TEST"), part=part), service=REFERRED)
    assert got.service.realm == "C.TEST"
    assert not got.flags & TicketFlags.OK_AS_DELEGATE


@pytest.mark.parametrize("etype", [18, 20, 23])
def test_k058_a_reply_under_the_session_key_is_accepted_as_old_heimdal_sends_it(etype: int) -> None:
    tgt = issue_tgt(etype=etype)
    assert (
        get(ScriptedKdc(reply_key=lambda key, usage: (tgt.session_key, 8)), tgt=tgt).service == WEB
    )


@pytest.mark.parametrize(
    ("etype", "choose"),
    [
        pytest.param(18, lambda tgt, subkey: (crypto.random_key(18), 9), id="K059-random-key"),
        pytest.param(18, lambda tgt, subkey: (subkey, 3), id="K059-usage-of-an-as-rep"),
        pytest.param(
            18, lambda tgt, subkey: (subkey, 8), id="K059-subkey-with-the-usage-of-the-session-key"
        ),
        pytest.param(
            18,
            lambda tgt, subkey: (tgt.session_key, 9),
            id="K059-session-key-with-the-usage-of-the-subkey",
        ),
        pytest.param(23, lambda tgt, subkey: (crypto.random_key(23), 9), id="K059-random-rc4-key"),
    ],
)
def test_a_reply_under_neither_key_is_refused(etype: int, choose: Callable[..., Any]) -> None:
    tgt = issue_tgt(etype=etype)
    with pytest.raises(IntegrityError):
        get(ScriptedKdc(reply_key=lambda key, usage: choose(tgt, key)), tgt=tgt)


def test_k059_a_reply_in_another_etype_than_the_key_is_refused() -> None:
    with pytest.raises(ProtocolError, match="another encryption type"):
        get(ScriptedKdc(reply_key=lambda key, usage: (crypto.random_key(17), 9)))


@pytest.mark.parametrize(
    "usage", [pytest.param(9, id="K064-usage-9"), pytest.param(8, id="K064-usage-8")]
)
def test_an_rc4_reply_under_the_subkey_is_accepted_with_both_usages(usage: int) -> None:
    tgt = issue_tgt(etype=23)
    assert get(ScriptedKdc(reply_key=lambda key, _: (key, usage)), tgt=tgt).service == WEB


def test_k061_a_renewal_beyond_renew_till_and_for_another_service_is_refused() -> None:
    tgt = issue_tgt(**RENEWABLE_TGT)

    def again(**changes: Any) -> Any:
        return run(renew(tgt, clock=clock), ScriptedKdc(**changes))

    with pytest.raises(ProtocolError):
        again(**part(endtime=NOW + timedelta(days=5, seconds=1)))
    with pytest.raises(ProtocolError):
        again(**named(PrincipalName(("krbtgt", "EVIL.TEST"))))
    assert again().endtime == NOW + timedelta(hours=10)


def test_k061_a_forwarded_tgt_that_is_none_is_refused() -> None:
    def forward(**changes: Any) -> Any:
        return run(forward_tgt(issue_tgt(), (HERE,), clock=clock), ScriptedKdc(**changes))

    with pytest.raises(ProtocolError, match="FORWARDED"):
        forward(part=lambda p: replace(p, flags=p.flags & ~TicketFlags.FORWARDED))
    with pytest.raises(ProtocolError, match="addresses"):
        forward(**part(caddr=(THERE,)))
    with pytest.raises(ProtocolError, match="addresses"):
        forward(**part(caddr=None))
    assert forward().caddr == (HERE,)


def test_k063_a_request_never_asks_for_a_user_to_user_ticket() -> None:
    """So that no reply can pass for one: ENC-TKT-IN-SKEY is not sent, and a ticket counts as the service's own."""
    kdc = ScriptedKdc()
    got = get(kdc)
    assert not kdc.seen[0].req_body.kdc_options & 1 << 3
    assert kdc.seen[0].req_body.additional_tickets is None
    assert not got.is_skey


def test_k065_no_two_requests_carry_the_same_time_although_the_clock_stands_still() -> None:
    count = 2_000 if os.environ.get("PUREKRB_SOAK") else 100
    kdc, tgt = ScriptedKdc(), issue_tgt()
    lock = threading.Lock()

    def send(request: Any) -> bytes:
        with lock:  # the KDC of the test keeps lists; the clients run at once
            return kdc(request)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: run(tgs_exchange(tgt, WEB, clock=clock), send), range(count)))
    times = {(a.ctime, a.cusec) for a in kdc.authenticators}
    assert len(times) == len(kdc.authenticators) == count


def test_k065_ten_thousand_times_from_many_threads_are_unique() -> None:
    frozen = datetime(2026, 5, 1, tzinfo=timezone.utc)

    def still() -> datetime:
        return frozen

    with ThreadPoolExecutor(32) as pool:
        times = list(pool.map(lambda _: unique_now(still), range(10_000)))
    assert len(set(times)) == 10_000
    assert min(times) == frozen
    assert max(times) - frozen < timedelta(seconds=1)
