"""Markers for the bench: who comes from there knows what was answered, and answers none of it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar_node.delivery import checkpoint, unsaved
from instar_node.delivery.checkpoint import LedgerCheckpoints, decode_markers
from instar_node.delivery.rows import Rank
from instar_node.errors import InstarError
from tests.unit.delivery_world import World, running_world, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, "ab") as running:
        yield running


def checkpoints(world: World, name: str) -> LedgerCheckpoints:
    return LedgerCheckpoints(world[name].ledger, world[name].db)


async def take_over(world: World, blocks: dict[str, bytes]) -> int:
    """``a`` dies; ``b``, which had no rows since it was benched, takes over and reads the checkpoint."""
    await world["a"].kill()
    world["b"].incomplete = frozenset("a")
    world.lead("b", 2)
    return await checkpoints(world, "b").take_in("a", blocks)


async def test_what_was_answered_while_it_was_benched_is_not_answered_again(world: World) -> None:
    world.network.cut("a", "b")
    world.lead("a", 1)
    for key in ("k1", "k2"):
        await world["a"].delivery.submit("t", f"text of {key}", key)
    await until(lambda: len(world.receiver.taken) == 2)
    blocks = await checkpoints(world, "a").blocks()
    assert b"text of" not in b"".join(blocks.values())
    assert await take_over(world, blocks) == 2
    await world["b"].delivery.submit("t", "text of k1", "k1")
    assert await world["b"].state("t", "k1") in ("committed", "cursor_advanced")
    await world["b"].delivery.submit("t", "newer", "k3")
    await until(lambda: len(world.receiver.taken) == 3)
    assert [request.text for request in world["b"].agent.requests] == ["newer"]
    assert await checkpoints(world, "b").take_in("a", blocks) == 0


async def test_an_answer_that_may_have_been_sent_waits_for_a_person(world: World) -> None:
    world.network.cut("a", "b")
    world.lead("a", 1)
    world["a"].channel.before.clear()
    await world["a"].delivery.submit("t", "hello", "k1")
    await until(lambda: world["a"].ledger.outbox())
    await take_over(world, await checkpoints(world, "a").blocks())
    await world["b"].delivery.submit("t", "hello", "k1")
    assert await world["b"].state("t", "k1") == "undecided"
    assert world["b"].agent.requests == []


async def test_what_is_answered_and_written_in_a_round_while_it_is_read_shows_as_it_stands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lead("a", 1)
    machine = world["a"]
    machine.channel.before.clear()
    await machine.delivery.submit("t", "hello", "k1")
    await until(lambda: machine.ledger.outbox())
    read = machine.db.read

    async def read_later(job: Any) -> Any:
        monkeypatch.setattr(unsaved, "ROUND_ENTRIES", 1)
        machine.channel.before.set()
        await until(lambda: not machine.ledger.log.state.open)
        return await read(job)

    monkeypatch.setattr(machine.db, "read", read_later)
    blocks = await checkpoints(world, "a").blocks()
    [marker] = [marker for raw in blocks.values() for marker in decode_markers(raw)]
    assert marker.rank >= Rank.COMMITTED


async def test_only_the_newest_block_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "BLOCK", 16)
    world.lead("a", 1)
    seen: list[dict[str, bytes]] = []
    for n in range(12):
        await world["a"].delivery.submit("t", f"m{n}", f"k{n}")
        await until(lambda n=n: len(world.receiver.taken) == n + 1)
        await world["a"].ledger.settled()
        seen.append(await checkpoints(world, "a").blocks())
    before, after = seen[-2], seen[-1]
    assert len(after) > 2
    assert len({name for name in after if before.get(name) != after[name]}) <= 2
    monkeypatch.setattr(checkpoint, "BLOCKS", 1)
    assert len(await checkpoints(world, "a").blocks()) <= 2


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    with suppress(InstarError):  # anything else that is raised fails the test
        checkpoint.decode_markers(raw)
