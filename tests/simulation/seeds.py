"""One seed: a world, its faults, and afterwards the question whether it comes to rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from tests.simulation import commands
from tests.simulation.faults import Nemesis
from tests.simulation.machine import Machine
from tests.simulation.oracle import Violation
from tests.simulation.settings import Settings, settings_of
from tests.simulation.world import SECOND, World

STEPS = 3_000
REST_TTLS, REST_SECONDS = 8, 30
"""One machine acts at the latest so many ttls and seconds after everything works again: a standby looks at
the register every five ttls, then waits for one; the seconds are for swaps whose answers are awaited."""


LINES = 60
"""How much of a trace is shown of a world that broke a promise."""


class Broken(NamedTuple):
    """A world in which a promise was broken, and its last events."""

    seed: int
    what: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        again = f"all of it: python -m tests.simulation --seed {self.seed}"
        return "\n".join((f"seed {self.seed}: {self.what}", *self.trace, again))


@dataclass
class Tally:
    """What came of many worlds."""

    worlds: int = 0
    steps: int = 0
    epochs: int = 0
    acknowledged: int = 0
    alarms: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    """How often each kind of event happened (``coverage``)."""
    broken: list[Broken] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.worlds += other.worlds
        self.steps += other.steps
        self.epochs += other.epochs
        self.acknowledged += other.acknowledged
        self.alarms += other.alarms
        self.seen += other.seen
        self.broken += other.broken

    def __str__(self) -> str:
        return (
            f"{self.worlds} worlds, {self.steps} steps, {self.epochs} epochs in which somebody acted, "
            f"{self.acknowledged} rows acknowledged, {self.alarms} machines stopped for evidence, "
            f"{len(self.broken)} promises broken"
        )


def run_seeds(seeds: Iterable[int], steps: int = STEPS, mutations: Mutations = NO_MUTATIONS) -> Tally:
    """Run many worlds and count. One that breaks a promise is run again, noting all that happens."""
    tally = Tally()
    for seed in seeds:
        tally.worlds += 1
        try:
            world = run_seed(seed, steps, mutations)
        except Violation as violation:
            trace, _ = replay(seed, steps, mutations)
            tally.broken.append(Broken(seed, str(violation), tuple(trace[-LINES:])))
            continue
        tally.seen += world.seen
        tally.steps += world.steps
        tally.epochs += world.oracle.changes
        tally.acknowledged += len(world.oracle.acknowledged)
        tally.alarms += world.oracle.alarms
    return tally


def run_seed(seed: int, steps: int = STEPS, mutations: Mutations = NO_MUTATIONS) -> World:
    """Run one world to its end. Raises ``Violation``."""
    world = start(settings_of(seed), mutations)
    play(world, steps)
    return world


def replay(
    seed: int, steps: int = STEPS, mutations: Mutations = NO_MUTATIONS
) -> tuple[list[str], Violation | None]:
    """Run one world again: all that happened in it, a line each, and the promise that was broken."""
    world = start(settings_of(seed), mutations, trace=True)
    assert world.trace is not None
    try:
        play(world, steps)
    except Violation as violation:
        return world.trace, violation
    return world.trace, None


def start(settings: Settings, mutations: Mutations = NO_MUTATIONS, trace: bool = False) -> World:
    """A founded mesh in which everybody wants to take part."""
    world = World(settings, mutations, trace)
    for machine in world.machines:
        machine.boot()
    return world


def play(world: World, steps: int) -> None:
    """Trouble for so many steps, then none: exactly one machine must act, within a bound."""
    nemesis = Nemesis(world)
    _converse(world)
    world.run_steps(steps)
    nemesis.stop()
    heal(world)
    for name in sorted(world.removed):
        nemesis.readmit(world.by_name[name])
    _check_rest(world)


def _converse(world: World) -> None:
    for machine in world.machines:
        epoch = machine.copy.epoch
        if epoch is not None and not machine.asleep and machine.lease.acting_epoch(machine.now()) == epoch:
            machine.copy.write()
    world.at(int(world.rng.expovariate(1 / world.settings.rows)), _converse, world)


def heal(world: World) -> None:
    """Everything works again."""
    world.say("healed")
    world.loss = world.repeats = 0.0
    for hub in world.hubs.values():
        hub.away, hub.slowness = False, 0
    for row in world.cut:
        row[:] = [False] * len(row)
    world.hub_cut[:] = [False] * len(world.hub_cut)
    for machine in world.machines:
        if machine.asleep:
            machine.resume(machine.boots)
        if not machine.up or not machine.coordinator.eligible:
            if machine.up:
                machine.crash()
            machine.boot()
    for one in world.machines:
        for other in world.machines[one.index + 1 :]:
            world.greet(one, other)


def _check_rest(world: World) -> None:
    """Within a bound one machine acts, everybody follows it and has every row that anybody had."""
    bound = REST_TTLS * world.settings.ttl + REST_SECONDS * SECOND
    rested = world.run_until(lambda: bool(_evidence(world)) or _at_rest(world), bound)
    if _evidence(world):
        _check_stopped(world)
        for machine in _evidence(world)[:1]:  # a person chooses a line; everybody follows it
            commands.force(machine)
        rested = world.run_until(lambda: _at_rest(world), bound)
    if not rested:
        acting = [machine.name for machine in world.machines if machine.acting_until > world.t]
        what = f"{len(acting)} machines act, or some rows are not everywhere"
        world.oracle.fail(f"long after everything was healed {what}")


def _at_rest(world: World) -> bool:
    machines = world.machines
    if len([machine for machine in machines if machine.acting_until > world.t]) != 1:
        return False
    first = machines[0]
    return all(m.lease.epoch == first.lease.epoch and m.copy.log == first.copy.log for m in machines)


def _evidence(world: World) -> list[Machine]:
    return [machine for machine in world.machines if machine.lease.durable.evidence is not None]


def _check_stopped(world: World) -> None:
    """The hub lied, or persons did: whoever meets the others or the hub has stopped."""
    world.run_until(lambda: False, 20 * world.settings.ttl)
    acting = [m for m in world.machines if m.acting_until > world.t]
    if len(acting) > 1:
        world.oracle.fail(f"{', '.join(m.name for m in acting)} act in a split brain that everybody can see")
