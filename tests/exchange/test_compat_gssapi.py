"""purekrb.compat.gssapi as a program uses it, in an embedded realm: names, credentials, contexts, messages, errors."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import purekrb.compat.gssapi as gssapi
from purekrb import Acceptor, Credential, KdcClient, Keytab
from purekrb.compat.gssapi import raw
from purekrb.compat.gssapi.exceptions import EncryptionNotUsed, GSSError, UnknownUsageError
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm
from support.canaries import PASSWORD, leaks, shown

SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
KERBEROS = gssapi.MechType.kerberos
HOSTBASED = gssapi.NameType.hostbased_service
WEB = "HTTP@web.example.test"
Flag = gssapi.RequirementFlag


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Realm, Path]]:
    directory = tmp_path_factory.mktemp("gssapi")
    with Realm("EXAMPLE.TEST") as realm:
        realm.write_krb5_conf(directory / "krb5.conf")
        alice = realm.add_user("alice", "pw of alice")
        realm.add_user("bob", "pw of bob")
        keytab = Keytab(
            [
                *realm.add_service("HTTP/web.example.test"),
                *realm.add_service("imap/web.example.test"),
            ]
        )
        keytab.save(directory / "service.keytab")
        KdcClient(realm.config).get_tgt(alice, forwardable=True)
        alice.save(directory / "alice")
        yield realm, directory


@pytest.fixture(autouse=True)
def environment(lab: tuple[Realm, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, directory = lab
    ccache = tmp_path / "ccache"
    ccache.write_bytes((directory / "alice").read_bytes())
    ccache.chmod(0o600)
    values = {
        "KRB5_CONFIG": str(directory / "krb5.conf"),
        "KRB5CCNAME": f"FILE:{ccache}",
        "KRB5_KTNAME": str(directory / "service.keytab"),
        "KRB5_CLIENT_KTNAME": str(tmp_path / "none"),
        "KRB5RCACHENAME": "memory:",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def web() -> gssapi.Name:
    return gssapi.Name(WEB, HOSTBASED)


def both(**options: object) -> tuple[gssapi.SecurityContext, gssapi.SecurityContext]:
    """Return both ends of a new context."""
    initiator = gssapi.SecurityContext(name=web(), usage="initiate", **options)  # type: ignore[arg-type]
    acceptor = gssapi.SecurityContext(usage="accept")
    token = None
    while not (initiator.complete and acceptor.complete):
        token = initiator.step(token)
        token = acceptor.step(token) if token else None
    return initiator, acceptor


# -- names


def test_a_host_based_name_is_a_principal_with_the_host_in_small_letters() -> None:
    name = gssapi.Name("HTTP@Web.Example.Test.", HOSTBASED)
    assert str(name) == "HTTP@Web.Example.Test."
    assert not name.is_mech_name
    mech_name = name.canonicalize(KERBEROS)
    assert (str(mech_name), mech_name.mech) == ("HTTP/web.example.test@", KERBEROS)
    assert mech_name == name == copy.deepcopy(name)
    assert name != gssapi.Name("HTTP@other.example.test", HOSTBASED)


@pytest.mark.parametrize(
    ("kind", "text", "principal"),
    [
        ("user", "alice", "alice@EXAMPLE.TEST"),
        ("user", "alice@OTHER.TEST", "alice@OTHER.TEST"),
        ("kerberos_principal", "host/web", "host/web@EXAMPLE.TEST"),
        ("anonymous", "", "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"),
        ("string_uid", "0", "root@EXAMPLE.TEST"),
    ],
)
def test_each_type_of_name_stands_for_a_principal(kind: str, text: str, principal: str) -> None:
    name = gssapi.Name(text, getattr(gssapi.NameType, kind))
    assert name.name_type == getattr(gssapi.NameType, kind)
    assert str(name.canonicalize(KERBEROS)) == principal


def test_exported_names_are_those_of_mit() -> None:
    """The bytes are from MIT's library, 1.20.1."""
    name = gssapi.Name("HTTP@b.c", HOSTBASED).canonicalize(KERBEROS)
    plain = "0401000b06092a864886f71201020200000009485454502f622e6340"
    assert name.export().hex() == plain
    assert name.export(composite=True).hex() == "0402" + plain[4:] + "00000000"
    assert gssapi.Name(token=name.export()) == name
    assert gssapi.Name(token=name.export(composite=True), composite=True) == name
    assert pickle.loads(pickle.dumps(name)) == name
    assert not list(name.attributes)
    with pytest.raises(gssapi.exceptions.MechanismNameRequiredError):
        gssapi.Name("HTTP@b.c", HOSTBASED).export()
    for damaged in (name.export()[:-1], name.export() + b"x", b"", b"\x04\x01" * 20):
        with pytest.raises(gssapi.exceptions.BadNameError):
            gssapi.Name(token=damaged)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(gssapi.exceptions.BadNameError):
        gssapi.Name("", HOSTBASED)
    with pytest.raises(gssapi.exceptions.BadNameError):
        gssapi.Name("a@b@c").canonicalize(KERBEROS)
    with pytest.raises(gssapi.exceptions.BadNameTypeError):
        gssapi.Name("a", gssapi.OID.from_int_seq("1.2.3"))
    with pytest.raises(gssapi.exceptions.BadMechanismError):
        gssapi.Name("a").canonicalize(gssapi.OID.from_int_seq("1.2.3"))


