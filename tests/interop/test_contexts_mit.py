"""purekrb's contexts with MIT's GSS-API, in both roles."""

from __future__ import annotations

import pytest

from support.context_checks import ContextInterop, Lab
from support.gss_peer import GssPeer
from support.mit import MitRealm


@pytest.fixture(scope="module")
def lab(mit_realm: MitRealm, mit_gss: GssPeer) -> Lab:
    return Lab(mit_realm, mit_gss)


class TestMit(ContextInterop):
    """MIT does all that is asked."""
