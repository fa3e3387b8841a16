"""fork() beside threads that hold locks (K415): the child works on. PUREKRB_SOAK=1 runs the full counts."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    CCache,
    ContextError,
    Credential,
    Initiator,
    SequenceError,
    crypto,
    system,
)
from purekrb.channel.blocking import Channel, Server
from purekrb.channel.places import Places
from purekrb.channel.stream import SealedStream
from purekrb.credentials.caches import memory as ccaches
from purekrb.crypto.derivation import Dk
from purekrb.directory.connect import ConnectedSessions, Connector, Url
from purekrb.directory.ldap import LdapSession
from purekrb.exchanges import unique_time
from purekrb.gss.rc4_tokens import Rc4Protection
from purekrb.gss.sequence import SequenceWindow
from purekrb.replay import FileReplayCache, MemoryReplayCache, SqliteReplayCache
from purekrb.system import cached_property, fork_safe
from support.contexts import acceptor, pair
from support.processes import Child, soak
from support.tickets import issue

SOURCE = Path(__file__).parents[2] / "src" / "purekrb"
NOW = datetime.now(timezone.utc) + timedelta(hours=2)
#: Seconds after which a child hangs.
PATIENCE = 5


def in_time(job: Callable[[], object]) -> Callable[[int], None]:
    def run(_: int) -> None:
        signal.alarm(PATIENCE)
        job()

    return run


@contextmanager
def busy(job: Callable[[], object]) -> Iterator[None]:
    """Run `job` in four threads, again and again, which take turns as often as they can."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            job()

    threads = [threading.Thread(target=work) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()


def a_time(_: Path) -> Callable[[], object]:
    return lambda: unique_time.unique_now(system.now)


def a_time_of_another_clock(_: Path) -> Callable[[], object]:
    return lambda: unique_time.unique_now(lambda: NOW)


def a_memory_cache(_: Path) -> Callable[[], object]:
    cache = MemoryReplayCache()
    return lambda: cache.remember(os.urandom(16), NOW, NOW, "alice")


def a_file(path: Path) -> Callable[[], object]:
    cache = FileReplayCache(path / "rcache2")
    return lambda: cache.remember(os.urandom(16), NOW, NOW)


def a_database(path: Path) -> Callable[[], object]:
    cache = SqliteReplayCache(path / "replay")
    return lambda: cache.remember(os.urandom(16), NOW, NOW, "alice")


def a_window(_: Path) -> Callable[[], object]:
    window = SequenceWindow(0, replay=False, sequence=True)

    def check() -> None:
        with suppress(SequenceError):  # another thread had the same number
            window.check(window.state[0].to_bytes(8, "big"))

    return check


def a_derivation(_: Path) -> Callable[[], object]:
    derive = Dk(bytes(32))
    return lambda: derive(bytes(48))


def a_cipher(_: Path) -> Callable[[], object]:
    key = crypto.random_key(18)
    large = bytes(200_000)  # for which the GIL is let go
    return lambda: crypto.decrypt(key, 2, crypto.encrypt(key, 2, large))


def a_credential(_: Path) -> Callable[[], object]:
    credential = Credential.from_key("alice@EXAMPLE.TEST", crypto.random_key(18))
    return lambda: credential.key_for(18, b"")


def a_ccache(_: Path) -> Callable[[], object]:
    ticket, _keys = issue()
    CCache(ticket.client, [ticket]).save("MEMORY:fork")
    return lambda: CCache.load("MEMORY:fork").find(ticket.service)


def a_handshake(_: Path) -> Callable[[], object]:
    def shake() -> None:
        client, service = pair()
        assert service.unwrap(client.wrap(b"hello")) == b"hello"

    return shake


@pytest.mark.parametrize(
    "make",
    [
        a_time,
        a_time_of_another_clock,
        a_memory_cache,
        a_file,
        a_database,
        a_window,
        a_derivation,
        a_cipher,
        a_credential,
        a_ccache,
        a_handshake,
    ],
)
def test_k415_a_child_of_a_busy_process_works_on(
    make: Callable[[Path], Callable[[], object]], tmp_path: Path
) -> None:
    job = make(tmp_path)
    with busy(job):
        for _ in range(soak(15, 200)):
            child = Child(in_time(job))
            child.output()
            assert child.ended_well, "the child hangs, or failed: see its traceback"
    job()


# --- locks that are held for long: while a thread waits for the network


def locks_of(owner: Any) -> dict[str, Any]:
    names = {name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())}
    found = {
        name: getattr(owner, name, None) for name in names | set(getattr(owner, "__dict__", ()))
    }
    return {name: lock for name, lock in found.items() if hasattr(lock, "acquire")}


def owners(tmp_path: Path) -> Iterator[Any]:
    """Yield one of each kind of object that has a lock."""
    ours, theirs = pair()
    yield from (ours, theirs)
    one, other = socket.socketpair()
    channel = Channel(one, SealedStream(ours, max_frame=4096))
    yield channel
    channel.abort()
    other.close()
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(
        listener,
        lambda _: SealedStream(acceptor([]), max_frame=4096),
        Places(1, 1),
        handshake_timeout=1,
    )
    yield server
    server.close()
    yield LdapSession(None)
    url = Url("dc", 389, False)
    yield ConnectedSessions(LdapSession(None), Connector.__new__(Connector), url, [])
    yield CCache("alice@EXAMPLE.TEST")
    yield Credential.from_key("alice@EXAMPLE.TEST", crypto.random_key(18))
    yield SequenceWindow(0, replay=True, sequence=True)
    yield Rc4Protection(
        crypto.random_key(23),
        initiator=True,
        acceptor_subkey=False,
        send_seq=0,
        receive_seq=0,
        flags=0,
        random=os.urandom,
    )
    yield MemoryReplayCache()
    yield unique_time.UniqueTimes()


