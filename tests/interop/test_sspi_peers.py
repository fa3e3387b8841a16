"""purekrb.sspi with MIT's GSS-API at the other end, and the sockets sample with the KDCs of MIT and Samba."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from purekrb import Credential, KdcClient, Keytab, sspi
from purekrb.directory import Directory, ServiceConnectionPoint, SpnOperation
from purekrb.gss.iov import IovBuffer, IovType
from purekrb.spn import make_spn
from support.gss_peer import GssPeer, PeerContext, PeerError
from support.mit import ETYPES, MitRealm
from support.samba import SambaDc
from support.sspi import DATA, ISC, PADDING, STREAM, TOKEN, desc, refused, room
from support.sspi_examples import run_client, running_service

AES = sorted(set(ETYPES) - {23})
TEXTS = (b"", b"x", b"twenty-three bytes long", bytes(5000))
NO_ENCRYPT = sspi.SECQOP_WRAP_NO_ENCRYPT
CHECKSUM = DATA | sspi.SECBUFFER_READONLY_WITH_CHECKSUM

Ends = tuple[sspi.CtxtHandle, PeerContext]


@pytest.fixture(scope="module", autouse=True)
def logged_on(mit_realm: MitRealm) -> Iterator[None]:
    """The user and the services of MIT's realm as default credentials."""
    user = Credential.from_password("user@MIT.TEST", "userpw")
    sspi.set_default_credential(
        user, keytab=Keytab.load(mit_realm.service_keytab), config=mit_realm.config
    )
    yield
    sspi.set_default_credential()


def acquire(
    realm: MitRealm, etype: int, principal: str | None, use: int, package: str
) -> sspi.CredHandle:
    """Return credentials for contexts of that encryption type alone."""
    handle, _ = sspi.AcquireCredentialsHandle(principal, package, use)
    handle.config = replace(realm.config, permitted_enctypes=[etype])
    return handle


def we_initiate(
    realm: MitRealm, peer: GssPeer, etype: int, flags: int = ISC, package: str = "Kerberos"
) -> Ends:
    service = f"svc-{etype}/localhost"
    credentials = acquire(realm, etype, None, sspi.SECPKG_CRED_OUTBOUND, package)
    ours, theirs, out = (
        sspi.CtxtHandle(),
        peer.accept(realm.service_keytab, mechanism=package.lower()),
        room(),
    )
    status, _, _ = sspi.InitializeSecurityContext(
        credentials, None, service, flags, 0, None, ours, out
    )
    while status != sspi.SEC_E_OK:
        reply = theirs.step(out[0].Buffer)
        assert reply
        out = room()
        status, returned, _ = sspi.InitializeSecurityContext(
            credentials, ours, service, flags, 0, desc((TOKEN, reply)), ours, out
        )
    assert returned & sspi.ISC_RET_MUTUAL_AUTH
    if out[0].Buffer:
        assert theirs.step(out[0].Buffer) is None
    assert theirs.established
    return ours, theirs


def they_initiate(
    realm: MitRealm, peer: GssPeer, etype: int, flags: int = ISC, package: str = "Kerberos"
) -> Ends:
    gss = 0x3E | (0x1000 if flags & sspi.ISC_REQ_USE_DCE_STYLE else 0)
    theirs = peer.initiate(
        f"svc-{etype}@localhost", realm.kinit("user"), flags=gss, mechanism=package.lower()
    )
    credentials = acquire(realm, etype, f"svc-{etype}/localhost", sspi.SECPKG_CRED_INBOUND, package)
    ours, before, token = sspi.CtxtHandle(), None, theirs.step()
    status = sspi.SEC_I_CONTINUE_NEEDED
    while status != sspi.SEC_E_OK:
        out = room()
        status, returned, _ = sspi.AcceptSecurityContext(
            credentials, before, desc((TOKEN, token or b"")), sspi.ASC_REQ_MUTUAL_AUTH, 0, ours, out
        )
        before = ours
        if out[0].Buffer:
            token = theirs.step(out[0].Buffer)
    assert returned & sspi.ASC_RET_MUTUAL_AUTH
    assert theirs.established
    return ours, theirs


