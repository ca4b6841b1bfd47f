"""Running the node of a home until it is told to end, also when the home changes its mesh meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from instar_node.config import Config, NodeOptions
from instar_node.known_secrets import KnownSecrets
from instar_node.node import Node
from instar_node.storage.home import Home

log = logging.getLogger("instar.node")


async def serve(
    home: Home,
    config: Config,
    options: NodeOptions,
    known: KnownSecrets,
    *,
    ready: Callable[[Node], None],
    ending: asyncio.Event,
    keep_baton: Callable[[], bool | None] = lambda: None,
) -> None:
    """Open and start the node, call ``ready`` with it, and stop it when ``ending`` is set.

    A node that joined another mesh is stopped and opened anew as a member of that one: ``ready`` is called
    again. ``keep_baton`` is asked at the end (see ``Node.stop``). Raises what ``Node.open`` and ``start``
    raise.
    """
    api_port = 0
    while not ending.is_set():
        node = await Node.open(home, config, options, known)
        started = False
        try:
            await node.start(api_port)
            started = True
            ready(node)
            await _first(ending, node.superseded)
        finally:
            moved = node.superseded.is_set()
            await node.stop(hand_off=started and not moved, keep_baton=keep_baton())
        if not moved:
            return
        log.info("this home changed its mesh: the node starts anew")
        api_port = node.api_port


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of these is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
