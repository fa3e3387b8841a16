"""Show everything in one process: a realm, a directory, a service, a client and impostors."""

from __future__ import annotations

import argparse
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from purekrb.cli.output import Output
from purekrb.constants import DEFAULT_ETYPES, Flag, flag_names
from purekrb.errors import ApError, KerberosError
from purekrb.keys import etype_name

if TYPE_CHECKING:
    from purekrb import Acceptor, Credential, Initiator, Keytab, ServiceTicket
    from purekrb.channel.blocking import Server
    from purekrb.directory import EmbeddedDirectory, ServiceConnectionPoint
    from purekrb.testing import Realm

__all__ = ["add_arguments", "run"]

DOMAIN, REALM, HOST = "example.test", "EXAMPLE.TEST", "files.example.test"
SERVICE_CLASS, PRODUCT = "ADSockAuth", "a762885a-aa44-11d2-81f1-00c04fb9624e"
_PROOF = "green"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--etype",
        choices=[etype_name(etype) for etype in DEFAULT_ETYPES],
        default=etype_name(DEFAULT_ETYPES[0]),
        metavar="ETYPE",
        help="encryption type of all keys, one of %(choices)s (default: %(default)s)",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. The exit code is 0 if the service was proved and every impostor refused."""
    etype = next(etype for etype in DEFAULT_ETYPES if etype_name(etype) == args.etype)
    story = _Story(output)
    started = time.perf_counter()
    refused = _tell(story, etype)
    story.end(refused, time.perf_counter() - started)
    return 0 if refused else 1


class _Story:
    """Prints the steps as they happen, or all of them as JSON at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._steps: list[dict[str, Any]] = []

    def chapter(self, title: str) -> None:
        self._steps.append({"step": title, "lines": []})
        if not self._output.as_json:
            self._output.styled()
            for line in _wrap(f"{len(self._steps)}. {title}", self._output.width):
                self._output.styled((line, "bold"))

    def line(self, who: str, what: str, *, style: str = "") -> None:
        self._steps[-1]["lines"].append({"who": who, "what": what})
        if not self._output.as_json:
            for line in _wrap(what, self._output.width - 22):
                self._output.styled((f"  {who:<20}", "cyan"), (line, style))
                who = ""

    @contextmanager
    def exchanges(self) -> Iterator[None]:
        """Show the log of the KDC client while the block runs: protocol steps, without secrets."""
        handler = logging.Handler()
        handler.emit = lambda record: self.line(*_spoken(record.getMessage()))  # type: ignore[method-assign]
        logger = logging.getLogger("purekrb.kdc")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)

    def end(self, refused: bool, seconds: float) -> None:
        if self._output.as_json:
            result = {
                "steps": self._steps,
                "impostors_refused": refused,
                "seconds": round(seconds, 3),
            }
            self._output.result(result, "")
        else:
            outcome = "every impostor was refused" if refused else "AN IMPOSTOR WAS BELIEVED"
            self._output.styled()
            self._output.styled(
                (f"The service proved itself, {outcome}. Done in {seconds * 1000:.0f} ms.", "bold")
            )


def _wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines of `width`, broken after blanks, slashes and commas."""
    lines = [""]
    for piece in re.findall(r"[^ /,]*[ /,]*", text):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _spoken(message: str) -> tuple[str, str]:
    """Return the speaker and the text of a line in the KDC client's log."""
    if message.startswith(("AS-REP", "TGS-REP", "KRB-ERROR")) or ": answered with" in message:
        return "KDC -> client", message
    if message.startswith(("AS-REQ", "TGS-REQ")) or ": sent " in message:
        return "client -> KDC", message
    return "client", message


def _tell(story: _Story, etype: int) -> bool:
    """Tell the story; return whether the impostors were refused."""
    import purekrb
    from purekrb.directory import Directory
    from purekrb.testing import Realm

    with Realm(REALM, etypes=(etype,)) as realm, Directory.embedded(DOMAIN) as directory:
        story.chapter("A realm and a directory start on this machine")
        story.line(
            "KDC",
            f"realm {REALM} answers on 127.0.0.1:{realm.port} (UDP, TCP), keys of "
            f"{etype_name(etype)}",
        )
        story.line(
            "directory",
            f"{DOMAIN}: LDAP entries in memory, with the interface of a real directory",
        )
        alice = realm.add_user("alice", secrets.token_urlsafe(16))

        story.chapter(
            "The service is installed with an SCP and an SPN; it starts and updates its SCP"
        )
        scp, keytab = _install(story, realm, directory)
        with purekrb.listen(("127.0.0.1", 0), keytab) as server:
            threading.Thread(target=_serve, args=(server,), daemon=True).start()
            scp = replace(scp, bindings=(str(server.address[1]),))
            changed = directory.update_scp(scp)
            story.line(
                "service",
                f"listens on port {server.address[1]}, writes {', '.join(changed)} to its SCP",
            )

            story.chapter(
                "The client finds the service and composes its SPN from what the directory says"
            )
            found = directory.find_scps(keywords=[PRODUCT])[0]
            target = found.spn()
            story.line("client -> directory", f"search (keywords={PRODUCT})")
            story.line(
                "directory -> client", f"{found.dn}, host {found.dns_name}, port {found.port}"
            )
            story.line("client", f"SPN {target}")

            story.chapter("The client gets its tickets")
            ticket = _get_ticket(story, realm, alice, target)

            story.chapter("Client and service prove themselves to each other")
            context = _handshake(story, ticket, keytab)

            story.chapter("They exchange signed and sealed messages, on this context and over TCP")
            _exchange(story, *context)
            _talk(story, realm, alice, target, ("127.0.0.1", found.port))

        story.chapter("Impostors take the service's place: they have its name, but not its key")
        return _meet_impostors(story, ticket, keytab)