# -- credentials


def test_the_default_credential_is_that_of_the_ccache() -> None:
    creds = gssapi.Credentials(usage="initiate")
    assert str(creds.name) == "alice@EXAMPLE.TEST"
    assert creds.usage == "initiate"
    assert 0 < (creds.lifetime or 0) <= 86400
    assert creds.mechs == {KERBEROS, SPNEGO}
    assert creds.inquire(lifetime=False, mechs=False).lifetime is None


def test_an_acceptor_has_no_end_and_takes_any_key_or_that_of_its_name() -> None:
    creds = gssapi.Credentials(usage="accept")
    assert (str(creds.name), creds.lifetime) == ("HTTP/web.example.test@EXAMPLE.TEST", None)
    assert (creds.usage, creds.inquire_by_mech(KERBEROS).init_lifetime) == ("accept", 0)
    for name in ("HTTP@web.example.test", "HTTP", "imap"):
        assert (
            gssapi.Credentials(name=gssapi.Name(name, HOSTBASED), usage="accept").name is not None
        )
    with pytest.raises(gssapi.exceptions.MissingCredentialsError) as caught:
        gssapi.Credentials(name=gssapi.Name("smtp@web.example.test", HOSTBASED), usage="accept")
    assert caught.value.min_code == 39756033
    assert "No key table entry found matching smtp/web.example.test" in str(caught.value)


def test_a_client_may_not_be_who_the_ccache_is_not() -> None:
    with pytest.raises(
        gssapi.exceptions.MissingCredentialsError, match="Can't find client principal bob@EXAMPLE"
    ):
        gssapi.Credentials(name=gssapi.Name("bob"), usage="initiate")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for store, usage, minor, words in (
        ({"ccache": f"FILE:{tmp_path}/no"}, "initiate", 2529639107, "No credentials cache found"),
        ({"keytab": f"{tmp_path}/no"}, "accept", 2529639093, "is nonexistent or empty"),
    ):
        with pytest.raises(gssapi.exceptions.MissingCredentialsError) as caught:
            gssapi.Credentials(store=store, usage=usage)
        assert caught.value.maj_code == 7 << 16
        assert caught.value.min_code == minor
        assert words in str(caught.value)
    with pytest.raises(gssapi.exceptions.OperationUnavailableError, match="'verify'"):
        gssapi.Credentials(store={"verify": "x"}, usage="initiate")
    with pytest.raises(ValueError, match="permitted values"):
        gssapi.Credentials(usage="all")


def test_a_password_in_a_store_and_by_its_function(lab: tuple[Realm, Path]) -> None:
    name = gssapi.Name("bob")
    creds = gssapi.Credentials(name=name, usage="initiate", store={"password": "pw of bob"})
    _, acceptor = both(creds=creds)
    assert str(acceptor.initiator_name) == "bob@EXAMPLE.TEST"
    creds, mechs, lifetime = raw.acquire_cred_with_password(name, b"pw of bob")
    assert KERBEROS in mechs
    assert lifetime
    with pytest.raises(GSSError) as caught:
        raw.acquire_cred_with_password(name, b"pw of nobody")
    assert caught.value.min_code == 2529638936
    assert "Preauthentication failed" in str(caught.value)
    assert "nobody" not in str(caught.value)


