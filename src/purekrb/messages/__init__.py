"""The messages of Kerberos and SPNEGO and the PAC as typed values, with a strict DER codec.

There is no cryptography here: an encrypted part stays bytes. `der.py` reads all DER of a peer. Each
other module declares the messages of one specification.

impacket's ASN.1 specs write AS-REQ and TGS-REQ (impacket_der.py). A type for which impacket has no
spec, such as those of FAST, SPAKE and PKINIT, is declared here and written by der.py: there is no
third way.
"""
