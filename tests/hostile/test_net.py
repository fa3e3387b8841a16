"""KDCs that stay silent, dribble, lie or break off: K248 to K262, by the blocking and the asyncio transport alike.

K260 is in test_kkdcp.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from purekrb.constants import ErrorCode
from purekrb.errors import ConfigError, TransportError, TransportTimeoutError
from purekrb.kdc import transport, udp
from purekrb.kdc.locate import Locator
from purekrb.krb5conf.config import Config
from purekrb.messages.ap import KrbError
from purekrb.records import replace
from support import asking
from support.kdc_stubs import (
    DnsStub,
    TcpStub,
    UdpStub,
    closed_port,
    frame,
    full_listener,
    krb_error,
    read_frame,
    reply_of,
)
from support.peers import free_port

REALM = "R.TEST"
REQUEST = b"\x6a\x03req"
REPLY = reply_of()

#: Seconds in which what happens at once has happened, also on a busy machine.
AT_ONCE = 3.0

Send = Callable[..., bytes]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_leaked_descriptor() -> Iterator[None]:
    """Every case ends with as many descriptors as it started with."""
    before = descriptors()
    yield
    deadline = time.monotonic() + 10
    while descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert descriptors() <= before


def locator_of(kdcs: tuple[str, ...], options: dict[str, Any]) -> Locator:
    parts = {name: options.pop(name) for name in ("resolver", "getaddrinfo") if name in options}
    return Locator(Config(realms={REALM: kdcs} if kdcs else {}, **options), **parts)


def blocking(*kdcs: str, timeout: float = 5.0, message: bytes = REQUEST, **options: Any) -> bytes:
    locator = locator_of(kdcs, options)
    return asking.send(locator, REALM, message, time.monotonic() + timeout)


def with_asyncio(
    *kdcs: str, timeout: float = 5.0, message: bytes = REQUEST, **options: Any
) -> bytes:
    locator = locator_of(kdcs, options)
    return asyncio.run(asking.send_async(locator, REALM, message, time.monotonic() + timeout))


@pytest.fixture(params=[blocking, with_asyncio], ids=["blocking", "asyncio"])
def send(request: pytest.FixtureRequest) -> Send:
    """send(kdc, ..., timeout=, message=, and fields of Config) -> reply."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def next_one_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the next KDC at once, because the last one has failed, or not before the test has failed."""
    monkeypatch.setattr(transport, "STAGGER", 60.0)


@pytest.fixture
def stagger(monkeypatch: pytest.MonkeyPatch) -> float:
    """So long that one pause can be told from two on a busy machine."""
    assert transport.STAGGER < 1.0
    monkeypatch.setattr(transport, "STAGGER", 1.5)
    return 1.5


class Timer:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._start


# -- what stubs do ---------------------------------------------------------------------------------------------------


def answer(stub: TcpStub, connection: socket.socket) -> None:
    read_frame(connection)
    connection.sendall(frame(REPLY))


