"""Brings messages forward: in order, each as far as it goes, whatever fails on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from instar_node.clock import Clock
from instar_node.contracts import AgentRunner, LogPosition
from instar_node.delivery.contract import Publish
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.outbox import FencedOutbox
from instar_node.delivery.replication import ReplyMarkerTransport
from instar_node.delivery.rows import MessageRow, Origin, Rank
from instar_node.delivery.runs import Runs
from instar_node.delivery.topic_queues import TopicQueues
from instar_node.errors import InstarError

log = logging.getLogger("instar.delivery")

LEASE_CODES = frozenset({"not-awake", "lease-lost", "stale-epoch"})
"""Refusals that mean: this machine may no longer act in that epoch."""
SETTLED_CODES = frozenset({"already-replied", "stale-grant", "fenced"})
"""Refusals that mean: nothing is left to do here for this message."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class MessageWork:
    """The queues of the holder and what is done with each message in them."""

    def __init__(
        self,
        ledger: MessageProcessingLedger,
        transport: ReplyMarkerTransport,
        outbox: FencedOutbox,
        runs: Runs,
        runner: AgentRunner,
        clock: Clock,
        publish: Publish,
        on_lease_lost: Callable[[], None],
        at_once: Callable[[str], bool],
    ) -> None:
        """``on_lease_lost`` is called when a step finds the lease gone before anybody announced it.
        ``at_once(text)``: whether a message, as a command to us, waits for no other of its topic, only for
        its like."""
        self.queues = TopicQueues(self._process)
        self._ledger = ledger
        self._transport = transport
        self._outbox = outbox
        self._runs = runs
        self._runner = runner
        self._clock = clock
        self._publish = publish
        self._on_lease_lost = on_lease_lost
        self._at_once = at_once
        self._sent_by_person: set[str] = set()

    def enqueue(self, rows: Iterable[MessageRow]) -> None:
        """Queue what needs work: the unanswered runs (again), the reserved is delivered; the rest waits for
        a person."""
        for row in rows:
            if row.origin is not None and row.rank in (Rank.RECEIVED, Rank.PROCESSING, Rank.RESERVED):
                self._put(row.origin, row.key)

    def send_anyway(self, row: MessageRow) -> None:
        """A person decided that this answer is to be sent."""
        if row.origin is not None:
            self._sent_by_person.add(row.key)
            self._put(row.origin, row.key)

    def _put(self, origin: Origin, key: str) -> None:
        """In the topic's own line, or in the one beside it; no topic's name has a blank in it."""
        line = f"{origin.topic} /" if self._at_once(origin.text) else origin.topic
        self.queues.put(line, origin.seq, key)

    def stop(self) -> None:
        """Stop everything under way, now, and forget what waits."""
        under_way = list(self.queues.active.values())
        self.queues.clear()
        self._sent_by_person.clear()
        for key in under_way:
            self._runner.cancel(key)

    async def _process(self, key: str) -> None:
        """Bring one message as far as it goes. What the disk or a bug prevents is tried again."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._advance(key)
                return
            except InstarError as error:
                if error.code in SETTLED_CODES:
                    return
                if error.code in LEASE_CODES:
                    asyncio.get_running_loop().call_soon(self._on_lease_lost)
                    return
                trouble = error.message
            except Exception as error:
                log.exception("message %s could not be brought forward", key)
                trouble = f"{type(error).__name__}: {error}"
            self._publish("message", f"message {key} is held up: {trouble}", key=key, reason=trouble)
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _advance(self, key: str) -> None:
        row = self._ledger.open_message(key)
        if row is None:
            return
        if row.rank in (Rank.RECEIVED, Rank.PROCESSING):
            await self._runs.run(row, self._ready)
        elif key in self._sent_by_person:
            self._sent_by_person.discard(key)
            await self._outbox.resume(key, by_person=True)
        elif row.rank is Rank.RESERVED:
            await self._outbox.resume(key)

    async def _ready(self, row: MessageRow) -> None:
        """Return when an attempt to answer may begin. One that may act on the world starts only on what no
        other machine can take up unaware; any other need not wait for that: the answer does."""
        origin = row.origin
        if origin is None or self._at_once(origin.text) or self._runner.acts(origin.topic):
            await self._transport.wait_replicated(self._position_of(row))

    def _position_of(self, row: MessageRow) -> LogPosition:
        """A position by which this row is in our log."""
        status = row.status
        if status.rank is Rank.RECEIVED and status.epoch == self._ledger.head.epoch:
            return LogPosition(status.epoch, status.seq)
        return self._ledger.head
