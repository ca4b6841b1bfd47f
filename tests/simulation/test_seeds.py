"""Two thousand worlds, each with faults of its own: the promises of the lease hold after every step."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import run_seed, run_seeds

SEEDS = 2_000
CHUNK = 125


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_at_most_one_machine_acts_and_nothing_acknowledged_is_lost(first: int) -> None:
    tally = run_seeds(range(first, first + CHUNK))
    assert not tally.broken, "\n".join(f"--seed {seed}: {what}" for seed, what in tally.broken)
    assert tally.epochs > CHUNK, "the worlds are too quiet to show anything"
    assert tally.acknowledged > CHUNK


def test_a_seed_replays_exactly() -> None:
    one, other = (run_seed(7, steps=1_000, trace=True).trace for _ in range(2))
    assert one == other
