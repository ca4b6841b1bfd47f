"""Leaving the awake role in good order when the program is told to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Members, Mesh
from instar_node.errors import InstarError
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.ports import LeaseControl
from instar_node.handoff.sentinel import HandoffSentinel
from instar_node.handoff.steps import HandoffOutcome
from instar_node.handoff.times import DEFAULT_TIMES

log = logging.getLogger("instar.handoff")

ENOUGH_S = 0.3
"""Less time than this is not worth another attempt."""
RELEASE_S = 2.0
"""How long the hub may take to note that the lease is free; after that it runs out by itself."""


class ShutdownHandoff:
    """What SIGTERM, and a person who quits, do with the awake role."""

    def __init__(
        self,
        *,
        lease: LeaseControl,
        sentinel: HandoffSentinel,
        board: HandoffBoard,
        mesh: Mesh,
        members: Members,
        clock: Clock,
        embedded: Callable[[], bool],
    ) -> None:
        """``embedded``: whether the register lies on this machine's own disk; then the lease keeps until
        this machine is back."""
        self._lease = lease
        self._sentinel = sentinel
        self._board = board
        self._mesh = mesh
        self._members = members
        self._clock = clock
        self._embedded = embedded

    async def hand_off_for_shutdown(
        self, within: float = 2.0, *, keep_baton: bool = False
    ) -> HandoffOutcome | None:
        """Hand over to an in-sync machine within so many seconds, else release the lease.

        With an embedded hub there is no release: the lease stays with this machine, which goes on at its next
        start, when nobody could take it, or when the person wants just that (``keep_baton``). Never raises:
        what could not be done is logged, and a lease of any other hub then runs out by itself. Returns the
        outcome of the last handoff tried, ``None`` when none was.
        """
        end = self._clock.now() + int(within * MICROS_PER_SECOND)
        outcome = await self._under_way(within)
        if self._lease.acting_epoch() is None or (self._embedded() and keep_baton):
            return outcome
        for standby in self._candidates():
            left = (end - self._clock.now()) / MICROS_PER_SECOND
            if left < ENOUGH_S or self._lease.acting_epoch() is None:
                break
            outcome = await self._try(standby, left) or outcome
        if self._lease.acting_epoch() is not None and not self._embedded():
            await self._release()
        return outcome

    async def _under_way(self, within: float) -> HandoffOutcome | None:
        """Let a handoff that is running end first; past its time it is aborted."""
        if not self._board.running:
            return None
        try:
            async with asyncio.timeout(within):
                return await self._board.over()
        except TimeoutError:
            await self._sentinel.stop()
            return self._board.view()

    def _candidates(self) -> list[str]:
        """In-sync machines that could go on at once, the nearest first."""
        found: list[tuple[int, str]] = []
        for machine in self._lease.ack_set():
            member, info = self._members.get(machine), self._mesh.info(machine)
            if member is None or member.removed or member.witness or info is None:
                continue
            if info.compatible and self._mesh.connected(machine):
                found.append((info.rtt_us if info.rtt_us is not None else MICROS_PER_SECOND, machine))
        return [machine for _, machine in sorted(found)]

    async def _try(self, standby: str, left: float) -> HandoffOutcome | None:
        try:
            return await self._sentinel.hand_off(standby, times=DEFAULT_TIMES.hurried(left))
        except InstarError as error:
            log.warning("no handoff to %s before the end: %s", self._members.nickname(standby), error)
            return None

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._lease.release()
        except (InstarError, TimeoutError) as error:
            log.warning("the lease was not released and runs out by itself: %s", error or "no answer in time")
