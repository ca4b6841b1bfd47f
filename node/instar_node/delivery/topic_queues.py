"""Messages waiting for their turn: in order within a topic, topics side by side."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("instar.delivery")


class TopicQueues:
    """One worker a topic while it has something to do, and none otherwise."""

    def __init__(self, handle: Callable[[str], Awaitable[None]]) -> None:
        """``handle(key)`` brings one message forward and deals with its own failures."""
        self._handle = handle
        self._waiting: dict[str, list[tuple[int, str]]] = {}
        self._known: set[str] = set()
        """Keys that wait; one under way may wait too, to be looked at once more."""
        self._active: dict[str, str] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._dropped: set[str] = set()
        self._held = False
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, topic: str, line: int, key: str) -> None:
        """Queue a message at its place, once. One under way is looked at once more afterwards: what is asked
        now may not be what is being done."""
        if key in self._known:
            return
        self._known.add(key)
        heapq.heappush(self._waiting.setdefault(topic, []), (line, key))
        self._ensure_worker(topic)

    def drop(self, key: str) -> None:
        """Stop working on a message, or never begin."""
        for topic, active in self._active.items():
            if active == key:
                self._dropped.add(key)
                self._workers[topic].cancel()
        for queue in self._waiting.values():
            queue[:] = [item for item in queue if item[1] != key]
            heapq.heapify(queue)
        self._known.discard(key)

    def hold(self) -> None:
        """Begin no further message; what is under way goes on."""
        self._held = True

    def release(self) -> None:
        """Go on with what waits."""
        self._held = False
        for topic in list(self._waiting):
            self._ensure_worker(topic)

    def clear(self) -> None:
        """Stop everything at once and forget what waits; held or not stays as it is."""
        self._waiting.clear()
        self._known.clear()
        for worker in self._workers.values():
            worker.cancel()
        self._workers.clear()
        self._active.clear()
        self._dropped.clear()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        await self._idle.wait()

    @property
    def active(self) -> dict[str, str]:
        """By topic: the message under way."""
        return self._active

    # -- inside -----------------------------------------------------------------------------------------

    def _ensure_worker(self, topic: str) -> None:
        if not self._held and topic not in self._workers and self._waiting.get(topic):
            self._idle.clear()
            self._workers[topic] = asyncio.create_task(self._work(topic), name=f"topic-{topic}")

    async def _work(self, topic: str) -> None:
        me = asyncio.current_task()
        try:
            queue = self._waiting[topic]
            while queue and not self._held:
                _, key = heapq.heappop(queue)
                self._known.discard(key)
                self._active[topic] = key
                await self._handle_one(key)
                if self._workers.get(topic) is not me:
                    return
                del self._active[topic]
        finally:
            if self._workers.get(topic) is me:
                self._retire(topic)

    async def _handle_one(self, key: str) -> None:
        try:
            await self._handle(key)
        except asyncio.CancelledError:
            if key not in self._dropped:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        except Exception:
            log.exception("a message could not be brought forward")
        finally:
            self._dropped.discard(key)

    def _retire(self, topic: str) -> None:
        del self._workers[topic]
        self._active.pop(topic, None)
        if not self._waiting.get(topic):
            self._waiting.pop(topic, None)
        if not self._workers:
            self._idle.set()
