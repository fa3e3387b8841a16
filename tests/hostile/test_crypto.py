"""K179 to K186: what must not get past the cryptography."""

from __future__ import annotations

import ast
import inspect
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import ApError, IntegrityError, KerberosError, UnsupportedError
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.framing import TOK_AP_REQ, frame, unframe
from purekrb.gss.initiator import Initiator
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import ApReq, Authenticator, Checksum
from purekrb.replay import MemoryReplayCache
from support.tickets import issue
from support.values import replace

ETYPES = (17, 18, 19, 20, 23)
SOURCE = Path(crypto.__file__).parents[1]


# K179: constant time


def test_k179_every_file_that_judges_a_mac_uses_compare_digest() -> None:
    """tests/unit/test_source_rules.py refuses == on secrets; this makes sure that what replaces it is there."""
    judges = [
        p for p in (SOURCE / "crypto").glob("*.py") if "raise IntegrityError" in p.read_text()
    ]
    assert len(judges) >= 3
    for path in judges:
        calls = [
            ast.unparse(n.func)
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call)
        ]
        assert "hmac.compare_digest" in calls, path


@pytest.mark.parametrize("etype", ETYPES)
def test_k179_the_place_of_the_first_wrong_byte_does_not_show_in_the_time(etype: int) -> None:
    key = crypto.random_key(etype)
    data = bytes(64)
    good = crypto.checksum(key, 1, data)
    early, late = bytes([good[0] ^ 1]) + good[1:], good[:-1] + bytes([good[-1] ^ 1])

    def duration(mac: bytes) -> int:
        start = time.perf_counter_ns()
        with pytest.raises(IntegrityError):
            crypto.verify_checksum(key, 1, data, mac)
        return time.perf_counter_ns() - start

    times: dict[bytes, list[int]] = {early: [], late: []}
    for _ in range(300):
        for mac in times:
            times[mac].append(duration(mac))
    one, two = (statistics.median(t) for t in times.values())
    assert max(one, two) < 2 * min(one, two)  # a smoke test: the lint is what holds
    crypto.verify_checksum(key, 1, data, good)


# K180, K181: lengths


@pytest.mark.parametrize("etype", ETYPES)
def test_k180_a_mac_of_any_other_length_is_refused(etype: int) -> None:
    key = crypto.random_key(etype)
    good = crypto.checksum(key, 5, b"data")
    for size in range(65):
        mac = (good + bytes(64))[:size]
        if size == len(good):
            crypto.verify_checksum(key, 5, b"data", mac)
        else:
            with pytest.raises(IntegrityError):
                crypto.verify_checksum(key, 5, b"data", mac)


@pytest.mark.parametrize("etype", ETYPES)
def test_k181_a_ciphertext_of_any_short_length_is_refused(etype: int) -> None:
    key = crypto.random_key(etype)
    good = crypto.encrypt(key, 5, b"some plaintext to cut")
    shortest = len(crypto.encrypt(key, 5, b""))
    for size in range(len(good)):
        for data in (good[:size], good[-size:] if size else b"", bytes(size), b"\xff" * size):
            with pytest.raises(IntegrityError):
                crypto.decrypt(key, 5, data)
    assert shortest == {17: 28, 18: 28, 19: 32, 20: 40, 23: 24}[etype]
    assert crypto.decrypt(key, 5, good) == b"some plaintext to cut"


# K182: checksum types


def test_k182_an_etype_has_one_checksum_and_that_one_is_keyed() -> None:
    """The type follows from the key, so there is no way to ask for a weak one."""
    assert "cksumtype" not in inspect.signature(crypto.verify_checksum).parameters
    for etype in ETYPES:
        one, two = crypto.random_key(etype), crypto.random_key(etype)
        assert crypto.checksum(one, 5, b"data") != crypto.checksum(two, 5, b"data")
    weak = {1, 2, 3, 4, 5, 6, 7, 8, 9, 14}
    assert not {crypto.profile_of(etype).checksum_type for etype in ETYPES} & weak


def with_checksum(
    ticket: ServiceTicket, token: bytes, change: Callable[[Checksum], Checksum | None]
) -> bytes:
    """The first token of an initiator with another checksum in its authenticator."""
    request = ApReq.decode(unframe(token)[1])
    usage, key = KeyUsage.AP_REQ_AUTHENTICATOR, ticket.session_key
    authenticator = Authenticator.decode(crypto.decrypt(key, usage, request.authenticator.cipher))
    assert authenticator.cksum is not None
    cipher = crypto.encrypt(
        key, usage, replace(authenticator, cksum=change(authenticator.cksum)).encode()
    )
    forged = replace(request, authenticator=replace(request.authenticator, cipher=cipher))
    return frame(TOK_AP_REQ, forged.encode())


OTHER_CHECKSUMS = (-138, -137, *range(10), 12, 13, 14, 15, 16, 19, 20)


