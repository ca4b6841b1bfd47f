"""Random edits, cuts, changes of holder and restarts: in the end all machines agree, nothing anybody wrote is
gone, and nobody is accused. ``SYNC_SEEDS=20`` runs more of it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pygit2
import pytest

from tests.unit.sync_world import Machine, World, a_world

SEEDS = range(int(os.environ.get("SYNC_SEEDS", "1")))
PATHS = ("notes.md", "plan.md", "d/one.txt", "d/two.txt")


class Chaos:
    """One run."""

    def __init__(self, world: World, machines: list[Machine], seed: int) -> None:
        self.world = world
        self.machines = machines
        self.random = random.Random(seed)
        self.written: set[bytes] = set()

    async def step(self) -> None:
        choices = [self.edit] * 6 + [self.cut, self.mend, self.hand_over, self.crash, self.remove]
        await self.random.choice(choices)()
        for machine in self.machines:
            await machine.sync.flush(0.2)

    async def edit(self) -> None:
        machine, path = self.random.choice(self.machines), self.random.choice(PATHS)
        content = f"{machine.name} wrote {len(self.written)}\n"
        machine.write(path, content)
        assert await machine.sync.flush(10) or machine.lease.acting_epoch() is not None
        self.written.add(content.encode())

    async def remove(self) -> None:
        machine, path = self.random.choice(self.machines), self.random.choice(PATHS)
        (machine.state / path).unlink(missing_ok=True)

    async def cut(self) -> None:
        one, other = self.random.sample(self.machines, 2)
        self.world.net.cut(one.id, other.id)

    async def mend(self) -> None:
        for one in self.machines:
            for other in self.machines:
                if one is not other:
                    self.world.net.mend(one.id, other.id)

    async def hand_over(self) -> None:
        """A new holder that the old one hears of at once, or only much later: then it has lapsed."""
        holder = self.random.choice(self.machines)
        deaf = tuple(m for m in self.machines if m is not holder and self.random.random() < 0.3)
        for machine in deaf:
            machine.lease.valid = False
        self.world.elect(holder, deaf=deaf)

    async def crash(self) -> None:
        machine = self.random.choice(self.machines)
        await machine.sync.stop()
        await machine.start()

    async def heal(self) -> None:
        await self.mend()
        for machine in self.machines:
            machine.lease.valid = True
            machine.lease.hear()
        await self.world.in_step()


def everything_kept(machines: list[Machine]) -> set[bytes]:
    """All contents in all repositories."""
    found: set[bytes] = set()
    for machine in machines:
        repository = pygit2.Repository(str(machine.home.state_repository))
        blobs = (repository[oid] for oid in repository.odb)
        found |= {blob.data for blob in blobs if isinstance(blob, pygit2.Blob)}
    return found


@pytest.mark.parametrize("hub", [True, False], ids=["hub", "tunnels"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_all_agree_in_the_end_and_nothing_is_lost(
    tmp_path: Path, seed: int, hub: bool
) -> None:
    async with a_world(tmp_path, "desk", "mini", "server", hub=hub) as (world, *machines):
        chaos = Chaos(world, machines, seed)
        for _ in range(25):
            await chaos.step()
        await chaos.heal()
        assert chaos.written <= everything_kept(machines)
        assert [line for machine in machines for line in machine.facts.refused] == []
