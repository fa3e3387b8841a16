"""The replay cache in Redis: acceptors on several machines take a token once, or nobody."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from purekrb import ConfigError, Keytab, KeytabEntry, ReplayError
from purekrb.constants import ErrorCode
from purekrb.integrations.asgi import KerberosMiddleware
from purekrb.replay import KEEP, FileReplayCache, RedisReplayCache
from purekrb.replay.default import may_wait
from support.contexts import acceptor, ap_req
from support.peers import find_program
from support.processes import in_children, soak
from support.redis_server import RedisServer, make_cluster
from support.tickets import issue
from support.tls import Authority

NOW = datetime.now(timezone.utc)
PASSWORD = secrets.token_hex(16)


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shared_server(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[RedisServer]:
    """A server with TLS and without a password."""
    directory = authority.ca.parent
    authority.issue(["localhost"], stem="localhost")
    tls = (directory / "localhost.pem", directory / "localhost.key", authority.ca)
    server = RedisServer(tmp_path_factory.mktemp("redis"), tls=tls)
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    shared_server.admin.flushall()
    return shared_server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may stop."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


def refusal(cache: RedisReplayCache, number: int = 1) -> str:
    """Return why the cache takes nobody."""
    with pytest.raises(ReplayError) as caught:
        cache.remember(tag(number), NOW, NOW)
    assert caught.value.code == ErrorCode.KRB_ERR_GENERIC, caught.value
    assert "no client can be accepted safely" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown
    return str(caught.value)


# --- once


def test_a_token_passes_once(server: RedisServer) -> None:
    ticket, keys = issue()
    token = ap_req(ticket)
    caches = [RedisReplayCache(server.url) for _ in range(2)]
    acceptor(keys, replay_cache=caches[0]).step(token)
    for cache in caches:
        with pytest.raises(ReplayError, match="already presented") as caught:
            acceptor(keys, replay_cache=cache).step(token)
        assert caught.value.code == ErrorCode.KRB_AP_ERR_REPEAT
        acceptor(keys, replay_cache=cache).step(ap_req(ticket))
        cache.close()


def test_an_authenticator_is_one_command_and_kept_for_twenty_minutes(server: RedisServer) -> None:
    cache = RedisReplayCache(server.url)
    cache.remember(tag(1), NOW, NOW)
    server.calls()  # connects
    before = server.calls()
    for number in range(2, 12):
        cache.remember(tag(number), NOW + timedelta(seconds=200), NOW)
    called = {name: count - before.get(name, 0) for name, count in server.calls().items()}
    assert {name: count for name, count in called.items() if count and name != "info"} == {
        "set": 10
    }
    for number, longest in ((1, KEEP), (2, KEEP + 200)):
        left = server.admin.pttl(f"purekrb:replay:{{{tag(number).hex()}}}") / 1000
        assert longest - 30 < left <= longest + 0.01
    with pytest.raises(ReplayError, match="older than the replay cache remembers"):
        cache.remember(tag(99), NOW - timedelta(seconds=KEEP + 1), NOW)
    assert cache.close() is None


def test_processes_and_threads_take_each_token_exactly_once(server: RedisServer) -> None:
    """The children inherit a cache with an open connection."""
    tokens = soak(300, 3000)
    cache = RedisReplayCache(server.url)
    cache.remember(tag(tokens), NOW, NOW)

    def takes(number: int) -> bool:
        try:
            cache.remember(tag(number), NOW, NOW)
        except ReplayError as error:
            if error.code != ErrorCode.KRB_AP_ERR_REPEAT:
                raise
            return False
        return True

    def job(_: int) -> bytes:
        with ThreadPoolExecutor(3) as pool:
            return bytes(pool.map(takes, range(tokens)))

    results = in_children(4, job)
    assert [sum(column) for column in zip(*results, strict=True)] == [1] * tokens
    assert not takes(0)
    assert takes(tokens + 1), "the parent goes on"
    cache.close()


_MACHINE = """\
import sys
from pathlib import Path
from purekrb import Acceptor, Keytab, ReplayError
from purekrb.replay import RedisReplayCache
url, directory, first = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
keys, cache = Keytab.load(directory / "keytab"), RedisReplayCache(url)
tokens = sorted(directory.glob("*.token"))
for at in range(len(tokens)):
    path = tokens[(at + first) % len(tokens)]
    try:
        Acceptor(keys, replay_cache=cache).step(path.read_bytes())
        print(path.stem)
    except ReplayError as error:
        if "already presented" not in str(error):
            raise
