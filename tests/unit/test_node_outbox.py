"""Replies of unknown fate, through a whole node: held until decided, or sent again where that is harmless."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_node.node import Node
from instar_node.storage.home import Home
from tests.unit.channel_sinks import WebhookSink
from tests.unit.node_world import a_home, running


@pytest.fixture
async def sink() -> AsyncIterator[WebhookSink]:
    async with WebhookSink().serve() as served:
        yield served


def home_with(folder: Path, sink: WebhookSink, how: str) -> Home:
    return a_home(folder, "desk", f'[channels.webhook]\nurl = "{sink.url}"\n{how}\n')


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def outbox(node: Node) -> list[t.OutboxItem]:
    return (await node.api.outbox()).items


async def held(node: Node) -> t.OutboxItem:
    """The reply that waits for a decision."""
    async with asyncio.timeout(20):
        while not (items := [item for item in await outbox(node) if item.state == "undecided"]):
            await asyncio.sleep(0.01)
    [item] = items
    return item


async def answers(node: Node, count: int) -> list[str]:
    """The answers that are out, once there are so many and nothing is in the outbox any more."""
    out: list[str] = []
    async with asyncio.timeout(20):
        while len(out) < count or await outbox(node):
            lines = (await node.api.messages("t")).messages
            out = [line.text for line in lines if line.role == "agent"]
            await asyncio.sleep(0.01)
    return out


async def cut_off_in_mid_send(home: Home, sink: WebhookSink) -> None:
    """The receiver takes the reply; the node is gone before it hears so."""
    async with running(home) as node:
        sink.mischief = ["late"]
        await node.api.send(t.SendRequest("t", "hello", "k1"))
        await until(lambda: sink.texts == ["hello"])
    sink.gate.set()


@pytest.mark.parametrize(("action", "attempts"), [("send", 2), ("drop", 1)])
async def test_a_reply_of_unknown_fate_waits_for_a_person_who_decides_once(
    tmp_path: Path, sink: WebhookSink, action: str, attempts: int
) -> None:
    home = home_with(tmp_path, sink, "idempotent = false")
    await cut_off_in_mid_send(home, sink)
    async with running(home) as node:
        item = await held(node)
        assert (item.topic, item.reason) == ("t", "webhook: nobody can say whether it was sent")
        assert "undecided" in [alert.code for alert in (await node.api.health()).alerts]
        await node.api.send(t.SendRequest("t", "goes on", "k2"))
        await until(lambda: sink.attempts[-1] == "goes on")
        assert len(sink.attempts) == 2
        await node.api.outbox_resolve(item.id, t.OutboxAction(action))  # type: ignore[arg-type]
        out = await answers(node, attempts)
        assert sink.attempts.count("hello") == attempts
        assert out == (["goes on", "hello"] if action == "send" else ["goes on"])
        with pytest.raises(InstarError, match="in the outbox") as gone:
            await node.api.outbox_resolve(item.id, t.OutboxAction("send"))
        assert gone.value.status == 404
        assert "undecided" not in [alert.code for alert in (await node.api.health()).alerts]
    async with running(home):
        assert sink.attempts.count("hello") == attempts


@pytest.mark.parametrize("how", ["", 'idempotent = false\nundecided = "resend"'])
async def test_it_is_sent_again_by_itself_where_that_is_harmless_or_wanted(
    tmp_path: Path, sink: WebhookSink, how: str
) -> None:
    home = home_with(tmp_path, sink, how)
    await cut_off_in_mid_send(home, sink)
    async with running(home) as node:
        assert await answers(node, 1) == ["hello"]
        assert sink.attempts == ["hello", "hello"]
        assert sink.texts == ["hello"]


async def test_an_answer_lost_on_the_way_back_is_not_sent_again_unasked(
    tmp_path: Path, sink: WebhookSink
) -> None:
    async with running(home_with(tmp_path, sink, "idempotent = false")) as node:
        sink.mischief = ["lose-answer"]
        await node.api.send(t.SendRequest("t", "hello", "k1"))
        await held(node)
        assert sink.attempts == ["hello"]


async def test_a_receiver_that_failed_for_certain_is_tried_again_without_asking(
    tmp_path: Path, sink: WebhookSink
) -> None:
    async with running(home_with(tmp_path, sink, "idempotent = false")) as node:
        sink.mischief = ["busy"]
        await node.api.send(t.SendRequest("t", "hello", "k1"))
        assert await answers(node, 1) == ["hello"]
        assert sink.texts == ["hello"]
