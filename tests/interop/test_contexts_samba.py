"""Tickets of Active Directory (Samba's KDC, with PACs) and contexts on top of them, in both roles."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import purekrb
from purekrb import (
    Acceptor,
    ApError,
    ClientRevokedError,
    ClientUnknownError,
    ContextError,
    Credential,
    Flag,
    Initiator,
    InsufficientRightsError,
    KdcClient,
    KdcEtypeError,
    Keytab,
    PasswordExpiredError,
    PreauthFailedError,
    Principal,
    ReplayError,
    ServiceTicket,
    ServiceUnknownError,
    verify_credentials,
)
from purekrb.constants import AuthDataType, ErrorCode, NameType, TicketFlags
from purekrb.directory import Directory
from purekrb.directory.accounts import find_caller
from purekrb.directory.ldap import Change, ChangeOperation, Scope
from purekrb.messages.ap import Ticket
from purekrb.replay import MemoryReplayCache
from purekrb.system import now
from support.contexts import FixedClock, acceptor, error_of
from support.gss_peer import GssPeer, PeerError
from support.peers import find_program, missing_peer, run
from support.samba import SambaDc
from support.values import replace

HOST = "ctxsvc.ad.test"
WEB = f"HTTP/{HOST}"
#: Its account is trusted for delegation.
TRUSTED = "HTTP/ctxtrust.ad.test"
#: The service account's SCP; the names of its services contain its DN or its objectGUID.
SCP = "CN=Orders,CN=CTXSVC,CN=Computers,DC=ad,DC=test"
#: The third components of SPNs that Samba registers, and whether its KDC finds them (Samba 4.17.12).
SERVICE_NAMES = {
    SCP: True,
    "a762885a-aa44-11d2-81f1-00c04fb9624e": True,
    "CN=Orders+OU=EU,DC=ad,DC=test": True,
    "CN=Bücher,DC=ad,DC=test": True,
    "CN=Orders,OU=Domain Controllers,DC=ad,DC=test": False,
    r"CN=Orders\, EU,DC=ad,DC=test": False,
    r"CN=Orders\,EU,DC=ad,DC=test": False,
    r"CN=\#1,DC=ad,DC=test": False,
    "CN=orders@eu,DC=ad,DC=test": False,
}
TRUSTED_FOR_DELEGATION = 0x80000
NOT_DELEGATED = 0x100000
WORKSTATION = 0x1000
USER = 0x200


@dataclasses.dataclass(frozen=True)
class Lab:
    """The domain with one client and two services."""

    dc: SambaDc
    keytab: Keytab
    other_keytab: Keytab
    #: The client's, with the tickets that it has got so far.
    credential: Credential

    def fresh(self, name: str = "ctx-alice") -> Credential:
        """Return a user's credential without tickets."""
        return Credential.from_password(f"{name}@{self.dc.realm}", self.dc.password)

    def ticket(self, service: str) -> ServiceTicket:
        """Return the client's ticket for a service."""
        return KdcClient(self.dc.config).get_ticket(self.credential, service)

    def keytab_of(self, *principals: str) -> Keytab:
        """Return the current keys of accounts or their SPNs, as Samba itself exports them."""
        return Keytab.load(self.dc.keytab(*principals))


@pytest.fixture(scope="module")
def lab(samba_dc: SambaDc) -> Lab:
    samba_dc.add_user("ctx-alice")
    spns = [
        WEB,
        f"HOST/{HOST}",
        f"ADSockAuth/{HOST}:2000",
        *(f"ADSockAuth/{HOST}/{name}" for name in SERVICE_NAMES),
    ]
    samba_dc.add_computer("CTXSVC", servicePrincipalName=spns)
    samba_dc.add_computer("CTXOTHER", servicePrincipalName=["HTTP/ctxother.ad.test"])
    keytab = Keytab.load(samba_dc.keytab("CTXSVC$", WEB))
    alice = Credential.from_password("ctx-alice@AD.TEST", samba_dc.password)
    return Lab(samba_dc, keytab, Keytab.load(samba_dc.keytab("CTXOTHER$")), alice)


