"""Agents end before anybody else may begin the same work, however their node came to lose it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from tests.chaos.checker import runs_apart
from tests.chaos.history import Beat
from tests.chaos.nemesis import hub_away
from tests.chaos.world import World
from tests.cluster.harness import Machine, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("agents"), 2, seed=0)
    try:
        world.start()
        yield world
    finally:
        world.close()


def at_work(world: World, key: str, seconds: float) -> tuple[Machine, Machine]:
    """Have the agent work on a message for so long; returns where it does, and the other machine, in sync."""
    wait_for(lambda: len(world.cluster.awake()) == 1, 30)
    holder, other = sorted(world.cluster.machines, key=lambda machine: not machine.is_awake())
    world.cluster.wait_in_sync(holder, [other], 60)
    holder.say("t", f"work {seconds}", key)
    wait_for(partial(beats, world, key, holder))
    return holder, other


def beats(world: World, key: str, machine: Machine) -> list[Beat]:
    """The signs of life of the agent that works on a message on one machine."""
    return [beat for beat in world.beats() if beat.machine == machine.id and beat.key == key]


def answered_apart(world: World, key: str) -> None:
    """Wait for the answer. Whatever agents worked on it, each ended before the next began."""
    wait_for(lambda: key in world.sink.answered(), 60)
    world.history.beats = world.beats()
    assert list(runs_apart(world.history)) == []


def test_the_agent_of_a_node_that_hangs_ends_when_its_lease_does(world: World) -> None:
    old, new = at_work(world, "hangs", 4)
    old.freeze()
    try:
        answered_apart(world, "hangs")
    finally:
        old.thaw()
    assert beats(world, "hangs", old)[-1].at < beats(world, "hangs", new)[0].at


def test_agents_die_with_their_node_before_another_runs_the_message(world: World) -> None:
    old, new = at_work(world, "dies", 4)
    os.kill(old.daemon.pid, signal.SIGKILL)  # the node alone, not what it started
    answered_apart(world, "dies")
    assert beats(world, "dies", old)[-1].at < beats(world, "dies", new)[0].at
    old.kill()
    old.start()


def test_a_holder_that_is_cut_off_from_mesh_and_hub_ends_its_agent_in_time(world: World) -> None:
    holder, other = at_work(world, "cut-off", 6)
    with hub_away(world.cluster):
        world.outside.do(world.network.cut(holder.nickname, other.nickname))
        wait_for(lambda: not holder.is_awake())
        fenced = len(beats(world, "cut-off", holder))
        assert holder.cli("status").returncode == 0  # takes a moment, in which a living agent would beat on
        assert len(beats(world, "cut-off", holder)) == fenced
    world.outside.do(world.network.heal([holder.nickname, other.nickname]))
    answered_apart(world, "cut-off")
