"""Steps at the service: its name in the directory, and what a URL offers and proves."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from purekrb.directory import spns
from purekrb.directory.account_state import (
    account_findings,
    etype_finding,
    read_state,
    suspects_rc4,
)
from purekrb.directory.accounts import Account
from purekrb.directory.connect import Options, Sessions, connect
from purekrb.doctor.examination import Examination
from purekrb.errors import DecodeError, KerberosError, UnsupportedError
from purekrb.findings import Status, split_remedy
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.initiator import Initiator
from purekrb.integrations.http.headers import find_challenge, write_field
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import lookup_srv
from purekrb.names import Principal
from purekrb.system import now

__all__ = ["directory", "service"]


def directory(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The SPN in the directory: once, on which account, with which keys."""
    name, credential = exam.service, exam.credential
    if exam.target_error is not None:
        text, remedy = split_remedy(exam.target_error)
        yield "failed", text, remedy or "call the service by its DNS name, for which it has an SPN"
        return
    if name is None:
        yield "skipped", "no service is named", ""
        return
    if credential is None:
        yield "skipped", "without a ticket, the directory does not answer", "get one: purekrb kinit"
        return
    if exam.directory_url is None and not _has_directory(exam, name.realm):
        yield "skipped", f"no directory of {name.realm} is known", ""
        return
    options = Options(timeout=exam.timeout, ca_file=exam.ca_file)
    domain = name.realm.lower()
    sessions = connect(
        exam.directory_url, credential, exam.config, exam.directory_target, domain, options, None
    )
    try:
        yield from _spn(sessions, name)
    finally:
        sessions.close()


def _has_directory(exam: Examination, realm: str) -> bool:
    if not exam.config.dns_lookup_kdc:
        return False
    try:
        name = f"_ldap._tcp.dc._msdcs.{realm.lower()}."
        return bool(lookup_srv(Locator(exam.config).resolver(), name, "tcp"))
    except KerberosError:
        return False


def _spn(sessions: Sessions, name: Principal) -> Iterator[tuple[Status, str, str]]:
    spn = "/".join(name.components)
    found = spns.find(sessions.forest, spn)
    if not found:
        general = spns.stands_for(sessions.main, spn)
        through = spns.find(sessions.forest, general) if general else []
        if not through:
            yield (
                "failed",
                f"no account of the directory has {spn}",
                "register it on the account that runs the service: purekrb spn add "
                f"{spn} --account ACCOUNT",
            )
            return
        yield "ok", f"{spn} is served by {general}", ""
        found = through
    if len(found) > 1:
        owners = ", ".join(account.dn for account in found)
        yield (
            "failed",
            f"{len(found)} accounts have {spn}: {owners}; the KDC gives no ticket for it",
            "remove it from all but the one that runs the service: purekrb spn delete "
            f"{spn} --account ACCOUNT",
        )
        return
    yield from _account(sessions, found[0], spn)


def _account(sessions: Sessions, account: Account, spn: str) -> Iterator[tuple[Status, str, str]]:
    state = read_state(sessions.domain_of(account.dn), account)
    wrong = list(account_findings(state, now()))
    if suspects_rc4(state):
        wrong.append(etype_finding(state))
    facts = f"{spn} is on {account.dn} alone; {state.facts}"
    if not wrong:
        yield "ok", facts, ""
    for finding in wrong:
        yield finding.status, f"{facts}; {finding.text}", finding.remedy
        facts = spn


# -- URLs ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an HTTP server said to one request."""

    status: int
    challenges: list[str]
    location: str
    server: str
    certificate: bytes | None

    @property
    def token(self) -> bytes | None:
        """The token of its Negotiate challenge; b"" without one, None without a challenge."""
        return find_challenge(self.challenges)


