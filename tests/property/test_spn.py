"""Service principal names: round trips, and any text whatever."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from purekrb.errors import SpnError
from purekrb.names import Principal
from purekrb.spn import (
    ServicePrincipalName,
    SpnType,
    crack_spn,
    get_spn,
    make_spn,
    target_principal,
)

TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=20
)
HOST = TEXT.filter(lambda text: ":" not in text)
PORT = st.integers(0, 65535)
NOISE = st.text(st.one_of(st.sampled_from("/:@\\ ,=+[].1aA\0\n"), st.characters()), max_size=40)


@given(TEXT, TEXT, HOST, PORT)
def test_an_spn_of_three_parts_is_made_again_from_its_parts(
    cls: str, name: str, host: str, port: int
) -> None:
    spn = make_spn(cls, name, host, port)
    assert crack_spn(spn) == (cls, name, host, port)
    assert make_spn(*crack_spn(spn)) == spn


@given(TEXT, HOST, PORT)
def test_an_spn_of_two_parts_is_made_again_from_its_parts(cls: str, host: str, port: int) -> None:
    spn = make_spn(cls, host, None, port)
    assert crack_spn(spn) == (cls, host, None, port)
    assert make_spn(*crack_spn(spn)) == spn


@given(
    st.sampled_from(SpnType), TEXT, TEXT, st.lists(st.tuples(HOST, PORT), min_size=1, max_size=4)
)
def test_what_get_spn_makes_is_made_again_from_its_parts(
    spn_type: SpnType, cls: str, name: str, hosts: list[tuple[str, int]]
) -> None:
    spns = get_spn(
        spn_type,
        cls,
        name if spn_type >= SpnType.DOMAIN else None,
        instances=[host for host, _ in hosts],
        ports=[port for _, port in hosts],
    )
    assert len(spns) == len(hosts)
    assert [make_spn(*crack_spn(spn)) for spn in spns] == spns


@given(NOISE)
def test_any_text_is_parsed_and_spelled_alike_or_refused(text: str) -> None:
    with contextlib.suppress(SpnError):
        assert str(ServicePrincipalName.parse(text, strict=False)) == text
    with contextlib.suppress(SpnError):
        spn = ServicePrincipalName.parse(text)
        assert str(spn) == text
        assert spn == ServicePrincipalName.parse(text, strict=False)  # strict is a subset
    with contextlib.suppress(SpnError):
        assert make_spn(*crack_spn(text)).replace(":0", "") == text.replace(":0", "")


@given(NOISE)
def test_any_target_gives_a_name_of_the_same_letters_or_is_refused(text: str) -> None:
    with contextlib.suppress(SpnError):
        principal = target_principal(text, "DEFAULT")
        spelled = "/".join(principal.components).lower()
        plain = text.lower() if "/" in text else text.lower().replace("@", "/", 1)
        plain = "/".join(
            part.replace(".:", ":", 1).removesuffix(".") if number == 1 else part
            for number, part in enumerate(plain.partition("@")[0].split("/"))
        ) + "".join(plain.partition("@")[1:])
        assert plain in (spelled, f"{spelled}@{principal.realm.lower()}")
        assert principal == Principal(principal.components, principal.realm)


@given(
    TEXT,
    HOST,
    st.lists(st.tuples(st.sampled_from(["CN", "ou", "DC"]), TEXT), min_size=1, max_size=3),
)
def test_a_dn_is_equal_to_itself_with_every_character_escaped(
    cls: str, host: str, rdns: list[tuple[str, str]]
) -> None:
    def dn(separator: str) -> str:
        return separator.join(
            f"{attribute}=" + "".join(f"\\{byte:02x}" for byte in value.encode())
            for attribute, value in rdns
        )

    plain = ",".join(
        f"{attribute}=" + "".join("\\" + c if c in ' \\,+"<>;=#' else c for c in value)
        for attribute, value in rdns
    )
    assert ServicePrincipalName(cls, host, 0, plain) == ServicePrincipalName(
        cls, host, 0, dn(" , ")
    )
    assert ServicePrincipalName(cls, host, 0, dn(",")) != ServicePrincipalName(
        cls, host, 0, dn(",") + ",CN=more"
    )
