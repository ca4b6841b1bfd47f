"""What others hear of the lease: a call to parts of the node, an event for the screens, a row of history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from instar_node.contracts import Members
from instar_node.coordination.epoch_history import EpochHistory
from instar_node.coordination.http_lease_transport import HistoryRow
from instar_node.coordination.record import LeaseRecord, epoch_text
from instar_node.events import EventHub

if TYPE_CHECKING:
    from instar_node.coordination.lease_driver import LeaseDriver


class LeaseChanges:
    """Notices when record, acting, electorate or evidence differ from what was told last."""

    def __init__(
        self, driver: LeaseDriver, events: EventHub, members: Members, history: EpochHistory
    ) -> None:
        self._driver = driver
        self._events = events
        self._members = members
        self._history = history
        self._callbacks: list[Callable[[], None]] = []
        self._changed = asyncio.Condition()
        self._told: object = None
        self._epoch = driver.epoch

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call this after every change."""
        self._callbacks.append(callback)

    def look(self) -> None:
        """Tell everybody if something changed."""
        driver, known = self._driver, self._driver.known
        seen = (
            known.version if known else None,
            driver.acting_epoch(),
            driver.ack_set(),
            driver.lease.durable.evidence,
        )
        if seen == self._told:
            return
        self._told = seen
        if driver.epoch != self._epoch and known is not None:
            self._epoch = driver.epoch
            self._tell_epoch(known.record)
        else:
            self._events.publish("lease", "", epoch=driver.epoch)
        for callback in self._callbacks:
            callback()
        asyncio.ensure_future(self._notify_waiters())  # noqa: RUF006 - nothing depends on when it ends

    def _tell_epoch(self, record: LeaseRecord) -> None:
        row = HistoryRow(record.epoch, record.holder, record.reason, record.at)
        self._driver.spawn(self._history.merge((row,)))
        nickname = self._members.nickname(record.holder)
        text = f"{nickname} is awake, epoch {epoch_text(record.epoch)} ({record.reason})"
        self._events.publish("lease", text, epoch=record.epoch, holder=record.holder, reason=record.reason)

    async def _notify_waiters(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def wait_until(self, true: Callable[[], bool], within: float) -> bool:
        """Wait for a condition over the lease; ``False`` when it did not come true in time."""
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(true)
        except TimeoutError:
            return true()
        return True
