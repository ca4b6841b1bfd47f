"""A register with compare-and-swap, atomic and honest unless it is told to lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar_node.coordination.record import KnownRecord
from tests.simulation import coverage

if TYPE_CHECKING:
    from tests.simulation.world import World


class Register:
    """One register. ``values`` is everything it ever held, with the instant it was written."""

    def __init__(self, world: World, url: str) -> None:
        self._world = world
        self.url = url
        self.value: KnownRecord | None = None
        self.written = 0
        self.values: list[KnownRecord] = []
        self.away = False
        self.slowness = 0
        """Most microseconds that it takes for one step, beyond the network's own delay."""

    def swap(self, expected: str | None, candidate: KnownRecord) -> tuple[bool, KnownRecord | None]:
        """``(won, value afterwards)``. A repeated candidate that is the value has won."""
        version = self.value.version if self.value is not None else None
        if version == candidate.version:
            return True, self.value
        if version != expected:
            return False, self.value
        world = self._world
        world.say(f"{self.url or 'own register'}: {version} -> {candidate.version} {describe(candidate)}")
        world.oracle.on_landing(self, candidate)
        self._note(candidate)
        self.value, self.written = candidate, world.t
        self.values.append(candidate)
        return True, candidate

    def _note(self, candidate: KnownRecord) -> None:
        world = self._world
        before, after = world.oracle.record(candidate.record.prev), candidate.record
        if before is None:
            return
        if (kind := coverage.change_of_holder(before, after)) is not None:
            world.note(kind)
        for kind in coverage.changes_of_members(before, after):
            world.note(kind)

    def rewind(self, back: int) -> None:
        """Lie: hold an older value again."""
        if len(self.values) > back:
            del self.values[-back:]
            self.value = self.values[-1]
            self._world.note("hub rewound")
            self._world.say(f"{self.url}: rewound to {self.value.version} {describe(self.value)}")


def describe(known: KnownRecord) -> str:
    """A record in one line."""
    record = known.record
    text = (
        f"({record.epoch}, {record.serial}) {record.holder} {record.state} in {','.join(record.electorate)}"
    )
    return text + (f" benched {','.join(record.benched)}" if record.benched else "") + f" [{record.reason}]"
