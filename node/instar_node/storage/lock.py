"""One node per home: an advisory lock that the kernel drops when the process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from types import TracebackType

from instar_node.errors import InstarError
from instar_node.storage.home import Home


class HomeLock:
    """Holds ``node.lock`` while a node runs. The file holds the pid; it is never deleted, only unlocked."""

    def __init__(self, home: Home) -> None:
        self._path = home.lock
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock and write our pid. Raises ``InstarError("already-running")`` naming the other pid."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(fd)
            os.close(fd)
            raise _already_running(self._path.parent, pid) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go; harmless when not held."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> HomeLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def _already_running(folder: os.PathLike[str], pid: int | None) -> InstarError:
    who = f"pid {pid}" if pid else "another process"
    return InstarError(
        "already-running",
        f"a node already runs on {os.fspath(folder)} ({who})",
        "use it with the instar commands, stop it first, or start this one with another --home",
        extra={"pid": pid},
    )
