"""HTTP Negotiate (RFC 4559) for clients and services, without any HTTP library.

headers.py reads and writes the header fields, origins.py says where a token may go, client.py is
the client's side of one request. gate.py is the service's side: pages.py are the bodies of its
refusals, rounds.py the contexts that wait for a next round, certificates.py what files hold.
The adapters in `purekrb.integrations` translate between these and a library.
"""
