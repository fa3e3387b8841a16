"""Run an echo service over sealed channels, which sends every message back. Ends with Ctrl-C.

Use --trace to see why clients are refused.
"""

from __future__ import annotations

import argparse
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.channel.blocking import Channel

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "address",
        type=options.host_port,
        metavar="HOST:PORT",
        help="where to listen, as in 0.0.0.0:2000; port 0: any free port",
    )
    parser.add_argument(
        "-t",
        "--keytab",
        metavar="FILE",
        help="the service's keys (default: KRB5_KTNAME or /etc/krb5.keytab)",
    )
    parser.add_argument("--service", metavar="PRINCIPAL", help="only accept tickets for this name")
    options.add_mechanism(parser, "negotiate")  # it also accepts Kerberos without SPNEGO
    parser.add_argument("--once", action="store_true", help="end after the first client")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    import purekrb
    from purekrb.credentials.keytab import Keytab

    keytab = Keytab.load(args.keytab)
    with purekrb.listen(
        args.address, keytab, service=args.service, mechanism=args.mechanism
    ) as server:
        host, port = server.address
        output.result(
            {"event": "listening", "host": host, "port": port},
            f"listening on {host}:{port} for {keytab.summary()}",
        )
        for channel in server:
            worker = threading.Thread(target=_echo, args=(channel, output), daemon=True)
            worker.start()
            if args.once:
                worker.join()
                break
    return 0


def _echo(channel: Channel, output: Output) -> None:
    from purekrb.errors import KerberosError

    client, messages = str(channel.context.initiator), 0
    with suppress(BrokenPipeError):  # serve the clients even if nobody reads our output
        try:
            with channel:
                while (message := channel.recv()) is not None:
                    channel.send(message)
                    messages += 1
        except KerberosError as error:
            output.error(f"{client}: {error}", type(error).__name__)
        else:
            output.result(
                {"event": "served", "client": client, "messages": messages},
                f"{client}: {messages} messages echoed",
            )