@pytest.mark.parametrize(
    "cksumtype", [pytest.param(n, id=f"K182-type-{n}") for n in OTHER_CHECKSUMS]
)
def test_k182_no_other_checksum_stands_in_for_the_one_of_gss(cksumtype: int) -> None:
    ticket, keys = issue()
    token = Initiator(ticket).step()
    assert token is not None
    cache = MemoryReplayCache()
    unchanged = with_checksum(ticket, token, lambda checksum: checksum)
    assert Acceptor(keys, replay_cache=cache).step(unchanged)
    with pytest.raises(ApError) as caught:
        Acceptor(keys, replay_cache=cache).step(
            with_checksum(ticket, token, lambda c: Checksum(cksumtype, c.checksum))
        )
    assert caught.value.code in (ErrorCode.KRB_AP_ERR_INAPP_CKSUM, ErrorCode.KRB_AP_ERR_MODIFIED)


# K184: usages


@pytest.mark.parametrize("etype", ETYPES)
def test_k184_a_ciphertext_or_checksum_of_another_usage_is_refused(etype: int) -> None:
    key = crypto.random_key(etype)
    #: RFC 4757 3 gives these usages of RC4 one number.
    same = {3: {3, 8}, 8: {3, 8}, 23: {13, 23}, 13: {13, 23}} if etype == 23 else {}
    for usage in (0, 3, 11, 12, 22, 23, 24, 25, 1024):
        ciphertext, mac = crypto.encrypt(key, usage, b"data"), crypto.checksum(key, usage, b"data")
        for other in range(1025):
            if other in same.get(usage, {usage}):
                assert crypto.decrypt(key, other, ciphertext) == b"data"
                crypto.verify_checksum(key, other, b"data", mac)
            else:
                with pytest.raises(IntegrityError):
                    crypto.decrypt(key, other, ciphertext)
                with pytest.raises(IntegrityError):
                    crypto.verify_checksum(key, other, b"data", mac)


# K185: randomness


def test_k185_nothing_random_comes_from_the_random_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def predictable(*_args: object, **_options: object) -> Any:
        raise RuntimeError("the random module was used")

    for name in (
        "random",
        "randint",
        "randrange",
        "choice",
        "choices",
        "getrandbits",
        "randbytes",
        "sample",
    ):
        monkeypatch.setattr(random, name, predictable)
    for method in ("random", "getrandbits"):
        monkeypatch.setattr(random.Random, method, predictable, raising=False)
    with pytest.raises(RuntimeError):
        random.randint(0, 1)
    for etype in ETYPES:
        key = crypto.random_key(etype)
        assert crypto.decrypt(key, 1, crypto.encrypt(key, 1, b"data")) == b"data"
    ticket, keys = issue()
    initiator, acceptor = Initiator(ticket), Acceptor(keys, replay_cache=MemoryReplayCache())
    initiator.step(acceptor.step(initiator.step()))
    assert acceptor.unwrap(initiator.wrap(b"data")) == b"data"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_k185_forked_processes_draw_different_keys_confounders_and_sequence_numbers() -> None:
    """After a fork, parent and children start from the same memory: nothing may come out twice."""
    ticket, _ = issue()
    key = crypto.random_key(18)
    crypto.encrypt(key, 1, b"warm up")

    def draw() -> bytes:
        request = ApReq.decode(unframe(Initiator(ticket).step() or b"")[1])
        plaintext = crypto.decrypt(
            ticket.session_key, KeyUsage.AP_REQ_AUTHENTICATOR, request.authenticator.cipher
        )
        authenticator = Authenticator.decode(plaintext)
        assert authenticator.subkey is not None
        parts = (
            authenticator.subkey.contents.hex(),
            str(authenticator.seq_number),
            crypto.random_key(18).contents.hex(),
            crypto.encrypt(key, 1, b"data").hex(),
        )
        return " ".join(parts).encode()

    drawn = [draw()]
    for _ in range(4):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, draw())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            drawn.append(pipe.read())
        os.waitpid(child, 0)
    for column in zip(*(line.split() for line in drawn), strict=True):
        assert len(set(column)) == len(drawn), column


# K186: encryption type numbers


NO_ETYPES = (-(1 << 31), -128, -1, 0, 1, 3, 16, 21, 24, 1 << 31, 1 << 64)


@pytest.mark.parametrize("etype", [pytest.param(n, id=f"K186-etype-{n}") for n in NO_ETYPES])
def test_k186_an_etype_that_nobody_has_is_unsupported_and_no_key_error(etype: int) -> None:
    assert crypto.random_key(18)
    key = EncryptionKey(etype, bytes(16))
    calls: list[Callable[[], object]] = [
        lambda: crypto.random_key(etype),
        lambda: crypto.string_to_key(etype, "password", "salt"),
        lambda: crypto.profile_of(etype),
        lambda: crypto.encrypt(key, 1, b""),
        lambda: crypto.decrypt(key, 1, bytes(64)),
        lambda: crypto.checksum(key, 1, b""),
        lambda: crypto.verify_checksum(key, 1, b"", b""),
        lambda: crypto.prf(key, b""),
        lambda: crypto.cf2(key, key, b"", b""),
    ]
    for call in calls:
        with pytest.raises(UnsupportedError) as caught:
            call()
        assert isinstance(caught.value, KerberosError)
        assert not isinstance(caught.value, KeyError)
