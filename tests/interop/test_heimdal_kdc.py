"""purekrb's client with Heimdal's KDC."""

from __future__ import annotations

import pytest

from purekrb import (
    Acceptor,
    ClientUnknownError,
    Config,
    Credential,
    Initiator,
    KdcClient,
    Keytab,
    PreauthFailedError,
    ServiceUnknownError,
)
from purekrb.constants import AddressType, TicketFlags
from purekrb.messages.ap import HostAddress
from support.heimdal import HeimdalRealm


@pytest.fixture(scope="module")
def client(heimdal_realm: HeimdalRealm) -> KdcClient:
    return KdcClient(Config.from_file(heimdal_realm.krb5_conf))


@pytest.mark.parametrize(("user", "password"), [("user", "userpw"), ("pre", "prepw")])
def test_a_password_leads_to_a_context(
    heimdal_realm: HeimdalRealm, client: KdcClient, user: str, password: str
) -> None:
    credential = Credential.from_password(f"{user}@HEIM.TEST", password)
    ticket = client.get_ticket(credential, "gsvc/localhost")
    initiator, acceptor = Initiator(ticket), Acceptor(Keytab.load(heimdal_realm.service_keytab))
    initiator.step(acceptor.step(initiator.step()))
    assert initiator.mutual
    assert str(acceptor.initiator) == f"{user}@HEIM.TEST"
    assert acceptor.unwrap(initiator.wrap(b"sealed")) == b"sealed"


def test_a_wrong_password_is_told_from_a_right_one(client: KdcClient) -> None:
    with pytest.raises(PreauthFailedError):
        client.get_tgt(Credential.from_password("pre@HEIM.TEST", "wrong"))
    assert client.get_tgt(Credential.from_password("pre@HEIM.TEST", "prepw")).is_tgt


@pytest.mark.parametrize("user", ["user", "pre", "aes128"])
def test_keys_of_a_password_are_taken_with_and_without_the_kdcs_demand(
    client: KdcClient, user: str
) -> None:
    principal = f"{user}@HEIM.TEST"
    tgt = client.get_tgt(
        Credential.from_keytab(principal, Keytab.from_password(principal, f"{user}pw"))
    )
    assert tgt.flags & TicketFlags.PRE_AUTHENT
    with pytest.raises(PreauthFailedError):
        client.get_tgt(Credential.from_keytab(principal, Keytab.from_password(principal, "wrong")))


def test_unknown_names_have_their_own_errors(client: KdcClient) -> None:
    with pytest.raises(ClientUnknownError):
        client.get_tgt(Credential.from_password("nobody@HEIM.TEST", "x"))
    with pytest.raises(ServiceUnknownError):
        client.get_ticket(Credential.from_password("user@HEIM.TEST", "userpw"), "nothing/localhost")


def test_a_service_authenticates_with_its_keytab(
    heimdal_realm: HeimdalRealm, client: KdcClient
) -> None:
    credential = Credential.from_keytab(
        "gsvc/localhost@HEIM.TEST", Keytab.load(heimdal_realm.service_keytab)
    )
    assert str(client.get_tgt(credential).client) == "gsvc/localhost@HEIM.TEST"


def test_a_tgt_is_forwarded(client: KdcClient) -> None:
    forwarded = client.forward_tgt(Credential.from_password("user@HEIM.TEST", "userpw"))
    assert forwarded.is_tgt


def test_a_proxy_is_made_of_a_proxiable_tgt(heimdal_realm: HeimdalRealm, client: KdcClient) -> None:
    credential = Credential.from_password("user@HEIM.TEST", "userpw")
    here = (HostAddress(AddressType.IPV4, bytes([127, 0, 0, 1])),)
    ticket = client.proxy(credential, "gsvc/localhost", here)
    assert ticket.flags & TicketFlags.PROXY
    assert ticket.caddr == here
    anywhere = client.proxy(credential, "gsvc/localhost")
    acceptor = Acceptor(Keytab.load(heimdal_realm.service_keytab))
    acceptor.step(Initiator(anywhere).step())
    assert str(acceptor.initiator) == "user@HEIM.TEST"
