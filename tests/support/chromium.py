"""Chromium without a window, as a user of MIT's realm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from support.mit import MitRealm
from support.peers import find_program, run

__all__ = ["QUIET", "browse"]

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def browse(
    realm: MitRealm,
    url: str,
    *options: str,
    ccache: Path | None,
    picture: Path | None = None,
) -> str:
    """Return the page at `url` as Chromium has it in the end; write it to `picture`, a PNG."""
    profile = realm.path("chromium")
    profile.mkdir()
    # On Linux, Chromium loads GSS-API from the second challenge on that it sees in its life.
    (profile / "Local State").write_text('{"net": {"received_http_auth_negotiate_headers": true}}')
    shows: Sequence[str] = ["--dump-dom"]
    if picture is not None:
        shows = [f"--screenshot={picture}", "--window-size=800,600", "--hide-scrollbars"]
    argv = [find_program("chromium", "chromium"), *QUIET, f"--user-data-dir={profile}"]
    env = {**realm.env, "KRB5CCNAME": str(ccache or realm.path("no-ccache"))}
    return run([*argv, *options, *shows, url], env=env)
