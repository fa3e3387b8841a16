"""Steps with tickets: the user, the TGT, the service's ticket, its keytab, a whole handshake."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from purekrb.constants import ErrorCode, PaDataType, TicketFlags, asn1_flags, number_name
from purekrb.credentials import defaults
from purekrb.credentials.keytab import Keytab
from purekrb.directory.service_checks import NO_RC4, key_finding, ticket_finding, why_refused
from purekrb.doctor.examination import Examination
from purekrb.errors import (
    DecodeError,
    KerberosError,
)
from purekrb.exchanges.kdc_reply import ExchangeLabel, kdc_error
from purekrb.findings import Status, split_remedy
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.initiator import Initiator
from purekrb.keys import etype_name, etype_names
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsRep, EtypeInfo2, MethodData
from purekrb.names import Principal
from purekrb.replay import MemoryReplayCache

__all__ = ["user", "tgt", "ticket", "keytab", "handshake"]

_RC4 = 23
#: Padata that are hints, and no kind of pre-authentication.
_HINTS = {3, 11, 19, 133, 136, 149, 150, 165}


def etype_info(message: object) -> list[tuple[int, str | None]]:
    """Return the encryption types and salts in a KDC's message, in its order."""
    padata = []
    if isinstance(message, KrbError) and message.e_data:
        try:
            padata = list(MethodData.decode(message.e_data).entries)
        except DecodeError:
            return []
    elif isinstance(message, AsRep):
        padata = list(message.padata or ())
    for entry in padata:
        if entry.padata_type == PaDataType.ETYPE_INFO2:
            try:
                entries = EtypeInfo2.decode(entry.padata_value).entries
            except DecodeError:
                return []
            return [(e.etype, None if e.salt is None else e.salt.decode()) for e in entries]
    return []


