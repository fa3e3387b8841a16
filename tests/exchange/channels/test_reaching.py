"""How a client reaches a server: addresses and names, tickets bound to addresses, tickets from a KDC."""

from __future__ import annotations

import asyncio
import inspect
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    Config,
    Credential,
    Flag,
    KdcClient,
    TransportError,
    UnsupportedError,
    aio,
    connect,
    listen,
)
from purekrb.channel.aio import Channel as AioChannel
from purekrb.channel.establish import AcceptorOptions, peer_address, source_of
from purekrb.constants import AddressType, ErrorCode
from purekrb.messages.ap import HostAddress
from purekrb.testing import Realm
from support.channels import (
    KEYS,
    LOCALHOST,
    PATIENCE,
    TICKET,
    Side,
    assert_echoes,
    cancel_after,
    connect_blocking,
    open_descriptors,
    until,
)
from support.kdc_stubs import closed_port
from support.tickets import issue

# -- addresses of tickets


HERE, THERE = (
    HostAddress(AddressType.IPV4, b"\x7f\0\0\1"),
    HostAddress(AddressType.IPV4, b"\x0a\0\0\1"),
)
COMPUTER = HostAddress(AddressType.NETBIOS, b"WORKSTATION    ")


@pytest.mark.parametrize(
    ("bound_to", "taken"),
    [
        pytest.param((THERE,), False, id="K425-another-address"),
        pytest.param((THERE, COMPUTER), False, id="K425-another-address-and-a-name"),
        pytest.param((HostAddress(AddressType.IPV6, bytes(15) + b"\1"),), False, id="K425-IPv6"),
        pytest.param((THERE, HERE), True, id="K425-control-this-address"),
        pytest.param((COMPUTER,), True, id="K425-control-nothing-to-compare-with"),
        pytest.param(None, True, id="K425-control-no-address"),
    ],
)
def test_a_ticket_bound_to_addresses_is_taken_from_there_alone(
    server: Side, bound_to: tuple[HostAddress, ...] | None, taken: bool
) -> None:
    ticket, keys = issue(caddr=bound_to)
    with server.serve(keys) as running:
        if taken:
            assert_echoes(server, running.address, ticket)
        else:
            with pytest.raises(ApError) as refused:
                server.connect(running.address, ticket)
            assert refused.value.code == ErrorCode.KRB_AP_ERR_BADADDR
    with server.serve(keys, check_addresses=False) as running:  # as where addresses are translated
        assert_echoes(server, running.address, ticket)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="one family of addresses alone")
def test_k425_an_ipv4_address_of_a_listener_for_both_families_is_an_ipv4_address() -> None:
    ticket, keys = issue(caddr=(HERE,))
    other, _ = issue(caddr=(THERE,), key=keys[0].key)
    with listen((None, 0), keys) as server:
        thread = threading.Thread(target=lambda: [channel.close() for channel in server])
        thread.start()
        try:
            with connect_blocking(("127.0.0.1", server.address[1]), ticket) as channel:
                assert channel.recv() is None
            with pytest.raises(ApError):
                connect_blocking(("127.0.0.1", server.address[1]), other)
            with pytest.raises(ApError):  # ::1 is another address, and stands in no ticket
                connect_blocking(("::1", server.address[1]), ticket)
        finally:
            server.close()
            thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("family", "peer", "expected", "source"),
    [
        (socket.AF_INET, ("10.0.0.1", 5), THERE, THERE.address),
        (socket.AF_INET6, ("::ffff:10.0.0.1", 5, 0, 0), THERE, THERE.address),
        (
            socket.AF_INET6,
            ("2001:db8:1:2:3:4:5:6", 5, 0, 0),
            HostAddress(AddressType.IPV6, bytes.fromhex("20010db8000100020003000400050006")),
            bytes.fromhex("20010db800010002"),
        ),
        (
            socket.AF_INET6,
            ("fe80::1%eth0", 5, 0, 2),
            HostAddress(AddressType.IPV6, b"\xfe\x80" + bytes(13) + b"\1"),
            b"\xfe\x80" + bytes(6),
        ),
        (socket.AF_INET, (), HostAddress(0, b""), b""),
    ],
)
def test_k425_addresses_are_those_of_tickets_and_sources_are_networks_of_one_host(
    family: int, peer: tuple[Any, ...], expected: HostAddress, source: bytes
) -> None:
    with socket.socket(family) as sock:
        address = peer_address(sock, peer)
    assert (address, source_of(address)) == (expected, source)


