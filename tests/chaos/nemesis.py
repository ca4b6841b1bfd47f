"""The nemesis: breaks things at random, never more than it can mend, and notes every deed.

Each *hand* is a thread with its own seeded choice of what, whom and how long. A machine is in at most one
hand at a time; hub, receiver and wires can be broken beside. ``Nemesis.stop`` returns when all is whole.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import combinations, permutations
from pathlib import Path
from random import Random
from typing import get_args

from instar_node.api import types as t
from instar_node.errors import InstarError
from tests.chaos.client import ImpatientApi
from tests.chaos.disks import filled, locked, tear
from tests.chaos.history import Deed, History
from tests.chaos.network import Network
from tests.chaos.outside import Outside
from tests.chaos.sink import Mood, Sink
from tests.cluster.harness import TTL_MS, Cluster, Machine

TTL_S = TTL_MS / 1_000
FAULTS = {
    "crash": 4,
    "pause": 4,
    "restart": 2,
    "torn_write": 2,
    "full_disk": 2,
    "locked_database": 1,
    "cut": 3,
    "half_open": 3,
    "slow_wire": 2,
    "isolate": 1,
    "hub_gone": 1,
    "hub_busy": 1,
    "unwell_receiver": 4,
    "wakeup": 5,
    "transfer": 4,
}
"""What the nemesis knows to do, and how often it does it."""
HOLDER_BIAS = 0.6
"""How often the machine that is awake is the victim."""


class Nemesis:
    """Breaks machines, wires, hub and receiver of a running mesh until it is stopped."""

    def __init__(
        self,
        cluster: Cluster,
        outside: Outside,
        network: Network,
        sink: Sink,
        topics: list[str],
        history: History,
        only: Collection[str] = (),
    ) -> None:
        """``only`` names the faults to choose from; empty for all of ``FAULTS``."""
        self._faults = [name for name in FAULTS if not only or name in only]
        self._cluster = cluster
        self._outside = outside
        self._network = network
        self._sink = sink
        self._topics = topics
        self._history = history
        self._held: set[str] = set()
        """Machines in a hand."""
        self._broken: set[str] = set()
        """Of hub and receiver: what is unwell."""
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._hands: list[threading.Thread] = []
        self.failures: list[BaseException] = []
        """What went wrong with the nemesis itself: a machine that did not start again, say."""

    def start(self, hands: int = 2) -> None:
        """Begin."""
        for number in range(hands):
            random = Random(f"{self._history.seed}-hand-{number}")
            thread = threading.Thread(target=self._work, args=(random,), name=f"hand-{number}")
            self._hands.append(thread)
            thread.start()

    def stop(self) -> None:
        """End, and return when everything broken is mended."""
        self._ending.set()
        for hand in self._hands:
            hand.join()
        self._outside.do(self._network.heal([machine.nickname for machine in self._cluster.machines]))
        self._sink.mood = "well"
        self._note("all is healed")

    def _work(self, random: Random) -> None:
        weights = [FAULTS[name] for name in self._faults]
        try:
            while not self._ending.is_set():
                (name,) = random.choices(self._faults, weights)
                fault: Callable[[Random], None] = getattr(self, f"_{name}")
                fault(random)
                self._ending.wait(random.uniform(0.0, 1.2))
        except Exception as error:
            self.failures.append(error)
            self._note(f"the nemesis failed: {error!r}")

    # -- machines -----------------------------------------------------------------------------------------

    def _crash(self, random: Random) -> None:
        with self._victim(random) as machine:
            if machine is not None:
                machine.kill()
                self._wait_after(f"kill -9 {machine.nickname}", random.uniform(0.0, 2 * TTL_S))
                machine.start()
                self._note(f"{machine.nickname} is started again")

    def _torn_write(self, random: Random) -> None:
        with self._victim(random) as machine:
            if machine is not None:
                machine.kill()
                torn = "in the middle of a write" if tear(machine) else "with nothing to tear"
                self._wait_after(f"kill -9 {machine.nickname} {torn}", random.uniform(0.0, 2 * TTL_S))
                machine.start()
                self._note(f"{machine.nickname} is started again")

    def _full_disk(self, random: Random) -> None:
        with self._victim(random) as machine:
            if machine is not None:
                with filled(machine):
                    self._wait_after(
                        f"the disk of {machine.nickname} is full", random.uniform(0.2, 3.0) * TTL_S
                    )
                self._note(f"there is room on the disk of {machine.nickname}")

    def _locked_database(self, random: Random) -> None:
        with self._victim(random) as machine:
            if machine is not None:
                with locked(machine):
                    what = f"the database of {machine.nickname} is locked by somebody"
                    self._wait_after(what, random.uniform(0.2, 4.0) * TTL_S)
                self._note(f"the database of {machine.nickname} is free")

    def _pause(self, random: Random) -> None:
        with self._victim(random) as machine:
            if machine is not None:
                machine.freeze()
                long = random.random() < 0.7
                seconds = random.uniform(1.1, 3.0) * TTL_S if long else random.uniform(0.1, 1.0) * TTL_S
                self._wait_after(f"SIGSTOP {machine.nickname}", seconds)
                machine.thaw()
                self._note(f"SIGCONT {machine.nickname}")

    def _restart(self, random: Random) -> None:
        with self._victim(random) as machine:
            if machine is not None:
                self._note(f"SIGTERM {machine.nickname}")
                machine.stop()
                self._wait_after(f"{machine.nickname} has ended", random.uniform(0.0, TTL_S))
                machine.start()
                self._note(f"{machine.nickname} is started again")

    @contextmanager
    def _victim(self, random: Random) -> Iterator[Machine | None]:
        """A machine that no other hand holds; ``None`` when both chose the same. One is always left alone."""
        machine = random.choice(self._cluster.machines)
        if random.random() < HOLDER_BIAS:
            machine = self._holder() or machine
        with self._lock:
            free = machine.nickname not in self._held and len(self._held) < len(self._cluster.machines) - 1
            if free:
                self._held.add(machine.nickname)
        try:
            yield machine if free else None
        finally:
            if free:
                with self._lock:
                    self._held.discard(machine.nickname)

    def _holder(self) -> Machine | None:
        for machine in self._cluster.machines:
            if machine.nickname not in self._held:
                with suppress(InstarError):
                    holder = ImpatientApi(machine.home).lease().holder
                    return next((m for m in self._cluster.machines if m.id == holder), None)
        return None

    # -- wires --------------------------------------------------------------------------------------------

    def _cut(self, random: Random) -> None:
        one, other = random.choice(list(combinations(self._names(), 2)))
        self._outside.do(self._network.cut(one, other))
        self._wait_after(f"cut {one} – {other}", self._wire_time(random))
        self._heal(one, other)

    def _half_open(self, random: Random) -> None:
        source, target = random.choice(list(permutations(self._names(), 2)))
        self._outside.do(self._network.stall(source, target))
        self._wait_after(f"stall {source} → {target}", self._wire_time(random))
        self._heal(source, target)

    def _slow_wire(self, random: Random) -> None:
        source, target = random.choice(list(permutations(self._names(), 2)))
        seconds = random.uniform(0.02, 0.4)
        self._outside.do(self._network.delay(source, target, seconds))
        self._wait_after(f"delay {source} → {target} by {seconds:.2f} s", self._wire_time(random))
        self._heal(source, target)

    def _isolate(self, random: Random) -> None:
        victim = (self._holder() or random.choice(self._cluster.machines)).nickname
        for other in self._names():
            if other != victim:
                self._outside.do(self._network.cut(victim, other))
        self._wait_after(f"isolate {victim}", self._wire_time(random))
        self._heal(*self._names())

    def _heal(self, *names: str) -> None:
        self._outside.do(self._network.heal(names))
        self._note(f"heal {' – '.join(names)}")

    def _wire_time(self, random: Random) -> float:
        return random.uniform(0.2, 3.0) * TTL_S

    def _names(self) -> list[str]:
        return [machine.nickname for machine in self._cluster.machines]

    # -- hub and receiver ---------------------------------------------------------------------------------

    def _hub_gone(self, random: Random) -> None:
        with self._only("hub") as mine:
            if mine:
                with hub_away(self._cluster):
                    self._wait_after("the hub is gone", random.uniform(0.3, 1.5) * TTL_S)
                self._note("the hub is back")

    def _hub_busy(self, random: Random) -> None:
        with self._only("hub") as mine:
            if mine:
                with hub_locked(self._cluster):
                    self._wait_after("the hub is locked by somebody", random.uniform(0.3, 3.0) * TTL_S)
                self._note("the hub is free")

    def _unwell_receiver(self, random: Random) -> None:
        with self._only("receiver") as mine:
            if mine:
                self._sink.mood = random.choice([mood for mood in get_args(Mood) if mood != "well"])
                self._wait_after(f"the receiver is {self._sink.mood}", random.uniform(0.2, 2.0) * TTL_S)
                self._sink.mood = "well"
                self._note("the receiver is well")

    @contextmanager
    def _only(self, name: str) -> Iterator[bool]:
        with self._lock:
            mine = name not in self._broken
            if mine:
                self._broken.add(name)
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._broken.discard(name)

    # -- what a person does --------------------------------------------------------------------------------

    def _wakeup(self, random: Random) -> None:
        machine = random.choice(self._cluster.machines)
        outcome = self._ask(lambda: ImpatientApi(machine.home).wakeup(t.WakeupRequest()).outcome)
        self._note(f"wakeup on {machine.nickname}: {outcome}")

    def _transfer(self, random: Random) -> None:
        asked, target = (random.choice(self._cluster.machines) for _ in range(2))
        topic = random.choice(self._topics)
        api = ImpatientApi(asked.home)

        def transfer() -> str:
            try:
                return api.transfer(t.TransferRequest(topic, target.nickname)).outcome
            except InstarError as error:
                if error.code != "needs-confirmation":
                    raise
                confirm = str(error.extra["confirm"])
                return api.transfer(t.TransferRequest(topic, target.nickname, confirm=confirm)).outcome

        self._note(f"transfer {topic} to {target.nickname}, asked of {asked.nickname}: {self._ask(transfer)}")
        if random.random() < 0.5:
            self._wait_after("", random.uniform(0.5, 3.0) * TTL_S)
            unpinned = self._ask(lambda: api.unpin(t.UnpinRequest(topic)).reason)
            self._note(f"unpin {topic}: {unpinned}")

    @staticmethod
    def _ask(command: Callable[[], str]) -> str:
        try:
            return command()
        except InstarError as error:
            return error.code

    # -- noting -------------------------------------------------------------------------------------------

    def _wait_after(self, what: str, seconds: float) -> None:
        if what:
            self._note(f"{what} for {seconds:.2f} s")
        self._ending.wait(seconds)

    def _note(self, what: str) -> None:
        self._history.deeds.append(Deed(time.monotonic(), what))


@contextmanager
def hub_away(cluster: Cluster) -> Iterator[None]:
    """While this is open the disk with the common hub is not there."""
    hub = Path(cluster.hub)
    away = hub.with_name(f"{hub.name}.away")
    hub.rename(away)
    try:
        yield
    finally:
        away.rename(hub)


@contextmanager
def hub_locked(cluster: Cluster) -> Iterator[None]:
    """While this is open somebody else holds the lock of the common hub: nobody swaps."""
    file = os.open(Path(cluster.hub) / "instar.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
