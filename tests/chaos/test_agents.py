"""Agents end before anybody else may begin the same work, however their node came to lose it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.checker import runs_apart
from tests.chaos.history import Beat
from tests.chaos.world import World
from tests.cluster.harness import Machine, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, 2, seed=0)
    world.start()
    yield world
    world.close()


def beats_on(world: World, machine: Machine) -> list[Beat]:
    return [beat for beat in world.beats() if beat.machine == machine.id]


def answered_by_the_other(world: World, old: Machine, new: Machine) -> None:
    """Wait until ``new`` has taken over and answered; the agent of ``old`` ended before its own began."""
    wait_for(lambda: "k1" in world.sink.answered(), 30)
    assert beats_on(world, new)
    assert beats_on(world, old)[-1].at < beats_on(world, new)[0].at
    world.history.beats = world.beats()
    assert list(runs_apart(world.history)) == []


def test_the_agent_of_a_node_that_hangs_ends_when_its_lease_does(world: World) -> None:
    desk, mini = world.cluster.machines
    desk.say("t", "work 4", "k1")
    wait_for(partial(beats_on, world, desk))
    desk.freeze()
    try:
        answered_by_the_other(world, desk, mini)
    finally:
        desk.thaw()


def test_agents_die_with_their_node_before_another_runs_the_message(world: World) -> None:
    desk, mini = world.cluster.machines
    desk.say("t", "work 4", "k1")
    wait_for(partial(beats_on, world, desk))
    os.kill(desk.daemon.pid, signal.SIGKILL)  # the node alone: its agents are no children of the test
    answered_by_the_other(world, desk, mini)


def test_a_holder_that_is_cut_off_from_mesh_and_hub_ends_its_agent_in_time(world: World) -> None:
    desk, mini = world.cluster.machines
    desk.say("t", "work 6", "k1")
    wait_for(partial(beats_on, world, desk))
    with world.hub_locked():
        world.outside.do(world.network.cut(desk.nickname, mini.nickname))
        wait_for(lambda: not desk.is_awake())
        fenced = len(beats_on(world, desk))
        assert desk.cli("status").returncode == 0  # takes a moment, in which a living agent would beat on
        assert len(beats_on(world, desk)) == fenced
    world.outside.do(world.network.heal(["desk", "mini"]))
    wait_for(lambda: "k1" in world.sink.answered(), 30)
    world.history.beats = world.beats()
    assert list(runs_apart(world.history)) == []
