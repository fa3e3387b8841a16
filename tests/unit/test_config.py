"""krb5.conf: its grammar, what counts in it, and Config made by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from purekrb import Config, ConfigError
from purekrb.exchanges.preauth.choice import mechanisms
from purekrb.krb5conf import profile
from purekrb.krb5conf.config import (
    KdcAddress,
    RealmConfig,
    parse_boolean,
    parse_duration,
    parse_etypes,
)
from purekrb.krb5conf.spelling import unknown_realm


@pytest.fixture(autouse=True)
def no_krb5_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRB5_CONFIG", raising=False)


@pytest.fixture
def write(tmp_path: Path):
    """write(text, name=) -> path of a new file with that text."""

    def write(text: str, name: str = "krb5.conf") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


FULL = """\
# a comment
; another one
[libdefaults]
    default_realm = AD.TEST
    dns_lookup_kdc = false
    udp_preference_limit = 1
    clockskew = 2m
    kdc_timesync = 0
    ticket_lifetime = 10h
    renew_lifetime = 7d
    forwardable = yes
    proxiable = on
    noaddresses = no
    canonicalize = true
    permitted_enctypes = aes256-sha2 aes256-cts des-cbc-crc
    default_tkt_enctypes = aes128-cts aes256-cts
    default_keytab_name = "FILE:/etc/a b.keytab"
    default_client_keytab_name = FILE:/var/lib/%{uid}/client.keytab
    default_ccache_name = FILE:/tmp/krb5cc_%{uid}
    kdc_timeout = 3
    max_retries = 2
    request_timeout = 20s

[realms]
    AD.TEST = {
        kdc = dc1.ad.test
        kdc = [::1]:1088
        kdc = tcp/dc3.ad.test:89
        master_kdc = dc1.ad.test
        kpasswd_server = dc1.ad.test
        admin_server = dc1.ad.test
        pkinit_anchors = FILE:/etc/ca.pem
        auth_to_local = {
            inner = x
        }
    }
    OTHER.TEST = {
        kdc = udp://10.0.0.1
    }
[domain_realm]
    .ad.test = AD.TEST
    ad.test = AD.TEST
    special.ad.test = OTHER.TEST
[capaths]
    AD.TEST = {
        FAR.TEST = MID.TEST
        FAR.TEST = NEAR.TEST
        OTHER.TEST = .
    }
[logging]
    default = FILE:/var/log/krb5.log
