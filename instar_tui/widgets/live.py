"""A widget that draws lines from data, and repaints only when they differ."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from textual.app import RenderResult
from textual.content import Content
from textual.widget import Widget

from instar_tui.widgets.text import Part, wrap

Line = list[Part]


class Live(Widget):
    """Draws what ``build`` returns: one list of styled parts a line.

    ``sync`` builds again and asks for a repaint only when text or styles changed, so that a tick that changes
    nothing costs nothing. Text is never parsed as markup.
    """

    DEFAULT_CSS = """
    Live { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._lines: list[Line] = []
        self._drawn = Content("")

    def build(self, width: int) -> Iterable[Line]:
        """The lines to draw at this width."""
        raise NotImplementedError

    def sync(self) -> None:
        """Build again; repaint if anything changed."""
        width = self.size.width or self.app.size.width
        lines = list(self.build(width))
        if lines == self._lines:
            return
        resized = len(lines) != len(self._lines)
        self._lines = lines
        parts: list[Part | str] = []
        for index, line in enumerate(lines):
            if index:
                parts.append("\n")
            parts.extend(line)
        self._drawn = Content.assemble(*parts)
        self.refresh(layout=resized)

    def on_mount(self) -> None:
        self.sync()

    def on_resize(self) -> None:
        self.sync()

    def render(self) -> RenderResult:
        return self._drawn


def heading(title: str, width: int, note: str = "") -> Line:
    """A section title on a thin rule, with a remark at its right end."""
    rule = max(0, width - len(title) - 4 - (len(note) + 2 if note else 0))
    line: Line = [(f" {title} ", "bold $muted"), ("─" * rule, "$faint")]
    if note:
        line.append((f" {note} ", "$muted"))
    return line


def hanging(mark: Part, words: str, style: str, width: int) -> list[Line]:
    """A mark and the words behind it, wrapped; what follows stands below the first word."""
    indent = cell_len(mark[0])
    first, *rest = wrap(words, max(10, width - indent - 1))
    return [[mark, (first, style)], *([(" " * indent, ""), (line, style)] for line in rest)]
