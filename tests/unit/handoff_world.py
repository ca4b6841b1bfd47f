"""Machines that hand the awake role to each other: real handoff code over an in-memory mesh; lease, message
work and copies are stand-ins that a test can make fail at any point."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from instar_node.clock import SystemClock
from instar_node.contracts import Lane, PeerError, Rep
from instar_node.errors import InstarError
from instar_node.events import Event, EventHub
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.copies import Copies
from instar_node.handoff.receiver import HandoffReceiver
from instar_node.handoff.sentinel import HandoffSentinel
from instar_node.handoff.shutdown import ShutdownHandoff
from instar_node.handoff.steps import HandoffOutcome
from instar_node.handoff.times import HandoffTimes
from instar_node.handoff.wakeup import Wakeup
from instar_node.handoff.wire_transport import HandoffWireTransport
from tests.unit.fakes_mesh import FakeAuthority, FakeMembers, FakeMesh, Net

QUICK = HandoffTimes(
    prepare_s=0.5, tail_s=0.3, drain_s=0.1, ack_s=0.3, pass_s=0.3, settle_s=0.2, floor_s=10.0
)


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Position and running hash of a stand-in ledger."""

    seq: int
    hash: bytes


class Ledger:
    """A log of byte strings; ``copy`` is replication."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.under_way: list[bytes] = []
        """Writes that ``settle`` waits for."""
        self._listeners: list[Callable[[Any], None]] = []

    @property
    def state(self) -> Ledger:
        return self

    @property
    def head(self) -> Mark:
        return self._mark(len(self.entries))

    def append(self, *entries: bytes) -> None:
        self.entries += entries
        for listener in self._listeners:
            listener(entries)

    async def settle(self) -> None:
        await asyncio.sleep(0)
        self.append(*self.under_way)
        self.under_way.clear()

    async def greatest_common(self, theirs: tuple[Mark, ...]) -> Mark:
        held = [mark for mark in theirs if mark.seq <= len(self.entries) and mark == self._mark(mark.seq)]
        return max(held, key=lambda mark: mark.seq, default=self._mark(0))

    def on_outcome(self, callback: Callable[[Any], None]) -> None:
        self._listeners.append(callback)

    def _mark(self, seq: int) -> Mark:
        return Mark(seq, hashlib.sha256(b"|".join(self.entries[:seq])).digest() if seq else b"")


class TailManifest(msgspec.Struct, frozen=True):
    lines: tuple[str, ...]


class Tail:
    """A conversation; both ``TailCopy`` and ``TailMatcher``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def manifest(self) -> TailManifest:
        return TailManifest(tuple(self.lines))

    async def match(self, manifest: TailManifest, within: float) -> list[str]:
        return [] if list(manifest.lines) == self.lines[: len(manifest.lines)] else ["42"]


class State:
    """A copy of the shared state; ``lacks`` is what the lease vouches for and it has not."""

    def __init__(self) -> None:
        self.lacks = ""

    async def require_current(self, within: float) -> None:
        if self.lacks:
            raise InstarError("state-behind", f"this machine lacks state {self.lacks}")


class Ingress:
    """Work on messages. ``working`` are topics whose agent runs, ``stuck`` those that wait for a machine."""

    def __init__(self) -> None:
        self.paused = False
        self.working: set[str] = set()
        self.stuck: set[str] = set()
        self.cancelled: set[str] = set()
        self.calls: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self._idle = asyncio.Event()

    @property
    def running(self) -> dict[str, str]:
        return {topic: f"key-{topic}" for topic in self.working | self.stuck}

    def waiting(self, topic: str) -> int:
        return int(topic in self.stuck)

    def done(self, topic: str) -> None:
        self.working.discard(topic)
        self._look()

    async def pause(self) -> None:
        self._called("pause")
        self.paused = True

    async def drain(self, within: float) -> bool:
        self._called("drain")
        self._look()
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
            return True
        except TimeoutError:
            self.cancelled |= self.working | self.stuck
            self.working.clear()
            self.stuck.clear()
            self._look()
            return False

    async def resume(self) -> None:
        self._called("resume")
        self.paused = False

    def _look(self) -> None:
        self._idle.clear() if self.running else self._idle.set()

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if what in self.trouble:
            raise self.trouble[what]


class Mesh(FakeMesh):
    """A mesh on which requests of some kinds are never answered."""

    def __init__(self, net: Net, name: str) -> None:
        super().__init__(net, name)
        self.hang: set[str] = set()

    async def request(
        self,
        peer: str,
        message: msgspec.Struct,
        reply: type[Rep],
        *,
        within: float,
        lane: Lane = Lane.NORMAL,
    ) -> Rep:
        if message.__struct_config__.tag in self.hang:
            await asyncio.sleep(within)
            raise PeerError("timeout", f"{peer} did not answer")
        return await super().request(peer, message, reply, within=within, lane=lane)


