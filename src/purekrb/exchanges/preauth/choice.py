"""The table of mechanisms, and the choice between them. Source: RFC 4120 5.9.1, RFC 6113 2."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from purekrb.constants import ErrorCode, PaDataType
from purekrb.errors import ArmorRequiredError, KerberosError, PolicyError, PreauthUnsupportedError
from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.preauth.kinds import PLUGINS, preauth_kinds
from purekrb.exchanges.preauth.mechanism import Mechanism, Next, Proof, Strength
from purekrb.exchanges.preauth.timestamp import Timestamp
from purekrb.exchanges.runner import Exchange
from purekrb.keys import EncryptionKey, etype_names
from purekrb.log import Log
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsRep, KdcReqBody, MethodData, PaData
from purekrb.system import RandomBytes

if TYPE_CHECKING:
    from purekrb.messages.otp import AskOtp

__all__ = ["MECHANISMS", "HOW_TO_ARMOR", "Otp", "Pkinit", "Preauth", "Spake", "mechanisms"]

log = Log("purekrb.kdc")

#: What helps where FAST is needed. initiate() takes the TGT that the credential has by then.
HOW_TO_ARMOR = (
    "Pass armor= to KdcClient or get_tgt (kinit -T CACHE): a credential with a ticket or a key of its "
    'own, such as this machine\'s keytab, or "anonymous"'
)


class _EncryptedChallenge:
    """The row of the encrypted challenge, which is loaded where there is an armor."""

    type: int = PaDataType.ENCRYPTED_CHALLENGE
    name = "PA-ENCRYPTED-CHALLENGE"
    strength = Strength.STRONG
    awaited = True
    announced = False

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> Proof | None:
        """Like `Mechanism.begin`."""
        if keys.armor_key is None:
            return None
        from purekrb.exchanges.preauth.encrypted_challenge import begin

        return begin(keys, random, keys.armor_key, asked=asked)


class Otp:
    """The row of one-time passwords, which `ask` gets; it is only there for who passes `otp=`.

    In FAST, nobody on the path learns the value. Source: RFC 6560.
    """

    type: int = PaDataType.OTP_CHALLENGE
    name = "PA-OTP"
    strength = Strength.STRONG
    awaited = True
    announced = False

    def __init__(self, ask: AskOtp) -> None:
        self.ask = ask

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> Proof | None:
        """Like `Mechanism.begin`."""
        if keys.armor_key is None:
            raise ArmorRequiredError(
                f"{keys.label}: a one-time password only goes in FAST, and there is no armor; nothing "
                f"was sent. {HOW_TO_ARMOR}"
            )
        if not asked:
            return None
        from purekrb.exchanges.preauth.otp import OtpProof

        return OtpProof(self.ask, keys.armor_key, random)


class Spake:
    """The row of SPAKE, which is loaded where a KDC offers it.

    `groups` are those to use, the preferred one first; None: all that can be used here. `unasked`:
    the first request already says so, which spares a round trip with a KDC that has SPAKE. A client
    with a key at hand does not wait for it: the KDC may not have it, and a random key cannot be
    guessed.
    """

    type: int = PaDataType.SPAKE
    name = "PA-SPAKE"
    strength = Strength.STRONG
    awaited = False
    announced = False

    def __init__(self, groups: tuple[int, ...] | None = None, *, unasked: bool = False) -> None:
        self.groups, self.unasked = groups, unasked

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> Proof | None:
        """Like `Mechanism.begin`."""
        if not (asked or self.unasked):
            return None
        from purekrb.crypto.spake_groups import available_groups
        from purekrb.exchanges.preauth.spake import SpakeProof

        return SpakeProof(keys, random, self.groups or available_groups())


class Pkinit:
    """The row of PKINIT, for who has a certificate and for anonymous clients.

    The first request says that the client takes a freshness token (RFC 8070).
    """

    type: int = PaDataType.PK_AS_REQ
    name = "PKINIT"
    strength = Strength.STRONG
    awaited = True
    announced = True

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> Proof | None:
        """Like `Mechanism.begin`."""
        if keys.credential.kdc_trust is None:
            return None
        from purekrb.exchanges.preauth.pkinit import PkinitProof

        return PkinitProof(keys, keys.credential.kdc_trust, random)


#: Strongest first. The first mechanism is used that the KDC offers, the caller permits and the
#: credential supports.
MECHANISMS: tuple[Mechanism, ...] = (Pkinit(), _EncryptedChallenge(), Spake(), Timestamp())


def mechanisms(
    groups: tuple[int, ...] | None,
    *,
    unasked: bool,
    otp: AskOtp | None = None,
    keys: bool = True,
    public_key: bool = False,
    preferred: Sequence[int] = (),
    disabled: Collection[str] = (),
    enabled: Collection[str] | None = None,
) -> tuple[Mechanism, ...]:
    """Return the table, with SPAKE in `groups`, which may be offered `unasked`: see `Spake`.

    One-time passwords, which `otp` gets, come first: who passes it wants them. The other rows are
    those of a client with long-term `keys`, and with a `public_key` that of PKINIT.
    Those of the `preferred` types come first, in that order; those that are `disabled`, or not among
    the only `enabled` ones, are left out, by MIT's names.
    """
    spake = Spake(groups, unasked=unasked)
    rows = tuple(
        spake if isinstance(row, Spake) else row
        for row in MECHANISMS
        if (public_key if isinstance(row, Pkinit) else keys)
    )
    rows = rows if otp is None else (Otp(otp), *rows)
    if disabled or enabled is not None:
        names = set(PLUGINS if enabled is None else enabled) - set(disabled)
        rows = tuple(row for row in rows if _plugin(row) in names)
    if preferred:
        rows = tuple(sorted(rows, key=lambda row: _place(row, preferred)))
    return rows


def _plugin(row: Mechanism) -> str:
    """Return MIT's name of a row."""
    return next((name for name, types in PLUGINS.items() if row.type in types), "")


