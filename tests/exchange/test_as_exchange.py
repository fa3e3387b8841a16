"""The AS exchange step by step: what is asked for, how the KDC's answers are used, what its errors become."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from purekrb import errors
from purekrb.constants import ErrorCode, KdcOptions, NameType, PaDataType, TicketFlags
from purekrb.errors import (
    ClientUnknownError,
    CredentialError,
    KdcError,
    PolicyError,
    PreauthFailedError,
    ProtocolError,
)
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.kdc_reply import KDC_ERRORS
from purekrb.exchanges.runner import KdcRequest, run, run_async
from purekrb.keys import EncryptionKey
from purekrb.messages.kdc import AsReq, PaData, PaPacRequest
from purekrb.names import Principal
from support.scripted_kdc import (
    ALICE,
    NOW,
    PASSWORD,
    REALM,
    WEB,
    Keys,
    Password,
    ScriptedKdc,
    clock,
    stamps,
    string_to_key,
)
from support.values import replace

TGS = Principal.parse(f"krbtgt/{REALM}@{REALM}")


def get(
    kdc: ScriptedKdc, options: AsOptions | None = None, credential: Any = None, **more: Any
) -> Any:
    return run(as_exchange(credential or Password(), options, clock=clock, **more), kdc)


def first_body(options: AsOptions | None = None, credential: Any = None) -> Any:
    kdc = ScriptedKdc(preauth=False)
    get(kdc, options, credential)
    return kdc.seen[0].req_body


def test_by_default_an_addressless_tgt_for_a_day_is_asked_for() -> None:
    body = first_body()
    assert (body.realm, body.cname, body.sname) == (REALM, ALICE.name, TGS.name)
    assert (body.kdc_options, body.from_, body.rtime, body.addresses) == (0, None, None, None)
    assert body.till == NOW + timedelta(days=1)
    assert body.etype == (18, 17, 20, 19)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (AsOptions(forwardable=True), KdcOptions.FORWARDABLE),
        (AsOptions(proxiable=True), KdcOptions.PROXIABLE),
        (AsOptions(canonicalize=True), KdcOptions.CANONICALIZE),
        (AsOptions(renewable_lifetime=86400.0), KdcOptions.RENEWABLE),
        (AsOptions(starttime=NOW), KdcOptions.ALLOW_POSTDATE | KdcOptions.POSTDATED),
    ],
)
def test_an_option_sets_its_bits_and_no_other(options: AsOptions, option: int) -> None:
    assert first_body(options).kdc_options == option


def test_lifetimes_count_from_the_start() -> None:
    start = NOW + timedelta(hours=2, microseconds=5)
    body = first_body(AsOptions(starttime=start, lifetime=600.0, renewable_lifetime=1200.0))
    whole = start.replace(microsecond=0)
    assert (body.from_, body.till, body.rtime) == (
        whole,
        whole + timedelta(seconds=600),
        whole + timedelta(seconds=1200),
    )


def test_a_service_can_be_asked_for_directly() -> None:
    kdc = ScriptedKdc()
    assert get(kdc, AsOptions(service=WEB)).service == WEB


def test_an_enterprise_name_implies_canonicalization() -> None:
    upn = Principal(("alice@corp.test",), REALM, NameType.ENTERPRISE)
    kdc = ScriptedKdc(salt=b"salt", canonical=ALICE)
    got = get(kdc, credential=Password(upn))
    body = kdc.seen[0].req_body
    assert body.kdc_options & KdcOptions.CANONICALIZE
    assert body.cname is not None
    assert body.cname.name_type == NameType.ENTERPRISE
    assert got.client == ALICE


@pytest.mark.parametrize("wanted", [True, False, None])
def test_a_pac_is_asked_for_or_not_or_left_to_the_kdc(wanted: bool | None) -> None:
    kdc = ScriptedKdc()
    get(kdc, AsOptions(pac_request=wanted))
    for request in kdc.seen:
        values = [p.padata_value for p in request.padata if p.padata_type == PaDataType.PAC_REQUEST]
        assert values == ([] if wanted is None else [PaPacRequest(wanted).encode()])


@pytest.mark.parametrize("etype", [17, 18, 19, 20, 23])
@pytest.mark.parametrize("preauth", [True, False])
def test_every_etype_works(etype: int, preauth: bool) -> None:
    kdc = ScriptedKdc(preauth=preauth, etypes=(etype,))
    got = get(kdc, AsOptions(etypes=(etype,)))
    assert got.session_key.etype == etype
    assert bool(got.flags & TicketFlags.PRE_AUTHENT) == preauth


def test_the_first_request_proves_nothing_and_the_second_carries_the_timestamp() -> None:
    kdc = ScriptedKdc()
    get(kdc)
    kinds = [[p.padata_type for p in request.padata] for request in kdc.seen]
    assert kinds == [[PaDataType.ENC_PA_REP], [PaDataType.ENC_TIMESTAMP, PaDataType.ENC_PA_REP]]
    assert kdc.seen[0].req_body.nonce != kdc.seen[1].req_body.nonce


def test_a_key_sends_the_timestamp_at_once() -> None:
    for kdc in (ScriptedKdc(), ScriptedKdc(preauth=False)):
        got = get(kdc, credential=Keys())
        assert stamps(kdc) == [18]
        assert got.flags & TicketFlags.PRE_AUTHENT
    kdc = ScriptedKdc()
    get(kdc, credential=Keys(etypes=(20, 23)))
    assert stamps(kdc) == [20]


def test_rc4_is_used_at_once_where_there_is_nothing_better() -> None:
    for etypes, first in (((23,), 23), ((23, 17), 17)):
        kdc = ScriptedKdc(etypes=(17, 23))
        get(kdc, AsOptions(etypes=etypes), Keys())
        assert stamps(kdc) == [first]


@pytest.mark.parametrize("code", [14, 16, 24, 31])
def test_a_key_that_the_account_has_not_gives_way_to_the_one_that_the_kdc_names(code: int) -> None:
    def without_aes256(**how: Any) -> ScriptedKdc:
        kdc = ScriptedKdc(etypes=(17,), **how)
        kdc.answer = lambda request, realm: kdc.error(code) if stamps(kdc)[-1] == 18 else None
        return kdc

    kdc = without_aes256()
    assert get(kdc, credential=Keys()).client == ALICE
    assert stamps(kdc) == [18, None, 17]
    lax = without_aes256(preauth=False)
    assert not get(lax, credential=Keys()).flags & TicketFlags.PRE_AUTHENT
    assert stamps(lax) == [18, None]


@pytest.mark.parametrize("preauth", [True, False])
def test_a_stale_key_fails_once_as_a_wrong_password_does(preauth: bool) -> None:
    def failure(credential: Password) -> tuple[PreauthFailedError, ScriptedKdc]:
        kdc = ScriptedKdc(preauth=preauth)
        with pytest.raises(PreauthFailedError) as caught:
            get(kdc, credential=credential)
        return caught.value, kdc

    error, kdc = failure(Keys(password="last year's"))
    expected, asked_first = failure(Password(password="guess"))
    assert "not the KDC's" in str(error)
    assert "EXAMPLE.TESTalice" in str(error)
    assert str(expected).startswith("wrong password")
    assert error.code == expected.code
    assert (error.krb_error is None) == (expected.krb_error is None)
    assert stamps(kdc) == [18, None]
    assert stamps(asked_first) == ([None, 18] if preauth else [None])


def test_only_another_key_is_tried_after_one_that_was_refused() -> None:
    """Two failures count twice against the account, so that both keys must be the KDC's choice."""
    kdc = ScriptedKdc(etypes=(17,))
    kdc.answer = lambda request, realm: kdc.error(24) if stamps(kdc)[-1] else None
    with pytest.raises(PreauthFailedError):
        get(kdc, credential=Keys())
    assert stamps(kdc) == [18, None, 17]


