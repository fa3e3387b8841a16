"""The Samba lab itself: what the other tests with Active Directory take for granted."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import dns.resolver
import pytest

from support.peers import find_program, run
from support.samba import SambaDc, shared_dc


def kinit(dc: SambaDc, principal: str, *services: str) -> Path:
    """Return a ccache made by MIT's programs."""
    ccache = dc.path("ccache")
    run(
        [find_program("kinit", "krb5-user"), "-c", str(ccache), principal],
        env=dc.env,
        text=f"{dc.password}\n",
    )
    if services:
        run([find_program("kvno", "krb5-user"), "-c", str(ccache), *services], env=dc.env)
    return ccache


def ldapsearch(dc: SambaDc, *options: str, ccache: Path | None = None) -> str:
    argv = [
        find_program("ldapsearch", "ldap-utils"),
        "-LLL",
        *options,
        "-s",
        "base",
        "-b",
        dc.base,
        "name",
    ]
    return run(argv, env={**dc.env, "KRB5CCNAME": str(ccache)})


def test_users_get_tickets_for_services_of_accounts_and_keytabs_open_them(
    samba_dc: SambaDc,
) -> None:
    samba_dc.add_user("lab-alice")
    samba_dc.add_computer(
        "LABWEB", servicePrincipalName=["HTTP/labweb.ad.test", "lab/labweb.ad.test:2000"]
    )
    ccache = kinit(samba_dc, "lab-alice", "HTTP/labweb.ad.test", "lab/labweb.ad.test:2000")
    listing = run([find_program("klist", "krb5-user"), "-e", str(ccache)], env=samba_dc.env)
    assert listing.count("aes256-cts-hmac-sha1-96, aes256-cts-hmac-sha1-96") == 3
    keytab = samba_dc.keytab("HTTP/labweb.ad.test")
    assert "keytab entry valid" in run(
        [
            find_program("kvno", "krb5-user"),
            "-c",
            str(ccache),
            "-k",
            str(keytab),
            "HTTP/labweb.ad.test",
        ],
        env=samba_dc.env,
    )


def test_changed_passwords_change_keys_and_their_version(samba_dc: SambaDc) -> None:
    dn = samba_dc.add_user("lab-changing")
    kinit(samba_dc, "lab-changing")
    [before] = samba_dc.search("(cn=lab-changing)", "msDS-KeyVersionNumber")
    samba_dc.set_password(dn, "Another.pw1")
    [after] = samba_dc.search("(cn=lab-changing)", "msDS-KeyVersionNumber")
    assert after["msDS-KeyVersionNumber"] == [str(int(before["msDS-KeyVersionNumber"][0]) + 1)]
    with pytest.raises(RuntimeError, match="Password incorrect"):
        kinit(samba_dc, "lab-changing")


def test_ldap_wants_integrity_or_tls(samba_dc: SambaDc) -> None:
    plain, tls = f"ldap://{samba_dc.host}", f"ldaps://{samba_dc.host}"
    simple = ["-x", "-D", f"administrator@{samba_dc.dns_domain}", "-w", samba_dc.password]
    ccache = kinit(samba_dc, samba_dc.administrator)
    for refused in ([*simple, "-H", plain], ["-Q", "-Y", "GSSAPI", "-O", "maxssf=0", "-H", plain]):
        with pytest.raises(RuntimeError, match=r"Strong\(er\) authentication required \(8\)"):
            ldapsearch(samba_dc, *refused, ccache=ccache)
    for accepted in (
        [*simple, "-H", tls],
        [*simple, "-ZZ", "-H", plain],
        ["-Q", "-Y", "GSSAPI", "-O", "minssf=56", "-H", plain],
        ["-Q", "-Y", "GSS-SPNEGO", "-O", "minssf=56", "-H", plain],
    ):
        assert "name: ad" in ldapsearch(samba_dc, *accepted, ccache=ccache)


@pytest.mark.parametrize("port", [636, 3269])
def test_the_certificate_names_the_host(samba_dc: SambaDc, port: int) -> None:
    context = ssl.create_default_context(cafile=samba_dc.ca)
    with (
        socket.create_connection((samba_dc.address, port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=samba_dc.host) as tls,
    ):
        assert tls.version() is not None
    with (
        socket.create_connection((samba_dc.address, port), timeout=10) as connection,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        context.wrap_socket(connection, server_hostname="other.ad.test")


def test_its_dns_tells_where_it_is(samba_dc: SambaDc) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [samba_dc.address]
    [service] = resolver.resolve(f"_ldap._tcp.dc._msdcs.{samba_dc.dns_domain}", "SRV")
    assert (service.target.to_text(), service.port) == (f"{samba_dc.host}.", 389)
    [address] = resolver.resolve(samba_dc.host, "A")
    assert address.address == samba_dc.address


def test_it_runs_on_when_one_of_several_users_is_done(samba_dc: SambaDc) -> None:
    users = samba_dc.directory.parent
    if "PUREKRB_SAMBA" in os.environ:
        pytest.skip("the DC at PUREKRB_SAMBA does not end with its users")
    with shared_dc(users) as same:
        assert (same.address, same.running) == (samba_dc.address, True)
    program = """if True:
        import os, pathlib, sys
        from support.samba import shared_dc
        shared_dc(pathlib.Path(sys.argv[1])).__enter__()
        os._exit(9)
    """
    argv = [sys.executable, "-c", program, str(users)]
    killed = subprocess.run(argv, cwd=Path(__file__).parents[1], check=False, timeout=30)
    assert killed.returncode == 9
    assert samba_dc.running
    kinit(samba_dc, samba_dc.administrator)
