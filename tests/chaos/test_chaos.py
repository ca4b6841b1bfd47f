"""A short run of chaos; ``python -m tests.chaos`` is the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.world import World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")


@pytest.mark.parametrize(
    ("machines", "seed", "seconds", "embedded", "only"),
    [
        (2, 2, 5, True, ()),
        (3, 3, 10, False, ()),
        (3, 4, 8, False, ("crash", "unwell_receiver")),
        (2, 5, 8, False, ("torn_write", "full_disk", "locked_database")),
    ],
    ids=["two machines without a hub", "three machines", "kills alone", "disks alone"],
)
def test_whatever_breaks_each_message_is_answered_once_in_order(
    machines: int, seed: int, seconds: int, embedded: bool, only: tuple[str, ...], tmp_path: Path
) -> None:
    world = World(tmp_path, machines, seed, embedded=embedded)
    try:
        world.start()
        violations = world.run(seconds, only=only)
        assert {sent.topic for sent in world.history.sent} == set(world.topics)
        assert not violations, world.report(violations)
    finally:
        world.close()
