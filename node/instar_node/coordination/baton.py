"""Passing the baton: how the lease moves when its register lies on the holder's own disk.

The holder closes its register instance for good, naming a successor; the successor opens its own instance one
epoch up from that closing. Between the two nobody is awake, and the closing is sent again until the successor
confirms or signs that it will never open it. Nothing is ever contended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar_node.coordination.http_lease_transport import Closing, ClosingReply
from instar_node.coordination.record import KnownRecord, is_authentic
from instar_node.errors import InstarError

if TYPE_CHECKING:
    from instar_node.coordination.lease_driver import LeaseDriver

DECLINE_PURPOSE = b"instar-lease-decline/1:"


class Baton:
    """Both ends of a baton pass, for one ``LeaseDriver``."""

    def __init__(self, driver: LeaseDriver) -> None:
        self._driver = driver

    async def pass_to(self, machine: str, within: float) -> int:
        """Close our instance and see the successor open its own; returns the new epoch.

        Raises:
            InstarError: ``declined`` (we are awake again, two epochs up) or ``handoff-failed`` (closed, and
                the successor has not confirmed yet; the closing keeps being sent).
        """
        driver, lease = self._driver, self._driver.lease
        own = lease.holding
        assert own is not None
        assert own.version is not None
        epoch = own.record.epoch
        record = lease.next_record(
            reason="handoff",
            at=driver.coordinator.at(),
            nonce=driver.coordinator.nonce(),
            state="closed",
            successor=machine,
        )
        lease.cease(own.version)
        await driver.swap_now(record, "close")
        if not await driver.wait_until(lambda: lease.epoch > epoch, within):
            raise InstarError(
                "handoff-failed",
                "the lease was closed for the other machine, which has not confirmed yet",
                "it is told again until it does; see `instar lease`",
            )
        if driver.holder == driver.me:
            raise InstarError("declined", "the other machine declined; this one is awake again")
        return lease.epoch

    async def resend(self, closing: KnownRecord) -> None:
        """Send our closing to its successor once; learn what came of it."""
        driver = self._driver
        successor = closing.record.successor
        if successor is None:
            return
        reply = await driver.transport.pass_closing(successor, closing, 2.0)
        if reply is None:
            return
        if reply.newest is not None:
            driver.learn(reply.newest)
        if reply.outcome == "declined" and driver.verify(
            successor, DECLINE_PURPOSE + closing.version.encode(), reply.signature
        ):
            await self._reopen(closing, reply.why)

    async def _reopen(self, closing: KnownRecord, why: str) -> None:
        driver, lease = self._driver, self._driver.lease
        if lease.known is None or lease.known.version != closing.version or lease.open is not None:
            return
        record = lease.reopening_record(
            reason=f"handoff declined: {why}",
            at=driver.coordinator.at(),
            nonce=driver.coordinator.nonce(),
        )
        await driver.swap_now(record, "contend")

    async def on_closing(self, peer: str, message: Closing) -> ClosingReply:
        """A closing arrived: open our own instance from it, or decline it for good, signed."""
        driver, lease = self._driver, self._driver.lease
        closing = message.known
        if not is_authentic(closing.record, driver.verify):
            raise InstarError("not-authentic", "the closing is not signed by its holder", status=403)
        newest = lease.known
        if newest is not None and newest.record.prev == closing.version and newest.record.holder == lease.me:
            return ClosingReply("opened", newest)
        refusal = "opening" if lease.open is not None else lease.may_open(closing)
        if refusal is None:
            lease.learn(closing, driver.now())
            record = lease.opening_record(
                closing, reason="handoff", at=driver.coordinator.at(), nonce=driver.coordinator.nonce()
            )
            await driver.swap_now(record, "contend")
            newest = lease.known
            if lease.holding is not None and newest is not None and newest.record.prev == closing.version:
                return ClosingReply("opened", newest)
            if lease.open is not None or driver.hub_error is None:
                raise InstarError("cannot-open", "this machine's own register has not taken the opening yet")
            refusal = f"its own register cannot be written: {driver.hub_error}"
        if refusal == "knows-newer":
            return ClosingReply("newer", newest)
        if refusal == "opening":
            raise InstarError("busy", "the opening is under way")
        if refusal == "split-brain":
            # No decline: with one its author would be awake again while everybody has to stop.
            raise InstarError("split-brain", "everybody stops for a split brain until `instar lease heal`")
        lease.decline(closing.version)
        driver.persist()
        signature = driver.sign(DECLINE_PURPOSE + closing.version.encode())
        return ClosingReply("declined", newest, refusal, signature)
