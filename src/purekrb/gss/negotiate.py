"""SPNEGO: both sides agree on Kerberos, whatever else the peer offers. Source: RFC 4178, MS-SPNG.

    initiator                                                                     acceptor
    NegTokenInit {mechTypes, mechToken: AP-REQ} --------------->
        <--------- NegTokenResp {accept-completed, supportedMech, responseToken: AP-REP}

This is the whole exchange if Kerberos is the initiator's first choice. Instead of the NegTokenResp,
the acceptor may answer with the bare AP-REP. If Kerberos is not the first choice, the first
token is for another mechanism:

    NegTokenInit {mechTypes, mechToken: NTLM} ----------------->
        <--------------------------------------- NegTokenResp {request-mic, supportedMech}
    NegTokenResp {responseToken: AP-REQ} ---------------------->
        <--------- NegTokenResp {accept-incomplete, responseToken: AP-REP, mechListMIC}
    NegTokenResp {accept-completed, mechListMIC} -------------->

The mechListMICs sign the initiator's offer. So nobody in between can change which mechanism they
choose. Each side is a generator: it yields the token to send, receives the peer's token, and
returns its last token. The Kerberos context inside is a generator of the same kind, of any number
of legs.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from purekrb.constants import (
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    NEGOEX_OID,
    NTLM_OID,
    SPNEGO_OID,
    ErrorCode,
    NegState,
)
from purekrb.errors import (
    ApError,
    DecodeError,
    KerberosError,
    MutualAuthenticationError,
    ProtocolError,
    SequenceError,
    UnsupportedError,
)
from purekrb.gss.framing import (
    TOK_KRB_ERROR,
    frame_mechanism,
    is_framed_for,
    mechanism_names,
    unframe_any,
    unframe_mechanism,
)
from purekrb.gss.krb_error import peer_refused
from purekrb.gss.strangers import what_is
from purekrb.log import Log
from purekrb.messages.spnego import (
    NegHints,
    NegTokenInit,
    NegTokenInit2,
    NegTokenResp,
    encode_mech_types,
)
from purekrb.records import replace

__all__ = ["Handshake", "initiate", "accept", "answered_by_negotiation"]

log = Log("purekrb.gss")

#: One mechanism with two names, in the order of Windows. It means nothing which of them the peer
#: uses. Source: MS-SPNG 1.9.
MECHANISMS = (MS_KRB5_MECH_OID, KRB5_MECH_OID)
#: The hint name of Windows, which does not name the acceptor. Source: MS-SPNG 2.2.1.
_HINTS = NegHints("not_defined_in_RFC4178@please_ignore")

#: The first byte of a token in a GSS-API frame. Source: RFC 2743 3.1.
_FRAME = b"\x60"

_NEG_TOKEN_RESP = b"\xa1"
_COMPLETED, _INCOMPLETE, _REJECT, _REQUEST_MIC = map(int, NegState)


class Messages(Protocol):
    """The methods of an established context that the negotiation needs."""

    def get_mic(self, data: bytes) -> bytes: ...
    def verify_mic(self, data: bytes, mic: bytes) -> None: ...


#: A handshake yields the tokens to send, receives the peer's, and returns the last token or None.
Handshake = Generator[bytes, bytes, "bytes | None"]


#: Begins a context with the initiator's first token.
Start = Callable[[bytes], Handshake]


class _Kerberos:
    """The Kerberos context inside: its tokens, and once it is `complete`, its `messages()`."""

    def __init__(self, start: Callable[..., Handshake], messages: Callable[[], Messages]) -> None:
        self._start = start
        self._legs: Handshake | None = None
        self.messages = messages
        self.complete = False

    def step(self, in_token: bytes | None) -> bytes | None:
        """Return the next token to send, or None. An initiator's first step takes None."""
        try:
            if self._legs is None:
                self._legs = self._start() if in_token is None else self._start(in_token)
                return next(self._legs)
            return self._legs.send(in_token or b"")
        except StopIteration as end:
            self.complete = True
            token: bytes | None = end.value
            return token


class _Answer(NamedTuple):
    """The next token of a side: its negState, whether it has a MIC, whether it is the last."""

    state: int
    mic: bool = False
    last: bool = False


