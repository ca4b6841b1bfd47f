"""``UpdateRestartHandshake``: whether a restart into another version did take.

Before the restart the intent is written down; the program that comes up compares itself with it. A restart
that came up with something else is told, again at every start, until the intended version runs or somebody
updates anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from instar_node.errors import InstarError
from instar_node.storage.atomic import read_json, write_atomic

ESCALATE_AFTER = 2
"""Starts with the wrong version after which it is an alarm."""

_WAY_OUT = "remove it: it only says which version the last update wanted"


class Restart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A restart into another version. ``attempts`` counts the starts that came up with a wrong one."""

    expected: str
    previous: str
    at: str
    state: Literal["pending", "done", "failed"] = "pending"
    attempts: int = 0

    @property
    def escalated(self) -> bool:
        """Whether it failed so often that somebody has to look."""
        return self.state == "failed" and self.attempts >= ESCALATE_AFTER


def compare(restart: Restart, running: str) -> Restart:
    """The same restart after one more start, of which ``running`` is the version. Pure."""
    if running == restart.expected:
        return msgspec.structs.replace(restart, state="done")
    if restart.state == "done":  # the person went back, or on, by other means
        return restart
    return msgspec.structs.replace(restart, state="failed", attempts=restart.attempts + 1)


class UpdateRestartHandshake:
    """The last restart into another version, in ``machine/restart-handshake.json``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.last: Restart | None = None

    def intend(self, expected: str, previous: str, at: str) -> None:
        """Write down, durably, which version the next start is to run. Raises ``InstarError``."""
        self._store(Restart(expected, previous, at))

    def verify(self, running: str) -> Restart | None:
        """Once at every start: what the last restart came to; ``None`` when there never was one.

        A file that cannot be read counts as none: it must not keep a machine from starting. Raises
        ``InstarError`` when the outcome cannot be written.
        """
        try:
            known = read_json(self._path, Restart, _WAY_OUT) if self._path.exists() else None
        except InstarError:
            known = None
        if known is None:
            return None
        self.last = known
        after = compare(known, running)
        if after != known:
            self._store(after)
        return after

    def forget_failure(self) -> None:
        """The version that runs is the one that is wanted now, whatever was wanted before."""
        if self.last is not None and self.last.state == "failed":
            self._path.unlink(missing_ok=True)
            self.last = None

    def _store(self, restart: Restart) -> None:
        write_atomic(self._path, msgspec.json.encode(restart) + b"\n")
        self.last = restart