@pytest.mark.parametrize("code", [25, 91])
def test_a_kdc_that_wants_the_timestamp_otherwise_says_so(code: int) -> None:
    kdc = ScriptedKdc()
    cookie = PaData(PaDataType.FX_COOKIE, b"stateless")
    more = (kdc.etype_info2(17), PaData(PaDataType.ENC_TIMESTAMP, b""), cookie)
    kdc.answer = lambda request, realm: (
        kdc.preauth_required(*more, code=code) if len(kdc.seen) == 1 else None
    )
    get(kdc, credential=Keys())
    assert stamps(kdc) == [18, 17]
    assert kdc.seen[1].padata is not None
    assert kdc.seen[1].padata[0] == cookie


def test_a_timestamp_that_expired_is_made_anew_when_the_kdc_asks() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(90) if len(kdc.seen) == 1 else None
    get(kdc, credential=Keys())
    assert stamps(kdc) == [18, None, 18]


def test_a_realm_that_the_client_is_referred_to_gets_no_timestamp_before_it_asks() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: (
        kdc.error(68, realm=realm, crealm="B.TEST") if realm == REALM else None
    )
    get(kdc, AsOptions(canonicalize=True, referral_realms={"B.TEST"}), Keys())
    assert list(zip(kdc.realms, stamps(kdc), strict=True)) == [
        (REALM, 18),
        ("B.TEST", None),
        ("B.TEST", 18),
    ]


