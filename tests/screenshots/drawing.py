"""From a screen of the running program to an SVG that looks the same in every viewer."""

from __future__ import annotations

import re

from textual.app import App

CELL_WIDTH, LINE_HEIGHT, LINE_TOP = 12.2, 24.4, 1.5
"""Geometry of the SVGs that Rich draws."""
FONTS = "ui-monospace, 'Cascadia Mono', Menlo, 'DejaVu Sans Mono', Consolas, monospace"
_TEXT = re.compile(r'<text class="([^"]+)" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>')
_LEFT = " ▏▎▍▌▋▊▉█"
_LOWER = " ▁▂▃▄▅▆▇█"


def picture(app: App[None]) -> str:
    """What is on the screen now."""
    svg = app.export_screenshot(title="instar-tui")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is loaded from elsewhere
    svg = svg.replace("Fira Code, monospace", FONTS)
    svg = re.sub(r"terminal-\d+", "screen", svg)
    svg = _TEXT.sub(_blocks_as_rectangles, svg)
    svg = re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)
    return svg.replace("<text ", '<text xml:space="preserve" ')


def _blocks_as_rectangles(text: re.Match[str]) -> str:
    """Bars and large letters without seams: a terminal draws block elements itself, fonts leave gaps."""
    style, x, y, escaped = text.groups()
    chars = escaped.replace("&#160;", " ")
    if not chars.strip() or any(_box(char) is None for char in chars):
        return text[0]
    top = float(y) - 20 + LINE_TOP
    drawn = []
    for run in re.finditer(r"█+|[^█ ]", chars):
        box = _box(run[0][0])
        assert box is not None
        left, upper, wide, high = box
        wide = wide * CELL_WIDTH if len(run[0]) == 1 else len(run[0]) * CELL_WIDTH
        drawn.append(
            f'<rect class="{style}" x="{float(x) + (run.start() + left) * CELL_WIDTH:.1f}"'
            f' y="{top + upper * LINE_HEIGHT:.1f}" width="{wide:.1f}" height="{high * LINE_HEIGHT + 0.1:.1f}"'
            ' shape-rendering="crispEdges"/>'
        )
    return "".join(drawn)


def _box(char: str) -> tuple[float, float, float, float] | None:
    """Left, top, width and height of a block element, in cells; ``None`` for any other character."""
    if char in _LOWER:
        high = _LOWER.index(char) / 8
        return 0, 1 - high, 1, high
    if char in _LEFT:
        return 0, 0, _LEFT.index(char) / 8, 1
    return {"▀": (0, 0, 1, 0.5), "▐": (0.5, 0, 0.5, 1), "▕": (7 / 8, 0, 1 / 8, 1)}.get(char)
