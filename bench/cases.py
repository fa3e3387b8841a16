"""The cases: each function of GROUPS yields those of one group, for purekrb and for the others."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from bench.goals import (
    CIPHERS,
    HANDSHAKE,
    KERBEROS,
    KINIT,
    LIMIT,
    MIT,
    MIT_FILE,
    MIT_MEMORY,
    ONE,
    OURS,
    PBKDF2,
    PYASN1,
    TALK,
)
from bench.lab import ETYPES, PASSWORD, REALM, USER, Lab, Mit
from bench.limit import Limit
from bench.timing import BATCH, Batch, Contender, each, repeat
from bench.worker import peer_python
from purekrb import Acceptor, Credential, Initiator, IovBuffer, IovType, KdcClient, crypto
from purekrb.constants import KeyUsage
from purekrb.gss.framing import unframe
from purekrb.messages.ap import ApRep, ApReq, Authenticator, EncApRepPart, EncTicketPart, Ticket

__all__ = ["GROUPS", "HUGE", "Case"]

SIZES = {"64 B": 64, "1 KiB": 1 << 10, "16 KiB": 16 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
HUGE = 16 << 20


@dataclass(frozen=True)
class Case:
    """One row: what purekrb does, and what the others do. Both are set up only when the row is measured."""

    group: str
    name: str
    ours: Callable[[], Batch]
    others: Callable[[], Sequence[Contender]]
    batch_seconds: float = BATCH

    def contenders(self) -> list[Contender]:
        """Return everyone, ready to run."""
        return [Contender(OURS, self.ours(), self.batch_seconds), *self.others()]


def messages(lab: Lab) -> Iterator[Case]:
    """Per-message calls of established contexts, in C, and at the limit."""
    for etype, (label, size) in itertools.product(ETYPES, SIZES.items()):
        make = partial(_message, lab, etype, label, os.urandom(size))
        yield make(
            "wrap sealed", lambda we, _, data: repeat(we.wrap, data), _mit_wrap(True), Limit.seal
        )
        yield make("unwrap sealed", _our_unwrap(True), _mit_unwrap(True), Limit.open)
        yield make(
            "wrap signed",
            lambda we, _, data: repeat(we.wrap, data, False),
            _mit_wrap(False),
            Limit.sign,
        )
        yield make("unwrap signed", _our_unwrap(False), _mit_unwrap(False), Limit.sign)
        yield make(
            "get_mic", lambda we, _, data: repeat(we.get_mic, data), _mit_get_mic, Limit.sign
        )
        yield make("verify_mic", _our_verify, _mit_verify, Limit.sign)
        if label in ("64 B", "64 KiB"):
            yield make("wrap_iov sealed", _our_wrap_iov, _mit_wrap_iov, Limit.seal)
            yield make("unwrap_iov sealed", _our_unwrap_iov, _mit_unwrap_iov, Limit.open)
    for etype in ETYPES:
        make = partial(_message, lab, etype, "16 MiB", os.urandom(HUGE))
        # MIT's library frees 32 MiB at once, whereupon malloc gives its memory back to the system, and who has the next
        # turn pays for getting it again: a row without it, against the limit, and one with it.
        yield make("wrap sealed", lambda we, _, data: repeat(we.wrap, data), None, Limit.seal)
        yield make(
            "wrap sealed beside MIT",
            lambda we, _, data: repeat(we.wrap, data),
            _mit_wrap(True),
            Limit.seal,
        )
        yield make("unwrap sealed", _our_unwrap(True), _mit_unwrap(True), Limit.open)
        if hasattr(Initiator, "unwrap_into"):
            yield make("unwrap_into", _our_unwrap_into, None, Limit.open)


#: Returns the batch of one kind of call on (context, its peer, data). A receiver wants every sequence number once, so
#: the peer makes new tokens for each batch, and that is not timed.
Call = Callable[[Any, Any, bytes], Batch]


def _message(
    lab: Lab,
    etype: int,
    label: str,
    data: bytes,
    name: str,
    ours: Call,
    mit: Call | None,
    limit: Callable[[Limit], None],
) -> Case:
    def others() -> list[Contender]:
        known = [Contender(LIMIT, repeat(limit, Limit(etype, len(data))))]
        return known if mit is None else [Contender(MIT, mit(*lab.mit.pair(etype), data)), *known]

    return Case(
        f"etype {etype}", f"{name} {label}", lambda: ours(*lab.our_pair(etype), data), others
    )


def _our_unwrap(sealed: bool) -> Call:
    return lambda we, peer, data: each(
        lambda: peer.wrap(data, sealed), lambda token: we.unwrap(token, sealed)
    )


def _our_wrap_iov(we: Any, _peer: Any, data: bytes) -> Batch:
    return repeat(lambda: we.wrap_iov([IovBuffer(IovType.HEADER), IovBuffer(IovType.DATA, data)]))


def _our_unwrap_iov(we: Any, peer: Any, data: bytes) -> Batch:
    buffers = [IovBuffer(IovType.HEADER), IovBuffer(IovType.DATA, data)]
    return each(lambda: peer.wrap_iov(buffers), we.unwrap_iov)


def _our_unwrap_into(we: Any, peer: Any, data: bytes) -> Batch:
    buffer = bytearray(len(data) + 64)
    return each(lambda: peer.wrap(data), lambda token: we.unwrap_into(token, buffer))


def _our_verify(we: Any, peer: Any, data: bytes) -> Batch:
    return each(lambda: peer.get_mic(data), lambda mic: we.verify_mic(data, mic))


def _mit_wrap(sealed: bool) -> Call:
    return lambda they, _peer, data: repeat(they.wrap, data, sealed)


def _mit_unwrap(sealed: bool) -> Call:
    return lambda they, peer, data: each(lambda: peer.wrap(data, sealed).message, they.unwrap)


def _mit_wrap_iov(they: Any, _peer: Any, data: bytes) -> Batch:
    from gssapi import raw

    kind = raw.IOVBufferType
    return repeat(
        lambda: raw.wrap_iov(
            they, raw.IOV((kind.header, True), (kind.data, False, data), std_layout=False)
        )
    )


def _mit_unwrap_iov(they: Any, peer: Any, data: bytes) -> Batch:
    from gssapi import raw

    kind = raw.IOVBufferType

    def pieces() -> tuple[bytes, bytes]:
        iov = raw.IOV((kind.header, True), (kind.data, False, data), std_layout=False)
        raw.wrap_iov(peer, iov)
        return iov[0].value, iov[1].value

    def unwrap(given: tuple[bytes, bytes]) -> None:
        raw.unwrap_iov(
            they,
            raw.IOV((kind.header, False, given[0]), (kind.data, False, given[1]), std_layout=False),
        )

    return each(pieces, unwrap)


def _mit_get_mic(they: Any, _peer: Any, data: bytes) -> Batch:
    return repeat(they.get_signature, data)


def _mit_verify(they: Any, peer: Any, data: bytes) -> Batch:
    return each(lambda: peer.get_signature(data), lambda mic: they.verify_signature(data, mic))


def threads(lab: Lab) -> Iterator[Case]:
    """The same work on two contexts by two threads, and by one; for each message."""
    data = os.urandom(256 << 10)
    enough = 0.004  # a thread needs some 0.1 ms to begin

    def wraps(context: Initiator, n: int) -> None:
        for _ in range(n):
            context.wrap(data)

    def on_two() -> Batch:
        pool = ThreadPoolExecutor(2)
        contexts = [lab.our_pair(18)[0] for _ in range(2)]

        def batch(n: int) -> float:
            start = time.perf_counter()
            for done in [pool.submit(wraps, context, n) for context in contexts]:
                done.result()
            return (time.perf_counter() - start) / 2

        return batch

    def on_one() -> list[Contender]:
        return [Contender(ONE, repeat(lab.our_pair(18)[0].wrap, data), enough)]

    yield Case(
        "threads", "wrap sealed 256 KiB, two threads on two contexts", on_two, on_one, enough
    )


def contexts(lab: Lab) -> Iterator[Case]:
    """Initiator step, acceptor step and the check of the AP-REP, the service ticket being at hand.

    Whoever authenticates sends something, so that the first rows add one sealed message each way.
    """
    for etype, (work, (ours, theirs)) in itertools.product(ETYPES, _PAIRS.items()):

        def others(etype: int = etype, theirs: Pair = theirs) -> list[Contender]:
            lab.mit.pair(etype)  # permits the etype, and makes sure that it is used
            return [
                Contender(MIT_MEMORY, repeat(theirs, lab.mit, etype, "MEMORY")),
                Contender(MIT_FILE, repeat(theirs, lab.mit, etype, "FILE")),
            ]

        seen = partial(_seen, lab, etype, ours)
        yield Case(
            "contexts",
            f"etype {etype}, {work}, new ticket",
            partial(_new, lab, etype, ours),
            others,
        )
        yield Case("contexts", f"etype {etype}, {work}, ticket seen", seen, others)

    def in_other_processes() -> list[Contender]:
        lab.mit.use(18)  # pyspnego's process gets this environment
        peers = ("minikerberos", "impacket", "spnego")
        return [contender for peer in peers for contender in lab.peer(peer, "context pair", warm)]

    warm = 0.01  # a process that has waited for its turn is slow at first: longer batches, for all
    beside = partial(_seen, lab, 18, Lab.connect)
    yield Case(
        "contexts",
        "etype 18, beside libraries in other processes",
        beside,
        in_other_processes,
        warm,
    )

    def without_spnego() -> list[Contender]:
        lab.mit.pair(18)
        return [
            Contender(KERBEROS, _seen(lab, 18, Lab.connect)),
            Contender(MIT_MEMORY, repeat(partial(lab.mit.connect, spnego=True), 18, "MEMORY")),
            Contender(MIT_FILE, repeat(partial(lab.mit.connect, spnego=True), 18, "FILE")),
        ]

    by_spnego = partial(_seen, lab, 18, partial(Lab.connect, mechanism="negotiate"))
    yield Case("contexts", "etype 18 by SPNEGO, ticket seen", by_spnego, without_spnego)


#: Makes a pair of contexts: of ours from (lab, ticket), of MIT's from (library, etype, ccache).
Pair = Callable[..., Any]


def _talk(lab: Lab, ticket: Any) -> None:
    """Establish two contexts of ours and send one sealed message each way."""
    initiator, acceptor = lab.connect(ticket)
    acceptor.unwrap(initiator.wrap(_MESSAGE))
    initiator.unwrap(acceptor.wrap(_MESSAGE))


def _mit_talk(mit: Mit, etype: int, ccache: str) -> None:
    initiator, acceptor = mit.connect(etype, ccache)
    acceptor.unwrap(initiator.wrap(_MESSAGE, True).message)
    initiator.unwrap(acceptor.wrap(_MESSAGE, True).message)


_MESSAGE = bytes(64)
#: Work -> how we do it, and how MIT's library does.
_PAIRS: dict[str, tuple[Pair, Pair]] = {
    TALK: (_talk, _mit_talk),
    HANDSHAKE: (Lab.connect, Mit.connect),
}


def _seen(lab: Lab, etype: int, pair: Pair) -> Batch:
    """Return the batch with one ticket, which is at hand: looking it up by name is not part of it."""
    return repeat(pair, lab, lab.ticket(etype))


def _new(lab: Lab, etype: int, pair: Pair) -> Batch:
    """Return the batch with tickets that neither side has seen."""

    def batch(n: int) -> float:
        tickets = lab.new_tickets(etype, n)
        start = time.perf_counter()
        for ticket in tickets:
            pair(lab, ticket)
        return time.perf_counter() - start

    return batch


def decode(lab: Lab) -> Iterator[Case]:
    """One message into our dataclasses, and into impacket's pyasn1 specs, which fill more slowly still when read."""
    ticket = lab.ticket(18)
    initiator, acceptor = Initiator(ticket), Acceptor(lab.keytab, replay_cache=lab.replay_cache)
    token = initiator.step() or b""
    request = unframe(token)[1]
    reply = unframe(acceptor.step(token) or b"")[1]
    parsed = ApReq.decode(request)
    enc_ticket = Ticket.decode(parsed.ticket).enc_part
    samples = {
        "AP-REQ": (ApReq, "AP_REQ", request),
        "EncTicketPart": (
            EncTicketPart,
            "EncTicketPart",
            crypto.decrypt(lab.service_key(18), KeyUsage.TICKET, enc_ticket.cipher),
        ),
        "Authenticator": (
            Authenticator,
            "Authenticator",
            crypto.decrypt(
                ticket.session_key, KeyUsage.AP_REQ_AUTHENTICATOR, parsed.authenticator.cipher
            ),
        ),
        "EncAPRepPart": (
            EncApRepPart,
            "EncAPRepPart",
            crypto.decrypt(
                ticket.session_key, KeyUsage.AP_REP_ENC_PART, ApRep.decode(reply).enc_part.cipher
            ),
        ),
    }
    for name, (ours, spec, data) in samples.items():
        yield Case("decode", name, partial(repeat, ours.decode, data), partial(_pyasn1, spec, data))


