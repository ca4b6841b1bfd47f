"""``python -m benchmarks.failover``: from the last reply of a killed holder to the first of the next.

Target: ttl · 1.02 + 500 ms at p95, ttl 6 s, path hub on loopback, with 2 and with 3 machines. Clients send
all the time to whichever machine answers; the receiver outside says when a reply arrived, and in which epoch.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from benchmarks.mesh import TTL_MS, awake_and_standby, mesh_of, outside_of_the_mesh
from benchmarks.report import show, show_load
from instar_node.api import types as t
from instar_node.errors import InstarError
from tests.chaos.history import Attempt, History
from tests.chaos.sink import Sink
from tests.cluster.harness import Machine, wait_for

TARGET_MS = TTL_MS * 1.02 + 500
CLIENTS = 4


def main() -> int:
    """Measure with 2 and 3 machines; 0 when the target is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=main.__doc__)
    parser.add_argument("--times", type=int, default=10, help="failovers for each number of machines")
    times = parser.parse_args().times
    show_load()
    met = [
        show(f"crash failover, {machines} machines", failovers(machines, times), "ms", 95, TARGET_MS)
        for machines in (2, 3)
    ]
    return 0 if all(met) else 1


def failovers(count: int, times: int) -> list[float]:
    """The gaps, in milliseconds, of so many failovers."""
    history = History(seed=0)
    sink = Sink(history)
    with outside_of_the_mesh() as outside:
        url = outside.do(sink.start())
        with mesh_of(count, f'[channels.webhook]\nurl = "{url}"\n') as machines, clients(machines):
            gaps = [one_failover(machines, history) for _ in range(times)]
        outside.do(sink.stop())
    return gaps


def one_failover(machines: list[Machine], history: History) -> float:
    """Kill the holder at a random instant of its round; the dead machine is back and in sync afterwards."""
    awake, _ = awake_and_standby(machines)
    epoch = awake.api.health().epoch
    time.sleep(random.uniform(0, TTL_MS / 3_000))
    awake.kill()
    wait_for(lambda: first_of(history.attempts, epoch + 1), 30)
    last = max(attempt.at for attempt in history.attempts if attempt.epoch == epoch)
    found = first_of(history.attempts, epoch + 1)
    assert found is not None
    awake.start()
    return (found.at - last) * 1_000


def first_of(attempts: Sequence[Attempt], epoch: int) -> Attempt | None:
    return next((attempt for attempt in attempts if attempt.epoch >= epoch), None)


@contextmanager
def clients(machines: list[Machine]) -> Iterator[None]:
    """Threads that send all the time, to a machine that takes it."""
    ending = threading.Event()
    threads = [threading.Thread(target=talk, args=(machines, n, ending)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def talk(machines: list[Machine], number: int, ending: threading.Event) -> None:
    chooser = random.Random(number)
    while not ending.is_set():
        with suppress(InstarError):
            chooser.choice(machines).api.send(t.SendRequest(f"topic-{number}", "hello"))
        ending.wait(0.05)


if __name__ == "__main__":
    sys.exit(main())
