"""A node that hangs for longer than its lease, and goes on, does not know that it did: it must do nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.sink import Mood
from tests.chaos.world import World, ledger_entries
from tests.cluster.harness import Machine, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wires are told apart by /proc/net/tcp")

FACTS = {"committed", "delivered"}
"""What a receiver has confirmed may be written down in the old epoch: it is a fact, and hides nothing."""
MOODS: tuple[Mood, ...] = ("well", "slow-to-answer")


def test_a_node_that_hung_past_its_ttl_does_nothing_in_the_old_epoch(tmp_path: Path) -> None:
    world = World(tmp_path, 2, seed=1)
    try:
        world.start()
        with world.talking(20):
            for mood in MOODS:
                hang_and_go_on(world, mood)
    finally:
        world.close()
    assert world.history.unanswered == []


def hang_and_go_on(world: World, mood: Mood) -> None:
    """Freeze the awake machine in the middle of its work until the other has taken over, and look."""
    old, new = sorted(world.cluster.machines, key=lambda machine: not machine.is_awake())
    world.cluster.wait_in_sync(old, [new])
    epoch = old.api.health().epoch
    world.sink.mood = mood
    wanted = len(world.history.attempts) + 5
    wait_for(lambda: len(world.history.attempts) >= wanted)
    old.freeze()
    world.sink.mood = "well"
    before = entries(old, epoch)
    edited = f"while it hung {epoch}.md"
    (old.home.state / edited).write_text("whose turn is it to write this?\n")
    wait_for(new.is_awake)
    thawed = time.monotonic()
    old.thaw()
    wait_for(partial(knows_the_other, old, new))
    assert not old.is_awake()
    world.cluster.wait_in_sync(new, [old])
    record = register(world)
    assert (record["epoch"], record["holder"]) == (epoch + 1, new.id)
    assert [a for a in world.history.attempts if a.arrived > thawed and a.epoch <= epoch] == []
    assert [began for began in beginnings(world, epoch) if began > thawed] == []
    assert {kind for seq, kind in entries(old, epoch) if (seq, kind) not in before} <= FACTS
    assert wait_for(lambda: epoch_of_commit(world, edited)) == epoch + 1


def knows_the_other(old: Machine, new: Machine) -> bool:
    return old.api.lease().holder == new.id


def register(world: World) -> Any:
    show = ["git", "-C", world.cluster.hub, "show", "refs/instar/lease:lease.json"]
    return json.loads(subprocess.run(show, capture_output=True, check=True).stdout)


def epoch_of_commit(world: World, path: str) -> int | None:
    """The epoch in which a file of the state was written, as the hub has it; ``None`` while it has not."""
    show = ["git", "-C", world.cluster.hub, "log", "-1", "--format=%B", "refs/instar/state", "--", path]
    said = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^Instar-Epoch: (\d+)$", said, re.MULTILINE)
    return int(found[1]) if found else None


def entries(machine: Machine, epoch: int) -> list[tuple[int, str]]:
    """Number and kind of every entry of an epoch in a machine's ledger, as it is on its disk."""
    return [(seq, kind) for entry_epoch, seq, kind, _ in ledger_entries(machine) if entry_epoch == epoch]


def beginnings(world: World, epoch: int) -> list[float]:
    """When each run of an epoch showed its first sign of life, on whatever machine."""
    first: dict[str, float] = {}
    for beat in world.beats():
        if beat.epoch == epoch:
            first.setdefault(beat.run, beat.at)
    return list(first.values())
