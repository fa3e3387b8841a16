"""The steps in their order, and `examine`, which walks them.

Every step runs, whatever the ones before have found. An error that leaves a step is its finding.
"""

from __future__ import annotations

from collections.abc import Callable

from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath
from purekrb.credentials.keytab import Keytab
from purekrb.doctor import local, network, services, tickets
from purekrb.doctor.examination import Examination, Step
from purekrb.doctor.report import Report
from purekrb.krb5conf.config import Config
from purekrb.text import visible

__all__ = ["STEPS", "examine"]

DEFAULT_TIMEOUT = 5.0

STEPS: tuple[tuple[str, Step], ...] = (
    ("versions", local.versions),
    ("krb5.conf", local.configuration),
    ("clock", network.clock),
    ("DNS", network.dns),
    ("KDCs", network.kdcs),
    ("ccache and keytab", local.places),
    ("certificates", local.certificates),
    ("user", tickets.user),
    ("TGT", tickets.tgt),
    ("SPN", services.directory),
    ("ticket", tickets.ticket),
    ("keytab", tickets.keytab),
    ("handshake", tickets.handshake),
    ("service", services.service),
)


def examine(
    target: str | None = None,
    *,
    config: Config | None = None,
    credential: Credential | None = None,
    ccache: FilePath | None = None,
    keytab: FilePath | Keytab | None = None,
    directory: str | None = None,
    directory_target: str | None = None,
    ca_file: FilePath | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Return what is right and wrong on the way to `target`, with what to do.

    `target` is a service (HTTP/web.ad.test), a user (alice@AD.TEST), the file of a keytab, a URL or
    host:port; None: only this machine and its realm. The tickets are those of `credential`, or of
    `ccache` (by default, the machine's). `keytab` is the service's, to compare with its ticket.
    `directory` is the URL of a domain controller's directory (ldap://dc1.ad.test); None: it is
    found by DNS. `directory_target` is its SPN (ldap/dc1.ad.test), if the URL has an address.
    `ca_file` holds the CAs of TLS. `timeout` is in seconds, for each question.
    `progress` is told the name of each step.

    Nothing is changed: tickets that are fetched are forgotten; only a TGT for `credential`, if it
    has none, is kept in it. No password and no key is tried against an account, except those of
    `credential`. Raises nothing but TypeError.
    """
    if target is not None and not isinstance(target, str):
        raise TypeError(f"the target is a text, got {type(target).__name__}")
    exam = Examination(target, config, credential, ccache, keytab, timeout)
    exam.directory_url, exam.directory_target, exam.ca_file = directory, directory_target, ca_file
    for name, step in STEPS:
        if progress is not None:
            progress(name)
        exam.run(name, step)
    return Report(visible(exam.target), exam.findings, exam.exchanged)
