"""The shared state between whole nodes: edits here appear there, once, whoever is awake."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from instar_node.node import Node
from tests.unit.node_world import pair, until


def has(path: Path, text: str) -> Callable[[], bool]:
    return lambda: path.is_file() and path.read_text() == text


async def settled(*nodes: Node) -> None:
    """All have the same newest state, and nothing waits anywhere."""

    async def equal() -> bool:
        views = [await node.api.sync() for node in nodes]
        return len({view.head for view in views}) == 1 and all(view.state == "in-sync" for view in views)

    await until(equal)


async def test_an_edit_of_the_awake_machine_appears_on_the_standby(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        here, there = tmp_path / "desk" / "state", tmp_path / "mini" / "state"
        (here / "notes").mkdir()
        (here / "notes" / "plan ü.md").write_text("the plan\n")
        await until(has(there / "notes" / "plan ü.md", "the plan\n"))
        await settled(desk, mini)
        assert (await desk.api.sync()).writes
        view = await mini.api.sync()
        assert (view.writes, view.signed_by, view.refused) == (False, desk.machine_id, [])


async def test_an_edit_of_a_standby_is_queued_and_arrives_once(tmp_path: Path) -> None:
    async with pair(tmp_path, hub=False) as (desk, mini):
        here, there = tmp_path / "desk" / "state", tmp_path / "mini" / "state"
        await settled(desk, mini)
        (there / "MEMORY.md").write_text("from mini\n")
        await until(has(here / "MEMORY.md", "from mini\n"))
        await settled(desk, mini)
        assert sorted(os.listdir(here)) == sorted(os.listdir(there))