def test_k415_a_child_finds_every_lock_open_that_a_thread_held(tmp_path: Path) -> None:
    locks = {
        f"{type(owner).__name__}.{name}": lock
        for owner in owners(tmp_path)
        for name, lock in locks_of(owner).items()
    }
    locks |= {"unique_time": unique_time._lock, "ccaches": ccaches._lock}
    assert len(locks) >= 13
    plain = threading.Lock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in (*locks.values(), plain):
            lock.acquire()
        held.set()
        done.wait()
        for lock in (*locks.values(), plain):
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def job(writer: int) -> None:
        stuck = [name for name, lock in locks.items() if not lock.acquire(timeout=0.1)]
        os.write(writer, repr((stuck, plain.acquire(timeout=0.1))).encode())

    child = Child(job)
    found = child.output()
    stuck_here = [name for name, lock in locks.items() if lock.acquire(blocking=False)]
    done.set()
    thread.join()
    assert found == b"([], False)", "the control is a lock that nobody opened"
    assert stuck_here == [], "the parent's are held as before"


def test_k415_a_lock_that_is_gone_leaves_nothing_behind() -> None:
    before = len(system._locks)
    for _ in range(10):
        fork_safe(threading.Lock())
        fork_safe(threading.RLock())
    assert len(system._locks) <= before


def test_k415_a_value_that_is_being_found_does_not_stop_a_child() -> None:
    """Python 3.10 and 3.11 hold a lock meanwhile, one for all objects of the class."""

    class Session:
        waits = 0.0

        @cached_property
        def answer(self) -> int:
            """What it says."""
            time.sleep(self.waits)
            return 42

    slow, quick = Session(), Session()
    slow.waits = 0.5
    thread = threading.Thread(target=lambda: slow.answer)
    thread.start()
    time.sleep(0.1)
    child = Child(in_time(lambda: quick.answer))
    begin = time.monotonic()
    child.output()
    assert child.ended_well
    assert time.monotonic() - begin < 0.4
    thread.join()
    assert (slow.answer, vars(slow)["answer"], Session.answer.__doc__) == (42, 42, "What it says.")


def test_k415_a_child_does_not_wait_for_a_step_that_its_parent_makes() -> None:
    ticket, keys = issue()
    inside, go_on = threading.Event(), threading.Event()

    class Slow:
        def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
            inside.set()
            go_on.wait()

    context, token = Acceptor(keys, replay_cache=Slow()), Initiator(ticket).step()
    thread = threading.Thread(target=lambda: context.step(token))
    thread.start()
    inside.wait()

    def refused() -> None:
        with pytest.raises(ContextError, match="another thread"):
            context.step(token)

    child = Child(in_time(refused))
    child.output()
    assert child.ended_well
    refused()
    go_on.set()
    thread.join()
    assert context.established, "the control: the thread that was in it has ended it well"


def test_k415_several_threads_may_fork_at_once(tmp_path: Path) -> None:
    caches = [SqliteReplayCache(tmp_path / str(number)) for number in range(3)]

    def store() -> None:
        for cache in caches:
            cache.remember(os.urandom(16), NOW, NOW)

    ended: list[bool] = []

    def fork() -> None:
        for _ in range(soak(8, 100)):
            child = Child(in_time(store))
            child.output()
            ended.append(child.ended_well)

    with busy(store):
        threads = [threading.Thread(target=fork) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ended == [True] * 3 * soak(8, 100)
    store()


def test_k415_every_lock_of_the_package_is_made_safe() -> None:
    made = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        safe = {
            id(argument)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "fork_safe"
            for argument in node.args
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            kind = name.removeprefix("threading.")  # those of asyncio are no matter of threads
            if kind in ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"):
                made.append(path.name)
                assert id(node) in safe, f"{path.name}:{node.lineno} makes a lock without fork_safe"
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "functools":
                assert "cached_property" not in {alias.name for alias in node.names}, (
                    f"{path.name}: system has one"
                )
    assert len(made) >= 12


FIRST_USE = """
import os, signal, sys, threading
from purekrb import crypto
sys.setswitchinterval(1e-6)
key = crypto.random_key(18)
def use(): crypto.decrypt(key, 2, crypto.encrypt(key, 2, bytes(100)))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
child = os.fork()
if not child:
    signal.alarm(5)
    use()
    os._exit(0)
for thread in threads: thread.join()
print(os.waitpid(child, 0)[1], crypto._use_each_once.cache_info().currsize)
"""


def test_k415_a_child_forked_when_ciphers_are_used_for_the_first_time_works_on() -> None:
    """The library of the ciphers has locks of its own, which it holds then."""
    for _ in range(soak(2, 60)):
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FIRST_USE],
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert found.stdout == b"0 1\n", found.stderr
