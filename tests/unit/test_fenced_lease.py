"""Rules of the lease, each with the schedule that goes wrong without it."""

from __future__ import annotations

from typing import Any

from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_mutations import Mutations
from instar_node.coordination.lease_state import LeaseTiming
from instar_node.coordination.record import KnownRecord, LeaseRecord

SECOND = 1_000_000
TIMING = LeaseTiming(ttl=6 * SECOND, round=2 * SECOND, bench_ttl=120 * SECOND, drift=0.01)


def record(**changes: Any) -> LeaseRecord:
    fields: dict[str, Any] = {
        "epoch": 3,
        "serial": 5,
        "prev": "v4",
        "holder": "a",
        "incarnation": "a1",
        "electorate": ("a", "b"),
        "benched": (),
        "ttl_ms": 6_000,
        "bench_ttl_ms": 120_000,
        "nonce": "n5",
    }
    return LeaseRecord(**{**fields, **changes})


def machine(me: str, **options: Any) -> FencedLease:
    return FencedLease(me, f"{me}1", TIMING, **options)


def holder(**changes: Any) -> FencedLease:
    """Machine ``a`` as it is after winning ``record(**changes)`` by a swap begun at 0."""
    lease = machine("a")
    lease.begin_swap(record(**changes), "contend", 0, "v4")
    lease.on_won(KnownRecord(record(**changes), "v5"), SECOND)
    return lease


def test_validity_counts_from_before_the_swap_was_sent() -> None:
    lease = holder()
    assert lease.acting_epoch(6 * SECOND - 1) == 3
    assert lease.acting_epoch(6 * SECOND) is None


def test_promises_extend_from_the_start_of_their_round_not_from_their_arrival() -> None:
    for mutated, until in ((False, 8), (True, 9)):
        lease = holder()
        lease.mutations = Mutations(time_from_reply=mutated)
        lease.on_promise("b", "v5", 2 * SECOND, 3 * SECOND)
        assert lease.deadline == until * SECOND


def test_every_other_machine_must_promise_not_a_majority() -> None:
    lease = holder(electorate=("a", "b", "c"))
    lease.on_promise("b", "v5", 2 * SECOND, 2 * SECOND)
    assert lease.deadline == 6 * SECOND
    lease.on_promise("c", "v5", 3 * SECOND, 3 * SECOND)
    assert lease.deadline == 8 * SECOND


def test_while_somebody_is_benched_only_a_swap_renews_beyond_the_bench_ttl() -> None:
    lease = holder(benched=("c",))
    for second in range(2, 121, 2):
        lease.on_promise("b", "v5", second * SECOND, second * SECOND)
    assert lease.deadline == 120 * SECOND
    assert not lease.can_use_promises(120 * SECOND)


def test_a_contender_waits_longer_than_any_clock_within_the_drift_lets_the_holder_act() -> None:
    lease = machine("b")
    lease.learn(KnownRecord(record(), "v5"), 10 * SECOND)
    due = lease.may_contend_at(10 * SECOND)
    assert isinstance(due, int)
    slowest_holder, fastest_contender = 6 * SECOND / (1 - 0.01), (due - 10 * SECOND) / (1 + 0.01)
    assert fastest_contender >= slowest_holder


def test_an_own_promise_is_waited_out() -> None:
    lease = machine("b")
    known = KnownRecord(record(), "v5")
    lease.learn(known, 0)
    assert lease.answer_promise("a", known, 5 * SECOND) is None
    assert lease.may_contend_at(5 * SECOND) == 5 * SECOND + TIMING.wait(6 * SECOND)


def test_no_promise_while_an_own_swap_is_open() -> None:
    lease = machine("b")
    known = KnownRecord(record(), "v5")
    lease.learn(known, 0)
    swap = lease.contender_record(reason="failover", at="", nonce="x")
    lease.begin_swap(swap, "contend", 7 * SECOND, "v5")
    assert lease.answer_promise("a", known, 7 * SECOND) == "own-swap-open"


def test_a_benched_machine_waits_the_long_time_also_for_a_release() -> None:
    for state in ("held", "released"):
        lease = machine("c")
        lease.learn(KnownRecord(record(benched=("c",), state=state), "v5"), 0)
        assert lease.may_contend_at(0) == TIMING.wait(120 * SECOND)


def test_a_takeover_benches_the_former_holder_and_leaves_the_bench_where_it_is() -> None:
    lease = machine("b")
    lease.learn(KnownRecord(record(benched=("c",)), "v5"), 0)
    taken = lease.contender_record(reason="failover", at="", nonce="x")
    assert (taken.epoch, taken.prev, taken.electorate, taken.benched) == (4, "v5", ("b",), ("a", "c"))


def test_a_takeover_from_the_bench_says_whose_rows_may_be_missing() -> None:
    lease = machine("c")
    lease.learn(KnownRecord(record(benched=("c",)), "v5"), 0)
    assert lease.contender_record(reason="failover", at="", nonce="x").incomplete == ("a", "b")


def test_what_was_ceased_is_never_acted_on_again() -> None:
    lease = holder()
    lease.cease("v5")
    assert lease.acting_epoch(2 * SECOND) is None
    lease.on_promise("b", "v5", 2 * SECOND, 2 * SECOND)
    lease.on_read(KnownRecord(record(), "v5"), (3, 5), 2 * SECOND, 2 * SECOND)
    assert lease.acting_epoch(2 * SECOND) is None


