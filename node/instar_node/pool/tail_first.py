"""A machine gets a topic only once it has the conversation."""

from __future__ import annotations

from typing import Protocol

from instar_node.contracts import Authority, Members
from instar_node.errors import InstarError

TAIL_S = 5.0
"""How long a machine may take to catch up with the conversation before it gets a topic."""


class TailProgress(Protocol):
    """How far other machines' copies of the conversation are."""

    async def caught_up(self, machine: str, within: float) -> bool:
        """Wait until this machine has all that was said so far; ``False`` if that took too long."""


class TailFirst:
    """Brings the conversation to a machine."""

    def __init__(self, tail: TailProgress, members: Members, authority: Authority) -> None:
        self._tail = tail
        self._members = members
        self._authority = authority

    async def bring(self, machine: str) -> None:
        """Return once a machine has all that was said so far. Raises ``InstarError("tail-behind")``."""
        if machine != self._authority.me and not await self._tail.caught_up(machine, TAIL_S):
            raise InstarError(
                "tail-behind",
                f"{self._members.nickname(machine)} has not got the conversation yet",
                "try again in a moment: `instar machines` shows how far behind it is",
            )
