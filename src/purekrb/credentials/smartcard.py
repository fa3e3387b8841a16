"""A client's certificate whose key a token holds: a smart card, by its PKCS#11 module.

The token signs; its key never leaves it. A wrong PIN counts on the token, and a few of them lock
it, so a PIN is tried once and never kept. Needs python-pkcs11: `pip install purekrb[smartcard]`.
Source: PKCS #11 v2.40.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from purekrb.credentials.cert_match import choose
from purekrb.credentials.certificate import Ask, ClientCertificate, SignatureKind
from purekrb.credentials.x509 import described, load_certificate, public_key_of
from purekrb.errors import CertificateError, UnsupportedError
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.system import fork_safe
from purekrb.text import visible
from purekrb.tracebacks import forget_frames

__all__ = ["from_token"]

log = Log("purekrb.credentials")

#: Modules are seldom made for several threads, so these take turns.
_turn = fork_safe(threading.Lock())
#: More certificates than any token holds.
_MAX_CERTIFICATES = 64
#: The beginning of a DigestInfo of SHA-256, for tokens that do not hash. Source: RFC 8017 9.2.
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


class _OnToken(NamedTuple):
    """A certificate on a token, and the CKA_ID that its key has as well."""

    certificate: x509.Certificate
    id: bytes
    label: str

    def __str__(self) -> str:
        return f"{visible(self.label) or described(self.certificate)} (id {self.id.hex()})"


@forget_frames
def from_token(
    module: str,
    *,
    token: str | None = None,
    slot: int | None = None,
    label: str | None = None,
    certid: bytes | None = None,
    pin: Ask | None = None,
    principal: Principal | None = None,
    rules: Sequence[str] = (),
) -> ClientCertificate:
    """Return the certificate on a token that the PKCS#11 `module` (a shared library) reaches.

    `token` is the token's label, `slot` its slot's number, `label` and `certid` (CKA_ID) are those
    of the certificate. What is not given must be unique: `cert_match.choose` says how. `pin` is called
    once if the token asks for a PIN. Raises CertificateError, and UnsupportedError without
    python-pkcs11.
    """
    pkcs11 = _library()
    with _using(f"the PKCS#11 module {module}"):
        _load(pkcs11, module)
        found_slot = _slot(pkcs11, module, token, slot)
        found_token = found_slot.get_token()
    name = f"the token {visible(found_token.label) or found_slot.slot_id}"
    # Certificates can mostly be read without the PIN: what does not fit costs no try.
    with _using(name), found_token.open() as public:
        held = _matching(pkcs11, public, None, None)
        if held and not _matching(pkcs11, public, label, certid):
            raise CertificateError(
                f"{name} holds no certificate of that label or id: it has "
                f"{', '.join(map(str, held))}"
            )
    asked = _asked(pkcs11, found_token, name, pin)
    with _using(name):
        session = _log_in(pkcs11, found_slot, name, asked)
        del asked
        try:
            certificates = _matching(pkcs11, session, label, certid)
            keys = {
                key[pkcs11.Attribute.ID]: key for key in _objects(pkcs11, session, "PRIVATE_KEY")
            }
            usable = [one for one in certificates if one.id in keys]
            if not usable:
                found = ", ".join(map(str, certificates)) or "none at all"
                raise CertificateError(
                    f"{name} holds no certificate with its private key; of certificates, it has "
                    f"{found}"
                )
            chosen = choose(usable, principal, rules, name)
            others = [
                other.certificate
                for other in _matching(pkcs11, session, None, None)
                if other.certificate.subject == chosen.certificate.issuer
                and other.certificate != chosen.certificate
            ]
            key = _KeyOnToken(pkcs11, session, keys[chosen.id], chosen.certificate, name)
        except BaseException:
            with suppress(Exception):
                session.close()
            raise
    identity = f"PKCS11:module_name={module}:token={found_token.label}:certid={chosen.id.hex()}"
    return ClientCertificate(chosen.certificate, key, others, identity=identity)


def _library() -> Any:
    try:
        import pkcs11
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"the package {error.name} is not installed: run `pip install purekrb[smartcard]`"
        ) from None
    return pkcs11


def _load(pkcs11: Any, module: str) -> None:
    try:
        pkcs11.lib(module)
    except (RuntimeError, OSError) as error:
        reason = visible(str(error))
    else:
        return
    raise CertificateError(
        f"the PKCS#11 module {module} cannot be loaded: {reason}; name the module of the card, "
        "such as opensc-pkcs11.so"
    )


@contextmanager
def _using(what: str) -> Iterator[None]:
    """Take a turn with the library, whose errors become CertificateError."""
    try:
        with _turn:
            yield
    except CertificateError:
        raise
    except (RuntimeError, OSError, ValueError) as error:  # PKCS11Error is a RuntimeError
        failure = f"{what} failed: {_words(error)}"
    else:
        return
    raise CertificateError(failure)


def _words(error: Exception) -> str:
    kind = type(error).__name__
    known = {
        "TokenNotPresent": "there is no token in it: insert the card",
        "TokenNotRecognised": "the card is not one that this module knows",
        "DeviceRemoved": "the card was taken out: insert it, and make a new credential",
        "UserNotLoggedIn": "its session is over: make a new credential",
        "SessionHandleInvalid": "its session is over: make a new credential",
        "SessionClosed": "its session is over: make a new credential",
    }
    return known.get(kind) or visible(f"{kind} {error}".strip())


def _slot(pkcs11: Any, module: str, token: str | None, slot: int | None) -> Any:
    """Return the slot of the one token that is meant."""
    slots = [
        found
        for found in pkcs11.lib(module).get_slots(token_present=True)
        if slot is None or found.slot_id == slot
    ]
    # An empty SoftHSM has one more token that is not initialised.
    tokens = [
        (found, held)
        for found in slots
        for held in [found.get_token()]
        if pkcs11.TokenFlag.TOKEN_INITIALIZED & held.flags
        and (token is None or held.label == token)
    ]
    if len(tokens) == 1:
        return tokens[0][0]
    wanted = f" called {visible(token)}" if token else ""
    wanted += f" in slot {slot}" if slot is not None else ""
    if not tokens:
        raise CertificateError(
            f"the PKCS#11 module {module} has no token{wanted}: insert the card, and check the name"
        )
    names = ", ".join(visible(held.label) for _, held in tokens)
    raise CertificateError(
        f"the PKCS#11 module {module} has several tokens{wanted}: name one of {names}"
    )


def _objects(pkcs11: Any, session: Any, kind: str) -> list[Any]:
    """Return all objects of a class. All are read: only one search of a session may be open."""
    wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass[kind]}
    return list(session.get_objects(wanted))


def _matching(pkcs11: Any, session: Any, label: str | None, id_: bytes | None) -> list[_OnToken]:
    found = []
    for each in _objects(pkcs11, session, "CERTIFICATE")[:_MAX_CERTIFICATES]:
        held_label, held_id = _attribute(pkcs11, each, "LABEL"), _attribute(pkcs11, each, "ID")
        if (label is not None and held_label != label) or (id_ is not None and held_id != id_):
            continue
        try:
            certificate = load_certificate(bytes(each[pkcs11.Attribute.VALUE]))
        except CertificateError as error:
            log.debug("a certificate of the token is passed over: %s", error)
            continue
        found.append(_OnToken(certificate, bytes(held_id or b""), held_label or ""))
    return found


def _attribute(pkcs11: Any, each: Any, name: str) -> Any:
    try:
        return each[pkcs11.Attribute[name]]
    except pkcs11.PKCS11Error:
        return None


def _asked(pkcs11: Any, token: Any, name: str, ask: Ask | None) -> Any:
    """Return the PIN; None if the token needs none, PROTECTED_AUTH if it has keys of its own."""
    flags = pkcs11.TokenFlag
    if not token.flags & flags.LOGIN_REQUIRED:
        return None
    if token.flags & flags.USER_PIN_LOCKED:
        raise CertificateError(
            f"the PIN of {name} is locked: too many wrong ones were tried; have it unlocked"
        )
    if token.flags & flags.PROTECTED_AUTHENTICATION_PATH:
        return pkcs11.PROTECTED_AUTH
    if ask is None:
        raise CertificateError(f"{name} needs a PIN: pass pin=, a function that returns it")
    pin = ask(f"PIN of {name}{_tries(pkcs11, token.flags)}")
    if not isinstance(pin, str) or not pin:
        raise CertificateError(f"no PIN of {name} was given, so none was tried")
    return pin


def _log_in(pkcs11: Any, slot: Any, name: str, pin: Any) -> Any:
    """Return a session of the token's user; the PIN is tried once."""
    token = slot.get_token()
    failure = f"the PIN of {name} is wrong"
    try:
        return token.open(user_pin=pin)
    except pkcs11.UserAlreadyLoggedIn:
        return token.open()  # by another credential of this process
    except pkcs11.PinIncorrect:
        pass
    except (pkcs11.PinLenRange, pkcs11.PinInvalid):
        failure = f"the PIN of {name} has a length or characters that it does not take"
    except pkcs11.PinLocked:
        failure = f"the PIN of {name} is locked: too many wrong ones were tried; have it unlocked"
    except pkcs11.PinExpired:
        failure = f"the PIN of {name} has expired: set a new one with the card's own program"
    del pin
    left = slot.get_token().flags
    raise CertificateError(f"{failure}{_tries(pkcs11, left)}")


