"""Sealed streams: a TCP connection whose ends have authenticated each other and which carries sealed messages.

`stream.py` decides everything without I/O; `blocking.py` and `aio.py` carry its bytes. docs/wire-format.md tells what
is on the wire.
"""