"""


def test_everything_that_counts_is_read(write: Any) -> None:
    config = Config.from_file(write(FULL))
    assert config == Config(
        realms={
            "AD.TEST": RealmConfig(
                kdc=(
                    KdcAddress("dc1.ad.test", 88),
                    KdcAddress("::1", 1088),
                    KdcAddress("dc3.ad.test", 89, "tcp"),
                ),
                primary_kdc=(KdcAddress("dc1.ad.test", 88),),
                kpasswd_server=(KdcAddress("dc1.ad.test", 464),),
                admin_server=(KdcAddress("dc1.ad.test", 749),),
                options={"pkinit_anchors": ("FILE:/etc/ca.pem",)},
            ),
            "OTHER.TEST": ["udp://10.0.0.1:88"],
        },
        default_realm="AD.TEST",
        domain_realm={".ad.test": "AD.TEST", "ad.test": "AD.TEST", "special.ad.test": "OTHER.TEST"},
        capaths={"AD.TEST": {"FAR.TEST": ("MID.TEST", "NEAR.TEST"), "OTHER.TEST": (".",)}},
        dns_lookup_kdc=False,
        udp_preference_limit=1,
        clockskew=120,
        kdc_timesync=False,
        ticket_lifetime=36000,
        renew_lifetime=604800,
        forwardable=True,
        proxiable=True,
        noaddresses=False,
        canonicalize=True,
        permitted_enctypes=(20, 18),
        default_tkt_enctypes=(17, 18),
        default_keytab_name="FILE:/etc/a b.keytab",
        default_client_keytab_name="FILE:/var/lib/%{uid}/client.keytab",
        default_ccache_name="FILE:/tmp/krb5cc_%{uid}",
        kdc_timeout=3,
        max_retries=2,
        request_timeout=20,
    )


def test_an_empty_file_gives_the_defaults(write: Any) -> None:
    assert Config.from_file(write("")) == Config() == Config.from_file("/dev/null")
    config = Config()
    assert config.dns_lookup_kdc
    assert not config.dns_lookup_realm
    assert config.permitted_etypes == config.tkt_etypes == config.tgs_etypes == (18, 17, 20, 19)


def test_a_config_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Config().default_realm = "X"  # type: ignore[misc]


# -- which files -----------------------------------------------------------------------------------------------------


def test_krb5_config_lists_files_and_the_first_one_counts(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write("[libdefaults]\ndefault_realm = A\n[realms]\nA = {\nkdc = one\n}\n", "first")
    second = write(
        "[libdefaults]\ndefault_realm = B\nclockskew = 9\n[realms]\nA = {\nkdc = two\n}\n", "second"
    )
    monkeypatch.setenv("KRB5_CONFIG", f"{first}:/nonexistent/krb5.conf:{second}")
    config = Config.from_file()
    assert (config.default_realm, config.clockskew) == ("A", 9)
    assert [kdc.host for kdc in config.kdcs("A")] == ["one", "two"]


@pytest.mark.parametrize("listed", ["/nonexistent/a", "/nonexistent/a:/nonexistent/b"])
def test_krb5_config_without_any_existing_file_is_an_error(
    listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5_CONFIG", listed)
    with pytest.raises(ConfigError, match="KRB5_CONFIG"):
        Config.from_file()


def test_a_missing_default_file_is_an_empty_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("purekrb.krb5conf.config.DEFAULT_PATH", tmp_path / "none")
    assert Config.from_file() == Config()
    (tmp_path / "none").write_text("[libdefaults]\ndefault_realm = A\n")
    assert Config.from_file().default_realm == "A"


def test_a_missing_file_that_was_named_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError, match=r"none cannot be read \(No such file or directory\): check the path"
    ):
        Config.from_file(tmp_path / "none")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="not a regular file"):
            Config.from_file(path)


# -- include ---------------------------------------------------------------------------------------------------------


def test_include_and_includedir_are_followed_in_order(write: Any, tmp_path: Path) -> None:
    for name in ("b_2", "a-1", "c3.conf", ".hidden.conf", "d.conf~", "e.rpmsave", "f g", ".conf"):
        write(f"[domain_realm]\n{name.replace(' ', '')} = R\n", f"dir/{name}")
    (tmp_path / "dir" / "subdirectory").mkdir()
    write("[libdefaults]\ndefault_realm = INNER\n", "inner")
    path = write(
        f"include {tmp_path}/inner\nincludedir {tmp_path}/dir\n[libdefaults]\ndefault_realm = OUTER\n"
    )
    config = Config.from_file(path)
    assert list(config.domain_realm) == ["a-1", "b_2", "c3.conf"]
    assert config.default_realm == "INNER"


def test_an_include_leaves_the_section_around_it_alone(write: Any, tmp_path: Path) -> None:
    write("[realms]\nA = {\nkdc = one\n}\n", "inner")
    config = Config.from_file(
        write(f"[libdefaults]\ninclude {tmp_path}/inner\ndefault_realm = A\n")
    )
    assert (config.default_realm, config.kdcs("A")) == ("A", (KdcAddress("one"),))


def test_include_loops_and_floods_are_bounded(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="includes itself"):
        Config.from_file(write(f"include {tmp_path}/krb5.conf\n"))
    for i in range(300):
        write("[libdefaults]\n", f"many/f{i}")
    with pytest.raises(ConfigError, match="more than 256 files"):
        Config.from_file(write(f"includedir {tmp_path}/many\n"))
    monkeypatch.setattr(profile, "MAX_SIZE", 100)
    with pytest.raises(ConfigError, match="more than 100 bytes"):
        Config.from_file(write("#" * 101))
    assert Config.from_file(write("#" * 100)) == Config()


def test_a_relation_named_include_is_none(write: Any) -> None:
    assert (
        Config.from_file(
            write("[x]\ninclude = /nonexistent\n[libdefaults]\ndefault_realm = A")
        ).default_realm
        == "A"
    )


# -- grammar ---------------------------------------------------------------------------------------------------------


def value_of(write: Any, relation: str) -> str | None:
    return Config.from_file(write(f"[libdefaults]\n{relation}\n")).default_realm


@pytest.mark.parametrize(
    ("relation", "value"),
    [
        ("default_realm = A", "A"),
        ("\t default_realm=A \t", "A"),
        ("default_realm = A # a comment", "A"),
        ("default_realm = A#B;C", "A#B;C"),
        ('default_realm = "A B"', "A B"),
        (r'default_realm = "a\"b\\c\td\x"', 'a"b\\c\tdx'),
        ('default_realm = ""', ""),
        ("default_realm* = A", "A"),
        ("default_realm = A\ndefault_realm = B", "A"),
        ("default_realm = a=b", "a=b"),
        ("default_realm = A\r", "A"),
        ("#default_realm = A", None),
        ("default_realm =\n{\nx = y\n}", None),
        ('default_realm = "A', "A"),
    ],
)
def test_a_relation_is_read(write: Any, relation: str, value: str | None) -> None:
    assert value_of(write, relation) == value


SKIPPED = [
    ("default_realm = X", 1, "before any section"),
    ("[libdefaults\ndefault_realm = X", 1, "expected a section"),
    ("[libdefaults] x", 1, "text after the name"),
    ("[libdefaults]\nno relation", 2, "expected 'name = value'"),
    ("[libdefaults]\na b = c", 2, "expected 'name = value'"),
    ("[libdefaults]\n= c", 2, "expected 'name = value'"),
    ("[libdefaults]\nmodule /usr/lib/x.so:y", 2, "a module is a C library"),
    ("include /nonexistent/x", 1, "include names what cannot be read"),
    ("includedir /nonexistent/x", 1, "includedir names what cannot be read"),
    ("include relative.conf", 1, "absolute path"),
    ("[realms]\nA = {\nx = y", 2, "a '}' is missing"),
    ("[realms]\nA = {\nx = y }", 2, "a '}' is missing"),
    ("[realms]\nA =", 2, "neither a value nor a '{'"),
    ("[realms]\nA =\nkdc = x", 2, "neither a value nor a '{'"),
    ("[realms]\n}", 2, "'}' without"),
    ("[realms]\nA = { kdc = x }", 2, "the group A on one line is not read as one"),
    ("[realms]\nA = {kdc = x", 2, "the group A on one line is not read as one"),
    ("[realms]\nA = {\n B = { c = d }\n}", 3, "the group B on one line"),
    ("[realms]\nA = {\n} x", 3, "text after a '}'"),
    ("[libdefaults]\nclockskew = soon", 2, "'soon' is not a duration"),
    ("[libdefaults]\nclockskew = 5m # minutes", 2, "a line of its own"),
    ("[libdefaults]\nforwardable = maybe", 2, "'maybe' is not a boolean"),
    ("[libdefaults]\nnoaddresses = enabled", 2, "'enabled' is not a boolean"),
    ("[libdefaults]\nudp_preference_limit = -1", 2, "'-1' is not a number"),
    ("[realms]\nA = {\nkdc = host:99999\n}", 3, "'host:99999' is not the address"),
    ("[realms]\nA = {\nkdc = host backup\n}", 3, "only the first word"),
    ("[domain_realm]\nhost.test = R ; comment", 2, "a line of its own"),
]


@pytest.mark.parametrize(("text", "line", "why"), SKIPPED)
def test_a_line_that_cannot_be_read_is_skipped_and_noted(
    write: Any, text: str, line: int, why: str
) -> None:
    path = write(f"{text}\n[libdefaults]\ndefault_realm = A\n")
    config = Config.from_file(path)
    assert config.default_realm == "A"
    assert [skipped.where for skipped in config.skipped] == [f"{path}:{line}"]
    assert why in config.skipped[0].reason
    assert config.files == (str(path),)


def test_a_realm_whose_group_is_on_one_line_is_told_of_when_it_is_asked(write: Any) -> None:
    """MIT's library reads it as a value, and finds no KDC."""
    conf = write("[libdefaults]\ndns_lookup_kdc = false\n[realms]\nA = { kdc = x }\nB = {x}\n")
    config = Config.from_file(conf)
    assert config.kdcs("A") == ()
    error = unknown_realm("A", config, of_client=False)
    assert f"{conf}:4: the group A on one line is not read as one" in str(error)
    assert "one line" not in str(unknown_realm("B", config, of_client=False))


