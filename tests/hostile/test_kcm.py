"""A KCM daemon that answers badly, late or not at all."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from purekrb import CCache, CredentialError, DecodeError
from purekrb.credentials.caches import kcm
from purekrb.credentials.defaults import ccache_name
from purekrb.errors import KerberosError
from support.credential_files import good_ccache


def reply(data: bytes, *, code: int = 0, status: int = 0) -> bytes:
    return struct.pack(">Iii", 4 + len(data), code, status) + data


class Daemon:
    """Answers each request by what `answers` has for its opcode; what it lacks is not known."""

    def __init__(self, path: Path) -> None:
        self.answers: dict[int, bytes] = {}
        self.asked: list[int] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                request = sock.recv(65536)
                if request:
                    (opcode,) = struct.unpack(">H", request[6:8])
                    self.asked.append(opcode)
                    unknown = reply(b"", status=-1765328188)
                    sock.sendall(self.answers.get(opcode, unknown))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    (tmp_path / "krb5.conf").write_text(f"[libdefaults]\n kcm_socket = {tmp_path}/kcm\n")
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    monkeypatch.setattr(kcm, "_TIMEOUT", 5.0)
    found = Daemon(tmp_path / "kcm")
    principal, pieces = good_ccache().pieces()
    listed = b"".join(struct.pack(">I", len(one.data)) + one.data for one in pieces)
    found.answers = {
        8: reply(principal),
        20: reply(b"0:1\0"),
        13001: reply(struct.pack(">I", len(pieces)) + listed),
    }
    yield found
    found.close()


def test_a_good_answer_is_read(daemon: Daemon) -> None:
    assert len(CCache.load("KCM:")) == 2
    assert CCache.load("KCM:").name == "KCM:0:1"


BAD = [
    pytest.param(13001, b"", "cannot reach", id="closed at once"),
    pytest.param(8, b"", "closed the connection", id="closed"),
    pytest.param(8, reply(b"x" * 50)[:20], "closed the connection", id="cut"),
    pytest.param(8, struct.pack(">Ii", 0x7FFFFFFF, 0), "at most", id="endless"),
    pytest.param(8, struct.pack(">Ii", 0, 0), "before its status", id="no status"),
    pytest.param(8, reply(b"", status=-1), "error -1", id="refused"),
    pytest.param(8, reply(b"junk"), "damaged|ends", id="junk principal"),
    pytest.param(13001, reply(b"\xff\xff\xff\xff"), "damaged", id="too many"),
    pytest.param(13001, reply(b"\0\0\0\1\0\0\0\x09abc"), "damaged", id="long credential"),
    pytest.param(13001, reply(b"\0\0\0\1\0\0\0\3abc"), "damaged|ends", id="junk credential"),
    pytest.param(20, reply(b"\xff\xfe\0"), "no UTF-8", id="name"),
]


@pytest.mark.parametrize(("opcode", "answer", "why"), BAD)
def test_a_bad_answer_is_a_typed_error(
    daemon: Daemon, opcode: int, answer: bytes, why: str
) -> None:
    daemon.answers[opcode] = answer
    if opcode == 13001 and not answer:
        daemon.answers[9] = reply(b"x" * 15)  # the list one by one is bad, too
        why = "UUIDs of 16"
    with pytest.raises((CredentialError, DecodeError), match=why):
        CCache.load("KCM:")


@pytest.mark.parametrize(
    "call", [CCache.load, CCache.list, CCache.destroy, good_ccache().save, CCache.new_name]
)
def test_without_a_daemon_each_call_says_what_to_do(
    daemon: Daemon, tmp_path: Path, call: Callable[[str], object]
) -> None:
    daemon.close()
    (tmp_path / "kcm").unlink()
    with pytest.raises(KerberosError, match=r"no daemon answers at .*set KRB5CCNAME=FILE:/path"):
        call("KCM:")


def test_krb5_conf_that_names_a_missing_daemon_is_passed_over(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    conf = tmp_path / "krb5.conf"
    conf.write_text(conf.read_text() + " default_ccache_name = KCM:\n")
    assert ccache_name().name == "KCM:"
    daemon.close()
    (tmp_path / "kcm").unlink()
    chosen = ccache_name()
    assert chosen.name.startswith("FILE:")
    assert (
        f"{conf}:3 names the type KCM, which cannot be used here: no daemon" in chosen.passed_over
    )
    conf.write_text("[libdefaults]\n kcm_socket = -\n")
    with pytest.raises(CredentialError, match=r"kcm_socket = - in krb5\.conf"):
        CCache.load("KCM:")
