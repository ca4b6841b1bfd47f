"""The pool's placements as rows of the delivery ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from instar_node.contracts import Placement
from instar_node.delivery.dispatcher import Delivery
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.replication import ReplyMarkerTransport


class LedgerPlacements:
    """Implements the pool's ``PlacementLog``.

    It does not pass through the intake: a message under way while a handoff drains may still need its place.
    """

    def __init__(self, ledger: MessageProcessingLedger, replication: ReplyMarkerTransport) -> None:
        self._ledger = ledger
        self._replication = replication

    def placement(self, topic: str) -> Placement | None:
        return self._ledger.placement(topic)

    def placements(self) -> Iterable[Placement]:
        return self._ledger.placements()

    async def set_placement(self, placement: Placement) -> None:
        await self._ledger.ensure_open()
        await self._replication.wait_replicated(await self._ledger.set_placement(placement))


class WorkInTopics:
    """Implements the pool's ``TopicWork`` over a delivery that is built after the pool."""

    def __init__(self, delivery: Callable[[], Delivery]) -> None:
        self._delivery = delivery

    def mid_reply(self, topic: str) -> bool:
        return self._delivery().mid_reply(topic)
