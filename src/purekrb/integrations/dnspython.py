"""Kerberos for dnspython: secure DNS updates by GSS-TSIG, in pure Python. Source: RFC 3645, RFC 2930.

key = purekrb.integrations.dnspython.negotiate("dc1.ad.test")
update = dns.update.UpdateMessage("ad.test", keyring=key, keyalgorithm=dns.tsig.GSS_TSIG)
"""

from __future__ import annotations

import socket
import uuid
from typing import Any, cast

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TKEY
import dns.tsig

from purekrb.channel.stream import MAX_ROUNDS
from purekrb.constants import Flag
from purekrb.credentials.credential import Credential
from purekrb.errors import IntegrityError, ProtocolError, TransportError
from purekrb.gss.context import SecurityContext
from purekrb.gss.initiator import Initiator
from purekrb.kdc.client import DEFAULT_TIMEOUT, Target, initiate
from purekrb.krb5conf.config import Config
from purekrb.system import now

__all__ = ["TsigContext", "negotiate"]

#: Several updates may be under way at once, over UDP: so no order, but no message twice.
_FLAGS = Flag.MUTUAL | Flag.INTEG | Flag.REPLAY
#: The mode of TKEY that carries GSS-API tokens. Source: RFC 2930 2.5.
_GSSAPI = 3
#: The size in bytes of the length of a request's MAC.
_MAC_LENGTH = 2
_LIFETIME = 3600  # seconds; the server decides


class TsigContext:
    """A context with the methods that `dns.tsig.GSSTSig` calls, for both sides."""

    def __init__(self, context: SecurityContext) -> None:
        self.context = context

    def step(self, token: bytes | None = None) -> bytes | None:
        """Take the peer's token and return the next one. An established context takes none."""
        return None if self.context.established else self.context.step(token)

    def get_signature(self, data: bytes) -> bytes:
        """Return the signature of a message."""
        return self.context.get_mic(data)

    def verify_signature(self, data: bytes, signature: bytes) -> None:
        """Raise unless `signature` is the peer's of that message."""
        try:
            self.context.verify_mic(data, signature)
        except IntegrityError:
            if not isinstance(self.context, Initiator):
                raise
            # RFC 8945 5.3.1: a response covers the request's MAC with its length before it. Samba
            # 4.17 leaves out the length, which is always that of a MIC, so nothing is lost.
            self.context.verify_mic(data[_MAC_LENGTH:], signature)


def negotiate(
    server: str,
    credential: Credential | None = None,
    config: Config | None = None,
    *,
    target: Target | None = None,
    address: str | None = None,
    port: int = 53,
    timeout: float = DEFAULT_TIMEOUT,
) -> dns.tsig.Key:
    """Return a TSIG key that `server`, a host name, has agreed on by TKEY.

    The server's SPN is DNS/server, unless `target` is given. `address` is its IP address, by
    default that of its name. Without `credential`, it is `Credential.default`. `timeout`
    is in seconds, for the KDCs and for each exchange with the server. Raises ProtocolError if the
    server refuses, TransportError if it does not answer, and the errors of `purekrb.initiate`.
    """
    context = initiate(
        f"DNS/{server}" if target is None else target,
        credential,
        config,
        flags=_FLAGS,
        mechanism="negotiate",
        timeout=timeout,
    )
    # Of one label: Samba does not find the end of a message whose TSIG has a compressed name.
    name = dns.name.from_text(f"{uuid.uuid4()}.")
    held: Any = TsigContext(context)  # dnspython passes it through
    key = dns.tsig.Key(name, held, dns.tsig.GSS_TSIG)
    token = context.step()
    for _ in range(MAX_ROUNDS):
        if token is None:
            return key
        answer = _ask(_query(key, token), address or server, port, timeout)
        token = _take(answer, key)
        if context.established and token is None:
            return key
    raise ProtocolError("the DNS server does not end the negotiation of a key", expected=MAX_ROUNDS)


def _query(key: dns.tsig.Key, token: bytes) -> dns.message.Message:
    """Return the query that carries our token. Source: RFC 3645 3.1.2."""
    moment = int(now().timestamp())
    record = dns.rdtypes.ANY.TKEY.TKEY(  # type: ignore[no-untyped-call]
        dns.rdataclass.ANY,
        dns.rdatatype.TKEY,
        dns.tsig.GSS_TSIG,
        moment,
        moment + _LIFETIME,
        _GSSAPI,
        dns.rcode.NOERROR,
        token,
    )
    query = dns.message.make_query(key.name, dns.rdatatype.TKEY, dns.rdataclass.ANY)
    query.keyring = dns.tsig.GSSTSigAdapter({key.name: key})  # type: ignore[no-untyped-call]
    section = query.find_rrset(
        query.additional, key.name, dns.rdataclass.ANY, dns.rdatatype.TKEY, create=True
    )
    section.add(record)
    return query


def _ask(query: dns.message.Message, where: str, port: int, timeout: float) -> Any:
    try:
        address = socket.getaddrinfo(where, port, type=socket.SOCK_STREAM)[0][4][0]
        return dns.query.tcp(query, str(address), timeout=timeout, port=port)
    except (OSError, EOFError, dns.exception.Timeout) as error:
        raise TransportError(
            f"the DNS server {where} port {port} does not answer: {error}"
        ) from None
    except dns.exception.DNSException as error:
        raise ProtocolError(f"the DNS server's answer to TKEY is not usable: {error}") from None


def _take(answer: dns.message.Message, key: dns.tsig.Key) -> bytes | None:
    """Give the token in the server's answer to the context; return our next one.

    dnspython has already done so for a signed answer. Source: RFC 3645 3.1.3.
    """
    rrset = answer.get_rrset(answer.answer, key.name, dns.rdataclass.ANY, dns.rdatatype.TKEY)
    record: Any = None if rrset is None else rrset[0]
    if answer.rcode() or record is None or record.error:
        code = dns.rcode.Rcode.make(answer.rcode() or (record.error if record is not None else 0))
        raise ProtocolError(
            f"the DNS server did not agree on a key ({code.name}): its log may tell why; "
            "or its SPN is another one, then pass target="
        )
    context: Any = key.secret
    return cast("TsigContext", context).step(record.key)
