"""The messages of Kerberos, SPNEGO and the PAC as typed values, and the strict DER codec that reads and writes them.

No cryptography: an encrypted part stays bytes here. `der.py` alone reads what comes from a peer; each module beside it
declares the messages of one specification.
"""
