"""Other libraries' modules over purekrb, for programs that were written for those libraries.

    import purekrb.compat
    purekrb.compat.install("gssapi")  # before anything imports gssapi
    import gssapi

`python -m purekrb.compat app.py` runs an unmodified program this way, and `purekrb run -- COMMAND`
also its child processes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["install", "available", "NAMES"]


def install(*names: str) -> None:
    """Put purekrb behind the modules `names`, for the whole process.

    A later `import gssapi` then gives `purekrb.compat.gssapi`, whether the other library is
    installed or not. Call it before anything imports the other library: raises UnsupportedError if
    that is too late, and ValueError for a name that is not in `NAMES`. It may be called again.
    "spnego" adds a Kerberos provider to pyspnego, which stays and must be installed.
    """
    unknown = [name for name in names if name not in _INSTALLERS]
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r} here: the names are {', '.join(NAMES)}")
    for name in names:
        _INSTALLERS[name](name)


def _replace(name: str) -> None:
    """Let `import NAME` give `purekrb.compat.NAME`."""
    loaded = sys.modules.get(name)
    if loaded is not None and loaded is not sys.modules.get(_home(name)):
        from purekrb.errors import UnsupportedError

        raise UnsupportedError(
            f"another {name!r} is already loaded, from {getattr(loaded, '__file__', None)}: "
            "call purekrb.compat.install() before the first import of it"
        )
    _aliases.add(name)


def _provide(name: str) -> None:
    """Let `purekrb.compat.NAME` change the module NAME, which must be installed, once it is loaded."""
    if name in sys.modules:
        importlib.import_module(_home(name)).provide()
    elif find_spec(name) is None:
        from purekrb.errors import UnsupportedError

        raise UnsupportedError(
            f"the package {name} is not installed: run `pip install purekrb[{name}]`"
        )
    elif not any(isinstance(finder, _Provider) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Provider(name))


#: A name that `install` takes -> the function that installs it.
_INSTALLERS: dict[str, Callable[[str], None]] = {
    "gssapi": _replace,
    "kerberos": _replace,
    "winkerberos": _replace,
    "spnego": _provide,
}

#: The names that `install` takes.
NAMES = tuple(_INSTALLERS)


def available() -> list[str]:
    """Return those of `NAMES` that can be installed here."""
    return [name for name in NAMES if _INSTALLERS[name] is not _provide or find_spec(name)]


def _home(name: str) -> str:
    return f"{__name__}.{name}"


class _Aliases(MetaPathFinder, Loader):
    """Finds `gssapi`, `gssapi.raw` ... in this package. Each module exists once, with two names."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._own_specs: dict[str, ModuleSpec | None] = {}

    def add(self, name: str) -> None:
        self._names.add(name)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self._names or find_spec(_home(fullname)) is None:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_home(spec.name))
        self._own_specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has given the module the other name's spec.
        if module.__spec__ is not None:
            module.__spec__ = self._own_specs.pop(module.__spec__.name)


class _Provider(MetaPathFinder, Loader):
    """Loads a module once by its own loader, and then lets the module here change it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loader: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        importlib.import_module(_home(self.name)).provide()


_aliases = _Aliases()
