"""Who the client is, by the PACs that Samba's domain controller and MIT's KDC put into tickets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from purekrb import Acceptor, ClientIdentity, Credential, Initiator, KdcClient, Keytab
from purekrb.authorization import members_of
from purekrb.directory import Directory
from purekrb.errors import AccountNotFoundError
from purekrb.replay import MemoryReplayCache
from purekrb.sid import Sid
from support.mit import MitRealm
from support.samba import SambaDc


@pytest.fixture(scope="module")
def web(samba_dc: SambaDc) -> Keytab:
    """The keys of a computer's HTTP service."""
    samba_dc.add_computer("PACWEB", servicePrincipalName=["HTTP/pacweb.ad.test"])
    return Keytab.load(samba_dc.keytab("HTTP/pacweb.ad.test"))


def accepted(dc: SambaDc, user: str, keytab: Keytab, **options: bool) -> Acceptor:
    credential = Credential.from_password(f"{user}@{dc.realm}", dc.password)
    ticket = KdcClient(dc.config).get_ticket(credential, "HTTP/pacweb.ad.test")
    initiator = Initiator(ticket)
    acceptor = Acceptor(keytab, replay_cache=MemoryReplayCache(), **options)
    reply = acceptor.step(initiator.step())
    initiator.step(reply)
    return acceptor


def attribute(dc: SambaDc, account: str, name: str) -> list[str | bytes]:
    [entry] = dc.search(f"(sAMAccountName={account})", name)
    return entry[name]


@pytest.fixture(scope="module")
def anna(samba_dc: SambaDc) -> Iterator[str]:
    """A user in a group that is in a group, and in a domain-local one."""
    dn = samba_dc.add_user("pac-anna", displayName="Anna P\u00e4c")
    groups = [f"CN=pac-{kind},CN=Users,{samba_dc.base}" for kind in ("inner", "outer", "local")]
    for group in groups:
        samba_dc.delete(group)
    for group, kind, member in zip(
        groups, (-2147483646, -2147483646, -2147483644), (dn, groups[0], dn), strict=True
    ):
        samba_dc.modify(
            f"dn: {group}\nchangetype: add\nobjectClass: group\n"
            f"sAMAccountName: {group[3:].partition(',')[0]}\ngroupType: {kind}\nmember: {member}\n"
        )
    yield dn
    for group in groups:
        samba_dc.delete(group)


def test_chk_43_sids_are_those_that_the_directory_computes(
    samba_dc: SambaDc, web: Keytab, anna: str
) -> None:
    identity = accepted(samba_dc, "pac-anna", web, require_pac=True).identity
    [entry] = samba_dc.search("(objectClass=user)", "tokenGroups", base=anna, scope="base")
    directory = {_sid(value) for value in entry["tokenGroups"]}
    [sid] = attribute(samba_dc, "pac-anna", "objectSid")
    assert identity.user_sid == _sid(sid)
    domain = identity.user_sid.rpartition("-")[0]
    ours = set(identity.group_sids)
    for group in ("pac-inner", "pac-outer", "pac-local"):
        assert _sid(attribute(samba_dc, group, "objectSid")[0]) in ours
    # The directory adds what is local to the DC (S-1-5-32-...), the PAC how the client authenticated (S-1-18-...).
    assert {sid for sid in ours if sid.startswith(domain)} == {
        sid for sid in directory if sid.startswith(domain)
    }
    assert (identity.domain, identity.name) == (samba_dc.netbios_domain, "pac-anna")
    assert identity.full_name == "Anna P\u00e4c"
    assert (identity.upn, identity.dns_domain) == ("pac-anna@ad.test", "AD.TEST")
    assert str(identity.principal) == "pac-anna@AD.TEST"


def bound(dc: SambaDc, account: str, port: int = 389) -> Directory:
    credential = Credential.from_password(f"{account}@{dc.realm}", dc.password)
    target = f"ldap/{dc.host}/{dc.dns_domain}"
    return Directory.connect(f"ldap://{dc.address}:{port}", credential, dc.config, target)


@pytest.mark.parametrize("port", [389, 3268])
def test_the_sids_of_an_identity_get_the_names_that_the_directory_has(
    samba_dc: SambaDc, web: Keytab, anna: str, port: int
) -> None:
    identity = accepted(samba_dc, "pac-anna", web, require_pac=True).identity
    unknown = "S-1-5-21-1-2-3-1105"
    with bound(samba_dc, "pac-anna", port) as directory:
        names = directory.resolve([*identity.sids, "S-1-5-11", "S-1-5-32-544", unknown])
        in_words = {str(sid): name for sid, name in names.items()}
        domain = samba_dc.netbios_domain
        assert in_words[identity.user_sid or ""] == f"{domain}\\pac-anna"
        groups = {"pac-inner", "pac-outer", "pac-local", "Domain Users"}
        assert {f"{domain}\\{group}" for group in groups} <= set(in_words.values())
        assert in_words["S-1-5-32-544"] == "BUILTIN\\Administrators"
        # CN=S-1-5-11,CN=ForeignSecurityPrincipals has this SID, too.
        assert in_words["S-1-5-11"] == "NT AUTHORITY\\Authenticated Users"
        assert set(identity.sids) <= set(in_words)
        assert unknown not in in_words


def test_a_group_is_named_when_the_service_starts_and_its_members_come_in(
    samba_dc: SambaDc, web: Keytab, anna: str
) -> None:
    with bound(samba_dc, "pac-anna") as directory:
        outer = members_of(f"{samba_dc.netbios_domain}\\pac-outer", directory=directory)
        admins = members_of("Domain Admins", directory=directory)
        assert directory.find_sid("pac-outer") in directory.resolve(
            [directory.find_sid("pac-outer")]
        )
        with pytest.raises(AccountNotFoundError):
            directory.find_sid("pac-absent")
    client = accepted(samba_dc, "pac-anna", web)
    assert outer(client)
    assert not admins(client)
    assert admins(accepted(samba_dc, samba_dc.administrator, web))


def test_the_identity_of_a_computer_keeps_its_dollar(samba_dc: SambaDc, web: Keytab) -> None:
    samba_dc.add_computer("PACHOST")
    identity = accepted(samba_dc, "PACHOST$", web, require_pac=True).identity
    assert str(identity) == f"{samba_dc.netbios_domain}\\PACHOST$"
    assert identity.user_sid == _sid(attribute(samba_dc, "PACHOST$", "objectSid")[0])


@pytest.mark.parametrize("pac_request", [True, False])
def test_chk_43_mits_kdc_names_the_principal_and_no_sids(
    mit_realm: MitRealm, pac_request: bool
) -> None:
    credential = Credential.from_password(f"pre@{mit_realm.realm}", mit_realm.passwords["pre"])
    client = KdcClient(mit_realm.config)
    client.get_tgt(credential, pac_request=pac_request)
    acceptor = Acceptor(Keytab.load(mit_realm.service_keytab), replay_cache=MemoryReplayCache())
    acceptor.step(Initiator(client.get_ticket(credential, "svc-18/localhost")).step())
    assert acceptor.identity == ClientIdentity(credential.principal, has_pac=pac_request)
    assert str(acceptor.identity) == f"pre@{mit_realm.realm}"


def _sid(value: str | bytes) -> str:
    return value if isinstance(value, str) else str(Sid.decode(value))
