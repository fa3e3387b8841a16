"""Publish a service in the directory, find it there, keep its entry up to date, and remove it.

An administrator runs publish. It creates the service connection point (SCP), lets the service's
account update it, registers the service principal names, and writes the state file. remove undoes
all of that. verify tells whether the service may start.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, TypedDict

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.credentials.keytab import Keytab
    from purekrb.directory import (
        Directory,
        InstalledService,
        ServiceConnectionPoint,
        VerifiedService,
    )
    from purekrb.directory.state import ServiceState

__all__ = ["add_arguments", "run"]

_ASKING = "asking the directory"
_ACTIONS = {
    "publish": "publish a service and register its names, or bring both up to date; "
    "if anything fails, everything is undone",
    "find": "find services by keywords",
    "update": "write the host and the port of a service if they have changed, "
    "as the service does when it starts",
    "remove": "remove a service's names, its SCP and its state file",
    "verify": "tell whether a service may start",
}


class _Checks(TypedDict):
    """The arguments of the checks of a service."""

    keytab: Keytab | None
    ask_kdc: bool
    kdc_timeout: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    for name, action in options.add_actions(parser, _ACTIONS).items():
        if name == "find":
            action.add_argument(
                "keyword",
                nargs="*",
                help="a keyword that the service must have, by convention a GUID or product name",
            )
            action.add_argument(
                "--class",
                dest="service_class",
                metavar="CLASS",
                default="",
                help="only services of this class",
            )
        else:
            _add_service(action)
        if name == "publish":
            _add_publish(action)
        elif name == "update":
            action.add_argument("--port", type=_port, help="where it listens now")
            action.add_argument(
                "--host", metavar="HOST", help="the DNS name of the host where it runs now"
            )
        elif name == "verify":
            action.add_argument(
                "--account", metavar="NAME", help="the account that the service runs under"
            )
        if name in ("publish", "verify"):
            action.add_argument(
                "-t",
                "--keytab",
                metavar="FILE",
                help="the keytab of the service, which must open the tickets of clients",
            )
            action.add_argument(
                "--no-kdc",
                action="store_true",
                help="do not ask the KDC for tickets of the service's names",
            )
        options.add_directory(action)
        options.add_ccache(action)
        options.add_network(action)


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--class", dest="service_class", metavar="CLASS", required=True, help="as in ADSockAuth"
    )
    parser.add_argument("--name", help="the name of the SCP (default: the class)")
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="state file (default: CLASS/NAME.json below /var/lib/purekrb for root, "
        "else below ~/.local/state/purekrb)",
    )


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, required=True, help="where the service listens")
    parser.add_argument(
        "--keyword",
        action="append",
        required=True,
        metavar="TEXT",
        help="a keyword, at first the GUID of the product; may be repeated",
    )
    parser.add_argument(
        "--account",
        default="",
        metavar="NAME",
        help="the account that the service runs under (default: the host's computer account)",
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        help="the DNS name of the host where it runs (default: this machine)",
    )
    parser.add_argument(
        "--srv",
        metavar="NAME",
        help="the owner of SRV records that name the host and the port, in place of --host",
    )
    parser.add_argument(
        "--parent",
        default="",
        metavar="DN",
        help="where to put the SCP (default: below the host's computer object)",
    )
    parser.add_argument(
        "--spn-host",
        action="append",
        default=[],
        metavar="HOST",
        help="register names for this host; may be repeated",
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="set AES in msDS-SupportedEncryptionTypes of the account if it has none",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.directory.state import ServiceState, default_path

    if args.action == "find":
        return _find(args, output)
    state_file = args.state or default_path(args.service_class, args.name or args.service_class)
    if args.action == "publish":
        return _publish(args, state_file, output)
    state = ServiceState.load(state_file)  # before anything is asked of the network
    with _reached(args, output) as directory, output.waiting(_ASKING):
        if args.action == "remove":
            directory.uninstall_service(state_file)
            output.result(
                {"removed": state.scp_dn, "spns": state.spns},
                f"removed {state.scp_dn} and its SPNs",
            )
        elif args.action == "update":
            bindings = None if args.port is None else [str(args.port)]
            changed = directory.update_service(state, bindings=bindings, host=args.host)
            output.result(
                {"changed": changed},
                f"changed {', '.join(changed)}" if changed else "nothing to change",
            )
        else:
            _verify(args, directory, state, output)
    return 0


def _reached(args: argparse.Namespace, output: Output) -> Directory:
    """Return the directory. For verify, an unreachable directory is a verdict of its own."""
    from purekrb.directory.verify import unreachable
    from purekrb.errors import TransportError

    try:
        return options.directory(args, output)
    except TransportError as error:
        if args.action != "verify":
            raise
        raise unreachable(error) from error


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def _publish(args: argparse.Namespace, state_file: str, output: Output) -> int:
    from purekrb.directory import ServiceConnectionPoint
    from purekrb.spn import local_dns_name

    host = args.host or ("" if args.srv else local_dns_name())
    scp = ServiceConnectionPoint(
        name=args.name or args.service_class,
        service_class_name=args.service_class,
        dns_name=args.srv or host,
        dns_name_type="SRV" if args.srv else "A",
        bindings=(str(args.port),),
        keywords=tuple(args.keyword),
    )
    with options.directory(args, output) as directory, output.waiting(_ASKING):
        made = directory.install_service(
            scp,
            state_file,
            account=args.account,
            host=host,
            parent=args.parent,
            hosts=args.spn_host,
            fix=args.fix,
            **_checks(args),
        )
    account = made.account.dn if made.account else None
    registered = [f"SPN  {spn}" for spn in made.spns]
    output.result(
        {
            **_fields(made.scp),
            "account": account,
            "spns": made.spns,
            "state": state_file,
            **_found(made),
        },
        f"SCP  {made.scp.dn}",
        *registered,
        f"on   {account or 'no account'}",
        f"state file {state_file}",
        *_good(made),
    )
    return 0


def _find(args: argparse.Namespace, output: Output) -> int:
    with options.directory(args, output) as directory, output.waiting(_ASKING):
        found = directory.find_scps(args.keyword, service_class=args.service_class)
    columns = ("class", "host", "bindings", "DN")
    rows = [
        (scp.service_class_name or "-", scp.dns_name or "-", " ".join(scp.bindings) or "-", scp.dn)
        for scp in found
    ]
    if args.json or rows:
        output.table({"scps": [_fields(scp) for scp in found]}, columns, rows)
    else:
        output.warning(
            f"no service of the class {args.service_class} has these keywords"
            if args.service_class
            else "no service has these keywords"
        )
    return 0 if rows else 1


def _verify(
    args: argparse.Namespace, directory: Directory, state: ServiceState, output: Output
) -> None:
    verified = directory.verify_service(state, account=args.account or "", **_checks(args))
    output.result(
        {
            **_fields(verified.scp),
            "account": verified.account.dn,
            "spns": state.spns,
            **_found(verified),
        },
        f"{verified.scp.dn} may start as {verified.account.dn}",
        *_good(verified),
    )


def _checks(args: argparse.Namespace) -> _Checks:
    from purekrb.credentials.keytab import Keytab

    return {
        "keytab": Keytab.load(args.keytab) if args.keytab else None,
        "ask_kdc": not args.no_kdc,
        "kdc_timeout": args.timeout,
    }


def _found(service: InstalledService | VerifiedService) -> dict[str, object]:
    findings = [dataclasses.asdict(finding) for finding in service.findings]
    return {"findings": findings, "warnings": service.warnings}


def _good(service: InstalledService | VerifiedService) -> list[str]:
    """Return the findings that are no warnings: those are in the log, and so on standard error."""
    return [finding.text for finding in service.findings if finding.status == "ok"]


def _fields(scp: ServiceConnectionPoint) -> dict[str, object]:
    return {
        "dn": scp.dn,
        "object_guid": str(scp.object_guid),
        "service_class_name": scp.service_class_name,
        "dns_name": scp.dns_name,
        "dns_name_type": scp.dns_name_type,
        "bindings": scp.bindings,
        "keywords": scp.keywords,
    }
