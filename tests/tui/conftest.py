"""A running control centre over a scripted node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot

from instar_node.config import UiSettings
from instar_tui.app import InstarApp
from tests.tui.fake_node import FakeConnection, FakeNode

Size = tuple[int, int]


class Centre:
    """The app, its pilot, its node, and what is on the screen."""

    def __init__(self, app: InstarApp, pilot: Pilot[Any], node: FakeNode, connection: FakeConnection) -> None:
        self.app = app
        self.pilot = pilot
        self.node = node
        self.connection = connection

    def lines(self) -> list[str]:
        """The screen as text, one string a line."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip)[:width] for strip in strips[:height]]

    def text(self) -> str:
        """The whole screen as text."""
        return "\n".join(self.lines())

    async def until(self, what: str | Callable[[], Any], seconds: float = 3.0) -> None:
        """Wait until the screen shows a text, or a condition holds."""
        met = (lambda: what in self.text()) if isinstance(what, str) else what
        for _ in range(int(seconds / 0.02)):
            if met():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"not within {seconds} s: {what!r}\n{self.text()}")

    async def go(self, place: str) -> None:
        """Show a main screen."""
        self.app.action_go(place)
        await self.pilot.pause()


@asynccontextmanager
async def running(
    node: FakeNode, *, size: Size = (120, 36), read_only: bool = False, embedded: bool = True, **ui: Any
) -> AsyncIterator[Centre]:
    """The control centre over ``node``, connected and drawn."""
    connection = FakeConnection(node, embedded=embedded)

    async def connect() -> FakeConnection:
        return connection

    app = InstarApp(connect, UiSettings(**ui), read_only=read_only)
    async with app.run_test(size=size, notifications=True) as pilot:
        centre = Centre(app, pilot, node, connection)
        await centre.until(lambda: app.mesh.status is not None)
        await pilot.pause()
        yield centre


@pytest.fixture
def node() -> FakeNode:
    """Four machines, this one awake."""
    return FakeNode()


@pytest.fixture
async def centre(node: FakeNode) -> AsyncIterator[Centre]:
    """The control centre over it."""
    async with running(node) as made:
        yield made
