"""Foreign GSS-API implementations as peers of the tests: child processes that hold many contexts and obey commands.

The same small protocol runs over stdin and stdout of all of them (gssapi_peer.py, java/GssPeer.java,
heimdal/gss_peer.c). A request and its answer are lists of byte strings: a count and, for each string, its length
before it, as 32-bit big-endian numbers. A request is a command, then a context's number, then what it needs:

    initiate  target, ccache, flags, bindings, mechanism   a new initiator for the host-based name `target`
    accept    keytab, bindings, mechanism       a new acceptor for any key of the keytab
    step      token                             -> token, "1" once established
    wrap      data, "1" to seal                 -> token
    unwrap    token                             -> data, "1" if it was sealed
    mic       data                              -> token
    verify    data, token
    limit     size, "1" to seal                 -> the largest message whose token fits into `size` bytes
    wrap_iov   "1" to seal, then type and data of each buffer (MIT alone)  -> the data of each buffer
    unwrap_iov type and data of each buffer     -> "1" if it was sealed, the data of each buffer
    iov_length "1" to seal, then type and data of each buffer  -> the length of each buffer after wrap_iov
    prf        key use, data, size              -> pseudo-random bytes
    info                                        -> flags, initiator, acceptor ("" where it cannot say)
    delegated ccache                            -> the principal whose ticket was delegated, now in `ccache`; Java
                                                   takes a host-based name instead and gets a ticket for it
    close

Numbers are decimal text, `bindings` the application data of the channel bindings ("" for none). `mechanism` is
"kerberos" or "negotiate", for an initiator of MIT's also "ntlm-first" (SPNEGO that prefers NTLM), for an acceptor of
MIT's also "iakerb".
An answer begins with "ok", or is "error", its text, and the token to send to the other side, if there is one.
"""

from __future__ import annotations

import itertools
import os
import select
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from purekrb import IovBuffer

__all__ = ["GssPeer", "PeerContext", "PeerError"]

#: Seconds that a peer may take for one answer; a JVM's first handshake on a busy machine is the slowest.
_PATIENCE = 60.0


class PeerError(Exception):
    """The peer refused. `token` is what it wants to tell the other side, or b""."""

    def __init__(self, message: str, token: bytes) -> None:
        super().__init__(message)
        self.token = token


