"""Realm: an embedded KDC on loopback in one line. FOR TESTS AND DEMOS ONLY.

It has no database, no rate limit and no replay cache, and keeps passwords in memory.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

from purekrb.constants import DEFAULT_ETYPES, EncryptionType, ErrorCode, NameType
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.errors import DecodeError, TransportError
from purekrb.io.framing import FrameReader, encode_frame
from purekrb.keys import KEY_SIZES
from purekrb.krb5conf.config import Config, KdcAddress, RealmConfig
from purekrb.messages.kpasswd import PasswordPolicy
from purekrb.names import Principal
from purekrb.sid import Sid
from purekrb.system import Clock, RandomBytes, now, random_bytes
from purekrb.testing.kdc import Kdc
from purekrb.testing.kdc_accounts import KdcAccount
from purekrb.testing.kdc_preauth import KDC_MECHANISMS, KdcMechanism
from purekrb.testing.pac import Domain
from purekrb.tracebacks import forget_frames

if TYPE_CHECKING:
    from purekrb.testing.certificates import KeyKind
    from purekrb.testing.kdc_pkinit import KdcPkinit

__all__ = ["Realm"]

_HOST = "127.0.0.1"
#: The largest request in bytes. Requests are some hundred bytes; a TGT with a large PAC has some
#: ten kilobytes.
_MAX_REQUEST = 1 << 20
#: Seconds after which an idle TCP connection is closed.
_IDLE = 30.0
#: Seconds that starting or stopping may take before it counts as failed.
_PATIENCE = 10.0
#: A client only uses RC4 for its proof if it offers no other encryption type.
_RC4_ALONE = (EncryptionType.RC4_HMAC,)
#: The number of ports that are tried to find one that is free for both UDP and TCP.
_ATTEMPTS = 100


class Realm:
    """A realm with its own KDC, for tests and demos only: it is not built to withstand attackers.

        with Realm("EXAMPLE.TEST") as realm:
            alice = realm.add_user("alice", "pw")
            keytab = realm.add_service("HTTP/web.example.test")

    Entering the block (or `start`) binds a free loopback port for UDP and TCP, and serves it from a
    daemon thread. Leaving it (or `stop`) ends that; a later start uses the same port again.
    `handle` answers without sockets. Users, services and trusts may change at any time.

    etypes: those of the ticket-granting service, and of accounts without their own; RC4 must be
        listed.
    lifetime, renewable_lifetime: the longest lifetimes of tickets, in seconds.
    preauth_mechanisms: the kinds of pre-authentication that the KDC offers and accepts; see
        `testing.kdc_preauth`.
    pkinit: a `testing.kdc_pkinit.KdcPkinit`, or True for one with its defaults. The KDC then also takes
        certificates of its own authority: see `issue_certificate`.
    clock_offset: seconds by which the KDC's clock is ahead; may be changed later.
    udp_limit: replies with more bytes are not sent over UDP (RESPONSE_TOO_BIG).
    port: the port to bind; 0 for a free one.
    password_policy: the rules for new passwords: length, kinds of characters, and not the old one.
    domain_sid: a SID "S-1-5-21-...". Tickets then contain a PAC like those of a domain controller:
        accounts get SIDs of that domain, and are members of its Domain Users.
    compressed_claims: whether the claims in PACs are compressed (XPRESS Huffman).
    rodc_identifier: 1 to 65535. The KDC is then a read-only domain controller, and its signatures
        contain this identifier.
    """

    def __init__(
        self,
        name: str = "EXAMPLE.TEST",
        *,
        etypes: Iterable[int] = DEFAULT_ETYPES,
        lifetime: float = 10 * 3600,
        renewable_lifetime: float = 7 * 86400,
        preauth_mechanisms: Iterable[KdcMechanism] = KDC_MECHANISMS,
        pkinit: KdcPkinit | bool = False,
        clock_offset: float = 0.0,
        udp_limit: int = 4096,
        port: int = 0,
        password_policy: PasswordPolicy | None = None,
        domain_sid: str | None = None,
        compressed_claims: bool = False,
        rodc_identifier: int | None = None,
        clock: Clock = now,
        random: RandomBytes = random_bytes,
    ) -> None:
        self.name = name
        self.udp_limit = udp_limit
        self.etypes = _checked(etypes)
        self._random = random
        self.pkinit: KdcPkinit | None = None
        if pkinit:
            from purekrb.testing.kdc_pkinit import KdcPkinit  # only who has it pays for it

            self.pkinit = pkinit if isinstance(pkinit, KdcPkinit) else KdcPkinit(name, clock())
            preauth_mechanisms = (self.pkinit, *preauth_mechanisms)
        self._kdc = Kdc(
            name,
            etypes=self.etypes,
            lifetime=timedelta(seconds=lifetime),
            renewable_lifetime=timedelta(seconds=renewable_lifetime),
            preauth_mechanisms=preauth_mechanisms,
            clock=clock,
            random=random,
        )
        if rodc_identifier is not None and (
            domain_sid is None or not 0 < rodc_identifier < 1 << 16
        ):
            raise ValueError(
                f"rodc_identifier is 1 to 65535, with a domain_sid; got {rodc_identifier}, "
                f"{domain_sid}"
            )
        if domain_sid is not None:
            self._kdc.domain = Domain(name, Sid.parse(domain_sid), rodc_identifier)
            self._kdc.domain.compresses_claims = compressed_claims
        self._kdc.password_policy = password_policy
        if self.pkinit is not None:
            self.add_service("WELLKNOWN/ANONYMOUS")
        self.clock_offset = clock_offset
        self._port = port
        self._trusted: dict[str, Realm] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def __repr__(self) -> str:
        return (
            f"Realm({self.name!r}, port={self._port}, {'running' if self._thread else 'stopped'})"
        )

    # -- users, services and trusts ----------------------------------------------------------------

    @forget_frames
    def add_user(
        self,
        name: str,
        password: str,
        *,
        etypes: Iterable[int] | None = None,
        kvno: int = 1,
        preauth: bool = True,
        password_expired: bool = False,
        disabled: bool = False,
        sets_passwords: bool = False,
        not_delegated: bool = False,
        user_to_user: bool = False,
        lifetime: float | None = None,
        claims: Mapping[str, Iterable[int | str | bool]] | None = None,
        salt: str | None = None,
        iterations: int | None = None,
    ) -> Credential:
        """Add a user, or replace the user of that name; return its credential.

        With `preauth`, the KDC requires pre-authentication. `salt` and PBKDF2 `iterations` replace
        the defaults; ETYPE-INFO2 tells them to clients (MIT's clients refuse fewer iterations than
        the default). `lifetime` is the longest lifetime of this user's tickets, in seconds. With
        `sets_passwords`, the user may set the passwords of others (RFC 3244). If `not_delegated`, no
        service may act for the user elsewhere. With `user_to_user`, tickets for the user are under
        its TGT only (MIT's -allow_svr). `claims` (identifier -> values of one type) are in the PAC of a
        realm with a `domain_sid`.
        """
        principal = self._principal(name)
        if claims is not None:
            if self._kdc.domain is None:
                raise ValueError("claims are in PACs: make the realm with a domain_sid")
            self._kdc.domain.claims[principal.name] = {k: tuple(v) for k, v in claims.items()}
        self._kdc.accounts[principal.name] = KdcAccount(
            principal.name,
            self.etypes if etypes is None else _checked(etypes),
            kvno,
            password=password,
            salt=principal.default_salt if salt is None else salt.encode(),
            iterations=iterations,
            preauth=preauth,
            password_expired=password_expired,
            disabled=disabled,
            sets_passwords=sets_passwords,
            not_delegated=not_delegated,
            user_to_user=user_to_user,
            lifetime=_duration(lifetime),
        )
        return Credential.from_password(str(principal), password)

    def issue_certificate(
        self, name: str, *, upn: str | None = None, key: KeyKind = "P-256"
    ) -> Credential:
        """Return the credential of a new certificate for the user `name`, who must have been added.

        With a `upn`, the certificate names that, as those of Active Directory do; `add_alias` lets
        the KDC find its account. Source: RFC 4556 3.2.2.
        """
        from purekrb.credentials.kdc_trust import KdcTrust

        principal = self._principal(name)
        authority = self._own_pkinit.authority
        certificate = authority.issue(name, None if upn else principal, upn=upn, key=key)
        if upn is not None:
            principal = Principal((upn,), self.name, NameType.ENTERPRISE)
        trust = KdcTrust(authority.anchor)
        return Credential(principal, certificate=certificate, kdc_trust=trust)

    @property
    def anchors(self) -> str:
        """The certificate of the authority, in PEM: what clients trust the KDC by."""
        return self._own_pkinit.authority.anchor

    @property
    def _own_pkinit(self) -> KdcPkinit:
        if self.pkinit is None:
            raise ValueError(f"the KDC of {self.name} has no PKINIT: make Realm(..., pkinit=True)")
        return self.pkinit

    def add_service(
        self,
        name: str,
        *,
        etypes: Iterable[int] | None = None,
        kvno: int = 1,
        disabled: bool = False,
        ok_as_delegate: bool = False,
        delegate_to: Iterable[str] = (),
        delegate_from: Iterable[str] = (),
        trusted_to_auth: bool = False,
        lifetime: float | None = None,
    ) -> Keytab:
        """Add a service with random keys, or replace the service of that name; return its keytab.

        Tickets are encrypted with the first of `etypes`; session keys may be of any of them.
        `lifetime` is the longest lifetime of tickets for this service, in seconds. It may act for
        users at the services of the realm in `delegate_to` (constrained delegation); those in
        `delegate_from`, which may be of other realms, may do so here (resource-based). With
        `trusted_to_auth`, its tickets of users by S4U2Self are forwardable.
        """
        principal = self._principal(name)
        account = KdcAccount(
            principal.name,
            self.etypes if etypes is None else _checked(etypes),
            kvno,
            disabled=disabled,
            ok_as_delegate=ok_as_delegate,
            delegate_to=frozenset(self._principal(other).name for other in delegate_to),
            delegate_from=frozenset(Principal.parse(other, self.name) for other in delegate_from),
            trusted_to_auth=trusted_to_auth,
            lifetime=_duration(lifetime),
        )
        self._kdc.accounts[principal.name] = account.with_random_keys(kvno, self._random)
        return self.keytab(name)

    def add_alias(self, alias: str, name: str) -> None:
        """Make `alias` another name of the user or service `name`.

        If the client asks for canonicalization, the KDC puts the real name into tickets. Otherwise
        it only knows aliases of services.
        """
        self._kdc.aliases[self._principal(alias).name] = self._account(name).name

    def change_key(self, name: str) -> Keytab:
        """Give a service new random keys under the next kvno; return a keytab with only these."""
        account = self._account(name)
        if account.password is not None:
            raise ValueError(f"{name!r} has a password: call add_user with the new one")
        self._kdc.accounts[account.name] = account.with_random_keys(account.kvno + 1, self._random)
        return self.keytab(name)

    def keytab(self, name: str) -> Keytab:
        """Return the current keys of a user or service."""
        account = self._account(name)
        principal = account.name.principal(self.name)
        timestamp = self._kdc.now().replace(microsecond=0)
        keys = [key for etype in account.etypes if (key := account.key(etype)) is not None]
        return Keytab(KeytabEntry(principal, account.kvno, key, timestamp) for key in keys)

    def trust(self, other: Realm, *, ok_as_delegate: bool = False) -> None:
        """Let clients of either realm get tickets for services of the other.

        This also works through further trusts. `ok_as_delegate` sets the flag in cross-realm
        tickets.
        """
        etypes = tuple(e for e in self.etypes if e in other.etypes)
        if other.name == self.name or not etypes:
            raise ValueError(
                f"{self.name} and {other.name} need different names and an encryption type in "
                "common"
            )
        for here, there in ((self, other), (other, self)):
            name = f"krbtgt/{there.name}"
            here.add_service(name, etypes=etypes, ok_as_delegate=ok_as_delegate)
            here._trusted[there.name] = there
            here._kdc.trusted[there.name] = there._kdc

    @property
    def clock_offset(self) -> float:
        """Seconds by which the KDC's clock is ahead."""
        return self._kdc.clock_offset.total_seconds()

    @clock_offset.setter
    def clock_offset(self, seconds: float) -> None:
        self._kdc.clock_offset = timedelta(seconds=seconds)

    def _principal(self, name: str) -> Principal:
        principal = Principal.parse(name, self.name)
        if principal.realm != self.name:
            raise ValueError(f"{name!r} does not belong to the realm {self.name}")
        return principal

    def _account(self, name: str) -> KdcAccount:
        account = self._kdc.accounts.get(self._principal(name).name)
        if account is None:
            raise ValueError(f"{name!r} is not in the realm {self.name}: add it first")
        return account

    # -- configuration of clients ------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The loopback port of the KDC, for UDP and TCP; kept after `stop`."""
        if not self._port:
            raise TransportError(
                f"the KDC of {self.name} has no port yet: enter the realm with `with` or call "
                "start()"
            )
        return self._port

    @property
    def config(self) -> Config:
        """The configuration by which clients find this KDC and those of trusted realms."""
        realms = self._reachable()
        return Config(
            realms={realm.name: realm._servers for realm in realms},
            default_realm=self.name,
            dns_lookup_kdc=False,
            allow_rc4=any(realm._uses_rc4 for realm in realms),
            default_tkt_enctypes=_RC4_ALONE if self.etypes == _RC4_ALONE else None,
        )

    def write_krb5_conf(self, path: str | os.PathLike[str], **libdefaults: object) -> None:
        """Write a krb5.conf by which other programs find the KDCs of `config`.

        Further keywords go to [libdefaults], such as udp_preference_limit=1. True and False become
        "true" and "false".
        """
        realms = self._reachable()
        defaults: dict[str, object] = {
            "default_realm": self.name,
            "dns_lookup_kdc": False,
            "dns_lookup_realm": False,
            "dns_canonicalize_hostname": False,
            "rdns": False,
        }
        if any(realm._uses_rc4 for realm in realms):
            defaults["allow_rc4"] = True
        if self.etypes == _RC4_ALONE:
            defaults["default_tkt_enctypes"] = "rc4-hmac"
        lines = ["[libdefaults]"]
        for name, value in (defaults | libdefaults).items():
            lines.append(f"  {name} = {str(value).lower() if isinstance(value, bool) else value}")
        lines.append("[realms]")
        for realm in realms:
            server = f"{_HOST}:{realm.port}"
            relations = [f"    {name} = {server}" for name in ("kdc", "kpasswd_server")]
            if realm.pkinit is not None:
                anchors = Path(f"{path}.{realm.name}.pem")
                anchors.write_text(realm.anchors, encoding="utf-8")
                relations.append(f"    pkinit_anchors = FILE:{anchors}")
            lines += [f"  {realm.name} = {{", *relations, "  }"]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def _servers(self) -> RealmConfig:
        """The KDC of this realm, which also changes passwords, on the same port."""
        server = (KdcAddress(_HOST, self.port),)
        options = {} if self.pkinit is None else {"pkinit_anchors": (self.anchors,)}
        return RealmConfig(kdc=server, kpasswd_server=server, options=options)

    @property
    def _uses_rc4(self) -> bool:
        return any(
            EncryptionType.RC4_HMAC in account.etypes
            for account in list(self._kdc.accounts.values())
        )

    def _reachable(self) -> list[Realm]:
        """Return this realm, and the realms that it trusts, directly or indirectly."""
        found = {self.name: self}
        queue = [self]
        while queue:
            for name, realm in queue.pop()._trusted.items():
                if name not in found:
                    found[name] = realm
                    queue.append(realm)
        return list(found.values())

    # -- serving -----------------------------------------------------------------------------------

    def handle(self, request: bytes) -> bytes:
        """Return the KDC's reply to one request, without sockets. Never raises."""
        return self._kdc.handle(request)

    def start(self) -> None:
        """Serve on a loopback port, from a daemon thread, until `stop`."""
        if self._thread is not None:
            raise TransportError(f"the KDC of {self.name} is already running")
        tcp, udp = _bind(self._port)
        self._port = tcp.getsockname()[1]
        ready = threading.Event()
        thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(tcp, udp, ready)),
            name=f"KDC of {self.name}",
            daemon=True,
        )
        thread.start()
        if not ready.wait(_PATIENCE):
            raise TransportError(f"the KDC of {self.name} did not start within {_PATIENCE:.0f} s")
        self._thread = thread

    def stop(self) -> None:
        """Stop serving and close every connection. Does nothing if it is not running."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(_PATIENCE)

    def __enter__(self) -> Realm:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def _serve(self, tcp: socket.socket, udp: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        connections: set[asyncio.Transport] = set()
        server = await self._loop.create_server(
            lambda: _TcpConnection(self._kdc, connections), sock=tcp
        )
        datagrams, _ = await self._loop.create_datagram_endpoint(
            lambda: _UdpEndpoint(self), sock=udp
        )
        ready.set()
        await self._stopping.wait()
        server.close()
        datagrams.close()
        for connection in connections:
            connection.abort()
        await asyncio.sleep(0)  # the transports close their sockets in the next round of the loop


class _UdpEndpoint(asyncio.DatagramProtocol):
    """One datagram, one reply. Source: RFC 4120 7.2.1."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._realm.handle(data)
        if len(reply) > self._realm.udp_limit:
            reply = self._realm._kdc.error(ErrorCode.KRB_ERR_RESPONSE_TOO_BIG, "ask again over TCP")
        self._transport.sendto(reply, addr)


