"""Asking domain controllers in which site this machine is, by a datagram. Source: MS-ADTS 6.3.3.

Anyone may have written the answer. It chooses which DNS records of the domain come first, and
nothing else.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from purekrb.errors import DecodeError, TransportError, TransportTimeoutError
from purekrb.io.blocking import wait_ready
from purekrb.io.steps import Wait
from purekrb.kdc.attempt import open_socket
from purekrb.kdc.records import SocketAddress, lookup_srv, order_by_rfc2782
from purekrb.log import Log
from purekrb.messages.cldap import Netlogon, decode_answer, encode_ping
from purekrb.system import random_bytes

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = ["find_site", "ping"]

_log = Log("purekrb.kdc")

#: The most domain controllers that are asked, at the same time, and the seconds for their answers.
MAX_CONTROLLERS = 4
TIMEOUT = 1.0
_LARGEST = 65535
#: The name of a site, which is a label in DNS.
_SITE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def find_site(
    resolver: Resolver, addresses_of: Callable[[str, int], list[SocketAddress]], domain: str
) -> str:
    """Return the site of this machine that a domain controller of `domain` names, or "". Blocks.

    `addresses_of(host, port)` looks up a host. Raises TransportError (TransportTimeoutError) if
    none answers, or DNS does not.
    """
    records = lookup_srv(resolver, f"_ldap._tcp.dc._msdcs.{domain}.", "udp")
    addresses: list[SocketAddress] = []
    for controller in order_by_rfc2782(records)[:MAX_CONTROLLERS]:
        try:
            addresses += addresses_of(controller.host, controller.port)[:1]
        except TransportError as error:
            _log.debug("%s is not asked for the site: %s", controller.host, error)
    site = ping(addresses, domain, TIMEOUT).client_site if addresses else ""
    return site if _SITE.fullmatch(site) else ""


def ping(addresses: Sequence[SocketAddress], domain: str, timeout: float) -> Netlogon:
    """Return what the first domain controller of `domain` says that answers. Blocks.

    Raises TransportTimeoutError if none answers within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    message_id = int.from_bytes(random_bytes(4), "big") >> 1
    request = encode_ping(domain, message_id)
    asked: list[socket.socket] = []
    try:
        for address in addresses:
            try:
                sock = open_socket(address, socket.SOCK_DGRAM)
                asked.append(sock)
                sock.send(request)
            except OSError as error:
                _log.debug("%s is not asked for the site: %s", address.sockaddr[0], error)
        while asked and time.monotonic() < deadline:
            for sock in wait_ready(Wait(asked, [], deadline)):
                answer = _answer(sock, message_id, domain)
                if answer is not None:
                    _log.debug("%s says: the site is %r", answer.host, answer.client_site)
                    return answer
    finally:
        for sock in asked:
            sock.close()
    raise TransportTimeoutError(f"no domain controller of {domain} answered within {timeout} s")


def _answer(sock: socket.socket, message_id: int, domain: str) -> Netlogon | None:
    """Return the answer that has arrived if it fits the request."""
    try:
        number, answer = decode_answer(sock.recv(_LARGEST))
    except (OSError, DecodeError) as error:
        _log.debug("an answer about the site is ignored: %s", error)
        return None
    if number != message_id or answer.domain.lower() != domain.lower():
        _log.debug("an answer about the site of %s is ignored", answer.domain)
        return None
    return answer