def test_the_log_warns_of_a_skipped_line_once(write: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = write("[libdefaults]\nforwardable = maybe\n")
    for _ in range(3):
        assert len(Config.from_file(path).skipped) == 1
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"{path}:2: 'maybe' is not a boolean: write true or false; this is skipped"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("default_realm = A", r":1: .*not a krb5.conf"),
        ("<html>\n<body>\n", r":1: .*not a krb5.conf"),
        ("[libdefaults]\ndefault_realm = A\0B\n", "NUL"),
        ("[realms]\n" + "a = {\n" * 20, ":18: braces more than 16 deep"),
    ],
)
def test_what_is_no_krb5_conf_is_refused_with_its_file(write: Any, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"krb5\.conf.*{why}"):
        Config.from_file(write(text))


#: krb5.conf as machines have it, which MIT's programs read.
_REALM = "[realms]\n NORTH.TEST = {\n  kdc = 127.0.0.1:61088\n }\n"
AS_FOUND = {
    "a comment after a value": (
        "[libdefaults]\n default_realm = NORTH.TEST\n dns_lookup_kdc = false ; fixed KDCs below\n"
        " ticket_lifetime = 10h # ten hours\n" + _REALM
    ),
    "a KDC with a comment": (
        "[libdefaults]\n default_realm = NORTH.TEST\n"
        + _REALM.replace("61088", "61088   # kdc1.north.test")
    ),
    "a brace at the end of a line": (
        "[libdefaults]\n default_realm = NORTH.TEST\n"
        + _REALM
        + "[dbmodules]\n  NORTH.TEST = {\n    db_library = ipadb.so }\n"
    ),
    "such a brace before other sections": (
        "[libdefaults]\n default_realm = NORTH.TEST\n[dbmodules]\n  NORTH.TEST = {\n"
        "    db_library = ipadb.so }\n" + _REALM
    ),
    "a brace missing at the end": "[libdefaults]\n default_realm = NORTH.TEST\n" + _REALM[:-4],
    "a relation that is not used": (
        "[libdefaults]\n default_realm = NORTH.TEST\n noaddresses = enabled\n" + _REALM
    ),
    "a token of another program": (
        "[libdefaults]\n default_realm = NORTH.TEST\n default_client_keytab_name = "
        "FILE:%{LOCALSTATEDIR}/krb5/user/%{euid}/client.keytab\n" + _REALM
    ),
    "directories of another machine": (
        "includedir /nonexistent/krb5.include.d/\n[libdefaults]\n default_realm = NORTH.TEST\n"
        + _REALM
    ),
    "encryption types of the past": (
        "[libdefaults]\n default_realm = NORTH.TEST\n default_tkt_enctypes = des-cbc-crc\n" + _REALM
    ),
}


