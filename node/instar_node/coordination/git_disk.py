"""Compare-and-swap of one ref of a bare repository on a disk: the embedded hub and the path hub.

Never by a push: libgit2's push to a path writes the ref by force without an expected value and loses
acknowledged swaps. Here the ref is locked as git itself locks it, its value is read again under that lock,
and an advisory lock on a file of the repository keeps our own processes in a row.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pygit2
from pygit2.transaction import ReferenceTransaction

from instar_node.coordination.git_refs import in_thread
from instar_node.coordination.git_repository import LeaseRepository, tip_of
from instar_node.coordination.lease_store import RefusedSwap, StoreUnavailable

STALE_AFTER = 2.0
"""Seconds. git holds the lock of a ref for milliseconds; one that nobody touches for this long while we hold
the advisory lock was left by a process that was killed."""

_POLL = 0.01


class DiskRefs:
    """The refs of a bare repository on a disk.

    Args:
        absent_is_empty: A repository that does not exist reads as one without refs: right for the embedded
            hub, whereas a missing path hub is a disk that is not mounted.
        within: Seconds to wait for locks.
    """

    def __init__(self, objects: LeaseRepository, *, absent_is_empty: bool, within: float) -> None:
        self.objects = objects
        self._absent_is_empty = absent_is_empty
        self._within = within

    async def tip(self, ref: str, have: str | None) -> str | None:
        return await in_thread(lambda: self._tip(ref), self._within)

    async def swap(self, ref: str, expected: str | None, new: str, hooks: Path | None = None) -> None:
        await in_thread(lambda: swap_ref(self.objects, ref, expected, new, self._within), self._within)

    async def remove(self, ref: str, expected: str) -> None:
        await in_thread(lambda: swap_ref(self.objects, ref, expected, None, self._within), self._within)

    async def scratch(self) -> str:
        return await in_thread(self.objects.build_scratch, self._within)

    def _tip(self, ref: str) -> str | None:
        if self._absent_is_empty and not self.objects.path.exists():
            return None
        return self.objects.tip(ref)


def swap_ref(
    repository: LeaseRepository, ref: str, expected: str | None, new: str | None, within: float
) -> None:
    """Set ``ref`` from ``expected`` to ``new``, durably, or raise; ``None`` stands for no ref.

    Waits ``within`` seconds at most for locks.

    Raises:
        RefusedSwap: the ref holds another value.
        StoreUnavailable: no lock could be had in time, or the disk failed.
    """
    with _locked_ref(repository, ref, within) as (opened, transaction):
        current = tip_of(opened, ref)
        if current != expected:
            raise RefusedSwap(f"the register holds {current or 'nothing'}")
        if new is None:
            transaction.remove(ref)
        else:
            transaction.set_target(ref, new)


@contextmanager
def _locked_ref(
    repository: LeaseRepository, ref: str, within: float
) -> Iterator[tuple[pygit2.Repository, ReferenceTransaction]]:
    """The open repository and a transaction with ``ref`` locked, applied at the end unless one raises."""
    deadline = time.monotonic() + within
    with repository.opened() as opened, _advisory_lock(repository.path / "instar.lock", deadline):
        _await_ref_lock(repository.path / f"{ref}.lock", deadline)
        with opened.transaction() as transaction:
            transaction.lock_ref(ref)
            yield opened, transaction


@contextmanager
def _advisory_lock(path: Path, deadline: float) -> Iterator[None]:
    """Hold ``flock`` on ``path``. The kernel drops it when its holder dies, however it dies."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        message = f"{path.parent} cannot be written: {error.strerror}"
        raise StoreUnavailable(message, "hub-read-only") from error
    try:
        while not _try_lock(file, path):
            if time.monotonic() >= deadline:
                raise StoreUnavailable(f"another process keeps {path} locked", "hub-busy")
            time.sleep(_POLL)
        yield
    finally:
        os.close(file)


def _try_lock(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreUnavailable(f"the disk of {path} has no file locks: {error.strerror}") from error
    return True


def _await_ref_lock(lock: Path, deadline: float) -> None:
    """Wait until no lock file of the ref is there; remove one that a killed process left.

    None of our processes can own it, for we hold the advisory lock; a git process may, for milliseconds. So
    one that stays the same file for ``STALE_AFTER`` on our own clock is dead. A git process that was stopped
    for so long finds its lock gone when it goes on, and reports failure.
    """
    seen: tuple[int, int] | None = None
    since = time.monotonic()
    while (identity := _identity(lock)) is not None:
        now = time.monotonic()
        if identity != seen:
            seen, since = identity, now
        elif now - since >= STALE_AFTER:
            lock.unlink(missing_ok=True)
            return
        if now >= deadline:
            raise StoreUnavailable(f"another program holds {lock}", "hub-busy")
        time.sleep(_POLL)


def _identity(lock: Path) -> tuple[int, int] | None:
    try:
        info = os.stat(lock)
    except FileNotFoundError:
        return None
    return info.st_ino, info.st_mtime_ns
