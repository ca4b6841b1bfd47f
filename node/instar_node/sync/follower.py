"""A machine that is not awake: it takes in what the awake one has, and offers it its own edits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from instar_node.clock import MICROS_PER_SECOND
from instar_node.contracts import Lane, PeerError
from instar_node.errors import InstarError
from instar_node.sync.core import HUB, StateCore
from instar_node.sync.ports import HubUnavailableError
from instar_node.sync.wire import MAX_SETS, ChangesTaken, OfferChanges

log = logging.getLogger("instar.sync")

OFFER_S = 60.0
"""Seconds the holder may take to fetch and apply what is offered."""
AGAIN_S = 5.0
"""Seconds until edits are offered again that did not show up in the history."""
SEEK_S = 1.0
"""Seconds until a machine that lacks what the lease vouches for looks everywhere again; with a hub that is to
be spared, the time between two pushes."""
RETRY_S = 1.0
"""Seconds until a line is looked at again that waits for news of the lease."""


class StateFollower:
    """The standby's part of a step."""

    def __init__(self, core: StateCore, wake: Callable[[], None]) -> None:
        """``wake`` asks for another step."""
        self._core = core
        self._wake = wake
        self._news: dict[str, str] = {}
        self._to_ask: set[str] = set()
        self._audit_at = 0
        self._offer_at = 0
        self._offered: tuple[str, int, int] | None = None
        self._offering: asyncio.Task[None] | None = None
        """Beside the steps: a holder that hangs must not keep this machine from looking at its folder, or
        from leading."""
        self._offered_to: tuple[str | None, int] = (None, 0)

    async def stop(self) -> None:
        """Offer nothing more."""
        if self._offering is not None:
            self._offering.cancel()
            await asyncio.gather(self._offering, return_exceptions=True)

    def on_news(self, peer: str, head: str) -> None:
        """Another machine has this commit."""
        self._news[peer] = head
        if peer == self._core.lease.holder:
            self._offered = None  # it may have just become able to take edits

    def on_peer(self, peer: str) -> None:
        """A tunnel came up: what was said before is not known here."""
        self._to_ask.add(peer)
        self.on_lease_change()

    def on_lease_change(self) -> None:
        """Another machine may be awake now: it has not seen our edits."""
        self._offered = None
        self._offer_at = 0
        lease = self._core.lease
        if self._offering is not None and self._offered_to != (lease.holder, lease.epoch):
            self._offering.cancel()

    async def follow(self) -> float:
        """Do what is due; returns the seconds until there may be more."""
        waiting = await self._take_news()
        if not await self._core.vouched.look():
            return min(await self._seek(), self._offer())
        pauses = [await self._audit(), self._offer(), RETRY_S if waiting else 3_600.0]
        return min(pauses)

    async def _seek(self) -> float:
        """Nobody takes over without what the lease vouches for: look for it at the hub, and ask everybody."""
        core, pause = self._core, SEEK_S
        if core.hub is not None:
            await self._look_at_hub()
            pause = max(SEEK_S, core.hub.push_pause_s)
        if not core.vouched.here:
            members = (member.machine_id for member in core.registry.active())
            self._to_ask |= {machine for machine in members if core.mesh.connected(machine)}
            await self._take_news()
        return 0.0 if core.vouched.here else pause

    async def _take_news(self) -> bool:
        """``True`` while there is news that could not be taken in yet."""
        core = self._core
        asked, self._to_ask = sorted(self._to_ask), set()
        for peer, tip in zip(asked, await asyncio.gather(*map(core.ask_tip, asked)), strict=True):
            if tip is not None and tip.published is not None:
                self._news[peer] = tip.published
        for peer, head in list(self._news.items()):
            outcome = await core.fetch_and_take(peer, head)
            again = outcome == "later" and core.mesh.connected(peer)
            if not again and self._news.get(peer) == head:
                del self._news[peer]
        return bool(self._news)

    # -- looking at the hub -----------------------------------------------------------------------------

    async def _audit(self) -> float:
        """Look at the hub's ref now and then: does it show what the awake machine says it does?"""
        core, now = self._core, self._core.clock.now()
        if core.hub is None:
            return 3_600.0
        if now >= self._audit_at:
            await self._look_at_hub()
            self._audit_at = core.clock.now() + round(core.hub.audit_s * MICROS_PER_SECOND)
        return max(0.0, (self._audit_at - core.clock.now()) / MICROS_PER_SECOND)

    async def _look_at_hub(self) -> None:
        core = self._core
        assert core.hub is not None
        published = core.memory.now.published  # known before the look: what comes during it is newer
        try:
            tip = await core.hub.tip(core.copy.head)
        except HubUnavailableError as error:
            core.hub_error = error.message
            return
        core.hub_error = None
        if tip is not None and not await core.worker.run(core.copy.contains, tip):
            await core.take_line(tip, HUB)
        elif self._fence_seen() and published is not None and not await self._reaches(tip, published):
            await core.refuse(tip or published, HUB, rewound(tip, published))

    def _fence_seen(self) -> bool:
        """Whether the present epoch has begun on the hub: before, it may be a new one that is still empty."""
        standing = self._core.copy.standing
        return standing is not None and standing.epoch == self._core.lease.epoch

    async def _reaches(self, tip: str | None, published: str) -> bool:
        core = self._core
        return tip is not None and await core.worker.run(core.copy.repository.has_line, published, tip)

    # -- offering edits ---------------------------------------------------------------------------------

    def _offer(self) -> float:
        """Offer the queue to the awake machine until all of it shows up in the history."""
        core = self._core
        queue, holder, now = core.memory.now.queue, core.lease.holder, core.clock.now()
        if not queue or holder is None or holder == core.mesh.me or not core.mesh.connected(holder):
            return 3_600.0
        if self._offering is not None:
            return 3_600.0  # its end asks for another step
        batch = queue[:MAX_SETS]
        mark = (holder, core.lease.epoch, batch[-1].number)
        if now < self._offer_at and mark == self._offered:
            return max(0.05, (self._offer_at - now) / MICROS_PER_SECOND)
        core.memory.offer(batch[-1].number)
        self._offered, self._offered_to = mark, mark[:2]
        offer = OfferChanges(core.memory.now.queue_id, batch)
        self._offering = asyncio.create_task(self._offer_to(holder, offer), name="offer-edits")
        self._offering.add_done_callback(self._on_answered)
        return 3_600.0

    async def _offer_to(self, holder: str, offer: OfferChanges) -> None:
        try:
            await self._core.mesh.request(holder, offer, ChangesTaken, within=OFFER_S, lane=Lane.BULK)
        except PeerError as error:
            log.info("edits wait for %s: %s", self._core.registry.nickname(holder), error.message)

    def _on_answered(self, task: asyncio.Task[None]) -> None:
        self._offering = None
        if not task.cancelled():
            self._offer_at = self._core.clock.now() + round(AGAIN_S * MICROS_PER_SECOND)
            if (error := task.exception()) is not None:
                log.error("an offer of edits failed", exc_info=error)
        self._wake()


def rewound(tip: str | None, published: str) -> InstarError:
    """The hub shows an older state than it took before, or none."""
    shown = f"commit {tip[:12]}" if tip is not None else "no state"
    return InstarError(
        "rewound",
        f"the hub shows {shown}, although it took {published[:12]} before: it was taken back or exchanged",
        status=422,
        extra={"commit": tip or published},
    )