@pytest.fixture(scope="module")
def mit(lab: Lab) -> Iterator[GssPeer]:
    """MIT's GSS-API in Samba's realm."""
    if importlib.util.find_spec("gssapi") is None:
        missing_peer("PyPI's gssapi", "libkrb5-dev")
    program = Path(__file__).parents[1] / "support" / "gssapi_peer.py"
    peer = GssPeer(
        "MIT", [sys.executable, str(program)], env=lab.dc.env, log=lab.dc.path("gssapi.log")
    )
    yield peer
    peer.stop()


def established(initiator: Initiator, keytab: Keytab) -> Acceptor:
    """Finish both ends, exchange a message each way, return the acceptor."""
    service = acceptor(keytab)
    token = initiator.step()
    while token is not None:
        reply = service.step(token)
        assert not initiator.established or reply is None, "established without the service's proof"
        token = None if reply is None else initiator.step(reply)
    assert initiator.established
    assert service.unwrap(initiator.wrap(b"request")) == b"request"
    assert initiator.unwrap(service.wrap(b"reply")) == b"reply"
    assert service.established
    return service


# --- getting a TGT


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_password_gives_tickets_over_both_transports(lab: Lab, transport: str) -> None:
    config = dataclasses.replace(
        lab.dc.config,
        realms={lab.dc.realm: [f"{transport}://{lab.dc.address}:88"]},
        udp_preference_limit=1465,
    )
    client = KdcClient(config)
    credential = lab.fresh()
    tgt = client.get_tgt(credential)
    assert tgt.flags & TicketFlags.PRE_AUTHENT
    assert client.get_ticket(credential, WEB).session_key.etype == 18


def test_asyncio_gets_the_same(lab: Lab) -> None:
    initiator = asyncio.run(purekrb.aio.initiate(WEB, lab.fresh(), lab.dc.config))
    assert established(initiator, lab.keytab).initiator == Principal.parse("ctx-alice@AD.TEST")


@pytest.mark.parametrize("text", ["ctx-alice@ad.test", "CTX-Alice", "AD.TEST\\ctx-alice"])
def test_enterprise_names_and_other_spellings_are_made_canonical_when_asked_for(
    lab: Lab, text: str
) -> None:
    enterprise = Principal((text,), lab.dc.realm, NameType.ENTERPRISE)
    credential = Credential.from_password(enterprise, lab.dc.password)
    if "\\" in text:  # the form DOMAIN\user is no principal name
        with pytest.raises(ClientUnknownError):
            KdcClient(lab.dc.config).get_tgt(credential, canonicalize=True)
        return
    tgt = KdcClient(lab.dc.config).get_tgt(credential, canonicalize=True)
    assert str(tgt.client) == "ctx-alice@AD.TEST"
    assert (
        established(purekrb.initiate(WEB, credential, lab.dc.config), lab.keytab).initiator
        == tgt.client
    )


def credential_of(principal: str, password: str, kind: str) -> Credential:
    if kind == "password":
        return Credential.from_password(principal, password)
    return Credential.from_keytab(principal, Keytab.from_password(principal, password))


@pytest.mark.parametrize("kind", ["password", "keytab"])
@pytest.mark.parametrize(
    ("attributes", "password", "error"),
    [
        ({}, "wrong", PreauthFailedError),
        ({"userAccountControl": str(USER | 2)}, None, ClientRevokedError),
        ({"pwdLastSet": "0"}, None, PasswordExpiredError),
        (
            {"accountExpires": "132223104000000000"},
            None,
            (ClientRevokedError, PasswordExpiredError),
        ),
    ],
    ids=["wrong-password", "disabled", "password-expired", "account-expired"],
)
def test_each_state_of_an_account_has_its_error(
    lab: Lab, attributes: dict[str, str], password: str | None, error: type[Exception], kind: str
) -> None:
    lab.dc.add_user("ctx-state", **attributes)
    principal = "ctx-state@AD.TEST"
    with pytest.raises(error):
        KdcClient(lab.dc.config).get_tgt(
            credential_of(principal, password or lab.dc.password, kind)
        )
    lab.dc.add_user("ctx-state")
    assert KdcClient(lab.dc.config).get_tgt(credential_of(principal, lab.dc.password, kind)).is_tgt


