"""purekrb's contexts with MIT's sample programs gss-client and gss-server, over TCP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from purekrb import Acceptor, Config, Credential, Flag, Initiator, KdcClient, Keytab
from support.gss_samples import (
    DATA,
    ENCRYPTED,
    MIC,
    NOOP,
    SEND_MIC,
    WRAPPED,
    GssServer,
    SampleService,
    receive,
    run_gss_client,
    send,
)
from support.mit import ETYPES, MitRealm

RC4 = 23
MESSAGES = 100
SIZES = (1, 15, 16, 17, 1024, 64 * 1024, 1024 * 1024)


# --- our initiator and gss-server


@pytest.fixture(scope="module")
def client(mit_realm: MitRealm) -> KdcClient:
    return KdcClient(Config.from_file(mit_realm.krb5_conf))


@pytest.fixture(scope="module")
def credential() -> Credential:
    return Credential.from_password("user@MIT.TEST", "userpw")


@pytest.fixture(params=ETYPES, ids=[f"etype-{etype}" for etype in ETYPES])
def etype(request: pytest.FixtureRequest) -> int:
    etype: int = request.param
    return etype


@pytest.fixture
def gss_server(mit_realm: MitRealm, etype: int) -> Iterator[GssServer]:
    server = GssServer(mit_realm, f"svc-{etype}@localhost")
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("mechanism", "kind"),
    [
        ("kerberos", WRAPPED | ENCRYPTED),
        ("kerberos", WRAPPED),
        ("kerberos", 0),
        ("negotiate", WRAPPED | ENCRYPTED),
    ],
    ids=["sealed", "signed", "mic", "spnego"],
)
def test_gss_server_takes_our_messages_and_signs_them(
    gss_server: GssServer,
    client: KdcClient,
    credential: Credential,
    etype: int,
    mechanism: str,
    kind: int,
) -> None:
    ticket = client.get_ticket(credential, f"svc-{etype}/localhost")
    context = Initiator(ticket, mechanism=mechanism, permitted_etypes=(etype,))
    with gss_server.connect(context) as connection:
        assert context.mutual
        messages = [
            *(b"message %d" % number for number in range(MESSAGES)),
            *(b"x" * size for size in SIZES),
        ]
        for data in messages:
            token = context.wrap(data, sealed=bool(kind & ENCRYPTED)) if kind & WRAPPED else data
            if etype == RC4:  # purekrb has no MICs there, so the server is not asked for one
                send(connection, DATA | kind, token)
                assert receive(connection) == (NOOP, b"")
                continue
            send(connection, DATA | kind | SEND_MIC, token)
            flags, mic = receive(connection)
            assert flags == MIC
            context.verify_mic(data, mic)
        send(connection, NOOP)
        assert connection.recv(1) == b"", "gss-server says more than was asked"
    log = gss_server.log.read_text(errors="replace")
    assert 'Accepted connection: "user@MIT.TEST"' in log
    assert log.count("Received message: ") == len(messages)
    assert 'Received message: "message 99"' in log


def test_gss_server_refuses_an_altered_message(
    gss_server: GssServer, client: KdcClient, credential: Credential, etype: int
) -> None:
    context = Initiator(
        client.get_ticket(credential, f"svc-{etype}/localhost"), permitted_etypes=(etype,)
    )
    with gss_server.connect(context) as connection:
        send(connection, DATA | WRAPPED | ENCRYPTED, context.wrap(b"genuine"))
        assert receive(connection) == (NOOP, b"")
        token = bytearray(context.wrap(b"altered"))
        token[-1] ^= 1
        send(connection, DATA | WRAPPED | ENCRYPTED, bytes(token))
        assert connection.recv(1) == b"", "gss-server acknowledged an altered message"


# --- gss-client and our acceptor


def sample_service(realm: MitRealm, etype: int = 18) -> SampleService:
    keytab = Keytab.load(realm.service_keytab)
    return SampleService(Acceptor(keytab, permitted_etypes=(etype,), require=Flag(0)))


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ((), WRAPPED | ENCRYPTED),
        (("-nx",), WRAPPED),
        (("-nw",), 0),
        (("-spnego",), WRAPPED | ENCRYPTED),
    ],
    ids=["sealed", "signed", "mic", "spnego"],
)
def test_gss_client_is_answered_by_our_acceptor(
    mit_realm: MitRealm, etype: int, option: tuple[str, ...], kind: int
) -> None:
    service = sample_service(mit_realm, etype)
    mics = etype != RC4
    options = (*option, *(() if mics else ("-nm",)), "-seq", "-mcount", str(MESSAGES))
    output = run_gss_client(
        mit_realm, service, *options, "127.0.0.1", f"svc-{etype}@localhost", "from gss-client"
    )
    assert service.received == [b"from gss-client"] * MESSAGES
    assert service.kinds == {DATA | kind | (SEND_MIC if mics else 0)}
    assert str(service.acceptor.initiator) == "user@MIT.TEST"
    assert service.acceptor.etype == etype
    assert service.acceptor.flags & (Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE) == (
        Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE
    )
    for name in ("MUTUAL", "REPLAY", "SEQUENCE", "CONF", "INTEG"):
        assert f"GSS_C_{name}_FLAG" in output
    assert output.count("Signature verified.") == (MESSAGES if mics else 0)
    assert output.count("Response received.") == (0 if mics else MESSAGES)


@pytest.mark.parametrize("size", SIZES)
def test_gss_client_sends_every_size(mit_realm: MitRealm, size: int) -> None:
    message = mit_realm.path("message")
    message.write_bytes(b"x" * size)
    service = sample_service(mit_realm)
    output = run_gss_client(mit_realm, service, "-f", "127.0.0.1", "svc-18@localhost", str(message))
    assert service.received == [b"x" * size]
    assert output.count("Signature verified.") == 1


@pytest.mark.parametrize("mechanism", [(), ("-spnego",)], ids=["kerberos", "spnego"])
def test_gss_client_without_mutual_authentication_gets_a_context(
    mit_realm: MitRealm, mechanism: tuple[str, ...]
) -> None:
    service = sample_service(mit_realm)
    options = (*mechanism, "-nomutual", "-seq")
    output = run_gss_client(
        mit_realm, service, *options, "127.0.0.1", "svc-18@localhost", "one way"
    )
    assert service.received == [b"one way"]
    assert not service.acceptor.flags & Flag.MUTUAL
    assert "GSS_C_MUTUAL_FLAG" not in output
    assert output.count("Signature verified.") == 1
