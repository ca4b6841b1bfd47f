"""The lease in the running node: performs what ``LeaseCoordinator`` decides, and obeys persons' commands.

Everything that depends on durable state is sent after ``lease-state.json`` is on disk. All of it runs on the
node's event loop; the hub is asked in tasks of their own, so a hung hub never delays a promise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

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
    HistoryReply,
    HistoryRequest,
    HistoryRow,
    HttpLeaseTransport,
    LeaseNotice,
    PromiseReply,
    PromiseRequest,
    TokenReply,
    YieldToken,
)
from instar_node.coordination.hub import Hub
from instar_node.coordination.hub_move import HubMove
from instar_node.coordination.hub_troubles import hub_error, of_another_mesh, told
from instar_node.coordination.hubs import Hubs
from instar_node.coordination.lease_coordinator import (
    AskPromises,
    Effect,
    LeaseCoordinator,
    ReadHub,
    SendClosing,
    SendSwap,
)
from instar_node.coordination.lease_state import DurableLease, LeaseTiming, OpenSwap, SwapKind
from instar_node.coordination.lease_store import (
    Candidate,
    LeaseStore,
    Lost,
    StoreUnavailable,
    SwapOutcome,
    Unknown,
    Won,
)
from instar_node.coordination.lease_view import LeaseSnapshot, if_lost, lease_state, valid_for
from instar_node.coordination.record import (
    HubPlace,
    KnownRecord,
    LeaseRecord,
    Signer,
    Verifier,
    epoch_text,
    is_authentic,
    sign_record,
)
from instar_node.coordination.split_brain import SplitBrain
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.storage.atomic import read_json, write_atomic

log = logging.getLogger("instar.lease")
T = TypeVar("T")
TOKEN_PURPOSE = b"instar-lease-token/1:"


class LeaseService:
    """Implements ``contracts.Authority``; the one object of the node that knows who is awake."""

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
        self.register_alarm: str | None = None
        """What is wrong with the register though the hub answers; nobody can take over meanwhile."""
        self.move = HubMove(self, mesh, members, events)
        self._place = self.lease.hub
        self.missing: Callable[[], frozenset[str]] = self.named_incomplete
        """Set by the composition root: machines whose older rows are not in the ledger yet."""
        self.caught_up: Callable[[str], bool] = lambda machine: True
        """Set by the composition root: replication says this peer holds every row, both ways."""
        self._state: StateVoucher | None = None
        self._compared: set[str] = set()
        self._stored = durable
        self._candidate: Candidate | None = None
        self._attempt = 0
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._last_view: object = None
        self._last_epoch = self.epoch
        self._round_took: int | None = None
        self._hub_latency: int | None = None
        self._hub_error: str | None = None
        self._last_write: int | None = None
        self._stopping = False

    def vouch_for(self, state: StateVoucher) -> None:
        """Records of this machine name the state it vouches for from now on."""
        self._state = state
        self.coordinator.vouched = lambda: state.vouched

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
        self._callbacks.append(callback)

    # -- Peers (for the coordinator) ---------------------------------------------------------------

    def connected(self, machine: str) -> bool:
        return self._mesh.connected(machine)

    def compared(self, machine: str) -> bool:
        return machine in self._compared

    def named_incomplete(self) -> frozenset[str]:
        """Machines whose older rows the newest record calls missing."""
        return frozenset(self.known.record.incomplete) if self.known is not None else frozenset()

    # -- life --------------------------------------------------------------------------------------

    async def start(self, *, found: bool) -> None:
        """Begin to take part; ``found`` writes the first record of a new mesh and waits for it.

        Raises:
            InstarError: the hub cannot be reached or already belongs to another mesh, while founding.
        """
        self._serve()
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
        self._stopping = True
        self.coordinator.eligible = False
        tasks = [task for task in (self._loop_task, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.hubs.close()

    def _serve(self) -> None:
        self.transport.serve(
            promise=self._on_promise_request,
            token=self._on_token,
            closing=self.baton.on_closing,
            history=self._on_history_request,
            notice=self._on_notice,
            split_brain=self.split_brain.on_notice,
        )
        self.move.serve()
        self._mesh.on_peer(self._on_peer)

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
                "hub-unreachable", f"the hub did not take the first lease: {self._hub_error}", status=502
            )

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._step()
            now = self._clock.now()
            pause = (self.coordinator.next_wake(now) - now) / 1e6
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _step(self) -> None:
        try:
            self.persist()  # before anything that rests on it leaves, and before the decision to send it
            for effect in self.coordinator.tick(self._clock.now(), self):
                self._perform(effect)
            self.after_step()
        except Exception:
            # The loop must go on: without it nobody renews, benches or notices.
            log.exception("lease step failed")

    def _perform(self, effect: Effect) -> None:
        match effect:
            case ReadHub():
                self.spawn(self._read_hub(effect))
            case SendSwap():
                self.spawn(self._send_swap(effect))
            case AskPromises():
                self.spawn(self._round(effect))
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
        self.after_step()
        await self._send_swap(effect)

    def read_now(self) -> None:
        """Look at the register now: somebody has reason to think that it has changed."""
        self.coordinator.read_now(self._clock.now())
        self.poke()

    async def tip(self) -> str | None:
        """The version that the register holds now, whoever made it. Raises ``StoreUnavailable``.

        A new generation must be above all that was ever written; in a split brain the lines are known.
        """
        seen = await self._register()
        if seen is not None and self.lease.durable.evidence is None:
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
        return self._hub_error

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

    # -- effects -----------------------------------------------------------------------------------

    async def _read_hub(self, effect: ReadHub) -> None:
        began, before = self._clock.now(), self.lease.order
        try:
            seen = await (await self.hubs.at(effect.hub)).read()
        except StoreUnavailable as error:
            self._unread(error)
            return
        seen = self._judged(seen)
        now = self._clock.now()
        self._hub_latency, self._hub_error = now - began, None
        self.coordinator.on_read(seen, before, began, now)
        self.after_step()

    def _unread(self, error: StoreUnavailable) -> None:
        """The hub is away, or it answers and what it shows is no lease record at all."""
        foreign = error.code == "hub-foreign" and error.found is not None and self.known is not None
        self._hub_error = None if foreign else told(error)
        if foreign:
            self._set_alarm(f"{error}, but epoch {epoch_text(self.epoch)} is known: it was replaced")
        self.coordinator.on_read_failed(self._clock.now())

    def _judged(self, seen: KnownRecord | None) -> KnownRecord | None:
        """What a register shows, if a member signed it. Nothing, or something else, where a lease is known
        to be is an alarm: it stops nobody who is valid by promises, and nobody can take over."""
        genuine = seen if seen is not None and self._is_ours(seen) else None
        alarm = None
        if genuine is None and self.known is not None and not (self.lease.baton or self.known.record.moves):
            what = "no lease" if seen is None else "a lease that no member signed"
            alarm = f"the hub shows {what}, but epoch {epoch_text(self.epoch)} is known: it was replaced"
        self._set_alarm(alarm)
        return genuine

    def _set_alarm(self, alarm: str | None) -> None:
        if alarm == self.register_alarm:
            return
        self.register_alarm = alarm
        self._events.publish("alert", alarm or "the hub shows the lease again")
        log.log(logging.INFO if alarm is None else logging.ERROR, "%s", alarm or "the register is well again")

    def _is_ours(self, seen: KnownRecord) -> bool:
        return is_authentic(seen.record, self.verify)

    async def _send_swap(self, effect: SendSwap) -> None:
        swap = effect.swap
        try:
            store = await self.hubs.at(swap.hub)
            candidate = await self._prepared(store, swap.record)
        except StoreUnavailable as error:
            self._hub_error = told(error)
            self._not_sent(swap)
        else:
            if self.lease.open is not swap:
                return  # settled by what was learned meanwhile, before it left
            sent = self._clock.now()
            outcome = await store.compare_and_swap(swap.expected, candidate)
            if self.lease.open is swap:
                self._settle(outcome, sent)
            else:
                self._overtaken(outcome)
        self.after_step()
        self.poke()

    async def _prepared(self, store: LeaseStore, record: LeaseRecord) -> Candidate:
        """The signed candidate of a record; the same one whenever it is sent again."""
        if self._candidate is None or self._candidate.record.nonce != record.nonce:
            self._attempt = 0
            self._candidate = await store.prepare(sign_record(record, self.sign))
        return self._candidate

    def _not_sent(self, swap: OpenSwap) -> None:
        if self.lease.open is not swap:
            return
        if self._candidate is not None and self._candidate.record.nonce == swap.record.nonce:
            self._attempt += 1  # an earlier attempt did leave, and may have landed
            self.coordinator.on_unknown(self._clock.now(), self._attempt)
        else:
            self.coordinator.on_unsent(self._clock.now())

    def _settle(self, outcome: SwapOutcome, sent: int) -> None:
        now, coordinator = self._clock.now(), self.coordinator
        if isinstance(outcome, Won):
            self._hub_latency, self._hub_error, self._last_write = now - sent, None, now
            coordinator.on_won(outcome.known, now)
            self.persist()
            self.announce()
        elif isinstance(outcome, Lost):
            coordinator.on_lost(self._judged(outcome.known), now)
        else:
            self._hub_error = outcome.why
            self._attempt += 1
            coordinator.on_unknown(now, self._attempt)

    def _overtaken(self, outcome: SwapOutcome) -> None:
        """What became of a swap that was settled while it was under way; another may be open by now."""
        seen = None if isinstance(outcome, Unknown) else outcome.known
        if seen is not None:
            self.learn(seen)

    async def _round(self, ask: AskPromises) -> None:
        replies = [self._ask_one(machine, ask) for machine in ask.machines]
        await asyncio.gather(*replies)
        self.coordinator.on_round_over()
        self._round_took = self._clock.now() - ask.began

    async def _ask_one(self, machine: str, ask: AskPromises) -> None:
        reply = await self.transport.ask_promise(machine, ask.known, ask.within / 1e6)
        now = self._clock.now()
        if reply is None:
            self.coordinator.on_miss(machine, now)
        elif reply.refusal is None:
            self.coordinator.on_promise(machine, ask.known.version, ask.began, now)
        else:
            self.coordinator.count("promises_refused")
            if reply.newest is not None:
                self.learn(reply.newest)
        self.after_step()

    # -- messages ----------------------------------------------------------------------------------

    async def _on_promise_request(self, peer: str, request: PromiseRequest) -> PromiseReply:
        if not self._is_ours(request.known):
            return PromiseReply("not-authentic", self.known)
        refusal = self.lease.answer_promise(peer, request.known, self._clock.now())
        self.persist()
        self.after_step()
        newer = self.known if self.known and self.known.version != request.known.version else None
        return PromiseReply(refusal, newer)

    def _on_notice(self, peer: str, notice: LeaseNotice) -> None:
        self._compared.add(peer)
        if notice.known is not None:
            self.learn(notice.known)
        self.poke()

    async def _on_token(self, peer: str, token: YieldToken) -> TokenReply:
        signed = TOKEN_PURPOSE + f"{token.version}:{token.successor}".encode()
        genuine = token.successor == self._me and self.verify(peer, signed, token.signature)
        taken = genuine and self.lease.accept_token(token.version, peer)
        self.poke()
        return TokenReply(taken)

    async def _on_history_request(self, peer: str, request: HistoryRequest) -> HistoryReply:
        return HistoryReply(tuple(self._history.rows[:200]))

    def _on_peer(self, machine: str, up: bool) -> None:
        if up:
            self.transport.notify(machine, self.known)
            self.split_brain.tell(machine)
            self.spawn(self._compare_history(machine))
        else:
            self._compared.discard(machine)
        self.poke()

    async def _compare_history(self, machine: str) -> None:
        await self._history.merge(await self.transport.ask_history(machine, 5.0))

    def learn(self, seen: KnownRecord) -> None:
        """Take in a record from a message, if a member signed it."""
        if not self._is_ours(seen):
            self.coordinator.count("unsigned_records")
            return
        if seen.record.order < self.lease.order:
            self.coordinator.count("late_records")
        self.lease.learn(seen, self._clock.now())
        self.persist()
        self.after_step()
        self.poke()

    def announce(self) -> None:
        """Tell every connected machine the newest record."""
        for machine in self.connected_members():
            self.transport.notify(machine, self.known)

    def connected_members(self) -> list[str]:
        """The other machines that can be told something now."""
        members = [member.machine_id for member in self._members.active()]
        return [machine for machine in members if machine != self._me and self._mesh.connected(machine)]

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
        view = (
            self.known.version if self.known else None,
            self.acting_epoch(),
            self.ack_set(),
            self.lease.durable.evidence,
        )
        if view == self._last_view:
            return
        self._last_view = view
        if self.epoch != self._last_epoch and self.known is not None:
            self._last_epoch = self.epoch
            self._new_epoch(self.known.record)
        else:
            self._events.publish("lease", "", epoch=self.epoch)
        for callback in self._callbacks:
            callback()
        asyncio.ensure_future(self._notify_waiters())  # noqa: RUF006 - nothing depends on when it ends

    def _new_epoch(self, record: LeaseRecord) -> None:
        row = HistoryRow(record.epoch, record.holder, record.reason, record.at)
        self.spawn(self._history.merge((row,)))
        nickname = self._members.nickname(record.holder)
        text = f"{nickname} is awake, epoch {epoch_text(record.epoch)} ({record.reason})"
        self._events.publish("lease", text, epoch=record.epoch, holder=record.holder, reason=record.reason)

    async def _notify_waiters(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def wait_until(self, true: Callable[[], bool], within: float) -> bool:
        """Wait for a condition over the lease; ``False`` when it did not come true in time."""
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(true)
        except TimeoutError:
            return true()
        return True

    # -- commands ----------------------------------------------------------------------------------

    def require_acting(self) -> int:
        """The epoch, or ``InstarError("not-awake")`` naming the awake machine."""
        epoch = self.acting_epoch()
        if epoch is None:
            holder = self._members.nickname(self.holder) if self.holder else "no machine"
            raise InstarError(
                "not-awake", "this machine is not awake", f"{holder} is: run this there", status=409
            )
        return epoch

    async def admit(self, machine: str) -> KnownRecord:
        """Take a joiner into the record, benched until it has caught up: one swap.

        Raises:
            InstarError: ``not-awake``, or ``hub-unreachable`` when the swap did not land in time.
        """
        self.require_acting()
        self.coordinator.membership.wishes.admit.add(machine)
        self.coordinator.membership.wishes.expel.discard(machine)
        self.poke()

        def admitted() -> bool:
            own = self.lease.holding
            return own is not None and machine in {*own.record.electorate, *own.record.benched}

        if not await self.wait_until(admitted, 15.0):
            self.coordinator.membership.wishes.admit.discard(machine)
            raise InstarError("hub-unreachable", "the hub did not take the admission in time", status=502)
        self.coordinator.membership.wishes.admit.discard(machine)
        assert self.known is not None
        return self.known

    async def expel(self, machine: str) -> None:
        """Take a machine out of electorate and bench: one swap. Raises as ``admit``."""
        self.require_acting()
        self.coordinator.membership.wishes.expel.add(machine)
        self.poke()

        def gone() -> bool:
            own = self.lease.holding
            return own is not None and machine not in {*own.record.electorate, *own.record.benched}

        if not await self.wait_until(gone, 15.0):
            raise InstarError("hub-unreachable", "the hub did not take the removal in time", status=502)

    async def bring_in(self, machine: str, within: float) -> None:
        """Wait until a machine is in the electorate; the first step of a handoff.

        Raises:
            InstarError: ``not-in-sync`` when it did not catch up in time.
        """
        self.require_acting()
        self.coordinator.membership.hurry(machine)
        self.poke()

        def inside() -> bool:
            own = self.lease.holding
            return own is not None and self.lease.open is None and machine in own.record.electorate

        if not await self.wait_until(inside, within):
            nickname = self._members.nickname(machine)
            raise InstarError("not-in-sync", f"{nickname} has not caught up yet", "try again in a moment")

    async def pass_to(self, machine: str, within: float) -> int:
        """The last step of a handoff: give up durably, then hand over; returns the epoch that was seen.

        Raises:
            InstarError: ``not-awake`` (nothing was given up), ``declined`` (embedded hub: awake again at a
                later epoch), ``handoff-failed`` (given up, but the successor has not been seen to hold).
        """
        epoch = self.require_acting()
        own = self.lease.holding
        assert own is not None
        assert own.version is not None
        if self.lease.open is not None or machine not in own.record.electorate:
            raise InstarError("not-in-sync", "the electorate is changing", "try again in a moment")
        if self.lease.baton:
            return await self.baton.pass_to(machine, within)
        self.lease.cease(own.version)
        self.after_step()
        signature = self.sign(TOKEN_PURPOSE + f"{own.version}:{machine}".encode())
        token = YieldToken(own.version, machine, signature)
        await self.transport.give_token(machine, token, within)

        def taken() -> bool:
            return self.epoch > epoch

        if not await self.wait_until(taken, within):
            raise InstarError("handoff-failed", "the successor has not taken the lease yet")
        return self.epoch

    async def release(self) -> None:
        """Give the lease up so that another may take it at once; an embedded lease stays here.

        Waits until the hub took the release, or raises ``InstarError("hub-unreachable")``: then the lease
        runs out by itself.
        """
        self.coordinator.eligible = False
        own = self.lease.holding
        if self.lease.baton or own is None or own.version is None:
            return
        if not await self.wait_until(lambda: self.lease.open is None, 1.0):
            raise InstarError("hub-unreachable", "an earlier swap is still open; the lease will run out")
        own = self.lease.holding
        if own is None or own.version is None:
            return
        record = self.lease.next_record(
            reason="released", at=self.coordinator.at(), nonce=self.coordinator.nonce(), state="released"
        )
        self.lease.cease(own.version)
        await self.swap_now(record, "release")
        self.announce()

    async def take_over(self, within: float) -> int:
        """A person wants this machine awake and the holder cannot be reached: wait by the rules, then swap.

        Raises:
            InstarError: ``cannot-take-over`` with the reason and the way out.
        """
        before = self.epoch
        due = self.lease.may_contend_at(self._clock.now())
        if isinstance(due, str):
            raise self._cannot_take_over(due)
        self.coordinator.eligible = True
        self.poke()

        def mine() -> bool:
            return self.epoch > before and self.acting_epoch() is not None

        if not await self.wait_until(mine, within):
            raise self._cannot_take_over("not-taken")
        return self.epoch

    def _cannot_take_over(self, why: str) -> InstarError:
        holder = self._members.nickname(self.holder) if self.holder else "the holder"
        texts = {
            "needs-the-baton": (
                f"the lease lies on {holder}'s own disk (embedded hub), so only {holder} can pass it on",
                f"start {holder} again; if it is gone for good, `instar wakeup --force` starts a new "
                "generation here, and `instar hub URL` then gives automatic failover",
            ),
            "split-brain": (
                f"everybody stopped: {self.lease.durable.evidence}",
                "choose the machine whose line is to go on and run `instar lease heal` there",
            ),
            "not-a-member": ("this machine is not in the lease's electorate", "see `instar machines`"),
            "incompatible": (
                f"{holder} ran a version that shares no protocol with this one",
                f"install a version here that works with {holder}'s: `instar update --status` shows both",
            ),
            "not-taken": (
                "the lease could not be taken in time",
                "the hub may be unreachable, or another machine was faster: see `instar lease`",
            ),
        }
        message, hint = texts.get(why, (f"this machine may not take the lease: {why}", "see `instar lease`"))
        return InstarError("cannot-take-over", message, hint, extra={"why": why})

    async def force(self, vouched: tuple[str, ...]) -> int:
        """See ``Generations.force``."""
        return await self.generations.force(vouched)

    async def heal(self, confirmed: bool, vouched: tuple[str, ...]) -> int:
        """See ``Generations.heal``."""
        return await self.generations.heal(confirmed, vouched)

    def on_slow(self, peer: str) -> None:
        """Replication: an electorate member does not acknowledge; it is benched."""
        self.coordinator.on_slow(peer)
        self.poke()

    def bench(self, machine: str, why: str) -> None:
        """Take a machine out of the electorate, if it is in it and this machine holds the lease."""
        self.coordinator.bench(machine, why)
        self.poke()

    async def ask_one(self, machine: str, within: float) -> None:
        """Have one machine promise for the lease as it is, beside the rounds.

        Raises ``InstarError``: ``not-awake``, ``no-promise``.
        """
        self.require_acting()
        own = self.lease.holding
        assert own is not None
        assert own.version is not None
        known = KnownRecord(own.record, own.version)
        reply = await self.transport.ask_promise(machine, known, within)
        if reply is None:
            raise InstarError("no-promise", f"it did not promise within {within:g} s")
        if reply.refusal is not None:
            raise InstarError("no-promise", f"it refused to promise: {reply.refusal}")

    # -- views -------------------------------------------------------------------------------------

    def if_lost(self) -> tuple[str | None, int | None, str | None]:
        """``(next machine, after_ms, why_not)`` if the holder died now."""
        reachable = {
            member.machine_id
            for member in self._members.active()
            if (info := self._mesh.info(member.machine_id)) is not None and info.connected and info.compatible
        }
        machine, after, why = if_lost(self.lease, reachable, self._clock.now())
        return machine, None if after is None else after // 1_000, why

    def snapshot(self) -> LeaseSnapshot:
        """One consistent picture."""
        now, lease = self._clock.now(), self.lease
        left, expires = valid_for(lease, now)
        due = lease.may_contend_at(now) if lease.known is not None else "no-record"
        own = lease.holding
        others = [m for m in own.record.electorate if m != self._me] if own is not None else []
        proven = max(own.proven, own.started) if own is not None else lease.last_promise
        return LeaseSnapshot(
            record=lease.known.record if lease.known else None,
            version=lease.known.version if lease.known else None,
            acting=lease.may_act(now),
            valid_for_us=left,
            expires=expires,
            state=lease_state(lease, now),
            renewed_us_ago=None if proven is None else now - proven,
            round_took_us=self._round_took,
            medium="promise" if others and not lease.baton else "hub",
            evidence=lease.durable.evidence,
            promised_us_ago={machine: now - at for machine, at in lease.promised.items()},
            first_saw_us_ago=None if lease.first_seen is None else now - lease.first_seen,
            contend_in_us=max(0, due - now) if isinstance(due, int) else None,
            hub_reachable=self._hub_error is None,
            hub_latency_us=self._hub_latency,
            hub_error=self._hub_error,
            register_alarm=self.register_alarm,
            seen=tuple(self.lease.durable.proof),
            last_write_us_ago=None if self._last_write is None else now - self._last_write,
            counters=dict(self.coordinator.counters),
        )

    async def history(self) -> list[HistoryRow]:
        """The epochs this machine knows of, newest first."""
        return list(self._history.rows)

    def holder_of(self, epoch: int) -> str | None:
        """Who held the lease in an epoch; ``None`` when this machine has not heard of it."""
        return next((row.holder for row in self._history.rows if row.epoch == epoch), None)

    async def note_took(self, epoch: int, took_ms: int) -> None:
        """Record how long a change of holder took, for the history."""
        await self._history.note_took(epoch, took_ms)
