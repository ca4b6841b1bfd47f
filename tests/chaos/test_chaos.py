"""A short run of chaos; ``python -m tests.chaos`` is the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.world import World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")


@pytest.mark.parametrize(("machines", "seed"), [(2, 2), (3, 3)])
def test_whatever_breaks_each_message_is_answered_once_in_order(
    machines: int, seed: int, tmp_path: Path
) -> None:
    world = World(tmp_path, machines, seed)
    try:
        world.start()
        violations = world.run(seconds=14)
        assert len(world.history.sent) > 20
        assert not violations, world.report(violations)
    finally:
        world.close()
