"""Bringing a database up to date, and refusing one that is damaged or newer than this program."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from instar_node.storage.database_errors import database_damaged, database_too_new

MIGRATIONS = Path(__file__).parent / "migrations"
CHECK_BELOW_BYTES = 32 * 1024 * 1024
"""Files up to this size are checked whole at every start (2 ms a MiB); larger ones after an unclean stop."""


class Migration(NamedTuple):
    """One numbered step of the schema."""

    number: int
    name: str
    sql: str


def load_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The steps ``NNN_name.sql`` in order. Two files with one number are a packaging error."""
    steps = []
    for file in sorted(folder.glob("*.sql")):
        match = re.fullmatch(r"(\d{3})_(\w+)\.sql", file.name)
        if match is None:
            raise ValueError(f"{file.name} is not named NNN_name.sql")
        steps.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    numbers = [step.number for step in steps]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"two migrations share a number: {numbers}")
    return steps


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Migration] | None = None) -> None:
    """Apply the steps above ``PRAGMA user_version``, each in a transaction of its own.

    Raises ``InstarError("database-too-new")`` when the file knows steps that this program does not.
    """
    steps = load_migrations() if steps is None else steps
    current: int = connection.execute("PRAGMA user_version").fetchone()[0]
    known = steps[-1].number if steps else 0
    if current > known:
        raise database_too_new(path, current, known)
    for step in steps:
        if step.number > current:
            _apply(connection, step)


def _apply(connection: sqlite3.Connection, step: Migration) -> None:
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{step.sql}\n;PRAGMA user_version={step.number};\nCOMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a damaged file (``InstarError("database-damaged")``).

    A clean stop removes the write-ahead log, so one that is still there means that the last process died;
    then, and while the file is small, every page is checked.
    """
    log_left = Path(f"{path}-wal")
    unclean = log_left.exists() and log_left.stat().st_size > 0
    if not unclean and path.stat().st_size > CHECK_BELOW_BYTES:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise database_damaged(path, str(verdict))
