"""The memory for reading: bounded, replaced and never changed, and as strict as reading for the first time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.messages import ap
from purekrb.messages.ap import EncryptedData
from purekrb.messages.der import (
    INT32,
    Any_,
    Application,
    Field,
    GeneralString,
    Message,
    Sequence,
    SequenceOf,
    tlv,
)
from purekrb.messages.layouts import MAX_LAYOUTS, Key, Recurring
from purekrb.names import PrincipalName
from support.plain_schema import plain

FIELDS = (
    Field(0, "number", INT32),
    Field(2, "text", GeneralString(), optional=True),
    Field(3, "items", SequenceOf(INT32, 3)),
)


@dataclass(frozen=True, slots=True)
class Closed(Recurring):
    number: int
    text: str | None
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Open(Recurring):
    number: int
    text: str | None
    items: tuple[int, ...]


Closed.schema = Application(5, Sequence(Closed, *FIELDS))
Open.schema = Application(5, Sequence(Open, *FIELDS, extensible=True))


@dataclass(frozen=True, slots=True)
class Holder(Recurring):
    """Holds a SEQUENCE that ends in octets, and an element that is passed on as it came."""

    part: EncryptedData
    element: bytes
    key: EncryptionKey | None


ELEMENT = tlv(0x61, b"octets")
Holder.schema = Application(
    9,
    Sequence(
        Holder,
        Field(0, "part", EncryptedData.schema),
        Field(1, "element", Any_(0x61)),
        Field(2, "key", Key(), optional=True),
    ),
)


def fresh(kind: type[Recurring]) -> type[Recurring]:
    """Return a message of the same schema that has seen nothing yet."""
    return type("Fresh", (kind,), {"__slots__": ()})


def outcome(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except DecodeError as error:
        return type(error)


def layouts(kind: type[Recurring]) -> int:
    return sum(map(len, kind._layouts.values()))


def with_every_value_of_each_byte(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for value in range(256):
            yield data[:at] + bytes((value,)) + data[at + 1 :]


def test_what_is_taken_and_what_is_refused_does_not_depend_on_what_came_before() -> None:
    cold = plain(Closed)
    genuine = Closed(7, "hi", (1, -1))
    for size in range(4):  # layouts of many sizes, and several of one size
        for text in (None, "", "hi", "hi all"):
            value = Closed(7, text, (5,) * size)
            assert Closed.decode(value.encode()) == cold(value.encode()) == value
    for _ in range(2):
        assert Closed.decode(genuine.encode()) == genuine
    refused = 0
    for data in with_every_value_of_each_byte(genuine.encode()):
        found = outcome(Closed.decode, data)
        assert found == outcome(cold, data)
        refused += isinstance(found, type)
    assert refused > 17 * 250, "every header byte but for its right value"


def test_what_is_inside_a_message_is_as_strict_where_its_layout_is_known() -> None:
    cold = plain(Holder)
    value = Holder(EncryptedData(18, 7, b"cipher"), ELEMENT, EncryptionKey(17, bytes(range(16))))
    genuine = value.encode()
    for part in (
        EncryptedData(18, None, b"cipher"),
        EncryptedData(17, 7, b"cipher"),
        EncryptedData(18, 1 << 30, b""),
    ):
        for key in (None, value.key, EncryptionKey(19, bytes(16))):
            other = Holder(part, ELEMENT, key)
            assert Holder.decode(other.encode()) == cold(other.encode()) == other
    assert Holder.decode(genuine) == Holder.decode(genuine) == value
    refused = 0
    for data in with_every_value_of_each_byte(genuine):
        found = outcome(Holder.decode, data)
        assert found == outcome(cold, data)
        refused += isinstance(found, type)
    octets = len(b"cipher") + len(b"octets") + 16
    numbers = 3  # etype, kvno and keytype take many values
    assert refused > (len(genuine) - octets - numbers) * 254, (
        "every header byte but for its right value"
    )


def test_a_known_layout_is_used_and_one_with_extensions_is_not_kept() -> None:
    kind = fresh(Open)
    message = Open(7, "hi", (1,))
    data = message.encode()
    extended = tlv(0x65, tlv(0x30, data[4:] + bytes.fromhex("a4020500")))
    assert kind.decode(extended) == message
    assert layouts(kind) == 0
    for _ in range(3):
        assert kind.decode(data) == message
        assert layouts(kind) == 1
    assert kind.decode(extended) == message


def test_strangers_cannot_have_more_layouts_remembered_than_the_limit() -> None:
    kind = fresh(Closed)
    for size in range(3 * MAX_LAYOUTS):
        message = Closed(7, "x" * size, (1, -1))
        assert kind.decode(message.encode()) == message
        assert 0 < layouts(kind) <= MAX_LAYOUTS
    assert kind.decode(Closed(7, "hi", ()).encode()) == Closed(7, "hi", ())


def test_what_strangers_send_is_remembered_in_bounds() -> None:
    kind = fresh(Holder)
    for kvno in range(3 * MAX_LAYOUTS):
        value = Holder(EncryptedData(18, kvno, b"cipher"), ELEMENT, None)
        assert kind.decode(value.encode()) == value
        assert 0 < layouts(kind) <= MAX_LAYOUTS


def test_each_message_has_a_memory_of_its_own() -> None:
    first, second = fresh(Closed), fresh(Closed)
    first.decode(Closed(7, "hi", ()).encode())
    assert (layouts(first), layouts(second)) == (1, 0)


def test_k417_a_part_that_was_read_as_a_message_does_not_make_a_doubled_header_acceptable() -> None:
    part = EncryptedData(18, None, b"cipher")
    doubled = Part(part.encode())
    reply = ap.ApRep(5, 15, part)
    with pytest.raises(DecodeError):
        ap.ApRep.decode(Doubled(5, 15, doubled).encode())
    for _ in range(2):
        assert EncryptedData.decode(part.encode()) == part
        assert ap.ApRep.decode(reply.encode()) == reply
    for _ in range(2):
        with pytest.raises(DecodeError):
            ap.ApRep.decode(Doubled(5, 15, doubled).encode())
        assert ap.ApRep.decode(reply.encode()) == reply


@dataclass(frozen=True)
class Part:
    """One field of a SEQUENCE as the bytes of its contents."""

    contents: bytes


class _Raw:
    tag = 0x30

    def decode(self, contents: bytes) -> Part:
        return Part(contents)

    def encode(self, value: Part) -> bytes:
        return value.contents


@dataclass(frozen=True, slots=True)
class Doubled(Message):
    """An AP-REP whose enc-part has its header twice: the contents of the SEQUENCE are a whole EncryptedData."""

    pvno: int
    msg_type: int
    enc_part: Part


Doubled.schema = Application(
    15,
    Sequence(
        Doubled, Field(0, "pvno", INT32), Field(1, "msg_type", INT32), Field(2, "enc_part", _Raw())
    ),
)


def test_k426_a_memory_that_a_reader_holds_is_never_changed() -> None:
    """Without a global lock, a dict that changes while another thread goes through it raises RuntimeError or worse."""
    kind = fresh(Closed)
    seen: list[tuple[Any, Any]] = []
    for size in range(2 * MAX_LAYOUTS):
        for text in ("x" * size, None):
            kind.decode(Closed(7, text, (1, -1)).encode())
        seen.append((kind._layouts, {size: tuple(known) for size, known in kind._layouts.items()}))
    for held, as_it_was in seen:
        assert held == as_it_was
    assert len({id(held) for held, _ in seen}) == len(seen), (
        "a new one each time that something was learned"
    )


def test_k426_threads_that_learn_and_forget_at_once_read_right() -> None:
    kind = fresh(Closed)
    mistakes: list[object] = []
    start = threading.Barrier(6)

    def read(seed: int) -> None:
        start.wait()
        try:
            for n in range(400):
                number = (seed * 7919 + n * 31) % (3 * MAX_LAYOUTS)
                message = Closed(number, "x" * number, (number,) * (n % 4))
                data = message.encode()
                if kind.decode(data) != message:
                    mistakes.append(message)
                try:
                    mistakes.append(kind.decode(data[:-1] + bytes((data[-1] ^ 0x80,)) + b"\0"))
                except DecodeError:
                    continue
        except BaseException as error:
            mistakes.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not mistakes
    assert 0 < layouts(kind) <= MAX_LAYOUTS


def test_names_that_are_equal_keep_their_own_types() -> None:
    """What a name encodes to is remembered, and names that differ in their type are equal."""
    for name_type in (1, 2, 10, 1):
        ticket = ap.Ticket(5, "R", PrincipalName(("a",), name_type), EncryptedData(18, None, b""))
        assert ap.Ticket.decode(ticket.encode()).sname.name_type == name_type
