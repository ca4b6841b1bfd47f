"""``python -m benchmarks.tail_lag``: the age of the oldest line that the standby lacks, at 200 messages/s.

Target on loopback: 40 ms at p99 of all looks at ``GET /livetail``.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.mesh import awake_and_standby, mesh_of
from benchmarks.report import show, show_load
from instar_node.api import types as t
from instar_node.errors import InstarError
from tests.cluster.harness import Machine

TARGET_MS = 40.0
RATE = 200
THREADS = 8
LOOK_EVERY_S = 0.02


def main() -> int:
    """Send at a steady rate to the awake machine and look at the lag; 0 when the target is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tail_lag", description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    seconds = parser.parse_args().seconds
    show_load()
    with mesh_of(2) as machines:
        awake, (standby,) = awake_and_standby(machines)
        sent: list[str] = []
        with talking(awake, sent):
            lags = list(looks(awake, standby, seconds))
    print(f"{len(sent) / seconds:.0f} messages/s were sent (wanted {RATE})")
    return 0 if show("live-tail lag", lags, "ms", 99, TARGET_MS) else 1


def looks(awake: Machine, standby: Machine, seconds: float) -> Iterator[float]:
    """What the awake machine shows of the standby's lag, milliseconds."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for peer in awake.api.livetail().peers:
            if peer.machine_id == standby.id and peer.topic is None:
                yield float(peer.behind.ms)
        time.sleep(LOOK_EVERY_S)


@contextmanager
def talking(machine: Machine, sent: list[str]) -> Iterator[None]:
    """Threads that together send ``RATE`` messages a second."""
    ending = threading.Event()
    threads = [threading.Thread(target=talk, args=(machine, n, sent, ending)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def talk(machine: Machine, number: int, sent: list[str], ending: threading.Event) -> None:
    due = time.monotonic()
    while not ending.wait(max(0.0, due - time.monotonic())):
        due = max(due, time.monotonic() - 1) + THREADS / RATE  # catches up with at most a second's worth
        with suppress(InstarError):
            sent.append(machine.api.send(t.SendRequest(f"topic-{number}", "hello")).key)


if __name__ == "__main__":
    sys.exit(main())
