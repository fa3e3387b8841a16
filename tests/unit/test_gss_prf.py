"""The pseudo-random function of contexts (RFC 4402)."""

from __future__ import annotations

from typing import Any

import pytest

from purekrb import Acceptor, ContextError, EncryptionKey, Flag, Initiator, PrfKey
from support.contexts import ALL, pair
from support.vectors import params


def with_key(key: EncryptionKey) -> Acceptor:
    """Return an established acceptor whose tokens are protected with `key`: the acceptor's subkey is drawn as that."""
    return pair(key.etype, accept={"random": lambda size: key.contents[:size]})[1]


@pytest.mark.parametrize("vector", params("gss_prf.json", "etype{etype}"))
def test_the_published_output(vector: dict[str, Any]) -> None:
    key = EncryptionKey(vector["etype"], vector["key"])
    if key.etype == 23:  # no subkey of the acceptor in such contexts
        context: Initiator | Acceptor = pair(
            23, initiator={"random": lambda size: key.contents[:size]}
        )[0]
    else:
        context = with_key(key)
    assert context.session_key == key
    output = vector["output"]
    for length in (0, 1, 15, 16, 17, 33, len(output)):
        assert context.prf(PrfKey.FULL, vector["input"], length) == output[:length]


@pytest.mark.parametrize("etype", ALL)
@pytest.mark.parametrize("flags", [Flag.DEFAULT, Flag.CONF])
def test_both_ends_and_nobody_else_derive_the_same(etype: int, flags: Flag) -> None:
    ours, theirs = pair(etype, flags=flags)
    stranger, _ = pair(etype, flags=flags)
    outputs = set()
    for key_use in PrfKey:
        for data in (b"", b"\0", b"label"):
            output = ours.prf(key_use, data, 40)
            assert output == theirs.prf(key_use, data, 40)
            assert output == ours.prf(key_use, bytearray(data), 100)[:40]
            assert output != stranger.prf(key_use, data, 40)
            outputs.add(output)
    # Where the acceptor adds no key of its own, there is but one.
    assert len(outputs) == (6 if flags & Flag.MUTUAL and etype != 23 else 3)


def test_what_cannot_be_made_is_a_mistake_of_the_caller() -> None:
    ours, _ = pair()
    for key_use, length in ((2, 10), (-1, 10), (0, -1)):
        with pytest.raises(ValueError):
            ours.prf(key_use, b"", length)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ours.prf(PrfKey.FULL, "text", 10)  # type: ignore[arg-type]
    assert ours.prf(0, b"", 10) == ours.prf(PrfKey.FULL, b"", 10)  # type: ignore[arg-type]
    ours.close()
    with pytest.raises(ContextError):
        ours.prf(PrfKey.FULL, b"", 10)