def saying(data: bytes, *, then: float = 0) -> Callable[[TcpStub, socket.socket], None]:
    """Read the request, send `data` as it is, and close after `then` seconds or at the end of the test."""

    def handle(stub: TcpStub, connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(data)
        stub.stopping.wait(then)

    return handle


silent = saying(b"", then=60)


def answer_udp(stub: UdpStub, data: bytes, client: Any) -> None:
    stub.socket.sendto(REPLY, client)


def silent_udp(stub: UdpStub, data: bytes, client: Any) -> None:
    pass


# -- K248 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "udp", "both", "three"])
def test_k248_a_silent_kdc_ends_at_the_deadline(send: Send, kind: str) -> None:
    with TcpStub(silent) as tcp, UdpStub(silent_udp) as udp, TcpStub(silent) as other:
        kdcs = {
            "tcp": [tcp.url],
            "udp": [udp.url],
            "both": [udp.url, tcp.url],
            "three": [tcp.url, udp.url, other.url],
        }
        timer = Timer()
        with pytest.raises(
            TransportTimeoutError, match=r"no answer.*Check that a KDC runs"
        ) as caught:
            send(*kdcs[kind], timeout=0.9)
        assert 0.8 < timer() < 0.9 + AT_ONCE
        assert isinstance(caught.value, TimeoutError)
        assert all(
            str(stub.port) in str(caught.value) for stub in ([tcp, udp] if kind == "both" else [])
        )


def test_k248_a_listener_that_never_accepts_ends_at_the_deadline(send: Send) -> None:
    with full_listener() as port:
        timer = Timer()
        with pytest.raises(TransportTimeoutError):
            send(f"tcp://127.0.0.1:{port}", timeout=0.5)
        assert 0.4 < timer() < 0.5 + AT_ONCE


def test_k248_control_a_kdc_that_answers_is_heard(send: Send) -> None:
    with TcpStub(answer) as tcp, UdpStub(answer_udp) as udp:
        assert send(tcp.url) == REPLY
        assert send(udp.url) == REPLY
        assert udp.received == [REQUEST]


# -- K249 ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("next_one_late")
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="K249-close-before-length"),
        pytest.param(frame(REPLY)[:1], id="K249-close-after-1"),
        pytest.param(frame(REPLY)[:2], id="K249-close-after-2"),
        pytest.param(frame(REPLY)[:3], id="K249-close-after-3"),
        pytest.param(frame(REPLY)[:4], id="K249-close-after-length"),
        pytest.param(frame(REPLY)[: 4 + len(REPLY) // 2], id="K249-half-body"),
    ],
)
def test_k249_a_kdc_that_breaks_off_is_named_and_the_next_one_asked_at_once(
    send: Send, sent: bytes
) -> None:
    with TcpStub(saying(sent)) as broken, TcpStub(answer) as good:
        with pytest.raises(
            TransportError,
            match=rf"port {broken.port}.*closed the connection after {len(sent)} bytes",
        ):
            send(broken.url)
        timer = Timer()
        assert send(broken.url, good.url) == REPLY
        assert timer() < AT_ONCE


