"""The switches of MIT's programs and of setspn: each means what it means there, or is refused by name."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

import purekrb.cli
from purekrb import CCache, Config, EncryptionKey, Keytab, Principal, ServiceTicket
from purekrb.cli import COMMANDS, kinit, kvno, options
from purekrb.cli import parser as command_line
from purekrb.cli.klist import letters
from purekrb.constants import NameType, TicketFlags
from purekrb.messages.ap import AuthorizationDataEntry, HostAddress
from purekrb.testing import Realm
from support.canaries import PASSWORD
from support.commands import Commands

WEB = "HTTP/web.example.test"
TGS = "krbtgt/EXAMPLE.TEST@EXAMPLE.TEST"
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def a_ticket(service: str = TGS, **fields: object) -> ServiceTicket:
    values: dict[str, object] = {
        "client": Principal.parse("alice@EXAMPLE.TEST"),
        "service": Principal.parse(service),
        "ticket": b"not a ticket",
        "session_key": EncryptionKey(18, bytes(32)),
        "flags": 0,
        "authtime": NOW,
        "starttime": NOW,
        "endtime": NOW + timedelta(hours=1),
    }
    return ServiceTicket(**{**values, **fields})  # type: ignore[arg-type]


def a_cache(run: Commands, *tickets: ServiceTicket, name: str = "ccache") -> CCache:
    ccache = CCache("alice@EXAMPLE.TEST", tickets)
    ccache.save(run.directory / name)
    return ccache


# -- purekrb itself


def test_python_dash_m_help_and_version_work(run: Commands) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "purekrb", "-V"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"purekrb {purekrb.__version__}\n"
    assert run("help").out == run("--help").out
    assert run("help", "kinit").out == run("kinit", "--help").out
    assert run("help", "spn", "add").out == run("spn", "add", "--help").out
    refused = run("help", "nonsense")
    assert (refused.code, refused.out) == (2, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_of_80_columns(
    name: str, run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    usage, _, rest = run(name, "--help").out.partition("\n\n")
    assert usage.startswith(f"usage: purekrb {name}")
    assert [line for line in rest.splitlines() if len(line) > 80] == []


def test_a_tool_that_freezes_programs_finds_every_command() -> None:
    """It reads the imports in a file, and commands are imported by computed names."""
    named = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(purekrb.cli)))
        if isinstance(node, ast.ImportFrom) and node.module == "purekrb.cli"
        for alias in node.names
    }
    assert named >= {command.replace("-", "_") for command in COMMANDS}


@pytest.mark.parametrize(
    ("argv", "usage"),
    [
        (("kinit", "--nonsense"), "usage: purekrb kinit "),
        (("klist", "-Z"), "usage: purekrb klist "),
        (("kvno", WEB, "--nonsense", "x"), "usage: purekrb kvno "),
        (("spn", "add", "HTTP/a", "-a", "b", "--nonsense"), "usage: purekrb spn add "),
        (
            ("keytab", "from-password", "k", "p", "--kv", "1"),
            "usage: purekrb keytab from-password ",
        ),
        (("setspn",), "usage: purekrb setspn "),
    ],
    ids=" ".join,
)
def test_a_usage_error_shows_the_usage_of_the_command(
    run: Commands, argv: tuple[str, ...], usage: str
) -> None:
    result = run(*argv)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(usage)
    assert result.err.splitlines()[-1].startswith(
        f"{usage.removeprefix('usage: ').rstrip()}: error: "
    )


def test_every_switch_that_is_refused_is_named_with_the_reason(run: Commands) -> None:
    for switch, reason in kvno._REFUSED.items():
        result = run("kvno", switch, "value", "alice")
        assert (result.code, result.out) == (2, "")
        assert f"argument {switch}: not available: {reason}\n" in result.err


def test_the_trace_goes_to_the_file_that_krb5_trace_names(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = run.directory / "trace"
    monkeypatch.setenv("KRB5_TRACE", str(trace))
    for _ in range(2):  # appended
        result = run("kinit", "alice", stdin=PASSWORD)
        assert (result.code, result.err) == (0, "")
    told = trace.read_text()
    assert told.count("AS-REP from EXAMPLE.TEST: ticket for") == 2
    assert all(
        re.match(rf"\[{os.getpid()}\] 20[-\d]+ [:\d]+\.\d{{6}}Z purekrb\.", line)
        for line in told.splitlines()
    )
    assert trace.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in told
    monkeypatch.setenv("KRB5_TRACE", str(run.directory / "no" / "trace"))
    result = run("kinit", "alice", stdin=PASSWORD)
    assert result.code == 0
    assert "purekrb: warning: KRB5_TRACE: " in result.err
    assert "No such file or directory" in result.err


# -- klist


def test_klist_shows_what_mit_shows_in_80_columns(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    import time

    time.tzset()
    long = f"HTTP/{'long-' * 4}name.of.a.web.server.example.test@EXAMPLE.TEST"
    flags = int(TicketFlags.FORWARDABLE | TicketFlags.RENEWABLE | TicketFlags.INITIAL)
    a_cache(
        run,
        a_ticket(flags=flags, renew_till=NOW + timedelta(days=7)),
        a_ticket(long, session_key=EncryptionKey(20, bytes(32))),
        a_ticket(f"{WEB}@EXAMPLE.TEST", endtime=NOW - timedelta(seconds=1)),
    )
    try:
        listed = run("klist").out
        utc = run("klist", "--utc").out
    finally:
        monkeypatch.undo()
        time.tzset()
    india = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    lines = listed.splitlines()
    assert lines[:2] == [
        *(f"Ticket cache: FILE:{run.directory}/ccache", "Default principal: alice@EXAMPLE.TEST")
    ]
    assert lines[3] == "Valid starting       Expires (IST)        Service principal"
    assert lines[4] == (
        f"{india:%Y-%m-%d %H:%M:%S}  {india + timedelta(hours=1):%Y-%m-%d %H:%M:%S}  {TGS}"
    )
    assert lines[5] == (
        f"    renew until {india + timedelta(days=7):%Y-%m-%d %H:%M:%S}, Flags: FRI"
    )
    assert f"    {long}" in lines
    assert re.search(rf">>>Expired<<< +{WEB}", listed)
    assert max(map(len, lines[1:])) <= 80
    assert "Expires (UTC)" in utc
    assert f"{NOW:%Y-%m-%d %H:%M:%S}" in utc


def test_klist_shows_both_encryption_types(run: Commands) -> None:
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    assert run("kvno", "-q", "-e", "aes128-cts", WEB).out == ""
    for listed in (run("klist").out, run("klist", "-e").out, run("klist", "-ef").out):
        assert "    Etype (skey, tkt): aes128-cts-hmac-sha1-96, aes256-cts-hmac-sha1-96\n" in listed
    web = run("klist", "--json").json[0]["tickets"][1]
    assert (web["ticket_etype"], web["kvno"]) == ("aes256-cts-hmac-sha1-96", 1)


def test_every_ticket_flag_has_the_letter_of_mit() -> None:
    assert letters(0xFFFFFFFF) == "FfPpDdiRIHATOa"
    assert letters(int(TicketFlags.ENC_PA_REP)) == ""


def test_klist_takes_a_name_as_mit_does(run: Commands) -> None:
    a_cache(run, a_ticket(), name="other")
    name = f"{run.directory}/other"
    for argv in ((name,), (f"FILE:{name}",), ("-c", name), ("-ce", name), ("-f", name)):
        assert f"Ticket cache: FILE:{name}\n" in run("klist", *argv).out


def test_klist_shows_addresses_authorization_data_and_configuration(run: Commands) -> None:
    addresses = (
        HostAddress(2, bytes([192, 0, 2, 1])),
        HostAddress(24, bytes.fromhex("20010db8") + bytes(11) + b"\1"),
        HostAddress(20, b"HOST"),
    )
    data = (AuthorizationDataEntry(1, b""), AuthorizationDataEntry(-17, b""))
    ccache = a_cache(run, a_ticket(caddr=addresses, authorization_data=data))
    ccache.set_config("pa_type", b"2", Principal.parse(TGS))
    ccache.set_config("start_realm", b"EXAMPLE.TEST")
    ccache.save(run.directory / "ccache")
    listed = run("klist", "-an").out
    assert "    Addresses: 192.0.2.1, 2001:db8::1, type 20 484f5354\n" in listed
    assert "    AD types: 1, -17\n" in run("klist", "-d").out
    assert f"config: pa_type({TGS}) = 2\n" in run("klist", "-C").out
    assert "config: start_realm = EXAMPLE.TEST\n" in run("klist", "-C").out
    assert "AD types" not in listed
    assert "config" not in listed
    (line,) = run("klist", "-C", "--json").json
    assert line["config"] == [
        {"key": "pa_type", "principal": TGS, "value": "2"},
        {"key": "start_realm", "principal": "", "value": "EXAMPLE.TEST"},
    ]
    a_cache(run, a_ticket())
    assert "    Addresses: (none)\n" in run("klist", "-a").out


def test_klist_k_takes_its_letters_together(run: Commands) -> None:
    keytab = Keytab.load(run.directory / "keytab")
    key = next(iter(keytab)).key.contents.hex()
    (run.directory / "keytab").rename(run.directory / "other")
    for argv in (
        ("-ke", "other"),
        ("-kt", "other"),
        ("-kte", "other"),
        ("-k", "-t", "-e", "other"),
    ):
        result = run("klist", *argv)
        assert (result.code, result.err) == (0, "")
        assert result.out.count(WEB) == len(keytab)
        assert "aes256-cts-hmac-sha1-96" in result.out
        assert key not in result.out
        assert bool(re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", result.out)) == (
            "t" in "".join(argv[:-1])
        )
    assert key in run("klist", "-kK", "other").out
    missing = run("klist", "-ke")
    assert missing.code == 1
    assert f"{run.directory}/keytab" in missing.err
    (run.directory / "other").rename(run.directory / "keytab")
    assert run("klist", "-ke").out.count(WEB) == len(keytab)


@pytest.mark.parametrize(
    "argv",
    [
        ("-t",),
        ("-K",),
        ("-n",),
        ("-i",),
        ("-kl",),
        ("-kA",),
        ("-ks",),
        ("-kf",),
        ("-ka",),
        ("-kc",),
    ],
)
def test_klist_refuses_the_combinations_that_mit_refuses(
    run: Commands, argv: tuple[str, ...]
) -> None:
    result = run("klist", *argv)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("usage: purekrb klist")


def test_klist_s_tells_by_its_exit_code_whether_a_tgt_is_valid(run: Commands) -> None:
    def told() -> tuple[int, str, str]:
        result = run("klist", "-s")
        return result.code, result.out, result.err

    assert told() == (1, "", "")
    a_cache(run, a_ticket(endtime=NOW - timedelta(seconds=1)))
    assert told() == (1, "", "")
    a_cache(run, a_ticket(f"{WEB}@EXAMPLE.TEST"))
    assert told() == (1, "", "")
    a_cache(run, a_ticket())
    assert told() == (0, "", "")
    assert run("klist", "-V").out == f"purekrb {purekrb.__version__}\n"


def test_kdestroy_without_a_cache_has_nothing_to_do(run: Commands) -> None:
    a_cache(run, a_ticket())
    assert run("kdestroy", "-q") == type(run("kdestroy"))(0, "", "")
    missing = run("kdestroy")
    assert (missing.code, missing.err) == (0, "")
    assert missing.out == f"there is no credential cache FILE:{run.directory}/ccache\n"
    assert run("kdestroy", "--json").json == [{"destroyed": []}]


# -- collections


@pytest.fixture
def collection(run: Commands, monkeypatch: pytest.MonkeyPatch, realm: Realm) -> Commands:
    """A collection with tickets of alice and bob, who is the primary."""
    monkeypatch.setenv("KRB5CCNAME", f"DIR:{run.directory}/caches")
    for user in ("alice", "bob"):
        assert run("kinit", user, stdin=PASSWORD).code == 0
    return run


def test_klist_l_lists_the_collection_and_A_shows_all_of_it(collection: Commands) -> None:
    listed = collection("klist", "-l").out.splitlines()
    assert listed[0].split("  ")[0] == "Principal name"
    assert [line.split()[0] for line in listed[1:]] == ["bob@EXAMPLE.TEST", "alice@EXAMPLE.TEST"]
    (caches,) = (line["caches"] for line in collection("klist", "-l", "--json").json)
    assert [(c["principal"], c["primary"], c["expired"]) for c in caches] == [
        ("bob@EXAMPLE.TEST", True, False),
        ("alice@EXAMPLE.TEST", False, False),
    ]
    assert all(c["cache"].startswith(f"DIR::{collection.directory}/caches/tkt") for c in caches)
    every = collection("klist", "-A").out
    assert re.findall("Default principal: (.*)@", every) == ["bob", "alice"]
    assert re.findall("Ticket cache: (.*)", every) == [c["cache"] for c in caches]
    assert len(collection("klist", "-A", "--json").json) == 2
    assert re.findall("Default principal: (.*)@", collection("klist").out) == ["bob"]
    expired = CCache("carol@EXAMPLE.TEST", [a_ticket(endtime=NOW - timedelta(seconds=1))])
    expired.save(f"DIR::{collection.directory}/caches/tktcarol")
    assert "tktcarol (Expired)" in collection("klist", "-l").out
    assert collection("kdestroy", "-A").code == 0
    nothing = collection("klist", "-l"), collection("klist", "-A")
    assert [(result.code, result.err) for result in nothing] == [(1, ""), (1, "")]


def test_kswitch_changes_the_primary(collection: Commands) -> None:
    alice = next(
        cache["cache"]
        for cache in collection("klist", "-l", "--json").json[0]["caches"]
        if cache["principal"].startswith("alice")
    )
    assert collection("kswitch", "-p", "alice").code == 0
    assert "Default principal: alice@" in collection("klist").out
    assert collection("kswitch", "-p", "bob@EXAMPLE.TEST").code == 0
    assert "Default principal: bob@" in collection("klist").out
    assert collection("kswitch", "-c", alice).out == f"{alice} is the primary credential cache\n"
    assert "Default principal: alice@" in collection("klist").out


def test_kswitch_has_the_exit_codes_of_mit(collection: Commands) -> None:
    for argv, code in (
        ((), 2),
        (("-p", "alice", "-c", "x"), 2),
        (("-p", "carol"), 1),
        (("-c", f"DIR::{collection.directory}/caches/tktnone"), 1),
        (("-c", f"FILE:{collection.directory}/none"), 0),
    ):
        assert collection("kswitch", *argv).code == code, argv


def test_kdestroy_takes_one_user_or_the_collection(collection: Commands) -> None:
    assert collection("kdestroy", "-p", "carol").code == 1
    assert collection("kdestroy", "-q", "-p", "alice").out == ""
    assert re.findall("(.*)@", collection("klist", "-l").out) == ["bob"]
    assert collection("kinit", "alice", stdin=PASSWORD).code == 0
    (line,) = collection("kdestroy", "-A", "--json").json
    assert len(line["destroyed"]) == 2
    again = collection("kdestroy", "-A")
    assert (again.code, again.err) == (0, "")
    assert collection("kdestroy", "-A", "-p", "alice").code == 2


def test_the_client_keytab_is_used_and_listed(
    run: Commands, monkeypatch: pytest.MonkeyPatch, realm: Realm
) -> None:
    realm.keytab(WEB).save(run.directory / "client")
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{run.directory}/client")
    (run.directory / "keytab").unlink()
    assert f"Keytab name: FILE:{run.directory}/client\n" in run("klist", "-ki").out
    assert run("kinit", "-k", WEB).code == 7
    for argv in (("-ki",), ("-i",)):
        assert run("kinit", *argv, WEB).out.startswith(f"{WEB}@EXAMPLE.TEST: ticket until")


# -- kinit


def tgt(run: Commands) -> ServiceTicket:
    return next(iter(CCache.load(run.directory / "ccache")))


def test_kinit_asks_for_the_kind_of_ticket_that_its_switches_say(run: Commands) -> None:
    conf = run.directory / "krb5.conf"
    conf.write_text(conf.read_text().replace("[libdefaults]", "[libdefaults]\nforwardable = true"))
    for argv, flags in (
        ((), "F"),
        (("-F",), ""),
        (("-p",), "FP"),
        (("-FpP",), None),
        (("-f", "-P", "-A"), "F"),
    ):
        result = run("kinit", *argv, "alice", stdin=PASSWORD)
        if flags is None:
            assert result.code == 2
            continue
        assert result.code == 0
        assert re.sub("[^FP]", "", letters(tgt(run).flags)) == flags


def test_kinit_a_binds_the_ticket_to_this_machine(run: Commands) -> None:
    from purekrb.kdc.addresses import local_addresses

    result = run("kinit", "-a", "alice", stdin=PASSWORD)
    assert result.code == 0
    assert tgt(run).caddr == local_addresses()
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    assert tgt(run).caddr == ()
    conf = run.directory / "krb5.conf"
    conf.write_text(conf.read_text().replace("[libdefaults]", "[libdefaults]\nnoaddresses = false"))
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    assert tgt(run).caddr == local_addresses()
    assert run("kinit", "-A", "alice", stdin=PASSWORD).code == 0
    assert tgt(run).caddr == ()


def test_kinit_S_gets_a_ticket_for_a_service(run: Commands) -> None:
    result = run("kinit", "-S", WEB, "alice", stdin=PASSWORD)
    assert result.out.startswith(f"alice@EXAMPLE.TEST: ticket for {WEB}@EXAMPLE.TEST until ")
    assert str(tgt(run).service) == f"{WEB}@EXAMPLE.TEST"


def test_kinit_V_says_what_it_does(run: Commands) -> None:
    lines = run("kinit", "-V", "alice", stdin=PASSWORD).out.splitlines()
    assert lines[:4] == [
        f"Using cache: FILE:{run.directory}/ccache",
        "Using principal: alice@EXAMPLE.TEST",
        "Authenticated to Kerberos v5",
        f"Stored in FILE:{run.directory}/ccache",
    ]


def test_kinit_takes_the_password_from_a_file_that_nobody_else_can_read(run: Commands) -> None:
    file = run.directory / "password"
    file.write_text(f"{PASSWORD}\nmore\n")
    file.chmod(0o600)
    assert run("kinit", "--password-file", str(file), "alice").code == 0
    assert run("kinit", "--password-file", "-", "alice", stdin=f"{PASSWORD}\nmore\n").code == 0
    file.chmod(0o644)
    open_to_all = run("kinit", "--password-file", str(file), "alice")
    assert open_to_all.code == 7
    assert "password file" in open_to_all.err
    file.write_text("\n")
    file.chmod(0o600)
    assert (
        "first line of the password file is empty"
        in run("kinit", "--password-file", str(file), "alice").err
    )


def test_a_start_time_is_a_duration_or_a_local_time() -> None:
    now = datetime.now(timezone.utc)
    for text, seconds in (("2h", 7200), ("90", 90), ("1:30", 5400)):
        assert abs(kinit._start(text) - now - timedelta(seconds=seconds)) < timedelta(seconds=5)
    then = datetime(2026, 12, 24, 18, 0, 0).astimezone(timezone.utc)
    for text in ("20261224180000", "261224180000", "2612241800", "2026-12-24T18:00"):
        assert kinit._start(text) == then
    for text in ("soon", "202612241800001", "2026-13-01"):
        with pytest.raises(options.argparse.ArgumentTypeError):
            kinit._start(text)


def test_validating_needs_a_postdated_ticket(run: Commands) -> None:
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    result = run("kinit", "-v")
    assert result.code == 7
    assert "no postdated TGT of alice@EXAMPLE.TEST to validate" in result.err


# -- kvno


def test_kvno_takes_the_host_based_form_of_a_name(run: Commands) -> None:
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    assert run("kvno", "HTTP@web.example.test").out.startswith(f"{WEB}@EXAMPLE.TEST: kvno = 1 ")


def test_kvno_takes_the_name_of_an_account(run: Commands) -> None:
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    for name in ("bob", "bob@EXAMPLE.TEST"):
        assert run("kvno", name).out.startswith("bob@EXAMPLE.TEST: kvno = ")
    unknown = run("kvno", "carol@EXAMPLE.TEST")
    assert unknown.code == 6
    assert "-> carol@EXAMPLE.TEST" in unknown.err


def test_kvno_S_takes_hosts_and_u_names_of_an_unknown_type(run: Commands) -> None:
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    assert run("kvno", "-S", "HTTP", "web.example.test").out.startswith(f"{WEB}@EXAMPLE.TEST: kvno")
    assert run("kvno", "-u", WEB).out.startswith(f"{WEB}@EXAMPLE.TEST: kvno")
    args = command_line(["kvno"]).parse_args(["kvno", "-u", WEB])
    target = kvno._target(args, WEB, Config(default_realm="EXAMPLE.TEST"))
    assert isinstance(target, Principal)
    assert target.name_type == NameType.UNKNOWN
    assert run("kvno", "-S", "HTTP", "-u", "web").code == 2


def test_kvno_stores_tickets_where_it_is_told(run: Commands) -> None:
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    assert run("kvno", "--no-store", WEB).code == 0
    assert WEB not in run("klist").out
    assert run("kvno", "--out-cache", "new", WEB).code == 0
    assert WEB not in run("klist").out
    assert WEB in run("klist", "new").out


# -- setspn


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("-S", "A/b", "acc"), ("add", {"spn": ["A/b"], "account": "acc"})),
        (("-s", "A/b", "acc"), ("add", {"spn": ["A/b"], "account": "acc"})),
        (("-A", "A/b", "acc"), ("add", {"spn": ["A/b"], "account": "acc"})),
        (("-D", "A/b", "acc"), ("delete", {"spn": ["A/b"], "account": "acc"})),
        (("-R", "web"), ("reset", {"host": "web$"})),
        (("-R", "web.b.test"), ("reset", {"host": "web.b.test"})),
        (("-L", "acc"), ("list", {"account": "acc", "suffixes": ("$", "")})),
        (("acc",), ("list", {"account": "acc"})),
        (("-U", "-L", "acc"), ("list", {"account": "acc", "suffixes": ("",)})),
        (("-C", "acc"), ("list", {"account": "acc", "suffixes": ("$",)})),
        (("-T", "b.test", "-F", "-Q", "A/*"), ("query", {"pattern": "A/*", "domain": "b.test"})),
        (("-x", "-p"), ("duplicates", {"domain": ""})),
    ],
    ids=str,
)
def test_setspn_takes_the_letters_of_windows(
    run: Commands,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    expected: tuple[str, dict[str, object]],
) -> None:
    """What `purekrb spn` is asked to do; tests/interop tries it on a domain controller."""
    asked = []
    monkeypatch.setattr("purekrb.cli.spn.run", lambda args, output: asked.append(args) or 0)
    assert run("setspn", *argv).code == 0
    action, values = expected
    assert asked[0].action == action
    assert {name: getattr(asked[0], name) for name in values} == values


@pytest.mark.parametrize(
    "argv", [(), ("-S", "A/b"), ("-X", "acc"), ("-S", "A/b", "c", "-X")], ids=str
)
def test_setspn_refuses_what_does_not_go_together(run: Commands, argv: tuple[str, ...]) -> None:
    result = run("setspn", *argv)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("usage: purekrb setspn")


@pytest.mark.parametrize(
    "attribute",
    [
        "X509_user_identity",
        "X509_user_identity=",
        "flag_RSA_PROTOCOL=yes",
        "disable_freshness=x",
        "",
    ],
)
def test_kinit_knows_the_attributes_of_certificates_alone(run: Commands, attribute: str) -> None:
    result = run("kinit", "-X", attribute, "alice")
    assert (result.code, result.out) == (2, "")
    assert "is no attribute: write X509_user_identity=..., X509_anchors=..." in result.err


def test_kinit_says_why_a_certificate_cannot_be_used(run: Commands) -> None:
    result = run("kinit", "-X", "X509_user_identity=FILE:missing.pem", "alice", stdin=PASSWORD)
    assert (result.code, result.out) == (7, "")
    assert "missing.pem: there is no such file or directory" in result.err
