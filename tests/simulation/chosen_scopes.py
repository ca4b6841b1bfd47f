"""Every interleaving of a few events in small worlds with coordinator, ledger, baton and hub move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from instar_node.coordination.record import HubPlace
from tests.simulation import commands
from tests.simulation.chosen import ChosenWorld
from tests.simulation.enumeration import Found
from tests.simulation.machine import Machine
from tests.simulation.oracle import Violation
from tests.simulation.settings import SECOND

TICK = 5 * SECOND // 4


@dataclass(frozen=True)
class Left:
    """How many events of each kind may still happen."""

    ticks: int = 0
    arrivals: int = 0
    """Messages and steps of hubs; those that are not chosen are lost."""
    crashes: int = 0
    rows: int = 0
    benches: int = 0
    """A standby turns out to be too slow."""
    handoffs: int = 0
    refusals: int = 0
    """The disk of a machine does not take an opening."""
    moves: int = 0
    to_own_disk: bool = False


@dataclass(frozen=True)
class ChosenScope:
    """A small world and its bounds."""

    name: str
    machines: int
    left: Left
    hub: str = "hub0"


CHOSEN = (
    ChosenScope("rounds, a crash and a takeover", 2, Left(ticks=2, arrivals=3, crashes=1)),
    ChosenScope("a row, a bench and a takeover", 2, Left(ticks=2, arrivals=3, rows=1, benches=1)),
    ChosenScope("three machines, rounds and a takeover", 3, Left(ticks=2, arrivals=3)),
    ChosenScope("three machines, a row on all of them", 3, Left(ticks=1, arrivals=4, rows=1)),
    ChosenScope("the baton, declined or lost", 2, Left(ticks=1, arrivals=6, handoffs=1, refusals=1), ""),
    ChosenScope("the baton and a crash", 2, Left(ticks=1, arrivals=4, crashes=1, handoffs=1), ""),
    ChosenScope("three machines, the baton twice", 3, Left(arrivals=7, handoffs=2), ""),
    ChosenScope("a hub move and a crash", 2, Left(ticks=1, arrivals=5, crashes=1, moves=1)),
    ChosenScope("onto the own disk", 2, Left(arrivals=4, crashes=1, moves=1, to_own_disk=True)),
)
"""Together about 20 s of work."""

Option = tuple[str, Left, Callable[[ChosenWorld], object]]


def settled(scope: ChosenScope, mutations: Mutations = NO_MUTATIONS) -> ChosenWorld:
    """All machines take part, everybody has every row and nothing is under way."""
    world = ChosenWorld(scope.machines, scope.hub, mutations)
    for machine in world.machines:
        machine.boot()
    first = world.machines[0]

    def level() -> bool:
        own = first.lease.holding
        logs = [machine.copy.log for machine in world.machines]
        everybody = own is not None and len(own.record.electorate) == scope.machines
        know = len({machine.lease.order for machine in world.machines}) == 1
        return everybody and know and first.lease.open is None and all(log == logs[0] for log in logs)

    world.settle(level)
    world.ledger = scope.left.rows > 0
    return world


def enumerate_chosen(scope: ChosenScope, mutations: Mutations = NO_MUTATIONS, most: int = 200_000) -> Found:
    """Visit every state of a scope, or stop at the first violation or after ``most`` states."""
    start = settled(scope, mutations)
    found = Found(states=1)
    seen = {(start.key(), scope.left)}
    todo: list[tuple[ChosenWorld, Left, tuple[str, ...]]] = [(start, scope.left, ())]
    while todo and found.states < most:
        world, left, path = todo.pop()
        for text, remaining, act in _options(world, left):
            twin = world.fork()
            found.steps += 1
            try:
                act(twin)
            except Violation as violation:
                found.violation, found.path = str(violation), (*path, text)
                return found
            state = (twin.key(), remaining)
            if state not in seen:
                seen.add(state)
                found.states += 1
                todo.append((twin, remaining, (*path, text)))
    return found


def _options(world: ChosenWorld, left: Left) -> Iterator[Option]:
    if left.ticks:
        yield "time passes", replace(left, ticks=left.ticks - 1), lambda w: w.pass_time(TICK)
    if left.arrivals:
        fewer = replace(left, arrivals=left.arrivals - 1)
        for number, pending in enumerate(world.pending):
            yield pending.text, fewer, lambda w, n=number: w.happen(n)
    for machine in world.machines:
        yield from _of_a_machine(machine, left)


def _of_a_machine(machine: Machine, left: Left) -> Iterator[Option]:
    index = machine.index
    if left.crashes:
        fewer = replace(left, crashes=left.crashes - 1)
        yield f"{machine.name} restarts", fewer, lambda w: w.restart(w.machines[index])
    if left.refusals and index:
        fewer = replace(left, refusals=left.refusals - 1)
        yield f"the disk of {machine.name} is full", fewer, lambda w: setattr(w.machines[index], "full", True)
    if machine.lease.may_act(machine.now()) and machine.copy.epoch is not None:
        yield from _of_the_holder(machine, left)


def _of_the_holder(machine: Machine, left: Left) -> Iterator[Option]:
    index, name = machine.index, machine.name
    if left.rows:
        fewer = replace(left, rows=left.rows - 1)
        yield f"{name} takes a message in", fewer, lambda w: w.machines[index].copy.write()
    others = machine.lease.ack_set()
    if left.benches and others:
        fewer, other = replace(left, benches=left.benches - 1), max(others)
        yield f"{name} finds {other} slow", fewer, lambda w: _bench(w.machines[index], other)
    if left.handoffs:
        fewer = replace(left, handoffs=left.handoffs - 1)
        for other in sorted(others):
            hand = f"{name} hands over to {other}"
            yield hand, fewer, lambda w, o=other: commands.hand_over(w.machines[index], o)
    if left.moves:
        fewer, url = replace(left, moves=left.moves - 1), "" if left.to_own_disk else "hub1"
        yield f"{name} moves", fewer, lambda w: commands.move(w.machines[index], HubPlace(url, "1"))


def _bench(machine: Machine, other: str) -> None:
    machine.coordinator.on_slow(other)
    machine.step()
