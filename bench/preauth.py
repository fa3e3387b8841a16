"""A TGT by each way to protect a password, against MIT's library with the same KDC, in one process, in turns.

python -m bench.preauth

Each log-in begins anew on both sides: the password becomes a key, SPAKE makes a scalar, FAST makes an armor of a
ticket that is at hand, PKINIT reads the certificate. Exits with 1 if a goal is not met.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.lab import ETYPES, PASSWORD, REALM, USER
from bench.timing import Contender, Row, measure, repeat
from bench.worker import ROOT
from purekrb import CCache, Config, Credential, KdcClient
from purekrb.constants import Requirement

sys.path.insert(0, str(ROOT / "tests"))
from support.mit import MitRealm
from support.pkinit_files import PkinitFiles

#: What is measured -> the goal: our time divided by MIT's.
GOALS = {
    "encrypted timestamp": 1.0,
    "FAST, encrypted challenge": 1.0,
    "SPAKE, edwards25519": 1.0,
    "PKINIT, RSA 2048, group 14": 1.3,
}
_SECONDS, _ROUNDS, _BATCH = 6.0, 60, 0.02
_CLIENT = f"{USER}@{REALM}"
Call = Callable[[], None]


class PreauthRealm(MitRealm):
    """A realm without SPAKE, and a user with a key of etype 18 alone."""

    #: Lines of [libdefaults], for the KDC and its clients.
    libdefaults = f"permitted_enctypes = {ETYPES[18]}"

    def works(self) -> dict[str, tuple[Call, Call]]:
        """Return what is measured: our call and MIT's."""
        mit, path = MitLibrary(), self.kinit("user")
        armor = CCache.load(path)
        return {
            "encrypted timestamp": (lambda: self.get_tgt(), mit.get_tgt),
            "FAST, encrypted challenge": (
                lambda: self.get_tgt(armor, "fast"),
                lambda: mit.get_tgt(f"FILE:{path}"),
            ),
        }

    def get_tgt(self, armor: CCache | None = None, require: Requirement | None = None) -> None:
        """Get a TGT as with a new Credential and a new KdcClient."""
        credential = Credential.from_password(_CLIENT, PASSWORD)
        KdcClient(self._config, armor=armor).get_tgt(credential, require=require)

    @cached_property
    def _config(self) -> Config:
        return Config.from_file(self.krb5_conf)

    def _listen_on(self, port: int) -> None:
        super()._listen_on(port)
        text = self.krb5_conf.read_text()
        kept = "\n".join(line for line in text.splitlines() if "permitted_enctypes" not in line)
        head = f"[libdefaults]\n {self.libdefaults}"
        self.krb5_conf.write_text(kept.replace("[libdefaults]", head, 1))

    def _create(self) -> None:
        super()._create()
        self.addprinc(USER, PASSWORD, etypes=(18,), flags="+requires_preauth")
        self.kadmin(f"cpw -randkey -e {ETYPES[18]}:normal krbtgt/{REALM}@{REALM}")


class SpakeRealm(PreauthRealm):
    """The same with SPAKE, which both clients then use."""

    libdefaults = f"{PreauthRealm.libdefaults}\n spake_preauth_groups = edwards25519"

    def works(self) -> dict[str, tuple[Call, Call]]:
        """Return what is measured: our call and MIT's."""
        return {"SPAKE, edwards25519": (lambda: self.get_tgt(None, "strong"), MitLibrary().get_tgt)}


class CertificateRealm(PreauthRealm):
    """The same with PKINIT, by a certificate of the user. Both clients read its files each time."""

    @cached_property
    def files(self) -> PkinitFiles:
        return PkinitFiles(self.directory, REALM)

    def _listen_on(self, port: int) -> None:
        super()._listen_on(port)
        for path, relation, files in (
            (self.krb5_conf, "pkinit_identities", self._user),
            (self._kdc_conf, "pkinit_identity", self.files.kdc),
        ):
            begin = f" {REALM} = {{\n"
            anchors = f"  pkinit_anchors = FILE:{self.files.anchors}\n"
            identity = f"  {relation} = FILE:{files[0]},{files[1]}\n"
            path.write_text(path.read_text().replace(begin, begin + anchors + identity, 1))

    @cached_property
    def _user(self) -> tuple[Path, Path]:
        return self.files.user(USER)

    def _create(self) -> None:
        super()._create()
        self.kadmin(f"cpw -randkey {USER}")  # nobody logs in by password

    def works(self) -> dict[str, tuple[Call, Call]]:
        """Return what is measured: our call and MIT's."""

        def ours() -> None:
            credential = Credential.from_certificate(_CLIENT, *self._user)
            KdcClient(self._config).get_tgt(credential)

        return {"PKINIT, RSA 2048, group 14": (ours, MitLibrary().get_tgt)}


class MitLibrary:
    """Initial tickets by libkrb5, which keeps its context, as purekrb keeps its configuration."""

    def __init__(self) -> None:
        self._krb5: Any = ctypes.CDLL("libkrb5.so.3")
        self._context = ctypes.c_void_p()
        self._client = ctypes.c_void_p()
        self._call("krb5_init_context", ctypes.byref(self._context))
        self._call("krb5_parse_name", self._context, _CLIENT.encode(), ctypes.byref(self._client))

    def get_tgt(self, armor: str | None = None) -> None:
        """Get a TGT by password, or by the certificate that krb5.conf names."""
        krb5, context = self._krb5, self._context
        options, creds = ctypes.c_void_p(), ctypes.create_string_buffer(1024)
        self._call("krb5_get_init_creds_opt_alloc", context, ctypes.byref(options))
        if armor is not None:
            self._call(
                "krb5_get_init_creds_opt_set_fast_ccache_name", context, options, armor.encode()
            )
        self._call(
            "krb5_get_init_creds_password",
            context,
            creds,
            self._client,
            PASSWORD.encode(),
            None,
            None,
            0,
            None,
            options,
        )
        krb5.krb5_get_init_creds_opt_free(context, options)
        krb5.krb5_free_cred_contents(context, creds)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._krb5, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} of MIT's library fails with {code}")


def main() -> int:
    """Measure in turns, and print the medians and their ratios."""
    missed = [_measure(kind) for kind in (PreauthRealm, SpakeRealm, CertificateRealm)]
    return int(any(missed))


def _measure(kind: type[PreauthRealm]) -> bool:
    """Print the rows of one KDC; return whether a goal is missed."""
    with tempfile.TemporaryDirectory(prefix="purekrb-bench-") as directory:
        realm = kind(Path(directory))
        try:
            os.environ["KRB5_CONFIG"] = str(realm.krb5_conf)
            missed = [_row(work, *calls) for work, calls in kind.works(realm).items()]
            return any(missed)
        finally:
            realm.stop()


def _row(work: str, ours: Call, theirs: Call) -> bool:
    """Print one row; return whether the goal is missed."""
    contenders = [
        Contender("purekrb", repeat(ours), _BATCH),
        Contender("MIT", repeat(theirs), _BATCH),
    ]
    row = measure(Row("preauth", work), contenders, _SECONDS, _ROUNDS)
    mine, other = (statistics.median(row.samples[name]) * 1e3 for name in ("purekrb", "MIT"))
    ratio, goal = mine / other, GOALS[work]
    verdict = "within" if ratio <= goal else "ABOVE"
    print(f"{work}: {mine:.2f} ms, MIT's library {other:.2f} ms: {ratio:.2f} ({verdict} {goal})")
    return ratio > goal


if __name__ == "__main__":
    sys.exit(main())