@pytest.mark.parametrize("text", AS_FOUND.values(), ids=AS_FOUND)
def test_a_krb5_conf_as_found_in_the_wild_is_read(write: Any, text: str) -> None:
    config = Config.from_file(write(text))
    assert config.default_realm == "NORTH.TEST"
    assert config.kdcs("NORTH.TEST") == (KdcAddress("127.0.0.1", 61088),)


def test_a_value_counts_without_the_comment_after_it(write: Any) -> None:
    config = Config.from_file(write(AS_FOUND["a comment after a value"]))
    assert (config.dns_lookup_kdc, config.ticket_lifetime) == (False, 36000)


def test_a_realm_whose_kdcs_cannot_be_read_is_refused_when_it_is_asked(write: Any) -> None:
    path = write("[realms]\nA = {\nkdc = a:b:c\n}\nB = {\nkdc = a:b:c\nkdc = good\n}\n")
    config = Config.from_file(path)
    assert config.kdcs("B") == (KdcAddress("good"),)
    assert config.kdcs("C") == ()
    with pytest.raises(ConfigError, match=r"krb5\.conf:3: 'a:b:c' is not the address of a KDC"):
        config.kdcs("A")


def test_sections_and_subsections_that_come_twice_are_one(write: Any) -> None:
    config = Config.from_file(
        write(
            "[realms]\nA = {\nkdc = one\n}\n[libdefaults]\ndefault_realm = A\n[realms]\nA = {\nkdc = two\n}\n"
        )
    )
    assert [kdc.host for kdc in config.kdcs("A")] == ["one", "two"]