"""


@pytest.fixture
def machines() -> Iterator[list[tuple[str, str]]]:
    """Two network namespaces that see each other: name and address. They stand for two machines."""
    if os.getuid() != 0:
        pytest.fail("only root can make network namespaces", pytrace=False)
    ip = find_program("ip", "iproute2")
    mark = secrets.token_hex(3)
    names = [f"pk{mark}{side}" for side in "ab"]
    net = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"

    def run(*arguments: str) -> None:
        subprocess.run([ip, *arguments], check=True, capture_output=True, timeout=30)

    try:
        for name in names:
            run("netns", "add", name)
            run("-n", name, "link", "set", "lo", "up")
        run(
            "-n",
            names[0],
            "link",
            "add",
            f"v{mark}a",
            "type",
            "veth",
            "peer",
            f"v{mark}b",
            "netns",
            names[1],
        )
        for number, name in enumerate(names, 1):
            device = f"v{mark}{'ab'[number - 1]}"
            run("-n", name, "addr", "add", f"{net}.{number}/24", "dev", device)
            run("-n", name, "link", "set", device, "up")
        yield [(name, f"{net}.{number}") for number, name in enumerate(names, 1)]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], check=False, capture_output=True, timeout=30)


def test_three_processes_on_two_machines_take_each_token_exactly_once(
    machines: list[tuple[str, str]], tmp_path: Path
) -> None:
    (here, address), (there, _) = machines
    ip = find_program("ip", "iproute2")
    ticket, keys = issue()
    Keytab([KeytabEntry(e.principal, e.kvno, e.key) for e in keys]).save(tmp_path / "keytab")
    count = soak(40, 1000)
    for number in range(count):
        (tmp_path / f"{number:04}.token").write_bytes(ap_req(ticket))
    server = RedisServer(
        tmp_path / "redis",
        "protected-mode no",
        address=address,
        wrapper=[ip, "netns", "exec", here],
    )
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "redis" / "socket").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        programs = [
            subprocess.Popen(
                [
                    ip,
                    "netns",
                    "exec",
                    name,
                    sys.executable,
                    "-c",
                    _MACHINE,
                    server.url,
                    str(tmp_path),
                    str(first),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for first, name in enumerate((here, there, there))
        ]
        taken = [program.communicate(timeout=120)[0].split() for program in programs]
        assert [program.returncode for program in programs] == [0, 0, 0]
    finally:
        server.stop()
    assert sorted(name for names in taken for name in names) == [f"{n:04}" for n in range(count)]


# --- TLS and passwords


def test_tls_proves_the_server_by_an_authority_and_its_name(
    server: RedisServer, authority: Authority, tmp_path: Path
) -> None:
    port = server.tls_port
    cache = RedisReplayCache(f"rediss://localhost:{port}/0", ca_file=str(authority.ca))
    cache.remember(tag(1), NOW, NOW)
    with pytest.raises(ReplayError, match="already presented"):
        cache.remember(tag(1), NOW, NOW)
    cache.close()
    stranger = Authority(tmp_path, "Another CA")
    wrong = [
        RedisReplayCache(f"rediss://localhost:{port}/0", ca_file=str(stranger.ca)),
        RedisReplayCache(f"rediss://localhost:{port}/0"),  # by an authority of the system
        RedisReplayCache(f"rediss://127.0.0.1:{port}/0", ca_file=str(authority.ca)),
    ]
    for cache in wrong:
        assert "certificate verify failed" in refusal(cache, 2)
    assert refusal(RedisReplayCache(f"redis://localhost:{port}/0"), 2)
    assert server.admin.dbsize() == 1


def test_a_password_is_sent_and_never_shown(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    directory = authority.ca.parent
    authority.issue(["localhost"], stem="localhost")
    server = RedisServer(
        tmp_path / "redis",
        tls=(directory / "localhost.pem", directory / "localhost.key", authority.ca),
        password=PASSWORD,
    )
    try:
        server.admin.execute_command(
            "ACL", "SETUSER", "acceptor", "on", f">{PASSWORD}x", "~purekrb:replay:*", "+set"
        )
        url, ca = f"rediss://localhost:{server.tls_port}/0", str(authority.ca)
        caches = [
            RedisReplayCache(url, password=PASSWORD, ca_file=ca),
            RedisReplayCache(f"rediss://:{PASSWORD}@localhost:{server.tls_port}/0", ca_file=ca),
            RedisReplayCache(url, username="acceptor", password=f"{PASSWORD}x", ca_file=ca),
        ]
        for number, cache in enumerate(caches):
            cache.remember(tag(number), NOW, NOW)
            with pytest.raises(ReplayError, match="already presented"):
                cache.remember(tag(number), NOW, NOW)
            assert PASSWORD not in repr(cache)
            cache.close()
        assert "refused us" in refusal(
            RedisReplayCache(url, password=f"{PASSWORD}y", ca_file=ca), 9
        )
        assert "refused us" in refusal(RedisReplayCache(url, ca_file=ca), 9)
    finally:
        server.stop()
    assert PASSWORD not in caplog.text


# --- a server that fails


def test_a_server_that_is_down_takes_nobody_until_it_is_back(own_server: RedisServer) -> None:
    cache = RedisReplayCache(own_server.url)
    cache.remember(tag(1), NOW, NOW)
    own_server.stop()
    for _ in range(2):
        assert "cannot be reached" in refusal(cache, 2)
    own_server.start()
    cache.remember(tag(2), NOW, NOW)
    cache.close()


def test_a_server_that_is_slow_takes_nobody_and_its_late_answer_is_no_ones(
    own_server: RedisServer,
) -> None:
    cache = RedisReplayCache(own_server.url, timeout=0.3)
    cache.remember(tag(1), NOW, NOW)
    pid = own_server.admin.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        assert "did not answer within 0.3 s" in refusal(cache, 2)
        assert time.monotonic() - begin < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    for number in range(3, 20):
        cache.remember(tag(number), NOW, NOW)
        with pytest.raises(ReplayError, match="already presented"):
            cache.remember(tag(number), NOW, NOW)
    cache.close()


def test_a_silent_server_does_not_hold_up_an_event_loop(own_server: RedisServer) -> None:
    """Neither that of a channel's server nor that of an ASGI application."""
    ticket, entries = issue()
    keytab = Keytab([KeytabEntry(e.principal, e.kvno, e.key) for e in entries])
    cache = RedisReplayCache(own_server.url, timeout=0.6)
    value = b"Negotiate " + base64.b64encode(ap_req(ticket))

    async def tell(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("nobody is let in")

    async def ask(app: Any) -> list[Any]:
        told: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        headers = [(b"authorization", value)]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": headers,
            "client": ("a", 1),
        }
        await app(scope, receive, send)
        return told

    async def beside(app: Any) -> tuple[list[Any], float]:
        """Return the answer, and the longest time for which the loop stood still meanwhile."""
        asking = asyncio.create_task(ask(app))
        longest, last = 0.0, time.monotonic()
        while not asking.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return asking.result(), longest

    pid = own_server.admin.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        app = KerberosMiddleware(tell, keytab, replay_cache=cache)
        told, longest = asyncio.run(beside(app))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert told[0]["status"] in (401, 500, 503)
    assert longest < 0.5
    assert may_wait(cache)
    assert not may_wait(None)


