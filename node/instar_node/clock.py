"""Time and randomness, injected everywhere so that simulation can own both.

All durations inside the node are integer microseconds on a clock that keeps counting while the machine
sleeps. ``time.monotonic()`` stops in suspend on Linux and must not be used: a laptop that wakes after an
hour would believe its lease still valid.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Protocol

MICROS_PER_MS = 1_000
MICROS_PER_SECOND = 1_000_000


def _clock_ns() -> Callable[[], int]:
    """Nanoseconds on the clock of this system that counts suspend."""
    # macOS: CLOCK_MONOTONIC through clock_gettime counts sleep, time.monotonic() does not
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    if clock is None or sys.platform == "win32":
        return time.monotonic_ns
    return partial(time.clock_gettime_ns, clock)


_now_ns = _clock_ns()


class Clock(Protocol):
    """The only source of time and randomness a part may use."""

    def now(self) -> int:
        """Microseconds on this machine's own clock; counts suspend; only differences mean anything."""

    def wall(self) -> float:
        """Unix seconds, for display only. Never compared between machines."""

    async def sleep(self, seconds: float) -> None:
        """Wait at least ``seconds``."""

    def token_hex(self, nbytes: int) -> str:
        """A random hex string of ``2 * nbytes`` characters."""


class SystemClock:
    """The real clock of this machine."""

    def now(self) -> int:
        return _now_ns() // 1_000

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def token_hex(self, nbytes: int) -> str:
        return secrets.token_hex(nbytes)


def iso(wall: float) -> str:
    """A unix time as the ISO-8601 UTC string of the API (``2026-11-23T16:58:03.120Z``)."""
    return _to_millis(round(wall * MICROS_PER_SECOND) // MICROS_PER_MS)


@lru_cache(maxsize=16)
def _to_millis(millis: int) -> str:
    """Kept for those that follow in the same millisecond: each message has several times told."""
    seconds, rest = divmod(millis, MICROS_PER_SECOND // MICROS_PER_MS)
    return f"{_to_seconds(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=4)
def _to_seconds(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


async def wait_for(clock: Clock, event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, for at most ``seconds`` of this clock; whether it is."""
    waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.sleep(seconds))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return event.is_set()
