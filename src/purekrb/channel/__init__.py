"""Sealed streams over TCP: a client and a service that have authenticated each other by Kerberos.

stream.py is one end without I/O; blocking.py and aio.py carry its bytes. docs/wire-format.md
describes the wire.
"""
