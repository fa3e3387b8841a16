"""K402 and K419: no damaged file or message, no mistake of a caller and no signal brings a secret into an error.

Each byte of each format is replaced by several values, lengths above all: a field then begins or ends somewhere else,
and may span a key. PUREKRB_SOAK=1 tries all 255 values of each byte.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import logging
import os
import re
import signal
import sqlite3
import sys
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from itertools import repeat
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from purekrb import (
    Acceptor,
    CCache,
    Config,
    Credential,
    DecodeError,
    EncryptionKey,
    Initiator,
    KerberosError,
    Keytab,
    PrfKey,
    crypto,
)
from purekrb.cli.inspect import _load_keys
from purekrb.credentials.files import read_private
from purekrb.directory.state import ServiceState
from purekrb.gss.checksum import GssChecksum
from purekrb.messages.ap import (
    Authenticator,
    Checksum,
    EncApRepPart,
    EncKrbCredPart,
    EncryptedData,
    EncTicketPart,
    KrbCred,
    KrbCredInfo,
    TransitedEncoding,
)
from purekrb.messages.kdc import EncKdcRepPart
from purekrb.messages.pac import LogonInfo
from purekrb.messages.spnego import NegTokenInit
from purekrb.names import PrincipalName
from purekrb.replay import MemoryReplayCache
from purekrb.replay.sqlite import SqliteReplayCache
from purekrb.sspi import AcquireCredentialsHandle, ClientAuth
from purekrb.sspi.constants import SECPKG_CRED_INBOUND, SECPKG_CRED_OUTBOUND
from purekrb.testing import Realm
from support.canaries import PACKAGE, PASSWORD, chain, key_bytes, printed, search, shown
from support.credential_files import CCacheWriter, keytab_file, keytab_record
from support.pac import logon_info
from support.tickets import ALICE, SERVICE, issue

SOAK = os.environ.get("PUREKRB_SOAK") == "1"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
#: Keys as they are, in which no name can be read, and keys that are text, in which each part can be a name.
RANDOM = [hashlib.sha256(bytes([n])).digest() for n in range(3)]
TEXT = [
    key_bytes(32, "text"),
    key_bytes(32, "more")[::-1],
    hashlib.sha256(b"name").hexdigest()[:32].encode(),
]
KINDS = {"random": RANDOM, "text": TEXT}


def damaged(data: bytes, every: int = 1) -> Iterator[bytes]:
    """`data` with each byte (or each so-manieth) replaced by several values; lengths are met by all of them."""
    for at in range(0, len(data), every):
        old = data[at]
        near = (old + 1, old - 1, old + 16, old + 40, old ^ 0x80, 0, 0xFF)
        for value in range(256) if SOAK else dict.fromkeys(n & 0xFF for n in near):
            if value != old:
                yield data[:at] + bytes([value]) + data[at + 1 :]


class Log(logging.Handler):
    """Collects what is told."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.args!r}")


@pytest.fixture
def log() -> Iterator[list[str]]:
    handler, logger = Log(), logging.getLogger("purekrb")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


# -- K402: files and messages


def keytab(keys: list[bytes], version: int) -> bytes:
    order = "big" if version == 2 else sys.byteorder
    records = [
        keytab_record(etype=18, contents=key, version=version, order=order) for key in keys[:2]
    ]
    return bytes([5, version]) + b"".join(
        len(record).to_bytes(4, order) + record for record in records
    )  # type: ignore[arg-type]


def ccache(keys: list[bytes], version: int) -> bytes:
    write = CCacheWriter(version)
    time_offset = b"\0\1\0\x08" + bytes(8)
    return write.file(
        *(write.credential(etype=18, contents=key) for key in keys[:2]),
        header=time_offset if version == 4 else b"",
    )


def krb5_conf(keys: list[bytes]) -> bytes:
    """Other programs' relations hold PINs. Here each stands before and after what is read."""
    pin = keys[0] if keys is TEXT else keys[0].hex().encode()
    return (
        b"# " + pin + b"\n[libdefaults]\npin = " + pin + b"\nclockskew = 300\npkinit_identities = PKCS12:" + pin
        + b"\nforwardable = true\npin = \"" + pin + b"\"\n" + b"permitted_enctypes = aes\npin = " + pin
        + b"\n[realms]\nA = {\nkdc = a.test:88\n pin = " + pin + b"\n}\n"
    )  # fmt: skip


