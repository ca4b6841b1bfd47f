"""What goes between this machine and the register: reads, swaps, and what they came to."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from instar_node.coordination.hub_troubles import HINTS, told
from instar_node.coordination.lease_coordinator import ReadHub, SendSwap
from instar_node.coordination.lease_state import OpenSwap
from instar_node.coordination.lease_store import (
    LeaseStore,
    Lost,
    StoreUnavailable,
    SwapOutcome,
    Unknown,
    Won,
)
from instar_node.coordination.record import KnownRecord, LeaseRecord, epoch_text, sign_record

if TYPE_CHECKING:
    from instar_node.coordination.lease_driver import LeaseDriver

log = logging.getLogger("instar.lease")


class RegisterTraffic:
    """Performs the coordinator's reads and swaps, and reports to it how they ended."""

    def __init__(self, driver: LeaseDriver) -> None:
        self._driver = driver
        self.alarm: str | None = None
        """What is wrong with the register though the hub answers; nobody can take over meanwhile."""
        self.error: str | None = None
        """Why the hub did not answer last time; ``None`` when it did."""
        self.latency: int | None = None
        """How long the last exchange with the hub took, microseconds."""
        self.last_write: int | None = None
        """When the last own swap was won, on this machine's clock."""
        self._candidate: KnownRecord | None = None
        self._attempt = 0

    async def read(self, effect: ReadHub) -> None:
        """Look at the register, and have the rules judge what it shows."""
        began, before = self._driver.now(), self._driver.lease.order
        try:
            seen = await (await self._driver.hubs.at(effect.hub)).read()
        except StoreUnavailable as error:
            self._unread(error)
            return
        except Exception:
            self._driver.coordinator.on_read_failed(
                self._driver.now()
            )  # else the register would never be read again
            raise
        seen = self._judged(seen)
        now = self._driver.now()
        self.latency, self.error = now - began, None
        self._driver.coordinator.on_read(seen, before, began, now)
        self._driver.after_step()

    def _unread(self, error: StoreUnavailable) -> None:
        """The hub is away, or it answers and what it shows is no lease record at all."""
        blocked = error.code == "hub-blocked"
        foreign = error.code == "hub-foreign" and error.found is not None
        alarming = (blocked or foreign) and self._driver.known is not None
        self.error = None if alarming else told(error)
        if alarming:
            epoch = epoch_text(self._driver.epoch)
            todo = f"; {HINTS[error.code]}" if blocked else ""
            self._set_alarm(f"{error}, but epoch {epoch} is known: it was replaced{todo}")
        self._driver.coordinator.on_read_failed(self._driver.now())

    def _judged(self, seen: KnownRecord | None) -> KnownRecord | None:
        """What a register shows, if a member signed it. Nothing, or something else, where a lease is known
        to be is an alarm: it stops nobody who is valid by promises, and nobody can take over."""
        driver, known = self._driver, self._driver.known
        genuine = seen if seen is not None and driver.is_ours(seen) else None
        alarm = None
        if genuine is None and known is not None and not (driver.lease.baton or known.record.moves):
            what = "no lease" if seen is None else "a lease that no member signed"
            alarm = f"the hub shows {what}, but epoch {epoch_text(driver.epoch)} is known: it was replaced"
        self._set_alarm(alarm)
        return genuine

    def _set_alarm(self, alarm: str | None) -> None:
        if alarm == self.alarm:
            return
        self.alarm = alarm
        self._driver.publish("alert", alarm or "the hub shows the lease again")
        log.log(logging.INFO if alarm is None else logging.ERROR, "%s", alarm or "the register is well again")

    async def send(self, effect: SendSwap) -> None:
        """Send the open swap, unless it was settled meanwhile; it stays open while its outcome is unknown."""
        try:
            await self._send(effect.swap)
        except (Exception, asyncio.CancelledError):
            self._not_sent(effect.swap)  # else it would count as under way, and never be sent again
            raise
        finally:
            self._driver.poke()

    async def _send(self, swap: OpenSwap) -> None:
        try:
            store = await self._driver.hubs.at(swap.hub)
            candidate = await self._prepared(store, swap.record)
        except StoreUnavailable as error:
            self.error = told(error)
            self._not_sent(swap)
        else:
            if self._driver.lease.open is not swap:
                return  # settled by what was learned meanwhile, before it left
            sent = self._driver.now()
            outcome = await store.compare_and_swap(swap.expected, candidate)
            if self._driver.lease.open is swap:
                self._settle(outcome, sent)
            else:
                self._overtaken(outcome)
        self._driver.after_step()

    async def _prepared(self, store: LeaseStore, record: LeaseRecord) -> KnownRecord:
        """The signed candidate of a record; the same one whenever it is sent again."""
        if self._candidate is None or self._candidate.record.nonce != record.nonce:
            self._attempt = 0
            self._candidate = await store.prepare(sign_record(record, self._driver.sign))
        return self._candidate

    def _not_sent(self, swap: OpenSwap) -> None:
        if self._driver.lease.open is not swap:
            return
        if self._candidate is not None and self._candidate.record.nonce == swap.record.nonce:
            self._attempt += 1  # an earlier attempt did leave, and may have landed
            self._driver.coordinator.on_unknown(self._driver.now(), self._attempt)
        else:
            self._driver.coordinator.on_unsent(self._driver.now())

    def _settle(self, outcome: SwapOutcome, sent: int) -> None:
        now, coordinator = self._driver.now(), self._driver.coordinator
        if isinstance(outcome, Won):
            self.latency, self.error, self.last_write = now - sent, None, now
            coordinator.on_won(outcome.known, now)
            self._driver.persist()
            self._driver.peers.announce()
        elif isinstance(outcome, Lost):
            coordinator.on_lost(self._judged(outcome.known), now)
        else:
            self.error = outcome.why
            self._attempt += 1
            coordinator.on_unknown(now, self._attempt)

    def _overtaken(self, outcome: SwapOutcome) -> None:
        """What became of a swap that was settled while it was under way; another may be open by now."""
        seen = None if isinstance(outcome, Unknown) else outcome.known
        if seen is not None:
            self._driver.learn(seen)
