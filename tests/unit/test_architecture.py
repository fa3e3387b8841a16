"""Imports point down the list of docs/architecture.md, the core does no I/O, and nothing imports in circles."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "purekrb"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()


def layers() -> list[list[str]]:
    """Return the layers as the document lists them under "Directions": later ones may import earlier ones."""
    block = re.search(r"^## Directions\n(?:[^ \n].*\n|\n)*?((?:    .+\n)+)", DOCUMENT, re.MULTILINE)
    assert block, "docs/architecture.md has no list of layers under 'Directions'"
    return [layer.split() for layer in block[1].replace("\n", " ").split("->")]


LAYERS = layers()
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}
_UP_TO_GSS = LAYERS[: next(n for n, layer in enumerate(LAYERS) if "gss" in layer) + 1]
CORE = {unit for layer in _UP_TO_GSS for unit in layer} - {"io"}

#: Modules that do I/O, tell the time, start threads or draw random numbers. The core takes all of that as arguments.
FORBIDDEN_IN_CORE = {
    "asyncio",
    "concurrent",
    "fcntl",
    "getpass",
    "http",
    "io",
    "ldap3",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "random",
    "sched",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "stat",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "dns",
}
#: What the core may use of them all the same: locks, and where a user's files are (not the files).
HARMLESS = {
    "threading": {"Lock", "RLock"},
    "io": {"BytesIO"},
    "os": {
        "environ",
        "fspath",
        "fsdecode",
        "fsencode",
        "getuid",
        "geteuid",
        "curdir",
        "path.join",
        "path.split",
        "path.dirname",
        "path.basename",
        "PathLike",
    },
}
NAMES_OF_FILES = {
    "credentials/caches/directory.py",
    "credentials/choice.py",
    "credentials/defaults.py",
    "credentials/identities.py",
    "credentials/x509.py",
    "replay/default.py",
}
#: The doors that the document names, and what goes through each. Anything else of the core is closed.
DOORS: dict[str, set[str]] = {
    "system.py": {"os", "socket", "time"},
    "krb5conf/profile.py": {"os", "pathlib", "stat"},
    "krb5conf/config.py": {"os", "pathlib"},
    "krb5conf/tokens.py": {"os", "tempfile"},
    "krb5conf/k5login.py": {"os", "stat"},
    "credentials/files.py": {"os", "stat", "fcntl"},
    "credentials/caches/keyctl.py": {"os"},
    "replay/ours.py": {"os", "stat", "pathlib"},
    "replay/file.py": {"os", "fcntl", "pathlib"},
    "replay/sqlite.py": {"os", "sqlite3", "pathlib"},
}
#: Third-party packages that one file alone may import.
ONE_HOME = {
    "impacket": "messages/impacket_der.py",
    "pyasn1": "messages/impacket_der.py",
    "ldap3": "directory/ldap.py",
    "redis": "replay/redis.py",
    "dissect": "messages/xpress.py",
}
#: What points up, for type checkers alone: an error names the type of the message that it holds.
FOR_TYPES_ALONE = {
    ("errors.py", "messages/ap"),
    ("errors.py", "messages/kpasswd"),
    ("credentials/credential.py", "kdc/client"),
}
#: What points up, and runs only when it is called: the method of a credential that asks KDCs.
ON_CALL = {("credentials/credential.py", "kdc/renewal")}
TIME_AND_RANDOM_CALLS = {"now", "utcnow", "today", "time", "monotonic", "urandom", "token_bytes"}

FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def unit_of(path: Path) -> str:
    """The entry of the list that a file belongs to: a package, or a module at the top."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def typing_only(tree: ast.AST) -> set[ast.AST]:
    """The nodes under `if TYPE_CHECKING:`, which never run."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(path: Path, *, typing: bool) -> Iterator[tuple[str, str]]:
    """Yield (module, imported name or "") for every import in a file, at whatever depth, relative ones resolved."""
    tree = ast.parse(path.read_text())
    skipped = set() if typing else typing_only(tree)
    package = ["purekrb", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield module, alias.name
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), ""


def own_modules(path: Path, *, typing: bool) -> set[str]:
    """The modules of purekrb that a file imports, as paths relative to the package without suffix."""
    found = set()
    for module, name in imports(path, typing=typing):
        if module.split(".")[0] != "purekrb":
            continue
        candidate = "/".join([*module.split(".")[1:], name]).strip("/")
        is_module = (SOURCE / f"{candidate}.py").exists() or (
            SOURCE / candidate / "__init__.py"
        ).exists()
        found.add(candidate if candidate and is_module else "/".join(module.split(".")[1:]))
    return found - {""}


def uses(tree: ast.AST, module: str) -> set[str]:
    """What a file takes out of an imported module: "environ", "path.join"."""
    longest = set()
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):  # from the outside in: path.join before path
        if isinstance(node, ast.Attribute) and node not in inner:
            text = ast.unparse(node)
            if text.startswith(f"{module}."):
                inner.update(ast.walk(node))
                known = [
                    h for h in HARMLESS.get(module, ()) if f"{text}.".startswith(f"{module}.{h}.")
                ]
                longest.add(known[0] if known else text.removeprefix(f"{module}."))
    return longest or {"nothing"}


def test_the_document_lists_every_package_and_module() -> None:
    units = {unit_of(path) for path in FILES} - {"__init__", "__main__"}
    assert units <= set(RANK), "name these in the layers of docs/architecture.md"


def test_the_document_lists_no_unit_twice() -> None:
    listed = [unit for layer in LAYERS for unit in layer]
    assert len(listed) == len(set(listed)) > 10


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down_the_list(path: Path) -> None:
    unit = unit_of(path)
    if unit == "__init__":
        return  # the public names, lazily: tests/unit/test_exports.py
    running = own_modules(path, typing=False)
    for module in own_modules(path, typing=True):
        if module not in running and (name_of(path), module) in FOR_TYPES_ALONE:
            continue
        if (name_of(path), module) in ON_CALL:
            continue
        other = module.split("/")[0]
        assert other == unit or RANK[other] <= RANK[unit], (
            f"{unit} must not import {other}: it comes later in the list"
        )


@pytest.mark.parametrize("path", [p for p in FILES if unit_of(p) in CORE], ids=name_of)
def test_the_core_does_no_io_and_knows_no_clock_and_no_dice(path: Path) -> None:
    allowed = DOORS.get(name_of(path), set())
    tree = ast.parse(path.read_text())
    for module, name in imports(path, typing=False):
        top = module.split(".")[0]
        if top not in FORBIDDEN_IN_CORE - allowed:
            continue
        used = {name} if name else uses(tree, top)
        harmless = (
            HARMLESS.get(top, set()) if top != "os" or name_of(path) in NAMES_OF_FILES else set()
        )
        assert used <= harmless, f"{name_of(path)} uses {sorted(used - harmless)} of {top}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("open", "print", "input"), (
                f"{name_of(path)}:{node.lineno} calls {called}"
            )
            owner, _, method = called.rpartition(".")
            if method in TIME_AND_RANDOM_CALLS and owner.split(".")[0] in (
                "datetime",
                "date",
                "time",
                "secrets",
            ):
                assert allowed, (
                    f"{name_of(path)}:{node.lineno} calls {called}: take a Clock or RandomBytes argument"
                )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_wrapped_library_is_imported_by_one_file(path: Path) -> None:
    for module, _ in imports(path, typing=True):
        home = ONE_HOME.get(module.split(".")[0])
        assert home in (None, name_of(path)), f"{name_of(path)} imports {module}: go through {home}"


def test_impacket_is_used_for_its_asn1_alone() -> None:
    home = SOURCE / ONE_HOME["impacket"]
    assert {(m, n) for m, n in imports(home, typing=True) if m.startswith("impacket")} == {
        ("impacket.krb5", "asn1")
    }


def test_messages_know_no_cryptography_crypto_no_messages_and_gss_no_kdc() -> None:
    for unit, stranger in (("messages", "crypto"), ("crypto", "messages"), ("gss", "kdc")):
        for path in (p for p in FILES if unit_of(p) == unit):
            for module in own_modules(path, typing=True):
                assert module.split("/")[0] != stranger, f"{name_of(path)} imports {module}"


def test_io_knows_no_kerberos_and_the_core_uses_it_for_caches_alone() -> None:
    for path in FILES:
        modules = own_modules(path, typing=True)
        if unit_of(path) == "io":
            assert {module.split("/")[0] for module in modules} <= {"io", "errors"}, name_of(path)
        elif unit_of(path) in CORE and not name_of(path).startswith("credentials/"):
            assert not [module for module in modules if module.split("/")[0] == "io"], name_of(path)


def test_nothing_imports_in_circles_not_even_lazily() -> None:
    graph = {}
    for path in FILES:
        module = path.relative_to(SOURCE).with_suffix("").as_posix().removesuffix("/__init__")
        if module != "__init__":
            on_call = {up for name, up in ON_CALL if name == name_of(path)}
            graph[module] = own_modules(path, typing=False) - {module} - on_call
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "import cycle: " + " -> ".join(
            [*trail[trail.index(module) :], module]
        )
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_the_standard_library_names_above_are_real() -> None:
    third_party = {"ldap3", "dns"}
    assert FORBIDDEN_IN_CORE - third_party <= set(sys.stdlib_module_names)
