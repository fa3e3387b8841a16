"""DER taken apart into a tree, to put it together wrongly in exactly one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from purekrb.messages.der import read_header, tlv


@dataclass(eq=False)
class Node:
    """One element: `children` where its tag says constructed, else `contents`."""

    tag: int
    contents: bytes
    children: list[Node] | None

    def __iter__(self) -> Iterator[Node]:
        """Yield this node and all below."""
        yield self
        for child in self.children or ():
            yield from child


def parse(data: bytes) -> Node:
    """Return the tree of the one element that `data` is."""
    tag, start, end = read_header(data, 0, len(data))
    if end != len(data):
        raise ValueError("more than one element")
    if not tag & 0x20:
        return Node(tag, data[start:end], None)
    children, at = [], start
    while at < end:
        _, _, stop = read_header(data, at, end)
        children.append(parse(data[at:stop]))
        at = stop
    return Node(tag, b"", children)


def encode(
    node: Node, changed: Node | None = None, how: Callable[[int, bytes], bytes] = tlv
) -> bytes:
    """Return the bytes of `node`; the header of `changed` is written by `how(tag, contents)`."""
    contents = node.contents
    if node.children is not None:
        contents = b"".join(encode(child, changed, how) for child in node.children)
    return how(node.tag, contents) if node is changed else tlv(node.tag, contents)


# Ways to write a header


def indefinite(tag: int, contents: bytes) -> bytes:
    """BER's indefinite length: end-of-contents octets instead of a length."""
    return bytes((tag, 0x80)) + contents + b"\0\0"


def long_form(octets: int) -> Callable[[int, bytes], bytes]:
    """A right length in `octets` length octets, whatever the shortest form is; the shortest where it does not fit."""

    def write(tag: int, contents: bytes) -> bytes:
        if len(contents) >> 8 * octets:
            return tlv(tag, contents)
        return bytes((tag, 0x80 | octets)) + len(contents).to_bytes(octets, "big") + contents

    return write


def claimed(header: bytes) -> Callable[[int, bytes], bytes]:
    """Length octets that say something else."""

    def write(tag: int, contents: bytes) -> bytes:
        return bytes((tag,)) + header + contents

    return write


def retagged(number: int) -> Callable[[int, bytes], bytes]:
    """The same class and form under another tag number."""

    def write(tag: int, contents: bytes) -> bytes:
        return tlv(tag & 0xE0 | number, contents)

    return write
