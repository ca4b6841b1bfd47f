"""Many rows in one statement, so that a database thread hardly ever waits for the interpreter."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

T = TypeVar("T")

STEP, LARGEST = 16, 128
"""Rows of one statement: a multiple of ``STEP``, then what is left. Few sizes, so that each statement is
prepared once and found in the cache again; and few statements, because after each the thread waits for the
interpreter."""


def insert_rows(
    connection: sqlite3.Connection, table: str, rows: Iterable[Sequence[object]], conflict: str = ""
) -> None:
    """Insert whole rows into ``table``; ``conflict`` is an ``ON CONFLICT`` clause.

    ``executemany`` lets go of the interpreter and waits for it again with each row, which beside a busy event
    loop costs more than the row. ``table`` and ``conflict`` are constants of the program, never input.
    """
    for chunk in _chunks(list(rows)):
        places = f"({', '.join('?' * len(chunk[0]))})"
        statement = f"INSERT INTO {table} VALUES {', '.join([places] * len(chunk))} {conflict}"  # noqa: S608
        connection.execute(statement, tuple(chain.from_iterable(chunk)))


def select_known(connection: sqlite3.Connection, column: str, table: str, values: Iterable[T]) -> set[T]:
    """Those of these values that ``column`` of ``table``, which has an index, contains."""
    wanted = list(values)
    known: set[T] = set()
    for start in range(0, len(wanted), LARGEST):
        asked = wanted[start : start + LARGEST]
        size = 1 if len(asked) == 1 else -(-len(asked) // STEP) * STEP
        asked += asked[-1:] * (size - len(asked))  # asking twice for one is cheaper than a second statement
        query = f"SELECT {column} FROM {table} WHERE {column} IN ({', '.join('?' * size)})"  # noqa: S608
        known.update(value for (value,) in connection.execute(query, asked))
    return known


def _chunks(left: list[T]) -> Iterator[list[T]]:
    while left:
        size = min(len(left) // STEP * STEP, LARGEST) or len(left)
        yield left[:size]
        left = left[size:]
