"""Redis's server on loopback or elsewhere, with a password, with TLS, or as a node of a cluster."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import redis

from support.peers import Daemon, find_program, on_free_port

__all__ = ["RedisServer", "make_cluster"]


class RedisServer:
    """A running redis-server with `settings` (as on its command line), whose files are in `directory`.

    `admin` is a connection without TLS. `wrapper` is what runs the program, such as ip netns exec.
    """

    def __init__(
        self,
        directory: Path,
        *settings: str,
        tls: tuple[Path, Path, Path] | None = None,
        password: str | None = None,
        address: str = "127.0.0.1",
        wrapper: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.address = address
        self._password = password
        program = find_program("redis-server", "redis-server")
        directory.mkdir(exist_ok=True)

        def start(port: int) -> Daemon:
            self.port = port
            lines = [f"bind {address}", f"port {port}", f"dir {directory}", 'save ""', *settings]
            lines.append(f"unixsocket {directory}/socket")
            if password is not None:
                lines.append(f"requirepass {password}")
            configuration = directory / "redis.conf"
            configuration.touch(mode=0o600)
            configuration.write_text("\n".join(lines) + "\n")
            return Daemon(
                [*wrapper, program, str(configuration)],
                env=dict(os.environ),
                log=directory / "log",
                port=None if wrapper else port,
            )

        self._start = start
        self._daemon = on_free_port(start)
        if tls is not None:
            # The port of TLS comes to a running server, so that both ports are free.
            self.tls_port = on_free_port(lambda port: self._offer_tls(port, tls))

    def _offer_tls(self, port: int, tls: tuple[Path, Path, Path]) -> int:
        certificate, key, authority = map(str, tls)
        self.admin.config_set(
            "tls-cert-file", certificate, "tls-key-file", key, "tls-ca-cert-file", authority
        )
        self.admin.config_set("tls-auth-clients", "no")
        self.admin.config_set("tls-port", port)
        return port

    @cached_property
    def admin(self) -> Any:
        """A connection for the test itself."""
        return redis.Redis(unix_socket_path=f"{self.directory}/socket", password=self._password)

    @property
    def url(self) -> str:
        """Its URL without TLS and without a password."""
        return f"redis://{self.address}:{self.port}/0"

    def calls(self) -> dict[str, int]:
        """Return how often each command was called."""
        return {
            name.removeprefix("cmdstat_"): stat["calls"]
            for name, stat in self.admin.info("commandstats").items()
        }

    def stop(self) -> None:
        """Stop it; `start` starts it again, empty, on the same port."""
        self._daemon.stop()

    def start(self) -> None:
        """Start it again."""
        self._daemon = self._start(self.port)


def make_cluster(nodes: Sequence[RedisServer]) -> None:
    """Make a cluster of the nodes, each with an equal part of the slots."""
    argv = [find_program("redis-cli", "redis-tools"), "--cluster", "create"]
    argv += [f"{node.address}:{node.port}" for node in nodes]
    subprocess.run([*argv, "--cluster-yes"], check=True, capture_output=True, timeout=60)
    deadline = time.monotonic() + 30
    while any(node.admin.cluster("info")["cluster_state"] != "ok" for node in nodes):
        assert time.monotonic() < deadline, "the cluster does not come up"
        time.sleep(0.05)
