"""The committed picture of the ledger that the event loop reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from instar_node.contracts import Placement
from instar_node.delivery.entries import GENESIS, LogEntry, Mark
from instar_node.delivery.rows import MessageRow
from instar_node.delivery.unsaved import Unsaved


class TopicHead(msgspec.Struct, frozen=True, array_like=True):
    """The newest line of a topic and its number; ``role`` is ``user`` or ``agent``. ``answered_by`` is the
    machine of the newest answer."""

    topic: str
    seq: int = 0
    role: str = ""
    text: str = ""
    at: str = ""
    machine: str = ""
    answered_by: str = ""


class Totals(NamedTuple):
    """Entries and bytes of this copy of the log up to a place."""

    entries: int
    bytes: int


class Change(NamedTuple):
    """One message that an entry changed."""

    kind: str
    before: MessageRow | None
    after: MessageRow


class Outcome(NamedTuple):
    """What one durable transaction changed; ``truncated`` says that the log was cut before ``entries``, and
    ``saved`` that with it all tables show what the log says."""

    head: Mark
    totals: Totals
    opened_by: str | None
    incomplete: frozenset[str]
    entries: list[LogEntry]
    changes: list[Change]
    rows: dict[str, MessageRow]
    topics: dict[str, TopicHead]
    placements: dict[str, Placement]
    positions: dict[str, str]
    truncated: bool
    saved: bool


class LedgerState:
    """What the log came to, as far as it is durable here. Read and changed on the event loop only."""

    def __init__(self) -> None:
        self.head: Mark = GENESIS
        self.totals = Totals(0, 0)
        self.opened_by: str | None = None
        """The machine that opened the epoch of ``head``."""
        self.incomplete: frozenset[str] = frozenset()
        """Machines whose older rows were still missing when the epoch began and have not come since."""
        self.open: dict[str, MessageRow] = {}
        """Every row with something still to do."""
        self.topics: dict[str, TopicHead] = {}
        self.placements: dict[str, Placement] = {}
        self.positions: dict[str, str] = {}
        """By channel: its own position after the newest message it brought in."""
        self.unsaved = Unsaved(self.totals)

    def known(self, key: str) -> MessageRow | None:
        """The row, if it is one that memory has: an open one, or one that the tables do not show yet."""
        return self.open.get(key) or self.unsaved.rows.get(key)

    def absorb(self, outcome: Outcome) -> None:
        """Take over what a durable transaction came to."""
        self.head, self.totals = outcome.head, outcome.totals
        self.opened_by, self.incomplete = outcome.opened_by, outcome.incomplete
        for key, row in outcome.rows.items():
            if row.open:
                self.open[key] = row
            else:
                self.open.pop(key, None)
        self.topics.update(outcome.topics)
        self.placements.update(outcome.placements)
        self.positions.update(outcome.positions)
        if outcome.saved:
            self.unsaved = Unsaved(outcome.totals)
        else:
            self.unsaved.add(outcome)

    def drop_texts(self, heads: Iterable[TopicHead]) -> None:
        """Show newest lines as compaction left them, unless newer ones have come."""
        for head in heads:
            if self.topics[head.topic].seq == head.seq:
                self.topics[head.topic] = head
