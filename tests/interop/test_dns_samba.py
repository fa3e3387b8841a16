"""Secure DNS updates with dnspython and purekrb, as the page on DNS shows it, against Samba's DNS server."""

from __future__ import annotations

from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

from purekrb import Credential, KdcClient, ProtocolError, ServiceUnknownError
from purekrb.integrations.dnspython import TsigContext, negotiate
from support.contexts import pair
from support.pages import program, run_on_purekrb, run_program
from support.samba import SambaDc


@pytest.fixture(scope="module")
def administrator(samba_dc: SambaDc) -> Credential:
    return Credential.from_password(f"Administrator@{samba_dc.realm}", samba_dc.password)


def address_of(dc: SambaDc, name: str) -> str | None:
    query = dns.message.make_query(f"{name}.{dc.dns_domain}", "A")
    answer = dns.query.udp(query, dc.address, timeout=10).answer
    return answer[0][0].to_text() if answer else None


def test_the_program_of_the_page_changes_an_address(
    samba_dc: SambaDc, administrator: Credential, tmp_path: Path
) -> None:
    KdcClient(samba_dc.config).get_tgt(administrator)
    administrator.save(tmp_path / "ccache")
    env = {**samba_dc.env, "KRB5CCNAME": f"FILE:{tmp_path}/ccache"}
    for address in ("10.0.0.1", "10.0.0.2"):
        arguments = (samba_dc.host, samba_dc.dns_domain, "web-dns", address)
        shown = run_program(
            "dns.md", *arguments, directory=tmp_path, env=env, containing="import negotiate"
        )
        assert shown == "NOERROR\n"
        assert address_of(samba_dc, "web-dns") == address


def test_the_program_that_imports_gssapi_changes_an_address(
    samba_dc: SambaDc, administrator: Credential, tmp_path: Path
) -> None:
    KdcClient(samba_dc.config).get_tgt(administrator)
    administrator.save(tmp_path / "ccache")
    env = {**samba_dc.env, "KRB5CCNAME": f"FILE:{tmp_path}/ccache"}
    arguments = (samba_dc.host, samba_dc.address, samba_dc.dns_domain, "web-gssapi", "10.0.0.3")
    text = program("dns.md", "import gssapi")
    assert run_on_purekrb(text, tmp_path, *arguments, env=env) == "NOERROR\n"
    assert address_of(samba_dc, "web-gssapi") == "10.0.0.3"


def test_an_update_without_a_key_is_refused_and_a_key_serves_several(
    samba_dc: SambaDc, administrator: Credential
) -> None:
    plain = dns.update.UpdateMessage(samba_dc.dns_domain)
    plain.replace("unsigned", 300, "A", "10.0.0.9")
    assert dns.query.tcp(plain, samba_dc.address, timeout=10).rcode() == dns.rcode.REFUSED
    assert address_of(samba_dc, "unsigned") is None
    key = negotiate(samba_dc.host, administrator, samba_dc.config, address=samba_dc.address)
    for name, send in (("signed-tcp", dns.query.tcp), ("signed-udp", dns.query.udp)):
        update = dns.update.UpdateMessage(
            samba_dc.dns_domain, keyring=key, keyalgorithm=dns.tsig.GSS_TSIG
        )
        update.replace(name, 300, "A", "10.0.0.9")
        assert send(update, samba_dc.address, timeout=10).rcode() == dns.rcode.NOERROR
        assert address_of(samba_dc, name) == "10.0.0.9"


def test_a_server_that_does_not_know_the_name_is_told_of(
    samba_dc: SambaDc, administrator: Credential
) -> None:
    with pytest.raises(ServiceUnknownError):
        negotiate("no.such.test", administrator, samba_dc.config, address=samba_dc.address)
    samba_dc.add_user("dns-other", servicePrincipalName="other/dns.ad.test")
    with pytest.raises(ProtocolError, match="did not agree on a key"):
        negotiate(
            samba_dc.host, administrator, samba_dc.config,
            target="other/dns.ad.test", address=samba_dc.address,
        )  # fmt: skip


def test_a_signature_without_the_length_of_the_requests_mac_is_taken_by_the_client_alone() -> None:
    ours, theirs = map(TsigContext, pair())
    message = b"\0\x1c" + b"the request's MAC, and the answer"
    ours.verify_signature(message, theirs.get_signature(message))
    ours.verify_signature(message, theirs.get_signature(message[2:]))
    theirs.verify_signature(message, ours.get_signature(message))
    with pytest.raises(Exception, match="integrity"):
        theirs.verify_signature(message, ours.get_signature(message[2:]))
    with pytest.raises(Exception, match="integrity"):
        ours.verify_signature(message, theirs.get_signature(message[3:]))
