"""The session of an embedded directory: ldap3's mock strategy, and the features that it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from uuid import uuid4

from purekrb.directory.ldap import (
    ANY_OBJECT,
    SPN_NOT_UNIQUE,
    Change,
    ChangeOperation,
    Control,
    Entry,
    LdapSession,
    Scope,
    equals,
    mock_connection,
    single,
)
from purekrb.directory.security_descriptor import Ace, Acl, SecurityDescriptor
from purekrb.errors import DirectoryError
from purekrb.sid import Sid
from purekrb.system import random_bytes

__all__ = ["EmbeddedSession"]

_WITH_SID = ("user", "computer", "group", "msDS-GroupManagedServiceAccount")
_DOMAIN = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


class EmbeddedSession(LdapSession):
    """A session with a new directory of `domain` that has the containers Computers and Users."""

    def __init__(self, domain: str) -> None:
        if not _DOMAIN.fullmatch(domain):
            raise DirectoryError(
                f"domain {domain!r} is not a DNS name: give one such as 'example.test'"
            )
        base_dn = ",".join(f"DC={label}" for label in domain.split("."))
        super().__init__(mock_connection(), base_dn)
        #: The domain's SID. Domain Admins have RID 512 in it; new accounts are numbered from 1000.
        self._sid = Sid(5, (21, *(int.from_bytes(random_bytes(4), "little") for _ in range(3))))
        self._rids = count(1000)
        self.add(base_dn, "domainDNS", {})
        for container in ("Computers", "Users"):
            self.add(f"CN={container},{base_dn}", "container", {})
        # The part of a real forest's configuration that purekrb reads.
        configuration = f"CN=Configuration,{base_dn}"
        naming = {"defaultNamingContext": base_dn, "configurationNamingContext": configuration}
        self.root_dse = Entry("", {name: [value.encode()] for name, value in naming.items()})
        self.add(
            f"CN={domain},CN=Partitions,{configuration}",
            "crossRef",
            {
                "nCName": [base_dn],
                "dnsRoot": [domain],
                "nETBIOSName": [domain.partition(".")[0].upper()],
            },
        )
        self.add(
            f"CN=Directory Service,CN=Windows NT,CN=Services,{configuration}",
            "nTDSService",
            {"sPNMappings": ["host=cifs,http,rpc,www"]},
        )

    def add(
        self, dn: str, object_class: str, attributes: Mapping[str, Sequence[str | bytes]]
    ) -> None:
        """Create `dn` with an objectGUID and a security descriptor; accounts get a SID."""
        own = {"objectGUID": uuid4().bytes_le, "nTSecurityDescriptor": self._descriptor}
        if object_class in _WITH_SID:
            own["objectSid"] = self._child(next(self._rids)).encode()
        super().add(
            dn, object_class, {**attributes, **{name: [value] for name, value in own.items()}}
        )

    def search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str] = (),
        *,
        scope: Scope = Scope.SUBTREE,
        controls: Sequence[Control] = (),
    ) -> list[Entry]:
        """Return all objects that match. `controls` are ignored."""
        if not base:  # the mock has no root DSE
            return [
                Entry("", {name: self.root_dse.attributes.get(name, ()) for name in attributes})
            ]
        found = super().search(base, search_filter, attributes, scope=scope)
        # The mock counts an object among those directly below it.
        return [
            entry
            for entry in found
            if scope is not Scope.LEVEL or entry.dn.casefold() != base.casefold()
        ]

    def modify(
        self,
        dn: str,
        changes: Iterable[Change],
        *,
        permissive: bool = False,
        controls: Sequence[Control] = (),
    ) -> None:
        """Make all `changes` like a permissive modify; refuse an SPN that another object has."""
        # The mock does not have permissive modify, and would store a value twice. Every writer of
        # this directory holds its lock, so nothing changes between the read and the write.
        changes = list(changes)
        with self._lock:
            names = list(dict.fromkeys(change.attribute for change in changes))
            before = single(
                self.search(dn, ANY_OBJECT, names, scope=Scope.BASE), f"object {dn!r}"
            ).attributes
            after = {name: list(values) for name, values in before.items()}
            for change in changes:
                after[change.attribute] = _changed(after[change.attribute], change)
            for spn in after.get("servicePrincipalName", ()):
                if spn not in before["servicePrincipalName"]:
                    self._check_unique(dn, spn.decode())
            different = {
                name: values for name, values in after.items() if values != list(before[name])
            }
            if different:
                super().modify(
                    dn,
                    [
                        Change(ChangeOperation.REPLACE, name, values)
                        for name, values in different.items()
                    ],
                )

    @property
    def _descriptor(self) -> bytes:
        """The descriptor of a new SCP in a real directory.

        Domain Admins have full control; Authenticated Users may read.
        """
        admins, users = self._child(512), Sid.parse("S-1-5-11")
        allowed = ((0xF01FF, admins), (0x20094, users))
        aces = tuple(Ace(0, 0, mask.to_bytes(4, "little") + sid.encode()) for mask, sid in allowed)
        return SecurityDescriptor(0x8004, admins, admins, dacl=Acl(2, aces)).encode()

    def _child(self, rid: int) -> Sid:
        return Sid(5, (*self._sid.sub_authorities, rid))

    def _check_unique(self, dn: str, spn: str) -> None:
        for owner in self.search(self.base_dn, equals("servicePrincipalName", spn)):
            if owner.dn.casefold() != dn.casefold():
                raise DirectoryError(
                    f"SPN {spn!r} already belongs to {owner.dn!r}",
                    code=SPN_NOT_UNIQUE,
                    ldap_result=19,
                )


def _changed(values: Iterable[bytes], change: Change) -> list[bytes]:
    """Return `values` after a permissive `change`. Values that differ only in case are the same."""
    after: dict[str, bytes] = {}
    if change.operation is not ChangeOperation.REPLACE:
        after = {_folded(value): value for value in values}
    for value in change.values:
        raw = value.encode() if isinstance(value, str) else value
        if change.operation is ChangeOperation.DELETE:
            after.pop(_folded(raw), None)
        else:
            after.setdefault(_folded(raw), raw)
    if change.operation is ChangeOperation.DELETE and not change.values:
        return []
    return list(after.values())


def _folded(value: bytes) -> str:
    return value.decode(errors="surrogateescape").casefold()
