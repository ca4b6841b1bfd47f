"""Compare-and-swap of one ref of a bare repository on a disk: the embedded hub and the path hub.

Never by a push: libgit2's push to a path writes the ref by force without an expected value and loses
acknowledged swaps. Here the ref is locked as git itself locks it (a file that only one can create), its value
is read again under that lock, and once more when the swap is made. An advisory lock on a file of the
repository keeps our own processes in a row.

A process that was killed leaves at most the lock of the ref; one that was stopped (SIGSTOP, a frozen VM)
keeps both locks. Either is passed over after ``STALE_AFTER``, so that nobody who stands still can keep the
lease from the others. When it goes on, the lock it would make its swap with is gone, and it learns that it
failed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pygit2
from pygit2.transaction import ReferenceTransaction

from instar_node.coordination.git_refs import UNREADABLE, in_thread
from instar_node.coordination.git_repository import LeaseRepository, tip_of
from instar_node.coordination.hub_troubles import blocked, not_writable
from instar_node.coordination.lease_store import RefusedSwap, StoreUnavailable

STALE_AFTER = 2.0
"""Seconds. A swap holds its locks for milliseconds; one that stays the same for this long was left by a
process that was killed, or is held by one that stands still."""

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
        version = self.objects.tip(ref)
        if version is None and self.objects.is_folder(ref):
            raise blocked(f"the folder {self.objects.path / ref}", ref)
        return version


def swap_ref(
    repository: LeaseRepository, ref: str, expected: str | None, new: str | None, within: float
) -> None:
    """Set ``ref`` from ``expected`` to ``new``, durably, or raise; ``None`` stands for no ref.

    Waits ``within`` seconds at most for locks.

    Raises:
        RefusedSwap: the ref holds another value.
        StoreUnavailable: no lock could be had in time, or the disk failed, or this process stood still for so
            long that it was passed over.
    """
    with _locked_ref(repository, ref, within) as (opened, transaction):
        current = tip_of(opened, ref)
        if current != expected:
            raise RefusedSwap(f"the register holds {current or 'nothing'}")
        if current == UNREADABLE:  # libgit2 would read it once more before it writes
            (repository.path / ref).unlink()
        if new is None:
            transaction.remove(ref)
        else:
            transaction.set_target(ref, new)
    if repository.tip(ref) != new:  # passed over, or the next swap was made already: the caller finds out
        raise StoreUnavailable(f"{repository.path} holds another value by now", "hub-busy")


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
    """Hold ``flock`` on ``path``. The kernel drops it when its holder dies, however it dies.

    Every holder writes a new word into the file. While the word stays the same, so does the holder; after
    ``STALE_AFTER`` the file is replaced, and with it the lock.
    """
    watch = _Watch()
    while (file := _locked_file(path)) is None:
        now = time.monotonic()
        if watch.unchanged_for(_content(path), now) >= STALE_AFTER:
            _replace(path)
        elif now >= deadline:
            raise StoreUnavailable(f"another process keeps {path} locked", "hub-busy")
        time.sleep(_POLL)
    try:
        yield
    finally:
        os.close(file)


def _locked_file(path: Path) -> int | None:
    """The open file if this process has the lock now."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise not_writable(path.parent) from error
        raise StoreUnavailable(f"{path.parent} cannot be used: {error.strerror}") from error
    try:
        if _try_lock(file, path) and os.path.samestat(os.fstat(file), os.stat(path)):
            os.pwrite(file, secrets.token_bytes(8), 0)
            kept, file = file, -1
            return kept
    except FileNotFoundError:  # replaced at this moment
        return None
    finally:
        if file >= 0:
            os.close(file)
    return None


def _try_lock(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreUnavailable(f"the disk of {path} has no file locks: {error.strerror}") from error
    return True


def _content(path: Path) -> tuple[int, bytes] | None:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_ino, file.read(64)
    except FileNotFoundError:
        return None


def _replace(path: Path) -> None:
    """Put a new file, which nobody has locked, in the place of this one."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fresh.touch(0o666)
    fresh.replace(path)


class _Watch:
    """Since when something has been the same, on our own clock."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = 0.0

    def unchanged_for(self, value: object, now: float) -> float:
        """Seconds for which ``value`` has been what it is now; 0 for ``None``."""
        if value is None or value != self._seen:
            self._seen, self._since = value, now
        return now - self._since


def _await_ref_lock(lock: Path, deadline: float) -> None:
    """Wait until no lock file of the ref is there; remove one that stays the same for ``STALE_AFTER``.

    Its owner, if it still lives, finds it gone when it goes on: it cannot make its swap any more.
    """
    watch = _Watch()
    while (identity := _identity(lock)) is not None:
        now = time.monotonic()
        if watch.unchanged_for(identity, now) >= STALE_AFTER:
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
