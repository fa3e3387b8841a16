"""Principals: text and parts, after MIT's quoting rules."""

from __future__ import annotations

import pytest

from purekrb.constants import NameType
from purekrb.errors import DecodeError
from purekrb.names import MAX_TEXT, Principal, PrincipalName

#: What krb5_parse_name of MIT krb5 1.20 makes of a text: its components and realm.
PARSED = [
    ("alice@AD.TEST", ("alice",), "AD.TEST"),
    ("HTTP/web.ad.test@AD.TEST", ("HTTP", "web.ad.test"), "AD.TEST"),
    ("a/b/c@R", ("a", "b", "c"), "R"),
    ("a//b@R", ("a", "", "b"), "R"),
    (r"a\/b@R", ("a/b",), "R"),
    (r"a\@b@R", ("a@b",), "R"),
    (r"a\\b@R", ("a\\b",), "R"),
    (r"a\n\t\bz@R", ("a\n\t\bz",), "R"),
    (r"a\q@R", ("aq",), "R"),
    (r"a@R\@S", ("a",), "R@S"),
    (r"a@C=US\/O=X", ("a",), "C=US/O=X"),
    ("a b@R", ("a b",), "R"),
    ("j\u00fcrgen@R", ("j\u00fcrgen",), "R"),
]


@pytest.mark.parametrize(("text", "components", "realm"), PARSED)
def test_a_principal_is_parsed_as_mit_parses_it(
    text: str, components: tuple[str, ...], realm: str
) -> None:
    principal = Principal.parse(text)
    assert (principal.components, principal.realm) == (components, realm)
    assert Principal.parse(str(principal)) == principal


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (Principal(("a/b", "c@d\\"), "R/S@T"), r"a\/b/c\@d\\@R\/S\@T"),
        (Principal(("a\n\t\b",), "R"), r"a\n\t\b@R"),
        (Principal(("krbtgt", "R"), ""), "krbtgt/R"),
    ],
)
def test_a_principal_is_written_as_mit_writes_it(parts: Principal, text: str) -> None:
    assert str(parts) == text
    assert Principal.parse(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@R",
        "/a@R",
        "a@",
        "a@b@R",
        "a@C=US/O=X",
        "a\\",
        "a@R\\",
        "a\0@R",
        r"a\0@R",
        "a@R\0",
        "x" * (MAX_TEXT + 1),
    ],
)
def test_a_text_that_is_no_principal_is_refused(text: str) -> None:
    assert Principal.parse("x" * MAX_TEXT).components == ("x" * MAX_TEXT,)
    with pytest.raises(DecodeError):
        Principal.parse(text)


def test_the_default_realm_is_taken_only_where_the_text_names_none() -> None:
    assert Principal.parse("a", "DEFAULT").realm == "DEFAULT"
    assert Principal.parse("a@R", "DEFAULT").realm == "R"
    assert Principal.parse("a").realm == ""


def test_the_name_type_does_not_count_in_comparisons_but_all_else_does() -> None:
    principal = Principal(("a", "b"), "R", NameType.SRV_INST)
    assert principal == Principal(("a", "b"), "R", NameType.SRV_HST)
    assert hash(principal) == hash(Principal(("a", "b"), "R", NameType.SRV_HST))
    for components, realm in ((("a", "B"), "R"), (("a", "b"), "r"), (("a",), "R"), (("a/b",), "R")):
        assert principal != Principal(components, realm)
    assert PrincipalName(("a",), NameType.ENTERPRISE) == PrincipalName(("a",))


def test_the_name_type_follows_the_number_of_components() -> None:
    assert Principal.parse("a@R").name_type == NameType.PRINCIPAL
    assert Principal.parse("a/b@R").name_type == NameType.SRV_INST


def test_nul_is_refused_in_every_part_also_without_parsing() -> None:
    assert Principal(("a",), "R").realm == "R"
    for components, realm in ((("a\0",), "R"), (("a", "\0"), "R"), (("a",), "R\0")):
        with pytest.raises(DecodeError, match="NUL"):
            Principal(components, realm)


def test_a_name_and_a_realm_make_a_principal_and_back() -> None:
    principal = Principal(("HTTP", "web"), "R", NameType.SRV_HST)
    assert principal.name == PrincipalName(("HTTP", "web"))
    assert principal.name.principal("R") == principal
    assert principal.name.principal("R").name_type == NameType.SRV_HST
    assert str(principal.name) == "HTTP/web"
