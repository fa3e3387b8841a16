"""Service principal names: the tables of DsMakeSpn, DsGetSpn and DsCrackSpn, the grammar, and targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from purekrb import system
from purekrb.constants import NameType
from purekrb.errors import KerberosError, SpnError
from purekrb.names import Principal
from purekrb.spn import (
    CrackedSpn,
    ServicePrincipalName,
    SpnType,
    crack_spn,
    get_spn,
    make_spn,
    map_spn,
    target_principal,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "spn.json").read_text())
GET = VECTORS["get_spn"]
DN = "CN=hrdb,OU=mktg,DC=example,DC=com"
GUID = "83c29870-1dfc-11d3-a193-0000f87a9099"


@pytest.fixture
def fqdn(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has the name of the vectors."""
    monkeypatch.setattr(system, "local_fqdn", lambda: GET["local_fqdn"])


# make_spn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", VECTORS["make_spn"], ids=lambda row: row["spn"] or f"error {row['code']}"
)
def test_make_spn_gives_what_ds_make_spn_gives(row: dict[str, Any]) -> None:
    arguments = [
        row[name]
        for name in ("service_class", "service_name", "instance_name", "instance_port", "referrer")
    ]
    if row["spn"] is None:
        with pytest.raises(SpnError) as error:
            make_spn(*arguments)
        assert error.value.code == row["code"]
    else:
        assert make_spn(*arguments) == row["spn"]


def test_a_dn_with_a_slash_is_refused_with_the_advice_to_use_the_guid() -> None:
    with pytest.raises(SpnError, match="objectGUID"):
        make_spn("cls", "CN=a/b,DC=example,DC=com", "web.example.com")
    assert make_spn("cls", GUID, "web.example.com") == f"cls/web.example.com/{GUID}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("cls", "web:80"),
        ("cls", DN, "web:80"),
        ("cls", "fe80::1"),
        ("cls", "web\0"),
        ("cls", "web\n"),
        ("c\x7fls", "web"),
        ("cls", "\ud800"),
    ],
)
def test_names_that_would_change_the_parts_of_the_spn_are_refused(
    arguments: tuple[str, ...],
) -> None:
    with pytest.raises(SpnError):
        make_spn(*arguments)
    assert make_spn("cls", DN, "web", 80) == f"cls/web:80/{DN}"


# get_spn --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fqdn")
@pytest.mark.parametrize(
    "row", GET["rows"], ids=lambda row: f"{SpnType(row['spn_type']).name}-{row['spns'][-1][:30]}"
)
def test_get_spn_gives_what_ds_get_spn_gives(row: dict[str, Any]) -> None:
    assert get_spn(**{name: value for name, value in row.items() if name != "spns"}) == row["spns"]


@pytest.mark.usefixtures("fqdn")
@pytest.mark.parametrize("spn_type", SpnType)
def test_a_service_name_that_does_not_fit_the_type_is_refused(spn_type: SpnType) -> None:
    named = spn_type >= SpnType.DOMAIN
    wrong: tuple[str | None, ...] = (None, "") if named else ("name", "")
    for service_name in wrong:
        with pytest.raises(SpnError) as error:
            get_spn(spn_type, "cls", service_name)
        assert error.value.code == 87
    assert len(get_spn(spn_type, "cls", "name" if named else None)) == 1


@pytest.mark.usefixtures("fqdn")
@pytest.mark.parametrize(
    "arguments",
    [
        {"spn_type": 6},
        {"spn_type": -1},
        {"instances": ["a.example.com"], "ports": [1, 2]},
        {"instances": ["a.example.com", "b.example.com"], "ports": [1]},
        {"instances": ["a.example.com", ""]},
        {"instances": ["a/b"]},
        {"instances": ["a.example.com"], "ports": [65536]},
        {"port": 65536},
        {"service_class": ""},
        {"service_class": "a/b"},
    ],
)
def test_get_spn_refuses_with_error_87(arguments: dict[str, Any]) -> None:
    good: dict[str, Any] = {"spn_type": SpnType.DNS_HOST, "service_class": "cls"}
    assert get_spn(**good) == ["cls/" + GET["local_fqdn"]]
    with pytest.raises(SpnError) as error:
        get_spn(**{**good, **arguments})
    assert error.value.code == 87


def test_one_string_of_instances_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError):
        get_spn(SpnType.DNS_HOST, "cls", instances="web.example.com")


