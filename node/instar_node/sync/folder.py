"""The folder ``state/`` and the verified history, kept in step: edits go into the queue, news into the files.

What the folder should hold is the commit it was last brought to with the queued edits on top. Blocks.
"""

from __future__ import annotations

import shutil

from instar_node.clock import Clock, iso
from instar_node.sync.applied import applied_number
from instar_node.sync.changes import ChangeSet, Edit, edits_between, overlay
from instar_node.sync.memory import SyncMemory
from instar_node.sync.paths import is_reserved
from instar_node.sync.state_copy import StateCopy
from instar_node.sync.tree import File
from instar_node.sync.worktree import WorkTree, materialise

FREE_BYTES = 64 * 1024 * 1024
"""Less free than this, and nothing is captured: the queue must not take the last room of the ledger."""

_NOT_YOURS = "this name belongs to the mesh itself"


class StateFolder:
    """Belongs to the repository's thread."""

    def __init__(self, me: str, copy: StateCopy, memory: SyncMemory, clock: Clock) -> None:
        self._me = me
        self._copy = copy
        self._memory = memory
        self._clock = clock
        self._repository = copy.repository
        self._tree = WorkTree(self._repository.worktree, self._store, self._ignored)
        self.left_out: dict[str, str] = {}
        """What lies in the folder and is not shared, with the reason."""
        self.undone: tuple[str, ...] = ()
        """The mesh's own files that were edited at the last look; they were set back."""
        self.unwritten: dict[str, str] = memory.now.unwritten
        """What stands in the state and could not be written here, with the reason."""
        self.trouble: str | None = None
        """Why edits are not captured now; ``None`` when they are."""

    def open(self) -> None:
        """Finish what a crash interrupted."""
        if self._memory.now.checked_out != self._copy.head:
            self.bring_up()

    # -- from the folder --------------------------------------------------------------------------------

    def look(self) -> bool:
        """Find what was edited since the last look and queue it; ``True`` if there was something."""
        self.undone = ()
        if not self._repository.tied:
            self._restore()
            return False
        self._take_hand_made_commit()
        if self.unwritten:
            self.bring_up()
        edits = self._find_edits()
        self.trouble = self._no_room() if edits else None
        if not edits or self.trouble is not None:
            return False
        self._memory.capture(edits, iso(self._clock.wall()))
        return True

    def _find_edits(self) -> tuple[Edit, ...]:
        expected = self._expected(self._base_files())
        scan = self._tree.scan(expected, int(self._clock.wall() * 1e9))
        found = dict(scan.files)
        for path in self.unwritten:
            if path in expected:
                found.setdefault(path, expected[path])
        edits = edits_between(expected, found)
        strange = {edit.path: _NOT_YOURS for edit in edits if is_reserved(edit.path) and edit.base is None}
        self.left_out = {**scan.left_out, **strange}
        self._undo(tuple(edit for edit in edits if is_reserved(edit.path) and edit.base is not None))
        return tuple(edit for edit in edits if not is_reserved(edit.path))

    def _no_room(self) -> str | None:
        if shutil.disk_usage(self._repository.path).free >= FREE_BYTES:
            return None
        return f"less than {FREE_BYTES >> 20} MiB are free, so edits of the state folder wait"

    def _restore(self) -> None:
        """The whole folder is gone: that is an accident, not an edit. Write it anew."""
        self._repository.tie()
        self._write({}, self._expected(self._base_files()))

    def _undo(self, edits: tuple[Edit, ...]) -> None:
        """Set the mesh's own files back."""
        self.undone = tuple(edit.path for edit in edits)
        old = {edit.path: edit.now for edit in edits if edit.now is not None}
        self._write(old, {edit.path: edit.base for edit in edits if edit.base is not None})

    def _take_hand_made_commit(self) -> None:
        """Somebody committed in the folder with git: the files count as edits, the commit is kept aside."""
        made, head = self._repository.moved_by_hand(), self._copy.head
        if made is not None:
            self._repository.keep_aside(made)
            if head is not None:
                self._repository.set_head(head)

    # -- into the folder --------------------------------------------------------------------------------

    def bring_up(self, published: str | None = None) -> None:
        """Bring the files to the verified head.

        ``published`` is the newest commit that is not to be lost any more: queued change sets that stand in
        it are done. Edits of this machine that stood in an earlier one and are not in the line any more,
        because a later epoch had to go on without them, are queued again.
        """
        memory = self._memory.now
        before = memory.published
        if published is None and before is not None and not self._copy.contains(before):
            published = self._copy.head
        settled = 0 if published is None else self._own_number(published)
        remaining = tuple(change for change in memory.queue if change.number > settled)
        lost = () if published is None or before is None else self._lost(before)
        number = max(memory.next_number, settled + 1)
        if lost:
            fresh = enumerate((*lost, *remaining), start=number)
            remaining = tuple(ChangeSet(n, change.at, change.edits) for n, change in fresh)
            number += len(remaining)
        if (memory.checked_out, memory.queue) != (self._copy.head, remaining) or memory.unwritten:
            self._bring_to(overlay(self._copy.files, remaining))
        self._memory.change(
            checked_out=self._copy.head,
            published=published or before,
            queue=remaining,
            unwritten=self.unwritten,
            next_number=number,
        )

    def _bring_to(self, new: dict[str, File]) -> None:
        old = self._expected(self._base_files())
        for path in self.unwritten:  # they may have room now
            if self._tree.current(path) is None:
                old.pop(path, None)
        failed = self._write(old, new)
        waiting = {path: why for path, why in self.unwritten.items() if path in new and path not in failed}
        still = {path: why for path, why in waiting.items() if self._tree.current(path) != new[path]}
        self.unwritten = {**still, **failed}

    def _own_number(self, commit: str) -> int:
        """The number of our newest change set that stands in a commit of the verified line."""
        at_head = commit == self._copy.head
        files = self._copy.files if at_head else self._repository.files(commit)
        return applied_number(files, self._repository.blob, self._me, self._memory.now.queue_id)

    def _lost(self, before: str) -> tuple[ChangeSet, ...]:
        """Our edits in commits up to ``before`` that the verified line does not have."""
        if self._copy.contains(before):
            return ()
        self._repository.keep_aside(before)
        found = []
        for commit in self._repository.line(before, self._repository.shared(before)):
            if commit.author.machine_id != self._me:
                continue
            parent = commit.parents[0] if commit.parents else None
            edits = edits_between(self._repository.files(parent), self._repository.files(commit.oid))
            own = tuple(edit for edit in edits if not is_reserved(edit.path))
            if own:
                found.append(ChangeSet(1, iso(commit.author.time), own))
        return tuple(found)

    def _write(self, old: dict[str, File], new: dict[str, File]) -> dict[str, str]:
        return materialise(self._tree, old, new, self._repository.blob)

    # -- inside -----------------------------------------------------------------------------------------

    def _base_files(self) -> dict[str, File]:
        commit = self._memory.now.checked_out
        return self._copy.files if commit == self._copy.head else self._repository.files(commit)

    def _expected(self, files: dict[str, File]) -> dict[str, File]:
        return overlay(files, self._memory.now.queue)

    def _store(self, data: bytes) -> str:
        return self._repository.write("blob", data)

    def _ignored(self, path: str) -> bool:
        return bool(self._repository.git.path_is_ignored(path))
