"""When drills run by themselves: on the awake machine, a while after a join, again after one that failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from instar_node.clock import SystemClock
from instar_node.errors import InstarError
from instar_node.verification import rehearsals as module
from instar_node.verification.rehearsals import AGAIN_US, SETTLE_US, Rehearsals
from instar_node.verification.verification import Verification
from tests.unit.fakes_mesh import FakeAuthority, Net, eventually

DESK, MINI, ATTIC = "m-desk", "m-mini", "m-attic"


class Authority(FakeAuthority):
    in_sync: frozenset[str] = frozenset({MINI, ATTIC})

    def ack_set(self) -> frozenset[str]:
        return self.in_sync


class Scripted:
    """Stands in for ``Verification``: who is proven, who is shut out, and what was drilled."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.shut: set[str] = set()
        self.drilled: list[tuple[str, bool]] = []
        self.passes = True
        self.changed: Callable[[], None] = lambda: None

    def on_change(self, callback: Callable[[], None]) -> None:
        self.changed = callback

    def proven(self, machine: str) -> bool:
        return machine in self.good

    def shut_out(self) -> set[str]:
        return self.shut

    async def drill(self, machine: str, *, live: bool, asked: bool) -> list[Any]:
        assert not asked
        self.drilled.append((machine, live))
        if not self.passes:
            raise InstarError("not-awake", "no")
        self.good.add(machine)
        self.changed()
        return []


class World:
    def __init__(self) -> None:
        self.net = Net()
        mesh = self.net.node(DESK)
        for other in (MINI, ATTIC):
            self.net.node(other)
        self.authority = Authority(DESK)
        self.verification = Scripted()
        self.rehearsals = Rehearsals(
            cast(Verification, self.verification), mesh, self.authority, SystemClock()
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.rehearsals.stop()


def due(world: World, now: int = 1_000) -> dict[str, int]:
    return {machine: attempt.due for machine, attempt in world.rehearsals.plan(now).items()}


async def test_only_the_awake_machine_plans_and_only_for_who_is_there_and_not_proven(world: World) -> None:
    assert due(world) == {}
    world.authority.set(DESK, 1)
    assert due(world) == {MINI: 1_000 + SETTLE_US, ATTIC: 1_000 + SETTLE_US}
    world.verification.good.add(MINI)
    world.net.isolate(ATTIC)
    assert due(world) == {}


async def test_a_machine_that_a_shut_gate_keeps_out_is_tried_again(world: World) -> None:
    world.authority.set(DESK, 1)
    world.authority.in_sync = frozenset()
    assert due(world) == {}
    world.verification.shut.add(MINI)
    assert list(due(world)) == [MINI]


async def test_each_is_rehearsed_once_without_moving_the_role(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_US", 1_000)
    world.rehearsals.start()
    await asyncio.sleep(0.02)
    assert world.verification.drilled == []
    world.authority.set(DESK, 1)
    await eventually(lambda: len(world.verification.drilled) == 2)
    await asyncio.sleep(0.02)
    assert sorted(world.verification.drilled) == [(ATTIC, False), (MINI, False)]


async def test_one_that_did_not_pass_waits_longer_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_US", 0)
    monkeypatch.setattr(module, "AGAIN_US", 5_000)
    world.verification.passes = False
    world.authority.in_sync = frozenset({MINI})
    world.authority.set(DESK, 1)
    world.rehearsals.start()
    await eventually(lambda: len(world.verification.drilled) == 3)
    attempt = world.rehearsals.plan(0)[MINI]
    assert attempt.failures == 3
    assert AGAIN_US > SETTLE_US
    world.verification.good.add(MINI)
    assert world.rehearsals.plan(0) == {}
