"""The ``manual`` agent: a person answers, from the TUI or with ``POST /topics/{t}/reply``."""

from __future__ import annotations

from collections.abc import Iterable

from instar_node.contracts import RunRequest, RunResult


class ManualAgent:
    """Leaves every message ``waiting`` for a person."""

    async def run(self, request: RunRequest) -> RunResult:
        return RunResult("waiting")

    def needs_history(self, topic: str) -> bool:
        return False

    def acts(self, topic: str) -> bool:
        return False

    def cancel(self, key: str) -> bool:
        """A waiting message is no run; there is nothing to kill."""
        return False

    def running(self, topic: str | None = None) -> Iterable[str]:
        return ()

    async def close(self) -> None:
        """Holds nothing."""
