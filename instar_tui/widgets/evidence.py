"""Why the lease is valid, or why nobody may act: promises, contradicting records, the last handoff."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import day, fit, fit_right, shown, span
from instar_tui.widgets.vocabulary import step_words

if TYPE_CHECKING:
    from instar_node.api.types import Evidence, LeaseView

OLD_MS = 100
"""Ages of promises are told in tenths of a second: finer digits only flicker."""
COVER = 20
"""Cells of the line that drains as a promise grows old."""
TAPE = 30
"""Cells of the bar on which the steps of a handoff are drawn."""


class Lines(Framed):
    """With a split brain: the records that contradict each other, and the way out."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        split = status.health.split_brain if status is not None else None
        self.display = split is not None
        if split is None:
            return
        yield []
        yield heading("the lines that were seen", width)
        yield [(f"   epoch  {fit('holder', 14)}{fit('from', 18)}{fit('record', 8)}why", "$muted")]
        seen = split.get("seen")
        for row in seen if isinstance(seen, list) else []:
            yield self._row(row)
        yield []
        for number, words in enumerate(
            (
                "Choose the machine whose line is to go on: the one that answered last, if you know it.",
                "Make sure the others are running, or will stay off.",
                "On the chosen one press H. It says what follows, and asks once more.",
            ),
            1,
        ):
            yield [(f"  {number} ", "bold $danger"), (words, "")]
        yield [("    The same in a shell: ", "$muted"), ("instar lease heal", "bold")]

    @staticmethod
    def _row(row: dict[str, Any]) -> Line:
        return [
            (f" {fit_right(shown(str(row.get('epoch_text'))), 7)}  ", "bold $danger"),
            (fit(shown(str(row.get("holder_nickname"))), 14), "bold"),
            (fit(day(str(row.get("at"))), 18), ""),
            (fit(str(row.get("serial")), 8), ""),
            (shown(str(row.get("reason"))), "$muted"),
        ]


class Promises(Framed):
    """Who promised, how long ago, and when this machine could contend."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        counts = status is not None and status.lease.state != "split-brain"  # with two lines no promise does
        self.display = counts and bool(status and status.lease.evidence)
        if status is None or not self.display:
            return
        lease, moved = status.lease, self.mesh.elapsed_ms()
        contends = any(row.may_contend_in_ms is not None for row in lease.evidence)
        yield []
        yield heading("evidence", width)
        more = f"{fit('first saw record', 18)}may contend in" if contends else "covers"
        yield [(f"   {fit('machine', 27)}{fit('promised', 12)}{more}", "$muted")]
        for row in lease.evidence:
            tail = _contending(row, moved) if contends else _covering(row, moved, lease)
            yield [*_promise(row, moved), *tail]


def _promise(row: Evidence, moved: int) -> Line:
    glyph, word, style = ("●", "electorate", "$standby")
    if row.benched:
        glyph, word, style = "◇", "benched", "$needs-you"
    elif not row.in_electorate:
        glyph, word, style = "○", "outside", "$muted"
    ago = row.promised_ms_ago
    promised = "–" if ago is None else f"{span((ago + moved) // OLD_MS * OLD_MS)} ago"
    return [
        (f" {glyph} ", style),
        (fit(shown(row.nickname), 14), ""),
        (fit(word, 13), style),
        (fit(promised, 12), ""),
    ]


def _contending(row: Evidence, moved: int) -> Line:
    saw = "–" if row.first_saw_ms_ago is None else f"{span(row.first_saw_ms_ago + moved)} ago"
    may = row.may_contend_in_ms
    return [
        (fit(saw, 18), ""),
        ("–" if may is None else span(max(0, may - moved) // OLD_MS * OLD_MS), ""),
    ]


def _covering(row: Evidence, moved: int, lease: LeaseView) -> Line:
    """How much of the ttl this promise still covers, draining."""
    if lease.hub.kind == "embedded":
        return [("the lease moves by handoff only", "$muted")]
    if row.promised_ms_ago is None:
        return [("–", "$muted")]
    left = max(0, lease.ttl_ms - row.promised_ms_ago - moved)
    filled = min(COVER, round(left / max(1, lease.ttl_ms) * COVER))
    style = "$awake" if left > lease.ttl_ms / 4 else "$needs-you"
    words = f"  {left / 1000:.1f}s"
    return [("━" * filled, style), ("─" * (COVER - filled), "$faint"), (words, "$muted")]


class LastHandoff(Framed):
    """The last change of holder that this machine took part in, step by step on one time line."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None or not status.handoff.steps:
            return
        last = status.handoff
        source, target = self.mesh.nickname(last.source), self.mesh.nickname(last.target)
        yield []
        yield heading(
            f"last {shown(last.kind or 'handoff')}", width, f"{shown(last.outcome)}, {span(last.took_ms)}"
        )
        where = target if source in ("", target) else f"{source} → {target}"
        yield [(f"   {shown(where)}", "bold"), (f"   {shown(last.reason)}", "$needs-you")]
        whole = max(last.took_ms, last.steps[-1].at_ms, 0.001)
        before = 0.0
        for step in last.steps:
            yield [
                ("   ✔ ", "$awake"),
                (fit(shown(step_words(step.step)), 18), ""),
                (fit_right(span(max(0.0, step.at_ms - before)), 8), ""),
                ("  ", ""),
                *_on_the_tape(before / whole, step.at_ms / whole),
                (f"  {shown(step.note)}", "$muted"),
            ]
            before = step.at_ms


def _on_the_tape(begin: float, end: float) -> Line:
    """A span of time as a block on a line; at least one cell, so that every step is seen."""
    first = min(TAPE - 1, int(begin * TAPE))
    cells = max(1, min(TAPE, round(end * TAPE)) - first)
    return [("─" * first, "$faint"), ("━" * cells, "$awake"), ("─" * (TAPE - first - cells), "$faint")]
