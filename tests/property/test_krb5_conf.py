"""Whatever a krb5.conf or a KDC's TCP stream holds, it is read or refused; nothing else happens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purekrb import Config, ConfigError, DecodeError
from purekrb.io.framing import FrameReader
from purekrb.kdc.tcp import reply_reader
from purekrb.krb5conf.config import KdcAddress, parse_duration, parse_etypes
from purekrb.text import visible

_LINES = st.lists(
    st.sampled_from(
        [
            "[libdefaults]",
            "[realms]",
            "[capaths]*",
            "[domain_realm]",
            "A = {",
            "A =",
            "{",
            "}",
            "}*",
            "kdc = [::1]:88",
            "kdc* = x",
            "default_realm = A",
            'default_realm = "A\\"',
            "clockskew = 1:30",
            ".a.test = A",
            "# comment",
            "include relative",
        ]
    )
    | st.text(max_size=20),
    max_size=20,
)


def refusal(parse: Callable[[], object]) -> str | None:
    """Return what the ConfigError says, or None if there is none; any other exception fails the test."""
    try:
        parse()
    except ConfigError as error:
        return str(error)
    return None


def read(data: bytes) -> Config:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "krb5.conf"
        path.write_bytes(data)
        return Config.from_file(path)


@given(_LINES)
def test_any_lines_are_a_config_or_a_config_error(lines: list[str]) -> None:
    said = refusal(lambda: read("\n".join(lines).encode(errors="surrogatepass")))
    assert said is None or "krb5.conf" in said


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_a_config_error(data: bytes) -> None:
    said = refusal(lambda: read(data))
    assert said is None or "krb5.conf" in said


@given(st.text(max_size=30))
def test_any_value_is_read_or_refused(text: str) -> None:
    for parse in (KdcAddress.parse, parse_duration):
        said = refusal(lambda parse=parse: parse(text))
        assert said is None or visible(repr(text)) in said
    assert set(parse_etypes(text)) <= {17, 18, 19, 20, 23}


def fed(reader: FrameReader, data: bytes) -> bytes | None:
    reader.feed(data)
    return reader.next_frame()


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 400)), st.binary(max_size=20))
def test_a_framed_reply_is_the_same_however_it_is_cut(
    message: bytes, cuts: list[int], rest: bytes
) -> None:
    stream = len(message).to_bytes(4, "big") + message + rest
    reader = reply_reader()
    replies = (
        fed(reader, stream[start:stop]) for start, stop in pairwise(sorted({0, *cuts, len(stream)}))
    )
    assert next(reply for reply in replies if reply is not None) == message


@given(st.integers(0, 0xFFFFFFFF).filter(lambda size: not 0 < size <= 1 << 20))
def test_a_frame_of_a_size_that_no_reply_has_is_refused_at_its_fourth_byte(size: int) -> None:
    reader = reply_reader()
    header = size.to_bytes(4, "big")
    assert fed(reader, header[:3]) is None
    with pytest.raises(DecodeError):
        fed(reader, header[3:])
