"""The newest events on few lines: of what happens in steps only the newest step is shown."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING

from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import clock, fit, shown
from instar_tui.widgets.vocabulary import delivery_mark, kind_style, step_words

if TYPE_CHECKING:
    from instar_node.events import Event

LAST_STEP_OF_A_TRANSFER = "moved"
OVER = "over: "
"""What the text of an alert begins with that is none any more."""


def condensed(newest_first: Iterable[Event]) -> Iterator[Event]:
    """Leave out earlier steps of what a later one was shown for, and the same words said twice in a row."""
    told: set[Hashable] = set()
    previous = ""
    for event in newest_first:
        subject = _subject(event)
        begins = event.data.get("step") == LAST_STEP_OF_A_TRANSFER or _ends_a_drill(event)
        if (subject in told and not begins) or f"{event.kind} {event.text}" == previous:
            continue
        if subject is not None:
            told.add(subject)
        previous = f"{event.kind} {event.text}"
        yield event


def _subject(event: Event) -> Hashable | None:
    """What an event is a step of; ``None`` when it stands alone."""
    data = event.data
    if event.kind == "message" and "key" in data:
        return "message", str(data.get("topic")), str(data["key"])
    if event.kind == "handoff" and "session" in data:
        return "handoff", str(data["session"])
    if event.kind == "transfer" and "to" in data:
        return "transfer", str(data.get("topic")), str(data["to"])
    if event.kind == "drill" and "peer" in data:
        return "drill", str(data["peer"])
    if event.kind == "alert":
        return "alert", event.text.removeprefix(OVER)
    return None


def _ends_a_drill(event: Event) -> bool:
    """Whether this is the last event of a drill: what comes before it in time are its steps."""
    return event.kind == "drill" and "component" not in event.data


def event_words(event: Event) -> str:
    """An event in the words the screens use: ``work: answered``, not ``work: key-17 committed``."""
    data = event.data
    state, key, step = data.get("state"), data.get("key"), data.get("step")
    if event.kind == "message" and isinstance(state, str) and isinstance(key, str):
        return event.text.replace(f"{key} {state}", delivery_mark(state).word, 1)
    if isinstance(step, str):
        return event.text.replace(step, step_words(step), 1)
    return event.text


def event_line(event: Event, width: int) -> Line:
    """One event on one line."""
    return [
        (f" {clock(event.at)}  ", "$muted"),
        (f"{fit(shown(event.kind), 9)}  ", kind_style(event.kind)),
        (fit(shown(event_words(event)), max(0, width - 23)), ""),
    ]


class Feed(Framed):
    """The newest events, newest first, as many as fit."""

    DEFAULT_CSS = "Feed { height: 1fr; min-height: 2; }"

    def build(self, width: int) -> Iterable[Line]:
        lines: list[Line] = []
        for event in condensed(reversed(self.mesh.events)):
            if len(lines) >= max(1, self.size.height):
                break
            lines.append(event_line(event, width))
        return lines or [[("   nothing has happened yet", "$muted")]]
