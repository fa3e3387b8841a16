"""Windows' SSPI over purekrb's contexts: the packages "Kerberos" and "Negotiate", as in pywin32.

The functions have the arguments of pywin32's win32security, in the same order. They return values
in place of C's pointers, and raise `error` (SspiError, with `winerror`) for every status below
zero. pywin32's helper classes are here, too. A script for pywin32 runs with

    from purekrb import sspi
    win32security = sspicon = sspi

Source: the Windows SDK's documentation of sspi.h, MS-KILE 3.2.5.2, RFC 4121.
"""

from purekrb.errors import SspiError as SspiError
from purekrb.sspi.auth import ClientAuth as ClientAuth
from purekrb.sspi.auth import ServerAuth as ServerAuth
from purekrb.sspi.buffers import SecBuffer as SecBuffer
from purekrb.sspi.buffers import SecBufferDesc as SecBufferDesc
from purekrb.sspi.constants import *  # noqa: F403 - there are two hundred
from purekrb.sspi.contexts import AcceptSecurityContext as AcceptSecurityContext
from purekrb.sspi.contexts import CompleteAuthToken as CompleteAuthToken
from purekrb.sspi.contexts import CtxtHandle as CtxtHandle
from purekrb.sspi.contexts import DecryptMessage as DecryptMessage
from purekrb.sspi.contexts import DeleteSecurityContext as DeleteSecurityContext
from purekrb.sspi.contexts import EncryptMessage as EncryptMessage
from purekrb.sspi.contexts import ImpersonateSecurityContext as ImpersonateSecurityContext
from purekrb.sspi.contexts import InitializeSecurityContext as InitializeSecurityContext
from purekrb.sspi.contexts import MakeSignature as MakeSignature
from purekrb.sspi.contexts import QueryContextAttributes as QueryContextAttributes
from purekrb.sspi.contexts import QuerySecurityContextToken as QuerySecurityContextToken
from purekrb.sspi.contexts import RevertSecurityContext as RevertSecurityContext
from purekrb.sspi.contexts import VerifySignature as VerifySignature
from purekrb.sspi.credentials import AcquireCredentialsHandle as AcquireCredentialsHandle
from purekrb.sspi.credentials import CredHandle as CredHandle
from purekrb.sspi.credentials import FreeCredentialsHandle as FreeCredentialsHandle
from purekrb.sspi.credentials import QueryCredentialsAttributes as QueryCredentialsAttributes
from purekrb.sspi.credentials import QuerySecurityPackageInfo as QuerySecurityPackageInfo
from purekrb.sspi.credentials import set_default_credential as set_default_credential

#: The names in win32security.
error = SspiError
PyCredHandleType = CredHandle
PyCtxtHandleType = CtxtHandle
PySecBufferType = SecBuffer
PySecBufferDescType = SecBufferDesc
