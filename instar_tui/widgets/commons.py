"""What the machines have in common: the shared state, the secrets, the versions they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from instar_tui.widgets.checks import Panel
from instar_tui.widgets.live import Line, hanging, heading
from instar_tui.widgets.text import ago_of, fit, fit_right, plural, shown, span
from instar_tui.widgets.vocabulary import SYNC, UNKNOWN

if TYPE_CHECKING:
    from instar_node.api.types import MachineVersion, SecretRow, SyncView

LISTED = 4
"""Of refusals, conflicts and the like so many are shown; the commands show all."""
TOOK = 8


class Sync(Panel):
    """The shared state: where it stands, what waits to get into it, what was kept out."""

    def build(self, width: int) -> Iterable[Line]:
        view = self.checks.sync
        if view is None:
            return
        mark = SYNC.get(view.state, UNKNOWN)
        yield heading("shared state", width, plural(view.files, "file"))
        writer = "this machine writes it" if view.writes else "the awake machine writes it"
        yield [(f" {mark.glyph} {mark.word}", mark.style), (f"   {writer}", "$muted")]
        if view.head:
            signed = f", signed by {shown(self.mesh.nickname(view.signed_by))}" if view.signed_by else ""
            yield [("   head      ", "$muted"), (f"{shown(view.head[:10])}{signed}", "")]
        pulled, pushed = ago_of(view.last_pull), ago_of(view.last_push)
        yield [("   pulled    ", "$muted"), (fit(pulled, 12), ""), ("pushed ", "$muted"), (pushed, "")]
        for trouble in filter(None, (view.hub_error, view.trouble)):
            yield from hanging((" ⚠ ", "bold $needs-you"), trouble, "", width)
        yield from self._lists(view)
        yield []

    @staticmethod
    def _lists(view: SyncView) -> Iterator[Line]:
        lists = (
            ("queued here", "$needs-you", [f"{row.path} ({row.kind})" for row in view.queued]),
            (
                "in conflict",
                "$needs-you",
                [f"{row.path}: {row.machine}'s kept as {row.kept_as or '–'}" for row in view.conflicts],
            ),
            (
                "refused",
                "$danger",
                [f"{row.commit[:10]} from {row.source}: {row.why}" for row in view.refused],
            ),
            ("not shared", "$muted", [f"{row.path}: {row.why}" for row in view.left_out]),
            ("not written here", "$danger", [f"{row.path}: {row.why}" for row in view.unwritten]),
        )
        for title, style, rows in lists:
            if rows:
                yield [(f"   {title}  {len(rows)}", f"bold {style}")]
            for words in rows[:LISTED]:
                yield [(f"     {shown(words)}", "")]
            if len(rows) > LISTED:
                yield [(f"     and {len(rows) - LISTED} more: instar sync", "$muted")]


class Secrets(Panel):
    """The names of the secrets, who can open them and what asks for them; never a value."""

    def build(self, width: int) -> Iterable[Line]:
        rows, uses = self.checks.secrets, self.checks.uses
        if rows is None:
            return
        yield heading("secrets", width, "names only" if rows else "")
        for row in rows:
            yield from self._secret(row, uses.get(row.name, []), width)
        for name in sorted(uses.keys() - {row.name for row in rows}):
            yield from hanging(
                (" ✕ ", "bold $danger"),
                f"{', '.join(uses[name])} asks for {name}, which is not kept",
                "",
                width,
            )
            yield from hanging(("   → ", "$muted"), f"instar secret set {name}", "bold", width)
        if not rows and not uses:
            yield [("   none; ", "$muted"), ("instar secret set NAME", "bold"), (" keeps one", "$muted")]
        yield []

    @staticmethod
    def _secret(row: SecretRow, used: list[str], width: int) -> Iterator[Line]:
        good = row.readable_here and not row.exposed_to
        where = f"used by {', '.join(used)}" if used else "not used on this machine"
        yield [
            (" ✔ " if good else " ⚠ ", "$awake" if good else "bold $needs-you"),
            (f"{fit(shown(row.name), 22)} ", "bold"),
            (shown(where), "" if used else "$muted"),
        ]
        readers = ", ".join(row.readers) or "nobody"
        yield from hanging(("   ", ""), f"set {ago_of(row.set_at)}, opens on {readers}", "$muted", width)
        if row.exposed_to:
            known = f"{', '.join(row.exposed_to)} has left and may still know it: give it a new value"
            yield from hanging(("   ", ""), known, "$needs-you", width)
        if not row.readable_here:
            yield from hanging(("   ", ""), "does not open on this machine", "$needs-you", width)


def secret_uses(settings: dict[str, Any]) -> dict[str, list[str]]:
    """What asks for which secret by name, from the settings of a home."""
    uses: dict[str, list[str]] = {}
    for name in settings["agent"]["env_secrets"]:
        uses.setdefault(name, []).append("the agent")
    if token := settings["channels"]["telegram"]["token_secret"]:
        uses.setdefault(token, []).append("telegram")
    return uses


class Versions(Panel):
    """What each machine runs, who is held back, and the last update."""

    def build(self, width: int) -> Iterable[Line]:
        view = self.checks.updates
        if view is None:
            return
        waiting = view.installed is not None and view.installed != view.version
        yield heading("versions", width, "update under way" if view.running else "")
        for machine in view.machines:
            yield self._machine(machine)
        if waiting:
            yield [
                (" ⚠ ", "bold $needs-you"),
                (f"{shown(view.installed or '')} is installed here: ", ""),
                ("instar update", "bold"),
                (" restarts every machine into it", ""),
            ]
        if view.restart is not None and view.restart.state == "failed":
            yield [
                (" ✕ ", "bold $danger"),
                (f"the restart into {shown(view.restart.expected)} did not take", "$danger"),
            ]
        for step in view.steps[-LISTED:]:
            yield [
                (f"   {fit_right(span(step.at_ms), TOOK)}  ", "$muted"),
                (f"{shown(step.nickname)}: {shown(step.step)} {shown(step.note)}", ""),
            ]
        yield []

    @staticmethod
    def _machine(machine: MachineVersion) -> Line:
        held = machine.held_back
        line: Line = [
            (" ◑ " if held else " ✔ ", "$needs-you" if held else "$awake"),
            (fit(shown(machine.nickname), 14), "bold" if machine.is_self else ""),
            (fit(shown(machine.version or "not heard yet"), 14), ""),
        ]
        if machine.protocol is not None:
            line.append((f"protocol {'–'.join(str(n) for n in dict.fromkeys(machine.protocol))}", "$muted"))
        return [*line, (f"   {shown(held)}", "$needs-you")] if held else line
