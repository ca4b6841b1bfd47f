"""What channels have in common that carry replies out and bring nothing in."""

from __future__ import annotations

from instar_node.delivery.contract import Accept, ChannelTrouble, OutgoingReply


class OutwardChannel:
    """The ingress half of ``Channel`` for one that has none, and a reply that fits in one piece."""

    in_ledger = False

    def carries(self, topic: str) -> bool:
        """Every topic."""
        return True

    def pieces(self, text: str) -> tuple[str, ...]:
        """Replies of any length go out whole."""
        return (text,)

    async def was_sent(self, reply: OutgoingReply) -> bool | None:
        """The receiver cannot be asked."""
        return None

    def ingress_position(self) -> str:
        return ""

    async def start_consuming(self, accept: Accept, position: str) -> None:
        """Nothing comes in this way."""

    async def stop_consuming(self) -> None:
        """Nothing comes in this way."""

    def troubles(self) -> tuple[ChannelTrouble, ...]:
        """What is wrong with a reply is said with the reply."""
        return ()
