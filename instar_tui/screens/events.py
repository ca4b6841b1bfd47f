"""``7``: everything that happened, filtered by words, following the newest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import BindingType
from textual.widget import Widget

from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.feed import event_words
from instar_tui.widgets.grid import Grid
from instar_tui.widgets.grid_lines import Column
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import clock, plural, shown
from instar_tui.widgets.vocabulary import kind_style

if TYPE_CHECKING:
    from instar_node.events import Event

COLUMNS: list[Column[Event]] = [
    Column("time", 8, lambda e: (clock(e.at), "$muted")),
    Column("kind", 10, lambda e: (shown(e.kind), kind_style(e.kind))),
    Column("what happened", 20, lambda e: shown(event_words(e)), flex=3),
    Column("number", 7, lambda e: (str(e.n), "$muted"), right=True, wide=100),
    Column(
        "details",
        20,
        lambda e: (shown(json.dumps(e.data, default=str)) if e.data else "", "$muted"),
        flex=2,
        wide=140,
    ),
]


class Following(Framed):
    """Whether the newest event stays in sight."""

    def build(self, width: int) -> Iterable[Line]:
        screen = cast(EventsScreen, self.screen)
        if screen.follow:
            yield [
                (" ▼ following", "bold $awake"),
                (f"   {plural(len(self.mesh.events), 'event')} kept", "$muted"),
            ]
        else:
            yield [(" ■ standing still", "bold $needs-you"), ("   f follows again", "$muted")]


class EventsScreen(MeshScreen):
    """The event stream."""

    SCOPE = "events"
    FOOTER = ("filter", "copy")
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("events")]

    def __init__(self) -> None:
        super().__init__()
        self.follow = True
        self._seen = -1

    def body(self) -> Iterable[Widget]:
        yield Grid(COLUMNS, lambda e: str(e.n), empty="nothing has happened yet", id="grid")
        yield Following(id="following")

    def grid(self) -> Grid[Event]:
        """The table."""
        return cast("Grid[Event]", self.query_one("#grid", Grid))

    def refresh_body(self, kinds: frozenset[str]) -> None:
        if self.mesh.events_seen != self._seen:
            self._seen = self.mesh.events_seen
            self.grid().set_rows(list(self.mesh.events))
            if self.follow:
                self.grid().action_edge(1)
        super().refresh_body(kinds)

    def on_grid_moved(self) -> None:
        grid = self.grid()
        last = grid.rows[-1].n if grid.rows else 0
        at_end = grid.selected is None or grid.selected.n == last
        if at_end != self.follow:
            self.follow = at_end
            self.query_one(Following).sync()

    def action_follow(self) -> None:
        self.follow = not self.follow
        if self.follow:
            self.grid().action_edge(1)
        self.query_one(Following).sync()

    def copyable(self) -> str:
        """The selected event."""
        event = self.grid().selected
        return f"{event.at} {event.kind} {event.text}" if event else ""
