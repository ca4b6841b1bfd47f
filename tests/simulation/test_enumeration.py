"""Small worlds, every interleaving: at most one machine acts, and what it acknowledges is safe."""

from __future__ import annotations

import pytest

from instar_node.coordination.lease_mutations import Mutations
from tests.simulation.enumeration import SCOPES, Scope, enumerate_scope


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_no_interleaving_breaks_a_promise(scope: Scope, capsys: pytest.CaptureFixture[str]) -> None:
    found = enumerate_scope(scope)
    with capsys.disabled():
        print(f"\n{scope.name}: {found.states} states, {found.steps} steps")
    assert found.violation is None, f"{found.violation}: {'; '.join(found.path)}"
    assert found.states > 1_000


@pytest.mark.parametrize(
    ("flag", "scope"),
    [
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
    ],
)
def test_an_interleaving_that_goes_wrong_without_a_rule_is_found(flag: str, scope: int) -> None:
    assert enumerate_scope(SCOPES[scope], Mutations(**{flag: True})).violation is not None
