"""``Wakeup``: make this machine the awake one, by asking the holder, by the rules, or by force."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import NoReturn

from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Members, Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.ports import LeaseControl
from instar_node.handoff.receiver import HandoffReceiver
from instar_node.handoff.steps import HandoffOutcome, Kind
from instar_node.handoff.wire_transport import HandoffWireTransport, refusal

TAKE_S = 15.0
"""How long the swap itself may take once the lease may be taken."""
COUNT_S = 1.0
"""How often the time left is told."""


class Wakeup:
    """A person's wish that this machine be awake. One at a time; it goes on when the caller leaves."""

    def __init__(
        self,
        *,
        lease: LeaseControl,
        wire: HandoffWireTransport,
        receiver: HandoffReceiver,
        board: HandoffBoard,
        mesh: Mesh,
        members: Members,
        clock: Clock,
    ) -> None:
        self._lease = lease
        self._wire = wire
        self._receiver = receiver
        self._board = board
        self._mesh = mesh
        self._members = members
        self._clock = clock
        self._task: asyncio.Task[HandoffOutcome] | None = None
        self._forcing = False
        self._changed = asyncio.Event()
        self._came_back = False
        lease.on_change(self._changed.set)
        mesh.on_peer(self._on_peer)

    async def wakeup(self, force: bool = False, vouch: tuple[str, ...] = ()) -> HandoffOutcome:
        """Become awake; returns when that is decided.

        A holder that can be reached hands over; otherwise the lease is taken as soon as its rules allow,
        which the ``waiting`` step announces. ``force`` begins a new generation, once every unreachable
        machine is vouched for. A second wakeup here while the first runs gets the same answer.

        Raises ``InstarError``: ``removed``, ``witness``, ``handoff-running``, ``holder-changed`` (another
        machine was faster), ``needs-confirmation``, ``cannot-take-over``, or what the holder refuses with.
        """
        self._check_member()
        if self._lease.acting_epoch() is not None:
            return self._board.already_awake()
        under_way = self._task if self._task is not None and not self._task.done() else None
        if under_way is not None and not force and not self._forcing:
            return await _answer(under_way)
        if self._board.running and not force and self._board.target == self._lease.me:
            return await self._board.over()
        self._board.require_free()
        if under_way is not None:
            raise InstarError("handoff-running", "this machine is being woken up already")
        self._forcing = force
        work = self._decided("force", self._lease.force(vouch)) if force else self._by_the_rules()
        self._task = asyncio.create_task(work, name="wakeup")
        return await _answer(self._task)

    async def stop(self) -> None:
        """Wish no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _check_member(self) -> None:
        member = self._members.get(self._lease.me)
        if member is None or member.removed:
            raise InstarError(
                "removed",
                "this machine is not a member of the mesh any more",
                "`instar join` pairs it again",
                status=403,
            )
        if member.witness:
            raise InstarError("witness", "a witness keeps the register and is never awake")

    # -- by asking, or by the rules ---------------------------------------------------------------------

    async def _by_the_rules(self) -> HandoffOutcome:
        self._board.begin("handoff", self._lease.holder, self._lease.me, self._clock.token_hex(8))
        try:
            return await self._ask_or_take()
        except InstarError as error:
            self._board.finish("failed" if self._nobody_else() else "aborted", error.message)
            raise
        except asyncio.CancelledError:
            self._board.finish("failed", "this machine is stopping")
            raise

    async def _ask_or_take(self) -> HandoffOutcome:
        while True:
            holder = self._lease.holder
            self._came_back = False
            at_hand = holder is not None and holder != self._lease.me and self._mesh.connected(holder)
            if holder is not None and at_hand and await self._ask(holder):
                return await self._board.over()
            if await self._take_over():
                return self._board.finish("awake")
            # The holder came back while this machine waited: ask it.

    async def _ask(self, holder: str) -> bool:
        """Ask the holder to hand over; ``False`` when it is not there, or not the holder any more."""
        before = self._lease.epoch
        try:
            session = await self._wire.ask(holder, self._board.session)
        except PeerError as error:
            if error.reason == "refused" and error.code != "not-awake":
                raise refusal(error, self._members.nickname(holder)) from error
            if self._lease.epoch > before:
                self._holder_changed()
            return False
        if self._board.running:  # else it was over before the answer was looked at
            self._receiver.follow(holder, session)
        return True

    async def _take_over(self) -> bool:
        """Take the lease by its rules; ``False`` when the holder came back and can be asked instead."""
        before = self._lease.epoch
        due = self._lease.snapshot().contend_in_us
        self._board.turn("takeover")
        if due is not None:
            self._board.step("waiting", f"the lease may be taken in {due / MICROS_PER_SECOND:.1f} s")
        within = (due or 0) / MICROS_PER_SECOND + TAKE_S
        taking = asyncio.ensure_future(self._lease.take_over(within))
        counting = asyncio.ensure_future(self._count_down(due or 0))
        try:
            while not taking.done():
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({taking, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if taking.done():
                    break
                if self._lease.epoch > before and self._lease.holder != self._lease.me:
                    self._holder_changed()
                if self._came_back:
                    self._board.turn("handoff")
                    return False
            taking.result()
            return True
        finally:
            taking.cancel()
            counting.cancel()

    async def _count_down(self, due_us: int) -> None:
        """Tell once a second how long it still takes."""
        end = self._clock.now() + due_us
        while (left := (end - self._clock.now()) / MICROS_PER_SECOND) > COUNT_S:
            await self._clock.sleep(COUNT_S)
            left -= COUNT_S
            self._board.say(f"the lease may be taken in {left:.0f} s", remaining_ms=round(left * 1_000))

    def _holder_changed(self) -> NoReturn:
        holder = self._lease.holder
        name = self._members.nickname(holder) if holder is not None else "another machine"
        raise InstarError(
            "holder-changed",
            f"{name} has just become awake, in epoch {self._lease.epoch}",
            "run it again to bring the awake role here",
            extra={"holder": holder},
        )

    def _nobody_else(self) -> bool:
        """Whether no machine that we can reach is known to hold the lease."""
        holder = self._lease.holder
        return holder is None or holder == self._lease.me or not self._mesh.connected(holder)

    def _on_peer(self, peer: str, up: bool) -> None:
        if up and peer == self._lease.holder:
            self._came_back = True
            self._changed.set()

    # -- by force ---------------------------------------------------------------------------------------

    async def heal(self, confirmed: bool, vouch: tuple[str, ...]) -> HandoffOutcome:
        """End a split brain from here. Raises ``removed``, ``witness``, and what the lease refuses with."""
        self._check_member()
        self._board.require_free()
        return await self._decided("heal", self._lease.heal(confirmed, vouch))

    async def _decided(self, kind: Kind, work: Coroutine[object, object, int]) -> HandoffOutcome:
        """On the board only once a person has confirmed; a question is no attempt."""
        source, began = self._lease.holder, self._clock.now()

        def begin() -> None:
            self._board.begin(kind, source, self._lease.me, self._clock.token_hex(8), began=began)

        try:
            await work
        except InstarError as error:
            if error.code not in ("needs-confirmation", "nothing-to-heal"):
                begin()
                self._board.finish("failed", error.message)
            raise
        begin()
        return self._board.finish("awake")


async def _answer(task: asyncio.Task[HandoffOutcome]) -> HandoffOutcome:
    """What a wakeup comes to; a caller who goes away does not end it."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise InstarError("stopping", "this machine is stopping", status=503) from None
        raise