@pytest.mark.parametrize(
    ("first", "hosts"),
    [
        ("[realms]\nA = {\nkdc = one\n}\n", ["one", "two"]),
        ("[realms]*\nA = {\nkdc = one\n}\n", ["one"]),
        ("[realms]\nA = {\nkdc = one\n}*\n", ["one"]),
        ("[realms]\nA* = {\nkdc = one\n}\n", ["one"]),
        ("[realms]\nA = {\nkdc* = one\n}\n", ["one"]),
        ("[realms]\nB = {\nkdc = one\n}*\n", ["two"]),
    ],
)
def test_what_is_final_takes_nothing_from_later_files(
    write: Any, monkeypatch: pytest.MonkeyPatch, first: str, hosts: list[str]
) -> None:
    later = write("[realms]\nA = {\nkdc = two\n}\n", "later")
    monkeypatch.setenv("KRB5_CONFIG", f"{write(first)}:{later}")
    assert [kdc.host for kdc in Config.from_file().kdcs("A")] == hosts


def test_other_encodings_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "krb5.conf"
    path.write_bytes(b"\xef\xbb\xbf[libdefaults]\n# caf\xe9\ndefault_realm = A\n")
    assert Config.from_file(path).default_realm == "A"


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", KdcAddress("host")),
        ("host:750", KdcAddress("host", 750)),
        ("10.0.0.1", KdcAddress("10.0.0.1")),
        ("[2001:db8::1]", KdcAddress("2001:db8::1")),
        ("[2001:db8::1]:750", KdcAddress("2001:db8::1", 750)),
        ("2001:db8::1", KdcAddress("2001:db8::1")),
        ("tcp/host", KdcAddress("host", 88, "tcp")),
        ("udp/host:750", KdcAddress("host", 750, "udp")),
        ("tcp://host:750", KdcAddress("host", 750, "tcp")),
        ("TCP://[::1]:750/", KdcAddress("::1", 750, "tcp")),
        ("udp://::1", KdcAddress("::1", 88, "udp")),
        ("https://proxy.test/KdcProxy", KdcAddress("proxy.test", 443, "https", "/KdcProxy")),
        ("HTTPS://proxy.test:8443/a/b?c=d", KdcAddress("proxy.test", 8443, "https", "/a/b?c=d")),
        ("https://[2001:db8::1]/x", KdcAddress("2001:db8::1", 443, "https", "/x")),
        ("https://proxy.test", KdcAddress("proxy.test", 443, "https", "/")),
        ("http/proxy.test", KdcAddress("proxy.test", 0, "http")),
        ("UNIX:/run/kdc.sock", KdcAddress("/run/kdc.sock", 0, "unix")),
    ],
)
def test_a_kdc_is_named_in_many_forms(text: str, address: KdcAddress) -> None:
    assert KdcAddress.parse(text) == address
    assert Config(realms={"R": [text]}).kdcs("R") == (address,)
    if address.port:
        assert KdcAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "a b",
        "[::1",
        "::1]:88",
        "[]",
        "tcp://",
        "tcp://:88",
        "a:b:c",
    ],
)
def test_what_names_no_kdc_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not the address of a KDC"):
        KdcAddress.parse(text)
    with pytest.raises(ConfigError, match="not the address of a KDC"):
        Config(realms={"R": [text]})


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "https:///KdcProxy",
        "https://:443/KdcProxy",
        "https://host:0/x",
        "https://host:65536/x",
        "https://host:x/x",
        "https://user@host/x",
        "https://user:secret@host/x",
        "https://host/a#b",
        "https://host/\u00e4",
        "https://h\u00f6st/x",
        "https://host/a\rX-Y: z",
        "https://[::1/x",
        "https://-host/x",
    ],
)
def test_what_is_no_url_of_a_kdc_proxy_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not the URL of a KDC proxy"):
        KdcAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("300", 300),
        ("300s", 300),
        ("5m", 300),
        ("10h", 36000),
        ("7d", 604800),
        ("7d 3h", 615600),
        ("7d3h", 615600),
        ("1d 2h 3m 4s", 93784),
        ("1:30", 5400),
        ("0:01:30", 90),
        ("1-12:00:00", 129600),
    ],
)
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "1w", "h", "3h 7d", "1:2:3:4", "1.5h", "9" * 10, "\u0661", "10 h 5"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        parse_duration(text)