def state(keys: list[bytes]) -> bytes:
    text = keys[0].decode() if keys is TEXT else keys[0].hex()
    guid = "a762885a-aa44-11d2-81f1-00c04fb9624e"
    account = {"dn": f"CN={text}", "name": text, "object_guid": guid, "sid": "S-1-5-21-1-2-3-1104"}
    return json.dumps(
        {
            "format_version": 1,
            "guid_binding_string": f"LDAP://<GUID={guid}>",
            "scp_dn": f"CN={text}",
            "domain": text,
            "spns": [f"a/{text}"],
            "containers": [text],
            "account": account,
        }
    ).encode()


def key_file(keys: list[bytes]) -> bytes:
    return b"".join(b"18:%s\n" % key.hex().encode() for key in keys[:2])


CONTEXT_KEY = bytes(range(16))


def exported(keys: list[bytes]) -> bytes:
    ticket, entries = issue(18, session_key=EncryptionKey(18, keys[0]))
    initiator, acceptor = Initiator(ticket), Acceptor(entries, replay_cache=MemoryReplayCache())
    initiator.step(acceptor.step(initiator.step()))
    return acceptor.export_context(CONTEXT_KEY)


def exported_plain(keys: list[bytes]) -> bytes:
    """What is inside an exported context."""
    blob = exported(keys)
    plain = json.loads(AESGCM(CONTEXT_KEY).decrypt(blob[16:28], blob[28:], blob[:16]))
    return json.dumps(
        {**plain, "key": [18, keys[0].hex()], "initiator_key": [18, keys[1].hex()]}
    ).encode()


def resealed(plain: bytes) -> None:
    head = b"purekrb context\x01"
    Acceptor.import_context(
        head + bytes(12) + AESGCM(CONTEXT_KEY).encrypt(bytes(12), plain, head), CONTEXT_KEY
    )


def enc_krb_cred_part(keys: list[bytes]) -> bytes:
    tgs = PrincipalName(("krbtgt", "R"), 2)
    infos = [
        KrbCredInfo(EncryptionKey(18, key), "R", ALICE.name, 0, NOW, NOW, NOW, None, "R", tgs, None)
        for key in keys[:2]
    ]
    return EncKrbCredPart(tuple(infos), 1, NOW, 1, None, None).encode()


def krb_cred(keys: list[bytes]) -> bytes:
    """A KRB-CRED in the clear, as it may come in a file or as a delegation."""
    ticket = issue(18)[0].ticket
    return KrbCred(
        5, 22, (ticket, ticket), EncryptedData(0, None, enc_krb_cred_part(keys))
    ).encode()


def gss_checksum(keys: list[bytes]) -> bytes:
    return GssChecksum(1, delegation=krb_cred(keys)).encode()


def enc_ticket_part(keys: list[bytes]) -> bytes:
    key, transited = EncryptionKey(18, keys[0]), TransitedEncoding(1, b"")
    return EncTicketPart(
        0, key, "R", ALICE.name, transited, NOW, NOW, NOW, None, None, None
    ).encode()


def enc_kdc_rep_part(keys: list[bytes]) -> bytes:
    return EncKdcRepPart(
        EncryptionKey(18, keys[0]), (), 1, None, 0, NOW, None, NOW, None, "R", SERVICE.name
    ).encode()


def authenticator(keys: list[bytes]) -> bytes:
    delegation = Checksum(0x8003, gss_checksum(keys))
    return Authenticator(
        5, "R", ALICE.name, delegation, 1, NOW, EncryptionKey(18, keys[0]), 1, None
    ).encode()


def logon(keys: list[bytes]) -> bytes:
    flags = b"\x20\x02\0\0"
    return logon_info(user_flags=0x220).replace(flags + bytes(16), flags + keys[0][:16], 1)


