"""Drills that run by themselves: after a join, after an update, and again after one that failed."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from instar_node.background import Background
from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Authority, Mesh
from instar_node.errors import InstarError
from instar_node.verification.verification import Verification

log = logging.getLogger("instar.verification")

SETTLE_US = 3 * MICROS_PER_SECOND
"""A machine that has just come into the electorate is left in peace this long."""
AGAIN_US = 60 * MICROS_PER_SECOND
"""Pause after a drill that failed; doubles each time."""
LONGEST_US = 3_600 * MICROS_PER_SECOND


class Attempt(msgspec.Struct, frozen=True):
    """When a machine is to be tried, and how many drills with it have not passed in a row. Microseconds."""

    due: int
    failures: int


class Rehearsals:
    """While this machine is awake: rehearses with each machine in sync whose gates nobody has verified, or
    whose last drill failed. The awake role never moves."""

    def __init__(self, verification: Verification, mesh: Mesh, authority: Authority, clock: Clock) -> None:
        self._verification = verification
        self._mesh = mesh
        self._authority = authority
        self._clock = clock
        self._attempts: dict[str, Attempt] = {}
        self._look = asyncio.Event()
        self._task = Background("rehearsals", self._run)
        mesh.on_peer(lambda peer, up: self._look.set())
        authority.on_change(self._look.set)
        verification.on_change(self._look.set)

    def start(self) -> None:
        """Begin to look."""
        self._task.start()

    async def stop(self) -> None:
        """Rehearse no more."""
        await self._task.stop()

    def plan(self, now: int) -> dict[str, Attempt]:
        """Which machines are to be tried, and when. Pure but for what it reads of the parts."""
        if self._authority.acting_epoch() is None:
            return {}
        planned = {}
        for machine in self._authority.ack_set() | self._verification.shut_out():
            if self._mesh.connected(machine) and not self._verification.proven(machine):
                planned[machine] = self._attempts.get(machine) or Attempt(now + SETTLE_US, 0)
        return planned

    async def _run(self) -> None:
        while True:
            self._look.clear()
            now = self._clock.now()
            self._attempts = self.plan(now)
            machine = min(self._attempts, key=lambda one: self._attempts[one].due, default=None)
            if machine is None:
                await self._look.wait()
                continue
            wait = (self._attempts[machine].due - now) / MICROS_PER_SECOND
            if wait > 0:
                await self._rest(wait)
                continue
            await self._rehearse(machine)

    async def _rest(self, seconds: float) -> None:
        """Until the next drill is due, or something has changed."""
        waiting = [
            asyncio.ensure_future(self._clock.sleep(seconds)),
            asyncio.ensure_future(self._look.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _rehearse(self, machine: str) -> None:
        failures = self._attempts[machine].failures + 1
        try:
            await self._verification.drill(machine, live=False, asked=False)
        except InstarError as error:
            log.info("no drill with %s now: %s", machine, error)
        pause = min(AGAIN_US << (failures - 1), LONGEST_US)
        self._attempts[machine] = Attempt(self._clock.now() + pause, failures)
