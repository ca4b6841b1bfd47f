"""``?``: every key, what it does, and the command that does the same."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen

from instar_tui.actions import ACTIONS, EVERYWHERE, PLACES, Action
from instar_tui.widgets.chrome import length
from instar_tui.widgets.live import Line, Live, hanging, heading
from instar_tui.widgets.text import fit

if TYPE_CHECKING:
    from instar_tui.app import InstarApp

BESIDE = 100
"""Cells from which on the command stands beside the words."""
COMMAND = 40
"""Cells of a command beside the words."""
_TITLES = {place.name: f"{place.key} {place.title}" for place in PLACES}


class Keys(Live):
    """The whole table of actions."""

    def build(self, width: int) -> Iterable[Line]:
        app = cast("InstarApp", self.app)
        yield heading("in every table", width)
        yield [
            ("   j k ↑ ↓ ", "bold $awake"),
            (" move  ", ""),
            ("g G", "bold $awake"),
            (" top, bottom  ", ""),
            ("enter", "bold $awake"),
            (" open  ", ""),
            ("/", "bold $awake"),
            (" filter (! inverts)", ""),
        ]
        here = app.current_mode
        own = [action for action in ACTIONS if action.scope != EVERYWHERE and action.on(here)]
        if own:
            yield from _group(app, f"on this screen: {_TITLES[here]}", own, width)
        for group, members in groupby(ACTIONS, key=lambda action: action.group):
            yield from _group(app, group.lower(), members, width)


def _group(app: InstarApp, title: str, members: Iterable[Action], width: int) -> Iterable[Line]:
    """A heading and its actions; the command beside or, where it is narrow, below."""
    yield []
    yield heading(title, width)
    for action in members:
        key = app.key_of(action).replace("left_square_bracket", "[").replace("ctrl+", "^")
        where = "" if action.scope == EVERYWHERE else f"  ({_TITLES.get(action.scope, action.scope)})"
        words = f"{action.tooltip}{where}"
        mark = (f"   {fit(key, 7)}", "bold $awake" if app.allows(action) else "$faint")
        if width >= BESIDE:
            first, *rest = hanging(mark, words, "", width - COMMAND)
            gap = " " * (width - COMMAND - length(first))
            yield [*first, (gap, ""), (fit(action.cli, COMMAND), "$muted")]
            yield from rest
            continue
        yield from hanging(mark, words, "", width)
        if action.cli:
            yield [("          ", ""), (action.cli, "$muted")]


class HelpScreen(ModalScreen[None]):
    """All keys, scrollable."""

    DEFAULT_CSS = "HelpScreen { align: center middle; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1,enter", "close", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue help") as box:
            box.border_title = " keys "
            box.border_subtitle = " esc closes · j k scroll "
            with VerticalScroll():
                yield Keys()

    def action_close(self) -> None:
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by * 2, animate=False)