class _TcpConnection(asyncio.Protocol):
    """Any number of requests and replies, each after a length of 32 bits. Source: RFC 4120 7.2.2.

    This is a protocol rather than a stream: a client that sends one byte a minute, or never reads,
    only costs a buffer.
    """

    def __init__(self, kdc: Kdc, connections: set[asyncio.Transport]) -> None:
        self._kdc = kdc
        self._connections = connections
        self._reader = FrameReader(
            _MAX_REQUEST, "big", "the request has {length} bytes, but at most {limit} are accepted"
        )
        self._unread_replies = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self._transport)
        self._restart_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connections.discard(self._transport)

    def pause_writing(self) -> None:
        self._unread_replies = True

    def resume_writing(self) -> None:
        self._unread_replies = False
        self._answer_next()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._transport.pause_reading()  # until everything that arrived is answered
        self._answer_next()

    def _answer_next(self) -> None:
        """Answer one request, and schedule the next one, so that other clients get their turn."""
        if self._unread_replies or self._transport.is_closing():
            return
        try:
            request = self._reader.next_frame()
        except DecodeError as error:
            self._send(self._kdc.error(ErrorCode.KRB_ERR_FIELD_TOOLONG, str(error)))
            self._transport.close()
            return
        if request is None:
            self._transport.resume_reading()
            return
        self._send(self._kdc.handle(request))
        self._timer.cancel()
        self._restart_timer()
        asyncio.get_running_loop().call_soon(self._answer_next)

    def _send(self, reply: bytes) -> None:
        self._transport.write(encode_frame(reply))

    def _restart_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_IDLE, self._transport.abort)


def _bind(port: int) -> tuple[socket.socket, socket.socket]:
    """Return a TCP and a UDP socket on the same loopback port; `port` 0: one that is free for both.

    Raises TransportError.
    """
    for _ in range(_ATTEMPTS if port == 0 else 1):
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if os.name == "posix":  # elsewhere it would let two servers share the port
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((_HOST, port))
            udp.bind((_HOST, tcp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
        else:
            return tcp, udp
    raise TransportError(
        f"port {port or 'any'} of {_HOST} is taken: stop what listens there, or pass port=0"
    )


def _checked(etypes: Iterable[int]) -> tuple[int, ...]:
    chosen = tuple(etypes)
    if not chosen or not set(chosen) <= set(KEY_SIZES):
        raise ValueError(f"etypes must be some of {sorted(KEY_SIZES)}, got {chosen}")
    return chosen


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
