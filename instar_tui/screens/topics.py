"""``5``: where each topic runs and why; one key moves it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from textual.binding import BindingType
from textual.widget import Widget

from instar_tui.actions import Action, screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.screens.modals import AskScreen
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.grid import Grid
from instar_tui.widgets.grid_lines import Cell, Column
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import age, plural, shown

if TYPE_CHECKING:
    from instar_node.api.types import TopicRow

OF_A_TOPIC = frozenset({"open-topic", "transfer", "unpin", "undo-transfer", "next-topic"})
"""Actions that do nothing where there is no topic."""
TOPIC_CHARACTERS = r"[A-Za-z0-9._:-]*"


class Shown(NamedTuple):
    """A topic, and where this program is moving it to (not yet confirmed)."""

    row: TopicRow
    moving: str


def _runs_on(item: Shown) -> Cell:
    owner = shown(item.row.owner_nickname or "–")
    if item.moving:
        return f"{owner}→{shown(item.moving)}", "bold $needs-you"
    return owner, "" if item.row.owner else "$muted"


def _why(item: Shown) -> Cell:
    if item.moving:
        return "moving…", "bold $needs-you"
    if item.row.pending_reason:
        return "◌ waiting", "$needs-you"
    if item.row.reason == "unowned":
        return "○ unowned", "$muted"
    return ("■ pinned", "$standby") if item.row.reason == "pinned" else ("· placed", "$muted")


def _last(item: Shown) -> Cell:
    row = item.row
    if row.pending_reason:
        return shown(row.pending_reason), "$needs-you"
    text = shown(row.last_text)
    return (f"‹ {text}", "$muted") if row.last_role == "agent" else text


def _queue(item: Shown) -> Cell:
    row = item.row
    count = row.queued
    if row.running:
        return f"◐ {count}", "$standby"
    return (str(count), "bold $needs-you") if count else ("0", "$muted")


COLUMNS: list[Column[Shown]] = [
    Column("topic", 13, lambda i: (shown(i.row.topic), "bold"), lambda i: i.row.topic.lower()),
    Column("runs on", 12, _runs_on, lambda i: (i.row.owner_nickname or "~").lower()),
    Column("why", 9, _why, lambda i: i.row.reason),
    Column("last", 4, lambda i: age(i.row.last_at_ms), lambda i: i.row.last_at_ms or 0, right=True),
    Column("queue", 5, _queue, lambda i: -i.row.queued, right=True),
    Column("unread", 6, lambda i: str(i.row.unread or ""), lambda i: -i.row.unread, right=True, wide=100),
    Column("last message", 14, _last, flex=4),
]


class Placed(Framed):
    """One line: how many topics, and why the selected one is where it is."""

    def build(self, width: int) -> Iterable[Line]:
        item = cast(TopicsScreen, self.screen).grid().selected
        if item is None:
            yield [(" No conversation yet. ", "$muted"), ("n", "bold $awake"), (" begins one.", "$muted")]
            return
        row = item.row
        name = shown(row.topic)
        owner = shown(row.owner_nickname or "nobody")
        if row.pending_reason:
            words = f"waits for {shown(self.mesh.nickname(row.pinned_to))}: {shown(row.pending_reason)}"
        elif row.reason == "pinned":
            words = f"is pinned to {owner}: it stays there when the lease moves"
        elif row.reason == "placed":
            words = f"was placed on {owner}, and follows the awake machine"
        else:
            words = "has no machine yet; the next message places it"
        total = plural(len(self.mesh.topics()), "topic")
        yield [(f" {name} ", "bold"), (words, ""), (f"   {total}", "$muted")]


class TopicsScreen(MeshScreen):
    """The table of topics."""

    SCOPE = "topics"
    FOOTER = ("filter", "sort")
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("topics")]

    def body(self) -> Iterable[Widget]:
        yield Grid(COLUMNS, lambda i: i.row.topic, empty="no topic yet: n begins a conversation", id="grid")
        yield Placed(id="placed")

    def grid(self) -> Grid[Shown]:
        """The table."""
        return cast("Grid[Shown]", self.query_one("#grid", Grid))

    def offers(self, action: Action) -> bool:
        if action.id in OF_A_TOPIC:
            return bool(self.mesh.topics())
        return super().offers(action)

    def refresh_body(self, kinds: frozenset[str]) -> None:
        moving = self.mesh.moving
        self.grid().set_rows(
            [
                Shown(row, moving.get(row.topic) or self.mesh.nickname(row.moving_to))
                for row in self.mesh.topics()
            ]
        )
        super().refresh_body(kinds)

    def on_grid_moved(self) -> None:
        self.query_one(Placed).sync()

    def on_grid_chosen(self, event: Grid.Chosen) -> None:
        self.instar.open_topic(event.key)

    def action_open_topic(self) -> None:
        if topic := self.selected_topic():
            self.instar.open_topic(topic)

    def selected_topic(self) -> str:
        """The topic under the cursor."""
        item = self.grid().selected
        return item.row.topic if item else ""

    def action_transfer(self) -> None:
        if topic := self.selected_topic():
            self.instar.operations.transfer(topic)

    def action_undo_transfer(self) -> None:
        self.instar.operations.undo_transfer()

    def action_unpin(self) -> None:
        if topic := self.selected_topic():
            self.instar.operations.unpin(topic)

    def action_new_topic(self) -> None:
        ask_topic(self)

    def action_sort(self) -> None:
        self.grid().sort_next()

    def action_sort_reverse(self) -> None:
        self.grid().sort_reverse()

    def copyable(self) -> str:
        """The selected topic."""
        return self.selected_topic()


def ask_topic(screen: MeshScreen) -> None:
    """Ask for the name of a topic, and open its conversation."""

    def done(name: Any) -> None:
        if name:
            screen.instar.open_topic(name)

    question = AskScreen(
        "Name of the topic (letters, digits . _ : -)", restrict=TOPIC_CHARACTERS, max_length=64
    )
    screen.app.push_screen(question, done)
