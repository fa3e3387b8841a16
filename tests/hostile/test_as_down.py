"""Attempts to talk a client down, or into a loop, with errors that anyone on the path can forge.

K026 to K033, K404 (RC4 where AES was offered), K406 (iterations), K427 (referrals to a realm that nobody trusts).
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from purekrb import Config, Credential, KdcClient
from purekrb.constants import ErrorCode, NameType, PaDataType, TicketFlags
from purekrb.errors import (
    ClockSkewError,
    DecodeError,
    KdcError,
    KdcEtypeError,
    PolicyError,
    ProtocolError,
    TransportTimeoutError,
    UnsupportedError,
)
from purekrb.exchanges.as_exchange import (
    DEFAULT_MAX_ITERATIONS,
    MAX_REFERRALS,
    MAX_REQUESTS,
    AsOptions,
    as_exchange,
)
from purekrb.exchanges.runner import run
from purekrb.io import asyncio as io_asyncio
from purekrb.io import blocking as io_blocking
from purekrb.io.steps import in_thread
from purekrb.kdc.client import AsyncKdcClient
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import Checksum
from purekrb.messages.kdc import AsReq, EncKdcRepPart, MethodData, PaData
from purekrb.names import Principal
from purekrb.testing import Realm
from support.scripted_kdc import NOW, REALM, Keys, Password, ScriptedKdc, clock
from support.scripted_kdc import stamps as stamps_of
from support.values import replace

ENC_TIMESTAMP = PaData(PaDataType.ENC_TIMESTAMP, b"")
YEARS = timedelta(days=3652)


def get(
    kdc: ScriptedKdc,
    options: AsOptions | None = None,
    credential: Password | None = None,
    **more: Any,
) -> Any:
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
    assert get(kdc, AsOptions(etypes=(23,))).session_key.etype == 23
    assert stamps(kdc) == 1


def test_k027_preauth_required_for_rc4_alone_gets_no_rc4_timestamp() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: kdc.preauth_required(kdc.etype_info2(23), ENC_TIMESTAMP)
    credential = Password()
    with pytest.raises(KdcEtypeError, match="rc4-hmac"):
        get(kdc, credential=credential)
    assert (stamps(kdc), credential.asked) == (0, [])


@pytest.mark.parametrize("options", [AsOptions(), AsOptions(etypes=(18, 17, 23))])
def test_k027_a_key_of_aes_is_not_talked_down_to_rc4_after_its_timestamp(
    options: AsOptions,
) -> None:
    kdc = ScriptedKdc()
    credential = Keys(etypes=(18, 17))
    kdc.answer = lambda request, realm: kdc.preauth_required(kdc.etype_info2(23), ENC_TIMESTAMP)
    with pytest.raises(KdcEtypeError, match="rc4-hmac"):
        get(kdc, options, credential)
    assert stamps_of(kdc) == [18]
    get(ScriptedKdc(), options, credential)


@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k028_an_encrypted_timestamp_is_not_sent_where_policy_forbids_it(
    credential: Password,
) -> None:
    kdc = ScriptedKdc()
    with pytest.raises(PolicyError, match="PA-ENC-TIMESTAMP"):
        get(kdc, AsOptions(allow_encrypted_timestamp=False), credential)
    assert stamps_of(kdc) == [None]
    get(ScriptedKdc(preauth=False), AsOptions(allow_encrypted_timestamp=False), credential)
    get(ScriptedKdc(), credential=credential)


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param(
            (PaData(PaDataType.PK_AS_REQ, b""), PaData(PaDataType.OTP_CHALLENGE, b"")),
            id="K028-others-only",
        ),
        pytest.param((), id="K028-none"),
    ],
)
def test_no_timestamp_is_sent_to_a_kdc_that_does_not_ask_for_one(
    methods: tuple[PaData, ...],
) -> None:
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


@pytest.mark.parametrize(
    "by", [YEARS, -YEARS, timedelta(days=1, seconds=1), -timedelta(days=1, seconds=1)]
)
@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k029_a_forged_server_time_out_of_bounds_gets_no_timestamp(
    credential: Password, by: timedelta
) -> None:
    kdc = ScriptedKdc()
    skewed(kdc, by)
    offsets: dict[str, timedelta] = {}
    with pytest.raises(ClockSkewError):
        get(kdc, credential=credential, offsets=offsets)
    assert (stamps(kdc), offsets) == (1, {})


@pytest.mark.parametrize("by", [timedelta(hours=1), -timedelta(hours=23)])
@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k029_a_server_time_within_bounds_is_used_for_the_timestamp(
    credential: Password, by: timedelta
) -> None:
    kdc = ScriptedKdc(clock=lambda: NOW + by)  # says KRB_AP_ERR_SKEW of itself
    offsets: dict[str, timedelta] = {}
    got = get(kdc, credential=credential, offsets=offsets)
    assert (stamps(kdc), got.time_offset, offsets) == (2, by, {REALM: by})
    later = ScriptedKdc(clock=lambda: NOW + by)
    get(later, credential=credential, offsets=offsets)
    assert stamps(later) == 1  # what was learnt is remembered


@pytest.mark.parametrize("credential", [Password(), Keys()])
def test_k029_a_forged_server_time_within_bounds_leaves_no_offset_behind(
    credential: Password,
) -> None:
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
def test_k030_a_reply_without_preauth_is_refused_where_policy_requires_it(
    credential: Password,
) -> None:
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
        pytest.param(
            PERMITTED,
            PolicyError,
            id="K030-rc4-permitted-beside-aes-and-nobody-vouches-for-the-request",
        ),
    ],
)
def test_an_rc4_reply_without_preauth_is_refused(
    options: AsOptions, error: type[Exception]
) -> None:
    with pytest.raises(error):
        get(ScriptedKdc(preauth=False, etypes=(23,), enc_pa_rep=False), options)


class Downgraded(ScriptedKdc):
    """Seal the reply with the user's RC4 key, whatever the timestamp was sealed with."""

    def _finish(self, reply: Any, part: Any, key: Any, usage: int, application: Any) -> bytes:
        rc4 = Keys().key_for(23, b"", None)
        assert rc4 is not None
        sealed = replace(reply, enc_part=replace(reply.enc_part, etype=23))
        return super()._finish(sealed, part, rc4, usage, application)


