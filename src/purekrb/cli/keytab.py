"""List, add, delete and merge the keys in a keytab, or get keys from a password or the directory.

A keytab is replaced as a whole, or left as it is. Passwords and keys are read from the terminal or
standard input.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.klist import show_keytab
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.credentials.keytab import Keytab

__all__ = ["add_arguments", "run"]

_ACTIONS = {
    "list": "list the entries, without the keys",
    "add": "add a key; it is read from the terminal or standard input, in hexadecimal",
    "from-password": "add the keys of a password; it is read from the terminal or standard input",
    "gmsa": "replace the keys of a group managed service account by those that the directory has",
    "merge": "add the entries of other keytabs; "
    "they replace entries with the same principal, kvno and etype",
    "delete": "delete the entries of a principal",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    for name, action in options.add_actions(parser, _ACTIONS).items():
        if name == "gmsa":
            _add_gmsa(action)
            continue
        must_exist = name in ("list", "delete")
        action.add_argument(
            "file", help="the keytab" if must_exist else "the keytab; created if it does not exist"
        )
        if name == "merge":
            action.add_argument(
                "others", nargs="+", metavar="other", help="keytabs whose entries are added"
            )
        elif name != "list":
            action.add_argument("principal", help="as in HTTP/web.example.test@EXAMPLE.TEST")
        if name in ("add", "from-password"):
            action.add_argument(
                "--kvno", type=int, help="key version number at the KDC (default: 1)"
            )
        if name == "add":
            action.add_argument(
                "--etype", type=options.etype, required=True, help="encryption type, name or number"
            )
        if name == "from-password":
            action.add_argument(
                "--etype",
                type=options.etype,
                action="append",
                dest="etypes",
                help="encryption type, name or number; may be repeated "
                "(default: both AES-SHA1 types)",
            )
            action.add_argument(
                "--salt", help="the salt, if the KDC does not use the default of realm and name"
            )
            action.add_argument(
                "--ask-kdc",
                action="store_true",
                help="take salt and kvno from the KDC, and verify the keys by a log-in",
            )
            action.add_argument(
                "--account",
                metavar="PRINCIPAL",
                help="with --ask-kdc: the account whose password it is, if the principal is only "
                "one of its services",
            )
            options.add_network(action)
        if name == "delete":
            action.add_argument("--kvno", type=int, help="only delete this version")
            action.add_argument(
                "--etype", type=options.etype, help="only delete this encryption type"
            )


def _add_gmsa(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "account", help='the managed account, as in gmsa-web; a "$" at its end may be left out'
    )
    parser.add_argument(
        "-t",
        "--keytab",
        metavar="FILE",
        help="the keytab; created if it does not exist (default: KRB5_KTNAME or /etc/krb5.keytab)",
    )
    options.add_directory(parser)
    options.add_ccache(parser)
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.keytab import Keytab, change_keytab

    if args.action == "gmsa":
        return _gmsa(args, output)
    if args.action == "list":
        show_keytab(Keytab.load(args.file), output)
        return 0
    change = _change(args, output)
    show_keytab(change_keytab(args.file, change, make=args.action != "delete"), output)
    return 0


def _change(args: argparse.Namespace, output: Output) -> Callable[[Keytab], Keytab]:
    """Return the change to make to the keytab, after reading everything that it needs."""
    from purekrb.credentials.keytab import Keytab, KeytabEntry
    from purekrb.keys import EncryptionKey
    from purekrb.names import Principal
    from purekrb.system import now

    if args.action == "delete":
        return lambda keytab: keytab.remove(Principal.of(args.principal), args.kvno, args.etype)
    if args.action == "merge":
        new = Keytab()
        for other in args.others:
            new = new.merge(Keytab.load(other))
    elif args.action == "from-password":
        password = options.read_secret(f"Password of {args.principal}", confirm=True)
        etypes = args.etypes or (18, 17)
        if args.ask_kdc:
            new = _from_kdc(args, password, etypes, output)
        else:
            new = Keytab.from_password(
                args.principal, password, kvno=args.kvno or 1, etypes=etypes, salt=args.salt
            )
    else:
        key = EncryptionKey(args.etype, _from_hex(options.read_secret("Key in hexadecimal")))
        new = Keytab(
            [
                KeytabEntry(
                    Principal.of(args.principal), args.kvno or 1, key, now().replace(microsecond=0)
                )
            ]
        )
    return lambda keytab: keytab.merge(new)


def _gmsa(args: argparse.Namespace, output: Output) -> int:
    """Write the keys of a managed account, and tell when to ask for them again."""
    from datetime import timedelta

    from purekrb.credentials.defaults import keytab_name
    from purekrb.credentials.keytab import Keytab, change_keytab
    from purekrb.system import now

    with (
        options.directory(args, output) as directory,
        output.waiting(f"asking for the password of {args.account}"),
    ):
        new = directory.managed_keytab(args.account)
        due = (now() + timedelta(seconds=new.next_query)).replace(microsecond=0)

    def replaced(keytab: Keytab) -> Keytab:
        of_others = (entry for entry in keytab if entry.principal not in new.principals)
        return Keytab(of_others).merge(new)

    name = args.keytab or keytab_name().name
    change_keytab(name, replaced, make=True)
    kvnos = sorted({entry.kvno for entry in new}, reverse=True)
    output.result(
        {
            "account": new.account.name,
            "keytab": name,
            "principals": [str(principal) for principal in new.principals],
            "kvnos": kvnos,
            "next_query": due.isoformat(),
        },
        *(f"{principal} kvno {', '.join(map(str, kvnos))}" for principal in new.principals),
        f"in {name}; get the next password after {due:%Y-%m-%d %H:%M:%S} UTC",
    )
    return 0


def _from_kdc(
    args: argparse.Namespace, password: bytes, etypes: Sequence[int], output: Output
) -> Keytab:
    """Return the keys of a password with the KDC's salt and kvno; print these."""
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.keytab import Keytab, KeytabEntry
    from purekrb.errors import ConfigError
    from purekrb.kdc.client import KdcClient
    from purekrb.keys import etype_name
    from purekrb.krb5conf.spelling import client_principal
    from purekrb.system import now

    if args.salt is not None:
        raise ConfigError("--ask-kdc takes the salt from the KDC: leave --salt out")
    config = options.config(args)
    account = client_principal(args.account or args.principal, config)
    credential = Credential.from_password(account, password)
    with output.waiting(f"asking the KDC of {account.realm}"):
        keys = KdcClient(config, timeout=args.timeout).account_keys(credential, etypes=etypes)
    stamp = now().replace(microsecond=0)
    entries = []
    for found in keys:
        kvno = args.kvno or found.kvno or 1
        salt, etype = found.salt.decode(errors="backslashreplace"), etype_name(found.key.etype)
        output.result(
            {"account": found.client, "etype": etype, "salt": salt, "kvno": kvno},
            f"{found.client}: salt {salt}, kvno {kvno} ({etype}), verified by a log-in",
        )
        name = client_principal(args.principal, config)
        entries.append(KeytabEntry(name, kvno, found.key, stamp))
    return Keytab(entries)


def _from_hex(text: bytes) -> bytes:
    from purekrb.errors import DecodeError

    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise DecodeError("the key is not in hexadecimal: write two digits for each byte") from None
