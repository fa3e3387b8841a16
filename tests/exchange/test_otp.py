"""One-time passwords with the embedded KDC: in FAST alone, asked for once, sent once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from purekrb import (
    ArmorRequiredError,
    Config,
    Credential,
    KdcClient,
    PreauthFailedError,
    PreauthUnsupportedError,
    UnsupportedError,
)
from purekrb.kdc.client import AsyncKdcClient
from purekrb.messages.otp import OtpAnswer, OtpChallenge, OtpFlags, OtpTokenInfo
from purekrb.testing import Realm
from purekrb.testing.kdc_otp import KdcOtp
from purekrb.testing.kdc_preauth import KDC_MECHANISMS
from support.canaries import leaks

Call = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """call(config, method, ...) with a client of either kind."""

    def call(config: Config, method: str, *args: Any, **options: Any) -> Any:
        timeout = options.pop("timeout", 10.0)
        if request.param == "blocking":
            return getattr(KdcClient(config, timeout=timeout), method)(*args, **options)
        client = AsyncKdcClient(config, timeout=timeout)
        return asyncio.run(getattr(client, method)(*args, **options))

    return call


def realm_with(otp: KdcOtp, **options: Any) -> Realm:
    realm = Realm("EXAMPLE.TEST", preauth_mechanisms=(otp, *KDC_MECHANISMS), **options)
    realm.add_user("alice", "pw")
    realm.add_user("bob", "pw")
    realm.add_user("open", "pw", preauth=False)
    return realm


def armor() -> Credential:
    return Credential.from_password("open@EXAMPLE.TEST", "pw")


def test_the_person_is_asked_once_and_the_value_goes_once(call: Call) -> None:
    asked: list[OtpChallenge] = []

    def otp(challenge: OtpChallenge) -> str:
        asked.append(challenge)
        return "123456"

    kdc = KdcOtp({"alice": ("123456",)}, service="ACME", tokens=(OtpTokenInfo(length=6, format=0),))
    with realm_with(kdc) as realm:
        alice = Credential.from_otp("alice@EXAMPLE.TEST", otp)
        tgt = call(realm.config, "get_tgt", alice, armor=armor(), require="fast")
        assert tgt.is_tgt
        assert str(tgt.client) == "alice@EXAMPLE.TEST"
        assert [(c.service, c.tokens[0].length, c.tokens[0].wants_pin) for c in asked] == [
            ("ACME", 6, False)
        ]
        with pytest.raises(PreauthFailedError, match="refused the one-time password"):
            call(realm.config, "get_tgt", alice, armor=armor())
        assert len(asked) == 2  # a refusal is final


def test_a_coroutine_function_is_awaited() -> None:
    async def otp(challenge: OtpChallenge) -> str:
        await asyncio.sleep(0)
        return "123456"

    with realm_with(KdcOtp({"alice": ("123456",)})) as realm:
        alice = Credential.from_otp("alice@EXAMPLE.TEST", otp)
        client = AsyncKdcClient(realm.config, armor=armor())
        assert asyncio.run(client.get_tgt(alice)).is_tgt


def test_without_an_armor_nothing_is_sent(call: Call) -> None:
    with realm_with(KdcOtp({"alice": ("123456",)})) as realm:
        sent: list[bytes] = []
        handle = realm._kdc.handle
        realm._kdc.handle = lambda request: sent.append(request) or handle(request)  # type: ignore[method-assign,func-returns-value]
        alice = Credential.from_otp("alice@EXAMPLE.TEST", lambda _: "123456")
        with pytest.raises(ArmorRequiredError, match="one-time password only goes in FAST"):
            call(realm.config, "get_tgt", alice)
        assert not sent
        assert call(realm.config, "get_tgt", alice, armor=armor()).is_tgt
        assert sent


def test_a_separate_pin_goes_beside_the_value(call: Call) -> None:
    wanted = OtpFlags.COLLECT_PIN | OtpFlags.SEPARATE_PIN_REQUIRED
    tokens = (OtpTokenInfo(), OtpTokenInfo(wanted, token_id=b"2"))
    with realm_with(KdcOtp({"alice": ("111", "222")}, tokens=tokens, pin="0000")) as realm:
        seen: list[OtpTokenInfo] = []

        def otp(challenge: OtpChallenge) -> OtpAnswer:
            seen.append(challenge.tokens[1])
            return OtpAnswer("222", "0000", token=1)

        alice = Credential.from_otp("alice@EXAMPLE.TEST", otp)
        assert call(realm.config, "get_tgt", alice, armor=armor()).is_tgt
        assert (seen[0].wants_pin, seen[0].separate_pin) == (True, True)
        with pytest.raises(PreauthFailedError):
            call(realm.config, "get_tgt", alice, armor=armor(), otp=lambda _: "111")


def test_a_password_serves_where_no_one_time_password_is_asked_for(call: Call) -> None:
    def otp(challenge: OtpChallenge) -> str:
        raise AssertionError("bob has no token")

    with realm_with(KdcOtp({"alice": ("123456",)})) as realm:
        bob = Credential.from_password("bob@EXAMPLE.TEST", "pw")
        assert call(realm.config, "get_tgt", bob, armor=armor(), otp=otp).is_tgt
        only = Credential.from_otp("bob@EXAMPLE.TEST", otp)
        with pytest.raises(PreauthUnsupportedError, match="known here: PA-OTP"):
            call(realm.config, "get_tgt", only, armor=armor())


def test_who_has_no_callable_is_told_of_it(call: Call) -> None:
    otp = KdcOtp({"alice": ("123456",)})
    with Realm("EXAMPLE.TEST", preauth_mechanisms=(otp,)) as realm:
        realm.add_user("alice", "pw")
        realm.add_user("open", "pw", preauth=False)
        alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
        with pytest.raises(
            PreauthUnsupportedError, match=r"wants a one-time password.*pass otp="
        ) as caught:
            call(realm.config, "get_tgt", alice, armor=armor())
        assert "administrator" not in str(caught.value)


def test_a_key_made_of_the_value_is_refused_before_anybody_is_asked(call: Call) -> None:
    tokens = (OtpTokenInfo(OtpFlags.MUST_ENCRYPT_NONCE),)
    with realm_with(KdcOtp({"alice": ("123456",)}, tokens=tokens)) as realm:
        asked: list[OtpChallenge] = []

        def otp(challenge: OtpChallenge) -> str:
            asked.append(challenge)
            return "123456"

        alice = Credential.from_otp("alice@EXAMPLE.TEST", otp)
        with pytest.raises(UnsupportedError, match="must-encrypt-nonce"):
            call(realm.config, "get_tgt", alice, armor=armor())
        assert not asked


def test_the_time_that_a_person_takes_does_not_count(call: Call) -> None:
    def otp(challenge: OtpChallenge) -> str:
        time.sleep(1.2)
        return "123456"

    with realm_with(KdcOtp({"alice": ("123456",)})) as realm:
        alice = Credential.from_otp("alice@EXAMPLE.TEST", otp)
        assert call(realm.config, "get_tgt", alice, armor=armor(), timeout=1.0).is_tgt


def test_what_is_no_one_time_password_is_the_callers_misuse(call: Call) -> None:
    with realm_with(KdcOtp({"alice": ("123456",)})) as realm:
        alice = Credential.from_otp("alice@EXAMPLE.TEST", lambda _: b"123456")  # type: ignore[arg-type,return-value]
        with pytest.raises(TypeError, match="as text"):
            call(realm.config, "get_tgt", alice, armor=armor())
        with pytest.raises(ValueError, match="1 tokens"):
            call(
                realm.config,
                "get_tgt",
                alice,
                armor=armor(),
                otp=lambda _: OtpAnswer("123456", token=1),
            )


def test_the_value_is_in_no_message_and_no_traceback(call: Call) -> None:
    import traceback

    with realm_with(KdcOtp({"alice": ("other",)})) as realm:
        alice = Credential.from_otp(
            "alice@EXAMPLE.TEST", lambda _: OtpAnswer("Canary-0tp-4711", "Canary-p1n-4711")
        )
        assert "one-time password=<redacted>" in repr(alice)
        with pytest.raises(PreauthFailedError) as caught:
            call(realm.config, "get_tgt", alice, armor=armor())
        error = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert not leaks("".join(error.format()), [b"Canary-0tp-4711", b"Canary-p1n-4711"])