def test_k249_reset_instead_of_an_answer(send: Send) -> None:
    def reset(stub: TcpStub, connection: socket.socket) -> None:
        read_frame(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with TcpStub(reset) as broken, TcpStub(answer) as good:
        with pytest.raises(TransportError, match="reset"):
            send(broken.url)
        assert send(broken.url, good.url) == REPLY


def test_k249_a_half_closed_kdc_does_not_hang(send: Send) -> None:
    def half_close(stub: TcpStub, connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        stub.stopping.wait(60)

    with TcpStub(half_close) as broken:
        timer = Timer()
        with pytest.raises(TransportError, match="closed the connection"):
            send(broken.url)
        assert timer() < AT_ONCE


# -- K250 ------------------------------------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(0, id="K250-zero"),
        pytest.param(0x80000000 | len(REPLY), id="K250-high-bit"),
        pytest.param(0x7FFFFFFF, id="K250-0x7FFFFFFF"),
        pytest.param(0xFFFFFFFF, id="K250-0xFFFFFFFF"),
        pytest.param(MIB + 1, id="K250-1MiB+1"),
    ],
)
def test_k250_a_length_that_no_reply_has_is_refused(send: Send, length: int) -> None:
    def flood(stub: TcpStub, connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(struct.pack(">I", length) + REPLY)
        while not stub.stopping.is_set():
            connection.sendall(bytes(65536))

    with TcpStub(flood) as kdc:
        timer = Timer()
        tracemalloc.start()
        try:
            with pytest.raises(TransportError, match=f"0x{length:08x}"):
                send(kdc.url)
            assert tracemalloc.get_traced_memory()[1] < MIB
        finally:
            tracemalloc.stop()
        assert timer() < AT_ONCE


def test_k250_control_one_mebibyte_is_accepted(send: Send) -> None:
    large = reply_of(bytes(MIB - 15))
    assert len(large) == MIB
    with TcpStub(saying(frame(large))) as kdc:
        assert send(kdc.url) == large


# -- K251 ------------------------------------------------------------------------------------------------------------


def dribble(pause: float) -> Callable[[TcpStub, socket.socket], None]:
    def handle(stub: TcpStub, connection: socket.socket) -> None:
        read_frame(connection)
        for byte in frame(REPLY):
            connection.sendall(bytes((byte,)))
            if stub.stopping.wait(pause):
                return

    return handle


def test_k251_one_byte_at_a_time_does_not_move_the_deadline(send: Send) -> None:
    with TcpStub(dribble(0.2)) as kdc:
        timer = Timer()
        with pytest.raises(TransportTimeoutError):
            send(kdc.url, timeout=0.9)
        assert 0.8 < timer() < 2.8  # all the bytes take three seconds
    with TcpStub(dribble(0.001)) as kdc:
        assert send(kdc.url) == REPLY


def test_k251_a_kdc_that_does_not_read_the_request_ends_at_the_deadline(send: Send) -> None:
    def deaf(stub: TcpStub, connection: socket.socket) -> None:
        stub.stopping.wait(60)

    with TcpStub(deaf) as kdc:
        timer = Timer()
        with pytest.raises(TransportTimeoutError):
            send(kdc.url, timeout=0.5, message=bytes(16 * MIB))
        assert timer() < 0.5 + AT_ONCE
    with TcpStub(answer) as kdc:
        assert send(kdc.url, message=bytes(MIB)) == REPLY


# -- K252 ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("next_one_late")
@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "0x48545450", id="K252-http-banner"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x0a", "0x15030300", id="K252-tls-alert"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "0x5353482d", id="K252-ssh-banner"),
        pytest.param(frame(b"hello, this is no DER"), "not Kerberos", id="K252-text-in-a-frame"),
        pytest.param(frame(REPLY + b"x"), "not Kerberos", id="K252-trailing-byte"),
    ],
)
def test_k252_another_protocol_on_the_port_is_told_at_once(
    send: Send, said: bytes, why: str
) -> None:
    with TcpStub(saying(said, then=60)) as stranger, TcpStub(answer) as good:
        timer = Timer()
        with pytest.raises(TransportError, match=why):
            send(stranger.url)
        assert send(stranger.url, good.url) == REPLY
        assert timer() < AT_ONCE


@pytest.mark.usefixtures("next_one_late")
def test_k252_a_closed_port_is_told_at_once(send: Send) -> None:
    port = closed_port()
    timer = Timer()
    with pytest.raises(
        TransportError,
        match=rf"udp 127.0.0.1 port {port}: .*refused.*tcp 127.0.0.1 port {port}: .*refused",
    ):
        send(f"127.0.0.1:{port}")
    assert timer() < AT_ONCE


def test_k252_udp_garbage_is_ignored(send: Send) -> None:
    def garbage_first(stub: UdpStub, data: bytes, client: Any) -> None:
        for garbage in (
            b"",
            b"\0",
            b"HTTP/1.1 400",
            REPLY[:-1],
            REPLY + b"\0",
            bytes(60000),
            REQUEST,
        ):
            stub.socket.sendto(garbage, client)
        stub.socket.sendto(REPLY, client)

    with UdpStub(garbage_first) as kdc:
        assert send(kdc.url) == REPLY


def test_k252_udp_garbage_alone_ends_at_the_deadline(send: Send) -> None:
    def only_garbage(stub: UdpStub, data: bytes, client: Any) -> None:
        while not stub.stopping.wait(0.01):
            stub.socket.sendto(b"garbage", client)

    with UdpStub(only_garbage) as kdc:
        timer = Timer()
        with pytest.raises(TransportTimeoutError):
            send(kdc.url, timeout=0.5)
        assert timer() < 0.5 + AT_ONCE


# -- K253 ------------------------------------------------------------------------------------------------------------


