"""``2``: every machine of the mesh in one table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import BindingType
from textual.widget import Widget

from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.grid import Grid
from instar_tui.widgets.grid_lines import Cell, Column
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import age, shown, size, span
from instar_tui.widgets.vocabulary import machine_mark

if TYPE_CHECKING:
    from instar_node.api.types import Machine


def _status(machine: Machine) -> Cell:
    mark = machine_mark(machine)
    return f"{mark.glyph} {mark.word}", mark.style


def _name(machine: Machine) -> Cell:
    return shown(machine.nickname), "bold" if machine.is_self else ""


def _seen(machine: Machine) -> Cell:
    if machine.is_self:
        return "here", "$muted"
    return ("now", "") if machine.online else (age(machine.last_seen_ms), "$muted")


def _lag(machine: Machine) -> Cell:
    if machine.role == "awake":
        return "source", "$muted"
    return ("–", "$muted") if machine.lag is None else span(machine.lag.ms)


COLUMNS: list[Column[Machine]] = [
    Column("machine", 12, _name, lambda m: m.nickname.lower(), flex=1),
    Column("status", 13, _status, lambda m: (m.role, m.status)),
    Column("seen", 5, _seen, lambda m: m.last_seen_ms or 0, right=True),
    Column("rtt", 7, lambda m: span(m.rtt_ms), lambda m: m.rtt_ms or 0, right=True),
    Column("lag", 7, _lag, lambda m: m.lag.ms if m.lag else -1, right=True),
    Column("topics", 6, lambda m: str(m.topics), lambda m: m.topics, right=True),
    Column("votes", 5, lambda m: "yes" if m.electorate else "–", lambda m: not m.electorate),
    Column("version", 9, lambda m: shown(m.version), lambda m: m.version, wide=100),
    Column("running", 7, lambda m: str(m.running), lambda m: m.running, right=True, wide=120),
    Column("what it does", 16, lambda m: (shown(m.status_text), "$muted"), wide=120, flex=2),
    Column("fingerprint", 30, lambda m: (shown(m.fingerprint), "$muted"), wide=150, flex=1),
]


class Detail(Framed):
    """All that is known of the machine under the cursor."""

    def build(self, width: int) -> Iterable[Line]:
        screen = cast(MachinesScreen, self.screen)
        machine = screen.selected_machine()
        if machine is None:
            return
        mark = machine_mark(machine)
        yield heading(shown(machine.nickname), width)
        yield [
            ("   ", ""),
            (f"{mark.glyph} {mark.word}", mark.style),
            (f"   {shown(machine.status_text)}", ""),
        ]
        yield [("   fingerprint  ", "$muted"), (shown(machine.fingerprint), "bold")]
        yield [("   id           ", "$muted"), (shown(machine.machine_id), ""), ("   y copies", "$muted")]
        yield [("   reached at   ", "$muted"), (shown(", ".join(machine.urls) or "it calls us"), "")]
        if machine.lag is not None and machine.role != "awake":
            lag = machine.lag
            yield [
                ("   behind       ", "$muted"),
                (f"{lag.entries} entries, {size(lag.bytes)}, {span(lag.ms)}", ""),
            ]


class MachinesScreen(MeshScreen):
    """The table of machines, and the selected one in detail."""

    SCOPE = "machines"
    FOOTER = ("filter", "copy")
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("machines")]

    def body(self) -> Iterable[Widget]:
        yield Grid(COLUMNS, lambda m: m.machine_id, empty="no machine yet", id="grid")
        yield Detail(id="detail")

    def grid(self) -> Grid[Machine]:
        """The table."""
        return cast("Grid[Machine]", self.query_one("#grid", Grid))

    def refresh_body(self, kinds: frozenset[str]) -> None:
        self.grid().set_rows(self.mesh.machines())
        super().refresh_body(kinds)

    def on_grid_moved(self) -> None:
        self.query_one(Detail).sync()

    def selected_machine(self) -> Machine | None:
        """The machine under the cursor."""
        return self.grid().selected

    def action_rename(self) -> None:
        machine = self.selected_machine()
        if machine is not None:
            self.instar.operations.rename(machine)

    def action_remove(self) -> None:
        machine = self.selected_machine()
        if machine is None:
            return
        if machine.is_self:
            self.notify("this machine leaves with: instar leave", severity="warning")
        else:
            self.instar.operations.remove(machine)

    def action_sort(self) -> None:
        self.grid().sort_next()

    def action_sort_reverse(self) -> None:
        self.grid().sort_reverse()

    def copyable(self) -> str:
        """The id of the selected machine."""
        machine = self.selected_machine()
        return machine.machine_id if machine else ""