@pytest.mark.parametrize("call", ["store", "function", "usage", "key"])
def test_no_error_shows_a_password(call: str) -> None:
    name, secret = gssapi.Name("nobody"), PASSWORD
    calls = {
        "store": lambda: both(
            creds=gssapi.Credentials(name=name, usage="initiate", store={"password": secret})
        ),
        "function": lambda: raw.acquire_cred_with_password(name, secret.encode()),
        "usage": lambda: gssapi.Credentials(name=name, usage="no", store={"password": secret}),
        "key": lambda: gssapi.Credentials.acquire(name, store={"password": secret, "other": ""}),
    }
    with pytest.raises((GSSError, ValueError)) as caught:
        calls[call]()
    assert not leaks(shown(caught.value), [secret.encode()])


def test_a_client_keytab_serves_where_the_ccache_does_not(
    lab: tuple[Realm, Path], tmp_path: Path
) -> None:
    Keytab.from_password("bob@EXAMPLE.TEST", "pw of bob").save(tmp_path / "client.keytab")
    store = {"ccache": f"FILE:{tmp_path}/no", "client_keytab": str(tmp_path / "client.keytab")}
    _, acceptor = both(creds=gssapi.Credentials(usage="initiate", store=store))
    assert str(acceptor.initiator_name) == "bob@EXAMPLE.TEST"


def test_tickets_are_stored_and_not_overwritten_unasked(tmp_path: Path) -> None:
    store = {b"ccache": f"FILE:{tmp_path}/stored".encode()}
    creds = gssapi.Credentials(usage="initiate")
    assert creds.store(store).usage == "initiate"
    assert os.stat(tmp_path / "stored").st_mode & 0o777 == 0o600
    with pytest.raises(gssapi.exceptions.DuplicateCredentialsElementError):
        creds.store(store)
    creds.store(store, overwrite=True)
    assert gssapi.Credentials(usage="initiate", store=store).name == creds.name
    with pytest.raises(gssapi.exceptions.DuplicateCredentialsElementError):
        creds.add(gssapi.Name("alice"), KERBEROS, usage="initiate")


def test_an_exported_credential_works_and_holds_no_password() -> None:
    creds = gssapi.Credentials(
        name=gssapi.Name("bob"), usage="initiate", store={"password": "pw of bob"}
    )
    token = creds.export()
    assert b"pw of bob" not in token
    _, acceptor = both(creds=gssapi.Credentials(token=token))
    assert str(acceptor.initiator_name) == "bob@EXAMPLE.TEST"
    assert pickle.loads(pickle.dumps(gssapi.Credentials(usage="accept"))).usage == "accept"
    for damaged in (b"", token[:-1], b"x" + token):
        with pytest.raises(gssapi.exceptions.InvalidTokenError):
            gssapi.Credentials(token=damaged)
    assert "pw of bob" not in repr(creds)


def test_a_renewed_ccache_is_seen_by_a_credential_that_exists(
    lab: tuple[Realm, Path], tmp_path: Path
) -> None:
    creds = gssapi.Credentials(usage="initiate")
    bob = Credential.from_password("bob@EXAMPLE.TEST", "pw of bob")
    KdcClient(lab[0].config).get_tgt(bob)
    bob.save(tmp_path / "ccache")
    _, acceptor = both(creds=creds)
    assert str(acceptor.initiator_name) == "bob@EXAMPLE.TEST"


def test_a_new_service_ticket_goes_to_the_ccache(tmp_path: Path) -> None:
    both()
    kept = [str(ticket.service) for ticket in Credential.from_ccache(tmp_path / "ccache").ccache]
    assert "HTTP/web.example.test@EXAMPLE.TEST" in kept


