"""What it costs an acceptor to look at its keytab's file: `python -m bench.reread`.

Pairs of contexts with one sealed message each way are timed in turns, with the keys in memory and with `Keytab.load`.
Exits with 1 if the second takes more than GOAL longer.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from purekrb import Acceptor, Initiator, KdcClient, Keytab
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm

GOAL = 0.02
SERVICE = "HTTP/web.example.test"
MESSAGE = bytes(1024)
ROUNDS, PAIRS = 400, 20


def main() -> int:
    """Measure, and print one line."""
    with Realm() as realm:
        alice = realm.add_user("alice", "pw")
        plain = Keytab.decode(realm.add_service(SERVICE).encode())
        ticket = KdcClient(realm.config).get_ticket(alice, SERVICE)
    cache = MemoryReplayCache()

    def pairs(keytab: Keytab) -> float:
        begins = time.process_time()
        for _ in range(PAIRS):
            initiator, acceptor = Initiator(ticket), Acceptor(keytab, replay_cache=cache)
            initiator.step(acceptor.step(initiator.step()))
            acceptor.unwrap(initiator.wrap(MESSAGE))
            initiator.unwrap(acceptor.wrap(MESSAGE))
        return (time.process_time() - begins) / PAIRS

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "keytab"
        plain.save(path)
        time.sleep(0.2)  # a file that was just written is read more often
        loaded = Keytab.load(path)
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * ROUNDS):
            # In turns, and each of them as often before the other as after it.
            from_file = turn % 4 in (1, 2)
            times[from_file].append(pairs(loaded if from_file else plain))
    # A lower quartile, since what else the machine does only adds.
    memory, file = (statistics.quantiles(times[kind])[0] for kind in (False, True))
    price = file / memory - 1
    print(
        f"a pair and two messages: {memory * 1e6:.1f} us, with a keytab of a file {file * 1e6:.1f} us: {price:+.1%}"
    )
    return 0 if price <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
