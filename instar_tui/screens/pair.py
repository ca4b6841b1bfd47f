"""``p``: the code as large as it fits, the time and attempts it has left, and who comes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import BindingType
from textual.widget import Widget

from instar_node.errors import InstarError
from instar_tui.actions import Action, screen_bindings
from instar_tui.screens.base import MeshScreen
from instar_tui.state import ROLE_KINDS
from instar_tui.widgets.banner import banner
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.feed import event_line
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import bar, dots, fit, shown

if TYPE_CHECKING:
    from instar_node.api.types import PairView

REFUSALS = ("wrong guess", "refused", "declined", "not admitted")
ENDED = {
    "expired": ("The code has expired.", "$needs-you"),
    "locked": ("Three wrong guesses: the code is locked.", "$danger"),
    "consumed": ("The code has been used.", "$muted"),
    "cancelled": ("The code is void.", "$needs-you"),
    "none": ("No code is open.", "$muted"),
}


def centred(parts: Line, width: int) -> Line:
    """A line in the middle."""
    from instar_tui.widgets.chrome import length

    return [(" " * max(0, (width - length(parts)) // 2), ""), *parts]


class _PairPart(Framed):
    """A part of the screen that draws from its pairing session."""

    @property
    def view(self) -> PairView | None:
        return cast(PairScreen, self.screen).view

    @property
    def left_ms(self) -> int:
        return cast(PairScreen, self.screen).left_ms()


class Code(_PairPart):
    """The code, or what became of it."""

    def build(self, width: int) -> Iterable[Line]:
        view = self.view
        yield []
        if view is None:
            problem = cast(PairScreen, self.screen).problem
            if self.mesh.status is None:
                problem = "there is no node to ask for a code yet"
            yield centred(
                [(shown(problem) or "asking for a code…", "$needs-you" if problem else "$muted")], width
            )
            if self.mesh.status is not None and problem:
                yield from self._way_on(width)
            return
        if view.state == "joined":
            yield from self._joined(view, width)
        elif view.state == "confirming":
            yield centred([("Is it the same on the other machine?", "bold $needs-you")], width)
            yield from self._sas(view, width)
            yield centred(
                [
                    (" enter ", "bold $awake"),
                    ("yes, admit it    ", ""),
                    (" x ", "bold $danger"),
                    ("no, refuse it", ""),
                ],
                width,
            )
        elif view.state == "open" and view.code:
            yield from self._open(view, width)
        else:
            words, style = ENDED.get(view.state, (view.state, "$muted"))
            yield centred([(words, f"bold {style}")], width)
            if view.last_refusal:
                yield centred([(shown(view.last_refusal), "$muted")], width)
            yield from self._way_on(width)

    def _way_on(self, width: int) -> Iterable[Line]:
        """What to do for another code: it comes from the awake machine, for only that one admits."""
        holder = self.mesh.holder_elsewhere()
        yield []
        if holder is None:
            yield centred([("n", "bold $awake"), (" mints a new one", "$muted")], width)
            return
        name = (shown(holder), "bold")
        yield centred(
            [
                ("Only the awake machine admits others: press ", "$muted"),
                ("p", "bold $awake"),
                (" on ", "$muted"),
                name,
            ],
            width,
        )
        yield centred(
            [("or ", "$muted"), ("w", "bold $awake"), (" here first, which wakes this machine", "$muted")],
            width,
        )

    def _open(self, view: PairView, width: int) -> Iterable[Line]:
        assert view.code is not None
        drawn = banner(view.code, width - 2, 7 if self.app.size.height < 30 else 11)
        for line in drawn:
            yield centred([(line, "bold $awake")], width)
        if len(drawn) > 1:
            yield []
            yield centred([("  ".join(view.code.replace("-", "–")), "$muted")], width)

    def _joined(self, view: PairView, width: int) -> Iterable[Line]:
        joiner = view.joiner or {}
        yield centred(
            [
                ("✔ ", "bold $awake"),
                (shown(str(joiner.get("nickname", "a machine"))), "bold $awake"),
                (" has joined as a standby", "bold"),
            ],
            width,
        )
        fingerprint = joiner.get("fingerprint")
        if fingerprint:
            yield centred([("fingerprint  ", "$muted"), (shown(str(fingerprint)), "")], width)
        yield []
        yield centred([("It shows the same there:", "$muted")], width)
        yield from self._sas(view, width)

    @staticmethod
    def _sas(view: PairView, width: int) -> Iterable[Line]:
        if view.sas is None:
            return
        yield []
        for line in banner(f"{view.sas.digits[:3]} {view.sas.digits[3:]}", width - 6, 3):
            yield centred([(line, "bold $awake")], width)
        yield []
        symbols: Line = []
        for emoji, name in zip(view.sas.emoji, view.sas.names, strict=False):
            symbols.append((f"{shown(emoji)} {shown(name)}    ", ""))
        yield centred(symbols, width)
        yield []


class Countdown(_PairPart):
    """Time left as a draining bar, and attempts left as dots."""

    def build(self, width: int) -> Iterable[Line]:
        view = self.view
        if view is None or view.state != "open":
            return
        left = self.left_ms
        cells = max(20, min(60, width - 44))
        filled, empty = bar(left / max(1, view.lifetime_ms), cells)
        colour = "$awake" if left > 30_000 else "$needs-you"
        seconds = (left + 999) // 1000
        falling = view.attempts_left < view.attempts_max
        yield []
        yield centred(
            [
                ("▕", "$muted"),
                (filled, colour),
                (empty, ""),
                ("▏", "$muted"),
                (f" {seconds // 60}:{seconds % 60:02d} left", "bold"),
                ("      attempts ", "$muted"),
                (
                    dots(view.attempts_left, view.attempts_max),
                    "bold $needs-you" if falling else "bold $awake",
                ),
                (f" {view.attempts_left} of {view.attempts_max}", "$muted"),
            ],
            width,
        )
        yield []


class Instructions(_PairPart):
    """The command to type on the other machine."""

    DEFAULT_CSS = "Instructions { text-wrap: wrap; padding: 0 1; }"

    def build(self, width: int) -> Iterable[Line]:
        view = self.view
        if view is None or view.state != "open":
            return
        if view.join_command:
            yield [("On the other machine, type", ""), ("                    y copies it", "$muted")]
            yield [("  ", ""), (shown(view.join_command), "bold $awake")]
        if view.warning:
            yield [("⚠ ", "bold $needs-you"), (shown(view.warning), "$needs-you")]
        yield []


class Happenings(_PairPart):
    """What came to the code: wrong guesses as they happen."""

    DEFAULT_CSS = "Happenings { height: 1fr; min-height: 2; }"

    def build(self, width: int) -> Iterable[Line]:
        screen = cast(PairScreen, self.screen)
        rows = [
            event for event in reversed(self.mesh.events) if event.kind == "pair" and event.n > screen.since
        ]
        for event in rows[: max(1, self.size.height - 1)]:
            line = event_line(event, width)
            wrong = any(word in event.text for word in REFUSALS)
            yield [line[0], (line[2][0], "$needs-you" if wrong else "")]
        view = self.view
        if view is not None and view.state == "open":
            yield [(" ◌ ", "$standby"), ("waiting for a machine…", "$muted")]


class Failover(_PairPart):
    """The honest word about the embedded hub."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None or status.lease.hub.kind != "embedded":
            return
        name = fit(shown(status.lease.holder_nickname or "this machine"), 20).rstrip()
        yield [
            (" Failover: ", "bold $needs-you"),
            (f"this mesh keeps its lease on {name}. If it dies, another machine takes", ""),
        ]
        yield [(" over only when you say so. For automatic failover give the mesh a hub:", "")]
        yield [("   instar hub git@host:me/agent-state.git", "bold")]


