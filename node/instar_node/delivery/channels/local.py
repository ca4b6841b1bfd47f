"""The ``local`` channel: messages come through the node API, replies are read from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from instar_node.delivery.contract import IngressMessage, OutgoingReply, SendOutcome, Sent


class LocalChannel:
    """A reply here is delivered by being committed: there is no outside party that could miss or double it.

    Nothing is polled either: the node API hands a message straight to delivery and waits for its answer.
    """

    name = "local"
    deduplicates = True
    undecided: Literal["hold", "resend"] = "resend"
    max_in_flight_s = 0.0

    async def send(self, reply: OutgoingReply) -> SendOutcome:
        return Sent()

    async def was_sent(self, reply: OutgoingReply) -> bool | None:
        return None

    def ingress_position(self) -> str:
        return ""

    async def start_consuming(self, accept: Callable[[IngressMessage], Awaitable[None]]) -> None:
        """Nothing to start: the API is the consumer."""

    async def stop_consuming(self) -> None:
        """Nothing to stop: a standby's API passes messages to the holder."""

    async def close(self) -> None:
        """Holds nothing."""