def test_k253_a_lost_datagram_is_sent_again(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "RESEND", 0.4)

    def lose_first(stub: UdpStub, data: bytes, client: Any) -> None:
        if len(stub.received) > 1:
            answer_udp(stub, data, client)

    with UdpStub(lose_first) as kdc:
        assert send(kdc.url) == REPLY
        assert kdc.received == [REQUEST] * 2


def test_k253_all_datagrams_lost_goes_over_tcp(send: Send) -> None:
    port = free_port()
    with UdpStub(silent_udp, port=port), TcpStub(answer, port=port):
        timer = Timer()
        assert send(f"127.0.0.1:{port}") == REPLY
        assert timer() < 1.0 + AT_ONCE


def test_k253_no_more_datagrams_than_max_retries(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "RESEND", 0.05)
    with UdpStub(silent_udp) as kdc:
        with pytest.raises(TransportTimeoutError):
            send(kdc.url, timeout=0.5, max_retries=2)
        assert kdc.received == [REQUEST] * 2


def test_k253_duplicates_and_reordered_answers_give_one_reply(send: Send) -> None:
    def twice(stub: UdpStub, data: bytes, client: Any) -> None:
        for text in (REPLY, REPLY, reply_of(b"late")):
            stub.socket.sendto(text, client)

    with UdpStub(twice) as kdc:
        assert [send(kdc.url), send(kdc.url)] == [REPLY, REPLY]


def test_k253_an_answer_from_another_source_port_is_ignored(send: Send) -> None:
    def forge_first(stub: UdpStub, data: bytes, client: Any) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            for _ in range(20):
                forger.sendto(reply_of(b"forged"), client)
        stub.stopping.wait(0.1)
        answer_udp(stub, data, client)

    with UdpStub(forge_first) as kdc:
        assert send(kdc.url) == REPLY


# -- K254 ------------------------------------------------------------------------------------------------------------

TOO_BIG = krb_error(ErrorCode.KRB_ERR_RESPONSE_TOO_BIG)


def too_big_udp(stub: UdpStub, data: bytes, client: Any) -> None:
    stub.socket.sendto(TOO_BIG, client)


@pytest.mark.usefixtures("next_one_late")
def test_k254_response_too_big_goes_over_tcp_to_the_same_kdc_at_once(send: Send) -> None:
    port = free_port()
    with (
        UdpStub(too_big_udp, port=port) as udp,
        TcpStub(answer, port=port) as tcp,
        UdpStub(answer_udp) as other,
    ):
        timer = Timer()
        assert send(f"127.0.0.1:{port}", other.url) == REPLY
        assert timer() < AT_ONCE
        assert (len(udp.received), tcp.accepted, len(other.received)) == (1, 1, 0)


def test_k254_response_too_big_over_tcp_is_no_loop(send: Send) -> None:
    port = free_port()
    with UdpStub(too_big_udp, port=port) as udp, TcpStub(saying(frame(TOO_BIG)), port=port) as tcp:
        with pytest.raises(TransportError, match="RESPONSE_TOO_BIG"):
            send(f"127.0.0.1:{port}")
        assert (len(udp.received), tcp.accepted) == (1, 1)


def test_k254_a_slow_tcp_after_the_switch_is_asked_once(send: Send) -> None:
    def slow(stub: TcpStub, connection: socket.socket) -> None:
        stub.stopping.wait(1.0)
        answer(stub, connection)

    port = free_port()
    with UdpStub(too_big_udp, port=port), TcpStub(slow, port=port) as tcp:
        assert send(f"127.0.0.1:{port}") == REPLY
        assert tcp.accepted == 1


def test_k254_a_message_above_udp_preference_limit_goes_over_tcp_first(send: Send) -> None:
    port = free_port()
    with UdpStub(answer_udp, port=port) as udp, TcpStub(answer, port=port) as tcp:
        kdc = f"127.0.0.1:{port}"
        send(kdc, udp_preference_limit=len(REQUEST))
        assert (len(udp.received), tcp.accepted) == (1, 0)
        send(kdc, udp_preference_limit=len(REQUEST) - 1)
        assert (len(udp.received), tcp.accepted) == (1, 1)


