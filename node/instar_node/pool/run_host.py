"""The owner's side of a remote run: runs the agent under a grant and brings the result to the holder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from instar_node.background import Background
from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import AgentRunner, Authority, Mesh, PeerError, RunRequest, RunResult
from instar_node.errors import InstarError
from instar_node.events import EventHub
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

log = logging.getLogger("instar.pool")

WATCH_EVERY_S = 0.05
"""How often lapsed grants are looked for; part of the time that ``remote_grant.KILL_GRACE_US`` allows."""
DELIVER_WITHIN_S = 2.0
RETRY_S = 0.25
RESULTS_KEPT = 64
"""Finished answers kept for a holder that asks again, such as the next one."""


class _Hosted:
    """One message being worked on here, or done."""

    def __init__(self, order: RunOrder) -> None:
        self.order = order
        self.deadline = 0
        self.lapsed = False
        self.adopted = False
        """Taken over by this machine's own router: nothing is delivered."""
        self.result: RunResult | None = None
        self.task: asyncio.Task[None] | None = None
        self.delivery: asyncio.Task[None] | None = None

    @property
    def answered(self) -> bool:
        """Whether there is an answer that a repeated order may have."""
        return self.result is not None and self.result.outcome == "ok"

    def granted(self, order: RunOrder) -> None:
        """Go on under this grant (the same, or a newer one)."""
        self.order = order
        self.extended(order.since)

    def extended(self, since: int) -> None:
        """The grant lasts anew from an instant of our clock."""
        self.deadline = max(self.deadline, since + self.order.ttl_us)

    def same_grant(self, order: RunOrder) -> bool:
        own, other = self.order, order
        return (own.request.epoch, own.request.n, own.ownership) == (
            other.request.epoch,
            other.request.n,
            other.ownership,
        )


