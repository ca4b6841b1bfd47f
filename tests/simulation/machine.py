"""One simulated machine: the real rules, with the shell's work done in the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_coordinator import (
    AskPromises,
    Effect,
    LeaseCoordinator,
    ReadHub,
    SendSwap,
)
from instar_node.coordination.lease_state import FOREVER, DurableLease, OpenSwap
from instar_node.coordination.record import HubPlace, KnownRecord
from tests.simulation import baton
from tests.simulation.copy import Copy
from tests.simulation.hub import Register, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world import World

MILLION = 1_000_000
HUB_TIMEOUT = 5 * MILLION


class Machine:
    """A machine with a clock of its own rate. Disk: ``durable``, ``register`` and the copy's log."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.name = f"m{index}"
        spread = int(world.settings.drift * MILLION)
        self.rate = MILLION + world.rng.choice((-spread, spread, world.rng.randint(-spread, spread)))
        if abs(self.rate - MILLION) == spread:
            world.note("clock as fast or slow as allowed")
        self.offset = world.rng.randrange(1 << 40)
        self.founds = index == 0
        self.durable = DurableLease()
        self.register = Register(world, "")
        self.copy = Copy(world, self)
        self.boots = 0
        self.up = False
        self.asleep = False
        self.full = False
        """Its disk takes no opening of a register."""
        self.backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.acting_epoch = 0
        self.acting_until = 0
        self._lapsed_in = 0
        self.line = ""
        """Origin of the generation it acts in."""
        self._writing: tuple[str | None, KnownRecord] | None = None
        self.compared_with: set[str] = set()
        """Machines that have shown what they know since this start."""
        self._wake_at = -1
        self._idle = 0
        """Times in a row that it woke up by itself a moment after the last time."""
        self._sending: OpenSwap | None = None
        self._tries = 0
        """Attempts at the swap being sent; an answer to an earlier one comes too late."""
        self._unknown = 0
        """The newest of them that was given up."""
        self._hub: HubPlace | None = None
        self._next_nudge = 0
        self.lease = FencedLease(self.name, "", world.timing)
        self.coordinator = LeaseCoordinator(self.lease, world.nonce, self._wall)

    # -- clock -------------------------------------------------------------------------------------

    def now(self) -> int:
        """Microseconds on this machine's clock."""
        return self.offset + self.world.t * self.rate // MILLION

    def _wall(self) -> str:
        """Its wall clock shows anything; it is for people and must never matter."""
        self.world.note("wall clock jumps")
        return f"{self.world.rng.randint(1970, 2100)}-01-01T00:00:00.000Z"

    def _real(self, local: int) -> int:
        """The first real instant at which this clock shows ``local``."""
        return -(-(local - self.offset) * MILLION // self.rate)

    # -- life --------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start with what is on disk."""
        world = self.world
        self.boots += 1
        self.up, self.asleep = True, False
        self._wake_at = -1
        self.lease = FencedLease(
            self.name,
            f"{self.name}.{self.boots}",
            world.timing,
            self.durable,
            baton=not world.settings.hub,
            mutations=world.mutations,
        )
        self._hub = self.lease.hub
        self.coordinator = LeaseCoordinator(self.lease, world.nonce, self._wall)
        self.coordinator.membership.wishes.admit |= world.by_name.keys() - world.removed - {self.name}
        world.say(
            f"{self.name} starts, knowing {describe(self.lease.known) if self.lease.known else 'nothing'}"
        )
        self.coordinator.boot(self.now())
        if self.lease.baton:
            self.coordinator.on_own_register(self.register.value, self.now())
        if self.founds and self.lease.known is None:
            self._found()
        self.step()
        for other in world.machines:
            if other is not self:
                world.greet(self, other)

    def _found(self) -> None:
        """Write the first record of the mesh; again after a crash in which it did not land."""
        record = self.lease.founding_record(at="", nonce=self.world.nonce())
        self.perform(self.coordinator.begin(record, "contend", self.now()))

    def crash(self) -> None:
        """Everything but the disk is forgotten. A write to the own disk may have just come through."""
        self.world.say(f"{self.name} crashes")
        self.world.note("crash with loss of memory")
        if self._writing is not None and self.world.random() < 0.5:
            self.register.swap(*self._writing)
        self._writing = None
        self.up = self.asleep = False
        self.acting_until = 0
        self.backlog.clear()
        self.compared_with.clear()
        self.copy.forget()
        for other in self.world.machines:
            other.compared_with.discard(self.name)
        if self.world.random() < 0.3:
            self.world.note("clock begins anew at a start")  # the computer went down with it
            self.offset = self.world.rng.randrange(1 << 40)

    def suspend(self) -> None:
        """The lid is closed: nothing runs, the clock goes on."""
        self.world.say(f"{self.name} is suspended")
        self.world.note("suspend")
        self.asleep = True

    def resume(self, boots: int) -> None:
        """Everything that piled up is worked off, in any order."""
        if not self.asleep or self.boots != boots:
            return
        self.world.say(f"{self.name} resumes")
        self.asleep = False
        if self.lease.holding is not None and not self.lease.may_act(self.now()):
            self.world.note("woke up after its lease had run out")
        backlog, self.backlog = self.backlog, []
        self.world.rng.shuffle(backlog)
        for handler, args in backlog:
            handler(self, *args)
        self.step()

    def _mine(self, boots: int, handler: Callable[..., None], *args: Any) -> None:
        """An event of this machine's own; void after a crash, late after a suspend."""
        if self.boots != boots or not self.up:
            return
        if self.asleep:
            self.backlog.append((_later, (boots, handler, args)))
        else:
            handler(*args)

    def _at(self, delay: int, handler: Callable[..., None], *args: Any) -> None:
        self.world.at(delay, self._mine, self.boots, handler, *args)

    # -- peers, as the coordinator sees them --------------------------------------------------------

    def connected(self, machine: str) -> bool:
        return self.world.connected(self.index, self.world.by_name[machine].index)

    def caught_up(self, machine: str) -> bool:
        return self.copy.caught_up(machine)

    def missing(self) -> frozenset[str]:
        return self.copy.missing()

    def compared(self, machine: str) -> bool:
        return machine in self.compared_with

    # -- the step ------------------------------------------------------------------------------------

    def step(self) -> None:
        """Decide what to do now, do it, and let the oracle look."""
        lease, coordinator, now = self.lease, self.coordinator, self.now()
        if lease.durable is not self.durable:
            self.persist(now)
        for effect in coordinator.tick(now, self):
            self.perform(effect)
        if lease.durable is not self.durable:
            self.persist(now)
        self.look(now)
        wake = self._real(coordinator.next_wake(now))
        if not 0 <= self._wake_at <= wake:
            self._wake_at = wake
            self._at(max(0, wake - self.world.t), self._on_wake, wake)

    def _on_wake(self, wake: int) -> None:
        if wake == self._wake_at:
            self._wake_at = -1
            self.step()
            self._idle = self._idle + 1 if 0 <= self._wake_at <= wake + 2_000 else 0
            if self._idle > 20:
                self.world.oracle.fail(f"{self.name} wakes up again and again and does nothing")

    def persist(self, now: int) -> None:
        before, after = self.durable, self.lease.durable
        if after.newest is not before.newest:
            self.world.oracle.on_stored(before.newest, after.newest)
        if after.evidence is not None and before.evidence is None:
            self.world.oracle.on_evidence(self, after.evidence)
            for other in self.world.machines:
                if other is not self:
                    self.notify(other)
        self.durable = after
        if self.lease.hub != self._hub:
            self._hub = self.lease.hub
            self.coordinator.on_hub_moved(now)

    def look(self, now: int) -> None:
        deadline = self.lease.deadline
        if deadline <= now:
            if self.acting_until:
                self.acting_until, self._lapsed_in = 0, self.acting_epoch
                self.copy.follow_lease(None)
            return
        until = FOREVER if deadline == FOREVER else self._real(deadline)
        own = self.lease.own
        assert own is not None
        epoch = own.record.epoch
        if until != self.acting_until or epoch != self.acting_epoch:
            began = self.acting_until <= self.world.t or epoch != self.acting_epoch
            self.world.oracle.on_acting(self, epoch, until)
            if began:
                if self._lapsed_in == epoch:
                    self.world.note("lapsed holder went on in its epoch")
                self.copy.follow_lease(epoch)
        self.copy.evaluate()

    # -- effects -------------------------------------------------------------------------------------

    def perform(self, effect: Effect) -> None:
        if type(effect) is AskPromises:
            self._ask(effect)
        elif type(effect) is ReadHub:
            self._read(effect)
        elif type(effect) is SendSwap:
            self._swap(effect.swap, self._attempt(effect.swap))
        else:
            baton.resend(self, effect.known)

    def hub_delay(self, register: Register) -> int | None:
        """How long a step of a register takes; ``None`` when it will not answer in time."""
        world = self.world
        if not register.url:
            return 1_000
        if register.away or world.hub_cut[self.index]:
            return None
        return world.delay() + (int(world.random() * register.slowness) if register.slowness else 0)

    def _read(self, effect: ReadHub) -> None:
        register = self.world.register_of(self, effect.hub)
        there = self.hub_delay(register)
        if there is None:
            self._at(HUB_TIMEOUT, self._on_read_failed)
            return
        self.world.at(there, self._at_hub, register, self.boots, self.lease.order, self.now())

    def _at_hub(self, register: Register, boots: int, before: tuple[int, int], began: int) -> None:
        back = self.hub_delay(register)
        if back is None:
            self.world.at(HUB_TIMEOUT, self._mine, boots, self._on_read_failed)
        else:
            self.world.at(back, self._mine, boots, self._on_read, register.value, before, began)

    def _on_read(self, seen: KnownRecord | None, before: tuple[int, int], began: int) -> None:
        self.coordinator.on_read(seen, before, began, self.now())
        self.step()

    def _on_read_failed(self) -> None:
        self.coordinator.on_read_failed(self.now())
        self.step()

    def _attempt(self, swap: OpenSwap) -> int:
        self._tries = self._tries + 1 if self._sending is swap else 1
        if self._sending is swap:
            self.world.note("unknown swap sent again")
        else:
            self._unknown = 0
        self._sending = swap
        return self._tries

    def _swap(self, swap: OpenSwap, attempt: int) -> None:
        world = self.world
        register = world.register_of(self, swap.hub)
        candidate = KnownRecord(swap.record, swap.record.nonce)
        world.say(f"{self.name} sends {swap.kind} {describe(candidate)} onto {swap.expected}")
        there = self.hub_delay(register)
        if there is None:
            if attempt == 1 and world.random() < 0.3:
                self._at(1_000, self._on_unsent)
            else:
                self._at(HUB_TIMEOUT, self._on_unknown, swap, attempt)
            return
        if not register.url:
            self._writing = (swap.expected, candidate)
            self._at(there, self._write_own, register, swap, candidate)
            return
        self.world.at(there, self._swap_at_hub, register, self.boots, swap, candidate, attempt)
        self._at(HUB_TIMEOUT * 2, self._on_unknown, swap, attempt)

    def _write_own(self, register: Register, swap: OpenSwap, candidate: KnownRecord) -> None:
        self._writing = None
        won, seen = register.swap(swap.expected, candidate)
        self._on_outcome(swap, won, seen, self._tries)

    def _swap_at_hub(
        self, register: Register, boots: int, swap: OpenSwap, candidate: KnownRecord, attempt: int
    ) -> None:
        """The swap is applied whether or not its sender still lives; then the answer may get lost."""
        won, seen = register.swap(swap.expected, candidate)
        if won:
            self._note_late(register, boots, swap, attempt)
        back = self.hub_delay(register)
        if back is not None and not (self.world.loss and self.world.random() < self.world.loss):
            self.world.at(back, self._mine, boots, self._on_outcome, swap, won, seen, attempt)

    def _note_late(self, register: Register, boots: int, swap: OpenSwap, attempt: int) -> None:
        if self.boots != boots or not self.up:
            self.world.note("swap landed after its sender crashed")
        elif self._sending is swap and self._unknown >= attempt:
            self.world.note("unknown swap landed later")

    def _on_outcome(self, swap: OpenSwap, won: bool, seen: KnownRecord | None, attempt: int) -> None:
        if self.lease.open is not swap or self._tries != attempt:
            self.world.note("hub answers after the caller gave up")
            return
        self._tries = 0  # the timeout of this attempt says nothing any more
        if won:
            assert seen is not None
            self.coordinator.on_won(seen, self.now())
            self.persist(self.now())
            for other in self.world.machines:
                if other is not self and self.world.connected(self.index, other.index):
                    self.notify(other)
        else:
            if seen is not None:
                self._note_lost(swap, seen)
            self.coordinator.on_lost(seen, self.now())
        self.step()

    def _note_lost(self, swap: OpenSwap, seen: KnownRecord) -> None:
        ours, theirs = swap.record, seen.record
        if swap.kind == "renew" and theirs.epoch > ours.epoch:
            self.world.note("bench or take-back lost against a takeover")
        elif swap.kind == "contend" and theirs.epoch == ours.epoch - 1:
            self.world.note("takeover lost against the holder's own swap")
        elif swap.kind == "contend" and theirs.epoch == ours.epoch and theirs.holder != self.name:
            self.world.note("takeover lost against another one")

    def _on_unknown(self, swap: OpenSwap, attempt: int) -> None:
        if self.lease.open is swap and self._tries == attempt:
            self.world.note("swap of unknown outcome")
            self._unknown = attempt
            self.coordinator.on_unknown(self.now(), attempt)
            self.step()

    def _on_unsent(self) -> None:
        if self.lease.open is not None:
            self.coordinator.on_unsent(self.now())
            self.step()

    # -- rounds --------------------------------------------------------------------------------------

    def _ask(self, ask: AskPromises) -> None:
        world = self.world
        waiting = set(ask.machines)
        for name in ask.machines:
            world.send(
                self.index, world.by_name[name].index, Machine.on_promise_request, self.name, ask, waiting
            )
        self._at(ask.within * MILLION // self.rate, self._round_over, ask, waiting)
        if self.acting_until and world.t >= self._next_nudge:
            self._next_nudge = world.t + world.timing.ttl
            self.copy.follow_lease(self.copy.epoch)
            self.copy.nudge()

    def on_promise_request(self, asker: str, ask: AskPromises, waiting: set[str]) -> None:
        """A holder asks for a promise."""
        refusal = self.lease.answer_promise(asker, ask.known, self.now())
        self.step()
        known = self.lease.known
        newer = known if known is not None and known.version != ask.known.version else None
        self.world.send(
            self.index,
            self.world.by_name[asker].index,
            Machine.on_answer,
            self.name,
            ask,
            waiting,
            refusal,
            newer,
        )

    def on_answer(
        self, member: str, ask: AskPromises, waiting: set[str], refusal: str | None, newer: KnownRecord | None
    ) -> None:
        """A member answers; after the end of the round it is too late."""
        if member not in waiting:
            return
        waiting.discard(member)
        if refusal is None:
            self.coordinator.on_promise(member, ask.known.version, ask.began, self.now())
        elif newer is not None:
            self.lease.learn(newer, self.now())
        if not waiting:
            self.coordinator.on_round_over()
        self.step()

    def _round_over(self, ask: AskPromises, waiting: set[str]) -> None:
        if waiting:
            for name in sorted(waiting):
                self.coordinator.on_miss(name)
            waiting.clear()
            self.coordinator.on_round_over()
            self.step()

    # -- notices -------------------------------------------------------------------------------------

    def notify(self, other: Machine) -> None:
        """Tell another machine the newest record, and evidence of a split brain."""
        lease = self.lease
        self.world.send(self.index, other.index, Machine.on_notice, self.name, lease.known)
        if lease.durable.evidence is not None:
            self.world.send(self.index, other.index, Machine.on_evidence, lease.durable.proof)

    def on_evidence(self, proof: tuple[KnownRecord, ...]) -> None:
        """Another machine stopped. Two records convince by themselves; otherwise the hub is looked at."""
        if len(proof) != 2 or not self.lease.accept_proof(*proof):
            self.coordinator.read_now(self.now())
        self.step()

    def on_notice(self, source: str, known: KnownRecord | None) -> None:
        """Another machine says what it knows."""
        self.compared_with.add(source)
        if known is not None:
            self.lease.learn(known, self.now())
        if self.copy.epoch is not None:
            self.copy.follow_lease(self.copy.epoch)
        self.step()


def _later(machine: Machine, boots: int, handler: Callable[..., None], args: tuple[Any, ...]) -> None:
    machine._mine(boots, handler, *args)
