"""What every agent runner of this package offers beyond ``contracts.AgentRunner``."""

from __future__ import annotations

from typing import Protocol

from instar_node.contracts import AgentRunner


class Agent(AgentRunner, Protocol):
    """An agent runner that owns resources of this machine."""

    async def close(self) -> None:
        """Kill whatever still runs and wait until it is gone; runs under way end as ``cancelled``."""