def test_expired_tickets_raise_where_the_lifetime_is_asked_for(
    lab: tuple[Realm, Path], tmp_path: Path
) -> None:
    alice = Credential.from_ccache(tmp_path / "ccache")
    [tgt] = list(alice.ccache)
    from datetime import timedelta

    from purekrb import CCache
    from purekrb.records import replace

    old = replace(
        tgt, endtime=tgt.authtime + timedelta(seconds=1), authtime=tgt.authtime - timedelta(hours=1)
    )
    CCache(alice.principal, [replace(old, endtime=old.authtime + timedelta(minutes=1))]).save(
        tmp_path / "ccache"
    )
    creds = gssapi.Credentials(usage="initiate")
    with pytest.raises(gssapi.exceptions.ExpiredCredentialsError):
        _ = creds.lifetime
    assert creds.usage == "initiate"


# -- contexts


def test_a_context_by_default_proves_both_sides() -> None:
    initiator, acceptor = both()
    for context in (initiator, acceptor):
        assert context.mech == KERBEROS
        assert str(context.initiator_name) == "alice@EXAMPLE.TEST"
        assert 0 < context.lifetime <= 86400
        for flag in (
            Flag.mutual_authentication,
            Flag.confidentiality,
            Flag.integrity,
            Flag.protection_ready,
        ):
            assert flag in context.actual_flags
        assert Flag.delegate_to_peer not in context.actual_flags
    assert initiator.locally_initiated
    assert not acceptor.locally_initiated
    assert initiator.target_name == web()
    assert str(acceptor.target_name) == "HTTP/web.example.test@EXAMPLE.TEST"
    assert acceptor.delegated_creds is None


@pytest.mark.parametrize("mech", [SPNEGO, KERBEROS, None])
@pytest.mark.parametrize(
    "flags", [[Flag.mutual_authentication], int(Flag.mutual_authentication), Flag.integrity]
)
def test_every_mechanism_and_form_of_flags(mech: gssapi.OID | None, flags: object) -> None:
    initiator, acceptor = both(mech=mech, flags=flags)
    mutual = flags != Flag.integrity
    assert (Flag.mutual_authentication in acceptor.actual_flags) == mutual
    assert acceptor.unwrap(initiator.wrap(b"data", True).message).message == b"data"


def test_a_delegated_credential_is_used_and_stored(tmp_path: Path) -> None:
    initiator, acceptor = both(flags=Flag.delegate_to_peer)
    assert Flag.delegate_to_peer in acceptor.actual_flags
    assert (
        Flag.mutual_authentication in initiator.actual_flags
    )  # a TGT goes only to who proves itself
    delegated = acceptor.delegated_creds
    assert delegated is not None
    assert str(delegated.name) == "alice@EXAMPLE.TEST"
    delegated.store({"ccache": f"FILE:{tmp_path}/delegated"}, overwrite=True)
    _, onward = both(
        creds=gssapi.Credentials(usage="initiate", store={"ccache": f"FILE:{tmp_path}/delegated"})
    )
    assert str(onward.initiator_name) == "alice@EXAMPLE.TEST"


def test_a_service_acts_for_users_who_came_and_for_others(
    lab: tuple[Realm, Path], tmp_path: Path
) -> None:
    realm, _ = lab
    front, back = "HTTP/front.example.test", "HTTP/back.example.test"
    keytab = realm.add_service(front, delegate_to=[back], trusted_to_auth=True)
    back_keytab = realm.add_service(back)
    keytab.save(tmp_path / "keytab")
    own = Credential.from_keytab(f"{front}@EXAMPLE.TEST", keytab)
    KdcClient(realm.config).get_tgt(own, forwardable=True)
    own.save(tmp_path / "own")
    store = {"ccache": str(tmp_path / "own"), "keytab": str(tmp_path / "keytab")}
    service = gssapi.Credentials(usage="both", store=store)  # type: ignore[arg-type]
    user = gssapi.SecurityContext(name=gssapi.Name("HTTP@front.example.test", HOSTBASED))
    accepting = gssapi.SecurityContext(creds=service, usage="accept")
    accepting.step(user.step())
    acting = [accepting.delegated_creds, service.impersonate(gssapi.Name("bob@EXAMPLE.TEST"))]
    for creds, name in zip(acting, ("alice", "bob"), strict=True):
        assert creds is not None
        assert str(creds.name) == f"{name}@EXAMPLE.TEST"
        assert creds.lifetime
        impersonator = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2.5.14")
        assert raw.inquire_cred_by_oid(creds, impersonator) == [f"{front}@EXAMPLE.TEST".encode()]
        creds.store({"ccache": str(tmp_path / name)}, usage="initiate", overwrite=True)
        stored = gssapi.Credentials(usage="initiate", store={"ccache": str(tmp_path / name)})
        for one in (creds, stored):
            target = gssapi.Name("HTTP@back.example.test", HOSTBASED)
            onward = gssapi.SecurityContext(name=target, creds=one, usage="initiate")
            acceptor = Acceptor(back_keytab, replay_cache=MemoryReplayCache())
            acceptor.step(onward.step())
            assert str(acceptor.initiator) == f"{name}@EXAMPLE.TEST"
    with pytest.raises(GSSError, match="may not act for"):
        gssapi.SecurityContext(name=web(), creds=acting[1], usage="initiate").step()