@pytest.mark.parametrize("kind", ["password", "keytab"])
def test_a_wrong_password_or_key_counts_once_against_the_account(lab: Lab, kind: str) -> None:
    def bad_logons() -> int:
        (entry,) = lab.dc.search("(sAMAccountName=ctx-count)", "badPwdCount")
        return int(entry["badPwdCount"][0])

    lab.dc.samba_tool(
        "domain", "passwordsettings", "set", "--account-lockout-threshold=100"
    )  # without, none counts
    lab.dc.add_user("ctx-count")
    client = KdcClient(lab.dc.config)
    for count in (1, 2):
        with pytest.raises(PreauthFailedError):
            client.get_tgt(credential_of("ctx-count@AD.TEST", "wrong", kind))
        assert bad_logons() == count
    assert client.get_tgt(credential_of("ctx-count@AD.TEST", lab.dc.password, kind)).is_tgt
    assert bad_logons() == 0


def test_a_key_of_an_etype_that_samba_has_not_gives_way_to_another_and_is_not_counted(
    lab: Lab,
) -> None:
    principal = "ctx-alice@AD.TEST"
    keytab = Keytab.from_password(principal, lab.dc.password, etypes=(20, 18))
    config = dataclasses.replace(
        lab.dc.config, default_tkt_enctypes=[20, 18], permitted_enctypes=[20, 18]
    )
    tgt = KdcClient(config).get_tgt(Credential.from_keytab(principal, keytab))
    assert tgt.flags & TicketFlags.PRE_AUTHENT
    (entry,) = lab.dc.search("(sAMAccountName=ctx-alice)", "badPwdCount")
    assert entry["badPwdCount"] == ["0"]


def test_an_unknown_user_is_unknown(lab: Lab) -> None:
    with pytest.raises(ClientUnknownError):
        KdcClient(lab.dc.config).get_tgt(lab.fresh("ctx-nobody"))


def test_a_computer_logs_on_with_its_keytab_and_with_its_password(lab: Lab) -> None:
    name = "CTXSVC$@AD.TEST"
    client = KdcClient(lab.dc.config)
    for credential in (
        Credential.from_keytab(name, lab.keytab),
        Credential.from_password(name, lab.dc.password),
    ):
        assert str(client.get_ticket(credential, "HTTP/ctxother.ad.test").client) == name


def test_keys_made_of_the_password_are_those_that_samba_exports(lab: Lab) -> None:
    made = Keytab.from_password(
        "CTXSVC$@AD.TEST", lab.dc.password, salt="AD.TESThostctxsvc.ad.test"
    )
    exported = {entry.key.etype: entry.key for entry in lab.keytab_of("CTXSVC$")}
    assert {entry.key.etype: exported[entry.key.etype] == entry.key for entry in made} == {
        17: True,
        18: True,
    }


def test_credentials_are_verified_against_the_host(lab: Lab) -> None:
    assert (
        str(verify_credentials(lab.credential, lab.keytab, service=WEB, config=lab.dc.config))
        == "ctx-alice@AD.TEST"
    )
    with pytest.raises(ApError):
        verify_credentials(lab.credential, lab.other_keytab, service=WEB, config=lab.dc.config)


def test_a_tgt_is_renewed(lab: Lab) -> None:
    client = KdcClient(lab.dc.config)
    credential = lab.fresh()
    first = client.get_tgt(credential, lifetime=600, renewable=7200)
    renewed = client.renew(credential)
    assert (renewed.client, renewed.renew_till) == (first.client, first.renew_till)
    assert renewed.session_key != first.session_key


# --- names of services


@pytest.mark.parametrize(
    ("service", "found"),
    [
        pytest.param(f"cifs/{HOST}", True, id="chk-12-an-alias-of-host"),
        pytest.param(f"www/{HOST}", True, id="chk-12-another-alias-of-host"),
        pytest.param(f"ADSockAuth/{HOST}", False, id="chk-12-no-alias-of-host"),
        pytest.param(f"ADSockAuth/{HOST}:2000", True, id="with-a-port"),
        pytest.param(f"ADSockAuth/{HOST}:2001", False, id="with-another-port"),
        pytest.param(f"http/{HOST.upper()}", True, id="in-another-case"),
        pytest.param("HTTP/ctxsvc", True, id="the-short-name-of-the-host"),
        pytest.param("HTTP/nowhere.ad.test", False, id="another-host"),
    ],
)
def test_the_kdc_knows_registered_names_and_the_aliases_of_host(
    lab: Lab, service: str, found: bool
) -> None:
    if not found:
        with pytest.raises(ServiceUnknownError) as unknown:
            lab.ticket(service)
        assert "objectGUID" not in str(unknown.value)
        return
    ticket = lab.ticket(service)
    service_class, _, host = service.partition("/")  # of a target given as text, the host is folded
    assert str(ticket.service) == f"{service_class}/{host.lower()}@AD.TEST"
    # All are names of one account, so that its key opens them.
    assert established(Initiator(ticket), lab.keytab).established


