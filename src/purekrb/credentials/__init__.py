"""Who a client is, and the files that hold its secrets.

- `Credential`: a client with its password, key, keytab or tickets.
- `Keytab`, `KeytabEntry`: long-term keys of services, in MIT's keytab file format.
- `CCache`, `ServiceTicket`: tickets and their session keys, in MIT's credential cache file format.

`files.py` opens every file without following links, checks the open descriptor, and replaces the
file atomically with mode 0600. The repr of a secret is redacted. Keys and credentials cannot be
pickled or copied.
"""
