"""``j``: join another machine's mesh with its address and code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import BindingType
from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Input

from instar_node.errors import InstarError
from instar_tui.actions import screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.screens.modals import YES_NO, ChoiceScreen, Words
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.feed import event_line
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import plural, shown, span

if TYPE_CHECKING:
    from instar_node.api.types import JoinResult, Status

WORDS_IN_CODE = 2


class CodeWords(Suggester):
    """Completes the words of a code: ``riv`` becomes ``RIVER-``."""

    def __init__(self) -> None:
        super().__init__(use_cache=True, case_sensitive=True)
        self._words: list[str] = []

    async def get_suggestion(self, value: str) -> str | None:
        parts = value.split("-")
        if len(parts) > WORDS_IN_CODE or len(parts[-1]) < 2:
            return None
        if not self._words:
            from instar_node.identity.wordlist import words

            self._words = [word.upper() for word in words()]
        start = parts[-1].upper()
        found = [word for word in self._words if word.startswith(start)]
        if not found:
            return None
        whole = found[0] if len(found) > 1 and found[0] != start else f"{found[0]}-"
        return value + whole[len(start) :] if value.isupper() else value + whole[len(start) :].lower()


def may_join(status: Status) -> bool:
    """Whether this home may join a mesh: it has none, or one of its own that is empty."""
    return status.me.mesh_id is None or (len(status.machines) == 1 and not status.topics)


class Situation(Framed):
    """Whether this home can join at all, said before anything is typed."""

    DEFAULT_CSS = "Situation { text-wrap: wrap; padding: 0 1; }"

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        yield []
        if status is None or self.screen.query_one(Outcome).result is not None:
            return
        if status.me.mesh_id is None:
            yield [
                ("This home belongs to no mesh yet. On the awake machine press ", ""),
                ("p", "bold $awake"),
                (", and type here what it shows.", ""),
            ]
            yield []
            return
        if may_join(status):
            yield [("This home holds a mesh of its own, alone and empty: joining gives it up.", "")]
            yield [
                ("On the awake machine of the other mesh press ", ""),
                ("p", "bold $awake"),
                (", and type here what it shows.", ""),
            ]
            yield []
            return
        count = plural(len(status.machines), "machine")
        name = shown(status.me.mesh_name or status.me.mesh_id)
        yield [
            ("This home already belongs to mesh ", ""),
            (name, "bold $needs-you"),
            (f" ({count}). A home joins one mesh only.", ""),
        ]
        yield [
            ("To let another machine join ", "$muted"),
            ("this", "bold"),
            (" mesh press ", "$muted"),
            ("p", "bold $awake"),
            (". To join another one, use a fresh home:", "$muted"),
        ]
        yield [("  instar --home NEW-FOLDER join URL --code CODE", "bold"), ("   y copies", "$muted")]
        yield []


class Outcome(Framed):
    """Progress, then what came of it."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.started: int | None = None
        self.since = 0
        self.result: JoinResult | None = None
        self.error: InstarError | None = None

    def build(self, width: int) -> Iterable[Line]:
        if self.started is not None:
            for event in self.mesh.events:
                if event.n > self.since and event.kind in ("pair", "join"):
                    yield event_line(event, width)
        if self.error is not None:
            yield [(" ✕ ", "bold $danger"), (shown(self.error.message), "bold $danger")]
            if self.error.hint:
                yield [("   ", ""), (shown(self.error.hint), "")]
        elif self.result is not None:
            yield from self._joined(self.result)
        elif self.started is not None:
            yield [(" ◌ ", "$needs-you"), (f"joining… {span(self.mesh.now_ms() - self.started)}", "")]

    @staticmethod
    def _joined(result: JoinResult) -> Iterable[Line]:
        yield [
            (" ✔ joined, as a standby of ", "bold $awake"),
            (shown(str(result.peer.get("nickname", ""))), "bold"),
        ]
        yield [
            ("   It shows the same there:  ", "$muted"),
            (f"{result.sas.digits[:3]} {result.sas.digits[3:]}", "bold"),
        ]
        symbols = "   ".join(f"{e} {n}" for e, n in zip(result.sas.emoji, result.sas.names, strict=False))
        yield [("   ", ""), (shown(symbols), "")]
        yield [
            ("   next: ", "$muted"),
            ("1", "bold $awake"),
            (" shows the mesh; ", ""),
            ("w", "bold $awake"),
            (" there makes this machine the awake one", ""),
        ]


