"""Record exchanges between purekrb and other implementations into vectors/recorded/.

    make record                                   installs what is needed, then runs this
    PYTHONPATH=tests python -m record             the same, where everything is installed

For each encryption type: an AS exchange with pre-authentication, a TGS exchange, a context that purekrb initiates and
one that MIT initiates, each with sealed, signed and MIC tokens both ways. MIT's KDC and its GSS-API are started for it
on loopback, with new keys. Then contexts with tokens in pieces, also in DCE style, and contexts by SPNEGO with MIT
(also with a client that prefers NTLM), Heimdal, Java and pyspnego, in both roles, and with the programs curl,
gss-client and gss-server. Needed anew only when purekrb's own messages change, for instance the order in which it draws
random bytes: tests/exchange/test_recorded.py, which replays the files without MIT, then says so.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from purekrb import (
    Acceptor,
    Credential,
    Flag,
    Initiator,
    KdcClient,
    Keytab,
    Principal,
    ServiceTicket,
)
from purekrb.exchanges.runner import KdcRequest
from purekrb.kdc.locate import Locator
from support import gss_samples, mit, recordings
from support.asking import send
from support.gss_peer import GssPeer, PeerContext
from support.gss_samples import (
    ENCRYPTED,
    SEND_MIC,
    WRAPPED,
    GssServer,
    SampleService,
    run_gss_client,
)
from support.heimdal import start_heimdal_peer
from support.iov import layout, message_of
from support.java import start_java_peer
from support.mit import MitRealm
from support.ntlm import start_ntlm_peer
from support.peers import find_program, run
from support.pyspnego import pyspnego_peer
from support.recordings import RECORDED, Entry, LiveTape
from support.web import curl, web_server

CLIENT = "pre"  # has to pre-authenticate
#: A message without data, one of a single block that is not full, one of several blocks.
DATA = (b"", b"fifteen bytes..", bytes(range(100)))
RC4 = 23
_SUPPORT = Path(mit.__file__).parent


class Overheard:
    """Our end of a context, in the hands of whoever talks to a program; keeps in `entry` all that passes."""

    def __init__(self, entry: Entry, ours: Initiator | Acceptor) -> None:
        self._entry, self._ours = entry, ours
        self._theirs = "acceptor" if entry["kind"] == "initiator" else "initiator"
        entry["messages"] = []

    @property
    def established(self) -> bool:
        return self._ours.established

    @property
    def initiator(self) -> Principal | None:
        return self._ours.initiator

    def step(self, token: bytes | None = None) -> bytes | None:
        if token is not None:
            self._entry["received"].append(token)
        answer = self._ours.step(token)
        if answer is not None:
            self._entry["sent"].append(answer)
        return answer

    def wrap(self, data: bytes, *, sealed: bool) -> bytes:
        return self._keep(
            self._entry["kind"], _protection(sealed), data, self._ours.wrap(data, sealed=sealed)
        )

    def get_mic(self, data: bytes) -> bytes:
        return self._keep(self._entry["kind"], "mic", data, self._ours.get_mic(data))

    def unwrap(self, token: bytes, *, sealed: bool) -> bytes:
        data = self._ours.unwrap(token, sealed=sealed)
        self._keep(self._theirs, _protection(sealed), data, token)
        return data

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        self._ours.verify_mic(data, mic)
        self._keep(self._theirs, "mic", data, mic)

    def _keep(self, by: str, protection: str, data: bytes, token: bytes) -> bytes:
        self._entry["messages"].append(
            {"by": by, "protection": protection, "data": data, "token": token}
        )
        return token


def _protection(sealed: bool) -> str:
    return "sealed" if sealed else "signed"


class Recorder:
    """Takes part in exchanges with one MIT realm and keeps what was said."""

    def __init__(self, realm: MitRealm, gss: GssPeer) -> None:
        self.realm = realm
        self.gss = gss
        self.locator = Locator(realm.config)
        self.tgs_keytab = Keytab.load(realm.keytab(f"krbtgt/{realm.realm}"))
        # A web server's name, which has keys of all types in this realm, with one only, as svc-18 has.
        realm.kadmin(
            f"cpw -randkey -e {realm.etypes[18]}:normal HTTP/localhost",
            f"ktadd -norandkey -k {realm.service_keytab} HTTP/localhost",
        )
        self.service_keytab = Keytab.load(realm.service_keytab)
        self.user = Credential.from_password(f"user@{realm.realm}", realm.passwords["user"])
        release = run(
            [find_program("krb5-config", "libkrb5-dev"), "--version"], env=realm.env
        ).split()[-1]
        self.mit_name = f"MIT krb5 {release}"
        self.kdc_name = f"{self.mit_name} krb5kdc"
        self.gss_name = f"{self.mit_name} GSS-API (python-gssapi {version('gssapi')})"

    def record(self, etype: int) -> list[Entry]:
        """Return the entries of one encryption type."""
        service = f"svc-{etype}/localhost@{self.realm.realm}"
        client = f"{CLIENT}@{self.realm.realm}"
        password = self.realm.passwords[CLIENT]

        tgt_entry, tape = self._begin("AS", self.kdc_name, etype)
        tgt_entry |= {"client": client, "password": password}
        tgt = recordings.get_tgt(tgt_entry, tape, self._keep(tgt_entry))
        reply_key = Credential.from_password(client, password).key_for(
            etype, f"{self.realm.realm}{CLIENT}".encode()
        )
        assert reply_key is not None
        tgt_entry |= {"reply_key": reply_key.contents, "ticket": self._ticket(tgt, self.tgs_keytab)}
        self._end(tgt_entry, tape)

        ticket_entry, tape = self._begin("TGS", self.kdc_name, etype)
        ticket_entry |= {"tgt": tgt_entry["ticket"], "service": service}
        ticket = recordings.get_service_ticket(ticket_entry, tape, self._keep(ticket_entry))
        ticket_entry |= {"ticket": self._ticket(ticket, self.service_keytab)}
        self._end(ticket_entry, tape)

        ours, tape = self._begin("initiator", self.gss_name, etype)
        ours |= {"ticket": ticket_entry["ticket"]}
        initiator = recordings.initiate(ours, tape)
        peer = self.gss.accept(self.realm.service_keytab)
        ours["sent"].append(initiator.step())
        ours["received"].append(peer.step(ours["sent"][0]))
        initiator.step(ours["received"][0])
        self._converse(ours, initiator, peer)
        self._end(ours, tape)

        peer = self.gss.initiate(f"svc-{etype}@localhost", self.realm.kinit(CLIENT))
        theirs, tape = self._begin("acceptor", self.gss_name, etype)
        theirs |= {
            "client": client,
            "service": service,
            "service_key": self._service_key(ticket, self.service_keytab),
        }
        acceptor = recordings.accept(theirs, tape)
        theirs["received"].append(peer.step())
        theirs["sent"].append(acceptor.step(theirs["received"][0]))
        peer.step(theirs["sent"][0])
        self._converse(theirs, acceptor, peer)
        self._end(theirs, tape)
        return [tgt_entry, ticket_entry, ours, theirs]

    def negotiate(self, kind: str, name: str, peer: Any) -> Entry:
        """Return the entry of a context by SPNEGO in which purekrb is the `kind` and `peer` the other end."""
        entry, ours = self._context(kind, name, peer, 18, mechanism="negotiate")
        self._converse(entry, ours, peer)
        return entry

    def overhear(self, kind: str, name: str, service: str, talk: Callable[[Any], object]) -> Entry:
        """Return the entry of a context by SPNEGO whose tokens `talk` carries between our end and a program."""
        entry, ours = self._ours(kind, name, service, 18, mechanism="negotiate")
        talk(Overheard(entry, ours))
        return entry

    def pieces(self, kind: str, etype: int, flags: Flag) -> Entry:
        """Return the entry of a context with MIT in which purekrb is the `kind` and messages are tokens in pieces."""
        if kind == "initiator":
            peer = self.gss.accept(self.realm.service_keytab)
        else:
            peer = self.gss.initiate(
                f"svc-{etype}@localhost", self.realm.kinit("user"), flags=flags
            )
        entry, ours = self._context(kind, self.gss_name, peer, etype, flags=int(flags))
        self._converse_in_pieces(entry, ours, peer)
        return entry

    def _context(
        self, kind: str, name: str, peer: Any, etype: int, **how: Any
    ) -> tuple[Entry, Initiator | Acceptor]:
        """Return the entry of a handshake of any number of legs, and our end."""
        entry, ours = self._ours(kind, name, f"svc-{etype}/localhost", etype, **how)
        if isinstance(ours, Initiator):
            entry["sent"].append(ours.step())
        while (token := peer.step(entry["sent"][-1] if entry["sent"] else None)) is not None:
            entry["received"].append(token)
            answer = ours.step(token)
            if answer is None:
                break
            entry["sent"].append(answer)
        return entry, ours

    def _ours(
        self, kind: str, name: str, service: str, etype: int, **how: Any
    ) -> tuple[Entry, Initiator | Acceptor]:
        """Return the entry of a handshake that is to come, and our end."""
        ticket = KdcClient(self.realm.config).get_ticket(self.user, service)
        entry, tape = self._begin(kind, name, etype)
        entry |= how
        ours: Initiator | Acceptor
        if kind == "initiator":
            entry |= {"ticket": self._ticket(ticket, self.service_keytab)}
            ours = recordings.initiate(entry, tape)
        else:
            service_key = self._service_key(ticket, self.service_keytab)
            entry |= {
                "client": str(ticket.client),
                "service": str(ticket.service),
                "service_key": service_key,
            }
            ours = recordings.accept(entry, tape)
        entry["random"] = tape.drawn  # the very list that still grows
        return entry, ours

    def _begin(self, kind: str, peer: str, etype: int) -> tuple[Entry, LiveTape]:
        now = datetime.now(timezone.utc)
        entry: Entry = {
            "source": f"recorded from {peer} on {now:%Y-%m-%d}",
            "kind": kind,
            "etype": etype,
            "time": now,
            "sent": [],
            "received": [],
        }
        return entry, LiveTape(now)

    @staticmethod
    def _end(entry: Entry, tape: LiveTape) -> None:
        entry["random"] = tape.drawn
        entry |= recordings.opened(entry)

    def _keep(self, entry: Entry) -> recordings.Send:
        """Return what sends requests to MIT's KDC and keeps both sides' messages in `entry`."""

        def keep(request: KdcRequest) -> bytes:
            entry["sent"].append(request.message)
            entry["received"].append(
                send(self.locator, request.realm, request.message, time.monotonic() + 10)
            )
            return entry["received"][-1]  # type: ignore[no-any-return]

        return keep

    def _service_key(self, ticket: ServiceTicket, keytab: Keytab) -> Entry:
        key = keytab.find(ticket.service)
        etype, kvno = recordings.encrypted_with(ticket.ticket)
        found = next(entry for entry in key if (entry.key.etype, entry.kvno) == (etype, kvno))
        return {"etype": etype, "kvno": kvno, "key": found.key.contents}

    def _ticket(self, ticket: ServiceTicket, keytab: Keytab) -> Entry:
        return recordings.ticket_to_entry(ticket, self._service_key(ticket, keytab))

    @staticmethod
    def _converse(entry: Entry, ours: Initiator | Acceptor, theirs: PeerContext) -> None:
        """Exchange tokens of every kind both ways; both sides check what they get."""
        messages: list[Entry] = []
        peer_kind = "acceptor" if entry["kind"] == "initiator" else "initiator"
        for protection in (
            ("sealed", "signed") if entry["etype"] == RC4 else ("sealed", "signed", "mic")
        ):
            sealed = protection == "sealed"
            for data in DATA:
                mine: Entry = {"by": entry["kind"], "protection": protection, "data": data}
                mine["token"] = recordings.send_message(ours, mine)
                if protection == "mic":
                    theirs.verify_mic(data, mine["token"])
                elif theirs.unwrap(mine["token"]) != (data, sealed):
                    raise RuntimeError("MIT reads something else than was sent")
                yours: Entry = {"by": peer_kind, "protection": protection, "data": data}
                yours["token"] = (
                    theirs.get_mic(data)
                    if protection == "mic"
                    else theirs.wrap(data, sealed=sealed)
                )
                recordings.read_message(ours, yours)
                messages += [mine, yours]
        entry["messages"] = messages

    @staticmethod
    def _converse_in_pieces(entry: Entry, ours: Initiator | Acceptor, theirs: PeerContext) -> None:
        """Exchange tokens of each layout both ways; both sides check what they get."""
        messages: list[Entry] = []
        peer_kind = "acceptor" if entry["kind"] == "initiator" else "initiator"
        for protection in ("sealed", "signed"):
            sealed = protection == "sealed"
            for letters in ("HD", "HDDT", "HSDS", "DSHDPT", "HS"):
                given = layout(letters, 21)
                mine = ours.wrap_iov(given, sealed)
                if message_of(theirs.unwrap_iov(mine)[0]) != message_of(given):
                    raise RuntimeError("MIT reads something else than was sent")
                yours = theirs.wrap_iov(given, sealed=sealed)
                if message_of(ours.unwrap_iov(yours, sealed)) != message_of(given):
                    raise RuntimeError("purekrb reads something else than MIT sent")
                for by, pieces in ((entry["kind"], mine), (peer_kind, yours)):
                    plain = [
                        [[int(kind), data] for kind, data in buffers] for buffers in (given, pieces)
                    ]
                    messages.append(
                        {"by": by, "protection": protection, "given": plain[0], "pieces": plain[1]}
                    )
        entry["messages"] = messages


def record_negotiations(recorder: Recorder, directory: Path) -> Iterator[Entry]:
    """Yield the entries of contexts by SPNEGO, with each peer in both roles."""
    realm, service = recorder.realm, "svc-18"
    heimdal = run(
        [find_program("krb5-config.heimdal", "heimdal-multidev"), "--version"], env=realm.env
    ).split()[1]
    java = run([find_program("java", "default-jdk-headless"), "--version"], env=realm.env).split()[
        1
    ]
    peers = {
        recorder.gss_name: recorder.gss,
        f"Heimdal {heimdal} GSS-API": start_heimdal_peer(directory, realm.krb5_conf),
        f"Java {java} GSS-API": start_java_peer(directory, realm.krb5_conf),
    }
    for name, gss in peers.items():
        target, ccache = f"{service}@localhost", realm.kinit("user")
        yield recorder.negotiate(
            "initiator", name, gss.accept(realm.service_keytab, mechanism="negotiate")
        )
        yield recorder.negotiate(
            "acceptor", name, gss.initiate(target, ccache, mechanism="negotiate")
        )
    ntlm = start_ntlm_peer(realm)
    peer = ntlm.initiate(f"{service}@localhost", realm.kinit("user"), mechanism="ntlm-first")
    yield recorder.negotiate(
        "acceptor", f"{recorder.gss_name} with gss-ntlmssp, NTLM preferred", peer
    )
    name = f"pyspnego {version('pyspnego')} with {recorder.gss_name}"
    for kind in ("initiator", "acceptor"):
        with pyspnego_peer(realm, initiates=kind == "acceptor", service=service) as context:
            yield recorder.negotiate(kind, name, context)
    for gss in (*list(peers.values())[1:], ntlm):
        gss.stop()


def record_programs(recorder: Recorder) -> Iterator[Entry]:
    """Yield the entries of contexts by SPNEGO with programs, each in the one role that it has."""
    realm, service = recorder.realm, "svc-18"

    def with_curl(ours: Any) -> None:
        with web_server(lambda: ours) as url:
            if curl(realm, url, "--negotiate", "-u", ":") != f"user@{realm.realm} 200":
                raise RuntimeError("curl was not let in")

    def with_gss_client(ours: Any) -> None:
        options = ("-spnego", "-seq", "-mcount", "3")
        run_gss_client(
            realm,
            SampleService(ours),
            *options,
            "127.0.0.1",
            f"{service}@localhost",
            "from gss-client",
        )

    def with_gss_server(ours: Any) -> None:
        server = GssServer(realm, f"{service}@localhost")
        try:
            with server.connect(ours) as connection:
                for kind in (WRAPPED | ENCRYPTED, WRAPPED):
                    for data in DATA[1:]:  # an empty one ends gss-server
                        token = ours.wrap(data, sealed=bool(kind & ENCRYPTED))
                        gss_samples.send(connection, gss_samples.DATA | kind | SEND_MIC, token)
                        ours.verify_mic(data, gss_samples.receive(connection)[1])
                gss_samples.send(connection, gss_samples.NOOP)
        finally:
            server.stop()

    release = run([find_program("curl", "curl"), "--version"], env=realm.env).split()[1]
    curl_name = f"curl {release} with {recorder.mit_name} GSS-API"
    yield recorder.overhear("acceptor", curl_name, "HTTP/localhost", with_curl)
    yield recorder.overhear(
        "acceptor", f"gss-client of {recorder.mit_name}", f"{service}/localhost", with_gss_client
    )
    yield recorder.overhear(
        "initiator", f"gss-server of {recorder.mit_name}", f"{service}/localhost", with_gss_server
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="purekrb-record-") as name:
        directory = Path(name)
        realm = MitRealm(directory)
        peer_argv = [sys.executable, str(_SUPPORT / "gssapi_peer.py")]
        gss = GssPeer("MIT", peer_argv, env=realm.env, log=directory / "gssapi.log")
        try:
            recorder = Recorder(realm, gss)
            RECORDED.mkdir(parents=True, exist_ok=True)
            for etype, etype_name in realm.etypes.items():
                file = RECORDED / f"mit-etype-{etype}.json"
                about = f"Exchanges with MIT Kerberos, {etype_name}; vectors/README.md says what the fields mean."
                recordings.save(file, about, recorder.record(etype))
                print(
                    f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}"
                )
            for etype in (17, 18, 19, 20):
                file = RECORDED / f"pieces-etype-{etype}.json"
                about = f"Tokens in pieces, {realm.etypes[etype]}; vectors/README.md says what the fields mean."
                styles = (Flag.DEFAULT, Flag.DEFAULT | Flag.DCE_STYLE)
                kinds = ("initiator", "acceptor")
                entries = [
                    recorder.pieces(kind, etype, flags) for flags in styles for kind in kinds
                ]
                recordings.save(file, about, entries)
                print(file)
            file = RECORDED / "negotiate-etype-18.json"
            about = "Contexts by SPNEGO, aes256-cts-hmac-sha1-96; vectors/README.md says what the fields mean."
            recordings.save(
                file, about, [*record_negotiations(recorder, directory), *record_programs(recorder)]
            )
            print(file)
        finally:
            gss.stop()
            realm.stop()


if __name__ == "__main__":
    main()
