"""An integration whose package is missing says which extra brings it; with the package, it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

ADAPTED = ("requests", "httpx", "aiohttp", "flask", "starlette", "fastapi", "django")
#: The begin of a program that runs as if no extra were installed.
ABSENT = f"""
import sys
from importlib.machinery import PathFinder

class Rest(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.split(".")[0] in {(*ADAPTED, "kafka", "spnego", "redis")}
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Rest
"""


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        *((name, f"import purekrb.integrations.{name}") for name in ADAPTED),
        ("kafka", "from purekrb.integrations import kafka; kafka.register()"),
        ("spnego", "import purekrb.compat; purekrb.compat.install('spnego')"),
        ("redis", "import purekrb.replay.redis"),
    ],
)
def test_a_missing_package_is_an_error_that_names_its_extra(name: str, statement: str) -> None:
    program = f"import purekrb\ntry:\n    {statement}\nexcept purekrb.UnsupportedError as error:\n    print(error)"
    for begin, said in ((ABSENT, f"pip install purekrb[{name}]"), ("", "")):
        done = subprocess.run(
            [sys.executable, "-c", f"{begin}\n{program}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert said in done.stdout
        assert bool(said) == bool(done.stdout)
