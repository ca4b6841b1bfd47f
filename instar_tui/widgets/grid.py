"""A table that draws only the lines in sight: sort, filter, cursor; thousands of rows cost nothing.

Textual's ``DataTable`` renders every visible cell again when one changes. This one keeps plain row objects,
makes lines of the visible ones when they are painted (the Line API), and paints only those that look
otherwise than before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic

from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from instar_tui.widgets.grid_lines import Canvas, Cell, Cells, Column, Heading, Look, Note, Row, draw, lay_out

LINES_KEPT = 512
"""Drawn lines that are kept for when a line looks so again."""


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

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Moved(Message):
        """The cursor went to another row."""

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
        self._canvas: Canvas | None = None
        self._painted: dict[int, Look] = {}
        """How each line looked when it was painted last, by its place in sight."""
        self._drawn: LRUCache[tuple[object, ...], Strip] = LRUCache(LINES_KEPT)

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
        self._repaint()

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

    @property
    def _filtering(self) -> bool:
        return self._typing or bool(self._filter)

    def start_filter(self) -> None:
        """Take the following keys as the filter, until enter or escape."""
        self._typing = True
        self.focus()
        self.refresh()
        self.post_message(self.Typing())

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        return self._typing and character is not None and character.isprintable()

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "escape" and self._filtering:
            self._filter, self._typing = "", False
            self.post_message(self.Typing())
        elif not self._typing:
            return
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
        self.screen.post_message(self.Moved())  # first, and straight: what follows it is in the same frame
        self._reveal()
        self._repaint()

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
                self.post_message(self.Chosen(self._key(self._rows[index])))

    # -- drawing ------------------------------------------------------------------------------------------

    def _repaint(self) -> None:
        """Have the lines painted that no longer look as they did."""
        canvas = self._prepare()
        height = self.scrollable_content_region.height
        changed = [y for y in range(height) if self._painted.get(y) != self._look(y, canvas)]
        if changed:
            self.refresh(*(Region(0, y, canvas.width, 1) for y in changed))

    def _prepare(self) -> Canvas:
        width = self.scrollable_content_region.width
        columns = lay_out(self._columns, width)
        return Canvas(width, columns, self.rich_style, self.app.theme, self._style)

    def _look(self, y: int, canvas: Canvas) -> Look:
        """Of the line at this place in sight."""
        if y == 0:
            count = f"{len(self._rows)} of {len(self._all)}" if self._filtering else ""
            titles = tuple(self._title(column) for column, _ in canvas.columns)
            return Heading(titles, self._filter, self._typing, count)
        index = y - 1 + int(self.scroll_offset.y)
        if index < len(self._rows):
            row, current = self._rows[index], index == self._cursor
            cells = tuple(column.cell(row) for column, _ in canvas.columns)
            return Cells(cells, current, current and self.has_focus)
        note = self._empty if not self._rows and y == 1 else ""
        return Note(f"nothing matches {self._filter!r}; esc shows all" if note and self._filter else note)

    def _title(self, column: Column[Any]) -> str:
        if self._sort is None or column is not self._columns[self._sort]:
            return column.title
        return column.title + ("▼" if self._reverse else "▲")

    def render_lines(self, crop: Region) -> list[Strip]:
        self._canvas = self._prepare()
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        canvas = self._canvas or self._prepare()
        look = self._painted[y] = self._look(y, canvas)
        key = (look, canvas.width, canvas.base, canvas.theme)
        strip = self._drawn.get(key)
        if strip is None:
            strip = self._drawn[key] = draw(look, canvas)
        return strip

    def _style(self, style: str) -> RichStyle:
        return self.app.stylesheet.parse_style(style).rich_style

    def watch_has_focus(self, focused: bool) -> None:
        super().watch_has_focus(focused)
        self.refresh()


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]
