"""Machines of a pool on an in-memory mesh: one replicated placement log, agents that end when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from instar_node.clock import SystemClock
from instar_node.contracts import Placement, Provenance, RunRequest, RunResult
from instar_node.errors import InstarError
from instar_node.events import Event, EventHub
from instar_node.pool.machine_pool import MachinePoolRegistry
from instar_node.pool.nicknames import RelocationNicknameSet
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.queued_moves import QueuedMoves
from instar_node.pool.run_host import RunHost
from instar_node.pool.session_router import SessionRouter
from instar_node.pool.tail_first import TailFirst
from instar_node.pool.transfers import Transfers
from tests.unit.fakes_mesh import FakeAuthority, FakeMembers, Net

DESK, MINI, LAPTOP = "m-desk", "m-mini", "m-laptop"


class FakeLog:
    """Placements, replicated to every machine in the instant they are written."""

    def __init__(self) -> None:
        self.rows: dict[str, Placement] = {}
        self.writes: list[Placement] = []
        self.refusals = 0

    def placement(self, topic: str) -> Placement | None:
        return self.rows.get(topic)

    def placements(self) -> Iterable[Placement]:
        return list(self.rows.values())

    async def set_placement(self, placement: Placement) -> None:
        await asyncio.sleep(0)
        if self.refusals:
            self.refusals -= 1
            raise InstarError("not-replicated", "the electorate did not answer in time")
        self.rows[placement.topic] = placement
        self.writes.append(placement)


class FakeRunner:
    """An agent that works on a message until the test ends it; ``auto`` answers at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.auto = True
        self.stubborn = False
        """A cancelled run ends only when the test says so."""
        self.harmless = True
        self.requests: list[RunRequest] = []
        self._runs: dict[str, tuple[str, asyncio.Future[RunResult]]] = {}

    async def run(self, request: RunRequest) -> RunResult:
        assert request.key not in self._runs, "one message is run twice at the same time"
        self.requests.append(request)
        if self.auto:
            return RunResult("ok", (f"{self.name} says {request.text}",))
        future: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self._runs[request.key] = (request.topic, future)
        try:
            return await future
        finally:
            del self._runs[request.key]

    def needs_history(self, topic: str) -> bool:
        return True

    def acts(self, topic: str) -> bool:
        return not self.harmless

    def finish(self, key: str, result: RunResult) -> None:
        self._runs[key][1].set_result(result)

    def cancel(self, key: str) -> bool:
        if key not in self._runs:
            return False
        if not self.stubborn and not self._runs[key][1].done():
            self.finish(key, RunResult("cancelled"))
        return True

    def running(self, topic: str | None = None) -> Iterable[str]:
        return [key for key, (of, _) in self._runs.items() if topic in (None, of)]


class FakeWork:
    """What delivery would say of answers that are being sent."""

    def __init__(self) -> None:
        self.sending: set[str] = set()

    def mid_reply(self, topic: str) -> bool:
        return topic in self.sending


class FakeTail:
    """Copies of the conversation that are complete or not, and who was waited for."""

    def __init__(self) -> None:
        self.complete = True
        self.asked: list[str] = []

    async def caught_up(self, machine: str, within: float) -> bool:
        self.asked.append(machine)
        return self.complete


class Machine:
    def __init__(self, net: Net, nickname: str, members: FakeMembers, log: FakeLog, ttl_us: int) -> None:
        self.id = f"m-{nickname}"
        self.mesh, self.authority = net.node(self.id), FakeAuthority(self.id)
        self.clock = SystemClock()
        self.events = EventHub(self.clock)
        self.told: list[Event] = []
        self.events.listen(self.told.append)
        self.runner = FakeRunner(nickname)
        self.work, self.tail = FakeWork(), FakeTail()
        self.pins = TopicPlacementPinStore(log, self.authority)
        self.pool = MachinePoolRegistry(
            self.mesh, members, self.authority, self.pins, self.runner, self.clock
        )
        self.host = RunHost(self.runner, self.mesh, self.authority, self.clock, self.events)
        self.router = SessionRouter(
            self.host,
            self.pins,
            self.pool,
            self.mesh,
            self.authority,
            self.clock,
            self.events,
            holder_before={2: DESK}.get,
            grant_ttl_us=ttl_us,
            drift=0.01,
        )
        self.nicknames = RelocationNicknameSet(members, self.id)
        first = TailFirst(self.tail, members, self.authority)
        self.transfers = Transfers(
            self.router,
            self.pins,
            self.pool,
            self.nicknames,
            members,
            self.authority,
            self.work,
            first,
            self.clock,
            self.events,
        )
        self.queued = QueuedMoves(
            self.router,
            self.pins,
            self.pool,
            members,
            self.mesh,
            self.authority,
            first,
            self.events,
        )

    async def start(self) -> None:
        await self.host.start()
        await self.pool.start()
        await self.queued.start()

    async def stop(self) -> None:
        await self.queued.stop()
        await self.pool.stop()
        await self.host.stop()


class World:
    """desk, mini and laptop; desk holds epoch 1."""

    def __init__(self, ttl_us: int = 150_000) -> None:
        self.net, self.log = Net(), FakeLog()
        self.members = FakeMembers("desk", "mini", "laptop")
        self.desk, self.mini, self.laptop = (
            Machine(self.net, name, self.members, self.log, ttl_us) for name in ("desk", "mini", "laptop")
        )
        self.all = (self.desk, self.mini, self.laptop)

    async def __aenter__(self) -> World:
        for machine in self.all:
            await machine.start()
        self.lease(DESK, 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        for machine in self.all:
            await machine.stop()

    def lease(self, holder: str, epoch: int, *who: Machine) -> None:
        """All (or these) learn who holds the lease."""
        for machine in who or self.all:
            machine.authority.set(holder, epoch)

    def pin(self, topic: str, machine: str, epoch: int = 1, n: int = 1) -> None:
        self.log.rows[topic] = Placement(topic, machine, epoch, n, "pinned", machine)


def request(
    key: str = "k1",
    topic: str = "42",
    text: str = "hello",
    epoch: int = 1,
    n: int = 1,
    begun_before: bool = False,
) -> RunRequest:
    provenance = Provenance("?", epoch, None, True)
    return RunRequest(key, topic, text, "ada", "", epoch, n, (), provenance, begun_before=begun_before)
