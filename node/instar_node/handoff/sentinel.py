"""``HandoffSentinel``: hands the awake role over. The one owner of every handoff on the outgoing machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Literal

from instar_node.clock import MICROS_PER_MS, MICROS_PER_SECOND, Clock
from instar_node.contracts import Members, Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.copies import Copies
from instar_node.handoff.draining import drain
from instar_node.handoff.ports import Ingress, LeaseControl
from instar_node.handoff.steps import HandoffOutcome, StepName
from instar_node.handoff.times import DEFAULT_TIMES, HandoffTimes
from instar_node.handoff.wire_transport import (
    HandoffAccepted,
    HandoffAsk,
    HandoffAwait,
    HandoffEnded,
    HandoffWireTransport,
    ended_of,
)

log = logging.getLogger("instar.handoff")

STOPPING = "this machine is stopping"


class HandoffSentinel:
    """Brings the target level, stops taking messages in, and passes the lease on, in that order.

    Until the lease is passed on, any doubt aborts: messages are taken in again and this machine stays awake.
    """

    def __init__(
        self,
        *,
        lease: LeaseControl,
        ingress: Ingress,
        waiting: Callable[[str], int],
        copies: Copies[Any, Any],
        wire: HandoffWireTransport,
        board: HandoffBoard,
        mesh: Mesh,
        members: Members,
        clock: Clock,
        times: HandoffTimes = DEFAULT_TIMES,
        require_open: Callable[[str], None] = lambda machine: None,
    ) -> None:
        """``waiting(topic)`` is how many messages of a topic wait for its machine to come back.

        ``require_open(machine)`` raises ``InstarError("gate-shut")`` while nothing may be handed to it.
        """
        self._lease = lease
        self._ingress = ingress
        self._waiting = waiting
        self._copies = copies
        self._wire = wire
        self._board = board
        self._mesh = mesh
        self._members = members
        self._clock = clock
        self._times = times
        self._require_open = require_open
        self._task: asyncio.Task[None] | None = None
        self._passing_to: str | None = None
        self._epoch_seen = lease.epoch
        self._changed_at: int | None = None
        lease.on_change(self._on_lease)
        wire.serve_source(self._on_ask, self._on_await)

    async def hand_off(
        self, to: str, *, automatic: bool = False, times: HandoffTimes | None = None
    ) -> HandoffOutcome:
        """Make another machine, by nickname or id, the awake one; returns when that is decided.

        The handoff goes on when the caller goes away. ``automatic`` ones are bound by the floor between two.
        Raises ``InstarError`` when it does not begin: ``unknown-machine``, ``witness``, ``not-awake``,
        ``peer-unreachable``, ``incompatible``, ``gate-shut``, ``handoff-running``, ``too-soon``.
        """
        member = self._members.resolve(to)
        if member is None:
            known = [member.nickname for member in self._members.active()]
            raise InstarError(
                "unknown-machine",
                f"no machine is called {to}",
                f"known: {', '.join(known)}",
                status=404,
                extra={"known": known},
            )
        if member.machine_id == self._lease.me and self._lease.acting_epoch() is not None:
            return self._board.already_awake()
        if member.witness:
            raise InstarError("witness", f"{member.nickname} is a witness and never awake")
        self._check(member.machine_id, automatic)
        self._require_open(member.machine_id)
        self._begin(member.machine_id, self._clock.token_hex(8), times)
        return await self._board.over()

    async def rehearse(self, to: str) -> None:
        """Go as far as the target's first acknowledgement, and no further: nothing changes anywhere.

        Raises as ``hand_off`` when it could not begin, ``PeerError`` or ``InstarError`` when the target does
        not acknowledge exactly what this machine holds.
        """
        self._check(to, automatic=False)
        epoch = self._lease.acting_epoch()
        if epoch is None:
            raise self._lost()
        session, within = self._clock.token_hex(8), self._times.tail_s
        async with asyncio.timeout(within):
            manifest = await self._copies.manifest()
        await self._wire.rehearse(to, session, epoch, manifest, within)

    async def stop(self) -> None:
        """End a handoff under way; before the lease is passed on this aborts it."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._doubt(STOPPING)  # a task cancelled before its first step has not said so itself

    # -- whether ----------------------------------------------------------------------------------------

    def _check(self, target: str, automatic: bool) -> None:
        nickname = self._members.nickname(target)
        if self._lease.acting_epoch() is None:
            holder = self._lease.holder
            awake = self._members.nickname(holder) if holder is not None else "no machine"
            hint = f"{awake} holds the lease: hand off there, or run `instar wakeup` on {nickname}"
            raise InstarError("not-awake", "this machine is not awake", hint, extra={"holder": holder})
        self._board.require_free()
        info = self._mesh.info(target)
        if info is None or not self._mesh.connected(target):
            raise InstarError(
                "peer-unreachable", f"{nickname} cannot be reached", "see `instar machines`", status=502
            )
        if not info.compatible:
            raise InstarError(
                "incompatible",
                f"{nickname} runs version {info.version}, which cannot take over from this one",
                f"update it first: `instar update` on {nickname}",
            )
        if automatic:
            self._check_floor()

    def _check_floor(self) -> None:
        if self._changed_at is None:
            return
        floor_us = int(self._times.floor_s * MICROS_PER_SECOND)
        left = self._changed_at + floor_us - self._clock.now()
        if left > 0:
            raise InstarError(
                "too-soon",
                "the awake machine has just changed",
                status=429,
                extra={"retry_in_ms": -(-left // MICROS_PER_MS)},
            )

    # -- how --------------------------------------------------------------------------------------------

    def _begin(self, to: str, session: str, times: HandoffTimes | None) -> None:
        self._board.begin("handoff", self._lease.me, to, session)
        work = self._run(to, session, times or self._times)
        self._task = asyncio.create_task(work, name=f"handoff-{session}")

    async def _run(self, to: str, session: str, times: HandoffTimes) -> None:
        try:
            await self._carry_out(to, session, times)
        except InstarError as error:
            self._doubt(error.message)
        except PeerError as error:
            self._doubt(f"{self._members.nickname(to)}: {error.message}")
        except TimeoutError:
            self._doubt(f"it took too long after {self._board.took[-1]}")
        except asyncio.CancelledError:
            self._doubt(STOPPING)
            raise
        except Exception as error:
            log.exception("handoff %s", session)
            self._doubt(f"{type(error).__name__}: {error}")
        else:
            self._board.finish("awake")

    async def _carry_out(self, to: str, session: str, times: HandoffTimes) -> None:
        epoch = self._lease.acting_epoch()
        if epoch is None:
            raise self._lost()
        async with asyncio.timeout(times.prepare_s + 1.0):
            await self._lease.bring_in(to, times.prepare_s)
        await self._offer(to, session, epoch, 1, times.tail_s)
        self._step("tail_synced")
        try:
            await self._quiesce(to, times.drain_s)
            await self._offer(to, session, epoch, 2, times.ack_s)
            await self._pass(to, epoch, times.pass_s)
        finally:
            await self._resume()

    async def _quiesce(self, to: str, drain_s: float) -> None:
        """Take nothing more in, and bring what is under way to its end."""
        async with asyncio.timeout(drain_s):
            await self._ingress.pause()
        self._step("ingress_fenced")
        async with asyncio.timeout(2 * drain_s + 1.0):
            finished = await drain(self._ingress, self._waiting, drain_s)
            await self._copies.settled()
        self._step("drained", "" if finished else f"what was not done runs on {self._members.nickname(to)}")

    async def _offer(self, to: str, session: str, epoch: int, number: Literal[1, 2], within: float) -> None:
        async with asyncio.timeout(within):
            manifest = await self._copies.manifest()
        await self._wire.offer(to, session, epoch, number, manifest, within)
        if self._lease.acting_epoch() != epoch:
            raise self._lost()

    async def _pass(self, to: str, epoch: int, within: float) -> None:
        """The point of no return. The lease's own work is never cut short, only no longer waited for."""
        if not self._mesh.connected(to):
            raise PeerError("unreachable", "the link broke before the lease was passed on")
        self._passing_to = to
        passing = asyncio.ensure_future(self._lease.pass_to(to, within))
        try:
            async with asyncio.timeout(within + 1.0):
                seen = await asyncio.shield(passing)
        finally:
            self._passing_to = None
            if not passing.done():
                passing.add_done_callback(_retrieve)
        if seen <= epoch or self._lease.holder != to:
            raise self._went_elsewhere(to)
        if self._board.took[-1] == "drained":
            self._step("yielded")
        self._step("committed")

    def _went_elsewhere(self, target: str) -> InstarError:
        """Whoever was given the lease may be too slow to take it; after a ttl this machine, too, may."""
        name, holder = self._members.nickname(target), self._lease.holder
        if holder == self._lease.me:
            text = f"{name} did not take the lease in time, so this machine took it back"
        else:
            taker = "nobody" if holder is None else self._members.nickname(holder)
            text = f"{taker} holds the lease, not {name}"
        return InstarError("handoff-failed", text)

    def _doubt(self, reason: str) -> None:
        """Something went wrong: who is awake now decides what to call it."""
        if self._lease.holder == self._board.target:
            self._board.finish("awake")
        else:
            self._board.finish("failed" if self._lease.acting_epoch() is None else "aborted", reason)

    async def _resume(self) -> None:
        """Messages are taken in again, or those who wait learn who is awake; whatever came before."""
        try:
            await self._ingress.resume()
        except Exception:
            log.exception("messages could not be taken in again")
            self._board.say("messages are not taken in: see the log")

    def _step(self, name: StepName, note: str = "") -> None:
        self._board.step(name, note)
        if self._board.target is not None:
            self._wire.tell(self._board.target, self._board.session, name, note)

    def _lost(self) -> InstarError:
        return InstarError("lease-lost", "this machine lost the lease meanwhile")

    def _on_lease(self) -> None:
        if self._lease.epoch != self._epoch_seen:
            self._epoch_seen, self._changed_at = self._lease.epoch, self._clock.now()
        gone = self._lease.acting_epoch() is None
        if self._passing_to is not None and gone and self._board.took[-1] == "drained":
            self._step("yielded")

    # -- what standbys ask ------------------------------------------------------------------------------

    async def _on_ask(self, peer: str, ask: HandoffAsk) -> HandoffAccepted:
        """A standby wants to be awake. One that is being handed to already is told under which name."""
        if self._board.running and self._board.target == peer and self._lease.acting_epoch() is not None:
            return HandoffAccepted(self._board.session)
        self._check(peer, automatic=False)
        self._require_open(peer)
        self._begin(peer, ask.session, None)
        return HandoffAccepted(ask.session)

    async def _on_await(self, peer: str, wanted: HandoffAwait) -> HandoffEnded:
        if wanted.session != self._board.session or self._board.target != peer:
            raise InstarError("unknown-session", "this machine knows of no such handoff", status=404)
        return ended_of(await self._board.over())


def _retrieve(task: asyncio.Future[int]) -> None:
    """A pass that ended after it was given up on: its failure is logged, not lost."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("passing the lease on: %s", error)
