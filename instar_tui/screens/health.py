"""``8``: what is wrong and how to mend it, undecided replies, gates and drills, shared state, versions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.widget import Widget

from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.checks import Checks, Drill, Gates, Panel, Sync, Versions
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.grid import Column, Grid
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import fit, shown, span

if TYPE_CHECKING:
    from instar_node.api.types import OutboxItem

CHECKED_ON = frozenset({"all", "drill", "sync", "update", "machines", "lease"})
"""Kinds of events after which the checks may be different."""
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
        if not status.outbox:
            calm = "" if health.alerts else "nothing needs you; "
            yield [(f"   {calm}no reply is undecided", "$muted")]
        yield []


class Counters(Framed):
    """What was counted since the node's start, in columns when there is room."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        counters = {
            **status.health.counters,
            **{f"lease {name}": value for name, value in status.lease.counters.items()},
        }
        yield heading("counters", width)
        columns = max(1, width // 44)
        cells = (width - 2) // columns
        entries = [_entry(name, value) for name, value in sorted(counters.items())]
        for start in range(0, len(entries), columns):
            line: Line = [(" ", "")]
            for label, words in entries[start : start + columns]:
                line += [(fit(f"  {shown(label)}", cells - 12), "$muted"), (fit(words, 12), "")]
            yield line


def _entry(name: str, value: int) -> tuple[str, str]:
    """Label and value of a counter; ``_ms`` are durations."""
    for ending, word in (("_ms_ago", " ago"), ("_ms", "")):
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), f"{span(value)}{word}"
    return name.replace("_", " "), f"{value:,}"


class HealthScreen(MeshScreen):
    """Alerts, undecided replies, counters."""

    SCOPE = "health"
    FOOTER = ("copy",)
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("health")]
    AUTO_FOCUS = "#scroll"

    def body(self) -> Iterable[Widget]:
        yield Verdict(id="verdict")
        yield Grid(OUTBOX, lambda i: i.id, empty="no reply is undecided", id="grid")
        with VerticalScroll(id="scroll"):
            with Container(id="columns"):
                with Vertical(id="left"):
                    yield Gates(id="gates")
                    yield Drill(id="drill")
                with Vertical(id="right"):
                    yield Sync(id="sync")
                    yield Versions(id="versions")
            yield Counters(id="counters")

    def __init__(self) -> None:
        super().__init__()
        self.checks = Checks()

    def grid(self) -> Grid[OutboxItem]:
        """Undecided replies."""
        return cast("Grid[OutboxItem]", self.query_one("#grid", Grid))

    def refresh_body(self, kinds: frozenset[str]) -> None:
        super().refresh_body(kinds)
        undecided = self.mesh.status.outbox if self.mesh.status else 0
        self.grid().display = undecided > 0
        self.grid().styles.height = min(8, undecided + 1)
        if undecided or self.grid().rows:
            self.read("undecided replies", self._fetch)
        if self.mesh.link == "live" and kinds & CHECKED_ON:
            self.read("checks", self._check)

    def tick_body(self) -> None:
        self.query_one(Drill).sync()

    async def _fetch(self) -> None:
        self.grid().set_rows((await self.mesh.api.outbox()).items)

    async def _check(self) -> None:
        api = self.mesh.api
        flags, results, sync, updates = await asyncio.gather(
            api.flags(), api.e2e_results(), api.sync(), api.updates()
        )
        self.checks = Checks(flags, results.results, sync, updates)
        for panel in self.query(Panel):
            panel.sync()

    def action_verify(self) -> None:
        self.instar.operations.verify()

    def action_set_gate(self) -> None:
        if self.checks.flags is not None:
            self.instar.operations.set_gate([gate.gate for gate in self.checks.flags.gates])

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