class RunHost:
    """Takes orders of the holder of the highest epoch known, and of nobody else.

    When a grant is not kept alive, the run is killed: by then the holder counts on it. A repeated order for
    the same message is answered with the run that is under way or with its answer, also under a new holder's
    grant; only what failed or was cancelled runs anew.
    """

    def __init__(
        self, runner: AgentRunner, mesh: Mesh, authority: Authority, clock: Clock, events: EventHub
    ) -> None:
        self._runner = runner
        self._mesh = mesh
        self._authority = authority
        self._clock = clock
        self._events = events
        self._hosted: dict[str, _Hosted] = {}
        self._watch = Background("pool-grants", self._watch_grants)
        self._ordered = asyncio.Event()
        mesh.on_request(RunTime, self._on_time)
        mesh.on_request(RunOrder, self._on_order)
        mesh.on_notice(RunKeep, self._on_keep)
        mesh.on_notice(RunCancel, self._on_cancel)

    async def start(self) -> None:
        """Begin to watch over grants."""
        self._watch.start()

    async def stop(self) -> None:
        """Kill what runs for others; nothing more is delivered."""
        await self._watch.stop()
        tasks: list[asyncio.Task[None]] = []
        for key, hosted in self._hosted.items():
            self._runner.cancel(key)
            tasks += [task for task in (hosted.task, hosted.delivery) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def needs_history(self, topic: str) -> bool:
        """Whether this machine's own agent wants the conversation with a request."""
        return self._runner.needs_history(topic)

    def acts(self, topic: str) -> bool:
        """Whether this machine's own agent may act on the world."""
        return self._runner.acts(topic)

    async def run_here(self, request: RunRequest) -> RunResult:
        """Run for ourselves, as the holder; takes over a run or an answer from when another was."""
        hosted = self._hosted.pop(request.key, None)
        if hosted is not None and hosted.task is not None:
            under_way, hosted.adopted = hosted.result is None, True
            if hosted.delivery is not None:
                hosted.delivery.cancel()
            await asyncio.shield(hosted.task)
            if hosted.result is not None and not hosted.lapsed and (under_way or hosted.answered):
                return hosted.result
        return await self._runner.run(request)

    def deadline(self, key: str) -> int | None:
        """Until when a run for another machine may go on, microseconds; ``None`` if it is for ourselves."""
        hosted = self._hosted.get(key)
        return hosted.deadline if hosted is not None and hosted.result is None else None

    def cancel_here(self, key: str) -> bool:
        """Kill a run on this machine; ``True`` if there was one."""
        return self._runner.cancel(key)

    async def _on_time(self, sender: str, _: RunTime) -> RunTimeIs:
        return RunTimeIs(self._clock.now())

    async def _on_order(self, sender: str, order: RunOrder) -> RunAccepted:
        self._require_holder(sender, order.request.epoch)
        key, now = order.request.key, self._clock.now()
        self._require_lasting(order)
        while (hosted := self._hosted.get(key)) is not None:
            if hosted.lapsed and hosted.result is None and hosted.task is not None:
                await asyncio.shield(hosted.task)  # still dying; never two at once
                self._require_lasting(order)
                continue
            if hosted.lapsed or not (hosted.result is None or hosted.answered or hosted.same_grant(order)):
                break
            hosted.granted(order)
            if hosted.result is None:
                return RunAccepted("running", now)
            self._deliver_soon(hosted)
            return RunAccepted("finished", now)
        hosted = self._hosted[key] = _Hosted(order)
        hosted.granted(order)
        self._ordered.set()
        hosted.task = asyncio.create_task(self._run(hosted), name=f"pool-run {key}")
        return RunAccepted("started", now)

    def _require_lasting(self, order: RunOrder) -> None:
        if not 0 <= self._clock.now() - order.since < order.ttl_us:
            key = order.request.key
            raise InstarError("late-order", f"the order for {key} came too late: its grant has ended")

    def _on_keep(self, sender: str, keep: RunKeep) -> None:
        if not self._believed(sender, keep.epoch):
            return
        hosted, now = self._hosted.get(keep.key), self._clock.now()
        held = hosted is not None and not hosted.lapsed and hosted.order.request.epoch == keep.epoch
        if hosted is not None and held:
            hosted.extended(min(keep.since, now))
        self._mesh.send(sender, RunAlive(keep.epoch, keep.key, held, now))

    def _on_cancel(self, sender: str, cancel: RunCancel) -> None:
        if self._believed(sender, cancel.epoch):
            self._runner.cancel(cancel.key)

    async def _run(self, hosted: _Hosted) -> None:
        try:
            result = await self._runner.run(hosted.order.request)
        except InstarError as error:
            result = RunResult("failed", error=error.message)
        except Exception as error:
            log.exception("the agent runner broke on message %s", hosted.order.request.key)
            result = RunResult("failed", error=f"the agent runner broke: {error}")
        hosted.result = result
        if hosted.lapsed or hosted.adopted:
            return
        self._deliver_soon(hosted)
        for key in list(self._finished())[:-RESULTS_KEPT]:
            del self._hosted[key]

    def _finished(self) -> Iterator[str]:
        return (key for key, hosted in self._hosted.items() if hosted.result is not None)

    def _deliver_soon(self, hosted: _Hosted) -> None:
        if hosted.delivery is not None:
            hosted.delivery.cancel()
        hosted.delivery = asyncio.create_task(self._deliver(hosted))

    async def _deliver(self, hosted: _Hosted) -> None:
        """Bring a result to whoever holds the lease, until it is taken or the grant has lapsed.

        An answer that nobody took stays here for a holder that asks again.
        """
        while self._clock.now() < hosted.deadline:
            request, holder = hosted.order.request, self._authority.holder
            assert hosted.result is not None
            done = RunDone(request.key, request.epoch, request.n, hosted.order.ownership, hosted.result)
            if holder is not None and holder != self._mesh.me:
                try:
                    await self._mesh.request(holder, done, RunDoneTaken, within=DELIVER_WITHIN_S)
                    return
                except PeerError as error:
                    log.info("result of %s not taken by %s: %s", request.key, holder, error)
                    if error.code == "stale-grant":
                        return
            await self._clock.sleep(RETRY_S)

    async def _watch_grants(self) -> None:
        """Kill the runs whose grant was not kept alive; runs until cancelled."""
        while True:
            if all(hosted.result is not None for hosted in self._hosted.values()):
                self._ordered.clear()
                await self._ordered.wait()  # an idle machine is not woken twenty times a second
            await self._clock.sleep(WATCH_EVERY_S)
            now = self._clock.now()
            for key, hosted in list(self._hosted.items()):
                if hosted.result is None and not hosted.lapsed and now >= hosted.deadline:
                    hosted.lapsed = True
                    late_ms = (now - hosted.deadline) * 1_000 // MICROS_PER_SECOND
                    self._runner.cancel(key)
                    topic = hosted.order.request.topic
                    self._events.publish(
                        "pool", f"stopped topic {topic}: its grant was not renewed", key=key, late_ms=late_ms
                    )

    def _believed(self, sender: str, epoch: int) -> bool:
        return sender == self._authority.holder and epoch == self._authority.epoch

    def _require_holder(self, sender: str, epoch: int) -> None:
        if not self._believed(sender, epoch):
            raise InstarError(
                "not-holder", f"{sender} is not known here as the holder of epoch {epoch}", status=409
            )
