"""The pool's placements as rows of the delivery ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from instar_node.contracts import Placement
from instar_node.delivery.dispatcher import Delivery
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.replication import ReplyMarkerTransport
from instar_node.identity.keys import MachineIdentity, verify
from instar_node.identity.registry import MachineRegistry

PURPOSE = "instar-placement/1"


class PlacementSeal:
    """Signs placements as their holder, and tells those of a holder from others."""

    def __init__(
        self, identity: MachineIdentity, registry: MachineRegistry, holder_of: Callable[[int], str | None]
    ) -> None:
        """``holder_of(epoch)`` is who held the lease then, as far as it is known here."""
        self._identity = identity
        self._registry = registry
        self._holder_of = holder_of

    def seal(self, placement: Placement) -> Placement:
        """Signed by this machine."""
        plain = msgspec.structs.replace(placement, holder=self._identity.machine_id, signature=b"")
        signature = self._identity.sign(PURPOSE, self._registry.mesh_id, msgspec.msgpack.encode(plain))
        return msgspec.structs.replace(plain, signature=signature)

    def believes(self, placement: Placement) -> bool:
        """Whether a member signed it that, as far as is known here, held the lease of its epoch. That the
        member has been removed since does not matter."""
        member = self._registry.get(placement.holder)
        if member is None or self._holder_of(placement.epoch) not in (None, placement.holder):
            return False
        plain = msgspec.msgpack.encode(msgspec.structs.replace(placement, signature=b""))
        return verify(member.signing_public, PURPOSE, self._registry.mesh_id, plain, placement.signature)


class LedgerPlacements:
    """Implements the pool's ``PlacementLog``. What is written is signed.

    It does not pass through the intake: a message under way while a handoff drains may still need its place.
    """

    def __init__(
        self, ledger: MessageProcessingLedger, replication: ReplyMarkerTransport, seal: PlacementSeal
    ) -> None:
        self._ledger = ledger
        self._replication = replication
        self._seal = seal

    def placement(self, topic: str) -> Placement | None:
        return self._ledger.placement(topic)

    def placements(self) -> Iterable[Placement]:
        return self._ledger.placements()

    async def set_placement(self, placement: Placement) -> None:
        await self._ledger.ensure_open()
        await self._replication.wait_replicated(await self._ledger.set_placement(self._seal.seal(placement)))


class WorkInTopics:
    """Implements the pool's ``TopicWork`` over a delivery that is built after the pool."""

    def __init__(self, delivery: Callable[[], Delivery]) -> None:
        self._delivery = delivery

    def mid_reply(self, topic: str) -> bool:
        return self._delivery().mid_reply(topic)
