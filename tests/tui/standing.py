"""Time that stands still, for pictures that are to be the same every time."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from instar_node.clock import SystemClock

NOON = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)


class StandingClock(SystemClock):
    """Time does not pass; waiting still takes its time."""

    def now(self) -> int:
        return 10**12

    def wall(self) -> float:
        return NOON.timestamp()


class StandingDay(datetime):
    """``now`` is always the same."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> StandingDay:
        return cls.fromtimestamp(NOON.timestamp(), tz)