def test_k030_an_rc4_reply_to_a_timestamp_that_nobody_asked_for_is_refused() -> None:
    """Who takes AES from the request gets it, as long as the KDC does not say what it was asked for."""

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
    kdc.answer = lambda request, realm: (
        kdc.error(code) if stamps_of(kdc)[-1] else kdc.preauth_required()
    )
    with pytest.raises(KdcError) as caught:
        get(kdc, credential=Keys())
    assert caught.value.code == code
    assert stamps_of(kdc) == [18, None]
    get(ScriptedKdc(), credential=Keys())


def test_k031_an_expired_preauth_is_made_anew() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: (
        kdc.preauth_required(code=90) if len(kdc.seen) == 2 else None
    )
    get(kdc)
    assert len(kdc.seen) == 4  # asked, sent, expired: asked, sent


def wrong_realm(kdc: ScriptedKdc, next_realm: Callable[[str], str | None]) -> None:
    def answer(request: Any, realm: str) -> Any:
        other = next_realm(realm)
        return (
            None
            if other is None
            else kdc.error(ErrorCode.KDC_ERR_WRONG_REALM, realm=realm, crealm=other)
        )

    kdc.answer = answer


TRUSTED = ("B.TEST", "C.TEST", *(REALM + "X" * n for n in range(1, 2 * MAX_REFERRALS)))
CANONICALIZE = AsOptions(canonicalize=True, referral_realms=TRUSTED)


@pytest.mark.parametrize(
    ("next_realm", "requests"),
    [
        pytest.param({REALM: "B.TEST", "B.TEST": REALM}.get, 2, id="K032-there-and-back"),
        pytest.param({REALM: REALM}.get, 1, id="K032-to-itself"),
        pytest.param(lambda realm: realm + "X", MAX_REFERRALS + 1, id="K032-ever-new-realms"),
    ],
)
def test_client_referrals_without_end_are_refused(
    next_realm: Callable[[str], str | None], requests: int
) -> None:
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
        pytest.param(
            lambda der: der[:-1] + bytes([der[-1] ^ 1]), ProtocolError, id="K033-checksum-wrong"
        ),
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


