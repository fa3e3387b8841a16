"""KRB-CRED: a ticket and its key on their way to a service."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from purekrb import IntegrityError, Principal, ProtocolError, ServiceTicket, crypto
from purekrb.constants import KeyUsage, TicketFlags
from purekrb.exchanges.krb_cred import build_krb_cred, read_krb_cred
from purekrb.messages.ap import EncKrbCredPart, HostAddress, KrbCred
from purekrb.system import random_bytes
from support.contexts import ALL
from support.tickets import issue
from support.values import replace

TGS = Principal.parse("krbtgt/EXAMPLE.TEST@EXAMPLE.TEST")
NOW = datetime(2026, 7, 1, 12, 0, 0, 654321, tzinfo=timezone.utc)


def tgt(**changes: object) -> ServiceTicket:
    flags = TicketFlags.FORWARDED | TicketFlags.FORWARDABLE
    return replace(issue(service=TGS, flags=flags, now=NOW)[0], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("etype", ALL)
def test_what_is_handed_over_arrives(etype: int) -> None:
    key = crypto.random_key(etype)
    for ticket in (
        tgt(),
        tgt(starttime=None, renew_till=NOW.replace(microsecond=0) + timedelta(days=7)),
        tgt(caddr=(HostAddress(2, b"\x7f\0\0\1"), HostAddress(24, bytes(16)))),
    ):
        message = build_krb_cred(ticket, key, now=NOW, random=random_bytes)
        assert read_krb_cred(message, (key,)) == [ticket]


def test_the_message_is_that_of_rfc_4120() -> None:
    key, ticket = crypto.random_key(18), tgt()
    message = KrbCred.decode(build_krb_cred(ticket, key, now=NOW, random=random_bytes))
    assert (message.pvno, message.msg_type, message.tickets) == (5, 22, (ticket.ticket,))
    assert (message.enc_part.etype, message.enc_part.kvno) == (18, None)
    part = EncKrbCredPart.decode(
        crypto.decrypt(key, KeyUsage.KRB_CRED_ENC_PART, message.enc_part.cipher)
    )
    assert (part.timestamp, part.usec) == (NOW.replace(microsecond=0), 654321)
    (info,) = part.ticket_info
    assert info.key == ticket.session_key
    assert (info.pname, info.prealm) == (ticket.client.name, ticket.client.realm)
    assert (info.sname, info.srealm) == (TGS.name, TGS.realm)
    assert ticket.session_key.contents not in build_krb_cred(
        ticket, key, now=NOW, random=random_bytes
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_any_of_several_keys_may_fit(order: tuple[int, int]) -> None:
    keys = crypto.random_key(18), crypto.random_key(18)
    message = build_krb_cred(tgt(), keys[0], now=NOW, random=random_bytes)
    assert read_krb_cred(message, (keys[order[0]], keys[order[1]])) == [tgt_like(message, keys[0])]
    with pytest.raises(IntegrityError):
        read_krb_cred(message, (crypto.random_key(18), crypto.random_key(18)))
    with pytest.raises(ProtocolError):
        read_krb_cred(message, (crypto.random_key(17),))
    with pytest.raises(ProtocolError):
        read_krb_cred(message, ())


def tgt_like(message: bytes, key: object) -> ServiceTicket:
    (ticket,) = read_krb_cred(message, (key,))  # type: ignore[arg-type]
    return ticket


def test_a_delegated_ticket_keeps_its_key_when_the_contexts_end() -> None:
    """The keys of a context are wiped with it; those that it handed over are not."""
    from purekrb import Flag, Initiator
    from support.contexts import acceptor

    service, keys = issue(flags=TicketFlags.OK_AS_DELEGATE)
    delegated = replace(issue(service=TGS)[0])
    ours = Initiator(service, flags=Flag.DEFAULT | Flag.DELEG, forwarded_tgt=delegated)
    theirs = acceptor(keys)
    ours.step(theirs.step(ours.step()))
    credential = theirs.delegated_credential
    assert credential is not None
    ours.close()
    theirs.close()
    assert delegated.session_key.contents
    (kept,) = credential.ccache
    assert (kept.client, kept.service, kept.session_key) == (
        delegated.client,
        delegated.service,
        delegated.session_key,
    )
    assert kept.ticket == delegated.ticket
