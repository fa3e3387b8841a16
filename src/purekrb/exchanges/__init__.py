"""The three exchanges of Kerberos without I/O: AS and TGS with a KDC, AP between client and service.

Each builds its messages, and checks the peer's by every rule of RFC 4120 3 before it believes anything in them. What
needs a KDC is a generator that yields requests; `runner.py` drives it.
"""
