"""Distinguished names. Their escaping is tested in test_directory.py, their comparison with SPNs in test_spn.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purekrb.dn import dn_key, domain_of, escape_rdn_value, is_at_or_below, parent_of

DN = r"CN=a\,b\\+OU=x,CN=System, DC=Ad,dc=TEST"


def test_a_dn_is_taken_apart_at_the_commas_that_separate() -> None:
    assert parent_of(DN) == "CN=System, DC=Ad,dc=TEST"
    assert parent_of(parent_of(DN)) == "DC=Ad,dc=TEST"
    assert (
        parent_of("dc=TEST") == parent_of("") == parent_of("no dn") == parent_of(r"CN=a\,b") == ""
    )


def test_a_dn_names_its_domain() -> None:
    assert domain_of(DN) == "ad.test"
    assert domain_of("DC=x,CN=y,DC=ad,DC=test") == "ad.test"
    assert domain_of("CN=y") == domain_of("no dn") == domain_of("") == ""


@pytest.mark.parametrize(
    ("dn", "ancestor", "answer"),
    [
        (DN, "DC=ad,DC=test", True),
        (DN, "cn=system,dc=ad,dc=test", True),
        ("DC=ad,DC=test", " dc=AD , dc=test", True),
        ("DC=test", "DC=ad,DC=test", False),
        (r"CN=a\,DC=ad,DC=test", "DC=ad,DC=test", False),
        ("CN=System,DC=bad,DC=test", "DC=ad,DC=test", False),
        ("no dn", "DC=ad,DC=test", False),
        ("DC=ad,DC=test", "no dn", False),
        ("DC=ad,DC=test", "", False),
        ("", "", False),
    ],
)
def test_an_object_is_below_another_or_not(dn: str, ancestor: str, answer: bool) -> None:
    assert is_at_or_below(dn, ancestor) is answer


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(["DC=ad,DC=test", "CN=a+OU=b"]),
)
def test_k268_an_escaped_value_is_one_rdn_whatever_it_holds(value: str, parent: str) -> None:
    dn = f"CN={escape_rdn_value(value)},{parent}"
    assert parent_of(dn) == parent
    assert is_at_or_below(dn, parent)
    assert dn_key(dn) == ((("cn", value.casefold()),), *(dn_key(parent) or ()))


@given(st.text(st.sampled_from('CN=,+\\" ;#<>aé\0')))
def test_any_text_is_taken_apart_without_trouble(text: str) -> None:
    assert len(parent_of(text)) < max(len(text), 1)
    assert domain_of(text) == domain_of(text).casefold()
    assert is_at_or_below(text, parent_of(text)) == bool(dn_key(text) and dn_key(parent_of(text)))


def test_text_that_is_not_unicode_is_compared_all_the_same() -> None:
    assert dn_key("CN=a\udcff,DC=test") == dn_key("cn=a\udcff,dc=TEST")
    assert dn_key("CN=a\udcff,DC=test") != dn_key("CN=a\ud800,DC=test")
