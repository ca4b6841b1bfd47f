"""SQLite's failures as people read them: what happened, and the way out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from instar_node.errors import InstarError
from instar_node.storage.atomic import disk_full, write_failed

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


def translated(error: sqlite3.Error | OSError, path: Path) -> Exception:
    """An ``InstarError`` for what a person must mend; a constraint or a programming error stays itself."""
    if isinstance(error, OSError):
        return write_failed(path, error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code, without the extension
    if code == sqlite3.SQLITE_FULL:
        return disk_full(path)
    if code in _DAMAGED:
        return database_damaged(path, str(error))
    if code in _LOCKED:
        return InstarError(
            "database-locked",
            f"another program holds {path} locked",
            "close it (a backup, an open sqlite3 shell) and try again",
            status=503,
        )
    if code in _DISK:
        return InstarError(
            "database-failed",
            f"the disk refused {path}: {error}",
            "check the disk and that this account may write there",
            status=500,
        )
    return error


def database_damaged(path: Path, detail: str) -> InstarError:
    """The file cannot be trusted; nothing is repaired behind the person's back."""
    return InstarError(
        "database-damaged",
        f"{path} is damaged: {detail}",
        f"restore it from a backup, or move it aside (mv {path} {path}.damaged) and start again: a paired "
        "machine then fills this one from the others; a machine that is alone starts with an empty history",
        status=500,
    )


def database_too_new(path: Path, found: int, known: int) -> InstarError:
    """The file was written by a newer program."""
    return InstarError(
        "database-too-new",
        f"{path} has schema {found}; this version knows schemas up to {known}",
        "update instar-tui on this machine",
        status=500,
    )


def database_closed(path: Path) -> InstarError:
    """The node is stopping."""
    return InstarError("database-closed", f"{path} is closed: the node is stopping", status=503)
