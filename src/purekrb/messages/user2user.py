"""The messages by which a service shows its TGT to a client, for user-to-user authentication.

Source: draft-swift-win2k-krb-user2user-03 3.
"""

from __future__ import annotations

from typing import ClassVar

from purekrb.constants import MessageType
from purekrb.messages.ap import NAME, PVNO, TICKET_TAG
from purekrb.messages.der import Any_, Field, GeneralString, Integer, Message, Sequence
from purekrb.names import PrincipalName
from purekrb.records import record

__all__ = ["TgtReply", "TgtRequest"]

_PVNO = Integer(PVNO, PVNO)


@record
class TgtRequest(Message):
    """KERB-TGT-REQUEST ::= SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (16), server-name [2] PrincipalName OPTIONAL,
    realm [3] Realm OPTIONAL }
    """

    pvno: ClassVar[int] = PVNO
    msg_type: ClassVar[MessageType] = MessageType.TGT_REQ
    server_name: PrincipalName | None
    realm: str | None


TgtRequest.schema = Sequence(
    lambda pvno, msg_type, *rest: TgtRequest(*rest),
    Field(0, "pvno", _PVNO),
    Field(1, "msg_type", Integer(MessageType.TGT_REQ, MessageType.TGT_REQ)),
    Field(2, "server_name", NAME, optional=True),
    Field(3, "realm", GeneralString(), optional=True),
)


@record
class TgtReply(Message):
    """KERB-TGT-REPLY ::= SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (17), ticket [2] Ticket }

    `ticket` holds the DER bytes of the Ticket.
    """

    pvno: ClassVar[int] = PVNO
    msg_type: ClassVar[MessageType] = MessageType.TGT_REP
    ticket: bytes


TgtReply.schema = Sequence(
    lambda pvno, msg_type, ticket: TgtReply(ticket),
    Field(0, "pvno", _PVNO),
    Field(1, "msg_type", Integer(MessageType.TGT_REP, MessageType.TGT_REP)),
    Field(2, "ticket", Any_(TICKET_TAG)),
)
