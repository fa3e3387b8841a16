"""Show the whole job in one process, on loopback: an embedded realm and directory, a service, a client, an impostor."""

from __future__ import annotations

import argparse
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from purekrb.cli.output import Output
from purekrb.constants import DEFAULT_ETYPES, Flag
from purekrb.errors import ApError
from purekrb.keys import etype_name

if TYPE_CHECKING:
    from purekrb import Acceptor, Credential, Initiator, Keytab, ServiceTicket
    from purekrb.channel.blocking import Server
    from purekrb.directory import ServiceConnectionPoint
    from purekrb.directory.ldap import EmbeddedDirectory
    from purekrb.testing import Realm

__all__ = ["add_arguments", "run"]

DOMAIN, REALM, HOST = "example.test", "EXAMPLE.TEST", "files.example.test"
SERVICE_CLASS, PRODUCT = "ADSockAuth", "a762885a-aa44-11d2-81f1-00c04fb9624e"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--etype",
        choices=[etype_name(etype) for etype in DEFAULT_ETYPES],
        default=etype_name(DEFAULT_ETYPES[0]),
        help="encryption type of all keys",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. The exit code is 0 only if the service was proved and the impostor refused."""
    etype = next(etype for etype in DEFAULT_ETYPES if etype_name(etype) == args.etype)
    story = _Story(output)
    started = time.perf_counter()
    refused = _tell(story, etype)
    story.end(time.perf_counter() - started)
    return 0 if refused else 1


class _Story:
    """Prints the steps as they happen, or all of them as JSON at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._steps: list[dict[str, Any]] = []
        if not output.as_json:
            from rich.console import Console

            self._console = Console(highlight=False)

    def chapter(self, title: str) -> None:
        self._steps.append({"step": title, "lines": []})
        if not self._output.as_json:
            self._console.print(f"\n[bold]{len(self._steps)}. {title}[/bold]")

    def line(self, who: str, what: str, *, style: str = "") -> None:
        self._steps[-1]["lines"].append({"who": who, "what": what})
        if not self._output.as_json:
            from rich.table import Table
            from rich.text import Text

            row = Table.grid(padding=(0, 1, 0, 2))  # a grid keeps wrapped lines in their column
            row.add_column(width=19, style="cyan")
            row.add_column(style=style)
            row.add_row(Text(who), Text(what, overflow="fold"))
            self._console.print(row)

    @contextmanager
    def trace(self, logger: str, who: str) -> Iterator[None]:
        """Tell what `logger` says while the block runs: the steps of the protocol, without secrets."""
        handler = logging.Handler()
        handler.emit = lambda record: self.line(who, record.getMessage())  # type: ignore[method-assign]
        source = logging.getLogger(logger)
        level = source.level
        source.addHandler(handler)
        source.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            source.setLevel(level)
            source.removeHandler(handler)

    def end(self, seconds: float) -> None:
        if self._output.as_json:
            self._output.result({"steps": self._steps, "seconds": round(seconds, 3)}, "")
        else:
            self._console.print(f"\nDone in {seconds * 1000:.0f} ms. No secret was printed.")


def _tell(story: _Story, etype: int) -> bool:
    """Tell the story; return whether the impostor was refused."""
    import purekrb
    from purekrb.directory import Directory
    from purekrb.testing import Realm

    with Realm(REALM, etypes=(etype,)) as realm, Directory.embedded(DOMAIN) as directory:
        story.chapter("A realm and a directory start on this machine")
        story.line("KDC", f"realm {REALM} answers on 127.0.0.1:{realm.port} (UDP, TCP), keys of {etype_name(etype)}")
        story.line("directory", f"{DOMAIN}: LDAP entries in memory, behind the interface of a real directory")
        alice = realm.add_user("alice", secrets.token_urlsafe(16))

        story.chapter("The service is installed: it gets an SCP and an SPN; it starts and updates its SCP")
        scp, keytab = _install(story, realm, directory)
        with purekrb.listen(("127.0.0.1", 0), keytab) as server:
            threading.Thread(target=_serve, args=(story, server), daemon=True).start()
            scp = replace(scp, bindings=(str(server.address[1]),))
            changed = directory.update_scp(scp)
            story.line("service", f"listens on port {server.address[1]}, writes {', '.join(changed)} to its SCP")

            story.chapter("The client finds the service and composes its SPN from what the directory says")
            found = directory.find_scps(keywords=[PRODUCT])[0]
            target = found.spn()
            story.line("client -> directory", f"search (keywords={PRODUCT})")
            story.line("directory -> client", f"{found.dn}, host {found.dns_name}, port {found.port}")
            story.line("client", f"SPN {target}")

            story.chapter("The client gets its tickets")
            ticket = _get_ticket(story, realm, alice, target)

            story.chapter("Client and service prove themselves to each other")
            context = _handshake(story, ticket, keytab)

            story.chapter("They exchange signed and sealed messages, on one context and over TCP")
            _exchange(story, *context)
            _talk(story, realm, alice, target, ("127.0.0.1", found.port))

        story.chapter("An impostor takes the service's place: same name, same port, another key")
        return _meet_impostor(story, realm, ticket, keytab)


