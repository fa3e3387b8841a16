"""Names as people write them: realms in other letters, Windows' domains, user principal names."""

from __future__ import annotations

import pytest

from purekrb import Config, Credential, Principal
from purekrb.constants import NameType
from purekrb.errors import ConfigError, DecodeError
from purekrb.krb5conf.spelling import (
    client_principal,
    fitting_realm,
    similar_realms,
    unknown_realm,
)
from purekrb.names import as_written

KDC = ["127.0.0.1:61088"]
NORTH = Config({"NORTH.TEST": KDC, "SOUTH.TEST": KDC}, default_realm="NORTH.TEST")
SMALL = Config({"north.test": KDC}, default_realm="NORTH.TEST")


@pytest.mark.parametrize(
    ("text", "components", "realm"),
    [
        ("anna", ("anna",), "NORTH.TEST"),
        ("anna@SOUTH.TEST", ("anna",), "SOUTH.TEST"),
        ("anna@north.test", ("anna",), "north.test"),  # never corrected silently
        ("NORTH\\anna", ("anna",), "NORTH.TEST"),
        ("south\\anna", ("anna",), "SOUTH.TEST"),
        ("south.test\\anna", ("anna",), "SOUTH.TEST"),
        ("NORTH\\nick", ("nick",), "NORTH.TEST"),  # no newline, as in a quoted name
        ("NORTH\\web$", ("web$",), "NORTH.TEST"),
        ("corp.example\\anna", ("anna",), "CORP.EXAMPLE"),
        ("HTTP/web@SOUTH.TEST", ("HTTP", "web"), "SOUTH.TEST"),
        ("john.doe\\@mail.example@SOUTH.TEST", ("john.doe@mail.example",), "SOUTH.TEST"),
    ],
)
def test_a_client_is_read_as_its_user_wrote_it(
    text: str, components: tuple[str, ...], realm: str
) -> None:
    client = client_principal(text, NORTH)
    assert client == Principal(components, realm)
    assert client.name_type != NameType.ENTERPRISE


@pytest.mark.parametrize(
    ("text", "name", "realm"),
    [
        ("john.doe@mail.example", "john.doe@mail.example", "NORTH.TEST"),
        ("jane@north.test", "jane@north.test", "NORTH.TEST"),
        ("anna", "anna", "NORTH.TEST"),
        ("john.doe@mail.example@SOUTH.TEST", "john.doe@mail.example", "SOUTH.TEST"),
        ("john.doe\\@mail.example@SOUTH.TEST", "john.doe@mail.example", "SOUTH.TEST"),
    ],
)
def test_an_enterprise_name_is_one_component_for_the_default_realm(
    text: str, name: str, realm: str
) -> None:
    client = client_principal(text, NORTH, enterprise=True)
    assert (client.components, client.realm) == ((name,), realm)
    assert client.name_type == NameType.ENTERPRISE


def test_a_domain_whose_netbios_name_is_another_is_left_to_its_kdc() -> None:
    client = client_principal("CORP\\anna", NORTH)
    assert (client.components, client.realm) == (("anna@CORP",), "NORTH.TEST")
    assert client.name_type == NameType.ENTERPRISE
    mapped = Config({"NORTH.TEST": KDC}, domain_realm={"corp": "NORTH.TEST"})
    assert client_principal("CORP\\anna", mapped) == Principal(("anna",), "NORTH.TEST")
    with pytest.raises(ConfigError, match=r"anna@REALM.*corp = REALM"):
        client_principal("CORP\\anna", Config(dict.fromkeys(("A.TEST", "B.TEST"), KDC)))


@pytest.mark.parametrize("text", ["", "@", "a@b@", "@mail.example@"])
def test_text_that_is_no_enterprise_name_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="enterprise"):
        as_written(text, enterprise=True)


def test_an_enterprise_name_without_a_default_realm_asks_for_one() -> None:
    with pytest.raises(ConfigError, match="default_realm"):
        client_principal("john.doe@mail.example", Config(), enterprise=True)


def test_a_credential_takes_the_names_as_well() -> None:
    assert Credential.from_password("NORTH\\anna", "pw").principal.realm == ""
    upn = Credential.from_password("john.doe@mail.example", "pw", enterprise=True)
    assert upn.principal.name_type == NameType.ENTERPRISE
    assert Credential.from_password("anna@NORTH.TEST", "pw").principal == Principal.parse(
        "anna@NORTH.TEST"
    )
    with pytest.raises(DecodeError, match="names no realm"):
        Credential.from_password("anna", "pw")
    with pytest.raises(DecodeError, match=r"write anna@REALM"):
        Principal.of("NORTH\\anna")


@pytest.mark.parametrize(
    ("realm", "config", "similar"),
    [
        ("north.test", NORTH, ["NORTH.TEST"]),
        ("North.Test", NORTH, ["NORTH.TEST"]),
        ("NORTH.TEST", SMALL, ["north.test"]),
        ("North.Test", SMALL, ["north.test"]),  # the default realm has no section
        ("NORTH.TEST", NORTH, []),
        ("WEST.TEST", NORTH, []),
        ("north.test", Config(default_realm="NORTH.TEST"), ["NORTH.TEST"]),
        (
            "north.test",
            Config({"NORTH.TEST": KDC, "North.Test": KDC}),
            ["NORTH.TEST", "North.Test"],
        ),
    ],
)
def test_the_realms_in_other_letters_are_named(
    realm: str, config: Config, similar: list[str]
) -> None:
    assert similar_realms(realm, config) == similar
    text = str(unknown_realm(realm, config, of_client=True))
    if similar:
        assert f"{' and '.join(similar)}: realm names are case-sensitive" in text
        assert f"write {' or '.join(similar)} instead" in text
        assert "kdc =" not in text
    else:
        assert "add kdc =" in text


def test_an_unknown_realm_of_a_client_may_be_the_suffix_of_a_upn() -> None:
    assert "kinit -E" in str(unknown_realm("MAIL.EXAMPLE", NORTH, of_client=True))
    assert "kinit -E" not in str(unknown_realm("MAIL.EXAMPLE", NORTH, of_client=False))
    assert "kinit -E" not in str(unknown_realm("MAIL.EXAMPLE", Config(), of_client=True))
    assert "write NORTH.TEST" in str(unknown_realm("NORTH", NORTH, of_client=True))


@pytest.mark.parametrize(
    ("realm", "found"),
    [
        ("", ""),
        ("NORTH.TEST", "NORTH.TEST"),
        ("north.test", "NORTH.TEST"),
        ("NORTH", "NORTH.TEST"),
        ("north", "NORTH.TEST"),
        ("west.test", "WEST.TEST"),  # the client's own realm
        ("WEST", "WEST.TEST"),
        ("elsewhere.test", "elsewhere.test"),
        ("NORT", "NORT"),
    ],
)
def test_the_realm_of_a_target_in_text_is_that_of_the_configuration(realm: str, found: str) -> None:
    assert fitting_realm(realm, NORTH, "WEST.TEST") == found


def test_a_realm_that_fits_twice_is_not_guessed() -> None:
    both = Config(dict.fromkeys(("AD.ONE.TEST", "AD.TWO.TEST"), KDC))
    assert fitting_realm("AD", both) == "AD"
    assert fitting_realm("ad.one.test", both) == "AD.ONE.TEST"
