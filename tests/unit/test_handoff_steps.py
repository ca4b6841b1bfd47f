"""The steps of a change of holder: their order and their ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar_node.handoff.steps import PLANS, HandoffStep, Kind, OutOfOrder, Steps

NAMES = ("prepare", "tail_synced", "ingress_fenced", "drained", "waiting", "yielded", "committed", "dance")


def test_a_handoff_takes_its_steps_in_order_with_their_times() -> None:
    steps = Steps("handoff", began=1_000)
    for n, name in enumerate(PLANS["handoff"][1:], 1):
        assert steps.advance(name, 1_000 + n * 1_500, "why") == HandoffStep(name, n * 1.5, "why")
    steps.end("awake", 11_000)
    assert (steps.ending, steps.elapsed_ms(99_000)) == ("awake", 10.0)


@pytest.mark.parametrize("step", ["prepare", "ingress_fenced", "yielded", "committed", "waiting"])
def test_no_step_is_skipped_or_repeated(step: str) -> None:
    steps = Steps("handoff", 0)
    with pytest.raises(OutOfOrder):
        steps.advance(step, 1)  # type: ignore[arg-type]


def test_awake_only_after_the_last_step_and_nothing_after_the_end() -> None:
    steps = Steps("handoff", 0)
    with pytest.raises(OutOfOrder):
        steps.end("awake", 1)
    steps.end("aborted", 1, "no")
    assert steps.reason == "no"
    for late in (lambda: steps.advance("tail_synced", 2), lambda: steps.end("failed", 2)):
        with pytest.raises(OutOfOrder):
            late()
    assert steps.reach("committed", 3) == []


def test_a_follower_makes_up_for_steps_it_did_not_hear_of() -> None:
    steps = Steps("handoff", 0)
    new = steps.reach("drained", 5_000, "2 left")
    assert [step.step for step in new] == ["tail_synced", "ingress_fenced", "drained"]
    assert [step.note for step in new] == ["", "", "2 left"]
    assert steps.reach("tail_synced", 6_000) == []
    assert steps.reach("dance", 6_000) == []


def test_a_wish_that_the_holder_cannot_hear_goes_on_as_a_takeover_with_its_own_steps() -> None:
    steps = Steps("handoff", 0)
    steps.turn("takeover")
    steps.advance("waiting", 1_000)
    steps.advance("committed", 2_000)
    steps.end("awake", 2_000)
    assert [step.step for step in steps.taken] == list(PLANS["takeover"])


@given(st.sampled_from(list(PLANS)), st.lists(st.sampled_from(NAMES), max_size=12))
def test_whatever_a_peer_claims_the_steps_are_a_beginning_of_the_plan(kind: Kind, heard: list[str]) -> None:
    steps = Steps(kind, 0)
    for name in heard:
        steps.reach(name, 1)
        assert tuple(step.step for step in steps.taken) == PLANS[kind][: len(steps.taken)]
