"""A small world for delivery tests: machines with real databases; network and lease are the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from instar_node.clock import SystemClock
from instar_node.contracts import (
    Lane,
    Member,
    PeerError,
    PeerInfo,
    RunRequest,
    RunResult,
)
from instar_node.delivery.channels.base import OutwardChannel
from instar_node.delivery.contract import Accept, OutgoingReply, Retry, SendOutcome, Sent
from instar_node.delivery.conversation import Conversation
from instar_node.delivery.dispatcher import Delivery
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.outbox import FencedOutbox
from instar_node.delivery.replication import ReplyMarkerTransport
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.storage.database import SqliteDatabase

Req = TypeVar("Req", bound=msgspec.Struct)
Rep = TypeVar("Rep", bound=msgspec.Struct)

SPEED = 20


class QuickClock(SystemClock):
    """The real clock, twenty times as fast."""

    def now(self) -> int:
        return super().now() * SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait for something the code under test brings about by itself."""
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"never happened: {what or condition}") from None


class Network:
    """Tunnels between machines. Messages are encoded and decoded on the way, in order, until a cut."""

    def __init__(self) -> None:
        self.meshes: dict[str, FakeMesh] = {}
        self.links: set[frozenset[str]] = set()
        self.held: set[tuple[str, str]] = set()
        self.lossy: set[tuple[str, str]] = set()
        self._waiting: list[tuple[str, str, Callable[[], None]]] = []

    def join(self, a: str, b: str) -> None:
        self.links.add(frozenset((a, b)))
        self._announce(a, b, True)

    def cut(self, a: str, b: str) -> None:
        """Break the tunnel: what is under way is lost."""
        self.links.discard(frozenset((a, b)))
        self._waiting = [w for w in self._waiting if {w[0], w[1]} != {a, b}]
        for mesh in (self.meshes[a], self.meshes[b]):
            mesh.fail_requests({a, b})
        self._announce(a, b, False)

    def isolate(self, name: str) -> None:
        for link in [link for link in self.links if name in link]:
            self.cut(*sorted(link))

    def hold(self, source: str, target: str) -> None:
        """Delay everything from one machine to another until released."""
        self.held.add((source, target))

    def release(self, source: str, target: str) -> None:
        self.held.discard((source, target))
        ready = [w for w in self._waiting if (w[0], w[1]) == (source, target)]
        self._waiting = [w for w in self._waiting if w not in ready]
        for _, _, deliver in ready:
            asyncio.get_running_loop().call_soon(deliver)

    def carry(self, source: str, target: str, deliver: Callable[[], None]) -> bool:
        if frozenset((source, target)) not in self.links:
            return False
        if (source, target) in self.lossy:
            return True
        if (source, target) in self.held:
            self._waiting.append((source, target, deliver))
        else:
            asyncio.get_running_loop().call_soon(deliver)
        return True

    def _announce(self, a: str, b: str, up: bool) -> None:
        for me, other in ((a, b), (b, a)):
            if me in self.meshes:
                self.meshes[me].announce(other, up)


