"""Secrets that are easy to recognise, and the search for them in whatever a program may print or send away."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import purekrb

PASSWORD = "Canary-Passw0rd-4711"
PACKAGE = str(Path(purekrb.__file__).parent)


def key_bytes(size: int, name: str = "key") -> bytes:
    """Key contents that are text: "Canary-<name>-..."."""
    return (f"Canary-{name}-" + "0123456789abcdef" * 4).encode()[:size]


def spellings(secret: bytes) -> set[str]:
    """How `secret` looks in text: raw, escaped, hex, base64 at any alignment, lists of numbers. Its inner part, so that
    a secret in the midst of other bytes is found as well."""
    core = secret[:16]
    found = {
        core.decode("latin-1"),
        repr(core)[2:-1],
        core.hex(),
        core.hex().upper(),
        core.hex(" "),
        core.hex(":"),
        ", ".join(map(str, core)),
        core.decode("latin-1").encode("unicode_escape").decode(),
    }
    for lead in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(lead) + core).decode().rstrip("=")
            found.add(text[4 if lead else 0 : -2])
    return found


def leaks(text: str, secrets: Iterable[bytes]) -> list[str]:
    """The spellings of `secrets` that occur in `text`."""
    return [spelling for secret in secrets for spelling in spellings(secret) if spelling in text]


def pieces(secret: bytes, size: int = 8) -> list[bytes]:
    """`secret` cut up, so that a part of it is found as well."""
    return [secret[at : at + size] for at in range(0, len(secret) - size + 1, size)]


def search(secrets: Iterable[bytes]) -> Callable[[str], list[str]]:
    """Return what finds any part of `secrets` in a text, quickly: it is called for thousands of texts."""
    known = sorted(
        {
            spelling
            for secret in secrets
            for piece in pieces(secret)
            for spelling in spellings(piece)
        }
    )
    return lambda text: [spelling for spelling in known if spelling in text]


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it was raised from or in the course of, suppressed or not."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__cause__, one.__context__]


def shown(error: BaseException) -> str:
    """All that tools like rich and Sentry show of an error: texts, arguments, attributes, and the locals of every frame
    of the package. The frames of the test itself hold the canaries, of course."""
    lines = []
    for one in chain(error):
        lines += [
            repr(one),
            str(one),
            repr(one.args),
            repr(vars(one)),
            *traceback.format_exception_only(one),
        ]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename.startswith(PACKAGE):
                lines.append(locals_of(frame))
    return "\n".join(lines)


def printed(error: BaseException) -> str:
    """The traceback as tools print it that show locals, from the first frame of the package on."""
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        trace = trace.tb_next
    return "".join(
        traceback.TracebackException(type(error), error, trace, capture_locals=True).format()
    )


def locals_of(frame: FrameType) -> str:
    """The locals of a frame as text, with the attributes of objects and the items of containers two levels deep."""
    name = f"{frame.f_code.co_filename}:{frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else ''}"
    return name + " " + " ".join(f"{key}={expand(value)}" for key, value in frame.f_locals.items())


def expand(value: Any, depth: int = 2) -> str:
    """Return repr(value), and those of its attributes in `__dict__` and of its items."""
    try:
        text = [repr(value)]
    except Exception:  # an object that its __init__ gave up on, in the frame of the error
        return "<no repr>"
    if depth:
        if hasattr(value, "__dict__") and not isinstance(value, type):
            text += [f"{k}={expand(v, depth - 1)}" for k, v in list(vars(value).items())]
        if isinstance(value, dict):
            text += [expand(v, depth - 1) for v in list(value.values())]
        elif isinstance(value, list | tuple | set | frozenset):
            text += [expand(v, depth - 1) for v in list(value)]
    return " ".join(text)
