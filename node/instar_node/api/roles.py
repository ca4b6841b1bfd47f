"""Which machine is awake: waking this one up, handing the role to another."""

from __future__ import annotations

from instar_node.api import types as t
from instar_node.api.membership import unknown_machine
from instar_node.api.parts import NodeParts
from instar_node.clock import MICROS_PER_MS
from instar_node.errors import InstarError

BRING_IN_S = 10.0
PASS_S = 5.0


class Roles:
    """Changes of holder that a person asks for."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._base = parts.base
        self._last: t.HandoffResult | None = None

    def view(self) -> t.HandoffResult:
        """The last change of holder, or that there was none."""
        return self._last or self._result("none", "", 0)

    async def wakeup(self, force: bool, vouched: tuple[str, ...]) -> t.HandoffResult:
        """Make this machine the awake one."""
        lease, began = self._base.lease, self._base.clock.now()
        if lease.acting_epoch() is not None:
            return self._result("already-awake", "takeover", began)
        await (lease.force(vouched) if force else lease.take_over(60.0))
        self._last = self._result("awake", "force" if force else "takeover", began)
        return self._last

    async def handoff(self, to: str) -> t.HandoffResult:
        """Make another machine the awake one."""
        lease, delivery, began = self._base.lease, self._parts.delivery.delivery, self._base.clock.now()
        lease.require_acting()
        member = self._base.registry.resolve(to)
        if member is None:
            raise unknown_machine(self._base, to)
        if member.machine_id == self._base.me:
            return self._result("already-awake", "handoff", began)
        try:
            await lease.bring_in(member.machine_id, BRING_IN_S)
            await delivery.pause()
            await delivery.drain(1.0)
            await lease.pass_to(member.machine_id, PASS_S)
        except InstarError as error:
            await delivery.resume()
            outcome = "aborted" if lease.acting_epoch() is not None else "failed"
            self._last = self._result(outcome, "handoff", began, error.message)
            return self._last
        self._last = self._result("awake", "handoff", began)
        return self._last

    async def hand_off_for_shutdown(self, within: float) -> bool:
        """Hand the role to a machine that is in sync; ``False`` when there is none."""
        lease = self._base.lease
        record = lease.known.record if lease.known is not None else None
        for machine in record.electorate if record is not None else ():
            if machine != self._base.me and self._base.mesh.connected(machine):
                return (await self.handoff(machine)).outcome == "awake"
        return False

    def _result(self, outcome: str, kind: str, began: int, reason: str = "") -> t.HandoffResult:
        lease = self._base.lease
        holder = lease.holder
        took = (self._base.clock.now() - began) / MICROS_PER_MS if began else 0.0
        return t.HandoffResult(
            outcome=outcome,  # type: ignore[arg-type]
            holder=holder,
            holder_nickname=None if holder is None else self._base.registry.nickname(holder),
            epoch=lease.epoch,
            took_ms=took,
            steps=[],
            reason=reason,
            kind=kind,
        )
