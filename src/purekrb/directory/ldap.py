"""Sessions with a directory over LDAP: requests are typed calls, failures are DirectoryErrors.

This is the only file that imports ldap3, and no exception of ldap3 leaves it. Source: RFC 4511.
"""

from __future__ import annotations

import functools
import os
import re
import socket
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
from purekrb.directory.patterns import CONTROL_CHARACTERS
from purekrb.directory.stream import MessageSocket
from purekrb.directory.windows_errors import WINDOWS_ERRORS, number_in
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
from purekrb.nt_status import STATUS_BAD_BINDINGS, WIN32_STATUS, describe
from purekrb.sasl import SaslClient
from purekrb.system import cached_property, fork_safe

with warnings.catch_warnings():
    # ldap3 2.9 uses names that pyasn1 0.6 has renamed. The warning does not concern users of
    # purekrb.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPCommunicationError, LDAPException
    from ldap3.operation.bind import bind_operation
    from ldap3.utils.conv import escape_bytes

__all__ = [
    "ANY_OBJECT",
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
    "bound_connection",
    "sd_flags",
    "single",
]

_log = Log("purekrb.directory")

#: The filter that every object matches.
ANY_OBJECT = "(objectClass=*)"
#: Windows error numbers, as in `DirectoryError.code`.
INVALID_PARAMETER = 87
OBJECT_EXISTS = 8305
OBJECT_NOT_FOUND = 8333
SPN_NOT_UNIQUE = 8647

