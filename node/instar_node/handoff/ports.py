"""What a handoff needs of the other parts; the composition root hands in the real ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from instar_node.contracts import Authority

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)
M_co = TypeVar("M_co", covariant=True)


class LeaseTimes(Protocol):
    """What of the lease's picture a takeover tells people."""

    @property
    def contend_in_us(self) -> int | None:
        """When this machine may contend, microseconds from now; ``None``: not by itself."""


class LeaseControl(Authority, Protocol):
    """The lease, as far as changes of holder drive it. All raise ``InstarError`` with the reason."""

    async def bring_in(self, machine: str, within: float) -> None:
        """Have a machine in the electorate, level both ways."""

    async def pass_to(self, machine: str, within: float) -> int:
        """Give up for good and hand over; the epoch in which ``machine`` was seen to hold."""

    async def release(self) -> None:
        """Give up, so that anyone in sync may take over at once."""

    async def take_over(self, within: float) -> int:
        """Take the lease by the rules, waiting as long as they say; the new epoch."""

    async def heal(self, confirmed: bool, vouched: tuple[str, ...]) -> int:
        """A person ends a split brain: this machine's line goes on; the new epoch."""

    async def force(self, vouched: tuple[str, ...]) -> int:
        """Begin a new generation here; ``needs-confirmation`` lists whom a person must vouch for."""

    def snapshot(self) -> LeaseTimes:
        """The lease at this instant."""


class Ingress(Protocol):
    """The work on messages (``delivery.Delivery``)."""

    async def pause(self) -> None:
        """Take no message in until ``resume``."""

    async def drain(self, within: float) -> bool:
        """Begin nothing new; wait for what is under way, and cancel it after ``within`` seconds."""

    async def resume(self) -> None:
        """Go on, or send those who wait to the new holder."""

    @property
    def running(self) -> dict[str, str]:
        """By topic: the key of the message under way."""


class TailCopy(Protocol[M_co]):
    """This machine's copy of the conversation (``livetail.LiveTailBuffer``)."""

    async def manifest(self) -> M_co:
        """Position and, per topic, the digest of all that is durable here."""


class TailMatcher(Protocol[M_contra]):
    """Compares a manifest with this machine's copy (``livetail.HttpLiveTailTransport``)."""

    def match(self, manifest: M_contra, within: float) -> Awaitable[list[str]]:
        """Catch up with it; the topics that differ."""


class StateLevel(Protocol):
    """This machine's copy of the shared state (``sync.StateSync``)."""

    async def require_current(self, within: float) -> None:
        """Wait until it has what the lease vouches for. Raises ``InstarError("state-behind")``."""


class LedgerHead(Protocol[M_co]):
    """The ledger's committed picture."""

    @property
    def head(self) -> M_co:
        """Position and running hash of the last entry."""


class LedgerLog(Protocol[M]):
    """This machine's copy of the message log (``delivery.ReplicatedLog``)."""

    @property
    def state(self) -> LedgerHead[M]: ...

    async def settle(self) -> None:
        """Wait until no write is under way."""

    async def greatest_common(self, theirs: tuple[M, ...]) -> M:
        """The newest of these marks that this log contains."""

    def on_outcome(self, callback: Callable[[Any], None]) -> None:
        """Be told of every durable write."""
