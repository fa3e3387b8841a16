"""What `purekrb run` puts first on PYTHONPATH: every Python that the command starts imports it.

It calls `purekrb.compat.install` with the names in PUREKRB_COMPAT, and then lets the sitecustomize
that it hides have its turn.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import PathFinder


def _install() -> None:
    names = os.environ.get("PUREKRB_COMPAT", "")
    try:
        from purekrb.compat import available, install
    except ImportError:
        import logging

        logging.getLogger("purekrb.compat").warning(
            "purekrb run: %s has no purekrb, so %s is not replaced there: "
            "install purekrb into its environment",
            sys.executable,
            names,
        )
        return
    install(*(name for name in names.split(",") if name in available()))


def _run_hidden() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    others = [path for path in sys.path if os.path.abspath(path) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_install()
_run_hidden()