def _install(story: _Story, realm: Realm, directory: EmbeddedDirectory) -> tuple[ServiceConnectionPoint, Keytab]:
    from purekrb.directory import ServiceConnectionPoint, SpnOperation

    directory.add_computer(HOST)
    account = directory.add_user("svc-files")
    scp = directory.publish_scp(
        ServiceConnectionPoint(
            name="SockAuthAD",
            service_class_name=SERVICE_CLASS,
            dns_name=HOST,
            bindings=("2000",),
            keywords=(PRODUCT, "purekrb demo"),
        ),
        host=HOST,
    )
    spn = scp.spn()
    directory.write_account_spn(SpnOperation.ADD, account.dn, [spn])
    keytab = realm.add_service(spn)
    story.line("installer", f"SCP {scp.dn}, keywords {', '.join(scp.keywords)}")
    story.line("installer", f"SPN {spn} on account {account.dn}")
    story.line("service", f"keytab: {keytab.summary()}")
    return scp, keytab


def _get_ticket(story: _Story, realm: Realm, alice: Credential, target: str) -> ServiceTicket:
    from purekrb import KdcClient

    with story.trace("purekrb.kdc", "client and KDC"):
        ticket = KdcClient(realm.config).get_ticket(alice, target)
    hours = (ticket.endtime - (ticket.starttime or ticket.authtime)).total_seconds() / 3600
    story.line("client", f"ticket of {ticket.client}: {len(ticket.ticket)} bytes, valid {hours:g} h")
    return ticket


def _handshake(story: _Story, ticket: ServiceTicket, keytab: Keytab) -> tuple[Initiator, Acceptor]:
    from purekrb import Acceptor, Initiator

    initiator, acceptor = Initiator(ticket), Acceptor(keytab)
    request = initiator.step() or b""
    story.line("client -> service", f"AP-REQ, {len(request)} bytes: ticket, authenticator, subkey; asks for mutual")
    reply = acceptor.step(request) or b""
    story.line("service", f"the client is {acceptor.initiator}; the ticket decrypts with my key")
    story.line("service -> client", f"AP-REP, {len(reply)} bytes: the client's time, a subkey of my own")
    initiator.step(reply)
    story.line("client", f"the time is what I sent: the service is {initiator.acceptor}", style="green")
    story.line("both", f"{', '.join(str(flag.name) for flag in Flag if flag & initiator.flags)}")
    return initiator, acceptor


def _exchange(story: _Story, initiator: Initiator, acceptor: Acceptor) -> None:
    message = b"a message worth protecting"
    mic = initiator.get_mic(message)
    acceptor.verify_mic(message, mic)
    story.line("client -> service", f"{len(message)} bytes and their signature (MIC), {len(mic)} bytes: genuine")
    token = acceptor.wrap(message)
    initiator.unwrap(token)
    story.line("service -> client", f"{len(message)} bytes sealed as {len(token)}: opened, genuine, in sequence")


def _talk(story: _Story, realm: Realm, alice: Credential, target: str, address: tuple[str, int]) -> None:
    import purekrb

    with purekrb.connect(address, target, alice, config=realm.config) as channel:
        message = bytes(100_000)
        channel.send(message)
        answer = channel.recv() or b""
        story.line("client -> service", f"over TCP: {len(message)} bytes sealed; {len(answer)} bytes came back sealed")


def _serve(story: _Story, server: Server) -> None:
    for channel in server:
        with channel:
            while (message := channel.recv()) is not None:
                channel.send(message)


def _meet_impostor(story: _Story, realm: Realm, ticket: ServiceTicket, keytab: Keytab) -> bool:
    """Return whether the client refuses each way in which a service without the key can answer."""
    from purekrb import Acceptor, Initiator, Keytab, KeytabEntry, crypto
    from purekrb.errors import KerberosError

    stolen_name = [
        KeytabEntry(entry.principal, entry.kvno, crypto.random_key(entry.key.etype), entry.timestamp)
        for entry in keytab
    ]
    initiator = Initiator(ticket)
    request = initiator.step() or b""
    answer = b""
    try:
        Acceptor(Keytab(stolen_name)).step(request)
    except ApError as error:
        story.line("impostor", f"cannot read the AP-REQ: {error}")
        answer = error.response or b""
    attempts = {"its KRB-ERROR": (initiator, answer), "an AP-REP of another client": _recorded(ticket, keytab)}
    refusals = 0
    for what, (context, reply) in attempts.items():
        try:
            context.step(reply)
        except KerberosError as error:
            refusals += not context.established
            story.line("client", f"refuses {what}: {error}", style="green")
    return refusals == len(attempts)


def _recorded(ticket: ServiceTicket, keytab: Keytab) -> tuple[Initiator, bytes]:
    """Return a fresh context and the genuine AP-REP of an earlier one, as an impostor may have recorded it."""
    from purekrb import Acceptor, Initiator

    earlier, fresh = Initiator(ticket), Initiator(ticket)
    recorded = Acceptor(keytab).step(earlier.step()) or b""
    fresh.step()
    return fresh, recorded