def test_delegation_by_policy_needs_the_kdcs_mark(caplog: pytest.LogCaptureFixture) -> None:
    _, acceptor = both(flags=[Flag.ok_as_delegate, Flag.mutual_authentication])
    assert acceptor.delegated_creds is None
    assert "OK-AS-DELEGATE" in caplog.text


def test_a_context_goes_on_where_it_is_imported() -> None:
    initiator, acceptor = both()
    first = initiator.wrap(b"one", True).message
    moved = gssapi.SecurityContext(token=initiator.export())
    taken = pickle.loads(pickle.dumps(acceptor))
    assert moved.usage == "initiate"
    assert moved.complete
    assert taken.unwrap(first).message == b"one"
    assert taken.unwrap(moved.wrap(b"two", True).message).message == b"two"
    with pytest.raises(gssapi.exceptions.MissingContextError):
        initiator.wrap(b"three", True)
    for damaged in (b"", b"purekrb", moved.export()[:-1]):
        with pytest.raises(GSSError):
            gssapi.SecurityContext(token=damaged)


def test_before_the_first_step_nothing_is_known() -> None:
    context = gssapi.SecurityContext(name=web())
    assert (context.usage, context.complete, context.delegated_creds) == ("initiate", False, None)
    for name in ("actual_flags", "initiator_name", "mech", "locally_initiated", "target_name"):
        with pytest.raises(AttributeError, match="not yet been started"):
            getattr(context, name)
    for call in (lambda: context.lifetime, lambda: context.wrap(b"", True), context.export):
        with pytest.raises(gssapi.raw.ContextReadError):
            call()
    with pytest.raises(TypeError, match="pass the 'name'"):
        gssapi.SecurityContext(usage="initiate")
    with pytest.raises(TypeError):
        gssapi.SecurityContext(usage="accept", name=web())
    with pytest.raises(UnknownUsageError, match="Unable to determine security context usage"):
        gssapi.SecurityContext(usage="both")


@pytest.mark.parametrize("deferred", [True, False])
def test_an_error_with_a_token_is_raised_at_the_next_use(
    deferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gssapi.SecurityContext, "__DEFER_STEP_ERRORS__", deferred)
    ours = raw.ChannelBindings(application_data=b"tls-unique:ours")
    theirs = raw.ChannelBindings(application_data=b"tls-unique:theirs")
    initiator = gssapi.SecurityContext(name=web(), channel_bindings=ours)
    acceptor = gssapi.SecurityContext(usage="accept", channel_bindings=theirs)
    token = initiator.step()

    def use() -> object:
        return acceptor.complete if deferred else acceptor.step(token)

    if deferred:
        assert isinstance(acceptor.step(token), bytes)
    with pytest.raises(gssapi.exceptions.BadChannelBindingsError, match="Incorrect channel"):
        use()
    assert not acceptor.complete


def test_channel_bindings_that_are_equal_are_told() -> None:
    bindings = raw.ChannelBindings(application_data=b"tls-unique:ours")
    initiator = gssapi.SecurityContext(name=web(), channel_bindings=bindings)
    acceptor = gssapi.SecurityContext(usage="accept", channel_bindings=bindings)
    initiator.step(acceptor.step(initiator.step()))
    assert Flag.channel_bound in acceptor.actual_flags
    assert Flag.channel_bound not in both()[1].actual_flags


