"""Tells people and the live tail what the ledger came to."""

from __future__ import annotations

from instar_node.delivery.contract import ConversationSink, Publish
from instar_node.delivery.conversation import Line, agent_line, user_line
from instar_node.delivery.rows import public_key
from instar_node.delivery.state import Change


class Narrator:
    """One event for each change of a message, on every machine; where it was made also the new lines."""

    def __init__(self, sink: ConversationSink, publish: Publish) -> None:
        self._sink = sink
        self._publish = publish

    def tell(self, change: Change, ours: bool) -> None:
        """Called once for each durable change, in order; ``ours`` if it was made here, not followed."""
        self._publish_state(change)
        before, after = change.before, change.after
        if after.origin is None or not ours:
            return
        if before is None or before.origin is None:
            self._append(after.origin.topic, user_line(after))
        if after.commit is not None and (before is None or before.commit is None):
            replies = after.reservation.replies if after.reservation is not None else ()
            for part in range(len(replies)):
                self._append(after.origin.topic, agent_line(after, part))

    def _append(self, topic: str, line: Line | None) -> None:
        if line is not None:
            self._sink.append(
                kind=line.role,
                topic=topic,
                text=line.text,
                at=line.at,
                key=line.key,
                reply_to=line.reply_to,
                epoch=line.epoch,
                machine_id=line.machine_id,
                seq=line.seq,
            )

    def _publish_state(self, change: Change) -> None:
        row, rank = change.after, change.after.rank
        if row.origin is None or (change.before is not None and change.before.rank is rank):
            return
        topic, key, state = row.origin.topic, public_key(row.key), rank.name.lower()
        reason = f" ({row.reason})" if row.reason else ""
        self._publish("message", f"{topic}: {key} {state}{reason}", topic=topic, key=key, state=state)