@pytest.mark.parametrize(
    ("name", "found"),
    [pytest.param(*row, id=f"chk-25-26-{row[0]}") for row in SERVICE_NAMES.items()],
)
def test_three_component_names_are_asked_for_letter_by_letter(
    lab: Lab, name: str, found: bool
) -> None:
    if not found:
        with pytest.raises(ServiceUnknownError, match="use the objectGUID"):
            lab.ticket(f"ADSockAuth/{HOST}/{name}")
        return
    ticket = lab.ticket(f"ADSockAuth/{HOST}/{name}")
    in_ticket = Ticket.decode(ticket.ticket).sname
    assert (in_ticket.name_type, in_ticket.components) == (
        NameType.SRV_INST,
        ("ADSockAuth", HOST, name),
    )
    assert established(Initiator(ticket), lab.keytab).established


# --- contexts


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
@pytest.mark.parametrize("etype", [17, 18])
def test_both_sides_are_sure_of_each_other(lab: Lab, etype: int, mechanism: str) -> None:
    """CHK-27."""
    account = f"CTXAES{etype}"
    # 8 and 16 are AES128 and AES256 in msDS-SupportedEncryptionTypes.
    lab.dc.add_computer(
        account, etypes={17: 8, 18: 16}[etype], servicePrincipalName=[f"HTTP/{account}.ad.test"]
    )
    ticket = lab.ticket(f"HTTP/{account}.ad.test")
    initiator = Initiator(ticket, mechanism=mechanism)
    service = established(initiator, lab.keytab_of(f"{account}$"))
    assert Ticket.decode(ticket.ticket).enc_part.etype == initiator.etype == service.etype == etype
    for context in (initiator, service):
        assert context.mutual
        assert context.flags & Flag.DEFAULT == Flag.DEFAULT
        assert str(context.initiator) == "ctx-alice@AD.TEST"
        assert context.endtime == ticket.endtime
    # The PAC is there, unread.
    assert AuthDataType.IF_RELEVANT in [entry.ad_type for entry in service.authorization_data]


def test_an_account_with_rc4_alone_is_refused_unless_rc4_is_allowed(lab: Lab) -> None:
    lab.dc.add_computer("CTXRC4", etypes=4, servicePrincipalName=["HTTP/ctxrc4.ad.test"])
    with pytest.raises(KdcEtypeError):
        lab.ticket("HTTP/ctxrc4.ad.test")
    config = dataclasses.replace(lab.dc.config, allow_rc4=True, permitted_enctypes=[18, 17, 23])
    ticket = KdcClient(config).get_ticket(lab.fresh(), "HTTP/ctxrc4.ad.test")
    assert Ticket.decode(ticket.ticket).enc_part.etype == 23


def test_an_impostor_with_another_accounts_key_gets_no_data(lab: Lab) -> None:
    """CHK-28."""
    initiator = purekrb.initiate(WEB, lab.credential, lab.dc.config)
    token = initiator.step()
    impostor = acceptor(lab.other_keytab)
    with pytest.raises(ApError) as refused:
        impostor.step(token)
    assert refused.value.code == error_of(refused.value.response).error_code
    assert refused.value.code == ErrorCode.KRB_AP_ERR_NOKEY
    with pytest.raises(ApError):
        initiator.step(refused.value.response)
    assert not initiator.established
    assert not impostor.established
    with pytest.raises(ContextError):
        initiator.wrap(b"secret")
    assert established(purekrb.initiate(WEB, lab.credential, lab.dc.config), lab.keytab).established


def test_a_key_of_the_same_name_and_version_from_another_account_is_refused(lab: Lab) -> None:
    """CHK-28, where only the key itself tells."""
    web = Principal.parse(f"{WEB}@AD.TEST")
    wrong = Keytab(replace(entry, principal=web) for entry in lab.other_keytab)
    initiator = Initiator(lab.ticket(WEB))
    with pytest.raises(ApError) as refused:
        acceptor(wrong).step(initiator.step())
    assert refused.value.code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY


