"""``TopicPlacementPinStore``: pins and ownership, written to the replicated log before anyone is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from instar_node.contracts import Authority, Placement
from instar_node.errors import InstarError
from instar_node.pool import placement as rules


class PlacementLog(Protocol):
    """Where placements are rows: the delivery ledger's replicated log."""

    def placement(self, topic: str) -> Placement | None:
        """The newest placement of a topic."""

    def placements(self) -> Iterable[Placement]:
        """The newest placement of every topic that has one."""

    async def set_placement(self, placement: Placement) -> None:
        """Write a placement; returns when the whole electorate has it durably. Raises ``InstarError``."""


class TopicPlacementPinStore:
    """Reads placements anywhere; writes them on the holder, each under a new ownership epoch."""

    def __init__(self, log: PlacementLog, authority: Authority) -> None:
        self._log = log
        self._authority = authority
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of the topics whose lock somebody holds or waits for."""
        self._doubtful: set[str] = set()
        """Topics whose last write nobody saw reach the whole electorate: it failed, or was not waited for."""

    def changing(self, topic: str) -> asyncio.Lock:
        """Held while a placement is read, decided on and written, so that no two change it at once."""
        return self._locks.setdefault(topic, asyncio.Lock())

    def placement(self, topic: str) -> Placement | None:
        """The newest placement of a topic."""
        return self._log.placement(topic)

    def placements(self) -> Iterable[Placement]:
        """The newest placement of every topic that has one."""
        return self._log.placements()

    def waiting(self) -> list[Placement]:
        """Pins that are not carried out yet."""
        return [one for one in self._log.placements() if one.pinned_to not in (None, one.owner)]

    async def place(self, topic: str, owner: str | None) -> Placement:
        """Give a topic to ``owner``, keeping its pin; writes nothing when the whole electorate has that."""
        current = self._log.placement(topic)
        return await self._set(current, rules.placed(current, topic, owner, self._epoch()))

    def placed(self, topic: str, owner: str | None) -> Placement | None:
        """The topic's placement if ``owner`` has it already, the whole electorate knows, and nobody is
        changing that or waits to."""
        current = self._log.placement(topic)
        if current is None or topic in self._locks or topic in self._doubtful:
            return None
        return current if rules.placed(current, topic, owner, self._epoch()) is current else None

    async def agreed(self, topic: str) -> Placement | None:
        """The topic's placement, once the whole electorate has it."""
        current = self._log.placement(topic)
        return None if current is None else await self._set(current, current)

    async def pin(self, topic: str, machine: str, *, online: bool) -> Placement:
        """Pin a topic to a machine; it becomes the owner if it is online."""
        current = self._log.placement(topic)
        return await self._set(
            current, rules.pinned(current, topic, machine, online=online, epoch=self._epoch())
        )

    async def unpin(self, topic: str, owner: str | None) -> Placement | None:
        """Take the pin away, leaving the topic with ``owner``; ``None`` for a topic without placement."""
        current = self._log.placement(topic)
        if current is None or (current.pinned_to is None and current.owner == owner):
            return await self.agreed(topic)
        return await self._set(current, rules.unpinned(current, owner, self._epoch()))

    async def _set(self, current: Placement | None, wanted: Placement) -> Placement:
        topic = wanted.topic
        if wanted == current:
            if topic not in self._doubtful:
                return wanted
            epoch = self._epoch()
            wanted = msgspec.structs.replace(wanted, epoch=epoch, n=rules.next_n(current, epoch))
        self._doubtful.add(topic)
        await self._log.set_placement(wanted)
        self._doubtful.discard(topic)
        return wanted

    def _epoch(self) -> int:
        epoch = self._authority.acting_epoch()
        if epoch is None:
            raise InstarError(
                "not-awake", "only the awake machine places topics", "wait for the next holder, or wake one"
            )
        return epoch