def _pyasn1(spec: str, data: bytes) -> list[Contender]:
    from impacket.krb5 import asn1
    from pyasn1.codec.der import decoder

    make = getattr(asn1, spec)
    return [Contender(PYASN1, repeat(lambda: decoder.decode(data, asn1Spec=make())))]


def tickets(lab: Lab) -> Iterator[Case]:
    """TGT with pre-authentication and a service ticket, etype 18, from the same MIT KDC over TCP."""
    user, service = f"{USER}@{REALM}", lab.service(18)

    def ours(credential: Callable[[], Credential]) -> Batch:
        return repeat(lambda: KdcClient(lab.config).get_ticket(credential(), service))

    def mit_password() -> None:
        gssapi = lab.mit.gssapi
        name = gssapi.Name(user, gssapi.NameType.kerberos_principal)
        acquired = gssapi.raw.acquire_cred_with_password(name, PASSWORD.encode(), usage="initiate")
        gssapi.SecurityContext(name=lab.mit.name(18), creds=acquired.creds, usage="initiate").step()

    numbers = itertools.count()

    def mit_keytab() -> None:
        gssapi = lab.mit.gssapi
        store = {
            "client_keytab": str(lab.directory / "user.keytab"),
            "ccache": f"MEMORY:new{next(numbers)}",
        }
        credentials = gssapi.Credentials(usage="initiate", store=store)
        gssapi.SecurityContext(name=lab.mit.name(18), creds=credentials, usage="initiate").step()

    def programs(*kinit: str) -> None:
        env = {**os.environ, "KRB5CCNAME": f"FILE:{lab.directory / 'bench-programs'}"}
        for argv in (["kinit", *kinit, user], ["kvno", service]):
            subprocess.run(
                argv, input=f"{PASSWORD}\n", text=True, env=env, check=True, capture_output=True
            )

    def others(call: Callable[[], None], work: str, *kinit: str) -> list[Contender]:
        lab.mit.use(18)
        return [
            Contender(MIT, repeat(call)),
            *lab.peer("impacket", work),
            Contender(KINIT, repeat(programs, *kinit)),
        ]

    yield Case(
        "tickets",
        "TGT and service ticket, password",
        lambda: ours(lambda: Credential.from_password(user, PASSWORD)),
        lambda: others(mit_password, "tickets by password"),
    )
    yield Case(
        "tickets",
        "TGT and service ticket, key",
        lambda: ours(lambda: Credential.from_keytab(user, lab.user_keytab)),
        lambda: others(
            mit_keytab, "tickets by key", "-k", "-t", str(lab.directory / "user.keytab")
        ),
    )


