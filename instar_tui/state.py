"""What the screens show: one picture of the mesh, kept fresh from the node's event stream.

``MeshState`` is the only holder of data. It fetches ``status()`` once, follows ``events()`` from there, and
fetches again when something changed: at once for what a person is waiting for, at most twice a second for
bulk. It tells one listener (the app), which hands the change to the screen in view. A node that answers
late is said to be waited for; one that is gone is shown and tried again until it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from instar_node.errors import InstarError

if TYPE_CHECKING:
    from instar_node.api.protocol import NodeApi
    from instar_node.api.types import HandoffResult, LeaseView, Machine, Status, TopicRow
    from instar_node.clock import Clock
    from instar_node.events import Event
    from instar_tui.embedding import Connection

log = logging.getLogger("instar.tui")

BULK_GAP_S = 0.5
URGENT_GAP_S = 0.1
SILENCE_S = 3.0
"""Without any event for this long the node is asked whether it is still there."""
SLOW_S = 1.5
"""An answer that takes longer than this is said to be waited for."""
ANSWER_WITHIN_S = 10.0
"""After this the node counts as gone, and is connected to anew."""
RETRY_S = (0.2, 0.5, 1.0, 2.0)
SAMPLES_MS = 10 * 60_000
"""How much lag history the charts keep."""
URGENT_KINDS = frozenset(
    {"lease", "handoff", "wakeup", "transfer", "pair", "alert", "split-brain", "drill", "update"}
)
ROLE_KINDS = frozenset({"handoff", "wakeup"})
"""Kinds of what moves the awake role: two words for the same steps."""
EVENTS_KEPT = 2_000

Link = Literal["connecting", "live", "waiting", "lost"]
Listener = Callable[[frozenset[str]], None]


@dataclass
class Operation:
    """A handoff or transfer this program asked for, drawn while it happens and kept when it is over."""

    kind: str
    title: str
    started: int
    topic: str = ""
    target: str = ""
    steps: list[tuple[str, float]] = field(default_factory=list)
    outcome: Literal["running", "done", "failed"] = "running"
    result: str = ""
    took_ms: float = 0.0
    own: bool = True
    since: int = 0
    """Number of the newest event before it began."""
    epoch: int = 0
    """The epoch in which it began."""


@dataclass(frozen=True)
class VersionGap:
    """The node runs another version than this program."""

    node: str
    here: str
    updated: bool
    """Whether the node changed under us: then what is installed is the node's version, else it is ours."""


@dataclass(frozen=True)
class Sample:
    """A lag at a time (ms on our clock)."""

    at_ms: int
    lag_ms: int


def _own_version() -> str:
    from instar_node.build import this_build  # not needed for the first frame

    return this_build().version