# -- K255 (a stale replica that says PREAUTH_FAILED: tests/exchange/test_kdc_client.py) ------------------------------


@pytest.mark.parametrize(
    "first", ["K255-refused", "K255-silent-tcp", "K255-silent-udp", "K255-blackhole"]
)
def test_k255_a_kdc_that_is_down_costs_a_second_at_most(
    send: Send, stagger: float, first: str
) -> None:
    with (
        TcpStub(silent) as tcp,
        UdpStub(silent_udp) as udp,
        TcpStub(answer) as good,
        full_listener() as blackhole,
    ):
        down = {
            "K255-refused": f"tcp://127.0.0.1:{closed_port()}",
            "K255-silent-tcp": tcp.url,
            "K255-silent-udp": udp.url,
            "K255-blackhole": f"tcp://127.0.0.1:{blackhole}",
        }[first]
        timer = Timer()
        assert send(down, good.url) == REPLY
        assert timer() < 2 * stagger


def test_k255_a_slow_kdc_is_still_heard_while_the_next_one_is_silent(send: Send) -> None:
    def slow(stub: TcpStub, connection: socket.socket) -> None:
        stub.stopping.wait(1.2)
        answer(stub, connection)

    with TcpStub(slow) as first, TcpStub(silent) as second:
        assert send(first.url, second.url) == REPLY
        assert second.accepted == 1


def test_k255_kdc_timeout_gives_an_attempt_up(send: Send) -> None:
    with TcpStub(silent) as kdc:
        timer = Timer()
        with pytest.raises(TransportTimeoutError, match=r"within 0\.3 s"):
            send(kdc.url, kdc_timeout=0.3)
        assert timer() < 0.3 + AT_ONCE


# -- K256 ------------------------------------------------------------------------------------------------------------


def resolving(*addresses: tuple[str, int]) -> Callable[..., list[Any]]:
    """A getaddrinfo that gives the name kdc.test these addresses, and asks the system about all others."""

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        if host != "kdc.test":
            return socket.getaddrinfo(host, port, **options)
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        return [
            found
            for address in addresses
            for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        ]

    return getaddrinfo


def test_k256_a_blackholed_first_address_is_overtaken_by_the_second(
    send: Send, stagger: float
) -> None:
    with full_listener("::1") as blackhole, TcpStub(answer) as good:
        lookup = resolving(("::1", blackhole), ("127.0.0.1", good.port))
        timer = Timer()
        assert send("tcp://kdc.test", getaddrinfo=lookup) == REPLY
        assert timer() < 2 * stagger


@pytest.mark.usefixtures("next_one_late")
def test_k256_a_dead_first_address_is_no_delay(send: Send) -> None:
    with TcpStub(answer) as good, UdpStub(answer_udp, address="::1") as good_v6:
        timer = Timer()
        assert (
            send(
                "tcp://kdc.test",
                getaddrinfo=resolving(("::1", closed_port()), ("127.0.0.1", good.port)),
            )
            == REPLY
        )
        assert (
            send("udp://kdc.test", getaddrinfo=resolving(("127.0.0.1", 9), ("::1", good_v6.port)))
            == REPLY
        )
        assert timer() < AT_ONCE