# -- K404: RC4 alone is for who offers RC4 alone


def talk_down(kdc: ScriptedKdc, *etypes: int, refuse: int | None = None) -> None:
    """Let someone forge the KDC's errors: its keys are of `etypes`; first, `refuse` for a timestamp it did not want."""

    def answer(request: Any, realm: str) -> Any:
        if refuse is not None and len(kdc.seen) == 1:
            return kdc.error(refuse)
        return kdc.preauth_required(kdc.etype_info2(*etypes), ENC_TIMESTAMP)

    kdc.answer = answer


@pytest.mark.parametrize(
    "options", [AsOptions(etypes=(18, 17, 20, 19, 23)), AsOptions(etypes=(23, 17))]
)
@pytest.mark.parametrize("named", [(23,), (23, 3), (999, 23, 24)])
@pytest.mark.parametrize("kind", [Password, Keys])
@pytest.mark.parametrize(
    "refuse", [None, ErrorCode.KDC_ERR_ETYPE_NOSUPP, ErrorCode.KDC_ERR_PREAUTH_FAILED]
)
def test_k404_no_timestamp_is_made_with_rc4_while_aes_is_offered(
    options: AsOptions, named: tuple[int, ...], kind: type[Password], refuse: int | None
) -> None:
    kdc, credential = ScriptedKdc(), kind()
    talk_down(kdc, *named, refuse=refuse if kind is Keys else None)
    with pytest.raises(KdcEtypeError, match="unless it is offered alone"):
        get(kdc, options, credential)
    assert 23 not in stamps_of(kdc)
    assert 23 not in [etype for etype, _, _ in credential.asked]
    genuine = ScriptedKdc()
    get(genuine, options, kind())
    assert stamps_of(genuine)[-1] in (17, 18)


@pytest.mark.parametrize(
    ("options", "credential"),
    [(AsOptions(etypes=(23,)), Password()), (AsOptions(etypes=(18, 23)), Keys(etypes=(23,)))],
)
def test_k404_rc4_is_proven_with_by_who_offers_nothing_else(
    options: AsOptions, credential: Password
) -> None:
    kdc = ScriptedKdc(etypes=(23,))
    assert get(kdc, options, credential).session_key.etype == 23
    assert stamps_of(kdc)[-1] == 23


def test_k404_an_rc4_reply_to_an_aes_timestamp_is_refused_unless_the_kdc_vouches_for_the_request() -> (
    None
):
    """Who takes AES from a request that has its timestamp gets such a reply, and can guess at it cheaply."""

    kdc = Downgraded(enc_pa_rep=False)
    with pytest.raises(PolicyError, match="CVE-2022-33647"):
        get(kdc, PERMITTED)
    assert stamps_of(kdc) == [None, 18]
    get(ScriptedKdc(enc_pa_rep=False), PERMITTED)


def test_k404_a_client_with_allow_rc4_offers_it_alone_by_its_configuration() -> None:
    with Realm("R.TEST", etypes=(18, 23)) as realm:
        old = realm.add_user("old", "pw", etypes=(23,))
        new = realm.add_user("new", "pw", etypes=(18,))
        with pytest.raises(KdcEtypeError):
            KdcClient(realm.config).get_tgt(old)
        assert KdcClient(realm.config).get_tgt(new).session_key.etype == 18
        alone = dataclasses.replace(realm.config, default_tkt_enctypes=(23,))
        assert KdcClient(alone).get_tgt(old).session_key.etype == 23


# -- K406: PBKDF2 iterations


def rounds(count: int) -> bytes:
    return count.to_bytes(4, "big")


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
@pytest.mark.parametrize("preauth", [True, False])
def test_k406_a_count_above_the_ceiling_is_refused_before_anything_is_derived(
    etype: int, preauth: bool
) -> None:
    options = AsOptions(etypes=(etype,), max_iterations=40000)
    credential = Password()
    begun = time.perf_counter()
    with pytest.raises(PolicyError, match="at most 40000 is permitted"):
        get(ScriptedKdc(preauth=preauth, s2kparams=rounds(40001)), options, credential)
    forged = ScriptedKdc(etypes=(etype,), s2kparams=rounds((1 << 20) + 1))
    with pytest.raises(PolicyError, match=f"at most {1 << 20} is permitted"):
        get(forged, credential=credential)
    assert credential.asked == []
    get(ScriptedKdc(preauth=preauth, s2kparams=rounds(40000)), options, credential)
    assert [params for _, _, params in credential.asked] == [rounds(40000)]
    assert time.perf_counter() - begun < 5
    assert DEFAULT_MAX_ITERATIONS == AsOptions().max_iterations == 1 << 20


