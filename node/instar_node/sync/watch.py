"""Noticing that something changed in a folder, without looking at it all the time."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instar_node.background import Background

log = logging.getLogger("instar.sync")
logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it would log every change

QUIET_MS = 250
"""Told when nothing happened for so long…"""
LATEST_MS = 2_000
"""… or, while things go on happening, after so long."""
POLL_S = 5.0
"""Without notifications by the system (too many watches, a strange file system) one look every so often."""


class FolderWatch:
    """Calls ``on_change`` on the event loop after something changed below ``root``."""

    def __init__(self, root: Path, on_change: Callable[[], None]) -> None:
        self._root = root
        self._on_change = on_change
        self._task = Background("state-watch", self._run)

    def start(self) -> None:
        """Begin; also after the folder was made anew."""
        self._task.start()

    async def stop(self) -> None:
        """Watch no more."""
        await self._task.stop()

    async def _run(self) -> None:
        try:
            # Loading it takes a tenth of a second, which the lease must not wait for.
            watchfiles: Any = await asyncio.to_thread(importlib.import_module, "watchfiles")
            changes = watchfiles.awatch(
                self._root, watch_filter=_matters, debounce=LATEST_MS, step=QUIET_MS, rust_timeout=60_000
            )
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)  # by now it is watching: what changed before is found by one more look
            self._on_change()
            await first
            self._on_change()
            async for _ in changes:
                self._on_change()
        except (ImportError, OSError, RuntimeError) as error:
            log.warning("no notifications for %s (%s): it is looked at every %g s", self._root, error, POLL_S)
        while True:
            await asyncio.sleep(POLL_S)
            self._on_change()


def _matters(_kind: object, path: str) -> bool:
    """Not our own half-written files."""
    name = path.rpartition("/")[2]
    return not (name.startswith(".instar-") and name.endswith(".tmp"))