#: (a MIC is required, Kerberos is complete, the peer's MIC came, ours was sent) -> the answer, None
#: if nothing is left to send, or the text of the error. Source: RFC 4178 5.
_Table = dict[tuple[bool, bool, bool, bool], "_Answer | str | None"]
_WAITS = "the service waits for something more after both mechListMICs"
_INITIATOR: _Table = {
    (False, False, False, False): _Answer(_INCOMPLETE),
    (False, True, False, False): _Answer(_INCOMPLETE),
    (False, True, True, False): _Answer(_COMPLETED, mic=True, last=True),
    (True, False, False, False): _Answer(_INCOMPLETE),
    (True, True, False, False): _Answer(_INCOMPLETE, mic=True),
    (True, True, True, False): _Answer(_COMPLETED, mic=True, last=True),
    (True, True, False, True): _WAITS,
    (True, True, True, True): _WAITS,
}
_NO_MIC = "the initiator sent its last token without a mechListMIC"
_ACCEPTOR: _Table = {
    (False, False, False, False): _Answer(_INCOMPLETE),
    (False, True, False, False): _Answer(_COMPLETED, last=True),
    (False, True, True, False): _Answer(_COMPLETED, mic=True, last=True),
    (True, False, False, False): _Answer(_INCOMPLETE),
    (True, True, False, False): _Answer(_INCOMPLETE, mic=True),
    (True, True, True, False): _Answer(_COMPLETED, mic=True, last=True),
    (True, True, False, True): _NO_MIC,
    (True, True, True, True): None,
}


class _Side:
    """One side of a negotiation: the Kerberos context inside, the offer, and the mechListMICs.

    `required` tells whether mechListMICs are, `received` and `sent` which ones were exchanged.
    """

    def __init__(
        self, table: _Table, kerberos: _Kerberos, offered: tuple[bytes, ...], *, required: bool
    ) -> None:
        self._table = table
        self.kerberos = kerberos
        self._offered = offered
        self.required = required
        self.received = False
        self.sent = False

    def take(self, message: NegTokenResp) -> bytes | None:
        """Pass on the peer's Kerberos token, verify its mechListMIC, return our Kerberos token."""
        token = _next_leg(self.kerberos, message)
        self.received = _take_mic(self.kerberos, self._offered, message)
        return token

    def answer(self) -> _Answer | None:
        """Return the next answer, or None. Raises ProtocolError if the peer broke the order."""
        found = self._table[self.required, self.kerberos.complete, self.received, self.sent]
        if isinstance(found, str):
            raise ProtocolError(found, expected="mechListMIC" if found is _NO_MIC else None)
        return found

    def mic(self) -> bytes:
        """Return our mechListMIC, and remember that it was sent."""
        self.sent = True
        return self.kerberos.messages().get_mic(encode_mech_types(self._offered))

    def token(self, answer: _Answer, token: bytes | None, supported: bytes | None = None) -> bytes:
        """Return the NegTokenResp of `answer` around our Kerberos token."""
        mic = self.mic() if answer.mic else None
        if log.on():
            log.debug(
                "NegTokenResp: %s%s",
                NegState(answer.state).name,
                " with mechListMIC" if mic else "",
            )
        return NegTokenResp(answer.state, supported, token, mic).encode()


def initiate(
    start: Callable[[], Handshake],
    messages: Callable[[], Messages],
    hints: bytes | None = None,
    *,
    mechanisms: tuple[bytes, ...] = MECHANISMS,
) -> Handshake:
    """The initiator's side. `start()` begins the Kerberos context, `messages()` are its messages.

    `hints` is the NegTokenInit2 of an acceptor that spoke first. `mechanisms` are the names of the
    one that is offered.
    """
    reply: NegTokenResp | None = None
    try:
        if hints:
            _check_hints(hints, mechanisms)
        kerberos = _Kerberos(start, messages)
        first = NegTokenInit(mechanisms, mech_token=kerberos.step(None))
        log.debug("NegTokenInit: offering Kerberos")
        answer_token = yield frame_mechanism(SPNEGO_OID, first.encode())
        if not kerberos.complete and _is_bare(answer_token):
            # Some services answer our Kerberos token without SPNEGO around it. The AP-REP proves
            # the service as always, and there was nothing else to choose: we offer Kerberos alone.
            log.debug("the service answered without SPNEGO")
            if kerberos.step(answer_token) or not kerberos.complete:
                raise ProtocolError("a Kerberos token without SPNEGO asks for another leg")
            return None
        reply = _read(answer_token)
        side = _Side(_INITIATOR, kerberos, mechanisms, required=_chosen(reply, mechanisms))
        if (
            side.required
            and not reply.response_token
            and reply.supported_mech not in (None, mechanisms[0])
        ):
            # RFC 4178 4.2.2: the acceptor knows Kerberos only by the other name, and has not looked
            # at our token. A second context is needed, because an AP-REQ is never sent twice.
            side.kerberos = _Kerberos(start, messages)
            token = side.kerberos.step(None)
            reply = _read(
                (yield side.token(_Answer(_INCOMPLETE, mic=side.kerberos.complete), token))
            )
        while True:
            # Mutual authentication fails closed, whatever the negState.
            if (
                reply.neg_state == _COMPLETED
                and not side.kerberos.complete
                and not reply.response_token
            ):
                raise MutualAuthenticationError(
                    "the service says that authentication is complete, "
                    "but it has not proved its identity"
                )
            token = side.take(reply)
            if reply.neg_state == _COMPLETED or (
                reply.neg_state is None and not token and not reply.mech_list_mic
            ):
                _check_end(side, token)
                return None
            if side.kerberos.complete and not token and not side.received:
                raise ProtocolError(
                    "the service sent all of its tokens, but waits for something more from us"
                )
            answer = side.answer()
            if answer is None or answer.last:
                return None if answer is None else side.token(answer, token)
            reply = _read((yield side.token(answer, token)))
    except KerberosError as error:
        if reply is not None and reply.neg_state in (_INCOMPLETE, _REQUEST_MIC):
            error.response = _rejection(None)
        raise


