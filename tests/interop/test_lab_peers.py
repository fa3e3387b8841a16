"""The foreign GSS-API peers among themselves: what the tests of purekrb's contexts take for granted."""

from __future__ import annotations

import pytest

from support.gss_peer import GssPeer, PeerError
from support.mit import ETYPES, MitRealm

PEERS = ("mit_gss", "heimdal_gss", "java_gss")


@pytest.mark.parametrize("etype", ETYPES)
@pytest.mark.parametrize("acceptor_name", PEERS)
@pytest.mark.parametrize("initiator_name", PEERS)
def test_peers_understand_each_other(
    mit_realm: MitRealm,
    request: pytest.FixtureRequest,
    initiator_name: str,
    acceptor_name: str,
    etype: int,
) -> None:
    first: GssPeer = request.getfixturevalue(initiator_name)
    second: GssPeer = request.getfixturevalue(acceptor_name)
    initiator = first.initiate(f"svc-{etype}@localhost", mit_realm.kinit("user"))
    acceptor = second.accept(mit_realm.service_keytab)
    token = initiator.step()
    while token is not None:
        token = acceptor.step(token)
        if token is not None:
            token = initiator.step(token)
    assert initiator.established
    assert acceptor.established
    assert acceptor.initiator == "user@MIT.TEST"
    assert acceptor.unwrap(initiator.wrap(b"sealed")) == (b"sealed", True)
    assert initiator.unwrap(acceptor.wrap(b"signed", sealed=False)) == (b"signed", False)
    acceptor.verify_mic(b"data", initiator.get_mic(b"data"))
    with pytest.raises(PeerError):
        acceptor.verify_mic(b"other", initiator.get_mic(b"data"))
    initiator.close()
    acceptor.close()
