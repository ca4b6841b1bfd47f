"""Every interleaving of a few events in a small world, over the real rules.

A state is left only once: worlds that differ in nothing that the future depends on are one state. The clocks
are as far apart as the rules allow for, and time moves in steps that hit every deadline exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from tests.simulation.oracle import Violation
from tests.simulation.small_world import SmallWorld
from tests.simulation.states import fork, key

TICK = 1.25
"""Seconds of one step of time. The holder's ttl of 2 s lasts 2.5 on its slow clock, and a contender's wait of
3 s lasts 2.5 on its fast one; ``bench_ttl`` and its wait last 5."""


@dataclass(frozen=True)
class Bounds:
    """How often each kind of event may still happen."""

    ticks: int = 0
    swaps: int = 0
    rounds: int = 0
    reads: int = 0
    tells: int = 0
    crashes: int = 0
    changes: int = 0
    """Own swaps of a holder that bench or take back."""
    leavings: int = 0
    """Releases and tokens."""


@dataclass(frozen=True)
class Scope:
    """A small world and its bounds."""

    name: str
    electorate: str
    benched: str
    bounds: Bounds


SCOPES = (
    Scope("two machines, a crash", "ab", "", Bounds(ticks=4, swaps=2, rounds=1, crashes=1)),
    Scope("two machines, a lapse", "ab", "", Bounds(ticks=4, swaps=1, rounds=1, reads=1)),
    Scope("two machines, late news", "ab", "", Bounds(ticks=4, swaps=2, reads=1, tells=1)),
    Scope("two machines, giving up", "ab", "", Bounds(ticks=2, swaps=2, reads=1, leavings=1)),
    Scope("three machines, a takeover", "abc", "", Bounds(ticks=3, swaps=2, rounds=1)),
    Scope("three machines, back from the bench", "ab", "c", Bounds(ticks=4, swaps=1, tells=1, changes=1)),
)


@dataclass
class Found:
    """What an enumeration came to."""

    states: int = 0
    steps: int = 0
    violation: str | None = None
    path: tuple[str, ...] = ()


def enumerate_scope(scope: Scope, mutations: Mutations = NO_MUTATIONS, most: int = 1_000_000) -> Found:
    """Visit every state of a scope, or stop at the first violation or after ``most`` states."""
    start = SmallWorld(_clocks(scope), ttl=2_000, bench_ttl=4_000, drift=0.2, mutations=mutations)
    start.log = None
    start.found("a", scope.electorate[1:], scope.benched)
    found = Found(states=1)
    seen = {(key(start), scope.bounds)}
    todo: list[tuple[SmallWorld, Bounds, tuple[str, ...]]] = [(start, scope.bounds, ())]
    while todo and found.states < most:
        world, bounds, path = todo.pop()
        for text, left, act in _options(world, bounds):
            twin = fork(world)
            found.steps += 1
            try:
                act(twin)
                _check_acknowledging(twin)
            except Violation as violation:
                found.violation, found.path = str(violation), (*path, text)
                return found
            state = (key(twin), left)
            if state not in seen:
                seen.add(state)
                found.states += 1
                todo.append((twin, left, (*path, text)))
    return found


def _clocks(scope: Scope) -> dict[str, int]:
    """The holder's clock is as slow, and everybody else's as fast, as the rules allow for."""
    others = scope.electorate[1:] + scope.benched
    return {scope.electorate[0]: 800, **dict.fromkeys(others, 1_200)}


Option = tuple[str, Bounds, Callable[[SmallWorld], object]]


def _options(world: SmallWorld, bounds: Bounds) -> Iterator[Option]:
    """Everything that may happen next."""
    if bounds.ticks:
        yield "tick", replace(bounds, ticks=bounds.ticks - 1), lambda w: w.tick(TICK)
    for index, message in enumerate(world.under_way):
        if message[0] == "swap":
            yield f"the swap of {message[1]} lands", bounds, lambda w, i=index: w.apply(w.under_way.pop(i))
        else:
            yield f"{message[0]} to {message[1]}", bounds, lambda w, i=index: w.deliver(w.under_way.pop(i))
    for machine in world.machines:
        yield from _own_options(world, machine.name, bounds)


def _own_options(world: SmallWorld, name: str, bounds: Bounds) -> Iterator[Option]:
    lease, now = world[name], world.now(name)
    if bounds.swaps and world.may_contend(name):
        yield f"{name} contends", replace(bounds, swaps=bounds.swaps - 1), lambda w: w.contend(name)
    if bounds.crashes:
        yield f"{name} restarts", replace(bounds, crashes=bounds.crashes - 1), lambda w: w.crash(name)
    if bounds.reads:
        yield f"{name} reads", replace(bounds, reads=bounds.reads - 1), lambda w: w.begin_read(name)
    if bounds.tells:
        for other in world.by_name:
            if world[other].order < lease.order:
                left = replace(bounds, tells=bounds.tells - 1)
                yield f"{name} tells {other}", left, lambda w, o=other: w.tell(name, o)
    if lease.holding is None:
        return
    if bounds.rounds and lease.can_use_promises(now) and lease.ack_set():
        members = sorted(lease.ack_set())
        yield f"{name} asks", replace(bounds, rounds=bounds.rounds - 1), lambda w: w.ask(name, *members)
    if lease.open is None:
        yield from _holders_options(world, name, bounds)


def _holders_options(world: SmallWorld, name: str, bounds: Bounds) -> Iterator[Option]:
    own = world[name].own
    assert own is not None
    electorate, benched = set(own.record.electorate), set(own.record.benched)
    if bounds.changes:
        left = replace(bounds, changes=bounds.changes - 1)
        for other in sorted((electorate | benched) - {name})[-1:]:  # of several alike, one is enough
            lists = ["".join(sorted(machines ^ {other})) for machines in (electorate, benched)]
            yield f"{name} moves {other}", left, lambda w, x=lists: w.renew(name, *x)
    if bounds.leavings:
        left = replace(bounds, leavings=bounds.leavings - 1)
        yield f"{name} releases", left, lambda w: w.release(name)
        for other in own.others:
            yield f"{name} yields to {other}", left, lambda w, o=other: w.token(name, o)


def _check_acknowledging(world: SmallWorld) -> None:
    """Whoever may come next without the bench has what the holder acknowledges now."""
    value = world.hubs["hub"].value
    if value is None or value.record.incomplete:
        return
    for machine in world.machines:
        if machine.acting_until:
            missing = {*value.record.electorate} - machine.lease.ack_set() - {machine.name}
            if missing:
                raise Violation(f"{machine.name} acknowledges without {missing} of the electorate")
