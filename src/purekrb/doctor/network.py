"""Steps on the network: DNS, each KDC by UDP and TCP, and the clock against theirs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import timedelta

from purekrb.constants import ErrorCode
from purekrb.doctor.examination import MAX_KDCS, Examination
from purekrb.doctor.report import Status
from purekrb.errors import KerberosError
from purekrb.kdc.hosts import canonicalize_host
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import SrvRecord, lookup_srv, lookup_uri
from purekrb.krb5conf.config import KDC_PORT
from purekrb.krb5conf.spelling import unknown_realm
from purekrb.messages.ap import KrbError

__all__ = ["clock", "dns", "kdcs"]

#: From here on, a clock that drifts is told, though it still works.
_DRIFT = timedelta(seconds=30)
_NO_REALM = "no realm is known"


def clock(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """This clock against the KDCs'."""
    offsets = [answer for answer in exam.answers if answer.offset is not None]
    if not offsets:
        yield "skipped", "no KDC has told its time", ""
        return
    skew = timedelta(seconds=exam.config.clockskew)
    for answer in offsets:
        offset = answer.offset or timedelta(0)
        seconds = offset.total_seconds()
        where = f"{answer.kdc.host} ({answer.transport})"
        way = "behind" if seconds > 0 else "ahead of"
        text = f"this clock is {abs(seconds):.1f} s {way} that of {where}"
        if abs(offset) > skew:
            yield (
                "failed",
                f"{text}, more than the {exam.config.clockskew:g} s that are permitted",
                "set the clock by NTP (chronyc makestep, or timedatectl set-ntp true)",
            )
        elif abs(offset) > _DRIFT:
            yield "warning", f"{text}: it drifts", "set the clock by NTP, and check that NTP runs"
        else:
            yield "ok", text, ""


def dns(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """What the names resolve to: the KDCs', the service's, and the realm's SRV records."""
    hosts = {kdc.host: kdc.port for kdc in exam.kdcs[:MAX_KDCS]}
    service = exam.service
    if service is not None and len(service.components) > 1:
        hosts.setdefault(service.components[1].partition(":")[0], 0)
    locator = Locator(exam.config)
    for host, port in hosts.items():
        if _is_address(host):
            continue
        try:
            found = locator.addresses(host, port)
        except KerberosError as error:
            remedy = "correct the name in krb5.conf or in DNS" if port else _NO_ADDRESS
            yield "failed" if port else "warning", f"{host} does not resolve: {error}", remedy
            continue
        addresses = ", ".join(dict.fromkeys(str(each.sockaddr[0]) for each in found))
        yield "ok", f"{host}: {addresses}", ""
        if not port:
            yield from _alias(host, exam.timeout)
    if not exam.realm:
        yield "skipped", f"SRV records: {_NO_REALM}", ""
    elif exam.config.kdcs(exam.realm) and not exam.config.dns_lookup_kdc:
        yield "skipped", "SRV records: krb5.conf names the KDCs, and DNS is not asked", ""
    else:
        yield from _records(exam, locator)
    if not hosts:
        yield "skipped", "there is no host name to resolve", ""


_NO_ADDRESS = "check the spelling of the host, or register it in DNS"


def _alias(host: str, timeout: float) -> Iterator[tuple[Status, str, str]]:
    """Say so if the service's host is an alias. It is not followed: nobody signs what DNS says."""
    name = canonicalize_host(host, timeout=timeout)
    if name.count(".") and name != host.lower().rstrip("."):
        yield (
            "warning",
            f"{host} is an alias of {name}; purekrb asks for a ticket for the alias",
            f"register an SPN for {host} as well, or call the service by {name}",
        )


def _records(exam: Examination, locator: Locator) -> Iterator[tuple[Status, str, str]]:
    """What DNS says of the realm's KDCs: URI records, and SRV records of the site and of all."""
    needed = not exam.config.kdcs(exam.realm)
    domain = f"{exam.realm}."
    names = [(f"_kerberos._{transport}.{domain}", transport) for transport in ("udp", "tcp")]
    found: list[SrvRecord] = []
    try:
        resolver = locator.resolver()
        if exam.config.dns_uri_lookup:
            found = lookup_uri(resolver, f"_kerberos.{domain}", KDC_PORT)
            if found:
                servers = ", ".join(str(record.kdc) for record in found)
                yield "ok", f"_kerberos.{exam.realm}: {servers} (URI records)", ""
        site = locator.site(exam.realm)
        if site:
            yield "ok", f"this machine is in the site {site}", ""
            scopes = ("dc._msdcs.", "")
            near = [(f"_kerberos._tcp.{site}._sites.{scope}{domain}", "tcp") for scope in scopes]
            names = near + names
        elif exam.config.ad_site_discovery:
            yield "warning", "no domain controller has told the site of this machine", _NO_SITE
        for name, transport in names:
            records = lookup_srv(resolver, name, transport)
            if records:
                servers = ", ".join(str(record.kdc) for record in records)
                yield "ok", f"{name[:-1]}: {servers}", ""
            elif "_sites" not in name:
                missing = needed and not found
                yield (
                    "warning" if missing else "skipped",
                    f"{name[:-1]}: there is no SRV record",
                    f"add the KDCs of {exam.realm} to DNS or to krb5.conf" if missing else "",
                )
    except KerberosError as error:
        yield (
            "failed" if needed and not found else "warning",
            f"DNS does not answer: {error}",
            "check the name servers in /etc/resolv.conf",
        )


_NO_SITE = "let UDP to port 389 of the domain controllers pass, or set sitename in krb5.conf"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def kdcs(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """Each KDC by each transport, with the time that it takes."""
    if not exam.realm:
        yield "skipped", _NO_REALM, "name one: alice@EXAMPLE.COM, or default_realm in krb5.conf"
        return
    if not exam.kdcs:
        raise unknown_realm(exam.realm, exam.config, of_client=True)
    alive = exam.reachable is not None
    for answer in exam.answers:
        proxy = answer.transport == "https"
        where = f"{answer.kdc.host} port {answer.kdc.port} by {answer.transport.upper()}"
        if answer.message is None:
            yield (
                "warning" if alive else "failed",
                f"{answer.kdc if proxy else where}: {answer.error}",
                f"check that a KDC proxy is at {answer.kdc}, and its certificate"
                if proxy
                else f"check that a KDC runs on {answer.kdc.host} and that no firewall drops "
                f"{answer.transport.upper()} port {answer.kdc.port}",
            )
            continue
        text = f"{answer.kdc if proxy else where}: answers in {1000 * answer.seconds:.0f} ms"
        if _is_of_another_realm(answer.message):
            yield (
                "failed",
                f"{text}, but it does not serve {exam.realm}",
                "correct the realm (in capitals as a rule) or the KDC in krb5.conf",
            )
        else:
            yield "ok", text, ""


def _is_of_another_realm(message: object) -> bool:
    return isinstance(message, KrbError) and message.error_code == ErrorCode.KDC_ERR_WRONG_REALM
