"""Registries that grow apart, meet, and are shown forgeries: no removal is lost, nothing false believed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from identity_support import ManualClock, founded, joined, new_identity

from instar_node.errors import InstarError
from instar_node.identity.chain import fold
from instar_node.identity.registry import MachineRegistry

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Thousands of synced writes whose durability is not the point here."""
SIDES = st.integers(0, 2)


class Registries(RuleBasedStateMachine):
    """Three members; each may believe to be the holder and write, in a higher epoch once it took over."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        clock = ManualClock()
        first = founded(self.folder, "m0", clock)
        others = [joined(self.folder, f"m{n}", first, clock) for n in (1, 2)]
        self.sides: list[MachineRegistry] = [first, *others]
        for side in self.sides:
            side.merge(others[-1].records)
        self.ids = [new_identity(self.folder, f"m{n}").machine_id for n in range(3)]
        self.epoch = 1
        self.epochs = [1, 1, 1]
        self.joiners = 0
        self.buried = [frozenset[str]() for _ in self.sides]

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def attempt(self, side: int, change: str, *arguments: object) -> None:
        """Write as the holder; what the registry refuses changes nothing."""
        registry = self.sides[side]
        before = registry.head
        try:
            getattr(registry, change)(*arguments, epoch=max(self.epochs[side], registry.epoch))
        except InstarError:
            assert registry.head == before

    @rule(side=SIDES)
    def take_over(self, side: int) -> None:
        self.epoch += 1
        self.epochs[side] = self.epoch

    @rule(side=SIDES)
    def admit(self, side: int) -> None:
        if self.joiners < 4:
            self.joiners += 1
            public = new_identity(self.folder, f"j{self.joiners}").public
            self.attempt(side, "admit", public, "joiner", ["http://10.0.0.1:7707"])

    @rule(side=SIDES, which=st.integers(0, 6), name=st.sampled_from(["attic", "cellar", "m0"]))
    def rename(self, side: int, which: int, name: str) -> None:
        members = self.sides[side].active()
        self.attempt(side, "rename", members[which % len(members)].machine_id, name)

    @rule(side=SIDES, which=st.integers(0, 6), kind=st.sampled_from(["remove", "leave"]))
    def bury(self, side: int, which: int, kind: str) -> None:
        others = [m for m in self.sides[side].active() if m.machine_id != self.ids[side]]
        if others:
            self.attempt(side, kind, others[which % len(others)].machine_id)

    @rule(one=SIDES, other=SIDES, which=st.integers(0, 6))
    def hear_a_later_holder_that_missed_a_removal(self, one: int, other: int, which: int) -> None:
        self.bury(one, which, "remove")
        self.a_machine_that_is_out_stays_out()  # noted before it can be undone
        self.take_over(other)
        self.rename(other, other, f"renamed in {self.epoch}")
        self.hear(one, other)

    @rule(one=SIDES, other=SIDES)
    def hear(self, one: int, other: int) -> None:
        self.show(one, self.sides[other].records)

    @rule(one=SIDES, other=SIDES, cut=st.integers(0, 8))
    def hear_an_old_copy(self, one: int, other: int, cut: int) -> None:
        records = self.sides[other].records
        self.show(one, records[: max(1, len(records) - cut)])

    @rule(one=SIDES, other=SIDES, data=st.data())
    def be_shown_a_forgery(self, one: int, other: int, data: st.DataObject) -> None:
        records = list(self.sides[other].records)
        if len(records) < 2:
            return
        n = data.draw(st.integers(0, len(records) - 1) | st.just(len(records) - 1))
        how = data.draw(st.sampled_from(["swap", "drop", "repeat", "alter", "epoch", "signer"]))
        if how == "swap":
            m = (n + 1) % len(records)
            records[n], records[m] = records[m], records[n]
        elif how == "drop":
            n = min(n, len(records) - 2)  # without the last it is only an old copy
            del records[n]
        elif how == "repeat":
            records.insert(n, records[n])
        elif how == "alter":
            records[n] = msgspec.structs.replace(records[n], nickname="mallory")
        elif how == "epoch":
            records[n] = msgspec.structs.replace(records[n], epoch=records[n].epoch + 1)
        else:
            records[n] = msgspec.structs.replace(records[n], by=self.ids[one])
        if tuple(records) == self.sides[other].records:
            return
        registry = self.sides[one]
        before, refusals = registry.head, registry.refusals
        try:
            adopted = registry.merge(records)
        except InstarError:
            adopted = False
            assert registry.refusals == refusals + 1
        assert not adopted
        assert registry.head == before

    def show(self, side: int, records: object) -> None:
        registry = self.sides[side]
        before = registry.head
        try:
            registry.merge(records)  # type: ignore[arg-type]
        except InstarError:
            assert registry.head == before

    @invariant()
    def a_machine_that_is_out_stays_out(self) -> None:
        for n, registry in enumerate(self.sides):
            now = frozenset(m.machine_id for m in fold(registry.records).members.values() if m.removed)
            assert self.buried[n] <= now
            self.buried[n] = now

    @invariant()
    def what_is_held_is_valid_and_of_one_mesh(self) -> None:
        assert len({fold(registry.records).mesh_id for registry in self.sides}) == 1
        for registry in self.sides:
            names = [member.nickname.casefold() for member in registry.active()]
            assert len(names) == len(set(names))


TestRegistries = Registries.TestCase
TestRegistries.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
