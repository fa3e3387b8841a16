"""Create the account of a service, give it new keys, look at it, disable and delete it.

An account gets a random password that nobody sees: its keys go to the keytab, and are kept nowhere
else. rotate changes them while the service runs. It needs no rights and no password: the account
proves itself with the key in the keytab.
"""

from __future__ import annotations

import argparse
import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from purekrb.credentials.credential import Credential
    from purekrb.directory import Account, Directory
    from purekrb.names import Principal

__all__ = ["add_arguments", "run"]

_ACTIONS = {
    "create": "create an account and its keytab; if anything fails, everything is undone",
    "rotate": "give an account new keys; the keytab has the old and the new ones meanwhile",
    "status": "tell the state of an account and its keys, and what is wrong with them",
    "disable": "disable an account: it cannot log in, and gets no new tickets",
    "delete": "delete an account, and its keys in a keytab",
}
_NAME = r"its sAMAccountName, DOMAIN\name, user principal name, DN or SID"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    for name, action in options.add_actions(parser, _ACTIONS).items():
        if name == "create":
            action.add_argument("account", help="its sAMAccountName, of at most 20 characters")
            _add_create(action)
        else:
            action.add_argument("account", help=_NAME)
        action.add_argument(
            "-t",
            "--keytab",
            metavar="FILE",
            required=name == "create",
            help={
                "create": "where its keys go; made with mode 0600 if it does not exist",
                "rotate": "where its keys are (default: KRB5_KTNAME, krb5.conf, or "
                "/etc/krb5.keytab)",
            }.get(name, "the keytab that has its keys"),
        )
        if name == "rotate":
            _add_rotate(action)
        options.add_directory(action)
        options.add_ccache(action)
        options.add_network(action)


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spn",
        action="append",
        default=[],
        help="a service principal name of it, as in HTTP/web.ad.test; may be repeated",
    )
    parser.add_argument(
        "--parent", default="", metavar="DN", help="where to create it (default: CN=Users)"
    )
    parser.add_argument(
        "--owner", default="", metavar="USER", help="give the keytab to this local user"
    )


def _add_rotate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reset",
        action="store_true",
        help="reset the password as the owner of the credential cache, "
        "if no key in the keytab is the account's",
    )
    parser.add_argument(
        "--keep",
        type=options.duration,
        default=7 * 86400.0,
        metavar="TIME",
        help="how long to keep a replaced key, at least as long as tickets for it are valid "
        "(default: 7d)",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    bound_as = None
    if args.action == "rotate" and not args.reset:
        bound_as = _itself(args)
        args.account = bound_as.principal.components[0]
    with options.directory(args, output, bound_as) as directory:
        if args.action == "create":
            with output.waiting(f"creating {args.account}"):
                made = directory.create_service_account(
                    args.account,
                    spns=args.spn,
                    keytab=args.keytab,
                    parent=args.parent,
                    owner=args.owner,
                )
            _show_keys("created", made.account, made.keytab, made.kvno, made.principals, output)
        elif args.action == "rotate":
            with output.waiting(f"rotating the keys of {args.account}"):
                new = directory.rotate_keys(args.account, args.keytab, keep=args.keep)
            _show_keys(
                "rotated", new.account, new.keytab, new.kvno, new.principals, output, new.kept
            )
        elif args.action == "status":
            _status(args, directory, output)
        else:
            with output.waiting("asking the directory"):
                if args.action == "disable":
                    account = directory.disable_account(args.account)
                else:
                    account = directory.delete_account(args.account, keytab=args.keytab)
            done = f"{args.action}d"
            output.result({done: account.dn, "account": account.name}, f"{done} {account.dn}")
    return 0


def _itself(args: argparse.Namespace) -> Credential:
    """Return the credential of the account itself, by its key in the keytab."""
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.keytab import Keytab
    from purekrb.errors import CredentialError

    keytab = Keytab.load(args.keytab)
    name, _, realm = args.account.partition("@")
    name = name.rpartition("\\")[2]

    def fits(principal: Principal) -> bool:
        return (
            len(principal.components) == 1
            and principal.components[0].casefold() == name.casefold()
            and realm.casefold() in ("", principal.realm.casefold())
        )

    own = next(filter(fits, keytab.principals), None)
    if own is None:
        raise CredentialError(
            f"the keytab has no key of {args.account} itself; it has {keytab.summary()}. Name the "
            "account as the keytab does, or reset its password with --reset, as somebody who may"
        )
    return Credential.from_keytab(own, keytab)


def _status(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    with output.waiting("asking the directory and the KDC"):
        status = directory.account_status(
            args.account, keytab=args.keytab, kdc_timeout=args.timeout
        )
    account = status.account
    facts = {
        "account": account.name,
        "dn": account.dn,
        "sid": str(account.sid),
        "enabled": status.enabled,
        "locked": status.locked,
        "kvno": status.kvno,
        "etypes": status.etypes,
        "salt": status.salt,
        "password set": status.password_set,
        "password ends": status.password_ends,
        "account ends": status.ends,
        "spns": list(account.spns),
        "kvnos in keytab": list(status.keytab),
    }
    findings = [dataclasses.asdict(finding) for finding in status.findings]
    lines = [f"{name}: {_text(value)}" for name, value in facts.items() if value not in (None, [])]
    good = [finding.text for finding in status.findings if finding.status == "ok"]
    data = {name.replace(" ", "_"): value for name, value in facts.items()}
    output.result({**data, "findings": findings, "warnings": status.warnings}, *lines, *good)
    for warning in status.warnings:
        output.warning(warning)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return str(value)


def _show_keys(
    done: str,
    account: Account,
    keytab: str,
    kvno: int,
    principals: Sequence[Principal],
    output: Output,
    kept: Sequence[int] = (),
) -> None:
    names = [str(principal) for principal in principals]
    older = f", and {', '.join(map(str, kept))} for older tickets" if kept else ""
    output.result(
        {
            done: account.dn,
            "account": account.name,
            "keytab": keytab,
            "kvno": kvno,
            "kept": list(kept),
            "principals": names,
        },
        f"{done} {account.dn}",
        f"{keytab} has {', '.join(names)}: kvno {kvno}{older}",
    )