def test_k406_the_configuration_decides_on_the_ceiling() -> None:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "pw", iterations=50000)
        for limit, permitted in ((None, True), (50000, True), (49999, False)):
            config = dataclasses.replace(realm.config, max_iterations=limit)
            credential = Credential.from_password("alice@R.TEST", "pw")
            if permitted:
                assert KdcClient(config).get_tgt(credential).is_tgt
            else:
                with pytest.raises(PolicyError, match="max_iterations"):
                    KdcClient(config).get_tgt(credential)


def test_k406_keys_need_no_iterations() -> None:
    kdc = ScriptedKdc()
    kdc.answer = lambda request, realm: (
        replace(kdc, s2kparams=rounds(1 << 24)).preauth_required() if len(kdc.seen) == 1 else None
    )
    assert get(kdc, credential=Keys()).is_tgt
    assert stamps_of(kdc) == [18, 18]


LONG = 1 << 22  # more than a second of work


@pytest.fixture(scope="module")
def slow() -> Any:
    """A realm that names, for some users, as many iterations as a forged error would."""
    with Realm("R.TEST") as realm:
        realm.add_user("slow", "pw", iterations=LONG, etypes=(17,))
        realm.add_user("alice", "pw", iterations=1 << 18, etypes=(17,))
        realm.add_user("sha2", "pw", etypes=(20,))
        yield realm


class Watched(Credential):
    """Tells who derived its key, and how often the loop came by meanwhile."""

    beats = passed = 0
    thread: threading.Thread | None = None

    def key_for(self, etype: int, salt: bytes, params: bytes | None = None) -> EncryptionKey | None:
        before = self.beats
        try:
            return super().key_for(etype, salt, params)
        finally:
            self.thread = threading.current_thread()
            self.passed += self.beats - before


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_k406_the_deadline_holds_while_a_key_is_derived(slow: Realm, face: str) -> None:
    config = dataclasses.replace(slow.config, max_iterations=LONG)

    def get_tgt(credential: Credential, timeout: float) -> Any:
        if face == "blocking":
            return KdcClient(config, timeout=timeout).get_tgt(credential)
        return asyncio.run(AsyncKdcClient(config, timeout=timeout).get_tgt(credential))

    credential = Watched.from_password("slow@R.TEST", "pw")
    assert isinstance(credential, Watched)
    begun = time.monotonic()
    with pytest.raises(TransportTimeoutError, match=rf"{LONG} iterations.* before the deadline"):
        get_tgt(credential, 0.5)
    assert credential.thread is None  # the derivation goes on, and nobody waits for it
    assert time.monotonic() - begun < 4
    assert get_tgt(Credential.from_password("sha2@R.TEST", "pw"), 30.0).is_tgt


@pytest.mark.parametrize("name", ["alice", "sha2"])
def test_k406_the_loop_of_asyncio_goes_on_while_a_key_is_derived(slow: Realm, name: str) -> None:
    credential = Watched.from_password(f"{name}@R.TEST", "pw")
    assert isinstance(credential, Watched)

    async def login() -> None:
        done = asyncio.ensure_future(AsyncKdcClient(slow.config, timeout=30).get_tgt(credential))
        while not done.done():
            await asyncio.sleep(0.001)
            credential.beats += 1
        assert (await done).is_tgt

    asyncio.run(login())
    assert credential.thread not in (None, threading.main_thread())
    if name == "alice":  # the other key takes some 25 ms, which a busy machine may have no turn in
        assert credential.passed > 2


@pytest.mark.parametrize(
    "drive", [io_blocking.drive, lambda steps: asyncio.run(io_asyncio.drive(steps))]
)
def test_k406_nothing_is_started_after_the_deadline(drive: Callable[[Any], Any]) -> None:
    started = threading.Event()
    with pytest.raises(TransportTimeoutError, match="too late"):
        drive(in_thread(started.set, time.monotonic(), time.monotonic, "too late"))
    assert not started.is_set()
    drive(in_thread(started.set, time.monotonic() + 10, time.monotonic, "too late"))
    assert started.is_set()