#: LDAP result codes (RFC 4511 4.1.9) that a caller can act on -> the Windows error number, advice.
_RESULTS = {
    3: (8226, "the search took longer than the directory allows: ask for less"),
    4: (8227, "there is more than the directory gives in one answer: ask for less"),
    8: (
        8232,
        "it does not take this bind here: "
        "in place of TLS, use ldap:// without StartTLS, which Kerberos seals",
    ),
    10: (
        8235,
        "another directory holds this; referrals are never followed, as they are not authenticated",
    ),
    49: (
        1326,
        "it does not accept our authentication: check its clock, its key and its log",
    ),
    32: (OBJECT_NOT_FOUND, "the object does not exist: check the name, or create it first"),
    34: (8242, "the DN is malformed: give it as the directory returns it"),
    50: (
        8344,
        "the bound account may not do this: ask an administrator for the right, or to do it",
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
_INVALID_CREDENTIALS = 49
#: SEC_E_BAD_BINDINGS: the domain controller refuses the channel bindings.
_BAD_BINDINGS = "80090346"
#: The Windows error number of a refused bind in the diagnostic message.
_BIND_ERROR = re.compile(r"\bdata ([0-9a-fA-F]{1,8})\b")
_SUCCESS, _SASL_BIND_IN_PROGRESS, _NO_SUCH_OBJECT, _INSUFFICIENT_ACCESS_RIGHTS = 0, 14, 32, 50
_START_TLS = "1.3.6.1.4.1.1466.20037"
#: The most entries of one search. It stops a server that never ends its answer.
MAX_ENTRIES = 1_000_000
#: The most pieces in which the values of one attribute may come.
_MAX_RANGES = 1000
#: An attribute with a range of its values: its name, and the numbers of the first and last value
#: (or something else in their place). Source: MS-ADTS 3.1.1.3.1.3.3.
_RANGE = re.compile(
    r"(.*?);range=(?:([0-9]{1,10})-([0-9]{1,10}|\*)|.*)", re.IGNORECASE | re.ASCII | re.DOTALL
)
#: The most entries in one page from a domain controller with default configuration (MaxPageSize).
_PAGE_SIZE = 1000
_PAGED_RESULTS = "1.2.840.113556.1.4.319"

#: A control of a request: its OID, whether it is critical, and its BER value or None.
#: Source: RFC 4511 4.1.11.
Control = tuple[str, bool, "bytes | None"]
#: Permits to add values that exist and to delete values that do not. Source: MS-ADTS 3.1.1.3.4.1.8.
PERMISSIVE_MODIFY: Control = ("1.2.840.113556.1.4.1413", True, None)


def sd_flags(flags: int) -> Control:
    """Return the control that selects parts of nTSecurityDescriptor.

    `flags`: owner 1, group 2, DACL 4, SACL 8. Source: MS-ADTS 3.1.1.3.4.1.11.
    """
    return "1.2.840.113556.1.4.801", True, bytes((0x30, 3, 2, 1, flags))


class Scope(Enum):
    """How far below its base a search goes."""

    BASE = ldap3.BASE
    LEVEL = ldap3.LEVEL
    SUBTREE = ldap3.SUBTREE


class ChangeOperation(Enum):
    """The kinds of changes to the values of an attribute. Source: RFC 4511 4.6."""

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
    """A session with a directory over one bound, synchronous ldap3 connection. Thread-safe.

    Searches of the whole directory begin at `base_dn`: by default, at the domain; "" is the forest,
    on a global catalog. `timeout` is in seconds, for each request. `reopen` returns a new bound
    connection after one broke; a search is then repeated once, a change never.

    A refused request raises DirectoryError, whose `code` is the Windows error number of the
    failure. A broken connection raises TransportError (TransportTimeoutError if the answer is
    late), and an answer that is not genuine raises DecodeError, IntegrityError and so on.
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
        self._process = os.getpid()  # whose connection it is
        # An ldap3 connection holds the result of its last request. Another thread must not replace
        # it.
        self._lock = fork_safe(threading.RLock())

    @cached_property
    def root_dse(self) -> Entry:
        """The directory's description of itself. Source: RFC 4512 5.1; MS-ADTS 3.1.1.3.2."""
        found = self.search("", ANY_OBJECT, ("*",), scope=Scope.BASE)
        if not found:
            raise DirectoryError(
                "the directory does not describe itself, its root DSE is empty: "
                "is it Active Directory?"
            )
        return found[0]

    @cached_property
    def base_dn(self) -> str:
        """The DN at which searches of the whole directory begin."""
        if self._base_dn is None:
            return self.root_dse.text("defaultNamingContext")
        return self._base_dn

    @property
    def domain(self) -> str:
        """The DNS name of the domain whose naming context `base_dn` is."""
        return domain_of(self.base_dn)

    @property
    def encrypted(self) -> bool:
        """Whether nobody on the path can read the messages. A directory in this process has none."""
        with self._lock:
            self._leave_to_parent()
            # What a connection that has ended was like says nothing about the next one.
            if self._reopen is not None and not self._closed and _is_dead(self._connection):
                self._open_again()
            stream = self._connection.socket
        return not isinstance(stream, MessageSocket) or stream.encrypted

    def search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str] = (),
        *,
        scope: Scope = Scope.SUBTREE,
        controls: Sequence[Control] = (),
    ) -> list[Entry]:
        """Return all objects that match, from all pages; none if `base` does not exist.

        With Scope.BASE there is at most one: if the directory returns several, DirectoryError is
        raised. The entries have the attributes under the names in `attributes`; "*" stands for all,
        under the names that the directory gives them. Referrals to other directories are not
        followed.
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
        wanted = None
        if "*" not in attributes:
            wanted = {name.casefold(): name for name in attributes}
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
                wanted=wanted,
            )
            if scope is Scope.BASE:
                _check_alone(base, entries)
            found += map(self._in_full, entries)
            controls_sent_back = result.get("controls") or {}
            cookie = controls_sent_back.get(_PAGED_RESULTS, {}).get("value", {}).get("cookie")
            if not cookie:
                return found
            if len(found) > MAX_ENTRIES:
                raise DirectoryError(
                    f"searching {base!r} found more than {MAX_ENTRIES} entries: ask for less"
                )

    def _in_full(self, entry: Entry) -> Entry:
        """Return `entry` with all values of each attribute.

        A domain controller gives at first 1500 of them. Source: MS-ADTS 3.1.1.3.1.3.3.
        """
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
                    f"the values of {match[1]} of {entry.dn!r} begin with number {start}, expected "
                    "0"
                )
            for _ in range(_MAX_RANGES):
                if last is None:
                    break
                piece, last = self._next_range(entry.dn, match[1], last + 1)
                values += piece
            else:
                raise DirectoryError(
                    f"the values of {match[1]} of {entry.dn!r} come in more than {_MAX_RANGES} "
                    "pieces"
                )
            whole[match[1]] = values
        return Entry(entry.dn, whole)

    def _next_range(
        self, dn: str, attribute: str, start: int
    ) -> tuple[Sequence[bytes], int | None]:
        """Return values of the attribute from number `start` on, and the number of the last one.

        The number is None if there are no more values.
        """
        _, entries = self._request(
            f"reading {attribute} of {dn!r}",
            "search",
            dn,
            ANY_OBJECT,
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

        Changes of one attribute are made in their order. `permissive` adds PERMISSIVE_MODIFY to the
        controls.
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
            if self._process != os.getpid():
                self._drop()
                return
            with suppress(LDAPException, KerberosError):  # the session is over in any case
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
        """Send a request; return its result, and the entries if it is a search.

        All requests go through here. `wanted` are the attributes that a search asks for.
        """
        ask = partial(_ask, what, timeout=self._timeout, operation=operation, wanted=wanted)
        with self._lock:
            if self._closed:
                raise DirectoryError(f"{what} failed: this session is closed; connect again")
            self._leave_to_parent()
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
                text = f"{error}; it may have been done nevertheless: check before you repeat it"
                raise type(error)(text) from None
        if result["result"] not in (_SUCCESS, *accepted):
            raise _refused(what, result)
        return result, entries

    def _leave_to_parent(self) -> None:
        """Open a connection of our own after a fork: two processes cannot share a context."""
        if self._process == os.getpid() or self._reopen is None:
            return
        _log.debug("this process is a fork: opening a connection to the directory of its own")
        self._drop()
        self._process = os.getpid()
        self._connection = self._reopen()

    def _drop(self) -> None:
        """Close our copy of the parent's socket; to shut it down would end the parent's, too."""
        stream = self._connection.socket
        if isinstance(stream, MessageSocket):
            stream.close()

    def _open_again(self) -> None:
        _log.debug("the connection to the directory has ended: opening a new one")
        self._connection.strategy.close()
        if self._reopen is None:
            raise TransportError("the connection to the directory has ended: connect again")
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
    """Send one request and wait for its answer, whatever it says.

    Returns the result, and the entries of a search with the `wanted` attributes. Raises if no
    readable answer comes.
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
            # ldap3 parses without checks: a malformed answer causes an IndexError or a KeyError.
            stream.close()
            failure = DecodeError(f"the answer is not an LDAP message ({type(error).__name__})")
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
    """Return the error to raise in place of an exception of ldap3."""
    if stream is not None and stream.failure is not None:
        return stream.failure
    if isinstance(error, LDAPCommunicationError):
        return TransportError(f"the directory has closed the connection ({error})")
    return DirectoryError(str(error))


