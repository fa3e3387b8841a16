"""The `purekrb` command with MIT's KDC, and credential caches and keytabs that go between it and MIT's programs."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from purekrb import Credential, Keytab
from support.commands import ARGV
from support.mit import MitRealm
from support.peers import find_program, run

SERVICE = "host/localhost"


class Purekrb:
    """Runs the command with the environment of MIT's programs, and a cache of its own."""

    def __init__(self, realm: MitRealm) -> None:
        self.ccache = realm.path("ccache")
        self._env = {
            **realm.env,
            "KRB5CCNAME": f"FILE:{self.ccache}",
            "KRB5_KTNAME": f"FILE:{realm.service_keytab}",
        }

    def __call__(self, *argv: str, text: str = "") -> str:
        return run([*ARGV, *argv], env=self._env, text=text)


@pytest.fixture
def purekrb(mit_realm: MitRealm) -> Purekrb:
    return Purekrb(mit_realm)


@pytest.mark.parametrize(("user", "password"), [("user", "userpw"), ("pre", "prepw")])
def test_a_ticket_got_with_a_password_is_read_and_used_by_mit(
    mit_realm: MitRealm, purekrb: Purekrb, user: str, password: str
) -> None:
    assert purekrb("kinit", user, "-l", "1h", "-f", text=f"{password}\n").startswith(
        f"{user}@MIT.TEST: ticket until"
    )
    listed = mit_realm.klist(purekrb.ccache, "-f", "-e")
    assert f"Default principal: {user}@MIT.TEST" in listed
    assert "krbtgt/MIT.TEST@MIT.TEST" in listed
    assert "Flags: FI" in listed
    assert mit_realm.kvno(purekrb.ccache, SERVICE) == f"{SERVICE}@MIT.TEST: kvno = 1\n"
    # MIT has written the file meanwhile, with a configuration entry; what it added is read and kept.
    assert f"{SERVICE}@MIT.TEST" in purekrb("klist")
    purekrb("kvno", "HTTP/localhost")
    assert {f"{SERVICE}@MIT.TEST", "HTTP/localhost@MIT.TEST"} <= set(
        mit_realm.klist(purekrb.ccache).split()
    )


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_a_ticket_got_with_a_keytab_is_read_by_mit(
    mit_realm: MitRealm, purekrb: Purekrb, etype: int
) -> None:
    name = f"svc-{etype}/localhost"
    purekrb("kinit", "-k", name)
    assert f"Default principal: {name}@MIT.TEST" in mit_realm.klist(purekrb.ccache)
    told = purekrb("kvno", name, "-k", str(mit_realm.service_keytab))
    assert told == f"{name}@MIT.TEST: kvno = 1 ({mit_realm.etypes[etype]}), keytab entry valid\n"


def test_tickets_of_mit_are_listed_used_and_shown(mit_realm: MitRealm, purekrb: Purekrb) -> None:
    ccache = mit_realm.kinit("pre", services=[SERVICE])
    assert purekrb("klist", "-c", str(ccache)).splitlines()[:2] == [
        *(f"Ticket cache: FILE:{ccache}", "Default principal: pre@MIT.TEST")
    ]
    purekrb("klist", "-s", "-c", f"FILE:{ccache}")
    told = purekrb(
        "kvno", "-c", str(ccache), SERVICE, "HTTP/localhost", "host/srv.sub.test@SUB.TEST"
    )
    assert [line.split(":")[0] for line in told.splitlines()] == [
        *(f"{SERVICE}@MIT.TEST", "HTTP/localhost@MIT.TEST", "host/srv.sub.test@SUB.TEST")
    ]
    shown = purekrb("inspect", str(ccache), "-k", str(mit_realm.service_keytab))
    assert "cname: pre (PRINCIPAL 1)" in shown
    assert "host/srv.sub.test@SUB.TEST" in mit_realm.klist(ccache)


def test_mit_renews_what_purekrb_got_and_the_other_way_round(
    mit_realm: MitRealm, purekrb: Purekrb
) -> None:
    purekrb("kinit", "user", "-l", "1h", "-r", "1d", text="userpw\n")
    run(
        [find_program("kinit", "krb5-user"), "-R", "-c", f"FILE:{purekrb.ccache}"],
        env=mit_realm.env,
    )
    ccache = mit_realm.kinit("user", options=["-l", "1h", "-r", "1d"])
    assert "renewable until" in purekrb("kinit", "-R", "-c", str(ccache))
    assert "renew until" in mit_realm.klist(ccache)


def test_the_trace_of_an_exchange_with_mit_tells_what_its_kdc_wants(
    mit_realm: MitRealm, purekrb: Purekrb
) -> None:
    argv = [
        "sh",
        "-c",
        '"$@" 2>&1',
        "sh",
        *ARGV,
        "--trace",
        "kinit",
        "pre",
        "-c",
        str(purekrb.ccache),
    ]
    told = run(argv, env=mit_realm.env, text="prepw\n")
    assert "KRB-ERROR from MIT.TEST: KDC_ERR_PREAUTH_REQUIRED 25" in told
    assert re.search(
        r"takes pre-authentication of the types .*: PA-ENC-TIMESTAMP with aes\S+ is chosen", told
    )
    assert "AS-REP from MIT.TEST: ticket for krbtgt/MIT.TEST@MIT.TEST until 20" in told
    assert "prepw" not in told


