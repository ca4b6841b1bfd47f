"""One exchange on the host, from its commitment to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from instar_node.pairing.exchange import HostExchange, Keys
from instar_node.pairing.wire import Finish, JoinerInfo, PairingGrant

T = TypeVar("T")
Reply = tuple[int, bytes]
"""HTTP status and JSON body."""


class Run:
    """At most one guess, and for the right one what follows from it."""

    def __init__(self, exchange: HostExchange) -> None:
        self.exchange = exchange
        self.finish: Finish | None = None
        self.answer: asyncio.Task[Reply] | None = None
        self.keys: Keys | None = None
        self.joiner: JoinerInfo | None = None
        self.accepted_here = False
        self.accepted_there = False
        self.admission: asyncio.Task[PairingGrant] | None = None


def observed(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run in the background; a failure that no caller is left to hear was published where it happened."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