def _check_end(side: _Side, token: bytes | None) -> None:
    """Raise unless the negotiation is complete for the initiator, too."""
    if token or not side.kerberos.complete:
        raise ProtocolError("the service says that authentication is complete, but Kerberos is not")
    # RFC 4178 5: a required MIC protects the choice of the mechanism.
    if side.required and not side.received:
        raise ProtocolError(
            "the service required a mechListMIC and sent none", expected="mechListMIC"
        )


def accept(
    start: Start,
    messages: Callable[[], Messages],
    token: bytes,
    others: Mapping[bytes, Start] = MappingProxyType({}),
) -> Handshake:
    """The acceptor's side.

    `start` begins the Kerberos context with the initiator's first Kerberos token; `others` do so for
    other mechanisms, by their OIDs; `messages()` are the context's messages. An empty `token` asks
    for hints. The `response` of every error is the rejection to send.
    """
    try:
        return (yield from _accept({**dict.fromkeys(MECHANISMS, start), **others}, messages, token))
    except KerberosError as error:
        error.response = _rejection(error.response)
        raise


def _accept(
    starts: Mapping[bytes, Start], messages: Callable[[], Messages], token: bytes
) -> Handshake:
    if not token:
        log.debug("NegTokenInit2: the initiator asked for our mechanisms")
        token = yield frame_mechanism(
            SPNEGO_OID, NegTokenInit2(tuple(starts), neg_hints=_HINTS).encode()
        )
    first = NegTokenInit.decode(unframe_mechanism(token, SPNEGO_OID))
    offered = first.mech_types
    chosen = next((oid for oid in offered if oid in starts), None)
    if chosen is None:
        raise UnsupportedError(
            f"the initiator offers {mechanism_names(offered[:8]) or 'nothing'}. {_ONLY_KERBEROS}"
        )
    if log.on():
        log.debug("NegTokenInit: the initiator offers %s", mechanism_names(offered[:8]))
    supported: bytes | None = chosen  # named in our first answer only
    request = NegTokenResp(None, None, first.mech_token, first.mech_list_mic)
    # RFC 4178 4.2.1: the token with the list is for the first mechanism of the list.
    # RFC 4178 5: if another one is chosen, mechListMICs are required.
    side = _Side(
        _ACCEPTOR, _Kerberos(starts[chosen], messages), offered, required=chosen != offered[0]
    )
    if side.required or not request.response_token:
        state = _REQUEST_MIC if side.required else _INCOMPLETE
        request, supported = _read((yield NegTokenResp(state, supported).encode())), None
    while True:
        ours = side.take(request)
        answer = side.answer()
        if answer is None:
            return None
        if answer.mic and not ours and not side.received:
            raise ProtocolError(_NO_MIC, expected="mechListMIC")
        token = side.token(answer, ours, supported)
        if answer.last:
            return token
        request, supported = _read((yield token)), None


#: Advice for an administrator if the peer does not offer Kerberos.
_ONLY_KERBEROS = (
    "Only Kerberos is accepted here: let the client call the service by the name of its SPN, not "
    "by an IP address, register that SPN, and check that the client has a ticket (klist)"
)


def _read(token: bytes) -> NegTokenResp:
    """Return the peer's NegTokenResp. Raises ApError for a rejection."""
    if token[:1] != _NEG_TOKEN_RESP:
        found = what_is(token)
        if found is not None:
            raise DecodeError(f"the peer sent {found}, where an answer of SPNEGO belongs")
    message = NegTokenResp.decode(token)
    if log.on():
        state = None if message.neg_state is None else NegState(message.neg_state).name
        log.debug(
            "NegTokenResp received: %s%s",
            state,
            " with mechListMIC" if message.mech_list_mic else "",
        )
    if message.neg_state == _REJECT:
        raise _rejected(message)
    if hmac.compare_digest(message.mech_list_mic or b"", message.response_token or b""):
        # Windows 2000 sends its token in both places: this is not a MIC.
        return replace(message, mech_list_mic=None)
    return message


