"""Find out why Kerberos does not work, and what to do.

The target is a service (HTTP/web.ad.test), a user, the file of a keytab, a URL or host:port; without
one, only this machine and its realm are examined. Each step is ok, warning, failed or skipped, with
the one thing to do. Nothing is changed, and no password is tried. With --html, the exchange is drawn
as a sequence diagram, without secrets. The exit code is 0, 1 (warnings) or 2 (failed).
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.doctor import Report

__all__ = ["add_arguments", "run"]

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("target", nargs="?", help="SPN, user, keytab, URL or host:port")
    options.add_ccache(parser)
    parser.add_argument("-k", "--keytab", metavar="FILE", help="the keytab of the service")
    parser.add_argument(
        "--ldap", metavar="URL", help="the directory to look the SPN up in (default: found by DNS)"
    )
    parser.add_argument(
        "--ldap-target", metavar="SPN", help="the directory's SPN, if its URL has an address"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="CAs of the service's TLS certificate")
    parser.add_argument("--html", metavar="FILE", help="also write the report as a page")
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.doctor import examine, page

    with output.waiting("examining"):
        report = examine(
            args.target,
            config=options.config(args) if args.config else None,
            ccache=args.ccache,
            keytab=args.keytab,
            directory=args.ldap,
            directory_target=args.ldap_target,
            ca_file=args.ca_file,
            timeout=args.timeout,
        )
    if args.html:
        from purekrb.credentials.files import write_private

        write_private(args.html, page(report).encode(), what="report")
    findings = [dataclasses.asdict(finding) for finding in report.findings]
    if output.as_json:
        output.result({"target": report.target, "findings": findings})
    else:
        _print(report, output)
    return report.exit_code


def _print(report: Report, output: Output) -> None:
    """Print the findings as a table that fits the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, width=min(output.width, 120))
    table.add_column("step", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("found, and what to do", ratio=1)
    last = ""
    for finding in report.findings:
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n-> {finding.remedy}", style="bold")
        step = "" if finding.step == last else finding.step
        table.add_row(step, Text(finding.status, style=_STYLES[finding.status]), text)
        last = finding.step
    output.rendered(table)
