"""Whole nodes whose lease meets a disk that refuses for a moment, or a system that runs out of something."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.coordination import lease_driver
from instar_node.coordination.lease_service import LeaseService
from instar_node.coordination.lease_store import SwapOutcome
from instar_node.coordination.record import KnownRecord
from instar_node.errors import InstarError
from instar_node.node import Node
from instar_node.storage.atomic import disk_full, write_atomic
from tests.unit.node_world import pair, until


class FullDisk:
    """Refuses to store the lease of some machines."""

    def __init__(self) -> None:
        self.full: set[Node] = set()
        self.refused = 0

    def write(self, path: Path, data: bytes) -> None:
        for node in self.full:
            if path == node._parts.base.lease._durable_path:
                self.refused += 1
                raise disk_full(path)
        write_atomic(path, data)


class Swaps:
    """While entered: what a machine sends to its register. The first ones fail, each in its way."""

    def __init__(self, lease: LeaseService, *failures: BaseException) -> None:
        self._store = lease.hubs.store(lease.hub)
        self._failures = list(failures)
        self.sent: list[tuple[str | None, str]] = []

    def __enter__(self) -> Swaps:
        self._store.compare_and_swap, self._swap = self.swap, self._store.compare_and_swap  # type: ignore
        return self

    def __exit__(self, *failure: object) -> None:
        self._store.compare_and_swap = self._swap  # type: ignore[method-assign]

    async def swap(self, expected: str | None, candidate: KnownRecord) -> SwapOutcome:
        self.sent.append((expected, candidate.version))
        if self._failures:
            raise self._failures.pop(0)
        return await self._swap(expected, candidate)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FullDisk]:
    made = FullDisk()
    monkeypatch.setattr(lease_driver, "write_atomic", made.write)
    yield made
    made.full.clear()


async def test_a_holder_that_cannot_note_its_stepping_down_is_awake_again_when_it_can(
    disk: FullDisk, tmp_path: Path
) -> None:
    async with pair(tmp_path, hub=False) as (desk, mini):
        disk.full.add(desk)
        with pytest.raises(InstarError):
            await desk._parts.base.lease.pass_to(mini.machine_id, 5)
        assert desk._parts.base.lease.acting_epoch() is None
        tried = disk.refused
        await asyncio.sleep(1)
        assert disk.refused - tried < 20
        disk.full.clear()
        await until(lambda: desk._parts.base.lease.acting_epoch() == 2)
        assert (await desk.api.handoff(t.HandoffRequest("mini"))).outcome == "awake"


async def test_a_successor_that_cannot_note_the_closing_opens_from_it_when_it_can(
    disk: FullDisk, tmp_path: Path
) -> None:
    async with pair(tmp_path, hub=False) as (desk, mini):
        disk.full.add(mini)
        with pytest.raises(InstarError, match="confirmed"):
            await desk._parts.base.lease.pass_to(mini.machine_id, 2)
        assert disk.refused < 100
        disk.full.clear()
        await until(lambda: mini._parts.base.lease.acting_epoch() == 2)


async def test_a_swap_that_fails_unforeseen_is_sent_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        lease = desk._parts.base.lease
        before = lease.lease.order
        with Swaps(lease, RuntimeError("can't start new thread"), asyncio.CancelledError()) as swaps:
            lease.bench(mini.machine_id, "too slow to keep up")
            await until(lambda: lease.lease.order > before)
        assert swaps.sent[:3] == [swaps.sent[0]] * 3
        assert lease.acting_epoch() == 1
