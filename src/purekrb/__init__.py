"""Kerberos mutual authentication in pure Python: no SSPI, no libkrb5.

Each public name is loaded on first use (PEP 562), so `import purekrb` is cheap and imports no
dependency.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    # names, keys, credentials
    "Principal",
    "EncryptionKey",
    "EncryptionType",
    "Credential",
    "Keytab",
    "KeytabEntry",
    "CCache",
    "Kirbi",
    "OtpAnswer",
    "OtpChallenge",
    "ServiceTicket",
    "KdcTrust",
    "verify_credentials",
    # the KDC client
    "Config",
    "KdcClient",
    "canonicalize_host",
    # contexts
    "initiate",
    "Initiator",
    "Acceptor",
    "Flag",
    "ChannelBindings",
    "ClientIdentity",
    "IovBuffer",
    "IovType",
    "PrfKey",
    # streams
    "connect",
    "listen",
    # submodules
    "aio",
    "crypto",
    "replay",
    "spn",
    "sspi",
    "testing",
    # errors
    "KerberosError",
    "DecodeError",
    "ProtocolError",
    "MutualAuthenticationError",
    "IntegrityError",
    "UnsupportedError",
    "PolicyError",
    "ArmorRequiredError",
    "KdcError",
    "PreauthFailedError",
    "ClientUnknownError",
    "ClientRevokedError",
    "PasswordExpiredError",
    "PasswordPolicyError",
    "ServiceUnknownError",
    "KdcEtypeError",
    "PreauthUnsupportedError",
    "DelegationRefusedError",
    "ClockSkewError",
    "ApError",
    "ReplayError",
    "ChannelBindingsError",
    "PacError",
    "SequenceError",
    "ContextError",
    "ContextExpiredError",
    "CredentialError",
    "CertificateError",
    "ConfigError",
    "TransportError",
    "TransportTimeoutError",
    "OutcomeUnknownError",
    "DirectoryError",
    "AccountNotFoundError",
    "InsufficientRightsError",
    "SpnValidatedWriteDeniedError",
    "SpnNotUniqueError",
    "RegistrationError",
    "SpnError",
    "SspiError",
]

if TYPE_CHECKING:
    from purekrb import aio, crypto, replay, spn, sspi, testing
    from purekrb.channel.blocking import connect, listen
    from purekrb.constants import EncryptionType, Flag, PrfKey
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.kdc_trust import KdcTrust
    from purekrb.credentials.keytab import Keytab, KeytabEntry
    from purekrb.credentials.kirbi import Kirbi
    from purekrb.credentials.ticket import ServiceTicket
    from purekrb.errors import (
        AccountNotFoundError,
        ApError,
        ArmorRequiredError,
        CertificateError,
        ChannelBindingsError,
        ClientRevokedError,
        ClientUnknownError,
        ClockSkewError,
        ConfigError,
        ContextError,
        ContextExpiredError,
        CredentialError,
        DecodeError,
        DelegationRefusedError,
        DirectoryError,
        InsufficientRightsError,
        IntegrityError,
        KdcError,
        KdcEtypeError,
        KerberosError,
        MutualAuthenticationError,
        OutcomeUnknownError,
        PacError,
        PasswordExpiredError,
        PasswordPolicyError,
        PolicyError,
        PreauthFailedError,
        PreauthUnsupportedError,
        ProtocolError,
        RegistrationError,
        ReplayError,
        SequenceError,
        ServiceUnknownError,
        SpnError,
        SpnNotUniqueError,
        SpnValidatedWriteDeniedError,
        SspiError,
        TransportError,
        TransportTimeoutError,
        UnsupportedError,
    )
    from purekrb.exchanges.identity import ClientIdentity
    from purekrb.gss.acceptor import Acceptor
    from purekrb.gss.channel_bindings import ChannelBindings
    from purekrb.gss.initiator import Initiator
    from purekrb.gss.iov import IovBuffer, IovType
    from purekrb.kdc.client import KdcClient, initiate
    from purekrb.kdc.hosts import canonicalize_host
    from purekrb.kdc.verification import verify_credentials
    from purekrb.keys import EncryptionKey
    from purekrb.krb5conf.config import Config
    from purekrb.messages.otp import OtpAnswer, OtpChallenge
    from purekrb.names import Principal

#: Public name -> module that defines it. All other names are submodules or error classes.
_HOMES = {
    "Principal": "names",
    "EncryptionKey": "keys",
    "EncryptionType": "constants",
    "Flag": "constants",
    "PrfKey": "constants",
    "Credential": "credentials.credential",
    "Keytab": "credentials.keytab",
    "KeytabEntry": "credentials.keytab",
    "CCache": "credentials.ccache",
    "Kirbi": "credentials.kirbi",
    "ServiceTicket": "credentials.ticket",
    "KdcTrust": "credentials.kdc_trust",
    "Config": "krb5conf.config",
    "KdcClient": "kdc.client",
    "OtpAnswer": "messages.otp",
    "OtpChallenge": "messages.otp",
    "canonicalize_host": "kdc.hosts",
    "initiate": "kdc.client",
    "verify_credentials": "kdc.verification",
    "Initiator": "gss.initiator",
    "Acceptor": "gss.acceptor",
    "ChannelBindings": "gss.channel_bindings",
    "ClientIdentity": "exchanges.identity",
    "IovBuffer": "gss.iov",
    "IovType": "gss.iov",
    "connect": "channel.blocking",
    "listen": "channel.blocking",
}
_SUBMODULES = frozenset({"aio", "crypto", "replay", "spn", "sspi", "testing"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"purekrb.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'purekrb' has no attribute {name!r}")
    value = getattr(import_module(f"purekrb.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value  # later accesses do not call this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
