"""Fuzz one parser for some time.

    PYTHONPATH=tests python -m fuzz                  the names of all parsers
    PYTHONPATH=tests python -m fuzz "keytab" 60      the parser for 60 seconds

Coverage guides the search where atheris is installed (`pip install -e ".[fuzz]"`, where there is a
wheel for the Python); else the mutations are random ones. Data at which an unexpected error leaves
the parser are printed in hexadecimal, and the exit status is not 0.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Fuzz `arguments[0]` for `arguments[1]` seconds."""
    guided = bool(arguments) and importlib.util.find_spec("atheris") is not None
    if guided:
        import atheris

        with atheris.instrument_imports(include=["purekrb"]):
            from fuzz.targets import TARGETS
    else:
        from fuzz.targets import TARGETS
    targets = {target.name: target for target in TARGETS}
    if not arguments:
        print("\n".join(targets))
        return 0
    target, seconds = targets[arguments[0]], int(arguments[1]) if arguments[1:] else 60
    seeds = list(target.seeds())

    def run(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            print(f"{target.name}: {data.hex()}", file=sys.stderr, flush=True)
            raise

    if not guided:
        rng, end, count = random.Random(), time.monotonic() + seconds, 0
        from fuzz.mutate import mutant

        while time.monotonic() < end:
            run(mutant(rng, seeds))
            count += 1
        print(f"{target.name}: {count} runs")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            "-timeout=20",
            "-max_len=65536",
            "-rss_limit_mb=4096",
        ]
        atheris.Setup(
            [
                sys.argv[0],
                *options,
                f"-artifact_prefix={directory}/",
                "-print_final_stats=1",
                str(corpus),
            ],
            run,
        )
        atheris.Fuzz()  # ends the process
    return 0


sys.exit(main(sys.argv[1:]))