@pytest.mark.parametrize(
    "name", ["localhost", "localhost.localdomain", "web", "10.0.0.1", "::1", ""]
)
def test_a_machine_without_a_dns_name_is_told_to_configure_one(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(system, "local_fqdn", lambda: name)
    with pytest.raises(SpnError, match="host name"):
        get_spn(SpnType.DNS_HOST, "cls")
    assert get_spn(SpnType.DNS_HOST, "cls", instances=["web.example.com"]) == [
        "cls/web.example.com"
    ]


def test_the_name_of_this_machine_is_asked_of_the_system() -> None:
    assert system.local_fqdn()


def test_the_enumeration_has_the_numbers_of_windows() -> None:
    assert {member.name: member.value for member in SpnType} == VECTORS["enumerations"][
        "DS_SPN_NAME_TYPE"
    ]


# crack_spn ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", VECTORS["crack_spn"], ids=lambda row: row["spn"] or "empty")
def test_crack_spn_gives_the_parts_or_error_87(row: dict[str, Any]) -> None:
    if row["parts"] is None:
        with pytest.raises(SpnError) as error:
            crack_spn(row["spn"])
        assert error.value.code == 87
    else:
        assert crack_spn(row["spn"]) == CrackedSpn(*row["parts"])
        assert make_spn(*crack_spn(row["spn"])) == row["spn"]


@pytest.mark.parametrize(
    "row", [row for row in VECTORS["make_spn"] if row["spn"]], ids=lambda row: row["spn"]
)
def test_what_make_spn_made_is_made_again_from_its_parts(row: dict[str, Any]) -> None:
    assert make_spn(*crack_spn(row["spn"])) == row["spn"]


# ServicePrincipalName -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTP/web.example.com", ("HTTP", "web.example.com", 0, None, None)),
        ("HTTP/web.example.com:8080", ("HTTP", "web.example.com", 8080, None, None)),
        ("MSSQLSvc/db.example.com:PAYROLL", ("MSSQLSvc", "db.example.com", 0, None, "PAYROLL")),
        ("MSSQLSvc/db.example.com:a:b", ("MSSQLSvc", "db.example.com", 0, None, "a:b")),
        ("MSSQLSvc/db.example.com:80x", ("MSSQLSvc", "db.example.com", 0, None, "80x")),
        (f"cls/web.example.com/{DN}", ("cls", "web.example.com", 0, DN, None)),
        (f"cls/web.example.com:65535/{DN}", ("cls", "web.example.com", 65535, DN, None)),
        ("cls/web/CN=a\\,b,DC=x", ("cls", "web", 0, "CN=a\\,b,DC=x", None)),
        ("cls/web\\/name", ("cls", "web\\", 0, "name", None)),
    ],
)
def test_an_spn_is_split_at_every_slash_and_at_the_first_colon(
    text: str, expected: tuple[Any, ...]
) -> None:
    spn = ServicePrincipalName.parse(text)
    assert (spn.service_class, spn.host, spn.port, spn.service_name, spn.instance_name) == expected
    assert str(spn) == text


ODD = [
    "cls/web/",
    " /web",
    "cls//name",
    "cls/web ",
    "cls/web\t",
    "cls/web:",
    "cls/web:0",
    "cls/web:0080",
    "cls/web:65536",
    "cls/fe80::1",
    "cls/[fe80::1]:80",
]


@pytest.mark.parametrize("text", ODD)
def test_what_active_directory_stores_is_read_back_verbatim_but_not_taken_as_input(
    text: str,
) -> None:
    assert str(ServicePrincipalName.parse(text, strict=False)) == text
    with pytest.raises(SpnError):
        ServicePrincipalName.parse(text)
    assert ServicePrincipalName.parse("cls/web:80/name").port == 80


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cls",
        "/",
        "//",
        "/web",
        "cls/",
        "cls//",
        "a/b/c/d",
        "a\\/b/c/d",
        "a/b\\/c/d",
        "cls/w\0eb",
        "cls/\udc80",
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_no_spn_at_all_is_refused_either_way(text: str, strict: bool) -> None:
    with pytest.raises(SpnError):
        ServicePrincipalName.parse(text, strict=strict)


def test_a_text_beyond_any_directory_is_refused_before_it_is_looked_at() -> None:
    assert ServicePrincipalName.parse("cls/" + "a" * 8000)
    with pytest.raises(SpnError, match="longer"):
        ServicePrincipalName.parse("cls/" + "a" * 1_000_000)


