"""Initiator against Acceptor in memory: what a caller of contexts sees."""

from __future__ import annotations

import pytest

from purekrb import Acceptor, ApError, CredentialError, Initiator, PolicyError
from support.contexts import acceptor, pair
from support.tickets import issue

# --- ends


def keys_of(context: Initiator | Acceptor) -> list[object]:
    return list(context._secrets)


def test_close_wipes_every_key_that_belongs_to_the_context() -> None:
    for context in pair():
        secrets = keys_of(context)
        assert context.session_key in secrets
        assert len(secrets) > 2
        context.close()
        for key in secrets:
            with pytest.raises(CredentialError, match="wiped"):
                key.contents  # type: ignore[attr-defined]  # noqa: B018


def test_close_leaves_the_ticket_and_the_keytab_usable() -> None:
    ticket, keys = issue()
    for _ in range(2):
        ours, theirs = Initiator(ticket), acceptor(keys)
        ours.step(theirs.step(ours.step()))
        assert theirs.unwrap(ours.wrap(b"again")) == b"again"
        ours.close()
        theirs.close()


def test_a_failed_handshake_wipes_the_keys_too() -> None:
    ticket, keys = issue()
    ours = Initiator(ticket)
    token = ours.step()
    secrets = keys_of(ours)
    with pytest.raises(PolicyError):
        Initiator(ticket, permitted_etypes=(17,)).step()
    with pytest.raises(ApError):
        ours.step(refusal_of(token))
    assert secrets
    for key in secrets:
        with pytest.raises(CredentialError, match="wiped"):
            key.contents  # type: ignore[attr-defined]  # noqa: B018
    assert len(ticket.session_key.contents) == 32
    assert acceptor(keys).step(Initiator(ticket).step())


def refusal_of(token: bytes | None) -> bytes:
    _, others = issue()
    with pytest.raises(ApError) as caught:
        acceptor(others).step(token)
    assert caught.value.response is not None
    return caught.value.response