def _refused(what: str, result: Mapping[str, Any]) -> DirectoryError:
    """Return the error for a result that refuses the request."""
    number, diagnostic = result["result"], result["message"] or ""
    windows_error = number_in(diagnostic)
    code, advice = _RESULTS.get(number, (windows_error, ""))
    if windows_error in WINDOWS_ERRORS:
        name, advice = WINDOWS_ERRORS[windows_error]
        code, advice = windows_error, f"{advice} ({windows_error:08X} {name})"
    error_class = DirectoryError
    if number == _INSUFFICIENT_ACCESS_RIGHTS:
        error_class = InsufficientRightsError
    reason = _reason(diagnostic) if number == _INVALID_CREDENTIALS else None
    if reason is not None:
        advice = f"{reason[0]}; {reason[1]}"
    # The server's text may be anything.
    said = f"the server says {diagnostic[:500]!r}" if diagnostic else "the server says no more"
    elsewhere = f" ({' '.join(result['referrals'])[:500]})" if result["referrals"] else ""
    return error_class(
        f"{what} was refused: LDAP result {number} {result['description']}{elsewhere}: "
        f"{advice or said}",
        code=code,
        ldap_result=number,
        diagnostic=diagnostic,
    )


def _reason(diagnostic: str) -> tuple[str, str] | None:
    """Return why a domain controller refuses a bind, and the advice; None if it does not say.

    Its text is `8009030C: LdapErr: DSID-..., comment: AcceptSecurityContext error, data 52e, v...`.
    """
    number = _BIND_ERROR.search(diagnostic[:500])
    status = WIN32_STATUS.get(int(number[1], 16)) if number else None
    if diagnostic[:8] == _BAD_BINDINGS:
        status = STATUS_BAD_BINDINGS
    return None if status is None else describe(status)


