"""States of a small world: copies that go their own way, and what makes two of them the same."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import TypeVar

from instar_node.coordination.lease_state import OpenSwap
from instar_node.coordination.record import KnownRecord
from tests.simulation.small_world import Message, SmallMachine, SmallWorld

T = TypeVar("T")


def fork(world: SmallWorld) -> SmallWorld:
    """An equal world that goes its own way. Records are shared; they never change."""
    twin = _twin(world)
    twin.oracle = world.oracle.fork(twin)
    twin.log = list(world.log) if world.log is not None else None
    twin.hubs = {url: _twin(hub) for url, hub in world.hubs.items()}
    swaps: dict[int, OpenSwap] = {}
    twin.machines = [_fork_machine(machine, swaps) for machine in world.machines]
    twin.by_name = {machine.name: machine for machine in twin.machines}
    twin.under_way = [
        tuple(_fork_swap(part, swaps) if isinstance(part, OpenSwap) else part for part in message)
        for message in world.under_way
    ]
    return twin


def key(world: SmallWorld) -> Hashable:
    """What the future depends on. Instants count by their distance from now."""
    return (
        tuple(hub.value.version if hub.value else "" for hub in world.hubs.values()),
        tuple(min(world.t - hub.written, 2 * world.timing.bench_ttl) for hub in world.hubs.values()),
        tuple(_machine_key(world, machine) for machine in world.machines),
        tuple(sorted(_message_key(world, message) for message in world.under_way)),
        world.oracle.highest_acted,
    )


def _machine_key(world: SmallWorld, machine: SmallMachine) -> Hashable:
    lease, now = machine.lease, world.now(machine.name)
    own, swap, known = lease.own, lease.open, lease.known
    horizon = now - 2 * world.timing.bench_ttl

    def age(instant: int | None) -> int:
        return -1 if instant is None else now - max(instant, horizon)

    return (
        machine.boots,
        known.version if known else "",
        lease.durable.ceased,
        age(lease.first_seen),
        (own.version, age(own.started), age(own.proven)) if own else (),
        (swap.record.nonce, age(swap.started), age(swap.proven)) if swap else (),
        tuple(sorted((name, age(at)) for name, at in lease.promised.items())),
        age(lease.last_promise),
        age(lease.confirmed),
        lease.token or "",
        lease.suspicion or "",
        lease.durable.evidence or "",
        machine.acting_epoch,
    )


def _message_key(world: SmallWorld, message: Message) -> tuple[str, ...]:
    now = world.now(message[1])
    parts = []
    for part in message:
        if isinstance(part, OpenSwap):
            parts.append(part.record.nonce)
        elif isinstance(part, KnownRecord):
            parts.append(part.version)
        elif isinstance(part, int) and not isinstance(part, bool) and part >= 1_000_000:
            parts.append(str(now - part))
        else:
            parts.append(str(part))
    return tuple(parts)


def _fork_machine(machine: SmallMachine, swaps: dict[int, OpenSwap]) -> SmallMachine:
    twin = _twin(machine)
    twin.rows = set(machine.rows)
    twin.own_register = _twin(machine.own_register)
    twin.lease = lease = _twin(machine.lease)
    if lease.own is not None:
        lease.own = _twin(lease.own)
    if lease.open is not None:
        lease.open = _fork_swap(lease.open, swaps)
    lease.promised = dict(lease.promised)
    return twin


def _fork_swap(swap: OpenSwap, swaps: dict[int, OpenSwap]) -> OpenSwap:
    if id(swap) not in swaps:
        swaps[id(swap)] = _twin(swap)
    return swaps[id(swap)]


def _twin(thing: T) -> T:
    """A shallow copy, without the detour that ``copy.copy`` takes for slots."""
    kind = type(thing)
    twin = kind.__new__(kind)
    if hasattr(thing, "__dict__"):
        twin.__dict__.update(thing.__dict__)
    for name in slots_of(kind):
        setattr(twin, name, getattr(thing, name))
    return twin


@functools.cache
def slots_of(kind: type) -> tuple[str, ...]:
    """Names of the slots of a class and its bases."""
    return tuple(name for base in kind.__mro__ for name in getattr(base, "__slots__", ()))
