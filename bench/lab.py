"""A MIT realm for the benchmarks, and contexts of both implementations in this process."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.mit import MitRealm  # noqa: E402

from purekrb import Acceptor, CCache, Initiator, Keytab  # noqa: E402
from purekrb.replay import MemoryReplayCache  # noqa: E402

__all__ = ["Lab", "lab"]

USER, PASSWORD = "pre", "prepw"


class Lab:
    """Tickets for the service of each etype, and pairs of established contexts."""

    def __init__(self, realm: MitRealm) -> None:
        self.realm = realm
        self.keytab = Keytab.load(str(realm.service_keytab))
        self.etypes = (18, 20)
        ccache = realm.kinit(USER, services=[self.service(etype) for etype in self.etypes])
        self.ccache = CCache.load(str(ccache))
        # MIT's library reads its environment when it is first used, so this comes before the import.
        os.environ.update({name: value for name, value in realm.env.items() if name.startswith("KRB5")})
        os.environ.update(
            KRB5CCNAME=f"FILE:{ccache}", KRB5_KTNAME=str(realm.service_keytab), KRB5RCACHENAME="none:"
        )
        import gssapi

        self.gssapi: Any = gssapi
        memory = f"MEMORY:{os.getpid()}"
        source = gssapi.Credentials(usage="initiate")
        source.store({"ccache": memory}, usage="initiate", overwrite=True, set_default=False)
        self.mit_initiate = {
            "FILE": source,
            "MEMORY": gssapi.Credentials(usage="initiate", store={"ccache": memory}),
        }
        self.mit_accept = gssapi.Credentials(usage="accept")
        self.replay_cache = MemoryReplayCache(10_000_000)

    @staticmethod
    def service(etype: int) -> str:
        """Return the name of the service whose key has that etype alone."""
        return f"svc-{etype}/localhost"

    def ticket(self, etype: int) -> Any:
        """Return our copy of the service ticket."""
        for ticket in self.ccache:
            if ticket.service.components[0] == f"svc-{etype}":
                return ticket
        raise LookupError(etype)

    def our_pair(self, etype: int) -> tuple[Initiator, Acceptor]:
        """Return two established contexts of ours, every check on."""
        initiator = Initiator(self.ticket(etype))
        acceptor = Acceptor(self.keytab, replay_cache=self.replay_cache)
        initiator.step(acceptor.step(initiator.step()))
        return initiator, acceptor

    def mit_pair(self, etype: int, ccache: str = "MEMORY") -> tuple[Any, Any]:
        """Return two established contexts of MIT's library through python-gssapi."""
        gssapi = self.gssapi
        name = gssapi.Name(f"svc-{etype}@localhost", gssapi.NameType.hostbased_service)
        flag = gssapi.RequirementFlag
        flags = (
            flag.mutual_authentication
            | flag.replay_detection
            | flag.out_of_sequence_detection
            | flag.confidentiality
            | flag.integrity
        )
        initiator = gssapi.SecurityContext(name=name, creds=self.mit_initiate[ccache], usage="initiate", flags=flags)
        acceptor = gssapi.SecurityContext(creds=self.mit_accept, usage="accept")
        initiator.step(acceptor.step(initiator.step()))
        if not (initiator.complete and acceptor.complete):
            raise RuntimeError("MIT's contexts are not established")
        return initiator, acceptor


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Start the realm, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="purekrb-bench-") as directory:
        realm = MitRealm(Path(directory))
        try:
            yield Lab(realm)
        finally:
            realm.stop()
