"""Keytabs and ccaches exchanged with MIT's programs: what they write is read, what is written they use."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, DecodeError
from purekrb.names import Principal
from support.gss_peer import GssPeer
from support.mit import ETYPES, SERVICES, MitRealm
from support.peers import find_program, run
from support.processes import Child, soak
from support.values import replace

USER = Principal.parse("user@MIT.TEST")
PRE = Principal.parse("pre@MIT.TEST")
TGS = Principal.parse("krbtgt/MIT.TEST@MIT.TEST")
GSVC = Principal.parse("gsvc/localhost@MIT.TEST")


def same_listing(mit_realm: MitRealm, one: Path, other: Path, *options: str) -> bool:
    """Return whether MIT's klist tells the same about two files."""
    first, second = (
        mit_realm.klist(path, *options).replace(str(path), "<path>") for path in (one, other)
    )
    return first == second and len(first.splitlines()) > 3


def listed_keys(mit_realm: MitRealm, path: Path) -> list[tuple[int, str, str, str]]:
    """Return kvno, principal, encryption type and key (hex) of each entry, as klist prints them."""
    listing = mit_realm.klist(path, "-k", "-e", "-K").replace("DEPRECATED:", "")
    rows = re.findall(r"^ *(\d+) (\S+) \((\S+)\) +\(0x([0-9a-f]+)\)", listing, re.M)
    return [(int(kvno), principal, etype, contents) for kvno, principal, etype, contents in rows]


def keys_of(keytab: Keytab) -> list[tuple[int, str, str, str]]:
    """Return the entries of `keytab` as `listed_keys` does."""
    return [(e.kvno, str(e.principal), ETYPES[e.key.etype], e.key.contents.hex()) for e in keytab]


# -- keytabs


def test_a_keytab_written_by_kadmin_is_read_with_every_key(mit_realm: MitRealm) -> None:
    keytab = Keytab.load(mit_realm.service_keytab)
    assert keys_of(keytab) == listed_keys(mit_realm, mit_realm.service_keytab)
    assert {entry.key.etype for entry in keytab} == set(ETYPES)
    for service in SERVICES:
        assert len(keytab.find(f"{service}@MIT.TEST")) == len(ETYPES)


def test_a_keytab_written_here_is_listed_by_klist_as_the_original(mit_realm: MitRealm) -> None:
    path = mit_realm.path("keytab")
    Keytab.load(mit_realm.service_keytab).save(path)
    assert same_listing(mit_realm, mit_realm.service_keytab, path, "-k", "-e", "-K", "-t")


def test_a_large_kvno_is_understood_both_ways(mit_realm: MitRealm) -> None:
    (entry, *_) = Keytab.load(mit_realm.service_keytab)
    path = mit_realm.path("keytab")
    Keytab([KeytabEntry(entry.principal, 70_000, entry.key, entry.timestamp)]).save(path)
    assert listed_keys(mit_realm, path)[0][0] == 70_000
    mit_realm.kadmin("addprinc -randkey many/localhost", f"ktadd -k {path} many/localhost")
    assert [e.kvno for e in Keytab.load(path).find("many/localhost@MIT.TEST")] == [2] * len(ETYPES)


def ktutil(mit_realm: MitRealm, *commands: str) -> str:
    program = find_program("ktutil", "krb5-user")
    return run([program], env=mit_realm.env, text="".join(f"{command}\n" for command in commands))


def test_ktutil_and_from_password_make_the_same_keys(mit_realm: MitRealm) -> None:
    path = mit_realm.path("keytab")
    ktutil(
        mit_realm,
        *(
            line
            for name in ETYPES.values()
            for line in (f"addent -password -p HTTP/web.mit.test@MIT.TEST -k 5 -e {name}", "s3cret")
        ),
        f"wkt {path}",
    )
    ours = Keytab.from_password("HTTP/web.mit.test@MIT.TEST", "s3cret", kvno=5, etypes=ETYPES)
    assert keys_of(Keytab.load(path)) == keys_of(ours)


def test_an_entry_deleted_by_kadmin_leaves_a_hole_that_is_passed_over_and_used_again(
    mit_realm: MitRealm,
) -> None:
    path = mit_realm.keytab("gsvc/localhost", "host/localhost")
    whole = Keytab.load(path)
    mit_realm.kadmin(f"ktremove -k {path} gsvc/localhost all")
    assert (
        int.from_bytes(path.read_bytes()[2:6], "big", signed=True) < 0
    )  # the file begins with a hole
    assert keys_of(Keytab.load(path)) == keys_of(whole.remove(GSVC))
    mit_realm.kadmin(
        "addprinc -randkey a/b", f"ktadd -norandkey -k {path} a/b"
    )  # shorter names: padding remains
    assert keys_of(Keytab.load(path)) == listed_keys(mit_realm, path)
    assert len(Keytab.load(path).find("a/b@MIT.TEST")) == len(ETYPES)


