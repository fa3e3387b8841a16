"""Who a client is, and the files that hold its secrets.

- `Credential`: a client with its password, key, keytab or tickets.
- `Keytab`, `KeytabEntry`: long-term keys of services, in MIT's keytab file format.
- `CCache`, `ServiceTicket`: tickets and their session keys, in MIT's credential cache file format.

Every file is opened without following links, checked on the open descriptor, and replaced atomically with mode 0600
(`files.py`). All secrets have a redacted repr; keys and credentials refuse to be pickled or copied.
"""
