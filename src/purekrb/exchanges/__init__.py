"""The three exchanges of Kerberos without I/O: AS and TGS with a KDC, AP with a service.

Each exchange builds its messages, and checks the peer's messages by every rule of RFC 4120 3 before
it believes them. An exchange with a KDC is a generator that yields requests; `runner.py` drives it.
"""
