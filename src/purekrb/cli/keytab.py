"""List, add, delete and merge the keys in a keytab, or write the keys that a password has.

purekrb keytab list FILE
purekrb keytab from-password FILE PRINCIPAL [--kvno N] [--etype NAME]... [--salt TEXT]   (password: stdin)
purekrb keytab add FILE PRINCIPAL --kvno N --etype NAME                (key in hex: stdin)
purekrb keytab delete FILE PRINCIPAL [--kvno N] [--etype NAME]
purekrb keytab merge FILE OTHER...
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.klist import show_keytab
from purekrb.cli.output import Output
from purekrb.constants import EncryptionType
from purekrb.keys import etype_name

if TYPE_CHECKING:
    from purekrb.credentials.keytab import Keytab

__all__ = ["add_arguments", "run", "etype"]

_ETYPES = {etype_name(number): int(number) for number in EncryptionType}


def etype(text: str) -> int:
    """Return the number of an etype given by name or number; an argparse type."""
    number = _ETYPES.get(text) or (int(text) if text.isdigit() else 0)
    if number not in _ETYPES.values():
        raise argparse.ArgumentTypeError(f"unknown etype {text!r}: one of {', '.join(_ETYPES)}")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name in ("list", "add", "delete", "merge", "from-password"):
        action = actions.add_parser(name)
        action.add_argument("file")
        if name == "merge":
            action.add_argument("others", nargs="+", metavar="other")
        elif name != "list":
            action.add_argument("principal")
            action.add_argument("--kvno", type=int, default=None if name == "delete" else 1)
        if name == "from-password":
            action.add_argument(
                "--etype", type=etype, action="append", dest="etypes", help="default: both AES-SHA1 ones"
            )
            action.add_argument("--salt", help="where the KDC uses another than realm and name")
        elif name in ("add", "delete"):
            action.add_argument("--etype", type=etype, required=name == "add")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.keytab import Keytab

    if args.action == "list":
        return show_keytab(Keytab.load(args.file), output)
    keytab = Keytab.load(args.file) if args.action == "delete" or os.path.lexists(args.file) else Keytab()
    changed = _ACTIONS[args.action](keytab, args)
    changed.save(args.file)
    return show_keytab(changed, output)


def _from_password(keytab: Keytab, args: argparse.Namespace) -> Keytab:
    from purekrb.credentials.keytab import Keytab

    password = options.read_password(f"Password of {args.principal}", confirm=True)
    return keytab.merge(
        Keytab.from_password(args.principal, password, kvno=args.kvno, etypes=args.etypes or (18, 17), salt=args.salt)
    )


def _add(keytab: Keytab, args: argparse.Namespace) -> Keytab:
    from purekrb.credentials.keytab import KeytabEntry
    from purekrb.errors import DecodeError
    from purekrb.keys import EncryptionKey
    from purekrb.names import Principal
    from purekrb.system import now

    text = options.read_password("Key in hexadecimal")
    try:
        contents = bytes.fromhex(text)
    except ValueError:
        raise DecodeError("the key is not in hexadecimal") from None
    key = EncryptionKey(args.etype, contents)
    return keytab.add(KeytabEntry(Principal.of(args.principal), args.kvno, key, now().replace(microsecond=0)))


def _delete(keytab: Keytab, args: argparse.Namespace) -> Keytab:
    return keytab.remove(args.principal, args.kvno, args.etype)


def _merge(keytab: Keytab, args: argparse.Namespace) -> Keytab:
    from purekrb.credentials.keytab import Keytab

    for other in args.others:
        keytab = keytab.merge(Keytab.load(other))
    return keytab


_ACTIONS = {"from-password": _from_password, "add": _add, "delete": _delete, "merge": _merge}
