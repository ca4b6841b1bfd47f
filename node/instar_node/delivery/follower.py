"""The standby's side of replication: follow the holder of the highest epoch known, and nobody else."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from instar_node.contracts import Authority, LogPosition, Mesh
from instar_node.delivery.log import MARKS, ReplicatedLog
from instar_node.delivery.transaction import Transaction
from instar_node.delivery.wire import (
    BATCH_BYTES,
    ReplicaAck,
    ReplicaAppend,
    ReplicaBegin,
    ReplicaBroken,
    ReplicaFollow,
    ReplicaMarks,
    ReplicaOffer,
    ReplicaReady,
    ReplicaRows,
    ReplicaWanted,
)
from instar_node.errors import InstarError

log = logging.getLogger("instar.delivery")


class _Session(NamedTuple):
    holder: str
    epoch: int
    number: int


class Follower:
    """Appends what the holder streams; acknowledges what is synced here."""

    def __init__(self, mesh: Mesh, authority: Authority, ledger_log: ReplicatedLog) -> None:
        self._mesh = mesh
        self._authority = authority
        self._log = ledger_log
        self._session: _Session | None = None
        self._parted: _Session | None = None
        """The session for which our log was cut back to what its holder has."""
        self._asked: tuple[str, int] | None = None
        self._has_orphans = True
        self.refused = 0
        """Messages refused because they came from a machine that is not the holder we know."""

    def start(self) -> None:
        """Begin to answer."""
        self._mesh.on_request(ReplicaBegin, self._begin)
        self._mesh.on_request(ReplicaFollow, self._follow)
        self._mesh.on_request(ReplicaOffer, self._offer)
        self._mesh.on_notice(ReplicaAppend, self._append)

    def refresh(self) -> None:
        """Authority or a tunnel changed: drop a holder deposed, and ask a new one to begin."""
        holder, epoch = self._authority.holder, self._authority.epoch
        if self._session is not None and self._session[:2] != (holder, epoch):
            self._session = None
        if holder is None or holder == self._mesh.me or not self._mesh.connected(holder):
            self._asked = None
        elif self._asked != (holder, epoch) and self._mesh.send(holder, ReplicaWanted(epoch)):
            self._asked = (holder, epoch)

    # -- meeting a holder -------------------------------------------------------------------------------

    async def _begin(self, peer: str, message: ReplicaBegin) -> ReplicaMarks:
        self._check_holder(peer, message.epoch)
        self._session = None
        wanted = [mark.position for mark in message.marks]
        marks = await self._log.submit(
            lambda tx: tx.marks(wanted, MARKS), lambda: self._check_holder(peer, message.epoch)
        )
        self._check_holder(peer, message.epoch)
        self._session = _Session(peer, message.epoch, message.session)
        return ReplicaMarks(tuple(marks))

    async def _follow(self, peer: str, message: ReplicaFollow) -> ReplicaReady:
        session = _Session(peer, message.epoch, message.session)
        cut, cuts = await self._log.submit(
            lambda tx: (tx.truncate(message.common) if tx.head != message.common else 0, tx.cuts()),
            lambda: self._check_parting(session),
        )
        if cut:
            log.warning("%d entries that only this machine had are handed up to %s", cut, peer)
        self._has_orphans = True
        return ReplicaReady(cut, tuple(cuts))

    async def _offer(self, peer: str, message: ReplicaOffer) -> ReplicaRows:
        session = _Session(peer, message.epoch, message.session)
        rows, placements, more = await self._log.submit(
            lambda tx: tx.orphans(message.after, BATCH_BYTES), lambda: self._check_session(session)
        )
        return ReplicaRows(tuple(rows), tuple(placements), more)

    # -- following --------------------------------------------------------------------------------------

    def _append(self, peer: str, message: ReplicaAppend) -> None:
        session = _Session(peer, message.epoch, message.session)
        future = self._log.submit(lambda tx: self._ingest(tx, message), lambda: self._check_session(session))
        future.add_done_callback(lambda done: self._answer(session, done))

    def _ingest(self, tx: Transaction, message: ReplicaAppend) -> tuple[LogPosition, bool]:
        """On the writer thread: the position reached, and whether rows handed up are still outstanding."""
        tx.ingest(message.entries)
        outstanding = self._has_orphans and tx.head.position < message.taken
        if self._has_orphans and not outstanding:
            tx.forget_orphans()
        return tx.head.position, outstanding

    def _answer(self, session: _Session, done: asyncio.Future[tuple[LogPosition, bool]]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            position, self._has_orphans = done.result()
            self._mesh.send(session.holder, ReplicaAck(session.epoch, session.number, position))
            return
        log.info("entries of epoch %d from %s refused: %s", session.epoch, session.holder, error)
        if session == self._session:
            self._session = None
        self._mesh.send(session.holder, ReplicaBroken(session.number, str(error)))

    # -- whom to believe --------------------------------------------------------------------------------

    def _check_holder(self, peer: str, epoch: int) -> None:
        """Only the holder of the highest epoch known, and never while we ourselves act."""
        known = self._authority.epoch
        if epoch < known or self._authority.acting_epoch() is not None:
            self.refused += 1
            raise InstarError("stale-epoch", f"epoch {epoch} is over; this machine knows {known}")
        if epoch > known or peer != self._authority.holder:
            self.refused += 1
            raise InstarError("not-holder", f"this machine does not know {peer} as holder of epoch {epoch}")

    def _check_parting(self, session: _Session) -> None:
        """Once a session: cut again, the log would lose entries that we have acknowledged since."""
        self._check_session(session)
        if session == self._parted:
            raise InstarError("stale-session", "this stream was followed already")
        self._parted = session

    def _check_session(self, session: _Session) -> None:
        self._check_holder(session.holder, session.epoch)
        if session != self._session:
            raise InstarError("stale-session", "this stream was not begun here, or a newer one was")
