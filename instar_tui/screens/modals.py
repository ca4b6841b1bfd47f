"""Small dialogues: a choice by one key, a pick by digit, one line of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from instar_tui.widgets.live import Line, Live
from instar_tui.widgets.text import shown


class Choice(NamedTuple):
    """One answer: its key, its words, and the value the dialogue returns."""

    key: str
    label: str
    value: str


PICK_KEYS = [*"123456789abcdefghijklmnopqrstuvwxyz"]
"""What picks the first, the second and so on; more machines than keys are found by name in the palette."""
YES_NO = (Choice("y", "yes", "yes"), Choice("n", "no", ""))


class Words(Live):
    """Fixed lines; long ones wrap."""

    def __init__(self, lines: Iterable[Line], *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._words = list(lines)

    def build(self, width: int) -> Iterable[Line]:
        return self._words


class ChoiceScreen(ModalScreen[str]):
    """Says what will happen and takes one key. Escape is always the harmless answer (``""``)."""

    DEFAULT_CSS = "ChoiceScreen { align: center middle; }"

    def __init__(
        self, title: str, lines: Sequence[str], choices: Sequence[Choice], *, danger: bool = False
    ) -> None:
        super().__init__()
        self._title = title
        self._text = lines
        self._choices = choices
        self._danger = danger

    def compose(self) -> ComposeResult:
        accent = "$danger" if self._danger else "$needs-you"
        with Vertical(classes="dialogue danger" if self._danger else "dialogue"):
            yield Words([[(shown(self._title), f"bold {accent}")]], classes="wrap")
            yield Words([[(shown(line), "")] for line in self._text], classes="wrap gap")
            yield Words([self._answer(choice) for choice in self._choices], classes="gap")

    @staticmethod
    def _answer(choice: Choice) -> Line:
        key = "esc" if choice.key == "escape" else choice.key
        return [(f" {key:>3} ", "bold $awake"), (f" {shown(choice.label)}", "")]

    def on_key(self, event: events.Key) -> None:
        event.stop()
        chosen = next((c for c in self._choices if c.key == event.key), None)
        if chosen is not None:
            self.dismiss(chosen.value)
        elif event.key in ("escape", "n"):
            self.dismiss("")


class Options(Live):
    """A question and its numbered answers, on as many lines as they need."""

    def __init__(self, title: str, options: Sequence[str]) -> None:
        super().__init__(classes="picker")
        self._title = title
        self._options = options

    def build(self, width: int) -> Iterable[Line]:
        line: Line = [(f" {shown(self._title)}  ", "bold $needs-you")]
        indent = cell_len(line[0][0])
        answers: list[Line] = [
            [(f" {key} ", "bold $on-awake on $awake"), (f" {shown(option)}   ", "")]
            for key, option in zip(PICK_KEYS, self._options, strict=False)
        ]
        for answer in [*answers, [("esc cancels", "$muted")]]:
            if sum(cell_len(text) for text, _ in (*line, *answer)) > width:
                yield line
                line = [(" " * indent, "")]
            line += answer
        yield line


class PickScreen(ModalScreen[int | None]):
    """Above the footer: one key picks (a digit, after nine a letter); nothing behind it moves."""

    DEFAULT_CSS = "PickScreen { align: left bottom; background: $background 0%; }"

    def __init__(self, title: str, options: Sequence[str]) -> None:
        super().__init__()
        self._title = title
        self._options = list(options)

    def compose(self) -> ComposeResult:
        yield Options(self._title, self._options)

    def on_key(self, event: events.Key) -> None:
        event.stop()
        if event.key == "escape":
            self.dismiss(None)
        elif event.key in PICK_KEYS[: len(self._options)]:
            self.dismiss(PICK_KEYS.index(event.key))


class AskScreen(ModalScreen[str]):
    """One line of text; ``""`` when cancelled."""

    DEFAULT_CSS = "AskScreen { align: center middle; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", show=False)]

    def __init__(
        self, title: str, value: str = "", *, restrict: str | None = None, max_length: int = 40
    ) -> None:
        super().__init__()
        self._title = title
        self._value = value
        self._restrict = restrict
        self._max_length = max_length

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue"):
            yield Words([[(shown(self._title), "bold $needs-you")]], classes="wrap")
            yield Input(
                self._value, max_length=self._max_length, restrict=self._restrict, compact=True, classes="gap"
            )
            yield Words(
                [
                    [
                        (" enter ", "bold $awake"),
                        ("takes it   ", "$muted"),
                        (" esc ", "bold $awake"),
                        ("leaves it", "$muted"),
                    ]
                ],
                classes="gap",
            )

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip())

    def action_cancel(self) -> None:
        self.dismiss("")