def test_ktutil_reads_and_appends_to_a_keytab_written_here(mit_realm: MitRealm) -> None:
    path = mit_realm.path("keytab")
    ours = Keytab.from_password("one/x@MIT.TEST", "pw", etypes=(18,))
    ours.save(path)
    ktutil(
        mit_realm,
        "addent -password -p two/x@MIT.TEST -k 1 -e aes128-cts-hmac-sha1-96",
        "pw",
        f"wkt {path}",
    )
    theirs = Keytab.from_password("two/x@MIT.TEST", "pw", etypes=(17,))
    assert keys_of(Keytab.load(path)) == keys_of(ours.merge(theirs))


def test_kinit_gets_tickets_with_a_keytab_made_from_the_password(mit_realm: MitRealm) -> None:
    path = mit_realm.path("keytab")
    Keytab.from_password(USER, mit_realm.passwords["user"], etypes=(18, 17, 20, 19)).save(path)
    ccache = mit_realm.kinit("user", keytab=path, services=["gsvc/localhost"])
    assert CCache.load(ccache).find(GSVC) is not None


def test_the_acceptor_of_mit_takes_a_keytab_written_here(
    mit_realm: MitRealm, mit_gss: GssPeer
) -> None:
    path = mit_realm.path("keytab")
    Keytab.load(mit_realm.service_keytab).save(path)
    initiator = mit_gss.initiate("gsvc@localhost", mit_realm.kinit("user"))
    acceptor = mit_gss.accept(path)
    initiator.step(acceptor.step(initiator.step()))
    assert (initiator.established, acceptor.established) == (True, True)


# -- ccaches


@pytest.fixture(scope="module")
def written_by_mit(mit_realm: MitRealm) -> Path:
    """A ccache with a TGT, a cross-realm TGT, three service tickets and configuration entries."""
    services = ["gsvc/localhost", "host/localhost", "host/srv.sub.test@SUB.TEST"]
    return mit_realm.kinit("pre", options=["-r", "2d", "-f"], services=services)


def test_a_ccache_written_by_kinit_and_kvno_is_read(
    mit_realm: MitRealm, written_by_mit: Path
) -> None:
    ccache = CCache.load(written_by_mit)
    assert ccache.principal == PRE
    assert {str(ticket.service) for ticket in ccache} == {
        "krbtgt/MIT.TEST@MIT.TEST",
        "krbtgt/SUB.TEST@MIT.TEST",
        "gsvc/localhost@MIT.TEST",
        "host/localhost@MIT.TEST",
        "host/srv.sub.test@SUB.TEST",
    }
    assert {ticket.client for ticket in ccache} == {PRE}
    tgt = ccache.find(TGS)
    assert tgt is not None
    assert tgt.is_tgt
    assert tgt.starttime is not None
    assert tgt.renew_till is not None
    assert tgt.authtime <= tgt.starttime < tgt.endtime < tgt.renew_till
    pa_type = ccache.get_config("pa_type", TGS)
    assert pa_type is not None
    assert f"config: pa_type(krbtgt/MIT.TEST@MIT.TEST) = {pa_type.decode()}\n" in mit_realm.klist(
        written_by_mit, "-C"
    )
    credential = Credential.from_ccache(written_by_mit)
    assert (credential.principal, credential.can_get_tgt) == (PRE, False)


def test_a_ccache_written_here_is_listed_by_klist_as_the_original(
    mit_realm: MitRealm, written_by_mit: Path
) -> None:
    path = mit_realm.path("ccache")
    CCache.load(written_by_mit).save(path)
    listing = mit_realm.klist(path, "-e", "-f", "-a")
    assert listing.count("Etype (skey, tkt)") == 5
    for option in ("-C", "-e", "-f"):
        assert sorted(mit_realm.klist(path, option).replace(str(path), "").splitlines()) == sorted(
            mit_realm.klist(written_by_mit, option).replace(str(written_by_mit), "").splitlines()
        )


def test_kvno_gets_a_ticket_with_a_tgt_from_a_ccache_written_here(mit_realm: MitRealm) -> None:
    path = mit_realm.path("ccache")
    CCache.load(mit_realm.kinit("user")).save(f"FILE:{path}")
    mit_realm.kvno(path, "gsvc/localhost")
    ccache = CCache.load(path)
    assert {ticket.service for ticket in ccache} == {TGS, GSVC}
    assert ccache.find(GSVC) is not None


