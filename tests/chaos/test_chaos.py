"""A short run of chaos; ``python -m tests.chaos`` is the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.world import World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")


@pytest.mark.parametrize(
    ("machines", "seed", "only"),
    [(2, 2, ()), (3, 3, ()), (3, 4, ("crash", "unwell_receiver"))],
    ids=["two machines", "three machines", "kills alone"],
)
def test_whatever_breaks_each_message_is_answered_once_in_order(
    machines: int, seed: int, only: tuple[str, ...], tmp_path: Path
) -> None:
    world = World(tmp_path, machines, seed)
    try:
        world.start()
        violations = world.run(seconds=8, only=only)
        assert len(world.history.sent) > 20
        assert not violations, world.report(violations)
    finally:
        world.close()
