"""Edits on their way into the shared state, and what becomes of them there. Pure.

Only the awake machine writes. What is edited anywhere is first captured as a change set (path, what it was,
what it is now) and then applied by the awake machine, in order and once. Where the same file was changed
elsewhere meanwhile, text is merged if the two changes do not touch; otherwise both versions are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.sync.paths import MAX_FILES, MAX_PATH_BYTES, conflict_path
from instar_node.sync.tree import File, Files, differing

Path = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_BYTES)]


class Edit(msgspec.Struct, frozen=True):
    """One file of a change set: ``None`` stands for no file."""

    path: Path
    base: File | None
    """What it was, as far as the machine knew that edited it."""
    now: File | None


class ChangeSet(msgspec.Struct, frozen=True):
    """What was found changed at one look. ``number`` grows by one on each machine."""

    number: Annotated[int, Meta(ge=1, lt=2**53)]
    at: Annotated[str, Meta(max_length=40)]
    edits: Annotated[tuple[Edit, ...], Meta(max_length=2 * MAX_FILES)]
    offered: bool = False
    """Whether the awake machine may have seen it: from then on it never changes."""


class Conflict(msgspec.Struct, frozen=True):
    """Two machines changed one file. Nothing is lost: ``kept_as`` has what does not stand at ``path``."""

    path: str
    kept_as: str | None
    """Where the edit went; ``None`` when the edit was a deletion, which then did not happen."""
    machine_id: str
    at: str


class Applied(msgspec.Struct, frozen=True):
    """What a change set comes to: files to set (``None``: to delete), and what was in conflict."""

    updates: dict[str, File | None]
    conflicts: tuple[Conflict, ...]


Merge = Callable[[File, File, File], File | None]
"""``(base, ours, theirs)``: the merged file, or ``None`` when the changes touch or the file is no text."""


def apply(change: ChangeSet, files: Files, machine_id: str, nickname: str, merge: Merge) -> Applied:
    """What the edits of a machine come to in the state ``files``."""
    updates: dict[str, File | None] = {}
    conflicts: list[Conflict] = []
    taken = set(files)
    # Deletions first: a folder may have become a file, or a file a folder.
    for edit in sorted(change.edits, key=lambda edit: (edit.now is not None, edit.path)):
        result = _merged(edit, files.get(edit.path), merge)
        if isinstance(result, _Standing):
            kept = None
            if edit.now is not None:
                kept = conflict_path(edit.path, nickname, change.number, taken)
                updates[kept] = edit.now
                taken.add(kept)
            conflicts.append(Conflict(edit.path, kept, machine_id, change.at))
            continue
        if result is not None and _obstructed(edit.path, taken):
            kept = _beside(edit.path, nickname, change.number, taken)
            conflicts.append(Conflict(edit.path, kept, machine_id, change.at))
            updates[kept] = result
            taken.add(kept)
            continue
        if result != files.get(edit.path):
            updates[edit.path] = result
        if result is None:
            taken.discard(edit.path)
        else:
            taken.add(edit.path)
    return Applied(updates, tuple(conflicts))


class _Standing:
    """The version that is there stays."""


def _merged(edit: Edit, ours: File | None, merge: Merge) -> File | _Standing | None:
    """What the path should hold. Who edits wins over who deletes: the deleted text is in the history."""
    if ours in (edit.base, edit.now) or ours is None:
        return edit.now
    if edit.now is None:
        return _Standing()
    merged = merge(edit.base, ours, edit.now) if edit.base is not None else None
    return _Standing() if merged is None else merged


def _obstructed(path: str, taken: set[str]) -> bool:
    """Whether a file lies where this path needs a folder, or a folder where it is to be."""
    parts = path.split("/")
    above = {"/".join(parts[:count]) for count in range(1, len(parts))}
    return bool(above & taken) or any(other.startswith(f"{path}/") for other in taken)


def _beside(path: str, nickname: str, number: int, taken: set[str]) -> str:
    parts = path.split("/")
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        if above in taken:
            return "/".join([conflict_path(above, nickname, number, taken), *parts[count:]])
    return conflict_path(path, nickname, number, taken)


def overlay(files: Files, queue: Iterable[ChangeSet]) -> dict[str, File]:
    """The state with queued edits on top: what the folder of this machine should show."""
    result = dict(files)
    for change in queue:
        for edit in change.edits:
            if edit.now is None:
                result.pop(edit.path, None)
            else:
                result[edit.path] = edit.now
    return result


def edits_between(old: Files, new: Files) -> tuple[Edit, ...]:
    """The edits that lead from one state to another."""
    return tuple(Edit(path, old.get(path), new.get(path)) for path in differing(old, new))


def coalesced(last: ChangeSet, edits: tuple[Edit, ...], at: str) -> ChangeSet:
    """A change set nobody has seen yet, with later edits taken into it; what came back to its beginning is
    dropped."""
    merged: dict[str, Edit] = {edit.path: edit for edit in last.edits}
    for edit in edits:
        first = merged.get(edit.path)
        merged[edit.path] = edit if first is None else Edit(edit.path, first.base, edit.now)
    kept = tuple(edit for edit in merged.values() if edit.base != edit.now)
    return msgspec.structs.replace(last, edits=kept, at=at)
