"""Answer nginx's auth_request: who a request comes from, by Kerberos. Ends with Ctrl-C.

Only nginx should reach the address. docs/http-services.md has its configuration.
"""

from __future__ import annotations

import argparse
from typing import Any

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]

#: Seconds after which a silent connection is closed.
_PATIENCE = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "address",
        type=options.host_port,
        metavar="HOST:PORT",
        help="where to listen, as in 127.0.0.1:8088; port 0: any free port",
    )
    parser.add_argument(
        "-t",
        "--keytab",
        metavar="FILE",
        help="the service's keys (default: KRB5_KTNAME or /etc/krb5.keytab)",
    )
    parser.add_argument("--service", metavar="SPN", help="only accept tickets for this name")
    parser.add_argument(
        "--certificate",
        action="append",
        metavar="FILE",
        help="the certificate that nginx shows (PEM), to check channel bindings; may be repeated",
    )
    parser.add_argument(
        "--require-channel-bindings",
        action="store_true",
        help="refuse clients that send no channel bindings",
    )
    parser.add_argument(
        "--require-sid",
        action="append",
        metavar="SID",
        help="only let in who has one of these SIDs; may be repeated",
    )
    parser.add_argument("--with-sids", action="store_true", help="tell nginx the SIDs, too")
    parser.add_argument(
        "--connection-header",
        metavar="NAME",
        help="the header field in which nginx passes on $connection (for clients of several rounds)",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    import socketserver
    from wsgiref import simple_server

    from purekrb.authorization import members_of
    from purekrb.credentials.keytab import Keytab
    from purekrb.integrations.nginx import AuthRequest

    class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
        daemon_threads = True

        def server_bind(self) -> None:
            # WSGIServer would look up the name of the host.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = args.address[0], self.server_address[1]
            self.setup_environ()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing about clients that hang up."""

    class Handler(simple_server.WSGIRequestHandler):
        timeout = _PATIENCE

        def log_message(self, *_: Any) -> None:
            """Say nothing: nginx has the log of requests."""

    keytab = Keytab.load(args.keytab)
    app = AuthRequest(
        args.keytab,  # the file, so that new keys count without a restart
        service=args.service,
        certificate=args.certificate,
        require_channel_bindings=args.require_channel_bindings,
        authorize=members_of(*args.require_sid) if args.require_sid else None,
        with_sids=args.with_sids,
        connection_header=args.connection_header,
    )
    with Server(args.address, Handler) as server:
        server.set_app(app)
        host, port = args.address[0], server.server_port
        output.result(
            {"event": "listening", "host": host, "port": port},
            f"listening on {host}:{port} for {keytab.summary()}",
        )
        server.serve_forever()
    return 0
