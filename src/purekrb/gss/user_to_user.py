"""User-to-user: a service without a key of its own proves itself by its TGT.

    initiator                                             acceptor
    04 00 | TGT-REQ, the service's name ------------------->
        <-------------------------------------- 04 01 | TGT-REP, the service's TGT
    (a KDC makes a ticket under the session key of that TGT)
    01 00 | AP-REQ, USE-SESSION-KEY ----------------------->
        <-------------------------------------- 02 00 | AP-REP

Only who has logged in as the service, and so knows the session key, reads the ticket. A TGT is no
secret; the KDC makes sure that it is that of the service. Source: RFC 4120 3.7;
draft-swift-win2k-krb-user2user-03.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from purekrb.constants import DEFAULT_ETYPES, USER_TO_USER_OID, ErrorCode, Flag
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import ApError, ContextError, CredentialError, DecodeError
from purekrb.exchanges.service_keys import is_for
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.context import MAX_TOKEN, SecurityContext
from purekrb.gss.framing import TOK_KRB_ERROR, frame, unframe
from purekrb.gss.initiator import Initiator
from purekrb.gss.krb_error import peer_refused
from purekrb.log import Log
from purekrb.messages.user2user import TgtReply, TgtRequest
from purekrb.names import Principal
from purekrb.system import Clock, RandomBytes, now, random_bytes

if TYPE_CHECKING:
    from purekrb.credentials.credential import Credential
    from purekrb.gss.negotiate import Handshake

__all__ = ["UserToUserInitiator", "show_tgt", "tgt_of"]

log = Log("purekrb.gss")

TOK_TGT_REQ = b"\x04\x00"
TOK_TGT_REP = b"\x04\x01"

#: Gets the ticket for the service whose TGT (DER) this is.
TicketUnder = Callable[[bytes], ServiceTicket]


class UserToUserInitiator(Initiator):
    """An initiator that asks the service for its TGT; `initiate` makes one.

    `ticket_under` gets the ticket from a KDC, so that the second `step` waits for it; in asyncio,
    let a thread call `step`. `service` is whom the context is for. With `negotiate`, SPNEGO is
    around it. The other arguments are those of `Initiator`.
    """

    may_wait = True
    _mechanism = USER_TO_USER_OID

    def __init__(
        self,
        service: Principal,
        ticket_under: TicketUnder,
        *,
        negotiate: bool = False,
        flags: Flag = Flag.DEFAULT,
        channel_bindings: ChannelBindings | None = None,
        permitted_etypes: tuple[int, ...] = DEFAULT_ETYPES,
        max_token: int = MAX_TOKEN,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> None:
        SecurityContext.__init__(
            self,
            "negotiate" if negotiate else "kerberos",
            channel_bindings,
            permitted_etypes,
            True,
            clock,
            random,
            max_token,
        )
        self._service, self._ticket_under = service, ticket_under
        self._wanted = flags
        self._flags = int(flags)
        self._send_target, self._no_integrity = True, False

    def _begin(self, in_token: bytes | None) -> Handshake:
        if self._negotiate:
            from purekrb.gss.negotiate import initiate  # only negotiations pay for the import

            return initiate(
                self._by_their_tgt, self._messages, in_token, mechanisms=(USER_TO_USER_OID,)
            )
        if in_token is not None:
            raise ContextError("an initiator's first step takes no token")
        return self._by_their_tgt()

    def _by_their_tgt(self) -> Handshake:
        """Yield the TGT-REQ, get a ticket under the TGT that comes, and go on with the AP-REQ."""
        service = self._service
        request = TgtRequest(service.name, service.realm or None)
        log.debug("TGT-REQ: asking %s for its TGT", service)
        reply = yield frame(TOK_TGT_REQ, request.encode(), USER_TO_USER_OID)
        tok_id, inner = unframe(reply, USER_TO_USER_OID)
        if tok_id == TOK_KRB_ERROR:
            raise peer_refused(inner)
        if tok_id != TOK_TGT_REP:
            raise DecodeError(
                f"the service answered with a token {tok_id.hex()}, where its TGT belongs"
            )
        ticket = self._ticket_under(TgtReply.decode(inner).ticket)
        self._take(ticket, None, self._wanted, False)
        return (yield from self._kerberos())


def tgt_of(own: Credential) -> ServiceTicket | None:
    """Return the TGT of the acceptor's own account that is valid now, or None."""
    if own.impersonation is not None:
        return None
    try:
        own.refresh()  # another program may have renewed it
    except CredentialError as error:
        log.debug("no TGT for user-to-user authentication: %s", error)
        return None
    realm = own.ccache.principal.realm
    return own.ccache.find(Principal(("krbtgt", realm), realm))


def show_tgt(
    own: Credential, names: Callable[[], list[Principal]], token: bytes
) -> Generator[bytes, bytes, tuple[bytes, ServiceTicket]]:
    """The acceptor's side: yield our TGT; return the token that comes next, and that TGT.

    `names` are those that this acceptor has besides the TGT's client. Raises ApError.
    """
    tok_id, inner = unframe(token, USER_TO_USER_OID)
    if tok_id != TOK_TGT_REQ:
        raise ApError(
            "the initiator did not ask for our TGT before its AP-REQ",
            code=ErrorCode.KRB_AP_ERR_MSG_TYPE,
        )
    request = TgtRequest.decode(inner)
    tgt = tgt_of(own)
    if tgt is None:
        raise ApError(
            f"a client asks for the TGT of {own.principal}, and there is none: get one first "
            "(KdcClient.get_tgt), and renew it before it ends",
            code=ErrorCode.KRB_AP_ERR_NO_TGT,
        )
    _check_asked(request, [tgt.client, *names()])
    log.debug("TGT-REP: the client gets the TGT of %s", tgt.client)
    reply = yield frame(TOK_TGT_REP, TgtReply(tgt.ticket).encode(), USER_TO_USER_OID)
    return reply, tgt


def _check_asked(request: TgtRequest, ours: list[Principal]) -> None:
    """Refuse a client that asks for another service. Nothing in the request is authentic."""
    if request.server_name is None or not request.server_name.components:
        return
    asked = request.server_name.principal(request.realm or "")
    if not any(is_for(asked, name) or is_for(name, asked) for name in ours):
        raise ApError(
            f"the client asks for {asked}, but this acceptor is {' or '.join(map(str, ours[:10]))}: "
            "if that is another name of its account, pass service=",
            code=ErrorCode.KRB_AP_ERR_NOT_US,
        )
