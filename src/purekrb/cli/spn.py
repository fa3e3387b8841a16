"""Make, get and crack service principal names, as DsMakeSpn, DsGetSpn and DsCrackSpn do.

A client makes the name of the service that it asks for; a service gets the names that it registers; crack takes a
name apart again.
"""

from __future__ import annotations

import argparse

from purekrb import spn
from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]

_TYPES = {kind.name.lower().replace("_", "-"): kind for kind in spn.SpnType}
_ACTIONS = {
    "make": "make the name with which a client asks for a service",
    "get": "get the names that a service registers, one for each instance",
    "crack": "take a name apart",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    parsers = {
        name: actions.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", parents=[options.common()]
        )
        for name, summary in _ACTIONS.items()
    }
    make, get, crack = parsers["make"], parsers["get"], parsers["crack"]
    make.add_argument("service_class", metavar="class", help="as in HTTP or MSSQLSvc")
    make.add_argument("name", help="service name: a host, a domain, or the DN or GUID of an SCP")
    make.add_argument("--instance", metavar="HOST", help="where the name is no host: the one that the instance runs on")
    make.add_argument("--port", type=int, default=0, help="where the service does not use its standard port")
    make.add_argument("--referrer", metavar="HOST", help="the host that referred to the name, where that is an address")
    get.add_argument("type", choices=_TYPES, metavar="type", help=f"what the name stands for: {', '.join(_TYPES)}")
    get.add_argument("service_class", metavar="class", help="as in HTTP or MSSQLSvc")
    get.add_argument("--name", help="service name, for the types domain, nb-domain and service")
    get.add_argument("--port", type=int, default=0, help="where no --instance is given")
    get.add_argument(
        "--instance",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="a host that an instance runs on; may be repeated (default: this machine)",
    )
    crack.add_argument("spn", help="as in HTTP/web.example.test:8080")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    if args.action == "make":
        made = spn.make_spn(args.service_class, args.name, args.instance, args.port, args.referrer)
        output.result({"spn": made}, made)
    elif args.action == "get":
        split = [instance.partition(":") for instance in args.instance]
        ports = [int(port or 0) for _, _, port in split]
        names = spn.get_spn(
            _TYPES[args.type],
            args.service_class,
            args.name,
            args.port,
            [host for host, _, _ in split],
            ports if any(ports) else (),
        )
        output.result({"spns": names}, "\n".join(names))
    else:
        cracked = spn.crack_spn(args.spn)._asdict()
        output.result(cracked, "\n".join(f"{name}: {value}" for name, value in cracked.items()))
    return 0
