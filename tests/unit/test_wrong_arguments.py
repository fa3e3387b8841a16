"""Mistakes that users make with the first calls: the TypeError shows the right call, and no secret."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import Acceptor, Config, Credential, Initiator, KdcClient, Keytab, aio
from support.tickets import issue

SECRET = "correct horse battery staple"
NOWHERE = Config(dns_lookup_kdc=False, default_realm="R.TEST")


@pytest.mark.parametrize(
    "file", ["service.keytab", b"service.keytab", Path("service.keytab"), None], ids=repr
)
def test_an_acceptor_wants_keys_and_no_file(file: Any) -> None:
    for call in (lambda: Acceptor(file), lambda: purekrb.listen(("127.0.0.1", 0), file)):
        with pytest.raises(TypeError, match=r"Keytab\.load\("):
            call()  # type: ignore[no-untyped-call]


def test_an_acceptor_takes_a_keytab_and_whatever_gives_its_entries() -> None:
    ticket, keys = issue()
    for given in (Keytab(), keys, tuple(keys)):
        assert not Acceptor(given).established
    assert Acceptor(keys).step(Initiator(ticket).step())


@pytest.mark.parametrize("target", [None, SECRET.encode(), Credential.from_key], ids=type)
def test_what_is_no_name_is_no_target(target: Any) -> None:
    credential = Credential.from_password("alice@R.TEST", SECRET)
    for call in (
        lambda: purekrb.initiate(target, credential, NOWHERE),
        lambda: KdcClient(NOWHERE).get_ticket(credential, target),
    ):
        with pytest.raises(TypeError, match="give a name, as in") as caught:
            call()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (lambda c: purekrb.initiate("HTTP/web.r.test", c, NOWHERE), "initiate(target, Credential."),
        (
            lambda c: asyncio.run(aio.initiate("HTTP/web.r.test", c, NOWHERE)),
            "initiate(target, Credential.",
        ),
        (
            lambda c: purekrb.connect(("127.0.0.1", 1), "HTTP/web.r.test", c, NOWHERE),
            "initiate(target, Credential.",
        ),
        (lambda c: KdcClient(NOWHERE).get_tgt(c), "get_tgt(Credential."),
        (lambda c: KdcClient(NOWHERE).get_ticket(c, "HTTP/web.r.test"), "get_ticket(Credential."),
        (lambda c: KdcClient(NOWHERE).renew(c), "renew(Credential."),
        (lambda c: KdcClient(NOWHERE).forward_tgt(c), "forward_tgt(Credential."),
        (
            lambda c: asyncio.run(aio.KdcClient(NOWHERE).get_ticket(c, "HTTP/web.r.test")),
            "get_ticket(Credential.",
        ),
        (lambda c: purekrb.verify_credentials(c, Keytab()), "verify_credentials(Credential."),
    ],
)
@pytest.mark.parametrize("credential", [SECRET, SECRET.encode(), None, ("alice", SECRET)], ids=type)
def test_a_name_or_a_password_is_no_credential(
    call: Callable[[Any], Any], right: str, credential: Any
) -> None:
    if credential is None and right.startswith("initiate"):
        credential = 7  # None stands for Credential.default()
    with pytest.raises(TypeError) as caught:
        call(credential)
    assert right in str(caught.value)
    assert type(credential).__name__ in str(caught.value)
    assert SECRET not in str(caught.value)
    # With a credential the call gets further: no KDC is known here.
    with pytest.raises(purekrb.KerberosError):
        call(Credential.from_password("alice@R.TEST", "pw"))


def test_an_initiator_wants_a_ticket_and_no_name() -> None:
    for wrong in ("HTTP/web.r.test", purekrb.Principal.parse("HTTP/web.r.test@R.TEST"), None):
        with pytest.raises(TypeError, match=r"initiate\(target, credential\)"):
            Initiator(wrong)  # type: ignore[arg-type]
    assert Initiator(issue()[0]).step()
