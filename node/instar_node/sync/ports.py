"""What the state sync expects of the lease and of a hub; the composition root ties the real ones to it."""

from __future__ import annotations

from typing import Protocol

from instar_node.contracts import Authority


class StateLease(Authority, Protocol):
    """The lease as the state needs it."""

    @property
    def state_head(self) -> str:
        """The state commit that the newest lease record vouches for; empty when it names none."""

    @property
    def benched(self) -> bool:
        """Whether the newest record has machines on the bench."""

    @property
    def bench_ttl_us(self) -> int:
        """How long a machine on the bench waits before it may take over."""

    @property
    def incomplete(self) -> bool:
        """Whether the newest record's holder came from the bench or by force, and may miss older rows."""

    def proof(self) -> bytes:
        """The newest lease record with its holder's signature; empty when none is known."""


GARBLED = "0" * 40
"""The tip of a ref that names no object at all: its file was damaged, or overwritten with anything."""


class HubRefusedError(Exception):
    """The hub's state ref holds something else than was expected; nothing was changed."""


class HubUnavailableError(Exception):
    """The hub could not be asked, or its answer was lost: what was asked may have been done.

    ``message`` says for people what is wrong, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StateHub(Protocol):
    """The one ref of a git hub on which all machines meet. Where there is none, they meet at each other."""

    @property
    def audit_s(self) -> float:
        """Seconds between two looks of a machine that only follows."""

    @property
    def push_pause_s(self) -> float:
        """Least seconds between two pushes, to be a good guest."""

    async def tip(self, have: str | None) -> str | None:
        """The commit the ref names, ``None`` if there is none; what can be had of it is then in the state
        repository. ``have`` is a commit whose history is there already. ``GARBLED`` for a ref that cannot
        be read. Raises ``HubUnavailableError``."""

    async def push(self, expected: str | None, new: str) -> None:
        """Put a commit of the state repository there, and all it names, in the place of ``expected``.

        Raises ``HubRefusedError`` or ``HubUnavailableError``.
        """
