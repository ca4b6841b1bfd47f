"""``python -m tests.simulation``: more seeds than the test run has, and a failing one replayed.

``--seeds N [--first S]`` runs so many worlds on all cores; ``--seed S`` replays one and prints its events;
``--small`` enumerates the small worlds; ``--mutants`` prints for each rule the schedule that breaks a promise
without it.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.enumeration import SCOPES, enumerate_scope
from tests.simulation.oracle import Violation
from tests.simulation.schedules import CASES
from tests.simulation.seeds import STEPS, Tally, play, run_seeds, start
from tests.simulation.settings import settings_of

CHUNK = 50


def replay(seed: int, steps: int, lines: int) -> int:
    """Print the last lines of one world; 1 if it broke a promise."""
    settings = settings_of(seed)
    world = start(settings, trace=True)
    try:
        play(world, steps)
    except Violation:
        broken = True
    else:
        broken = False
    assert world.trace is not None
    print(settings, *world.trace[-lines:], sep="\n")
    return int(broken)


def many(first: int, count: int, steps: int) -> int:
    """Run many worlds; 1 if any broke a promise."""
    total = Tally()
    chunks = [range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK)]
    with ProcessPoolExecutor() as pool:
        for tally in pool.map(run_seeds, chunks, [steps] * len(chunks)):
            total.add(tally)
            for seed, what in tally.broken:
                print(f"seed {seed}: {what}  (replay: python -m tests.simulation --seed {seed})")
    print(total)
    return int(bool(total.broken))


def mutants() -> int:
    """Print the table of rules and schedules; 1 if one of them is not needed."""
    missed = 0
    for case in CASES:
        outcomes = []
        for without_rule in (False, True):
            try:
                case.play(without_rule=without_rule)
            except Violation as violation:
                outcomes.append(str(violation))
            else:
                outcomes.append("passes")
        good = outcomes[0] == "passes" != outcomes[1]
        missed += not good
        print(f"{'caught' if good else 'MISSED'}  {case.flag:26} {case.schedule.__name__:32} {case.rule}")
        print(f"        without it: {outcomes[1]}" if good else f"        {outcomes}")
    print(f"{len(CASES)} schedules, {len({case.flag for case in CASES})} rules switched off, {missed} missed")
    return int(bool(missed))


def small() -> int:
    """Enumerate every small world; 1 if a promise can be broken in one."""
    broken = 0
    for scope in SCOPES:
        found = enumerate_scope(scope)
        print(f"{scope.name}: {found.states} states, {found.steps} steps")
        if found.violation is not None:
            broken += 1
            print(f"  {found.violation}: {'; '.join(found.path)}")
    return int(bool(broken))


def main(arguments: list[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, help="replay one")
    parser.add_argument("--lines", type=int, default=400, help="how much of its trace to print")
    parser.add_argument("--mutants", action="store_true", help="every rule switched off in turn")
    parser.add_argument("--small", action="store_true", help="every interleaving of small worlds")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return replay(options.seed, options.steps, options.lines)
    if options.small:
        return small()
    if options.mutants:
        return mutants()
    return many(options.first, options.seeds, options.steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
