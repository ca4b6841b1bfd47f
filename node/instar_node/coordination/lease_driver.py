"""The lease in the running node: performs what ``LeaseCoordinator`` decides, and keeps it durably.

Everything that depends on durable state is sent after ``lease-state.json`` is on disk. All of it runs on the
node's event loop; the hub is asked in tasks of their own, so a hung hub never delays a promise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType

from instar_node.build import Build
from instar_node.clock import Clock, iso
from instar_node.config import LeaseSettings
from instar_node.contracts import Database, Members, Mesh, StateVoucher
from instar_node.coordination.baton import Baton
from instar_node.coordination.epoch_history import EpochHistory
from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.generations import Generations
from instar_node.coordination.http_lease_transport import (
    HttpLeaseTransport,
)
from instar_node.coordination.hub import Hub
from instar_node.coordination.hub_move import HubMove
from instar_node.coordination.hub_troubles import hub_error, of_another_mesh
from instar_node.coordination.hubs import Hubs
from instar_node.coordination.lease_changes import LeaseChanges
from instar_node.coordination.lease_coordinator import (
    AskPromises,
    Effect,
    LeaseCoordinator,
    ReadHub,
    SendClosing,
    SendSwap,
)
from instar_node.coordination.lease_peers import LeasePeers
from instar_node.coordination.lease_state import DurableLease, LeaseTiming, SwapKind
from instar_node.coordination.lease_store import (
    StoreUnavailable,
)
from instar_node.coordination.record import (
    HubPlace,
    KnownRecord,
    LeaseRecord,
    Signer,
    Verifier,
    is_authentic,
)
from instar_node.coordination.register_traffic import RegisterTraffic
from instar_node.coordination.split_brain import SplitBrain
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.storage.atomic import read_json, write_atomic

log = logging.getLogger("instar.lease")

FAILED_STEP_S = 0.2
"""How long the loop rests after a step that failed, as every step does while the disk refuses."""


class LeaseDriver:
    """Keeps one machine's lease going: decides at every turn, performs, stores, and tells who listens."""

    def __init__(
        self,
        *,
        me: str,
        incarnation: str,
        build: Build,
        settings: LeaseSettings,
        hubs: Hubs,
        sign: Signer,
        verify: Verifier,
        members: Members,
        mesh: Mesh,
        database: Database,
        clock: Clock,
        events: EventHub,
        durable_path: Path,
        eligible: bool = True,
    ) -> None:
        self._me = me
        self.hubs = hubs
        self.sign = sign
        self.verify = verify
        self._members = members
        self._mesh = mesh
        self._clock = clock
        self._events = events
        self._durable_path = durable_path
        self._history = EpochHistory(database)
        self.transport = HttpLeaseTransport(mesh)
        timing = LeaseTiming(
            settings.ttl_ms * 1_000,
            settings.round_ms * 1_000,
            settings.bench_ttl_ms * 1_000,
            settings.drift,
        )
        durable = read_json(durable_path, DurableLease) if durable_path.exists() else DurableLease()
        self.lease = FencedLease(
            me, incarnation, timing, durable, baton=hubs.founding.kind == "embedded", build=build
        )
        self.coordinator = LeaseCoordinator(
            self.lease, lambda: clock.token_hex(8), lambda: iso(clock.wall()), eligible=eligible
        )
        self.baton = Baton(self)
        self.generations = Generations(self)
        self.split_brain = SplitBrain(self)
        self.traffic = RegisterTraffic(self)
        self.peers = LeasePeers(self, self.transport, mesh, members, self._history)
        self.changes = LeaseChanges(self, events, members, self._history)
        self.move = HubMove(self, mesh, members, events)
        self._place = self.lease.hub
        self.missing: Callable[[], frozenset[str]] = self.named_incomplete
        """Set by the composition root: machines whose older rows are not in the ledger yet."""
        self.caught_up: Callable[[str], bool] = lambda machine: True
        """Set by the composition root: replication says this peer holds every row, both ways."""
        self._state: StateVoucher | None = None
        self._stored = durable
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    def vouch_for(self, state: StateVoucher) -> None:
        """Records of this machine name the state it vouches for from now on, and it takes over only with the
        state that the record before vouches for."""
        self._state = state
        self.coordinator.vouched = lambda: state.vouched
        self.coordinator.current = lambda: state.current
        state.on_current(self.poke)

    def on_own_state(self, record: LeaseRecord) -> LeaseRecord:
        """A forced record: the state it vouched for may lie on a machine that is gone, so ours counts."""
        if self._state is None:
            return record
        return msgspec.structs.replace(record, state_head=self._state.head or "")

    # -- Authority ---------------------------------------------------------------------------------

    @property
    def me(self) -> str:
        return self._me

    @property
    def hub(self) -> Hub:
        """Where the register lies."""
        return self.hubs.hub(self.lease.hub)

    @property
    def known(self) -> KnownRecord | None:
        """The newest record this machine knows of, with its version."""
        return self.lease.known

    @property
    def epoch(self) -> int:
        return self.lease.epoch

    @property
    def holder(self) -> str | None:
        return self.lease.known.record.holder if self.lease.known else None

    def acting_epoch(self) -> int | None:
        if self.lease.durable is not self._stored:
            return None  # what a crash would make us forget must be on disk before anything rests on it
        return self.lease.acting_epoch(self._clock.now())

    def holder_before(self, epoch: int) -> str | None:
        """Who held the newest epoch before this one; ``None`` when none is known here."""
        return self._history.holder_before(epoch)

    def acting_until(self) -> int:
        """Until when this machine may act if nothing renews that, microseconds of its clock; in the past when
        it may not act now."""
        return self.lease.deadline

    def ack_set(self) -> frozenset[str]:
        return self.lease.ack_set()

    def on_change(self, callback: Callable[[], None]) -> None:
        self.changes.on_change(callback)

    async def wait_until(self, true: Callable[[], bool], within: float) -> bool:
        """Wait for a condition over the lease; ``False`` when it did not come true in time."""
        return await self.changes.wait_until(true, within)

    # -- Peers (for the coordinator) ---------------------------------------------------------------

    def connected(self, machine: str) -> bool:
        return self.peers.connected(machine)

    def compared(self, machine: str) -> bool:
        return self.peers.compared(machine)

    def named_incomplete(self) -> frozenset[str]:
        """Machines whose older rows the newest record calls missing."""
        return frozenset(self.known.record.incomplete) if self.known is not None else frozenset()

    # -- life --------------------------------------------------------------------------------------

    async def start(self, *, found: bool) -> None:
        """Begin to take part; ``found`` writes the first record of a new mesh and waits for it.

        Raises:
            InstarError: the hub cannot be reached or already belongs to another mesh, while founding.
        """
        self.peers.serve()
        self.move.serve()
        self.coordinator.boot(self._clock.now())
        if found:
            await self._found()
        elif self.lease.baton:
            self.coordinator.on_own_register(await self._register(), self._clock.now())
        await self._history.load()
        self._loop_task = asyncio.create_task(self._run(), name="lease")
        self.after_step()

    async def stop(self) -> None:
        """Take no more part. Nothing is released: see ``release``."""
        self.coordinator.eligible = False
        tasks = [task for task in (self._loop_task, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.hubs.close()

    async def _register(self) -> KnownRecord | None:
        """What the register holds. Raises ``StoreUnavailable``."""
        return await (await self.hubs.at(self.lease.hub)).read()

    async def _found(self) -> None:
        try:
            store = await self.hubs.at(None)
            existing, hub_id = await store.read(), await store.hub_id()
        except StoreUnavailable as error:
            raise hub_error(error) from error
        if existing is not None and self.hub.kind != "embedded":
            raise of_another_mesh(self.hub.shown)
        self.coordinator.own_tip = existing.version if existing is not None else None
        place = None if self.hub.kind == "embedded" else HubPlace(self.hub.wire_url, hub_id or "")
        record = self.lease.founding_record(
            at=self.coordinator.at(), nonce=self.coordinator.nonce(), hub=place
        )
        self._place = place
        await self.swap_now(record, "contend")
        if not self.lease.may_act(self._clock.now()):
            raise InstarError(
                "hub-unreachable", f"the hub did not take the first lease: {self.hub_error}", status=502
            )

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            rest = 0.0 if self._step() else FAILED_STEP_S
            now = self._clock.now()
            pause = max(rest, (self.coordinator.next_wake(now) - now) / 1e6)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _step(self) -> bool:
        """Decide and perform; ``False`` when that failed."""
        try:
            self.persist()  # before anything that rests on it leaves, and before the decision to send it
            for effect in self.coordinator.tick(self._clock.now(), self):
                self._perform(effect)
            self.after_step()
        except Exception:
            # The loop must go on: without it nobody renews, benches or notices.
            log.exception("lease step failed")
            return False
        return True

    def _perform(self, effect: Effect) -> None:
        match effect:
            case ReadHub():
                self.spawn(self.traffic.read(effect))
            case SendSwap():
                self.spawn(self.traffic.send(effect))
            case AskPromises():
                self.spawn(self.peers.ask_round(effect))
            case SendClosing():
                self.spawn(self.baton.resend(effect.known))

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run a coroutine beside the loop; its failure is logged, never lost."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("lease task failed", exc_info=error)
        self.poke()

    def now(self) -> int:
        """Microseconds on this machine's own clock."""
        return self._clock.now()

    async def swap_now(
        self,
        record: LeaseRecord,
        kind: SwapKind,
        expected: str | UnsetType | None = UNSET,
        hub: HubPlace | UnsetType = UNSET,
    ) -> None:
        """Send a swap a command asked for, and see it settled or left open to be sent again. ``expected`` is
        the version it replaces, where that is not the newest one known, and ``hub`` the register it goes to,
        where that is not the present one."""
        effect = self.coordinator.begin(record, kind, self._clock.now())
        if expected is not UNSET:
            effect.swap.expected = expected
        if hub is not UNSET:
            effect.swap.hub = hub
        try:
            self.after_step()
        except Exception:
            # It rests on what could not be stored, so it never leaves, and nothing waits for its outcome.
            self.coordinator.on_unsent(self._clock.now())
            raise
        await self.traffic.send(effect)

    def read_now(self) -> None:
        """Look at the register now: somebody has reason to think that it has changed."""
        self.coordinator.read_now(self._clock.now())
        self.poke()

    async def tip(self) -> str | None:
        """The version that the register holds now, whoever made it. Raises ``StoreUnavailable``.

        A new generation must be above all that was ever written. In a split brain the lines are known; what
        is learned then is that another machine has healed it.
        """
        seen, lease = await self._register(), self.lease
        if seen is not None and (lease.durable.evidence is None or lease.ends_dispute(seen.record)):
            self.learn(seen)
        return seen.version if seen is not None else None

    def nickname(self, machine: str) -> str:
        return self._members.nickname(machine)

    def publish(self, kind: str, text: str, **data: object) -> None:
        """One event for the screens."""
        self._events.publish(kind, text, **data)

    @property
    def hub_error(self) -> str | None:
        """Why the hub did not answer last time; ``None`` when it did."""
        return self.traffic.error

    def poke(self) -> None:
        """Something changed: decide anew."""
        self._wake.set()

    def persist(self) -> None:
        """Store durable state if it changed. Raises ``InstarError`` when the disk refuses: then this machine
        does not act, and collects no promises that would keep others from acting."""
        if self.lease.durable is not self._stored:
            self.coordinator.able = False
            write_atomic(self._durable_path, msgspec.json.encode(self.lease.durable))
            self._stored = self.lease.durable
            self.coordinator.able = True

    # -- what is learned ---------------------------------------------------------------------------

    def is_ours(self, seen: KnownRecord) -> bool:
        """Whether a member signed it."""
        return is_authentic(seen.record, self.verify)

    def learn(self, seen: KnownRecord) -> None:
        """Take in a record from a message, if a member signed it."""
        if not self.is_ours(seen):
            self.coordinator.count("unsigned_records")
            return
        if seen.record.order < self.lease.order:
            self.coordinator.count("late_records")
        self.lease.learn(seen, self._clock.now())
        self.persist()
        self.after_step()
        self.poke()

    # -- change ------------------------------------------------------------------------------------

    def after_step(self) -> None:
        """Persist, and tell the other parts when holder, epoch, acting or electorate changed."""
        if self._place != self.lease.hub:
            self._place = self.lease.hub
            self.coordinator.on_hub_moved(self._clock.now())
            self.move.note(self.hub)
            self.poke()
        self.persist()
        self.split_brain.tell_all_once()
        self.changes.look()

    def require_acting(self) -> int:
        """The epoch, or ``InstarError("not-awake")`` naming the awake machine."""
        epoch = self.acting_epoch()
        if epoch is None:
            holder = self._members.nickname(self.holder) if self.holder else "no machine"
            raise InstarError(
                "not-awake", "this machine is not awake", f"{holder} is: run this there", status=409
            )
        return epoch
