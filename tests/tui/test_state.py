"""The one holder of data: fetched once, kept fresh by events, mended after a daemon went away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from instar_node.errors import InstarError
from instar_tui.state import MeshState
from tests.tui.fake_node import DESK, MINI, FakeConnection, FakeNode


class Watched:
    """A state that counts what it told its listener and how often it asked the node."""

    def __init__(self, node: FakeNode) -> None:
        self.told: list[frozenset[str]] = []
        self.fetches = 0
        plain = node.status

        async def counted() -> object:
            self.fetches += 1
            return await plain()

        node.status = counted  # type: ignore[method-assign, assignment]

        async def connect() -> FakeConnection:
            return FakeConnection(node)

        self.state = MeshState(connect)
        self.state.listener = self.told.append


async def until(met: Callable[[], object], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(node: FakeNode) -> AsyncIterator[Watched]:
    watched = Watched(node)
    task = asyncio.create_task(watched.state.run())
    try:
        await until(lambda: watched.state.status is not None and len(watched.state.events) == 9)
        await asyncio.sleep(0.6)  # the history of the hub counts as bulk: let its one fetch pass
        yield watched
    finally:
        task.cancel()


async def test_the_history_of_the_hub_fills_the_feed(node: FakeNode) -> None:
    async with following(node) as watched:
        assert [event.kind for event in watched.state.events][:3] == ["lease", "pair", "pair"]


async def test_a_burst_of_messages_costs_at_most_two_fetches_a_second(node: FakeNode) -> None:
    async with following(node) as watched:
        before, began = watched.fetches, asyncio.get_running_loop().time()
        for number in range(200):
            node.say("message", f"42: {number}", topic="42")
            await asyncio.sleep(0.005)
        seconds = asyncio.get_running_loop().time() - began
        assert 1 <= watched.fetches - before <= 2 * seconds + 2


async def test_a_lease_event_is_fetched_at_once(node: FakeNode) -> None:
    async with following(node) as watched:
        node.epoch = 8
        node.say("lease", "mini is awake, epoch 8")
        await until(lambda: watched.state.status is not None and watched.state.status.lease.epoch == 8, 0.3)
        assert "lease" in watched.told[-1]


async def test_messages_of_the_open_topic_do_not_wait_for_the_bulk(node: FakeNode) -> None:
    async with following(node) as watched:
        watched.state.watched_topic = "42"
        node.say("message", "other", topic="taxes")
        await until(lambda: len(watched.state.events) == 10)
        before = watched.fetches
        node.say("message", "42: here", topic="42")
        await until(lambda: watched.fetches > before, 0.3)


async def test_a_daemon_that_goes_away_is_said_and_taken_up_again(node: FakeNode) -> None:
    async with following(node) as watched:
        node.failing = InstarError("node-not-running", "no node runs here", "start one")
        node.say("lease", "last words")
        await until(lambda: watched.state.link == "lost")
        assert (watched.state.problem, watched.state.hint) == ("no node runs here", "start one")
        assert watched.state.status is not None, "the last picture stays"
        node.failing = None
        await until(lambda: watched.state.link == "live")
        node.epoch = 9
        node.say("lease", "epoch 9")
        await until(lambda: watched.state.status is not None and watched.state.status.lease.epoch == 9)


async def test_a_node_that_does_not_answer_is_said_to_be_waited_for_and_then_lost(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_tui.state.SLOW_S", 0.05)
    monkeypatch.setattr("instar_tui.state.ANSWER_WITHIN_S", 0.2)
    async with following(node) as watched:
        node.hung.clear()
        node.say("lease", "something")
        await until(lambda: watched.state.link == "waiting")
        await until(lambda: watched.state.link == "lost")
        assert watched.state.problem == "the node has not answered for 0.2 s"
        node.hung.set()
        await until(lambda: watched.state.link == "live")


async def test_a_silent_stream_does_not_hide_a_dead_daemon(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_tui.state.SILENCE_S", 0.05)
    async with following(node) as watched:
        node.failing = InstarError("node-not-running", "gone")
        await until(lambda: watched.state.link == "lost", 1.0)


async def test_the_lease_drains_between_two_pictures(node: FakeNode) -> None:
    async with following(node) as watched:
        first = watched.state.valid_for_ms()
        await asyncio.sleep(0.05)
        assert 0 < watched.state.valid_for_ms() < first
        assert watched.state.draining


async def test_nothing_drains_where_the_lease_does_not_expire() -> None:
    async with following(FakeNode(1, expires=False)) as watched:
        first = watched.state.valid_for_ms()
        await asyncio.sleep(0.02)
        assert watched.state.valid_for_ms() == first == 6_000
        assert not watched.state.draining


async def test_machines_come_with_this_one_first_and_the_absent_last(node: FakeNode) -> None:
    node.machines_.reverse()
    async with following(node) as watched:
        assert [m.nickname for m in watched.state.machines()] == ["desk", "attic", "mini", "laptop"]
        assert watched.state.worst_lag_ms() == 40
        assert watched.state.nickname(MINI) == "mini"
        assert watched.state.me() is not None
        assert watched.state.me().machine_id == DESK  # type: ignore[union-attr]


async def test_a_start_that_failed_does_not_keep_the_program_from_ending() -> None:
    async def connect() -> FakeConnection:
        raise ImportError("broken")

    state = MeshState(connect)
    task = asyncio.create_task(state.run())
    await until(lambda: state.link == "lost")
    assert state.problem == "broken"
    task.cancel()
    await state.close()


async def test_a_node_that_is_still_starting_is_stopped_too() -> None:
    started, proceed = asyncio.Event(), asyncio.Event()
    connection = FakeConnection(FakeNode())

    async def connect() -> FakeConnection:
        started.set()
        await proceed.wait()
        return connection

    state = MeshState(connect)
    task = asyncio.create_task(state.run())
    await started.wait()
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, proceed.set)
    await state.close()
    assert connection.closed
