"""Jobs travelling from event loops to a database thread, and their outcomes travelling back."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("instar.storage")

AT_ONCE, NEVER = -math.inf, math.inf


class Job:
    """One call for a database thread, with the future its caller waits on."""

    def __init__(
        self,
        run: Callable[[sqlite3.Connection], Any],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
    ) -> None:
        self.run = run
        self.loop = loop
        self._future = future
        self._result: Any = None
        self._error: Exception | None = None

    def succeed(self, result: Any) -> None:
        """Note the result; the caller hears of it when the group is delivered."""
        self._result, self._error = result, None

    def fail(self, error: Exception) -> None:
        """Note the failure, replacing any result: nothing of this job is on disk."""
        if isinstance(error, StopIteration):  # a future cannot carry one
            error = RuntimeError("the job raised StopIteration")
        self._result, self._error = None, error

    def resolve(self) -> None:
        """Tell the caller. Runs on the caller's loop."""
        if self._future.cancelled():
            if self._error is not None:
                log.warning("a write whose caller went away failed: %s", self._error)
        elif self._error is not None:
            self._future.set_exception(self._error)
        else:
            self._future.set_result(self._result)


class JobQueue:
    """An unbounded queue that hands out everything waiting at once, up to a limit."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._due = NEVER
        """When something must be handed out, on ``time.monotonic``."""
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job, within_s: float = 0.0) -> bool:
        """Queue a job, to be handed out within so many seconds, or earlier with another one; ``False`` once
        the queue is closed."""
        with self._changed:
            if self._closed:
                return False
            self._jobs.append(job)
            due = time.monotonic() + within_s if within_s else AT_ONCE
            if due < self._due:
                self._due = due
                self._changed.notify()
            return True

    def take(self, limit: int) -> list[Job]:
        """Wait for work and take up to ``limit`` jobs in order; empty only when closed and drained."""
        with self._changed:
            while not self._closed and (left := self._due - time.monotonic()) > 0:
                self._changed.wait(None if self._due == NEVER else left)
            taken = [self._jobs.popleft() for _ in range(min(limit, len(self._jobs)))]
            self._due = AT_ONCE if self._jobs else NEVER
            return taken

    def close(self) -> None:
        """Refuse further jobs; those queued are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify()


def deliver(group: list[Job]) -> None:
    """Resolve finished jobs on their loops: one wake-up for each loop, in order."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in group:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve_all, jobs)
        except RuntimeError:  # the loop was closed without waiting for its writes
            log.warning("%d finished jobs had no loop left to hear of them", len(jobs))


def _resolve_all(jobs: list[Job]) -> None:
    for job in jobs:
        job.resolve()
