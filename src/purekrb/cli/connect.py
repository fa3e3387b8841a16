"""Talk to a service over a sealed channel: each line of standard input is sent, each answer printed.

The ticket for the service comes from the credential cache, or from the KDC by means of the cache's TGT (see kinit).
"""

from __future__ import annotations

import argparse

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("address", type=options.host_port, metavar="HOST:PORT", help="where the service listens")
    parser.add_argument("target", help="the service's SPN, as in ADSockAuth/web.example.test")
    options.add_mechanism(parser, "kerberos")
    options.add_ccache(parser)
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    import purekrb
    from purekrb.errors import TransportError
    from purekrb.keys import etype_name

    credential, config = options.credential(args), options.config(args)
    with output.waiting(f"authenticating to {args.target}"):
        channel = purekrb.connect(
            args.address, args.target, credential, config, mechanism=args.mechanism, timeout=args.timeout
        )
    with channel:
        context = channel.context
        etype = etype_name(context.etype)
        output.result(
            {
                "event": "connected",
                "initiator": context.initiator,
                "acceptor": context.acceptor,
                "mutual": context.mutual,
                "etype": etype,
                "endtime": context.endtime,
            },
            f"connected to {context.acceptor}, which proved itself, as {context.initiator}; {etype}",
        )
        for line in options.lines():
            if not line:  # an empty message would be the end
                continue
            channel.send(line, timeout=args.timeout)
            with output.waiting("waiting for the answer"):
                answer = channel.recv(timeout=args.timeout)
            if answer is None:
                raise TransportError("the service closed the channel before it answered: its log may tell why")
            text = answer.decode(errors="replace")
            output.result({"event": "received", "text": text}, text)
    return 0
