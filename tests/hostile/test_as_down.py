"""Attempts to talk a client down, or into a loop, with errors that anyone on the path can forge (K026 to K033)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from purekrb.constants import ErrorCode, PaDataType, TicketFlags
from purekrb.errors import (
    ClockSkewError,
    DecodeError,
    KdcError,
    KdcEtypeError,
    PolicyError,
    ProtocolError,
    UnsupportedError,
)
from purekrb.exchanges.as_exchange import MAX_REFERRALS, MAX_REQUESTS, AsOptions, as_exchange
from purekrb.exchanges.runner import run
from purekrb.messages.ap import Checksum
from purekrb.messages.kdc import AsReq, EncKdcRepPart, MethodData, PaData
from purekrb.names import Principal
from support.scripted_kdc import NOW, REALM, Keys, Password, ScriptedKdc, clock
from support.scripted_kdc import stamps as stamps_of
from support.values import replace

ENC_TIMESTAMP = PaData(PaDataType.ENC_TIMESTAMP, b"")
YEARS = timedelta(days=3652)


def get(kdc: ScriptedKdc, options: AsOptions | None = None, credential: Password | None = None, **more: Any) -> Any:
    return run(as_exchange(credential or Password(), options, clock=clock, **more), kdc)


def stamps(kdc: ScriptedKdc) -> int:
    """Return how many requests carried a PA-ENC-TIMESTAMP."""
    return sum(etype is not None for etype in stamps_of(kdc))


def offered(kdc: ScriptedKdc) -> set[int]:
    return {etype for request in kdc.seen for etype in request.req_body.etype}


@pytest.mark.parametrize("options", [AsOptions(), AsOptions(etypes=(18, 17, 23))])
@pytest.mark.parametrize(("credential", "stamped"), [(Password(), [None]), (Keys(), [18, None])])
def test_k026_etype_nosupp_leads_to_no_rc4_retry(
    options: AsOptions, credential: Password, stamped: list[int | None]
) -> None:
    kdc = ScriptedKdc(etypes=(23,))
    kdc.answer = lambda request, realm: kdc.error(ErrorCode.KDC_ERR_ETYPE_NOSUPP)
    with pytest.raises(KdcEtypeError, match="RC4 is tried only if the caller permits it"):
        get(kdc, options, credential)
    assert stamps_of(kdc) == stamped
    assert offered(kdc) == set(options.etypes)
    get(ScriptedKdc(), options, credential)


def test_k026_rc4_is_used_when_the_caller_permits_it() -> None:
    kdc = ScriptedKdc(etypes=(23,))
    assert get(kdc, AsOptions(etypes=(18, 17, 23))).session_key.etype == 23
    assert stamps(kdc) == 1


def test_k027_preauth_required_for_rc4_alone_gets_no_rc4_timestamp() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.preauth_required(kdc.etype_info2(23), ENC_TIMESTAMP)
    credential = Password()
    with pytest.raises(KdcEtypeError, match="rc4-hmac"):
        get(kdc, credential=credential)
    assert (stamps(kdc), credential.asked) == (0, [])


@pytest.mark.parametrize("options", [AsOptions(), AsOptions(etypes=(18, 17, 23))])
def test_k027_a_key_of_aes_is_not_talked_down_to_rc4_after_its_timestamp(options: AsOptions) -> None:
    kdc = ScriptedKdc()
    credential = Keys(etypes=(18, 17))
    kdc.answer = lambda request, realm: kdc.preauth_required(kdc.etype_info2(23), ENC_TIMESTAMP)
    with pytest.raises(KdcEtypeError, match="rc4-hmac"):
        get(kdc, options, credential)
    assert stamps_of(kdc) == [18]
    get(ScriptedKdc(), options, credential)


@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k028_an_encrypted_timestamp_is_not_sent_where_policy_forbids_it(credential: Password) -> None:
    kdc = ScriptedKdc()
    with pytest.raises(PolicyError, match="PA-ENC-TIMESTAMP"):
        get(kdc, AsOptions(allow_encrypted_timestamp=False), credential)
    assert stamps_of(kdc) == [None]
    get(ScriptedKdc(preauth=False), AsOptions(allow_encrypted_timestamp=False), credential)
    get(ScriptedKdc(), credential=credential)


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param((PaData(PaDataType.PK_AS_REQ, b""), PaData(PaDataType.SPAKE, b"")), id="K028-others-only"),
        pytest.param((), id="K028-none"),
    ],
)
def test_no_timestamp_is_sent_to_a_kdc_that_does_not_ask_for_one(methods: tuple[PaData, ...]) -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(25, e_data=MethodData(methods).encode())
    with pytest.raises(UnsupportedError, match="PA-ENC-TIMESTAMP"):
        get(kdc)
    assert (len(kdc.seen), stamps(kdc)) == (1, 0)


def skewed(kdc: ScriptedKdc, by: timedelta) -> None:
    """Let the KDC answer the first timestamp with KRB_AP_ERR_SKEW and a time of its own."""

    def answer(request: Any, realm: str) -> Any:
        if stamps(kdc) == 1:
            return kdc.error(ErrorCode.KRB_AP_ERR_SKEW, stime=NOW + by)
        return None

    kdc.answer = answer


@pytest.mark.parametrize("by", [YEARS, -YEARS, timedelta(days=1, seconds=1), -timedelta(days=1, seconds=1)])
@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k029_a_forged_server_time_out_of_bounds_gets_no_timestamp(credential: Password, by: timedelta) -> None:
    kdc = ScriptedKdc()
    skewed(kdc, by)
    offsets: dict[str, timedelta] = {}
    with pytest.raises(ClockSkewError):
        get(kdc, credential=credential, offsets=offsets)
    assert (stamps(kdc), offsets) == (1, {})


@pytest.mark.parametrize("by", [timedelta(hours=1), -timedelta(hours=23)])
@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k029_a_server_time_within_bounds_is_used_for_the_timestamp(credential: Password, by: timedelta) -> None:
    kdc = ScriptedKdc(clock=lambda: NOW + by)  # says KRB_AP_ERR_SKEW of itself
    offsets: dict[str, timedelta] = {}
    got = get(kdc, credential=credential, offsets=offsets)
    assert (stamps(kdc), got.time_offset, offsets) == (2, by, {REALM: by})
    later = ScriptedKdc(clock=lambda: NOW + by)
    get(later, credential=credential, offsets=offsets)
    assert stamps(later) == 1  # what was learnt is remembered


@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k029_a_forged_server_time_within_bounds_leaves_no_offset_behind(credential: Password) -> None:
    kdc = ScriptedKdc()
    skewed(kdc, timedelta(hours=1))  # then the real KDC finds the timestamp wrong
    offsets: dict[str, timedelta] = {}
    with pytest.raises(ClockSkewError):
        get(kdc, credential=credential, offsets=offsets)
    assert (stamps(kdc), offsets) == (2, {})


@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k029_skew_is_an_error_where_time_is_not_synchronized(credential: Password) -> None:
    kdc = ScriptedKdc()
    skewed(kdc, timedelta(hours=1))
    with pytest.raises(ClockSkewError, match="set this machine's clock"):
        get(kdc, AsOptions(timesync=False), credential)
    assert stamps(kdc) == 1


@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k030_a_reply_without_preauth_is_refused_where_policy_requires_it(credential: Password) -> None:
    kdc = ScriptedKdc(preauth=False)
    with pytest.raises(PolicyError, match="pre-authentication"):
        get(kdc, AsOptions(require_preauth=True), credential)
    assert stamps_of(kdc) == [None]  # what the KDC gives to whoever asks is the question
    get(ScriptedKdc(preauth=True), AsOptions(require_preauth=True), credential)
    get(ScriptedKdc(preauth=False), credential=credential)


PERMITTED = AsOptions(etypes=(18, 23))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param(AsOptions(), KdcEtypeError, id="K030-rc4-not-permitted"),
        pytest.param(PERMITTED, PolicyError, id="K030-rc4-permitted-beside-aes-and-nobody-vouches-for-the-request"),
    ],
)
def test_an_rc4_reply_without_preauth_is_refused(options: AsOptions, error: type[Exception]) -> None:
    with pytest.raises(error):
        get(ScriptedKdc(preauth=False, etypes=(23,), enc_pa_rep=False), options)


def test_k030_an_rc4_reply_to_a_timestamp_that_nobody_asked_for_is_refused() -> None:
    """Who takes AES from the request gets it, as long as the KDC does not say what it was asked for."""

    class Downgraded(ScriptedKdc):
        def _finish(self, reply: Any, part: Any, key: Any, usage: int, application: Any) -> bytes:
            rc4 = Keys().key_for(23, b"", None)
            assert rc4 is not None
            sealed = replace(reply, enc_part=replace(reply.enc_part, etype=23))
            return super()._finish(sealed, part, rc4, usage, application)

    kdc = Downgraded(enc_pa_rep=False)
    with pytest.raises(PolicyError, match="CVE-2022-33647"):
        get(kdc, PERMITTED, Keys())
    assert stamps_of(kdc) == [18]
    get(ScriptedKdc(enc_pa_rep=False), PERMITTED, Keys())


def test_k030_an_rc4_reply_is_accepted_where_no_downgrade_can_be_behind_it() -> None:
    vouched = ScriptedKdc(preauth=False, etypes=(23,))
    assert get(vouched, PERMITTED).session_key.etype == 23
    nothing_better = ScriptedKdc(preauth=False, etypes=(23,), enc_pa_rep=False)
    assert get(nothing_better, AsOptions(etypes=(23,))).session_key.etype == 23


@pytest.mark.parametrize("code", [25, 90, 91])
def test_k031_an_endless_preauth_loop_ends(code: int) -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.preauth_required(code=code)
    with pytest.raises(ProtocolError, match="still asks for more"):
        get(kdc)
    assert len(kdc.seen) == MAX_REQUESTS == 16


@pytest.mark.parametrize("code", [14, 16, 24, 31])
def test_k031_a_timestamp_refused_for_ever_is_not_sent_twice(code: int) -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.error(code) if stamps_of(kdc)[-1] else kdc.preauth_required()
    with pytest.raises(KdcError) as caught:
        get(kdc, credential=Keys())
    assert caught.value.code == code
    assert stamps_of(kdc) == [18, None]
    get(ScriptedKdc(), credential=Keys())


def test_k031_an_expired_preauth_is_made_anew() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.preauth_required(code=90) if len(kdc.seen) == 2 else None
    get(kdc)
    assert len(kdc.seen) == 4  # asked, sent, expired: asked, sent


def wrong_realm(kdc: ScriptedKdc, next_realm: Callable[[str], str | None]) -> None:
    def answer(request: Any, realm: str) -> Any:
        other = next_realm(realm)
        return None if other is None else kdc.error(ErrorCode.KDC_ERR_WRONG_REALM, realm=realm, crealm=other)

    kdc.answer = answer


CANONICALIZE = AsOptions(canonicalize=True)


@pytest.mark.parametrize(
    ("next_realm", "requests"),
    [
        pytest.param({REALM: "B.TEST", "B.TEST": REALM}.get, 2, id="K032-there-and-back"),
        pytest.param({REALM: REALM}.get, 1, id="K032-to-itself"),
        pytest.param(lambda realm: realm + "X", MAX_REFERRALS + 1, id="K032-ever-new-realms"),
    ],
)
def test_client_referrals_without_end_are_refused(next_realm: Callable[[str], str | None], requests: int) -> None:
    kdc = ScriptedKdc()
    wrong_realm(kdc, next_realm)
    with pytest.raises(ProtocolError, match=r"circle|referrals"):
        get(kdc, CANONICALIZE)
    assert len(kdc.seen) == requests <= 11


def test_k032_client_referrals_with_an_end_are_followed() -> None:
    kdc = ScriptedKdc(salt=b"salt")
    wrong_realm(kdc, {REALM: "B.TEST", "B.TEST": "C.TEST"}.get)
    got = get(kdc, CANONICALIZE)
    assert kdc.realms == [REALM, "B.TEST", "C.TEST", "C.TEST"]
    assert got.client == Principal.parse("alice@C.TEST")
    assert got.service == Principal.parse("krbtgt/C.TEST@C.TEST")


def test_k032_a_client_referral_is_an_error_without_canonicalize() -> None:
    kdc = ScriptedKdc()
    wrong_realm(kdc, {REALM: "B.TEST"}.get)
    with pytest.raises(KdcError, match="another realm"):
        get(kdc)
    assert kdc.realms == [REALM]


def enc_pa_rep(change: Callable[[bytes], bytes | None]) -> Callable[[EncKdcRepPart], EncKdcRepPart]:
    """Change the DER of the Checksum in PA-REQ-ENC-PA-REP; None drops it."""

    def part(genuine: EncKdcRepPart) -> EncKdcRepPart:
        assert genuine.encrypted_pa_data
        changed = change(genuine.encrypted_pa_data[0].padata_value)
        padata = None if changed is None else (PaData(PaDataType.ENC_PA_REP, changed),)
        return replace(genuine, encrypted_pa_data=padata)

    return part


def other_type(der: bytes) -> bytes:
    return replace(Checksum.decode(der), cksumtype=7).encode()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(lambda der: None, ProtocolError, id="K033-checksum-absent"),
        pytest.param(lambda der: der[:-1] + bytes([der[-1] ^ 1]), ProtocolError, id="K033-checksum-wrong"),
        pytest.param(other_type, ProtocolError, id="K033-checksum-of-an-unkeyed-type"),
        pytest.param(lambda der: der[:-1], DecodeError, id="K033-checksum-cut-short"),
    ],
)
@pytest.mark.parametrize("options", [AsOptions(), CANONICALIZE])
def test_a_claim_to_vouch_for_the_request_is_checked(
    options: AsOptions, change: Callable[[bytes], bytes | None], error: type[Exception]
) -> None:
    with pytest.raises(error):
        get(ScriptedKdc(part=enc_pa_rep(change)), options)
    get(ScriptedKdc(part=enc_pa_rep(lambda der: der)), options)


def test_k033_a_request_altered_on_the_way_is_noticed() -> None:
    """An attacker takes AES from the request, or adds an option: the checksum is over what the KDC got."""

    def alter(kdc: ScriptedKdc) -> Callable[[Any], bytes]:
        def send(request: Any) -> bytes:
            decoded = AsReq.decode(request.message)
            body = replace(decoded.req_body, etype=(17,))
            return kdc(replace(request, message=replace(decoded, req_body=body).encode()))

        return send

    with pytest.raises(ProtocolError, match="another request than was sent"):
        run(as_exchange(Password(), clock=clock), alter(ScriptedKdc()))
    got = run(as_exchange(Password(), clock=clock), alter(ScriptedKdc(enc_pa_rep=False)))
    assert got.session_key.etype == 17  # a KDC without RFC 6806 cannot tell


def test_k033_every_request_asks_for_the_checksum() -> None:
    kdc = ScriptedKdc()
    got = get(kdc)
    assert all(request.padata[-1] == PaData(PaDataType.ENC_PA_REP, b"") for request in kdc.seen)
    assert got.flags & TicketFlags.ENC_PA_REP
