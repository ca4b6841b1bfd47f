"""What frames every screen: header, tab line, alert band, operation strip, key line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from textual import events

from instar_tui.actions import BY_ID, PLACES, Action, footer_actions
from instar_tui.widgets.live import Line, Live, hanging
from instar_tui.widgets.text import bar, fit, shown, span
from instar_tui.widgets.vocabulary import ROLES, UNKNOWN, step_words

if TYPE_CHECKING:
    from instar_tui.app import InstarApp
    from instar_tui.screens.base import MeshScreen
    from instar_tui.state import MeshState, Operation

SPINNER = "◐◓◑◒"
LONG_START_MS = 3_000
WHILE_TYPING: Line = [
    ("  enter ", "bold $awake"),
    ("takes it ", ""),
    (" esc ", "bold $awake"),
    ("leaves it", ""),
]
WAY_OUT = (
    "On the machine whose line is to go on press H (instar lease heal). 3 shows the lines that were seen."
)
LATE = {"lost": "no contact", "waiting": "no answer"}
"""What the header says instead of the lease while nobody can say how it stands."""


def length(line: Line) -> int:
    """Cells of a line made of single-width text."""
    return sum(cell_len(text) for text, _ in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """``left`` at the left, ``right`` at the right, if both fit; else ``left`` alone."""
    gap = width - length(left) - length(right)
    return [*left, (" " * gap, ""), *right] if gap > 0 else left


class Framed(Live):
    """A live widget that can reach the mesh state."""

    @property
    def instar(self) -> InstarApp:
        return cast("InstarApp", self.app)

    @property
    def mesh(self) -> MeshState:
        return self.instar.mesh


class Header(Framed):
    """This machine, its role, the epoch, the lease draining, the worst lag, alerts, the mesh."""

    def build(self, width: int) -> Iterable[Line]:
        mesh = self.mesh
        status = mesh.status
        if status is None:
            words = f"starting the node…{_if_long(mesh)}" if mesh.link == "connecting" else "no node"
            return [[(" ◌ ", "$muted"), (words, "$muted")]]
        mark = ROLES.get(status.health.role, UNKNOWN)
        chip = "bold reverse $awake" if status.health.role == "awake" else "bold reverse $standby"
        role = f" {mark.glyph} {mark.word} "
        if mesh.link in LATE:  # what it is now nobody knows
            role, chip = f" ◌ was {mark.word} ", "bold reverse $needs-you"
        left: Line = [
            (f" {fit_name(status.me.nickname, 14)} ", "bold"),
            (role, chip),
            (" epoch ", "$muted"),
            (status.lease.epoch_text, "bold"),
            ("  ", ""),
            *self._lease(),
        ]
        worst = mesh.worst_lag_ms()
        if worst is not None:
            left += [("  lag ", "$muted"), (span(worst), "" if worst < 1_000 else "bold $needs-you")]
        alerts = len(status.health.alerts)
        if alerts:
            left += [("  ", ""), (f"⚠ {alerts}", "bold $needs-you")]
        where = "embedded" if mesh.embedded else "attached"
        if self.instar.read_only:
            where += ", read-only"
        right: Line = [("mesh ", "$muted"), (status.me.mesh_name or "–", ""), (f" · {where} ", "$muted")]
        name = status.me.mesh_name or "–"
        shorter: list[Line] = [[(name, ""), (f" · {where} ", "$muted")], [(f"{where} ", "$muted")]]
        fitting = (line for part in (right, *shorter) if (line := spread(left, part, width)) is not left)
        return [next(fitting, left)]

    def _lease(self) -> Line:
        mesh = self.mesh
        assert mesh.status is not None
        lease = mesh.status.lease
        if mesh.link in LATE:
            return [(f"◌ {LATE[mesh.link]}", "bold $danger")]
        if lease.state == "split-brain":
            return [("‼ SPLIT BRAIN", "bold $danger")]
        if lease.holder is None or lease.state in ("expired", "none", "released", "closed"):
            return [(f"nobody awake ({lease.state})", "bold $needs-you")]
        if not lease.expires:
            return [("▕██████████▏", "$awake"), ("held", "$muted")]
        left = mesh.valid_for_ms()
        filled, empty = bar(left / max(1, lease.ttl_ms), 10)
        colour = "$awake" if left > lease.ttl_ms / 4 else "$needs-you"
        return [
            ("▕", "$muted"),
            (filled, colour),
            (empty, "on $faint"),
            ("▏", "$muted"),
            (f"{left / 1000:.1f}s", ""),
        ]


class Tabs(Framed):
    """The screens and their keys, the one in view marked; a click goes there."""

    def __init__(self, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._ends: list[tuple[int, str]] = []

    def build(self, width: int) -> Iterable[Line]:
        current = self.instar.current_mode
        line: Line = []
        self._ends = []
        for place in PLACES:
            here = place.name == current
            if not place.tab and not here:
                continue
            if here:
                line.append((f" {place.key} {place.title} ", "bold reverse $awake"))
            else:
                line += [(f" {place.key}", "$muted"), (f" {place.title}", "")]
            if width >= 90:
                line.append(("  ", ""))
            self._ends.append((length(line), place.name))
        return [line]

    def on_click(self, event: events.Click) -> None:
        name = next((name for end, name in self._ends if event.x < end), None)
        if name is not None:
            self.instar.action_go(name)


class AlertBand(Framed):
    """A band across the screen when something is wrong; nothing otherwise."""

    def build(self, width: int) -> Iterable[Line]:
        lines = [*self._lines_now(width), *self._versions(width)]
        self.display = bool(lines)
        return lines

    def _lines_now(self, width: int) -> Iterable[Line]:
        mesh = self.mesh
        status = mesh.status
        if mesh.link == "lost":
            since = f" for {span(max(1_000, mesh.lost_for_ms()))}" if status is not None else ""
            what = "no contact with the node" if status is not None else "the node did not start"
            yield _band(f" ‼ {what}{since}: {shown(mesh.problem)}", width, "danger")
            hint = mesh.hint or "it is tried again by itself"
            yield from hanging(("   ", ""), hint, "$danger", width)
        elif mesh.link == "waiting" and status is not None:
            spent = span(max(1_000, mesh.lost_for_ms() // 1_000 * 1_000))
            words = f" ◌ the node has not answered for {spent}; what you see is older"
            yield _band(words, width, "needs-you")
        elif status is not None and status.health.split_brain is not None:
            evidence = str(status.health.split_brain.get("evidence", ""))
            yield _band(" ‼ SPLIT BRAIN. Everybody has stopped; nobody answers.", width, "danger")
            yield from hanging(("   ", ""), evidence, "bold $danger", width)
            yield from hanging(("   ", ""), WAY_OUT, "$danger", width)
        elif status is not None and status.health.status == "alarm" and status.health.alerts:
            alert = status.health.alerts[0]
            yield _band(f" ‼ {shown(alert.message)}", width, "danger")
            if alert.hint:
                yield from hanging(("   ", ""), alert.hint, "$danger", width)

    def _versions(self, width: int) -> Iterable[Line]:
        """A daemon may be updated under the control centre, or be older than what is installed."""
        gap = self.mesh.version_gap()
        if gap is None or self.mesh.link == "lost":
            return
        if gap.updated:
            quit_key = self.instar.key_of(BY_ID["quit-app"])
            what = f"the node runs {shown(gap.node)} now, this control centre {shown(gap.here)}"
            mend = f"{quit_key} leaves it; start it again"
        else:
            what = f"this control centre is {shown(gap.here)}, the node still runs {shown(gap.node)}"
            mend = "instar update restarts it into what is installed"
        yield from hanging((" ▲ ", "bold $needs-you"), f"{what}: {mend}", "bold $needs-you", width)


def _if_long(mesh: MeshState) -> str:
    """How long it takes already, once that is worth a word."""
    spent = mesh.lost_for_ms()
    return f" {span(spent // 1_000 * 1_000)}, it does not answer yet" if spent > LONG_START_MS else ""


def _band(text: str, width: int, token: str) -> Line:
    return [(fit(text, width), f"bold reverse ${token}")]


class OperationStrip(Framed):
    """A handoff or transfer step by step, with times; the last one stays."""

    def build(self, width: int) -> Iterable[Line]:
        operation = self.mesh.operation
        self.display = operation is not None
        return [] if operation is None else [self._strip(operation, width)]

    def _strip(self, operation: Operation, width: int) -> Line:
        spent = self.mesh.now_ms() - operation.started
        if operation.outcome == "running":
            glyph, style = SPINNER[spent // 200 % 4], "bold $needs-you"
        else:
            glyph, style = ("✔", "bold $awake") if operation.outcome == "done" else ("✕", "bold $danger")
        title: Line = [(f" {glyph} ", style), (shown(operation.title), "bold"), ("  ", "")]
        result: Line = [(f"{shown(operation.result)} ", style)] if operation.result else []
        if operation.outcome == "running":
            result.append((f"… {span(spent)}", "$muted"))
        elif operation.took_ms:
            result.append((f"in {span(operation.took_ms)}", "$muted"))
        undo: Line = (
            [("z takes it back ", "$muted")]
            if operation.kind == "transfer" and operation.outcome == "done" and operation.target
            else []
        )
        room = width - length(title) - length(result) - length(undo) - 1
        return spread([*title, *_newest_steps(operation.steps, room), *result], undo, width)


def _newest_steps(steps: Sequence[tuple[str, float]], room: int) -> Line:
    """Steps with the time each took; where there is not room for all, the earliest are left out."""
    line: Line = []
    for number in range(len(steps) - 1, -1, -1):
        name, at_ms = steps[number]
        before = steps[number - 1][1] if number else 0.0
        words: Line = [
            ("✔ ", "$awake"),
            (f"{shown(step_words(name))} ", ""),
            (f"{span(max(0.0, at_ms - before))}  ", "$muted"),
        ]
        if length(words) + length(line) + (2 if number else 0) > room:
            return [("… ", "$muted"), *line] if line else []
        line = [*words, *line]
    return line


class KeyLine(Framed):
    """The keys valid on this screen; a click does what the key does. A line being typed takes all letters."""

    def __init__(self, scope: str, extra: Iterable[str] = ()) -> None:
        super().__init__()
        self._scope = scope
        self._extra = tuple(extra)
        self._ends: list[tuple[int, str]] = []

    def build(self, width: int) -> Iterable[Line]:
        focused = self.screen.focused
        typing = focused is not None and focused.check_consume_key("a", "a")
        palette: Line = [(" ^p ", "bold $awake"), ("palette ", "$muted")]
        right: Line = palette if typing else [(" ? ", "bold $awake"), ("keys ", "$muted"), *palette]
        room = width - length(right)
        line: Line = [(" ", "")]
        self._ends = []
        if typing:
            self._ends = [(room, ""), (width, "palette")]
            return [spread(WHILE_TYPING, right, width)]
        for action in self._actions():
            cost = len(self._key(action)) + len(action.title) + 4
            if length(line) + cost > room:
                break
            off = not self.instar.allows(action)
            line.append((f" {self._key(action)} ", "$faint" if off else "bold $awake"))
            line.append((f"{action.title} ", "$faint" if off else "$foreground"))
            self._ends.append((length(line), action.id))
        self._ends += [(room, ""), (room + 8, "help"), (width, "palette")]
        return [spread(line, right, width)]

    def _key(self, action: Action) -> str:
        return self.instar.key_of(action)

    def _actions(self) -> list[Action]:
        screen = cast("MeshScreen", self.screen)
        return [action for action in footer_actions(self._scope, self._extra) if screen.offers(action)]

    def on_click(self, event: events.Click) -> None:
        name = next((name for end, name in self._ends if event.x < end), "")
        if name:
            self.instar.run_by_id(name)


def fit_name(name: str, width: int) -> str:
    """A nickname, safe to show, cut to a width but not padded."""
    return fit(shown(name), width).rstrip()
