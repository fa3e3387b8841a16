"""Worker: pyspnego with its Kerberos provider, which is python-gssapi over MIT's library."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import spnego

from bench.timing import Batch, repeat
from bench.worker import serve


def start(setup: dict[str, Any]) -> tuple[str, Any]:
    service, host = setup["service"].split("/")

    def pair() -> None:
        initiator = spnego.client(hostname=host, service=service, protocol="kerberos")
        acceptor = spnego.server(hostname=host, service=service, protocol="kerberos")
        initiator.step(acceptor.step(initiator.step()))
        if not (initiator.complete and acceptor.complete):
            raise RuntimeError("not established")

    cases: dict[str, Batch] = {"context pair": repeat(pair)}
    return importlib.metadata.version("pyspnego"), cases.__getitem__


serve(start)
