"""What a check finds: the cause, and the one thing to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from purekrb.errors import KerberosError
from purekrb.text import visible

__all__ = ["Finding", "Status", "split_remedy"]

Status = Literal["ok", "warning", "failed", "skipped"]
#: Where a remedy begins: behind a mark, with one of the verbs that errors use.
_REMEDY = re.compile(
    r"[.;:] (?=(?:add|allow|ask|change|check|copy|export|get|give|have|install|let|log|make|name|pass"
    r"|put|register|remove|renew|run|set|synchroni[sz]e|try|unlock|use|write)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a step: what was found, and the one thing to do ("" if there is nothing)."""

    step: str
    status: Status
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


def split_remedy(error: KerberosError) -> tuple[str, str]:
    """Return the cause and the remedy of an error: the clauses from the first that says what to do."""
    text = visible(str(error))
    found = _REMEDY.search(text)
    return (text[: found.start()], text[found.end() :]) if found else (text, "")
