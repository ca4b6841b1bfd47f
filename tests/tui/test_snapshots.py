"""Every screen as a picture, at three sizes and in two themes, over a node whose clock stands still.

``pytest tests/tui/test_snapshots.py --snapshot-update`` draws them anew; ``snapshot_report.html`` shows what
differs. They hold for one version of Textual: each draws a little differently.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import textual
from textual.pilot import Pilot
from textual.widgets import Input

from instar_node.config import UiSettings
from instar_tui.actions import PLACES
from instar_tui.app import InstarApp
from instar_tui.widgets import text
from tests.tui.fake_node import FakeConnection, FakeNode
from tests.tui.screenful import Screenful
from tests.tui.standing import StandingClock, StandingDay

DRAWN_WITH = "8.2.8"
SIZES = ((80, 24), (120, 36), (200, 50))
THEMES = ("instar-dark", "instar-light")
CASES = [(place.name, size, theme) for place in PLACES for size in SIZES for theme in THEMES]

pytestmark = pytest.mark.skipif(
    textual.__version__ != DRAWN_WITH, reason=f"the pictures were drawn with Textual {DRAWN_WITH}"
)


@pytest.fixture(autouse=True)
def _one_day_in_one_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(text, "datetime", StandingDay)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("place", "size", "theme"), CASES, ids=[f"{p}-{s[0]}x{s[1]}-{t[7:]}" for p, s, t in CASES]
)
def test_the_screen_looks_as_it_did(
    place: str, size: tuple[int, int], theme: str, snap_compare: Callable[..., bool]
) -> None:
    clock = StandingClock()
    node = FakeNode(clock=clock)

    async def connect() -> FakeConnection:
        return FakeConnection(node)

    app = InstarApp(connect, UiSettings(theme=theme), clock=clock)

    async def settle(pilot: Pilot[Any]) -> None:
        screen = Screenful(app, pilot)
        await screen.until(lambda: app.mesh.status is not None and len(app.mesh.events) == 9)
        await pilot.pause(0.7)  # what the history of events makes worth fetching is fetched once
        app.mesh.activity.extend([0] * 60)
        await screen.go(place)
        for line in app.screen.query(Input):
            line.cursor_blink = False
        await pilot.pause(0.3)
        app.redraw()
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=settle)
