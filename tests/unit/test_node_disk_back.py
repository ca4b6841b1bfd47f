"""A whole node whose database was restored from an old copy, or damaged, while another machine remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_node.events import Event
from tests.unit.channel_sinks import WebhookSink
from tests.unit.node_world import a_home, in_sync, join, lines, running, until


async def test_an_awake_node_with_a_restored_database_gives_no_answer_twice(tmp_path: Path) -> None:
    async with WebhookSink().serve() as sink:
        hook = f'[channels.webhook]\nurl = "{sink.url}"\nidempotent = false\n'
        desk_home, mini_home = (a_home(tmp_path, name, hook) for name in ("desk", "mini"))
        async with running(desk_home) as desk:
            await join(desk, mini_home)
        old = desk_home.database.read_bytes()
        async with running(mini_home) as mini:
            async with running(desk_home) as desk:
                await in_sync(desk, mini)
                await desk.api.send(t.SendRequest("t", "hello", "k1"))
                await until(lambda: lines(desk, "t"))
                await until(lambda: len(desk._parts.delivery.ledger.log.state.open) == 0)
                head = desk._parts.delivery.ledger.log.state.head
                await until(lambda: mini._parts.delivery.ledger.log.state.head >= head)
            for file in desk_home.database.parent.glob("mesh.db*"):
                file.unlink()
            desk_home.database.write_bytes(old)
            told: list[Event] = []
            async with running(desk_home) as desk:
                desk._parts.base.events.listen(told.append)
                await until(lambda: lines(desk, "t"))
                again = await desk.api.send(t.SendRequest("t", "hello", "k1"))
                assert again.duplicate
                assert await lines(desk, "t") == [("user", "hello"), ("agent", "hello")]
                codes = [event.data.get("code") for event in told]
                assert "ledger-went-back" in codes
        assert sink.attempts == ["hello"]


async def test_a_damaged_database_is_refused_and_moved_aside_as_told_filled_again_by_the_others(
    tmp_path: Path,
) -> None:
    desk_home, mini_home = (a_home(tmp_path, name) for name in ("desk", "mini"))
    async with running(desk_home) as desk:
        await join(desk, mini_home)
        async with running(mini_home) as mini:
            await in_sync(desk, mini)
            await desk.api.send(t.SendRequest("t", "hello", "k1"))
            await until(lambda: lines(mini, "t"))
        damage(mini_home.database)
        with pytest.raises(InstarError) as refused:
            async with running(mini_home):
                pass
        assert refused.value.code == "database-damaged"
        assert f"mv {mini_home.database} " in refused.value.hint
        mini_home.database.rename(mini_home.path / "mesh.db.damaged")
        async with running(mini_home) as mini:
            await until(lambda: lines(mini, "t"))
            assert (await mini.api.wakeup(t.WakeupRequest())).outcome == "awake"
            assert await lines(mini, "t") == [("user", "hello"), ("agent", "hello")]
            assert (await mini.api.send(t.SendRequest("t", "hello", "k1"))).duplicate


def damage(database: Path) -> None:
    """A few bytes of every page but the first are not what they were."""
    data = bytearray(database.read_bytes())
    for page in range(4_096, len(data), 4_096):
        data[page : page + 16] = b"\xff" * 16
    database.write_bytes(data)
