"""``ctrl+p``: every action by name, and sentences such as ``transfer 42 mini`` or ``hand off to mini``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from instar_tui.actions import ACTIONS, BY_ID
from instar_tui.widgets.text import shown

if TYPE_CHECKING:
    from instar_tui.app import InstarApp

MOST_TOPICS = 40
"""Topics offered for one query; more words narrow it."""
NOT_OFFERED = frozenset({"palette", "back"})


class Command(NamedTuple):
    """One thing the palette can run."""

    text: str
    help: str
    run: Callable[[], object]


class MeshCommands(Provider):
    """Actions of the table, and those that name a machine or a topic."""

    @property
    def instar(self) -> InstarApp:
        return cast("InstarApp", self.app)

    def commands(self, query: str) -> Iterator[Command]:
        """All commands worth matching against this query."""
        app = self.instar
        for action in ACTIONS:
            if action.id in NOT_OFFERED or not app.allows(action):
                continue
            words = f"{action.title} – {action.tooltip}"
            twin = f"{app.key_of(action)}    {action.cli}".rstrip()
            yield Command(words, twin, partial(app.run_by_id, action.id))
        yield from self._machines()
        yield from self._topics(query)

    def _machines(self) -> Iterator[Command]:
        app = self.instar
        if not app.allows(BY_ID["hand-off"]):
            return
        for machine in app.mesh.machines():
            name = shown(machine.nickname)
            if machine.is_self:
                yield Command(f"wake up here, on {name}", "instar wakeup", app.operations.wakeup)
            if machine.role == "standby":
                run = partial(app.operations.hand_off, machine)
                yield Command(f"hand off to {name}", f"instar handoff {name}", run)
            if not machine.is_self:
                drill = partial(app.operations.verify, machine.nickname)
                yield Command(f"drill with {name}", f"instar verify {name}", drill)
                rehearse = partial(app.operations.verify, machine.nickname, rehearse=True)
                words = f"drill with {name}, handoff rehearsed only"
                yield Command(words, f"instar verify {name} --rehearse", rehearse)

    def _topics(self, query: str) -> Iterator[Command]:
        app = self.instar
        words = [
            word for word in query.lower().split() if word not in ("transfer", "topic", "move", "to", "open")
        ]
        owners = {row.topic: row.owner for row in app.mesh.topics()}
        names = list(owners)
        named = [name for name in names if any(word in name.lower() for word in words)]
        for name in (named or ([] if words else names))[:MOST_TOPICS]:
            yield Command(f"open topic {name}", f"instar log {name}", partial(app.open_topic, name))
            if not app.allows(BY_ID["transfer"]):
                continue
            for machine in app.mesh.machines():
                if machine.machine_id == owners[name]:
                    continue
                run = partial(app.operations.transfer, name, machine.nickname)
                where = shown(machine.nickname)
                yield Command(f"transfer topic {name} to {where}", f"instar transfer {name} {where}", run)

    async def discover(self) -> Hits:
        for command in self.commands(""):
            if not command.text.startswith(("transfer topic", "open topic")):
                yield DiscoveryHit(Content(command.text), command.run, command.text, command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self.commands(query):
            score = matcher.match(command.text)
            if score > 0:
                yield Hit(score, matcher.highlight(command.text), command.run, command.text, command.help)
