"""Whom a holder waits for before it acts on what is older than its epoch."""

from __future__ import annotations

from instar_node.delivery.hearing import ROUND_US, Hearing

BC = frozenset("bc")


def test_those_within_reach_are_waited_for_until_they_reported_or_the_round_is_over() -> None:
    hearing = Hearing()
    hearing.begin(BC, now=1_000)
    assert hearing.wait_us(BC, 1_000) == ROUND_US
    hearing.hear("b")
    assert hearing.wait_us(BC, 1_010) == ROUND_US - 10
    assert hearing.wait_us(BC, 1_000 + ROUND_US) == 0
    hearing.hear("c")
    assert hearing.wait_us(BC, 1_010) == 0


def test_a_machine_that_leaves_or_comes_later_is_not_waited_for() -> None:
    hearing = Hearing()
    hearing.begin({"b"}, now=0)
    assert hearing.wait_us(frozenset(), 10) == 0
    hearing.hear("b")
    assert hearing.wait_us(BC, 10) == 0


def test_a_ledger_that_went_back_waits_for_all_within_reach_however_long_it_takes() -> None:
    hearing = Hearing()
    hearing.begin(BC, now=0)
    hearing.hear("b")
    hearing.distrust()
    assert hearing.wait_us(BC, 100 * ROUND_US) is None
    assert hearing.wait_us(frozenset({"b"}), 100 * ROUND_US) == 0
    assert hearing.unheard("bcd") == {"c", "d"}


def test_each_epoch_asks_anew() -> None:
    hearing = Hearing()
    hearing.begin(BC, now=0)
    hearing.hear("b")
    hearing.distrust()
    hearing.begin({"b"}, now=50)
    assert hearing.wait_us(BC, 50) == ROUND_US
    assert not hearing.distrusted