class FakeMesh:
    """``contracts.Mesh`` over a ``Network``."""

    def __init__(self, me: str, network: Network) -> None:
        self.me = me
        self.network = network
        network.meshes[me] = self
        self._requests: dict[type, Callable[[str, Any], Awaitable[msgspec.Struct]]] = {}
        self._notices: dict[type, Callable[[str, Any], None]] = {}
        self._peer_callbacks: list[Callable[[str, bool], None]] = []
        self._open: dict[asyncio.Future[bytes], str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent: list[tuple[str, msgspec.Struct]] = []

    def on_request(
        self, request: type[Req], handler: Callable[[str, Req], Awaitable[msgspec.Struct]]
    ) -> None:
        self._requests[request] = handler

    def on_notice(self, notice: type[Req], handler: Callable[[str, Req], None]) -> None:
        self._notices[notice] = handler

    def on_peer(self, callback: Callable[[str, bool], None]) -> None:
        self._peer_callbacks.append(callback)

    def announce(self, peer: str, up: bool) -> None:
        for callback in self._peer_callbacks:
            callback(peer, up)

    def connected(self, peer: str) -> bool:
        return frozenset((self.me, peer)) in self.network.links

    def info(self, peer: str) -> PeerInfo | None:
        return None

    def send(self, peer: str, message: msgspec.Struct, lane: Lane = Lane.NORMAL) -> bool:
        self.sent.append((peer, message))
        wire, other = msgspec.msgpack.encode(message), self.network.meshes[peer]
        return self.network.carry(self.me, peer, lambda: other.receive_notice(self.me, wire, type(message)))

    def receive_notice(self, source: str, wire: bytes, kind: type[msgspec.Struct]) -> None:
        if self.connected(source):
            self._notices[kind](source, msgspec.msgpack.decode(wire, type=kind))

    async def request(
        self, peer: str, message: msgspec.Struct, reply: type[Rep], *, within: float, lane: Lane = Lane.NORMAL
    ) -> Rep:
        self.sent.append((peer, message))
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        wire, other = msgspec.msgpack.encode(message), self.network.meshes[peer]
        self._open[answer] = peer
        if not self.network.carry(
            self.me, peer, lambda: other.receive_request(self.me, wire, type(message), answer)
        ):
            raise PeerError("unreachable", "no tunnel")
        try:
            async with asyncio.timeout(within / SPEED * 4):
                return msgspec.msgpack.decode(await answer, type=reply)
        except TimeoutError:
            raise PeerError("timeout", "no answer") from None
        finally:
            self._open.pop(answer, None)

    def receive_request(
        self, source: str, wire: bytes, kind: type[msgspec.Struct], answer: asyncio.Future[bytes]
    ) -> None:
        task = asyncio.ensure_future(self._serve(source, wire, kind, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, source: str, wire: bytes, kind: type[msgspec.Struct], answer: asyncio.Future[bytes]
    ) -> None:
        def finish(result: bytes | Exception) -> None:
            if answer.done():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        result: bytes | Exception
        try:
            reply = await self._requests[kind](source, msgspec.msgpack.decode(wire, type=kind))
            result = msgspec.msgpack.encode(reply)
        except InstarError as error:
            result = PeerError("refused", error.message, error.code, error.to_json())
        outcome = result
        self.network.carry(self.me, source, lambda: finish(outcome))

    def fail_requests(self, link: set[str]) -> None:
        for future, peer in list(self._open.items()):
            if peer in link and not future.done():
                future.set_exception(PeerError("unreachable", "the tunnel broke"))


class FakeAuthority:
    """``contracts.Authority`` as the test says."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.epoch = 0
        self.holder: str | None = None
        self._acting: int | None = None
        self._ack_set: frozenset[str] = frozenset()
        self._callbacks: list[Callable[[], None]] = []

    def acting_epoch(self) -> int | None:
        return self._acting

    def ack_set(self) -> frozenset[str]:
        return self._ack_set

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def become_holder(self, epoch: int, electorate: Iterable[str] = ()) -> None:
        self.holder, self.epoch, self._acting = self.me, epoch, epoch
        self._ack_set = frozenset(electorate)
        self._tell()

    def observe(self, holder: str, epoch: int) -> None:
        self.holder, self.epoch, self._acting = holder, epoch, None
        self._tell()

    def lapse(self, announce: bool = True) -> None:
        self._acting = None
        if announce:
            self._tell()

    def change_silently(self, acting: int | None) -> None:
        """Another acting epoch that nobody was told of yet."""
        self._acting = acting

    def electorate(self, *others: str) -> None:
        self._ack_set = frozenset(others)
        self._tell()

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()


class FakeMembers:
    mesh_id = "mesh"

    def __init__(self, names: Iterable[str]) -> None:
        self._members = tuple(
            Member(name, name, b"", b"", (), "", "", name.startswith("w")) for name in names
        )

    def get(self, machine_id: str) -> Member | None:
        return next((m for m in self._members if m.machine_id == machine_id), None)

    def active(self) -> tuple[Member, ...]:
        return self._members

    def nickname(self, machine_id: str) -> str:
        return machine_id

    def resolve(self, name: str) -> Member | None:
        return self.get(name)


class Agent:
    """An agent whose runs the test can watch, hold and answer; by default it echoes."""

    def __init__(self, prefix: str = "echo: ") -> None:
        self.prefix = prefix
        self.harmless = False
        self.requests: list[RunRequest] = []
        self.results: list[RunResult] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled: list[str] = []
        self._running: dict[str, asyncio.Future[RunResult]] = {}

    async def run(self, request: RunRequest) -> RunResult:
        self.requests.append(request)
        stopped: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self._running[request.key] = stopped
        gate = asyncio.ensure_future(self.gate.wait())
        ends: set[asyncio.Future[Any]] = {gate, stopped}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gate.cancel()
            self._running.pop(request.key, None)
        if stopped.done():
            return stopped.result()
        if self.results:
            return self.results.pop(0)
        return RunResult("ok", (self.prefix + request.text,))

    def needs_history(self, topic: str) -> bool:
        return True

    def acts(self, topic: str) -> bool:
        return not self.harmless

    def cancel(self, key: str) -> bool:
        self.cancelled.append(key)
        stopped = self._running.get(key)
        if stopped is None or stopped.done():
            return False
        stopped.set_result(RunResult("cancelled"))
        return True

    def running(self, topic: str | None = None) -> Iterable[str]:
        return tuple(self._running)

    def runs_of(self, text: str) -> int:
        return sum(request.text == text for request in self.requests)


class Receiver:
    """The outside world behind a channel, shared by all machines: it remembers every reply it took."""

    def __init__(self, deduplicates: bool = True) -> None:
        self.deduplicates = deduplicates
        self.attempts: list[OutgoingReply] = []
        self.taken: list[OutgoingReply] = []

    def take(self, reply: OutgoingReply) -> None:
        self.attempts.append(reply)
        if self.deduplicates and any(r.reply_id == reply.reply_id for r in self.taken):
            return
        self.taken.append(reply)

    @property
    def texts(self) -> list[str]:
        return [reply.text for reply in self.taken]


class FakeChannel(OutwardChannel):
    """A channel to a ``Receiver`` whose outcomes a test may script."""

    def __init__(self, receiver: Receiver, undecided: Literal["hold", "resend"] = "hold") -> None:
        self.name = "hook"
        self.receiver = receiver
        self.deduplicates = receiver.deduplicates
        self.undecided: Literal["hold", "resend"] = undecided
        self.max_in_flight_s = 1.0
        self.knows: bool | None = None
        self.outcomes: list[SendOutcome] = []
        self.before = asyncio.Event()
        self.before.set()
        self.lost_answers = 0
        self.under_way = 0
        self.accept: Accept | None = None
        self.read_from = ""
        self.piece_length = 1_000_000

    async def send(self, reply: OutgoingReply) -> SendOutcome:
        self.under_way += 1
        try:
            await self.before.wait()
        finally:
            self.under_way -= 1
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Sent):
                self.receiver.take(reply)
            return outcome
        self.receiver.take(reply)
        if self.lost_answers:
            self.lost_answers -= 1
            return Retry(0.0, "answer lost")
        return Sent()

    def pieces(self, text: str) -> tuple[str, ...]:
        step = self.piece_length
        return tuple(text[start : start + step] for start in range(0, len(text), step))

    async def was_sent(self, reply: OutgoingReply) -> bool | None:
        return self.knows

    async def start_consuming(self, accept: Accept, position: str) -> None:
        self.accept, self.read_from = accept, position

    async def stop_consuming(self) -> None:
        self.accept = None

    async def close(self) -> None:
        self.accept = None


class Sink:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append(self, **line: Any) -> None:
        self.lines.append(line)


class Machine:
    """One machine; ``kill`` drops it as a crash would, ``boot`` starts it on the same disk."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.path = world.folder / f"{name}.db"
        self.slow: list[str] = []
        self.alive = False
        self.incomplete: frozenset[str] = frozenset()

    async def boot(self) -> None:
        world, clock = self.world, self.world.clock
        self.db = SqliteDatabase.open(self.path)
        self.mesh = FakeMesh(self.name, world.network)
        self.authority = FakeAuthority(self.name)
        self.events = EventHub(clock)
        self.agent = Agent(f"{self.name}: ")
        self.channel = FakeChannel(world.receiver)
        self.sink = Sink()
        members = FakeMembers(world.names)
        self.ledger = MessageProcessingLedger(self.db, self.authority, clock, lambda: self.incomplete)
        await self.ledger.load()
        self.transport = ReplyMarkerTransport(
            self.mesh,
            members,
            self.authority,
            self.ledger,
            clock,
            self.events.publish,
            self.slow.append,
            slow_ms=2_000,
        )
        self.outbox = FencedOutbox(
            self.ledger, self.transport, self.authority, (self.channel,), clock, self.events.publish
        )
        self.delivery = Delivery(
            self.ledger,
            self.transport,
            self.outbox,
            self.agent,
            self.authority,
            (self.channel,),
            self.sink,
            Conversation(self.db, self.ledger.log).history,
            clock,
            self.events.publish,
            history_limit=50,
            pause_s=2.0,
        )
        self.transport.start()
        self.delivery.start()
        self.alive = True

    async def kill(self) -> None:
        self.alive = False
        self.world.network.isolate(self.name)
        self.authority.lapse(announce=False)
        self.transport.stop()
        await self.delivery.stop()
        await self.db.close()

    async def lines(self, topic: str) -> list[tuple[str, str]]:
        return [(line.role, line.text) for line in await Conversation(self.db, self.ledger.log).lines(topic)]

    async def state(self, topic: str, key: str) -> str | None:
        row = await self.ledger.message(f"local:{topic}:{key}")
        return None if row is None else row.state


class World:
    """Some machines, all connected, with nobody awake yet."""

    def __init__(self, folder: Path, names: str, deduplicates: bool = True) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.clock = QuickClock()
        self.network = Network()
        self.receiver = Receiver(deduplicates)
        self.machines = {name: Machine(name, self) for name in self.names}

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    async def connect(self, name: str) -> None:
        for other in self.names:
            if other != name and self[other].alive:
                self.network.join(name, other)

    def lead(self, holder: str, epoch: int, electorate: str = "") -> None:
        """Give the lease to one machine, and tell those who can be reached."""
        for name in self.names:
            if name != holder and self[name].alive:
                self[name].authority.observe(holder, epoch)
        self[holder].authority.become_holder(epoch, electorate)


@asynccontextmanager
async def running_world(folder: Path, names: str, deduplicates: bool = True) -> AsyncIterator[World]:
    world = World(folder, names, deduplicates)
    for name in world.names:
        await world[name].boot()
    for name in world.names:
        await world.connect(name)
    try:
        yield world
    finally:
        for machine in world.machines.values():
            if machine.alive:
                await machine.kill()
