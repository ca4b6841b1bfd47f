"""A conversation as lines: wrapped once per width, drawn only where in sight, following the newest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from instar_node.coordination.record import epoch_text
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import clock, fit, shown, wrap
from instar_tui.widgets.vocabulary import delivery_mark

if TYPE_CHECKING:
    from instar_node.api.types import Message


def message_lines(message: Message, width: int, here: str) -> Iterable[Line]:
    """A message: who, where, when and its state; then its words behind a coloured edge."""
    agent = message.role == "agent"
    colour = "$awake" if agent else "$standby"
    who = f"agent on {shown(message.machine)}" if agent else "you"
    line: Line = [
        (f" {who}", f"bold {colour}"),
        (f"  {clock(message.at)}  epoch {epoch_text(message.epoch)}", "$muted"),
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
    """The messages of one topic; text in it can be selected with the mouse."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._messages: list[Message] = []
        self._here = ""
        self._lines: list[Line] = []
        self._empty = ""
        self._following = True

    def set_messages(self, messages: Sequence[Message], here: str, empty: str) -> None:
        """Show these; stays at the end if it was there."""
        if list(messages) == self._messages and empty == self._empty:
            return
        self._messages, self._here, self._empty = list(messages), here, empty
        self._wrap()

    def _wrap(self) -> None:
        width = self.scrollable_content_region.width
        self._lines = [line for m in self._messages for line in message_lines(m, width, self._here)]
        self.virtual_size = Size(0, len(self._lines))
        self.refresh()
        if self._following:
            self.call_after_refresh(self._to_end)

    def _to_end(self) -> None:
        # Forced, for the scrollbar without which Textual does not scroll comes with the next layout only.
        self.scroll_to(y=self.max_scroll_y, animate=False, force=True, immediate=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Going up stops following the newest message; coming back to the end takes it up again."""
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value:
            self._following = False
        elif new_value >= self.max_scroll_y - 1:
            self._following = True

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
        strip = Strip(segments).adjust_cell_length(width, base)
        return self._selected(strip, index).apply_offsets(0, index)

    def _selected(self, strip: Strip, index: int) -> Strip:
        span = self.text_selection.get_span(index) if self.text_selection is not None else None
        if span is None:
            return strip
        start, end = span[0], strip.cell_length if span[1] == -1 else span[1]
        before, inside, after = strip.divide([start, end, strip.cell_length])
        style = self.screen.get_component_rich_style("screen--selection")
        return Strip.join([before, inside.apply_style(style), after])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        lines = ("".join(text for text, _ in line) for line in self._lines)
        return selection.extract("\n".join(lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()
