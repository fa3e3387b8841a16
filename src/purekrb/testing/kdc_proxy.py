"""KdcProxy: a KDC proxy (MS-KKDCP) before a Realm, over HTTPS on loopback. FOR TESTS ONLY."""

from __future__ import annotations

import ssl
import tempfile
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from purekrb.errors import DecodeError
from purekrb.krb5conf.config import Config, KdcAddress, RealmConfig
from purekrb.messages.kkdcp import KdcProxyMessage, unwrap
from purekrb.testing.realm import Realm

__all__ = ["KdcProxy"]

_HOST = "localhost"
_PATH = "/KdcProxy"
_TYPE = "application/kerberos"
_MAX_REQUEST = 1 << 20
#: Seconds for a connection that says nothing.
_IDLE = 30.0


class KdcProxy:
    """The KDCs of `realm` and of the realms that it trusts, behind HTTPS; for tests only.

        with Realm("EXAMPLE.TEST") as realm, KdcProxy(realm) as proxy:
            client = KdcClient(proxy.config)

    The realm itself need not be started. The proxy has a certificate of a CA that it makes for
    itself, whose own certificate is the file `anchor`. `requests` counts what was passed on.
    """

    def __init__(self, realm: Realm) -> None:
        self.requests = 0
        self._realm = realm
        self._directory = tempfile.TemporaryDirectory(prefix="purekrb-proxy-")
        self.anchor = Path(self._directory.name) / "ca.pem"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(_issue(self.anchor))
        self._server = _Server((_HOST, 0), self._handler())
        self._server.context = self._context
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The URL for `kdc` and `kpasswd_server` in krb5.conf."""
        return f"https://{_HOST}:{self._server.server_address[1]}{_PATH}"

    @property
    def config(self) -> Config:
        """The configuration by which clients find the KDCs through this proxy alone."""
        proxy = (KdcAddress.parse(self.url),)
        anchors = {"http_anchors": (f"FILE:{self.anchor}",)}
        servers = RealmConfig(kdc=proxy, kpasswd_server=proxy, options=anchors)
        config = self._realm.config
        return replace(config, realms=dict.fromkeys(config.realms, servers))

    def __enter__(self) -> KdcProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._directory.cleanup()

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer to a request."""
        try:
            realm = KdcProxyMessage.decode(body).target_domain
            message = unwrap(body)
        except DecodeError:
            return 400, b""
        for known in self._realm._reachable():
            if realm == known.name:
                self.requests += 1
                reply = known.handle(message)
                framed = len(reply).to_bytes(4, "big") + reply
                return 200, KdcProxyMessage(framed).encode()
        return 403, b""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            timeout = _IDLE

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if self.path != _PATH:
                    status, body = 404, b""
                elif not length.isdecimal() or int(length) > _MAX_REQUEST:
                    status, body = 400, b""
                else:
                    status, body = answer(self.rfile.read(int(length)))
                self.send_response(status)
                if status == 200:
                    self.send_header("Content-Type", _TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


class _Server(ThreadingHTTPServer):
    """Begins TLS in the thread of the connection, so that a slow client holds up nobody."""

    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext

    def finish_request(self, request: object, client_address: object) -> None:
        request.settimeout(_IDLE)  # type: ignore[attr-defined]
        with self.context.wrap_socket(request, server_side=True) as stream:  # type: ignore[arg-type]
            super().finish_request(stream, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the client does not trust the certificate, or has left."""


def _issue(anchor: Path) -> Path:
    """Write a new CA's certificate to `anchor`; return the file of a server's chain and key."""
    now = datetime.now(timezone.utc)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
        for text in ("CA of a KDC proxy for tests", _HOST)
    )
    key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())

    def builder(
        subject: x509.Name, owner: ec.EllipticCurvePrivateKey, ca: bool
    ) -> x509.CertificateBuilder:
        subject_id = x509.SubjectKeyIdentifier.from_public_key(owner.public_key())
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        return (
            x509.CertificateBuilder(ca_name, subject, owner.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(subject_id, critical=False)
            .add_extension(key_id, critical=False)
        )

    ca = builder(ca_name, ca_key, True).sign(ca_key, hashes.SHA256())
    certificate = (
        builder(name, key, False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_HOST)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    anchor.write_bytes(ca.public_bytes(pem))
    chain = anchor.with_name("server.pem")
    chain.touch(mode=0o600)
    chain.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain
