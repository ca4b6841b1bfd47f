"""A machine dies at each step of a message's life in turn, on either side, with traffic all the while."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.holding import Holding
from tests.chaos.world import World
from tests.cluster.harness import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")

STEPS = {
    "holder": (
        "durable received",
        "acknowledged",
        "durable processing",
        "durable reserved",
        "sent",
        "durable committed",
    ),
    "standby": ("before received", "durable reserved"),
}
"""Between any two states of a message, on the machine that answers and on one that follows it."""
MORE_STEPS = {
    "holder": ("before received", "before processing", "before reserved", "send", "before committed"),
    "standby": ("durable received", "before committed", "durable committed"),
}
"""The same once more, on the other side of the sync or of the wire: only in a long run."""


def test_a_machine_killed_at_any_step_of_a_message_loses_and_doubles_nothing(
    tmp_path: Path, long_run: bool
) -> None:
    world = World(tmp_path, 2, seed=0)
    holdings = {machine.nickname: Holding(machine) for machine in world.cluster.machines}
    try:
        world.start()
        with world.talking(30):
            for side in STEPS:
                for step in (*STEPS[side], *(MORE_STEPS[side] if long_run else ())):
                    kill_at(world, holdings, side, step)
        violations = world.judge()
        assert not violations, world.report(violations)
    finally:
        world.close()


def kill_at(world: World, holdings: dict[str, Holding], side: str, step: str) -> None:
    """Kill one side at a step; the other is awake, or stays so; then the killed one comes back."""
    holder, standby = sorted(world.cluster.machines, key=lambda machine: not machine.is_awake())
    victim, other = (holder, standby) if side == "holder" else (standby, holder)
    with holdings[victim.nickname].at(step):
        world.note(f"kill -9 {victim.nickname}, the {side}, at {step!r}")
        victim.kill()
    wait_for(other.is_awake)
    victim.start()
    world.cluster.wait_in_sync(other, [victim], 60)