def _tries(pkcs11: Any, state: Any) -> str:
    """Return how many tries are left, as far as a token says."""
    flags = pkcs11.TokenFlag
    if state & flags.USER_PIN_LOCKED:
        return " (it is locked now: have it unlocked)"
    if state & flags.USER_PIN_FINAL_TRY:
        return " (one try is left: another wrong PIN locks it)"
    if state & flags.USER_PIN_COUNT_LOW:
        return " (a wrong PIN was tried since the last good one: few tries are left)"
    return ""


class _KeyOnToken:
    """A private key on a token, and the session that may use it."""

    __slots__ = ("_key", "_name", "_pkcs11", "_public", "_session")

    def __init__(
        self, pkcs11: Any, session: Any, key: Any, certificate: x509.Certificate, name: str
    ) -> None:
        self._pkcs11 = pkcs11
        self._session = session
        self._key = key
        self._public = public_key_of(certificate)
        self._name = name

    def sign(self, data: bytes, kind: SignatureKind) -> bytes:
        with _using(self._name):
            signature = self._sign(data, kind)
            if not self._fits(data, signature, kind):
                raise CertificateError(
                    f"{self._name} signs with another key than that of the certificate: its "
                    "certificates and keys are mixed up"
                )
            return signature

    def _sign(self, data: bytes, kind: SignatureKind) -> bytes:
        mechanism = self._pkcs11.Mechanism
        digest = hashlib.new(kind.hash.name, data).digest()
        if isinstance(self._public, rsa.RSAPublicKey):
            if mechanism.SHA256_RSA_PKCS in self._session.token.slot.get_mechanisms():
                return bytes(self._key.sign(data, mechanism=mechanism.SHA256_RSA_PKCS))
            return bytes(self._key.sign(_SHA256_INFO + digest, mechanism=mechanism.RSA_PKCS))
        raw = bytes(self._key.sign(digest, mechanism=mechanism.ECDSA))
        half = len(raw) // 2
        return encode_dss_signature(
            int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        )

    def _fits(self, data: bytes, signature: bytes, kind: SignatureKind) -> bool:
        hash_: hashes.HashAlgorithm = kind.hash
        try:
            if isinstance(self._public, rsa.RSAPublicKey):
                self._public.verify(signature, data, padding.PKCS1v15(), hash_)
            else:
                self._public.verify(signature, data, ec.ECDSA(hash_))
        except Exception:  # InvalidSignature
            return False
        return True

    def close(self) -> None:
        with suppress(Exception), _using(self._name):
            self._session.close()
