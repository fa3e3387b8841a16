"""A KDC through an HTTPS proxy: one connection and one POST for each request. Source: MS-KKDCP.

TLS and HTTP work on bytes in memory here, so that the race of transport.py waits for the socket as
for any other. HTTP needs the package h11, the extra `proxy`.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from purekrb.kdc.attempt import Attempt, AttemptError, Candidate, Place, connected, open_socket
from purekrb.kdc.tcp import MAX_REPLY
from purekrb.krb5conf.config import HTTPS_PORT, Config, KdcAddress
from purekrb.messages import kkdcp
from purekrb.text import visible

if TYPE_CHECKING:
    import h11

__all__ = ["HttpExchange", "HttpsAttempt"]

_CONTENT_TYPE = "application/kerberos"
#: The most bytes of one answer: a reply, and the head and framing of HTTP.
_MAX_ANSWER = MAX_REPLY + (1 << 16)
_MAX_HEAD = 1 << 14
_READ_SIZE = 1 << 16
#: The most responses that only inform, as "100 Continue", and the most chunks of an answer.
_MAX_INFORMED = 16
_MAX_PIECES = 1 << 14
#: The most files of an anchor "DIR:path", and the most anchors "ENV:name" that lead to each other.
_MAX_FILES = 1024
_MAX_LINKS = 4
_NO_KDC = "the gateway got no answer from a KDC"
#: What the status codes of a gateway mean.
_REFUSALS = {
    401: "the gateway wants its users to log in, which is not a part of MS-KKDCP",
    403: "the gateway forbids this: its administrator decides who may use it, and for which realms",
    404: "the gateway has no KDC proxy at this path: correct the URL, which often ends in /KdcProxy",
    405: "the gateway takes no POST at this path: correct the URL, which often ends in /KdcProxy",
    502: _NO_KDC,
    503: _NO_KDC,
    504: _NO_KDC,
}
#: Why OpenSSL refuses a certificate -> what to do. Source: X509_STORE_CTX_get_error(3).
_REMEDIES = {
    **dict.fromkeys(
        (2, 18, 19, 20, 21, 24),
        "name its CA by http_anchors = FILE:/path under [realms] in krb5.conf",
    ),
    **dict.fromkeys((62, 64), "write the URL with a name that is in the certificate"),
}


class HttpsAttempt(Attempt):
    """One request and one reply through a proxy whose certificate is for the URL's host."""

    def __init__(
        self, candidate: Candidate, place: Place, message: bytes, config: Config, now: float
    ) -> None:
        host = candidate.kdc.host
        self._http = HttpExchange(candidate.kdc, kkdcp.wrap(message, candidate.realm))
        context = _context(config.realm(candidate.realm).options.get("http_anchors", ()))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=host.rstrip(".")
            )
        except ValueError:
            raise AttemptError(f"{host!r} is no host name") from None
        self._secured = False
        self._unsent = b""
        self._size = 0
        super().__init__(candidate, open_socket(place, socket.SOCK_STREAM), now)
        self.writing = True  # until it is connected

    def receive(self) -> bytes | None:
        """Continue with the connection, TLS and HTTP; return the reply once it is complete."""
        try:
            if self.writing:
                connected(self.socket)
            else:
                self._feed(self.socket.recv(_READ_SIZE))
        except BlockingIOError:
            return None
        if not self._secured:
            self._shake_hands()
        body = self._body() if self._secured and not self.writing else None
        self._flush()
        if body is None:
            return None
        reply = kkdcp.unwrap(body)
        if not self.is_reply(reply):
            raise AttemptError("its reply is not Kerberos")
        return reply

    def _feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_ANSWER:
            raise AttemptError(f"its answer has more than {_MAX_ANSWER} bytes")
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _shake_hands(self) -> None:
        """Continue with the handshake of TLS; after it, have the request ready to be sent."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLCertVerificationError as error:
            remedy = _REMEDIES.get(error.verify_code, "renew or correct the gateway's certificate")
            raise AttemptError(
                f"its certificate is not accepted for {self.candidate.kdc.host!r} "
                f"({error.verify_message}): {remedy}"
            ) from None
        except ssl.SSLError as error:
            raise AttemptError(f"no TLS with it: {error.reason or error}") from None
        self._secured = True
        self._tls.write(self._http.request)

    def _flush(self) -> None:
        """Send what TLS has to send."""
        self._unsent += self._outgoing.read()
        try:
            while self._unsent:
                sent = self.socket.send(self._unsent)
                self.has_sent = self.has_sent or self._secured
                self._unsent = self._unsent[sent:]
        except BlockingIOError:
            pass
        self.writing = bool(self._unsent)

    def _body(self) -> bytes | None:
        """Pass what has arrived through TLS to HTTP; return the body once it is complete."""
        pieces = []
        try:
            while True:
                pieces.append(self._tls.read(_READ_SIZE))
                if not pieces[-1]:
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:  # without a close notice; whether all has come, HTTP and DER tell
            pieces.append(b"")
        except ssl.SSLError as error:
            raise AttemptError(f"no TLS with it: {error.reason or error}") from None
        try:
            return self._http.receive(pieces)
        finally:
            self.has_sent = self._http.may_be_passed_on


class HttpExchange:
    """One POST to a gateway and its answer, as bytes.

    `request` is all of the request. `may_be_passed_on` tells whether a KDC may have got the message.
    """

    def __init__(self, kdc: KdcAddress, body: bytes) -> None:
        try:
            import h11
        except ImportError:
            raise AttemptError(
                "HTTPS needs the package h11: run `pip install purekrb[proxy]`"
            ) from None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        host = f"[{kdc.host}]" if ":" in kdc.host else kdc.host
        request = h11.Request(
            method="POST",
            target=kdc.path or "/",
            headers=[
                ("Host", host if kdc.port == HTTPS_PORT else f"{host}:{kdc.port}"),
                ("Content-Type", _CONTENT_TYPE),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-cache"),
                ("Connection", "close"),
            ],
        )
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        self.request = b"".join(self._http.send(event) or b"" for event in events)
        self.may_be_passed_on = True
        self._body = bytearray()
        self._informed = self._pieces = 0

    def receive(self, pieces: Iterable[bytes]) -> bytes | None:
        """Take pieces of the answer, b"" for its end; return the body once it is complete.

        Raises AttemptError if it is not the answer of a KDC proxy.
        """
        import h11

        try:
            for piece in pieces:
                self._http.receive_data(piece)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.EndOfMessage):
                    return bytes(self._body)
                self._take(event)
        except h11.RemoteProtocolError as error:
            raise AttemptError(f"its answer is not HTTP: {visible(str(error))[:200]}") from None

    def _take(self, event: object) -> None:
        import h11

        if isinstance(event, h11.Response):
            self._judge(event)
        elif isinstance(event, h11.Data):
            self._body += event.data
            self._pieces += 1
            if len(self._body) > MAX_REPLY:
                raise AttemptError(f"its answer has more than {MAX_REPLY} bytes")
            if self._pieces > _MAX_PIECES:
                raise AttemptError(f"its answer is in more than {_MAX_PIECES} pieces")
        elif isinstance(event, h11.InformationalResponse):
            self._informed += 1
            if self._informed > _MAX_INFORMED:
                raise AttemptError("it says 100 Continue and does not")
        else:
            raise AttemptError("it closed the connection before its answer")

    def _judge(self, response: h11.Response) -> None:
        """Refuse all but a KDC-PROXY-MESSAGE."""
        status = response.status_code
        if status != 200:
            # What a gateway redirects or refuses, it has not passed on.
            self.may_be_passed_on = not 300 <= status < 500
            if 300 <= status < 400:
                raise AttemptError(f"the gateway redirects (HTTP {status}), which is not followed")
            words = _REFUSALS.get(status, "the gateway refuses")
            raise AttemptError(f"{words} (HTTP {status})")
        fields = {name: value.decode("latin-1").lower() for name, value in response.headers}
        kind = fields.get(b"content-type", "").partition(";")[0].strip()
        if kind != _CONTENT_TYPE:
            raise AttemptError(
                f"its answer is {visible(kind)[:60] or 'of no type'} in place of {_CONTENT_TYPE}: "
                "is this the URL of a KDC proxy?"
            )
        coding = fields.get(b"content-encoding", "identity")
        if coding != "identity":
            raise AttemptError(
                f"its answer is encoded by {visible(coding)[:60]}, without being asked"
            )


def _context(anchors: tuple[str, ...]) -> ssl.SSLContext:
    """Return what verifies certificates: by `anchors`, or by the system's if there are none.

    The anchors are those of http_anchors in MIT's krb5.conf(5). None is passed over: then another
    CA would decide than the one that the configuration names.
    """
    if not anchors:
        return _by_the_system()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # any CA may be the anchor
    for anchor in anchors:
        try:
            _load(context, anchor)
        except OSError as error:
            why = "there is no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise AttemptError(f"http_anchors = {visible(anchor)} cannot be used: {why}") from None
    return context


@cache
def _by_the_system() -> ssl.SSLContext:
    return ssl.create_default_context()  # takes longer than a handshake


def _load(context: ssl.SSLContext, anchor: str) -> None:
    for _ in range(_MAX_LINKS):
        kind, _, rest = anchor.partition(":")
        if kind == "FILE":
            context.load_verify_locations(cafile=rest)
            return
        if kind == "DIR":
            _load_directory(context, Path(rest))
            return
        if kind != "ENV":
            break
        anchor = os.environ.get(rest, "")
    raise AttemptError(
        f"http_anchors = {visible(anchor)} names no anchor: write FILE:/path, DIR:/path or "
        "ENV:variable"
    )


def _load_directory(context: ssl.SSLContext, directory: Path) -> None:
    """Load all files with certificates; hidden ones and others are passed over."""
    loaded = 0
    for file in sorted(directory.iterdir())[:_MAX_FILES]:
        if not file.name.startswith(".") and file.is_file():
            try:
                context.load_verify_locations(cafile=file)
            except OSError:
                continue
            loaded += 1
    if not loaded:
        raise ssl.SSLError(f"no certificate in {directory}")
