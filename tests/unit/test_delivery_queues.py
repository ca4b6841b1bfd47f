"""The queues of the holder: order, holding, dropping, and looking again."""

from __future__ import annotations

import asyncio

from instar_node.delivery.topic_queues import TopicQueues
from tests.unit.delivery_world import until


class Handler:
    """Notes what it is given, and lets the test hold it up."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.queues = TopicQueues(self)

    async def __call__(self, key: str) -> None:
        self.begun.append(key)
        if key == "bad":
            raise RuntimeError("a bug")
        await self.gate.wait()
        self.ended.append(key)


async def test_a_topic_goes_by_line_number_whatever_came_first() -> None:
    handler = Handler()
    handler.queues.hold()
    for line, key in ((3, "c"), (1, "a"), (2, "b")):
        handler.queues.put("t", line, key)
    handler.queues.release()
    await until(lambda: handler.ended == ["a", "b", "c"])


async def test_a_waiting_message_is_queued_once() -> None:
    handler = Handler()
    handler.queues.hold()
    for _ in range(3):
        handler.queues.put("t", 1, "a")
    handler.queues.release()
    await handler.queues.idle()
    assert handler.begun == ["a"]


async def test_a_message_put_while_under_way_is_looked_at_once_more() -> None:
    handler = Handler()
    handler.gate.clear()
    handler.queues.put("t", 1, "a")
    handler.queues.put("t", 2, "b")
    await until(lambda: handler.begun)
    for _ in range(3):
        handler.queues.put("t", 1, "a")
    handler.gate.set()
    await handler.queues.idle()
    assert handler.begun == ["a", "a", "b"]


async def test_a_dropped_message_ends_and_the_next_one_goes_on() -> None:
    handler = Handler()
    handler.gate.clear()
    for line, key in enumerate("abc"):
        handler.queues.put("t", line, key)
    await until(lambda: handler.begun)
    handler.queues.drop("a")
    handler.queues.drop("b")
    handler.gate.set()
    await handler.queues.idle()
    assert (handler.begun, handler.ended) == (["a", "c"], ["c"])


async def test_clearing_stops_at_once_and_the_same_messages_may_come_again() -> None:
    handler = Handler()
    handler.gate.clear()
    handler.queues.put("t", 1, "a")
    handler.queues.put("t", 2, "b")
    await until(lambda: handler.begun)
    handler.queues.clear()
    assert handler.queues.active == {}
    handler.gate.set()
    handler.queues.put("t", 1, "a")
    await until(lambda: handler.ended == ["a"])
    await handler.queues.idle()
    assert handler.begun == ["a", "a"]


async def test_a_bug_in_one_message_does_not_stop_its_topic() -> None:
    handler = Handler()
    handler.queues.put("t", 1, "bad")
    handler.queues.put("t", 2, "good")
    await until(lambda: handler.ended == ["good"])
