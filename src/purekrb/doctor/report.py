"""What an examination finds, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from purekrb.findings import Finding, Status

__all__ = ["Status", "Finding", "Exchanged", "Report"]

#: The exit code of each status; that of a report is the highest.
_CODES: dict[Status, int] = {"ok": 0, "skipped": 0, "warning": 1, "failed": 2}


@dataclass(frozen=True, slots=True)
class Exchanged:
    """One message that was sent: who sent it to whom, its name, and its fields without secrets.

    `facts` are its most telling fields as text; `tree` has all of them. `seconds` is the time since
    the examination began.
    """

    sender: str
    receiver: str
    name: str
    seconds: float
    facts: tuple[str, ...]
    tree: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """The findings in the order of the steps, and the messages that were exchanged."""

    target: str
    findings: list[Finding]
    exchanged: list[Exchanged] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if there are warnings, 2 if a step has failed."""
        return max((_CODES[finding.status] for finding in self.findings), default=0)

    def of(self, step: str) -> list[Finding]:
        """Return the findings of one step."""
        return [finding for finding in self.findings if finding.step == step]