# -- K427: referrals to a realm that nobody trusts


@pytest.mark.parametrize(
    "trusted",
    [(), ("C.TEST",), ("b.test",), ("B.TEST.EVIL.TEST",), "B.TEST", (REALM,)],
    ids=["nobody", "another", "other-case", "longer", "text-in-place-of-names", "its-own"],
)
@pytest.mark.parametrize(
    "client", [Principal.parse(f"alice@{REALM}"), Principal(("alice@b.test",), REALM, 10)]
)
@pytest.mark.parametrize("kind", [Password, Keys])
def test_k427_a_referral_to_a_realm_that_nobody_trusts_sends_nothing_there(
    kind: type[Password], client: Principal, trusted: Any
) -> None:
    kdc = ScriptedKdc()
    wrong_realm(kdc, {REALM: "B.TEST"}.get)
    options = AsOptions(
        canonicalize=client.name_type != NameType.ENTERPRISE, referral_realms=trusted
    )
    with pytest.raises(
        PolicyError, match=r"refers the client to 'B\.TEST'.* nothing was sent there"
    ):
        get(kdc, options, kind(client))
    assert kdc.realms == [REALM]
    genuine = ScriptedKdc(salt=b"EXAMPLE.TESTalice")
    wrong_realm(genuine, {REALM: "B.TEST"}.get)
    get(genuine, AsOptions(canonicalize=True, referral_realms=("B.TEST",)), kind(client))
    assert (genuine.realms[-1], stamps_of(genuine)[-1]) == ("B.TEST", 18)


def test_k427_a_second_referral_is_held_to_the_same() -> None:
    kdc = ScriptedKdc()
    wrong_realm(kdc, {REALM: "B.TEST", "B.TEST": "EVIL.TEST"}.get)
    with pytest.raises(PolicyError, match="EVIL"):
        get(kdc, CANONICALIZE)
    assert kdc.realms == [REALM, "B.TEST"]
    wrong_realm(kdc, {REALM: "B.TEST", "B.TEST": "C.TEST"}.get)
    assert get(kdc, CANONICALIZE).client.realm == "C.TEST"


def test_k427_a_referral_is_followed_to_the_realms_of_the_configuration() -> None:
    """As Active Directory refers who logs in with a UPN suffix of another domain."""
    with Realm("A.TEST") as a, Realm("B.TEST") as b:
        a.trust(b)
        b.add_user("bob", "pw")
        kdcs = {name: a.config.realms[name] for name in ("A.TEST", "B.TEST")}
        bob = Principal(("bob@b.test",), "A.TEST", NameType.ENTERPRISE)

        def get_tgt(**changes: Any) -> Any:
            config = dataclasses.replace(a.config, realms=kdcs, **changes)
            return KdcClient(config).get_tgt(Credential.from_password(bob, "pw"))

        assert str(get_tgt().client) == "bob@B.TEST"
        assert str(get_tgt(referral_realms=["B.TEST"]).client) == "bob@B.TEST"
        for nobody in ([], ["A.TEST"], "C.TEST"):
            with pytest.raises(PolicyError, match="nothing was sent there"):
                get_tgt(referral_realms=nobody)
        only_a = {"A.TEST": kdcs["A.TEST"]}
        with pytest.raises(PolicyError, match="referral_realms"):
            KdcClient(dataclasses.replace(a.config, realms=only_a)).get_tgt(
                Credential.from_password(bob, "pw")
            )


def test_k427_the_realms_of_a_configuration_are_those_that_it_names_for_clients() -> None:
    config = Config(
        realms={"A": ["kdc"]},
        default_realm="B",
        domain_realm={".c.test": "C", "host.c.test": "C"},
        capaths={"D": {"FAR": ("MID",)}},
    )
    assert config.client_realms == {"A", "B", "C", "D"}
    assert Config().client_realms == frozenset()
    assert dataclasses.replace(config, referral_realms=()).client_realms == frozenset()
    assert dataclasses.replace(config, referral_realms="AD.TEST").client_realms == {"AD.TEST"}
