"""Moving the lease to another hub: who may open the new register, when, and who learns where it lies."""

from __future__ import annotations

from typing import Any

import msgspec

from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_coordinator import Effect, LeaseCoordinator, ReadHub, SendSwap
from instar_node.coordination.lease_state import DurableLease, LeaseTiming
from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord

SECOND = 1_000_000
TIMING = LeaseTiming(ttl=6 * SECOND, round=2 * SECOND, bench_ttl=120 * SECOND, drift=0.01)
OLD, NEW, OWN_DISK = HubPlace("/old/hub.git", "o"), HubPlace("/new/hub.git", "n"), HubPlace("", "d")


def held(**changes: Any) -> KnownRecord:
    fields: dict[str, Any] = {
        "epoch": 3,
        "serial": 5,
        "prev": "v4",
        "holder": "a",
        "incarnation": "a1",
        "electorate": ("a", "b"),
        "benched": ("c",),
        "ttl_ms": 6_000,
        "bench_ttl_ms": 120_000,
        "nonce": "n5",
        "hub": OLD,
    }
    record = LeaseRecord(**{**fields, **changes})
    return KnownRecord(record, f"v{record.serial}")


def closing(hub: HubPlace = NEW, **changes: Any) -> KnownRecord:
    """Machine ``a`` moved the lease: its last word in the old register."""
    successor = None if hub.url else "a"
    record = held(serial=6, prev="v5", nonce="n6", state="closed", hub=hub, successor=successor, **changes)
    return KnownRecord(record.record, "v6")


class NoPeers:
    def connected(self, machine: str) -> bool:
        return False

    def caught_up(self, machine: str) -> bool:
        return False

    def missing(self) -> frozenset[str]:
        return frozenset()

    def compared(self, machine: str) -> bool:
        return False


class Machine:
    """One machine's lease and what its coordinator does about it."""

    def __init__(self, me: str, known: KnownRecord | None = None, incarnation: str = "") -> None:
        durable = DurableLease(newest=known)
        self.lease = FencedLease(me, incarnation or f"{me}1", TIMING, durable)
        nonces = iter(f"{me}-{n}" for n in range(100))
        self.coordinator = LeaseCoordinator(self.lease, lambda: next(nonces), lambda: "")
        self.coordinator.boot(0)

    def tick(self, now: int) -> list[Effect]:
        return self.coordinator.tick(now, NoPeers())

    def swap(self, now: int) -> SendSwap:
        swaps = [effect for effect in self.tick(now) if isinstance(effect, SendSwap)]
        assert len(swaps) == 1
        return swaps[0]


def holder(known: KnownRecord) -> Machine:
    machine = Machine("a", KnownRecord(msgspec.structs.replace(known.record, serial=4, nonce=""), "v4"))
    machine.lease.begin_swap(known.record, "contend", 0, "v4")
    machine.coordinator.on_won(known, 0)
    return machine


def moving(hub: HubPlace, known: KnownRecord | None = None) -> Machine:
    """Machine ``a`` has just won the swap that closed its register in favour of ``hub``."""
    machine = holder(known or held())
    lease = machine.lease
    lease.cease("v5")
    record = lease.moving_record(hub, reason="", at="", nonce="n6")
    machine.coordinator.begin(record, "close", SECOND)
    machine.coordinator.on_won(KnownRecord(record, "v6"), SECOND)
    return machine


def test_who_moves_the_lease_stops_acting_before_the_closing_leaves() -> None:
    machine = holder(held())
    assert machine.lease.acting_epoch(SECOND) == 3
    machine.lease.cease("v5")
    assert machine.lease.acting_epoch(SECOND) is None


