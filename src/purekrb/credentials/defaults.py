"""Which credential cache, keytab and client keytab are used, and why.

The order is: the name that the caller gives, the environment, krb5.conf, the built-in default.
Source: MIT krb5.conf(5), "default_ccache_name" and so on, and "Parameter expansion".
"""

from __future__ import annotations

import os

from purekrb.credentials import files
from purekrb.credentials.cache_types import resolve
from purekrb.errors import ConfigError, UnsupportedError
from purekrb.krb5conf.config import Config
from purekrb.krb5conf.tokens import expand_tokens
from purekrb.log import Log
from purekrb.records import record

__all__ = [
    "ChosenName",
    "ccache_name",
    "client_keytab_name",
    "exists",
    "foreign_allowed",
    "keytab_name",
]

_log = Log("purekrb.credentials")

_CALLER = "the caller"
_BUILT_IN = "the built-in default"
_KEYTAB = "FILE:/etc/krb5.keytab"
#: Debian's and Fedora's place of the client keytab.
_CLIENT_KEYTABS = (
    "FILE:/etc/krb5/user/%{euid}/client.keytab",
    "FILE:/var/kerberos/krb5/user/%{euid}/client.keytab",
)
#: The warnings that the log has had.
_told: set[str] = set()


@record
class ChosenName:
    """The name of a ccache or keytab, and where it comes from.

    `origin` is "the caller", a variable of the environment, "FILE:LINE" of a krb5.conf, or "the
    built-in default". `passed_over` says why a name in krb5.conf is not used; it is "" otherwise.
    """

    name: str
    origin: str
    passed_over: str = ""

    @property
    def named(self) -> bool:
        """Whether somebody has named it: it is not the built-in default."""
        return self.origin != _BUILT_IN

    @property
    def note(self) -> str:
        """What to add to an error about a missing ccache: why it is not that of krb5.conf."""
        return f"; {self.passed_over}" if self.passed_over else ""

    def __str__(self) -> str:
        because = f": {self.passed_over}" if self.passed_over else ""
        return f"{self.name} (from {self.origin}{because})"


def ccache_name(name: files.FilePath | None = None, config: Config | None = None) -> ChosenName:
    """Return the name of the ccache to use: `name`, KRB5CCNAME, default_ccache_name, or a file.

    `config` is read from krb5.conf if it is None and needed. If krb5.conf names a type of ccache
    that this machine does not have, the file is used; the log warns of it, once in this process.
    Raises ConfigError if krb5.conf cannot be read, or a token in the name has no value.
    """
    chosen = _chosen(name, "KRB5CCNAME", "default_ccache_name", config)
    if chosen is None:
        return ChosenName(_default_file(), _BUILT_IN)
    if chosen.origin in (_CALLER, "KRB5CCNAME"):
        return chosen
    try:
        prefix, cache_type, _ = resolve(chosen.name)
        why = cache_type.unusable()
    except UnsupportedError as error:
        prefix, why = files.split_type(chosen.name)[0], str(error).partition("; ")[0]
    if not why:
        return chosen
    passed_over = f"{chosen.origin} names the type {prefix}, which cannot be used here: {why}"
    if passed_over not in _told:
        _told.add(passed_over)
        _log.warning("%s; the credential cache is %s instead", passed_over, _default_file())
    return ChosenName(_default_file(), _BUILT_IN, passed_over)


def keytab_name(name: files.FilePath | None = None, config: Config | None = None) -> ChosenName:
    """Return the name of the keytab: `name`, KRB5_KTNAME, default_keytab_name, or /etc/krb5.keytab.

    `config` and the errors are as for `ccache_name`.
    """
    chosen = _chosen(name, "KRB5_KTNAME", "default_keytab_name", config)
    return chosen or ChosenName(_KEYTAB, _BUILT_IN)


def client_keytab_name(
    name: files.FilePath | None = None, config: Config | None = None
) -> ChosenName:
    """Return the name of the keytab whose keys get tickets where the ccache has none.

    It is `name`, KRB5_CLIENT_KTNAME, default_client_keytab_name, or the file where Debian or Fedora
    have it. The file need not exist. `config` and the errors are as for `ccache_name`.
    """
    chosen = _chosen(name, "KRB5_CLIENT_KTNAME", "default_client_keytab_name", config)
    if chosen is not None:
        return chosen
    places = [ChosenName(expand_tokens(text), _BUILT_IN) for text in _CLIENT_KEYTABS]
    return next(filter(exists, places), places[0])


def foreign_allowed() -> bool:
    """Return whether the environment says that ccaches of other users may be read."""
    return os.environ.get("PUREKRB_FOREIGN_CCACHE") == "1"


def exists(chosen: ChosenName) -> bool:
    """Return whether there is a file of this name."""
    return files.exists(files.split_type(chosen.name)[1])


def _chosen(
    name: files.FilePath | None, variable: str, relation: str, config: Config | None
) -> ChosenName | None:
    if name is not None:
        text = files.text_of(name)
        if not isinstance(name, str) and files.split_type(text)[0] != "FILE":
            text = f"FILE:{text}"  # a path is that of a file, whatever it begins with
        return ChosenName(text, _CALLER)
    value = os.environ.get(variable)
    if value:
        return ChosenName(value, variable)
    config = Config.from_file() if config is None else config
    text = getattr(config, relation)
    if not text:
        return None
    origin = config.origins.get(relation, f"{relation} of the Config")
    try:
        return ChosenName(expand_tokens(text), origin)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _default_file() -> str:
    if hasattr(os, "getuid"):
        return f"FILE:/tmp/krb5cc_{os.getuid()}"  # as MIT; the checks of files.py make it safe
    return "FILE:" + os.path.join(os.environ.get("TEMP", os.curdir), "krb5cc")
