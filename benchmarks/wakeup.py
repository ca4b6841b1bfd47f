"""``python -m benchmarks.wakeup``: how long a planned wakeup takes, and how long nothing is taken in then.

Targets on loopback: 60 ms at the median from asking to awake; 100 ms without an acknowledgement while clients
send to both machines, to the one that is awake and to the one that is not.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

from benchmarks.mesh import awake_and_standby, mesh_of
from benchmarks.report import show, show_load
from instar_node.api import types as t
from instar_node.errors import InstarError
from tests.cluster.harness import Machine

TARGET_MS = 60.0
GAP_TARGET_MS = 100.0
PAUSE_S = 0.005
"""Between two messages of a client."""
AROUND_S = 0.5
"""How long before and after a wakeup acknowledgements are looked at."""


def main() -> int:
    """Wake the standby again and again, without and with clients; 0 when both targets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wakeup", description=main.__doc__)
    parser.add_argument("--times", type=int, default=30, help="wakeups")
    times = parser.parse_args().times
    show_load()
    with mesh_of(2) as machines:
        took, _ = wakeups(machines, times, talking=False)
        took_talking, gaps = wakeups(machines, times, talking=True)
    show("planned wakeup while clients send", took_talking, "ms", 50, TARGET_MS)
    met = [
        show("planned wakeup, from asking to awake", took, "ms", 50, TARGET_MS),
        show("longest time without an acknowledgement", gaps, "ms", 50, GAP_TARGET_MS),
    ]
    return 0 if all(met) else 1


def wakeups(machines: list[Machine], times: int, *, talking: bool) -> tuple[list[float], list[float]]:
    """Milliseconds of each wakeup and, with clients ``talking``, of the longest time around it without an
    acknowledgement."""
    took: list[float] = []
    gaps: list[float] = []
    for _ in range(times):
        _, (standby,) = awake_and_standby(machines)
        acknowledged: list[float] = []
        with clients(machines if talking else [], acknowledged):
            time.sleep(AROUND_S)
            began = time.perf_counter()
            assert standby.api.wakeup(t.WakeupRequest()).outcome == "awake"
            took.append((time.perf_counter() - began) * 1_000)
            time.sleep(AROUND_S)
        if talking:
            gaps.append(1_000 * max(after - before for before, after in pairwise(sorted(acknowledged))))
    return took, gaps


@contextmanager
def clients(machines: list[Machine], acknowledged: list[float]) -> Iterator[None]:
    """One thread a machine that sends all the time and notes each acknowledgement."""
    ending = threading.Event()
    threads = [threading.Thread(target=send, args=(m, acknowledged, ending)) for m in machines]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def send(machine: Machine, acknowledged: list[float], ending: threading.Event) -> None:
    while not ending.wait(PAUSE_S):
        with suppress(InstarError):
            machine.api.send(t.SendRequest(f"from-{machine.nickname}", "hello"))
            acknowledged.append(time.perf_counter())


if __name__ == "__main__":
    sys.exit(main())
