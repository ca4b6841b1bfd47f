"""The gate that a handoff shuts while messages keep coming."""

from __future__ import annotations

import asyncio

from instar_node.clock import Clock, wait_for
from instar_node.errors import InstarError


class Intake:
    """Open, or paused with those who come waiting in front of it."""

    def __init__(self, clock: Clock, pause_s: float) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self._open = asyncio.Event()
        self._open.set()
        self._inside = 0
        self._settled = asyncio.Event()
        self._settled.set()

    def pause(self) -> None:
        """Let nobody in."""
        self._open.clear()

    def resume(self) -> None:
        """Let in who waits, and everybody after."""
        self._open.set()

    @property
    def is_open(self) -> bool:
        """Whether it lets people in."""
        return self._open.is_set()

    async def settled(self) -> None:
        """Wait until nobody is inside."""
        await self._settled.wait()

    async def enter(self) -> None:
        """Be inside until ``leave``. Raises ``InstarError("handing-over")`` when the pause lasts too long."""
        if not self._open.is_set():
            await self._wait()
        self._inside += 1
        self._settled.clear()

    def leave(self) -> None:
        """Be inside no longer."""
        self._inside -= 1
        if not self._inside:
            self._settled.set()

    async def _wait(self) -> None:
        if not await wait_for(self._clock, self._open, self._pause_s):
            raise InstarError(
                "handing-over",
                "the awake role is being handed over",
                "repeat it in a moment with the same key: it is taken once",
                status=503,
                extra={"retry_in_ms": 1_000},
            )
