"""dnsmasq on a free port of loopback, which knows the records of a test and asks nobody else."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dns.resolver

from support.peers import Daemon, find_program, on_free_port

__all__ = ["dnsmasq", "srv", "uri"]

_URI = 256


def uri(name: str, priority: int, weight: int, target: str) -> str:
    """Return the option for a URI record."""
    data = struct.pack(">HH", priority, weight) + target.encode()
    return f"--dns-rr={name},{_URI},{data.hex()}"


def srv(name: str, host: str, port: int) -> str:
    """Return the option for an SRV record."""
    return f"--srv-host={name},{host},{port}"


@contextmanager
def dnsmasq(directory: Path, records: Sequence[str]) -> Iterator[dns.resolver.Resolver]:
    """Run dnsmasq with these options for records; yield the resolver that asks it alone."""
    program = find_program("dnsmasq", "dnsmasq-base")

    def start(port: int) -> tuple[Daemon, int]:
        argv = [
            *(program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"),
            *("--no-hosts", "--no-daemon", f"--port={port}", "--listen-address=127.0.0.1"),
            *("--bind-interfaces", "--user=", "--pid-file", "--local=/test/", *records),
        ]
        return Daemon(argv, env=os.environ, log=directory / "dnsmasq.log", port=port), port

    daemon, port = on_free_port(start)
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], port
    try:
        yield resolver
    finally:
        daemon.stop()