def sizes(handle: sspi.CtxtHandle) -> dict[str, int]:
    found = handle.QueryContextAttributes(sspi.SECPKG_ATTR_SIZES)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("begin", [we_initiate, they_initiate])
@pytest.mark.parametrize("etype", AES)
def test_mit_verifies_what_we_sign_and_reads_what_we_encrypt_and_we_its(
    mit_realm: MitRealm, mit_gss: GssPeer, etype: int, begin: Callable[..., Ends]
) -> None:
    ours, theirs = begin(mit_realm, mit_gss, etype)
    room_for = sizes(ours)
    for text in TEXTS:  # CHK-35, CHK-36
        message = desc((DATA, text), (TOKEN, room_for["MaxSignature"]))
        ours.MakeSignature(0, message)
        theirs.verify_mic(text, message[1].Buffer)
        ours.VerifySignature(desc((DATA, text), (TOKEN, theirs.get_mic(text))))
        for qop in (0, NO_ENCRYPT):
            message = desc(
                (TOKEN, room_for["SecurityTrailer"]), (DATA, text), (PADDING, room_for["BlockSize"])
            )
            ours.EncryptMessage(qop, message)
            wire = b"".join(buffer.Buffer for buffer in message)
            assert theirs.unwrap(wire) == (text, qop == 0)
            message = desc((STREAM, theirs.wrap(text, sealed=qop == 0)), (DATA, 0))
            assert ours.DecryptMessage(message) == qop
            assert message[1].Buffer == text
    with refused(sspi.SEC_E_MESSAGE_ALTERED):
        ours.VerifySignature(desc((DATA, b"text"), (TOKEN, theirs.get_mic(b"Text"))))
    with pytest.raises(PeerError):
        theirs.unwrap(wire)  # again


@pytest.mark.parametrize("begin", [we_initiate, they_initiate])
@pytest.mark.parametrize("dce", [0, sspi.ISC_REQ_USE_DCE_STYLE])
def test_negotiate_agrees_with_mits_spnego(
    mit_realm: MitRealm, mit_gss: GssPeer, dce: int, begin: Callable[..., Ends]
) -> None:
    ours, theirs = begin(mit_realm, mit_gss, 18, ISC | dce, "Negotiate")
    state, info = ours.QueryContextAttributes(sspi.SECPKG_ATTR_NEGOTIATION_INFO)
    assert (state, info["Name"]) == (sspi.SECPKG_NEGOTIATION_COMPLETE, "Kerberos")
    message = desc((TOKEN, sizes(ours)["SecurityTrailer"]), (DATA, b"agreed"))
    ours.EncryptMessage(0, message)
    given = [
        IovBuffer(IovType.HEADER, message[0].Buffer),
        IovBuffer(IovType.DATA, message[1].Buffer),
    ]
    received, sealed = theirs.unwrap_iov(given)
    assert (received[1].data, sealed) == (b"agreed", True)
    message = desc((STREAM, theirs.wrap(b"agreed")), (DATA, 0))
    assert (ours.DecryptMessage(message), message[1].Buffer) == (0, b"agreed")


