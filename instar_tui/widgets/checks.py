"""What was tried out between the machines and may therefore be used: gates and drills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from instar_tui.widgets.chrome import SPINNER, Framed
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import day, fit, fit_right, shown, span
from instar_tui.widgets.vocabulary import GATES, UNKNOWN

if TYPE_CHECKING:
    from instar_node.api.types import Doctor, E2EResult, Flags, SecretRow, SyncView, Updates
    from instar_node.events import Event

NAME, STATE, TOOK = 11, 14, 8


@dataclass
class Checks:
    """What the health screen fetches beside the status; ``None`` until it has come."""

    flags: Flags | None = None
    results: list[E2EResult] | None = None
    sync: SyncView | None = None
    updates: Updates | None = None
    secrets: list[SecretRow] | None = None
    uses: dict[str, list[str]] = field(default_factory=dict)
    """What asks for a secret on this machine, by the secret's name."""
    doctor: Doctor | None = None


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
        in_order = sorted(results, key=lambda row: row.at)
        newest = in_order[-1]
        for peer in dict.fromkeys(result.peer for result in results):
            last = next(row for row in reversed(in_order) if row.peer == peer)
            rows = [row for row in in_order if (row.peer, row.signed_by) == (peer, last.signed_by)]
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
