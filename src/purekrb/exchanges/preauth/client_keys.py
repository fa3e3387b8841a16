"""The client's long-term keys in one realm: the choice of one for the proof, and its derivation.

Anyone can forge the KRB-ERROR that names encryption types, salts and iterations, so they are
limited here. Source: RFC 4120 4, 5.2.7.5.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from purekrb.constants import EncryptionType, ErrorCode, PaDataType, error_name
from purekrb.crypto.profile import MAX_ITERATIONS, QUICK_ITERATIONS, iterations
from purekrb.errors import (
    CredentialError,
    KdcError,
    KdcEtypeError,
    PolicyError,
    PreauthFailedError,
)
from purekrb.exchanges.kdc_reply import AES_FOR_CLIENT, ExchangeLabel, kdc_error
from purekrb.exchanges.runner import Computation, Exchange
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsRep, EtypeInfo2, EtypeInfo2Entry, PaData
from purekrb.names import Principal

if TYPE_CHECKING:
    from purekrb.credentials.certificate import ClientCertificate
    from purekrb.credentials.kdc_trust import KdcTrust

__all__ = ["ClientCredential", "ClientKeys"]

#: The least PBKDF2 iterations: the defaults of the encryption types. A lower count makes the
#: password cheaper to guess for an attacker who forged it. Source: RFC 3962 4, RFC 8009 4.
MIN_ITERATIONS = {17: 4096, 18: 4096, 19: 32768, 20: 32768}


#: How much of what a KDC says about salts is shown: anyone can forge it.
_MAX_SALTS, _MAX_SALT = 3, 256


class ClientCredential(Protocol):
    """The client that asks for a ticket, and the long-term keys that prove its identity."""

    @property
    def principal(self) -> Principal:
        """The client, with its realm."""

    @property
    def etypes(self) -> tuple[int, ...]:
        """The encryption types for which `key_for` has keys."""

    @property
    def needs_salt(self) -> bool:
        """Whether `key_for` needs the KDC's salt and parameters; true for a password."""

    @property
    def kvno(self) -> int | None:
        """The version of the keys, if they are a keytab's."""

    @property
    def certificate(self) -> ClientCertificate | None:
        """The client's certificate, for PKINIT."""

    @property
    def kdc_trust(self) -> KdcTrust | None:
        """Which KDCs are genuine; None for a client that does not use PKINIT."""

    @property
    def freshness(self) -> bool:
        """Whether PKINIT asks for a freshness token."""

    def key_for(self, etype: int, salt: bytes, params: bytes | None) -> EncryptionKey | None:
        """Return the key of `etype`; a password needs `salt` and `params` for string-to-key."""

    def turn_to_other_keys(self, refused: list[int]) -> bool:
        """Use other keys than those that the KDC refused; return whether there are any.

        `refused` lists the versions of keys that this exchange has tried.
        """


