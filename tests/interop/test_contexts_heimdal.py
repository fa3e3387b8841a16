"""purekrb's contexts with Heimdal's GSS-API, in both roles."""

from __future__ import annotations

import pytest

from purekrb import Flag, ProtocolError
from support.context_checks import ContextInterop, Lab
from support.gss_peer import GssPeer
from support.mit import MitRealm


@pytest.fixture(scope="module")
def lab(mit_realm: MitRealm, heimdal_gss: GssPeer) -> Lab:
    return Lab(mit_realm, heimdal_gss)


class TestHeimdal(ContextInterop):
    detects_replayed_ap_req = False  # Heimdal's acceptor keeps no replay cache
    sends_krb_error = False
    counts_without_ap_rep = False  # Heimdal's initiator expects number 0

    def test_their_delegated_ticket_works_in_our_hands(self, lab: Lab) -> None:
        # Heimdal leaves the encryption of the KRB-CRED to that of the authenticator around it; RFC 4121 4.1.1 does not.
        token = lab.peer.initiate(
            "deleg@localhost", lab.ccache, flags=Flag.DEFAULT | Flag.DELEG
        ).step()
        with pytest.raises(ProtocolError, match="KRB-CRED"):
            lab.acceptor(None).step(token)
        ours = lab.acceptor(None, accept_delegation=False)
        ours.step(token)
        assert ours.established
        assert not ours.flags & Flag.DELEG