def from_file(read: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    def reader(data: bytes, path: Path) -> object:
        path.write_bytes(data)
        path.chmod(0o600)
        return read(str(path))

    return reader


def from_bytes(read: Callable[[bytes], object]) -> Callable[[bytes, Path], object]:
    return lambda data, _: read(data)


#: What makes the data out of keys, and what reads it.
FORMATS: dict[str, tuple[Callable[[list[bytes]], bytes], Callable[[bytes, Path], object]]] = {
    "keytab-1": (lambda keys: keytab(keys, 1), from_bytes(Keytab.decode)),
    "keytab-2": (lambda keys: keytab(keys, 2), from_bytes(Keytab.decode)),
    "keytab-file": (lambda keys: keytab(keys[:1], 2), from_file(Keytab.load)),
    **{
        f"ccache-{version}": (functools.partial(ccache, version=version), from_bytes(CCache.decode))
        for version in (1, 2, 3, 4)
    },
    "ccache-file": (
        lambda keys: ccache(keys[:1], 4),
        from_file(lambda path: CCache.load(f"FILE:{path}")),
    ),
    "krb5.conf": (krb5_conf, from_file(Config.from_file)),
    "state-file": (state, from_file(ServiceState.load)),
    "key-file": (key_file, from_file(_load_keys)),
    "exported-context": (
        exported,
        from_bytes(lambda data: Acceptor.import_context(data, CONTEXT_KEY)),
    ),
    "exported-context-inside": (exported_plain, from_bytes(resealed)),
    "EncTicketPart": (enc_ticket_part, from_bytes(EncTicketPart.decode)),
    "EncKDCRepPart": (enc_kdc_rep_part, from_bytes(EncKdcRepPart.decode)),
    "EncKrbCredPart": (enc_krb_cred_part, from_bytes(EncKrbCredPart.decode)),
    "EncAPRepPart": (
        lambda keys: EncApRepPart(NOW, 1, EncryptionKey(18, keys[0]), 1).encode(),
        from_bytes(EncApRepPart.decode),
    ),
    "Authenticator": (authenticator, from_bytes(Authenticator.decode)),
    "KRB-CRED": (krb_cred, from_bytes(KrbCred.decode)),
    "0x8003": (gss_checksum, from_bytes(GssChecksum.decode)),
    "PAC": (logon, from_bytes(LogonInfo.decode)),
    "SPNEGO": (
        lambda keys: NegTokenInit((b"\x2a\x86\x48",), None, krb_cred(keys), None).encode(),
        from_bytes(NegTokenInit.decode),
    ),
}


@pytest.mark.parametrize("keys", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", [pytest.param(name, id=f"K402-{name}") for name in FORMATS])
def test_no_error_about_damaged_bytes_shows_a_key_in_them(
    name: str, keys: list[bytes], tmp_path: Path, log: list[str]
) -> None:
    make, read = FORMATS[name]
    data = make(keys)
    read(data, tmp_path / "file")  # undamaged, it is read
    secrets = [*keys, *(key.hex().encode() for key in keys)]
    find = search(secrets)
    assert find(repr(data)) or name == "exported-context", (
        "the search finds the key in the data itself"
    )
    refused, texts, seen = 0, [], Counter[str]()
    for bad in damaged(data, every=3 if len(data) > 400 and not SOAK else 1):
        try:
            value = read(bad, tmp_path / "file")
        except KerberosError as error:
            refused += 1
            texts += [str(error)]
            kind = re.sub(r"\d+", "", str(error))
            seen[kind] += 1
            if seen[kind] < 20 or SOAK:  # of the same message, the tracebacks of the first ones
                texts += [shown(error), printed(error)]
        else:
            texts += (
                [repr(value)] if keys is RANDOM and name != "state-file" else []
            )  # what became a name is one
        if len(texts) > 200:
            assert not find("\n".join(texts)), [text for text in texts if find(text)][:1]
            texts = []
    assert refused
    assert not find("\n".join([*texts, *log]))


def test_k402_nor_does_one_about_a_damaged_replay_cache(tmp_path: Path, log: list[str]) -> None:
    """It holds digests alone. Here they are keys, in a table that is damaged as well as its schema."""
    path = tmp_path / "replay"
    cache = SqliteReplayCache(path)
    now = datetime.now(timezone.utc)
    for key in RANDOM:
        cache.remember(key, now, now)
    cache.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    data, find, refused = path.read_bytes(), search(RANDOM), 0
    assert find(repr(data))
    for bad in damaged(data[:4096], every=1 if SOAK else 150):
        path.write_bytes(bad + data[4096:])
        try:
            with closing(SqliteReplayCache(path)) as damaged_cache:
                damaged_cache.remember(b"another", now, now)
        except Exception as error:  # which errors they may be is another case's
            refused += 1
            log += [shown(error), printed(error)]
        for extra in ("replay-wal", "replay-shm", "replay-journal"):
            (tmp_path / extra).unlink(missing_ok=True)
    with (
        warnings.catch_warnings()
    ):  # a cache that could not be made may have left its connection open
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert refused
    assert not find("\n".join(log))


def test_k402_an_error_tells_where_and_how_long_but_not_what() -> None:
    bad = keytab(RANDOM, 2).replace(b"\0\x0aweb.r.test", b"\0\x20web.r.test", 1)
    with pytest.raises(DecodeError, match=r"a name of 32 bytes at byte 24 is not UTF-8"):
        Keytab.decode(bad)


@pytest.mark.parametrize(
    "read", [Keytab.load, CCache.load, functools.partial(read_private, what="file")]
)
def test_k402_the_bytes_of_a_file_in_place_of_its_path_are_refused_unquoted(
    read: Callable[[Any], object],
) -> None:
    with pytest.raises(TypeError, match="not bytes") as caught:
        read(keytab(RANDOM, 2))
    assert not search(RANDOM)(shown(caught.value) + printed(caught.value))


# -- K419: mistakes of callers, and exceptions from outside


class Outside(BaseException):
    """What a signal handler raises."""


def raise_outside(_signal: int, frame: FrameType | None) -> None:
    if frame is None or frame.f_code.co_name != "__del__":  # what is raised there goes to nobody
        raise Outside


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, raise_outside)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


LONG = (1 << 18).to_bytes(4, "big")  # iterations: a tenth of a second or more
KEY = key_bytes(32, "long-term")
SECRETS = [PASSWORD.encode(), KEY]
find_secret = search(SECRETS)


class Hostile(str):
    """A password that ends the work on it, as a bug or a signal would: the error comes from within the call."""

    def encode(self, *_args: Any, **_named: Any) -> bytes:
        raise AttributeError("no encoding", obj=str(self), name="encode")


def good_keytab() -> bytes:
    return keytab_file(keytab_record(etype=18, contents=KEY))


class Unfinished(bytes):
    """Bytes of a file that fail when they are cut up."""

    def __getitem__(self, _key: Any) -> Any:
        raise TypeError("not today")


MISTAKES: dict[str, Callable[[], object]] = {
    "string_to_key-AttributeError": lambda: crypto.string_to_key(18, Hostile(PASSWORD), "salt"),
    "string_to_key-no-salt": lambda: crypto.string_to_key(18, PASSWORD, None),  # type: ignore[arg-type]
    "string_to_key-no-params": lambda: crypto.string_to_key(19, PASSWORD, "salt", 4096),  # type: ignore[arg-type]
    "string_to_key-no-password": lambda: crypto.string_to_key(18, [PASSWORD], "salt"),  # type: ignore[arg-type]
    "EncryptionKey-text": lambda: EncryptionKey(18, KEY.decode()),  # type: ignore[arg-type]
    "EncryptionKey-list": lambda: EncryptionKey(18, [KEY] * 32),  # type: ignore[list-item]
    "EncryptionKey-etype": lambda: EncryptionKey([], KEY),  # type: ignore[arg-type]
    "prf": lambda: crypto.prf(EncryptionKey(19, KEY[:16]), "text"),  # type: ignore[arg-type]
    "prf_plus": lambda: crypto.prf_plus(EncryptionKey(18, KEY), "text", 32),  # type: ignore[arg-type]
    "cf2": lambda: crypto.cf2(EncryptionKey(18, KEY), EncryptionKey(18, KEY), b"a", None),  # type: ignore[arg-type]
    "encrypt-usage": lambda: crypto.encrypt(EncryptionKey(20, KEY), "1", b""),  # type: ignore[arg-type]
    "encrypt-plaintext": lambda: crypto.encrypt(EncryptionKey(20, KEY), 1, "text"),  # type: ignore[arg-type]
    "encrypt-rc4": lambda: crypto.encrypt(EncryptionKey(23, KEY[:16]), 1, "text"),  # type: ignore[arg-type]
    "checksum": lambda: crypto.checksum(EncryptionKey(18, KEY), 1, "text"),  # type: ignore[arg-type]
    "Credential": lambda: Credential("alice", password=PASSWORD.encode()),
    "Credential-text": lambda: Credential("alice@R", password=PASSWORD),  # type: ignore[arg-type]
    "Credential-keys": lambda: Credential("alice@R", keys=[KEY]),  # type: ignore[list-item]
    "from_password": lambda: Credential.from_password("alice@R", Hostile(PASSWORD)),
    "from_password-list": lambda: Credential.from_password("alice@R", [PASSWORD]),  # type: ignore[arg-type]
    "from_password-principal": lambda: Credential.from_password(None, PASSWORD),  # type: ignore[arg-type]
    "from_key": lambda: Credential.from_key("alice@R", KEY),  # type: ignore[arg-type]
    "from_keytab": lambda: Credential.from_keytab("alice@R", good_keytab()),  # type: ignore[arg-type]
    "from_ccache": lambda: Credential.from_ccache(good_keytab()),  # type: ignore[arg-type]
    "key_for": lambda: Credential.from_password("alice@R", PASSWORD).key_for(18, None),  # type: ignore[arg-type]
    "Keytab.decode": lambda: Keytab.decode(Unfinished(good_keytab())),
    "Keytab.decode-list": lambda: Keytab.decode(list(good_keytab())),  # type: ignore[arg-type]
    "Keytab.decode-text": lambda: Keytab.decode(good_keytab().decode("latin-1")),  # type: ignore[arg-type]
    "Keytab.from_password": lambda: Keytab.from_password("alice@R", PASSWORD, etypes=18),  # type: ignore[arg-type]
    "Keytab.from_password-kvno": lambda: Keytab.from_password("alice@R", PASSWORD, timestamp=1),  # type: ignore[arg-type]
    "CCache.decode": lambda: CCache.decode(Unfinished(b"\5\4" + KEY)),
    "CCache.decode-text": lambda: CCache.decode("\5\4" + KEY.decode()),  # type: ignore[arg-type]
    "EncTicketPart.decode": lambda: EncTicketPart.decode(KEY.decode()),  # type: ignore[arg-type]
    "import_context": lambda: Initiator.import_context(b"blob", KEY.decode()),  # type: ignore[arg-type]
    "import_context-none": lambda: Initiator.import_context(None, KEY),  # type: ignore[arg-type]
    "AcquireCredentialsHandle": lambda: AcquireCredentialsHandle(
        None,
        "Kerberos",
        SECPKG_CRED_OUTBOUND,
        None,
        (1, "R", PASSWORD),  # type: ignore[arg-type]
    ),
    "AcquireCredentialsHandle-domain": lambda: AcquireCredentialsHandle(
        None,
        "Kerberos",
        SECPKG_CRED_OUTBOUND,
        None,
        ("alice", 1, PASSWORD),  # type: ignore[arg-type]
    ),
    "AcquireCredentialsHandle-password": lambda: AcquireCredentialsHandle(
        None,
        "Kerberos",
        SECPKG_CRED_INBOUND,
        None,
        ("alice", "R.TEST", [PASSWORD]),  # type: ignore[arg-type]
    ),
    "AcquireCredentialsHandle-package": lambda: AcquireCredentialsHandle(
        None,
        1,
        SECPKG_CRED_OUTBOUND,
        None,
        ("alice", "R.TEST", PASSWORD),  # type: ignore[arg-type]
    ),
    "ClientAuth": lambda: ClientAuth("Kerberos", None, ("alice", 1, PASSWORD)),  # type: ignore[arg-type]
    "Realm.add_user": lambda: Realm("R.TEST").add_user(1, PASSWORD),  # type: ignore[arg-type]
    "Realm.add_user-password": lambda: Realm("R.TEST").add_user("a", Hostile(PASSWORD)),
}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"K419-{name}") for name in MISTAKES])
def test_the_error_about_a_callers_mistake_shows_no_secret(name: str) -> None:
    with pytest.raises((TypeError, AttributeError, ValueError, KerberosError)) as caught:
        MISTAKES[name]()
    error: Any = caught.value
    subjects = [getattr(one, name, "") for one in chain(error) for name in ("obj", "object", "doc")]
    assert not find_secret(shown(error) + printed(error) + repr(subjects))


