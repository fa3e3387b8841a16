"""Run an embedded realm (KDC) on loopback, for tests and trials; ends with Ctrl-C.

Writes krb5.conf and service.keytab into --directory. User passwords come from standard input, a line each; a user
without one gets a random password, in the file passwords.txt there (mode 0600).
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import threading
from pathlib import Path

from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", nargs="?", default="EXAMPLE.TEST", help="the realm's name")
    parser.add_argument("--user", action="append", default=[], metavar="NAME")
    parser.add_argument("--service", action="append", default=[], metavar="SPN")
    parser.add_argument("--directory", type=Path, default=Path("purekrb-realm"), help="where the files go")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.files import write_private
    from purekrb.credentials.keytab import Keytab
    from purekrb.testing import Realm

    args.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    krb5_conf, keytab_file = args.directory / "krb5.conf", args.directory / "service.keytab"
    typed = [] if sys.stdin.isatty() else sys.stdin.read().splitlines()
    passwords = dict(zip(args.user, typed, strict=False))
    drawn = {user: secrets.token_urlsafe(12) for user in args.user if not passwords.get(user)}
    with Realm(args.name) as realm:
        for user in args.user:
            realm.add_user(user, passwords.get(user) or drawn[user])
        keytab = Keytab()
        for service in args.service:
            keytab = keytab.merge(realm.add_service(service))
        if args.service:
            keytab.save(keytab_file)
        if drawn:
            lines = "".join(f"{user} {password}\n" for user, password in drawn.items())
            write_private(str(args.directory / "passwords.txt"), lines.encode(), what="password file")
        realm.write_krb5_conf(krb5_conf)
        output.result(
            {"realm": args.name, "krb5_conf": str(krb5_conf), "keytab": str(keytab_file) if args.service else None},
            f"realm {args.name} is up; in another shell: export KRB5_CONFIG={krb5_conf.resolve()}",
        )
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        stop.wait()
    return 0
