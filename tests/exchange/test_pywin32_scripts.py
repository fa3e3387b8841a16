"""Scripts as they are written for pywin32's sspi module, over sockets and HTTP, with purekrb's in its place."""

from __future__ import annotations

import http.client
import http.server
import socket
import socketserver
import struct
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from purekrb import sspi
from purekrb.testing import Realm

win32security = sspicon = sspi

SPN = "HTTP/web.example.test"
MUTUAL = sspi.ISC_REQ_MUTUAL_AUTH | sspi.ISC_REQ_SEQUENCE_DETECT | sspi.ISC_REQ_CONFIDENTIALITY


@pytest.fixture(scope="module", autouse=True)
def logged_on() -> Iterator[None]:
    """What Windows' logon sessions are: alice the default client, the service's keys in the default keytab."""
    with Realm() as realm:
        sspi.set_default_credential(
            realm.add_user("alice", "pw"), keytab=realm.add_service(SPN), config=realm.config
        )
        yield
        sspi.set_default_credential()


def serve(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]  # type: ignore[index, misc]
    server.shutdown()
    thread.join()
    server.server_close()


# --- messages in two pieces over a socket


def send_message(connection: socket.socket, message: bytes) -> None:
    connection.sendall(struct.pack("i", len(message)) + message)


def receive_message(connection: socket.socket) -> bytes | None:
    size = connection.recv(4, socket.MSG_WAITALL)
    return connection.recv(struct.unpack("i", size)[0], socket.MSG_WAITALL) if size else None


class SocketServer(socketserver.TCPServer):
    """One ServerAuth for all connections, reset for each; and what the clients said."""

    def __init__(self, package: str) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.auth = sspi.ServerAuth(package)
        self.heard: list[tuple[str | None, bytes]] = []
        self.refusals: list[int] = []

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.auth.reset()
        while not self.auth.authenticated:
            token = receive_message(request)
            if token is None:
                return False
            try:
                err, buffers = self.auth.authorize(token)
            except sspi.error as details:
                self.refusals.append(details.winerror)
                return False
            if buffers[0].Buffer:
                send_message(request, buffers[0].Buffer)
            assert (err == 0) is self.auth.authenticated
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        assert self.auth.ctxt is not None
        self.auth.ctxt.ImpersonateSecurityContext()
        try:
            while (data := receive_message(request)) is not None:
                key = receive_message(request)
                assert key is not None
                self.heard.append((self.auth.initiator_name, self.auth.decrypt(data, key)))
        finally:
            self.auth.ctxt.RevertSecurityContext()
        self.shutdown_request(request)


@pytest.mark.parametrize("flags", [None, MUTUAL], ids=["default", "mutual"])
@pytest.mark.parametrize("package", ["Kerberos", "Negotiate"])
def test_a_client_authenticates_itself_over_a_socket_and_sends_encrypted_messages(
    package: str, flags: int | None
) -> None:
    server = SocketServer(package)
    for port in serve(server):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as junk:
            send_message(junk, b"junk")
            assert receive_message(junk) is None
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            client = sspi.ClientAuth(package, targetspn=SPN, scflags=flags)
            data = None
            while True:
                err, out_buf = client.authorize(data)
                if out_buf[0].Buffer:
                    send_message(connection, out_buf[0].Buffer)
                if err == 0:
                    break
                data = receive_message(connection)
            assert bool(client.ctxt_attr & sspicon.ISC_RET_MUTUAL_AUTH) is (flags is not None)
            for word in (b"Hello", b"from", b"the", b"client"):
                blob, key = client.encrypt(word)
                assert word not in blob
                send_message(connection, blob)
                send_message(connection, key)
            connection.shutdown(socket.SHUT_WR)
            assert receive_message(connection) is None
    assert server.heard == [
        ("alice@EXAMPLE.TEST", word) for word in (b"Hello", b"from", b"the", b"client")
    ]
    assert server.refusals == [sspicon.SEC_E_INVALID_TOKEN]


# --- a URL that wants authentication


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.auth = sspi.ServerAuth("Negotiate")

    def do_GET(self) -> None:
        scheme, _, data = self.headers.get("Authorization", "").partition(" ")
        answer = b""
        if scheme == self.auth.pkg_info["Name"]:
            try:
                _, buffers = self.auth.authorize(b64decode(data))
                answer = buffers[0].Buffer
            except sspi.error:
                self.auth.reset()
        body = (self.auth.initiator_name or "").encode()
        self.send_response(200 if body else 401)
        self.send_header("WWW-Authenticate", f"Negotiate {b64encode(answer).decode()}".strip())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.mark.parametrize("flags", [None, MUTUAL], ids=["default", "mutual"])
@pytest.mark.parametrize(
    "auth_info", [None, ("alice", "EXAMPLE.TEST", "pw")], ids=["logged-on", "password"]
)
def test_a_url_is_fetched_with_the_scheme_negotiate(auth_info: Any, flags: int | None) -> None:
    for port in serve(http.server.HTTPServer(("127.0.0.1", 0), Handler)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, response.read()) == (401, b"")
        client = sspi.ClientAuth("Negotiate", auth_info=auth_info, targetspn=SPN, scflags=flags)
        scheme, data = client.pkg_info["Name"], None
        while not client.authenticated:
            err, out_buf = client.authorize(data)
            if not out_buf[0].Buffer:
                break
            token = b64encode(out_buf[0].Buffer).decode()
            connection.request("GET", "/", headers={"Authorization": f"{scheme} {token}"})
            response = connection.getresponse()
            body = response.read()
            name, _, answer = response.headers["WWW-Authenticate"].partition(" ")
            assert name == scheme
            data = b64decode(answer)
        assert (response.status, body, err) == (200, b"alice@EXAMPLE.TEST", 0)
        assert client.service_name == f"{SPN}@EXAMPLE.TEST"
        connection.close()


def test_a_password_is_validated_between_both_classes() -> None:
    def validate(password: str) -> None:
        client = sspi.ClientAuth(
            "Kerberos", auth_info=("alice", "EXAMPLE.TEST", password), targetspn=SPN
        )
        server = sspi.ServerAuth("Kerberos")
        data = err = None
        while err != 0:
            err, data = client.authorize(data)
            err, data = server.authorize(data)

    validate("pw")
    with pytest.raises(win32security.error) as caught:
        validate("other")
    assert caught.value.winerror == sspicon.SEC_E_LOGON_DENIED
    assert caught.value.args[1] == "InitializeSecurityContext"
