"""One replay cache file for MIT's acceptors and ours: what one took, the other refuses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb import Acceptor, ApError, Initiator, KdcClient, Keytab, ReplayError, ServiceTicket
from purekrb.constants import ErrorCode
from purekrb.credentials.credential import Credential
from purekrb.replay import FileReplayCache
from support.apache import Apache
from support.gss_peer import GssPeer, PeerError
from support.gss_samples import CONTEXT, CONTEXT_NEXT, NOOP, GssServer, receive, send
from support.mit import ETYPES, MitRealm
from support.processes import Child, in_children, soak
from support.rcache2 import places, records

MECHANISMS = ("kerberos", "negotiate")
ALL = tuple(ETYPES)


@pytest.fixture(scope="module")
def tickets(mit_realm: MitRealm) -> dict[str, ServiceTicket]:
    """Tickets for services with keys of one encryption type each, and for HTTP/localhost."""
    client = KdcClient(mit_realm.config)
    credential = Credential.from_password("user@MIT.TEST", "userpw")
    names = ["HTTP/localhost", *(f"svc-{etype}/localhost" for etype in ETYPES)]
    return {name: client.get_ticket(credential, name) for name in names}


@pytest.fixture
def cache(mit_realm: MitRealm) -> FileReplayCache:
    """The cache of MIT's programs in the tests."""
    return FileReplayCache(mit_realm.env["KRB5RCACHENAME"].removeprefix("file2:"))


def token_of(ticket: ServiceTicket, mechanism: str = "kerberos") -> bytes:
    token = Initiator(ticket, mechanism=mechanism, permitted_etypes=ALL).step()
    assert token is not None
    return token


def ours_takes(
    realm: MitRealm, token: bytes, cache: FileReplayCache | None, keytab: Path | None = None
) -> bool:
    keys = Keytab.load(keytab or realm.service_keytab)
    try:
        Acceptor(keys, replay_cache=cache, permitted_etypes=ALL).step(token)
    except ReplayError as error:
        if error.code != ErrorCode.KRB_AP_ERR_REPEAT:
            raise
        return False
    return True


def mit_takes(realm: MitRealm, peer: GssPeer, token: bytes, mechanism: str) -> bool:
    context = peer.accept(realm.service_keytab, mechanism=mechanism)
    try:
        context.step(token)
    except PeerError as error:
        if "replay" not in str(error):
            raise
        return False
    finally:
        context.close()
    return True


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("etype", ETYPES)
def test_what_mit_took_we_refuse_and_the_other_way_round(
    mit_realm: MitRealm,
    mit_gss: GssPeer,
    tickets: dict[str, ServiceTicket],
    cache: FileReplayCache,
    etype: int,
    mechanism: str,
) -> None:
    for _ in range(5):
        theirs, mine = (token_of(tickets[f"svc-{etype}/localhost"], mechanism) for _ in range(2))
        assert mit_takes(mit_realm, mit_gss, theirs, mechanism)
        assert not ours_takes(mit_realm, theirs, cache)
        assert ours_takes(mit_realm, mine, cache)
        assert not mit_takes(mit_realm, mit_gss, mine, mechanism)


def test_the_file_is_slot_by_slot_the_one_that_mit_writes(
    mit_realm: MitRealm,
    mit_gss: GssPeer,
    tickets: dict[str, ServiceTicket],
    cache: FileReplayCache,
    tmp_path: Path,
) -> None:
    """MIT and we store in turns; a file with the same seed that we fill alone has the same slots."""
    Path(cache.path).unlink(missing_ok=True)
    alone = FileReplayCache(tmp_path / "alone")
    tags = []
    for number in range(2200):
        token = token_of(tickets["svc-18/localhost"])
        tags.append(token[-12:])
        if number % 2:
            assert ours_takes(mit_realm, token, cache)
        else:
            assert mit_takes(mit_realm, mit_gss, token, "kerberos")
        if not number:
            (tmp_path / "alone").write_bytes(Path(cache.path).read_bytes())
            (tmp_path / "alone").chmod(0o600)
        else:
            assert ours_takes(mit_realm, token, alone)
    found = {slot: tag for slot, (tag, _) in records(cache.path).items()}
    assert found == {slot: tag for slot, (tag, _) in records(alone.path).items()}
    seed, expected = Path(cache.path).read_bytes()[:16], dict[int, bytes]()
    for tag in tags:
        expected[next(slot for slot in places(seed, tag) if slot not in expected)] = tag
    assert found == expected
    assert max(found) > 1023, "the control: there is a second table"


