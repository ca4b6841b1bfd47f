"""Lag over the last minutes on a logarithmic scale, with the line it should stay under."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import shown, span

if TYPE_CHECKING:
    from instar_tui.state import Sample

TARGET_MS = 40
"""The lag a copy should stay under (99 of 100 entries, at 200 messages a second)."""
WINDOW_MS = 5 * 60_000
MOST_ROWS = 24
_BLOCKS = " ▁▂▃▄▅▆▇█"
FLOOR_MS, CEILING_MS = 1.0, 10_000.0
_LABELS = {1: "1ms", 10: "10ms", 100: "100ms", 1_000: "1s", 10_000: "10s"}


def height_of(lag_ms: float, rows: int) -> float:
    """Where a lag lies on the scale, in rows from the bottom."""
    if lag_ms <= 0:
        return 0.0
    place = math.log(max(FLOOR_MS, lag_ms) / FLOOR_MS) / math.log(CEILING_MS / FLOOR_MS)
    return min(1.0, place) * rows


def buckets(samples: Sequence[Sample], columns: int, window_ms: int, now_ms: int) -> list[int | None]:
    """The worst lag of each column's slice of the window; ``None`` before the first sample.

    Between samples the last one holds, so a quiet mesh draws a line and not holes.
    """
    slots: list[int | None] = [None] * columns
    step = window_ms / columns
    for sample in samples:
        index = columns - 1 - int((now_ms - sample.at_ms) / step)
        if 0 <= index < columns:
            slots[index] = max(sample.lag_ms, slots[index] or 0)
    before = [sample for sample in samples if now_ms - sample.at_ms >= window_ms]
    last = before[-1].lag_ms if before else None
    for index, value in enumerate(slots):
        if value is None:
            slots[index] = last
        else:
            last = value
    return slots


def plot(
    samples: Sequence[Sample], width: int, rows: int, *, window_ms: int, now_ms: int, target_ms: int
) -> list[Line]:
    """The chart as lines, axis labels at the left, minutes below."""
    gutter = 7
    columns = max(10, width - gutter - 2)
    heights = [
        None if lag is None else (lag, height_of(lag, rows))
        for lag in buckets(samples, columns, window_ms, now_ms)
    ]
    target_row = min(rows - 1, int(height_of(target_ms, rows)))
    labels = {min(rows - 1, round(height_of(ms, rows))): text for ms, text in _LABELS.items()}
    labels[target_row] = f"{target_ms}ms"
    lines: list[Line] = []
    for row in range(rows - 1, -1, -1):
        axis = "┄" if row == target_row else "│"
        line: Line = [
            (labels.get(row, "").rjust(gutter - 1), "$muted"),
            (axis, "$needs-you" if row == target_row else "$faint"),
        ]
        line += _row(heights, row, row == target_row, target_ms)
        lines.append(line)
    minutes = window_ms // 60_000
    left, right = f"{minutes}m ago", "now"
    lines.append([(" " * gutter, ""), (left + " " * (columns - len(left) - len(right)) + right, "$muted")])
    return lines


def _row(heights: Sequence[tuple[int, float] | None], row: int, target: bool, target_ms: int) -> Line:
    """One row of blocks, neighbours of one colour joined into one part."""
    line: Line = []
    for entry in heights:
        fill = 0.0 if entry is None else entry[1] - row
        if entry is not None and row == 0:
            fill = max(fill, 0.12)
        char = _BLOCKS[max(0, min(8, math.ceil(fill * 8)))]
        style = "$needs-you" if entry is not None and entry[0] > target_ms else "$awake"
        if char == " ":
            char, style = ("┄", "$needs-you") if target else (" ", "")
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + char, style)
        else:
            line.append((char, style))
    return line


class LagChart(Framed):
    """One copy's lag over the last minutes."""

    def watched(self) -> str | None:
        """The machine whose lag is drawn."""
        raise NotImplementedError

    def build(self, width: int) -> Iterable[Line]:
        machine_id = self.watched()
        if machine_id is None:
            return
        now = self.mesh.now_ms()
        samples = list(self.mesh.samples.get(machine_id, ()))
        worst = max((s.lag_ms for s in samples if s.at_ms > now - WINDOW_MS), default=0)
        name = shown(self.mesh.nickname(machine_id))
        yield heading(f"lag of {name}", width, f"worst {span(worst)}, target {TARGET_MS}ms")
        rows = max(4, min(MOST_ROWS, self.size.height - 2))
        yield from plot(samples, width, rows, window_ms=WINDOW_MS, now_ms=now, target_ms=TARGET_MS)


class WorstLag(LagChart):
    """The lag of the standby that is furthest behind."""

    def watched(self) -> str | None:
        worst = max(self.mesh.standbys(), key=lambda m: m.lag.ms if m.lag else 0, default=None)
        return worst.machine_id if worst else None
