"""Carrying transfers out: drain, bring the conversation along, pin, hand over.

Moves to a machine that is away are only pinned here; ``queued_moves`` carries them out."""

from __future__ import annotations

from collections import Counter
from typing import Literal, Protocol

import msgspec

from instar_node.clock import Clock
from instar_node.contracts import Authority, Members, Placement
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.pool.description import TopicPlacementDescription, describe
from instar_node.pool.machine_pool import MachinePoolRegistry
from instar_node.pool.nicknames import RelocationNicknameSet
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.placement import owner_now, ownership
from instar_node.pool.session_router import SessionRouter
from instar_node.pool.tail_first import TailFirst
from instar_node.pool.transfer_plan import Go, TransferByNickname, TransferFacts
from instar_node.pool.transfer_report import Progress, TransferRequest, TransferResult

SETTLE_S = 0.2
"""A run that ends by itself within this time is not worth asking a person about."""
DRAIN_S = 10.0
"""How long a cancelled run may take to be gone; a remote one may have to lapse."""
POLL_S = 0.005


class TopicWork(Protocol):
    """What delivery knows of a topic."""

    def mid_reply(self, topic: str) -> bool:
        """Whether an answer in this topic is reserved and not yet committed: it is being sent."""


class _Move(msgspec.Struct, frozen=True):
    """The last move of a topic, to rate-limit the next and to take this one back."""

    before: Placement | None
    came_from: str | None
    at: int
    undone: bool


