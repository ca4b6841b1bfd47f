"""The ``echo`` agent: answers with the message itself, in process. For the demo and the benchmarks."""

from __future__ import annotations

from collections.abc import Iterable

from instar_node.contracts import RunRequest, RunResult


class EchoAgent:
    """Replies at once with the text it was given."""

    async def run(self, request: RunRequest) -> RunResult:
        return RunResult("ok", (request.text,))

    def needs_history(self, topic: str) -> bool:
        return False

    def acts(self, topic: str) -> bool:
        return False

    def cancel(self, key: str) -> bool:
        """Nothing can be cancelled: a run ends in the step in which it begins."""
        return False

    def running(self, topic: str | None = None) -> Iterable[str]:
        return ()

    async def close(self) -> None:
        """Holds nothing."""