class MeshState:
    """The picture of the mesh and the task that keeps it true."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], clock: Clock | None = None) -> None:
        self._connect = connect
        self._given_clock = clock
        self.connection: Connection | None = None
        self.keep_baton: bool | None = None
        """What the person who leaves wants of an embedded, awake node; ``None``: as configured."""
        self._connecting: asyncio.Future[Connection] | None = None
        self.status: Status | None = None
        self.link: Link = "connecting"
        self.problem = ""
        self.hint = ""
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.events_seen = 0
        self.samples: dict[str, deque[Sample]] = {}
        self.activity: deque[int] = deque([0] * 60, maxlen=60)
        self.operation: Operation | None = None
        self.moving: dict[str, str] = {}
        self.watched_topic: str | None = None
        self.listener: Listener = lambda kinds: None
        self._taken_at = 0
        self._lost_at: int | None = None
        self._last_event: int | None = None
        self._kinds: set[str] = set()
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._counted_messages = 0
        self._version = ""
        self._first_version: str | None = None
        """What the node ran when it was first heard."""

    @cached_property
    def _clock(self) -> Clock:
        from instar_node.clock import SystemClock  # not needed for the first frame

        return self._given_clock or SystemClock()

    # -- reading ------------------------------------------------------------------------------------------

    @property
    def api(self) -> NodeApi:
        """The node; ``InstarError`` while there is none."""
        if self.connection is None:
            raise InstarError(
                "no-node", "the node is not ready yet", "wait a moment and try again", status=503
            )
        return self.connection.api

    @property
    def embedded(self) -> bool:
        return self.connection is not None and self.connection.embedded

    def now_ms(self) -> int:
        return self._clock.now() // 1_000

    def elapsed_ms(self) -> int:
        """Age of the picture; ages and countdowns in it have moved on by this much."""
        return max(0, self.now_ms() - self._taken_at)

    def lost_for_ms(self) -> int:
        """How long the node has given no answer; means nothing while the link is ``live``."""
        return 0 if self._lost_at is None else max(0, self.now_ms() - self._lost_at)

    def valid_for_ms(self) -> int:
        """Lease time left now."""
        if self.status is None:
            return 0
        lease = self.status.lease
        return max(0, lease.valid_for_ms - self.elapsed_ms()) if lease.expires else lease.valid_for_ms

    @property
    def draining(self) -> bool:
        """Whether something moves between two pictures, so that a timer is worth having."""
        if self.operation is not None and self.operation.outcome == "running":
            return True
        status = self.status
        return self.link != "live" or (
            status is not None and status.lease.expires and status.lease.state in ("held", "observed")
        )

    def me(self) -> Machine | None:
        return next((m for m in self.machines() if m.is_self), None)

    def holder_elsewhere(self) -> str | None:
        """Nickname of the machine that has the lease, where that is another one than this."""
        if self.status is None or self.status.lease.holder in (None, self.status.me.machine_id):
            return None
        return self.status.lease.holder_nickname

    def machines(self) -> list[Machine]:
        """Members: this machine, the awake one, those online, the others; by name."""
        rows = self.status.machines if self.status else []
        return sorted(
            rows, key=lambda m: (not m.is_self, m.role != "awake", not m.online, m.nickname.lower())
        )

    def nickname(self, machine_id: str | None) -> str:
        """The nickname of a machine id; the id itself when it is not known, nothing for no machine."""
        if machine_id is None:
            return ""
        rows = self.status.machines if self.status else []
        return next((m.nickname for m in rows if m.machine_id == machine_id), "") or machine_id

    def version_gap(self) -> VersionGap | None:
        """Whether the node, a daemon, is of another version than this program."""
        if self.status is None or self.embedded or self.status.me.version == self._version:
            return None
        node = self.status.me.version
        return VersionGap(node, self._version, updated=node != self._first_version)

    def topics(self) -> list[TopicRow]:
        return self.status.topics if self.status else []

    def standbys(self) -> list[Machine]:
        """Machines that could be handed the lease."""
        return [m for m in self.machines() if m.role == "standby" and m.online]

    def worst_lag_ms(self) -> int | None:
        """Lag of the standby that is furthest behind, among those that are online."""
        lags = [m.lag.ms for m in self.standbys() if m.lag is not None]
        return max(lags, default=None)

    # -- the task -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, follow, and mend; ends only when cancelled."""
        attempt = 0
        self._lost_at = self.now_ms()
        self._version = _own_version()  # read now: another may be installed while this one runs
        while True:
            try:
                if self.connection is None:
                    self._connecting = asyncio.ensure_future(self._connect())
                    self.connection = await asyncio.shield(self._connecting)
                await self._follow()
                attempt = 0
                await self._clock.sleep(RETRY_S[0])  # cut off for being slow: resume, but never in a hot loop
            except Exception as error:
                self._lost(error)
                await self._clock.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    async def close(self) -> None:
        """Let go of the node (and stop it, if it is ours), also of one that is just starting."""
        connection, self.connection = self.connection, None
        if connection is None and self._connecting is not None:
            with suppress(Exception):  # a start that failed was shown, and leaves nothing to close
                connection = await self._connecting
        if connection is not None:
            await connection.close(self.keep_baton)

    async def refresh(self) -> None:
        """Fetch the picture now; what an action calls after it is done."""
        self._take(await self._ask())

    async def _ask(self) -> Status:
        """The picture from the node; says so while it is waited for. Raises ``no-answer``."""
        asking = asyncio.ensure_future(self.api.status())
        try:
            if not (await asyncio.wait({asking}, timeout=SLOW_S))[0]:
                if self.link == "live":
                    self.link, self._lost_at = "waiting", self.now_ms() - round(SLOW_S * 1_000)
                    self.listener(frozenset({"link"}))
                await asyncio.wait({asking}, timeout=ANSWER_WITHIN_S - SLOW_S)
            if asking.done():
                return asking.result()
        finally:
            asking.cancel()
        raise InstarError(
            "no-answer",
            f"the node has not answered for {ANSWER_WITHIN_S:g} s",
            "it is stopped or very busy; it is asked again by itself",
        )

    async def _follow(self) -> None:
        status = await self._ask()
        resume = self._last_event
        restarted = resume is None or status.event < resume
        self.link, self.problem, self.hint = "live", "", ""
        self._last_event = status.event
        self._take(status)
        async with asyncio.TaskGroup() as group:  # whichever of the two fails ends the other
            refresher = group.create_task(self._keep_fresh())
            async for event in self.api.events(0 if restarted else resume):
                if event.kind == "gap" and event.n == 0:  # the daemon was restarted: its numbers begin anew
                    self._last_event = None
                    break
                self._on_event(event, known=event.n <= status.event)
            refresher.cancel()

    def _on_event(self, event: Event, *, known: bool) -> None:
        self._last_event = max(event.n, self._last_event or 0)
        if event.text and event.kind != "pulse":  # the others only say that something is worth fetching
            self.events.append(event)
            self.events_seen += 1
        if event.kind == "message":
            self._counted_messages += 1
        self._kinds.add(event.kind)
        self._dirty.set()
        if not known and self._is_urgent(event):
            self._note_step(event)
            self._urgent.set()

    def _is_urgent(self, event: Event) -> bool:
        topics = event.data.get("topics") or (event.data.get("topic"),)
        return event.kind in URGENT_KINDS or (self.watched_topic is not None and self.watched_topic in topics)

    def _note_step(self, event: Event) -> None:
        operation, step = self.operation, self._step_of(event)
        if operation is None or operation.outcome != "running" or not step:
            return
        if event.kind == operation.kind or {event.kind, operation.kind} == ROLE_KINDS:
            at_ms = event.data.get("at_ms")
            spent = float(at_ms) if isinstance(at_ms, int | float) else self.now_ms() - operation.started
            if all(step != name for name, _ in operation.steps):
                operation.steps.append((step, spent))

    def _step_of(self, event: Event) -> str:
        """The step an event tells of, with the machine where several take the same; empty where none."""
        data = event.data
        if event.kind == "drill" and "component" in data:
            return f"{self.nickname(str(data.get('peer')))} {data['component']}"
        step = str(data.get("step") or "")
        return f"{data.get('nickname')} {step}" if step and event.kind == "update" else step

    async def _keep_fresh(self) -> None:
        """Fetch after events: urgent ones at once, others gathered for half a second."""
        fetched = 0.0
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), SILENCE_S)
            gap = fetched + BULK_GAP_S - loop.time()
            if gap > 0 and not self._urgent.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), gap)
            if self._urgent.is_set():
                await asyncio.sleep(max(0.0, fetched + URGENT_GAP_S - loop.time()))
            self._dirty.clear()
            self._urgent.clear()
            fetched = loop.time()
            self._take(await self._ask())

    def _take(self, status: Status) -> None:
        self.status = status
        self._first_version = self._first_version or status.me.version
        self._taken_at = self.now_ms()
        self.link, self.problem, self.hint = "live", "", ""
        self._sample(status)
        self._follow_handoff(status.handoff)
        self._settle_late(status.lease)
        kinds, self._kinds = frozenset(self._kinds | {"status"}), set()
        self.listener(kinds)

    def _sample(self, status: Status) -> None:
        self.activity.append(self._counted_messages)
        self._counted_messages = 0
        for peer in status.livetail.peers:
            if peer.topic is not None:
                continue
            kept = self.samples.setdefault(peer.machine_id, deque())
            kept.append(Sample(self._taken_at, peer.behind.ms))
            while kept and kept[0].at_ms < self._taken_at - SAMPLES_MS:
                kept.popleft()

    def _follow_handoff(self, handoff: HandoffResult) -> None:
        """Draw a handoff that somebody else started, and the newest steps of ours."""
        operation = self.operation
        running = operation is not None and operation.outcome == "running"
        steps: list[tuple[str, float]] = [(step.step, step.at_ms) for step in handoff.steps]
        if handoff.outcome == "running":
            if operation is None or not running:
                title = f"handing the lease to {self.nickname(handoff.target) or 'another machine'}"
                operation = self.operation = Operation("handoff", title, self.now_ms(), own=False)
            if operation.kind in ROLE_KINDS:
                operation.steps = steps
        elif operation is not None and running and not operation.own:
            operation.outcome = "done" if handoff.outcome in ("awake", "already-awake") else "failed"
            operation.steps, operation.took_ms = steps, handoff.took_ms
            operation.result = handoff.reason or f"{handoff.holder_nickname or 'nobody'} is awake"

    def _settle_late(self, lease: LeaseView) -> None:
        """A handoff that was given up may take place after all; then that is said."""
        operation = self.operation
        if operation is None or operation.outcome != "failed" or operation.kind not in ROLE_KINDS:
            return
        if lease.holder_nickname == operation.target and lease.epoch > operation.epoch:
            operation.outcome = "done"
            operation.title, operation.result = (
                f"{operation.target} is awake, epoch {lease.epoch_text}",
                "late",
            )

    def _lost(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, InstarError | OSError | TimeoutError):
            log.warning("lost the node", exc_info=error)
        if self.link == "live":
            self._lost_at = self.now_ms()
        self.link = "lost"
        self.problem = (
            error.message if isinstance(error, InstarError) else (str(error) or type(error).__name__)
        )
        self.hint = error.hint if isinstance(error, InstarError) else ""
        self.listener(frozenset({"link"}))
