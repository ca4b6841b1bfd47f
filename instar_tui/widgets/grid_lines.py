"""How the lines of a table look, and drawing them: no state, so that equal looks can share one drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip

from instar_tui.widgets.text import Part, fit, fit_right

Row = TypeVar("Row")
Cell = str | Part


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        title: Its heading.
        width: Cells; with ``flex``, the least.
        cell: The text, or text and style, of a row.
        sort: Sort key of a row; ``None`` where sorting makes no sense.
        right: Align right (numbers).
        flex: Share of the width left over.
        wide: Least table width at which the column is shown.
    """

    title: str
    width: int
    cell: Callable[[Row], Cell]
    sort: Callable[[Row], Any] | None = None
    right: bool = False
    flex: int = 0
    wide: int = 0


class Heading(NamedTuple):
    """The first line: the titles, or the filter."""

    titles: tuple[str, ...]
    filter: str
    typing: bool
    matches: str
    """How many rows pass the filter, of how many."""


class Cells(NamedTuple):
    """A row."""

    cells: tuple[Cell, ...]
    current: bool
    focused: bool


class Note(NamedTuple):
    """A line without a row, and what it says."""

    text: str


Look = Heading | Cells | Note


class Canvas(NamedTuple):
    """What all lines of one painting share.

    Attributes:
        width: Cells of a line.
        columns: Those that are shown, each with its cells.
        base: The style beneath everything.
        theme: Name of the theme that gives styles their colours.
        style: The colours of a style.
    """

    width: int
    columns: tuple[tuple[Column[Any], int], ...]
    base: RichStyle
    theme: str
    style: Callable[[str], RichStyle]


def lay_out(columns: Sequence[Column[Any]], width: int) -> tuple[tuple[Column[Any], int], ...]:
    """The columns that a table of this width shows, each with its cells."""
    shown = [column for column in columns if width >= column.wide]
    spare = max(0, width - 2 - sum(column.width + 2 for column in shown))
    shares = max(1, sum(column.flex for column in shown))
    return tuple((column, column.width + spare * column.flex // shares) for column in shown)


def draw(look: Look, canvas: Canvas) -> Strip:
    """The line that looks so."""
    match look:
        case Heading():
            return _heading(look, canvas)
        case Note():
            style = canvas.base + canvas.style("$muted")
            return Strip([Segment(fit(f"   {look.text}", canvas.width), style)], canvas.width)
        case Cells():
            return _row(look, canvas)


def _heading(look: Heading, canvas: Canvas) -> Strip:
    width, style = canvas.width, "$muted"
    if look.typing or look.filter:
        caret = "▏" if look.typing else ""
        style = "bold $needs-you"
        text = fit(f"  / {look.filter}{caret}", width - len(look.matches) - 2) + look.matches
    else:
        titles = zip(look.titles, canvas.columns, strict=True)
        text = "  " + "".join(f"{_aligned(title, column, room)}  " for title, (column, room) in titles)
    return Strip([Segment(fit(text, width), canvas.base + canvas.style(style))], width)


def _row(look: Cells, canvas: Canvas) -> Strip:
    base, width = canvas.base, canvas.width
    if look.current:
        base = base + canvas.style("on $cursor" + (" bold" if look.focused else ""))
    mark = "▌ " if look.current else "  "
    segments = [Segment(mark, base + canvas.style("$awake" if look.focused else "$muted"))]
    used = 2
    for cell, (column, room) in zip(look.cells, canvas.columns, strict=True):
        text, style = (cell, "") if isinstance(cell, str) else cell
        segments.append(Segment(_aligned(text, column, room), base + canvas.style(style) if style else base))
        segments.append(Segment("  ", base))
        used += room + 2
    if used < width:
        segments.append(Segment(" " * (width - used), base))
    return Strip(segments).crop(0, width)


def _aligned(text: str, column: Column[Any], room: int) -> str:
    return fit_right(text, room) if column.right else fit(text, room)