def test_a_refusal_counts_in_its_own_realm_only() -> None:
    """The first realm refers to another once the timestamp is gone; there the same key may be right."""
    kdc = ScriptedKdc()

    def answer(request: Any, realm: str) -> Any:
        if realm != REALM:
            return None
        return kdc.error(24) if stamps(kdc)[-1] else kdc.error(68, crealm="B.TEST")

    kdc.answer = answer
    get(kdc, AsOptions(canonicalize=True, referral_realms={"B.TEST"}), Keys())
    assert stamps(kdc) == [18, None, None, 18]


def test_other_errors_end_the_exchange_with_a_key_too() -> None:
    for code in (6, 18, 23, 60):
        kdc = ScriptedKdc()
        kdc.answer = lambda request, realm, kdc=kdc, code=code: kdc.error(code)  # type: ignore[misc]
        with pytest.raises(KdcError) as caught:
            get(kdc, credential=Keys())
        assert (caught.value.code, stamps(kdc)) == (code, [18])


def test_the_cookie_of_the_kdc_is_returned_as_it_came() -> None:
    kdc = ScriptedKdc()
    cookie = PaData(PaDataType.FX_COOKIE, b"stateless")
    kdc.answer = lambda request, realm: (
        kdc.preauth_required(kdc.etype_info2(), PaData(PaDataType.ENC_TIMESTAMP, b""), cookie)
        if len(kdc.seen) == 1
        else None
    )
    get(kdc)
    assert kdc.seen[1].padata[0] == cookie


def test_salt_and_iterations_are_those_that_the_kdc_names() -> None:
    credential = Password()
    get(ScriptedKdc(salt=b"NaCl", s2kparams=b"\0\0\x20\0", etypes=(17,)), credential=credential)
    assert credential.asked == [(17, b"NaCl", b"\0\0\x20\0")]


def test_rc4_has_no_iterations_to_check() -> None:
    kdc = ScriptedKdc(etypes=(23,), s2kparams=b"\0\0\0\1")
    assert get(kdc, AsOptions(etypes=(23,))).session_key.etype == 23


