"""State syncs of several machines on one loop: real repositories and folders, a mesh in memory, a lease that
the test hands about, and a path hub that a test may garble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pygit2

from instar_node.clock import SystemClock
from instar_node.coordination.git_repository import LeaseRepository
from instar_node.coordination.hub import Hub
from instar_node.coordination.record import PURPOSE, LeaseRecord, sign_record
from instar_node.events import Event, EventHub
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry
from instar_node.storage.home import Home
from instar_node.sync.facts import SyncFacts
from instar_node.sync.state_sync import StateSync
from instar_node.wiring.lease_proof import prove
from instar_node.wiring.state_hub import STATE_REF, StateHubs
from tests.unit import sync_support as _fsync_off  # noqa: F401 - importing it switches syncing off
from tests.unit.fakes_mesh import Net
from tests.unit.identity_support import new_identity


class Lease:
    """What all machines are told of the lease: one truth, seen by each as its own part."""

    def __init__(self) -> None:
        self.epoch = 0
        self.holder: str | None = None
        self.state_head = ""
        self.raw = b""
        self.benched = self.incomplete = False


class LeaseView:
    """Implements ``StateLease`` for one machine. ``deaf``: it has not heard of later changes."""

    def __init__(self, me: str, lease: Lease, others: Callable[[], frozenset[str]]) -> None:
        self.me = me
        self._lease = lease
        self._others = others
        self._heard = (0, None, "", b"")
        self._callbacks: list[Callable[[], None]] = []
        self.valid = True

    def hear(self) -> None:
        """Learn the newest record."""
        lease = self._lease
        self._heard = (lease.epoch, lease.holder, lease.state_head, lease.raw)  # type: ignore[assignment]
        for callback in self._callbacks:
            callback()

    @property
    def epoch(self) -> int:
        return self._heard[0]

    @property
    def holder(self) -> str | None:
        return self._heard[1]

    @property
    def state_head(self) -> str:
        return self._heard[2]

    @property
    def benched(self) -> bool:
        return self._lease.benched

    @property
    def bench_ttl_us(self) -> int:
        return 60_000

    @property
    def incomplete(self) -> bool:
        return self._lease.incomplete

    def proof(self) -> bytes:
        return self._heard[3]

    def acting_epoch(self) -> int | None:
        return self.epoch if self.valid and self.holder == self.me else None

    def ack_set(self) -> frozenset[str]:
        return self._others() - {self.me}

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)


class Markers:
    """Implements ``Checkpoints`` over a dictionary."""

    def __init__(self) -> None:
        self.left: dict[str, bytes] = {}
        self.taken: dict[str, bytes] = {}
        self.by: str | None = None

    async def blocks(self) -> dict[str, bytes]:
        return dict(self.left)

    async def take_in(self, machine: str, blocks: Mapping[str, bytes]) -> int:
        self.by, self.taken = machine, dict(blocks)
        return len(blocks)


class Machine:
    """One machine; ``state`` is its folder."""

    def __init__(self, world: World, name: str, identity: MachineIdentity, registry: MachineRegistry) -> None:
        self.name = name
        self.identity = identity
        self.registry = registry
        self.home = Home(world.folder / name)
        self.state = self.home.state
        self._world = world
        self.lease = LeaseView(identity.machine_id, world.lease, world.ids)
        self.mesh = world.net.node(identity.machine_id)
        self.told: list[Event] = []
        self.on_event: Callable[[Event], None] = lambda event: None
        self.markers = Markers()
        self.own_files: dict[str, bytes] = {}
        """The sealed secrets that this machine knows."""
        self.learn_secrets: Callable[[Mapping[str, bytes]], None] = self.own_files.update
        self.sync: StateSync

    @property
    def id(self) -> str:
        return self.identity.machine_id

    async def start(self) -> None:
        events = EventHub(SystemClock())
        events.listen(self.told.append)
        events.listen(lambda event: self.on_event(event))
        hub = self._world.hub_of_mesh
        self.sync = StateSync(
            home=self.home,
            identity=self.identity,
            registry=self.registry,
            mesh=self.mesh,
            lease=self.lease,
            find_hub=StateHubs(lambda: hub, self.home.state_repository),
            prove=prove,
            events=events,
            clock=SystemClock(),
            own_files=lambda: dict(self.own_files),
            learn_secrets=lambda files: self.learn_secrets(files),
            checkpoints=self.markers,
        )
        await self.sync.start()

    @property
    def facts(self) -> SyncFacts:
        return self.sync.facts()

    def write(self, path: str, content: str | bytes) -> None:
        file = self.state / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, path: str) -> str | None:
        file = self.state / path
        return file.read_text() if file.is_file() else None

    def files(self) -> dict[str, bytes]:
        """What the folder holds, without the mesh's own files."""
        found = {}
        for file in self.state.rglob("*"):
            path = str(file.relative_to(self.state))
            if file.is_file() and path.split("/")[0] not in (".git", ".instar", "machines", "pins"):
                found[path] = file.read_bytes()
        return found

    def refused(self) -> list[str]:
        """Codes of the rules that were broken."""
        return [line.code for line in self.facts.refused]


