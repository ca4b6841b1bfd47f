"""Files that are whole or old, never half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from instar_node.errors import InstarError

T = TypeVar("T")


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the content of ``path``, durably: after a crash it holds the old bytes or the new ones.

    Written to a temporary file beside it, synced, renamed over it, and the folder synced.
    Raises ``InstarError("disk-full")`` or ``InstarError("write-failed")``; the old content then stands.
    """
    import tempfile  # only for who writes: commands that read are quicker without it

    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise write_failed(path, error) from error
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise write_failed(path, error) from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_failed(path: Path, error: OSError) -> InstarError:
    """A failed write as people read it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path)
    return InstarError(
        "write-failed",
        f"cannot write {path}: {error.strerror}",
        "check that the folder exists and that this account may write there",
        status=500,
    )


def disk_full(path: Path) -> InstarError:
    """The error of every write that found no room."""
    return InstarError(
        "disk-full",
        f"no space left to write {path}",
        "free some space on that disk; the node goes on by itself once writes succeed again",
        status=507,
    )


def read_json(path: Path, type: type[T], hint: str = "") -> T:  # noqa: A002 - the name msgspec uses
    """Decode a JSON file strictly.

    Raises ``InstarError``: ``file-missing``, ``file-unreadable`` or ``file-damaged``, naming the file.
    ``hint`` is the way out that the caller knows (what the file is made of, and how to get it again).
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=type)
    except FileNotFoundError as error:
        raise InstarError("file-missing", f"{path} does not exist", hint, status=500) from error
    except OSError as error:
        raise InstarError(
            "file-unreadable", f"cannot read {path}: {error.strerror}", hint, status=500
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InstarError(
            "file-damaged",
            f"{path} is damaged: {error}",
            hint or f"restore it from a backup, or move it aside: mv {path} {path}.damaged",
            status=500,
        ) from error
