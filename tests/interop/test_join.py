"""Computers that join Samba's domain: as administrators, with a one-time password, with delegated rights; and the
accounts that msktutil and adcli make, attribute by attribute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from purekrb import Acceptor, Credential, KdcClient, Keytab
from purekrb.cli import main
from purekrb.directory import Directory
from purekrb.errors import DirectoryError, InsufficientRightsError, KerberosError
from purekrb.gss.initiator import Initiator
from purekrb.replay import MemoryReplayCache
from support.joiners import Joiners
from support.samba import SambaDc

ATTRIBUTES = (
    "dNSHostName",
    "servicePrincipalName",
    "userAccountControl",
    "msDS-SupportedEncryptionTypes",
    "objectClass",
    "primaryGroupID",
    "sAMAccountType",
)


def bound(dc: SambaDc, credential: Credential) -> Directory:
    return Directory.connect(f"ldap://{dc.address}", credential, dc.config, f"ldap/{dc.host}")


def as_user(dc: SambaDc, name: str) -> Directory:
    return bound(dc, Credential.from_password(f"{name}@{dc.realm}", dc.password))


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Iterator[Directory]:
    samba_dc.add_user("join-client")
    with as_user(samba_dc, samba_dc.administrator) as directory:
        yield directory


@pytest.fixture
def box(samba_dc: SambaDc, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a computer that is not there before the test, nor after it."""
    name = f"BOX{abs(hash(request.node.nodeid)) % 10**7}"
    yield name
    samba_dc.delete(dn_of(samba_dc, name))


def dn_of(dc: SambaDc, name: str) -> str:
    return f"CN={name},CN=Computers,{dc.base}"


def read(dc: SambaDc, name: str) -> dict[str, Any]:
    (entry,) = dc.search(f"(sAMAccountName={name}$)", *ATTRIBUTES)
    return entry


def accepts(dc: SambaDc, keytab: Path, spn: str) -> bool:
    """Whether a client gets a ticket for `spn`, and an acceptor with this keytab takes it."""
    client = Credential.from_password(f"join-client@{dc.realm}", dc.password)
    initiator = Initiator(KdcClient(dc.config).get_ticket(client, spn))
    acceptor = Acceptor(Keytab.load(keytab), replay_cache=MemoryReplayCache())
    initiator.step(acceptor.step(initiator.step()))
    return acceptor.established and initiator.established


def test_a_new_computer_has_the_names_that_windows_gives_it(
    samba_dc: SambaDc, admin: Directory, box: str, tmp_path: Path
) -> None:
    keytab = tmp_path / "krb5.keytab"
    made = admin.join_computer(box, keytab=keytab, spns=[f"HTTP/{box.lower()}.ad.test"])
    host = f"{box}.ad.test".lower()
    entry = read(samba_dc, box)
    assert made.account.dn == dn_of(samba_dc, box)
    assert entry["dNSHostName"] == [host]
    assert set(entry["servicePrincipalName"]) == {
        f"{service}/{name}" for service in ("HOST", "RestrictedKrbHost") for name in (box, host)
    } | {f"HTTP/{host}"}
    assert entry["userAccountControl"] == [str(0x1000)]
    assert entry["msDS-SupportedEncryptionTypes"] == ["24"]
    for spn in (f"HTTP/{host}", f"host/{host}", f"cifs/{host}"):
        assert accepts(samba_dc, keytab, spn)
    itself = Credential.from_keytab(f"{box}$@{samba_dc.realm}", keytab)
    assert KdcClient(samba_dc.config).get_tgt(itself).is_tgt
    with bound(samba_dc, itself) as directory:
        assert directory.rotate_keys(f"{box}$", keytab).kvno == made.kvno + 1
    assert accepts(samba_dc, keytab, f"HTTP/{host}")


