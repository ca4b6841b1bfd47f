"""``1``: who is awake, what if it died now, every machine, what happened last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.live import Live


class OverviewScreen(MeshScreen):
    """The first screen."""

    SCOPE = "overview"
    FOOTER = ("go-pair",)
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("overview")]

    def body(self) -> Iterable[Widget]:
        from instar_tui.widgets.cards import Cards, Facts, FirstSteps, Title
        from instar_tui.widgets.chart import WorstLag
        from instar_tui.widgets.feed import Feed
        from instar_tui.widgets.panels import Sentence

        with Horizontal(id="columns"):
            with Vertical(id="left"):
                yield Sentence(id="sentence")
                yield Cards(id="cards")
                yield FirstSteps(id="first")
                yield Facts(id="facts")
                yield WorstLag(id="lag")
            with Vertical(id="right"):
                yield Title("events")
                yield Feed(id="feed")

    def refresh_body(self, kinds: frozenset[str]) -> None:
        count = len(self.mesh.machines())
        self.query_one("#cards").display = count > 1
        self.query_one("#first").display = count == 1
        super().refresh_body(kinds)

    def tick_body(self) -> None:
        self.query_one("#sentence", Live).sync()

    def copyable(self) -> str:
        """The command a second machine needs; with several machines, this machine's id."""
        status = self.mesh.status
        if status is None:
            return ""
        if len(status.machines) == 1 and status.me.urls:
            return f"instar join {status.me.urls[0]} --code "
        return status.me.machine_id