def _place(row: Mechanism, preferred: Sequence[int]) -> int:
    """Return the place of a row among the preferred types, behind them if it is none of them."""
    types = PLUGINS.get(_plugin(row), ())
    return min(
        (preferred.index(number) for number in types if number in preferred), default=len(preferred)
    )


#: The hints by which a KDC names the encryption types of an account's keys.
_ETYPE_HINTS = frozenset((PaDataType.ETYPE_INFO, PaDataType.ETYPE_INFO2))
_NO_METHODS = b"\x30\x00"


class Preauth:
    """Pre-authentication with the KDCs of one realm: the current proof, and the KDC's cookie.

    `mechanisms` are in order of preference; those below `floor` are not used. After the KDC has
    asked for one, a weaker one is never begun: anyone can forge the error that asks for it.
    """

    def __init__(
        self,
        keys: ClientKeys,
        mechanisms: Iterable[Mechanism],
        floor: Strength,
        random: RandomBytes,
    ) -> None:
        self.proof: Proof | None = None
        self._keys = keys
        self._mechanisms = tuple(mechanisms)
        self._floor = floor
        self._random = random
        self._mechanism: Mechanism | None = None  # that of the proof, or of the last one
        self._offered = False  # whether the KDC has asked for that mechanism
        self._cookie: PaData | None = None
        for mechanism in self._permitted():
            if mechanism.announced and self.proof is None:
                self.proof = mechanism.begin(keys, random, asked=False)
                self._mechanism = mechanism if self.proof else None

    def begin_optimistic(self) -> None:
        """Prove the identity in the first request, before the KDC asks; this spares a round trip.

        Only the strongest mechanism that the credential supports is used for this. A weaker one
        waits until the KDC has said what it offers.
        """
        for mechanism in self._permitted() if self.proof is None else ():
            proof = mechanism.begin(self._keys, self._random, asked=False)
            if proof is not None:
                self.proof, self._mechanism = proof, mechanism
                return
            if mechanism.awaited and mechanism.begin(self._keys, self._random, asked=True):
                return

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        """Return the padata of the request `body` at `time`, which is by the KDC's clock."""
        cookie = () if self._cookie is None else (self._cookie,)
        if self.proof is None:
            return cookie
        return (*cookie, *(yield from self.proof.padata(body, time)))

    def take_error(self, error: KrbError) -> Exchange[bool]:
        """Take the data for the next request from a KRB-ERROR; return False if it is final."""
        code = error.error_code
        if code == ErrorCode.KDC_ERR_PREAUTH_REQUIRED:
            yield from self._choose(_methods(error), error)
        elif code == ErrorCode.KDC_ERR_MORE_PREAUTH_DATA_REQUIRED:
            yield from self._go_on(_methods(error), error)
        else:
            after = Next.WITHOUT if code == ErrorCode.KDC_ERR_PREAUTH_EXPIRED else Next.FAILURE
            if self.proof is not None and after is Next.FAILURE:
                after = self.proof.refused(error)
            if after is Next.WITHOUT:
                self.proof = self._cookie = None  # the KDC will then say what it wants
            return after is not Next.FAILURE
        return True

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Return the key of the reply to `request`, which is the encoded AS-REQ."""
        if self.proof is None:
            return (yield from self._keys.for_reply(reply))
        return (yield from self.proof.reply_key(reply, request))

    def _permitted(self) -> list[Mechanism]:
        return [mechanism for mechanism in self._mechanisms if mechanism.strength >= self._floor]

    def _choose(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Begin the first mechanism that the KDC offers and the credential supports."""
        types = [method.padata_type for method in methods]
        for mechanism in self._permitted():
            if mechanism.type not in types:
                continue
            # A KDC that asks for the same again goes on with the proof that has begun.
            begun = self.proof if mechanism is self._mechanism else None
            proof = begun or mechanism.begin(self._keys, self._random, asked=True)
            if proof is not None:
                yield from self._ask(mechanism, proof, methods, error)
                return
        raise self._none_fits(types, error)

    def _go_on(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Take the next step of the current mechanism, or begin another that the KDC asks for."""
        mechanism, proof = self._mechanism, self.proof
        types = [method.padata_type for method in methods]
        if mechanism is not None and proof is not None and mechanism.type in types:
            yield from self._ask(mechanism, proof, methods, error)
        else:
            yield from self._choose(methods, error)

    def _ask(
        self, mechanism: Mechanism, proof: Proof, methods: tuple[PaData, ...], error: KrbError
    ) -> Exchange[None]:
        yield from proof.asked(methods, error)
        self.proof, self._mechanism, self._offered = proof, mechanism, True
        self._floor = max(self._floor, mechanism.strength)
        self._cookie = next((m for m in methods if m.padata_type == PaDataType.FX_COOKIE), None)
        if log.on():
            types = ", ".join(str(method.padata_type) for method in methods)
            log.debug(
                "%s takes pre-authentication of the types %s: %s is chosen",
                self._keys.realm,
                types,
                proof,
            )

    def _none_fits(self, types: list[int], error: KrbError) -> KerberosError:
        """Return the error of an exchange whose KDC offers `types` in `error`."""
        label = self._keys.label
        permitted = self._permitted()
        weak = [mechanism for mechanism in self._mechanisms if mechanism not in permitted]
        weak_offered = [mechanism for mechanism in weak if mechanism.type in types]
        if weak_offered and self._mechanism is not None and not self._offered:
            return PolicyError(
                f"{label}: the KDC does not offer {self._mechanism.name}, but asks for "
                f"{_names(weak_offered)}, which is weaker and not permitted here; nothing more was "
                "sent. Log in within FAST, with a ticket of another account as the armor (kinit -T "
                "CACHE, or armor= in Python), with a certificate, or permit what is weaker"
            )
        if weak_offered and self._mechanism is not None:
            return PolicyError(
                f"{label}: after {self._mechanism.name} the KDC asks for {_names(weak_offered)}, "
                "which is weaker; nothing more was sent, because anyone can forge this answer; try "
                "again, or over another network"
            )
        if weak_offered or (weak and not permitted):
            return PolicyError(
                f"{label}: the KDC asks for pre-authentication, but {_names(weak)}, the only kind "
                "that this credential supports, is not permitted; permit it, or use a credential "
                "with another kind"
            )
        if self._keys.credential.kdc_trust is not None:
            whom = "this account" if self._keys.credential.certificate else "anonymous clients"
            offered = " or ".join(preauth_kinds(types)) or "a kind without a name"
            return PreauthUnsupportedError(
                f"the KDC does not offer PKINIT to {whom}, but {offered} ({label}); have it set up: a "
                "domain controller needs a certificate of its own, MIT's KDC pkinit_identity and "
                "pkinit_anchors, and for anonymous clients the principal WELLKNOWN/ANONYMOUS",
                code=error.error_code,
                krb_error=error,
            )
        no_etype = _ETYPE_HINTS.isdisjoint(types)
        kinds = preauth_kinds(types)
        if self._keys.armor_key is not None and "FAST" in kinds:
            kinds.remove("FAST")  # it is in use already
        if no_etype and kinds == ["FAST"]:
            # The KDC offers FAST to every account, and names the encryption types of those that
            # have keys of the offered ones.
            return self._keys.no_common_etype(set(), error)
        also = (
            f", and it names no encryption type: the account may have no key of "
            f"{etype_names(self._keys.etypes)}"
            if no_etype
            else ""
        )
        kept_for_fast = "FAST" in kinds and not self._keys.armor_key
        what = (
            "the KDC takes a password or key only within FAST, and this log-in has no armor"
            if kept_for_fast and kinds == ["FAST"]
            else f"the KDC wants pre-authentication by {' or '.join(kinds) or 'a kind without a name'}, "
            "none of which this credential supports"
        )
        armor = (
            "log in within FAST, with a ticket of another account as the armor (kinit -T CACHE, or "
            "armor= in Python), "
            if kept_for_fast
            else ""
        )
        if kinds == ["OTP"] and not any(isinstance(row, Otp) for row in permitted):
            return PreauthUnsupportedError(
                f"the account wants a one-time password, and there is none ({label}); pass otp=, "
                "which gets it, or use Credential.from_otp",
                code=error.error_code,
                krb_error=error,
            )
        return PreauthUnsupportedError(
            f"{what}{also} ({label}, known here: {_names(permitted) or 'none'}); {armor}get the "
            "ticket with another program (MIT's kinit) and use its credential cache, or have the "
            "realm's administrator permit encrypted timestamps for this account",
            code=error.error_code,
            krb_error=error,
        )


def _names(mechanisms: Iterable[Mechanism]) -> str:
    return ", ".join(f"{mechanism.name} ({int(mechanism.type)})" for mechanism in mechanisms)


def _methods(error: KrbError) -> tuple[PaData, ...]:
    """Return the METHOD-DATA of an error. Source: RFC 4120 5.9.1."""
    data: MethodData = MethodData.decode(error.e_data or _NO_METHODS)
    return data.entries