def user(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The account of the user: whether it exists, its state, its keys. No password is tried."""
    client = exam.user
    if client is None:
        yield "skipped", "no user is named, and there is no ticket that names one", ""
        return
    if client.realm != exam.realm or exam.reachable is None:
        yield "skipped", f"no KDC of {client.realm} answers", ""
        return
    answer = exam.put_question(client)
    if answer is None or answer.message is None:
        yield "failed", f"the KDC did not answer: {answer.error if answer else ''}", ""
        return
    message = answer.message
    if isinstance(message, AsRep):
        yield (
            "warning",
            f"{client} needs no pre-authentication: anyone can get what the password is guessed by",
            "require pre-authentication for the account",
        )
        return
    if not isinstance(message, KrbError):
        return
    info = etype_info(message)
    ours = set(exam.config.tkt_etypes)
    if message.error_code == ErrorCode.KDC_ERR_PREAUTH_REQUIRED and ours & {e for e, _ in info}:
        salts = sorted({salt for _, salt in info if salt is not None})
        keys = etype_names(etype for etype, _ in info)
        salt = f" (salt {', '.join(map(repr, salts))})" if salts else ""
        yield "ok", f"{client} is known, with keys of {keys}{salt}; it {_kinds(message)}", ""
    elif message.error_code in (
        ErrorCode.KDC_ERR_PREAUTH_REQUIRED,
        ErrorCode.KDC_ERR_ETYPE_NOSUPP,
    ):
        yield _no_common_etype(exam, client, info)
    else:
        label = ExchangeLabel("AS", client, Principal(("krbtgt", client.realm), client.realm))
        yield "failed", *split_remedy(kdc_error(message, label))


def _kinds(message: KrbError) -> str:
    try:
        entries = MethodData.decode(message.e_data or b"").entries
    except DecodeError:
        return "asks for pre-authentication"
    names = [
        number_name(PaDataType, entry.padata_type).partition(" ")[0]
        for entry in entries
        if entry.padata_type not in _HINTS
    ]
    return f"asks for one of {', '.join(names)}"


def _no_common_etype(
    exam: Examination, client: Principal, info: list[tuple[int, str | None]]
) -> tuple[Status, str, str]:
    answer = exam.put_question(client, (*exam.config.tkt_etypes, _RC4))
    has = {etype for etype, _ in [*info, *etype_info(answer.message if answer else None)]}
    held = f"it has only keys of {etype_names(sorted(has))}" if has else "it has no such key"
    offered = etype_names(exam.config.tkt_etypes)
    return "failed", f"{client} has no key of {offered}: {held}", NO_RC4


def tgt(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The TGT: whose, how long it lives, and its flags; or as whom one could be had."""
    credential = exam.credential
    if credential is None and exam.given_credential is not None and exam.credential_error:
        raise exam.credential_error
    if credential is None:
        error = exam.credential_error
        text = f"there is no ticket: {split_remedy(error)[0]}" if error else "there is no ticket"
        yield "skipped", f"{text}{_client_keytab(exam)}", "get one with purekrb kinit"
        return
    at = exam.kdc_time()
    tgts = [t for t in credential.ccache if t.is_tgt and t.client == credential.principal]
    valid = [t for t in tgts if t.endtime > at]
    if valid:
        newest = max(valid, key=lambda t: t.endtime)
        flags = ", ".join(asn1_flags(TicketFlags, newest.flags)) or "none"
        yield (
            "ok",
            f"TGT of {newest.client}, valid until {newest.endtime:%Y-%m-%d %H:%M:%SZ} "
            f"({_duration(newest.endtime - at)}); session key {etype_name(newest.session_key.etype)}; "
            f"flags: {flags}",
            "",
        )
        return
    if tgts:
        newest = max(tgts, key=lambda t: t.endtime)
        ended = f"{newest.endtime:%Y-%m-%d %H:%M:%SZ}"
        text = f"the TGT of {newest.client} has ended at {ended} ({_duration(at - newest.endtime)} ago)"
    else:
        text = f"{credential.principal} has no TGT"
    yield "failed", text, "get a new one with purekrb kinit"


def _client_keytab(exam: Examination) -> str:
    """Say as whom the client keytab would log in. Its key is not tried: a wrong one would count."""
    chosen = defaults.client_keytab_name(None, exam.config)
    if not defaults.exists(chosen):
        return ""
    names = Keytab.load(chosen.name).principals
    return f"; the client keytab {chosen.name} can get one of {names[0]}" if names else ""


def _duration(span: timedelta) -> str:
    minutes = int(span.total_seconds()) // 60
    return f"{minutes // 60} h {minutes % 60} min"


def ticket(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The ticket for the service, as the KDC makes it."""
    service, credential = exam.service, exam.credential
    if service is None:
        yield "skipped", "no service is named", ""
        return
    if credential is None:
        yield "skipped", "there is no TGT", "get one with purekrb kinit"
        return
    try:
        found = exam.client.get_ticket(credential, service)
    except KerberosError as error:
        yield "failed", *why_refused(error, "/".join(service.components))
        return
    exam.ticket = found
    checked = ticket_finding(found, exam.config.permitted_etypes)
    yield checked.status, checked.text, checked.remedy


def keytab(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The keytab against the ticket: name, kvno, etype, and the key itself."""
    entries = exam.keytab
    if entries is None:
        yield "skipped", "no keytab of the service is at hand", ""
        return
    if exam.service is None and not exam.keytab_path:
        yield "skipped", "no service is named", ""
        return
    if exam.ticket is None:
        yield from _without_ticket(exam, entries)
        return
    checked = key_finding(exam.ticket, entries, lambda owner: _salt_of(exam, owner))
    yield checked.status, checked.text, checked.remedy


def _salt_of(exam: Examination, principal: Principal) -> str | None:
    """Return the salt that the KDC names for a principal, if it names one. Nothing is proved."""
    if exam.reachable is None:
        return None
    answer = exam.put_question(principal)
    return next((salt for _, salt in etype_info(answer.message if answer else None) if salt), None)


def _without_ticket(exam: Examination, entries: Keytab) -> Iterator[tuple[Status, str, str]]:
    """Compare the keytab with what the KDC says of its accounts, as there is no ticket."""
    if exam.reachable is None:
        yield "skipped", "no KDC answers, so that the keys cannot be compared", ""
        return
    usable = {entry.key.etype for entry in entries} & set(exam.config.permitted_etypes)
    if not usable:
        yield (
            "failed",
            f"the keytab has only keys of {etype_names(sorted({e.key.etype for e in entries}))}",
            "export it again with AES keys",
        )
        return
    yield (
        "skipped",
        "there is no ticket to compare with; a wrong key would count against the account, so none "
        "is tried",
        "get a TGT with purekrb kinit, and run the doctor again",
    )


def handshake(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """AP-REQ and AP-REP in memory, with the keytab in the place of the service."""
    if exam.ticket is None or exam.keytab is None:
        what = "ticket" if exam.ticket is None else "keytab of the service"
        yield "skipped", f"there is no {what}", ""
        return
    initiator = Initiator(exam.ticket, permitted_etypes=exam.config.permitted_etypes)
    acceptor = Acceptor(
        exam.keytab,
        replay_cache=MemoryReplayCache(),
        permitted_etypes=exam.config.permitted_etypes,
        clock_skew=exam.config.clockskew,
        clock=exam.kdc_time,
    )
    request = initiator.step()
    exam.record("client", "keytab in memory", request or b"")
    reply = acceptor.step(request)
    if reply:
        exam.record("keytab in memory", "client", reply)
    initiator.step(reply)
    yield (
        "ok",
        f"{acceptor.initiator} and {acceptor.acceptor} have proved themselves to each other, "
        f"with {etype_name(initiator.etype)}",
        "",
    )
