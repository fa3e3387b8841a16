"""SPNEGO tokens made by hand, and ends of a negotiation whose Kerberos is purekrb's but whose SPNEGO is not."""

from __future__ import annotations

from typing import Any

from purekrb import Acceptor, Initiator, ServiceTicket
from purekrb.constants import KRB5_MECH_OID, MS_KRB5_MECH_OID, NTLM_OID, SPNEGO_OID, NegState
from purekrb.gss.framing import frame_mechanism, unframe_mechanism
from purekrb.messages.spnego import NegTokenInit, NegTokenResp, encode_mech_types
from support.contexts import acceptor

__all__ = [
    "NTLM_TOKEN",
    "PreferringNtlm",
    "ScriptedAcceptor",
    "init",
    "negotiate",
    "opened",
    "read",
    "resp",
]

#: An NTLM NEGOTIATE_MESSAGE, as far as anyone reads it.
NTLM_TOKEN = b"NTLMSSP\0" + bytes.fromhex("01000000978208e2") + bytes(24)


def init(
    mech_types: tuple[bytes, ...], mech_token: bytes | None = None, mic: bytes | None = None
) -> bytes:
    """Return a framed NegTokenInit."""
    return frame_mechanism(SPNEGO_OID, NegTokenInit(mech_types, None, mech_token, mic).encode())


def resp(
    state: int | None = None,
    mech: bytes | None = None,
    token: bytes | None = None,
    mic: bytes | None = None,
) -> bytes:
    """Return a NegTokenResp."""
    return NegTokenResp(state, mech, token, mic).encode()


def opened(token: bytes | None) -> NegTokenInit:
    """Return the NegTokenInit in a framed token."""
    return NegTokenInit.decode(unframe_mechanism(token or b"", SPNEGO_OID))


def read(token: bytes | None) -> NegTokenResp:
    """Return the NegTokenResp that a token is."""
    return NegTokenResp.decode(token or b"")


def negotiate(initiator: Initiator | PreferringNtlm, to: Acceptor | ScriptedAcceptor) -> int:
    """Let two ends talk until neither says anything; return the number of tokens."""
    token = initiator.step(None)
    count = 0
    ends = (to, initiator)
    while token is not None:
        token = ends[count % 2].step(token)
        count += 1
    return count


class PreferringNtlm:
    """An initiator that offers other mechanisms before Kerberos, so that the mechListMICs are required.

    `offered` is the list that it sends, `signed` (as its own DER) what its MIC is over.
    """

    def __init__(
        self,
        ticket: ServiceTicket,
        offered: tuple[bytes, ...] = (NTLM_OID, KRB5_MECH_OID),
        *,
        signed: bytes | None = None,
        **options: Any,
    ) -> None:
        self.kerberos = Initiator(ticket, **options)
        self.offered = offered
        self.signed = encode_mech_types(offered) if signed is None else signed
        self.received: list[NegTokenResp] = []

    def step(self, token: bytes | None = None) -> bytes | None:
        """Return the next token of an exchange as RFC 4178 describes it."""
        if token is None:
            return init(self.offered, NTLM_TOKEN)
        message = read(token)
        self.received.append(message)
        if len(self.received) == 1:
            first = self.kerberos.step()
            mic = self.kerberos.get_mic(self.signed) if self.kerberos.established else None
            return resp(NegState.ACCEPT_INCOMPLETE, None, first, mic)
        if message.response_token:
            self.kerberos.step(message.response_token)
        if message.mech_list_mic:
            self.kerberos.verify_mic(encode_mech_types(self.offered), message.mech_list_mic)
        if message.neg_state == NegState.ACCEPT_COMPLETED:
            return None
        return resp(NegState.ACCEPT_COMPLETED, None, None, self.kerberos.get_mic(self.signed))


class ScriptedAcceptor:
    """An acceptor that answers an optimistic token with any fields; `mic` True: a genuine one over `signed`."""

    def __init__(
        self,
        keys: Any,
        state: int | None = NegState.ACCEPT_COMPLETED,
        mech: bytes | None = MS_KRB5_MECH_OID,
        *,
        mic: bool = False,
        signed: bytes | None = None,
        **options: Any,
    ) -> None:
        self.kerberos = acceptor(keys, mechanism="kerberos", **options)
        self.state, self.mech, self.mic, self.signed = state, mech, mic, signed
        self.answer: NegTokenResp | None = None
        self.offered: tuple[bytes, ...] = ()
        self.heard: list[NegTokenResp] = []

    def step(self, token: bytes) -> bytes | None:
        """Return the one answer; keep what comes after it."""
        if self.answer is not None:
            self.heard.append(read(token))
            return None
        first = opened(token)
        self.offered = first.mech_types
        out = self.kerberos.step(first.mech_token)
        signed = encode_mech_types(self.offered) if self.signed is None else self.signed
        mic = self.kerberos.get_mic(signed) if self.mic else None
        self.answer = NegTokenResp(self.state, self.mech, out, mic)
        return self.answer.encode()
