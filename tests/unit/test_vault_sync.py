"""The vault between machines: copied to every reader, resealed by the holder, shared with nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from identity_support import FixedAuthority, ManualClock, MemoryMesh, founded, new_identity

from instar_node.contracts import PeerError
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.secret_record import MAX_VALUE_BYTES
from instar_node.identity.vault import Vault
from instar_node.identity.vault_sync import VaultPull, VaultRecords, VaultSync

VALUE = "correct horse battery staple"


class Machine:
    """One member with its vault. All share the registry of ``desk``, which holds the lease."""

    def __init__(
        self, folder: Path, name: str, registry: MachineRegistry, network: dict[str, MemoryMesh]
    ) -> None:
        clock = ManualClock()
        self.identity = new_identity(folder, name)
        self.id = self.identity.machine_id
        self.told: list[str] = []
        events = EventHub(clock)
        events.listen(lambda event: self.told.append(event.text))
        self.mesh = MemoryMesh(self.id, network)
        self.vault = Vault.load(folder / name / "machine", self.identity, registry, clock)
        self.authority = FixedAuthority(self.id, registry.records[0].machine_id)
        self.sync = VaultSync(self.mesh, self.vault, registry, self.authority, events, clock)


class World:
    """``desk``, ``mini`` and ``lap``, started, not connected."""

    def __init__(self, folder: Path) -> None:
        self.registry = founded(folder, "desk", ManualClock())
        self.network: dict[str, MemoryMesh] = {}
        for name in ("mini", "lap"):
            self.registry.admit(new_identity(folder, name).public, name, [], epoch=1)
        make = [Machine(folder, name, self.registry, self.network) for name in ("desk", "mini", "lap")]
        self.desk, self.mini, self.lap = make

    def all(self) -> tuple[Machine, ...]:
        return self.desk, self.mini, self.lap


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    for machine in world.all():
        machine.sync.start()
    try:
        yield world
    finally:
        for machine in world.all():
            await machine.sync.stop()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def quiet() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def test_a_secret_reaches_every_connected_reader_and_the_others_when_they_come(world: World) -> None:
    world.desk.mesh.connect(world.mini.id)
    world.desk.vault.set("TOKEN", VALUE, epoch=1)
    await until(lambda: world.mini.vault.value("TOKEN") == VALUE)
    world.mini.mesh.connect(world.lap.id)  # not the holder: copies come from whoever has them
    await until(lambda: world.lap.vault.value("TOKEN") == VALUE)
    world.desk.vault.remove("TOKEN", epoch=1)
    await until(lambda: world.lap.vault.names() == [])


async def test_what_two_machines_lack_of_each_other_is_exchanged_once(world: World) -> None:
    world.desk.vault.set("ONE", VALUE, epoch=1)
    world.mini.vault.set("TWO", VALUE, epoch=1)
    world.desk.mesh.connect(world.mini.id)
    await until(lambda: world.desk.vault.digest == world.mini.vault.digest)
    assert world.desk.vault.names() == ["ONE", "TWO"]


async def test_two_machines_that_refuse_something_of_each_other_do_not_ask_for_ever(world: World) -> None:
    for machine, name in ((world.desk, "ONE"), (world.mini, "TWO")):
        record = machine.vault.set(name, VALUE, epoch=1)
        machine.vault._records[name] = msgspec.structs.replace(record, signature=bytes(64))
    asked = []
    for machine in (world.desk, world.mini):
        answer = machine.mesh._requests[VaultPull]

        async def counted(peer: str, question: VaultPull, answer=answer) -> VaultRecords:
            asked.append(peer)
            return await answer(peer, question)

        machine.mesh._requests[VaultPull] = counted
    world.desk.mesh.connect(world.mini.id)
    await quiet()
    assert 2 <= len(asked) <= 4
    assert any("refused a secret from mini" in text for text in world.desk.told)
    assert world.desk.vault.names() == ["ONE"]


async def test_a_large_vault_comes_in_pages(world: World) -> None:
    for n in range(40):
        world.desk.vault.set(f"S{n}", "x" * MAX_VALUE_BYTES, epoch=1)
    page = await world.desk.mesh._requests[VaultPull](world.mini.id, VaultPull({}))
    assert isinstance(page, VaultRecords)
    assert page.more
    assert 0 < len(page.records) < 40
    world.desk.mesh.connect(world.mini.id)
    await until(lambda: len(world.mini.vault.names()) == 40)


async def test_done_means_that_every_machine_in_sync_has_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FixedAuthority, "ack_set", lambda self: frozenset({world.mini.id}))
    world.desk.vault.set("TOKEN", VALUE, epoch=1)
    waiting = asyncio.create_task(world.desk.sync.copied())
    await quiet()
    assert not waiting.done()
    world.desk.mesh.connect(world.mini.id)
    await waiting
    assert world.mini.vault.value("TOKEN") == VALUE


async def test_a_machine_that_does_not_take_it_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FixedAuthority, "ack_set", lambda self: frozenset({world.mini.id}))
    monkeypatch.setattr("instar_node.identity.vault_sync.COPIED_WITHIN_S", 0.0)
    world.desk.vault.set("TOKEN", VALUE, epoch=1)
    with pytest.raises(InstarError, match="mini does not have it yet") as caught:
        await world.desk.sync.copied()
    assert caught.value.code == "secret-not-copied"


async def test_when_a_machine_goes_the_holder_seals_everything_anew_and_says_what_it_could_read(
    world: World,
) -> None:
    world.desk.mesh.connect(world.mini.id)
    for n in range(20):
        world.desk.vault.set(f"S{n}", VALUE, epoch=1)
    world.registry.remove(world.lap.id, epoch=1)
    await until(lambda: world.desk.vault.misfits() == [])
    await until(lambda: world.mini.vault.digest == world.desk.vault.digest)
    assert all(world.lap.id not in record.readers for record in world.mini.vault.newer_than({}))
    assert any(text.startswith("lap could read S0") for text in world.desk.told)


async def test_a_holder_that_lacks_state_seals_nothing_anew_until_it_has_it(world: World) -> None:
    world.desk.vault.set("TOKEN", VALUE, epoch=1)
    there, asked = asyncio.Event(), 0

    async def require_current() -> None:
        nonlocal asked
        asked += 1
        if not there.is_set():
            raise InstarError("state-behind", "this machine lacks state")

    world.desk.sync.require_current = require_current
    world.registry.remove(world.lap.id, epoch=1)
    await until(lambda: asked > 1)
    assert world.desk.vault.misfits()
    there.set()
    await until(lambda: not world.desk.vault.misfits())


async def test_who_is_out_gets_nothing_and_forgets_what_it_had(world: World) -> None:
    world.desk.vault.set("TOKEN", VALUE, epoch=1)
    world.desk.mesh.connect(world.lap.id)
    await until(lambda: world.lap.vault.value("TOKEN") == VALUE)
    world.registry.remove(world.lap.id, epoch=1)
    await until(lambda: world.lap.vault.names() == [])
    with pytest.raises(PeerError, match="is given no secrets"):
        await world.lap.mesh.request(world.desk.id, VaultPull({}), VaultRecords, within=1)


async def test_a_holder_that_was_no_reader_asks_one_that_is(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.mini.vault.set("TOKEN", VALUE, epoch=1)
        record = world.mini.vault.record("TOKEN")
        assert record is not None
        # sealed before desk could read it
        draft = msgspec.structs.replace(record, wrapped={}, signature=b"", sealed=b"", nonce=b"")
        readers = {world.mini.id: world.mini.identity.public.encryption_public}
        from instar_node.identity.secret_record import written

        only = written(world.mini.identity, world.registry.mesh_id, draft, VALUE, readers)
        world.mini.vault._keep([only])
        world.desk.mesh.connect(world.mini.id)
        await until(lambda: world.desk.vault.value("TOKEN") == VALUE)
        await until(lambda: world.desk.vault.misfits() == [])
        await until(lambda: world.mini.vault.digest == world.desk.vault.digest)
