"""``4``: how far every copy of the conversation is behind, now and over the last minutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import BindingType
from textual.widget import Widget

from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.chart import LagChart
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.grid import Grid
from instar_tui.widgets.grid_lines import Cell, Column
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import age, fit, plural, shown, size, span

if TYPE_CHECKING:
    from instar_node.api.types import TailPeer


def _lag(peer: TailPeer) -> Cell:
    if peer.behind.ms >= 1_000:
        return f"⚠ {span(peer.behind.ms)}", "bold $needs-you"
    return span(peer.behind.ms)


COLUMNS: list[Column[TailPeer]] = [
    Column("copy on", 12, lambda p: (shown(p.nickname), "bold"), lambda p: p.nickname.lower(), flex=1),
    Column("behind", 9, _lag, lambda p: p.behind.ms, right=True),
    Column("entries", 8, lambda p: f"{p.behind.entries:,}", lambda p: p.behind.entries, right=True),
    Column("bytes", 9, lambda p: size(p.behind.bytes), lambda p: p.behind.bytes, right=True),
    Column("acked", 9, lambda p: f"{p.acked_seq:,}", lambda p: p.acked_seq, right=True),
    Column("head", 9, lambda p: f"{p.head_seq:,}", lambda p: p.head_seq, right=True, wide=80),
    Column("last ack", 8, lambda p: age(p.last_ack_ms), lambda p: p.last_ack_ms or 0, right=True),
]


class Source(Framed):
    """Where the tail comes from."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        tail = status.livetail
        source = self.mesh.nickname(tail.source) or "nobody"
        if tail.role == "source":
            yield [
                (" This machine is the source", "bold $awake"),
                (": every entry leaves here as it happens.", ""),
            ]
        else:
            yield [
                (" This machine is a copy", "bold $standby"),
                (" of ", ""),
                (shown(source), "bold $awake"),
                (".", ""),
            ]
        yield []


class SelectedLag(LagChart):
    """The selected copy's lag."""

    def watched(self) -> str | None:
        peer = cast(TailScreen, self.screen).grid().selected
        return peer.machine_id if peer else None


class ByTopic(Framed):
    """The topics the selected copy lacks something of."""

    def build(self, width: int) -> Iterable[Line]:
        peer = cast(TailScreen, self.screen).grid().selected
        status = self.mesh.status
        if peer is None or status is None:
            return
        rows = [p for p in status.livetail.peers if p.machine_id == peer.machine_id and p.topic is not None]
        behind = sorted((p for p in rows if p.behind.entries), key=lambda p: -p.behind.ms)[:4]
        yield heading("by topic", width)
        if not behind:
            yield [("   every topic is complete there", "$muted")]
        for row in behind:
            yield [
                (f"   {fit(shown(row.topic or ''), 20)} ", ""),
                (
                    f"{plural(row.behind.entries, 'entry', 'entries')}, {span(row.behind.ms)} behind",
                    "$needs-you",
                ),
            ]


class TailScreen(MeshScreen):
    """Lag of every copy."""

    SCOPE = "tail"
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("tail")]

    def body(self) -> Iterable[Widget]:
        yield Source(id="source")
        yield Grid(COLUMNS, lambda p: p.machine_id, empty="no other machine keeps a copy yet", id="grid")
        yield SelectedLag(id="chart")
        yield ByTopic(id="by-topic")

    def grid(self) -> Grid[TailPeer]:
        """The table of copies."""
        return cast("Grid[TailPeer]", self.query_one("#grid", Grid))

    def refresh_body(self, kinds: frozenset[str]) -> None:
        status = self.mesh.status
        peers = [p for p in status.livetail.peers if p.topic is None] if status else []
        self.grid().set_rows(peers)
        self.grid().styles.height = max(2, min(8, len(peers) + 1))
        super().refresh_body(kinds)

    def on_grid_moved(self) -> None:
        self.query_one(SelectedLag).sync()
        self.query_one(ByTopic).sync()

    def action_sort(self) -> None:
        self.grid().sort_next()

    def action_sort_reverse(self) -> None:
        self.grid().sort_reverse()

    def copyable(self) -> str:
        """The id of the selected copy's machine."""
        peer = self.grid().selected
        return peer.machine_id if peer else ""
