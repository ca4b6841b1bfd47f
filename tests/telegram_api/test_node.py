"""A whole node as a Telegram bot: against an emulator not written here, and against a strict one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from instar_node.api import types as t
from instar_node.node import Node
from tests.telegram_api import running as emulator_running
from tests.telegram_api import unavailable
from tests.unit.channel_sinks import TOKEN, BotApiServer
from tests.unit.node_world import a_home, in_sync, join, running

WAIT_S = 30.0


def settings(url: str) -> str:
    return f'[channels.telegram]\ntoken_secret = "BOT"\napi_base = "{url}"\nallow_users = [7]\n'


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_node_answers_as_a_bot_of_an_independent_emulator(tmp_path: Path) -> None:
    if (why := await asyncio.to_thread(unavailable)) is not None:
        pytest.skip(f"telegram-test-api cannot run here: {why}")
    with emulator_running() as url:
        async with (
            running(a_home(tmp_path, "desk", settings(url))) as node,
            aiohttp.ClientSession() as person,
        ):
            await node.api.set_secret("BOT", t.SecretValue(TOKEN))
            for user, text in ((7, "hello"), (666, "hello?")):
                body = {
                    "botToken": TOKEN,
                    "from": {"id": user, "first_name": "Ada", "username": "ada", "is_bot": False},
                    "chat": {"id": user, "first_name": "Ada", "type": "private"},
                    "date": 1,
                    "text": text,
                }
                async with person.post(f"{url}/sendMessage", json=body) as answer:
                    assert (await answer.json())["ok"]
            async with asyncio.timeout(WAIT_S):
                while not (said := await heard_in(person, url, 7)):
                    await asyncio.sleep(0.05)
            assert said == ["hello"]
            assert await heard_in(person, url, 666) == []
            async with asyncio.timeout(WAIT_S):
                while len(lines := (await node.api.messages("tg:7")).messages) < 2:
                    await asyncio.sleep(0.02)
            assert [(line.role, line.text) for line in lines] == [("user", "hello"), ("agent", "hello")]
            assert "unknown-sender" in [alert.code for alert in (await node.api.health()).alerts]


async def heard_in(person: aiohttp.ClientSession, url: str, chat: int) -> list[str]:
    """What the bot said in a chat and the person has not read yet."""
    async with person.post(f"{url}/getUpdates", json={"token": TOKEN, "chatId": chat}) as answer:
        return [update["message"]["text"] for update in (await answer.json())["result"]]


@pytest.fixture
async def far() -> AsyncIterator[BotApiServer]:
    async with BotApiServer().serve() as server:
        yield server


async def test_a_handoff_carries_the_bot_over_and_the_new_holder_reads_on(
    tmp_path: Path, far: BotApiServer
) -> None:
    hub = {"hub": str(tmp_path / "hub.git")}
    desk_home, mini_home = (a_home(tmp_path, name, settings(far.url)) for name in ("desk", "mini"))
    async with running(desk_home, **hub) as desk:
        await desk.api.set_secret("BOT", t.SecretValue(TOKEN))
        await join(desk, mini_home)
        async with running(mini_home) as mini:
            await in_sync(desk, mini)
            await far.say("one")
            await until(lambda: far.texts == ["one"])
            await wake(mini)
            far.polls.clear()
            await far.say("two")
            await until(lambda: far.texts == ["one", "two"])
            assert all(poll.get("offset", 0) >= 1_001 for poll in far.polls)
            async with asyncio.timeout(WAIT_S):
                while len(lines := (await mini.api.messages("tg:7")).messages) < 4:
                    await asyncio.sleep(0.02)  # a reply is a line once it is marked as sent
            assert [line.text for line in lines] == ["one", "one", "two", "two"]


async def wake(node: Node) -> None:
    outcome = await node.api.wakeup(t.WakeupRequest())
    assert outcome.outcome == "awake"
