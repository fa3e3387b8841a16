"""The hooks of the build: what the wheel holds besides the package, and the page for PyPI."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class CommandFiles(BuildHookInterface[Any]):
    """Puts the man page and the completion scripts of tools/command_files.py into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files, and tell the wheel where they belong."""
        sys.path[:0] = [f"{self.root}/src", f"{self.root}/tools"]
        from command_files import command_files

        self._directory = tempfile.TemporaryDirectory()
        for path, text in command_files().items():
            file = Path(self._directory.name) / path
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(file)] = path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the files, which the wheel now holds."""
        self._directory.cleanup()


class PageForPypi(MetadataHookInterface):
    """Takes README.md as the page, with absolute links: PyPI has none of the files beside it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field `readme`."""
        root, source = Path(self.root), metadata["urls"]["Source"]

        def absolute(link: re.Match[str]) -> str:
            path, _, anchor = link[1].partition("#")
            kind = "tree" if (root / path).is_dir() else "blob"
            return f"]({source}/{kind}/main/{path}{'#' + anchor if anchor else ''})"

        text = (root / "README.md").read_text(encoding="utf-8")
        text = re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", absolute, text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
