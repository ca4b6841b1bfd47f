"""Real hosts cut off from each other and from the hub, in one direction or both; the hub is a git server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

from instar_node.api import types as t
from instar_node.joining import join_home
from tests.chaos.client import ImpatientApi
from tests.chaos.namespaces import Lan, lan, why_not
from tests.chaos.world import ledger_entries
from tests.cluster.harness import Cluster, Machine, wait_for

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "namespaces work")

T = TypeVar("T")
TTL_MS = 3_000
NAMES = ("desk", "mini", "attic")
Way = tuple[str, str]


class Look(NamedTuple):
    """Whether a machine said that it was awake, at some instant between ``began`` and ``ended``."""

    began: float
    ended: float
    awake: bool


class Mesh:
    """Three machines on three hosts, the first awake, and their hub on the router between them."""

    def __init__(self, network: Lan, cluster: Cluster, ttl_ms: int) -> None:
        self.network = network
        hub = cluster.folder / "hubs" / "hub.git"
        subprocess.run(["git", "init", "-q", "--bare", str(hub)], check=True)
        url = f"{network.serve_hub(hub.parent)}/{hub.name}"
        self.cluster = cluster
        for name in NAMES:
            machine = self.cluster.machine(name, hub=url)
            machine.host = network.hosts[name].address
            machine.configure(ttl_ms=ttl_ms)
        self.machines = self.cluster.machines
        first, *others = self.machines
        self.on(first, first.start)
        self.wait_for(first, first.is_awake)
        for other in others:
            self.pair(first, other)
            self.on(other, other.start)
        self.wait_in_sync(first)

    def on(self, machine: Machine, work: Callable[[], T]) -> T:
        """Do something on the host of a machine."""
        return self.network.hosts[machine.nickname].do(work)

    def wait_for(self, machine: Machine, predicate: Callable[[], object], within: float = 30.0) -> None:
        """Wait until something is so on the host of a machine; in steps, so that others get at it too."""
        wait_for(lambda: self.on(machine, predicate), within)

    def pair(self, host: Machine, joiner: Machine) -> None:
        view = self.on(host, lambda: host.api.pair(t.PairRequest()))
        url, code = view.url, view.code
        assert url is not None
        assert code is not None
        self.on(joiner, lambda: asyncio.run(join_home(joiner.home, url, code, joiner.nickname)))

    def wait_in_sync(self, awake: Machine) -> None:
        everyone = {machine.id for machine in self.machines}
        self.wait_for(awake, lambda: set(awake.api.lease().electorate) == everyone)

    def wait_for_equal_ledgers(self) -> None:
        wait_for(lambda: len({str(ledger_entries(machine)) for machine in self.machines}) == 1, 30)

    def wake(self, machine: Machine) -> None:
        assert self.on(machine, lambda: machine.api.wakeup(t.WakeupRequest())).outcome == "awake"

    def send(self, machine: Machine, key: str) -> None:
        """Have a message answered through a machine."""
        self.on(machine, lambda: machine.say("t", f"this is {key}", key))
        self.wait_for(machine, lambda: any(row.reply_to == key for row in machine.replies("t")))

    @contextmanager
    def watched(self) -> Iterator[dict[str, list[Look]]]:
        """Look at every machine's role all the time; by nickname."""
        looks: dict[str, list[Look]] = {name: [] for name in NAMES}
        ending = threading.Event()
        threads = [threading.Thread(target=self._watch, args=(m, looks, ending)) for m in self.machines]
        for thread in threads:
            thread.start()
        try:
            yield looks
        finally:
            ending.set()
            for thread in threads:
                thread.join()

    def _watch(self, machine: Machine, looks: dict[str, list[Look]], ending: threading.Event) -> None:
        api = ImpatientApi(machine.home)
        while not ending.wait(0.01):
            began = time.monotonic()
            awake = self.on(machine, api.health).role == "awake"
            looks[machine.nickname].append(Look(began, time.monotonic(), awake))


@contextmanager
def mesh(folder: Path, ttl_ms: int = TTL_MS) -> Iterator[Mesh]:
    with lan(f"instar-{os.getpid()}", NAMES) as network, Cluster(folder) as cluster:
        yield Mesh(network, cluster, ttl_ms)


def from_to(sources: str, targets: str) -> list[Way]:
    return list(product(sources.split(), targets.split()))


DEAF = from_to("mini attic hub", "desk")
MUTE = from_to("desk", "mini attic hub")


def hand_over_by_cut(made: Mesh, ways: list[Way]) -> None:
    """Cut off the awake ``desk``: it stops before another begins, and finds its place when all is healed."""
    desk = made.machines[0]
    before = made.on(desk, desk.api.health).epoch
    made.send(desk, f"before-{before}")
    with made.watched() as looks:
        made.network.drop(*ways)
        wait_for(lambda: any(look.awake for name in NAMES[1:] for look in looks[name]), 30)
        new = next(m for m in made.machines[1:] if any(look.awake for look in looks[m.nickname]))
        made.send(new, f"during-{before}")
        made.network.drop()
        made.wait_for(desk, lambda: desk.api.lease().holder == new.id)
        made.wait_in_sync(new)
    took_over = next(look for look in looks[new.nickname] if look.awake)
    assert [look for look in looks["desk"] if look.awake and look.began > took_over.ended] == []
    for machine in made.machines:
        health = made.on(machine, machine.api.health)
        assert (health.epoch, health.split_brain) == (before + 1, None)
    made.send(desk, f"after-{before}")
    made.wait_for_equal_ledgers()


def test_a_holder_that_is_cut_off_stops_before_another_takes_over(tmp_path: Path, long_run: bool) -> None:
    with mesh(tmp_path) as made:
        hand_over_by_cut(made, DEAF)
        for ways in (MUTE, [*DEAF, *MUTE]) if long_run else ():
            desk = made.machines[0]
            made.wake(desk)
            made.wait_in_sync(desk)
            hand_over_by_cut(made, ways)


def test_a_holder_cut_off_from_the_hub_alone_goes_on_by_promises(tmp_path: Path, long_run: bool) -> None:
    if not long_run:
        pytest.skip("waits for several ttls: --long")
    with mesh(tmp_path) as made:
        desk, *others = made.machines
        made.network.drop(*from_to("desk", "hub"), *from_to("hub", "desk"))
        for number in range(5):
            made.send(desk, f"m{number}")
            time.sleep(TTL_MS / 2_000)  # so that more than two ttls pass, in which nobody may take over
        assert all(made.on(m, m.api.health).epoch == 1 for m in made.machines)
        assert made.on(desk, desk.is_awake)
        assert not any(made.on(other, other.is_awake) for other in others)


def test_a_holder_that_reaches_only_the_hub_benches_the_others_and_goes_on(
    tmp_path: Path, long_run: bool
) -> None:
    if not long_run:
        pytest.skip("waits for several ttls: --long")
    with mesh(tmp_path, ttl_ms=6_000) as made:
        desk, *others = made.machines
        made.network.drop(*from_to("desk", "mini attic"), *from_to("mini attic", "desk"))
        made.wait_for(desk, lambda: len(desk.api.lease().benched) == 2)
        made.send(desk, "alone")
        time.sleep(7)  # longer than a ttl: the others would take over now if they could
        assert made.on(desk, desk.is_awake)
        assert not any(made.on(other, other.is_awake) for other in others)
        made.network.drop()
        made.wait_in_sync(desk)
        assert all(made.on(m, m.api.health).epoch == 1 for m in made.machines)
        made.wait_for_equal_ledgers()
