"""How a client reaches a KDC: krb5.conf, the DNS, sockets, deadlines, and the clients that users call.

I/O starts here. An exchange (`purekrb.exchanges`) says which message is for which realm; this package finds the KDCs of
the realm, asks them in turn over UDP and TCP, and hands the reply back, blocking or under asyncio.
"""
