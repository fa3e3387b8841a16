"""Waiting for sockets: steps that yield what they wait for, their drivers, and frames on streams.

Code that does I/O is a generator of `Wait`s (steps.py), so that one source serves blocking callers
(blocking.py) and asyncio (asyncio.py). Nothing here knows about Kerberos.
"""
