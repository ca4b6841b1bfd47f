"""``8``: what is wrong and how to mend it, replies nobody is sure of, gates, sync, counters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.grid import Column, Grid
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import fit, shown, span

if TYPE_CHECKING:
    from instar_node.api.types import OutboxItem

STATUS = {
    "ok": ("✔", "all is well", "$awake"),
    "degraded": ("⚠", "works, with a flaw", "$needs-you"),
    "alarm": ("‼", "alarm", "$danger"),
}

OUTBOX: list[Column[OutboxItem]] = [
    Column("undecided reply", 14, lambda i: (shown(i.topic), "bold"), flex=1),
    Column("epoch", 5, lambda i: str(i.epoch), right=True),
    Column("why", 24, lambda i: (shown(i.reason), "$needs-you"), flex=2),
    Column("text", 16, lambda i: shown(i.text), flex=3),
]


class Verdict(Framed):
    """One line, then every alert with what to do about it."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        health = status.health
        glyph, words, style = STATUS[health.status]
        yield [(f" {glyph} {words}", f"bold {style}"), (f"   version {shown(health.version)}", "$muted")]
        for alert in health.alerts:
            yield []
            yield [
                (" ⚠ ", "bold $needs-you"),
                (shown(alert.message), "bold"),
                (f"   {shown(alert.code)}", "$muted"),
            ]
            if alert.hint:
                yield [("   ", ""), (shown(alert.hint), "")]
        if not health.alerts:
            yield [("   nothing needs you", "$muted")]
        yield []


class Tables(Framed):
    """Gates, sync and counters, in columns when there is room."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        health = status.health
        yield from self._section("gates", health.gates, width)
        yield from self._section("state sync", health.sync, width)
        counters: dict[str, Any] = {
            **health.counters,
            **{f"lease {k}": v for k, v in status.lease.counters.items()},
        }
        yield from self._section("counters", counters, width)

    @staticmethod
    def _section(title: str, values: dict[str, Any], width: int) -> Iterable[Line]:
        if not values:
            return
        yield heading(title, width)
        columns = max(1, width // 40)
        cells = (width - 2) // columns
        entries = sorted(values.items())
        for start in range(0, len(entries), columns):
            line: Line = [(" ", "")]
            for name, value in entries[start : start + columns]:
                label, words = _entry(name, value)
                line.append((fit(f"  {shown(label)}", 24), "$muted"))
                line.append((fit(shown(words), cells - 24), ""))
            yield line
        yield []


def _entry(name: str, value: Any) -> tuple[str, str]:
    """Label and value of a counter or fact; ``_ms`` are durations."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    for ending, word in (("_ms_ago", " ago"), ("_ms", "")):
        if number and name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), f"{span(value)}{word}"
    return name.replace("_", " "), f"{value:,}" if isinstance(value, int) and number else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


class HealthScreen(MeshScreen):
    """Alerts, undecided replies, counters."""

    SCOPE = "health"
    FOOTER = ("copy",)
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("health")]
    AUTO_FOCUS = "#grid"

    def body(self) -> Iterable[Widget]:
        yield Verdict(id="verdict")
        yield Grid(OUTBOX, lambda i: i.id, empty="no reply is undecided", id="grid")
        with VerticalScroll(id="scroll"):
            yield Tables(id="tables")

    def grid(self) -> Grid[OutboxItem]:
        """Undecided replies."""
        return cast("Grid[OutboxItem]", self.query_one("#grid", Grid))

    def refresh_body(self, kinds: frozenset[str]) -> None:
        super().refresh_body(kinds)
        undecided = self.mesh.status.outbox if self.mesh.status else 0
        self.grid().styles.height = min(8, undecided + 1) if undecided else 2
        if undecided or self.grid().rows:
            self.read("outbox", self._fetch)

    async def _fetch(self) -> None:
        self.grid().set_rows((await self.mesh.api.outbox()).items)

    def action_send_undecided(self) -> None:
        self._resolve("send")

    def action_drop_undecided(self) -> None:
        self._resolve("drop")

    def _resolve(self, action: str) -> None:
        item = self.grid().selected
        if item is not None:
            self.instar.operations.resolve(item.id, action)

    def copyable(self) -> str:
        """The id of the selected reply, or the first hint."""
        item = self.grid().selected
        alerts = self.mesh.status.health.alerts if self.mesh.status else []
        return item.id if item else (alerts[0].hint if alerts else "")
