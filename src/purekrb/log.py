"""The log: the steps of the protocol, and the reasons why checks fail.

It goes to the logger `purekrb` of the module `logging`. That module is imported when it is first
needed: its import would add a tenth to the time that importing contexts takes, and a program that
has not imported it cannot listen to debug messages.
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
_CALLER = 2  # a record names the line that called the method of Log


class Log:
    """A logger of this name, below `purekrb`.

    `on()` returns whether debug messages are enabled. If the arguments of a message cost time, call
    it first. Arguments that are not numbers become text without terminal controls.
    """

    __slots__ = ("_found", "_name", "on")

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: logging.Logger | None = None
        self.on: Callable[[], bool] = self._look

    def _look(self) -> bool:
        return "logging" in sys.modules and self._logger().isEnabledFor(_DEBUG)

    def debug(self, message: str, *arguments: object) -> None:
        """Log a step of the protocol."""
        if self.on():
            self._logger().debug(message, *map(_shown, arguments), stacklevel=_CALLER)

    def info(self, message: str, *arguments: object) -> None:
        """Log an event that an administrator may want to know of."""
        self._logger().info(message, *map(_shown, arguments), stacklevel=_CALLER)

    def warning(self, message: str, *arguments: object) -> None:
        """Log a problem that an administrator should look into."""
        self._logger().warning(message, *map(_shown, arguments), stacklevel=_CALLER)

    def error(self, message: str, *arguments: object, **options: Any) -> None:
        """Log a fault; `options` are those of `logging.Logger.error`."""
        self._logger().error(message, *map(_shown, arguments), stacklevel=_CALLER, **options)

    def _logger(self) -> logging.Logger:
        if self._found is None:
            import logging

            top = logging.getLogger("purekrb")
            if not top.handlers:
                top.addHandler(logging.NullHandler())  # silent, unless the program adds a handler
            self._found = logging.getLogger(self._name)
            # From now on, `on` takes one Python call less.
            self.on = partial(self._found.isEnabledFor, _DEBUG)
        return self._found


def _shown(argument: object) -> object:
    return argument if isinstance(argument, int | float) else visible(str(argument))
