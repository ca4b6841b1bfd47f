"""``Updater``: brings the whole mesh to another version, one machine after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal, NoReturn

import msgspec

from instar_node.build import Build
from instar_node.clock import MICROS_PER_MS, Clock
from instar_node.contracts import Authority, Member, Members, Mesh, PeerError, PeerInfo
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.updates.compatibility import held_back
from instar_node.updates.installed import INSTALL_S
from instar_node.updates.local_update import LocalUpdate
from instar_node.updates.messages import UpdateAnswer, UpdateOrder
from instar_node.updates.rolling import Standing, order, successor

log = logging.getLogger("instar.updates")

BACK_S = 90.0
"""How long a machine may take to come back from its restart."""
SYNC_S = 60.0
"""How long it may then take to be in sync again."""
HANDOFF_TRIES = 3
LOOK_S = 0.1
RESTART_PAUSE_S = 0.3
"""Between the answer and the restart, so that the answer gets out."""


class RollStep(msgspec.Struct, frozen=True):
    """One step with one machine, ``at_ms`` after the beginning."""

    machine_id: str
    nickname: str
    step: str
    at_ms: float
    note: str = ""


Outcome = Literal["updated", "nothing-to-do", "restarting", "failed"]


class RollOutcome(msgspec.Struct, frozen=True):
    """What an update came to. ``restarting``: this machine, the last one, restarts now."""

    outcome: Outcome
    reason: str
    steps: tuple[RollStep, ...]


class Updater:
    """On the awake machine: drives the update. On the others: restarts when the awake one says so."""

    def __init__(
        self,
        *,
        local: LocalUpdate,
        hand_off: Callable[[str], Awaitable[str]],
        mesh: Mesh,
        members: Members,
        authority: Authority,
        clock: Clock,
        events: EventHub,
    ) -> None:
        """``hand_off(machine)`` makes it the awake one; its answer is empty, or says why it did not."""
        self.local = local
        self.steps: tuple[RollStep, ...] = ()
        """Of the update under way, or of the last one."""
        self._hand_off = hand_off
        self._mesh = mesh
        self._members = members
        self._authority = authority
        self._clock = clock
        self._events = events
        self._began = 0
        self._rolling = asyncio.Lock()
        self._restarting: asyncio.Task[None] | None = None
        mesh.on_request(UpdateOrder, self._on_order)

    @property
    def running(self) -> bool:
        """Whether this machine drives an update now."""
        return self._rolling.locked()

    async def stop(self) -> None:
        """Restart no more by itself; the node ends anyhow."""
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)

    async def update(self, to: str) -> RollOutcome:
        """Update all machines that can be reached, this one last; it hands the awake role on first.

        The first machine that does not come up as intended ends the update. Raises ``update-running``.
        """
        if self.running:
            raise InstarError("update-running", "an update is under way", "`instar update --status` shows it")
        async with self._rolling:
            self.steps, self._began = (), self._clock.now()
            try:
                outcome, reason = await self._roll(to)
            except InstarError as error:
                outcome, reason = "failed", error.message
            self._events.publish("update", f"update {outcome}" + (f": {reason}" if reason else ""), over=True)
            return RollOutcome(outcome, reason, self.steps)

    # -- the others, then this one ----------------------------------------------------------------------

    async def _roll(self, to: str) -> tuple[Outcome, str]:
        installed = await self.local.prepare(
            to
        )  # first of all: nothing is restarted for a wish that fails here
        changed = [await self._update_other(machine, to) for machine in order(self._standings())]
        if installed == self.local.build:
            return ("updated" if any(changed) else "nothing-to-do"), self._left_out()
        await self._pass_on(installed)
        self._step(self._mesh.me, "restarting", f"into {installed.version}")
        self._restarting = asyncio.create_task(self._restart_soon(installed), name="restart")
        return "restarting", self._left_out()

    async def _update_other(self, machine: Standing, to: str) -> bool:
        """Have one machine restart into the new version and see it back; ``False`` if it runs it already."""
        before = self._info(machine.machine_id)
        answer = await self._order(machine, to)
        if answer.state == "current":
            self._step(machine.machine_id, "current", f"runs {answer.installed.version}")
            return False
        self._step(machine.machine_id, "restarting", f"into {answer.installed.version}")
        await self._see_back(machine, before.incarnation, answer.installed)
        return True

    async def _order(self, machine: Standing, to: str) -> UpdateAnswer:
        try:
            return await self._mesh.request(
                machine.machine_id, UpdateOrder(to), UpdateAnswer, within=INSTALL_S + 60
            )
        except PeerError as error:
            self._step(machine.machine_id, "failed", error.message)
            raise InstarError("update-failed", f"{machine.nickname}: {error.message}") from error

    async def _see_back(self, machine: Standing, before: str, wanted: Build) -> None:
        def back() -> bool:
            info = self._info(machine.machine_id)
            return info.connected and info.incarnation != before

        if not await self._wait(back, BACK_S):
            self._fail(machine, f"it did not come back within {BACK_S:g} s")
        info = self._info(machine.machine_id)
        if info.version != wanted.version:
            self._fail(machine, f"it came up with version {info.version} instead of {wanted.version}")
        self._step(machine.machine_id, "updated", f"runs {info.version}")
        reason = held_back(Build(info.version, info.protocol), self.local.build)
        if reason is not None:
            self._step(machine.machine_id, "held back", reason)
        elif machine.in_sync and not await self._wait(lambda: self._in_sync(machine.machine_id), SYNC_S):
            self._fail(machine, f"it was not in sync again within {SYNC_S:g} s")

    async def _pass_on(self, installed: Build) -> None:
        """Before this machine restarts the awake role goes to one that has been updated; when there is none,
        this one restarts as the awake machine."""
        standings = self._standings()
        target = successor(standings, installed.version, self.local.build.protocol)
        if target is not None:
            await self._hand_over(target)
            return
        updated = [m for m in standings if m.build is not None and m.build.version == installed.version]
        for machine in updated:
            if reason := held_back(machine.build, self.local.build):
                raise InstarError(
                    "update-failed",
                    f"no updated machine can take over from {self.local.build.version}: {reason}",
                )

    async def _hand_over(self, target: Standing) -> None:
        """A handoff that was aborted has cost nothing, and a machine that was too busy to take the lease once
        is not broken: so it is tried again while this machine is awake."""
        for left in reversed(range(HANDOFF_TRIES)):
            self._step(target.machine_id, "handing over", "")
            why_not = await self._hand_off(target.machine_id)
            if not why_not:
                self._step(target.machine_id, "awake", "")
                return
            self._step(target.machine_id, "not awake", why_not)
            again = left and self._authority.acting_epoch() is not None
            if not (again and await self._wait(lambda: self._in_sync(target.machine_id), SYNC_S)):
                break
        raise InstarError("update-failed", f"the awake role did not go to {target.nickname}: {why_not}")

    def _left_out(self) -> str:
        away = [machine.nickname for machine in self._standings() if not machine.online]
        return f"not reached: {', '.join(away)}; update there when it is back" if away else ""

    # -- as one of the others ---------------------------------------------------------------------------

    async def _on_order(self, peer: str, wish: UpdateOrder) -> UpdateAnswer:
        if peer != self._authority.holder:
            raise InstarError("not-holder", f"{peer} is not known here as the awake machine")
        installed = await self.local.prepare(wish.to)
        if installed == self.local.build:
            return UpdateAnswer("current", installed)
        self._restarting = asyncio.create_task(self._restart_soon(installed), name="restart")
        return UpdateAnswer("restarting", installed)

    async def _restart_soon(self, installed: Build) -> None:
        await self._clock.sleep(RESTART_PAUSE_S)
        try:
            self.local.restart_into(installed)
        except InstarError as error:
            log.error("not restarted: %s", error.message)
            self._events.publish("alert", f"not restarted into {installed.version}: {error.message}")

    # -- small things -----------------------------------------------------------------------------------

    def _standings(self) -> list[Standing]:
        return [
            Standing(
                machine_id=member.machine_id,
                nickname=member.nickname,
                online=self._mesh.connected(member.machine_id),
                witness=member.witness,
                in_sync=self._in_sync(member.machine_id),
                build=self._build(member.machine_id),
            )
            for member in self._others()
        ]

    def _others(self) -> list[Member]:
        return [member for member in self._members.active() if member.machine_id != self._mesh.me]

    def _info(self, machine: str) -> PeerInfo:
        info = self._mesh.info(machine)
        if info is None:
            raise InstarError("update-failed", f"{machine} is not a member any more")
        return info

    def _build(self, machine: str) -> Build | None:
        info = self._mesh.info(machine)
        return Build(info.version, info.protocol) if info is not None and info.version else None

    def _in_sync(self, machine: str) -> bool:
        return machine in self._authority.ack_set()

    async def _wait(self, true: Callable[[], bool], within: float) -> bool:
        end = self._clock.now() + int(within * 1_000_000)
        while not true():
            if self._clock.now() >= end:
                return False
            await self._clock.sleep(LOOK_S)
        return True

    def _fail(self, machine: Standing, why: str) -> NoReturn:
        self._step(machine.machine_id, "failed", why)
        raise InstarError("update-failed", f"{machine.nickname}: {why}")

    def _step(self, machine: str, step: str, note: str) -> None:
        at_ms = (self._clock.now() - self._began) / MICROS_PER_MS
        taken = RollStep(machine, self._members.nickname(machine), step, at_ms, note)
        self.steps = (*self.steps, taken)
        text = f"update of {taken.nickname}: {step}" + (f" ({note})" if note else "")
        self._events.publish("update", text, **msgspec.to_builtins(taken))
