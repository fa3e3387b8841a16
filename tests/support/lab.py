"""`make lab` and `make lab-stop`: the domain of tests/support/samba.py to try the commands on, until it is stopped.

Usage: python -m support.lab start|stop DIRECTORY
"""

from __future__ import annotations

import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.samba import SambaDc

__all__ = ["prepare", "progress"]

#: Where the service of the example runs: this machine has that name while a command of the lab runs.
HOST = "files.ad.test"

#: `purekrb` in the lab: who and where everybody is, in no shell but its own.
_LAUNCHER = """\
#!/bin/sh
# purekrb as it runs in the lab: on the host {host}, with the lab's krb5.conf and hosts file.
export KRB5_CONFIG='{directory}/lab-krb5.conf' KRB5_KTNAME='{directory}/svc-files.keytab'
export KRB5CCNAME="${{KRB5CCNAME:-{directory}/ccache}}"
export XDG_STATE_HOME='{directory}/state-files'
export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_HOSTS='{directory}/hosts' NSS_WRAPPER_HOSTNAME={host}
exec '{python}' -m purekrb "$@"
"""

#: What stands for the product in the commands.
_PRODUCT = "a762885a-aa44-11d2-81f1-00c04fb9624e"

_GUIDE = """\
The domain {realm} is up: {dc} on {address}, everything in {directory}.
Its accounts have the password {password}: {administrator}; svc-files, which the service on {host} runs under; alice.
A purekrb that knows the lab's hosts:

    export PATH={directory}/bin:$PATH KRB5_KTNAME={directory}/svc-files.keytab

As an administrator, install a service:

    echo {password} | purekrb kinit {administrator}@{realm}
    purekrb spn add ADSockAuth/{host} --account svc-files --fix
    purekrb scp publish --class ADSockAuth --port 2000 --keyword {product} --account svc-files

Make its keytab, and start it:

    echo {password} | purekrb keytab from-password "$KRB5_KTNAME" svc-files@{realm} --ask-kdc
    purekrb scp verify --class ADSockAuth --keytab "$KRB5_KTNAME"
    purekrb serve {host}:2000 &

As a client anywhere, find it, be sure of it, talk to it:

    echo {password} | purekrb kinit alice@{realm}
    echo hello | purekrb connect --scp-keyword {product}

make lab-stop ends the domain and removes the directory.
"""


def prepare(dc: SambaDc) -> str:
    """Add the accounts and the files for the commands; return what to tell whoever tries them."""
    # As samba-tool makes them, which gives them no encryption types.
    for name in ("alice", "svc-files"):
        dc.delete(f"CN={name},CN=Users,{dc.base}")
        dc.samba_tool("user", "create", name, dc.password)
    dc.delete(f"CN=FILES,CN=Computers,{dc.base}")
    dc.samba_tool("computer", "create", "FILES")
    (dc.directory / "svc-files.keytab").unlink(missing_ok=True)
    # By its name: whoever asks the directory there must know what the DC is called.
    by_name = dc.krb5_conf.read_text().replace(f"= {dc.address}\n", f"= {dc.host}\n")
    (dc.directory / "lab-krb5.conf").write_text(by_name)
    if HOST not in dc.hosts.read_text():
        with dc.hosts.open("a") as hosts:
            hosts.write(f"127.0.0.1 {HOST}\n")
    launcher = dc.directory / "bin" / "purekrb"
    launcher.parent.mkdir(exist_ok=True)
    launcher.write_text(_LAUNCHER.format(directory=dc.directory, host=HOST, python=sys.executable))
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    return guide(dc)


def guide(dc: SambaDc) -> str:
    """Return what to tell whoever tries the commands."""
    return _GUIDE.format(
        realm=dc.realm,
        address=dc.address,
        directory=dc.directory,
        password=dc.password,
        administrator=dc.administrator,
        host=HOST,
        dc=dc.host,
        product=_PRODUCT,
    )


def _start(directory: Path) -> str:
    if (directory / "address").exists() and (dc := SambaDc(directory)).running:
        return guide(dc)
    with progress("making the domain"):
        dc = SambaDc.provision(directory)
    with progress("starting its controller"):
        dc.start()
    with progress("adding accounts"):
        return prepare(dc)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Print `what`, a dot for each second while the block runs, and how long it took."""
    started, done = time.monotonic(), threading.Event()

    def tick() -> None:
        while not done.wait(1):
            print(".", end="", flush=True)

    print(f"{what} ", end="", flush=True)
    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()
        print(f" {time.monotonic() - started:.0f} s", flush=True)


def _stop(directory: Path) -> str:
    if not (directory / "address").exists():
        return f"no lab in {directory}"
    SambaDc(directory).stop()
    shutil.rmtree(directory)
    return f"stopped and removed {directory}"


if __name__ == "__main__":
    try:
        print({"start": _start, "stop": _stop}[sys.argv[1]](Path(sys.argv[2]).resolve()))
    except pytest.fail.Exception as error:  # a program is missing, or root
        sys.exit(str(error))
