"""What was tried out between the machines and may therefore be used; what each of them runs and shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from instar_tui.widgets.chrome import SPINNER, Framed
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import ago_of, day, fit, fit_right, plural, shown, span
from instar_tui.widgets.vocabulary import GATES, SYNC, UNKNOWN

if TYPE_CHECKING:
    from instar_node.api.types import E2EResult, Flags, MachineVersion, SyncView, Updates
    from instar_node.events import Event

LISTED = 4
"""Of refusals, conflicts and the like so many are shown; the commands show all."""
NAME, STATE, TOOK = 11, 14, 8


@dataclass
class Checks:
    """What the health screen fetches beside the status; ``None`` until it has come."""

    flags: Flags | None = None
    results: list[E2EResult] | None = None
    sync: SyncView | None = None
    updates: Updates | None = None


class HasChecks(Protocol):
    """A screen with these panels."""

    checks: Checks


class Panel(Framed):
    """A panel that draws from the checks of its screen."""

    @property
    def checks(self) -> Checks:
        return cast("HasChecks", self.screen).checks


class Gates(Panel):
    """Each gate: whether it is open, and why."""

    def build(self, width: int) -> Iterable[Line]:
        flags = self.checks.flags
        if flags is None:
            return
        shut = sum(gate.state == "shut" for gate in flags.gates)
        yield heading("gates", width, f"{shut} shut" if shut else "")
        for gate in flags.gates:
            mark = GATES.get(gate.state, UNKNOWN)
            yield [
                (f" {mark.glyph} ", mark.style),
                (fit(shown(gate.gate), NAME), ""),
                (fit(mark.word, STATE), mark.style),
                (fit(shown(gate.why), max(10, width - NAME - STATE - 4)), "$muted"),
            ]
            if gate.state == "shut" and gate.guards:
                yield [("   while it is shut: no ", "$danger"), (shown(", ".join(gate.guards)), "")]
        yield []


class Drill(Panel):
    """The newest drill with every machine; one that runs is shown step by step as it happens."""

    def build(self, width: int) -> Iterable[Line]:
        running = list(self._steps_so_far())
        results = self.checks.results
        if running:
            yield heading("drill", width, "running")
            for event in running:
                data = event.data
                yield _step(
                    bool(data.get("passed")),
                    str(data.get("component")),
                    float(data.get("took_ms") or 0),
                    f"{self.mesh.nickname(str(data.get('peer')))}: {data.get('finding')}",
                    width,
                )
            yield [(f" {SPINNER[self.mesh.now_ms() // 200 % 4]} ", "bold $needs-you"), ("goes on…", "$muted")]
        elif results is not None:
            yield heading("drill", width, "v runs it with every machine")
            yield from self._newest(results, width)
        yield []

    def _steps_so_far(self) -> Iterator[Event]:
        """The steps so far of the drill that this program asked for and that is not over."""
        operation = self.mesh.operation
        if operation is None or operation.kind != "drill" or operation.outcome != "running":
            return
        for event in self.mesh.events:
            if event.kind == "drill" and event.n > operation.since and "component" in event.data:
                yield event

    @staticmethod
    def _newest(results: list[E2EResult], width: int) -> Iterator[Line]:
        if not results:
            yield [("   none yet: it needs a second machine", "$muted")]
            return
        newest = max(results, key=lambda row: row.at)
        for peer in dict.fromkeys(result.peer for result in results):
            rows = [result for result in results if result.peer == peer]
            last = max(rows, key=lambda row: row.at)
            how = "the awake role went there and back" if any(r.live for r in rows) else "handoff rehearsed"
            good = all(row.passed and row.verified for row in rows)
            yield [
                (" ✔ " if good else " ✕ ", "bold $awake" if good else "bold $danger"),
                (f"{shown(last.signed_by_nickname)} with {shown(last.peer_nickname)}", "bold"),
                (f"   {day(last.at)}, {how}", "$muted"),
            ]
            if good and peer != newest.peer:
                continue  # the gates tell the same
            for row in rows:
                finding = row.finding if row.verified else f"the signature does not hold; {row.finding}"
                yield _step(row.passed and row.verified, row.component, row.took_ms, finding, width)


def _step(passed: bool, component: str, took_ms: float, finding: str, width: int) -> Line:
    return [
        ("   ✔ " if passed else "   ✕ ", "$awake" if passed else "bold $danger"),
        (fit(shown(component), NAME), ""),
        (fit_right(span(took_ms), TOOK), ""),
        (f"  {fit(shown(finding), max(10, width - NAME - TOOK - 8))}", "$muted" if passed else "$danger"),
    ]


class Sync(Panel):
    """The shared state: where it stands, what waits to get into it, what was kept out."""

    def build(self, width: int) -> Iterable[Line]:
        view = self.checks.sync
        if view is None:
            return
        mark = SYNC.get(view.state, UNKNOWN)
        yield heading("shared state", width, plural(view.files, "file"))
        writer = "this machine writes it" if view.writes else "the awake machine writes it"
        yield [(f" {mark.glyph} {mark.word}", mark.style), (f"   {writer}", "$muted")]
        if view.head:
            signed = f", signed by {shown(self.mesh.nickname(view.signed_by))}" if view.signed_by else ""
            yield [("   head      ", "$muted"), (f"{shown(view.head[:10])}{signed}", "")]
        pulled, pushed = ago_of(view.last_pull), ago_of(view.last_push)
        yield [("   pulled    ", "$muted"), (fit(pulled, 12), ""), ("pushed ", "$muted"), (pushed, "")]
        for trouble in filter(None, (view.hub_error, view.trouble)):
            yield [(" ⚠ ", "bold $needs-you"), (shown(trouble), "")]
        yield from self._lists(view)
        yield []

    @staticmethod
    def _lists(view: SyncView) -> Iterator[Line]:
        lists = (
            ("queued here", "$needs-you", [f"{row.path} ({row.kind})" for row in view.queued]),
            (
                "in conflict",
                "$needs-you",
                [f"{row.path}: {row.machine}'s kept as {row.kept_as or '–'}" for row in view.conflicts],
            ),
            (
                "refused",
                "$danger",
                [f"{row.commit[:10]} from {row.source}: {row.why}" for row in view.refused],
            ),
            ("not shared", "$muted", [f"{row.path}: {row.why}" for row in view.left_out]),
            ("not written here", "$danger", [f"{row.path}: {row.why}" for row in view.unwritten]),
        )
        for title, style, rows in lists:
            if rows:
                yield [(f"   {title}  {len(rows)}", f"bold {style}")]
            for words in rows[:LISTED]:
                yield [(f"     {shown(words)}", "")]
            if len(rows) > LISTED:
                yield [(f"     and {len(rows) - LISTED} more: instar sync", "$muted")]


class Versions(Panel):
    """What each machine runs, who is held back, and the last update."""

    def build(self, width: int) -> Iterable[Line]:
        view = self.checks.updates
        if view is None:
            return
        waiting = view.installed is not None and view.installed != view.version
        yield heading("versions", width, "update under way" if view.running else "")
        for machine in view.machines:
            yield self._machine(machine)
        if waiting:
            yield [
                (" ⚠ ", "bold $needs-you"),
                (f"{shown(view.installed or '')} is installed here: ", ""),
                ("instar update", "bold"),
                (" restarts every machine into it", ""),
            ]
        if view.restart is not None and view.restart.state == "failed":
            yield [
                (" ✕ ", "bold $danger"),
                (f"the restart into {shown(view.restart.expected)} did not take", "$danger"),
            ]
        for step in view.steps[-LISTED:]:
            yield [
                (f"   {fit_right(span(step.at_ms), TOOK)}  ", "$muted"),
                (f"{shown(step.nickname)}: {shown(step.step)} {shown(step.note)}", ""),
            ]
        yield []

    @staticmethod
    def _machine(machine: MachineVersion) -> Line:
        held = machine.held_back
        line: Line = [
            (" ◑ " if held else " ✔ ", "$needs-you" if held else "$awake"),
            (fit(shown(machine.nickname), 14), "bold" if machine.is_self else ""),
            (fit(shown(machine.version or "not heard yet"), 14), ""),
        ]
        if machine.protocol is not None:
            line.append((f"protocol {'–'.join(str(n) for n in dict.fromkeys(machine.protocol))}", "$muted"))
        return [*line, (f"   {shown(held)}", "$needs-you")] if held else line