def test_kvno_finds_a_service_ticket_stored_here_without_asking_the_kdc(
    mit_realm: MitRealm, written_by_mit: Path
) -> None:
    found = CCache.load(written_by_mit).find(GSVC)
    assert found is not None
    path = mit_realm.path("ccache")
    CCache(PRE, [found]).save(path)  # no TGT: the ticket itself must serve
    assert "gsvc/localhost@MIT.TEST: kvno = " in mit_realm.kvno(path, "gsvc/localhost")
    with pytest.raises(RuntimeError):
        mit_realm.kvno(path, "HTTP/localhost")


def test_python_gssapi_uses_a_ccache_written_here(
    mit_realm: MitRealm, mit_gss: GssPeer, written_by_mit: Path
) -> None:
    path = mit_realm.path("ccache")
    CCache.load(written_by_mit).save(path)
    initiator = mit_gss.initiate("gsvc@localhost", path)
    acceptor = mit_gss.accept(mit_realm.service_keytab)
    initiator.step(acceptor.step(initiator.step()))
    assert (initiator.established, acceptor.established) == (True, True)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_every_version_that_mit_writes_is_read(mit_realm: MitRealm, version: int) -> None:
    config = mit_realm.path("krb5.conf")
    settings = mit_realm.krb5_conf.read_text()
    config.write_text(
        settings.replace("[libdefaults]\n", f"[libdefaults]\n ccache_type = {version}\n")
    )
    path = mit_realm.path("ccache")
    env = {**mit_realm.env, "KRB5_CONFIG": str(config)}
    kinit = find_program("kinit", "krb5-user")
    run([kinit, "-c", f"FILE:{path}", "user"], env=env, text=f"{mit_realm.passwords['user']}\n")
    assert path.read_bytes()[:2] == bytes([5, version])
    run([find_program("kvno", "krb5-user"), "-c", f"FILE:{path}", "gsvc/localhost"], env=env)
    ccache = CCache.load(path)
    assert {ticket.service for ticket in ccache} == {TGS, GSVC}
    saved = mit_realm.path("ccache")
    ccache.save(saved)
    mit_realm.kvno(saved, "host/localhost")
    assert len(CCache.load(saved)) == 3


def test_a_user_to_user_ticket_is_read_and_not_taken_for_an_ordinary_one(
    mit_realm: MitRealm,
) -> None:
    path = mit_realm.kinit("pre")
    own_tgt = mit_realm.kinit("user")
    mit_realm.kvno(path, "user@MIT.TEST", options=["--u2u", f"FILE:{own_tgt}"])
    ccache = CCache.load(path)
    (special,) = (ticket for ticket in ccache if ticket.is_skey)
    tgt = CCache.load(own_tgt).find(TGS)
    assert tgt is not None
    assert special.second_ticket == tgt.ticket
    assert ccache.find(special.service) is None


def test_a_directory_collection_written_by_kinit_is_read(mit_realm: MitRealm) -> None:
    directory = mit_realm.path("collection")
    directory.mkdir(0o700)
    kinit = find_program("kinit", "krb5-user")
    for name in ("user", "pre"):
        argv = [kinit, "-c", f"DIR:{directory}", name]
        run(argv, env=mit_realm.env, text=f"{mit_realm.passwords[name]}\n")
        assert CCache.load(f"DIR:{directory}").principal == Principal.parse(f"{name}@MIT.TEST")


def test_a_ccache_destroyed_here_is_gone_for_mit(mit_realm: MitRealm) -> None:
    path = mit_realm.kinit("user")
    CCache.destroy(f"FILE:{path}")
    with pytest.raises(RuntimeError, match="No credentials cache found"):
        mit_realm.klist(path)


# -- at the same time


@contextmanager
def meanwhile(job: Callable[[int], object]) -> Iterator[None]:
    """Do the job over and over in another process, with a growing number."""

    def work(_: int) -> None:
        number = 0
        while True:
            job(number)
            number += 1

    child = Child(work)
    try:
        yield
    finally:
        child.kill()
        said = child.output()
        assert said == b""


def kinit_over(mit_realm: MitRealm, keytab: Path, path: Path, user: str) -> None:
    run(
        [find_program("kinit", "krb5-user"), "-c", f"FILE:{path}", "-k", "-t", str(keytab), user],
        env=mit_realm.env,
    )


@pytest.fixture(scope="module")
def users(mit_realm: MitRealm) -> Path:
    return mit_realm.keytab("user", "pre")


@pytest.fixture(scope="module")
def any_ticket(mit_realm: MitRealm) -> ServiceTicket:
    (tgt,) = CCache.load(mit_realm.kinit("user"))
    return tgt


