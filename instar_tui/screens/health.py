"""``8``: what is wrong and how to mend it, undecided replies, gates and drills, shared state, versions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.widget import Widget

from instar_node.coordination.record import epoch_text
from instar_tui.actions import Action, screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.widgets.checks import Checks, Drill, Gates, Panel
from instar_tui.widgets.commons import Secrets, Sync, Versions, secret_uses
from instar_tui.widgets.findings import Counters, Findings, Verdict
from instar_tui.widgets.grid import Grid
from instar_tui.widgets.grid_lines import Column
from instar_tui.widgets.text import shown

if TYPE_CHECKING:
    from instar_node.api.types import OutboxItem

CHECKED_ON = frozenset({"all", "drill", "sync", "update", "machines", "lease"})
"""Kinds of events after which the checks may be different."""
EXAMINED_ON = frozenset({"all", "alert"})
"""Kinds of events after which the doctor looks again; it reads the disk, so it is not asked all the time."""

OUTBOX: list[Column[OutboxItem]] = [
    Column("undecided reply", 14, lambda i: (shown(i.topic), "bold"), flex=1),
    Column("epoch", 5, lambda i: epoch_text(i.epoch), right=True),
    Column("why", 24, lambda i: (shown(i.reason), "$needs-you"), flex=2),
    Column("text", 16, lambda i: shown(i.text), flex=3),
]


class HealthScreen(MeshScreen):
    """Alerts, undecided replies, the doctor, gates and drills, shared state, secrets, versions, counters."""

    SCOPE = "health"
    FOOTER = ("copy",)
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("health")]
    AUTO_FOCUS = "#scroll"

    def body(self) -> Iterable[Widget]:
        yield Grid(OUTBOX, lambda i: i.id, empty="no reply is undecided", id="grid")
        with VerticalScroll(id="scroll"):
            yield Verdict(id="verdict")
            with Container(id="columns"):
                with Vertical(id="left"):
                    yield Findings(id="findings")
                    yield Gates(id="gates")
                    yield Drill(id="drill")
                with Vertical(id="right"):
                    yield Sync(id="sync")
                    yield Secrets(id="secrets")
                    yield Versions(id="versions")
            yield Counters(id="counters")

    def __init__(self) -> None:
        super().__init__()
        self.checks = Checks()

    def grid(self) -> Grid[OutboxItem]:
        """Undecided replies."""
        return cast("Grid[OutboxItem]", self.query_one("#grid", Grid))

    def offers(self, action: Action) -> bool:
        if action.id in ("send-undecided", "drop-undecided"):
            return bool(self.mesh.status and self.mesh.status.outbox)
        if action.id == "sync-seen":
            view = self.checks.sync
            return view is not None and bool(view.refused or view.conflicts)
        return super().offers(action)

    # -- data ---------------------------------------------------------------------------------------------

    def refresh_body(self, kinds: frozenset[str]) -> None:
        super().refresh_body(kinds)
        undecided = self.mesh.status.outbox if self.mesh.status else 0
        self.grid().display = undecided > 0
        self.grid().styles.height = min(8, undecided + 1)
        if undecided or self.grid().rows:
            self.read("undecided replies", self._fetch)
        if self.mesh.link == "live" and kinds & CHECKED_ON:
            self.read("checks", self._check)
        if self.mesh.link == "live" and kinds & EXAMINED_ON:
            self.read("doctor", self._examine)

    def tick_body(self) -> None:
        self.query_one(Drill).sync()

    async def _fetch(self) -> None:
        self.grid().set_rows((await self.mesh.api.outbox()).items)

    async def _check(self) -> None:
        api = self.mesh.api
        flags, results, sync, updates, secrets, config = await asyncio.gather(
            api.flags(), api.e2e_results(), api.sync(), api.updates(), api.secrets(), api.config()
        )
        self._now(
            flags=flags,
            results=results.results,
            sync=sync,
            updates=updates,
            secrets=secrets.secrets,
            uses=secret_uses(config.settings),
        )

    async def _examine(self) -> None:
        self._now(doctor=await self.mesh.api.doctor())

    def _now(self, **news: object) -> None:
        """Draw what was fetched."""
        self.checks = replace(self.checks, **news)  # type: ignore[arg-type]  # the callers name its fields
        for panel in self.query(Panel):
            panel.sync()
        self._frame()  # what the footer offers may be another

    # -- keys ---------------------------------------------------------------------------------------------

    def action_verify(self, machine: str = "", *, rehearse: bool = False) -> None:
        """Run the drill, with one machine or with all, and bring it into sight."""
        self.query_one(Drill).scroll_visible(top=True, animate=False)
        self.instar.operations.verify(machine, rehearse=rehearse)

    def action_set_gate(self) -> None:
        if self.checks.flags is not None:
            self.instar.operations.set_gate([gate.gate for gate in self.checks.flags.gates])

    def action_examine(self) -> None:
        async def again() -> None:
            await self._examine()
            assert self.checks.doctor is not None
            well = "nothing is broken" if self.checks.doctor.healthy else "something is broken"
            self.notify(f"the doctor looked again: {well}", timeout=2)

        self.instar.operations.start(again)

    def action_update(self) -> None:
        if self.checks.updates is not None:
            self.instar.operations.update(self.checks.updates)

    def action_sync_seen(self) -> None:
        async def seen() -> None:
            self._now(sync=await self.mesh.api.sync_seen())
            self.notify("refusals and conflicts are forgotten; the files stay", timeout=3)

        self.instar.operations.start(seen)

    def action_send_undecided(self) -> None:
        self._resolve("send")

    def action_drop_undecided(self) -> None:
        self._resolve("drop")

    def _resolve(self, action: str) -> None:
        item = self.grid().selected
        if item is None:
            self.notify("nothing to decide: no reply is undecided", severity="warning")
        else:
            self.instar.operations.resolve(item.id, action)

    def copyable(self) -> str:
        """The id of the selected reply, or the first thing to do: of an alert, else of the doctor."""
        item = self.grid().selected
        if item is not None:
            return item.id
        alerts = self.mesh.status.health.alerts if self.mesh.status else []
        findings = self.checks.doctor.findings if self.checks.doctor else []
        hints = [*(alert.hint for alert in alerts), *(finding.hint for finding in findings)]
        return next(filter(None, hints), "")
