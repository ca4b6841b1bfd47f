"""Evidence of a split brain between machines: shown to everybody, so that everybody stops.

Two signed records that contradict each other prove themselves: whoever is shown both judges alike. A hub that
was rewound proves itself to whoever reads it. So the one is passed on, and the other makes its hearers read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from instar_node.coordination.http_lease_transport import SplitBrainNotice
from instar_node.coordination.record import is_authentic

if TYPE_CHECKING:
    from instar_node.coordination.lease_driver import LeaseDriver

log = logging.getLogger("instar.lease")


class SplitBrain:
    """Passes evidence on, and takes it in."""

    def __init__(self, driver: LeaseDriver) -> None:
        self._driver = driver
        self._told: str | None = driver.lease.durable.evidence

    def tell_all_once(self) -> None:
        """After each step: what is new goes to the log, to the screens and to every connected machine."""
        evidence = self._driver.lease.durable.evidence
        if evidence == self._told:
            return
        self._told = evidence
        if evidence is None:
            self._driver.publish("split-brain", "the split brain is healed", evidence=None)
            return
        log.error("split brain: %s", evidence)
        self._driver.publish(
            "split-brain",
            f"split brain: {evidence}; everybody stops until `instar lease heal`",
            evidence=evidence,
        )
        for machine in self._driver.peers.connected_members():
            self.tell(machine)

    def tell(self, machine: str) -> None:
        """Show one machine what made this one stop; nothing when it has not."""
        durable = self._driver.lease.durable
        if durable.evidence is not None:
            self._driver.transport.notify_split_brain(machine, durable.evidence, durable.proof)

    def on_notice(self, peer: str, notice: SplitBrainNotice) -> None:
        """A machine has stopped. Its records convince by themselves; without two of them the hub is read."""
        proof = [seen for seen in notice.proof if is_authentic(seen.record, self._driver.verify)]
        if len(proof) == 2 and self._driver.lease.accept_proof(*proof):
            self._driver.after_step()
        else:
            self._driver.read_now()
