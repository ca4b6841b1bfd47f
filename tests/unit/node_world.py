"""Whole nodes in one process, on loopback, with a quick lease: what ``test_node_*`` are about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from instar_node.api import types as t
from instar_node.config import NodeOptions, load_config
from instar_node.joining import join_home
from instar_node.node import Node
from instar_node.storage.home import Home
from tests.ports import free_port

LEASE = "[lease]\nttl_ms = 900\nround_ms = 300\nbench_ttl_ms = 9000\n"


def a_home(folder: Path, nickname: str, more: str = "", agent: str = "echo") -> Home:
    """A home with settings for tests, and a port of its own that stays the same over restarts."""
    home = Home(folder / nickname)
    home.prepare()
    node = f'[node]\nnickname = "{nickname}"\nlisten = "127.0.0.1:{free_port()}"\n'
    home.config.write_text(f'{node}{LEASE}[agent]\nkind = "{agent}"\n{more}', encoding="utf-8")
    return home


@asynccontextmanager
async def running(home: Home, hand_off: bool = False, **options: Any) -> AsyncIterator[Node]:
    """A started node; it is stopped without passing its role on, unless asked."""
    node = await Node.open(home, load_config(home.config), NodeOptions(**options))
    try:
        await node.start()
        yield node
    finally:
        await node.stop(hand_off=hand_off)


async def join(host: Node, home: Home) -> t.JoinResult:
    """Pair a home with a running awake node."""
    view = await host.api.pair(t.PairRequest())
    assert view.url is not None
    assert view.code is not None
    return await join_home(home, view.url, view.code, None)


@asynccontextmanager
async def pair(folder: Path, hub: bool = True, agent: str = "echo") -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes, ``desk`` awake and ``mini`` in sync with it; ``hub``: over a common one, else embedded."""
    options = {"hub": str(folder / "hub.git")} if hub else {}
    homes = [a_home(folder, name, agent=agent) for name in ("desk", "mini")]
    async with running(homes[0], **options) as desk:
        await join(desk, homes[1])
        async with running(homes[1]) as mini:
            await in_sync(desk, mini)
            yield desk, mini


async def until(condition: Callable[[], Any], within: float = 30.0) -> Any:
    """Wait for what the nodes bring about by themselves; ``condition`` may be a coroutine function."""
    try:
        async with asyncio.timeout(within):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {condition}") from None


async def in_sync(awake: Node, other: Node) -> None:
    """Wait until a machine is in the electorate and both machines know."""

    async def there() -> bool:
        views = [await node.api.lease() for node in (awake, other)]
        return all(other.machine_id in view.electorate for view in views)

    await until(there)


async def lines(node: Node, topic: str) -> list[tuple[str, str]]:
    """Role and text of a conversation as this node knows it."""
    return [(line.role, line.text) for line in (await node.api.messages(topic)).messages]
