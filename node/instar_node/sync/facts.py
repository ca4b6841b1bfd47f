"""The state sync as people and scripts see it."""

from __future__ import annotations

import msgspec

from instar_node.sync.changes import ChangeSet, Conflict
from instar_node.sync.memory import RefusedLine


class SyncFacts(msgspec.Struct, frozen=True):
    """One consistent picture. Ages are microseconds; ``None``: never, or not known."""

    head: str | None
    """The newest verified commit."""
    published: str | None
    """The newest that is on the hub, or was shown to other machines."""
    epoch: int | None
    """Epoch of the head."""
    signer: str | None
    """Machine that signed the head."""
    files: int
    writes: bool
    """Whether this machine writes the state now."""
    behind: str | None
    """Why it does not, although it is awake; or why it would not take over."""
    pushed_us_ago: int | None
    pulled_us_ago: int | None
    hub_error: str | None
    trouble: str | None
    """Why edits are not captured, or the last step failed; ``None`` when all is well."""
    queue: tuple[ChangeSet, ...]
    """Edits of this machine that the awake one has not surely taken in."""
    refused: tuple[RefusedLine, ...]
    conflicts: tuple[Conflict, ...]
    left_out: dict[str, str]
    unwritten: dict[str, str]
