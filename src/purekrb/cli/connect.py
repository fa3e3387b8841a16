"""Talk to a service over a sealed channel: each line of standard input is sent, each answer printed.

The ticket comes from the credential cache (see kinit) or from a keytab.
"""

from __future__ import annotations

import argparse
import sys

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("address", type=options.host_port, metavar="HOST:PORT")
    parser.add_argument("target", help="the service's SPN, as in ADSockAuth/web.example.test")
    options.add_ccache(parser)
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    import purekrb
    from purekrb.keys import etype_name

    with output.waiting(f"authenticating to {args.target}"):
        channel = purekrb.connect(
            args.address, args.target, options.credential(args), config=options.config(args), timeout=args.timeout
        )
    with channel:
        context = channel.context
        facts = {
            "initiator": str(context.initiator),
            "acceptor": str(context.acceptor),
            "mutual": context.mutual,
            "etype": etype_name(context.etype),
            "endtime": context.endtime,
        }
        output.result(
            facts, f"connected to {context.acceptor} as {context.initiator}: it proved itself; {facts['etype']}"
        )
        for line in sys.stdin:
            channel.send(line.rstrip("\n").encode())
            answer = channel.recv()
            if answer is None:
                break
            text = answer.decode(errors="replace")
            output.result({"received": text}, text)
    return 0
