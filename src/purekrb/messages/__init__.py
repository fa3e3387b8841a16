"""The messages of Kerberos and SPNEGO and the PAC as typed values, with a strict DER codec.

There is no cryptography here: an encrypted part stays bytes. `der.py` reads all DER of a peer. Each
other module declares the messages of one specification.
"""
