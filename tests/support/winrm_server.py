"""WinRM as far as a command's life needs it: HTTP, Negotiate, MS-WSMV's encrypted messages, five SOAP answers.

The Kerberos inside is purekrb's acceptor. `run` makes the output of a command from its line.
"""

from __future__ import annotations

import base64
import re
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from purekrb import Acceptor, KerberosError

__all__ = ["WinrmServer", "winrm_server"]

_BOUNDARY = b"--Encrypted Boundary"
_ENCRYPTED = 'multipart/encrypted;protocol="{0}";boundary="Encrypted Boundary"'
_SPNEGO, _KERBEROS = (
    f"application/HTTP-{name}-session-encrypted" for name in ("SPNEGO", "Kerberos")
)
_SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
_ENVELOPE = """<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" \
xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" \
xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer" \
xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:rsp="{shell}">\
<s:Header><a:Action>{action}Response</a:Action><a:MessageID>uuid:{id}</a:MessageID>\
<a:RelatesTo>{relates}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"""
_CREATED = """<x:ResourceCreated><a:Address>http://localhost</a:Address><a:ReferenceParameters>\
<w:ResourceURI>{shell}/cmd</w:ResourceURI><w:SelectorSet><w:Selector Name="ShellId">{id}</w:Selector>\
</w:SelectorSet></a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>{id}</rsp:ShellId>\
<rsp:ResourceUri>{shell}/cmd</rsp:ResourceUri><rsp:State>Connected</rsp:State></rsp:Shell>"""
_STARTED = "<rsp:CommandResponse><rsp:CommandId>{id}</rsp:CommandId></rsp:CommandResponse>"
_RECEIVED = """<rsp:ReceiveResponse><rsp:Stream Name="stdout" CommandId="{id}">{output}</rsp:Stream>\
<rsp:Stream Name="stderr" CommandId="{id}" End="true"></rsp:Stream>\
<rsp:CommandState CommandId="{id}" State="{shell}/CommandState/Done"><rsp:ExitCode>0</rsp:ExitCode>\
</rsp:CommandState></rsp:ReceiveResponse>"""


class WinrmServer(ThreadingHTTPServer):
    """Listens on localhost. `clients` are the principals that have authenticated themselves.

    `sealed` counts the messages that came encrypted, `plain` the others.
    """

    daemon_threads = True

    def __init__(
        self,
        new_acceptor: Callable[[], Acceptor],
        run: Callable[[str], str],
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.new_acceptor = new_acceptor
        self.run = run
        self.tls = tls
        self.clients: list[str] = []
        self.channel_bound: list[bool] = []
        self.refused: list[KerberosError] = []
        self.sealed = self.plain = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def get_request(self) -> Any:
        sock, address = super().get_request()
        return (self.tls.wrap_socket(sock, server_side=True) if self.tls else sock), address


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WinrmServer
    context: Acceptor | None = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        answer = ""
        if token:
            self.context = self.server.new_acceptor()
            try:
                reply = self.context.step(base64.b64decode(token))
            except KerberosError as error:
                self.server.refused.append(error)
                self.context = None
                self.sign_in()
                return
            answer = f"{scheme} {base64.b64encode(reply or b'').decode()}"
            self.server.clients.append(str(self.context.initiator))
            self.server.channel_bound.append(self.context.channel_bound)
        if self.context is None:
            self.sign_in()
        elif not body:
            self.reply(200, b"", answer)
        elif "encrypted" in self.headers.get("Content-Type", ""):
            self.server.sealed += 1
            protocol = _SPNEGO if _SPNEGO in self.headers["Content-Type"] else _KERBEROS
            said = self.soap(_unsealed(self.context, body))
            sealed = _sealed(self.context, said, protocol)
            self.reply(200, sealed, answer, _ENCRYPTED.format(protocol))
        else:
            self.server.plain += 1
            self.reply(200, self.soap(body), answer)

    def sign_in(self) -> None:
        # pywinrm finds the certificate of a connection only in a 401 with a body.
        self.reply(401, b"<html>sign in</html>", "Negotiate", "text/html")

    def reply(
        self, status: int, body: bytes, negotiate: str = "", kind: str = "application/soap+xml"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        if negotiate:
            self.send_header("WWW-Authenticate", negotiate)
        self.end_headers()
        self.wfile.write(body)

    def soap(self, request: bytes) -> bytes:
        """Return the answer to a SOAP message."""
        text = request.decode()
        action = _text_of("Action", text)
        verb = action.rpartition("/")[2]
        new = str(uuid.uuid4()).upper()
        body = ""
        if verb == "Create":
            body = _CREATED.format(shell=_SHELL, id=new)
        elif verb == "Command":
            self.line = " ".join(re.findall(r"<\w+:(?:Command|Arguments)>(.*?)</", text))
            body = _STARTED.format(id=new)
        elif verb == "Receive":
            command = re.search(r'CommandId="([^"]+)"', text)
            output = base64.b64encode(self.server.run(self.line).encode()).decode()
            body = _RECEIVED.format(shell=_SHELL, id=command[1] if command else "", output=output)
        elif verb == "Signal":
            body = "<rsp:SignalResponse/>"
        relates = _text_of("MessageID", text)
        filled = _ENVELOPE.format(shell=_SHELL, action=action, id=new, relates=relates, body=body)
        return filled.encode()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _text_of(element: str, text: str) -> str:
    found = re.search(rf"<(?:\w+:)?{element}[^>]*>([^<]*)<", text)
    assert found, text
    return found[1]


def _unsealed(context: Acceptor, body: bytes) -> bytes:
    """Return the message in a body. Source: MS-WSMV 2.2.9.1."""
    _, _, rest = body.partition(b"application/octet-stream\r\n")
    sealed = rest[: rest.rindex(_BOUNDARY)]
    size = int.from_bytes(sealed[:4], "little")
    message = context.unwrap(sealed[4 : 4 + size] + sealed[4 + size :])
    announced = re.search(rb"Length=(\d+)", body)
    assert announced
    assert int(announced[1]) == len(message)
    return message


def _sealed(context: Acceptor, message: bytes, protocol: str) -> bytes:
    token = context.wrap(message)
    header = token[: len(token) - len(message)]
    return b"".join(
        (
            _BOUNDARY,
            f"\r\n\tContent-Type: {protocol}\r\n\tOriginalContent: type=application/soap+xml;"
            f"charset=UTF-8;Length={len(message)}\r\n".encode(),
            _BOUNDARY,
            b"\r\n\tContent-Type: application/octet-stream\r\n",
            len(header).to_bytes(4, "little"),
            token,
            _BOUNDARY,
            b"--\r\n",
        )
    )


@contextmanager
def winrm_server(
    new_acceptor: Callable[[], Acceptor],
    run: Callable[[str], str],
    tls: ssl.SSLContext | None = None,
) -> Iterator[WinrmServer]:
    """Run a server that makes a new acceptor for each connection."""
    with WinrmServer(new_acceptor, run, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
