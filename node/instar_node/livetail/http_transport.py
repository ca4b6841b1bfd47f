"""``HttpLiveTailTransport``: carries the live tail between machines, through the mesh's tunnels.

What it rides on is the Noise tunnel inside an HTTP upgrade: text is redacted first, then encrypted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from instar_node.background import Background
from instar_node.clock import Clock
from instar_node.contracts import Authority, Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.entry import TailManifest
from instar_node.livetail.follower import Follower
from instar_node.livetail.messages import TailAck, TailHello, TailOffer, TailPush, TailTaken, TailWelcome
from instar_node.livetail.source import LiveTailSource

log = logging.getLogger("instar.livetail")

RETRY_S = 0.5
"""Pause after the holder could not be met, or did not take a push."""
TICK_S = 1.0
"""How often the holder looks for standbys that have stopped acknowledging."""


class HttpLiveTailTransport:
    """Feeds every standby while this machine is the source, and follows the source while it is not.

    A standby says hello when it meets a holder; the holder then pushes new entries as they become durable. A
    slow standby is sent no more than a window; it neither blocks the holder nor the other standbys.
    """

    def __init__(
        self,
        source: LiveTailSource,
        buffer: LiveTailBuffer,
        mesh: Mesh,
        authority: Authority,
        clock: Clock,
        events: EventHub,
    ) -> None:
        self._source = source
        self._buffer = buffer
        self._mesh = mesh
        self._authority = authority
        self._clock = clock
        self.follower = Follower(buffer, mesh, authority, events, self._meet_again)
        self._to_send = asyncio.Event()
        self._to_meet = asyncio.Event()
        self._acked = asyncio.Event()
        self._acks: Counter[str] = Counter()
        self._met: tuple[str, int] | None = None
        works = (self._pump, self._meet_holders, self.follower.work, self._tick)
        self._works = [Background(f"livetail-{work.__name__}", work) for work in works]
        mesh.on_request(TailHello, self._on_hello)
        mesh.on_request(TailOffer, self._on_offer)
        mesh.on_notice(TailPush, self.follower.push_received)
        mesh.on_notice(TailAck, self._on_ack)
        mesh.on_peer(self._on_peer)
        authority.on_change(self._on_authority)
        buffer.on_growth(lambda entries: self._to_send.set())

    async def start(self) -> None:
        """Begin to feed or follow, whichever this machine's role asks for."""
        for work in self._works:
            work.start()

    async def stop(self) -> None:
        """Stop; what is staged in the buffer is written first."""
        await self._buffer.settled()
        for work in self._works:
            await work.stop()

    async def caught_up(self, machine: str, within: float) -> bool:
        """As the source: wait until this standby has durably all that was said so far.

        ``False`` when that takes longer than ``within`` seconds.
        """
        try:
            async with asyncio.timeout(within):
                await self._buffer.settled()
                goal = self._buffer.head
                while self._source.acked(machine) < goal:
                    self._acked.clear()
                    await self._acked.wait()
        except TimeoutError:
            return False
        return True

    async def round_trip(self, machine: str, within: float) -> None:
        """As the source: have this standby acknowledge a push that adds nothing, after all that was said.

        The push goes the whole way of any other, through the standby's disk. Raises ``InstarError``:
        ``not-source``, ``tail-behind``.
        """
        epoch = self._authority.acting_epoch()
        if epoch is None:
            raise InstarError("not-source", "this machine is not awake, so it feeds nobody")
        if not await self.caught_up(machine, within):
            raise InstarError("tail-behind", f"it had not all that was said within {within:g} s")
        before, head = self._acks[machine], self._source.acked(machine)
        self._mesh.send(machine, TailPush(epoch, head, (), head))
        try:
            async with asyncio.timeout(within):
                while self._acks[machine] == before:
                    self._acked.clear()
                    await self._acked.wait()
        except TimeoutError:
            raise InstarError("tail-behind", f"a push was not acknowledged within {within:g} s") from None

    async def match(self, manifest: TailManifest, within: float) -> list[str]:
        """Catch up with the holder's manifest and compare; the topics that differ (none = equal copies).

        A copy that has reached the position and differs is filled anew, once. Raises ``InstarError``
        (``tail-behind``) when the position is not reached within so many seconds.
        """
        try:
            async with asyncio.timeout(within):
                await self._buffer.reached(manifest.position)
                differing = await self._buffer.differing(manifest)
                if differing:
                    log.warning("this copy of %s differs from the holder's; fetching it anew", differing)
                    await self.follower.start_over()
                    self._meet_again()
                    await self._buffer.reached(manifest.position)
                    differing = await self._buffer.differing(manifest)
                return differing
        except TimeoutError:
            raise InstarError(
                "tail-behind",
                f"this copy is at entry {self._buffer.head.seq}, the holder's at {manifest.position.seq}",
                "wait until the standby has caught up, then try again",
            ) from None

    # -- as the source -----------------------------------------------------------------------------------

    async def _on_hello(self, peer: str, hello: TailHello) -> TailWelcome:
        welcome = self._source.welcome(peer, hello)
        self._acked.set()
        self._to_send.set()
        return welcome

    async def _on_offer(self, peer: str, offer: TailOffer) -> TailTaken:
        await self._source.take_offer(offer)
        return TailTaken()

    def _on_ack(self, peer: str, ack: TailAck) -> None:
        if ack.epoch == self._authority.epoch:
            self._source.acknowledged(peer, ack.position)
            self._acks[peer] += 1
            self._acked.set()
            self._to_send.set()

    async def _pump(self) -> None:
        """Push to every standby what it may have; runs until cancelled."""
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            refused = [await self._push_all(peer) for peer in self._source.fed()].count(False)
            if refused:  # a queue was full; its window bounds what waits
                await self._clock.sleep(RETRY_S)
                self._to_send.set()

    async def _push_all(self, peer: str) -> bool:
        """Push to one standby while it may have more; ``False`` when its tunnel took nothing further."""
        while (epoch := self._authority.acting_epoch()) is not None:
            batch = await self._source.next_batch(peer)
            if batch is None:
                return True
            push = TailPush(epoch, batch.after, batch.entries, batch.through)
            if not self._mesh.send(peer, push):
                return not self._mesh.connected(peer)
            self._source.pushed(peer, batch)
        return True

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self._to_send.set()

    # -- as a standby ------------------------------------------------------------------------------------

    async def _meet_holders(self) -> None:
        """Say hello to each new holder, and again after its tunnel broke; runs until cancelled."""
        told = ""
        self._to_meet.set()
        while True:
            await self._to_meet.wait()
            self._to_meet.clear()
            holder, epoch = self._authority.holder, self._authority.epoch
            if holder is None or holder == self._mesh.me or not self._mesh.connected(holder):
                self._met = None
                continue
            if self._met == (holder, epoch):
                continue
            try:
                await self.follower.meet(holder, epoch)
                self._met, told = (holder, epoch), ""
            except (PeerError, InstarError) as error:
                if told != (told := f"the holder {holder} does not feed this copy yet: {error}"):
                    log.info("%s", told)  # once: while everybody stopped this can go on for days
                await self._clock.sleep(RETRY_S)
                self._to_meet.set()

    def _meet_again(self) -> None:
        self._met = None
        self._to_meet.set()

    def _on_peer(self, peer: str, up: bool) -> None:
        if not up:
            self._source.stop_feeding(peer)
        if peer == self._authority.holder:
            self._meet_again()

    def _on_authority(self) -> None:
        if self._authority.holder != self._mesh.me:
            self._source.stop_feeding()
        self._to_meet.set()
        self._to_send.set()
