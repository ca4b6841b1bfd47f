"""How commands answer: JSON when asked, a table for people, plain aligned text for everything else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from instar_tui.safe_text import shown

GAP = "  "


class Output:
    """Writes to stdout. Text that came from peers or messages is shown, never obeyed, by every method."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def rich(self) -> bool:
        """Whether stdout is a terminal that may be given colours."""
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def json(self, content: Any) -> None:
        """One indented JSON document."""
        click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2))

    def json_line(self, content: Any) -> None:
        """One JSON document on one line, for commands that answer more than once."""
        click.echo(msgspec.json.encode(content))

    def line(self, text: str = "") -> None:
        """One line."""
        click.echo(shown(text))

    def fields(self, pairs: Iterable[tuple[str, str | None]]) -> None:
        """``name  value`` lines, aligned; a ``None`` value leaves its line out."""
        known = [(name, value) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            click.echo(f"{name:<{width}}{GAP}{shown(value)}".rstrip())

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "") -> None:
        """Aligned columns; ``empty`` is said instead when there are no rows."""
        cells = [[shown(cell) for cell in row] for row in rows]
        if not cells:
            click.echo(empty)
        elif self.rich:
            _rich_table(headers, cells)
        else:
            _plain_table(headers, cells)


def note(text: str) -> None:
    """A line on stderr, for what is not part of the answer."""
    click.echo(shown(text), err=True)


def _plain_table(headers: Sequence[str], rows: list[list[str]]) -> None:
    from rich.cells import cell_len

    from instar_tui.widgets.text import fit

    lines = [[header.upper() for header in headers], *rows]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        click.echo(GAP.join(fit(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(headers: Sequence[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
