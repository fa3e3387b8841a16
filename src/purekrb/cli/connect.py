"""Talk to a service over a sealed channel: send each line of standard input, print each answer.

The ticket for the service comes from the credential cache; or from the KDC, by means of the TGT in
the cache (see kinit). With --scp-keyword, the address and the name of the service come from the
directory.
"""

from __future__ import annotations

import argparse
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
        nargs="?",
        metavar="HOST:PORT",
        help="where the service listens",
    )
    parser.add_argument(
        "service", nargs="?", metavar="TARGET", help="its SPN, as in ADSockAuth/web.example.test"
    )
    parser.add_argument(
        "--scp-keyword",
        action="append",
        default=[],
        metavar="TEXT",
        help="find the service in the directory by a keyword, such as the GUID of its product; "
        "may be repeated",
    )
    parser.add_argument(
        "--policy",
        choices=("first", "random"),
        default="first",
        help="the order in which to try several instances (default: first)",
    )
    parser.add_argument("--host", default="", help="only try the instances on this host")
    options.add_directory(parser)
    options.add_mechanism(parser, "kerberos")
    options.add_ccache(parser)
    options.add_network(parser)


def _connect(args: argparse.Namespace, output: Output) -> Channel:
    import purekrb

    credential, config = options.credential(args, args.service or None), options.config(args)
    if args.service:
        with output.waiting(f"authenticating to {args.service}"):
            return purekrb.connect(
                args.address,
                args.service,
                credential,
                config,
                mechanism=args.mechanism,
                timeout=args.timeout,
            )
    with options.directory(args, output) as directory, output.waiting("looking for the service"):
        return directory.reach_service(
            args.scp_keyword,
            credential,
            config,
            policy=args.policy,
            host=args.host,
            address=args.address,
            mechanism=args.mechanism,
            timeout=args.timeout,
        )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.errors import TransportError
    from purekrb.keys import etype_name

    if bool(args.scp_keyword) == bool(args.service):
        args.wrong(
            "give HOST:PORT and TARGET, or --scp-keyword "
            "(and HOST:PORT if it differs from that in the SCP)"
        )
    with _connect(args, output) as channel:
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
            f"connected to {context.acceptor}, which proved itself, as {context.initiator}; "
            f"{etype}",
        )
        for line in options.lines():
            if not line:  # an empty message would end the channel
                continue
            channel.send(line, timeout=args.timeout)
            with output.waiting("waiting for the answer"):
                answer = channel.recv(timeout=args.timeout)
            if answer is None:
                raise TransportError(
                    "the service closed the channel before it answered: its log may tell why"
                )
            text = answer.decode(errors="replace")
            output.result({"event": "received", "text": text}, *text.split("\n"))
    return 0
