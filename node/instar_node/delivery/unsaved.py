"""What the log says and the ledger's other tables do not show yet.

With each group of messages only the log is written, which grows at its end. Messages, lines and topics, which
are scattered over many pages, follow from it: they are written in rounds, with the position in the log that
they then show, and meanwhile kept here. A start applies the entries after that position again
(``load_state``), as databases recover from a checkpoint and the log after it (Mohan et al. 1992, ARIES).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from instar_node.contracts import Placement
from instar_node.delivery.rows import MessageRow

if TYPE_CHECKING:
    from instar_node.delivery.state import Change, Outcome, TopicHead, Totals

ROUND_ENTRIES = 1_000
ROUND_BYTES = 1 << 20
"""Entries, and their bytes, after which a round is written: what a start applies again at most takes it some
50 ms."""


class Unsaved:
    """Everything that changed since the last round."""

    def __init__(self, since: Totals) -> None:
        """``since``: the totals of the log at the position that the tables show."""
        self.since = since
        self.changes: list[Change] = []
        """In the order in which they happened."""
        self.rows: dict[str, MessageRow] = {}
        self.topics: dict[str, TopicHead] = {}
        self.placements: dict[str, Placement] = {}
        self.positions: dict[str, str] = {}
        self._by_topic: dict[str, dict[str, MessageRow]] = {}

    def add(self, outcome: Outcome) -> None:
        """Take in what a durable transaction changed."""
        self.changes += outcome.changes
        self.rows.update(outcome.rows)
        self.topics.update(outcome.topics)
        self.placements.update(outcome.placements)
        self.positions.update(outcome.positions)
        for key, row in outcome.rows.items():
            if row.origin is not None:
                self._by_topic.setdefault(row.origin.topic, {})[key] = row

    def of_topic(self, topic: str) -> Mapping[str, MessageRow]:
        """The changed rows of one topic, by key, as they are at this instant."""
        return dict(self._by_topic.get(topic, {}))

    def due(self, totals: Totals) -> bool:
        """Whether a log that has grown to these totals is far enough ahead of the tables for a round."""
        return (
            totals.entries - self.since.entries >= ROUND_ENTRIES
            or totals.bytes - self.since.bytes >= ROUND_BYTES
        )


def moves_lines(change: Change) -> bool:
    """Whether a change gives a line another place: the tables must never show the old one."""
    before, after = change.before, change.after
    return before is not None and (
        (before.origin is not None and before.origin != after.origin)
        or (before.commit is not None and before.commit != after.commit)
    )