# -- reaching a server


def test_a_refused_connection_says_where(client: Side) -> None:
    port = closed_port()
    with pytest.raises(TransportError, match=f"127.0.0.1 port {port}"):
        client.connect(("127.0.0.1", port), TICKET)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "label" * 20 + ".test", "a..b"])
def test_a_host_that_does_not_resolve_is_a_transport_error(client: Side, host: str) -> None:
    with pytest.raises(TransportError):
        client.connect((host, 1), TICKET)


def test_a_host_name_is_resolved_and_each_address_tried(client: Side, server: Side) -> None:
    with server.serve(KEYS) as running:
        assert_echoes(client, ("localhost", running.address[1]))


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_misuse(client: Side, port: int) -> None:
    with pytest.raises(ValueError, match="no TCP port"):
        client.connect(("127.0.0.1", port), TICKET)


def test_a_server_that_cannot_listen_says_where() -> None:
    with (
        socket.create_server(LOCALHOST) as taken,
        pytest.raises(TransportError, match="cannot be listened on"),
    ):
        listen(taken.getsockname(), KEYS)
    with pytest.raises(TransportError, match="cannot be listened on"):
        listen(("no-such-host.invalid", 0), KEYS)


def test_options_that_no_acceptor_takes_fail_when_the_server_starts() -> None:
    with pytest.raises(UnsupportedError):
        listen(LOCALHOST, KEYS, mechanism="ntlm")
    with pytest.raises(TypeError):
        listen(LOCALHOST, KEYS, no_such_option=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="max_frame"):
        listen(LOCALHOST, KEYS, max_frame=1)
    for fixed, value in (("require", Flag.MUTUAL), ("peer_address", None)):
        with pytest.raises(TypeError, match=f"decides on {fixed} by itself"):
            listen(LOCALHOST, KEYS, **{fixed: value})  # type: ignore[arg-type]


def test_the_typed_options_of_a_server_are_those_of_an_acceptor() -> None:
    options = set(inspect.signature(Acceptor.__init__).parameters) - {"self", "keytab"}
    for_recordings = {"clock", "random"}
    assert options - for_recordings - {"require", "peer_address"} == set(
        AcceptorOptions.__annotations__
    )
    listen(LOCALHOST, KEYS, require_pac=True, enforce_expiry=False, max_token=100_000).close()


@pytest.mark.parametrize("host", [None, ""])
def test_a_server_listens_on_all_addresses(server: Side, host: str | None) -> None:
    with listen((host, 0), KEYS) as blocking_server:
        thread = threading.Thread(target=lambda: [channel.close() for channel in blocking_server])
        thread.start()
        with connect_blocking(("127.0.0.1", blocking_server.address[1]), TICKET) as channel:
            assert channel.recv() is None
        blocking_server.close()
        thread.join()


# -- with a KDC: what a user types


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as running:
        running.add_user("alice", "pw")
        running.add_service(TARGET)
        yield running


@pytest.fixture
def alice() -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", "pw")


TARGET = "ADSockAuth/web.example.test"


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_connect_gets_its_tickets_and_talks_to_listen(
    realm: Realm, alice: Credential, mechanism: str
) -> None:
    with (
        Side("blocking").serve(realm.keytab(TARGET)) as running,
        connect(running.address, TARGET, alice, realm.config, mechanism=mechanism) as channel,
    ):
        channel.send(b"hello")
        assert channel.recv() == b"hello"
        assert str(channel.context.initiator) == "alice@EXAMPLE.TEST"
        assert str(channel.context.acceptor) == f"{TARGET}@EXAMPLE.TEST"


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_aio_connect_gets_its_tickets_and_talks_to_start_server(
    realm: Realm, alice: Credential, mechanism: str
) -> None:
    async def handler(channel: AioChannel) -> None:
        while (message := await channel.recv()) is not None:
            await channel.send(message.upper())

    async def main() -> None:
        async with (
            await aio.start_server(handler, LOCALHOST, realm.keytab(TARGET)) as server,
            await aio.connect(
                server.address, TARGET, alice, realm.config, mechanism=mechanism
            ) as channel,
        ):
            await channel.send(b"hello")
            assert await channel.recv() == b"HELLO"
            assert str(channel.context.initiator) == "alice@EXAMPLE.TEST"

    asyncio.run(main())


