"""Class LDAP: what accounts and names are called, and what others write at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purekrb.directory import Directory, EmbeddedDirectory, SpnOperation
from purekrb.directory.connect import Sessions
from purekrb.directory.ldap import Change, ChangeOperation, LdapSession, any_equals, equals, like
from purekrb.errors import AccountNotFoundError, DirectoryError, KerberosError, SpnNotUniqueError

ADD, REPLACE, DELETE = SpnOperation.ADD, SpnOperation.REPLACE, SpnOperation.DELETE
METACHARACTERS = st.sampled_from("*()\\\0/&|!=<>~ #,+;\"':5c2a\t\u00a0é\U0001d11e")
HOSTILE = st.text(st.one_of(METACHARACTERS, st.characters()), max_size=60)
FORMS: dict[str, Callable[[str], str]] = {
    "equals": lambda value: equals("servicePrincipalName", value),
    "any-equals": lambda value: any_equals("servicePrincipalName", [value]),
    "beside-others": lambda value: f"(&(objectClass=user){equals('servicePrincipalName', value)})",
}


@pytest.fixture
def directory() -> Iterator[EmbeddedDirectory]:
    with Directory.embedded() as directory:
        for name in ("one", "two"):
            directory.add_user(name)
        yield directory


def store(directory: Directory, account: str, *spns: str) -> None:
    """Write past what our writers check, as replication does when two domain controllers were written at once."""
    dn = directory.find_account(account).dn
    LdapSession.modify(
        directory._session, dn, [Change(ChangeOperation.REPLACE, "servicePrincipalName", spns)]
    )


# Filters --------------------------------------------------------------------------------------------------------


def assertions(search_filter: str) -> list[bytes]:
    """Return the values that are asserted in the LDAP message with `search_filter` that goes to the server."""
    from ldap3.operation.search import (
        search_operation,
    )  # here, since purekrb silences what its import warns of

    request = search_operation(
        "DC=x",
        search_filter,
        "SUBTREE",
        "NEVER",
        ["cn"],
        0,
        0,
        False,
        auto_escape=True,
        auto_encode=True,
    )
    found: list[bytes] = []

    def visit(node: object) -> None:
        kind = node.getName()  # type: ignore[attr-defined]
        component = node.getComponent()  # type: ignore[attr-defined]
        if kind in ("and", "or"):
            for child in component:
                visit(child)
        elif kind == "equalityMatch":
            if str(component["attributeDesc"]) != "objectClass":
                found.append(bytes(component["assertionValue"]))
        elif kind == "substringFilter":
            found.extend(bytes(part.getComponent()) for part in component["substrings"])
        else:
            raise AssertionError(f"the filter has a {kind}")

    visit(request["filter"])
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@given(value=HOSTILE)
def test_k267_any_text_is_one_assertion_of_just_this_text_or_refused(
    form: Callable[[str], str], value: str
) -> None:
    if not value or any(
        ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in value
    ):
        with pytest.raises(DirectoryError, match="cannot search"):
            form(value)
    else:
        assert assertions(form(value)) == [value.encode()]


@given(value=st.binary(min_size=1, max_size=40))
def test_k267_any_bytes_are_one_assertion_of_just_these_bytes(value: bytes) -> None:
    assert assertions(equals("objectSid", value)) == [value]


@given(
    parts=st.lists(
        HOSTILE.filter(lambda text: "*" not in text and text.isprintable()), min_size=2, max_size=4
    )
)
def test_k267_in_a_pattern_only_the_asterisk_has_a_meaning(parts: list[str]) -> None:
    if any(parts):
        assert assertions(like("servicePrincipalName", "*".join(parts))) == [
            part.encode() for part in parts if part
        ]


def test_k267_a_long_name_is_one_assertion_too() -> None:
    value = "cls/h/" + "*()\\" * 2500
    assert assertions(equals("servicePrincipalName", value)) == [value.encode()]


@pytest.mark.parametrize(
    "account",
    [
        "*",
        "o*",
        "one)(cn=*",
        "*)(|(cn=*",
        "\\2a",
        "EXAMPLE\\*",
        "*@example.test",
        "S-1-5-*",
        "one\0",
        "CN=*",
    ],
)
@pytest.mark.parametrize("operation", [ADD, REPLACE, DELETE])
def test_k267_an_account_with_filter_characters_is_no_other_account(
    directory: EmbeddedDirectory, operation: SpnOperation, account: str
) -> None:
    directory.write_account_spn(ADD, "one", ["cls/one"])
    with pytest.raises(KerberosError):
        directory.write_account_spn(operation, account, ["cls/one"])
    assert directory.find_account("one").spns == ("cls/one",)
    assert directory.find_account("two").spns == ()


# Duplicates -----------------------------------------------------------------------------------------------------


def test_k269_a_duplicate_a_missing_and_a_unique_name_are_told_apart(
    directory: EmbeddedDirectory,
) -> None:
    assert directory.find_spn("cls/x") == []
    assert directory.duplicate_spns() == {}
    directory.write_account_spn(ADD, "one", ["cls/x", "cls/y"])
    assert [account.name for account in directory.find_spn("cls/x")] == ["one"]
    assert directory.duplicate_spns() == {}
    store(directory, "two", "CLS/x.", "CLS/X", "cls/z")
    assert [account.name for account in directory.find_spn("cls/x")] == ["one", "two"]
    assert {
        spn: [account.name for account in accounts]
        for spn, accounts in directory.duplicate_spns().items()
    } == {"cls/x": ["one", "two"]}


def test_k269_a_name_that_two_others_have_is_refused_with_both(
    directory: EmbeddedDirectory,
) -> None:
    directory.add_user("three")
    directory.write_account_spn(ADD, "one", ["cls/x"])
    store(directory, "two", "cls/X")
    with pytest.raises(SpnNotUniqueError) as error:
        directory.write_account_spn(ADD, "three", ["cls/free", "CLS/x"])
    assert error.value.spn == "CLS/x"
    assert error.value.owners == tuple(directory.find_account(name).dn for name in ("one", "two"))
    assert error.value.code == 8647
    assert directory.find_account("three").spns == ()
    directory.write_account_spn(ADD, "three", ["cls/free"])


def test_k269_a_name_that_only_the_catalog_knows_is_refused(directory: EmbeddedDirectory) -> None:
    with Directory.embedded("other.test") as other:
        other.add_user("remote")
        other.write_account_spn(ADD, "remote", ["cls/x"])
        forest = Directory(Sessions(directory._session, other._session))
        with pytest.raises(SpnNotUniqueError, match="CN=remote"):
            forest.write_account_spn(ADD, "one", ["cls/x"])
        assert [account.name for account in forest.find_spn("cls/x")] == ["remote"]
        forest.write_account_spn(ADD, "one", ["cls/y"])
        # The catalog does not know cls/y yet; the domain does.
        with pytest.raises(SpnNotUniqueError, match="CN=one"):
            forest.write_account_spn(ADD, "two", ["cls/y"])


def test_k269_two_accounts_of_one_name_are_no_account(directory: EmbeddedDirectory) -> None:
    session = directory._session
    dn = directory.find_account("two").dn
    LdapSession.modify(
        session, dn, [Change(ChangeOperation.REPLACE, "userPrincipalName", ["one@example.test"])]
    )
    with pytest.raises(DirectoryError, match="2 objects") as error:
        directory.write_account_spn(ADD, "one@example.test", ["cls/x"])
    assert not isinstance(error.value, AccountNotFoundError)
    directory.write_account_spn(ADD, "one", ["cls/x"])


# Two writers ----------------------------------------------------------------------------------------------------


def test_k274_a_name_that_another_takes_between_check_and_write_is_refused_by_the_directory(
    directory: EmbeddedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    modify = directory._session.modify

    def overtaken(dn: str, *arguments: object, **options: object) -> None:
        store(directory, "two", "CLS/x")
        modify(dn, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(directory._session, "modify", overtaken)
    with pytest.raises(SpnNotUniqueError) as error:
        directory.write_account_spn(ADD, "one", ["cls/x"])
    assert error.value.owners == (directory.find_account("two").dn,)
    assert error.value.ldap_result == 19
    assert directory.find_account("one").spns == ()


def test_k274_an_account_that_another_deletes_between_check_and_write_is_not_found(
    directory: EmbeddedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    modify = directory._session.modify

    def overtaken(dn: str, *arguments: object, **options: object) -> None:
        directory._session.delete(dn)
        modify(dn, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(directory._session, "modify", overtaken)
    with pytest.raises(AccountNotFoundError):
        directory.write_account_spn(ADD, "one", ["cls/x"])


@pytest.mark.parametrize("same", [True, False], ids=["one-account", "two-accounts"])
def test_k274_of_many_writers_none_is_lost_and_one_wins_a_name(
    directory: EmbeddedDirectory, same: bool
) -> None:
    refused: list[str] = []

    def run(number: int) -> None:
        account = "one" if same or number % 2 else "two"
        directory.change_account_spns(account, add=[f"cls/{number}"], delete=["cls/none"])
        try:
            directory.write_account_spn(ADD, account, ["cls/wanted"])
        except SpnNotUniqueError:
            refused.append(account)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spns = [spn for name in ("one", "two") for spn in directory.find_account(name).spns]
    assert sorted(spns) == sorted(["cls/wanted", *(f"cls/{number}" for number in range(12))])
    assert len(refused) == (0 if same else 6)