def _is_dead(connection: Any) -> bool:
    """Return whether `connection` is unusable: it broke, or the server has closed it."""
    return bool(connection.closed) or not connection.socket.usable


# Opening a connection -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Tls:
    """How TLS begins (with StartTLS or at once), and the name that the certificate must have.

    `allow_unverified` permits a `context` that does not check the certificate.
    """

    context: ssl.SSLContext
    server_name: str
    start_tls: bool = False
    allow_unverified: bool = False


#: Begins a bind. The arguments: whether there is TLS, and its channel bindings.
StartBind = Callable[[bool, "ChannelBindings | None"], SaslClient]


def bound_connection(
    where: Sequence[str] | socket.socket,
    port: int,
    start_bind: StartBind,
    tls: Tls | None,
    timeout: float,
) -> Any:
    """Return a new, bound and protected connection.

    `where` is a socket that is connected, or addresses, of which the first one that answers is
    used. `timeout` is in seconds. Raises TransportError, PolicyError for a certificate that is not
    accepted, DirectoryError for a refused bind, and the errors of `start_bind`.
    """
    if isinstance(where, socket.socket):
        connection = _over(where, port, timeout)
    else:
        connection = _connect_to_first(where, port, timeout)
    try:
        connection.socket = MessageSocket(connection.socket)
        if tls is not None:
            if tls.start_tls:
                _ask("StartTLS", connection, timeout, "extended", [_START_TLS])
                if connection.result["result"] != _SUCCESS:
                    raise _refused("StartTLS", connection.result)
            connection.socket = MessageSocket(_handshake(connection.socket, tls, timeout))
        bind(
            connection,
            start_bind,
            timeout,
            names=() if tls is None else (tls.server_name,),
            allow_unverified_tls=tls is not None and tls.allow_unverified,
        )
    except BaseException:
        connection.strategy.close()
        raise
    return connection


def _connect_to_first(addresses: Sequence[str], port: int, timeout: float) -> Any:
    """Return an open ldap3 connection to the first address that answers.

    Each address gets an equal share of the time.
    """
    failures = []
    for address in addresses:
        connection = _unconnected(address, port, timeout / len(addresses))
        try:
            connection.open(read_server_info=False)
            return connection
        except LDAPException as error:
            failures.append(f"{address}: {error}")
            if connection.socket is not None:  # ldap3 leaves it open
                connection.socket.close()
    raise TransportError(
        f"the directory cannot be reached at port {port} ({'; '.join(failures)}): "
        "check that it runs there and that the network lets us through"
    )


def _unconnected(host: str, port: int, timeout: float) -> Any:
    server = ldap3.Server(host, port=port, get_info=ldap3.NONE, connect_timeout=timeout)
    return ldap3.Connection(
        server,
        auto_referrals=False,
        auto_range=False,
        check_names=False,
        return_empty_attributes=False,
    )


