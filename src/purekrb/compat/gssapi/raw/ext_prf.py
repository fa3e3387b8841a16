"""Bytes that both sides of a context can derive. Source: RFC 4401, RFC 4402.

python-gssapi has no such function.
"""

from __future__ import annotations

from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.sec_contexts import SecurityContext, context_of
from purekrb.constants import PrfKey

__all__ = ["pseudo_random"]


@_status.as_gss_errors
def pseudo_random(
    context: SecurityContext, prf_key: int, prf_in: bytes, desired_output_len: int
) -> bytes:
    """Return bytes derived from `prf_in` with the full (0) or the partial (1) key."""
    return context_of(context).prf(PrfKey(prf_key), prf_in, desired_output_len)
