"""What can happen to the disk under a node: it is full, a write was torn, somebody locks the database."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.harness import Machine

SIZE = "160m"
"""Of each disk: a node takes no edits of the state folder when less than 64 MiB are free."""
WAL_HEADER = 32
FRAME_HEADER = 24


class SmallDisks:
    """A disk of its own for each home, small enough to be filled. Mounting one needs root."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    @property
    def mounted(self) -> bool:
        """Whether there is one; else nobody fills anything."""
        return bool(self._mounted)

    def mount(self, home: Path) -> None:
        """Put an empty disk where a home will be, if we may."""
        home.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(home)]
        if os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0:
            self._mounted.append(home)

    def unmount(self) -> None:
        """Take all of them away, with what is on them."""
        for home in self._mounted:
            subprocess.run(["umount", "--lazy", str(home)], check=True)


@contextmanager
def filled(machine: Machine) -> Iterator[None]:
    """While this is open there is not a byte left on the disk of a home."""
    ballast = machine.home.path / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12, 1):
                write_all(file.fileno(), size)
        yield
    finally:
        ballast.unlink()


def write_all(file: int, size: int) -> None:
    """Write blocks of this size until none goes in any more."""
    try:
        while os.write(file, bytes(size)):
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def locked(machine: Machine) -> Iterator[None]:
    """While this is open another program writes to the database of a home, and does not come to its end."""
    connection = sqlite3.connect(machine.home.database, isolation_level=None, timeout=60)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def tear(machine: Machine) -> bool:
    """What a crash can leave of the write that was under way: a page of the write-ahead log that looks right
    and of which only half is there. Only of a node that does not run; says whether there was a log."""
    log = machine.home.database.with_name(f"{machine.home.database.name}-wal")
    data = log.read_bytes() if log.exists() else b""
    frame = FRAME_HEADER + int.from_bytes(data[8:12], "big")
    if len(data) < WAL_HEADER + frame:
        return False
    with log.open("ab") as file:
        file.write(data[WAL_HEADER : WAL_HEADER + frame // 2])
    return True
