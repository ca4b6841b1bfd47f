"""The newest entries of the log in memory, so that feeding a machine that keeps up reads no disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from instar_node.contracts import LogPosition
from instar_node.livetail.entry import TailEntry, line_size

MOST_ENTRIES = 2_048
MOST_BYTES = 1 << 20


class RecentEntries:
    """Every entry of the log after a position that moves on as entries are added."""

    def __init__(self, after: LogPosition) -> None:
        self._after = after
        self._entries: deque[TailEntry] = deque()
        self._size = 0

    def add(self, entries: Sequence[TailEntry], size: int) -> None:
        """Entries at the end of the log, of so many bytes."""
        self._entries.extend(entries)
        self._size += size
        while len(self._entries) > MOST_ENTRIES or self._size > MOST_BYTES:
            oldest = self._entries.popleft()
            self._after = oldest.position
            self._size -= line_size(oldest.line)

    def since(self, position: LogPosition) -> list[TailEntry] | None:
        """The entries after a position, in order; ``None`` when not all of them are in memory."""
        if position.seq < self._after.seq:
            return None
        found: list[TailEntry] = []
        for entry in reversed(self._entries):  # who keeps up lacks only the last few
            if entry.position.seq <= position.seq:
                break
            found.append(entry)
        found.reverse()
        return found