class World:
    """Machines, ``desk`` being the founder. ``hub`` is the path of a bare repository, or ``None``."""

    def __init__(self, folder: Path, hub: bool) -> None:
        self.folder = folder
        self.net = Net()
        self.lease = Lease()
        self.machines: list[Machine] = []
        self.hub: Path | None = None
        if hub:
            self.hub = folder / "hub.git"
            LeaseRepository(self.hub).create()
        self.hub_of_mesh = Hub("embedded", "") if self.hub is None else Hub("path", str(self.hub))
        """What every machine takes for the mesh's hub; ``hub`` is where its ref can be seen."""

    def ids(self) -> frozenset[str]:
        return frozenset(machine.id for machine in self.machines)

    async def add(self, name: str) -> Machine:
        """A machine; the first founds the mesh, ``desk`` admits the others. It starts at once."""
        identity = new_identity(self.folder, name)
        folder = self.folder / name / "machine"
        if not self.machines:
            registry = MachineRegistry.found(folder, identity, SystemClock(), name, [], epoch=1)
        else:
            host = self.machines[0].registry
            host.admit(identity.public, name, [], epoch=max(1, self.lease.epoch))
            for other in self.machines[1:]:
                other.registry.merge(host.records)
            registry = MachineRegistry.adopt(folder, identity, SystemClock(), host.records, host.mesh_id)
        machine = Machine(self, name, identity, registry)
        self.machines.append(machine)
        machine.lease.hear()
        await machine.start()
        return machine

    def elect(self, machine: Machine, epoch: int | None = None, *, deaf: tuple[Machine, ...] = ()) -> None:
        """Give a machine the lease in the next epoch; ``deaf`` machines do not hear of it yet."""
        lease = self.lease
        lease.epoch, lease.holder = epoch or lease.epoch + 1, machine.id
        record = LeaseRecord(
            epoch=lease.epoch,
            serial=lease.epoch,
            prev=None,
            holder=machine.id,
            incarnation="one",
            electorate=tuple(sorted(self.ids())),
            benched=(),
            ttl_ms=6_000,
            bench_ttl_ms=120_000,
            state_head=lease.state_head,
        )
        identity, mesh_id = machine.identity, machine.registry.mesh_id
        lease.raw = sign_record(record, lambda data: identity.sign(PURPOSE, mesh_id, data)).encode()
        for other in self.machines:
            if other not in deaf:
                other.lease.hear()

    async def in_step(self, *machines: Machine) -> None:
        """All have the same state, none of their edits waits, and their folders are equal."""
        chosen = machines or tuple(self.machines)

        def equal() -> bool:
            facts = [machine.facts for machine in chosen]
            done = all(f.head is not None and f.head == f.published and not f.queue for f in facts)
            if not done or len({f.head for f in facts}) > 1:
                return False
            folders = [machine.files() for machine in chosen]
            return all(folder == folders[0] for folder in folders)

        await until(equal, lambda: [(m.name, m.facts, list(m.files())[:20]) for m in chosen])

    def hub_tip(self) -> str | None:
        """What the hub's state ref names."""
        reference = pygit2.Repository(str(self.hub)).references.get(STATE_REF)
        return None if reference is None else str(reference.target)

    def set_hub_tip(self, commit: str | None) -> None:
        """What a hostile host, or anybody with its credentials, may do."""
        repository = pygit2.Repository(str(self.hub))
        if commit is None:
            repository.references.delete(STATE_REF)
        else:
            repository.references.create(STATE_REF, pygit2.Oid(hex=commit), force=True)

    def plant(self, raw: bytes) -> str:
        """Put a commit object into the hub's repository."""
        return str(pygit2.Repository(str(self.hub)).write(pygit2.enums.ObjectType.COMMIT, raw))


@asynccontextmanager
async def a_world(folder: Path, *names: str, hub: bool = False, over_ssh: bool = False) -> AsyncIterator[Any]:
    """The world and its machines, the first of them awake in epoch 1 and all of them in step.

    ``over_ssh``: the hub is a remote one, whose ssh server the caller's environment provides.
    """
    world = World(folder, hub or over_ssh)
    if over_ssh:
        world.hub_of_mesh = Hub("remote", f"ssh://nas{world.hub}")
    try:
        machines = [await world.add(name) for name in names]
        world.elect(machines[0])
        await world.in_step()
        yield (world, *machines)
    finally:
        for machine in world.machines:
            await machine.sync.stop()


async def until(condition: Callable[[], bool], shown: Callable[[], Any] = str, within: float = 20.0) -> None:
    """Wait for what the machines bring about by themselves."""
    try:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never happened: {shown()}") from None
