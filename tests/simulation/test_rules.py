"""Every rule of the lease is needed: without it, its schedule breaks a promise; with it, none."""

from __future__ import annotations

from dataclasses import fields

import pytest

from instar_node.coordination.lease_mutations import Mutations
from tests.simulation.oracle import Violation
from tests.simulation.schedules import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.flag}-{case.schedule.__name__}")
def test_a_schedule_passes_with_its_rule_and_fails_without_it(case: Case) -> None:
    case.play(without_rule=False)
    with pytest.raises(Violation):
        case.play(without_rule=True)


def test_every_rule_that_can_be_switched_off_has_a_schedule() -> None:
    assert {field.name for field in fields(Mutations)} == {case.flag for case in CASES}
