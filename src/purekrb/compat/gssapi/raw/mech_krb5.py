"""The types of names of Kerberos: `NameType.kerberos_principal`."""
