"""A domain in this process: an embedded directory, and an embedded realm that has the passwords set in it.

For the accounts of services, whose keys both must know. It has no access control.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from purekrb import Credential, KdcClient
from purekrb.directory.embedded import EmbeddedSession
from purekrb.directory.ldap import Change, ChangeOperation, Control, Entry, Scope
from purekrb.testing import Realm

__all__ = ["Domain", "DomainSession"]

KVNO, PASSWORD = "msDS-KeyVersionNumber", "unicodePwd"


class DomainSession(EmbeddedSession):
    """The session with the directory. `refusal` is raised in place of a change of a password.

    `told` replaces the kvno that the directory tells, `salt` the salt of new passwords.
    """

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        self.kvnos: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.told: str | None = None
        self.salt: str | None = None
        self.refusal: Exception | None = None
        super().__init__(realm.name.lower())

    def add(
        self, dn: str, object_class: str, attributes: Mapping[str, Sequence[str | bytes]]
    ) -> None:
        rest = {key: values for key, values in attributes.items() if key != PASSWORD}
        if PASSWORD in attributes and self.refusal is not None:
            raise self.refusal
        super().add(dn, object_class, rest)
        if PASSWORD in attributes:
            self.names[dn.casefold()] = str(attributes["sAMAccountName"][0])
            self.set_password(dn, attributes[PASSWORD][0])

    def modify(
        self,
        dn: str,
        changes: Iterable[Change],
        *,
        permissive: bool = False,
        controls: Sequence[Control] = (),
    ) -> None:
        changes = list(changes)
        for change in changes:
            if change.attribute == PASSWORD and change.operation is not ChangeOperation.DELETE:
                if self.refusal is not None:
                    raise self.refusal
                self.set_password(dn, change.values[0])
        others = [change for change in changes if change.attribute != PASSWORD]
        if others:
            super().modify(dn, others, permissive=permissive, controls=controls)

    def search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str] = (),
        *,
        scope: Scope = Scope.SUBTREE,
        controls: Sequence[Control] = (),
    ) -> list[Entry]:
        if base.startswith("<WKGUID="):
            return [Entry(f"CN=Users,{self.base_dn}", {})]
        asked = [name for name in attributes if name not in (KVNO, "tokenGroups")]
        found = super().search(base, search_filter, asked, scope=scope)
        if not base:  # nobody's account is bound: the administrator's
            found = super().search(
                self.base_dn, "(sAMAccountName=Administrator)", ("objectSid",), scope=Scope.SUBTREE
            )
            return [Entry("", {"tokenGroups": found[0].attributes["objectSid"]})]
        return [self._with_kvno(entry) if KVNO in attributes else entry for entry in found]

    def _with_kvno(self, entry: Entry) -> Entry:
        kvno = self.kvnos.get(entry.dn.casefold())
        told = self.told if self.told is not None else None if kvno is None else str(kvno)
        values = [] if told is None else [told.encode()]
        return Entry(entry.dn, {**entry.attributes, KVNO: values})

    def set_password(self, dn: str, value: str | bytes) -> None:
        """Give an account another password: the realm has its keys, under the next kvno."""
        text = (value.encode() if isinstance(value, str) else value).decode("utf-16-le")
        kvno = self.kvnos.get(dn.casefold(), 0) + 1
        self.kvnos[dn.casefold()] = kvno
        self.realm.add_user(
            self.names[dn.casefold()], text[1:-1], kvno=kvno, etypes=(18, 17), salt=self.salt
        )


class Domain:
    """The domain EXAMPLE.TEST: `realm`, `session`, a client of its KDC, and its administrator."""

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        self.session = DomainSession(realm)
        names = {"sAMAccountName": ["Administrator"], "cn": ["Administrator"]}
        self.session.add(f"CN=Administrator,CN=Users,{self.session.base_dn}", "user", names)
        self.administrator: Credential = realm.add_user("Administrator", "pw")
        self.kdc = KdcClient(realm.config)