def test_the_closing_goes_to_the_old_register_and_the_opening_to_the_new_one() -> None:
    machine = holder(held())
    machine.lease.cease("v5")
    record = machine.lease.moving_record(NEW, reason="", at="", nonce="n6")
    closed = machine.coordinator.begin(record, "close", SECOND).swap
    assert (closed.hub, closed.expected, closed.record.hub) == (OLD, "v5", NEW)
    machine.coordinator.on_won(KnownRecord(record, "v6"), SECOND)
    opened = machine.swap(SECOND).swap
    assert (opened.hub, opened.expected, opened.record.hub) == (NEW, None, NEW)
    assert (opened.record.epoch, opened.record.prev) == (4, "v6")
    assert (opened.record.electorate, opened.record.benched) == (("a", "b"), ("c",))


def test_the_mover_opens_the_new_register_at_once_and_acts_in_the_next_epoch() -> None:
    machine = moving(NEW)
    assert machine.lease.acting_epoch(SECOND) is None
    swap = machine.swap(SECOND).swap
    machine.coordinator.on_won(KnownRecord(swap.record, "v7"), 2 * SECOND)
    assert machine.lease.acting_epoch(2 * SECOND) == 4


def test_anybody_else_who_may_contend_opens_it_after_the_same_wait() -> None:
    for me, wait in (("b", 6 * SECOND), ("c", 120 * SECOND)):
        machine = Machine(me, held())
        machine.lease.learn(closing(), SECOND)
        due = SECOND + TIMING.wait(wait)
        assert machine.lease.may_contend_at(SECOND) == due
        opened = machine.swap(due).swap
        assert (opened.hub, opened.expected, opened.record.prev) == (NEW, None, "v6")
        assert "a" in opened.record.benched
    stranger = Machine("d", held())
    stranger.lease.learn(closing(), SECOND)
    assert stranger.lease.may_contend_at(200 * SECOND) == "not-a-member"


def test_a_mover_that_crashed_in_between_waits_like_anybody_else() -> None:
    machine = Machine("a", closing(), incarnation="a2")
    assert machine.lease.may_contend_at(0) == TIMING.wait(6 * SECOND)


def test_a_lone_mover_that_crashed_in_between_goes_on_at_once() -> None:
    machine = Machine("a", closing(electorate=("a",), benched=()), incarnation="a2")
    assert machine.swap(0).swap.expected is None


def test_a_new_register_without_a_record_is_no_rewound_hub() -> None:
    machine = Machine("b", closing())
    for now in (SECOND, 2 * SECOND):
        machine.lease.on_read(None, machine.lease.order, now, now)
    assert machine.lease.durable.evidence is None


def test_a_register_that_the_lease_left_earlier_is_opened_from_the_record_that_closed_it() -> None:
    back = HubPlace(OLD.url, OLD.id, "closed earlier")
    machine = Machine("b", closing(back))
    left = KnownRecord(held(epoch=2, serial=3, state="closed", hub=NEW).record, "closed earlier")
    for now in (SECOND, 2 * SECOND):
        machine.lease.on_read(left, machine.lease.order, now, now)
    assert machine.lease.durable.evidence is None
    opened = machine.swap(TIMING.wait(6 * SECOND)).swap
    assert (opened.hub, opened.expected) == (back, "closed earlier")


def test_a_register_that_lost_its_record_stops_nobody() -> None:
    known = held(epoch=4, serial=7, prev="v6", nonce="n7", hub=NEW)
    machine = Machine("b", known)
    for now in (SECOND, 2 * SECOND):
        machine.lease.on_read(None, machine.lease.order, now, now)
    assert machine.lease.durable.evidence is None


def test_everybody_reads_the_register_that_the_newest_record_names() -> None:
    machine = Machine("b", held())
    assert ReadHub(OLD) in machine.tick(0)
    machine.lease.learn(closing(), 1)
    machine.coordinator.on_hub_moved(1)
    machine.coordinator.on_read(held(), (3, 5), 0, 2)
    assert machine.tick(2) == [ReadHub(NEW)]


def test_an_answer_of_the_old_register_says_nothing_of_the_own_disk() -> None:
    machine = Machine("b", held())
    machine.tick(0)
    machine.lease.learn(closing(OWN_DISK), 1)
    machine.coordinator.on_read(held(), (3, 5), 0, 2)
    assert machine.coordinator.own_tip is None


