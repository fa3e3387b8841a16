"""Sessions with a directory over LDAP: requests as typed calls, failures as DirectoryError.

The only file that imports ldap3; no exception of ldap3 leaves it. Source: RFC 4511.
"""

from __future__ import annotations

import functools
import re
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any
from uuid import UUID

from purekrb.directory.answers import Entry, Wanted, spelled
from purekrb.directory.sasl import Bind, Reply
from purekrb.directory.stream import MessageSocket
from purekrb.dn import domain_of
from purekrb.errors import (
    ContextExpiredError,
    DecodeError,
    DirectoryError,
    InsufficientRightsError,
    KerberosError,
    PolicyError,
    TransportError,
    TransportTimeoutError,
    UnsupportedError,
)
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.log import Log
from purekrb.system import cached_property, fork_safe

with warnings.catch_warnings():
    # ldap3 2.9 uses names that pyasn1 0.6 has renamed; the warning about it is not for who imports purekrb.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPCommunicationError, LDAPException
    from ldap3.operation.bind import bind_operation
    from ldap3.utils.conv import escape_bytes

__all__ = [
    "CONTROL_CHARACTERS",
    "INVALID_PARAMETER",
    "OBJECT_EXISTS",
    "OBJECT_NOT_FOUND",
    "PERMISSIVE_MODIFY",
    "SPN_NOT_UNIQUE",
    "Change",
    "ChangeOperation",
    "Control",
    "Entry",
    "LdapSession",
    "Scope",
    "StartBind",
    "Tls",
    "any_equals",
    "bind",
    "equals",
    "like",
    "mock_connection",
    "object_guid",
    "open_connection",
    "sd_flags",
    "single",
]

_log = Log("purekrb.directory")

#: Windows error numbers: what `DirectoryError.code` may be.
INVALID_PARAMETER = 87
OBJECT_EXISTS = 8305
OBJECT_NOT_FOUND = 8333
SPN_NOT_UNIQUE = 8647

#: LDAP result codes (RFC 4511 4.1.9) that a caller can act upon: the Windows error number, and the advice.
_RESULTS = {
    3: (8226, "the search took longer than the directory allows: ask for less"),
    4: (8227, "there is more than the directory gives in one answer: ask for less"),
    8: (
        8232,
        "it takes no such bind here: inside of TLS, use ldap:// without StartTLS, which Kerberos seals",
    ),
    10: (
        8235,
        "another directory holds this; referrals are never followed, for nobody vouches for where they lead",
    ),
    49: (
        1326,
        "it does not accept our authentication: its clock, its key and its log may tell why",
    ),
    32: (OBJECT_NOT_FOUND, "the object does not exist: check the name, or create it first"),
    34: (8242, "the DN is malformed: give it as the directory returns it"),
    50: (
        8344,
        "the account you are bound as may not do this: ask an administrator for the right, or to do it",
    ),
    51: (8206, "the server is busy: try again later"),
    52: (8207, "the server is not available: try again later, or another one"),
    53: (
        8245,
        "the server is a global catalog or read-only: connect to a writable domain controller",
    ),
    68: (
        OBJECT_EXISTS,
        "an object of this name exists already: choose another name, or remove it first",
    ),
}
_SUCCESS, _SASL_BIND_IN_PROGRESS, _NO_SUCH_OBJECT, _INSUFFICIENT_ACCESS_RIGHTS = 0, 14, 32, 50
_START_TLS = "1.3.6.1.4.1.1466.20037"
#: Entries that one search returns at most: a server that never comes to an end is left.
MAX_ENTRIES = 1_000_000
#: Pieces in which the values of one attribute may come.
_MAX_RANGES = 1000
#: An attribute with a part of its values: which one, and the numbers of the first and of the last value, where they are
#: numbers. Source: MS-ADTS 3.1.1.3.1.3.3.
_RANGE = re.compile(
    r"(.*?);range=(?:([0-9]{1,10})-([0-9]{1,10}|\*)|.*)", re.IGNORECASE | re.ASCII | re.DOTALL
)
#: How Windows and mostly also Samba begin their diagnostic message: with the Windows error number.
_WINDOWS_ERROR = re.compile(r"([0-9A-Fa-f]{8}): ")
#: What a domain controller of default configuration returns at most in one page (MaxPageSize).
_PAGE_SIZE = 1000
_PAGED_RESULTS = "1.2.840.113556.1.4.319"
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: A control of a request: its OID, whether the directory must fail if it does not know it, its BER value if any.
Control = tuple[str, bool, "bytes | None"]
#: Adding values that are there and deleting values that are not is no error. Source: MS-ADTS 3.1.1.3.4.1.8.
PERMISSIVE_MODIFY: Control = ("1.2.840.113556.1.4.1413", True, None)


