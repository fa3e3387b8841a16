"""SPNEGO with the GSS-APIs of MIT, Heimdal and Java, with pyspnego and with curl, in both roles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ChannelBindingsError,
    Flag,
    Initiator,
    Keytab,
    ProtocolError,
    UnsupportedError,
)
from purekrb.constants import KRB5_MECH_OID, MS_KRB5_MECH_OID, NTLM_OID, NegState
from purekrb.gss import negotiate
from support.context_checks import Lab, exchange, peer_refuses
from support.gss_peer import PeerError
from support.mit import MitRealm
from support.ntlm import start_ntlm_peer
from support.pyspnego import pyspnego_peer
from support.spnego import opened, read
from support.web import curl, web_server

NOT_MUTUAL = Flag.DEFAULT & ~Flag.MUTUAL
PEERS = {"MIT": "mit_gss", "Heimdal": "heimdal_gss", "Java": "java_gss"}


@pytest.fixture(scope="module", params=PEERS)
def lab(request: pytest.FixtureRequest, mit_realm: MitRealm) -> Lab:
    no_address = (
        255 if request.param == "Java" else 0
    )  # GSS_C_AF_NULLADDR, where others have GSS_C_AF_UNSPEC
    return Lab(mit_realm, request.getfixturevalue(PEERS[request.param]), no_address=no_address)


@pytest.fixture(params=[True, False], ids=["we-initiate", "they-initiate"])
def we_initiate(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_two_tokens_make_a_context(lab: Lab, we_initiate: bool, etype: int) -> None:
    pair, tokens = lab.negotiate(we_initiate, etype=etype)
    assert len(tokens) == 2
    assert opened(tokens[0]).mech_types == (
        (MS_KRB5_MECH_OID, KRB5_MECH_OID) if we_initiate else (KRB5_MECH_OID,)
    )
    assert read(tokens[1]).neg_state == NegState.ACCEPT_COMPLETED
    assert pair.ours.mutual
    assert pair.theirs.established
    assert str(pair.ours.initiator) == pair.theirs.initiator == "user@MIT.TEST"
    assert pair.ours.etype == etype
    exchange(pair, b"negotiated")


def test_two_tokens_make_a_context_without_mutual_authentication_too(
    lab: Lab, we_initiate: bool
) -> None:
    pair, tokens = lab.negotiate(we_initiate, flags=NOT_MUTUAL)
    assert len(tokens) == 2
    assert pair.ours.established
    assert pair.theirs.established
    assert not pair.ours.mutual
    if we_initiate or lab.peer.name != "Heimdal":  # whose initiator expects number 0 then
        exchange(pair, b"one way")


def test_channel_bindings_are_compared(lab: Lab, we_initiate: bool) -> None:
    pair, _ = lab.negotiate(we_initiate, bindings=(b"tls-unique:same", b"tls-unique:same"))
    exchange(pair, b"bound")
    if isinstance(pair.ours, Acceptor):
        assert pair.ours.channel_bound
        with pytest.raises(ChannelBindingsError):
            lab.negotiate(we_initiate, bindings=(b"tls-unique:one", b"tls-unique:other"))
    else:  # Heimdal's acceptor does not end there, but asks for another token
        with pytest.raises((PeerError, ProtocolError)):
            lab.negotiate(we_initiate, bindings=(b"tls-unique:one", b"tls-unique:other"))


#: By peer and flags, how many tokens it takes where our initiator is made to put NTLM first. MIT does what RFC 4178
#: says; Heimdal looks at the first token all the same; Java begins again without asking for MICs, which we refuse.
NTLM_FIRST = {
    "MIT": {Flag.DEFAULT: 5, NOT_MUTUAL: 4},
    "Heimdal": {Flag.DEFAULT: 3},
    "Java": {},
}


@pytest.mark.parametrize("flags", [Flag.DEFAULT, NOT_MUTUAL], ids=["mutual", "one-way"])
def test_mics_are_exchanged_with_their_acceptor_where_kerberos_does_not_come_first(
    lab: Lab, flags: Flag, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = (NTLM_OID, *negotiate.MECHANISMS)
    defaults = negotiate.initiate.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "mechanisms", offered)
    expected = NTLM_FIRST[lab.peer.name].get(flags)
    if expected is None:
        with pytest.raises((PeerError, ProtocolError)):
            lab.negotiate(True, flags=flags)
        return
    pair, tokens = lab.negotiate(True, flags=flags)
    assert pair.ours.established
    assert pair.theirs.established
    assert len(tokens) == expected
    assert all(read(token).mech_list_mic for token in tokens[-2:])
    exchange(pair, b"in order after the MICs")


def test_a_refusal_arrives_on_either_side(lab: Lab, we_initiate: bool) -> None:
    stranger = lab.realm.keytab("host/localhost")
    if we_initiate:
        ours = lab.initiator("svc-18", None, mechanism="negotiate")
        theirs = lab.peer.accept(stranger, mechanism="negotiate")
        try:
            answer = theirs.step(ours.step())
        except PeerError as refusal:
            answer = refusal.token
        if answer:
            with pytest.raises((ApError, ProtocolError)):
                ours.step(answer)
        assert not theirs.established
        assert not ours.established
    else:
        theirs = lab.peer.initiate("svc-18@localhost", lab.ccache, mechanism="negotiate")
        first = theirs.step()
        with pytest.raises(ApError) as caught:
            Acceptor(Keytab.load(stranger)).step(first)
        peer_refuses(lambda: theirs.step(caught.value.response))
        assert not theirs.established
    assert lab.negotiate(we_initiate)[0].ours.established


# -- a client that prefers NTLM


@pytest.fixture(scope="module")
def ntlm_lab(mit_realm: MitRealm) -> Iterator[Lab]:
    peer = start_ntlm_peer(mit_realm)
    yield Lab(mit_realm, peer)
    peer.stop()


@pytest.mark.parametrize("flags", [Flag.DEFAULT, NOT_MUTUAL], ids=["mutual", "one-way"])
def test_a_client_that_prefers_ntlm_gets_kerberos(ntlm_lab: Lab, flags: Flag) -> None:
    pair, tokens = ntlm_lab.negotiate(False, flags=flags, mechanism="ntlm-first")
    first, answer = opened(tokens[0]), read(tokens[1])
    assert first.mech_types == (NTLM_OID, KRB5_MECH_OID)
    assert (first.mech_token or b"").startswith(b"NTLMSSP\0")
    assert (answer.neg_state, answer.supported_mech) == (NegState.REQUEST_MIC, KRB5_MECH_OID)
    assert len(tokens) == (5 if flags & Flag.MUTUAL else 4)
    exchange(pair, b"Kerberos after all")


def test_a_client_without_kerberos_is_told(ntlm_lab: Lab) -> None:
    theirs = ntlm_lab.peer.initiate(
        "svc-18@localhost", ntlm_lab.realm.path("none"), mechanism="ntlm-first"
    )
    token = theirs.step()
    ours = ntlm_lab.acceptor(None)
    with pytest.raises(UnsupportedError, match=r"offers NTLM\. Only Kerberos") as caught:
        ours.step(token)
    peer_refuses(lambda: theirs.step(caught.value.response))


# -- pyspnego


def test_pyspnego_negotiates_with_us(mit_realm: MitRealm, we_initiate: bool) -> None:
    lab = Lab(mit_realm, None)  # type: ignore[arg-type]
    ours: Initiator | Acceptor
    with pyspnego_peer(mit_realm, initiates=not we_initiate, service="gsvc") as theirs:
        ours = (
            lab.initiator("gsvc", None, mechanism="negotiate")
            if we_initiate
            else lab.acceptor(None)
        )
        ends: tuple[Any, Any] = (ours, theirs) if we_initiate else (theirs, ours)
        token, count = ends[0].step(), 0
        while token is not None:
            count += 1
            token = ends[count % 2].step(token)
        assert (theirs.established, ours.established, theirs.negotiated) == (True, True, "kerberos")
        assert ours.unwrap(theirs.wrap(b"data")) == b"data"
        assert theirs.unwrap(ours.wrap(b"data")) == (b"data", True)
        theirs.verify_mic(b"data", ours.get_mic(b"data"))
        ours.verify_mic(b"data", theirs.get_mic(b"data"))


# -- HTTP


def test_curl_authenticates_to_a_web_server(mit_realm: MitRealm) -> None:
    keytab = Keytab.load(mit_realm.keytab("HTTP/localhost"))
    with web_server(lambda: Acceptor(keytab)) as url:
        assert curl(mit_realm, url, "--negotiate", "-u", ":") == "user@MIT.TEST 200"
        assert curl(mit_realm, url) == " 401"