@pytest.mark.parametrize(
    ("fields", "digest"),
    [
        ({"application_data": b"x"}, "cd8658b0"),
        ({"initiator_address": b"127.0.0.1"}, "b8eb1960"),
        ({"initiator_address_type": 2}, "153c33e1"),
        ({"acceptor_address": b"\0", "application_data": b"x"}, "0495be69"),
    ],
)
def test_bindings_are_those_of_mit(fields: dict[str, object], digest: str) -> None:
    """The digests are from tokens of python-gssapi 1.12 on MIT's library, 1.20.1."""
    bindings = raw.ChannelBindings(**fields)  # type: ignore[arg-type]
    assert bindings._to_purekrb().digest().hex().startswith(digest)


def test_a_token_is_taken_once_unless_the_store_says_otherwise() -> None:
    token = gssapi.SecurityContext(name=web()).step()
    first, second = (gssapi.SecurityContext(usage="accept") for _ in range(2))
    first.step(token)
    assert first.complete
    assert second.step(token)  # a KRB-ERROR
    with pytest.raises(GSSError, match="Request is a replay") as caught:
        _ = second.complete
    assert (caught.value.maj_code, caught.value.min_code) == (13 << 16, 2529638946)
    careless = gssapi.Credentials(usage="accept", store={"rcache": "none:"})
    third = gssapi.SecurityContext(creds=careless)
    third.step(token)
    assert third.complete


@pytest.mark.parametrize("nothing", [None, b""])
def test_a_service_that_answers_with_nothing_is_not_trusted(nothing: bytes | None) -> None:
    context = gssapi.SecurityContext(name=web())
    context.step()
    with pytest.raises(GSSError, match="Mutual authentication failed"):
        context.step(nothing)
    assert not context.complete


def test_a_keytab_that_is_replaced_serves_the_credential_that_exists(
    lab: tuple[Realm, Path], tmp_path: Path
) -> None:
    genuine = Keytab.load(lab[1] / "service.keytab")
    Keytab.from_password("HTTP/web.example.test@EXAMPLE.TEST", "an old password").save(
        tmp_path / "keytab"
    )
    store = {"keytab": str(tmp_path / "keytab")}
    creds = gssapi.Credentials(name=web(), usage="accept", store=store)
    refusing = gssapi.SecurityContext(creds=creds)
    refusing.step(gssapi.SecurityContext(name=web()).step())
    with pytest.raises(GSSError):
        _ = refusing.complete
    genuine.save(tmp_path / "keytab")
    accepting = gssapi.SecurityContext(creds=creds)
    accepting.step(gssapi.SecurityContext(name=web()).step())
    assert accepting.complete


def test_an_acceptor_with_a_name_takes_no_other_service(lab: tuple[Realm, Path]) -> None:
    imap = gssapi.Credentials(name=gssapi.Name("imap@web.example.test", HOSTBASED), usage="accept")
    context = gssapi.SecurityContext(creds=imap)
    context.step(gssapi.SecurityContext(name=web()).step())
    with pytest.raises(GSSError):
        _ = context.complete


