"""What is held of each topic, kept up to date while lines are added within one job of the database."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from instar_node.livetail import store
from instar_node.livetail.entry import Line, add_digest, line_digest, remove_digest
from instar_node.livetail.store import PREVIEW, TopicState, line_size


class TopicAccounts:
    """The topics that a job touches. First ``take`` every line, then insert the entries, then ``settle``."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._states: dict[str, TopicState] = {}
        self._taken: set[tuple[str, str, str, int]] = set()

    def take(self, line: Line) -> bytes | None:
        """Account for a line and return its digest; ``None`` when it is held already, or was dropped for
        space earlier."""
        state = self._states.get(line.topic) or store.topic_state(self._db, line.topic)
        if line.topic_seq <= state.floor or (line.topic_seq <= state.last and self._holds(line)):
            return None
        digest = line_digest(line)
        self._taken.add((line.topic, line.role, line.key, line.topic_seq))
        state = replace(
            state,
            first=min(state.first, line.topic_seq) if state.count else line.topic_seq,
            count=state.count + 1,
            size=state.size + line_size(line),
            digest=add_digest(state.digest, digest),
        )
        if line.topic_seq >= state.last:
            state = replace(
                state,
                last=line.topic_seq,
                last_at=line.at,
                last_role=line.role,
                last_text=line.text[:PREVIEW],
            )
        self._states[line.topic] = state
        return digest

    def settle(self, cap: int) -> tuple[TopicState, ...]:
        """Drop the oldest lines of each topic while it exceeds ``cap`` bytes, and store what is held now.

        The newest line always stays, however long it is.
        """
        settled = tuple(self._within(state, cap) for state in self._states.values())
        store.save_topics(self._db, settled)
        return settled

    def _holds(self, line: Line) -> bool:
        identity = (line.topic, line.role, line.key, line.topic_seq)
        return identity in self._taken or store.holds(self._db, line)

    def _within(self, state: TopicState, cap: int) -> TopicState:
        while state.size > cap and state.count > 1:
            seq, floor, size, digest = store.oldest(self._db, state.topic)
            store.delete(self._db, seq)
            state = replace(
                state,
                floor=floor,
                first=store.oldest(self._db, state.topic)[1],
                count=state.count - 1,
                size=state.size - size,
                digest=remove_digest(state.digest, digest),
            )
        return state
