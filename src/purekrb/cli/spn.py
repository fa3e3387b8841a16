"""Make, get and crack service principal names, as DsMakeSpn, DsGetSpn and DsCrackSpn do.

purekrb spn make ADSockAuth CN=SockAuthAD,CN=WEB1,DC=ad,DC=test --instance web1.ad.test [--port 2000]
purekrb spn get service ADSockAuth --name CN=SockAuthAD,CN=WEB1,DC=ad,DC=test --instance web1.ad.test
purekrb spn crack ADSockAuth/web1.ad.test:2000
"""

from __future__ import annotations

import argparse

from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]

_TYPES = ("dns-host", "dn-host", "nb-host", "domain", "nb-domain", "service")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = actions.add_parser("make")
    make.add_argument("service_class", metavar="class")
    make.add_argument("name", help="service name: a host, a DN, a GUID or a domain")
    make.add_argument("--instance", help="host that the instance runs on")
    make.add_argument("--port", type=int, default=0)
    make.add_argument("--referrer")
    get = actions.add_parser("get")
    get.add_argument("type", choices=_TYPES)
    get.add_argument("service_class", metavar="class")
    get.add_argument("--name", help="service name, for the types domain, nb-domain and service")
    get.add_argument("--port", type=int, default=0, help="where no --instance is given")
    get.add_argument("--instance", action="append", default=[], metavar="HOST[:PORT]")
    crack = actions.add_parser("crack")
    crack.add_argument("spn")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb import spn

    if args.action == "make":
        made = spn.make_spn(args.service_class, args.name, args.instance, args.port, args.referrer)
        output.result(made, made)
    elif args.action == "get":
        split = [instance.partition(":") for instance in args.instance]
        ports = [int(port or 0) for _, _, port in split]
        names = spn.get_spn(
            spn.SpnType[args.type.upper().replace("-", "_")],
            args.service_class,
            args.name,
            args.port,
            [host for host, _, _ in split],
            ports if any(ports) else (),
        )
        output.result(names, "\n".join(names))
    else:
        cracked = spn.crack_spn(args.spn)._asdict()
        output.result(cracked, "\n".join(f"{name}: {value}" for name, value in cracked.items()))
    return 0