class ClientKeys:
    """The long-term keys of `credential` in `realm`, and the KDC's data about them.

    `etypes` are the encryption types in the requests. `label` names the exchange in errors.
    `armor_key` is that of FAST, or None.
    """

    def __init__(
        self,
        credential: ClientCredential,
        realm: str,
        etypes: tuple[int, ...],
        max_iterations: int,
        label: ExchangeLabel,
        armor_key: EncryptionKey | None = None,
    ) -> None:
        self.armor_key = armor_key
        self.credential = credential
        self.realm = realm
        self.etypes = etypes
        self.label = label
        self._max_iterations = max_iterations
        # A KRB-ERROR that only names RC4 may be forged, so a proof is not made with RC4 as long as
        # another type is offered.
        self._proof_etypes = tuple(e for e in etypes if e != EncryptionType.RC4_HMAC) or etypes
        self._etype_info: tuple[EtypeInfo2Entry, ...] = ()
        #: The KDC's values from which the last key of a password was derived.
        self.derived_from: EtypeInfo2Entry | None = None
        self._refusals: dict[int, KrbError] = {}

    def at_hand(self) -> EncryptionKey | None:
        """Return the key that the KDC will ask for; None if the KDC must first name the salt."""
        if self.credential.needs_salt:
            return None
        etype = self._proof_etypes[0]
        return self._existing(self.credential.key_for(etype, b"", None), etype)

    def for_proof(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[EncryptionKey]:
        """Return the key for the proof that the METHOD-DATA of `error` asks for.

        Raises KdcEtypeError if the KDC has no key of a type that may be used for a proof, and
        PolicyError for iterations out of bounds. For a key that the KDC has refused already, it
        raises the KdcError of that refusal.
        """
        self._etype_info = _etype_info2(methods)
        offered = {entry.etype for entry in self._etype_info}
        # If the KDC names no type, it accepts the preferred one.
        etype = next((e for e in self._proof_etypes if not offered or e in offered), None)
        if etype is None:
            raise self.no_common_etype(offered, error)
        if etype in self._refusals:  # it would fail again, and count twice against the account
            raise self.refusal(self._refusals[etype])
        return (yield from self._key(etype))

    def for_reply(self, reply: AsRep) -> Exchange[EncryptionKey]:
        """Return the key of a `reply` that is encrypted with a long-term key."""
        self._etype_info = _etype_info2(reply.padata or ()) or self._etype_info
        return (yield from self._key(reply.enc_part.etype))

    def refusal(self, error: KrbError) -> KdcError:
        """Return the exception for the KRB-ERROR that ends the exchange.

        About a keytab's key, it tells what the KDC has said of the right one: its salt.
        """
        if self.credential.kdc_trust is not None:
            from purekrb.exchanges.preauth.pkinit_words import refusal

            return refusal(error, self.label, self.credential.certificate)
        said = kdc_error(error, self.label)
        if self.credential.needs_salt or not isinstance(said, PreauthFailedError):
            return said
        return self.wrong_key(f"{self.label}, {error_name(error.error_code)}", error)

    def wrong_key(self, facts: str, error: KrbError | None = None) -> PreauthFailedError:
        """Return the error for a client's key that is not the KDC's."""
        if self.credential.kdc_trust is not None:
            return PreauthFailedError(
                f"the KDC's reply is not under the key of PKINIT ({facts}): the reply is damaged, or "
                "someone on the path changed it; try again over another network",
                code=ErrorCode.KDC_ERR_PREAUTH_FAILED,
            )
        client, kvno = self.credential.principal, self.credential.kvno
        if self.credential.needs_salt:
            what, advice = "wrong password", "check the password and the keyboard's layout"
        else:
            what = f"the key of {client}" if kvno is None else f"the keytab's key of {client}"
            held = etype_names(self.credential.etypes)
            what += f" ({held if kvno is None else f'kvno {kvno}, {held}'}) is not the KDC's"
            what += ": it is an old one, or was made from a wrong password or with another salt"
            advice = (
                "export the keytab again, or make it from the password with "
                "`purekrb keytab from-password --ask-kdc`"
            )
        if self._etype_info:
            salts = dict.fromkeys(
                client.default_salt if entry.salt is None else entry.salt
                for entry in self._etype_info
            )
            facts += f", the KDC's salt is {' or '.join(map(_shown, list(salts)[:_MAX_SALTS]))}"
        code = ErrorCode.KDC_ERR_PREAUTH_FAILED if error is None else error.error_code
        return PreauthFailedError(f"{what} ({facts}); {advice}", code=code, krb_error=error)

    def refuse(self, etype: int, error: KrbError) -> None:
        """Remember that the KDC has refused the key of `etype` with `error`."""
        self._refusals[etype] = error

    def _key(self, etype: int) -> Exchange[EncryptionKey]:
        """Return the key of `etype`, derived with the KDC's salt, or else with the default one."""
        if self.credential.needs_salt:
            key = yield from self._derived(etype)
        else:
            key = self.credential.key_for(etype, b"", None)
        return self._existing(key, etype)

    def _existing(self, key: EncryptionKey | None, etype: int) -> EncryptionKey:
        if key is None:
            client = self.credential.principal
            raise CredentialError(
                f"there is no key of {etype_name(etype)} for {client}: export the keytab again"
            )
        return key

    def _derived(self, etype: int) -> Exchange[EncryptionKey | None]:
        """Return the key of a password. The iterations, which may be forged, are limited."""
        named = (entry for entry in self._etype_info if entry.etype == etype)
        entry = next(named, EtypeInfo2Entry(etype, None, None))
        salt = entry.salt
        if salt is None:  # RFC 4120 4: the realm and the name's components, one after the other
            salt = (self.realm + "".join(self.credential.principal.components)).encode()
        self.derived_from = EtypeInfo2Entry(etype, salt, entry.s2kparams)
        if etype not in MIN_ITERATIONS:
            return self.credential.key_for(etype, salt, None)
        count = iterations(entry.s2kparams, MIN_ITERATIONS[etype])
        self._check_iterations(etype, count)
        derive = partial(self.credential.key_for, etype, salt, entry.s2kparams)
        if count <= QUICK_ITERATIONS:
            return derive()
        derivation = Computation(
            derive,
            f"a key with the {count} iterations that the KDC names was not derived before the "
            "deadline: allow more time, or set the account's password anew with fewer iterations",
        )
        yield derivation
        key: EncryptionKey | None = derivation.result
        return key

    def _check_iterations(self, etype: int, count: int) -> None:
        least, most = MIN_ITERATIONS[etype], self._max_iterations
        named = f"the KDC names a PBKDF2 iteration count of {count} for {etype_name(etype)}"
        if count < least:
            raise PolicyError(
                f"{named}; at least {least} is needed: the answer is forged, or the account's "
                "password must be set anew"
            )
        if count > most:
            raise PolicyError(
                f"{named}; at most {most} is permitted: the answer is forged, or the account needs "
                f"a higher limit (Config(max_iterations=...), up to {MAX_ITERATIONS})"
            )

    def no_common_etype(self, offered: set[int], error: KrbError) -> KdcEtypeError:
        """Return the error for an account of which the KDC has no usable key, only `offered`."""
        advice = AES_FOR_CLIENT
        if EncryptionType.RC4_HMAC in offered.intersection(self.etypes):
            advice += (
                "; rc4-hmac is not used for a proof unless it is offered alone "
                "(default_tkt_enctypes)"
            )
        has = f"only has keys of {etype_names(sorted(offered))}" if offered else "names no key"
        return KdcEtypeError(
            f"no encryption type in common with the account of {self.label.client}: the KDC {has}, "
            f"but offered were {etype_names(self.etypes)} ({self.label}); {advice}",
            code=ErrorCode.KDC_ERR_ETYPE_NOSUPP,
            krb_error=error,
        )


def _shown(salt: bytes) -> str:
    return repr(salt[:_MAX_SALT].decode(errors="backslashreplace"))


def _etype_info2(padata: tuple[PaData, ...]) -> tuple[EtypeInfo2Entry, ...]:
    for entry in padata:
        if entry.padata_type == PaDataType.ETYPE_INFO2:
            info: EtypeInfo2 = EtypeInfo2.decode(entry.padata_value)
            return info.entries
    return ()