def test_k256_a_name_lookup_that_hangs_delays_only_its_own_kdc(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(host: str, port: int, **options: Any) -> list[Any]:
        if host == "kdc.test" and not options.get("flags"):
            time.sleep(3.0)
        return socket.getaddrinfo(host, port, **options)

    monkeypatch.setattr(transport, "STAGGER", 0.3)
    with TcpStub(answer) as good:
        timer = Timer()
        assert send("tcp://kdc.test", good.url, getaddrinfo=hang) == REPLY
        assert timer() < 2.8
        timer = Timer()
        with pytest.raises(TransportTimeoutError):
            send("tcp://kdc.test", getaddrinfo=hang, timeout=0.3)
        assert timer() < 2.8


@pytest.mark.parametrize("name", ["no-such-kdc.invalid", "\u00e4" * 80, "a" * 300, "-.-"])
def test_k256_a_name_without_address_is_named(send: Send, name: str) -> None:
    def nothing(host: str, port: int, **options: Any) -> list[Any]:
        host.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(TransportError, match="name lookup failed"):
        send(f"tcp://{name}", getaddrinfo=nothing)


# -- K257 ------------------------------------------------------------------------------------------------------------

UNAVAILABLE = krb_error(ErrorCode.KDC_ERR_SVC_UNAVAILABLE)


@pytest.mark.usefixtures("next_one_late")
def test_k257_service_unavailable_for_ever_is_bounded(send: Send) -> None:
    def unavailable_udp(stub: UdpStub, data: bytes, client: Any) -> None:
        stub.socket.sendto(UNAVAILABLE, client)

    with (
        TcpStub(saying(frame(UNAVAILABLE))) as tcp,
        UdpStub(unavailable_udp) as udp,
        TcpStub(answer) as good,
    ):
        timer = Timer()
        with pytest.raises(TransportError, match=r"SVC_UNAVAILABLE.*SVC_UNAVAILABLE"):
            send(tcp.url, udp.url)
        assert (tcp.accepted, len(udp.received)) == (1, 1)
        assert send(udp.url, good.url) == REPLY
        assert timer() < AT_ONCE


def test_k257_only_the_code_of_an_error_leads_to_another_kdc(send: Send) -> None:
    """Not bytes elsewhere in it that look like the field with that code."""
    error = KrbError.decode(krb_error(ErrorCode.KDC_ERR_PREAUTH_REQUIRED))
    field = bytes((0xA6, 3, 2, 1, ErrorCode.KDC_ERR_SVC_UNAVAILABLE))
    assert field in UNAVAILABLE
    lookalike = replace(error, e_data=field).encode()
    with TcpStub(saying(frame(lookalike))) as first, TcpStub(answer) as good:
        assert send(first.url, good.url) == lookalike
        assert good.accepted == 0
    with TcpStub(saying(frame(UNAVAILABLE))) as first, TcpStub(answer) as good:
        assert send(first.url, good.url) == REPLY


# -- K258 ------------------------------------------------------------------------------------------------------------


def test_k258_a_connection_that_the_kdc_has_reset_since_does_not_matter(send: Send) -> None:
    """No connection is kept between two messages, so that none can be stale."""

    def answer_then_reset(stub: TcpStub, connection: socket.socket) -> None:
        answer(stub, connection)
        connection.recv(1)  # until the client has closed
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with TcpStub(answer_then_reset) as kdc:
        assert [send(kdc.url) for _ in range(3)] == [REPLY] * 3
        assert kdc.accepted == 3


# -- K259 (an answer to another request has another nonce: tests/exchange/test_kdc_client.py) ------------------------


def test_k259_a_second_answer_on_a_connection_never_reaches_the_next_request(send: Send) -> None:
    serial = iter(range(100))

    def two_answers(stub: TcpStub, connection: socket.socket) -> None:
        read_frame(connection)
        number = next(serial)
        connection.sendall(
            frame(reply_of(b"answer %d" % number)) + frame(reply_of(b"stray %d" % number))
        )

    def late_udp(stub: UdpStub, data: bytes, client: Any) -> None:
        stub.socket.sendto(reply_of(data), client)
        stub.socket.sendto(reply_of(b"stray"), client)

    with TcpStub(two_answers) as tcp, UdpStub(late_udp) as udp:
        assert [send(tcp.url) for _ in range(3)] == [reply_of(b"answer %d" % i) for i in range(3)]
        assert [send(udp.url, message=m) for m in (b"one", b"two")] == [
            reply_of(b"one"),
            reply_of(b"two"),
        ]


# -- K261 ------------------------------------------------------------------------------------------------------------


def test_k261_failures_leave_no_descriptor_behind(send: Send) -> None:
    rounds = 10_000 if os.environ.get("PUREKRB_SOAK") == "1" else 100
    port = closed_port()
    with TcpStub(saying(b"")) as closing, TcpStub(saying(b"HTTP/1.1 400\r\n\r\n")) as http:
        before = descriptors()
        for i in range(rounds):
            kdcs = [f"127.0.0.1:{port}", closing.url, http.url][: i % 3 + 1]
            with pytest.raises(TransportError):
                send(*kdcs)
        time.sleep(0.1)
        assert descriptors() <= before


def test_k261_a_cancelled_task_leaves_no_descriptor_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancel() -> None:
        locator = Locator(Config(realms={REALM: [kdc.url, other.url]}))
        task = asyncio.create_task(
            asking.send_async(locator, REALM, REQUEST, time.monotonic() + 60)
        )
        await asyncio.sleep(1.0)
        before = descriptors()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert descriptors() == before - 2  # one for each KDC that was being asked

    monkeypatch.setattr(transport, "STAGGER", 0.1)
    with TcpStub(silent) as kdc, UdpStub(silent_udp) as other:
        asyncio.run(cancel())


def test_k261_no_descriptor_left_is_a_kerberos_error() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with TcpStub(answer) as kdc:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 8, limit[1]))
        try:
            with contextlib.ExitStack() as taken:
                with contextlib.suppress(OSError):
                    while True:
                        taken.enter_context(socket.socket())
                for kdcs in ([kdc.url], ["tcp://localhost"], []):
                    with pytest.raises(TransportError):
                        blocking(*kdcs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        assert blocking(kdc.url) == REPLY


@pytest.mark.parametrize("poll", [True, False], ids=["poll", "select, as on Windows"])
def test_each_way_to_wait_sees_what_is_ready_and_the_deadline(
    monkeypatch: pytest.MonkeyPatch, poll: bool
) -> None:
    if not poll:
        monkeypatch.delattr("select.poll")
    with (
        full_listener() as blackhole,
        TcpStub(answer) as tcp,
        UdpStub(answer_udp) as udp,
        TcpStub(silent) as mute,
    ):
        assert blocking(tcp.url) == REPLY
        assert blocking(udp.url) == REPLY
        assert blocking(f"tcp://127.0.0.1:{blackhole}", mute.url, tcp.url) == REPLY
        for url in (f"tcp://127.0.0.1:{blackhole}", mute.url):
            timer = Timer()
            with pytest.raises(TransportTimeoutError):
                blocking(url, timeout=0.3)
            assert 0.25 < timer() < 0.3 + AT_ONCE
    with pytest.raises(TransportError, match="refused"):
        blocking(f"tcp://127.0.0.1:{closed_port()}")


def test_a_request_larger_than_the_sockets_buffers_arrives_whole(send: Send) -> None:
    """The first part goes out as soon as the connection stands, the rest as the KDC reads."""
    got = []

    def keep(stub: TcpStub, connection: socket.socket) -> None:
        stub.stopping.wait(0.1)
        got.append(read_frame(connection))
        connection.sendall(frame(REPLY))

    message = os.urandom(8 << 20)
    with TcpStub(keep) as kdc:
        assert send(kdc.url, message=message) == REPLY
    assert got == [message]


class LoopWithoutReadiness(asyncio.SelectorEventLoop):
    """An event loop that cannot watch sockets, like the default one of Windows."""

    def add_reader(self, *_: object) -> None:
        raise NotImplementedError

    add_writer = remove_reader = remove_writer = add_reader  # type: ignore[assignment]


def test_an_event_loop_that_cannot_watch_sockets_works_too() -> None:
    def run(*kdcs: str, timeout: float = 5.0) -> bytes:
        loop = LoopWithoutReadiness()
        with contextlib.closing(loop):
            return loop.run_until_complete(
                asking.send_async(locator_of(kdcs, {}), REALM, REQUEST, time.monotonic() + timeout)
            )

    with TcpStub(answer) as tcp, UdpStub(answer_udp) as udp, TcpStub(silent) as mute:
        assert run(tcp.url) == REPLY
        assert run(udp.url) == REPLY
        timer = Timer()
        with pytest.raises(TransportTimeoutError):
            run(mute.url, timeout=0.3)
        assert timer() < 0.3 + AT_ONCE


# -- K262 ------------------------------------------------------------------------------------------------------------

UDP, TCP = f"_kerberos._udp.{REALM}.", f"_kerberos._tcp.{REALM}."


def test_k262_control_srv_records_lead_to_the_kdc(send: Send) -> None:
    with TcpStub(answer) as kdc, DnsStub({TCP: [f"0 0 {kdc.port} localhost."]}) as dns:
        assert send(resolver=dns.resolver) == REPLY


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(["0 0 88 ."], id="K262-target-dot"),
        pytest.param(["0 0 0 localhost."], id="K262-port-0"),
    ],
)
def test_k262_records_that_name_no_kdc_are_skipped(send: Send, records: list[str]) -> None:
    with TcpStub(answer) as kdc, DnsStub({TCP: records, UDP: records}) as dns:
        with pytest.raises(ConfigError, match="no SRV records"):
            send(resolver=dns.resolver)
        dns.zone[TCP] = [*records, f"1 0 {kdc.port} localhost."]
        assert send(resolver=dns.resolver) == REPLY


