"""SASL GSSAPI and GSS-SPNEGO for protocols of your own: sans-I/O clients and servers.

    client = GssapiClient(purekrb.initiate("imap/mail.example.test", credential))
    server = GssapiServer(purekrb.Acceptor(keytab))

Source: RFC 4752, MS-ADTS 5.1.1.1.2.
"""

from purekrb.sasl import GssapiClient as GssapiClient
from purekrb.sasl import GssapiServer as GssapiServer
from purekrb.sasl import GssSpnegoClient as GssSpnegoClient
from purekrb.sasl import GssSpnegoServer as GssSpnegoServer
from purekrb.sasl import Layer as Layer
from purekrb.sasl import SecurityLayer as SecurityLayer
from purekrb.sasl import context_flags as context_flags
