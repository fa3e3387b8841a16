"""One-time passwords under attack: by a KDC that has the armor key, and by who is on the path. K670 to K674."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from purekrb import (
    ArmorRequiredError,
    Credential,
    DecodeError,
    KdcClient,
    KerberosError,
    PreauthFailedError,
    ProtocolError,
)
from purekrb.constants import ErrorCode, PaDataType
from purekrb.keys import EncryptionKey
from purekrb.messages.kdc import AsReq
from purekrb.messages.otp import OtpChallenge, OtpTokenInfo
from purekrb.testing import Realm
from purekrb.testing.kdc_accounts import RefusedError
from purekrb.testing.kdc_otp import KdcOtp
from purekrb.testing.kdc_preauth import KDC_MECHANISMS, PreauthRequest

VALUE = "Canary-123456"


class Kdc(KdcOtp):
    """A KDC whose challenge `change` alters."""

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        super().__init__({"alice": (VALUE, VALUE)})
        self._change = change

    def hint(self, request: PreauthRequest) -> bytes | None:
        found = super().hint(request)
        return None if found is None else self._change(found)


class Attempt:
    """One log-in of alice; `asked` counts the questions, `proofs` are the padata that were in the armor."""

    def __init__(self, kdc: KdcOtp, *, armor: bool = True) -> None:
        self.asked = 0
        self.armor, self.realm = (
            armor,
            Realm("EXAMPLE.TEST", preauth_mechanisms=(kdc, *KDC_MECHANISMS)),
        )
        self.realm.add_user("alice", "pw")
        self.realm.add_user("open", "pw", preauth=False)
        self.sent: list[bytes] = []

    def otp(self, _: OtpChallenge) -> str:
        self.asked += 1
        return VALUE

    def __call__(self, password: str | None = None) -> bool:
        with self.realm as realm:
            handle = realm._kdc.handle

            def watched(request: bytes) -> bytes:
                self.sent.append(request)
                return handle(request)

            realm._kdc.handle = watched  # type: ignore[method-assign]
            name = "alice@EXAMPLE.TEST"
            armor = Credential.from_password("open@EXAMPLE.TEST", "pw") if self.armor else None
            client = KdcClient(realm.config, armor=armor)
            if password is None:
                return client.get_tgt(Credential.from_otp(name, self.otp)).is_tgt
            return client.get_tgt(Credential.from_password(name, password), otp=self.otp).is_tgt


def same(value: bytes) -> bytes:
    return value


def test_control_the_value_gives_a_ticket() -> None:
    attempt = Attempt(Kdc(same))
    assert attempt()
    assert attempt.asked == 1


CHALLENGES = {
    "empty": lambda value: b"",
    "cut off": lambda value: value[:-3],
    "no token": lambda value: OtpChallenge(b"nonce", None, ()).encode(),
    "65 tokens": lambda value: OtpChallenge(b"nonce", None, (OtpTokenInfo(),) * 65).encode(),
    "no service": lambda value: b"\x30\x03\x02\x01\x00",
}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"K670-{name}") for name in CHALLENGES])
def test_a_malformed_challenge_asks_nobody(name: str) -> None:
    attempt = Attempt(Kdc(CHALLENGES[name]))
    with pytest.raises((DecodeError, ProtocolError)):
        attempt()
    assert attempt.asked == 0


def test_k671_a_challenge_outside_of_fast_gets_no_value() -> None:
    """The armor is the caller's: who strips FAST, or has none, never sees a value."""
    attempt = Attempt(Kdc(same), armor=False)
    for password in (None, "pw"):
        with pytest.raises(ArmorRequiredError):
            attempt(password)
    assert attempt.asked == 0
    assert attempt.sent == []


class Downgrading(Kdc):
    """A KDC that, after the value, asks for the password."""

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey:
        self.hint = lambda request: None  # type: ignore[method-assign]
        raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "no")


def test_k672_after_a_refused_value_nothing_else_is_sent() -> None:
    attempt = Attempt(Downgrading(same))
    with pytest.raises(PreauthFailedError, match="one-time password"):
        attempt("pw")
    assert attempt.asked == 1
    assert len(attempt.sent) == 3  # the armor's ticket, the first request, the value


def test_k673_a_ticket_without_the_value_is_refused() -> None:
    """A KDC that has the armor key alone, and no account of alice."""
    attempt = Attempt(Kdc(same))
    attempt.realm.add_user("alice", "pw", preauth=False)
    with pytest.raises(KerberosError) as caught:
        attempt()
    assert not isinstance(caught.value, PreauthFailedError)
    assert attempt.asked == 0


def test_k674_the_value_is_in_no_request_as_it_is() -> None:
    attempt = Attempt(Kdc(same))
    assert attempt()
    assert len(attempt.sent) == 3
    for request in attempt.sent:
        assert VALUE.encode() not in request
    types = [p.padata_type for p in AsReq.decode(attempt.sent[-1]).padata or ()]
    assert types == [PaDataType.FX_FAST]