def test_booleans_are_spelled_in_many_ways() -> None:
    assert all(parse_boolean(text) for text in ("y", "yes", "t", "true", "TRUE", "1", "on"))
    assert not any(
        parse_boolean(text) for text in ("n", "no", "f", "false", "nil", "0", "off", "OFF")
    )
    with pytest.raises(ConfigError, match="not a boolean"):
        parse_boolean("2")


@pytest.mark.parametrize(
    ("text", "etypes"),
    [
        ("aes256-sha2", (20,)),
        ("aes128-sha2, aes256-sha1,aes128-sha1", (19, 18, 17)),
        ("AES256-CTS-HMAC-SHA1-96 aes128-cts", (18, 17)),
        ("aes256-cts-hmac-sha384-192 aes128-cts-hmac-sha256-128", (20, 19)),
        ("aes", (18, 17, 20, 19)),
        ("aes -aes128-cts -aes128-sha2", (18, 20)),
        ("rc4 arcfour-hmac rc4-hmac arcfour-hmac-md5", (23,)),
        ("DEFAULT", (18, 17, 20, 19, 23)),
        ("DEFAULT -rc4", (18, 17, 20, 19)),
        ("rc4 +aes", (23, 18, 17, 20, 19)),
        ("des des3 camellia des-cbc-crc aes256-cts", (18,)),
        ("", ()),
    ],
)
def test_encryption_types_are_listed_by_names_and_families(
    text: str, etypes: tuple[int, ...]
) -> None:
    assert parse_etypes(text) == etypes


def test_rc4_counts_only_when_it_is_allowed(write: Any) -> None:
    rc4_first = Config(permitted_enctypes=(23, 18))
    assert rc4_first.permitted_etypes == rc4_first.tkt_etypes == (18,)
    assert Config(permitted_enctypes=(23, 18), allow_rc4=True).tgs_etypes == (23, 18)
    assert Config(allow_rc4=True).permitted_etypes == (18, 17, 20, 19, 23)
    text = "[libdefaults]\npermitted_enctypes = rc4\n"
    config = Config.from_file(write(text))  # other commands need no encryption type
    with pytest.raises(ConfigError, match=r"krb5\.conf:2: .*allow_rc4 = true"):
        _ = config.permitted_etypes
    assert Config.from_file(write(text + "allow_rc4 = true\n")).permitted_etypes == (23,)


def test_what_is_asked_for_is_limited_to_what_is_permitted() -> None:
    config = Config(
        permitted_enctypes=(18, 17), default_tkt_enctypes=(20, 17, 18), default_tgs_enctypes=(18,)
    )
    assert (config.tkt_etypes, config.tgs_etypes) == ((17, 18), (18,))
    with pytest.raises(ConfigError, match="leave no encryption type"):
        Config(permitted_enctypes=(18,), default_tgs_enctypes=(17,))
    with pytest.raises(ConfigError, match="leave no encryption type"):
        Config(permitted_enctypes=(1, 3, 16))


# -- questions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("web.ad.test", "AD.TEST"),
        ("WEB.AD.TEST.", "AD.TEST"),
        ("deep.down.ad.test", "AD.TEST"),
        ("ad.test", "HERE.TEST"),
        ("special.ad.test", "OTHER.TEST"),
        ("below.special.ad.test", "AD.TEST"),
        ("notad.test", None),
        ("test", None),
        ("", None),
        ("10.0.0.1", None),
    ],
)
def test_the_realm_of_a_host_is_that_of_its_name_or_nearest_domain(
    host: str, realm: str | None
) -> None:
    config = Config(
        domain_realm={
            ".AD.test": "AD.TEST",
            "ad.test": "HERE.TEST",
            "special.ad.test": "OTHER.TEST",
        }
    )
    assert config.realm_of(host) == realm


def test_a_capath_names_the_realms_between() -> None:
    config = Config(capaths={"A": {"C": ["B"], "D": ["."]}})
    assert config.capath("A", "C") == ["B"]
    assert config.capath("A", "D") == []
    assert config.capath("A", "E") is None
    assert config.capath("C", "A") is None


