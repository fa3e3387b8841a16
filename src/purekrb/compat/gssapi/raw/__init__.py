"""The functions of GSS-API, with the arguments and results of python-gssapi's `gssapi.raw`.

Each extension is a module of its own, named as in python-gssapi; all names are here, too. A
function that purekrb does not have raises OperationUnavailableError with its name.
"""

from purekrb.compat.gssapi.raw.chan_bindings import *  # noqa: F403
from purekrb.compat.gssapi.raw.creds import *  # noqa: F403
from purekrb.compat.gssapi.raw.exceptions import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_cred_imp_exp import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_cred_store import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_dce import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_dce_aead import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_ggf import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_iov_mic import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_krb5 import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_password import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_password_add import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_prf import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_rfc4178 import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_rfc5587 import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_rfc5588 import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_rfc5801 import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_rfc6680 import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_s4u import *  # noqa: F403
from purekrb.compat.gssapi.raw.ext_set_cred_opt import *  # noqa: F403
from purekrb.compat.gssapi.raw.message import *  # noqa: F403
from purekrb.compat.gssapi.raw.misc import *  # noqa: F403
from purekrb.compat.gssapi.raw.named_tuples import *  # noqa: F403
from purekrb.compat.gssapi.raw.names import *  # noqa: F403
from purekrb.compat.gssapi.raw.oids import *  # noqa: F403
from purekrb.compat.gssapi.raw.sec_contexts import *  # noqa: F403
from purekrb.compat.gssapi.raw.types import *  # noqa: F403
