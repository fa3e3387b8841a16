"""Patterns of text that directories hold and that this room checks."""

from __future__ import annotations

import re

__all__ = ["CONTROL_CHARACTERS", "DNS_NAME", "GUID"]

#: Control characters, and surrogates, which have no UTF-8 form.
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: At least two labels of letters, digits, "-" and "_" (owner names of SRV records have "_"); an
#: IPv4 address does not match.
DNS_NAME = re.compile(r"(?![0-9.]+\Z)(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})+\.?")
#: A GUID as text, without braces.
GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
