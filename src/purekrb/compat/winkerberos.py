"""winkerberos over purekrb: the functions of `purekrb.compat.kerberos` under that name."""

from purekrb.compat.kerberos import *  # noqa: F403 - the same names
from purekrb.compat.kerberos import __version__ as __version__
