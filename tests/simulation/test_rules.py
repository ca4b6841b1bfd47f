"""Every rule of the lease is needed: without it, its schedule breaks a promise; with it, none."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from instar_node.coordination.lease_mutations import Mutations
from tests.simulation.mutants import CASES, ELSEWHERE, Case, Elsewhere
from tests.simulation.oracle import Violation


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.flag}-{case.schedule.__name__}")
def test_a_schedule_passes_with_its_rule_and_fails_without_it(case: Case) -> None:
    case.play(without_rule=False)
    with pytest.raises(Violation):
        case.play(without_rule=True)


def test_every_rule_that_can_be_switched_off_has_a_schedule() -> None:
    assert {field.name for field in fields(Mutations)} == {case.flag for case in CASES}


@pytest.mark.parametrize("row", ELSEWHERE, ids=lambda row: row.rule.split(":")[0])
def test_the_table_names_tests_that_exist(row: Elsewhere) -> None:
    for test in (row.test, row.without_rule):
        path, name = test.split("::")
        assert f"async def {name}(" in (Path(__file__).parents[2] / path).read_text()
