"""Keeping the registry the same on all machines: a change is pushed at once, a gap is pulled.

A machine admitted at one place must be known at every other before the two can talk (the tunnel needs its
key), so records travel with the news of them. What arrives is verified by ``MachineRegistry.merge``; the
peer it came from adds no trust.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.clock import Clock
from instar_node.contracts import Authority, Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.identity.chain import MAX_RECORDS, RegistryRecord
from instar_node.identity.registry import MachineRegistry

log = logging.getLogger("instar.identity")

REQUEST_S = 5.0
PULL_TRIES = 3
PULL_PAUSE_S = 1.0
FAREWELL_S = 0.2
"""Time for a machine that goes to read its own tombstone before the registry closes its tunnel."""
PUSH_AT_MOST = 50
"""Records sent along with the news of a change; a peer further behind pulls."""

Records = Annotated[tuple[RegistryRecord, ...], Meta(max_length=MAX_RECORDS)]


class RegistryNews(msgspec.Struct, frozen=True, tag="registry.news"):
    """One-way: my chain has ``length`` records and ends in ``head``; ``tail`` are its newest ones."""

    length: int
    head: str
    tail: Records


class RegistryPull(msgspec.Struct, frozen=True, tag="registry.pull"):
    """Give me what follows my ``length`` records if they are a beginning of yours, else everything."""

    length: int
    head: str


class RegistryRecords(msgspec.Struct, frozen=True, tag="registry.records"):
    """Records from number ``start`` on."""

    start: int
    records: Records


class AskLeave(msgspec.Struct, frozen=True, tag="registry.ask-leave"):
    """To the holder: I leave the mesh, for good."""


class AskWitness(msgspec.Struct, frozen=True, tag="registry.ask-witness"):
    """To the holder: I only keep the lease register from now on."""


class RegistrySync:
    """Exchanges the registry with peers and carries a machine's own wishes to the holder."""

    def __init__(
        self, mesh: Mesh, registry: MachineRegistry, authority: Authority, events: EventHub, clock: Clock
    ) -> None:
        self._mesh = mesh
        self._registry = registry
        self._authority = authority
        self._events = events
        self._clock = clock
        self._announced = len(registry.records)
        self._leaving: dict[str, RegistryRecord] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to listen and to tell."""
        self._mesh.on_notice(RegistryNews, self._on_news)
        self._mesh.on_request(RegistryPull, self._on_pull)
        self._mesh.on_request(AskLeave, self._on_ask_leave)
        self._mesh.on_request(AskWitness, self._on_ask_witness)
        self._mesh.on_peer(self._on_peer)
        self._registry.on_change(self._on_change)

    async def stop(self) -> None:
        """End what runs in the background; those who were told that they are out are out."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._leaving:
            self._registry.bury(self._leaving.popitem()[1])

    # -- a machine's own wishes -------------------------------------------------------------------------

    async def leave(self) -> None:
        """Leave the mesh for good: the holder records it, and this machine knows that it is out.

        The holder itself first hands its role on. Raises ``InstarError`` when it holds the lease, or when
        the holder cannot be reached.
        """
        if self._authority.holder == self._mesh.me:
            raise InstarError(
                "is-awake", "the awake machine cannot leave", "hand off first: instar handoff MACHINE"
            )
        await self._ask_holder(AskLeave())

    async def become_witness(self) -> None:
        """Have the registry say that this machine is a witness. Raises as ``leave`` does."""
        await self._ask_holder(AskWitness())

    async def remove(self, machine_id: str, epoch: int) -> None:
        """Remove a member for good, telling it first: afterwards its tunnel is closed.

        A machine that cannot be reached is removed all the same; it finds out when it is refused.
        """
        tombstone = self._registry.next_tombstone("remove", machine_id, epoch=epoch)
        if self._mesh.connected(machine_id):
            length = len(self._registry.records) + 1
            self._mesh.send(machine_id, RegistryNews(length, tombstone.hash(), (tombstone,)))
            await self._clock.sleep(FAREWELL_S)
        self._registry.bury(tombstone)

    async def _ask_holder(self, wish: AskLeave | AskWitness) -> None:
        holder = self._authority.holder
        if holder is None or holder == self._mesh.me:
            raise InstarError("no-holder", "no machine is awake to record this", "instar wakeup", status=502)
        try:
            reply = await self._mesh.request(holder, wish, RegistryRecords, within=REQUEST_S)
        except PeerError as error:
            name = self._registry.nickname(holder)
            raise InstarError(
                "holder-unreachable",
                f"{name}, the awake machine, did not record this: {error.message}",
                f"check that {name} is on and reachable, then try again",
                status=502,
            ) from error
        self._take(holder, reply)

    # -- telling ----------------------------------------------------------------------------------------

    def _on_peer(self, peer: str, up: bool) -> None:
        if up:
            self._tell(peer, 1)

    def _on_change(self) -> None:
        fresh = max(1, len(self._registry.records) - self._announced)
        self._announced = len(self._registry.records)
        for member in self._registry.active():
            if member.machine_id != self._mesh.me and self._mesh.connected(member.machine_id):
                self._tell(member.machine_id, fresh)
        self._events.publish("machines", "the list of machines changed", head=self._registry.head)

    def _tell(self, peer: str, newest: int) -> None:
        records = self._registry.records
        tail = records[-min(newest, PUSH_AT_MOST) :]
        if not self._mesh.send(peer, RegistryNews(len(records), self._registry.head, tail)):
            log.info("news of the registry did not go out to %s; it hears at the next tunnel or change", peer)

    # -- hearing ----------------------------------------------------------------------------------------

    def _on_news(self, peer: str, news: RegistryNews) -> None:
        if news.head == self._registry.head:
            return
        start = news.length - len(news.tail)
        if self._holds(news.length, news.head):
            self._tell(peer, len(self._registry.records) - news.length)
        elif news.tail and self._holds(start, news.tail[0].prev):
            self._take(peer, RegistryRecords(start, news.tail))
        else:
            self._start(f"pull {peer}", self._pull(peer))

    def _holds(self, length: int, head: str) -> bool:
        """Whether a chain of this length and head is a beginning of ours."""
        records = self._registry.records
        return 0 < length <= len(records) and records[length - 1].hash() == head

    def _start(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Run something in the background, once at a time under one name."""
        if name in self._tasks:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _pull(self, peer: str) -> None:
        for attempt in range(1, PULL_TRIES + 1):
            question = RegistryPull(len(self._registry.records), self._registry.head)
            try:
                reply = await self._mesh.request(peer, question, RegistryRecords, within=REQUEST_S)
            except PeerError as error:
                log.warning("registry pull %d from %s failed: %s", attempt, peer, error.message)
                await self._clock.sleep(PULL_PAUSE_S)
            else:
                self._take(peer, reply)
                return
        self._events.publish(
            "machines", f"could not fetch the registry from {self._registry.nickname(peer)}", peer=peer
        )

    def _take(self, peer: str, reply: RegistryRecords) -> None:
        records = (*self._registry.records[: reply.start], *reply.records)
        try:
            if self._registry.merge(records):
                return
            self._bury_again(self._registry.buried_in(records))
            if records[-1] != self._registry.records[-1]:
                self._tell(peer, 1)  # ours stands, and the peer does not have it
        except InstarError as error:
            name = self._registry.nickname(peer)
            log.error("the registry of %s was not taken over: %s", peer, error.message)
            self._events.publish(
                "machines",
                f"refused the registry of {name}: {error.message}",
                peer=peer,
                code=error.code,
                refusals=self._registry.refusals,
            )

    def _bury_again(self, machines: tuple[str, ...]) -> None:
        """Sign again, on the chain that won, the removals that stood only on one that lost."""
        epoch = self._authority.acting_epoch()
        if epoch is not None:
            for machine_id in machines:
                self._registry.remove(machine_id, epoch=epoch)

    # -- answering --------------------------------------------------------------------------------------

    async def _on_pull(self, peer: str, question: RegistryPull) -> RegistryRecords:
        start = question.length if self._holds(question.length, question.head) else 0
        return RegistryRecords(start, self._registry.records[start:])

    async def _on_ask_leave(self, peer: str, wish: AskLeave) -> RegistryRecords:
        tombstone = self._leaving.get(peer)
        if tombstone is None:
            tombstone = self._registry.next_tombstone("leave", peer, epoch=self._must_act())
            self._leaving[peer] = tombstone
            self._start(f"leave {peer}", self._bury_later(peer))
        return RegistryRecords(0, (*self._registry.records[: tombstone.n], tombstone))

    async def _on_ask_witness(self, peer: str, wish: AskWitness) -> RegistryRecords:
        self._registry.make_witness(peer, epoch=self._must_act())
        return RegistryRecords(0, self._registry.records)

    async def _bury_later(self, peer: str) -> None:
        """Record that ``peer`` left, once the answer had time to reach it."""
        await self._clock.sleep(FAREWELL_S)
        self._registry.bury(self._leaving.pop(peer))

    def _must_act(self) -> int:
        epoch = self._authority.acting_epoch()
        if epoch is None:
            raise InstarError("not-awake", "this machine is not awake", "ask the awake one")
        return epoch
