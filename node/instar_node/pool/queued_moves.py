"""``QueuedMoves``: gives topics to the machine they are pinned to, once it is back."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from instar_node.background import Background
from instar_node.clock import MICROS_PER_SECOND
from instar_node.contracts import Authority, Members, Mesh
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.pool.machine_pool import MachinePoolRegistry
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.session_router import SessionRouter
from instar_node.pool.tail_first import TailFirst

log = logging.getLogger("instar.pool")

RETRY_S = 1.0


class QueuedMoves:
    """Watches, on the holder, over pins that are not carried out: those of machines that were away."""

    def __init__(
        self,
        router: SessionRouter,
        pins: TopicPlacementPinStore,
        pool: MachinePoolRegistry,
        members: Members,
        mesh: Mesh,
        authority: Authority,
        tail: TailFirst,
        events: EventHub,
    ) -> None:
        self._router = router
        self._pins = pins
        self._pool = pool
        self._members = members
        self._authority = authority
        self._tail = tail
        self._events = events
        self._look = asyncio.Event()
        self._task = Background("pool-queued-moves", self._run)
        mesh.on_peer(lambda peer, up: self._look.set())
        authority.on_change(self._look.set)

    async def start(self) -> None:
        """Begin to watch."""
        self._task.start()

    async def stop(self) -> None:
        """Carry out no more."""
        await self._task.stop()

    async def _run(self) -> None:
        """Look at the queued moves whenever a machine or the lease has changed; runs until cancelled."""
        self._look.set()
        while True:
            await self._look.wait()
            self._look.clear()
            again = [await self._try(waiting.topic) for waiting in self._pins.waiting()]
            if pauses := [pause for pause in again if pause]:
                await self._rest(min(pauses))

    async def _rest(self, seconds: float) -> None:
        """Until it is worth looking again, or something has changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look.wait()
        self._look.set()

    async def _try(self, topic: str) -> float:
        """Carry a queued move out if that can be done now; seconds until it is worth another look, or 0."""
        placement = self._pins.placement(topic)
        machine = placement.pinned_to if placement is not None else None
        if machine is None or not self._pool.online(machine) or self._authority.acting_epoch() is None:
            return 0.0
        if settles_in := self._pool.settles_in_us(machine):
            return settles_in / MICROS_PER_SECOND
        try:
            await self._carry_out(topic, machine)
        except InstarError as error:
            log.warning("the queued move of %s could not be carried out yet: %s", topic, error)
            return RETRY_S
        return 0.0

    async def _carry_out(self, topic: str, machine: str) -> None:
        """Give a topic to the machine it is pinned to; raises ``InstarError``."""
        await self._tail.bring(machine)
        async with self._pins.changing(topic):
            placement = self._pins.placement(topic)
            if placement is None or placement.pinned_to != machine:
                return
            await self._pins.place(topic, machine)
        text = f"topic {topic} → {self._members.nickname(machine)}: it is back"
        self._events.publish("transfer", text, topic=topic, to=machine, step="moved")
        self._router.reconsider()
