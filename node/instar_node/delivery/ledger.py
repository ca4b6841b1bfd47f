"""``MessageProcessingLedger``: what happened to every message, replicated, each key at most once.

Every change is an entry of the replicated log, stamped with the epoch in which this machine acts at that
instant; without one nothing is appended. What a change means is in ``steps``; what rows mean in ``rows``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from instar_node.clock import Clock, iso
from instar_node.contracts import Authority, Database, LogPosition, Placement
from instar_node.delivery import steps, tables
from instar_node.delivery.grants import Grants
from instar_node.delivery.log import ReplicatedLog
from instar_node.delivery.rows import Grant, MessageRow, Rank, line_order
from instar_node.delivery.state import TopicHead
from instar_node.delivery.steps import Incoming, Recorded
from instar_node.delivery.transaction import Transaction
from instar_node.errors import InstarError

T = TypeVar("T")
log = logging.getLogger("instar.delivery")


class MessageProcessingLedger:
    """The ledger of this machine. All methods belong to the event loop.

    Steps raise ``InstarError``: ``not-awake`` when this machine may not act now, ``already-replied`` and
    ``stale-grant`` when the message has moved on, or what the database says.
    """

    def __init__(
        self,
        database: Database,
        authority: Authority,
        clock: Clock,
        incomplete: Callable[[], frozenset[str]],
        believes: Callable[[Placement], bool] = lambda placement: True,
    ) -> None:
        """``incomplete`` names the machines whose older rows are missing, as the lease record says after a
        takeover from the bench or by force; answers that only they know may have been sent.

        ``believes(placement)`` says whether one that another machine hands up was written by a holder."""
        self.placements_refused = 0
        """Placements handed up that no holder wrote."""
        self._believes = believes
        self.log = ReplicatedLog(database)
        self._database = database
        self._authority = authority
        self._clock = clock
        self._incomplete = incomplete
        self._grants = Grants(self.log, self._require_open)

    async def load(self) -> None:
        """Read what is on disk; once, before anything else."""
        await self.log.load()

    # -- epochs -----------------------------------------------------------------------------------------

    async def ensure_open(self) -> int:
        """Make sure the epoch this machine acts in has begun in the log; returns it. Cheap when it has."""
        epoch = self._acting()
        if not self._is_open(epoch):
            step = partial(
                steps.open_epoch, epoch=epoch, machine=self._authority.me, incomplete=self._incomplete()
            )
            await self.log.submit(step, lambda: self._require(epoch))
        return epoch

    async def settled(self) -> None:
        """Return when everything that was begun before is durable or refused."""
        await self.log.submit(lambda tx: None)

    @property
    def machine(self) -> str:
        """This machine."""
        return self._authority.me

    @property
    def head(self) -> LogPosition:
        """The newest durable position."""
        return self.log.state.head.position

    @property
    def incomplete(self) -> frozenset[str]:
        """Machines whose rows of older epochs may still be missing here."""
        return self.log.state.incomplete

    def missing(self) -> frozenset[str]:
        """``incomplete`` as it is in the epoch in which this machine acts; before that has begun in the log,
        also whom the lease record names."""
        epoch = self._authority.acting_epoch()
        begun = epoch is not None and self._is_open(epoch)
        return self.incomplete if begun else self.incomplete | self._incomplete()

    # -- steps of a message -----------------------------------------------------------------------------

    async def record(self, new: Incoming) -> Recorded:
        """Record a message, or find it. Raises ``key-reused`` when the key carried another text."""
        epoch = self._acting()
        return await self.log.submit(
            lambda tx: steps.record(tx, epoch, new), lambda: self._require_open(epoch), new.key
        )

    def begin(self, row: MessageRow) -> Grant:
        """Grant the answering of a message; older grants of it end at once.

        Not waited for: the grant is a number never given before in this epoch, and any result comes after its
        entry in the log, or brings it along. If this entry is lost in a crash, the run died with this
        process; the message is still open and runs again. If it cannot be written (a full disk), it comes
        with the result.
        """
        return self._grants.give(row, self._acting())

    def newest_grant(self, row: MessageRow) -> Grant:
        """The newest grant of a message, in the log or on its way there."""
        return self._grants.newest(row)

    def current(self, key: str, grant: Grant) -> MessageRow | None:
        """The message, if it is still to be answered under this grant; ``None`` once somebody else answers,
        or an answer exists."""
        row = self.open_message(key)
        if row is None or row.rank >= Rank.RESERVED:
            return None
        return row if self._grants.newest(row) <= grant else None

    async def wait_for_person(self, key: str, grant: Grant) -> MessageRow:
        """The run ended with "a person will answer"."""
        with self._grants.ending(key, grant):
            return await self._step(
                lambda tx, epoch: steps.wait_for_person(tx, epoch, key, grant), grant.epoch
            )

    async def abandon(self, key: str, grant: Grant, reason: str) -> MessageRow:
        """The agent failed for good."""
        with self._grants.ending(key, grant):
            return await self._step(
                lambda tx, epoch: steps.abandon(tx, epoch, key, grant, reason), grant.epoch
            )

    async def reserve(
        self, key: str, grant: Grant, replies: tuple[str, ...], machine: str = ""
    ) -> tuple[MessageRow, LogPosition]:
        """Fix the whole answer, made on ``machine`` (empty: here); it may be sent once the returned position
        is replicated."""
        where = machine or self._authority.me
        with self._grants.ending(key, grant):
            return await self._step(
                lambda tx, epoch: (steps.reserve(tx, epoch, key, grant, replies, where), tx.head.position),
                grant.epoch,
            )

    async def answer(self, key: str, grant: Grant, replies: tuple[str, ...], machine: str = "") -> MessageRow:
        """Reserve and commit the whole answer, made on ``machine`` (empty: here), in one entry.

        Only where nobody outside gets it, and no other machine must know of it before people see it.
        """
        me = self._authority.me
        where, at = machine or me, iso(self._clock.wall())
        with self._grants.ending(key, grant):
            return await self._step(
                lambda tx, epoch: steps.answer(tx, epoch, key, grant, replies, where, at, me), grant.epoch
            )

    async def take_over(self, key: str) -> tuple[MessageRow, LogPosition]:
        """Put an answer reserved in an older epoch under ours."""
        return await self._step(lambda tx, epoch: (steps.take_over(tx, epoch, key), tx.head.position))

    async def delivered(self, key: str, mark: str, epoch: int) -> MessageRow:
        """A channel confirmed one piece of the answer. A fact: see ``commit``."""
        return await self._fact(lambda tx, e: steps.delivered(tx, e, key, mark), epoch)

    async def commit(self, key: str, digest: str, epoch: int) -> MessageRow:
        """All channels have the whole answer.

        That is a fact, not an effect: it is still recorded when the lease ended while the last send was under
        way, as long as no newer epoch has begun in this log. The next holder gets it with our other rows,
        and need not wonder.
        """
        at = iso(self._clock.wall())
        me = self._authority.me
        return await self._fact(lambda tx, e: steps.commit(tx, e, key, digest, at, me), epoch)

    async def advance_cursor(self, key: str) -> MessageRow:
        """The channel's position moved past this answered message."""
        return await self._step(lambda tx, epoch: steps.advance_cursor(tx, epoch, key))

    async def hold(self, key: str, reason: str) -> MessageRow:
        """Mark an answer undecided: a person has to say what becomes of it."""
        return await self._step(lambda tx, epoch: steps.hold(tx, epoch, key, reason))

    async def reject(self, key: str, reason: str) -> MessageRow:
        """A person decided that there will be no answer."""
        return await self._step(lambda tx, epoch: steps.reject(tx, epoch, key, reason))

    # -- placement --------------------------------------------------------------------------------------

    async def set_placement(self, placement: Placement) -> LogPosition:
        """Record where a topic runs. Raises ``stale-placement`` unless ``(epoch, n)`` is above the known."""
        return await self._step(lambda tx, epoch: steps.place(tx, epoch, placement))

    def placement(self, topic: str) -> Placement | None:
        """Where a topic runs, as far as it is known here."""
        return self.log.state.placements.get(topic)

    def placements(self) -> tuple[Placement, ...]:
        """All topics that were ever placed."""
        return tuple(self.log.state.placements.values())

    def channel_position(self, channel: str) -> str:
        """The channel's own position after the newest message it brought in; empty before the first."""
        return self.log.state.positions.get(channel, "")

    # -- knowledge of other machines --------------------------------------------------------------------

    async def adopt(
        self, machine: str, rows: Iterable[MessageRow], placements: Iterable[Placement]
    ) -> list[str]:
        """Join all that only ``machine`` knows into our log, at once; returns the keys that changed."""
        offered = list(placements)
        believed = [placement for placement in offered if self._believes(placement)]
        if len(believed) < len(offered):
            self.placements_refused += len(offered) - len(believed)
            log.warning(
                "%d placements of %s refused: no holder wrote them", len(offered) - len(believed), machine
            )
        return await self._step(lambda tx, epoch: steps.adopt(tx, epoch, machine, rows, believed))

    async def miss(self, machines: frozenset[str]) -> None:
        """Note machines whose older rows are missing here, besides those known when the epoch began."""
        if machines - self.incomplete:
            await self._step(lambda tx, epoch: steps.miss(tx, epoch, machines))

    def answered_unseen(self, row: MessageRow) -> bool:
        """Whether a machine that has not reported yet may have answered this message."""
        return not self.incomplete.isdisjoint(row.unheard)

    async def report(self, machine: str) -> LogPosition:
        """This machine has handed up all it had; returns the position after what that added."""

        def step(tx: Transaction, epoch: int) -> LogPosition:
            steps.report(tx, epoch, machine)
            return tx.head.position

        return await self._step(step)

    # -- reading ----------------------------------------------------------------------------------------

    async def message(self, key: str) -> MessageRow | None:
        """One message, open or not."""
        known = self.log.state.known(key)
        return known or await self._database.read(lambda c: tables.load_row(c, key))

    def open_message(self, key: str) -> MessageRow | None:
        """One message that has something still to be done; from memory."""
        return self.log.state.open.get(key)

    def open_messages(self, topic: str | None = None) -> list[MessageRow]:
        """All messages with something still to be done, oldest first in each topic."""
        rows = (r for r in self.log.state.open.values() if r.origin is not None)
        chosen = [r for r in rows if topic is None or (r.origin is not None and r.origin.topic == topic)]
        return sorted(chosen, key=line_order)

    def outbox(self) -> list[MessageRow]:
        """Answers reserved but not yet delivered, and those a person must decide."""
        return [r for r in self.open_messages() if r.rank in (Rank.RESERVED, Rank.UNDECIDED)]

    def topics(self) -> dict[str, TopicHead]:
        """The newest line of every topic."""
        return self.log.state.topics

    # -- inside -----------------------------------------------------------------------------------------

    async def _step(self, step: Callable[[Transaction, int], T], epoch: int | None = None) -> T:
        return await self._submit(step, self._acting() if epoch is None else epoch)

    def _submit(self, step: Callable[[Transaction, int], T], epoch: int) -> asyncio.Future[T]:
        return self.log.submit(lambda tx: step(tx, epoch), lambda: self._require_open(epoch))

    async def _fact(self, step: Callable[[Transaction, int], T], epoch: int) -> T:
        return await self.log.submit(lambda tx: step(tx, epoch), lambda: self._require_current(epoch))

    def _acting(self) -> int:
        epoch = self._authority.acting_epoch()
        if epoch is None:
            raise _not_awake()
        return epoch

    def _require(self, epoch: int) -> None:
        if self._authority.acting_epoch() != epoch:
            raise _not_awake()

    def _require_open(self, epoch: int) -> None:
        self._require(epoch)
        self._require_current(epoch)

    def _require_current(self, epoch: int) -> None:
        if not self._is_open(epoch):
            raise InstarError("stale-epoch", f"the ledger is not in epoch {epoch} of this machine")

    def _is_open(self, epoch: int) -> bool:
        state = self.log.state
        return state.head.epoch == epoch and state.opened_by == self._authority.me


def _not_awake() -> InstarError:
    return InstarError(
        "not-awake", "this machine is not awake now", "ask the awake machine, or wake this one up", status=409
    )
