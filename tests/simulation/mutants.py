"""All rules of the lease, and what catches each one that is switched off."""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation import schedules, schedules_driving, schedules_passing
from tests.simulation.cases import CASES, Case

__all__ = ["CASES", "ELSEWHERE", "ENUMERATED", "Case", "Elsewhere"]

SCHEDULES = (schedules, schedules_passing, schedules_driving)
"""Importing them notes their cases."""


class Elsewhere(NamedTuple):
    """A rule over files and real repositories, whose schedule runs there: a test, and the one without it."""

    rule: str
    test: str
    without_rule: str


ELSEWHERE = (
    Elsewhere(
        "rule 7: a new holder first puts a fence onto the state, so that late pushes of the old one fail",
        "tests/unit/test_sync_hostile_hub.py::"
        "test_a_late_push_of_the_old_holder_fails_and_its_edit_arrives_by_the_queue",
        "tests/unit/test_sync_hostile_hub.py::test_without_a_fence_a_late_push_of_the_old_holder_would_land",
    ),
)

ENUMERATED = (
    ("time_from_reply", 0),
    ("trust_earlier_incarnation", 0),
    ("act_unsupported", 0),
    ("waits_survive_boot", 0),
    ("promise_not_waited_out", 1),
    ("promise_while_swap_open", 1),
    ("act_after_ceased", 3),
    ("adopt_released", 3),
    ("time_from_win", 3),
    ("majority", 4),
    ("no_margin", 5),
    ("ack_by_one_electorate", 5),
    ("benched_waits_short", 5),
    ("bench_into_electorate", 5),
)
"""Rules whose absence an enumerated world finds, too, and the number of the world."""