def _over(sock: socket.socket, port: int, timeout: float) -> Any:
    """Return an ldap3 connection over a socket that is connected."""
    connection = _unconnected("localhost", port, timeout)
    # What `open` of its strategy would set.
    connection.strategy._outstanding = {}
    sock.settimeout(timeout)
    connection.socket, connection.closed, connection.listening = sock, False, True
    return connection


def _handshake(stream: MessageSocket, tls: Tls, timeout: float) -> ssl.SSLSocket:
    sock = stream.detach()
    try:
        sock.settimeout(timeout)
        return tls.context.wrap_socket(sock, server_hostname=tls.server_name)
    except ssl.SSLCertVerificationError as error:
        raise PolicyError(
            f"the directory's certificate is not accepted for {tls.server_name!r}: "
            f"{error.verify_message}; give the CA that issued it, and the host by its name"
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
    """Bind an ldap3 connection by the exchange that `start_bind` begins; protect it from then on.

    Later binds do the same. Inside TLS there is no security layer, so whoever terminates TLS reads
    everything. Therefore PolicyError is raised unless the certificate was verified and is for one
    of `names`, or `allow_unverified_tls` is set.

    ldap3's own GSSAPI mechanism needs a C library, has no security layer and does not support
    GSS-SPNEGO. This replaces two public attributes of the connection: `do_sasl_bind`, which ldap3
    calls, and `socket`, which carries every byte, for the security layer.
    """
    strategy = connection.strategy
    if not strategy.sync or strategy.pooled or strategy.no_real_dsa:
        raise UnsupportedError(
            f"the client strategy {connection.strategy_type} cannot be protected: "
            "use ldap3.SYNC or ldap3.SAFE_SYNC"
        )
    connection.authentication, connection.sasl_mechanism = ldap3.SASL, ldap3.GSSAPI
    verify = None if allow_unverified_tls else partial(_check_verified, names=names)
    connection.do_sasl_bind = partial(_bind, connection, start_bind, verify)
    what = f"the bind to {connection.server.host} port {connection.server.port}"
    _ask(what, connection, timeout, "bind")
    if not connection.bound:
        raise _refused(what, connection.result)


def _check_verified(stream: MessageSocket, names: Collection[str]) -> None:
    """Raise PolicyError for TLS that may end at a man in the middle. Source: RFC 9525 6."""
    if stream.has_tls and not stream.is_verified_for(names):
        raise PolicyError(
            "nobody verified that the certificate of this TLS connection is for the directory "
            f"({', '.join(names) or 'no name is given'}), and inside TLS nothing else protects it: "
            "require a certificate of a CA that you trust for the host's name "
            "(ldap3: Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=...)), "
            "use ldap:// without StartTLS, which Kerberos seals, or pass allow_unverified_tls=True"
        )


def _bind(
    connection: Any,
    start_bind: StartBind,
    verify: Callable[[MessageSocket], None] | None,
    controls: Any = None,
) -> Mapping[str, Any]:
    """Do one SASL bind on the open `connection`; return its last result in the form of ldap3."""
    with connection.connection_lock:
        if isinstance(connection.socket, MessageSocket) and connection.socket.layer is not None:
            # A new context needs a new connection: servers differ in how they treat a second layer.
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
    client = start_bind(stream.has_tls, stream.channel_bindings)
    response = client.step()
    while True:
        request = bind_operation(
            connection.version, ldap3.SASL, "", None, client.mechanism, response
        )
        connection.post_send_single_response(connection.send("bindRequest", request, controls))
        result: Mapping[str, Any] = connection.result
        if result["result"] not in (_SUCCESS, _SASL_BIND_IN_PROGRESS):
            return result
        credentials = result["saslCreds"] or b""
        if result["result"] == _SUCCESS:
            stream.secure(client.succeed(credentials))
            return result
        response = client.step(credentials)


@functools.lru_cache(maxsize=1)
def _schema_of_ad() -> tuple[Any, Any]:
    """Return what ldap3 knows of AD's schema and root DSE; parsing it takes longer than a test with a directory."""
    server = ldap3.Server("embedded", get_info=ldap3.OFFLINE_AD_2012_R2)
    return server.schema, server.info


def mock_connection() -> Any:
    """Return a bound connection to a new, empty store: ldap3's mock strategy with AD's schema."""
    # ldap3 unescapes an objectGUID or SID in a filter twice, and so corrupts values whose bytes
    # look like an escape. Replacing its validators prevents that.
    validators = {"objectGUID": lambda value: True, "objectSid": lambda value: True}
    server = ldap3.Server("embedded", get_info=ldap3.NONE, validator=validators)
    schema, info = _schema_of_ad()
    server.attach_schema_info(schema)
    server.attach_dsa_info(info)
    connection = ldap3.Connection(server, client_strategy=ldap3.MOCK_SYNC)
    connection.bind()
    return connection


def equals(attribute: str, value: str | bytes) -> str:
    """Return the filter `(attribute=value)` with every octet of the value escaped.

    ldap3's escape_filter_chars does not escape blanks, and ldap3's parser strips blanks at the
    ends. If every octet is escaped, nothing can be misread. Raises DirectoryError for text that is
    empty or has control characters. Source: RFC 4515 3.
    """
    if isinstance(value, str):
        _check_text(attribute, value)
        value = value.encode()
    return f"({attribute}={escape_bytes(value)})"


def any_equals(attribute: str, values: Iterable[str | bytes]) -> str:
    """Return the filter that matches if `attribute` has one of `values`."""
    return f"(|{''.join(equals(attribute, value) for value in values)})"


def like(attribute: str, pattern: str) -> str:
    """Return the filter `(attribute=pattern)`. "*" matches anything; the rest is literal."""
    _check_text(attribute, pattern)
    pattern = re.sub("[*]+", "*", pattern)
    escaped = re.sub("[^*]+", lambda part: escape_bytes(part[0].encode()), pattern)
    return f"({attribute}={escaped})"


def _check_text(attribute: str, text: str) -> None:
    if not text or CONTROL_CHARACTERS.search(text):
        raise DirectoryError(
            f"cannot search for {attribute} {text!r}: it is empty or has control characters",
            code=INVALID_PARAMETER,
        )


def single(
    found: Sequence[Entry], what: str, missing: type[DirectoryError] = DirectoryError
) -> Entry:
    """Return the only entry of `found`.

    Raises `missing` if there is none, and DirectoryError if there are several.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise missing(
            f"there is no {what}: check the name, or create it first", code=OBJECT_NOT_FOUND
        )
    raise DirectoryError(
        f"there are {len(found)} objects for {what}, expected one: "
        "give the DN, or remove the others"
    )


def _check_alone(base: str, found: Sequence[Entry]) -> None:
    """Raise DirectoryError if a search for the one object `base` found several."""
    if len(found) > 1:
        raise DirectoryError(
            f"the directory returned {len(found)} objects, but was asked for one, {base!r}"
        )


def _bounds(dn: str, match: re.Match[str]) -> tuple[int, int | None]:
    """Return the numbers of the first and the last value in the range `match`.

    The last one is None if the range is the end of the values.
    """
    first, last = match[2], match[3]
    if not first or (last != "*" and int(last) < int(first)):
        raise DirectoryError(
            f"the values of {match[1]} of {dn!r} come as {match[0][:200]!r}, which is not a range"
        )
    return int(first), None if last == "*" else int(last)


def object_guid(entry: Entry) -> UUID:
    """Return the objectGUID of `entry`. Raises DirectoryError if it is missing or malformed."""
    guid = b"".join(entry.attributes["objectGUID"])
    if len(guid) != 16:
        raise DirectoryError(
            f"the object {entry.dn!r} is not usable: "
            f"its objectGUID has {len(guid)} bytes, expected 16"
        )
    return UUID(bytes_le=guid)
