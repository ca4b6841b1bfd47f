"""How a rule of the lease is shown to be needed: a schedule that passes with it and goes wrong without it.

A schedule drives a ``SmallWorld`` step by step. With the rules whole it must pass; with its rule switched off
it must raise ``Violation``: from the oracle, which sees two machines act, or from ``must``, where the harm is
another one. Times are seconds; the ttl is 6, so a contender waits 6.13; ``bench_ttl`` is 60.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instar_node.coordination.lease_coordinator import Effect, LeaseCoordinator, SendSwap
from instar_node.coordination.lease_mutations import Mutations
from instar_node.coordination.record import KnownRecord
from tests.simulation.oracle import Violation
from tests.simulation.small_world import SmallWorld

RIGHT = 1_000
"""A clock that runs right, in thousandths."""


@dataclass(frozen=True)
class Case:
    """A rule, the flag that switches it off, and the schedule that notices."""

    rule: str
    flag: str
    schedule: Callable[[Mutations], None]

    def play(self, *, without_rule: bool) -> None:
        """Raises ``Violation`` where a promise is broken."""
        self.schedule(Mutations(**{self.flag: True}) if without_rule else Mutations())


CASES: list[Case] = []
Schedule = Callable[[Mutations], None]


def case(rule: str, *flags: str) -> Callable[[Schedule], Schedule]:
    """Note a schedule, with the rule it is about and the flags it notices."""

    def note(schedule: Schedule) -> Schedule:
        CASES.extend(Case(rule, flag, schedule) for flag in flags)
        return schedule

    return note


def must(condition: bool, what: str) -> None:
    """The schedule's own judgement."""
    if not condition:
        raise Violation(what)


def mesh(
    mutations: Mutations, electorate: str = "ab", benched: str = "", *, baton: bool = False
) -> SmallWorld:
    """Machine ``a`` holds epoch 1 since 0."""
    clocks = dict.fromkeys([*electorate, *benched], RIGHT)
    world = SmallWorld(clocks, mutations=mutations, baton=baton)
    world.found("a", electorate, benched)
    return world


def take(world: SmallWorld, name: str) -> None:
    """Take the lease over if the rules let this machine, and hear that it was won."""
    if world.may_contend(name):
        world.contend(name)
        world.land(name)
        world.hear(name)


class Peers:
    """What a coordinator is told of the others: nobody is there, or all are, level or not."""

    def __init__(self, *, there: bool = False, level: bool = False) -> None:
        self._there = there
        self._level = level

    def connected(self, machine: str) -> bool:
        return self._there

    def caught_up(self, machine: str) -> bool:
        return self._level

    def missing(self) -> frozenset[str]:
        return frozenset()

    def compared(self, machine: str) -> bool:
        return False


def driver(world: SmallWorld, name: str) -> LeaseCoordinator:
    """The coordinator of a machine, started now."""
    coordinator = LeaseCoordinator(world[name], lambda: f"{name}-nonce", lambda: "")
    coordinator.boot(world.now(name))
    register = world.register_of(world.by_name[name], world[name].hub)
    if world[name].baton:
        coordinator.on_own_register(register.value, world.now(name))
    return coordinator


def perform(world: SmallWorld, name: str, effects: list[Effect]) -> None:
    """Swaps of a coordinator reach the register, and it hears of it."""
    for effect in effects:
        if isinstance(effect, SendSwap):
            world.leave(name, effect.swap)
            world.land(name)
            world.hear(name)


def known_to(world: SmallWorld, name: str) -> KnownRecord:
    known = world[name].known
    assert known is not None
    return known


def acting(world: SmallWorld) -> list[str]:
    return [machine.name for machine in world.machines if machine.lease.may_act(world.now(machine.name))]
