"""Words and marks for people: durations, times, bars, and (from ``safe_text``) text of others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.cells import cell_len, chop_cells, set_cell_size

from instar_tui.safe_text import shown as shown
from instar_tui.safe_text import shown_lines as shown_lines

Part = tuple[str, str]
"""A piece of text and its style (``""`` for none). Never parsed as markup."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SPARKS = "▁▂▃▄▅▆▇█"


def wrap(text: str, width: int) -> list[str]:
    """Words wrapped to cells, long words chopped, line breaks kept, control characters shown."""
    out: list[str] = []
    for paragraph in shown_lines(text):
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if cell_len(joined) <= width:
                line = joined
                continue
            if line:
                out.append(line)
            *whole, line = chop_cells(word, width) or [""]
            out.extend(whole)
        out.append(line)
    return out


def fit(text: str, width: int) -> str:
    """Exactly ``width`` cells: padded, or cut with an ellipsis (wide characters counted as two)."""
    if width <= 0:
        return ""
    if cell_len(text) > width:
        return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)
    return set_cell_size(text, width)


def fit_right(text: str, width: int) -> str:
    """As ``fit``, aligned right."""
    length = cell_len(text)
    return " " * (width - length) + text if length < width else fit(text, width)


def plural(count: int, word: str, many: str = "") -> str:
    """``1 topic``, ``2 topics``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {many or word + 's'}"


def span(ms: float | None) -> str:
    """A duration in the words people use: ``12ms``, ``0.4s``, ``41s``, ``3h 12m``; ``–`` if unknown."""
    if ms is None:
        return "–"
    if ms < 100:
        return f"{ms:.1f}ms" if 0 < ms < 10 and ms != int(ms) else f"{ms:.0f}ms"
    if ms < 9_950:
        return f"{ms / 1000:.1f}s"
    seconds = round(ms / 1000)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m" if minutes >= 10 or not seconds else f"{minutes}m {seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h"


def ago(ms: float | None) -> str:
    """``2h ago``; seconds are not split below a second for ages that merely pass by."""
    if ms is None:
        return "never"
    return "now" if ms < 1_000 else f"{age(ms)} ago"


def ago_of(iso: str | None, now: datetime | None = None) -> str:
    """How long ago an API time was, by this machine's wall clock."""
    moment = _local(iso)
    if moment is None:
        return "never"
    return ago(max(0.0, ((now or datetime.now().astimezone()) - moment).total_seconds() * 1_000))


def age(ms: float | None) -> str:
    """An age in one unit, for columns: ``0s``, ``2s``, ``4m``, ``2h``, ``3d``."""
    if ms is None:
        return "–"
    seconds = int(ms // 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def size(count: int) -> str:
    """Bytes: ``0 B``, ``4.2 kB``, ``1.3 MB``."""
    if count < 1_000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1_000:.1f} kB"
    return f"{count / 1_000_000:.1f} MB"


def clock(iso: str | None) -> str:
    """The local time of day of an API time, ``16:58:03``."""
    moment = _local(iso)
    return moment.strftime("%H:%M:%S") if moment else "–"


def day(iso: str | None, now: datetime | None = None) -> str:
    """Day and time: ``today 14:02``, ``yesterday 22:10``, ``12 Nov 09:31``."""
    moment = _local(iso)
    if moment is None:
        return "–"
    today = (now or datetime.now().astimezone()).date()
    days = (today - moment.date()).days
    word = {0: "today", 1: "yesterday"}.get(days) or moment.strftime("%d %b")
    return f"{word} {moment:%H:%M}"


def _local(iso: str | None) -> datetime | None:
    if not iso:
        return None
    try:
        return datetime.fromisoformat(iso.replace("Z", "+00:00")).astimezone()
    except ValueError:
        return None


def bar(fraction: float, width: int) -> tuple[str, str]:
    """Filled and empty part of a bar, to an eighth of a cell."""
    fraction = min(1.0, max(0.0, fraction))
    eighths = round(fraction * width * 8)
    whole, rest = divmod(eighths, 8)
    filled = "█" * whole + (_EIGHTHS[rest] if rest else "")
    return filled, " " * (width - len(filled))


def spark(values: Sequence[float], width: int, ceiling: float | None = None) -> str:
    """The last ``width`` values as a row of blocks; an all-zero row is flat."""
    recent = list(values)[-width:]
    top = ceiling or max(recent, default=0) or 1
    marks = "".join(_SPARKS[min(7, int(value / top * 7.99))] for value in recent)
    return marks.rjust(width, _SPARKS[0])


def dots(left: int, total: int) -> str:
    """Attempts left: ``●●○``."""
    left = max(0, min(left, total))
    return "●" * left + "○" * (total - left)