def test_a_machine_that_was_away_learns_the_hub_from_any_later_record() -> None:
    machine = Machine("b", held())
    later = held(epoch=9, serial=30, prev="v29", nonce="n30", hub=NEW)
    machine.lease.learn(later, SECOND)
    assert machine.lease.hub == NEW
    assert Machine("b", later).lease.hub == NEW


def test_a_move_to_the_own_disk_makes_the_lease_a_baton_that_only_the_mover_opens() -> None:
    machine = moving(OWN_DISK)
    machine.coordinator.on_own_register(held(serial=1), SECOND)
    opened = machine.swap(SECOND).swap
    assert (opened.hub, opened.expected) == (OWN_DISK, "v1")
    machine.coordinator.on_won(KnownRecord(opened.record, "v7"), SECOND)
    assert machine.lease.acting_epoch(1_000 * SECOND) == 4
    assert machine.coordinator.own_tip == "v7"
    other = Machine("b", held())
    other.lease.learn(closing(OWN_DISK), SECOND)
    assert other.lease.may_contend_at(1_000 * SECOND) == "needs-the-baton"


def test_a_mover_to_its_own_disk_that_crashed_in_between_opens_it_when_it_is_back() -> None:
    machine = Machine("a", closing(OWN_DISK), incarnation="a2")
    machine.tick(0)
    machine.coordinator.on_own_register(None, 0)
    assert machine.swap(TIMING.ttl).swap.record.epoch == 4


def test_an_embedded_holder_looks_at_its_own_register_before_it_goes_on() -> None:
    machine = Machine("a", held(electorate=("a",), benched=(), hub=OWN_DISK), incarnation="a2")
    assert [type(effect) for effect in machine.tick(0)] == [ReadHub]
    machine.coordinator.on_own_register(closing(OWN_DISK, electorate=("a",), benched=()), 0)
    assert machine.swap(0).swap.record.prev == "v6"


def test_a_move_from_the_own_disk_ends_the_baton() -> None:
    machine = moving(NEW, held(hub=OWN_DISK))
    swap = machine.swap(SECOND).swap
    machine.coordinator.on_won(KnownRecord(swap.record, "v7"), SECOND)
    assert machine.lease.deadline == SECOND + TIMING.ttl
    assert not Machine("b", KnownRecord(swap.record, "v7")).lease.baton


def test_a_closing_whose_outcome_is_unknown_is_sent_again_and_never_acted_on() -> None:
    machine = holder(held())
    machine.lease.cease("v5")
    record = machine.lease.moving_record(NEW, reason="", at="", nonce="n6")
    machine.coordinator.begin(record, "close", SECOND)
    machine.coordinator.on_unknown(2 * SECOND, 1)
    again = machine.swap(4 * SECOND).swap
    assert (again.record, again.hub) == (record, OLD)
    assert machine.lease.acting_epoch(2 * SECOND) is None


def test_a_takeover_on_the_old_hub_that_was_faster_ends_the_move() -> None:
    machine = holder(held())
    machine.lease.cease("v5")
    machine.coordinator.begin(machine.lease.moving_record(NEW, reason="", at="", nonce="n6"), "close", SECOND)
    taken = held(epoch=4, serial=6, prev="v5", holder="b", incarnation="b1", nonce="n6b")
    machine.coordinator.on_lost(KnownRecord(taken.record, "w6"), 2 * SECOND)
    assert machine.lease.hub == OLD
    assert machine.lease.durable.evidence is None
    due = machine.lease.may_contend_at(2 * SECOND)
    assert due == 2 * SECOND + TIMING.wait(6 * SECOND)


def test_a_forced_takeover_stays_with_the_hub_of_the_newest_record() -> None:
    machine = Machine("b", closing())
    assert machine.lease.force_record(at="", nonce="x").hub == NEW