def test_what_goes_wrong_has_the_words_and_numbers_of_mit(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = gssapi.Name("HTTP@nobody.example.test", HOSTBASED)
    with pytest.raises(GSSError, match="Server not found in Kerberos database") as caught:
        gssapi.SecurityContext(name=unknown).step()
    assert caught.value.min_code == 2529638919
    assert caught.value.gen_message().startswith(
        "Major (851968): Unspecified GSS failure.  Minor code may"
    )
    with pytest.raises(gssapi.exceptions.BadMechanismError):
        gssapi.SecurityContext(name=web(), mech=gssapi.OID.from_int_seq("1.2.3")).step()
    for garbage in (b"garbage", b"<html>"):
        with pytest.raises(GSSError):
            gssapi.SecurityContext(usage="accept").step(garbage)
    monkeypatch.setenv("KRB5CCNAME", "FILE:/nowhere/ccache")
    with pytest.raises(
        gssapi.exceptions.MissingCredentialsError, match="No Kerberos credentials available"
    ):
        gssapi.SecurityContext(name=web()).step()


# -- messages


def test_messages_tell_whether_they_were_encrypted() -> None:
    initiator, acceptor = both()
    for encrypt in (True, False):
        wrapped = initiator.wrap(b"data", encrypt)
        assert wrapped.encrypted is encrypt
        assert (b"data" in wrapped.message) is not encrypt
        assert acceptor.unwrap(wrapped.message) == (b"data", encrypt, 0)
    assert acceptor.decrypt(initiator.encrypt(b"data")) == b"data"
    with pytest.raises(EncryptionNotUsed) as caught:
        acceptor.decrypt(initiator.wrap(b"data", False).message)
    assert caught.value.unwrapped_message == b"data"
    assert initiator.get_wrap_size_limit(100) < 100


def test_a_message_that_is_not_genuine_or_not_in_order_is_refused() -> None:
    initiator, acceptor = both()
    one, two, three = (initiator.wrap(b"data", True).message for _ in range(3))
    damaged = one[:-1] + bytes((one[-1] ^ 1,))
    with pytest.raises(gssapi.exceptions.BadMICError, match="invalid Message Integrity Check"):
        acceptor.unwrap(damaged)
    acceptor.unwrap(one)
    with pytest.raises(gssapi.exceptions.DuplicateTokenError):
        acceptor.unwrap(one)
    with pytest.raises(gssapi.exceptions.TokenTooEarlyError):
        acceptor.unwrap(three)
    with pytest.raises(gssapi.exceptions.TokenOutOfSequenceError):
        acceptor.unwrap(two)
    mic = initiator.get_signature(b"data")
    with pytest.raises(gssapi.exceptions.BadMICError):
        acceptor.verify_signature(b"date", mic)
    assert acceptor.verify_signature(b"data", mic) == 0


def test_buffers_and_derived_bytes() -> None:
    initiator, acceptor = both()
    iov = raw.IOV(b"one", (raw.IOVBufferType.sign_only, b"signed"), b"two")
    assert [buffer.type.name for buffer in iov] == [
        "header",
        "data",
        "sign_only",
        "data",
        "padding",
        "trailer",
    ]
    assert raw.wrap_iov(initiator, iov)
    assert iov[1].value != b"one"
    assert raw.unwrap_iov(acceptor, iov) == (True, 0)
    assert (iov[1].value, iov[3].value) == (b"one", b"two")
    with pytest.raises(GSSError, match="call wrap_iov_length first"):
        raw.wrap_iov(initiator, raw.IOV(b"data", auto_alloc=False))
    sealed = raw.wrap_aead(initiator, b"data", b"beside").message
    assert raw.unwrap_aead(acceptor, sealed, b"beside").message == b"data"
    assert raw.pseudo_random(initiator, 0, b"seed", 40) == raw.pseudo_random(
        acceptor, 0, b"seed", 40
    )
    with pytest.raises(gssapi.exceptions.BadQoPError):
        raw.wrap(initiator, b"data", True, 7)


# -- what is not there


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("krb5_import_cred", (raw.Creds(), 1)),
        ("get_name_attribute", (raw.Name(), b"urn:x")),
        ("set_name_attribute", (raw.Name(), b"urn:x", [b"y"])),
        ("delete_name_attribute", (raw.Name(), b"urn:x")),
        ("process_context_token", (raw.SecurityContext(), b"")),
        ("inquire_cred_by_oid", (raw.Creds(), KERBEROS)),
        ("set_sec_context_option", (KERBEROS, raw.SecurityContext())),
        ("set_cred_option", (KERBEROS,)),
    ],
)
def test_a_function_that_is_not_there_says_so_by_its_name(
    function: str, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(
        gssapi.exceptions.OperationUnavailableError, match=f"Minor \\(0\\): {function}"
    ):
        getattr(raw, function)(*arguments)


def test_an_error_of_every_code_has_its_class_and_words() -> None:
    for code, name in (
        (1, "BadMechanismError"),
        (7, "MissingCredentialsError"),
        (18, "MechanismNameRequiredError"),
    ):
        assert type(GSSError(code << 16, 0)).__name__ == name
    error = GSSError(1 << 24 | 2 << 16, 0)
    assert type(error) is raw.NameReadError
    assert isinstance(error, raw.BadNameError)
    assert "could not be read -- An invalid name was supplied" in str(error)
    assert type(pickle.loads(pickle.dumps(error))) is raw.NameReadError
    assert type(GSSError(13 << 16, 0)) is GSSError
