"""Searches of a real directory, Samba's: by purekrb, by ldap3 alone over LDAPS, by OpenLDAP's ldapsearch: `rows`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.goals import LDAPS, LDAPSEARCH, OURS
from bench.lab import Lab
from bench.timing import Contender, Row, measure, repeat
from bench.worker import ROOT
from purekrb import Credential
from purekrb.directory import Directory
from purekrb.directory.ldap import LdapSession, ldap3

__all__ = ["rows"]

ENTRIES = 1000
ATTRIBUTES = ["cn", "distinguishedName", "objectGUID", "objectClass", "whenCreated", "description"]


def rows(lab: Lab, rounds: int) -> Iterator[Row]:
    """Yield what 1,000 entries cost on an open connection, and with the connection and the bind."""
    sys.path.append(str(ROOT / "tests"))
    from support.samba import SambaDc

    with tempfile.TemporaryDirectory(prefix="purekrb-bench-") as name, ExitStack() as stack:
        dc = SambaDc.provision(Path(name) / "dc")
        base = f"CN=bench,{dc.base}"
        ldif = [f"dn: {base}\nchangetype: add\nobjectClass: container\n"]
        ldif += [
            f"dn: CN=c{n},{base}\nchangetype: add\nobjectClass: contact\ndescription: {n:0100}\n"
            for n in range(ENTRIES)
        ]
        dc.modify("\n".join(ldif))
        dc.start()
        stack.callback(dc.stop)
        admin = Credential.from_password(f"{dc.administrator}@{dc.realm}", dc.password)

        def open_ours(sealed: bool = True) -> Directory:
            url, target = f"ldap://{dc.address}", f"ldap/{dc.host}"
            return Directory.connect(url, admin, dc.config, target, sealed=sealed)

        def search(session: LdapSession) -> None:
            found = session.search(base, "(objectClass=contact)", ATTRIBUTES)
            check(len(found))

        def ours_anew() -> None:
            with open_ours() as directory:
                search(directory._sessions.main)

        def open_ldaps() -> ldap3.Connection:
            server = ldap3.Server(dc.address, use_ssl=True, get_info=ldap3.NONE)
            return ldap3.Connection(
                server, f"{dc.administrator}@{dc.dns_domain}", dc.password, auto_bind=True
            )

        def ldaps(connection: ldap3.Connection) -> None:
            paged = connection.extend.standard.paged_search
            check(
                len(
                    paged(
                        base,
                        "(objectClass=contact)",
                        attributes=ATTRIBUTES,
                        paged_size=1000,
                        generator=False,
                    )
                )
            )

        def ldaps_anew() -> None:
            connection = open_ldaps()
            ldaps(connection)
            connection.unbind()

        sealed, signed, tls = open_ours(), open_ours(sealed=False), open_ldaps()
        for opened in (sealed, signed):
            stack.callback(opened.close)
        stack.callback(tls.unbind)
        contenders = [
            Contender(OURS, repeat(search, sealed._sessions.main)),
            Contender("purekrb, signed only", repeat(search, signed._sessions.main)),
            Contender(LDAPS, repeat(ldaps, tls)),
        ]
        yield measure(Row("directory", "search of 1,000 entries, sealed"), contenders, 3, rounds)
        ccache = f"{name}/ccache"
        open_ours().close()  # so that the ticket is there, for everybody
        admin.save(ccache)
        contenders = [
            Contender(OURS, repeat(ours_anew)),
            Contender(LDAPS, repeat(ldaps_anew)),
            Contender(
                LDAPSEARCH, repeat(_ldapsearch(dc.env | {"KRB5CCNAME": ccache}, dc.host, base))
            ),
        ]
        yield measure(
            Row("directory", "connect, bind and search of 1,000 entries"), contenders, 3, rounds
        )


def check(found: int) -> None:
    """Raise if that is not all."""
    if found != ENTRIES:
        raise RuntimeError(f"{found} entries were found, not {ENTRIES}")


def _ldapsearch(env: dict[str, str], host: str, base: str) -> Callable[[], None]:
    argv = [
        "ldapsearch",
        "-LLL",
        "-Q",
        "-Y",
        "GSSAPI",
        "-H",
        f"ldap://{host}",
        "-b",
        base,
        "-E",
        "pr=1000/noprompt",
    ]
    argv += ["(objectClass=contact)", *ATTRIBUTES]

    def search() -> None:
        done = subprocess.run(argv, env=env, capture_output=True, check=True)
        check(done.stdout.count(b"\ndn: ") + done.stdout.startswith(b"dn: "))

    return search
