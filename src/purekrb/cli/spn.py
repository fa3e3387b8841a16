"""Make, get and crack service principal names, and manage the names of accounts in the directory.

A client makes the name of the service that it asks for. A service gets the names that it registers.
crack parses a name. add, delete, list, query, duplicates and reset work on a domain controller;
they cover the whole forest if it has a global catalog.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from purekrb import spn
from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.directory import Account, Directory

__all__ = ["add_account_types", "add_arguments", "run"]

_TYPES = {spn_type.name.lower().replace("_", "-"): spn_type for spn_type in spn.SpnType}
_ACTIONS = {
    "make": "make the name with which a client asks for a service",
    "get": "get the names that a service registers, one for each instance",
    "crack": "parse a name",
    "add": "add names to an account; they must be unique in the forest",
    "delete": "delete names from an account",
    "list": "list the names of an account",
    "query": "list the accounts that have names like a pattern",
    "duplicates": "list the names that several accounts have, so that the KDC cannot use them",
    "reset": "give a computer the names of the class HOST again",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parsers = options.add_actions(parser, _ACTIONS)
    make, get, crack = parsers["make"], parsers["get"], parsers["crack"]
    make.add_argument("service_class", metavar="class", help="as in HTTP or MSSQLSvc")
    make.add_argument("name", help="service name: a host, a domain, or the DN or GUID of an SCP")
    make.add_argument(
        "--instance",
        metavar="HOST",
        help="the host of the instance, if the name is not a host",
    )
    make.add_argument(
        "--port", type=int, default=0, help="the port, if it is not the service's standard port"
    )
    make.add_argument(
        "--referrer",
        metavar="HOST",
        help="the host that referred to the name, if the name is an address",
    )
    get.add_argument(
        "type",
        choices=_TYPES,
        metavar="type",
        help=f"the type of the name: {', '.join(_TYPES)}",
    )
    get.add_argument("service_class", metavar="class", help="as in HTTP or MSSQLSvc")
    get.add_argument("--name", help="service name, for the types domain, nb-domain and service")
    get.add_argument("--port", type=int, default=0, help="the port, if no --instance is given")
    get.add_argument(
        "--instance",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="a host that an instance runs on; may be repeated (default: this machine)",
    )
    crack.add_argument("spn", help="as in HTTP/web.example.test:8080")
    for name in ("add", "delete"):
        parsers[name].add_argument("spn", nargs="+", help="as in ADSockAuth/files.ad.test")
        parsers[name].add_argument(
            "-a", "--account", required=True, metavar="NAME", help=_ACCOUNT_HELP
        )
        _add_account_type(parsers[name])
    parsers["add"].add_argument(
        "--fix",
        action="store_true",
        help="set AES in msDS-SupportedEncryptionTypes of the account if it has none",
    )
    parsers["list"].add_argument("account", help=_ACCOUNT_HELP)
    _add_account_type(parsers["list"])
    parsers["query"].add_argument("pattern", help='"*" stands for anything, as in "HTTP/*.ad.test"')
    parsers["reset"].add_argument("host", help="the computer's DNS name or sAMAccountName")
    for name in _DIRECTORY_ACTIONS:
        options.add_directory(parsers[name])
        options.add_ccache(parsers[name])
        options.add_network(parsers[name])


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    if args.action in _DIRECTORY_ACTIONS:
        with options.directory(args, output) as directory, output.waiting("asking the directory"):
            _DIRECTORY_ACTIONS[args.action](args, directory, output)
    elif args.action == "make":
        made = spn.make_spn(args.service_class, args.name, args.instance, args.port, args.referrer)
        output.result({"spn": made}, made)
    elif args.action == "get":
        split = [instance.partition(":") for instance in args.instance]
        ports = [int(port or 0) for _, _, port in split]
        names = spn.get_spn(
            _TYPES[args.type],
            args.service_class,
            args.name,
            args.port,
            [host for host, _, _ in split],
            ports if any(ports) else (),
        )
        output.result({"spns": names}, *names)
    else:
        cracked = spn.crack_spn(args.spn)._asdict()
        output.result(cracked, *(f"{name}: {value}" for name, value in cracked.items()))
    return 0


# In the directory ---------------------------------------------------------------------------------

_ACCOUNT_HELP = r"its sAMAccountName, DOMAIN\name, user principal name, DN or SID"


def add_account_types(
    parser: argparse._ActionsContainer, *, computer: Sequence[str], user: Sequence[str]
) -> None:
    """Add two switches that say of which type the account is; without them, it may be of either."""
    for switches, what, suffixes in ((computer, "computer", ("$",)), (user, "user", ("",))):
        parser.add_argument(
            *switches,
            dest="suffixes",
            action="store_const",
            const=suffixes,
            default=("$", ""),
            help=f"the account is that of a {what}",
        )


def _add_account_type(parser: argparse.ArgumentParser) -> None:
    types = parser.add_mutually_exclusive_group()
    add_account_types(types, computer=("--computer",), user=("--user",))


def _account(args: argparse.Namespace, directory: Directory) -> Account:
    """Return the account that the arguments name; like setspn, a computer rather than a user."""
    from purekrb.errors import AccountNotFoundError

    # Not a bare name: it shows itself whether it is a computer.
    if re.search(r"[$=@]|S-1-", args.account, re.IGNORECASE):
        return directory.find_account(args.account)
    for suffix in args.suffixes[:-1]:
        with suppress(AccountNotFoundError):
            return directory.find_account(args.account + suffix)
    return directory.find_account(args.account + args.suffixes[-1])


def _write(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    from purekrb.directory import SpnOperation

    account = _account(args, directory)
    fix = args.action == "add" and args.fix
    directory.write_account_spn(SpnOperation[args.action.upper()], account.dn, args.spn, fix=fix)
    done = {"add": "added", "delete": "deleted"}[args.action]
    output.result(
        {"account": account.dn, "spns": args.spn}, *(f"{done} {name}" for name in args.spn)
    )


def _list(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    account = _account(args, directory)
    output.result({"account": account.dn, "spns": account.spns}, f"{account.dn}:", *account.spns)


def _query(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    regex = ".*".join(map(re.escape, args.pattern.split("*")))
    wanted = re.compile(regex, re.IGNORECASE | re.DOTALL)
    accounts = directory.query_spns(args.pattern)
    _table(
        [
            (name, account)
            for account in accounts
            for name in account.spns
            if wanted.fullmatch(name)
        ],
        output,
    )


def _duplicates(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    _table(
        [
            (name, account)
            for name, accounts in directory.duplicate_spns().items()
            for account in accounts
        ],
        output,
    )


def _table(rows: list[tuple[str, Account]], output: Output) -> None:
    found = [(name, account.dn) for name, account in rows]
    data = {"found": [{"spn": name, "account": dn} for name, dn in found]}
    if found:
        output.table(data, ("SPN", "ACCOUNT"), found)
    else:
        output.result(data, "none found")


def _reset(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    names = directory.reset_host_spns(args.host)
    output.result({"spns": names}, *(f"added {name}" for name in names))


_DIRECTORY_ACTIONS = {
    "add": _write,
    "delete": _write,
    "list": _list,
    "query": _query,
    "duplicates": _duplicates,
    "reset": _reset,
}
