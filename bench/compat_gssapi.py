"""purekrb.compat.gssapi against python-gssapi: the same program on both modules, in one process, in turns.

python -m bench.compat_gssapi

The tickets are in a file, the keys in a keytab, and both use the replay cache that KRB5RCACHENAME names: a file of
MIT's format of their own by default.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import gssapi

import purekrb.compat.gssapi as pure
from bench.lab import Lab, lab
from bench.timing import Batch, Contender, Row, each, measure, repeat

#: What is measured -> the goal: our time divided by python-gssapi's.
GOALS = {"context pair": 0.7, "wrap 1 KiB": 0.5, "unwrap 1 KiB": 0.5, "MIC of 1 KiB": 0.5}
_SECONDS, _ROUNDS = 4.0, 100
#: As long as a time slice: right after the other module's turn, the processor's caches hold its code.
_BATCH = 0.01
_SERVICE = "svc-18@localhost"


class Program:
    """What a program does with a module of this interface."""

    def __init__(self, module: ModuleType) -> None:
        self._m: Any = module
        self._name = module.Name(_SERVICE, module.NameType.hostbased_service)
        self._client = module.Credentials(usage="initiate")
        self._server = module.Credentials(usage="accept", name=self._name)
        self.initiator, self.acceptor = self.pair()
        self._data = os.urandom(1024)

    def pair(self) -> tuple[Any, Any]:
        """Return both ends of a new context."""
        initiator = self._m.SecurityContext(name=self._name, creds=self._client, usage="initiate")
        acceptor = self._m.SecurityContext(creds=self._server, usage="accept")
        initiator.step(acceptor.step(initiator.step()))
        return initiator, acceptor

    def batches(self) -> dict[str, Batch]:
        """Return what is measured."""
        data = self._data
        other_initiator, other_acceptor = self.pair()
        return {
            "context pair": repeat(self.pair),
            "wrap 1 KiB": repeat(self.initiator.wrap, data, True),
            "unwrap 1 KiB": each(
                lambda: other_initiator.wrap(data, True).message, other_acceptor.unwrap
            ),
            "MIC of 1 KiB": repeat(self.initiator.get_signature, data),
        }


def main() -> None:
    """Measure in turns, and print the medians and their ratios."""
    with lab() as realm:
        _use(realm)
        programs = {name: Program(module).batches() for name, module in _MODULES.items()}
        for work, goal in GOALS.items():
            contenders = [
                Contender(name, batches[work], _BATCH) for name, batches in programs.items()
            ]
            row = measure(Row("compat", work), contenders, _SECONDS, _ROUNDS)
            ours, theirs = (statistics.median(row.samples[name]) * 1e6 for name in _MODULES)
            ratio = ours / theirs
            verdict = "within" if ratio <= goal else "ABOVE"
            print(
                f"{work}: {ours:.1f} us, python-gssapi {theirs:.1f} us: {ratio:.2f} ({verdict} {goal})"
            )


#: As the caller has set it; the realm of the benchmarks sets its own.
RCACHE = os.environ.get("KRB5RCACHENAME")
_MODULES = {"purekrb": pure, "python-gssapi": gssapi}


def _use(realm: Lab) -> None:
    directory: Path = realm.directory
    os.environ.update(
        KRB5_CONFIG=str(realm.krb5_conf(18)),
        KRB5CCNAME=f"FILE:{directory}/ccache",
        KRB5_KTNAME=f"FILE:{directory}/service.keytab",
    )
    os.environ["KRB5RCACHENAME"] = RCACHE or f"file2:{directory}/rcache2"


if __name__ == "__main__":
    main()
