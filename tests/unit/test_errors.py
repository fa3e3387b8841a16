"""Every error is a KerberosError, survives pickling, and is what callers would expect to catch."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

import purekrb
from purekrb import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]
#: What the constructors want besides the message.
MORE: dict[type, dict[str, object]] = {
    errors.KdcError: {"code": 24},
    errors.ApError: {"code": 34, "response": b"reply"},
    errors.SequenceError: {"reason": "gap"},
    errors.RegistrationError: {"reason": "DUPLICATE"},
    errors.ProtocolError: {"expected": 1, "got": 2},
    errors.SpnError: {"code": 1722},
    errors.SpnNotUniqueError: {
        "spn": "cls/host",
        "owners": ("CN=a", "CN=b"),
        "code": 8647,
        "ldap_result": 19,
    },
    errors.SspiError: {"winerror": -2146893055, "funcname": "MakeSignature"},
}


def make(cls: type[errors.KerberosError]) -> errors.KerberosError:
    more: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        more.update(MORE.get(base, {}))
    return cls("what happened", **more)


def test_all_lists_every_error_class() -> None:
    defined = {
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    }
    assert defined == set(CLASSES)
    assert all(issubclass(c, purekrb.KerberosError) for c in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_is_the_same_after_pickling_and_copying(cls: type[errors.KerberosError]) -> None:
    error = make(cls)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is cls
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.DecodeError, ValueError),
        (errors.SpnError, ValueError),
        (errors.TransportError, OSError),
        (errors.TransportTimeoutError, TimeoutError),
        (errors.TransportTimeoutError, errors.TransportError),
        (errors.MutualAuthenticationError, errors.ProtocolError),
        (errors.ReplayError, errors.ApError),
        (errors.ChannelBindingsError, errors.ApError),
        (errors.PreauthFailedError, errors.KdcError),
        (errors.ContextExpiredError, errors.ContextError),
    ],
)
def test_errors_are_caught_under_their_general_names(cls: type, builtin: type) -> None:
    assert issubclass(cls, builtin)


def test_errors_carry_what_a_caller_needs() -> None:
    assert make(errors.KdcError).code == 24  # type: ignore[attr-defined]
    ap = make(errors.ReplayError)
    assert isinstance(ap, errors.ApError)
    assert (ap.code, ap.response) == (34, b"reply")
    assert (
        str(errors.ProtocolError("nonce differs", expected=1, got=2))
        == "nonce differs (expected 1, got 2)"
    )
    assert str(errors.ProtocolError("no ticket")) == "no ticket"
    assert str(errors.IntegrityError()) == str(errors.IntegrityError())
