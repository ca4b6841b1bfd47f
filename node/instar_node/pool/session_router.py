"""``SessionRouter``: runs each message on its topic's machine, wherever that is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Authority, Mesh, PeerError, Placement, RunRequest, RunResult
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.pool.machine_pool import MachinePoolRegistry
from instar_node.pool.messages import (
    RunAccepted,
    RunAlive,
    RunCancel,
    RunDone,
    RunDoneTaken,
    RunKeep,
    RunOrder,
    RunTime,
    RunTimeIs,
)
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.placement import choose_owner, ownership
from instar_node.pool.remote_grant import RemoteGrant, Step
from instar_node.pool.run_host import RunHost

log = logging.getLogger("instar.pool")

ORDER_WITHIN_S = 2.0
REFUSED_PAUSE_S = 0.1
"""Pause before an order is repeated that the owner refused, say because it has not heard of our lease yet."""
PLACE_PAUSE_S = 0.25


class _Dispatch:
    """One message on its way through the router."""

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.placement: Placement | None = None
        """Set while the agent may be running; ``None`` while the message waits."""
        self.grant: RemoteGrant | None = None
        self.result: RunResult | None = None
        self.cancelled = False
        self.claimed: str | None = None
        """The machine whose load this message counts for."""
        self.changed = asyncio.Event()


class SessionRouter:
    """Implements ``contracts.AgentRunner`` for the dispatcher, over all machines of the pool.

    A message of a topic pinned to a machine that is away waits here until it is back, the pin is changed, or
    the run is cancelled. A result counts only under the ownership epoch and grant it was ordered with.

    Args:
        holder_before: Who held the newest epoch before a given one, if that is known.
        grant_ttl_us: How long an owner may go on without hearing from us: the lease's ttl.
        drift: Assumed clock-rate error of a machine.
    """

    def __init__(
        self,
        host: RunHost,
        pins: TopicPlacementPinStore,
        pool: MachinePoolRegistry,
        mesh: Mesh,
        authority: Authority,
        clock: Clock,
        events: EventHub,
        *,
        holder_before: Callable[[int], str | None],
        grant_ttl_us: int,
        drift: float,
    ) -> None:
        self._host = host
        self._pins = pins
        self._pool = pool
        self._mesh = mesh
        self._authority = authority
        self._clock = clock
        self._events = events
        self._holder_before = holder_before
        self._grant_ttl_us = grant_ttl_us
        self._drift = drift
        self._active: dict[str, _Dispatch] = {}
        self._leading = False
        self._leading_since = 0
        """When this machine last became the holder: no earlier holder extends a grant after that."""
        self._held: Counter[str] = Counter()
        self._claims: Counter[str] = Counter()
        pool.dispatched = self._claims.__getitem__
        mesh.on_request(RunDone, self._on_done)
        mesh.on_notice(RunAlive, self._on_alive)
        mesh.on_peer(self._on_peer)
        authority.on_change(self._on_authority)

    async def run(self, request: RunRequest) -> RunResult:
        """Run the message where its topic lives, now or when that machine is back.

        ``cancelled`` when the lease was lost, the topic moved, or somebody cancelled: run it again then.
        """
        if request.key in self._active:
            raise InstarError("already-running", f"message {request.key} is being run already")
        dispatch = self._active[request.key] = _Dispatch(request)
        inherited = self._inherited(request)
        try:
            while True:
                placement = inherited or await self._place(dispatch)
                if placement is None:
                    return RunResult("cancelled")
                result = await self._run_at(dispatch, placement, inherited is not None)
                inherited = dispatch.placement = dispatch.grant = None
                if result is not None:
                    return result
                self._events.publish(
                    "pool",
                    f"topic {request.topic}: its machine is gone; its message runs anew",
                    topic=request.topic,
                    key=request.key,
                    lost=placement.owner,
                )
        finally:
            self._claim(dispatch, None)
            del self._active[request.key]

    def needs_history(self, topic: str) -> bool:
        """Only this machine's own agent is known; whatever runs elsewhere may need it."""
        return self._host.needs_history(topic) if self._is_here(topic) else True

    def acts(self, topic: str) -> bool:
        """As ``needs_history``. A topic that leaves this machine after this was asked is run elsewhere only
        when its new placement is on the whole electorate; what the log held by then is there, too."""
        return self._host.acts(topic) if self._is_here(topic) else True

    def _is_here(self, topic: str) -> bool:
        placement = self._pins.placement(topic)
        return placement is not None and placement.owner == self._mesh.me

    def cancel(self, key: str) -> bool:
        """Kill the run of this message, here or there, or end its wait."""
        dispatch = self._active.get(key)
        if dispatch is None or dispatch.cancelled:
            return False
        dispatch.cancelled = True
        dispatch.changed.set()
        placement, epoch = dispatch.placement, dispatch.request.epoch
        if placement is not None and placement.owner == self._mesh.me:
            self._host.cancel_here(key)
        elif placement is not None and placement.owner is not None and not self._fenced(dispatch):
            self._mesh.send(placement.owner, RunCancel(epoch, key))
        return True

    def running(self, topic: str | None = None) -> Iterable[str]:
        """Keys whose agent may be at work now, here or elsewhere; not those that wait for a machine."""
        return [
            key
            for key, dispatch in self._active.items()
            if dispatch.placement is not None and topic in (None, dispatch.request.topic)
        ]

    def waiting(self, topic: str) -> int:
        """How many messages wait for this topic's machine."""
        return sum(
            1
            for dispatch in self._active.values()
            if dispatch.placement is None and dispatch.request.topic == topic
        )

    @contextmanager
    def hold(self, topic: str) -> Iterator[None]:
        """While this is open, no run of the topic begins: it is about to move."""
        self._held[topic] += 1
        try:
            yield
        finally:
            self._held[topic] -= 1
            if not self._held[topic]:
                del self._held[topic]
            self.reconsider()

    def reconsider(self) -> None:
        """Look again at every message that waits: a pin, a machine or the lease has changed."""
        for dispatch in self._active.values():
            dispatch.changed.set()

    # -- where -------------------------------------------------------------------------------------------

    def _inherited(self, request: RunRequest) -> Placement | None:
        """Where the agent may be at work on this message under a grant of an earlier lease: it goes on there,
        or is seen to have ended, before the message is placed anew. What the earlier holder ran itself has
        ended with its lease."""
        placement = self._pins.placement(request.topic)
        if not request.begun_before or placement is None:
            return None
        ended = (None, self._mesh.me, self._holder_before(request.epoch))
        return None if placement.owner in ended else placement

    async def _place(self, dispatch: _Dispatch) -> Placement | None:
        """The placement to run under, as soon as there is one; ``None`` when the run is off."""
        topic = dispatch.request.topic
        while not (dispatch.cancelled or self._fenced(dispatch)):
            dispatch.changed.clear()
            try:
                placement = await self._owner(dispatch)
            except InstarError as error:  # the electorate did not take the placement in time
                log.warning("topic %s could not be placed yet: %s", topic, error)
                await self._clock.sleep(PLACE_PAUSE_S)
                continue
            if placement.owner is not None and topic not in self._held:
                return placement
            await dispatch.changed.wait()
        return None

    async def _owner(self, dispatch: _Dispatch) -> Placement:
        """Choose the topic's machine, and have it written where that changes anything."""
        topic = dispatch.request.topic
        placed = self._pins.placed(topic, self._choose(dispatch))
        if placed is not None:  # nearly always: a topic stays where it is
            return placed
        async with self._pins.changing(topic):
            return await self._pins.place(topic, self._choose(dispatch))

    def _choose(self, dispatch: _Dispatch) -> str | None:
        """The topic's machine. The choice counts for that machine's load at once, so that messages which come
        together do not all go to the one that was idle before."""
        self._claim(dispatch, None)
        owner = choose_owner(
            self._pins.placement(dispatch.request.topic),
            holder=self._mesh.me,
            epoch=self._authority.epoch,
            candidates=self._pool.candidates(),
        )
        self._claim(dispatch, owner)
        return owner

    def _claim(self, dispatch: _Dispatch, machine: str | None) -> None:
        if dispatch.claimed is not None:
            self._claims[dispatch.claimed] -= 1
        dispatch.claimed = machine
        if machine is not None:
            self._claims[machine] += 1

    # -- running -----------------------------------------------------------------------------------------

    async def _run_at(self, dispatch: _Dispatch, placement: Placement, inherited: bool) -> RunResult | None:
        """Run under this placement; ``None`` when its machine was lost. ``inherited``: it may already be at
        work there for an earlier holder."""
        owner = placement.owner
        assert owner is not None
        dispatch.placement = placement
        provenance = msgspec.structs.replace(dispatch.request.provenance, machine=owner)
        request = msgspec.structs.replace(dispatch.request, provenance=provenance)
        if owner == self._mesh.me:
            try:
                result = await self._host.run_here(request)
            except InstarError as error:
                return RunResult("failed", error=error.message)
        else:
            order = RunOrder(request, ownership(placement), self._grant_ttl_us, since=0)
            since = self._leading_since if inherited else None
            remote = await self._run_there(dispatch, owner, order, since)
            if remote is None:
                return None
            result = remote
        current = self._pins.placement(dispatch.request.topic)
        if current is not None and ownership(current) != ownership(placement):
            log.warning("result of %s refused: topic %s has moved", request.key, request.topic)
            return RunResult("cancelled")
        return msgspec.structs.replace(result, machine=owner) if result.outcome == "ok" else result

    async def _run_there(
        self, dispatch: _Dispatch, owner: str, order: RunOrder, inherited: int | None
    ) -> RunResult | None:
        """Keep a run on another machine alive until it ends; ``None`` when the machine was lost.

        When the lease is lost the run is left to the next holder, who takes it over or lets it lapse.
        """
        grant = dispatch.grant = RemoteGrant(self._grant_ttl_us, self._drift, inherited)
        dispatch.result = None
        while dispatch.result is None:
            if self._fenced(dispatch):
                return RunResult("cancelled")
            dispatch.changed.clear()
            now = self._clock.now()
            step = grant.step(now, self._mesh.connected(owner))
            if step is Step.LOST:
                return RunResult("cancelled") if dispatch.cancelled else None
            if step is Step.ORDER:
                await self._order(grant, owner, order)
                continue
            if step is Step.KEEP and not dispatch.cancelled:
                grant.extending(now)
                self._mesh.send(owner, RunKeep(order.request.epoch, order.request.key, grant.since))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grant.wait_us(self._clock.now()) / MICROS_PER_SECOND):
                    await dispatch.changed.wait()
        return dispatch.result

    async def _order(self, grant: RemoteGrant, owner: str, order: RunOrder) -> None:
        try:
            time = await self._mesh.request(owner, RunTime(), RunTimeIs, within=ORDER_WITHIN_S)
            grant.extending(self._clock.now())
            order = msgspec.structs.replace(order, since=time.now)
            accepted = await self._mesh.request(owner, order, RunAccepted, within=ORDER_WITHIN_S)
            grant.accepted(self._clock.now(), accepted.now)
        except PeerError as error:
            log.info("order for %s not accepted by %s: %s", order.request.key, owner, error)
            await self._clock.sleep(REFUSED_PAUSE_S)

    def _fenced(self, dispatch: _Dispatch) -> bool:
        return self._authority.acting_epoch() != dispatch.request.epoch

    # -- what the owners say -----------------------------------------------------------------------------

    async def _on_done(self, sender: str, done: RunDone) -> RunDoneTaken:
        """An owner brings a result. Refused as ``stale-grant`` when it was ordered under another one."""
        if self._authority.acting_epoch() is None:
            raise InstarError("not-holder", "this machine is not awake")
        dispatch = self._active.get(done.key)
        if dispatch is None or dispatch.placement is None or dispatch.grant is None:
            raise InstarError("not-dispatched", f"message {done.key} is not being run for this machine")
        granted = (dispatch.request.epoch, dispatch.request.n, ownership(dispatch.placement))
        if (done.epoch, done.n, done.ownership) != granted or sender != dispatch.placement.owner:
            raise InstarError("stale-grant", f"the result of {done.key} comes under a grant that has ended")
        dispatch.result = done.result
        dispatch.changed.set()
        return RunDoneTaken()

    def _on_alive(self, sender: str, alive: RunAlive) -> None:
        dispatch = self._active.get(alive.key)
        if dispatch is None or dispatch.placement is None or dispatch.placement.owner != sender:
            return
        if dispatch.grant is None or alive.epoch != dispatch.request.epoch:
            return
        if alive.held:
            dispatch.grant.alive(self._clock.now(), alive.now)
        else:
            dispatch.grant.forgotten()
            dispatch.changed.set()

    def _on_peer(self, peer: str, up: bool) -> None:
        for dispatch in self._active.values():
            placement = dispatch.placement
            if not up and dispatch.grant and placement is not None and placement.owner == peer:
                dispatch.grant.forgotten()
        self.reconsider()

    def _on_authority(self) -> None:
        leading = self._authority.acting_epoch() is not None
        if leading and not self._leading:
            self._leading_since = self._clock.now()
        self._leading = leading
        for key, dispatch in self._active.items():
            placement = dispatch.placement
            if self._fenced(dispatch) and placement is not None and placement.owner == self._mesh.me:
                self._host.cancel_here(key)
        self.reconsider()
