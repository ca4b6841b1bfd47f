"""The event stream over HTTP and across threads: in order, none lost, resumed by number."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from instar_node.api import bridge, event_stream
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.api.bridge import BridgedNodeApi
from instar_node.api.endpoint import find_endpoint
from instar_node.api.http_client import HttpNodeApi
from instar_node.api.http_server import ApiServer
from instar_node.api.sse import EventParser, encode_event
from instar_node.errors import InstarError
from instar_node.events import Event
from instar_node.storage.home import Home
from tests.unit.fake_api import FakeNodeApi


@pytest.fixture
def api() -> FakeNodeApi:
    return FakeNodeApi()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
async def server(api: FakeNodeApi, home: Home) -> AsyncIterator[ApiServer]:
    server = ApiServer(api, home)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(home: Home) -> AsyncIterator[HttpNodeApi]:
    client = HttpNodeApi(home)
    yield client
    await client.close()


async def take(events: AsyncIterator[Event], count: int) -> list[int]:
    async with asyncio.timeout(5):
        return [(await anext(events)).n for _ in range(count)]


async def until_watched(api: FakeNodeApi) -> None:
    async with asyncio.timeout(5):
        while not api.hub.watched:
            await asyncio.sleep(0.005)


def test_the_parser_takes_events_cut_anywhere() -> None:
    events = [Event(n, "at", "lease", "line\nbreak\n\n", {"n": n}) for n in range(1, 4)]
    stream = b": hello\n\n" + b"".join(map(encode_event, events))
    for size in (1, 7, len(stream)):
        parser = EventParser()
        pieces = (stream[at : at + size] for at in range(0, len(stream), size))
        assert [event for piece in pieces for event in parser.feed(piece)] == events


async def test_events_arrive_in_order_and_after_the_number_asked_for(
    api: FakeNodeApi, server: ApiServer, client: HttpNodeApi
) -> None:
    for n in range(5):
        api.hub.publish("lease", str(n))
    events = client.events(after=2)
    assert await take(events, 3) == [3, 4, 5]
    api.hub.publish("lease")
    assert await take(events, 1) == [6]


async def test_the_header_of_a_reconnecting_reader_counts(
    api: FakeNodeApi, server: ApiServer, home: Home
) -> None:
    for n in range(5):
        api.hub.publish("lease", str(n))
    endpoint = find_endpoint(home)
    headers = {**endpoint.headers, "Last-Event-ID": "4"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{endpoint.url}/events?after=1", headers=headers) as response,
    ):
        assert response.content_type == "text/event-stream"
        lines = [await response.content.readline() for _ in range(3)]
    assert lines[2] == b"id: 5\n"


async def test_silence_is_filled_with_keep_alives_and_events_still_come(
    api: FakeNodeApi, server: ApiServer, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.01)
    endpoint = find_endpoint(home)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{endpoint.url}/events", headers=endpoint.headers) as response,
    ):
        for _ in range(6):
            assert await response.content.readline() in (b": still here\n", b"\n")
        api.hub.publish("lease")
        async with asyncio.timeout(5):
            while await response.content.readline() != b"id: 1\n":
                pass


async def test_a_cut_stream_is_taken_up_again_without_a_gap(
    api: FakeNodeApi, server: ApiServer, home: Home, client: HttpNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.api.http_client._RETRY_S", 0.01)
    events = client.events(after=0)
    api.hub.publish("lease")
    assert await take(events, 1) == [1]
    await server.stop()
    api.hub.publish("lease")
    again = ApiServer(api, home)
    await again.start()
    assert await take(events, 1) == [2]
    await again.stop()


async def test_a_restarted_node_is_told_by_a_gap_event(
    api: FakeNodeApi, server: ApiServer, home: Home, client: HttpNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.api.http_client._RETRY_S", 0.01)
    for _ in range(9):
        api.hub.publish("lease")
    events = client.events(after=0)
    assert await take(events, 9) == list(range(1, 10))
    await server.stop()
    fresh = FakeNodeApi()
    fresh.hub.publish("lease", "of the new process")
    monkeypatch.setattr("instar_node.api.http_server.os.getpid", lambda: 4_000_000)
    again = ApiServer(fresh, home)
    await again.start()
    async with asyncio.timeout(5):
        assert (await anext(events)).kind == "gap"
        assert (await anext(events)).text == "of the new process"
    await again.stop()


async def test_stopping_the_server_does_not_wait_for_readers(
    api: FakeNodeApi, home: Home, client: HttpNodeApi
) -> None:
    server = ApiServer(api, home)
    await server.start()
    events = client.events(after=0)
    api.hub.publish("lease")
    await take(events, 1)
    async with asyncio.timeout(1):
        await server.stop()
    await asyncio.sleep(0)
    assert not api.hub.watched


async def test_the_blocking_reader_gets_events_and_ticks(
    api: FakeNodeApi, server: ApiServer, home: Home
) -> None:
    events = BlockingNodeApi(home).events(tick=0.02)
    assert await asyncio.to_thread(next, events) is None
    await until_watched(api)
    api.hub.publish("lease", "now")
    got = None
    while got is None:
        got = await asyncio.to_thread(next, events)
    assert got.text == "now"
    await asyncio.to_thread(events.close)
    async with asyncio.timeout(5):
        while api.hub.watched:
            api.hub.publish("pulse")  # a write to the closed connection is what the server notices
            await asyncio.sleep(0.005)


async def test_the_blocking_reader_says_when_the_node_has_gone(api: FakeNodeApi, home: Home) -> None:
    server = ApiServer(api, home)
    await server.start()
    events = BlockingNodeApi(home).events(tick=0.01)
    await asyncio.to_thread(next, events)
    await until_watched(api)
    await server.stop()
    with pytest.raises(InstarError) as caught:
        await asyncio.to_thread(list, events)
    assert caught.value.code == "node-not-running"


# -- across threads ---------------------------------------------------------------------------------------


@pytest.fixture
def node_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def bridged(api: FakeNodeApi, node_loop: asyncio.AbstractEventLoop) -> BridgedNodeApi:
    return BridgedNodeApi(api, node_loop)


async def test_calls_run_on_the_loop_of_the_node(
    api: FakeNodeApi, bridged: BridgedNodeApi, node_loop: asyncio.AbstractEventLoop
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def whoami() -> None:
        loops.append(asyncio.get_running_loop())

    api.whoami = whoami  # type: ignore[method-assign, assignment]
    await bridged.whoami()
    assert loops == [node_loop]


async def test_refusals_cross_the_bridge(api: FakeNodeApi, bridged: BridgedNodeApi) -> None:
    api.errors["pair"] = InstarError("not-awake", "mini is awake")
    with pytest.raises(InstarError, match="mini is awake"):
        await bridged.pair(bridge.t.PairRequest())


async def publish(api: FakeNodeApi, loop: asyncio.AbstractEventLoop, count: int) -> None:
    def all_of_them() -> None:
        for _ in range(count):
            api.hub.publish("lease")

    done = threading.Event()
    loop.call_soon_threadsafe(lambda: (all_of_them(), done.set()))
    await asyncio.to_thread(done.wait)


async def test_events_cross_the_bridge_in_order(
    api: FakeNodeApi, bridged: BridgedNodeApi, node_loop: asyncio.AbstractEventLoop
) -> None:
    await publish(api, node_loop, 3)
    events = bridged.events(after=1)
    assert await take(events, 2) == [2, 3]
    await publish(api, node_loop, 50)
    assert await take(events, 50) == list(range(4, 54))


async def test_a_screen_too_slow_for_the_bound_still_misses_nothing(
    api: FakeNodeApi,
    bridged: BridgedNodeApi,
    node_loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge, "IN_FLIGHT", 10)
    events = bridged.events(after=0)
    await publish(api, node_loop, 1)
    assert await take(events, 1) == [1]
    await publish(api, node_loop, 200)
    assert await take(events, 200) == list(range(2, 202))


async def test_a_stream_goes_over_to_the_events_of_a_node_that_follows(
    api: FakeNodeApi, bridged: BridgedNodeApi, node_loop: asyncio.AbstractEventLoop
) -> None:
    """As after a join: the node before publishes no more, and the numbers begin anew."""
    await publish(api, node_loop, 5)
    events = bridged.events(after=0)
    assert await take(events, 5) == [1, 2, 3, 4, 5]
    waiting = asyncio.ensure_future(take(events, 3))
    await until_watched(api)
    node_loop.call_soon_threadsafe(api.hub.close)
    following = FakeNodeApi()
    await publish(following, node_loop, 2)
    node_loop.call_soon_threadsafe(bridged.follow, following)
    assert await waiting == [0, 1, 2]


async def test_a_failing_stream_fails_at_the_reader(api: FakeNodeApi, bridged: BridgedNodeApi) -> None:
    async def broken(after: int | None = None) -> AsyncIterator[Event]:
        raise InstarError("node-not-running", "stopped")
        yield

    api.events = broken  # type: ignore[method-assign]
    with pytest.raises(InstarError, match="stopped"):
        await take(bridged.events(), 1)


async def test_a_reader_that_leaves_is_unsubscribed(
    api: FakeNodeApi, bridged: BridgedNodeApi, node_loop: asyncio.AbstractEventLoop
) -> None:
    events = bridged.events(after=0)
    await publish(api, node_loop, 1)
    await take(events, 1)
    await events.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while api.hub.watched:
            await asyncio.sleep(0.005)


async def test_a_node_that_stops_ends_the_stream_and_refuses_calls(api: FakeNodeApi) -> None:
    started = threading.Event()
    stop: list[asyncio.Event] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def node() -> None:
        stop.append(asyncio.Event())
        loops.append(asyncio.get_running_loop())
        started.set()
        await stop[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(node()))
    thread.start()
    await asyncio.to_thread(started.wait)
    bridged = BridgedNodeApi(api, loops[0])
    events = bridged.events()
    waiting = asyncio.ensure_future(anext(events))
    await until_watched(api)
    loops[0].call_soon_threadsafe(stop[0].set)
    async with asyncio.timeout(5):
        with pytest.raises(StopAsyncIteration):
            await waiting
    await asyncio.to_thread(thread.join)
    with pytest.raises(InstarError) as caught:
        await bridged.whoami()
    assert caught.value.code == "node-not-running"
