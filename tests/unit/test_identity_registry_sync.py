"""The registry reaches every machine, whoever is connected to whom, and wishes reach the holder."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from identity_support import FixedAuthority, ManualClock, MemoryMesh, founded, joined, new_identity

from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.identity import registry_sync
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.registry_sync import RegistryNews, RegistrySync


@dataclass
class Machine:
    """One machine of a test: its registry, mesh and exchange."""

    registry: MachineRegistry
    mesh: MemoryMesh
    sync: RegistrySync
    events: EventHub
    told: list[str]

    @property
    def id(self) -> str:
        return self.mesh.me


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def machine(
    registry: MachineRegistry, me: str, network: dict[str, MemoryMesh], holder: str, clock: ManualClock
) -> Machine:
    mesh, events, told = MemoryMesh(me, network), EventHub(clock), list[str]()
    events.listen(lambda event: told.append(event.text))
    epoch = 1_000 if registry.epoch >= 1_000 else 1
    sync = RegistrySync(mesh, registry, FixedAuthority(me, holder, epoch), events, clock)
    sync.start()
    return Machine(registry, mesh, sync, events, told)


@pytest.fixture
def trio(tmp_path: Path, clock: ManualClock) -> tuple[Machine, Machine, Machine]:
    """``a`` (the holder) and ``b`` paired; ``c`` a third that only ``a`` will admit. No tunnels yet."""
    a = founded(tmp_path, "a", clock)
    b = joined(tmp_path, "b", a, clock)
    holder = a.active()[0].machine_id
    first = MachineRegistry.load(tmp_path / "b" / "machine", new_identity(tmp_path, "b"), clock)
    assert first is not None
    c = joined(tmp_path, "c", a, clock)
    network: dict[str, MemoryMesh] = {}
    ids = [member.machine_id for member in c.active()]
    machines = [machine(r, me, network, holder, clock) for r, me in zip((a, b, c), ids, strict=True)]
    return machines[0], machines[1], machines[2]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_a_machine_admitted_at_one_is_known_at_the_others_at_once(
    tmp_path: Path, trio: tuple[Machine, Machine, Machine]
) -> None:
    a, b, _ = trio
    a.mesh.connect(b.id)
    await settle()
    late = new_identity(tmp_path, "late").public
    a.registry.admit(late, "late", [], epoch=1)
    await asyncio.sleep(0)  # one step: the record came with the news, nothing had to be asked
    member = b.registry.get(late.machine_id)
    assert member is not None
    assert member.encryption_public == late.encryption_public


async def test_a_tunnel_that_comes_up_brings_both_to_the_longer_chain(
    trio: tuple[Machine, Machine, Machine],
) -> None:
    a, b, _ = trio
    assert len(b.registry.active()) == 2
    b.mesh.connect(a.id)
    await settle()
    assert b.registry.head == a.registry.head


async def test_changes_travel_over_a_machine_in_between(trio: tuple[Machine, Machine, Machine]) -> None:
    a, b, c = trio
    a.mesh.connect(b.id)
    await settle()
    b.mesh.connect(c.id)
    a.registry.rename(a.id, "desk", epoch=1)
    await settle()
    assert c.registry.nickname(a.id) == "desk"


async def test_a_long_gap_is_pulled(
    trio: tuple[Machine, Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = trio
    for n in range(5):
        a.registry.rename(a.id, f"name{n}", epoch=1)
    b.mesh.lose_requests = 2
    b.mesh.connect(a.id)
    await settle()
    assert b.registry.head == a.registry.head


async def test_a_pull_that_keeps_failing_is_given_up_and_shown(
    trio: tuple[Machine, Machine, Machine], clock: ManualClock
) -> None:
    a, b, _ = trio
    for n in range(5):
        a.registry.rename(a.id, f"name{n}", epoch=1)
    b.mesh.lose_requests = 99
    b.mesh.connect(a.id)
    await settle()
    assert clock.slept == [registry_sync.PULL_PAUSE_S] * registry_sync.PULL_TRIES
    assert any("could not fetch the registry" in text for text in b.told)


async def test_a_forged_registry_is_refused_counted_and_shown(
    trio: tuple[Machine, Machine, Machine],
) -> None:
    a, b, _ = trio
    b.mesh.connect(a.id)
    await settle()
    forged = msgspec.structs.replace(a.registry.records[-1], n=3, prev=a.registry.head, nickname="evil")
    a.mesh.send(b.id, RegistryNews(4, "00", (forged,)))
    await settle()
    assert b.registry.refusals == 1
    assert any("refused the registry of a" in text for text in b.told)
    assert b.registry.head == a.registry.head


async def test_a_removal_on_a_chain_that_lost_is_made_again_by_the_holder(
    tmp_path: Path, clock: ManualClock
) -> None:
    a = founded(tmp_path, "a", clock)
    third = new_identity(tmp_path, "third").public
    a.admit(third, "third", [], epoch=1)
    b = joined(tmp_path, "b", a, clock)
    ids = [member.machine_id for member in b.active()]
    a.remove(third.machine_id, epoch=1)
    b.rename(ids[2], "bee", epoch=1_000)
    network: dict[str, MemoryMesh] = {}
    one = machine(a, ids[0], network, ids[2], clock)
    two = machine(b, ids[2], network, ids[2], clock)
    one.mesh.connect(two.id)
    await settle()
    for side in (one, two):
        member = side.registry.get(third.machine_id)
        assert member is not None
        assert member.removed
        assert side.registry.nickname(ids[2]) == "bee"
    assert a.head == b.head


async def test_a_peer_whose_chain_lost_is_told_of_the_one_that_stands(
    tmp_path: Path, clock: ManualClock
) -> None:
    a = founded(tmp_path, "a", clock)
    b = joined(tmp_path, "b", a, clock)
    ids = [member.machine_id for member in b.active()]
    a.rename(ids[0], "new", epoch=1_000)
    network: dict[str, MemoryMesh] = {}
    one = machine(a, ids[0], network, ids[0], clock)
    machine(b, ids[1], network, ids[0], clock)
    one.mesh.connect(ids[1], silently=True)
    b.rename(ids[1], "bee", epoch=1)  # b's news is all that is sent
    await settle()
    assert b.head == a.head
    assert b.nickname(ids[0]) == "new"


async def test_without_a_reachable_holder_a_wish_is_refused_naming_it(
    trio: tuple[Machine, Machine, Machine],
) -> None:
    _, b, _ = trio
    with pytest.raises(InstarError) as refusal:
        await b.sync.leave()
    assert refusal.value.code == "holder-unreachable"
    assert refusal.value.message.startswith("a, the awake machine")


async def test_a_standby_records_nobodys_wishes(trio: tuple[Machine, Machine, Machine]) -> None:
    _, b, c = trio
    with pytest.raises(InstarError) as refusal:
        await b.sync._on_ask_leave(c.id, registry_sync.AskLeave())
    assert refusal.value.code == "not-awake"


async def test_who_leaves_knows_it_and_so_does_everybody(trio: tuple[Machine, Machine, Machine]) -> None:
    a, b, c = trio
    for side in (b, c):
        side.mesh.connect(a.id)
    await settle()
    await b.sync.leave()
    await settle()
    for side in (a, b, c):
        member = side.registry.get(b.id)
        assert member is not None
        assert member.removed
    assert a.registry.records[-1].kind == "leave"


async def test_a_leaver_is_out_even_if_the_holder_stops_before_recording_it(
    trio: tuple[Machine, Machine, Machine],
) -> None:
    a, b, _ = trio
    b.mesh.connect(a.id)
    await settle()
    reply = await a.sync._on_ask_leave(b.id, registry_sync.AskLeave())
    again = await a.sync._on_ask_leave(b.id, registry_sync.AskLeave())
    assert reply == again
    await a.sync.stop()
    assert a.registry.records == reply.records


async def test_the_awake_machine_cannot_leave(trio: tuple[Machine, Machine, Machine]) -> None:
    with pytest.raises(InstarError) as refusal:
        await trio[0].sync.leave()
    assert refusal.value.code == "is-awake"


async def test_a_removed_machine_hears_of_it_before_its_tunnel_closes(
    trio: tuple[Machine, Machine, Machine],
) -> None:
    a, b, _ = trio
    b.mesh.connect(a.id)
    await settle()
    known_at_b: list[bool] = []

    def close_tunnel() -> None:
        member = b.registry.get(b.id)
        assert member is not None
        known_at_b.append(member.removed)

    a.registry.on_change(close_tunnel)
    await a.sync.remove(b.id, epoch=1)
    assert known_at_b == [True]
    assert a.registry.head == b.registry.head


async def test_an_unreachable_machine_is_removed_all_the_same(trio: tuple[Machine, Machine, Machine]) -> None:
    a, b, _ = trio
    await a.sync.remove(b.id, epoch=1)
    assert a.registry.records[-1].kind == "remove"
