"""Decode a token, message, ticket, keytab or credential cache into a tree.

The input is a file, or text as an argument or from standard input (-): a line such as
"Authorization: Negotiate YII...", base64, hexadecimal with blanks or colons, a dump of Wireshark
or hexdump. Files of captured packets (pcap, pcapng) work, too.
With --keytab (the keys of a service or client) or --key (a file with lines ETYPE:HEX, such as a
session key), encrypted parts are decrypted if a key fits. Unless --show-keys is given, keys are
redacted, and so are data that may hold a key: unencrypted data (a KRB-CRED of etype 0), and data
that should be a message but cannot be decoded. Application data are shown.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from purekrb.cli.output import Output
from purekrb.credentials.files import read_private
from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.tracebacks import forget_frames

__all__ = ["add_arguments", "run"]

MAX_INPUT = 16 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "input",
        nargs="?",
        default="-",
        help="file, header field, hex, base64, or - for standard input (default)",
    )
    parser.add_argument(
        "-k", "--keytab", metavar="FILE", help="decrypt with the keys in this keytab"
    )
    parser.add_argument(
        "--key", metavar="FILE", help="decrypt with the keys in this file: lines of ETYPE:HEX"
    )
    parser.add_argument(
        "--show-keys", action="store_true", help="print keys instead of redacting them"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.keytab import Keytab
    from purekrb.inspection.describe import lines
    from purekrb.inspection.pasted import describe_pasted

    keys = [entry.key for entry in Keytab.load(args.keytab)] if args.keytab else []
    if args.key:
        keys += _load_keys(args.key)
    tree = describe_pasted(_read(args.input), keys, show_keys=args.show_keys)
    output.result(tree, *lines(tree))
    return 0


def _read(text: str) -> bytes:
    """Return the bytes of the file that the argument names, or of the argument itself."""
    if text == "-":
        data = sys.stdin.buffer.read(MAX_INPUT + 1) if sys.stdin else b""
    elif os.path.lexists(text):
        with Path(text).open("rb") as file:
            data = file.read(MAX_INPUT + 1)
    else:
        return text.encode(errors="surrogateescape")
    if len(data) > MAX_INPUT:
        raise DecodeError(
            f"the input is larger than {MAX_INPUT} bytes, more than any ticket, keytab or cache has"
        )
    return data


@forget_frames
def _load_keys(path: str) -> list[EncryptionKey]:
    """Return the keys in a file with lines ETYPE:HEX. DecodeError does not quote them."""
    keys = []
    for number, line in enumerate(read_private(path, what="key file", shared=True).split(b"\n"), 1):
        if line.strip():
            key = None
            # DecodeError is a ValueError, too. The error of int() would quote its argument.
            with suppress(ValueError):
                etype, contents = line.decode("ascii").split(":")
                key = EncryptionKey(int(etype), bytes.fromhex(contents))
            if key is None:
                raise DecodeError(
                    f"{path}:{number}: this is not a key: write the etype's number, a colon and "
                    "the key in hexadecimal"
                )
            keys.append(key)
    return keys
