"""What each part of the package loads, in interpreters of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import purekrb

HEAVY = (
    "impacket",
    "pyasn1",
    "ldap3",
    "flask",
    "dns",
    "rich",
    "cryptography",
    "Cryptodome",
    "OpenSSL",
    "sqlite3",
)


def loaded_after(statement: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split()) & set(HEAVY)


def test_importing_the_package_loads_no_dependency() -> None:
    assert loaded_after("import purekrb") == set()
    assert (
        loaded_after(
            "import purekrb; dir(purekrb); purekrb.KerberosError; purekrb.Principal.parse('a@R')"
        )
        == set()
    )


def test_contexts_need_neither_pyasn1_nor_ldap3_nor_dns() -> None:
    assert loaded_after("import purekrb; purekrb.Initiator, purekrb.Acceptor, purekrb.Keytab") <= {
        "cryptography"
    }


def test_contexts_load_nothing_that_only_some_need_and_compile_nothing() -> None:
    code = """
import sys, typing
import cryptography.hazmat.primitives.ciphers
compiled, make = [], typing.ForwardRef.__init__
def noted(self, text, *args, **options):
    compiled.append(text)
    make(self, text, *args, **options)
typing.ForwardRef.__init__ = noted
from purekrb import Acceptor, Initiator
assert compiled == [], compiled
print(*sys.modules)
from purekrb import EncryptionKey, crypto
crypto.string_to_key(18, "a", "b")
crypto.checksum(EncryptionKey(23, bytes(16)), 1, b"")
print(*sys.modules)
typing.Optional["Acceptor"]
assert compiled == ["Acceptor"]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    contexts, more = (set(line.split()) for line in done.stdout.splitlines())
    rare = {
        f"purekrb.{n}"
        for n in ("crypto.rc4", "gss.rc4_tokens", "gss.negotiate", "exchanges.krb_cred")
    }
    rare |= {
        "cryptography.hazmat.primitives.kdf.pbkdf2",
        "dataclasses",
        "inspect",
        "logging",
        "socket",
        "ssl",
    }
    assert not rare & contexts
    assert {"purekrb.crypto.rc4", "cryptography.hazmat.primitives.kdf.pbkdf2"} <= more


def test_a_service_with_the_names_of_windows_does_without_pyasn1_too() -> None:
    assert loaded_after("import purekrb; purekrb.sspi.ServerAuth") <= {"cryptography"}


def test_a_kdc_client_loads_impacket_when_it_writes_a_request_and_then_its_asn1_alone() -> None:
    assert loaded_after("import purekrb; purekrb.KdcClient") <= {"cryptography"}
    request = (
        "import sys; from purekrb.messages.kdc import PaPacRequest; PaPacRequest(True).encode()"
    )
    assert loaded_after(request) <= {"impacket", "pyasn1", "cryptography"}
    code = f"{request}; print(*[m for m in sys.modules if m.startswith('impacket')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "impacket.krb5.asn1" in loaded
    assert loaded <= {
        *(
            "impacket",
            "impacket.krb5",
            "impacket.krb5.asn1",
            "impacket.krb5.types",
            "impacket.krb5.constants",
        ),
        *(
            "impacket.dcerpc",
            "impacket.dcerpc.v5",
            "impacket.dcerpc.v5.enum",
        ),  # its constants are such enums
    }


def test_ldap3_is_loaded_only_by_who_uses_the_directory() -> None:
    program = (
        "import sys, purekrb.directory as d; d.ServiceConnectionPoint; assert 'ldap3' not in sys.modules;"
        "d.Directory.embedded(); assert 'ldap3' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def loaded_modules(statement: str) -> set[str]:
    """Every module that a fresh interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_a_client_without_proxies_loads_nothing_of_them() -> None:
    program = """
from purekrb import KdcClient
from purekrb.testing import Realm
import sys
before = set(sys.modules)
with Realm("R.TEST") as realm:
    assert KdcClient(realm.config).get_tgt(realm.add_user("alice", "pw"))
loaded = {m for m in sys.modules if m not in before}
sys.modules = dict.fromkeys(loaded)
"""
    loaded = loaded_modules(program)
    assert "purekrb.exchanges.as_exchange" not in loaded  # it was loaded before
    rare = {"h11", "purekrb.kdc.https", "purekrb.kdc.cldap", "purekrb.messages.kkdcp"}
    assert not rare & loaded
    client = loaded_modules("import purekrb; purekrb.KdcClient")
    assert not {*rare, "ssl", "asyncio", "purekrb.messages.cldap"} & client
    assert "purekrb.kdc.transport" in client


@pytest.mark.parametrize("adapter", ["wsgi", "asgi"])
def test_http_services_load_contexts_and_nothing_of_clients(adapter: str) -> None:
    loaded = loaded_modules(
        "import cryptography.hazmat.primitives.ciphers; before = set(sys.modules)\n"
        f"import purekrb.integrations.{adapter}\n"
        "for name in before: del sys.modules[name]"
    )
    own = {
        name.partition(".")[2].partition(".")[0] for name in loaded if name.startswith("purekrb.")
    }
    assert not own & {"kdc", "krb5conf", "io", "channel", "directory", "sspi", "compat", "testing"}
    assert not loaded & {"asyncio", "dataclasses", "html", "inspect", "logging", "socket", "ssl"}
    assert not {name.split(".")[0] for name in loaded} & {"impacket", "pyasn1", "ldap3", "dns"}


ROOMS = sorted(path.parent.name for path in Path(purekrb.__file__).parent.glob("*/__init__.py"))
PACKAGES = ["purekrb", *(f"purekrb.{room}" for room in ROOMS)]


@pytest.mark.parametrize("package", [*PACKAGES, "purekrb.aio"])
def test_dir_tells_every_public_name_of_a_package_before_it_is_loaded(package: str) -> None:
    """As an interactive shell asks, in a process where nothing else was imported."""
    code = (
        f"import {package} as p; names = dir(p); public = getattr(p, '__all__', [])\n"
        "assert sorted(names) == names and set(public) <= set(names), set(public) - set(names)\n"
        "for name in public: getattr(p, name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_extra_that_an_error_or_a_page_names_is_there() -> None:
    root = Path(__file__).parents[2]
    table = (root / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^([a-z0-9]+) = \[", table.partition("\n[")[0], re.MULTILINE))
    pages = [root / "README.md", *(root / "docs").glob("*.md"), *(root / "src").rglob("*.py")]
    named = {
        name
        for page in pages
        for one, several in re.findall(
            r"\bextra\(\"(\w+)\"\)|purekrb\[([a-z0-9,]+)\]", page.read_text(encoding="utf-8")
        )
        for name in (one or several).split(",")
    }
    assert {"django", "kafka", "spnego"} <= named
    assert named <= extras
