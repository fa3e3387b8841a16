"""ldap3's own GSSAPI mechanism, which imports gssapi, on purekrb: logs in to OpenLDAP and to Samba."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb import Credential, KdcClient
from support.mit import MitRealm
from support.pages import run_on_purekrb
from support.samba import SambaDc
from support.slapd import Slapd

PROGRAM = """
import sys
import ldap3

server = ldap3.Server(sys.argv[1], connect_timeout=10)
connection = ldap3.Connection(
    server, authentication=ldap3.SASL, sasl_mechanism="GSSAPI", sasl_credentials=(sys.argv[2],)
)
connection.bind()
print(connection.result["description"], connection.extend.standard.who_am_i())
"""


@pytest.fixture(scope="module")
def slapd(mit_realm: MitRealm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    server = Slapd(mit_realm, tmp_path_factory.mktemp("slapd"))
    yield server
    server.stop()


def test_ldap3_logs_in_to_openldap(mit_realm: MitRealm, slapd: Slapd, tmp_path: Path) -> None:
    env = {**mit_realm.env, "KRB5CCNAME": str(mit_realm.kinit("user"))}
    assert run_on_purekrb(PROGRAM, tmp_path, slapd.url, "localhost", env=env) == (
        "success dn:cn=user,dc=mit,dc=test\n"
    )


@pytest.fixture(scope="module")
def lenient_dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaDc]:
    """A domain controller of our own, which takes SASL without a layer inside of TLS: ldap3 2.9 has no layers."""
    dc = SambaDc.provision(tmp_path_factory.mktemp("lenient") / "dc")
    conf = dc.directory / "smb.conf"
    old, new = "require strong auth = yes", "require strong auth = allow_sasl_over_tls"
    assert old in conf.read_text()
    conf.write_text(conf.read_text().replace(old, new))
    dc.start()
    yield dc
    dc.stop()


def administrator_of(dc: SambaDc, directory: Path) -> dict[str, str]:
    administrator = Credential.from_password(f"{dc.administrator}@{dc.realm}", dc.password)
    KdcClient(dc.config).get_tgt(administrator)
    administrator.save(directory / "ccache")
    return {**dc.env, "KRB5CCNAME": f"FILE:{directory / 'ccache'}"}


def test_ldap3_logs_in_to_samba_inside_of_tls(lenient_dc: SambaDc, tmp_path: Path) -> None:
    env = administrator_of(lenient_dc, tmp_path)
    program = PROGRAM
    for old, new in (
        ("connect_timeout=10", "connect_timeout=10, tls=ldap3.Tls(validate=0)"),
        ("connection.extend.standard.who_am_i()", "connection.search(sys.argv[3], '(cn=Guests)')"),
    ):
        assert old in program
        program = program.replace(old, new)
    arguments = [f"ldaps://{lenient_dc.address}", lenient_dc.host, lenient_dc.base]
    # The search needs a login: to anybody else, Samba shows nothing.
    assert run_on_purekrb(program, tmp_path, *arguments, env=env) == "success True\n"