class JoinScreen(MeshScreen):
    """Address, code, name; enter joins."""

    SCOPE = "join"
    FOOTER = ("copy",)
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("join")]
    AUTO_FOCUS = ""  # none; ``None`` would leave it to the app

    def __init__(self) -> None:
        super().__init__()
        self._comparing = False
        self._begun = False

    def body(self) -> Iterable[Widget]:
        off = self.instar.read_only
        yield Situation(id="situation")
        yield Words([[(" address of the awake machine", "$muted")]])
        yield Input(placeholder="http://192.168.1.20:7707", id="url", compact=True, disabled=off)
        yield Words([[(" code, as it shows it", "$muted"), ("   → completes a word", "$faint")]])
        yield Input(
            placeholder="RIVER-STONE-4071", id="code", compact=True, suggester=CodeWords(), disabled=off
        )
        yield Words([[(" name of this machine there (empty: its own)", "$muted")]])
        yield Input(id="nickname", compact=True, max_length=40, disabled=off)
        yield Outcome(id="outcome")

    @property
    def ticking(self) -> bool:  # type: ignore[override]
        """While joining, the time spent is shown."""
        outcome = self.query_one(Outcome)
        return outcome.started is not None and outcome.result is None and outcome.error is None

    def tick_body(self) -> None:
        self.query_one(Outcome).sync()

    def refresh_body(self, kinds: frozenset[str]) -> None:
        super().refresh_body(kinds)
        if not self._begun and self.mesh.status is not None:
            self._begun = True
            if may_join(self.mesh.status):  # where it may not, the keys stay keys: y copies the way out
                self.query_one("#url").focus()
        if self.ticking and not self._comparing and "pair" in kinds:
            self._comparing = True
            self.instar.operations.start(self._compare)

    async def _compare(self) -> None:
        """Where the other machine wants it, ask whether both show the same symbols."""
        from instar_node.api.types import PairConfirm

        try:
            view = await self.mesh.api.pair_view()
            if view.state != "confirming" or view.sas is None:
                return
            digits = f"{view.sas.digits[:3]} {view.sas.digits[3:]}"
            symbols = "   ".join(f"{e} {n}" for e, n in zip(view.sas.emoji, view.sas.names, strict=False))
            question = ChoiceScreen("Does the other machine show the same?", (digits, symbols), YES_NO)
            answer = await self.app.push_screen_wait(question)
            await self.mesh.api.pair_confirm(PairConfirm(accept=bool(answer)))
        finally:
            self._comparing = False

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self.ticking:  # it is under way
            return
        fields = [self.query_one(f"#{name}", Input) for name in ("url", "code")]
        empty = next((field for field in fields if not field.value.strip()), None)
        if empty is not None:
            empty.focus()
            return
        self.instar.operations.start(self._join)

    async def _join(self) -> None:
        from instar_node.api.types import JoinRequest

        url, code, nickname = (
            self.query_one(f"#{name}", Input).value.strip() for name in ("url", "code", "nickname")
        )
        outcome = self.query_one(Outcome)
        outcome.started, outcome.result, outcome.error = self.mesh.now_ms(), None, None
        outcome.since = self.mesh.events[-1].n if self.mesh.events else 0
        self.instar.publish("join")
        try:
            outcome.result = await self.mesh.api.join(
                JoinRequest(url=url, code=code, nickname=nickname or None)
            )
        except InstarError as error:
            outcome.error = error
        else:
            self.set_focus(None)  # nothing more to type: keys are keys again
        self.instar.publish("join")

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":
            event.stop()
            self.instar.action_go("overview")

    def copyable(self) -> str:
        """The command for a fresh home."""
        url = self.query_one("#url", Input).value or "URL"
        return f"instar --home NEW-FOLDER join {url} --code {self.query_one('#code', Input).value or 'CODE'}"