def keys(lab: Lab) -> Iterator[Case]:
    """A password's key with 4096 iterations."""
    password, salt = b"password", b"EXAMPLE.TESTalice"

    def bare() -> bytes:
        return PBKDF2HMAC(algorithm=SHA1(), length=32, salt=salt, iterations=4096).derive(password)

    def others() -> list[Contender]:
        peers = [*lab.peer("minikerberos", "string-to-key"), *lab.peer("impacket", "string-to-key")]
        return [
            Contender(PBKDF2, repeat(bare)),
            Contender(MIT, repeat(_mit_string_to_key(password, salt))),
            *peers,
        ]

    yield Case(
        "keys",
        "string-to-key etype 18",
        lambda: repeat(crypto.string_to_key, 18, password, salt),
        others,
    )


def _mit_string_to_key(password: bytes, salt: bytes) -> Callable[[], None]:
    """Return a call of MIT's krb5_c_string_to_key, which python-gssapi does not offer."""
    krb5, crypto5 = ctypes.CDLL("libkrb5.so.3"), ctypes.CDLL("libk5crypto.so.3")

    class Block(ctypes.Structure):  # krb5_data; krb5_keyblock has one number more
        _fields_ = (("magic", ctypes.c_int), ("length", ctypes.c_uint), ("data", ctypes.c_char_p))

    class Keyblock(ctypes.Structure):
        _fields_ = (
            ("magic", ctypes.c_int),
            ("enctype", ctypes.c_int),
            ("length", ctypes.c_uint),
            ("contents", ctypes.c_void_p),
        )

    context = ctypes.c_void_p()
    if krb5.krb5_init_context(ctypes.byref(context)) != 0:
        raise RuntimeError("libkrb5 does not start")
    secret, salted = Block(0, len(password), password), Block(0, len(salt), salt)

    def call() -> None:
        key = Keyblock()
        if (
            crypto5.krb5_c_string_to_key(context, 18, *map(ctypes.byref, (secret, salted, key)))
            != 0
        ):
            raise RuntimeError("krb5_c_string_to_key failed")
        krb5.krb5_free_keyblock_contents(context, ctypes.byref(key))

    return call


