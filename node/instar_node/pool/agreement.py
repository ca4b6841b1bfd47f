"""Whether two machines would answer the same about where topics run, and whether old orders are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from instar_node.clock import Clock
from instar_node.contracts import Authority, Mesh, PeerError, Placement, Provenance, RunRequest
from instar_node.errors import InstarError
from instar_node.pool.messages import RunAccepted, RunCancel, RunOrder
from instar_node.pool.pins import TopicPlacementPinStore

LOOK_AGAIN_S = 0.1
ASK_S = 5.0
STALE_TTL_US = 1_000
"""Grant of the order that has to be refused: should it be taken, it lapses at once."""


class PlacementsAsk(msgspec.Struct, frozen=True, tag="pool.placements"):
    """What do you know of placements?"""


class PlacementsTold(msgspec.Struct, frozen=True, tag="pool.placements-told"):
    """How many, and a digest over all of them."""

    count: int
    digest: bytes


class PlacementAgreement:
    """Answers for this machine, and asks another one."""

    def __init__(self, pins: TopicPlacementPinStore, mesh: Mesh, authority: Authority, clock: Clock) -> None:
        self._pins = pins
        self._mesh = mesh
        self._authority = authority
        self._clock = clock
        mesh.on_request(PlacementsAsk, self._on_ask)

    async def compare(self, machine: str, within: float) -> int:
        """Return how many placements both have, once both have the same.

        Topics may be placed meanwhile, so it is looked again until the time is up. Raises
        ``InstarError("placements-differ")`` and ``PeerError``.
        """
        end = self._clock.now() + int(within * 1_000_000)
        while True:
            before = summary(self._pins.placements())
            theirs = await self._mesh.request(machine, PlacementsAsk(), PlacementsTold, within=ASK_S)
            if theirs in (before, summary(self._pins.placements())):
                return theirs.count
            if self._clock.now() >= end:
                raise InstarError(
                    "placements-differ",
                    f"it knows {theirs.count} placements, this machine {before.count}, and they differ",
                )
            await self._clock.sleep(LOOK_AGAIN_S)

    async def order_as_former_holder(self, machine: str) -> str:
        """Order a run in the epoch before this one; the code with which it was refused.

        Raises ``InstarError("stale-order-taken")`` when it was not.
        """
        epoch = self._authority.epoch - 1
        key = f"drill:{self._clock.token_hex(8)}"
        run = RunRequest(
            key, "drill", "", "", "", epoch, 1, (), Provenance(self._mesh.me, epoch, None, False)
        )
        try:
            order = RunOrder(run, (epoch, 1), STALE_TTL_US, since=0)
            await self._mesh.request(machine, order, RunAccepted, within=ASK_S)
        except PeerError as error:
            if error.reason != "refused":
                raise
            return error.code
        self._mesh.send(machine, RunCancel(self._authority.epoch, key))
        raise InstarError("stale-order-taken", f"it took an order to run the agent in epoch {epoch}")

    async def _on_ask(self, peer: str, ask: PlacementsAsk) -> PlacementsTold:
        return summary(self._pins.placements())


def summary(placements: Iterable[Placement]) -> PlacementsTold:
    """Count and SHA-256 over all placements, in order of topic."""
    ordered = sorted(placements, key=lambda one: one.topic)
    return PlacementsTold(len(ordered), hashlib.sha256(msgspec.msgpack.encode(ordered)).digest())