def test_k262_a_thousand_records_are_bounded(send: Send) -> None:
    port = closed_port()
    records = [f"0 {i % 7} {port} h{i}.test." for i in range(1000)]
    asked: list[str] = []

    def nothing(host: str, port: int, **options: Any) -> list[Any]:
        if not options.get("flags"):
            asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with DnsStub({TCP: records}) as dns:
        timer = Timer()
        with pytest.raises(TransportError):
            send(resolver=dns.resolver, getaddrinfo=nothing)
        assert timer() < 1.0 + AT_ONCE
        assert 1 < len(asked) <= 32


@pytest.mark.parametrize(
    "rdata", [pytest.param(b"", id="K262-empty"), pytest.param(b"\0\0\0", id="K262-short")]
)
def test_k262_broken_rdata_is_a_dns_failure(send: Send, rdata: bytes) -> None:
    with DnsStub({TCP: [], UDP: []}, broken=rdata) as dns:
        dns.resolver.lifetime = 0.3
        timer = Timer()
        with pytest.raises(TransportError, match="DNS does not answer"):
            send(resolver=dns.resolver)
        assert timer() < AT_ONCE


def test_k262_a_silent_dns_server_ends_at_the_deadline(send: Send) -> None:
    with DnsStub({}) as dns:
        dns.handle = silent_udp
        dns.resolver.lifetime = 2.5
        timer = Timer()
        with pytest.raises(TransportTimeoutError, match="DNS"):
            send(resolver=dns.resolver, timeout=0.5)
        assert timer() < 2.4
        time.sleep(2.2)  # the thread that was left behind ends with the resolver's own patience


def test_k262_a_realm_is_asked_of_dns_only_where_the_configuration_lets(send: Send) -> None:
    with TcpStub(answer) as kdc, DnsStub({TCP: [f"0 0 {kdc.port} localhost."]}) as dns:
        with pytest.raises(ConfigError, match="no KDC of realm"):
            send(resolver=dns.resolver, dns_lookup_kdc=False)
        assert send(kdc.url, resolver=dns.resolver) == REPLY
        assert dns.received == []


def test_each_step_is_logged(send: Send, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "purekrb")
    with TcpStub(answer) as kdc:
        send(f"tcp://127.0.0.1:{closed_port()}", kdc.url)
    text = caplog.text
    assert "refused" in text
    assert f"port {kdc.port}: sent {len(REQUEST)} bytes for {REALM}" in text
    assert f"port {kdc.port}: answered with {len(REPLY)} bytes" in text