def sd_flags(flags: int) -> Control:
    """Return the control that says which parts of nTSecurityDescriptor are meant: owner 1, group 2, DACL 4, SACL 8.

    Source: MS-ADTS 3.1.1.3.4.1.11.
    """
    return "1.2.840.113556.1.4.801", True, bytes((0x30, 3, 2, 1, flags))


class Scope(Enum):
    """How far below its base a search goes."""

    BASE = ldap3.BASE
    LEVEL = ldap3.LEVEL
    SUBTREE = ldap3.SUBTREE


class ChangeOperation(Enum):
    """What a change does with the values of an attribute. Source: RFC 4511 4.6."""

    ADD = ldap3.MODIFY_ADD
    DELETE = ldap3.MODIFY_DELETE
    REPLACE = ldap3.MODIFY_REPLACE


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one attribute. DELETE without values deletes the attribute; so does REPLACE."""

    operation: ChangeOperation
    attribute: str
    values: Sequence[str | bytes] = ()


class LdapSession:
    """A session with a directory over one bound ldap3 connection of a synchronous strategy; for several threads.

    `base_dn` is where searches of everything begin: by default the domain, "" for the forest on a global catalog.
    `timeout` is in seconds and for each request. `reopen` returns a new bound connection in place of one that broke;
    a search is then repeated once, a change never.
    What is refused raises DirectoryError, whose `code` is the Windows error number of the failure; a connection that
    breaks TransportError (TransportTimeoutError), and what is not genuine DecodeError, IntegrityError and so on.
    """

    def __init__(
        self,
        connection: Any,
        base_dn: str | None = None,
        *,
        reopen: Callable[[], Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        self._connection = connection
        self._base_dn = base_dn
        self._reopen = reopen
        self._timeout = timeout
        self._closed = False
        # An ldap3 connection keeps the result of its last request, which another thread must not replace.
        self._lock = fork_safe(threading.RLock())

    @cached_property
    def root_dse(self) -> Entry:
        """What the directory says of itself. Source: RFC 4512 5.1; MS-ADTS 3.1.1.3.2."""
        found = self.search("", "(objectClass=*)", ("*",), scope=Scope.BASE)
        if not found:
            raise DirectoryError(
                "the directory says nothing of itself, its root DSE is empty: is it Active Directory?"
            )
        return found[0]

    @cached_property
    def base_dn(self) -> str:
        """Where searches of everything begin."""
        return (
            self.root_dse.text("defaultNamingContext") if self._base_dn is None else self._base_dn
        )

    @property
    def domain(self) -> str:
        """The DNS name of the domain whose naming context `base_dn` is."""
        return domain_of(self.base_dn)

    def search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str] = (),
        *,
        scope: Scope = Scope.SUBTREE,
        controls: Sequence[Control] = (),
    ) -> list[Entry]:
        """Return all that match, however many pages they fill; nothing where there is no object `base`.

        With Scope.BASE that is one entry at most: DirectoryError where the directory returns several.

        Entries have the attributes under the spelling of `attributes`; "*" stands for all, as the directory spells
        them. Referrals to other directories are not followed.
        """
        arguments = (base, search_filter, attributes, scope, list(controls))
        with self._lock:
            try:
                return self._search(*arguments)
            except TransportTimeoutError:
                raise
            except TransportError as error:
                if self._reopen is None:
                    raise
                _log.debug("the search is repeated on a new connection: %s", error)
                return self._search(*arguments)

    def _search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str],
        scope: Scope,
        controls: list[Control],
    ) -> list[Entry]:
        found: list[Entry] = []
        cookie: bytes | None = None
        while True:
            result, entries = self._request(
                f"searching {base!r}",
                "search",
                base,
                search_filter,
                scope.value,
                attributes=list(attributes),
                controls=controls or None,
                paged_size=None if scope is Scope.BASE else _PAGE_SIZE,
                paged_cookie=cookie,
                accepted=(_NO_SUCH_OBJECT,),
                wanted=None
                if "*" in attributes
                else {name.casefold(): name for name in attributes},
            )
            if scope is Scope.BASE:
                _check_alone(base, entries)
            found += map(self._in_full, entries)
            cookie = (
                (result.get("controls") or {})
                .get(_PAGED_RESULTS, {})
                .get("value", {})
                .get("cookie")
            )
            if not cookie:
                return found
            if len(found) > MAX_ENTRIES:
                raise DirectoryError(
                    f"searching {base!r} found more than {MAX_ENTRIES} entries: ask for less"
                )

    def _in_full(self, entry: Entry) -> Entry:
        """Return `entry`, complete where a domain controller gave the first 1500 values. MS-ADTS 3.1.1.3.1.3.3."""
        ranges = {
            name: match
            for name in entry.attributes
            if ";" in name and (match := _RANGE.fullmatch(name))
        }
        if not ranges:
            return entry
        whole = {name: values for name, values in entry.attributes.items() if name not in ranges}
        for match in ranges.values():
            values = list(entry.attributes[match[0]])
            start, last = _bounds(entry.dn, match)
            if start:
                raise DirectoryError(
                    f"the values of {match[1]} of {entry.dn!r} begin with number {start}, expected 0"
                )
            for _ in range(_MAX_RANGES):
                if last is None:
                    break
                piece, last = self._next_range(entry.dn, match[1], last + 1)
                values += piece
            else:
                raise DirectoryError(
                    f"the values of {match[1]} of {entry.dn!r} come in more than {_MAX_RANGES} pieces"
                )
            whole[match[1]] = values
        return Entry(entry.dn, whole)

    def _next_range(
        self, dn: str, attribute: str, start: int
    ) -> tuple[Sequence[bytes], int | None]:
        """Return the values of the attribute from number `start` on, and the number of the last; None: of all."""
        _, entries = self._request(
            f"reading {attribute} of {dn!r}",
            "search",
            dn,
            "(objectClass=*)",
            ldap3.BASE,
            attributes=[f"{attribute};range={start}-*"],
        )
        _check_alone(dn, entries)
        for entry in entries:
            for name, piece in entry.attributes.items():
                match = _RANGE.fullmatch(name)
                if match and match[1].casefold() == attribute.casefold():
                    first, last = _bounds(dn, match)
                    if first == start:
                        return piece, last
        raise DirectoryError(f"{attribute} of {dn!r} changed while it was read: read it again")

    def add(
        self, dn: str, object_class: str, attributes: Mapping[str, Sequence[str | bytes]]
    ) -> None:
        """Create the object `dn`."""
        self._request(f"adding {dn!r}", "add", dn, object_class, dict(attributes))

    def modify(
        self,
        dn: str,
        changes: Iterable[Change],
        *,
        permissive: bool = False,
        controls: Sequence[Control] = (),
    ) -> None:
        """Make all `changes` of the object `dn` in one request, which succeeds or fails as a whole.

        Those of one attribute are made in their order. `permissive` adds PERMISSIVE_MODIFY to the controls.
        """
        by_attribute: dict[str, list[tuple[str, list[str | bytes]]]] = {}
        for change in changes:
            by_attribute.setdefault(change.attribute, []).append(
                (change.operation.value, list(change.values))
            )
        controls = [*controls, PERMISSIVE_MODIFY] if permissive else list(controls)
        self._request(f"modifying {dn!r}", "modify", dn, by_attribute, controls=controls or None)

    def rename(self, dn: str, rdn: str) -> None:
        """Give the object `dn` the new relative DN `rdn`."""
        self._request(f"renaming {dn!r}", "modify_dn", dn, rdn)

    def delete(self, dn: str) -> None:
        """Delete the object `dn`."""
        self._request(f"deleting {dn!r}", "delete", dn)

    def close(self) -> None:
        """End the connection. Safe to repeat."""
        with self._lock:
            self._closed = True
            with suppress(LDAPException, KerberosError):  # there is nothing left to be told
                self._connection.unbind()

    def _request(
        self,
        what: str,
        operation: str,
        *arguments: object,
        accepted: Sequence[int] = (),
        wanted: Wanted = None,
        **options: object,
    ) -> tuple[Mapping[str, Any], list[Entry]]:
        """Return the result of one request, and the entries of a search. The one place where requests are sent.

        `wanted` are the attributes that a search asks for.
        """
        ask = partial(_ask, what, timeout=self._timeout, operation=operation, wanted=wanted)
        with self._lock:
            if self._closed:
                raise DirectoryError(f"{what} failed: this session is closed; connect again")
            if self._reopen is not None and _is_dead(self._connection):
                self._open_again()
            try:
                try:
                    result, entries = ask(self._connection, arguments=arguments, options=options)
                except ContextExpiredError:  # nothing was sent
                    self._open_again()
                    result, entries = ask(self._connection, arguments=arguments, options=options)
            except TransportError as error:
                if operation == "search":
                    raise
                text = f"{error}; nobody knows whether it was done: look before you repeat it"
                raise type(error)(text) from None
        if result["result"] not in (_SUCCESS, *accepted):
            raise _refused(what, result)
        return result, entries

    def _open_again(self) -> None:
        _log.debug("the connection to the directory is over: a new one is opened")
        self._connection.strategy.close()
        if self._reopen is None:
            raise TransportError("the connection to the directory is over: connect again")
        self._connection = self._reopen()


def _ask(
    what: str,
    connection: Any,
    timeout: float | None,
    operation: str,
    arguments: Sequence[object] = (),
    options: Mapping[str, Any] | None = None,
    wanted: Wanted = None,
) -> tuple[Mapping[str, Any], list[Entry]]:
    """Send one request and wait for its answer, whatever it says; raise where none comes that can be read.

    Returns the result, and the entries of a search with the attributes that were `wanted`.
    """
    stream = connection.socket
    if not isinstance(stream, MessageSocket):  # ldap3's mock, or a connection that is not open yet
        stream = None
    else:
        deadline = None if timeout is None else time.monotonic() + timeout
        stream.begin(deadline, searching=operation == "search", wanted=wanted)
    try:
        getattr(connection, operation)(*arguments, **options or {})
        if stream is not None:
            return connection.result, stream.entries
        found = connection.response if operation == "search" else None
        return connection.result, list(_mock_entries(found or (), wanted))
    except Exception as error:
        if isinstance(error, LDAPException):
            failure = _failure(error, stream)
        elif isinstance(error, KerberosError) or stream is None:
            raise
        else:
            # ldap3 takes apart what a server sends without looking first: an IndexError or a KeyError comes of it.
            stream.close()
            failure = DecodeError(f"the answer is no LDAP message ({type(error).__name__})")
        raise type(failure)(f"{what} failed: {failure}") from None
    finally:
        if stream is not None:
            stream.end()


def _mock_entries(response: Iterable[Mapping[str, Any]], wanted: Wanted) -> Iterator[Entry]:
    for found in response:
        if found["type"] == "searchResEntry":
            pairs = ((name, values or ()) for name, values in found["raw_attributes"].items())
            yield Entry(str(found["dn"]), spelled(pairs, wanted))


def _failure(error: LDAPException, stream: MessageSocket | None) -> KerberosError:
    """Return what a caller is told in place of an exception of ldap3."""
    if stream is not None and stream.failure is not None:
        return stream.failure
    if isinstance(error, LDAPCommunicationError):
        return TransportError(f"the directory has closed the connection ({error})")
    return DirectoryError(str(error))


def _refused(what: str, result: Mapping[str, Any]) -> DirectoryError:
    """Return the error for a result that is none we can go on with."""
    number, diagnostic = result["result"], result["message"] or ""
    windows_error = _WINDOWS_ERROR.match(diagnostic)
    code, advice = _RESULTS.get(number, (int(windows_error[1], 16) if windows_error else 0, ""))
    kind = InsufficientRightsError if number == _INSUFFICIENT_ACCESS_RIGHTS else DirectoryError
    # What the server says is its own text, and may be anything.
    said = f"the server says {diagnostic[:500]!r}" if diagnostic else "the server says no more"
    elsewhere = f" ({' '.join(result['referrals'])[:500]})" if result["referrals"] else ""
    return kind(
        f"{what} was refused: LDAP result {number} {result['description']}{elsewhere}: {advice or said}",
        code=code,
        ldap_result=number,
        diagnostic=diagnostic,
    )


def _is_dead(connection: Any) -> bool:
    """Return whether nothing can be asked on `connection` any more: it broke, or the server has closed it meanwhile."""
    return bool(connection.closed) or not connection.socket.usable


# Opening a connection -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tls:
    """How TLS begins: with StartTLS or at once, and the name that the server's certificate must have.

    `allow_unverified`: a `context` that does not look at the certificate will do.
    """

    context: ssl.SSLContext
    server_name: str
    start_tls: bool = False
    allow_unverified: bool = False


#: Begins a bind: is told whether there is TLS, and its channel bindings; returns the SASL mechanism and the exchange.
StartBind = Callable[[bool, "ChannelBindings | None"], tuple[str, Bind]]


def open_connection(
    addresses: Sequence[str], port: int, start_bind: StartBind, tls: Tls | None, timeout: float
) -> Any:
    """Return a new connection, bound and protected, to the directory at the first of `addresses` that answers.

    `timeout` is in seconds. Raises TransportError, PolicyError for a certificate that is not accepted, DirectoryError
    for a refused bind, and what `start_bind` raises.
    """
    connection = _dial(addresses, port, timeout)
    try:
        connection.socket = MessageSocket(connection.socket)
        if tls is not None:
            if tls.start_tls:
                _ask("StartTLS", connection, timeout, "extended", [_START_TLS])
                if connection.result["result"] != _SUCCESS:
                    raise _refused("StartTLS", connection.result)
            connection.socket = MessageSocket(_handshake(connection.socket, tls, timeout))
        names, unverified = (
            ((), False) if tls is None else ((tls.server_name,), tls.allow_unverified)
        )
        bind(connection, start_bind, timeout, names=names, allow_unverified_tls=unverified)
    except BaseException:
        connection.strategy.close()
        raise
    return connection


def _dial(addresses: Sequence[str], port: int, timeout: float) -> Any:
    """Return an open ldap3 connection; each address has its share of the time."""
    failures = []
    for address in addresses:
        server = ldap3.Server(
            address, port=port, get_info=ldap3.NONE, connect_timeout=timeout / len(addresses)
        )
        connection = ldap3.Connection(
            server,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
            return_empty_attributes=False,
        )
        try:
            connection.open(read_server_info=False)
            return connection
        except LDAPException as error:
            failures.append(f"{address}: {error}")
            if connection.socket is not None:  # ldap3 leaves it open
                connection.socket.close()
    raise TransportError(
        f"no connection to the directory at port {port} ({'; '.join(failures)}): does it run there, and does the "
        "network let us through?"
    )


def _handshake(stream: MessageSocket, tls: Tls, timeout: float) -> ssl.SSLSocket:
    sock = stream.detach()
    try:
        sock.settimeout(timeout)
        return tls.context.wrap_socket(sock, server_hostname=tls.server_name)
    except ssl.SSLCertVerificationError as error:
        raise PolicyError(
            f"the directory's certificate is not accepted for {tls.server_name!r}: {error.verify_message}; give the "
            "CA that issued it, and the host by its name"
        ) from None
    except TimeoutError:
        raise TransportTimeoutError("the directory's TLS handshake takes too long") from None
    except (OSError, ValueError) as error:
        raise TransportError(f"the directory's TLS handshake failed: {error}") from None
    finally:
        sock.close()


def bind(
    connection: Any,
    start_bind: StartBind,
    timeout: float | None = None,
    *,
    names: Collection[str] = (),
    allow_unverified_tls: bool = False,
) -> None:
    """Bind an ldap3 connection with what `start_bind` begins, and protect it from then on; later binds do the same.

    Inside of TLS there is no layer, so that whoever ends it reads everything: PolicyError unless its certificate was
    verified, and is for one of `names`, or the caller says `allow_unverified_tls`.

    ldap3's own mechanism GSSAPI needs a C library, has no security layer and does not know GSS-SPNEGO. It is replaced
    where ldap3 calls it, `do_sasl_bind`, and the layer goes where every octet passes, `connection.socket`; both are
    public.
    """
    strategy = connection.strategy
    if not strategy.sync or strategy.pooled or strategy.no_real_dsa:
        raise UnsupportedError(
            f"the client strategy {connection.strategy_type} cannot be protected: use ldap3.SYNC or ldap3.SAFE_SYNC"
        )
    connection.authentication, connection.sasl_mechanism = ldap3.SASL, ldap3.GSSAPI
    verify = None if allow_unverified_tls else partial(_check_verified, names=names)
    connection.do_sasl_bind = partial(_bind, connection, start_bind, verify)
    what = f"the bind to {connection.server.host} port {connection.server.port}"
    _ask(what, connection, timeout, "bind")
    if not connection.bound:
        raise _refused(what, connection.result)


def _check_verified(stream: MessageSocket, names: Collection[str]) -> None:
    """Raise PolicyError for TLS that may end at somebody between."""
    if stream.has_tls and not stream.is_verified_for(names):
        raise PolicyError(
            "nobody verified that the certificate of this TLS connection is for the directory "
            f"({', '.join(names) or 'no name is given'}), and inside of TLS nothing else protects it: demand a "
            "certificate of a CA that you trust (ldap3: Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=...)) for the "
            "host's name, use ldap:// without StartTLS, which Kerberos seals, or pass allow_unverified_tls=True"
        )


def _bind(
    connection: Any,
    start_bind: StartBind,
    verify: Callable[[MessageSocket], None] | None,
    controls: Any = None,
) -> Mapping[str, Any]:
    """Do one SASL bind on the open `connection`; return its last result, as ldap3 wants it."""
    with connection.connection_lock:
        if isinstance(connection.socket, MessageSocket) and connection.socket.layer is not None:
            # A new context on a new connection: about a second layer inside the first one servers disagree.
            connection.unbind()
            connection.open(read_server_info=False)
        if not isinstance(connection.socket, MessageSocket):
            connection.socket = MessageSocket(connection.socket)
        connection.sasl_in_progress = True
        try:
            if verify is not None:
                verify(connection.socket)
            return _exchange(connection, start_bind, controls)
        except BaseException:
            connection.strategy.close()
            raise
        finally:
            connection.sasl_in_progress = False


def _exchange(connection: Any, start_bind: StartBind, controls: Any) -> Mapping[str, Any]:
    stream: MessageSocket = connection.socket
    mechanism, bind = start_bind(stream.has_tls, stream.channel_bindings)
    response = next(bind)
    while True:
        request = bind_operation(connection.version, ldap3.SASL, "", None, mechanism, response)
        connection.post_send_single_response(connection.send("bindRequest", request, controls))
        result: Mapping[str, Any] = connection.result
        if result["result"] not in (_SUCCESS, _SASL_BIND_IN_PROGRESS):
            return result
        try:
            response = bind.send(Reply(result["saslCreds"] or b"", result["result"] == _SUCCESS))
        except StopIteration as done:
            stream.secure(done.value)
            return result


@functools.lru_cache(maxsize=1)
def _schema_of_ad() -> tuple[Any, Any]:
    """Return what ldap3 knows of AD's schema and root DSE; parsing it takes longer than a test with a directory."""
    server = ldap3.Server("embedded", get_info=ldap3.OFFLINE_AD_2012_R2)
    return server.schema, server.info