def service(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """What the service offers, whether it binds to TLS, and whether it proves itself."""
    if not exam.url:
        yield "skipped", "no URL and no host:port is given", ""
        return
    parts = urlsplit(exam.url)
    if parts.scheme in ("ldap", "ldaps"):
        yield from _ldap(exam)
    elif parts.scheme in ("http", "https"):
        yield from _http(exam)
    else:
        yield (
            "failed",
            f"{parts.scheme}:// is not known here",
            "give a URL of http, https, ldap, ldaps",
        )


def _ldap(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    if exam.credential is None:
        yield "skipped", "without a ticket, no context can be made", "get one: purekrb kinit"
        return
    options = Options(timeout=exam.timeout, ca_file=exam.ca_file)
    domain = exam.realm.lower()
    sessions = connect(
        exam.url, exam.credential, exam.config, exam.directory_target, domain, options, None
    )
    sessions.close()
    tls = exam.url.startswith("ldaps")
    how = "bound to its TLS certificate" if tls else "with messages that are encrypted"
    yield "ok", f"the directory has proved itself by Kerberos, {how}", ""


def _http(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    try:
        first = _get(exam, None)
    except (OSError, http.client.HTTPException) as error:
        yield "failed", f"{exam.url} does not answer in HTTP: {_why(error)}", _what_to_try(error)
        return
    offers = ", ".join(challenge.split(" ")[0] for challenge in first.challenges) or "nothing"
    text = f"{exam.url}: status {first.status}, it offers {offers}"
    if first.server:
        text += f" ({first.server})"
    if first.location:
        yield (
            "warning",
            f"{text}, and refers to {first.location}",
            f"ask the doctor about that place: purekrb doctor {first.location}",
        )
    if first.token is None:
        if first.status == 401:
            yield "failed", text, "switch Negotiate (Kerberos) on at the service"
        elif not first.location:
            yield (
                "warning",
                f"{text}: it asks for no login here",
                "give the path of a protected page",
            )
        return
    yield "ok", text, ""
    if exam.ticket is None:
        yield "skipped", "there is no ticket, so that nothing can be proved", ""
        return
    yield from _prove(exam, _bindings(first))


def _bindings(answer: _Answer) -> ChannelBindings | None:
    if answer.certificate is None:
        return None
    try:
        return ChannelBindings.tls_server_end_point(answer.certificate)
    except (DecodeError, UnsupportedError):
        return None


def _prove(
    exam: Examination, bindings: ChannelBindings | None
) -> Iterator[tuple[Status, str, str]]:
    """Log in with channel bindings where there is TLS; then, to compare, without."""
    status, text, remedy = _login(exam, bindings)
    if bindings is None:
        if status == "failed":
            remedy = remedy or _SEE_LOG
            if not exam.url.startswith("https"):
                remedy += "; if it requires channel bindings, use https"
        yield status, text, remedy
        return
    if status == "ok":
        yield status, f"{text}; the context is bound to the certificate of its TLS", ""
        without = _login(exam, None)[0]
        if without == "ok":
            yield (
                "ok",
                "channel bindings are not required: a client without them is let in, too",
                "",
            )
        else:
            yield "ok", "channel bindings are required: a client without them is refused", ""
        return
    if _login(exam, None)[0] == "ok":
        yield (
            "failed",
            f"with channel bindings, {text}; without them, the login succeeds",
            "something in front of the service ends TLS with another certificate: give the service "
            "that certificate, or let it check no bindings",
        )
        return
    yield status, text, remedy or _SEE_LOG


_SEE_LOG = "look at the log of the service: it says which check failed"


def _login(exam: Examination, bindings: ChannelBindings | None) -> tuple[Status, str, str]:
    """Return what comes of one login."""
    if exam.ticket is None:
        return "skipped", "there is no ticket", ""
    context = Initiator(
        exam.ticket,
        mechanism="negotiate",
        channel_bindings=bindings,
        permitted_etypes=exam.config.permitted_etypes,
        send_client_target=True,
    )
    token = context.step()
    exam.record("client", "service", token or b"")
    try:
        answer = _get(exam, write_field(token))
        reply = answer.token
        if reply:
            exam.record("service", "client", reply)
        if answer.status == 401 and not reply:
            return "failed", "the service refuses the token without a word (401)", ""
        if not reply:
            return (
                "failed",
                f"the service answers {answer.status} without a token: it has not proved itself",
                "have the service, or what is in front of it, send its token back "
                "(WWW-Authenticate)",
            )
        context.step(reply)
        if answer.status == 401:
            return "failed", "the service refuses the login (401)", ""
    except KerberosError as error:
        return "failed", *split_remedy(error)
    except (OSError, http.client.HTTPException) as error:
        return "failed", f"the service does not answer: {_why(error)}", ""
    if not context.mutual:
        return "warning", f"the service answers {answer.status}, but has not proved itself", ""
    return "ok", f"the service answers {answer.status} and has proved itself", ""


def _get(exam: Examination, authorization: str | None) -> _Answer:
    """Send one GET request, on a connection of its own."""
    parts = urlsplit(exam.url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(
            cafile=None if exam.ca_file is None else str(exam.ca_file)
        )
        connection = http.client.HTTPSConnection(host, port, timeout=exam.timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=exam.timeout)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"User-Agent": "purekrb-doctor", "Accept": "*/*"}
    if authorization is not None:
        fields["Authorization"] = authorization
    try:
        connection.request("GET", path, headers=fields)
        sock = connection.sock
        certificate = sock.getpeercert(True) if isinstance(sock, ssl.SSLSocket) else None
        response = connection.getresponse()
        return _Answer(
            response.status,
            response.msg.get_all("WWW-Authenticate") or [],
            (response.getheader("Location") or "").partition("?")[0],  # it may hold a secret
            response.getheader("Server") or "",
            certificate,
        )
    finally:
        connection.close()


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, socket.gaierror):
        return "the name of its host does not resolve"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _what_to_try(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "name the CA that issued it: --ca-file"
    return "check the host and the port, and that the service runs"
