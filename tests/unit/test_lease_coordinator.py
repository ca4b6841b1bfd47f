"""What the coordinator does of itself: when it reads, asks, contends, and when it leaves things to others."""

from __future__ import annotations

from typing import Any

from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_coordinator import (
    AskPromises,
    Effect,
    LeaseCoordinator,
    ReadHub,
    SendClosing,
    SendSwap,
)
from instar_node.coordination.lease_state import DurableLease, LeaseTiming
from instar_node.coordination.record import KnownRecord, LeaseRecord

SECOND = 1_000_000
TIMING = LeaseTiming(ttl=6 * SECOND, round=2 * SECOND, bench_ttl=120 * SECOND, drift=0.01)


class Peers:
    """All others, connected and level; ``known`` have shown their newest record."""

    def __init__(self, *known: str, missing: frozenset[str] = frozenset()) -> None:
        self.known = set(known)
        self._missing = missing

    def missing(self) -> frozenset[str]:
        return self._missing

    def connected(self, machine: str) -> bool:
        return True

    def caught_up(self, machine: str) -> bool:
        return True

    def compared(self, machine: str) -> bool:
        return machine in self.known


def record(**changes: Any) -> KnownRecord:
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
    return KnownRecord(LeaseRecord(**{**fields, **changes}), "v5")


def coordinator(known: KnownRecord, incarnation: str = "a2", *, baton: bool = False) -> LeaseCoordinator:
    lease = FencedLease("a", incarnation, TIMING, DurableLease(newest=known), baton=baton)
    made = LeaseCoordinator(lease, lambda: "n6", lambda: "")
    made.boot(0)
    return made


def holder() -> LeaseCoordinator:
    """Machine ``a`` has just won ``record()`` at 0."""
    made = coordinator(KnownRecord(record(epoch=2, serial=4, nonce="n4").record, "v4"), "a1")
    made.lease.begin_swap(record().record, "contend", 0, "v4")
    made.on_won(record(), 0)
    return made


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def test_a_lapsed_holder_reads_at_once_and_asks_only_when_the_register_still_shows_its_record() -> None:
    made = holder()
    made.tick(0, Peers())
    lapse = made.lease.deadline
    assert made.next_wake(lapse - 1) <= lapse + 1_000
    assert kinds(made.tick(lapse, Peers())) == [ReadHub]
    made.on_read(record(), (3, 5), lapse, lapse + 1)
    assert kinds(made.tick(lapse + 1, Peers())) == [AskPromises]
    made.on_promise("b", "v5", lapse + 1, lapse + 2)
    assert made.lease.acting_epoch(lapse + 2) == 3


def test_a_lapsed_holder_whose_hub_is_away_asks_nobody_and_does_not_spin() -> None:
    made = holder()
    made.tick(0, Peers())
    lapse = made.lease.deadline
    made.tick(lapse, Peers())
    made.on_read_failed(lapse + SECOND)
    assert made.tick(lapse + SECOND, Peers()) == []
    assert made.next_wake(lapse + SECOND) == lapse + SECOND + TIMING.round


def test_a_holder_that_cannot_even_ask_its_hub_to_bench_a_machine_does_not_spin() -> None:
    made = holder()
    made.on_slow("b")
    assert SendSwap in kinds(made.tick(SECOND, Peers()))
    made.on_unsent(SECOND)
    made.on_slow("b")
    assert made.lease.open is None
    assert SendSwap not in kinds(made.tick(SECOND + 1, Peers()))
    assert made.next_wake(SECOND + 1) >= TIMING.round
    assert SendSwap in kinds(made.tick(SECOND + TIMING.round, Peers()))


def test_who_waits_for_a_hub_that_hangs_does_not_spin() -> None:
    made = holder()
    made.read_now(SECOND)
    made.on_slow("b")
    assert {ReadHub, SendSwap} <= set(kinds(made.tick(SECOND, Peers())))
    turn = SECOND + TIMING.round
    assert made.next_wake(SECOND + 1) == turn, "nothing to do before its next round"
    made.on_unknown(SECOND + 1, 1)
    again = made.next_wake(SECOND + 1)
    assert SendSwap in kinds(made.tick(again, Peers()))
    assert again < made.next_wake(again) == turn


def test_a_split_brain_leaves_an_open_swap_alone_and_does_not_spin() -> None:
    made = holder()
    made.on_slow("b")
    made.tick(SECOND, Peers())
    made.on_unknown(SECOND, 1)
    other = record(holder="z", nonce="other")
    made.lease.learn(KnownRecord(other.record, "other"), SECOND)
    assert made.lease.durable.evidence is not None
    assert made.tick(SECOND, Peers()) == []
    assert made.next_wake(60 * SECOND) >= made.next_wake(SECOND) == TIMING.ttl


