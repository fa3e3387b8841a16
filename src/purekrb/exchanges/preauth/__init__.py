"""Pre-authentication: the mechanisms by which a client proves its identity in an AS exchange."""