class Transfers:
    """Moves topics between machines. Only the holder can; the others pass the wish on to it."""

    def __init__(
        self,
        router: SessionRouter,
        pins: TopicPlacementPinStore,
        pool: MachinePoolRegistry,
        nicknames: RelocationNicknameSet,
        members: Members,
        authority: Authority,
        work: TopicWork,
        tail: TailFirst,
        clock: Clock,
        events: EventHub,
    ) -> None:
        self._router = router
        self._pins = pins
        self._pool = pool
        self._nicknames = nicknames
        self._members = members
        self._authority = authority
        self._work = work
        self._tail = tail
        self._clock = clock
        self._events = events
        self._planner = TransferByNickname()
        self._moving: dict[str, str] = {}
        self._claimed: set[str] = set()
        """Topics somebody is about to move: one wish at a time."""
        self._attempts: Counter[str] = Counter()
        self._last: dict[str, _Move] = {}

    def moving_to(self, topic: str) -> str | None:
        """The machine a topic is just being moved to."""
        return self._moving.get(topic)

    def describe(self, topic: str) -> TopicPlacementDescription:
        """Where a topic runs and why, as this machine knows it."""
        return describe(
            topic,
            self._pins.placement(topic),
            me=self._authority.me,
            holder=self._authority.holder,
            epoch=self._authority.epoch,
            away=self._pool.away,
            nickname=self._members.nickname,
        )

    async def transfer(self, request: TransferRequest) -> TransferResult:
        """Move a topic and pin it there; returns when it has moved, or waits for a machine that is away.

        Raises ``InstarError``: those of ``TransferByNickname.plan`` (``gate-shut`` among them),
        ``nothing-to-undo``, ``not-awake``, ``transfer-running``, ``drain-timeout``, ``tail-behind``: the
        topic is where it was. Only after ``lease-lost`` the next holder has to be asked where it is.
        """
        self._require_awake()
        topic = request.topic
        if topic in self._claimed:
            raise InstarError("transfer-running", f"topic {topic} is being moved already", "wait a moment")
        self._claimed.add(topic)
        try:
            return await self._transfer(topic, request)
        finally:
            self._claimed.discard(topic)

    async def _transfer(self, topic: str, request: TransferRequest) -> TransferResult:
        undo_of = self._undo_of(topic) if request.undo else None
        await self._settle(topic)
        facts = self._facts(request, undo_of)
        plan = self._planner.plan(facts, request.confirm)
        progress = Progress(topic, facts.target_nickname, self._clock, self._events)
        if not isinstance(plan, Go):
            async with self._pins.changing(topic):
                if plan.pin:
                    await self._pins.pin(topic, plan.target, online=facts.target_online)
                    progress.step("pinned")
                placement = await self._pins.agreed(topic)
            return self._result("noop", facts, placement, progress)
        self._attempts[topic] += plan.confirmed
        self._moving[topic] = plan.target
        try:
            with self._router.hold(topic):
                placement = await self._move(facts, plan, undo_of, progress)
        finally:
            del self._moving[topic]
        self._last[topic] = _Move(facts.placement, facts.owner, self._clock.now(), undone=request.undo)
        waits = self._owner(placement) is None  # also when the target went away in the last moment
        return self._result("queued" if waits else "moved", facts, placement, progress)

    async def free_orphans(self) -> None:
        """Unpin every topic that is pinned to, or just moving to, a machine that was removed or became a
        witness: it would wait for ever. Raises what ``unpin`` raises."""
        members = {member.machine_id for member in self._members.active() if not member.witness}
        pinned = {one.topic: one.pinned_to for one in self._pins.placements() if one.pinned_to is not None}
        for topic, machine in {**pinned, **self._moving}.items():
            if machine not in members:
                await self.unpin(topic)

    async def unpin(self, topic: str) -> TopicPlacementDescription:
        """Take a topic's pin away. It stays where it runs; if it waits for a machine, the holder gets it."""
        self._require_awake()
        async with self._pins.changing(topic):
            placement = self._pins.placement(topic)
            if placement is not None and placement.pinned_to is not None:
                await self._pins.unpin(topic, self._owner(placement) or self._authority.me)
                self._events.publish("transfer", f"topic {topic} unpinned", topic=topic, step="unpinned")
        self._router.reconsider()
        return self.describe(topic)

    # -- the steps ---------------------------------------------------------------------------------------

    async def _move(
        self, facts: TransferFacts, plan: Go, undo_of: _Move | None, progress: Progress
    ) -> Placement:
        topic = facts.topic
        if facts.running and not plan.queued:
            await self._tail.bring(plan.target)  # nothing is stopped for a move that cannot be
        await self._drain(topic)
        progress.step("drained", "stopped the running work" if facts.running else "")
        if not plan.queued:
            await self._tail.bring(plan.target)
            progress.step("tail_synced")
        before = undo_of.before if undo_of is not None else None
        async with self._pins.changing(topic):
            if undo_of is not None and (before is None or before.pinned_to is None):
                placement = await self._pins.unpin(topic, plan.target)
                assert placement is not None, "a topic that was moved has a placement"
            else:
                placement = await self._pins.pin(topic, plan.target, online=not plan.queued)
        progress.step("queued" if plan.queued else "moved")
        return placement

    async def _settle(self, topic: str) -> None:
        """Give a short run the time to end by itself."""
        end = self._clock.now() + int(SETTLE_S * 1_000_000)
        while self._busy(topic) and self._clock.now() < end:
            await self._clock.sleep(POLL_S)

    async def _drain(self, topic: str) -> None:
        """Stop what runs and wait until it is gone; nothing new begins meanwhile."""
        for key in self._router.running(topic):
            self._router.cancel(key)
        end = self._clock.now() + int(DRAIN_S * 1_000_000)
        while list(self._router.running(topic)):
            if self._clock.now() >= end:
                raise InstarError(
                    "drain-timeout",
                    f"the running work of topic {topic} did not end within {DRAIN_S:g} s",
                    "try again in a moment",
                )
            await self._clock.sleep(POLL_S)
        self._require_awake()

    def _busy(self, topic: str) -> bool:
        return bool(list(self._router.running(topic))) or self._work.mid_reply(topic)

    # -- the facts ---------------------------------------------------------------------------------------

    def _facts(self, request: TransferRequest, undo_of: _Move | None) -> TransferFacts:
        topic, placement = request.topic, self._pins.placement(request.topic)
        wanted = request.to if undo_of is None else self._origin(undo_of)
        name = request.to if undo_of is None else self._members.nickname(wanted)
        target = self._nicknames.resolve(wanted)
        last = self._last.get(topic)
        return TransferFacts(
            topic=topic,
            name=name,
            target=target,
            target_nickname=name if target is None else self._members.nickname(target),
            target_online=target is not None and self._pool.online(target),
            known=tuple(self._nicknames.known()),
            owner=self._owner(placement),
            epoch=self._authority.epoch,
            placement=placement,
            running=tuple(self._router.running(topic)),
            mid_reply=self._work.mid_reply(topic),
            last_move=None if last is None else last.at,
            undo=undo_of is not None,
            now=self._clock.now(),
            attempt=self._attempts[topic],
            barred=None if target is None else self._pool.barred(target),
        )

    def _undo_of(self, topic: str) -> _Move:
        last = self._last.get(topic)
        if last is None or last.undone:
            raise InstarError(
                "nothing-to-undo",
                f"topic {topic} has no move that could be taken back",
                "a move can be taken back once, while its holder stays awake",
            )
        return last

    def _origin(self, move: _Move) -> str:
        """Where a topic goes when its last move is taken back."""
        if move.before is not None and move.before.pinned_to is not None:
            return move.before.pinned_to
        there = move.came_from is not None and self._pool.online(move.came_from)
        return move.came_from if move.came_from is not None and there else self._authority.me

    def _owner(self, placement: Placement | None) -> str | None:
        return owner_now(
            placement,
            holder=self._authority.holder,
            epoch=self._authority.epoch,
            online=self._pool.online,
        )

    def _require_awake(self) -> None:
        if self._authority.acting_epoch() is None:
            raise InstarError("not-awake", "only the awake machine moves topics", "ask the awake one")

    def _result(
        self,
        outcome: Literal["moved", "queued", "noop"],
        facts: TransferFacts,
        placement: Placement | None,
        progress: Progress,
    ) -> TransferResult:
        owner = self._owner(placement)
        return TransferResult(
            outcome=outcome,
            topic=facts.topic,
            owner=owner,
            owner_nickname=None if owner is None else self._members.nickname(owner),
            source=facts.owner,
            ownership_epoch=None if placement is None else ownership(placement),
            took_ms=progress.elapsed_ms(),
            steps=tuple(progress.steps),
            pending_reason=self.describe(facts.topic).pending_reason,
        )