def test_a_record_of_an_earlier_incarnation_is_someone_elses() -> None:
    before = holder(electorate=("a",))
    again = FencedLease("a", "a2", TIMING, before.durable)
    again.boot(SECOND)
    assert again.acting_epoch(SECOND) is None
    assert again.may_contend_at(SECOND) == SECOND
    shared = FencedLease("a", "a2", TIMING, holder().durable)
    shared.boot(SECOND)
    assert shared.may_contend_at(SECOND) == SECOND + TIMING.wait(6 * SECOND)


def test_a_newer_record_stops_the_holder_at_once() -> None:
    lease = holder()
    newer = record(epoch=4, serial=6, prev="v5", holder="b", incarnation="b1", nonce="n6")
    lease.learn(KnownRecord(newer, "v6"), 2 * SECOND)
    assert lease.acting_epoch(2 * SECOND) is None
    assert lease.durable.evidence is None


def test_a_rewound_hub_is_evidence_only_at_the_second_read() -> None:
    lease = holder()
    old = KnownRecord(record(epoch=2, serial=4, nonce="n4"), "v4")
    lease.on_read(old, (3, 5), 2 * SECOND, 2 * SECOND)
    assert lease.acting_epoch(2 * SECOND) == 3
    lease.on_read(old, (3, 5), 3 * SECOND, 3 * SECOND)
    assert lease.acting_epoch(3 * SECOND) is None
    assert lease.durable.evidence is not None


def test_a_read_is_compared_with_what_was_known_when_it_began() -> None:
    lease = machine("b")
    old = KnownRecord(record(epoch=2, serial=4, nonce="n4"), "v4")
    lease.learn(KnownRecord(record(), "v5"), SECOND)
    for _ in range(2):
        lease.on_read(old, (2, 4), 0, 2 * SECOND)
    assert lease.durable.evidence is None


def test_two_holders_of_one_record_number_are_a_split_brain() -> None:
    lease = machine("b")
    lease.learn(KnownRecord(record(), "v5"), 0)
    lease.learn(KnownRecord(record(holder="c", nonce="other"), "w5"), 1)
    assert lease.durable.evidence is not None
    assert lease.may_contend_at(100 * SECOND) == "split-brain"


def test_acknowledgements_need_the_electorates_of_every_record_that_may_be_current() -> None:
    lease = holder(benched=("c",))
    joined = lease.next_record(reason="", at="", nonce="n6", electorate=("a", "b", "c"), benched=())
    lease.begin_swap(joined, "renew", 2 * SECOND, "v5")
    assert lease.ack_set() == {"b", "c"}


def test_a_lapsed_holder_goes_on_only_after_a_later_round_and_a_later_read() -> None:
    lease = holder()
    lease.on_promise("b", "v5", 7 * SECOND, 7 * SECOND)
    assert lease.acting_epoch(7 * SECOND) is None
    lease.on_read(KnownRecord(record(), "v5"), (3, 5), 7 * SECOND, 8 * SECOND)
    lease.on_promise("b", "v5", 8 * SECOND, 8 * SECOND)
    assert lease.acting_epoch(8 * SECOND) == 3


def test_only_the_named_successor_opens_a_closing_and_a_declined_one_stays_declined() -> None:
    closing = KnownRecord(record(state="closed", successor="b"), "v6")
    named, other = machine("b", baton=True), machine("c", baton=True)
    assert other.may_open(closing) == "not-named"
    assert named.may_open(closing) is None
    named.decline("v6")
    assert named.may_open(closing) == "declined-before"


def split(lease: FencedLease) -> None:
    """Show ``a``, who holds epoch 3, a record of the same epoch held by ``b``."""
    lease.learn(KnownRecord(record(holder="b", incarnation="b1", serial=9, nonce="n9"), "w9"), 2 * SECOND)
    assert lease.durable.evidence is not None
    assert lease.acting_epoch(2 * SECOND) is None


def test_a_person_heals_above_every_line_that_was_seen() -> None:
    lease = holder(electorate=("a", "c"), benched=("d",))
    split(lease)
    healed = lease.force_record(at="", nonce="n10")
    assert (healed.epoch, healed.serial, healed.reason) == (1_000_000, 10, "healed")
    assert (healed.electorate, healed.benched) == (("a",), ("b", "c", "d"))
    assert healed.incomplete == ("b", "c", "d")


def test_a_healed_generation_frees_everybody_else_and_a_higher_epoch_of_the_disputed_one_does_not() -> None:
    lease = holder()
    split(lease)
    later = record(holder="c", epoch=4, serial=10, nonce="n10", electorate=("b", "c"))
    lease.learn(KnownRecord(later, "w10"), 3 * SECOND)
    assert lease.durable.evidence is not None
    healed = record(holder="b", epoch=1_000_000, serial=11, nonce="n11", origin="n11")
    lease.learn(KnownRecord(healed, "w11"), 4 * SECOND)
    assert lease.durable.evidence is None
    assert lease.acting_epoch(4 * SECOND) is None
    assert lease.answer_promise("b", KnownRecord(healed, "w11"), 4 * SECOND) is None


def test_a_register_that_shows_nothing_ends_no_validity_and_one_that_shows_another_does() -> None:
    lease = holder()
    lease.begin_swap(lease.next_record(reason="bench", at="", nonce="n6"), "renew", SECOND, "v5")
    lease.on_lost(None, 2 * SECOND)
    assert (lease.open, lease.acting_epoch(2 * SECOND)) == (None, 3)
    lease.begin_swap(lease.next_record(reason="bench", at="", nonce="n7"), "renew", SECOND, "v5")
    lease.on_lost(KnownRecord(record(serial=4, nonce="n4"), "v4"), 2 * SECOND)
    assert lease.acting_epoch(2 * SECOND) is None