def test_a_read_of_the_own_register_that_a_swap_overtook_says_nothing_of_its_tip() -> None:
    made = coordinator(record(), "a1", baton=True)
    made.own_tip = "v5"
    began = [SECOND, made.lease.order]
    made.tick(SECOND, Peers())
    made.lease.begin_swap(record(epoch=4, serial=6, nonce="n6").record, "contend", SECOND, "v5")
    made.on_won(record(epoch=4, serial=6, nonce="n6"), SECOND + 2)
    made.on_read(record(), began[1], began[0], SECOND + 3)
    assert made.own_tip == record(epoch=4, serial=6, nonce="n6").version


def test_a_machine_whose_disk_refuses_collects_no_promises() -> None:
    made = holder()
    made.able = False
    assert AskPromises not in kinds(made.tick(3 * SECOND, Peers()))
    made.able = True
    assert AskPromises in kinds(made.tick(3 * SECOND, Peers()))


def test_who_gave_the_lease_up_does_not_race_its_successor() -> None:
    made = holder()
    made.tick(0, Peers())
    late = 100 * SECOND
    made.lease.cease("v5")
    assert SendSwap not in kinds(made.tick(late, Peers()))
    assert SendSwap not in kinds(made.tick(late + TIMING.ttl, Peers()))
    assert SendSwap in kinds(made.tick(late + TIMING.wait(TIMING.ttl), Peers()))


def test_a_read_overtaken_by_a_takeover_is_counted_and_raises_nothing() -> None:
    made = coordinator(record(), "a1")
    made.tick(0, Peers())
    newer = record(epoch=4, serial=6, prev="v5", holder="b", nonce="n6")
    made.lease.learn(KnownRecord(newer.record, "v6"), 1)
    made.on_read(record(), (3, 5), 0, 2)
    assert made.counters == {"reads_overtaken": 1}
    assert made.lease.suspicion is None


def test_a_lone_holder_gives_who_is_admitted_later_the_ordinary_time_to_answer() -> None:
    made = coordinator(KnownRecord(record(epoch=2, serial=4, nonce="n4").record, "v4"), "a1")
    alone = record(electorate=("a",))
    made.lease.begin_swap(alone.record, "contend", 0, "v4")
    made.on_won(alone, 0)
    made.tick(0, Peers())
    made.membership.wishes.admit.add("b")
    (swap,) = (e.swap for e in made.tick(1, Peers()) if isinstance(e, SendSwap))
    made.on_won(KnownRecord(swap.record, "v6"), 2)
    (ask,) = (e for e in made.tick(TIMING.round, Peers()) if isinstance(e, AskPromises))
    assert ask.within == TIMING.round


def test_an_embedded_holder_that_restarts_asks_everybody_first_but_not_for_ever() -> None:
    for known, due in (((), TIMING.ttl), (("b",), 0)):
        made = coordinator(record(), baton=True)
        made.on_own_register(record(), 0)
        peers = Peers(*known)
        made.tick(0, peers)
        if due:
            assert SendSwap not in kinds(made.tick(due - 1, peers))
            assert made.next_wake(due - 1) <= due + 1_000
        assert made.lease.open is not None or SendSwap in kinds(made.tick(due, peers))


def test_a_closer_that_restarted_asks_everybody_before_it_sends_its_closing_again() -> None:
    closing = record(state="closed", successor="b")
    made = coordinator(closing, baton=True)
    made.on_own_register(closing, 0)
    assert SendClosing not in kinds(made.tick(0, Peers()))
    assert SendClosing in kinds(made.tick(1, Peers("b")))
    awake = coordinator(closing, "a1", baton=True)
    assert SendClosing in kinds(awake.tick(0, Peers()))


def test_the_record_names_a_machine_incomplete_until_its_rows_are_here() -> None:
    made = coordinator(KnownRecord(record(epoch=2, serial=4, nonce="n4").record, "v4"), "a1")
    taken = record(incomplete=("b", "c"))
    made.lease.begin_swap(taken.record, "contend", 0, "v4")
    made.on_won(taken, 0)
    assert SendSwap not in kinds(made.tick(0, Peers(missing=frozenset("bc"))))
    (swap,) = (e.swap for e in made.tick(1, Peers(missing=frozenset("c"))) if isinstance(e, SendSwap))
    assert (swap.record.incomplete, swap.record.reason) == (("c",), "has more rows")


