"""Run an embedded realm (KDC) on loopback, for tests and trials. Ends with Ctrl-C.

It writes krb5.conf, and with --service also service.keytab, into a directory. If standard input is
not a terminal, each of its lines is the password of the next user. A user without a password gets a
random one, which is written to passwords.txt in that directory.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "name", nargs="?", default="EXAMPLE.TEST", help="the realm's name (default: EXAMPLE.TEST)"
    )
    parser.add_argument(
        "--user", action="append", default=[], metavar="NAME", help="add a user; may be repeated"
    )
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="SPN",
        help="add a service; may be repeated",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("purekrb-realm"),
        metavar="DIR",
        help="the directory of the files (default: purekrb-realm)",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    import secrets

    from purekrb.credentials.files import write_private
    from purekrb.credentials.keytab import Keytab
    from purekrb.testing import Realm

    args.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {"krb5_conf": args.directory / "krb5.conf"}
    typed = iter(()) if options.on_terminal() else options.lines()
    drawn = ""
    with Realm(args.name) as realm:
        for user in args.user:
            password = next(typed, b"").decode()
            if not password:
                password = secrets.token_urlsafe(12)
                drawn += f"{user} {password}\n"
            realm.add_user(user, password)
        if drawn:
            files["passwords"] = args.directory / "passwords.txt"
            write_private(files["passwords"], drawn.encode(), what="password file")
        keytab = Keytab()
        for service in args.service:
            keytab = keytab.merge(realm.add_service(service))
        if args.service:
            files["keytab"] = args.directory / "service.keytab"
            keytab.save(files["keytab"])
        realm.write_krb5_conf(files["krb5_conf"])
        names = ", ".join(file.name for file in files.values())
        output.result(
            {"realm": args.name, "port": realm.port, **files},
            f"realm {args.name} is up; {names} are in {args.directory}",
            f"in another shell: export KRB5_CONFIG={files['krb5_conf'].resolve()}",
        )
        threading.Event().wait()
    return 0
