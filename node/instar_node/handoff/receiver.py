"""``HandoffReceiver``: the incoming machine's side of a handoff."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from instar_node.contracts import Authority, Members, PeerError
from instar_node.errors import InstarError
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.copies import Copies
from instar_node.handoff.steps import Ending
from instar_node.handoff.times import DEFAULT_TIMES, HandoffTimes
from instar_node.handoff.wire_transport import (
    HandoffAck,
    HandoffOffer,
    HandoffRehearsal,
    HandoffStepTaken,
    HandoffWireTransport,
)

log = logging.getLogger("instar.handoff")


class _Session:
    """One handoff as this machine follows it."""

    def __init__(self, name: str, source: str, epoch: int) -> None:
        self.name = name
        self.source = source
        self.epoch = epoch
        self.acked = 0
        """The last round acknowledged. After the second the source may pass the lease on at any time."""


class HandoffReceiver:
    """Believes only the holder of the highest epoch known; acknowledges only what it recomputed itself.

    What it acknowledges is durable already, so a machine that restarts after it is as ready as before. It
    becomes awake through the lease alone; the messages here only make sure that it goes on without a gap.
    """

    def __init__(
        self,
        *,
        authority: Authority,
        copies: Copies[Any, Any],
        wire: HandoffWireTransport,
        board: HandoffBoard,
        members: Members,
        times: HandoffTimes = DEFAULT_TIMES,
    ) -> None:
        self._authority = authority
        self._copies = copies
        self._board = board
        self._wire = wire
        self._members = members
        self._times = times
        self._session: _Session | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0
        """Messages refused because they came from a machine that is not the holder we know."""
        authority.on_change(self._on_lease)
        wire.serve_target(self._on_offer, self._on_step, self._on_rehearsal)

    def follow(self, source: str, session: str) -> None:
        """Watch a handoff to this machine until it ends, and keep the board. Once for each session.

        Raises ``InstarError("handoff-running")`` while something else is under way here.
        """
        if self._session is not None and self._session.name == session:
            return
        self._take_board(source, session)
        self._session = _Session(session, source, self._authority.epoch)
        task = asyncio.create_task(self._watch(self._session), name=f"handoff-to-here-{session}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- offers -----------------------------------------------------------------------------------------

    async def _on_offer(self, peer: str, offer: HandoffOffer) -> HandoffAck:
        """Catch up with the holder's manifest and acknowledge it when ours is the same."""
        self._check_holder(peer, offer.epoch)
        if offer.round == 1:
            await self._own_end(peer, offer.within_ms / 1_000)
            self.follow(peer, offer.session)
        session = self._require(peer, offer)
        await self._copies.confirm(offer.manifest, offer.within_ms / 1_000)
        self._check_holder(peer, offer.epoch)
        self._require(peer, offer)
        session.acked = offer.round
        return HandoffAck(offer.session, offer.round, offer.manifest.digest())

    async def _on_rehearsal(self, peer: str, rehearsal: HandoffRehearsal) -> HandoffAck:
        """Catch up and acknowledge as in a handoff; no session begins, and people see nothing of it."""
        self._check_holder(peer, rehearsal.epoch)
        await self._copies.confirm(rehearsal.manifest, rehearsal.within_ms / 1_000)
        self._check_holder(peer, rehearsal.epoch)
        return HandoffAck(rehearsal.session, 1, rehearsal.manifest.digest())

    async def _own_end(self, peer: str, within: float) -> None:
        """The holder to which we have just handed over may hand back before our own sentinel has seen it end:
        that is a matter of milliseconds, so it is waited for."""
        if self._board.running and self._board.target == peer:
            with contextlib.suppress(TimeoutError):  # then ``follow`` says that it is still running
                async with asyncio.timeout(within):
                    await self._board.over()

    def _require(self, peer: str, offer: HandoffOffer) -> _Session:
        session = self._session
        known = session is not None and (session.name, session.source) == (offer.session, peer)
        if session is None or not known or session.acked < offer.round - 1:
            raise InstarError("unknown-session", "this handoff has not begun here, or is over")
        return session

    def _check_holder(self, peer: str, epoch: int) -> None:
        known, holder = self._authority.epoch, self._authority.holder
        if self._authority.acting_epoch() is None and (peer, epoch) == (holder, known):
            return
        self.refused += 1
        if epoch < known:
            raise InstarError("stale-epoch", f"epoch {epoch} is over; this machine knows {known}")
        raise InstarError("not-holder", f"this machine does not know {peer} as holder of epoch {epoch}")

    def _take_board(self, source: str, session: str) -> None:
        """Have the board show this handoff: a new one, or the one that a wakeup here has asked for."""
        board, earlier = self._board, self._session
        again = earlier is not None and (board.session, source) == (earlier.name, earlier.source)
        if board.running and again:
            board.finish("aborted", f"{self._members.nickname(source)} began anew")
        if board.running and board.awaits(source):
            board.rename(session)
        else:
            board.begin("handoff", source, self._authority.me, session)

    def _on_step(self, peer: str, taken: HandoffStepTaken) -> None:
        session = self._session
        if session is not None and (session.name, session.source) == (taken.session, peer):
            if self._board.session == session.name and taken.step != "committed":
                self._board.follow(taken.step, taken.note)
        else:
            self.refused += 1

    # -- the end ----------------------------------------------------------------------------------------

    async def _watch(self, session: _Session) -> None:
        """Learn from the source how it ended; awake or not this machine sees for itself."""
        try:
            told = await self._wire.ended(session.source, session.name, self._times.total_s)
            stays, reason = told.outcome == "aborted", told.reason
        except PeerError as error:
            source = self._members.nickname(session.source)
            reason = f"{source} could not say how it ended: {error.message}"
            stays = session.acked < 2  # it passes nothing on that we have not acknowledged
        if not stays:
            await self._settle(session)
        if not self._is_awake(session):
            self._finish(session, "aborted" if stays else "failed", reason or "the lease has not come")

    async def _settle(self, session: _Session) -> None:
        """The lease may have been passed on to us: give it a moment to arrive."""
        try:
            async with asyncio.timeout(self._times.settle_s):
                while not self._is_awake(session) and self._authority.holder == session.source:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.info("handoff %s: the lease has not come", session.name)

    def _is_awake(self, session: _Session) -> bool:
        return self._authority.epoch > session.epoch and self._authority.acting_epoch() is not None

    def _on_lease(self) -> None:
        self._changed.set()
        if self._session is not None and self._is_awake(self._session):
            self._finish(self._session, "awake")

    def _finish(self, session: _Session, ending: Ending, reason: str = "") -> None:
        if self._board.running and self._board.session == session.name:
            self._board.finish(ending, reason)
        if self._session is session:
            self._session = None