def test_an_embedded_holder_whose_closing_never_left_comes_back_by_a_swap() -> None:
    made = coordinator(KnownRecord(record(epoch=2, serial=4, nonce="n4").record, "v4"), "a1", baton=True)
    made.on_own_register(None, 0)
    made.lease.begin_swap(record().record, "contend", 0, None)
    made.on_won(record(), 0)
    made.lease.cease("v5")
    closing = made.lease.next_record(reason="", at="", nonce="n6", state="closed", successor="b")
    made.begin(closing, "close", 0)
    made.on_unsent(0)
    made.tick(0, Peers("b"))
    late = TIMING.wait(TIMING.ttl)
    swaps = [effect for effect in made.tick(late, Peers("b")) if isinstance(effect, SendSwap)]
    assert [swap.swap.record.epoch for swap in swaps] == [4]


def test_who_gave_the_lease_up_leaves_it_to_others_for_a_ttl_and_may_be_given_it_back_at_once() -> None:
    made = holder()
    made.lease.cease("v5")
    left_until = SECOND + TIMING.wait(TIMING.ttl)
    assert SendSwap not in kinds(made.tick(SECOND, Peers("b")))
    assert SendSwap not in kinds(made.tick(left_until - 1, Peers("b")))
    theirs = record(epoch=4, serial=6, prev="v5", holder="b", incarnation="b1", nonce="n6").record
    made.lease.learn(KnownRecord(theirs, "v6"), 2 * SECOND)
    assert made.lease.accept_token("v6", "b")
    assert made.next_wake(2 * SECOND) < 3 * SECOND
    assert SendSwap in kinds(made.tick(2 * SECOND, Peers("b")))


def test_who_gave_the_lease_up_and_nobody_took_it_goes_on_after_a_ttl_and_does_not_spin_before() -> None:
    made = holder()
    made.lease.cease("v5")
    left_until = SECOND + TIMING.wait(TIMING.ttl)
    made.tick(SECOND, Peers("b"))
    assert kinds(made.tick(TIMING.ttl, Peers("b"))) == [ReadHub]
    assert made.next_wake(TIMING.ttl) == left_until
    assert SendSwap in kinds(made.tick(left_until, Peers("b")))


def test_who_lacks_the_state_that_the_lease_vouches_for_does_not_take_over_and_does_not_spin() -> None:
    made = coordinator(record(holder="b", incarnation="b1"))
    current, later = False, TIMING.wait(TIMING.ttl) + 1
    made.current = lambda: current
    assert SendSwap not in kinds(made.tick(later, Peers("b")))
    made.tick(later, Peers("b"))
    assert made.next_wake(later) > later + SECOND
    current = True
    assert made.next_wake(later) < later + SECOND
    assert SendSwap in kinds(made.tick(later, Peers("b")))


def test_a_healing_whose_outcome_is_unknown_is_sent_again_and_the_dispute_stands_until_it_is_won() -> None:
    made = holder()
    other = KnownRecord(record(holder="z", nonce="other").record, "other")
    made.lease.learn(other, SECOND)
    healed = made.lease.force_record(at="", nonce="healed")
    made.lease.heal()
    made.begin(healed, "contend", SECOND)
    made.on_unknown(SECOND, 1)
    again = made.next_wake(SECOND)
    assert again < made.next_wake(again + TIMING.ttl)
    assert SendSwap in kinds(made.tick(again, Peers()))
    assert made.lease.durable.evidence is not None
    assert made.lease.may_contend_at(again) == "split-brain"
    made.on_won(KnownRecord(healed, "v6"), again)
    assert made.lease.durable.evidence is None
    assert made.lease.acting_epoch(again) == 1_000_000


def test_nor_when_the_lease_is_released_or_handed_to_it() -> None:
    released = coordinator(record(holder="b", incarnation="b1", state="released"))
    handed = coordinator(record(holder="b", incarnation="b1"))
    assert handed.lease.accept_token("v5", "b")
    for made in (released, handed):
        made.current = lambda: False
        assert SendSwap not in kinds(made.tick(1, Peers("b")))
        made.current = lambda: True
        assert SendSwap in kinds(made.tick(2, Peers("b")))


def test_after_a_restart_a_holder_goes_on_without_the_state_and_takes_nothing_over() -> None:
    made = coordinator(record())
    made.current = lambda: False
    assert not made.lacks_state
    assert SendSwap in kinds(made.tick(TIMING.wait(TIMING.ttl) + 1, Peers("b")))
