"""A machine that takes over from the bench does not know all that was answered: what it says and does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.world import World
from tests.cluster.harness import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")

BENCH_TTL_MS = 15_000
UNKNOWABLE = {"two-answers", "order", "conversation"}
"""What cannot be kept: a repeated key is answered again, and what only the dead machine had comes late."""


def test_a_takeover_from_the_bench_loses_nothing_and_doubles_nothing_that_a_receiver_can_tell(
    tmp_path: Path, long_run: bool
) -> None:
    if not long_run:
        pytest.skip("waits out the bench: --long")
    world = World(tmp_path, 2, seed=0, bench_ttl_ms=BENCH_TTL_MS)
    try:
        take_over_from_the_bench(world)
        violations = [violation for violation in world.judge() if violation.rule not in UNKNOWABLE]
        assert not violations, world.report(violations)
    finally:
        world.close()


def take_over_from_the_bench(world: World) -> None:
    world.start()
    desk, mini = world.cluster.machines
    world.send(desk, "both", 0)
    wait_for(lambda: "both" in world.sink.answered())
    mini.kill()
    world.send(desk, "alone", 1)  # acknowledged by desk alone, once mini is benched
    wait_for(lambda: "alone" in world.sink.answered())
    desk.freeze()  # it has more to say, and nobody hears it
    mini.start()
    wait_for(mini.is_awake, 60)
    wait_for(lambda: "incomplete" in {alert.code for alert in mini.api.health().alerts})
    world.send(mini, "alone", 1)  # it cannot know that this was answered: it answers, under the same id
    world.send(mini, "later", 2)
    wait_for(lambda: "later" in world.sink.answered())
    desk.thaw()
    wait_for(lambda: "incomplete" not in {alert.code for alert in mini.api.health().alerts})