def imports(lab: Lab) -> Iterator[Case]:
    """An import in a new interpreter, timed from inside; the modules are compiled, as they are when installed."""
    here = Path(sys.executable)
    compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(lab.directory / "compiled")}
    compiled.pop("PYTHONDONTWRITEBYTECODE", None)

    def load(python: Path, statement: str) -> Batch:
        program = f"import time; start = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"

        def batch(_n: int) -> float:
            done = subprocess.run(
                [python, "-c", program], check=True, capture_output=True, text=True, env=compiled
            )
            return float(done.stdout)

        batch(1)  # compiles
        return batch

    def others(**statements: str) -> Callable[[], list[Contender]]:
        def found() -> list[Contender]:
            pythons = {name: peer_python(name.partition(" ")[0]) or here for name in statements}
            return [
                Contender(name, load(pythons[name], statement), 0)
                for name, statement in statements.items()
            ]

        return found

    contexts = "from purekrb import Initiator, Acceptor"
    yield Case(
        "import",
        "Initiator, Acceptor and their messages",
        lambda: load(here, contexts),
        others(
            **{
                CIPHERS: "import cryptography.hazmat.primitives.ciphers",
                "python-gssapi": "import gssapi",
            }
        ),
        0,
    )
    yield Case(
        "import",
        "with the KDC client",
        lambda: load(here, f"{contexts}, KdcClient"),
        others(
            **{
                "impacket.krb5.kerberosv5": "import impacket.krb5.kerberosv5",
                "spnego": "import spnego",
                "minikerberos": "import minikerberos.client",
            }
        ),
        0,
    )


GROUPS = (messages, threads, contexts, decode, tickets, keys, imports)