class PairScreen(MeshScreen):
    """One pairing session."""

    SCOPE = "pair"
    FOOTER = ("copy",)
    BINDINGS: ClassVar[list[BindingType]] = [*screen_bindings("pair")]
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        self.view: PairView | None = None
        self.problem = ""
        self.since = 0
        self._taken_at = 0
        self._asked = False
        self._opening = False

    def body(self) -> Iterable[Widget]:
        yield Code(id="code")
        yield Countdown(id="countdown")
        yield Instructions(id="instructions")
        yield Happenings(id="happenings")
        yield Failover(id="failover")

    def offers(self, action: Action) -> bool:
        if action.id == "new-code":
            return self.mesh.holder_elsewhere() is None
        if action.id == "cancel-code":
            return self.view is not None and self.view.state == "open"
        return super().offers(action)

    @property
    def ticking(self) -> bool:  # type: ignore[override]
        """While a code is open its countdown runs."""
        return self.view is not None and self.view.state == "open"

    def left_ms(self) -> int:
        """Time left of the code."""
        return max(0, self.view.expires_in_ms - (self.mesh.now_ms() - self._taken_at)) if self.view else 0

    async def on_screen_resume(self) -> None:
        """Asks the node anew; Textual calls the handler of the base class too, and that draws."""
        self._asked = False

    def refresh_body(self, kinds: frozenset[str]) -> None:
        super().refresh_body(kinds)
        if self.mesh.status is None:
            return
        if not self._asked:
            self._asked = True
            self.instar.operations.start(lambda: self._open(fresh=False))
        elif kinds & {"pair", "gap"}:
            self.read("pair", self._look)
        elif self.problem and kinds & ROLE_KINDS and self.mesh.holder_elsewhere() is None:
            self.instar.operations.start(lambda: self._open(fresh=False))

    def tick_body(self) -> None:
        self.query_one(Countdown).sync()
        if self.view is not None and self.view.state == "open" and self.left_ms() == 0:
            self.read("pair", self._look)

    async def _open(self, *, fresh: bool) -> None:
        """Show the open session, or mint a code; one that is being minted is not voided by a second."""
        from instar_node.api.types import PairRequest

        if self._opening:
            return
        self._opening = True
        try:
            view = await self.mesh.api.pair_view()
            if fresh or view.state not in ("open", "confirming"):
                if self.instar.read_only:
                    self._take(view)
                    return
                self.since = self.mesh.events[-1].n if self.mesh.events else 0
                view = await self.mesh.api.pair(PairRequest())
        except InstarError as error:
            self.view, self.problem = None, f"{error.message} {error.hint}".strip()
            super().refresh_body(frozenset())
            return
        finally:
            self._opening = False
        self._take(view)

    async def _look(self) -> None:
        self._take(await self.mesh.api.pair_view())

    def _take(self, view: Any) -> None:
        self.view, self.problem = view, ""
        self._taken_at = self.mesh.now_ms()
        super().refresh_body(frozenset())
        self.instar.publish("drawn")

    def action_new_code(self) -> None:
        self.instar.operations.start(lambda: self._open(fresh=True))

    def action_cancel_code(self) -> None:
        if self.view is not None and self.view.state == "open" and not self.instar.read_only:
            self.instar.operations.start(self._cancel)
        self.instar.action_go("overview")

    async def _cancel(self) -> None:
        self._take(await self.mesh.api.pair_cancel())
        self.notify("the code is void", timeout=2)

    def action_confirm_sas(self) -> None:
        self._confirm(True)

    def action_refuse_sas(self) -> None:
        self._confirm(False)

    def _confirm(self, accept: bool) -> None:
        if self.view is None or self.view.state != "confirming":
            return

        async def run() -> None:
            from instar_node.api.types import PairConfirm

            self._take(await self.mesh.api.pair_confirm(PairConfirm(accept=accept)))

        self.instar.operations.start(run)

    def copyable(self) -> str:
        """The join command."""
        return (self.view.join_command or "") if self.view else ""
