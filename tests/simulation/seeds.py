"""One seed: a world, its faults, and afterwards the question whether it comes to rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from tests.simulation.faults import Nemesis
from tests.simulation.oracle import Violation
from tests.simulation.settings import Settings, settings_of
from tests.simulation.world import SECOND, World

STEPS = 3_000
REST_TTLS, REST_SECONDS = 8, 30
"""One machine acts at the latest so many ttls and seconds after everything works again: a standby looks at
the register every five ttls, then waits for one; the seconds are for swaps whose answers are awaited."""


@dataclass
class Tally:
    """What came of many worlds."""

    worlds: int = 0
    steps: int = 0
    epochs: int = 0
    acknowledged: int = 0
    alarms: int = 0
    broken: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.worlds += other.worlds
        self.steps += other.steps
        self.epochs += other.epochs
        self.acknowledged += other.acknowledged
        self.alarms += other.alarms
        self.broken += other.broken

    def __str__(self) -> str:
        return (
            f"{self.worlds} worlds, {self.steps} steps, {self.epochs} epochs in which somebody acted, "
            f"{self.acknowledged} rows acknowledged, {self.alarms} machines stopped for evidence, "
            f"{len(self.broken)} promises broken"
        )


def run_seeds(seeds: Iterable[int], steps: int = STEPS) -> Tally:
    """Run many worlds and count."""
    tally = Tally()
    for seed in seeds:
        tally.worlds += 1
        try:
            world = run_seed(seed, steps)
        except Violation as violation:
            tally.broken.append((seed, str(violation)))
            continue
        tally.steps += world.steps
        tally.epochs += world.oracle.changes
        tally.acknowledged += len(world.oracle.acknowledged)
        tally.alarms += world.oracle.alarms
    return tally


def run_seed(
    seed: int, steps: int = STEPS, mutations: Mutations = NO_MUTATIONS, trace: bool = False
) -> World:
    """Run one world to its end. Raises ``Violation``."""
    world = start(settings_of(seed), mutations, trace)
    play(world, steps)
    return world


def start(settings: Settings, mutations: Mutations = NO_MUTATIONS, trace: bool = False) -> World:
    """A founded mesh in which everybody wants to take part."""
    world = World(settings, mutations, trace)
    first, *others = world.machines
    first.boot()
    for other in others:
        other.boot()
    first.coordinator.membership.wishes.admit.update(other.name for other in others)
    return world


def play(world: World, steps: int) -> None:
    """Trouble for so many steps, then none: exactly one machine must act, within a bound."""
    nemesis = Nemesis(world)
    _converse(world)
    world.run_steps(steps)
    nemesis.stop()
    heal(world)
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
        machine.coordinator.membership.wishes.expel.clear()
    for one in world.machines:
        for other in world.machines[one.index + 1 :]:
            world.greet(one, other)


def _check_rest(world: World) -> None:
    def settled() -> bool:
        acting = [m for m in world.machines if m.acting_until > world.t]
        return len(acting) == 1 and len({m.lease.epoch for m in world.machines}) == 1

    if any(machine.lease.durable.evidence for machine in world.machines):
        _check_stopped(world)
    elif not world.run_until(settled, REST_TTLS * world.settings.ttl + REST_SECONDS * SECOND):
        if any(machine.lease.durable.evidence for machine in world.machines):
            _check_stopped(world)
        else:
            world.oracle.fail("nobody, or more than one, acts long after everything was healed")


def _check_stopped(world: World) -> None:
    """The hub lied: whoever meets the others or the hub has stopped."""
    world.run_until(lambda: False, 20 * world.settings.ttl)
    acting = [m for m in world.machines if m.acting_until > world.t]
    if len(acting) > 1:
        world.oracle.fail(f"{', '.join(m.name for m in acting)} act in a split brain that everybody can see")
