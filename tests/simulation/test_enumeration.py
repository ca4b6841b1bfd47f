"""Small worlds, every interleaving: at most one machine acts, and what it acknowledges is safe."""

from __future__ import annotations

import pytest

from instar_node.coordination.lease_mutations import Mutations
from tests.simulation.enumeration import SCOPES, Scope, enumerate_scope
from tests.simulation.mutants import ENUMERATED


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_no_interleaving_breaks_a_promise(scope: Scope, capsys: pytest.CaptureFixture[str]) -> None:
    found = enumerate_scope(scope)
    with capsys.disabled():
        print(f"\n{scope.name}: {found.states} states, {found.steps} steps")
    assert found.violation is None, f"{found.violation}: {'; '.join(found.path)}"
    assert found.states > 1_000


@pytest.mark.parametrize(("flag", "scope"), ENUMERATED)
def test_an_interleaving_that_goes_wrong_without_a_rule_is_found(flag: str, scope: int) -> None:
    assert enumerate_scope(SCOPES[scope], Mutations(**{flag: True})).violation is not None
