"""What is normal after a change of holder is counted, shown, and never an alarm."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.coordination.record import KnownRecord
from instar_node.node import Node
from tests.unit.node_world import in_sync, pair, until


async def counted(node: Node, name: str) -> int:
    return (await node.api.lease()).counters.get(name, 0)


async def all_is_well(*nodes: Node) -> None:
    """Nobody has stopped (that would last), and nobody has anything to tell once a busy computer is calm."""
    for node in nodes:
        assert (await node.api.health()).split_brain is None

        async def calm(node: Node = node) -> bool:
            health = await node.api.health()
            return health.status == "ok" and not health.alerts

        await until(calm)


async def handed_over(giver: Node, taker: Node) -> None:
    await in_sync(giver, taker)
    assert (await giver.api.handoff(t.HandoffRequest(taker.machine_id))).outcome == "awake"
    await in_sync(taker, giver)


async def test_a_record_that_comes_late_and_a_racer_that_loses_are_counted(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        lease = desk._parts.base.lease
        old = lease.known
        assert old is not None
        await handed_over(desk, mini)

        lease.transport.notify(mini.machine_id, old)
        await until(lambda: counted(mini, "late_records"))

        record = lease.lease.contender_record(reason="failover", at="", nonce="late")
        await lease.swap_now(record, "contend", old.version)  # as who read the register before the handoff
        assert await counted(desk, "swaps_lost")
        assert (await mini.api.health()).role == "awake"
        await all_is_well(desk, mini)


async def test_a_read_that_a_takeover_overtakes_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini):
        lease = mini._parts.base.lease
        store = await lease.hubs.at(lease.lease.hub)
        real, has_read, may_return = store.read, asyncio.Event(), asyncio.Event()

        async def slow_to_return() -> KnownRecord | None:
            seen = await real()
            has_read.set()
            await may_return.wait()
            return seen

        with monkeypatch.context() as slow:
            slow.setattr(store, "read", slow_to_return)
            lease.read_now()
            await has_read.wait()
        await handed_over(desk, mini)
        may_return.set()
        await until(lambda: counted(mini, "reads_overtaken"))
        assert lease.lease.suspicion is None
        await all_is_well(desk, mini)