class Lease(FakeAuthority):
    """``LeaseControl`` by hand: the world is the register, each machine knows what reached it."""

    def __init__(self, me: str, world: World) -> None:
        super().__init__(me)
        self._world = world
        self.in_sync: set[str] = set(world.names) - {me}
        self.calls: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self.hang: set[str] = set()
        self.cut_short: list[str] = []
        self.contend_in_us: int | None = 0
        self.may_take = asyncio.Event()

    def ack_set(self) -> frozenset[str]:
        return frozenset(self.in_sync)

    def snapshot(self) -> Lease:
        return self

    async def bring_in(self, machine: str, within: float) -> None:
        await self._called("bring_in")
        if machine not in self.in_sync:
            raise InstarError("not-in-sync", f"{machine} has not caught up yet")

    async def pass_to(self, machine: str, within: float) -> int:
        await self._called("pass_to")
        epoch = self.epoch
        self.set(self.me, epoch, valid=False)
        await asyncio.sleep(0)
        if not self._world.net.linked(self.me, machine):
            raise InstarError("handoff-failed", "the successor has not taken the lease yet")
        await self._called("token")
        self._world.award(machine)
        return self.epoch

    async def release(self) -> None:
        await self._called("release")
        self.set(self.me, self.epoch, valid=False)

    async def take_over(self, within: float) -> int:
        await self._called("take_over")
        await self.may_take.wait()
        self._world.award(self.me)
        return self.epoch

    async def heal(self, confirmed: bool, vouched: tuple[str, ...]) -> int:
        await self._called("heal")
        if not confirmed:
            raise InstarError("needs-confirmation", "the hub was rewound", extra={"vouch": []})
        self._world.award(self.me)
        return self.epoch

    async def force(self, vouched: tuple[str, ...]) -> int:
        await self._called("force")
        if not vouched:
            raise InstarError("needs-confirmation", "b cannot be reached", extra={"vouch": ["b"]})
        self._world.award(self.me)
        return self.epoch

    async def _called(self, what: str) -> None:
        self.calls.append(what)
        await asyncio.sleep(0)
        if what in self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cut_short.append(what)
                raise
        if what in self.trouble:
            raise self.trouble[what]


class Machine:
    """One machine with everything of a handoff."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        clock = SystemClock()
        self.mesh = world.net.nodes[name] = Mesh(world.net, name)
        self.lease = Lease(name, world)
        self.ingress, self.ledger, self.tail, self.state = Ingress(), Ledger(), Tail(), State()
        self.events = EventHub(clock)
        self.told: list[Event] = []
        self.events.listen(self.told.append)
        members = world.members
        self.ended: list[HandoffOutcome] = []
        self.board = HandoffBoard(self.lease, members, clock, self.events, self.ended.append)
        self.wire = HandoffWireTransport(self.mesh)
        copies = Copies(self.tail, self.tail, self.ledger, self.state, TailManifest, Mark)
        self.sentinel = HandoffSentinel(
            lease=self.lease,
            ingress=self.ingress,
            waiting=self.ingress.waiting,
            copies=copies,
            wire=self.wire,
            board=self.board,
            mesh=self.mesh,
            members=members,
            clock=clock,
            times=QUICK,
        )
        self.receiver = HandoffReceiver(
            authority=self.lease,
            copies=copies,
            wire=self.wire,
            board=self.board,
            members=members,
            times=QUICK,
        )
        self.wakeup = Wakeup(
            lease=self.lease,
            wire=self.wire,
            receiver=self.receiver,
            board=self.board,
            mesh=self.mesh,
            members=members,
            clock=clock,
        )

    def shutdown(self, embedded: bool = False) -> ShutdownHandoff:
        return ShutdownHandoff(
            lease=self.lease,
            sentinel=self.sentinel,
            board=self.board,
            mesh=self.mesh,
            members=World.members,
            clock=SystemClock(),
            embedded=lambda: embedded,
        )

    def steps(self) -> list[str]:
        return [step.step for step in self.board.view().steps]

    def at(self, step: str, act: Callable[[], None]) -> None:
        """Do something, once, at the instant this machine's board takes a step."""
        left = [act]

        def look(event: Event) -> None:
            if left and event.kind == "handoff" and event.data.get("step") == step:
                left.pop()()

        self.events.listen(look)

    async def stop(self) -> None:
        await self.sentinel.stop()
        await self.wakeup.stop()
        await self.receiver.stop()


class World:
    """Three machines, ``m-office`` awake in epoch 7. Every change checks that no two act at once."""

    names = ("m-office", "m-mini", "m-nas")
    members = FakeMembers("office", "mini", "nas")

    def __init__(self) -> None:
        self.net = Net()
        self.epoch = 7
        self.machines = {name: Machine(name, self) for name in self.names}
        self.office, self.mini, self.nas = (self.machines[name] for name in self.names)
        for machine in self.machines.values():
            machine.ledger.append(b"one", b"two")
            machine.tail.lines += ["hello", "hi"]
            machine.lease.on_change(self._check)
        for machine in self.machines.values():
            machine.lease.set("m-office", 7, valid=machine is self.office)

    def award(self, holder: str) -> None:
        """The register takes ``holder`` in the next epoch; who is linked to it hears of it."""
        self.epoch += 1
        for name, machine in self.machines.items():
            if name != holder and self.net.linked(holder, name):
                machine.lease.set(holder, self.epoch, valid=False)
        self.machines[holder].lease.set(holder, self.epoch, valid=True)

    def acting(self) -> list[str]:
        return [name for name, machine in self.machines.items() if machine.lease.acting_epoch() is not None]

    def _check(self) -> None:
        assert len(self.acting()) <= 1, self.acting()

    async def stop(self) -> None:
        for machine in self.machines.values():
            await machine.stop()
