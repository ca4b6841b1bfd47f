"""Conversations as lists show them: where each runs, its last line, and what waits."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from instar_node.api import types as t
from instar_node.api.parts import Base, NodeParts, PoolParts
from instar_node.delivery.rows import Rank
from instar_node.delivery.state import TopicHead
from instar_node.pool.description import TopicPlacementDescription

PREVIEW = 200
"""Characters of the last line that a list of topics shows."""


class ReadMarks:
    """How far each conversation was read on this machine since the node started."""

    def __init__(self, heads: dict[str, TopicHead]) -> None:
        self._read = {topic: head.seq for topic, head in heads.items()}

    def seen(self, topic: str, seq: int) -> None:
        """Somebody was shown the conversation up to here."""
        self._read[topic] = max(seq, self._read.get(topic, 0))

    def unread(self, head: TopicHead) -> int:
        """Lines nobody was shown yet."""
        return max(0, head.seq - self._read.get(head.topic, 0))


def topic_rows(parts: NodeParts, marks: ReadMarks) -> list[t.TopicRow]:
    """All conversations, those with the newest line first."""
    ledger = parts.delivery.ledger
    heads = dict(ledger.topics())
    for placement in ledger.placements():
        heads.setdefault(placement.topic, TopicHead(placement.topic))
    queued = parts.delivery.delivery.queued_by_topic()
    running = Counter(
        row.origin.topic
        for row in ledger.log.state.open.values()
        if row.origin is not None and row.rank is Rank.PROCESSING
    )
    now = parts.base.clock.wall()
    rows = [_row(parts, marks, head, queued[topic], running[topic] > 0, now) for topic, head in heads.items()]
    return sorted(rows, key=lambda row: row.last_at or "", reverse=True)


def _row(
    parts: NodeParts, marks: ReadMarks, head: TopicHead, queued: int, running: bool, now: float
) -> t.TopicRow:
    place = describe(parts.base, parts.pool, head.topic)
    moving = parts.pool.transfers.moving_to(head.topic) if parts.pool is not None else None
    return t.TopicRow(
        topic=head.topic,
        owner=place.owner,
        owner_nickname=place.owner_nickname,
        reason=place.reason,
        pinned_to=place.pinned_to,
        pending_reason=place.pending_reason,
        last_at=head.at or None,
        last_at_ms=max(0, int((now - datetime.fromisoformat(head.at).timestamp()) * 1_000))
        if head.at
        else None,
        last_text=head.text[:PREVIEW],
        last_role=head.role or None,
        unread=marks.unread(head),
        queued=queued,
        running=running,
        moving_to=moving,
    )


def describe(base: Base, pool: PoolParts | None, topic: str) -> TopicPlacementDescription:
    """Where a topic runs; without the pool that is always the awake machine."""
    if pool is not None:
        return pool.transfers.describe(topic)
    holder = base.lease.holder
    name = None if holder is None else base.registry.nickname(holder)
    return TopicPlacementDescription(
        topic=topic,
        owner=holder,
        owner_nickname=name,
        reason="placed",
        pinned_to=None,
        lease_holder=holder,
        lease_holder_nickname=name,
        pin_state="none",
        is_this_machine=holder == base.me,
        pending_reason=None,
        ownership_epoch=None,
    )
