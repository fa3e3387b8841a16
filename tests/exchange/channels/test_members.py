"""Who may come in by the SIDs of the PAC, at channels and over HTTP: members of a group, and nobody in doubt."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from purekrb import Initiator, ServiceTicket, TransportError, crypto
from purekrb.authorization import members_of
from purekrb.directory import Directory
from purekrb.errors import AccountNotFoundError, DecodeError
from purekrb.integrations.asgi import KerberosMiddleware as AsgiMiddleware
from purekrb.integrations.http.headers import write_field
from purekrb.integrations.wsgi import KerberosMiddleware as WsgiMiddleware
from purekrb.replay import MemoryReplayCache
from purekrb.sid import Sid
from support.channels import Side, assert_echoes
from support.pac import DOMAIN, USER_SID, assemble, buffers, element, now, sign
from support.tickets import issue

GROUP, OTHER = f"{DOMAIN}-1105", f"{DOMAIN}-512"


def ticket_with_pac(*, forged: bool = False) -> tuple[ServiceTicket, list[Any]]:
    """Return a ticket of alice, who is a member of GROUP, and the keys of its service."""
    key, authtime = crypto.random_key(18), now()
    signer = crypto.random_key(18) if forged else key
    pac = element(sign(assemble(buffers(key, authtime)), signer))
    return issue(key=key, session_etype=18, now=authtime, authorization_data=(pac,))


def refused(server: Side, ticket: ServiceTicket, keys: Any, authorize: Any) -> None:
    """Assert that a client gets neither an answer nor a channel."""
    served: list[Any] = []
    with (
        server.serve(keys, served.append, authorize=authorize) as running,
        pytest.raises(TransportError, match="during the handshake"),
    ):
        server.connect(running.address, ticket)
    assert served == []
    assert running.errors == []


def test_a_channel_serves_members_of_a_group_alone(server: Side) -> None:
    ticket, keys = ticket_with_pac()
    for groups in ([GROUP], [OTHER, GROUP.lower()], [Sid.parse(USER_SID)], ["S-1-18-1"]):
        with server.serve(keys, authorize=members_of(*groups)) as running:
            assert_echoes(server, running.address, ticket)
    refused(server, ticket, keys, members_of(OTHER))
    # Any function will do, and it sees the context.
    with server.serve(
        keys, authorize=lambda context: context.initiator.components[0] == "alice"
    ) as running:
        assert_echoes(server, running.address, ticket)


def test_k659_a_client_without_a_pac_is_a_member_of_no_group(server: Side) -> None:
    ticket, keys = issue()
    refused(server, ticket, keys, members_of(GROUP, "S-1-1-0", "S-1-5-11"))
    with server.serve(keys, authorize=lambda context: True) as running:
        assert_echoes(server, running.address, ticket)


def test_k660_a_pac_that_another_key_signed_lets_nobody_in(
    server: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="purekrb")
    ticket, keys = ticket_with_pac(forged=True)
    refused(server, ticket, keys, members_of(GROUP))
    assert "its PAC cannot be trusted" in caplog.text


def test_a_function_that_fails_or_is_never_awaited_lets_nobody_in(server: Side) -> None:
    ticket, keys = ticket_with_pac()

    async def coroutine(context: Any) -> bool:
        return True

    for wrong in (coroutine, lambda context: 1 // 0, lambda context: None):
        refused(server, ticket, keys, wrong)
    with server.serve(keys, authorize=lambda context: True) as running:
        assert_echoes(server, running.address, ticket)


def _asked_for_more(context: Any) -> Any:
    yield False


async def _asked_for_more_later(context: Any) -> Any:
    yield False


#: Functions that return what is true in Python, and no answer.
NO_ANSWERS = {
    "K688-a function": lambda context: members_of(OTHER),
    "K688-a method that is not called": lambda context: context.identity.claims.__len__,
    "K688-a generator": _asked_for_more,
    "K688-an asynchronous generator": _asked_for_more_later,
}


@pytest.mark.parametrize("wrong", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_lets_nobody_in(server: Side, wrong: Any) -> None:
    ticket, keys = ticket_with_pac()
    refused(server, ticket, keys, wrong)
    with server.serve(keys, authorize=members_of(GROUP)) as running:
        assert_echoes(server, running.address, ticket)


def status_of_wsgi(ticket: ServiceTicket, keys: Any, authorize: Any) -> str:
    def app(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [])
        return []

    statuses: list[str] = []
    protected = WsgiMiddleware(app, keys, authorize=authorize, replay_cache=MemoryReplayCache())
    token = write_field(Initiator(ticket, mechanism="negotiate").step())
    protected({"HTTP_AUTHORIZATION": token}, lambda status, _headers: statuses.append(status[:3]))
    return statuses[0]


def status_of_asgi(ticket: ServiceTicket, keys: Any, authorize: Any) -> str:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    token = write_field(Initiator(ticket, mechanism="negotiate").step())
    protected = AsgiMiddleware(app, keys, authorize=authorize, replay_cache=MemoryReplayCache())
    scope = {"type": "http", "path": "/", "headers": [(b"authorization", token.encode())]}
    asyncio.run(protected(scope, receive, send))
    return str(sent[0]["status"])


@pytest.mark.parametrize("status", [status_of_wsgi, status_of_asgi])
def test_the_same_line_guards_web_applications(status: Any) -> None:
    ticket, keys = ticket_with_pac()
    assert status(ticket, keys, members_of(GROUP)) == "200"
    assert status(ticket, keys, members_of(OTHER)) == "403"
    assert status(*issue(), members_of(GROUP)) == "403"
    assert status(*ticket_with_pac(forged=True), members_of(GROUP)) == "403"


@pytest.mark.parametrize("wrong", NO_ANSWERS.values(), ids=NO_ANSWERS)
@pytest.mark.parametrize("status", [status_of_wsgi, status_of_asgi])
def test_what_is_no_answer_is_an_error_of_a_web_application(status: Any, wrong: Any) -> None:
    ticket, keys = ticket_with_pac()
    with pytest.raises(TypeError, match="authorize returned"):
        status(ticket, keys, wrong)

    async def late(user: Any) -> Any:
        return wrong(user)

    with pytest.raises(TypeError, match="authorize"):
        status(ticket, keys, late)
    assert status(ticket, keys, members_of(GROUP)) == "200"


class _NobodyYet(list[str]):
    """A list of clients that may come in, and that is empty: it is false in Python."""

    def __call__(self, user: Any) -> bool:
        return str(user) in self


@pytest.mark.parametrize("status", [status_of_wsgi, status_of_asgi])
def test_k689_an_empty_list_lets_nobody_in(status: Any) -> None:
    ticket, keys = ticket_with_pac()
    assert status(ticket, keys, _NobodyYet()) == "403"
    assert status(ticket, keys, _NobodyYet([str(ticket.client)])) == "200"


def test_k689_an_empty_list_lets_nobody_into_a_channel(server: Side) -> None:
    ticket, keys = ticket_with_pac()
    refused(server, ticket, keys, _NobodyYet())
    with server.serve(keys, authorize=lambda context: True) as running:
        assert_echoes(server, running.address, ticket)


def test_names_of_groups_are_looked_up_once_when_the_service_starts(server: Side) -> None:
    ticket, keys = ticket_with_pac()
    with Directory.embedded("example.test") as directory:
        group = directory.add_group("Web Admins")
        directory.add_group("Others")
        directory._session.modify(group.dn, [replaced("objectSid", Sid.parse(GROUP).encode())])
        members = members_of("EXAMPLE\\Web Admins", directory=directory)
        others = members_of("Others", directory=directory)
        with pytest.raises(AccountNotFoundError):
            members_of("Web*", directory=directory)
        directory._session.delete(group.dn)
    with server.serve(keys, authorize=members) as running:
        assert_echoes(server, running.address, ticket)
    refused(server, ticket, keys, others)


def replaced(name: str, value: bytes) -> Any:
    from purekrb.directory.ldap import Change, ChangeOperation

    return Change(ChangeOperation.REPLACE, name, [value])


def test_no_group_and_no_sid_are_the_callers_mistakes() -> None:
    with pytest.raises(ValueError, match="name at least one group"):
        members_of()
    with pytest.raises(ValueError, match="is not a SID: pass directory="):
        members_of("Web Admins")
    with pytest.raises(DecodeError):
        members_of("S-1-5-x")
    assert callable(members_of(GROUP))