def merge(path: Path, model: ServiceTicket, number: int) -> None:
    """Do as kvno does, with whatever is there."""
    with suppress(
        CredentialError, DecodeError
    ):  # kinit is at work, or has put another user's there
        ccache = CCache.load(path)
        ccache.store(
            replace(
                model,
                client=ccache.principal,
                service=Principal.parse(f"svc/{number % 50}@MIT.TEST"),
            )
        )
        ccache.merge_into(path)


def test_k409_kinit_beside_merges_leaves_its_tgt_and_its_user(
    mit_realm: MitRealm, users: Path, any_ticket: ServiceTicket
) -> None:
    path = mit_realm.path("ccache")
    merged = 0
    with meanwhile(lambda number: merge(path, any_ticket, number)):
        for number in range(soak(40, 600)):
            user = ("user", "user", "pre")[
                number % 3
            ]  # 400 times of 600 over one's own or another's
            start = int(time.time())
            kinit_over(mit_realm, users, path, user)
            time.sleep(random.uniform(0, 0.005))
            ccache = CCache.load(path)
            assert ccache.principal == Principal.parse(f"{user}@MIT.TEST")
            assert {ticket.client for ticket in ccache} == {ccache.principal}
            tgts = [ticket for ticket in ccache if ticket.is_tgt]
            assert [tgt.authtime.timestamp() >= start for tgt in tgts] == [True]
            merged += len(ccache) > 1
    assert merged  # it was a race
    mit_realm.klist(path)


def test_k409_kvno_beside_merges_loses_no_ticket_and_neither_do_they(
    mit_realm: MitRealm, users: Path, any_ticket: ServiceTicket
) -> None:
    services = [*SERVICES, *(f"svc-{etype}/localhost" for etype in ETYPES)]
    for _ in range(soak(4, 100)):
        path = mit_realm.path("ccache")
        kinit_over(mit_realm, users, path, "user")

        def work(_: int, path: Path = path) -> None:
            for number in range(30):
                merge(path, any_ticket, number)
                time.sleep(0.0005)

        child = Child(work)
        mit_realm.kvno(path, *services)
        child.output()
        assert child.ended_well
        expected = {*services, *(f"svc/{number}" for number in range(30)), "krbtgt/MIT.TEST"}
        assert {"/".join(ticket.service.components) for ticket in CCache.load(path)} == expected
        assert set(re.findall(r"\d  (\S+)@MIT\.TEST$", mit_realm.klist(path), re.M)) == expected


def test_k409_kvno_beside_saves_leaves_the_new_tgt_and_the_new_user(
    mit_realm: MitRealm, users: Path
) -> None:
    path = mit_realm.path("ccache")
    both = [CCache.load(mit_realm.kinit(user)) for user in ("user", "pre")]
    both[0].save(path)
    kvno = find_program("kvno", "krb5-user")
    for number in range(soak(20, 400)):
        ccache = both[number % 2]

        def work(_: int, ccache: CCache = ccache) -> None:
            time.sleep(random.uniform(0, 0.02))
            ccache.save(path)

        child = Child(work)
        with suppress(RuntimeError):  # where it has asked for the one and finds the other's there
            run([kvno, "-c", f"FILE:{path}", *SERVICES], env=mit_realm.env)
        child.output()
        found = CCache.load(path)
        assert found.principal == ccache.principal
        assert [
            ticket.ticket for ticket in found if ticket.is_tgt and ticket.client == found.principal
        ] == [ticket.ticket for ticket in ccache]


def test_what_a_merge_marked_as_replaced_mit_passes_over(mit_realm: MitRealm) -> None:
    path = mit_realm.kinit("pre", services=["gsvc/localhost", "host/localhost"])
    ccache = CCache.load(path)
    found = ccache.find(GSVC)
    assert found is not None
    assert mit_realm.klist(path).count("gsvc/localhost") == 1
    ccache.store(
        replace(found, endtime=found.endtime.replace(microsecond=0), ticket=found.ticket + b"new")
    )
    ccache.set_config("pa_type", b"99", TGS)
    ccache.merge_into(path)
    assert path.read_bytes().count(b"gsvc") > 2
    assert mit_realm.klist(path).count("gsvc/localhost") == 1
    assert [line for line in mit_realm.klist(path, "-C").splitlines() if "pa_type" in line] == [
        "config: pa_type(krbtgt/MIT.TEST@MIT.TEST) = 99"
    ]
    mit_realm.kvno(path, "host/localhost", "HTTP/localhost")
    assert len(CCache.load(path)) == 4
