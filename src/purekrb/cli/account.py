"""Create the account of a service, give it new keys, look at it, disable and delete it.

An account gets a random password that nobody sees: its keys go to the keytab, and are kept nowhere
else. rotate changes them while the service runs. It needs no rights and no password: the account
proves itself with the key in the keytab.
"""

from __future__ import annotations

import argparse
import dataclasses
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from purekrb.credentials.credential import Credential
    from purekrb.directory import Account, Directory
    from purekrb.names import Principal

__all__ = ["add_arguments", "run"]

_ACTIONS = {
    "create": "create an account and its keytab; if anything fails, everything is undone",
    "join": "join a computer to the domain: its account, its names and its keytab",
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
            _add_create(action, "CN=Users")
        elif name == "join":
            action.add_argument(
                "account", nargs="?", default="", help="its name (default: that of this host)"
            )
            _add_create(action, "CN=Computers")
            _add_join(action)
        else:
            action.add_argument("account", help=_NAME)
        action.add_argument(
            "-t",
            "--keytab",
            metavar="FILE",
            required=name == "create",
            help={
                "create": "where its keys go; made with mode 0600 if it does not exist",
                "join": "where its keys go (default: KRB5_KTNAME, krb5.conf, or /etc/krb5.keytab)",
                "rotate": "where its keys are (default: KRB5_KTNAME, krb5.conf, or "
                "/etc/krb5.keytab)",
            }.get(name, "the keytab that has its keys"),
        )
        if name == "rotate":
            _add_rotate(action)
        options.add_directory(action)
        options.add_ccache(action)
        options.add_network(action)


def _add_create(parser: argparse.ArgumentParser, place: str) -> None:
    parser.add_argument(
        "--spn",
        action="append",
        default=[],
        help="a service principal name of it, as in HTTP/web.ad.test; may be repeated",
    )
    parser.add_argument(
        "--parent", default="", metavar="DN", help=f"where to create it (default: {place})"
    )
    parser.add_argument(
        "--owner", default="", metavar="USER", help="give the keytab to this local user"
    )


def _add_join(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dns-name", default="", metavar="HOST", help="its DNS name (default: that of this host)"
    )
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help="join as the computer itself, with the password in the first line of this file that "
        "its account was prepared with ('-': standard input)",
    )
    parser.add_argument(
        "--reuse",
        action="store_true",
        help="take over an account that is in use: the computer that has it can then log in no more",
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
    if args.action == "join" and args.password_file:
        bound_as = _computer(args)
    with _how_to_reset(args), options.directory(args, output, bound_as) as directory:
        _RUN[args.action](args, directory, output)
    return 0


def _create(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    with output.waiting(f"creating {args.account}"):
        made = directory.create_service_account(
            args.account,
            spns=args.spn,
            keytab=args.keytab,
            parent=args.parent,
            owner=args.owner,
        )
    _show_keys("created", made.account, made.keytab, made.kvno, made.principals, output)


def _join(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    with output.waiting(f"joining {args.account or 'this host'}"):
        made = directory.join_computer(
            args.account,
            keytab=args.keytab,
            dns_name=args.dns_name,
            spns=args.spn,
            parent=args.parent,
            owner=args.owner,
            reuse=args.reuse,
        )
    _show_keys("joined", made.account, made.keytab, made.kvno, made.principals, output)


def _rotate(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    with output.waiting(f"rotating the keys of {args.account}"):
        new = directory.rotate_keys(args.account, args.keytab, keep=args.keep)
    _show_keys("rotated", new.account, new.keytab, new.kvno, new.principals, output, new.kept)


def _disable(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    with output.waiting("asking the directory"):
        account = directory.disable_account(args.account)
    output.result({"disabled": account.dn, "account": account.name}, f"disabled {account.dn}")


def _delete(args: argparse.Namespace, directory: Directory, output: Output) -> None:
    with output.waiting("asking the directory"):
        account = directory.delete_account(args.account, keytab=args.keytab)
    output.result({"deleted": account.dn, "account": account.name}, f"deleted {account.dn}")


@contextmanager
def _how_to_reset(args: argparse.Namespace) -> Iterator[None]:
    """Say what to do if the account cannot prove itself to be rotated."""
    from purekrb.errors import PreauthFailedError

    try:
        yield
    except PreauthFailedError as error:
        if args.action != "rotate" or args.reset:
            raise
        raise PreauthFailedError(
            f"{error}; or give the account new keys as somebody who may reset its password, with "
            "--reset. If another rotation has just ended, the keytab has its keys: run this again",
            code=error.code,
            krb_error=error.krb_error,
        ) from None


def _computer(args: argparse.Namespace) -> Credential:
    """Return the credential of a prepared account, with its one-time password."""
    from purekrb.credentials.credential import Credential
    from purekrb.names import Principal
    from purekrb.system import local_fqdn

    host = args.account or local_fqdn().partition(".")[0]
    name = f"{host.removesuffix('$').upper()}$"
    realm = (args.domain or "").upper() or options.config(args).default_realm or ""
    return Credential.from_password(
        Principal((name,), realm), options.secret_in(args.password_file)
    )


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


_RUN: dict[str, Callable[[argparse.Namespace, Directory, Output], None]] = {
    "create": _create,
    "join": _join,
    "rotate": _rotate,
    "status": _status,
    "disable": _disable,
    "delete": _delete,
}
