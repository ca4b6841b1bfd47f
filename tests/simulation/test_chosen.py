"""Small worlds with coordinator, ledger, baton and hub move: no interleaving breaks a promise."""

from __future__ import annotations

import pytest

from instar_node.coordination.lease_mutations import Mutations
from tests.simulation.chosen_scopes import CHOSEN, ChosenScope, enumerate_chosen


@pytest.mark.parametrize("scope", CHOSEN, ids=lambda scope: scope.name)
def test_no_interleaving_breaks_a_promise(scope: ChosenScope, capsys: pytest.CaptureFixture[str]) -> None:
    found = enumerate_chosen(scope)
    with capsys.disabled():
        print(f"\n{scope.name}: {found.states} states, {found.steps} steps")
    assert found.violation is None, f"{found.violation}: {'; '.join(found.path)}"
    assert found.states > 30


@pytest.mark.parametrize(
    ("flag", "scope"), [("act_unsupported", 0), ("trust_earlier_incarnation", 0), ("reopen_one_epoch_up", 4)]
)
def test_an_interleaving_that_goes_wrong_without_a_rule_is_found(flag: str, scope: int) -> None:
    assert enumerate_chosen(CHOSEN[scope], Mutations(**{flag: True})).violation is not None