def mock_connection() -> Any:
    """Return a bound connection to a new and empty store in this process: ldap3's mock strategy, AD's schema."""
    # ldap3 unescapes the objectGUID in a filter twice, and corrupts one whose bytes look like an escape, unless
    # its validator of GUIDs is replaced. The same with SIDs.
    validators = {"objectGUID": lambda value: True, "objectSid": lambda value: True}
    server = ldap3.Server("embedded", get_info=ldap3.NONE, validator=validators)
    schema, info = _schema_of_ad()
    server.attach_schema_info(schema)
    server.attach_dsa_info(info)
    connection = ldap3.Connection(server, client_strategy=ldap3.MOCK_SYNC)
    connection.bind()
    return connection


def equals(attribute: str, value: str | bytes) -> str:
    """Return the filter `(attribute=value)` with every octet of the value escaped. Source: RFC 4515 3.

    ldap3's escape_filter_chars leaves blanks alone, and its parser then strips those at the ends; with every octet
    escaped there is nothing left to misread. Raises DirectoryError for text that is empty or has control characters.
    """
    if isinstance(value, str):
        if not value or CONTROL_CHARACTERS.search(value):
            raise DirectoryError(
                f"cannot search for {attribute} {value!r}: it is empty or has control characters",
                code=INVALID_PARAMETER,
            )
        value = value.encode()
    return f"({attribute}={escape_bytes(value)})"


