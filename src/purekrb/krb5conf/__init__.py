"""krb5.conf: its grammar (profile.py) and what its relations mean (config.py)."""