@pytest.mark.parametrize(
    "parts",
    [
        {"service_class": ""},
        {"service_class": "a/b"},
        {"host": ""},
        {"host": "web:80"},
        {"host": "a/b"},
        {"port": -1},
        {"port": 65536},
        {"port": 80, "instance_name": "x"},
        {"service_name": "CN=a/b"},
        {"instance_name": "a/b"},
    ],
)
def test_parts_that_do_not_make_an_spn_are_refused(parts: dict[str, Any]) -> None:
    good: dict[str, Any] = {"service_class": "cls", "host": "web"}
    assert str(ServicePrincipalName(**good)) == "cls/web"
    with pytest.raises(SpnError):
        ServicePrincipalName(**{**good, **parts})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP/Web.Example.com", "http/WEB.example.COM"),
        ("HTTP/web.example.com.", "HTTP/web.example.com"),
        ("MSSQLSvc/db:Payroll", "mssqlsvc/db:PAYROLL"),
        (f"cls/web/{DN}", "cls/web/cn = HRDB , ou=mktg,dc=example,dc=COM"),
        ("cls/web/CN=a\\,b,DC=x", "cls/web/CN=a\\2cb,DC=x"),
        ("cls/web/CN=\\ a\\ ,DC=x", "cls/web/CN= \\20a\\20 ,DC=x"),
        ("cls/web/CN=a+OU=b,DC=x", "cls/web/OU=b+CN=a,DC=x"),
        ("cls/web/CN=\\C3\\A9,DC=x", "cls/web/CN=é,DC=x"),
    ],
)
def test_spellings_of_one_name_are_equal(one: str, other: str) -> None:
    first, second = ServicePrincipalName.parse(one), ServicePrincipalName.parse(other)
    assert first == second
    assert len({first, second}) == 1
    assert str(first) == one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cls/web", "cls/web:80"),
        ("cls/web:80", "cls/web:81"),
        ("cls/web:x", "cls/web:y"),
        ("cls/web", "cls/web/web"),
        ("cls/web/CN=a,CN=b", "cls/web/CN=b,CN=a"),
        ("cls/web/CN=a\\,CN\\=b", "cls/web/CN=a,CN=b"),
        ("cls/web/CN=a\\ ,DC=x", "cls/web/CN=a,DC=x"),
        ("cls/web/CN=a,", "cls/web/CN=a"),
    ],
)
def test_different_names_are_not_equal(one: str, other: str) -> None:
    assert ServicePrincipalName.parse(one) != ServicePrincipalName.parse(other)


def test_an_spn_is_not_equal_to_its_text() -> None:
    assert ServicePrincipalName.parse("cls/web") != "cls/web"


# map_spn --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spn", "expected"),
    [
        ("cifs/web", "host/web"),
        ("CIFS/Web:80/x", "host/Web:80/x"),
        ("ldap/web", None),
        ("host/web", "other/web"),
        ("spooler/web", "host/web"),
    ],
)
def test_an_alias_replaces_the_class_once(spn: str, expected: str | None) -> None:
    assert map_spn(spn, ["host=alerter,cifs, spooler", "other=host,cifs"]) == expected


