"""GSSError, and what there is in mechanisms and types of names. Source: RFC 2744 3.9.1, 5.11, 5.20."""

from __future__ import annotations

from typing import Any, ClassVar

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import MechType, NameType

__all__ = ["indicate_mechs", "inquire_names_for_mech", "inquire_mechs_for_name", "GSSError"]

SPNEGO = OID.from_int_seq("1.3.6.1.5.5.2")
MECHANISMS = (MechType.kerberos, SPNEGO)

_NAME_TYPES = (
    NameType.user,
    NameType.machine_uid,
    NameType.string_uid,
    NameType.hostbased_service,
    NameType.kerberos_principal,
    NameType.anonymous,
    NameType.export,
    NameType.composite_export,
)


def indicate_mechs() -> set[OID]:
    """Return the mechanisms: Kerberos and SPNEGO."""
    return set(MECHANISMS)


def inquire_names_for_mech(mech: OID) -> set[OID]:
    """Return the types of names of `mech`. Raises BadMechanismError if there is no such one."""
    check_mech(mech)
    return set(_NAME_TYPES)


def inquire_mechs_for_name(name: Any) -> set[OID]:
    """Return the mechanisms that take `name`."""
    return indicate_mechs()


def _display_status(
    error_code: int, is_major_code: bool, mech: OID | None = None, message_context: int = 0
) -> tuple[bytes, int, bool]:
    """Return one of the texts of a status, the context for the next call, and whether there is one."""
    texts = codes.major_texts(error_code) if is_major_code else [codes.minor_text(error_code)]
    more = message_context + 1 < len(texts)
    return texts[message_context].encode(), message_context + 1 if more else 0, more


class GSSError(Exception):
    """An error of GSS-API: its major and minor code, and the token to send to the peer, if any.

    `GSSError(maj_code, min_code)` makes an error of the subclass for the major code. Errors of
    purekrb have their own text in the place of the minor code's.
    """

    CALLING_CODE: ClassVar[int] = 0
    ROUTINE_CODE: ClassVar[int] = 0
    SUPPLEMENTARY_CODE: ClassVar[int] = 0
    MESSAGE = "Major ({maj_stat}): {maj_str}, Minor ({min_stat}): {min_str}"

    #: (calling, routine and supplementary code) -> the class for it.
    _classes: ClassVar[dict[tuple[int, int, int], type[GSSError]]] = {}

    def __init_subclass__(cls) -> None:
        codes = cls.CALLING_CODE, cls.ROUTINE_CODE, cls.SUPPLEMENTARY_CODE
        GSSError._classes.setdefault(codes, cls)

    def __new__(
        cls, maj_code: int, min_code: int, token: bytes | None = None, reason: str | None = None
    ) -> GSSError:
        calling, routine, supplementary = cls._parse_major_code(maj_code)
        for key in (
            (calling, routine, 0),
            (0, routine, 0),
            (calling, 0, 0),
            (0, 0, supplementary),
        ):
            found = GSSError._classes.get(key) if any(key) else None
            if found is not None and issubclass(found, cls):
                return super().__new__(found, maj_code, min_code)
        return super().__new__(cls, maj_code, min_code)

    def __init__(
        self, maj_code: int, min_code: int, token: bytes | None = None, reason: str | None = None
    ) -> None:
        self.maj_code = maj_code
        self.min_code = min_code
        self.token = token
        self.calling_code, self.routine_code, self.supplementary_code = self._parse_major_code(
            maj_code
        )
        self._reason = reason
        super().__init__(self.gen_message())

    @classmethod
    def _parse_major_code(cls, maj_code: int) -> tuple[int, int, int]:
        return maj_code & 0xFF000000, maj_code & 0x00FF0000, maj_code & 0x0000FFFF

    def get_all_statuses(self, code: int, is_maj: bool) -> list[str]:
        """Return the texts of a code."""
        if is_maj:
            return codes.major_texts(code)
        own = self._reason if code == self.min_code else None
        return [own or codes.minor_text(code)]

    def gen_message(self) -> str:
        """Return the text of the error."""
        return self.MESSAGE.format(
            maj_stat=self.maj_code,
            maj_str=" -- ".join(self.get_all_statuses(self.maj_code, True)),
            min_stat=self.min_code,
            min_str=" -- ".join(self.get_all_statuses(self.min_code, False)),
        )

    def __str__(self) -> str:
        return self.gen_message()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.maj_code, self.min_code, self.token, self._reason)


def check_mech(mech: OID | None) -> None:
    """Raise BadMechanismError unless `mech` is one of those here, or None."""
    if mech is not None and mech not in MECHANISMS:
        raise GSSError(codes.BAD_MECH, 0, reason=f"purekrb has no mechanism {mech.dotted_form}")
