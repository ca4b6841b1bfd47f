"""A running control centre over a scripted node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.message import Message
from textual.pilot import Pilot

from instar_node.config import UiSettings
from instar_tui.app import InstarApp
from tests.tui.fake_node import FakeConnection, FakeNode
from tests.tui.screenful import Screenful

Size = tuple[int, int]


class Centre(Screenful):
    """A control centre over a scripted node."""

    def __init__(self, app: InstarApp, pilot: Pilot[Any], node: FakeNode, connection: FakeConnection) -> None:
        super().__init__(app, pilot)
        self.node = node
        self.connection = connection


@asynccontextmanager
async def running(
    node: FakeNode,
    *,
    size: Size = (120, 36),
    read_only: bool = False,
    embedded: bool = True,
    message_hook: Callable[[Message], None] | None = None,
    **ui: Any,
) -> AsyncIterator[Centre]:
    """The control centre over ``node``, connected and drawn; ``message_hook`` sees every message in it."""
    connection = FakeConnection(node, embedded=embedded)

    async def connect() -> FakeConnection:
        return connection

    app = InstarApp(connect, UiSettings(**ui), read_only=read_only)
    async with app.run_test(size=size, notifications=True, message_hook=message_hook) as pilot:
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