def test_keytabs_go_both_ways(mit_realm: MitRealm, purekrb: Purekrb, tmp_path: Path) -> None:
    listed = purekrb("keytab", "list", str(mit_realm.service_keytab))
    assert len(listed.splitlines()) == 1 + len(Keytab.load(mit_realm.service_keytab))
    new = tmp_path / "keytab"
    etypes = ("--etype", "aes256-cts-hmac-sha1-96", "--etype", "aes128-cts-hmac-sha256-128")
    purekrb(
        "keytab",
        "from-password",
        str(new),
        "user@MIT.TEST",
        "--kvno",
        "1",
        *etypes,
        text="userpw\n",
    )
    by_mit = mit_realm.klist(new, "-k", "-e")
    assert by_mit.count("1 user@MIT.TEST") == 2
    assert "(aes128-cts-hmac-sha256-128)" in by_mit
    mit_realm.kinit("user@MIT.TEST", keytab=new)
    purekrb("kinit", "-t", str(new))
    purekrb("kdestroy")
    assert not purekrb.ccache.exists()


def test_a_postdated_ticket_is_validated_when_its_time_has_come(
    mit_realm: MitRealm, purekrb: Purekrb
) -> None:
    told = purekrb("kinit", "user", "-s", "1h", "-l", "1h", text="userpw\n")
    assert told.endswith("validate it then (kinit -v)\n")
    assert "Flags: FDdiI" in mit_realm.klist(purekrb.ccache, "-f")
    assert "Flags: FDdiI" in purekrb("klist")
    shell = ["sh", "-c", '"$@" 2>&1; echo code=$?', "sh", *ARGV]
    command = [*shell, "kinit", "-v", "-c", str(purekrb.ccache)]
    assert "the TGT is not valid yet" in run(command, env=mit_realm.env)
    purekrb("kinit", "user", "-s", "4", "-l", "1h", text="userpw\n")
    time.sleep(4.5)
    assert "ticket until" in purekrb("kinit", "-v")
    assert "Flags: FDdI" in mit_realm.klist(purekrb.ccache, "-f")
    assert mit_realm.kvno(purekrb.ccache, SERVICE) == f"{SERVICE}@MIT.TEST: kvno = 1\n"


def test_the_kinds_of_tickets_that_switches_ask_for_are_those_of_mit(
    mit_realm: MitRealm, purekrb: Purekrb
) -> None:
    """The same switches of both programs, the same flags and addresses as MIT's klist shows them."""
    for switches in (["-f"], ["-F"], ["-p"], ["-P"], ["-a"], ["-A"], ["-r", "1d"], ["-fpa"]):
        ours = ["-F", "-P", "-A", *switches]
        if switches[0].upper() in ("-F", "-P", "-A"):
            ours = [s for s in ours[:3] if s != switches[0].upper()] + switches
        if switches == ["-fpa"]:
            ours = switches
        purekrb("kinit", "user", *ours, text="userpw\n")
        theirs = mit_realm.kinit("user", options=ours)
        shown = [
            re.findall(r"Flags: (\w+)|Addresses: (.*)", mit_realm.klist(ccache, "-f", "-a", "-n"))
            for ccache in (purekrb.ccache, theirs)
        ]
        assert set(shown[0][0][0]) == set(shown[1][0][0]), ours
        assert sorted(shown[0][-1][1].split(", ")) == sorted(shown[1][-1][1].split(", ")), ours


def test_switches_for_a_pac_a_cache_and_names_do_what_mits_do(
    mit_realm: MitRealm, purekrb: Purekrb, tmp_path: Path
) -> None:
    sizes = []
    for switch in ("--request-pac", "--no-request-pac"):
        ours, theirs = tmp_path / switch, mit_realm.kinit("user", options=[switch])
        purekrb("kinit", "-c", str(ours), "-C", switch, "user", text="userpw\n")
        tgts = [Credential.from_ccache(str(path)).tgt() for path in (ours, theirs)]
        assert [str(tgt.client) for tgt in tgts if tgt] == ["user@MIT.TEST"] * 2
        sizes.append([len(tgt.ticket) for tgt in tgts if tgt])
    (with_pac, with_mits), (without, without_mits) = sizes
    assert with_pac > without + 100
    assert with_mits > without_mits + 100
    # MIT's database knows no enterprise names: both programs are told that there is no such client.
    command = ["sh", "-c", '"$@" 2>&1; echo code=$?', "sh"]
    for program in (ARGV, ["kinit"]):
        argv = [*program, *(["kinit"] if program is ARGV else []), "-E", "user@elsewhere.test"]
        said = run([*command, *argv], env=mit_realm.env, text="userpw\n")
        assert "user\\@elsewhere.test@MIT.TEST" in said
        assert "code=0" not in said