INTERRUPTED: dict[str, Callable[[], object]] = {
    "string_to_key-18": lambda: crypto.string_to_key(18, PASSWORD, "salt", LONG),
    "string_to_key-20": lambda: crypto.string_to_key(20, PASSWORD, "salt", LONG),
    "key_for": lambda: Credential.from_password("alice@R", PASSWORD).key_for(18, b"salt", LONG),
    "Keytab.from_password": lambda: Keytab.from_password("alice@R", PASSWORD, etypes=(18,) * 40),
    "Keytab.decode": lambda: Keytab.decode(good_keytab()[:2] + good_keytab()[2:] * 20_000),
    "CCache.decode": lambda: CCache.decode(
        CCacheWriter().file(*[CCacheWriter().credential(etype=18, contents=KEY)] * 9999)
    ),
    "AcquireCredentialsHandle": lambda: AcquireCredentialsHandle(
        "HTTP/a", "Kerberos", SECPKG_CRED_INBOUND, None, ("alice", "R.TEST", PASSWORD * 10_000)
    ),
    "prf_plus": lambda: [crypto.prf_plus(EncryptionKey(18, KEY), b"x", 4000) for _ in range(99)],
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no interval timers")
@pytest.mark.parametrize("name", [pytest.param(name, id=f"K419-{name}") for name in INTERRUPTED])
def test_what_a_signal_handler_raises_amid_a_call_shows_no_secret(name: str) -> None:
    call, amid = INTERRUPTED[name], 0
    for attempt in range(40):
        with pytest.raises(Outside) as caught, interrupted_after(0.003 + 0.001 * attempt):
            deque(
                (call() for _ in repeat(None)), maxlen=0
            )  # how long the call takes depends on the machine
        entered = [
            f.f_code.co_name
            for f, _ in traceback.walk_tb(caught.value.__traceback__)
            if PACKAGE in str(f)
        ]
        if entered[1:]:  # else before the first instruction of the call, when all is the caller's
            assert not find_secret(shown(caught.value) + printed(caught.value)), entered
            amid += 1
        if amid == 3:
            break
    assert amid == 3


class Injected(Exception):
    """What comes from outside in the middle of a line."""


def interrupted_at(call: Callable[[], object], step: int) -> BaseException | None:
    """Run `call` and raise before its line number `step` of the package, as a signal handler can; return that."""
    left = step
    entered = False

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal left, entered
        inside = frame.f_code.co_filename.startswith(PACKAGE)
        # The first and the last instant of a call, and of the wrapper, are the caller's: see docs/security.md.
        if not inside or frame.f_code.co_filename.endswith("tracebacks.py"):
            return trace if event == "call" else None
        if frame.f_code.co_name == "__del__":  # what is raised there goes to nobody
            return None
        if event == "call":
            entered = frame.f_code.co_name in ("__init__", "decode")
        elif event == "line" and entered:
            entered = False
        elif event == "line":
            left -= 1
            if left < 0:
                raise Injected
        return trace

    sys.settrace(trace)
    try:
        call()
    except Injected as error:
        return error
    except BaseException as error:
        while error.__context__ is not None and not isinstance(error, Injected):
            error = error.__context__
        return error
    finally:
        sys.settrace(None)
    return None


SMALL: dict[str, Callable[[], object]] = {
    "string_to_key-18": lambda: crypto.string_to_key(18, PASSWORD, "salt", b"\0\0\0\1"),
    "string_to_key-20": lambda: crypto.string_to_key(20, PASSWORD, "salt", b"\0\0\0\1"),
    "string_to_key-23": lambda: crypto.string_to_key(23, PASSWORD, "salt"),
    "from_password": lambda: Credential.from_password("alice@R", PASSWORD),
    "key_for": lambda: Credential.from_password("alice@R", PASSWORD).key_for(
        18, b"salt", b"\0\0\0\1"
    ),
    "EncryptionKey": lambda: EncryptionKey(18, KEY),
    "Keytab.decode": lambda: Keytab.decode(good_keytab()),
    "CCache.decode": lambda: CCache.decode(ccache([KEY, KEY], 4)),
    "prf": lambda: crypto.prf(EncryptionKey(19, KEY[:16]), b"x"),
    "encrypt-18": lambda: crypto.encrypt(EncryptionKey(18, KEY), 1, b"x"),
    "encrypt-20": lambda: crypto.encrypt(EncryptionKey(20, KEY), 1, b"x"),
    "EncTicketPart.decode": functools.partial(EncTicketPart.decode, enc_ticket_part([KEY, KEY])),
    "AcquireCredentialsHandle": lambda: AcquireCredentialsHandle(
        None, "Kerberos", SECPKG_CRED_OUTBOUND, None, ("alice", "R.TEST", PASSWORD)
    ),
}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"K419-{name}") for name in SMALL])
def test_an_exception_from_outside_before_any_line_shows_no_secret(name: str) -> None:
    call = SMALL[name]
    call()  # what is imported or remembered once is by now
    step, bad = 0, []
    while (error := interrupted_at(call, step)) is not None:
        if find_secret(shown(error) + printed(error)):
            bad.append((step, printed(error).splitlines()[-8:]))
        step += 1 + (0 if SOAK else step // 25)
    assert step > 3
    assert not bad


def test_k419_the_error_that_the_caller_was_handling_keeps_its_traceback() -> None:
    """The positive control: only frames of the call are cleared, and the lines remain."""
    what = "the caller's own"
    with pytest.raises(TypeError) as caught:  # noqa: PT012 - the error has to be raised while another is handled
        try:
            raise LookupError(what)
        except LookupError:
            crypto.string_to_key(18, PASSWORD, None)  # type: ignore[arg-type]
    assert "string_to_key" in printed(caught.value), "where it happened is still told"
    outer = [one for one in chain(caught.value) if isinstance(one, LookupError)]
    assert [one.__traceback__.tb_frame.f_locals["what"] for one in outer if one.__traceback__] == [
        what
    ]


# -- K419: reprs


def test_k419_no_repr_of_any_object_that_holds_a_key_shows_it() -> None:
    """Every living object of a class of the package, and every `partial` that holds something of it."""
    find = search([*RANDOM, PASSWORD.encode()])
    kept: list[Any] = []
    for etype, size in ((17, 16), (18, 32), (19, 16), (20, 32), (23, 16)):
        long_term, session = (
            EncryptionKey(etype, RANDOM[0][:size]),
            EncryptionKey(etype, RANDOM[1][:size]),
        )
        ticket, entries = issue(etype, key=long_term, session_key=session)
        rc4 = {"permitted_etypes": (etype,)}
        initiator = Initiator(ticket, **rc4)  # type: ignore[arg-type]
        acceptor = Acceptor(entries, replay_cache=MemoryReplayCache(), **rc4)  # type: ignore[arg-type]
        initiator.step(acceptor.step(initiator.step()))
        assert acceptor.unwrap(initiator.wrap(b"data")) == b"data"
        initiator.prf(PrfKey.FULL, b"", 16)
        crypto.checksum(long_term, 2, b"data")
        crypto.checksum(session, 2, b"data")
        kept += [initiator, acceptor, ticket, entries, long_term, session]
    kept += [
        Credential.from_password("alice@R", PASSWORD),
        Keytab.decode(keytab(RANDOM, 2)),
        CCache.decode(ccache(RANDOM, 4)),
        EncTicketPart.decode(enc_ticket_part(RANDOM)),
        KrbCred.decode(krb_cred(RANDOM)),
        GssChecksum.decode(gss_checksum(RANDOM)),
        Authenticator.decode(authenticator(RANDOM)),
        EncKrbCredPart.decode(enc_krb_cred_part(RANDOM)),
        NegTokenInit((b"\x2a",), None, krb_cred(RANDOM), None),
        EncryptedData(0, None, RANDOM[0]),
    ]
    with Realm("R.TEST") as realm:
        kept += [realm, realm.add_user("alice", PASSWORD)]
        kept.append(realm._kdc.accounts)
        living = [
            one
            for one in gc.get_objects()
            if str(type(one).__module__).partition(".")[0] == "purekrb"
            or isinstance(one, functools.partial)
        ]
        seen = {type(one).__qualname__ for one in living}
        assert {
            "EncryptionKey",
            "Keyed",
            "Dk",
            "AesUsageCipher",
            "Rc4Protection",
            "IovProtection",
            "KrbCred",
        } <= seen
        bad = {type(one).__qualname__: repr(one)[:200] for one in living if find(_repr(one))}
    assert not bad
    assert find(repr(functools.partial(hash, RANDOM[0]))), (
        "the search finds a key that a partial holds"
    )


def _repr(value: object) -> str:
    try:
        return repr(value) + "".join(
            map(repr, vars(value).values()) if hasattr(value, "__dict__") else ()
        )
    except AttributeError:  # an object that its __init__ gave up on, in some frame
        return ""


def test_k419_the_interval_timer_of_this_file_does_interrupt() -> None:
    """The positive control: without the protection the password is in the traceback."""
    if not hasattr(signal, "setitimer"):
        return

    def unprotected(password: str) -> None:
        while password:
            time.sleep(0.001)

    with pytest.raises(Outside) as caught, interrupted_after(0.005):
        unprotected(PASSWORD)
    trace = caught.value.__traceback__
    frames = []
    while trace is not None:
        frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert find_secret("".join(frames))
