"""The log: what each step of the protocol does and why a check failed, for who listens to the logger `purekrb`.

It is that of `logging`, found when it is first needed: nobody can listen who has not loaded that module, which alone
would take a tenth of the time that importing contexts takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from purekrb.text import visible

if TYPE_CHECKING:
    import logging

__all__ = ["Log"]

_DEBUG = 10  # logging.DEBUG
_CALLER = 2  # the line to name in a record is the one that called us


class Log:
    """The logger of that name, below `purekrb`.

    `on()` tells whether somebody listens to debug messages: to be asked before one is made whose arguments cost time.
    Arguments that are no numbers go into the message as text in which nothing is left that steers a terminal.
    """

    __slots__ = ("_found", "_name", "on")

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: logging.Logger | None = None
        self.on: Callable[[], bool] = self._look

    def _look(self) -> bool:
        return "logging" in sys.modules and self._logger().isEnabledFor(_DEBUG)

    def debug(self, message: str, *arguments: object) -> None:
        """Tell of a step."""
        if self.on():
            self._logger().debug(message, *map(_shown, arguments), stacklevel=_CALLER)

    def warning(self, message: str, *arguments: object) -> None:
        """Tell of what somebody should look into."""
        self._logger().warning(message, *map(_shown, arguments), stacklevel=_CALLER)

    def error(self, message: str, *arguments: object, **options: Any) -> None:
        """Tell of a fault; `options` are those of `logging.Logger.error`."""
        self._logger().error(message, *map(_shown, arguments), stacklevel=_CALLER, **options)

    def _logger(self) -> logging.Logger:
        if self._found is None:
            import logging

            top = logging.getLogger("purekrb")
            if not top.handlers:
                top.addHandler(logging.NullHandler())  # silent, unless the program wants to hear
            self._found = logging.getLogger(self._name)
            self.on = partial(
                self._found.isEnabledFor, _DEBUG
            )  # one call of Python less from now on
        return self._found


def _shown(argument: object) -> object:
    return argument if isinstance(argument, int | float) else visible(str(argument))
