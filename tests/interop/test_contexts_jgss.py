"""purekrb's contexts with Java's GSS-API, in both roles."""

from __future__ import annotations

import pytest

from purekrb import Flag
from support.context_checks import ContextInterop, Lab
from support.gss_peer import GssPeer, PeerContext
from support.mit import MitRealm


@pytest.fixture(scope="module")
def lab(mit_realm: MitRealm, java_gss: GssPeer) -> Lab:
    return Lab(
        mit_realm, java_gss, no_address=255
    )  # GSS_C_AF_NULLADDR, where others have GSS_C_AF_UNSPEC


class TestJava(ContextInterop):
    sends_krb_error = False
    flags_that_go_together = Flag.REPLAY | Flag.SEQUENCE

    def check_delegated(self, lab: Lab, theirs: PeerContext) -> None:
        assert theirs.use_delegated("host@localhost") == "user@MIT.TEST"
