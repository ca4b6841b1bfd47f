"""The shared state: what is queued, refused, in conflict or left out."""

from __future__ import annotations

from typing import Literal

from instar_node.api.types.base import Model

SyncState = Literal["empty", "in-sync", "queued", "unpushed", "behind"]


class QueuedChange(Model):
    """An edit of this machine that the awake one has not surely taken in."""

    path: str
    kind: Literal["added", "changed", "deleted"]
    at: str
    number: int
    """Edits of one number were found at one look, and are applied together."""


class RefusedCommit(Model):
    """Commits that were not believed; ``code`` names the rule that ``commit`` broke."""

    commit: str
    code: str
    why: str
    source: str
    """``the hub``, or a nickname."""
    at: str


class SyncConflict(Model):
    """Two machines changed one file; ``kept_as`` has the version of ``machine``, ``None`` for a deletion
    that did not happen."""

    path: str
    kept_as: str | None
    machine_id: str
    machine: str
    at: str


class SyncLeftOut(Model):
    path: str
    why: str


class SyncView(Model):
    """The shared state as this machine has it."""

    state: SyncState
    head: str | None
    epoch: int | None
    signed_by: str | None
    files: int
    writes: bool
    """Whether this machine writes it now."""
    last_push: str | None
    last_pull: str | None
    unpushed: bool
    hub_error: str | None
    trouble: str | None
    queued: list[QueuedChange]
    refused: list[RefusedCommit]
    conflicts: list[SyncConflict]
    left_out: list[SyncLeftOut]
    """Files of this machine that are not shared, with the reason."""
    unwritten: list[SyncLeftOut]
    """Files of the state that could not be written here."""
    folder: str
