"""What the state sync of a machine must not forget: queued edits, and how far its folder was brought."""

from __future__ import annotations

from pathlib import Path

import msgspec

from instar_node.storage.atomic import read_json, write_atomic
from instar_node.sync.changes import ChangeSet, Conflict, Edit, coalesced

FILE_NAME = "state-sync.json"
MAX_KEPT = 50
"""Refusals and conflicts that are remembered, newest last."""


class RefusedLine(msgspec.Struct, frozen=True):
    """Commits that were not believed."""

    commit: str
    """The newest of them; kept below ``refs/instar/aside`` in ``state.git``."""
    code: str
    why: str
    source: str
    """Where they came from: ``hub`` or a machine id."""
    at: str


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of ``machine/state-sync.json``."""

    queue_id: str
    """Random, made with the file: numbers of another queue of this machine say nothing about this one."""
    next_number: int = 1
    queue: tuple[ChangeSet, ...] = ()
    checked_out: str | None = None
    """The commit that the folder was last brought to."""
    published: str | None = None
    """The newest commit of the verified line that is on the hub, or was shown to other machines."""
    unwritten: dict[str, str] = {}
    """Paths of that commit that could not be written, and why: their absence is no deletion."""
    holders: dict[int, str] = {}
    """Who surely held which epoch, as far as this machine has heard."""
    refused: tuple[RefusedLine, ...] = ()
    conflicts: tuple[Conflict, ...] = ()


class SyncMemory:
    """The file, and the small steps that change it. Every change is durable when the call returns."""

    def __init__(self, path: Path, fresh_id: str) -> None:
        self._path = path
        self.now = read_json(path, Memory, _HINT) if path.exists() else Memory(fresh_id)

    def change(self, **fields: object) -> None:
        """Set fields. Raises ``InstarError`` when the disk refuses; nothing is changed then."""
        fresh: Memory = msgspec.structs.replace(self.now, **fields)
        if fresh != self.now:
            write_atomic(self._path, msgspec.json.encode(fresh))
            self.now = fresh

    # -- the queue --------------------------------------------------------------------------------------

    def capture(self, edits: tuple[Edit, ...], at: str) -> None:
        """Queue edits; they join the last change set while nobody else has seen that one."""
        queue = self.now.queue
        if queue and not queue[-1].offered:
            last = coalesced(queue[-1], edits, at)
            self.change(queue=(*queue[:-1], last) if last.edits else queue[:-1])
        elif edits:
            number = self.now.next_number
            self.change(queue=(*queue, ChangeSet(number, at, edits)), next_number=number + 1)

    def offer(self, through: int) -> None:
        """Freeze change sets up to a number: from now on another machine may have seen them."""
        frozen = (
            msgspec.structs.replace(change, offered=True) if change.number <= through else change
            for change in self.now.queue
        )
        self.change(queue=tuple(frozen))

    # -- what people are told ---------------------------------------------------------------------------

    def note_refusal(self, refusal: RefusedLine) -> bool:
        """Remember commits that were not believed; ``False`` if these were known."""
        if any((old.commit, old.code) == (refusal.commit, refusal.code) for old in self.now.refused):
            return False
        self.change(refused=(*self.now.refused, refusal)[-MAX_KEPT:])
        return True

    def note_conflicts(self, conflicts: tuple[Conflict, ...]) -> None:
        """Remember conflicts."""
        if conflicts:
            self.change(conflicts=(*self.now.conflicts, *conflicts)[-MAX_KEPT:])

    def note_holder(self, epoch: int, holder: str) -> None:
        """Remember who holds an epoch; the first knowledge stands."""
        if epoch not in self.now.holders:
            self.change(holders={**self.now.holders, epoch: holder})


_HINT = (
    "move it aside: edits of state/ that were waiting in it are found again as far as the files still hold "
    "them"
)