def answered_by_negotiation(token: bytes) -> KerberosError:
    """Return the error for a NegTokenResp that answers a Kerberos token without SPNEGO."""
    message = NegTokenResp.decode(token)
    advice = 'it wants SPNEGO: pass mechanism="negotiate"'
    if message.neg_state != _REJECT:
        return MutualAuthenticationError(
            f"the service answered with a negotiation instead of an AP-REP: {advice}"
        )
    error = _rejected(message)
    if message.response_token and error.code != ErrorCode.KRB_ERR_GENERIC:
        return error  # the service has read our token: its KRB-ERROR says more
    return ApError(
        f"the service rejected our token by SPNEGO. Its log may tell why; or {advice}",
        code=error.code,
    )


def _rejected(message: NegTokenResp) -> ApError:
    if message.response_token:
        try:
            tok_id, inner = unframe_any(message.response_token)
            if tok_id == TOK_KRB_ERROR:
                return peer_refused(inner)
        except KerberosError as error:
            log.debug("the token in the rejection is unreadable: %s", error)
    return ApError(
        "the peer rejected the negotiation: it does not accept our Kerberos. Its log may tell why",
        code=ErrorCode.KRB_ERR_GENERIC,
    )


def _rejection(inner: bytes | None) -> bytes:
    return NegTokenResp(_REJECT, None, inner).encode()


def _is_bare(token: bytes) -> bool:
    """Return whether this is a Kerberos token in its GSS-API frame, without SPNEGO."""
    return token[:1] == _FRAME and is_framed_for(token, KRB5_MECH_OID)


def _check_hints(hints: bytes, mechanisms: tuple[bytes, ...]) -> None:
    offered = NegTokenInit2.decode(unframe_mechanism(hints, SPNEGO_OID)).mech_types
    if not set(offered) & set(mechanisms):
        raise UnsupportedError(
            f"the service offers {mechanism_names(offered[:8]) or 'nothing'}, but not Kerberos"
        )


def _chosen(reply: NegTokenResp, mechanisms: tuple[bytes, ...]) -> bool:
    """Return whether the acceptor's first answer requires mechListMICs.

    Raises UnsupportedError if the acceptor did not choose Kerberos. Source: RFC 4178 4.2.2.
    """
    if reply.neg_state is None:
        raise ProtocolError("the service's first answer has no negState", expected="negState")
    # Java leaves supportedMech out, Samba uses either name. Both mean the mechanism of our token.
    mechanism = reply.supported_mech
    if mechanism is not None and mechanism not in mechanisms:
        advice = {
            NTLM_OID: "give it a keytab and register its SPN",
            NEGOEX_OID: "configure it for Kerberos",
        }
        raise UnsupportedError(
            f"the service chose {mechanism_names([mechanism])}, which this side did not offer: "
            f"{advice.get(mechanism, 'it breaks RFC 4178')}"
        )
    return reply.neg_state == _REQUEST_MIC


def _next_leg(kerberos: _Kerberos, message: NegTokenResp) -> bytes | None:
    """Pass the Kerberos token of `message` to the context inside, and return its answer."""
    if kerberos.complete:
        if message.response_token:
            raise ProtocolError("a Kerberos token came after the last one")
        return None
    if not message.response_token:
        raise ProtocolError(
            "the negotiation token holds no Kerberos token", expected="responseToken"
        )
    return kerberos.step(message.response_token)


def _take_mic(kerberos: _Kerberos, offered: tuple[bytes, ...], message: NegTokenResp) -> bool:
    """Verify the mechListMIC of `message`. Return whether there is one. Source: RFC 4178 5."""
    mic = message.mech_list_mic
    if mic is None:
        return False
    if not kerberos.complete:
        raise ProtocolError("a mechListMIC came before the Kerberos context was complete")
    try:
        kerberos.messages().verify_mic(encode_mech_types(offered), mic)
    except SequenceError as error:
        # Windows numbers this token 0, and its messages from the initial number on. The token is
        # genuine: otherwise the error would be another one. It is not a copy: only one is accepted.
        if error.reason == "gap":
            raise
        log.debug("mechListMIC: verified; its sequence number is not the expected one")
    else:
        log.debug("mechListMIC: verified")
    return True