# target_principal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "components", "realm"),
    [
        ("HTTP/web.ad.test", ("HTTP", "web.ad.test"), "DEFAULT"),
        # Hosts in text are in small letters and without a trailing dot, as other clients ask for them.
        ("HTTP/WEB.ad.test:8080", ("HTTP", "web.ad.test:8080"), "DEFAULT"),
        ("HTTP/Web.Ad.Test", ("HTTP", "web.ad.test"), "DEFAULT"),
        ("host/WEB", ("host", "web"), "DEFAULT"),
        ("HOST/web.ad.test.", ("HOST", "web.ad.test"), "DEFAULT"),
        ("HTTP/WEB.ad.test.:8080@AD.TEST", ("HTTP", "web.ad.test:8080"), "AD.TEST"),
        ("MSSQLSvc/DB.ad.test:INST", ("MSSQLSvc", "db.ad.test:INST"), "DEFAULT"),
        ("HTTP/WEB.ad.test@Ad.Test", ("HTTP", "web.ad.test"), "Ad.Test"),
        (f"cls/H.ad.test/{DN}", ("cls", "h.ad.test", DN), "DEFAULT"),
        # Host-based names of GSS-API.
        ("HTTP@web.ad.test", ("HTTP", "web.ad.test"), "DEFAULT"),
        ("HTTP@WEB.ad.test.", ("HTTP", "web.ad.test"), "DEFAULT"),
        ("ldap@DC1:3268", ("ldap", "dc1:3268"), "DEFAULT"),
        # The second part is a realm, not a host.
        ("krbtgt/Ad.Test@AD.TEST", ("krbtgt", "Ad.Test"), "AD.TEST"),
        ("WELLKNOWN/ANONYMOUS@AD.TEST", ("WELLKNOWN", "ANONYMOUS"), "AD.TEST"),
        ("HTTP/web.ad.test@AD.TEST", ("HTTP", "web.ad.test"), "AD.TEST"),
        ("HTTP/web.ad.test@lower", ("HTTP", "web.ad.test"), "lower"),
        ("krbtgt/AD.TEST@AD.TEST", ("krbtgt", "AD.TEST"), "AD.TEST"),
        ("krbtgt/B.TEST@A.TEST", ("krbtgt", "B.TEST"), "A.TEST"),
        (f"cls/h.ad.test/{DN}", ("cls", "h.ad.test", DN), "DEFAULT"),
        (f"cls/h.ad.test/{DN}@AD.TEST", ("cls", "h.ad.test", DN), "AD.TEST"),
        ("cls/h.ad.test/CN=a\\,b \\\\,DC=x", ("cls", "h.ad.test", "CN=a\\,b \\\\,DC=x"), "DEFAULT"),
        ("cls/h.ad.test/CN=a@b,DC=x", ("cls", "h.ad.test", "CN=a@b,DC=x"), "DEFAULT"),
        ("cls/h.ad.test/CN=a@b,DC=x@AD.TEST", ("cls", "h.ad.test", "CN=a@b,DC=x"), "AD.TEST"),
        ("cls/h.ad.test/svc@ad.test", ("cls", "h.ad.test", "svc"), "ad.test"),
        ("cls/h.ad.test/cn=a@b", ("cls", "h.ad.test", "cn=a@b"), "DEFAULT"),
        # Whoever passes a Principal, or a name in parts, gets exactly that.
        (Principal(("HTTP", "WEB.ad.test."), "ad.test"), ("HTTP", "WEB.ad.test."), "ad.test"),
        (ServicePrincipalName("HTTP", "WEB.ad.test."), ("HTTP", "WEB.ad.test."), "DEFAULT"),
        (ServicePrincipalName("cls", "h", 80, "CN=a@B"), ("cls", "h:80", "CN=a@B"), "DEFAULT"),
        (Principal(("one", "10.0.0.1", "c", "d"), "R"), ("one", "10.0.0.1", "c", "d"), "R"),
        (Principal(("HTTP", "web"), ""), ("HTTP", "web"), "DEFAULT"),
    ],
)
def test_a_target_names_components_and_realm(
    target: str | Principal | ServicePrincipalName, components: tuple[str, ...], realm: str
) -> None:
    assert target_principal(target, "DEFAULT") == Principal(components, realm)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://web.ad.test/", "HTTP/web.ad.test"),
        ("https://alice:geheim@web.ad.test:8443/a@b?c", "HTTP/web.ad.test"),
        ("ldap://dc1.ad.test", "ldap/dc1.ad.test"),
        ("https://[::1]/", "HTTP/HOST"),
    ],
)
def test_a_url_is_called_so_without_its_password(url: str, name: str) -> None:
    with pytest.raises(
        SpnError, match=f"is a URL: give the service's name, as in {name}$"
    ) as caught:
        target_principal(url)
    assert "geheim" not in str(caught.value)


def test_a_target_is_of_type_srv_inst_and_a_principal_keeps_its_own() -> None:
    assert target_principal("HTTP/web.ad.test").name_type == NameType.SRV_INST
    assert (
        target_principal(ServicePrincipalName("HTTP", "web.ad.test")).name_type == NameType.SRV_INST
    )
    assert (
        target_principal(Principal(("HTTP", "web"), "", NameType.SRV_HST), "R").name_type
        == NameType.SRV_HST
    )


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("", "class/host"),
        ("web.ad.test", "class/host"),
        ("HTTP@web@AD.TEST", "class/host"),
        ("HTTP@", "class/host"),
        ("@web.ad.test", "class/host"),
        ("HTTP@10.0.0.1", "DNS name"),
        ("10.0.0.1", "class/host"),
        ("HTTP/10.0.0.1", "DNS name"),
        ("HTTP/10.0.0.1:80", "DNS name"),
        ("HTTP/fe80::1", "DNS name"),
        ("HTTP/[fe80::1]:80", "DNS name"),
        ("HTTP/web.ad.test@", "class/host@REALM"),
        ("HTTP/web@A@B", "class/host@REALM"),
        ("HTTP/web@AD.TEST/name", "class/host@REALM"),
        ("HTTP/web@A\nB", "realm"),
        ("HTTP/web@A\0B", "realm"),
        ("HTTP/web\0.ad.test", "control"),
        ("HTTP/web\n.ad.test", "control"),
        (ServicePrincipalName("HTTP", "web\n"), "control"),
        ("HTTP/", "class/host"),
        ("/web", "class/host"),
        ("HTTP/@AD.TEST", "class/host"),
        (" HTTP/web", "blanks"),
        ("a/b/c/d", "3 slashes"),
        ("HTTP/\ud800", "surrogate"),
        ("HTTP/web1UWhRCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAwbEAYBAAAA", "plain host name"),
    ],
)
def test_a_target_that_no_kdc_can_know_is_refused_with_advice(
    target: str | ServicePrincipalName, advice: str
) -> None:
    with pytest.raises(SpnError, match=advice) as error:
        target_principal(target, "DEFAULT")
    assert isinstance(error.value, KerberosError)
    assert target_principal("HTTP/web.ad.test", "DEFAULT")
