"""Says why Kerberos does not work here, and what to do: `examine` walks the whole chain.

Nothing is changed, and no password or key is tried that could count against an account.
"""

from __future__ import annotations

from purekrb.doctor.page import page
from purekrb.doctor.report import Exchanged, Finding, Report, Status
from purekrb.doctor.steps import examine

__all__ = ["examine", "page", "Report", "Finding", "Exchanged", "Status"]
