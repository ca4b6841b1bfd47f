"""The node's numbered event stream: every change a screen shows, resumable by number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from instar_node.clock import Clock, iso
from instar_node.known_secrets import KnownSecrets

HISTORY = 2_000
"""Events kept for resuming; an older ``after`` gets a ``gap`` event first."""


class Event(msgspec.Struct, frozen=True):
    """One thing that happened.

    ``n`` grows by one with each event of this process. ``kind`` is the family a screen filters by
    (``lease``, ``machines``, ``message``, ``livetail``, ``pair``, ``handoff``, ``transfer``, ``pulse``, …),
    ``text`` one line for people, ``data`` the details.
    """

    n: int
    at: str
    kind: str
    text: str
    data: dict[str, Any]


class EventHub:
    """Publishes events to any number of subscribers; a slow one is cut off, never waited for."""

    def __init__(self, clock: Clock, known: KnownSecrets | None = None) -> None:
        """``known``: secret values, blanked out of every event."""
        self._clock = clock
        self._known = known or KnownSecrets()
        self._next = 1
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._listeners: list[Callable[[Event], None]] = []

    @property
    def watched(self) -> bool:
        """Whether anybody subscribes; periodic ``pulse`` events are only made while it is true."""
        return bool(self._queues)

    @property
    def newest(self) -> int:
        """Number of the newest event; 0 before the first."""
        return self._next - 1

    def listen(self, callback: Callable[[Event], None]) -> None:
        """Call ``callback`` with every event, in order, on the publishing loop (used by the node's log)."""
        self._listeners.append(callback)

    def publish(self, kind: str, text: str = "", **data: Any) -> Event:
        """Number an event and hand it to every subscriber."""
        text, data = self._known.blank_all((text, data))
        event = Event(self._next, iso(self._clock.wall()), kind, text, data)
        self._next += 1
        if kind != "pulse":
            self._history.append(event)
        for callback in self._listeners:
            callback(event)
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
        return event

    def close(self) -> None:
        """End every subscription: there will be no more events."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def subscribe(self, after: int | None = None) -> AsyncIterator[Event]:
        """Yield events as they happen; with ``after``, first those numbered above it that are still kept.

        The iterator ends when the subscriber was too slow; it resumes with the last number it saw.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(maxsize=1_000)
        backlog = [] if after is None else [event for event in self._history if event.n > after]
        if after is not None and backlog and backlog[0].n > after + 1 and after > 0:
            missed = Event(after, backlog[0].at, "gap", "older events are no longer kept", {})
            backlog.insert(0, missed)
        self._queues.add(queue)
        try:
            for event in backlog:
                yield event
            while (item := await queue.get()) is not None:
                yield item
        finally:
            self._queues.discard(queue)
