"""Every screen as a picture, at three sizes and in two themes, over a node whose clock stands still; and what
must be told apart by every eye, in the theme for that.

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

from instar_node.api import types as t
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
SAFE_SIZE, SAFE = (120, 36), "instar-safe"
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


def drawn(
    snap_compare: Callable[..., bool],
    node: FakeNode,
    place: str,
    size: tuple[int, int],
    theme: str,
) -> bool:
    """Whether a screen over this node looks as its picture."""
    assert isinstance(node.clock, StandingClock)

    async def connect() -> FakeConnection:
        return FakeConnection(node)

    app = InstarApp(connect, UiSettings(theme=theme), clock=node.clock)

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

    return snap_compare(app, terminal_size=size, run_before=settle)


@pytest.mark.parametrize(
    ("place", "size", "theme"), CASES, ids=[f"{p}-{s[0]}x{s[1]}-{name[7:]}" for p, s, name in CASES]
)
def test_the_screen_looks_as_it_did(
    place: str, size: tuple[int, int], theme: str, snap_compare: Callable[..., bool]
) -> None:
    assert drawn(snap_compare, FakeNode(clock=StandingClock()), place, size, theme)


def test_the_overview_in_colours_for_every_eye(snap_compare: Callable[..., bool]) -> None:
    assert drawn(snap_compare, FakeNode(clock=StandingClock()), "overview", SAFE_SIZE, SAFE)


def test_a_split_brain_in_colours_for_every_eye(snap_compare: Callable[..., bool]) -> None:
    node = FakeNode(clock=StandingClock())
    node.split_brain = {"evidence": "two records of epoch 7: one of desk, one of mini"}
    assert drawn(snap_compare, node, "lease", SAFE_SIZE, SAFE)


def test_a_failing_gate_in_colours_for_every_eye(snap_compare: Callable[..., bool]) -> None:
    node = FakeNode(clock=StandingClock())
    why = "laptop: the drill of Monday failed at the third step"
    node.gates_ += [
        t.GateView("handoff", "shut", why, "a handoff there and back", [], None, []),
        t.GateView("succession", "unverified", "never tried", "a failover", [], None, []),
        t.GateView("sync", "overridden", "opened by hand on desk", "a push", [], "open", []),
    ]
    node.findings.append(t.Finding("database", "problem", "does not open", "restore a copy of mesh.db"))
    assert drawn(snap_compare, node, "health", SAFE_SIZE, SAFE)