@pytest.mark.parametrize("dce", [0, sspi.ISC_REQ_USE_DCE_STYLE])
@pytest.mark.parametrize("begin", [we_initiate, they_initiate])
@pytest.mark.parametrize("etype", AES)
def test_chk37_mit_takes_our_buffers_as_its_own(
    mit_realm: MitRealm, mit_gss: GssPeer, etype: int, begin: Callable[..., Ends], dce: int
) -> None:
    ours, theirs = begin(mit_realm, mit_gss, etype, ISC | dce)
    trailer = sizes(ours)["SecurityTrailer"]
    assert trailer == {17: 60, 18: 60, 19: 64, 20: 72}[etype] + (16 if dce else 0)
    for text in TEXTS[1:]:
        message = desc((TOKEN, trailer), (CHECKSUM, b"header"), (DATA, text))
        ours.EncryptMessage(0, message)
        given = [
            IovBuffer(IovType.HEADER, message[0].Buffer),
            IovBuffer(IovType.SIGN_ONLY, b"header"),
            IovBuffer(IovType.DATA, message[2].Buffer),
        ]
        received, sealed = theirs.unwrap_iov(given)
        assert (received[2].data, sealed) == (text, True)
        made = theirs.wrap_iov(
            [
                IovBuffer(IovType.HEADER),
                IovBuffer(IovType.SIGN_ONLY, b"header"),
                IovBuffer(IovType.DATA, text),
            ]
        )
        message = desc((TOKEN, made[0].data), (CHECKSUM, b"header"), (DATA, made[2].data))
        assert ours.DecryptMessage(message) == 0
        assert message[2].Buffer == text


# --- the sockets sample


def environment(krb5_conf: Path, ccache: Path, keytab: Path) -> dict[str, str]:
    names = {
        "KRB5_CONFIG": str(krb5_conf),
        "KRB5CCNAME": f"FILE:{ccache}",
        "KRB5_KTNAME": f"FILE:{keytab}",
    }
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("KRB5")},
        **names,
    }


def test_the_sample_runs_with_mits_kdc(mit_realm: MitRealm) -> None:
    env = environment(mit_realm.krb5_conf, mit_realm.kinit("user"), mit_realm.service_keytab)
    with running_service(env) as service:
        done = run_client(env, "--class", "svc-18", "--host", "localhost", "--port", service.port)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["user@MIT.TEST has signed: hello", "HELLO"]


def test_the_sample_finds_its_service_in_sambas_directory(
    samba_dc: SambaDc, tmp_path: Path
) -> None:
    """The procedure of Microsoft's page, from the SCP to the encrypted message."""
    keyword, url = "7c4f7a58-3d4e-4d5c-9a57-0e3f1c0d9a10", f"ldap://{samba_dc.address}"
    samba_dc.add_computer("SSPIWEB")
    samba_dc.add_user("sspi-client")
    service_account = samba_dc.add_user("sspi-service")
    clients = {
        name: Credential.from_password(f"{name}@{samba_dc.realm}", samba_dc.password)
        for name in (samba_dc.administrator, "sspi-client")
    }
    KdcClient(samba_dc.config).get_tgt(clients["sspi-client"])
    clients["sspi-client"].save(tmp_path / "ccache")
    administrator, target = clients[samba_dc.administrator], f"ldap/{samba_dc.host}"
    with Directory.connect(url, administrator, samba_dc.config, target) as directory:
        scp = ServiceConnectionPoint(
            "SockAuthAD", "ADSockAuth", "sspiweb.ad.test", ["2000"], [keyword]
        )
        scp = directory.publish_scp(scp, host="SSPIWEB$")
        spn = make_spn(scp.service_class_name, scp.dn, scp.dns_name)
        directory.write_account_spn(SpnOperation.ADD, service_account, [spn])
        env = samba_dc.env | environment(
            samba_dc.krb5_conf, tmp_path / "ccache", samba_dc.keytab(spn)
        )
        with running_service(env, "--spn", spn) as service:
            directory.update_scp(replace(scp, bindings=(service.port,)))
            done = run_client(env, "--directory", f"ldap://{samba_dc.host}", "--keyword", keyword)
        directory.remove_scp(scp)
    assert (done.returncode, done.stderr) == (0, "")
    # The ticket holds a PAC, so that the service knows the client by its name in the domain.
    assert done.stdout.splitlines() == [
        f"{samba_dc.netbios_domain}\\sspi-client has signed: hello",
        "HELLO",
    ]
    assert service.printed == [f"served {samba_dc.netbios_domain}\\sspi-client"]
