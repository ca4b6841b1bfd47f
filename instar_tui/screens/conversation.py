"""``6``: one topic's messages, each with its machine, epoch and delivery state; and a line to write in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Input

from instar_tui.actions import Action, screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.screens.topics import OF_A_TOPIC, ask_topic
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import fit, shown
from instar_tui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from instar_node.api.types import Message, OutboxItem, TopicRow
    from instar_tui.unsent import Unsent

WINDOW = 200
"""Messages fetched at once."""
UNSETTLED = frozenset({"received", "processing", "waiting", "reserved", "undecided"})


class TopicLine(Framed):
    """The topic, where it runs, and what it waits for."""

    def build(self, width: int) -> Iterable[Line]:
        topic = self.mesh.watched_topic
        if topic is None:
            yield [
                (" No topic is open. ", "$muted"),
                ("5", "bold $awake"),
                (" lists them, ", "$muted"),
                ("n", "bold $awake"),
                (" begins one.", "$muted"),
            ]
            return
        row = next((r for r in self.mesh.topics() if r.topic == topic), None)
        line: Line = [(f" {shown(topic)}", "bold $awake")]
        if row is None:
            line.append(("   new; the first message places it", "$muted"))
        else:
            line += self._where(row)
        yield line

    def _where(self, row: TopicRow) -> Line:
        moving = self.mesh.moving.get(row.topic)
        if moving:
            return [(f"   moving to {shown(moving)}…", "bold $needs-you")]
        if row.pending_reason:
            return [(f"   waiting: {shown(row.pending_reason)}", "$needs-you")]
        line: Line = [
            ("   runs on ", "$muted"),
            (shown(row.owner_nickname or "–"), ""),
            (f", {row.reason}", "$muted"),
        ]
        if row.running:
            line.append(("   ◐ the agent is answering", "$standby"))
        return line


class Undecided(Framed):
    """Replies of this topic that may or may not have been sent: a person decides."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.items: list[OutboxItem] = []

    def build(self, width: int) -> Iterable[Line]:
        self.display = bool(self.items)
        for item in self.items[:3]:
            yield [
                (" ? undecided  ", "bold $needs-you"),
                (fit(shown(item.text), max(10, width - 56)), ""),
                (f"  {shown(item.reason)}", "$muted"),
            ]
        if self.items:
            yield [
                ("   s", "bold $awake"),
                (" sends it (it may arrive twice)   ", "$muted"),
                ("d", "bold $awake"),
                (" drops it (it may never arrive)", "$muted"),
            ]