def test_the_reply_may_be_in_another_etype_than_the_timestamp() -> None:
    credential = Password()

    def reply(genuine: Any) -> Any:
        return replace(genuine, enc_part=replace(genuine.enc_part, etype=17))

    class Switches(ScriptedKdc):
        def _finish(self, genuine: Any, part: Any, key: Any, usage: int, application: Any) -> bytes:
            aes128 = string_to_key(17, PASSWORD, self.salt or b"", None)
            return super()._finish(reply(genuine), part, aes128, usage, application)

    kdc = Switches(etypes=(18, 17), enc_pa_rep=False)
    assert get(kdc, credential=credential).client == ALICE
    assert [etype for etype, _, _ in credential.asked] == [18, 17]


def test_a_wrong_password_is_told_apart_whether_the_kdc_or_the_client_finds_it() -> None:
    wrong = Password(password="guess")

    def refuse(kdc: ScriptedKdc) -> Callable[[Any, str], Any]:
        return lambda request, realm: kdc.error(24) if len(kdc.seen) == 2 else None

    kdc = ScriptedKdc()
    kdc.answer = refuse(kdc)
    with pytest.raises(PreauthFailedError, match="check the password"):
        get(kdc, credential=wrong)
    with pytest.raises(PreauthFailedError, match=r"wrong password.*does not decrypt") as caught:
        get(ScriptedKdc(preauth=False), credential=wrong)
    assert caught.value.code == ErrorCode.KDC_ERR_PREAUTH_FAILED
    get(ScriptedKdc(preauth=False))


def test_a_client_without_a_realm_or_keys_is_told_so() -> None:
    with pytest.raises(CredentialError, match="no realm"):
        get(ScriptedKdc(), credential=Password(Principal(("alice",), "")))
    with pytest.raises(CredentialError, match="kinit"):
        get(ScriptedKdc(), credential=Password(etypes=()))
    with pytest.raises(PolicyError, match="permit"):
        get(ScriptedKdc(), credential=Password(etypes=(23,)))

    class NoKey(Password):
        def key_for(self, etype: int, salt: bytes, params: bytes | None) -> None:
            return None

    with pytest.raises(CredentialError, match="export the keytab"):
        get(ScriptedKdc(), credential=NoKey())


def test_only_etypes_that_the_client_has_keys_of_are_offered() -> None:
    assert first_body(credential=Password(etypes=(17, 20, 23))).etype == (17, 20)


def test_a_tgs_rep_is_no_answer() -> None:
    kdc = ScriptedKdc(
        preauth=False,
        message=lambda b: b"\x6d" + b[1:].replace(b"\xa1\3\2\1\x0b", b"\xa1\3\2\1\x0d", 1),
    )
    with pytest.raises(ProtocolError, match="TGS-REP"):
        get(kdc)


@pytest.mark.parametrize("code", [c for c in KDC_ERRORS if c not in (37, 68)])
def test_each_error_of_the_kdc_is_an_exception_that_says_what_to_do(code: int) -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(code, e_text="see\x1b[31m here" + "." * 1000)
    with pytest.raises(KdcError) as caught:
        get(kdc)
    # In an AS exchange, Heimdal says by 31 that the proof does not decrypt: a wrong password.
    cls, what, advice = KDC_ERRORS[24 if code == 31 else code]
    message = str(caught.value)
    assert type(caught.value) is cls
    assert caught.value.code == code
    assert caught.value.krb_error is not None
    assert what in message
    assert advice in message
    assert str(ALICE) in message
    assert ErrorCode(code).name in message
    assert "\x1b" not in message  # text of the KDC is quoted
    assert len(message) < 700
    assert len(kdc.seen) == 1


@pytest.mark.parametrize("code", [29, 60, 4711, -1])
def test_other_errors_are_kdc_errors_too(code: int) -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(code)
    with pytest.raises(KdcError) as caught:
        get(kdc)
    assert (type(caught.value), caught.value.code) == (KdcError, code)


