"""`kvno --u2u`: tickets under the TGT of another cache."""

from __future__ import annotations

import pytest

from purekrb import Acceptor, CCache, Credential, Initiator, Principal
from purekrb.replay import MemoryReplayCache
from support.canaries import PASSWORD
from support.commands import Commands


@pytest.fixture
def run(run: Commands) -> Commands:
    """Alice and bob have logged in."""
    assert run("kinit", "bob", "-c", "FILE:bobs", stdin=PASSWORD).code == 0
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    return run


def test_a_ticket_under_a_tgt_is_stored(run: Commands) -> None:
    done = run("kvno", "--u2u", "FILE:bobs", "bob")
    assert (done.code, done.err) == (0, "")
    assert done.out == "bob@EXAMPLE.TEST: kvno = 0 (aes256-cts-hmac-sha1-96)\n"
    (ticket,) = (ticket for ticket in CCache.load(run.directory / "ccache") if ticket.is_skey)
    own = Credential.from_ccache(str(run.directory / "bobs"))
    acceptor = Acceptor(tgt=own, replay_cache=MemoryReplayCache())
    acceptor.step(Initiator(ticket).step())
    assert acceptor.initiator == Principal(("alice",), "EXAMPLE.TEST")
    assert "user-to-user" in run("klist").out


def test_the_tgt_of_another_is_refused(run: Commands) -> None:
    refused = run("kvno", "--u2u", "FILE:bobs", "alice")
    assert (refused.code, refused.out) == (6, "")
    assert "belongs to another account" in refused.err
    assert run("kvno", "--u2u", "FILE:bobs", "--no-store", "bob").code == 0


def test_a_cache_without_a_tgt_is_named(run: Commands) -> None:
    missing = run("kvno", "--u2u", "FILE:none", "bob")
    assert missing.code == 7
    assert "--u2u FILE:none: there is no credential cache" in missing.err
    assert "from_keytab" not in missing.err
    assert run("kvno", "--u2u", "FILE:bobs", "-P", "bob").code == 2
