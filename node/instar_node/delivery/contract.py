"""What delivery expects of a channel and of the conversation record, and what it hands to them.

A channel carries messages in and replies out. Every reply goes to all configured channels, one after the
other in the order of configuration, each under the same idempotency key (``reply_id``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec


class OutgoingReply(msgspec.Struct, frozen=True):
    """One part of an answer on its way out.

    ``reply_id`` is the idempotency key: the same for the same part on every machine, ever. ``reply_to`` is
    the public key of the answered message, ``index`` the place of this part (from 0), ``epoch`` the fencing
    token.
    """

    reply_id: str
    reply_to: str
    topic: str
    text: str
    epoch: int
    machine_id: str
    index: int
    first: bool = True
    """Whether this opens the answer: not a later part, nor a later piece of a part."""


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """The channel has the reply for good."""


class Fenced(msgspec.Struct, frozen=True, tag="fenced"):
    """The receiver knows a higher epoch: we may no longer be the holder. Not retried in this epoch."""

    reason: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The receiver will never take this reply as it is (a 4xx); a person has to look."""

    reason: str


class Retry(msgspec.Struct, frozen=True, tag="retry"):
    """Nothing was delivered for certain, or it is not known (network, 5xx, 429): try again later."""

    after_s: float
    reason: str
    maybe_sent: bool = True
    """Whether the receiver may have taken it nevertheless (a lost answer). ``False`` only if it surely did
    not (no connection was made, or it said so)."""


SendOutcome = Sent | Fenced | Refused | Retry


class IngressMessage(msgspec.Struct, frozen=True):
    """A message as a channel received it. ``provider_id`` is unique within channel and topic."""

    channel: str
    topic: str
    text: str
    provider_id: str
    sender: str
    position: str = ""
    """The channel's own position after this message (an offset, say); kept with the row."""


Accept = Callable[[IngressMessage], Awaitable[None]]
"""Takes a message in; returns once it is safe on every in-sync machine. Raises ``InstarError``."""


class ChannelTrouble(NamedTuple):
    """Something about a channel that a person should know: an alert."""

    code: str
    message: str
    hint: str = ""


class Channel(Protocol):
    """One way in and out. All methods run on the node's event loop."""

    @property
    def name(self) -> str:
        """Short and stable; part of every dedupe key."""

    @property
    def deduplicates(self) -> bool:
        """Whether repeating a send with the same ``reply_id`` is harmless (the receiver drops repeats)."""

    @property
    def in_ledger(self) -> bool:
        """Whether a reply is delivered by being committed: it is read from the ledger, and ``send`` has
        nothing to do."""

    @property
    def undecided(self) -> Literal["hold", "resend"]:
        """What to do with a reply of which nobody can say whether it was sent."""

    @property
    def max_in_flight_s(self) -> float:
        """Longest time after which a send begun by a dead machine may still arrive."""

    def carries(self, topic: str) -> bool:
        """Whether replies of this topic go out this way."""

    def pieces(self, text: str) -> tuple[str, ...]:
        """The text as this channel sends it: one piece each time, in order; none when there is nothing to
        send. The same text always gives the same pieces."""

    async def send(self, reply: OutgoingReply) -> SendOutcome:
        """Try once. Never raises for what a network or receiver does; that is an outcome."""

    async def was_sent(self, reply: OutgoingReply) -> bool | None:
        """Whether the receiver has this reply; ``None`` when it cannot be asked. ``True`` is conclusive,
        ``False`` only after ``max_in_flight_s``."""

    def ingress_position(self) -> str:
        """How far the provider was read; empty where the channel has no positions."""

    async def start_consuming(self, accept: Accept, position: str) -> None:
        """Begin (or resume) taking messages in after ``position``, which is that of the newest message of
        this channel in the ledger; only called while this machine is awake."""

    async def stop_consuming(self) -> None:
        """Take no further message in; the provider offers again what was half taken."""

    def troubles(self) -> tuple[ChannelTrouble, ...]:
        """What a person should know of it now."""

    async def close(self) -> None:
        """Release connections."""


class ConversationSink(Protocol):
    """Where the holder's conversation lines go (the live tail). Called in order, on the event loop.

    A line that an earlier holder already told may come once more, under a new number, when its message is
    taken up: ``kind`` and ``key`` say that it is the same.
    """

    def append(
        self,
        *,
        kind: Literal["user", "agent"],
        topic: str,
        text: str,
        at: str,
        key: str,
        reply_to: str | None,
        epoch: int,
        machine_id: str,
        seq: int,
    ) -> None:
        """One durable line: a user's message once recorded, a reply once committed. Must not block."""


Publish = Callable[..., Any]
"""``EventHub.publish``: ``(kind, text="", **data)``."""