def any_equals(attribute: str, values: Iterable[str | bytes]) -> str:
    """Return the filter that holds where `attribute` has one of `values`."""
    return f"(|{''.join(equals(attribute, value) for value in values)})"


def like(attribute: str, pattern: str) -> str:
    """Return the filter `(attribute=pattern)` in which "*" stands for anything, and all else for itself."""
    if not pattern or CONTROL_CHARACTERS.search(pattern):
        raise DirectoryError(
            f"cannot search for {attribute} {pattern!r}: it is empty or has control characters",
            code=INVALID_PARAMETER,
        )
    return f"({attribute}={re.sub('[^*]+', lambda part: escape_bytes(part[0].encode()), re.sub('[*]+', '*', pattern))})"


def single(
    found: Sequence[Entry], what: str, missing: type[DirectoryError] = DirectoryError
) -> Entry:
    """Return the one entry that was `found`.

    Raises `missing` where there is none and DirectoryError where there are several: never a guess.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise missing(
            f"there is no {what}: check the name, or create it first", code=OBJECT_NOT_FOUND
        )
    raise DirectoryError(
        f"there are {len(found)} objects for {what}, expected one: give the DN, or remove the others"
    )


def _check_alone(base: str, found: Sequence[Entry]) -> None:
    """Raise DirectoryError where a search for the one object `base` found several: never a guess."""
    if len(found) > 1:
        raise DirectoryError(
            f"the directory returns {len(found)} objects for {base!r}, and one was asked for"
        )


def _bounds(dn: str, match: re.Match[str]) -> tuple[int, int | None]:
    """Return the numbers of the first and the last of the values that `match` names; None: there are no more."""
    first, last = match[2], match[3]
    if not first or (last != "*" and int(last) < int(first)):
        raise DirectoryError(
            f"the values of {match[1]} of {dn!r} come as {match[0][:200]!r}, which is no range"
        )
    return int(first), None if last == "*" else int(last)


def object_guid(entry: Entry) -> UUID:
    """Return the objectGUID of `entry`. Raises DirectoryError where it has none that can be."""
    guid = b"".join(entry.attributes["objectGUID"])
    if len(guid) != 16:
        raise DirectoryError(
            f"the object {entry.dn!r} is not usable: its objectGUID has {len(guid)} bytes, expected 16"
        )
    return UUID(bytes_le=guid)