def test_flags_that_a_channel_cannot_do_without_are_checked_before_anyone_is_asked(
    alice: Credential,
) -> None:
    nowhere = Config(realms={"EXAMPLE.TEST": ["tcp://127.0.0.1:1"]})
    with pytest.raises(TransportError):  # the control: it does ask
        connect(("127.0.0.1", 1), TARGET, alice, nowhere)
    with pytest.raises(ValueError, match="MUTUAL"):
        connect(("127.0.0.1", 1), TARGET, alice, nowhere, flags=Flag.DEFAULT & ~Flag.MUTUAL)
    with pytest.raises(ValueError, match="max_frame"):
        connect(("127.0.0.1", 1), TARGET, alice, nowhere, max_frame=0)


def test_k284_aio_connect_cancelled_at_any_await_leaves_nothing_behind(realm: Realm) -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        async with await aio.start_server(handler, LOCALHOST, realm.keytab(TARGET)) as server:

            def connecting() -> Any:
                alice = Credential.from_password(
                    "alice@EXAMPLE.TEST", "pw"
                )  # with an empty cache: AS, TGS and AP
                return aio.connect(server.address, TARGET, alice, realm.config)

            await cancel_after(0, connecting())
            await asyncio.sleep(0.05)
            tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
            steps = 0
            while await cancel_after(steps, connecting()):
                steps += 1 + steps // 10
            assert steps > 10
            await until(
                lambda: len(asyncio.all_tasks()) == tasks and open_descriptors() == descriptors
            )
            async with await connecting() as channel:
                assert channel.context.established

    asyncio.run(main())


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for a thousand connections, both ends of them in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_k286_a_thousand_connections_at_once_and_no_identity_is_mixed_up(realm: Realm) -> None:
    users = [realm.add_user(f"user{number}", f"pw{number}") for number in range(50)]
    client = KdcClient(realm.config)
    for user in users:
        client.get_ticket(user, TARGET)
    connections = 1000

    async def handler(channel: AioChannel) -> None:
        while (message := await channel.recv()) is not None:
            await channel.send(b"%s is %s" % (message, str(channel.context.initiator).encode()))

    async def main() -> None:
        descriptors = open_descriptors()
        async with await aio.start_server(handler, LOCALHOST, realm.keytab(TARGET)) as server:
            all_open = asyncio.Event()
            opened = 0

            async def one(number: int) -> bytes | None:
                nonlocal opened
                user = users[number % 50]
                async with await aio.connect(
                    server.address, TARGET, user, realm.config, timeout=120
                ) as channel:
                    opened += 1
                    if opened == connections:
                        all_open.set()
                    await all_open.wait()
                    await channel.send(b"%d" % number)
                    return await channel.recv()

            answers = await asyncio.gather(*map(one, range(connections)))
            assert answers == [
                b"%d is user%d@EXAMPLE.TEST" % (n, n % 50) for n in range(connections)
            ]
        await until(lambda: open_descriptors() == descriptors)

    asyncio.run(main())


def test_k411_a_connection_names_the_service_that_was_asked_for() -> None:
    seen: list[Any] = []
    with Realm() as realm:
        alice, keytab = realm.add_user("alice", "pw"), realm.add_service("HTTP/web.example.test")
        with listen(("127.0.0.1", 0), keytab, require_client_target=True) as server:
            serving = threading.Thread(target=lambda: seen.append(next(iter(server))))
            serving.start()
            connect(server.address, "HTTP/web.example.test", alice, realm.config).close()
            serving.join()
        with seen[0] as channel:
            assert channel.context.client_target == f"HTTP/web.example.test@{realm.name}"
