"""Security contexts: they authenticate client and service to each other, then protect messages.

`context.py` holds the part that both sides share. `initiator.py` and `acceptor.py` add the
handshakes, `negotiate.py` adds SPNEGO around them. `tokens.py` and `iov.py` protect messages.
Nothing here does I/O: the caller carries each token to the peer.
Source: RFC 2743, RFC 4121, RFC 4178.
"""
