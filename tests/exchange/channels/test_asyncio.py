"""What the asyncio channels alone have: handlers, tasks, cancellation."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest

from purekrb import TransportError, aio
from purekrb.channel.aio import Channel as AioChannel
from purekrb.channel.framing import encode_frame
from support.channels import (
    KEYS,
    LOCALHOST,
    PATIENCE,
    TICKET,
    RawClient,
    cancel_after,
    connect_asyncio,
    open_descriptors,
    until,
)


class _Odd(BaseException):
    """Not even an Exception."""


RAISED = [
    RuntimeError,
    OSError,
    StopIteration,
    StopAsyncIteration,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    _Odd,
]


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: f"K288-{kind.__name__}")
def test_the_server_survives_whatever_a_handler_raises(kind: type[BaseException]) -> None:
    reported: list[Any] = []

    async def handler(channel: AioChannel) -> None:
        message = await channel.recv()
        if message == b"fail":
            raise kind("in the handler")
        await channel.send(message or b"")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )
        async with await aio.start_server(handler, LOCALHOST, KEYS) as server:
            async with await connect_asyncio(server.address, TICKET) as channel:
                await channel.send(b"fail")
                with pytest.raises(TransportError, match="cut"):
                    await channel.recv()
            async with await connect_asyncio(server.address, TICKET) as channel:
                await channel.send(b"good")
                assert await channel.recv() == b"good"

    asyncio.run(main())
    if kind is asyncio.CancelledError:  # the handler's task ended itself: nothing to report
        assert reported == []
    else:
        assert "the handler failed" in reported[0]["message"]
        assert isinstance(
            reported[0]["exception"], (kind, RuntimeError)
        )  # StopIteration becomes a RuntimeError


def test_a_kerberos_error_in_a_handler_is_an_everyday_matter() -> None:
    reported: list[Any] = []

    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )
        async with await aio.start_server(handler, LOCALHOST, KEYS) as server:
            (await connect_asyncio(server.address, TICKET)).abort()
            async with await connect_asyncio(server.address, TICKET) as channel:
                await channel.send(b"x")
                assert await channel.recv() is None

    asyncio.run(main())
    assert reported == []


def test_recv_that_was_cancelled_loses_nothing() -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        received: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def impatient(channel: AioChannel) -> None:
            while True:
                try:
                    message = await asyncio.wait_for(channel.recv(), 0.005)
                except asyncio.TimeoutError:
                    continue
                await received.put(message)
                if message is None:
                    return

        async with await aio.start_server(impatient, LOCALHOST, KEYS) as server:
            raw = await asyncio.to_thread(lambda: RawClient(server.address, TICKET).establish())
            with raw:
                frame = b"".join(
                    encode_frame(raw.context.wrap(message))
                    for message in (b"one", b"two" * 100, b"")
                )
                for start in range(0, len(frame), 40):
                    raw.socket.sendall(frame[start : start + 40])
                    await asyncio.sleep(0.012)
                assert [await received.get() for _ in range(3)] == [b"one", b"two" * 100, None]

    asyncio.run(main())


def test_a_cancelled_send_leaves_whole_messages() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        received: list[bytes | None] = []

        async def lazy(channel: AioChannel) -> None:
            await go_on.wait()
            while (message := await channel.recv()) is not None:
                received.append(message)

        async with await aio.start_server(lazy, LOCALHOST, KEYS) as server:
            async with await connect_asyncio(server.address, TICKET) as channel:
                for _ in range(2):  # the second one waits for the first one's turn, or for room
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(channel.send(bytes(15_000_000)), 0.3)
                go_on.set()
                await channel.send(b"end")
            while received[-1:] != [b"end"]:
                await asyncio.sleep(0.01)
        assert set(received) == {bytes(15_000_000), b"end"}

    asyncio.run(main())


def test_k284_a_connect_cancelled_at_any_await_leaves_nothing_behind() -> None:
    async def main() -> None:
        async def handler(channel: AioChannel) -> None:
            await channel.recv()

        async with await aio.start_server(handler, LOCALHOST, KEYS) as server:
            await cancel_after(100_000, connect_asyncio(server.address, TICKET))  # warms up
            await asyncio.sleep(0.05)
            tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
            steps = 0
            while await cancel_after(steps, connect_asyncio(server.address, TICKET)):
                steps += 1 + steps // 10
            assert steps > 5
            await until(
                lambda: len(asyncio.all_tasks()) == tasks and open_descriptors() == descriptors
            )
            async with await connect_asyncio(server.address, TICKET) as channel:
                assert channel.context.established

    asyncio.run(main())


def test_k284_a_server_closed_at_any_moment_leaves_nothing_behind() -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
        for steps in range(40):
            server = await aio.start_server(handler, LOCALHOST, KEYS)
            connecting = asyncio.ensure_future(connect_asyncio(server.address, TICKET))
            for _ in range(steps):
                await asyncio.sleep(0)
            await server.close()
            await server.close()
            assert server.sockets == ()
            with suppress(TransportError):
                (await connecting).abort()
        await until(lambda: len(asyncio.all_tasks()) == tasks and open_descriptors() == descriptors)

    asyncio.run(main())


def test_serve_forever_ends_with_close_and_closes_when_cancelled() -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        for end in ("close", "cancel"):
            server = await aio.start_server(handler, LOCALHOST, KEYS)
            assert server.sockets[0].getsockname() == server.address
            serving = asyncio.ensure_future(server.serve_forever())
            channel = await connect_asyncio(server.address, TICKET)
            if end == "close":
                await server.close()
                await serving
            else:
                serving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await serving
            assert server.sockets == ()
            with pytest.raises(TransportError):
                await channel.recv()

    asyncio.run(main())


def test_a_handler_may_close_its_server() -> None:
    async def main() -> None:
        async def handler(channel: AioChannel) -> None:
            await server.close()
            await channel.send(b"closed")

        server = await aio.start_server(handler, LOCALHOST, KEYS)
        async with await connect_asyncio(server.address, TICKET) as channel:
            assert await channel.recv() == b"closed"
            assert await channel.recv() is None
        await server.serve_forever()

    asyncio.run(main())


def test_closing_does_not_wait_for_ever_for_a_peer_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("purekrb.channel.aio.CLOSE_TIMEOUT", 0.2)

    async def main() -> None:
        async def deaf(channel: AioChannel) -> None:
            await asyncio.sleep(PATIENCE)

        async with await aio.start_server(deaf, LOCALHOST, KEYS) as server:
            channel = await connect_asyncio(server.address, TICKET)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(channel.send(bytes(16_000_000)), 0.2)
            began = time.monotonic()
            await channel.close()
            assert time.monotonic() - began < 4  # less than CLOSE_TIMEOUT, were it not set
            channel = await connect_asyncio(server.address, TICKET)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(channel.send(bytes(16_000_000)), 0.2)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(channel.close(), 0.05)

    asyncio.run(main())
