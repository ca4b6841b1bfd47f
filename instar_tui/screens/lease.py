"""``3``: the epoch, how long the lease is valid, on whose evidence, and every change of holder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget

from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.banner import banner
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.evidence import LastHandoff, Lines, Promises
from instar_tui.widgets.live import Line, hanging, heading
from instar_tui.widgets.panels import lost_line
from instar_tui.widgets.text import age, bar, clock, day, fit, fit_right, shown, span
from instar_tui.widgets.vocabulary import LEASES, UNKNOWN

if TYPE_CHECKING:
    from instar_node.api.types import LeaseView


class Epoch(Framed):
    """The epoch in large digits."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        lease = status.lease
        style = "bold $awake" if lease.state in ("held", "observed") else "bold $needs-you"
        if lease.state == "split-brain":
            style = "bold $danger"
        for line in banner(lease.epoch_text, width - 4, 5):
            yield [(f"  {line}", style)]
        yield [("  epoch", "$muted")]


class Holding(Framed):
    """Holder, validity, medium, hub, and who would be next."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        lease = status.lease
        mark = LEASES.get(lease.state, UNKNOWN)
        holder = shown(lease.holder_nickname or "nobody")
        whose = " (this machine)" if lease.is_self else ""
        since = f", since {clock(lease.since)[:5]}" if lease.since else ""
        yield [
            ("holder   ", "$muted"),
            (f"{mark.glyph} {holder}", mark.style),
            (f"{whose}{since}   ", ""),
            (mark.word, mark.style),
        ]
        if lease.state == "split-brain":
            yield [("valid    ", "$muted"), ("no: nobody may act until a person has decided", "bold $danger")]
        else:
            yield self._validity(lease, width)
            yield [("medium   ", "$muted"), *self._medium(lease)]
        yield [("hub      ", "$muted"), *self._hub(lease)]
        lost = lost_line(self.mesh)
        if len(lost) > 1:
            yield [("if lost  ", "$muted"), *lost[1:]]
        if lease.if_lost.next is None and lease.if_lost.hint:
            yield from hanging(("         ", ""), lease.if_lost.hint, "$muted", width)

    def _validity(self, lease: LeaseView, width: int) -> Line:
        if not lease.expires:
            return [("valid    ", "$muted"), ("until it is handed on; nothing has to be renewed", "")]
        left = self.mesh.valid_for_ms()
        cells = max(12, min(40, width - 34))
        filled, empty = bar(left / max(1, lease.ttl_ms), cells)
        colour = "$awake" if left > lease.ttl_ms / 4 else "$needs-you"
        words = f"{left / 1000:.1f}s of {lease.ttl_ms / 1000:.1f}s  "
        return [
            ("valid    ", "$muted"),
            (words, "bold"),
            ("▕", "$muted"),
            (filled, colour),
            (empty, "on $faint"),
            ("▏", "$muted"),
        ]

    @staticmethod
    def _medium(lease: LeaseView) -> Line:
        if lease.medium == "promise":
            took = f", last took {span(lease.round_took_ms)}" if lease.round_took_ms is not None else ""
            return [(f"promises, a round every {span(lease.round_ms)}{took}", "")]
        return [("the hub's register alone; no rounds", "")]

    def _hub(self, lease: LeaseView) -> Line:
        hub = lease.hub
        if hub.kind == "embedded":
            return [("on the awake machine itself: no automatic failover", "")]
        untouched = (
            ""
            if hub.last_write_ms_ago is None
            else f", untouched for {age(hub.last_write_ms_ago + self.mesh.elapsed_ms())}"
        )
        if hub.reachable:
            return [
                ("✔ ", "$awake"),
                (f"{hub.kind}, {span(hub.latency_ms)}{untouched}", ""),
                (f"   {shown(hub.url)}", "$muted"),
            ]
        return [("✕ unreachable ", "bold $danger"), (shown(hub.error or hub.url), "")]


class History(Framed):
    """Every change of holder, newest first."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        yield []
        yield heading("history", width)
        yield [
            (
                f"   epoch  {fit('holder', 14)}{fit('why', 12)}{fit('from', 18)}{fit('for', 10)}took",
                "$muted",
            )
        ]
        rows = sorted(status.lease.history, key=lambda row: row.epoch, reverse=True)
        for index, row in enumerate(rows):
            style = "bold $awake" if index == 0 else ""
            lasted = row.for_ms
            if index == 0 and status.lease.since_ms is not None:
                lasted = status.lease.since_ms + self.mesh.elapsed_ms()
            yield [
                (f" {fit_right(row.epoch_text, 7)}  ", style),
                (fit(shown(row.holder_nickname), 14), style),
                (fit(shown(row.reason), 12), ""),
                (fit(day(row.at), 18), ""),
                (fit(span(lasted), 10), ""),
                (span(row.took_ms) if row.took_ms is not None else "", "$muted"),
            ]


class LeaseScreen(MeshScreen):
    """All about the lease."""

    SCOPE = "lease"
    FOOTER = ("copy",)
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("lease")]
    AUTO_FOCUS = "#scroll"

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="top"):
            yield Epoch(id="epoch")
            yield Holding(id="holding")
        with VerticalScroll(id="scroll"):
            yield Lines(id="lines")
            yield Promises(id="promises")
            yield LastHandoff(id="last-handoff")
            yield History(id="history")

    def action_move_hub(self) -> None:
        self.instar.operations.move_hub()

    def tick_body(self) -> None:
        self.query_one(Holding).sync()
        self.query_one(Promises).sync()

    def copyable(self) -> str:
        """Holder and epoch."""
        status = self.mesh.status
        return f"{status.lease.holder} {status.lease.epoch}" if status else ""
