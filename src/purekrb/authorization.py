"""Who may come in: what a caller's function says of a client, and a function for SIDs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from purekrb.errors import KerberosError
from purekrb.log import Log

if TYPE_CHECKING:
    from purekrb.exchanges.identity import ClientIdentity
    from purekrb.sid import Sid

__all__ = ["is_allowed", "members_of"]

_log = Log("purekrb.ap")


class _Client(Protocol):
    """Whatever knows a client: an Acceptor, the context of a channel, or the User of a request."""

    @property
    def identity(self) -> ClientIdentity: ...


class _Names(Protocol):
    """Whatever knows the SIDs of names: a Directory."""

    def find_sid(self, name: str) -> Sid: ...


def is_allowed(answer: object) -> bool:
    """Return the answer of a function that may not be a coroutine function.

    Raises TypeError if it is one, and for an answer that is itself a function or a generator, as of
    `lambda user: members_of(...)`: each of these is true, whatever it would answer.
    """
    if hasattr(answer, "__await__"):
        if hasattr(answer, "close"):
            answer.close()  # or Python would warn that nothing awaited it
        raise TypeError("authorize is a coroutine function, whose answer nothing awaits here")
    if callable(answer) or hasattr(answer, "__next__") or hasattr(answer, "__anext__"):
        raise TypeError(
            f"authorize returned {type(answer).__name__}, which is no answer: it must return True or "
            "False; pass members_of(...) itself, and call the method whose answer you return"
        )
    return bool(answer)


def members_of(*groups: Sid | str, directory: _Names | None = None) -> Callable[[_Client], bool]:
    r"""Return a function for `authorize=`: whether a client is one of `groups`, or a member of one.

    A group is a SID (or its text, S-1-5-21-...); of an account, too. With a `directory`, it may
    also be a name, as in `EXAMPLE\Web Admins`. Names are looked up here, once, so that a directory
    that fails later lets nobody in or out.

    Only the PAC in the client's ticket counts, once its signature is verified. A client without a
    PAC, or with one that cannot be trusted, is not a member of any group. Raises ValueError for no
    group at all, and for a name without a `directory`; DecodeError for a malformed SID; and the
    errors of `Directory.find_sid`.
    """
    if not groups:
        raise ValueError("name at least one group: without one, nobody could come in")
    wanted = frozenset(str(_sid(group, directory)) for group in groups)

    def is_member(client: _Client) -> bool:
        try:
            return not wanted.isdisjoint(client.identity.sids)
        except KerberosError as error:
            _log.warning("a client is not let in, since its PAC cannot be trusted: %s", error)
            return False

    return is_member


def _sid(group: Sid | str, directory: _Names | None) -> Sid:
    if not isinstance(group, str):
        return group
    if group[:4].upper() == "S-1-":
        from purekrb.sid import Sid  # only services that name groups pay for it

        return Sid.parse(group)
    if directory is None:
        raise ValueError(
            f"{group!r} is not a SID: pass directory= to look up the name, or give the SID"
        )
    return directory.find_sid(group)