def test_an_unknown_realm_has_no_servers() -> None:
    assert Config().kdcs("R") == Config().primary_kdcs("R") == ()
    assert Config().realm("R") == RealmConfig()


# Relations that others own, and that purekrb follows or names


APPDEFAULTS = """
[libdefaults]
    default_realm = A.TEST
[appdefaults]
    pam = {
        A.TEST = {
            forwardable = one
        }
        forwardable = two
        minimum_uid = 1000
    }
    A.TEST = {
        forwardable = three
        afs = yes
    }
    forwardable = four
    debug = true
"""


def test_appdefaults_are_searched_from_the_inside_out(write: Any) -> None:
    config = Config.from_file(write(APPDEFAULTS))
    assert config.app_default("pam", "forwardable") == "one"
    assert config.app_default("pam", "forwardable", "A.TEST") == "one"
    assert config.app_default("pam", "forwardable", "B.TEST") == "two"
    assert config.app_default("ssh", "forwardable") == "three"
    assert config.app_default("ssh", "forwardable", "B.TEST") == "four"
    assert config.app_default("pam", "afs") == "yes"
    assert config.app_default("pam", "debug") == "true"
    assert config.app_default("pam", "nothing") is None
    assert config.app_default("pam", "nothing", default="x") == "x"
    assert Config().app_default("pam", "forwardable") is None


def test_a_module_is_skipped_with_its_reason(write: Any) -> None:
    path = write("module /usr/lib/profile.so:x\n[libdefaults]\n default_realm = A.TEST\n")
    config = Config.from_file(path)
    assert config.default_realm == "A.TEST"
    assert [(line.where, "C library" in line.reason) for line in config.skipped] == [
        (f"{path}:1", True)
    ]


def test_what_has_no_effect_is_listed_with_its_reason(write: Any) -> None:
    path = write(
        "[libdefaults]\n qualify_shortname = example.test\n rdns = true\n"
        " dns_canonicalize_hostname = false\n dns_lookup_realm = false\n"
        "[plugins]\n localauth = {\n  module = x:/lib/x.so\n }\n"
        " clpreauth = {\n  disable = spake\n  module = y:/lib/y.so\n }\n"
    )
    found = {
        line.where.rpartition(":")[2]: line.reason for line in Config.from_file(path).without_effect
    }
    assert set(found) == {"2", "3", "8", "12"}
    assert found["2"].startswith("qualify_shortname is not followed: names of hosts")
    assert found["12"].startswith("module of clpreauth is not followed: plugins are C libraries")
    assert Config.from_file(path).clpreauth_disable == ("spake",)


def test_relations_of_pre_authentication_and_addresses_are_read(write: Any) -> None:
    path = write(
        "[libdefaults]\n preferred_preauth_types = 17, 16 2\n"
        " extra_addresses = 192.0.2.1, 2001:db8::1\n enforce_ok_as_delegate = true\n"
        "[plugins]\n clpreauth = {\n  enable_only = spake\n  enable_only = pkinit\n }\n"
    )
    config = Config.from_file(path)
    assert config.preferred_preauth_types == (17, 16, 2)
    assert config.extra_addresses == ("192.0.2.1", "2001:db8::1")
    assert config.enforce_ok_as_delegate
    assert config.clpreauth_enable_only == ("spake", "pkinit")
    assert config.without_effect == ()
    bad = write("[libdefaults]\n preferred_preauth_types = x\n extra_addresses = host\n")
    assert [line.where.rpartition(":")[2] for line in Config.from_file(bad).skipped] == ["2", "3"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, [138, 151, 2]),
        ({"preferred": (17, 16, 15, 14)}, [138, 151, 2]),
        ({"preferred": (17, 2), "public_key": True}, [16, 2, 138, 151]),
        ({"preferred": (2, 151)}, [2, 151, 138]),
        ({"disabled": ("encrypted_timestamp",)}, [138, 151]),
        ({"enabled": ("spake", "otp")}, [151]),
        ({"enabled": ("spake",), "disabled": ("spake",)}, []),
        ({"disabled": ("nobody's",)}, [138, 151, 2]),
    ],
)
def test_kinds_of_pre_authentication_are_ordered_and_switched_off(
    arguments: dict[str, Any], names: list[int]
) -> None:
    assert [int(row.type) for row in mechanisms(None, unasked=False, **arguments)] == names