def test_the_table_of_errors_leads_to_every_class_that_exists_for_it() -> None:
    classes = {cls for cls, _, _ in KDC_ERRORS.values()}
    # These have another origin than an error-code: what a server for passwords says, what this side
    # lacks, and what a request for somebody else is refused for.
    others = {
        errors.PasswordPolicyError,
        errors.PreauthUnsupportedError,
        errors.DelegationRefusedError,
    }
    assert classes == {KdcError, *KdcError.__subclasses__()} - others
    assert KDC_ERRORS[6][0] is ClientUnknownError
    assert KDC_ERRORS[23][0] is errors.PasswordExpiredError


def test_blocking_and_asyncio_run_the_same_exchange() -> None:
    import asyncio

    kdc = ScriptedKdc()

    async def send(request: KdcRequest) -> bytes:
        await asyncio.sleep(0)
        return kdc(request)

    assert asyncio.run(run_async(as_exchange(Password(), clock=clock), send)).client == ALICE


def test_the_same_random_bytes_and_time_make_the_same_requests() -> None:
    def requests() -> list[bytes]:
        sent: list[bytes] = []
        kdc = ScriptedKdc()

        def send(request: KdcRequest) -> bytes:
            sent.append(request.message)
            return kdc(request)

        counter = iter(range(256))
        run(
            as_exchange(
                Password(), clock=clock, random=lambda n: bytes(next(counter) for _ in range(n))
            ),
            send,
        )
        return sent

    assert requests() == requests()
    assert len(requests()) == 2


def test_an_exchange_can_be_stepped_by_hand() -> None:
    kdc = ScriptedKdc(preauth=False)
    exchange = as_exchange(Password(), clock=clock)
    request = next(exchange)
    assert request.realm == REALM
    assert AsReq.decode(request.message).req_body.cname == ALICE.name
    with pytest.raises(StopIteration) as done:
        exchange.send(kdc(request))
    assert done.value.value.service == TGS


def test_the_offset_of_a_kdc_is_measured_each_time_and_kept_by_realm() -> None:
    offsets = {REALM: timedelta(hours=3)}
    kdc = ScriptedKdc()
    get(
        kdc, AsOptions(timesync=True), offsets=offsets
    )  # the stored offset was wrong: corrected on the way
    assert len(kdc.seen) == 3
    assert offsets == {REALM: timedelta(0)}


@pytest.mark.parametrize(
    ("seconds", "corrected"), [(0, False), (29, False), (31, True), (-31, True), (600, True)]
)
def test_a_small_difference_of_clocks_is_left_alone(seconds: int, corrected: bool) -> None:
    apart = timedelta(seconds=seconds)
    got = get(ScriptedKdc(clock=lambda: NOW + apart))
    assert got.time_offset == (apart if corrected else timedelta(0))


def test_the_log_tells_each_step_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    canary = "canary-password-7391"

    class Canary(Password):
        def key_for(self, etype: int, salt: bytes, params: bytes | None) -> EncryptionKey:
            return string_to_key(etype, PASSWORD, salt, params)

    caplog.set_level(logging.DEBUG, "purekrb")
    got = get(
        ScriptedKdc(), credential=Canary(password=canary), options=AsOptions(canonicalize=True)
    )
    unknown = ScriptedKdc()
    unknown.answer = lambda request, realm: unknown.error(6)
    with pytest.raises(KdcError):
        get(unknown)
    with pytest.raises(ProtocolError):
        get(ScriptedKdc(part=lambda p: replace(p, nonce=1)))
    told = caplog.text
    for word in (
        "AS-REQ to EXAMPLE.TEST",
        "PA-ENC-TIMESTAMP",
        "aes256-cts-hmac-sha1-96",
        "kvno 1",
        "AS-REP",
        "nonce",
    ):
        assert word in told
    assert "KDC_ERR_C_PRINCIPAL_UNKNOWN" in told
    key = got.session_key.contents
    assert canary not in told
    assert key.hex() not in told
    assert repr(key) not in told
