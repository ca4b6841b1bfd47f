"""The control centre over real nodes: embedded on its own thread, or attached to a daemon's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from instar_node.config import NodeOptions, load_config
from instar_tui.app import InstarApp
from instar_tui.embedding import Connection, open_api
from tests.cluster.harness import Machine
from tests.tui.screenful import Screenful

PATIENCE_S = 15.0
"""Real nodes on a busy computer; what is waited for comes in milliseconds otherwise."""


class Real(Screenful):
    """The app, its pilot, and the real machine it shows."""

    def __init__(self, app: InstarApp, pilot: Any, machine: Machine) -> None:
        super().__init__(app, pilot)
        self.machine = machine

    async def until(self, what: str | Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        await super().until(what, seconds)

    async def press(self, *keys: str) -> None:
        """Press keys, as a person would."""
        await self.pilot.press(*keys)

    async def select(self, key: str) -> None:
        """Put the cursor of the table in view on a row."""
        grid = self.app.base_screen().grid()
        await self.until(lambda: any(grid._key(row) == key for row in grid.rows))
        grid.select(key)
        await self.pilot.pause()


@asynccontextmanager
async def watching(machine: Machine, *, size: tuple[int, int] = (120, 36)) -> AsyncIterator[Real]:
    """The control centre on a machine: attached when its daemon runs, with the node embedded otherwise."""
    config = load_config(machine.home.config)
    options = NodeOptions(hub=machine.hub)

    async def connect() -> Connection:
        return await open_api(machine.home, config, options)

    app = InstarApp(connect, config.ui)
    try:
        async with app.run_test(size=size, notifications=True) as pilot:
            real = Real(app, pilot, machine)
            await real.until(lambda: app.mesh.status is not None)
            yield real
    finally:
        await app.mesh.close()
