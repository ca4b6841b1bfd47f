"""A table that draws only the lines in sight: sort, filter, cursor; thousands of rows cost nothing.

Textual's ``DataTable`` re-renders every visible cell when one changes; this one keeps plain row objects and
turns the visible ones into lines when they are painted (the Line API).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
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


class Grid(ScrollView, Generic[Row], can_focus=True):
    """Rows of objects under fixed columns; the cursor stays on its row when rows change around it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False),
        Binding("home,g", "edge(0)", "top", show=False),
        Binding("end,G", "edge(1)", "bottom", show=False),
    ]

    class Chosen(Message):
        """A row was clicked twice."""

        def __init__(self, grid: Grid[Any], key: str) -> None:
            super().__init__()
            self.grid = grid
            self.key = key

    class Moved(Message):
        """The cursor went to another row."""

        def __init__(self, grid: Grid[Any]) -> None:
            super().__init__()
            self.grid = grid

    class Typing(Message):
        """A filter is being typed, or is no more."""

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        key: Callable[[Row], str],
        *,
        empty: str = "nothing here yet",
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self._columns = list(columns)
        self._key = key
        self._empty = empty
        self._all: list[Row] = []
        self._rows: list[Row] = []
        self._cursor_key: str | None = None
        self._cursor = 0
        self._sort: int | None = None
        self._reverse = False
        self._filter = ""
        self._typing = False

    # -- data ---------------------------------------------------------------------------------------------

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Replace all rows; cursor, filter and order stay."""
        self._all = list(rows)
        self._arrange()

    @property
    def rows(self) -> list[Row]:
        """The rows in sight of filter and order."""
        return self._rows

    @property
    def selected(self) -> Row | None:
        """The row under the cursor."""
        return self._rows[self._cursor] if self._rows else None

    def select(self, key: str) -> None:
        """Put the cursor on the row with this key, if there is one."""
        self._cursor_key = key
        self._arrange()

    def _arrange(self) -> None:
        rows = [row for row in self._all if self._passes(row)] if self._filter else list(self._all)
        if self._sort is not None and (sort := self._columns[self._sort].sort) is not None:
            rows.sort(key=sort, reverse=self._reverse)
        self._rows = rows
        found = next((i for i, row in enumerate(rows) if self._key(row) == self._cursor_key), None)
        self._cursor = found if found is not None else max(0, min(self._cursor, len(rows) - 1))
        if rows:
            self._cursor_key = self._key(rows[self._cursor])
        self.virtual_size = Size(0, len(rows) + 1)
        self.refresh()

    def _passes(self, row: Row) -> bool:
        wanted = self._filter.lower()
        inverse = wanted.startswith("!")
        words = wanted.lstrip("!").split()
        text = " ".join(_text(column.cell(row)) for column in self._columns).lower()
        return (not words) or all(word in text for word in words) != inverse

    # -- order and filter ---------------------------------------------------------------------------------

    def sort_next(self) -> None:
        """Order by the next column that can be sorted; after the last, back to the given order."""
        start = -1 if self._sort is None else self._sort
        following = (i for i in range(start + 1, len(self._columns)) if self._columns[i].sort is not None)
        self._sort = next(following, None)
        self._arrange()

    def sort_reverse(self) -> None:
        """Turn the order round."""
        self._reverse = not self._reverse
        self._arrange()

    def start_filter(self) -> None:
        """Take the following keys as the filter, until enter or escape."""
        self._typing = True
        self.focus()
        self.refresh()
        self.post_message(self.Typing())

    def clear_filter(self) -> bool:
        """Drop the filter; ``False`` if there was none."""
        had = bool(self._filter) or self._typing
        self._filter, self._typing = "", False
        self._arrange()
        self.post_message(self.Typing())
        return had

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        return self._typing and character is not None and character.isprintable()

    async def _on_key(self, event: events.Key) -> None:
        if not self._typing:
            return
        if event.key == "escape":
            self.clear_filter()
        elif event.key == "enter":
            self._typing = False
            self.post_message(self.Typing())
        elif event.key == "backspace":
            self._filter = self._filter[:-1]
        elif event.is_printable and event.character:
            self._filter += event.character
        else:
            return
        event.stop()
        event.prevent_default()
        self._arrange()

    # -- cursor -------------------------------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        self._go(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._go(self._cursor + by * max(1, self.size.height - 2))

    def action_edge(self, end: int) -> None:
        self._go(len(self._rows) - 1 if end else 0)

    def _go(self, index: int) -> None:
        if not self._rows:
            return
        self._cursor = max(0, min(index, len(self._rows) - 1))
        self._cursor_key = self._key(self._rows[self._cursor])
        self._reveal()
        self.refresh()
        self.post_message(self.Moved(self))

    def _reveal(self) -> None:
        """Scroll as little as brings the cursor into sight."""
        view = max(1, self.size.height - 1)
        top = int(self.scroll_offset.y)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, immediate=True)
        elif self._cursor >= top + view:
            self.scroll_to(y=self._cursor - view + 1, animate=False, immediate=True)

    def on_resize(self) -> None:
        self._reveal()

    def on_click(self, event: events.Click) -> None:
        index = event.y - 1 + int(self.scroll_offset.y)
        if event.y > 0 and index < len(self._rows):
            again = index == self._cursor and event.chain > 1
            self._go(index)
            if again:
                self.post_message(self.Chosen(self, self._key(self._rows[index])))

    # -- drawing ------------------------------------------------------------------------------------------

    def _layout(self, width: int) -> list[tuple[Column[Row], int]]:
        shown = [column for column in self._columns if width >= column.wide]
        spare = width - 2 - sum(column.width + 2 for column in shown)
        shares = sum(column.flex for column in shown)
        laid = []
        for column in shown:
            more = spare * column.flex // shares if shares and spare > 0 else 0
            laid.append((column, column.width + more))
        return laid

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        base = self.rich_style
        if y == 0:
            return self._header(width, base)
        index = y - 1 + int(self.scroll_offset.y)
        if index >= len(self._rows):
            note = self._empty if not self._rows and y == 1 else ""
            if note and self._filter:
                note = f"nothing matches {self._filter!r}; esc shows all"
            return Strip([Segment(fit(f"   {note}", width), base + self._style("$muted"))], width)
        return self._line(self._rows[index], index == self._cursor, width, base)

    def _header(self, width: int, base: RichStyle) -> Strip:
        style = base + self._style("$muted")
        if self._typing or self._filter:
            count = f"{len(self._rows)} of {len(self._all)}"
            caret = "▏" if self._typing else ""
            text = fit(f"  / {self._filter}{caret}", width - len(count) - 2) + count
            return Strip([Segment(fit(text, width), base + self._style("bold $needs-you"))], width)
        text = "  "
        for column, cells in self._layout(width):
            title = column.title
            if self._sort is not None and column is self._columns[self._sort]:
                title += "▼" if self._reverse else "▲"
            text += (fit_right(title, cells) if column.right else fit(title, cells)) + "  "
        return Strip([Segment(fit(text, width), style)], width)

    def _line(self, row: Row, current: bool, width: int, base: RichStyle) -> Strip:
        focused = current and self.has_focus
        if current:
            base = base + self._style("on $cursor" + (" bold" if focused else ""))
        segments = [Segment("▌ " if current else "  ", base + self._style("$awake" if focused else "$muted"))]
        used = 2
        for column, cells in self._layout(width):
            cell = column.cell(row)
            text, style = (cell, "") if isinstance(cell, str) else cell
            aligned = fit_right(text, cells) if column.right else fit(text, cells)
            segments.append(Segment(aligned, base + self._style(style) if style else base))
            segments.append(Segment("  ", base))
            used += cells + 2
        if used < width:
            segments.append(Segment(" " * (width - used), base))
        return Strip(segments).crop(0, width)

    def _style(self, style: str) -> RichStyle:
        return self.app.stylesheet.parse_style(style).rich_style

    def watch_has_focus(self, focused: bool) -> None:
        super().watch_has_focus(focused)
        self.refresh()


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]
