"""An agent that was given secrets must not repeat them: what it says is cleaned before it is kept or sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from instar_node.contracts import RunRequest, RunResult
from instar_node.delivery.agents.base import Agent


class DiscreetAgent:
    """Wraps the configured agent.

    Args:
        agent: The one that runs.
        blank: Takes the values of secrets out of a text.
    """

    def __init__(self, agent: Agent, blank: Callable[[str], str]) -> None:
        self._agent = agent
        self._blank = blank

    async def run(self, request: RunRequest) -> RunResult:
        """Run it; replies and error come back without the values of secrets."""
        result = await self._agent.run(request)
        replies = tuple(self._blank(reply) for reply in result.replies)
        return msgspec.structs.replace(result, replies=replies, error=self._blank(result.error))

    def needs_history(self, topic: str) -> bool:
        return self._agent.needs_history(topic)

    def acts(self, topic: str) -> bool:
        return self._agent.acts(topic)

    def cancel(self, key: str) -> bool:
        return self._agent.cancel(key)

    def running(self, topic: str | None = None) -> Iterable[str]:
        return self._agent.running(topic)

    async def close(self) -> None:
        """Kill whatever still runs and wait until it is gone."""
        await self._agent.close()
