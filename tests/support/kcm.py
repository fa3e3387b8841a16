"""The daemons that keep KCM caches: Heimdal's kcm (unpacked in .lab/heimdal) and sssd's, one at a time.

Both listen at one path, whatever they are told. So the tests of a machine take turns, and do not start where a daemon
of the machine itself answers. sssd's ends with its parent, and keeps its tickets in files: they are destroyed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb.io import local
from support.peers import Daemon, missing_peer

__all__ = ["KINDS", "SOCKET", "kcm_daemon"]

SOCKET = Path("/var/run/.heim_org.h5l.kcm-socket")
KINDS = ("heimdal", "sssd")
_HEIMDAL = Path(__file__).parents[2] / ".lab" / "heimdal" / "usr" / "sbin" / "kcm"
_SSSD = Path("/usr/libexec/sssd/sssd_kcm")


@contextlib.contextmanager
def kcm_daemon(kind: str, directory: Path, krb5_conf: Path) -> Iterator[None]:
    """Run a daemon of that kind while the block runs."""
    program, package = (_HEIMDAL, "heimdal-kcm") if kind == "heimdal" else (_SSSD, "sssd-kcm")
    if not program.exists():
        missing_peer(str(program), package)
    if os.geteuid() != 0:
        missing_peer("a KCM daemon without root", package)
    argv = [str(program), "-n"]
    if kind == "sssd":
        Path("/var/lib/sss/secrets").mkdir(parents=True, exist_ok=True)
        argv = [str(program), "--uid", "0", "--gid", "0", "--logger=stderr"]
    with (Path(tempfile.gettempdir()) / "purekrb-kcm.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if local.answers(str(SOCKET)):
            pytest.fail(f"a KCM daemon of this machine answers at {SOCKET}", pytrace=False)
        SOCKET.unlink(missing_ok=True)
        env = {**os.environ, "KRB5_CONFIG": str(krb5_conf)}
        daemon = Daemon(argv, env=env, log=directory / f"kcm-{kind}.log")
        try:
            deadline = time.monotonic() + 30
            while not local.answers(str(SOCKET)):
                assert time.monotonic() < deadline, f"{program} does not listen at {SOCKET}"
                time.sleep(0.05)
            yield
        finally:
            daemon.stop()
            SOCKET.unlink(missing_ok=True)
