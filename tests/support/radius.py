"""A RADIUS server for one-time passwords (RFC 2865, PAP), as MIT's KDC asks one."""

from __future__ import annotations

import hashlib
import hmac
import socket
import threading
from types import TracebackType

__all__ = ["RadiusServer"]

_ACCEPT, _REJECT = 2, 3
_USER_NAME, _USER_PASSWORD, _MESSAGE_AUTHENTICATOR = 1, 2, 80


class RadiusServer:
    """Accepts each of `values` once, for the user that it is given for. `seen` has the users asked about."""

    def __init__(self, secret: bytes, values: dict[str, list[str]]) -> None:
        self.values, self.seen = values, list[str]()
        self._secret = secret
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> RadiusServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            request, peer = self._socket.recvfrom(4096)
            if not request:
                return
            self._socket.sendto(self._answer(request), peer)

    def _answer(self, request: bytes) -> bytes:
        authenticator, found, at = request[4:20], dict[int, bytes](), 20
        while at < len(request):
            found[request[at]] = request[at + 2 : at + request[at + 1]]
            at += request[at + 1]
        user = found[_USER_NAME].decode()
        self.seen.append(user)
        value = self._revealed(found[_USER_PASSWORD], authenticator)
        left = self.values.get(user, [])
        code = _ACCEPT if value in left else _REJECT
        if code == _ACCEPT:
            left.remove(value)
        # A client that does not send a Message-Authenticator may drop an answer that has one.
        signed = _MESSAGE_AUTHENTICATOR in found
        head = bytes((code, request[1])) + (38 if signed else 20).to_bytes(2, "big")
        attributes = b""
        if signed:
            empty = bytes((_MESSAGE_AUTHENTICATOR, 18)) + bytes(16)
            mac = hmac.new(self._secret, head + authenticator + empty, "md5").digest()
            attributes = empty[:2] + mac
        digest = hashlib.md5(head + authenticator + attributes + self._secret).digest()
        return head + digest + attributes

    def _revealed(self, hidden: bytes, authenticator: bytes) -> str:
        """Return the User-Password. Source: RFC 2865 5.2."""
        clear, last = b"", authenticator
        for at in range(0, len(hidden), 16):
            block, pad = hidden[at : at + 16], hashlib.md5(self._secret + last).digest()
            clear += bytes(a ^ b for a, b in zip(block, pad, strict=True))
            last = block
        return clear.rstrip(b"\0").decode("latin-1")
