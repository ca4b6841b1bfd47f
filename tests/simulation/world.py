"""A discrete-event world: machines with clocks of their own, a network and hubs that misbehave.

Real time is an integer of microseconds that only this world knows. Everything random comes from one seeded
generator, and everything that happens is an event in one heap, so a seed replays exactly.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from instar_node.coordination.lease_state import LeaseTiming
from instar_node.coordination.record import HubPlace
from tests.simulation.hub import Register
from tests.simulation.machine import Machine
from tests.simulation.oracle import Oracle
from tests.simulation.settings import Settings

SECOND = 1_000_000
Event = tuple[int, int, Callable[..., None], tuple[Any, ...]]


class World:
    """Machines ``m0`` … and all that lies between them."""

    def __init__(self, settings: Settings, mutations: Mutations = NO_MUTATIONS, trace: bool = False) -> None:
        self.settings = settings
        self.mutations = mutations
        self.rng = random.Random(settings.seed)
        self.random = self.rng.random
        self.timing = LeaseTiming(settings.ttl, settings.ttl // 3, settings.bench_ttl, settings.drift)
        self.t = 0
        self.steps = 0
        self.trace: list[str] | None = [] if trace else None
        self.removed: set[str] = set()
        """Machines that a person removed; everybody else wants to take part."""
        self.seen: Counter[str] = Counter()
        """How often each kind of event happened (``coverage``)."""
        self.oracle = Oracle(self)
        self.loss, self.repeats = settings.loss, settings.repeats
        self.hubs: dict[str, Register] = {}
        self.entries: list[int] = []
        """Row of each log entry ever made, by the entry's number; -1 for the opening of an epoch."""
        self.next_row = 0
        self._heap: list[Event] = []
        self._pushed = 0
        self._nonces = 0
        count = settings.machines
        self.cut = [[False] * count for _ in range(count)]
        self._heard = [[0] * count for _ in range(count)]
        """For each pair the number of the newest message that arrived."""
        self.hub_cut = [False] * count
        self.machines: list[Machine] = [Machine(self, index) for index in range(count)]
        self.by_name = {machine.name: machine for machine in self.machines}

    def forgives_evidence(self) -> bool:
        """Whether a person may have begun two lines by vouching wrongly."""
        return "force" in self.settings.faults

    # -- events ------------------------------------------------------------------------------------

    def at(self, delay: int, run: Callable[..., None], *args: Any) -> None:
        """Run something after a delay of real time."""
        self._pushed += 1
        heappush(self._heap, (self.t + delay, self._pushed, run, args))

    def run_steps(self, steps: int) -> None:
        """Let so many events happen."""
        heap, end = self._heap, self.steps + steps
        while self.steps < end and heap:
            self.t, _, run, args = heappop(heap)
            self.steps += 1
            run(*args)

    def run_until(self, done: Callable[[], bool], within: int) -> bool:
        """Let events happen until ``done``, for at most so many microseconds of real time."""
        heap, end = self._heap, self.t + within
        while heap and heap[0][0] <= end:
            if done():
                return True
            self.t, _, run, args = heappop(heap)
            self.steps += 1
            run(*args)
        self.t = end
        return done()

    def say(self, text: str) -> None:
        """Note what happens, if somebody reads it."""
        if self.trace is not None:
            self.trace.append(f"{self.t / SECOND:11.6f}  {text}")

    def note(self, kind: str) -> None:
        """Count something that happened."""
        self.seen[kind] += 1

    def nonce(self) -> str:
        self._nonces += 1
        return f"n{self._nonces}"

    # -- network -----------------------------------------------------------------------------------

    def delay(self) -> int:
        """One way through the network: mostly quick, sometimes slower than a ttl."""
        roll = self.random()
        if roll < self.settings.slow:
            late = int(self.random() * self.settings.slowest)
            if late > self.settings.ttl:
                self.note("message later than a ttl")
            return late
        return 500 + int(roll * 40_000)

    def send(self, source: int, target: int, handler: Callable[..., None], *args: Any) -> bool:
        """One message; it is lost, doubled, late or overtaken as it may be. Whether it is under way."""
        machine = self.machines[target]
        if self.cut[source][target] or not machine.up:
            return False
        if self.loss and self.random() < self.loss:
            self.note("message lost")
            return False
        number = self._pushed
        self.at(self.delay(), self._deliver, machine, machine.boots, source, number, handler, args)
        if self.repeats and self.random() < self.repeats:
            self.note("message doubled")
            self.at(self.delay(), self._deliver, machine, machine.boots, source, number, handler, args)
        return True

    def _deliver(
        self,
        machine: Machine,
        boots: int,
        source: int,
        number: int,
        handler: Callable[..., None],
        args: tuple[Any, ...],
    ) -> None:
        if machine.boots != boots or not machine.up:
            return
        heard = self._heard[machine.index]
        if number < heard[source]:
            self.note("message overtaken by a later one")
        else:
            heard[source] = number
        if machine.asleep:
            machine.backlog.append((handler, args))
        else:
            handler(machine, *args)

    def connected(self, one: int, other: int) -> bool:
        """Whether both ways are open between two machines that run."""
        up = self.machines[one].up and self.machines[other].up
        return up and not self.cut[one][other] and not self.cut[other][one]

    def greet(self, one: Machine, other: Machine) -> None:
        """A tunnel comes up: both tell what they know."""
        if self.connected(one.index, other.index):
            one.notify(other)
            other.notify(one)

    # -- hubs --------------------------------------------------------------------------------------

    def register_of(self, machine: Machine, place: HubPlace | None) -> Register:
        """The register at a place; an embedded one is the machine's own."""
        url = self.settings.hub if place is None else place.url
        if not url:
            return machine.register
        if url not in self.hubs:
            self.hubs[url] = Register(self, url)
        return self.hubs[url]