class Prompt(Framed):
    """What the line below is for."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.answering: Message | None = None

    def build(self, width: int) -> Iterable[Line]:
        if self.answering is not None:
            yield [
                (" answer to ", "bold $needs-you"),
                (fit(f"“{shown(self.answering.text)}”", max(10, width - 30)).rstrip(), ""),
                ("   esc: not now", "$muted"),
            ]
        else:
            yield [(" message", "bold $standby"), ("   enter sends, esc leaves the line", "$muted")]


class ConversationScreen(MeshScreen):
    """Messages of the open topic."""

    SCOPE = "conversation"
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("conversation")]
    AUTO_FOCUS = "Transcript"

    def __init__(self) -> None:
        super().__init__()
        self._topic: str | None = None
        self._messages: dict[int, Message] = {}
        self._to_answer: str | None = None
        """Key of the message that a text from before a restart answers, until it is fetched."""

    def body(self) -> Iterable[Widget]:
        yield TopicLine(id="topic-line")
        yield Transcript(id="transcript")
        yield Undecided(id="undecided")
        yield Prompt(id="prompt")
        yield Input(
            placeholder="i or enter to write",
            id="composer",
            compact=True,
            select_on_focus=False,  # the next key would replace what is typed already
            disabled=self.instar.read_only,
        )

    def complete(self) -> None:
        super().complete()
        self.instar.unsent = self._unsent
        taken_up, self.instar.taken_up = self.instar.taken_up, None
        if taken_up is not None:
            composer = self.query_one(Input)
            composer.value, self._topic, self._to_answer = taken_up.text, taken_up.topic, taken_up.reply_to
            composer.cursor_position = len(taken_up.text)
            self.call_after_refresh(composer.focus)

    def _unsent(self) -> Unsent | None:
        from instar_tui.unsent import Unsent

        text, answering = self.query_one(Input).value, self.query_one(Prompt).answering
        if not text.strip() or self._topic is None:
            return None
        return Unsent(self._topic, text, answering.key if answering is not None else self._to_answer)

    def offers(self, action: Action) -> bool:
        if action.id == "answer":
            return self._waiting() is not None
        if action.id in OF_A_TOPIC:
            return self._topic is not None
        return super().offers(action)

    def refresh_body(self, kinds: frozenset[str]) -> None:
        if self.mesh.watched_topic is None and self.mesh.topics():
            self.mesh.watched_topic = min(self.mesh.topics(), key=lambda r: r.last_at_ms or 1 << 60).topic
        if self.mesh.watched_topic != self._topic:
            self._topic = self.mesh.watched_topic
            self._messages = {}
            self.query_one(Prompt).answering = self._to_answer = None
        super().refresh_body(kinds)
        self._draw()
        if self._topic is not None and self.mesh.link == "live" and not kinds & {"resize", "operation"}:
            self.read("messages", partial(self._fetch, self._topic))

    async def _fetch(self, topic: str) -> None:
        """Bring in new messages, and the state of those that were not settled yet."""
        unsettled = [m.seq for m in self._messages.values() if m.state in UNSETTLED]
        newest = max(self._messages, default=0)
        after, full = min([newest, *[seq - 1 for seq in unsettled]]), True
        while full:
            page = (await self.mesh.api.messages(topic, after, WINDOW)).messages
            if topic != self._topic:
                return
            self._messages.update((m.seq, m) for m in page)
            after, full = page[-1].seq if page else after, len(page) == WINDOW
        self._answer_again()
        undecided = self.query_one(Undecided)
        items = (await self.mesh.api.outbox()).items if self.mesh.status and self.mesh.status.outbox else []
        undecided.items = [item for item in items if item.topic == topic]
        undecided.sync()
        self._draw()

    def _draw(self) -> None:
        here = self.mesh.status.me.machine_id if self.mesh.status else ""
        ordered = [self._messages[seq] for seq in sorted(self._messages)]
        empty = "" if self._topic is None else "nothing was said here yet; i writes the first message"
        self.query_one(Transcript).set_messages(ordered, here, empty)
        self._frame()  # what the footer offers may be another

    # -- writing ------------------------------------------------------------------------------------------

    def action_compose(self) -> None:
        if self._topic is None:
            ask_topic(self)
        else:
            self.query_one(Input).focus()

    def _waiting(self) -> Message | None:
        """The oldest message that waits for a person."""
        return next((m for _, m in sorted(self._messages.items()) if m.state == "waiting"), None)

    def action_answer(self) -> None:
        waiting = self._waiting()
        if waiting is None:
            self.notify("no message waits for a person here", severity="warning")
            return
        self._answer_to(waiting)
        self.query_one(Input).focus()

    def _answer_again(self) -> None:
        """A text from before a restart answers the same message, if that still waits for an answer."""
        wanted, self._to_answer = self._to_answer, None
        if wanted is None:
            return
        message = next((m for m in self._messages.values() if m.key == wanted), None)
        if message is not None and message.state == "waiting":
            self._answer_to(message)
        else:
            self.notify("the message you were answering does not wait any more", severity="warning")

    def _answer_to(self, message: Message | None) -> None:
        prompt = self.query_one(Prompt)
        prompt.answering = message
        prompt.sync()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        text, topic = event.value.strip(), self._topic
        if not text or topic is None:
            return
        answering = self.query_one(Prompt).answering
        event.input.value = ""
        self._answer_to(None)
        self.instar.operations.start(lambda: self._send(topic, text, answering))

    async def _send(self, topic: str, text: str, answering: Message | None) -> None:
        from instar_node.api.types import ReplyRequest, SendRequest

        try:
            if answering is not None:
                await self.mesh.api.reply(topic, ReplyRequest(reply_to=answering.key, text=text))
            else:
                await self.mesh.api.send(SendRequest(topic=topic, text=text))
        except Exception:
            composer = self.query_one(Input)
            composer.value = composer.value or text  # what was typed is not lost with the refusal
            raise
        await self._fetch(topic)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape" and self.query_one(Input).has_focus:
            event.stop()
            self._answer_to(None)
            self.query_one(Transcript).focus()

    # -- topics -------------------------------------------------------------------------------------------

    def _step(self, by: int) -> None:
        names = [row.topic for row in self.mesh.topics()]
        if names:
            at = names.index(self._topic) if self._topic in names else -1
            self.mesh.watched_topic = names[(at + by) % len(names)]
            self.refresh_body(frozenset({"all"}))

    def action_next_topic(self) -> None:
        self._step(1)

    def action_previous_topic(self) -> None:
        self._step(-1)

    def action_new_topic(self) -> None:
        ask_topic(self)

    def action_transfer(self) -> None:
        if self._topic:
            self.instar.operations.transfer(self._topic)

    def action_undo_transfer(self) -> None:
        self.instar.operations.undo_transfer(self._topic or "")

    def action_send_undecided(self) -> None:
        self._resolve("send")

    def action_drop_undecided(self) -> None:
        self._resolve("drop")

    def _resolve(self, action: str) -> None:
        items = self.query_one(Undecided).items
        if items:
            self.instar.operations.resolve(items[0].id, action)

    def copyable(self) -> str:
        """The newest reply of the agent."""
        replies = [m.text for _, m in sorted(self._messages.items()) if m.role == "agent"]
        return replies[-1] if replies else ""