def test_old_tickets_work_until_the_old_key_is_dropped(lab: Lab) -> None:
    """CHK-32: after a change of the service's password."""
    dn = lab.dc.add_computer("CTXAGED", servicePrincipalName=["HTTP/ctxaged.ad.test"])
    old = lab.keytab_of("HTTP/ctxaged.ad.test")
    old_ticket = lab.ticket("HTTP/ctxaged.ad.test")
    lab.dc.set_password(dn, "Another.pw1")
    new = lab.keytab_of("HTTP/ctxaged.ad.test")
    new_ticket = KdcClient(lab.dc.config).get_ticket(lab.fresh(), "HTTP/ctxaged.ad.test")
    kvnos = [Ticket.decode(ticket.ticket).enc_part.kvno for ticket in (old_ticket, new_ticket)]
    assert kvnos[1] == kvnos[0] + 1
    both = old.merge(new)
    for ticket in (old_ticket, new_ticket):
        assert established(Initiator(ticket), both).established
    for ticket, keytab in ((old_ticket, new), (new_ticket, old)):
        with pytest.raises(ApError, match="kvno") as refused:
            acceptor(keytab).step(Initiator(ticket).step())
        assert refused.value.code == ErrorCode.KRB_AP_ERR_BADKEYVER


def test_a_replayed_ap_req_is_refused(lab: Lab) -> None:
    """CHK-32."""
    cache = MemoryReplayCache()
    token = purekrb.initiate(WEB, lab.credential, lab.dc.config).step()
    assert Acceptor(lab.keytab, replay_cache=cache).step(token)
    with pytest.raises(ReplayError):
        Acceptor(lab.keytab, replay_cache=cache).step(token)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_service_whose_clock_is_off_says_so(lab: Lab, minutes: int) -> None:
    """CHK-32: KRB_AP_ERR_SKEW, with the service's time in the KRB-ERROR."""
    ticket = lab.ticket(WEB)
    clock = FixedClock(now() + timedelta(minutes=minutes))
    initiator = Initiator(ticket)
    with pytest.raises(ApError) as refused:
        acceptor(lab.keytab, clock=clock).step(initiator.step())
    assert refused.value.code in (ErrorCode.KRB_AP_ERR_SKEW, ErrorCode.KRB_AP_ERR_TKT_NYV)
    told = error_of(refused.value.response)
    assert abs(told.stime - clock()) < timedelta(seconds=2)
    with pytest.raises(ApError):
        initiator.step(refused.value.response)
    assert established(Initiator(ticket), lab.keytab).established


# --- with MIT's GSS-API


@pytest.mark.parametrize(
    "flags", [Flag.DEFAULT, Flag.MUTUAL | Flag.INTEG], ids=["default", "mutual-integ"]
)
def test_mit_accepts_our_tickets_of_active_directory(lab: Lab, mit: GssPeer, flags: Flag) -> None:
    ours = Initiator(lab.ticket(WEB), flags=flags)
    theirs = mit.accept(lab.dc.keytab(WEB))
    assert ours.step(theirs.step(ours.step())) is None
    assert theirs.initiator == "ctx-alice@AD.TEST"
    sealed = bool(flags & Flag.CONF)
    assert theirs.unwrap(ours.wrap(b"data", sealed)) == (b"data", sealed)
    assert ours.unwrap(theirs.wrap(b"data", sealed=sealed), sealed) == b"data"


def test_we_accept_mits_tickets_of_active_directory(lab: Lab, mit: GssPeer) -> None:
    ccache = lab.dc.path("ccache")
    kinit = [find_program("kinit", "krb5-user"), "-c", str(ccache), "ctx-alice"]
    run(kinit, env=lab.dc.env, text=f"{lab.dc.password}\n")
    theirs = mit.initiate(f"HTTP@{HOST}", ccache)
    ours = acceptor(lab.keytab)
    token = theirs.step()
    assert theirs.step(ours.step(token)) is None
    assert str(ours.initiator) == "ctx-alice@AD.TEST"
    assert ours.unwrap(theirs.wrap(b"data")) == b"data"
    with pytest.raises(PeerError):
        theirs.unwrap(ours.wrap(b"data")[:-1] + b"!")


