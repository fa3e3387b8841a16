"""Fixtures of all tests: the real peers, each started once per session and stopped with it."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gss_peer import GssPeer
from support.heimdal import HeimdalRealm, start_heimdal_peer
from support.java import start_java_peer
from support.mit import MitRealm
from support.peers import missing_peer
from support.samba import SambaDc, shared_dc

# In the background of a script SIGINT is ignored, which the commands under test would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Failures in shared checks are to tell as much as those in the test files themselves.
pytest.register_assert_rewrite("support.context_checks")


#: What needs more than the peers that `make test` installs.
collect_ignore_glob = [] if os.environ.get("PUREKRB_SOAK") == "1" else ["interop/*_debian13.py"]


@pytest.fixture(scope="session", autouse=True)
def _own_replay_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the acceptors of the tests and their children off the user's replay cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5RCACHENAME", f"file2:{tmp_path_factory.mktemp('rcache')}/rcache2")
        yield


@pytest.fixture(scope="session")
def mit_realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    """MIT's KDC with the realms MIT.TEST and SUB.TEST (tests/support/mit.py says who lives there)."""
    realm = MitRealm(tmp_path_factory.mktemp("mit"))
    yield realm
    realm.stop()


@pytest.fixture(scope="session")
def heimdal_realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeimdalRealm]:
    """Heimdal's KDC with the realm HEIM.TEST."""
    realm = HeimdalRealm(tmp_path_factory.mktemp("heimdal"))
    yield realm
    realm.stop()


@pytest.fixture(scope="session")
def mit_gss(mit_realm: MitRealm) -> Iterator[GssPeer]:
    """MIT's GSS-API in the realms of `mit_realm`."""
    if importlib.util.find_spec("gssapi") is None:
        missing_peer("PyPI's gssapi", "libkrb5-dev")
    program = Path(__file__).parent / "support" / "gssapi_peer.py"
    peer = GssPeer(
        "MIT",
        [sys.executable, str(program)],
        env=mit_realm.env,
        log=mit_realm.directory / "gssapi.log",
    )
    yield peer
    peer.stop()


@pytest.fixture(scope="session")
def heimdal_gss(mit_realm: MitRealm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GssPeer]:
    """Heimdal's GSS-API in the realms of `mit_realm`."""
    peer = start_heimdal_peer(tmp_path_factory.mktemp("heimdal-gss"), mit_realm.krb5_conf)
    yield peer
    peer.stop()


@pytest.fixture(scope="session")
def java_gss(mit_realm: MitRealm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GssPeer]:
    """Java's GSS-API in the realms of `mit_realm`."""
    peer = start_java_peer(tmp_path_factory.mktemp("java-gss"), mit_realm.krb5_conf)
    yield peer
    peer.stop()


@pytest.fixture(scope="session")
def samba_dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaDc]:
    """Samba's domain controller of AD.TEST; one for all workers, or the one in the directory PUREKRB_SAMBA."""
    if "PUREKRB_SAMBA" in os.environ:
        dc = SambaDc(Path(os.environ["PUREKRB_SAMBA"]))
        if not dc.running:
            pytest.fail(f"PUREKRB_SAMBA: no Samba runs in {dc.directory}", pytrace=False)
        yield dc
        return
    # pytest-xdist's workers have directories of their own below that of the run.
    run = tmp_path_factory.getbasetemp()
    with shared_dc((run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "samba") as dc:
        yield dc
