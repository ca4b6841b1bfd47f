"""A handoff between real nodes is broken at each of its steps: either side dies, or the tunnel is cut."""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_node.handoff.steps import PLANS
from tests.chaos.holding import Holding
from tests.chaos.world import World
from tests.cluster.harness import Machine, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")

STEPS = PLANS["handoff"]
HARMS = ("the outgoing machine dies", "the incoming machine dies", "the tunnel is cut")
TURNING_BACK = STEPS[: STEPS.index("yielded")]
"""At these the outgoing machine still holds the lease."""


@pytest.mark.parametrize("embedded", [False, True], ids=["path hub", "embedded hub"])
def test_a_handoff_broken_at_any_step_leaves_one_machine_awake_and_loses_nothing(
    embedded: bool, tmp_path: Path, long_run: bool
) -> None:
    """In a short run each step is broken in one way; with ``--long`` in every way."""
    world = World(tmp_path, 2, seed=0, embedded=embedded)
    holdings = {machine.nickname: Holding(machine) for machine in world.cluster.machines}
    try:
        world.start()
        with world.talking(30):
            for number, (step, harm) in enumerate(product(STEPS, HARMS)):
                if long_run or number % 4 == int(embedded):
                    break_at(world, holdings, step, harm)
        violations = world.judge()
        assert not violations, world.report(violations)
    finally:
        world.close()


def break_at(world: World, holdings: dict[str, Holding], step: str, harm: str) -> None:
    """Begin a handoff, break it at a step, look who is awake, and make everything whole again."""
    machines = world.cluster.machines
    source, target = sorted(machines, key=lambda machine: not machine.is_awake())
    epoch = source.api.health().epoch
    with Asking(source, target) as asking, holdings[source.nickname].at(f"handoff {step}", asking.repeat):
        world.note(f"{source.nickname} → {target.nickname} is at {step}: {harm}")
        if harm == HARMS[2]:
            world.outside.do(world.network.cut(source.nickname, target.nickname))
        else:
            (source if harm == HARMS[0] else target).kill()
    if harm == HARMS[0]:
        assert isinstance(asking.told.exception(), InstarError)
        source.start()
    elif step in TURNING_BACK and not lapsed(target, epoch):
        ended = asking.told.result()
        assert (ended.outcome, ended.steps[-1].step in TURNING_BACK) == ("aborted", True)
        assert ended.reason
        assert source.is_awake()
        assert source.api.health().epoch == epoch
    if harm == HARMS[1]:
        target.start()
    world.outside.do(world.network.heal([machine.nickname for machine in machines]))
    awake = wait_for(lambda: next(iter(world.cluster.awake()), None), 60)
    world.cluster.wait_in_sync(awake, [machine for machine in machines if machine is not awake], 60)


def lapsed(target: Machine, epoch: int) -> bool:
    """Whether the lease just ran out in a computer too busy for it, and the other machine took it by the
    rules: that has nothing to do with the handoff."""
    if not target.alive:
        return False
    return any((row.epoch, row.reason) == (epoch + 1, "failover") for row in target.api.lease().history)


class Asking:
    """Asks a machine to hand over, again if it aborted by itself because the computer was too busy."""

    def __init__(self, source: Machine, target: Machine) -> None:
        self._source = source
        self._target = target
        self._pool = ThreadPoolExecutor(1)
        self.told = self._ask()

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown()

    def repeat(self) -> None:
        """If the last one has ended, ask once more."""
        if self.told.done():
            self.told = self._ask()

    def _ask(self) -> Future[t.HandoffResult]:
        return self._pool.submit(self._source.api.handoff, t.HandoffRequest(self._target.nickname))