def _install(
    story: _Story, realm: Realm, directory: EmbeddedDirectory
) -> tuple[ServiceConnectionPoint, Keytab]:
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


def _serve(server: Server) -> None:
    for channel in server:
        with suppress(KerberosError), channel:
            while (message := channel.recv()) is not None:
                channel.send(message)


def _get_ticket(story: _Story, realm: Realm, alice: Credential, target: str) -> ServiceTicket:
    from purekrb import KdcClient

    with story.exchanges():
        ticket = KdcClient(realm.config).get_ticket(alice, target)
    hours = (ticket.endtime - (ticket.starttime or ticket.authtime)).total_seconds() / 3600
    story.line(
        "client",
        f"has a ticket of {len(ticket.ticket)} bytes for {ticket.client}, valid {hours:.1f} h",
    )
    return ticket


def _handshake(story: _Story, ticket: ServiceTicket, keytab: Keytab) -> tuple[Initiator, Acceptor]:
    from purekrb import Acceptor, Initiator

    initiator, acceptor = Initiator(ticket), Acceptor(keytab)
    request = initiator.step() or b""
    story.line(
        "client -> service",
        f"AP-REQ, {len(request)} bytes: ticket, authenticator, subkey; asks the service for proof",
    )
    reply = acceptor.step(request) or b""
    story.line(
        "service", f"my key decrypts the ticket: the client is {acceptor.initiator}", style=_PROOF
    )
    story.line(
        "service -> client",
        f"AP-REP, {len(reply)} bytes: the authenticator's time, a subkey of my own",
    )
    initiator.step(reply)
    story.line(
        "client", f"it is the time that I sent: the service is {initiator.acceptor}", style=_PROOF
    )
    story.line("both", ", ".join(flag_names(Flag, initiator.flags)))
    story.line(
        "both",
        f"key of {etype_name(initiator.etype)}, until {initiator.endtime:%Y-%m-%d %H:%M:%SZ}",
    )
    return initiator, acceptor


def _exchange(story: _Story, initiator: Initiator, acceptor: Acceptor) -> None:
    message = b"a message worth protecting"
    mic = initiator.get_mic(message)
    acceptor.verify_mic(message, mic)
    story.line(
        "client -> service",
        f"{len(message)} bytes and their signature (MIC), {len(mic)} bytes: genuine",
    )
    token = acceptor.wrap(message)
    initiator.unwrap(token)
    story.line(
        "service -> client",
        f"{len(message)} bytes sealed as {len(token)}: opened, genuine, in sequence",
    )


def _talk(
    story: _Story, realm: Realm, alice: Credential, target: str, address: tuple[str, int]
) -> None:
    import purekrb

    with purekrb.connect(address, target, alice, config=realm.config) as channel:
        message = bytes(100_000)
        channel.send(message)
        answer = channel.recv() or b""
        story.line(
            "client -> service",
            f"over TCP: {len(message)} bytes sealed; {len(answer)} bytes came back sealed",
        )


def _meet_impostors(story: _Story, ticket: ServiceTicket, keytab: Keytab) -> bool:
    """Return whether the client refuses each answer that a service without the key can give."""
    from purekrb import Acceptor, Initiator, Keytab, KeytabEntry, crypto

    own_keys = [
        KeytabEntry(e.principal, e.kvno, crypto.random_key(e.key.etype), e.timestamp)
        for e in keytab
    ]
    answers = {}
    try:
        Acceptor(Keytab(own_keys)).step(Initiator(ticket).step())
    except ApError as error:
        story.line("impostor", f"cannot read the AP-REQ: {error}")
        answers["a KRB-ERROR"] = error.response or b""
    answers["an AP-REP recorded from the real service"] = (
        Acceptor(keytab).step(Initiator(ticket).step()) or b""
    )
    answers["an AP-REP made with a key of its own"] = _made_up(ticket)
    for what, answer in answers.items():
        story.line("impostor -> client", f"{what}, {len(answer)} bytes")
        context = Initiator(ticket)
        context.step()
        try:
            context.step(answer)
        except KerberosError as error:
            story.line("client", f"refuses it: {error}", style=_PROOF)
        if context.established:
            return False
    return len(answers) == 3


def _made_up(ticket: ServiceTicket) -> bytes:
    """Return an AP-REP made without the session key: well-formed, with a guess at the time."""
    from purekrb import crypto
    from purekrb.constants import KeyUsage, MessageType
    from purekrb.gss.framing import TOK_AP_REP, frame
    from purekrb.messages.ap import ApRep, EncApRepPart, EncryptedData
    from purekrb.system import now

    key, guess = crypto.random_key(ticket.session_key.etype), now()
    part = EncApRepPart(
        ctime=guess.replace(microsecond=0), cusec=guess.microsecond, subkey=None, seq_number=1
    )
    cipher = crypto.encrypt(key, KeyUsage.AP_REP_ENC_PART, part.encode())
    return frame(
        TOK_AP_REP, ApRep(5, MessageType.AP_REP, EncryptedData(key.etype, None, cipher)).encode()
    )
