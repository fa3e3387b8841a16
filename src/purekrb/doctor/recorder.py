"""A KDC client whose messages are recorded, and questions to one KDC that prove nothing.

A question is an AS-REQ without pre-authentication: the KDC says what the account needs, and counts
nothing against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from purekrb.constants import NameType
from purekrb.errors import DecodeError, KerberosError
from purekrb.exchanges.runner import KdcRequest
from purekrb.io import blocking
from purekrb.io.steps import Steps
from purekrb.kdc.call import Call
from purekrb.kdc.client import KdcClient
from purekrb.kdc.locate import Locator
from purekrb.kdc.transport import ask
from purekrb.krb5conf.config import Config, KdcAddress
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsRep, AsReq, KdcReqBody, TgsRep, decode_kdc_reply
from purekrb.names import Principal
from purekrb.system import now, random_bytes

__all__ = ["Answered", "RecordingClient", "Record", "question", "put"]

#: Called with the sender, the receiver, and the bytes of a message.
Record = Callable[[str, str, bytes], None]


class _RecordingCall(Call):
    record: Record

    def ask(self, request: KdcRequest) -> Steps[bytes]:
        """Return the reply to one request, and record both."""
        kdc = f"KDC of {request.realm}"
        self.record("client", kdc, request.message)
        reply = yield from super().ask(request)
        self.record(kdc, "client", reply)
        return reply


class RecordingClient(KdcClient):
    """A KdcClient that passes each message to `record`."""

    def __init__(self, config: Config, record: Record, timeout: float) -> None:
        super().__init__(config, timeout=timeout)
        self._record = record

    def _new_call(self) -> Call:
        plain = super()._new_call()
        call = _RecordingCall(plain._locator, plain._deadline, plain._dial)
        call.record = self._record
        return call


@dataclass(frozen=True, slots=True)
class Answered:
    """What one KDC said over one transport: its message, or why there is none."""

    kdc: KdcAddress
    transport: str
    seconds: float
    message: AsRep | TgsRep | KrbError | None
    error: str = ""
    #: The KDC's clock minus ours.
    offset: timedelta | None = None


def question(client: Principal, etypes: tuple[int, ...], at: datetime) -> bytes:
    """Return an AS-REQ for a TGT of `client`, without any proof."""
    service = Principal(("krbtgt", client.realm), client.realm, NameType.SRV_INST)
    body = KdcReqBody(
        kdc_options=0,
        cname=client.name,
        realm=client.realm,
        sname=service.name,
        from_=None,
        till=(at + timedelta(hours=10)).replace(microsecond=0),
        rtime=None,
        nonce=int.from_bytes(random_bytes(4), "big") >> 1,
        etype=etypes,
    )
    return AsReq((), body).encode()


class _One(Locator):
    """Knows one KDC, whatever the realm."""

    def __init__(self, config: Config, kdc: KdcAddress) -> None:
        super().__init__(config)
        self._kdc = kdc

    def configured(self, realm: str, *, primary: bool = False) -> tuple[KdcAddress, ...]:
        return (self._kdc,)


def put(
    config: Config, kdc: KdcAddress, transport: str, realm: str, message: bytes, timeout: float
) -> Answered:
    """Send `message` to one KDC over one transport, and return what it answers."""
    locator = _One(config, replace(kdc, transport=transport))
    started, before = time.monotonic(), now()
    try:
        steps = ask(locator, realm, message, started + timeout, clock=time.monotonic)
        reply = decode_kdc_reply(blocking.drive(steps).reply)
    except DecodeError as error:
        return Answered(kdc, transport, time.monotonic() - started, None, str(error))
    except KerberosError as error:
        return Answered(kdc, transport, time.monotonic() - started, None, _why(error))
    seconds = time.monotonic() - started
    offset = None
    if isinstance(reply, KrbError):
        theirs = reply.stime + timedelta(microseconds=reply.susec)
        offset = theirs - (before + timedelta(seconds=seconds / 2))
    return Answered(kdc, transport, seconds, reply, "", offset)


def _why(error: KerberosError) -> str:
    """Return the reason within the error of the race: it has one KDC alone."""
    text = str(error)
    for mark in (": ", ": "):
        text = text.partition(mark)[2] or text
    return text.partition(". Check")[0]
