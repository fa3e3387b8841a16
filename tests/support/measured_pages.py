"""A page of ours, as Chromium lays it out.

The page is put into a frame of the wanted width, whose script measures it from outside: the page
itself has no script.
"""

from __future__ import annotations

import html
import json
import subprocess
from pathlib import Path
from typing import Any

from support.chromium import QUIET
from support.peers import find_program

__all__ = ["measure", "screenshot"]

#: For each frame: what is wider than the frame, what is wider than its own box, and the selected text.
_SCRIPT = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, width = page.documentElement.clientWidth;
    page.querySelectorAll("details").forEach(each => { each.open = true; });
    const all = [...page.body.querySelectorAll("*")];
    const selection = frame.contentWindow.getSelection();
    selection.selectAllChildren(page.body);
    const text = selection.toString();
    selection.removeAllRanges();
    const covered = all.filter(each => each.matches(".text, .remedy, .facts li, .ends div")).filter(each => {
      const box = each.getBoundingClientRect();
      return box.width < 1 || box.height < 1;
    });
    const name = each => `${each.tagName}.${each.className}`;
    return {
      width: frame.clientWidth, scrolls: page.documentElement.scrollWidth - width,
      outside: all.filter(each => {
        const box = each.getBoundingClientRect();
        return box.right > width + 1 || box.left < -1;
      }).map(name),
      overflowing: all.filter(each => each.scrollWidth > each.clientWidth + 1
        && getComputedStyle(each).display !== "inline" && each.clientWidth > 0).map(name),
      invisible: covered.map(name), text: text,
      font: Math.min(...all.map(each => parseFloat(getComputedStyle(each).fontSize))),
    };
  });
  document.getElementById("out").textContent = JSON.stringify(found);
});
"""


def _run(directory: Path, *arguments: str) -> str:
    data = directory / "chromium"
    command = [find_program("chromium", "chromium"), *QUIET, f"--user-data-dir={data}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def measure(page: str, directory: Path, *widths: int) -> list[dict[str, Any]]:
    """Return what the browser measures of a page in frames of these widths."""
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
        for width in widths
    )
    harness = directory / "harness.html"
    harness.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><script>{_SCRIPT}</script>{frames}<pre id="out"></pre>'
    )
    dumped = _run(directory, "--virtual-time-budget=10000", "--dump-dom", harness.as_uri())
    out = dumped.rpartition('<pre id="out">')[2].partition("</pre>")[0]
    measured: list[dict[str, Any]] = json.loads(html.unescape(out))
    return measured


def screenshot(page: str, directory: Path, width: int, height: int) -> bytes:
    """Return the picture of a page as PNG."""
    file, picture = directory / "page.html", directory / "page.png"
    file.write_text(page)
    _run(directory, f"--window-size={width},{height}", f"--screenshot={picture}", file.as_uri())
    return picture.read_bytes()
