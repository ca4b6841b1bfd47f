"""What was answered, without any text: for a machine on the bench, which gets no rows and may yet take over.

Markers lie in blocks by the place in the log at which a message got its state, so that from one checkpoint to
the next only the newest block changes. A repeated message whose marker is known is not answered again; what
happened after the last checkpoint a machine from the bench cannot know, and says so (``incomplete``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.contracts import Database
from instar_node.delivery import tables
from instar_node.delivery.entries import decode_message
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.rows import MessageRow, Rank, Status, join
from instar_node.errors import InstarError

BLOCK = 256
"""Log entries whose markers share a block."""
BLOCKS = 20
"""Newest blocks that are kept."""
KEPT = frozenset(
    {Rank.ABANDONED, Rank.RESERVED, Rank.UNDECIDED, Rank.REJECTED, Rank.COMMITTED, Rank.CURSOR_ADVANCED}
)
PREPARED = "an answer was prepared on a machine that is away"


class Marker(msgspec.Struct, frozen=True, array_like=True):
    """The state of one message: its dedupe key, its rank, and where in the log it got there."""

    key: Annotated[str, Meta(max_length=1_024)]
    rank: Rank
    epoch: Annotated[int, Meta(ge=0)]
    seq: Annotated[int, Meta(ge=0)]

    def row(self, known: MessageRow | None) -> MessageRow:
        """The marker as a row. An answer that was prepared and is not here may have been sent: a person
        decides."""
        missing = known is None or not known.reservations
        if self.rank is Rank.RESERVED and missing:
            return MessageRow(self.key, Status(Rank.UNDECIDED, self.epoch, self.seq, PREPARED))
        return MessageRow(self.key, Status(self.rank, self.epoch, self.seq))


class LedgerCheckpoints:
    """Implements ``contracts.Checkpoints`` over the ledger."""

    def __init__(self, ledger: MessageProcessingLedger, database: Database) -> None:
        self._ledger = ledger
        self._database = database

    async def blocks(self) -> dict[str, bytes]:
        """The newest blocks: name → content."""
        unsaved = self._ledger.log.state.unsaved.rows
        rows = await self._database.read(partial(_newest_rows, unsaved))
        grouped: dict[str, list[Marker]] = {}
        for row in rows:
            if row.rank in KEPT:
                name = f"{row.status.epoch}-{row.status.seq // BLOCK}"
                marker = Marker(row.key, row.rank, row.status.epoch, row.status.seq)
                grouped.setdefault(name, []).append(marker)
        return {
            name: msgspec.json.encode(sorted(markers, key=lambda marker: marker.seq)) + b"\n"
            for name, markers in grouped.items()
        }

    async def take_in(self, machine: str, blocks: Mapping[str, bytes]) -> int:
        """Join the markers that ``machine`` left; returns how many told something new.

        Raises ``InstarError``: ``bad-checkpoint``, or ``not-awake``.
        """
        markers = [marker for raw in blocks.values() for marker in decode_markers(raw)]
        await self._ledger.ensure_open()
        rows = [marker.row(await self._ledger.message(marker.key)) for marker in markers]
        return len(await self._ledger.adopt(machine, rows, ()))


def decode_markers(raw: bytes) -> list[Marker]:
    """The markers of a block. Raises ``InstarError("bad-checkpoint")``."""
    try:
        return msgspec.json.decode(raw, type=list[Marker])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InstarError("bad-checkpoint", f"a checkpoint cannot be read: {error}", status=422) from error


def _newest_rows(unsaved: Mapping[str, MessageRow], connection: sqlite3.Connection) -> list[MessageRow]:
    """The messages of the newest entries, as they stand."""
    keys: dict[str, None] = {}
    for entry in tables.newest_entries(connection, BLOCK * BLOCKS):
        if (said := decode_message(entry)) is not None:
            keys[said.key] = None
    return [row for key in keys if (row := _newest(connection, key, unsaved.get(key))) is not None]


def _newest(connection: sqlite3.Connection, key: str, unsaved: MessageRow | None) -> MessageRow | None:
    saved = tables.load_row(connection, key)
    if saved is None or unsaved is None:
        return saved or unsaved
    return join(saved, unsaved)  # a round may have been written meanwhile: then the table has the newer one
