"""A service installed by scp_installer.py: it verifies its registration, and only then listens.

    python scp_service.py --ldap ldap://dc1.ad.test --state state.json --keytab svc.keytab --account svc-files@AD.TEST

Each reason not to start has an exit code of its own. An administrator must repair the fault: the service's account has
no right to do so, and should have none.
"""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import suppress

import purekrb
from purekrb import Flag, KerberosError
from purekrb.channel.blocking import Channel, Server
from purekrb.directory import Directory

EXIT_CODES = {
    "NOT_REGISTERED": 20,
    "WRONG_ACCOUNT": 21,
    "DUPLICATE": 22,
    "STALE_DN": 23,
    "NO_STATE": 24,
    "DIRECTORY_UNREACHABLE": 25,
}
#: The flags that a context must have. Check them once it is established, not before.
NEEDED = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE | Flag.INTEG | Flag.CONF


def start(
    directory: Directory,
    state_file: str,
    account: str,
    keytab: purekrb.Keytab,
    address: tuple[str, int],
) -> Server:
    """Verify the registration, listen, write the port to the SCP, and return the server.

    Raises RegistrationError if the service must not start.
    """
    verified = directory.verify_service(state_file, account=account, keytab=keytab)
    for doubt in verified.warnings:
        print(f"warning: {doubt}", file=sys.stderr)
    server = purekrb.listen(address, keytab)
    try:
        directory.update_service(state_file, bindings=[str(server.address[1])])
    except BaseException:
        server.close()
        raise
    return server


def serve(channel: Channel) -> None:
    """Answer one client. Its proved name is `initiator`; `identity` has its SIDs as well."""
    context = channel.context
    if NEEDED & ~context.flags:
        channel.abort()
        return
    with suppress(KerberosError), channel:
        while (request := channel.recv()) is not None:
            channel.send(f"{context.initiator} said: ".encode() + request)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ldap", help="domain controller (default: found by DNS)")
    parser.add_argument("--state", required=True, help="the state file")
    parser.add_argument("--keytab", required=True, help="the keys of the account")
    parser.add_argument(
        "--account", required=True, help="the service's account, as in svc-files@AD.TEST"
    )
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    try:
        keytab = purekrb.Keytab.load(args.keytab)
        credential = purekrb.Credential.from_keytab(args.account, keytab)
        try:
            directory = Directory.connect(args.ldap, credential)
        except purekrb.TransportError as error:
            raise purekrb.RegistrationError(str(error), reason="DIRECTORY_UNREACHABLE") from error
        with directory:
            server = start(directory, args.state, args.account, keytab, (args.listen, args.port))
    except purekrb.RegistrationError as error:
        print(f"not started, {error.reason}: {error}", file=sys.stderr)
        return EXIT_CODES[error.reason]
    except KerberosError as error:
        print(f"not started: {error}", file=sys.stderr)
        return 1
    with server:
        print(f"listening on port {server.address[1]}", flush=True)
        for channel in server:
            threading.Thread(target=serve, args=(channel,), daemon=True).start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