def test_kinit_T_protects_the_request_by_the_ticket_of_another(
    mit_realm: MitRealm, purekrb: Purekrb
) -> None:
    armor = str(mit_realm.kinit("user"))
    purekrb("kinit", "-T", armor, "pre", text="prepw\n")
    assert "fast_avail(krbtgt/MIT.TEST@MIT.TEST) = yes" in purekrb("klist", "-C")
    shell = ["sh", "-c", '"$@" 2>&1; echo code=$?', "sh", *ARGV]
    command = [*shell, "kinit", "-T", "FILE:/nowhere/armor", "pre"]
    assert "code=7" in run(command, env=mit_realm.env, text="prepw\n")


def test_klist_shows_of_the_tickets_of_mit_what_its_own_klist_shows(
    mit_realm: MitRealm, purekrb: Purekrb
) -> None:
    ccache = mit_realm.kinit("pre", services=[SERVICE], options=["-r", "1d", "-f"])
    theirs = mit_realm.klist(ccache, "-e", "-f", "-a", "-n")
    ours = purekrb("klist", "-efan", str(ccache))
    for pattern in (
        r"(Ticket cache: .*)",
        r"(Default principal: .*)",
        r"(krbtgt\S+|host\S+)",
        r"Flags: (\w+)",
        r"tkt\): (\S+), (\S+)",
        r"Addresses: (.*)",
    ):
        assert re.findall(pattern, ours) == re.findall(pattern, theirs), pattern
    assert ours.count("renew until") == theirs.count("renew until")
    entries = [
        re.findall(r"config: (\S+) = (.*)", text)
        for text in (purekrb("klist", "-C", str(ccache)), mit_realm.klist(ccache, "-C"))
    ]
    assert entries[0]
    assert entries[0] == entries[1]
    keytab = str(mit_realm.service_keytab)
    listed = [
        re.findall(r"\S+@MIT.TEST", text)
        for text in (
            purekrb("klist", "-kte", keytab),
            mit_realm.klist(mit_realm.service_keytab, "-kte"),
        )
    ]
    assert listed[0] == listed[1]


def test_a_collection_is_shared_with_the_programs_of_mit(
    mit_realm: MitRealm, tmp_path: Path
) -> None:
    """Each program sees, switches and destroys what the other has put there, with the same exit codes."""
    collection = tmp_path / "caches"
    collection.mkdir(mode=0o700)
    env = {**mit_realm.env, "KRB5CCNAME": f"DIR:{collection}"}

    def told(*argv: str, text: str = "") -> tuple[int, str]:
        done = subprocess.run(argv, env=env, input=text, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    def users(listed: str) -> list[str]:
        return re.findall(r"^(\w+)@MIT.TEST .*DIR::", listed, re.MULTILINE)

    mit = {
        name: find_program(name, "krb5-user") for name in ("kinit", "klist", "kswitch", "kdestroy")
    }
    ours = (*ARGV,)
    assert told(*ours, "kinit", "user", text="userpw\n")[0] == 0
    assert told(mit["kinit"], "pre", text="prepw\n")[0] == 0
    for listed in (told(mit["klist"], "-l"), told(*ours, "klist", "-l")):
        assert (listed[0], users(listed[1])) == (0, ["pre", "user"])
    every = [told(*argv, "-A")[1] for argv in ((mit["klist"],), (*ours, "klist"))]
    names = [re.findall("(?:Ticket cache|Default principal): (.*)", text) for text in every]
    assert names[0] == names[1]
    assert len(names[0]) == 4
    for first, switch in (("user", (*ours, "kswitch")), ("pre", (mit["kswitch"],))):
        assert told(*switch, "-p", first)[0] == 0
        for listed in (told(mit["klist"], "-l"), told(*ours, "klist", "-l")):
            assert users(listed[1])[0] == first
    assert told(mit["kdestroy"], "-p", "user@MIT.TEST")[0] == 0
    assert users(told(*ours, "klist", "-l")[1]) == ["pre"]
    assert told(*ours, "kdestroy", "-p", "pre@MIT.TEST")[0] == 0
    nobody, none = "carol@MIT.TEST", f"FILE:{tmp_path}/none"
    for command, *argv in (
        ("kswitch", "-p", nobody),
        ("kswitch", "-c", none),
        ("kswitch",),
        ("kdestroy", "-p", nobody),
        ("kdestroy", "-c", none),
        ("kdestroy", "-q", "-c", none),
        ("klist", none),
        ("klist", "-s", none),
        ("klist", "-k", none),
        ("kdestroy", "-A"),
        ("klist",),
        ("klist", "-l"),
        ("klist", "-A"),
    ):
        assert told(*ours, command, *argv)[0] == told(mit[command], *argv)[0], (command, argv)
    assert list(collection.glob("tkt*")) == []
