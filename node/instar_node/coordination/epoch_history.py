"""The epochs this machine has seen begin or learned of from others, for people to read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from instar_node.contracts import Database
from instar_node.coordination.http_lease_transport import HistoryRow

SHOWN = 1_000
"""Rows kept in memory, newest first."""


class EpochHistory:
    """A small table, merged from what happens here and what other machines tell."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.rows: list[HistoryRow] = []

    async def load(self) -> None:
        """Read what is stored."""

        def read(connection: sqlite3.Connection) -> list[HistoryRow]:
            query = "SELECT epoch, holder, reason, at, took_ms FROM epoch_history ORDER BY epoch DESC LIMIT ?"
            return [HistoryRow(*row) for row in connection.execute(query, (SHOWN,))]

        stored = await self._database.read(read)
        known = {row.epoch for row in stored}
        self._keep([*stored, *(row for row in self.rows if row.epoch not in known)])

    async def merge(self, rows: Iterable[HistoryRow]) -> None:
        """Add epochs not known yet; what is known stands."""
        known = {row.epoch for row in self.rows}
        fresh = [row for row in rows if row.epoch not in known]
        if not fresh:
            return
        self._keep([*self.rows, *fresh])

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR IGNORE INTO epoch_history (epoch, holder, reason, at, took_ms) VALUES (?,?,?,?,?)",
                [(row.epoch, row.holder, row.reason, row.at, row.took_ms) for row in fresh],
            )

        await self._database.write(insert)

    def holder_before(self, epoch: int) -> str | None:
        """Who held the newest epoch before this one; ``None`` when none is known here."""
        return next((row.holder for row in self.rows if row.epoch < epoch), None)

    async def note_took(self, epoch: int, took_ms: int) -> None:
        """Say how long the change of holder into ``epoch`` took."""
        self.rows = [
            HistoryRow(row.epoch, row.holder, row.reason, row.at, took_ms) if row.epoch == epoch else row
            for row in self.rows
        ]

        def update(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE epoch_history SET took_ms = ? WHERE epoch = ?", (took_ms, epoch))

        await self._database.write(update)

    def _keep(self, rows: list[HistoryRow]) -> None:
        self.rows = sorted(rows, key=lambda row: -row.epoch)[:SHOWN]
