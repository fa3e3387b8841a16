"""Rules that every file of the package obeys, checked on its syntax tree. Each rule is tried on bad code first."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "purekrb"
FILES = sorted(SOURCE.rglob("*.py"))

#: A rule yields (line, complaint) for a tree of the file at the path relative to the package.
Rule = Callable[[ast.Module, str], Iterator[tuple[int, str]]]


def no_assert(tree: ast.Module, _path: str) -> Iterator[tuple[int, str]]:
    """`python -O` drops asserts, and with them whatever they checked (K283)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert: raise an error"


#: Words in the names of things that an attacker must not be able to guess byte by byte.
_SECRET_NAMES = re.compile(
    r"(^|_)(mac|mic|cksum|checksum|hmac|digest|signature|session_key|subkey|contents|password|secret|keyvalue|finished)(_|$)"
)
_PUBLIC_PARTS = re.compile(r"(_type|_size|_length|_name|type|size)$")


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def constant_time_comparisons(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """Secrets are compared by hmac.compare_digest alone (K179). Comparing with None or a constant is not a guess."""
    if path.startswith("cli/"):  # two entries of the same new password, by the same hands
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if not isinstance(operator, ast.Eq | ast.NotEq):
                continue
            if any(isinstance(side, ast.Constant) for side in (left, right)):
                continue
            for name in (_last_name(left), _last_name(right)):
                if _SECRET_NAMES.search(name) and not _PUBLIC_PARTS.search(
                    name
                ):  # in capitals: a constant
                    yield (
                        node.lineno,
                        f"{ast.unparse(node)}: compare secrets by hmac.compare_digest",
                    )


_PRINTERS = {"print", "sys.stdout.write", "sys.stderr.write"}
_EVALUATORS = {"eval", "exec", "compile", "os.system", "os.popen"}


def no_print_outside_cli(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """A library is silent; what it has to say goes to the logger `purekrb`."""
    if not path.startswith("cli/"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in _PRINTERS:
                yield node.lineno, "print: use the logger"


_UNWANTED = {
    "random": "predictable: take a RandomBytes argument, or SystemRandom",
    "pickle": "runs what it reads",
    "marshal": "crashes on what it reads",
    "shelve": "pickles",
    "subprocess": "a command line shows secrets to every user of the machine (K280)",
    "telnetlib": "gone from Python 3.13",
    "imp": "gone from Python 3.12",
}


def no_unwanted_imports(tree: ast.Module, _path: str) -> Iterator[tuple[int, str]]:
    """Modules that have no place in a security library."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = (
                [node.module or ""]
                if [alias.name for alias in node.names] != ["SystemRandom"]
                else []
            )
        for name in names:
            why = _UNWANTED.get(name.split(".")[0])
            if why:
                yield node.lineno, f"import {name}: {why}"


def no_evaluation(tree: ast.Module, _path: str) -> Iterator[tuple[int, str]]:
    """No text becomes code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _EVALUATORS:
            yield node.lineno, ast.unparse(node.func)


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def _definitions(
    tree: ast.Module,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def an_all_that_is_true(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """A module that defines something says what of it is public, once each, and only what there is."""
    exported = _exported(tree)
    if exported is None:
        if any(not d.name.startswith("_") for d in _definitions(tree)) and not path.startswith(
            "cli/"
        ):
            yield 1, "no __all__"
        return
    if len(exported) != len(set(exported)):
        yield 1, "__all__ names something twice"
    bound = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else [node.id]
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            else [alias.asname or alias.name for alias in node.names]
            if isinstance(node, ast.Import | ast.ImportFrom)
            else []
        )
    }
    for name in exported:
        if name not in bound:
            yield 1, f"__all__ names {name}, which is not there"


#: Methods of Profile, DerType and ReplayCache, which say what each implementation does.
_DOCUMENTED_IN_PROTOCOL = {
    "decode",
    "encode",
    "string_to_key",
    "schedule",
    "usage_cipher",
    "prf",
    "remember",
    "encryption_key",
    "integrity",
    "checksum",
}


def docstrings(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """Modules, public classes and functions, and the public methods of public classes say what they do."""
    if not ast.get_docstring(tree):
        yield 1, "the module has no docstring"
    exported = set(_exported(tree) or ())
    for node in _definitions(tree):
        if node.name not in exported:
            continue
        text = ast.get_docstring(node)
        if not text:
            yield node.lineno, f"{node.name} has no docstring"
        elif len(text.split("\n")[0]) < 10:
            yield node.lineno, f"the docstring of {node.name} says nothing"
        if (
            isinstance(node, ast.ClassDef) and path != "messages/der.py"
        ):  # there: one Protocol documents them all
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not (
                    method.name.startswith("_")
                    or method.name in _DOCUMENTED_IN_PROTOCOL
                    or ast.get_docstring(method)
                    or any(
                        ast.unparse(d).endswith(("setter", "overload"))
                        for d in method.decorator_list
                    )
                    or ast.unparse(method.body[-1]) == "..."  # an attribute of a Protocol
                ):
                    yield method.lineno, f"{node.name}.{method.name} has no docstring"


def verify_returns_nothing(tree: ast.Module, _path: str) -> Iterator[tuple[int, str]]:
    """`verify_*` raises or returns what it verified: a bool can be ignored, or turned round by a `not` (K302, K303)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.lstrip(
            "_"
        ).startswith("verify"):
            if node.returns is None or ast.unparse(node.returns) in ("bool", "int"):
                yield node.lineno, f"{node.name} returns a bool or does not say what: raise instead"
            for inner in ast.walk(node):
                value = inner.value if isinstance(inner, ast.Return) else None
                truth = isinstance(value, ast.Constant) and value.value is not None
                if truth or isinstance(value, ast.Compare | ast.BoolOp):
                    yield inner.lineno, f"{node.name} returns a truth value: raise instead"


def no_check_whose_answer_is_lost(tree: ast.Module, _path: str) -> Iterator[tuple[int, str]]:
    """The answer of compare_digest decides something."""
    for node in ast.walk(tree):
        call = node.value if isinstance(node, ast.Expr) else None
        if (
            isinstance(call, ast.Call)
            and ast.unparse(call.func).rpartition(".")[2] == "compare_digest"
        ):
            yield call.lineno, "the result of compare_digest is ignored"


def no_broad_silence(tree: ast.Module, _path: str) -> Iterator[tuple[int, str]]:
    """No `except: pass`: what is swallowed whole hides a failed check."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and all(isinstance(s, ast.Pass | ast.Continue) for s in node.body):
                yield node.lineno, "a broad except that does nothing"


def typed(tree: ast.Module, _path: str) -> Iterator[tuple[int, str]]:
    """Annotations are read on Python 3.10 as well: they stay text."""
    if any(isinstance(s, ast.FunctionDef | ast.ClassDef) for s in tree.body):
        futures = [
            s for s in tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"
        ]
        if not any(alias.name == "annotations" for s in futures for alias in s.names):
            yield 1, "no `from __future__ import annotations`"


#: Each rule with code that breaks it and code that does not.
RULES: list[tuple[Rule, str, str]] = [
    (no_assert, "assert x", "if not x: raise ValueError"),
    (
        constant_time_comparisons,
        "if mac == expected: pass",
        "if hmac.compare_digest(mac, expected): pass",
    ),
    (
        constant_time_comparisons,
        "ok = a.checksum(x)[:4] != b",
        "ok = key is None or checksum_type == 7 or mac == b''",
    ),
    (no_print_outside_cli, "print(1)", "log.debug('1')"),
    (no_unwanted_imports, "from random import choice", "from secrets import token_bytes"),
    (no_unwanted_imports, "import pickle", "import purekrb.random_names"),
    (no_evaluation, "eval(text)", "int(text)"),
    (an_all_that_is_true, "def f(): pass", "__all__ = ['f']\ndef f(): pass"),
    (an_all_that_is_true, "__all__ = ['g']", "def _f(): pass"),
    (
        docstrings,
        "'M.'\n__all__ = ['f']\ndef f(): pass",
        "'M.'\n__all__ = ['f']\ndef f():\n 'Return nothing.'",
    ),
    (docstrings, "x = 1", "'Module.'"),
    (verify_returns_nothing, "def verify_x() -> bool: ...", "def verify_x() -> None: ..."),
    (
        verify_returns_nothing,
        "def verify_x() -> None: return a == b",
        "def verify_x() -> Ticket: return ticket",
    ),
    (no_check_whose_answer_is_lost, "hmac.compare_digest(a, b)", "ok = hmac.compare_digest(a, b)"),
    (no_broad_silence, "try: f()\nexcept Exception: pass", "try: f()\nexcept KeyError: pass"),
    (typed, "def f(): pass", "from __future__ import annotations\ndef f(): pass"),
]


@pytest.mark.parametrize(
    ("rule", "bad", "good"), RULES, ids=[f"{r.__name__}-{n}" for n, (r, _, _) in enumerate(RULES)]
)
def test_the_rule_sees_bad_code_and_lets_good_code_pass(rule: Rule, bad: str, good: str) -> None:
    assert list(rule(ast.parse(bad), "x.py"))
    assert not list(rule(ast.parse(good), "x.py"))


@pytest.mark.parametrize(
    "rule", list(dict.fromkeys(rule for rule, _, _ in RULES)), ids=lambda rule: rule.__name__
)
def test_every_file_obeys(rule: Rule) -> None:
    complaints = []
    for path in FILES:
        relative = path.relative_to(SOURCE).as_posix()
        complaints += [
            f"{relative}:{line}: {text}"
            for line, text in rule(ast.parse(path.read_text()), relative)
        ]
    assert not complaints, "\n" + "\n".join(complaints)


def test_there_is_a_marker_for_type_checkers() -> None:
    assert (SOURCE / "py.typed").exists()
    assert len(FILES) > 10