# --- delegation


def trusted(lab: Lab) -> Keytab:
    """Make the service that is trusted for delegation, and return its keys."""
    control = str(WORKSTATION | TRUSTED_FOR_DELEGATION)
    lab.dc.add_computer("CTXTRUST", servicePrincipalName=[TRUSTED], userAccountControl=control)
    return lab.keytab_of("CTXTRUST$")


def in_directory(dc: SambaDc, credential: Credential, mechanism: str) -> Directory:
    return Directory.connect(
        f"ldap://{dc.address}",
        credential,
        dc.config,
        target=f"ldap/{dc.host}/{dc.dns_domain}",
        mechanism=mechanism,
    )


def test_nothing_is_delegated_to_a_service_that_is_not_trusted_for_it(lab: Lab) -> None:
    """CHK-44: the KDC marks no ticket of this service OK-AS-DELEGATE."""
    initiator = purekrb.initiate(
        WEB, lab.credential, lab.dc.config, flags=Flag.DEFAULT | Flag.DELEG
    )
    service = established(initiator, lab.keytab)
    assert not initiator.flags & Flag.DELEG
    assert service.delegated_credential is None


def test_a_trusted_service_acts_as_the_client(lab: Lab) -> None:
    """CHK-44: the forwarded TGT gets tickets in the client's name; none is sent without the flag."""
    keytab, credential = trusted(lab), lab.fresh()
    KdcClient(lab.dc.config).get_tgt(credential, forwardable=True)
    initiator = purekrb.initiate(
        TRUSTED, credential, lab.dc.config, flags=Flag.DEFAULT | Flag.DELEG
    )
    service = established(initiator, keytab)
    assert initiator.flags & service.flags & Flag.DELEG
    delegated = service.delegated_credential
    assert delegated is not None
    onward = purekrb.initiate(WEB, delegated, lab.dc.config)
    assert str(established(onward, lab.keytab).initiator) == "ctx-alice@AD.TEST"
    without = purekrb.initiate(TRUSTED, credential, lab.dc.config)
    assert established(without, keytab).delegated_credential is None


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_a_trusted_service_is_the_client_in_the_directory(lab: Lab, mechanism: str) -> None:
    """CHK-44: what the client may do there, the service may with the delegated credential, and not with its own."""
    keytab, credential = trusted(lab), lab.fresh()
    KdcClient(lab.dc.config).get_tgt(credential, forwardable=True)
    flags = Flag.DEFAULT | Flag.DELEG
    initiator = purekrb.initiate(
        TRUSTED, credential, lab.dc.config, flags=flags, mechanism=mechanism
    )
    delegated = established(initiator, keytab).delegated_credential
    assert delegated is not None
    own = Credential.from_keytab("CTXTRUST$@AD.TEST", keytab)
    alice = f"CN=ctx-alice,CN=Users,{lab.dc.base}"
    for sasl in ("GSSAPI", "GSS-SPNEGO"):
        # Samba and Windows let users change their own telephone number, and nobody else's.
        change = Change(ChangeOperation.REPLACE, "telephoneNumber", [sasl])
        with in_directory(lab.dc, own, sasl) as directory:
            assert find_caller(directory._session).name == "CTXTRUST$"
            with pytest.raises(InsufficientRightsError):
                directory._session.modify(alice, [change])
        with in_directory(lab.dc, delegated, sasl) as directory:
            assert find_caller(directory._session).name == "ctx-alice"
            directory._session.modify(alice, [change])
            (found,) = directory._session.search(
                alice, "(objectClass=user)", ["telephoneNumber"], scope=Scope.BASE
            )
            assert found.text("telephoneNumber") == sasl


def test_an_account_that_must_not_be_delegated_gets_no_forwardable_ticket(lab: Lab) -> None:
    lab.dc.add_user("ctx-sensitive", userAccountControl=str(USER | NOT_DELEGATED))
    tgt = KdcClient(lab.dc.config).get_tgt(lab.fresh("ctx-sensitive"), forwardable=True)
    assert not tgt.flags & TicketFlags.FORWARDABLE
    ordinary = KdcClient(lab.dc.config).get_tgt(lab.fresh(), forwardable=True)
    assert ordinary.flags & TicketFlags.FORWARDABLE
