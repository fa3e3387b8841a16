"""A MIT realm for the benchmarks; tickets and contexts of purekrb and of MIT's library in this process.

`lab()` makes it in a directory, where worker processes find the same tickets with `Lab(directory)`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.timing import Contender
from bench.worker import ROOT, Worker, peer_python
from purekrb import Acceptor, CCache, Config, EncryptionKey, Initiator, Keytab, Principal, crypto
from purekrb.constants import KeyUsage
from purekrb.credentials.ticket import ServiceTicket
from purekrb.messages.ap import EncryptedData, EncTicketPart, Ticket
from purekrb.names import PrincipalName
from purekrb.replay import MemoryReplayCache

__all__ = ["ETYPES", "Lab", "PASSWORD", "REALM", "USER", "lab"]

REALM = "MIT.TEST"
USER, PASSWORD = "bench", "correct horse"
#: The encryption types that are measured, by MIT's names. Each has a service whose tickets hold nothing else.
ETYPES = {18: "aes256-cts-hmac-sha1-96", 20: "aes256-cts-hmac-sha384-192"}
_SESSION_KEY = "1.2.840.113554.1.2.2.5.5"  # GSS_C_INQ_SSPI_SESSION_KEY


class Lab:
    """What the contenders need, from files in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keytab = Keytab.load(str(directory / "service.keytab"))
        self.user_keytab = Keytab.load(str(directory / "user.keytab"))
        self.ccache = CCache.load(str(directory / "ccache"))
        self.replay_cache = MemoryReplayCache(50_000_000)
        self._workers: dict[str, Worker | None] = {}

    @cached_property
    def config(self) -> Config:
        """The realm as purekrb's configuration."""
        return Config.from_file(str(self.krb5_conf(18)))

    def krb5_conf(self, etype: int) -> Path:
        """Return the configuration that permits this etype alone: MIT's acceptor subkey is of the first permitted."""
        return self.directory / f"krb5-{etype}.conf"

    @staticmethod
    def service(etype: int) -> str:
        """Return the name of the service whose key and session keys have that etype."""
        return f"svc-{etype}/localhost"

    def ticket(self, etype: int) -> ServiceTicket:
        """Return the service ticket that MIT's programs fetched."""
        return next(
            ticket for ticket in self.ccache if str(ticket.service).startswith(self.service(etype))
        )

    def service_key(self, etype: int) -> EncryptionKey:
        """Return the service's key."""
        return next(
            entry.key
            for entry in self.keytab
            if str(entry.principal).startswith(self.service(etype))
        )

    def new_tickets(self, etype: int, n: int, client: str = USER) -> list[ServiceTicket]:
        """Return n tickets that nobody has seen before, as a KDC would issue them; `client` may hold a {number}."""
        original = self.ticket(etype)
        service_key = self.service_key(etype)
        outer = Ticket.decode(original.ticket)
        inner = EncTicketPart.decode(
            crypto.decrypt(service_key, KeyUsage.TICKET, outer.enc_part.cipher)
        )
        made = []
        for number in range(n):
            key = crypto.random_key(etype)
            name = PrincipalName((client.format(number=number),), 1)
            part = inner._replace(key=key, cname=name)
            cipher = crypto.encrypt(service_key, KeyUsage.TICKET, part.encode())
            data = EncryptedData(outer.enc_part.etype, outer.enc_part.kvno, cipher)
            ticket = outer._replace(enc_part=data).encode()
            principal = Principal(name.components, REALM)
            made.append(
                # a key of its own, since nothing derived from it may be at hand
                original._replace(
                    client=principal, ticket=ticket, session_key=EncryptionKey(etype, key.contents)
                )
            )
        return made

    def connect(
        self, ticket: ServiceTicket, mechanism: str = "kerberos"
    ) -> tuple[Initiator, Acceptor]:
        """Return two established contexts of ours, every check on."""
        initiator = Initiator(ticket, mechanism=mechanism)
        acceptor = Acceptor(self.keytab, replay_cache=self.replay_cache)
        initiator.step(acceptor.step(initiator.step()))
        if not (initiator.established and acceptor.established):
            raise RuntimeError("our contexts are not established")
        return initiator, acceptor

    def our_pair(self, etype: int, mechanism: str = "kerberos") -> tuple[Initiator, Acceptor]:
        """Return two established contexts of ours with the ticket at hand."""
        return self.connect(self.ticket(etype), mechanism)

    @cached_property
    def mit(self) -> Mit:
        """MIT's library."""
        return Mit(self)

    def peer(self, peer: str, work: str, batch_seconds: float = 0.001) -> list[Contender]:
        """Return what that library needs for `work`, in a process of its own; [] where it is not installed."""
        if peer not in self._workers:
            python = peer_python(peer)
            self._workers[peer] = (
                Worker(python, peer, self._setup(), dict(os.environ)) if python else None
            )
            if python is None:
                print(f"{peer} is left out: run `make bench-peers` first", file=sys.stderr)
        worker = self._workers[peer]
        name = "pyspnego" if peer == "spnego" else peer
        return [Contender(name, worker.batch(work), batch_seconds)] if worker else []

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the peers that were measured in worker processes."""
        return {peer: worker.version for peer, worker in self._workers.items() if worker}

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            if worker:
                worker.close()

    def _setup(self) -> dict[str, Any]:
        ticket = self.ticket(18)
        (user_key,) = (entry.key for entry in self.user_keytab)
        return {
            "realm": REALM,
            "client": USER,
            "user": USER,
            "password": PASSWORD,
            "user_key": user_key.contents.hex(),
            "service": self.service(18),
            "service_key": self.service_key(18).contents.hex(),
            "ticket": ticket.ticket.hex(),
            "session_key": ticket.session_key.contents.hex(),
            "port": _kdc_port(self.krb5_conf(18)),
        }


class Mit:
    """MIT's GSS-API through python-gssapi, without a replay cache."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.use(18)
        import gssapi

        self.gssapi: Any = gssapi
        memory = f"MEMORY:{os.getpid()}"
        source = gssapi.Credentials(usage="initiate")
        source.store({"ccache": memory}, usage="initiate", overwrite=True, set_default=False)
        self.ccaches = {
            "MEMORY": gssapi.Credentials(usage="initiate", store={"ccache": memory}),
            "FILE": source,
        }
        self._accept = gssapi.Credentials(usage="accept")
        flag = gssapi.RequirementFlag
        self._flags = (  # as purekrb's default
            flag.mutual_authentication
            | flag.replay_detection
            | flag.out_of_sequence_detection
            | flag.confidentiality
            | flag.integrity
        )
        self._spnego = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
        self._names = {etype: self.name(etype) for etype in ETYPES}

    def use(self, etype: int) -> None:
        """Permit this etype alone from now on; MIT reads its environment in each call."""
        os.environ["KRB5_CONFIG"] = str(self._lab.krb5_conf(etype))

    def name(self, etype: int) -> Any:
        """Return the service's name."""
        return self.gssapi.Name(f"svc-{etype}@localhost", self.gssapi.NameType.hostbased_service)

    def connect(
        self, etype: int, ccache: str = "MEMORY", *, spnego: bool = False
    ) -> tuple[Any, Any]:
        """Return two established contexts. `use(etype)` comes first."""
        context, credentials = self.gssapi.SecurityContext, self.ccaches[ccache]
        mech = self._spnego if spnego else None
        initiator = context(
            name=self._names[etype],
            creds=credentials,
            mech=mech,
            usage="initiate",
            flags=self._flags,
        )
        acceptor = context(creds=self._accept, usage="accept")
        initiator.step(acceptor.step(initiator.step()))
        if not (initiator.complete and acceptor.complete):
            raise RuntimeError("MIT's contexts are not established")
        return initiator, acceptor

    def pair(self, etype: int) -> tuple[Any, Any]:
        """Return two established contexts whose messages are protected with this etype, which is made sure of."""
        self.use(etype)
        initiator, acceptor = self.connect(etype)
        oid = self.gssapi.OID.from_int_seq(_SESSION_KEY)
        _, used = self.gssapi.raw.inquire_sec_context_by_oid(initiator, oid)
        number = self.gssapi.OID(elements=used).dotted_form.rsplit(".", 1)[1]
        if int(number) != etype:
            raise RuntimeError(f"MIT's context uses etype {number} instead of {etype}")
        return initiator, acceptor


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Start the realm, fetch the tickets with MIT's programs, and stop everything at the end."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.mit import MitRealm

    with tempfile.TemporaryDirectory(prefix="purekrb-bench-") as name:
        directory = Path(name)
        realm = MitRealm(directory)
        try:
            # Everyone uses etype 18 with the KDC: impacket knows no newer one, and the password's PBKDF2 differs.
            realm.kadmin(f"cpw -randkey -e {ETYPES[18]}:normal krbtgt/{REALM}@{REALM}")
            realm.addprinc(USER, PASSWORD, etypes=(18,), flags="+requires_preauth")
            realm.keytab(USER).rename(directory / "user.keytab")
            services = [Lab.service(etype) for etype in ETYPES]
            realm.kinit(USER, PASSWORD, services=services).rename(directory / "ccache")
            original = realm.krb5_conf.read_text().splitlines(keepends=True)
            for etype, enctype in ETYPES.items():
                lines = [
                    f" permitted_enctypes = {enctype}\n" if "permitted_enctypes" in line else line
                    for line in original
                ]
                (directory / f"krb5-{etype}.conf").write_text("".join(lines))
            os.environ.update(
                KRB5_CONFIG=str(directory / "krb5-18.conf"),
                KRB5CCNAME=f"FILE:{directory / 'ccache'}",
                KRB5_KTNAME=str(directory / "service.keytab"),
                KRB5RCACHENAME="none:",
                LC_ALL="C",
            )
            peers = Lab(directory)
            try:
                yield peers
            finally:
                peers.close()
        finally:
            realm.stop()


def _kdc_port(krb5_conf: Path) -> int:
    """Return the port of the first realm's KDC."""
    kdc = next(
        line for line in krb5_conf.read_text().splitlines() if line.strip().startswith("kdc =")
    )
    return int(kdc.rsplit(":", 1)[1])
