"""The MIT lab itself: what the other interop tests take for granted."""

from __future__ import annotations

import pytest

from support.mit import ETYPES, MitRealm


def test_tickets_come_from_both_realms(mit_realm: MitRealm) -> None:
    ccache = mit_realm.kinit("pre", services=["gsvc/localhost", "host/srv.sub.test@SUB.TEST"])
    listing = mit_realm.klist(ccache)
    assert "gsvc/localhost@MIT.TEST" in listing
    assert "host/srv.sub.test@SUB.TEST" in listing


@pytest.mark.parametrize("etype", ETYPES)
def test_each_restricted_service_has_ticket_and_session_key_of_its_etype(
    mit_realm: MitRealm, etype: int
) -> None:
    ccache = mit_realm.kinit("user", services=[f"svc-{etype}/localhost"])
    listing = mit_realm.klist(ccache, "-e").replace("DEPRECATED:", "")
    assert f"{ETYPES[etype]}, {ETYPES[etype]}" in listing


def test_a_wrong_password_gives_no_ticket(mit_realm: MitRealm) -> None:
    with pytest.raises(RuntimeError, match=r"Password incorrect|Preauthentication failed"):
        mit_realm.kinit("pre", "wrong")
    mit_realm.kinit("pre", "prepw")


def test_kadmin_failures_are_reported(mit_realm: MitRealm) -> None:
    with pytest.raises(RuntimeError, match="already exists"):
        mit_realm.addprinc("user", "other")


def test_a_new_principal_and_its_keytab_work(mit_realm: MitRealm) -> None:
    name = mit_realm.addprinc("newcomer/localhost", etypes=[18], flags="+requires_preauth")
    mit_realm.kinit(name, keytab=mit_realm.keytab(name), services=["host/localhost"])
