"""The one thread on which a repository is used: libgit2's objects must not be shared between threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs jobs one after the other, beside the event loop."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, job: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The result of a job. A caller that goes away does not stop it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(job, *arguments, **named))

    def close(self) -> None:
        """Wait for the job under way; what still waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
