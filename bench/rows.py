"""What is measured: each function yields rows of one group."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from bench.lab import PASSWORD, USER, Lab
from bench.limit import Limit
from bench.timing import Contender, Row, measure
from purekrb import Credential, KdcClient

__all__ = ["messages", "contexts", "tickets", "imports", "OURS", "MIT", "LIMIT"]

OURS, MIT, LIMIT = "purekrb", "MIT", "limit"
SIZES = {"64 B": 64, "1 KiB": 1024, "16 KiB": 16384, "64 KiB": 65536, "1 MiB": 1 << 20}


def messages(lab: Lab, seconds: float) -> Iterator[Row]:
    """Per-message calls of established contexts. Tokens to open come from the other implementation's peer."""
    for etype in lab.etypes:
        ours, our_peer = lab.our_pair(etype)
        theirs, their_peer = lab.mit_pair(etype)
        for label, size in SIZES.items():
            data = os.urandom(size)
            limit = Limit(etype, size)
            pairs: dict[str, tuple[Contender, Contender, Callable[[], None]]] = {
                "wrap sealed": (_repeat(OURS, ours.wrap, data), _repeat(MIT, theirs.wrap, data, True), limit.seal),
                "wrap signed": (
                    _repeat(OURS, ours.wrap, data, False),
                    _repeat(MIT, theirs.wrap, data, False),
                    limit.sign,
                ),
                "get_mic": (_repeat(OURS, ours.get_mic, data), _repeat(MIT, theirs.get_signature, data), limit.sign),
            }
            for work, contenders in pairs.items():
                yield _row(f"etype {etype}", f"{work} {label}", contenders, seconds)
            # The receivers want every number once and in order, so each work has contexts of its own.
            yield _row(f"etype {etype}", f"unwrap sealed {label}", _unwraps(lab, etype, data, True, limit.open), seconds)
            yield _row(f"etype {etype}", f"unwrap signed {label}", _unwraps(lab, etype, data, False, limit.sign), seconds)
            yield _row(f"etype {etype}", f"verify_mic {label}", _verifies(lab, etype, data, limit.sign), seconds)


def _row(
    group: str, work: str, contenders: tuple[Contender, Contender, Callable[[], None]], seconds: float
) -> Row:
    ours, theirs, limit = contenders
    return measure(group, work, (ours, theirs, _repeat(LIMIT, limit)), seconds)


def _repeat(name: str, call: Callable[..., object], *arguments: object) -> Contender:
    def make(n: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(n):
                call(*arguments)

        return run

    return Contender(name, make)


def _each(name: str, produce: Callable[[], object], consume: Callable[..., object]) -> Contender:
    """Time `consume` over what `produce` made beforehand."""

    def make(n: int) -> Callable[[], None]:
        made = [produce() for _ in range(n)]

        def run() -> None:
            for item in made:
                consume(item)

        return run

    return Contender(name, make)


def _unwraps(
    lab: Lab, etype: int, data: bytes, sealed: bool, limit: Callable[[], None]
) -> tuple[Contender, Contender, Callable[[], None]]:
    ours, our_peer = lab.our_pair(etype)
    theirs, their_peer = lab.mit_pair(etype)
    return (
        _each(OURS, lambda: our_peer.wrap(data, sealed), lambda token: ours.unwrap(token, sealed)),
        _each(MIT, lambda: their_peer.wrap(data, sealed).message, theirs.unwrap),
        limit,
    )


def _verifies(
    lab: Lab, etype: int, data: bytes, limit: Callable[[], None]
) -> tuple[Contender, Contender, Callable[[], None]]:
    ours, our_peer = lab.our_pair(etype)
    theirs, their_peer = lab.mit_pair(etype)
    return (
        _each(OURS, lambda: our_peer.get_mic(data), lambda mic: ours.verify_mic(data, mic)),
        _each(MIT, lambda: their_peer.get_signature(data), lambda mic: theirs.verify_signature(data, mic)),
        limit,
    )


def contexts(lab: Lab, seconds: float) -> Iterator[Row]:
    """Initiator step, acceptor step and the check of the AP-REP, the service ticket being at hand."""
    for etype in lab.etypes:
        for ccache in lab.mit_initiate:
            yield measure(
                f"etype {etype}",
                f"context pair (MIT: {ccache} ccache)",
                (_repeat(OURS, lab.our_pair, etype), _repeat(MIT, lab.mit_pair, etype, ccache)),
                seconds,
            )


def tickets(lab: Lab, seconds: float) -> Iterator[Row]:
    """TGT with pre-authentication and a service ticket from the same MIT KDC."""
    gssapi = lab.gssapi
    config = lab.realm.config
    name = gssapi.Name(f"{USER}@{lab.realm.realm}", gssapi.NameType.kerberos_principal)
    service = gssapi.Name("svc-18@localhost", gssapi.NameType.hostbased_service)

    def ours() -> None:
        KdcClient(config).get_ticket(Credential.from_password(f"{USER}@{lab.realm.realm}", PASSWORD), lab.service(18))

    def theirs() -> None:
        acquired = gssapi.raw.acquire_cred_with_password(name, PASSWORD.encode(), usage="initiate")
        gssapi.SecurityContext(name=service, creds=acquired.creds, usage="initiate").step()

    yield measure("tickets", "TGT and service ticket, password", (_single(OURS, ours), _single(MIT, theirs)), seconds)


def _single(name: str, call: Callable[[], object]) -> Contender:
    return Contender(name, lambda _n: call, batched=False)


def imports(_lab: Any, seconds: float) -> Iterator[Row]:
    """Import time in a new interpreter, less that of an empty program."""

    def load(statement: str) -> Contender:
        argv = [sys.executable, "-c", statement]
        return Contender(statement, lambda _n: lambda: subprocess.run(argv, check=True), batched=False)

    statements = (
        "pass",
        "import purekrb",
        "from purekrb import Initiator, Acceptor",
        "from purekrb import KdcClient",
        "import cryptography.hazmat.primitives.ciphers",
        "import gssapi",
    )
    row = measure("import", "import", [load(statement) for statement in statements], seconds)
    yield row
