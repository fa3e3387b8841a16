"""Run a program with purekrb behind the modules that it imports.

python -m purekrb.compat app.py ARGUMENT ...
python -m purekrb.compat -m module ARGUMENT ...
"""

from __future__ import annotations

import os
import runpy
import sys

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
    if module:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        # As `python app.py` does: imports begin in the program's directory.
        sys.path[0] = os.path.dirname(os.path.abspath(program))
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
