"""Many rows in one statement, so that a database thread hardly ever waits for the interpreter."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain

CHUNKS = (64, 16, 4, 1)
"""Rows of one statement. Few sizes, so that each statement is prepared once and found in the cache again."""


def insert_rows(
    connection: sqlite3.Connection, table: str, rows: Iterable[Sequence[object]], conflict: str = ""
) -> None:
    """Insert whole rows into ``table``; ``conflict`` is an ``ON CONFLICT`` clause.

    ``executemany`` lets go of the interpreter and waits for it again with each row, which beside a busy event
    loop costs more than the row. ``table`` and ``conflict`` are constants of the program, never input.
    """
    left = list(rows)
    for size in CHUNKS:
        while len(left) >= size:
            chunk, left = left[:size], left[size:]
            places = f"({', '.join('?' * len(chunk[0]))})"
            statement = f"INSERT INTO {table} VALUES {', '.join([places] * size)} {conflict}"  # noqa: S608
            connection.execute(statement, tuple(chain.from_iterable(chunk)))
