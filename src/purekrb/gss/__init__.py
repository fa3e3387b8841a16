"""Security contexts: the tokens that prove client and service to each other, and what protects messages after that.

`context.py` holds what both sides share; `initiator.py` and `acceptor.py` add their handshake, `negotiate.py` SPNEGO
around it, `tokens.py` and `iov.py` the messages. Nothing here does I/O: the caller carries each token to the peer.
Source: RFC 2743, RFC 4121, RFC 4178.
"""
