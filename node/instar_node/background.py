"""Work that runs beside everything else for as long as a part of the node lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("instar.background")

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Background:
    """One piece of endless work, begun anew when an unexpected error ends it.

    The work handles the errors it knows; what remains are defects and surprises of the system. Without
    this, such an error would wait unseen in the task until the node stops, and what the part promised
    would simply no longer happen.
    """

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """``work`` must bear to be begun again after it was broken off anywhere."""
        self._name = name
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what ran before is broken off."""
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._keep_going(), name=self._name)

    async def stop(self) -> None:
        """Break the work off and wait until it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_going(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._work()
            except Exception:
                log.exception("%s failed; it begins anew in %g s", self._name, pause)
            else:
                return
            await asyncio.sleep(pause)  # no part of any decision, so it needs no injected clock
            pause = min(pause * 2, LONGEST_PAUSE_S)