def test_what_gss_server_took_we_refuse_and_the_other_way_round(
    mit_realm: MitRealm, tickets: dict[str, ServiceTicket], cache: FileReplayCache
) -> None:
    server = GssServer(mit_realm, "svc-18@localhost")

    def takes(context: Initiator, token: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            send(connection, NOOP | CONTEXT_NEXT)
            send(connection, CONTEXT, token)
            answer = receive(connection)[1]
        try:
            context.step(answer)
        except ApError as error:
            if error.code != ErrorCode.KRB_AP_ERR_REPEAT:
                raise
        return context.established

    try:
        theirs, mine = (Initiator(tickets["svc-18/localhost"]) for _ in range(2))
        token = theirs.step()
        assert takes(theirs, token)
        assert not ours_takes(mit_realm, token, cache)
        token = mine.step()
        assert ours_takes(mit_realm, token, cache)
        assert not takes(mine, token)
    finally:
        server.stop()


@pytest.fixture
def apache(mit_realm: MitRealm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apache]:
    server = Apache(mit_realm)
    monkeypatch.delenv("KRB5RCACHENAME")
    monkeypatch.setenv("KRB5RCACHEDIR", str(server.directory))
    monkeypatch.setenv("KRB5_CONFIG", str(server.directory / "krb5.conf"))
    yield server
    server.stop()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_what_mod_auth_gssapi_took_we_refuse_and_the_other_way_round(
    mit_realm: MitRealm, tickets: dict[str, ServiceTicket], apache: Apache, mechanism: str
) -> None:
    """Both with the default cache of the user that Apache's workers have."""

    def ours(token: bytes) -> bool:
        def job(writer: int) -> None:
            os.setuid(apache.uid)
            keytab = apache.directory / "http.keytab"
            os.write(writer, b"%d" % ours_takes(mit_realm, token, None, keytab))

        child = Child(job)
        said = child.output()
        assert child.ended_well
        return said == b"1"

    for _ in range(3):
        theirs, mine = (token_of(tickets["HTTP/localhost"], mechanism) for _ in range(2))
        assert apache.status_for(theirs) == 200
        assert not ours(theirs)
        assert ours(mine)
        assert apache.status_for(mine) == 401
    assert "Request is a replay" in apache.log
    file = apache.directory / f"krb5_{apache.uid}.rcache2"
    assert len(records(file)) == 6


def test_processes_of_both_kinds_take_each_token_exactly_once(
    mit_realm: MitRealm, tickets: dict[str, ServiceTicket], cache: FileReplayCache
) -> None:
    tokens = [token_of(tickets["svc-20/localhost"]) for _ in range(soak(150, 1000))]

    def job(number: int) -> bytes:
        os.environ.update(mit_realm.env)
        taken = bytearray(len(tokens))
        if number % 2:
            import gssapi

            gssapi.SecurityContext.__DEFER_STEP_ERRORS__ = False
            credentials = gssapi.Credentials(
                usage="accept", store={b"keytab": f"FILE:{mit_realm.service_keytab}".encode()}
            )
        for at in range(len(tokens)):
            which = (at + number) % len(tokens)
            if number % 2:
                context = gssapi.SecurityContext(creds=credentials, usage="accept")
                try:
                    context.step(tokens[which])
                    taken[which] = 1
                except gssapi.exceptions.GSSError as error:
                    if "replay" not in str(error):
                        raise
            else:
                taken[which] = ours_takes(mit_realm, tokens[which], cache)
        return bytes(taken)

    results = in_children(6, job)
    assert [sum(column) for column in zip(*results, strict=True)] == [1] * len(tokens)
    for kind in (0, 1):
        assert sum(map(sum, results[kind::2])) > 0, "the control: both kinds took some"


@pytest.mark.parametrize("content", [b"", bytes(range(16))])
def test_both_use_a_file_that_was_only_begun(
    mit_realm: MitRealm,
    mit_gss: GssPeer,
    tickets: dict[str, ServiceTicket],
    cache: FileReplayCache,
    content: bytes,
) -> None:
    """A kill may leave an empty file, or the seed alone."""
    for ours_first in (False, True):
        Path(cache.path).write_bytes(content)
        Path(cache.path).chmod(0o600)
        token = token_of(tickets["svc-18/localhost"])
        takes = [
            lambda token=token: mit_takes(mit_realm, mit_gss, token, "kerberos"),
            lambda token=token: ours_takes(mit_realm, token, cache),
        ]
        if ours_first:
            takes.reverse()
        assert [take() for take in takes] == [True, False]
        seed = Path(cache.path).read_bytes()[:16]
        assert (seed == content) == (len(content) == 16)
        assert list(records(cache.path)) == [next(places(seed, token[-12:]))]
