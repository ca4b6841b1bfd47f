"""A new holder completes its live tail from its ledger.

The ledger waits for the electorate before it acknowledges, the tail does not: lines that the old holder had
not pushed when it died are in the new holder's ledger and missing from its tail.
"""

from __future__ import annotations

import asyncio
import logging

from instar_node.contracts import Authority
from instar_node.delivery.conversation import Conversation
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.errors import InstarError
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.source import LiveTailSource

log = logging.getLogger("instar.livetail")

MOST_LINES = 1_000
"""Of one topic; older ones would soon be dropped for space anyway."""


class TailMending:
    """Watches for this machine becoming the holder."""

    def __init__(
        self,
        authority: Authority,
        ledger: MessageProcessingLedger,
        conversation: Conversation,
        buffer: LiveTailBuffer,
        source: LiveTailSource,
    ) -> None:
        self._authority = authority
        self._ledger = ledger
        self._conversation = conversation
        self._buffer = buffer
        self._source = source
        self._epoch: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look now, and at every change of the lease."""
        self._authority.on_change(self._look)
        self._look()

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _look(self) -> None:
        epoch = self._authority.acting_epoch()
        if epoch is None or epoch == self._epoch:
            return
        self._epoch = epoch
        # Noted before anything new is said: a new line must not hide that older ones are missing.
        behind = {
            topic: self._buffer.topic(topic).last
            for topic, head in self._ledger.topics().items()
            if head.seq > self._buffer.topic(topic).last
        }
        if behind:
            self._task = asyncio.create_task(self._mend(epoch, behind), name="tail-mending")

    async def _mend(self, epoch: int, behind: dict[str, int]) -> None:
        try:
            for topic, last in behind.items():
                for line in await self._conversation.lines(topic, last, MOST_LINES):
                    if self._authority.acting_epoch() != epoch:
                        return
                    self._source.append(
                        kind=line.role,
                        topic=topic,
                        text=line.text,
                        at=line.at,
                        key=line.key,
                        reply_to=line.reply_to,
                        epoch=line.epoch,
                        machine_id=line.machine_id,
                        seq=line.seq,
                    )
        except InstarError as error:
            log.warning("the live tail could not be completed from the ledger: %s", error)
