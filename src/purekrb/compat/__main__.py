"""Run a program with purekrb behind the modules that it imports.

python -m purekrb.compat app.py ARGUMENT ...
python -m purekrb.compat -m module ARGUMENT ...
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib.util import find_spec

from purekrb.compat import available, install

__all__ = ["main"]


def main() -> None:
    """Run the program that `sys.argv` names, as `__main__`."""
    arguments = sys.argv[1:]
    module = arguments[:1] == ["-m"]
    if len(arguments) < 1 + module:
        raise SystemExit(f"usage:{(__doc__ or '').partition(chr(10))[2]}")
    program, *sys.argv = arguments[module], *arguments[module:]
    install(*available())
    # As `python app.py` does: imports begin in the program's directory.
    sys.path[0] = os.getcwd() if module else os.path.dirname(os.path.abspath(program))
    problem = _problem(program, module=module)
    if problem:
        raise SystemExit(f"purekrb.compat: {problem}")
    if module:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


def _problem(program: str, *, module: bool) -> str:
    """Return why there is no such program, or "". What the program itself imports is its own matter."""
    if module:
        try:
            found = program[:1] != "." and find_spec(program) is not None
        except ModuleNotFoundError as error:  # of a package above it, or what that imports
            found = not f"{program}.".startswith(f"{error.name}.")
        except ValueError:
            found = False
        return "" if found else f"no module named {program!r}"
    try:
        os.stat(program)
        if os.path.isfile(program):
            os.close(os.open(program, os.O_RDONLY))
    except (OSError, ValueError) as error:
        return f"can't open file {program!r}: {getattr(error, 'strerror', error)}"
    return ""


if __name__ == "__main__":
    main()