class GssPeer:
    """A running peer, called `name`. It ends when `stop` or this process's death closes its stdin."""

    def __init__(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self._log = log
        self._numbers = itertools.count(1)
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )

    def initiate(
        self,
        target: str,
        ccache: Path,
        *,
        flags: int = 0x3E,
        bindings: bytes = b"",
        mechanism: str = "kerberos",
    ) -> PeerContext:
        """Return a new initiator for a host-based name such as "gsvc@localhost" with the tickets of `ccache`."""
        return self._context("initiate", target, str(ccache), str(flags), bindings, mechanism)

    def accept(
        self, keytab: Path, *, bindings: bytes = b"", mechanism: str = "kerberos"
    ) -> PeerContext:
        """Return a new acceptor for any service with a key in `keytab`."""
        return self._context("accept", str(keytab), bindings, mechanism)

    def _context(self, command: str, *fields: bytes | str) -> PeerContext:
        number = str(next(self._numbers))
        self.call(command, number, *fields)
        return PeerContext(self, number)

    def call(self, *request: bytes | str) -> list[bytes]:
        """Send one request and return its answer, or raise PeerError."""
        fields = [field.encode() if isinstance(field, str) else field for field in request]
        message = struct.pack(">I", len(fields)) + b"".join(
            struct.pack(">I", len(field)) + field for field in fields
        )
        pipe = self._process.stdin
        if pipe is None:
            raise RuntimeError("the peer has been stopped")
        view = memoryview(message)
        while view:
            view = view[pipe.write(view) :]
        status, *answer = [self._read(self._read_number()) for _ in range(self._read_number())]
        if status != b"ok":
            raise PeerError(f"{self.name}: {answer[0].decode(errors='replace')}", answer[1])
        return answer

    def _read_number(self) -> int:
        return int.from_bytes(self._read(4), "big")

    def _read(self, size: int) -> bytes:
        pipe = self._process.stdout
        if pipe is None:
            raise RuntimeError("the peer has been stopped")
        data = bytearray()
        while len(data) < size:
            ready, _, _ = select.select([pipe], [], [], _PATIENCE)
            piece = os.read(pipe.fileno(), size - len(data)) if ready else b""
            if not piece:
                self.stop()
                raise RuntimeError(
                    f"{self.name} gave no answer:\n{self._log.read_text(errors='replace')}"
                )
            data += piece
        return bytes(data)

    def stop(self) -> None:
        """End the peer."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class PeerContext:
    """One security context inside a peer, with the verbs of purekrb's own contexts."""

    def __init__(self, peer: GssPeer, number: str) -> None:
        self.peer = peer
        self._number = number
        self.established = False

    def step(self, token: bytes | None = None) -> bytes | None:
        answer, established = self.peer.call("step", self._number, token or b"")
        self.established = established == b"1"
        return answer or None

    def wrap(self, data: bytes, *, sealed: bool = True) -> bytes:
        return self.peer.call("wrap", self._number, data, str(int(sealed)))[0]

    def unwrap(self, token: bytes) -> tuple[bytes, bool]:
        """Return the data and whether it was sealed."""
        data, sealed = self.peer.call("unwrap", self._number, token)
        return data, sealed == b"1"

    def get_mic(self, data: bytes) -> bytes:
        return self.peer.call("mic", self._number, data)[0]

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        self.peer.call("verify", self._number, data, mic)

    def wrap_size_limit(self, size: int, *, sealed: bool = True) -> int:
        return int(self.peer.call("limit", self._number, str(size), str(int(sealed)))[0])

    def wrap_iov(self, buffers: Sequence[IovBuffer], *, sealed: bool = True) -> list[IovBuffer]:
        return _filled(
            buffers, self.peer.call("wrap_iov", self._number, str(int(sealed)), *_fields(buffers))
        )

    def unwrap_iov(self, buffers: Sequence[IovBuffer]) -> tuple[list[IovBuffer], bool]:
        """Return the buffers and whether DATA was sealed."""
        sealed, *filled = self.peer.call("unwrap_iov", self._number, *_fields(buffers))
        return _filled(buffers, filled), sealed == b"1"

    def wrap_iov_length(self, buffers: Sequence[IovBuffer], *, sealed: bool = True) -> list[int]:
        answer = self.peer.call("iov_length", self._number, str(int(sealed)), *_fields(buffers))
        return [int(length) for length in answer]

    def prf(self, key_use: int, data: bytes, length: int) -> bytes:
        return self.peer.call("prf", self._number, str(int(key_use)), data, str(length))[0]

    @property
    def flags(self) -> int:
        """The GSS flags DELEG to INTEG (the low six bits) as the peer reports them."""
        return int(self.peer.call("info", self._number)[0])

    @property
    def initiator(self) -> str:
        return self.peer.call("info", self._number)[1].decode()

    @property
    def acceptor(self) -> str:
        return self.peer.call("info", self._number)[2].decode()

    def use_delegated(self, where: str) -> str:
        """Write the delegated ticket into the ccache `where` (Java: get a ticket for `where`); return whose it is."""
        return self.peer.call("delegated", self._number, where)[0].decode()

    def close(self) -> None:
        self.peer.call("close", self._number)


def _fields(buffers: Sequence[IovBuffer]) -> list[bytes]:
    return [field for kind, data in buffers for field in (str(int(kind)).encode(), data)]


def _filled(buffers: Sequence[IovBuffer], contents: Sequence[bytes]) -> list[IovBuffer]:
    return [IovBuffer(buffer.type, data) for buffer, data in zip(buffers, contents, strict=True)]
