"""The %{...} tokens in the names of credential caches and keytabs.

Source: MIT krb5.conf(5), "Parameter expansion".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from purekrb.errors import ConfigError

__all__ = ["TOKENS", "expand_tokens"]


def _temporary_directory() -> str:
    import tempfile  # imported here: it is slow, and few names need it

    return tempfile.gettempdir()


def _user_name() -> str:
    import pwd  # not every platform has it

    return pwd.getpwuid(os.geteuid()).pw_name


TOKENS: dict[str, Callable[[], object]] = {
    "uid": lambda: os.getuid(),  # looked up late: not every platform has it
    "USERID": lambda: os.getuid(),
    "euid": lambda: os.geteuid(),
    "username": _user_name,
    "TEMP": _temporary_directory,
    "LIBDIR": lambda: "/usr/lib",
    "BINDIR": lambda: "/usr/bin",
    "SBINDIR": lambda: "/usr/sbin",
    "null": lambda: "",
}


def expand_tokens(text: str) -> str:
    """Return `text` with its tokens replaced. Raises ConfigError for one without a value here."""

    def value(match: re.Match[str]) -> str:
        try:
            return str(TOKENS[match[1]]())
        except (KeyError, AttributeError, ImportError, OSError):
            if match[1] == "username" and hasattr(os, "geteuid"):
                raise ConfigError(
                    f"%{{username}} has no value here: the system knows no user of uid "
                    f"{os.geteuid()}; write %{{euid}}, or the path itself"
                ) from None
            token = (
                f"%{{{match[1]}}}" if re.fullmatch("[A-Za-z]{1,20}", match[1]) else "a token %{...}"
            )
            raise ConfigError(
                f"{token} has no value here: write one of {', '.join(TOKENS)}, or the path itself"
            ) from None

    return re.sub(r"%\{([^{}]*)\}", value, text)