def test_a_computer_that_is_in_use_is_only_taken_over_on_request(
    samba_dc: SambaDc, admin: Directory, box: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.keytab", tmp_path / "second.keytab"
    admin.join_computer(box, keytab=first)
    before = first.read_bytes()
    with pytest.raises(DirectoryError, match=r"in use.*--reuse") as caught:
        admin.join_computer(box, keytab=second)
    assert caught.value.code == 1316
    assert not second.exists()
    assert first.read_bytes() == before
    assert accepts(samba_dc, first, f"HOST/{box}.ad.test")
    admin.join_computer(box, keytab=second, reuse=True)
    assert accepts(samba_dc, second, f"HOST/{box}.ad.test")


def test_the_same_host_may_join_again(
    samba_dc: SambaDc, admin: Directory, box: str, tmp_path: Path
) -> None:
    keytab = tmp_path / "krb5.keytab"
    made = admin.join_computer(box, keytab=keytab)
    again = admin.join_computer(box, keytab=keytab, spns=[f"HTTP/{box}.ad.test"])
    assert again.account.object_guid == made.account.object_guid
    assert f"HTTP/{box}.ad.test" in read(samba_dc, box)["servicePrincipalName"]
    assert accepts(samba_dc, keytab, f"HTTP/{box}.ad.test")


def test_a_prepared_account_is_joined_by_who_may_reset_it(
    samba_dc: SambaDc, admin: Directory, box: str, tmp_path: Path
) -> None:
    samba_dc.samba_tool("computer", "create", box)
    samba_dc.add_user("joiner")
    keytab = tmp_path / "krb5.keytab"
    with as_user(samba_dc, "joiner") as directory:
        with pytest.raises(InsufficientRightsError, match="samba-tool dsacl set"):
            directory.join_computer(box, keytab=keytab)
        assert not keytab.exists()
        assert read(samba_dc, box).get("dNSHostName") is None
        sid = samba_dc.search("(sAMAccountName=joiner)", "objectSid")[0]["objectSid"][0]
        samba_dc.samba_tool(
            "dsacl",
            "set",
            f"--objectdn={dn_of(samba_dc, box)}",
            f"--sddl=(A;;RPWPCR;;;{sid})",
        )
        directory.join_computer(box, keytab=keytab)
    assert accepts(samba_dc, keytab, f"HOST/{box}.ad.test")


def test_a_prepared_account_is_joined_with_its_one_time_password(
    samba_dc: SambaDc,
    admin: Directory,
    box: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    samba_dc.samba_tool("computer", "create", box)
    samba_dc.set_password(dn_of(samba_dc, box), "One-T1me-Canary")
    samba_dc.modify(
        f"dn: {dn_of(samba_dc, box)}\nchangetype: modify\nreplace: userAccountControl\n"
        "userAccountControl: 4096\n"
    )
    secret, keytab = tmp_path / "secret", tmp_path / "krb5.keytab"
    secret.touch(mode=0o600)
    secret.write_text("One-T1me-Canary\n")
    monkeypatch.setenv("KRB5_CONFIG", str(samba_dc.krb5_conf))
    where = ["--ldap", f"ldap://{samba_dc.address}", "--target", f"ldap/{samba_dc.host}"]
    argv = ["account", "join", box, "-t", str(keytab), "--json", "--password-file", str(secret)]
    assert main([*argv, *where]) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    assert json.loads(printed.out)["account"] == f"{box}$"
    assert "One-T1me" not in printed.out + printed.err
    assert accepts(samba_dc, keytab, f"HOST/{box}.ad.test")


def test_a_user_of_that_name_is_no_computer(
    samba_dc: SambaDc, admin: Directory, box: str, tmp_path: Path
) -> None:
    samba_dc.add_user(f"{box}$")
    try:
        with pytest.raises(DirectoryError, match="is no computer"):
            admin.join_computer(box, keytab=tmp_path / "k")
    finally:
        samba_dc.delete(f"CN={box}$,CN=Users,{samba_dc.base}")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("name", ["A" * 16, "a/b", "a b@c", "$"])
def test_names_that_no_computer_can_have(admin: Directory, name: str, tmp_path: Path) -> None:
    with pytest.raises(KerberosError):
        admin.join_computer(name, keytab=tmp_path / "k")
    assert not (tmp_path / "k").exists()


# Beside msktutil and adcli ----------------------------------------------------------------------

OTHERS = ("OURS", "MSKTUTIL", "ADCLI")


@pytest.fixture(scope="module")
def three(
    samba_dc: SambaDc, admin: Directory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A directory with the keytabs of three computers, each joined and then rotated by one of the programs."""
    directory = tmp_path_factory.mktemp("joiners")
    tools = Joiners(samba_dc, directory)

    def where(name: str) -> tuple[str, str]:
        return f"{name.lower()}.{samba_dc.dns_domain}", f"{directory}/{name}.keytab"

    host, keytab = where("OURS")
    admin.join_computer("OURS", dns_name=host, spns=[f"HTTP/{host}"], keytab=keytab)
    itself = Credential.from_keytab(f"OURS$@{samba_dc.realm}", keytab)
    with bound(samba_dc, itself) as us:
        us.rotate_keys("OURS$", keytab)
    host, keytab = where("MSKTUTIL")
    named = ["--computer-name", "MSKTUTIL", "--hostname", host, "--keytab", keytab]
    tools.msktutil("create", *named, "--service", "HTTP", "--service", "host")
    tools.msktutil("update", *named, as_admin=False)
    host, keytab = where("ADCLI")
    named = ["--computer-name=ADCLI", f"--host-fqdn={host}", f"--host-keytab={keytab}"]
    tools.adcli("join", *named, "--service-name=HTTP", "--service-name=host")
    tools.adcli("update", *named, "--computer-password-lifetime=0")
    yield directory
    for name in OTHERS:
        samba_dc.delete(dn_of(samba_dc, name))


def test_the_accounts_are_those_of_msktutil_and_adcli(samba_dc: SambaDc, three: Path) -> None:
    ours, msktutil, adcli = (read(samba_dc, name) for name in OTHERS)

    def plain(entry: dict[str, Any], attribute: str) -> set[str]:
        host = str(entry["dNSHostName"][0])
        short = host.partition(".")[0]
        values = {str(value).lower() for value in entry[attribute]}
        return {value.replace(host, "FULL").replace(short, "SHORT") for value in values}

    for attribute in ("objectClass", "primaryGroupID", "sAMAccountType", "dNSHostName"):
        assert plain(ours, attribute) == plain(msktutil, attribute) == plain(adcli, attribute)
    assert ours["userAccountControl"] == msktutil["userAccountControl"] == ["4096"]
    assert adcli["userAccountControl"] == ["69632"]  # and its password never expires
    etypes = "msDS-SupportedEncryptionTypes"
    assert ours[etypes] == msktutil[etypes] == ["24"]
    assert adcli[etypes] == ["28"]  # and RC4
    names = plain(ours, "servicePrincipalName")
    assert names == plain(adcli, "servicePrincipalName") - {"http/SHORT"}
    assert plain(msktutil, "servicePrincipalName") <= names | {"http/SHORT"}


@pytest.mark.parametrize("name", OTHERS)
def test_each_keytab_serves_after_a_rotation(samba_dc: SambaDc, three: Path, name: str) -> None:
    keytab, host = three / f"{name}.keytab", f"{name.lower()}.{samba_dc.dns_domain}"
    for spn in (f"HTTP/{host}", f"host/{host}"):
        assert accepts(samba_dc, keytab, spn)
    assert KdcClient(samba_dc.config).get_tgt(
        Credential.from_keytab(f"{name}$@{samba_dc.realm}", keytab)
    )


def test_the_keytabs_have_the_same_names_and_versions(samba_dc: SambaDc, three: Path) -> None:
    found: dict[str, tuple[set[str], set[int], set[int]]] = {}
    for name in OTHERS:
        keytab = Keytab.load(three / f"{name}.keytab")
        names = {str(entry.principal).lower().replace(name.lower(), "BOX") for entry in keytab}
        etypes = {int(entry.key.etype) for entry in keytab}
        found[name] = names, {entry.kvno for entry in keytab}, etypes
    assert found["OURS"][1] == found["MSKTUTIL"][1] == {1, 2}
    assert found["ADCLI"][1] == {2, 3}  # it sets the password after it has created the account
    assert found["OURS"][2] == found["MSKTUTIL"][2] == {17, 18}
    assert found["ADCLI"][2] >= {17, 18}
    assert found["MSKTUTIL"][0] - {"http/BOX@ad.test"} <= found["OURS"][0]
    assert found["ADCLI"][0] - {"http/BOX@ad.test"} <= found["OURS"][0]


@pytest.mark.parametrize("name", ["MSKTUTIL", "ADCLI"])
def test_we_rotate_what_others_have_joined(samba_dc: SambaDc, three: Path, name: str) -> None:
    keytab = three / f"{name}.keytab"
    itself = Credential.from_keytab(f"{name}$@{samba_dc.realm}", keytab)
    with bound(samba_dc, itself) as directory:
        done = directory.rotate_keys(f"{name}$", keytab)
    assert done.kvno == {"MSKTUTIL": 3, "ADCLI": 4}[name]
    assert accepts(samba_dc, keytab, f"HTTP/{name.lower()}.{samba_dc.dns_domain}")
