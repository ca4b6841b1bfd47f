"""A conversation as lines: wrapped once per width, drawn only where in sight, following the newest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from instar_tui.widgets.live import Line
from instar_tui.widgets.text import clock, fit, shown, shown_lines
from instar_tui.widgets.vocabulary import delivery_mark

if TYPE_CHECKING:
    from instar_node.api.types import Message


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


def message_lines(message: Message, width: int, here: str) -> Iterable[Line]:
    """A message: who, where, when and its state; then its words behind a coloured edge."""
    agent = message.role == "agent"
    colour = "$awake" if agent else "$standby"
    who = f"agent on {shown(message.machine)}" if agent else "you"
    line: Line = [
        (f" {who}", f"bold {colour}"),
        (f"  {clock(message.at)}  epoch {message.epoch}", "$muted"),
    ]
    if not agent and message.machine_id != here:
        line.append((f"  taken by {shown(message.machine)}", "$muted"))
    if message.state is not None:
        mark = delivery_mark(message.state)
        line.append((f"   {mark.glyph} {mark.word}", mark.style))
    yield line
    for words in wrap(message.text, max(10, width - 5)):
        yield [(" ▌ ", colour), (words, "")]
    yield []


class Transcript(ScrollView, can_focus=True):
    """The messages of one topic."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._messages: list[Message] = []
        self._here = ""
        self._lines: list[Line] = []
        self._empty = ""

    def set_messages(self, messages: Sequence[Message], here: str, empty: str) -> None:
        """Show these; stays at the end if it was there."""
        if list(messages) == self._messages and empty == self._empty:
            return
        self._messages, self._here, self._empty = list(messages), here, empty
        self._wrap()

    def _wrap(self) -> None:
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1
        width = self.scrollable_content_region.width
        self._lines = [line for m in self._messages for line in message_lines(m, width, self._here)]
        self.virtual_size = Size(0, len(self._lines))
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False, immediate=True, x_axis=False)
        self.refresh()

    def on_resize(self) -> None:
        self._wrap()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        index = y + int(self.scroll_offset.y)
        base = self.rich_style
        parse = self.app.stylesheet.parse_style
        if not self._messages and y == 1:
            return Strip([Segment(fit(f"   {self._empty}", width), base + parse("$muted").rich_style)], width)
        line = self._lines[index] if index < len(self._lines) else []
        segments = [Segment(text, base + parse(style).rich_style if style else base) for text, style in line]
        return Strip(segments).adjust_cell_length(width, base)