def test_threads_do_not_wait_for_each_others_attempts_at_a_silent_server(
    own_server: RedisServer,
) -> None:
    pid = own_server.admin.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        cache = RedisReplayCache(own_server.url, timeout=0.5)
        begin = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            for said in pool.map(lambda number: refusal(cache, number), range(16)):
                assert "did not answer" in said
        assert time.monotonic() - begin < 5, "one after the other would take 8 seconds"
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(["maxmemory 1"], "OOM|maxmemory"), (["replicaof 127.0.0.1 9"], "read only|MASTER")],
)
def test_a_server_that_cannot_store_takes_nobody(
    tmp_path: Path, settings: list[str], expected: str
) -> None:
    server = RedisServer(tmp_path / "redis", *settings)
    try:
        cache = RedisReplayCache(server.url)
        with pytest.raises(ReplayError, match=expected):
            cache.remember(tag(1), NOW, NOW)
        assert refusal(cache)
        cache.close()
    finally:
        server.stop()


def test_a_server_that_evicts_keys_is_warned_of(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    RedisReplayCache(own_server.url).remember(tag(1), NOW, NOW)
    assert not caplog.records
    own_server.admin.config_set("maxmemory-policy", "allkeys-lru")
    RedisReplayCache(own_server.url).remember(tag(2), NOW, NOW)
    (record,) = caplog.records
    assert "noeviction, not allkeys-lru" in record.getMessage()


def test_a_local_file_decides_alone_only_where_the_caller_chose_it(
    own_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = RedisReplayCache(own_server.url, fallback=FileReplayCache(tmp_path / "rcache2"))
    cache.remember(tag(1), NOW, NOW)
    assert not caplog.records
    own_server.stop()
    for number in (2, 3):
        cache.remember(tag(number), NOW, NOW)
    for number in (1, 2, 3):  # the first was stored while the server was there
        with pytest.raises(ReplayError, match="already presented"):
            cache.remember(tag(number), NOW, NOW)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "only detected on this machine" in record.getMessage()
    own_server.start()
    RedisReplayCache(own_server.url).remember(tag(4), NOW, NOW)
    with pytest.raises(ReplayError, match="already presented"):  # of another machine
        cache.remember(tag(4), NOW, NOW)
    cache.close()


# --- clusters


def test_a_cluster_takes_each_authenticator_at_the_node_of_its_slot(tmp_path: Path) -> None:
    nodes = [
        RedisServer(tmp_path / str(number), "cluster-enabled yes", "cluster-node-timeout 2000")
        for number in range(3)
    ]
    try:
        make_cluster(nodes)
        caches = [RedisReplayCache(node.url, cluster=True) for node in nodes]
        for number in range(90):
            caches[number % 3].remember(tag(number), NOW, NOW)
            with pytest.raises(ReplayError, match="already presented"):
                caches[(number + 1) % 3].remember(tag(number), NOW, NOW)
        kept = [node.admin.dbsize() for node in nodes]
        assert sum(kept) == 90
        assert min(kept) > 5
        alone = RedisReplayCache(nodes[0].url)
        said = ""
        for number in range(100, 140):
            try:
                alone.remember(tag(number), NOW, NOW)
            except ReplayError as error:
                said = str(error)
        assert "is a node of a cluster" in said
        assert "cluster=True" in said
        for cache in (*caches, alone):
            cache.close()
    finally:
        for node in nodes:
            node.stop()


# --- what the caller gives


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("localhost:6379", {}),
        ("http://localhost", {}),
        ("redis://localhost:x", {}),
        ("unix:///run/redis", {"cluster": True}),
        ("redis://localhost", {"ca_file": "ca.pem"}),
        (f"redis://:{PASSWORD}@localhost", {"password": "another"}),
    ],
    # Names of tests must be the same in every process, and the password is random.
    ids=["no-scheme", "http", "port", "cluster-by-path", "ca-without-tls", "two-passwords"],
)
def test_what_makes_no_sense_is_refused_without_showing_it(
    url: str, options: dict[str, object]
) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisReplayCache(url, **options)  # type: ignore[arg-type]
    assert PASSWORD not in "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    ).replace(repr(url), "")
    assert PASSWORD not in str(caught.value)


def test_without_the_package_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from purekrb import UnsupportedError\n"
        "try:\n    from purekrb.replay import RedisReplayCache\n"
        "except UnsupportedError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install purekrb[redis]" in done.stdout
