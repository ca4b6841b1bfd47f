"""The ``local`` channel: messages come through the node API, replies are read from it."""

from __future__ import annotations

from typing import Literal

from instar_node.delivery.channels.base import OutwardChannel
from instar_node.delivery.contract import OutgoingReply, SendOutcome, Sent


class LocalChannel(OutwardChannel):
    """A reply here is delivered by being committed: there is no outside party that could miss or double it.

    Nothing is polled either: the node API hands a message straight to delivery and waits for its answer.
    """

    name = "local"
    deduplicates = True
    in_ledger = True
    undecided: Literal["hold", "resend"] = "resend"
    max_in_flight_s = 0.0

    async def send(self, reply: OutgoingReply) -> SendOutcome:
        return Sent()

    async def close(self) -> None:
        """Holds nothing."""
